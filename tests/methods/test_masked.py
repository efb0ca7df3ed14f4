"""Masking is of the second view alone, and only while training."""

import torch

from benchmark.losses import info_nce
from tests.methods.fakes import Pairs, small_method


def test_loss_is_the_mean_of_two_contrasts() -> None:
    method = small_method("masked").double()
    image, text, view = (torch.nn.functional.normalize(torch.randn(4, 6).double(), dim=-1) for _ in range(3))
    terms = method.contrast({"image": image, "text": text, "view": view}, {})
    scale = method.logit_scale.exp()
    torch.testing.assert_close(
        sum(terms.values()), (info_nce(image, text, scale) + info_nce(image, view, scale)) / 2
    )  # fmt: skip


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
