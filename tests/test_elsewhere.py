"""Models that were trained elsewhere: each gives what its own library gives, and is evaluated like a method."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, SiglipConfig, SiglipModel

from benchmark.elsewhere import elsewhere, is_elsewhere
from benchmark.embedding import Encoder, Trainable
from benchmark.errors import BenchError
from tests.models.conftest import TEXT, VIT
from tests.test_cli import Bench, bench, squares  # noqa: F401

NAME = "bench-small"
CONFIG = {"embed_dim": 20, "vision_cfg": VIT, "text_cfg": TEXT | {"context_length": 16, "vocab_size": 49408}}
TEXTS = ["a red square", "no finding", "a green square, number seven of those that were seen in the afternoon"]


@pytest.fixture(scope="module", autouse=True)
def architecture(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("architectures") / f"{NAME}.json"
    path.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(path)


class Bare:
    """What a run hands to an encoder from elsewhere: its device alone."""

    device = torch.device("cpu")


def encoder(spec: str) -> Encoder:
    materials: Any = Bare()
    return elsewhere(spec).given(0, "suite").build(materials)


def images(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8, and in 0..1."""
    pixels = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return pixels, pixels.float() / 255


def normalised(x: torch.Tensor, mean: Any, std: Any) -> torch.Tensor:
    return (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def checkpoint(folder: Path, seed: int = 0) -> tuple[Path, Any]:
    torch.manual_seed(seed)
    model = open_clip.create_model(NAME).eval()
    with torch.no_grad():
        model.logit_scale.fill_(3.0)
    path = folder / f"open-{seed}.safetensors"
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return path, model


def test_open_clip(tmp_path: Path) -> None:
    path, model = checkpoint(tmp_path)
    found = encoder(f"open_clip:{NAME}/{path}")
    pixels, x = images(32)
    x = normalised(x, model.visual.image_mean, model.visual.image_std)
    with torch.no_grad():
        expected = model.encode_image(x, normalize=True), model.encode_text(open_clip.get_tokenizer(NAME)(TEXTS), True)
    np.testing.assert_allclose(found.encode_images(pixels).embeddings, expected[0], atol=1e-6)
    np.testing.assert_allclose(found.encode_texts(TEXTS).embeddings, expected[1], atol=1e-6)
    assert found.encode_images(pixels).features.shape == (3, 24)
    assert found.temperature_scale == pytest.approx(np.exp(3.0), rel=1e-6)


def clip_folder(folder: Path, kind: str) -> Any:
    """A random CLIP or SigLIP of transformers with a tokenizer and an image processor."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = shape | {"vocab_size": 300, "max_position_embeddings": 12, "projection_size": 16}
    vision = shape | {"image_size": 32, "patch_size": 8}
    model: Any
    if kind == "clip":
        text |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=10)
        model = CLIPModel(config)
    else:
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    model.eval().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    CLIPImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7]).save_pretrained(folder)
    return model


def tokenizer() -> Any:
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    from benchmark.models.tokenizer import train

    backend = train(TEXTS, 300)
    backend.post_processor = TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<start>", eos_token="<end>", pad_token="<pad>")


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_hugging_face(kind: str, tmp_path: Path) -> None:
    model = clip_folder(tmp_path, kind)
    found = encoder(f"hf:{tmp_path}")
    pixels, x = images(32)
    padding = "max_length" if kind == "siglip" else "longest"
    tokens = tokenizer()(TEXTS, return_tensors="pt", padding=padding, truncation=True, max_length=12)
    if kind == "clip":
        tokens = {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
    else:
        tokens = {"input_ids": tokens["input_ids"]}
    with torch.no_grad():
        out = model(pixel_values=normalised(x, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]), **tokens)
    np.testing.assert_allclose(found.encode_images(pixels).embeddings, F.normalize(out.image_embeds), atol=1e-6)
    np.testing.assert_allclose(found.encode_texts(TEXTS).embeddings, F.normalize(out.text_embeds), atol=1e-6)
    np.testing.assert_allclose(found.encode_texts(TEXTS[:1]).embeddings, F.normalize(out.text_embeds[:1]), atol=1e-6)
    assert found.temperature_scale == pytest.approx(float(model.logit_scale.exp().detach()))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_copy_of_hugging_face_is_trained_alone(kind: str, tmp_path: Path) -> None:
    clip_folder(tmp_path, kind)
    found: Any = encoder(f"hf:{tmp_path}")
    assert isinstance(found, Trainable)
    pixels, _ = images(32)
    before = found.encode_images(pixels), found.encode_texts(TEXTS)
    copy = found.copy()
    optimizer = torch.optim.SGD(copy.parameters(), lr=0.1)
    for expected, (features, embeddings) in zip(before, (copy.image_outputs(pixels), copy.text_outputs(TEXTS))):
        np.testing.assert_array_equal(features.detach(), expected.features)
        np.testing.assert_array_equal(embeddings.detach(), expected.embeddings)
        (features.square().sum() + embeddings.sum()).backward()
    optimizer.step()
    for old, new in zip(before, (found.encode_images(pixels), found.encode_texts(TEXTS))):
        np.testing.assert_array_equal(new.features, old.features)
    for old, new in zip(before, (copy.encode_images(pixels), copy.encode_texts(TEXTS))):
        assert (new.features != old.features).any()


def test_timm(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=7).eval()
    path = tmp_path / "vit.safetensors"
    save_file(model.state_dict(), path)
    given = elsewhere(f"timm:test_vit/{path}")
    assert given.images_only
    assert given.name == "timm:test_vit/vit.safetensors"
    found = encoder(f"timm:test_vit/{path}")
    pixels, x = images(found.image_size)
    config = timm.data.resolve_model_data_config(model)
    with torch.no_grad():
        features = model.forward_features(normalised(x, config["mean"], config["std"]))
        expected = model.forward_head(features, pre_logits=True)
    encoded = found.encode_images(pixels)
    np.testing.assert_allclose(encoded.features, expected, atol=1e-5)
    np.testing.assert_allclose(encoded.embeddings, F.normalize(expected), atol=1e-6)


def test_keys_depend_on_the_weights_and_not_on_their_place(tmp_path: Path) -> None:
    first, _ = checkpoint(tmp_path)
    second, _ = checkpoint(tmp_path, seed=1)
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(first.read_bytes())
    keys = [elsewhere(f"open_clip:{NAME}/{path}").given(0, "s").key for path in (first, second, moved)]
    assert keys[0] == keys[2] != keys[1]
    assert elsewhere(f"open_clip:{NAME}/{first}").given(1, "s").key != keys[0]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("open_clp:x", "unknown kind of model (before the colon of --model) 'open_clp'; did you mean 'open_clip'?"),
        ("open_clip:", "expected a name after the colon"),
        ("open_clip:ViT-B-33", "unknown open_clip architecture 'ViT-B-33'"),
        ("open_clip:ViT-B-32/opennai", "unknown pretrained tag of ViT-B-32 'opennai'; did you mean 'openai'?"),
        (f"open_clip:{NAME}/none.pt", "no such file"),
        ("open_clip:local-dir:none", "no such folder"),
        ("hf:none", "no such folder"),
        ("timm:resnet10", "unknown timm image model 'resnet10'"),
        ("timm:resnet10t/none.pt", "no such file"),
    ],
)
def test_what_is_not_there(spec: str, message: str) -> None:
    with pytest.raises(BenchError) as raised:
        assert is_elsewhere(spec)
        elsewhere(spec)
    assert message in str(raised.value)


def test_names_of_cards_are_not_from_elsewhere() -> None:
    assert not is_elsewhere("vit-b-32")
    assert not is_elsewhere("folder/model.yaml")


def test_without_network_it_ends_in_a_line(
    bench: Bench,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    quick = ["--suite", "suite.yaml", "--tasks", "linear_probe"]
    assert bench("eval", "--model", "timm:resnet10t", *quick) == 2, bench.out
    assert "timm weights of 'resnet10t': not in the cache" in bench.err
    assert len(bench.err.strip().splitlines()) == 1


def test_rows_stand_in_the_same_report(bench: Bench) -> None:  # noqa: F811
    path, _ = checkpoint(bench.folder)
    spec = ["--model", f"open_clip:{NAME}/{path.name}", "--suite", "suite.yaml"]
    quick = ["--suite", "suite.yaml", "--methods", "clip", "--tasks", "linear_probe"]
    assert bench("run", *quick, "--set", "training.samples=96") == 0
    assert bench("eval", *spec) == 0, bench.out + bench.err
    assert "trained 0, evaluated 5, done before 0, failed 0" in bench.out
    rows = bench.rows()
    assert set(rows.method) == {"clip", f"open_clip:{NAME}/{path.name}"}
    assert set(rows[rows.role == "model"].task) == {"zero_shot", "retrieval", "linear_probe", "few_shot", "vqa"}
    assert bench("eval", *spec) == 0
    assert "evaluated 0, done before 5" in bench.out
    assert bench("report") == 0
    assert "open_clip:" in bench.out
    assert "better" in bench.out or "worse" in bench.out or "no difference" in bench.out

    torch.manual_seed(0)
    save_file(timm.create_model("test_vit", num_classes=7).state_dict(), bench.folder / "vit.safetensors")
    assert bench("eval", "--model", "timm:test_vit/vit.safetensors", "--suite", "suite.yaml") == 0, bench.out
    assert "trained 0, evaluated 2, done before 0, failed 0" in bench.out
    found = bench.rows()
    assert set(found[found.method.str.startswith("timm")].task) == {"linear_probe", "few_shot"}

    assert bench("eval", "--model", "small.yaml", "--suite", "suite.yaml", "--tasks", "linear_probe") == 0, bench.out
    found = bench.rows()
    assert set(found[found.method == "small"].role) == {"model"}
