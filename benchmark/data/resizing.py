"""Resize images of any shape, to the pixel as the libraries do that models come from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
from PIL import Image

LONGEST = 4
"""The most that the long side is of the short side where the ratio is kept; what is longer is cropped to its middle."""
USUAL = 4 / 3
"""The ratio of the long side to the short side that estimates assume where the ratio is kept."""
GAP = 2
"""The least pixels a side of a reduced JPEG for each pixel that it is resized to, as in Pillow's ``thumbnail()``.

Photographs then differ from the whole JPEG, resized, by about 1 of 255: less than bicubic differs from lanczos. With 1
they differ by two to four times as much, more than bicubic differs from bilinear.
"""
FAST = {"bilinear", "bicubic"}
"""The filters that torch has, too."""


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

    def reduction(self, width: int, height: int, size: int) -> int:
        """Return by how much to reduce a JPEG of this width and height as it is decoded: 1, 2, 4 or 8."""
        if self.mode == "square" or self.interpolation == "nearest":
            return 1
        spare = min(old / new for old, new in zip((width, height), self.sides(width, height, size)))
        return next((scale for scale in (8, 4, 2) if spare >= GAP * scale), 1)

    def keeping_ratio(self) -> "Resizing":
        """Return the resizing with the same filter that keeps the ratio of the sides (torchvision's Resize)."""
        return replace(self, mode="keep_ratio", crop=1.0)


DEFAULT = Resizing()


@dataclass(frozen=True)
class Draft:
    """How a JPEG was decoded: its width and height, upright, and by how much they were reduced: 1, 2, 4 or 8.

    Where that does not divide them, a part of the last column or row lies beyond the picture.
    """

    size: tuple[int, int]
    scale: int


def framed(images: Sequence[np.ndarray], least: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Put images uint8 [3, height, width] into one array uint8 [n, 3, H, W], with zeros at the right and below.

    least: of H and W. Returns also their heights and widths, int64 [n, 2].
    """
    sizes = np.array([image.shape[1:] for image in images], dtype=np.int64).reshape(-1, 2)
    frame = np.zeros((len(images), 3, *sizes.max(0, initial=least)), dtype=np.uint8)
    for i, image in enumerate(images):
        frame[i, :, : image.shape[1], : image.shape[2]] = image
    return frame, sizes


def resized(picture: Image.Image, size: int, resizing: Resizing = DEFAULT, draft: Draft | None = None) -> np.ndarray:
    """Resize an image in mode L or RGB to uint8 [3, size, size], or with its ratio kept [3, height, width].

    size: of the short side in pixels, if the ratio is kept. draft: how the picture was decoded, if it is a JPEG; a
    value may then differ by 1 from Pillow's.
    """
    keeps = resizing.mode == "keep_ratio"
    if resizing.mode == "square":
        picture = _squared(picture, size, resizing.fill)
        draft = draft and Draft(picture.size, 1)
    full, scale = (draft.size, draft.scale) if draft else (picture.size, 1)
    sides = resizing.sides(*full, size)
    limit = LONGEST * size if keeps else size
    box, kept, before, start = [0.0] * 4, [0, 0], [0, 0], [0, 0]
    for axis, (old, new) in enumerate(zip(full, sides)):
        kept[axis] = min(new, limit)
        cut = (new - kept[axis]) / 2
        before[axis] = round(cut) if resizing.odd == "even" else int(cut)
        # Pillow does not compute pixels that would be cropped; the others are the same as those of the whole image.
        box[axis], box[axis + 2] = (at * old / new / scale for at in (before[axis], before[axis] + kept[axis]))
        start[axis] = (size - kept[axis]) // 2
    if draft and sides != full and resizing.interpolation in FAST and max(sides) <= LONGEST * limit:
        left, top = before
        whole = _resized_by_torch(picture, sides, draft, resizing.interpolation)
        pixels = whole[:, top : top + kept[1], left : left + kept[0]]
    else:
        filter = Image.Resampling[resizing.interpolation.upper()]
        pixels = np.asarray(picture.resize((kept[0], kept[1]), filter, (box[0], box[1], box[2], box[3])))
        pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    pixels = np.repeat(pixels, 3, axis=0) if len(pixels) == 1 else pixels
    if keeps or kept == [size, size]:
        return np.ascontiguousarray(pixels)
    whole = np.empty((3, size, size), np.uint8)
    whole[:] = np.array(resizing.fill, np.uint8)[:, None, None]
    whole[:, start[1] : start[1] + kept[1], start[0] : start[0] + kept[0]] = pixels
    return whole


def _resized_by_torch(picture: Image.Image, sides: tuple[int, int], draft: Draft, interpolation: str) -> np.ndarray:
    """Resize all of a picture to uint8 [1 or 3, height, width], three to five times as fast as Pillow."""
    import torch
    from torch.nn.functional import interpolate
    from torch.utils.dlpack import from_dlpack

    shape = (picture.height, picture.width, -1)
    try:
        # A copy would hold the interpreter's lock, and take half as long as the rest.
        values = pa.array(picture)
        pixels = from_dlpack(values if picture.mode == "L" else values.flatten()).view(shape)
    except (TypeError, ValueError):  # Pillow before 11.2, or a picture that it keeps in several pieces
        pixels = torch.from_numpy(np.array(picture)).view(shape)
    # What lies beyond the picture is left out by the factors, not by the sides. The sides are rounded down.
    width, height = ((new + 1e-6) * draft.scale / old for old, new in zip(draft.size, sides))
    batch = pixels.permute(2, 0, 1)[None]
    whole = interpolate(batch, scale_factor=(height, width), mode=interpolation, antialias=True)[0]
    # Pillow has a fourth byte for each pixel in colour.
    return whole[:3].numpy()


def _squared(picture: Image.Image, least: int, fill: tuple[int, int, int]) -> Image.Image:
    """Put an image in mode L or RGB into the middle of a square of at least ``least`` pixels a side."""
    side = max(least, *picture.size)
    grey = picture.mode == "L" and len({*fill}) == 1
    whole = Image.new("L" if grey else "RGB", (side, side), fill[0] if grey else fill)
    whole.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return whole
