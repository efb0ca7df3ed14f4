"""Random augmentation of prepared images, on the device that they are on."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.config.augmentation import Augmentation

_NONE = Augmentation.none()
_PARAMETERS = 13


@torch.no_grad()
def augment(
    image: Tensor, size: int, seed: Tensor, k: int, augmentation: Augmentation, sizes: Tensor | None = None
) -> Tensor:
    """Make view number ``k`` of each image: a random crop resized to ``size``, then a flip and colour changes.

    image: uint8 [b, 3, S, S]; seed: int64 [b], one for each sample. sizes: for images uint8 [b, 3, H, W] that keep
    their ratio, heights and widths int64 [b, 2]; what lies beyond is never seen. A crop that is larger than its image
    is cut to it, and to the range of ``crop_ratio``. Returns float32 [b, 3, size, size] in 0..1, on the device of
    ``image``. Random numbers depend only on a sample's seed and ``k``, and no operation mixes samples, so the
    result is the same to the bit however a batch is divided. torchvision's transforms, which draw once for a batch, and
    kornia's, which draw from one generator for all samples, do not guarantee this. Resizing is bilinear, antialiased
    when it shrinks (the triangle filter of Pillow, without its rounding to 8 bits).
    """
    b, _, source, _ = image.shape
    if augmentation == _NONE and sizes is None and source == size:
        return image.float() / 255
    u = uniform(seed, k, _PARAMETERS).to(image.device)

    def between(column: int, low: float, high: float) -> Tensor:
        return low + u[:, column] * (high - low)

    jittered = u[:, 8] < augmentation.jittered

    def factor(column: int, strength: float) -> Tensor:
        return torch.where(jittered, between(column, 1 - strength, 1 + strength), 1.0)

    mirrored = u[:, 4] < augmentation.flip
    square = sizes is None
    tall, wide = (torch.full((b, 2), source, device=image.device) if sizes is None else sizes).float().unbind(1)
    # Sums of integers are exact in any order, while a mean in floating point would depend on the batch.
    values = 3 * source * source if square else 3 * tall * wide
    mean = image.sum((1, 2, 3)).float() / values if augmentation.contrast else None
    if augmentation.crop:
        side = augmentation.crop
        corner = [torch.floor(u[:, 2 + i] * (edge - side + 1)).long() for i, edge in enumerate((tall, wide))]
        cut = _window(image, corner[0], corner[1], side, mirrored)
        whole = torch.full((b,), float(side), device=cut.device)
        span = torch.zeros_like(whole), whole
        x = cut.float() if side == size else _resized(cut, span, span, size, whole, whole)
    else:
        area, ratio = between(0, *augmentation.crop_scale), between(1, *augmentation.crop_ratio)
        edge = (tall * wide).sqrt()
        height = (edge * torch.sqrt(area / ratio)).clamp(max=tall)
        width = (edge * torch.sqrt(area * ratio)).clamp(max=wide)
        if not square:
            low, high = augmentation.crop_ratio
            height, width = height.minimum(width / low), width.minimum(height * high)
        top, left = u[:, 2] * (tall - height), u[:, 3] * (wide - width)
        columns = torch.where(mirrored, left + width, left), torch.where(mirrored, -width, width)
        x = _resized(image, (top, height), columns, size, tall, wide)

    gain, offset = torch.full((b,), 1 / 255, device=x.device), None
    if augmentation.brightness:
        gain = gain * factor(5, augmentation.brightness)
    if mean is not None:
        stretch = factor(6, augmentation.contrast)
        offset = gain * mean * (1 - stretch)
        gain = gain * stretch
    x = x.mul_(gain.view(b, 1, 1, 1))
    if offset is not None:
        x = x.add_(offset.view(b, 1, 1, 1))
    if augmentation.saturation or augmentation.grey:
        colour = factor(7, augmentation.saturation)
        colour = torch.where(u[:, 9] < augmentation.grey, 0.0, colour).view(b, 1, 1, 1)
        grey = _grey(x)
        x = x.mul_(colour).add_(grey * (1 - colour))
    if augmentation.hue:
        turn = torch.where(jittered, between(10, -augmentation.hue, augmentation.hue), 0.0)
        x = _turned(x, 2 * math.pi * turn)
    if augmentation.blur:
        blurred = (u[:, 11] < augmentation.blur).view(b, 1, 1, 1)
        x = torch.where(blurred, _blurred(x, between(12, 0.1, 2.0) * size / 224), x)
    return x.clamp_(0, 1)


def _grey(x: Tensor) -> Tensor:
    """Grey values by ITU-R 601, [b, 3, h, w] -> [b, 1, h, w]."""
    red, green, blue = x.unbind(1)
    return (red * 0.299 + green * 0.587 + blue * 0.114).unsqueeze(1)


def _turned(x: Tensor, angle: Tensor) -> Tensor:
    """Rotate colours about grey by ``angle`` [b], in radians, in the plane of I and Q."""
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    red, green, blue = x.unbind(1)
    y = _grey(x).squeeze(1)
    i = red * 0.595716 - green * 0.274453 - blue * 0.321263
    q = red * 0.211456 - green * 0.522591 + blue * 0.311135
    i, q = i * cos - q * sin, i * sin + q * cos
    return torch.stack([y + 0.9563 * i + 0.6210 * q, y - 0.2721 * i - 0.6474 * q, y - 1.1070 * i + 1.7046 * q], dim=1)


def _blurred(x: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image with its own Gaussian, sigma [b] in pixels; edges are repeated.

    It is a sum over shifted copies, which does not depend on how a batch is divided. The order of summation in a
    convolution may depend on it.
    """
    radius = max(1, math.ceil(6 * x.shape[-1] / 224))
    offset = torch.arange(-radius, radius + 1, device=x.device)
    weight = torch.exp(-0.5 * (offset / sigma[:, None]) ** 2)
    total = weight[:, 0].clone()
    for tap in range(1, len(offset)):
        total += weight[:, tap]
    weight = (weight / total[:, None])[:, :, None, None, None]
    for dim in (2, 3):
        pad = (radius, radius, 0, 0) if dim == 3 else (0, 0, radius, radius)
        padded = F.pad(x, pad, mode="replicate")
        size = x.shape[dim]
        x = torch.zeros_like(x)
        for tap in range(len(offset)):
            x += weight[:, tap] * padded.narrow(dim, tap, size)
    return x


def _window(image: Tensor, top: Tensor, left: Tensor, side: int, mirrored: Tensor) -> Tensor:
    """Cut a square out of each image, [b, 3, h, w] -> [b, 3, side, side], and mirror it where ``mirrored``."""
    step = torch.arange(side, device=image.device)
    rows = top[:, None] + step
    columns = left[:, None] + torch.where(mirrored[:, None], side - 1 - step, step)
    number = torch.arange(len(image), device=image.device)[:, None, None, None]
    channel = torch.arange(3, device=image.device)[:, None, None]
    return image[number, channel, rows[:, None, :, None], columns[:, None, None, :]]


Span = tuple[Tensor, Tensor]
"""Start and extent in pixels, each float [b]; a negative extent mirrors."""


def _resized(image: Tensor, rows: Span, columns: Span, size: int, tall: Tensor, wide: Tensor) -> Tensor:
    """Resample a part of each image, uint8 [b, 3, h, w] -> float32 [b, 3, size, size].

    tall, wide: float [b], height and width of each, without padding.
    """
    b, _, high, across = image.shape
    x = image.transpose(1, 2).reshape(b * high, 3 * across).float()
    x = _resample(x, *rows, high, size, tall)
    x = x.view(b, size, 3, across).permute(0, 3, 2, 1).reshape(b * across, 3 * size)
    x = _resample(x, *columns, across, size, wide)
    return x.view(b, size, 3, size).permute(0, 2, 3, 1).contiguous()


def _resample(rows: Tensor, start: Tensor, extent: Tensor, source: int, size: int, edge: Tensor) -> Tensor:
    """Resample the rows of each image over [start, start + extent) in pixels: [b * source, w] -> [b * size, w].

    edge: float [b], the number of rows of an image, at most ``source``; the others are not used. Rows are reversed
    where ``extent`` is negative. Each new row is a weighted sum of a few old ones: an embedding bag.
    """
    b = len(start)
    support = max(1.0, source / size)
    taps = math.ceil(2 * support)
    step = (torch.arange(size, device=rows.device) + 0.5) / size
    centre = start[:, None] + step * extent[:, None]
    width = (extent.abs() / size).clamp(min=1.0)[:, None, None]
    first = torch.floor(centre - width[:, :, 0] - 0.5) + 1
    index = first[:, :, None] + torch.arange(taps, device=rows.device)
    weight = (1 - (index + 0.5 - centre[:, :, None]).abs() / width).clamp(min=0)
    weight = torch.where((index >= 0) & (index < edge[:, None, None]), weight, 0.0)
    total = weight[:, :, 0].clone()
    for tap in range(1, taps):
        total += weight[:, :, tap]
    weight = weight / total[:, :, None]
    index = index.clamp(0, source - 1).long() + (torch.arange(b, device=rows.device) * source)[:, None, None]
    return F.embedding_bag(index.view(-1, taps), rows, per_sample_weights=weight.view(-1, taps), mode="sum")


def uniform(seed: Tensor, k: int, count: int) -> Tensor:
    """Uniform numbers in [0, 1), float32 [b, count]: hashes of (seed, k, column), the same on every device."""
    column = torch.arange(count, device=seed.device)
    bits = _mix(_mix(_mix(seed) + k)[:, None] + column)
    return ((bits >> 40) & 0xFFFFFF).float() / (1 << 24)


def _mix(x: Tensor) -> Tensor:
    """One step of SplitMix64 (Steele et al., 2014), int64 that wraps around."""
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >> 63 else x


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift to the right and fill with zeros; torch repeats the sign bit of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
