"""The interface of encoders, from images and texts to features and embeddings, and the encoders of models."""

from collections.abc import Iterator, Sequence
from copy import copy, deepcopy
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.data.resizing import Resizing
from benchmark.store.hashing import digest

if TYPE_CHECKING:
    from benchmark.method import Method
    from benchmark.models import DualEncoder, Tokenizer


@dataclass(frozen=True)
class Encoded:
    """Encoded images or texts: features before the projection float32 [n, W], embeddings float32 [n, D], unit length.

    tokens: float32 [n, T, D], unit length, 0 on padding, from an encoder that compares token by token; else None.
    """

    features: np.ndarray
    embeddings: np.ndarray
    tokens: np.ndarray | None = None

    @property
    def comparable(self) -> np.ndarray:
        """The input of cosines(): the tokens if there are any, else the embeddings."""
        return self.embeddings if self.tokens is None else self.tokens


def cosines(queries: np.ndarray | Tensor, candidates: np.ndarray | Tensor) -> Tensor:
    """Compute the similarity of each query and each candidate: float64 [q, c], on the device of the candidates.

    That of embeddings [., D] is their cosine. That of tokens [., T, D] is the mean, over the query's tokens, of the
    highest cosine with a token of the candidate (Yao et al. 2022, arXiv 2111.07783, equations 4 and 5); 0 where either
    has no token but 0.
    """
    b = exact(candidates)
    a = exact(queries, b.device)
    if a.ndim == 2:
        return a @ b.T
    in_query, in_candidate = (x | ~x.any(dim=1, keepdim=True) for x in (a.any(dim=2), b.any(dim=2)))
    held = TOKEN_SCORES if b.device.type == "cpu" else TOKEN_SCORES_GPU
    rows = max(1, held // (a.shape[1] * in_candidate.numel()))
    parts = []
    for block, mask in zip(torch.split(a, rows), torch.split(in_query, rows)):
        cosine = torch.einsum("iad,jbd->ijab", block, b)
        best = cosine.masked_fill(~in_candidate[None, :, None], -torch.inf).amax(dim=3)
        parts.append((best * mask[:, None]).sum(dim=2) / mask.sum(dim=1, keepdim=True))
    return torch.cat(parts)


def exact(x: np.ndarray | Tensor, device: torch.device | None = None) -> Tensor:
    """Convert to float64, in which sums hardly depend on their order. device: default: where it is."""
    if isinstance(x, Tensor):
        return x.to(device or x.device).double()
    if device is None or device.type == "cpu":
        return torch.from_numpy(np.array(x, dtype=np.float64))
    return torch.from_numpy(np.array(x)).to(device).double()


TOKEN_SCORES, TOKEN_SCORES_GPU = 2**24, 2**28
"""The most cosines of tokens in memory at a time, on the CPU and on a GPU."""


class Encoder(Protocol):
    """What a task measures: the encoder of a trained cell, a baseline, an external model, a test's oracle.

    fingerprint: changes whenever the outputs could.
    image_size: pixels a side of the images that it takes; resizing: how they become squares.
    temperature_scale: cosine x this = logit.
    """

    fingerprint: str
    image_size: int
    resizing: Resizing
    temperature_scale: float

    def encode_images(self, images: Tensor) -> Encoded:
        """Encode images uint8 [b, 3, image_size, image_size]."""

    def encode_texts(self, texts: Sequence[str]) -> Encoded:
        """Encode texts."""


@runtime_checkable
class Writer(Protocol):
    """An encoder that also writes texts: that of a method with the ability "caption"."""

    def write(self, images: Tensor, beams: int) -> list[str]:
        """Write a text for each image, uint8 [b, 3, image_size, image_size]. beams: 1 is greedy."""


@runtime_checkable
class Trainable(Protocol):
    """An encoder whose towers a task can train further, on a copy: the encoder itself does not change.

    image_outputs() and text_outputs() return features [b, W] and embeddings [b, D] as encode_images() and
    encode_texts() do, but as tensors on the device, with a graph.
    """

    def copy(self) -> Self:
        """Copy the encoder, in eval mode, with its own weights.

        All of them take gradients, whatever a method froze; of a text tower under adapters or virtual tokens, only
        those that did before. The copy is for training: its fingerprint is still that of the original.
        """

    def parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over all weights."""

    def image_outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features and embeddings of images."""

    def text_outputs(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Compute features and embeddings of texts."""

    def projected_images(self, images: Tensor) -> Tensor:
        """Compute embeddings of images before they are scaled to unit length, [b, D]."""

    def projected_words(self, texts: Sequence[str], length: int) -> Tensor:
        """Compute the projections of the first ``length`` tokens of texts, [b, length, D], not of unit length.

        Padding is 0. Raises ``BenchError`` for a text tower without tokens.
        """


@runtime_checkable
class TokenEncoder(Protocol):
    """An encoder that gives a vector for each part of an image and each token of a text, both before the projection.

    They have a graph where gradients are enabled.
    """

    def image_tokens(self, images: Tensor) -> Tensor:
        """Compute the tokens of images, [b, T, Wi]: patches, or the places of the last feature map.

        Raises ``BenchError`` for an image tower without tokens.
        """

    def text_tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Compute the tokens of texts, [b, L, Wt], and the mask bool [b, L], False on padding.

        Start and end are among the tokens. Raises ``BenchError`` for a text tower without tokens.
        """


class ModelEncoder:
    """The encoder made of a dual encoder and its tokenizer. Puts the model into eval mode, on ``device``.

    fingerprint: of the weights. Everything else that the outputs depend on (tokenizer, resizing, precision) is added
        here.
    precision: "fp32", or "bf16" for autocast; outputs are float32 either way.
    by_tokens: whether images and texts are compared token by token.
    """

    def __init__(
        self,
        model: "DualEncoder",
        tokenizer: "Tokenizer",
        device: torch.device | str,
        fingerprint: str,
        temperature_scale: float,
        precision: str = "fp32",
        by_tokens: bool = False,
    ) -> None:
        self.model = model.to(device).eval()
        self.by_tokens = by_tokens
        self.tokenizer = tokenizer
        self.device = torch.device(device)
        self.precision = precision
        self.image_size = model.image_size
        self.resizing = model.resizing
        self.temperature_scale = temperature_scale
        resizing = asdict(model.resizing)
        parts = ["encoder", fingerprint, tokenizer.fingerprint, model.image_size, resizing, precision]
        self.fingerprint = digest(parts)

    @property
    def left_random(self) -> str:
        """What the weights that the model started from left random, in a line; "" for nothing."""
        return self.model.left_random

    def encode_images(self, images: Tensor) -> Encoded:
        """Encode images uint8 [b, 3, image_size, image_size]."""
        return joined([self._encode_images(images[rows]) for rows in self._pieces(len(images))])

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Encoded:
        """Encode texts."""
        # Padded alike in all pieces, so that these change no bit.
        tokens, mask = self._tokens(texts)
        return joined([self._encode_tokens(tokens[rows], mask[rows]) for rows in self._pieces(len(texts))])

    def _pieces(self, count: int) -> list[slice]:
        """Divide what is encoded at a time into what passes through a tower at a time, in even pieces."""
        number = -(-count // PIECE) if self.device.type == "cpu" else 1
        # Kernels for a few rows round differently.
        step = -(-count // max(1, number)) or 1
        return [slice(start, start + step) for start in range(0, max(1, count), step)]

    @torch.inference_mode()
    def _encode_images(self, images: Tensor) -> Encoded:
        tokens = None
        if self.by_tokens:
            with self._autocast():
                tokens = self.model.project_image(self.model.image_tokens(self._pixels(images)))
        return _encoded(*self.image_outputs(images), tokens)

    def _encode_tokens(self, tokens: Tensor, mask: Tensor) -> Encoded:
        words = None
        if self.by_tokens:
            with self._autocast():
                words = self.model.project_text(self.model.text_tokens(tokens, mask)) * mask[:, :, None]
            # Pad to the length of the longest possible text, so that all batches have the same shape.
            words = nn.functional.pad(words, (0, 0, 0, self.tokenizer.context_length - words.shape[1]))
        return _encoded(*self._of_tokens(tokens, mask), words)

    def copy(self) -> Self:
        """Copy the encoder with its own weights, all trainable."""
        other = copy(self)
        other.model = deepcopy(self.model)
        other.model.unfreeze()
        return other

    def parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over all weights."""
        return self.model.parameters()

    def image_outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features [b, W] and embeddings [b, D], with a graph."""
        with self._autocast():
            features = self.model.image_features(self._pixels(images))
            return features, self.model.project_image(features)

    def text_outputs(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Compute features [b, W] and embeddings [b, D], with a graph."""
        return self._of_tokens(*self._tokens(texts))

    def _of_tokens(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        with self._autocast():
            features = self.model.text_features(tokens, mask)
            return features, self.model.project_text(features)

    def projected_images(self, images: Tensor) -> Tensor:
        """Compute embeddings of images before they are scaled to unit length, [b, D], with a graph."""
        with self._autocast():
            projected: Tensor = self.model.image_projection(self.model.image_features(self._pixels(images)))
        return projected

    def projected_words(self, texts: Sequence[str], length: int) -> Tensor:
        """Compute the projections of the first ``length`` tokens of texts, [b, length, D], with a graph."""
        tokens, mask = (x[:, :length] for x in self._tokens(texts))
        with self._autocast():
            words: Tensor = self.model.text_projection(self.model.text_tokens(tokens, mask)) * mask[:, :, None]
        return nn.functional.pad(words, (0, 0, 0, length - words.shape[1]))

    def image_tokens(self, images: Tensor) -> Tensor:
        """Compute the tokens of images before the projection, [b, T, Wi], with a graph."""
        with self._autocast():
            return self.model.image_tokens(self._pixels(images))

    def text_tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Compute the tokens of texts before the projection, [b, L, Wt], with a graph, and the mask bool [b, L]."""
        tokens, mask = self._tokens(texts)
        with self._autocast():
            return self.model.text_tokens(tokens, mask), mask

    def _pixels(self, images: Tensor) -> Tensor:
        return images.to(self.device) / 255

    def _tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokenise texts: int64 [b, L], and the mask bool [b, L], False on padding."""
        rows = [torch.tensor(row) for row in self.tokenizer(list(texts))]
        lengths = torch.tensor([len(row) for row in rows])
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.tokenizer.pad_id)
        mask = torch.arange(tokens.shape[1]) < lengths[:, None]
        return tokens.to(self.device), mask.to(self.device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")


class ModelWriter(ModelEncoder):
    """The encoder of a trained method that writes texts. Puts the method into eval mode, on ``device``."""

    def __init__(
        self,
        method: "Method",
        tokenizer: "Tokenizer",
        device: torch.device | str,
        fingerprint: str,
        precision: str = "fp32",
    ) -> None:
        from benchmark.method import encoder_of

        self.method = method.to(device).eval()
        super().__init__(
            encoder_of(method),
            tokenizer,
            device,
            fingerprint,
            float(method.temperature_scale),
            precision,
            by_tokens="late_interaction" in method.abilities,
        )

    @torch.inference_mode()
    def write(self, images: Tensor, beams: int) -> list[str]:
        """Write a text for each image by beam search."""
        with self._autocast():
            return self.method.write(images.to(self.device).float() / 255, self.tokenizer, beams)


PIECE = 64
"""The most images or texts that pass through a tower at a time on a CPU: more do not fit its caches, which takes a
quarter more time."""


def joined(parts: Sequence[Encoded]) -> Encoded:
    """Join the rows of what was encoded apart."""
    if len(parts) == 1:
        return parts[0]
    tokens = [each.tokens for each in parts if each.tokens is not None]
    return Encoded(
        np.concatenate([each.features for each in parts]),
        np.concatenate([each.embeddings for each in parts]),
        np.concatenate(tokens) if tokens else None,
    )


def _encoded(features: Tensor, embeddings: Tensor, tokens: Tensor | None) -> Encoded:
    def plain(x: Tensor) -> np.ndarray:
        return x.float().cpu().numpy()

    return Encoded(plain(features), plain(embeddings), None if tokens is None else plain(tokens))
