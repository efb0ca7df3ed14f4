"""Another table whose columns are added to the rows of a manifest."""

from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from benchmark.common.errors import BenchError, unknown
from benchmark.data.problems import Problems
from benchmark.data.sources.formats import Values, read_table
from benchmark.data.sources.values import string

Key = tuple[str | None, ...]
"""The values that rows of two tables share; None: any value."""


class Join(BaseModel):
    """Another table, whose columns are added to the rows that have the same values in the columns ``by``.

    match: further columns that must agree, where names differ: column of the manifest -> column of the other table.
    matches_all: values of these columns of the other table that agree with every value, "" where there is none: a
    finding of side B belongs to the images of both breasts.
    columns: only these of its columns are added. Rows without a partner stay as they are.
    worst: of several partners, which one counts: column -> its values, from the one that goes first; others go last.
    Without it, and of equals, the first in the table counts. ``bench data verify`` says how many rows this concerns.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Path
    by: list[str]
    match: dict[str, str] = {}
    matches_all: list[str] = []
    columns: list[str]
    worst: dict[str, list[str]] = {}

    @model_validator(mode="after")
    def _agrees(self) -> "Join":
        if self.matches_all and not self.match:
            raise ValueError("'matches_all' needs 'match'")
        if len(self.worst) > 1:
            raise ValueError(f"worst: expected one column, found {', '.join(self.worst)}")
        return self


class JoinedTable:
    """The rows of another table by what they share with those of a manifest.

    differ: the number of rows, of those that were asked for, with several partners whose added columns differ.
    """

    def __init__(self, join: Join, path: Path) -> None:
        self.join, self.path = join, path
        self.differ = 0
        self._partners: dict[Key, list[tuple[int, int, Values]]] = {}
        self._read()

    def _read(self) -> None:
        join = self.join
        columns: set[str] = set()
        problems = Problems()
        every = {string(value) for value in join.matches_all}
        column, order = next(iter(join.worst.items()), ("", []))
        places = {string(value): place for place, value in enumerate(order)}
        for number, values in read_table(self.path, problems, columns):
            matched = [string(values.get(name)) for name in join.match.values()]
            key = (*self._exact(values), *(None if value in every else value for value in matched))
            place = places.get(string(values.get(column)), len(places))
            added = {name: values.get(name) for name in join.columns}
            self._partners.setdefault(key, []).append((place, number, added))
        problems.stop("error")
        for name in (*join.by, *join.match.values(), *join.columns, *join.worst):
            if name not in columns:
                raise BenchError(f"{self.path.name}: join: {unknown('column', name, columns)}")

    def _exact(self, values: Values) -> tuple[str, ...]:
        return tuple(string(values.get(name)) for name in self.join.by)

    def partner(self, values: Values) -> dict[str, Any]:
        """The columns that are added to a row with these values; none if it has no partner."""
        exact = self._exact(values)
        options = product(*((string(values.get(name)), None) for name in self.join.match))
        partners = sorted(
            (found for option in options for found in self._partners.get((*exact, *option), ())),
            key=lambda partner: partner[:2],
        )
        if not partners:
            return {}
        self.differ += any(added != partners[0][2] for _, _, added in partners)
        return partners[0][2]
