"""The canonical form of a cell's value: what values are compared by, whichever format they were read from."""

import math
import re
import unicodedata
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from benchmark.common.errors import shortened
from benchmark.data.problems import BadRow

WHOLE = 1 << 53
"""The first whole number whose neighbour a float cannot hold."""
ERRORS = frozenset({"#n/a", "#name?", "#ref!", "#value!", "#div/0!", "#num!", "#null!"})
"""What spreadsheets write for a formula that fails, in lower case: a text that begins with - or = is read as one."""
ABSENT = frozenset({"", "nan", "nat", "<na>", "\\n", "n/a", "na", "none", "null"}) | ERRORS
"""What programs write for a missing value, in lower case."""
UNKNOWN = frozenset({"", "nan", "nat", "<na>", "\\n"}) | ERRORS
"""Those of them that no one means as a name: ``None`` can be a class, or the answer to a question."""
_EDGES = re.compile(r"^[\s\u200b-\u200f\u2060\ufeff]+|[\s\u200b-\u200f\u2060\ufeff]+$")
"""Around a cell: spaces, and characters without width, which web pages and spreadsheets leave there."""
_NUMBER = re.compile(r"([+-]?)(0|[1-9][0-9]*|(?=\.[0-9]))(?:\.([0-9]*))?")
_EXPONENT = re.compile(r"[+-]?[0-9](?:\.([0-9]+))?[eE]([+-][0-9]{1,3})")
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2})(?::([0-9]{2}))?(?:\.([0-9]+))?(Z|[+-][0-9]{2}:?[0-9]{2})?"
)


def canonical(value: Any) -> str:
    """The form of a value by which classes, conditions, groups, ids, splits and keys of joins are compared.

    - Spaces and characters without width around it do not count; letters with accents are in Unicode's composed form
      (NFC).
    - Numbers are equal if their values are, whatever their type: 1, 1.0, ``1``, ``1.0``, ``+1.00``, Decimal("1") and
      numpy's are ``1``, and 1.50 is ``1.5``. Digits stay digits, however many.
    - A number with leading zeros is a name: ``007`` is not ``7``. So is ``1e3``, which may be hexadecimal; with the
      sign that programs write (``1e+05``, ``1.5e-05``) it is a number.
    - True, ``True`` and ``TRUE`` are ``true``, the same for false; they are not 1 and 0 (but see conditions()).
    - A date and its midnight are ``2024-01-31``; another time is ``2024-01-31 10:20:00``, with or without a T.
      Without a zone it is UTC.
    - None and NaN are ``""``. Words such as ``nan`` or ``None`` stay as they are, see identifier().

    Raises ``BadRow`` for a list, an object, and a whole number that was rounded when it was written: a float from 2**53
    on, or a spreadsheet's ``1.23457E+11``.
    """
    if isinstance(value, (float, np.floating)) and WHOLE <= abs(float(value)) < math.inf:
        raise _rounded(repr(float(value)))
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    text = composed(written(value))
    text = text if text.isascii() else _EDGES.sub("", text)
    if text[:1] in "+-.0123456789":
        if match := _EXPONENT.fullmatch(text):
            number = Decimal(text)
            # Spreadsheets write E and round to the width of the cell; R and Python write e and all digits of a float.
            digits = len(match[1] or "") if "E" in text else 0 if abs(number) >= WHOLE else int(match[2])
            if int(match[2]) > digits:
                raise _rounded(text)
            return _plain(format(number, "f"))
        if match := _TIME.fullmatch(text):
            return _moment(*match.groups())
        return _plain(text)
    lower = text.lower()
    return lower if lower in ("true", "false") else text


def composed(text: str) -> str:
    """A text in Unicode's composed form, NFC; macOS decomposes the names of files."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def written(value: Any) -> str:
    """A value as text, without spaces around it: a text as it is, and a number without zeros at its end.

    None and NaN are "". Raises ``BadRow`` for a list or an object, and for bytes that are not UTF-8.
    """
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bytes):
        try:
            return value.decode().strip()
        except UnicodeDecodeError as error:
            raise BadRow("not UTF-8", f"expected a text, found bytes that are not UTF-8: {shortened(value)}") from error
    if isinstance(value, np.generic):
        # The shortest digits that make the number in its own precision: 0.1, not 0.10000000149.
        value = float(str(value)) if isinstance(value, np.floating) else value.item()
    if isinstance(value, (dict, list, tuple)):
        raise BadRow("wrong type", f"expected a text, found {shortened(value)}")
    if value is None or value != value:
        return ""
    if isinstance(value, (float, Decimal)) and abs(value) != math.inf:
        return _plain(format(Decimal(repr(value)) if isinstance(value, float) else value, "f"))
    if isinstance(value, (datetime, date)):
        text = value.isoformat()
        return _moment(*match.groups()) if (match := _TIME.fullmatch(text)) else text
    return str(value)


def identifier(value: Any) -> str:
    """The canonical form of a value that identifies something; "" for None, NaN, and the words of ABSENT."""
    form = canonical(value)
    return "" if form.lower() in ABSENT else form


def is_number(form: str) -> bool:
    """Whether a canonical form is a number."""
    return bool(form) and _NUMBER.fullmatch(form) is not None


def _plain(text: str) -> str:
    """A number without a plus and without zeros at its end; any other text as it is."""
    match = _NUMBER.fullmatch(text)
    if not match:
        return text
    sign, whole, fraction = match[1], match[2] or "0", (match[3] or "").rstrip("0")
    digits = f"{whole}.{fraction}" if fraction else whole
    return f"-{digits}" if sign == "-" and digits != "0" else digits


def _moment(day: str, minutes: str, seconds: str | None, fraction: str | None, zone: str | None) -> str:
    fraction = (fraction or "").rstrip("0")
    zone = (zone or "").replace(":", "")
    zone = "" if zone in ("Z", "+0000") else zone
    time = f"{minutes}:{seconds or '00'}" + (f".{fraction}" if fraction else "")
    return day if time + zone == "00:00:00" else f"{day} {time}{zone}"


def _rounded(text: str) -> BadRow:
    message = f"the number {text} has lost digits; expected all digits: write the column as text"
    return BadRow("a rounded number", message)
