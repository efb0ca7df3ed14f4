"""What the files of the store hold: labels, rows and notes, as the runner writes them and the report reads them."""

from typing import Literal, NotRequired, TypedDict


class Label(TypedDict):
    """What a cell is called in tables. role: what an encoder is that was evaluated without training."""

    suite: str
    model: str
    method: str
    variant: str
    seed: int
    pretraining: NotRequired[str]
    role: NotRequired[Literal["baseline", "model"]]


class ScenarioColumns(TypedDict, total=False):
    """How an evaluation belongs to a scenario.

    condition: its own. plain_condition: the one without the difficulty. plain, plain_dataset: the cell and the dataset
    at the plain condition that it is compared with.
    """

    scenario: str
    question: str
    varies: str
    plain_condition: float | str
    condition: float | str | None
    plain: str
    plain_dataset: str


class Scores(TypedDict):
    """A metric of one part of a measurement.

    value, low, high: the metric and its 95 % interval. n: examples that it is over; groups: distinct groups among the
    part's examples. chance, majority: the metric of a scorer that knows nothing, and of always the most common answer.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    groups: int
    chance: float | None
    majority: float | None


class Row(Label, ScenarioColumns, Scores):
    """A row of rows.json: one metric of one part of an evaluation.

    primary: whether the tables show it. examples: a hash of the examples and of the groups that resamples draw from.
    start: the cell with the weights that training started from.
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
    """What the report reads of the notes of one part, which may hold more; ``Measurement`` says what each is."""

    definitions: dict[str, str]
    ceiling: float
    vocabulary: int
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
