"""The charts of the page: their numbers against scikit-learn and loops, and that Vega-Lite draws them."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import vl_convert
from sklearn.manifold import TSNE
from sklearn.metrics import auc, confusion_matrix, roc_auc_score, roc_curve

from benchmark.report.render import Chart, Table
from benchmark.report.results import Results
from benchmark.report.sections import read_results
from benchmark.report.web import curves, embedding_map, predictions, training
from benchmark.store.rows import Embedded
from tests.report.fakes import synthetic

HOSTILE = '</script><b>"arm" \u202e$x$ \x1b[31m'
CLASSES = ["apple", "pear, ripe", HOSTILE]


def random_scores(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels of three classes, and scores with ties that know a little of them."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, n)
    return label, np.round(rng.normal(size=(n, 3)) + np.eye(3)[label], 1)


def single_label(seed: int = 0) -> pd.DataFrame:
    label, score = random_scores(seed=seed)
    rng = np.random.default_rng(seed)
    columns = {f"score/{name}": score[:, c] for c, name in enumerate(CLASSES)}
    predicted = score.argmax(axis=1)
    rated = {"correct": (predicted == label).astype(float), "confidence": rng.uniform(0.34, 1, len(label))}
    return pd.DataFrame(columns | {"label": label, "predicted": predicted} | rated)


def embedded(seed: int = 0, n: int = 30) -> Embedded:
    vectors = (
        np.random.default_rng(seed).normal(size=(2, n, 8)).astype(np.float32) + np.array([0.5, -0.5])[:, None, None]
    )
    groups = [[CLASSES[i % 3]] if i % 7 else [] for i in range(n)]
    return Embedded(vectors[0], vectors[1], groups, groups, "captions")


def log(steps: int = 1000, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    step = np.arange(1, steps + 1)
    columns = {"stage": "pretrain", "step": step, "samples": 16 * step, "loss": rng.uniform(1, 2, steps)}
    validation = np.where(step % 250 == 0, 1.5, np.nan)
    return pd.DataFrame(columns | {"validation_loss": validation, "seconds": np.cumsum(rng.uniform(0.1, 0.2, steps))})


@pytest.fixture(scope="module")
def results() -> Results:
    """Two lines with three seeds on two datasets; one of the lines has a name that is no plain text."""
    rows, costs = synthetic(2, 2)
    rows, costs = (frame.replace({"method": {"msd": HOSTILE}}) for frame in (rows, costs))
    notes: Any = {"": {"curve": {"images a class": {"1": "accuracy", "16": "another"}}}}
    read = read_results(
        rows.assign(evaluation="e"),
        costs,
        lambda *_: notes,
        lambda *_: None,
        None,
        examples=lambda cell, evaluation, part: single_label(int(cell, 16)),
        log=lambda cell: log(seed=int(cell, 16)),
        embedded=lambda cell, evaluation: embedded(int(cell, 16)),
    )
    assert read is not None
    return read


def test_logs_are_thinned_to_means_over_equal_spans_of_pairs() -> None:
    long = log(1000)
    curve = training.thinned(long, 20_000.0, 200)
    assert len(curve) == 160
    before = (0, 0.0)
    for row in curve.itertuples():
        span = [s for s in long.itertuples() if 100 * (row.bin - 1) < s.samples <= 100 * row.bin]
        assert row.samples == span[-1].samples
        assert row.loss == pytest.approx(sum(s.loss for s in span) / len(span))
        validated = [s.validation_loss for s in span if not math.isnan(s.validation_loss)]
        assert (row.validation_loss == 1.5) if validated else math.isnan(row.validation_loss)
        speed = (span[-1].samples - before[0]) / (span[-1].seconds - before[1])
        assert row[-1] == pytest.approx(speed)
        before = (span[-1].samples, span[-1].seconds)
    assert list(curve) == ["bin", "samples", "loss", "validation_loss", training.SPEED]
    # A short log stays as it is.
    short = training.thinned(log(5), 80.0, 200)
    np.testing.assert_array_equal(short["loss"], log(5)["loss"])


def test_confusion_counts_like_scikit_learn() -> None:
    label, score = random_scores()
    predicted = score.argmax(axis=1)
    np.testing.assert_array_equal(predictions.confusion(label, predicted, 3), confusion_matrix(label, predicted))
    # An example of a class that is not shown, or predicted to be, counts nowhere.
    assert predictions.confusion(np.array([0, -1, 1]), np.array([0, 0, -1]), 2).tolist() == [[1, 0], [0, 0]]


def test_roc_curves_are_those_of_scikit_learn() -> None:
    label, score = random_scores()
    for number in range(3):
        false, true = predictions.roc(score[:, number], label == number)
        expected_false, expected_true, _ = roc_curve(label == number, score[:, number], drop_intermediate=False)
        np.testing.assert_allclose(false, expected_false)
        np.testing.assert_allclose(true, expected_true)
        assert predictions.area(false, true) == pytest.approx(roc_auc_score(label == number, score[:, number]))
        rates = np.linspace(0, 1, 1001)
        at = predictions.at_rates(false, true, rates)
        for rate, value in list(zip(rates, at))[::50]:
            # By hand: the last vertex at or left of the rate, and the next one to its right.
            left = max(i for i in range(len(false)) if false[i] <= rate + 1e-12)
            right = min(left + 1, len(false) - 1)
            width = false[right] - false[left]
            share = (rate - false[left]) / width if width > 0 else 0
            assert value == pytest.approx(true[left] + share * (true[right] - true[left]))
        assert auc(rates, at) == pytest.approx(predictions.area(false, true), abs=0.01)


def test_reliability_is_that_of_scikit_learn() -> None:
    from sklearn.calibration import calibration_curve

    examples = single_label()
    confidence, correct, count = predictions.reliability(
        examples["confidence"].to_numpy(), examples["correct"].to_numpy()
    )
    expected_correct, expected_confidence = calibration_curve(examples["correct"], examples["confidence"], n_bins=15)
    np.testing.assert_allclose(confidence, expected_confidence)
    np.testing.assert_allclose(correct, expected_correct)
    assert count.sum() == len(examples)
    # Certainty belongs to the last bin.
    assert predictions.reliability(np.array([1.0, 0.99]), np.array([1.0, 0.0]))[2].tolist() == [2]


def test_predictions_are_taken_from_columns() -> None:
    read = predictions.predicted(single_label())
    assert read is not None
    assert (read.classes, read.left_out) == (CLASSES, 0)
    several = pd.DataFrame({"score/a": [0.1, 0.2], "label/a": [1, -1], "score/b": [1.0, 2.0], "label/b": [0, 1]})
    findings = predictions.predicted(several.assign(**{"score/a@1/0": 0.0}))
    assert findings is not None
    assert findings.classes == ["a", "b"]
    assert findings.positive.tolist() == [[True, False], [False, True]]
    assert findings.known.tolist() == [[True, True], [False, True]]
    assert findings.label is None
    for without in ({"label": [1]}, {"score/a": [1.0]}, {"score/a": [1.0], "label": ["a"]}, {"rank": [1]}):
        assert predictions.predicted(pd.DataFrame(without)) is None


def test_the_most_frequent_classes_are_shown() -> None:
    # Class c has c examples: 5 of 25 are left out, the rarest.
    label = np.repeat(np.arange(25), np.arange(25))
    columns = {f"score/{c}": (label == c).astype(float) for c in range(25)}
    read = predictions.predicted(pd.DataFrame(columns | {"label": label, "predicted": label}))
    assert read is not None
    assert read.classes == [str(c) for c in range(5, 25)]
    assert read.left_out == 5
    assert read.label is not None
    np.testing.assert_array_equal(read.label, np.where(label >= 5, label - 5, -1))


def test_modality_gap_is_the_distance_of_means_of_unit_vectors() -> None:
    each = embedded()
    total = 0.0
    for d in range(8):
        means = []
        for vectors in (each.images, each.texts):
            lengths = [math.sqrt(sum(float(x) ** 2 for x in vector)) for vector in vectors]
            means.append(sum(float(v[d]) / length for v, length in zip(vectors, lengths)) / len(vectors))
        total += (means[0] - means[1]) ** 2
    assert embedding_map.modality_gap(each) == pytest.approx(math.sqrt(total))
    opposite = Embedded(np.eye(2)[:1] * 3, -np.eye(2)[:1], [[]], [[]], "captions")
    assert embedding_map.modality_gap(opposite) == 2


def test_maps_keep_what_two_dimensions_can_show() -> None:
    # Unit vectors in a plane: their distances are those on the map, up to its scale.
    angles = np.random.default_rng(0).uniform(0, 1, 24)
    plane = (
        np.stack([np.cos(angles), np.sin(angles)], axis=1)
        @ np.linalg.qr(np.random.default_rng(1).normal(size=(6, 2)))[0].T
    )
    points = embedding_map.project(Embedded(plane[:12], plane[12:], [], [], "captions"), "PCA")
    distance = [np.linalg.norm(x[:, None] - x[None], axis=2) for x in (plane, points.astype(float))]
    np.testing.assert_allclose(distance[1] / distance[1].max(), distance[0] / distance[0].max(), atol=0.003)
    assert np.abs(points).max() == 500


def test_a_map_of_neighbourhoods_repeats_and_is_computed_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(*_: object) -> None:
        raise AssertionError

    maps = []
    for cache in ("one", "other"):
        monkeypatch.setenv("BENCH_CACHE", str(tmp_path / cache))
        maps.append(embedding_map.project(embedded(n=60), "t-SNE"))
    monkeypatch.setattr(TSNE, "fit_transform", fails)
    maps.append(embedding_map.project(embedded(n=60), "t-SNE"))
    np.testing.assert_array_equal(maps[0], maps[1])
    np.testing.assert_array_equal(maps[0], maps[2])
    with pytest.raises(AssertionError):
        embedding_map.project(embedded(seed=1, n=60), "t-SNE")


def test_rare_classes_share_a_colour() -> None:
    groups = [[f"c{i}"] for i in range(20) for _ in range(i + 1)] + [["a", "b"]] * 40 + [[]] * 30
    coloured = embedding_map.colouring(groups)
    assert coloured == ["several", "none known", *(f"c{i}" for i in range(19, 10, -1)), "other"]
    assert [embedding_map.class_of(g, coloured) for g in ([], ["c0"], ["c19"], ["c0", "c1"])] == [
        "none known",
        "other",
        "c19",
        "several",
    ]


def charts(results: Results) -> Iterator[Chart | Table]:
    task = results.of_task("few_shot")
    for section, of in (
        (training.learning_curves, results),
        (embedding_map.embedding_maps, results),
        (predictions.predictions, task),
        (curves.score_curves, task),
    ):
        yield from section(of)


def test_vega_lite_draws_the_charts(results: Results) -> None:
    drawn = {part.name: part for part in charts(results) if isinstance(part, Chart)}
    assert list(drawn) == [
        "learning-curves",
        "embedding-map",
        "few_shot-confusion",
        "few_shot-roc",
        "few_shot-reliability",
        "few_shot-curves",
    ]
    for name, chart in drawn.items():
        assert chart.spec["width"] == "container"
        svg = vl_convert.vegalite_to_svg(json.loads(json.dumps(chart.spec)) | {"width": 700})
        assert "NaN" not in svg
        assert "undefined" not in svg
        assert "<b>" not in svg
        if name not in ("embedding-map", "few_shot-confusion"):
            # In the legend and at the line's end, as text.
            assert svg.count("clip</text>") == 2
            assert "&lt;b&gt;" in svg


def test_nothing_is_drawn_of_results_without_logs_scores_and_embeddings() -> None:
    read = read_results(*synthetic(2, 2), lambda *_: {}, lambda *_: None, None)
    assert read is not None
    assert list(charts(read)) == []
