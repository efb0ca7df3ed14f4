"""Ranks: the processes that train one cell together, each on micro-batches of its own.

Micro-batch i of an effective batch is that of rank i modulo the number of ranks. What happens to a micro-batch (its
random state, its place among the samples) goes by its number, so that the result does not depend on the ranks.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import ceil
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from benchmark.common.errors import BenchError

if TYPE_CHECKING:
    from benchmark.config.training import Training

T = TypeVar("T")
Part = dict[str, Tensor]
"""Tensors of a micro-batch by name."""
Form = dict[str, tuple[torch.Size, torch.dtype]]


class RankLostError(BenchError):
    """Another rank ended in the middle of a training."""


class SharedError(BenchError):
    """What all ranks of a training find wrong at the same point: they can train another cell."""


class Ranks:
    """The ranks of a training, seen from one of them; a single process by default, which communicates with nobody.

    rank: the number of this process, from 0; rank 0 alone writes. count: of all. device: where tensors are exchanged.
    With several, torch's default process group must be initialised, and all must call the same functions in turn.
    """

    def __init__(self, rank: int = 0, count: int = 1, device: torch.device | None = None) -> None:
        self.rank, self.count = rank, count
        self.device = device or torch.device("cpu")

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def own(self, items: Sequence[T]) -> Sequence[T]:
        """Return those of an effective batch's micro-batches, or of their positions, that are this rank's."""
        return items[self.rank :: self.count]

    def interleaved(self, of_ranks: Sequence[Sequence[T]]) -> list[T]:
        """Undo own(): return the items of all ranks in the order of the micro-batches."""
        total = sum(map(len, of_ranks))
        return [of_ranks[i % self.count][i // self.count] for i in range(total)]

    def all(self, value: T) -> list[T]:
        """Return the value of each rank, in their order. It must be possible to pickle them."""
        if self.count == 1:
            return [value]
        values: list[T | None] = [None] * self.count
        with _communicating():
            torch.distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def from_first(self, compute: Callable[[], T]) -> T:
        """Return what ``compute`` returns on rank 0, which alone calls it. It must be possible to pickle that."""
        if self.count == 1:
            return compute()
        value = [compute() if self.is_first else None]
        with _communicating():
            torch.distributed.broadcast_object_list(value, src=0)
        return value[0]  # type: ignore[return-value]

    def gather(self, parts: Sequence[Part]) -> list[Part]:
        """Return the tensors of all micro-batches in their order. parts: those of this rank's; no graph is kept."""
        if self.count == 1:
            return [*parts]
        # Whatever their shapes and types, as bytes they are one exchange.
        forms = self.all([{name: (value.shape, value.dtype) for name, value in part.items()} for part in parts])
        own = [_bytes(value).to(self.device) for part in parts for value in part.values()]
        packed = torch.cat([torch.empty(0, dtype=torch.uint8, device=self.device), *own])
        longest = max(map(_length, forms))
        buffers = [packed.new_empty(longest) for _ in forms]
        with _communicating():
            torch.distributed.all_gather(buffers, nn.functional.pad(packed, (0, longest - len(packed))))
        return self.interleaved([_unpacked(buffer, of_rank) for buffer, of_rank in zip(buffers, forms)])

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over the ranks, without waiting for the device."""
        if self.count == 1:
            return value
        total = value.clone()
        with _communicating():
            torch.distributed.all_reduce(total)
        return total

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the ranks; a parameter without one on any rank stays without."""
        if self.count == 1:
            return
        by_type: dict[torch.dtype, list[nn.Parameter]] = defaultdict(list)
        for parameter in parameters:
            by_type[parameter.dtype].append(parameter)
        for same in by_type.values():
            has = torch.tensor([float(p.grad is not None) for p in same], dtype=same[0].dtype, device=same[0].device)
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in same]
            flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), has])
            with _communicating():
                torch.distributed.all_reduce(flat)
            *sums, counts = torch.split(flat, [*(p.numel() for p in same), len(same)])
            for parameter, total, count in zip(same, sums, counts.tolist()):
                parameter.grad = total.view_as(parameter) if count else None

    def check_equal(self, module: nn.Module, step: int) -> None:
        """Raise ``SharedError`` if a weight or a buffer differs between the ranks. step: after which this is."""
        if self.count == 1:
            return
        digests = {name: _digest(tensor) for name, tensor in module.state_dict().items()}
        first, *others = self.all(digests)
        if differing := [name for name in first if any(other[name] != first[name] for other in others)]:
            raise SharedError(
                f"after step {step} '{differing[0]}' is not the same on all ranks (of {len(differing)} tensors): "
                "forward(), keys() or contrast() changes it; train this without --gpus-per-cell"
            )

    @contextmanager
    def joint_statistics(self, method: nn.Module) -> Iterator[Callable[[], AbstractContextManager[object]]]:
        """Update the statistics of batch normalisation as one process would that sees all micro-batches in turn.

        Yields what to open around each of this rank's micro-batches.
        """
        layers = [m for m in method.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and _tracks(m)]
        if self.count == 1 or not layers:
            yield nullcontext
            return
        before = [[buffer.clone() for buffer in layer.buffers(recurse=False)] for layer in layers]
        updates: list[Part] = []

        @contextmanager
        def apart() -> Iterator[None]:
            # From zero, as an update is linear in what was there: old * (1 - momentum) + update.
            for layer in layers:
                for buffer in layer.buffers(recurse=False):
                    buffer.zero_()
            yield
            updates.append({f"{i} {n}": b.clone() for i, layer in enumerate(layers) for n, b in _named(layer)})

        yield apart
        gathered = self.gather(updates)
        for i, (layer, old) in enumerate(zip(layers, before)):
            for buffer, value in zip(layer.buffers(recurse=False), old):
                buffer.copy_(value)
            for update in gathered:
                _apply(layer, {name: update[f"{i} {name}"] for name, _ in _named(layer)})


ALONE = Ranks()
"""One process that trains by itself."""


def micro_batch_count(training: "Training") -> int:
    """Return the number of micro-batches in an effective batch: the most ranks that a training can have."""
    return training.batch_size if training.micro_batch == "auto" else ceil(training.batch_size / training.micro_batch)


def speedup(training: "Training", count: int) -> float:
    """Return by what a training is faster on ``count`` ranks, from how its micro-batches divide among them."""
    number = micro_batch_count(training)
    return number / ceil(number / count) if number >= count else 1.0


def _bytes(value: Tensor) -> Tensor:
    return value.detach().contiguous().reshape(-1).view(torch.uint8)


def _length(forms: Sequence[Form]) -> int:
    """Return the bytes that the tensors of some micro-batches take."""
    return sum(shape.numel() * dtype.itemsize for form in forms for shape, dtype in form.values())


def _unpacked(buffer: Tensor, forms: Sequence[Form]) -> list[Part]:
    parts: list[Part] = []
    start = 0
    for form in forms:
        parts.append({})
        for name, (shape, dtype) in form.items():
            end = start + shape.numel() * dtype.itemsize
            # A copy, as the bytes of a type must begin at a multiple of its size.
            parts[-1][name] = buffer[start:end].clone().view(dtype).view(shape)
            start = end
    return parts


@contextmanager
def _communicating() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise RankLostError("another rank of the training ended") from error


def _digest(tensor: Tensor) -> str:
    return hashlib.blake2b(_bytes(tensor.cpu()).numpy().data).hexdigest()


def _named(layer: nn.Module) -> list[tuple[str, Tensor]]:
    return [*layer.named_buffers(recurse=False)]


def _tracks(layer: nn.modules.batchnorm._BatchNorm) -> bool:
    """Return whether a forward pass updates the layer's running statistics."""
    return layer.training and layer.track_running_stats and layer.running_mean is not None


def _apply(layer: nn.modules.batchnorm._BatchNorm, update: Part) -> None:
    """Add to a layer's running statistics what a micro-batch updated them by, from zero."""
    number, mean, var = layer.num_batches_tracked, layer.running_mean, layer.running_var
    assert number is not None
    assert mean is not None
    assert var is not None
    count, before = update["num_batches_tracked"].to(mean.dtype), number.to(mean.dtype)
    # Without a momentum, a layer keeps the mean of all that it has seen.
    total = (before + count).clamp(min=1)
    keep = before / total if layer.momentum is None else (1 - layer.momentum) ** count
    add = count / total if layer.momentum is None else 1.0
    for statistic, change in ((mean, update["running_mean"]), (var, update["running_var"])):
        statistic.mul_(keep).add_(change * add)
    number += update["num_batches_tracked"]
