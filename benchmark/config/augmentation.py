"""The settings of random augmentation. ``benchmark.data.transforms`` applies them."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from benchmark.common.ranges import CropScale, Interval, Share


class Augmentation(BaseModel):
    """What ``augment()`` draws, each uniform in its range and independent of the others.

    crop_scale: share of the picture's area that is kept, in (0, 1]; crop_ratio: width / height of the crop, as of
    torchvision's RandomResizedCrop. crop: instead of these two, the side of a square crop in pixels of the prepared
    image, at a whole number of pixels from its left and its top, as of torchvision's RandomCrop; null: none.
    flip: probability of a mirror image. 0 by default: left and right are findings in medicine.
    brightness, contrast, saturation: v multiplies by a factor in [1 - v, 1 + v]; contrast is about the mean of the
    whole picture, saturation about each pixel's grey value (ITU-R 601). hue: a rotation of the colours about grey, in
    YIQ, by up to this share of the circle either way. jittered: probability that any of these four acts.
    grey: probability that colour is removed. blur: probability of a Gaussian blur with a standard deviation of
    0.1 to 2 pixels at 224 pixels a side, in proportion at others (the range of SimCLR and MoCo v2).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    crop_scale: CropScale = (0.8, 1.0)
    crop_ratio: Interval = (0.9, 1.1)
    crop: PositiveInt | None = None
    flip: Share = 0.0
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    jittered: Share = 1.0
    grey: Share = 0.0
    blur: Share = 0.0

    @classmethod
    def none(cls) -> Self:
        """Return the augmentation that does not change an image."""
        return cls(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))
