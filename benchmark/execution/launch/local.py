"""Launch worker processes on this machine, each on a device or with its share of the CPU's threads."""

import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO

from typing_extensions import override

from benchmark.common.errors import BenchError
from benchmark.common.interrupts import INTERRUPTED, STOPPED
from benchmark.execution.launch.launcher import Launcher, Report, Unit, register_launcher

THREADS = "OMP_NUM_THREADS"
DEVICES = "CUDA_VISIBLE_DEVICES"


@register_launcher("local")
class Local(Launcher):
    """Worker processes on this machine: each takes the next cell that nobody works on, until none is left."""

    is_here = True

    @dataclass
    class Config:
        """Which workers to start.

        workers: how many; 0: one for each device, or for as many as a cell needs. devices: cuda:0 and so on, which the
        workers take in turn; empty: every GPU, or the CPU.
        """

        workers: int = 0
        devices: list[str] = field(default_factory=list)

    _workers: dict[str, subprocess.Popen[bytes]]
    _last: dict[str, str]

    @override
    def check(self) -> None:
        self._workers, self._last = {}, {}
        self._devices()

    @override
    def submit(self, units: Sequence[Unit]) -> list[str]:
        groups = self._devices()
        count = min(self.options.workers or len(groups), sum(work.total for unit in units for work in unit.work))
        for number in range(1, count + 1):
            devices = groups[(number - 1) % len(groups)]
            command = [sys.executable, "-m", "benchmark.execution.launch.work"]
            worker = subprocess.Popen(
                [*command, str(self.job.launch_folder / "launch.json"), str(number), self.mode],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment(devices, count),
                start_new_session=True,
            )
            handle = f"worker {number} ({platform.node()}:{worker.pid})"
            self._workers[handle] = worker
            assert worker.stdout is not None
            threading.Thread(target=self._read, args=(handle, worker.stdout), daemon=True).start()
        return [*self._workers]

    @override
    def poll(self, handles: Sequence[str]) -> list[Report]:
        return [self._report(handle) for handle in handles]

    @override
    def cancel(self, handles: Sequence[str], at_once: bool = False) -> None:
        for handle in handles:
            worker = self._workers[handle]
            if worker.poll() is None:
                worker.send_signal(signal.SIGKILL if at_once else signal.SIGTERM)

    @override
    def close(self) -> None:
        for worker in self._workers.values():
            assert worker.stdin is not None
            worker.stdin.close()
            worker.wait()

    def _devices(self) -> list[list[str]]:
        """Return the devices that workers take in turn, as many at a time as a cell needs.

        Raises ``BenchError`` for one that is not here, and if there are not enough for one worker.
        """
        devices, each = self._single_devices(), self.job.gpus_per_cell
        if self.job.device != "cuda":
            return [[device] for device in devices]
        groups = [devices[first : first + each] for first in range(0, len(devices) - each + 1, each)]
        if not groups:
            raise BenchError(f"--gpus-per-cell {each}: a worker needs {each} GPUs, found {len(devices)}")
        return groups

    def _single_devices(self) -> list[str]:
        import torch

        kind, count = self.job.device, torch.cuda.device_count()
        if kind != "cuda":
            if others := [device for device in self.options.devices if device != kind]:
                raise BenchError(f"--devices {others[0]}: the run is on {kind}; expected {kind}")
            return self.options.devices or [kind]
        for device in self.options.devices:
            name, _, number = device.partition(":")
            if name != kind or not number.isdigit() or int(number) >= count:
                raise BenchError(f"--devices {device}: expected cuda:0 to cuda:{count - 1}, as {count} are here")
        return self.options.devices or [f"cuda:{number}" for number in range(count)]

    def _read(self, handle: str, output: IO[bytes]) -> None:
        for line in output:
            text = line.decode(errors="replace").rstrip()
            if text:
                self._last[handle] = text
                name = _name_of(handle)
                self.say(text if text.startswith(f"{name}: ") else f"{name}: {text}")

    def _report(self, handle: str) -> Report:
        status, host = self._workers[handle].poll(), platform.node()
        last = self._last.get(handle, "").removeprefix(f"{_name_of(handle)}: ")
        if status is None:
            return Report("running", host)
        if status == -signal.SIGTERM:
            return Report("stopped", host, "before it had begun")
        if status < 0:
            return Report("lost", host, f"killed by {signal.Signals(-status).name}")
        if status in (0, 1):
            return Report("failed" if status else "done", host)
        return Report("stopped" if status in (STOPPED, INTERRUPTED) else "failed", host, last)


def _name_of(handle: str) -> str:
    """Return the name of a worker, without where it runs."""
    return handle.partition(" (")[0]


def environment(devices: Sequence[str], workers: int) -> dict[str, str]:
    """Return the environment of a worker: the CPU's threads are shared out, and it sees its own GPUs alone."""
    environment = dict(os.environ)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment.setdefault(THREADS, str(max(1, cores // workers)))
    numbers = [device.partition(":")[2] for device in devices if device.startswith("cuda")]
    if numbers:
        visible = environment.get(DEVICES)
        environment[DEVICES] = ",".join(visible.split(",")[int(number)] if visible else number for number in numbers)
    return environment
