"""How an effective batch is divided into micro-batches where ``training.micro_batch`` is ``auto``."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._ops import OpOverload

from benchmark.config.training import DEFAULT_MICRO_BATCH
from benchmark.method import Accumulation
from benchmark.training.watching import Watching

PARTS = 8
"""Micro-batches that the pairs which fit are divided into, where a batch is too large for one graph: all but one keep
their graph, so that an eighth of what fits is not used for it."""
SMALLEST = 32
"""Pairs below which a micro-batch is not divided for that: its kernels would be too small to fill a device."""


class Passes(NamedTuple):
    """How the micro-batches of a batch pass the towers.

    graphs: the first micro-batches of ``cached`` whose graph is kept, so that they pass once. together: micro-batches
    that pass at once where no graph is kept.
    """

    graphs: int = 0
    together: int = 1


ONE_BY_ONE = Passes()
"""No graph is kept, and one micro-batch passes at a time."""


@dataclass(frozen=True)
class Division:
    """How a batch is divided, such that what is in memory at once fits.

    capacity: pairs whose graphs fit at once. ratio: how many times as many fit in a pass that keeps no graph. ranks:
    processes that train together. fixed: why the division is the default and does not follow the memory; "" if it does.
    """

    batch_size: int
    mode: Accumulation
    capacity: int
    ratio: float = 1.0
    ranks: int = 1
    fixed: str = ""

    @classmethod
    def fixed_for(cls, batch_size: int, mode: Accumulation, reason: str, ranks: int = 1) -> "Division":
        """Return the default division, with the reason why it does not follow the memory."""
        return cls(batch_size, mode, min(DEFAULT_MICRO_BATCH, batch_size), ranks=ranks, fixed=reason)

    @property
    def passes(self) -> Passes:
        """How the micro-batches pass the towers."""
        return Passes(self.graphs, self.together)

    @property
    def micro_batch(self) -> int:
        """Pairs of a micro-batch. All have about as many."""
        most = min(self.capacity, self.batch_size if self.fixed else math.ceil(self.batch_size / self.ranks))
        if self._keeps:
            most = max(self.capacity // PARTS, min(self.capacity, SMALLEST))
        if self.fixed:
            return most
        return math.ceil(self.batch_size / math.ceil(self.batch_size / most))

    @property
    def graphs(self) -> int:
        """The first micro-batches whose graph is kept, and which are passed once; one more fits beside them."""
        return self.capacity // self.micro_batch - 1 if self._keeps else 0

    @property
    def together(self) -> int:
        """Micro-batches that pass at once where no graph is kept."""
        if self.fixed or self.ranks > 1 or self.micro_batch >= self.batch_size:
            return 1
        room = self.capacity - self.graphs * self.micro_batch
        return max(1, int(room * self.ratio) // self.micro_batch)

    @property
    def kept(self) -> float:
        """The share of the pairs that are passed once, 0..1."""
        return min(1.0, self.graphs * self.micro_batch / self.batch_size)

    @property
    def _keeps(self) -> bool:
        return self.mode == "cached" and self.ranks == 1 and not self.fixed and self.capacity < self.batch_size

    def halved(self) -> "Division | None":
        """Return the division for half as many pairs at once; None if there is none."""
        if self.fixed or self.capacity == 1:
            return None
        return replace(self, capacity=max(1, min(self.capacity, self.batch_size) // 2))

    def __str__(self) -> str:
        """Say it in words."""
        if self.fixed:
            return f"{self.micro_batch}, as {self.fixed}"
        if self.micro_batch == self.batch_size:
            return f"{self.micro_batch}, the whole batch in one graph"
        kept = f"; the first {self.graphs} keep their graph" if self.graphs else ""
        return f"{self.micro_batch} of {self.batch_size}{kept}"


def normalises_by_batch(method: nn.Module) -> bool:
    """Return whether a layer normalises by the statistics of the micro-batch, so that the division changes the loss."""
    layers = [module for module in method.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return any(layer.training or layer.running_mean is None for layer in layers)


class Draws(Watching):
    """Notices whether the block draws random numbers. drawn: the operator that does; "" if none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.drawn = ""

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags:
            rates = [
                kwargs.get(argument.name, args[i] if i < len(args) else argument.default_value)
                for i, argument in enumerate(func._schema.arguments)
                if argument.name in ("p", "dropout_p", "dropout")
            ]
            # Attention has a rate of dropout, which may be 0.
            if not rates or any(rates):
                self.drawn = func._schema.name.removeprefix("aten::")
        return func(*args, **kwargs)
