"""Losses in plain loops, written from their formulas, in float64."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def unit(n: int, seed: int, width: int = 6) -> Tensor:
    """N random unit vectors."""
    x = torch.randn(n, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=-1)


def nce_loop(a: Tensor, b: Tensor, scale: float) -> float:
    """InfoNCE both ways, halved: the mean over i of -log exp(s(i, i)) / sum over k of exp(s(i, k))."""
    total = 0.0
    for x, y in ((a, b), (b, a)):
        for i in range(len(x)):
            s = [scale * float(x[i] @ y[k]) for k in range(len(y))]
            total -= s[i] - math.log(sum(map(math.exp, s)))
    return total / (2 * len(a))


def targets_loop(i: int, texts: Sequence[int], text: int, same_text: str) -> dict[int, float]:
    """The target of a query with this text over its candidates, of which i is its own: no entry for no candidate."""
    twins = [j for j in range(len(texts)) if j != i and texts[j] == text]
    candidates = [j for j in range(len(texts)) if same_text != "ignore" or j not in twins]
    right = [i, *twins] if same_text == "positive" else [i]
    return {j: 1 / len(right) if j in right else 0.0 for j in candidates}


def cross_entropy_loop(scores: Sequence[float], target: dict[int, float], smoothing: float = 0.0) -> float:
    """Minus the sum over candidates j of ((1 - e) y_j + e / c) log(exp(s_j) / sum over candidates of exp(s_k))."""
    total = math.log(sum(math.exp(scores[k]) for k in target))
    return -sum(((1 - smoothing) * y + smoothing / len(target)) * (scores[j] - total) for j, y in target.items())


def nt_xent_loop(a: Tensor, b: Tensor, temperature: float) -> float:
    """Equation 1 of SimCLR: the mean over 2n views of -log exp(s(i, j) / t) / sum over k != i of exp(s(i, k) / t)."""
    views, n = [*a, *b], len(a)
    total = 0.0
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        s = [float(views[i] @ views[k]) / temperature for k in range(2 * n)]
        total -= s[j] - math.log(sum(math.exp(s[k]) for k in range(2 * n) if k != i))
    return total / (2 * n)
