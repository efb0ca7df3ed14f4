"""Export a trained cell as a folder that other programs load: of open_clip, or of this library."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.common.errors import BenchError, listed, unknown
from benchmark.execution.materials import load_trained
from benchmark.models.card import ModelCard, OpenClipImage, OpenClipText, OpenClipTokenizer
from benchmark.models.dual_encoder import DualEncoder
from benchmark.models.saved import SavedModel, save_model
from benchmark.models.weights import write_tensors
from benchmark.store.store import Store
from benchmark.training.checkpoint import LAST

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
"""The names that open_clip looks for in a folder."""
OPEN_CLIP, HUGGING_FACE, OWN = "open_clip", "huggingface", "contrastive-benchmark"
FORMATS = (OPEN_CLIP, HUGGING_FACE)


def find_cell(store: Store, name: str) -> str:
    """Return the key of a trained cell. name: its key, the start of one, or an arm or method that has a single cell.

    Raises ``BenchError`` if no cell or several match.
    """
    labels = {each.key: each.cell["label"] for each in store.finished_cells() if (each.folder / LAST).is_file()}
    labels = dict(sorted(labels.items()))
    if not labels:
        raise BenchError(f"no trained cell in {store.folder}; run bench run first")
    keys = [key for key, label in labels.items() if key.startswith(name) or label.get("arm") == name]
    keys = keys or [key for key, label in labels.items() if label["method"] == name]
    if len(keys) == 1:
        return keys[0]
    if not keys:
        names = {label[column] for label in labels.values() for column in ("arm", "method") if column in label}
        raise unknown("trained cell, arm or method", name, [*labels, *names])
    described = [f"{key} ({_described(labels[key])})" for key in keys]
    raise BenchError(f"'{name}' matches several trained cells; name one of them: {listed(described)}")


def _described(label: dict[str, Any]) -> str:
    names = ("arm", "method", "model", "variant", "pretraining")
    return ", ".join(str(label[name]) for name in names if label.get(name)) + f", {label['seed']}"


@dataclass(frozen=True)
class Exported:
    """A cell in a folder of its own. format: ``OPEN_CLIP``, or ``OWN`` for the layout that this library alone loads.

    checkpoint: the name of the file of the cell's weights.
    """

    key: str
    format: str
    files: list[Path]
    checkpoint: str


def export(store: Store, key: str, output: Path, wanted: str = OPEN_CLIP) -> Exported:
    """Write a cell's encoder into the folder ``output``.

    wanted: ``open_clip``; or ``huggingface``, which has open_clip's layout, too, where open_clip can load the model,
    and else that of models.saved. The checkpoint is the one that the tables show. The exported model gives the cell's
    embeddings and temperature.
    Raises ``BenchError`` if the format cannot hold the cell (open_clip's: where not all of towers and tokenizer are
    its), and if the folder exists and is not empty.
    """
    if wanted not in FORMATS:
        raise unknown("format", wanted, FORMATS)
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise BenchError(f"{output} exists already; pass another folder as --output")
    recipe = store.description(key)["content"]
    card = ModelCard.model_validate(recipe["model"])
    model = None
    try:
        model = OpenClipModel(card)
    except BenchError as error:
        if wanted == OPEN_CLIP:
            raise BenchError(f"{error}; or pass --format {HUGGING_FACE}") from error
    trained = load_trained(store, key, store.checkpoint(key))
    by_tokens = "late_interaction" in trained.method.abilities
    # open_clip does not compare by token.
    if model is None or (by_tokens and wanted == HUGGING_FACE):
        scale = float(trained.method.temperature_scale)
        saved = SavedModel(card, trained.method.encoder(), trained.tokenizer, scale, by_tokens)
        return Exported(key, OWN, save_model(saved, output), trained.checkpoint)
    model.load(trained.method.encoder().state_dict())
    tensors = model.tensors() | {"logit_scale": torch.tensor(math.log(float(trained.method.temperature_scale)))}
    output.mkdir(parents=True, exist_ok=True)
    files = [output / CONFIG, output / WEIGHTS]
    files[0].write_text(json.dumps(model.config, indent=2) + "\n", encoding="utf-8")
    write_tensors(files[1], tensors)
    return Exported(key, OPEN_CLIP, files, trained.checkpoint)


class OpenClipModel:
    """A model card's dual encoder, built from the parts of one open_clip model, and that model's configuration."""

    def __init__(self, card: ModelCard) -> None:
        from open_clip.model import CustomTextCLIP, set_model_preprocess_cfg

        from benchmark.models.from_open_clip import image_tower, text_tower

        image, text, tokenizer = card.image, card.text, card.tokenizer
        for side, part, kind in (
            ("image tower", image, OpenClipImage),
            ("text tower", text, OpenClipText),
            ("tokenizer", tokenizer, OpenClipTokenizer),
        ):
            if not isinstance(part, kind):
                raise BenchError(
                    f"model '{card.name}': its {side} is of kind {part.kind}, which open_clip cannot load; "
                    "train a model of open_clip towers, such as vit-b-16"
                )
        assert isinstance(image, OpenClipImage)
        assert isinstance(text, OpenClipText)
        (of_image, image_gelu), (of_text, text_gelu) = _architecture(image), _architecture(text)
        if image_gelu != text_gelu:
            raise BenchError(
                f"model '{card.name}': one tower uses QuickGELU and the other does not, which open_clip cannot load"
            )
        if tokenizer.name != text.name:  # type: ignore[union-attr]
            raise BenchError(f"model '{card.name}': its tokenizer is not that of its text tower, '{text.name}'")
        if "multimodal_cfg" in of_text or "multimodal_cfg" in of_image:
            raise BenchError(
                f"model '{card.name}': open_clip loads CoCa only with its decoder, which the cell does not have"
            )
        vision = dict(of_image["vision_cfg"])
        if card.image_size is not None:
            vision["image_size"] = card.image_size
        self._whole = CustomTextCLIP(card.embed_dim, vision, of_text["text_cfg"], quick_gelu=image_gelu)
        preprocessing = _preprocessing(image)
        set_model_preprocess_cfg(self._whole, preprocessing)
        self._projections = _own(self._whole.visual, "proj"), _own(self._whole.text, "text_projection")
        image_side, (image_projection, image_width) = image_tower(self._whole.visual, image.name)
        text_side, (text_projection, text_width) = text_tower(self._whole.text, text.pad_id)
        if {image_width, text_width} != {card.embed_dim}:
            raise BenchError(
                f"model '{card.name}': embed_dim is {card.embed_dim}, but its towers project to "
                f"{image_width} and {text_width}"
            )
        self.encoder = DualEncoder(image_side, text_side, image_projection, text_projection, card.embed_dim)
        self.config = {
            "model_cfg": {
                "embed_dim": card.embed_dim,
                "quick_gelu": image_gelu,
                "custom_text": True,
                "vision_cfg": vision,
                "text_cfg": of_text["text_cfg"],
            },
            "preprocess_cfg": {"size": [self.encoder.image_size] * 2, "mode": "RGB", **preprocessing},
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Load the state of a dual encoder. Raises ``BenchError`` if the method changed it (adapters, prompts)."""
        try:
            self.encoder.load_state_dict(state)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise BenchError(f"the cell's towers differ from open_clip's: {reason[:200]}") from error

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the open_clip model except the temperature."""
        visual, text = self._whole.visual, self._whole.text
        _put_back(visual, "proj", self._projections[0], self.encoder.image_projection)
        _put_back(text, "text_projection", self._projections[1], self.encoder.text_projection)
        if hasattr(visual, "attnpool"):
            visual.attnpool.c_proj = self.encoder.image_projection
        return {name: tensor.contiguous() for name, tensor in self._whole.state_dict().items()}


def _own(tower: nn.Module, name: str) -> Any:
    return getattr(tower, name, None)


def _put_back(tower: nn.Module, name: str, before: Any, projection: nn.Module) -> None:
    """Put a projection back into the tower that it was taken from; open_clip may hold it as a transposed matrix."""
    if isinstance(before, nn.Parameter):
        assert isinstance(projection, nn.Linear)
        setattr(tower, name, nn.Parameter(projection.weight.detach().T.contiguous()))
    elif before is not None:
        setattr(tower, name, projection)


def _architecture(spec: OpenClipImage | OpenClipText) -> tuple[dict[str, Any], bool]:
    """Return open_clip's configuration of a tower, and whether it uses QuickGELU with the card's weights."""
    import open_clip

    if spec.name.startswith("local-dir:"):
        path = Path(spec.name.removeprefix("local-dir:")) / CONFIG
        if not path.is_file():
            raise BenchError(f"open_clip model '{spec.name}': {path} no longer exists")
        config = json.loads(path.read_text(encoding="utf-8"))["model_cfg"]
    else:
        config = open_clip.get_model_config(spec.name)
        if config is None:
            raise unknown("open_clip architecture", spec.name, open_clip.list_models())
    tag = open_clip.get_pretrained_cfg(spec.name, spec.pretrained) if spec.pretrained else {}
    quick = spec.quick_gelu
    return config, bool((tag or config).get("quick_gelu", False)) if quick is None else quick


def _preprocessing(spec: OpenClipImage) -> dict[str, Any]:
    """Return how a tower's images are made square and normalised, as open_clip's configuration has it."""
    from benchmark.models.from_open_clip import open_clip_model, resizing

    with torch.device("meta"):
        config = open_clip_model(spec.name, spec.pretrained, spec.quick_gelu, None, weights=False).visual.preprocess_cfg
    square = resizing(config)
    return {
        "mean": list(config["mean"]),
        "std": list(config["std"]),
        "interpolation": square.interpolation,
        "resize_mode": square.mode,
        "fill_color": square.fill[0],
    }
