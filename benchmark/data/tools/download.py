"""Download a file over HTTP: resumed where it stopped, retried when the host falters, checked at the end."""

import errno
import hashlib
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from benchmark import __version__
from benchmark.common.errors import BenchError, plural
from benchmark.common.hub import one_line

AGENT = f"contrastive-benchmark/{__version__}"
CHUNK = 1 << 20
"""The most bytes read at once."""
LONGEST_ANSWER = 10 << 20
"""The most bytes of an answer that is not a file."""
LATER = (408, 425, 429, 500, 502, 503, 504)
"""The answers after which the same request may succeed."""
LONGEST_PAUSE = 60.0
"""The most seconds between two attempts."""

Update = Callable[[int, int | None], object]
"""Called with the number of bytes that are here and the number of all, None where the host does not say it."""


@dataclass(frozen=True)
class Patience:
    """How long a slow or failing host is waited for.

    timeout: seconds without a byte. attempts: those in a row that bring no byte. pause: seconds before the second
    attempt; each further pause is twice as long.
    """

    timeout: float = 60.0
    attempts: int = 6
    pause: float = 1.0


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is here: its size in bytes, and a checksum as (algorithm, hexadecimal)."""

    size: int | None = None
    checksum: tuple[str, str] | None = None


class _Faltered(Exception):
    """The host or the network failed in a way that may pass.

    pause: seconds that the host asks to wait. offline: whether the host was not found at all.
    """

    def __init__(self, reason: str, pause: float = 0.0, offline: bool = False) -> None:
        super().__init__(reason)
        self.pause, self.offline = pause, offline


def download(url: str, path: Path, expected: Expected, update: Update, patience: Patience) -> None:
    """Download ``url`` to ``path``.

    Until it is whole and checked it is ``path`` with the suffix .part. An interrupted download goes on there; only a
    host that cannot send a part of a file starts it again.

    Raises ``BenchError`` when the host refuses, keeps failing, or offers a file of another size; when the disk is full;
    and when size or checksum are wrong, in which case the part is deleted.
    """
    part = path.with_name(f"{path.name}.part")
    failures, first = 0, size_of(part)
    while True:
        before = size_of(part)
        try:
            if expected.size is None or before != expected.size:
                _receive(url, part, expected.size, update, patience.timeout)
            break
        except _Faltered as error:
            here = size_of(part)
            if error.offline and here == first:
                raise BenchError(f"{url}: {error}; is this machine online?") from error
            failures = 1 if here > before else failures + 1
            if failures >= patience.attempts:
                kept = f"; the same command goes on from the {megabytes(here)} in {part}" if here else ""
                raise BenchError(f"{url}: {error} ({plural(failures, 'attempt')}){kept}") from error
            time.sleep(min(max(error.pause, patience.pause * 2 ** (failures - 1)), LONGEST_PAUSE))
    if problem := wrong(part, expected):
        _remove(part)
        raise BenchError(
            f"{url}: what arrived {problem}; it was deleted. Try again; if it stays so, the host's file has changed"
        )
    try:
        part.replace(path)
    except OSError as error:
        raise BenchError(f"{path}: cannot be written: {error.strerror}") from error


def wrong(path: Path, expected: Expected) -> str:
    """Explain what is wrong with a file: its size or its checksum; "" if it is as expected."""
    if expected.size is not None and size_of(path) != expected.size:
        return f"has {size_of(path):,} bytes, expected {expected.size:,}"
    if expected.checksum:
        name, wanted = expected.checksum
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, name).hexdigest()
        if actual != wanted:
            return f"has {name} {actual}, expected {wanted}"
    return ""


def read(url: str, patience: Patience) -> bytes:
    """Return a small answer of a host. Raises ``OSError`` or ``HTTPException`` without one."""
    with urlopen(Request(url, headers={"User-Agent": AGENT}), timeout=patience.timeout) as answer:
        content: bytes = answer.read(LONGEST_ANSWER)
        return content


def size_at(url: str, patience: Patience) -> int | None:
    """Ask a host for the size of a file in bytes; None where it does not say."""
    try:
        with urlopen(Request(url, headers={"User-Agent": AGENT}, method="HEAD"), timeout=patience.timeout) as answer:
            return _length(answer)
    except (OSError, HTTPException):
        return None


def size_of(path: Path) -> int:
    """Return the bytes of a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def megabytes(count: int) -> str:
    """Write a number of bytes in its unit.

    >>> megabytes(316_209), megabytes(1_366_522_108)
    ('0.3 MB', '1.4 GB')
    """
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _receive(url: str, part: Path, size: int | None, update: Update, timeout: float) -> None:
    """Append what is missing to the part. Raises ``_Faltered`` while it is not whole."""
    have = size_of(part)
    if size is not None and have > size:
        _remove(part)
        have = 0
    headers = {"User-Agent": AGENT} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with urlopen(Request(url, headers=headers), timeout=timeout) as answer:
            have, total = _begin(answer, have)
            if total is not None and size is not None and total != size:
                raise BenchError(
                    f"{url}: the host offers {total:,} bytes, expected {size:,}: the file has changed, or the host "
                    "answers with another one"
                )
            with _opened(part, "ab" if have else "wb") as file:
                while chunk := answer.read1(CHUNK):
                    _write(file, chunk)
                    have += len(chunk)
                    update(have, total)
    except HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{have}":
            return  # The part is whole, but its size was not known.
        raise _refusal(error, url, part) from error
    except (OSError, HTTPException) as error:
        raise _fault(error) from error
    if total is not None and have < total:
        raise _Faltered(f"the connection was cut at {have:,} of {total:,} bytes")


def _begin(answer: HTTPResponse, have: int) -> tuple[int, int | None]:
    """Return the byte that the answer begins with, and the size of the whole file, None where it is not said."""
    if answer.headers.get_content_type() == "text/html":
        raise BenchError(f"{answer.url}: the host answers with a page, not with a file")
    length = _length(answer)
    if answer.status != 206:
        return 0, length
    place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if not place or int(place[1]) != have:
        raise _Faltered(f"asked for the bytes from {have:,}, the host sent {answer.headers.get('Content-Range')}")
    return have, int(place[2]) if place[2] != "*" else None


def _length(answer: HTTPResponse) -> int | None:
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _refusal(error: HTTPError, url: str, part: Path) -> Exception:
    """Return what an answer with an error means: one that may pass, or a ``BenchError``."""
    if error.code == 416:
        # The part is longer than the file.
        _remove(part)
        return _Faltered("the host has fewer bytes than were received; they were deleted")
    if error.code in LATER:
        pause = error.headers.get("Retry-After", "")
        return _Faltered(f"HTTP {error.code} {error.reason}", float(pause) if pause.isdecimal() else 0.0)
    return BenchError(f"{url}: HTTP {error.code} {error.reason}")


def _fault(error: Exception) -> _Faltered:
    """Return what a failed connection means."""
    cause = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError):
        return _Faltered("no answer in time")
    offline = isinstance(cause, socket.gaierror) or getattr(cause, "errno", 0) == errno.ENETUNREACH
    text = getattr(cause, "strerror", None) or one_line(cause if isinstance(cause, Exception) else error)
    return _Faltered(text, offline=offline)


def _opened(part: Path, mode: str) -> IO[bytes]:
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        return part.open(mode, buffering=0)
    except OSError as error:
        raise BenchError(f"{part}: cannot be written: {error.strerror}") from error


def _write(file: IO[bytes], chunk: bytes) -> None:
    """Write all of a chunk. An error of the disk is not one of the network."""
    try:
        while chunk:
            chunk = chunk[file.write(chunk) :]
    except OSError as error:
        raise BenchError(f"{file.name}: cannot be written: {error.strerror}; what is there is kept") from error


def _remove(part: Path) -> None:
    try:
        part.unlink(missing_ok=True)
    except OSError as error:
        raise BenchError(f"{part}: cannot be deleted: {error.strerror}") from error
