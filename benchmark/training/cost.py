"""The cost of a training: parameters, floating-point operations, memory, time.

A run counts operations with ``flops_by_stage`` on its method. A plan counts those of a step on a ``trial_copy``, and
measures memory by the lifetime of its tensors. These are fake, with shapes but no data, unless the method is small.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise
from typing import Any, Self, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from benchmark.common.errors import BenchError
from benchmark.common.seeding import torch_seed
from benchmark.config.augmentation import Augmentation
from benchmark.config.training import Recipe, Training
from benchmark.data.batch import Batch
from benchmark.method import Accumulation, Method, Output
from benchmark.models.meta import ShapesAlone
from benchmark.training.accumulation import MODES, accumulate, accumulation_mode, keys_of, micro_batches, training_step
from benchmark.training.average import WeightAverage
from benchmark.training.checkpoint import Reached
from benchmark.training.division import Division, Draws, normalises_by_batch
from benchmark.training.memory import StoragePeak, held_bytes
from benchmark.training.schedule import autocast, is_fused, optimizer_of, precision_of
from benchmark.training.spikes import Spikes
from benchmark.training.watching import Watching

T = TypeVar("T")

MOST_AT_ONCE = 4.0
"""How many times as many pairs pass at once where no graph is kept, at most: an operator takes more within."""

SMALL = 1e8
"""The most parameters of a small method, times the pairs of its micro-batch.

Computing its steps takes a fifth of the time of simulating them, and needs no import that takes as long as torch's.
"""

FULL = 1 << 17
"""Pairs after which queues are taken to be full where steps are computed: keys of more would not fit into memory."""

ASSUMED_STEPS = 10_000
"""Steps after which memory and operations are counted if the number of steps is unknown: queues are full then."""


class Parameters(TypedDict):
    """Counts of parameters.

    Of the evaluated encoder, in total and by tower with its projection; trainable: trained in at least one stage.
    parameters_trainable: of the whole method, including heads and temperatures, without teachers.
    """

    parameters: int
    parameters_trainable: int
    parameters_image: int
    parameters_image_trainable: int
    parameters_text: int
    parameters_text_trainable: int


class Cost(Parameters):
    """The cost of a training, as ``pretrain`` returns it.

    samples: pairs trained on, with repetitions. epochs: passes over the pairs, dropping incomplete batches. seconds: of
    steps and validations. flops_per_sample, flops: floating-point operations, the mean over the stages and those of the
    whole training. micro_batch: at most batch_size; with ``auto`` the number that was taken at the end. graphs: the
    micro-batches that pass once with ``auto``, as their graph is kept. gpus_per_cell: the processes that trained
    together: seconds and samples_per_second are of all of them, peak_memory is of one. precision: bf16 or fp32.
    validation_loss, best_validation_loss: the last, and the lowest in the last stage; NaN and infinity without
    validation. peak_memory: bytes. kept: how far the training was at the checkpoints that were kept in its course, by
    their names. spikes: of its loss; None without any.
    """

    samples: int
    steps: int
    budget: str
    epochs: float
    seconds: float
    samples_per_second: float
    flops_per_sample: float
    flops: float
    batch_size: int
    micro_batch: int
    graphs: int
    accumulation: Accumulation
    gpus_per_cell: int
    precision: str
    device: str
    validation_loss: float
    best_validation_loss: float
    peak_memory: int
    kept: dict[str, Reached]
    spikes: Spikes | None


class SourceCost(TypedDict, total=False):
    """For a training on several sets: the share of each in the pairs and the final validation loss on each."""

    mixture: dict[str, float]
    validation_losses: dict[str, float]


class CellCost(Cost, SourceCost):
    """A row of the cost table (cost.json). version: of the benchmark."""

    version: str
    machine: dict[str, str | int]


def parameter_columns(method: Method) -> Parameters:
    """Count parameters. Leaves the method in its last stage."""
    trained: dict[int, int] = {}
    sides: Counter[str] = Counter()
    for stage in method.stages():
        method.enter(stage)
        trained |= {id(p): p.numel() for p in method.parameters() if p.requires_grad}
        sides |= Counter(method.model.parameter_counts())
    return {
        "parameters": sides["total"],
        "parameters_trainable": sum(trained.values()),
        "parameters_image": sides["image"],
        "parameters_image_trainable": sides["image_trainable"],
        "parameters_text": sides["text"],
        "parameters_text_trainable": sides["text_trainable"],
    }


# Floating-point operations


def flops_by_stage(method: Method, sample: Batch, training: Training, kept: float = 0.0) -> dict[str, float]:
    """Count the floating-point operations of a step per sample, in each stage.

    sample: one pair, with as many tokens as the longest text of a micro-batch. kept: the share of the pairs whose graph
    is kept, so that they pass once. Leaves the method in its last stage, with unchanged buffers and without gradients.
    """
    counts = {}
    with buffers_kept(method):
        for stage in method.stages():
            method.enter(stage)
            counts[stage] = flops_per_sample(method, sample, training)
            if kept:
                once = flops_per_sample(method, sample, _in_one_graph(training))
                counts[stage] = kept * once + (1 - kept) * counts[stage]
    return counts


def _in_one_graph(training: Training) -> Training:
    return training.model_copy(update={"micro_batch": training.batch_size})


def flops_per_sample(method: Method, sample: Batch, training: Training) -> float:
    """Count a step's floating-point operations per sample in the current stage; arguments as in ``flops_by_stage``.

    Counts forward passes, keys, losses, backward passes, and the second forward pass if the batch is larger than the
    micro-batch. m micro-batches of k samples, contrasted with each other, take m (c + a k) + b (m k)^2 operations;
    three small steps determine a, b and c.
    """
    mode = accumulation_mode(method, training)
    micro_batch = training.micro_batch_size
    together = micro_batch if mode == "plain" else training.batch_size
    # Unlike accumulate(), this also passes twice over a single micro-batch, unless that is the batch.
    step = MODES["plain" if together == micro_batch and mode == "cached" else mode]
    # Batch normalisation needs at least two samples in training mode.
    steps = [(1, 2), (1, 4), (1, 8) if together == micro_batch else (2, 2)]
    counts = []
    for m, k in steps:
        with counting() as counter:
            step(method, [sample.rows([0] * k)] * m, 0, nullcontext)
        counts.append(counter.total)
    method.zero_grad(set_to_none=True)
    c, a, b = np.linalg.solve([[m, m * k, (m * k) ** 2] for m, k in steps], counts)
    return float(c / micro_batch + a + b * together)


class _Operations(Watching):
    """Counts ``total``, the floating-point operations of the block, by the formulas of torch's FlopCounterMode.

    That also keeps a count for each module, which takes most of its time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.prim.device.default:
            return NotImplemented  # A fake tensor answers itself, which half of all calls are about.
        kwargs = kwargs or {}
        from torch.utils.flop_counter import flop_registry

        formula = flop_registry.get(func._overloadpacket)
        if formula is None and _is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        result = func(*args, **kwargs)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=result)
        return result


@cache
def _is_composite(operator: OpOverload) -> bool:
    """Return whether an operator consists of others."""
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    name = operator.name()  # type: ignore[no-untyped-call]
    return key in operator.py_kernels or torch._C._dispatch_has_kernel_for_dispatch_key(name, key)


@contextmanager
def counting() -> Iterator[_Operations]:
    """Count the floating-point operations of the block."""
    # Otherwise frozen nn.MultiheadAttention uses a fused operator, which torch's counter does not count.
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _Operations() as counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def total_flops(by_stage: Mapping[str, float], starts: Mapping[str, int], steps: int, batch_size: int) -> float:
    """Return the floating-point operations of a whole training.

    by_stage: per sample. starts: the step at which each stage begins. steps: of the training so far.
    """
    lengths = [end - start for start, end in pairwise([*starts.values(), steps])]
    return batch_size * sum(by_stage[stage] * length for stage, length in zip(starts, lengths))


@dataclass(frozen=True)
class StepCost:
    """The cost of a step at the end of a training.

    flops: floating-point operations per sample, in each stage. memory: peak of the training in bytes.
    """

    flops: dict[str, float]
    memory: int


def simulated_flops(
    method: Method,
    shape: "Shape",
    training: Training,
    device: torch.device,
    steps: int,
    real: bool = False,
    kept: float = 0.0,
) -> dict[str, float]:
    """Compute ``flops_by_stage`` at the end of a training of ``steps`` steps, when queues are fullest.

    Arguments as in ``trial_copy``; ``method`` itself does not change.
    """
    if kept:
        twice, once = (
            simulated_flops(method, shape, each, device, steps, real) for each in (training, _in_one_graph(training))
        )
        return {stage: kept * once[stage] + (1 - kept) * twice[stage] for stage in twice}
    mode = accumulation_mode(method, training)
    counts = {}
    with trial_copy(method, device, real) as copy:
        _after_training_on(copy, shape.batch(1), training, steps * training.batch_size, real)
        for stage in copy.stages():
            copy.enter(stage)
            with counting() as counter, _Passes(copy, lambda: counter.total, flops_only=True) as passes:
                accumulate(copy, _step_batches(shape, training), mode, 0)
            copy.zero_grad(set_to_none=True)
            counts[stage] = passes.flops_per_sample(counter.total, training)
    return counts


def simulated_cost(
    method: Method, shape: "Shape", training: Training, device: torch.device, steps: int, real: bool = False
) -> StepCost:
    """Compute the cost of a step of a training of ``steps`` steps on ``device``. Arguments as in ``simulated_flops``.

    Memory is that of the step that ``StepMemory`` measures in the first stage: on the CPU the second, else the last.
    """
    before = training.batch_size * (1 if device.type == "cpu" else steps)
    memory, flops = _simulated_step(method, shape, training, device, before, real)
    if len(method.stages()) > 1 or _has_keys(method):
        return StepCost(simulated_flops(method, shape, training, device, steps, real), memory)
    return StepCost(dict.fromkeys(method.stages(), flops), memory)


def _simulated_step(
    method: Method, shape: "Shape", training: Training, device: torch.device, before: int, real: bool = False
) -> tuple[int, float]:
    """Return the memory and the operations per sample of a step in the first stage, after ``before`` pairs."""
    mode, precision = accumulation_mode(method, training), precision_of(training, device)
    with trial_copy(method, device, real) as copy:
        first = next(iter(copy.stages()))
        copy.enter(first)
        recipe = training.at_stage(first)
        fake = simulating(device)
        peak = StoragePeak(fake)
        optimizer = _warm_optimizer(copy, recipe, peak, real)
        _after_training_on(copy, shape.batch(1), training, before, real)
        average = WeightAverage(copy, training.average) if training.average else None
        if average is not None:
            average.follow()
        held = held_bytes(copy, optimizer, average)
        batches = _step_batches(shape, training)
        with peak, counting() as counter, _Passes(copy, lambda: counter.total) as passes:
            training_step(
                copy, optimizer, batches, mode, 0, lambda: autocast(precision, fake), recipe.gradient_clip, check=False
            )
    return held + peak.bytes, passes.flops_per_sample(counter.total, training)


def fitting_division(
    method: Method, shape: "Shape", training: Training, device: torch.device, available: int | None, ranks: int = 1
) -> Division:
    """Return the division of a batch that fits into memory, for ``training.micro_batch`` ``auto``.

    Arguments as in ``simulated_flops``; queues are full. available: bytes, as of available_memory(); None if they are
    not known. ranks: processes that train together.
    """
    mode, size = accumulation_mode(method, training), training.batch_size

    def fixed(reason: str) -> Division:
        return Division.fixed_for(size, mode, reason, ranks)

    try:
        if reason := _fixed_by(method, shape, training, device):
            return fixed(reason)
        if available is None:
            return fixed("it is not known how much memory there is")
        most = math.ceil(size / ranks)

        def memory(micro_batch: int) -> int:
            part = training.model_copy(update={"micro_batch": micro_batch})
            return _simulated_step(method, shape, part, device, ASSUMED_STEPS * size)[0]

        fits, taken, too_much = most, memory(most), 0
        while taken > available and fits > 1:
            fits, too_much = (fits + 1) // 2, taken
            taken = memory(fits)
        if not too_much or taken > available:
            return Division(size, mode, fits, ranks=ranks)
        # Between the two, memory is linear in the pairs whose graph is kept, or less.
        of_pair = (too_much - taken) / fits
        capacity = fits + int((available - taken) / of_pair)
        ratio = min(MOST_AT_ONCE, max(1.0, of_pair / _without_graph(method, shape, training, device)))
    except BenchError:
        raise
    # A method that does not run on tensors without data may fail in any way.
    except Exception:
        return replace(fixed("its memory cannot be counted"), fixed="")
    return Division(size, mode, min(capacity, most - 1 if most > 1 else 1), ratio, ranks)


def _fixed_by(method: Method, shape: "Shape", training: Training, device: torch.device) -> str:
    """Say why a division of the batch would change more than rounding; "" if it would not."""
    precision = precision_of(training, device)
    with trial_copy(method, device) as copy:
        for stage in copy.stages():
            copy.enter(stage)
            if normalises_by_batch(copy):
                return "batch normalisation makes the loss depend on it"
            with Draws() as draws:
                accumulate(copy, [shape.batch(2)], "plain", 0, lambda: autocast(precision, simulating(device)))
            copy.zero_grad(set_to_none=True)
            if draws.drawn:
                return f"what {draws.drawn} draws depends on it"
    return ""


def _without_graph(method: Method, shape: "Shape", training: Training, device: torch.device) -> float:
    """Return the bytes that a pair takes in a pass that keeps no graph."""
    peaks, precision, fake = [], precision_of(training, device), simulating(device)
    with trial_copy(method, device) as copy, torch.no_grad(), autocast(precision, fake):
        for count in (4, 8):
            batch = shape.batch(count).to(fake)
            with StoragePeak(fake) as peak:
                copy(batch, embeddings_only=True)
                copy.keys(batch)
            peaks.append(peak.bytes)
    return float(max(1.0, (peaks[1] - peaks[0]) / 4))


def flops_budget_steps(
    method: Method, shape: "Shape", training: Training, device: torch.device, real: bool = False
) -> int:
    """Return the number of steps that ``training.flops`` allows, at least one. Arguments as in ``simulated_flops``.

    The cost of a step may depend on the number of steps before it (a queue that fills up), so this iterates.
    """
    assert training.flops is not None
    affordable, steps = 0, 1
    for attempt in range(8):
        by_stage = simulated_flops(method, shape, training, device, steps, real)
        mean = sum(share * by_stage[stage] for stage, share in method.stages().items())
        affordable = max(1, round(training.flops / (training.batch_size * mean)))
        if not _has_keys(method) or abs(affordable - steps) <= 0.002 * steps:
            break
        # Halfway: full jumps would oscillate between an empty and a full queue.
        steps = affordable if attempt == 0 else max(1, round((affordable + steps) / 2))
    return affordable


# Time


def seconds_per_step(
    step: Callable[[], object], validate: Callable[[], object], training: Training, device: torch.device
) -> float:
    """Measure the seconds of a step on this machine, the median of a few, including its share of the validations.

    step: does the work of one step. validate: does one validation.
    """
    assert training.time is not None
    seconds = []
    for _ in range(6):
        began = time.monotonic()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.monotonic() - began)
    began = time.monotonic()
    validate()
    validating = (time.monotonic() - began) * training.validations
    steps = (training.time - validating - sum(seconds)) / sorted(seconds[2:])[2]
    return training.time / max(1.0, steps)


# Methods of fake tensors


@dataclass(frozen=True)
class Shape:
    """Everything that determines the shapes of a batch.

    stored: side of the stored images in pixels. image_size: side of the model's input in pixels. length: tokens of the
    longest text of a micro-batch. frame: height and width of a micro-batch of pictures that keep their ratio; None:
    they are squares.
    """

    stored: int
    image_size: int
    length: int
    augmentation: Augmentation
    frame: tuple[int, int] | None = None

    @classmethod
    def of(cls, batch: Batch) -> Self:
        """Return the shape of an existing batch."""
        height, width = batch.image.shape[2:]
        frame = None if batch.size is None else (height, width)
        return cls(min(height, width), batch.image_size, batch.tokens.shape[1], batch.augmentation, frame)

    def batch(self, count: int) -> Batch:
        """Make ``count`` pairs on the CPU: black images and texts of padding tokens, all of the same length."""
        height, width = self.frame or (self.stored, self.stored)
        return Batch(
            image=torch.zeros(count, 3, height, width, dtype=torch.uint8),
            tokens=torch.zeros(count, self.length, dtype=torch.long),
            mask=torch.ones(count, self.length, dtype=torch.bool),
            row=torch.zeros(count, dtype=torch.long),
            text_hash=torch.arange(count),
            seed=torch.zeros(count, dtype=torch.long),
            ids=[""] * count,
            image_size=self.image_size,
            augmentation=self.augmentation,
            label=torch.zeros(count, dtype=torch.long),
            size=torch.tensor([self.frame] * count) if self.frame else None,
        )


@contextmanager
def on_meta() -> Iterator[None]:
    """Build modules without allocating their tensors. Scalars keep their values, as counters determine shapes."""
    with torch.device("meta"), ShapesAlone(), _NumbersKept():
        yield


def simulating(device: torch.device) -> torch.device:
    """Return the device of fake tensors that stand for those on ``device``: itself, or the CPU where it is missing.

    A backward pass asks the driver of a GPU even for fake tensors.
    """
    missing = (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    return torch.device("cpu") if missing else device


@contextmanager
def trial_copy(method: Method, device: torch.device, real: bool = False) -> Iterator[Method]:
    """Make a copy of a method in training mode to try steps on; the block has no effects outside.

    The copy's tensors, and those made inside the block, are fake (PyTorch's FakeTensorMode): they have shapes but no
    data, as if on ``device``, whose operators are counted. The method may lie on the meta device. Numbers that a method
    reads from computed tensors are 1, and masks select everything.

    real: copy and compute the data as well, for a small method and for one that does not run on fake tensors.
    """
    with torch_seed(0), ExitStack() as stack:
        memo: dict[int, Any] = {}
        if not real:
            numbers = {id(b): b.item() for b in method.buffers() if b.ndim == 0 and b.device.type != "meta"}
            stack.enter_context(_AssumedValues())
            for tensor in (*method.parameters(), *method.buffers()):
                memo[id(tensor)] = _emptied(tensor, simulating(device), numbers.get(id(tensor)))
        yield deepcopy(method, memo).train()


def simulated_or_real(count: Callable[[bool], T], small: bool) -> T:
    """Return ``count(False)``, computed on fake tensors; if the method does not run on them, ``count(True)``.

    count: calls one of the functions above, passing its argument as ``real``. small: see ``is_small()``; then
    ``count(True)``, which is the same.
    """
    if small:
        return count(True)
    try:
        return count(False)
    # A method may fail in any way on fake tensors; a mistake in the method itself is raised by the second call.
    except Exception:
        return count(True)


def is_small(method: Method, training: Training, device: torch.device) -> bool:
    """Return whether computing a method's steps takes less time than simulating them."""
    if device.type != "cpu" or training.micro_batch == "auto":
        return False
    return training.micro_batch_size * sum(each.numel() for each in method.parameters()) <= SMALL


def _emptied(tensor: Tensor, device: torch.device, number: float | None) -> Tensor:
    if number is not None:
        return torch.tensor(number, dtype=tensor.dtype)
    empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


class _NumbersKept(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and isinstance(args[0], int | float):
            kwargs = {"device": "cpu"} | dict(kwargs)
        return func(*args, **kwargs)


class _AssumedValues(FakeTensorMode):
    """Returns assumed values for operators whose result depends on the data of fake tensors."""

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        try:
            return super().__torch_dispatch__(func, types, args, kwargs)
        except DataDependentOutputException:
            if func is not torch.ops.aten._local_scalar_dense.default:
                raise
            return 1.0 if args[0].is_floating_point() else 1
        except DynamicOutputShapeException:
            if func is torch.ops.aten.nonzero.default:
                return args[0].new_empty((args[0].numel(), args[0].ndim), dtype=torch.long)
            if func is torch.ops.aten.masked_select.default:
                shape = torch.broadcast_shapes(args[0].shape, args[1].shape)  # type: ignore[no-untyped-call]
                return args[0].new_empty(shape.numel())
            if func is torch.ops.aten.index.Tensor:
                places = [place for index in args[1] for place in _places(index)]
                return super().__torch_dispatch__(func, types, (args[0], places), kwargs)
            raise


def _places(index: Tensor | None) -> list[Tensor | None]:
    """Return the indices that a mask of all True selects; any other index unchanged."""
    if index is None or index.dtype != torch.bool:
        return [index]
    return [index.new_empty(index.numel(), dtype=torch.long) for _ in range(index.ndim)]


def _warm_optimizer(method: Method, recipe: Recipe, peak: StoragePeak, real: bool) -> torch.optim.Optimizer:
    """Make an optimiser with its state allocated, as after the first step.

    real: the parameters have data. Each operator on a fake tensor takes 0.1 ms, so instead of fake parameters a
    stand-in without data takes the steps for all parameters of a group with the same shape: on the CPU, optimisers
    treat one parameter after the other. A fused one, which there is not for tensors without data, has the same state
    and allocates nothing in a step. peak: is told what such a step allocates.
    """
    optimizer = optimizer_of(method, recipe)
    if real:
        _step(optimizer)
        return optimizer
    groups = [[(_kind(parameter), parameter) for parameter in group["params"]] for group in optimizer.param_groups]
    with _disable_current_modes():
        stand_ins = [{kind: _on_meta(parameter) for kind, parameter in group} for group in groups]
        settings = zip(optimizer.param_groups, stand_ins)
        alike_optimizer: Any = type(optimizer)
        unfused = [group | {"params": [*alike.values()], "fused": None} for group, alike in settings]
        small = alike_optimizer(unfused)
        _step(small)
    for group, alike in zip(groups, stand_ins):
        # SGD without momentum has no state.
        optimizer.state |= {p: small.state[alike[kind]] for kind, p in group if alike[kind] in small.state}

    def step() -> None:
        if is_fused(optimizer):
            return
        trained = [{kind for kind, parameter in group if parameter.grad is not None} for group in groups]
        with _disable_current_modes():
            for alike, kinds in zip(stand_ins, trained):
                for kind, stand_in in alike.items():
                    stand_in.grad = torch.zeros_like(stand_in) if kind in kinds else None
            with StoragePeak(torch.device("meta")) as of_step:
                small.step()
        peak.add(of_step.bytes)

    optimizer.step = step  # type: ignore[assignment, method-assign]
    return optimizer


def _kind(parameter: Tensor) -> tuple[torch.Size, torch.dtype]:
    return parameter.shape, parameter.dtype


def _step(optimizer: torch.optim.Optimizer) -> None:
    """Take a step with gradients of 0."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _on_meta(parameter: Tensor) -> nn.Parameter:
    shape, stride = tuple(parameter.shape), parameter.stride()
    return nn.Parameter(torch.empty_strided(shape, stride, dtype=parameter.dtype, device="meta"))


def _has_keys(method: Method) -> bool:
    """Return whether the cost of a step can depend on the pairs trained on before."""
    return type(method).keys is not Method.keys


def _after_training_on(method: Method, sample: Batch, training: Training, samples: int, real: bool) -> None:
    """Put a method into its state after ``samples`` pairs: call after_step() once with as many keys."""
    if not _has_keys(method):
        return
    samples = min(samples, FULL) if real else samples
    keys = keys_of(method, [sample.rows([0, 0])], 0)
    method.after_step({name: key[:1].expand(samples, *key.shape[1:]) for name, key in keys.items()})


def _step_batches(shape: Shape, training: Training) -> list[Batch]:
    """Make the micro-batches of a step."""
    return micro_batches(lambda _, count: shape.batch(count), 0, training.batch_size, training.micro_batch_size)


class _AllCounted(Exception):
    """The rest of a step repeats what is counted."""


class _Passes:
    """Computes the first micro-batches of each pass of a step; returns zeros of their shapes for others.

    Of a pass with gradients the first two, as memory peaks in the second: the first allocates the gradients, later ones
    repeat the second. Of a pass without gradients, which takes less, the first.

    method: its forward() and keys() are replaced in the block. total: returns the operations counted so far.
    flops_only: leave the block at the second micro-batch of a pass with gradients.
    """

    def __init__(self, method: Method, total: Callable[[], int], flops_only: bool = False) -> None:
        self.method = method
        self.total = total
        self.flops_only = flops_only
        self.calls: Counter[str] = Counter()
        self.shapes: dict[str, dict[str, Tensor]] = {}
        self.begins: list[int] = []
        """Operations before each forward pass with gradients."""
        self.first: dict[str, int] = {}
        """Operations of the first micro-batch of each pass without gradients."""
        self.before = 0
        """Operations of all passes without gradients."""

    def __enter__(self) -> Self:
        self.method.forward = partial(self._call, "forward", self.method.forward)  # type: ignore[method-assign]
        self.method.keys = partial(self._call, "keys", self.method.keys)  # type: ignore[method-assign]
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: Any) -> bool:
        del self.method.forward, self.method.keys
        return kind is _AllCounted

    def _call(self, name: str, compute: Callable[..., Any], batch: Batch, **options: Any) -> Any:
        kind = f"{name} {torch.is_grad_enabled()}"
        self.calls[kind] += 1
        if self.calls[kind] > (2 if torch.is_grad_enabled() else 1):
            tensors = {n: like.new_zeros((len(batch), *like.shape[1:])) for n, like in self.shapes[kind].items()}
            return Output(tensors) if name == "forward" else tensors
        began = self.total()
        if torch.is_grad_enabled():
            self.begins.append(began)
            if self.flops_only and len(self.begins) == 2:
                raise _AllCounted
        result = compute(batch, **options)
        tensors = result.embeddings if isinstance(result, Output) else result
        self.shapes[kind] = {n: value.new_empty((0, *value.shape[1:])) for n, value in tensors.items()}
        if not torch.is_grad_enabled():
            self.first.setdefault(kind, self.total() - began)
            self.before += self.total() - began
        return result

    def flops_per_sample(self, total: int, training: Training) -> float:
        """Compute ``flops_per_sample`` from the step that was taken. total: all operations of the step."""
        if len(self.begins) == 1:
            return total / training.batch_size
        of_one = self.begins[1] - self.begins[0]
        # In the mode cached, contrast() over the whole batch runs between the passes without gradients and with them.
        once = self.begins[0] - self.before
        return once / training.batch_size + (of_one + sum(self.first.values())) / training.micro_batch_size


@contextmanager
def buffers_kept(method: Method) -> Iterator[None]:
    """Restore all buffers of a method on exit: running statistics, queues, counters."""
    saved = [buffer.clone() for buffer in method.buffers()]
    yield
    for buffer, old in zip(method.buffers(), saved):
        buffer.copy_(old)
