"""Ridge regression on frozen features, in closed form.

It works on features that are centred and rotated to their principal axes. The solution is the same: the intercept is
not penalised, the penalty does not depend on the axes, and the weights lie in the span of the examples. But there are
never more axes than examples, and the curvature of the squared error is diagonal.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def ridge(
    features: Tensor, target: Tensor, strengths: Sequence[float], *, together: bool = True
) -> tuple[Tensor, Tensor]:
    """Fit ridge regression in closed form, its regularisation chosen by the leave-one-out error.

    features: [n, d]; target: float [n, K]. Minimises |target - features @ weight.T - intercept|^2 + penalty |weight|^2,
    where penalty = strength x the mean over the principal axes of the features' sum of squares. The strength is the one
    with the smallest squared error on examples left out of the fit one at a time (PRESS; Allen 1974,
    https://doi.org/10.1080/00401706.1974.10489157), the largest when several tie: of all K columns ``together``, or of
    each. Returns weight float64 [K, d] and intercept [K].
    """
    features, target = features.double(), target.double()
    mean, scores, axes, squares = principal_axes(features)
    offset = target.mean(0)
    if not len(squares):
        return features.new_zeros(target.shape[1], features.shape[1]), offset
    penalties = features.new_tensor(sorted(strengths, reverse=True))[:, None] * squares.mean()
    coefficients = scores.T @ (target - offset) / (squares + penalties)[..., None]
    leverage = 1 / len(features) + (1 / (squares + penalties)) @ scores.square().T
    residual = (target - offset - scores @ coefficients) / (1 - leverage)[..., None]
    error = residual.square().sum(1)
    if together:
        error = error.sum(1, keepdim=True).expand_as(error)
    best = (error <= error.amin(0) * (1 + 1e-9)).int().argmax(0)
    weight = (axes @ coefficients[best, :, torch.arange(len(best), device=best.device)].T).T
    return weight, offset - weight @ mean


def principal_axes(features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Decompose features [n, d] = mean [d] + scores [n, r] @ axes [d, r].T, with r <= min(n, d).

    Axes are orthonormal; columns of the scores are orthogonal, and their sums of squares [r] are returned last. Axes
    along which nothing varies are left out.
    """
    mean = features.mean(0)
    centred = features - mean
    wide = features.shape[1] > len(features)
    squares, vectors = torch.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    kept = squares > squares[-1].clamp_min(1e-300) * len(squares) * torch.finfo(squares.dtype).eps
    squares, vectors = squares[kept], vectors[:, kept]
    if wide:
        return mean, vectors * squares.sqrt(), centred.T @ (vectors / squares.sqrt()), squares
    return mean, centred @ vectors, vectors, squares
