"""Losses that are read every few steps: nothing else waits for the device, and the log and the weights are the same."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmark.common.errors import BenchError
from benchmark.config.training import Training
from benchmark.method import METHODS, Embeddings, Keys, Method
from benchmark.training import loop
from benchmark.training.checkpoint import LAST
from benchmark.training.loop import StepProgress, pretrain
from tests.methods.cases import AUGMENTATION, METHOD_MODES
from tests.methods.fakes import Pairs, small_method
from tests.training.fakes import CPU

pytestmark = pytest.mark.usefixtures("not_counted")

OPERATORS = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "masked_select", "_unique2", "equal")
"""Operators whose result, or its shape, the host must know before it can go on."""
FUNCTIONS = {getattr(Tensor, name): name for name in ("tolist", "numpy", "item", "cpu", "__array__")}
"""Functions that read a tensor without an operator if it is on the CPU."""


class Reads:
    """Counts what would wait for a GPU in the block."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __enter__(self) -> "Reads":
        self.modes = [_Operators(self.calls), _Functions(self.calls)]
        for mode in self.modes:
            mode.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        for mode in reversed(self.modes):
            mode.__exit__(*raised)


class _Operators(TorchDispatchMode):
    def __init__(self, calls: list[str]) -> None:
        super().__init__()
        self.calls = calls

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func._schema.name.removeprefix("aten::")
        masks = name.startswith("index") and any(
            isinstance(each, Tensor) and each.dtype == torch.bool for each in (args[1] if len(args) > 1 else ())
        )
        if name in OPERATORS or masks:
            self.calls.append(name)
        return func(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    def __init__(self, calls: list[str]) -> None:
        super().__init__()
        self.calls = calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in FUNCTIONS:
            self.calls.append(FUNCTIONS[func])
        return func(*args, **(kwargs or {}))


def train(method: Method, folder: Path, read_every: int | None = None, **options: Any) -> list[dict[str, Any]]:
    """Train for six steps; return the log."""
    settings = {"steps": 6, "batch_size": 8, "micro_batch": 3, "validations": 0, "augmentation": AUGMENTATION}
    progress = options.pop("progress", lambda _: None)
    training = Training(**settings | options)  # type: ignore[arg-type]
    pairs: Any = Pairs(24, augmentation=AUGMENTATION)
    pretrain(method, pairs, None, training, seed=0, device=CPU, folder=folder, progress=progress, read_every=read_every)
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("name", "mode"), METHOD_MODES)
def test_nothing_reads_from_the_device_between_two_reads(
    name: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, train_step = Reads(), loop._Loop.train_step

    def watched(self: Any, log: Any) -> Any:
        if self.step in (1, 2, 3, 4):
            with reads:
                return train_step(self, log)
        return train_step(self, log)

    monkeypatch.setattr(loop._Loop, "train_step", watched)
    train(small_method(name, dropout=0.1), tmp_path, 6, accumulation=mode)
    assert reads.calls == []


def test_a_read_is_two_transfers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether all is finite, before the weights change; then all numbers at once."""
    reads, train_step = Reads(), loop._Loop.train_step

    def watched(self: Any, log: Any) -> Any:
        with reads:
            return train_step(self, log)

    monkeypatch.setattr(loop._Loop, "train_step", watched)
    train(small_method("msd"), tmp_path, 3)
    # After steps 1, 3 and 6; and the two counters of the queue, once.
    assert sorted(reads.calls).count("tolist") == 3
    assert reads.calls.count("_local_scalar_dense") == 2 * 3 + 2


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lion"])
def test_the_log_and_the_weights_do_not_depend_on_when_losses_are_read(optimizer: str, tmp_path: Path) -> None:
    logs, shown = {}, {}
    for every in (1, 4):
        shown[every] = []
        show: Callable[[StepProgress], None] = lambda at, kept=shown[every]: kept.append((at.step, at.loss))  # noqa: E731
        logs[every] = train(small_method("msd"), tmp_path / str(every), every, optimizer=optimizer, progress=show)
    assert [line["step"] for line in logs[4]] == [1, 2, 3, 4, 5, 6]
    assert shown[1] == shown[4] == [(line["step"], line["loss"]) for line in logs[1]]
    for often, rarely in zip(logs[1], logs[4], strict=True):
        assert often.keys() == rarely.keys()
        assert {k: v for k, v in often.items() if k != "seconds"} == {k: v for k, v in rarely.items() if k != "seconds"}
    often, rarely = (load_file(tmp_path / str(every) / LAST) for every in (1, 4))
    assert all(torch.equal(often[name], rarely[name]) for name in often)


class Failing(METHODS["clip"]):  # type: ignore[misc]
    """A loss that is not finite in the fourth step, and in no other."""

    def contrast(self, embeddings: Embeddings, keys: Keys) -> dict[str, Tensor]:
        terms = super().contrast(embeddings, keys)
        return {name: term * (math.nan if self.epoch == 1 else 1.0) for name, term in terms.items()}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lion"])
@pytest.mark.parametrize("every", [1, 3, 6])
def test_a_step_that_is_not_finite_is_told_and_changes_no_weight(every: int, optimizer: str, tmp_path: Path) -> None:
    def method() -> Method:
        made = Failing(small_method("clip").model, Failing.Config())
        made.model.image.stem = torch.nn.Sequential(made.model.image.stem, torch.nn.BatchNorm2d(8))
        return made

    with pytest.raises(BenchError, match=r"step 3: the loss is nan .* the last finite weights in"):
        train(method(), tmp_path / "bad", every, optimizer=optimizer, weight_decay=0.5)
    report = json.loads((tmp_path / "bad" / "finite.json").read_text())
    assert report["ids"] == [id_ for start in (24, 27, 30) for id_ in Pairs(24).batch(start, 3 - start // 30).ids]
    weights: dict[str, Tensor] = {}
    good = method()

    def keep(at: StepProgress) -> None:
        if at.step == 3:
            weights.update({name: tensor.clone() for name, tensor in good.state_dict().items()})

    with pytest.raises(BenchError):
        train(good, tmp_path / "good", 1, optimizer=optimizer, weight_decay=0.5, progress=keep)
    kept = load_file(tmp_path / "bad" / "finite.safetensors")
    assert kept.keys() == weights.keys()
    assert all(torch.equal(kept[name], weights[name]) for name in kept)
