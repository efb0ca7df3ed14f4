"""Values of table cells, turned into texts, class names, flags and paths."""

import ast
import json
import os
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from benchmark.common.errors import unknown
from benchmark.data.problems import BadRow

Value = str | int | float | bool
"""A value in a condition of a card."""
MAX_TEXT = 1 << 20
"""The most characters of a text, a question or an answer."""


def string(value: Any) -> str:
    """A value as text without outer spaces; "" for nothing and NaN. Raises ``BadRow`` for a list or an object."""
    if value is None or value != value:
        return ""
    if isinstance(value, (dict, list)):
        raise BadRow("wrong type", f"expected a text, found {json.dumps(value)[:40]}")
    return str(value).strip()


def strings(value: Any) -> list[str]:
    """A value, or each value of a list, as text; no text for an empty value."""
    if isinstance(value, list):
        return [string(item) for item in value]
    text = string(value)
    return [text] if text else []


def names_in(value: Any) -> list[str]:
    """The names in a cell: one, a list, or a list in Python's notation ("['Mass', 'Asymmetry']")."""
    if isinstance(value, str) and value.strip().startswith("[") and value.strip().endswith("]"):
        try:
            value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return [value.strip()]
        return [string(item) for item in value] if isinstance(value, list) else [string(value)]
    return strings(value)


def comparable(value: Any) -> str:
    """A value as ``where`` compares it: without case, and a list of one name as that name."""
    names = names_in(value) if isinstance(value, (list, str)) else [string(value)]
    if not names:
        return ""
    return names[0].casefold() if len(names) == 1 else json.dumps(names).casefold()


def conditions(by_column: dict[str, Value | list[Value]]) -> dict[str, set[str]]:
    """The values that each condition of a card names, as comparable() makes them from cells."""
    return {
        column: {string(value).casefold() for value in (values if isinstance(values, list) else [values])}
        for column, values in by_column.items()
    }


def integer(value: Any) -> int | None:
    """The class number in a value (3, "3" or 3.0), or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def flag(value: Any, column: str) -> int:
    """The flag in a cell: 0, 1, or -1 (unknown). Raises ``BadRow`` for anything else."""
    text = string(value).lower()
    if text in ("", "nan"):
        return -1
    number = {"true": 1, "false": 0}.get(text, integer(text))
    if number is None or number not in (-1, 0, 1):
        raise BadRow("bad label", f"column '{column}' is '{text}'; expected 0, 1, or -1 or nothing (unknown)")
    return number


def answer_type(value: str) -> str:
    """Return "open" or "closed", or raise ``BadRow``."""
    name = value.lower()
    if name not in ("open", "closed"):
        raise BadRow("unknown answer_type", str(unknown("answer_type", value, ["open", "closed"])))
    return name


def image_bytes(value: Any) -> bytes | None:
    """The encoded image in a cell, as Parquet files of ``datasets`` have it, or None if the cell holds a path."""
    if isinstance(value, dict):
        value = value.get("bytes")
        if value is None:
            raise BadRow("no image", "no image in the table: its bytes are empty")
    return value if isinstance(value, bytes) else None


def relative_path(path: str, column: str) -> str:
    """A normalised relative path. Raises ``BadRow`` if it is empty, absolute, or leads out of the image folder."""
    if not path:
        raise BadRow("no image", f"no image (column '{column}')")
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).anchor:
        raise BadRow("image outside the folder", f"image '{path}' is absolute; expected a path below image_root")
    normal = os.path.normpath(path)
    if PurePosixPath(normal).parts[:1] == ("..",):
        raise BadRow("image outside the folder", f"image '{path}' leads out of image_root")
    if "\0" in path:
        raise BadRow("NUL byte", f"a NUL byte in image {path!r}")
    return normal


def check_length(text: str) -> None:
    """Raise ``BadRow`` for a text of more than MAX_TEXT characters."""
    if len(text) > MAX_TEXT:
        raise BadRow("text is too long", f"a text of {len(text):,} characters; expected at most {MAX_TEXT:,}")


def check_no_nul(text: str) -> None:
    """Raise ``BadRow`` for a text with a NUL byte."""
    if "\0" in text:
        raise BadRow("NUL byte", f"a NUL byte in {text[:40]!r}")


def check_unicode(text: str) -> None:
    """Raise ``BadRow`` for a text with half of a surrogate pair, which tables cannot hold.

    JSON may contain one, and Python makes one of a file name that is not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRow("not UTF-8", f"not UTF-8: {text[:80]!r}") from error
