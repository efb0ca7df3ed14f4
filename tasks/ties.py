"""What retrieval's metrics are where candidates tie: their expected values over all orders of what ties.

``above`` candidates score higher than a group of ``tied`` equal ones; ``right`` of the group are right, and none of
those above. Each is an int array with one value a group. The order within a group is random.
"""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from benchmark import Examples
from benchmark.metrics import Median, Weighted

SPREAD = 50.0
"""The variance of a count from which on its probabilities are those of an Edgeworth series, right to 1e-5."""
WINDOW = 201
"""The counts that have a probability, where their variance is less than that; odd."""


@dataclass(frozen=True)
class ExpectedMedian(Weighted):
    """The expected median, over queries, of the rank of the first right candidate.

    Of an even number of queries, the median is the mean of the two ranks in the middle. Reads the columns ``above``,
    ``tied`` and ``right`` of the group with the first right candidate. The order of each query's ties is independent of
    other queries', and of those of its repetitions in a resample; weights are counts.

    A rank is above k if fewer than half of the queries have a right one among the first k. That number is a sum of
    independent events: its probabilities come from its characteristic function (Hong 2013,
    doi:10.1016/j.csda.2012.10.006) or, where it varies by much, from the Edgeworth series.
    """

    def weighted(self, examples: Examples, weights: np.ndarray) -> np.ndarray:
        """Compute the expected median for each weighting."""
        from scipy.sparse import csr_array

        columns = np.stack([np.asarray(examples[name], dtype=np.int64) for name in ("above", "tied", "right")])
        if (columns[1] == columns[2]).all():
            return Median("above").weighted(examples, weights) + 1
        (above, tied, right), number = np.unique(columns, axis=1, return_inverse=True)
        member = csr_array((np.ones(len(number)), (number.ravel(), np.arange(len(number)))))
        return self.of_groups(above, tied, right, (member @ np.ascontiguousarray(weights.T)).T)

    def of_groups(self, above: np.ndarray, tied: np.ndarray, right: np.ndarray, queries: np.ndarray) -> np.ndarray:
        """Compute the expected median of groups, [G], each of the first right candidates of ``queries`` [R, G]: [R]."""
        drawn = queries.any(axis=1)
        if not drawn.all():
            medians = np.full(len(queries), np.nan)
            if drawn.any():
                medians[drawn] = self.of_groups(above, tied, right, queries[drawn])
            return medians
        count = queries.sum(axis=1, keepdims=True)
        half = np.concatenate([np.ceil(count / 2), np.floor(count / 2) + 1], axis=1)

        def settled(k: int, *, below: bool) -> bool:
            # By Bernstein's inequality what is left out has a probability of less than 1e-15.
            hit = hit_probability(above, tied, right, k)
            mean, margin = queries @ hit, 25 + 9 * np.sqrt(queries @ (hit * (1 - hit)))
            if below:
                return bool((np.minimum(queries @ (hit > 0), mean + margin) < half[:, 0]).all())
            return bool((np.maximum(queries @ (hit == 1), mean - margin) >= half[:, 1]).all())

        ranks = range(int((above + tied).max()) + 1)
        begin = bisect_left(ranks, True, key=lambda k: not settled(k, below=True))
        end = bisect_left(ranks, True, key=lambda k: settled(k, below=False))
        expected = np.full(half.shape, float(begin))
        for k in range(begin, end):
            expected += fewer(hit_probability(above, tied, right, k), queries, half)
        return np.asarray(expected.mean(axis=1))


def fewer(probability: np.ndarray, times: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Compute the probability that fewer than ``limit`` of independent events happen.

    probability: [G], of each event; times: [R, G], how many there are of each, a count; limit: [R, L]. Returns [R, L].
    """
    limit = limit - (times @ (probability == 1))[:, None]
    open_ = (probability > 0) & (probability < 1)
    p, times = probability[open_], times[:, open_]
    mean, variance = times @ p, times @ (p * (1 - p))
    result = (limit > 0).astype(float)
    wide = variance >= SPREAD
    if wide.any():
        third = times[wide] @ (p * (1 - p) * (1 - 2 * p))
        fourth = times[wide] @ (p * (1 - p) * (1 - 6 * p * (1 - p)))
        result[wide] = _by_series(limit[wide], mean[wide], variance[wide], third, fourth)
    narrow = (variance > 0) & ~wide
    if narrow.any():
        result[narrow] = _by_transform(p, times[narrow], limit[narrow], mean[narrow])
    return result


def _by_series(
    limit: np.ndarray, mean: np.ndarray, variance: np.ndarray, third: np.ndarray, fourth: np.ndarray
) -> np.ndarray:
    """Compute fewer() from the cumulants [R] of the count, by the Edgeworth series for integers."""
    from scipy.special import ndtr

    v = variance[:, None]
    x = (limit - 0.5 - mean[:, None]) / np.sqrt(v)
    skewness, kurtosis = third[:, None] / v**1.5, fourth[:, None] / v**2
    terms = skewness * (x**2 - 1) / 6 + kurtosis * (x**3 - 3 * x) / 24
    terms += skewness**2 * (x**5 - 10 * x**3 + 15 * x) / 72 - x / (24 * v)
    return np.asarray(np.clip(ndtr(x) - terms * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), 0, 1))


def _by_transform(p: np.ndarray, times: np.ndarray, limit: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Compute fewer() from the discrete Fourier transform of the count's probabilities."""
    # An odd length: at an angle of pi the logarithm of an event with probability 1/2 is not finite.
    most = int(times.sum(axis=1).max())
    length = min((most + 1) // 2 * 2 + 1, WINDOW)
    angle = 2 * np.pi * np.arange(length // 2 + 1) / length
    transform = np.exp(times @ np.log(1 - p[:, None] + p[:, None] * np.exp(-1j * angle)))
    chances = np.fft.irfft(transform, n=length)
    # Counts are known up to multiples of the length: those nearest to the mean are meant.
    lowest = np.maximum(np.floor(mean) - length // 2, 0)[:, None] * (most >= length)
    count = lowest + (np.arange(length) - lowest) % length
    below = count[:, None] < limit[..., None]
    return np.asarray(np.clip((chances[:, None] * below).sum(axis=2), 0, 1))


def hit_probability(above: np.ndarray, tied: np.ndarray, right: np.ndarray, k: int) -> np.ndarray:
    """Compute the (hypergeometric) probability that a right one of the group is among the first k; none is above."""
    places = np.clip(k - above, 0, tied)
    wrong = tied - right
    missed = np.exp(_log_choose(wrong, np.minimum(places, wrong)) - _log_choose(tied, places))
    return np.where(places > wrong, 1.0, 1 - missed)


def expected_rank(above: np.ndarray, tied: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Compute the expected rank of the first right one."""
    return np.asarray(above + (tied + 1) / (right + 1))


def expected_reciprocal_rank(
    above: np.ndarray, tied: np.ndarray, right: np.ndarray, harmonic: np.ndarray
) -> np.ndarray:
    """Compute the expected 1 / rank of the first right one. harmonic: the sums of 1 / 1 to 1 / i, from i = 0."""
    groups, inverse = np.unique(np.stack([above, tied, right]), axis=1, return_inverse=True)
    values = (harmonic[groups[0] + groups[1]] - harmonic[groups[0]]) / groups[1]
    for i in np.flatnonzero(groups[2] > 1):
        a, t, r = groups[:, i]
        place = np.arange(1, t - r + 2)
        values[i] = (np.exp(_log_choose(t - place, r - 1) - _log_choose(t, r)) / (a + place)).sum()
    return np.asarray(values[inverse])


def _log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Compute the logarithm of n choose k."""
    from scipy.special import gammaln

    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))
