"""The result of a task: per-example columns, and metrics that are functions of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

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


@dataclass
class Measurement:
    """The result of a task: per-example columns, and metrics over them.

    part: tells apart several measurements of one task whose examples differ (``image_to_text``, ``text_to_image``).
    chance: what each metric is for a scorer that knows nothing.
    majority: what a metric is when the answer is always the most common one of train.
    blind: by name, what each metric is for other guesses that do not look at the images.
    ceiling: the highest value of a metric that is possible, where that is not its perfect value.
    notes: what a reader must know. The report reads these keys, and a task may add others:
        definitions: by metric, the rest of a sentence that begins with its name. A metric that has one and is not the
            primary one gets a table of its own.
        vocabulary: the number of different answers of train, where no other is ever given.
        missing: by metric, why it was not computed.
        breakdown: by the name of a column and each of its values, ``n`` (examples), the primary metric over these
            examples, by its name, and ``majority``, likewise.
        curve: by the name of what is learned from (``images a class``) and each amount of it, the name of the metric.
        draws: by metric, its value in each draw of what is learned from; the metric is their mean.
        support, recall, auroc: by class, the number of test examples, and the metrics (None where undefined).
        absent: classes without test examples. rare: classes that have means of their own.
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
