"""Launch cells as SLURM jobs through submitit: an array, a job for each cell, that outlives the command."""

import getpass
import os
import platform
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

from typing_extensions import override

from benchmark.common.errors import BenchError, unknown
from benchmark.common.interrupts import STOPPED
from benchmark.execution.launch.launcher import Ended, Job, Launcher, Report, Unit, register_launcher
from benchmark.execution.launch.resources import memory_of, seconds_of

CLUSTERS = ("slurm", "local", "debug")
"""Executors of submitit. local: processes of this machine; debug: this process, one cell after the other."""
NOTICE = 300
"""Seconds before its time is over at which SLURM tells a job, which then writes a checkpoint; at most half the time."""
LARGEST_ARRAY = 1000
"""The most jobs of an array: SLURM's own default."""
WAITING = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT", "SUSPENDED")
RUNNING = ("RUNNING", "CONFIGURING", "COMPLETING", "SIGNALING", "STAGE_OUT", "RESIZING", "STOPPED")
_TIME = re.compile(r"(\d+(?:\.\d+)?)(m|h|d)")
_CLOCK = re.compile(r"(\d+)-(\d+)(?::(\d+))?(?::(\d+))?")
_MINUTES = {"m": 1, "h": 60, "d": 1440}


@register_launcher("slurm")
class Slurm(Launcher):
    """Jobs of an array, one for each cell.

    A job that is told that its time is nearly over (SIGUSR1) stops at a checkpoint and goes back into the queue. One
    that is stopped (SIGTERM: scancel, bench cancel) stops at a checkpoint too, and stays away. SLURM itself puts jobs
    back that are preempted, or whose node died.
    """

    detaches = True
    needs_memory = True

    @dataclass
    class Config:
        """partition: of SLURM; empty: its default. time: of a job, such as 12h or 1-12:00:00; empty: as estimated.

        gpus: of a job; -1: those of a cell if the run is on GPUs. cpus: of a job; 0: SLURM's default. memory: of a job,
        in GB; 0: as estimated on the CPU, SLURM's default with GPUs. parallel: the most jobs at a time. requeues: how
        often a job goes back into the queue. cluster: slurm; local or debug try it out without SLURM.
        """

        partition: str = ""
        time: str = ""
        gpus: int = -1
        cpus: int = 0
        memory: float = 0.0
        parallel: int = 256
        requeues: int = 100
        cluster: str = "slurm"

    @property
    def folder(self) -> Path:
        """What submitit writes: the calls, their results and their output."""
        return self.job.launch_folder / "jobs"

    @override
    def check(self) -> None:
        if find_spec("submitit") is None:
            raise BenchError("--launch slurm needs submitit: pip install 'contrastive-benchmark[slurm]'")
        if self.options.cluster not in CLUSTERS:
            raise unknown("cluster of --launch slurm", self.options.cluster, CLUSTERS)
        if self.options.cluster == "slurm" and not which("sbatch"):
            raise BenchError(
                "--launch slurm: there is no sbatch on this machine; expected one from which jobs are submitted"
            )
        if self.options.time:
            minutes_of(self.options.time)

    @override
    def submit(self, units: Sequence[Unit]) -> list[str]:
        handles: list[str] = []
        for first in range(0, len(units), LARGEST_ARRAY):
            handles += self._submit(units[first : first + LARGEST_ARRAY])
        return handles

    @override
    def poll(self, handles: Sequence[str]) -> list[Report]:
        queue = self._queue() if self.options.cluster == "slurm" else {}
        return [self._report(handle, *queue.get(handle, ("", ""))) for handle in handles]

    @override
    def cancel(self, handles: Sequence[str], at_once: bool = False) -> None:
        if self.options.cluster == "slurm":
            # A signal reaches those that run, and they have as long as they need for the checkpoint.
            for arguments in (["--signal=KILL"],) if at_once else (["--state=PENDING"], ["--signal=TERM"]):
                for first in range(0, len(handles), LARGEST_ARRAY):
                    command = ["scancel", "--quiet", *arguments, *handles[first : first + LARGEST_ARRAY]]
                    subprocess.run(command, capture_output=True, check=False)
            return
        for handle in handles:
            if _runs_here(handle):
                # Its controller passes SIGTERM on, and kills what it started when it is interrupted.
                os.kill(int(handle), signal.SIGINT if at_once else signal.SIGTERM)

    def _submit(self, units: Sequence[Unit]) -> list[str]:
        """Submit an array; return the ids of its jobs."""
        submitit = _submitit()
        calls = [partial(_carry_out, self.job, unit, self.options.requeues) for unit in units]
        with _outside_of_a_job():
            executor = submitit.AutoExecutor(self.folder, cluster=self.options.cluster)
            executor.update_parameters(**self.resources(units))
            try:
                jobs = executor.submit_array(calls)
            except submitit.core.utils.FailedJobError as error:
                lines = [line for line in str(error).splitlines() if line.strip()]
                raise BenchError(f"--launch slurm: sbatch refused the jobs: {lines[-1].strip()}") from None
        if self.options.cluster == "debug":
            for job in jobs:
                # It is carried out now, and how it ended is written as the other executors do.
                ended = job.result()
                submitit.core.utils.cloudpickle_dump(("success", ended), job.paths.result_pickle)
                if ended.state == "stopped":
                    raise KeyboardInterrupt
        return [job.job_id for job in jobs]

    def resources(self, units: Sequence[Unit]) -> dict[str, Any]:
        """Return what each job of an array asks for, as parameters of submitit: enough for the largest cell.

        Raises ``BenchError`` if the time is neither given nor known.
        """
        options, on_gpu = self.options, units[0].device == "cuda"
        gpus = options.gpus if options.gpus >= 0 else self.job.gpus_per_cell * on_gpu
        if options.time:
            minutes = minutes_of(options.time)
        else:
            # What is estimated for the CPU says nothing of jobs with GPUs.
            seconds = seconds_of(units) if on_gpu == bool(gpus) else None
            if seconds is None:
                raise BenchError(
                    "--launch slurm: the time that the cells take is not known here; give that of the longest, "
                    "such as --launch-option time=12h"
                )
            minutes = seconds / 60
        memory = options.memory or (0 if gpus else memory_of(units) / 1e9)
        parameters: dict[str, Any] = {
            "name": "bench",
            "timeout_min": max(1, round(minutes)),
            "slurm_signal_delay_s": min(NOTICE, round(minutes * 30)),
            "slurm_array_parallelism": max(1, options.parallel),
            "slurm_additional_parameters": {"requeue": True},
            "slurm_partition": options.partition or None,
            "gpus_per_node": gpus or None,
            "mem_gb": round(memory, 1) or None,
        }
        if options.cpus:
            threads = f'export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-{options.cpus}}}"'
            # srun does not take it from sbatch.
            share = [f"--cpus-per-task={options.cpus}"]
            parameters |= {"cpus_per_task": options.cpus, "slurm_srun_args": share, "slurm_setup": [threads]}
        return parameters

    def _queue(self) -> dict[str, tuple[str, str]]:
        """Return state and node of this user's jobs, and of those that ended for as long as SLURM knows them."""
        command = [
            "squeue",
            "--noheader",
            "--array",
            "--states=all",
            f"--user={getpass.getuser()}",
            "--format=%i|%T|%N",
        ]
        try:
            asked = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise BenchError("there is no squeue on this machine; ask where the jobs were submitted") from None
        if asked.returncode:
            raise BenchError(f"squeue: {' '.join(asked.stderr.split())}")
        lines = (line.split("|") for line in asked.stdout.splitlines() if line.count("|") == 2)
        return {job: (state, node) for job, state, node in lines}

    def _report(self, handle: str, state: str, node: str) -> Report:
        if self.options.cluster != "slurm":
            state, node = "RUNNING" if _runs_here(handle) else "", platform.node()
        if state in WAITING:
            return Report("waiting")
        ended = self._ended(handle)
        if state in RUNNING and (state != "COMPLETING" or ended is None):
            return Report("running", node)
        if isinstance(ended, Ended):
            failures = ended.failures[-1:] if ended.state == "failed" else []
            return Report(ended.state, node, ended.reason or "".join(failures))
        if ended is not None:
            return Report("failed", node, ended)
        if state == "CANCELLED":
            return Report("stopped", node, "cancelled")
        reasons = (state.replace("_", " ").lower(), self._last_line(handle))
        return Report("lost", node, ": ".join(filter(None, reasons)) or "SLURM does not know it any more")

    def _ended(self, handle: str) -> Ended | str | None:
        """Read how a job ended: what its function returned, or the last line of its error. None if it did not say."""
        submitit = _submitit()
        path = submitit.core.utils.JobPaths(self.folder, handle).result_pickle
        try:
            outcome, result = submitit.core.utils.pickle_load(path)
        except (FileNotFoundError, EOFError):
            return None
        return result if outcome == "success" else str(result).strip().splitlines()[-1]

    def _last_line(self, handle: str) -> str:
        """Return the last line that a job wrote to its standard error, of an error if there is one; else empty."""
        path: Path = _submitit().core.utils.JobPaths(self.folder, handle).stderr
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        lines = [line.strip() for line in lines if line.strip()]
        errors = [line for line in lines if "error" in line.lower()]
        return (errors or lines or [""])[-1]


def minutes_of(time: str) -> float:
    """Return the minutes of a time such as 90m, 12h, 2d or 1-12:00:00, days and a time as SLURM writes them.

    Raises ``BenchError`` for anything else.
    """
    if match := _TIME.fullmatch(time):
        return float(match[1]) * _MINUTES[match[2]]
    if match := _CLOCK.fullmatch(time):
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return days * 1440 + hours * 60 + minutes + seconds / 60
    raise BenchError(f"--launch-option time={time}: expected a time such as 90m, 12h, 2d or 1-12:00:00")


def _carry_out(job: Job, unit: Unit, requeues: int) -> Ended:
    """Be a job: carry out a cell; if the time is over, go back into the queue."""
    # The worker needs torch, what submits does not.
    from benchmark.execution.launch.work import carry_out

    environment = _submitit().JobEnvironment()
    # What a dead predecessor claimed has to be waited for, if it ran on another machine.
    ended = carry_out(job, [unit], f"{environment.cluster} {environment.job_id}", wait=True)
    if ended.status == STOPPED and ended.signal == "SIGUSR1":
        before = int(os.environ.get("SLURM_RESTART_COUNT", 0))
        if before >= requeues:
            ended.reason += f", after it went back into the queue {before} times; run bench run again to go on"
            return ended
        environment._requeue(requeues - before)
        # Without a result of its own: the job goes on.
        raise SystemExit(STOPPED)
    return ended


def _submitit() -> Any:
    """Import submitit, which is optional; it tells jobs by SIGUSR1 that their time is over."""
    os.environ.setdefault("SUBMITIT_PREEMPT_SIGNAL", "USR1")
    try:
        import submitit
        import submitit.core.utils
    except ImportError:
        raise BenchError("jobs of SLURM need submitit: pip install 'contrastive-benchmark[slurm]'") from None

    return submitit


@contextmanager
def _outside_of_a_job() -> Iterator[None]:
    """Hide the variables of the job in which the command runs, which jobs of its own would take for theirs."""
    hidden = {
        name: os.environ.pop(name) for name in [*os.environ] if name.startswith("SLURM_") and name != "SLURM_CONF"
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


def _runs_here(handle: str) -> bool:
    """Return whether the process of a job of the local executor runs; a zombie has ended."""
    try:
        status = Path(f"/proc/{handle}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")
