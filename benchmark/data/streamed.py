"""Pairs read from tar shards during training. Nothing is prepared except a list of where the samples are."""

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmark.common.errors import BenchError
from benchmark.data.card import Card
from benchmark.data.dataset import Dataset
from benchmark.data.images import load_image, load_resized
from benchmark.data.loader import Samples, Tokenizer
from benchmark.data.problems import BadRow, OnBadData, Problems
from benchmark.data.records import Row, place, text_hashes
from benchmark.data.resizing import DEFAULT, Resizing, framed
from benchmark.data.shared import same_content
from benchmark.data.sources.chunks import Values
from benchmark.data.sources.gather import merge
from benchmark.data.sources.table import RowReader
from benchmark.data.sources.webdataset import Member, Sample, WebDatasetSource, picture, sample_values, scan_shard
from benchmark.store import formats
from benchmark.store.cache import build_folder
from benchmark.store.hashing import digest

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("suffix", pa.list_(pa.string())),
        ("offset", pa.list_(pa.int64())),
        ("size", pa.list_(pa.int64())),
        ("reason", pa.string()),
        ("message", pa.string()),
    ]
)
CHUNK = 10_000
"""Samples written at once."""
CHECKED = 100
"""The most samples of a shard of which check() seeks a good one."""
THREADS = min(32, os.cpu_count() or 1)

Progress = Callable[[int, int], None]
"""Called with the number of shards done and the number of all shards."""
LeaveOut = Callable[[str, BadRow], None]
"""Called with the place of a sample that cannot be used, and the reason."""


@dataclass(frozen=True)
class Shard:
    """A tar file, and where its samples are in it.

    samples: a table with the columns of SCHEMA, memory-mapped. first: int64, for each sample the number of the first
    one with the same image.
    """

    path: Path
    samples: pa.Table
    first: np.ndarray

    def values(self, number: int, used: Set[str], images: bool = True) -> Values:
        """The columns of a sample, as sample_values() has them. Raises ``BadRow``."""
        return sample_values(_sample(self.samples, number), self._read, used, images)

    def _read(self, member: Member) -> bytes:
        return os.pread(_opened(self.path), member.size, member.offset)


@lru_cache(maxsize=256)
def _opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY)


class Stream:
    """A split of a streamed dataset: images by number, in the order of the shards.

    To list them, the headers of every shard are read, and of images of one size a piece, once; the list is cached.
    Samples of a shard with the same image and label are one, with all their texts; those in other shards are not found.
    """

    def __init__(self, card: Card, split: str, cache: Path, progress: Progress | None = None) -> None:
        source = card.source
        assert isinstance(source, WebDatasetSource)
        self.card, self.source, self.split = card, source, split
        paths = source.files(split)
        self.shards: list[Shard] = []
        with ThreadPoolExecutor(THREADS) as pool:
            for shard in pool.map(lambda path: _listed(path, cache, source.columns.image), paths):
                self.shards.append(shard)
                if progress:
                    progress(len(self.shards), len(paths))
        self._make_row = RowReader(source, card.labels)
        self._used = source.used_columns()
        self._further = [self._same_images(number) for number in range(len(self.shards))]
        """For each shard, by the number of the first sample of an image, those of its other samples."""
        self._images = [
            np.setdiff1d(np.arange(len(shard.samples)), [i for numbers in further.values() for i in numbers])
            for shard, further in zip(self.shards, self._further)
        ]
        self.ends = np.cumsum([len(images) for images in self._images])

    def __len__(self) -> int:
        return int(self.ends[-1])

    @property
    def gathered(self) -> tuple[int, int]:
        """The number of samples with an image that others of their shard have too, and of these images."""
        further = [numbers for of_shard in self._further for numbers in of_shard.values()]
        return len(further) + sum(map(len, further)), len(further)

    def _same_images(self, shard: int) -> dict[int, list[int]]:
        """The samples of each image that has several, and where there are labels, of the same label."""
        first = self.shards[shard].first
        together: dict[tuple[int, str], list[int]] = {}
        for number in np.flatnonzero(np.bincount(first, minlength=len(first))[first] > 1).tolist():
            together.setdefault((int(first[number]), self._label(shard, number)), []).append(number)
        return {numbers[0]: numbers[1:] for numbers in together.values() if len(numbers) > 1}

    def _label(self, shard: int, number: int) -> str:
        if "label" not in self.card.provides:
            return ""
        try:
            row = self._read_sample(shard, number, images=False)
        except BadRow:
            return f"bad sample {number}"
        return str(row and row.label)

    def row(self, number: int, leave_out: LeaveOut = lambda place, bad: None) -> Row:
        """Read an image, with the texts of all its usable samples.

        leave_out: called for each other sample. Raises ``BadRow`` for the first if none can be used.
        """
        row = self._read(number, leave_out)
        if row is None:
            raise BadRow("several classes", "an image with several classes")
        return row

    def without_image(self, number: int) -> Row | None:
        """Read everything of an image's usable samples except the image; None for an image with several classes.

        Raises ``BadRow`` if no sample can be used.
        """
        return self._read(number, lambda place, bad: None, images=False)

    def _read(self, number: int, leave_out: LeaveOut, images: bool = True) -> Row | None:
        """Read the samples of an image, or with ``images`` false everything except the image."""
        shard, local = self.at(number)
        row: Row | None = None
        unusable: list[tuple[str, BadRow]] = []
        for each in (local, *self._further[shard].get(local, ())):
            try:
                sample = self._read_sample(shard, each, images and row is None)
            except BadRow as bad:
                unusable.append((place(self.shards[shard].path.name, each + 1), bad))
                continue
            if row and sample:
                merge(row, sample)
            row = row or sample
        first = unusable.pop(0)[1] if unusable and row is None else None
        for where, reason in unusable:
            leave_out(where, reason)
        if first:
            raise first
        return row

    def _read_sample(self, shard: int, local: int, images: bool) -> Row | None:
        values = self.shards[shard].values(local, self._used, images)
        return self._make_row(self.shards[shard].path.name, local + 1, values, self.split)

    def at(self, number: int) -> tuple[int, int]:
        """The shard of an image, and the number in it of the first sample with the image."""
        shard = bisect_right(self.ends, number)
        return shard, int(self._images[shard][number - (int(self.ends[shard - 1]) if shard else 0)])

    def place(self, number: int) -> str:
        """The place of a sample, for messages."""
        shard, local = self.at(number)
        return place(self.shards[shard].path.name, local + 1)

    def check(self, on_bad_data: OnBadData = "error") -> None:
        """Read the first sample of each shard: mistakes in a card show in all samples. Raises ``BenchError``.

        on_bad_data: if bad samples are skipped, the first good one of the first CHECKED is read.
        """
        starts = [0, *self.ends[:-1].tolist()]
        for shard, start, end in zip(self.shards, starts, self.ends.tolist()):
            if not len(shard.samples):
                raise BenchError(f"{shard.path}: has no samples")
            self._check_shard(shard, range(start, end)[: CHECKED if on_bad_data == "skip" else 1], on_bad_data)

    def _check_shard(self, shard: Shard, numbers: range, on_bad_data: OnBadData) -> None:
        columns: set[str] = set()
        problems = Problems()
        first = ""
        for number in numbers:
            try:
                columns.update(shard.values(self.at(number)[1], self._used, images=False))
                load_image(encoded_image(self.row(number, problems.add)))
                first = ""
                break
            except BadRow as bad:
                first = first or f"{self.place(number)}: {bad.message}"
        if columns:
            # A column that the card misspells is missing in all samples, so this is not a bad row.
            self.source.check_columns(shard.path.name, {"image", *columns})
        if first:
            raise BenchError(first)
        problems.stop(on_bad_data)

    def texts(self) -> Iterator[str]:
        """All texts except those of bad samples. Images are not read."""
        for number in range(len(self)):
            try:
                row = self.without_image(number)
            except BadRow:
                continue
            yield from row.text if row else ()

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """The numbers of all samples in the order of an epoch, int64.

        Shards are in random order. In it, each sample moves by at most ``shuffle_buffer`` places, so that samples read
        one after the other lie close together on disk.
        """
        starts = np.concatenate([[0], self.ends[:-1]])
        shards = rng.permutation(len(self.shards))
        rows = np.concatenate([np.arange(starts[shard], self.ends[shard]) for shard in shards])
        places = np.arange(len(rows)) + rng.uniform(0, self.source.shuffle_buffer, len(rows))
        return rows[np.argsort(places, kind="stable")]


class StreamedPairs:
    """The pairs of a stream.

    Bad samples are missing in their batches and counted in ``left_out``, or raise ``BenchError`` unless they are to be
    skipped.
    """

    def __init__(
        self, stream: Stream, size: int, tokenizer: Tokenizer, on_bad_data: OnBadData, resizing: Resizing = DEFAULT
    ) -> None:
        self.stream, self.size, self.tokenizer, self.on_bad_data = stream, size, tokenizer, on_bad_data
        self.resizing = resizing
        self.rows = np.arange(len(stream))
        self.labelled = "label" in stream.card.provides
        self.longest: int | None = None
        self.order = stream.order
        self.left_out: dict[str, str] = {}
        """The reason why a sample is left out, by its place."""
        self._pool = ThreadPoolExecutor(THREADS)

    def take(self, rows: np.ndarray, choices: np.ndarray) -> Samples:
        """The pairs of these rows, see PairSet."""
        samples = list(self._pool.map(self._sample, rows.tolist()))
        at = np.array([i for i, sample in enumerate(samples) if sample is not None], dtype=np.int64)
        usable = [sample for sample in samples if sample is not None]
        texts = [row.text[int(choice) % len(row.text)] for (row, _), choice in zip(usable, choices[at])]
        images, sizes = framed([pixels for _, pixels in usable], self.size)
        return Samples(
            at,
            images,
            self.tokenizer(texts) if texts else [],
            text_hashes(texts),
            [row.id for row, _ in usable],
            np.array([row.label for row, _ in usable], dtype=np.int64),
            sizes if self.resizing.mode == "keep_ratio" else None,
        )

    def hashes(self, rows: np.ndarray, choices: np.ndarray) -> np.ndarray:
        """The hashes of the texts of these rows, see PairSet. Images are not read."""
        return text_hashes(text for text in self._pool.map(self._text, rows.tolist(), choices.tolist()) if text)

    def _text(self, number: int, choice: int) -> str:
        """The text that ``choice`` chooses; "" of a sample that cannot be used."""
        try:
            row = self.stream.without_image(number)
        except BadRow:
            return ""
        return row.text[choice % len(row.text)] if row else ""

    def _sample(self, number: int) -> tuple[Row, np.ndarray] | None:
        try:
            row = self.stream.row(number, self._leave_out)
            return row, load_resized(encoded_image(row), self.size, self.resizing)
        except BadRow as bad:
            self._leave_out(self.stream.place(number), bad)
            return None

    def _leave_out(self, where: str, bad: BadRow) -> None:
        if self.on_bad_data == "error":
            raise BenchError(f"{where}: {bad.message}; pass --on-bad-data skip to leave out such samples") from bad
        self.left_out[where] = bad.reason


def encoded_image(row: Row) -> bytes:
    """The encoded image of a streamed sample. Raises ``BadRow`` if the row names a file instead."""
    if isinstance(row.image, str):
        raise BadRow("no image", f"the image is a path, '{row.image}', and not a file of the sample")
    return row.image


def _listed(path: Path, cache: Path, image: str) -> Shard:
    """List the samples of a shard, once for each state of the file. image: the card's column of images."""
    state = path.stat()

    def write(folder: Path) -> None:
        with pa.ipc.new_file(str(folder / "samples.arrow"), SCHEMA) as file:
            samples = scan_shard(path)
            for start in range(0, len(samples), CHUNK):
                chunk = [_entry(sample) for sample in samples[start : start + CHUNK]]
                file.write_batch(pa.RecordBatch.from_pylist(chunk, SCHEMA))

    name = digest(["samples", formats.DATA, formats.CACHE, str(path.absolute()), state.st_size, state.st_mtime_ns])
    folder = build_folder(cache / "shards" / name, write)
    with pa.memory_map(str(folder / "samples.arrow")) as file:
        samples = pa.ipc.open_file(file).read_all()
    first_of = build_folder(
        cache / "shards" / digest(["images", name, image]),
        lambda folder: np.save(folder / "first.npy", _first(path, samples, image)),
    )
    return Shard(path, samples, np.load(first_of / "first.npy"))


def _first(path: Path, samples: pa.Table, image: str) -> np.ndarray:
    """For each sample the number of the first one with the same image, int64; its own if it has not just one."""
    numbers, offsets, sizes = [], [], []
    for number in range(samples.num_rows):
        sample = _sample(samples, number)
        if (member := picture(sample.members, image)) and not sample.reason:
            numbers.append(number)
            offsets.append(member.offset)
            sizes.append(member.size)
    with path.open("rb") as file:

        def read(i: int, start: int, size: int) -> bytes:
            return os.pread(file.fileno(), size, offsets[i] + start)

        first = np.arange(samples.num_rows)
        for same in same_content(np.array(sizes, dtype=np.int64), read):
            first[[numbers[i] for i in same.tolist()]] = numbers[same[0]]
    return first


def _sample(samples: pa.Table, number: int) -> Sample:
    entry = samples.slice(number, 1).to_pylist()[0]
    members = [Member(*of_member) for of_member in zip(entry["suffix"], entry["offset"], entry["size"])]
    return Sample(entry["key"], members, entry["reason"], entry["message"])


def _entry(sample: Sample) -> dict[str, Any]:
    members = {name: [getattr(member, name) for member in sample.members] for name in ("suffix", "offset", "size")}
    return {"key": sample.key, **members, "reason": sample.reason, "message": sample.message}


def corpus_fingerprints(datasets: Iterable[Dataset]) -> list[str]:
    """The fingerprints of datasets where these decide corpus_texts(); none where shards are read."""
    return [] if any(dataset.streams for dataset in datasets) else [dataset.fingerprint for dataset in datasets]


def corpus_texts(datasets: Iterable[Dataset]) -> Iterator[str]:
    """The training texts, questions and answers that a tokenizer of kind ``corpus`` is trained on."""
    for dataset in datasets:
        if dataset.streams:
            yield from Stream(dataset.card, "train", dataset.cache).texts()
            continue
        if dataset.on_bad_data == "skip":
            dataset.check_images("train")
        # Not of records(), for which the library of data sets is imported.
        texts = dataset.table("train").select(["text", "question", "answer"]).take(dataset.rows("train"))
        for batch in texts.to_batches():
            for of_row in zip(*(column.to_pylist() for column in batch.columns)):
                yield from chain.from_iterable(of_row)
