"""Contrastive losses as functions of features."""

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE of n pairs, a scalar: (CE(image -> text) + CE(text -> image)) / 2.

    image, text: [n, D], unit length; row i of one belongs to row i of the other. scale: scalar, 1 / temperature.
    Source: Radford et al. 2021, figure 3; open_clip ``ClipLoss``.
    """
    logits = scale * image @ text.T
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with soft targets, the mean over n rows of -sum_j target_j log softmax(logits)_j, a scalar.

    logits, target: [n, m]. Each row of the target sums to 1 and is 0 where a logit is -inf (no candidate).
    """
    return -torch.where(target > 0, target * logits.log_softmax(dim=-1), 0.0).sum(dim=-1).mean()


def nt_xent(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """NT-Xent of two views of n samples, a scalar.

    Each of the 2n views must identify the other view of its sample among the remaining 2n - 1 views.
    a, b: [n, D], unit length. Source: Chen et al. 2020, arXiv 2002.05709, equation 1; SLIP's ``SIMCLRLoss``.
    """
    n = len(a)
    views = torch.cat([a, b])
    logits = (views @ views.T / temperature).masked_fill(
        torch.eye(2 * n, dtype=torch.bool, device=a.device), -torch.inf
    )
    target = torch.arange(2 * n, device=a.device).roll(n)
    return F.cross_entropy(logits, target)
