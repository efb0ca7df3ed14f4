"""Processes that share a results folder, for tests: forked from one that has imported everything."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file

from benchmark.common.progress import Progress
from benchmark.execution.launch.launcher import Job, Launcher, Report, Unit
from benchmark.execution.launch.work import carry_out
from benchmark.execution.runner import Outcome, Runner, run
from benchmark.store import cache, claim
from benchmark.store.store import Store
from benchmark.training import loop
from tests.squares import planned

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.execution.fleet"])
SHORT = {"BEAT": 0.05, "DEAD": 0.5, "POLL": 0.05}
"""Lives of claims for tests."""


def shorten_lives() -> None:
    for name, seconds in SHORT.items():
        setattr(claim, name, seconds)


def run_squares(folder: Path, results: Path, *settings: str, wait: bool = True, **flags: Any) -> tuple[Outcome, str]:
    """Run the suite in a folder that write_squares() filled, in this process; return what it did and printed."""
    torch.set_num_threads(1)
    console = Console(file=(results.parent / f"{results.name}-{os.getpid()}.txt").open("a"), width=200)
    store = Store(results)
    store.create()
    outcome = run(planned(folder, *settings, **flags), store, Progress(console, "none"), wait=wait)
    console.file.close()
    return outcome, Path(console.file.name).read_text()


def note_ends(results: Path) -> None:
    """Write a line for each training that reaches its end: the name of its folder."""
    save = loop.save_cost

    def noted(folder: Path, cost: Any) -> None:
        save(folder, cost)
        with (results.parent / "ends.txt").open("a") as file:
            file.write(f"{folder.name}\n")

    loop.save_cost = noted  # type: ignore[attr-defined]


def meet(results: Path) -> None:
    """Wait at an evaluation until two processes are at one; write a line for each dataset that is encoded."""
    measure, build = Runner.measure, cache._build

    def met(*arguments: Any) -> None:
        (results.parent / f"met-{os.getpid()}").touch()
        wait_until(lambda: len([*results.parent.glob("met-*")]) > 1)
        measure(*arguments)

    def noted(folder: Path, *arguments: Any, **named: Any) -> None:
        if folder.parent.name == "embeddings":
            with (results.parent / "encoded.txt").open("a") as file:
                file.write(f"{folder.name}\n")
        build(folder, *arguments, **named)

    Runner.measure, cache._build = met, noted  # type: ignore[method-assign, assignment]


def _run(
    folder: Path,
    results: Path,
    cache: str,
    answer: Any,
    settings: tuple[str, ...],
    flags: dict[str, Any],
    hook: Callable[[Path], None],
) -> None:
    os.environ["BENCH_CACHE"] = cache
    shorten_lives()
    hook(results)
    try:
        answer.put(run_squares(folder, results, *settings, **flags))
    except KeyboardInterrupt:
        answer.put(None)


class Running:
    """A process that runs the squares; ``ended()`` returns what it did and printed."""

    def __init__(
        self, folder: Path, results: Path, *settings: str, hook: Callable[[Path], None] = note_ends, **flags: Any
    ) -> None:
        self._answer = CONTEXT.SimpleQueue()
        arguments = (folder, results, os.environ["BENCH_CACHE"], self._answer, settings, flags, hook)
        self.process: BaseProcess = CONTEXT.Process(target=_run, args=arguments)
        self.process.start()

    def send(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def ended(self) -> tuple[Outcome, str]:
        outcome: tuple[Outcome, str] = self._answer.get()
        self.process.join()
        return outcome


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.005)


def steps(results: Path) -> int:
    """How many steps the trainings in progress have logged."""
    return sum(path.read_text().count("\n") for path in (results / "cells").glob(".*.partial*/log.jsonl"))


@contextmanager
def killed(process: Running) -> Iterator[None]:
    try:
        yield
    finally:
        process.process.kill()
        process.process.join()


def work(job: Job, units: list[Unit], worker: str, cache: str) -> None:
    os.environ["BENCH_CACHE"] = cache
    shorten_lives()
    torch.set_num_threads(1)
    os._exit(carry_out(job, units, worker, "none", wait=True).status)


class Forks(Launcher):
    """Workers that are forked. on_poll: called with the processes at each poll."""

    name = "forks"
    is_here = True
    on_poll: Callable[[list[BaseProcess]], None] = staticmethod(lambda processes: None)

    def submit(self, units: Any) -> list[str]:
        cache = os.environ["BENCH_CACHE"]
        self.processes: list[BaseProcess] = [
            CONTEXT.Process(target=work, args=(self.job, [*units], f"worker {n}", cache)) for n in (1, 2)
        ]
        for process in self.processes:
            process.start()
        return ["worker 1", "worker 2"]

    def poll(self, handles: Any) -> list[Report]:
        type(self).on_poll(self.processes)
        codes = [self.processes[int(handle[-1]) - 1].exitcode for handle in handles]
        states = {None: "running", 0: "done", 1: "failed", 75: "stopped"}
        return [Report(states.get(code, "lost"), reason="" if (code or 0) >= 0 else "killed") for code in codes]  # type: ignore[arg-type]

    def cancel(self, handles: Any, at_once: bool = False) -> None:
        for process in self.processes:
            if process.exitcode is None and process.pid:
                os.kill(process.pid, signal.SIGKILL if at_once else signal.SIGTERM)


def check_equal(results: Path, other: Path) -> None:
    """Weights and rows are equal bit for bit, each step was logged once, and nothing half-done is left."""
    store, expected = Store(results), Store(other)
    cells = sorted(path.name for path in expected.cells.iterdir())
    assert sorted(path.name for path in store.cells.iterdir()) == cells
    for cell in cells:
        for path in expected.cell(cell).glob("*.safetensors"):
            ours, theirs = load_file(store.cell(cell) / path.name), load_file(path)
            assert ours.keys() == theirs.keys()
            assert all(ours[name].equal(theirs[name]) for name in ours)
        log = store.cell(cell) / "log.jsonl"
        assert log.is_file() == (expected.cell(cell) / "log.jsonl").is_file()
        lines = [json.loads(line)["step"] for line in log.read_text().splitlines()] if log.is_file() else []
        assert lines == [*range(1, len(lines) + 1)]
    keys = ["cell", "dataset", "task", "part", "metric", "value", "low", "high"]
    frames = [each.rows()[keys].sort_values(keys[:5]).reset_index(drop=True) for each in (store, expected)]
    assert frames[0].equals(frames[1])
    assert not [*results.rglob(".*partial*"), *results.rglob(".*claim*")]
