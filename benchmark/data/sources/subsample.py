"""A part of a dataset, drawn by group: a class made rare, few images, or as many of each class."""

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, model_validator

from benchmark.common.errors import BenchError, plural
from benchmark.common.seeding import stream
from benchmark.data.records import Classes, Label, Split

STEP = 10
"""A group joins once the images before it are this many times its own, so that no count is missed by far."""


def _of_train(value: Any) -> Any:
    return {"train": value} if isinstance(value, int) and not isinstance(value, bool) else value


Counts = Annotated[dict[Split, PositiveInt], BeforeValidator(_of_train)]
"""A number for each split; a number alone is that of train."""
Share = Annotated[float, Field(ge=0, le=1)]


class Candidate(NamedTuple):
    """What a draw looks at."""

    group: str
    id: str
    label: Label


class Subsample(BaseModel):
    """Which images of a dataset to use, of all that its source has. Splits that are not named stay whole.

    keep: class -> the share of its images in train to keep. Groups (patients) with such an image are kept or left out
    as a whole, at least one of them for a share above 0; val and test do not change. n: the number of images of train,
    or of the named splits, in whole groups, as near as these allow, with the shares of the classes; drawn after
    ``keep``. per_class: exactly as many images of each class, of train or of the named splits; only the last group of a
    class is not whole. Not for multi-label sets.
    sample_seed: another one draws other groups. What is drawn does not depend on the order of the rows, and a smaller
    share or number draws a part of what a larger one does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Excluded: the source reads the same rows whichever of them are used.
    keep: Annotated[dict[str, Share], Field(exclude=True)] = {}
    n: Annotated[Counts, Field(exclude=True)] = {}
    per_class: Annotated[Counts, Field(exclude=True)] = {}
    sample_seed: Annotated[int, Field(exclude=True)] = 0

    @model_validator(mode="after")
    def _one_number(self) -> "Subsample":
        if both := self.n.keys() & self.per_class.keys():
            raise ValueError(f"expected 'n' or 'per_class' for split '{min(both)}', found both")
        return self

    @property
    def drawn_splits(self) -> frozenset[str]:
        """The splits of which not all images may be used."""
        return frozenset({*self.n, *self.per_class} | ({"train"} if self.keep else set()))

    @property
    def drawing(self) -> list[Any]:
        """The settings of the draw, as a value that JSON can hold; empty if nothing is drawn."""
        return [getattr(self, name) for name in Subsample.model_fields] if self.drawn_splits else []

    def at_most(self, split: str, count: int, classes: int) -> int:
        """About how many images of a split of ``count`` are used, without looking at them."""
        numbers = {str(name): number for name, number in self.n.items()}
        numbers |= {str(name): each * classes for name, each in self.per_class.items()}
        return min(count, numbers.get(split, count))

    def draw(self, images: Sequence[Candidate], split: str, classes: Classes) -> np.ndarray:
        """Choose among the images of a split: their numbers, int64, ascending.

        Raises ``BenchError`` for more images than there are, and for a class without images.
        """
        groups = _groups(images, self.sample_seed)
        if split == "train":
            groups = self._kept(groups, classes)
        n = {str(name): number for name, number in self.n.items()}.get(split)
        each = {str(name): number for name, number in self.per_class.items()}.get(split)
        if n is not None:
            total = sum(group.size for group in groups)
            if n > total:
                raise BenchError(f"n: expected at most the {plural(total, 'image')} of {split}, found {n:,}")
            chosen = _nearest(_stratified(groups, self.sample_seed), n)
            groups = [group for group in groups if group.name in chosen]
        ranks = {group.name: group.rank for group in groups}
        kept = [number for number, image in enumerate(images) if image.group in ranks]
        if each is not None:
            kept = _balanced(
                images, sorted(kept, key=lambda i: (ranks[images[i].group], *images[i][:2])), classes, each, split
            )
        return np.array(kept, dtype=np.int64)

    def _kept(self, groups: list["_Group"], classes: Classes) -> list["_Group"]:
        """The groups without those that ``keep`` leaves out.

        Groups that show several of its classes are drawn by themselves, for the smallest of the shares.
        """
        share_of = {classes.index[name]: share for name, share in self.keep.items()}
        for name in self.keep:
            if not any(group.positive[classes.index[name]] for group in groups):
                raise BenchError(f"keep: train has no image of class '{name}'")
        alike: dict[frozenset[int], list[_Group]] = {}
        for group in groups:
            alike.setdefault(frozenset(share_of.keys() & group.positive.keys()), []).append(group)
        kept = {group.name for group in alike.get(frozenset(), [])}
        for shown, members in alike.items():
            placed = [(group.rank, sum(group.positive[number] for number in shown), group.name) for group in members]
            if shown and (share := min(share_of[number] for number in shown)):
                kept |= _nearest(placed, share * sum(size for _, size, _ in placed))
        return [group for group in groups if group.name in kept]


@dataclass
class _Group:
    """The images of a group: their number, and by class how many show it. rank: its place among all groups, 0..1."""

    name: str
    rank: float
    size: int = 0
    positive: Counter[int] = field(default_factory=Counter)


_Placed = tuple[float, int, str]
"""A group's place in the order of a draw, the number of its images, and its name."""


def _groups(images: Iterable[Candidate], seed: int) -> list[_Group]:
    groups: dict[str, _Group] = {}
    for image in images:
        if image.group not in groups:
            groups[image.group] = _Group(image.group, _uniform(seed, "group", image.group))
        group = groups[image.group]
        group.size += 1
        group.positive.update(_positive(image.label))
    return list(groups.values())


def _positive(label: Label) -> list[int]:
    if isinstance(label, list):
        return [number for number, flag in enumerate(label) if flag == 1]
    return [label] if label >= 0 else []


def _uniform(seed: int, *names: object) -> float:
    return stream(seed, "subsample", *names) / 2**63


def _stratified(groups: list[_Group], seed: int) -> list[_Placed]:
    """Place groups so that every beginning of their order has the classes in about the same shares."""
    totals: Counter[int] = Counter()
    for group in groups:
        totals.update(group.positive)
    rarest_first = {
        group.name: tuple(sorted(group.positive, key=lambda number: (totals[number], number))) for group in groups
    }
    return _interleaved(groups, rarest_first, (), seed)


def _interleaved(
    groups: list[_Group], shown: dict[str, tuple[int, ...]], common: tuple[int, ...], seed: int
) -> list[_Placed]:
    """Spread the groups of each stratum evenly over 0..1, from a random start.

    shown: the classes of each group, the rarest first. common: those that all these groups begin with; the next one
    tells the strata apart, and the one after it those within a stratum.
    """
    strata: dict[tuple[int, ...], list[_Group]] = {}
    for group in groups:
        strata.setdefault(shown[group.name][: len(common) + 1], []).append(group)
    placed = []
    for key, stratum in strata.items():
        inner = [(group.rank, group.size, group.name) for group in stratum]
        if len(key) > len(common):
            inner = _interleaved(stratum, shown, key, seed)
        start, before, total = _uniform(seed, "classes", key), 0, sum(group.size for group in stratum)
        for _, size, name in sorted(inner, key=lambda each: (each[0], each[2])):
            placed.append(((before + start * size) / total, size, name))
            before += size
    return placed


def _nearest(placed: Iterable[_Placed], n: float) -> set[str]:
    """Choose the first groups of an order, at least one, whose images are nearest to ``n`` in number."""
    order = _in_steps(placed)
    sums = np.cumsum([size for _, size, _ in order])
    return {name for _, _, name in order[: int(np.abs(sums - n).argmin()) + 1]}


def _in_steps(placed: Iterable[_Placed]) -> list[_Placed]:
    """Order groups by place, large ones later, see STEP; where all that are left are too large, the smallest next."""
    later = [(size, place, name) for place, size, name in placed]
    heapq.heapify(later)
    ready: list[_Placed] = []
    order: list[_Placed] = []
    total = 0
    while ready or later:
        while later and (later[0][0] * STEP <= total or not ready):
            size, place, name = heapq.heappop(later)
            heapq.heappush(ready, (place, size, name))
        order.append(heapq.heappop(ready))
        total += order[-1][1]
    return order


def _balanced(images: Sequence[Candidate], order: Sequence[int], classes: Classes, each: int, split: str) -> list[int]:
    """Choose the first ``each`` images of every class. order: the numbers of the images to choose from."""
    by_class: dict[int, list[int]] = {number: [] for number in classes.index.values()}
    for i in order:
        for number in _positive(images[i].label):
            by_class[number].append(i)
    for name, number in classes.index.items():
        if len(by_class[number]) < each:
            found = f"{split} has {len(by_class[number]):,} of '{name}'"
            raise BenchError(f"per_class: expected at least {plural(each, 'image')} of each class; {found}")
    return sorted(i for of_class in by_class.values() for i in of_class[:each])
