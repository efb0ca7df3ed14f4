"""Compiled towers: block by block, with the results of eager ones."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from benchmark.training import compilation
from benchmark.training.accumulation import accumulate
from benchmark.training.checkpoint import LAST
from benchmark.training.compilation import blocks, compile_blocks, padded
from tests.methods.cases import METHOD_MODES, split
from tests.methods.fakes import CONTEXT, Pairs, small_method
from tests.training.fakes import train


@pytest.fixture(autouse=True)
def _fresh() -> Any:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def gradient(name: str, mode: Any, compiled: bool) -> dict[str, torch.Tensor]:
    method = small_method(name, queue_size=8) if name == "msd" else small_method(name)
    method.train()
    for module in method.modules():
        if type(module).__name__ in ("Dropout", "DropPath", "PatchDropout"):
            module.eval()  # compiled code draws other numbers
    batches = split(Pairs(10), [4, 4, 2])
    if compiled:
        compile_blocks(method)
        batches = [padded(batch, method) for batch in batches]
    accumulate(method, batches, mode, 3)
    return {n: p.grad for n, p in method.named_parameters() if p.grad is not None}


def check(name: str, mode: str) -> None:
    counters = torch._dynamo.utils.counters
    counters.clear()
    compiled, eager = gradient(name, mode, True), gradient(name, mode, False)
    assert counters["frames"]["ok"] >= 2
    assert not counters["graph_break"], dict(counters["graph_break"])
    assert compiled.keys() == eager.keys()
    for parameter, value in eager.items():
        torch.testing.assert_close(compiled[parameter], value, rtol=1e-3, atol=1e-5, msg=parameter)


def test_compiled_blocks_give_the_eager_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "BACKEND", "eager")
    check("msd", "keyed")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mode"), METHOD_MODES)
def test_compiled_blocks_give_the_eager_gradient_in_every_mode(
    name: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilation, "BACKEND", "aot_eager")
    check(name, mode)


def test_blocks_are_those_of_both_towers_and_of_teachers_each_once() -> None:
    kinds = [type(block).__name__ for block in blocks(small_method("clip"))]
    assert sorted(kinds) == ["Block", "Block", "Residual", "Residual", "Residual"]
    assert len([*blocks(small_method("msd"))]) == 2 * len(kinds)
    assert len({*blocks(small_method("dino_txt"))}) == len(kinds) + 2


def test_texts_are_padded_to_few_lengths_with_the_same_embeddings() -> None:
    method, pairs = small_method("clip").eval(), Pairs(40)
    lengths = set()
    for number in range(40):
        batch = pairs.sequential(number, 1)
        longer = padded(batch, method)
        lengths.add(longer.tokens.shape[1])
        assert longer.mask.sum() == batch.mask.sum()
        a, b = (method.model.encode_text(each.tokens, each.mask) for each in (batch, longer))
        torch.testing.assert_close(a, b)
    assert lengths == {3, 6, 9, 12}
    assert max(lengths) == CONTEXT


def test_a_training_with_compiled_blocks_counts_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "BACKEND", "eager")
    costs = [
        train(small_method("clip"), tmp_path / str(on), Pairs(16), Pairs(8), compile=on, steps=3, samples=None)
        for on in (False, True)
    ]
    assert costs[0]["flops"] == costs[1]["flops"]
    eager, compiled = (load_file(tmp_path / str(on) / LAST) for on in (False, True))
    assert eager.keys() == compiled.keys()
    for name in eager:
        torch.testing.assert_close(compiled[name], eager[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")
def test_a_compiled_training_ends_near_the_eager_one(tmp_path: Path) -> None:
    train(small_method("clip"), tmp_path / "eager", Pairs(16))
    train(small_method("clip"), tmp_path / "compiled", Pairs(16), compile=True)
    eager, compiled = (load_file(tmp_path / run / LAST) for run in ("eager", "compiled"))
    assert eager.keys() == compiled.keys()
    for name in eager:
        torch.testing.assert_close(compiled[name], eager[name], rtol=1e-3, atol=1e-4)
