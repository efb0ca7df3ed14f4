"""The dual encoder: an image tower and a text tower, each with a projection into a joint space."""

from contextlib import nullcontext
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.common.errors import BenchError
from benchmark.common.seeding import torch_seed
from benchmark.models.card import (
    CorpusTokenizer,
    ModelCard,
    TimmImage,
    TinyImage,
    TinyText,
    TransformersText,
    local_files,
)
from benchmark.models.meta import ShapesAlone
from benchmark.models.packages import located
from benchmark.models.tiny import TinyImageTower, TinyTextTower
from benchmark.models.tokenizer import Tokenizer
from benchmark.models.tower import Group, ImageTower, LanguageModelTower, TextTower


class DualEncoder(nn.Module):
    """An image tower, a text tower, and their projections into a joint space.

    Images are x: float [b, 3, image_size, image_size] in 0..1. Texts are tokens: int64 [b, L], padded on the right, and
    mask: bool [b, L], True on tokens. D is embed_dim; Wi and Wt are the widths of the towers.
    """

    def __init__(
        self,
        image: ImageTower,
        text: TextTower,
        image_projection: nn.Module,
        text_projection: nn.Module,
        embed_dim: int,
    ) -> None:
        super().__init__()
        self.image = image
        self.text = text
        self.image_projection = image_projection
        self.text_projection = text_projection
        self.embed_dim = embed_dim
        self.image_size = image.image_size
        self.resizing = image.resizing

    def encode_image(self, x: Tensor) -> Tensor:
        """Embed images in the joint space: [b, D], unit length."""
        return self.project_image(self.image_features(x))

    def encode_text(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Embed texts in the joint space: [b, D], unit length."""
        return self.project_text(self.text_features(tokens, mask))

    def image_features(self, x: Tensor) -> Tensor:
        """Features of images before the projection, [b, Wi]."""
        return cast(Tensor, self.image(x).features)

    def text_features(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Features of texts before the projection, [b, Wt]."""
        return cast(Tensor, self.text(tokens, mask).features)

    def image_tokens(self, x: Tensor) -> Tensor:
        """Image tokens before the projection, [b, T, Wi]. Raises ``BenchError`` if the tower has none."""
        tokens = self.image(x).tokens
        if tokens is None:
            raise BenchError(f"the image tower {type(self.image).__name__} has no tokens, only pooled features")
        return cast(Tensor, tokens)

    def text_tokens(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Text tokens before the projection, [b, L, Wt]; those of padding are meaningless.

        Raises ``BenchError`` if the tower has none.
        """
        out = self.text(tokens, mask).tokens
        if out is None:
            raise BenchError(f"the text tower {type(self.text).__name__} has no tokens, only pooled features")
        return cast(Tensor, out)

    def project_image(self, features: Tensor) -> Tensor:
        """Project image features [..., Wi] to [..., D], unit length."""
        return F.normalize(self.image_projection(features), dim=-1)

    def project_text(self, features: Tensor) -> Tensor:
        """Project text features [..., Wt] to [..., D], unit length."""
        return F.normalize(self.text_projection(features), dim=-1)

    @property
    def left_random(self) -> str:
        """What the weights of its towers left random, in a line; "" for nothing."""
        return "; ".join(dict.fromkeys(filter(None, (self.image.left_random, self.text.left_random))))

    @property
    def has_image_tokens(self) -> bool:
        """Whether image_tokens() works."""
        return self.image.has_tokens

    @property
    def has_text_tokens(self) -> bool:
        """Whether text_tokens() works."""
        return self.text.has_tokens

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute activations in the backward pass, or not: it saves memory and takes a third more time."""
        self.image.set_gradient_checkpointing(enabled)
        self.text.set_gradient_checkpointing(enabled)

    def unfreeze(self) -> None:
        """Let all parameters be trained.

        In a text tower with adapters or virtual tokens, only the parameters that are trained already stay so.
        """
        adapted = isinstance(self.text, LanguageModelTower) and self.text.adapted
        for part in (self.image, self.image_projection, self.text_projection, *(() if adapted else (self.text,))):
            part.requires_grad_(True)

    def layer_groups(self, side: Literal["image", "text"]) -> list[Group]:
        """The parts of a tower from input to output, with its projection as the last.

        Each parameter is in exactly one group. ViT-B/16 has 14 groups, as Roy 2024 counts them.
        """
        tower: ImageTower | TextTower = self.image if side == "image" else self.text
        projection = self.image_projection if side == "image" else self.text_projection
        return [*tower.layer_groups(), *([[projection]] if list(projection.parameters()) else [])]

    def check(self, tokenizer: Tokenizer, name: str = "") -> None:
        """Raise ``BenchError`` if the text tower cannot read the tokens of a tokenizer. name: of the model, to tell."""
        where = f"model '{name}': " if name else ""
        for key, value, limit in (
            ("vocab_size", tokenizer.vocab_size, self.text.vocab_size),
            ("context_length", tokenizer.context_length, self.text.context_length),
        ):
            if value > limit:
                raise BenchError(
                    f"{where}tokenizer.{key} is {value}, but the text tower reads at most {limit}: name the "
                    "model's own tokenizer"
                )
        if tokenizer.pad_id >= self.text.vocab_size:
            raise BenchError(
                f"{where}the tokenizer pads with {tokenizer.pad_id}, but the text tower knows "
                f"{self.text.vocab_size} tokens: name the model's own tokenizer"
            )
        if self.text.pad_id not in (None, tokenizer.pad_id):
            raise BenchError(
                f"{where}text.pad_id is {self.text.pad_id}, but the tokenizer pads with {tokenizer.pad_id}"
            )

    def parameter_counts(self) -> dict[str, int]:
        """Count the parameters of each tower with its projection, and of both, and how many of them are trained.

        Keys: image, text, total, image_trainable, text_trainable, total_trainable.
        """
        sides = {"image": (self.image, self.image_projection), "text": (self.text, self.text_projection)}
        counts = {}
        for side, modules in sides.items():
            parameters = [p for m in modules for p in m.parameters()]
            counts[side] = sum(p.numel() for p in parameters)
            counts[f"{side}_trainable"] = sum(p.numel() for p in parameters if p.requires_grad)
        counts["total"] = counts["image"] + counts["text"]
        counts["total_trainable"] = counts["image_trainable"] + counts["text_trainable"]
        return counts


def build_model(card: ModelCard, seed: int, device: str = "cpu", weights: bool = True) -> DualEncoder:
    """Build the dual encoder of a card, in training mode and float32.

    The same card and seed give the same weights; torch's global random state does not change. On device "meta" the
    parameters only have shapes, and neither weights nor network are needed (except for the configuration of an
    architecture that is only described on the hub).

    weights: false for random weights, whatever the card says. Weights that are not whole are refused, unless the card
    is not ``strict``: then ``left_random`` of the model says which tensors are random.
    A tower's own projection is kept with its weights if it has ``embed_dim`` outputs; otherwise a new one is drawn.
    Raises ``BenchError`` for anything that the card names and does not exist, and for weights that do not fit.
    """
    weights = weights and device != "meta"
    if weights and card.sha256:
        local_files(card)  # compares them
    with torch_seed(seed), torch.device(device), ShapesAlone() if device == "meta" else nullcontext():
        image, image_own = _image(card, weights)
        text, text_own = _text(card, weights)
        image_projection = _projection(image_own, image.width, card.embed_dim)
        text_projection = _projection(text_own, text.width, card.embed_dim)
    return DualEncoder(image, text, image_projection, text_projection, card.embed_dim).float().train()


Own = tuple[nn.Module, int] | None
"""A tower's own projection, and the number of its outputs."""


def _image(card: ModelCard, weights: bool) -> tuple[ImageTower, Own]:
    spec = located(card.image) if weights else card.image
    if isinstance(spec, TinyImage):
        return TinyImageTower(spec, card.image_size), None
    if isinstance(spec, TimmImage):
        from benchmark.models.from_timm import timm_image

        return timm_image(spec, card.image_size, weights, card.strict), None
    from benchmark.models.from_open_clip import open_clip_image

    return open_clip_image(spec, card.image_size, weights, card.strict)


def _text(card: ModelCard, weights: bool) -> tuple[TextTower, Own]:
    spec = located(card.text) if weights else card.text
    if isinstance(spec, TinyText):
        context_length = card.tokenizer.context_length
        if not isinstance(card.tokenizer, CorpusTokenizer) or context_length is None:
            raise BenchError(f"model '{card.name}': a text tower of kind 'tiny' needs a tokenizer of kind 'corpus'")
        return TinyTextTower(spec, card.tokenizer.vocab_size, context_length), None
    if isinstance(spec, TransformersText):
        from benchmark.models.from_transformers import transformers_text

        return transformers_text(spec, weights, card.strict), None
    from benchmark.models.from_open_clip import open_clip_text

    return open_clip_text(spec, weights, card.strict)


def _projection(own: Own, width: int, embed_dim: int) -> nn.Module:
    if own is not None and own[1] == embed_dim:
        return own[0]
    return nn.Linear(width, embed_dim, bias=False)
