"""Contrastive losses as functions of features."""

from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """Which of m candidates n queries should find.

    index: int64 [n], the candidate of each query's own pair.
    twins: bool [n, m], the candidates of other pairs with the query's text; None: they are wrong like all others.
    share_twins: whether the query should find its twins as well as its own, each with the same share of the target;
        otherwise they are no candidates.
    smoothing: share of the target that is spread evenly over all candidates, 0..1.
    """

    index: Tensor
    twins: Tensor | None = None
    share_twins: bool = False
    smoothing: float = 0.0

    @property
    def excluded(self) -> Tensor | None:
        """The twins that are no candidates, bool [n, m]; None: all are candidates."""
        return None if self.share_twins else self.twins

    def right(self, candidates: int) -> Tensor:
        """Return which of m ``candidates`` the queries should find, bool [n, m]."""
        own = self.index[:, None] == torch.arange(candidates, device=self.index.device)
        return own | self.twins if self.twins is not None and self.share_twins else own

    def by_pair(self) -> Self:
        """Return the same with every other pair a wrong candidate, for a contrast that texts have no part in."""
        return replace(self, twins=None)


def cross_entropy(logits: Tensor, targets: Targets) -> Tensor:
    """Cross-entropy of a softmax over candidates, the mean over n queries, a scalar.

    For each query, with r right candidates among c that are not excluded, and smoothing e:

        -sum_j y_j log softmax(logits)_j,   y_j = (1 - e) [j is right] / r + e / c

    logits: [n, m], -inf where there is no candidate. Source: torch's ``cross_entropy`` with ``label_smoothing``, which
    it is without twins; several right candidates as in SupCon, arXiv 2004.11362, equation 2.
    """
    if targets.twins is None and not targets.smoothing:
        return F.cross_entropy(logits, targets.index)
    if targets.excluded is not None:
        logits = logits.masked_fill(targets.excluded, -torch.inf)
    right = targets.right(logits.shape[1]).to(logits)
    return soft_cross_entropy(logits, smoothed(right / right.sum(dim=1, keepdim=True), logits, targets.smoothing))


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with soft targets, the mean over n rows of -sum_j target_j log softmax(logits)_j, a scalar.

    logits, target: [n, m]. Each row of the target sums to 1 and is 0 where a logit is -inf (no candidate).
    """
    return -torch.where(target > 0, target * logits.log_softmax(dim=-1), 0.0).sum(dim=-1).mean()


def smoothed(target: Tensor, logits: Tensor, smoothing: float) -> Tensor:
    """Return (1 - e) target + e / c, spread over the c candidates of a row, those whose logit is not -inf: [n, m]."""
    if not smoothing:
        return target
    candidate = (logits > -torch.inf).to(target)
    return (1 - smoothing) * target + smoothing * candidate / candidate.sum(dim=-1, keepdim=True)


def info_nce(image: Tensor, text: Tensor, scale: Tensor, targets: Targets | None = None) -> Tensor:
    """Symmetric InfoNCE of n pairs, a scalar: (CE(image -> text) + CE(text -> image)) / 2.

    image, text: [n, D], unit length; row i of one belongs to row i of the other. scale: scalar, 1 / temperature.
    targets: by default, each image's own text and each text's own image.
    Source: Radford et al. 2021, figure 3; open_clip ``ClipLoss``.
    """
    logits = scale * image @ text.T
    targets = targets or Targets(torch.arange(len(logits), device=logits.device))
    return (cross_entropy(logits, targets) + cross_entropy(logits.T, targets)) / 2


def nt_xent(a: Tensor, b: Tensor, temperature: float, smoothing: float = 0.0) -> Tensor:
    """NT-Xent of two views of n samples, a scalar.

    Each of the 2n views must identify the other view of its sample among the remaining 2n - 1 views.
    a, b: [n, D], unit length. smoothing: of the target, see cross_entropy().
    Source: Chen et al. 2020, arXiv 2002.05709, equation 1; SLIP's ``SIMCLRLoss``.
    """
    n = len(a)
    views = torch.cat([a, b])
    logits = (views @ views.T / temperature).masked_fill(
        torch.eye(2 * n, dtype=torch.bool, device=a.device), -torch.inf
    )
    return cross_entropy(logits, Targets(torch.arange(2 * n, device=a.device).roll(n), smoothing=smoothing))
