"""The record of a run that goes on: RESULTS/runs/ID.json, by which another process knows what is running and left."""

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from uuid import uuid4

from pydantic import BaseModel, Field, ValidationError

from benchmark.store.claim import BEAT, DEAD, ClaimLostError
from benchmark.store.files import write_whole

SHARE = 0.01
"""The most of the time that writing a record at its changes takes, if it has more than ``MANY`` parts."""
MANY = 100
KEPT = 20
"""The most records of earlier runs that a new run leaves."""

WorkState = Literal["queued", "running", "done", "failed", "left out"]
Kind = Literal["training", "evaluation"]
RunState = Literal["running", "done", "failed", "interrupted"]


class Work(BaseModel):
    """The training of a cell, or its evaluations.

    name: of the cell. arm: its arm, or its name. total: 1 for a training, else the number of evaluations; done and
    failed: of these. share: of the work that is behind, 0..1; before: what of it this run found done, and seconds that
    the rest took. estimated: seconds of all of it; None if unknown.
    """

    cell: str
    name: str
    arm: str
    kind: Kind
    state: WorkState = "queued"
    reason: str = ""
    total: int = 1
    done: int = 0
    failed: int = 0
    share: float = 0.0
    before: float = 0.0
    seconds: float = 0.0
    estimated: float | None = None


class RunRecord(BaseModel):
    """What a run does and has to do, written every ``BEAT`` seconds and when it changes. Times are seconds since 1970.

    launch, worker: of a worker, the id of its launch and its name in it. host, process: the machine's name and the
    process id. updated: when the run last wrote; on another machine it counts as lost after ``DEAD`` seconds without.
    ended: when it said that it ended. left_out: what is not evaluated, and why. warnings: what a reader of the results
    should know. failures: a line each. reason: why the run ended, if not by itself. lost: why a run that does not say
    that it ended was not running any more when the record was read; else empty.
    """

    id: str
    launch: str = ""
    worker: str = ""
    suite: str
    model: str
    device: str
    host: str
    process: int
    started: float
    updated: float
    ended: float | None = None
    state: RunState = "running"
    reason: str = ""
    doing: str = ""
    left_out: list[str] = []
    warnings: list[str] = []
    failures: list[str] = []
    work: list[Work] = []
    lost: str = Field(default="", exclude=True)

    @property
    def is_going(self) -> bool:
        """Whether the run was going on when the record was read."""
        return self.state == "running" and not self.lost

    def why_lost(self, now: float) -> str:
        """Return why a run that does not say that it ended is not running any more; empty if it may be running."""
        if self.state != "running":
            return ""
        if self.host == platform.node() and not _is_process(self.process):
            return f"process {self.process} is gone"
        silent = now - self.updated
        return f"process {self.process} on {self.host} has not written since" if silent > DEAD else ""


def read_runs(results: Path) -> list[RunRecord]:
    """Read the records of a results folder, oldest first. One that another version has written is passed over."""
    records = []
    for path in (results / "runs").glob("*.json"):
        with suppress(OSError, ValidationError):
            record = RunRecord.model_validate_json(path.read_bytes())
            record.lost = record.why_lost(time.time())
            if record.lost:
                # A run that ended after the first look has said so by now.
                lost, record = record.lost, RunRecord.model_validate_json(path.read_bytes())
                record.lost = lost if record.state == "running" else ""
            records.append(record)
    return sorted(records, key=lambda record: record.started)


def current(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Select the runs that are running; if there is none, the one that started last."""
    running = [record for record in records if record.is_going]
    return running or [*records[-1:]]


class Recorder:
    """Writes the record of a run while the block runs, and how it ended.

    Also writes every few seconds, in a thread. If the record cannot be written, ``say`` gets one line, and the run goes
    on without it. doing: returns what the run is doing now.
    """

    def __init__(
        self,
        results: Path,
        suite: str,
        model: str,
        device: str,
        doing: Callable[[], str] = lambda: "",
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        now = time.time()
        host, process = platform.node(), os.getpid()
        # Machines that share the folder have the same process ids, containers most of all.
        name = f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}-{process}-{uuid4().hex[:4]}"
        self.folder, self.doing, self.say = results / "runs", doing, say
        self.record = RunRecord(
            id=name, suite=suite, model=model, device=device, host=host, process=process, started=now, updated=now
        )
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._began = time.monotonic()
        self._writes = True
        self._written = self._took = 0.0

    def __enter__(self) -> Self:
        earlier = [each for each in read_runs(self.folder.parent) if not each.is_going]
        for record in earlier[:-KEPT]:
            with suppress(OSError):
                self._path(record).unlink(missing_ok=True)
        self.write()
        self._thread = threading.Thread(target=self._beat, name="record of the run", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        record = self.record
        record.ended = time.time()
        if kind is None:
            record.state = "failed" if record.failures else "done"
        elif issubclass(kind, KeyboardInterrupt):
            record.state = "interrupted"
        else:
            record.state, record.reason = "failed", f"{error}" or kind.__name__
        self.write()

    def set_work(self, work: list[Work]) -> None:
        """Replace the work that is planned."""
        with self._lock:
            self.record.work = work
        self.write()

    def leave_out(self, reason: str) -> None:
        """Record a line about what is not evaluated."""
        self.record.left_out.append(reason)

    def fail(self, message: str) -> None:
        """Record a line about what failed."""
        self.record.failures.append(message)

    @contextmanager
    def running(self, cell: str, kind: Kind) -> Iterator[Work]:
        """Record that the work on a cell runs while the block does, and how it ended.

        After a training that failed, the cell's evaluations are left out.
        """
        work = self._find(cell, kind)
        self._began = time.monotonic()
        self._set(work, "running")
        try:
            yield work
        except (KeyboardInterrupt, ClaimLostError):
            self._set(work, "queued")
            raise
        except (Exception, SystemExit) as error:
            self._set(work, "failed", str(error) or type(error).__name__)
            if kind == "training":
                self._set(self._find(cell, "evaluation"), "left out", "the training failed")
            raise
        if kind == "training":
            work.done = 1
        if work.done + work.failed < work.total:
            # The rest is with other processes.
            self._set(work, "queued")
            return
        work.share = 1.0
        self._set(work, "failed" if work.failed else "done")

    def elsewhere(self, cell: str, kind: Kind) -> int:
        """Record what is left of the work on a cell as done by other processes; return how much that was."""
        work = self._find(cell, kind)
        left = work.total - work.done - work.failed if work in self.record.work else 0
        if left > 0:
            work.done += left
            self._set(work, "failed" if work.failed else "done")
        return left

    def step(self, work: Work, step: int, steps: int) -> None:
        """Record a step of a training."""
        with self._lock:
            work.share = step / steps
            if not work.before:
                # The time counts from the first step: before it weights are loaded, and a training that goes on has a
                # part behind it.
                work.before, self._began = work.share, time.monotonic()
            work.seconds = time.monotonic() - self._began

    def evaluated(self, work: Work, failed: bool) -> None:
        """Record an evaluation that is done or failed."""
        with self._lock:
            work.failed += failed
            work.done += not failed
            work.share = (work.done + work.failed) / work.total
            work.seconds = time.monotonic() - self._began
        self.changed()

    def changed(self) -> None:
        """Write the record, or soon if it is long: at each change, thousands of cells would take too long."""
        if len(self.record.work) <= MANY or time.monotonic() - self._written >= self._took / SHARE:
            self.write()

    def write(self) -> None:
        """Write the record; the file is the old one or the new one at any time."""
        began = time.monotonic()
        with self._lock:
            if not self._writes:
                return
            self.record.updated = time.time()
            self.record.doing = self.doing() if self.record.state == "running" else ""
            path = self._path(self.record)
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                write_whole(path, _text_of(self.record))
            except OSError as error:
                self._writes = False
                self.say(f"{path}: cannot be written, so that bench watch does not see this run: {error.strerror}")
            self._written = time.monotonic()
            self._took = self._written - began

    def _path(self, record: RunRecord) -> Path:
        return self.folder / f"{record.id}.json"

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            self.write()

    def _find(self, cell: str, kind: Kind) -> Work:
        found = [work for work in self.record.work if (work.cell, work.kind) == (cell, kind)]
        return found[0] if found else Work(cell=cell, name=cell, arm=cell, kind=kind)

    def _set(self, work: Work, state: WorkState, reason: str = "") -> None:
        with self._lock:
            work.state, work.reason = state, reason
        self.changed()


def _text_of(record: RunRecord) -> bytes:
    try:
        return record.model_dump_json(indent=1).encode() + b"\n"
    except ValueError:
        # A message names a file whose name is no text.
        return json.dumps(record.model_dump(), indent=1, ensure_ascii=False).encode(errors="replace") + b"\n"


def _is_process(process: int) -> bool:
    """Return whether a process of this machine exists; True where that cannot be told without harm (Windows)."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
