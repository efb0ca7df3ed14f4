"""`bench watch`: follow a run that goes on in another process."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark.cli.options import Results, console, folder_of
from benchmark.common.errors import BenchError

if TYPE_CHECKING:
    from benchmark.store.live import RunRecord

SHARE = 0.1
"""The most of the time that writing the page takes: it must not slow the run down."""


def watch(
    results: Results = None,
    every: Annotated[float, typer.Option(min=1, help="Seconds between two looks.")] = 30,
    once: Annotated[bool, typer.Option("--once", help="Look once, write the page, and end.")] = False,
    reference: Annotated[str | None, typer.Option(help="As of bench report.")] = None,
    no_images: Annotated[bool, typer.Option("--no-images", help="As of bench report.")] = False,
) -> None:
    """Show what a run in another process is doing, and keep its report page up to date.

    Tells what is running, done, failed and left, with the time to go. Writes the report again whenever a training or an
    evaluation has ended. Ends with the run: with status 1 if something failed or the run stopped before its end.
    """
    step_back()
    from rich.live import Live
    from rich.text import Text

    from benchmark.report.live import progress
    from benchmark.report.page import answer_text
    from benchmark.store.live import current, read_runs

    folder = folder_of(results)
    page, last = _Page(folder, reference, not no_images), ""
    with Live(console=console, auto_refresh=False) as screen:
        while True:
            records = read_runs(folder)
            if not records:
                raise BenchError(f"no run here: {folder / 'runs'} has no record of one; start bench run first")
            runs = current(records)
            goes_on = any(run.is_going for run in runs)
            page.update(runs, last=once or not goes_on)
            shown = "\n\n".join(answer_text(each, console.width) for each in progress(records))
            shown += f"\n\n{page.note}"
            if console.is_terminal:
                screen.update(Text(shown), refresh=True)
            elif shown != last:
                console.print(shown, highlight=False, markup=False, soft_wrap=True)
            last = shown
            if once or not goes_on:
                break
            time.sleep(every)
    if not goes_on and any(run.state != "done" for run in runs):
        raise typer.Exit(1)


def step_back() -> None:
    """Leave the processor to the run: low priority, and one thread where libraries would take all cores."""
    # The libraries read it when they are imported: the page's maps would else hold up the run, and themselves.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if hasattr(os, "nice"):
        os.nice(10)


class _Page:
    """The report, written again when a result came in or the state of a run has changed. note: where it is, or why not.

    Writing takes at most ``SHARE`` of the time; the last one is always written.
    """

    def __init__(self, folder: Path, reference: str | None, images: bool) -> None:
        self.folder, self.reference, self.images = folder, reference, images
        self.note = "no result yet: the page comes with the first"
        self._written: object = None
        self._next = 0.0

    def update(self, runs: "Sequence[RunRecord]", last: bool) -> None:
        """Write the report if it is due. last: whether this is the last time."""
        from rich.console import Console

        from benchmark.api import write_report
        from benchmark.store.store import Store

        state = [
            (run.id, run.state, run.lost, [(work.state, work.done, work.failed) for work in run.work]) for run in runs
        ]
        if state == self._written or (time.monotonic() < self._next and not last):
            return
        began, store = time.monotonic(), Store(self.folder)
        if store.rows().empty:
            return
        try:
            files = write_report(store, None, self.reference, Console(quiet=True), images=self.images)
        except BenchError as error:
            # The reference, say, has no results yet.
            self.note = f"no page yet: {error}"
            return
        self._written = state
        self._next = time.monotonic() + (time.monotonic() - began) / SHARE
        path = next((path for path in files if path.suffix == ".html"), files[0])
        self.note = f"page, written at {time.strftime('%H:%M:%S')}: {path}"
