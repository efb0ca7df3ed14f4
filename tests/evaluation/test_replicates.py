"""The error of seeds and draws against loops from the formulas, and by what must hold in any case."""

import math

import numpy as np
import pytest
from scipy import stats

from benchmark.evaluation.replicates import (
    Estimate,
    Score,
    Spread,
    conclude,
    estimate,
    half_width,
    pooled,
    spreads,
    tail_of,
)
from tests.moderated import hypotheses

UNITS = [(0.9, 3, 0.4, 0.63), (0.05, 3, 0.3, 0.55), (2.5, 2, 0.5, 0.7), (0.4, 5, 0.2, 0.45), (1.1, 3, 0.6, 0.77)]
"""Variance over seeds, seeds, the part of it that resampling knows, and scale: in points."""


def estimates_of(units: list[tuple[float, int, float, float]]) -> list[Estimate]:
    return [Estimate(0.5, 0.2, 60, seeds, variance, known, scale) for variance, seeds, known, scale in units]


def test_the_variance_of_seeds_is_moderated_as_the_formula_says() -> None:
    for spread, by_hand in zip(spreads(estimates_of(UNITS)), hypotheses(UNITS), strict=True):
        np.testing.assert_allclose(spread.weights, [weight for weight, _, _ in by_hand], rtol=1e-8)
        np.testing.assert_allclose(spread.variances, [variance for _, variance, _ in by_hand], rtol=1e-10)
        np.testing.assert_allclose(spread.degrees, [degrees for _, _, degrees in by_hand])


def test_two_seeds_of_few_comparisons_are_moderated_under_a_heavier_tail() -> None:
    pair = [(0.9, 2, 0.4, 0.63), (0.05, 3, 0.3, 0.55)]
    for spread, by_hand in zip(spreads(estimates_of(pair)), hypotheses(pair, few=True), strict=True):
        np.testing.assert_allclose(spread.weights, [weight for weight, _, _ in by_hand], rtol=1e-8)
        np.testing.assert_allclose(spread.variances, [variance for _, variance, _ in by_hand], rtol=1e-10)


def test_interval_and_p_value_are_those_of_the_mixture() -> None:
    """P by a loop over the hypotheses, and the interval where that is 5 %."""
    made = estimates_of(UNITS)
    for each, concluded, by_hand in zip(made, conclude(made), hypotheses(UNITS), strict=True):

        def tail(distance: float, each: Estimate = each, by_hand: list = by_hand) -> float:
            p = 0.0
            for weight, variance, degrees in by_hand:
                total = each.of_groups + variance / each.replicates
                of_seeds = (variance / each.replicates / total) ** (degrees / 2)
                t = distance / math.sqrt(total)
                p += weight * 2 * ((1 - of_seeds) * stats.t.sf(t, 59) + of_seeds * stats.t.sf(t, degrees))
            return p

        assert concluded.p == pytest.approx(tail(0.5))
        assert tail(concluded.high - concluded.value) == pytest.approx(0.05)
        assert concluded.value - concluded.low == pytest.approx(concluded.high - concluded.value)


@pytest.mark.parametrize("groups", [3, 60, math.inf])
@pytest.mark.parametrize("degrees", [1.0, 4.0, 1000.0])
def test_beyond_half_the_width_are_5_percent_however_unlike_the_hypotheses(groups: float, degrees: float) -> None:
    for unlikely in (1e-6, 0.049, 0.051, 0.5, 0.999):
        for larger in (1.0, 10.0, 1e6):
            variances = np.array([1e-3, 1e-3 * larger])
            spread = Spread(np.array([1 - unlikely, unlikely]), variances, np.array([degrees, 1000.0]))
            each = Estimate(0.5, 1e-3, groups, 2)
            tail = tail_of(each, spread)
            half = half_width(tail, np.sqrt(1e-3 + variances / 2), spread.weights, min(groups - 1, degrees))
            assert tail(half) == pytest.approx(0.05, rel=1e-8)


def test_up_to_three_are_taken_alone_as_students_t_does() -> None:
    """Without an error of groups the interval of each is that of a t-test on its own seeds."""
    rng = np.random.default_rng(0)
    values = rng.normal(1, 1, (3, 4))
    made = [Estimate(float(x.mean()), 0.0, 60, 4, float(x.var(ddof=1))) for x in values]
    for x, concluded in zip(values, conclude(made), strict=True):
        interval = stats.ttest_1samp(x, 0).confidence_interval()
        assert (concluded.low, concluded.high) == pytest.approx((interval.low, interval.high))
        assert concluded.p == pytest.approx(stats.ttest_1samp(x, 0).pvalue)


def test_two_seeds_have_possible_intervals() -> None:
    """Two seeds that differ by six points leave much open when alone, and less among ten like them."""
    pair = Estimate(0.07, 0.01**2, 100, 2, 0.04**2 / 2, 0.01**2, 0.01, highest=1.0)
    (alone,) = conclude([pair])
    together = conclude([pair] * 10)[0]
    assert 0.15 < alone.high - alone.low < 0.8
    assert together.high - together.low < 0.8 * (alone.high - alone.low)
    wide = conclude([Estimate(0.9, 0.01, 100, 2, 0.5, highest=1.0)])[0]
    assert (wide.low >= -1, wide.high) == (True, 1.0)
    ((_, low, high),) = pooled([Score(np.array([0.1, 0.9]), np.array([0.05, 0.85]), np.array([0.15, 0.95]))])
    assert 0.0 <= low < high <= 1.0


def test_a_noisy_line_is_not_made_as_sure_as_the_others() -> None:
    """Of lines whose seeds differ by one point, the one that differs by ten keeps most of its own variance."""
    quiet = [Estimate(0.0, 0.01**2, 100, 3, 0.01**2, 0.01**2, 0.01) for _ in range(9)]
    noisy = Estimate(0.0, 0.01**2, 100, 3, 0.1**2, 0.01**2, 0.01)
    *others, last = conclude([*quiet, noisy])
    assert last.high > 4 * others[0].high


def replicated(
    seeds: int, draws: int, of_seed: float, of_draw: float, random: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Values [S, D] and their resamples [S, D, R]: an error of the groups that all share (1), and one of each (0.5)."""
    rng = np.random.default_rng(random)
    shared, own = rng.normal(0, 1, 4000), rng.normal(0, 0.5, (seeds, draws, 4000))
    values = (
        rng.normal(0, of_seed, (seeds, 1))
        + rng.normal(0, of_draw, (seeds, draws))
        + 0.5 * rng.normal(0, 1, (seeds, draws))
    )
    return values, values[:, :, None] + shared + own


def test_what_replicates_share_of_the_groups_error_is_told_apart() -> None:
    scale = 100 / 99
    values, resampled = replicated(3, 1, 0.0, 0.0)
    of_seeds = estimate(values, resampled, 100)
    assert (of_seeds.of_seeds, of_seeds.replicates) == (True, 3)
    assert (of_seeds.of_groups, of_seeds.known) == pytest.approx((scale, 0.25 * scale), rel=0.1)
    assert of_seeds.variance == pytest.approx(values.var(ddof=1))
    values, resampled = replicated(1, 5, 0.0, 2.0)
    of_draws = estimate(values, resampled, 100)
    assert (of_draws.of_seeds, of_draws.replicates) == (False, 5)
    assert (of_draws.of_groups, of_draws.known) == pytest.approx((scale, 0.25 * scale), rel=0.1)
    assert of_draws.variance == pytest.approx(values.var(ddof=1))
    one = estimate(*replicated(1, 1, 0.0, 0.0), 100)
    assert (one.replicates, one.of_groups) == (1, pytest.approx(1.25 * scale, rel=0.1))


def test_draws_of_several_seeds_are_part_of_how_much_seeds_differ() -> None:
    """The known part of the seeds' variance is the mean over seeds of that of the draws, over their number."""
    values, resampled = replicated(4, 5, 0.0, 3.0)
    made = estimate(values, resampled, 100)
    assert made.variance == pytest.approx(values.mean(axis=1).var(ddof=1))
    own = 0.25 * 100 / 99
    expected = own / 5 + np.mean([max(0, of_seed.var(ddof=1) - own) for of_seed in values]) / 5
    assert made.known == pytest.approx(expected, rel=0.05)


def test_what_is_the_same_for_every_seed_adds_nothing() -> None:
    """An encoder without randomness scores the same whatever the seed: its interval is that of one seed."""
    rng = np.random.default_rng(0)
    resampled = np.broadcast_to(rng.normal(0, 0.1, 500), (3, 1, 500))
    same = estimate(np.full((3, 1), 0.2), resampled, 50)
    one = estimate(np.full((1, 1), 0.2), resampled[:1], 50)
    assert conclude([same])[0].high == pytest.approx(conclude([one])[0].high)
    others = [estimate(*replicated(3, 1, 1.0, 0.0, random), 50) for random in range(5)]
    assert conclude([same, *others])[0].high == pytest.approx(conclude([one])[0].high)


def test_seeds_and_draws_do_not_say_how_much_the_other_differ() -> None:
    draws = [estimate(*replicated(1, 5, 0.0, 9.0, random), 50) for random in range(5)]
    seeds = [estimate(*replicated(3, 1, 0.1, 0.0, random), 50) for random in range(5)]
    alone, mixed = conclude(seeds), conclude([*draws, *seeds])[5:]
    assert [each.high for each in alone] == [each.high for each in mixed]


def test_undefined_is_undefined() -> None:
    nowhere = estimate(np.array([[0.5]]), np.full((1, 1, 100), np.nan), 50)
    single = estimate(np.array([[0.5]]), np.zeros((1, 1, 100)), 1)
    for concluded in conclude([nowhere, single]):
        assert concluded.value == 0.5
        assert np.isnan([concluded.low, concluded.high, concluded.p]).all()
