"""Encoders that are evaluated as they are: the baselines of every table, and models that were trained elsewhere."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from benchmark.evaluation.encoder import Encoded, Encoder, ModelEncoder
from benchmark.models import DualEncoder, ModelCard, Tokenizer
from benchmark.models.card import TinyImage, TinyText, local_files
from benchmark.store import formats
from benchmark.store.hashing import digest

SIDE = 16
TEMPERATURE_SCALE = 1 / 0.07
"""Of a model that learned none: where CLIP's starts (Radford et al. 2021, section 2.5)."""


class Materials(Protocol):
    """What an encoder may be made of: the run's device, its tokenizer, and its model before any training."""

    device: torch.device

    def model(self, seed: int, weights: bool = True) -> DualEncoder:
        """weights: whether to load those that the model's card names; else all are random."""

    def tokenizer(self) -> Tokenizer: ...

    def blank_model(self) -> DualEncoder:
        """Return the model without weights."""


@dataclass(frozen=True)
class Given:
    """An encoder that is evaluated and not trained. content: everything that its outputs depend on; key: its hash.

    label: as a trained cell's, with ``role``, "baseline" or "model". images_only: whether it has no text side, so that
    only tasks that need nothing but labels apply.
    """

    content: dict[str, Any]
    label: dict[str, Any]
    images_only: bool
    build: Callable[[Materials], Encoder] = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        return str(self.label["method"])

    @property
    def seed(self) -> int:
        return int(self.label["seed"])

    @cached_property
    def key(self) -> str:
        return digest(self.content)


class RawPixels:
    """Images averaged down to 16 x 16 pixels: what colour and brightness at a place give away."""

    temperature_scale = TEMPERATURE_SCALE

    def __init__(self, like: DualEncoder | Encoder) -> None:
        """like: a model that sees the same images."""
        self.image_size, self.resizing = like.image_size, like.resizing
        self.fingerprint = digest(["raw-pixels", SIDE, self.image_size, asdict(self.resizing)])

    def encode_images(self, images: Tensor) -> Encoded:
        """Features [b, 3 * 16 * 16] in 0..1; embeddings the same at unit length."""
        features = adaptive_avg_pool2d(images.float() / 255, SIDE).flatten(1).numpy()
        length = np.linalg.norm(features, axis=1, keepdims=True)
        return Encoded(features, features / np.maximum(length, 1e-12))

    def encode_texts(self, texts: Sequence[str]) -> Encoded:
        raise NotImplementedError("raw pixels have no texts")


def baselines(
    model: ModelCard, tokenizer_data: Any, initial: str | None, label: dict[str, Any], seed: int
) -> list[Given]:
    """The baselines of a model and a seed; the first is the model with the weights that every method starts from. Where
    these are random, they are the untrained model too.

    tokenizer_data: fingerprints of what a tokenizer is trained on. initial: the cell whose weights the methods start
    from, if any. label: suite, model and variant.
    """
    card = model.model_dump(exclude={"title", "init"})
    pretrained = initial is not None or has_weights(model)
    found = []
    for weights in (True, False) if pretrained else (True,):
        content = {
            "format": [formats.TRAINING, formats.EVALUATION],
            "baseline": "initial" if weights else "untrained",
            "model": card,
            "model_files": local_files(model),
            "seed": seed,
            "tokenizer_data": tokenizer_data,
            "initial": initial if weights else None,
        }
        name = "untrained" if not weights else "initial weights" if pretrained else "initial weights (random)"
        found.append(Given(content, _labelled(label, name, seed), False, _builder(seed, weights, digest(content))))
    content = {
        "format": formats.EVALUATION,
        "baseline": "raw pixels",
        "seed": seed,
        "image": card["image"],
        "image_size": card["image_size"],
    }
    label = _labelled(label, "raw pixels", seed)
    found.append(Given(content, label, True, lambda materials: RawPixels(materials.blank_model())))
    return found


def _builder(seed: int, weights: bool, fingerprint: str) -> Callable[[Materials], Encoder]:
    def build(materials: Materials) -> Encoder:
        model = materials.model(seed, weights)
        return ModelEncoder(model, materials.tokenizer(), materials.device, fingerprint, TEMPERATURE_SCALE)

    return build


def _labelled(label: dict[str, Any], name: str, seed: int) -> dict[str, Any]:
    return label | {"method": name, "seed": seed, "role": "baseline"}


def has_weights(model: ModelCard) -> bool:
    """Whether a card names weights, rather than architectures alone."""
    for tower in (model.image, model.text):
        if isinstance(tower, TinyImage | TinyText):
            continue
        if str(tower.name).startswith(("hf-hub:", "local-dir:")) or (tower.name and tower.pretrained):
            return True
    return False
