"""Reports in text files: reading one, and choosing its sections."""

import re
import stat
from collections.abc import Iterable
from pathlib import Path

from benchmark.common.errors import reading_failed
from benchmark.data.problems import BadRow
from benchmark.data.sources.folders import located
from benchmark.data.sources.values import check_length

MAX_REPORT = 1 << 24
"""The most bytes of a text file."""
HEADING = re.compile(r"^[ \t]*([A-Z][A-Z \t/&,()'-]*?)[ \t]*:", re.MULTILINE)


def report_sections(report: str, wanted: Iterable[str]) -> str:
    """The sections of a report whose headings contain a wanted word, in the order of ``wanted``.

    A heading is in capitals and ends in a colon. Runs of spaces become one. A section whose heading contains several
    of the words is taken once.
    """
    headings = list(HEADING.finditer(report))
    ends = [heading.start() for heading in headings[1:]] + [len(report)]
    sections: dict[int, str] = {}
    for word in wanted:
        for number, (heading, end) in enumerate(zip(headings, ends)):
            text = " ".join(report[heading.end() : end].split())
            if word.upper() in heading[1].split() and text:
                sections.setdefault(number, text)
    return " ".join(sections.values())


def read_report(folder: Path, path: str, sections: tuple[str, ...]) -> str:
    """Read a text file below ``folder``: all of it, or only some sections (see report_sections()).

    Raises ``BadRow`` for a file that is missing or is not a text, and ``BenchError`` for one that cannot be opened.
    """
    report = _decode(_read(folder, path), path)
    text = report_sections(report, sections) if sections else " ".join(report.split())
    check_length(text)
    return text


def _read(folder: Path, path: str) -> bytes:
    file = located(folder, path)
    try:
        # Opening a pipe would block until another process writes to it.
        if not stat.S_ISREG(file.stat().st_mode):
            raise BadRow("missing text", f"text '{path}' is not a file")
        with file.open("rb") as opened:
            data = opened.read(MAX_REPORT + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadRow("missing text", f"text '{path}' does not exist (looked in {folder})") from error
    except OSError as error:
        # Not a bad row: bad rows are remembered until the file changes, but this error may go away without that.
        raise reading_failed(f"text '{path}' cannot be read: {error.strerror} ({file})", error) from error
    if len(data) > MAX_REPORT:
        raise BadRow("text is too large", f"text '{path}' has more than {MAX_REPORT:,} bytes")
    return data


def _decode(data: bytes, path: str) -> str:
    if b"\0" in data:
        raise BadRow("NUL byte", f"a NUL byte in text '{path}'")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRow("not UTF-8", f"text '{path}' is not UTF-8 (byte 0x{data[error.start]:02x})") from error
