"""Several processes on one results folder: shared, taken over, stopped and gone on with."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmark import configure
from benchmark.common.errors import BenchError
from benchmark.common.progress import Progress
from benchmark.config.schema import RunConfig
from benchmark.config.validation import validated
from benchmark.execution.launch import fleet as module
from benchmark.execution.launch.launcher import LAUNCHERS, Job, LaunchRecord, Unit
from benchmark.execution.launch.local import environment
from benchmark.execution.launch.status import cell_states
from benchmark.execution.plugins import plugin_files
from benchmark.execution.runner import Runner, Share, run
from benchmark.method import METHODS
from benchmark.registry import load_files
from benchmark.store import claim
from benchmark.store.live import Recorder, Work
from benchmark.store.store import Store
from tests.execution.fleet import SHORT, Forks, Running, check_equal, killed, meet, run_squares, steps, wait_until
from tests.squares import Bench, planned

SHARED = {"methods": ["clip"], "tasks": ["retrieval"]}
LONG = ("training.samples=960", "training.checkpoint_every=0")


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in SHORT.items():
        monkeypatch.setattr(claim, name, seconds)


@pytest.fixture(scope="module")
def undisturbed(squares: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(shared_cache))
        results = tmp_path_factory.mktemp("undisturbed") / "results"
        run_squares(squares, results, *LONG, **SHARED)
    return results


def test_a_killed_training_is_taken_over(suite: Path, tmp_path: Path, undisturbed: Path) -> None:
    first = Running(suite, tmp_path / "results", *LONG, **SHARED)
    with killed(first):
        wait_until(lambda: steps(tmp_path / "results") > 5)
        assert cell_states(Store(tmp_path / "results"))[0].state == "running"
    (state,) = cell_states(Store(tmp_path / "results"))
    assert (state.state, state.name) == ("waiting", "clip seed 0")
    outcome, _ = run_squares(suite, tmp_path / "results", *LONG, **SHARED)
    assert (outcome.trained, outcome.failures) == (1, [])
    check_equal(tmp_path / "results", undisturbed)


def test_a_suspended_training_notices_that_it_was_taken_over(suite: Path, tmp_path: Path, undisturbed: Path) -> None:
    results = tmp_path / "results"
    suspended = Running(suite, results, *LONG, **SHARED)
    wait_until(lambda: steps(results) > 5)
    suspended.send(signal.SIGSTOP)
    outcome, _ = run_squares(suite, results, *LONG, **SHARED)
    assert (outcome.trained, outcome.failures) == (1, [])
    (cell,) = (results / "cells").iterdir()
    times = {path: path.stat().st_mtime_ns for path in cell.rglob("*") if path.is_file()}
    suspended.send(signal.SIGCONT)
    late, printed = suspended.ended()
    assert (late.trained, late.evaluated, late.failures) == (0, 0, [])
    assert "was taken over, and is done, as this process gave no sign of life" in printed
    assert {path: path.stat().st_mtime_ns for path in cell.rglob("*") if path.is_file()} == times
    check_equal(results, undisturbed)


def test_two_workers_share_the_cells(suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them dies, the other takes its cell over; what fails in one is tried by no other."""
    monkeypatch.setitem(LAUNCHERS._classes, "forks", Forks)
    results, console = tmp_path / "results", Console(file=(tmp_path / "out.txt").open("w"), width=200)
    kills: list[int] = []

    def kill_one(processes: list[BaseProcess]) -> None:
        if not kills and steps(results) > 5:
            kills.append(processes[0].pid)
            os.kill(kills[0], signal.SIGKILL)

    monkeypatch.setattr(Forks, "on_poll", staticmethod(kill_one))
    # Rates at which the third cell's loss is not finite.
    plan = planned(suite, *LONG, grid=["training.learning_rate=0.003,0.002,1e30"], **SHARED)
    store = Store(results)
    store.create()
    outcome = module.launch(plan, store, Progress(console, "none"), "forks", {})
    printed = (tmp_path / "out.txt").read_text()
    assert kills
    assert "worker 1 died: killed; what it was working on goes on from its last checkpoint" in printed
    assert (outcome.trained, len(outcome.failures)) == (2, 1)
    assert "the loss is nan" in outcome.failures[0]
    assert [state.state for state in cell_states(store)] == ["done", "done", "failed"]
    assert not [*results.rglob(".*claim*")]


def test_evaluations_of_a_cell_are_shared(suite: Path, tmp_path: Path) -> None:
    """Two processes at once, in the order that they come: each dataset is encoded once, by one of them."""
    results, few = tmp_path / "results", ("training.samples=64",)
    run_squares(suite, results, *few, methods=["clip"], tasks=["zero_shot"])
    tasks = ["retrieval", "linear_probe", "few_shot", "zero_shot"]
    both = [Running(suite, results, *few, hook=meet, methods=["clip"], tasks=tasks) for _ in range(2)]
    outcomes = [each.ended()[0] for each in both]
    evaluated = [outcome.evaluated for outcome in outcomes]
    assert min(evaluated) > 0
    assert sum(evaluated) == len([*results.glob("cells/*/evaluations/*/rows.json")]) - 1
    assert [outcome.trained for outcome in outcomes] == [0, 0]
    encoded = (tmp_path / "encoded.txt").read_text().splitlines()
    assert len(encoded) == len({*encoded}) > 1


def test_ctrl_c_stops_the_workers_at_a_checkpoint(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Path
) -> None:
    monkeypatch.setitem(LAUNCHERS._classes, "forks", Forks)
    results, workers = tmp_path / "results", []

    def interrupt(processes: list[BaseProcess]) -> None:
        if not workers and steps(results) > 5:
            workers.extend(processes)
            raise KeyboardInterrupt

    monkeypatch.setattr(Forks, "on_poll", staticmethod(interrupt))
    store, progress = Store(results), Progress(Console(quiet=True), "none")
    store.create()
    with pytest.raises(KeyboardInterrupt):
        module.launch(planned(suite, *LONG, **SHARED), store, progress, "forks", {})
    assert {process.exitcode for process in workers} == {75}
    assert len([*results.glob("cells/.*.partial-*/resume.safetensors")]) == 1
    run_squares(suite, results, *LONG, **SHARED)
    check_equal(results, undisturbed)


def test_a_signal_of_a_scheduler_waits_for_a_step_and_for_an_evaluation(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, undisturbed: Path
) -> None:
    command = ["run", "--suite", "suite.yaml", "--methods", "clip", "--tasks", "retrieval,linear_probe"]
    command += ["--set", "training.samples=960"]
    step, measure = Recorder.step, Runner.measure

    def signalled(recorder: Recorder, work: Work, number: int, of: int) -> None:
        if number == 7:
            os.kill(os.getpid(), signal.SIGUSR1)
        step(recorder, work, number, of)

    def signalled_too(runner: Runner, *arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        measure(runner, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "step", signalled)
        assert bench(*command) == 75
        assert "stopped by SIGUSR1; the same command goes on from the last checkpoint" in bench.out
    (log,) = bench.folder.glob("results/cells/.*.partial-*/log.jsonl")
    assert len(log.read_text().splitlines()) == 7
    assert (log.parent / "resume.safetensors").is_file()
    with monkeypatch.context() as patch:
        patch.setattr(Runner, "measure", signalled_too)
        assert bench(*command) == 75
        assert len([*bench.folder.glob("results/cells/*/evaluations/*/rows.json")]) == 1
    assert bench(*command) == 0
    assert len([*bench.folder.glob("results/cells/*/evaluations/*/rows.json")]) == 2


def test_cancel_asks_a_run_to_stop(bench: Bench, suite: Path) -> None:
    running = Running(suite, bench.folder / "results", *LONG, **SHARED)
    wait_until(lambda: steps(bench.folder / "results") > 5)
    assert bench("status") == 0
    assert re.search(r"1 cell: 1 running.*\nrunning: clip seed 0, training by \S+ since", bench.out)
    assert bench("cancel") == 0
    assert f"asked process {running.process.pid} to stop at a checkpoint" in bench.out
    assert running.ended() is None
    assert [*bench.folder.glob("results/cells/.*.partial-*/resume.safetensors")]
    assert bench("status") == 0
    assert "1 cell: 1 waiting" in bench.out
    assert bench("cancel") == 0
    assert "nothing works on results" in bench.out


def test_cancel_asks_a_command_that_has_started_nothing_yet(bench: Bench) -> None:
    command = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = claim.Owner(platform.node(), claim._space(), command.pid, claim._began(command.pid), time.time(), "t")
    (bench.folder / "results" / "launches").mkdir(parents=True)
    (bench.folder / "results" / "launches" / ".id.claim-1").write_text(json.dumps(asdict(owner)))
    assert bench("cancel") == 0
    assert f"asked process {command.pid} to stop" in bench.out
    assert command.wait() == -signal.SIGTERM
    assert bench("cancel") == 0
    assert "nothing works on results" in bench.out


def test_records_that_this_version_cannot_read(bench: Bench) -> None:
    """A launcher that is not here, or has other options, and files cut off: the others are shown."""
    results = bench.folder / "results"
    units = [Unit(cell="c", name="clip seed 0", device="cpu")]
    for number, (launcher, options) in enumerate((("slurm", {"no": 1}), ("gone", {}))):
        job = Job(id=f"{number}", config={}, device="cpu", results=results, folder=results)
        record = LaunchRecord(
            launcher=launcher, options=options, job=job, units=units, handles=["7_0"], host="", process=1, started=1
        )
        job.launch_folder.mkdir(parents=True)
        (job.launch_folder / "launch.json").write_text(record.model_dump_json())
        assert bench("status") == 0
        assert "1 cell: 1 waiting" in bench.out
        assert bench("cancel") == 0
    assert "launch 0: launcher 'slurm' has other options in this version" in " ".join(bench.out.split())
    assert "launch 1: unknown launcher 'gone'" in " ".join(bench.out.split())
    cut = record.model_dump_json()[:-20]
    for name, text in (("launches/2/launch.json", cut), ("launches/3/launch.json", ""), ("runs/x.json", '{"id": 1')):
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_text(text)
    assert bench("status") == 0
    assert "1 cell: 1 waiting" in bench.out


def test_lines_of_the_table_leave_room() -> None:
    """The terminal shows ^C at the end of the last line: it must not begin another, which would not be cleared."""
    text = module._fitting(["3 cells: 3 waiting", "worker 1: " + "x" * 90], 80)
    assert [len(line) for line in text.plain.split("\n")] == [18, 77]
    assert text.plain.endswith("…")


def test_what_kills_its_processes_is_given_up(suite: Path, tmp_path: Path) -> None:
    plan = planned(suite, *LONG, **SHARED)
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / f".{plan.cells[0].key}").write_bytes(b"...")
    share = Share("launch", "worker 1", [], tmp_path / "failed")
    outcome = run(plan, Store(tmp_path / "results"), Progress(Console(quiet=True), "none"), share=share)
    assert len(outcome.failures) == 1
    assert "3 processes that worked on it died one after another" in outcome.failures[0]


def test_threads_and_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(16)}, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    of_second = environment(["cuda:1"], 3)
    assert (of_second["OMP_NUM_THREADS"], of_second["CUDA_VISIBLE_DEVICES"]) == ("5", "5")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert environment(["cuda:1"], 32)["CUDA_VISIBLE_DEVICES"] == "1"
    assert environment(["cuda:2", "cuda:3"], 2)["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert environment(["cuda:1"], 32)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert environment(["cpu"], 3)["OMP_NUM_THREADS"] == "2"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "2", "--launch", "slurm"], "--workers and --devices are of this machine"),
        (["--launch-option", "gpus=1"], "name it with --launch"),
        (["--devices", "cpu", "--launch-option", "gpus"], "expected name=value"),
        (["--launch", "locall"], "unknown launcher 'locall'; did you mean 'local'?"),
        (["--launch", "local", "--launch-option", "worker=2"], "did you mean 'workers'?"),
        (["--device", "cpu", "--devices", "cuda:0"], "the run is on cpu; expected cpu"),
    ],
)
def test_wrong_options(bench: Bench, options: list[str], message: str) -> None:
    assert bench("run", "--suite", "suite.yaml", *options) == 2
    assert message in " ".join(bench.err.split())


def test_a_method_of_a_script_cannot_be_launched(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(suite)
    assert plugin_files(plan) == []
    load_files([suite / "hinge.py"])
    plan = planned(suite, methods=["hinge"])
    assert plugin_files(plan) == [str(suite / "hinge.py")]
    monkeypatch.setattr(METHODS["hinge"], "__module__", "__main__")
    with pytest.raises(BenchError, match="'hinge' is defined in the script or notebook that runs"):
        plugin_files(plan)


def test_a_configuration_survives_being_written() -> None:
    config = configure("cxr", seeds=2, settings={"clip.training.epochs": 3})
    assert validated(RunConfig, json.loads(json.dumps(config.model_dump(mode="json"))), "") == config
