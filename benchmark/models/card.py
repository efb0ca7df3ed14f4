"""Model cards: what a dual encoder is made of, as YAML."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from benchmark.common.errors import BenchError, shortened, unknown
from benchmark.store.hashing import file_digest

LOCAL = "local-dir:"
Rate = Annotated[float, Field(ge=0, lt=1)]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OpenClipImage(_Block):
    """The image tower of an open_clip architecture."""

    kind: Literal["open_clip"]
    name: str
    """Architecture, as ``open_clip.list_models()`` has it; or ``hf-hub:ORG/REPOSITORY`` or ``local-dir:FOLDER``, which
    bring their weights."""
    pretrained: str | None = None
    """A tag of open_clip (``openai``), a local state dict (.safetensors, .pt, .bin), or null: random weights."""
    quick_gelu: bool | None = None
    """Activation. Null: what the tag's own configuration says, else the architecture's."""
    patch_dropout: Rate = 0.0
    """Share of image tokens left out while training (FLIP)."""


class TimmImage(_Block):
    """A timm image model without its classifier."""

    kind: Literal["timm"]
    name: str
    pretrained: bool | str = False
    """True: timm's default weights for the name; a local checkpoint; or false: random weights."""
    patch_dropout: Rate = 0.0
    drop_path: Rate = 0.0
    """Stochastic depth while training."""
    config: dict[str, Any] = {}
    """Further arguments of ``timm.create_model``."""


class TinyImage(_Block):
    """A convolutional stem and a small vision transformer, for two CPU cores."""

    kind: Literal["tiny"]
    width: int = 128
    layers: int = 2
    heads: int = 4
    patch_dropout: Rate = 0.0
    dropout: Rate = 0.0


class OpenClipText(_Block):
    """The text tower of an open_clip architecture."""

    kind: Literal["open_clip"]
    name: str
    pretrained: str | None = None
    quick_gelu: bool | None = None
    pad_id: int = Field(default=0, ge=0)
    """What texts are filled up with, for the architectures that attend to padding (SigLIP: 1)."""


class TransformersText(_Block):
    """A text model of transformers, under a pooling."""

    kind: Literal["transformers"]
    name: str | None = None
    """A hub name or a local folder; null when ``config`` says everything (``model_type`` included)."""
    pretrained: bool = True
    """False: the architecture of ``name`` with random weights."""
    pooling: Literal["cls", "mean", "eos"] = "cls"
    """First token, mean over tokens, or last token; padding never counts."""
    config: dict[str, Any] = {}
    """Overrides of the model's configuration (``num_hidden_layers: 6``)."""


class TinyText(_Block):
    """A small causal transformer, for two CPU cores."""

    kind: Literal["tiny"]
    width: int = 128
    layers: int = 2
    heads: int = 4
    dropout: Rate = 0.0


class OpenClipTokenizer(_Block):
    """The tokenizer of an open_clip architecture."""

    kind: Literal["open_clip"]
    name: str
    context_length: int | None = None
    """Tokens a text is cut to, the end token included. Null: the architecture's own."""


class HuggingFaceTokenizer(_Block):
    """A tokenizer of transformers."""

    kind: Literal["huggingface"]
    name: str
    """A hub name or a local folder."""
    context_length: int = Field(default=256, gt=2)


class CorpusTokenizer(_Block):
    """A byte-level BPE trained on the training texts of datasets."""

    kind: Literal["corpus"]
    datasets: list[str] = []
    """Datasets whose training texts it is trained on; empty: those that the run pretrains on."""
    vocab_size: int = Field(default=1024, ge=300)
    context_length: int = Field(default=64, gt=2)


class LanguageModel(_Block):
    """A language model of the text tower's architecture, trained to tell the next token."""

    datasets: list[str] = Field(min_length=1)
    """Their training texts are what it reads."""
    steps: int = Field(default=300, gt=0)
    batch_size: int = Field(default=32, gt=0)
    """Texts a step."""
    learning_rate: float = Field(default=5e-3, gt=0)


class Init(_Block):
    """What a training starts from, made by the harness and cached: the whole model, pretrained on pairs of a general
    domain; and the text tower of methods that keep it as a frozen language model.
    """

    datasets: list[str] = []
    method: str | None = None
    training: dict[str, Any] = {}
    """As a suite's training block, with a budget. A run's own training settings have no part in it."""
    language_model: LanguageModel | None = None

    @model_validator(mode="after")
    def _pairs_and_method(self) -> "Init":
        if bool(self.datasets) != bool(self.method):
            raise ValueError("datasets and method go together")
        return self


class ModelCard(_Block):
    """A dual encoder: configs/models/NAME.yaml, or a file of the user's."""

    name: str
    title: str = ""
    embed_dim: int = Field(gt=0)
    """Width of the joint space."""
    image_size: int | None = Field(default=None, gt=0)
    """Pixels a side; null: the image tower's own."""
    image: Annotated[OpenClipImage | TimmImage | TinyImage, Field(discriminator="kind")]
    text: Annotated[OpenClipText | TransformersText | TinyText, Field(discriminator="kind")]
    tokenizer: Annotated[OpenClipTokenizer | HuggingFaceTokenizer | CorpusTokenizer, Field(discriminator="kind")]
    init: Init | None = None
    """Null: the weights that the towers' own blocks say."""


def local_files(card: ModelCard) -> dict[str, str]:
    """Hash the files on this machine that a card names: weights, tokenizers, folders with both.

    They are part of a key, for a file may change under its name. What libraries and the hub have goes by name alone.
    """
    hashes: dict[str, str] = {}
    for part in ("image", "text", "tokenizer"):
        block = getattr(card, part)
        for key in ("name", "pretrained"):
            value = getattr(block, key, None)
            is_path = key == "pretrained" or block.kind in {"transformers", "huggingface"}
            if not isinstance(value, str) or not (is_path or value.startswith(LOCAL)):
                continue
            path = Path(value.removeprefix(LOCAL))
            files = sorted(path.iterdir()) if path.is_dir() else [path]
            hashes |= {f"{part}.{key}: {file.name}": file_digest(file) for file in files if file.is_file()}
    return hashes


def _folder() -> Path:
    package = Path(__file__).resolve().parents[1]
    installed = package / "configs" / "models"
    return installed if installed.is_dir() else package.parent / "configs" / "models"


def model_names() -> list[str]:
    """The names of the shipped cards."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def load_model_card(name_or_path: str | Path) -> ModelCard:
    """A shipped card by name, or any by path (a name that ends in .yaml or .yml, or has a folder). Weights and folders
    that a card names are looked for beside it, then from the current folder.

    Raises BenchError for an unknown name, a missing file, and a card that is not valid (naming the key).
    """
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"} and len(path.parts) == 1:
        path = _folder() / f"{name_or_path}.yaml"
        if not path.is_file():
            raise unknown("model", str(name_or_path), model_names(), "bench list models")
    if not path.is_file():
        raise BenchError(f"model card {path}: no such file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise BenchError(f"model card {path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise BenchError(f"model card {path}: expected keys and values, found {type(content).__name__}")
    for block in content.values():
        if isinstance(block, dict):
            _beside(path.parent, block)
    try:
        return ModelCard.model_validate({"name": path.stem, **content})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "card"
        raise BenchError(f"model card {path}: {key}: {first['msg']} (found {shortened(first['input'])})") from error


def _beside(folder: Path, block: dict[str, Any]) -> None:
    keys = ("pretrained", "name") if block.get("kind") in {"transformers", "huggingface"} else ("pretrained",)
    for key in keys:
        value = block.get(key)
        if isinstance(value, str) and (folder / value).exists():
            block[key] = str((folder / value).resolve())
    name = str(block.get("name", ""))
    if name.startswith(LOCAL) and (folder / name.removeprefix(LOCAL)).is_dir():
        block["name"] = f"{LOCAL}{(folder / name.removeprefix(LOCAL)).resolve()}"
