"""Where derived data lie, and how a folder gets there whole or not at all."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock

from benchmark.common.errors import BenchError


def cache_root() -> Path:
    """$BENCH_CACHE, or ~/.cache/contrastive-benchmark."""
    return Path(os.environ.get("BENCH_CACHE") or Path.home() / ".cache" / "contrastive-benchmark").expanduser()


def build_folder(folder: Path, write: Callable[[Path], None], resume: bool = False) -> Path:
    """``folder``, made by ``write`` unless it exists. Written under a temporary name and renamed when whole: a folder
    under its own name is always complete, whoever was killed, and of two processes at once the first one's stays.

    resume: the temporary folder is always the same and stays when ``write`` fails, which then finds there what it had
    written; of two processes at once the second waits.
    Raises ``BenchError`` when the folder cannot be written (a full disk, no permission).
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
            os.replace(temporary, folder)
        except OSError:
            if not folder.is_dir():
                raise
    except OSError as error:
        raise BenchError(f"cache {folder}: cannot be written: {error}") from error
    except BenchError:
        # Bad data: once they are mended they go by another name.
        keep = False
        raise
    finally:
        if not keep or folder.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises ``BenchError`` when it cannot be written."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise BenchError(f"cache {path}: cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
