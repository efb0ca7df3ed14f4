"""Two ranks train as one does: every registered method, in every mode."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmark.common.ranges import SameText
from benchmark.training.accumulation import accumulate, effective_loss
from benchmark.training.ranks import ALONE, Ranks
from tests.methods.cases import AUGMENTATION, CASES, METHOD_MODES, split, warmed
from tests.methods.fakes import Pairs
from tests.methods.pair import Pair, pair_in

QUICK = [pytest.param(name, mode, {}, "negative", id=f"{name}-{mode}") for name, mode in METHOD_MODES]


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair_in(tmp_path_factory.mktemp("ranks")) as both:
        yield both


def step(
    ranks: Ranks, name: str, mode: Any, options: dict[str, object], same_text: SameText, sizes: list[int]
) -> dict[str, dict[str, Any]]:
    """What a step's accumulation leaves."""
    method = warmed(name, same_text, **options)
    batches = split(Pairs(sum(sizes), augmentation=AUGMENTATION, texts=7), sizes)
    losses, keys = accumulate(method, ranks.own(batches), mode, 3, ranks=ranks)
    gradient = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
    method.after_step(keys)
    validation = effective_loss(method.eval(), ranks.own(batches[:1]), 4, ranks=ranks)
    return {
        "gradient": gradient,
        "keys": keys,
        "losses": losses | {"validation": validation},
        "state": dict(method.named_buffers()),
    }


def check(name: str, mode: str, options: dict[str, object], same_text: SameText, sizes: list[int], pair: Pair) -> None:
    first, second = pair(step, name, mode, options, same_text, sizes)
    alone = step(ALONE, name, mode, options, same_text, sizes)
    assert first["losses"] == second["losses"]
    for kind in ("gradient", "keys", "state"):
        assert first[kind].keys() == second[kind].keys() == alone[kind].keys()
        for of, expected in alone[kind].items():
            assert torch.equal(first[kind][of], second[kind][of]), of
            assert (first[kind][of].double() - expected.double()).abs().max() < 1e-9, of


@pytest.mark.parametrize(("name", "mode", "options", "same_text"), QUICK)
def test_two_ranks_give_the_gradient_of_one(
    name: str, mode: str, options: dict[str, object], same_text: SameText, pair: Pair
) -> None:
    check(name, mode, options, same_text, [4, 4, 4, 4, 1], pair)
