"""Model cards: YAML files that say what a dual encoder is made of."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from benchmark.common.errors import BenchError
from benchmark.config.validation import Name, validated
from benchmark.config.yaml_files import config_names, find_config, is_there, published_models_folder, read_yaml
from benchmark.models.folders import file_hashes
from benchmark.models.packages import located
from benchmark.store.hashing import file_digest

LOCAL = "local-dir:"
"""The prefix of an open_clip name that refers to a local folder."""
Rate = Annotated[float, Field(ge=0, lt=1)]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OpenClipImage(_Block):
    """The image tower of an open_clip architecture."""

    kind: Literal["open_clip"]
    name: str
    """An architecture in ``open_clip.list_models()``; or ``hf-hub:ORG/REPOSITORY`` or ``local-dir:FOLDER``, which have
    weights."""
    pretrained: str | None = None
    """A tag of open_clip (``openai``), a local state dict (.safetensors, .pt, .bin), or null for random weights."""
    quick_gelu: bool | None = None
    """Whether the activation is QuickGELU. Null: as the tag's configuration says, else as the architecture does."""
    patch_dropout: Rate = 0.0
    """Share of image tokens dropped during training (FLIP)."""


class TimmImage(_Block):
    """A timm image model without its classifier."""

    kind: Literal["timm"]
    name: str
    """An architecture in ``timm.list_models()``; or ``local-dir:FOLDER`` of a model that timm saved, with weights."""
    pretrained: bool | str = False
    """True for timm's default weights of the name, a local checkpoint or one of an installed package
    (``package:NAME/FILE``), or false for random weights."""
    patch_dropout: Rate = 0.0
    drop_path: Rate = 0.0
    """Rate of stochastic depth during training."""
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
    """The token that texts are padded with, for architectures that attend to padding (SigLIP: 1)."""


class TransformersText(_Block):
    """A text model of transformers, with pooling."""

    kind: Literal["transformers"]
    name: str | None = None
    """A hub name, a local folder or one of an installed package (``package:NAME/FOLDER``); null if ``config`` gives
    everything (including ``model_type``)."""
    pretrained: bool = True
    """False for the architecture of ``name`` with random weights."""
    pooling: Literal["cls", "mean", "eos"] = "cls"
    """First token, mean over tokens, or last token; padding is ignored."""
    config: dict[str, Any] = {}
    """Changes to the model's configuration (``num_hidden_layers: 6``)."""


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
    """The most tokens of a text, with the end token; longer texts are truncated. Null: that of the architecture."""


class HuggingFaceTokenizer(_Block):
    """A tokenizer of transformers."""

    kind: Literal["huggingface"]
    name: str
    """A hub name, a local folder or one of an installed package (``package:NAME/FOLDER``)."""
    context_length: int = Field(default=256, gt=2)


class CorpusTokenizer(_Block):
    """A byte-level BPE trained on the training texts of datasets."""

    kind: Literal["corpus"]
    datasets: list[str] = []
    """Datasets whose training texts it is trained on; empty for those that the run pretrains on."""
    vocab_size: int = Field(default=1024, ge=300)
    context_length: int = Field(default=64, gt=2)


class LanguageModel(_Block):
    """A language model of the text tower's architecture, trained to predict the next token."""

    datasets: list[str] = Field(min_length=1)
    """Datasets whose training texts it is trained on."""
    steps: int = Field(default=300, gt=0)
    batch_size: int = Field(default=32, gt=0)
    """Texts in a step."""
    learning_rate: float = Field(default=5e-3, gt=0)


class Init(_Block):
    """The initial weights of a training, which the harness makes and caches.

    The whole model is pretrained on pairs of a general domain. For methods that keep the text tower as a frozen
    language model, the text tower is trained as one.
    """

    datasets: list[str] = []
    method: str | None = None
    training: dict[str, Any] = {}
    """Like the training block of a suite, with a budget. The training settings of the run do not apply."""
    language_model: LanguageModel | None = None

    @model_validator(mode="after")
    def _pairs_and_method(self) -> "Init":
        if bool(self.datasets) != bool(self.method):
            raise ValueError("datasets and method go together")
        return self


class ModelCard(_Block):
    """A dual encoder: configs/models/NAME.yaml, or the user's own file."""

    name: Name
    title: str = ""
    embed_dim: int = Field(gt=0)
    """Dimensions of the joint space."""
    image_size: int | None = Field(default=None, gt=0)
    """Pixels a side; null for that of the image tower."""
    image: Annotated[OpenClipImage | TimmImage | TinyImage, Field(discriminator="kind")]
    text: Annotated[OpenClipText | TransformersText | TinyText, Field(discriminator="kind")]
    tokenizer: Annotated[OpenClipTokenizer | HuggingFaceTokenizer | CorpusTokenizer, Field(discriminator="kind")]
    init: Init | None = None
    """Null for the weights that the blocks of the towers name."""
    strict: bool = True
    """False to go on with weights that lack tensors or have others: what is missing is random, and the rows say so."""
    sha256: dict[str, str] = {}
    """The expected SHA-256 of files that towers and tokenizer are read from, by the name of the file."""
    licence: str = ""
    """Of the weights that it names."""

    def content(self) -> dict[str, Any]:
        """What the model's outputs depend on, except its initial weights, which have their own key.

        Whether it is strict, and which files it expects, only decide whether there are outputs.
        """
        content: dict[str, Any] = self.model_dump(exclude={"title", "init", "strict", "sha256", "licence"})
        return content


def local_files(card: ModelCard) -> dict[str, str]:
    """The hashes of the files on this machine that a card names: weights, tokenizers, and folders with both.

    They are part of a key, because a file may change under its name. Files of libraries and of the hub count by name.
    Raises ``BenchError`` for files of packages that are not installed, and for files that differ from ``card.sha256``.
    """
    hashes: dict[str, str] = {}
    for part in ("image", "text", "tokenizer"):
        block = located(getattr(card, part))
        for key in ("name", "pretrained"):
            value = getattr(block, key, None)
            is_path = key == "pretrained" or block.kind in {"transformers", "huggingface"}
            if not isinstance(value, str) or not (is_path or value.startswith(LOCAL)):
                continue
            path = Path(value.removeprefix(LOCAL))
            if path.is_dir():
                hashes |= {f"{part}.{key}: {name}": value for name, value in file_hashes(path).items()}
            elif path.is_file():
                hashes[f"{part}.{key}: {path.name}"] = file_digest(path)
        for key, path in _paths(getattr(block, "config", {}), f"{part}.config"):
            hashes[key] = file_digest(path)
    _check(card, hashes)
    return hashes


def _check(card: ModelCard, hashes: dict[str, str]) -> None:
    for name, expected in card.sha256.items():
        of_name = {key: value for key, value in hashes.items() if key.partition(": ")[2] == name}
        if not of_name:
            raise BenchError(f"model '{card.name}': sha256 names '{name}', which is not among its files")
        for key, value in of_name.items():
            if value != expected.lower():
                raise BenchError(
                    f"model '{card.name}': {key} is damaged or of another version: its SHA-256 is {value[:12]}..., "
                    f"expected {expected[:12]}..."
                )


def _paths(config: object, key: str) -> Iterator[tuple[str, Path]]:
    """Yield the files that arguments of a library name (timm's ``checkpoint_path``), by their keys."""
    if isinstance(config, dict):
        for name, value in config.items():
            yield from _paths(value, f"{key}.{name}")
    elif isinstance(config, str) and Path(config).suffix and Path(config).is_file():
        yield key, Path(config)


def model_names() -> list[str]:
    """The names of the shipped cards."""
    return config_names("model")


def load_model_card(name_or_path: str | Path) -> ModelCard:
    """Load a shipped card by name, or any card by the path of its YAML file.

    Weights and folders that a card names are looked up in its folder, then in the current one.
    Raises ``BenchError`` for an unknown name, a missing file, and an invalid card (naming the key).
    """
    if is_there(published_models_folder() / f"{name_or_path}.yaml"):
        raise BenchError(
            f"model '{name_or_path}' is a published model, for bench eval --model {name_or_path}; to train, name a "
            "model card (bench list models)"
        )
    path = find_config("model", str(name_or_path))
    fields = read_yaml(path)
    for block in fields.values():
        if isinstance(block, dict):
            _beside(path.parent, block)
    card: ModelCard = validated(ModelCard, {"name": path.stem, **fields}, str(path))
    return card


def _beside(folder: Path, block: dict[str, Any]) -> None:
    """Replace the names of files that exist in the card's folder by their paths."""
    keys = ("pretrained", "name") if block.get("kind") in ["transformers", "huggingface"] else ("pretrained",)
    for key in keys:
        value = block.get(key)
        if isinstance(value, str) and is_there(folder / value):
            block[key] = str((folder / value).resolve())
    name = str(block.get("name", ""))
    if name.startswith(LOCAL) and is_there(folder / name.removeprefix(LOCAL)):
        block["name"] = f"{LOCAL}{(folder / name.removeprefix(LOCAL)).resolve()}"
