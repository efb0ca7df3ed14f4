"""The contract of a downstream task."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from benchmark.evaluation.evaluation import Evaluation
from benchmark.evaluation.measurement import Measurement
from benchmark.registry import Registry

if TYPE_CHECKING:
    from benchmark.data.card import Card


class Task:
    """A kind of downstream task, run on each dataset that has the columns and splits it needs."""

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    primary: ClassVar[str]
    """The metric that the report's table shows."""
    headlines: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """By the name that a card may give as its ``headline``, the metric that the table then shows in its place."""
    uneven: ClassVar[str] = ""
    """The headline where one class has more than half of the labelled test images and the card names none."""
    needs: ClassVar[frozenset[str]]
    """What the dataset must provide: any of "text", "label", "prompts", "question"."""
    abilities: ClassVar[frozenset[str]] = frozenset()
    """What the method must be able to do besides encoding: "caption". A plan leaves out methods that cannot."""
    splits: ClassVar[tuple[str, ...]] = ("test",)
    """The splits that must not be empty."""

    @dataclass
    class Config:
        """The task's own parameters, each with a default."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    def primary_for(cls, card: "Card") -> str:
        """Return the primary metric on the dataset of ``card``; by default ``primary``, whatever the dataset."""
        return cls.primary

    @classmethod
    def model_needs(cls, config: Any) -> frozenset[str]:
        """Return what a model must provide with ``config``: any of "image_tokens", "text_tokens"; by default nothing.

        A plan refuses a run whose model lacks it.
        """
        return frozenset()

    def evaluate(self, data: Evaluation, seed: int) -> Iterator[Measurement]:
        """Measure the encoder of ``data`` on its dataset.

        The same encoder, dataset and seed give the same measurements, whatever the order of the examples and the batch
        size of the encoding. What takes long says how far it is: ``data.progress("training", epoch, epochs)``.
        """
        raise NotImplementedError


TASKS: Registry[Task] = Registry("task", Task, required=("evaluate",))
register_task = TASKS.register
