"""Show what a command is doing: progress bars on a terminal, occasional lines elsewhere, and a log file."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from benchmark.common.errors import BenchError, MachineError, unknown
from benchmark.common.notices import listen, unlisten
from benchmark.common.text import visible

MODES = ("auto", "bars", "lines", "none")
SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Prints the messages of a command and the progress of its stages.

    mode: ``auto`` is ``bars`` on a terminal and ``lines`` elsewhere; ``none`` shows messages alone. Bars that the
    console cannot draw become lines. log: a file to which every message and line is appended, with its time, whatever
    the mode. name: of this process among several, in front of each line. clock: seconds, for tests.

    >>> with Progress(Console(), "lines", Path("results/run.log")) as progress:
    ...     with progress.stage("training", total=400) as stage:
    ...         stage.update(120, note="512 pairs/s, loss 2.31")
    ...     progress.print("trained")
    training
    training: done in 0 s
    trained

    Raises ``BenchError`` for an unknown mode and for a log that cannot be written.
    """

    def __init__(
        self,
        console: Console,
        mode: str = "auto",
        log: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        seconds_between_lines: float = SECONDS_BETWEEN_LINES,
        name: str = "",
    ) -> None:
        self._prefix = f"{name}: " if name else ""
        self.console, self.clock, self.seconds_between_lines = console, clock, seconds_between_lines
        self.mode = _drawable(mode, console)
        self.warnings: list[str] = []
        self._log_path = log
        self._log: IO[str] | None = None
        self._lock = threading.RLock()
        self._stages: list[Stage] = []
        self._bars = _bars(console) if self.mode == "bars" else None

    def __enter__(self) -> Self:
        listen(self.warn)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        unlisten(self.warn)
        if self._log:
            if isinstance(error, BenchError):
                self._write(f"error: {error}")
            elif kind:
                self._write("interrupted" if kind is KeyboardInterrupt else f"stopped: {kind.__name__}: {error}")
            self._close_log()

    def _close_log(self) -> None:
        with suppress(OSError):
            if self._log:
                self._log.close()
        self._log = None

    def print(self, message: RenderableType, style: str | None = None) -> None:
        """Print a message, or a table, in every mode. A text is printed verbatim: no markup, no added line breaks."""
        with self._lock:
            if isinstance(message, str):
                text = self._prefix + message
                self.console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
            else:
                self.console.print(message, style=style)
            self._write(message)

    def show(self, line: str) -> None:
        """Print a line of another process on the console alone: what it logs, it logs itself."""
        with self._lock:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def warn(self, message: str) -> None:
        """Print what a reader of the results should know, and keep it in ``warnings``."""
        self.warnings.append(message)
        self.print(message, style="yellow")

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator["Stage"]:
        """Show a stage of the work while the block runs. total: its steps, where they are known at the beginning."""
        stage = Stage(self, title, total)
        self._line(title)
        self._stages.append(stage)
        try:
            with self._bar_of(stage), self._reporting(stage):
                yield stage
        except BaseException:
            self._line(f"{title}: stopped after {duration(self.clock() - stage.began)}")
            raise
        finally:
            self._stages.remove(stage)
        self._line(f"{title}: done in {duration(self.clock() - stage.began)}")

    def doing(self) -> str:
        """Return the innermost stage that is open and how far it is; empty if there is none."""
        stage = next(reversed([*self._stages]), None)
        return f"{stage.title}: {stage._state(self.clock())}" if stage else ""

    def _line(self, text: str) -> None:
        """Write a line of progress: to the log, and to the console where it shows lines."""
        with self._lock:
            if self.mode == "lines":
                self.console.print(self._prefix + text, highlight=False, markup=False, soft_wrap=True)
            self._write(text)

    def _write(self, message: RenderableType) -> None:
        if self._log_path is None:
            return
        if self._log is None:
            try:
                self._log_path.parent.mkdir(parents=True, exist_ok=True)
                self._log = self._log_path.open("a", encoding="utf-8", buffering=1)
            except OSError as error:
                raise MachineError(f"{self._log_path}: cannot be written: {error.strerror}") from error
        if not isinstance(message, str):
            rendered = io.StringIO()
            Console(file=rendered, width=self.console.width, color_system=None, force_terminal=False).print(message)
            message = rendered.getvalue()
        now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        lines = visible(Text.from_ansi(message).plain).splitlines()
        try:
            self._log.writelines(f"{now} {self._prefix}{line.rstrip()}\n" for line in lines if line.strip())
        except OSError as error:
            # What is being said may be that the disk is full: the run decides what becomes of that.
            path, self._log_path = self._log_path, None
            self._close_log()
            self.print(f"{path}: cannot be written, and gets no more lines: {error.strerror}", "yellow")

    @contextmanager
    def _bar_of(self, stage: "Stage") -> Iterator[None]:
        if self._bars is None:
            yield
            return
        if len(self._stages) == 1:
            self._bars.start()
        bars = self._bars
        bar = bars.add_task(stage.title, total=stage.total, note="")
        stage.draw = lambda: bars.update(bar, completed=stage.done or 0, total=stage.total, note=stage.note)
        try:
            yield
        finally:
            bars.remove_task(bar)
            if len(self._stages) == 1:
                bars.stop()

    @contextmanager
    def _reporting(self, stage: "Stage") -> Iterator[None]:
        """Also report a stage without updates: one long step must not look like a hang."""
        ended = threading.Event()

        def report() -> None:
            while not ended.wait(self.seconds_between_lines):
                stage.report()

        thread = threading.Thread(target=report, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class Stage:
    """A stage of the work; call ``update`` as it progresses."""

    def __init__(self, progress: Progress, title: str, total: int | None) -> None:
        self.title, self.total = title, total
        self.done: int | None = None
        self.note = ""
        self.draw: Callable[[], object] = lambda: None
        self._progress = progress
        self.began = self._last_line = self._first_time = progress.clock()
        self._first_done = 0

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """Set the steps done, the total where it is known or changes, and a note such as the speed and the loss."""
        total = self.total if total is None else total
        if self.done is None or done < self.done or total != self.total:
            # The speed is measured from here: a resumed training begins late, another part of the data at 0 again.
            self._first_time, self._first_done = self._progress.clock(), done
        self.done, self.total, self.note = done, total, note
        self.draw()
        self.report()

    def report(self) -> None:
        """Print a line if the last one is old enough."""
        with self._progress._lock:
            now = self._progress.clock()
            if now - self._last_line >= self._progress.seconds_between_lines:
                self._last_line = now
                self._progress._line(f"{self.title}: {self._state(now)}")

    def _state(self, now: float) -> str:
        if self.done is None:
            return f"running for {duration(now - self.began)}"
        position = f"{self.done:,} of {self.total:,}" if self.total else f"{self.done:,}"
        parts = [position, self.note]
        steps = self.done - self._first_done
        if self.total and steps > 0:
            left = (now - self._first_time) / steps * (self.total - self.done)
            parts.append(f"{duration(left)} left")
        return ", ".join(filter(None, parts))


def duration(seconds: float) -> str:
    """A duration in its unit: 45 s, 12 min, 3.5 h, 1,200 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours = seconds / 3600
    return f"{seconds / 60:.0f} min" if hours < 1.5 else f"{hours:.1f} h" if hours < 99.95 else f"{hours:,.0f} h"


def _drawable(mode: str, console: Console) -> Literal["bars", "lines", "none"]:
    if mode not in MODES:
        raise unknown("value of --progress", mode, MODES)
    if mode == "none":
        return "none"
    draws = console.is_terminal or (mode == "bars" and console.is_jupyter)
    return "bars" if mode != "lines" and draws else "lines"


def _bars(console: Console) -> Bars:
    return Bars(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
