"""Intervals and tests against simulation, scipy and published tables."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmark.common.errors import BenchError
from benchmark.evaluation.measurement import Examples, Mean, Metric
from benchmark.evaluation.metrics import MacroAccuracy, MacroAUROC, MacroAveragePrecision, MacroRecall, Median, PerClass
from benchmark.evaluation.replicates import conclude, difference, estimate, two_sources
from benchmark.evaluation.statistics import effective_groups, holm, interval, ranks, resample, resample_all, scarcest

Columns = dict[str, np.ndarray]


def columns(group: np.ndarray, **values: np.ndarray) -> Columns:
    return {"id": np.array([f"id-{i}" for i in range(len(group))]), "group": group, **values}


def clustered(random: np.random.Generator, groups: int, share: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Groups of 1-3 examples, and the part of each value that the group has in common, of variance ``share``."""
    group = np.repeat(np.arange(groups), random.integers(1, 4, groups))
    return group, random.normal(0, share**0.5, groups)[group]


def mean_problem(random: np.random.Generator, groups: int) -> tuple[Columns, Metric, float]:
    group, common = clustered(random, groups)
    return columns(group, x=common + random.normal(0, 0.5**0.5, len(group))), Mean("x"), 0.0


def accuracy_problem(random: np.random.Generator, groups: int) -> tuple[Columns, Metric, float]:
    group, common = clustered(random, groups, 0.8)
    latent = common + random.normal(0, 0.2**0.5, len(group))
    return columns(group, x=(latent < stats.norm.ppf(0.8)).astype(float)), Mean("x"), 0.8


def auroc_problem(random: np.random.Generator, groups: int) -> tuple[Columns, Metric, float]:
    group, common = clustered(random, groups)
    label = random.integers(0, 2, len(group))
    score = common + random.normal(0, 0.5**0.5, len(group)) + label
    examples = columns(group, label=label, **{"score/no": -score, "score/yes": score})
    return examples, MacroAUROC(("no", "yes")), float(stats.norm.cdf(1 / 2**0.5))


@pytest.mark.parametrize(
    "problem", [mean_problem, accuracy_problem, pytest.param(auroc_problem, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("groups", [60, 150])
def test_intervals_cover_the_truth(
    problem: Callable[[np.random.Generator, int], tuple[Columns, Metric, float]], groups: int
) -> None:
    random = np.random.default_rng(0)
    covered = []
    for _ in range(1000):
        examples, metric, truth = problem(random, groups)
        low, high = interval(metric, examples, examples["group"], 400, random)
        covered.append(low <= truth <= high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_examples_of_a_group_are_not_independent() -> None:
    """Ignoring the groups gives an interval that is too narrow."""
    random = np.random.default_rng(0)
    group = np.repeat(np.arange(50), 10)
    examples = columns(group, x=random.normal(size=50)[group] + 0.1 * random.normal(size=500))
    by_group = np.subtract(*interval(Mean("x"), examples, group, 1000, random)[::-1])
    by_example = np.subtract(*interval(Mean("x"), examples, np.arange(500), 1000, random)[::-1])
    assert by_group > 2.5 * by_example


def test_agrees_with_scipy_where_each_example_is_a_group() -> None:
    random = np.random.default_rng(0)
    x = random.exponential(size=400)
    found = interval(Mean("x"), columns(np.arange(400), x=x), np.arange(400), 20_000, random)
    expected = stats.bootstrap((x,), np.mean, n_resamples=20_000, method="percentile", rng=random).confidence_interval
    assert found == pytest.approx(expected, abs=0.005)


class Plain:
    """A metric that can only be called, so that each resample is made of repeated rows."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric

    def __call__(self, examples: Examples) -> float:
        return self.metric(examples)


@pytest.mark.parametrize("metric", [Mean("x"), Mean("x", where="used"), Median("x"), MacroAUROC(("no", "yes"))])
@pytest.mark.parametrize("elements", [50, 2_000_000])
def test_fast_ways_draw_the_same_resamples(metric: Metric, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = auroc_problem(np.random.default_rng(0), 30)[0]
    examples |= {"x": examples["score/yes"], "used": examples["label"] == 1}
    drawn = examples, examples["group"], np.unique(examples["group"]), 100
    slow = resample(Plain(metric), *drawn, np.random.default_rng(1))
    monkeypatch.setattr("benchmark.evaluation.statistics.ELEMENTS", elements)
    np.testing.assert_allclose(resample(metric, *drawn, np.random.default_rng(1)), slow)


@pytest.mark.parametrize("elements", [600, 2_000_000])
def test_all_metrics_have_the_resamples_of_each_alone(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = auroc_problem(np.random.default_rng(0), 30)[0]
    examples |= {"x": examples["score/yes"], "used": examples["label"] == 1}
    drawn = examples, examples["group"], np.unique(examples["group"]), 40
    metrics: list[Metric] = [Mean("x"), MacroAUROC(("no", "yes")), Plain(Mean("x")), Mean("x", "used"), Median("x")]
    alone = [resample(metric, *drawn, np.random.default_rng(1)) for metric in metrics]
    monkeypatch.setattr("benchmark.evaluation.statistics.ELEMENTS", elements)
    done: list[int] = []
    np.testing.assert_allclose(resample_all(metrics, *drawn, np.random.default_rng(1), done.append), alone)
    assert done == sorted(done)
    assert done[-1] >= 3


@pytest.mark.parametrize("metric", [Mean("x"), MacroAUROC(("no", "yes"))])
def test_order_and_copies_within_groups_change_nothing(metric: Metric) -> None:
    examples = auroc_problem(np.random.default_rng(0), 30)[0]
    examples["x"] = examples["score/yes"]
    count = len(examples["id"])

    def of(rows: np.ndarray) -> tuple[float, float]:
        taken = {name: column[rows] for name, column in examples.items()}
        return interval(metric, taken, taken["group"], 300, np.random.default_rng(1))

    expected = of(np.arange(count))
    assert of(np.random.default_rng(2).permutation(count)) == pytest.approx(expected)
    assert of(np.repeat(np.arange(count), 3)) == pytest.approx(expected)


def test_scaling_scales() -> None:
    examples = mean_problem(np.random.default_rng(0), 30)[0]
    low, high = interval(Mean("x"), examples, examples["group"], 300, np.random.default_rng(1))
    scaled = examples | {"x": 5 * examples["x"] - 2}
    found = interval(Mean("x"), scaled, scaled["group"], 300, np.random.default_rng(1))
    assert found == pytest.approx((5 * low - 2, 5 * high - 2))


def test_the_effective_number_of_groups() -> None:
    """100 patients with two images each; of three findings, 50, 4 and 99 of the patients have it, one image each."""
    group = np.repeat(np.arange(100), 2)
    positives = {"half": 50, "rare": 4, "common": 99}
    labels = {
        f"label/{name}": ((group < count) & (np.arange(200) % 2 == 0)).astype(int) for name, count in positives.items()
    }
    examples = columns(group, x=np.zeros(200), used=group < 30, **labels)
    names = tuple(positives)

    def of(metric: Metric) -> tuple[float, int | None]:
        return effective_groups(metric, examples, group), scarcest(metric, examples, group)

    assert of(Mean("x")) == of(Median("x")) == (100, None)
    assert of(Mean("x", "used")) == (30, None)
    assert of(MacroRecall(names, True, ("rare",))) == (4, 4)
    assert of(MacroAccuracy(names, True, ("rare",))) == (100, None)
    # All patients have an image without the finding.
    parts = np.where(np.arange(100) < 4, 1 / 4**2, 0) + 1 / 100**2
    assert of(MacroAUROC(names, True, ("rare",))) == (pytest.approx(parts.sum() ** 2 / (parts**2).sum()), 4)
    parts += np.where(np.arange(100) < 50, 1 / 50**2, 0) + np.where(np.arange(100) < 99, 1 / 99**2, 0) + 2 / 100**2
    assert of(MacroAUROC(names, True)) == (pytest.approx(parts.sum() ** 2 / (parts**2).sum()), 4)
    examples |= {f"label/{name}": 1 - column for name, column in ((name, labels[f"label/{name}"]) for name in names)}
    assert of(MacroAUROC(names, True))[1] == 4
    assert of(MacroRecall(names, True))[1] == 100
    # Findings that nobody has, or whose truth is unknown, are in no mean.
    examples["label/rare"] = np.where(group < 10, 0, -1)
    assert of(MacroRecall(names, True, ("rare",))) == (0, None)
    assert of(MacroAccuracy(names, True, ("rare",))) == (10, None)


def test_one_group_has_no_interval() -> None:
    for count in (1, 5):
        examples = columns(np.zeros(count), x=np.arange(count, dtype=float))
        assert np.isnan(interval(Mean("x"), examples, examples["group"], 100, np.random.default_rng(0))).all()


def test_a_mean_of_equal_scores_may_have_others_elsewhere() -> None:
    """All right or all wrong: the interval of Clopper and Pearson for the groups."""
    for groups in (2, 10, 50):
        group = np.repeat(np.arange(groups), 3)
        examples = columns(group, right=np.ones(len(group)), wrong=np.zeros(len(group)), first=group < groups // 2)

        def of(metric: Mean, examples: Columns = examples) -> tuple[float, float]:
            return interval(metric, examples, examples["group"], 100, np.random.default_rng(0))

        expected = stats.binomtest(groups, groups).proportion_ci(0.95, "exact")
        assert of(Mean("right")) == pytest.approx((expected.low, 1.0))
        assert of(Mean("wrong")) == pytest.approx((0.0, 1 - expected.low))
        assert of(Mean("wrong", highest=10.0)) == pytest.approx((0.0, 10 * (1 - expected.low)))
        assert of(Mean("right", "first")) == pytest.approx((0.025 ** (1 / (groups // 2)), 1.0))
        # Of a score that is neither the least nor the highest nothing more is known.
        assert of(Mean("right", highest=2.0)) == (1.0, 1.0)


def test_intervals_near_the_end_cover_the_truth() -> None:
    """97 % right, 50 patients with an image each: a fifth of the test sets have no error."""
    random = np.random.default_rng(0)
    covered = []
    for _ in range(1000):
        examples = columns(np.arange(50), x=(random.random(50) < 0.97).astype(float))
        low, high = interval(Mean("x"), examples, examples["group"], 400, random)
        covered.append(low <= 0.97 <= high)
    assert np.mean(covered) >= 0.93


def test_the_interval_is_symmetric_on_the_scale_of_the_logit() -> None:
    """The formula, step by step, where all of 12 patients count and some resamples have no error."""
    x = np.array([1.0] * 10 + [0.0, 0.6])
    examples = columns(np.arange(12), x=x)
    low, high = interval(Mean("x"), examples, examples["group"], 500, np.random.default_rng(1))
    drawn = resample(Mean("x"), examples, examples["group"], np.arange(12), 500, np.random.default_rng(1))
    assert drawn.max() == 1
    value = x.mean()
    below = [float(each) for each in drawn if each < 1]
    logits = [np.log(each / (1 - each)) for each in [min(each, max(below)) for each in drawn]]
    variance = (np.var(drawn, ddof=1) / (value * (1 - value)) ** 2 + np.var(logits, ddof=1)) / 2 * 12 / 11
    ends = np.log(value / (1 - value)) + np.array([-1, 1]) * stats.t.ppf(0.975, 11) * variance**0.5
    assert (low, high) == pytest.approx(tuple(1 / (1 + np.exp(-ends))))
    assert 0 < low < value < high < 1
    # A mean in -1..1 is moved into 0..1, and one in 0..2 is halved.
    moved = examples | {"x": 2 * x - 1, "twice": 2 * x}
    of_moved = interval(Mean("x", lowest=-1.0), moved, moved["group"], 500, np.random.default_rng(1))
    assert of_moved == pytest.approx((2 * low - 1, 2 * high - 1))
    of_twice = interval(Mean("twice", highest=2.0), moved, moved["group"], 500, np.random.default_rng(1))
    assert of_twice == pytest.approx((2 * low, 2 * high))


def test_perfect_separation_has_the_bound_of_the_scarcer_side() -> None:
    """An AUROC or a recall of 1 on few patients with the finding: others may be ranked otherwise."""
    group = np.repeat(np.arange(400), 2)
    label = (group < 10).astype(int)
    examples = columns(group, **{"label/a": label, "score/a": label - 0.5})
    low, high = interval(MacroAUROC(("a",), True), examples, group, 100, np.random.default_rng(0))
    of_ten = stats.binomtest(10, 10).proportion_ci(0.95, "exact").low
    assert of_ten < low < of_ten + 0.02
    assert high == 1
    of_recall = interval(MacroRecall(("a",), True), examples, group, 100, np.random.default_rng(0))
    assert of_recall == pytest.approx((of_ten, 1))
    wrong = examples | {"score/a": 0.5 - label}
    assert interval(MacroAUROC(("a",), True), wrong, group, 100, np.random.default_rng(0)) == pytest.approx(
        (0, 1 - low)
    )


def test_resamples_without_a_class_are_left_out() -> None:
    examples = columns(
        np.arange(4), label=np.array([0, 0, 0, 1]), **{"score/a": -np.arange(4.0), "score/b": np.arange(4.0)}
    )
    drawn = resample(MacroAUROC(("a", "b")), examples, np.arange(4), np.arange(4), 200, np.random.default_rng(0))
    assert np.isnan(drawn).any()
    # One group with the class and three without: (1 + 1/3)^2 / (1 + 1/27) effective groups.
    expected = 0.025 ** (1 / ((1 + 1 / 3) ** 2 / (1 + 1 / 27)))
    found = interval(MacroAUROC(("a", "b")), examples, examples["group"], 200, np.random.default_rng(0))
    assert found == pytest.approx((expected, 1.0))
    examples["label"] = np.zeros(4, int)
    assert np.isnan(interval(MacroAUROC(("a", "b")), examples, examples["group"], 200, np.random.default_rng(0))).all()


def test_nan_is_an_error_that_names_the_example() -> None:
    x = np.array([1.0, np.nan, 2.0])
    examples = columns(np.arange(3), x=x, used=np.array([True, False, True]))
    with pytest.raises(BenchError, match="'id-1': x is not a number"):
        interval(Mean("x"), examples, examples["group"], 10, np.random.default_rng(0))
    assert np.isfinite(interval(Mean("x", where="used"), examples, np.arange(3), 10, np.random.default_rng(0))).all()
    examples["used"] = np.array([False, True, True])
    with pytest.raises(BenchError, match="'id-1': x is not a number"):
        interval(Mean("x", where="used"), examples, examples["group"], 10, np.random.default_rng(0))


@pytest.mark.slow
def test_large_is_fast() -> None:
    random = np.random.default_rng(0)
    examples = columns(np.arange(10_000), x=random.normal(size=10_000))
    start = time.process_time()
    low, high = interval(Mean("x"), examples, examples["group"], 10_000, random)
    assert time.process_time() - start < 10
    assert high - low == pytest.approx(2 * 1.96 / 100, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("metric", [MacroAUROC, MacroAveragePrecision])
def test_curves_of_many_classes_are_fast(metric: type[PerClass]) -> None:
    """10,000 resamples of 10,000 examples and 9 classes in seconds."""
    random = np.random.default_rng(0)
    label = np.arange(10_000) % 9
    scores = random.random((10_000, 9)) + 0.3 * np.eye(9)[label]
    names = tuple("abcdefghi")
    examples = columns(np.arange(10_000) // 2, label=label, **{f"score/{x}": scores[:, i] for i, x in enumerate(names)})
    start = time.process_time()
    interval(metric(names), examples, examples["group"], 10_000, random)
    assert time.process_time() - start < 30


def runs_of(
    random: np.random.Generator, group: np.ndarray, common: np.ndarray, seeds: int, offset: float, seed_sd: float
) -> list[Columns]:
    """One method with several seeds: what is hard is so for all, and each seed has a quality of its own."""
    return [
        columns(group, x=common + offset + random.normal(0, seed_sd) + random.normal(0, 0.5, len(group)))
        for _ in range(seeds)
    ]


NOT_KEPT = pytest.mark.xfail(strict=True, reason="a single pair of two seeds: docs/statistics.md, what is not covered")
"""With two seeds, one difference alone cannot tell how much seeds differ: 0.1 % are false where that is little, and up
to 9 % where it is thirty points."""
SLOW = [(2, 0.1), (3, 0.05), (3, 0.1), (3, 0.3), (5, 0.05), (5, 0.1), (5, 0.2), (5, 0.3)]


@pytest.mark.parametrize("method_sd", [0.0, pytest.param(0.4, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("seeds", "seed_sd"),
    [(1, 0.0), (2, 0.2), (3, 0.2), *(pytest.param(*x, marks=pytest.mark.slow) for x in SLOW)]
    + [pytest.param(2, seed_sd, marks=[pytest.mark.slow, NOT_KEPT]) for seed_sd in (0.05, 0.3)],
)
def test_false_positives_are_as_rare_as_promised(seeds: int, seed_sd: float, method_sd: float) -> None:
    """method_sd: of what a group has in common under one method and not under the other."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(1000):
        group, common = clustered(random, 60)
        first, second = (
            runs_of(random, group, common + random.normal(0, method_sd, 60)[group], seeds, 0.0, seed_sd)
            for _ in range(2)
        )
        found.append(difference(Mean("x"), first, second, 200, random))
    false = np.mean([x.p < 0.05 for x in found])
    assert (0.01 if seeds == 2 else 0.028) <= false <= 0.07
    assert np.mean([x.low <= 0 <= x.high for x in found]) == 1 - false


def test_what_seeds_do_not_share_is_counted_once() -> None:
    """Seeds that err on other patients, each at random: their spread has all of it, and the interval is Student's."""
    random = np.random.default_rng(0)
    values, resampled = random.normal(0, 0.1, 5), random.normal(0, 0.1, (5, 20_000))
    (found,) = conclude([estimate(values[:, None], resampled[:, None], 60)])
    low, high = stats.ttest_1samp(values, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02 * (high - low))


def test_of_many_tests_with_few_seeds_as_few_are_false() -> None:
    """Holm's correction asks for p-values that hold at 0.5 % too, whatever the part of the seeds in the variance."""
    random = np.random.default_rng(0)
    for seeds in (2, 3, 5):
        for part in (0.0, 0.1, 1.0, 10.0, 100.0):
            groups = random.chisquare(59, 20_000) / 59
            of_seeds = part * random.chisquare(seeds - 1, 20_000) / (seeds - 1)
            error = np.sqrt(groups + of_seeds)
            distance = np.abs(random.normal(0, np.sqrt(1 + part), 20_000)) / error
            p = two_sources(distance, of_seeds / error**2, 59, seeds - 1)
            assert np.mean(p < 0.05) < 0.06, (seeds, part)
            assert np.mean(p < 0.005) < 0.0075, (seeds, part)


def test_two_sources_where_one_is_all() -> None:
    assert two_sources(2.0, 0.0, 30, 2) == pytest.approx(2 * stats.t.sf(2.0, 30))
    assert two_sources(2.0, 1.0, 30, 2) == pytest.approx(2 * stats.t.sf(2.0, 2))


def test_seeds_that_agree_by_rounding_prove_nothing() -> None:
    """Two seeds of 0/1 scores often differ by the same count, while they are right on other patients."""
    random = np.random.default_rng(0)
    false = []
    for _ in range(1000):
        first, second = (
            [columns(np.arange(60), x=(random.random(60) < 0.7).astype(float)) for _ in range(2)] for _ in range(2)
        )
        false.append(difference(Mean("x"), first, second, 200, random).p)
    assert np.mean(np.array(false) < 0.05) < 0.06
    assert np.mean(np.array(false) < 0.005) < 0.005


def test_few_groups_that_agree_prove_no_more_than_their_number() -> None:
    """The sign-flip test of G groups cannot give less than 2^(1 - G)."""
    for groups in (2, 5, 6, 10):
        one, zero = (columns(np.arange(groups), x=np.full(groups, x)) for x in (1.0, 0.0))
        found = difference(Mean("x"), [one], [zero], 100, np.random.default_rng(0))
        assert (found.value, found.p) == (1.0, 2.0 ** (1 - groups))
        assert np.isnan([found.low, found.high]).all()
        near = difference(
            Mean("x"), [one | {"x": one["x"] - np.eye(groups)[0] * 0.01}], [zero], 100, np.random.default_rng(0)
        )
        assert near.p == 2.0 ** (1 - groups)
        assert np.isnan(near.low) == (groups < 6)


def test_pairing_finds_what_separate_intervals_do_not() -> None:
    random = np.random.default_rng(0)
    group, common = clustered(random, 100)
    first, second = ([columns(group, x=common + offset + random.normal(0, 0.1, len(group)))] for offset in (0.1, 0.0))
    found = difference(Mean("x"), first, second, 500, random)
    assert found.p < 1e-4
    assert found.low > 0
    assert found.value == pytest.approx(first[0]["x"].mean() - second[0]["x"].mean())
    separate = [interval(Mean("x"), run, group, 500, random) for run in (first[0], second[0])]
    assert separate[0][0] < separate[1][1]


def test_difference_pairs_by_id_and_is_antisymmetric() -> None:
    random = np.random.default_rng(0)
    group, common = clustered(random, 40)
    first, second = runs_of(random, group, common, 2, 0.2, 0.1), runs_of(random, group, common, 2, 0.0, 0.1)
    found = difference(Mean("x"), first, second, 300, np.random.default_rng(1))
    order = random.permutation(len(group))
    shuffled = [{name: column[order] for name, column in run.items()} for run in second]
    again = difference(Mean("x"), first, shuffled, 300, np.random.default_rng(1))
    assert (again.value, again.low, again.high, again.p) == pytest.approx((found.value, found.low, found.high, found.p))
    back = difference(Mean("x"), second, first, 300, np.random.default_rng(1))
    assert (-back.value, -back.high, -back.low, back.p) == pytest.approx((found.value, found.low, found.high, found.p))


def test_no_difference_at_all() -> None:
    examples = mean_problem(np.random.default_rng(0), 20)[0]
    found = difference(Mean("x"), [examples], [examples], 100, np.random.default_rng(0))
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


@pytest.mark.parametrize("seeds", [1, 3])
def test_lines_that_agree_on_all_patients_may_differ_on_others(seeds: int) -> None:
    """The share of patients on which they differ has the bound of Clopper and Pearson for 0 of 20."""
    (found,) = conclude([estimate(np.zeros((seeds, 1)), np.zeros((seeds, 1, 50)), groups=20, highest=1.0)])
    bound = stats.beta.ppf(0.975, 1, 20)
    assert (found.value, found.low, found.high, found.p) == (0, pytest.approx(-bound), pytest.approx(bound), 1)


def test_differences_of_what_was_not_measured_alike() -> None:
    examples = mean_problem(np.random.default_rng(0), 20)[0]
    fewer = {name: column[1:] for name, column in examples.items()}
    with pytest.raises(BenchError, match="'id-0' is missing in some run"):
        difference(Mean("x"), [examples], [fewer], 10, np.random.default_rng(0))
    with pytest.raises(BenchError, match="the same number of runs of both methods, one or more: found 1 and 2"):
        difference(Mean("x"), [examples], [examples, examples], 10, np.random.default_rng(0))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(deadline=None)
def test_holm_rejects_as_the_step_down_procedure(p: list[float]) -> None:
    adjusted = holm(p)
    for level in (0.01, 0.05, 0.2):
        rejected = np.zeros(len(p), dtype=bool)
        for step, i in enumerate(np.argsort(p)):
            if p[i] > level / (len(p) - step):
                break
            rejected[i] = True
        near = np.abs(adjusted - level) < 1e-12
        np.testing.assert_array_equal((adjusted <= level)[~near], rejected[~near])


def test_holm_leaves_out_what_was_not_tested() -> None:
    np.testing.assert_allclose(holm([0.01, np.nan, 0.04, 0.03]), [0.03, np.nan, 0.06, 0.06])
    assert len(holm([])) == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.data())
@settings(deadline=None)
def test_holm_of_a_selection_is_never_below_that_of_all(p: list[float], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.sampled_from(range(len(p))), unique=True))
    assert (holm([p[row] for row in rows], len(p)) >= holm(p)[rows]).all()
    np.testing.assert_array_equal(holm(p, len(p)), holm(p))


def test_ranks_agree_with_scipy() -> None:
    random = np.random.default_rng(0)
    for scores in (random.normal(size=(12, 4)), random.integers(0, 3, (12, 4)).astype(float)):
        found = ranks(scores)
        assert found.p == pytest.approx(stats.friedmanchisquare(*scores.T).pvalue)
        np.testing.assert_allclose(found.mean, stats.rankdata(-scores, axis=1).mean(axis=0))


def test_critical_difference_is_that_of_the_published_table() -> None:
    """Demsar 2006, table 5(a): critical values of the Nemenyi test at 0.05 for 2 to 10 classifiers."""
    table = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]
    for methods, value in enumerate(table, start=2):
        scores = np.random.default_rng(0).normal(size=(14, methods))
        expected = value * np.sqrt(methods * (methods + 1) / (6 * 14))
        assert ranks(scores).critical_difference == pytest.approx(expected, abs=2e-3)


def test_ranks_of_equals() -> None:
    found = ranks(np.ones((5, 3)))
    np.testing.assert_array_equal(found.mean, [2, 2, 2])
    assert found.p == 1
    with pytest.raises(BenchError, match="two datasets and two methods"):
        ranks(np.ones((1, 3)))
