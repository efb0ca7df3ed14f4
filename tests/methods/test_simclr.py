"""The image-image terms against loops, and the views that they see."""

import pytest
import torch
from pytorch_metric_learning.losses import NTXentLoss

from benchmark.config.augmentation import Augmentation
from benchmark.losses import nt_xent
from benchmark.method import Method
from tests.methods.fakes import Pairs, small_method
from tests.methods.loops import nce_loop, nt_xent_loop, unit


def test_nt_xent_agrees_with_a_loop() -> None:
    for n in (1, 2, 5):
        a, b = unit(n, 1), unit(n, 2)
        assert nt_xent(a, b, 0.1).item() == pytest.approx(nt_xent_loop(a, b, 0.1), abs=1e-12)


def test_nt_xent_is_pytorch_metric_learnings() -> None:
    a, b = unit(7, 3), unit(7, 4)
    theirs = NTXentLoss(temperature=0.3)(torch.cat([a, b]), torch.arange(7).repeat(2))
    torch.testing.assert_close(nt_xent(a, b, 0.3), theirs, rtol=0, atol=1e-12)


def method_of(variant: str) -> Method:
    return small_method("simclr", variant=variant).double()


def test_slip_adds_nt_xent_of_two_strong_views() -> None:
    method = method_of("slip")
    image, text, a, b = (unit(5, seed) for seed in range(4))
    terms = method.contrast({"image": image, "text": text, "view_a": a, "view_b": b}, {"index": torch.arange(5)})
    assert terms["contrastive"].item() == pytest.approx(nce_loop(image, text, float(method.temperature_scale)))
    assert terms["views"].item() == pytest.approx(nt_xent_loop(a, b, 0.1))


def test_roy_weighs_four_terms_alike() -> None:
    method = method_of("roy")
    image, text, view = (unit(5, seed) for seed in range(3))
    terms = method.contrast({"image": image, "text": text, "view": view}, {"index": torch.arange(5)})
    scale = float(method.temperature_scale)
    expected = (nce_loop(image, text, scale) + nce_loop(image, view, scale)) / 2
    assert sum(terms.values()).item() == pytest.approx(expected)


@pytest.mark.parametrize("weight", [0.0, 0.25])
@pytest.mark.parametrize("variant", ["slip", "roy"])
def test_the_weight_is_that_of_the_views(variant: str, weight: float) -> None:
    """Of a sum in slip and of a mean in roy; without it, both are clip."""
    method = small_method("simclr", variant=variant, weight=weight).double()
    image, text, a, b = (unit(5, seed) for seed in range(4))
    embeddings = {"image": image, "text": text, "view": b, "view_a": a, "view_b": b}
    loss = sum(method.contrast(embeddings, {"index": torch.arange(5)}).values()).item()
    scale = float(method.temperature_scale)
    clip = nce_loop(image, text, scale)
    expected = clip + weight * nt_xent_loop(a, b, 0.1)
    if variant == "roy":
        expected = (clip + weight * nce_loop(image, b, scale)) / (1 + weight)
    assert loss == pytest.approx(expected, abs=1e-12)
    assert weight or loss == pytest.approx(clip, abs=1e-12)


def test_slip_pairs_the_text_with_the_runs_own_view() -> None:
    method, batch = small_method("simclr").eval(), Pairs(4).sequential(0, 4)
    embeddings = method(batch).embeddings
    torch.testing.assert_close(embeddings["image"], method.model.encode_image(batch.view()))
    assert not torch.allclose(embeddings["view_a"], embeddings["view_b"])


def test_roys_second_view_is_another_crop() -> None:
    """The run's own, as with the first view, or one of a size that the method is given."""
    batch = Pairs(4, augmentation=Augmentation(crop_scale=(0.5, 0.5))).sequential(0, 4)
    embeddings = small_method("simclr", variant="roy").eval()(batch).embeddings
    assert not torch.allclose(embeddings["image"], embeddings["view"])
    still = Pairs(4, augmentation=Augmentation.none()).sequential(0, 4)
    method = small_method("simclr", variant="roy", view_scale=(0.5, 0.5)).eval()
    embeddings = method(still).embeddings
    torch.testing.assert_close(embeddings["image"], method.model.encode_image(still.view()))
    crop = still.view(1, Augmentation(crop_scale=(0.5, 0.5)))
    torch.testing.assert_close(embeddings["view"], method.model.encode_image(crop))
    assert not torch.allclose(embeddings["image"], embeddings["view"])


def test_heads_need_no_batch() -> None:
    method, batch = small_method("simclr").train(), Pairs(6).sequential(0, 6)
    whole = method(batch).embeddings["view_a"]
    part = method(Pairs(6).sequential(0, 2)).embeddings["view_a"]
    torch.testing.assert_close(whole[:2], part)
