from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from benchmark.common.errors import BenchError
from benchmark.models import build_model
from tests.models.make import TIMM, make_card, timm_card


def reference(name: str, size: int | None = None, **options: Any) -> Any:
    torch.manual_seed(1)
    return timm.create_model(name, **TIMM[name], **options).eval()


def normalised(model: Any, x: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(model.default_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (x - mean) / std


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("name", TIMM)
def test_a_local_checkpoint_gives_timms_own_features(name: str, suffix: str, tmp_path: Path) -> None:
    theirs = reference(name, num_classes=7)
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(theirs.state_dict(), path)
    else:
        torch.save({"state_dict": theirs.state_dict(), "epoch": 2}, path)
    size = theirs.default_cfg["input_size"][-1]
    card = make_card({"kind": "timm", "name": name, "config": TIMM[name], "pretrained": str(path)})
    ours = build_model(card, 0).eval()
    assert ours.image_size == size
    x = torch.rand(2, 3, size, size)
    with torch.no_grad():
        hidden = theirs.forward_features(normalised(theirs, x))
        expected = theirs.forward_head(hidden, pre_logits=True)
        torch.testing.assert_close(ours.image_features(x), expected)
        tokens = ours.image_tokens(x)
    places = {
        "vit_tiny_patch16_224": lambda: hidden[:, 1:],
        "swin_tiny_patch4_window7_224": lambda: hidden.flatten(1, 2),
    }
    torch.testing.assert_close(tokens, places.get(name, lambda: hidden.flatten(2).transpose(1, 2))())


def test_the_image_size_is_the_cards() -> None:
    for name in TIMM:
        model = build_model(timm_card(name), 0)
        assert model.image_size == 64
        assert model.image_features(torch.rand(2, 3, 64, 64)).shape == (2, model.image.width)


def test_layer_groups_are_timms_own() -> None:
    count = {name: len(build_model(timm_card(name), 0).image.layer_groups()) for name in TIMM}
    assert count["vit_tiny_patch16_224"] == 1 + 3  # stem, blocks; the norm goes with the last block
    assert count["resnet10t"] == 1 + 4
    assert count["convnext_atto"] == 1 + 5 + 1  # stem, blocks, and the norm of the head
    assert count["swin_tiny_patch4_window7_224"] == 1 + 5


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BenchError, match="unknown timm image model 'resnet05'; did you mean 'resnet50'"):
        build_model(make_card({"kind": "timm", "name": "resnet05"}), 0)
    with pytest.raises(BenchError, match="no such file"):
        build_model(timm_card("resnet10t", pretrained="nowhere.pth"), 0)
    path = tmp_path / "weights.pth"
    torch.save(reference("convnext_atto").state_dict(), path)
    with pytest.raises(BenchError, match="expected a checkpoint of timm's 'vit_tiny") as error:
        build_model(timm_card("vit_tiny_patch16_224", pretrained=str(path)), 0)
    assert "\n" not in str(error.value)
    with pytest.raises(BenchError, match=r"timm image model 'resnet10t': .*nonsense"):
        build_model(make_card({"kind": "timm", "name": "resnet10t", "config": {"nonsense": 1}}), 0)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BenchError, match="timm weights of 'resnet10t': not in the cache") as error:
        build_model(make_card({"kind": "timm", "name": "resnet10t", "pretrained": True}), 0)
    assert "\n" not in str(error.value)
    build_model(make_card({"kind": "timm", "name": "resnet10t", "pretrained": True}), 0, device="meta")


def test_stochastic_depth_only_while_training() -> None:
    model = build_model(timm_card("vit_tiny_patch16_224", drop_path=0.5), 0)
    x = torch.rand(4, 3, 64, 64)
    assert not torch.equal(model.image_features(x), model.image_features(x))
    model.eval()
    assert torch.equal(model.image_features(x), model.image_features(x))
