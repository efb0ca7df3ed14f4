"""Taken apart and put together, an open_clip model gives what open_clip's own gives."""

import json
import pickle
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import BertConfig, BertModel

from benchmark.common.errors import BenchError
from benchmark.models import build_model
from benchmark.models.from_open_clip import open_clip_model
from tests.models.make import ARCHITECTURES, CONTEXT, make_card, open_clip_card, texts


def reference(name: str, seed: int = 1, **options: Any) -> Any:
    torch.manual_seed(seed)
    model = open_clip.create_model(name, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # so that nothing is zero, one or symmetric
            parameter.add_(0.05 * torch.randn_like(parameter))
        for buffer in model.buffers():
            if buffer.is_floating_point() and buffer.ndim == 1:
                buffer.add_(0.05 * torch.randn_like(buffer)).abs_()
    return model


def pixels(model: Any, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images in 0..1, and as open_clip's preprocessing would hand them to its model."""
    x = F.interpolate(torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(2)), size)
    config = model.visual.preprocess_cfg
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    return x, (x - mean) / std


def assert_equal_to_open_clip(card: Any, theirs: Any) -> None:
    ours = build_model(card, 0).eval()
    x, normalised = pixels(theirs, ours.image_size)
    tokens, mask = texts([4, CONTEXT, 7], CONTEXT)
    with torch.no_grad():
        image, text = ours.encode_image(x), ours.encode_text(tokens, mask)
        torch.testing.assert_close(image, theirs.encode_image(normalised, normalize=True), atol=1e-6, rtol=0)
        torch.testing.assert_close(text, theirs.encode_text(tokens, normalize=True), atol=1e-6, rtol=0)
        trimmed = ours.encode_text(tokens[:1, :4], mask[:1, :4])
        torch.testing.assert_close(trimmed, text[:1], atol=1e-6, rtol=0)
    assert (image[0] - image[1]).abs().max() > 1e-3
    assert (text[0] - text[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_equal_to_open_clip(name: str, tmp_path: Path) -> None:
    theirs = reference(name)
    path = tmp_path / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in theirs.state_dict().items()}, path)
    card = make_card(
        {"kind": "open_clip", "name": name, "pretrained": str(path)},
        {"kind": "open_clip", "name": name, "pretrained": str(path)},
    )
    assert_equal_to_open_clip(card, theirs)


@pytest.mark.parametrize("name", ["small-vit", "small-vit-quick", "small-rn", "small-siglip"])
def test_projections_are_linear_maps_of_the_features(name: str) -> None:
    model = build_model(open_clip_card(name), 0)
    for projection, width in ((model.image_projection, model.image.width), (model.text_projection, model.text.width)):
        linears = [m for m in projection.modules() if isinstance(m, torch.nn.Linear)]
        assert len(linears) == 1
        assert linears[0].in_features == width
        assert linears[0].out_features == 20


def test_the_tokens_of_clips_resnet_are_the_values_at_each_place(tmp_path: Path) -> None:
    theirs = reference("small-rn")
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    card = make_card({"kind": "open_clip", "name": "small-rn", "pretrained": str(tmp_path / "weights.pt")})
    ours = build_model(card, 0).eval()
    x, normalised = pixels(theirs, 64)
    with torch.no_grad():
        last = theirs.visual.forward_intermediates(normalised, intermediates_only=True)["image_intermediates"][-1]
        pool, tokens = theirs.visual.attnpool, ours.image_tokens(x)
        assert tokens.shape[1] == last.shape[2] * last.shape[3] == 4
        for place in range(4):
            value = pool.v_proj(last[:, :, place // 2, place % 2] + pool.positional_embedding[place + 1])
            torch.testing.assert_close(tokens[:, place], value)


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "bin"])
def test_local_checkpoints(suffix: str, tmp_path: Path) -> None:
    theirs = reference("small-vit")
    path = tmp_path / f"epoch_3.{suffix}"
    state = {key: value.contiguous() for key, value in theirs.state_dict().items()}
    if suffix == "safetensors":
        save_file(state, path)
    elif suffix == "bin":
        torch.save(state, path)
    else:  # as open_clip's own training writes it
        torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    tower = {"kind": "open_clip", "name": "small-vit", "pretrained": str(path)}
    assert_equal_to_open_clip(make_card(tower, tower), theirs)


def test_a_folder_brings_architecture_weights_and_normalisation(tmp_path: Path) -> None:
    theirs = reference("small-vit")
    theirs.visual.preprocess_cfg.update(mean=(0.1, 0.2, 0.3), std=(0.3, 0.4, 0.5))
    save_file({k: v.contiguous() for k, v in theirs.state_dict().items()}, tmp_path / "open_clip_model.safetensors")
    preprocess = {"mean": [0.1, 0.2, 0.3], "std": [0.3, 0.4, 0.5]}
    config = {"model_cfg": ARCHITECTURES["small-vit"], "preprocess_cfg": preprocess}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    assert_equal_to_open_clip(open_clip_card(f"local-dir:{tmp_path}"), theirs)
    (tmp_path / "open_clip_model.safetensors").unlink()
    with pytest.raises(BenchError, match=r"no weights; expected open_clip_model\.safetensors or"):
        build_model(open_clip_card(f"local-dir:{tmp_path}"), 0)
    build_model(open_clip_card(f"local-dir:{tmp_path}"), 0, device="meta")


def test_a_text_tower_from_transformers_in_an_open_clip_folder(tmp_path: Path) -> None:
    """As BiomedCLIP is published."""
    bert = BertConfig(vocab_size=64, hidden_size=16, num_attention_heads=2, num_hidden_layers=2, intermediate_size=32)
    BertModel(bert).save_pretrained(tmp_path / "bert")
    text = {
        "hf_model_name": str(tmp_path / "bert"),
        "hf_proj_type": "mlp",
        "context_length": CONTEXT,
        "hf_pooler_type": "cls_last_hidden_state_pooler",
    }
    config = {"model_cfg": {**ARCHITECTURES["small-vit"], "text_cfg": text}, "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    theirs = reference(f"local-dir:{tmp_path}")
    save_file({k: v.contiguous() for k, v in theirs.state_dict().items()}, tmp_path / "open_clip_model.safetensors")
    assert_equal_to_open_clip(open_clip_card(f"local-dir:{tmp_path}"), theirs)


def image_activation(name: str, **spec: Any) -> str:
    model = build_model(make_card({"kind": "open_clip", "name": name, **spec}, embed_dim=512), 0, device="meta")
    return type(model.image.model.transformer.resblocks[0].mlp.gelu).__name__


def test_the_activation_belongs_to_the_checkpoint(tmp_path: Path) -> None:
    assert image_activation("ViT-B-32") == "GELU"
    assert image_activation("ViT-B-32", pretrained="openai") == "QuickGELU"
    assert image_activation("ViT-B-32", pretrained="laion2b_s34b_b79k") == "GELU"
    assert image_activation("ViT-B-32-quickgelu") == "QuickGELU"
    assert image_activation("ViT-B-32-quickgelu", pretrained="openai") == "QuickGELU"
    assert image_activation("ViT-B-32", pretrained="openai", quick_gelu=False) == "GELU"
    shipped = build_model(open_clip_card("ViT-B-32", embed_dim=512), 0, device="meta")
    assert type(shipped.text.model.transformer.resblocks[0].mlp.gelu).__name__ == "GELU"

    theirs = reference("small-vit", force_quick_gelu=True)
    path = tmp_path / "weights.pt"
    torch.save(theirs.state_dict(), path)
    tower = {"kind": "open_clip", "name": "small-vit", "pretrained": str(path)}
    assert_equal_to_open_clip(make_card({**tower, "quick_gelu": True}, {**tower, "quick_gelu": True}), theirs)
    plain = build_model(make_card(tower, tower), 0).eval()
    x, normalised = pixels(theirs, 32)
    with torch.no_grad():
        assert not torch.allclose(plain.encode_image(x), theirs.encode_image(normalised, normalize=True), atol=1e-4)


def test_the_tag_brings_its_normalisation() -> None:
    with torch.device("meta"):
        config = open_clip_model("ViT-B-16-SigLIP", "webli", None, None, weights=False).visual.preprocess_cfg
        assert config["mean"] == config["std"] == (0.5, 0.5, 0.5)
        plain = open_clip_model("ViT-B-16", "openai", None, None, weights=False).visual.preprocess_cfg
    model = build_model(open_clip_card("small-vit"), 0)
    assert tuple(model.image.mean.flatten().tolist()) == pytest.approx(plain["mean"])
    assert tuple(model.image.std.flatten().tolist()) == pytest.approx(plain["std"])


def test_another_joint_width_gets_a_new_projection() -> None:
    model = build_model(open_clip_card("small-vit", embed_dim=6), 0)
    assert model.image_projection.weight.shape == (6, 24)
    assert model.text_projection.weight.shape == (6, 16)


def test_another_image_size_resamples_the_positions(tmp_path: Path) -> None:
    theirs = reference("small-vit")
    path = tmp_path / "weights.pt"
    torch.save(theirs.state_dict(), path)
    tower = {"kind": "open_clip", "name": "small-vit", "pretrained": str(path)}
    model = build_model(make_card(tower, tower, image_size=64), 0)
    assert model.image_size == 64
    assert model.image_tokens(torch.rand(1, 3, 64, 64)).shape[1] == 64
    expected = theirs.visual.positional_embedding[1:].detach().T.reshape(1, 24, 4, 4)
    expected = F.interpolate(expected, (8, 8), mode="bicubic", antialias=True).flatten(2)[0].T
    torch.testing.assert_close(model.image.model.positional_embedding[1:].detach(), expected)


def test_names_that_are_not_there() -> None:
    with pytest.raises(BenchError, match="unknown open_clip architecture 'ViT-B-17'; did you mean 'ViT-B-1"):
        build_model(open_clip_card("ViT-B-17"), 0)
    with pytest.raises(BenchError, match="unknown pretrained tag of ViT-B-16 'opneai'; did you mean 'openai'"):
        build_model(make_card({"kind": "open_clip", "name": "ViT-B-16", "pretrained": "opneai"}), 0)
    with pytest.raises(BenchError, match=r"weights /nowhere/a.pt: no such file .*ViT-B-16"):
        build_model(make_card({"kind": "open_clip", "name": "ViT-B-16", "pretrained": "/nowhere/a.pt"}), 0)


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    tower = {"kind": "open_clip", "name": "small-vit", "pretrained": str(path)}
    torch.save(reference("small-rn").state_dict(), path)
    with pytest.raises(BenchError, match="expected a checkpoint of open_clip's 'small-vit'") as error:
        build_model(make_card(tower), 0)
    assert "\n" not in str(error.value)

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(tmp_path / "owned").touch, ())

    path.write_bytes(pickle.dumps({"state_dict": Evil()}))
    with pytest.raises(BenchError, match="contains more than tensors"):
        build_model(make_card(tower), 0)
    assert not (tmp_path / "owned").exists()
    path.write_bytes(b"")
    with pytest.raises(BenchError, match="weights"):
        build_model(make_card(tower), 0)
