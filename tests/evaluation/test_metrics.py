"""Metrics against scikit-learn, torchmetrics and loops, and the properties they must have."""

import math
import subprocess
import sys
from functools import cache
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_calibration_error

from benchmark.common.errors import BenchError
from benchmark.evaluation import metrics as module
from benchmark.evaluation.measurement import Measurement
from benchmark.evaluation.metrics import (
    MacroAUROC,
    MacroAveragePrecision,
    MacroF1,
    MacroRecall,
    Median,
    PerClass,
    Weighted,
    auroc,
    average_precision,
    chance_average_precision,
    classification,
)

CLASSES = list("abcde")


def single(scores: np.ndarray, label: np.ndarray, **options: Any) -> Measurement:
    classes = CLASSES[: scores.shape[1]]
    return of(scores, label, classes=classes, multi_label=False, **options)


def several(scores: np.ndarray, label: np.ndarray, **options: Any) -> Measurement:
    return of(scores, label, classes=CLASSES[: scores.shape[1]], multi_label=True, **options)


def of(scores: np.ndarray, label: np.ndarray, **options: Any) -> Measurement:
    ids = [f"id-{i}" for i in range(len(scores))]
    return classification(ids=ids, groups=ids, scores=scores, label=label, **{"scale": 1.0} | options)


def values(measurement: Measurement) -> dict[str, float]:
    return {name: metric(measurement.examples) for name, metric in measurement.metrics.items()}


@pytest.fixture(params=range(3))
def random(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng(request.param)


def test_single_label_agrees_with_references(random: np.random.Generator) -> None:
    label = random.choice(5, 200, p=[0.4, 0.3, 0.2, 0.07, 0.03])
    scores = random.normal(size=(200, 5)) + np.eye(5)[label]
    found = values(single(scores, label, scale=3.0))
    predicted, probability = scores.argmax(1), softmax(3 * scores, axis=1)
    truth = np.eye(5)[label]
    expected = {
        "accuracy": sk.accuracy_score(label, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(label, predicted),
        "macro_f1": sk.f1_score(label, predicted, average="macro"),
        "macro_auroc": sk.roc_auc_score(truth, scores, average="macro"),
        "average_precision": sk.average_precision_score(truth, scores, average="macro"),
        "brier": np.mean(np.sum((probability - truth) ** 2, axis=1)),
        "ece": float(multiclass_calibration_error(torch.tensor(probability), torch.tensor(label), 5, n_bins=15)),
    }
    assert found == pytest.approx(expected, abs=1e-6)
    assert found | {"ece": 0} == pytest.approx(expected | {"ece": 0}, abs=1e-12)


def test_multi_label_agrees_with_references_over_the_known(random: np.random.Generator) -> None:
    label = random.integers(-1, 2, (200, 3))
    scores = random.normal(size=(200, 3)) + label
    found = values(several(scores, label, scale=2.0))
    expected: dict[str, list[float]] = {name: [] for name in found}
    for c in range(3):
        known = label[:, c] >= 0
        y, s = label[known, c], scores[known, c]
        p = expit(2 * s)
        expected["accuracy"].append(sk.accuracy_score(y, s > 0))
        expected["balanced_accuracy"].append(sk.balanced_accuracy_score(y, s > 0))
        expected["macro_f1"].append(sk.f1_score(y, s > 0))
        expected["macro_auroc"].append(sk.roc_auc_score(y, s))
        expected["average_precision"].append(sk.average_precision_score(y, s))
        expected["brier"].append(sk.brier_score_loss(y, p))
        two = torch.tensor(np.stack([1 - p, p], axis=1))
        expected["ece"].append(float(multiclass_calibration_error(two, torch.tensor(y), 2, n_bins=15)))
    assert found == pytest.approx({name: np.mean(parts) for name, parts in expected.items()}, abs=1e-6)


def test_saturated_scores_are_ranked_all_the_same() -> None:
    """100 x cosine saturates a float32 sigmoid; raw scores in float64 do not."""
    scores = np.array([[0.0, 100.0], [0.0, 100.0 + 1e-9], [0.0, 99.0]])
    assert values(single(scores, np.array([0, 1, 0])))["macro_auroc"] == pytest.approx((1.0 + 0.5) / 2)


def test_minus_infinity_is_a_score() -> None:
    scores = np.array([[0.0, 1.0, -np.inf], [1.0, 0.0, -np.inf], [0.0, 1.0, -np.inf]])
    found = values(single(scores, np.array([1, 0, 2])))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["macro_auroc"] == pytest.approx((1.0 + 0.75 + 0.5) / 3)


def test_unknown_labels_are_left_out() -> None:
    random = np.random.default_rng(0)
    scores, label = random.normal(size=(50, 3)), random.integers(0, 3, 50)
    with_unknown = single(np.vstack([scores, random.normal(size=(9, 3))]), np.append(label, np.full(9, -1)))
    assert values(with_unknown) == values(single(scores, label))
    assert with_unknown.notes["unknown_label"] == 9
    with pytest.raises(BenchError, match="none of 4 examples has a known label"):
        single(np.zeros((4, 3)), np.full(4, -1))


def test_absent_classes_are_left_out_and_named() -> None:
    random = np.random.default_rng(0)
    label = random.choice([0, 2, 3], 100)
    scores = random.normal(size=(100, 4))
    measurement = single(scores, label)
    found, predicted = values(measurement), scores.argmax(1)
    present = [0, 2, 3]
    assert measurement.notes["absent"] == ["b"]
    assert measurement.notes["auroc"]["b"] is None
    assert measurement.notes["support"] == {"a": sum(label == 0), "b": 0, "c": sum(label == 2), "d": sum(label == 3)}
    assert found["balanced_accuracy"] == pytest.approx(np.mean([np.mean(predicted[label == c] == c) for c in present]))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(label, predicted, labels=present, average="macro"))
    assert found["macro_auroc"] == pytest.approx(np.mean([sk.roc_auc_score(label == c, scores[:, c]) for c in present]))


def test_rare_classes_have_means_of_their_own() -> None:
    random = np.random.default_rng(0)
    label = random.integers(0, 4, 100)
    scores = random.normal(size=(100, 4))
    found = values(single(scores, label, rare=frozenset("bd")))
    assert found["rare_auroc"] == pytest.approx(np.mean([sk.roc_auc_score(label == c, scores[:, c]) for c in (1, 3)]))
    assert found["rare_recall"] == pytest.approx(np.mean([np.mean(scores[label == c].argmax(1) == c) for c in (1, 3)]))
    aurocs = [sk.roc_auc_score(label == c, scores[:, c]) for c in (0, 2)]
    assert found["common_auroc"] == pytest.approx(np.mean(aurocs))
    recalls = [np.mean(scores[label == c].argmax(1) == c) for c in (0, 2)]
    assert found["common_recall"] == pytest.approx(np.mean(recalls))
    assert not {"rare_auroc", "common_auroc"} & set(values(single(scores, label)))


@pytest.mark.parametrize(
    ("scores", "label"), [(np.ones((1, 3)), [1]), (np.ones((4, 1)), [0] * 4), (np.ones((4, 3)), [1] * 4)]
)
def test_one_example_or_one_class_leaves_out_what_is_undefined(scores: np.ndarray, label: list[int]) -> None:
    measurement = single(scores, np.array(label))
    assert "macro_auroc" in measurement.notes["undefined"]
    assert "macro_auroc" not in measurement.metrics
    assert set(measurement.chance) <= set(measurement.metrics)
    assert all(np.isfinite(value) for value in values(measurement).values())


def test_nan_is_an_error_that_names_the_example() -> None:
    scores = np.zeros((5, 2))
    scores[3, 1] = np.nan
    with pytest.raises(BenchError, match=r"'id-3': score/b is not a number"):
        single(scores, np.array([0, 1, 0, 1, 0]))
    with pytest.raises(BenchError, match=r"'id-3': score/b is not a number"):
        several(scores, np.ones((5, 2), int))


@pytest.mark.parametrize("multi_label", [False, True])
def test_constant_scorer_gets_chance(multi_label: bool) -> None:
    if multi_label:
        measurement = several(np.zeros((60, 3)), np.random.default_rng(0).permuted(np.tile([0, 1], (3, 30)), axis=1).T)
    else:
        measurement = single(np.full((60, 3), 0.7), np.arange(60) % 3)
    found = values(measurement)
    for name in ("accuracy", "balanced_accuracy", "macro_auroc", "macro_f1", "average_precision"):
        assert found[name] == pytest.approx(measurement.chance[name]), name


@pytest.mark.parametrize("positives", [1, 2, 4, 6])
def test_chance_average_precision_is_the_mean_over_all_orders(positives: int) -> None:
    found = []
    for places in combinations(range(6), positives):
        truth = np.isin(np.arange(6), places)
        found.append(sk.average_precision_score(truth, -np.arange(6)))
    assert chance_average_precision(np.array(positives), np.array(6)) == pytest.approx(np.mean(found))


def test_median_of_weighted_examples() -> None:
    random = np.random.default_rng(0)
    values = random.integers(0, 10, 20).astype(float)
    weights = random.integers(0, 4, (50, 20))
    found = Median("x").weighted({"id": np.arange(20), "x": values}, weights.astype(float))
    np.testing.assert_allclose(found, [np.median(np.repeat(values, times)) for times in weights])


@pytest.mark.parametrize("distinct", [3, 50, 120])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_weighted_metrics_agree_with_scikit_learn(distinct: int, layout: str, random: np.random.Generator) -> None:
    """Each weighting at once, with ties, with positives or negatives that are not drawn, and whatever the layout.

    Average precision is scikit-learn's only where nothing ties.
    """
    score = random.permutation(np.arange(120) % distinct).astype(float)
    for share in (0.02, 0.1, 0.5, 0.95):
        positive = random.random(120) < share
        positive[:2] = [True, False]
        weights = random.poisson(0.7, (12, 120)).astype(float, order=layout)
        weights[0, positive], weights[1, ~positive], weights[2] = 0, 0, 0
        ranked, precise = auroc(score, positive, weights), average_precision(score, positive, weights)
        for found, mean, row in zip(ranked, precise, weights):
            if not row @ positive:
                assert np.isnan(mean)
            elif distinct == 120:
                assert mean == pytest.approx(sk.average_precision_score(positive, score, sample_weight=row))
            if row @ positive and row @ ~positive:
                assert found == pytest.approx(sk.roc_auc_score(positive, score, sample_weight=row))
            else:
                assert np.isnan(found)


@pytest.mark.parametrize("metric", [auroc, average_precision])
def test_without_examples_or_without_positives_there_is_no_curve(metric: Any) -> None:
    assert np.isnan(metric(np.zeros(0), np.zeros(0, bool), np.ones((2, 0)))).all()
    assert np.isnan(metric(np.arange(3.0), np.zeros(3, bool), np.ones((2, 3)))).all()


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_properties(data: st.DataObject) -> None:
    """With ties, absent classes and few examples: order, duplication and increasing maps of the scores."""
    multi_label = data.draw(st.booleans())
    count, classes = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 4))
    score = st.integers(-3, 3).map(float)
    scores = np.array(
        data.draw(st.lists(st.lists(score, min_size=classes, max_size=classes), min_size=count, max_size=count))
    )
    if multi_label:
        flag = st.lists(st.integers(-1, 1), min_size=classes, max_size=classes)
        label = np.array(data.draw(st.lists(flag, min_size=count, max_size=count)))
    else:
        label = np.array(data.draw(st.lists(st.integers(-1, classes - 1), min_size=count, max_size=count)))
    if not (label >= 0).any():
        return
    build = several if multi_label else single
    measurement = build(scores, label)
    found = values(measurement)
    assert all(-1e-12 <= value <= 2 + 1e-12 for value in found.values())

    order = np.array(data.draw(st.permutations(range(count))))
    assert values(build(scores[order], label[order])) == pytest.approx(found)

    # Two copies of an example tie: their average precision is another.
    twice = values(build(np.repeat(scores, 2, axis=0), np.repeat(label, 2, axis=0)))
    assert twice | {"average_precision": 0} == pytest.approx(found | {"average_precision": 0})

    scaled = values(build(scores * 7, label))
    for name in found.keys() - {"ece", "brier"}:
        assert scaled[name] == pytest.approx(found[name]), name

    # The weights of a resample say the same as the examples repeated.
    known = len(measurement.examples["id"])
    times = np.array(data.draw(st.lists(st.integers(0, 3), min_size=known, max_size=known)))
    rows = np.repeat(np.arange(known), times)
    repeated = {name: column[rows] for name, column in measurement.examples.items()}
    for name, metric in measurement.metrics.items():
        if isinstance(metric, Weighted) and name != "average_precision" and len(rows):
            weighted = metric.weighted(measurement.examples, times[None].astype(float))[0]
            assert weighted == pytest.approx(metric(repeated), nan_ok=True), name


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
@settings(max_examples=100, deadline=None)
def test_binary_metrics_agree_with_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    score, positive = np.array([s for s, _ in pairs], float), np.array([p for _, p in pairs])
    one = np.ones((1, len(pairs)))
    if positive.any():
        # Without ties: each score is made another by a little.
        apart = score + 1e-3 * np.arange(len(score))
        assert average_precision(apart, positive, one)[0] == pytest.approx(sk.average_precision_score(positive, apart))
    else:
        assert np.isnan(average_precision(score, positive, one)[0])
    if positive.any() and not positive.all():
        assert auroc(score, positive, one)[0] == pytest.approx(sk.roc_auc_score(positive, score))
        assert auroc(-score, positive, one)[0] == pytest.approx(1 - sk.roc_auc_score(positive, score))
    else:
        assert np.isnan(auroc(score, positive, one)[0])


def precision_in(order: list[tuple[float, bool, float]]) -> float:
    """The average precision of items (score, positive, weight) from the first to the last."""
    total = right = mean = 0.0
    for _, positive, weight in order:
        total += weight
        if positive:
            right += weight
            mean += weight * right / total
    return mean / right


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.integers(0, 2)), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_average_precision_is_the_mean_over_all_orders_of_what_ties(examples: list[tuple[int, bool, int]]) -> None:
    """Of examples that tie, each copy has a place of its own; the copies of another stand together."""
    assume(sum(weight for _, _, weight in examples) <= 6)
    scores = [score for score, _, _ in examples]
    items: list[tuple[float, bool, float]] = []
    for score, positive, weight in examples:
        alone = scores.count(score) == 1
        items += [(score, positive, weight)] * (weight > 0) if alone else [(score, positive, 1.0)] * weight
    score, positive, weight = (np.array(column) for column in zip(*examples))
    found = average_precision(score.astype(float), positive.astype(bool), weight[None].astype(float))[0]
    # By comparison, where average_precision() sorts.
    columns = {"id": np.arange(len(score)), "label": positive.astype(int), "score/no": -score, "score/yes": score}
    compared = MacroAveragePrecision(("no", "yes")).per_class(columns, weight[None].astype(float))[0, 1]
    assert compared == pytest.approx(found, abs=1e-12, nan_ok=True)
    if not any(is_positive for _, is_positive, _ in items):
        assert np.isnan(found)
        return
    mean = np.mean([precision_in(sorted(order, key=lambda item: -item[0])) for order in permutations(items)])
    assert found == pytest.approx(mean, abs=1e-12)


REFERENCES: dict[type[PerClass], Any] = {
    MacroAUROC: lambda positive, score, predicted, row: sk.roc_auc_score(positive, score, sample_weight=row),
    MacroAveragePrecision: lambda positive, score, predicted, row: sk.average_precision_score(
        positive, score, sample_weight=row
    ),
    MacroRecall: lambda positive, score, predicted, row: sk.recall_score(positive, predicted, sample_weight=row),
    MacroF1: lambda positive, score, predicted, row: sk.f1_score(positive, predicted, sample_weight=row),
}


def forty_classes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and scores of 90 examples, and five weightings of them."""
    random = np.random.default_rng(0)
    label = (40 * random.random(90) ** 3).astype(int)
    scores = random.normal(size=(90, 40)) + 2 * np.eye(40)[label]
    return label, scores, random.poisson(0.8, (5, 90)).astype(float)


@cache
def class_by_class(metric: type[PerClass]) -> np.ndarray:
    """What scikit-learn gives for each weighting and class; NaN without an example of the class."""
    label, scores, weights = forty_classes()
    expected = np.full((5, 40), np.nan)
    for c in np.unique(label):
        for r, row in enumerate(weights):
            if row @ (label == c):
                expected[r, c] = REFERENCES[metric](label == c, scores[:, c], scores.argmax(1) == c, row)
    return expected


@pytest.mark.parametrize("metric", REFERENCES)
@pytest.mark.parametrize("few", [0, 3, 16])
@pytest.mark.parametrize("elements", [1, 500])
def test_many_classes_agree_with_scikit_learn_class_by_class(
    metric: type[PerClass], few: int, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frequent, rare and absent classes; in parts of a few classes; sorted or compared; drawn or not."""
    monkeypatch.setattr(module, "FEW", few)
    monkeypatch.setattr(module, "ELEMENTS", elements)
    label, scores, weights = forty_classes()
    names = tuple(f"class {c}" for c in range(40))
    examples = {"id": np.arange(90), "label": label} | {f"score/{name}": scores[:, c] for c, name in enumerate(names)}
    over = names[::2]
    found, means = metric(names).per_class(examples, weights), metric(names, over=over).weighted(examples, weights)
    expected = class_by_class(metric)
    assert np.isnan(expected).any()
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(means, np.nanmean(expected[:, ::2], axis=1), atol=1e-12)


MANY = """
import resource, time
import numpy as np
from benchmark.evaluation.metrics import classification
from benchmark.evaluation.statistics import resample
random = np.random.default_rng(0)
count, classes = 3_000, 10_000
scores, label = random.standard_normal((count, classes)), random.integers(0, classes, count)
ids, names = [str(i) for i in range(count)], [str(c) for c in range(classes)]
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
measurement = classification(
    ids=ids, groups=ids, scores=scores, label=label, classes=names, scale=1.0, multi_label=False
)
values = [metric(measurement.examples) for metric in measurement.metrics.values()]
groups = measurement.examples["group"]
resample(measurement.metrics["macro_auroc"], measurement.examples, groups, np.unique(groups), 100, random)
print(time.process_time() - began, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)
"""


@pytest.mark.slow
def test_ten_thousand_classes_take_seconds() -> None:
    """With 3,000 examples: less than half a gigabyte beside the scores (0.22 GB)."""
    output = subprocess.run([sys.executable, "-c", MANY], check=True, capture_output=True, text=True).stdout
    seconds, memory = map(float, output.split())
    assert seconds < 20
    assert memory < 0.5


def test_brier_of_findings_is_the_mean_over_the_known_ones() -> None:
    scores = np.array([[0.5, -1.0, 2.0], [0.0, 3.0, -0.2]])
    label = np.array([[1, 0, -1], [-1, -1, 1]])
    names = ["a", "b", "c"]
    measurement = classification(
        ids=["x", "y"], groups=["x", "y"], scores=scores, label=label, classes=names, scale=2.0, multi_label=True
    )
    expected = []
    for row, truth in zip(scores, label):
        known = [(1 / (1 + math.exp(-2.0 * s)) - t) ** 2 for s, t in zip(row, truth) if t >= 0]
        expected.append(sum(known) / len(known))
    assert measurement.examples["brier"] == pytest.approx(expected)
