"""What a suite's ``claims:`` state: what a paper says comes out, in terms of arms, tasks and metrics."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

CostColumn = Literal[
    "parameters",
    "parameters_trainable",
    "parameters_image",
    "parameters_image_trainable",
    "parameters_text",
    "parameters_text_trainable",
    "flops_per_sample",
    "seconds",
    "peak_memory",
]
"""The columns of the costs that claims can be about. All but the last two are counts, the same for every seed."""


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1)]
"""A list of names, or one alone."""


Side = tuple[str, str]
"""An arm and its model; "" for the model of the results."""


def _sides(a: str, b: list[str], b_model: str) -> dict[str, Side]:
    if a in b and not b_model:
        raise ValueError("a and b are the same arm")
    return {a: (a, "")} | {(f"{arm} on {b_model}" if b_model else arm): (arm, b_model) for arm in b}


class Stated(BaseModel):
    """What every claim says of itself.

    text: the claim in words. source: where it is stated; for what the source leaves open, who decided it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str = Field(min_length=1)
    source: str = Field(min_length=1)

    @property
    def sides(self) -> dict[str, Side]:
        """What is compared, ``a`` first, by what it is called."""
        raise NotImplementedError

    @property
    def arms(self) -> list[str]:
        """The arms that the claim is about, ``a`` first."""
        return [arm for arm, _ in self.sides.values()]

    @property
    def models(self) -> set[str]:
        """The models that the claim states."""
        return {model for _, model in self.sides.values() if model}


class Scored(Stated):
    """A claim about scores: the mean over the tasks of the mean over the datasets of each.

    a: the arm that it is about. metric: default the main one of each task. part: such as image_to_text; default the
    mean over the parts. datasets: default all that the suite has results on.
    """

    a: str
    tasks: Names
    metric: str | None = None
    part: str | None = None
    datasets: list[str] = []


class Gain(Scored):
    """``a`` scores higher than ``b``, or than each of several.

    at_least: the points of a percent by which it does; 0: higher at all. at_most: where the stated range ends, if it
    does. A larger gain does not contradict the claim. b_model: the model of ``b``, where it is not that of ``a``.
    """

    kind: Literal["gain"]
    b: Names
    b_model: str = ""
    at_least: float = Field(default=0.0, ge=0)
    at_most: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self.at_most is not None and self.at_most < self.at_least:
            raise ValueError(f"at_most: expected at_least ({self.at_least:g}) or more, found {self.at_most:g}")
        if self.at_least and len(self.b) > 1:
            raise ValueError("at_least needs a single b")
        assert self.sides
        return self

    @property
    def sides(self) -> dict[str, Side]:
        """The arms, and the model of ``b`` if it is stated."""
        return _sides(self.a, self.b, self.b_model)


class NoGain(Scored):
    """``a`` does not score higher than ``b``.

    margin: the points of a percent from which on it would count as higher. b_model: as of a gain.
    """

    kind: Literal["no_gain"]
    b: str
    b_model: str = ""
    margin: float = Field(ge=0)

    @model_validator(mode="after")
    def _two_sides(self) -> Self:
        assert self.sides
        return self

    @property
    def sides(self) -> dict[str, Side]:
        """The arms, and the model of ``b`` if it is stated."""
        return _sides(self.a, [self.b], self.b_model)


class Level(Scored):
    """``a`` scores above a level, in percent."""

    kind: Literal["level"]
    above: float

    @property
    def sides(self) -> dict[str, Side]:
        """The arm that the claim is about."""
        return {self.a: (self.a, "")}


class Cost(Stated):
    """``a`` costs at most so many percent of ``b``, in a column of the costs.

    b_model: as of a gain.
    """

    kind: Literal["cost"]
    a: str
    b: str
    b_model: str = ""
    column: CostColumn
    at_most: float = Field(gt=0)

    @model_validator(mode="after")
    def _two_sides(self) -> Self:
        assert self.sides
        return self

    @property
    def sides(self) -> dict[str, Side]:
        """The arms, and the model of ``b`` if it is stated."""
        return _sides(self.a, [self.b], self.b_model)

    @property
    def is_count(self) -> bool:
        """Whether the column is a count, which is the same for every seed."""
        return self.column not in ("seconds", "peak_memory")


Claim = Annotated[Gain | NoGain | Level | Cost, Field(discriminator="kind")]


class Claims(BaseModel):
    """The claims of a suite by their names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    claims: dict[str, Claim] = {}
