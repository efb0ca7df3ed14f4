"""Look at many files: one after the other, or in threads where the disk makes one wait."""

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Files = TypeVar("Files", bound=Sized)
T = TypeVar("T")

SLOW = 5e-5
"""Seconds a file from which on threads pay. Below, passing the interpreter's lock around takes longer than the file."""
THREADS = 16
"""The most threads; a network's disk answers many questions at once."""


def by_chunks(work: Callable[[Files], T], chunks: Iterable[Files]) -> Iterator[T]:
    """Yield what ``work`` returns for each chunk of files, in order; at most ``THREADS`` chunks are read ahead."""
    rest = iter(chunks)
    for chunk in rest:
        began = time.monotonic()
        result = work(chunk)
        took = time.monotonic() - began
        yield result
        if took > SLOW * len(chunk):
            break
    with ThreadPoolExecutor(THREADS) as pool:
        while several := list(islice(rest, THREADS)):
            yield from pool.map(work, several)
