"""Measure the sides of a work in turn, each in a process of its own: A B A B, with a warm-up and medians.

Times of different machines are not comparable; ratios within one run are. What the sides are is in ``peers.py``.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, NotRequired, Protocol, Self, TypedDict

import torch

from benchmark.common.errors import BenchError
from benchmark.perf.data import SHARED
from benchmark.training.memory import PeakMemory

RUNS, LEAST_RUNS = 5, 3
PATIENCE = 20.0
"""Seconds that the runs of a work may take before fewer than ``RUNS`` are enough."""
PEER, LIMIT, ONCE = "peer", "limit", "once"


class Taken(TypedDict):
    """What a side took. cpu, wall: seconds, cpu of the process and of its children that ended. memory: bytes."""

    cpu: float
    wall: float
    memory: NotRequired[int]


Side = Callable[[], Any]
"""Does the work of one side. Returns a ``Taken`` with what counts of it, or else all of it counts."""


@dataclass(frozen=True)
class Work:
    """Something that the harness does, beside others that do the same.

    sides: descriptions by name. ``peer`` does the same in another library, ``peer_NAME`` what is compared with NAME;
    ``limit`` the least that it takes; what the harness pays ``once`` before is no part of its figures. All other names
    are the harness's.
    build: makes the data at a scale in (0, 1], where 1 is full size, and returns the sides in the order of ``sides``.
    warmed: the sides with a warm-up; None: all. Commands, which begin anew each time, need one only to fill a cache.
    asked: whether it is measured only when it is named, as it takes minutes.
    """

    title: str
    sides: Mapping[str, str]
    build: Callable[[float], Sequence[Side]]
    warmed: Collection[str] | None = None
    asked: bool = False

    @property
    def own(self) -> list[str]:
        """The sides that are the harness."""
        return [name for name in self.sides if name not in (LIMIT, ONCE) and not name.startswith(PEER)]


class Ratios(TypedDict, total=False):
    """peer: what the peer takes, in units of what the harness takes: above 1, the harness is faster.

    limit: what the harness takes, in units of the limit: 1 is at the limit.
    """

    peer: Taken
    limit: Taken


class Row(TypedDict):
    """The figures of a work.

    runs: of every side, in the order in which they were taken. sides: the median of each, and its largest memory.
    absent: why a side has no figures. ratios: of the medians, for each side that is the harness. break_even: the first
    repetition up to which what is paid once is regained in CPU seconds from the peer; None: never.
    load: the mean number of busy processes in the minute before and at the end.
    """

    work: str
    title: str
    descriptions: dict[str, str]
    runs: list[dict[str, Any]]
    sides: dict[str, Taken]
    absent: dict[str, str]
    ratios: dict[str, Ratios]
    break_even: NotRequired[int | None]
    load: tuple[float, float]


class Stopwatch:
    """Takes CPU and wall seconds, and the growth of memory, from start() to stop()."""

    def __init__(self, device: torch.device | None = None) -> None:
        self._memory = PeakMemory(device or torch.device("cpu"))

    def start(self) -> Self:
        """Begin anew."""
        self._wait()
        self._memory.start()
        self._wall, self._cpu = time.perf_counter(), _cpu_seconds()
        return self

    def stop(self, share: float = 1.0) -> Taken:
        """Return what was taken. share: of the time that counts, as of one of several steps."""
        self._wait()
        wall, cpu = time.perf_counter() - self._wall, _cpu_seconds() - self._cpu
        return {"cpu": cpu * share, "wall": wall * share, "memory": self._memory.peak()}

    def _wait(self) -> None:
        if self._memory.device.type == "cuda":
            torch.cuda.synchronize(self._memory.device)


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def installed(distribution: str) -> None:
    """Raise ``BenchError`` if a peer is not installed."""
    try:
        version(distribution)
    except PackageNotFoundError:
        raise BenchError(f"not installed: pip install {distribution}") from None


def serve(work: Work, side: str, scale: float, device: torch.device) -> None:
    """Build a side, then do it once for each line of standard input; answer each with a line of JSON."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # What a side prints is no answer.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for figures in answered(work.build(scale)[list(work.sides).index(side)], sys.stdin, device):
        answers.write(json.dumps(figures) + "\n")
        answers.flush()


def answered(do: Side, asks: Iterable[str], device: torch.device) -> Iterator[Mapping[str, Any]]:
    """Yield {} at once, then the figures of the side for each time that is asked."""
    yield {}
    watch = Stopwatch(device)
    for _ in asks:
        try:
            watch.start()
            counted = do()
            yield watch.stop() | (counted if isinstance(counted, dict) else {})
        except BenchError as error:
            yield {"absent": str(error)}


class Process:
    """A process that builds a side at once and does it when it is asked. shared: a folder for made_once()."""

    def __init__(self, command: Sequence[str], side: str, shared: str = "") -> None:
        self.side = side
        self._errors = TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | {SHARED: shared},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._child.kill()
        self._child.communicate()
        self._errors.close()

    def ready(self) -> None:
        """Wait until the side is built."""
        self._read()

    def ask(self) -> dict[str, Any]:
        """Do the side once."""
        assert self._child.stdin
        try:
            self._child.stdin.write("go\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            pass
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._child.stdout
        if line := self._child.stdout.readline():
            figures: dict[str, Any] = json.loads(line)
            return figures
        self._errors.seek(0)
        raise BenchError(f"{self.side}: {(self._errors.read().strip() or 'it ended').splitlines()[-1]}")


class Asked(Protocol):
    """A side that can be asked for: a ``Process``."""

    side: str

    def ask(self) -> dict[str, Any]:
        """Do the side once."""


def interleaved(
    sides: Sequence[Asked], runs: int = RUNS, warmed: Collection[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Ask the sides in turn; yield the figures of each run. Before, ask those in ``warmed`` once, which do not count.

    A side that answers ``absent`` is not asked again. After ``LEAST_RUNS`` rounds and ``PATIENCE`` seconds it ends.
    """
    absent: set[str] = set()

    def ask(side: Asked) -> dict[str, Any]:
        figures = {"side": side.side, **side.ask()}
        if "absent" in figures:
            absent.add(side.side)
        return figures

    warm = [ask(side) for side in sides if warmed is None or side.side in warmed]
    yield from (figures for figures in warm if "absent" in figures)
    began = time.monotonic()
    for number in range(runs):
        if number >= LEAST_RUNS and time.monotonic() - began > PATIENCE:
            return
        for side in sides:
            if side.side not in absent:
                yield ask(side)


def compared(name: str, work: Work, command: Sequence[str], runs: int = RUNS) -> Row:
    """Measure a work. command: starts ``serve`` with the name of a side as its last argument.

    Raises ``BenchError`` for a side that fails.
    """
    before = os.getloadavg()[0]
    with ExitStack() as stack:
        shared = stack.enter_context(TemporaryDirectory(prefix="bench-perf-"))
        processes = []
        for side in work.sides:
            processes.append(stack.enter_context(Process([*command, side], side, shared)))
            # One after the other: the first writes the data.
            processes[-1].ready()
        figures = list(interleaved(processes, runs, work.warmed))
    return row_of(name, work, figures, (before, os.getloadavg()[0]))


def row_of(name: str, work: Work, figures: Sequence[Mapping[str, Any]], load: tuple[float, float]) -> Row:
    """Compute medians and ratios from the figures of all runs."""
    absent = {each["side"]: str(each["absent"]) for each in figures if "absent" in each}
    runs = [dict(each) for each in figures if "absent" not in each]
    sides: dict[str, Taken] = {}
    for side in work.sides:
        own = [run for run in runs if run["side"] == side]
        if own:
            sides[side] = {
                "cpu": median(run["cpu"] for run in own),
                "wall": median(run["wall"] for run in own),
                "memory": max(run["memory"] for run in own),
            }
    ratios: dict[str, Ratios] = {}
    for side in work.own:
        ratios[side] = {}
        peer = f"{PEER}_{side}" if f"{PEER}_{side}" in work.sides else PEER
        if side in sides and peer in sides:
            ratios[side]["peer"] = _quotients(sides[peer], sides[side])
        if side in sides and LIMIT in sides:
            ratios[side]["limit"] = _quotients(sides[side], sides[LIMIT])
    row: Row = {
        "work": name,
        "title": work.title,
        "descriptions": dict(work.sides),
        "runs": runs,
        "sides": sides,
        "absent": absent,
        "ratios": ratios,
        "load": load,
    }
    if ONCE in sides and PEER in sides:
        row["break_even"] = break_even(sides[ONCE]["cpu"], sides[work.own[0]]["cpu"], sides[PEER]["cpu"])
    return row


def _quotients(above: Taken, below: Taken) -> Taken:
    return {"cpu": above["cpu"] / max(below["cpu"], 1e-9), "wall": above["wall"] / max(below["wall"], 1e-9)}


def break_even(once: float, ours: float, peer: float) -> int | None:
    """Return the smallest n >= 1 with once + n ours <= n peer; None if there is none."""
    return max(1, math.ceil(once / (peer - ours))) if peer > ours else None


def markdown(content: Mapping[str, Any]) -> str:
    """Write what ``bench perf`` found as a Markdown page."""
    machine = content["machine"]
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    lines = [
        f"Made by `{content['command']}` on {content['date']} at commit {content['commit']}, at scale "
        f"{content['scale']:g}: {machine['processor']}, {machine['cores']} cores{gpu}, Python {machine['python']}, "
        f"torch {machine['torch']}. Medians of runs in turn, in seconds; memory is what the work adds, in its largest "
        "process; load is the mean number of busy processes before and after. Above 1, a ratio to the peer says that "
        "the harness is faster; at 1, a ratio to the limit says that no less is possible.",
        "",
        "| work | side | CPU s | wall s | memory | x peer, CPU / wall | x limit, CPU / wall | runs | load |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in content["works"]:
        if "failed" in row:
            lines.append(f"| {row['work']} | failed: {row['failed']} | | | | | | | |")
        else:
            lines += _lines(row)
    even = [_said(row) for row in content["works"] if "break_even" in row]
    return "\n".join([*lines, *([""] if even else []), *even]) + "\n"


def _lines(row: Row) -> Iterator[str]:
    yield f"| **{row['work']}** | {row['title']} | | | | | | | {row['load'][0]:.1f} to {row['load'][1]:.1f} |"
    for side, description in row["descriptions"].items():
        if side not in row["sides"]:
            yield f"| | {side}: {description} | {row['absent'].get(side, '')} | | | | | | |"
            continue
        taken, ratios = row["sides"][side], row["ratios"].get(side, {})
        figures = [seconds(taken["cpu"]), seconds(taken["wall"]), f"{taken['memory'] / 1e6:,.0f} MB"]
        figures += [ratio(ratios.get("peer")), ratio(ratios.get("limit"))]
        count = sum(run["side"] == side for run in row["runs"])
        yield f"| | {side}: {description} | {' | '.join(figures)} | {count} | |"


def _said(row: Row) -> str:
    once, first = row["descriptions"][ONCE], row.get("break_even")
    if first is None:
        return f"- {row['work']}: {once} does not pay in CPU seconds."
    return f"- {row['work']}: {once} pays from repetition {first} on, in CPU seconds."


def seconds(value: float) -> str:
    """Write seconds with three digits."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def ratio(quotients: Taken | None) -> str:
    """Write the ratios of CPU and wall seconds."""
    return f"{quotients['cpu']:.2f} / {quotients['wall']:.2f}" if quotients else ""


def commit() -> str:
    """Return the commit of the code that runs, with ``+`` if files differ from it; "unknown" outside a checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
        )
    except OSError:
        return "unknown"
    return described.stdout.strip() or "unknown"


def side_command(module: str, name: str, scale: float) -> list[str]:
    """Return the command to which the name of a side is added."""
    return [sys.executable, "-m", module, name, str(scale)]
