"""What a launcher is: a class that has the cells of a run carried out by other processes, here or on other machines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from benchmark.common.errors import BenchError
from benchmark.common.interrupts import INTERRUPTED, STOPPED
from benchmark.registry import Registry
from benchmark.store.live import Work

State = Literal["waiting", "running", "done", "failed", "stopped", "lost"]
"""Of what a handle stands for. failed: something that it carried out failed. stopped: at a checkpoint, to be started
again. lost: it died without saying so (killed, out of memory, its machine is gone)."""


class Job(BaseModel):
    """What all workers of a launch work on. It can be pickled and written as JSON.

    id: of the launch. config: of the run, ``RunConfig.model_dump(mode="json")``. device: of the run, cpu, cuda or mps.
    results: the results folder, absolute.
    folder: where the command was started; relative paths in the configuration start there. plugins: absolute paths of
    the files that register methods, tasks or launchers. environment: variables that the workers need. track: names of
    trackers. left_out: datasets that failed their check, and that the run goes on without.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    config: dict[str, Any]
    device: str
    results: Path
    folder: Path
    plugins: list[str] = []
    environment: dict[str, str] = {}
    track: list[str] = []
    left_out: list[str] = []

    @property
    def gpus_per_cell(self) -> int:
        """The GPUs, or processes on the CPU, that train a cell together: a worker needs as many."""
        return int(self.config.get("gpus_per_cell", 1))

    @property
    def launch_folder(self) -> Path:
        """The folder of the launch: launch.json, and in failed/ a file with a message for each cell that failed."""
        return self.results / "launches" / self.id


class Unit(BaseModel):
    """A cell to carry out: its training, and what of its evaluations is left.

    cell: its key. name: for people. device: cpu, cuda or mps. work: what is left of it, with estimated seconds.
    evaluations: the keys of those that are left. memory: estimated peak on the device, in bytes; None where unknown.
    """

    model_config = ConfigDict(frozen=True)

    cell: str
    name: str
    device: str
    work: list[Work] = []
    evaluations: list[str] = []
    memory: int | None = None

    @property
    def seconds(self) -> float | None:
        """The estimated seconds of all that is left; None where unknown."""
        each = [work.estimated for work in self.work]
        return None if None in each else sum(seconds for seconds in each if seconds)


@dataclass(frozen=True)
class Report:
    """What a launcher knows of a handle. host: where it runs or ran, if known. reason: in a line, for people."""

    state: State
    host: str = ""
    reason: str = ""


@dataclass
class Ended:
    """How a worker ended; what ``carry_out`` returns. It can be pickled.

    status: 0, 1 after failures, 2 after a user's mistake, STOPPED at a checkpoint, INTERRUPTED after Ctrl-C.
    trained, evaluated, elsewhere, failures: as of ``Outcome``. reason: why it ended, if not by itself. signal: the
    name of the one that stopped it.
    """

    status: int = 0
    trained: int = 0
    evaluated: int = 0
    elsewhere: int = 0
    failures: list[str] = field(default_factory=list)
    reason: str = ""
    signal: str = ""

    @property
    def state(self) -> State:
        """The state of a handle whose worker ended like this."""
        if self.status == 0:
            return "done"
        return "stopped" if self.status in (STOPPED, INTERRUPTED) else "failed"


class LaunchRecord(BaseModel):
    """A launch, as written to launches/ID/launch.json in the results folder. Times are seconds since 1970.

    launcher, options: its name and ``Config``. handles: of what was started. host, process: of the command.
    """

    launcher: str
    options: dict[str, Any]
    job: Job
    units: list[Unit]
    handles: list[str] = []
    host: str
    process: int
    started: float
    ended: float | None = None


class Launcher:
    """Has units carried out: starts processes, jobs or tasks that call ``carry_out``, and follows them.

    A subclass is registered with ``@register_launcher("name")``, and its nested dataclass ``Config`` has the options
    that --launch-option sets. Where it detaches, another process with the same job and options makes an instance of its
    own, and polls and cancels by handle.

    detaches: whether what it starts goes on when the command ends. The command then ends once all is submitted; else it
    follows, and stops what it started when it is interrupted.
    is_here: whether it starts processes of this machine: what they leave when they die, the command does itself.
    needs_memory: whether units should come with their memory, which takes seconds to estimate for each arm.
    """

    name: ClassVar[str]
    detaches: ClassVar[bool] = False
    is_here: ClassVar[bool] = False
    needs_memory: ClassVar[bool] = False

    @dataclass
    class Config:
        """The options of the launcher; none by default."""

    def __init__(
        self, job: Job, options: Any, say: Callable[[str], None] = lambda _: None, mode: str = "lines"
    ) -> None:
        """job: what the workers work on. options: a ``Config``. say: shows a line of a worker's output.

        mode: of the workers' ``Progress``; none where a table shows what they are doing.
        """
        self.job, self.options, self.say, self.mode = job, options, say, mode

    def check(self) -> None:
        """Raise ``BenchError`` if this launcher cannot work here (a package or a program is missing); starts nothing.

        Called before data are checked and prepared.
        """

    def submit(self, units: Sequence[Unit]) -> list[str]:
        """Start carrying out the units; return a handle for each process, job or task that was started.

        A handle is a text that names it beyond this process's end (a job id, host and process). Raises ``BenchError``.
        """
        raise NotImplementedError

    def poll(self, handles: Sequence[str]) -> list[Report]:
        """Return what is known of each handle; does not wait."""
        raise NotImplementedError

    def cancel(self, handles: Sequence[str], at_once: bool = False) -> None:
        """Ask what the handles stand for to stop at a checkpoint, or at once; returns without waiting for it.

        Handles that have ended are passed over.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Free what the launcher holds in this process; called when the command ends."""


LAUNCHERS: Registry[Launcher] = Registry("launcher", Launcher, required=("submit", "poll", "cancel"))
register_launcher = LAUNCHERS.register


def launcher_of(record: LaunchRecord) -> Launcher:
    """Make the launcher of a launch anew, to poll and cancel by handle.

    Raises ``BenchError`` for one that is not here, or that has other options here.
    """
    cls = LAUNCHERS[record.launcher]
    try:
        return cls(record.job, cls.Config(**record.options))
    except TypeError as error:
        raise BenchError(f"launcher '{record.launcher}' has other options in this version: {error}") from None
