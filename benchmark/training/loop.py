"""The training loop of one cell."""

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, NoReturn, cast

import torch
from torch import Tensor

from benchmark.common.errors import BenchError, described, plural
from benchmark.common.interrupts import deferred_interrupt
from benchmark.common.seeding import stream
from benchmark.config.training import Training, checkpoint_at
from benchmark.data.batch import Batch
from benchmark.data.loader import PairLoader
from benchmark.method import METHODS, Method
from benchmark.models.tower import ImageTower
from benchmark.store.files import DamagedError, set_aside, write_whole
from benchmark.training.accumulation import (
    NoRoomError,
    NotFiniteError,
    Reader,
    Values,
    accumulate,
    accumulation_mode,
    effective_loss,
    micro_batches,
    running_statistics,
    training_step,
)
from benchmark.training.average import WeightAverage
from benchmark.training.checkpoint import (
    BEST,
    FROM_THE_START,
    LAST,
    LOG,
    RESUME,
    STEPS,
    Checkpoint,
    Position,
    check_weights,
    keep_not_finite,
    load_method,
    load_weights,
    reached,
    read_cost,
    read_resume,
    save_checkpoint,
    save_cost,
    save_resume,
    truncate_log,
)
from benchmark.training.compilation import compile_blocks, padded, uncompiled
from benchmark.training.cost import (
    Cost,
    Shape,
    buffers_kept,
    fitting_division,
    flops_budget_steps,
    flops_by_stage,
    is_small,
    parameter_columns,
    seconds_per_step,
    simulated_or_real,
    total_flops,
)
from benchmark.training.division import ONE_BY_ONE, Division, Passes
from benchmark.training.frozen import FrozenFeatures
from benchmark.training.memory import StepMemory, available_memory, held_bytes
from benchmark.training.ranks import ALONE, Ranks, SharedError
from benchmark.training.schedule import (
    autocast,
    check_batch,
    is_fused,
    learning_rate,
    optimizer_of,
    precision_of,
    set_learning_rate,
    stage_starts,
    stages_of,
    training_steps,
)
from benchmark.training.spikes import spikes_of

READ_EVERY = 20
"""Steps between two at which the losses are read from a GPU: of steps of 0.1 s, once in two seconds."""


@dataclass(frozen=True)
class StepProgress:
    """The progress of a running training. line: of the step in log.jsonl."""

    step: int
    steps: int
    samples_per_second: float
    line: Mapping[str, Any]

    @property
    def loss(self) -> float:
        """The loss of the step."""
        return float(self.line["loss"])

    @property
    def validation_loss(self) -> float:
        """The validation loss after the step; NaN after one without validation."""
        return float(self.line.get("validation_loss", math.nan))


def pretrain(
    method: Method,
    pairs: PairLoader,
    validation: PairLoader | None,
    training: Training,
    *,
    seed: int,
    device: torch.device,
    folder: Path,
    keep: Sequence[float] = (),
    progress: Callable[[StepProgress], None] = lambda _: None,
    before_writing: Callable[[], None] = lambda: None,
    ranks: Ranks = ALONE,
    read_every: int | None = None,
    cache: Path | None = None,
) -> Cost | None:
    """Train ``method``; write ``last.safetensors``, ``best.safetensors`` and ``log.jsonl`` into ``folder``.

    Writes ``best.safetensors`` only with validation pairs. keep: shares of the training, below 1, after which the
    weights are kept as ``at-SHARE.safetensors``. With ``training.average``, each file has a second one beside it,
    ``-average`` before its extension. Resumes from ``resume.safetensors`` of an interrupted call and ends with the same
    weights, as all randomness derives from the seed and the step. A call that had reached the end is not repeated: its
    weights are loaded, and what it returned. The caller removes the files of ``TEMPORARY``. before_writing: called
    before each file of weights is written; may raise to stop. ranks: which train together, each with a call like this
    one; a checkpoint does not depend on how many they are. Rank 0 alone reads and writes what is kept, and the others
    return None; each needs a ``folder`` of its own. What stops one stops all after the same step.
    read_every: steps between two at which losses are read from the device, written to the log and passed to
    ``progress``; between these, nothing waits for the device. By default every step on the CPU, which has nothing to
    wait for, and ``READ_EVERY`` elsewhere.
    cache: keeps the outputs of frozen layers for later trainings, where ``training.cache_frozen``.

    Raises ``SharedError`` with the step if the loss is not finite (the ids of its batch are in ``finite.json``, the
    weights before it in ``finite.safetensors``; after_step() may have gone on until the loss was read), and
    ``BenchError`` if weights that are to be written or a validation loss are not finite. After Ctrl-C and the signals
    of a scheduler, raises what deferred_interrupt() says, having written a checkpoint of the current step.
    """
    if ranks.is_first:
        folder.mkdir(parents=True, exist_ok=True)
    if (ended := ranks.from_first(lambda: read_cost(folder))) is not None:
        if not ranks.is_first:
            return None
        load_weights(method.to(device), folder / LAST)
        return cast(Cost, ended)
    loop = _Loop(
        method.to(device),
        pairs,
        validation,
        training,
        seed,
        device,
        folder,
        keep,
        before_writing,
        ranks,
        read_every,
        cache,
    )
    loop.resume()

    def show(lines: list[dict[str, Any]]) -> None:
        speed = loop.step * training.batch_size / loop.seconds
        for line in lines:
            progress(StepProgress(line["step"], loop.steps, speed, line))

    path = folder / LOG if ranks.is_first else Path(os.devnull)
    with path.open("a", encoding="utf-8") as log, deferred_interrupt() as interrupted, loop.prefetching():
        saved = time.monotonic()
        while loop.step < loop.steps:
            with loop.memory.watch(lambda: held_bytes(method, loop.optimizer, loop.average), loop.step, loop.steps):
                lines = loop.train_step(log)
            if loop.step in (loop.begun + 1, loop.steps):
                ranks.check_equal(method, loop.step)
            if loop.step in loop.keep_at:
                loop.save(f"{checkpoint_at(loop.keep_at[loop.step])}.safetensors")
            show(lines)
            stop = next(filter(None, ranks.all(interrupted())), None)
            if stop or time.monotonic() - saved >= training.checkpoint_every:
                try:
                    show(loop.read(log))
                    loop.save_resume()
                finally:
                    if stop:
                        raise stop
                saved = time.monotonic()
    if not ranks.is_first:
        return None
    loop.save(LAST)
    cost = loop.cost()
    before_writing()
    save_cost(folder, cost)
    return cost


def validation_loss(
    method: Method,
    pairs: PairLoader,
    training: Training,
    seed: int,
    device: torch.device,
    precision: str,
    ranks: Ranks = ALONE,
) -> float:
    """Compute the method's loss in eval mode over the validation pairs.

    The mean over batches of the training's effective size (or a single batch of all pairs, if fewer), as a contrastive
    loss depends on the number of negatives.
    """
    size = min(training.batch_size, len(pairs))
    method.eval()
    losses = [
        sum(
            effective_loss(
                method,
                micro_batches(
                    _lengths(pairs.sequential, method, training), start, size, training.micro_batch_size, ranks
                ),
                stream(seed, "validation", start),
                lambda: autocast(precision, device),
                ranks,
            ).values()
        )
        for start in range(0, len(pairs) - size + 1, size)
    ]
    method.train()
    return sum(losses) / len(losses)


SAMPLES = 256
"""Pairs that are read to know how long texts are, before it is known how many fit into memory."""


@dataclass(frozen=True)
class _Taken:
    """A step whose losses are not read yet.

    line: of the log, without them. temperature_scale: where it is a number. ids: of the pairs, by micro-batch.
    """

    line: dict[str, Any]
    temperature_scale: float | None
    ids: list[list[str]]


def _lengths(fetch: Callable[[int, int], Batch], method: Method, training: Training) -> Callable[[int, int], Batch]:
    """Return a function that pads texts for compiled towers, or ``fetch`` itself without."""
    return (lambda start, count: padded(fetch(start, count), method)) if training.compile else fetch


class _Loop:
    """The state of a training between two steps, and the step itself."""

    def __init__(
        self,
        method: Method,
        pairs: PairLoader,
        validation: PairLoader | None,
        training: Training,
        seed: int,
        device: torch.device,
        folder: Path,
        keep: Sequence[float],
        before_writing: Callable[[], None],
        ranks: Ranks,
        read_every: int | None,
        cache: Path | None,
    ) -> None:
        self.before_writing, self.ranks, self.cache = before_writing, ranks, cache
        self.method, self.pairs, self.validation, self.training = method, pairs, validation, training
        self.seed, self.device, self.folder = seed, device, folder
        self.mode = accumulation_mode(method, training)
        self.precision = precision_of(training, device)
        self.epoch_steps = check_batch(training, len(pairs))
        self.division: Division | None = None
        self.step, self.seconds, self.best, self.last_validation = 0, 0.0, math.inf, math.nan
        self.memory = StepMemory(device)
        self.read_every, self.reader = read_every, Reader(device, ranks)
        self.taken: list[_Taken] = []
        self.begun = 0
        """The first step of this process."""
        self.said: Division | None = None
        """The division that the log has."""
        method.train()
        method.model.set_gradient_checkpointing(training.gradient_checkpointing)
        if training.compile:
            compile_blocks(method)
        for tower in method.modules():
            if isinstance(tower, ImageTower) and device.type == "cuda":
                tower.channels_last = tower.is_convolutional
        method.enter(next(iter(stages_of(method))))
        if training.micro_batch == "auto":
            self.divide(self._division())
        # All begin together, as time is measured.
        ranks.all(None)
        self.steps = self._budget_steps()
        self.validate_at = {round(self.steps * (i + 1) / training.validations) for i in range(training.validations)}
        self.keep_at = {max(1, round(share * self.steps)): share for share in keep}
        self.starts = stage_starts(method, self.steps)
        self.average = WeightAverage(method, training.average) if training.average else None
        self.enter(next(iter(self.starts)))

    def enter(self, stage: str) -> None:
        """Begin a stage, with its own optimiser and learning-rate schedule."""
        self.method.enter(stage)
        self.method.same_text = self.training.same_text
        self.method.label_smoothing = self.training.label_smoothing
        self.recipe = self.training.at_stage(stage)
        self.optimizer = optimizer_of(self.method, self.recipe)
        if self.average is not None:
            self.average.follow()
        self.stage = stage
        self.frozen: FrozenFeatures | None = None
        self.begin = self.starts[stage]
        self.end = min((start for start in self.starts.values() if start > self.begin), default=self.steps)

    def train_step(self, log: IO[str]) -> list[dict[str, Any]]:
        """Take one step, and validate if due. Where losses are read after it, log and return the lines until now."""
        began = time.monotonic()
        if self.step == self.end:
            self.enter(list(self.starts)[list(self.starts.values()).index(self.step)])
            # Losses of different stages are not comparable: the best checkpoint is one of the last stage.
            self.best = math.inf
        self.method.epoch = self.step / self.epoch_steps
        rate = learning_rate(self.recipe, self.step - self.begin, self.end - self.begin)
        set_learning_rate(self.optimizer, rate)
        batches, reads = self._next_batches(), self._reads()
        line: dict[str, Any] = {"stage": self.stage, "step": self.step + 1, "learning_rate": rate}
        self.taken.append(_Taken(line, None, [batch.ids for batch in batches]))
        self._update(batches, reads)
        if self.division is not None and self.division is not self.said:
            self.said = self.division
            line["micro_batch"] = self.division.micro_batch
        if self.average is not None:
            self.average.update()
        self.step += 1
        self._keep_temperature()
        if self.validation is not None and self.step in self.validate_at:
            line["validation_loss"] = self._validate()
        if not reads:
            self.seconds += time.monotonic() - began
            line["seconds"] = round(self.seconds, 3)
            return []
        values = self._read()
        self.seconds += time.monotonic() - began
        line["seconds"] = round(self.seconds, 3)
        return self._log(values, log)

    def read(self, log: IO[str]) -> list[dict[str, Any]]:
        """Log and return the lines of the steps whose losses were not read yet."""
        began = time.monotonic()
        values = self._read() if self.taken else []
        self.seconds += time.monotonic() - began
        return self._log(values, log)

    def _reads(self) -> bool:
        """Return whether losses are read in the next step: then no weight changes before they are known."""
        every = self.read_every or (1 if self.device.type == "cpu" else READ_EVERY)
        if not is_fused(self.optimizer):
            every = 1  # nothing else keeps it from a step that is not finite
        number = self.step + 1
        # The first step of a process shows most mistakes.
        due = number % every == 0 or self.step == self.begun or number == self.end
        return due or number in self.validate_at or number in self.keep_at

    def _update(self, batches: list[Batch], reads: bool) -> None:
        seed, clip, division = stream(self.seed, "step", self.step), self.recipe.gradient_clip, self.division

        def take() -> None:
            with self._frozen_features():
                training_step(
                    self.method,
                    self.optimizer,
                    batches if self.division is division else self._batches(self.step),
                    self.mode,
                    seed,
                    self._autocast,
                    clip,
                    self.ranks,
                    self.reader,
                    reads,
                    self.passes,
                )

        try:
            self._with_room(take)
        except NotFiniteError as error:
            self._stop(error)

    def _with_room(self, take: Callable[[], object]) -> None:
        """Call ``take``, which passes a batch, and while memory is missing for it again with a smaller division."""
        while True:
            try:
                take()
                return
            except NoRoomError:
                smaller = self._smaller()
                if smaller is None:
                    raise
            # Nothing has changed, so that the batch can be passed again.
            self.divide(smaller)

    def _division(self) -> Division:
        """Return how a batch is divided, by the memory that there is now."""
        shape, count = Shape.of(self._sample(SAMPLES)), self.ranks.count
        available = available_memory(self.device)
        own = fitting_division(self.method, shape, self.training, self.device, available, count)
        return replace(own, capacity=min(self.ranks.all(own.capacity)))

    @property
    def passes(self) -> Passes:
        """How the micro-batches pass."""
        return self.division.passes if self.division else ONE_BY_ONE

    def divide(self, division: Division) -> None:
        """Divide the batches of the following steps in this way."""
        self.division = division
        self.training = self.training.model_copy(update={"micro_batch": division.micro_batch})

    def _smaller(self) -> Division | None:
        """Return a division that takes half the memory; None if there is none, or if the user has set the number."""
        # Other ranks do not know that one lacks memory.
        if self.division is None or self.ranks.count > 1:
            return None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return self.division.halved()

    def _keep_temperature(self) -> None:
        scale: object = self.method.temperature_scale
        if isinstance(scale, Tensor) and scale.ndim == 0:
            self.reader.add_temperature(scale)
        else:
            self.taken[-1] = replace(self.taken[-1], temperature_scale=self._finite_temperature(scale))

    def _finite_temperature(self, scale: object) -> float:
        if not (isinstance(scale, float | int) and math.isfinite(scale)):
            title = METHODS.title(type(self.method))
            raise SharedError(f"{title}: temperature_scale must be a finite number, found {described(scale)}")
        return scale

    def _read(self) -> list[Values]:
        try:
            return self.reader.read()
        except NotFiniteError as error:
            self._stop(error)

    def _stop(self, error: NotFiniteError) -> NoReturn:
        taken = self.taken[error.number]
        step = taken.line["step"] - 1
        of_batches = self.ranks.interleaved(self.ranks.all(taken.ids))
        if not self.ranks.is_first:
            raise SharedError(f"step {step}: {error}") from None
        ids = [id_ for ids in of_batches for id_ in ids]
        raise SharedError(keep_not_finite(self.folder, self.method, step, error, ids)) from None

    def _log(self, values: list[Values], log: IO[str]) -> list[dict[str, Any]]:
        """Write the lines of the steps whose losses were read."""
        lines = []
        for taken, read in zip(self.taken, values, strict=True):
            scale = taken.temperature_scale if read.temperature_scale is None else read.temperature_scale
            scale = self._finite_temperature(scale)
            step = taken.line["step"]
            lines.append(
                {
                    "stage": taken.line["stage"],
                    "step": step,
                    "samples": step * self.training.batch_size,
                    "loss": sum(read.losses.values()),
                    **{name: term for name, term in read.losses.items() if name != "loss"},
                    "learning_rate": taken.line["learning_rate"],
                    "gradient_norm": read.gradient_norm,
                    "temperature_scale": scale,
                    **taken.line,
                }
            )
        self.taken = []
        log.write("".join(json.dumps(line) + "\n" for line in lines))
        log.flush()
        return lines

    def _frozen_features(self) -> AbstractContextManager[None]:
        """Use kept outputs of frozen layers in the block, if they are wanted and pairs are read more than once."""
        training = self.training
        repeated = (self.end - self.begin) * training.batch_size > len(self.pairs)
        if not training.cache_frozen or training.compile or training.gradient_checkpointing or not repeated:
            return nullcontext()
        if self.frozen is None:
            size, places = training.micro_batch_size, (self.folder, self.cache)
            self.frozen = FrozenFeatures(self.method, self.pairs, size, self._autocast, *places)
        return self.frozen.used()

    def _validate(self) -> float:
        loss = self.last_validation = self._validation_loss()
        if not math.isfinite(loss):
            title = METHODS.title(type(self.method))
            raise SharedError(f"{title}, step {self.step}: the validation loss is {loss} (expected a finite number)")
        if loss < self.best:
            self.best = loss
            self.save(BEST)
        return loss

    def _validation_loss(self) -> float:
        assert self.validation is not None
        return validation_loss(
            self.method, self.validation, self.training, self.seed, self.device, self.precision, self.ranks
        )

    def _autocast(self) -> AbstractContextManager[object]:
        return autocast(self.precision, self.device)

    # Batches

    @contextmanager
    def prefetching(self) -> Iterator[None]:
        """Read the batches of the next step in a thread while the current step runs."""
        with ThreadPoolExecutor(1) as self._reader:
            self._ahead: tuple[int, Division | None, Future[list[Batch]]] | None = None
            yield

    def _next_batches(self) -> list[Batch]:
        step, division, ahead = self._ahead or (-1, None, None)
        due = step == self.step and division is self.division
        batches = ahead.result() if ahead and due else self._batches(self.step)
        following = self.step + 1
        if following < self.steps:
            self._ahead = following, self.division, self._reader.submit(self._batches, following)
        else:
            self._ahead = None
        return batches

    def _batches(self, step: int) -> list[Batch]:
        start = self.pairs.start(step, self.training.batch_size)
        size = self.training.micro_batch_size
        fetch = _lengths(self.pairs.batch, self.method, self.training)
        batches = micro_batches(fetch, start, self.training.batch_size, size, self.ranks)
        return [batch.pinned() for batch in batches] if self.device.type == "cuda" else batches

    # Budget and cost

    def _budget_steps(self) -> int:
        """Return the number of steps; for a time budget, keep it in a file so that a resumed run does not change it."""
        if kept := self.ranks.from_first(self._kept_steps):
            return kept
        if self.training.flops is not None:
            shape = Shape.of(self._sample())
            return simulated_or_real(
                lambda real: flops_budget_steps(self.method, shape, self.training, self.device, real),
                is_small(self.method, self.training, self.device),
            )
        steps = self.ranks.all(training_steps(self.training, len(self.pairs), self._seconds_per_step))[0]
        if self.training.time is not None and self.ranks.is_first:
            write_whole(self.folder / STEPS, str(steps))
        return steps

    def _kept_steps(self) -> int | None:
        """Read the number of steps that a time budget was found to allow; None if there is none."""
        file = self.folder / STEPS
        if file.exists() and (kept := file.read_text(errors="replace").strip()).isdecimal():
            return int(kept)
        # What was trained until now is of no use without the length of its schedule.
        for damaged in (file, self.folder / RESUME) if file.exists() else ():
            set_aside(damaged, DamagedError(file, "is damaged", FROM_THE_START))
        return None

    def _seconds_per_step(self) -> float:
        def step() -> None:
            self._with_room(
                lambda: accumulate(self.method, self._batches(0), self.mode, 0, self._autocast, self.ranks, self.passes)
            )

        def validate() -> None:
            if self.validation is not None:
                self._validation_loss()

        with buffers_kept(self.method):
            seconds = seconds_per_step(step, validate, self.training, self.device)
        self.method.zero_grad(set_to_none=True)
        return seconds

    def _sample(self, most: int | None = None) -> Batch:
        """Return one pair, with as many tokens as the longest text of a micro-batch, of at most ``most`` pairs."""
        size = self.training.micro_batch_size
        return self.pairs.sequential(0, min(size, most or size)).rows([0])

    def cost(self) -> Cost:
        """Return the cost of the training so far."""
        samples = self.step * self.training.batch_size
        kept = self.division.kept if self.division else 0.0
        with uncompiled(self.training.compile):
            by_stage = flops_by_stage(self.method, self._sample(), self.training, kept)
        flops = total_flops(by_stage, self.starts, self.step, self.training.batch_size)
        return {
            "samples": samples,
            "steps": self.step,
            "budget": "{}={:g}".format(*self.training.budget),
            "epochs": self.step / self.epoch_steps,
            "seconds": self.seconds,
            "samples_per_second": samples / self.seconds,
            **parameter_columns(self.method),
            "flops_per_sample": flops / samples,
            "flops": flops,
            "batch_size": self.training.batch_size,
            "micro_batch": self.training.micro_batch_size,
            "graphs": self.division.graphs if self.division else 0,
            "accumulation": self.mode,
            "precision": self.precision,
            "gpus_per_cell": self.ranks.count,
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type,
            "validation_loss": self.last_validation,
            "best_validation_loss": self.best,
            "peak_memory": self.memory.highest,
            "kept": reached(self.folder, self.keep_at),
            "spikes": spikes_of(self.folder / LOG),
        }

    # Resuming

    def check_finite(self) -> None:
        """Raise ``BenchError`` for weights that are not finite: those after a step are not part of its loss."""
        tensors: dict[str, Tensor] = dict(self.method.named_parameters())
        statistics = {id(buffer) for buffer in running_statistics(self.method)}
        tensors |= {name: buffer for name, buffer in self.method.named_buffers() if id(buffer) in statistics}
        # One transfer from the device, not one for each tensor.
        finite = torch.stack([tensor.isfinite().all() for tensor in tensors.values()]).tolist()
        bad = [name for name, good in zip(tensors, finite) if not good]
        if bad:
            some = ", ".join(bad[:3]) + (", ..." if len(bad) > 3 else "")
            raise BenchError(
                f"{METHODS.title(type(self.method))}, step {self.step}: its loss is finite, but not the weights after "
                f"it ({plural(len(bad), 'tensor')}: {some}); a smaller training.learning_rate may help"
            )

    def save(self, file: str) -> None:
        """Write the weights, and their average if there is one."""
        if not self.ranks.is_first:
            return
        self.check_finite()
        self.before_writing()
        save_checkpoint(self.method, self.average, self.folder / file)

    def save_resume(self) -> None:
        """Write a checkpoint to resume from."""
        if not self.ranks.is_first:
            return
        position = Position(
            self.stage,
            self.step,
            self.seconds,
            self.best,
            self.last_validation,
            self.memory.highest,
            self.division.capacity if self.division else 0,
        )
        self.check_finite()
        self.before_writing()
        save_resume(self.folder, self.method, self.optimizer, self.average, position)

    def _intact_checkpoint(self) -> Checkpoint | None:
        """Read the last checkpoint, if there is one."""
        # One that other ranks get too goes through the CPU.
        checkpoint = read_resume(self.folder, self.device if self.ranks.count == 1 else torch.device("cpu"))
        return checkpoint if checkpoint and self._has_weights_until(checkpoint.position) else None

    def _has_weights_until(self, position: Position) -> bool:
        """Return whether the weights kept until a checkpoint are intact; set it aside if not."""
        kept = [f"{checkpoint_at(share)}.safetensors" for step, share in self.keep_at.items() if step <= position.step]
        try:
            for name in [*kept, *([BEST] if math.isfinite(position.best) else [])]:
                check_weights(self.folder / name)
        except DamagedError as error:
            set_aside(self.folder / RESUME, error)
            return False
        return True

    def resume(self) -> None:
        """Restore the last checkpoint, if there is one, and drop the log's lines after it."""
        checkpoint = self.ranks.from_first(self._intact_checkpoint)
        if checkpoint is not None:
            position = checkpoint.position
            self.enter(position.stage)
            load_method(self.method, checkpoint.method, self.folder / RESUME)
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": checkpoint.optimizer})
            if self.average is not None:
                self.average.tensors = {name: tensor.to(self.device) for name, tensor in checkpoint.average.items()}
            self.step, self.seconds = position.step, position.seconds
            self.best, self.last_validation = position.best, position.last_validation
            self.memory.highest = position.peak_memory
            if self.division is not None and 0 < position.capacity < self.division.capacity:
                self.divide(replace(self.division, capacity=position.capacity))
        self.begun = self.step
        if self.ranks.is_first:
            truncate_log(self.folder / LOG, self.step)
