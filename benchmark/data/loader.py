"""Batches of pairs as a function of their position: a batch depends on nothing that was loaded before."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute
import torch

from benchmark.common.errors import BenchError
from benchmark.common.seeding import generator, stream
from benchmark.config.augmentation import Augmentation
from benchmark.data.batch import Batch
from benchmark.data.prepared import Images, Prepared
from benchmark.data.records import text_hashes
from benchmark.data.resizing import framed
from benchmark.store import formats
from benchmark.store.cache import build_folder
from benchmark.store.hashing import digest

ROWS = 50_000
"""Rows whose texts are tokenised at a time."""


class Tokenizer(Protocol):
    """The part of benchmark.models.Tokenizer that loading needs."""

    pad_id: int
    fingerprint: str

    def __call__(self, texts: list[str]) -> list[list[int]]:
        """The tokens of each text."""


@dataclass(frozen=True)
class Samples:
    """The n usable pairs among those that were asked for.

    at: int64 [n], their places among those that were asked for, ascending. images: uint8 [n, 3, S, S], or where they
    keep their ratio [n, 3, H, W], padded; sizes: int64 [n, 2], then their heights and widths, else None.
    tokens: of one text each. hashes: int64 [n], of these texts, see text_hash().
    label: int64 [n], or [n, K] when multi-label; -1 is unknown.
    """

    at: np.ndarray
    images: np.ndarray
    tokens: Sequence[Sequence[int] | np.ndarray]
    hashes: np.ndarray
    ids: list[str]
    label: np.ndarray
    sizes: np.ndarray | None = None


class PairSet(Protocol):
    """Pairs of one dataset.

    rows: int64, the numbers of the rows that have a text. size: pixels a side of the images, or of the short side.
    labelled: whether any row has a known label. longest: the most tokens of a text, where the same image and the same
    text are at hand for a row in every epoch; else None.
    """

    rows: np.ndarray
    size: int
    labelled: bool
    longest: int | None

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """The places of all ``rows`` in the order of an epoch, int64."""

    def take(self, rows: np.ndarray, choices: np.ndarray) -> Samples:
        """The pairs of these rows, without those that turn out to be bad.

        choices: uint64, from which the text of each pair is chosen among those of its row.
        """

    def hashes(self, rows: np.ndarray, choices: np.ndarray) -> np.ndarray:
        """The hashes of the texts that take() gives for these rows, int64; no image is read.

        Texts of bad pairs may be missing.
        """


class PreparedPairs:
    """The pairs of a prepared set, in random order. Texts are tokenised once and memory-mapped."""

    def __init__(self, prepared: Prepared, tokenizer: Tokenizer, cache: Path) -> None:
        self.prepared = prepared
        self.size: int = prepared.images.shape[-1]
        self.labelled = bool((prepared.label >= 0).any())
        self._tokens = _Tokens(prepared, tokenizer, cache)
        self.rows = np.flatnonzero(self._tokens.counts)
        self.longest = self._tokens.longest if (self._tokens.counts <= 1).all() else None

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """A random permutation, see PairSet."""
        return rng.permutation(len(self.rows))

    def take(self, rows: np.ndarray, choices: np.ndarray) -> Samples:
        """The pairs of these rows, see PairSet."""
        ids = self.prepared.columns["id"]
        texts = self._tokens.number(rows, choices)
        images = self.prepared.images
        pixels, sizes = images.with_sizes(rows) if isinstance(images, Images) else (images[rows], None)
        return Samples(
            np.arange(len(rows)),
            pixels,
            [self._tokens.get(text) for text in texts],
            self._tokens.hashes[texts],
            [ids[row].as_py() for row in rows.tolist()],
            self.prepared.label[rows],
            sizes,
        )

    def hashes(self, rows: np.ndarray, choices: np.ndarray) -> np.ndarray:
        """The hashes of the texts of these rows, see PairSet."""
        return np.asarray(self._tokens.hashes[self._tokens.number(rows, choices)])


class PairLoader:
    """Batches of the pairs of one or more sets, mixed.

    mixture: the share of a set is proportional to its size to this power: 1 is by size, 0 is equal shares, and values
    between correspond to a temperature of 1 / mixture. Each set then has epochs of its own.

    It has no state: batch() returns the same batch for the same position, whatever was loaded before, so a run that
    resumes after a kill sees the samples that it would have seen without.

    Raises ``BenchError`` if no row has a text, if the sets have images of different sizes, and if crops are larger.
    """

    def __init__(
        self,
        sets: Sequence[PairSet],
        pad_id: int,
        image_size: int,
        augmentation: Augmentation,
        seed: int,
        mixture: float = 1.0,
    ) -> None:
        sizes = sorted({each.size for each in sets})
        if len(sizes) != 1:
            raise BenchError(f"the sets to train on must be prepared at one size; found {sizes or 'no set'}")
        if augmentation.crop and augmentation.crop > sizes[0]:
            raise BenchError(
                f"training.augmentation.crop is {augmentation.crop}, more than the {sizes[0]} pixels that images are "
                "prepared at; set training.resolution"
            )
        self.sets = list(sets)
        self.image_size = image_size
        self.augmentation = augmentation
        self.seed = seed
        self.pad_id = pad_id
        lengths = np.array([len(each.rows) for each in self.sets])
        if not lengths.sum():
            raise BenchError("no row of the sets to train on has a text")
        self._first = np.concatenate([[0], np.cumsum(lengths)])
        self._drawn = _apportioned(int(lengths.sum()), lengths, mixture)
        self.shares = [float(count) / len(self) for count in self._drawn]
        """The share of each set in an epoch."""
        self._labelled = len(self.sets) == 1 and self.sets[0].labelled
        self._order = lru_cache(maxsize=2)(self._permutation)

    def __len__(self) -> int:
        """The number of pairs in an epoch."""
        return int(self._first[-1])

    @property
    def longest(self) -> int | None:
        """The most tokens of a text, where a pair is the same image and text in every epoch; else None."""
        longest = [each.longest for each in self.sets]
        return None if None in longest else max(filter(None, longest), default=0)

    def batch(self, position: int, count: int) -> Batch:
        """``count`` pairs, starting at sample ``position`` of the endless shuffled sequence.

        An epoch is len(self) samples in an order of its own, and a batch may span two epochs. A record with several
        texts gives the one that the sample's seed chooses.
        """
        pairs, seeds = self._at(position, count)
        return self._gather(pairs, seeds, _mix(seeds))

    def _at(self, position: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The pairs at ``count`` places of the endless sequence from ``position`` on, and a seed for each place."""
        epochs, offsets = np.divmod(np.arange(position, position + count), len(self))
        pairs = np.empty(count, dtype=np.int64)
        for epoch in np.unique(epochs):
            pairs[epochs == epoch] = self._order(int(epoch))[offsets[epochs == epoch]]
        # Seeded by place, not by pair: in a mixture a pair can occur twice in an epoch, as two different samples.
        seeds = _mix(
            _mix(np.uint64(stream(self.seed, "sample")) + epochs.astype(np.uint64)) + offsets.astype(np.uint64)
        )
        return pairs, seeds

    def sequential(self, start: int, count: int) -> Batch:
        """The pairs from ``start`` to ``start + count`` (or to the last) in the order of the sets, for validation.

        Each has its first text, and a seed that is the same in every epoch.
        """
        pairs = np.arange(start, min(start + count, len(self)))
        if not len(pairs):
            raise BenchError(f"pair {start} asked for, but there are {len(self)}")
        seeds = _mix(np.uint64(stream(self.seed, "sequential")) + pairs.astype(np.uint64))
        return self._gather(pairs, seeds, np.zeros(len(pairs), dtype=np.uint64))

    def start(self, step: int, batch_size: int) -> int:
        """The position of the first pair of a training's step; the incomplete last batch of an epoch is left out."""
        epoch, step = divmod(step, len(self) // batch_size)
        return epoch * len(self) + step * batch_size

    def twins(self, batch_size: int, steps: int) -> float:
        """The share of pairs in the first ``steps`` batches that have a pair of identical text in their batch.

        Images are not read.
        """
        with_twin, counted = 0, 0
        for step in range(steps):
            numbers, seeds = self._at(self.start(step, batch_size), batch_size)
            parts = self._part(numbers)
            hashes = [
                self.sets[part].hashes(self._rows(part, numbers[parts == part]), _mix(seeds)[parts == part])
                for part in np.unique(parts)
            ]
            times = np.unique(np.concatenate(hashes), return_counts=True)[1]
            with_twin += int(times[times > 1].sum())
            counted += int(times.sum())
        return with_twin / max(1, counted)

    def _permutation(self, epoch: int) -> np.ndarray:
        """The pairs of an epoch: sets take turns in random order, and each continues its own sequence of epochs."""
        turns = np.repeat(np.arange(len(self.sets)), self._drawn)
        turns = generator(self.seed, "mixture", epoch).permutation(turns) if len(self.sets) > 1 else turns
        order = np.empty(len(self), dtype=np.int64)
        for part, count in enumerate(self._drawn):
            if count:
                order[turns == part] = self._first[part] + self._set_order(part, epoch * count, count)
        return order

    def _set_order(self, part: int, start: int, count: int) -> np.ndarray:
        """``count`` places of a set, starting at ``start`` of the sequence of its own epochs."""
        length = self._first[part + 1] - self._first[part]
        epochs, offsets = np.divmod(np.arange(start, start + count), length)
        places = np.empty(count, dtype=np.int64)
        for epoch in np.unique(epochs):
            order = self.sets[part].order(generator(self.seed, "order", part, int(epoch)))
            places[epochs == epoch] = order[offsets[epochs == epoch]]
        return places

    def _gather(self, pairs: np.ndarray, seeds: np.ndarray, choices: np.ndarray) -> Batch:
        samples = self._take(pairs, choices)
        if not len(samples.at):
            raise BenchError(f"none of the {len(pairs)} samples of a micro-batch can be used")
        tokens, mask = _padded(samples.tokens, self.pad_id)
        label = None
        if self._labelled:
            label = torch.from_numpy(samples.label)
            label = label if label.ndim == 1 else label.float()
        return Batch(
            image=torch.from_numpy(samples.images),
            tokens=torch.from_numpy(tokens),
            mask=torch.from_numpy(mask),
            row=torch.from_numpy(pairs[samples.at]),
            text_hash=torch.from_numpy(samples.hashes),
            seed=torch.from_numpy((seeds[samples.at] >> np.uint64(1)).astype(np.int64)),
            ids=samples.ids,
            image_size=self.image_size,
            augmentation=self.augmentation,
            label=label,
            size=None if samples.sizes is None else torch.from_numpy(samples.sizes),
        )

    def _take(self, pairs: np.ndarray, choices: np.ndarray) -> Samples:
        """The usable ones of these pairs, in their order. Labels only make sense for a single set."""
        parts = self._part(pairs)
        taken: list[tuple[np.ndarray, Samples]] = []
        for part in np.unique(parts):
            at = np.flatnonzero(parts == part)
            samples = self.sets[part].take(self._rows(part, pairs[at]), choices[at])
            taken.append((at[samples.at], samples))
        if len(taken) == 1:
            at, samples = taken[0]
            return replace(samples, at=at, label=np.array(samples.label))
        at = np.concatenate([at for at, _ in taken])
        order = np.argsort(at)
        tokens = [tokens for _, samples in taken for tokens in samples.tokens]
        hashes = np.concatenate([samples.hashes for _, samples in taken])
        ids = [id_ for _, samples in taken for id_ in samples.ids]
        images, sizes = _joined([samples for _, samples in taken])
        return Samples(
            at[order],
            images[order],
            [tokens[i] for i in order],
            hashes[order],
            [ids[i] for i in order],
            np.empty(0),
            None if sizes is None else sizes[order],
        )

    def _part(self, pairs: np.ndarray) -> np.ndarray:
        """The number of the set of each pair."""
        return np.asarray(np.searchsorted(self._first, pairs, side="right") - 1)

    def _rows(self, part: int, pairs: np.ndarray) -> np.ndarray:
        """The rows of a set's pairs in that set."""
        return np.asarray(self.sets[part].rows[pairs - self._first[part]])


def _joined(parts: list[Samples]) -> tuple[np.ndarray, np.ndarray | None]:
    """The images of several sets in one array, and their sizes where they keep their ratio."""
    sizes = [part.sizes for part in parts if part.sizes is not None]
    if not sizes:
        return np.concatenate([part.images for part in parts]), None
    return framed([image for part in parts for image in part.images])[0], np.concatenate(sizes)


def _padded(rows: Sequence[Sequence[int] | np.ndarray], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int64 [n, L], padded to the longest of the rows, and the mask bool [n, L], True on tokens."""
    lengths = np.array([len(tokens) for tokens in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    padded = np.full(mask.shape, pad_id, dtype=np.int64)
    padded[mask] = np.concatenate(rows)
    return padded, mask


def _apportioned(total: int, lengths: np.ndarray, power: float) -> np.ndarray:
    """Divide ``total`` among sets by largest remainders, in proportion to their lengths to a power."""
    weights = np.where(lengths > 0, np.maximum(lengths, 1) ** float(power), 0.0)
    exact = total * weights / weights.sum()
    counts: np.ndarray = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts


class _Tokens:
    """The tokens of every text of a prepared set: ragged, memory-mapped, made once for each tokenizer.

    hashes: int64, that of every text, memory-mapped. longest: the most tokens of a text.
    """

    def __init__(self, prepared: Prepared, tokenizer: Tokenizer, cache: Path) -> None:
        column = prepared.columns["text"]
        self.counts = pa.compute.list_value_length(column).to_numpy().astype(np.int64)
        self._first = np.concatenate([[0], np.cumsum(self.counts)])

        def parts() -> Iterator[list[str]]:
            # The tokens of millions of texts do not fit into memory as lists.
            for start in range(0, len(column), ROWS):
                yield [text for texts in column[start : start + ROWS].to_pylist() for text in texts]

        def write(folder: Path) -> None:
            lengths = [0]
            with (folder / "tokens.bin").open("wb") as file:
                for texts in parts():
                    tokens = tokenizer(texts) if texts else []
                    lengths += map(len, tokens)
                    file.write(np.array([t for text in tokens for t in text], dtype=np.int32).tobytes())
            np.save(folder / "ends.npy", np.cumsum(lengths, dtype=np.int64))

        def write_hashes(folder: Path) -> None:
            np.save(folder / "hashes.npy", np.concatenate([np.empty(0, np.int64), *map(text_hashes, parts())]))

        name = digest(["tokens", formats.CACHE, prepared.fingerprint, tokenizer.fingerprint])
        folder = build_folder(Path(cache) / "tokens" / name, write)
        self._ends = np.load(folder / "ends.npy")
        self.longest = int(np.diff(self._ends).max(initial=0))
        name = digest(["text hashes", formats.CACHE, prepared.fingerprint])
        folder_of_hashes = build_folder(Path(cache) / "tokens" / name, write_hashes)
        self.hashes = np.load(folder_of_hashes / "hashes.npy", mmap_mode="r")
        self._tokens = np.memmap(folder / "tokens.bin", np.int32, "r") if self._ends[-1] else np.empty(0, np.int32)

    def number(self, rows: np.ndarray, choices: np.ndarray) -> np.ndarray:
        """The number of one of the texts of each row; ``choices``: uint64, taken modulo how many they are."""
        return np.asarray(self._first[rows] + (choices % self.counts[rows].astype(np.uint64)).astype(np.int64))

    def get(self, text: int) -> np.ndarray:
        """The tokens of a text."""
        return self._tokens[self._ends[text] : self._ends[text + 1]]


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele et al., 2014), uint64 that wraps around."""
    with np.errstate(over="ignore"):
        x = np.asarray(x, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed
