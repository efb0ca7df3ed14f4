"""The base class of all sources of records."""

import os
import unicodedata
from collections.abc import Iterator
from datetime import date
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from benchmark.common.errors import BenchError
from benchmark.common.seeding import generator
from benchmark.data.canonical import canonical, composed
from benchmark.data.problems import Problems
from benchmark.data.records import SPLITS, Classes, Row
from benchmark.data.sources.folders import is_of_macos, located
from benchmark.data.sources.subsample import Subsample
from benchmark.data.sources.values import is_url

SharedGroups = Literal["error", "keep", "drop"]
"""Rows whose group occurred in another split before are bad, are kept, or leave the earlier of the two splits."""
MOST_FILES = 1000
"""The number of files in a folder that a missing one is compared with."""


class Source(Subsample):
    """Where records come from. Each kind of source is a model of its parameters and implements the methods below.

    Which of the rows are used is drawn from those that rows() reads, see Subsample.
    """

    kind: str
    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="before")
    @classmethod
    def _names(cls, source: Any) -> Any:
        """Give names that the card has, as of columns and folders, the form in which they are compared."""
        return _composed(source)

    has_files: ClassVar[bool] = True
    """Whether the images are files on the user's disk, which can be missing or change."""

    def provides(self) -> frozenset[str]:
        """Which of "text", "label" and "question" the records have."""
        raise NotImplementedError

    def splits(self) -> list[str]:
        """The splits that are known without reading rows. A split may turn out to be empty."""
        raise NotImplementedError

    def fingerprint(self) -> Any:
        """Everything that rows() depends on beyond the classes, as a value that JSON can hold.

        That is the parameters, and the content (or size and time) of all files except the images.
        """
        raise NotImplementedError

    def rows(self, classes: Classes, problems: Problems) -> Iterator[Row]:
        """Read the rows of all splits.

        Bad rows are added to ``problems``. Raises ``BenchError`` where nothing can be read.
        """
        raise NotImplementedError

    def expected_rows(self) -> dict[str, int]:
        """About how many rows each split has, as far as the parameters tell."""
        return {}

    def check_classes(self, classes: Classes) -> None:
        """Raise ``ValueError`` if the labels of this source cannot be those of ``classes``."""

    def needs(self) -> list[Path]:
        """The files and folders that the source reads, as written in the card; some may be patterns."""
        return []

    def is_present(self) -> bool:
        """Whether everything that the source needs is on this machine."""
        return all(self.matching(path, required=False) for path in self.needs())

    @property
    def streams(self) -> bool:
        """Whether images are read during training, instead of being prepared before it."""
        return False

    def shares_images(self) -> bool:
        """Whether one image, with its group, may be in several splits."""
        return False

    def shared_group_rule(self) -> SharedGroups:
        """What becomes of groups that are in several splits, see SharedGroups."""
        return "keep" if self.shares_images() else "error"

    def image_folder(self) -> Path:
        """The folder that the image paths of the rows are relative to."""
        return self._folder

    def located_in(self, folder: Path) -> Self:
        """A copy whose relative paths are below the card's folder (or below $BENCH_DATA, see locate())."""
        copy = self.model_copy()
        copy._folder = folder
        return copy

    def locate(self, path: Path) -> Path:
        """Return an absolute path unchanged, and a relative one below base()."""
        return self.base(path) / path

    def base(self, path: Path) -> Path:
        """Return $BENCH_DATA if ``path`` exists there, else the card's folder."""
        data = os.environ.get("BENCH_DATA")
        return Path(data if data and _matches(Path(data), path) else self._folder).absolute()

    def existing(self, path: Path) -> Path:
        """Return locate(), or raise ``BenchError`` naming the folders that were searched."""
        return self.matching(path)[0]

    def matching(self, path: Path, required: bool = True) -> list[Path]:
        """The files or folders that match ``path``, which may be a pattern, in order.

        Raises ``BenchError`` if ``required`` and nothing matches, or if a match is a pipe or a device.
        """
        matches = [path] if path.is_absolute() and path.exists() else _matches(self.base(path), path)
        if required and not matches and is_url(str(path)):
            raise BenchError(f"'{path}' is a URL; download it first, and write the path of the file")
        for match in matches if required else []:
            # Opening a pipe would block until another process writes to it.
            if not (match.is_file() or match.is_dir()):
                raise BenchError(f"'{path}' is neither a file nor a folder ({match})")
        if matches or not required:
            return matches
        data = os.environ.get("BENCH_DATA")
        folders = [*([data] if data else []), str(self._folder.absolute())]
        hint = "" if data else "; BENCH_DATA, the folder of your data, is not set"
        raise BenchError(f"'{path}' does not exist (looked in {', '.join(folders)}{hint}){_nearest(path, folders)}")


def _nearest(path: Path, folders: list[str]) -> str:
    """Suggest the file or folder with the nearest name where ``path`` was looked for; "" if none is near."""
    for folder in folders:
        if (parent := Path(folder, path).parent).is_dir():
            names = sorted(each.name for each in islice(parent.iterdir(), MOST_FILES))
            if near := get_close_matches(path.name, names, n=1, cutoff=0.6):
                return f"; did you mean '{path.parent / near[0]}'?"
    return ""


def _matches(folder: Path, path: Path) -> list[Path]:
    if not any(mark in str(path) for mark in "*?["):
        place = located(folder, str(path))
        return [place] if place.exists() else []
    forms = (str(path), unicodedata.normalize("NFD", str(path)))
    return next((matches for form in forms if (matches := _globbed(folder, form))), [])


def _globbed(folder: Path, pattern: str) -> list[Path]:
    return sorted(match for match in folder.glob(pattern) if not any(map(is_of_macos, match.parts)))


def _composed(value: Any) -> Any:
    """A value of YAML, with every text in it composed; a date, which YAML reads without quotes, is its text."""
    if isinstance(value, dict):
        return {_composed(name): _composed(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_composed(item) for item in value]
    if isinstance(value, date):
        return canonical(value)
    return composed(value) if isinstance(value, str) else value


class Fractions(BaseModel):
    """A random split by group: the share of the rows that goes to each split, and the seed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: float = Field(default=0.0, ge=0, le=1)
    val: float = Field(default=0.0, ge=0, le=1)
    test: float = Field(default=0.0, ge=0, le=1)
    seed: int = 0

    @model_validator(mode="after")
    def _sums_to_one(self) -> "Fractions":
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of train, val and test must sum to 1; they sum to {total:g}")
        return self

    def splits(self) -> list[str]:
        """The splits with a share above 0."""
        return [split for split in SPLITS if getattr(self, split)]

    def assign(self, rows: list[Row]) -> list[Row]:
        """Set the split of each row, keeping groups together, and return the rows, see draw()."""
        sizes: dict[str, int] = {}
        for row in rows:
            sizes[row.group] = sizes.get(row.group, 0) + 1
        names = sorted(sizes)
        split_of = dict(zip(names, self.draw(np.array([sizes[name] for name in names], dtype=np.int64)).tolist()))
        for row in rows:
            row.split = SPLITS[split_of[row.group]]
        return rows

    def draw(self, sizes: np.ndarray) -> np.ndarray:
        """Draw the split of each group, as its place in SPLITS, int64 [G].

        sizes: int64 [G], the rows of each, in the order of the groups' names. Groups are shuffled with the seed,
        independently of the order of the rows. The shares are met as closely as whole groups in that order allow.
        """
        order = generator(self.seed, "split").permutation(len(sizes))
        counts = sizes[order]
        middle = (np.cumsum(counts) - counts / 2) / max(1, counts.sum())
        ends = np.cumsum([getattr(self, split) for split in SPLITS])
        drawn = np.empty(len(sizes), dtype=np.int64)
        # Without the last bound: every middle is below 1, but rounding can leave the sum of the shares below one.
        drawn[order] = np.searchsorted(ends[:-1], middle, side="right")
        return drawn
