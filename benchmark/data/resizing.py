"""Resize images of any shape, to the pixel as the libraries do that models come from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image

LONGEST = 4
"""The most that the long side is of the short side where the ratio is kept; what is longer is cropped to its middle."""
USUAL = 4 / 3
"""The ratio of the long side to the short side that estimates assume where the ratio is kept."""


@dataclass(frozen=True)
class Resizing:
    """How an encoder expects its images to be resized. The defaults are CLIP's (Radford et al. 2021).

    mode: ``shortest`` resizes the short side and crops the long one to its middle; ``longest`` resizes the long side
        and pads the short one; ``square`` pads to a square first, at least of the size that is asked for, so that it
        enlarges nothing; ``squash`` resizes both sides, which changes the shape; ``keep_ratio`` resizes the short side
        and leaves the long one, up to LONGEST times the short one: images to train on, never an encoder's.
    interpolation: a filter of Pillow, antialiased: nearest, box, bilinear, hamming, bicubic or lanczos.
    crop: the share of the resized side that is kept, from its middle (timm's crop_pct).
    fill: the RGB colour of the padding, each 0..255.
    odd: how many pixels to crop at the left or top if the total is odd: half of it rounded to ``even`` (torchvision,
        so open_clip and timm), or rounded ``down`` (transformers).
    """

    mode: Literal["shortest", "longest", "square", "squash", "keep_ratio"] = "shortest"
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

    def keeping_ratio(self) -> "Resizing":
        """Return the resizing with the same filter that keeps the ratio of the sides (torchvision's Resize)."""
        return replace(self, mode="keep_ratio", crop=1.0)


DEFAULT = Resizing()


def framed(images: Sequence[np.ndarray], least: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Put images uint8 [3, height, width] into one array uint8 [n, 3, H, W], with zeros at the right and below.

    least: of H and W. Returns also their heights and widths, int64 [n, 2].
    """
    sizes = np.array([image.shape[1:] for image in images], dtype=np.int64).reshape(-1, 2)
    frame = np.zeros((len(images), 3, *sizes.max(0, initial=least)), dtype=np.uint8)
    for i, image in enumerate(images):
        frame[i, :, : image.shape[1], : image.shape[2]] = image
    return frame, sizes


def resized(picture: Image.Image, size: int, resizing: Resizing = DEFAULT) -> np.ndarray:
    """Resize an image in mode L or RGB to uint8 [3, size, size], or with its ratio kept [3, height, width].

    size: of the short side in pixels, if the ratio is kept.
    """
    keeps = resizing.mode == "keep_ratio"
    if resizing.mode == "square":
        picture = _squared(picture, size, resizing.fill)
    limit = LONGEST * size if keeps else size
    box, kept, start = [0.0] * 4, [0, 0], [0, 0]
    for axis, (old, new) in enumerate(zip(picture.size, resizing.sides(*picture.size, size))):
        kept[axis] = min(new, limit)
        cut = (new - kept[axis]) / 2
        before = round(cut) if resizing.odd == "even" else int(cut)
        # Pixels that would be cropped are not computed; the others are the same as those of the whole image.
        box[axis], box[axis + 2] = before * old / new, (before + kept[axis]) * old / new
        start[axis] = (size - kept[axis]) // 2
    filter = Image.Resampling[resizing.interpolation.upper()]
    pixels = np.asarray(picture.resize((kept[0], kept[1]), filter, (box[0], box[1], box[2], box[3])))
    pixels = np.repeat(pixels[None], 3, axis=0) if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if keeps or kept == [size, size]:
        return np.ascontiguousarray(pixels)
    whole = np.empty((3, size, size), np.uint8)
    whole[:] = np.array(resizing.fill, np.uint8)[:, None, None]
    whole[:, start[1] : start[1] + kept[1], start[0] : start[0] + kept[0]] = pixels
    return whole


def _squared(picture: Image.Image, least: int, fill: tuple[int, int, int]) -> Image.Image:
    """Put an image in mode L or RGB into the middle of a square of at least ``least`` pixels a side."""
    side = max(least, *picture.size)
    grey = picture.mode == "L" and len({*fill}) == 1
    whole = Image.new("L" if grey else "RGB", (side, side), fill[0] if grey else fill)
    whole.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return whole
