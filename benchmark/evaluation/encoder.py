"""Encode a dataset once per checkpoint, for all tasks."""

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
    """n images or texts: features before the projection float32 [n, W], embeddings float32 [n, D] of unit length.

    tokens: of an encoder that compares token by token, float32 [n, T, D], unit length, 0 on padding; else None.
    """

    features: np.ndarray
    embeddings: np.ndarray
    tokens: np.ndarray | None = None

    @property
    def comparable(self) -> np.ndarray:
        """What cosines() compares: the tokens where there are some, else the embeddings."""
        return self.embeddings if self.tokens is None else self.tokens


def cosines(queries: np.ndarray | Tensor, candidates: np.ndarray | Tensor) -> Tensor:
    """How alike each query and each candidate are, float64 [q, c]: the cosine of their embeddings [., D]; of tokens
    [., T, D] the mean over the query's of the highest cosine with one of the candidate's (Yao et al. 2022, arXiv
    2111.07783, equations 4 and 5); 0 where either has no token but 0. On the device of the candidates.
    """
    b = exact(candidates)
    a = exact(queries, b.device)
    if a.ndim == 2:
        return a @ b.T
    own, there = (x | ~x.any(dim=1, keepdim=True) for x in (a.any(dim=2), b.any(dim=2)))
    held = TOKEN_SCORES if b.device.type == "cpu" else TOKEN_SCORES_GPU
    rows = max(1, held // (a.shape[1] * there.numel()))
    parts = []
    for block, mask in zip(a.split(rows), own.split(rows)):
        best = torch.einsum("iad,jbd->ijab", block, b).masked_fill(~there[None, :, None], -torch.inf).amax(dim=3)
        parts.append((best * mask[:, None]).sum(dim=2) / mask.sum(dim=1, keepdim=True))
    return torch.cat(parts)


def exact(x: np.ndarray | Tensor, device: torch.device | None = None) -> Tensor:
    """In float64, where sums hardly depend on their order."""
    if isinstance(x, Tensor):
        return x.to(device or x.device).double()
    if device is None or device.type == "cpu":
        return torch.from_numpy(np.array(x, dtype=np.float64))
    return torch.from_numpy(np.array(x)).to(device).double()


TOKEN_SCORES, TOKEN_SCORES_GPU = 2**24, 2**28
"""Cosines of tokens held at a time."""


class Encoder(Protocol):
    """What a task's numbers come from. Implementations: a pretrained cell, a model from elsewhere, a test's oracle.

    fingerprint: changes whenever the outputs could.
    image_size: pixels a side of the images it is given; resizing: how they become squares.
    temperature_scale: cosine x this = logit.
    """

    fingerprint: str
    image_size: int
    resizing: Resizing
    temperature_scale: float

    def encode_images(self, images: Tensor) -> Encoded:
        """images: uint8 [b, 3, image_size, image_size]."""

    def encode_texts(self, texts: Sequence[str]) -> Encoded: ...


@runtime_checkable
class Writer(Protocol):
    """An encoder that writes texts too: of a method with the ability "caption"."""

    def write(self, images: Tensor, beams: int) -> list[str]:
        """A text for each image: uint8 [b, 3, image_size, image_size]. beams: 1 is greedy."""


@runtime_checkable
class Trainable(Protocol):
    """An encoder whose towers a task can train further: on a copy, so that the encoder stays as it is evaluated.

    image_outputs() and text_outputs() give features [b, W] and embeddings [b, D] as encode_images() and encode_texts()
    do, as tensors on the device, with a graph.
    """

    def copy(self) -> Self:
        """The same in eval mode, with weights of its own, all of which take gradients, whatever a method froze; but of
        a text tower under adapters or virtual tokens only those that did. For training alone: its fingerprint is still
        that of the original.
        """

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def image_outputs(self, images: Tensor) -> tuple[Tensor, Tensor]: ...

    def text_outputs(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]: ...


class ModelEncoder:
    """The encoder that a dual encoder and its tokenizer make; puts the model into eval mode, on ``device``.

    fingerprint: of the weights. What else the outputs depend on (tokenizer, how images are resized, precision) is added
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
        seen = model.image_size, asdict(model.resizing)
        self.fingerprint = digest(["encoder", fingerprint, tokenizer.fingerprint, *seen, precision])

    @torch.inference_mode()
    def encode_images(self, images: Tensor) -> Encoded:
        tokens = None
        if self.by_tokens:
            with self._autocast():
                tokens = self.model.project_image(self.model.image_tokens(self._pixels(images)))
        return _encoded(*self.image_outputs(images), tokens)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Encoded:
        words = None
        if self.by_tokens:
            tokens, mask = self._tokens(texts)
            with self._autocast():
                words = self.model.project_text(self.model.text_tokens(tokens, mask)) * mask[:, :, None]
            # As long as any text can be, so that all batches of texts have one shape.
            words = nn.functional.pad(words, (0, 0, 0, self.tokenizer.context_length - words.shape[1]))
        return _encoded(*self.text_outputs(texts), words)

    def copy(self) -> Self:
        other = copy(self)
        other.model = deepcopy(self.model)
        other.model.unfreeze()
        return other

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.model.parameters()

    def image_outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with self._autocast():
            features = self.model.image_features(self._pixels(images))
            return features, self.model.project_image(features)

    def text_outputs(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        with self._autocast():
            features = self.model.text_features(*self._tokens(texts))
            return features, self.model.project_text(features)

    def _pixels(self, images: Tensor) -> Tensor:
        return images.to(self.device).float() / 255

    def _tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """int64 [b, L], and the mask bool [b, L]."""
        rows = [torch.tensor(row) for row in self.tokenizer(list(texts))]
        lengths = torch.tensor([len(row) for row in rows])
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.tokenizer.pad_id)
        mask = torch.arange(tokens.shape[1]) < lengths[:, None]
        return tokens.to(self.device), mask.to(self.device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")


class ModelWriter(ModelEncoder):
    """The encoder of a trained method that can write; puts the method into eval mode, on ``device``."""

    def __init__(
        self,
        method: "Method",
        tokenizer: "Tokenizer",
        device: torch.device | str,
        fingerprint: str,
        precision: str = "fp32",
    ) -> None:
        self.method = method.to(device).eval()
        super().__init__(
            method.encoder(),
            tokenizer,
            device,
            fingerprint,
            method.temperature_scale,
            precision,
            by_tokens="late_interaction" in method.abilities,
        )

    @torch.inference_mode()
    def write(self, images: Tensor, beams: int) -> list[str]:
        with self._autocast():
            return self.method.write(images.to(self.device).float() / 255, self.tokenizer, beams)


def _encoded(features: Tensor, embeddings: Tensor, tokens: Tensor | None) -> Encoded:
    def plain(x: Tensor) -> np.ndarray:
        return x.float().cpu().numpy()

    return Encoded(plain(features), plain(embeddings), None if tokens is None else plain(tokens))
