"""A plan's estimate of a training, against formulas and the run. Figures of all methods: training/test_cost."""

import pytest

from benchmark.config.schema import Training
from benchmark.method import METHODS
from benchmark.models import build_model, load_model_card
from benchmark.training.cost import Shape, flops_per_sample, on_meta, trial_copy
from tests.training.fakes import CPU

ONE, TWO = Training(steps=1, batch_size=8, micro_batch=8), Training(steps=1, batch_size=8, micro_batch=4)


def of_vit(name: str, training: Training, length: int) -> float:
    model = build_model(load_model_card("vit-b-16"), 0, device="meta")
    with on_meta():
        method = METHODS[name](model, METHODS[name].Config())
    with trial_copy(method, CPU) as copy:
        return flops_per_sample(copy, Shape(224, 224, length, training.augmentation).batch(1), training)


def test_flops_are_those_of_the_formula() -> None:
    length, patches, layers, width = 16, 196, 12, 768

    def transformer(n: int, w: int) -> int:
        return 2 * layers * (12 * w * w * n + 2 * n * n * w)

    image = 2 * patches * 3 * 16 * 16 * width + transformer(patches + 1, width) + 2 * width * 512
    text = transformer(length, 512) + 2 * 512 * 512
    # A backward pass is twice the forward one, but for the gradient of the pixels.
    assert of_vit("clip", ONE, length) == pytest.approx(3 * (image + text), rel=0.01)
    assert of_vit("clip", TWO, length) == pytest.approx(4 * (image + text), rel=0.01)
    assert of_vit("locked_image", ONE, length) == pytest.approx(image + 3 * text, rel=0.01)
    assert of_vit("msd", TWO, length) == pytest.approx(4 * (image + text), rel=0.01)
