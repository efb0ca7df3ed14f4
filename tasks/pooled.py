"""Heads that answer questions from pooled features of image and words, in which what questions share is computed once.

Until dropout, the units of a head depend on image and words alone.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

At = Tensor | slice
"""Rows by their numbers int64, or all of them without a copy."""
ALL = slice(None)


class Inputs(NamedTuple):
    """What a head reads of b questions.

    image: features [I, Wi]; text: of the words, [Q, Wt]. image_at, text_at: those of each of P different pairs of both;
    a single image stands for all. pair_at: the pair of each question.
    """

    image: Tensor
    image_at: At
    text: Tensor
    text_at: At
    pair_at: At


class Pooled(nn.Module):
    """A head on pooled features: hidden units, and a linear layer on those that dropout keeps.

    Heads that are trained together drop the same units.
    """

    classify: nn.Linear
    """The linear layer, which a head makes last."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout

    def draw(self, count: int) -> Tensor | None:
        """Draw the factors of the units of ``count`` questions, [count, units]: 0, or 1 / (1 - dropout).

        None without dropout. The draws are those of nn.Dropout on the CPU, in half its time.
        """
        if not self.dropout:
            return None
        weight = self.classify.weight
        # Not every device has float64.
        exact = torch.float64 if weight.device.type == "cpu" else torch.float32
        drawn = torch.rand(count, weight.shape[1], dtype=exact, device=weight.device)
        return (drawn < 1 - self.dropout).to(weight.dtype).div_(1 - self.dropout)

    def forward(self, read: Inputs, kept: Tensor | None = None) -> Tensor:
        """Map what is read of b questions to logits [b, answers]. kept: as draw() returns."""
        units = F.gelu(self.hidden(read))[read.pair_at]
        logits: Tensor = self.classify(units if kept is None else units * kept)
        return logits

    def hidden(self, read: Inputs) -> Tensor:
        """Compute the units of the pairs before their activation, [P, units]."""
        raise NotImplementedError


class Product(Pooled):
    """Two layers on the projections of image and question and on their product.

    Antol et al. 2015 use the product alone.
    """

    def __init__(self, image: int, question: int, width: int, answers: int, dropout: float) -> None:
        super().__init__(dropout)
        self.image, self.question = nn.Linear(image, width), nn.Linear(question, width)
        join = nn.Linear(3 * width, 2 * width)
        # One layer on all three side by side, in three parts.
        self.of_image, self.of_question, self.of_product = (
            nn.Parameter(part.detach().clone()) for part in join.weight.chunk(3, dim=1)
        )
        self.bias = join.bias
        self.classify = nn.Linear(2 * width, answers)

    def hidden(self, read: Inputs) -> Tensor:
        """Compute the units of the pairs before their activation."""
        image, question = self.image(read.image), self.question(read.text)
        of_both = F.linear(image[read.image_at] * question[read.text_at], self.of_product)
        of_question = F.linear(question, self.of_question, self.bias)[read.text_at]
        return of_both + of_question + F.linear(image, self.of_image)[read.image_at]


class Bilinear(Pooled):
    """Low-rank bilinear pooling of one image vector and one question vector, without attention.

    MLB (Kim et al. 2017, arXiv:1610.04325): the product of both projections after tanh. Twice, each time added to the
    question that the next one reads, as the glimpses of BAN are: BAN, where image and question have a single token, has
    nothing to attend to. See attention.Ban for the attention.
    """

    def __init__(self, image: int, question: int, width: int, answers: int, dropout: float, glimpses: int = 2) -> None:
        super().__init__(dropout)
        self.question = nn.Linear(question, width)
        self.of_image = nn.ModuleList(nn.Linear(image, width) for _ in range(glimpses))
        self.of_question = nn.ModuleList(nn.Linear(width, width) for _ in range(glimpses))
        self.join = nn.ModuleList(nn.Linear(width, width) for _ in range(glimpses))
        self.read = nn.Linear(width, 2 * width)
        self.classify = nn.Linear(2 * width, answers)

    def hidden(self, read: Inputs) -> Tensor:
        """Compute the units of the pairs before their activation."""
        state, at = self.question(read.text), read.text_at
        for of_image, of_question, join in zip(self.of_image, self.of_question, self.join):
            pooled = torch.tanh(of_image(read.image))[read.image_at] * torch.tanh(of_question(state))[at]
            # From here on there is a state for each pair.
            state, at = state[at] + join(pooled), ALL
        units: Tensor = self.read(state)
        return units
