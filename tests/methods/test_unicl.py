"""Label-supervised contrast against a loop over the positives of each pair."""

import math

import pytest
import torch
from torch import Tensor

from benchmark.common.ranges import SameText
from tests.methods.fakes import Pairs, small_method
from tests.methods.loops import nce_loop, unit

FINDINGS = [[1, 0, 1], [0, 0, 0], [1, 0, 1], [1, -1, 1], [1, -1, 1], [0, 0, 0], [0, 1, 0]]


def loop(
    image: Tensor, text: Tensor, scale: float, positives: list[set[int]], excluded: list[set[int]], smoothing: float
) -> float:
    """The mean over i of the mean over its positives k of -log exp(s(i, k)) / sum over j of exp(s(i, j)), both ways.

    j runs over the candidates, all that are not excluded; smoothing: the share of the mean over all of these.
    """
    n, total = len(image), 0.0
    for x, y in ((image, text), (text, image)):
        for i in range(n):
            s = {j: scale * float(x[i] @ y[j]) for j in range(n) if j not in excluded[i]}
            log_sum = math.log(sum(map(math.exp, s.values())))
            right = sum(log_sum - s[k] for k in positives[i]) / len(positives[i])
            total += (1 - smoothing) * right + smoothing * sum(log_sum - value for value in s.values()) / len(s)
    return total / (2 * n)


@pytest.mark.parametrize(
    ("label", "positives"),
    [
        ([2, 0, 2, -1, 2, -1, 0], [[0, 2, 4], [1, 6], [0, 2, 4], [3], [0, 2, 4], [5], [1, 6]]),
        (FINDINGS, [[0, 2], [1, 5], [0, 2], [3], [4], [1, 5], [6]]),
    ],
    ids=["one label", "several findings"],
)
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("same_text", ["negative", "ignore", "positive"])
def test_loss_agrees_with_a_loop_over_positives(
    label: list[object], positives: list[list[int]], same_text: SameText, smoothing: float
) -> None:
    method = small_method("unicl").double().train()
    method.same_text, method.label_smoothing = same_text, smoothing
    image, text, texts = unit(7, 0), unit(7, 1), [3, 4, 3, 4, 4, 5, 3]
    twins = [{j for j in range(7) if j != i and texts[i] == texts[j]} for i in range(7)]
    right = [set(own) | (twins[i] if same_text == "positive" else set()) for i, own in enumerate(positives)]
    excluded = [twins[i] - right[i] if same_text == "ignore" else set() for i in range(7)]
    keys = {"label": torch.tensor(label), "index": torch.arange(7), "text_hash": torch.tensor(texts)}
    loss = method.contrast({"image": image, "text": text}, keys)["contrastive"]
    expected = loop(image, text, float(method.temperature_scale), right, excluded, smoothing)
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_without_labels_it_is_clip() -> None:
    method, batch = small_method("unicl").double(), Pairs(5).sequential(0, 5)
    batch.label = None
    image, text = unit(5, 0), unit(5, 1)
    keys = method.keys(batch) | {"index": torch.arange(5)}
    loss = method.contrast({"image": image, "text": text}, keys)["contrastive"]
    assert loss.item() == pytest.approx(nce_loop(image, text, float(method.temperature_scale)), abs=1e-12)
