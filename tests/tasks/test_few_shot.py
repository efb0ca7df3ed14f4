from typing import Any

import numpy as np
import pytest
from benchmark.tasks.few_shot import FewShot, draw_groups, draw_shots, kinds_of
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmark.common.errors import BenchError
from benchmark.evaluation.encoder import Encoded
from benchmark.evaluation.measurement import MeanOverDraws, Measurement
from benchmark.evaluation.probe import Labelled
from tests.tasks.fakes import CLASSES, FakeDataset, OracleEncoder, RandomEncoder, evaluation, fake_dataset, take


class Recorded(FewShot):
    """Keeps the images that each classifier was trained on, and its scores."""

    def __init__(self, **options: Any) -> None:
        super().__init__(FewShot.Config(**options))
        self.shots: list[Labelled] = []
        self.found: list[Tensor] = []

    def scores(self, shots: Labelled, features: Tensor, classes: int) -> Tensor:
        self.shots.append(shots)
        self.found.append(super().scores(shots, features, classes))
        return self.found[-1]


def measured(dataset: FakeDataset, encoder: Any, seed: int = 0, **options: Any) -> Measurement:
    (measurement,) = FewShot(FewShot.Config(**options)).evaluate(evaluation(encoder, dataset), seed)
    return measurement


def values(measurement: Measurement) -> dict[str, float]:
    return {name: metric(measurement.examples) for name, metric in measurement.metrics.items()}


def of_draws(measurement: Measurement, name: str) -> list[float]:
    metric = measurement.metrics[name]
    assert isinstance(metric, MeanOverDraws)
    return [of_draw(measurement.examples) for of_draw in metric.draws]


def drawn(dataset: FakeDataset, encoder: Any, seed: int = 0) -> list[list[str]]:
    task = Recorded()
    list(task.evaluate(evaluation(encoder, dataset), seed))
    return [shots.ids.tolist() for shots in task.shots]


@pytest.mark.parametrize("multi_label", [False, True])
def test_draws_follow_from_seed_and_dataset_alone(multi_label: bool) -> None:
    dataset = fake_dataset(multi_label=multi_label)
    first = drawn(dataset, RandomEncoder(0, width=16))
    assert first == drawn(dataset, RandomEncoder(1, width=40))
    assert first == drawn(dataset.shuffled(1), RandomEncoder())
    assert first != drawn(dataset, RandomEncoder(), seed=1)
    dataset.card.name = "another"
    assert first != drawn(dataset, RandomEncoder())


def test_draws_differ_from_one_another_and_are_as_many_as_asked() -> None:
    task = Recorded(shots=(4,), percentages=(10, 100), draws=7)
    (measurement,) = task.evaluate(evaluation(RandomEncoder(), fake_dataset()), 0)
    counts = measurement.notes["drawn"]
    assert [len(of_draws(measurement, name)) for name in counts] == [7, 7, 1]
    assert list(counts) == ["accuracy@4", "accuracy@10%", "accuracy@100%"] == list(measurement.metrics)
    for counted, expected in (
        ("images", [len(shots) for shots in task.shots]),
        ("groups", [len(set(shots.groups)) for shots in task.shots]),
    ):
        assert [number for of_point in counts.values() for number in of_point[counted]] == expected
    assert len({tuple(shots.ids) for shots in task.shots}) == 15


def test_shots_are_so_many_of_each_class() -> None:
    task = Recorded(shots=(1, 16), percentages=())
    list(task.evaluate(evaluation(RandomEncoder(), fake_dataset()), 0))
    counts = [shots.label.bincount().tolist() for shots in task.shots]
    assert counts == [[1] * 4] * 5 + [[16] * 4] * 5


def test_a_percentage_takes_whole_groups() -> None:
    task = Recorded(shots=(), percentages=(10, 100))
    dataset = fake_dataset()
    list(task.evaluate(evaluation(RandomEncoder(), dataset), 0))
    groups = np.array(dataset.prepared["train"].groups)
    for shots in task.shots[:5]:
        assert 20 <= len(shots) <= 28
        assert len(shots) == np.isin(groups, shots.groups).sum()
    assert len(task.shots[5]) == 240


@given(
    groups=st.lists(st.integers(0, 8), min_size=1, max_size=40),
    classes=st.integers(1, 4),
    share=st.floats(0, 1),
    multi_label=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(deadline=None)
def test_what_is_drawn(groups: list[int], classes: int, share: float, multi_label: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = len(groups)
    label = rng.integers(-1, 2, (n, classes)) if multi_label else rng.integers(0, classes, n)
    kinds = kinds_of(label)
    names, group = np.unique(groups, return_inverse=True)
    order = rng.permutation(len(names))
    count = round(share * n)
    rows = draw_groups(kinds, group, count, order)
    assert kinds[rows].any(0).all()
    np.testing.assert_array_equal(rows, np.flatnonzero(np.isin(group, group[rows])))
    first = [name for i, name in enumerate(order) if np.isin(group, order[: i + 1]).sum() <= count]
    added = len(set(group[rows])) - len(first)
    assert set(first) <= set(group[rows])
    assert 0 <= added <= kinds.shape[1]
    np.testing.assert_array_equal(draw_groups(kinds, group, n, order), np.arange(n))

    order = rng.permutation(n)
    shots = int(kinds.sum(0).min(initial=3))
    if kinds.shape[1]:
        few, more = draw_shots(kinds, max(shots - 1, 0), order), draw_shots(kinds, shots, order)
        assert set(few) <= set(more)
        assert (kinds[more].sum(0) >= shots).all()
        assert multi_label or (kinds[more].sum(0) == shots).all()


def test_kinds_of_findings_are_those_known_both_ways() -> None:
    label = np.array([[1, 0, -1, 1], [0, 0, 1, -1], [-1, 0, 0, 1]])
    np.testing.assert_array_equal(kinds_of(label).astype(int), [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]])


def reference(shots: Labelled, features: np.ndarray, target: np.ndarray, strengths: tuple[float, ...]) -> np.ndarray:
    """scikit-learn's ridge with its own leave-one-out, on standardised features."""
    learned = shots.features.numpy()
    scale = learned.std(0)
    learned, features = learned / scale, features / scale
    singular = np.linalg.svd(learned - learned.mean(0), compute_uv=False)
    unit = np.mean(singular[: min(len(learned) - 1, learned.shape[1])] ** 2)
    model = RidgeCV(alphas=np.array(sorted(strengths, reverse=True)) * unit).fit(learned, target)
    return np.asarray(model.predict(features)).reshape(len(features), -1)


def test_scores_agree_with_sklearn() -> None:
    dataset = fake_dataset()
    task = Recorded(shots=(2, 8), percentages=(10, 100), draws=2)
    data = evaluation(RandomEncoder(width=12), dataset)
    (measurement,) = task.evaluate(data, 0)
    order = np.argsort(dataset.prepared["test"].ids)
    features = data.images("test").features[order].astype(np.float64)
    label = dataset.prepared["test"].label[order]
    correct = []
    for shots, found in zip(task.shots, task.found):
        expected = reference(shots, features, np.eye(4)[shots.label], task.config.strengths)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        correct.append(expected.argmax(1) == label)
    result = values(measurement)
    for point, of_point in {"2": correct[:2], "8": correct[2:4], "10%": correct[4:6], "100%": correct[6:]}.items():
        assert result[f"accuracy@{point}"] == pytest.approx(np.mean(of_point))
        assert of_draws(measurement, f"accuracy@{point}") == pytest.approx(np.mean(of_point, axis=1))
    assert measurement.notes["curve"] == {
        "images a class": {"2": "accuracy@2", "8": "accuracy@8"},
        "share of train": {"10%": "accuracy@10%", "100%": "accuracy@100%"},
    }


def test_findings_agree_with_sklearn_where_some_are_unknown() -> None:
    dataset = fake_dataset(multi_label=True)
    for split in ("train", "test"):
        label = dataset.prepared[split].label
        label[np.random.default_rng(1).random(label.shape) < 0.3] = -1
    task = Recorded(shots=(16,), percentages=(100,), draws=2)
    data = evaluation(RandomEncoder(width=12), dataset)
    (measurement,) = task.evaluate(data, 0)
    order = np.argsort(dataset.prepared["test"].ids)
    label = dataset.prepared["test"].label[order]
    tested = (label >= 0).any(1)
    features = data.images("test").features[order][tested].astype(np.float64)
    aurocs = []
    for shots, found in zip(task.shots, task.found):
        of_draw = []
        scale = shots.features.numpy().std(0)
        for k in range(4):
            rows = shots.label[:, k].numpy() >= 0
            # Scaled by all the shots, as the task does; then by one, which leaves the reference nothing to scale.
            part = shots.take(np.flatnonzero(rows))
            learned = part.features.numpy() / scale
            singular = np.linalg.svd(learned - learned.mean(0), compute_uv=False)
            alphas = np.array(sorted(task.config.strengths, reverse=True)) * np.mean(singular**2)
            model = RidgeCV(alphas=alphas).fit(learned, part.label[:, k].numpy())
            np.testing.assert_allclose(found[:, k], model.predict(features / scale), atol=1e-6)
            known = label[tested, k] >= 0
            of_draw.append(roc_auc_score(label[tested, k][known], found[known, k]))
        aurocs.append(np.mean(of_draw))
    result = values(measurement)
    assert result["macro_auroc@16"] == pytest.approx(np.mean(aurocs[:2]))
    assert result["macro_auroc@100%"] == pytest.approx(aurocs[2])
    assert of_draws(measurement, "macro_auroc@16") == pytest.approx(aurocs[:2])


def test_shots_that_a_class_has_not_are_left_out() -> None:
    dataset = fake_dataset()
    records = dataset.prepared["train"]
    rare = np.flatnonzero(records.label == 1)[4:]
    dataset.prepared["train"] = take(records, np.setdiff1d(np.arange(240), rare), "rare pear")
    found = measured(dataset, RandomEncoder())
    expected = ["accuracy@1", "accuracy@2", "accuracy@4", "accuracy@1%", "accuracy@10%", "accuracy@100%"]
    assert list(found.metrics) == expected
    assert found.notes["left_out"] == [8, 16]
    assert found.notes["scarcest_class"] == 4


def test_class_that_train_has_not_is_never_predicted() -> None:
    dataset = fake_dataset()
    records = dataset.prepared["train"]
    dataset.prepared["train"] = take(records, np.flatnonzero(records.label != 2), "no plum")
    found = measured(dataset, OracleEncoder(dataset))
    assert set(values(found).values()) == {0.75}
    assert found.notes["absent"] == []
    assert set(found.notes["support"].values()) == {40}


@pytest.mark.parametrize("multi_label", [False, True])
def test_class_that_test_has_not_is_named(multi_label: bool) -> None:
    dataset = fake_dataset(multi_label=multi_label)
    records = dataset.prepared["test"]
    has = records.label[:, 2] == 1 if multi_label else records.label == 2
    dataset.prepared["test"] = take(records, np.flatnonzero(~has), "no plum")
    found = measured(dataset, RandomEncoder())
    (name,) = found.notes["absent"]
    assert [key for key, count in found.notes["support"].items() if not count] == [name]
    assert list(found.notes["support"]).index(name) == 2


def test_single_class_in_train() -> None:
    dataset = fake_dataset()
    dataset.prepared["train"].label[:] = 1
    found = measured(dataset, RandomEncoder())
    assert set(values(found).values()) == {0.25}


def test_unknown_labels_are_left_out() -> None:
    dataset = fake_dataset()
    rows = np.random.default_rng(0).random(240) < 0.5
    dataset.prepared["train"].label[rows] = -1
    dataset.prepared["test"].label[:10] = -1
    task = Recorded()
    (measurement,) = task.evaluate(evaluation(RandomEncoder(), dataset), 0)
    assert len(measurement.examples["id"]) == 150
    assert all((shots.label >= 0).all() for shots in task.shots)
    assert measurement.notes["drawn"]["accuracy@100%"]["images"] == [int((~rows).sum())]
    dataset.prepared["train"].label[:] = -1
    with pytest.raises(BenchError, match="dataset 'fake', train: none of 240 images has a known label"):
        measured(dataset, RandomEncoder())


def test_findings_must_be_known_both_ways() -> None:
    dataset = fake_dataset(multi_label=True)
    dataset.prepared["train"].label[:] = 1
    with pytest.raises(BenchError, match="no finding is known present and known absent"):
        measured(dataset, RandomEncoder())


def test_finding_that_train_never_has_scores_alike() -> None:
    dataset = fake_dataset(multi_label=True)
    dataset.prepared["train"].label[:, 1] = 0
    found = measured(dataset, OracleEncoder(dataset))
    assert values(found)["macro_auroc@16"] == pytest.approx((3 + 0.5) / 4)


def test_point_without_positives_in_test_is_left_out() -> None:
    dataset = fake_dataset(multi_label=True)
    dataset.prepared["test"].label[:] = 0
    found = measured(dataset, RandomEncoder())
    assert found.metrics == {} == found.chance


def test_features_that_are_all_alike_get_chance() -> None:
    class Constant(RandomEncoder):
        def _encode(self, items: Any) -> Encoded:
            encoded = super()._encode(items)
            return Encoded(np.full_like(encoded.features, 0.3), encoded.embeddings)

    found = measured(fake_dataset(), Constant(), percentages=(100,))
    assert values(found) == pytest.approx(dict.fromkeys(found.metrics, 0.25))
    found = measured(fake_dataset(multi_label=True), Constant())
    assert values(found) == pytest.approx(dict.fromkeys(found.metrics, 0.5))


def test_features_after_the_projection() -> None:
    dataset = fake_dataset()

    class EmbeddingsOnly(OracleEncoder):
        def encode_images(self, images: Any) -> Encoded:
            encoded = super().encode_images(images)
            return Encoded(np.zeros_like(encoded.features), encoded.features)

    assert values(measured(dataset, EmbeddingsOnly(dataset), features="after"))["accuracy@16"] == 1.0
    assert values(measured(dataset, EmbeddingsOnly(dataset)))["accuracy@16"] == 0.25


def test_chance() -> None:
    dataset = fake_dataset()
    dataset.prepared["train"].label[:100] = 3
    dataset.prepared["test"].label[:20] = 3
    chance = measured(dataset, RandomEncoder()).chance
    assert chance["accuracy@4"] == 1 / len(CLASSES)
    assert chance["accuracy@10%"] == pytest.approx(np.mean(dataset.prepared["test"].label == 3))


def test_more_images_are_better() -> None:
    dataset = fake_dataset()

    class Noisy(OracleEncoder):
        def encode_images(self, images: Any) -> Encoded:
            encoded, noise = super().encode_images(images), RandomEncoder(width=4).encode_images(images)
            return Encoded(encoded.features + 0.6 * noise.features, encoded.embeddings)

    result = values(measured(dataset, Noisy(dataset)))
    assert result["accuracy@1"] + 0.1 < result["accuracy@4"] < result["accuracy@16"] < result["accuracy@100%"] < 1
