"""The question-answering head of Roy et al. 2024 against loops from its description, and its training with towers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from benchmark.tasks import mevf_ban
from benchmark.tasks.mevf_ban import MevfBan, grey, rate, train
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.common.errors import BenchError
from benchmark.evaluation.encoder import ModelEncoder
from benchmark.models import build_model
from tests.evaluation.fakes import Letters
from tests.methods.fakes import small_card
from tests.tasks.answering import measured, pictures, sighted, values
from tests.tasks.fakes import RandomEncoder

WIDTH, ANSWERS = 6, 5
TRAIN = 96


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mevf_ban, "SIDE", 16)
    monkeypatch.setattr(mevf_ban, "CODE", 4)


def head() -> MevfBan:
    """A head in float64 without dropout, its biases and scales away from their initial values."""
    torch.manual_seed(0)
    made = MevfBan(WIDTH, ANSWERS).double()
    for module in made.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return made


def scaled(state: dict[str, Tensor], name: str) -> Tensor:
    """Weight normalisation with one norm for the whole matrix (Salimans and Kingma 2016)."""
    scale, direction = (state[f"{name}.parametrizations.weight.original{i}"] for i in (0, 1))
    return scale * direction / direction.square().sum().sqrt()


def reference(state: dict[str, Tensor], image: Tensor, tokens: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The head from its description, example by example and token by token."""

    def convolved(x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    def enlarged(x: Tensor, name: str) -> Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)

    def layer(x: Tensor, name: str) -> Tensor:
        return scaled(state, name) @ x + state[f"{name}.bias"]

    x = F.max_pool2d(convolved(pixels, "encoder.0").relu(), 2)
    x = F.max_pool2d(convolved(x, "encoder.3").relu(), 2)
    encoded = convolved(x, "encoder.6").relu()
    x = convolved(enlarged(encoded, "decoder.0").relu(), "decoder.2").relu()
    reconstruction = convolved(enlarged(x, "decoder.4").relu(), "decoder.6").sigmoid()

    h, logits = scaled(state, "attention")[1], []
    for i in range(len(image)):
        code = state["code.weight"] @ encoded[i].flatten() + state["code.bias"]
        visual = torch.cat([image[i], code])
        attending = layer(visual, "attend_visual.1").relu()
        scores = torch.stack(
            [
                (h * attending * layer(q, "attend_question.1").relu()).sum() + state["attention.bias"][1]
                for q in tokens[i]
            ]
        )
        attention = scores.exp() / scores.exp().sum()
        pooled = layer(visual, "visual.1").relu() * sum(
            a * layer(q, "question.1").relu() for a, q in zip(attention, tokens[i])
        )
        fused = sum(layer(pooled, "join.1") + q for q in tokens[i])
        logits.append(layer(layer(fused, "classifier.0").relu(), "classifier.3"))
    return torch.stack(logits), reconstruction


def questions(count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    image, tokens = torch.randn(count, WIDTH).double(), torch.randn(count, mevf_ban.TOKENS, WIDTH).double()
    return image, tokens, torch.rand(count, 1, 16, 16).double(), torch.randint(0, ANSWERS, (count,))


def test_head_agrees_with_its_description(small: None) -> None:
    made, (image, tokens, pixels, _) = head().eval(), questions(3)
    expected = reference(made.state_dict(), image, tokens, pixels)
    for found, wanted in zip(made(image, tokens, pixels), expected):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_sizes_are_the_published_ones() -> None:
    made = MevfBan(512, 458)
    assert made.code.in_features == 16384
    assert made.code.out_features == 512
    assert made.attend_visual[1].in_features == 1024
    assert made.attention.weight.shape == (2, 3 * 512)
    assert [layer.out_features for layer in made.classifier if isinstance(layer, nn.Linear)] == [1024, 458]
    dropouts = {name: module.p for name, module in made.named_modules() if isinstance(module, nn.Dropout)}
    assert dropouts == {
        "attend_visual.0": 0.2,
        "attend_visual.3": 0.5,
        "attend_question.0": 0.2,
        "visual.0": 0.2,
        "question.0": 0.2,
        "join.0": 0.2,
        "classifier.2": 0.5,
    }


def test_the_rate_is_the_published_one() -> None:
    """As the authors' code sets it at the start of each epoch: four values, then a factor at five epochs."""
    current, expected = 1e-3, []
    for epoch in range(20):
        if epoch < 4:
            current = (0.5, 1.0, 1.5, 2.0)[epoch] * 1e-3
        elif epoch in range(10, 20, 2):
            current *= 0.75
        expected.append(current)
    assert [rate(epoch) for epoch in range(20)] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("micro_batch", [32, 5])
def test_training_agrees_with_adamax_step_by_step(
    small: None, micro_batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs of 70 questions are two whole batches each; a tower before the head is trained along."""
    monkeypatch.setattr(mevf_ban, "EPOCHS", 2)
    made, (image, tokens, pixels, target) = head(), questions(70)
    tower = nn.Linear(WIDTH, WIDTH).double()
    weights = {f"head.{name}": weight.detach().clone() for name, weight in made.named_parameters()}
    weights |= {f"tower.{name}": weight.detach().clone() for name, weight in tower.named_parameters()}

    moments = {name: (torch.zeros_like(weight), torch.zeros_like(weight)) for name, weight in weights.items()}
    torch.manual_seed(5)
    orders = [torch.randperm(70)[:64] for _ in range(2)]
    norms = []
    for step, batch in enumerate(torch.cat(orders).split(32), start=1):
        leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
        seen = image[batch] @ leaves["tower.weight"].T + leaves["tower.bias"]
        state = {name.removeprefix("head."): leaf for name, leaf in leaves.items()}
        logits, reconstruction = reference(state, seen, tokens[batch], pixels[batch])
        right = torch.eye(ANSWERS).double()[target[batch]]
        answers = -(right * logits.sigmoid().log() + (1 - right) * (1 - logits.sigmoid()).log()).sum()
        loss = (answers + 0.001 * (reconstruction - pixels[batch]).square().mean()) / 32
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        norms.append(float(torch.cat([g.flatten() for g in gradients]).square().sum().sqrt()))
        for (name, weight), gradient in zip(list(weights.items()), gradients):
            gradient = gradient * min(1.0, 0.25 / (norms[-1] + 1e-6))
            mean, largest = moments[name]
            mean = 0.9 * mean + 0.1 * gradient
            largest = torch.maximum(0.999 * largest, gradient.abs() + 1e-8)
            moments[name] = mean, largest
            weights[name] = weight - rate((step - 1) // 2) / (1 - 0.9**step) * mean / largest
    assert max(norms) > 0.25

    torch.manual_seed(5)
    total = train(
        made, list(tower.parameters()), lambda at: (tower(image[at]), tokens[at], pixels[at]), target, micro_batch
    )
    assert total == pytest.approx(float(loss.detach()))
    for prefix, module in (("head", made), ("tower", tower)):
        for name, weight in module.named_parameters():
            torch.testing.assert_close(weight, weights[f"{prefix}.{name}"], rtol=0, atol=1e-8)


def test_grey_images_are_those_of_pillow() -> None:
    random = np.random.default_rng(0)
    # Smooth, so that the rounding of Pillow to whole numbers is all that differs.
    pixels = np.asarray(Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((224, 224)))
    picture = Image.fromarray(pixels).convert("L").resize((128, 128), Image.Resampling.BILINEAR)
    found = grey(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None])
    assert found.shape == (1, 1, 128, 128)
    np.testing.assert_allclose(found[0, 0].numpy() * 255, np.asarray(picture), atol=1.6)


class Kept(ModelEncoder):
    """Keeps its last copy, to look at what became of it."""

    made: ModelEncoder

    def copy(self) -> Any:
        self.made = super().copy()
        return self.made

    def projected_words(self, texts: Sequence[str], length: int) -> Tensor:
        assert length == 12
        return super().projected_words(texts, length)


def encoder() -> Kept:
    return Kept(build_model(small_card(), 0), Letters(), "cpu", "weights", 10.0)


def test_questions_are_answered_by_trained_towers(small: None) -> None:
    made = encoder()
    before = {name: weight.clone() for name, weight in made.model.state_dict().items()}
    found = sighted(pictures(TRAIN), made, protocol="roy2024")
    assert values(found)["accuracy"] > 0.75
    assert found.notes["epoch"] == 20
    trained = dict(made.made.model.named_parameters())
    assert [name for name, weight in trained.items() if torch.equal(weight, before[name])] == []
    assert all(torch.equal(weight, before[name]) for name, weight in made.model.state_dict().items())


def test_answers_depend_on_the_seed_alone(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mevf_ban, "EPOCHS", 1)
    copies = []
    for dataset, seed in ((pictures(TRAIN), 0), (pictures(TRAIN).shuffled(1), 0), (pictures(TRAIN), 1)):
        made = encoder()
        sighted(dataset, made, seed=seed, protocol="roy2024")
        copies.append(made.made.model.state_dict())
    first, shuffled, other = copies
    assert all(torch.equal(weight, shuffled[name]) for name, weight in first.items())
    assert any(not torch.equal(weight, other[name]) for name, weight in first.items())


def test_the_question_alone_is_answered_whatever_the_images_show(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mevf_ban, "EPOCHS", 2)
    dataset, other = pictures(TRAIN), pictures(TRAIN)
    for records in other.prepared.values():
        records.images[:] = records.images[::-1].copy() // 2
    first, second = (measured(each, encoder(), protocol="roy2024") for each in (dataset, other))
    np.testing.assert_array_equal(*(each.examples["correct_by_question_only"] for each in (first, second)))
    assert first.blind["question only"]["accuracy"] == first.examples["correct_by_question_only"].mean()


def test_an_encoder_without_towers_is_told_in_a_line() -> None:
    with pytest.raises(BenchError, match=r"^vqa\.protocol=roy2024: a RandomEncoder has no towers .*; expected .*$"):
        measured(pictures(TRAIN), RandomEncoder(), protocol="roy2024")
