"""What a run is doing: running, done, failed and left with time to go, from its record."""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime

from benchmark.common.errors import listed, plural
from benchmark.common.progress import duration
from benchmark.report.render import Answer, Sentence
from benchmark.store.live import Kind, RunRecord, Work, current

MOST_FAILURES, MOST_WARNINGS = 5, 20
"""The most failures and warnings that are told; run.log has all."""
IN_THE_LOG = "see run.log in the results folder"


def progress(records: Sequence[RunRecord], now: float | None = None) -> Iterator[Answer]:
    """Tell what the runs that are going on are doing, or how the last one ended. now: seconds since 1970."""
    now = time.time() if now is None else now
    for record in current(records):
        yield Answer(headline(record, now), [*findings(record)])


def unfinished(records: Sequence[RunRecord], now: float | None = None) -> Iterator[Answer]:
    """Tell the same for a report, unless the last run ended as it should.

    Messages of errors are left out: they may quote data that must not leave the machine.
    """
    now = time.time() if now is None else now
    runs = current(records)
    if any(record.state != "done" for record in runs):
        for record in runs:
            yield Answer(headline(record, now, quoted=False), [*findings(record, quoted=False)])


def remarks(records: Sequence[RunRecord]) -> Iterator[Sentence]:
    """List what the runs warned of and left out, each once; what failed in how many.

    Without the texts of errors, which may quote data.
    """
    said = dict.fromkeys(warning for record in records for warning in record.warnings)
    yield from (Sentence(f"Warning: {warning}", page_only=True) for warning in list(said)[:MOST_WARNINGS])
    if len(said) > MOST_WARNINGS:
        yield Sentence(f"{plural(len(said) - MOST_WARNINGS, 'more warning')}: {IN_THE_LOG}", page_only=True)
    left_out, failures = (sum(len(getattr(record, name)) for record in records) for name in ("left_out", "failures"))
    if left_out:
        yield Sentence(f"Left out: {plural(left_out, 'dataset')}, {IN_THE_LOG}.", page_only=True)
    if failures:
        yield Sentence(f"Failed in the runs so far: {plural(failures, 'time')}, {IN_THE_LOG}.", page_only=True)


def headline(record: RunRecord, now: float, quoted: bool = True) -> str:
    """Say in a sentence whether a run goes on, for how long, or when and how it ended. quoted: with the error."""
    run = f"Run of suite {record.suite} with {record.model} on {record.device}"
    again = "; the same command resumes it"
    if record.lost:
        return f"{run} stopped without saying so at {clock(record.updated, now)} ({record.lost}){again}."
    if record.state == "running":
        left = seconds_left(record)
        to_go = "time left unknown" if left is None else f"about {duration(left)} left"
        since = f"running for {duration(record.updated - record.started)}, {to_go}"
        return f"{run}, at {clock(record.updated, now)}: {since} (process {record.process} on {record.host})."
    ended = record.updated if record.ended is None else record.ended
    when = f"at {clock(ended, now)}, after {duration(ended - record.started)}"
    if record.state == "interrupted":
        return f"{run} was interrupted {when}{again}."
    if record.reason:
        return f"{run} stopped {when}: {record.reason if quoted else IN_THE_LOG}"
    failed = f", with {plural(len(record.failures), 'failure')}" if record.failures else ""
    return f"{run} ended {when}{failed}."


def findings(record: RunRecord, quoted: bool = True) -> Iterator[str]:
    """Say what is running, done, failed and left of a run, a sentence each. quoted: with messages of errors."""
    trainings, evaluations = of_kind(record, "training"), of_kind(record, "evaluation")
    is_open = record.is_going
    if is_open and record.doing:
        yield f"now: {record.doing}"
    done = sum(work.done for work in trainings), sum(work.done for work in evaluations)
    took = sum(work.seconds for work in record.work)
    if any(done):
        yield f"done: {plural(done[0], 'training')} and {plural(done[1], 'evaluation')}, in {duration(took)}"
    failed = sum(work.state == "failed" for work in trainings), sum(work.failed for work in evaluations)
    if any(failed):
        yield f"failed: {plural(failed[0], 'training')} and {plural(failed[1], 'evaluation')}"
    shown = record.failures[: MOST_FAILURES if quoted else 0]
    yield from shown
    if more := len(record.failures) - len(shown):
        yield f"{plural(more, 'more failure' if shown else 'failure')}: {IN_THE_LOG}"
    waiting = [work for work in trainings if work.state in ("queued", "running")]
    left = sum(rest(work) for work in evaluations if work.state in ("queued", "running"))
    if waiting or left:
        names = f" ({listed(work.name for work in waiting)})" if waiting else ""
        yield f"left: {plural(len(waiting), 'training')}{names} and {plural(left, 'evaluation')}"
    lost = sum(rest(work) for work in evaluations if work.state in ("failed", "left out"))
    if lost:
        yield f"left out: {plural(lost, 'evaluation')} of what failed"
    if quoted:
        yield from (f"left out: {reason}" for reason in record.left_out)
    elif record.left_out:
        yield f"left out: {plural(len(record.left_out), 'dataset')}, {IN_THE_LOG}"


def of_kind(record: RunRecord, kind: Kind) -> list[Work]:
    """List the trainings or the evaluations of a run."""
    return [work for work in record.work if work.kind == kind]


def rest(work: Work) -> int:
    """Return how many of a cell's evaluations are neither done nor failed."""
    return work.total - work.done - work.failed


def seconds_left(record: RunRecord) -> float | None:
    """Estimate the seconds until a run is done; None if nothing tells how long the rest takes.

    What is left is scaled by how long the work of the same arm took against its estimate; else all work of its kind.
    """
    left = 0.0
    for kind in ("training", "evaluation"):
        every = of_kind(record, kind)
        known = all(work.estimated for work in every)
        for work in every:
            if work.state not in ("queued", "running"):
                continue
            same = [other for other in every if other.arm == work.arm]
            scale = pace(same, known) or pace(every, known) or (1.0 if known else None)
            if scale is None:
                return None
            left += _weight(work, known) * (1 - work.share) * scale
    return left


def pace(works: Sequence[Work], estimated: bool) -> float | None:
    """Return the seconds that work took, for each that was estimated, or for each part; None if none was measured."""
    measured = [work for work in works if work.seconds > 0 and work.share > work.before]
    expected = sum(_weight(work, estimated) * (work.share - work.before) for work in measured)
    return sum(work.seconds for work in measured) / expected if expected else None


def _weight(work: Work, estimated: bool) -> float:
    return (work.estimated or 0.0) if estimated else float(work.total)


def clock(at: float, now: float) -> str:
    """Write a time as 14:03, with the date where it is another day's."""
    time_of, today = datetime.fromtimestamp(at), datetime.fromtimestamp(now)
    return f"{time_of:%H:%M}" if time_of.date() == today.date() else f"{time_of:%Y-%m-%d %H:%M}"
