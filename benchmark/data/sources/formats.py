"""Files that hold a table, read row by row: CSV, JSON, Parquet, Excel."""

import csv
import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from zipfile import ZipFile

from benchmark.common.errors import BenchError
from benchmark.data.problems import BadRow, Problems
from benchmark.data.sources.base import place

if TYPE_CHECKING:
    import pyarrow as pa

DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
SUFFIXES = (*DELIMITERS, *JSON_LINES, ".json", ".parquet", ".xlsx")
MAX_DOCUMENT = 1 << 29
"""Bytes of a JSON document or of an unpacked Excel file, which are read as a whole."""
MAX_ROW = 1 << 24
"""Bytes, or characters, of a row of another file: a packed one may unfold to any length."""

Values = dict[str, Any]
Rows = Iterator[tuple[int, Values]]
"""Pairs of the row's number in its file, from 1 on, and its values by column."""


@dataclass(frozen=True)
class Layout:
    """What a file itself does not say. header: the columns' names, where the first row does not give them."""

    header: tuple[str, ...] = ()


def suffix_of(path: Path) -> str:
    """The suffix that says the format: ``.csv`` of rows.csv.gz."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def read_table(path: Path, problems: Problems, seen: set[str], layout: Layout | None = None) -> Rows:
    """The rows of a file. Bad ones go to ``problems``; the columns that occur are added to ``seen``.

    Raises ``BenchError`` when the file cannot be read at all.
    """
    readers: dict[str, Callable[..., Rows]] = {".json": _json, ".parquet": _parquet, ".xlsx": _excel}
    suffix = suffix_of(path)
    layout = layout or Layout()
    if suffix in DELIMITERS:
        return _csv(path, problems, seen, layout)
    return readers.get(suffix, _json_lines)(path, problems, seen)


def digest(path: Path) -> str:
    """Of a file's content."""
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
    """The lines; of those of more than MAX_ROW bytes the beginning, one byte more."""
    while line := file.readline(MAX_ROW + 1):
        yield line
        while len(line) > MAX_ROW and not line.endswith(b"\n"):
            line = file.readline(MAX_ROW + 1)


def _json_lines(path: Path, problems: Problems, seen: set[str]) -> Rows:
    with _open(path) as file:
        for line, content in enumerate(_lines(file), 1):
            if line == 1:
                content = _without_mark(path, content)
            if not content.strip():
                continue
            try:
                if len(content) > MAX_ROW:
                    raise BadRow("row is too long", f"a row of more than {MAX_ROW:,} bytes")
                values = json.loads(content.decode())
                if not isinstance(values, dict):
                    raise BadRow("malformed JSON", f"expected a JSON object, found {content.strip()[:40]!r}")
            except UnicodeDecodeError as error:
                problems.add(place(path.name, line), _not_utf8(content[error.start], error.start))
            except (ValueError, RecursionError) as error:
                problems.add(place(path.name, line), BadRow("malformed JSON", f"malformed JSON: {error}"))
            except BadRow as bad:
                problems.add(place(path.name, line), bad)
            else:
                seen.update(values)
                yield line, values


def _json(path: Path, problems: Problems, seen: set[str]) -> Rows:
    """A list of objects; or objects under a name each, in one object or in a list of objects with one name: the name
    is then in the column ``key``.
    """
    with _open(path) as file:
        content = file.read(MAX_DOCUMENT + 1)
    if len(content) > MAX_DOCUMENT:
        raise BenchError(
            f"{path.name}: more than {MAX_DOCUMENT:,} bytes of JSON; expected JSON Lines for sets this large"
        )
    try:
        document = json.loads(_without_mark(path, content).decode())
    except UnicodeDecodeError as error:
        raise BenchError(f"{path.name}: {_not_utf8(content[error.start], error.start).message}") from error
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{path.name}: malformed JSON: {error}") from error
    items = [{name: item} for name, item in document.items()] if isinstance(document, dict) else document
    if not isinstance(items, list):
        raise BenchError(f"{path.name}: expected a JSON list of objects, found {type(document).__name__}")
    for number, item in enumerate(items, 1):
        if not isinstance(item, dict):
            found = json.dumps(item)[:40]
            problems.add(place(path.name, number), BadRow("malformed JSON", f"expected an object, found {found}"))
            continue
        if len(item) == 1 and isinstance(inner := next(iter(item.values())), dict):
            item = {"key": next(iter(item)), **inner}
        seen.update(item)
        yield number, item


def _parquet(path: Path, problems: Problems, seen: set[str]) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            seen.update(file.schema_arrow.names)
            classes = _classes(file.schema_arrow)
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


def _classes(schema: "pa.Schema") -> dict[str, list[str]]:
    """By column, the names of the classes that ``datasets`` wrote as numbers: a card may have them in another order."""
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = metadata.get("info", {}).get("features", {})
    found = {name: features[name] for name in schema.names if isinstance(features.get(name), dict)}
    return {name: feature["names"] for name, feature in found.items() if feature.get("_type") == "ClassLabel"}


def _class_name(value: Any, names: list[str]) -> Any:
    # What describes a column may outlive a change of what is in it.
    if not isinstance(value, int):
        return value
    if value >= len(names):
        raise BadRow("unknown class", f"class number {value}; the file has names for 0 to {len(names) - 1}")
    return names[value] if value >= 0 else None


def _excel(path: Path, problems: Problems, seen: set[str]) -> Rows:
    """The first sheet; its first row names the columns."""
    try:
        import openpyxl
    except ImportError as error:
        raise BenchError(f"{path.name}: Excel files need openpyxl: pip install openpyxl") from error
    try:
        with ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_DOCUMENT:
            raise BenchError(f"{path.name}: unpacks to {size:,} bytes, more than {MAX_DOCUMENT:,}; expected CSV")
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except BenchError:
        raise
    except Exception as error:  # zipfile, XML and openpyxl each have their own
        raise BenchError(f"{path.name}: cannot be read as an Excel file: {error}") from error
    try:
        sheet = book.worksheets[0].iter_rows(values_only=True)
        header = ["" if name is None else str(name).strip() for name in next(sheet, ())]
        seen.update(header)
        for number, cells in enumerate(sheet, 2):
            if any(cell is not None for cell in cells):
                yield number, dict(zip(header, cells))
    finally:
        book.close()


def _csv(path: Path, problems: Problems, seen: set[str], layout: Layout) -> Rows:
    limit = csv.field_size_limit(MAX_ROW)
    suffix = suffix_of(path)
    line, length = 1, 0

    def lines(text: IO[str]) -> Iterator[str]:
        nonlocal length
        while found := text.readline(MAX_ROW + 1):
            length += len(found)
            if length > MAX_ROW:
                raise csv.Error(f"a row of more than {MAX_ROW:,} characters")
            yield found

    try:
        with _open(path) as file:
            _without_mark(path, file.read(2))
        # A byte that is not UTF-8 becomes a lone surrogate, so that one bad row does not hide the others.
        options: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}
        with gzip.open(path, "rt", **options) if path.suffix.lower() == ".gz" else path.open(**options) as text:
            plain: Any = {"quoting": csv.QUOTE_NONE} if suffix == ".txt" else {}
            reader = csv.reader(lines(text), delimiter=DELIMITERS[suffix], strict=True, **plain)
            # Published files have names such as ' EncodedPixels'.
            header = list(layout.header) or [name.strip() for name in next(reader, [])]
            twice = [name for name in header if header.count(name) > 1]
            if twice:
                raise BenchError(f"{path.name}, row 1: column '{twice[0]}' is there twice")
            seen.update(header)
            line, length = reader.line_num + 1, 0
            for fields in reader:
                start, line, length = line, reader.line_num + 1, 0
                if not fields:
                    continue
                wrong = next((c for value in fields for c in value if "\udc80" <= c <= "\udcff"), None)
                if wrong:
                    problems.add(place(path.name, start), _not_utf8(ord(wrong) - 0xDC00))
                elif len(fields) != len(header):
                    message = f"{len(fields)} fields where the header has {len(header)}"
                    problems.add(place(path.name, start), BadRow("wrong number of fields", message))
                else:
                    yield start, dict(zip(header, fields))
    except csv.Error as error:
        raise BenchError(f"{path.name}, row {line}: malformed CSV: {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error
    finally:
        csv.field_size_limit(limit)


def _without_mark(path: Path, start: bytes) -> bytes:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BenchError(f"{path.name}: is UTF-16; expected UTF-8")
    return start.removeprefix(b"\xef\xbb\xbf")


def _not_utf8(byte: int, column: int | None = None) -> BadRow:
    where = "" if column is None else f" at column {column + 1}"
    return BadRow("not UTF-8", f"not UTF-8 (byte 0x{byte:02x}{where}); expected UTF-8")
