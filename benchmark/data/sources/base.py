"""What every source of records has in common."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from benchmark.common.errors import BenchError, unknown
from benchmark.common.seeding import generator
from benchmark.data.problems import BadRow, Problems

if TYPE_CHECKING:
    from benchmark.data.card import Card

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(slots=True)
class Row:
    """One image and what belongs to it, on its way from a source to the records.

    file, row: where it was read, for messages (row 0: the file as a whole).
    image: a path relative to the source's image folder, or an encoded image.
    stored, digest: where an encoded image waits on the disk while a source gathers its rows, and what it is.
    """

    file: str
    row: int
    id: str
    group: str
    split: str
    image: str | bytes
    text: list[str] = field(default_factory=list)
    text_id: list[str] = field(default_factory=list)
    label: int | list[int] = -1
    question: list[str] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)
    answer_type: list[str] = field(default_factory=list)
    question_type: list[str] = field(default_factory=list)
    stored: tuple[int, int] | None = None
    digest: str = ""

    @property
    def place(self) -> str:
        return place(self.file, self.row)

    def content(self) -> bytes:
        """Everything in it, apart from where it was read."""
        columns = (self.id, self.group, self.split, self.label, self.text, self.text_id)
        questions = (self.question, self.answer, self.answer_type, self.question_type)
        image = self.image if isinstance(self.image, bytes) else os.fsencode(self.image)
        return json.dumps([*columns, *questions, len(image)]).encode() + image


def place(file: str, row: int) -> str:
    return f"{file}, row {row}" if row else file


class Source(BaseModel):
    """Where records come from. A kind of source is a model of its parameters and three methods."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    _folder: Path = PrivateAttr(default=Path())

    has_files: ClassVar[bool] = True
    """Whether images lie in files of the user's, which can be missing or change."""

    def provides(self) -> frozenset[str]:
        """What the records carry: of "text", "label", "question"."""
        raise NotImplementedError

    def splits(self) -> list[str]:
        """The splits it can say without reading rows; a split may turn out to be empty."""
        raise NotImplementedError

    def fingerprint(self) -> Any:
        """What rows() depends on beyond the card: the parameters, and the content (or size and time) of the files
        except the images'. JSON-serialisable.
        """
        raise NotImplementedError

    def rows(self, card: "Card", problems: Problems) -> Iterator[Row]:
        """The rows of all splits. Bad ones go to ``problems``; ``BenchError`` where nothing can be read."""
        raise NotImplementedError

    def needs(self) -> list[Path]:
        """The files and folders that it reads, relative as the card has them; patterns may be among them."""
        return []

    def found(self) -> bool:
        """Whether all that it needs is there."""
        return all(self.matching(path, required=False) for path in self.needs())

    @property
    def streams(self) -> bool:
        """Whether it is read while a model is trained on it, and never as a whole."""
        return False

    def shares_images(self) -> bool:
        """Whether one image, and its group, may be in several splits."""
        return False

    def image_folder(self) -> Path:
        """What the rows' image paths are relative to."""
        return self._folder

    def located_in(self, folder: Path) -> "Source":
        """The same source with its relative paths below ``folder``, the card's (or below $BENCH_DATA, see locate())."""
        copy = self.model_copy()
        copy._folder = folder
        return copy

    def locate(self, path: Path) -> Path:
        """An absolute path as it is; a relative one below base()."""
        return self.base(path) / path

    def base(self, path: Path) -> Path:
        """$BENCH_DATA if ``path`` is there, else the card's folder."""
        data = os.environ.get("BENCH_DATA")
        return Path(data if data and _matches(Path(data), path) else self._folder).absolute()

    def existing(self, path: Path) -> Path:
        """locate(), or ``BenchError`` naming the folders that were looked in."""
        return self.matching(path)[0]

    def matching(self, path: Path, required: bool = True) -> list[Path]:
        """The files or folders that ``path``, which may be a pattern, stands for, in order; ``BenchError`` where there
        is none, or one is a pipe or a device.
        """
        found = [path] if path.is_absolute() and path.exists() else _matches(self.base(path), path)
        for each in found if required else []:
            # Whoever opens a pipe waits for its other end.
            if not (each.is_file() or each.is_dir()):
                raise BenchError(f"'{path}' is neither a file nor a folder ({each})")
        if found or not required:
            return found
        data = os.environ.get("BENCH_DATA")
        folders = [*([data] if data else []), str(self._folder.absolute())]
        hint = "" if data else "; BENCH_DATA, the folder of your data, is not set"
        raise BenchError(f"'{path}' does not exist (looked in {', '.join(folders)}{hint})")


def _matches(folder: Path, path: Path) -> list[Path]:
    if not any(mark in str(path) for mark in "*?["):
        return [folder / path] if (folder / path).exists() else []
    return sorted(folder.glob(str(path)))


class Fractions(BaseModel):
    """A split drawn by group: the share of the rows that goes to each split, and the seed that it is drawn with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: float = Field(default=0.0, ge=0, le=1)
    val: float = Field(default=0.0, ge=0, le=1)
    test: float = Field(default=0.0, ge=0, le=1)
    seed: int = 0

    @model_validator(mode="after")
    def _whole(self) -> "Fractions":
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of train, val and test must sum to 1; they sum to {total:g}")
        return self

    def splits(self) -> list[str]:
        return [split for split in SPLITS if getattr(self, split)]

    def assign(self, rows: list[Row]) -> list[Row]:
        """The rows, each with its split now: whole groups, in an order drawn from the seed. The order of the rows is
        irrelevant; shares are met as closely as whole groups in that order allow.
        """
        sizes: dict[str, int] = {}
        for row in rows:
            sizes[row.group] = sizes.get(row.group, 0) + 1
        names = sorted(sizes)
        order = [names[i] for i in generator(self.seed, "split").permutation(len(names))]
        counts = np.array([sizes[name] for name in order])
        middle = (np.cumsum(counts) - counts / 2) / max(1, counts.sum())
        ends = np.cumsum([getattr(self, split) for split in SPLITS])
        # The last bound is left out: a middle is below 1, the sum of the shares only nearly is.
        split_of = dict(zip(order, np.searchsorted(ends[:-1], middle, side="right")))
        for row in rows:
            row.split = SPLITS[split_of[row.group]]
        return rows


def check_unicode(text: str) -> None:
    """Raise ``BadRow`` for half of a surrogate pair, as JSON may have and Python makes of a file's name that is not
    UTF-8: tables cannot hold it.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRow("not UTF-8", f"not UTF-8: {text[:80]!r}") from error


SYNONYMS = {"training": "train", "validation": "val", "valid": "val", "dev": "val", "testing": "test"}


def split_name(value: str) -> str:
    name = value.strip().lower()
    name = SYNONYMS.get(name, name)
    if name not in SPLITS:
        raise BadRow("unknown split", str(unknown("split", value, SPLITS)))
    return name


def label_of_names(card: "Card", names: Sequence[str]) -> int | list[int]:
    """The label from names of classes; none of them: unknown where a record has one class, no finding where many."""
    classes = card.class_index
    for name in names:
        if name not in classes:
            raise BadRow("unknown class", str(unknown("class", name, classes)))
    if card.multi_label:
        return [int(name in names) for name in classes]
    if len(names) > 1:
        raise BadRow("several classes", f"{len(names)} classes ({', '.join(names)}) where one is expected")
    return classes[names[0]] if names else -1


def label_of_flags(card: "Card", flags: Sequence[int]) -> int | list[int]:
    """The label from 0, 1 or -1 (unknown) for each class."""
    if card.multi_label:
        return list(flags)
    positive = [i for i, flag in enumerate(flags) if flag == 1]
    if len(positive) > 1:
        raise BadRow("several classes", f"{len(positive)} classes are 1 where one is expected")
    return positive[0] if positive else -1


def label_of_index(card: "Card", index: int) -> int | list[int]:
    """The label from the number of a class, from 0 on; -1 is unknown."""
    classes = list(card.class_index)
    if not -1 <= index < len(classes):
        raise BadRow("unknown class", f"class number {index}; expected 0 to {len(classes) - 1}")
    if card.multi_label:
        return unknown_label(card) if index < 0 else [int(i == index) for i in range(len(classes))]
    return index


def unknown_label(card: "Card") -> int | list[int]:
    return [-1] * len(card.classes or []) if card.multi_label else -1
