"""Batches of pairs, as a function of a position: what comes next depends on nothing but the position."""

from collections.abc import Sequence
from dataclasses import dataclass
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
from benchmark.data.prepared import Prepared
from benchmark.store import formats
from benchmark.store.cache import build_folder
from benchmark.store.hashing import digest

ROWS = 50_000
"""Rows whose texts are tokenised at a time."""


class Tokenizer(Protocol):
    pad_id: int
    fingerprint: str

    def __call__(self, texts: list[str]) -> list[list[int]]: ...


@dataclass(frozen=True)
class Samples:
    """Some pairs of a set, of those that were asked for: n of them.

    at: int64 [n], which of those asked for they are, ascending. images: uint8 [n, 3, S, S]. tokens: of one text each.
    label: int64 [n], or [n, K] when multi-label, -1 unknown.
    """

    at: np.ndarray
    images: np.ndarray
    tokens: Sequence[Sequence[int] | np.ndarray]
    ids: list[str]
    label: np.ndarray


class PairSet(Protocol):
    """Pairs of one dataset. rows: int64, the numbers of those that have a text. size: pixels a side of the images.
    labelled: whether some have a known label.
    """

    rows: np.ndarray
    size: int
    labelled: bool

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """The places of all ``rows`` in the order of an epoch: int64."""

    def take(self, rows: np.ndarray, choices: np.ndarray) -> Samples:
        """The pairs of these rows, but those that turn out to be bad; ``choices``, uint64, say which of its texts each
        comes with.
        """


class PreparedPairs:
    """The pairs of a prepared set, in any order. Texts are tokenised once and kept memory-mapped."""

    def __init__(self, prepared: Prepared, tokenizer: Tokenizer, cache: Path) -> None:
        self.prepared = prepared
        self.size = prepared.images.shape[-1]
        self.labelled = bool((prepared.label >= 0).any())
        self._tokens = _Tokens(prepared, tokenizer, cache)
        self.rows = np.flatnonzero(self._tokens.counts)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(len(self.rows))

    def take(self, rows: np.ndarray, choices: np.ndarray) -> Samples:
        ids = self.prepared.columns["id"]
        return Samples(
            np.arange(len(rows)),
            self.prepared.images[rows],
            [self._tokens.get(row, choice) for row, choice in zip(rows, choices)],
            [ids[row].as_py() for row in rows.tolist()],
            self.prepared.label[rows],
        )


class PairLoader:
    """The pairs of one or more sets, mixed.

    mixture: the power of its size that a set's share is proportional to: 1 by size, 0 equal, between them a temperature
    (of 1 / mixture, as it is often written). Sets then go through epochs of their own.

    Stateless: batch() of the same position gives the same batch whatever was asked before, so that a run that goes on
    after a kill sees the samples that it would have seen.

    Raises ``BenchError`` when no row has a text or the sets have images of different sizes.
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
        """Of each set among the pairs of an epoch."""
        self._labelled = len(self.sets) == 1 and self.sets[0].labelled
        self._order = lru_cache(maxsize=2)(self._permutation)

    def __len__(self) -> int:
        """The number of pairs in an epoch."""
        return int(self._first[-1])

    def batch(self, position: int, count: int) -> Batch:
        """``count`` pairs from sample ``position`` of the endless shuffled sequence on; an epoch is len(self) samples,
        each with its own order, and a batch may straddle two. A record with several texts takes one by its seed.
        """
        epochs, offsets = np.divmod(np.arange(position, position + count), len(self))
        pairs = np.empty(count, dtype=np.int64)
        for epoch in np.unique(epochs):
            pairs[epochs == epoch] = self._order(int(epoch))[offsets[epochs == epoch]]
        # In a mixture a pair may come twice in an epoch: each time it is another sample.
        seeds = _mix(
            _mix(np.uint64(stream(self.seed, "sample")) + epochs.astype(np.uint64)) + offsets.astype(np.uint64)
        )
        return self._gather(pairs, seeds, _mix(seeds))

    def sequential(self, start: int, count: int) -> Batch:
        """The pairs ``start`` to ``start + count`` (or to the last) in the order of the sets, each with its first text
        and a seed that is the same in every epoch: for validation.
        """
        pairs = np.arange(start, min(start + count, len(self)))
        if not len(pairs):
            raise BenchError(f"pair {start} asked for, but there are {len(self)}")
        seeds = _mix(np.uint64(stream(self.seed, "sequential")) + pairs.astype(np.uint64))
        return self._gather(pairs, seeds, np.zeros(len(pairs), dtype=np.uint64))

    def _permutation(self, epoch: int) -> np.ndarray:
        """Each set in its own order, from where the last epoch of all stopped; whose turn it is, is shuffled."""
        turns = np.repeat(np.arange(len(self.sets)), self._drawn)
        turns = generator(self.seed, "mixture", epoch).permutation(turns) if len(self.sets) > 1 else turns
        order = np.empty(len(self), dtype=np.int64)
        for part, count in enumerate(self._drawn):
            first, length = self._first[part], self._first[part + 1] - self._first[part]
            if not count:
                continue
            own, offsets = np.divmod(np.arange(epoch * count, (epoch + 1) * count), length)
            found = np.empty(count, dtype=np.int64)
            for turn in np.unique(own):
                of_set = self.sets[part].order(generator(self.seed, "order", part, int(turn)))
                found[own == turn] = first + of_set[offsets[own == turn]]
            order[turns == part] = found
        return order

    def _gather(self, pairs: np.ndarray, seeds: np.ndarray, choices: np.ndarray) -> Batch:
        parts = np.searchsorted(self._first, pairs, side="right") - 1
        found: list[tuple[np.ndarray, Samples]] = []
        for part in np.unique(parts):
            at = np.flatnonzero(parts == part)
            rows = self.sets[part].rows[pairs[at] - self._first[part]]
            samples = self.sets[part].take(rows, choices[at])
            found.append((at[samples.at], samples))
        at = np.concatenate([at for at, _ in found])
        if not len(at):
            raise BenchError(f"none of the {len(pairs)} samples of a micro-batch can be used")
        order = np.argsort(at)
        tokens = [tokens for _, samples in found for tokens in samples.tokens]
        ids = [id_ for _, samples in found for id_ in samples.ids]
        lengths = np.array([len(tokens[i]) for i in order])
        mask = np.arange(lengths.max()) < lengths[:, None]
        padded = np.full(mask.shape, self.pad_id, dtype=np.int64)
        padded[mask] = np.concatenate([tokens[i] for i in order])
        label = None
        if self._labelled:
            values = torch.from_numpy(np.array(found[0][1].label))
            label = values if values.ndim == 1 else values.float()
        images = (
            np.concatenate([samples.images for _, samples in found])[order] if len(found) > 1 else found[0][1].images
        )
        kept = at[order]
        return Batch(
            image=torch.from_numpy(images),
            tokens=torch.from_numpy(padded),
            mask=torch.from_numpy(mask),
            row=torch.from_numpy(pairs[kept]),
            seed=torch.from_numpy((seeds[kept] >> np.uint64(1)).astype(np.int64)),
            ids=[ids[i] for i in order],
            image_size=self.image_size,
            augmentation=self.augmentation,
            label=label,
        )


def _apportioned(total: int, lengths: np.ndarray, power: float) -> np.ndarray:
    """``total`` shared out by largest remainders among sets whose weights are their lengths to a power; none for empty
    ones.
    """
    weights = np.where(lengths > 0, np.maximum(lengths, 1) ** float(power), 0.0)
    exact = total * weights / weights.sum()
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts


class _Tokens:
    """The tokens of every text of a prepared set: ragged, memory-mapped, made once for a tokenizer."""

    def __init__(self, prepared: Prepared, tokenizer: Tokenizer, cache: Path) -> None:
        column = prepared.columns["text"]
        self.counts = pa.compute.list_value_length(column).to_numpy().astype(np.int64)
        self._first = np.concatenate([[0], np.cumsum(self.counts)])

        def write(folder: Path) -> None:
            lengths = [0]
            with (folder / "tokens.bin").open("wb") as file:
                # By parts: the tokens of millions of texts do not fit into memory as lists.
                for start in range(0, len(column), ROWS):
                    texts = [text for texts in column[start : start + ROWS].to_pylist() for text in texts]
                    tokens = tokenizer(texts) if texts else []
                    lengths += map(len, tokens)
                    file.write(np.array([t for text in tokens for t in text], dtype=np.int32).tobytes())
            np.save(folder / "ends.npy", np.cumsum(lengths, dtype=np.int64))

        name = digest(["tokens", formats.CACHE, prepared.fingerprint, tokenizer.fingerprint])
        folder = build_folder(Path(cache) / "tokens" / name, write)
        self._ends = np.load(folder / "ends.npy")
        self._tokens = np.memmap(folder / "tokens.bin", np.int32, "r") if self._ends[-1] else np.empty(0, np.int32)

    def get(self, row: int, choice: int) -> np.ndarray:
        """The tokens of one of the texts of a row; ``choice``: any number from 0 on."""
        text = self._first[row] + int(choice) % int(self.counts[row])
        return self._tokens[self._ends[text] : self._ends[text + 1]]


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele et al., 2014), wrapping."""
    with np.errstate(over="ignore"):
        x = np.asarray(x, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
