"""What accumulation promises beside the gradient, which the conformance suite compares for every method."""

import pytest
import torch
from torch import nn

from benchmark.common.errors import BenchError
from benchmark.config.training import Training
from benchmark.training.accumulation import accumulate, accumulation_mode, effective_loss, loss_values
from tests.methods.fakes import Pairs, small_method


def thirds(pairs: Pairs) -> list:
    return [pairs.batch(0, 4), pairs.batch(4, 4), pairs.batch(8, 2)]


def test_cached_reports_the_loss_of_the_full_batch() -> None:
    method, pairs = small_method("clip"), Pairs(10)
    whole = loss_values(accumulate(method, [pairs.batch(0, 10)], "plain", 0)[0])
    cached = loss_values(accumulate(method, thirds(pairs), "cached", 0)[0])
    plain = loss_values(accumulate(method, thirds(pairs), "plain", 0)[0])
    assert cached["contrastive"] == pytest.approx(whole["contrastive"], abs=1e-5)
    assert effective_loss(method, thirds(pairs), 0)["contrastive"] == pytest.approx(whole["contrastive"], abs=1e-5)
    assert plain["contrastive"] < whole["contrastive"] - 0.5  # fewer negatives


def test_plain_is_the_mean_of_the_micro_batches_losses() -> None:
    method, batches = small_method("clip").double(), thirds(Pairs(10))
    expected = 0.0
    for batch in batches:
        output = method(batch)
        loss = method.contrast(output.embeddings, {"index": torch.arange(len(batch))})["contrastive"]
        expected += len(batch) / 10 * loss
    expected.backward()
    gradient = [p.grad.clone() for p in method.parameters()]
    method.zero_grad()
    losses, _ = accumulate(method, batches, "plain", 0)
    assert losses["contrastive"].item() == pytest.approx(expected.item(), abs=1e-6)
    for p, g in zip(method.parameters(), gradient):
        torch.testing.assert_close(p.grad, g)


def test_running_statistics_are_updated_once() -> None:
    pairs = Pairs(8)

    def statistics(mode: str) -> dict[str, torch.Tensor]:
        method = small_method("clip").train()
        torch.manual_seed(0)
        method.model.image_projection = nn.Sequential(nn.Linear(32, 16), nn.BatchNorm1d(16))
        accumulate(method, [pairs.batch(0, 4), pairs.batch(4, 4)], mode, 0)
        return {n: b for n, b in method.named_buffers() if "running" in n or "tracked" in n}

    plain, cached = statistics("plain"), statistics("cached")
    assert len(plain) == 3
    for name in plain:
        torch.testing.assert_close(cached[name], plain[name])


def test_global_random_state_is_left_alone() -> None:
    method = small_method("clip", dropout=0.5).train()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    accumulate(method, thirds(Pairs(10)), "cached", 7)
    assert torch.equal(torch.rand(3), expected)


def test_unknown_mode_names_the_nearest() -> None:
    with pytest.raises(BenchError, match="did you mean 'cached'"):
        accumulate(small_method("clip"), thirds(Pairs(10)), "cache", 0)  # type: ignore[arg-type]


def test_accumulation_that_a_method_does_not_have() -> None:
    with pytest.raises(BenchError, match="'keyed', but method 'clip' supports cached, plain"):
        accumulation_mode(small_method("clip"), Training(samples=1, accumulation="keyed"))
    assert accumulation_mode(small_method("msd"), Training(samples=1)) == "keyed"
