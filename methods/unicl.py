"""UniCL: CLIP's contrast with every pair of the same label as a positive."""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmark import Batch, Embeddings, Keys, register_method
from benchmark.losses import smoothed, soft_cross_entropy

from .clip import Clip


@register_method("unicl")
class UniCl(Clip):
    """Contrast images and texts, with all pairs of the same label as positives.

    With P(i) the pairs of the effective batch with the label of pair i, itself included:

        loss = (mean_i mean_k:P(i) -log softmax(s I T')_ik + the same for T against I) / 2

    Of multi-label pairs, those with the same set of findings are positives. A pair whose label is unknown, or one of
    whose findings is, only has itself, as the image-text pairs of the paper. With training.same_text, pairs of the same
    text and another label are positives too (``positive``), or no candidates (``ignore``).

    Source: Yang et al. 2022, arXiv 2204.03610, equations 1 to 3, halved as in algorithm 1.
    """

    summary = "CLIP with all pairs of the same label as positives (label-supervised contrast)"
    source = "Yang et al. 2022, arXiv 2204.03610"
    trains = "as clip"
    extra = "nothing"
    inferred = "multi-label pairs are positives if their findings are the same; the temperature starts as clip's"
    needs = frozenset({"label"})

    @dataclass
    class Config(Clip.Config):
        """Hyperparameters: as in clip."""

    @torch.no_grad()
    def keys(self, batch: Batch) -> Keys:
        """Return the labels; those of data without labels are unknown."""
        return {"label": torch.full_like(batch.row, -1) if batch.label is None else batch.label}

    def contrast(self, embeddings: Embeddings, keys: Keys) -> dict[str, Tensor]:
        """Return the mean cross-entropy against all positives, both ways."""
        logits = self.logit_scale.exp() * embeddings["image"] @ embeddings["text"].T
        targets = self.targets(keys)
        positive = same_label(keys["label"][keys["index"]]) | targets.right(len(logits))
        if targets.excluded is not None:
            logits = logits.masked_fill(targets.excluded & ~positive, -torch.inf)
        target = positive.to(logits) / positive.sum(dim=1, keepdim=True)
        target = smoothed(target, logits, targets.smoothing)
        return {"contrastive": (soft_cross_entropy(logits, target) + soft_cross_entropy(logits.T, target)) / 2}


def same_label(label: Tensor) -> Tensor:
    """Return whether two of n pairs have the same label, bool [n, n]; each has its own.

    label: int64 [n], or [n, K] when multi-label; -1 is unknown.
    """
    label = label.reshape(len(label), -1)
    known = (label >= 0).all(dim=1)
    same = (label[:, None] == label).all(dim=2) & known
    return same | torch.eye(len(label), dtype=torch.bool, device=label.device)
