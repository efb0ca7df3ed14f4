"""The schema of a run's configuration: what a suite may say, and how the command line sets it."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field, PositiveInt, ValidationInfo, field_validator, model_validator

from benchmark.config.claims import Claim
from benchmark.config.training import BUDGETS, Evaluating, Training, with_settings
from benchmark.config.validation import Name, Strict, validated

Condition = int | float | str
"""A share (0..1), a count, or a name."""


class Plain(Strict):
    """The plain condition of a scenario, without its difficulty, which methods are compared with.

    condition: its value of what the scenario varies. Exactly one thing differs from the suite: pretraining, the sets to
    train on in place of the suite's, or dataset, a set to test on in addition to the suite's.
    """

    condition: Condition
    pretraining: list[str] = []
    dataset: str | None = None

    @model_validator(mode="after")
    def _one_difference(self) -> "Plain":
        if bool(self.pretraining) == bool(self.dataset):
            number = "both" if self.dataset else "neither"
            raise ValueError(f"set exactly one of pretraining and dataset, so that one thing differs; found {number}")
        return self


class Scenario(Strict):
    """What a suite makes difficult. Every method also runs at ``plain`` and is compared with itself there.

    name: scenarios of the same name share a table, with one line per condition. question: what the scenario asks.
    varies: the quantity that the conditions are values of. condition: that of the suite's own data.
    setting: the key that sets other conditions, in the source of the cards that differ; empty: they cannot be set.
    conditions: those to run besides the plain one; empty: the suite's own.
    """

    name: str
    question: str
    varies: str
    condition: Condition
    plain: Plain
    setting: str = ""
    conditions: list[int | float] = []

    @field_validator("conditions")
    @classmethod
    def _can_be_set(cls, value: list[int | float], info: ValidationInfo) -> list[int | float]:
        if value and not info.data.get("setting"):
            raise ValueError("scenario '{name}' is at '{condition}' and takes no value".format(**info.data))
        return value


class Arm(Strict):
    """What a study compares: a method with options and a recipe of its own.

    method: the registered method; null: the one of the arm's name. options: of the method, over the suite's options of
    it. training: settings over the suite's; a budget replaces the suite's. stages: settings by stage of the method,
    over the arm's.
    """

    method: str | None = None
    options: dict[str, Any] = {}
    training: dict[str, Any] = {}
    stages: dict[str, dict[str, Any]] = {}

    @property
    def departures(self) -> dict[str, Any]:
        """What differs from the suite's settings, by the names that --set uses."""
        stages = {f"stages.{stage}.{key}": value for stage, part in self.stages.items() for key, value in part.items()}
        return {**self.options, **{f"training.{key}": value for key, value in self.training.items()}, **stages}


@dataclass(frozen=True)
class ResolvedArm:
    """An arm with the suite's settings filled in. options: those that the suite and the arm set, without defaults."""

    name: str
    method: str
    options: dict[str, Any]
    training: Training


class CardTexts(Strict):
    """What a suite says of a dataset's classes in place of the dataset's card. The keys are those of a card."""

    prompts: dict[str, list[str]] | list[str] | None = None
    negative_prompts: dict[str, list[str]] | list[str] | None = None
    class_texts: dict[str, str] | None = None


class RunConfig(Strict):
    """What `bench run` runs: arms x seeds pretrained on ``pretraining``, evaluated by ``tasks`` on ``datasets``.

    methods: the names of the arms to run; ``all``: every arm of the suite, and every method without an arm of its name.
    arms: the arms with an entry, by name. An arm without one is the method of its name at the suite's settings.
    validation: the sets of ``pretraining`` whose validation split gives the validation loss; empty: all of them.
    cards: by the names of shipped datasets, prompts and texts of classes in place of those of their cards.
    gpus_per_cell: how many GPUs, or processes on the CPU, train a cell together; part of no key.
    strict: whether a dataset of the suite that is missing on this machine is an error; otherwise it is left out.
    required: those that must be there in any case, because the command line names them.
    baselines: whether to evaluate the initial weights, the untrained model and raw pixels too.
    options: the parameters of methods and tasks, by their names.
    overrides: what the command line sets over the suite; part of a result's label, not of its computation.
    tuned: the folder of the settings that `bench tune` found for each arm; null: none.
    grid: the points at which everything is run, settings by ``section.key`` and ``pretraining``; a point is part of the
    label.
    scenario: the one that the suite is made for, if any.
    claims: what papers say comes out, by name; part of no key.
    """

    suite: Name = "custom"
    description: str = ""
    model: str = "tiny"
    model_options: dict[str, Any] = {}
    pretraining: list[str]
    validation: list[str] = []
    datasets: list[str]
    cards: dict[str, CardTexts] = {}
    methods: list[str]
    arms: dict[Name, Arm] = {}
    tasks: list[str] = ["all"]
    seeds: list[int] = Field(default=[0], min_length=1)
    training: Training
    evaluation: Evaluating = Evaluating()
    baselines: bool = True
    options: dict[str, dict[str, Any]] = {}
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    gpus_per_cell: PositiveInt = 1
    on_bad_data: Literal["error", "skip"] = "error"
    strict: bool = False
    required: list[str] = []
    overrides: dict[str, Any] = {}
    tuned: str | None = None
    grid: list[dict[str, Any]] = [{}]
    scenario: Scenario | None = None
    claims: dict[str, Claim] = {}

    @field_validator("seeds")
    @classmethod
    def _different(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value):
            raise ValueError(f"{value} has a seed twice")
        return value

    @field_validator("arms")
    @classmethod
    def _named(cls, value: dict[str, Arm]) -> dict[str, Arm]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ValueError(f"'{name}' is no name for an arm: expected letters, digits, - and _, as in flip-75")
            if name in ("all", "model", "pretraining", *SECTIONS):
                raise ValueError(f"an arm cannot be named '{name}': the command line uses that word otherwise")
        return value

    @model_validator(mode="after")
    def _arms_are_valid(self) -> "RunConfig":
        for name in self.arms:
            self.arm(name)
        return self

    @model_validator(mode="after")
    def _one_against_one(self) -> "RunConfig":
        if self.scenario and self.scenario.plain.dataset:
            tested = [name for name in self.datasets if name != self.scenario.plain.dataset]
            if len({name.partition("@")[0] for name in tested}) != 1:
                raise ValueError(f"scenario '{self.scenario.name}' compares one dataset with another: found {tested}")
        return self

    def arm(self, name: str) -> ResolvedArm:
        """Return an arm with the suite's settings filled in; without an entry, the method of its name.

        Raises ``BenchError`` for a training setting that is unknown, of the wrong type or out of range.
        """
        arm = self.arms.get(name, Arm())
        method = arm.method or name
        training = self.training
        if arm.training or arm.stages:
            settings = training.model_dump()
            settings = with_settings(settings, arm.training)
            if arm.stages:
                stages = settings.get("stages", {})
                settings["stages"] = stages | {name: stages.get(name, {}) | part for name, part in arm.stages.items()}
            training = validated(Training, settings, f"suite {self.suite}, arm '{name}', training")
        return ResolvedArm(name, method, self.options.get(method, {}) | arm.options, training)

    def trained_on(self) -> dict[Condition | None, list[str]]:
        """Return the sets to train on at each condition of the scenario, the plain one first.

        The key is None where all conditions train on the same.
        """
        scenario = self.scenario
        if scenario is None or scenario.plain.dataset:
            return {None: self.pretraining}
        sets_at: dict[Condition | None, list[str]] = {scenario.plain.condition: scenario.plain.pretraining}
        conditions: list[Condition] = [*scenario.conditions] or [scenario.condition]
        for condition in conditions:
            own = condition == scenario.condition
            sets = [name if own else f"{name}@{scenario.setting}={condition}" for name in self.pretraining]
            sets_at.setdefault(condition, sets)
        return sets_at

    def tested_on(self) -> dict[Condition, str]:
        """Return the set to test on at each condition of the scenario, the plain one first.

        Empty where all conditions are tested on the same.
        """
        scenario = self.scenario
        if scenario is None or not scenario.plain.dataset:
            return {}
        own = next(name for name in self.datasets if name != scenario.plain.dataset)
        set_at: dict[Condition, str] = {scenario.plain.condition: scenario.plain.dataset}
        conditions: list[Condition] = [*scenario.conditions] or [scenario.condition]
        for condition in conditions:
            name = own if condition == scenario.condition else f"{own}@{scenario.setting}={condition}"
            set_at.setdefault(condition, name)
        return set_at

    def at(self, point: Mapping[str, Any], option: str = "") -> "RunConfig":
        """Return this configuration with the settings of a point over it.

        option: the command line's option that the point comes from. Raises ``BenchError``, which names it, for values
        out of range.
        """
        fields = self.model_dump(exclude={"grid"})
        for name, value in point.items():
            section, _, key = name.partition(".")
            if name == "pretraining":
                fields[name] = value.split("+")
            else:
                set_key(fields, section, key, value)
        options = {name: f"{option} {name}={value}".strip() for name, value in point.items()}
        where = ", ".join(options.values())
        return validated(RunConfig, fields | {"overrides": self.overrides | dict(point)}, where, options)


def set_key(fields: dict[str, Any], section: str, key: str, value: Any) -> None:
    """Set ``section.key`` of a run; section: training, evaluation, model, or the name of an arm, a method or a task.

    A setting of the training holds for all arms, and an option of a method for all arms of the method: it replaces what
    their entries say. Where an arm has the name of its method, ``section.key`` sets that arm alone.
    """
    arms: dict[str, dict[str, Any]] = fields.get("arms") or {}
    part, _, setting = key.partition(".")
    if section == "model":
        fields["model_options"] = fields.get("model_options", {}) | {key: value}
    elif section in SECTIONS:
        if section == "training":
            fields[section] = with_settings(fields.get(section, {}), {key: value})
            replaced = {key, *(BUDGETS if key in BUDGETS else ())}
            fields["arms"] = {name: _without(arm, "training", replaced) for name, arm in arms.items()}
        else:
            fields[section] = fields.get(section, {}) | {key: value}
    elif part in ("training", "stages") and setting:
        fields["arms"] = arms | {section: _with(arms.get(section), key, value)}
    elif section in arms:
        fields["arms"] = arms | {section: _with(arms[section], f"options.{key}", value)}
    else:
        options = fields.get("options", {})
        fields["options"] = options | {section: options.get(section, {}) | {key: value}}
        fields["arms"] = {
            name: _without(arm, "options", {key}) if isinstance(arm, Mapping) and arm.get("method") == section else arm
            for name, arm in arms.items()
        }


def _with(arm: Mapping[str, Any] | None, path: str, value: Any) -> dict[str, Any]:
    """Return an arm's entry with the value at a path of keys, such as ``stages.prompt.learning_rate``."""
    key, _, rest = path.partition(".")
    part = dict(arm or {})
    if key == "training" and rest:
        part[key] = with_settings(part.get(key) or {}, {rest: value})
    else:
        part[key] = _with(part.get(key), rest, value) if rest else value
    return part


def _without(arm: Any, part: str, keys: Collection[str]) -> Any:
    """Return an arm's entry without some keys of a part; an entry that is no mapping as it is, for the validation."""
    if not isinstance(arm, Mapping) or not isinstance(arm.get(part), Mapping):
        return arm
    return {**arm, part: {key: value for key, value in arm[part].items() if key not in keys}}


SECTIONS: dict[str, type[BaseModel]] = {"training": Training, "evaluation": Evaluating}
