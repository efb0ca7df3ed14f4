"""Rows of a table that follow one another, by column and one by one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

from benchmark.data.problems import BadRow
from benchmark.data.sources.text_files import check_utf8

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 4096
"""The most rows of a chunk."""

Values = dict[str, Any]
Rows = Iterator[tuple[int, Values]]
"""Pairs of a row's number in its file, counted from 1, and its values by column."""
Cells = Union[Sequence[Any], "pa.Array"]
"""The values of a column, one for each row of a chunk."""


@dataclass(frozen=True)
class Chunk:
    """Some rows of a table.

    numbers: of the rows in their file. columns: the values of those columns that can be read as a whole.
    values: returns all values of the row at a place in the chunk, or raises ``BadRow``.
    apart: the places of rows for which ``columns`` may say anything, so that they are read by ``values``.
    """

    numbers: Sequence[int]
    columns: Mapping[str, Cells]
    values: Callable[[int], Values]
    apart: Sequence[int] = ()


def chunk_of_lines(names: Sequence[str], lines: Sequence[tuple[int, list[str]]]) -> Chunk:
    """Make a chunk of the numbers and fields of CSV. names: of the columns, "" for one without."""
    numbers, fields = zip(*lines)
    uneven = [place for place, each in enumerate(fields) if len(each) != len(names)]
    even = [[*each, *names][: len(names)] for each in fields] if uneven else fields

    def values(place: int) -> Values:
        for value in fields[place]:
            check_utf8(value)
        if len(fields[place]) != len(names):
            message = f"{len(fields[place])} fields where the header has {len(names)}"
            raise BadRow("wrong number of fields", message)
        return {name: value for name, value in zip(names, fields[place]) if name}

    columns = [*zip(*even)]
    apart = {*uneven}
    for column in columns:
        if not _is_unicode("".join(column)):
            apart.update(place for place, cell in enumerate(column) if not _is_unicode(cell))
    return Chunk(numbers, {name: column for name, column in zip(names, columns) if name}, values, sorted(apart))


def _is_unicode(text: str) -> bool:
    """Whether a text has no half of a surrogate pair, which stands for a byte that is not UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def chunk_of_objects(rows: Sequence[tuple[int, Values | BadRow]]) -> Chunk:
    """Make a chunk of the numbers of rows and their values, or what is wrong with them."""
    numbers, each = zip(*rows)
    whole = [{} if isinstance(row, BadRow) else row for row in each]
    names = dict.fromkeys(name for row in whole for name in row)

    def values(place: int) -> Values:
        row: Values | BadRow = each[place]
        if isinstance(row, BadRow):
            raise row
        return row

    columns = {name: [row.get(name) for row in whole] for name in names}
    return Chunk(numbers, columns, values, [place for place, row in enumerate(each) if isinstance(row, BadRow)])
