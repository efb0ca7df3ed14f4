"""SigLIP: a binary decision for each image-text pair, match or no match."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor, nn

from benchmark import DualEncoder, Embeddings, Keys, register_method

from .clip import Clip


@register_method("siglip")
class SigLip(Clip):
    """Minimise the pairwise sigmoid loss.

        loss = -1/n sum_ij log sigmoid(z_ij (s I_i . T_j + b)),  z_ij = 1 for i = j, else -1; s and b learned

    With training.same_text, z_ij is 1 for identical texts too (``positive``), or their pairs are not in the sum
    (``ignore``).

    Source: Zhai et al. 2023, arXiv 2303.15343, algorithm 1; open_clip ``SigLipLoss``.
    """

    summary = "pairwise sigmoid loss"
    source = "Zhai et al. 2023, arXiv 2303.15343; open_clip"
    trains = "as clip, plus a bias"
    extra = "nothing"
    follows = frozenset({"same_text"})

    @dataclass
    class Config(Clip.Config):
        """Hyperparameters.

        temperature: initial 1 / s (the paper, open_clip: s = 10). bias: initial b (the paper: -10).
        """

        temperature: PositiveFloat = 1 / 10
        bias: float = -10.0

    def __init__(self, model: DualEncoder, config: Config) -> None:
        super().__init__(model, config)
        self.logit_bias = nn.Parameter(torch.tensor(config.bias))

    def contrast(self, embeddings: Embeddings, keys: Keys) -> dict[str, Tensor]:
        """Return the pairwise sigmoid loss."""
        logits = self.logit_scale.exp() * embeddings["image"] @ embeddings["text"].T + self.logit_bias
        targets = self.targets(keys)
        terms = F.logsigmoid((2 * targets.right(len(logits)).to(logits) - 1) * logits)
        if targets.excluded is not None:
            terms = terms.masked_fill(targets.excluded, 0.0)
        return {"sigmoid": -terms.sum() / len(logits)}
