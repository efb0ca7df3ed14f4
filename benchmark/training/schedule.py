"""The number of steps of a training, its learning rate at each step, its precision and its optimiser."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from benchmark.common.errors import BenchError
from benchmark.config.schema import Training
from benchmark.method import Method


def check_batch(training: Training, pairs: int) -> int:
    """Return the steps of an epoch over ``pairs`` pairs. Raises ``BenchError`` if there are fewer than one batch.

    The incomplete last batch of an epoch is dropped: filled up from the next epoch, it could hold a pair twice, as its
    own negative.
    """
    if pairs < training.batch_size:
        raise BenchError(
            f"training.batch_size is {training.batch_size}, but there are only {pairs} training pairs: "
            f"set training.batch_size={pairs} or less"
        )
    return pairs // training.batch_size


def training_steps(training: Training, pairs: int, per_step: Callable[[], float]) -> int:
    """Return the number of steps that a budget allows, at least one.

    per_step: returns the seconds or floating-point operations of a step; called only for a budget in these.
    """
    kind, amount = training.budget
    if kind == "samples":
        amount /= training.batch_size
    elif kind == "epochs":
        amount *= check_batch(training, pairs)
    elif kind in ("time", "flops"):
        amount /= per_step()
    return max(1, round(amount))


def stage_starts(method: Method, steps: int) -> dict[str, int]:
    """Return the step at which each stage of a training begins; every stage gets at least one step.

    Raises ``BenchError`` if there are fewer steps than stages.
    """
    stages = method.stages()
    if steps < len(stages):
        raise BenchError(f"method '{method.name}' has {len(stages)} stages, but the budget is {steps} steps")
    starts, share = {}, 0.0
    for number, (stage, part) in enumerate(stages.items()):
        starts[stage] = min(max(round(share * steps), number), steps - len(stages) + number)
        share += part
    return starts


def learning_rate(training: Training, step: int, steps: int) -> float:
    """Return the learning rate at step 0..steps-1: linear warm-up, then cosine decay to 0."""
    warmup = round(training.warmup * steps)
    if step < warmup:
        return training.learning_rate * (step + 1) / warmup
    return training.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def precision_of(training: Training, device: torch.device) -> str:
    """Return the precision, ``bf16`` or ``fp32``; ``auto`` means bf16 on a GPU that supports it."""
    if training.precision != "auto":
        return training.precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Make the context for forward passes: autocast for ``bf16``, none for ``fp32``."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def optimizer_of(method: Method, training: Training) -> torch.optim.AdamW:
    """Make AdamW for the trained parameters; no weight decay below two dimensions (biases, norms, scales)."""
    trained = [p for p in method.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": training.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=training.learning_rate,
        betas=training.betas,
        eps=training.epsilon,
    )
