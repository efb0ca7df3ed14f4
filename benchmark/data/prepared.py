"""Images decoded and resized once, then memory-mapped."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
import pyarrow.parquet as pq
from PIL import Image

from benchmark.data.cache import build_folder, key
from benchmark.data.dataset import COLUMNS, LISTS, Dataset, Progress
from benchmark.errors import BenchError

VERSION = 1


@dataclass(frozen=True)
class Prepared:
    """A split of N images.

    images: uint8 [N, 3, size, size], memory-mapped, read-only.
    label: int64 [N], or [N, K] when multi-label; -1 unknown.
    The lists are one a record, each as in the records. fingerprint: of the content, so the same on every machine.
    """

    images: np.memmap
    ids: list[str]
    groups: list[str]
    label: np.ndarray
    text: list[list[str]]
    text_id: list[list[str]]
    question: list[list[str]]
    answer: list[list[str]]
    answer_type: list[list[str]]
    question_type: list[list[str]]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.ids)


def prepare(dataset: Dataset, split: str, size: int, cache: Path, progress: Progress | None = None) -> Prepared:
    """The images of a split at ``size`` pixels a side: short side resized to ``size`` (bicubic, antialiased), the
    middle of the long side kept. Done once, in threads, for a state of the data; this is also where images that cannot
    be decoded are found (``BenchError``, or left out). Of two processes at once each prepares and one is kept."""

    def write(folder: Path) -> None:
        rows = dataset.rows(split)
        digest = hashlib.sha256()
        kept: list[int] = []
        # Written, not memory-mapped: a full disk is then an error and not a crash.
        with (folder / "images.npy").open("wb") as file:
            _header(file, len(rows), size)
            for row, image in dataset.decode(split, lambda picture: _square(picture, size), progress):
                pixels = image.tobytes()
                file.write(pixels)
                digest.update(pixels)
                kept.append(row)
            file.seek(0)
            _header(file, len(kept), size)
        if not kept:
            raise BenchError(f"dataset '{dataset.card.name}', {split}: none of its images can be decoded")
        columns = dataset.table(split).select([name for name in COLUMNS if name != "image"]).take(kept)
        pq.write_table(columns, folder / "columns.parquet")
        digest.update(json.dumps(columns.to_pydict(), sort_keys=True).encode())
        (folder / "meta.json").write_text(json.dumps({"fingerprint": digest.hexdigest()[:20]}))

    parts = (VERSION, PIL.__version__, dataset.fingerprint, dataset.on_bad_data, split, size)
    folder = build_folder(Path(cache) / "prepared" / key("prepared", *parts), write)
    columns = pq.read_table(folder / "columns.parquet", memory_map=True)
    return Prepared(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        ids=columns.column("id").to_pylist(),
        groups=columns.column("group").to_pylist(),
        label=np.array(columns.column("label").to_pylist(), dtype=np.int64),
        fingerprint=json.loads((folder / "meta.json").read_text())["fingerprint"],
        **{name: columns.column(name).to_pylist() for name in LISTS},
    )


def _header(file: BinaryIO, count: int, size: int) -> None:
    """Of an .npy file; as long for any ``count``: numpy leaves room for it to grow."""
    shape = (count, 3, size, size)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _square(picture: Image.Image, size: int) -> np.ndarray:
    """uint8 [3, size, size]."""
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    pixels = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, box))
    if pixels.ndim == 2:
        return np.repeat(pixels[None], 3, axis=0)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
