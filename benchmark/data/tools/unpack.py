"""Unpack an archive from the network: only files, only below one folder, of a plausible size, whole or not at all."""

import gzip
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO

from benchmark.common.errors import BenchError, cut
from benchmark.common.hub import one_line
from benchmark.data.tools.download import Update, megabytes, size_of

CHUNK = 1 << 20
MOST_TIMES = 100
"""How many times its own size an archive may have inside: images compress a few times, a bomb thousands of times."""
SMALL = 100_000_000
"""The bytes that any archive may have inside."""

Member = tuple[str, "IO[bytes] | gzip.GzipFile"]


def unpack(archive: Path, kind: str, to: Path, holds: str, update: Update) -> None:
    """Unpack ``archive`` (zip, tar or gz) to the folder ``to`` (of gz: to the file), which must not exist yet.

    holds: a file or folder in the archive, or a pattern; what lies beside it goes to ``to``. Empty: everything does.

    ``to`` appears when everything is unpacked. Raises ``BenchError``, and leaves the archive as it is, when it is
    damaged, has links, devices or paths that lead outside, or unpacks to far more than its size or than there is room
    for.
    """
    temporary = to.with_name(f".{to.name}.unpacking")
    _clear(temporary)
    try:
        total = _total(archive, kind)
        limit = max(MOST_TIMES * size_of(archive), SMALL)
        if total is not None and total > limit:
            raise BenchError(f"{archive}: says to hold over {MOST_TIMES} times its size: not unpacked")
        _check_room(archive, to, total or 0)
        done = 0
        wanted = PurePosixPath(holds).parts
        tops: set[tuple[str, ...]] = set()
        for name, content in _members(archive, kind):
            path = _inside(archive, name) if kind != "gz" else PurePosixPath()
            target = temporary / path
            if (top := _beside(path, wanted)) is not None:
                tops.add(top)
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as file:
                while chunk := content.read(CHUNK):
                    done += len(chunk)
                    if done > limit:
                        raise BenchError(f"{archive}: holds over {MOST_TIMES} times its size: not unpacked")
                    file.write(chunk)
                    update(done, total)
        if not tops:
            lacks = f"has no '{holds}': its layout has changed" if holds else "is empty"
            raise BenchError(f"{archive}: {lacks}; unpack it by hand")
        shallowest = min(tops, key=lambda top: (len(top), top))
        to.parent.mkdir(parents=True, exist_ok=True)
        temporary.joinpath(*shallowest).replace(to)
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, LZMAError, EOFError) as error:
        raise BenchError(
            f"{archive}: is damaged, or is no {kind} file ({one_line(error)}); delete it to get it again"
        ) from error
    except RuntimeError as error:  # a password, or a kind of compression that Python does not have
        raise BenchError(
            f"{archive}: cannot be unpacked here ({one_line(error)}); unpack it with another program"
        ) from error
    except OSError as error:
        raise BenchError(f"{archive}: cannot be unpacked to {to.parent}: {error.strerror or error}") from error
    finally:
        _clear(temporary)


def _members(archive: Path, kind: str) -> Iterator[Member]:
    """Yield the path and the content of each file. What macOS adds for itself is left out."""
    if kind == "gz":
        with gzip.open(archive) as content:
            yield "", content
        return
    members = _zip_members(archive) if kind == "zip" else _tar_members(archive)
    for name, member in members:
        base = PurePosixPath(name).name
        if base != ".DS_Store" and not base.startswith("._") and not name.startswith("__MACOSX/"):
            yield name, member


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir():
                continue
            if kind not in (0, stat.S_IFREG):
                raise _not_a_file(archive, info.filename)
            yield info.filename, file.open(info)


def _tar_members(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive) as file:
        for info in file:
            if info.isdir():
                continue
            content = file.extractfile(info) if info.isreg() else None
            if content is None:
                raise _not_a_file(archive, info.name)
            yield info.name, content


def _not_a_file(archive: Path, name: str) -> BenchError:
    return BenchError(f"{archive}: '{cut(name)}' is a link or a device: not unpacked")


def _total(archive: Path, kind: str) -> int | None:
    """The bytes that an archive says to have inside; None where that shows only while it is read."""
    if kind != "zip":
        return None
    with zipfile.ZipFile(archive) as file:
        return sum(info.file_size for info in file.infolist())


def _inside(archive: Path, name: str) -> PurePosixPath:
    """Return the path of a member below the folder that is unpacked to; raise ``BenchError`` for any other."""
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or "\0" in name:
        raise BenchError(f"{archive}: '{cut(name)}' leads outside the archive's folder: not unpacked")
    return path


def _beside(path: PurePosixPath, wanted: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the shallowest folder of ``path`` that has ``wanted``, which may be a pattern, in it."""
    for start in range(len(path.parts) - len(wanted) + 1):
        if all(map(fnmatchcase, path.parts[start:], wanted)):
            return path.parts[:start]
    return None


def _check_room(archive: Path, to: Path, total: int) -> None:
    free = free_bytes(to)
    if total > free:
        raise BenchError(f"{archive}: unpacks to {megabytes(total)}, but {to.parent} has {megabytes(free)} free")


def free_bytes(path: Path) -> int:
    """Return the free bytes of the disk that ``path`` is or will be on."""
    folder = path.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _clear(temporary: Path) -> None:
    """Delete what is left of an interrupted unpacking."""
    if temporary.is_dir() and not temporary.is_symlink():
        shutil.rmtree(temporary, ignore_errors=True)
    elif os.path.lexists(temporary):
        temporary.unlink()
