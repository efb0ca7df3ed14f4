"""Bilinear attention over all pairs of an image token and a question token (BAN, Kim et al. 2018, arXiv:1805.07932)."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pad_sequence

from benchmark import BenchError, TokenEncoder

from .scale import Scale

RANK = 3
"""The rank of an attention map as a multiple of that of the pooling."""
LINEAR = 0.4
"""The dropout before a linear map as a share of the classifier's: 0.2 of 0.5."""
HELD = 2**31
"""The most bytes of tokens of frozen towers that are held in memory; others are computed each time."""


class Ban(nn.Module):
    """Glimpses of low-rank bilinear pooling of image tokens v_j and question tokens q_i, weighted by attention maps.

    Kim et al. 2018, section 3; what it leaves open is as in jnhwkim/ban-vqa. U, V, U', V' are linear maps with ReLU,
    * is the product by elements, and q_i is first a linear map of the token, in the place of a recurrent network:

        A_g     = softmax over all pairs (i, j) of  p_g . (U(q_i) * V(v_j)), with these first q_i
        f_g     = P_g(sum over i, j of A_g[i, j] U'_g(q_i) * V'_g(v_j))
        q_i     = q_i + f_g, for the next glimpse
        logits  = classifier(sum over i of q_i)

    The rank of U' and V' is ``width``, that of U and V three times this. Linear maps have weight normalisation. Padding
    of the question has no part in any sum. The paper's counter of detected boxes, which patches are not, is left out.
    dropout: of the classifier and of V; 0.4 times as much before all other maps.
    """

    def __init__(self, image: int, question: int, width: int, answers: int, dropout: float, glimpses: int = 2) -> None:
        super().__init__()
        before = LINEAR * dropout
        self.question = nn.Linear(question, width)
        self.attend_question = nn.Sequential(*_linear(width, RANK * width, before), nn.ReLU())
        self.attend_image = nn.Sequential(*_linear(image, RANK * width, before), nn.ReLU(), nn.Dropout(dropout))
        vectors = nn.Linear(RANK * width, glimpses, bias=False)
        nn.init.normal_(vectors.weight)
        self.attention = weight_norm(vectors, dim=WHOLE)
        self.of_question = nn.ModuleList(
            nn.Sequential(*_linear(width, width, before), nn.ReLU()) for _ in range(glimpses)
        )
        self.of_image = nn.ModuleList(nn.Sequential(*_linear(image, width, before), nn.ReLU()) for _ in range(glimpses))
        self.join = nn.ModuleList(nn.Sequential(*_linear(width, width, before)) for _ in range(glimpses))
        self.classify = nn.Sequential(
            weight_norm(nn.Linear(width, 2 * width), dim=WHOLE),
            nn.ReLU(),
            nn.Dropout(dropout),
            weight_norm(nn.Linear(2 * width, answers), dim=WHOLE),
        )

    def maps(self, image: Tensor, question: Tensor, mask: Tensor) -> Tensor:
        """Compute the attention maps [b, glimpses, L, T], each of sum 1.

        question: the first q_i, [b, L, width]; image and mask: as in forward(). There is no bias, which would be the
        same for all pairs.
        """
        weights = self.attention.weight[:, None]
        scores = (self.attend_question(question)[:, None] * weights) @ self.attend_image(image)[:, None].mT
        scores = scores.masked_fill(~mask[:, None, :, None], -torch.inf)
        attention: Tensor = scores.flatten(2).softmax(2).view_as(scores)
        return attention

    def forward(self, image: Tensor, question: Tensor, mask: Tensor) -> Tensor:
        """Map tokens [b, T, Wi] and [b, L, Wt], with the mask bool [b, L] of the latter, to logits [b, answers]."""
        state = self.question(question)
        maps = self.maps(image, state, mask)
        for attention, of_question, of_image, join in zip(maps.unbind(1), self.of_question, self.of_image, self.join):
            pooled = ((attention @ of_image(image)) * of_question(state)).sum(1)
            state = state + join(pooled)[:, None]
        logits: Tensor = self.classify((state * mask[:, :, None]).sum(1))
        return logits


WHOLE = -1
"""The dimension that makes weight_norm() scale a matrix by one norm, that of all its entries."""


def _linear(inputs: int, outputs: int, dropout: float) -> Iterator[nn.Module]:
    yield nn.Dropout(dropout)
    yield weight_norm(nn.Linear(inputs, outputs), dim=WHOLE)


class Asked(Protocol):
    """The questions of a split."""

    @property
    def image(self) -> np.ndarray:
        """The place of each question's image among the split's, int [n]."""

    @property
    def question(self) -> np.ndarray:
        """The words of each question, str [n]."""


class Tokens:
    """The tokens of questions and their images, scaled over those of train.

    pixels: loads images of a split by their places in it, uint8 [n, 3, S, S]. weights: those of the encoder that are
    trained along with the head; where there are none, tokens are held.
    batch_size: images and texts encoded at a time for the scale.
    widths: of the tokens of images and of questions.
    Raises ``BenchError`` for an encoder without tokens of both.
    """

    def __init__(
        self,
        encoder: object,
        pixels: Callable[[str, list[int]], Tensor],
        asked: Mapping[str, Asked],
        weights: list[nn.Parameter],
        batch_size: int,
    ) -> None:
        if not isinstance(encoder, TokenEncoder):
            raise BenchError(f"vqa.head=ban: a {type(encoder).__name__} gives no tokens; {INSTEAD}")
        self.encoder, self.pixels, self.asked, self.weights = encoder, pixels, asked, weights
        self.device = torch.device(getattr(encoder, "device", "cpu"))
        self.of_image = Held(self._image_tokens, 0 if weights else HELD)
        self.of_text = Held(self._text_tokens, 0 if weights else HELD)
        pictures = [("train", row) for row in np.unique(asked["train"].image).tolist()]
        texts = np.unique(asked["train"].question).tolist()
        try:
            self.image_scale = _scale(self.of_image, pictures, batch_size)
            self.text_scale = _scale(self.of_text, texts, batch_size)
        except BenchError as error:
            raise BenchError(f"vqa.head=ban: {error}; {INSTEAD}") from error
        self.widths = (len(self.image_scale.mean), len(self.text_scale.mean))

    def __call__(self, split: str, at: Tensor, blind: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return what Ban.forward() takes for the questions ``at`` int64 [b] of a split. blind: all images are 0."""
        rows = at.cpu().numpy()
        # An image and a text that several of the questions share pass through the towers once.
        pictures, image_of = np.unique(self.asked[split].image[rows], return_inverse=True)
        texts, text_of = np.unique(self.asked[split].question[rows], return_inverse=True)
        with torch.set_grad_enabled(bool(self.weights) and torch.is_grad_enabled()):
            image = torch.stack(self.of_image([(split, row) for row in pictures.tolist()]))
            words = self.of_text(texts.tolist())
            lengths = torch.tensor([len(each) for each in words], device=self.device)
            text = pad_sequence(words, batch_first=True)
            mask = torch.arange(text.shape[1], device=self.device) < lengths[:, None]
            image = self.image_scale.of(image)
            image = torch.zeros_like(image) if blind else image
            return image[image_of], self.text_scale.of(text)[text_of], mask[text_of]

    def parameters(self) -> list[nn.Parameter]:
        """List the weights that are trained along with the head."""
        return self.weights

    def _image_tokens(self, pictures: list[tuple[str, int]]) -> list[Tensor]:
        """Compute the tokens of images of one split, each [T, Wi]."""
        return list(self.encoder.image_tokens(self.pixels(pictures[0][0], [row for _, row in pictures])))

    def _text_tokens(self, texts: list[str]) -> list[Tensor]:
        """Compute the tokens of texts without padding, each [its length, Wt]."""
        tokens, mask = self.encoder.text_tokens(texts)
        return [each[own] for each, own in zip(tokens, mask)]


INSTEAD = "vqa.head=product and vqa.head=bilinear need none"


class Held:
    """What ``compute`` returns for each key, held for the next time as long as there is room for its bytes."""

    def __init__(self, compute: Callable[[list[Any]], list[Tensor]], room: int) -> None:
        self.compute, self.room = compute, room
        self.held: dict[Any, Tensor] = {}

    def __call__(self, keys: list[Any]) -> list[Tensor]:
        """Return the tensors of different keys."""
        missing = [key for key in keys if key not in self.held]
        computed = dict(zip(missing, self.compute(missing))) if missing else {}
        for key, tensor in computed.items():
            if tensor.nbytes <= self.room:
                self.held[key] = tensor.clone()
                self.room -= tensor.nbytes
        return [self.held[key] if key in self.held else computed[key] for key in keys]


@torch.no_grad()
def _scale(compute: Held, keys: list[Any], size: int) -> Scale:
    """Make the scale over the tokens of all keys, computed ``size`` at a time."""
    scale = Scale.over(torch.cat(compute(keys[start : start + size])) for start in range(0, len(keys), size))
    if not scale.mean.isfinite().all():
        raise BenchError("the encoder gives tokens that are not finite")
    return scale
