"""msd against a loop in plain Python written from its definition, and its state."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.config.training import Training
from benchmark.method import METHODS
from benchmark.training.accumulation import accumulate
from tests.methods.fakes import Pairs, small_method


def unit(n: int, seed: int, width: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, width, generator=generator, dtype=torch.float64), dim=-1)


def softmax(x: list[float]) -> list[float]:
    top = max(x)
    e = [math.exp(v - top) for v in x]
    return [v / sum(e) for v in e]


def dot(a: Tensor, b: Tensor) -> float:
    return sum(x * y for x, y in zip(a.tolist(), b.tolist()))


def by_hand(
    v: Tensor,
    t: Tensor,
    v_m: Tensor,
    t_m: Tensor,
    q_v: Tensor,
    q_t: Tensor,
    index: list[int],
    alpha: float,
    tau: float,
    targets: str,
) -> float:
    """Steps 2 to 4 of the definition, for students v, t whose keys are rows ``index`` of v_m, t_m."""
    T, V = [*t_m, *q_t], [*v_m, *q_v]
    total = 0.0
    for row, i in enumerate(index):
        from_image = [dot(v_m[i], c) / tau for c in T]
        from_text = [dot(t_m[i], c) / tau for c in V]
        if targets == "intra":
            from_image = from_text = [(dot(v_m[i], V[j]) + dot(t_m[i], T[j])) / (2 * tau) for j in range(len(T))]
        for query, candidates, soft in ((v[row], T, softmax(from_image)), (t[row], V, softmax(from_text))):
            a = 0.0 if targets == "hard" else alpha
            y = [(1 - a) * (j == i) + a * soft[j] for j in range(len(candidates))]
            p = softmax([dot(query, c) / tau for c in candidates])
            total -= sum(y[j] * math.log(p[j]) for j in range(len(candidates))) / 2
    return total / len(index)


@pytest.mark.parametrize("targets", ["cross", "intra", "hard"])
@pytest.mark.parametrize("queued", [0, 5])
def test_loss_is_the_definitions(targets: str, queued: int) -> None:
    method = small_method("msd", queue_size=9, targets=targets, alpha_warmup=2.0).double().train()
    method.epoch = 1.0
    v, t, v_m, t_m, q_v, q_t = (unit(n, seed) for seed, n in enumerate((3, 3, 6, 6, queued, queued)))
    method.queue_image[:queued], method.queue_text[:queued] = q_v, q_t
    method.queue_row[:queued] = 100 + torch.arange(queued)
    method.queued.fill_(queued)
    index = [1, 2, 4]
    keys = {"image": v_m, "text": t_m, "row": torch.arange(6), "index": torch.tensor(index)}
    ours = method.contrast({"image": v, "text": t}, keys)["contrastive"].item()
    tau = 1 / float(method.temperature_scale)
    assert ours == pytest.approx(by_hand(v, t, v_m, t_m, q_v, q_t, index, 0.2, tau, targets), abs=1e-9)
    method.eval()
    ours = method.contrast({"image": v, "text": t}, keys)["contrastive"].item()
    none = q_v[:0]
    assert ours == pytest.approx(by_hand(v, t, v_m, t_m, none, none, index, 0.0, tau, targets), abs=1e-9)


def test_older_keys_of_the_pair_itself_are_no_candidates() -> None:
    method = small_method("msd", queue_size=4).double().train()
    method.epoch = 5.0
    v, t, v_m, t_m, q_v, q_t = (unit(n, seed) for seed, n in enumerate((1, 1, 1, 1, 3, 3)))
    keys = {"image": v_m, "text": t_m, "row": torch.tensor([7]), "index": torch.tensor([0])}
    losses = []
    for rows in ([5, 7, 6], [5, 6]):
        keep = [j for j, row in enumerate([5, 7, 6]) if row in rows]
        method.queue_image[: len(keep)], method.queue_text[: len(keep)] = q_v[keep], q_t[keep]
        method.queue_row[: len(keep)] = torch.tensor(rows)
        method.queued.fill_(len(keep))
        v.requires_grad_()
        loss = method.contrast({"image": v, "text": t}, keys)["contrastive"]
        assert torch.autograd.grad(loss, v)[0].isfinite().all()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)


def test_alpha_rises_over_the_warm_up() -> None:
    method = small_method("msd", alpha=0.4, alpha_warmup=2.0).train()
    for epoch, alpha in ((0.0, 0.0), (0.5, 0.1), (2.0, 0.4), (9.0, 0.4)):
        method.epoch = epoch
        assert method.alpha == pytest.approx(alpha)
    assert small_method("msd", alpha_warmup=0.0).train().alpha == 0.4


def test_queue_is_a_ring_that_starts_empty() -> None:
    method = small_method("msd", queue_size=5)
    assert int(method.queued) == 0

    def keys(first: int, count: int) -> dict[str, Tensor]:
        values = torch.arange(first, first + count)
        return {
            "image": values[:, None].expand(-1, 16).float(),
            "text": -values[:, None].expand(-1, 16).float(),
            "row": values,
            "text_hash": values + 1000,
        }

    method.after_step(keys(1, 3))
    assert method.queue_row.tolist() == [1, 2, 3, -1, -1]
    method.after_step(keys(4, 3))
    assert method.queue_row.tolist() == [6, 2, 3, 4, 5]
    assert method.queue_text_hash.tolist() == [1006, 1002, 1003, 1004, 1005]
    assert method.queue_image[:, 0].tolist() == [6, 2, 3, 4, 5]
    assert method.queue_text[:, 0].tolist() == [-6, -2, -3, -4, -5]
    method.after_step(keys(10, 8))
    assert sorted(method.queue_row.tolist()) == [13, 14, 15, 16, 17]


def test_without_a_queue_it_trains() -> None:
    method = small_method("msd", queue_size=0).train()
    for step in range(2):
        losses, keys = accumulate(method, [Pairs(8).batch(0, 4), Pairs(8).batch(4, 4)], "keyed", step)
        method.after_step(keys)
    assert math.isfinite(losses["contrastive"])


@pytest.mark.parametrize("warmup", [False, True])
def test_teacher_follows_parameters_and_buffers_by_the_momentum(warmup: bool) -> None:
    method = small_method("msd", momentum=0.9, momentum_warmup=warmup)
    method.model.image.register_buffer("floating", torch.tensor([1.0]))
    method.model.image.register_buffer("counter", torch.tensor(3))
    method.teacher.image.register_buffer("floating", torch.tensor([0.0]))
    method.teacher.image.register_buffer("counter", torch.tensor(0))
    before = {n: p.clone() for n, p in method.teacher.named_parameters()}
    for p in method.model.parameters():
        p.data.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    keys = {"image": unit(2, 0), "text": unit(2, 1), "row": torch.arange(2), "text_hash": torch.arange(2)}
    first = 0.1 if warmup else 0.9
    for step, momentum in ((0, first), (200, 0.9)):
        method.step.fill_(step)
        before = {n: p.clone() for n, p in method.teacher.named_parameters()}
        method.after_step(keys)
        for name, student in method.model.named_parameters():
            expected = momentum * before[name] + (1 - momentum) * student
            torch.testing.assert_close(method.teacher.get_parameter(name), expected, rtol=1e-5, atol=1e-6)
    assert method.teacher.image.floating.item() == pytest.approx(0.9 * (1 - first) + 0.1)
    assert method.teacher.image.counter.item() == 3


def test_with_momentum_0_the_teacher_is_the_student() -> None:
    """The authors' published scheme: after any step the keys are what the student in eval mode gives."""
    method = small_method("msd", momentum=0.0, queue_size=0, alpha=0.0, dropout=0.1).train()
    pairs = Pairs(8)
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    for step in range(2):
        _, keys = accumulate(method, [pairs.batch(0, 4), pairs.batch(4, 4)], "keyed", step)
        optimizer.step()
        method.after_step(keys)
    student = method.model.state_dict()
    assert all(torch.equal(value, student[name]) for name, value in method.teacher.state_dict().items())
    batch, keys = pairs.batch(0, 8), method.keys(pairs.batch(0, 8))
    method.eval()
    assert torch.equal(keys["image"], method.model.encode_image(batch.view()))
    assert torch.equal(keys["text"], method.model.encode_text(batch.tokens, batch.mask))


def test_temperature_is_learned_as_a_log_and_stays_in_its_range() -> None:
    method = small_method("msd", temperature=0.07, temperature_range=(0.01, 0.5))
    assert float(method.temperature_scale) == pytest.approx(1 / 0.07)
    assert method.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    keys = {"image": unit(2, 0), "text": unit(2, 1), "row": torch.arange(2), "text_hash": torch.arange(2)}
    for value, expected in ((9.0, 1 / 0.01), (-1.0, 1 / 0.5), (3.0, math.exp(3.0))):
        method.logit_scale.data.fill_(value)
        method.after_step(keys)
        assert float(method.temperature_scale) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "pairs", "steps", "expected"),
    [
        # Collapsed to chance in the demo, at a batch of 64.
        ({"momentum": 0.5, "queue_size": 1024}, 5973, 625, ["of 16 steps, and a teacher of momentum 0.5 changes"]),
        ({"momentum": 0.5, "queue_size": 0}, 5973, 625, []),
        ({"momentum": 0.0, "queue_size": 0, "alpha": 0.0}, 5973, 625, []),
        ({"momentum": 0.0, "queue_size": 64}, None, None, ["set queue_size to 0, or raise"]),
        ({"momentum": 0.9, "queue_size": 128}, 5973, 625, []),
        ({"momentum": 0.99, "queue_size": 1024}, 1000, 625, ["1,024 keys is longer than the data, 1,000 pairs"]),
        ({"momentum": 0.99, "queue_size": 1024}, None, None, []),
        ({"momentum": 0.999, "queue_size": 1024}, 5973, 625, ["changes within 1,000 steps, so that in 625 it stays"]),
        ({"momentum": 0.999, "queue_size": 1024, "momentum_warmup": True}, 5973, 625, []),
        ({"momentum": 1.0, "queue_size": 0}, None, 10**6, ["of momentum 1 changes within inf steps"]),
        ({"queue_size": 65536}, 5973, 100_000, ["of 1,024 steps", "longer than the data"]),
    ],
)
def test_cautions(options: dict[str, Any], pairs: int | None, steps: int | None, expected: list[str]) -> None:
    method = METHODS["msd"]
    cautions = method.cautions(method.Config(**options), Training(samples=1, batch_size=64), pairs, steps)
    assert len(cautions) == len(expected)
    assert all(part in caution for part, caution in zip(expected, cautions)), cautions


def test_teacher_stays_in_eval_mode_and_untrained() -> None:
    method = small_method("msd", dropout=0.5).train()
    assert not any(module.training for module in method.teacher.modules())
    assert all(isinstance(module, nn.Module) and module.training for module in method.model.modules())
    assert not any(p.requires_grad for p in method.teacher.parameters())
    assert method.eval().encoder() is method.model
    other = small_method("msd", evaluate="teacher")
    assert other.encoder() is other.teacher
