"""The contract of a downstream task."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from benchmark.evaluation.evaluation import Evaluation
from benchmark.evaluation.measurement import Measurement
from benchmark.registry import Registry

if TYPE_CHECKING:
    from benchmark.data.card import Card


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
        Results do not depend on the order of the examples or on the batch size of the encoding.
        """
        raise NotImplementedError


TASKS: Registry[Task] = Registry("task", Task)
register_task = TASKS.register
