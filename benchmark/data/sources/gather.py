"""Gather rows by image: rows of single questions, captions or readers' labels become one row per image."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Literal

from benchmark.data.problems import BadRow, Problems
from benchmark.data.records import Row

Several = Literal["error", "leave_out", "any", "majority"]
ImageKey = tuple[str, str]
"""The split, if an image may be in several (else ""), and the path or digest of an image."""


def gather(rows: Iterable[Row], problems: Problems, several: Several, by_split: bool, split_in_id: bool) -> list[Row]:
    """Merge the rows of each image into its first row, in the order of the first rows.

    several: what to do when the rows of an image have different labels, see TableSource. by_split: keep an image that
    occurs in several splits apart for each split; split_in_id: and make the split a part of its id. Rows that
    contradict the first one are added to ``problems``.
    """
    gathered = _Gathered(several)
    places: dict[str, str] = {}
    for row in rows:
        name = row.image if isinstance(row.image, str) and row.stored is None else row.digest
        if row.id != name:
            if row.id in places:
                message = f"id '{row.id}' is already used in {places[row.id]}"
                problems.add(row.place, BadRow("duplicate id", message))
                continue
            places[row.id] = row.place
        row.id = f"{row.split}/{name}" if split_in_id else name
        try:
            gathered.add((row.split if by_split else "", name), row)
        except BadRow as bad:
            problems.add(row.place, bad)
    return gathered.rows()


class _Gathered:
    def __init__(self, several: Several) -> None:
        self._several = several
        self._votes = several in ("any", "majority")
        self._first: dict[ImageKey, Row] = {}
        self._labels: dict[ImageKey, list[list[int]]] = {}
        self._left_out: set[ImageKey] = set()

    def add(self, image: ImageKey, row: Row) -> None:
        first = self._first.setdefault(image, row)
        if self._votes and isinstance(row.label, list):
            self._labels.setdefault(image, []).append(row.label)
        if first is not row and self._agrees(image, first, row):
            merge(first, row)

    def _agrees(self, image: ImageKey, first: Row, row: Row) -> bool:
        """Whether a row can be merged. Raises ``BadRow`` where it contradicts the first row."""
        for attribute in ("split", "group", "label"):
            one, other = getattr(first, attribute), getattr(row, attribute)
            if one == other or (attribute == "label" and image in self._labels):
                continue
            if attribute == "label" and self._several == "leave_out":
                self._left_out.add(image)
                return False
            message = f"image '{image[1]}' has {attribute} {other!r} here, but {one!r} in {first.place}"
            raise BadRow(f"an image with two {attribute}s", message)
        return True

    def rows(self) -> list[Row]:
        for image, labels in self._labels.items():
            self._first[image].label = [_vote(flags, self._several) for flags in zip(*labels)]
        return [row for image, row in self._first.items() if image not in self._left_out]


def merge(first: Row, row: Row) -> None:
    """Add the texts and questions of a row to the first row of the same image."""
    first.read += row.read
    for i, text in enumerate(row.text):
        if text not in first.text:
            first.text.append(text)
            first.text_id.extend(row.text_id[i : i + 1])
    for attribute in ("question", "answer", "answer_type", "question_type"):
        getattr(first, attribute).extend(getattr(row, attribute))


def _vote(flags: tuple[int, ...], several: Several) -> int:
    known = [flag for flag in flags if flag >= 0]
    if not known:
        return -1
    return int(any(known) if several == "any" else 2 * sum(known) > len(known))


class Spool:
    """Keeps encoded images in a temporary file while a step needs all rows at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def put(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Move the encoded image of each row into the file, and set the row's digest."""
        for row in rows:
            if isinstance(row.image, bytes) and row.stored is None:
                row.digest = hashlib.sha256(row.image).hexdigest()[:20]
                row.stored = (self._file.seek(0, os.SEEK_END), len(row.image))
                self._file.write(row.image)
                row.image = b""
            yield row

    def take(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Read the encoded image of each row back from the file."""
        for row in rows:
            if row.stored is not None:
                self._file.seek(row.stored[0])
                row.image, row.stored = self._file.read(row.stored[1]), None
            yield row
