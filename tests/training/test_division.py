"""``training.micro_batch`` ``auto``: what fits is taken, halved where memory is missing, and the result is the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from benchmark.common.errors import BenchError
from benchmark.config.load import load_run_config
from benchmark.config.training import DEFAULT_MICRO_BATCH, Training
from benchmark.config.validation import validated
from benchmark.data.batch import Batch
from benchmark.method import METHODS, Method
from benchmark.plan.make import make_plan
from benchmark.training import loop
from benchmark.training.accumulation import NoRoomError, accumulate, accumulation_mode
from benchmark.training.checkpoint import LAST
from benchmark.training.cost import fitting_division, simulated_cost
from benchmark.training.division import Division, Passes
from benchmark.training.memory import available_memory
from tests.methods.cases import AUGMENTATION, METHOD_MODES, full_batch_gradient, split, warmed
from tests.methods.fakes import Pairs, double, small_method
from tests.training.fakes import CPU, meta_method, shape, train

EXACT = [(name, mode) for name, mode in METHOD_MODES if mode != "plain"]


def gradient(method: Method, batches: list[Batch], mode: Any, passes: Passes) -> dict[str, torch.Tensor]:
    accumulate(method, batches, mode, 3, passes=passes)
    found = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
    method.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize(("name", "mode"), EXACT)
def test_the_gradient_does_not_depend_on_graphs_that_are_kept(name: str, mode: str) -> None:
    """With dropout too: all passes of a micro-batch begin in its random state."""
    method, sizes = warmed(name), [3, 3, 3, 3, 4]
    batches = split(Pairs(16, augmentation=AUGMENTATION, texts=5), sizes)
    expected = full_batch_gradient(method, batches, seed=3)
    for graphs in (1, 4, 5):
        actual = gradient(method, batches, mode, Passes(graphs))
        assert actual.keys() == expected.keys()
        for parameter, value in actual.items():
            assert (value - expected[parameter]).abs().max() < 1e-9, parameter


@pytest.mark.parametrize(("name", "mode"), EXACT)
def test_the_gradient_does_not_depend_on_the_pairs_that_pass_at_once(name: str, mode: str) -> None:
    method = double(small_method(name)).train()
    for module in method.modules():
        if hasattr(module, "rate") or isinstance(module, torch.nn.Dropout):
            module.eval()  # what draws numbers is not passed so
    for module in method.modules():
        if type(module).__name__ in ("DropPath", "PatchDropout"):
            module.eval()
    batches = split(Pairs(16, augmentation=AUGMENTATION, texts=5), [3, 3, 3, 3, 4])
    expected = full_batch_gradient(method, batches, seed=3)
    for passes in (Passes(0, 2), Passes(0, 5), Passes(2, 2)):
        actual = gradient(method, batches, mode, passes)
        assert actual.keys() == expected.keys()
        for parameter, value in actual.items():
            assert (value - expected[parameter]).abs().max() < 1e-9, parameter


def test_graphs_that_are_kept_pass_once_and_larger_pieces_fewer_times() -> None:
    passes = []
    method = small_method("clip").train()
    forward = method.forward
    method.forward = lambda batch, **options: (
        passes.append((len(batch), torch.is_grad_enabled()))
        or forward(  # type: ignore[method-assign,func-returns-value]
            batch, **options
        )
    )
    accumulate(method, split(Pairs(16), [4] * 4), "cached", 0, passes=Passes(1, 2))
    assert passes == [(4, True), (8, False), (4, False), *[(4, True)] * 3]


def test_frozen_statistics_do_with_kept_graphs() -> None:
    """Those that are updated do not: their graphs need the values of their own forward pass."""
    gradients = []
    for passes in (Passes(), Passes(2, 2)):
        method = small_method("clip").train()
        torch.manual_seed(0)
        method.model.image_projection = torch.nn.Sequential(torch.nn.Linear(32, 16), torch.nn.BatchNorm1d(16)).eval()
        gradients.append(gradient(method, split(Pairs(16), [4] * 4), "cached", passes))
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("division", "expected"),
    [
        (Division(512, "cached", 512), (512, 0, 1)),
        (Division(512, "cached", 2000), (512, 0, 1)),
        (Division(512, "cached", 400), (47, 7, 1)),
        (Division(512, "cached", 400, 3.0), (47, 7, 4)),
        (Division(512, "cached", 24), (24, 0, 1)),
        (Division(500, "keyed", 200, 4.0), (167, 0, 4)),
        (Division(512, "keyed", 1), (1, 0, 1)),
        (Division(512, "cached", 512, ranks=4), (128, 0, 1)),
        (Division.fixed_for(512, "cached", "dropout"), (128, 0, 1)),
        (Division.fixed_for(100, "cached", "dropout"), (100, 0, 1)),
    ],
)
def test_a_division_of_what_fits(division: Division, expected: tuple[int, int, int]) -> None:
    assert (division.micro_batch, *division.passes) == expected
    assert (division.graphs + 1) * division.micro_batch <= max(division.capacity, division.micro_batch)
    smaller = division.halved()
    assert division.fixed or division.capacity == 1 or smaller.capacity <= division.capacity // 2  # type: ignore[union-attr]


@pytest.mark.parametrize(("name", "mode"), [("clip", "cached")])
def test_what_is_chosen_fits_and_twice_as_much_would_not(name: str, mode: str) -> None:
    training = Training(steps=1, micro_batch="auto", batch_size=64, accumulation=mode)
    method = meta_method(name, **({"queue_size": 0} if name == "msd" else {}))

    def taken(micro_batch: int) -> int:
        return simulated_cost(method, shape(), training.model_copy(update={"micro_batch": micro_batch}), CPU, 1).memory

    quarter, half = taken(16), taken(32)
    available = (quarter + half) // 2
    division = fitting_division(method, shape(), training, CPU, available)
    assert 16 <= division.capacity < 32
    assert taken(division.capacity) <= available < half
    assert fitting_division(method, shape(), training, CPU, 4 * half).micro_batch == 64


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("clip", {"dropout": 0.1}, "draws"),
        ("flip", {}, "draws"),
        ("cleft", {}, "draws"),
        ("dino_txt", {}, "draws"),
        ("clip", {"norm": True}, "batch normalisation"),
    ],
)
def test_where_the_division_changes_the_result_it_is_the_default(
    name: str, options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    norm = options.pop("norm", False)
    method = small_method(name, **options)
    if norm:
        method.model.image.stem = torch.nn.Sequential(method.model.image.stem, torch.nn.BatchNorm2d(8))
    training = Training(steps=1, micro_batch="auto", batch_size=256)
    division = fitting_division(method, shape(), training, CPU, 10**12)
    assert reason in division.fixed
    assert division.micro_batch == DEFAULT_MICRO_BATCH
    assert division.halved() is None


def test_out_of_memory_halves_the_micro_batch_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a GPU in the first step, in the third, and of the CPU; the weights are those of a training with the number."""
    missing = torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")
    most = 100
    method = small_method("clip")
    forward, tried = method.forward, []

    def limited(batch: Batch, **options: Any) -> Any:
        tried.append(len(batch))
        if len(batch) > most and torch.is_grad_enabled():
            raise missing[len(tried) % 2]
        return forward(batch, **options)

    def tighten(at: loop.StepProgress) -> None:
        nonlocal most
        most = 16 if at.step < 2 else 5

    method.forward = limited  # type: ignore[method-assign]
    settings: dict[str, Any] = {"batch_size": 16, "samples": 64, "validations": 1}
    cost = train(method, tmp_path / "auto", Pairs(32), Pairs(8), micro_batch="auto", progress=tighten, **settings)
    assert cost["micro_batch"] == 4
    lines = [json.loads(line) for line in (tmp_path / "auto" / "log.jsonl").read_text().splitlines()]
    assert [line.get("micro_batch") for line in lines] == [16, None, 4, None]
    assert {16, 8, 4} <= set(tried)
    other = train(small_method("clip"), tmp_path / "four", Pairs(32), Pairs(8), micro_batch=4, **settings)
    auto, four = (load_file(tmp_path / run / LAST) for run in ("auto", "four"))
    for name, value in auto.items():
        torch.testing.assert_close(value, four[name], rtol=0, atol=2e-5)
    assert other["graphs"] == cost["graphs"] == 0
    assert cost["flops_per_sample"] == pytest.approx(other["flops_per_sample"])


def test_out_of_memory_with_a_number_or_a_single_pair_is_told(tmp_path: Path) -> None:
    for micro_batch in ("auto", 8):
        method = small_method("clip")

        def fail(*_: Any, **__: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

        method.model.encode_image = fail
        with pytest.raises(NoRoomError, match="CUDA out of memory"):
            train(method, tmp_path / str(micro_batch), Pairs(16), micro_batch=micro_batch)
        assert all(parameter.grad is None for parameter in method.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"micro_batch": "most"}, "micro_batch: expected a number of pairs, at least 1, or auto, found 'most'"),
        ({"micro_batch": 0}, "micro_batch: expected a number of pairs, at least 1, or auto, found 0"),
        ({"micro_batch": 2.5}, "micro_batch: expected a number of pairs, at least 1, or auto, found 2.5"),
        ({"micro_batch": "auto", "steps": None, "flops": 1e9}, "micro_batch is auto, but how many steps"),
    ],
)
def test_what_auto_is_not_for(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        validated(Training, {"steps": 4} | settings, "suite")


def test_a_method_whose_loss_depends_on_the_division_needs_a_number() -> None:
    class Plain(METHODS["clip"]):  # type: ignore[misc]
        name, accumulation = "plain", ("plain",)

    message = "micro_batch is auto, but the loss of method '{}', whose accumulation is plain, depends on it"
    with pytest.raises(BenchError, match=message.format("plain")):
        accumulation_mode(Plain, Training(steps=1, micro_batch="auto"))
    with pytest.raises(BenchError, match=message.format("clip")):
        accumulation_mode(METHODS["clip"], Training(steps=1, micro_batch="auto", accumulation="plain"))


def test_arms_that_are_not_run_do_not_matter() -> None:
    """The suite demo has an arm whose accumulation is plain."""
    plan = make_plan(load_run_config("demo", {"methods": ["clip"]}, ["training.micro_batch=auto"], []), from_cards=True)
    assert not plan.problems


def test_half_of_the_free_memory_is_available_on_the_cpu() -> None:
    available = available_memory(CPU)
    assert available is not None
    assert 2**26 < available < 2**44
    assert available_memory(torch.device("mps")) == pytest.approx(available, rel=0.2)
