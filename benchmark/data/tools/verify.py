"""Compare a dataset on disk with what its card says, and look for what makes numbers on it wrong."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal

import numpy as np
from PIL import Image

from benchmark.common.errors import BenchError
from benchmark.data.dataset import Dataset, Progress, open_dataset

SIDE = 16
"""The perceptual hash has SIDE x SIDE bits."""
NEAR = 10
"""Bits of them that may differ between near-duplicates: less than the 16 rows, so that two of these have equal bits."""
CROWD = 2000
"""Images with one equal row of bits (all black, say) from which on that row is no hint."""


@dataclass(frozen=True)
class Finding:
    """error: numbers on the set are wrong or not those of its protocol. warning: worth knowing."""

    severity: Literal["error", "warning"]
    check: str
    message: str


def verify(
    dataset: Dataset, context_length: int, count_tokens: Callable[[str], int] | None, progress: Progress | None = None
) -> list[Finding]:
    """All that can be said. The dataset must have been opened with "skip": one bad row would hide the others.

    count_tokens: of a text, with its marks of beginning and end; None does not look at lengths.
    Raises ``BenchError`` when nothing can be read at all.
    """
    assert dataset.on_bad_data == "skip"
    hashes = {split: _hashes(dataset, split, progress) for split in dataset.splits()}
    if not any(len(rows) for rows, _ in hashes.values()):
        dataset.check()
    return [
        *_left_out(dataset),
        *_counts(dataset),
        *_groups(dataset),
        *_duplicates(dataset, hashes),
        *_texts(dataset, context_length, count_tokens),
        *_classes(dataset),
    ]


def _left_out(dataset: Dataset) -> Iterator[Finding]:
    for reason, count in dataset.left_out.items():
        yield Finding("error", "rows", f"{count:,} rows cannot be used: {reason}")
    if dataset.left_out:
        try:
            open_dataset(dataset.card, "error", dataset.cache).check()
        except BenchError as error:
            yield Finding("error", "rows", f"the first of them: {str(error).splitlines()[0]}")


def _counts(dataset: Dataset) -> Iterator[Finding]:
    found = {split: len(dataset.rows(split)) for split in dataset.splits()}
    found["all"] = sum(found.values())
    for split, expected in dataset.card.rows.items():
        if found.get(split, 0) != expected:
            yield Finding("error", "counts", f"{split}: {found.get(split, 0):,} images; the card expects {expected:,}")


def _groups(dataset: Dataset) -> Iterator[Finding]:
    groups = {split: set(_column(dataset, split, "group")) for split in dataset.splits()}
    for one, other in combinations(groups, 2):
        if shared := groups[one] & groups[other]:
            known = dataset.card.source.shares_images()
            message = f"{len(shared):,} groups are in {one} and in {other}, for example '{min(shared)}'"
            note = " (as published; see the card's notes)" if known else ""
            yield Finding("warning" if known else "error", "groups", message + note)


def _hashes(dataset: Dataset, split: str, progress: Progress | None) -> tuple[list[int], np.ndarray]:
    """The rows whose image decodes, and the perceptual hash of each: uint16 [N, SIDE]."""
    rows, hashes = [], []
    for row, value in dataset.decode(split, difference_hash, progress):
        rows.append(row)
        hashes.append(value)
    return rows, np.array(hashes, dtype=np.uint16).reshape(-1, SIDE)


def difference_hash(picture: Image.Image) -> np.ndarray:
    """uint16 [SIDE], a bit for each of SIDE x SIDE places: does the grey value rise to the right there (dHash, Krawetz
    2013). Survives scaling and compression, not rotation.
    """
    grey = np.asarray(picture.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX), dtype=np.int16)
    rises = np.diff(grey, axis=1) > 0
    return np.packbits(rises, axis=1).astype(np.uint16) @ np.array([256, 1], dtype=np.uint16)


def near_duplicates(hashes: np.ndarray, splits: np.ndarray) -> list[tuple[int, int, int]]:
    """Pairs (i, j) of different splits whose hashes differ in at most NEAR bits, with that number: for each image the
    nearest one of an earlier split only.

    hashes: uint16 [N, SIDE]. splits: int [N].
    """
    # Equal hashes are compared once: sets have many images that are all black, or the same.
    different, first, number = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    number = number.reshape(-1)
    earliest = np.full(len(different), np.iinfo(np.int64).max)
    np.minimum.at(earliest, number, splits)
    for j in range(len(hashes) - 1, -1, -1):
        if splits[j] == earliest[number[j]]:
            first[number[j]] = j
    near: dict[int, tuple[int, int]] = {}
    for band in range(SIDE):
        order = np.argsort(different[:, band], kind="stable")
        starts = np.flatnonzero(np.diff(different[order, band].astype(int), prepend=-1, append=-1))
        for start, end in pairwise(starts):
            members = order[start:end]
            if not 2 <= len(members) <= CROWD:
                continue
            for j in members[earliest[members] > earliest[members].min()]:
                others = members[earliest[members] < earliest[j]]
                distance = np.bitwise_count(different[others] ^ different[j]).sum(axis=1)
                nearest = int(distance.argmin())
                if distance[nearest] < near.get(int(j), (0, NEAR + 1))[1]:
                    near[int(j)] = (int(others[nearest]), int(distance[nearest]))
    pairs = []
    for j, same in enumerate(number):
        if splits[j] > earliest[same]:
            pairs.append((int(first[same]), j, 0))
        elif int(same) in near:
            other, distance = near[int(same)]
            pairs.append((int(first[other]), j, distance))
    return pairs


def _duplicates(dataset: Dataset, hashes: dict[str, tuple[list[int], np.ndarray]]) -> Iterator[Finding]:
    if len(hashes) < 2:
        return
    names = list(hashes)
    ids = [id for split, (rows, _) in hashes.items() for id in dataset.table(split)["id"].take(rows).to_pylist()]
    splits = np.concatenate([np.full(len(rows), i) for i, (rows, _) in enumerate(hashes.values())])
    pairs = near_duplicates(np.concatenate([values for _, values in hashes.values()]), splits)
    for one, other in combinations(range(len(names)), 2):
        between = [(i, j, d) for i, j, d in pairs if (splits[i], splits[j]) == (one, other)]
        for what, of_kind in (
            ("look the same as", [pair for pair in between if pair[2] == 0]),
            ("look nearly the same as", [pair for pair in between if pair[2] > 0]),
        ):
            if of_kind:
                i, j, _ = of_kind[0]
                message = (
                    f"{len(of_kind):,} images of {names[other]} {what} one of {names[one]}, "
                    f"for example '{ids[j]}' and '{ids[i]}'"
                )
                yield Finding("warning", "duplicates", message)


def _texts(dataset: Dataset, context_length: int, count_tokens: Callable[[str], int] | None) -> Iterator[Finding]:
    if "text" not in dataset.provides:
        return
    for split in dataset.splits():
        of_image = _column(dataset, split, "text")
        texts = {text for texts in of_image for text in texts}
        if empty := sum(not texts for texts in of_image):
            yield Finding("warning", "texts", f"{split}: {empty:,} images have no text")
        if count_tokens is None:
            continue
        # A token is at least one character, so short texts need not be counted.
        long = sum(len(text) + 2 > context_length and count_tokens(text) > context_length for text in texts)
        if long:
            message = f"{split}: {long:,} of {len(texts):,} different texts have more than {context_length} tokens"
            yield Finding("warning", "texts", message + "; what is beyond is cut off")


def _classes(dataset: Dataset) -> Iterator[Finding]:
    if "label" not in dataset.provides:
        return
    for split in dataset.splits():
        counts: Counter[int] = Counter()
        for label in _column(dataset, split, "label"):
            counts.update([label] if isinstance(label, int) else np.flatnonzero(np.array(label) == 1).tolist())
        absent = [name for name, i in dataset.card.class_index.items() if not counts[i]]
        if absent:
            yield Finding("warning", "classes", f"{split}: no image of {', '.join(absent)}")


def _column(dataset: Dataset, split: str, name: str) -> list:
    values: list = dataset.table(split)[name].take(dataset.rows(split)).to_pylist()
    return values
