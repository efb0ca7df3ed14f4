"""The one exception that a user's mistake ends in, and the words it uses."""

from collections.abc import Iterable
from difflib import get_close_matches


class BenchError(Exception):
    """A mistake of the user's: the command line prints its message, one or two lines, without a traceback."""


def unknown(kind: str, name: str, valid: Iterable[str]) -> BenchError:
    """The error for a name that is not one of ``valid``: names the nearest valid one and lists them all.

    >>> str(unknown("method", "clp", ["clip", "msd"]))
    "unknown method 'clp'; did you mean 'clip'? Known: clip, msd"
    """
    names = sorted(set(valid))
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return BenchError(f"unknown {kind} '{name}'{hint} Known: {', '.join(names) or 'none'}")
