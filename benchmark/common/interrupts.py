"""Let Ctrl-C and SIGTERM wait until it is safe to stop."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Record Ctrl-C and SIGTERM instead of stopping at once; a second Ctrl-C stops immediately.

    Yields a function that tells whether one came. Signals that the caller ignores (nohup, a background job) stay
    ignored, and outside the main thread nothing is deferred.
    """
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if current_thread() is not main_thread():
        yield lambda: False
        return
    handled = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    old = {number: signal.signal(number, ask) for number in handled}
    try:
        yield lambda: asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
