"""A plan: its cells, its pairs of a task and a dataset, and all that their keys are made of."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import Any, NotRequired, TypedDict

import torch

from benchmark.common.errors import BenchError
from benchmark.config.schema import Condition, Evaluating, RunConfig, Training
from benchmark.data.dataset import Dataset
from benchmark.evaluation.fixed import FixedEncoder
from benchmark.method import METHODS
from benchmark.models import ModelCard
from benchmark.models.card import LanguageModel, local_files
from benchmark.store import formats
from benchmark.store.hashing import digest, source_of
from benchmark.store.rows import Label, ScenarioColumns
from benchmark.store.store import Store
from benchmark.task import TASKS
from benchmark.training.accumulation import accumulation_mode
from benchmark.training.schedule import precision_of

Fingerprints = list[tuple[str, str]]
"""Datasets by their names, each with the hash of its records."""


class CellContent(TypedDict):
    """Everything that a cell's weights depend on.

    model_files: the hashes of local files that the model's card names. initial: the key of the cell whose weights it
    starts from.
    """

    format: int
    method: str
    source: str
    options: dict[str, Any]
    training: dict[str, Any]
    model: dict[str, Any]
    model_files: dict[str, str]
    tokenizer_data: Fingerprints
    initial: str | None
    pretraining: Fingerprints
    seed: int
    language_model: "NotRequired[LanguageContent]"


class PairContent(TypedDict):
    """Everything that an evaluation depends on beside the encoder. dataset: its fingerprint."""

    format: int
    source: str
    options: dict[str, Any]
    dataset: str
    card: dict[str, Any]
    evaluation: dict[str, Any]


class LanguageContent(TypedDict):
    """Everything that the weights of a language model depend on. texts: the datasets that it reads."""

    format: int
    language_model: dict[str, Any]
    text: dict[str, Any]
    tokenizer: dict[str, Any]
    model_files: dict[str, str]
    tokenizer_data: Fingerprints
    texts: Fingerprints


class SettingsContent(TypedDict):
    """Everything that the settings found by `bench tune` are for. checkpoint: the one that trials are judged by."""

    format: int
    method: str
    source: str
    options: dict[str, Any]
    training: dict[str, Any]
    model: dict[str, Any]
    model_files: dict[str, str]
    pretraining: list[str]
    checkpoint: str


def cell_content(
    method: str,
    options: Mapping[str, Any],
    training: Training,
    model: ModelCard,
    device: torch.device,
    *,
    tokenizer_data: Fingerprints,
    pretraining: Fingerprints,
    initial: str | None,
    language: LanguageContent | None,
    seed: int,
) -> CellContent:
    """Collect everything that a cell's weights depend on.

    Of the training settings ``auto`` is what it stands for here, and how often to save does not matter. language: of
    the language model that the text tower starts from; None for a method that uses none.
    """
    settings = training.model_dump(exclude={"accumulation", "precision", "checkpoint_every"})
    settings["accumulation"] = accumulation_mode(METHODS[method], training)
    settings["precision"] = precision_of(training, device)
    content = CellContent(
        format=formats.TRAINING,
        method=method,
        source=source_of(METHODS[method]),
        options=plain_options(f"method '{method}'", options),
        training=settings,
        model=model_content(model),
        model_files=local_files(model),
        tokenizer_data=tokenizer_data,
        initial=initial,
        pretraining=pretraining,
        seed=seed,
    )
    if language is not None:
        content["language_model"] = language
    return content


def pair_content(task: str, options: Mapping[str, Any], dataset: Dataset, evaluation: Evaluating) -> PairContent:
    """Collect everything that an evaluation depends on beside the encoder.

    How many images are encoded at once does not matter.
    """
    return PairContent(
        format=formats.EVALUATION,
        source=source_of(TASKS[task]),
        options=plain_options(f"task '{task}'", options),
        dataset=dataset.fingerprint,
        card=dataset.card.content(),
        evaluation=evaluation.model_dump(exclude={"batch_size"}),
    )


def language_content(
    spec: LanguageModel, model: ModelCard, *, tokenizer_data: Fingerprints, texts: Fingerprints
) -> LanguageContent:
    """Collect everything that the weights of a language model depend on."""
    return LanguageContent(
        format=formats.TRAINING,
        language_model=spec.model_dump(),
        text=model.text.model_dump(),
        tokenizer=model.tokenizer.model_dump(),
        model_files=local_files(model),
        tokenizer_data=tokenizer_data,
        texts=texts,
    )


def settings_content(method: str, options: Mapping[str, Any], model: ModelCard, config: RunConfig) -> SettingsContent:
    """Collect everything that tuned settings are for; not the learning rate, which is always searched."""
    return SettingsContent(
        format=formats.TRAINING,
        method=method,
        source=source_of(METHODS[method]),
        options=plain_options(f"method '{method}'", options),
        training=config.training.model_dump(exclude={"learning_rate", "checkpoint_every", "validations"}),
        model=model_content(model),
        model_files=local_files(model),
        pretraining=config.pretraining,
        checkpoint=config.evaluation.checkpoint,
    )


def model_content(model: ModelCard) -> dict[str, Any]:
    """Return what a model's outputs can depend on; where its initial weights come from has a key of its own."""
    return model.model_dump(exclude={"title", "init"})


def plain_options(owner: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a method's or a task's options to what JSON holds, so that they can be hashed and stored.

    owner: whose they are, for messages. Raises ``BenchError`` for an option of a type that has no such form.
    """
    return {name: _plain(value, f"{owner}: option {name}") for name, value in options.items()}


def _plain(value: Any, where: str) -> Any:
    if value is None or (isinstance(value, str | int | float) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, enum.Enum):
        return _plain(value.value, where)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, dict):
        return {str(_plain(key, where)): _plain(item, where) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, where) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(item, where) for item in value), key=digest)
    raise BenchError(
        f"{where}: no key can be made of a {type(value).__name__}; use numbers, texts, paths, enumerations, lists, "
        "tuples, sets or dicts"
    )


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
    content: CellContent
    label: Label
    condition: Condition | None = None
    plain: str = ""

    @cached_property
    def key(self) -> str:
        """The name of the cell's folder in the store."""
        return digest(self.content)


@dataclass(frozen=True)
class Pair:
    """A task on a dataset. content: everything that its measurement depends on beside the encoder."""

    task: str
    dataset: str
    options: dict[str, Any]
    content: PairContent
    variant: str

    @cached_property
    def key(self) -> str:
        """The name of the evaluation's folder in a cell's."""
        return f"{self.task}-{self.dataset}-{digest(self.content)}"


@dataclass(frozen=True)
class Language:
    """The language model that some cells' text towers start from. content: everything that its weights depend on.

    datasets: whose training texts it reads. texts_only: those of them that nothing else is read of.
    """

    spec: LanguageModel
    datasets: tuple[str, ...]
    texts_only: frozenset[str]
    content: LanguageContent

    @cached_property
    def key(self) -> str:
        """The name of its folder in the cache."""
        return digest(self.content)


@dataclass
class Plan:
    """What a run does, with every name resolved: each of ``cells`` is evaluated by ``pairs``.

    corpus: the datasets that the tokenizer is trained on, if it is.
    initial: the cell whose weights the others start from.
    fixed: encoders that are evaluated without training.
    starts: by seed, the key of the one with the weights that the cells start from.
    language: the language model that cells of methods that need one start from, where the card has it made.
    plain_dataset: of a scenario that varies what is tested on, the set without its difficulty.
    problems: why it cannot run.
    left_out: pairs of a task and a dataset that do not go together, with the reason.
    absent: datasets of the suite that are not on this machine.
    """

    config: RunConfig
    model: ModelCard
    device: torch.device
    datasets: dict[str, Dataset]
    corpus: list[str]
    initial: Cell | None
    cells: list[Cell]
    pairs: list[Pair]
    fixed: list[FixedEncoder] = field(default_factory=list)
    starts: dict[int, str] = field(default_factory=dict)
    language: Language | None = None
    plain_dataset: str = ""
    problems: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    def pairs_of(self, cell: Cell | FixedEncoder) -> list[Pair]:
        """List the pairs that are evaluated on a cell: those whose task asks for nothing that it cannot do."""
        abilities = frozenset() if isinstance(cell, FixedEncoder) else METHODS[cell.method].abilities
        pairs = [pair for pair in self.pairs if TASKS[pair.task].abilities <= abilities]
        if isinstance(cell, FixedEncoder) and cell.images_only:
            return [pair for pair in pairs if TASKS[pair.task].needs <= {"label"}]
        return pairs

    def missing(self, store: Store, cell: Cell | FixedEncoder) -> list[Pair]:
        """List the pairs that are not evaluated yet on a cell."""
        return [pair for pair in self.pairs_of(cell) if store.evaluated(cell.key, pair.key) is None]

    def scenario_of(self, cell: Cell | FixedEncoder, pair: Pair) -> ScenarioColumns:
        """Return the columns of an evaluation that is part of a scenario; else none.

        ``condition`` is its own; ``plain`` and ``plain_dataset`` are the cell and the dataset of the evaluation that it
        is compared with, itself at the plain condition. A baseline has these only where the scenario varies what is
        tested on.
        """
        scenario = self.config.scenario
        if scenario is None or (not self.plain_dataset and cell.label.get("role") == "model"):
            return {}
        columns: ScenarioColumns = {
            "scenario": scenario.name,
            "question": scenario.question,
            "varies": scenario.varies,
            "plain_condition": scenario.plain.condition,
        }
        if self.plain_dataset:
            plain = pair.dataset == self.plain_dataset
            condition = scenario.plain.condition if plain else scenario.condition
            return {**columns, "condition": condition, "plain": cell.key, "plain_dataset": self.plain_dataset}
        if isinstance(cell, Cell):
            return {**columns, "condition": cell.condition, "plain": cell.plain, "plain_dataset": pair.dataset}
        return columns
