"""The variance of seeds that many lines and datasets share, in loops from the formulas: a reference for the tests.

Variance V_i of S_i seeds, with f_i = S_i - 1 degrees of freedom: V_i / (tau^2 + known_i) ~ F(f_i, d). Beforehand, d is
one of six values and tau is at one of forty points that are equally likely under a half-Cauchy distribution, or, of few
units, a Lomax distribution of shape 1/2.
"""

import math
from collections.abc import Sequence

DEGREES = (2, 4, 8, 16, 64, 1024)

Hypothesis = tuple[float, float, float]
"""Probability, variance of one seed, degrees of freedom."""


def log_f_density(x: float, m: float, n: float) -> float:
    """The logarithm of the density of F(m, n) at x."""
    log_beta = math.lgamma(m / 2) + math.lgamma(n / 2) - math.lgamma((m + n) / 2)
    return (m / 2) * math.log(m / n) + (m / 2 - 1) * math.log(x) - (m + n) / 2 * math.log1p(m * x / n) - log_beta


def hypotheses(units: Sequence[tuple[float, int, float, float]], few: bool = False) -> list[list[Hypothesis]]:
    """Of each unit (variance, seeds, known part of the variance, scale): what its variance may be, and how likely."""
    scale = 0.7 * math.sqrt(sum(unit[3] ** 2 for unit in units) / len(units))
    joint = []
    for d in DEGREES:
        for k in range(40):
            below = (k + 0.5) / 40
            tau = scale * (1 / (1 - below) ** 2 - 1 if few else math.tan(math.pi / 2 * below))
            log = 0.0
            for variance, seeds, known, _ in units:
                expected = tau**2 + known
                log += log_f_density(max(variance / expected, 1e-9), seeds - 1, d) - math.log(expected)
            joint.append((d, tau, log))
    most = max(log for *_, log in joint)
    total = sum(math.exp(log - most) for *_, log in joint)
    return [
        [
            (
                math.exp(log - most) / total,
                (d * (tau**2 + known) + (seeds - 1) * variance) / (d + seeds - 1),
                d + seeds - 1,
            )
            for d, tau, log in joint
        ]
        for variance, seeds, known, _ in units
    ]
