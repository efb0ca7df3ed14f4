"""Rows of one image, and groups in several splits: found once all rows are known and their files are here."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmark.common.errors import MachineError, explained, is_of_the_machine
from benchmark.data.records import LISTS, SPLITS
from benchmark.data.slow_disk import by_chunks
from benchmark.data.sources.folders import located

PIECE = 1024
"""Bytes from the middle of an image by which images of equal size are told apart before they are read as a whole."""
CHUNK = 1000
"""Rows written, and images read, at once."""
HASH = Struct("=qq")
"""The hash of an item's content, as two numbers."""
COLUMNS = ("id", *LISTS)
"""The columns that change in a row that others were merged into."""


class Counts(TypedDict):
    """What became of the rows of each split, as pairs of numbers.

    merged: the rows of images with several rows, and these images. dropped: the rows whose group is in a later split,
    and their groups.
    """

    merged: dict[str, tuple[int, int]]
    dropped: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Rules:
    """What to look for: rows of one image to merge, and groups of several splits to drop from the earlier ones.

    across: also merge rows of different splits, into the first that was read.
    split_in_id: images may be in several splits, so that the split is a part of their ids, as in gather().
    """

    merge: bool
    drop: bool
    across: bool = False
    split_in_id: bool = False


@dataclass(frozen=True)
class Records:
    """The rows of a split as they were read.

    table: all of them, see Dataset.table(). usable: int64, the numbers of those whose image is here. sizes: int64, the
    bytes of the image of each.
    """

    table: pa.Table
    usable: np.ndarray
    sizes: np.ndarray


def write_shared(folder: Path, records: dict[str, Records], images: Path, rules: Rules) -> None:
    """Write which rows are left out, and the columns of the rows that others were merged into.

    images: the folder that paths are relative to. Rows are merged where they have the same label; the first of them
    gets the texts and questions of all.
    """
    left_out: dict[str, list[int]] = {split: [] for split in records}
    counts: Counts = {"merged": {}, "dropped": {}}
    if rules.merge:
        merged = list(_same_rows(records, images, rules.across))
        for split in records:
            of_split = [rows for rows in merged if rows[0][0] == split]
            if of_split:
                _write_merged(folder / f"{split}.arrow", records, of_split, rules.split_in_id)
                counts["merged"][split] = (sum(map(len, of_split)), len(of_split))
        for _, *others in merged:
            for split, row in others:
                left_out[split].append(row)
    if rules.drop:
        later = pa.array([], pa.string())
        for split in (split for split in reversed(SPLITS) if split in records):
            rows = np.setdiff1d(records[split].usable, left_out[split])
            groups = records[split].table["group"].take(rows)
            is_later = pc.is_in(groups, later)
            dropped = rows[is_later.to_numpy()].tolist()
            if dropped:
                left_out[split] += dropped
                counts["dropped"][split] = (len(dropped), len(groups.filter(is_later).unique()))
            later = pa.concat_arrays([later, groups.unique()]).unique()
    for split, rows_left_out in left_out.items():
        if rows_left_out:
            np.save(folder / f"{split}.npy", np.sort(np.array(rows_left_out, dtype=np.int64)))
    (folder / "meta.json").write_text(json.dumps(counts))


Place = tuple[str, int]
"""A split, and the number of a row of its table."""


def _same_rows(records: dict[str, Records], images: Path, across: bool) -> Iterator[list[Place]]:
    """The rows of each image that has several, in the order in which they were read."""
    numbers = _image_numbers(records, images)
    times = np.bincount(np.concatenate([np.empty(0, np.int64), *numbers.values()]))
    together: dict[tuple[str, int, str], list[Place]] = {}
    for split, of_split in numbers.items():
        labels = records[split].table["label"]
        for at in np.flatnonzero(times[of_split] > 1):
            row, number = int(records[split].usable[at]), int(of_split[at])
            key = ("" if across else split, number, str(labels[row].as_py()))
            together.setdefault(key, []).append((split, row))

    def read_at(place: Place) -> tuple[str, int]:
        table = records[place[0]].table
        return table["file"][place[1]].as_py(), table["row"][place[1]].as_py()

    yield from (sorted(places, key=read_at) for places in together.values() if len(places) > 1)


def _image_numbers(records: dict[str, Records], folder: Path) -> dict[str, np.ndarray]:
    """The number of the image of each usable row, int64, by split: the same for the same path or the same content."""
    paths = [pc.struct_field(each.table["image"], "path").take(pa.array(each.usable)) for each in records.values()]
    every = pa.chunked_array([chunk for of_split in paths for chunk in of_split.chunks], pa.string())
    coded = every.dictionary_encode().combine_chunks()
    names = coded.dictionary
    numbers = pc.fill_null(coded.indices, -1).to_numpy().astype(np.int64)
    # A row with an encoded image has a number of its own.
    encoded = np.flatnonzero(numbers < 0)
    numbers[encoded] = len(names) + np.arange(len(encoded))
    sizes = np.zeros(len(names) + len(encoded), dtype=np.int64)
    sizes[numbers] = np.concatenate([np.empty(0, np.int64), *(each.sizes[each.usable] for each in records.values())])
    rows = [(split, row) for split, each in records.items() for row in each.usable.tolist()] if len(encoded) else []
    root = os.fspath(folder)

    def read(number: int, start: int, size: int) -> bytes:
        if number < len(names):
            return _piece(root, names[number].as_py(), start, size)
        split, row = rows[encoded[number - len(names)]]
        image: bytes = records[split].table["image"][row].as_py()["bytes"]
        return image[start : start + size]

    same = np.arange(len(sizes))
    for together in same_content(sizes, read):
        same[together] = together[0]
    ends = np.cumsum([len(each.usable) for each in records.values()])
    return dict(zip(records, np.split(same[numbers], ends[:-1])))


def _piece(root: str, path: str, start: int, size: int) -> bytes:
    """Read a part of a file below a folder; in a third of the time that Path and a file object take."""
    try:
        file = os.open(f"{root}/{path}", os.O_RDONLY)
    except (OSError, ValueError):
        file = os.open(located(Path(root), path), os.O_RDONLY)
    try:
        piece = os.pread(file, size, start)
        while len(piece) < size and (more := os.pread(file, size - len(piece), start + len(piece))):
            piece += more
        return piece
    finally:
        os.close(file)


def same_content(sizes: np.ndarray, read: Callable[[int, int, int], bytes]) -> list[np.ndarray]:
    """Find items of the same content; returns the numbers of each content that occurs several times, ascending.

    sizes: int64 [N], in bytes. read: returns the bytes of an item from a place on, and how many; only of items of
    equal size, and as a whole only of those with an equal piece in the middle.
    """
    groups = _equal(sizes[:, None], np.arange(len(sizes)))
    for most in (PIECE, None):

        def contents(numbers: np.ndarray, most: int | None = most) -> list[tuple[int, int]]:
            pairs = zip(numbers.tolist(), sizes[numbers].tolist())
            return [_content(number, size, most, read) for number, size in pairs]

        numbers = np.sort(np.concatenate([np.empty(0, np.int64), *groups]))
        keys = np.empty((len(numbers), 3), dtype=np.int64)
        keys[:, 0] = sizes[numbers]
        # Many to a thread at once: handing one over takes as long as reading a piece.
        chunks = [slice(start, start + CHUNK) for start in range(0, len(numbers), CHUNK)]
        for chunk, hashes in zip(chunks, by_chunks(contents, [numbers[chunk] for chunk in chunks])):
            keys[chunk, 1:] = hashes
        groups = _equal(keys, numbers)
    return groups


def _content(number: int, size: int, most: int | None, read: Callable[[int, int, int], bytes]) -> tuple[int, int]:
    """Two numbers that stand for the content of an item, or for at most so many bytes of its middle."""
    length = min(size, most or size)
    try:
        piece = read(number, (size - length) // 2, length)
    except OSError as error:
        if is_of_the_machine(error):
            raise MachineError(f"an image cannot be read: {explained(error)}") from error
        return number, -1  # like no other
    if most:
        return hash(piece), 0  # what is equal by chance is read as a whole
    first, second = HASH.unpack(hashlib.blake2b(piece, digest_size=HASH.size).digest())
    return first, second


def _equal(keys: np.ndarray, numbers: np.ndarray) -> list[np.ndarray]:
    """Those of ascending ``numbers`` [n] whose keys [n, k] are equal, for each key that occurs several times."""
    order = np.lexsort(keys.T)
    new = (np.diff(keys[order], axis=0) != 0).any(axis=1)
    starts = np.flatnonzero(np.concatenate([[True], new, [True]])[: len(order) + 1])
    several = np.flatnonzero(np.diff(starts) > 1)
    return [np.sort(numbers[order[starts[run] : starts[run + 1]]]) for run in several]


def _write_merged(path: Path, records: dict[str, Records], merged: Iterable[list[Place]], split_in_id: bool) -> None:
    """Write COLUMNS of a split, with the rows of each image merged into the first."""
    new = {rows[0][1]: _merged(records, rows, split_in_id) for rows in merged}
    split = next(iter(rows[0][0] for rows in merged))
    table = records[split].table.select(list(COLUMNS))
    changed = np.array(sorted(new))
    with pa.ipc.new_stream(str(path), table.schema) as file:
        for start in range(0, table.num_rows, CHUNK):
            rows = table.slice(start, CHUNK)
            within = changed[np.searchsorted(changed, start) : np.searchsorted(changed, start + CHUNK)]
            if len(within):
                order = np.arange(len(rows))
                order[within - start] = len(rows) + np.arange(len(within))
                others = pa.Table.from_pylist([new[row] for row in within.tolist()], table.schema)
                rows = pa.concat_tables([rows, others]).take(order)
            file.write_table(rows)


def _merged(records: dict[str, Records], rows: list[Place], split_in_id: bool) -> dict[str, Any]:
    """COLUMNS of the first row, with the texts and questions of all.

    Rows of one file or of one content in the table whose ids differ have an id for each caption: the image then takes
    its name from its path, or from its content.
    """
    first, *others = ({name: records[split].table[name][row].as_py() for name in COLUMNS} for split, row in rows)
    images = [records[split].table["image"][row].as_py() for split, row in rows]
    for other in others:
        for i, text in enumerate(other["text"]):
            if text not in first["text"]:
                first["text"].append(text)
                first["text_id"] += other["text_id"][i : i + 1]
        for name in LISTS[2:]:
            first[name] += other[name]
    if any(
        other["id"] != first["id"] and image["path"] == images[0]["path"] for other, image in zip(others, images[1:])
    ):
        name = images[0]["path"] or hashlib.sha256(images[0]["bytes"]).hexdigest()[:20]
        first["id"] = f"{rows[0][0]}/{name}" if split_in_id else name
    return first
