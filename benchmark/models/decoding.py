"""Texts written word by word: greedy and beam search."""

from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor], Tensor]
"""(tokens int64 [n, L], image int64 [n]) -> log-probabilities [n, V] of the token after each row of tokens, row i being
what is written so far about image number ``image[i]``."""


@torch.no_grad()
def beam_search(step: Step, images: int, beams: int, start: int, end: int, length: int, device: torch.device) -> Tensor:
    """int64 [images, L], L <= length: for each image the text with the highest log-probability a token, among the
    ``beams`` (1: greedy) that are kept at every step; what a row has after its first end is more ends.

    A text begins with ``start``, which is given, and its last token is ``end``, at the latest at ``length``. Texts that
    have ended and texts that go on compete for the same places, by the mean log-probability of their tokens (the
    length normalisation of Wu et al. 2016, arXiv 1609.08144, equation 14, as transformers has it: exponent 1).
    With no more than ``beams`` different texts to choose from, the answer is the best of all texts.
    """
    tokens = torch.full((images, beams, 1), start, device=device)
    score = torch.full((images, beams), -torch.inf, device=device)
    score[:, 0] = 0.0  # one empty text to begin with, not as many as there are places
    written = torch.zeros(images, beams, device=device)
    ended = torch.zeros(images, beams, dtype=torch.bool, device=device)
    for position in range(1, length):
        going = ~ended & score.isfinite()
        image, beam = going.nonzero(as_tuple=True)
        if not len(image):
            break
        step_score = step(tokens[image, beam], image).float()
        if position == length - 1:
            gain, token = step_score[:, end : end + 1], torch.full((len(image), 1), end, device=device)
        else:
            gain, token = step_score.topk(min(beams, step_score.shape[1]))
        gains = score.new_full((images, beams, gain.shape[1]), -torch.inf)
        gains[..., 0] = 0.0  # what has ended goes on with ends at no cost
        words = torch.full_like(gains, end, dtype=torch.long)
        gains[image, beam], words[image, beam] = gain, token
        total = score[..., None] + gains
        written += going
        kept = (total / written.clamp(min=1)[..., None]).flatten(1).topk(beams).indices
        parent, word = kept // gain.shape[1], words.flatten(1).gather(1, kept)
        tokens = torch.cat([tokens.take_along_dim(parent[..., None], 1), word[..., None]], dim=-1)
        score = total.flatten(1).gather(1, kept)
        written = written.gather(1, parent)
        ended = word == end
    return tokens[:, 0]
