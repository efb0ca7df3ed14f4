"""The labelled features of a split, and what probes on them have in common."""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from benchmark.common.errors import BenchError
from benchmark.evaluation.encoder import exact
from benchmark.evaluation.evaluation import Evaluation

Stage = Literal["before", "after"]
"""Which output of the encoder: features before the projection into the shared space, or embeddings after it."""


@dataclass(frozen=True)
class Labelled:
    """The images of a split in the order of their ids, so that no result depends on the order of the files.

    ids, groups: str [n]; features: float64 [n, d]; label: int64 [n], or [n, K] when multi-label, -1 unknown; both on
    the evaluation's device.
    """

    ids: np.ndarray
    groups: np.ndarray
    features: Tensor
    label: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> Self:
        """Select rows by their indices int [m]."""
        at = torch.from_numpy(rows).to(self.features.device)
        return type(self)(self.ids[rows], self.groups[rows], self.features[at], self.label[at])


def labelled(data: Evaluation, split: str, stage: Stage) -> Labelled:
    """Load all images of a split, with or without a known label."""
    records, encoded = data.records(split), data.images(split)
    order = np.argsort(np.array(records.ids))
    features = (encoded.features if stage == "before" else encoded.embeddings)[order]
    return Labelled(
        np.array(records.ids)[order],
        np.array(records.groups)[order],
        exact(features, data.device),
        torch.from_numpy(np.array(records.label[order], dtype=np.int64)).to(data.device),
    )


def known(data: Evaluation, split: str, stage: Stage) -> Labelled:
    """Load the images of a split that have a known label (of any finding, when multi-label).

    Raises ``BenchError`` when none has.
    """
    images = labelled(data, split, stage)
    usable = images.label >= 0
    rows = np.flatnonzero((usable.any(1) if usable.ndim == 2 else usable).cpu().numpy())
    if not len(rows):
        raise BenchError(f"dataset '{data.card.name}', {split}: none of {len(images)} images has a known label")
    return images.take(rows)


def deviation(features: Tensor) -> Tensor:
    """Compute the standard deviation [d] over examples [n, d]; 1 where a feature varies by float32 rounding alone."""
    spread = features.std(0, correction=0)
    return torch.where(spread > 1e-6 * features.abs().amax(0), spread, 1.0)


def majority_accuracy(train: Tensor, test: Tensor) -> float:
    """Compute the share of the known labels of test that are train's most common class.

    Labels [n], or, multi-label, [n, K]: the mean over the findings that test knows.
    """
    if train.ndim == 2:
        shares = [majority_accuracy(*columns) for columns in zip(train.T, test.T) if (columns[1] >= 0).any()]
        return float(np.mean(shares))
    count = train[train >= 0].bincount()
    right = test[test >= 0] == (count.argmax() if len(count) else 0)
    return float(right.double().mean())


def majority_scores(train: Tensor, test: Tensor) -> dict[str, float]:
    """Compute what always answering train's most common class gets, of the classes of test; labels [n].

    Without labels in train, the most common class of test is answered. By metric: accuracy, balanced_accuracy (the mean
    recall of the classes that test has) and macro_f1.
    """
    known = test[test >= 0]
    right = majority_accuracy(train if (train >= 0).any() else known, known)
    classes = int((known.bincount() > 0).sum())
    recall, f1 = float(right > 0), 2 * right / (1 + right)
    return {"accuracy": right, "balanced_accuracy": recall / classes, "macro_f1": f1 / classes}


def rare_classes(data: Evaluation, below: int) -> frozenset[str]:
    """List the classes that the card makes rare, or else those with fewer than ``below`` examples in train.

    None without a train split, or where all are rare. All parts that are drawn of a set have the same rare classes.
    """
    if made_rare := frozenset(data.card.source.keep):
        return made_rare if len(made_rare) < len(data.classes) else frozenset()
    if "train" not in data.splits():
        return frozenset()
    label = np.array(data.dataset.column("train", "label", whole=True))
    if data.card.multi_label:
        support = (label == 1).sum(axis=0)
    else:
        support = np.bincount(label[label >= 0], minlength=len(data.classes))
    rare = frozenset(name for name, count in zip(data.classes, support) if count < below)
    return rare if len(rare) < len(data.classes) else frozenset()
