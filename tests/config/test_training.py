"""Settings of a training: recipes, and those of stages over them."""

from typing import Any

import pytest

from benchmark.common.errors import BenchError
from benchmark.config.training import Rates, Steps, Training
from benchmark.config.validation import validated


def training(**settings: Any) -> Training:
    return validated(Training, {"samples": 640} | settings, "suite mine")


def test_a_stage_has_the_settings_of_the_training_but_for_its_own() -> None:
    stages = {"prompt": {"optimizer": "sgd", "learning_rate": 1e-4, "rates": {"text": 0.5}, "warmup": {"steps": 9}}}
    whole = training(learning_rate=1e-3, weight_decay=0.2, rates={"image": 0.1}, batch_size=32, stages=stages)
    prompt = whole.at_stage("prompt")
    assert (prompt.optimizer, prompt.learning_rate, prompt.weight_decay) == ("sgd", 1e-4, 0.2)
    assert prompt.rates == Rates(text=0.5)
    assert prompt.warmup == Steps(steps=9)
    assert (prompt.batch_size, prompt.budget) == (32, ("samples", 640))
    assert whole.at_stage("pretrain") == training(
        learning_rate=1e-3, weight_decay=0.2, rates={"image": 0.1}, batch_size=32
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"warmup": 2}, r"warmup: expected a share of the steps from 0 to 1, or {steps: n}, found 2$"),
        ({"warmup": {"steps": 0}}, r"warmup: expected a share of the steps from 0 to 1, or {steps: n}"),
        ({"warmup": {"step": 4}}, r"warmup: expected a share of the steps from 0 to 1, or {steps: n}"),
        ({"rates": {"img": 1}}, "unknown key of rates 'img'; did you mean 'image'"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam'; did you mean 'adamw'"),
        ({"minimum_rate": 0.1}, "minimum_rate is 0.1, above the learning_rate 0.0005 that falls to it"),
        ({"stages": {"a": {"batch_size": 4}}}, "stages.a.batch_size: all stages share it; a stage can set optimizer,"),
        ({"stages": {"a": {"steps": 4}}}, "stages.a.steps: all stages share it"),
        ({"stages": {"a": {"momentun": 4}}}, "unknown key of stages.a 'momentun'; did you mean 'momentum'"),
        ({"stages": {"a": {"rates": {"img": 1}}}}, "unknown key of stages.a.rates 'img'; did you mean 'image'"),
        ({"stages": {"a": {"learning_rate": -1}}}, "stages.a.learning_rate: expected a number greater than 0, found"),
        ({"stages": {"a": {"minimum_rate": 1}}}, "stages.a: minimum_rate is 1, above the learning_rate"),
        ({"stages": {"a": 4}}, "stages.a: expected a mapping of keys to values, found 4"),
    ],
)
def test_mistakes_name_the_key(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=f"suite mine: {message}"):
        training(**settings)
