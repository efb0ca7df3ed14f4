"""Losses in plain loops, written from their formulas, in float64."""

import math

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


def nt_xent_loop(a: Tensor, b: Tensor, temperature: float) -> float:
    """Equation 1 of SimCLR: the mean over 2n views of -log exp(s(i, j) / t) / sum over k != i of exp(s(i, k) / t)."""
    views, n = [*a, *b], len(a)
    total = 0.0
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        s = [float(views[i] @ views[k]) / temperature for k in range(2 * n)]
        total -= s[j] - math.log(sum(math.exp(s[k]) for k in range(2 * n) if k != i))
    return total / (2 * n)
