"""Two ranks train as one does: every registered method, in every mode."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmark.common.errors import BenchError
from benchmark.common.interrupts import StoppedError
from benchmark.common.ranges import SameText
from benchmark.config.training import Training
from benchmark.data.batch import Batch
from benchmark.method import METHODS, Output
from benchmark.training.accumulation import NotFiniteError, accumulate, effective_loss, loss_values
from benchmark.training.checkpoint import RESUME, read_cost
from benchmark.training.loop import StepProgress, pretrain
from benchmark.training.ranks import ALONE, Ranks
from tests.methods.cases import AUGMENTATION, CASES, METHOD_MODES, split, warmed
from tests.methods.fakes import Pairs, double, small_method
from tests.methods.pair import Pair, pair_in

QUICK = [pytest.param(name, METHODS[name].accumulation[0], {}, "negative", id=name) for name in METHODS.names()]


@pytest.fixture(scope="module")
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
        "losses": loss_values(losses, ranks) | {"validation": validation},
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
    check(name, mode, options, same_text, [4, 4, 1], pair)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[6, 6, 6, 4], [4, 4, 4, 4, 1]], ids=["4", "5"])
@pytest.mark.parametrize(("name", "mode", "options", "same_text"), CASES)
def test_two_ranks_give_the_gradient_of_one_with_any_option(
    name: str, mode: str, options: dict[str, object], same_text: SameText, sizes: list[int], pair: Pair
) -> None:
    check(name, mode, options, same_text, sizes, pair)


class Normalised(METHODS["clip"]):  # type: ignore[misc]
    """Batch normalisation before the contrast, twice a micro-batch, of both kinds of running statistics."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        width = self.model.embed_dim
        self.moving, self.mean = torch.nn.BatchNorm1d(width, momentum=0.3), torch.nn.BatchNorm1d(width, momentum=None)

    def forward(self, batch: Batch, *, embeddings_only: bool = False) -> Output:
        output = super().forward(batch, embeddings_only=embeddings_only)
        for name, value in output.embeddings.items():
            output.embeddings[name] = torch.nn.functional.normalize(self.moving(value) + self.mean(value), dim=-1)
        return output


def normalise(ranks: Ranks, mode: Any) -> dict[str, Tensor]:
    """The gradients and the running statistics after two effective batches."""
    method = double(Normalised(small_method("clip").model, Normalised.Config())).train()
    for first in (0, 1):
        method.zero_grad(set_to_none=True)
        accumulate(method, ranks.own(split(Pairs(18, seed=first), [5, 5, 5, 3])), mode, first, ranks=ranks)
    gradients = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    return gradients | dict(method.named_buffers())


@pytest.mark.parametrize("mode", ["plain", "cached"])
def test_two_ranks_have_the_running_statistics_of_one(mode: str, pair: Pair) -> None:
    first, second = pair(normalise, mode)
    for name, expected in normalise(ALONE, mode).items():
        assert torch.equal(first[name], second[name]), name
        assert (first[name] - expected).abs().max() < 1e-12, name
    assert first["moving.num_batches_tracked"] == 16
    assert first["moving.running_var"].std() > 0


class Counting(METHODS["clip"]):  # type: ignore[misc]
    """State that changes in forward()."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, batch: Batch, *, embeddings_only: bool = False) -> Output:
        self.passes += 1
        return super().forward(batch, embeddings_only=embeddings_only)


def count(ranks: Ranks, folder: Path) -> str:
    method = Counting(small_method("clip").model, Counting.Config())
    training = Training(samples=24, batch_size=12, micro_batch=5, validations=0)
    try:
        pretrain(method, Pairs(12), None, training, seed=0, device=torch.device("cpu"), folder=folder, ranks=ranks)  # type: ignore[arg-type]
    except BenchError as error:
        return str(error)
    return ""


def test_state_that_differs_between_ranks_is_an_error(tmp_path: Path, pair: Pair) -> None:
    first, second = pair(count, tmp_path)
    assert first == second
    assert "after step 1 'passes' is not the same on all ranks" in first


def fail(ranks: Ranks, folder: Path) -> str:
    """A loss that is not finite, on one rank."""
    method = small_method("clip")
    pairs = Pairs(12)
    pairs.image = pairs.image.float()  # type: ignore[assignment]
    pairs.image[1] = torch.nan
    training = Training(samples=24, batch_size=12, micro_batch=5, validations=0)
    try:
        pretrain(method, pairs, None, training, seed=0, device=torch.device("cpu"), folder=folder, ranks=ranks)  # type: ignore[arg-type]
    except (BenchError, NotFiniteError) as error:
        return str(error)
    return ""


def test_a_loss_that_is_not_finite_ends_all_ranks(tmp_path: Path, pair: Pair) -> None:
    first, second = pair(fail, tmp_path)
    assert "the loss is nan" in second
    assert "all 12 ids are in" in first
    report = json.loads((tmp_path / "finite.json").read_text())
    order = np.random.default_rng(0).permutation(12)
    assert report["ids"] == [f"r{row}" for row in order]


def train(ranks: Ranks, name: str, mode: Any, folder: Path, stop: int | None = None) -> dict[str, Tensor]:
    """Ten steps of three micro-batches in float64. stop: the last rank gets a signal in the middle of this step."""
    method = double(small_method(name, dropout=0.1, patch_dropout=0.25))
    training = Training(
        samples=10 * 12,
        batch_size=12,
        micro_batch=5,
        learning_rate=1e-3,
        validations=2,
        accumulation=mode,
        average=0.9,
        augmentation=AUGMENTATION,
        checkpoint_every=0 if stop else 1e9,
    )

    def progress(reached: StepProgress) -> None:
        if reached.step == stop and ranks.rank == ranks.count - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    own = folder if ranks.is_first else folder / "nothing is written here"
    with contextlib.suppress(StoppedError):
        pretrain(
            method,
            Pairs(30, augmentation=AUGMENTATION),  # type: ignore[arg-type]
            Pairs(14, seed=1),  # type: ignore[arg-type]
            training,
            seed=0,
            device=torch.device("cpu"),
            folder=own,
            progress=progress,
            ranks=ranks,
        )
        assert stop is None
    assert not (folder / "nothing is written here").exists()
    return dict(method.state_dict())


def same_training(folder: Path, other: Path) -> None:
    """The files of two trainings are the same up to rounding, and the times in them."""
    files = {path.name for path in other.iterdir()}
    assert {path.name for path in folder.iterdir()} - {RESUME} == files
    for name in files:
        if name.endswith(".safetensors"):
            ours, theirs = load_file(folder / name), load_file(other / name)
            assert ours.keys() == theirs.keys()
            for tensor, value in theirs.items():
                assert (ours[tensor].double() - value.double()).abs().max() < 1e-9, f"{name}: {tensor}"
    logs = [[json.loads(line) for line in (each / "log.jsonl").read_text().splitlines()] for each in (folder, other)]
    for ours, theirs in zip(*logs, strict=True):
        assert ours.keys() == theirs.keys()
        for key in theirs.keys() - {"stage", "seconds"}:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-9), key
    cost, expected = read_cost(folder), read_cost(other)
    assert cost is not None
    assert expected is not None
    assert cost["flops"] == expected["flops"]
    assert cost["validation_loss"] == pytest.approx(expected["validation_loss"], rel=1e-9)


def check_training(name: str, mode: str, folder: Path, pair: Pair) -> None:
    first, second = pair(train, name, mode, folder / "pair")
    assert all(torch.equal(value, second[tensor]) for tensor, value in first.items())
    same_training(folder / "pair", folder / "alone")
    assert (read_cost(folder / "pair") or {})["gpus_per_cell"] == 2


def check_resuming(name: str, mode: str, folder: Path, pair: Pair) -> None:
    """A signal to one rank stops both after the same step, at a checkpoint."""
    pair(train, name, mode, folder / "resumed", 3)
    assert (folder / "resumed" / RESUME).is_file()
    train(ALONE, name, mode, folder / "resumed", 6)
    pair(train, name, mode, folder / "resumed")
    same_training(folder / "resumed", folder / "alone")


def test_two_ranks_give_the_weights_of_one_after_ten_steps(tmp_path: Path, pair: Pair) -> None:
    train(ALONE, "clip", "cached", tmp_path / "alone")
    check_training("clip", "cached", tmp_path, pair)


def test_a_training_goes_on_with_another_number_of_ranks(tmp_path: Path, pair: Pair) -> None:
    train(ALONE, "msd", "keyed", tmp_path / "alone")
    check_resuming("msd", "keyed", tmp_path, pair)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mode"), METHOD_MODES)
def test_every_method_has_the_weights_of_one_rank_and_goes_on_with_two(
    name: str, mode: str, tmp_path: Path, pair: Pair
) -> None:
    train(ALONE, name, mode, tmp_path / "alone")
    check_training(name, mode, tmp_path, pair)
    check_resuming(name, mode, tmp_path, pair)
