"""Files that hold a table, read row by row: CSV, JSON, Parquet, Excel."""

import csv
import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from zipfile import ZipFile

from benchmark.common.errors import BenchError
from benchmark.data.problems import BadRow, Problems
from benchmark.data.records import place

if TYPE_CHECKING:
    import pyarrow as pa

DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
SUFFIXES = (*DELIMITERS, *JSON_LINES, ".json", ".parquet", ".xlsx")
MAX_DOCUMENT = 1 << 29
"""The most bytes of a JSON document or of an unpacked Excel file, which are read as a whole."""
MAX_ROW = 1 << 24
"""The most bytes, or characters, of a row of other files: a compressed row can unpack to any length."""

Values = dict[str, Any]
Rows = Iterator[tuple[int, Values]]
"""Pairs of a row's number in its file, counted from 1, and its values by column."""


def suffix_of(path: Path) -> str:
    """The suffix that gives the format: ``.csv`` for rows.csv.gz."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def read_table(path: Path, problems: Problems, columns: set[str], header: Sequence[str] = ()) -> Rows:
    """Read the rows of a file. Bad rows are added to ``problems``, and the columns that occur to ``columns``.

    header: the names of the columns of a CSV file whose first row does not give them.
    Raises ``BenchError`` when the file cannot be read at all.
    """
    suffix = suffix_of(path)
    if suffix in DELIMITERS:
        return _csv(path, problems, columns, header)
    readers = {".json": _json, ".parquet": _parquet, ".xlsx": _excel}
    return readers.get(suffix, _json_lines)(path, problems, columns)


def digest(path: Path) -> str:
    """The SHA-256 of a file's content."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> BenchError:
    return BenchError(f"{path.name}: cannot be read: {getattr(error, 'strerror', None) or error} ({path})")


@contextmanager
def _open(path: Path) -> Iterator[gzip.GzipFile | IO[bytes]]:
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error


def _lines(file: gzip.GzipFile | IO[bytes]) -> Iterator[bytes]:
    """The lines of a file. Of a line of more than MAX_ROW bytes, only the first MAX_ROW + 1 bytes."""
    while line := file.readline(MAX_ROW + 1):
        yield line
        while len(line) > MAX_ROW and not line.endswith(b"\n"):
            line = file.readline(MAX_ROW + 1)


def _json_lines(path: Path, problems: Problems, columns: set[str]) -> Rows:
    with _open(path) as file:
        for number, line in enumerate(_lines(file), 1):
            line = _without_byte_order_mark(path, line) if number == 1 else line
            if not line.strip():
                continue
            try:
                values = _json_object(line)
            except BadRow as bad:
                problems.add(place(path.name, number), bad)
            else:
                columns.update(values)
                yield number, values


def _json_object(line: bytes) -> Values:
    if len(line) > MAX_ROW:
        raise BadRow("row is too long", f"a row of more than {MAX_ROW:,} bytes")
    try:
        values = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise _not_utf8(line[error.start], error.start) from error
    except (ValueError, RecursionError) as error:
        raise BadRow("malformed JSON", f"malformed JSON: {error}") from error
    if not isinstance(values, dict):
        raise BadRow("malformed JSON", f"expected a JSON object, found {line.strip()[:40]!r}")
    return values


def _json(path: Path, problems: Problems, columns: set[str]) -> Rows:
    """Read a JSON document: a list of objects, or objects under one name each.

    The latter are one object of objects, or a list of objects with one name; the name goes into the column ``key``.
    """
    for number, item in enumerate(_json_items(path), 1):
        if not isinstance(item, dict):
            message = f"expected an object, found {json.dumps(item)[:40]}"
            problems.add(place(path.name, number), BadRow("malformed JSON", message))
            continue
        if len(item) == 1 and isinstance(inner := next(iter(item.values())), dict):
            item = {"key": next(iter(item)), **inner}
        columns.update(item)
        yield number, item


def _json_items(path: Path) -> list[Any]:
    with _open(path) as file:
        data = file.read(MAX_DOCUMENT + 1)
    if len(data) > MAX_DOCUMENT:
        raise BenchError(
            f"{path.name}: more than {MAX_DOCUMENT:,} bytes of JSON; expected JSON Lines for sets this large"
        )
    try:
        document = json.loads(_without_byte_order_mark(path, data).decode())
    except UnicodeDecodeError as error:
        raise BenchError(f"{path.name}: {_not_utf8(data[error.start], error.start).message}") from error
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{path.name}: malformed JSON: {error}") from error
    items = [{name: item} for name, item in document.items()] if isinstance(document, dict) else document
    if not isinstance(items, list):
        raise BenchError(f"{path.name}: expected a JSON list of objects, found {type(document).__name__}")
    return items


def _parquet(path: Path, problems: Problems, columns: set[str]) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns.update(file.schema_arrow.names)
            classes = _class_names(file.schema_arrow)
            number = 0
            # Small batches: a row may hold a whole image.
            for batch in file.iter_batches(batch_size=64):
                for values in batch.to_pylist():
                    number += 1
                    try:
                        values.update({name: _class_name(values[name], names) for name, names in classes.items()})
                    except BadRow as bad:
                        problems.add(place(path.name, number), bad)
                    else:
                        yield number, values
    except (OSError, pa.ArrowException) as error:
        raise BenchError(f"{path.name}: cannot be read as Parquet: {' '.join(str(error).split())}") from error


def _class_names(schema: "pa.Schema") -> dict[str, list[str]]:
    """For each column that ``datasets`` wrote as class numbers, the names; a card may have them in another order."""
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = metadata.get("info", {}).get("features", {})
    described = {name: features[name] for name in schema.names if isinstance(features.get(name), dict)}
    return {name: feature["names"] for name, feature in described.items() if feature.get("_type") == "ClassLabel"}


def _class_name(value: Any, names: list[str]) -> Any:
    # A column may have been changed without its description: then it may no longer hold numbers.
    if not isinstance(value, int):
        return value
    if value >= len(names):
        raise BadRow("unknown class", f"class number {value}; the file has names for 0 to {len(names) - 1}")
    return names[value] if value >= 0 else None


def _excel(path: Path, problems: Problems, columns: set[str]) -> Rows:
    """Read the first sheet of a workbook; its first row names the columns."""
    book = _workbook(path)
    try:
        sheet = book.worksheets[0].iter_rows(values_only=True)
        header = ["" if name is None else str(name).strip() for name in next(sheet, ())]
        columns.update(header)
        for number, cells in enumerate(sheet, 2):
            if any(cell is not None for cell in cells):
                yield number, dict(zip(header, cells))
    finally:
        book.close()


def _workbook(path: Path) -> Any:
    try:
        import openpyxl
    except ImportError as error:
        raise BenchError(f"{path.name}: Excel files need openpyxl: pip install openpyxl") from error
    try:
        with ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_DOCUMENT:
            raise BenchError(f"{path.name}: unpacks to {size:,} bytes, more than {MAX_DOCUMENT:,}; expected CSV")
        return openpyxl.load_workbook(path, read_only=True, data_only=True)
    except BenchError:
        raise
    except Exception as error:  # zipfile, XML and openpyxl each raise their own
        raise BenchError(f"{path.name}: cannot be read as an Excel file: {error}") from error


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


def _csv(path: Path, problems: Problems, columns: set[str], header: Sequence[str]) -> Rows:
    limit = csv.field_size_limit(MAX_ROW)
    number = 1
    try:
        with _open_text(path) as text:
            lines = _CsvLines(text)
            reader = _csv_reader(path, lines)
            # Published files have names such as ' EncodedPixels'.
            names = list(header) or [name.strip() for name in next(reader, [])]
            _check_no_duplicate(path, names)
            columns.update(names)
            number, lines.length = reader.line_num + 1, 0
            for fields in reader:
                start, number, lines.length = number, reader.line_num + 1, 0
                if not fields:
                    continue
                try:
                    yield start, _csv_values(names, fields)
                except BadRow as bad:
                    problems.add(place(path.name, start), bad)
    except csv.Error as error:
        raise BenchError(f"{path.name}, row {number}: malformed CSV: {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error
    finally:
        csv.field_size_limit(limit)


@contextmanager
def _open_text(path: Path) -> Iterator[IO[str]]:
    with _open(path) as file:
        _without_byte_order_mark(path, file.read(2))
    # A byte that is not UTF-8 becomes a lone surrogate, so that one bad row does not hide the others.
    options: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}
    with gzip.open(path, "rt", **options) if path.suffix.lower() == ".gz" else path.open(**options) as text:
        yield text


def _csv_reader(path: Path, lines: Iterable[str]) -> Any:
    suffix = suffix_of(path)
    if suffix == ".txt":
        return csv.reader(lines, delimiter=DELIMITERS[suffix], strict=True, quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=DELIMITERS[suffix], strict=True)


def _check_no_duplicate(path: Path, names: list[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise BenchError(f"{path.name}, row 1: column '{name}' occurs twice")


def _csv_values(names: list[str], fields: list[str]) -> Values:
    surrogate = next((c for value in fields for c in value if "\udc80" <= c <= "\udcff"), None)
    if surrogate:
        raise _not_utf8(ord(surrogate) - 0xDC00)
    if len(fields) != len(names):
        raise BadRow("wrong number of fields", f"{len(fields)} fields where the header has {len(names)}")
    return dict(zip(names, fields))


def _without_byte_order_mark(path: Path, start: bytes) -> bytes:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BenchError(f"{path.name}: is UTF-16; expected UTF-8")
    return start.removeprefix(b"\xef\xbb\xbf")


def _not_utf8(byte: int, column: int | None = None) -> BadRow:
    where = "" if column is None else f" at column {column + 1}"
    return BadRow("not UTF-8", f"not UTF-8 (byte 0x{byte:02x}{where}); expected UTF-8")
