"""A training on a few pairs in memory, and a method of two stages."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.config.training import Training
from benchmark.method import METHODS, Method
from benchmark.models import build_model
from benchmark.training.cost import Cost, Shape, on_meta
from benchmark.training.loop import StepProgress, pretrain
from tests.methods.fakes import CLASSES, Pairs, Words, small_card, small_method

CPU = torch.device("cpu")
LENGTH = 8


def train(
    method: Method,
    folder: Path,
    pairs: Pairs,
    validation: Pairs | None = None,
    seed: int = 0,
    progress: Callable[[StepProgress], None] = lambda _: None,
    keep: Sequence[float] = (),
    **training: Any,
) -> Cost:
    settings = {"samples": 48, "batch_size": 8, "micro_batch": 8, "validations": 3} | training
    return pretrain(
        method,
        pairs,
        validation,
        Training(**settings),
        seed=seed,
        device=CPU,
        folder=folder,  # type: ignore[arg-type]
        keep=keep,
        progress=progress,
    )


class Staged(METHODS["clip"]):  # type: ignore[misc]
    """The image tower first, then the text tower."""

    def stages(self) -> dict[str, float]:
        return {"image": 0.75, "text": 0.25}

    def enter(self, stage: str) -> None:
        self.model.image.requires_grad_(stage == "image")
        self.model.text.requires_grad_(stage == "text")


def staged() -> Method:
    return Staged(small_method("clip").model, Staged.Config())


def pairs_of_one_length(count: int) -> Pairs:
    pairs = Pairs(count)
    pairs.tokens = [np.resize(tokens, LENGTH) for tokens in pairs.tokens]
    return pairs


def shape() -> Shape:
    return Shape.of(pairs_of_one_length(1).sequential(0, 1))


def meta_method(name: str, **options: Any) -> Method:
    """The method of small_method() without weights."""
    model = build_model(small_card(), 0, "meta")
    with on_meta():
        method = METHODS[name](model, METHODS[name].Config(**options))
        method.setup(Words(), CLASSES)  # type: ignore[arg-type]
    return method
