"""Progress: bars on a terminal, lines elsewhere, everything in the log."""

import io
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from benchmark.common.errors import BenchError
from benchmark.common.progress import Progress, duration

TIMED = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d (.*\S)$")


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lines_of(work: Callable[[Progress, Clock], None], mode: str = "auto", terminal: bool = False) -> list[str]:
    out, clock = io.StringIO(), Clock()
    console = Console(file=out, width=60, force_terminal=terminal)
    with Progress(console, mode, clock=clock) as progress:
        work(progress, clock)
    return out.getvalue().split("\n")[:-1]


def train(progress: Progress, clock: Clock) -> None:
    with progress.stage("training", total=400) as stage:
        for step in range(1, 401):
            clock.now += 0.25
            stage.update(step, note=f"512 pairs/s, loss {4 - step / 100:.2f}")
    progress.print("[1/2] trained on a text that is far longer than the console is wide, and stays on one line")


def test_lines_say_what_step_of_steps_speed_loss_and_time_left() -> None:
    assert lines_of(train) == [
        "training",
        "training: 120 of 400, 512 pairs/s, loss 2.80, 70 s left",
        "training: 240 of 400, 512 pairs/s, loss 1.60, 40 s left",
        "training: 360 of 400, 512 pairs/s, loss 0.40, 10 s left",
        "training: done in 2 min",
        "[1/2] trained on a text that is far longer than the console is wide, and stays on one line",
    ]


def test_none_prints_messages_alone() -> None:
    assert [line[:13] for line in lines_of(train, "none")] == ["[1/2] trained"]


def test_bars_need_a_terminal() -> None:
    assert lines_of(train, "bars") == lines_of(train, "lines") == lines_of(train, "lines", terminal=True)
    drawn = "\n".join(lines_of(train, "auto", terminal=True))
    assert "━" in drawn
    assert "training: 120 of 400" not in drawn


def test_stages_may_nest() -> None:
    def work(progress: Progress, clock: Clock) -> None:
        with progress.stage("outer") as outer, progress.stage("inner") as inner:
            inner.update(1, 2)
            outer.update(1, 3)
            if progress._bars:
                progress._bars.refresh()

    assert lines_of(work) == ["outer", "inner", "inner: done in 0 s", "outer: done in 0 s"]
    assert "inner" in "".join(lines_of(work, terminal=True))


def test_time_left_is_measured_from_the_first_update() -> None:
    """A training that goes on at step 300 of 400 has done none of those steps now; the next split begins at 0."""

    def work(progress: Progress, clock: Clock) -> None:
        with progress.stage("work") as stage:
            stage.update(300, 400)
            clock.now += 30
            stage.update(310)
            stage.update(0, 50)
            clock.now += 30
            stage.update(30)

    assert lines_of(work)[1:3] == ["work: 310 of 400, 4 min left", "work: 30 of 50, 20 s left"]


def test_what_fails_says_when_and_the_error_is_logged(tmp_path: Path) -> None:
    log, out = tmp_path / "results" / "run.log", io.StringIO()
    clock = Clock()
    progress = Progress(Console(file=out), log=log, clock=clock)

    def fail_in_a_stage() -> None:
        with progress, progress.stage("training"):
            clock.now += 12
            raise BenchError("row 3: no image")

    with pytest.raises(BenchError, match="row 3: no image"):
        fail_in_a_stage()
    assert out.getvalue() == "training\ntraining: stopped after 12 s\n"
    assert log.read_text().splitlines()[-1].endswith(" error: row 3: no image")


@pytest.mark.parametrize("mode", ["bars", "lines", "none"])
def test_the_log_has_every_line_with_its_time_in_every_mode(tmp_path: Path, mode: str) -> None:
    log = tmp_path / "results" / "run.log"
    for _ in range(2):
        clock = Clock()
        console = Console(file=io.StringIO(), width=40, force_terminal=True, color_system="truecolor")
        with Progress(console, mode, log, clock) as progress:
            train(progress, clock)
            progress.print("\x1b[31mred\x1b[0m\n\nand [bold]more[/]", style="yellow")
            table = Table("method", title="best")
            table.add_row("[red]clip[/]")
            progress.print(table)
            assert "clip" in log.read_text()  # at once, not when the file is closed
    written = log.read_text()
    assert "\x1b" not in written
    messages = [match[1] for line in written.splitlines() if (match := TIMED.match(line))]
    assert len(messages) == len(written.splitlines())
    assert messages[:2] == ["training", "training: 120 of 400, 512 pairs/s, loss 2.80, 70 s left"]
    assert [messages.count(text) for text in ("training: done in 2 min", "red", "and [bold]more[/]")] == [2, 2, 2]


def test_a_silent_stage_is_reported_too(tmp_path: Path) -> None:
    out = io.StringIO()
    with Progress(Console(file=out), seconds_between_lines=0.05) as progress, progress.stage("one long step"):
        end = time.monotonic() + 10
        while "running" not in out.getvalue() and time.monotonic() < end:
            time.sleep(0.01)
    assert "one long step: running for 0 s\n" in out.getvalue()


def test_nothing_is_written_before_the_first_message(tmp_path: Path) -> None:
    with Progress(Console(file=io.StringIO()), log=tmp_path / "results" / "run.log"):
        pass
    assert not (tmp_path / "results").exists()


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="unknown value of --progress 'bar'; did you mean 'bars'"):
        Progress(Console(), "bar")
    (tmp_path / "results").write_text("a file")
    with pytest.raises(BenchError, match=r"run\.log: cannot be written"):
        Progress(Console(file=io.StringIO()), log=tmp_path / "results" / "run.log").print("text")


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (89, "89 s"), (91, "2 min"), (5400, "1.5 h")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
