"""What a card would download, by what lies in the hub's cache."""

from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from benchmark.models import load_model_card, model_names
from benchmark.models.download import to_download
from tests.models.make import make_card, timm_card, transformers_card


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    return tmp_path / "hub"


def keep(cache: Path, repository: str, file: str, revision: str = "main") -> None:
    """A file of a repository, laid as the hub's client lays it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    for path, content in ((folder / "refs" / revision, "c0ffee"), (folder / "snapshots" / "c0ffee" / file, "")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def open_clip(name: str, pretrained: str | None = None) -> dict[str, Any]:
    return {"kind": "open_clip", "name": name, "pretrained": pretrained}


CLIP = "timm/vit_base_patch16_clip_224.openai"
TIMM = {"kind": "timm", "name": "resnet10t", "pretrained": True}
BERT = {"kind": "transformers", "name": "clinic/bert"}
READS = {"kind": "huggingface", "name": "clinic/bert"}
ROBERTA = {"kind": "open_clip", "name": "roberta-ViT-B-32"}


@pytest.mark.parametrize(
    ("parts", "said", "repository", "file"),
    [
        (
            {"image": open_clip("ViT-B-16", "openai")},
            "weights 'openai' of open_clip's 'ViT-B-16'",
            CLIP,
            "open_clip_model.safetensors",
        ),
        (
            {"image": open_clip("ViT-B-16", "openai")},
            "weights 'openai' of open_clip's 'ViT-B-16'",
            CLIP,
            "open_clip_pytorch_model.bin",
        ),
        (
            {"image": open_clip("hf-hub:clinic/clip")},
            "weights of open_clip's 'hf-hub:clinic/clip'",
            "clinic/clip",
            "open_clip_model.safetensors",
        ),
        ({"image": TIMM}, "weights of timm's 'resnet10t'", "timm/resnet10t.c3_in1k", "model.safetensors"),
        ({"text": BERT}, "weights 'clinic/bert'", "clinic/bert", "pytorch_model.bin.index.json"),
        ({"text": BERT | {"pretrained": False}}, "configuration 'clinic/bert'", "clinic/bert", "config.json"),
        ({"tokenizer": READS}, "tokenizer 'clinic/bert'", "clinic/bert", "tokenizer.json"),
        ({"tokenizer": ROBERTA}, "tokenizer of open_clip's 'roberta-ViT-B-32'", "roberta-base", "vocab.json"),
    ],
)
def test_what_is_not_in_the_cache_is_named(
    cache: Path, parts: dict[str, Any], said: str, repository: str, file: str
) -> None:
    card = make_card(**parts)
    assert to_download(card) == [said]
    keep(cache, repository, "README.md")
    assert to_download(card) == [said]
    keep(cache, repository, file)
    assert to_download(card) == []


def test_what_is_random_or_a_file_or_comes_with_the_library_is_not_downloaded(tmp_path: Path) -> None:
    tower = open_clip("ViT-B-32", str(tmp_path / "weights.pt"))
    for card in (
        make_card(open_clip("ViT-B-32"), open_clip("ViT-B-32"), tokenizer={"kind": "open_clip", "name": "ViT-B-32"}),
        make_card(tower, tower),
        make_card(open_clip(f"local-dir:{tmp_path}")),
        make_card(text=BERT | {"name": str(tmp_path)}, tokenizer=READS | {"name": str(tmp_path)}),
        timm_card("resnet10t"),
        transformers_card("bert"),
    ):
        assert to_download(card) == []


def test_both_towers_of_one_checkpoint_are_one_download() -> None:
    assert to_download(load_model_card("vit-b-16")) == ["weights 'openai' of open_clip's 'ViT-B-16'"]
    cards = [load_model_card(name) for name in model_names() if not name.startswith("real-")]
    assert {card.name for card in cards if not to_download(card)} == {"tiny", "tiny-general"}
