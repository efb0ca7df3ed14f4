"""The cache of derived data, in which a folder or file is complete or absent."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from benchmark.common.errors import BenchError, MachineError
from benchmark.store.claim import Claim, ClaimLostError, wait_for


def cache_root() -> Path:
    """Return the cache's folder: $BENCH_CACHE, or ~/.cache/contrastive-benchmark."""
    return Path(os.environ.get("BENCH_CACHE") or Path.home() / ".cache" / "contrastive-benchmark").expanduser()


def build_folder(folder: Path, write: Callable[[Path], None], resume: bool = False) -> Path:
    """Build ``folder`` with ``write`` unless it exists; return it.

    It is written under a temporary name and renamed at the end, so a folder under its final name is always complete,
    even if a process is killed. A second process waits for the first.

    resume: keep the temporary folder if ``write`` fails, so that the next call continues in it.
    Raises ``MachineError`` if the folder cannot be written (disk full, no permission).
    """
    while not folder.is_dir():
        try:
            claimed = wait_for(folder, folder.is_dir)
        except OSError as error:
            raise MachineError(
                f"cache {folder.parent}: cannot be written: {error.strerror}; set BENCH_CACHE"
            ) from error
        if claimed is not None:
            # Who has taken over builds the same: it is waited for.
            with suppress(ClaimLostError), claimed, claimed.guarding():
                _build(folder, claimed, write, resume)
    return folder


def _build(folder: Path, claimed: Claim, write: Callable[[Path], None], keep: bool) -> None:
    temporary = claimed.partial()
    try:
        if not keep:
            shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True, exist_ok=True)
        write(temporary)
        claimed.check()
        temporary.replace(folder)
    except OSError as error:
        # What lies there came from a process without claims, such as an older version.
        if not folder.is_dir():
            raise MachineError(f"cache {folder}: cannot be written: {error}") from error
    except MachineError:
        raise
    except BenchError:
        # Bad data: once corrected, they get another key and thus another folder.
        keep = False
        raise
    finally:
        # Its name is this claim's alone: after a takeover it is not there.
        if not keep:
            shutil.rmtree(temporary, ignore_errors=True)


def write_file(path: Path, data: bytes) -> None:
    """Write a file completely or not at all. Raises ``MachineError`` if it cannot be written."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise MachineError(f"cache {path}: cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
