"""What a record is: one image with its texts, label and questions, in one split."""

import json
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Literal

import numpy as np

from benchmark.common.errors import BenchError, listed, unknown
from benchmark.data.canonical import canonical, is_number
from benchmark.data.problems import BadRow

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SEPARATORS = ("|", ";", ",", "\n")
"""What may stand between the names of several classes in one text."""
NO_FINDING = ("no finding", "no findings")
"""Names, in lower case, that say that no class of a multi-label set holds, where they are no class themselves."""
SYNONYMS = {"training": "train", "validation": "val", "valid": "val", "dev": "val", "testing": "test"}
"""Other names of the splits, in lower case."""

LISTS = ("text", "text_id", "question", "answer", "answer_type", "question_type")
"""The columns that hold a list of strings in each record."""
COLUMNS = ("id", "group", "image", "label", *LISTS)

Label = int | list[int]
"""A class number, or for multi-label data 0, 1 or -1 for each class; -1 is unknown."""


@dataclass(slots=True)
class Row:
    """One image and everything that belongs to it, on its way from a source to the records.

    file, row: where it was read, for messages (row 0: the file as a whole).
    image: a path relative to the source's image folder, or an encoded image.
    stored: offset and length of an encoded image in a temporary file, while a source gathers its rows.
    digest: a hash of an encoded image.
    read: the number of rows of the source that it was gathered from.
    """

    file: str
    row: int
    id: str
    group: str
    split: str
    image: str | bytes
    text: list[str] = field(default_factory=list)
    text_id: list[str] = field(default_factory=list)
    label: Label = -1
    question: list[str] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)
    answer_type: list[str] = field(default_factory=list)
    question_type: list[str] = field(default_factory=list)
    stored: tuple[int, int] | None = None
    digest: str = ""
    read: int = 1

    @property
    def place(self) -> str:
        """The file and row it was read from, for messages."""
        return place(self.file, self.row)

    def encoded(self) -> bytes:
        """Encode all fields except where the row was read, for hashing."""
        columns = (self.id, self.group, self.split, self.label, self.text, self.text_id)
        questions = (self.question, self.answer, self.answer_type, self.question_type)
        image = self.image if isinstance(self.image, bytes) else os.fsencode(self.image)
        return json.dumps([*columns, *questions, len(image)]).encode() + image


def text_hash(text: str) -> int:
    """Return a number of 63 bits that is equal for identical texts: the same characters, as retrieval counts them."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()) >> 1


def text_hashes(texts: Iterable[str]) -> np.ndarray:
    """Return the hash of each text, int64."""
    return np.fromiter(map(text_hash, texts), np.int64)


def place(file: str, row: int) -> str:
    """Name a file and a row of it, or the file alone for row 0."""
    return f"{file}, row {row}" if row else file


def split_name(value: str) -> str:
    """Translate a table's name for a split into "train", "val" or "test". Raises ``BadRow`` for an unknown name."""
    name = value.strip().lower()
    name = SYNONYMS.get(name, name)
    if name not in SPLITS:
        raise BadRow("unknown split", str(unknown("split", value, SPLITS)))
    return name


@dataclass(frozen=True)
class Classes:
    """The names of a dataset's classes, in the order of the labels; none for data without labels.

    multi_label: whether any number of classes can hold for one image.
    """

    names: tuple[str, ...] = ()
    multi_label: bool = False

    @cached_property
    def index(self) -> dict[str, int]:
        """The number of each class."""
        return {name: number for number, name in enumerate(self.names)}

    @cached_property
    def _number_of_form(self) -> dict[str, int]:
        return {canonical(name): number for number, name in enumerate(self.names)}

    @cached_property
    def are_numbers(self) -> bool:
        """Whether a name is a number, as BI-RADS 1 to 5: numbers in a column of labels then are names, never places."""
        return any(map(is_number, self._number_of_form))

    def number(self, name: str) -> int | None:
        """The number of the class with this name, which may be written in another way (see canonical()), or None."""
        exact = self.index.get(name)
        return self._number_of_form.get(canonical(name)) if exact is None else exact

    def several(self, text: str) -> list[str]:
        """The classes that a text such as ``A|B`` or ``A, B`` names; none unless every part is a class."""
        return separated(text, lambda part: self.number(part) is not None)


def separated(text: str, is_name: Callable[[str], bool]) -> list[str]:
    """The names that one of SEPARATORS separates in a text, with or without brackets; none unless all are names."""
    for separator in SEPARATORS:
        parts = [part for each in text.strip("[] ").split(separator) if (part := each.strip())]
        if parts and separator in text and all(map(is_name, parts)):
            return parts
    return []


def label_of_names(classes: Classes, names: Sequence[str]) -> Label:
    """Make a label from the names of the classes that hold.

    A single name may be a text that names several classes, see Classes.several(). Without any name a single label is
    unknown, and a multi-label one has all classes absent, as with a name of NO_FINDING that is no class.
    Raises ``BadRow`` for an unknown name, and for several names where one is expected.
    """
    if len(names) == 1 and classes.number(names[0]) is None:
        names = classes.several(names[0]) or names
    if classes.multi_label and len(names) == 1 and classes.number(names[0]) is None and names[0].lower() in NO_FINDING:
        names = []
    numbers = {name: classes.number(name) for name in names}
    for name, number in numbers.items():
        if number is None:
            raise BadRow("unknown class", _unknown_class(classes, name))
    if classes.multi_label:
        return [int(number in numbers.values()) for number in range(len(classes.names))]
    if len(set(numbers.values())) > 1:
        message = f"{len(numbers)} classes ({listed(numbers)}) where one is expected"
        raise BadRow("several classes", f"{message}; several in one image need 'multi_label: true' in the card")
    return next((number for number in numbers.values() if number is not None), -1)


def _unknown_class(classes: Classes, name: str) -> str:
    message = str(unknown("class", name, classes.index))
    if is_number(canonical(name)):
        if classes.are_numbers:
            return f"{message}; these are numbers, so a number in the column is a name and not a place in 'classes'"
        return f"{message}; in a list, classes have names and not numbers"
    if classes.multi_label and any(part in name for part in (*SEPARATORS, *classes.names)):
        return f'{message}; several names are a list (["A", "B"]) or have one of | ; , between them, each a class'
    return message


def label_of_flags(classes: Classes, flags: Sequence[float]) -> Label:
    """Make a label from 0, 1 or -1 (unknown, as NaN) for each class.

    Raises ``BadRow`` for any other number, and for several 1s where one class is expected.
    """
    known = [-1 if flag != flag else flag for flag in flags]
    for flag in known:
        if flag not in (-1, 0, 1):
            raise BadRow("bad label", f"a flag of {flag}; expected 0, 1, or -1 (unknown)")
    if classes.multi_label:
        return list(map(int, known))
    positive = [number for number, flag in enumerate(known) if flag == 1]
    if len(positive) > 1:
        raise BadRow("several classes", f"{len(positive)} classes are 1 where one is expected")
    return positive[0] if positive else -1


def label_of_index(classes: Classes, index: float) -> Label:
    """Make a label from a class number, counted from 0; -1 and NaN are unknown. Raises ``BadRow`` for any other."""
    count = len(classes.names)
    number = -1 if index != index else index
    if number not in range(-1, count):
        raise BadRow("unknown class", f"class number {index}; expected 0 to {count - 1}")
    if classes.multi_label:
        return unknown_label(classes) if number < 0 else [int(each == number) for each in range(count)]
    return int(number)


def check_places(classes: Classes, numbers: Collection[float], file: str) -> None:
    """Raise ``BenchError`` for class numbers of a file that may be names: BI-RADS 1 to 5, where 0 would be the first.

    numbers: those of all its splits, each at least once. They are places where one of them is 0 or no name.
    """
    known = {number for number in numbers if number == number and number != -1}
    as_names = {number: classes.number(canonical(number)) for number in known}
    if not known or 0 in known or None in as_names.values() or all(as_names[number] == number for number in known):
        return
    names = listed(map(canonical, sorted(known)))
    raise BenchError(
        f"{file}: class numbers are counted from 0, but none here is 0, and {names} are "
        "names of classes; if these are meant, subtract 1 in the file, or else name the classes in words (BI-RADS 1)"
    )


def unknown_label(classes: Classes) -> Label:
    """The label of an image about which nothing is known."""
    return [-1] * len(classes.names) if classes.multi_label else -1
