"""Make images of any shape square, to the pixel as the libraries do that models come from."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Resizing:
    """How an encoder expects its images to be resized. The defaults are CLIP's (Radford et al. 2021).

    mode: ``shortest`` resizes the short side and crops the long one to its middle; ``longest`` resizes the long side
        and pads the short one; ``squash`` resizes both sides, which changes the shape.
    interpolation: a filter of Pillow, antialiased: nearest, box, bilinear, hamming, bicubic or lanczos.
    crop: the share of the resized side that is kept, from its middle (timm's crop_pct).
    fill: the RGB colour of the padding, each 0..255.
    odd: how many pixels to crop at the left or top if the total is odd: half of it rounded to ``even`` (torchvision,
        so open_clip and timm), or rounded ``down`` (transformers).
    """

    mode: Literal["shortest", "longest", "squash"] = "shortest"
    interpolation: str = "bicubic"
    crop: float = 1.0
    fill: tuple[int, int, int] = (0, 0, 0)
    odd: Literal["even", "down"] = "even"

    def sides(self, width: int, height: int, size: int) -> tuple[int, int]:
        """Width and height that an image is resized to, before it is cropped or padded to ``size``."""
        edge = round(size / self.crop)
        if self.mode == "squash":
            return edge, edge
        if self.mode == "longest":  # rounded, as in the ResizeKeepRatio of open_clip and timm
            ratio = max(width, height) / edge
            return max(1, round(width / ratio)), max(1, round(height / ratio))
        short = min(width, height)
        return int(edge * width / short), int(edge * height / short)


DEFAULT = Resizing()


def square(picture: Image.Image, size: int, resizing: Resizing = DEFAULT) -> np.ndarray:
    """Resize an image in mode L or RGB to uint8 [3, size, size]."""
    box, kept, start = [0.0] * 4, [0, 0], [0, 0]
    for axis, (old, new) in enumerate(zip(picture.size, resizing.sides(*picture.size, size))):
        kept[axis] = min(new, size)
        cut = (new - kept[axis]) / 2
        before = round(cut) if resizing.odd == "even" else int(cut)
        # Pixels that would be cropped are not computed; the others are the same as those of the whole image.
        box[axis], box[axis + 2] = before * old / new, (before + kept[axis]) * old / new
        start[axis] = (size - kept[axis]) // 2
    filter = Image.Resampling[resizing.interpolation.upper()]
    pixels = np.asarray(picture.resize((kept[0], kept[1]), filter, (box[0], box[1], box[2], box[3])))
    pixels = np.repeat(pixels[None], 3, axis=0) if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if kept == [size, size]:
        return np.ascontiguousarray(pixels)
    whole = np.empty((3, size, size), np.uint8)
    whole[:] = np.array(resizing.fill, np.uint8)[:, None, None]
    whole[:, start[1] : start[1] + kept[1], start[0] : start[0] + kept[0]] = pixels
    return whole
