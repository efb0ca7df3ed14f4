"""What a task measures: per-example columns, and metrics over them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Examples = Mapping[str, np.ndarray]
"""Per-example columns, each of length n: at least ``id`` and ``group``, and the scores that the metrics are made of."""


@dataclass(frozen=True)
class Mean:
    """The metric that is the mean of a per-example column, over the examples where the boolean column ``where`` holds
    (NaN when it holds nowhere).

    highest: the most that the column can hold for an example; the least is 0.
    """

    column: str
    where: str | None = None
    highest: float = 1.0

    def __call__(self, examples: Examples) -> float:
        values = np.asarray(examples[self.column], dtype=np.float64)[self.counted(examples)]
        return float(values.mean()) if len(values) else float("nan")

    def counted(self, examples: Examples) -> np.ndarray:
        """Which examples the mean is over: bool [n]."""
        every = np.ones(len(examples[self.column]), dtype=bool)
        return every if self.where is None else np.asarray(examples[self.where], dtype=bool)


Metric = Callable[[Examples], float]
"""A metric is a function of the per-example columns alone, so that the stored scores suffice to compute it again."""


@dataclass
class Measurement:
    """What a task found: per-example columns, and metrics over them.

    part: tells apart several measurements of one task whose examples differ (``image_to_text``, ``text_to_image``).
    chance: what each metric gives for a scorer that knows nothing.
    notes: what a reader must know (classes absent, coverage of a vocabulary). The report shows ``definitions``: by
        metric, what it is, as the rest of a sentence that begins with its name; a metric that has one and is not the
        primary has a table of its own. It shows ``ceiling`` and
        ``vocabulary``, and ``breakdown``: by the name of a column, for each of its values, ``n`` (examples), the
        primary metric over these by its name, and ``majority`` likewise. ``curve``: by the name of what is learned
        from (``images a class``), for each amount of it, the name of the metric there; ``draws``: by metric, its value
        in each draw of what is learned from, of which it is the mean. ``support``: test examples by class, with
        ``recall`` and ``auroc`` likewise (None where undefined), and ``absent``: the classes without any;
        ``unknown_label``: how many examples were left out; ``undefined``: the metrics that the others do not give.
    majority: what a metric gives for always the most common answer of train.
    """

    examples: dict[str, np.ndarray]
    metrics: dict[str, Metric]
    chance: dict[str, float] = field(default_factory=dict)
    part: str = ""
    notes: dict[str, Any] = field(default_factory=dict)
    majority: dict[str, float] = field(default_factory=dict)
