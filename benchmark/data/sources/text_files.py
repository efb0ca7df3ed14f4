"""Text files that hold a table, packed or not: their encoding, their lines, and what separates the columns."""

import codecs
import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from benchmark.common.errors import BenchError, reading_failed
from benchmark.data.problems import BadRow

DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
"""What separates the columns by a file's suffix, unless its first lines show another of MARKS."""
MARKS = (",", ";", "\t", "|")
SAMPLE = 1 << 16
"""The characters from which the delimiter is told."""
ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""The encoding by the mark that a file starts with. Others are UTF-8; UTF-32's mark starts with one of UTF-16's."""
NOT_UTF8 = re.compile("[\udc80-\udcff]")
"""What ``surrogateescape`` makes of a byte that is not UTF-8."""


def suffix_of(path: Path) -> str:
    """The suffix that gives the format: ``.csv`` for rows.csv.gz."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def unreadable(path: Path, error: Exception) -> BenchError:
    """The error for a file that cannot be opened or unpacked."""
    return reading_failed(f"{path.name}: cannot be read: {getattr(error, 'strerror', None) or error} ({path})", error)


@contextmanager
def open_bytes(path: Path) -> Iterator[gzip.GzipFile | IO[bytes]]:
    """Open a file, unpacked if its name ends in .gz. Raises ``BenchError`` where it cannot be read, also later."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Open a text in UTF-8, or in UTF-16 with its mark, with its line ends as they are.

    A byte that is not UTF-8 becomes a lone surrogate (NOT_UTF8), so that one bad row does not hide the others.
    Raises ``BenchError`` where the file cannot be read, in the block too.
    """
    with open_bytes(path) as file:
        encoding = _encoding(path, file.read(4))
    options: dict[str, Any] = {"encoding": encoding, "newline": ""}
    options["errors"] = "surrogateescape" if encoding == "utf-8-sig" else "surrogatepass"
    try:
        with gzip.open(path, "rt", **options) if path.suffix.lower() == ".gz" else path.open(**options) as text:
            yield text
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise BenchError(f"{path.name}: is not {encoding.upper()} as its mark says: {error.reason}") from error


def decoded(path: Path, data: bytes) -> str:
    """The text of a file that was read as a whole. Raises ``BenchError``."""
    encoding = _encoding(path, data[:4])
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-8-sig":
            raise BenchError(f"{path.name}: {not_utf8(error.object[error.start], error.start).message}") from error
        raise BenchError(f"{path.name}: is not {encoding.upper()} as its mark says: {error.reason}") from error


def _encoding(path: Path, start: bytes) -> str:
    for mark, encoding in ENCODINGS.items():
        if start.startswith(mark):
            return encoding
    if b"\0" in start:
        raise BenchError(f"{path.name}: is not a text in UTF-8 (NUL bytes); UTF-16 needs its byte order mark")
    return "utf-8-sig"


def not_utf8(byte: int, column: int | None = None) -> BadRow:
    """The bad row with this byte, counted from 0."""
    where = "" if column is None else f" at column {column + 1}"
    return BadRow("not UTF-8", f"not UTF-8 (byte 0x{byte:02x}{where}); expected UTF-8")


def check_utf8(text: str, column: bool = False) -> None:
    """Raise ``BadRow`` for a text that open_text() read and that was not UTF-8. column: say where."""
    if not text.isascii() and (wrong := NOT_UTF8.search(text)):
        raise not_utf8(ord(wrong[0]) - 0xDC00, len(text[: wrong.start()].encode()) if column else None)


def dialect(path: Path, header: int) -> tuple[dict[str, Any], bool]:
    """Tell from the first lines of a file how ``csv.reader`` reads it, and whether the first line only says that.

    What separates the columns is what the suffix says, unless that does not occur in the first line and another of
    MARKS does, or its rows have other numbers of columns and those of another do not. header: the number of columns
    that the card names, 0 if the file's first line does.
    """
    with open_text(path) as text:
        sample = text.read(SAMPLE)
    # Excel's way to say it: a first line "sep=;".
    if said := re.match('"?sep=(.)"?\r?\n', sample):
        return {"delimiter": said[1], "strict": True}, True
    own = DELIMITERS[suffix_of(path)]
    lines = sample.splitlines(keepends=True)
    lines = lines[:-1] if len(sample) == SAMPLE else lines
    regular = {}
    for mark in (own, *(mark for mark in MARKS if mark != own)):
        rows = _rows(lines, _options(path, mark))
        columns = header or len(rows[0]) if rows else 0
        if columns > 1 and len(rows[0]) == columns:
            regular[mark] = all(len(row) == columns for row in rows)
    first = next(iter(regular), own)
    return _options(path, next((mark for mark in regular if regular[mark]), first)), False


def _options(path: Path, mark: str) -> dict[str, Any]:
    if suffix_of(path) == ".txt" and mark == DELIMITERS[".txt"]:
        return {"delimiter": mark, "strict": True, "quoting": csv.QUOTE_NONE}
    return {"delimiter": mark, "strict": True}


def _rows(lines: list[str], options: dict[str, Any]) -> list[list[str]]:
    rows: list[list[str]] = []
    try:
        for row in csv.reader(lines, **options):
            if row:
                rows.append(row)
            if len(rows) == 20:
                break
    except csv.Error:  # with these options it is no table
        return rows if len(rows) == 1 else []
    return rows
