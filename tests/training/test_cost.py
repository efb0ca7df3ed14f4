"""What a training costs: operations against torch's count of a whole step, a plan's figures against the run's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.flop_counter import FlopCounterMode

from benchmark.config.schema import Training
from benchmark.data.batch import Batch
from benchmark.method import METHODS, Accumulation, Method
from benchmark.models import build_model
from benchmark.training.accumulation import accumulate
from benchmark.training.cost import Shape, flops_per_sample, on_meta, simulated_cost
from tests.methods.fakes import CLASSES, Pairs, Words, small_card, small_method
from tests.training.fakes import CPU, train

LENGTH = 8
MODES = [(name, mode) for name in METHODS.names() for mode in METHODS[name].accumulation]


def pairs_of_one_length(count: int) -> Pairs:
    pairs = Pairs(count)
    pairs.tokens = [np.resize(tokens, LENGTH) for tokens in pairs.tokens]
    return pairs


def shape() -> Shape:
    return Shape.of(pairs_of_one_length(1).sequential(0, 1))


def meta_method(name: str, **options: Any) -> Method:
    """The method of small_method() without weights."""
    model = build_model(small_card(), 0, "meta")
    with on_meta():
        method = METHODS[name](model, METHODS[name].Config(**options))
        method.setup(Words(), CLASSES)  # type: ignore[arg-type]
    return method


def flops(method: Method, batches: list[Batch], mode: Accumulation) -> int:
    with FlopCounterMode(display=False) as counter:
        accumulate(method, batches, mode, 0)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("micro_batch", [24, 6])
@pytest.mark.parametrize(("name", "mode"), MODES)
def test_flops_of_a_step_are_told_by_three_small_ones(name: str, mode: str, micro_batch: int) -> None:
    method, pairs = small_method(name), pairs_of_one_length(24)
    training = Training(steps=1, batch_size=24, micro_batch=micro_batch, validations=0, accumulation=mode)
    batches = [pairs.batch(start, micro_batch) for start in range(0, 24, micro_batch)]
    assert 24 * flops_per_sample(method, pairs.sequential(0, 1), training) == pytest.approx(
        flops(method, batches, mode), rel=1e-9
    )


def test_flops_of_stages_are_counted_apart(tmp_path: Path) -> None:
    method, pairs = small_method("cleft", stage2="class", stage2_share=0.5), pairs_of_one_length(24)
    method.setup(Words(), CLASSES)  # type: ignore[arg-type]
    cost = train(method, tmp_path, pairs, samples=None, steps=4, batch_size=12, micro_batch=4)
    batches = [pairs.batch(start, 4) for start in range(0, 12, 4)]
    expected = 0.0
    for stage in method.stages():
        method.enter(stage)
        expected += 2 * flops(method, batches, "cached")
    assert cost["flops"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("name", "options"), [("clip", {}), ("filip", {}), ("cleft", {"stage2": "class"})])
def test_a_budget_in_flops_is_what_the_training_takes(name: str, options: dict[str, str], tmp_path: Path) -> None:
    method = small_method(name, **options)
    method.setup(Words(), CLASSES)  # type: ignore[arg-type]
    cost = train(method, tmp_path, Pairs(20), samples=None, flops=4e9)
    assert cost["budget"] == "flops=4e+09"
    # Stages begin and end with a step.
    assert cost["flops"] == pytest.approx(4e9, rel=len(method.stages()) / cost["steps"])
    assert cost["steps"] > 4


@pytest.mark.parametrize("micro_batch", [24, 6])
@pytest.mark.parametrize(("name", "mode"), MODES)
def test_a_plan_counts_what_the_run_takes(name: str, mode: Accumulation, micro_batch: int, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"batch_size": 24, "micro_batch": micro_batch, "accumulation": mode}
    cost = train(small_method(name), tmp_path, pairs_of_one_length(48), samples=None, steps=2, **settings)
    planned = simulated_cost(meta_method(name), shape(), Training(steps=2, **settings), CPU, 2)
    assert planned.flops == pytest.approx({"pretrain": cost["flops_per_sample"]}, rel=1e-6)
    assert planned.memory == pytest.approx(cost["peak_memory"], rel=0.15)
