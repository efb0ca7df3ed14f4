"""A plan: its cells, its pairs of a task and a dataset, and all that their keys are made of."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from benchmark.config.schema import Condition, RunConfig, Training
from benchmark.data.dataset import Dataset
from benchmark.evaluation.fixed import Given
from benchmark.method import METHODS
from benchmark.models import ModelCard
from benchmark.models.card import LanguageModel
from benchmark.store.hashing import digest
from benchmark.store.store import Store
from benchmark.task import TASKS

FORMAT = 2
"""Raised when a change in the harness changes what a cell holds."""


EVALUATION_FORMAT = 4
"""Raised when a change in the harness changes what an evaluation holds."""


@dataclass(frozen=True)
class Cell:
    """One method trained with one seed. content: everything that its weights depend on; key: its hash.

    Of a scenario that varies what is trained on: the condition, and the key of the same method's cell at the plain one.
    """

    method: str
    options: dict[str, Any]
    training: Training
    pretraining: tuple[str, ...]
    seed: int
    content: dict[str, Any]
    label: dict[str, Any]
    condition: Condition | None = None
    plain: str = ""

    @cached_property
    def key(self) -> str:
        return digest(self.content)


@dataclass(frozen=True)
class Pair:
    """A task on a dataset. content: everything that its measurement depends on beside the encoder."""

    task: str
    dataset: str
    options: dict[str, Any]
    content: dict[str, Any]
    variant: str

    @cached_property
    def key(self) -> str:
        return f"{self.task}-{self.dataset}-{digest(self.content)}"


@dataclass(frozen=True)
class Language:
    """The language model that some cells' text towers start from. datasets: whose training texts it reads; texts_only:
    those of them that nothing else is read of. content: everything that its weights depend on; key: its hash.
    """

    spec: LanguageModel
    datasets: tuple[str, ...]
    texts_only: frozenset[str]
    content: dict[str, Any]

    @cached_property
    def key(self) -> str:
        return digest(self.content)


@dataclass
class Plan:
    """cells x pairs, all resolved. corpus: the datasets that the tokenizer is trained on, if it is.
    initial: the cell whose weights the others start from. given: encoders that are evaluated as they are. starts: by
    seed, the key of the one with the weights that the cells start from. language: the language model that cells of
    methods that need one start from, where the card has it made. plain_dataset: of a scenario that varies what is
    tested on, the set without its difficulty. problems: why it cannot run. left_out: pairs of a task and a dataset that
    do not go together, with the reason. absent: of the suite, but not on this machine.
    """

    config: RunConfig
    model: ModelCard
    device: torch.device
    datasets: dict[str, Dataset]
    corpus: list[str]
    initial: Cell | None
    cells: list[Cell]
    pairs: list[Pair]
    given: list[Given] = field(default_factory=list)
    starts: dict[int, str] = field(default_factory=dict)
    language: Language | None = None
    plain_dataset: str = ""
    problems: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    def pairs_of(self, cell: Cell | Given) -> list[Pair]:
        """The pairs that are evaluated on a cell: those whose task asks for nothing that it cannot do."""
        abilities = frozenset() if isinstance(cell, Given) else METHODS[cell.method].abilities
        pairs = [pair for pair in self.pairs if TASKS[pair.task].abilities <= abilities]
        if isinstance(cell, Given) and cell.images_only:
            return [pair for pair in pairs if TASKS[pair.task].needs <= {"label"}]
        return pairs

    def missing(self, store: Store, cell: Cell | Given) -> list[Pair]:
        """The pairs that are not evaluated yet on a cell."""
        return [pair for pair in self.pairs_of(cell) if store.evaluated(cell.key, pair.key) is None]

    def scenario_of(self, cell: Cell | Given, pair: Pair) -> dict[str, Any]:
        """What the report must know of an evaluation that is part of a scenario; else empty. ``condition`` is its own,
        ``plain`` and ``plain_dataset`` are the cell and the dataset of the one that it is held against, itself at the
        plain condition. A baseline has these only where they are a matter of the dataset.
        """
        scenario = self.config.scenario
        if scenario is None or (not self.plain_dataset and cell.label.get("role") == "model"):
            return {}
        found = {
            "scenario": scenario.name,
            "question": scenario.question,
            "varies": scenario.varies,
            "plain_condition": scenario.plain.condition,
        }
        if self.plain_dataset:
            plain = pair.dataset == self.plain_dataset
            condition = scenario.plain.condition if plain else scenario.condition
            return found | {"condition": condition, "plain": cell.key, "plain_dataset": self.plain_dataset}
        if isinstance(cell, Cell):
            return found | {"condition": cell.condition, "plain": cell.plain, "plain_dataset": pair.dataset}
        return found
