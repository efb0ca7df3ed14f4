"""Folders of models as people have them: whole or refused, with a key that covers what decides their outputs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import peft
import pytest
import timm
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as Backend
from tokenizers import models
from transformers import (
    CLIPForImageClassification,
    CLIPModel,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    SiglipForImageClassification,
)

from benchmark.common.errors import BenchError
from benchmark.evaluation.encoder import Encoder
from benchmark.evaluation.external import external_model, is_external
from benchmark.models.folders import hub_folder
from tests.evaluation.folders import TEXTS, clip_folder, tokenizer
from tests.squares import MODEL, Bench

PATCHES = "vision_model.embeddings.position_embedding.weight"
WORDS = "text_model.embeddings.token_embedding.weight"


class Bare:
    device = torch.device("cpu")


def encoder(spec: str) -> Encoder:
    materials: Any = Bare()
    return external_model(spec).fixed(0, "suite").build(materials)


def refused(spec: str) -> str:
    with pytest.raises(BenchError) as error:
        _ = is_external(spec) and encoder(spec)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 700
    return message


def edit(path: Path, **changes: Any) -> None:
    """Change a JSON file; the values of dicts are merged."""
    config = json.loads(path.read_text())
    for key, value in changes.items():
        config[key] = config.get(key, {}) | value if isinstance(value, dict) else value
    path.write_text(json.dumps(config))


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def prefixed(prefix: str) -> Callable[[Path, Any], None]:
    return lambda folder, _: rewrite(folder, lambda state: {f"{prefix}{name}": x for name, x in state.items()})


def unmerged(folder: Path, _: Any) -> None:
    stem = "text_model.encoder.layers.0.self_attn.q_proj"
    rewrite(
        folder,
        lambda state: (
            {name.replace(f"{stem}.", f"{stem}.base_layer."): x for name, x in state.items()}
            | {f"{stem}.lora_A.default.weight": torch.zeros(2, 16)}
        ),
    )


def cut_shard(folder: Path, model: Any) -> None:
    model.save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink()
    min(folder.glob("model-*.safetensors")).unlink()


FAULTS: dict[str, tuple[Callable[[Path, Any], Any], str]] = {
    "prefix model.": (prefixed("model."), "the names in the file begin with 'model.'"),
    "prefix base_model.model.": (prefixed("base_model.model."), "the names in the file begin with 'base_model.model.'"),
    "prefix module.": (prefixed("module."), "the names in the file begin with 'module.'"),
    "unmerged adapters": (unmerged, "merge_and_unload()"),
    "no text tower": (
        lambda folder, _: rewrite(folder, lambda state: {n: x for n, x in state.items() if n[:4] != "text"}),
        "the weights have no text tower",
    ),
    "another image size": (
        lambda folder, _: edit(folder / "config.json", vision_config={"image_size": 48}),
        f"1 tensor is of another shape ({PATCHES}: [",
    ),
    "more words": (
        lambda folder, _: edit(folder / "config.json", text_config={"vocab_size": 320}),
        f"1 tensor is of another shape ({WORDS}: [300, 16] in the file, [320, 16] in the model)",
    ),
    "more layers": (
        lambda folder, _: edit(folder / "config.json", text_config={"num_hidden_layers": 3}),
        "16 tensors are missing (text_model.encoder.layers.2.",
    ),
    "fewer layers": (
        lambda folder, _: edit(folder / "config.json", vision_config={"num_hidden_layers": 1}),
        "16 tensors are not part of the model (vision_model.encoder.layers.1.",
    ),
    "a shard missing": (cut_shard, "files of weights that model.safetensors.index.json names are missing"),
    "no weights": (lambda folder, _: (folder / "model.safetensors").unlink(), "no weights; expected model.safetensors"),
    "damaged": (lambda folder, _: (folder / "model.safetensors").write_bytes(b"xx"), "SafetensorError"),
    "no tokenizer": (
        lambda folder, _: [path.unlink() for path in folder.glob("tokenizer*")],
        "no files of a tokenizer",
    ),
    "a vocabulary above the embedding": (
        lambda folder, _: edit(folder / "config.json", text_config={"vocab_size": 200}),
        "its tokenizer has tokens up to 299, but its text embedding has 200 rows",
    ),
    "no token to pad with": (
        lambda folder, _: edit(folder / "tokenizer_config.json", pad_token=None),
        "no token to pad with",
    ),
    "no processor": (
        lambda folder, _: (folder / "preprocessor_config.json").unlink(),
        "no image processor (preprocessor_config.json)",
    ),
}


@pytest.mark.parametrize(("fault", "kind"), zip(FAULTS, ["clip", "siglip"] * len(FAULTS)))
def test_a_folder_that_is_not_whole(fault: str, kind: str, tmp_path: Path) -> None:
    model = clip_folder(tmp_path, kind)
    change, expected = FAULTS[fault]
    change(tmp_path, model)
    message = refused(f"hf:{tmp_path}")
    assert expected in message
    assert str(tmp_path) in message


@pytest.mark.parametrize(
    ("kind", "head", "message"),
    [
        (
            "clip",
            CLIPForImageClassification,
            "2 tensors are not part of the model (classifier.bias, classifier.weight)",
        ),
        ("siglip", SiglipForImageClassification, "the weights have no text tower"),
        ("clip", CLIPVisionModel, "config.json is that of a CLIPVisionModel; expected a CLIPModel or a SiglipModel"),
    ],
)
def test_a_part_of_a_model_is_no_model(kind: str, head: Any, message: str, tmp_path: Path) -> None:
    config = clip_folder(tmp_path, kind).config
    head(config.vision_config if head is CLIPVisionModel else config).save_pretrained(tmp_path)
    assert message in refused(f"hf:{tmp_path}")


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_two_builds_of_one_folder_agree(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = clip_folder(tmp_path, kind).to(dtype)
    (tmp_path / "model.safetensors").unlink()
    state = model.state_dict() | {"text_model.embeddings.position_ids": torch.arange(12)[None]}
    torch.save(state, tmp_path / "pytorch_model.bin")
    first, second = encoder(f"hf:{tmp_path}"), encoder(f"hf:{tmp_path}")
    np.testing.assert_array_equal(first.encode_texts(TEXTS).embeddings, second.encode_texts(TEXTS).embeddings)
    loaded: Any = first
    assert all(torch.equal(x, state[name].float()) for name, x in loaded.model.state_dict().items())


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(tmp_path / "owned").touch, ())

    clip_folder(tmp_path, "clip")
    (tmp_path / "model.safetensors").unlink()
    torch.save({WORDS: Evil()}, tmp_path / "pytorch_model.bin")
    assert "hold more than tensors" in refused(f"hf:{tmp_path}")
    assert not (tmp_path / "owned").exists()


# Tokenizers


def words(folder: Path, backend: Backend, **tokens: str) -> None:
    tokens = {"bos_token": "<start>", "eos_token": "<end>", "pad_token": "<pad>", **tokens}
    PreTrainedTokenizerFast(tokenizer_object=backend, **tokens).save_pretrained(folder)


@pytest.mark.parametrize(
    ("model", "tokens", "message"),
    [
        (models.BPE({"<pad>": 0, "<start>": 1, "<end>": 2}, []), {}, "its vocabulary has no words, 3 tokens in all"),
        (
            models.BPE({"<pad>": 0, "<start>": 1, "<end>": 2, "a": 3, "b": 4, "ab": 5}, []),
            {},
            "the merges of its words",
        ),
        (models.BPE({"<pad>": 0, "<start>": 1, "<end>": 2, "a": 3, "b": 4, "ab": 5}, [("a", "b")]), {}, "and drops it"),
        (models.WordLevel({"<pad>": 0, "<start>": 1, "<end>": 2, "lung": 3}, "?"), {}, "cannot encode letters"),
        (
            models.WordLevel({"<pad>": 0, "<start>": 1, "<end>": 2, "lung": 3, "?": 4}, "?"),
            {"unk_token": "?", "pad_token": "[PAD300]"},
            "tokens up to 5, but its text embedding has 5 rows",
        ),
    ],
    ids=["no words", "no merges", "dropped", "no unknown", "padding"],
)
def test_a_tokenizer_that_does_not_tell_texts_apart(
    model: Any, tokens: dict[str, str], message: str, tmp_path: Path
) -> None:
    clip_folder(tmp_path, "clip")
    edit(tmp_path / "config.json", text_config={"vocab_size": 5})
    words(tmp_path, Backend(model), **tokens)
    told = refused(f"hf:{tmp_path}")
    assert message in told
    assert str(tmp_path) in told


def test_clip_takes_its_feature_at_a_token_that_texts_have(tmp_path: Path) -> None:
    """Else it takes that of the first token, which is the same for all texts."""
    clip_folder(tmp_path, "clip")
    edit(tmp_path / "config.json", text_config={"eos_token_id": 77})
    assert "takes its feature at token 77 (eos_token_id), but its tokenizer ends texts with [2]" in refused(
        f"hf:{tmp_path}"
    )


# Adapters


def adapter(folder: Path, base: Path) -> Any:
    torch.manual_seed(3)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = peft.get_peft_model(CLIPModel.from_pretrained(base), config).eval()
    model.save_pretrained(folder)
    return model


def test_an_adapter_is_evaluated_on_its_base(tmp_path: Path) -> None:
    clip_folder(tmp_path / "base", "clip")
    theirs = adapter(tmp_path / "adapter", tmp_path / "base")
    found = encoder(f"hf:{tmp_path / 'adapter'}").encode_texts(TEXTS[:1]).embeddings
    tokens = tokenizer()(TEXTS[:1], return_tensors="pt")
    with torch.no_grad():
        expected = theirs.get_text_features(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
    expected = F.normalize(getattr(expected, "pooler_output", expected))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (found != encoder(f"hf:{tmp_path / 'base'}").encode_texts(TEXTS[:1]).embeddings).any()

    edit(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path="org/base")
    assert "model 'org/base': not in the cache" in refused(f"hf:{tmp_path / 'adapter'}")
    edit(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path="")
    assert "base_model_name_or_path is empty" in refused(f"hf:{tmp_path / 'adapter'}")


def test_an_adapter_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    clip_folder(tmp_path / "base", "clip")
    adapter(tmp_path / "adapter", tmp_path / "base")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    state = load_file(path)
    first, *others = sorted(state)
    for changed, message in (
        ({name: state[name] for name in others}, "1 tensor is missing (text_model."),
        (state | {first.replace("layers.0", "layers.9"): state[first] + 1}, "1 tensor is not part of the model"),
        (state | {first: torch.zeros(3, 5)}, "1 tensor is of another shape"),
    ):
        save_file(changed, path)
        told = refused(f"hf:{tmp_path / 'adapter'}")
        assert message in told
        assert "set base_model_name_or_path to the model that it was trained on" in told
    path.unlink()
    assert "no weights; expected adapter_model.safetensors" in refused(f"hf:{tmp_path / 'adapter'}")


def test_the_base_of_an_adapter_and_sub_folders_are_part_of_the_key(tmp_path: Path) -> None:
    clip_folder(tmp_path / "base", "clip")
    adapter(tmp_path / "adapter", tmp_path / "base")
    spec = f"hf:{tmp_path / 'adapter'}"

    def key() -> str:
        return external_model(spec).fixed(0, "s").key

    keys = [key()]
    rewrite(tmp_path / "base", lambda state: state | {WORDS: state[WORDS] + 1})
    keys.append(key())
    (tmp_path / "base" / "more").mkdir()
    (tmp_path / "base" / "more" / "vocab.txt").write_text("a")
    keys.append(key())
    assert len(set(keys)) == 3
    shutil.move(tmp_path / "base", tmp_path / "moved")
    edit(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path=str(tmp_path / "moved"))
    assert key() not in keys


# Names of the hub


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], None]:
    """Puts a folder into the cache of the hub as the revision of a name."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(name: str, folder: Path, revision: str = "0" * 40) -> None:
        place = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        shutil.copytree(folder, place / "snapshots" / revision)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / "main").write_text(revision)

    return put


def test_a_name_of_the_hub_is_what_the_cache_has(cache: Callable[..., None], tmp_path: Path) -> None:
    clip_folder(tmp_path / "model", "clip")
    (tmp_path / "model" / "README.md").write_text("what it is")
    assert "model 'org/model': not in the cache" in refused("hf:org/model")
    cache("org/model", tmp_path / "model")
    found = external_model("hf:org/model")
    assert found.name == "hf:org/model"
    assert set(found.content["hf"]) == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    ours, theirs = encoder("hf:org/model"), encoder(f"hf:{tmp_path / 'model'}")
    np.testing.assert_array_equal(ours.encode_texts(TEXTS).embeddings, theirs.encode_texts(TEXTS).embeddings)

    rewrite(tmp_path / "model", lambda state: state | {WORDS: state[WORDS] + 1})
    cache("org/model", tmp_path / "model", "1" * 40)
    assert external_model("hf:org/model").content != found.content
    assert external_model(f"hf:org/model@{'0' * 40}").content == found.content


def test_the_base_of_an_adapter_may_be_a_name_of_the_hub(cache: Callable[..., None], tmp_path: Path) -> None:
    clip_folder(tmp_path / "base", "clip")
    adapter(tmp_path / "adapter", tmp_path / "base")
    local = encoder(f"hf:{tmp_path / 'adapter'}").encode_texts(TEXTS).embeddings
    cache("org/base", tmp_path / "base")
    edit(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path="org/base")
    spec = f"hf:{tmp_path / 'adapter'}"
    before = external_model(spec).content
    np.testing.assert_array_equal(encoder(spec).encode_texts(TEXTS).embeddings, local)
    rewrite(tmp_path / "base", lambda state: state | {WORDS: state[WORDS] + 1})
    cache("org/base", tmp_path / "base", "1" * 40)
    assert external_model(spec).content != before


def test_a_name_of_open_clips_hub_is_keyed_by_what_the_cache_has(cache: Callable[..., None], tmp_path: Path) -> None:
    vision = {"image_size": 32, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}
    text = {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
    settings = {"model_cfg": {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": {}}
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps(settings))

    def revise(number: int) -> None:
        torch.manual_seed(number)
        state = open_clip.create_model(f"local-dir:{folder}", load_weights=False).state_dict()
        save_file({name: x.contiguous() for name, x in state.items()}, folder / "open_clip_model.safetensors")
        cache("org/model", folder, str(number) * 40)

    assert "open_clip model 'hf-hub:org/model': not in the cache" in refused("open_clip:hf-hub:org/model")
    revise(0)
    first = external_model("open_clip:hf-hub:org/model")
    found, expected = encoder("open_clip:hf-hub:org/model"), encoder(f"open_clip:local-dir:{folder}")
    np.testing.assert_array_equal(found.encode_texts(TEXTS).embeddings, expected.encode_texts(TEXTS).embeddings)
    revise(1)
    assert external_model("open_clip:hf-hub:org/model").content != first.content


def test_weights_are_not_downloaded_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def snapshot(name: str, **options: Any) -> str:
        asked[name] = options
        return str(tmp_path)

    monkeypatch.setattr("benchmark.models.weights.hub_answers", lambda: True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(
        "huggingface_hub.HfApi.list_repo_files", lambda self, name, revision: [f"{name[4:]}.safetensors"]
    )
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert hub_folder("org/model@abc") == tmp_path
    assert asked["org/model"]["revision"] == "abc"
    assert "*.bin" in asked["org/model"]["ignore_patterns"]


# Paths


def timm_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    folder.mkdir()
    timm.models.save_for_hf(timm.create_model("test_vit", num_classes=7), folder, safe_serialization=True)
    return folder


def test_a_folder_of_timm(tmp_path: Path) -> None:
    folder = timm_folder(tmp_path / "vit")
    by_name, by_folder = encoder(f"timm:test_vit/{folder}/model.safetensors"), encoder(f"timm:{folder}")
    pixels = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    np.testing.assert_array_equal(by_folder.encode_images(pixels).features, by_name.encode_images(pixels).features)
    before = external_model(f"timm:{folder}")
    assert before.name == f"timm:{folder}"
    assert before.content["timm"] == "test_vit"
    assert set(before.content["pretrained"]) >= {"config.json", "model.safetensors"}
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").unlink(missing_ok=True)
    assert "no weights; expected model.safetensors" in refused(f"timm:{folder}")
    edit(folder / "config.json", architecture="test_vitt")
    assert "unknown timm image model of" in refused(f"timm:{folder}")


def test_a_path_of_another_kind_is_told_how_to_write_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    vit, clip, own = timm_folder(tmp_path / "vit"), tmp_path / "clip", tmp_path / "own"
    clip_folder(clip, "clip")
    own.mkdir()
    (own / "open_clip_config.json").write_text("{}")
    checkpoint = vit / "model.safetensors"
    for spec, told in {
        str(clip): f"write --model hf:{clip}",
        str(vit): f"write --model timm:{vit}",
        "own": "write --model open_clip:local-dir:own",
        str(checkpoint): "write its architecture too: open_clip:NAME/",
        f"hf:{vit}": f"write --model timm:{vit}",
        f"hf:{own}": f"write --model open_clip:local-dir:{own}",
        f"timm:{clip}": f"write --model hf:{clip}",
        f"timm:{checkpoint}": f"write its architecture too: timm:NAME/{checkpoint}",
        f"open_clip:{clip}": f"write --model hf:{clip}",
        f"open_clip:{checkpoint}": f"write its architecture too: open_clip:NAME/{checkpoint}",
        f"open_clip:local-dir:{clip}": f"write --model hf:{clip}",
        f"open_clip:local-dir:{own}": "no weights; expected open_clip_model.safetensors",
    }.items():
        assert told in refused(spec), spec


# What a card lets pass


def test_rows_say_what_was_left_random(bench: Bench) -> None:
    """In the rows of the model itself, and of what was trained from it."""
    torch.manual_seed(0)
    state = timm.create_model("test_vit", num_classes=0).state_dict()
    del state["blocks.1.mlp.fc1.weight"]
    save_file(state, bench.folder / "vit.safetensors")
    card = MODEL | {"image": {"kind": "timm", "name": "test_vit", "pretrained": "vit.safetensors"}}
    (bench.folder / "vit.yaml").write_text(json.dumps(card))
    quick = ["--suite", "suite.yaml", "--model", "vit.yaml", "--tasks", "linear_probe"]
    train = ["--methods", "clip", "--set", "training.samples=64"]
    assert bench("run", *quick, *train) != 0
    assert "1 tensor is missing (blocks.1.mlp.fc1.weight)" in " ".join((bench.out + bench.err).split())
    (bench.folder / "vit.yaml").write_text(json.dumps(card | {"strict": False}))
    for command in (["run", *quick, *train], ["eval", *quick]):
        assert bench(*command) == 0, bench.out + bench.err
        assert "1 tensor left random (blocks.1.mlp.fc1.weight)" in " ".join(bench.out.split())
    rows = bench.rows()
    assert set(rows.method) == {"clip", "vit (random text tower)"}
    assert rows.left_random.str.contains("1 tensor left random (blocks.1.mlp.fc1.weight)", regex=False).all()
