"""On a CUDA device: what the conformance suites say of the CPU, and what only a GPU can show."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmark.tasks.retrieval import measure
from safetensors.torch import load_file
from scipy.sparse import csr_array

from benchmark.config.training import Training
from benchmark.evaluation.encoder import ModelEncoder
from benchmark.evaluation.logistic import logistic_path
from benchmark.method import METHODS
from benchmark.models import build_model
from benchmark.models.tokenizer import CorpusBPE, train
from benchmark.training.accumulation import Reader, accumulate, training_step
from benchmark.training.checkpoint import LAST
from benchmark.training.compilation import compile_blocks
from benchmark.training.loop import pretrain
from benchmark.training.schedule import is_fused, optimizer_of, precision_of
from tests.methods.cases import AUGMENTATION, METHOD_MODES, full_batch_gradient, split, warmed
from tests.methods.fakes import Pairs, small_card, small_method
from tests.squares import Bench

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
CUDA = torch.device("cuda")


@pytest.mark.parametrize(("name", "mode"), METHOD_MODES)
def test_accumulated_gradient_is_the_full_batchs(name: str, mode: str) -> None:
    method, sizes = warmed(name).to(CUDA), [6, 6, 6, 4]
    batches = split(Pairs(sum(sizes), augmentation=AUGMENTATION), sizes)
    expected = full_batch_gradient(method, [batch.to(CUDA) for batch in batches], seed=3, apart=mode == "plain")
    accumulate(method, [batch.pinned() for batch in batches], mode, 3)
    actual = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
    assert actual.keys() == expected.keys()
    for parameter, gradient in actual.items():
        assert (gradient - expected[parameter]).abs().max() < 1e-9, parameter


@pytest.mark.parametrize(("name", "mode"), METHOD_MODES)
def test_peak_memory_does_not_grow_with_the_effective_batch(name: str, mode: str) -> None:
    method = small_method(name, dropout=0.1, width=256).to(CUDA).train()
    pairs = Pairs(2048)

    def peak(batches: int) -> int:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        accumulate(method, split(pairs, [64] * batches), mode, 0)
        method.zero_grad(set_to_none=True)
        return torch.cuda.max_memory_allocated() - before

    one, half = peak(1), peak(16)
    # What grows are matrices of the similarities of the effective batch; kept activations would be more.
    matrices = 20 * 4 * (2048**2 - 1024**2)
    assert peak(32) < half + matrices < half + 16 * one


def stepping(name: str, mode: Any, sizes: list[int], compiled: bool = False) -> tuple[Callable[[], None], Reader]:
    """A training step that is not read."""
    method = small_method(name, dropout=0.0 if compiled else 0.1).to(CUDA).train()
    if compiled:
        compile_blocks(method)
    optimizer, reader = optimizer_of(method, Training(steps=1)), Reader(CUDA)
    assert is_fused(optimizer)
    batches = [batch.pinned() for batch in split(Pairs(sum(sizes), augmentation=AUGMENTATION), sizes)]
    return lambda: training_step(
        method, optimizer, batches, mode, 0, gradient_clip=1.0, reader=reader, check=False
    ), reader


@pytest.mark.parametrize(("name", "mode"), METHOD_MODES)
def test_a_step_does_not_wait_for_the_device(name: str, mode: str) -> None:
    step, reader = stepping(name, mode, [5, 5, 2])
    for _ in range(2):
        step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(reader.read()) == 4


def kernels(step: Callable[[], None]) -> int:
    """Count the kernels of a step."""
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        torch.cuda.synchronize()
    return sum(event.count for event in profile.key_averages() if event.device_type == torch.autograd.DeviceType.CUDA)


def test_kernels_of_a_step() -> None:
    """One graph takes fewer than half of four micro-batches' two passes, and compiled blocks fewer than eager ones."""
    one, four = (kernels(stepping("clip", "cached", sizes)[0]) for sizes in ([16], [4] * 4))
    assert one < four / 2
    assert kernels(stepping("clip", "cached", [16], compiled=True)[0]) < one


@pytest.mark.parametrize("name", METHODS.names())
def test_trains_in_bf16_and_stays_near_float32(name: str, tmp_path: Path) -> None:
    assert precision_of(Training(samples=1), CUDA) == "bf16"
    losses = {}
    for precision in ("bf16", "fp32"):
        method = small_method(name)
        training = Training(
            samples=16 * 60, batch_size=16, micro_batch=6, learning_rate=3e-3, validations=2, precision=precision
        )
        cost = pretrain(method, Pairs(16), Pairs(16), training, seed=0, device=CUDA, folder=tmp_path / precision)  # type: ignore[arg-type]
        losses[precision] = cost["validation_loss"]
        held = sum(t.numel() * t.element_size() for t in method.state_dict().values())
        assert cost["peak_memory"] > held
        assert cost["device"] == torch.cuda.get_device_name()
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.25, abs=0.1)


def test_a_gradient_is_the_cpus() -> None:
    gradients = []
    for device in ("cpu", "cuda"):
        method = small_method("clip").to(device).double()
        method.model.image.normalise = lambda x: (x.double() - 0.5) / 0.25
        accumulate(method, split(Pairs(16), [6, 10]), "cached", 0)
        gradients.append({name: p.grad.cpu() for name, p in method.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        # Pixels are float32, and differ in the last digit.
        torch.testing.assert_close(gradients[1][name], value, atol=1e-5, rtol=0, msg=name)


def test_resumes_on_the_gpu(tmp_path: Path) -> None:
    training = Training(samples=160, batch_size=16, micro_batch=6, checkpoint_every=0)

    class Killed(BaseException):
        pass

    def stop(position: object) -> None:
        if position.step == 4:  # type: ignore[attr-defined]
            raise Killed

    def once(folder: Path, **options: object) -> None:
        pretrain(small_method("msd"), Pairs(40), Pairs(16), training, seed=0, device=CUDA, folder=folder, **options)  # type: ignore[arg-type]

    once(tmp_path / "whole")
    with pytest.raises(Killed):
        once(tmp_path / "parts", progress=stop)
    once(tmp_path / "parts")
    whole, parts = (load_file(tmp_path / run / LAST) for run in ("whole", "parts"))
    for name, value in whole.items():
        # Sums on a GPU have no fixed order.
        torch.testing.assert_close(parts[name], value, atol=5e-3, rtol=0, msg=name)


def test_embeddings_and_probe_are_the_cpus() -> None:
    model = build_model(small_card(), 0)
    tokenizer = CorpusBPE(train(["a chest x-ray with an effusion", "no finding"], 300), 12)
    images = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8)
    found = []
    for device in ("cpu", "cuda"):
        encoder = ModelEncoder(model, tokenizer, device, "test", 1.0)
        encoded = encoder.encode_images(images), encoder.encode_texts(["no finding", "an effusion"])
        found.append([part for each in encoded for part in (each.features, each.embeddings)])
    for cpu, gpu in zip(*found):
        np.testing.assert_allclose(gpu, cpu, atol=2e-3)
    x = torch.randn(300, 20, dtype=torch.float64)
    label = torch.arange(300) % 4
    cpu, gpu = (logistic_path(x.to(device), label.to(device), 4, [0.01, 1.0]) for device in ("cpu", "cuda"))
    torch.testing.assert_close(gpu.objective.cpu(), cpu.objective, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(), (5,)], ids=["embeddings", "tokens"])
def test_retrieval_is_the_cpus(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    queries, candidates = (random.integers(-1, 2, (n, *shape, 6)).astype(np.float32) for n in (40, 90))
    queries[..., 0] = candidates[..., 0] = 1
    right = csr_array((random.random((40, 90)) < 0.3).astype(float) + np.eye(40, 90))
    cpu, gpu = (measure(queries, candidates, right, [1, 5], torch.device(device)) for device in ("cpu", "cuda"))
    for name, column in cpu.examples.items():
        np.testing.assert_allclose(gpu.examples[name], column, err_msg=name)


def test_a_run_of_all_methods(bench: Bench) -> None:
    assert bench("run", "--suite", "suite.yaml", "--methods", "all", "--device", "cuda") == 0, bench.out + bench.err
    assert "failed 0" in bench.out
    rows = bench.rows()
    probe = rows[(rows.task == "linear_probe") & (rows.metric == "accuracy")]
    assert set(probe.method) >= {"clip", "msd", "captioning", "filip"}
    assert (probe.value > 0.8).all()
