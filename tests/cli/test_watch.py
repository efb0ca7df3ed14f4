"""`bench watch` and `bench run --track`, on the coloured squares."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import benchmark
from benchmark.cli import watch
from benchmark.store.live import RunRecord, Work, read_runs
from tests.squares import Bench

QUICK = ["--suite", "suite.yaml", "--methods", "clip", "--tasks", "retrieval", "--set", "training.samples=320"]


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests that follow keep their priority."""
    monkeypatch.setattr(watch, "step_back", lambda: None)


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def log_of(results: Path) -> list[dict[str, float]]:
    (log,) = results.glob("cells/*/log.jsonl")
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_tensorboard_gets_the_log_and_the_scores(bench: Bench) -> None:
    assert bench("run", *QUICK, "--track", "tensorboard") == 0, bench.out
    assert "tracking: tensorboard --logdir results/tracking/tensorboard" in bench.out
    (folder,) = bench.folder.glob("results/tracking/tensorboard/*")
    rows = bench.rows()
    assert folder.name == f"clip-seed-0-{rows.cell.iloc[0][:8]}"
    tracked, log = scalars(folder), log_of(bench.folder / "results")
    for name in ("loss", "contrastive", "learning_rate", "gradient_norm", "temperature_scale", "validation_loss"):
        assert tracked[name] == pytest.approx({line["samples"]: line[name] for line in log if name in line}, rel=1e-6)
    assert len(tracked["loss"]) == 10
    assert len(tracked["validation_loss"]) == 2
    assert min(tracked["samples_per_second"].values()) > 0
    for row in rows.itertuples():
        assert tracked[f"retrieval/squares/{row.part}/{row.metric}"] == pytest.approx({320: row.value}, rel=1e-6)
    # Tracking is no part of what a result depends on.
    assert bench("run", *QUICK) == 0
    assert "trained 0, evaluated 0, done before 2" in bench.out


@pytest.mark.usefixtures("sigint")
def test_a_training_that_was_interrupted_goes_on_in_its_track(bench: Bench) -> None:
    def interrupt(values: Mapping[str, float], samples: int) -> None:
        if samples == 160:
            os.kill(os.getpid(), signal.SIGINT)

    quick = {"methods": ["clip"], "tasks": ["retrieval"], "settings": {"training.samples": 320}, "progress": "none"}
    with pytest.raises(KeyboardInterrupt):
        benchmark.run("suite.yaml", track=["tensorboard", interrupt], **quick)
    (run,) = read_runs(bench.folder / "results")
    assert (run.state, run.work[0].state) == ("interrupted", "queued")
    assert run.work[0].share == 0.5
    assert bench("watch") == 1
    assert "was interrupted at" in bench.out
    assert "left: 1 training (clip seed 0) and 1 evaluation\n" in bench.out
    assert "no result yet: the page comes with the first" in bench.out
    results = benchmark.run("suite.yaml", track=["tensorboard", interrupt], **quick)
    assert results.outcome is not None
    assert results.outcome.trained == 1
    (folder,) = bench.folder.glob("results/tracking/tensorboard/*")
    assert len(list(folder.iterdir())) == 2
    log = log_of(bench.folder / "results")
    assert scalars(folder)["loss"] == pytest.approx({line["samples"]: line["loss"] for line in log}, rel=1e-6)
    assert len(log) == 10


def test_a_tracker_that_fails_does_not_stop_the_training(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(values: Mapping[str, float], samples: int) -> None:
        raise OSError("no space left")

    quick = {"methods": ["clip"], "tasks": ["retrieval"], "settings": {"training.samples": 96}}
    results = benchmark.run("suite.yaml", track=[fail], **quick)  # type: ignore[arg-type]
    assert capsys.readouterr().out.count("tracking by fail stopped, and the run goes on without it: OSError: no") == 1
    assert results.outcome is not None
    assert (results.outcome.trained, results.outcome.failures) == (1, [])


def test_a_tracker_that_is_not_there_is_a_mistake(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.common.tracking.find_spec", lambda _: None)
    assert bench("run", *QUICK, "--track", "tensorboard,mlflow") == 2
    assert bench.err == "error: --track tensorboard: tensorboard is not installed; pip install tensorboard\n"
    assert not (bench.folder / "results" / "cells").exists()


def test_a_run_that_was_killed_is_told_and_its_page_written(bench: Bench) -> None:
    assert bench("watch") == 2
    assert bench.err.startswith("error: no run here: results/runs has no record of one")
    assert bench("run", *QUICK) == 0
    (record,) = read_runs(bench.folder / "results")
    assert [(work.kind, work.state, work.done) for work in record.work] == [
        ("training", "done", 1),
        ("evaluation", "done", 1),
    ]
    assert all(work.estimated for work in record.work)
    killed = record.model_copy(update={"id": "z", "started": time.time(), "state": "running", "process": 2**22 + 1})
    (bench.folder / "results" / "runs" / "z.json").write_text(killed.model_dump_json())
    assert bench("watch") == 1
    assert bench.out.startswith("Run of suite suite with small on cpu stopped without saying so at")
    assert "- done: 1 training and 1 evaluation, in" in bench.out
    assert bench.out.endswith(": results/report/index.html\n")
    report = bench.folder / "results" / "report"
    for page in ("index.html", "report.md"):
        assert "stopped without saying so at" in (report / page).read_text()


@pytest.fixture
def played(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Plays a run: each scene changes its record while the watch sleeps. Returns how often the page was written before.

    The page takes a second of a clock that each sleep moves on by seven.
    """

    def play(scenes: list[dict[str, object]], exit_status: int) -> list[int]:
        clock, pages, before = [0.0], [0], []
        left = [*scenes]

        def show() -> None:
            (bench.folder / "results" / "runs").mkdir(parents=True, exist_ok=True)
            work = [Work(cell="a", name="clip seed 0", arm="clip", kind="training", estimated=9.0)]
            known = {"id": "x", "suite": "demo", "model": "tiny", "device": "cpu", "host": platform.node()}
            known |= {"process": os.getpid(), "started": time.time(), "updated": time.time(), "work": work}
            record = RunRecord.model_validate(known | left.pop(0))
            (bench.folder / "results" / "runs" / "x.json").write_text(record.model_dump_json())

        def sleep(seconds: float) -> None:
            assert seconds == 7
            clock[0] += seconds
            before.append(pages[0])
            show()

        def write(*_: object, **__: object) -> list[Path]:
            pages[0] += 1
            clock[0] += 1
            return [Path("report.md"), Path("index.html")]

        clocks = SimpleNamespace(sleep=sleep, monotonic=lambda: clock[0], time=time.time, strftime=time.strftime)
        monkeypatch.setattr(watch, "time", clocks)
        monkeypatch.setattr("benchmark.api.write_report", write)
        monkeypatch.setattr("benchmark.store.store.Store.rows", lambda _: pd.DataFrame({"value": [1.0]}))
        show()
        assert bench("watch", "--every", "7") == exit_status
        return [*before, pages[0]]

    return play


def trained(count: int, **more: object) -> dict[str, object]:
    work = [Work(cell=f"{n}", name=f"{n}", arm="clip", kind="training", state="done", done=1) for n in range(count)]
    return {"work": work, **more}


def test_the_page_is_written_when_something_ended(bench: Bench, played: Callable[..., list[int]]) -> None:
    """Progress alone changes nothing, and the last page is written even if the one before was just now."""
    scenes = [
        {"doing": "step 7"},
        {"doing": "step 8"},
        trained(1),
        trained(1),
        trained(2),
        trained(2, state="done", ended=1.0),
    ]
    assert played(scenes, 0) == [1, 1, 2, 2, 3, 4]
    assert bench.out.index("- now: step 7") < bench.out.index("- now: step 8") < bench.out.index("ended at")
    assert bench.out.count("- done: 1 training") == 1


def test_the_page_is_not_written_more_often_than_it_can_be(played: Callable[..., list[int]]) -> None:
    """After the first page eight seconds are too few, and fifteen are enough."""
    assert played([trained(1), trained(2), trained(3), trained(3, state="done")], 0) == [1, 1, 2, 3]


def test_a_watch_ends_with_a_run_that_is_gone(bench: Bench, played: Callable[..., list[int]]) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert played([trained(1), trained(1, process=gone.pid)], 1) == [1, 2]
    assert f"(process {gone.pid} is gone)" in " ".join(bench.out.split())


def test_a_watch_leaves_the_processor_to_the_run() -> None:
    code = (
        "import os, sys; from benchmark.cli.watch import step_back; step_back(); "
        "print(os.nice(0), os.environ['OMP_NUM_THREADS'], 'numpy' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(min(19, os.nice(0) + 10)), "1", "False"]
