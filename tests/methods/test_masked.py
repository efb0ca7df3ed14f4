"""Masking is of the second view alone, and only while training."""

import pytest
import torch

from benchmark.config.augmentation import Augmentation
from tests.methods.fakes import Pairs, small_method
from tests.methods.loops import nce_loop, unit


def test_loss_is_the_mean_of_two_contrasts() -> None:
    method = small_method("masked").double()
    image, text, view = (unit(4, seed) for seed in range(3))
    terms = method.contrast({"image": image, "text": text, "view": view}, {"index": torch.arange(4)})
    scale = float(method.temperature_scale)
    expected = (nce_loop(image, text, scale) + nce_loop(image, view, scale)) / 2
    assert sum(terms.values()).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_the_weight_is_that_of_the_views_in_a_mean(weight: float) -> None:
    method = small_method("masked", weight=weight).double()
    image, text, view = (unit(4, seed) for seed in range(3))
    terms = method.contrast({"image": image, "text": text, "view": view}, {"index": torch.arange(4)})
    scale = float(method.temperature_scale)
    expected = (nce_loop(image, text, scale) + weight * nce_loop(image, view, scale)) / (1 + weight)
    assert sum(terms.values()).item() == pytest.approx(expected, abs=1e-12)


def test_the_second_view_loses_its_share_of_patches_and_the_first_none() -> None:
    method, batch = small_method("masked", mask_ratio=0.75).train(), Pairs(3).sequential(0, 3)
    seen: list[int] = []
    method.model.image.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    method(batch)
    assert seen == [4, 1]  # of 2 x 2 patches
    method.eval()
    method(batch)
    assert seen[2:] == [4, 4]
    assert method.model.image.patch_dropout == 0.0


def test_the_second_view_is_another_crop_where_asked() -> None:
    method = small_method("masked", view_scale=(0.5, 0.5)).eval()
    still = Pairs(4, augmentation=Augmentation.none()).sequential(0, 4)
    crop = still.view(1, Augmentation(crop_scale=(0.5, 0.5)))
    torch.testing.assert_close(method(still).embeddings["view"], method.model.encode_image(crop))
