"""Peak memory against what can be worked out by hand."""

import torch

from benchmark.training.memory import TensorPeak


def test_the_peak_is_of_the_tensors_inside() -> None:
    before = torch.zeros(3000, 1000)
    for _ in range(2):
        with TensorPeak() as tensors:
            a = torch.zeros(1000, 1000)
            b = a + 1
            del a
            c = b * 2
            del b, c
        assert 8_000_000 <= tensors.bytes < 8_001_000
    with TensorPeak() as tensors:
        del before
        torch.zeros(1000, 1000)
    assert 4_000_000 <= tensors.bytes < 4_001_000
