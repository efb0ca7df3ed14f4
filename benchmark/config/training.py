"""The schema of a training and its evaluation: type, range and default of every setting."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, ValidationError, field_validator, model_validator

from benchmark.common.ranges import SameText
from benchmark.config.augmentation import Augmentation
from benchmark.config.validation import Strict, key_of, reason, unknown_in

BUDGETS = ("samples", "epochs", "steps", "time", "flops")

DEFAULT_MICRO_BATCH = 128

AVERAGE = "-average"
"""The end of the name of a checkpoint with the moving average of the weights, beside that with the weights."""


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
    batch_size: the effective batch, the pairs of one optimiser step. micro_batch: pairs in memory at once, or ``auto``:
    as many as fit on the machine, at best the whole batch in one graph. ``auto`` is for ``cached`` and ``keyed``, whose
    result depends on the division by rounding alone; where the draws of dropout or batch normalisation depend on it
    too, it is the default. Not with a budget in flops, as their number depends on the division.
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
    compile: whether the blocks of the towers are compiled (torch.compile, each block by itself); texts are then padded
    to one of four lengths, as compiled code is of one shape. Weights change by rounding.
    cache_frozen: whether the outputs of frozen first layers of a tower are computed once per pair and kept in the
    cache, for later trainings too (``benchmark/training/frozen.py``), where they depend on the pair alone: not behind
    random augmentation or dropout, and not with ``compile`` or ``gradient_checkpointing``. Weights change by rounding,
    so it is part of what is trained.
    validations: number of times that the validation loss is computed, evenly spaced, the last at the end.
    checkpoint_every: seconds between the checkpoints from which an interrupted training resumes.
    average: decay of an exponential moving average of the trained weights, kept beside every checkpoint; null: none.
    It reaches back about 1 / (1 - average) steps. ``evaluation.weights`` says whether it is evaluated.
    stages: for a method that trains in stages, the settings of ``Recipe`` in which a stage differs, by its name. Each
    stage has an optimiser and a schedule of its own.
    """

    hints: ClassVar[dict[str, str]] = {"budget": f"expected one of {', '.join(BUDGETS)}, as in samples: 200000"}

    samples: PositiveInt | None = None
    epochs: float | None = Field(default=None, gt=0)
    steps: PositiveInt | None = None
    time: float | None = Field(default=None, gt=0)
    flops: float | None = Field(default=None, gt=0)
    batch_size: PositiveInt = 128
    micro_batch: PositiveInt | Literal["auto"] = DEFAULT_MICRO_BATCH
    accumulation: Literal["auto", "plain", "cached", "keyed"] = "auto"
    mixture: float = Field(default=1.0, ge=0, le=1)
    resolution: PositiveInt | None = None
    keep_ratio: bool = False
    same_text: SameText = "negative"
    label_smoothing: float = Field(default=0.0, ge=0, le=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False
    cache_frozen: bool = False
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

    @field_validator("micro_batch", mode="before")
    @classmethod
    def _number_or_auto(cls, value: Any) -> Any:
        with suppress(ValueError, TypeError):
            if value == "auto" or (not isinstance(value, bool) and float(value) == int(value) > 0):
                return value
        raise ValueError("expected a number of pairs, at least 1, or auto")

    @model_validator(mode="after")
    def _flops_need_a_number(self) -> Self:
        if self.micro_batch == "auto" and self.flops is not None:
            raise ValueError(
                "micro_batch is auto, but how many steps a budget in flops allows depends on it: set a number"
            )
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
                where = ".".join(filter(None, (section, key_of(first))))
                raise ValueError(unknown_in(Recipe, first, section) if wrong else reason(first, where)) from error
        return self

    @property
    def micro_batch_size(self) -> int:
        """The pairs of a micro-batch, at most those of the batch; all of them with ``auto``, as far as they fit."""
        return self.batch_size if self.micro_batch == "auto" else min(self.micro_batch, self.batch_size)

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


def with_settings(training: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return training settings with others over them; a budget replaces a budget of any kind."""
    kept = dict(training)
    if any(kind in settings for kind in BUDGETS):
        kept = {key: value for key, value in kept.items() if key not in BUDGETS}
    return kept | dict(settings)
