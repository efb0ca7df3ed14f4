"""Cells as SLURM jobs: what they ask for, how they end, and that a stopped one goes on from its checkpoint."""

import os
import pickle
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.common.errors import BenchError
from benchmark.execution.launch.fleet import read_launches
from benchmark.execution.launch.launcher import Ended, Job, LaunchRecord, Report, Unit
from benchmark.execution.launch.slurm import Slurm, minutes_of
from benchmark.store.claim import owners
from benchmark.store.live import Work
from tests.execution import cluster
from tests.execution.fleet import check_equal, steps, wait_until
from tests.squares import Bench

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'contrastive-benchmark[slurm]'")

RUN = ("run", "--suite", "suite.yaml", "--tasks", "linear_probe", "--budget", "samples=4800")
LAUNCH = (*RUN, "--launch", "slurm", "--launch-option", "cpus=1,time=30m")


def unit(device: str = "cuda", seconds: float | None = 3600.0, memory: int | None = 8 * 10**9) -> Unit:
    work = [Work(cell="c", name="clip seed 0", arm="clip", kind="training", estimated=seconds)]
    return Unit(cell="c", name="clip seed 0", device=device, work=work, memory=memory)


def launcher(folder: Path, **options: Any) -> Slurm:
    job = Job(id="launch", config={}, device="cpu", results=folder, folder=folder)
    return Slurm(job, Slurm.Config(**options))


def handles(bench: Bench) -> tuple[LaunchRecord, Slurm]:
    record = read_launches(bench.folder / "results")[-1]
    return record, Slurm(record.job, Slurm.Config(**record.options))


def reports(bench: Bench) -> list[Report]:
    record, slurm = handles(bench)
    return slurm.poll(record.handles)


@pytest.mark.parametrize(
    ("options", "units", "expected"),
    [
        ({}, [unit(), unit(seconds=7200.0)], {"timeout_min": 195, "gpus_per_node": 1, "mem_gb": None}),
        ({}, [unit("cpu")], {"timeout_min": 105, "gpus_per_node": None, "mem_gb": 16.0}),
        ({"time": "12h", "gpus": 2, "cpus": 8}, [unit(seconds=None)], {"timeout_min": 720, "gpus_per_node": 2}),
        ({"time": "2m", "memory": 64.0}, [unit("cpu")], {"slurm_signal_delay_s": 60, "mem_gb": 64.0}),
        ({"time": "2d", "partition": "gpu", "gpus": 1}, [unit("cpu")], {"slurm_partition": "gpu", "mem_gb": None}),
    ],
)
def test_resources(tmp_path: Path, options: dict[str, Any], units: list[Unit], expected: dict[str, Any]) -> None:
    parameters = launcher(tmp_path, **options).resources(units)
    assert {name: parameters[name] for name in expected} == expected


@pytest.mark.parametrize(("device", "gpus", "seconds"), [("cuda", 1, None), ("cpu", 1, 60.0)])
def test_an_unknown_time_has_to_be_given(tmp_path: Path, device: str, gpus: int, seconds: float | None) -> None:
    with pytest.raises(BenchError, match="--launch-option time=12h"):
        launcher(tmp_path, gpus=gpus).resources([unit(device, seconds)])


@pytest.mark.parametrize(("time", "minutes"), [("90m", 90), ("1.5h", 90), ("2d", 2880), ("1-02:30:30", 1590.5)])
def test_times(time: str, minutes: float) -> None:
    assert minutes_of(time) == minutes


@pytest.mark.parametrize("time", ["12", "12 hours", "1:00:00", "-1h"])
def test_other_times(time: str) -> None:
    with pytest.raises(BenchError, match="expected a time such as"):
        minutes_of(time)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes programs of SLURM that answer with a text."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")

    def write(name: str, text: str, status: int = 0) -> None:
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\ncat >&{2 if status else 1} <<'END'\n{text}\nEND\nexit {status}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return write


def test_how_jobs_ended(tmp_path: Path, program: Any) -> None:
    slurm = launcher(tmp_path)
    queue = ["7_0|PENDING|", "7_1|RUNNING|n1", "7_2|COMPLETING|n1", "7_3|COMPLETED|n2", "7_4|FAILED|n2"]
    queue += ["7_5|OUT_OF_MEMORY|n3", "7_6|CANCELLED|", "7_7|FAILED|n3", "8|RUNNING|n4"]
    program("squeue", "\n".join(queue))
    slurm.folder.mkdir(parents=True)
    results: dict[int, tuple[str, Any]] = {
        2: ("success", Ended(75, reason="stopped by SIGTERM at a checkpoint", signal="SIGTERM")),
        3: ("success", Ended(trained=1)),
        4: ("error", "Traceback\nValueError: no\n"),
        7: ("success", Ended(1, failures=["clip, seed 0: the loss is not finite"])),
    }
    for number, result in results.items():
        (slurm.folder / f"7_{number}_0_result.pkl").write_bytes(pickle.dumps(result))
    (slurm.folder / "7_5_0_log.err").write_text("a\nslurmstepd: error: Detected 1 oom-kill event\n\n")
    assert slurm.poll([f"7_{number}" for number in range(9)]) == [
        Report("waiting"),
        Report("running", "n1"),
        Report("stopped", "n1", "stopped by SIGTERM at a checkpoint"),
        Report("done", "n2"),
        Report("failed", "n2", "ValueError: no"),
        Report("lost", "n3", "out of memory: slurmstepd: error: Detected 1 oom-kill event"),
        Report("stopped", "", "cancelled"),
        Report("failed", "n3", "clip, seed 0: the loss is not finite"),
        Report("lost", "", "SLURM does not know it any more"),
    ]


def test_what_slurm_refuses(tmp_path: Path, program: Any) -> None:
    program("srun", "")
    program("sbatch", "sbatch: error: invalid partition specified: gpu", 1)
    with pytest.raises(BenchError, match="sbatch refused the jobs: sbatch: error: invalid partition specified: gpu"):
        launcher(tmp_path, partition="gpu").submit([unit(), unit()])
    program("squeue", "slurm_load_jobs error: Unable to contact slurm controller", 1)
    with pytest.raises(BenchError, match="squeue: slurm_load_jobs error"):
        launcher(tmp_path).poll(["7_0"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "there is no sbatch on this machine"),
        ("cluster=slrum", "did you mean 'slurm'"),
        ("cluster=debug,time=soon", "time=soon: expected a time"),
        ("partitoin=gpu", "did you mean 'partition'"),
    ],
)
def test_mistakes(bench: Bench, monkeypatch: pytest.MonkeyPatch, options: str, message: str) -> None:
    monkeypatch.setenv("PATH", "")
    assert bench(*RUN, "--launch", "slurm", *(["--launch-option", options] if options else [])) == 2
    assert message in bench.err


def test_the_debug_executor_carries_cells_out_here(bench: Bench) -> None:
    options = ("--methods", "clip", "--budget", "samples=96")
    assert bench(*RUN, *options, "--launch", "slurm", "--launch-option", "cluster=debug,time=30m") == 0
    assert reports(bench)[0].state == "done"
    assert set(bench.rows()["method"]) == {"clip"}


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same number of threads here and in jobs: sums are in the same order."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def worker_of(controller: str) -> str:
    """The process that a controller of submitit started."""
    return Path(f"/proc/{controller}/task/{controller}/children").read_text().strip()


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_job_of_the_local_executor_goes_on(bench: Bench) -> None:
    options = ("--methods", "clip")
    assert bench(*RUN, *options, "--results", "plain") == 0
    assert bench(*LAUNCH, *options, "--launch-option", "cluster=local") == 0
    (handle,) = handles(bench)[0].handles
    wait_until(lambda: steps(bench.folder / "results") > 5)
    first = worker_of(handle)
    os.kill(int(first), signal.SIGUSR1)
    # Its controller starts it again.
    wait_until(lambda: worker_of(handle) not in ("", first))
    reached = steps(bench.folder / "results")
    wait_until(lambda: steps(bench.folder / "results") > reached)
    os.kill(int(worker_of(handle)), signal.SIGTERM)
    wait_until(lambda: reports(bench)[0].state != "running")
    assert reports(bench)[0].state == "stopped"
    assert bench(*RUN, *options) == 0
    check_equal(bench.folder / "results", bench.folder / "plain")


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with cluster.slurm(tmp_path_factory.mktemp("slurm")):
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("controller", "one_thread")
def test_a_job_of_slurm_goes_on_from_its_checkpoint(bench: Bench) -> None:
    results = bench.folder / "results"
    assert bench(*RUN, "--results", "plain") == 0

    assert bench(*LAUNCH) == 0
    record, _ = handles(bench)
    job, cell = record.handles[0], record.units[0].cell
    assert [handle.split("_")[1] for handle in record.handles] == ["0", "1"]

    def reached() -> int:
        return sum(path.read_text().count("\n") for path in results.glob(f"cells/.{cell}.partial*/log.jsonl"))

    wait_until(lambda: reached() > 5)
    assert bench("status") == 0
    assert "running: msd seed 0, training by" in bench.out
    # Its time is nearly over: it goes back into the queue, where SLURM leaves it for two minutes.
    subprocess.run(["scancel", "--signal=USR1", job], check=True)
    wait_until(lambda: reports(bench)[0].state == "waiting")
    before = reached()

    def resumed() -> bool:
        # Again and again: SLURM sets the two minutes when it has cleaned up after the job, which may be later.
        subprocess.run(["scontrol", "update", f"jobid={job}", "starttime=now"], check=False, capture_output=True)
        return reached() > before > 5

    wait_until(resumed)
    assert bench("cancel") == 0
    wait_until(lambda: reports(bench)[0].state == "stopped")
    wait_until(lambda: reports(bench)[1].state in ("stopped", "done"))
    assert bench("status") == 0
    assert "stopped: msd seed 0; last error: stopped by SIGTERM at a checkpoint" in bench.out

    assert bench(*LAUNCH) == 0
    wait_until(lambda: all(report.state == "done" for report in reports(bench)))
    check_equal(results, bench.folder / "plain")
    assert bench("status") == 0
    assert "1 cell: 1 done" in bench.out or "2 cells: 2 done" in bench.out


@pytest.mark.slow
@pytest.mark.usefixtures("controller", "one_thread")
def test_a_job_of_slurm_that_dies(bench: Bench) -> None:
    assert bench(*LAUNCH, "--methods", "clip") == 0
    wait_until(lambda: steps(bench.folder / "results") > 0)
    (owner,) = owners(bench.folder / "results" / "cells").values()
    os.kill(owner.process, signal.SIGKILL)
    wait_until(lambda: reports(bench)[0].state == "lost")
    assert "Killed" in reports(bench)[0].reason
    assert bench("status") == 0
    assert "failed: clip seed 0; last error: failed: srun: error:" in bench.out
