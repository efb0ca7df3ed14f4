"""The exception for a user's mistake, and the words that its messages share."""

import errno
import os
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from reprlib import Repr
from threading import current_thread, main_thread
from typing import NoReturn

MOST_NAMES = 12
LONGEST = 80

_repr = Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = LONGEST
_repr.maxlevel = 2


class BenchError(Exception):
    """A user's mistake: the command line prints its message, one or two lines, without a traceback."""


class MachineError(BenchError):
    """An error of the machine, such as a full disk: it says nothing about the data, so nothing is left out for it."""


class PlugInError(BenchError):
    """An error in the code of a method or a task: the traceback is kept for its author."""


OF_THE_MACHINE = frozenset(
    getattr(errno, name)
    for name in (
        *("EAGAIN", "EDQUOT", "EIO", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC", "EROFS", "ESTALE", "ETIMEDOUT"),
        *("ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENODEV", "EREMOTEIO", "ETXTBSY"),
    )
    if hasattr(errno, name)
)
"""Numbers of errors that come from the machine, whichever file it is that was to be read."""


def is_of_the_machine(error: BaseException) -> bool:
    """Return whether an error while reading says nothing about what was read."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in OF_THE_MACHINE)


def reading_failed(message: str, error: BaseException) -> BenchError:
    """Make the error for a file that cannot be read, a ``MachineError`` where the machine is the reason."""
    return (MachineError if is_of_the_machine(error) else BenchError)(message)


def explained(error: BaseException) -> str:
    """Say in a line what the machine could not do, and with which file."""
    if not isinstance(error, OSError):
        return " ".join(filter(None, ("out of memory", f"({cut(str(error))})" if str(error) else "")))
    names = [cut(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    return ": ".join([*names, error.strerror or cut(str(error)) or type(error).__name__])


def said(error: BaseException) -> str:
    """Return kind and message of an error that no one expected, on one line; of ``sys.exit`` where it was called."""
    if not isinstance(error, SystemExit):
        return f"{type(error).__name__}: {cut(str(error))}" if str(error) else type(error).__name__
    called = f"os._exit({error.code})" if isinstance(error, ProcessExit) else f"sys.exit({shortened(error.code)})"
    return f"{called} was called in {raised_in(error)}"


def raised_in(error: BaseException) -> str:
    """Return file and line of where an error was raised, for ``os._exit`` of the call."""
    frames = traceback.extract_tb(error.__traceback__)[: -1 if isinstance(error, ProcessExit) else None]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "an unknown place"


class ProcessExit(SystemExit):
    """``os._exit`` was called: see ``kept_alive``."""


@contextmanager
def kept_alive() -> Iterator[None]:
    """Let ``os._exit`` raise ``ProcessExit`` while the block runs: a plug-in cannot end a run as if it were done.

    In a thread it ends the process, but not with status 0. Processes that are forked meanwhile end by it as before.
    """
    process, end = os.getpid(), os._exit

    def exit_(status: int) -> NoReturn:
        if os.getpid() != process:
            end(status)
        if current_thread() is not main_thread():
            end(status or 1)
        raise ProcessExit(status)

    os._exit = exit_
    try:
        yield
    finally:
        os._exit = end


def unknown(kind: str, name: str, valid: Iterable[str], see: str = "") -> BenchError:
    """Make the error for a name that is not valid: it gives the nearest valid name, and at most a dozen of all.

    see: the command that lists them all, named where the message cannot.

    >>> str(unknown("method", "clp", ["clip", "msd"]))
    "unknown method 'clp'; did you mean 'clip'? Known: clip, msd"
    """
    names = sorted(set(valid))
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{cut(near[0])}'?" if near else "."
    return BenchError(f"unknown {kind} '{cut(name)}'{hint} Known: {listed(names, see)}")


def listed(names: Iterable[str], see: str = "") -> str:
    """Join names by commas; of more than a dozen the first, and the number of the others.

    >>> listed(map(str, range(10, 30)), "bench list methods")
    '10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21 and 8 more: bench list methods'
    """
    every = list(names)
    text = ", ".join(map(cut, every[:MOST_NAMES])) or "none"
    if len(every) <= MOST_NAMES:
        return text
    return f"{text} and {len(every) - MOST_NAMES:,} more" + (f": {see}" if see else "")


def plural(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "row"), plural(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def cut(text: str, longest: int = LONGEST) -> str:
    """Shorten a text to one line of at most so many characters, by leaving out its middle."""
    if len(text) <= longest and "\n" not in text:
        return text
    half = (longest - 3) // 2
    ends = text if len(text) <= longest else f"{text[:half]}...{text[-half:]}"
    return " ".join(ends.split())


def described(value: object) -> str:
    """Say what a plug-in returned: a short value itself with its type; of an array type, shape and kind of numbers.

    >>> described(None), described(3), described("high"), described([0.5])
    ('None', '3 (int)', "'high' (str)", '[0.5] (list)')
    """
    if value is None:
        return "None"
    shape, numbers = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and numbers is not None and len(shape):
        kind = type(value).__name__.lower().removeprefix("nd")
        article = "an" if kind[0] in "aeiou" else "a"
        return f"{article} {kind} of shape {list(shape)} ({str(numbers).removeprefix('torch.')})"
    return f"{' '.join(shortened(value).split())} ({type(value).__name__})"


def shortened(value: object) -> str:
    """Return the repr of a value that a message quotes, without the middle where it is long."""
    return _repr.repr(value)
