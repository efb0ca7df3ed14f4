"""What is wrong with the rows of a dataset: stop at it, or count it and go on."""

from collections import Counter
from typing import Literal

from benchmark.common.errors import BenchError

OnBadData = Literal["error", "skip"]


class BadRow(Exception):
    """A row that cannot be used.

    reason: a few words, the same for all rows with the same trouble; message: what was found and what was expected.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Problems:
    """The bad rows that a pass over the data finds: the first one in words, all of them counted by reason."""

    def __init__(self) -> None:
        self.first: str | None = None
        self.counts: Counter[str] = Counter()

    def add(self, place: str, bad: BadRow) -> None:
        self.first = self.first or f"{place}: {bad.message}"
        self.counts[bad.reason] += 1

    def stop(self, on_bad_data: OnBadData) -> None:
        """Raise ``BenchError`` with the first one, unless there is none or they are to be skipped."""
        if on_bad_data == "error" and self.first:
            raise BenchError(self.first + summary(self.counts))


def summary(counts: Counter[str]) -> str:
    """The second line of an error about more than one row."""
    if counts.total() < 2:
        return ""
    reasons = ", ".join(f"{reason}: {count}" for reason, count in counts.most_common())
    return f"\n{counts.total()} rows are bad ({reasons}); --on-bad-data skip goes on without them"
