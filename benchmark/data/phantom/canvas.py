"""Drawing. Coordinates are 0..1 with x to the right and y down, and images are float32 in 0..1, at any size in pixels.

A scene does not depend on the size: random fields have a fixed number of cells and pixel noise is drawn last, so one
sample at 64 and at 512 pixels shows the same scene.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageDraw

Array = np.ndarray[Any, np.dtype[np.floating[Any]]]
T = TypeVar("T")


class Random(np.random.Generator):
    """A random stream of its own for every tuple of numbers, with the draws that scenes need."""

    def __init__(self, *key: int) -> None:
        super().__init__(np.random.PCG64(np.random.SeedSequence(key)))

    def chance(self, p: float) -> bool:
        """True with probability ``p``."""
        return bool(self.random() < p)

    def between(self, low: float, high: float) -> float:
        """A number drawn uniformly from [low, high)."""
        return low + (high - low) * self.random()

    def pick(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """Draw one of ``options``; ``weights`` need not sum to one."""
        if weights is None:
            return options[int(self.random() * len(options))]
        left = self.random() * sum(weights)
        for option, weight in zip(options, weights):
            left -= weight
            if left < 0:
                return option
        return options[-1]

    def some(self, options: Sequence[T], count: int) -> list[T]:
        """Draw ``count`` different ones of ``options`` (all, if there are fewer), in random order."""
        return [options[i] for i in self.permutation(len(options))[:count]]


@cache
def grid(size: int) -> tuple[Array, Array]:
    """Pixel centres (x, y), each [size, size]."""
    centres = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = np.meshgrid(centres, centres)
    return x, y


class View:
    """The position of the camera: it shows scene point p at 0.5 + scale * R(angle) * (p - 0.5) + shift.

    x, y: the scene coordinates of each pixel, [size, size].
    """

    def __init__(
        self,
        size: int,
        angle: float = 0.0,
        scale: float = 1.0,
        shift: tuple[float, float] = (0.0, 0.0),
        mirror: bool = False,
    ) -> None:
        self.size = size
        c, s, flip = math.cos(angle), math.sin(angle), -1 if mirror else 1
        self._turn = scale * np.array([[flip * c, flip * s], [-s, c]])
        self._centre = np.array([0.5 + shift[0], 0.5 + shift[1]])
        x, y = grid(size)
        x, y = (x - (0.5 + shift[0])) * (1 / scale), (y - (0.5 + shift[1])) * (1 / scale)
        self.x: Array = flip * (c * x + s * y) + 0.5
        self.y: Array = c * y - s * x + 0.5

    def place(self, points: np.ndarray) -> np.ndarray:
        """Convert scene points [..., 2] to coordinates of the image."""
        places: np.ndarray = (points - 0.5) @ self._turn + self._centre
        return places


def inside(distance: Array, width: float) -> Array:
    """1 inside (negative distance), 0 outside, with a soft edge of ``width``."""
    cover: Array = np.clip(0.5 - distance * (1 / width), 0, 1)
    return cover


def smooth(distance: Array, width: float) -> Array:
    """Like inside(), but without corners, for edges much wider than a pixel."""
    t = inside(distance, width)
    return t * t * (3 - 2 * t)


def ellipse(x: Array, y: Array, centre: Sequence[float], radii: tuple[float, float], angle: float = 0.0) -> Array:
    """Distance to the outline of an ellipse, negative inside (exact for a circle, approximate for others)."""
    dx, dy = x - float(centre[0]), y - float(centre[1])
    if angle:
        c, s = math.cos(angle), math.sin(angle)
        dx, dy = c * dx + s * dy, c * dy - s * dx
    dx, dy = dx * (1 / radii[0]), dy * (1 / radii[1])
    distance: Array = (np.sqrt(dx * dx + dy * dy) - 1) * min(radii)
    return distance


def bump(x: Array, y: Array, centre: Sequence[float], radii: tuple[float, float]) -> Array:
    """A Gaussian of height 1 with standard deviations ``radii``."""
    dx, dy = (x - float(centre[0])) * (1 / radii[0]), (y - float(centre[1])) * (1 / radii[1])
    height: Array = np.exp(-0.5 * (dx * dx + dy * dy))
    return height


@cache
def _spread(cells: int, size: int) -> Array:
    """The matrix of bicubic interpolation from cells + 2 values (one past each end) to ``size``, [size, cells + 2]."""
    unit = Image.fromarray(np.eye(cells + 2, dtype=np.float32))
    return np.array(unit.resize((cells + 2, size), Image.Resampling.BICUBIC, box=(0, 1, cells + 2, cells + 1)))


def field(rng: Random, cells: int, size: int) -> Array:
    """Smooth noise with about ``cells`` bumps a side, mean 0, standard deviation about 0.7, [size, size]."""
    spread = _spread(cells, size)
    return spread @ rng.standard_normal((cells + 2, cells + 2), dtype=np.float32) @ spread.T


def rgb(red: float, green: float, blue: float) -> Array:
    """A colour, [3, 1, 1]. Images are [3, size, size] before photograph()."""
    return np.array([red, green, blue], dtype=np.float32)[:, None, None]


def wobbly(rng: Random, count: int, points: int, roughness: float) -> np.ndarray:
    """Closed outlines around the origin, [count, points, 2], with radius about 1 and three random harmonics."""
    t = np.arange(points) * (2 * np.pi / points)
    order = np.arange(2, 5)
    amplitude = rng.normal(0, roughness, (count, 3)) / (1, 1.4, 1.8)
    phase = rng.random((count, 3)) * (2 * np.pi)
    radius = 1 + np.einsum("ck,ckp->cp", amplitude, np.cos(order[:, None] * t + phase[..., None]))
    outlines: np.ndarray = radius[..., None] * np.stack([np.cos(t), np.sin(t)], -1)
    return outlines


def dots(
    size: int,
    centres: np.ndarray,
    radii: np.ndarray,
    values: np.ndarray | float = 1.0,
    angles: np.ndarray | float = 0.0,
) -> Array:
    """Draw many small ellipses, [size, size]: centres and radii [n, 2], values and angles [n]; the brightest wins."""
    visible = (np.abs(centres - 0.5) < 0.5 + radii.max(initial=0)).all(1)
    if not visible.any():
        return np.zeros((size, size), dtype=np.float32)
    n = len(centres)
    turn = np.broadcast_to(angles, n)[visible]
    heights = np.broadcast_to(values, n)[visible].astype(np.float32)
    middle = centres[visible] * size
    a, b = np.maximum(radii[visible] * size, 0.5).astype(np.float32).T[..., None, None]
    corner = np.floor(middle).astype(np.int64)
    half = math.ceil(max(a.max(), b.max())) + 1
    step = np.arange(-half, half + 1)
    from_middle = (step - (middle - corner - 0.5)[..., None]).astype(np.float32)
    dx, dy = from_middle[:, 0, None, :], from_middle[:, 1, :, None]
    c, s = (f(turn).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))
    u, v = c / a * dx + s / a * dy, c / b * dy - s / b * dx
    u *= u
    v *= v
    u += v
    cover = np.clip((0.5 + np.minimum(a, b)) - np.sqrt(u) * np.minimum(a, b), 0, 1)
    cover *= heights[:, None, None]
    margin = 2 * half + 1
    wide = size + 2 * margin
    column, row = (corner + margin).T[..., None] + step
    canvas = np.zeros(wide * wide, dtype=np.float32)
    np.maximum.at(canvas, (row[:, :, None] * wide + column[:, None, :]).ravel(), cover.ravel())
    return canvas.reshape(wide, wide)[margin:-margin, margin:-margin]


class Layer:
    """A grey layer for many small objects, drawn with Pillow at a larger size and then averaged down."""

    def __init__(self, size: int) -> None:
        self._factor = max(1, min(4, 512 // size))
        self._side = size * self._factor
        self._image = Image.new("L", (self._side, self._side))
        self._draw = ImageDraw.Draw(self._image)

    def polygon(self, points: np.ndarray, value: float = 1.0) -> None:
        """Fill a polygon; points: [n, 2]."""
        self._draw.polygon((points * self._side).ravel().tolist(), fill=round(255 * value))

    def line(self, points: np.ndarray, width: float, value: float = 1.0) -> None:
        """Draw a line; points: [n, 2]."""
        pixels = max(1, round(width * self._side))
        self._draw.line((points * self._side).ravel().tolist(), fill=round(255 * value), width=pixels)

    def array(self) -> Array:
        """The layer averaged down to [size, size], 0..1."""
        return np.asarray(self._image.reduce(self._factor), dtype=np.float32) * np.float32(1 / 255)


_DEVIATION = math.sqrt(2 * (256**2 - 1) / 12)  # of the sum of two random bytes


MOTTLE = 13


def photograph(rng: Random, image: Array, noise: float, mottle: float = 0.0) -> np.ndarray:
    """Add sensor noise (the last draw) and quantise: [size, size] or [3, size, size] to uint8 [size, size, 3].

    mottle: relative unevenness of brightness, with MOTTLE bumps a side, about as large as findings are. It makes shape
    and texture necessary to recognise findings, because the mean brightness of a place does not reveal them.
    """
    if mottle:
        image = image * (1 + mottle * field(rng, MOTTLE, image.shape[-1]))
    draws = np.frombuffer(rng.bytes(2 * image.size), np.uint8).reshape(2, *image.shape)
    grain = np.add.reduce(draws, 0, dtype=np.float32)  # triangular: almost Gaussian, and three times faster
    grain *= noise / _DEVIATION
    grain += image - 255 * noise / _DEVIATION
    quantised = np.clip(grain * 255 + 0.5, 0, 255).astype(np.uint8)
    if quantised.ndim == 2:
        return np.repeat(quantised[..., None], 3, 2)
    return np.ascontiguousarray(quantised.transpose(1, 2, 0))
