"""Files that hold a table, read row by row: CSV, JSON, Parquet, Excel."""

import csv
import json
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from zipfile import ZipFile

from benchmark.common.errors import BenchError, cut, reading_failed
from benchmark.common.hub import one_line
from benchmark.data.problems import BadRow, Problems
from benchmark.data.records import place
from benchmark.data.sources.chunks import ROWS, Chunk, Rows, Values, chunk_of_lines, chunk_of_objects
from benchmark.data.sources.class_names import Named, class_names, inner_columns, value_at
from benchmark.data.sources.json_document import rows_of, with_inner
from benchmark.data.sources.text_files import (
    DELIMITERS,
    check_utf8,
    decoded,
    dialect,
    not_utf8,
    open_bytes,
    open_text,
    suffix_of,
    unreadable,
)
from benchmark.store.hashing import file_digest

if TYPE_CHECKING:
    import pyarrow as pa

JSON_LINES = (".jsonl", ".ndjson")
DOCUMENTS = (".json", ".xlsx")
"""The suffixes of files that are read as a whole."""
SUFFIXES = (*DELIMITERS, *JSON_LINES, ".parquet", *DOCUMENTS)
MAX_DOCUMENT = 1 << 29
"""The most bytes of a JSON document or of an unpacked Excel file, which are read as a whole."""
MAX_ROW = 1 << 24
"""The most bytes, or characters, of a row of other files: a compressed row can unpack to any length."""


def read_table(path: Path, problems: Problems, columns: set[str], header: Sequence[str] = ()) -> Rows:
    """Read the rows of a file. Bad rows are added to ``problems``, and the columns that occur to ``columns``.

    header: the names of the columns of a CSV file whose first row does not give them.
    Raises ``BenchError`` when the file cannot be read at all.
    """
    if chunks := read_chunks(path, columns, header):
        return _rows_of(chunks, path, problems)
    return (_json if suffix_of(path) == ".json" else _excel)(path, problems, columns)


def read_chunks(path: Path, columns: set[str], header: Sequence[str] = ()) -> Iterator[Chunk] | None:
    """Read the rows of a file as read_table() does, many at once; None for a document that is read as a whole."""
    suffix = suffix_of(path)
    if suffix in DELIMITERS:
        return _csv(path, columns, header)
    if suffix in DOCUMENTS:
        return None
    return _parquet(path, columns) if suffix == ".parquet" else _json_lines(path, columns)


def _rows_of(chunks: Iterator[Chunk], path: Path, problems: Problems) -> Rows:
    for chunk in chunks:
        for at, number in enumerate(chunk.numbers):
            try:
                yield number, chunk.values(at)
            except BadRow as bad:
                problems.add(place(path.name, number), bad)


def digest(path: Path) -> str:
    """The SHA-256 of a file's content. Raises ``BenchError`` where it cannot be read."""
    try:
        return file_digest(path)
    except OSError as error:
        raise unreadable(path, error) from error


def _lines(text: IO[str]) -> Iterator[str]:
    """The lines of a file. Of a line of more than MAX_ROW characters, only the first MAX_ROW + 1 characters."""
    while line := text.readline(MAX_ROW + 1):
        yield line
        while len(line) > MAX_ROW and not line.endswith(("\n", "\r")):
            line = text.readline(MAX_ROW + 1)


def _json_lines(path: Path, columns: set[str]) -> Iterator[Chunk]:
    with open_text(path) as text:
        some: list[tuple[int, Values | BadRow]] = []
        characters = 0
        for number, line in enumerate(_lines(text), 1):
            if not line.strip():
                continue
            try:
                values = _json_object(line)
                # What is inside of an object has a brace of its own.
                some.append((number, with_inner(values) if line.count("{") > 1 else values))
            except BadRow as bad:
                some.append((number, bad))
            characters += len(line)
            if len(some) == ROWS or characters > MAX_ROW:
                yield _of_objects(some, columns)
                some, characters = [], 0
        if some:
            yield _of_objects(some, columns)


def _of_objects(rows: list[tuple[int, Values | BadRow]], columns: set[str]) -> Chunk:
    chunk = chunk_of_objects(rows)
    columns.update(chunk.columns)
    return chunk


def _json_object(line: str) -> Values:
    if len(line) > MAX_ROW:
        raise BadRow("row is too long", f"a row of more than {MAX_ROW:,} characters")
    check_utf8(line, column=True)
    try:
        values = _DECODER.decode(line)
    except (ValueError, RecursionError) as error:
        raise BadRow("malformed JSON", f"malformed JSON: {error}") from error
    if not isinstance(values, dict):
        raise BadRow("malformed JSON", f"expected a JSON object, found {line.strip()[:40]!r}")
    return values


def _object(pairs: list[tuple[str, Any]]) -> Values:
    """The object with these keys and values. Raises ``BadRow`` for a key that occurs twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise BadRow("a key occurs twice", f"key '{cut(twice)}' occurs twice in one object")
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
"""Decodes each line; ``json.loads`` with a hook makes a new decoder each time, which takes a third of its time."""


def _json(path: Path, problems: Problems, columns: set[str]) -> Rows:
    """Read a JSON document, see rows_of(), or JSON Lines that are named like one."""
    with open_bytes(path) as file:
        data = file.read(MAX_DOCUMENT + 1)
    if len(data) > MAX_DOCUMENT:
        raise BenchError(
            f"{path.name}: more than {MAX_DOCUMENT:,} bytes of JSON; expected JSON Lines for sets this large"
        )
    try:
        document = json.loads(decoded(path, data), object_pairs_hook=_object)
    except BadRow as bad:
        raise BenchError(f"{path.name}: {bad.message}") from bad
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data" and data.lstrip()[:1] == b"{":
            yield from _rows_of(_json_lines(path, columns), path, problems)
            return
        raise BenchError(f"{path.name}: malformed JSON: {error}") from error
    del data
    for number, values in rows_of(document, path.name, problems):
        columns.update(values)
        yield number, values


def _parquet(path: Path, columns: set[str]) -> Iterator[Chunk]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            _check_no_duplicate(f"{path.name}", schema.names)
            named, inner = class_names(_features(schema.metadata)), inner_columns(schema)
            columns.update(schema.names, inner)
            number = 1
            # A row may hold a whole image.
            size = ROWS if all(map(_is_plain, schema.types)) else 64
            for batch in file.iter_batches(batch_size=size):
                yield _of_batch(batch, number, named, inner)
                number += len(batch)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        # A damaged header asks for any amount of memory: that is no error of the machine.
        message = f"{path.name}: cannot be read as Parquet: {one_line(error)}"
        raise (reading_failed(message, error) if isinstance(error, OSError) else BenchError(message)) from error


def _is_plain(kind: "pa.DataType") -> bool:
    """Whether cells of a type of Arrow are texts, numbers, times, or lists of these."""
    import pyarrow as pa

    kinds = pa.types
    if kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
        return _is_plain(kind.value_type)
    return not (kinds.is_nested(kind) or kinds.is_binary(kind) or kinds.is_large_binary(kind))


def _of_batch(batch: "pa.RecordBatch", first: int, named: dict[str, Named], inner: dict[str, tuple[str, ...]]) -> Chunk:
    """Make a chunk of a batch of Parquet. first: the number of its first row. named, inner: see class_names."""
    import pyarrow as pa

    @cache
    def rows() -> list[Values | BadRow]:
        return list(_python_rows(batch))

    def values(place: int) -> Values:
        row = rows()[place]
        if isinstance(row, BadRow):
            raise row
        row = row | {name: function(row[name]) for name, function in named.items() if name in row}
        return {name: value_at(row, path) for name, path in inner.items()} | row

    try:
        batch.validate(full=True)
        apart = range(0)
    except pa.ArrowInvalid:  # such as a text that is not UTF-8
        apart = range(len(batch))
    plain = {name: batch.column(name) for name in batch.schema.names if _is_plain(batch.schema.field(name).type)}
    return Chunk(
        range(first, first + len(batch)),
        {name: column for name, column in plain.items() if name not in named},
        values,
        apart,
    )


def _python_rows(batch: "pa.RecordBatch") -> Iterator[dict[str, Any] | BadRow]:
    """Convert the rows of a batch; a row with a text that is not UTF-8, which no type of Arrow prevents, is bad."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for number in range(len(batch)):
            try:
                yield batch.slice(number, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield not_utf8(error.object[error.start])


def _features(metadata: dict[bytes, bytes] | None) -> Any:
    """What ``datasets`` says in a table's metadata about its columns; None where it says nothing that can be read."""
    try:
        return json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _excel(path: Path, problems: Problems, columns: set[str]) -> Rows:
    """Read the first sheet of a workbook; its first row names the columns."""
    with _workbook(path) as book:
        sheet = _quietly(book.worksheets[0].iter_rows(values_only=True))
        header = ["" if name is None else str(name).strip() for name in next(sheet, ())]
        _check_no_duplicate(f"{path.name}, row 1", header)
        columns.update(filter(None, header))
        for number, cells in enumerate(sheet, 2):
            if any(cell is not None for cell in cells):
                yield number, {name: cell for name, cell in zip(header, cells) if name}


def _quietly(rows: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """The rows of a sheet, without openpyxl's warnings of styles and dates that it does not know."""
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row = next(rows, None)
        if row is None:
            return
        yield row


@contextmanager
def _workbook(path: Path) -> Iterator[Any]:
    """Open an Excel file. Raises ``BenchError`` where it cannot be read, in the block too."""
    try:
        import openpyxl
    except ImportError as error:
        raise BenchError(f"{path.name}: Excel files need openpyxl: pip install openpyxl") from error
    try:
        with path.open("rb") as file, ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > MAX_DOCUMENT:
                raise BenchError(f"{path.name}: unpacks to {size:,} bytes, more than {MAX_DOCUMENT:,}; expected CSV")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            try:
                yield book
            finally:
                book.close()
    except BenchError:
        raise
    except Exception as error:  # zipfile, XML and openpyxl each raise their own
        raise reading_failed(f"{path.name}: cannot be read as an Excel file: {one_line(error)}", error) from error


class _CsvLines:
    """The lines of a text file, for csv.reader. Raises ``csv.Error`` for a row of more than MAX_ROW characters."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text
        self.length = 0
        """Characters of the current row; set to 0 by the reader when a row ends."""

    def __iter__(self) -> Iterator[str]:
        while line := self._text.readline(MAX_ROW + 1):
            self.length += len(line)
            if self.length > MAX_ROW:
                raise csv.Error(f"a row of more than {MAX_ROW:,} characters")
            yield line


def _csv(path: Path, columns: set[str], header: Sequence[str]) -> Iterator[Chunk]:
    limit = csv.field_size_limit(MAX_ROW)
    number = 1
    try:
        options, only_said = dialect(path, len(header))
        with open_text(path) as text:
            lines = _CsvLines(text)
            reader = csv.reader(lines, **options)
            if only_said:
                next(reader)
            # Published files have names such as ' EncodedPixels'.
            names = list(header) or [name.strip() for name in next(reader, [])]
            _check_no_duplicate(f"{path.name}, row {max(1, reader.line_num)}", names)
            columns.update(filter(None, names))
            number, lines.length = reader.line_num + 1, 0
            some: list[tuple[int, list[str]]] = []
            characters = 0
            for fields in reader:
                if fields:
                    some.append((number, fields))
                characters += lines.length
                number, lines.length = reader.line_num + 1, 0
                if len(some) == ROWS or (characters > MAX_ROW and some):
                    yield chunk_of_lines(names, some)
                    some, characters = [], 0
            if some:
                yield chunk_of_lines(names, some)
    except csv.Error as error:
        raise BenchError(f"{path.name}, row {number}: malformed CSV: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _check_no_duplicate(where: str, names: Iterable[str]) -> None:
    """Raise ``BenchError`` for a name that occurs twice. Columns without a name cannot be used, so they may."""
    for name, count in Counter(filter(None, names)).items():
        if count > 1:
            raise BenchError(f"{where}: column '{cut(name)}' occurs twice; rename one of them")
