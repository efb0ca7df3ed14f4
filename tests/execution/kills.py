"""Processes to kill: each runs the squares and tunes, and says in a file what it is doing at the moment."""

import mmap
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import datasets as datasets
import optuna
import sympy as sympy
import yaml
from rich.console import Console

from benchmark.common.progress import Progress
from benchmark.execution import tuning
from benchmark.execution.materials import Materials
from benchmark.execution.runner import Runner
from benchmark.store import cache, claim
from benchmark.store.claim import Claim
from benchmark.store.store import Store
from benchmark.training import loop
from tests.execution.fleet import CONTEXT, check_equal, note_ends, run_squares, shorten_lives
from tests.squares import MODEL, planned

PHASES = ("start", "preparation", "training", "checkpoint", "rename", "embeddings", "evaluation", "tuning")
"""What a process can be doing. start: also planning, waiting and ending. preparation: what the cache keeps, initial
weights too. rename: a cell or an evaluation is completed and gets its name."""
LASTS = (1.5, 0.3, 0.1, 0.01, 0.02, 0.02, 0.1, 1.0)
"""Seconds after the beginning of each phase within which the kill comes."""
WITHIN = ("preparation", "tuning")
"""The phases that contain others."""
OFTEN = 0.5
"""The chance that a phase that begins is killed in."""
IN_A_FOLDER = 2
"""The most kills aimed at each phase in one results folder."""
BLOCKED = 120.0
"""Seconds after which a process that has not ended is blocked."""
DEAD = 1.5
"""Seconds without a sign of life after which others take over: several processes may share a core with others."""
SETTINGS = ("training.samples=160", "training.checkpoint_every=0")
FLAGS: dict[str, Any] = {
    "methods": ["clip"],
    "tasks": ["retrieval", "linear_probe"],
    "grid": ["training.learning_rate=0.003,0.002"],
    "baselines": True,
}
TRIALS = 2
CONTENT = (
    *("results/cells/*/*.safetensors", "results/cells/*/cell.json", "results/cells/*/embeddings/*/*.npy"),
    *(f"results/cells/*/evaluations/*/{name}" for name in ("*.parquet", "notes.json", "evaluation.json")),
    *("results/tuning/*.json", "cache/prepared/*/*.bin", "cache/prepared/*/*.arrow", "cache/initial/*/*.safetensors"),
)
"""Files that are the same, byte for byte, however often processes were killed."""


def write_general(folder: Path) -> None:
    """Let the suite in a folder start from initial weights, which the cells share."""
    training = {"samples": 64, "batch_size": 16, "micro_batch": 16}
    init = {"datasets": [str(folder / "squares.yaml")], "method": "clip", "training": training}
    (folder / "small.yaml").write_text(yaml.safe_dump(MODEL | {"init": init}))


def everything(squares: Path, folder: Path) -> list[str]:
    """Run and tune in this process; return what failed."""
    outcome, _ = run_squares(squares, folder / "results", *SETTINGS, **FLAGS)
    config = planned(squares, *SETTINGS, methods=["clip"]).config
    with Progress(Console(quiet=True), "none") as progress:
        tuning.tune_arms(config, folder / "results", TRIALS, [], "retrieval", progress)
    return outcome.failures


class Process:
    """A process that does everything, and what it is doing.

    elsewhere: whether the others take it for one of another machine, of which they know only its signs of life.
    """

    def __init__(self, squares: Path, folder: Path, elsewhere: bool) -> None:
        self.file = folder / f"doing-{uuid4().hex}"
        self.file.write_bytes(bytes(1))
        self.answers = CONTEXT.SimpleQueue()
        # Not when this is imported: the processes of other tests, of the same server, must not have the hub's clients.
        CONTEXT.set_forkserver_preload([__name__])
        arguments = (squares, folder, self.file, self.answers, elsewhere)
        self.process: BaseProcess = CONTEXT.Process(target=_work, args=arguments)
        self.process.start()
        self.seen: bytes | None = None

    def doing(self) -> int:
        """What it is doing, by its place in PHASES."""
        return self.file.read_bytes()[0]

    def begins(self) -> int | None:
        """The phase, if it is another one than at the last call."""
        seen, self.seen = self.seen, self.file.read_bytes()
        return self.seen[0] if seen != self.seen else None

    def kill(self) -> str:
        """Kill it; return what it was doing, empty if it had ended."""
        self.process.kill()
        self.process.join()
        return PHASES[self.doing()] if self.process.exitcode == -signal.SIGKILL else ""

    def ended(self) -> list[str]:
        """Wait for its end; return what failed."""
        self.process.join(BLOCKED)
        assert self.process.exitcode == 0, f"{PHASES[self.doing()]}: exit status {self.process.exitcode}"
        failures: list[str] = self.answers.get()
        return failures


def _work(squares: Path, folder: Path, file: Path, answers: Any, elsewhere: bool) -> None:
    os.environ["BENCH_CACHE"] = str(folder / "cache")
    shorten_lives()
    claim.DEAD = DEAD
    note_ends(folder / "results")
    if elsewhere:
        claim._space = lambda: str(os.getpid())  # type: ignore[assignment]
    _mark_phases(file)
    answers.put(everything(squares, folder))


def _mark_phases(file: Path) -> None:
    """Have this process write what it is doing into a file."""
    with file.open("r+b") as opened:
        now = mmap.mmap(opened.fileno(), 1)

    def mark(owner: Any, name: str, phase_of: Callable[..., str]) -> None:
        function = getattr(owner, name)

        @wraps(function)
        def marked(*arguments: Any, **named: Any) -> Any:
            before = now[0]
            if PHASES[before] not in WITHIN:
                now[0] = PHASES.index(phase_of(*arguments))
            try:
                return function(*arguments, **named)
            finally:
                now[0] = before

        setattr(owner, name, marked)

    mark(cache, "_build", lambda folder, *_: "embeddings" if folder.parent.name == "embeddings" else "preparation")
    for owner, names, phase in (
        (Materials, ("initial_weights",), "preparation"),
        (Materials, ("pretrain",), "training"),
        (loop, ("save_checkpoint", "save_resume", "save_cost"), "checkpoint"),
        (Store, ("finish", "add_evaluation"), "rename"),
        (Runner, ("measure",), "evaluation"),
        (tuning._Search, ("run",), "tuning"),
    ):
        for name in names:
            mark(owner, name, lambda *_, phase=phase: phase)


FAULTS = (
    *("lost cells", "lost evaluations", "cells trained twice to the end", "half-written files under a final name"),
    *("files that differ from the undisturbed run", "claims that block", "failures"),
)
"""What must not come of kills."""


class Count:
    """What became of kills. kills: by phase. left: claims of dead processes that were left on what is done."""

    def __init__(self) -> None:
        self.kills, self.faults = Counter[str](), Counter(dict.fromkeys(FAULTS, 0))
        self.folders = self.trained = self.left = 0


def kill_in(folder: Path, squares: Path, workers: int, kills: int, share: int, random: Random, count: Count) -> None:
    """Do everything in a folder by several processes, of which one after another is killed and replaced.

    kills: the most. share: the most that are aimed at a phase, over all folders.
    """
    elsewhere = bool(count.folders % 2)
    running = [Process(squares, folder, elsewhere) for _ in range(workers)]
    here = Counter[int]()
    while here.total() < kills and all(process.process.is_alive() for process in running):
        time.sleep(0.001)
        for number, process in enumerate(running):
            phase = process.begins()
            if phase is None or here[phase] >= IN_A_FOLDER or count.kills[PHASES[phase]] >= share:
                continue
            if random.random() > OFTEN:
                continue
            time.sleep(random.uniform(0, LASTS[phase]))
            if doing := process.kill():
                count.kills[doing] += 1
                here[phase] += 1
            else:
                count.faults["failures"] += len(process.ended())
            running[number] = Process(squares, folder, elsewhere)
            break
    for process in running:
        count.faults["failures"] += len(process.ended())


def check(folder: Path, expected: Path, count: Count) -> None:
    """Count what is not as in an undisturbed folder."""
    ours, theirs = Store(folder / "results"), Store(expected / "results")
    for path in theirs.cells.glob("[!.]*/cost.json"):
        key = path.parent.name
        count.faults["lost cells"] += not ours.finished(key)
        for evaluation in theirs.cell(key).glob("evaluations/[!.]*"):
            count.faults["lost evaluations"] += not ours.is_evaluated(key, evaluation.name)
        ours.set_aside_damaged(key, theirs._evaluations(key))
    ends = (folder / "ends.txt").read_text().splitlines()
    trained = Counter(line.split(".")[1] for line in ends)
    count.faults["cells trained twice to the end"] += sum(number > 1 for number in trained.values())
    count.trained += len(trained)
    count.faults["half-written files under a final name"] += len([*folder.rglob("*.damaged-*")])
    for pattern in CONTENT:
        paths = [path.relative_to(expected) for path in expected.glob(pattern)]
        assert paths, pattern
        for path in paths:
            same = (folder / path).is_file() and (folder / path).read_bytes() == (expected / path).read_bytes()
            count.faults["files that differ from the undisturbed run"] += not same
    count.faults["files that differ from the undisturbed run"] += trials(folder) != trials(expected)
    for path in [*folder.rglob(".*.claim-*")]:
        count.left += 1
        claimed = claim.claim(path.with_name(claim._name(path)))
        count.faults["claims that block"] += not isinstance(claimed, Claim)
        if isinstance(claimed, Claim):
            claimed.release()
    for path in [*folder.rglob(".*partial*")]:
        assert not path.is_dir() or not (path.parent / path.name[1:].partition(".")[0]).exists(), path
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    check_equal(ours.folder, theirs.folder)
    count.folders += 1


def trials(folder: Path) -> list[Any]:
    """The trials of the search, apart from those that were killed before they had settings."""
    (study,) = optuna.get_all_study_names(storage := f"sqlite:///{folder / 'results' / 'tuning' / 'studies.db'}")
    loaded = optuna.load_study(study_name=study, storage=storage)
    return [(trial.params, trial.value) for trial in loaded.get_trials() if tuning.LOST not in trial.user_attrs]


def report(count: Count, workers: int) -> str:
    """Say in some lines what became of the kills."""
    lines = [
        f"{workers} workers: {count.kills.total()} kills in {count.folders} folders, {count.trained} trainings",
        "  killed in: " + ", ".join(f"{phase} {count.kills[phase]}" for phase in PHASES),
        "  " + ", ".join(f"{name}: {number}" for name, number in count.faults.items()),
        f"  claims of dead processes that were left on what is done, and block nothing: {count.left}",
    ]
    return "\n".join(lines)
