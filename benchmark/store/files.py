"""Files that are whole or absent, also after a power loss, and whose damage is noticed when they are read.

A record is a JSON file that says what was written beside it: {"format", "time", "count", "files", "content", "sha256"}.
files: the SHA-256 of each file in its folder; sha256: of everything else in the record. Files of versions before 0.2
have neither and are read without a check.
"""

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import numpy as np

from benchmark.common.errors import BenchError, cut
from benchmark.common.notices import notice
from benchmark.store.hashing import digest, file_digest

FORMAT = 1
"""Version of the layout of a record."""
SEAL = "sha256"
ASIDE = ".damaged-"
"""Part of the names of what was damaged and set aside."""
FILES = "files.json"
"""The record of a folder that has no other."""


class DamagedError(BenchError):
    """A file is not what was written. path: the file; remedy: what to do about it."""

    def __init__(self, path: Path, problem: str, remedy: str) -> None:
        super().__init__(f"{path}: {problem}; {remedy}")
        self.path = path


@dataclass(frozen=True)
class Record:
    """What a record says.

    time: when it was written, in seconds since 1970, never before what the same results folder held then; count: of
    those with the same time. For records of earlier versions the time of the file.
    """

    content: Any
    files: Mapping[str, str] = field(default_factory=dict)
    time: float = 0.0
    count: int = 0


def write_whole(path: Path, data: bytes | str) -> None:
    """Write a file completely or not at all, with the permissions that the umask gives."""
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    try:
        with partial.open("xb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        commit(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, as write_whole() does. NumPy's values become lists and numbers, others their text."""
    write_whole(path, json.dumps(value, indent=1, default=_plain) + "\n")


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object as JSON with its own hash in it, which read_json() checks."""
    plain = json.loads(json.dumps(value, default=_plain))
    write_json(path, {**plain, SEAL: digest(plain)})


def write_record(
    path: Path, content: Any, stamp: tuple[float, int] = (0.0, 0), files: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write a record. stamp: its time and count; files: the digests of files beside it."""
    write_sealed(
        path, {"format": FORMAT, "time": stamp[0], "count": stamp[1], "files": dict(files), "content": content}
    )


def commit(partial: Path, path: Path) -> None:
    """Give a file or a folder that is complete its name: its content reaches the disk before the name does."""
    if partial.is_dir():
        for folder, _, names in os.walk(partial):
            for name in names:
                sync(Path(folder) / name)
            sync(Path(folder))
    else:
        sync(partial)
    partial.replace(path)
    sync(path.parent)


def follow_umask(path: Path) -> None:
    """Give a file that a library wrote for its owner alone the permissions that other files have."""
    probe = path.with_name(f".{uuid4().hex}")
    probe.touch()
    path.chmod(stat.S_IMODE(probe.stat().st_mode))
    probe.unlink()


def sync(path: Path) -> None:
    """Wait until a file, or the list of names of a folder, is on the disk."""
    # Some file systems and Windows cannot do it for folders.
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def digests(folder: Path, leave_out: Iterable[str] = ()) -> dict[str, str]:
    """Return the SHA-256 of each file in a folder, by name; those in its folders are not included."""
    left_out = set(leave_out)
    return {
        path.name: file_digest(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".") and path.name not in left_out
    }


def read_json(path: Path, remedy: str) -> Any:
    """Read a JSON file. Raises ``DamagedError`` if it is missing, is not JSON or is not what write_sealed() wrote.

    remedy: what to do then, as the end of a sentence.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DamagedError(path, "is missing", remedy) from None
    except OSError as error:
        raise BenchError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DamagedError(path, f"is damaged ({cut(str(error))})", remedy) from None
    if isinstance(value, dict) and SEAL in value:
        seal = value.pop(SEAL)
        if digest(value) != seal:
            raise DamagedError(path, "is damaged: it is not what was written", remedy)
    return value


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON file that holds an object, as read_json() does."""
    value = read_json(path, remedy)
    if not isinstance(value, dict):
        raise DamagedError(path, "is damaged: expected a JSON object", remedy)
    return value


def read_record(path: Path, kind: type, remedy: str) -> Record:
    """Read a record, or its content alone as earlier versions wrote it. kind: of the content, dict or list.

    Raises ``DamagedError`` as read_json() does, and ``BenchError`` for the format of a later version.
    """
    value = read_json(path, remedy)
    if isinstance(value, dict) and isinstance(version := value.get("format"), int) and "content" in value:
        if version > FORMAT:
            raise DamagedError(path, f"has format {version}, this version reads up to {FORMAT}", "install a later one")
        record = Record(value["content"], value.get("files", {}), float(value["time"]), int(value["count"]))
    else:
        record = Record(value, {}, path.stat().st_mtime)
    if not isinstance(record.content, kind):
        raise DamagedError(path, f"is damaged: expected {kind.__name__}", remedy)
    return record


def check_file(path: Path, files: Mapping[str, str], remedy: str) -> None:
    """Raise ``DamagedError`` if a file is not what its record says: once per state of the file.

    files: of the record; a file that it does not name is not checked.
    """
    wanted = files.get(path.name)
    if wanted is None:
        return
    try:
        same = file_digest(path) == wanted
    except FileNotFoundError:
        raise DamagedError(path, "is missing", remedy) from None
    except OSError as error:
        raise BenchError(f"{path}: cannot be read: {error.strerror}") from error
    if not same:
        raise DamagedError(path, "is damaged: it is not what was written", remedy)


def set_aside(path: Path, why: object) -> None:
    """Rename what is damaged and can be made again, or remove it where that fails, and say so."""
    aside = path.with_name(f".{path.name.lstrip('.')}{ASIDE}{uuid4().hex[:8]}")
    try:
        path.replace(aside)
        notice(f"{why}; set aside as {aside.name}")
    except FileNotFoundError:
        return
    except OSError:
        shutil.rmtree(path, ignore_errors=True)
        notice(f"{why}; removed")


def seal_folder(folder: Path, leave_out: Iterable[str] = ()) -> None:
    """Write the record of a folder that has no other. leave_out: names of files that need not stay as they are."""
    write_record(folder / FILES, {}, files=digests(folder, (*leave_out, FILES)))


def check_folder(folder: Path) -> int:
    """Return the number of files of a folder that are what seal_folder() saw; 0 for a folder without a record.

    Raises ``DamagedError`` for the first that is not.
    """
    if not (folder / FILES).exists():
        return 0
    remedy = "it is made again when it is next used"
    files = read_record(folder / FILES, dict, remedy).files
    for name in files:
        check_file(folder / name, files, remedy)
    return len(files)


def intact(folder: Path, check: Callable[[Path], object] = check_folder) -> bool:
    """Return whether a folder is there and is what was written; one that is not is set aside with a line.

    check: raises ``DamagedError`` for one that is not; default: by what seal_folder() saw, if it has a record.
    """
    if not folder.is_dir():
        return False
    try:
        check(folder)
    except DamagedError as error:
        set_aside(folder, error)
        return False
    return True


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value)
