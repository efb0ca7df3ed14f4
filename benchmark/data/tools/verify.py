"""Compare a dataset on disk with its card, and find problems that invalidate results."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any, Literal

import numpy as np
from PIL import Image

from benchmark.common.errors import BenchError
from benchmark.data.check import check
from benchmark.data.dataset import Dataset, Progress, open_dataset

SIDE = 16
"""The perceptual hash has SIDE x SIDE bits."""
NEAR = 10
"""The most bits that differ between near-duplicates. It is less than SIDE, so at least one row of bits is equal."""
CROWD = 2000
"""Rows of bits that more images than this share (all black, say) are not used to find near-duplicates."""

Hashes = dict[str, tuple[list[int], np.ndarray]]
"""By split, the rows whose image decodes, and their perceptual hashes, uint16 [N, SIDE]."""


@dataclass(frozen=True)
class Finding:
    """One problem of a dataset.

    severity: an error makes results wrong, or different from those of the published protocol; a warning is worth
    knowing.
    """

    severity: Literal["error", "warning"]
    check: str
    message: str


def verify(
    dataset: Dataset, context_length: int, count_tokens: Callable[[str], int] | None, progress: Progress | None = None
) -> list[Finding]:
    """Find all problems of a dataset.

    The dataset must have been opened with "skip", otherwise one bad row would hide the others.
    count_tokens: returns the number of tokens of a text with start and end; None skips the check of lengths.
    Raises ``BenchError`` when nothing can be read at all.
    """
    assert dataset.on_bad_data == "skip"
    hashes = {split: _hashes(dataset, split, progress) for split in dataset.splits()}
    if not any(len(rows) for rows, _ in hashes.values()):
        check(dataset)
    return [
        *_left_out(dataset),
        *(Finding("warning", "rows", f"{remark}: {count:,}") for remark, count in dataset.remarks.items()),
        *_counts(dataset),
        *_groups(dataset),
        *_duplicates(dataset, hashes),
        *_texts(dataset, context_length, count_tokens),
        *_classes(dataset),
    ]


def _left_out(dataset: Dataset) -> Iterator[Finding]:
    for reason, count in dataset.left_out.items():
        yield Finding("error", "rows", f"rows that cannot be used: {count:,} ({reason})")
    if dataset.left_out:
        try:
            check(open_dataset(dataset.card, "error", dataset.cache))
        except BenchError as error:
            yield Finding("error", "rows", f"the first of them: {str(error).splitlines()[0]}")


def _counts(dataset: Dataset) -> Iterator[Finding]:
    counts = {split: len(dataset.rows(split)) + dataset.not_drawn.get(split, 0) for split in dataset.splits()}
    counts["all"] = sum(counts.values())
    for split, expected in dataset.card.rows.items():
        if counts.get(split, 0) != expected:
            yield Finding("error", "counts", f"{split}: {counts.get(split, 0):,} images; the card expects {expected:,}")


def _groups(dataset: Dataset) -> Iterator[Finding]:
    groups = {split: set(_column(dataset, split, "group")) for split in dataset.splits()}
    for one, other in combinations(groups, 2):
        if shared := groups[one] & groups[other]:
            message = f"groups in both {one} and {other}: {len(shared):,}, for example '{min(shared)}'"
            if dataset.card.source.shares_images():
                yield Finding("warning", "groups", f"{message} (as published; see the card's notes)")
            else:
                yield Finding("error", "groups", message)


def _hashes(dataset: Dataset, split: str, progress: Progress | None) -> tuple[list[int], np.ndarray]:
    rows, hashes = [], []
    for row, value in dataset.decode(split, difference_hash, progress):
        rows.append(row)
        hashes.append(value)
    return rows, np.array(hashes, dtype=np.uint16).reshape(-1, SIDE)


def difference_hash(picture: Image.Image) -> np.ndarray:
    """A perceptual hash, uint16 [SIDE]: one bit for each of SIDE x SIDE places.

    A bit says whether the grey value rises to the right there (dHash, Krawetz 2013). The hash survives scaling and
    compression, but not rotation.
    """
    grey = np.asarray(picture.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX), dtype=np.int16)
    rises = np.diff(grey, axis=1) > 0
    bits: np.ndarray = np.packbits(rises, axis=1).astype(np.uint16) @ np.array([256, 1], dtype=np.uint16)
    return bits


def near_duplicates(hashes: np.ndarray, splits: np.ndarray) -> list[tuple[int, int, int]]:
    """Find images that look like an image of an earlier split.

    hashes: uint16 [N, SIDE]. splits: int [N].
    Returns triples (i, j, d): image i is the nearest image of an earlier split to image j, and their hashes differ in
    d <= NEAR bits.
    """
    # Equal hashes are compared once: datasets contain many images that are all black, or identical.
    different, first, number = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    number = number.reshape(-1)
    earliest = np.full(len(different), np.iinfo(np.int64).max)
    np.minimum.at(earliest, number, splits)
    for j in range(len(hashes) - 1, -1, -1):
        if splits[j] == earliest[number[j]]:
            first[number[j]] = j
    near = _near_hashes(different, earliest)
    pairs = []
    for j, same in enumerate(number):
        if splits[j] > earliest[same]:
            pairs.append((int(first[same]), j, 0))
        elif int(same) in near:
            other, distance = near[int(same)]
            pairs.append((int(first[other]), j, distance))
    return pairs


def _near_hashes(hashes: np.ndarray, splits: np.ndarray) -> dict[int, tuple[int, int]]:
    """For each of different hashes the nearest one of an earlier split, and their distance, if that is at most NEAR.

    Only hashes that share a row of bits are compared.
    """
    near: dict[int, tuple[int, int]] = {}
    for row in range(SIDE):
        order = np.argsort(hashes[:, row], kind="stable")
        starts = np.flatnonzero(np.diff(hashes[order, row].astype(int), prepend=-1, append=-1))
        for start, end in pairwise(starts):
            members = order[start:end]
            if not 2 <= len(members) <= CROWD:
                continue
            for j in members[splits[members] > splits[members].min()]:
                others = members[splits[members] < splits[j]]
                distance = np.bitwise_count(hashes[others] ^ hashes[j]).sum(axis=1)
                nearest = int(distance.argmin())
                if distance[nearest] < near.get(int(j), (0, NEAR + 1))[1]:
                    near[int(j)] = (int(others[nearest]), int(distance[nearest]))
    return near


def _duplicates(dataset: Dataset, hashes: Hashes) -> Iterator[Finding]:
    if len(hashes) < 2:
        return
    names = list(hashes)
    ids = [id for split, (rows, _) in hashes.items() for id in dataset.table(split)["id"].take(rows).to_pylist()]
    splits = np.concatenate([np.full(len(rows), i) for i, (rows, _) in enumerate(hashes.values())])
    pairs = near_duplicates(np.concatenate([values for _, values in hashes.values()]), splits)
    for one, other in combinations(range(len(names)), 2):
        between = [(i, j, distance) for i, j, distance in pairs if (splits[i], splits[j]) == (one, other)]
        equal = [pair for pair in between if pair[2] == 0]
        similar = [pair for pair in between if pair[2] > 0]
        for likeness, examples in (("the same as", equal), ("nearly the same as", similar)):
            if examples:
                i, j, _ = examples[0]
                message = (
                    f"images of {names[other]} that look {likeness} one of {names[one]}: {len(examples):,}, "
                    f"for example '{ids[j]}' and '{ids[i]}'"
                )
                yield Finding("warning", "duplicates", message)


def _texts(dataset: Dataset, context_length: int, count_tokens: Callable[[str], int] | None) -> Iterator[Finding]:
    if "text" not in dataset.provides:
        return
    for split in dataset.splits():
        by_image = _column(dataset, split, "text")
        texts = {text for texts in by_image for text in texts}
        if empty := sum(not texts for texts in by_image):
            yield Finding("warning", "texts", f"{split}: images without text: {empty:,}")
        if count_tokens is None:
            continue
        # A token is at least one character, so the tokens of short texts need not be counted.
        long = sum(len(text) + 2 > context_length and count_tokens(text) > context_length for text in texts)
        if long:
            message = f"{split}: different texts of more than {context_length} tokens: {long:,} of {len(texts):,}"
            yield Finding("warning", "texts", f"{message}; they will be truncated")


def _classes(dataset: Dataset) -> Iterator[Finding]:
    if "label" not in dataset.provides:
        return
    for split in dataset.splits():
        counts: Counter[int] = Counter()
        for label in _column(dataset, split, "label"):
            counts.update([label] if isinstance(label, int) else np.flatnonzero(np.array(label) == 1).tolist())
        absent = [name for name, number in dataset.card.class_index.items() if not counts[number]]
        if absent:
            yield Finding("warning", "classes", f"{split}: no image of {', '.join(absent)}")


def _column(dataset: Dataset, split: str, name: str) -> list[Any]:
    values: list[Any] = dataset.table(split)[name].take(dataset.rows(split)).to_pylist()
    return values
