"""Images decoded and resized once, then read from one file."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import PIL
import pyarrow as pa
from PIL import Image

from benchmark.common.errors import BenchError, plural
from benchmark.data.dataset import Dataset, Progress
from benchmark.data.images import load_resized
from benchmark.data.records import COLUMNS
from benchmark.data.resizing import DEFAULT, USUAL, Resizing, framed
from benchmark.data.sources.formats import digest as file_digest
from benchmark.store import formats
from benchmark.store.cache import build_folder
from benchmark.store.files import DamagedError, intact, set_aside
from benchmark.store.hashing import digest

LARGE = 1 << 35
"""Bytes of pixels from which on images are stored as JPEG, at about a tenth of the size and a tenth of the speed."""
CHUNK = 1000
"""Rows written at once, whose texts are hashed together."""
QUALITY = 95
JPEG_SHARE = 0.1
"""About the share of the bytes of pixels that JPEG takes."""
FLUSH = 256
"""The most images that are lost and decoded again when the process is killed."""
SAMPLED = 32
"""Images whose checksums are compared whenever a set is opened."""
FILES = ("columns.arrow", "journal.bin")
"""The files that are small enough to be compared as a whole."""
REMEDY = "it is prepared again when it is next used"
"""What is said of one that is damaged."""
SIDE = np.dtype("<u4")
"""The height, and the width, before the pixels of an image that keeps its ratio."""
JOURNAL = np.dtype([("row", "<i8"), ("end", "<i8"), ("digest", "S16")])
"""For each stored image the number of its row, the offset of its end in the file, and a checksum of its bytes."""


class Images:
    """A read-only array uint8 [N, 3, size, size] that stays on disk; or images of which ``size`` is the short side.

    Indexing reads the chosen images, and decodes them if they are stored as JPEG. The file is not memory-mapped: mapped
    pages would count as memory of this process, while the operating system shares and drops pages that were read.

    digests: a checksum of each image, compared when it is first read; ``BenchError`` if they differ.
    keeps_ratio: whether images are not square. Pixels then stand behind their height and width.
    """

    def __init__(
        self,
        path: Path,
        ends: np.ndarray,
        size: int,
        jpeg: bool,
        digests: np.ndarray | None = None,
        keeps_ratio: bool = False,
    ) -> None:
        self.shape = (len(ends), 3, size, size)
        self.dtype = np.dtype(np.uint8)
        self.jpeg = jpeg
        self.keeps_ratio = keeps_ratio
        self._path = path
        self._ends = ends
        self._digests = digests
        self._unread = np.full(len(ends), digests is not None)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """The images of ``rows``: a number, a slice, or an array of numbers or flags.

        Those that are not square get zeros at the right and below, up to the largest of them.
        """
        chosen = np.arange(len(self))[rows]
        if self.keeps_ratio:
            framed_ones, _ = self.with_sizes(chosen.ravel())
            return framed_ones.reshape(*chosen.shape, *framed_ones.shape[1:])
        images = np.empty((chosen.size, *self.shape[1:]), dtype=np.uint8)
        for i, image in enumerate(self._read_all(chosen.ravel())):
            images[i] = image
        return images.reshape(*chosen.shape, *self.shape[1:])

    def with_sizes(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The images of these rows, and where they are not square their heights and widths, int64 [n, 2]."""
        return framed(list(self._read_all(rows))) if self.keeps_ratio else (self[rows], None)

    def _read_all(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        # Threads only help with decoding.
        return self._pool.map(self._read, rows.tolist()) if self.jpeg else map(self._read, rows.tolist())

    def _read(self, row: int) -> np.ndarray:
        start = int(self._ends[row - 1]) if row else 0
        stored = os.pread(self._file, int(self._ends[row]) - start, start)
        if self._digests is not None and self._unread[row]:
            if _checksum(stored) != self._digests[row]:
                raise _damage(self._path.parent, f"image {row + 1:,} of {len(self):,} is not what was written")
            self._unread[row] = False
        if not self.jpeg:
            shape = (3, *np.frombuffer(stored, SIDE, 2).tolist()) if self.keeps_ratio else self.shape[1:]
            offset = 2 * SIDE.itemsize if self.keeps_ratio else 0
            return np.frombuffer(stored, dtype=np.uint8, offset=offset).reshape(shape)
        return np.asarray(Image.open(BytesIO(stored)).convert("RGB")).transpose(2, 0, 1)

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

    images: uint8 [N, 3, size, size], on disk; not square where they keep their ratio. columns: COLUMNS without the
    image, memory-mapped; each column is loaded as a whole when it is first asked for by name. fingerprint: of the
    content, so it is the same on every machine.
    """

    images: Images | np.ndarray
    columns: pa.Table
    fingerprint: str

    def __len__(self) -> int:
        return int(self.columns.num_rows)

    @cached_property
    def label(self) -> np.ndarray:
        """int64 [N], or [N, K] when multi-label; -1 is unknown."""
        return np.array(self.columns["label"].to_pylist(), dtype=np.int64)

    @cached_property
    def ids(self) -> list[str]:
        """The id of each record."""
        return self._strings("id")

    @cached_property
    def groups(self) -> list[str]:
        """The group of each record."""
        return self._strings("group")

    @cached_property
    def text(self) -> list[list[str]]:
        """The texts of each record."""
        return self._lists("text")

    @cached_property
    def text_id(self) -> list[list[str]]:
        """The ids of the texts of each record."""
        return self._lists("text_id")

    @cached_property
    def question(self) -> list[list[str]]:
        """The questions of each record."""
        return self._lists("question")

    @cached_property
    def answer(self) -> list[list[str]]:
        """The answers of each record, one for each question."""
        return self._lists("answer")

    @cached_property
    def answer_type(self) -> list[list[str]]:
        """The type of each answer of each record, "open" or "closed"."""
        return self._lists("answer_type")

    @cached_property
    def question_type(self) -> list[list[str]]:
        """The type of each question of each record; "" where the source gives none."""
        return self._lists("question_type")

    def _strings(self, column: str) -> list[str]:
        values: list[str] = self.columns[column].to_pylist()
        return values

    def _lists(self, column: str) -> list[list[str]]:
        values: list[list[str]] = self.columns[column].to_pylist()
        return values


class Meta(TypedDict):
    """What meta.json says about a prepared set.

    fingerprint: of the content. jpeg: whether images are stored as JPEG. files: the SHA-256 of each of FILES.
    """

    fingerprint: str
    jpeg: bool
    files: list[str]


def prepare(
    dataset: Dataset, split: str, size: int, cache: Path, progress: Progress | None = None, resizing: Resizing = DEFAULT
) -> Prepared:
    """Prepare the images of a split at ``size`` pixels a side, resized as ``resizing`` says.

    This is done once for each state of the data, in threads. It continues where a killed preparation stopped. Of two
    processes at once, one prepares and the other waits.

    Raises ``BenchError`` for images that cannot be decoded (or leaves them out), and for a damaged cache.
    """
    folder = _folder(dataset, split, size, cache, resizing)

    def write(part: Path) -> None:
        _write(part, dataset, split, size, progress, resizing)

    whole = partial(intact, check=check_prepared)
    try:
        return _opened(build_folder(folder, write, True, whole), size, resizing)
    except DamagedError:
        # It was set aside.
        return _opened(build_folder(folder, write, True, whole), size, resizing)


def _opened(folder: Path, size: int, resizing: Resizing) -> Prepared:
    """Open a prepared set. Raises ``DamagedError`` if some of its images are not what was written."""
    meta = _read_meta(folder)
    journal = _journal(folder)
    keeps = resizing.mode == "keep_ratio"
    images = Images(folder / "images.bin", journal["end"], size, meta["jpeg"], journal["digest"], keeps)
    # Reports a missing file now. Checking a large file as a whole would take hours; each image is checked when it is
    # first read.
    images[np.linspace(0, len(images) - 1, min(len(images), SAMPLED)).astype(int)]
    with pa.memory_map(str(folder / "columns.arrow")) as file:
        return Prepared(images, pa.ipc.open_file(file).read_all(), meta["fingerprint"])


def _read_meta(folder: Path) -> Meta:
    try:
        meta: Meta = json.loads((folder / "meta.json").read_text())
        whole = meta["files"] == [file_digest(folder / name) for name in FILES]
    except (OSError, ValueError, KeyError, BenchError) as error:
        raise DamagedError(folder, f"is incomplete: {error}", REMEDY) from error
    if not whole:
        raise DamagedError(folder, f"{' or '.join(FILES)} is not what was written", REMEDY)
    return meta


def check_prepared(folder: Path, images: bool = False) -> None:
    """Raise ``DamagedError`` if the files of a prepared set are not what was written. images: read each image too."""
    _read_meta(folder)
    try:
        size, end = (folder / "images.bin").stat().st_size, int(_journal(folder)["end"][-1])
        if size != end:
            raise DamagedError(folder, f"images.bin has {size:,} bytes, expected {end:,}", REMEDY)
        if images and (count := _wrong_images(folder)):
            verb = "is" if count == 1 else "are"
            raise DamagedError(folder, f"{plural(count, 'image')} of images.bin {verb} not what was written", REMEDY)
    except OSError as error:
        raise DamagedError(folder, f"images.bin cannot be read: {error.strerror}", REMEDY) from error


def _write(
    folder: Path, dataset: Dataset, split: str, size: int, progress: Progress | None, resizing: Resizing
) -> None:
    """Write a prepared set into a folder that may hold a part of it."""
    jpeg = stored_as_jpeg(len(dataset.rows(split)), size)

    def encode(source: Path | bytes) -> tuple[bytes, bytes]:
        pixels = load_resized(source, size, resizing)
        if jpeg:
            stored = _encode_jpeg(pixels)
        else:
            sides = np.array(pixels.shape[1:], SIDE).tobytes() if resizing.mode == "keep_ratio" else b""
            stored = sides + pixels.tobytes()
        # Here, in the threads: the one that writes would take longer for it than for all else.
        return stored, _checksum(stored)

    _write_images(folder, dataset, split, encode, progress)
    journal = _journal(folder)
    if not len(journal):
        raise BenchError(f"dataset '{dataset.card.name}', {split}: none of its images can be decoded")
    # In the order of the journal: rows that were bad before a kill and no longer are come last.
    columns = dataset.table(split).select([name for name in COLUMNS if name != "image"]).take(journal["row"])
    contents = hashlib.sha256(journal["digest"].tobytes())
    with pa.ipc.new_file(str(folder / "columns.arrow"), columns.schema) as file:
        for batch in columns.to_batches(max_chunksize=CHUNK):
            file.write_batch(batch)
            contents.update(json.dumps(batch.to_pylist(), sort_keys=True).encode())
    files = [file_digest(folder / name) for name in FILES]
    meta: Meta = {"fingerprint": contents.hexdigest()[:20], "jpeg": jpeg, "files": files}
    (folder / "meta.json").write_text(json.dumps(meta))


def _write_images(
    folder: Path,
    dataset: Dataset,
    split: str,
    encode: Callable[[Path | bytes], tuple[bytes, bytes]],
    progress: Progress | None,
) -> None:
    """Append the images that are not in the folder yet, and an entry of the journal for each.

    encode: returns what is stored of an image, and its checksum.
    """
    journal = _resume(folder)
    end = int(journal["end"][-1]) if len(journal) else 0
    # Written, not memory-mapped: a full disk then raises an error instead of ending the process.
    with (folder / "images.bin").open("ab") as images, (folder / "journal.bin").open("ab") as entries:
        waiting: list[tuple[int, int, bytes]] = []

        def flush() -> None:
            images.flush()
            entries.write(np.array(waiting, dtype=JOURNAL).tobytes())
            entries.flush()
            waiting.clear()

        for row, (encoded, checksum) in dataset.decode(split, encode, progress, journal["row"].tolist()):
            images.write(encoded)
            end += len(encoded)
            waiting.append((row, end, checksum))
            if len(waiting) == FLUSH:
                flush()
        flush()


def _encode_jpeg(pixels: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()


def stored_as_jpeg(images: int, size: int) -> bool:
    """Return whether a split of so many images, ``size`` pixels a side, is stored as JPEG."""
    return images * 3 * size * size > LARGE


def stored_bytes(images: int, size: int, keep_ratio: bool = False) -> int:
    """Return the bytes that a prepared split takes, without texts: exact for pixels, about a tenth of them for JPEG.

    keep_ratio: whether images keep their ratio; assumed to be USUAL.
    """
    pixels = round(images * 3 * size * size * (USUAL if keep_ratio else 1))
    return images * JOURNAL.itemsize + (round(JPEG_SHARE * pixels) if stored_as_jpeg(images, size) else pixels)


def is_prepared(dataset: Dataset, split: str, size: int, cache: Path, resizing: Resizing = DEFAULT) -> bool:
    """Return whether prepare() would find the split in the cache."""
    return _folder(dataset, split, size, cache, resizing).is_dir()


def damaged(dataset: Dataset, split: str, size: int, cache: Path, resizing: Resizing = DEFAULT) -> int:
    """The number of prepared images whose checksums are wrong; 0 if nothing is prepared."""
    folder = _folder(dataset, split, size, cache, resizing)
    return _wrong_images(folder) if folder.is_dir() else 0


def _wrong_images(folder: Path) -> int:
    count, start = 0, 0
    with (folder / "images.bin").open("rb") as images:
        for _, end, checksum in _journal(folder).tolist():
            count += _checksum(images.read(end - start)) != checksum
            start = end
    return count


def _checksum(stored: bytes) -> bytes:
    return hashlib.blake2b(stored, digest_size=8).hexdigest().encode()


def _damage(folder: Path, problem: str) -> DamagedError:
    """Set a prepared set aside; return the error to raise."""
    error = DamagedError(folder, problem, REMEDY)
    set_aside(folder, error)
    return error


def _folder(dataset: Dataset, split: str, size: int, cache: Path, resizing: Resizing) -> Path:
    libraries = (PIL.__version__, version("torch"))
    parts = (formats.CACHE, *libraries, dataset.fingerprint, dataset.on_bad_data, split, size, asdict(resizing))
    return Path(cache) / "prepared" / digest(["prepared", *parts])


def _journal(folder: Path) -> np.ndarray:
    path = folder / "journal.bin"
    complete = path.stat().st_size // JOURNAL.itemsize if path.is_file() else 0
    return np.fromfile(path, JOURNAL, complete) if complete else np.empty(0, JOURNAL)


def _resume(folder: Path) -> np.ndarray:
    """The journal of the images that a killed preparation wrote completely; everything after them is cut off."""
    images, entries = folder / "images.bin", folder / "journal.bin"
    journal = _journal(folder)
    size = images.stat().st_size if images.is_file() else 0
    journal = journal[: int(np.searchsorted(journal["end"], size, side="right"))]
    for path, length in ((images, int(journal["end"][-1]) if len(journal) else 0), (entries, journal.nbytes)):
        if path.is_file():
            os.truncate(path, length)
    return journal
