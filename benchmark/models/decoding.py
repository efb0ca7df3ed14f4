"""Generate texts token by token: greedy and beam search."""

from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor], Tensor]
"""(tokens int64 [n, L], image int64 [n]) -> log-probabilities [n, V] of the next token of each row.

Row i holds the text generated so far for image number ``image[i]``."""


@torch.no_grad()
def beam_search(step: Step, images: int, beams: int, start: int, end: int, length: int, device: torch.device) -> Tensor:
    """Find for each image the text with the highest mean log-probability of its tokens, int64 [images, L], L <= length.

    The ``beams`` best texts are kept at every step (1: greedy). A text begins with ``start`` and ends with ``end``, at
    the latest at ``length``; rows are padded with ``end``. Finished and unfinished texts compete for the same places,
    by the mean log-probability of their tokens (the length normalisation of Wu et al. 2016, arXiv 1609.08144, equation
    14, with exponent 1 as in transformers). If there are at most ``beams`` different texts, the result is the best of
    all.
    """
    tokens = torch.full((images, beams, 1), start, device=device)
    score = torch.full((images, beams), -torch.inf, device=device)
    score[:, 0] = 0.0  # one empty text to start with, not one for each beam
    lengths = torch.zeros(images, beams, device=device)
    finished = torch.zeros(images, beams, dtype=torch.bool, device=device)
    for position in range(1, length):
        unfinished = ~finished & score.isfinite()
        image, beam = unfinished.nonzero(as_tuple=True)
        if not len(image):
            break
        step_score = step(tokens[image, beam], image).float()
        if position == length - 1:
            gain, token = step_score[:, end : end + 1], torch.full((len(image), 1), end, device=device)
        else:
            gain, token = step_score.topk(min(beams, step_score.shape[1]))
        gains = score.new_full((images, beams, gain.shape[1]), -torch.inf)
        gains[..., 0] = 0.0  # finished texts continue with ends, at no cost
        words = torch.full_like(gains, end, dtype=torch.long)
        gains[image, beam], words[image, beam] = gain, token
        total = score[..., None] + gains
        lengths += unfinished
        kept = (total / lengths.clamp(min=1)[..., None]).flatten(1).topk(beams).indices
        parent, word = kept // gain.shape[1], words.flatten(1).gather(1, kept)
        tokens = torch.cat([tokens.take_along_dim(parent[..., None], 1), word[..., None]], dim=-1)
        score = total.flatten(1).gather(1, kept)
        lengths = lengths.gather(1, parent)
        finished = word == end
    return tokens[:, 0]
