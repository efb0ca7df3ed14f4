"""The training loop: log, checkpoints, stages, budgets in time, and what stops it."""

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmark.common.errors import BenchError
from benchmark.config.training import Training
from benchmark.method import Embeddings, Keys, Method
from benchmark.training.checkpoint import BEST, LAST, RESUME
from benchmark.training.cost import parameter_columns
from benchmark.training.loop import StepProgress, validation_loss
from benchmark.training.schedule import learning_rate, precision_of
from tests.methods.fakes import Pairs, small_method
from tests.training.fakes import CPU, staged, train

pytestmark = pytest.mark.usefixtures("counted_each_time")


def test_a_budget_in_time_keeps_its_schedule_when_it_goes_on(tmp_path: Path) -> None:
    def stop(at: StepProgress) -> None:
        if at.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    (tmp_path / "steps").write_text("9")
    options: dict[str, Any] = {"samples": None, "time": 5.0}
    with pytest.raises(KeyboardInterrupt):
        train(small_method("clip"), tmp_path, Pairs(20), progress=stop, **options)
    cost = train(small_method("clip"), tmp_path, Pairs(20), **options)
    assert cost["steps"] == 9


def test_timing_a_step_leaves_no_trace(tmp_path: Path) -> None:
    """A training by time ends in the weights of one by the same number of steps, batch statistics included."""

    def method() -> Method:
        found = small_method("clip")
        found.model.image.stem = torch.nn.Sequential(found.model.image.stem, torch.nn.BatchNorm2d(8))
        return found

    cost = train(method(), tmp_path / "time", Pairs(20), Pairs(8, seed=1), samples=None, time=1.0)
    train(method(), tmp_path / "steps", Pairs(20), Pairs(8, seed=1), samples=None, steps=cost["steps"])
    timed, counted = (load_file(tmp_path / run / LAST) for run in ("time", "steps"))
    assert all(torch.equal(timed[name], counted[name]) for name in timed)


def test_an_epoch_shows_no_pair_twice(tmp_path: Path) -> None:
    pairs, seen = Pairs(20), []
    batch = pairs.batch
    pairs.batch = lambda position, count: seen.append(batch(position, count).ids) or batch(position, count)  # type: ignore
    train(small_method("clip"), tmp_path, pairs, validations=0)
    assert len(seen) == 6
    for first, second in zip(seen[::2], seen[1::2]):
        assert len({*first, *second}) == 16


def test_log_has_a_line_a_step(tmp_path: Path) -> None:
    cost = train(small_method("clip"), tmp_path, Pairs(16), Pairs(10, seed=1))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["samples"] for line in lines] == [8, 16, 24, 32, 40, 48]
    assert ["validation_loss" in line for line in lines] == [False, True] * 3
    assert {"loss", "contrastive", "learning_rate", "gradient_norm", "temperature_scale", "seconds"} <= lines[0].keys()
    assert cost["validation_loss"] == lines[-1]["validation_loss"]
    assert cost["samples"] == 48
    assert cost["epochs"] == 3
    assert cost["parameters_trainable"] == cost["parameters"] + 1
    assert cost["flops_per_sample"] > 1e5
    assert cost["peak_memory"] > 0


def test_best_is_the_checkpoint_of_the_lowest_validation_loss(tmp_path: Path) -> None:
    method, validation = small_method("clip"), Pairs(8, seed=1)
    # Random pairs cannot be generalised over: the loss on unseen ones grows while training goes on.
    train(method, tmp_path, Pairs(16), validation, samples=160, learning_rate=0.02, validations=10)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["validation_loss"] for line in lines if "validation_loss" in line]
    assert min(losses) < losses[-1]
    method.load_state_dict(load_file(tmp_path / BEST))
    training = Training(samples=160, batch_size=8, micro_batch=8)
    assert validation_loss(method, validation, training, 0, CPU, "fp32") == pytest.approx(min(losses), abs=1e-5)


def test_validation_is_at_the_effective_batch_whatever_the_micro_batch() -> None:
    method, validation = small_method("msd", dropout=0.3), Pairs(27, seed=1)
    losses = [
        validation_loss(method, validation, Training(samples=1, batch_size=9, micro_batch=m), 0, CPU, "fp32")
        for m in (9, 4, 1)
    ]
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-5)
    smaller = validation_loss(method, validation, Training(samples=1, batch_size=3, micro_batch=3), 0, CPU, "fp32")
    assert smaller < losses[0] - 0.5
    assert method.training


def test_a_loss_that_is_not_finite_stops_with_step_and_ids(tmp_path: Path) -> None:
    class Bad(type(small_method("clip"))):  # type: ignore[misc]
        def contrast(self, embeddings: Embeddings, keys: Keys) -> dict[str, Tensor]:
            bad = float("nan") if self.epoch >= 1 else 1.0
            return {"contrastive": bad * super().contrast(embeddings, keys)["contrastive"]}

    method = small_method("clip")
    method.__class__ = Bad
    pairs = Pairs(24)
    with pytest.raises(BenchError, match=r"step 2: the loss is nan.*records r\d+, .*all 12 .*finite.json.*safetensors"):
        train(method, tmp_path, pairs, batch_size=12, micro_batch=5)
    found = json.loads((tmp_path / "finite.json").read_text())
    assert found["step"] == 2
    assert math.isnan(found["loss"])
    assert math.isnan(found["gradient_norm"])
    assert found["ids"] == pairs.batch(24, 12).ids
    kept = load_file(tmp_path / "finite.safetensors")
    assert all(tensor.isfinite().all() for tensor in kept.values())
    assert not (tmp_path / LAST).exists()


def test_the_weights_that_are_kept_are_those_before_the_bad_step(tmp_path: Path) -> None:
    """Running statistics too, which the bad batch's forward pass has spoilt."""

    class Burst(torch.nn.Module):
        size = 1.0

        def forward(self, x: Tensor) -> Tensor:
            return x * self.size

    method, burst = small_method("clip"), Burst()
    method.model.image.stem = torch.nn.Sequential(burst, method.model.image.stem, torch.nn.BatchNorm2d(8))
    before: dict[str, Tensor] = {}

    def watch(at: StepProgress) -> None:
        if at.step == 2:
            before.update({name: tensor.clone() for name, tensor in method.state_dict().items()})
            burst.size = math.inf

    with pytest.raises(BenchError, match="step 2"):
        train(method, tmp_path, Pairs(16), micro_batch=4, progress=watch)
    kept = load_file(tmp_path / "finite.safetensors")
    assert any("running_var" in name for name in kept)
    assert all(tensor.isfinite().all() and torch.equal(tensor, before[name]) for name, tensor in kept.items())


@pytest.mark.usefixtures("sigint")
def test_ctrl_c_ends_the_step_writes_a_checkpoint_and_goes_on_later(tmp_path: Path) -> None:
    def interrupt(position: StepProgress) -> None:
        if position.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(small_method("clip"), tmp_path / "a", Pairs(16), progress=interrupt, checkpoint_every=1e9)
    assert (tmp_path / "a" / RESUME).exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = train(small_method("clip"), tmp_path / "a", Pairs(16))
    whole = train(small_method("clip"), tmp_path / "b", Pairs(16))
    assert resumed["peak_memory"] == whole["peak_memory"] > 0
    a, b = load_file(tmp_path / "a" / LAST), load_file(tmp_path / "b" / LAST)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_half_written_log_line_is_dropped_on_resume(tmp_path: Path) -> None:
    def die(position: StepProgress) -> None:
        if position.step == 3:
            raise SystemExit

    with pytest.raises(SystemExit):
        train(small_method("clip"), tmp_path, Pairs(16), progress=die, checkpoint_every=0)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "lo')
    train(small_method("clip"), tmp_path, Pairs(16))
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_a_checkpoint_of_another_model_is_not_resumed(tmp_path: Path) -> None:
    def stop(at: StepProgress) -> None:
        if at.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        train(small_method("clip"), tmp_path, Pairs(16), progress=stop)
    tensors = load_file(tmp_path / RESUME)
    with safe_open(tmp_path / RESUME, "pt") as file:
        save_file(
            {name: x for name, x in tensors.items() if name != "method.logit_scale"},
            tmp_path / RESUME,
            {name: value for name, value in file.metadata().items() if name != "sha256"},
        )
    with pytest.raises(
        BenchError, match=r"resume\.safetensors: .* 1 tensor is missing \(logit_scale\).* code of method"
    ):
        train(small_method("clip"), tmp_path, Pairs(16))


def test_gradient_checkpointing_changes_cost_alone(tmp_path: Path) -> None:
    for name, value in (("on", True), ("off", False)):
        train(small_method("clip", dropout=0.2), tmp_path / name, Pairs(16), gradient_checkpointing=value)
    on, off = load_file(tmp_path / "on" / LAST), load_file(tmp_path / "off" / LAST)
    for name in on:
        torch.testing.assert_close(on[name], off[name], rtol=0, atol=1e-5)


def test_bf16_keeps_weights_and_losses_in_float32(tmp_path: Path) -> None:
    assert precision_of(Training(samples=1), CPU) == "fp32"
    method = small_method("clip")
    cost = train(method, tmp_path, Pairs(16), Pairs(8, seed=1), precision="bf16")
    assert cost["precision"] == "bf16"
    assert all(p.dtype == torch.float32 for p in method.parameters())
    assert math.isfinite(cost["validation_loss"])


def test_stages_train_one_after_the_other(tmp_path: Path) -> None:
    method, pairs = staged(), Pairs(20)
    initial = {n: p.detach().clone() for n, p in method.named_parameters()}
    seen: dict[int, dict[str, Tensor]] = {}
    train(
        method,
        tmp_path,
        pairs,
        Pairs(8, seed=1),
        samples=64,
        progress=lambda at: seen.update({at.step: {n: p.clone() for n, p in method.named_parameters()}}),
    )
    for name, value in initial.items():
        if name.startswith(("model.image.", "model.text.")):
            moved = [not torch.equal(seen[6][name], value), not torch.equal(seen[8][name], seen[6][name])]
            assert moved == [name.startswith("model.image."), name.startswith("model.text.")], name
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in log] == ["image"] * 6 + ["text"] * 2
    rates = [learning_rate(Training(samples=1), step, steps) for steps in (6, 2) for step in range(steps)]
    assert [line["learning_rate"] for line in log] == pytest.approx(rates)
    trained = parameter_columns(method)
    assert trained["parameters_trainable"] == sum(p.numel() for p in method.parameters())
    assert trained["parameters_image_trainable"] == trained["parameters_image"]


@pytest.mark.parametrize("stop_at", [4, 6, 7])
def test_a_staged_training_resumes_in_its_stage(tmp_path: Path, stop_at: int) -> None:
    def stop(at: StepProgress) -> None:
        if at.step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    train(staged(), tmp_path / "whole", Pairs(20), Pairs(8, seed=1), samples=64)
    with pytest.raises(KeyboardInterrupt):
        train(staged(), tmp_path / "resumed", Pairs(20), Pairs(8, seed=1), samples=64, progress=stop)
    assert (tmp_path / "resumed" / RESUME).exists()
    train(staged(), tmp_path / "resumed", Pairs(20), Pairs(8, seed=1), samples=64)
    for file in (LAST, BEST):
        whole, resumed = (load_file(tmp_path / run / file) for run in ("whole", "resumed"))
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)
