"""Encoders that are evaluated without training: the baselines of every table, and external models."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from benchmark.evaluation.encoder import Encoded, Encoder, ModelEncoder
from benchmark.models import DualEncoder, ModelCard, Tokenizer
from benchmark.models.card import TinyImage, TinyText, local_files
from benchmark.store import formats
from benchmark.store.hashing import digest
from benchmark.store.rows import Label

SIDE = 16
"""Pixels a side that raw pixels are averaged down to."""
TEMPERATURE_SCALE = 1 / 0.07
"""The scale of a model that learned none: CLIP's initial one (Radford et al. 2021, section 2.5)."""


class Materials(Protocol):
    """What a fixed encoder can be built from: the run's device, tokenizer and model before training."""

    device: torch.device

    def model(self, seed: int, weights: bool = True) -> DualEncoder:
        """Build the model before training. weights: whether to load those that its card names; else all are random."""

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer of the run."""

    def blank_model(self) -> DualEncoder:
        """Return the model without weights."""


@dataclass(frozen=True)
class FixedEncoder:
    """An encoder that is evaluated without training. content: everything that its outputs depend on; key: its hash.

    label: as of a trained cell, with its role. images_only: whether it has no text side, so that only tasks that need
    nothing but labels apply.
    """

    content: dict[str, Any]
    label: Label
    images_only: bool
    build: Callable[[Materials], Encoder] = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """The name in the tables."""
        return self.label["method"]

    @property
    def seed(self) -> int:
        """The seed of random weights and of the tasks' own draws."""
        return self.label["seed"]

    @cached_property
    def key(self) -> str:
        """The hash of the content, under which the store keeps its evaluations."""
        return digest(self.content)


class RawPixels:
    """Images averaged down to 16 x 16 pixels: measures what local colour and brightness reveal."""

    temperature_scale = TEMPERATURE_SCALE

    def __init__(self, like: DualEncoder | Encoder) -> None:
        """Take image size and resizing from ``like``, a model that is given the same images."""
        self.image_size, self.resizing = like.image_size, like.resizing
        self.fingerprint = digest(["raw-pixels", SIDE, self.image_size, asdict(self.resizing)])

    def encode_images(self, images: Tensor) -> Encoded:
        """Encode images uint8 [b, 3, H, W]: features [b, 3 * 16 * 16] in 0..1; embeddings are these at unit length."""
        features = adaptive_avg_pool2d(images.float() / 255, SIDE).flatten(1).numpy()
        length = np.linalg.norm(features, axis=1, keepdims=True)
        return Encoded(features, features / np.maximum(length, 1e-12))

    def encode_texts(self, texts: Sequence[str]) -> Encoded:
        """Raise: there is no text side."""
        raise NotImplementedError("raw pixels have no texts")


def baselines(
    model: ModelCard, tokenizer_data: Any, initial: str | None, suite: str, variant: str, seed: int
) -> list[FixedEncoder]:
    """Make the baselines of a model and a seed, that with the weights that every method starts from first.

    Where these are random, they are the untrained model too. tokenizer_data: fingerprints of what a tokenizer is
    trained on. initial: the cell whose weights the methods start from, if any. suite, variant: of the label.
    """

    def labelled(name: str) -> Label:
        role: Literal["baseline"] = "baseline"
        return {"suite": suite, "model": model.name, "variant": variant, "method": name, "seed": seed, "role": role}

    card = model.content()
    pretrained = initial is not None or has_weights(model)
    encoders = []
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
        encoders.append(FixedEncoder(content, labelled(name), False, _builder(seed, weights, digest(content))))
    content = {
        "format": formats.EVALUATION,
        "baseline": "raw pixels",
        "seed": seed,
        "image": card["image"],
        "image_size": card["image_size"],
    }
    raw = FixedEncoder(content, labelled("raw pixels"), True, lambda materials: RawPixels(materials.blank_model()))
    return [*encoders, raw]


def _builder(seed: int, weights: bool, fingerprint: str) -> Callable[[Materials], Encoder]:
    def build(materials: Materials) -> Encoder:
        model = materials.model(seed, weights)
        return ModelEncoder(model, materials.tokenizer(), materials.device, fingerprint, TEMPERATURE_SCALE)

    return build


def has_weights(model: ModelCard) -> bool:
    """Return whether a card names weights, not only architectures."""
    return len(random_towers(model)) < 2


def random_towers(model: ModelCard) -> list[str]:
    """List the towers for which a card names no weights: "image", "text"."""

    def is_random(tower: Any) -> bool:
        if isinstance(tower, TinyImage | TinyText):
            return True
        return not (str(tower.name).startswith(("hf-hub:", "local-dir:")) or (tower.name and tower.pretrained))

    return [name for name in ("image", "text") if is_random(getattr(model, name))]
