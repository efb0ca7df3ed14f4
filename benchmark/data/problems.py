"""Bad rows of a dataset: stop at the first one, or count them and continue."""

from collections import Counter
from typing import Literal

from benchmark.common.errors import BenchError

LONGEST = 600
"""The most characters of a message: a cell can hold any number."""

OnBadData = Literal["error", "skip"]


class BadRow(Exception):
    """A row that cannot be used.

    reason: a few words, the same for all rows with the same problem. message: the value in the row, and what was
    expected.
    """

    def __init__(self, reason: str, message: str) -> None:
        if len(message) > LONGEST:
            message = f"{message[: LONGEST // 2]}...{message[-LONGEST // 2 :]}"
        super().__init__(message)
        self.reason = reason
        self.message = message


class Problems:
    """The bad rows met in one pass over the data: the message of the first, and the number of each reason.

    remarks: what is worth knowing about rows that are used, with their number.
    """

    def __init__(self) -> None:
        self.first: str | None = None
        self.counts: Counter[str] = Counter()
        self.remarks: Counter[str] = Counter()

    def add(self, place: str, bad: BadRow) -> None:
        """Record a bad row that was read at ``place``."""
        self.first = self.first or f"{place}: {bad.message}"
        self.counts[bad.reason] += 1

    def remark(self, about: str, count: int) -> None:
        """Record something about rows that are used."""
        self.remarks[about] += count

    def stop(self, on_bad_data: OnBadData) -> None:
        """Raise ``BenchError`` for the first bad row, if there is one and bad rows are errors."""
        if on_bad_data == "error" and self.first:
            raise BenchError(self.first + summary(self.counts))


def summary(counts: Counter[str]) -> str:
    """The second line of an error that concerns more than one row, else an empty string."""
    if counts.total() < 2:
        return ""
    reasons = ", ".join(f"{reason}: {count}" for reason, count in counts.most_common())
    return f"\n{counts.total()} rows are bad ({reasons}); pass --on-bad-data skip to leave them out"
