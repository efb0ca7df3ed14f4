"""Weights that are not whole are refused in one line, from whatever library and file; a card may let them pass."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import peft
import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

from benchmark.common.errors import BenchError
from benchmark.models import ModelCard, build_model
from benchmark.models.card import local_files
from tests.models.make import ARCHITECTURES, TRANSFORMERS, make_card, texts

Change = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
BLOCK = {
    "text": "encoder.layer.1.output.dense.weight",
    "timm": "blocks.1.mlp.fc1.weight",
    "visual": "visual.transformer.resblocks.1.mlp.c_fc.weight",
}


def without(name: str) -> Change:
    return lambda state: {key: tensor for key, tensor in state.items() if key != name}


def prefixed(prefix: str) -> Change:
    return lambda state: {f"{prefix}{key}": tensor for key, tensor in state.items()}


def unmerged(name: str) -> Change:
    stem = name.removesuffix(".weight")
    names = {name: f"{stem}.base_layer.weight"}
    adapter = {f"{stem}.lora_A.default.weight": torch.zeros(2, 4), f"{stem}.lora_B.default.weight": torch.zeros(4, 2)}
    return lambda state: {names.get(key, key): tensor for key, tensor in state.items()} | adapter


def cut(name: str) -> Change:
    return lambda state: state | {name: state[name][:-1].clone()}


def extra(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return state | {"adapter.down.weight": torch.zeros(2)}


def with_position_ids(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return state | {"embeddings.position_ids": torch.arange(12)[None]}


def rewrite(path: Path, change: Change) -> None:
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def refused(card: ModelCard) -> str:
    with pytest.raises(BenchError) as error:
        build_model(card, 0)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


def text_card(folder: Path, **fields: Any) -> ModelCard:
    text = {"kind": "transformers", "name": str(folder)}
    return ModelCard.model_validate(make_card(text=text).model_dump() | fields)


def bert(folder: Path, kind: Any = AutoModel, **changes: Any) -> Any:
    torch.manual_seed(1)
    model = kind.from_config(AutoConfig.for_model("bert", **TRANSFORMERS["bert"], **changes))
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without(BLOCK["text"]), f"1 tensor is missing ({BLOCK['text']})"),
        (prefixed("model."), "the names in the file begin with 'model.'"),
        (prefixed("base_model.model."), "the names in the file begin with 'base_model.model.'"),
        (unmerged(BLOCK["text"]), "merge_and_unload()"),
        (cut(BLOCK["text"]), f"1 tensor is of another shape ({BLOCK['text']}: [15, 32] in the file, [16, 32] in"),
        (extra, "1 tensor is not part of the model (adapter.down.weight)"),
    ],
    ids=["missing", "model", "base_model", "lora", "shape", "unexpected"],
)
def test_a_text_tower_of_transformers(change: Change, message: str, tmp_path: Path) -> None:
    bert(tmp_path)
    rewrite(tmp_path / "model.safetensors", change)
    told = refused(text_card(tmp_path))
    assert message in told
    assert str(tmp_path) in told


def test_the_depth_of_a_configuration_is_that_of_the_weights(tmp_path: Path) -> None:
    bert(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for layers, sort in ((2, "not part of the model"), (5, "missing")):
        (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
        message = refused(text_card(tmp_path))
        assert f"tensors are {sort} (encoder.layer." in message
        assert "differ in the number of layers" in message


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (AutoModelForMaskedLM, torch.float32),
        (AutoModelForMaskedLM, torch.float16),
        (AutoModelForSequenceClassification, torch.bfloat16),
    ],
)
def test_heads_of_pretraining_do_not_matter(kind: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    """Of a language model they are tied to the embedding, so that the file lacks them."""
    whole = bert(tmp_path, kind).to(dtype)
    whole.save_pretrained(tmp_path)
    rewrite(tmp_path / "model.safetensors", with_position_ids)
    first, second = (build_model(text_card(tmp_path), seed).text.state_dict() for seed in (0, 1))
    expected = {name: tensor.float() for name, tensor in whole.bert.state_dict().items() if "pooler" not in name}
    assert {name.removeprefix("model."): tensor.shape for name, tensor in first.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }
    for name, tensor in first.items():
        assert torch.equal(tensor, expected[name.removeprefix("model.")])
        assert torch.equal(tensor, second[name])


def test_a_card_may_let_it_pass_and_the_model_says_so(tmp_path: Path) -> None:
    bert(tmp_path)
    strict = text_card(tmp_path)
    assert build_model(strict, 0).left_random == ""
    rewrite(tmp_path / "model.safetensors", lambda state: extra(without(BLOCK["text"])(state)))
    assert "strict: false" in refused(strict)
    lenient = text_card(tmp_path, strict=False)
    model, other = build_model(lenient, 0), build_model(lenient, 0)
    assert f"1 tensor left random ({BLOCK['text']})" in model.left_random
    assert "1 tensor of the file not read (adapter.down.weight)" in model.left_random
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    # It decides whether there are outputs, and not which.
    assert lenient.content() == strict.content()


@pytest.mark.parametrize("more", [{}, {"modules_to_save": ["intermediate.dense"]}], ids=["lora", "and a module"])
def test_an_adapter_is_merged_and_can_be_trained(more: dict[str, Any], tmp_path: Path) -> None:
    base = bert(tmp_path / "base").eval()
    before = base.state_dict()
    config = peft.LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False, **more)
    theirs = peft.get_peft_model(AutoModel.from_pretrained(tmp_path / "base"), config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path / "adapter")
    card = text_card(tmp_path / "adapter", tokenizer={"kind": "corpus", "vocab_size": 300})
    model = build_model(card, 0).eval()
    tokens, mask = texts([9], 9)
    with torch.no_grad():
        expected = theirs(input_ids=tokens).last_hidden_state[:, 0]
    torch.testing.assert_close(model.text_features(tokens, mask), expected, atol=1e-6, rtol=0)
    names = {name.removeprefix("model.") for name in model.text.state_dict()}
    assert names == {name for name in before if "pooler" not in name}
    assert all(parameter.requires_grad for parameter in model.text.parameters())
    assert "text.name: base model: model.safetensors" in local_files(card)
    # As a trained cell is rebuilt.
    build_model(card, 1, weights=False).load_state_dict(model.state_dict())


def test_files_that_are_not_there_or_hold_code(tmp_path: Path) -> None:
    bert(tmp_path).save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    shards = sorted((tmp_path / "shards").glob("*.safetensors"))
    build_model(text_card(tmp_path / "shards"), 0)
    shards[1].unlink()
    message = refused(text_card(tmp_path / "shards"))
    assert f"1 of {len(shards)} files of weights that model.safetensors.index.json names are missing" in message
    assert shards[1].name in message

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(tmp_path / "owned").touch, ())

    (tmp_path / "model.safetensors").unlink()
    assert "no weights; expected model.safetensors or pytorch_model.bin" in refused(text_card(tmp_path))
    torch.save({"embeddings.word_embeddings.weight": Evil()}, tmp_path / "pytorch_model.bin")
    assert str(tmp_path) in refused(text_card(tmp_path))
    assert not (tmp_path / "owned").exists()


TIMM = "test_vit"


def timm_folder(folder: Path, classes: int = 7) -> Path:
    torch.manual_seed(1)
    timm.models.save_for_hf(timm.create_model(TIMM, num_classes=classes), folder, safe_serialization=True)
    return folder


def timm_card(pretrained: str | bool, name: str = TIMM, **fields: Any) -> ModelCard:
    image = {"kind": "timm", "name": name, "pretrained": pretrained}
    return ModelCard.model_validate(make_card(image).model_dump() | fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without(BLOCK["timm"]), f"1 tensor is missing ({BLOCK['timm']})"),
        (prefixed("encoder."), "the names in the file begin with 'encoder.'"),
        (unmerged(BLOCK["timm"]), "merge_and_unload()"),
        (cut(BLOCK["timm"]), f"1 tensor is of another shape ({BLOCK['timm']}: "),
    ],
    ids=["missing", "prefix", "lora", "shape"],
)
@pytest.mark.parametrize("as_folder", [False, True])
def test_an_image_tower_of_timm(change: Change, message: str, as_folder: bool, tmp_path: Path) -> None:
    """Given with its classifier as a file or as a folder, whose tensors timm's own loading lets pass."""
    path = timm_folder(tmp_path) / "model.safetensors"
    card = timm_card(False, f"local-dir:{tmp_path}") if as_folder else timm_card(str(path))
    expected = load_file(path)
    whole = build_model(card, 0).image
    assert whole.left_random == ""
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, expected[name])
    rewrite(path, change)
    told = refused(card)
    assert message in told
    assert str(path if as_folder is False else tmp_path) in told
    model = build_model(ModelCard.model_validate(card.model_dump() | {"strict": False}), 0)
    assert "left random" in model.left_random


def test_the_norm_of_a_classifier_of_timm_does_not_matter(tmp_path: Path) -> None:
    save_file(timm.create_model("efficientvit_m0", num_classes=3).state_dict(), tmp_path / "weights.safetensors")
    assert build_model(timm_card(str(tmp_path / "weights.safetensors"), "efficientvit_m0"), 0).left_random == ""


def open_clip_file(folder: Path) -> Path:
    torch.manual_seed(1)
    path = folder / "open_clip_model.safetensors"
    state = open_clip.create_model("small-vit", force_custom_text=True).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    config = {"model_cfg": ARCHITECTURES["small-vit"], "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without(BLOCK["visual"]), f"1 tensor is missing ({BLOCK['visual']})"),
        (prefixed("model."), "the names in the file begin with 'model.'"),
        (unmerged(BLOCK["visual"]), "merge_and_unload()"),
        (cut(BLOCK["visual"]), f"1 tensor is of another shape ({BLOCK['visual']}: "),
        (
            lambda state: {name: tensor for name, tensor in state.items() if not name.startswith("visual.")},
            "tensors are missing (visual.",
        ),
    ],
    ids=["missing", "prefix", "lora", "shape", "tower"],
)
@pytest.mark.parametrize("as_folder", [False, True])
def test_towers_of_open_clip(change: Change, message: str, as_folder: bool, tmp_path: Path) -> None:
    path = open_clip_file(tmp_path)
    tower = {"kind": "open_clip", "name": f"local-dir:{tmp_path}"}
    if not as_folder:
        tower = {"kind": "open_clip", "name": "small-vit", "pretrained": str(path)}
    card = make_card(tower, tower)
    assert build_model(card, 0).left_random == ""
    rewrite(path, change)
    assert message in refused(card)
    lenient = build_model(ModelCard.model_validate(card.model_dump() | {"strict": False}), 0)
    assert "left random" in lenient.left_random


def test_the_tower_that_a_card_does_not_take_does_not_matter(tmp_path: Path) -> None:
    path = open_clip_file(tmp_path)
    rewrite(path, lambda state: {name: tensor for name, tensor in state.items() if not name.startswith("text.")})
    tower = {"kind": "open_clip", "name": "small-vit", "pretrained": str(path)}
    build_model(make_card(tower), 0)
    assert "tensors are missing (text." in refused(make_card(text=tower))


def test_keys_cover_what_a_folder_holds_and_what_arguments_name(tmp_path: Path) -> None:
    bert(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("{}")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("a")
    weights = tmp_path / "other.pt"
    weights.write_bytes(b"1")
    image = {"kind": "timm", "name": TIMM, "config": {"checkpoint_path": str(weights)}}
    card = ModelCard.model_validate(text_card(tmp_path).model_dump() | {"image": image})
    names = {"config.json", "model.safetensors", "other.pt", "1_Pooling/config.json"}
    before = local_files(card)
    assert set(before) == {f"text.name: {name}" for name in names} | {"image.config.checkpoint_path"}
    weights.write_bytes(b"2")
    (tmp_path / "1_Pooling" / "config.json").write_text("[]")
    changed = {name for name, value in local_files(card).items() if value != before[name]}
    assert changed == {"text.name: other.pt", "text.name: 1_Pooling/config.json", "image.config.checkpoint_path"}


def test_a_folder_in_place_of_a_checkpoint_is_told_how_to_write_it(tmp_path: Path) -> None:
    tower = {"kind": "open_clip", "name": "small-vit", "pretrained": str(tmp_path)}
    for card in (timm_card(str(tmp_path)), make_card(tower)):
        assert f"or the folder as name: local-dir:{tmp_path}" in refused(card)


def test_causal_masks_of_older_versions_do_not_matter(tmp_path: Path) -> None:
    theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **TRANSFORMERS["gpt2"]))
    theirs.save_pretrained(tmp_path)
    masks = {f"transformer.h.0.attn.{name}": torch.ones(1, 1, 4, 4) for name in ("bias", "masked_bias")}
    rewrite(tmp_path / "model.safetensors", lambda state: state | masks)
    assert build_model(text_card(tmp_path), 0).left_random == ""


@pytest.mark.parametrize("kind", ["T5ForConditionalGeneration", "T5EncoderModel", "T5Model"])
def test_an_encoder_decoder_needs_its_encoder_alone(kind: str, tmp_path: Path) -> None:
    config = transformers.T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    theirs = getattr(transformers, kind)(config)
    theirs.save_pretrained(tmp_path)
    ours = build_model(make_card(text={"kind": "transformers", "name": str(tmp_path), "pooling": "mean"}), 0)
    for name, tensor in theirs.get_encoder().state_dict().items():
        assert torch.equal(ours.text.model.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "found something other than names and tensors"),
        ([1], "found something other than names and tensors"),
        ({"model_state_dict": {"a": torch.zeros(1)}}, ""),
        ({"fc.weight": torch.zeros(2, 2), "head.weight": torch.zeros(2, 2)}, ""),
    ],
    ids=["empty", "list", "nested", "head"],
)
def test_a_file_without_the_tensors_of_a_model(state: Any, message: str, tmp_path: Path) -> None:
    """timm takes its own weights from the hub in place of none."""
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    tower = {"kind": "open_clip", "name": "small-vit", "pretrained": str(path)}
    for card in (timm_card(str(path)), make_card(tower)):
        told = refused(card)
        assert message in told
        assert str(path) in told
