"""What a plan says that a training will take, against what can be worked out by hand."""

from pathlib import Path

import pytest
import torch

from benchmark.config.schema import Training
from benchmark.method import METHODS, Method
from benchmark.models import build_model, load_model_card
from benchmark.plan.estimate import saved_bytes, step_flops
from benchmark.training.loop import pretrain
from tests.methods.fakes import Pairs, small_method

ONE, TWO = Training(samples=1, batch_size=8, micro_batch=8), Training(samples=1, batch_size=8, micro_batch=4)


def of_vit(name: str) -> Method:
    model = build_model(load_model_card("vit-b-16"), 0, device="meta")
    return METHODS[name](model, METHODS[name].Config()).to("meta").train()


def test_flops_are_those_of_the_formula() -> None:
    length, patches, layers, width = 16, 196, 12, 768

    def transformer(n: int, w: int) -> int:
        return 2 * layers * (12 * w * w * n + 2 * n * n * w)

    image = 2 * patches * 3 * 16 * 16 * width + transformer(patches + 1, width) + 2 * width * 512
    text = transformer(length, 512) + 2 * 512 * 512
    # A backward pass is twice the forward one, but for the gradient of the pixels.
    assert step_flops(of_vit("clip"), ONE, length) == pytest.approx(3 * (image + text), rel=0.01)
    assert step_flops(of_vit("clip"), TWO, length) == pytest.approx(4 * (image + text), rel=0.01)
    assert step_flops(of_vit("locked_image"), ONE, length) == pytest.approx(image + 3 * text, rel=0.01)
    assert step_flops(of_vit("msd"), TWO, length) == pytest.approx(4 * (image + text), rel=0.01)


@pytest.mark.parametrize("name", METHODS.names())
def test_flops_are_those_of_a_training(name: str, tmp_path: Path) -> None:
    pairs = Pairs(8)
    length = max(len(tokens) for tokens in pairs.tokens)
    training = Training(steps=1, batch_size=4, micro_batch=4, validations=0)
    cost = pretrain(small_method(name), pairs, None, training, seed=0, device=torch.device("cpu"), folder=tmp_path)  # type: ignore[arg-type]
    method = small_method(name).to("meta").train()
    # The contrastive term's own products are left out of the estimate; texts are shorter in the batch that is counted.
    assert step_flops(method, training, length) == pytest.approx(cost["flops_per_sample"], rel=0.25)


def test_memory_is_that_of_a_micro_batch() -> None:
    clip = of_vit("clip")
    assert saved_bytes(clip, ONE, 77) == pytest.approx(2 * saved_bytes(clip, TWO, 77), rel=0.01)
    assert saved_bytes(of_vit("locked_image"), ONE, 77) < 0.4 * saved_bytes(clip, ONE, 77)
