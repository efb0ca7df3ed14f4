"""The types of the store's files: labels, rows and notes, written by the runner and read by the report."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

if TYPE_CHECKING:
    import numpy as np


class Label(TypedDict):
    """The name of a cell in tables.

    arm: what tables call it; that of an encoder without training is its method. recipe: how the arm differs from the
    suite's settings, as ``training.key=value, option=value``. role: given for encoders that are evaluated without
    training.
    """

    suite: str
    model: str
    arm: NotRequired[str]
    method: str
    recipe: NotRequired[str]
    variant: str
    seed: int
    pretraining: NotRequired[str]
    role: NotRequired[Literal["baseline", "model"]]


class ScenarioColumns(TypedDict, total=False):
    """The columns of an evaluation that is part of a scenario.

    condition: of this evaluation. plain_condition: the one without the difficulty. plain, plain_dataset: the cell and
    the dataset at the plain condition, with which this evaluation is compared.
    """

    scenario: str
    question: str
    varies: str
    plain_condition: float | str
    condition: float | str | None
    plain: str
    plain_dataset: str


class CourseColumns(TypedDict, total=False):
    """The columns of an evaluation in the course of a training.

    at: the share of the training after which its weights were taken, below 1. samples, seconds: of the training so far.
    """

    at: float
    samples: int
    seconds: float


class LoadingColumns(TypedDict, total=False):
    """left_random: which tensors the weights that a model started from did not give it, where its card lets it pass."""

    left_random: str


class Scores(TypedDict):
    """One metric of one part of a measurement.

    value, low, high: the metric and its 95 % interval. n: the number of examples it is computed on; groups: of distinct
    groups among the part's examples. effective_groups: of groups that its error of sampling rests on, at most
    ``groups``. scarcest: of groups with a positive (or with a negative, if these are fewer and the metric needs them)
    of the scarcest class that it averages over; None for metrics that are no mean over classes. chance, majority: the
    metric of random scores and of always predicting the most frequent answer. blind: of other guesses without the
    images, by name. ceiling: the highest that is possible.

    Where the metric is a mean over draws of what is learned from: of_draws, the metric in each, whose mean is value;
    and over_groups, the ends of an interval for the error over groups that all draws share. low and high have the error
    of the draws too.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    groups: int
    effective_groups: float
    scarcest: int | None
    chance: float | None
    majority: float | None
    of_draws: NotRequired[list[float]]
    over_groups: NotRequired[list[float]]
    blind: NotRequired[dict[str, float]]
    ceiling: NotRequired[float | None]


class OpenedDataset(TypedDict):
    """How a dataset was opened. card: the name or the path of its card, with settings. on_bad_data: error or skip."""

    card: str
    on_bad_data: Literal["error", "skip"]


class Row(Label, ScenarioColumns, CourseColumns, LoadingColumns, Scores):
    """A row of rows.json: one metric of one part of an evaluation.

    primary: whether the tables show it. examples: a hash of the examples and of the groups that resamples draw from.
    start: the key of the cell with the weights before training; for a model that was trained elsewhere, with random
    weights in its architecture. raw_pixels: the key of the cell of the images that the model sees, as raw pixels.
    """

    dataset: str
    task: str
    part: str
    primary: bool
    examples: str
    cell: str
    evaluation: str
    start: str | None
    raw_pixels: str | None


class GalleryNote(TypedDict, total=False):
    """What a reader can look at. shows: the fields of a ``Gallery``. none: in its place, why there is nothing."""

    shows: dict[str, Any]
    none: str


class EmbeddingSpread(TypedDict):
    """How different the embeddings of test images are: the mean cosine of two of them, and their effective rank."""

    mean_cosine: float
    effective_rank: float


class Notes(TypedDict, total=False):
    """The notes of one part that the report reads; ``Measurement`` defines each. A task may add others.

    only_answer: the one answer that all test examples got, although not all have the same truth. embeddings: how
    different those of the test images are, if any task has encoded them.
    """

    gallery: GalleryNote
    only_answer: str
    embeddings: EmbeddingSpread
    definitions: dict[str, str]
    vocabulary: int
    missing: dict[str, str]
    breakdown: dict[str, dict[str, dict[str, float]]]
    curve: dict[str, dict[str, str]]
    drawn: dict[str, dict[str, list[int]]]
    support: dict[str, int]
    recall: dict[str, float | None]
    auroc: dict[str, float | None]
    absent: list[str]
    rare: list[str]
    undefined: list[str]
    unknown_label: int
    at_edge: dict[str, float]


class Stored(TypedDict):
    """Rows of encoded images or texts: the name of their folder in ``embeddings/``, and the class of each.

    classes: none where it has no known one; several of a multi-label image. digest: of the rows, from version 0.2 on.
    """

    folder: str
    rows: list[int]
    classes: list[list[str]]
    digest: NotRequired[str]


class EmbeddedNotes(TypedDict):
    """Where some test images of an evaluation and their texts are stored.

    texts_are: captions, of the same images in the same order; or prompts, of the classes.
    """

    images: Stored
    texts: Stored
    texts_are: Literal["captions", "prompts"]


@dataclass(frozen=True)
class Embedded:
    """Embeddings of some test images, float32 [n, D], and of their texts [m, D], of unit length.

    image_classes, text_classes: the names of the classes of each, none where it has none. texts_are: as of
    ``EmbeddedNotes``.
    """

    images: "np.ndarray"
    texts: "np.ndarray"
    image_classes: list[list[str]]
    text_classes: list[list[str]]
    texts_are: Literal["captions", "prompts"]
