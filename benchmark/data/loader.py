"""Batches of pairs, as a function of a position: what comes next depends on nothing but the position."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from benchmark.data.batch import Batch
from benchmark.data.cache import build_folder, key
from benchmark.data.prepared import Prepared
from benchmark.data.transforms import Augmentation
from benchmark.errors import BenchError
from benchmark.seeding import generator, stream


class Tokenizer(Protocol):
    pad_id: int
    fingerprint: str

    def __call__(self, texts: list[str]) -> list[list[int]]: ...


class PairLoader:
    """The pairs of one or more prepared sets, mixed; rows without text are left out.

    mixture: the power of its size that a set's share is proportional to: 1 by size, 0 equal, between them a temperature
    (of 1 / mixture, as it is often written). Sets then go through epochs of their own.

    Stateless: batch() of the same position gives the same batch whatever was asked before, so that a run that goes on
    after a kill sees the samples that it would have seen. Texts are tokenised once and kept memory-mapped.

    Raises ``BenchError`` when no row has a text or the sets were prepared at different sizes.
    """

    def __init__(
        self,
        prepared: Sequence[Prepared],
        tokenizer: Tokenizer,
        image_size: int,
        augmentation: Augmentation,
        seed: int,
        cache: Path,
        mixture: float = 1.0,
    ) -> None:
        sizes = sorted({p.images.shape[-1] for p in prepared})
        if len(sizes) != 1:
            raise BenchError(f"the sets to train on must be prepared at one size; found {sizes or 'no set'}")
        self.prepared = list(prepared)
        self.image_size = image_size
        self.augmentation = augmentation
        self.seed = seed
        self.pad_id = tokenizer.pad_id
        self._tokens = [_Tokens(p, tokenizer, cache) for p in self.prepared]
        rows = [np.flatnonzero(t.counts) for t in self._tokens]
        self._set = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
        self._row = np.concatenate(rows)
        if not len(self._row):
            raise BenchError("no row of the sets to train on has a text")
        lengths = np.array([len(r) for r in rows])
        self._first = np.concatenate([[0], np.cumsum(lengths)])
        self._by_size = mixture == 1 or len(rows) == 1
        self._drawn = lengths if self._by_size else _apportioned(len(self._row), lengths, mixture)
        self.shares = [float(count) / len(self._row) for count in self._drawn]
        """Of each set among the pairs of an epoch."""
        self._labelled = len(self.prepared) == 1 and bool((self.prepared[0].label >= 0).any())
        self._order = lru_cache(maxsize=2)(self._permutation)

    def __len__(self) -> int:
        """The number of pairs in an epoch."""
        return len(self._row)

    def batch(self, position: int, count: int) -> Batch:
        """``count`` pairs from sample ``position`` of the endless shuffled sequence on; an epoch is len(self) samples,
        each with its own order, and a batch may straddle two. A record with several texts takes one by its seed."""
        epochs, offsets = np.divmod(np.arange(position, position + count), len(self))
        pairs = np.empty(count, dtype=np.int64)
        for epoch in np.unique(epochs):
            pairs[epochs == epoch] = self._order(int(epoch))[offsets[epochs == epoch]]
        # In a mixture a pair may come twice in an epoch: each time it is another sample.
        sample = (pairs if self._by_size else offsets).astype(np.uint64)
        seeds = _mix(_mix(np.uint64(stream(self.seed, "sample")) + epochs.astype(np.uint64)) + sample)
        return self._gather(pairs, seeds, _mix(seeds))

    def sequential(self, start: int, count: int) -> Batch:
        """The pairs ``start`` to ``start + count`` (or to the last) in the order of the sets, each with its first text
        and a seed that is the same in every epoch: for validation."""
        pairs = np.arange(start, min(start + count, len(self)))
        if not len(pairs):
            raise BenchError(f"pair {start} asked for, but there are {len(self)}")
        seeds = _mix(np.uint64(stream(self.seed, "sequential")) + pairs.astype(np.uint64))
        return self._gather(pairs, seeds, np.zeros(len(pairs), dtype=np.uint64))

    def _permutation(self, epoch: int) -> np.ndarray:
        if self._by_size:
            return generator(self.seed, "order", epoch).permutation(len(self))
        parts = []
        for part, count in enumerate(self._drawn):
            first, length = self._first[part], self._first[part + 1] - self._first[part]
            if not count:
                continue
            # The pairs of a set, in its own epochs, from where the last epoch of all stopped.
            own, offsets = np.divmod(np.arange(epoch * count, (epoch + 1) * count), length)
            for turn in np.unique(own):
                order = generator(self.seed, "order", part, int(turn)).permutation(length)
                parts.append(first + order[offsets[own == turn]])
        return generator(self.seed, "mixture", epoch).permutation(np.concatenate(parts))

    def _gather(self, pairs: np.ndarray, seeds: np.ndarray, choices: np.ndarray) -> Batch:
        parts, rows = self._set[pairs], self._row[pairs]
        images = np.empty((len(pairs), *self.prepared[0].images.shape[1:]), dtype=np.uint8)
        for part in np.unique(parts):
            images[parts == part] = self.prepared[part].images[rows[parts == part]]
        texts = [self._tokens[part].get(row, choice) for part, row, choice in zip(parts, rows, choices)]
        ids = [self.prepared[part].ids[row] for part, row in zip(parts, rows)]
        lengths = np.array([len(t) for t in texts])
        mask = np.arange(lengths.max()) < lengths[:, None]
        padded = np.full(mask.shape, self.pad_id, dtype=np.int64)
        padded[mask] = np.concatenate(texts)
        label = None
        if self._labelled:
            values = torch.from_numpy(self.prepared[0].label[rows])
            label = values if values.ndim == 1 else values.float()
        return Batch(
            image=torch.from_numpy(images),
            tokens=torch.from_numpy(padded),
            mask=torch.from_numpy(mask),
            row=torch.from_numpy(pairs),
            seed=torch.from_numpy((seeds >> np.uint64(1)).astype(np.int64)),
            ids=ids,
            image_size=self.image_size,
            augmentation=self.augmentation,
            label=label,
        )


def _apportioned(total: int, lengths: np.ndarray, power: float) -> np.ndarray:
    """``total`` shared out by largest remainders among sets whose weights are their lengths to a power; none for empty
    ones."""
    weights = np.where(lengths > 0, np.maximum(lengths, 1) ** float(power), 0.0)
    exact = total * weights / weights.sum()
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts


class _Tokens:
    """The tokens of every text of a prepared set: ragged, memory-mapped, made once for a tokenizer."""

    def __init__(self, prepared: Prepared, tokenizer: Tokenizer, cache: Path) -> None:
        self.counts = np.array([len(texts) for texts in prepared.text], dtype=np.int64)
        self._first = np.concatenate([[0], np.cumsum(self.counts)])

        def write(folder: Path) -> None:
            texts = [text for texts in prepared.text for text in texts]
            tokens = tokenizer(texts) if texts else []
            ends = np.cumsum([0, *map(len, tokens)], dtype=np.int64)
            np.save(folder / "ends.npy", ends)
            np.save(folder / "tokens.npy", np.array([t for text in tokens for t in text], dtype=np.int32))

        name = key("tokens", 1, prepared.fingerprint, tokenizer.fingerprint)
        folder = build_folder(Path(cache) / "tokens" / name, write)
        self._ends = np.load(folder / "ends.npy")
        self._tokens = np.load(folder / "tokens.npy", mmap_mode="r" if self._ends[-1] else None)

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
