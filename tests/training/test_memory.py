"""Peak memory against what can be worked out by hand."""

from pathlib import Path
from typing import Any

import torch

from benchmark.training.memory import StoragePeak, TensorPeak
from tests.methods.fakes import Pairs, small_method
from tests.training.fakes import CPU, train


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


def test_the_peak_of_storages_is_that_of_the_allocator() -> None:
    weight = torch.randn(300, 300, requires_grad=True)

    def work() -> None:
        x = torch.randn(500, 300)
        for _ in range(3):
            x = (x @ weight).relu()
        x[:100].sum().backward()
        weight.grad = None

    work()
    with TensorPeak() as tensors:
        work()
    with StoragePeak(CPU) as storages:
        work()
    assert storages.bytes == tensors.bytes
    with StoragePeak(CPU) as storages:
        view = weight.detach()[:10].T
        view.add_(1)
    assert storages.bytes == 0


def test_peak_memory_is_of_the_method_whatever_was_trained_before(tmp_path: Path) -> None:
    def peak(name: str, run: str, **training: Any) -> int:
        settings = {"steps": 2, "samples": None, "batch_size": 24, "micro_batch": 24} | training
        return int(train(small_method(name), tmp_path / run, Pairs(48), **settings)["peak_memory"])

    clip, frozen = peak("clip", "a"), peak("locked_image", "b")
    assert peak("clip", "c") == clip
    assert frozen < 0.8 * clip
    # The images of a micro-batch, the matrix of similarities and cached embeddings are small beside activations.
    assert peak("clip", "d", micro_batch=6) < 0.6 * clip
    assert peak("clip", "e", batch_size=48, micro_batch=24) < 1.2 * clip
    weights = sum(p.numel() * p.element_size() for p in small_method("clip").parameters())
    assert clip > 4 * weights
