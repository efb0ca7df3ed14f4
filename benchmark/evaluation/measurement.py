"""The result of a task: per-example columns, and metrics that are functions of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

Examples = Mapping[str, np.ndarray]
"""Per-example columns, each of length n: at least ``id`` and ``group``, and the scores that the metrics read."""


@dataclass(frozen=True)
class Mean:
    """The metric that is the mean of a per-example column.

    where: a boolean column; only the examples where it holds count (NaN where it holds nowhere).
    lowest, highest: the range of an example's value.
    """

    column: str
    where: str | None = None
    highest: float = 1.0
    lowest: float = 0.0

    def __call__(self, examples: Examples) -> float:
        """Compute the mean."""
        values = np.asarray(examples[self.column], dtype=np.float64)[self.counted(examples)]
        return float(values.mean()) if len(values) else float("nan")

    def counted(self, examples: Examples) -> np.ndarray:
        """Mark the examples that the mean is over: bool [n]."""
        every = np.ones(len(examples[self.column]), dtype=bool)
        return every if self.where is None else np.asarray(examples[self.where], dtype=bool)


Metric = Callable[[Examples], float]
"""A function of the per-example columns alone, so that it can be computed again from the stored scores."""


@dataclass(frozen=True)
class MeanOverDraws:
    """The metric that is the mean over random draws of what is learned from, as images of train.

    draws: the metric in each draw, one or more. They differ in the columns that they read alone: each draw is scored on
    the same examples. Draw k must be the same for all encoders of a seed, so that differences are paired by draw too.
    The store keeps the metric of each draw and its resamples, because a different draw would have given a different
    mean: intervals and tests take that into account.
    """

    draws: tuple[Metric, ...]

    def __call__(self, examples: Examples) -> float:
        """Compute the mean of the metric over the draws."""
        return float(np.mean([metric(examples) for metric in self.draws]))


def draws_of(metric: Metric) -> tuple[Metric, ...]:
    """Return the metric of each draw; a metric without draws is its only one."""
    return metric.draws if isinstance(metric, MeanOverDraws) else (metric,)


@runtime_checkable
class Sided(Protocol):
    """A metric that is a mean over classes, in which examples of a rare class weigh more than others."""

    def sides(self, examples: Examples) -> Iterator[tuple[np.ndarray, bool]]:
        """Yield the examples over which each class's value averages, bool [n], and whether all have the same truth.

        A recall averages over the positives of its class; an AUROC over its positives and over its negatives, which
        are two sides; an accuracy over all examples whose truth is known, which differ in it. Classes whose value is
        undefined have no sides.
        """


@dataclass(frozen=True)
class Gallery:
    """What a reader can look at: which columns the report's page shows beside the images of a measurement.

    wrong: the column that orders the examples from the most wrong, by its highest values or, with ``wrong_if`` "low",
    by its lowest.
    example: what an ``id`` names. An image; a text of it, IMAGE#NUMBER; or a question about it, IMAGE/NUMBER. Numbers
    count from 0.
    classes: the names of the classes whose scores are the columns ``score/CLASS``. The truth is the column ``label``,
    the number of a class, or ``label/CLASS``, 1 where the class holds.
    answer, truth: the columns of the answer in words and of the true one. Without a truth, the true answers are the
    texts of the image.
    right: the column that is 1 where the answer is right.
    ranked: the part whose examples are ranked; it has a gallery too. The columns ``first/1``, ``first/2``, ... are the
    numbers of the first answers among its examples, from 0, and ``first_right/1``, ... whether each is right.
    numbers: by what they are called, the columns of numbers that are shown.
    """

    wrong: str
    wrong_if: Literal["high", "low"] = "high"
    example: Literal["image", "text", "question"] = "image"
    classes: tuple[str, ...] = ()
    answer: str = ""
    truth: str = ""
    right: str = ""
    ranked: str | None = None
    numbers: dict[str, str] = field(default_factory=dict)


@dataclass
class Measurement:
    """The result of a task: per-example columns, and metrics over them.

    part: tells apart several measurements of one task whose examples differ (``image_to_text``, ``text_to_image``).
    chance: what each metric is for a scorer that knows nothing.
    majority: what a metric is when the answer is always the most common one of train.
    blind: by name, what each metric is for other guesses that do not look at the images.
    ceiling: the highest value of a metric that is possible, where that is not its perfect value.
    gallery: what a reader can look at, or a sentence that says why there is nothing.
    notes: what a reader must know. The report reads these keys, and a task may add others:
        definitions: by metric, the rest of a sentence that begins with its name. A metric that has one and is not the
            primary one gets a table of its own.
        vocabulary: the number of different answers of train, where no other is ever given.
        missing: by metric, why it was not computed.
        breakdown: by the name of a column and each of its values, ``n`` (examples), the primary metric over these
            examples, by its name, and what guesses get, by theirs (``majority``).
        curve: by the name of what is learned from (``images a class``) and each amount of it, the name of the metric.
        drawn: by metric, the number of ``images`` and ``groups`` of train in each of its draws.
        support, recall, auroc: by class, the number of test examples, and the metrics (None where undefined).
        absent: classes without test examples. rare: classes that have means of their own.
        at_edge: by the name of an option, the value chosen for it where that is the lowest or highest of those tried.
        unknown_label: the number of examples left out. undefined: the metrics that these examples do not define.
    """

    examples: dict[str, np.ndarray]
    metrics: dict[str, Metric]
    chance: dict[str, float] = field(default_factory=dict)
    part: str = ""
    notes: dict[str, Any] = field(default_factory=dict)
    majority: dict[str, float] = field(default_factory=dict)
    blind: dict[str, dict[str, float]] = field(default_factory=dict)
    ceiling: dict[str, float] = field(default_factory=dict)
    gallery: Gallery | str = ""
