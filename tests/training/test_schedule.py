"""How long a training is and what its learning rate is, against formulas."""

import math

import pytest

from benchmark.common.errors import BenchError
from benchmark.config.training import Training
from benchmark.training.schedule import check_batch, learning_rate, stage_starts, training_steps
from tests.training.fakes import staged


def test_learning_rate_warms_up_and_falls_along_a_cosine() -> None:
    training = Training(samples=1, learning_rate=2.0, warmup=0.2)
    rates = [learning_rate(training, step, 10) for step in range(10)]
    expected = [1.0, 2.0, *(2.0 * 0.5 * (1 + math.cos(math.pi * i / 8)) for i in range(8))]
    assert rates == pytest.approx(expected)
    assert learning_rate(Training(samples=1, warmup=0.0), 0, 10) == pytest.approx(5e-4)


def test_steps_leave_out_the_incomplete_batch() -> None:
    def none() -> float:
        raise AssertionError("nothing is measured for this budget")

    assert check_batch(Training(samples=640, batch_size=64), 200) == 3
    assert training_steps(Training(samples=640, batch_size=64), 200, none) == 10
    assert training_steps(Training(epochs=2, batch_size=64), 200, none) == 6
    assert training_steps(Training(samples=1, batch_size=64), 200, none) == 1
    assert training_steps(Training(steps=7, batch_size=64), 200, none) == 7
    assert training_steps(Training(time=60, batch_size=64), 200, lambda: 0.5) == 120
    assert training_steps(Training(flops=1e6, batch_size=64), 200, lambda: 1e4) == 100
    with pytest.raises(BenchError, match="batch_size is 64, but there are only 63"):
        check_batch(Training(samples=640, batch_size=64), 63)


def test_each_stage_has_a_step() -> None:
    assert stage_starts(staged(), 8) == {"image": 0, "text": 6}
    assert stage_starts(staged(), 2) == {"image": 0, "text": 1}
    with pytest.raises(BenchError, match="2 stages, but the budget is 1 steps"):
        stage_starts(staged(), 1)
