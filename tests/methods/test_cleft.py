"""cleft against loops written from its formulas, against peft on a small GPT-2, and what each of its stages trains."""

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from benchmark.methods.cleft import class_loss
from peft import LoraConfig as PeftLora
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model

from benchmark.common.errors import BenchError
from benchmark.common.seeding import torch_seed
from benchmark.config.augmentation import Augmentation
from benchmark.config.load import load_run_config
from benchmark.config.training import Training
from benchmark.method import METHODS, Method
from benchmark.models import ModelCard, build_model, load_model_card
from benchmark.plan.estimate import Estimator
from benchmark.plan.make import make_plan
from benchmark.plan.resolve import build_method
from benchmark.training.accumulation import accumulate
from benchmark.training.checkpoint import LAST, load_weights
from benchmark.training.cost import parameter_columns
from benchmark.training.loop import pretrain
from benchmark.training.schedule import optimizer_of
from tests.methods.cases import full_batch_gradient, split
from tests.methods.fakes import CLASSES, CONTEXT, VOCABULARY, Pairs, Words, double, small_card, small_method

ADAPTERS = ["lora", "ia3", "prefix"]
GPT2 = {
    "model_type": "gpt2",
    "vocab_size": VOCABULARY,
    "n_embd": 24,
    "n_head": 3,
    "n_layer": 2,
    "n_positions": 64,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}


def gpt2_card(**config: Any) -> ModelCard:
    content = small_card().model_dump()
    return ModelCard.model_validate(
        content | {"text": {"kind": "transformers", "pooling": "eos", "config": GPT2 | config}}
    )


CASES = [
    pytest.param(card(), adapter, stage2, id=f"{card.__name__}-{adapter}-{stage2}")
    for card, adapter, stage2 in (
        (small_card, "lora", "none"),
        (small_card, "ia3", "caption"),
        (small_card, "prefix", "class"),
        (gpt2_card, "ia3", "none"),
        (gpt2_card, "prefix", "caption"),
        (gpt2_card, "lora", "class"),
    )
]
"""Each adapter on each tower, and each second stage on each tower."""


def cleft(card: ModelCard | None = None, seed: int = 0, **options: Any) -> Any:
    cls = METHODS["cleft"]
    model = build_model(card or small_card(), seed)
    with torch_seed(seed):
        method = cls(model, cls.Config(**options))
        method.setup(Words(), CLASSES)  # type: ignore[arg-type]
    return method


def train(method: Method, folder: Path, **training: Any) -> dict[str, Any]:
    settings = {"samples": 12 * 8, "batch_size": 12, "micro_batch": 5, "validations": 0, "learning_rate": 1e-2}
    return pretrain(
        method,
        Pairs(24),
        None,
        Training(**(settings | training)),
        seed=0,  # type: ignore[arg-type]
        device=torch.device("cpu"),
        folder=folder,
    )


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


# The losses


def test_loss_is_the_sum_of_both_directions() -> None:
    method = cleft().double()
    generator = torch.Generator().manual_seed(0)
    image, text = (
        torch.nn.functional.normalize(torch.randn(6, 5, generator=generator, dtype=torch.float64), dim=-1)
        for _ in range(2)
    )
    method.logit_scale.data.fill_(math.log(7.0))
    total = 0.0
    for i in range(6):
        for queries, candidates in ((image, text), (text, image)):
            logits = [7.0 * sum(q * c for q, c in zip(queries[i].tolist(), row)) for row in candidates.tolist()]
            total += math.log(sum(map(math.exp, logits))) - logits[i]
    ours = method.contrast({"image": image, "text": text}, {"index": torch.arange(6)})["contrastive"]
    assert ours.item() == pytest.approx(total / 6, abs=1e-9)


def test_class_loss_is_the_cross_entropy_of_the_known_labels() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    label = torch.tensor([2, -1, 0, 3, -1])
    total = 0.0
    for row, k in zip(logits.tolist(), label.tolist()):
        if k >= 0:
            total += math.log(sum(map(math.exp, row))) - row[k]
    assert class_loss(logits, label).item() == pytest.approx(total / 5, abs=1e-12)
    findings = torch.tensor([[1.0, 0, -1, 0], [-1, -1, -1, -1], [0, 0, 1, 1], [1, -1, 0, 0], [0, 0, 0, 0]])
    total = 0.0
    for row, marks in zip(logits.tolist(), findings.tolist()):
        for x, y in zip(row, marks):
            if y >= 0:
                p = 1 / (1 + math.exp(-x))
                total -= math.log(p if y == 1 else 1 - p)
    assert class_loss(logits, findings).item() == pytest.approx(total / 20, abs=1e-12)


@pytest.mark.parametrize("card", [small_card(), gpt2_card()], ids=["tiny", "gpt2"])
def test_what_class_stage_minimises(card: ModelCard) -> None:
    """The classes' names read one by one behind the prompt, in float64."""
    method, batch = double(cleft(card, stage2="class")).train(), Pairs(6).sequential(0, 6)
    method.enter("class")
    output = method(batch)
    assert output.embeddings == {}
    assert method(batch, embeddings_only=True).losses == {}
    image = method.model.encode_image(batch.view())
    total = 0.0
    for i in range(6):
        cosines = []
        for name in CLASSES:
            tokens = torch.tensor(Words()([name]))
            text = method.model.encode_text(tokens, torch.ones_like(tokens, dtype=torch.bool))[0]
            cosines.append(float(method.temperature_scale) * (image[i] @ text).item())
        total += math.log(sum(map(math.exp, cosines))) - cosines[int(batch.label[i])]
    assert output.losses["class"].item() == pytest.approx(total / 6, abs=1e-9)
    assert method.contrast({}, {}) == {}


def test_features_are_the_mean_image_token_and_the_last_text_token() -> None:
    method, batch = cleft().eval(), Pairs(4).sequential(0, 4)
    tower = method.model
    torch.testing.assert_close(tower.image_features(batch.view()), tower.image(batch.view()).tokens.mean(dim=1))
    hidden = tower.text(batch.tokens, batch.mask).tokens
    last = torch.stack([row[int(mask.sum()) - 1] for row, mask in zip(hidden, batch.mask)])
    assert torch.equal(tower.text_features(batch.tokens, batch.mask), last)
    assert isinstance(tower.image_projection, nn.Linear)
    assert tower.image_projection.bias is not None
    assert isinstance(tower.text_projection, nn.Linear)
    assert tower.text_projection.bias is not None


# Against peft


def gpt2() -> GPT2Model:
    config = {name: value for name, value in GPT2.items() if name != "model_type"}
    model = GPT2Model(GPT2Config(**config))
    model.config.use_cache = False
    return model.eval()


def on_peft(adapter: Any) -> tuple[Any, Any]:
    """Our tower and peft's own wrapper around the same random GPT-2."""
    options = {"PREFIX_TUNING": {"adapter": "prefix", "prefix_tokens": 5}, "LORA": {"lora_dropout": 0.0}}
    kind = adapter.peft_type.value
    method = cleft(gpt2_card(), **options.get(kind, {"stage2": "caption", "prompt_tokens": 5})).eval()
    base = gpt2()
    names = {
        n.replace(".base_layer", ""): t for n, t in method.model.text.model.state_dict().items() if "lora" not in n
    }
    base.load_state_dict(names)
    return method, get_peft_model(base, adapter).eval()


@pytest.mark.parametrize("kind", ["lora", "prefix", "prompt"])
def test_on_gpt2_it_is_pefts(kind: str) -> None:
    common = {"task_type": "FEATURE_EXTRACTION"}
    adapter = {
        "lora": lambda: PeftLora(r=8, lora_alpha=32, **common),
        "prefix": lambda: PrefixTuningConfig(num_virtual_tokens=5, **common),
        "prompt": lambda: PromptTuningConfig(num_virtual_tokens=5, **common),
    }[kind]()
    method, theirs = on_peft(adapter)
    text = method.model.text
    generator = torch.Generator().manual_seed(3)
    own = {n: p for n, p in text.named_parameters() if "lora_" in n}
    if kind == "lora":
        # without a B of its own LoRA is the model as it was
        their = {n: p for n, p in theirs.named_parameters() if "lora_" in n}
        assert sum(p.numel() for p in own.values()) == sum(p.numel() for p in their.values()) == 2 * 8 * (24 + 72)
        for name, parameter in own.items():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
            theirs.get_parameter(name.replace("model.", "base_model.model.", 1)).data = parameter.data.clone()
    elif kind == "prefix":
        layers, two, heads, count, width = text.prefix.shape
        flat = text.prefix.detach().permute(3, 0, 1, 2, 4).reshape(count, layers * two * heads * width)
        theirs.prompt_encoder["default"].embedding.weight.data = flat.clone()
    else:
        method.enter("caption")
        # LoRA is still the identity: its B starts at zero
        assert all(p.abs().max() == 0 for n, p in own.items() if "lora_B" in n)
        theirs.prompt_encoder["default"].embedding.weight.data = text.prompt.detach().clone()
    batch = Pairs(6).sequential(0, 6)
    with torch.no_grad():
        ours = text(batch.tokens, batch.mask).tokens
        expected = theirs(input_ids=batch.tokens, attention_mask=batch.mask.long()).last_hidden_state
    expected = expected[:, -batch.tokens.shape[1] :]
    torch.testing.assert_close(ours[batch.mask], expected[batch.mask], rtol=1e-5, atol=1e-5)
    untouched = build_model(gpt2_card(), 0).eval().text(batch.tokens, batch.mask).tokens
    assert (ours - untouched)[batch.mask].abs().max() > 1e-3


def test_ia3_on_gpt2_scales_what_it_says() -> None:
    """Queries, keys and values at their end, the feed-forward part before its last layer."""
    method = cleft(gpt2_card(), adapter="ia3")
    learned = {name: tuple(p.shape) for name, p in method.model.text.named_parameters() if "ia3_" in name}
    assert sorted(learned.values()) == [(1, 96), (1, 96), (72, 1), (72, 1)]
    block, fresh = method.model.text.model.h[0].eval(), build_model(gpt2_card(), 0).text.model.h[0].eval()
    x = torch.randn(2, 3, 24)
    for module, plain, name in (
        (block.attn.c_attn, fresh.attn.c_attn, "out"),
        (block.mlp.c_proj, fresh.mlp.c_proj, "in"),
    ):
        weight = next(p for n, p in module.named_parameters() if "ia3_" in n)
        weight.data = torch.rand(weight.shape)
        given = x if name == "out" else torch.randn(2, 3, 96)
        expected = plain(given) * weight.flatten() if name == "out" else plain(given * weight.flatten())
        torch.testing.assert_close(module(given), expected)


def test_a_prefix_on_tiny_is_attention_over_more_keys() -> None:
    """The block against attention written out, in float64."""
    method = double(cleft(adapter="prefix", prefix_tokens=3)).eval()
    block, prefix = method.model.text.blocks[0], method.model.text.prefix[0]
    x = torch.randn(2, 4, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    q, k, v = (part.view(2, 4, 2, 16) for part in block.qkv(block.norm1(x)).chunk(3, dim=-1))
    attended = torch.zeros(2, 4, 2, 16, dtype=torch.float64)
    for b in range(2):
        for head in range(2):
            for i in range(4):
                keys = [*prefix[0, head], *k[b, : i + 1, head]]
                values = [*prefix[1, head], *v[b, : i + 1, head]]
                weights = torch.stack([q[b, i, head] @ key / 4 for key in keys]).softmax(0)
                attended[b, i, head] = sum(w * value for w, value in zip(weights, values))
    expected = x + block.out(attended.reshape(2, 4, 32))
    expected = expected + block.mlp(block.norm2(expected))
    torch.testing.assert_close(block(x, prefix), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("card", [small_card(), gpt2_card()], ids=["tiny", "gpt2"])
@pytest.mark.parametrize("options", [{"adapter": "prefix"}, {"stage2": "caption"}], ids=["prefix", "prompt"])
def test_padding_changes_nothing_behind_virtual_tokens(card: ModelCard, options: dict[str, Any]) -> None:
    method, batch = cleft(card, **options).eval(), Pairs(5).sequential(0, 5)
    method.enter(list(method.stages())[-1])
    alone = torch.cat(
        [method.model.encode_text(row[mask][None], mask[mask][None]) for row, mask in zip(batch.tokens, batch.mask)]
    )
    torch.testing.assert_close(method.model.encode_text(batch.tokens, batch.mask), alone, rtol=0, atol=1e-5)


# What is trained


@pytest.mark.parametrize(("card", "adapter", "stage2"), CASES)
def test_each_stage_moves_what_it_says_and_nothing_else_by_a_bit(
    card: ModelCard, adapter: str, stage2: str, tmp_path: Path
) -> None:
    method = cleft(card, adapter=adapter, stage2=stage2, stage2_share=0.5)
    image = {n for n in state(method) if n.startswith(("model.image.", "model.image_projection."))}
    text_projection = {n for n in state(method) if n.startswith("model.text_projection.")}
    adapters = {f"model.text.{name}" for name in method.adapters}
    prompt, scale = {"model.text.prompt"}, {"logit_scale"}
    expected = {
        "pretrain": image | text_projection | adapters | scale,
        "caption": image | prompt | scale,
        "class": prompt | scale,
    }
    for stage in method.stages():
        method.enter(stage)
        before = state(method)
        optimizer = optimizer_of(method, Training(samples=1, learning_rate=0.01))
        for step in range(2):
            _, keys = accumulate(method.train(), [Pairs(8).batch(0, 8)], "cached", step)
            optimizer.step()
            method.after_step(keys)
            for name, parameter in method.named_parameters():
                assert (parameter.grad is not None) == (name in expected[stage]), name
            optimizer.zero_grad(set_to_none=True)
        assert moved(before, state(method)) == expected[stage]
        names = {id(p): n for n, p in method.named_parameters()}
        assert {names[id(p)] for p in optimizer.state} == expected[stage]
    assert adapters
    assert all("base_layer" not in name for name in adapters)


def test_the_language_model_is_frozen_over_a_whole_training(tmp_path: Path) -> None:
    method = cleft(gpt2_card(), stage2="caption")
    before = state(method.model.text)
    train(method, tmp_path, samples=12 * 4)
    after = state(method.model.text)
    assert moved(before, after) == {*method.adapters, "prompt"}
    saved = load_file(tmp_path / LAST)
    for name, tensor in before.items():
        if name not in {*method.adapters, "prompt"}:
            assert torch.equal(saved[f"model.text.{name}"], tensor), name


def test_class_stage_is_in_eval_mode_and_costs_no_gradient_in_the_image_tower() -> None:
    method = cleft(small_card(dropout=0.5), stage2="class").train()
    assert method.model.image.training
    method.enter("class")
    method.train()
    assert not any(module.training for module in method.model.modules())
    assert method.training
    image = method.model.encode_image(Pairs(2).sequential(0, 2).view())
    assert not image.requires_grad
    method.enter("pretrain")
    assert all(module.training for module in method.model.modules())


@pytest.mark.parametrize("stage2", ["caption", "class"])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_accumulation_is_exact_in_the_second_stage(stage2: str, adapter: str) -> None:
    method = double(cleft(small_card(dropout=0.1, patch_dropout=0.25), stage2=stage2, adapter=adapter)).train()
    method.enter(stage2)
    augmentation = Augmentation(crop_scale=(0.5, 1.0), flip=0.5)
    batches = split(Pairs(13, augmentation=augmentation), [5, 5, 3])
    expected = full_batch_gradient(method, batches, seed=3)
    accumulate(method, batches, "cached", 3)
    actual = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
    assert actual.keys() == expected.keys()
    assert "model.text.prompt" in actual
    assert max(g.abs().max().item() for g in expected.values()) > 1e-4
    for name, gradient in actual.items():
        assert (gradient - expected[name]).abs().max() < 1e-9, name


@pytest.mark.parametrize("stage2", ["caption", "class"])
def test_the_second_stage_learns(stage2: str, tmp_path: Path) -> None:
    method = cleft(stage2=stage2, stage2_share=0.5)
    train(method, tmp_path, samples=24 * 20, batch_size=24, micro_batch=24, learning_rate=0.03)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    second = [line["loss"] for line in log if line["stage"] == stage2]
    assert len(second) == 10
    assert second[-1] < second[0]


# Set-up, storage, copies


def test_virtual_tokens_start_from_the_sentence() -> None:
    sentence = "an image of"
    for card in (small_card(), gpt2_card()):
        method = cleft(card, stage2="caption", sentence=sentence, prompt_tokens=25)
        embedding = method.model.text.word_embedding
        letters = [3 + ord(letter) % 290 for letter in sentence]
        # the tokenizer cuts texts to its context, the end token included
        letters = letters[: CONTEXT - 2]
        expected = embedding(torch.tensor([letters[i % len(letters)] for i in range(25)]))
        assert torch.equal(method.model.text.prompt, expected)
    with pytest.raises(BenchError, match=r"cleft.sentence is .*expected at least one word"):
        cleft(stage2="caption", sentence="")


def test_virtual_tokens_take_room_in_gpt2s_context_alone() -> None:
    assert cleft(stage2="caption").model.text.context_length == CONTEXT
    method = cleft(gpt2_card(), stage2="caption", adapter="prefix")
    assert method.model.text.context_length == 64 - 30 - 20
    with pytest.raises(BenchError, match="context_length is 12, but the text tower reads at most 10"):
        cleft(gpt2_card(n_positions=40), stage2="caption")
    with pytest.raises(BenchError, match="30 virtual tokens leave no room"):
        cleft(gpt2_card(n_positions=30), stage2="caption")


@pytest.mark.parametrize(("card", "adapter", "stage2"), CASES)
def test_loaded_again_gives_identical_embeddings(card: ModelCard, adapter: str, stage2: str, tmp_path: Path) -> None:
    method = cleft(card, adapter=adapter, stage2=stage2)
    train(method, tmp_path, samples=12 * 2)
    other = cleft(card, seed=3, adapter=adapter, stage2=stage2)
    load_weights(other, tmp_path / LAST)
    batch = Pairs(6).sequential(0, 6)
    twin = copy.deepcopy(method)
    with torch.no_grad():
        image, text = (method.eval().encoder(), other.eval().encoder())
        for encode in (lambda e: e.encode_image(batch.view()), lambda e: e.encode_text(batch.tokens, batch.mask)):
            assert torch.equal(encode(image), encode(text))
            assert torch.equal(encode(image), encode(twin.eval().encoder()))
    # a copy is independent
    twin.model.text.get_parameter(twin.adapters[0]).data.add_(1.0)
    twin.enter("pretrain")
    assert not torch.equal(
        method.model.text.get_parameter(method.adapters[0]), twin.model.text.get_parameter(twin.adapters[0])
    )
    assert all(twin.model.text.get_parameter(name).requires_grad for name in twin.adapters)


def test_lora_dropout_acts_in_training_alone() -> None:
    method = cleft(lora_dropout=0.5)
    for name, parameter in method.model.text.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    batch = Pairs(4).sequential(0, 4)
    texts = []
    for seed in (0, 1, 0):
        with torch_seed(seed):
            texts.append(method.train().model.encode_text(batch.tokens, batch.mask))
    assert torch.equal(texts[0], texts[2])
    assert not torch.equal(texts[0], texts[1])
    method.eval()
    assert torch.equal(*(method.model.encode_text(batch.tokens, batch.mask) for _ in range(2)))


def test_gradient_checkpointing_changes_nothing_and_is_refused_with_a_prefix_on_transformers() -> None:
    batch = Pairs(4).sequential(0, 4)
    for card, adapter in ((gpt2_card(), "lora"), (small_card(), "prefix")):
        gradients = []
        for enabled in (False, True):
            method = cleft(card, adapter=adapter).train()
            method.model.set_gradient_checkpointing(enabled)
            accumulate(method, [batch], "plain", 0)
            gradients.append({n: p.grad for n, p in method.named_parameters() if p.grad is not None})
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=1e-6)
    with pytest.raises(BenchError, match="tower with a prefix does not support it"):
        cleft(gpt2_card(), adapter="prefix").model.set_gradient_checkpointing(True)


def test_what_cannot_be_adapted() -> None:
    bert = {
        "model_type": "bert",
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "intermediate_size": 16,
    }
    content = small_card().model_dump() | {"text": {"kind": "transformers", "config": bert}}
    with pytest.raises(BenchError, match="is not a causal language model"):
        cleft(ModelCard.model_validate(content))
    with pytest.raises(BenchError, match=r"peft cannot add lora to this text tower.*nothing_like_it"):
        cleft(target_modules=("nothing_like_it",))
    assert all("out" in name for name in cleft(target_modules=("out",)).adapters)


def test_needs_labels_for_its_class_stage_alone() -> None:
    cls = METHODS["cleft"]
    assert "label" in cls.needs_of(cls.Config(stage2="class"))
    assert "label" not in cls.needs_of(cls.Config(stage2="caption"))
    assert "language_model" in cls.needs_of(cls.Config())
    method = cls(build_model(small_card(), 0), cls.Config(stage2="class"))
    with pytest.raises(BenchError, match="of the pretraining data has no 'classes'"):
        method.setup(Words(), [])  # type: ignore[arg-type]


def test_stages_share_the_budget() -> None:
    assert cleft().stages() == {"pretrain": 1.0}
    assert cleft(stage2="caption", stage2_share=0.25).stages() == {"pretrain": 0.75, "caption": 0.25}


# The published architecture


def test_the_parameters_are_the_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without weights or network: 3.93 M trained on the text side, 3.6 % of BERT's 110 M; 39 % less than CLIP."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # A step of one micro-batch, whose cost the estimate counts too, is counted in two thirds of the time.
    small = ["training.batch_size=8", "training.micro_batch=8"]
    made = make_plan(load_run_config("demo", {"methods": ["cleft"], "model": "cleft-biomedlm"}, small, ["cleft"]))
    assert made.problems == []
    counted = Estimator(made, pd.DataFrame()).cell(made.cells[0]).parameters
    lora, text_projection = 32 * 8 * (2560 + 3 * 2560), 2560 * 512 + 512
    assert (lora, text_projection) == (2_621_440, 1_311_232)
    assert counted["parameters_text_trainable"] == lora + text_projection == 3_932_672
    assert counted["parameters_image_trainable"] == 86_582_016 + 768 * 512 + 512
    temperature = 1
    assert counted["parameters_trainable"] == 90_908_416 + temperature
    assert counted["parameters"] - counted["parameters_text"] == counted["parameters_image"]
    language_model = 28_896 * 2560 + 1024 * 2560 + 32 * (12 * 2560**2 + 13 * 2560) + 2 * 2560
    assert counted["parameters_text"] == language_model + 3_932_672
    bert, clip = 110e6, clip_vit_b_16()
    assert clip == 149_620_737
    assert counted["parameters_text_trainable"] / bert == pytest.approx(0.036, abs=5e-4)
    assert 1 - counted["parameters_trainable"] / clip == pytest.approx(0.392, abs=5e-4)


def clip_vit_b_16() -> int:
    model = build_model(load_model_card("vit-b-16"), 0, "meta")
    with torch.device("meta"):
        return parameter_columns(build_method("clip", model, {}))["parameters_trainable"]


@pytest.mark.parametrize(("card", "adapter", "stage2"), CASES)
def test_on_the_meta_device_it_has_the_same_parameters(card: ModelCard, adapter: str, stage2: str) -> None:
    real = cleft(card, adapter=adapter, stage2=stage2)
    with torch.device("meta"):
        meta = build_method("cleft", build_model(card, 0, "meta"), {"adapter": adapter, "stage2": stage2})
    assert all(p.is_meta for p in meta.parameters())
    shapes = [{n: p.shape for n, p in method.named_parameters()} for method in (meta, real)]
    assert shapes[0] == shapes[1]
    assert parameter_columns(meta) == parameter_columns(real)


def test_batches_without_labels_do_in_the_first_stage() -> None:
    method = small_method("cleft")
    batch = replace(Pairs(4).sequential(0, 4), label=None)
    losses, _ = accumulate(method.train(), [batch], "cached", 0)
    assert math.isfinite(losses["contrastive"])
