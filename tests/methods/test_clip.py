"""clip against open_clip's loss and training step, and a loop written from the formula."""

import copy
import math

import pytest
import torch
from open_clip.loss import ClipLoss

from benchmark.accumulation import accumulate
from benchmark.config import Training
from benchmark.pretraining import optimizer_of
from tests.methods.fakes import Pairs, small_method


def test_loss_is_open_clips() -> None:
    method, batch = small_method("clip"), Pairs(12).sequential(0, 12)
    output = method(batch)
    ours = method.contrast(output.embeddings, {"index": torch.arange(12)})["contrastive"]
    theirs = ClipLoss()(output.embeddings["image"], output.embeddings["text"], method.logit_scale.exp())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_loss_is_the_formulas() -> None:
    method = small_method("clip").double()
    generator = torch.Generator().manual_seed(0)
    image, text = (
        torch.nn.functional.normalize(torch.randn(7, 5, generator=generator, dtype=torch.float64), dim=-1)
        for _ in range(2)
    )
    s = 1 / 0.07
    total = 0.0
    for i in range(7):
        for queries, candidates in ((image, text), (text, image)):
            logits = [s * sum(q * c for q, c in zip(queries[i].tolist(), row)) for row in candidates.tolist()]
            total += math.log(sum(map(math.exp, logits))) - logits[i]
    ours = method.contrast({"image": image, "text": text}, {"index": torch.arange(7)})["contrastive"]
    assert ours.item() == pytest.approx(total / 14, abs=1e-6)


def test_one_step_is_open_clips() -> None:
    """The same weights, AdamW and batch through open_clip's loss end in the same weights, temperature included."""
    ours = small_method("clip").train()
    theirs = copy.deepcopy(ours)
    training, pairs = Training(samples=1, learning_rate=1e-3), Pairs(16)
    optimizer = optimizer_of(ours, training)
    _, keys = accumulate(ours, [pairs.batch(0, 6), pairs.batch(6, 6), pairs.batch(12, 4)], "cached", 0)
    optimizer.step()
    ours.after_step(keys)

    batch = pairs.batch(0, 16)
    decays = [p for n, p in theirs.named_parameters() if p.ndim >= 2]
    others = [p for n, p in theirs.named_parameters() if p.ndim < 2]
    reference = torch.optim.AdamW(
        [{"params": others, "weight_decay": 0.0}, {"params": decays, "weight_decay": 0.1}],
        lr=1e-3, betas=(0.9, 0.98), eps=1e-6,
    )  # fmt: skip
    image = theirs.model.encode_image(batch.view())
    text = theirs.model.encode_text(batch.tokens, batch.mask)
    ClipLoss()(image, text, theirs.logit_scale.exp()).backward()
    reference.step()
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters()):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_temperature_stays_in_its_bounds() -> None:
    method = small_method("clip")
    assert method.temperature_scale == pytest.approx(1 / 0.07)
    for value, expected in ((9.0, 100.0), (-1.0, 1.0)):
        method.logit_scale.data.fill_(value)
        method.after_step({})
        assert method.temperature_scale == pytest.approx(expected)
