"""A plan: cells, pairs of a task and a dataset, and everything that their keys are made of."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import PurePath
from typing import Any, NotRequired, TypedDict

import torch

from benchmark.common.errors import BenchError
from benchmark.config.schema import Condition, ResolvedArm, RunConfig
from benchmark.config.training import Evaluating, Training
from benchmark.data.dataset import Dataset
from benchmark.data.resizing import Resizing
from benchmark.evaluation.fixed import FixedEncoder
from benchmark.method import METHODS
from benchmark.models import DualEncoder, ModelCard, build_model
from benchmark.models.card import LanguageModel, local_files
from benchmark.store import formats
from benchmark.store.hashing import digest, source_of
from benchmark.store.rows import Label, ScenarioColumns
from benchmark.store.store import Store
from benchmark.task import TASKS
from benchmark.training.accumulation import accumulation_mode
from benchmark.training.schedule import precision_of

Fingerprints = list[tuple[str, str]]
"""Names of datasets, each with the hash of its records."""


class CellContent(TypedDict):
    """Everything that a cell's weights depend on.

    model_files: the hashes of local files that the model's card names. initial: the key of the cell with the initial
    weights. validation: the sets that give the validation loss, where these are not all. keep: the shares of the
    training at which its weights are kept, if any.
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
    validation: NotRequired[Fingerprints]
    keep: NotRequired[list[float]]


class PairContent(TypedDict):
    """Everything that an evaluation depends on besides the encoder.

    dataset: its fingerprint. at: the share of the training after which weights are evaluated, if before its end.
    """

    format: int
    source: str
    options: dict[str, Any]
    dataset: str
    card: dict[str, Any]
    evaluation: dict[str, Any]
    at: NotRequired[float]


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
    """Everything that settings from `bench tune` are specific to. checkpoint: the one that trials are scored on."""

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
    validation: Fingerprints,
    keep: Sequence[float] = (),
) -> CellContent:
    """Collect everything that a cell's weights depend on.

    Training settings of ``auto`` are resolved, and checkpoint_every is left out. language: of the language model that
    the text tower starts from; None for a method that uses none. keep: the shares of the training at which weights are
    kept: a cell without them has to be trained again.
    """
    settings = training.model_dump(exclude={"accumulation", "precision", "checkpoint_every"})
    if not training.cache_frozen:
        del settings["cache_frozen"]  # so that trainings from before this setting keep their keys
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
    if validation != pretraining:
        content["validation"] = validation
    if keep:
        content["keep"] = [*keep]
    return content


def pair_content(task: str, options: Mapping[str, Any], dataset: Dataset, evaluation: Evaluating) -> PairContent:
    """Collect everything that an evaluation depends on besides the encoder; neither the batch size nor ``at``."""
    return PairContent(
        format=formats.EVALUATION,
        source=source_of(TASKS[task]),
        options=plain_options(f"task '{task}'", options),
        dataset=dataset.fingerprint,
        card=dataset.card.content(),
        evaluation=evaluation.model_dump(exclude={"batch_size", "at"}),
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


def settings_content(
    arm: ResolvedArm, options: Mapping[str, Any], model: ModelCard, config: RunConfig
) -> SettingsContent:
    """Collect everything that tuned settings are specific to; not the learning rate, which is always searched.

    options: all options of the arm's method.
    """
    method = arm.method
    return SettingsContent(
        format=formats.TRAINING,
        method=method,
        source=source_of(METHODS[method]),
        options=plain_options(f"method '{method}'", options),
        training=arm.training.model_dump(exclude={"learning_rate", "checkpoint_every", "validations"}),
        model=model_content(model),
        model_files=local_files(model),
        pretraining=config.pretraining,
        checkpoint=config.evaluation.source(),
    )


def model_content(model: ModelCard) -> dict[str, Any]:
    """Return everything that a model's outputs depend on, except its initial weights, which have their own key."""
    return model.content()


def plain_options(owner: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the options of a method or task to JSON types, to hash and store them.

    owner: the method or task, for messages. Raises ``BenchError`` for an option that cannot be converted.
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
        f"{where}: a {type(value).__name__} cannot be part of a key; use numbers, strings, paths, enumerations, "
        "lists, tuples, sets or dicts"
    )


@dataclass(frozen=True)
class Cell:
    """One arm trained with one seed. content: everything that its weights depend on; key: its hash.

    validation: those of the sets to pretrain on whose validation split gives the validation loss.
    condition, plain: in a scenario that varies the pretraining data, the cell's condition and the key of the same
    arm's cell at the plain condition.
    """

    arm: str
    method: str
    options: dict[str, Any]
    training: Training
    pretraining: tuple[str, ...]
    validation: tuple[str, ...]
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
    """A task on a dataset. content: everything that an evaluation depends on besides the encoder.

    at: the share of the training after which weights are evaluated; 1: at its end, with the checkpoint of the run.
    """

    task: str
    dataset: str
    options: dict[str, Any]
    content: PairContent
    variant: str
    at: float = 1.0

    @property
    def title(self) -> str:
        """The evaluation in words, for messages."""
        return f"{self.task} on {self.dataset}" + (f" after {self.at:.3g} of the training" if self.at < 1 else "")

    def after(self, share: float) -> "Pair":
        """Return the same evaluation of the weights after a share of the training."""
        return replace(self, at=share, content={**self.content, "at": share})

    @cached_property
    def key(self) -> str:
        """The name of the evaluation's folder within that of the cell."""
        return f"{self.task}-{self.dataset}-{digest(self.content)}"


@dataclass(frozen=True)
class Language:
    """The language model that some cells' text towers start from. content: everything that its weights depend on.

    datasets: those whose training texts it is trained on. texts_only: those of them that the run uses for nothing else.
    """

    spec: LanguageModel
    datasets: tuple[str, ...]
    texts_only: frozenset[str]
    content: LanguageContent

    @cached_property
    def key(self) -> str:
        """The name of the language model's folder in the cache."""
        return digest(self.content)


@dataclass(frozen=True)
class Preparation:
    """Images of a dataset that a run prepares.

    size: pixels a side, or of the short side with keep_ratio. splits: None for all of them.
    """

    size: int
    splits: list[str] | None
    keep_ratio: bool

    def of(self, splits: list[str]) -> list[str]:
        """Return those of a dataset's splits that are prepared."""
        return [split for split in splits if self.splits is None or split in self.splits]

    def resizing(self, of_model: Resizing) -> Resizing:
        """Return how the images are resized. of_model: how the model expects its own to be."""
        return of_model.keeping_ratio() if self.keep_ratio else of_model


@dataclass
class Plan:
    """What a run does, with every name resolved: each of ``cells`` is evaluated on ``pairs``.

    corpus: the datasets that the tokenizer is trained on; empty if it is not trained.
    initial: the cell whose weights the others start from.
    fixed: encoders that are evaluated without training.
    starts: by seed, the key of the encoder with the weights before training: the cells' initial ones, or those of the
    untrained architecture of a model that was trained elsewhere. raw_pixels: by seed, the key of the raw pixels.
    language: the language model for methods that need one; None if the model's card defines none.
    tested_at: in a scenario that varies the evaluation data, the condition of each dataset, the plain one first.
    problems: why the plan cannot run.
    left_out: tasks that do not fit a dataset or a method, with the reason.
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
    raw_pixels: dict[int, str] = field(default_factory=dict)
    language: Language | None = None
    tested_at: dict[str, Condition] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    @cached_property
    def blank_model(self) -> DualEncoder:
        """The model without weights, on the meta device: to read shapes, image size and resizing from."""
        return build_model(self.model, 0, "meta")

    @property
    def plain_dataset(self) -> str:
        """In a scenario that varies the evaluation data, the dataset without its difficulty; else empty."""
        return next(iter(self.tested_at), "")

    def pairs_of(self, cell: Cell | FixedEncoder) -> list[Pair]:
        """List the pairs to evaluate a cell on: those whose task it is able to do, after each share of its training."""
        abilities = frozenset() if isinstance(cell, FixedEncoder) else METHODS[cell.method].abilities
        pairs = [pair for pair in self.pairs if TASKS[pair.task].abilities <= abilities]
        if isinstance(cell, FixedEncoder) and cell.images_only:
            return [pair for pair in pairs if TASKS[pair.task].needs <= {"label"}]
        shares = [] if isinstance(cell, FixedEncoder) else cell.content.get("keep", [])
        return [*(pair.after(share) for share in shares for pair in pairs), *pairs]

    def to_prepare(self, name: str, untrained: list[Cell], image_size: int) -> list[Preparation]:
        """List how a run prepares the images of a dataset; empty if it does not need them.

        untrained: the cells that the run trains. image_size: the model's.
        """
        if self.language and name in self.language.texts_only:
            return []
        trainings = [cell.training for cell in untrained if name in cell.pretraining]
        sizes = {(each.keep_ratio, each.resolution or image_size) for each in trainings}
        kept = {size for keep_ratio, size in sizes if keep_ratio}
        square = {size for keep_ratio, size in sizes if not keep_ratio}
        splits: list[str] | None = ["train", "val"]
        # A dataset used only for pretraining is not prepared at the evaluation's image size.
        if not trainings or any(name == pair.dataset for pair in self.pairs):
            square, splits = square | {image_size}, None
        made = [Preparation(size, splits, False) for size in sorted(square)]
        made += [Preparation(size, ["val"], False) for size in sorted(kept - square)]
        return made + [Preparation(size, ["train"], True) for size in sorted(kept)]

    def classes_of(self, cell: Cell) -> list[str]:
        """List the names of the classes of a cell's pairs; none if they come from several datasets."""
        cards = [self.datasets[name].card for name in cell.pretraining]
        return list(cards[0].classes or ()) if len(cards) == 1 else []

    def missing(self, store: Store, cell: Cell | FixedEncoder) -> list[Pair]:
        """List the pairs that a cell has not been evaluated on."""
        return [pair for pair in self.pairs_of(cell) if not store.is_evaluated(cell.key, pair.key)]

    def scenario_of(self, cell: Cell | FixedEncoder, pair: Pair) -> ScenarioColumns:
        """Return the columns of an evaluation that is part of a scenario; else none.

        ``condition`` is that of the evaluation; ``plain`` and ``plain_dataset`` are the cell and the dataset of the
        evaluation at the plain condition that it is compared with. Baselines have these three only if the scenario
        varies the evaluation data.
        """
        scenario = self.config.scenario
        if scenario is None or (not self.plain_dataset and cell.label.get("role") == "model"):
            return {}
        if self.tested_at and pair.dataset not in self.tested_at:
            return {}
        columns: ScenarioColumns = {
            "scenario": scenario.name,
            "question": scenario.question,
            "varies": scenario.varies,
            "plain_condition": scenario.plain.condition,
        }
        if self.plain_dataset:
            condition = self.tested_at[pair.dataset]
            return {**columns, "condition": condition, "plain": cell.key, "plain_dataset": self.plain_dataset}
        if isinstance(cell, Cell):
            return {**columns, "condition": cell.condition, "plain": cell.plain, "plain_dataset": pair.dataset}
        return columns
