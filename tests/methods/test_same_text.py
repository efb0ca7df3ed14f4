"""Identical texts and label smoothing in every loss, against loops written from the formulas and against torch."""

import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from benchmark.methods.captioning import next_token_loss
from benchmark.methods.cleft import class_loss
from torch import Tensor

from benchmark.common.ranges import SameText
from benchmark.losses import Targets, cross_entropy, nt_xent
from benchmark.method import Method
from tests.methods.fakes import small_method
from tests.methods.loops import cross_entropy_loop, targets_loop, unit

SAME_TEXT = get_args(SameText)
TEXTS = [5, 8, 5, 9, 8, 5]
"""Of six pairs: three have the same, two another, one its own."""
KEYS = {"index": torch.arange(6), "text_hash": torch.tensor(TEXTS)}


def method_of(name: str, same_text: SameText, smoothing: float = 0.0, **options: object) -> Method:
    method = small_method(name, **options).double().train()
    method.same_text, method.label_smoothing = same_text, smoothing
    return method


def both_ways(to_text: list[list[float]], to_image: list[list[float]], same_text: str, smoothing: float) -> float:
    """The mean over both directions and all queries; scores by query and candidate."""
    return sum(
        cross_entropy_loop(scores[i], targets_loop(i, TEXTS, TEXTS[i], same_text), smoothing) / 12
        for scores in (to_text, to_image)
        for i in range(6)
    )


def cosines(a: Tensor, b: Tensor, scale: float) -> list[list[float]]:
    return [[scale * float(x @ y) for y in b] for x in a]


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("same_text", SAME_TEXT)
@pytest.mark.parametrize("name", ["clip", "flip", "locked_image", "locked_text", "partial_freeze", "captioning"])
def test_clips_loss_and_those_that_share_it(name: str, same_text: SameText, smoothing: float) -> None:
    method = method_of(name, same_text, smoothing)
    image, text = unit(6, 0), unit(6, 1)
    scale = float(method.temperature_scale)
    ours = method.contrast({"image": image, "text": text}, KEYS)["contrastive"].item()
    expected = both_ways(cosines(image, text, scale), cosines(text, image, scale), same_text, smoothing)
    assert ours == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("same_text", SAME_TEXT)
def test_cleft_has_no_half(same_text: SameText, smoothing: float) -> None:
    method = method_of("cleft", same_text, smoothing)
    image, text = unit(6, 0), unit(6, 1)
    scale = float(method.temperature_scale)
    ours = method.contrast({"image": image, "text": text}, KEYS)["contrastive"].item()
    expected = both_ways(cosines(image, text, scale), cosines(text, image, scale), same_text, smoothing)
    assert ours == pytest.approx(2 * expected, abs=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("same_text", SAME_TEXT)
def test_filip_compares_by_tokens(same_text: SameText, smoothing: float) -> None:
    method = method_of("filip", same_text, smoothing)
    image, text = unit(18, 0).reshape(6, 3, 6), unit(12, 1).reshape(6, 2, 6)
    mask = torch.ones(6, 2, dtype=torch.bool)
    scale = float(method.temperature_scale)

    def best(queries: Tensor, candidates: Tensor) -> float:
        return scale * sum(max(float(q @ c) for c in candidates) for q in queries) / len(queries)

    to_text = [[best(i, t) for t in text] for i in image]
    to_image = [[best(t, i) for i in image] for t in text]
    ours = method.contrast({"image": image, "text": text, "mask": mask}, KEYS)["contrastive"].item()
    assert ours == pytest.approx(both_ways(to_text, to_image, same_text, smoothing), abs=1e-12)


@pytest.mark.parametrize("same_text", SAME_TEXT)
def test_siglip_decides_by_text(same_text: SameText) -> None:
    method = method_of("siglip", same_text)
    image, text = unit(6, 0), unit(6, 1)
    scale = float(method.temperature_scale)
    expected = 0.0
    for i in range(6):
        for j in range(6):
            twin = i != j and TEXTS[i] == TEXTS[j]
            if twin and same_text == "ignore":
                continue
            z = 1 if i == j or (twin and same_text == "positive") else -1
            expected += math.log(1 + math.exp(-z * (scale * float(image[i] @ text[j]) - 10))) / 6
    ours = method.contrast({"image": image, "text": text}, KEYS)["sigmoid"].item()
    assert ours == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("same_text", SAME_TEXT)
@pytest.mark.parametrize("targets", ["cross", "hard"])
def test_msds_queue_knows_its_texts(targets: str, same_text: SameText, smoothing: float) -> None:
    """Queued: an older key of pair 2, which is never a candidate, keys of other pairs with texts of the batch, and one
    of another text.
    """
    method = method_of("msd", same_text, smoothing, queue_size=5, targets=targets, alpha=0.4, alpha_warmup=0.0)
    v, t, v_m, t_m, q_v, q_t = (unit(n, seed, 16) for seed, n in enumerate((3, 3, 6, 6, 4, 4)))
    method.queue_image[:4], method.queue_text[:4] = q_v, q_t
    method.queue_row[:4], method.queue_text_hash[:4] = torch.tensor([2, 30, 31, 32]), torch.tensor([5, 5, 8, 7])
    method.queued.fill_(4)
    index, alpha, tau = [1, 2, 3], 0.0 if targets == "hard" else 0.4, 1 / float(method.temperature_scale)
    keys = {"image": v_m, "text": t_m, "row": torch.arange(6), "index": torch.tensor(index)}
    ours = method.contrast({"image": v, "text": t}, keys | {"text_hash": KEYS["text_hash"]})["contrastive"].item()
    texts, rows = [*TEXTS, 5, 5, 8, 7], [*range(6), 2, 30, 31, 32]
    expected = 0.0
    for row, i in enumerate(index):
        for query, teacher, candidates in ((v[row], v_m[i], [*t_m, *q_t]), (t[row], t_m[i], [*v_m, *q_v])):
            there = [j for j in range(10) if j == i or rows[j] != i]
            hard = targets_loop(there.index(i), [texts[j] for j in there], TEXTS[i], same_text)
            soft = [math.exp(float(teacher @ candidates[j]) / tau) for j in there]
            total = sum(soft[place] for place in hard)
            target = {place: (1 - alpha) * y + alpha * soft[place] / total for place, y in hard.items()}
            scores = [float(query @ candidates[j]) / tau for j in there]
            expected += cross_entropy_loop(scores, target, smoothing) / 6
    assert ours == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("name", "views"), [("simclr", ["view_a", "view_b"]), ("masked", ["view"])])
def test_views_of_an_image_are_its_own_whatever_its_text(name: str, views: list[str]) -> None:
    embeddings = {each: unit(6, seed) for seed, each in enumerate(["image", "text", *views])}
    plain, shared = (method_of(name, same).contrast(embeddings, KEYS) for same in ("negative", "positive"))
    assert torch.equal(plain["views"], shared["views"])
    assert not torch.isclose(plain["contrastive"], shared["contrastive"])


@pytest.mark.parametrize("same_text", SAME_TEXT)
def test_softmaxes_are_torchs_with_label_smoothing(same_text: SameText) -> None:
    """Each query over its candidates alone, with its targets as probabilities."""
    logits, texts = 5 * unit(6, 3) @ unit(6, 4).T, KEYS["text_hash"]
    twins = (texts[:, None] == texts) & ~torch.eye(6, dtype=torch.bool)
    expected = 0.0
    for i in range(6):
        kept = ~twins[i] if same_text == "ignore" else torch.ones(6, dtype=torch.bool)
        target = (twins[i] if same_text == "positive" else torch.zeros(6)).double()
        target[i] = 1
        expected += F.cross_entropy(logits[i, kept], target[kept] / target.sum(), label_smoothing=0.2) / 6
    given = Targets(torch.arange(6), None if same_text == "negative" else twins, same_text == "positive", 0.2)
    torch.testing.assert_close(cross_entropy(logits, given), expected, rtol=0, atol=1e-12)
    if same_text == "negative":
        reference = F.cross_entropy(logits, torch.arange(6), label_smoothing=0.2)
        torch.testing.assert_close(cross_entropy(logits, given), reference, rtol=0, atol=1e-12)


def test_other_softmaxes_are_smoothed_too() -> None:
    a, b = unit(4, 0), unit(4, 1)
    views = torch.cat([a, b])
    others = [[j for j in range(8) if j != i] for i in range(8)]
    expected = sum(
        F.cross_entropy(
            views[i] @ views[others[i]].T / 0.1, torch.tensor(others[i].index((i + 4) % 8)), label_smoothing=0.2
        )
        for i in range(8)
    )
    torch.testing.assert_close(nt_xent(a, b, 0.1, 0.2), expected / 8, rtol=0, atol=1e-12)
    logits, label = unit(6, 2), torch.arange(6)
    expected = F.cross_entropy(logits, label, label_smoothing=0.2)
    torch.testing.assert_close(class_loss(logits, label, 0.2), expected)
    tokens, everywhere = label.reshape(2, 3), torch.ones(2, 3, dtype=torch.bool)
    torch.testing.assert_close(next_token_loss(logits.reshape(2, 3, 6), tokens, everywhere, 0.2), expected)


def test_validation_losses_are_not_smoothed() -> None:
    embeddings = {"image": unit(6, 0), "text": unit(6, 1)}
    plain, smoothed = (method_of("clip", "ignore", smoothing).eval() for smoothing in (0.0, 0.3))
    assert torch.equal(*(each.contrast(embeddings, KEYS)["contrastive"] for each in (plain, smoothed)))
