import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from torch import Tensor

from benchmark.common.errors import BenchError
from benchmark.evaluation.logistic import logistic_path, logistic_paths
from benchmark.evaluation.probe import deviation, known, labelled, majority_accuracy
from benchmark.evaluation.ridge import principal_axes, ridge
from tests.tasks.fakes import RandomEncoder, evaluation, fake_dataset

STRENGTHS = [1e-4, 1e-2, 1.0, 100.0]


def problem(classes: int, n: int = 300, d: int = 20, noise: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Classes of unequal size around means, along axes of very unequal variance."""
    rng = np.random.default_rng(seed)
    label = np.minimum(rng.geometric(0.4, n) - 1, classes - 1)
    label[:classes] = np.arange(classes)
    scale = np.arange(1, d + 1) ** -1.5
    features = (rng.normal(size=(classes, d))[label] + noise * rng.normal(size=(n, d))) * scale + 3
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return torch.tensor(features @ rotation), torch.tensor(label)


def sklearn_fit(features: Tensor, label: Tensor, strength: float) -> LogisticRegression:
    model = LogisticRegression(C=strength, tol=1e-10, max_iter=1000, solver="newton-cholesky")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(features.numpy(), label.numpy())


def objective(model: LogisticRegression, features: Tensor, label: Tensor, strength: float) -> float:
    loss = log_loss(label, model.predict_proba(features), labels=model.classes_)
    return float(loss + (model.coef_**2).sum() / (2 * strength * len(label)))


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("shape", [(300, 20), (40, 60)], ids=["tall", "wide"])
def test_logistic_path_finds_the_optimum_of_sklearn(classes: int, shape: tuple[int, int]) -> None:
    features, label = problem(classes, *shape)
    path = logistic_path(features, label, classes, STRENGTHS)
    other, other_label = problem(classes, 2000, shape[1], seed=1)
    for i, strength in enumerate(STRENGTHS):
        model = sklearn_fit(features, label, strength)
        assert float(path.objective[i]) == pytest.approx(objective(model, features, label, strength), abs=2e-6)
        assert float(path.gap[i]) <= 1e-6
        right = path(other)[i].argmax(1) == other_label
        assert float(right.double().mean()) == pytest.approx(model.score(other, other_label), abs=0.002)


@pytest.mark.parametrize("classes", [2, 4])
def test_logistic_path_to_a_tight_tolerance_is_sklearns_solution(classes: int) -> None:
    features, label = problem(classes)
    path = logistic_path(features, label, classes, [0.1], tolerance=1e-14)
    model = sklearn_fit(features, label, 0.1)
    np.testing.assert_allclose(path.weight[0][-len(model.coef_) :], model.coef_, atol=1e-5)
    np.testing.assert_allclose(path(features)[0].softmax(1), model.predict_proba(features), atol=1e-6)


def test_objective_is_that_of_the_weights() -> None:
    features, label = problem(5)
    path = logistic_path(features, label, 5, STRENGTHS)
    for i, strength in enumerate(STRENGTHS):
        loss = torch.nn.functional.cross_entropy(path(features)[i], label)
        penalty = path.weight[i].square().sum() / (2 * strength * len(label))
        assert float(path.objective[i]) == pytest.approx(float(loss + penalty), abs=1e-12)


def test_strengths_do_not_depend_on_one_another() -> None:
    """Each is solved from the solution of another, so that they are the same as far as they are solved."""
    features, label = problem(4)
    path = logistic_path(features, label, 4, STRENGTHS, tolerance=1e-15)
    for i, strength in enumerate(STRENGTHS):
        alone = logistic_path(features, label, 4, [strength], tolerance=1e-15)
        torch.testing.assert_close(alone.weight[0], path.weight[i], atol=1e-6, rtol=1e-6)


def labels_of(kind: str, label: Tensor) -> tuple[Tensor, int]:
    """Labels of problem(4) as classes, two classes or findings; one class or finding is in the first fold alone."""
    if kind == "findings":
        findings = torch.stack([label % 2, label // 2, torch.zeros_like(label)], 1)
        findings[torch.rand(findings.shape, generator=torch.Generator().manual_seed(0)) < 0.2] = -1
        findings[:60, 2] = torch.arange(60) % 2
        return findings, 3
    if kind == "two":
        return label.clamp_max(1), 2
    label = label % 3
    label[:10] = 3
    return label, 4


@pytest.mark.parametrize("kind", ["softmax", "two", "findings"])
@pytest.mark.parametrize("shape", [(300, 20), (100, 120)], ids=["tall", "wide"])
def test_parts_are_solved_as_if_alone(kind: str, shape: tuple[int, int]) -> None:
    features, label = problem(4, *shape)
    label, classes = labels_of(kind, label)
    n, strengths = len(features), [1e-2, 1.0]
    parts = torch.stack([torch.ones(n, dtype=torch.bool), torch.arange(n) >= 60, torch.arange(n) % 3 > 0])
    scales = torch.stack([deviation(features[part]) for part in parts])
    paths = logistic_paths(features, label, classes, strengths, parts, scales, tolerance=1e-14)
    for part, scale, path in zip(parts, scales, paths):
        alone = logistic_path(features[part] / scale, label[part], classes, strengths, tolerance=1e-14)
        torch.testing.assert_close(path.objective, alone.objective, atol=1e-12, rtol=0)
        logits = path(features), alone(features / scale)
        if kind == "softmax":  # Of which the sum over classes is free where a class is missing.
            logits = logits[0].softmax(2), logits[1].softmax(2)
        torch.testing.assert_close(*logits, atol=1e-5, rtol=1e-5)


def test_float32_products_end_at_the_optimum_of_float64() -> None:
    """Features far from 0 and of unequal scale, which float32 would lose if they were not centred first."""
    features, label = problem(5)
    features = features * torch.logspace(-3, 3, 20, dtype=torch.float64) + 100
    scale = deviation(features)[None]
    every = torch.ones(1, 300, dtype=torch.bool)
    path = logistic_paths(features, label, 5, STRENGTHS, every, scale)[0]
    exact = logistic_paths(features, label, 5, STRENGTHS, every, scale, tolerance=1e-15)[0]
    assert ((path.objective - exact.objective) <= path.gap).all()
    assert (path.gap <= 1e-6).all()
    assert (exact.gap <= 1e-14).all()


def test_findings_are_independent_sigmoids_over_their_known_labels() -> None:
    features, _ = problem(3)
    rng = np.random.default_rng(0)
    label = (features[:, :4].numpy() + rng.normal(size=(300, 4)) > features[:, :4].numpy().mean(0)).astype(np.int64)
    label[rng.random(label.shape) < 0.3] = -1
    path = logistic_path(features, torch.tensor(label), 4, STRENGTHS)
    for i, strength in enumerate(STRENGTHS):
        for k in range(4):
            rows = label[:, k] >= 0
            model = sklearn_fit(features[rows], torch.tensor(label[rows, k]), strength)
            expected = objective(model, features[rows], torch.tensor(label[rows, k]), strength)
            assert float(path.objective[i, k]) == pytest.approx(expected, abs=2e-6)
            np.testing.assert_allclose(
                path(features)[i, :, k].sigmoid(), model.predict_proba(features)[:, 1], atol=0.01
            )


def test_finding_that_is_always_or_never_there_scores_zero() -> None:
    features, label = problem(2)
    labels = torch.stack([label, torch.ones_like(label), torch.zeros_like(label), torch.full_like(label, -1)], 1)
    path = logistic_path(features, labels, 4, STRENGTHS)
    assert (path(features)[..., 1:] == 0).all()
    alone = logistic_path(features, labels[:, :1], 1, STRENGTHS)
    torch.testing.assert_close(path(features)[..., :1], alone(features))
    assert (logistic_path(features, labels[:, 1:], 3, STRENGTHS)(features) == 0).all()


def test_class_without_examples_is_never_predicted() -> None:
    features, label = problem(3)
    path = logistic_path(features, torch.tensor([0, 3, 4])[label], 6, STRENGTHS)
    logits = path(features)
    assert (logits[..., [1, 2, 5]] == -torch.inf).all()
    torch.testing.assert_close(logits[..., [0, 3, 4]], logistic_path(features, label, 3, STRENGTHS)(features))
    assert torch.isfinite(logits[..., [0, 3, 4]].log_softmax(-1)).all()


def test_single_class_is_always_predicted() -> None:
    features, _ = problem(2)
    logits = logistic_path(features, torch.ones(300, dtype=torch.int64), 3, STRENGTHS)(features)
    assert (logits.softmax(-1) == torch.tensor([0.0, 1.0, 0.0])).all()


def test_features_that_say_nothing_give_the_share_of_each_class() -> None:
    label = torch.tensor([0, 0, 0, 1, 2, 2])
    path = logistic_path(torch.full((6, 4), 7.0), label, 3, STRENGTHS, tolerance=1e-12)
    expected = torch.tensor([3 / 6, 1 / 6, 2 / 6], dtype=torch.float64)
    torch.testing.assert_close(path(torch.randn(5, 4)).softmax(-1), expected.expand(4, 5, 3), atol=1e-6, rtol=0)


@given(
    n=st.integers(2, 30),
    d=st.integers(1, 12),
    classes=st.integers(2, 4),
    scale=st.sampled_from([1e-3, 1.0, 10.0]),
    multi_label=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None)
def test_logistic_path_always_ends_near_the_optimum(
    n: int, d: int, classes: int, scale: float, multi_label: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    features = torch.tensor(rng.normal(size=(n, d)) * scale + rng.normal(size=d))
    features[n // 2 :] = features[: n - n // 2].clone()  # duplicates, with labels that may contradict
    label = torch.tensor(rng.integers(-1, 2, (n, classes)) if multi_label else rng.integers(0, classes, n))
    path = logistic_path(features, label, classes, STRENGTHS)
    assert (path.gap <= 1e-6).all()
    assert not path(features).isnan().any()


@given(n=st.integers(3, 25), d=st.integers(1, 30), targets=st.integers(1, 3), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_ridge_chooses_by_leaving_each_example_out(n: int, d: int, targets: int, seed: int) -> None:
    """Against a loop of refits by scikit-learn."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d)) * np.arange(1, d + 1) + 5
    target = features[:, :1] + rng.normal(size=(n, targets)) * 3
    strengths = [0.01, 1.0, 30.0]
    unit = float(principal_axes(torch.tensor(features))[3].mean())

    def fit(rows: np.ndarray, strength: float) -> Ridge:
        return Ridge(alpha=strength * unit, solver="cholesky").fit(features[rows], target[rows])

    everyone = np.arange(n)
    error = np.zeros((len(strengths), targets))
    for i, strength in enumerate(strengths):
        for left_out in everyone:
            predicted = fit(everyone[everyone != left_out], strength).predict(features[[left_out]])
            error[i] += (predicted.reshape(-1) - target[left_out]) ** 2
    for together, chosen in ((True, [error.sum(1).argmin()] * targets), (False, error.argmin(0))):
        weight, intercept = ridge(torch.tensor(features), torch.tensor(target), strengths, together=together)
        for k, best in enumerate(chosen):
            model = fit(everyone, strengths[best])
            expected = np.asarray(model.predict(features)).reshape(n, targets)[:, k]
            found = features @ weight[k].numpy() + float(intercept[k])
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(target).max())


def test_ridge_on_features_that_say_nothing_gives_the_mean() -> None:
    weight, intercept = ridge(torch.full((4, 3), 2.0), torch.tensor([[0.0], [1.0], [1.0], [1.0]]), [1.0])
    assert (weight == 0).all()
    assert float(intercept) == 0.75


def test_ridge_takes_the_strongest_of_those_that_tie() -> None:
    """With two examples, leaving one out leaves a constant, whatever the regularisation."""
    features, target = torch.tensor([[0.0], [2.0]]), torch.tensor([[-1.0], [1.0]])
    weight, _ = ridge(features, target, [1e-6, 1.0])
    assert float(weight) == pytest.approx(0.5)


@pytest.mark.parametrize("shape", [(30, 8), (8, 30), (5, 5)])
def test_principal_axes(shape: tuple[int, int]) -> None:
    features = torch.tensor(np.random.default_rng(0).normal(size=shape)) + 10
    mean, scores, axes, squares = principal_axes(features)
    torch.testing.assert_close(mean + scores @ axes.T, features)
    torch.testing.assert_close(axes.T @ axes, torch.eye(len(squares), dtype=torch.float64), atol=1e-8, rtol=0)
    torch.testing.assert_close(scores.T @ scores, squares.diag(), atol=1e-8, rtol=0)
    assert len(squares) == min(shape[0] - 1, shape[1])


def test_deviation_of_a_constant_is_one() -> None:
    features = torch.tensor([[1.0, 0.1, 0.0], [3.0, 0.1, 0.0], [5.0, 0.1, 0.0]], dtype=torch.float64)
    assert deviation(features).tolist() == [pytest.approx(np.std([1, 3, 5])), 1.0, 1.0]


def test_majority_accuracy() -> None:
    assert majority_accuracy(torch.tensor([2, 2, 0, -1, -1, -1]), torch.tensor([2, 0, -1, 1])) == pytest.approx(1 / 3)
    train = torch.tensor([[0, 1, -1], [0, 1, -1], [1, 0, 0]])
    test = torch.tensor([[0, 0, -1], [1, 0, -1], [0, -1, -1]])
    assert majority_accuracy(train, test) == pytest.approx((2 / 3 + 0) / 2)


def test_labelled_is_in_the_order_of_the_ids() -> None:
    dataset = fake_dataset()
    one, other = (
        labelled(evaluation(RandomEncoder(), data), "val", "after") for data in (dataset, dataset.shuffled(1))
    )
    assert one.ids.tolist() == sorted(dataset.prepared["val"].ids) == other.ids.tolist()
    assert one.groups.tolist() == other.groups.tolist()
    torch.testing.assert_close(one.features, other.features, rtol=0, atol=0)
    torch.testing.assert_close(one.features.norm(dim=1), torch.ones(80, dtype=torch.float64))
    assert (one.label == other.label).all()


@pytest.mark.parametrize("multi_label", [False, True])
def test_known_leaves_out_the_unlabelled(multi_label: bool) -> None:
    dataset = fake_dataset(multi_label=multi_label)
    records = dataset.prepared["train"]
    records.label[:100] = -1
    if multi_label:
        records.label[100, :-1] = -1
    data = evaluation(RandomEncoder(), dataset)
    assert sorted(known(data, "train", "before").ids) == sorted(records.ids[100:])
    records.label[:] = -1
    with pytest.raises(BenchError, match="dataset 'fake', train: none of 240 images has a known label"):
        known(data, "train", "before")


def test_features_that_are_not_finite_are_named() -> None:
    class Broken(RandomEncoder):
        def _encode(self, items: Any) -> Any:
            encoded = super()._encode(items)
            encoded.features[3, 0] = np.nan
            return encoded

    dataset = fake_dataset()
    with pytest.raises(BenchError, match=f"image '{dataset.prepared['val'].ids[3]}'"):
        labelled(evaluation(Broken(), dataset), "val", "before")
