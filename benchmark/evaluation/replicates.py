"""What seeds and draws add to the error of a score or a difference: estimated together, over all that is compared.

A seed or, with one seed, a draw of what is learned from is a replicate: the same measurement on the same test examples.
Two or three replicates say little about their own variance. So it is estimated from all lines and datasets of a kind of
task: each has a variance of its own, and these are alike. spreads() is where.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from benchmark.evaluation.measurement import Examples, Metric
from benchmark.evaluation.statistics import LEVEL, effective_groups, resample, same_examples

FEW = 3
"""The most estimates that do not borrow from each other, if they have three replicates or more: so few cannot say how
alike their variances are."""
PRIOR_DEGREES = np.array([2.0, 4.0, 8.0, 16.0, 64.0, 1024.0])
"""How alike the variances may be, as degrees of freedom; all are equally likely beforehand."""
PRIOR_SCALE = 0.7
"""The median of the seeds' standard deviation beforehand, in standard errors of one replicate on these examples."""
PRIOR_POINTS = 40
NEGLIGIBLE = 1e-12
"""The weight below which a hypothesis or a test changes no p-value."""
QUANTILE = float(special.ndtri((1 + LEVEL) / 2))


@dataclass(frozen=True)
class Difference:
    """A difference, first minus second: the value, its 95 % interval, and the two-sided p-value of no difference."""

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Estimate:
    """A mean over replicates, and what its error is made of.

    of_groups: the variance that the choice of groups (patients) gives it; NaN where it is not known. groups: their
    effective number, one more than the degrees of freedom.
    replicates: the number of seeds, or of draws where there is one seed; with 1, the answer holds for these weights
    and these draws alone. variance: of the values of the replicates, of which ``known`` is what the resamples explain:
    a replicate errs on these groups in its own way. scale: the standard error that replicates are expected to differ
    by, before any are seen. of_seeds: whether the replicates are seeds. highest: the most that the value can be away
    from 0.
    """

    value: float
    of_groups: float
    groups: float
    replicates: int = 1
    variance: float = 0.0
    known: float = 0.0
    scale: float = 0.0
    of_seeds: bool = True
    highest: float = np.inf


@dataclass(frozen=True)
class Spread:
    """The variance of replicates as a distribution over K hypotheses: weights, variances and degrees of freedom."""

    weights: np.ndarray
    variances: np.ndarray
    degrees: np.ndarray


NONE = Spread(np.ones(1), np.zeros(1), np.ones(1))


def estimate(values: np.ndarray, resampled: np.ndarray, groups: float, highest: float = np.inf) -> Estimate:
    """Split the error of a mean over seeds and draws into that of the groups and that of the replicates.

    values: the metric, or the difference of two methods, of each seed and draw, [S, D]. resampled: the same in R
    resamples of the groups, [S, D, R], as resample() makes them. groups: their effective number.

    What all replicates share of the groups' error is the covariance over the resamples between them; what they do not
    share is part of the variance of their values. With several seeds, each has draws of its own, and the variance of
    the seeds' means over draws has that of the draws in it.
    """
    values = np.asarray(values, dtype=np.float64)
    seeds, draws = values.shape
    finite = np.isfinite(resampled).all(axis=(0, 1))
    resampled = resampled if finite.all() else resampled[:, :, finite]
    value = float(values.mean())
    if groups < 2 or np.isnan(value) or resampled.shape[2] < 2:
        return Estimate(value, np.nan, groups, highest=highest)
    scale = groups / (groups - 1)
    if seeds == 1:
        shared, own = _shared(_covariance(resampled[0]) * scale)
        variance = _variance(values[0])
        return Estimate(value, shared, groups, draws, variance, own, float(np.sqrt(own)), False, highest)
    shared, own = _shared(_covariance(resampled.mean(axis=1)) * scale)
    known = own
    if draws > 1:
        of_draws = [_shared(_covariance(of_seed) * scale) for of_seed in resampled]
        # The draws' variance beyond what the resamples explain, which ``own`` has already.
        beyond = [max(0.0, of_seed.var(ddof=1) - unique) for of_seed, (_, unique) in zip(values, of_draws)]
        known += float(np.mean(beyond)) / draws
    variance = _variance(values.mean(axis=1))
    return Estimate(value, shared, groups, seeds, variance, known, float(np.sqrt(known)), True, highest)


def _covariance(values: np.ndarray) -> np.ndarray:
    """Compute the covariance between rows, [n, R] -> [n, n]; numpy.cov() takes twice as long for a few rows."""
    centred = values - values.mean(axis=1, keepdims=True)
    return np.asarray(centred @ centred.T * (1 / (values.shape[1] - 1)))


def _variance(values: np.ndarray) -> float:
    """Compute the variance of replicates; exactly 0 for one, and where they agree up to rounding."""
    if len(values) < 2 or np.ptp(values) <= 1e-12 * np.abs(values).max():
        return 0.0
    return float(values.var(ddof=1))


def _shared(covariance: np.ndarray) -> tuple[float, float]:
    """Split the variance of n replicates, [n, n], into what they share and what each has of its own."""
    count = len(covariance)
    of_one = float(covariance.trace()) / count
    if count == 1:
        return of_one, 0.0
    shared = max(0.0, (count * float(covariance.mean()) - of_one) / (count - 1))
    own = of_one - shared
    return shared, own if own > 1e-12 * of_one else 0.0


def spreads(estimates: Sequence[Estimate]) -> list[Spread]:
    """Estimate the replicates' variance of each of several estimates, from all of them.

    The variance of estimate i has df_i = replicates - 1 degrees of freedom and is expected to be tau^2 + known_i, with
    tau, the standard deviation of seeds, common to all; the estimates differ from that by an inverse chi-squared with
    d degrees. So variance_i / (tau^2 + known_i) is distributed as F(df_i, d), and the variance is estimated as
    (d (tau^2 + known_i) + df_i variance_i) / (d + df_i), with d + df_i degrees of freedom: the moderated variances of
    limma (Smyth 2004, doi:10.2202/1544-6115.1027, equations 3 to 5). Smyth estimates tau and d; where estimates are few
    their likelihood is flat, so it is averaged over here, with d from ``PRIOR_DEGREES`` and tau from a half-Cauchy
    distribution (Gelman 2006, doi:10.1214/06-BA117A) whose median is ``PRIOR_SCALE`` times the estimates' scale.

    Up to ``FEW`` estimates are taken by themselves, each with the variance of its own replicates. Where these are two,
    that would leave any value possible. Then tau has a distribution whose tail is heavier than any that has a mean, a
    Lomax one of shape 1/2: in simulations, few tests are false even where seeds differ much more than expected.
    """
    several = [i for i, each in enumerate(estimates) if each.replicates > 1 and np.isfinite(each.of_groups)]
    # Replicates that agree in everything, as those of an encoder without randomness, say nothing about others.
    several = [i for i in several if estimates[i].variance > 0 or estimates[i].known > 0]
    result = [NONE] * len(estimates)
    # Seeds and draws are different things.
    for of_seeds in (True, False):
        alike = [i for i in several if estimates[i].of_seeds == of_seeds]
        of_kind = [estimates[i] for i in alike]
        few = len(alike) <= FEW
        pairs = min((each.replicates for each in of_kind), default=0) == 2
        made = [_alone(each) for each in of_kind] if few and not pairs else _together(of_kind, few)
        for i, spread in zip(alike, made):
            result[i] = spread
    return result


def _alone(estimate: Estimate) -> Spread:
    """Take the variance of an estimate's own replicates.

    They may agree only because a metric moves in steps of about the weight of one group. So the variance of rounding to
    these steps is added: a twelfth of the step squared (Sheppard).
    """
    rounding = estimate.known / estimate.groups / 12
    return Spread(np.ones(1), np.array([estimate.variance + rounding]), np.array([float(estimate.replicates - 1)]))


def _together(estimates: Sequence[Estimate], few: bool) -> list[Spread]:
    """Moderate the variances of several estimates; see spreads()."""
    variance = np.array([each.variance for each in estimates])
    known = np.array([each.known for each in estimates])
    own_degrees = np.array([each.replicates - 1.0 for each in estimates])
    scale = PRIOR_SCALE * np.sqrt(np.mean([each.scale**2 for each in estimates])) or np.sqrt(variance.mean())
    if not scale > 0:
        return [_alone(each) for each in estimates]
    # Points of equal probability.
    below = (np.arange(PRIOR_POINTS) + 0.5) / PRIOR_POINTS
    tau = scale * ((1 - below) ** -2 - 1 if few else np.tan(np.pi / 2 * below))
    expected = tau[:, None] ** 2 + known
    # [d, tau, estimate]; a variance of 0 is one below all that floating point can tell from it.
    ratio = np.maximum(variance, 1e-9 * expected) / expected
    density = _log_f(ratio, own_degrees, PRIOR_DEGREES[:, None, None]) - np.log(expected)
    likelihood = density.sum(axis=2)
    weights = np.exp(likelihood - likelihood.max())
    weights /= weights.sum()
    degrees = PRIOR_DEGREES[:, None]
    return [
        Spread(
            weights.ravel(),
            ((degrees * expected[:, i] + own_degrees[i] * variance[i]) / (degrees + own_degrees[i])).ravel(),
            np.broadcast_to(degrees + own_degrees[i], weights.shape).ravel(),
        )
        for i in range(len(estimates))
    ]


def _log_f(ratio: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute the logarithm of the density of F(first, second); scipy.stats takes several times as long to."""
    scaled = first * ratio / second
    power = first / 2 * np.log(first / second) + (first / 2 - 1) * np.log(ratio)
    return np.asarray(power - (first + second) / 2 * np.log1p(scaled) - special.betaln(first / 2, second / 2))


def conclude(estimates: Sequence[Estimate]) -> list[Difference]:
    """Compute interval and p-value of each of several differences, whose replicates' variances are alike.

    The groups' part of the variance and the replicates' part over their number add up; see two_sources() for the test.
    No p-value is below 2^(1 - groups), the lowest that a two-sided sign-flip test of so many groups can reach, however
    little they differ: with five groups no difference is significant, and none has an interval. Interval and p-value
    are NaN for a single group, and where the metric is undefined. The ends of an interval stay in the range of the
    difference.
    """
    return [_concluded(each, spread) for each, spread in zip(estimates, spreads(estimates))]


def _concluded(estimate: Estimate, spread: Spread) -> Difference:
    value, nan = estimate.value, float("nan")
    if np.isnan(estimate.of_groups):
        return Difference(value, nan, nan, nan)
    least = 2.0 ** (1 - estimate.groups)
    error = np.sqrt(estimate.of_groups + spread.variances / estimate.replicates)
    if error.max() <= 1e-12 * abs(value) or error.max() == 0:
        # All groups agree up to rounding: how far others would be is unknown.
        return _no_difference(estimate) if value == 0 else Difference(value, nan, nan, least)
    tail = tail_of(estimate, spread)
    degrees = min(estimate.groups - 1, spread.degrees.min())
    half = half_width(tail, error, spread.weights, degrees) if least < 1 - LEVEL else nan
    low, high = np.clip([value - half, value + half], -estimate.highest, estimate.highest)
    return Difference(value, float(low), float(high), max(tail(abs(value)), least))


def _no_difference(estimate: Estimate) -> Difference:
    """Conclude from groups that all have a difference of 0.

    By the bound of Clopper and Pearson (1934), as in bounds(), a share of all groups might differ, each by the most
    that is possible. Where that is not known, neither is an interval: it is the one point that was measured.
    """
    share = float(1 - ((1 - LEVEL) / 2) ** (1 / estimate.groups))
    reach = share * estimate.highest if np.isfinite(estimate.highest) else 0.0
    return Difference(0.0, -reach, reach, 1.0)


def tail_of(estimate: Estimate, spread: Spread) -> Callable[[float], float]:
    """Return the probability, by distance, that an estimate is further than that from the truth, to either side."""
    likely = spread.weights > NEGLIGIBLE
    weights, degrees = spread.weights[likely], spread.degrees[likely]
    of_replicates = spread.variances[likely] / estimate.replicates
    total = estimate.of_groups + of_replicates
    share = np.divide(of_replicates, total, out=np.zeros_like(total), where=total > 0)
    error = np.sqrt(np.where(total > 0, total, 1e-300))
    p_value = _two_sources(share, estimate.groups - 1, degrees)
    return lambda distance: float(weights @ p_value(distance / error))


def half_width(tail: Callable[[float], float], error: np.ndarray, weights: np.ndarray, degrees: float) -> float:
    """Compute half the width of a 95 % interval: the distance where ``tail`` is 5 %.

    error: the standard errors that it may have; weights: of each. degrees: the fewest degrees of freedom.
    """
    # Tails of t are between those of the normal distribution and those with the fewest degrees of freedom.
    narrowest = 0.99 * QUANTILE * float(error.min())
    widest = 1.01 * float(special.stdtrit(degrees, (1 + LEVEL) / 2)) * float(error.max())
    # As a quantile of the normal distribution the tail is nearly a line through 0: from there, secants take half as
    # many steps as methods that begin with the ends.
    before, distance = (0.0, 0.0), QUANTILE * float(np.sqrt(weights @ error**2))
    while True:
        quantile = -float(special.ndtri(max(tail(distance), 1e-99) / 2))
        narrowest, widest = (narrowest, distance) if quantile > QUANTILE else (distance, widest)
        rise = quantile - before[1]
        following = distance + (QUANTILE - quantile) * (distance - before[0]) / rise if rise else np.nan
        if not narrowest <= following <= widest:
            following = (narrowest + widest) / 2
        # A secant's error is far smaller than its step.
        if abs(following - distance) <= 1e-8 * distance or widest - narrowest <= 1e-10 * widest:
            return following
        before, distance = (distance, quantile), following


def two_sources(
    distance: np.ndarray | float, share: np.ndarray | float, of_groups: float, of_replicates: np.ndarray | float
) -> np.ndarray:
    """Compute the two-sided p-value of an estimate whose variance has two sources.

    distance: how far the estimate is from the null hypothesis, in standard errors. Its variance is the sum of two
    estimates, with ``of_groups`` and ``of_replicates`` degrees of freedom; share: the part of the latter, 0..1. All may
    be arrays, which are broadcast.

    The p-value is a mixture of the two t-tests. The weight of the replicates' test is share^(of_replicates / 2): the
    probability that so few agree this well by luck falls with that power. The single t of Welch and Satterthwaite
    ignores that luck: in simulations at 5 % it rejects up to 12 % with two seeds and 8 % with three. This mixture
    rejects 1-5 % with two seeds (less, the nearer their part is to that of the groups), 3-5 % with three and 4-6 % with
    five; at 0.5 %, up to 0.6 %.
    """
    distance, share, of_replicates = np.broadcast_arrays(distance, share, of_replicates)
    return _two_sources(share, of_groups, of_replicates)(distance)


def _two_sources(share: np.ndarray, of_groups: float, of_replicates: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return two_sources() as a function of distance; all arrays have the same shape."""
    weight = np.where(share > 0, share ** (of_replicates / 2), 0.0)
    # Of the replicates' test only where it has a weight: it takes most of the time.
    counts = weight > NEGLIGIBLE
    weight, degrees = weight[counts], of_replicates[counts]

    def p_value(distance: np.ndarray) -> np.ndarray:
        p = np.array(2 * (special.ndtr(-distance) if of_groups == np.inf else special.stdtr(of_groups, -distance)))
        p[counts] += weight * (2 * special.stdtr(degrees, -distance[counts]) - p[counts])
        return p

    return p_value


@dataclass(frozen=True)
class Score:
    """A score of S seeds: values, and the ends of the interval over groups of each, [S].

    draws: of a single seed, the score in each draw of what is learned from, [D]; empty where there are none.
    """

    values: np.ndarray
    lows: np.ndarray
    highs: np.ndarray
    draws: Sequence[float] = ()


def score_of_draws(draws: Sequence[float], low: float, high: float, resampled: np.ndarray, groups: float) -> Score:
    """Describe the score of one seed that is a mean over draws, for pooled().

    draws: the metric in each, [D]. low, high: the interval over groups of the mean of these draws. resampled: the
    metric in R resamples of the groups, [D, R]; groups: their effective number. The ends of the interval are moved
    towards the mean, so that it has the error over groups that all draws share: the rest of it is in their variance.
    """
    split = estimate(np.array([draws]), resampled[None], groups)
    total = split.of_groups + split.known / split.replicates
    share = float(np.sqrt(split.of_groups / total)) if total > 0 else 1.0
    lows, highs = (np.array([split.value + share * (end - split.value)]) for end in (low, high))
    return Score(np.array([split.value]), lows, highs, draws)


def pooled(scores: Sequence[Score]) -> list[tuple[float, float, float]]:
    """Average each of several scores over its seeds, with the 95 % interval of that mean: (mean, low, high).

    The seeds share the test examples, so the error of sampling those stays whatever S, and the error of drawing S seeds
    comes on top; with one seed, that of its draws does. The former is, on each side, the mean distance from a seed's
    value to the end of its interval over the normal quantile; the latter is estimated from all scores, by spreads(). A
    seed's interval has some of the latter in it too, so that the interval is slightly too wide.
    With one seed and no draws the interval is that seed's. An end is NaN where a seed has none. The interval of a
    fraction stays in 0..1, that of a difference of fractions in -1..1.
    """
    estimates = [_of_score(each) for each in scores]
    return [_with_interval(*each) for each in zip(scores, estimates, spreads(estimates))]


def _of_score(score: Score) -> Estimate:
    """Describe the error of a mean over seeds; that of the groups is the mean of both sides."""
    error = float(np.mean(score.highs - score.lows)) / 2 / QUANTILE
    of_seeds = len(score.values) > 1
    replicates = score.values if of_seeds else np.asarray(score.draws, dtype=np.float64)
    variance = _variance(replicates)
    count = max(1, len(replicates))
    return Estimate(float(score.values.mean()), error**2, np.inf, count, variance, 0.0, error, of_seeds)


def _with_interval(score: Score, estimate: Estimate, spread: Spread) -> tuple[float, float, float]:
    """Compute the interval of a score, each side for itself."""
    ends = [float(np.mean(score.lows)), float(np.mean(score.highs))]
    if spread is not NONE:
        below, above = (
            _reach(distance / QUANTILE, estimate, spread)
            for distance in (estimate.value - ends[0], ends[1] - estimate.value)
        )
        ends = [estimate.value - below, estimate.value + above]
    low, high = np.clip(ends, *_limits(score))
    return estimate.value, float(low), float(high)


def _limits(score: Score) -> tuple[float, float]:
    """Return the ends of the range of a metric, as far as its values tell: 0..1, -1..1, or beyond."""
    lowest, highest = float(np.min(score.lows)), float(np.max(score.highs))
    return 0.0 if lowest >= 0 else -1.0 if lowest >= -1 else -np.inf, 1.0 if highest <= 1 else np.inf


def _reach(error: float, estimate: Estimate, spread: Spread) -> float:
    """Compute the distance from a mean over replicates to one end of its interval.

    error: the standard error over groups on that side.
    """
    errors = np.sqrt(error**2 + spread.variances / estimate.replicates)
    if not errors.max() > 0:  # NaN too
        return error
    of_side = replace(estimate, of_groups=error**2)
    return half_width(tail_of(of_side, spread), errors, spread.weights, float(spread.degrees.min()))


def difference(
    metric: Metric, first: Sequence[Examples], second: Sequence[Examples], resamples: int, rng: np.random.Generator
) -> Difference:
    """Compare a metric of two methods on the same test examples, each method measured with S seeds.

    first, second: one mapping of per-example columns a seed, the same number of seeds for both; ``id`` and ``group``
    say which examples are the same. Raises ``BenchError`` where the examples differ.

    The resamples of groups are the same for both methods and all seeds; see conclude() for the rest.
    """
    return conclude([compared(metric, first, second, resamples, rng)])[0]


def compared(
    metric: Metric, first: Sequence[Examples], second: Sequence[Examples], resamples: int, rng: np.random.Generator
) -> Estimate:
    """Measure a difference as difference() does, up to the variance of the seeds, which others may share."""
    runs = same_examples(first, second)
    groups, seeds = runs[0]["group"], len(first)
    population = np.unique(groups)
    values = np.array([metric(run) for run in runs])
    # Every run gets a generator in the same state, and with it the same draws.
    seed = int(rng.integers(2**63))
    resampled = np.stack(
        [resample(metric, run, groups, population, resamples, np.random.default_rng(seed)) for run in runs]
    )
    by_run = (values[:seeds] - values[seeds:])[:, None], (resampled[:seeds] - resampled[seeds:])[:, None]
    return estimate(*by_run, effective_groups(metric, runs[0], groups))
