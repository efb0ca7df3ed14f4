"""Compare a dataset on disk with its card, and find problems that invalidate results."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from benchmark.common.errors import BenchError
from benchmark.data.check import check, groups_in_two_splits, sharing
from benchmark.data.dataset import Dataset, Progress, open_dataset
from benchmark.data.images import load_image
from benchmark.data.problems import BadRow, Problems
from benchmark.data.records import COLUMNS, Row, place
from benchmark.data.streamed import Stream, encoded_image

SIDE = 16
"""The perceptual hash has SIDE x SIDE bits."""
NEAR = 10
"""The most bits that differ between near-duplicates. It is less than SIDE, so at least one row of bits is equal."""
CROWD = 2000
"""Rows of bits that more images than this share (all black, say) are not used to find near-duplicates."""
ONE_COLOUR = 2
"""The most that the values of a channel differ, of 255, in an image of one colour."""
FEW = 5
"""Of fewer texts, answers or images, nothing follows from their being the same."""
LARGE_PART = 0.2
"""The share from which on one text is worth knowing about."""
FEW_TEXTS = 0.1
"""The share of different texts below which they are few."""
MOST_ANSWERS = 0.9
"""The share from which on one answer, or one question, is worth knowing about."""
SHORT = 4
"""The most characters of a very short text."""
MANY_TEXTS = 50
"""The number of texts of one image from which on it may be a placeholder."""
NAMED = 5
"""The most classes that a finding names."""
AHEAD = 256
"""Samples of a stream that are decoded at once."""


class Look(NamedTuple):
    """What is kept of a decoded image: its perceptual hash, a hash of its pixels, and whether it is of one colour."""

    hash: np.ndarray
    pixels: bytes
    one_colour: bool


@dataclass(frozen=True)
class Records:
    """The usable rows of a split: COLUMNS without the image, ``file`` and ``row``, each N long; and their images."""

    split: str
    columns: dict[str, list[Any]]
    looks: list[Look]

    def __len__(self) -> int:
        return len(self.looks)

    def named(self, number: int) -> str:
        """Name a row for a message."""
        return f"'{self.columns['id'][number]}' in {place(self.columns['file'][number], self.columns['row'][number])}"


@dataclass(frozen=True)
class Finding:
    """One thing found in a dataset.

    severity: an error makes results wrong, or different from those of the published protocol; a warning is worth
    knowing; a note says what was made of the rows.
    """

    severity: Literal["error", "warning", "note"]
    check: str
    message: str


def verify(
    dataset: Dataset, context_length: int, count_tokens: Callable[[str], int] | None, progress: Progress | None = None
) -> list[Finding]:
    """Find all problems of a dataset; of a stream, all samples are read.

    The dataset must have been opened with "skip", otherwise one bad row would hide the others.
    count_tokens: returns the number of tokens of a text with start and end; None skips the check of lengths.
    Raises ``BenchError`` when nothing can be read at all.
    """
    assert dataset.on_bad_data == "skip"
    problems = Problems()
    read = _streamed if dataset.streams else _prepared
    records = [read(dataset, split, problems, progress) for split in dataset.splits()]
    if not any(map(len, records)):
        problems.stop("error")
        check(dataset)
    return [
        *_left_out(dataset, problems),
        *(Finding("warning", "rows", f"{remark}: {count:,}") for remark, count in dataset.remarks.items()),
        *_counts(dataset, records),
        *(Finding("note", "rows", line) for line in sharing(dataset)),
        *_groups(dataset, records),
        *_images(dataset, records),
        *_duplicates(records),
        *_texts(dataset, records, context_length, count_tokens),
        *_questions(dataset, records),
        *_classes(dataset, records),
    ]


def _prepared(dataset: Dataset, split: str, problems: Problems, progress: Progress | None) -> Records:
    looks = [look for _, look in dataset.decode(split, lambda source: _look(load_image(source)), progress)]
    table = dataset.table(split).drop_columns(["image"]).take(dataset.rows(split))
    return Records(split, table.to_pydict(), looks)


def _streamed(dataset: Dataset, split: str, problems: Problems, progress: Progress | None) -> Records:
    stream = Stream(dataset.card, split, dataset.cache)
    names = [name for name in (*COLUMNS, "file", "row") if name != "image"]
    columns: dict[str, list[Any]] = {name: [] for name in names}
    looks = []

    def one(number: int) -> tuple[tuple[Row, Look] | None, list[tuple[str, BadRow]]]:
        left_out: list[tuple[str, BadRow]] = []
        try:
            row = stream.row(number, lambda place, bad: left_out.append((place, bad)))
            return (row, _look(load_image(encoded_image(row)))), left_out
        except BadRow as bad:
            return None, [(stream.place(number), bad), *left_out]

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(stream), AHEAD):
            numbers = range(start, min(start + AHEAD, len(stream)))
            for read, left_out in pool.map(one, numbers):
                for place, bad in left_out:
                    problems.add(place, bad)
                if read is None:
                    continue
                looks.append(read[1])
                for name in names:
                    columns[name].append(getattr(read[0], name))
            if progress:
                progress(numbers.stop, len(stream))
    return Records(split, columns, looks)


def _look(picture: Image.Image) -> Look:
    picture = picture.convert("RGB")
    pixels = hashlib.blake2b(repr(picture.size).encode() + picture.tobytes(), digest_size=16).digest()
    extremes = np.array(picture.getextrema())
    return Look(difference_hash(picture), pixels, bool((extremes[:, 1] - extremes[:, 0] <= ONE_COLOUR).all()))


def _left_out(dataset: Dataset, problems: Problems) -> Iterator[Finding]:
    counts, first = (problems.counts, problems.first) if dataset.streams else (dataset.left_out, None)
    for reason, count in counts.items():
        yield Finding("error", "rows", f"rows that cannot be used: {count:,} ({reason})")
    if counts and not dataset.streams:
        try:
            check(open_dataset(dataset.card, "error", dataset.cache))
        except BenchError as error:
            first = str(error).splitlines()[0]
    if first:
        yield Finding("error", "rows", f"the first of them: {first}")


def _counts(dataset: Dataset, records: list[Records]) -> Iterator[Finding]:
    counts = {each.split: len(each) + dataset.not_drawn.get(each.split, 0) for each in records}
    merged = {split: rows - images for split, (rows, images) in dataset.shared["merged"].items()}
    counts["all"], merged["all"] = sum(counts.values()), sum(merged.values())
    for split, expected in dataset.card.rows.items():
        # Published numbers count files, also where several are the same image.
        if expected not in (counts.get(split, 0), counts.get(split, 0) + merged.get(split, 0)):
            yield Finding("error", "counts", f"{split}: {counts.get(split, 0):,} images; the card expects {expected:,}")


def _groups(dataset: Dataset, records: list[Records]) -> Iterator[Finding]:
    groups = {each.split: set(each.columns["group"]) for each in records}
    severity: Literal["error", "warning"] = "warning" if dataset.card.source.shared_group_rule() == "keep" else "error"
    for line in groups_in_two_splits(dataset, groups):
        yield Finding(severity, "groups", line)
    for each in records:
        if len(each) >= FEW and len(groups[each.split]) == 1:
            yield Finding("warning", "groups", f"{each.split}: every image is of group '{min(groups[each.split])}'")


def _images(dataset: Dataset, records: list[Records]) -> Iterator[Finding]:
    for each in records:
        blank = [number for number, look in enumerate(each.looks) if look.one_colour]
        if blank:
            message = f"{each.split}: images of one colour: {len(blank):,} of {len(each):,}"
            yield Finding("warning", "images", f"{message}, first {each.named(blank[0])}")
        of_pixels: dict[bytes, list[int]] = {}
        for number, look in enumerate(each.looks):
            of_pixels.setdefault(look.pixels, []).append(number)
        if len(each) > 1 and len(of_pixels) == 1:
            yield Finding("warning", "images", f"{each.split}: all {len(each):,} images are the same picture")
            continue
        same = [numbers for numbers in of_pixels.values() if len(numbers) > 1 and not each.looks[numbers[0]].one_colour]
        if same:
            message = (
                f"{each.split}: images that are the same picture as another: {sum(map(len, same)):,} of {len(each):,}, "
                f"first {each.named(same[0][0])} and {each.named(same[0][1])}"
            )
            if "text" in dataset.provides:
                message += "; the texts of one count as wrong for the other"
            labels = each.columns["label"]
            differ = sum(len({str(labels[number]) for number in numbers}) > 1 for numbers in same)
            if differ:
                message += f"; pictures with several labels: {differ:,}"
            yield Finding("warning", "images", message)


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


def _duplicates(records: list[Records]) -> Iterator[Finding]:
    if len(records) < 2:
        return
    names = [each.split for each in records]
    ids = [id for each in records for id in each.columns["id"]]
    splits = np.concatenate([np.full(len(each), i) for i, each in enumerate(records)])
    hashes = np.array([look.hash for each in records for look in each.looks], dtype=np.uint16).reshape(-1, SIDE)
    pairs = near_duplicates(hashes, splits)
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


def _texts(
    dataset: Dataset, records: list[Records], context_length: int, count_tokens: Callable[[str], int] | None
) -> Iterator[Finding]:
    if "text" not in dataset.provides:
        return
    for each in records:
        by_image: list[list[str]] = each.columns["text"]
        if empty := sum(not texts for texts in by_image):
            yield Finding("warning", "texts", f"{each.split}: images without text: {empty:,}")
        times = Counter(text for texts in by_image for text in texts)
        yield from _same_texts(each.split, times)
        if short := [number for number, texts in enumerate(by_image) if any(map(_is_short, texts))]:
            text = next(filter(_is_short, by_image[short[0]]))
            message = f"{each.split}: images with a very short text: {len(short):,}, first {each.named(short[0])}: "
            yield Finding("warning", "texts", f"{message}'{text}'")
        most = max(range(len(each)), key=lambda number: len(by_image[number]), default=0)
        if len(each) and len(by_image[most]) >= MANY_TEXTS:
            message = (
                f"{each.split}: {len(by_image[most]):,} texts of one image, {each.named(most)}: is it a placeholder?"
            )
            yield Finding("warning", "texts", message)
        if count_tokens is None:
            continue
        # A token is at least one character, so the tokens of short texts need not be counted.
        long = sum(len(text) + 2 > context_length and count_tokens(text) > context_length for text in times)
        if long:
            message = f"{each.split}: different texts of more than {context_length} tokens: {long:,} of {len(times):,}"
            yield Finding("warning", "texts", f"{message}; they will be truncated")


def _same_texts(split: str, times: Counter[str]) -> Iterator[Finding]:
    total = times.total()
    if total < FEW:
        return
    text, most = times.most_common(1)[0]
    if most == total:
        yield Finding("warning", "texts", f"{split}: all {total:,} texts are the same: '{_start(text)}'")
    elif most >= max(FEW, LARGE_PART * total):
        yield Finding("warning", "texts", f"{split}: texts that are '{_start(text)}': {most:,} of {total:,}")
    elif len(times) < FEW_TEXTS * total:
        yield Finding("warning", "texts", f"{split}: only {len(times):,} of {total:,} texts are different")


def _is_short(text: str) -> bool:
    """Whether a text has at most SHORT characters of an alphabet, or no word at all."""
    return not re.search(r"[^\W\d_]", text) or (len(text) <= SHORT and text.isascii())


def _start(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _questions(dataset: Dataset, records: list[Records]) -> Iterator[Finding]:
    if "question" not in dataset.provides:
        return
    for each in records:
        values = {name: [text for texts in each.columns[name] for text in texts] for name in ("question", "answer")}
        types = [kind for kinds in each.columns["answer_type"] for kind in kinds]
        lists = {"questions": values["question"], "answers": values["answer"]}
        if not _mostly_one(values["answer"]):
            for kind in sorted(set(types)):
                lists[f"{kind} answers"] = [text for text, of in zip(values["answer"], types) if of == kind]
        for name, texts in lists.items():
            if most := _mostly_one(texts):
                text, count = most
                message = f"{each.split}: {name} that are '{_start(text)}': {count:,} of {len(texts):,}"
                yield Finding("warning", "questions", message)


def _mostly_one(texts: Sequence[str]) -> tuple[str, int] | None:
    """The text that makes up nearly all of several, and how often it occurs; without case."""
    most = Counter(text.lower() for text in texts).most_common(1)
    return most[0] if len(texts) >= FEW and most[0][1] >= MOST_ANSWERS * len(texts) else None


def _classes(dataset: Dataset, records: list[Records]) -> Iterator[Finding]:
    if "label" not in dataset.provides:
        return
    classes = dataset.card.class_index
    for each in records:
        labels = np.array(each.columns["label"], dtype=np.int64).reshape(len(each), -1)
        known = labels >= 0
        if not len(each):
            continue
        if unlabelled := int((~known.any(axis=1)).sum()):
            message = f"{each.split}: images without a label: {unlabelled:,} of {len(each):,}"
            yield Finding("warning", "classes", message)
        if unlabelled == len(each):
            continue
        if dataset.card.multi_label:
            counts, always = (
                (labels == 1).sum(axis=0),
                ((labels == 1).sum(axis=0) == known.sum(axis=0)) & known.any(axis=0),
            )
            present = [name for name, number in classes.items() if always[number]]
            if present and len(each) > 1:
                yield Finding("warning", "classes", f"{each.split}: every image has {_listed(present)}")
        else:
            counts = np.bincount(labels[known], minlength=len(classes))
        absent = [name for name, number in classes.items() if not counts[number]]
        if len(absent) == len(classes) - 1 and not dataset.card.multi_label and known.sum() > 1:
            one = next(name for name in classes if name not in absent)
            message = (
                f"{each.split}: every label is '{one}' ({int(known.sum()):,} images); no image of {_listed(absent)}"
            )
            yield Finding("warning", "classes", message)
        elif absent:
            yield Finding("warning", "classes", f"{each.split}: no image of {_listed(absent)}")


def _listed(names: list[str]) -> str:
    further = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {further:,} other classes" if further > 0 else "")
