"""The contract of a downstream task."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from benchmark.evaluation.encoder import Evaluation
from benchmark.registry import Registry

if TYPE_CHECKING:
    from benchmark.data.card import Card

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


class Task:
    """A kind of downstream task, applied to a dataset that carries what it needs."""

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    primary: ClassVar[str]
    """The metric that the report's table shows."""
    needs: ClassVar[frozenset[str]]
    """What the dataset must carry: of "text", "label", "prompts", "question"."""
    abilities: ClassVar[frozenset[str]] = frozenset()
    """What the method must be able to do beyond encoding: of "caption". A plan leaves the others out."""
    splits: ClassVar[tuple[str, ...]] = ("test",)
    """The splits that must not be empty."""

    @dataclass
    class Config:
        """The task's own parameters, each with a default."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    def primary_for(cls, card: "Card") -> str:
        """The primary metric on the dataset of ``card``, where it depends on the dataset."""
        return cls.primary

    def evaluate(self, data: Evaluation, seed: int) -> Iterator[Measurement]:
        """Measure the encoder behind ``data`` on its dataset. Same encoder, dataset and seed: same measurements.
        Results do not depend on the order of the examples or on the batch size of the encoding."""
        raise NotImplementedError


TASKS: Registry[Task] = Registry("task", Task)
register_task = TASKS.register
