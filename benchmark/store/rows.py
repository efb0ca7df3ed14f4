"""The types of the store's files: labels, rows and notes, written by the runner and read by the report."""

from typing import Literal, NotRequired, TypedDict


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


class Scores(TypedDict):
    """One metric of one part of a measurement.

    value, low, high: the metric and its 95 % interval. n: the number of examples it is computed on; groups: of distinct
    groups among the part's examples. chance, majority: the metric of random scores and of always predicting the most
    frequent answer. blind: of other guesses without the images, by name. ceiling: the highest that is possible.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    groups: int
    chance: float | None
    majority: float | None
    blind: NotRequired[dict[str, float]]
    ceiling: NotRequired[float | None]


class Row(Label, ScenarioColumns, CourseColumns, Scores):
    """A row of rows.json: one metric of one part of an evaluation.

    primary: whether the tables show it. examples: a hash of the examples and of the groups that resamples draw from.
    start: the key of the cell with the weights before training.
    """

    dataset: str
    task: str
    part: str
    primary: bool
    examples: str
    cell: str
    evaluation: str
    start: str | None


class Notes(TypedDict, total=False):
    """The notes of one part that the report reads; ``Measurement`` defines each. A task may add others."""

    definitions: dict[str, str]
    vocabulary: int
    missing: dict[str, str]
    breakdown: dict[str, dict[str, dict[str, float]]]
    curve: dict[str, dict[str, str]]
    draws: dict[str, list[float]]
    support: dict[str, int]
    recall: dict[str, float | None]
    auroc: dict[str, float | None]
    absent: list[str]
    rare: list[str]
    undefined: list[str]
    unknown_label: int
