"""The ranks of a run: rank 0 carries it out, and the others only train with it the cells that it tells them to.

Rank 0 starts the others on this machine when the first cell is trained (``gpus_per_cell``), or torchrun has started
them all. ``python -m benchmark.execution.team`` is a rank that rank 0 started; it ends when its standard input does.
"""

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import torch
from rich.console import Console
from torch import distributed

from benchmark.common.errors import BenchError, plural, said
from benchmark.common.interrupts import STOPPED, STOPPING
from benchmark.common.progress import Progress
from benchmark.common.torchrun import Started, torchrun
from benchmark.config.schema import RunConfig
from benchmark.config.validation import validated
from benchmark.execution.materials import Materials
from benchmark.execution.plugins import plugin_files
from benchmark.plan.plan import Cell, Plan
from benchmark.registry import load_files
from benchmark.store.cache import cache_root
from benchmark.training.accumulation import OUT_OF_MEMORY
from benchmark.training.ranks import ALONE, RankLostError, Ranks, SharedError, micro_batch_count

READY = "ready"
"""What a rank prints when it is about to join the others."""
PATIENCE = timedelta(days=7)
"""How long ranks wait for each other: rank 0 evaluates and prepares data while the others wait."""
GRACE = 30.0
"""Seconds after the death of another rank at which rank 0 ends, if it still waits for it."""
INTERFACE = "GLOO_SOCKET_IFNAME"
LOOPBACK = {"Linux": "lo", "Darwin": "lo0"}
THREADS = "OMP_NUM_THREADS"


class Team:
    """The ranks of a run, as rank 0 has them: a context in which ``training`` may be called.

    If one rank fails, all end; the next training starts others.
    """

    def __init__(self, plan: Plan, progress: Progress, cache: Path) -> None:
        self.plan, self.progress, self.cache = plan, progress, cache
        self.count = plan.config.gpus_per_cell
        self.started = torchrun()
        self._ranks: Ranks | None = None
        self._others: list[_Other] = []
        self._is_lost = False
        self._threads = torch.get_num_threads()

    def check(self) -> None:
        """Raise ``BenchError`` if there are fewer GPUs than ranks on this machine, or no way for ranks to talk."""
        if self.count > 1 and not distributed.is_available():
            raise BenchError(
                "gpus_per_cell: this build of torch has no torch.distributed; install another, or leave it 1"
            )
        if self.plan.device.type == "cuda" and not self.started and torch.cuda.device_count() < self.count:
            here = plural(torch.cuda.device_count(), "GPU")
            raise BenchError(f"gpus_per_cell is {self.count}, but this process has {here}")

    @contextmanager
    def training(self, cell: Cell) -> Iterator[Ranks]:
        """Have the other ranks train a cell too, while the block does with the ``Ranks`` that it gets.

        A cell with fewer micro-batches than ranks is trained by rank 0 alone. Raises ``BenchError`` with the reason if
        another rank ends.
        """
        if self.count == 1 or micro_batch_count(cell.training) < self.count:
            yield ALONE
            return
        ranks = self._ranks or self._start()
        with self._watched():
            try:
                ranks.from_first(lambda: cell)
                yield ranks
            except SharedError:
                raise
            except BaseException as error:
                reason = self._reason() if isinstance(error, RankLostError) else None
                self._end()
                if reason:
                    raise BenchError(reason) from error
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self.started and not self._is_lost and self.count > 1 and self._ranks is None:
            # The others wait to be told something.
            self._start()
        if self._ranks and error is None:
            with suppress(RankLostError):
                self._ranks.from_first(lambda: None)
            for other in self._others:
                with suppress(subprocess.TimeoutExpired):
                    other.process.wait(GRACE)
        self._end()

    def _start(self) -> Ranks:
        if self._is_lost:
            raise BenchError("another rank has ended; start all of them again")
        if self.started:
            self._ranks = _join(self.started, self.plan.device)
            return self._ranks
        torch.set_num_threads(max(1, self._threads // self.count))
        self._folder = tempfile.TemporaryDirectory(prefix="bench-ranks-")
        try:
            for rank in range(1, self.count):
                order = _Order(
                    rank,
                    self.count,
                    self.plan.device.type,
                    self._folder.name,
                    torch.get_num_threads(),
                    self.plan.config.model_dump(mode="json"),
                    plugin_files(self.plan),
                    str(self.cache),
                )
                self._others.append(_Other(order))
            for other in self._others:
                other.is_ready_or_ended.wait()
                if other.process.poll() is not None:
                    raise BenchError(f"rank {other.rank} did not start: {other.last_words()}")
            self._ranks = _join(Started(0, self.count, 0), self.plan.device, self._folder.name)
        except BaseException:
            self._end()
            raise
        return self._ranks

    def _end(self) -> None:
        """End the other ranks, at once."""
        for other in self._others:
            other.end()
        if self._others:
            self._folder.cleanup()
            torch.set_num_threads(self._threads)
        if self._ranks:
            distributed.destroy_process_group()
            self._is_lost = self.started is not None
        self._others, self._ranks = [], None

    def _reason(self) -> str | None:
        """Say which other rank ended and why; None if none did."""
        for other in self._others:
            with suppress(subprocess.TimeoutExpired):
                other.process.wait(GRACE / len(self._others))
        ended = [other for other in self._others if other.process.poll() is not None]
        # Those that only lost another one say nothing.
        ended.sort(key=lambda other: other.process.returncode >= 0 and not other.lines)
        return f"rank {ended[0].rank} ended: {ended[0].last_words()}" if ended else None

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """End this process if another rank dies and this one goes on waiting for it, which it may do on GPUs."""
        left = threading.Event()

        def watch() -> None:
            while not left.wait(1.0):
                if any(other.process.poll() is not None for other in self._others) and not left.wait(GRACE):
                    self.progress.print(self._reason() or "another rank ended", "red")
                    os._exit(1)

        threading.Thread(target=watch, name="ranks", daemon=True).start()
        try:
            yield
        finally:
            left.set()


@dataclass(frozen=True)
class _Order:
    """What a rank is told when it is started. folder: in which the ranks find each other."""

    rank: int
    count: int
    device: str
    folder: str
    threads: int
    config: dict[str, Any]
    plugins: list[str]
    cache: str


class _Other:
    """Another rank, a process of this machine. lines: what it printed."""

    def __init__(self, order: _Order) -> None:
        self.rank = order.rank
        self.lines: list[str] = []
        self.is_ready_or_ended = threading.Event()
        # Not in this session: Ctrl-C is for rank 0, which stops all after the same step.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmark.execution.team"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {THREADS: str(order.threads)},
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
            self.process.stdin.flush()
        self.reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self.reader.start()

    def last_words(self) -> str:
        """Return the last line that it printed; else how it died."""
        self.reader.join(GRACE)
        status = self.process.returncode or 0
        death = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return death if status < 0 or not self.lines else self.lines[-1]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.reader.join(GRACE)
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]

    def _read(self, output: IO[bytes]) -> None:
        for line in output:
            text = line.decode(errors="replace").strip()
            if text == READY:
                self.is_ready_or_ended.set()
            elif text:
                self.lines.append(text)
        self.process.wait()
        self.is_ready_or_ended.set()


def follow(plan: Plan, ranks: Ranks | None = None, cache: Path | None = None) -> None:
    """Be another rank than the first: train what rank 0 says until it has nothing left.

    ranks: None for a process of torchrun. Raises ``RankLostError`` if another rank ends.
    """
    for number in STOPPING:
        # While it waits, nothing is lost; in a training these stop all ranks.
        signal.signal(number, signal.SIG_DFL)
    ranks = ranks or _join(torchrun(), plan.device)  # type: ignore[arg-type]
    materials = Materials(plan, Progress(Console(quiet=True), "none"), cache or cache_root())
    while (cell := _told(ranks)) is not None:
        with suppress(SharedError):
            materials.train_along(cell, ranks)
    distributed.destroy_process_group()


def _told(ranks: Ranks) -> Cell | None:
    """Wait for rank 0 to say what to train; None at the end."""
    return ranks.from_first(lambda: None)


def _join(started: Started, device: torch.device, folder: str | None = None) -> Ranks:
    """Join the other ranks. folder: in which ranks of one machine find each other; None: as torchrun says."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(started.local)
    with _on_this_machine() if folder else nullcontext():
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            init_method=f"file://{folder}/ranks" if folder else "env://",
            rank=started.rank,
            world_size=started.count,
            timeout=PATIENCE,
        )
    return Ranks(started.rank, started.count, torch.device("cuda", started.local) if on_gpu else None)


@contextmanager
def _on_this_machine() -> Iterator[None]:
    """Let gloo use the loopback interface, unless the user names another: it is there without a network too."""
    named = os.environ.get(INTERFACE)
    if named is None and platform.system() in LOOPBACK:
        os.environ[INTERFACE] = LOOPBACK[platform.system()]
    try:
        yield
    finally:
        if named is None:
            os.environ.pop(INTERFACE, None)


def main() -> int:
    """Be a rank that rank 0 started; return the exit status."""
    from benchmark.plan.make import make_plan

    order = _Order(**json.loads(sys.stdin.readline()))

    def end_with_first() -> None:
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=end_with_first, name="rank 0", daemon=True).start()
    torch.set_num_threads(order.threads)
    print(READY, flush=True)
    try:
        started = Started(order.rank, order.count, order.rank)
        ranks = _join(started, torch.device(order.device), order.folder)
        load_files(order.plugins)
        cache = Path(order.cache)
        follow(make_plan(validated(RunConfig, order.config, "the configuration of rank 0"), cache), ranks, cache)
    except RankLostError:
        return 1
    except KeyboardInterrupt:
        return STOPPED
    except torch.OutOfMemoryError:
        print(OUT_OF_MEMORY)
        return 1
    except Exception as error:
        print(" ".join(str(error).split()) if isinstance(error, BenchError) else said(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
