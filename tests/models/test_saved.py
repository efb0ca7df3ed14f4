"""A model in a folder of its own gives the same embeddings wherever the folder lies, with no other file."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.common.errors import BenchError
from benchmark.evaluation.encoder import ModelEncoder
from benchmark.evaluation.external import external_model
from benchmark.models import ModelCard, Tokenizer, build_model, build_tokenizer
from benchmark.models.saved import SavedModel, is_saved, load_model, save_model
from benchmark.models.tower import LanguageModelTower
from tests.models.make import CARDS, SENTENCE, make_card, save_hugging_face, transformers_card

TEXTS = ["a chest radiograph", "no acute opacity <end> in the lung", ""]


def saved_model(card: ModelCard, cache: Path) -> SavedModel:
    torch.manual_seed(0)
    model = build_model(card, 0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return SavedModel(card, model, tokenizer_of(card, cache), 12.5)


def tokenizer_of(card: ModelCard, cache: Path) -> Tokenizer:
    return build_tokenizer(card, lambda: [SENTENCE], cache)


def outputs(encoder: ModelEncoder) -> list[np.ndarray]:
    size = encoder.image_size
    pixels = torch.randint(0, 256, (2, 3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    images, texts = encoder.encode_images(pixels), encoder.encode_texts(TEXTS)
    return [images.features, images.embeddings, texts.features, texts.embeddings]


@pytest.mark.parametrize(
    "name", ["tiny", "vit_tiny_patch16_224", "convnext_atto", "bert", "roberta", "gpt2", "llama", "words"]
)
def test_the_embeddings_are_the_same_after_a_round_trip(name: str, tmp_path: Path) -> None:
    if name == "words":
        save_hugging_face(tmp_path / "words", ends=True)
        tokenizer = {"kind": "huggingface", "name": str(tmp_path / "words"), "context_length": 12}
        card = transformers_card("bert").model_copy(update={})
        card = ModelCard.model_validate(card.model_dump() | {"tokenizer": tokenizer})
    else:
        # The small text models know 64 words, and the smallest vocabulary of a corpus has 300.
        card = CARDS[name]()
        if card.text.kind == "transformers":
            text = card.text.model_copy(update={"config": {**card.text.config, "vocab_size": 300}})
            card = card.model_copy(update={"text": text})
    saved = saved_model(card, tmp_path / "cache")
    files = save_model(saved, tmp_path / "written")
    assert all(file.is_file() for file in files)
    assert {file.name for file in files} >= {"config.json", "model.safetensors"}
    (tmp_path / "written").rename(tmp_path / "moved")
    for folder in (tmp_path / "cache", tmp_path / "words"):
        shutil.rmtree(folder, ignore_errors=True)
    assert is_saved(tmp_path / "moved")
    before = ModelEncoder(saved.model, saved.tokenizer, "cpu", "f", saved.temperature_scale)
    loaded = load_model(tmp_path / "moved")
    assert loaded.temperature_scale == 12.5
    after = ModelEncoder(loaded.model, loaded.tokenizer, "cpu", "f", loaded.temperature_scale)
    assert after.resizing == before.resizing
    assert loaded.tokenizer(TEXTS) == saved.tokenizer(TEXTS)
    for one, other in zip(outputs(before), outputs(after), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_harness_evaluates_the_folder(tmp_path: Path) -> None:
    saved = saved_model(make_card(), tmp_path / "cache")
    save_model(SavedModel(saved.card, saved.model, saved.tokenizer, 12.5, by_tokens=True), tmp_path / "out")
    other = external_model(f"hf:{tmp_path / 'out'}")
    encoder = other.build(torch.device("cpu"), "f", None)
    assert isinstance(encoder, ModelEncoder)
    assert encoder.by_tokens
    assert encoder.temperature_scale == 12.5
    before = ModelEncoder(saved.model, saved.tokenizer, "cpu", "f", 12.5)
    for one, here in zip(outputs(before), outputs(encoder), strict=True):
        np.testing.assert_array_equal(one, here)
    untrained = other.build(torch.device("cpu"), "f", 1)
    assert isinstance(untrained, ModelEncoder)
    assert not np.allclose(outputs(before)[1], outputs(untrained)[1])
    # What the model card says is not part of the key, and the tokenizer is.
    (tmp_path / "out" / "README.md").write_text("x")
    assert external_model(f"hf:{tmp_path / 'out'}").content == other.content
    assert set(other.content["exported"]) == {"config.json", "model.safetensors", "tokenizer/tokenizer.json"}


def test_what_a_folder_cannot_hold_is_refused(tmp_path: Path) -> None:
    saved = saved_model(make_card(), tmp_path / "cache")
    assert isinstance(saved.model.text, LanguageModelTower)
    saved.model.text.add_prefix(2)
    with pytest.raises(BenchError, match="the method changed its architecture"):
        save_model(saved, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text("{")
    assert not is_saved(tmp_path / "bad")
    assert not is_saved(tmp_path)
