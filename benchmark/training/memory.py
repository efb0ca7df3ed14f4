"""Peak memory of a block of work."""

import ctypes
import gc
import itertools
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

# Its profiler would tell of each start and stop.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import torch
from torch.profiler import ProfilerActivity, profile

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """Bytes by which the work since start() grew the memory in use, at its peak.

    On CUDA the allocator's peak; elsewhere the resident set of the process (on systems without /proc its highest since
    the process began, so that a smaller second block shows as 0).
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.before = 0

    def start(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before = torch.cuda.memory_allocated(self.device)
            return
        with suppress(OSError, AttributeError):
            # Memory freed by an earlier cell but kept by the C library would hide this one's growth.
            ctypes.CDLL(None).malloc_trim(0)
        with suppress(OSError):
            _CLEAR.write_text("5")
        self.before = _resident("VmRSS")

    def peak(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self.before
        return max(0, _resident("VmHWM") - self.before)


class TensorPeak:
    """Bytes of the tensors that the work inside makes, at their peak, on the CPU: as its allocator tells torch's
    profiler, which is slow, but unlike the resident set does not depend on what the process did before.
    """

    def __enter__(self) -> Self:
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._profile.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._profile.__exit__(*raised)
        profiler: Any = self._profile.profiler
        events = profiler.kineto_results.events()
        changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
        self.bytes = max(itertools.accumulate((change for _, change in changes), initial=0))


def _resident(field: str) -> int:
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
