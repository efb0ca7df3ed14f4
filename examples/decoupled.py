"""A method of one's own: decoupled contrastive learning between images and texts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmark import Embeddings, Keys, Method, register_method


@register_method("decoupled")
class Decoupled(Method):
    """Minimise InfoNCE without the positive pair in the denominator.

        loss = mean_i (log sum_{j != i} exp(I_i . T_j / t) - I_i . T_i / t), averaged over both directions

    Source: Yeh et al. 2022, arXiv 2110.06848, without the weighting of its variant DCLW.
    """

    summary = "InfoNCE without the positive pair in the denominator"
    source = "Yeh et al. 2022, arXiv 2110.06848"
    inferred = "its use between images and texts (the paper contrasts views of one image)"

    @dataclass
    class Config:
        """Hyperparameters.

        temperature: fixed, > 0.
        """

        temperature: float = 0.1

    def contrast(self, embeddings: Embeddings, keys: Keys) -> dict[str, Tensor]:
        """Return the loss over the pairs of the effective batch."""
        logits = embeddings["image"] @ embeddings["text"].T / self.config.temperature
        positive = logits.diag()
        own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        negatives = logits.masked_fill(own, -torch.inf)
        image, text = negatives.logsumexp(dim=1) - positive, negatives.logsumexp(dim=0) - positive
        return {"decoupled": (image.mean() + text.mean()) / 2}

    @property
    def temperature_scale(self) -> float:
        """The factor on cosines."""
        return 1 / self.config.temperature
