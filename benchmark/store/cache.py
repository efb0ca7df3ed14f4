"""The cache of derived data, in which a folder or file is complete or absent."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock

from benchmark.common.errors import BenchError


def cache_root() -> Path:
    """Return the cache's folder: $BENCH_CACHE, or ~/.cache/contrastive-benchmark."""
    return Path(os.environ.get("BENCH_CACHE") or Path.home() / ".cache" / "contrastive-benchmark").expanduser()


def build_folder(folder: Path, write: Callable[[Path], None], resume: bool = False) -> Path:
    """Build ``folder`` with ``write`` unless it exists; return it.

    It is written under a temporary name and renamed at the end, so a folder under its final name is always complete,
    even if a process is killed. If two processes build it at once, the first result stays.

    resume: keep the temporary folder if ``write`` fails, so that the next call continues in it; a second process waits.
    Raises ``BenchError`` if the folder cannot be written (disk full, no permission).
    """
    if folder.is_dir():
        return folder
    if resume:
        lock = folder.parent.with_name("locks") / f"{folder.name}.lock"
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(lock):
                return _build(folder, folder.parent / f".{folder.name}.partial", write, True)
        except OSError as error:
            raise BenchError(f"cache {lock.parent}: cannot be written: {error.strerror}; set BENCH_CACHE") from error
    return _build(folder, folder.parent / f".{folder.name}.{uuid4().hex}", write, False)


def _build(folder: Path, temporary: Path, write: Callable[[Path], None], keep: bool) -> Path:
    if folder.is_dir():
        return folder
    try:
        temporary.mkdir(parents=True, exist_ok=keep)
    except OSError as error:
        raise BenchError(f"cache {folder.parent}: cannot be written: {error.strerror}; set BENCH_CACHE") from error
    try:
        write(temporary)
        try:
            temporary.replace(folder)
        except OSError:
            if not folder.is_dir():
                raise
    except OSError as error:
        raise BenchError(f"cache {folder}: cannot be written: {error}") from error
    except BenchError:
        # Bad data: once corrected, they get another key and thus another folder.
        keep = False
        raise
    finally:
        if not keep or folder.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def write_file(path: Path, data: bytes) -> None:
    """Write a file completely or not at all. Raises ``BenchError`` if it cannot be written."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise BenchError(f"cache {path}: cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
