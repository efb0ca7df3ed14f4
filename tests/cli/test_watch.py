"""`bench watch` and `bench run --track`, on the coloured squares."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import benchmark
from benchmark import Results
from benchmark.cli import watch
from benchmark.store.live import RunRecord, read_runs
from tests.squares import Bench

QUICK = ["--suite", "suite.yaml", "--methods", "clip", "--tasks", "retrieval", "--set", "training.samples=320"]


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
    assert bench("run", *QUICK, "--track", "tensorboard") == 0
    assert len(list(folder.iterdir())) == 1


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


def test_the_page_follows_a_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on is played: what its record says changes while the watch sleeps."""
    assert bench("watch") == 2
    assert bench.err.startswith("error: no run here: results/runs has no record of one")
    assert bench("run", *QUICK) == 0
    results = bench.folder / "results"
    (record,) = read_runs(results)
    assert [(work.kind, work.state, work.done) for work in record.work] == [
        ("training", "done", 1),
        ("evaluation", "done", 1),
    ]
    assert all(work.estimated for work in record.work)
    assert bench("watch", "--once") == 0
    assert "ended at" in bench.out
    assert "- done: 1 training and 1 evaluation, in" in bench.out
    pages: list[int] = []
    write = Results.open(results).store

    def play(**changes: object) -> None:
        fields = {"updated": time.time(), **changes}
        (results / "runs" / f"{record.id}.json").write_text(record.model_copy(update=fields).model_dump_json())

    def written() -> int:
        return (results / "report" / "report.md").stat().st_mtime_ns

    left = record.work[0].model_copy(update={"state": "running", "done": 0, "share": 0.5, "seconds": 30.0})
    running = {"state": "running", "ended": None, "process": os.getpid(), "work": [left]}
    gone = subprocess.Popen(["true"])
    gone.wait()
    scenes: list[Callable[[], None]] = [
        # Progress alone: the page stays.
        lambda: play(**running, doing="step 8"),
        # The training is done: the page is due, but writing must not take more than a share of the time.
        lambda: play(**running | {"work": record.work}),
        lambda: play(**running | {"work": record.work, "process": gone.pid}),
    ]

    def sleep(seconds: float) -> None:
        assert seconds == 7
        pages.append(written())
        scenes.pop(0)()

    monkeypatch.setattr(watch.time, "sleep", sleep)
    monkeypatch.setattr(watch, "SHARE", 1e-9)
    play(**running, doing="step 7")
    assert bench("watch", "--every", "7") == 1
    pages.append(written())
    assert pages[0] == pages[1] == pages[2] < pages[3]
    shown = bench.out
    assert shown.index("- now: step 7") < shown.index("- now: step 8") < shown.index(f"(process\n{gone.pid} is gone)")
    assert "left: 1 training (clip seed 0)" in shown
    report = (results / "report" / "report.md").read_text()
    assert "stopped without saying so at" in report
    assert bench("report") == 0
    assert bench.out.startswith("Run of suite suite with small on cpu stopped without saying so at")
    assert write.rows().equals(bench.rows())
    assert RunRecord.model_validate(record.model_dump()) == record
