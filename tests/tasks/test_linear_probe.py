from dataclasses import replace
from math import cos, pi
from typing import Any

import numpy as np
import pytest
import torch
from benchmark.tasks.linear_probe import LinearProbe
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss, roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from benchmark.common.errors import BenchError
from benchmark.common.seeding import stream, torch_seed
from benchmark.evaluation.encoder import Encoded
from benchmark.evaluation.measurement import Measurement
from tests.tasks.fakes import CLASSES, FakeDataset, RandomEncoder, evaluation, fake_dataset, read_row, take

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


class NoisyEncoder(RandomEncoder):
    """Features: the class (or findings) and noise, on axes of unequal scale; embeddings: noise alone."""

    def __init__(self, dataset: FakeDataset, noise: float = 0.5, width: int = 12) -> None:
        super().__init__(width=width)
        self.fingerprint = f"noisy-{dataset.fingerprint}-{noise}"
        self.noise = noise
        self.signal = {
            read_row(image): label if dataset.card.multi_label else np.arange(len(CLASSES)) == label
            for records in dataset.prepared.values()
            for image, label in zip(records.images, records.label)
        }

    def encode_images(self, images: Any) -> Encoded:
        encoded = super().encode_images(images)
        features = self.noise * encoded.features
        features[:, : len(CLASSES)] += np.stack([self.signal[read_row(image)] for image in images.numpy()])
        return Encoded(features * np.logspace(-2, 2, self.width, dtype=np.float32) + 3, encoded.embeddings)


def probe(dataset: FakeDataset, encoder: Any, **options: Any) -> Measurement:
    task = LinearProbe(LinearProbe.Config(**{"strengths": STRENGTHS} | options))
    (measurement,) = task.evaluate(evaluation(encoder, dataset), seed=0)
    return measurement


def columns(dataset: FakeDataset, encoder: Any, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels, groups in the order of the ids."""
    records = dataset.prepared[split]
    order = np.argsort(records.ids)
    features = evaluation(encoder, dataset).images(split).features[order].astype(np.float64)
    return features, records.label[order], np.array(records.groups)[order]


def values(measurement: Measurement) -> dict[str, float]:
    return {name: metric(measurement.examples) for name, metric in measurement.metrics.items()}


def fit(features: np.ndarray, label: np.ndarray, strength: float) -> Any:
    return LogisticRegression(C=strength, tol=1e-8, max_iter=1000, solver="newton-cholesky").fit(features, label)


def test_agrees_with_sklearn_from_scaling_to_the_choice_on_val() -> None:
    dataset = fake_dataset()
    encoder = NoisyEncoder(dataset)
    train, label, _ = columns(dataset, encoder, "train")
    scaler = StandardScaler().fit(train)
    (val, val_label, _), (test, test_label, _) = (columns(dataset, encoder, split) for split in ("val", "test"))
    models = [fit(scaler.transform(train), label, strength) for strength in STRENGTHS]
    losses = [log_loss(val_label, model.predict_proba(scaler.transform(val))) for model in models]
    best = models[int(np.argmin(losses))]
    probability = best.predict_proba(scaler.transform(test))

    found = probe(dataset, encoder)
    assert found.notes["strength"] == best.C
    assert found.notes["strength_chosen_on"] == "val"
    np.testing.assert_allclose(list(found.notes["cross_entropy"].values()), losses, atol=1e-3)
    scores = np.stack([found.examples[f"score/{name}"] for name in CLASSES], 1)
    np.testing.assert_allclose(np.exp(scores), probability, atol=5e-3)
    result = values(found)
    predicted = probability.argmax(1)
    assert result["accuracy"] == pytest.approx(np.mean(predicted == test_label), abs=0.002)
    assert result["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(test_label, predicted), abs=0.002)
    assert result["macro_f1"] == pytest.approx(f1_score(test_label, predicted, average="macro"), abs=0.002)
    assert result["macro_auroc"] == pytest.approx(roc_auc_score(test_label, probability, multi_class="ovr"), abs=1e-3)
    assert 0.5 < result["accuracy"] < 0.95


def test_agrees_with_sklearn_on_findings_some_of_which_are_unknown() -> None:
    dataset = fake_dataset(multi_label=True)
    encoder = NoisyEncoder(dataset)
    for records in dataset.prepared.values():
        records.label[np.random.default_rng(1).random(records.label.shape) < 0.3] = -1
    train, label, _ = columns(dataset, encoder, "train")
    scaler = StandardScaler().fit(train[(label >= 0).any(1)])
    (val, val_label, _), (test, test_label, _) = (columns(dataset, encoder, split) for split in ("val", "test"))
    total = np.zeros(len(STRENGTHS))
    models = {}
    for k in range(len(CLASSES)):
        of_train, of_val = label[:, k] >= 0, val_label[:, k] >= 0
        for i, strength in enumerate(STRENGTHS):
            models[k, i] = fit(scaler.transform(train[of_train]), label[of_train, k], strength)
            probability = models[k, i].predict_proba(scaler.transform(val[of_val]))
            total[i] += log_loss(val_label[of_val, k], probability, normalize=False)
    best = int(np.argmin(total))

    found = probe(dataset, encoder)
    assert found.notes["strength"] == STRENGTHS[best]
    aurocs = []
    for k in range(len(CLASSES)):
        known = test_label[:, k] >= 0
        score = models[k, best].decision_function(scaler.transform(test[known]))
        aurocs.append(roc_auc_score(test_label[known, k], score))
    assert list(found.notes["auroc"].values()) == pytest.approx(aurocs, abs=2e-3)
    assert values(found)["macro_auroc"] == pytest.approx(np.mean(aurocs), abs=1e-3)


def without_val(dataset: FakeDataset) -> FakeDataset:
    return replace(dataset, prepared={k: v for k, v in dataset.prepared.items() if k != "val"})


def test_without_val_the_strength_is_chosen_by_grouped_cross_validation() -> None:
    dataset = fake_dataset()
    encoder = NoisyEncoder(dataset)
    train, label, groups = columns(dataset, encoder, "train")
    losses = np.zeros(len(STRENGTHS))
    for rows, held_out in GroupKFold(5).split(train, groups=groups):
        scaler = StandardScaler().fit(train[rows])
        for i, strength in enumerate(STRENGTHS):
            model = fit(scaler.transform(train[rows]), label[rows], strength)
            probability = model.predict_proba(scaler.transform(train[held_out]))
            losses[i] += log_loss(label[held_out], probability, normalize=False) / len(train)
    found = probe(without_val(dataset), encoder)
    assert found.notes["strength_chosen_on"] == "5-fold cross-validation in train"
    np.testing.assert_allclose(list(found.notes["cross_entropy"].values()), losses, atol=1e-3)
    assert found.notes["strength"] == STRENGTHS[int(losses.argmin())]


def test_a_val_without_labels_is_no_val() -> None:
    dataset = fake_dataset()
    encoder = NoisyEncoder(dataset)
    without = values(probe(without_val(dataset), encoder))
    dataset.prepared["val"].label[:] = -1
    assert values(probe(dataset, encoder)) == without


def test_cross_validation_keeps_groups_together() -> None:
    """Images of a patient are alike and features tell patients, not classes: only when the patients held out are new
    does weak regularisation look as bad as it is.
    """
    dataset = without_val(fake_dataset())
    records = dataset.prepared["train"]
    records.groups[:] = [f"patient-{i // 3}" for i in range(len(records))]
    records.label[:] = np.repeat(np.random.default_rng(0).integers(0, 4, 80), 3)
    group_of = {read_row(image): group for image, group in zip(records.images, records.groups)}

    class KnowsPatients(RandomEncoder):
        def encode_images(self, images: Any) -> Encoded:
            return self._encode([group_of.get(read_row(i), str(read_row(i))).encode() for i in images.numpy()])

    encoder = KnowsPatients(width=100)
    assert probe(dataset, encoder).notes["strength"] == min(STRENGTHS)
    records.groups[:] = [f"patient-{i}" for i in range(len(records))]
    assert probe(dataset, encoder).notes["strength"] == max(STRENGTHS)


def test_without_val_and_with_one_group_there_is_nothing_to_choose_on() -> None:
    dataset = without_val(fake_dataset())
    dataset.prepared["train"].groups[:] = ["only"] * 240
    with pytest.raises(BenchError, match="dataset 'fake': val has no labels and train has only one group, 'only'"):
        probe(dataset, RandomEncoder())


@pytest.mark.parametrize(("strengths", "edge"), [((1e-9, 1e-3), True), ((10.0, 1e-3, 1e-9), False), ((1e-3,), False)])
def test_a_strength_at_the_end_of_those_tried_is_noted(strengths: tuple[float, ...], edge: bool) -> None:
    dataset = fake_dataset()
    found = probe(dataset, NoisyEncoder(dataset, width=150), strengths=strengths)
    assert found.notes["strength"] == 1e-3
    assert found.notes["at_edge"] == ({"strength": 1e-3} if edge else {})


def test_features_after_the_projection() -> None:
    dataset = fake_dataset()

    class Swapped(NoisyEncoder):
        def encode_images(self, images: Any) -> Encoded:
            encoded = super().encode_images(images)
            return Encoded(encoded.embeddings, encoded.features)

    assert values(probe(dataset, Swapped(dataset, noise=0.01), features="after"))["accuracy"] == 1.0
    assert values(probe(dataset, Swapped(dataset, noise=0.01)))["accuracy"] < 0.5


def test_class_that_train_has_not_is_wrong_in_test_and_ignored_in_val() -> None:
    dataset = fake_dataset()
    encoder = NoisyEncoder(dataset, noise=0.01)
    records = dataset.prepared["train"]
    dataset.prepared["train"] = take(records, np.flatnonzero(records.label != 2), "without plum")
    found = probe(dataset, encoder)
    assert values(found)["accuracy"] == pytest.approx(0.75)
    assert found.notes["recall"]["plum"] == 0
    assert found.notes["auroc"]["plum"] == 0.5
    assert np.isfinite(list(found.notes["cross_entropy"].values())).all()


def test_class_that_test_has_not_is_left_out_of_the_means() -> None:
    dataset = fake_dataset()
    encoder = NoisyEncoder(dataset, noise=0.01)
    records = dataset.prepared["test"]
    dataset.prepared["test"] = take(records, np.flatnonzero(records.label != 2), "without plum")
    found = probe(dataset, encoder)
    assert found.notes["absent"] == ["plum"]
    assert values(found)["balanced_accuracy"] == values(found)["macro_auroc"] == 1.0


def test_classes_that_are_rare_in_train_have_means_of_their_own() -> None:
    dataset = fake_dataset()
    encoder = NoisyEncoder(dataset)
    label = dataset.prepared["train"].label
    label[np.flatnonzero(label == 1)[20:]] = 0
    found = probe(dataset, encoder, rare_below=30)
    recall = found.notes["recall"]
    assert found.notes["rare"] == [CLASSES[1]]
    assert values(found)["rare_recall"] == pytest.approx(recall[CLASSES[1]])
    assert values(found)["common_recall"] == pytest.approx(np.mean([recall[CLASSES[c]] for c in (0, 2, 3)]))
    assert "rare_recall" not in probe(dataset, encoder, rare_below=20).metrics


def test_single_class_in_train() -> None:
    dataset = fake_dataset()
    dataset.prepared["train"].label[:] = 1
    found = probe(dataset, RandomEncoder())
    assert values(found)["accuracy"] == found.chance["accuracy"] == 0.25
    assert values(found)["macro_auroc"] == 0.5


def test_unknown_labels_are_left_out() -> None:
    dataset = fake_dataset()
    encoder = NoisyEncoder(dataset)
    rows = np.random.default_rng(0).random(240) < 0.5
    dataset.prepared["train"].label[rows] = -1
    dataset.prepared["test"].label[:10] = -1
    masked = probe(dataset, encoder)
    assert masked.notes["train_images"] == int((~rows).sum())
    assert len(masked.examples["id"]) == 150
    dataset.prepared["train"] = take(dataset.prepared["train"], np.flatnonzero(~rows), "known")
    assert values(probe(dataset, encoder)) == values(masked)
    dataset.prepared["train"].label[:] = -1
    with pytest.raises(BenchError, match="train: none of"):
        probe(dataset, encoder)


def test_chance_is_the_most_common_class_of_train() -> None:
    dataset = fake_dataset()
    dataset.prepared["train"].label[:100] = 3
    dataset.prepared["test"].label[:20] = 3
    expected = np.mean(dataset.prepared["test"].label == 3)
    assert probe(dataset, RandomEncoder()).chance["accuracy"] == pytest.approx(expected)


def test_scale_and_offset_of_a_feature_change_nothing() -> None:
    dataset = fake_dataset()

    class Rescaled(NoisyEncoder):
        def encode_images(self, images: Any) -> Encoded:
            encoded = super().encode_images(images)
            features = encoded.features.astype(np.float64) * 2.0 ** np.arange(-6, 6) - 7.0
            return Encoded(np.concatenate([features, np.full((len(features), 1), 0.1)], 1), encoded.embeddings)

    plain, rescaled = (values(probe(dataset, encoder(dataset))) for encoder in (NoisyEncoder, Rescaled))
    assert rescaled == pytest.approx(plain, abs=1e-3)


def test_order_of_files_is_not_seen_even_in_the_last_digit() -> None:
    dataset = fake_dataset()
    encoder = NoisyEncoder(dataset)
    one, other = probe(dataset, encoder), probe(dataset.shuffled(3), encoder)
    for name in one.examples:
        np.testing.assert_array_equal(one.examples[name], other.examples[name])


def softmax_gradient(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    probability = np.exp(logits - logits.max(1, keepdims=True))
    probability /= probability.sum(1, keepdims=True)
    return (probability - np.eye(logits.shape[1])[label]) / len(label)


def sigmoid_gradient(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    answered = label >= 0
    return np.where(answered, 1 / (1 + np.exp(-logits)) - label, 0) / answered.sum()


def roy2024(features: np.ndarray, label: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """The probe of Roy et al. 2024 from its description, in float64: logits of test.

    AdamW at 0.1 without decay, a cosine without warm-up, 40 epochs of batches of 64, on unit-length features.
    """
    features, test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (features, test))
    with torch_seed(stream(seed, "linear_probe", "fake")):
        layer = torch.nn.Linear(features.shape[1], len(CLASSES))
        weights = [layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()]
        orders = [torch.randperm(len(features)).numpy() for _ in range(40)]
    batches = [order[i : i + 64] for order in orders for i in range(0, len(order), 64)]
    moments = [(np.zeros_like(w), np.zeros_like(w)) for w in weights]
    for t, batch in enumerate(batches):
        logits = features[batch] @ weights[0].T + weights[1]
        error = (softmax_gradient if label.ndim == 1 else sigmoid_gradient)(logits, label[batch])
        rate = 0.1 * (1 + cos(pi * t / len(batches))) / 2
        for k, gradient in enumerate((error.T @ features[batch], error.sum(0))):
            mean, square = moments[k]
            mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
            moments[k] = mean, square
            step = mean / (1 - 0.9 ** (t + 1)) / (np.sqrt(square / (1 - 0.999 ** (t + 1))) + 1e-8)
            weights[k] = weights[k] - rate * step
    return np.asarray(test @ weights[0].T + weights[1])


@pytest.mark.parametrize("multi_label", [False, True])
def test_protocol_of_roy2024_agrees_with_its_description(multi_label: bool) -> None:
    dataset = fake_dataset(multi_label=multi_label)
    encoder = NoisyEncoder(dataset, width=6)
    if multi_label:
        dataset.prepared["train"].label[np.random.default_rng(1).random((240, len(CLASSES))) < 0.2] = -1
    train, label, _ = columns(dataset, encoder, "train")
    test, test_label, _ = columns(dataset, encoder, "test")
    logits = roy2024(train, label, test, seed=0)
    expected = logits if multi_label else logits - np.log(np.exp(logits).sum(1, keepdims=True))
    found = probe(dataset, encoder, protocol="roy2024")
    scores = np.stack([found.examples[f"score/{name}"] for name in CLASSES], 1)
    np.testing.assert_allclose(scores, expected, atol=2e-3)
    right = (logits > 0) == (test_label == 1) if multi_label else logits.argmax(1) == test_label
    assert values(found)["accuracy"] == pytest.approx(right.mean(), abs=0.01)


def test_protocol_of_roy2024_ignores_val_length_and_order() -> None:
    dataset = fake_dataset()

    class Longer(NoisyEncoder):
        def encode_images(self, images: Any) -> Encoded:
            encoded = super().encode_images(images)
            lengths = 2.0 ** (encoded.features[:, -1:] > 0)
            return Encoded(encoded.features * lengths.astype(np.float32), encoded.embeddings)

    expected = probe(dataset, NoisyEncoder(dataset), protocol="roy2024").examples
    for data, encoder in (
        (without_val(dataset), NoisyEncoder(dataset)),
        (dataset.shuffled(3), NoisyEncoder(dataset)),
        (dataset, Longer(dataset)),
    ):
        found = probe(data, encoder, protocol="roy2024").examples
        for name, column in expected.items():
            np.testing.assert_array_equal(found[name], column)
