"""FILIP: the similarity of an image and a text is that of their best-matching tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from benchmark import Batch, Embeddings, Keys, Output, register_method
from benchmark.losses import cross_entropy

from .clip import Clip

SCORES = 2**24
"""Token similarities held in memory at once."""


@register_method("filip")
class Filip(Clip):
    """Compare images and texts token by token (late interaction).

    With unit token embeddings I_ia of image i and T_jb of text j, padding excluded:

        s_ij = mean_a max_b I_ia . T_jb,   t_ji = mean_b max_a T_jb . I_ia
        loss = (CE(s scale, i) + CE(t scale, j)) / 2

    Source: Yao et al. 2022, arXiv 2111.07783, equations 4 to 6, without its masked-language-model loss.
    """

    summary = "token-wise maximum similarity between image patches and text tokens"
    source = "Yao et al. 2022, arXiv 2111.07783; Roy et al. 2024, arXiv 2406.07450"
    trains = "as clip"
    extra = "the cosines of all image tokens with all text tokens"
    inferred = "linear probes and VQA use the towers' pooled features"
    needs = frozenset({"image_tokens", "text_tokens"})
    abilities = frozenset({"late_interaction"})

    @dataclass
    class Config(Clip.Config):
        """Hyperparameters: as in clip."""

    def forward(self, batch: Batch, *, embeddings_only: bool = False) -> Output:
        """Embed every image and text token."""
        image = self.model.project_image(self.model.image_tokens(batch.view()))
        text = self.model.project_text(self.model.text_tokens(batch.tokens, batch.mask))
        return Output({"image": image, "text": text, "mask": batch.mask})

    def contrast(self, embeddings: Embeddings, keys: Keys) -> dict[str, Tensor]:
        """Return the symmetric InfoNCE loss of the late-interaction scores."""
        image, text, mask = embeddings["image"], embeddings["text"], embeddings["mask"]
        n, tokens, _ = image.shape
        rows = max(1, SCORES // (tokens * mask.numel()))
        chunks = [checkpoint(late, image[i : i + rows], text, mask, use_reentrant=False) for i in range(0, n, rows)]
        to_text, to_image = (self.logit_scale.exp() * torch.cat(parts) for parts in zip(*chunks))
        targets = self.targets(keys)
        return {"contrastive": (cross_entropy(to_text, targets) + cross_entropy(to_image.T, targets)) / 2}


def late(image: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the late-interaction scores of n images and m texts: s and t' of the formula, each [n, m].

    image: [n, A, D]; text: [m, B, D], mask: bool [m, B], True at tokens.
    """
    cosine = torch.einsum("iad,jbd->ijab", image, text)
    best_text = cosine.masked_fill(~mask[:, None, :], -torch.inf).amax(dim=3).mean(dim=2)
    best_image = (cosine.amax(dim=2) * mask).sum(dim=2) / mask.sum(dim=1)
    return best_text, best_image
