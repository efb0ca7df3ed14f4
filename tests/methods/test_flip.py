"""FLIP is CLIP on fewer patches."""

import pytest
import torch

from benchmark.common.errors import BenchError
from benchmark.method import METHODS, Method
from benchmark.models import ModelCard, build_model
from tests.methods.fakes import Pairs, small_card, small_method


def flip(rate: float) -> Method:
    return METHODS["flip"](build_model(small_card(), 0), METHODS["flip"].Config(patch_dropout=rate))


@pytest.mark.parametrize(("rate", "kept"), [(0.0, 4), (0.5, 2), (0.75, 1), (0.85, 1)])
def test_patches_are_left_out_while_training(rate: float, kept: int) -> None:
    method, batch = flip(rate).train(), Pairs(3).sequential(0, 3)
    seen: list[int] = []
    method.model.image.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    method(batch)
    method.eval()(batch)
    assert seen == [kept, 4]


def test_without_dropout_it_is_clip() -> None:
    batch = Pairs(6).sequential(0, 6)
    methods = (flip(0.0).train(), small_method("clip").train())
    losses = [
        method.contrast(method(batch).embeddings, {"index": torch.arange(6)})["contrastive"] for method in methods
    ]
    assert torch.equal(*losses)


def test_a_tower_without_patches_is_refused() -> None:
    card = small_card().model_dump() | {"image": {"kind": "timm", "name": "resnet10t"}}
    model = build_model(ModelCard.model_validate(card), 0, "meta")
    assert not model.image.has_patch_dropout
    with pytest.raises(BenchError, match="no patch tokens"):
        METHODS["flip"](model, METHODS["flip"].Config())
