"""Records of a table that are made by column, many at once, where their cells need no more than a look.

They are those that RowReader makes of each row. A row with anything else in it is left to RowReader itself, so that
what is read and what is said of bad rows is the same.
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmark.data.canonical import ABSENT, identifier
from benchmark.data.problems import BadRow, Problems
from benchmark.data.record_tables import IMAGE, as_table, schema
from benchmark.data.records import LISTS, Classes, Row, place
from benchmark.data.sources.chunks import Cells, Chunk
from benchmark.data.sources.table import RowReader, Table, TableSource
from benchmark.data.sources.values import MAX_TEXT, check_length, check_no_nul, check_unicode, keys_in, texts

T = TypeVar("T")

PATH = r"^[A-Za-z0-9_-][A-Za-z0-9_. +-]*(/[A-Za-z0-9_-][A-Za-z0-9_. +-]*)*$"
"""Paths that relative_path() leaves as they are."""
NAME = r"^([A-Za-z_][ -~]*|[0-9]+([A-DF-Za-df-z_][ -~]*)?)$"
"""Names that identifier() leaves as they are, but for words of ABSENT and of BOOLEANS."""
BOOLEANS = ("true", "false")
TEXT = r"^([!\"#$%&'*-Z\\\]-`b-z|}~]|a[^r\x00])[^\x00]{8,}$"
"""Texts that texts() leaves as they are: too long for a word of ABSENT, and no beginning of a list or an object."""
ENDS = r"[!-~]$"
"""The end of a text without spaces around it."""


class EncodedImageError(Exception):
    """A table holds images themselves, which are read row by row."""


def suits(source: TableSource) -> bool:
    """Whether the rows of a card can be read by column: each value of a record comes from one column, by itself."""
    columns = source.columns
    named = (columns.image, columns.id, columns.group, columns.text, columns.text_id)
    of_many = (source.text_file, source.find, source.one_per, source.extract, columns.question, columns.answer_type)
    return (
        source.in_chunks()
        and not any(of_many)
        and not columns.question_type
        and not any("{" in template for template in columns.templates.values())
        and not any(name in source.values for name in named)
        and not source.shares_images()
    )


def read(source: TableSource, classes: Classes, problems: Problems) -> Generator[pa.Table, None, None]:
    """Read the rows of all tables, in order, as tables of records with their ``split``.

    Records are not gathered, and no split is drawn. Bad rows are added to ``problems``. Raises ``BenchError`` as
    ``source.rows()`` does, and ``EncodedImageError``. source: one that suits.
    """
    reader = ColumnReader(source, classes, problems)
    for table in source.tables(problems):
        for chunk in table.chunks or ():
            yield reader(table, chunk)
        source.check_read(table, problems)


@dataclass(frozen=True)
class _Made:
    """Values of a record, one for each row of a chunk. apart: the places of those that RowReader must read."""

    values: Any
    apart: list[int]


class ColumnReader:
    """Makes a table of records of each chunk of a table, with their ``split``. problems: for bad rows."""

    def __init__(self, source: TableSource, classes: Classes, problems: Problems) -> None:
        self.problems = problems
        self._columns = source.columns
        self._prefixes = [source.strip_prefix, source.strip_prefix.replace("/", "\\")] if source.strip_prefix else []
        self._read = RowReader(source, classes)
        self._conditions = sorted({*source.where, *source.where_not})
        self._replaced = sorted(source.values)
        label = source.columns.label
        self._of_label = [label] if isinstance(label, str) else [*source.columns.label_columns.values()]
        fields = schema(classes.multi_label)
        self._schema = fields.append(pa.field("split", pa.string()))

    def __call__(self, table: Table, chunk: Chunk) -> pa.Table:
        """The records of a chunk, in order, without bad rows and those that the card leaves out."""
        rows, apart = self._plain(table, chunk)
        read = [(at, row) for at in apart if (row := self._row(table, chunk, at)) is not None]
        if not read:
            return rows.select(self._schema.names)
        others = as_table([row for _, row in read], self._schema)
        order = np.argsort(np.concatenate([rows["at"].to_numpy(), [at for at, _ in read]]), kind="stable")
        return pa.concat_tables([rows.select(self._schema.names), others]).take(order)

    def _row(self, table: Table, chunk: Chunk, at: int) -> Row | None:
        number = chunk.numbers[at]
        try:
            row = self._read(table.name, number, chunk.values(at), table.split)
        except BadRow as bad:
            self.problems.add(place(table.name, number), bad)
            return None
        if row is not None and isinstance(row.image, bytes):
            raise EncodedImageError
        return row

    def _plain(self, table: Table, chunk: Chunk) -> tuple[pa.Table, list[int]]:
        """The records that are made by column, with ``at``, their places in the chunk; and the places of the others."""
        count, columns = len(chunk.numbers), self._columns
        cells = {**chunk.columns}
        if "split" not in cells:
            cells["split"] = [table.split] * count
        names = {columns.image, columns.id, columns.group, columns.text, columns.text_id, columns.split}
        names |= {*self._conditions, *self._replaced, *self._of_label}
        complete = all(name in cells for name in names if name) and all(map(str.isascii, cells))
        if len(chunk.apart) == count or not complete:
            return self._schema.append(pa.field("at", pa.int64())).empty_table(), [*range(count)]

        image = self._names(cells[columns.image], PATH, self._image, self._without_prefix)
        made = [image]
        keys = {"id": image.values, "group": image.values}
        for key in keys:
            if column := getattr(columns, key):
                named = self._names(cells[column], NAME, lambda value: _checked(identifier(value)))
                made.append(named)
                keys[key] = pc.if_else(pc.equal(named.values, ""), image.values, named.values)
        lists: dict[str, Any] = {}
        if columns.text:
            made.append(self._lists(cells[columns.text], TEXT, self._texts))
            lists["text"] = made[-1].values
        if columns.text_id:
            made.append(self._lists(cells[columns.text_id], NAME, self._text_ids))
            lists["text_id"] = made[-1].values
        label = self._coded(cells, self._of_label, count, self._read.label)
        split = self._coded(
            cells, list(filter(None, [columns.split])), count, lambda v: self._read.split(v, table.split)
        )
        wanted = self._coded(cells, self._conditions, count, lambda values: self._read.wants(values))
        replaced = self._coded(cells, self._replaced, count, lambda values: True)
        made += [label, split, wanted, replaced]

        apart = {*chunk.apart, *(at for each in made for at in each.apart)}
        if "text_id" in lists:
            lengths = [pc.list_value_length(lists[name]) for name in ("text", "text_id")]
            apart.update(np.flatnonzero(pc.not_equal(*lengths).to_numpy(zero_copy_only=False)).tolist())
        if "split" in chunk.columns and "split" in names:
            # A row of JSON without it has that of the table.
            apart.update(at for at, cell in enumerate(_listed(cells["split"])) if cell is None)
        if any(value is None for value in label.values[0]):
            apart.update(np.flatnonzero(np.array([each is None for each in label.values[0]])[label.values[1]]).tolist())
        keep = np.array(wanted.values[0], dtype=bool)[wanted.values[1]]
        keep[[*apart]] = False
        empty = pa.ListArray.from_arrays(np.zeros(count + 1, np.int32), pa.array([], pa.string()))
        arrays = {
            **keys,
            "image": pa.StructArray.from_arrays([pa.nulls(count, pa.binary()), image.values], fields=[*IMAGE]),
            "label": _decoded(label, self._schema.field("label").type),
            **{name: lists.get(name, empty) for name in LISTS},
            "file": pa.array([table.name]).take(np.zeros(count, np.int64)),
            "row": pa.array(chunk.numbers, pa.int64()),
            "split": _decoded(split, pa.string()),
            "at": pa.array(np.arange(count)),
        }
        rows = pa.table({name: arrays[name] for name in (*self._schema.names, "at")})
        return (rows if keep.all() else rows.filter(pa.array(keep))), sorted(apart)

    def _image(self, value: Any) -> str:
        path = self._read.image({self._columns.image: value})
        if isinstance(path, bytes):
            raise BadRow("", "")
        return _checked(path)

    def _texts(self, value: Any) -> list[str]:
        every = texts(value)
        if not every or "" in every:
            raise BadRow("", "")
        return [_checked(text) for text in every]

    def _text_ids(self, value: Any) -> list[str]:
        every = keys_in(value)
        if not every or "" in every:
            raise BadRow("", "")
        for each in every:
            check_unicode(each)
        return every

    def _without_prefix(self, paths: pa.StringArray) -> pa.StringArray:
        for prefix in self._prefixes:
            rest = pc.utf8_slice_codeunits(paths, len(prefix))
            paths = pc.if_else(pc.starts_with(paths, prefix), rest, paths)
        return paths

    def _names(
        self,
        cells: Cells,
        pattern: str,
        function: Callable[[Any], str],
        before: Callable[[pa.StringArray], pa.StringArray] = lambda values: values,
    ) -> _Made:
        """Texts, of cells of which ``function`` makes one. before: what it does to those that match the pattern."""
        written = _written(cells)
        values = None if written is None else before(written)
        others = _unlike(values, pattern) if values is not None else range(len(cells))
        if not len(others):
            return _Made(values, [])
        made = _listed(cells if values is None else values)
        apart = _fill(made, cells, others, function, "")
        return _Made(pa.array(made, pa.string()), apart)

    def _lists(self, cells: Cells, pattern: str, function: Callable[[Any], list[str]]) -> _Made:
        """Lists of texts, of cells of which ``function`` makes lists."""
        values = _written(cells)
        others = _unlike(values, pattern) if values is not None else range(len(cells))
        if not len(others):
            return _Made(_single(values), [])
        made = [[value] for value in _listed(cells if values is None else values)]
        apart = _fill(made, cells, others, function, [""])
        return _Made(pa.array(made, pa.list_(pa.string())), apart)

    def _coded(
        self, cells: dict[str, Cells], names: list[str], count: int, function: Callable[[dict[str, Any]], Any]
    ) -> _Made:
        """What ``function`` makes of some columns, called once for each value: a list, and for each row its place."""
        columns = []
        for name in names:
            distinct = _distinct(cells[name])
            if distinct is None:
                return _Made(([None], np.zeros(count, np.int64)), [*range(count)])
            columns.append(distinct)
        of_row = np.zeros(count, dtype=np.int64)
        combinations: list[tuple[Any, ...]] = [()]
        for values, places in columns:
            # Renumbered each time, so that numbers stay small.
            numbers, of_row = np.unique(of_row * len(values) + places, return_inverse=True)
            combinations = [(*combinations[n // len(values)], values[n % len(values)]) for n in numbers.tolist()]
        made: list[Any] = []
        bad = []
        for combination in combinations:
            try:
                cell = {name: self._read.replaced(name, value) for name, value in zip(names, combination)}
                made.append(function(cell))
            except BadRow:
                bad.append(len(made))
                made.append(None)
        return _Made((made, of_row), np.flatnonzero(np.isin(of_row, bad)).tolist() if bad else [])


def _fill(made: list[T], cells: Cells, others: Iterable[int], function: Callable[[Any], T], empty: T) -> list[int]:
    """Put what ``function`` makes of some cells into their places; return the places of those that are bad rows.

    empty: what stands for these.
    """
    raw, apart = _listed(cells), []
    for at in map(int, others):
        try:
            made[at] = function(raw[at])
        except BadRow:
            made[at] = empty
            apart.append(at)
    return apart


def _checked(text: str) -> str:
    check_no_nul(text)
    check_length(text)
    check_unicode(text)
    return text


def _decoded(made: _Made, kind: pa.DataType) -> pa.Array:
    values, of_row = made.values
    return pa.array(values, kind).take(pa.array(of_row))


def _single(texts: pa.StringArray) -> pa.ListArray:
    """Lists of one text each."""
    return pa.ListArray.from_arrays(np.arange(len(texts) + 1, dtype=np.int32), texts)


def _listed(cells: Cells) -> list[Any]:
    return cells.to_pylist() if isinstance(cells, pa.Array) else [*cells]


def _written(cells: Cells) -> pa.StringArray | None:
    """Cells that are all texts, or all whole numbers, as an array of texts; None for others."""
    if not isinstance(cells, pa.Array):
        if set(map(type, cells)) != {str}:
            return None
        try:
            array = pa.array(cells, pa.string())
        except UnicodeEncodeError:  # it holds half of a surrogate pair
            return None
        return array if isinstance(array, pa.StringArray) else None  # of 2 GB, it is in several arrays
    kinds = pa.types
    kind = cells.type.value_type if kinds.is_dictionary(cells.type) else cells.type
    if not (kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_integer(kind)):
        return None
    return cells if kinds.is_string(cells.type) else cells.cast(pa.string())


def _unlike(texts: pa.StringArray, pattern: str) -> np.ndarray:
    """The places of the texts that do not match a pattern, have spaces around them, are long, or a word of ABSENT."""
    like = pc.and_(pc.match_substring_regex(texts, pattern), pc.match_substring_regex(texts, ENDS))
    like = pc.and_(like, pc.less_equal(pc.binary_length(texts), MAX_TEXT))
    if pattern == NAME:
        like = pc.and_not(like, pc.is_in(pc.ascii_lower(texts), pa.array([*ABSENT, *BOOLEANS])))
    return np.flatnonzero(~pc.fill_null(like, False).to_numpy(zero_copy_only=False))


def _distinct(cells: Cells) -> tuple[list[Any], np.ndarray] | None:
    """The different values of a column, and for each row the place of its value; None where they cannot be told apart.

    1, 1.0 and True are different values.
    """
    array = cells if isinstance(cells, pa.Array) else _written(cells)
    if array is not None:
        try:
            coded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
        except pa.ArrowNotImplementedError:
            return None
        values = coded.dictionary.to_pylist()
        return [*values, None], pc.fill_null(coded.indices, len(values)).to_numpy().astype(np.int64)
    places: dict[tuple[type, Any], int] = {}
    try:
        codes = [places.setdefault((type(cell), cell), len(places)) for cell in cells]
    except TypeError:
        return None
    return [value for _, value in places], np.array(codes, dtype=np.int64)
