"""A small dual encoder and pairs in memory, for tests of methods and of training."""

import numpy as np
import torch

from benchmark.common.seeding import torch_seed
from benchmark.config.augmentation import Augmentation
from benchmark.data.batch import Batch
from benchmark.method import METHODS, Method
from benchmark.models import ModelCard, build_model

SIZE, VOCABULARY, CONTEXT = 32, 300, 12
CLASSES = ["normal", "circumscribed mass", "cyst", "calcification"]


def small_card(dropout: float = 0.0, patch_dropout: float = 0.0, width: int = 32) -> ModelCard:
    tower = {"kind": "tiny", "width": width, "layers": 1, "heads": 2, "dropout": dropout}
    return ModelCard.model_validate(
        {
            "name": "small",
            "embed_dim": 16,
            "image_size": SIZE,
            "image": tower | {"patch_dropout": patch_dropout},
            "text": tower,
            "tokenizer": {"kind": "corpus", "vocab_size": VOCABULARY, "context_length": CONTEXT},
        }
    )


def small_method(
    name: str, seed: int = 0, dropout: float = 0.0, patch_dropout: float = 0.0, width: int = 32, **options: object
) -> Method:
    model = build_model(small_card(dropout, patch_dropout, width), seed)
    cls = METHODS[name]
    with torch_seed(seed):
        return cls(model, cls.Config(**options))


def double(method: Method) -> Method:
    """In float64, images too: views are made in float32."""
    method.double()
    for tower in {id(m): m for m in method.modules() if hasattr(m, "normalise")}.values():
        normalise = tower.normalise
        tower.normalise = lambda x, normalise=normalise: normalise(x.double())
    return method


class Pairs:
    """``count`` random pairs that look like a PairLoader: texts differ in length and contents, labels are in 0..3.

    texts: how many different ones there are; each is that of every so manieth pair.
    """

    def __init__(
        self, count: int, seed: int = 0, augmentation: Augmentation | None = None, texts: int | None = None
    ) -> None:
        rng = np.random.default_rng(seed)
        self.image = torch.from_numpy(rng.integers(0, 256, (count, 3, SIZE, SIZE), dtype=np.uint8))
        self.tokens = [rng.integers(3, VOCABULARY, rng.integers(3, CONTEXT + 1)) for _ in range(count)]
        self.longest = max(map(len, self.tokens))
        self.text = np.arange(count) % (texts or count)
        self.tokens = [self.tokens[text] for text in self.text]
        self.label = torch.from_numpy(rng.integers(0, 4, count))
        self.augmentation = augmentation or Augmentation.none()

    def __len__(self) -> int:
        return len(self.image)

    def start(self, step: int, batch_size: int) -> int:
        epoch, step = divmod(step, len(self) // batch_size)
        return epoch * len(self) + step * batch_size

    def sequential(self, start: int, count: int) -> Batch:
        return self._rows(range(start, min(start + count, len(self))), 0)

    def batch(self, position: int, count: int) -> Batch:
        epoch = position // len(self)
        order = np.random.default_rng(epoch).permutation(len(self))
        return self._rows([order[i % len(self)] for i in range(position, position + count)], epoch)

    def _rows(self, rows: range | list[int], epoch: int) -> Batch:
        tokens = [self.tokens[row] for row in rows]
        longest = max(map(len, tokens))
        padded = np.array([np.pad(t, (0, longest - len(t))) for t in tokens])
        mask = np.array([np.arange(longest) < len(t) for t in tokens])
        index = torch.tensor(list(rows))
        return Batch(
            image=self.image[index],
            tokens=torch.from_numpy(padded),
            mask=torch.from_numpy(mask),
            row=index,
            text_hash=torch.from_numpy(1000 + self.text[index.numpy()]),
            seed=index * 1000 + epoch,
            ids=[f"r{row}" for row in rows],
            image_size=SIZE,
            augmentation=self.augmentation,
            label=self.label[index],
        )


class Words:
    """A tokenizer: a token a letter, between start 1 and end 2."""

    pad_id, start_id, end_id = 0, 1, 2
    context_length, vocab_size, fingerprint = CONTEXT, VOCABULARY, "words"

    def __call__(self, texts: list[str]) -> list[list[int]]:
        return [[1, *[3 + ord(letter) % 290 for letter in text][: CONTEXT - 2], 2] for text in texts]
