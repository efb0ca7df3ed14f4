"""What is told of a run, and the time that it has to go."""

import os
import platform
from datetime import datetime
from typing import Any

import pytest

from benchmark.report.live import MOST_FAILURES, progress, seconds_left, unfinished
from benchmark.store.live import RunRecord, Work

NOW = datetime(2026, 3, 4, 14, 30).timestamp()


def training(arm: str, seed: int, **fields: Any) -> Work:
    return Work(cell=f"{arm}{seed}", name=f"{arm} seed {seed}", arm=arm, kind="training", **fields)


def evaluation(arm: str, seed: int, total: int, **fields: Any) -> Work:
    return Work(cell=f"{arm}{seed}", name=f"{arm} seed {seed}", arm=arm, kind="evaluation", total=total, **fields)


def run(work: list[Work], **fields: Any) -> RunRecord:
    known = {"id": "x", "suite": "demo", "model": "tiny", "device": "cpu", "host": platform.node()}
    times = {"process": os.getpid(), "started": NOW - 600, "updated": NOW}
    return RunRecord.model_validate(known | times | fields | {"work": work})


def test_time_left_scales_estimates_by_what_was_measured() -> None:
    """clip took 30 s where 10 were estimated, msd has taken 20 s for the half of 20: its rest takes 20 s more."""
    done = training("clip", 0, state="done", share=1.0, seconds=30.0, estimated=10.0)
    half = training("msd", 0, state="running", share=0.5, seconds=20.0, estimated=20.0)
    work = [done, half, training("clip", 1, estimated=12.0), training("siglip", 0, estimated=10.0)]
    # The same arm's scale (3) for clip; over all work (50 s measured of 20 s estimated) for siglip, which has none.
    assert seconds_left(run(work)) == pytest.approx(20 + 12 * 3 + 10 * 2.5)


def test_a_training_that_goes_on_is_measured_from_where_it_went_on() -> None:
    resumed = training("clip", 0, state="running", share=0.75, before=0.5, seconds=10.0, estimated=99.0)
    assert seconds_left(run([resumed])) == pytest.approx(10.0)


def test_evaluations_without_estimates_take_as_long_as_others() -> None:
    work = [evaluation("clip", 0, 4, state="running", done=2, share=0.5, seconds=6.0), evaluation("msd", 0, 10)]
    assert seconds_left(run(work)) == pytest.approx(2 * 3 + 10 * 3)


def test_nothing_is_made_up() -> None:
    assert seconds_left(run([training("clip", 0)])) is None
    assert seconds_left(run([training("clip", 0, estimated=7.0), training("msd", 0, estimated=5.0)])) == 12.0
    assert seconds_left(run([training("clip", 0, state="failed"), evaluation("clip", 0, 3, state="left out")])) == 0.0


def test_a_run_that_goes_on_is_told() -> None:
    work = [
        training("clip", 0, state="done", done=1, share=1.0, seconds=100.0, estimated=50.0),
        evaluation("clip", 0, 3, state="failed", done=2, failed=1, share=1.0, seconds=20.0),
        training("msd", 0, state="running", share=0.5, seconds=50.0, estimated=50.0),
        evaluation("msd", 0, 3),
        training("siglip", 0, state="failed"),
        evaluation("siglip", 0, 3, state="left out"),
    ]
    failures = ["clip, seed 0, vqa on squares: broken", "siglip, seed 0: the loss is nan"]
    doing = "[2/3] msd, seed 0: training: 5 of 10"
    runs = [run(work, failures=failures, doing=doing, left_out=["cxr: not here"])]
    (told,) = progress(runs, NOW)
    # msd: 50 s more; its three evaluations as long as clip's three.
    assert told.text == (
        "Run of suite demo with tiny on cpu, at 14:30: running for 10 min, about 70 s left "
        f"(process {os.getpid()} on {platform.node()})."
    )
    assert told.findings == [
        "now: [2/3] msd, seed 0: training: 5 of 10",
        "done: 1 training and 2 evaluations, in 3 min",
        "failed: 1 training and 1 evaluation",
        *failures,
        "left: 1 training (msd seed 0) and 3 evaluations",
        "left out: 3 evaluations of what failed",
        "left out: cxr: not here",
    ]
    # Errors may quote data, which a report must not.
    (reported,) = unfinished(runs, NOW)
    assert reported.text == told.text
    assert reported.findings == [
        *told.findings[:3],
        "2 failures: see run.log in the results folder",
        *told.findings[5:7],
        "left out: 1 dataset, see run.log in the results folder",
    ]


def test_many_failures_are_counted() -> None:
    (told,) = progress([run([], state="failed", ended=NOW, failures=[f"number {i}" for i in range(30)])], NOW)
    assert told.text.endswith("ended at 14:30, after 10 min, with 30 failures.")
    assert told.findings == [
        *(f"number {i}" for i in range(MOST_FAILURES)),
        "25 more failures: see run.log in the results folder",
    ]


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        (
            {"state": "interrupted", "ended": NOW},
            "was interrupted at 14:30, after 10 min; the same command resumes it.",
        ),
        ({"state": "failed", "ended": NOW, "reason": "no data"}, "stopped at 14:30, after 10 min: no data"),
        (
            {"lost": "process 123 is gone", "updated": NOW - 86400},
            "stopped without saying so at 2026-03-03 14:30 (process 123 is gone); the same command resumes it.",
        ),
    ],
)
def test_a_run_that_did_not_end_as_it_should_is_told(fields: dict[str, Any], end: str) -> None:
    runs = [run([training("clip", 0)], **fields)]
    (told,) = progress(runs, NOW)
    (reported,) = unfinished(runs, NOW)
    assert reported.text == told.text.replace("no data", "see run.log in the results folder")
    assert told.text == f"Run of suite demo with tiny on cpu {end}"
    assert told.findings == ["left: 1 training (clip seed 0) and 0 evaluations"]


def test_a_report_says_nothing_of_a_run_that_is_done() -> None:
    ended = run([training("clip", 0, state="done", done=1, seconds=3.0)], state="done", ended=NOW)
    assert [*unfinished([ended], NOW)] == []
    (told,) = progress([ended], NOW)
    assert told.findings == ["done: 1 training and 0 evaluations, in 3 s"]
    assert [*progress([], NOW)] == []
