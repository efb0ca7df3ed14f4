"""GLoRIA: CLIP's contrast of whole images and texts, and one of words with the regions that they attend to."""

from dataclasses import dataclass

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmark import Batch, DualEncoder, Embeddings, Keys, Method, Output, register_method
from benchmark.losses import Targets, cross_entropy

SCORES = 2**24
"""Scores of regions and words held in memory at once."""


@register_method("gloria")
class Gloria(Method):
    """Contrast images and texts as wholes, and by how well each word matches the regions that it attends to.

    With regions V_ia of image i and words T_jb of text j (not of unit length, padding excluded):

        p_ab = softmax over b of V_ia . T_jb
        w_ba = softmax over a of attention_scale p_ab
        C_b  = sum_a w_ba V_ia                                   what word b sees of image i
        Z_ij = log sum_b exp(word_scale cos(C_b, T_jb))
        nce(X) = CE(X, i) + CE(X', i)
        loss = local_weight nce(scale Z) + global_weight nce(scale I T')

    Source: Huang et al. 2021 (ICCV), local and global contrast; marshuang80/gloria (C), whose attention also has the
    softmax over words, as its predecessor ControlGAN.
    """

    summary = "CLIP plus a contrast of words with the image regions that they attend to (GLoRIA)"
    source = "Huang et al. 2021, ICCV, GLoRIA; marshuang80/gloria"
    trains = "both towers, projections and the two local projections"
    extra = "the scores of all image tokens with all text tokens, and their attention"
    inferred = (
        "regions are the image tower's last tokens (GLoRIA: an inner layer of a ResNet), words its text tokens, both "
        "projected (GLoRIA: words are sums of word pieces over four layers); tasks compare whole images and texts alone"
    )
    needs = frozenset({"image_tokens", "text_tokens"})
    follows = frozenset({"same_text", "label_smoothing"})

    @dataclass
    class Config:
        """Hyperparameters; the scales are temp1, temp2 and temp3 of the code's configuration, and are not learned.

        attention_scale: of the attention over regions, > 0 (C: 4). word_scale: of the sum over words, > 0 (C: 5).
        scale: of both contrasts, > 0 (C: 10).
        local_weight, global_weight: of the two terms, >= 0 (the paper: their plain sum).
        """

        attention_scale: PositiveFloat = 4.0
        word_scale: PositiveFloat = 5.0
        scale: PositiveFloat = 10.0
        local_weight: NonNegativeFloat = 1.0
        global_weight: NonNegativeFloat = 1.0

    def __init__(self, model: DualEncoder, config: Config) -> None:
        super().__init__(model, config)
        self.regions = nn.Linear(model.image.width, model.embed_dim, bias=False)
        self.words = nn.Linear(model.text.width, model.embed_dim, bias=False)

    def forward(self, batch: Batch, *, embeddings_only: bool = False) -> Output:
        """Encode images and texts as wholes, [b, D], and by regions and words, [b, T, D]."""
        image = self.model.image(batch.view())
        text = self.model.text(batch.tokens, batch.mask)
        return Output(
            {
                "image": self.model.project_image(image.features),
                "text": self.model.project_text(text.features),
                "regions": self.regions(image.tokens),
                "words": self.words(text.tokens),
                "mask": batch.mask,
            }
        )

    def contrast(self, embeddings: Embeddings, keys: Keys) -> dict[str, Tensor]:
        """Return the weighted terms of words with regions and of whole images with whole texts."""
        config, targets = self.config, self.targets(keys)
        whole = embeddings["image"] @ embeddings["text"].T
        return {
            "local": config.local_weight * nce(config.scale * self.matches(embeddings), targets),
            "global": config.global_weight * nce(config.scale * whole, targets),
        }

    def matches(self, embeddings: Embeddings) -> Tensor:
        """Return Z, [n, n]."""
        regions, words, mask = embeddings["regions"], embeddings["words"], embeddings["mask"]
        n, count, _ = regions.shape
        rows = max(1, SCORES // (count * mask.numel()))
        scales = self.config.attention_scale, self.config.word_scale
        chunks = [
            checkpoint(match, regions[i : i + rows], words, mask, *scales, use_reentrant=False)
            for i in range(0, n, rows)
        ]
        return torch.cat(chunks)

    @property
    def temperature_scale(self) -> float:
        """The fixed factor on cosines."""
        return float(self.config.scale)


def match(regions: Tensor, words: Tensor, mask: Tensor, attention_scale: float, word_scale: float) -> Tensor:
    """Return Z of n images and m texts, [n, m].

    regions: [n, A, D]; words: [m, B, D], mask: bool [m, B], True at tokens.
    """
    score = torch.einsum("iad,jbd->ijba", regions, words)
    by_word = score.masked_fill(~mask[:, :, None], -torch.inf).softmax(dim=2)
    attention = (attention_scale * by_word).softmax(dim=3)
    # The product of C_b and T_jb, and the length of C_b, without a vector for each word, region and pair.
    product = (attention * score).sum(dim=3)
    gram = regions @ regions.transpose(1, 2)
    square = ((attention @ gram[:, None]) * attention).sum(dim=3)
    length = square.clamp(min=1e-12).sqrt() * words.norm(dim=2).clamp(min=1e-6)
    cosine: Tensor = product / length
    return (word_scale * cosine).masked_fill(~mask, -torch.inf).logsumexp(dim=2)


def nce(logits: Tensor, targets: Targets) -> Tensor:
    """Return CE(row -> column) + CE(column -> row), a scalar. logits: [n, n], matching pairs on the diagonal."""
    return cross_entropy(logits, targets) + cross_entropy(logits.T, targets)
