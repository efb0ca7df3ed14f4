"""Which rows of a dataset have their image file now: of sets of all sizes, at every start."""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from benchmark.common.errors import MachineError, cut, is_of_the_machine
from benchmark.data.problems import BadRow, OnBadData, Problems
from benchmark.data.records import place
from benchmark.data.slow_disk import by_chunks
from benchmark.data.sources.folders import located
from benchmark.store.cache import remember, remembered

CHUNK = 1000
"""Files that one thread looks at in turn."""
MANY = 100_000
"""From so many images on, folders that have not changed are not looked into again."""
FILES_A_FOLDER = 8
"""The fewest images in a folder, on average, for which it pays to look at folders."""
RECENT = 2_000_000_000
"""Nanoseconds: a folder that changed so shortly before it was looked at may have changed again at the same time."""


@dataclass(frozen=True)
class ImageFiles:
    """The image files of the rows, by split.

    rows: those whose image exists. sizes: int64, the bytes of each image, also of those in the table; empty where
    folders were remembered. missing: counts by reason. states: a hash of sizes and times.
    """

    rows: dict[str, np.ndarray]
    sizes: dict[str, np.ndarray]
    missing: Counter[str]
    states: str


@dataclass
class _Chunk:
    """The files of some rows: bytes, time in ns, and by row the error of those that are not there.

    folders: those that they lie in, as paths below the folder of images; None where a name is written in another way.
    """

    paths: Sequence[str | None]
    sizes: list[int]
    times: list[int]
    errors: dict[int, OSError]
    folders: set[str] | None


def image_files(tables: Mapping[str, pa.Table], folder: Path, on_bad_data: OnBadData, memory: Path) -> ImageFiles:
    """Look at the image file of each row. tables: of each split; folder: of the images; memory: a file of the cache.

    Of a set with many images, ``memory`` has the folders that they lie in and their times, if none was missing: where
    these are the same, no file was added, renamed or removed. One that was overwritten in place goes unnoticed then.

    Raises ``BenchError`` for an image that is missing, unless bad rows are to be skipped.
    """
    problems, states = Problems(), hashlib.sha256()
    rows, sizes = {}, {}
    folders: set[str] | None = set()
    began = time.time_ns()
    for split, table in tables.items():
        sizes[split] = _bytes_in(table)
        present = np.ones(len(table), dtype=bool)
        paths = pa.compute.struct_field(table.column("image"), "path")
        starts = range(0, len(table), CHUNK)
        # A list of millions of paths takes gigabytes.
        chunks = by_chunks(partial(_look, folder), (paths.slice(start, CHUNK).to_pylist() for start in starts))
        for start, chunk in zip(starts, chunks):
            _take(chunk, start, split, table, folder, (sizes[split], present, problems, states))
            folders = None if folders is None or chunk.folders is None else folders | chunk.folders
        rows[split] = np.flatnonzero(present)
    problems.stop(on_bad_data)
    files = ImageFiles(rows, sizes, problems.counts, states.hexdigest())
    if folders and not files.missing and max(MANY, FILES_A_FOLDER * len(folders)) <= sum(map(len, rows.values())):
        _keep(memory, files, folder, folders, began)
    return files


def known_files(tables: Mapping[str, pa.Table], folder: Path, memory: Path) -> ImageFiles | None:
    """Return what image_files() saw if the folders of images have not changed since; None if that is not known."""
    known: dict[str, Any] | None = remembered(memory)
    if known is None or known["rows"] != {split: len(table) for split, table in tables.items()}:
        return None
    before = [*known["folders"].items()]
    chunks = (before[start : start + CHUNK] for start in range(0, len(before), CHUNK))
    if not all(by_chunks(lambda chunk: all(_state(folder / name) == state for name, state in chunk), chunks)):
        return None
    rows = {split: np.arange(count) for split, count in known["rows"].items()}
    return ImageFiles(rows, {}, Counter(), known["states"])


def _keep(memory: Path, files: ImageFiles, folder: Path, folders: set[str], began: int) -> None:
    states = {each: _state(folder / each) for each in sorted(folders)}
    if all(state is not None and state[1] < began - RECENT for state in states.values()):
        counts = {split: len(rows) for split, rows in files.rows.items()}
        remember(memory, {"rows": counts, "states": files.states, "folders": states})


def _state(folder: Path) -> list[int] | None:
    """Return what changes when a file is added to a folder, renamed or removed, or when the folder is another."""
    try:
        state = folder.stat()
    except OSError:
        return None
    return [state.st_ino, state.st_mtime_ns]


def _bytes_in(table: pa.Table) -> np.ndarray:
    """Return the bytes of each encoded image in a table; 0 for those in files."""
    encoded = pa.compute.struct_field(table.column("image"), "bytes")
    if encoded.null_count == len(table):
        return np.zeros(len(table), dtype=np.int64)  # The conversion below imports pandas.
    return np.array(pa.compute.fill_null(pa.compute.binary_length(encoded), 0).to_numpy(), dtype=np.int64)


def _look(folder: Path, paths: Sequence[str | None]) -> _Chunk:
    """Look at some files; 0 bytes and no time for those that are not there, and for rows without a file."""
    chunk = _Chunk(paths, [0] * len(paths), [0] * len(paths), {}, set())
    root = os.fspath(folder)
    for row, path in enumerate(paths):
        if path is None:
            continue
        try:
            # Five times as fast as with a Path for each.
            state = os.stat(f"{root}/{path}")  # noqa: PTH116
            if chunk.folders is not None:
                chunk.folders.add(path.rpartition("/")[0])
        except (OSError, ValueError):
            chunk.folders = None
            try:
                state = located(folder, path).stat()
            except OSError as error:
                chunk.errors[row] = error
                continue
        chunk.sizes[row], chunk.times[row] = state.st_size, state.st_mtime_ns
    return chunk


def _take(
    chunk: _Chunk,
    start: int,
    split: str,
    table: pa.Table,
    folder: Path,
    into: "tuple[np.ndarray, np.ndarray, Problems, hashlib._Hash]",
) -> None:
    """Add what was seen of the rows from ``start`` on to the sizes, the rows present, the problems and the hash."""
    sizes, present, problems, states = into
    described = [*zip(repeat(split), chunk.paths, chunk.sizes, chunk.times)]
    if chunk.errors or None in chunk.paths:
        there = [row for row, path in enumerate(chunk.paths) if path is not None and row not in chunk.errors]
        described = [described[row] for row in there]
        for row in there:
            sizes[start + row] = chunk.sizes[row]
    else:
        sizes[start : start + len(described)] = chunk.sizes
    # Problems come in the order of the rows: the first one is the one that is shown.
    for row in sorted(chunk.errors):
        path, error = chunk.paths[row], chunk.errors[row]
        assert path is not None
        present[start + row] = False
        file, line = (table.column(name)[start + row].as_py() for name in ("file", "row"))
        problems.add(place(file, line), _missing(path, folder, error))
    states.update("".join(map(repr, described)).encode())


def _missing(path: str, folder: Path, error: OSError) -> BadRow:
    if is_of_the_machine(error):
        raise MachineError(f"image {folder / path} cannot be read: {error.strerror}") from error
    missing = isinstance(error, FileNotFoundError)
    problem = f"does not exist (looked in {folder})" if missing else f"cannot be read: {error.strerror}"
    return BadRow("missing image", f"image '{cut(path)}' {problem}")
