"""What a run's configuration holds: types, ranges and defaults of every setting."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from benchmark.common.errors import BenchError, unknown
from benchmark.data.transforms import Augmentation

BUDGETS = ("samples", "epochs", "steps", "time", "flops")


class Strict(BaseModel):
    """A part of the configuration: an unknown key is an error, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Training(Strict):
    """How one cell is trained.

    The budget, exactly one of: samples, pairs seen over the training; epochs, passes over the data; steps of the
    optimiser; time, seconds of training on this machine, turned into steps by timing a few before the first; flops,
    floating-point operations, turned into steps by what one takes of the method.
    batch_size: the effective batch: the pairs of one optimiser step. micro_batch: pairs in memory at once.
    accumulation: ``auto`` is the method's own default.
    mixture: of several sets to pretrain on: a set's share of the pairs is proportional to its size to this power. 1: by
    size, 0: equal, between them a temperature of 1 / mixture.
    resolution: pixels a side that images are prepared at, before cropping; null: the model's image size.
    warmup: the share of the steps over which the learning rate rises from 0; then it falls to 0 along a cosine.
    gradient_clip: largest norm of the gradient; 0 does not clip.
    precision: ``auto`` is bf16 autocast on a CUDA device that has it, fp32 elsewhere.
    validations: how often in the training the validation loss is computed, evenly spaced, the last at its end.
    checkpoint_every: seconds between checkpoints that an interrupted training resumes from.
    """

    samples: PositiveInt | None = None
    epochs: float | None = Field(default=None, gt=0)
    steps: PositiveInt | None = None
    time: float | None = Field(default=None, gt=0)
    flops: float | None = Field(default=None, gt=0)
    batch_size: PositiveInt = 128
    micro_batch: PositiveInt = 128
    accumulation: Literal["auto", "plain", "cached", "keyed"] = "auto"
    mixture: float = Field(default=1.0, ge=0, le=1)
    resolution: PositiveInt | None = None
    learning_rate: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = Field(default=1e-6, gt=0)
    warmup: float = Field(default=0.1, ge=0, le=1)
    gradient_clip: float = Field(default=1.0, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False
    augmentation: Augmentation = Augmentation()
    validations: int = Field(default=5, ge=0)
    checkpoint_every: float = Field(default=60.0, ge=0)

    @model_validator(mode="after")
    def _one_budget(self) -> "Training":
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(BUDGETS)}; found {', '.join(given) or 'none'}")
        return self

    @property
    def budget(self) -> tuple[str, float]:
        """The budget's kind and amount."""
        return next((name, getattr(self, name)) for name in BUDGETS if getattr(self, name) is not None)


class Evaluating(Strict):
    """How checkpoints are evaluated.

    checkpoint: ``last``, or ``best`` by the validation loss. batch_size: images or texts encoded at once.
    resamples: bootstrap resamples behind each 95 % interval.
    """

    checkpoint: Literal["last", "best"] = "last"
    batch_size: PositiveInt = 256
    resamples: PositiveInt = 1000


Condition = int | float | str
"""A share (0..1), a count, or in words."""


class Plain(Strict):
    """What stands where a scenario's difficulty does not: its condition, and what differs then, exactly one of the sets
    that are trained on, in place of the suite's, and a set that is tested on, beside the suite's.
    """

    condition: Condition
    pretraining: list[str] = []
    dataset: str | None = None

    @model_validator(mode="after")
    def _one_difference(self) -> "Plain":
        if bool(self.pretraining) == bool(self.dataset):
            found = "both" if self.dataset else "neither"
            raise ValueError(f"give exactly one of pretraining and dataset, as one thing must differ; found {found}")
        return self


class Scenario(Strict):
    """What a suite makes difficult. Every method is run at ``plain``, too, and held against itself there.

    name: the scenarios of one name stand in one table, a line each condition. question: what it asks. varies: what the
    conditions are values of. condition: that of the suite's own data.
    setting: what sets other conditions, a key of the source of the suite's cards to train on; empty: nothing does.
    conditions: those to run beside the plain one; none: the suite's own.
    """

    name: str
    question: str
    varies: str
    condition: Condition
    plain: Plain
    setting: str = ""
    conditions: list[float] = []

    @field_validator("conditions")
    @classmethod
    def _can_be_set(cls, value: list[float], info: ValidationInfo) -> list[float]:
        if value and not info.data.get("setting"):
            raise ValueError("scenario '{name}' is at '{condition}' and takes no value".format(**info.data))
        return value


class RunConfig(Strict):
    """What `bench run` runs: methods x seeds pretrained on ``pretraining``, evaluated by ``tasks`` on ``datasets``.

    strict: whether a dataset of the suite that is not on this machine is an error; otherwise it is left out. required:
    those that must be there in any case, because the command line named them.
    baselines: whether to evaluate the initial weights, the untrained model and raw pixels too.
    options: a method's or a task's own parameters, by its name.
    overrides: what the command line set over the suite; part of a result's label, not of its computation.
    tuned: the folder of what `bench tune` found, to give each method its own; null: none.
    grid: points at each of which everything is run, settings by ``section.key``; a point is part of the label.
    scenario: the one that the suite is made for, if any.
    """

    suite: str = "custom"
    description: str = ""
    model: str = "tiny"
    model_options: dict[str, Any] = {}
    pretraining: list[str]
    datasets: list[str]
    methods: list[str]
    tasks: list[str] = ["all"]
    seeds: list[int] = [0]
    training: Training
    evaluation: Evaluating = Evaluating()
    baselines: bool = True
    options: dict[str, dict[str, Any]] = {}
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    on_bad_data: Literal["error", "skip"] = "error"
    strict: bool = False
    required: list[str] = []
    overrides: dict[str, Any] = {}
    tuned: str | None = None
    grid: list[dict[str, Any]] = [{}]
    scenario: Scenario | None = None

    @model_validator(mode="after")
    def _one_against_one(self) -> "RunConfig":
        if self.scenario and self.scenario.plain.dataset:
            tested = [name for name in self.datasets if name != self.scenario.plain.dataset]
            if len(tested) != 1:
                raise ValueError(f"scenario '{self.scenario.name}' holds one dataset against another: found {tested}")
        return self

    def trained_on(self) -> dict[Condition | None, list[str]]:
        """The sets to train on at each condition of the scenario, the plain one first; at None where that is the same
        for all.
        """
        scenario = self.scenario
        if scenario is None or scenario.plain.dataset:
            return {None: self.pretraining}
        found: dict[Condition | None, list[str]] = {scenario.plain.condition: scenario.plain.pretraining}
        asked: list[Condition] = [*scenario.conditions] or [scenario.condition]
        for condition in asked:
            own = condition == scenario.condition
            sets = [name if own else f"{name}@{scenario.setting}={condition}" for name in self.pretraining]
            found.setdefault(condition, sets)
        return found

    def at(self, point: Mapping[str, Any], option: str = "") -> "RunConfig":
        """This configuration with the settings of a point over it. Raises ``BenchError`` for values out of range, which
        names the command line's ``option`` that the point comes from.
        """
        content = self.model_dump(exclude={"grid"})
        for name, value in point.items():
            section, _, key = name.partition(".")
            _set(content, section, key, value)
        given = {name: f"{option} {name}={value}".strip() for name, value in point.items()}
        where = ", ".join(given.values())
        return validated(RunConfig, content | {"overrides": self.overrides | dict(point)}, where, given)


def _set(content: dict[str, Any], section: str, key: str, value: Any) -> None:
    """Set ``section.key`` in a run's content; section: training, evaluation, model, a method's or a task's name."""
    if section == "model":
        content["model_options"] = content.get("model_options", {}) | {key: value}
    elif section in SECTIONS:
        part = content.get(section, {})
        if section == "training" and key in BUDGETS:
            part = {k: v for k, v in part.items() if k not in BUDGETS}
        content[section] = part | {key: value}
    else:
        options = content.get("options", {})
        content["options"] = options | {section: options.get(section, {}) | {key: value}}


SECTIONS: dict[str, type[BaseModel]] = {"training": Training, "evaluation": Evaluating}


def validated(
    model: type[BaseModel], content: Mapping[str, Any], where: str, options: Mapping[str, str] | None = None
) -> Any:
    """``content`` as a ``model``, or a ``BenchError`` that names the first wrong key, what was found and what was
    expected. options: the keys that the command line gave, and the option that gave each: it is named in place of
    ``where``.
    """
    try:
        return model.model_validate(dict(content))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            fields = _fields_at(model, first["loc"][:-1])
            raise BenchError(f"{where}: {unknown('key', str(first['loc'][-1]), fields)}") from error
        option = next((option for name, option in (options or {}).items() if f"{key}.".startswith(f"{name}.")), "")
        raise BenchError(f"{option or where}: {reason(first, key or model.__name__)}") from error


def reason(error: ErrorDetails, key: str) -> str:
    """Why pydantic refuses the value of a key: what was found and what was expected, of choices the nearest."""
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        return str(unknown(key, error["input"], re.findall(r"'(.*?)'", error["ctx"]["expected"])))
    found = "" if error["type"] == "missing" else f", found {error['input']!r}"
    return f"{key}: {error['msg']}{found}"


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> Iterable[str]:
    fields: Any = model
    for part in location:
        annotation = fields.model_fields[part].annotation if part in getattr(fields, "model_fields", {}) else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            fields = annotation
    return fields.model_fields
