"""Types of settings with a range, in addition to pydantic's own (PositiveInt, NonNegativeFloat, ...)."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat

Share = Annotated[float, Field(ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    low, high = value
    if low > high:
        raise ValueError(f"{low} is above {high}")
    return value


Interval = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_ordered)]
"""From low to high, both above 0."""
CropScale = Annotated[
    tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]], AfterValidator(_ordered)
]
"""Smallest and largest share of a picture's area that a random crop keeps."""
SameText = Literal["negative", "ignore", "positive"]
"""What other pairs with the text of a pair are to it in a contrastive loss between images and texts."""
