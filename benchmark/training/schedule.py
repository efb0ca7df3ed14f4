"""The number of steps of a training, its learning rate at each step, its precision and its optimiser."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from inspect import unwrap

import torch
from torch import nn

from benchmark.common.errors import BenchError, described
from benchmark.config.training import Recipe, Training
from benchmark.method import METHODS, Method


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


def stages_of(method: Method) -> dict[str, float]:
    """Return the stages of a method. Raises ``BenchError`` for what is not their shares by name, with a sum of 1."""
    stages: object = method.stages()
    numbers = [*stages.values()] if isinstance(stages, dict) else []
    shares = [share for share in numbers if isinstance(share, float | int) and share > 0]
    if not shares or len(shares) < len(numbers) or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        title = METHODS.title(type(method))
        raise BenchError(
            f"{title}: stages() must return shares of the budget, with a sum of 1, found {described(stages)}"
        )
    return dict(zip(stages, shares)) if isinstance(stages, dict) else {}


def stage_starts(method: Method, steps: int) -> dict[str, int]:
    """Return the step at which each stage of a training begins; every stage gets at least one step.

    Raises ``BenchError`` if there are fewer steps than stages, and for stages that do not share the training.
    """
    stages = stages_of(method)
    if steps < len(stages):
        raise BenchError(f"method '{method.name}' has {len(stages)} stages, but the budget is {steps} steps")
    starts, share = {}, 0.0
    for number, (stage, part) in enumerate(stages.items()):
        starts[stage] = min(max(round(share * steps), number), steps - len(stages) + number)
        share += part
    return starts


def warmup_steps(recipe: Recipe, steps: int) -> int:
    """Return the number of warm-up steps of a stage of ``steps`` steps. Raises ``BenchError`` if it is shorter."""
    if isinstance(recipe.warmup, float):
        return round(recipe.warmup * steps)
    if recipe.warmup.steps > steps:
        raise BenchError(f"training.warmup is {recipe.warmup.steps} steps, but the training or its stage has {steps}")
    return recipe.warmup.steps


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the learning rate at step 0..steps-1: linear warm-up, then cosine decay to ``minimum_rate``."""
    warmup, lowest = warmup_steps(recipe, steps), recipe.minimum_rate
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    fall = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
    return lowest + (recipe.learning_rate - lowest) * fall


def precision_of(training: Training, device: torch.device) -> str:
    """Return the precision, ``bf16`` or ``fp32``; ``auto`` means bf16 on a GPU that supports it.

    A GPU that is planned for and not on this machine supports it.
    """
    if training.precision != "auto":
        return training.precision
    supported = not torch.cuda.is_available() or torch.cuda.is_bf16_supported()
    return "bf16" if device.type == "cuda" and supported else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Make the context for forward passes: autocast for ``bf16``, none for ``fp32``."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def optimizer_of(method: Method, recipe: Recipe) -> torch.optim.Optimizer:
    """Make the optimiser of the parameters that are trained now.

    Each of its groups has a ``factor`` of the learning rate. There is no weight decay below two dimensions (biases,
    norms, scales).
    """
    factors = rate_factors(method, recipe)
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for decays in (True, False):
        for name, parameter in trained.items():
            if (parameter.ndim >= 2) == decays:
                groups.setdefault((decays, factors[name]), []).append(parameter)
    settings = [
        {"params": params, "weight_decay": recipe.weight_decay if decays else 0.0, "factor": factor}
        for (decays, factor), params in groups.items()
    ]
    rate = recipe.learning_rate
    if recipe.optimizer == "lion":
        from timm.optim import Lion

        lion: torch.optim.Optimizer = Lion(settings, lr=rate, betas=recipe.betas)
        return lion

    def optimizer(fused: bool | None) -> torch.optim.Optimizer:
        if recipe.optimizer == "sgd":
            return _SGD(settings, lr=rate, momentum=recipe.momentum, fused=fused)
        return _AdamW(settings, lr=rate, betas=recipe.betas, eps=recipe.epsilon, fused=fused)

    try:
        return optimizer(fused=True)
    except RuntimeError:
        # No such kernel for the device: torch chooses among its other implementations.
        return optimizer(fused=None)


class _Eager(torch.optim.Optimizer):
    """An optimiser that is part of no compiled graph, and does not import torch's compiler.

    Torch's own do, to keep it away from these methods; that takes as long as importing torch itself.
    """

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)


class _AdamW(_Eager, torch.optim.AdamW):
    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))


class _SGD(_Eager, torch.optim.SGD):
    step = torch.no_grad()(unwrap(torch.optim.SGD.step))


def is_fused(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether a step of an optimiser is one kernel for all parameters, which can leave all of them alone."""
    return bool(optimizer.defaults.get("fused"))


def rate_factors(method: Method, recipe: Recipe) -> dict[str, float]:
    """Return the factor of the learning rate of each parameter of a method, by its name.

    A tower's layer at depth d below its projection has the factor rates.TOWER x layer_decay^d; everything that is in
    neither tower has rates.heads.
    """
    factors: dict[int, float] = {}
    for tower, rate in ((method.model.image, recipe.rates.image), (method.model.text, recipe.rates.text)):
        for depth, group in enumerate(reversed(tower.layer_groups()), 1):
            parameters = (
                p for part in group for p in ([part] if isinstance(part, nn.Parameter) else part.parameters())
            )
            factors |= {id(parameter): rate * recipe.layer_decay**depth for parameter in parameters}
    return {name: factors.get(id(parameter), recipe.rates.heads) for name, parameter in method.named_parameters()}


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups of an optimiser, each multiplied by its ``factor``."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
