"""Texts from data, which may hold anything, made safe to show: control characters, lengths, formulas of spreadsheets.

Every writer (terminal, Markdown, LaTeX, plots, CSV, the page) passes names through these functions.
"""

import codecs
import hashlib
import re
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from typing_extensions import override

LONGEST_NAME = 120
"""The most characters of a name that reports show; files of data have it whole."""
LONGEST_SENTENCE = 1000
"""The most of an explanation."""
_HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad"  # control characters but tab and line feed, and the soft hyphen
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # directions of writing, which reorder what is around them
    r"\u180e\u200b\u2028\u2029\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # without width
    r"\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"  # what no file can hold
)
_FORMULA = re.compile(r"'*[=+\-@\t\r＝＋－＠]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?%?", re.IGNORECASE)


def visible(text: str) -> str:
    r"""Write control characters, and those that change the direction of writing, as escapes.

    Tabs, line feeds and joiners, which scripts need, stay.

    >>> visible("red \x1b[31m, left \u202e")
    'red \\x1b[31m, left \\u202e'
    """
    return _HIDDEN.sub(_escaped, text)


def _escaped(sign: re.Match[str]) -> str:
    code = ord(sign[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shorten(text: str, width: int = LONGEST_NAME) -> str:
    """Leave out the middle of a text with more than ``width`` characters; six digits keep different texts apart.

    >>> shorten("a" * 20 + "z" * 20, 20)
    'aaaaaa…2ea7df…zzzzzz'
    """
    if len(text) <= width:
        return text
    number = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:6]
    ends = max(2, width - len(number) - 2)
    return f"{text[: ends - ends // 2]}…{number}…{text[-(ends // 2) :]}"


def display_name(text: str) -> str:
    """Write a name for a report: on one line, with escapes, and no longer than ``LONGEST_NAME``."""
    return shorten(" ".join(visible(text).split()))


def to_csv(text: str) -> str:
    """Write a text for a CSV file, so that no spreadsheet takes it for a formula: an apostrophe in front.

    Plain numbers stay. A text that begins so with an apostrophe gets another: whoever takes one away has what it was.

    >>> to_csv("=1+1"), to_csv("'=1+1"), to_csv("-0.5"), to_csv("clip")
    ("'=1+1", "''=1+1", '-0.5', 'clip')
    """
    # Before the control characters are escaped, as a spreadsheet may see them.
    prefix = "'" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else ""
    return prefix + visible(text)


PLAIN = "benchmark.plain"
"""The codecs' name for what to write of a character that an encoding, such as that of a terminal, does not have."""
_IN_ASCII = {"–": "-", "—": "-", "−": "-", "…": "...", "±": "+/-", "×": "x", "·": "-", "→": "->", "≥": ">=", "≤": "<="}
_IN_ASCII |= {"‘": "'", "’": "'", "“": '"', "”": '"', "•": "*", "°": " deg", "μ": "u", "−": "-", "\u202f": " "}


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    sign = error.object[error.start]
    if replaced := _IN_ASCII.get(sign):
        return replaced, error.start + 1
    return codecs.backslashreplace_errors(UnicodeEncodeError(error.encoding, sign, 0, 1, error.reason))[0], (
        error.start + 1
    )


codecs.register_error(PLAIN, _plain)


class Terminal(Console):
    """A console that shows control characters of texts as escapes, wherever these are from."""

    @override
    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def readable_size(number: float) -> str:
    """Return a number of bytes in three digits with its unit.

    >>> readable_size(4096), readable_size(1.5e9)
    ('4 kB', '1.5 GB')
    """
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e3:.0f} kB"
