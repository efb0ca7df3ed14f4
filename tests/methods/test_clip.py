"""clip against open_clip's loss and training step, and a loop written from the formula."""

import copy

import pytest
import torch
from open_clip.loss import ClipLoss

from benchmark.config.training import Training
from benchmark.training.accumulation import accumulate
from benchmark.training.schedule import optimizer_of
from tests.methods.fakes import Pairs, double, small_method
from tests.methods.loops import nce_loop, unit


def test_loss_is_open_clips() -> None:
    method = small_method("clip").double()
    image, text = unit(12, 0), unit(12, 1)
    ours = method.contrast({"image": image, "text": text}, {"index": torch.arange(12)})["contrastive"]
    theirs = ClipLoss()(image, text, method.logit_scale.exp())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_loss_is_the_formulas() -> None:
    method = small_method("clip").double()
    image, text = unit(7, 0), unit(7, 1)
    ours = method.contrast({"image": image, "text": text}, {"index": torch.arange(7)})["contrastive"]
    assert ours.item() == pytest.approx(nce_loop(image, text, float(method.temperature_scale)), abs=1e-12)


def test_one_step_is_open_clips() -> None:
    """The same weights, AdamW and batch through open_clip's loss end in the same weights, temperature included."""
    ours = double(small_method("clip")).train()
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
        lr=1e-3,
        betas=(0.9, 0.98),
        eps=1e-6,
    )
    image = theirs.model.encode_image(batch.view())
    text = theirs.model.encode_text(batch.tokens, batch.mask)
    ClipLoss()(image, text, theirs.logit_scale.exp()).backward()
    reference.step()
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters()):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


def test_temperature_stays_in_its_bounds() -> None:
    method = small_method("clip")
    assert float(method.temperature_scale) == pytest.approx(1 / 0.07)
    for value, expected in ((9.0, 100.0), (-1.0, 1.0)):
        method.logit_scale.data.fill_(value)
        method.after_step({})
        assert float(method.temperature_scale) == pytest.approx(expected)
