"""What a training costs: operations against torch's count of a whole step, a plan's figures against the run's."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmark.common.errors import PlugInError
from benchmark.config.training import Training
from benchmark.data.batch import Batch
from benchmark.method import METHODS, Accumulation, Embeddings, Keys, Method
from benchmark.models import DualEncoder, build_model, load_model_card
from benchmark.training.accumulation import accumulate
from benchmark.training.cost import (
    SMALL,
    Shape,
    flops_budget_steps,
    flops_per_sample,
    is_small,
    on_meta,
    simulated_cost,
    simulated_flops,
    simulated_or_real,
)
from benchmark.training.memory import TensorPeak
from tests.methods.fakes import CLASSES, Pairs, Words, small_card, small_method
from tests.training.fakes import CPU, meta_method, pairs_of_one_length, shape, train

pytestmark = pytest.mark.usefixtures("counted_each_time")

MODES = [(name, mode) for name in METHODS.names() for mode in METHODS[name].accumulation]


def flops(method: Method, batches: list[Batch], mode: Accumulation) -> int:
    with FlopCounterMode(display=False) as counter:
        accumulate(method, batches, mode, 0)
    return int(counter.get_total_flops())


def with_micro_batches(whole: int, part: int) -> list[tuple[str, Accumulation, int]]:
    """Each method in each mode with one micro-batch and with several; one is ``plain`` in the mode ``cached`` too."""
    one = [(name, mode, whole) for name, mode in MODES if mode != "cached"]
    return one + [(name, mode, part) for name, mode in MODES]


@pytest.mark.parametrize(("name", "mode", "micro_batch"), with_micro_batches(12, 4))
def test_flops_of_a_step_are_told_by_three_small_ones(name: str, mode: str, micro_batch: int) -> None:
    method, pairs = small_method(name), pairs_of_one_length(12)
    training = Training(steps=1, batch_size=12, micro_batch=micro_batch, validations=0, accumulation=mode)
    batches = [pairs.batch(start, micro_batch) for start in range(0, 12, micro_batch)]
    assert 12 * flops_per_sample(method, pairs.sequential(0, 1), training) == pytest.approx(
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
    cost = train(method, tmp_path, Pairs(20), samples=None, flops=2e9)
    assert cost["budget"] == "flops=2e+09"
    # Stages begin and end with a step.
    assert cost["flops"] == pytest.approx(2e9, rel=len(method.stages()) / cost["steps"])
    assert cost["steps"] > 4


@pytest.mark.parametrize(("name", "mode", "micro_batch"), with_micro_batches(24, 8))
def test_a_plan_counts_what_the_run_takes(name: str, mode: Accumulation, micro_batch: int, tmp_path: Path) -> None:
    """Whether the plan simulates the steps or computes them."""
    settings: dict[str, Any] = {"batch_size": 24, "micro_batch": micro_batch, "accumulation": mode}
    cost = train(small_method(name), tmp_path, pairs_of_one_length(48), samples=None, steps=2, **settings)
    small, training = small_method(name), Training(steps=2, **settings)
    assert is_small(small, training, CPU)
    for real, method in ((False, meta_method(name)), (True, small)):
        planned = simulated_cost(method, shape(), training, CPU, 2, real)
        assert planned.flops == pytest.approx({"pretrain": cost["flops_per_sample"]}, rel=1e-6)
        assert planned.memory == pytest.approx(cost["peak_memory"], rel=0.15)


def test_only_a_small_method_on_the_cpu_is_computed() -> None:
    method = meta_method("clip")
    parameters = sum(each.numel() for each in method.parameters())
    most = int(SMALL / parameters)
    for count, small in ((most, True), (most + 1, False)):
        training = Training(steps=1, batch_size=2 * most, micro_batch=count)
        assert is_small(method, training, CPU) == small
        assert simulated_or_real(lambda real: real, is_small(method, training, CPU)) == small
    training = Training(steps=1, batch_size=8, micro_batch=8)
    assert not is_small(method, training, torch.device("cuda"))
    assert not is_small(method, training.model_copy(update={"micro_batch": "auto"}), CPU)


@cache
def wide_memory(run: bool, **changes: Any) -> int:
    """Peak memory of two steps of a model 256 wide, planned or taken."""
    training: dict[str, Any] = {"steps": 2, "batch_size": 4, "micro_batch": 4, "validations": 0, **changes}
    if not run:
        with on_meta():
            method = METHODS["clip"](wide_model(), METHODS["clip"].Config())
        return simulated_cost(method, shape(), Training(**training), CPU, 2).memory
    with TemporaryDirectory() as folder:
        wide = small_method("clip", width=256)
        return train(wide, Path(folder), pairs_of_one_length(8), samples=None, **training)["peak_memory"]


def wide_model() -> DualEncoder:
    return build_model(small_card(width=256), 0, "meta")


@pytest.mark.parametrize(
    "settings", [{"optimizer": "sgd"}, {"optimizer": "sgd", "momentum": 0}, {"optimizer": "lion"}, {"average": 0.9}]
)
def test_a_plan_knows_the_memory_of_optimisers_and_averages(settings: dict[str, Any]) -> None:
    # AdamW keeps two numbers a weight, and no average.
    more = {"sgd": settings.get("momentum", 1) - 2, "lion": -1, "adamw": 1}[settings.get("optimizer", "adamw")]
    sizes = [p.numel() * 4 for p in wide_model().parameters()]
    for run in (False, True):
        # A step of AdamW also needs the memory of two more parameters for a moment.
        difference = wide_memory(run, **settings) - wide_memory(run)
        assert difference == pytest.approx(more * sum(sizes), abs=2.1 * max(sizes))
    assert sum(sizes) > 4 * max(sizes)
    assert wide_memory(False, **settings) == pytest.approx(wide_memory(True, **settings), rel=0.15)


@pytest.mark.parametrize("real", [False, True])
def test_stages_are_planned_apart(real: bool, tmp_path: Path) -> None:
    options = {"stage2": "class", "stage2_share": 0.5}
    method = small_method("cleft", **options)
    method.setup(Words(), CLASSES)  # type: ignore[arg-type]
    training = Training(steps=4, batch_size=12, micro_batch=4)
    planned = simulated_flops(method if real else meta_method("cleft", **options), shape(), training, CPU, 4, real)
    cost = train(method, tmp_path, pairs_of_one_length(24), samples=None, steps=4, batch_size=12, micro_batch=4)
    assert planned["class"] != pytest.approx(planned["pretrain"], rel=0.05)
    assert sum(planned.values()) / 2 == pytest.approx(cost["flops_per_sample"], rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"queue_size": 60}, {"queue_size": 0}])
def test_a_budget_in_flops_trains_what_was_planned(options: dict[str, Any], tmp_path: Path) -> None:
    """Also where a step takes more the longer the training: the queue of the default is never full."""
    training = Training(flops=15e8, batch_size=8, micro_batch=8)
    steps = flops_budget_steps(meta_method("msd", **options), shape(), training, CPU)
    cost = train(small_method("msd", **options), tmp_path, pairs_of_one_length(40), samples=None, flops=15e8)
    assert cost["steps"] == steps > 40
    assert cost["flops"] == pytest.approx(15e8, rel=0.03)


@pytest.mark.parametrize("name", ["clip", "msd"])
def test_a_trial_leaves_no_trace(name: str) -> None:
    method = small_method(name)
    if name == "clip":
        method.model.image.stem = torch.nn.Sequential(method.model.image.stem, torch.nn.BatchNorm2d(8))
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    for real in (False, True):
        simulated_cost(method, shape(), Training(steps=3, batch_size=8, micro_batch=4), CPU, 3, real)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())


class Choosing(METHODS["clip"]):  # type: ignore[misc]
    """Shapes and branches that depend on contents."""

    def contrast(self, embeddings: Embeddings, keys: Keys) -> dict[str, Tensor]:
        image, text = embeddings["image"], embeddings["text"]
        chosen = (image * text).sum(dim=1) > -2
        terms = super().contrast({"image": image[chosen], "text": text[chosen.nonzero()[:, 0]]}, keys)
        if chosen.float().mean().item() > 2:
            raise AssertionError("no share is above 1")
        return terms | {"chosen": image.masked_select(chosen[:, None]).mean()}


class Sorting(METHODS["clip"]):  # type: ignore[misc]
    """A shape that nobody can guess."""

    def contrast(self, embeddings: Embeddings, keys: Keys) -> dict[str, Tensor]:
        count = len(torch.unique(keys["index"] // 2))
        return super().contrast(
            {name: each[:count] for name, each in embeddings.items()}, {"index": keys["index"][:count]}
        )


@pytest.mark.parametrize("kind", [Choosing, Sorting])
def test_a_method_whose_shapes_depend_on_contents(kind: type[Method], tmp_path: Path) -> None:
    def made() -> Method:
        return kind(small_method("clip").model, kind.Config())

    training = Training(steps=2, batch_size=8, micro_batch=8)
    if kind is Sorting:
        with pytest.raises(PlugInError, match="DynamicOutputShape"):
            simulated_flops(made(), shape(), training, CPU, 2)
    planned = simulated_or_real(lambda real: simulated_cost(made(), shape(), training, CPU, 2, real), small=False)
    cost = train(made(), tmp_path, pairs_of_one_length(16), samples=None, steps=2)
    assert planned.flops["pretrain"] == pytest.approx(cost["flops_per_sample"], rel=1e-6)
    assert planned.memory == pytest.approx(cost["peak_memory"], rel=0.15)


def test_a_large_model_is_counted_without_its_weights() -> None:
    """ViT-B/16: gigabytes of weights, moments and activations."""
    model = build_model(load_model_card("vit-b-16"), 0, "meta")
    with on_meta():
        method = METHODS["locked_image"](model, METHODS["locked_image"].Config())
    training = Training(steps=1, batch_size=32, micro_batch=32)
    with TensorPeak() as tensors:
        planned = simulated_cost(method, Shape(224, 224, 77, training.augmentation), training, CPU, 1)
    assert planned.memory > 1.5e9
    assert tensors.bytes < 1e6
