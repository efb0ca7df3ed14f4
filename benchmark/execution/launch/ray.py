"""Launch cells as Ray tasks, one each, on a cluster (RAY_ADDRESS) or on a local one that is started for them."""

import os
import platform
import shutil
import signal
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

from typing_extensions import override

from benchmark.common.errors import BenchError
from benchmark.execution.launch.launcher import Ended, Job, Launcher, Report, Unit, register_launcher
from benchmark.execution.launch.resources import memory_of
from benchmark.store.files import commit

ADDRESS = "RAY_ADDRESS"
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_COLOR_PREFIX": "0",
}
"""Nothing is reported to anyone, tasks without a GPU see none, and each worker's lines are shown."""
OBJECTS = 100 * 2**20
"""Bytes for the objects of a local cluster: calls and how they ended."""
PACKED = ("cells", "errors", "launches")
"""What a worker puts into a storage, of the results folder that it has for a cell."""


@register_launcher("ray")
class Ray(Launcher):
    """Tasks, one for each cell. One whose worker or node dies is carried out again by another.

    That goes on from the last checkpoint if the results lie on a folder that the nodes share. Otherwise they pass
    through a storage, in which a cell is put when its task ends: one that died begins again.
    """

    needs_memory = True

    @dataclass
    class Config:
        """gpus: of a task, may be a fraction; -1: those of a cell if the run is on GPUs. cpus: of a task.

        memory: of a task, in GB; 0: as estimated on the CPU, not asked for with GPUs. retries: how often a task that
        died is started again. storage: a URL of fsspec, such as s3://bucket/results, for nodes without a shared folder;
        empty: they share the results folder.
        """

        gpus: float = -1.0
        cpus: float = 1.0
        memory: float = 0.0
        retries: int = 10
        storage: str = ""

    _tasks: dict[str, Any]
    _cells: dict[str, str]
    _started = False

    @override
    def check(self) -> None:
        if find_spec("ray") is None:
            raise BenchError("--launch ray needs Ray: pip install 'contrastive-benchmark[ray]'")
        if self.options.storage:
            _file_system(self.options.storage)

    @override
    def submit(self, units: Sequence[Unit]) -> list[str]:
        self._tasks, self._cells = {}, {}
        ray = self._connected()
        for unit in units:
            if self.options.storage:
                self._put(unit)
            task = ray.remote(**self.resources(unit))(_carry_out).remote(
                self.job, unit, self.options.storage, self.mode
            )
            handle = f"ray {task.task_id().hex()}"
            self._tasks[handle], self._cells[handle] = task, unit.cell
        return [*self._tasks]

    @override
    def poll(self, handles: Sequence[str]) -> list[Report]:
        import ray

        tasks = [self._tasks[handle] for handle in handles]
        ready, _ = ray.wait(tasks, num_returns=len(tasks), timeout=0, fetch_local=False) if tasks else ([], [])
        ended = set(ready)
        return [self._report(handle) if self._tasks[handle] in ended else Report("running") for handle in handles]

    @override
    def cancel(self, handles: Sequence[str], at_once: bool = False) -> None:
        import ray

        for handle in handles:
            ray.cancel(self._tasks[handle], force=at_once)

    @override
    def close(self) -> None:
        if self._started:
            import ray

            ray.shutdown()

    def resources(self, unit: Unit) -> dict[str, Any]:
        """Return what the task of a cell asks for, as options of ``ray.remote``."""
        options = self.options
        gpus = options.gpus if options.gpus >= 0 else self.job.gpus_per_cell * (unit.device == "cuda")
        memory = options.memory * 1e9 or (0 if gpus else memory_of([unit]))
        # A process of its own for each cell leaves no memory of the GPU to the next.
        return {
            "num_cpus": options.cpus,
            "num_gpus": gpus,
            "memory": int(memory) or None,
            "max_retries": options.retries,
            "max_calls": 1,
        }

    def _connected(self) -> Any:
        """Connect to the cluster that RAY_ADDRESS names, or start one on this machine."""
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        import ray

        if ray.is_initialized():
            return ray
        address = os.environ.get(ADDRESS, "local")
        local = {"include_dashboard": False, "object_store_memory": OBJECTS} if address == "local" else {}
        # Ray would end this process at a SIGTERM.
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=address, log_to_driver=self.mode != "none", logging_level="error", **local)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise BenchError(f"--launch ray: no cluster at {address}: {' '.join(str(error).split())[:300]}") from None
        finally:
            signal.signal(signal.SIGTERM, handler)
        self._started = True
        return ray

    def _put(self, unit: Unit) -> None:
        """Put what is there of a cell into the storage."""
        cell = self.job.results / "cells" / unit.cell
        if paths := [cell] if cell.is_dir() else _begun(self.job.results, unit.cell):
            pack(self.job.results, paths, unit.cell, self.options.storage)

    def _report(self, handle: str) -> Report:
        """Report a task that has ended; what it put into the storage comes into the results folder."""
        import ray

        try:
            host, ended = ray.get(self._tasks[handle])
        except ray.exceptions.TaskCancelledError:
            return Report("stopped", reason="cancelled")
        except ray.exceptions.RayTaskError as error:
            return Report("failed", reason=str(error).strip().splitlines()[-1])
        except ray.exceptions.RayError as error:
            return Report("lost", reason=" ".join(str(error).split())[:300] or type(error).__name__)
        try:
            if self.options.storage:
                unpack(self.options.storage, self._cells[handle], self.job.results)
        except (BenchError, OSError) as error:
            return Report("failed", host, f"its results were not fetched: {error}")
        return Report(ended.state, host, ended.reason)


def pack(results: Path, paths: Sequence[Path], cell: str, storage: str) -> None:
    """Put folders of a results folder, which belong to a cell, into a storage, in place of what it had of that."""
    system, root = _file_system(storage)
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "cell.tar"
        with tarfile.open(archive, "w") as tar:
            for path in paths:
                tar.add(path, str(path.relative_to(results)), filter=_without_claims)
        # Under another name first: it is there whole or not at all.
        partial = f"{root}/{cell}.{uuid4().hex[:8]}.partial"
        system.makedirs(root, exist_ok=True)
        system.put_file(str(archive), partial)
        system.mv(partial, f"{root}/{cell}.tar")


def unpack(storage: str, cell: str, results: Path) -> None:
    """Put what a storage holds of a cell into a results folder, in place of what was begun there.

    Raises ``BenchError`` if it is damaged there.
    """
    system, root = _file_system(storage)
    if not system.exists(f"{root}/{cell}.tar"):
        return
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=results) as folder:
        archive, unpacked = Path(folder) / "cell.tar", Path(folder) / "unpacked"
        system.get_file(f"{root}/{cell}.tar", str(archive))
        try:
            with tarfile.open(archive, "r:") as tar:
                tar.extractall(unpacked, filter="data")
        except tarfile.TarError as error:
            where = f"{storage.rstrip('/')}/{cell}.tar"
            raise BenchError(f"{where}: is damaged ({error}); remove it, and run bench run again") from None
        for begun in _begun(results, cell):
            shutil.rmtree(begun)
        _move(unpacked, results)


def _begun(results: Path, cell: str) -> list[Path]:
    """Return the folders in which the training of a cell was begun."""
    return [path for path in (results / "cells").glob(f".{cell}.partial*") if path.is_dir()]


def _without_claims(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if ".claim-" in Path(member.name).name else member


def _move(source: Path, target: Path) -> None:
    """Move a folder, and what it holds into one that is there; files that are there stay."""
    if not target.exists():
        commit(source, target)
    elif target.is_dir():
        for path in source.iterdir():
            _move(path, target / path.name)


def _file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path on it. Raises ``BenchError`` if it cannot be used here."""
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(url)
    except (ImportError, ValueError, OSError) as error:
        raise BenchError(f"--launch-option storage={url}: {' '.join(str(error).split())[:300]}") from None
    return system, path.rstrip("/")


def _carry_out(job: Job, unit: Unit, storage: str, mode: str) -> tuple[str, Ended]:
    """Be a task: carry out a cell; return the name of the machine and how it ended."""
    # The worker needs torch, what submits does not.
    from benchmark.execution.launch.work import carry_out

    host = platform.node()
    worker = f"ray {host}:{os.getpid()}"
    if not storage:
        if not job.launch_folder.is_dir():
            reason = f"{job.results} is not on {host}: name a folder that all nodes share, or --launch-option storage="
            return host, Ended(2, reason=reason)
        # What a dead predecessor claimed has to be waited for, if it ran on another machine.
        return host, carry_out(job, [unit], worker, mode, wait=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        here = job.model_copy(update={"results": Path(folder)})
        unpack(storage, unit.cell, here.results)
        (here.launch_folder / "failed").mkdir(parents=True, exist_ok=True)
        ended = carry_out(here, [unit], worker, mode)
        paths = [path for name in PACKED if (path := here.results / name).is_dir()]
        pack(here.results, paths, unit.cell, storage)
    return host, ended
