"""CLIP: symmetric InfoNCE over the pairs of the effective batch."""

import math
from dataclasses import dataclass

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from benchmark import DualEncoder, Embeddings, Keys, Method, register_method
from benchmark.losses import info_nce


@register_method("clip")
class Clip(Method):
    """Minimise the symmetric InfoNCE loss over the pairs of the effective batch.

        loss = (CE(s I T', i) + CE(s T I', i)) / 2,  s = exp(logit_scale), learned

    Source: Radford et al. 2021, arXiv 2103.00020, figure 3; constants as in open_clip.
    """

    summary = "symmetric InfoNCE between images and texts"
    source = "Radford et al. 2021, arXiv 2103.00020; open_clip"
    trains = "both towers, projections and the temperature"
    extra = "nothing"
    follows = frozenset({"same_text", "label_smoothing"})

    @dataclass
    class Config:
        """Hyperparameters.

        temperature: initial value, > 0 (open_clip: 0.07). max_scale: bound of 1 / temperature (open_clip: 100).
        """

        temperature: PositiveFloat = 0.07
        max_scale: PositiveFloat = 100.0

    def __init__(self, model: DualEncoder, config: Config) -> None:
        super().__init__(model, config)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))

    def contrast(self, embeddings: Embeddings, keys: Keys) -> dict[str, Tensor]:
        """Return the symmetric InfoNCE loss."""
        scale, targets = self.logit_scale.exp(), self.targets(keys)
        return {"contrastive": info_nce(embeddings["image"], embeddings["text"], scale, targets)}

    @torch.no_grad()
    def after_step(self, keys: Keys) -> None:
        """Clamp the scale to 1..max_scale."""
        self.logit_scale.clamp_(0, math.log(self.config.max_scale))

    @property
    def temperature_scale(self) -> Tensor:
        """The learned factor s on cosines."""
        return self.logit_scale.detach().exp()
