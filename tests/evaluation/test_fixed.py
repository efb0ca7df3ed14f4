"""Baselines: which a model has, and what raw pixels are."""

from typing import Any

import numpy as np
import pytest
import torch

from benchmark.evaluation.fixed import FixedEncoder, RawPixels, baselines, has_weights, random_towers
from benchmark.models import ModelCard, build_model, load_model_card

TEXT = {"kind": "tiny", "width": 32, "layers": 1, "heads": 2}
TOKENIZER = {"kind": "corpus", "vocab_size": 300, "context_length": 12}


def card(image: dict[str, Any], text: dict[str, Any] = TEXT) -> ModelCard:
    content = {"name": "m", "embed_dim": 16, "image": image, "text": text, "tokenizer": TOKENIZER}
    return ModelCard.model_validate(content)


def names(found: list[FixedEncoder]) -> list[str]:
    return [encoder.name for encoder in found]


def test_raw_pixels_are_the_means_of_the_cells() -> None:
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    raw = RawPixels(build_model(load_model_card("tiny"), 0, "meta"))
    encoded = raw.encode_images(images)
    cell = images[1, 2, 12:16, 60:64].double().mean() / 255
    assert encoded.features.shape == (2, 768)
    assert encoded.features[1, 2 * 256 + 3 * 16 + 15] == pytest.approx(cell.item(), abs=1e-6)
    np.testing.assert_allclose(np.linalg.norm(encoded.embeddings, axis=1), 1, atol=1e-6)
    assert np.isfinite(raw.encode_images(images * 0).embeddings).all()


def test_weights_that_are_random_stand_once() -> None:
    tiny = load_model_card("tiny")
    assert names(baselines(tiny, [], None, "s", "", 0)) == ["initial weights (random)", "raw pixels"]
    pretrained = ["initial weights", "untrained", "raw pixels"]
    assert names(baselines(tiny, [], "general", "s", "", 0)) == pretrained
    assert names(baselines(load_model_card("vit-b-32"), [], None, "s", "", 0)) == pretrained


def test_what_names_weights() -> None:
    named = {"kind": "open_clip", "name": "ViT-B-32"}
    assert not has_weights(card(named))
    assert has_weights(card(named | {"pretrained": "openai"}))
    assert has_weights(card({"kind": "open_clip", "name": "local-dir:x"}))
    assert has_weights(card({"kind": "timm", "name": "resnet10t", "pretrained": True}))
    assert not has_weights(card({"kind": "timm", "name": "resnet10t"}))
    bert = {"kind": "transformers", "config": {"model_type": "bert"}}
    assert not has_weights(card(named, bert))
    assert has_weights(card(named, bert | {"name": "folder"}))
    assert not has_weights(card(named, bert | {"name": "folder", "pretrained": False}))
    assert random_towers(card(named, bert | {"name": "folder"})) == ["image"]
    assert random_towers(card(named | {"pretrained": "openai"})) == ["text"]


def test_keys_tell_apart_what_gives_other_outputs() -> None:
    tiny = load_model_card("tiny")
    found = [
        *baselines(tiny, [], "general", "s", "", 0),
        *baselines(tiny, [], None, "s", "", 0),
        *baselines(tiny, [], "other", "s", "", 0)[:1],
        *baselines(tiny, ["corpus"], None, "s", "", 0)[:1],
        *baselines(tiny, [], None, "s", "", 1),
    ]
    keys = [encoder.key for encoder in found]
    assert keys[2] == keys[4]  # Raw pixels do not depend on the weights.
    assert len(set(keys)) == len(keys) - 1
    again = baselines(tiny, [], "general", "another", "", 0)
    assert [encoder.key for encoder in again] == keys[:3]


def test_without_weights_a_model_is_random() -> None:
    missing = card({"kind": "open_clip", "name": "RN50", "pretrained": "nowhere.pt"})
    small = missing.model_copy(update={"image_size": 32})
    first, second = (build_model(small, seed, weights=False).state_dict() for seed in (0, 0))
    assert all(torch.equal(first[name], second[name]) for name in first)
