"""Train a text tower as a small language model, for methods that keep it frozen afterwards."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.common.errors import BenchError
from benchmark.models.card import LanguageModel
from benchmark.models.tower import LanguageModelTower


def train_language_model(
    tower: LanguageModelTower,
    texts: Sequence[Sequence[int]],
    spec: LanguageModel,
    rng: np.random.Generator,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> float:
    """Train a causal tower to predict the next token, in place and on its device.

    AdamW with a cosine schedule to 0; the word embedding is also the output layer (Press and Wolf 2017,
    arXiv 1608.05859).

    texts: tokens with start and end. Returns the mean loss of the last tenth of the steps, in nats per token.
    Raises ``BenchError`` if there is no text.
    """
    if not texts:
        raise BenchError("a language model is trained on texts, but the datasets have none")
    optimizer = torch.optim.AdamW(tower.parameters(), lr=spec.learning_rate, weight_decay=0.1)
    device = tower.word_embedding.weight.device
    tower.train()
    losses = []
    for step in range(spec.steps):
        for group in optimizer.param_groups:
            group["lr"] = spec.learning_rate * 0.5 * (1 + math.cos(math.pi * step / spec.steps))
        rows = [torch.tensor(texts[i]) for i in rng.integers(0, len(texts), spec.batch_size)]
        loss = next_token_loss(tower, [row.to(device) for row in rows])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        progress(step + 1, losses[-1])
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / len(tail)


def next_token_loss(tower: LanguageModelTower, texts: Sequence[Tensor]) -> Tensor:
    """The mean of -log p(token | tokens before it) over all tokens but the first, a scalar."""
    tokens = torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    lengths = torch.tensor([len(text) for text in texts], device=tokens.device)
    mask = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    hidden = tower(tokens, mask).tokens
    weight = tower.word_embedding.weight
    real = mask[:, 1:]
    logits = hidden[:, :-1][real] @ weight.T / math.sqrt(weight.shape[1])
    return F.cross_entropy(logits, tokens[:, 1:][real])
