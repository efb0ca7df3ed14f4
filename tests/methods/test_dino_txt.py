"""The head on a frozen image tower: what it computes, what it trains, and what it counts."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.common.errors import BenchError
from benchmark.config.augmentation import Augmentation
from benchmark.config.training import Training
from benchmark.method import METHODS
from benchmark.models import ModelCard, build_model
from benchmark.training.loop import pretrain
from tests.methods.fakes import Pairs, small_card, small_method


def attend(x: Tensor, block: nn.Module, heads: int) -> Tensor:
    """A pre-norm block with layer scale and a SwiGLU feed-forward part, from its weights."""
    state = dict(block.named_parameters())

    def linear(name: str, y: Tensor) -> Tensor:
        return y @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name: str, y: Tensor) -> Tensor:
        centred = y - y.mean(dim=-1, keepdim=True)
        scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + block.get_submodule(name).eps).sqrt()
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    b, length, width = x.shape
    q, k, v = linear("attn.qkv", norm("norm1", x)).view(b, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(2, 3) / math.sqrt(width // heads)).softmax(dim=-1)
    x = x + state["ls1.gamma"] * linear("attn.proj", (weights @ v).transpose(1, 2).reshape(b, length, width))
    y = norm("norm2", x)
    gate = linear("mlp.fc1_g", y)
    return x + state["ls2.gamma"] * linear("mlp.fc2", gate * torch.sigmoid(gate) * linear("mlp.fc1_x", y))


def test_features_are_the_heads_class_token_and_its_mean_patch() -> None:
    method = small_method("dino_txt", heads=2).double().eval()
    tower = method.model.image
    for parameter in tower.blocks.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.rand(3, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        below = tower.tower(x)
        tokens = torch.cat([below.features[:, None], below.tokens], dim=1)
        for block in tower.blocks:
            tokens = attend(tokens, block, heads=2)
        tokens = F.layer_norm(tokens, (32,), eps=1e-5)
        expected = torch.stack([torch.cat([row[0], sum(row[1:]) / (len(row) - 1)]) for row in tokens])
        torch.testing.assert_close(method.model.image_features(x), expected, rtol=0, atol=1e-12)
        embedding = F.normalize(expected @ method.model.image_projection.weight.T, dim=-1)
        torch.testing.assert_close(method.model.encode_image(x), embedding, rtol=0, atol=1e-12)


TOWERS: dict[str, dict[str, object]] = {
    "tiny": {"kind": "tiny", "width": 32, "layers": 2, "heads": 2, "dropout": 0.1},
    "convnext": {"kind": "timm", "name": "convnext_atto", "drop_path": 0.1},
}


@pytest.mark.parametrize("image", TOWERS)
def test_the_tower_below_stays_as_it_is_and_the_head_learns(image: str, tmp_path: Path) -> None:
    card = ModelCard.model_validate(small_card().model_dump() | {"image": TOWERS[image]})
    method = METHODS["dino_txt"](build_model(card, 0), METHODS["dino_txt"].Config())
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    training = Training(
        samples=32, batch_size=8, micro_batch=4, learning_rate=1e-2, validations=1, augmentation=Augmentation.none()
    )
    pretrain(method, Pairs(16), Pairs(8, seed=1), training, seed=0, device=torch.device("cpu"), folder=tmp_path)  # type: ignore[arg-type]
    same = {name for name, tensor in method.state_dict().items() if torch.equal(tensor, before[name])}
    below = {name for name in before if name.startswith("model.image.tower.")}
    assert below
    assert below <= same
    trained = {name for name, parameter in method.named_parameters() if name not in below and parameter.numel() > 0}
    assert not trained & same
    counts = method.model.parameter_counts()
    head = sum(p.numel() for part in (method.model.image.blocks, method.model.image.norm) for p in part.parameters())
    projection = method.model.image_projection.weight.numel()
    assert counts["image_trainable"] == head + projection
    assert counts["image"] == head + projection + sum(p.numel() for p in method.model.image.tower.parameters())


def test_each_parameter_is_in_one_group_and_the_head_comes_last() -> None:
    method = small_method("dino_txt")
    groups = method.model.layer_groups("image")
    parameters = [
        id(p)
        for group in groups
        for part in group
        for p in ([part] if isinstance(part, nn.Parameter) else part.parameters())
    ]
    expected = [*method.model.image.parameters(), *method.model.image_projection.parameters()]
    assert sorted(parameters) == sorted(map(id, expected))
    trained = [all(p.requires_grad for part in group for p in _of(part)) for group in groups]
    assert trained == [False] * (len(groups) - 3) + [True] * 3


def _of(part: nn.Module | nn.Parameter) -> list[nn.Parameter]:
    return [part] if isinstance(part, nn.Parameter) else list(part.parameters())


def test_without_blocks_it_is_a_projection_of_class_token_and_mean_patch() -> None:
    method = small_method("dino_txt", blocks=0).double().eval()
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        below = method.model.image.tower(x)
        expected = torch.cat([below.features, below.tokens.mean(dim=1)], dim=1)
        torch.testing.assert_close(method.model.image_features(x), expected)


def test_heads_divide_the_width() -> None:
    with pytest.raises(BenchError, match=r"dino_txt\.heads is 5, which does not divide the image tower's width 32"):
        small_method("dino_txt", heads=5)
