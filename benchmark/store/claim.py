"""Claims: who works on a cell, an evaluation or a part of the cache, so that no other process does the same work.

A claim on NAME is the file .NAME.claim-G, written beside what is claimed. G is its generation: whoever takes over a
dead claim creates the next one, and the highest is that of the owner. Files are only created, under names that must be
new (O_EXCL), touched and removed, which works on a local disk and on NFS from version 3.

What is built under a claim is written in a folder that has the claim's token in its name. Whoever takes over renames
it, so that a process which was suspended in the middle of a write finds its folder gone.
"""

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from benchmark.common.errors import BenchError

BEAT = 5.0
"""Seconds between two signs of life of a claim."""
DEAD = 60.0
"""Seconds without a sign of life after which a claim is dead."""
PARTIAL = ".partial"
"""Part of the names of folders that were begun."""
TRIES = 20
"""How often a claim is tried for while others appear and vanish."""
POLL = 1.0
"""Seconds between two looks at what another process is working on."""


class ClaimLostError(BenchError):
    """Another process has taken over what this one was working on."""


@dataclass(frozen=True)
class Owner:
    """A process that holds a claim.

    host: the name of its machine. space: the boot of the machine and the process namespace, in which ``process`` and
    ``began`` (when it started, in ticks of that boot) name one process; empty where that is unknown. since: seconds
    since 1970. token: of this claim alone.
    """

    host: str
    space: str
    process: int
    began: str
    since: float
    token: str

    def __str__(self) -> str:
        return f"{self.host}:{self.process} since {time.strftime('%H:%M', time.localtime(self.since))}"

    def is_gone(self) -> bool:
        """Return whether the process ended, as far as this machine can know."""
        return bool(self.space) and self.space == _space() and _began(self.process) != self.began


class Claim:
    """A claim that this process holds while the block runs, with a sign of life every few seconds.

    Made by ``claim()``. path: its file.
    """

    def __init__(self, path: Path, owner: Owner) -> None:
        self.path, self.owner = path, owner
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="claim", daemon=True)
        self._beating.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def holds(self) -> bool:
        """Return whether the claim is still this process's."""
        return _read(self.path) == self.owner and _generation(self.path) == max(_claims(self.path), default=0)

    def check(self) -> None:
        """Raise ``ClaimLostError`` if another process has taken over: to be called before anything is written."""
        if not self.holds():
            name = _name(self.path)
            claims = _claims(self.path)
            owner = _read(_path(self.path.parent, name, max(claims))) if claims else None
            by = f"was taken over by {owner}" if owner else "was taken over, and is done"
            raise ClaimLostError(f"{self.path.parent / name}: {by}, as this process gave no sign of life")

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Raise ``ClaimLostError`` in place of an error that comes of having lost the claim, such as a folder gone."""
        try:
            yield
        except ClaimLostError:
            raise
        except Exception:
            self.check()
            raise

    def partial(self) -> Path:
        """Return the folder to build in: the one that an earlier owner left, renamed, or one that does not exist yet.

        Raises ``ClaimLostError`` as check() does.
        """
        self.check()
        name = _name(self.path)
        own = self.path.parent / f".{name}{PARTIAL}-{self.owner.token[:8]}"
        if not own.exists() and (left := unfinished(self.path.parent / name)):
            left.replace(own)
        return own

    def release(self) -> None:
        """Give the claim up, if it is still this process's."""
        self._ended.set()
        if _read(self.path) == self.owner:
            with suppress(OSError):
                self.path.unlink()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            try:
                os.utime(self.path)
            except FileNotFoundError:
                return
            except OSError:
                continue


def claim(path: Path) -> Claim | Owner:
    """Claim what lies at ``path``, or will; return the live owner if there is one.

    A dead claim is taken over: its process is gone from this machine, or it gave no sign of life for ``DEAD`` seconds.
    Of several processes that try, at most one gets the claim. Raises ``OSError`` where the folder cannot be written to.
    """
    for attempt in range(TRIES):
        claims = _claims(_path(path.parent, path.name, 0))
        latest = max(claims, default=0)
        before = _path(path.parent, path.name, latest)
        if latest:
            owner = _read(before)
            if owner is not None and not _is_dead(before, owner):
                return owner
            if owner is None and not _is_silent(before):
                if attempt == TRIES - 1 and before.exists():
                    # Its process died, or its machine did, before it had written who it is.
                    return Owner("unknown", "", 0, "", time.time(), before.name)
                # Being written, or removed, at this moment.
                time.sleep(0.01 * (attempt + 1))
                continue
        mine = _create(_path(path.parent, path.name, latest + 1))
        if mine is None:
            continue
        if max(_claims(mine.path), default=0) == latest + 1 and (not latest or before.exists()):
            for generation in claims:
                with suppress(OSError):
                    _path(path.parent, path.name, generation).unlink()
            return mine
        # The claim before was given up, not dead: another process may have begun to count from one again.
        mine.release()
        time.sleep(0.01 * (attempt + 1))
    raise BenchError(f"{path}: cannot be claimed, as other processes try at the same time; try again")


def wait_for(path: Path, done: Callable[[], bool], waiting: Callable[[Owner], None] = lambda _: None) -> Claim | None:
    """Claim what lies at ``path``, or wait while another process works on it; None once ``done`` says that it is there.

    waiting: called with the owner at each look, may raise to stop. Raises ``OSError`` where the folder cannot be
    written to.
    """
    while not done():
        claimed = claim(path)
        if isinstance(claimed, Claim):
            if not done():
                return claimed
            claimed.release()
            return None
        waiting(claimed)
        time.sleep(POLL)
    return None


def unfinished(path: Path) -> Path | None:
    """Return the folder in which an earlier owner began to build what lies at ``path``; None if there is none."""
    start = f".{path.name}{PARTIAL}"
    try:
        with os.scandir(path.parent) as entries:
            return next((Path(entry) for entry in entries if entry.name.startswith(start) and entry.is_dir()), None)
    except FileNotFoundError:
        return None


def owner_of(path: Path) -> Owner | None:
    """Return the live owner of what lies at ``path``, or will; None if nobody works on it."""
    latest = max(_claims(_path(path.parent, path.name, 0)), default=0)
    if not latest:
        return None
    return _live_owner(_path(path.parent, path.name, latest))


def owners(folder: Path) -> dict[str, Owner]:
    """Return the live owners of what lies in ``folder``, or will, by its names; the folder is listed once."""
    latest: dict[str, int] = {}
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            name, separator, generation = entry.name.rpartition(".claim-")
            if separator and name.startswith(".") and generation.isdigit():
                latest[name[1:]] = max(latest.get(name[1:], 0), int(generation))
    live = {name: _live_owner(_path(folder, name, generation)) for name, generation in latest.items()}
    return {name: owner for name, owner in live.items() if owner}


def _path(folder: Path, name: str, generation: int) -> Path:
    return folder / f".{name}.claim-{generation}"


def _name(path: Path) -> str:
    return path.name[1:].rpartition(".claim-")[0]


def _generation(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _claims(path: Path) -> list[int]:
    """The generations of the claims that exist on what ``path`` is a claim on."""
    start = path.name.rpartition("-")[0] + "-"
    # Not glob: names may contain its special characters, and os.scandir lists a folder on NFS anew.
    try:
        with os.scandir(path.parent) as entries:
            rests = [entry.name.removeprefix(start) for entry in entries if entry.name.startswith(start)]
    except FileNotFoundError:
        return []
    return [int(rest) for rest in rests if rest.isdigit()]


def _create(path: Path) -> Claim | None:
    """Create the file of a claim; None if another process was faster."""
    owner = Owner(platform.node(), _space(), os.getpid(), _began(os.getpid()), time.time(), uuid4().hex)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump(asdict(owner), file)
    except FileExistsError:
        return None
    return Claim(path, owner)


def _read(path: Path) -> Owner | None:
    """Read the owner from the file of a claim; None if it is gone or not yet written."""
    try:
        return Owner(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _live_owner(path: Path) -> Owner | None:
    owner = _read(path)
    return None if owner is None or _is_dead(path, owner) else owner


def _is_dead(path: Path, owner: Owner) -> bool:
    return owner.is_gone() or _is_silent(path)


def _is_silent(path: Path) -> bool:
    """Return whether the file of a claim has not been touched for too long, by the clock of the disk that it is on."""
    try:
        touched = path.stat().st_mtime
        if time.time() - touched < DEAD / 2:
            return False
        clock = path.with_name(f".clock-{uuid4().hex}")
        clock.touch()
        now = clock.stat().st_mtime
        clock.unlink()
    except FileNotFoundError:
        return False
    return now - touched > DEAD


@cache
def _space() -> str:
    """Identify the boot of this machine and the process namespace; empty where that is unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _began(process: int) -> str:
    """Return when a process of this machine started, in ticks since the boot; empty if there is no such process.

    Process numbers are used again. A zombie has ended.
    """
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]
