"""The encoder of an image tower without a text side."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmark.data.resizing import Resizing
from benchmark.evaluation.encoder import Encoded
from benchmark.evaluation.fixed import TEMPERATURE_SCALE
from benchmark.store.hashing import digest

if TYPE_CHECKING:
    from benchmark.models.tower import ImageTower


class ImageEncoder:
    """An image tower alone; embeddings are its features at unit length."""

    temperature_scale = TEMPERATURE_SCALE

    def __init__(self, tower: "ImageTower", resizing: Resizing, device: torch.device, fingerprint: str) -> None:
        self.tower = tower.float().to(device).eval()
        self.device = device
        self.image_size = tower.image_size
        self.resizing = resizing
        self.fingerprint = digest(["image tower", fingerprint, asdict(resizing)])

    @torch.inference_mode()
    def encode_images(self, images: Tensor) -> Encoded:
        """Encode images uint8 [b, 3, H, W]."""
        features = self.tower(images.to(self.device).float() / 255).features
        return Encoded(features.cpu().numpy(), F.normalize(features, dim=-1).cpu().numpy())

    def encode_texts(self, texts: Sequence[str]) -> Encoded:
        """Raise: there is no text side."""
        raise NotImplementedError("an image tower has no texts")
