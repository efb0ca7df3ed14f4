"""Values of table cells, turned into texts, class names, flags and paths."""

import ast
import io
import json
import os
import re
import tokenize
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from benchmark.common.errors import BenchError, cut, shortened, unknown
from benchmark.data.canonical import ABSENT, UNKNOWN, canonical, composed, identifier, written
from benchmark.data.problems import BadRow

Value = str | int | float | bool
"""A value in a condition of a card."""
MAX_TEXT = 1 << 20
"""The most characters of a text, a question or an answer."""
FLAGS = {"1": "true", "0": "false", "true": "1", "false": "0"}
"""A column of flags may have either form."""

_LIST = re.compile(r"(?:array\()?\[\s*(?:[\[({]\s*)*(?:[bu]?['\"]|\]$|(?i:none|null|nan)\s*[,\]])")
"""The beginning of a list of texts. Of what begins as a tuple or an object, only some is one."""
_COLLECTION = re.compile(rf"{_LIST.pattern}|[({{]\s*[bu]?['\"]")
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_. +-]*(/[A-Za-z0-9_-][A-Za-z0-9_. +-]*)*")
"""Paths that relative_path() leaves as they are: a third of the time of reading a table went into finding that out."""
_URL = re.compile(r"(?:[a-z][a-z0-9+.-]+:/|data:image/)", re.IGNORECASE)


def text(value: Any) -> str:
    """A value as a text that a model reads, as it is written; "" for nothing and for the words of ABSENT.

    Raises ``BadRow`` for a list or an object.
    """
    as_written = written(value)
    return "" if as_written.lower() in ABSENT else as_written


def texts(value: Any) -> list[str]:
    """The texts in a cell, as text() makes them: one, a list, or a list of texts in JSON or Python notation.

    Raises ``BadRow`` for what begins as such a list and is none, as numpy prints it: ``['a' 'b']``.
    """
    return [text(item) for item in _items(value)]


def answers(value: Any) -> list[str]:
    """The answers in a cell, as texts() finds them. ``None`` and ``NA`` are answers; NaN is none."""
    as_written = [written(item) for item in _items(value)]
    return ["" if item.lower() in UNKNOWN else item for item in as_written]


def _items(value: Any) -> list[Any]:
    """The texts of a cell, before they are cleaned; none for an empty cell."""
    if isinstance(value, str) and _COLLECTION.match(value.strip()):
        parsed = _parsed(value.strip())
        if isinstance(parsed, (dict, set)):
            raise BadRow("wrong type", f"expected a text, found {shortened(parsed)}")
        value = parsed if isinstance(parsed, (list, tuple)) else value
        if isinstance(value, str) and _LIST.match(value.strip()):
            raise _no_list(value)
    if isinstance(value, (list, tuple)):
        return list(value)
    return [value] if written(value) else []


def _no_list(value: str) -> BadRow:
    return BadRow("malformed list", f'{cut(value)} is no list of texts; expected ["a", "b"], with commas')


def names_in(value: Any) -> list[str]:
    """The names in a cell, as written: one, a list, or a list in JSON or Python notation ("['Mass', 'Asymmetry']")."""
    if isinstance(value, str) and value.strip().startswith("[") and value.strip().endswith("]"):
        value = items if isinstance(items := _parsed(value.strip()), list) else value
    if isinstance(value, (list, tuple)):
        return [written(item) for item in value]
    name = written(value)
    return [name] if name else []


def _parsed(value: str) -> Any:
    """What a text is in JSON or Python notation, or None. Raises ``BadRow`` for a list without commas."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        if _lacks_commas(value):
            raise _no_list(value) from None
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None


def _lacks_commas(value: str) -> bool:
    """Whether two strings follow one another, which Python would join: ``['a' 'b']``, as numpy prints a list."""
    before = -1
    try:
        for token in tokenize.generate_tokens(io.StringIO(value).readline):
            if token.type == before == tokenize.STRING:
                return True
            before = before if token.type == tokenize.NL else token.type
    except (tokenize.TokenError, SyntaxError):
        pass
    return False


def keys_in(value: Any) -> list[str]:
    """The identifiers in a cell, one or a list, as identifier() makes them."""
    return [identifier(name) for name in names_in(value)]


def compose_names(values: dict[str, Any]) -> None:
    """Give the columns of a row the composed form of their names, as cards have them."""
    if all(map(str.isascii, values)):
        return
    for name in [name for name in values if name != composed(name)]:
        values[composed(name)] = values.pop(name)


def comparable(value: Any) -> str:
    """A value as ``where`` compares it: its canonical form without case, and a list of one name as that name."""
    names = [canonical(name) for name in names_in(value)] if isinstance(value, (list, str)) else [canonical(value)]
    names = ["" if name.lower() in UNKNOWN else name.casefold() for name in names]
    if len(names) > 1:
        return json.dumps(names)
    return names[0] if names else ""


def conditions(by_column: dict[str, Value | list[Value]]) -> dict[str, set[str]]:
    """The values that each condition of a card names, as comparable() makes them from cells.

    1 and true, and 0 and false, name each other: a column of flags has one form or the other, not a meaning for each.
    Raises ``BenchError`` for a value that no cell can have.
    """
    allowed = {}
    for column, values in by_column.items():
        try:
            named = {comparable(value) for value in (values if isinstance(values, list) else [values])}
        except BadRow as bad:
            raise BenchError(f"a condition on column '{column}': {bad.message}") from bad
        allowed[column] = named | {FLAGS[value] for value in named if value in FLAGS}
    return allowed


def integer(value: Any) -> int | None:
    """The class number in a value (3, "3" or 3.0), or None."""
    if isinstance(value, (dict, list, tuple)):
        return None
    form = canonical(value)
    return int(form) if re.fullmatch(r"-?[0-9]{1,9}", form) else None


def flag(value: Any, column: str) -> int:
    """The flag in a cell: 0, 1, or -1 (unknown). Raises ``BadRow`` for anything else."""
    form = identifier(value)
    number = int(form) if form in ("0", "1", "-1") else {"": -1, "true": 1, "false": 0}.get(form)
    if number is None:
        message = f"column '{column}' is '{cut(form)}'; expected 0, 1, or -1 or nothing (unknown)"
        raise BadRow("bad label", message)
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


def relative_path(path: str, column: str, kind: str = "image") -> str:
    """A normalised relative path: with slashes, also where the table has backslashes, and in Unicode's form NFC.

    kind: what the path leads to, for messages. Raises ``BadRow`` if the path is empty, not UTF-8, a URL or absolute,
    or if it leads out of the image folder.
    """
    if not path:
        raise BadRow(f"no {kind}", f"no {kind} (column '{column}')")
    if _PLAIN.fullmatch(path):
        return path
    check_unicode(path)
    name = f"{kind} '{cut(path)}'"
    if is_url(path):
        message = f"{name} is a URL; download the {kind}s first, and name their files below image_root"
        raise BadRow(f"{kind} is a URL", message)
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).anchor:
        hint = " ('strip_prefix' removes what all begin with)" if kind == "image" else ""
        raise BadRow(f"{kind} outside the folder", f"{name} is absolute; expected a path below image_root{hint}")
    normal = os.path.normpath(composed(path.replace("\\", "/")))
    if PurePosixPath(normal).parts[:1] == ("..",):
        raise BadRow(f"{kind} outside the folder", f"{name} leads out of image_root")
    if "\0" in path:
        raise BadRow("NUL byte", f"a NUL byte in {kind} {cut(repr(path))}")
    return normal


def is_url(path: str) -> bool:
    """Whether a path is a URL, of any scheme (https, s3, gs, file, data); a drive such as C: is none."""
    return _URL.match(path) is not None


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
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRow("not UTF-8", f"not UTF-8: {text[:80]!r}") from error
