"""Measure the peak memory of a block of work, and of a training's steps."""

import ctypes
import gc
import itertools
import os
import resource
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

# Otherwise the profiler logs every start and stop.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import torch
from torch import Tensor
from torch._C._profiler import RecordScope
from torch._ops import OpOverload
from torch.autograd.profiler import profile
from torch.profiler import ProfilerActivity

from benchmark.common.collection import no_collection
from benchmark.method import Method
from benchmark.training.average import WeightAverage
from benchmark.training.watching import Watching

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


SHARES = {"cuda": 0.9, "cpu": 0.5}
"""The share of the free memory that a training takes by itself (``training.micro_batch`` ``auto``), by kind of device.

On a GPU the rest is for what is not counted: workspaces of libraries, and gaps between the blocks of the allocator.
Elsewhere other processes grow too, pages of the data are kept, and the system ends a process without an error.
"""


def available_memory(device: torch.device) -> int | None:
    """Return the bytes that a training may take on a device; None if that is not known.

    What this process holds on a GPU counts as available: its weights are part of what a training takes.
    """
    if device.type == "cuda":
        if not torch.cuda.is_available():
            return None
        return int(SHARES["cuda"] * (torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)))
    free = _free_memory()
    return None if free is None else int(SHARES["cpu"] * free)


def _free_memory() -> int | None:
    """Return the bytes of memory that processes can still get; within a container, of its share."""
    free = []
    with suppress(OSError, StopIteration, ValueError):
        lines = _MEMINFO.read_text().splitlines()
        free.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    with suppress(OSError, ValueError):
        free.append(int((_GROUP / "memory.max").read_text()) - int((_GROUP / "memory.current").read_text()))
    return max(0, min(free)) if free else None


class PeakMemory:
    """Measures by how many bytes the peak memory exceeds that in use at start().

    On CUDA: memory of the allocator; elsewhere the process's resident set. Without /proc only its peak since the
    process began is known, so a second, smaller block measures 0.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.before = 0

    def start(self) -> None:
        """Begin a new measurement."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before = torch.cuda.memory_allocated(self.device)
            return
        with suppress(OSError, AttributeError):
            # The C library retains freed memory, which would hide later growth.
            ctypes.CDLL(None).malloc_trim(0)
        with suppress(OSError):
            _CLEAR.write_text("5")
        self.before = _resident("VmRSS")

    def peak(self) -> int:
        """Return the growth since start(), in bytes."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self.before
        return max(0, _resident("VmHWM") - self.before)


class TensorPeak:
    """Measures ``bytes``, the peak size of the tensors that the block allocates on the CPU.

    Based on the allocator's events in torch's profiler: slow, but unlike the resident set independent of what the
    process did before.
    """

    bytes: int

    def __enter__(self) -> Self:
        config = profile(use_kineto=True, profile_memory=True).config()  # type: ignore[no-untyped-call]
        # torch.profiler records all operators too, which takes most of its time: none of them is a scope of the user.
        activities, scopes = {ProfilerActivity.CPU}, {RecordScope.USER_SCOPE}
        torch._C._autograd._prepare_profiler(config, activities)
        torch._C._autograd._enable_profiler(config, activities, scopes)  # type: ignore[call-arg]
        return self

    def __exit__(self, *raised: Any) -> None:
        events: Any = torch._C._autograd._disable_profiler().events()
        changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
        self.bytes = max(itertools.accumulate((change for _, change in changes), initial=0))


class StoragePeak(Watching):
    """Measures ``bytes``, the peak size of the tensors that the block allocates on a device, by storage lifetime.

    Works on fake tensors. Misses memory that an operator allocates and frees internally.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device.type
        self.bytes = 0
        self._alive: dict[int, int] = {}
        self._total = 0

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        taken = {each.untyped_storage()._cdata for each in _tensors((args, kwargs))}
        for each in _tensors(result):
            if each.device.type == self.device:
                self._add(each.untyped_storage(), taken)
        return result

    def add(self, size: int) -> None:
        """Count ``size`` bytes that are allocated and freed again now."""
        self.bytes = max(self.bytes, self._total + size)

    def _add(self, storage: torch.UntypedStorage, taken: set[int]) -> None:
        key = storage._cdata
        # A view, or the result of an in-place operator.
        if key in taken or key in self._alive:
            return
        self._alive[key] = storage.nbytes()
        self._total += storage.nbytes()
        self.bytes = max(self.bytes, self._total)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self._total -= self._alive.pop(key)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors among the arguments or results of an operator: tree_leaves() takes ten times as long."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        yield from _tensors([*value.values()])


class StepMemory:
    """Measures the peak memory of a training's steps.

    highest: in bytes, the weights, teachers, queues and optimiser state before a step plus what the step adds. On the
    CPU of the training's second step (measuring is slow, and a resumed training must give the same), elsewhere of all
    steps but the first of this process, in which libraries initialise. The first counts only if it is the only one.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.highest = 0
        self._growth = PeakMemory(device)
        self._held = 0
        self._steps = 0

    @contextmanager
    def watch(self, held: Callable[[], int], step: int, steps: int) -> Iterator[None]:
        """Measure one step. held: returns the bytes in use before it. step: its number, from 0. steps: of all."""
        if self.device.type == "cpu":
            if step == min(1, steps - 1):
                before = held()
                # Garbage of earlier work that is freed in this step would hide what the step adds; collecting it before
                # takes 0.1 s.
                with no_collection(), TensorPeak() as tensors:
                    yield
                self.highest = before + tensors.bytes
            else:
                yield
            return
        if self._steps == 1 or (self._steps == 0 and step == steps - 1):
            self._held = held()
            self._growth.start()
        yield
        if self._held:
            self.highest = max(self.highest, self._held + self._growth.peak())
        self._steps += 1


def held_bytes(method: Method, optimizer: torch.optim.Optimizer, average: WeightAverage | None = None) -> int:
    """Return the bytes of a method's weights and buffers, of their average and of the optimiser's state."""
    state = [value for values in optimizer.state.values() for value in values.values()]
    averages = average.tensors.values() if average is not None else ()
    tensors = (*method.state_dict().values(), *averages, *state)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _resident(field: str) -> int:
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
