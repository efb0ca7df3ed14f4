"""Rows of one image, and groups in several splits: found once all rows are known and their files are here."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute

from benchmark.common.errors import MachineError, explained, is_of_the_machine
from benchmark.data.records import LISTS, SPLITS
from benchmark.data.sources.folders import located

PIECE = 4096
"""Bytes from the middle of an image by which images of equal size are told apart before they are read as a whole."""
CHUNK = 1000
"""Rows written, and images read, at once."""
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
        later: set[str] = set()
        for split in (split for split in reversed(SPLITS) if split in records):
            rows = np.setdiff1d(records[split].usable, left_out[split])
            groups = records[split].table["group"].take(rows).to_pylist()
            dropped = [row for row, group in zip(rows.tolist(), groups) if group in later]
            if dropped:
                left_out[split] += dropped
                counts["dropped"][split] = (len(dropped), len(later.intersection(groups)))
            later.update(groups)
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
    first: list[Place] = []
    """The first row of each path, and each row with an encoded image."""
    of_path: dict[str, int] = {}
    numbers: dict[str, np.ndarray] = {}
    for split, each in records.items():
        paths = pa.compute.struct_field(each.table["image"], "path").to_pylist()
        numbers[split] = np.empty(len(each.usable), dtype=np.int64)
        for at, row in enumerate(each.usable.tolist()):
            path = paths[row]
            number = len(first) if path is None else of_path.setdefault(path, len(first))
            if number == len(first):
                first.append((split, row))
            numbers[split][at] = number
    sizes = np.array([records[split].sizes[row] for split, row in first], dtype=np.int64)

    def read(number: int, start: int, size: int) -> bytes:
        split, row = first[number]
        image = records[split].table["image"][row].as_py()
        if image["path"] is None:
            encoded: bytes = image["bytes"][start : start + size]
            return encoded
        with located(folder, image["path"]).open("rb") as file:
            file.seek(start)
            data: bytes = file.read(size)
            return data

    same = np.arange(len(first))
    for together in same_content(sizes, read):
        same[together] = together[0]
    return {split: same[of_split] for split, of_split in numbers.items()}


def same_content(sizes: np.ndarray, read: Callable[[int, int, int], bytes]) -> list[np.ndarray]:
    """Find items of the same content; returns the numbers of each content that occurs several times, ascending.

    sizes: int64 [N], in bytes. read: returns the bytes of an item from a place on, and how many; only of items of
    equal size, and as a whole only of those with an equal piece in the middle.
    """
    groups = _equal(sizes[:, None], np.arange(len(sizes)))
    for most in (PIECE, None):

        def content(number: int, most: int | None = most) -> np.ndarray:
            size = int(sizes[number])
            length = min(size, most or size)
            try:
                piece = read(number, (size - length) // 2, length)
            except OSError as error:
                if is_of_the_machine(error):
                    raise MachineError(f"an image cannot be read: {explained(error)}") from error
                return np.array([number, -1])  # like no other
            return np.frombuffer(hashlib.blake2b(piece, digest_size=16).digest(), dtype=np.int64)

        numbers = np.sort(np.concatenate([np.empty(0, np.int64), *groups]))
        keys = np.empty((len(numbers), 3), dtype=np.int64)
        keys[:, 0] = sizes[numbers]
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(numbers), CHUNK):
                chunk = slice(start, start + CHUNK)
                keys[chunk, 1:] = list(pool.map(content, numbers[chunk].tolist()))
        groups = _equal(keys, numbers)
    return groups


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
    with pa.ipc.new_stream(str(path), table.schema) as file:
        for start in range(0, table.num_rows, CHUNK):
            rows = table.slice(start, CHUNK).to_pylist()
            rows = [new.get(start + i, row) for i, row in enumerate(rows)]
            file.write_table(pa.Table.from_pylist(rows, table.schema))


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
