"""The cache of derived data, in which a folder or file is complete or absent."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmark.common.errors import BenchError, MachineError
from benchmark.store.claim import Claim, ClaimLostError, wait_for
from benchmark.store.files import DamagedError, commit, intact, read_json, seal_folder, set_aside, write_sealed


def cache_root() -> Path:
    """Return the cache's folder: $BENCH_CACHE, or ~/.cache/contrastive-benchmark."""
    return Path(os.environ.get("BENCH_CACHE") or Path.home() / ".cache" / "contrastive-benchmark").expanduser()


def build_folder(
    folder: Path, write: Callable[[Path], None], resume: bool = False, check: Callable[[Path], bool] = intact
) -> Path:
    """Build ``folder`` with ``write`` unless it exists; return it.

    It is written under a temporary name and renamed at the end, so a folder under its final name is always complete,
    even if a process is killed. A second process waits for the first. What is damaged is set aside and built again.

    resume: keep the temporary folder if ``write`` fails, so that the next call continues in it. check: returns whether
    the folder is there and intact, and sets it aside if not; default: by the digests of its files, each once per state.
    Raises ``MachineError`` if the folder cannot be written (disk full, no permission).
    """
    while not check(folder):
        try:
            claimed = wait_for(folder, folder.is_dir)
        except OSError as error:
            raise MachineError(
                f"cache {folder.parent}: cannot be written: {error.strerror}; set BENCH_CACHE"
            ) from error
        if claimed is not None:
            # Who has taken over builds the same: it is waited for.
            with suppress(ClaimLostError), claimed, claimed.guarding():
                _build(folder, claimed, write, resume, seal=check is intact)
    return folder


def _build(folder: Path, claimed: Claim, write: Callable[[Path], None], keep: bool, seal: bool) -> None:
    temporary = claimed.partial()
    try:
        if not keep:
            shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True, exist_ok=True)
        write(temporary)
        if seal:
            seal_folder(temporary)
        claimed.check()
        commit(temporary, folder)
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


def remembered(path: Path) -> Any:
    """Read the value that remember() wrote; None if there is none, or if it is damaged, which is set aside."""
    if not path.is_file():
        return None
    try:
        value = read_json(path, "it is made again")
    except DamagedError as error:
        set_aside(path, error)
        return None
    # Earlier versions wrote the value alone, without its hash.
    return value.get("value") if isinstance(value, dict) else None


def remember(path: Path, value: Any) -> None:
    """Write a value that JSON can hold into a file. Raises ``MachineError`` if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(path, {"value": value})
    except OSError as error:
        raise MachineError(f"cache {path}: cannot be written: {error.strerror}") from error
