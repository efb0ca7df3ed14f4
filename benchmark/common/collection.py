"""Python's garbage collector, switched off where it costs more than it finds."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection(stays: bool = False) -> Iterator[None]:
    """Switch the garbage collector off in the block, and on again only if it was on before.

    stays: whether what the first such block of a process makes stays until the end, as modules do: it is never searched
        then, nor freed one by one when the process ends.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if stays and not gc.get_freeze_count():
                gc.freeze()
            gc.enable()
