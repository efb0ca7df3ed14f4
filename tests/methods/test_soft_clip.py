"""Softened targets against loops over labels and over texts."""

import math

import pytest
import torch
from torch import Tensor

from benchmark.common.ranges import SameText
from benchmark.method import METHODS
from tests.methods.fakes import Pairs, small_method
from tests.methods.loops import nce_loop, unit

TEXTS = [3, 4, 3, 4, 4, 5]
TWINS = [{j for j in range(6) if j != i and TEXTS[i] == TEXTS[j]} for i in range(6)]


def loop(
    image: Tensor,
    text: Tensor,
    scale: float,
    cosine: list[list[float]],
    t: float,
    weight: float,
    same_text: str = "negative",
    smoothing: float = 0.0,
) -> float:
    """Soft cross-entropy both ways, halved, with targets (1 - weight) onehot + weight softmax(cosine / t)."""
    n, total = len(image), 0.0
    for x, y in ((image, text), (text, image)):
        for i in range(n):
            there = [j for j in range(n) if same_text != "ignore" or j not in TWINS[i]]
            right = {i} | (TWINS[i] if same_text == "positive" else set())
            s = {j: scale * float(x[i] @ y[j]) for j in there}
            log_sum = math.log(sum(map(math.exp, s.values())))
            e = {j: math.exp((1.0 if j in right else cosine[i][j]) / t) for j in there}
            for j in there:
                target = (1 - weight) * (j in right) / len(right) + weight * e[j] / sum(e.values())
                total += ((1 - smoothing) * target + smoothing / len(there)) * (log_sum - s[j])
    return total / (2 * n)


def cosine_of(a: list[float], b: list[float]) -> float:
    product = sum(x * y for x, y in zip(a, b))
    length = math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    return product / length if length else 0.0


ONE = [2, 0, 2, -1, -1, 0]
SEVERAL = [[1, 0, 1], [0, 0, 0], [1, 0, 0], [0, -1, 0], [1, -1, 1], [0, 0, 0]]
# The class or the findings, and having none.
VECTORS: dict[str, list[list[float]]] = {
    "one": [[0, 0, 1], [1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0], [1, 0, 0]],
    "several": [[1, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]],
}


@pytest.mark.parametrize(("label", "vectors"), [(ONE, "one"), (SEVERAL, "several")], ids=VECTORS)
@pytest.mark.parametrize(("t", "weight"), [(1.0, 1.0), (0.3, 0.6)])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("same_text", ["negative", "ignore", "positive"])
def test_targets_follow_the_cosines_of_labels(
    label: list[object], vectors: str, t: float, weight: float, same_text: SameText, smoothing: float
) -> None:
    method = small_method("soft_clip", target_temperature=t, weight=weight).double().train()
    method.same_text, method.label_smoothing = same_text, smoothing
    image, text = unit(6, 0), unit(6, 1)
    v = VECTORS[vectors]
    cosine = [[1.0 if i == j else cosine_of(v[i], v[j]) for j in range(6)] for i in range(6)]
    keys = {"label": torch.tensor(label), "index": torch.arange(6), "text_hash": torch.tensor(TEXTS)}
    loss = method.contrast({"image": image, "text": text}, keys)["contrastive"]
    expected = loop(image, text, float(method.temperature_scale), cosine, t, weight, same_text, smoothing)
    # Cosines of labels are computed in float32.
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_the_default_is_the_softmax_of_cosines_as_it_is() -> None:
    image, text, label = unit(6, 0), unit(6, 1), torch.tensor(ONE)
    losses = [
        small_method("soft_clip", **options)
        .double()
        .contrast({"image": image, "text": text}, {"label": label, "index": torch.arange(6)})["contrastive"]
        for options in ({}, {"target_temperature": 1.0, "weight": 1.0})
    ]
    assert torch.equal(*losses)


def test_targets_follow_the_initial_text_tower_whatever_training_does() -> None:
    method = small_method("soft_clip", source="text", dropout=0.5, weight=0.7).double().train()
    batch = Pairs(6).sequential(0, 6)
    with torch.no_grad():
        features = method.model.eval().text_features(batch.tokens, batch.mask)
        method.train()
        for parameter in method.model.parameters():
            parameter.add_(1.0)
    rows = features.tolist()
    cosine = [[cosine_of(a, b) for b in rows] for a in rows]
    image, text = unit(6, 0), unit(6, 1)
    keys = method.keys(batch) | {"index": torch.arange(6)}
    loss = method.contrast({"image": image, "text": text}, keys)["contrastive"]
    assert loss.item() == pytest.approx(
        loop(image, text, float(method.temperature_scale), cosine, 0.07, 0.7), abs=1e-12
    )


def test_without_weight_it_is_clip() -> None:
    method = small_method("soft_clip", weight=0.0).double()
    image, text = unit(6, 0), unit(6, 1)
    loss = method.contrast({"image": image, "text": text}, {"label": torch.tensor(ONE), "index": torch.arange(6)})
    assert loss["contrastive"].item() == pytest.approx(
        nce_loop(image, text, float(method.temperature_scale)), abs=1e-12
    )


def test_it_needs_labels_for_their_similarity_alone() -> None:
    cls = METHODS["soft_clip"]
    assert cls.needs_of(cls.Config()) == {"label"}
    assert cls.needs_of(cls.Config(source="text")) == frozenset()
