"""The image-image terms against loops, and the views that they see."""

import math

import pytest
import torch
from torch import Tensor

from benchmark.losses import nt_xent
from benchmark.method import Method
from tests.methods.fakes import Pairs, small_method


def unit(n: int, seed: int, width: int = 6) -> Tensor:
    x = torch.randn(n, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=-1)


def nt_xent_loop(a: Tensor, b: Tensor, temperature: float) -> float:
    """Equation 1 of SimCLR: the mean over 2n views of -log exp(s(i, j) / t) / sum over k != i of exp(s(i, k) / t)."""
    views, n = [*a, *b], len(a)
    total = 0.0
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        s = [float(views[i] @ views[k]) / temperature for k in range(2 * n)]
        total -= s[j] - math.log(sum(math.exp(s[k]) for k in range(2 * n) if k != i))
    return total / (2 * n)


def nce_loop(a: Tensor, b: Tensor, scale: float) -> float:
    total = 0.0
    for x, y in ((a, b), (b, a)):
        for i in range(len(x)):
            s = [scale * float(x[i] @ y[k]) for k in range(len(y))]
            total -= s[i] - math.log(sum(map(math.exp, s)))
    return total / (2 * len(a))


def test_nt_xent_agrees_with_a_loop() -> None:
    for n in (1, 2, 5):
        a, b = unit(n, 1), unit(n, 2)
        assert nt_xent(a, b, 0.1).item() == pytest.approx(nt_xent_loop(a, b, 0.1), abs=1e-12)


def test_nt_xent_agrees_with_lightly() -> None:
    loss = pytest.importorskip("lightly.loss").NTXentLoss(temperature=0.3)
    a, b = unit(7, 3).float(), unit(7, 4).float()
    torch.testing.assert_close(nt_xent(a, b, 0.3), loss(a, b))


def method_of(variant: str) -> Method:
    return small_method("simclr", variant=variant).double()


def test_slip_adds_nt_xent_of_two_strong_views() -> None:
    method = method_of("slip")
    image, text, a, b = (unit(5, seed) for seed in range(4))
    terms = method.contrast({"image": image, "text": text, "view_a": a, "view_b": b}, {})
    assert terms["contrastive"].item() == pytest.approx(nce_loop(image, text, method.temperature_scale))
    assert terms["views"].item() == pytest.approx(nt_xent_loop(a, b, 0.1))


def test_roy_weighs_four_terms_alike() -> None:
    method = method_of("roy")
    image, text, view = (unit(5, seed) for seed in range(3))
    terms = method.contrast({"image": image, "text": text, "view": view}, {})
    scale = method.temperature_scale
    expected = (nce_loop(image, text, scale) + nce_loop(image, view, scale)) / 2
    assert sum(terms.values()).item() == pytest.approx(expected)


def test_slip_pairs_the_text_with_the_runs_own_view() -> None:
    method, batch = small_method("simclr").eval(), Pairs(4).sequential(0, 4)
    embeddings = method(batch).embeddings
    torch.testing.assert_close(embeddings["image"], method.model.encode_image(batch.view()))
    assert not torch.allclose(embeddings["view_a"], embeddings["view_b"])


def test_heads_need_no_batch() -> None:
    method, batch = small_method("simclr").train(), Pairs(6).sequential(0, 6)
    whole = method(batch).embeddings["view_a"]
    part = method(Pairs(6).sequential(0, 2)).embeddings["view_a"]
    torch.testing.assert_close(whole[:2], part)
