"""Lines for the user from code that has no console, such as that a damaged file was set aside."""

import sys
from collections.abc import Callable

_listeners: list[Callable[[str], None]] = []


def notice(message: str) -> None:
    """Show a line to the user: where the running command prints, else on standard error."""
    if _listeners:
        _listeners[-1](message)
    else:
        print(message, file=sys.stderr)


def listen(show: Callable[[str], None]) -> None:
    """Let ``show`` have the notices until ``unlisten``."""
    _listeners.append(show)


def unlisten(show: Callable[[str], None]) -> None:
    """Undo listen()."""
    if show in _listeners:
        _listeners.remove(show)
