"""An opened dataset: its records, checked."""

import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
from PIL import Image

from benchmark.common.errors import BenchError, MachineError
from benchmark.data.card import Card
from benchmark.data.image_files import ImageFiles, image_files, known_files
from benchmark.data.images import check_image, decode_image, load_image
from benchmark.data.problems import BadRow, OnBadData, summary
from benchmark.data.record_tables import read_stream
from benchmark.data.records import COLUMNS, SPLITS, place
from benchmark.data.shared import Counts, Records, Rules, write_shared
from benchmark.data.sources.base import Fractions
from benchmark.data.sources.folders import located
from benchmark.data.sources.subsample import Candidate
from benchmark.data.writing import Summary, write_records
from benchmark.store import formats
from benchmark.store.cache import build_folder, cache_root, remember, remembered
from benchmark.store.hashing import digest

if TYPE_CHECKING:
    import datasets

THREADS = 16
"""The most threads that decode; decoding and resizing do not hold the interpreter's lock."""
WAITING = 4 * THREADS
"""The most images that are decoded ahead of their use."""

Progress = Callable[[int, int], None]
"""Called with the number of rows done and the number of all rows."""
T = TypeVar("T")


@dataclass(frozen=True)
class Undecodable:
    """An image that cannot be decoded: the number of its row, the reason in a few words, and the full message."""

    row: int
    reason: str
    message: str


def open_dataset(card: Card, on_bad_data: OnBadData = "error", cache: Path | None = None) -> "Dataset":
    """Open the dataset that a card describes.

    Rows are read on first use, which raises ``BenchError`` for bad rows, or leaves them out if ``on_bad_data`` is
    "skip". cache: a folder for derived data.
    """
    return Dataset(card, on_bad_data, Path(cache) if cache is not None else cache_root())


class Dataset:
    """Records by split, one for each image, checked when they are read.

    In sets with texts, rows of a split that share an image and its label are gathered: by path, and by content where
    paths differ, so that captions of one image are never taken for wrong. Without texts, rows with an ``id`` of their
    own stay as they are.

    Bad rows raise ``BenchError``, which names the file, the row and the problem; with ``on_bad_data`` "skip" they are
    left out and counted in ``left_out``. A group or an image that occurs in two splits stays in the split of its first
    row, and later rows are bad, unless the card says what to do with them (``shared_images``, ``shared_groups``).
    """

    def __init__(self, card: Card, on_bad_data: OnBadData, cache: Path) -> None:
        self.card = card
        self.on_bad_data: OnBadData = on_bad_data
        self.cache = cache
        self._closely = False

    @property
    def provides(self) -> frozenset[str]:
        """Which of "text", "label", "question" and "prompts" the dataset has."""
        return self.card.provides

    @property
    def is_here(self) -> bool:
        """Whether the data are on this machine, or can be drawn or loaded by it."""
        return True

    @property
    def streams(self) -> bool:
        """Whether the data are read during training (see benchmark.data.streamed); there are no records then."""
        return self.card.source.streams

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the rows, the classes, the sizes and times of the images, and what was left out.

        It does not depend on where the data lie, nor on prompts.
        """
        read = self.card.source.has_files and not self.streams
        # Where there are files, not the fingerprint of the source: it also depends on files that no row needs.
        rows = self._summary["content"] if read else self.card.source.fingerprint()
        images = (self._image_files.states, self._summary["left_out"]) if read else ()
        if any(self.shared.values()):
            images = (*images, self.shared)
        drawing = self.card.source.drawing
        return digest([formats.DATA, rows, self.card.classes, self.card.multi_label, *images, *drawing])

    @property
    def left_out(self) -> dict[str, int]:
        """The number of rows left out, by reason. Undecodable images are counted after check() or prepare()."""
        if self.streams:
            return {}
        counts = Counter(self._summary["left_out"]) + self._image_files.missing
        for split in self.splits():
            counts.update(bad.reason for bad in self._undecodable(split) or [])
        return dict(counts)

    @property
    def remarks(self) -> dict[str, int]:
        """What is worth knowing about rows that are used, with their number."""
        return {} if self.streams else self._summary.get("remarks", {})

    @property
    def not_drawn(self) -> dict[str, int]:
        """The number of usable rows of each split that a subsample leaves out."""
        return {split: len(self._usable[split]) - len(rows) for split, rows in self._drawn.items()}

    def splits(self) -> list[str]:
        """The splits that have rows, in the order "train", "val", "test"."""
        if self.streams or not self.card.source.has_files:
            return self.card.source.splits()
        rows = self._usable | self._drawn
        return [split for split in SPLITS if len(rows.get(split, ()))]

    @cached_property
    def gathered(self) -> dict[str, tuple[int, int]]:
        """By split, the number of rows of the source with an image that other rows have too, and of these images."""
        if self.streams or not self.card.source.has_files:
            return {}
        read, merged = self._summary["gathered"], self.shared["merged"]
        pairs = {split: np.add(read.get(split, (0, 0)), merged.get(split, (0, 0))).tolist() for split in SPLITS}
        return {split: (rows, images) for split, (rows, images) in pairs.items() if rows}

    @cached_property
    def shared(self) -> Counts:
        """What became of rows that share an image, or a group that is in another split."""
        if self._rules is None:
            return {"merged": {}, "dropped": {}}
        counts: Counts = json.loads((self._shared_folder / "meta.json").read_text())
        return counts

    def is_listed(self, split: str) -> bool:
        """Whether rows(split) is in the cache, so that it does not read the source."""
        if self.streams or not self._table_folder.is_dir():
            return False
        return (self._rules is None or self._shared_name.is_dir()) and split in self.splits()

    def is_read(self, split: str) -> bool:
        """Whether records(split) is in the cache, so that it neither reads the source nor decodes an image."""
        if not self.is_listed(split):
            return False
        return self.on_bad_data != "skip" or self._decoded_file(split).is_file()

    def records(self, split: str) -> "datasets.Dataset":
        """The rows of a split as a memory-mapped ``datasets.Dataset`` with the columns of COLUMNS.

        Images decode to RGB. With "skip", the first call decodes every image to find the bad ones.
        Raises ``BenchError`` if there is no such split.
        """
        import datasets

        if self.on_bad_data == "skip":
            self.check_images(split)
        rows = self.rows(split)
        # With a fingerprint, since otherwise all rows would be hashed for one.
        fingerprint = digest([self.fingerprint, split])
        table = datasets.Dataset(datasets.table.InMemoryTable(self.table(split)), fingerprint=fingerprint)
        table = table.select(rows).select_columns(list(COLUMNS)).cast_column("image", datasets.Image(decode=False))
        where = f"dataset '{self.card.name}', split '{split}'"
        return table.with_transform(_Decoding(where, self.card.source.image_folder()))

    def rows(self, split: str) -> np.ndarray:
        """The numbers of the usable rows of table(), int64, ascending: without those known to be bad.

        Raises ``BenchError`` if there is no such split.
        """
        if split not in self.splits():
            valid = ", ".join(self.splits()) or "none"
            raise BenchError(f"dataset '{self.card.name}' has no split '{split}'; it has: {valid}")
        if self.streams:
            raise BenchError(
                f"dataset '{self.card.name}' is streamed, which is for pretraining only; "
                "'stream: false' in its card prepares it as a whole"
            )
        bad = [bad.row for bad in self._undecodable(split) or []]
        rows = self._drawn.get(split, self._usable[split])
        return np.setdiff1d(rows, bad) if bad else rows

    def table(self, split: str) -> pa.Table:
        """All rows of a split, memory-mapped: COLUMNS, and ``file`` and ``row``, the place where each was read.

        A row that others were merged into has the texts and questions of all.
        """
        table = read_stream(self._tables / f"{split}.arrow")
        if split in self.shared["merged"]:
            merged = read_stream(self._shared_folder / f"{split}.arrow")
            for name in merged.column_names:
                table = table.set_column(table.column_names.index(name), name, merged[name])
        return table

    def column(self, split: str, name: str, whole: bool = False) -> list[Any]:
        """A column of the rows of a split but those left out for what they share, in order; no image is decoded.

        whole: also of the rows that a subsample leaves out.
        """
        values = self.table(split)[name]
        if split in self.card.source.drawn_splits and not whole:
            return list(values.take(self._drawn[split]).to_pylist())
        left_out = self._left_out_for_sharing(split)
        every = values if left_out is None else values.take(np.setdiff1d(np.arange(len(values)), left_out))
        listed: list[Any] = every.to_pylist()
        return listed

    def picture(self, split: str, row: int) -> Image.Image:
        """Decode the image of one row of table(), upright and in mode L or RGB.

        Raises ``BenchError`` if it cannot be decoded.
        """
        image = self.table(split).column("image")[row].as_py()
        try:
            return load_image(_image_source(image, self.card.source.image_folder()))
        except BadRow as bad:
            raise BenchError(f"dataset '{self.card.name}', split '{split}': an image {bad.message}") from bad

    def decode(
        self, split: str, work: Callable[[Path | bytes], T], progress: Progress | None = None, done: Sequence[int] = ()
    ) -> Iterator[tuple[int, T]]:
        """Apply ``work`` to the image of each of rows(), in threads; yields pairs of row number and result, in order.

        work: decodes an image file, or its content. done: rows to leave out.
        Bad images are remembered after the last one. Then ``BenchError`` is raised, unless they are to be skipped.
        """
        known = self._undecodable(split) or []
        self._stop_at(known)
        every = self.rows(split)
        rows = np.setdiff1d(every, done).tolist()
        table = self.table(split)
        images, folder = table.column("image"), self.card.source.image_folder()

        def decode_one(row: int) -> T | Undecodable:
            image = images[row].as_py()
            try:
                return work(_image_source(image, folder))
            except BadRow as bad:
                where = place(table.column("file")[row].as_py(), table.column("row")[row].as_py())
                name = f"image '{image['path']}'" if image["path"] else "the image"
                return Undecodable(row, bad.reason, f"{where}: {name} {bad.message}")

        undecodable = []
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
            results = _in_order(pool, decode_one, rows)
            for number, (row, result) in enumerate(zip(rows, results), 1 + len(every) - len(rows)):
                if isinstance(result, Undecodable):
                    undecodable.append(result)
                else:
                    yield row, result
                if progress:
                    progress(number, len(every))
        bad = sorted([*known, *undecodable], key=lambda bad: bad.row)
        remember(self._decoded_file(split), [asdict(each) for each in bad])
        self._stop_at(bad)

    def check_images(self, split: str, progress: Progress | None = None) -> None:
        """Decode every image of a split, unless that was done before.

        Raises ``BenchError`` for the first bad image, unless bad rows are to be skipped.
        """
        if self._undecodable(split) is None:
            for _ in self.decode(split, check_image, progress):
                pass
        self._stop_at(self._undecodable(split) or [])

    def _stop_at(self, bad: list[Undecodable]) -> None:
        if bad and self.on_bad_data == "error":
            raise BenchError(bad[0].message + summary(Counter(each.reason for each in bad)))

    def _undecodable(self, split: str) -> list[Undecodable] | None:
        """The images that cannot be decoded, or None if they were not all decoded yet."""
        known = remembered(self._decoded_file(split))
        return None if known is None else [Undecodable(**bad) for bad in known]

    def _decoded_file(self, split: str) -> Path:
        return self.cache / "decoded" / f"{digest([self.fingerprint, split])}.json"

    @contextmanager
    def _named_in_errors(self) -> Iterator[None]:
        """Name the dataset in the errors of the block, such as that a file is missing."""
        try:
            yield
        except BenchError as error:
            if not self.card.source.needs():  # The hub's errors name its dataset already.
                raise
            hint = ""
            if self.card.get and not self.card.source.is_present():
                hint = f"{'' if str(error).endswith('?') else ';'} get it with: bench data get {self.card.reference}"
            kind = MachineError if isinstance(error, MachineError) else BenchError
            raise kind(f"dataset '{self.card.name}': {error}{hint}") from error

    @cached_property
    def _usable(self) -> dict[str, np.ndarray]:
        """By split, the numbers of the rows with an image file that are not left out for what they share."""
        usable = dict(self._image_files.rows)
        for split, rows in usable.items():
            left_out = self._left_out_for_sharing(split)
            usable[split] = rows if left_out is None else np.setdiff1d(rows, left_out)
        return usable

    def _left_out_for_sharing(self, split: str) -> np.ndarray | None:
        """The numbers of the rows that were merged into others or dropped, or None if there are none."""
        if not any(self.shared.values()):
            return None
        file = self._shared_folder / f"{split}.npy"
        rows: np.ndarray | None = np.load(file) if file.is_file() else None
        return rows

    @property
    def _rules(self) -> Rules | None:
        """What to look for among the rows, or None if there is nothing to look for."""
        source = self.card.source
        if self.streams or not source.has_files:
            return None
        drop = source.shared_group_rule() == "drop"
        merge = "text" in self.provides
        if not (merge or drop):
            return None
        drawn = isinstance(getattr(source, "split", None), Fractions)
        return Rules(merge, drop, across=drawn, split_in_id=source.shares_images())

    @property
    def _shared_name(self) -> Path:
        """The folder for what write_shared() finds, for each state of the source and of its images."""
        rules = self._rules
        assert rules is not None
        parts = (formats.DATA, formats.CACHE, self._table_folder.name, self._image_files.states, asdict(rules))
        return self.cache / "shared" / digest(["shared", *parts])

    @cached_property
    def _shared_folder(self) -> Path:
        def write(folder: Path) -> None:
            records = {}
            if not self._image_files.sizes:
                # They were remembered without.
                self.look_closely()
                del self._image_files
            for split, usable in self._image_files.rows.items():
                table = read_stream(self._tables / f"{split}.arrow")
                records[split] = Records(table, usable, self._image_files.sizes[split])
            rules = self._rules
            assert rules is not None
            write_shared(folder, records, self.card.source.image_folder(), rules)

        return build_folder(self._shared_name, write)

    @cached_property
    def _image_files(self) -> ImageFiles:
        """Which rows have their image file now. Unlike the rows themselves, this is not cached on disk."""
        tables = {split: read_stream(self._tables / f"{split}.arrow") for split in self._summary["splits"]}
        with self._named_in_errors():
            folder = self.card.source.image_folder()
        memory = self.cache / "image_files" / f"{digest([self._table_folder.name, str(folder)])}.json"
        known = None if self._closely else known_files(tables, folder, memory)
        return known or image_files(tables, folder, self.on_bad_data, memory)

    def look_closely(self) -> None:
        """Have every image file looked at when the dataset is first used, also in folders that have not changed."""
        self._closely = True

    @cached_property
    def _drawn(self) -> dict[str, np.ndarray]:
        """By split of which the card's subsample uses a part, the numbers of its rows."""
        source = self.card.source
        return {} if self.streams else {split: self._draw(split) for split in SPLITS if split in source.drawn_splits}

    def _draw(self, split: str) -> np.ndarray:
        """Draw the subsample of a split, once for each state of the data."""
        file = self.cache / "drawn" / f"{digest([self.fingerprint, split])}.json"
        if (known := remembered(file)) is not None:
            return np.array(known, dtype=np.int64)
        usable = self._usable.get(split, np.empty(0, np.int64))
        if not len(usable):
            raise BenchError(f"dataset '{self.card.name}': a subsample of {split}, which has no rows")
        table = self.table(split).select(list(Candidate._fields)).take(usable)
        candidates = [Candidate(*values) for values in zip(*(column.to_pylist() for column in table.columns))]
        try:
            drawn: np.ndarray = usable[self.card.source.draw(candidates, split, self.card.labels)]
        except BenchError as error:
            raise BenchError(f"dataset '{self.card.name}': {error}") from error
        remember(file, drawn.tolist())
        return drawn

    @cached_property
    def _summary(self) -> Summary:
        summary: Summary = json.loads((self._tables / "meta.json").read_text())
        return summary

    @cached_property
    def _tables(self) -> Path:
        """The folder with an Arrow file of the rows of each split, written once for each state of the source."""
        return build_folder(self._table_folder, self._write_tables)

    @property
    def _table_folder(self) -> Path:
        card = self.card
        with self._named_in_errors():
            source = card.source.fingerprint()
        parts = (formats.DATA, source, card.classes, card.multi_label, self.on_bad_data)
        return self.cache / "records" / digest(["records", formats.CACHE, *parts])

    def _write_tables(self, folder: Path) -> None:
        source = self.card.source
        meta = write_records(folder, source, self.card.labels, self.on_bad_data, "text" in self.provides)
        (folder / "meta.json").write_text(json.dumps(meta))


class AbsentDataset(Dataset):
    """A dataset that is not on this machine, as far as its card describes it: to plan with, not to read."""

    @property
    def is_here(self) -> bool:
        """Whether the data are on this machine."""
        return False

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the card, as there are no rows."""
        return digest(["absent", self.card.content(), *self.card.source.drawing])

    def splits(self) -> list[str]:
        """The splits that the card names; all of them if it names none."""
        with suppress(BenchError):
            return list(self.card.expected_rows) or self.card.source.splits()
        return list(SPLITS)

    def is_listed(self, split: str) -> bool:
        """Return False: there is nothing to list."""
        return False


@dataclass(frozen=True)
class _Decoding:
    """Decodes the images of a batch of records. where: for messages. folder: that of images stored as paths.

    ``datasets`` pickles a transform to hash it, and a function of this module with all that it refers to: that takes
    0.1 s for each split.
    """

    where: str
    folder: Path

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if "image" not in batch:
            return batch
        try:
            return batch | {"image": [decode_image(_image_source(image, self.folder)) for image in batch["image"]]}
        except BadRow as bad:
            raise BenchError(f"{self.where}: an image {bad.message}") from bad


def _image_source(image: dict[str, Any], folder: Path) -> Path | bytes:
    encoded: bytes = image["bytes"]
    return located(folder, image["path"]) if image["path"] else encoded


def _in_order(pool: ThreadPoolExecutor, work: Callable[[int], T], items: list[int]) -> Iterator[T]:
    """Map with a bounded number of results ahead, since results that were not taken yet stay in memory."""
    waiting: deque[Future[T]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) == WAITING:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
