"""Soft targets: CLIP whose targets follow the similarity of the pairs' labels or texts (MedCLIP)."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor

from benchmark import Batch, DualEncoder, Embeddings, Keys, Share, register_method
from benchmark.losses import Targets, smoothed, soft_cross_entropy

from .clip import Clip


@register_method("soft_clip")
class SoftClip(Clip):
    """Contrast images and texts, with targets softened by how similar two pairs are.

    With the similarity c_ij of pairs i and j, c_ii = 1:

        y_i  = (1 - weight) onehot(i) + weight softmax(c_i / t)
        loss = (CE(s I T', y) + CE(s T I', y)) / 2

    c is the cosine of the pairs' labels (one-hot or multi-hot), or of features of their texts. Having no finding counts
    as a finding of its own. A pair whose label is unknown is similar to itself alone. With training.same_text, pairs of
    the same text are as similar as a pair and itself, and share onehot(i) (``positive``), or are no candidates
    (``ignore``).

    Source: Wang et al. 2022, arXiv 2210.10163 (MedCLIP), semantic matching, with labels of images and of sentences;
    RyanWangZf/MedCLIP. Similarity of texts by a frozen text encoder: Liu et al. 2023, IEEE TMI (SAT), who triage by it.
    """

    summary = "CLIP with targets softened by the similarity of labels or texts (MedCLIP)"
    source = "MedCLIP, arXiv 2210.10163; RyanWangZf/MedCLIP"
    trains = "as clip"
    extra = (
        "nothing; source text: a forward pass of the text tower as it was before training, a second set of its weights"
    )
    inferred = "source text: similarity by the initial text tower, and its temperature; image and text share one label"
    needs = frozenset({"label"})

    @dataclass
    class Config(Clip.Config):
        """Hyperparameters.

        source: of the similarity: ``label``, the pairs' labels (MedCLIP), or ``text``, the features of the text tower
            as it was before training; meant for pretrained weights [I].
        weight: of the soft targets, 0..1 (MedCLIP: 1).
        target_temperature: t, > 0; null: 1 for labels (MedCLIP's code), 0.07 for texts, whose cosines differ less [I].
        """

        source: Literal["label", "text"] = "label"
        weight: Share = 1.0
        target_temperature: PositiveFloat | None = None

    @classmethod
    def needs_of(cls, config: Config) -> frozenset[str]:
        """Require labels only where similarity is that of labels."""
        return cls.needs if config.source == "label" else frozenset()

    def __init__(self, model: DualEncoder, config: Config) -> None:
        super().__init__(model, config)
        if config.source == "text":
            self.initial_text = deepcopy(model.text).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode; the initial text tower stays in eval mode."""
        super().train(mode)
        if self.config.source == "text":
            self.initial_text.eval()
        return self

    @torch.no_grad()
    def keys(self, batch: Batch) -> Keys:
        """Return what similarity is computed from: labels, or unit features of the initial text tower."""
        if self.config.source == "text":
            features = self.initial_text(batch.tokens, batch.mask).features
            return {"text": F.normalize(features, dim=-1)}
        return {"label": torch.full_like(batch.row, -1) if batch.label is None else batch.label}

    def contrast(self, embeddings: Embeddings, keys: Keys) -> dict[str, Tensor]:
        """Return the cross-entropy with soft targets, both ways."""
        logits = self.logit_scale.exp() * embeddings["image"] @ embeddings["text"].T
        targets = self.targets(keys)
        if targets.excluded is not None:
            logits = logits.masked_fill(targets.excluded, -torch.inf)
        target = smoothed(self.softened(targets, keys).to(logits), logits, targets.smoothing)
        return {"contrastive": (soft_cross_entropy(logits, target) + soft_cross_entropy(logits.T, target)) / 2}

    def softened(self, targets: Targets, keys: Keys) -> Tensor:
        """Return y, [n, n]; each row sums to 1."""
        index, config = keys["index"], self.config
        if config.source == "text":
            similarity = keys["text"][index] @ keys["text"][index].T
        else:
            similarity = label_similarity(keys["label"][index])
        right = targets.right(len(index))
        similarity = similarity.masked_fill(right, 1.0)
        if targets.excluded is not None:
            similarity = similarity.masked_fill(targets.excluded, -torch.inf)
        temperature = config.target_temperature or {"label": 1.0, "text": 0.07}[config.source]
        soft = (similarity / temperature).softmax(dim=1)
        return (right.to(soft) / right.sum(dim=1, keepdim=True)).lerp(soft, config.weight)


def label_similarity(label: Tensor) -> Tensor:
    """Return the cosines of the labels of n pairs, float [n, n]; that of a pair with itself is 1.

    label: int64 [n], or [n, K] when multi-label; -1 is unknown, and a finding that is unknown counts as absent.
    """
    if label.ndim == 1:
        cosine = ((label[:, None] == label) & (label >= 0)).float()
    else:
        findings = label.clamp(min=0).float()
        none = (label == 0).all(dim=1, keepdim=True)
        findings = F.normalize(torch.cat([findings, none.to(findings)], dim=1), dim=1)
        cosine = findings @ findings.T
    return cosine.fill_diagonal_(1.0)
