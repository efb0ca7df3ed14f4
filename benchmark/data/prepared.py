"""Images decoded and resized once, then read from one file."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pyarrow as pa
from PIL import Image

from benchmark.common.errors import BenchError
from benchmark.data.dataset import CHUNK, COLUMNS, Dataset, Progress
from benchmark.data.resizing import DEFAULT, Resizing, square
from benchmark.data.sources.formats import digest as file_digest
from benchmark.store import formats
from benchmark.store.cache import build_folder
from benchmark.store.hashing import digest

LARGE = 1 << 35
"""Bytes of pixels from which a set is kept as JPEG, at about a tenth of the size and a tenth of the speed."""
QUALITY = 95
FLUSH = 256
"""Images after which what was written counts, should the process be killed."""
LOOKED_AT = 32
"""Images whose checksums are compared whenever a set is opened."""
FILES = ("columns.arrow", "journal.bin")
"""What is small enough to be compared as a whole."""
JOURNAL = np.dtype([("row", "<i8"), ("end", "<i8"), ("digest", "S16")])
"""For each stored image the number of its row, where it ends in the file, and a checksum of its bytes."""


class Images:
    """Like an array uint8 [N, 3, size, size] that is read-only and stays on the disk: what is asked for is read, and
    decoded where it is kept as JPEG.

    Not memory-mapped: pages that were read would count as the process's memory, where now they are the system's to keep
    or to give away, and are shared by all processes just the same.

    digests: a checksum of each image, which is held against it when it is first read; ``BenchError`` where they differ.
    """

    def __init__(self, path: Path, ends: np.ndarray, size: int, jpeg: bool, digests: np.ndarray | None = None) -> None:
        self.shape = (len(ends), 3, size, size)
        self.dtype = np.dtype(np.uint8)
        self.jpeg = jpeg
        self._path = path
        self._ends = ends
        self._digests = digests
        self._unread = np.full(len(ends), digests is not None)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """``rows``: whatever chooses among the N: a number, a slice, numbers or flags."""
        chosen = np.arange(len(self))[rows]
        images = np.empty((chosen.size, *self.shape[1:]), dtype=np.uint8)
        # Threads only where there is something to decode.
        several = self._pool.map if self.jpeg else map
        for i, image in enumerate(several(self._one, chosen.ravel().tolist())):
            images[i] = image
        return images.reshape(*chosen.shape, *self.shape[1:])

    def _one(self, row: int) -> np.ndarray:
        start = int(self._ends[row - 1]) if row else 0
        content = os.pread(self._file, int(self._ends[row]) - start, start)
        if self._digests is not None and self._unread[row]:
            if _checksum(content) != self._digests[row]:
                raise _damage(self._path.parent, f"image {row + 1:,} of {len(self):,} is not what was written")
            self._unread[row] = False
        if not self.jpeg:
            return np.frombuffer(content, dtype=np.uint8).reshape(self.shape[1:])
        return np.asarray(Image.open(BytesIO(content)).convert("RGB")).transpose(2, 0, 1)

    @cached_property
    def _file(self) -> int:
        try:
            return os.open(self._path, os.O_RDONLY)
        except OSError as error:
            raise _damage(self._path.parent, f"{self._path.name} cannot be read: {error.strerror}") from error

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(min(32, os.cpu_count() or 1))


@dataclass(frozen=True)
class Prepared:
    """A split of N images.

    images: uint8 [N, 3, size, size], on the disk. columns: those of COLUMNS but the image, memory-mapped; each is in
    memory as a whole from when it is asked for by name. fingerprint: of the content, so the same on every machine.
    """

    images: Images | np.ndarray
    columns: pa.Table
    fingerprint: str

    def __len__(self) -> int:
        return int(self.columns.num_rows)

    @cached_property
    def label(self) -> np.ndarray:
        """int64 [N], or [N, K] when multi-label; -1 unknown."""
        return np.array(self.columns["label"].to_pylist(), dtype=np.int64)

    @cached_property
    def ids(self) -> list[str]:
        return self.columns["id"].to_pylist()

    @cached_property
    def groups(self) -> list[str]:
        return self.columns["group"].to_pylist()

    # Each of these is a list a record, as in the records.

    @cached_property
    def text(self) -> list[list[str]]:
        return self.columns["text"].to_pylist()

    @cached_property
    def text_id(self) -> list[list[str]]:
        return self.columns["text_id"].to_pylist()

    @cached_property
    def question(self) -> list[list[str]]:
        return self.columns["question"].to_pylist()

    @cached_property
    def answer(self) -> list[list[str]]:
        return self.columns["answer"].to_pylist()

    @cached_property
    def answer_type(self) -> list[list[str]]:
        return self.columns["answer_type"].to_pylist()

    @cached_property
    def question_type(self) -> list[list[str]]:
        return self.columns["question_type"].to_pylist()


def prepare(
    dataset: Dataset, split: str, size: int, cache: Path, progress: Progress | None = None, resizing: Resizing = DEFAULT
) -> Prepared:
    """The images of a split at ``size`` pixels a side, made square as ``resizing`` says. Done once, in threads, for a
    state of the data, going on where a killed preparation ended; this is also where images that cannot be decoded are
    found (``BenchError``, or left out). Of two processes at once one prepares and the other waits.
    """

    def write(folder: Path) -> None:
        rows = dataset.rows(split)
        jpeg = len(rows) * 3 * size * size > LARGE
        journal = _resume(folder)
        kept = journal["row"].tolist()

        def encode(picture: Image.Image) -> bytes:
            pixels = square(picture, size, resizing)
            if not jpeg:
                return pixels.tobytes()
            buffer = BytesIO()
            Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
            return buffer.getvalue()

        # Written, not memory-mapped: a full disk is then an error and not a crash.
        with (folder / "images.bin").open("ab") as images, (folder / "journal.bin").open("ab") as entries:
            waiting: list[tuple[int, int, bytes]] = []
            end = int(journal["end"][-1]) if kept else 0

            def flush() -> None:
                images.flush()
                entries.write(np.array(waiting, dtype=JOURNAL).tobytes())
                entries.flush()
                waiting.clear()

            for row, content in dataset.decode(split, encode, progress, kept):
                images.write(content)
                end += len(content)
                waiting.append((row, end, _checksum(content)))
                if len(waiting) == FLUSH:
                    flush()
            flush()
        journal = _journal(folder)
        if not len(journal):
            raise BenchError(f"dataset '{dataset.card.name}', {split}: none of its images can be decoded")
        # Rows that were bad when it was killed and are not now come late.
        columns = dataset.table(split).select([name for name in COLUMNS if name != "image"]).take(journal["row"])
        contents = hashlib.sha256(journal["digest"].tobytes())
        with pa.ipc.new_file(str(folder / "columns.arrow"), columns.schema) as file:
            for batch in columns.to_batches(max_chunksize=CHUNK):
                file.write_batch(batch)
                contents.update(json.dumps(batch.to_pylist(), sort_keys=True).encode())
        meta = {
            "fingerprint": contents.hexdigest()[:20],
            "jpeg": jpeg,
            "files": [file_digest(folder / f) for f in FILES],
        }
        (folder / "meta.json").write_text(json.dumps(meta))

    folder = _folder(dataset, split, size, cache, resizing)
    build_folder(folder, write, resume=True)
    try:
        meta = json.loads((folder / "meta.json").read_text())
        whole = meta["files"] == [file_digest(folder / name) for name in FILES]
    except (OSError, ValueError, KeyError, BenchError) as error:
        raise _damage(folder, f"is not whole: {error}") from error
    if not whole:
        raise _damage(folder, f"{' or '.join(FILES)} is not what was written")
    journal = _journal(folder)
    images = Images(folder / "images.bin", journal["end"], size, meta["jpeg"], journal["digest"])
    # A lost file is told of now; all of a large one would take hours, and each image is checked when it is first read.
    images[np.linspace(0, len(images) - 1, min(len(images), LOOKED_AT)).astype(int)]
    with pa.memory_map(str(folder / "columns.arrow")) as file:
        return Prepared(images, pa.ipc.open_file(file).read_all(), meta["fingerprint"])


def damaged(dataset: Dataset, split: str, size: int, cache: Path, resizing: Resizing = DEFAULT) -> int:
    """The number of prepared images that are not what was written, by their checksums; 0 where nothing is prepared."""
    folder = _folder(dataset, split, size, cache, resizing)
    if not folder.is_dir():
        return 0
    count, start = 0, 0
    with (folder / "images.bin").open("rb") as images:
        for _, end, checksum in _journal(folder).tolist():
            content = images.read(end - start)
            count += _checksum(content) != checksum
            start = end
    return count


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).hexdigest().encode()


def _damage(folder: Path, what: str) -> BenchError:
    return BenchError(f"cache {folder}: {what}; delete this folder, and it is prepared again")


def _folder(dataset: Dataset, split: str, size: int, cache: Path, resizing: Resizing) -> Path:
    parts = (formats.CACHE, PIL.__version__, dataset.fingerprint, dataset.on_bad_data, split, size, asdict(resizing))
    return Path(cache) / "prepared" / digest(["prepared", *parts])


def _journal(folder: Path) -> np.ndarray:
    path = folder / "journal.bin"
    whole = path.stat().st_size // JOURNAL.itemsize if path.is_file() else 0
    return np.fromfile(path, JOURNAL, whole) if whole else np.empty(0, JOURNAL)


def _resume(folder: Path) -> np.ndarray:
    """The journal of what a killed preparation had written whole; what came after it is cut off."""
    images, entries = folder / "images.bin", folder / "journal.bin"
    journal = _journal(folder)
    size = images.stat().st_size if images.is_file() else 0
    journal = journal[: int(np.searchsorted(journal["end"], size, side="right"))]
    for path, length in ((images, int(journal["end"][-1]) if len(journal) else 0), (entries, journal.nbytes)):
        if path.is_file():
            os.truncate(path, length)
    return journal
