"""Which state the cells of a results folder are in, by launches, records of runs, claims and the store."""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import ValidationError

from benchmark.common.errors import BenchError, plural
from benchmark.common.progress import duration
from benchmark.execution.launch.launcher import LAUNCHERS, LaunchRecord, Unit, launcher_of
from benchmark.store.claim import Owner, owners
from benchmark.store.live import Kind, RunRecord, Work, current
from benchmark.store.store import Store

State = Literal["waiting", "running", "stopped", "done", "failed"]


@dataclass
class CellState:
    """The state of a cell that was to be carried out.

    doing: training or evaluation, of one that is running; owner: which process. share: of that work, 0..1. left:
    seconds until it is done, None where unknown. error: the last one.
    """

    name: str
    cell: str
    state: State
    doing: Kind | Literal[""] = ""
    owner: Owner | None = None
    share: float = 0.0
    left: float | None = None
    error: str = ""


def read_launches(results: Path) -> list[LaunchRecord]:
    """Read the records of the launches into a results folder, oldest first; one of another version is passed over."""
    launches = []
    for path in (results / "launches").glob("*/launch.json"):
        with suppress(OSError, ValidationError):
            launches.append(LaunchRecord.model_validate_json(path.read_bytes()))
    return sorted(launches, key=lambda launch: launch.started)


def failure_messages(failed: Path) -> dict[str, str]:
    """Read the messages of what failed in a launch, by cell or evaluation, in the order in which it did.

    A message is empty until the worker has written it. failed: the folder, which need not be there.
    """
    # Names with a dot are of work in progress, and come and go.
    paths = failed.glob("[!.]*")
    written = sorted((path.stat().st_mtime, path) for path in paths)
    return {path.name: path.read_text(encoding="utf-8", errors="replace") for _, path in written}


def cell_states(store: Store) -> list[CellState]:
    """List the cells of the last launch, or of the runs that are going on (else the last one), with their states."""
    launches, records = read_launches(store.folder), store.runs()
    latest = max((record.started for record in records if not record.launch), default=0.0)
    launch = launches[-1] if launches and launches[-1].started >= latest else None
    if launch:
        own = [record for record in records if record.launch == launch.job.id]
        states = states_of(store, launch.units, own, launch.job.launch_folder / "failed")
        _ask_launcher(launch, states)
        return states
    return states_of(store, _units(current(records)), current(records), None)


def _ask_launcher(launch: LaunchRecord, states: Sequence[CellState]) -> None:
    """Say of cells that wait for a job whether it was stopped or died, which nothing but its launcher knows."""
    with suppress(BenchError):
        if not LAUNCHERS[launch.launcher].detaches:
            return
        for state, report in zip(states, launcher_of(launch).poll(launch.handles)):
            if state.state == "waiting" and report.state in ("stopped", "failed", "lost"):
                state.state = "stopped" if report.state == "stopped" else "failed"
                state.error = state.error or report.reason


def states_of(
    store: Store, units: Sequence[Unit], records: Sequence[RunRecord], failed: Path | None
) -> list[CellState]:
    """Return the states of cells. records: of the processes that carry them out. failed: the folder of a launch."""
    messages = failure_messages(failed) if failed else {}
    works = [work for record in records if record.is_going for work in record.work]
    running = {(work.cell, work.kind): work for work in works if work.state == "running"}
    claimed = owners(store.cells)
    return [_state(store, unit, messages, running, claimed.get(unit.cell)) for unit in units]


def _state(
    store: Store, unit: Unit, messages: dict[str, str], running: dict[tuple[str, Kind], Work], owner: Owner | None
) -> CellState:
    state = CellState(unit.name, unit.cell, "waiting", left=unit.seconds)
    trained = store.finished(unit.cell)
    evaluations = [work for work in unit.work if work.kind == "evaluation"]
    names = [unit.cell, *(f"{unit.cell}-{key}" for key in unit.evaluations)]
    errors = [messages[name] for name in names if name in messages]
    errors += [work.reason or "see run.log" for work in unit.work if work.state == "failed"]
    state.error = errors[-1] if errors else ""
    left = [key for key in unit.evaluations if not store.is_evaluated(unit.cell, key)]
    evaluated = not left if unit.evaluations else all(work.done >= work.total for work in evaluations)
    if trained and evaluated:
        state.state = "done"
        return state
    if trained and owner is None:
        owner = next(iter(owners(store.cell(unit.cell) / "evaluations").values()), None)
    if owner:
        state.state, state.owner = "running", owner
        state.doing = "evaluation" if trained else "training"
        if work := running.get((unit.cell, state.doing)):
            state.share, state.left = work.share, seconds_left(work)
            if not trained and evaluations and state.left is not None:
                later = evaluations[0].estimated
                state.left = None if later is None else state.left + later
    elif errors:
        state.state = "failed"
    return state


def summary(states: Sequence[CellState], workers: int) -> str:
    """Say in a line how many cells are in which state, and the time to go. workers: processes that share the rest."""
    counts = Counter(state.state for state in states)
    named = [f"{counts[name]:,} {name}" for name in get_args(State) if counts[name]]
    lefts = [state.left for state in states if state.state in ("waiting", "running")]
    known = [left for left in lefts if left is not None]
    to_go = f"; about {duration(sum(known) / workers)} left" if known and workers and len(known) == len(lefts) else ""
    return f"{plural(len(states), 'cell')}: {', '.join(named)}{to_go}"


def seconds_left(work: Work) -> float | None:
    """Estimate the seconds that the rest of some work takes, by its own pace; else by its estimate."""
    if work.seconds > 0 and work.share > work.before:
        return work.seconds / (work.share - work.before) * (1 - work.share)
    return None if work.estimated is None else work.estimated * (1 - work.share)


def _units(records: Iterable[RunRecord]) -> list[Unit]:
    """Return the cells of runs that were not launched."""
    works: dict[str, list[Work]] = {}
    for record in records:
        for work in record.work:
            works.setdefault(work.cell, []).append(work)
    return [Unit(cell=cell, name=of_cell[0].name, device="", work=of_cell) for cell, of_cell in works.items()]
