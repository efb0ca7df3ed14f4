"""Encode a dataset once per checkpoint, for all tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Encoded:
    """n images or texts: features before the projection float32 [n, W], embeddings float32 [n, D] of unit length."""

    features: np.ndarray
    embeddings: np.ndarray


class Encoder(Protocol):
    """What a task's numbers come from. Implementations: a pretrained cell, a model from elsewhere, a test's oracle.

    fingerprint: changes whenever the outputs could.
    image_size: pixels a side of the images it is given.
    temperature_scale: cosine x this = logit.
    """

    fingerprint: str
    image_size: int
    temperature_scale: float

    def encode_images(self, images: Tensor) -> Encoded:
        """images: uint8 [b, 3, image_size, image_size]."""

    def encode_texts(self, texts: Sequence[str]) -> Encoded: ...


class Evaluation(Protocol):
    """A dataset seen through an encoder: what Task.evaluate() is given."""
