"""Two ranks for tests: this process and one that is forked once, in a gloo group; both call the same function."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from benchmark.training.ranks import Ranks

CONTEXT = get_context("fork")
PATIENCE = timedelta(seconds=60)


class Pair:
    """Calls functions on two ranks. A failure of one ends the group: the next call makes another."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.groups = folder, 0
        self.process: Any = None

    def __call__(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Return what a function of a module returns on each rank; its first argument is ``Ranks``."""
        if self.process is None:
            self.start()
        self.calls.send((function, args))
        try:
            own = function(Ranks(0, 2), *args)
        except BaseException:
            self.close()
            raise
        other = self.calls.recv()
        if isinstance(other, BaseException):
            self.close()
            raise other
        return [own, other]

    def start(self) -> None:
        self.groups += 1
        self.calls, theirs = CONTEXT.Pipe()
        store = self.folder / f"group-{self.groups}"
        self.process = CONTEXT.Process(target=_serve, args=(theirs, store), daemon=True)
        self.process.start()
        join(store, 0)

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None
            distributed.destroy_process_group()


def join(store: Path, rank: int) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=PATIENCE)


def _serve(calls: Connection, store: Path) -> None:
    torch.set_num_threads(1)
    join(store, 1)
    while True:
        function, args = calls.recv()
        try:
            answer = function(Ranks(1, 2), *args)
        except Exception as error:
            answer = error
        calls.send(answer)


@contextmanager
def pair_in(folder: Path) -> Iterator[Pair]:
    pair = Pair(folder)
    try:
        yield pair
    finally:
        pair.close()
