"""Let Ctrl-C, and the signals by which a scheduler asks for the machine back, wait until it is safe to stop."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

STOPPED = 75
"""The exit status of a process that stopped to be started again: EX_TEMPFAIL of sysexits.h."""
INTERRUPTED = 130
"""The exit status after Ctrl-C."""
STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""The signals by which a scheduler asks a process to stop."""


class StoppedError(KeyboardInterrupt):
    """A scheduler asked this process to stop (``STOPPING``). The message is the name of the signal."""

    @classmethod
    def by(cls, number: int) -> "StoppedError":
        """Make the error for a signal."""
        return cls(signal.Signals(number).name)


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise ``StoppedError`` in the main thread when a signal of ``STOPPING`` comes, unless it is deferred.

    Once: those that come while the process ends are ignored. Outside the main thread nothing changes.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for each in old:
            signal.signal(each, signal.SIG_IGN)
        raise StoppedError.by(number)

    if current_thread() is not main_thread():
        yield
        return
    old = {number: signal.signal(number, stop) for number in _handled(STOPPING)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def deferred_interrupt(ctrl_c: bool = True) -> Iterator[Callable[[], KeyboardInterrupt | None]]:
    """Record Ctrl-C and the signals of ``STOPPING`` instead of stopping at once; a second Ctrl-C stops immediately.

    Yields a function that returns what to raise once it is safe; None if no signal came. Signals that the caller
    ignores (nohup, a background job) stay ignored, and outside the main thread nothing is deferred. ctrl_c: whether
    Ctrl-C is deferred too.
    """
    asked: KeyboardInterrupt | None = None

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = asked or (KeyboardInterrupt() if number == signal.SIGINT else StoppedError.by(number))
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if current_thread() is not main_thread():
        yield lambda: None
        return
    numbers = (signal.SIGINT, *STOPPING) if ctrl_c else STOPPING
    old = {number: signal.signal(number, ask) for number in _handled(numbers)}
    try:
        yield lambda: asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _handled(numbers: tuple[int, ...]) -> list[int]:
    """The signals that the caller does not ignore."""
    return [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
