"""The schema of a run's configuration: type, range and default of every setting."""

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

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

from benchmark.common.errors import BenchError, cut, shortened, unknown
from benchmark.common.ranges import SameText
from benchmark.config.augmentation import Augmentation
from benchmark.config.claims import Claim

BUDGETS = ("samples", "epochs", "steps", "time", "flops")

AVERAGE = "-average"
"""The end of the name of a checkpoint with the moving average of the weights, beside that with the weights."""

M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """A part of the configuration: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Steps(Strict):
    """A number of steps."""

    steps: PositiveInt


class Rates(Strict):
    """Factors of the learning rate, by what is trained.

    image, text: a tower without its projection. heads: everything else (projections, temperature, decoders).
    """

    image: float = Field(default=1.0, gt=0)
    text: float = Field(default=1.0, gt=0)
    heads: float = Field(default=1.0, gt=0)


class Recipe(Strict):
    """The optimiser and its schedule, which a stage of a method may have of its own.

    optimizer: ``adamw``; ``sgd``, with ``momentum`` and weight decay added to the gradient (torch); ``lion`` (Chen et
    al. 2023, arXiv 2302.06675; timm). betas: of adamw and lion; epsilon: of adamw.
    rates: factors of the learning rate by tower. layer_decay: a further factor for each layer of a tower, to the power
    of its depth below the projection: 1 for the last layer, as in BEiT and MAE (timm); 1 treats all layers alike.
    warmup: the steps over which the learning rate rises from 0, a share of all steps or ``{steps: n}``; then it falls
    along a cosine to minimum_rate.
    gradient_clip: largest norm of the gradient; 0 does not clip.
    """

    optimizer: Literal["adamw", "sgd", "lion"] = "adamw"
    learning_rate: float = Field(default=5e-4, gt=0)
    minimum_rate: float = Field(default=0.0, ge=0)
    rates: Rates = Rates()
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    weight_decay: float = Field(default=0.1, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = Field(default=1e-6, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    warmup: float | Steps = 0.1
    gradient_clip: float = Field(default=1.0, ge=0)

    @field_validator("warmup", mode="before")
    @classmethod
    def _share_or_steps(cls, value: Any) -> Any:
        with suppress(ValueError, TypeError):
            if 0 <= float(value) <= 1:
                return value
        steps = value.get("steps") if isinstance(value, Mapping) and len(value) == 1 else None
        if isinstance(value, Steps) or (isinstance(steps, int) and steps > 0):
            return value
        raise ValueError("expected a share of the steps from 0 to 1, or {steps: n}")

    @model_validator(mode="after")
    def _falls(self) -> Self:
        if self.minimum_rate > self.learning_rate:
            raise ValueError(
                f"minimum_rate is {self.minimum_rate:g}, above the learning_rate {self.learning_rate:g} "
                "that falls to it"
            )
        return self


class Training(Recipe):
    """How one cell is trained.

    The budget is exactly one of: samples, pairs seen over the training; epochs, passes over the data; steps of the
    optimiser; time, seconds of training on this machine, converted to steps by timing a few before the first; flops,
    floating-point operations, converted to steps by what a step of the method takes.
    batch_size: the effective batch, the pairs of one optimiser step. micro_batch: pairs in memory at once.
    accumulation: ``auto`` is the method's own default.
    mixture: with several sets to pretrain on, a set's share of the pairs is proportional to its size to this power. 1:
    by size, 0: equal, between them a temperature of 1 / mixture.
    resolution: pixels a side at which images are prepared, before cropping; null: the model's image size.
    keep_ratio: whether images to train on keep the ratio of their sides: the short one has ``resolution`` pixels, and
    crops are taken anywhere in the picture. Otherwise, and always for validation, they are made square as the model
    expects. A side longer than 4 times the other is cropped to its middle.
    same_text: what other pairs with the text of a pair are to it in a contrastive loss between images and texts:
    ``negative``, wrong candidates, as in the papers; ``ignore``, no candidates; ``positive``, right candidates, which
    share the target. Identical texts have the same characters, as in retrieval, which counts them as right. Where they
    are embedded alike, a softmax over a batch has the same value with ``positive`` as with ``negative``.
    label_smoothing: the share e of the target of every softmax loss that is spread evenly over all candidates:
    (1 - e) target + e / m. Validation losses are without it.
    precision: ``auto`` is bf16 autocast on a CUDA device that supports it, fp32 elsewhere.
    validations: number of times that the validation loss is computed, evenly spaced, the last at the end.
    checkpoint_every: seconds between the checkpoints from which an interrupted training resumes.
    average: decay of an exponential moving average of the trained weights, kept beside every checkpoint; null: none.
    It reaches back about 1 / (1 - average) steps. ``evaluation.weights`` says whether it is evaluated.
    stages: for a method that trains in stages, the settings of ``Recipe`` in which a stage differs, by its name. Each
    stage has an optimiser and a schedule of its own.
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
    keep_ratio: bool = False
    same_text: SameText = "negative"
    label_smoothing: float = Field(default=0.0, ge=0, le=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False
    augmentation: Augmentation = Augmentation()
    validations: int = Field(default=5, ge=0)
    checkpoint_every: float = Field(default=60.0, ge=0)
    average: float | None = Field(default=None, gt=0, lt=1)
    stages: dict[str, dict[str, Any]] = {}

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        kinds = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError(f"set exactly one of {', '.join(BUDGETS)}; found {', '.join(kinds) or 'none'}")
        return self

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        crop = self.augmentation.crop
        if crop and self.resolution and crop > self.resolution:
            raise ValueError(f"augmentation.crop is {crop}, more than the {self.resolution} pixels of resolution")
        return self

    @model_validator(mode="after")
    def _stages_are_recipes(self) -> Self:
        for stage, settings in self.stages.items():
            section = f"stages.{stage}"
            for key in settings:
                if key in Training.model_fields and key not in Recipe.model_fields:
                    names = ", ".join(Recipe.model_fields)
                    raise ValueError(f"{section}.{key}: all stages share it; a stage can set {names}")
            try:
                self._recipe(stage)
            except ValidationError as error:
                first = error.errors()[0]
                wrong = first["type"] == "extra_forbidden"
                where = ".".join(filter(None, (section, _key_of(first))))
                raise ValueError(_unknown_in(Recipe, first, section) if wrong else reason(first, where)) from error
        return self

    @property
    def budget(self) -> tuple[str, float]:
        """Kind and amount of the budget."""
        return next((name, getattr(self, name)) for name in BUDGETS if getattr(self, name) is not None)

    def at_stage(self, name: str) -> "Training":
        """Return the settings of a stage: these, and over them those of ``stages`` under its name, if any."""
        return self.model_copy(update={**dict(self._recipe(name)), "stages": {}})

    def _recipe(self, stage: str) -> Recipe:
        return Recipe.model_validate(self.model_dump(include=set(Recipe.model_fields)) | self.stages.get(stage, {}))


class Evaluating(Strict):
    """How checkpoints are evaluated.

    checkpoint: ``last``, or ``best`` by the validation loss, which is always that of the trained weights.
    weights: ``trained``, or ``average``, the moving average at that checkpoint, for trainings that keep one
    (``training.average``); others are evaluated with their trained weights.
    at: the shares of a training at which its weights are kept and evaluated besides its end, where ``checkpoint``
    applies. They are part of what is trained: with other shares, it is trained again.
    batch_size: images or texts encoded at once. resamples: bootstrap resamples behind each 95 % interval.
    """

    checkpoint: Literal["last", "best"] = "last"
    weights: Literal["trained", "average"] = "trained"
    at: list[Annotated[float, Field(gt=0, le=1)]] = []
    batch_size: PositiveInt = 256
    resamples: PositiveInt = 1000

    @property
    def shares(self) -> list[float]:
        """The shares in ``at`` before the end, in order."""
        return sorted({share for share in self.at if share < 1})

    def source(self, at: float = 1.0) -> str:
        """Name the checkpoint to evaluate after a share of the training: ``at-0.25``, ``last-average``."""
        name = self.checkpoint if at == 1 else checkpoint_at(at)
        return name + AVERAGE if self.weights == "average" else name


def checkpoint_at(share: float) -> str:
    """Return the name of the checkpoint that is kept after a share of the training."""
    return f"at-{share:g}"


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
    setting: the key that sets other conditions, in the source of the cards to train on; empty: they cannot be set.
    conditions: those to run besides the plain one; empty: the suite's own.
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

    suite: str = "custom"
    description: str = ""
    model: str = "tiny"
    model_options: dict[str, Any] = {}
    pretraining: list[str]
    validation: list[str] = []
    datasets: list[str]
    cards: dict[str, CardTexts] = {}
    methods: list[str]
    arms: dict[str, Arm] = {}
    tasks: list[str] = ["all"]
    seeds: list[int] = Field(default=[0], min_length=1)
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
            if len(tested) != 1:
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


def with_settings(training: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return training settings with others over them; a budget replaces a budget of any kind."""
    kept = dict(training)
    if any(kind in settings for kind in BUDGETS):
        kept = {key: value for key, value in kept.items() if key not in BUDGETS}
    return kept | dict(settings)


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


EXPECTED = {
    "int_type": "expected an integer",
    "int_parsing": "expected an integer",
    "int_from_float": "expected an integer",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "string_type": "expected a text",
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "dict_type": "expected a mapping of keys to values",
    "model_type": "expected a mapping of keys to values",
    "model_attributes_type": "expected a mapping of keys to values",
    "path_type": "expected a path",
}
"""What was expected, by pydantic's type of error."""


def validated(model: type[M], fields: Mapping[str, Any], where: str, options: Mapping[str, str] | None = None) -> M:
    """Validate ``fields`` as a ``model``.

    where: the file, for messages. options: the keys that the command line sets, each with the option that sets it,
    which a message then names in place of ``where``. Raises ``BenchError`` naming the first wrong key, what was found
    and what was expected.
    """
    try:
        return model.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors()[0]
        key = _key_of(first)
        if first["type"] == "extra_forbidden":
            raise BenchError(f"{where}: {_unknown_in(model, first)}") from error
        option = next((option for name, option in (options or {}).items() if f"{key}.".startswith(f"{name}.")), "")
        if first["type"] == "literal_error" and option == f"--{key.replace('_', '-')}":
            raise BenchError(reason(first, f"value of {option}")) from error
        problem = reason(first, key or model.__name__)
        # The reason of a check of the whole block names the key itself.
        raise BenchError(
            f"{option or where}: {problem if key else problem.removeprefix(f'{model.__name__}: ')}"
        ) from error


def reason(error: ErrorDetails, key: str) -> str:
    """Explain why pydantic rejects the value of a key: what was found, what was expected, and the nearest choice."""
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        return str(unknown(key, error["input"], re.findall(r"'(.*?)'", error["ctx"]["expected"])))
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "union_tag_invalid":
        return str(
            unknown(f"kind of {key}", error["ctx"]["tag"], re.findall(r"'(.*?)'", error["ctx"]["expected_tags"]))
        )
    if error["type"] == "union_tag_not_found" and isinstance(error["input"], Mapping):
        return f"{key}.kind is missing"
    message = EXPECTED.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    message = re.sub("^Input should be (?=greater|less)", "expected a number ", message)
    message = re.sub("^Input should be ", "expected ", message)
    # A message about a whole block names the value that is wrong.
    block = error["type"] == "value_error" and isinstance(error["input"], Mapping | list)
    return f"{key}: {message}" + ("" if block else f", found {shortened(error['input'])}")


def _key_of(error: ErrorDetails) -> str:
    return cut(".".join(str(part) for part in error["loc"]))


def _unknown_in(model: type[BaseModel], error: ErrorDetails, outer: str = "") -> BenchError:
    """Make the error for an unknown key in a model. outer: where the model itself is; "" for a whole file."""
    block, section = _block_at(model, error["loc"][:-1])
    return unknown_key(block, ".".join(filter(None, (outer, section))), str(error["loc"][-1]))


def unknown_key(block: type[BaseModel], section: str, key: str) -> BenchError:
    """Make the error for a key that a block does not have. section: where the block is; "" for a whole file."""
    of = f"key of {section}" if section else "key"
    if block is Training and key == "budget":
        return BenchError(f"unknown {of} 'budget'; expected one of {', '.join(BUDGETS)}, as in samples: 200000")
    return unknown(of, key, block.model_fields)


def _block_at(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[type[BaseModel], str]:
    """Return the block at a location, and its section: the names of the keys that lead to it.

    In a union of blocks, the location names the ``kind`` of one of them.
    """
    blocks, section = [model], []
    for part in location:
        if len(blocks) > 1:
            of_kind = [block for block in blocks if part in get_args(block.model_fields["kind"].annotation)]
            section += [] if of_kind else [str(part)]
            blocks = of_kind or blocks
        elif part in blocks[0].model_fields:
            section.append(str(part))
            blocks = _blocks_in(blocks[0].model_fields[str(part)].annotation) or blocks
        elif isinstance(part, str):
            # The key of a mapping of blocks, such as an arm's name.
            section.append(part)
    return blocks[0], ".".join(section)


def _blocks_in(annotation: Any) -> list[type[BaseModel]]:
    """List the blocks in a type: itself, or those in its union, its mapping or its list."""
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [block for part in get_args(annotation) for block in _blocks_in(part)]
