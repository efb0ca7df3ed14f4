"""The contrast of words and regions against a loop over both."""

import math

import benchmark.methods.gloria
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.common.ranges import SameText
from tests.methods.fakes import Pairs, small_method

LENGTHS = [3, 6, 1, 4, 2]
N, REGIONS, WORDS, WIDTH = len(LENGTHS), 4, max(LENGTHS), 7


def embeddings() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return {
        "image": F.normalize(draw(N, WIDTH), dim=-1),
        "text": F.normalize(draw(N, WIDTH), dim=-1),
        "regions": draw(N, REGIONS, WIDTH),
        "words": draw(N, WORDS, WIDTH),
        "mask": torch.tensor([[k < length for k in range(WORDS)] for length in LENGTHS]),
    }


def softmax(values: list[float]) -> list[float]:
    e = [math.exp(value) for value in values]
    return [x / sum(e) for x in e]


TEXTS = [3, 4, 3, 4, 4]


def nce(scores: list[list[float]], same_text: str) -> float:
    """The cross-entropy of each row and of each column with its diagonal, and what else has the same text."""
    total = 0.0
    for matrix in (scores, [list(column) for column in zip(*scores)]):
        for i, row in enumerate(matrix):
            same = [j for j in range(N) if TEXTS[j] == TEXTS[i]]
            there = [j for j in range(N) if same_text != "ignore" or j == i or j not in same]
            share = dict(zip(there, softmax([row[j] for j in there])))
            right = same if same_text == "positive" else [i]
            total -= sum(math.log(share[j]) for j in right) / len(right) / N
    return total


def match(regions: Tensor, words: Tensor) -> float:
    """The log-sum-exp over words of 5 times the cosine of each word and of what it sees of the image."""
    by_word = [softmax([float(region @ word) for word in words]) for region in regions]
    total = 0.0
    for b, word in enumerate(words):
        weights = softmax([4.0 * row[b] for row in by_word])
        context = sum(weight * region for weight, region in zip(weights, regions))
        assert isinstance(context, Tensor)
        total += math.exp(5.0 * float(context @ word / (context.norm() * word.norm())))
    return math.log(total)


@pytest.mark.parametrize("same_text", ["negative", "ignore", "positive"])
def test_loss_agrees_with_a_loop_whatever_the_chunks(same_text: SameText, monkeypatch: pytest.MonkeyPatch) -> None:
    x = embeddings()
    local = [[10.0 * match(x["regions"][i], x["words"][j, : LENGTHS[j]]) for j in range(N)] for i in range(N)]
    whole = [[10.0 * float(x["image"][i] @ x["text"][j]) for j in range(N)] for i in range(N)]
    method = small_method("gloria", local_weight=0.5, global_weight=2.0).double()
    method.same_text = same_text
    keys = {"index": torch.arange(N), "text_hash": torch.tensor(TEXTS)}
    for size in (2**24, 1, REGIONS * N * WORDS * 2):
        monkeypatch.setattr(benchmark.methods.gloria, "SCORES", size)
        terms = method.contrast(x, keys)
        assert terms["local"].item() == pytest.approx(0.5 * nce(local, same_text), abs=1e-10)
        assert terms["global"].item() == pytest.approx(2.0 * nce(whole, same_text), abs=1e-10)


def test_padding_changes_nothing() -> None:
    method, batch = small_method("gloria").double().eval(), Pairs(6).sequential(0, 6)
    gradients = []
    for value in (None, 0.0, 9.0):
        x = method(batch).embeddings
        if value is not None:
            x["words"] = F.pad(x["words"], (0, 0, 0, 3), value=value)
            x["mask"] = F.pad(x["mask"], (0, 3))
        sum(method.contrast(x, {"index": torch.arange(len(x["image"]))}).values()).backward()
        gradients.append([p.grad.clone() for p in method.parameters() if p.grad is not None])
        method.zero_grad()
    for gradient in gradients[1:]:
        for a, b in zip(gradients[0], gradient, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
