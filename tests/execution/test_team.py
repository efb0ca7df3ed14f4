"""Runs whose cells are trained by several processes: what they leave, and what happens when one of them ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from benchmark.api import configure
from benchmark.common.errors import BenchError
from benchmark.common.interrupts import StoppedError, stoppable
from benchmark.common.progress import Progress
from benchmark.common.torchrun import torchrun
from benchmark.common.tracking import Tracking
from benchmark.execution.launch.launcher import Job, Unit
from benchmark.execution.launch.local import Local
from benchmark.execution.launch.ray import Ray
from benchmark.execution.launch.slurm import Slurm
from benchmark.execution.runner import Outcome, Runner
from benchmark.execution.team import Team
from benchmark.plan.estimate import Estimator
from benchmark.store.cache import cache_root
from benchmark.store.live import Work
from benchmark.store.store import Store
from benchmark.training.ranks import ALONE, speedup
from tests.squares import planned

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
Step = Callable[[Runner, int], None]


def run(folder: Path, results: Path, *settings: str, at_step: Step = lambda *_: None, **flags: Any) -> Outcome:
    """Run the squares. at_step: called after each step with its number."""
    flags = {"tasks": ["retrieval"], "device": "cpu"} | flags
    plan, store = planned(folder, "training.micro_batch=12", "training.samples=256", *settings, **flags), Store(results)
    store.create()

    runner = Runner(plan, store, Progress(Console(quiet=True), "none"), cache_root(), Tracking())
    record = runner.recorder.step

    def step(work: Work, reached: int, steps: int) -> None:
        record(work, reached, steps)
        at_step(runner, reached)

    runner.recorder.step = step  # type: ignore[method-assign]
    with runner.recorder:
        return runner.run(wait=True)


def close(results: Path, other: Path) -> None:
    """Weights in float32 after eight steps are the same up to rounding, and each step was logged once."""
    cells = sorted(path.name for path in Store(other).cells.iterdir())
    assert sorted(path.name for path in Store(results).cells.iterdir()) == cells
    for cell in cells:
        for name in ("last.safetensors", "best.safetensors"):
            ours, theirs = (load_file(Store(each).cell(cell) / name) for each in (results, other))
            for tensor, value in theirs.items():
                torch.testing.assert_close(ours[tensor], value, rtol=1e-3, atol=1e-4)
        lines = (Store(results).cell(cell) / "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [*range(1, 9)]
    assert not [*results.rglob(".*partial*"), *results.rglob(".*claim*")]


def others(runner: Runner) -> list[int]:
    return [other.process.pid for other in runner.team._others]


def is_gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_two_processes_train_the_cells_of_a_run(suite: Path, tmp_path: Path) -> None:
    processes: list[int] = []

    def note(runner: Runner, _: int) -> None:
        processes.extend(others(runner))

    threads = torch.get_num_threads()
    outcome = run(suite, tmp_path / "two", at_step=note, gpus_per_cell=2, methods=["clip"], seeds=[0, 1])
    assert (outcome.trained, outcome.evaluated, outcome.failures) == (2, 2, [])
    assert len(set(processes)) == 1
    assert is_gone(processes[0])
    assert not torch.distributed.is_initialized()
    assert torch.get_num_threads() == threads
    assert set(Store(tmp_path / "two").costs()["gpus_per_cell"]) == {2}


@pytest.mark.slow
def test_a_killed_rank_ends_the_cell_alone(suite: Path, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(runner: Runner, step: int) -> None:
        if step == 3 and not killed:
            killed.extend(others(runner))
            os.kill(killed[0], signal.SIGKILL)

    first = run(suite, tmp_path / "two", at_step=kill, gpus_per_cell=2)
    assert first.trained == 1
    assert [message.partition(": ")[2] for message in first.failures] == ["rank 1 ended: killed by SIGKILL"]
    second = run(suite, tmp_path / "two", gpus_per_cell=2)
    assert (second.trained, second.failures) == (1, [])
    run(suite, tmp_path / "one")
    assert set(Store(tmp_path / "one").costs()["gpus_per_cell"]) == {1}
    close(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_a_failure_of_the_first_rank_ends_the_others(suite: Path, tmp_path: Path) -> None:
    processes: list[int] = []

    def fail(runner: Runner, step: int) -> None:
        processes.extend(others(runner))
        if step == 3 and len(set(processes)) == 1:
            raise BenchError("no more room")

    outcome = run(suite, tmp_path / "two", at_step=fail, gpus_per_cell=2)
    assert [message.partition(": ")[2] for message in outcome.failures] == ["no more room"]
    assert outcome.trained == 1
    assert len(set(processes)) == 2
    assert all(map(is_gone, processes))


@pytest.mark.slow
def test_a_signal_stops_all_and_one_process_goes_on(suite: Path, tmp_path: Path) -> None:
    def stop(runner: Runner, step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with stoppable(), pytest.raises(StoppedError):
        run(suite, tmp_path / "two", at_step=stop, gpus_per_cell=2)
    assert len([*(tmp_path / "two").rglob("resume.safetensors")]) == 1
    run(suite, tmp_path / "two")
    run(suite, tmp_path / "one")
    close(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_another_rank_that_cannot_train_says_why(suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's card is gone when it starts."""
    monkeypatch.setattr(Team, "check", lambda _: (suite / "small.yaml").unlink())
    outcome = run(suite, tmp_path / "two", methods=["clip"], gpus_per_cell=2)
    assert len(outcome.failures) == 1
    assert "rank 1 ended: " in outcome.failures[0]
    assert "small.yaml" in outcome.failures[0]


@pytest.mark.slow
def test_torchrun_starts_the_ranks(suite: Path, tmp_path: Path) -> None:
    run(suite, tmp_path / "one")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    command += [sys.executable, "-c", "from benchmark.cli.main import main; main()", "run", "--suite=suite.yaml"]
    command += [f"--results={tmp_path / 'two'}", "--device=cpu"]
    command += ["--tasks=retrieval", "--set=training.micro_batch=12", "--budget=samples=256", "--progress=none"]
    done = subprocess.run(command, cwd=suite, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained 2, evaluated 2") == 1
    assert done.stdout.count("next: bench report") == 1
    close(tmp_path / "two", tmp_path / "one")
    costs = Store(tmp_path / "two").costs()
    assert set(costs["gpus_per_cell"]) == {2}


def test_processes_of_torchrun_know_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torchrun() is None
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    started = torchrun()
    assert started is not None
    assert (started.rank, started.count, started.local) == (1, 4, 1)
    assert configure("demo").gpus_per_cell == 4
    with pytest.raises(BenchError, match="torchrun started 4 processes, but --gpus-per-cell is 2"):
        configure("demo", gpus_per_cell=2)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert torchrun() is None


def test_a_plan_refuses_more_ranks_than_micro_batches(suite: Path) -> None:
    assert planned(suite, gpus_per_cell=2).problems == []
    (problem,) = planned(suite, gpus_per_cell=3, methods=["clip"]).problems
    assert problem == (
        "arm 'clip': micro-batches of 16 divide its batch of 32 into 2, fewer than --gpus-per-cell 3; "
        "set training.micro_batch=10"
    )
    assert planned(suite, "training.micro_batch=10", gpus_per_cell=3).problems == []


def test_hours_are_divided_by_what_the_micro_batches_allow(suite: Path) -> None:
    def seconds(count: int) -> float:
        plan = planned(suite, "training.micro_batch=7", methods=["clip"], gpus_per_cell=count)
        assert speedup(plan.cells[0].training, count) == {1: 1, 2: 5 / 3, 5: 5}[count]
        estimate = Estimator(plan, Store(suite / "results").costs(), speed=1e12).cell(plan.cells[0])
        assert estimate.seconds is not None
        return estimate.seconds

    alone = seconds(1)
    assert seconds(2) == pytest.approx(alone * 3 / 5)
    assert seconds(5) == pytest.approx(alone / 5)


def test_a_cell_with_fewer_micro_batches_than_ranks_is_trained_alone(suite: Path) -> None:
    plan = planned(suite, gpus_per_cell=3, methods=["clip"])
    with Team(plan, Progress(Console(quiet=True), "none"), suite) as team, team.training(plan.cells[0]) as ranks:
        assert ranks is ALONE


def test_launchers_ask_for_the_gpus_of_a_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(id="1", config={"gpus_per_cell": 2}, device="cuda", results=tmp_path, folder=tmp_path)
    unit = Unit(cell="a", name="a", device="cuda")
    assert Slurm(job, Slurm.Config(time="1h")).resources([unit])["gpus_per_node"] == 2
    assert Slurm(job, Slurm.Config(time="1h", gpus=4)).resources([unit])["gpus_per_node"] == 4
    assert Ray(job, Ray.Config()).resources(unit)["num_gpus"] == 2
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 5)
    assert Local(job, Local.Config())._devices() == [["cuda:0", "cuda:1"], ["cuda:2", "cuda:3"]]
    chosen = Local.Config(devices=["cuda:3", "cuda:1"])
    assert Local(job, chosen)._devices() == [["cuda:3", "cuda:1"]]
    with pytest.raises(BenchError, match="a worker needs 2 GPUs, found 1"):
        Local(job, Local.Config(devices=["cuda:3"])).check()
