"""A dual encoder in a folder of its own, in the layout of a model on the Hugging Face hub: it needs no other files."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.common.errors import BenchError
from benchmark.config.validation import validated
from benchmark.models.card import (
    LOCAL,
    HuggingFaceTokenizer,
    ModelCard,
    OpenClipImage,
    OpenClipText,
    TimmImage,
    TransformersText,
)
from benchmark.models.dual_encoder import DualEncoder, build_model
from benchmark.models.from_transformers import TransformersTextTower
from benchmark.models.tokenizer import CorpusBPE, HuggingFace, Tokenizer, build_tokenizer, read_backend
from benchmark.models.weights import load_weights, save_weights

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer"
MODEL_TYPE = "contrastive_benchmark"
"""What config.json says; transformers knows no such model."""


@dataclass(frozen=True)
class SavedModel:
    """A dual encoder with what it takes to use it. by_tokens: whether images and texts are compared by token."""

    card: ModelCard
    model: DualEncoder
    tokenizer: Tokenizer
    temperature_scale: float
    by_tokens: bool = False


def is_saved(folder: Path) -> bool:
    """Return whether a folder has the layout of save_model()."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") == MODEL_TYPE


def save_model(saved: SavedModel, folder: Path) -> list[Path]:
    """Write config.json, model.safetensors and the tokenizer; return the files. load_model() is the inverse.

    Raises ``BenchError`` for a model that its card does not describe: one that a method changed (adapters, prompts),
    and one whose architecture is defined by a local folder.
    """
    card = _portable(saved)
    _check_fits(card, saved.model)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": MODEL_TYPE,
        "model": card.content(),
        "temperature_scale": saved.temperature_scale,
        "by_tokens": saved.by_tokens,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_weights(saved.model, folder / WEIGHTS)
    tokenizer = saved.tokenizer
    if isinstance(tokenizer, CorpusBPE):
        (folder / TOKENIZER).mkdir(exist_ok=True)
        tokenizer._backend.save(str(folder / TOKENIZER / "tokenizer.json"))
    elif isinstance(card.tokenizer, HuggingFaceTokenizer):
        assert isinstance(tokenizer, HuggingFace)
        tokenizer._backend.save_pretrained(str(folder / TOKENIZER))
    written = (folder / TOKENIZER).glob("*") if (folder / TOKENIZER).is_dir() else ()
    return [folder / CONFIG, folder / WEIGHTS, *sorted(written)]


def load_model(folder: Path, device: str = "cpu", weights: bool = True, seed: int = 0) -> SavedModel:
    """Read a folder that save_model() wrote. weights: false for random ones of this seed.

    Raises ``BenchError`` if the folder is damaged or of a newer version.
    """
    where = folder / CONFIG
    config = json.loads(where.read_text(encoding="utf-8"))
    card: ModelCard = validated(ModelCard, config.get("model", {}), f"{where}: model")
    for key in ("temperature_scale", "by_tokens"):
        if key not in config:
            raise BenchError(f"{where}: '{key}' is missing; export the model again")
    model = build_model(card, seed, device, weights=False)
    if weights:
        load_weights(model, folder / WEIGHTS)
    tokenizer = _tokenizer(card, folder)
    model.check(tokenizer, str(folder))
    return SavedModel(card, model, tokenizer, float(config["temperature_scale"]), bool(config["by_tokens"]))


def _tokenizer(card: ModelCard, folder: Path) -> Tokenizer:
    spec = card.tokenizer
    if spec.kind == "corpus":
        return CorpusBPE(read_backend(folder / TOKENIZER / "tokenizer.json"), spec.context_length)
    if isinstance(spec, HuggingFaceTokenizer):
        card = card.model_copy(update={"tokenizer": spec.model_copy(update={"name": str(folder / spec.name)})})
    return build_tokenizer(card, None, folder)


def _portable(saved: SavedModel) -> ModelCard:
    """Change a card so that it names no file of this machine, and nothing that it needs besides the libraries."""
    card = saved.card
    blocks: dict[str, Any] = {}
    for part in ("image", "text", "tokenizer"):
        block = getattr(card, part)
        if str(getattr(block, "name", "")).startswith(LOCAL):
            raise BenchError(
                f"model '{card.name}': its {part} is defined by '{block.name}', a folder of this machine; export it "
                "with --format open_clip"
            )
        if isinstance(block, OpenClipImage | OpenClipText | TimmImage) and Path(str(block.pretrained)).suffix:
            block = block.model_copy(update={"pretrained": False if isinstance(block, TimmImage) else None})
        if isinstance(block, TransformersText):
            tower = saved.model.text
            assert isinstance(tower, TransformersTextTower)
            whole = json.loads(tower.model.config.to_json_string(use_diff=False))
            block = TransformersText(kind="transformers", pooling=block.pooling, config=whole)
        if isinstance(block, HuggingFaceTokenizer):
            block = block.model_copy(update={"name": TOKENIZER})
        blocks[part] = block
    return card.model_copy(update=blocks)


def _check_fits(card: ModelCard, model: DualEncoder) -> None:
    expected = {name: tensor.shape for name, tensor in build_model(card, 0, "meta").state_dict().items()}
    actual = {name: tensor.shape for name, tensor in model.state_dict().items()}
    different = sorted(name for name in {*expected, *actual} if expected.get(name) != actual.get(name))
    if different:
        raise BenchError(
            f"model '{card.name}': the method changed its architecture (tensor '{different[0]}'), which a folder of "
            "the model alone cannot hold"
        )
