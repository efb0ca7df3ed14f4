"""The training loop of one cell."""

import itertools
import json
import math
import operator
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import current_thread, main_thread
from typing import IO, Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmark.common.errors import BenchError
from benchmark.common.seeding import stream
from benchmark.config.schema import Training
from benchmark.data.batch import Batch
from benchmark.data.loader import PairLoader
from benchmark.method import Method
from benchmark.training.accumulation import accumulate, accumulation_mode, effective_loss
from benchmark.training.checkpoint import BEST, FINITE, LAST, LOG, NOT_FINITE, RESUME, STEPS, _save, _tensors, _truncate
from benchmark.training.cost import _Memory, parameter_columns
from benchmark.training.schedule import (
    autocast,
    check_batch,
    learning_rate,
    optimizer_of,
    precision_of,
    stage_starts,
    training_steps,
)


@dataclass(frozen=True)
class Progress:
    """Where a training stands: shown while it goes on. validation_loss: NaN after a step without validation."""

    step: int
    steps: int
    loss: float
    samples_per_second: float
    validation_loss: float = math.nan


def pretrain(
    method: Method,
    pairs: PairLoader,
    validation: PairLoader | None,
    training: Training,
    *,
    seed: int,
    device: torch.device,
    folder: Path,
    progress: Callable[[Progress], None] = lambda _: None,
) -> dict[str, Any]:
    """Train ``method`` and leave ``last.safetensors``, ``best.safetensors`` (with validation pairs) and ``log.jsonl``
    in ``folder``; returns the cost of it (the columns of the report's cost table).

    Goes on from ``resume.safetensors`` where an interrupted call left one, and ends in the same weights: everything
    random is drawn from the seed and the step. Raises ``BenchError`` with the step when the loss is not finite (its ids
    are in ``finite.json``, the weights before it in ``finite.safetensors``), and KeyboardInterrupt after the running
    step's checkpoint is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    loop = _Loop(method.to(device), pairs, validation, training, seed, device, folder)
    memory = _Memory(loop)
    with open(folder / LOG, "a+", encoding="utf-8") as log, _deferred_interrupt() as interrupted, loop.loading():
        loop.resume(log)
        saved = time.monotonic()
        while loop.step < loop.steps:
            with memory.watch():
                loss = loop.train_step(log)
            speed = loop.step * training.batch_size / loop.seconds
            validated = loop.last_validation if loop.step in loop.validate_at else math.nan
            progress(Progress(loop.step, loop.steps, loss, speed, validated))
            if interrupted() or time.monotonic() - saved >= training.checkpoint_every:
                loop.save_resume()
                saved = time.monotonic()
            if interrupted():
                raise KeyboardInterrupt
    _save(folder / LAST, _tensors(method.state_dict()))
    cost = loop.cost() | {"peak_memory": memory.highest}
    for kept in (RESUME, STEPS):
        (folder / kept).unlink(missing_ok=True)
    return cost


def validation_loss(
    method: Method, pairs: PairLoader, training: Training, seed: int, device: torch.device, precision: str
) -> float:
    """The method's loss in eval mode over the validation pairs, a mean over batches of the training's effective size
    (of all pairs where they are fewer): a contrastive loss depends on how many negatives it has.
    """
    size = min(training.batch_size, len(pairs))
    method.eval()
    losses = [
        sum(
            effective_loss(
                method,
                _micro_batches(pairs.sequential, start, size, training.micro_batch),
                stream(seed, "validation", start),
                lambda: autocast(precision, device),
            ).values()
        )
        for start in range(0, len(pairs) - size + 1, size)
    ]
    method.train()
    return sum(losses) / len(losses)


class _Loop:
    """The state of a training between two steps, and how one follows the other."""

    def __init__(
        self,
        method: Method,
        pairs: PairLoader,
        validation: PairLoader | None,
        training: Training,
        seed: int,
        device: torch.device,
        folder: Path,
    ) -> None:
        self.method, self.pairs, self.validation, self.training = method, pairs, validation, training
        self.seed, self.device, self.folder = seed, device, folder
        self.mode = accumulation_mode(method, training)
        self.precision = precision_of(training, device)
        self.epoch_steps = check_batch(training, len(pairs))
        self.step, self.seconds, self.best, self.last_validation = 0, 0.0, math.inf, math.nan
        method.train()
        method.model.set_gradient_checkpointing(training.gradient_checkpointing)
        if training.compile:
            method.model.image.compile()
            method.model.text.compile()
        method.enter(next(iter(method.stages())))
        self.steps = self.budget_steps()
        self.validate_at = {round(self.steps * (i + 1) / training.validations) for i in range(training.validations)}
        self.starts = stage_starts(method, self.steps)
        self.enter(next(iter(self.starts)))

    def budget_steps(self) -> int:
        """The steps of the training; those that a time pays for are kept beside the checkpoints, so that a training
        that goes on has the schedule that it began with.
        """
        kept = self.folder / STEPS
        if kept.exists():
            return int(kept.read_text())
        per_step = self.step_seconds if self.training.time else self.step_flops
        with _untouched(self.method):
            steps = training_steps(self.training, len(self.pairs), per_step)
        if self.training.time:
            kept.write_text(str(steps))
        return steps

    def step_seconds(self) -> float:
        """What a step takes on this machine, its share of the validations included: the median of a few."""
        seconds = []
        for _ in range(6):
            began = time.monotonic()
            accumulate(
                self.method, self.batches(self.step), self.mode, 0, lambda: autocast(self.precision, self.device)
            )
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            seconds.append(time.monotonic() - began)
        began = time.monotonic()
        if self.validation is not None:
            self.validation_loss()
        validating = (time.monotonic() - began) * self.training.validations
        spent = sum(seconds)
        per_step = sorted(seconds[2:])[2]
        steps = ((self.training.time or 0) - validating - spent) / per_step
        return (self.training.time or 0) / max(1.0, steps)

    def step_flops(self) -> float:
        """Of a step, the mean over the stages by their shares of the budget."""
        per_sample, shares = self.flops_by_stage(), self.method.stages()
        return self.training.batch_size * sum(share * per_sample[stage] for stage, share in shares.items())

    def enter(self, stage: str) -> None:
        self.method.enter(stage)
        self.optimizer = optimizer_of(self.method, self.training)
        self.trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.stage = stage
        self.begin = self.starts[stage]
        self.end = min((start for start in self.starts.values() if start > self.begin), default=self.steps)

    def train_step(self, log: IO[str]) -> float:
        began = time.monotonic()
        if self.step == self.end:
            # Losses of different stages do not compare: the best checkpoint is one of the last stage.
            self.enter(list(self.starts)[list(self.starts.values()).index(self.step)])
            self.best = math.inf
        self.method.epoch = self.step / self.epoch_steps
        batches = self.next_batches()
        before = [(buffer, buffer.clone()) for buffer in running_statistics(self.method)]
        losses, keys = accumulate(
            self.method,
            batches,
            self.mode,
            stream(self.seed, "step", self.step),
            lambda: autocast(self.precision, self.device),
        )
        loss = sum(losses.values())
        limit = self.training.gradient_clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.trained, limit).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            # The forward pass has put its values into running statistics already.
            for buffer, old in before:
                buffer.copy_(old)
            raise BenchError(self.keep_finite(loss, norm, [id_ for batch in batches for id_ in batch.ids]))
        rate = learning_rate(self.training, self.step - self.begin, self.end - self.begin)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.method.after_step(keys)
        self.step += 1
        line = {
            "stage": self.stage,
            "step": self.step,
            "samples": self.step * self.training.batch_size,
            "loss": loss,
            **losses,
            "learning_rate": rate,
            "gradient_norm": norm,
            "temperature_scale": self.method.temperature_scale,
        }
        if self.validation is not None and self.step in self.validate_at:
            line["validation_loss"] = self.validate()
        self.seconds += time.monotonic() - began
        log.write(json.dumps(line | {"seconds": round(self.seconds, 3)}) + "\n")
        log.flush()
        return loss

    @contextmanager
    def loading(self) -> Iterator[None]:
        """While it lasts, the batches of the next step are read during the running one."""
        with ThreadPoolExecutor(1) as self.reader:
            self.ahead: tuple[int, Future[list[Batch]]] | None = None
            yield

    def next_batches(self) -> list[Batch]:
        step, ahead = self.ahead or (-1, None)
        batches = ahead.result() if ahead and step == self.step else self.batches(self.step)
        following = self.step + 1
        self.ahead = (following, self.reader.submit(self.batches, following)) if following < self.steps else None
        return batches

    def batches(self, step: int) -> list[Batch]:
        epoch, step = divmod(step, self.epoch_steps)
        start = epoch * len(self.pairs) + step * self.training.batch_size
        found = _micro_batches(self.pairs.batch, start, self.training.batch_size, self.training.micro_batch)
        return [batch.pinned() for batch in found] if self.device.type == "cuda" else found

    def validate(self) -> float:
        loss = self.last_validation = self.validation_loss()
        if loss < self.best:
            self.best = loss
            _save(self.folder / BEST, _tensors(self.method.state_dict()))
        return loss

    def validation_loss(self) -> float:
        assert self.validation is not None
        return validation_loss(self.method, self.validation, self.training, self.seed, self.device, self.precision)

    def held(self) -> int:
        """Bytes of weights, whatever else the method keeps, and the optimiser's state."""
        kept = [
            *self.method.state_dict().values(),
            *(t for state in self.optimizer.state.values() for t in state.values()),
        ]
        return sum(tensor.numel() * tensor.element_size() for tensor in kept)

    def save_resume(self) -> None:
        tensors = {f"method.{name}": tensor for name, tensor in _tensors(self.method.state_dict()).items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": tensor for name, tensor in _tensors(state).items()}
        position = {
            "stage": self.stage,
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "last_validation": self.last_validation,
        }
        _save(self.folder / RESUME, tensors, {name: json.dumps(value) for name, value in position.items()})

    def keep_finite(self, loss: float, norm: float, ids: list[str]) -> str:
        """Keep the weights before this step, and all ids of its batch, for a look; training the cell again starts from
        its last checkpoint. Returns what to tell the user.
        """
        weights, found = self.folder / FINITE, self.folder / NOT_FINITE
        _save(weights, _tensors(self.method.state_dict()))
        content = {"step": self.step, "loss": loss, "gradient_norm": norm, "ids": ids}
        found.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        shown = ", ".join(ids[:8]) + (", ..." if len(ids) > 8 else "")
        return (
            f"step {self.step}: the loss is {loss} and the gradient's norm {norm} (expected finite numbers) on records "
            f"{shown}; the ids of all {len(ids)} are in {found}, the last finite weights in {weights}"
        )

    def resume(self, log: IO[str]) -> None:
        path = self.folder / RESUME
        if path.exists():
            with safe_open(path, "pt", device=str(self.device)) as file:
                position = {name: json.loads(value) for name, value in file.metadata().items()}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            self.enter(position["stage"])
            state = self.optimizer.state_dict()
            for name, tensor in tensors.items():
                if name.startswith("optimizer."):
                    _, i, key = name.split(".", 2)
                    state["state"].setdefault(int(i), {})[key] = tensor
            prefix = "method."
            self.method.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
            self.optimizer.load_state_dict(state)
            self.step, self.seconds = position["step"], position["seconds"]
            self.best, self.last_validation = position["best"], position["last_validation"]
        _truncate(log, self.step)

    def cost(self) -> dict[str, Any]:
        starts = [*self.starts.values(), self.step]
        steps = [end - start for start, end in itertools.pairwise(starts)]
        flops = self.training.batch_size * sum(map(operator.mul, self.flops_by_stage().values(), steps))
        return {
            "samples": self.step * self.training.batch_size,
            "steps": self.step,
            "budget": "{}={:g}".format(*self.training.budget),
            "epochs": self.step / self.epoch_steps,
            "seconds": self.seconds,
            "samples_per_second": self.step * self.training.batch_size / self.seconds,
            **parameter_columns(self.method),
            "flops_per_sample": flops / (self.step * self.training.batch_size),
            "flops": flops,
            "batch_size": self.training.batch_size,
            "micro_batch": min(self.training.micro_batch, self.training.batch_size),
            "accumulation": self.mode,
            "precision": self.precision,
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type,
            "validation_loss": self.last_validation,
            "best_validation_loss": self.best,
        }

    def flops_by_stage(self) -> dict[str, float]:
        """Floating-point operations of a step a sample, in each stage. Leaves the method in its last."""
        found = {}
        with _untouched(self.method):
            for stage in self.method.stages():
                self.method.enter(stage)
                found[stage] = self.flops_per_sample()
        return found

    def flops_per_sample(self) -> float:
        """Of forward passes, backward passes, and the second forward pass where the batch is larger than the
        micro-batch. m micro-batches of k samples, contrasted with each other, take m (c + a k) + b (m k)^2: three small
        steps tell a, b and c.
        """
        training = self.training
        micro_batch = min(training.micro_batch, training.batch_size)
        together = micro_batch if self.mode == "plain" else training.batch_size
        # Of a micro-batch, as long as its longest text.
        sample = self.pairs.sequential(0, micro_batch).rows([0])
        # Two at least: batch normalisation in training does not take one alone.
        steps = [(1, 2), (1, 4), (1, 8)] if together == micro_batch else [(2, 2), (2, 4), (4, 2)]
        counts = []
        for m, k in steps:
            with FlopCounterMode(display=False) as counter:
                accumulate(self.method, [sample.rows([0] * k)] * m, self.mode, 0)
            counts.append(counter.get_total_flops())
        c, a, b = np.linalg.solve([[m, m * k, (m * k) ** 2] for m, k in steps], counts)
        return float(c / micro_batch + a + b * together)


def running_statistics(method: Method) -> list[Tensor]:
    """What norm layers know of the batches that they have seen (BatchNorm), which a forward pass changes."""
    layers = [module for module in method.modules() if hasattr(module, "running_mean")]
    return [buffer for layer in layers for buffer in layer.buffers(recurse=False)]


@contextmanager
def _untouched(method: Method) -> Iterator[None]:
    """A trial that leaves neither gradients nor running statistics behind."""
    saved = [buffer.clone() for buffer in method.buffers()]
    yield
    for buffer, old in zip(method.buffers(), saved):
        buffer.copy_(old)
    method.zero_grad(set_to_none=True)


def _micro_batches(fetch: Callable[[int, int], Batch], start: int, size: int, micro_batch: int) -> list[Batch]:
    return [fetch(start + offset, min(micro_batch, size - offset)) for offset in range(0, size, micro_batch)]


@contextmanager
def _deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM wait for the end of the step; a second Ctrl-C does not. What the caller ignores (nohup, a job
    in the background) stays ignored.
    """
    asked = False

    def ask(number: int, _: Any) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if current_thread() is not main_thread():
        yield lambda: False
        return
    heard = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    old = {number: signal.signal(number, ask) for number in heard}
    try:
        yield lambda: asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
