"""Intervals by the bootstrap over groups (patients), Holm's correction for several tests, and mean ranks over datasets.

replicates.py has the error of seeds and draws, and paired differences.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from benchmark.common.errors import BenchError
from benchmark.evaluation.measurement import Examples, Mean, MeanOverDraws, Metric, Sided, draws_of
from benchmark.evaluation.metrics import Weighted, numbers

LEVEL = 0.95
"""The confidence of every interval."""
ELEMENTS = 2_000_000
"""The most numbers in memory at a time: resamples are drawn in chunks of so many groups or examples."""


def interval(
    metric: Metric, examples: Examples, groups: np.ndarray, resamples: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Compute the 95 % interval of a metric: (low, high), by resample() and bounds().

    groups: [n], aligned with the columns of ``examples``. The interval depends on the order of the examples no more
    than the metric does.
    """
    resampled = resample(metric, examples, groups, np.unique(groups), resamples, rng)
    return bounds(metric, examples, groups, metric(examples), resampled)


def bounds(
    metric: Metric, examples: Examples, groups: np.ndarray, value: float, resampled: np.ndarray
) -> tuple[float, float]:
    """Compute the 95 % interval (low, high) of a metric from its value and its resampled values, [R].

    Of a metric that has a range (a mean, a mean over classes) it is that of on_logit(). Where value and resamples are
    all at one end, as of an AUROC of 1, or all 0 of a mean that can be negative, none of the G effective groups scored
    otherwise; by the interval of Clopper and Pearson (1934), a share of up to 1 - 0.025^(1/G) of all groups might
    (about 3.7 / G). That share is assumed to have the opposite score (if negative is possible, each of both).
    Of other metrics, the interval is that of percentiles().
    (NaN, NaN) for a single group, and where the metric is undefined.
    """
    count, undefined = effective_groups(metric, examples, groups), (float("nan"), float("nan"))
    # Rounded, so that what adds up to the highest value but for an error of floating point is there.
    value, resampled = round(value, 12), np.round(resampled[~np.isnan(resampled)], 12)
    if len(np.unique(groups)) < 2 or count < 1 or np.isnan(value) or not len(resampled):
        return undefined
    lowest, highest = range_of(metric)
    # A mean of numbers that its column says cannot be has no such range.
    if not np.isfinite(highest) or min(value, resampled.min()) < lowest or max(value, resampled.max()) > highest:
        return percentiles(resampled, count) if count > 1 else undefined
    span = highest - lowest
    part, drawn = (value - lowest) / span, (resampled - lowest) / span
    if value in (lowest, 0.0, highest) and (resampled == value).all():
        share = float(1 - ((1 - LEVEL) / 2) ** (1 / count))
        low, high = part - share * part, part + share * (1 - part)
    elif count > 1:
        low, high = on_logit(part, drawn, count)
    else:
        return undefined
    return lowest + span * low, lowest + span * high


def range_of(metric: Metric | None) -> tuple[float, float]:
    """Return the lowest and the highest value that a metric can have; infinity where they are not known."""
    if isinstance(metric, MeanOverDraws):
        return range_of(metric.draws[0])
    if isinstance(metric, Mean):
        return metric.lowest, metric.highest
    return (0.0, 1.0) if isinstance(metric, Sided) else (-np.inf, np.inf)


def on_logit(value: float, resampled: np.ndarray, groups: float) -> tuple[float, float]:
    """Compute the 95 % interval (low, high) of a value in 0..1, symmetric on the scale of the logit.

    logit(value) +- t se, with t of ``groups`` - 1 degrees of freedom. The bootstrap gives the variance of the logit in
    two ways: that of the resampled values over (value (1 - value))^2, as Pepe 2003, "The Statistical Evaluation of
    Medical Tests for Classification and Prediction", makes it of an AUROC's; and that of the logits of the resampled
    values, where those at an end count as the last before it. Near an end the former is too small and the latter too
    large: se^2 is their mean, times groups / (groups - 1), because a resample of few groups varies too little. In
    simulations the interval covers the truth where few groups have a class or nearly all is right, where percentiles do
    not: docs/statistics.md has the figures. groups: their effective number, above 1.
    """
    from scipy import special

    inside = resampled[(resampled > 0) & (resampled < 1)]
    if not 0 < value < 1 or len(inside) < 2:
        return value, value
    by_slope = float(resampled.var(ddof=1)) / (value * (1 - value)) ** 2
    of_logits = float(special.logit(resampled.clip(inside.min(), inside.max())).var(ddof=1))
    error = np.sqrt((by_slope + of_logits) / 2 * groups / (groups - 1))
    reach = special.stdtrit(groups - 1, (1 + LEVEL) / 2) * error
    low, high = special.expit(special.logit(value) + np.array([-reach, reach]))
    return float(low), float(high)


def effective_groups(metric: Metric, examples: Examples, groups: np.ndarray) -> float:
    """Count the groups that the sampling error of a metric rests on: at most those of ``groups`` [n], and 0 for none.

    Of a mean, the groups with an example that counts. Of a mean over classes, group i has a part of the variance that
    is v_i = sum of 1 / g_s^2 over the sides s that it has examples on, where g_s is the number of groups on side s; the
    effective number is (sum v_i)^2 / sum v_i^2 (Kish 1965). So it is g for a recall of one class with g positive
    groups, near the number of positive groups for an AUROC with many more negative ones, near that of the rare class
    for a mean over many common classes and one rare, and that of all groups where all have examples of everything.
    It depends on the labels alone, and so is the same for all methods. Degrees of freedom are one less.
    """
    group_of = np.unique(np.asarray(groups), return_inverse=True)[1]
    parts = np.zeros(group_of.max(initial=-1) + 1)
    for side, _ in _sides(metric, examples):
        present = np.bincount(group_of[side], minlength=len(parts)) > 0
        parts[present] += 1 / max(1, present.sum()) ** 2
    if not parts.any():
        return 0.0
    parts /= parts.max()  # Of g equal parts the answer is then g, without rounding.
    return float(parts.sum() ** 2 / (parts**2).sum())


def scarcest(metric: Metric, examples: Examples, groups: np.ndarray) -> int | None:
    """Count the groups on the scarcest side of any class that a metric averages over: the fewest with one truth.

    None for a metric that is no mean over classes or that does not tell the truths apart. groups: [n].
    """
    group_of = np.unique(np.asarray(groups), return_inverse=True)[1]
    sides = (side for side, of_one in _sides(metric, examples) if of_one)
    return min((int(np.count_nonzero(np.bincount(group_of[side]))) for side in sides), default=None)


def _sides(metric: Metric, examples: Examples) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield the examples on each side of a metric, and whether all have the same truth; see ``Sided``."""
    if isinstance(metric, Sided):
        yield from metric.sides(examples)
    else:
        yield metric.counted(examples) if isinstance(metric, Mean) else np.ones(len(examples["id"]), dtype=bool), False


def resample(
    metric: Metric,
    examples: Examples,
    groups: np.ndarray,
    population: np.ndarray,
    resamples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Compute one metric as resample_all() does: [resamples]."""
    return np.asarray(resample_all([metric], examples, groups, population, resamples, rng)[0])


def resample_all(
    metrics: Sequence[Metric],
    examples: Examples,
    groups: np.ndarray,
    population: np.ndarray,
    resamples: int,
    rng: np.random.Generator,
    progress: Callable[[int], object] = lambda done: None,
) -> np.ndarray:
    """Compute metrics in bootstrap samples of whole groups (patients): [M, resamples], NaN where one is undefined.

    Whole groups are drawn, with replacement, because the images of one patient are not independent.
    groups: [n], aligned with the columns of ``examples``. population: the distinct groups to draw from, sorted.
    Generators in the same state draw the same groups from the same population, whatever the metrics and the examples:
    so the values of two methods on the same test set are paired, as are those of the parts of one measurement.
    progress: called with how many of the metrics are done.
    """
    group_of, count = np.searchsorted(population, np.asarray(groups)), len(population)
    of_means = {
        row: _sums_of_groups(metric, examples, group_of, count)
        for row, metric in enumerate(metrics)
        if isinstance(metric, Mean)
    }
    values = np.empty((len(metrics), resamples))
    done = 0
    for counts in _counts(count, max(count, len(group_of)), resamples, rng):
        progress(done * len(metrics) // resamples)
        at = slice(done, done + len(counts))
        if of_means:
            # A mean needs only the sum and the count of each group.
            total, used = np.moveaxis(np.stack(list(of_means.values())) @ counts.T.astype(float), 1, 0)
            values[list(of_means), at] = np.divide(total, used, out=np.full_like(total, np.nan), where=used > 0)
        if len(of_means) < len(metrics):
            # The weights of an example in all resamples are contiguous, which makes sums over examples fast.
            weights = counts.T.astype(float, order="C")[group_of].T
            for row, metric in enumerate(metrics):
                if row not in of_means:
                    progress((done * len(metrics) + row * len(counts)) // resamples)
                    values[row, at] = _in_resamples(metric, examples, counts, group_of, weights)
        done += len(counts)
    return values


def _sums_of_groups(metric: Mean, examples: Examples, group_of: np.ndarray, groups: int) -> np.ndarray:
    """Sum the column of a mean, and count its examples, in each group: [2, groups]."""
    column, used = _mean_columns(metric, examples)
    return np.stack([np.bincount(group_of, column * used, groups), np.bincount(group_of, used, groups)])


def _in_resamples(
    metric: Metric, examples: Examples, counts: np.ndarray, group_of: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Compute a metric in r resamples: [r]. counts: of each group, [r, G]; weights: of each example, [r, n]."""
    weighted = [of_draw for of_draw in draws_of(metric) if isinstance(of_draw, Weighted)]
    if len(weighted) == len(draws_of(metric)):
        return np.asarray(np.mean([of_draw.weighted(examples, weights) for of_draw in weighted], axis=0))
    return np.array([metric(_repeated(examples, row[group_of])) for row in counts])


def percentiles(values: np.ndarray, groups: float) -> tuple[float, float]:
    """Compute the 95 % interval (low, high) of resampled values, by expanded percentiles.

    The percentiles are moved outwards for few groups (Hesterberg 2015, doi:10.1080/00031305.2015.1089789). For metrics
    without a range: medians, BLEU. groups: their effective number, above 1.
    """
    from scipy import special

    tail = special.ndtr(np.sqrt(groups / (groups - 1)) * special.stdtrit(groups - 1, (1 - LEVEL) / 2))
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _counts(groups: int, width: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Draw groups, and count how often each was drawn, in chunks int [r, groups].

    width: numbers in memory for each resample. The draws do not depend on the length of the chunks.
    """
    step = max(1, ELEMENTS // width)
    for start in range(0, resamples, step):
        drawn = rng.integers(groups, size=(min(step, resamples - start), groups), dtype=np.int32)
        offset = np.arange(len(drawn))[:, None] * groups  # int64: int32 could overflow in the sum.
        yield np.bincount((drawn + offset).ravel(), minlength=len(drawn) * groups).reshape(len(drawn), groups)


def _mean_columns(metric: Mean, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Return the column of a mean, 0 where it does not count, and where it counts, as float: [n] each."""
    column = np.asarray(examples[metric.column], dtype=np.float64)
    if metric.where is None:
        return numbers(examples, metric.column), np.ones(len(column))
    used = np.asarray(examples[metric.where], dtype=bool)
    numbers({"id": np.asarray(examples["id"])[used], metric.column: column[used]}, metric.column)
    return np.where(used, column, 0.0), used.astype(float)


def _repeated(examples: Examples, times: np.ndarray) -> Examples:
    """Repeat each example as often as it was drawn: int [n]."""
    rows = np.repeat(np.arange(len(times)), times)
    return {name: np.asarray(column)[rows] for name, column in examples.items()}


def same_examples(first: Sequence[Examples], second: Sequence[Examples]) -> list[Examples]:
    """Sort the examples of the runs of two methods by their ids: those of the first method, then of the second.

    Raises ``BenchError`` where the numbers of runs or the examples differ.
    """
    if len(first) != len(second) or not first:
        raise BenchError(
            f"a paired difference needs the same number of runs of both methods, one or more: found {len(first)} and "
            f"{len(second)}"
        )
    runs = [_sorted(run) for run in (*first, *second)]
    for run in runs:
        other = np.setxor1d(run["id"], runs[0]["id"])
        if len(other):
            raise BenchError(f"the methods were not measured on the same examples: '{other[0]}' is missing in some run")
    return runs


def _sorted(examples: Examples) -> Examples:
    """Sort examples by their ids."""
    order = np.argsort(np.asarray(examples["id"]), kind="stable")
    return {name: np.asarray(column)[order] for name, column in examples.items()}


def holm(p: Sequence[float], tests: int = 0) -> np.ndarray:
    """Correct p-values for multiple tests (Holm 1979).

    The probability that any of those below a threshold is false stays below it. NaN (no test) stays NaN and is not
    counted.

    tests: the number of all tests, where ``p`` is a selection that the data made. The others count as if they had
    larger p-values, so that the guarantee holds whatever was selected.
    """
    values = np.asarray(p, dtype=np.float64)
    adjusted = np.full(len(values), np.nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    factors = max(tests, len(order)) - np.arange(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    return adjusted


@dataclass(frozen=True)
class Ranks:
    """Mean ranks of methods over datasets (1 is best).

    p: Friedman's p-value of all methods being the same. critical_difference: Nemenyi's; mean ranks that are closer than
    this are not told apart at 5 %.
    """

    mean: np.ndarray
    p: float
    critical_difference: float


@cache
def _studentised(methods: int) -> float:
    """Compute the quantile of the studentised range of normal values, which takes half a second."""
    from scipy import stats

    return float(stats.studentized_range.ppf(LEVEL, methods, np.inf))


def ranks(scores: np.ndarray) -> Ranks:
    """Rank methods on each dataset and test the mean ranks.

    scores: [datasets, methods], higher is better, without NaN; at least two of each. Demsar 2006, "Statistical
    Comparisons of Classifiers over Multiple Data Sets".
    """
    # It takes half a second to import.
    from scipy import stats

    datasets, methods = scores.shape
    if datasets < 2 or methods < 2:
        raise BenchError(f"ranks need at least two datasets and two methods: found {datasets} and {methods}")
    mean = stats.rankdata(-scores, axis=1).mean(axis=0)
    expected = (methods + 1) / 2
    # Friedman's statistic with the correction for ties; scipy's function requires three methods.
    spread = stats.rankdata(-scores, axis=1).var(axis=1, ddof=1).sum()
    statistic = datasets**2 * ((mean - expected) ** 2).sum() / spread if spread else 0.0
    studentised = _studentised(methods) / np.sqrt(2)
    difference = studentised * np.sqrt(methods * (methods + 1) / (6 * datasets))
    return Ranks(mean, float(stats.chi2.sf(statistic, methods - 1)), float(difference))
