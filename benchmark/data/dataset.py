"""A dataset opened: its records, checked."""

import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute
from PIL import Image

from benchmark.common.errors import BenchError
from benchmark.data.card import Card
from benchmark.data.images import decode_image, load_image
from benchmark.data.problems import BadRow, OnBadData, Problems, summary
from benchmark.data.resizing import DEFAULT, Resizing
from benchmark.data.sources import Row
from benchmark.data.sources.base import SPLITS, place
from benchmark.store import formats
from benchmark.store.cache import build_folder, cache_root, write_file
from benchmark.store.hashing import digest

if TYPE_CHECKING:
    import datasets

LISTS = ("text", "text_id", "question", "answer", "answer_type", "question_type")
COLUMNS = ("id", "group", "image", "label", *LISTS)
CHUNK = 1000

Progress = Callable[[int, int], None]
"""Called with the number of rows done and the number of all."""
T = TypeVar("T")


@dataclass(frozen=True)
class Undecodable:
    """An image that cannot be decoded: the number of its row, and what is wrong in few and in more words."""

    row: int
    reason: str
    message: str


def open_dataset(card: Card, on_bad_data: OnBadData = "error", cache: Path | None = None) -> "Dataset":
    """The dataset that a card describes. Nothing is read yet; the first use reads the rows and raises ``BenchError``
    where they are bad, or leaves these out when ``on_bad_data`` is "skip". cache: a folder for derived data.
    """
    return Dataset(card, on_bad_data, Path(cache) if cache is not None else cache_root())


class Dataset:
    """Records by split: a row an image, checked on reading.

    Bad rows raise ``BenchError`` naming file, row and what is wrong; with ``on_bad_data`` "skip" they are left out and
    counted in ``left_out``. A group or an image that is in two splits stays in that of its first row.
    """

    def __init__(self, card: Card, on_bad_data: OnBadData, cache: Path) -> None:
        self.card = card
        self.on_bad_data: OnBadData = on_bad_data
        self.cache = cache

    @property
    def provides(self) -> frozenset[str]:
        """Of "text", "label", "question", "prompts"."""
        return self.card.provides

    @property
    def streams(self) -> bool:
        """Whether it is read while a model is trained on it (benchmark.data.streamed), and has no records."""
        return self.card.source.streams

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the rows, the classes, the images' sizes and times and what was left out; not with the place
        where the data lie, nor with prompts.
        """
        whole = self.card.source.has_files and not self.streams
        # Not the source's where there are files: one that no row needs is part of that.
        rows = self._meta["content"] if whole else self.card.source.fingerprint()
        found = (self._found.states, self._meta["left_out"]) if whole else ()
        return digest([formats.DATA, rows, self.card.classes, self.card.multi_label, *found])

    @property
    def left_out(self) -> dict[str, int]:
        """The number of rows left out, by reason; undecodable images are among them once check() or prepare() ran."""
        if self.streams:
            return {}
        counts = Counter(self._meta["left_out"]) + self._found.missing
        for split in self.splits():
            counts.update(bad.reason for bad in self._undecodable(split) or [])
        return dict(counts)

    def splits(self) -> list[str]:
        """The splits that have rows, of "train", "val" and "test" in this order."""
        if self.streams or not self.card.source.has_files:
            return self.card.source.splits()
        return [split for split in SPLITS if len(self._found.rows.get(split, ()))]

    def is_read(self, split: str) -> bool:
        """Whether records(split) is in the cache, so that neither the source is read nor an image decoded."""
        if self.streams or not self._table_folder.is_dir() or split not in self.splits():
            return False
        return self.on_bad_data != "skip" or self._marker(split).is_file()

    def records(self, split: str) -> "datasets.Dataset":
        """The rows of a split, with the columns of COLUMNS, memory-mapped; images decode to RGB. Raises ``BenchError``
        when there is no such split. With "skip" the first call decodes every image, to know the bad ones.
        """
        import datasets

        if self.on_bad_data == "skip":
            self._verify(split, None)
        rows = self.rows(split)
        table = datasets.Dataset.from_file(str(self._tables / f"{split}.arrow"))
        table = table.select(rows).select_columns(list(COLUMNS)).cast_column("image", datasets.Image(decode=False))
        folder = self.card.source.image_folder()

        def decode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
            if "image" not in batch:
                return batch
            try:
                return batch | {"image": [decode_image(_file(image, folder)) for image in batch["image"]]}
            except BadRow as bad:
                raise BenchError(f"dataset '{self.card.name}', split '{split}': an image {bad.message}") from bad

        return table.with_transform(decode)

    def check(
        self,
        size: int | None = None,
        progress: Progress | None = None,
        splits: Sequence[str] | None = None,
        resizing: Resizing = DEFAULT,
    ) -> None:
        """Find everything that can be wrong with the data, before training: read all rows and decode every image (of
        ``splits`` alone, where they are given), unless that was done before. With ``size`` what is decoded is kept, as
        prepare() does.

        Of a stream, list the samples and look at the first of each shard.

        Raises ``BenchError`` for the first bad row (with the number of the others), and when no row is left.
        """
        from benchmark.data.prepared import prepare
        from benchmark.data.streamed import Stream

        self.check_rows()
        for split in self.splits():
            if splits and split not in splits:
                continue
            if self.streams:
                Stream(self.card, split, self.cache, progress).check()
            elif size is None:
                self._verify(split, progress)
            else:
                prepare(self, split, size, self.cache, progress, resizing)

    def check_rows(self) -> None:
        """Raise ``BenchError`` for the first bad row, and when no row is left. No image is decoded."""
        if not self.splits():
            reasons = ", ".join(f"{reason}: {count}" for reason, count in self.left_out.items())
            raise BenchError(f"dataset '{self.card.name}' has no rows" + (f"; left out: {reasons}" if reasons else ""))

    def rows(self, split: str) -> np.ndarray:
        """The numbers of the rows of table() that count, int64, ascending: not those known to be bad. Raises
        ``BenchError`` when there is no such split.
        """
        if split not in self.splits():
            valid = ", ".join(self.splits()) or "none"
            raise BenchError(f"dataset '{self.card.name}' has no split '{split}'; it has: {valid}")
        if self.streams:
            raise BenchError(
                f"dataset '{self.card.name}' streams: it is for pretraining alone; 'stream: false' reads it as a whole"
            )
        bad = [bad.row for bad in self._undecodable(split) or []]
        return np.setdiff1d(self._found.rows[split], bad)

    def table(self, split: str) -> pa.Table:
        """The rows of a split as they were read: COLUMNS, and ``file`` and ``row``, where each stood. Memory-mapped."""
        with pa.memory_map(str(self._tables / f"{split}.arrow")) as file:
            return pa.ipc.open_stream(file).read_all()

    def decode(
        self, split: str, work: Callable[[Image.Image], T], progress: Progress | None = None, done: Sequence[int] = ()
    ) -> Iterator[tuple[int, T]]:
        """``work`` done on each picture of rows(), in threads: pairs of row number and result, in order. Pictures are
        upright and in mode L or RGB. Bad ones are left out and, when all is done, remembered; unless they are to be
        skipped, ``BenchError`` is raised then. done: rows that need not be looked at.
        """
        known = self._undecodable(split) or []
        self._stop_at(known)
        every = self.rows(split)
        rows = np.setdiff1d(every, done).tolist()
        table = self.table(split)
        images, folder = table.column("image"), self.card.source.image_folder()

        def one(row: int) -> T | Undecodable:
            image = images[row].as_py()
            try:
                return work(load_image(_file(image, folder)))
            except BadRow as bad:
                where = place(table.column("file")[row].as_py(), table.column("row")[row].as_py())
                what = f"image '{image['path']}'" if image["path"] else "the image"
                return Undecodable(row, bad.reason, f"{where}: {what} {bad.message}")

        found = []
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for number, (row, result) in enumerate(zip(rows, _in_order(pool, one, rows)), 1 + len(every) - len(rows)):
                if isinstance(result, Undecodable):
                    found.append(result)
                else:
                    yield row, result
                if progress:
                    progress(number, len(every))
        bad = sorted([*known, *found], key=lambda bad: bad.row)
        write_file(self._marker(split), json.dumps([asdict(each) for each in bad]).encode())
        self._stop_at(bad)

    def _verify(self, split: str, progress: Progress | None) -> None:
        if self._undecodable(split) is None:
            for _ in self.decode(split, lambda picture: None, progress):
                pass
        self._stop_at(self._undecodable(split) or [])

    def _stop_at(self, bad: list[Undecodable]) -> None:
        if bad and self.on_bad_data == "error":
            raise BenchError(bad[0].message + summary(Counter(each.reason for each in bad)))

    def _undecodable(self, split: str) -> list[Undecodable] | None:
        """None while nobody has looked."""
        marker = self._marker(split)
        return [Undecodable(**bad) for bad in json.loads(marker.read_bytes())] if marker.is_file() else None

    def _marker(self, split: str) -> Path:
        return self.cache / "decoded" / f"{digest([self.fingerprint, split])}.json"

    @cached_property
    def _found(self) -> "_Found":
        """Which rows have their image, as of now: unlike the rows themselves this is looked at anew each time."""
        folder = self.card.source.image_folder()
        rows, problems, states = {}, Problems(), hashlib.sha256()
        for split in self._meta["splits"]:
            table = self.table(split)
            paths = pa.compute.struct_field(table.column("image"), "path").to_pylist()
            files, lines = table.column("file"), table.column("row")
            there = np.ones(len(paths), dtype=bool)
            for i, path in enumerate(paths):
                if path is None:
                    continue
                try:
                    state = os.stat(folder / path)
                    states.update(repr((split, path, state.st_size, state.st_mtime_ns)).encode())
                except OSError as error:
                    there[i] = False
                    missing = isinstance(error, FileNotFoundError)
                    what = f"does not exist (looked in {folder})" if missing else f"cannot be read: {error.strerror}"
                    bad = BadRow("missing image", f"image '{path}' {what}")
                    problems.add(place(files[i].as_py(), lines[i].as_py()), bad)
            rows[split] = np.flatnonzero(there)
        problems.stop(self.on_bad_data)
        return _Found(rows, problems.counts, states.hexdigest())

    @cached_property
    def _meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = json.loads((self._tables / "meta.json").read_text())
        return meta

    @cached_property
    def _tables(self) -> Path:
        """The folder with the rows of each split in an Arrow file, read once for a state of the source."""
        return build_folder(self._table_folder, self._read)

    @property
    def _table_folder(self) -> Path:
        parts = (
            formats.DATA,
            self.card.source.fingerprint(),
            self.card.classes,
            self.card.multi_label,
            self.on_bad_data,
        )
        return self.cache / "records" / digest(["records", formats.CACHE, *parts])

    def _read(self, folder: Path) -> None:
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        label = pa.list_(pa.int64()) if self.card.multi_label else pa.int64()
        types = {"image": image, "label": label, "row": pa.int64()} | {name: pa.list_(pa.string()) for name in LISTS}
        schema = pa.schema([(name, types.get(name, pa.string())) for name in (*COLUMNS, "file", "row")])
        problems = Problems()
        counts: Counter[str] = Counter()
        content = hashlib.sha256()
        with ExitStack() as stack:
            writers: dict[str, pa.RecordBatchStreamWriter] = {}
            source = self.card.source
            rows = _unique(source.rows(self.card, problems), problems, source.shares_images())
            # When the disk is full it is over now: left to the garbage collector, processes that draw or files that
            # are read would end in any thread, even in one that waits for them.
            stack.enter_context(closing(rows))
            while chunk := list(islice(rows, CHUNK)):
                for split in {row.split: None for row in chunk}:
                    part = [row for row in chunk if row.split == split]
                    columns = {name: [getattr(row, name) for row in part] for name in schema.names}
                    columns["image"] = [
                        {"path": row.image} if isinstance(row.image, str) else {"bytes": row.image} for row in part
                    ]
                    if split not in writers:
                        path = str(folder / f"{split}.arrow")
                        writers[split] = stack.enter_context(pa.ipc.new_stream(path, schema))
                    writers[split].write_table(pa.table(columns, schema))
                    counts[split] += len(part)
                for row in chunk:
                    content.update(row.content())
        problems.stop(self.on_bad_data)
        meta = {"splits": counts, "left_out": problems.counts, "content": content.hexdigest()}
        (folder / "meta.json").write_text(json.dumps(meta))


@dataclass(frozen=True)
class _Found:
    rows: dict[str, np.ndarray]
    missing: Counter[str]
    states: str


def _unique(rows: Iterator[Row], problems: Problems, shared: bool) -> Generator[Row, None, None]:
    """The rows without those whose id was there before, or whose group or image was there in another split (unless the
    published splits do share them).
    """
    ids: dict[str, tuple[str, int]] = {}
    splits: dict[tuple[str, str], tuple[str, str, int]] = {}
    for row in rows:
        if row.id in ids:
            bad = BadRow("duplicate id", f"id '{row.id}' is already that of {place(*ids[row.id])}")
            problems.add(row.place, bad)
            continue
        names = [("group", row.group)] + ([("image", row.image)] if isinstance(row.image, str) else [])
        names = [] if shared else names
        for kind, name in names:
            split, file, line = splits.get((kind, name), (row.split, row.file, row.row))
            if split != row.split:
                message = f"{kind} '{name}' is in split '{row.split}' here, but in '{split}' in {place(file, line)}"
                problems.add(row.place, BadRow(f"{kind} in two splits", message))
                break
        else:
            ids[row.id] = (row.file, row.row)
            for item in names:
                splits.setdefault(item, (row.split, row.file, row.row))
            yield row


def _file(image: dict[str, Any], folder: Path) -> Path | bytes:
    return folder / image["path"] if image["path"] else image["bytes"]


def _in_order(pool: ThreadPoolExecutor, work: Callable[[int], T], items: list[int]) -> Iterator[T]:
    """map(), a bounded number ahead: what was computed and not yet taken stays in memory."""
    waiting: deque[Future[T]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) == 64:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
