"""BAN's head against loops from the paper's equations, and the tokens that it reads."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmark.tasks import attention
from benchmark.tasks.attention import Ban, Held
from benchmark.tasks.scale import Scale
from torch import Tensor, nn

from benchmark.common.errors import BenchError
from benchmark.evaluation.encoder import ModelEncoder
from benchmark.models import DualEncoder, build_model
from benchmark.models.tower import TowerOutput
from benchmark.task import TASKS
from tests.conformance import checks_of, judge, registered
from tests.evaluation.fakes import Letters
from tests.methods.fakes import small_card
from tests.tasks import test_conformance as suite
from tests.tasks.answering import measured, pictures, sighted, values
from tests.tasks.fakes import RandomEncoder

IMAGE, QUESTION, WIDTH, ANSWERS = 5, 6, 4, 3


def head(glimpses: int = 2) -> Ban:
    """A head in float64 and eval mode, its biases and scales away from their initial values."""
    torch.manual_seed(0)
    made = Ban(IMAGE, QUESTION, WIDTH, ANSWERS, 0.5, glimpses).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        made.attention.parametrizations.weight.original0 *= 4
    return made


def tokens() -> tuple[Tensor, Tensor, Tensor]:
    """Three images of four tokens, and three questions of five, three and one."""
    torch.manual_seed(1)
    mask = torch.arange(5) < torch.tensor([5, 3, 1])[:, None]
    return torch.randn(3, 4, IMAGE).double(), torch.randn(3, 5, QUESTION).double(), mask


Vector = list[float]


def linear(state: dict[str, Tensor], name: str, x: Vector) -> Vector:
    """A linear map; with weight normalisation (Salimans and Kingma 2016), one norm for the whole matrix."""
    if f"{name}.weight" in state:
        weight = state[f"{name}.weight"].tolist()
    else:
        scale, direction = (state[f"{name}.parametrizations.weight.original{i}"] for i in (0, 1))
        norm = math.sqrt(sum(w * w for row in direction.tolist() for w in row))
        weight = [[float(scale) * w / norm for w in row] for row in direction.tolist()]
    bias = state[f"{name}.bias"].tolist() if f"{name}.bias" in state else [0.0] * len(weight)
    return [sum(w * v for w, v in zip(row, x)) + b for row, b in zip(weight, bias)]


def relu(x: Vector) -> Vector:
    return [max(v, 0.0) for v in x]


def reference(made: Ban, image: list[Vector], question: list[Vector]) -> tuple[list[list[Vector]], Vector]:
    """The attention maps and the logits of one image and one question without padding, pair by pair."""
    state = made.state_dict()
    q = [linear(state, "question", token) for token in question]
    u = [relu(linear(state, "attend_question.1", token)) for token in q]
    v = [relu(linear(state, "attend_image.1", token)) for token in image]
    maps = []
    for g in range(len(made.join)):
        p = [linear(state, "attention", [float(k == at) for k in range(3 * WIDTH)])[g] for at in range(3 * WIDTH)]
        scores = [[sum(p[k] * u_i[k] * v_j[k] for k in range(3 * WIDTH)) for v_j in v] for u_i in u]
        total = sum(math.exp(score) for row in scores for score in row)
        maps.append([[math.exp(score) / total for score in row] for row in scores])
    for g, attended in enumerate(maps):
        left = [relu(linear(state, f"of_question.{g}.1", token)) for token in q]
        right = [relu(linear(state, f"of_image.{g}.1", token)) for token in image]
        pooled = [
            sum(attended[i][j] * left[i][k] * right[j][k] for i in range(len(q)) for j in range(len(image)))
            for k in range(WIDTH)
        ]
        joint = linear(state, f"join.{g}.1", pooled)
        q = [[a + b for a, b in zip(token, joint)] for token in q]
    summed = [sum(token[k] for token in q) for k in range(WIDTH)]
    return maps, linear(state, "classify.3", relu(linear(state, "classify.0", summed)))


@pytest.mark.parametrize("glimpses", [1, 2, 3])
@torch.no_grad()
def test_head_agrees_with_loops_over_all_pairs(glimpses: int) -> None:
    made, (image, question, mask) = head(glimpses), tokens()
    logits = made(image, question, mask)
    maps = made.maps(image, made.question(question), mask)
    for row, length in enumerate(mask.sum(1).tolist()):
        expected_maps, expected = reference(made, image[row].tolist(), question[row, :length].tolist())
        torch.testing.assert_close(logits[row].tolist(), expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(maps[row, :, :length].tolist(), expected_maps, rtol=1e-10, atol=1e-12)
        assert (maps[row, :, length:] == 0).all()
    assert (maps[0].amax((1, 2)) > 2 / maps[0, 0].numel()).all(), "hardly more than a mean over pairs"


@torch.no_grad()
def test_padding_changes_nothing() -> None:
    made, (image, question, mask) = head(), tokens()
    logits = made(image, question, mask)
    other = torch.where(mask[:, :, None], question, 1e3 * torch.randn_like(question))
    torch.testing.assert_close(made(image, other, mask), logits, rtol=0, atol=0)
    longer = torch.cat([other, torch.full((3, 2, QUESTION), 7.0).double()], 1)
    longer_mask = torch.cat([mask, torch.zeros(3, 2, dtype=torch.bool)], 1)
    torch.testing.assert_close(made(image, longer, longer_mask), logits)
    for row, length in enumerate(mask.sum(1).tolist()):
        alone = made(image[row : row + 1], question[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(alone[0], logits[row])


def test_gradient_reaches_all_weights_and_all_tokens_but_padding() -> None:
    made, (image, question, mask) = head(), tokens()
    for module in made.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda _, inputs, output: nn.functional.softplus(inputs[0]))
    image.requires_grad_(), question.requires_grad_()
    made(image, question, mask).square().sum().backward()
    assert [name for name, weight in made.named_parameters() if weight.grad is None or not weight.grad.any()] == []
    assert (image.grad != 0).any(2).all()
    assert torch.equal((question.grad != 0).any(2), mask)


def test_dropout_zero_is_no_dropout() -> None:
    made, inputs = Ban(IMAGE, QUESTION, WIDTH, ANSWERS, 0.0).double(), tokens()
    torch.testing.assert_close(made.train()(*inputs), made.eval()(*inputs), rtol=0, atol=0)
    dropping = head().train()
    assert not torch.equal(dropping(*inputs), dropping(*inputs))


def test_scale_over_parts_is_that_of_the_whole() -> None:
    parts = [torch.randn(n, 7) * torch.arange(7) + 100 for n in (1, 40, 3)]
    parts[1][:, 2] *= 5
    found, whole = Scale.over(parts), torch.cat(parts).double().numpy()
    np.testing.assert_allclose(found.mean, whole.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.deviation[1:], whole.std(0)[1:], rtol=1e-9)
    assert found.deviation[0] == 1  # a constant
    np.testing.assert_array_equal(found.deviation == 1, Scale(whole).deviation == 1)


def test_held_computes_once_what_there_is_room_for() -> None:
    asked: list[list[int]] = []

    def compute(keys: list[int]) -> list[Tensor]:
        asked.append(keys)
        return [torch.full((2,), float(key)) for key in keys]

    held = Held(compute, room=2 * torch.zeros(2).nbytes)
    for keys in ([3, 1], [1, 2], [3, 1], [2]):
        assert [int(tensor[0]) for tensor in held(keys)] == keys
    assert asked == [[3, 1], [2], [2]]


def encoder(model: DualEncoder | None = None) -> ModelEncoder:
    return ModelEncoder(model or build_model(small_card(), 0), Letters(), "cpu", "weights", 10.0)


def test_learns_what_neither_image_nor_question_tells_alone() -> None:
    found = sighted(pictures(), encoder(), head="ban", epochs=12, batch_size=16, dropout=0.0)
    assert values(found)["accuracy"] > 0.95


def test_tokens_that_are_held_and_those_computed_anew_answer_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"head": "ban", "epochs": 3, "batch_size": 16}
    encoded: list[int] = []

    class Counting(ModelEncoder):
        def image_tokens(self, images: Tensor) -> Tensor:
            encoded.append(len(images))
            return super().image_tokens(images)

    def found() -> np.ndarray:
        made = Counting(build_model(small_card(), 0), Letters(), "cpu", "weights", 10.0)
        return sighted(pictures(), made, **options).examples["predicted"]

    held = found()
    once = sum(encoded)
    monkeypatch.setattr(attention, "HELD", 0)
    np.testing.assert_array_equal(found(), held)
    assert sum(encoded) - once > 2 * once


class Pooled:
    """An encoder without tokens."""

    def __init__(self, of: RandomEncoder) -> None:
        self.encode_images, self.encode_texts = of.encode_images, of.encode_texts
        self.image_size, self.resizing, self.fingerprint = of.image_size, of.resizing, of.fingerprint


def test_an_encoder_without_tokens_is_told_in_a_line_what_works() -> None:
    message = r"^vqa\.head=ban: a Pooled gives no tokens; vqa\.head=product and vqa\.head=bilinear need none$"
    with pytest.raises(BenchError, match=message):
        measured(pictures(), Pooled(RandomEncoder()), head="ban")


@pytest.mark.parametrize("side", ["image", "text"])
def test_a_tower_without_tokens_is_told_in_a_line_what_works(side: str) -> None:
    model = build_model(small_card(), 0)
    tower: nn.Module = getattr(model, side)
    tower.register_forward_hook(lambda module, inputs, output: TowerOutput(output.features, None))
    message = rf"^vqa\.head=ban: the {side} tower \w+ has no tokens, only pooled features; vqa\.head=product and .*$"
    with pytest.raises(BenchError, match=message):
        measured(pictures(), encoder(model), head="ban")


def test_tokens_after_the_projection_are_refused() -> None:
    with pytest.raises(BenchError, match=r"^vqa\.features=after: vqa\.head=ban reads tokens before the projection"):
        measured(pictures(), encoder(), head="ban", features="after")


VARIANT = '''
from dataclasses import dataclass

from benchmark import register_task
from benchmark.tasks.vqa import VQA


@register_task("vqa_ban")
class Variant(VQA):
    """The task with its head ban."""

    @dataclass
    class Config(VQA.Config):
        head: str = "ban"
        width: int = 64
        epochs: int = 6
        micro_batch: int = 256
'''


@pytest.mark.parametrize("check", [name for name in checks_of(suite) if name != "test_is_tested_here"])
def test_the_task_conforms_with_this_head(check: str, tmp_path: Path) -> None:
    with registered(TASKS, tmp_path / "vqa_ban.py", VARIANT):
        judge(checks_of(suite)[check], name="vqa_ban", pair=("vqa_ban", "classes"), tmp_path=tmp_path)
