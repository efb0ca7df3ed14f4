"""The record of a run: what another process reads while it goes on, and how the run ended."""

import os
import platform
import subprocess
import time
from pathlib import Path

import pytest

from benchmark.common.errors import BenchError
from benchmark.store import live
from benchmark.store.claim import DEAD
from benchmark.store.live import KEPT, Recorder, RunRecord, Work, current, read_runs


def recorder(folder: Path) -> Recorder:
    return Recorder(folder, "demo", "tiny", "cpu")


def works() -> list[Work]:
    return [
        Work(cell="a", name="clip seed 0", arm="clip", kind="training", estimated=10.0),
        Work(cell="a", name="clip seed 0", arm="clip", kind="evaluation", total=3),
    ]


def record(**fields: object) -> RunRecord:
    now = time.time()
    known = {"id": "x", "suite": "demo", "model": "tiny", "device": "cpu", "host": platform.node()}
    return RunRecord.model_validate(known | {"process": os.getpid(), "started": now, "updated": now} | fields)


def test_another_process_sees_each_state(tmp_path: Path) -> None:
    def states() -> list[tuple[str, str, int, int]]:
        (run,) = read_runs(tmp_path)
        return [(run.state, work.state, work.done, work.failed) for work in run.work]

    with recorder(tmp_path) as run:
        run.set_work(works())
        assert states() == [("running", "queued", 0, 0)] * 2
        with run.running("a", "training") as training:
            assert states()[0] == ("running", "running", 0, 0)
            run.step(training, 1, 4)
            run.step(training, 3, 4)
            assert (training.before, training.share) == (0.25, 0.75)
        assert states()[0] == ("running", "done", 1, 0)
        with run.running("a", "evaluation") as evaluation:
            run.evaluated(evaluation, failed=False)
            assert states()[1] == ("running", "running", 1, 0)
            run.evaluated(evaluation, failed=True)
            run.fail("retrieval on squares: broken")
            assert evaluation.share == pytest.approx(2 / 3)
            run.evaluated(evaluation, failed=False)
        run.leave_out("cxr: not here")
    assert states() == [("failed", "done", 1, 0), ("failed", "failed", 2, 1)]
    (run_record,) = read_runs(tmp_path)
    assert run_record.failures == ["retrieval on squares: broken"]
    assert run_record.left_out == ["cxr: not here"]
    assert run_record.process == os.getpid()
    assert run_record.started <= run_record.ended <= time.time()  # type: ignore[operator]


def test_evaluations_of_a_training_that_failed_are_left_out(tmp_path: Path) -> None:
    with recorder(tmp_path) as run:
        run.set_work(works())
        with pytest.raises(BenchError), run.running("a", "training"):
            raise BenchError("the loss is nan")
    training, evaluation = read_runs(tmp_path)[0].work
    assert (training.state, training.reason) == ("failed", "the loss is nan")
    assert (evaluation.state, evaluation.reason) == ("left out", "the training failed")


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [(KeyboardInterrupt(), "interrupted", ""), (BenchError("no data"), "failed", "no data"), (None, "done", "")],
)
def test_the_end_is_told(tmp_path: Path, error: BaseException | None, state: str, reason: str) -> None:
    def work() -> None:
        with recorder(tmp_path) as run:
            run.set_work(works())
            with run.running("a", "training"):
                if error:
                    raise error

    if error:
        with pytest.raises(type(error)):
            work()
    else:
        work()
    (run,) = read_runs(tmp_path)
    assert (run.state, run.reason) == (state, reason)
    assert run.why_lost(time.time()) == ""
    if state == "interrupted":
        assert run.work[0].state == "queued"


def test_the_record_beats_while_nothing_else_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "BEAT", 0.01)
    said = iter(f"step {number}" for number in range(10_000))
    with Recorder(tmp_path, "demo", "tiny", "cpu", doing=lambda: next(said)):
        first = read_runs(tmp_path)[0]
        until = time.monotonic() + 5
        while read_runs(tmp_path)[0].doing == first.doing and time.monotonic() < until:
            time.sleep(0.01)
        later = read_runs(tmp_path)[0]
    assert later.updated > first.updated
    assert later.doing != first.doing
    assert read_runs(tmp_path)[0].doing == ""


def test_a_dead_run_is_told_from_a_live_one() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    now = time.time()
    assert record().why_lost(now) == ""
    assert record(process=gone.pid).why_lost(now) == f"process {gone.pid} is gone"
    assert record(process=gone.pid, state="interrupted").why_lost(now) == ""
    # Another machine's processes cannot be seen from here: what counts is when it last wrote.
    away = {"host": "elsewhere", "process": gone.pid}
    assert record(**away).why_lost(now) == ""
    silent = record(**away, updated=now - DEAD - 1).why_lost(now)
    assert silent == f"process {gone.pid} on elsewhere has not written since"
    # A process that hangs or is suspended.
    assert record(updated=now - DEAD - 1).why_lost(now) != ""


def test_runs_that_go_on_come_before_the_last_one() -> None:
    now = time.time()
    old, ended = record(id="old", started=now - 9), record(id="ended", state="done", started=now)
    assert [run.id for run in current([old, ended])] == ["old"]
    assert [run.id for run in current([record(id="first", state="done"), ended])] == ["ended"]
    assert current([]) == []


def test_only_some_records_are_kept_and_unreadable_ones_are_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    for number in range(KEPT + 5):
        of = record(id=f"{number:03}", state="done", started=1000.0 + number)
        (folder / f"{of.id}.json").write_text(of.model_dump_json())
    (folder / "cut.json").write_text('{"id": ')
    with recorder(tmp_path) as run:
        kept = [of.id for of in read_runs(tmp_path)]
    assert kept == [*(f"{number:03}" for number in range(5, KEPT + 5)), run.record.id]


def test_a_record_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    said: list[str] = []
    with Recorder(tmp_path, "demo", "tiny", "cpu", say=said.append) as run:
        run.set_work(works())
        run.set_work(works())
    assert len(said) == 1
    assert "bench watch does not see this run" in said[0]


def test_a_message_that_is_no_text_is_recorded(tmp_path: Path) -> None:
    with recorder(tmp_path) as run:
        run.fail("image x-ray-" + os.fsdecode(b"\xff") + ".png: cannot be read")
        run.write()
    assert read_runs(tmp_path)[0].failures == ["image x-ray-?.png: cannot be read"]


def test_a_run_that_ends_between_two_looks_is_not_called_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its record is read while it runs, and its process is looked for when it has said its end and is gone."""
    with recorder(tmp_path) as run:
        path = tmp_path / "runs" / f"{run.record.id}.json"
        ended = run.record.model_copy(update={"state": "done"}).model_dump_json()
        monkeypatch.setattr(live, "_is_process", lambda _: path.write_text(ended) < 0)
        (seen,) = read_runs(tmp_path)
        assert (seen.state, seen.lost) == ("done", "")
        monkeypatch.setattr(live, "_is_process", lambda _: False)
        run.write()
        (seen,) = read_runs(tmp_path)
        assert (seen.state, seen.lost) == ("running", f"process {os.getpid()} is gone")
