"""The dual encoder: an image tower and a text tower, joined by a projection each."""

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.common.errors import BenchError
from benchmark.common.seeding import torch_seed
from benchmark.models.card import CorpusTokenizer, ModelCard, TimmImage, TinyImage, TinyText, TransformersText
from benchmark.models.tiny import TinyImageTower, TinyTextTower
from benchmark.models.tokenizer import Tokenizer
from benchmark.models.tower import Group, ImageTower, LanguageModelTower, TextTower


class DualEncoder(nn.Module):
    """Images x: float [b, 3, image_size, image_size] in 0..1; texts: tokens int64 [b, L] and mask bool [b, L], True on
    tokens, padding on the right. D is embed_dim; Wi and Wt are the widths of the towers.
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
        """[b, D], unit length."""
        return self.project_image(self.image_features(x))

    def encode_text(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """[b, D], unit length."""
        return self.project_text(self.text_features(tokens, mask))

    def image_features(self, x: Tensor) -> Tensor:
        """[b, Wi], before the projection."""
        return cast(Tensor, self.image(x).features)

    def text_features(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """[b, Wt], before the projection."""
        return cast(Tensor, self.text(tokens, mask).features)

    def image_tokens(self, x: Tensor) -> Tensor:
        """[b, T, Wi], before the projection. BenchError for a tower that gives none."""
        tokens = self.image(x).tokens
        if tokens is None:
            raise BenchError(f"the image tower {type(self.image).__name__} gives no tokens, only pooled features")
        return cast(Tensor, tokens)

    def text_tokens(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """[b, L, Wt], before the projection; what stands on padding is meaningless. BenchError for a tower that gives
        none.
        """
        out = self.text(tokens, mask).tokens
        if out is None:
            raise BenchError(f"the text tower {type(self.text).__name__} gives no tokens, only pooled features")
        return cast(Tensor, out)

    def project_image(self, features: Tensor) -> Tensor:
        """[..., Wi] -> [..., D], unit length."""
        return F.normalize(self.image_projection(features), dim=-1)

    def project_text(self, features: Tensor) -> Tensor:
        """[..., Wt] -> [..., D], unit length."""
        return F.normalize(self.text_projection(features), dim=-1)

    @property
    def has_image_tokens(self) -> bool:
        return self.image.has_tokens

    @property
    def has_text_tokens(self) -> bool:
        return self.text.has_tokens

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute the activations of the towers' blocks in the backward pass: less memory, a third more time."""
        self.image.set_gradient_checkpointing(enabled)
        self.text.set_gradient_checkpointing(enabled)

    def unfreeze(self) -> None:
        """Let all parameters take gradients, but for a text tower that adapters or virtual tokens tune from outside:
        of it those alone that do already.
        """
        adapted = isinstance(self.text, LanguageModelTower) and self.text.adapted
        for part in (self.image, self.image_projection, self.text_projection, *(() if adapted else (self.text,))):
            part.requires_grad_(True)

    def layer_groups(self, side: Literal["image", "text"]) -> list[Group]:
        """A tower's parts from input to output, and its projection as the last: 14 groups for ViT-B/16, as Roy 2024
        counts them. Each parameter of the side is in exactly one.
        """
        tower: ImageTower | TextTower = self.image if side == "image" else self.text
        projection = self.image_projection if side == "image" else self.text_projection
        return [*tower.layer_groups(), *([[projection]] if list(projection.parameters()) else [])]

    def check(self, tokenizer: Tokenizer) -> None:
        """Raise BenchError when the tokenizer's tokens cannot be read by the text tower."""
        for what, given, read in (
            ("vocab_size", tokenizer.vocab_size, self.text.vocab_size),
            ("context_length", tokenizer.context_length, self.text.context_length),
        ):
            if given > read:
                raise BenchError(f"tokenizer.{what} is {given}, and the text tower reads at most {read}")
        if self.text.pad_id not in (None, tokenizer.pad_id):
            raise BenchError(f"text.pad_id is {self.text.pad_id}, and the tokenizer pads with {tokenizer.pad_id}")

    def parameter_counts(self) -> dict[str, int]:
        """Of each tower with its projection, and of both: how many parameters, and how many of them are trained.

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
    """The card's dual encoder, in training mode, float32. The same card and seed give the same weights; torch's global
    random state is left as it was. On "meta" neither weights nor network are needed, and the parameters have shapes
    only (an architecture that itself is described on the hub needs its configuration).

    weights: false draws all of them at random, whatever the card says.
    A projection of the tower's own that leads to ``embed_dim`` is kept with its weights; otherwise a new one is drawn.
    Raises BenchError for what the card names and is not there, and for weights that do not fit.
    """
    weights = weights and device != "meta"
    with torch_seed(seed), torch.device(device):
        image, image_own = _image(card, weights)
        text, text_own = _text(card, weights)
        image_projection = _projection(image_own, image.width, card.embed_dim)
        text_projection = _projection(text_own, text.width, card.embed_dim)
    return DualEncoder(image, text, image_projection, text_projection, card.embed_dim).float().train()


Own = tuple[nn.Module, int] | None
"""A tower's own projection and the width of the space it leads to."""


def _image(card: ModelCard, weights: bool) -> tuple[ImageTower, Own]:
    spec = card.image
    if isinstance(spec, TinyImage):
        return TinyImageTower(spec, card.image_size), None
    if isinstance(spec, TimmImage):
        from benchmark.models.from_timm import timm_image

        return timm_image(spec, card.image_size, weights), None
    from benchmark.models.from_open_clip import open_clip_image

    return open_clip_image(spec, card.image_size, weights)


def _text(card: ModelCard, weights: bool) -> tuple[TextTower, Own]:
    spec = card.text
    if isinstance(spec, TinyText):
        context_length = card.tokenizer.context_length
        if not isinstance(card.tokenizer, CorpusTokenizer) or context_length is None:
            raise BenchError(f"model '{card.name}': a text tower of kind tiny takes a tokenizer of kind corpus")
        return TinyTextTower(spec, card.tokenizer.vocab_size, context_length), None
    if isinstance(spec, TransformersText):
        from benchmark.models.from_transformers import transformers_text

        return transformers_text(spec, weights), None
    from benchmark.models.from_open_clip import open_clip_text

    return open_clip_text(spec, weights)


def _projection(own: Own, width: int, embed_dim: int) -> nn.Module:
    if own is not None and own[1] == embed_dim:
        return own[0]
    return nn.Linear(width, embed_dim, bias=False)
