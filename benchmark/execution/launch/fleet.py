"""Launch a plan: prepare the data once, hand the cells to a launcher, follow it, and do what it leaves."""

import os
import platform
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.live import Live
from rich.text import Text

from benchmark.common.errors import BenchError, plural
from benchmark.common.interrupts import deferred_interrupt
from benchmark.common.progress import Progress
from benchmark.common.tracking import Tracking
from benchmark.execution.launch.launcher import LAUNCHERS, Job, Launcher, LaunchRecord, Report, Unit, launcher_of
from benchmark.execution.launch.status import CellState, failure_messages, read_launches, states_of, summary
from benchmark.execution.plugins import plugin_files
from benchmark.execution.runner import Outcome, Runner, Share
from benchmark.plan.estimate import Estimator
from benchmark.plan.plan import Cell, Plan
from benchmark.plan.resolve import checked_options
from benchmark.store.cache import cache_root
from benchmark.store.claim import Claim, claim, owners
from benchmark.store.files import write_whole
from benchmark.store.live import KEPT, Work
from benchmark.store.store import Store

POLL = 0.2
"""Seconds between two looks at what was launched."""
SHOWN_EVERY = 2.0
"""Seconds between two looks at the records of the workers, for the table."""
VARIABLES = ("BENCH_CACHE", "BENCH_DATA")
"""Environment variables with paths that the workers need."""


def launch(
    plan: Plan,
    store: Store,
    progress: Progress,
    name: str,
    options: Mapping[str, Any],
    track: Sequence[str] = (),
    cache: Path | None = None,
) -> Outcome:
    """Carry out a plan through a launcher. name: of the launcher; options: of its ``Config``; track: names of trackers.

    Returns once all is done, or once all is submitted if what the launcher starts goes on without this process. Raises
    ``BenchError`` before anything is started for a plan with problems, bad data, and options that are wrong.
    """
    if plan.problems:
        raise BenchError("\n".join(plan.problems))
    cls = LAUNCHERS[name]
    checked = checked_options(f"launcher '{name}'", cls.Config, options)
    job = _job(plan, store, track)
    with ExitStack() as closing:
        command = claim(job.launch_folder)
        assert isinstance(command, Claim)
        # By it bench cancel knows which process to ask, from the start on.
        closing.enter_context(command)
        launcher = cls(job, cls.Config(**checked), progress.show, "none" if progress.mode != "lines" else "lines")
        launcher.check()
        tracking = Tracking.of([*track], store.folder / "tracking", lambda _: None)
        runner, evaluated = Runner(plan, store, progress, cache or cache_root(), tracking), _evaluated(plan)
        runner.set_aside_damaged()
        work = runner.prepare()
        job = launcher.job = job.model_copy(update={"left_out": sorted(evaluated - _evaluated(plan))})
        units = _units(runner, work, launcher)
        fleet = _Fleet(launcher, units, store, progress, checked)
        outcome = Outcome(skipped=runner.done_before())
        if not units:
            return outcome
        closing.callback(launcher.close)
        fleet.submit()
        if launcher.detaches:
            progress.print(
                f"submitted {plural(len(fleet.record.handles), 'job')} through {name}; bench status follows them, "
                "bench cancel stops them"
            )
            outcome.submitted = len(fleet.record.handles)
            return outcome
        fleet.follow()
        if launcher.is_here and fleet.is_left():
            runner.share = Share(job.id, "", work, fleet.failed)
            runner.recorder.record.launch = job.id
            with runner.recorder:
                runner.run(wait=True)
        fleet.end()
        outcome.trained, outcome.evaluated = fleet.done()
        outcome.failures = fleet.failures()
        return outcome


def cancel(store: Store, say: Callable[[str], None]) -> bool:
    """Ask everything that works on a results folder to stop at a checkpoint; return whether there is anything.

    Processes of this machine get a signal, and jobs are asked through their launcher.
    """
    detached: set[str] = set()
    asked = False
    for record in read_launches(store.folder):
        try:
            if record.ended is not None or not LAUNCHERS[record.launcher].detaches:
                continue
            detached.add(record.job.id)
            launcher = launcher_of(record)
            reports = zip(record.handles, launcher.poll(record.handles))
            if going := [handle for handle, report in reports if report.state in ("waiting", "running")]:
                launcher.cancel(going)
                say(f"asked {plural(len(going), 'job')} of {record.launcher} to stop at a checkpoint")
                asked = True
        except BenchError as error:
            say(f"launch {record.job.id}: {error}")
            asked = True
    commands = owners(store.folder / "launches")
    processes = dict.fromkeys((owner.host, owner.process) for owner in commands.values())
    for run in store.runs():
        # A command that follows its workers stops them.
        if run.is_going and run.launch not in {*commands, *detached}:
            processes[run.host, run.process] = None
    for host, process in processes:
        if host == platform.node():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
            say(f"asked process {process} to stop at a checkpoint")
        else:
            say(f"process {process} runs on {host}: run bench cancel there")
    return asked or bool(processes)


class _Fleet:
    """What was launched: its record, and what became of it."""

    def __init__(
        self, launcher: Launcher, units: list[Unit], store: Store, progress: Progress, options: dict[str, Any]
    ) -> None:
        self.launcher, self.units, self.store, self.progress = launcher, units, store, progress
        self.folder = launcher.job.launch_folder
        self.failed = self.folder / "failed"
        self.record = LaunchRecord(
            launcher=launcher.name,
            options=options,
            job=launcher.job,
            units=units,
            host=platform.node(),
            process=os.getpid(),
            started=time.time(),
        )
        self._failed_workers: list[str] = []

    def submit(self) -> None:
        """Write the record, without the oldest ones, and start all."""
        for earlier in read_launches(self.store.folder)[: -KEPT or None]:
            shutil.rmtree(earlier.job.launch_folder, ignore_errors=True)
        self.failed.mkdir(parents=True)
        self._write()
        with deferred_interrupt() as interrupted:
            # What was started and is not recorded could not be stopped.
            self.record.handles = self.launcher.submit(self.units)
            self._write()
        if stop := interrupted():
            self.launcher.cancel(self.record.handles)
            raise stop

    def follow(self) -> None:
        """Wait until all that was started has ended; say what died. Interrupted, stop it: at once the second time."""
        handles = self.record.handles
        try:
            with self._table() as show:
                self._wait(handles, show)
        except KeyboardInterrupt:
            self.launcher.cancel(handles)
            self.progress.print("stopping at checkpoints; Ctrl-C again stops at once", "yellow")
            try:
                self._wait(handles, lambda: None)
            except KeyboardInterrupt:
                self.launcher.cancel(handles, at_once=True)
            self.end()
            raise

    def end(self) -> None:
        """Write that all has ended."""
        self.record.ended = time.time()
        self._write()

    def is_left(self) -> bool:
        """Return whether something is neither done nor failed."""
        return any(state.state in ("waiting", "running") for state in self.states())

    def states(self) -> list[CellState]:
        """Return the states of the cells."""
        own = [record for record in self.store.runs() if record.launch == self.launcher.job.id]
        return states_of(self.store, self.units, own, self.failed)

    def done(self) -> tuple[int, int]:
        """Count the trainings and the evaluations that were left at the beginning and that are there."""
        trainings = [unit.cell for unit in self.units if any(work.kind == "training" for work in unit.work)]
        evaluations = [(unit.cell, key) for unit in self.units for key in unit.evaluations]
        return sum(map(self.store.finished, trainings)), sum(self.store.is_evaluated(*each) for each in evaluations)

    def failures(self) -> list[str]:
        """List the messages of what failed, in the order in which it did."""
        return [message for message in failure_messages(self.failed).values() if message] + self._failed_workers

    def _wait(self, handles: Sequence[str], show: Callable[[], None]) -> None:
        left = [*handles]
        while left:
            for handle, report in zip([*left], self.launcher.poll(left)):
                if report.state not in ("waiting", "running"):
                    left.remove(handle)
                    self._say_end(handle, report)
            show()
            time.sleep(POLL)

    def _say_end(self, handle: str, report: Report) -> None:
        if report.state == "lost":
            goes_on = "; what it was working on goes on from its last checkpoint" if self.launcher.is_here else ""
            self.progress.print(f"{handle} died: {report.reason}{goes_on}", "yellow")
        elif report.state == "failed" and report.reason:
            self._failed_workers.append(f"{handle}: {report.reason}")
            self.progress.print(self._failed_workers[-1], "red")
        elif report.state == "stopped" and not self.launcher.is_here:
            # Processes of this machine say it themselves.
            self.progress.print(f"{handle} stopped: {report.reason}", "yellow")

    def _write(self) -> None:
        write_whole(self.folder / "launch.json", self.record.model_dump_json() + "\n")

    @contextmanager
    def _table(self) -> Iterator[Callable[[], None]]:
        """Show what each worker is doing, on a terminal. Yields a function that shows it anew if that is due."""
        if self.progress.mode != "bars":
            yield lambda: None
            return
        due = 0.0
        with Live(console=self.progress.console, auto_refresh=False, transient=True) as screen:

            def show() -> None:
                nonlocal due
                if time.monotonic() < due:
                    return
                due = time.monotonic() + SHOWN_EVERY
                runs = [run for run in self.store.runs() if run.launch == self.launcher.job.id and run.is_going]
                states = states_of(self.store, self.units, runs, self.failed)
                lines = [summary(states, len(runs))]
                by_number = sorted(runs, key=lambda run: (len(run.worker), run.worker))
                lines += [f"{run.worker}: {run.doing or 'starting'}" for run in by_number]
                screen.update(_fitting(lines, self.progress.console.width), refresh=True)

            yield show


def _fitting(lines: Sequence[str], width: int) -> Text:
    """Cut lines for a terminal of some width, with room for the ^C that it shows: else that would begin a new line."""
    texts = [Text(line) for line in lines]
    for text in texts:
        text.truncate(max(1, width - len("^C") - 1), overflow="ellipsis")
    return Text("\n").join(texts)


def _job(plan: Plan, store: Store, track: Sequence[str]) -> Job:
    environment = {name: str(Path(os.environ[name]).absolute()) for name in VARIABLES if os.environ.get(name)}
    return Job(
        id=f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid4().hex[:4]}",
        config=plan.config.model_dump(mode="json"),
        device=plan.device.type,
        results=store.folder.absolute(),
        folder=Path.cwd(),
        plugins=plugin_files(plan),
        environment=environment,
        track=[*track],
    )


def _evaluated(plan: Plan) -> set[str]:
    return {pair.dataset for pair in plan.pairs}


def _units(runner: Runner, work: list[Work], launcher: Launcher) -> list[Unit]:
    """Make a unit of each cell that has work left."""
    plan, store = runner.plan, runner.store
    estimator = Estimator(plan, store.costs()) if launcher.needs_memory else None
    by_cell: dict[str, list[Work]] = {}
    for each in work:
        by_cell.setdefault(each.cell, []).append(each)
    return [
        Unit(
            cell=cell.key,
            name=by_cell[cell.key][0].name,
            device=plan.device.type,
            work=by_cell[cell.key],
            evaluations=[pair.key for pair in plan.missing(store, cell)],
            memory=estimator.cell(cell).memory if estimator and isinstance(cell, Cell) else None,
        )
        for cell, _ in runner.cells()
        if cell.key in by_cell
    ]
