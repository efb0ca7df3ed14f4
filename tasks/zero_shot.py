"""Zero-shot classification: an image gets the class whose prompts are nearest."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import NonNegativeInt

from benchmark import Card, Encoded, Evaluation, Measurement, Task, cosines, exact, register_task
from benchmark.metrics import HEADLINES, classification, gallery_of_classes
from benchmark.probe import majority_accuracy, majority_scores, rare_classes

ROWS = 16_384
"""The most images compared with the classes at a time."""


@register_task("zero_shot")
class ZeroShot(Task):
    """Score an image for a class by its cosine with the class's embedding, the mean of its prompts' embeddings.

    Multi-label: the cosine with the finding's presence minus that with its absence.
    """

    summary = "Classification by the class whose prompts are nearest, without any training."
    source = "CLIP (Radford et al. 2021, arXiv:2103.00020); pairs of prompts: CheXzero (Tiu et al. 2022)"
    primary = "accuracy"
    headlines = HEADLINES
    uneven = "balanced_accuracy"
    needs = frozenset({"label", "prompts"})

    @dataclass
    class Config:
        """The options.

        rare_below: classes with fewer train images than this are rare; they get means of their own, unless all classes
        are rare.
        """

        rare_below: NonNegativeInt = 100

    @classmethod
    def primary_for(cls, card: Card) -> str:
        """Return the metric of the dataset's kind of labels."""
        return "macro_auroc" if card.multi_label else "accuracy"

    def evaluate(self, data: Evaluation, seed: int) -> Iterator[Measurement]:
        """Score all test images for all classes."""
        records = data.records("test")
        scores = class_scores(data, [data.card.positive_prompts(name) for name in data.classes])
        if data.card.multi_label:
            scores -= class_scores(data, [data.card.negative(name) for name in data.classes])
        measurement = classification(
            ids=records.ids,
            groups=records.groups,
            scores=scores,
            label=records.label,
            classes=data.classes,
            scale=data.temperature_scale,
            multi_label=data.card.multi_label,
            rare=rare_classes(data, self.config.rare_below),
        )
        test = torch.from_numpy(np.array(records.label))
        train = torch.from_numpy(data.labels("train")) if "train" in data.splits() else test[:0]
        if not data.card.multi_label:
            measurement.majority = measurement.chance | majority_scores(train, test)
        elif (train >= 0).any():
            measurement.majority = measurement.chance | {"accuracy": majority_accuracy(train, test)}
        measurement.gallery = gallery_of_classes(data.classes, data.card.multi_label)
        yield measurement


def class_scores(data: Evaluation, prompts: list[list[str]]) -> np.ndarray:
    """Compute the cosine of each test image with each class: float64 [n, C]. prompts: a list for each class.

    Where images and texts are compared token by token, it is the mean of the cosines with the prompts (FILIP, section
    3.3).
    """
    images = data.images("test").comparable
    blocks = [images[i : i + ROWS] for i in range(0, len(images), ROWS)]
    if images.ndim == 2:
        return _cosines(blocks, class_embeddings(data, prompts), data.device)
    texts, starts = _prompts(data, prompts)
    scores = _cosines(blocks, texts.comparable, data.device)
    return np.asarray(np.add.reduceat(scores, starts, axis=1) / [len(of_class) for of_class in prompts])


def _cosines(blocks: Iterable[np.ndarray], candidates: np.ndarray, device: torch.device) -> np.ndarray:
    on_device = exact(candidates, device)
    return np.concatenate([cosines(block, on_device).cpu().numpy() for block in blocks])


def class_embeddings(data: Evaluation, prompts: list[list[str]]) -> np.ndarray:
    """Embed each class: the normalised mean of its normalised prompts, float64 [C, D]. prompts: a list for each."""
    texts, starts = _prompts(data, prompts)
    return _unit(np.add.reduceat(_unit(texts.embeddings.astype(np.float64)), starts))


def _prompts(data: Evaluation, prompts: list[list[str]]) -> tuple[Encoded, np.ndarray]:
    """Encode all prompts; also return where those of each class begin."""
    encoded = data.texts([prompt for of_class in prompts for prompt in of_class])
    return encoded, np.cumsum([0] + [len(of_class) for of_class in prompts[:-1]])


def _unit(x: np.ndarray) -> np.ndarray:
    """Scale vectors to unit length."""
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))
