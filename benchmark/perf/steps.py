"""`bench perf --methods`: measure a training step of each method relative to a reference method."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypedDict

import torch
from rich.console import Console

from benchmark.common.errors import unknown
from benchmark.config.augmentation import Augmentation
from benchmark.data.batch import Batch
from benchmark.method import Accumulation, Method
from benchmark.models import DualEncoder, build_model
from benchmark.plan.plan import Cell, Plan
from benchmark.plan.resolve import build_method
from benchmark.training.accumulation import accumulation_mode, training_step
from benchmark.training.cost import Shape
from benchmark.training.frozen import FrozenFeatures
from benchmark.training.memory import PeakMemory, held_bytes
from benchmark.training.schedule import autocast, optimizer_of, precision_of

RUNS = 3


class Step(TypedDict):
    """The cost of a training step of one cell.

    seconds: the median of a few steps, including the optimiser. memory: peak bytes, including weights, optimiser state
    and teachers. time_ratio (per pair) and memory_ratio: relative to the reference method; above 1, the method takes
    more.
    """

    arm: str
    method: str
    variant: str
    seconds: float
    accumulation: Accumulation
    precision: str
    batch_size: int
    micro_batch: int
    pairs_per_second: float
    memory: int
    parameters_trainable: int
    time_ratio: float
    memory_ratio: float


def method_steps(plan: Plan, reference: str, console: Console) -> list[Step]:
    """Measure a training step of each cell of a plan on this machine, on noise, with random weights.

    With ``training.cache_frozen``, outputs of frozen layers were kept before.

    Raises ``BenchError`` if ``reference`` is not among the plan's arms.
    """
    arms = {cell.arm for cell in plan.cells}
    if reference not in arms:
        raise unknown("method of --reference among those that can be measured", reference, arms)
    model = build_model(plan.model, 0, weights=False)
    steps = []
    for cell in plan.cells:
        with console.status(f"{cell.arm} {cell.label['variant']}"):
            steps.append(_measured(plan, cell, model))
    against = next(step for step in steps if step["arm"] == reference)
    for step in steps:
        step["time_ratio"] = against["pairs_per_second"] / step["pairs_per_second"]
        step["memory_ratio"] = step["memory"] / against["memory"]
    return steps


def _measured(plan: Plan, cell: Cell, model: DualEncoder) -> Step:
    training, device = cell.training, plan.device
    memory = PeakMemory(device)
    method = build_method(cell.method, deepcopy(model), cell.options)
    method.to(device).train()
    first = next(iter(method.stages()))
    method.enter(first)
    limit = method.model.text.context_length
    length = min(limit, plan.model.tokenizer.context_length or limit)
    batches = random_batches(method, training.batch_size, training.micro_batch_size, length, device)
    mode, precision = accumulation_mode(method, training), precision_of(training, device)
    recipe = training.at_stage(first)
    optimizer = optimizer_of(method, recipe)

    def in_precision() -> AbstractContextManager[object]:
        return autocast(precision, device)

    kept = None
    if training.cache_frozen:
        with TemporaryDirectory() as folder:
            kept = FrozenFeatures(method, _Noise(batches), training.micro_batch_size, in_precision, Path(folder))

    def step() -> float:
        began = time.perf_counter()
        with kept.used() if kept else nullcontext():
            training_step(method, optimizer, batches, mode, 0, in_precision, recipe.gradient_clip)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    # One-off initialisation of libraries must not count for the first method.
    step()
    held = held_bytes(method, optimizer)
    memory.start()
    seconds = sorted(step() for _ in range(RUNS))[RUNS // 2]
    return {
        "arm": cell.arm,
        "method": cell.method,
        "variant": cell.label["variant"],
        "seconds": seconds,
        "accumulation": mode,
        "precision": precision,
        "batch_size": training.batch_size,
        "micro_batch": training.micro_batch_size,
        "pairs_per_second": training.batch_size / seconds,
        "memory": held + memory.peak(),
        "parameters_trainable": sum(p.numel() for p in method.parameters() if p.requires_grad),
        "time_ratio": 1.0,
        "memory_ratio": 1.0,
    }


class _Noise:
    """Batches as a loader of pairs, in order."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches
        self.longest = batches[0].tokens.shape[1]

    def __len__(self) -> int:
        return sum(map(len, self.batches))

    def sequential(self, start: int, _: int) -> Batch:
        return next(batch for batch in self.batches if batch.row[0] == start)


def random_batches(method: Method, count: int, micro_batch: int, length: int, device: torch.device) -> list[Batch]:
    """Make ``count`` pairs of noise at the model's image size, texts of ``length`` tokens, in micro-batches."""
    rng = torch.Generator().manual_seed(0)
    size = method.model.image_size
    shape = Shape(size, size, length, Augmentation.none())
    batches = []
    for start in range(0, count, micro_batch):
        batch = shape.batch(min(micro_batch, count - start))
        batch.image = torch.randint(0, 256, batch.image.shape, dtype=torch.uint8, generator=rng)
        batch.tokens = torch.randint(3, min(1000, method.model.text.vocab_size), batch.tokens.shape, generator=rng)
        batch.row = batch.seed = torch.arange(start, start + len(batch))
        batch.label = None
        batches.append(batch.pinned() if device.type == "cuda" else batch)
    return batches
