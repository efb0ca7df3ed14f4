"""The small language model: its loss against a loop, what it learns, and when a run makes one."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from benchmark.common.errors import BenchError
from benchmark.common.progress import Progress
from benchmark.config.load import load_run_config
from benchmark.execution.materials import Materials
from benchmark.models import build_model
from benchmark.models.card import LanguageModel
from benchmark.models.language import next_token_loss, train_language_model
from benchmark.models.tower import LanguageModelTower
from benchmark.plan.make import make_plan
from benchmark.plan.plan import Plan
from tests.methods.fakes import small_card


def tower() -> LanguageModelTower:
    text = build_model(small_card(), 0).text
    assert isinstance(text, LanguageModelTower)
    return text


def test_loss_is_that_of_each_texts_next_token() -> None:
    """Each text alone, one position after the other, in float64; padding counts for nothing."""
    model = tower().double().eval()
    texts = [[1, 7, 9, 2], [1, 30, 2], [1, 5, 6, 8, 40, 2]]
    weight = model.word_embedding.weight
    total, count = 0.0, 0
    for text in texts:
        for position in range(1, len(text)):
            before = torch.tensor([text[:position]])
            hidden = model(before, torch.ones_like(before, dtype=torch.bool)).tokens[0, -1]
            scores = [(hidden @ row).item() / math.sqrt(32) for row in weight]
            total += math.log(sum(map(math.exp, scores))) - scores[text[position]]
            count += 1
    assert next_token_loss(model, [torch.tensor(text) for text in texts]).item() == pytest.approx(total / count)


def test_it_learns_a_grammar_and_the_generator_decides() -> None:
    """Four texts whose every token but the first follows from the one before: log(4) / 4 a token cannot be beaten."""
    texts = [[1, *(10 * first + k for k in range(3)), 2] for first in range(1, 5)]

    def trained(seed: int, steps: int) -> tuple[list[float], dict[str, Tensor]]:
        model, losses = tower(), []
        spec = LanguageModel(datasets=["any"], steps=steps, batch_size=16, learning_rate=2e-2)
        generator = np.random.default_rng(seed)
        end = train_language_model(model, texts, spec, generator, lambda step, loss: losses.append(loss))
        tail = losses[-max(1, steps // 10) :]
        assert len(losses) == steps
        assert end == pytest.approx(sum(tail) / len(tail))
        return [*losses, end], model.state_dict()

    losses, _ = trained(0, 80)
    assert losses[0] > 5
    assert math.log(4) / 4 - 0.05 < losses[-1] < 0.7
    weights, again, other = (trained(seed, 4)[1] for seed in (0, 0, 1))
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert any(not torch.equal(weights[name], other[name]) for name in weights)
    with pytest.raises(BenchError, match="the datasets have none"):
        train_language_model(tower(), [], LanguageModel(datasets=["any"]), np.random.default_rng(0))


DATA = """title: t
modality: mammogram
source: {kind: phantom, modality: mammo, seed: 0, size: 32, patients: {train: 12, val: 4, test: 4}}
classes: [normal, circumscribed mass, spiculated mass, microcalcifications, oil cyst]
prompts: ["Mammogram showing {}."]
licence: Apache-2.0
access: embedded
"""


def planned(folder: Path, steps: int = 3) -> Plan:
    for name in ("pairs", "reports"):
        (folder / f"{name}.yaml").write_text(DATA.replace("seed: 0", f"seed: {len(name)}"))
    small = {"kind": "tiny", "width": 32, "layers": 1, "heads": 2}
    init = {"language_model": {"datasets": [str(folder / "reports.yaml")], "steps": steps}}
    tokenizer = {"kind": "corpus", "vocab_size": 300, "context_length": 24}
    (folder / "small.yaml").write_text(
        json.dumps(
            {"embed_dim": 8, "image_size": 32, "image": small, "text": small, "tokenizer": tokenizer, "init": init}
        )
    )
    flags = {
        "methods": ["clip", "cleft"],
        "model": str(folder / "small.yaml"),
        "tasks": ["zero_shot"],
        "pretraining": [str(folder / "pairs.yaml")],
        "datasets": [str(folder / "pairs.yaml")],
    }
    return make_plan(load_run_config("demo", flags, [], ["clip", "cleft"]), folder / "cache")


def test_a_run_makes_one_for_the_methods_that_need_it_and_no_other(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert plan.problems == []
    cells = {cell.method: cell for cell in plan.cells}
    assert "language_model" not in cells["clip"].content
    assert cells["cleft"].content["language_model"]["texts"] == [("reports", plan.datasets["reports"].fingerprint)]
    assert plan.language is not None
    assert plan.language.texts_only == {"reports"}
    longer = {cell.method: cell.key for cell in planned(tmp_path, steps=4).cells}
    assert longer["clip"] == cells["clip"].key
    assert longer["cleft"] != cells["cleft"].key

    plan = planned(tmp_path)
    with (tmp_path / "console.txt").open("w") as file:
        materials = Materials(plan, Progress(Console(file=file), "none"), tmp_path / "cache")
        clip, cleft = (materials.method(cell).model.text for cell in plan.cells)
        made = list((tmp_path / "cache" / "language_models").glob("*/model.safetensors"))
        assert len(made) == 1
        written = made[0].stat().st_mtime_ns
        assert materials.method(plan.cells[1]) is not None
        assert made[0].stat().st_mtime_ns == written
    assert (tmp_path / "console.txt").read_text().count("nats per token") == 1
    weights = load_file(made[0])
    assert torch.equal(cleft.embedding.weight, weights["embedding.weight"])
    assert torch.equal(cleft.blocks[0].qkv.base_layer.weight, weights["blocks.0.qkv.weight"])
    assert not torch.equal(clip.embedding.weight, weights["embedding.weight"])
