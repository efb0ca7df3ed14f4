"""Linear probe: how well a linear classifier separates the classes in frozen image features."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveFloat
from sklearn.model_selection import GroupKFold
from torch import Tensor

from benchmark import BenchError, Card, Evaluation, Measurement, Task, register_task
from benchmark.metrics import classification
from benchmark.probe import (
    Labelled,
    Path,
    Stage,
    deviation,
    known,
    labelled,
    logistic_path,
    majority_accuracy,
    rare_classes,
)


@register_task("linear_probe")
class LinearProbe(Task):
    """Fit logistic regression to the standardised features of train, choose its regularisation on val, and test it.

    Features are divided by their standard deviation over train. A classifier is fitted on train for each of the
    ``strengths``; the one with the lowest cross-entropy on val is kept, without fitting it again. Where val has no
    labels, the cross-entropy is that of grouped cross-validation in train. Examples of a class that train lacks do not
    count in that choice, and count as wrong in test. Scores are log-probabilities (logits when multi-label). Chance of
    accuracy is that of train's most common class (of the more common answer to each finding).
    """

    summary = "Logistic regression on frozen image features, its regularisation chosen on val."
    source = "Alain and Bengio 2016, https://arxiv.org/abs/1610.01644; Radford et al. 2021, section 3.2"
    primary = "accuracy"
    needs = frozenset({"label"})
    splits = ("train", "test")

    @dataclass
    class Config:
        """The options.

        features: before or after the projection into the shared space.
        strengths: of regularisation, C of scikit-learn's LogisticRegression.
        folds: of the cross-validation where val has no labels.
        rare_below: classes with fewer train images than this are rare; they get means of their own, unless all classes
        are rare.
        """

        features: Stage = "before"
        strengths: tuple[PositiveFloat, ...] = tuple(float(f"{10 ** (k / 2):.4g}") for k in range(-10, 3))
        folds: Annotated[int, Field(ge=2)] = 5
        rare_below: NonNegativeInt = 100

    @classmethod
    def primary_for(cls, card: Card) -> str:
        """Return the metric of the dataset's kind of labels."""
        return "macro_auroc" if card.multi_label else "accuracy"

    def evaluate(self, data: Evaluation, seed: int) -> Iterator[Measurement]:
        """Fit the classifiers, choose one, and score the test images."""
        train = known(data, "train", self.config.features)
        scale = deviation(train.features)
        path = self.fit(train, scale, len(data.classes))
        val = labelled(data, "val", self.config.features) if "val" in data.splits() else train.take(np.array([], int))
        if (val.label >= 0).any():
            losses, chosen_on = cross_entropy(path(val.features / scale), val.label), "val"
        else:
            losses, chosen_on = self.cross_validate(train, data), f"{self.config.folds}-fold cross-validation in train"
        best = int(losses.argmin())
        test = labelled(data, "test", self.config.features)
        scores = path(test.features / scale)[best]
        measurement = classification(
            ids=test.ids.tolist(),
            groups=test.groups.tolist(),
            scores=(scores if data.card.multi_label else scores.log_softmax(1)).cpu().numpy(),
            label=test.label.cpu().numpy(),
            classes=data.classes,
            scale=1.0,
            multi_label=data.card.multi_label,
            rare=rare_classes(data, self.config.rare_below),
        )
        measurement.notes |= {
            "strength": self.config.strengths[best],
            "strength_chosen_on": chosen_on,
            "cross_entropy": dict(zip(map(str, self.config.strengths), losses.tolist())),
            "train_images": len(train),
        }
        measurement.chance["accuracy"] = majority_accuracy(train.label, test.label)
        measurement.majority = measurement.chance
        yield measurement

    def fit(self, train: Labelled, scale: Tensor, classes: int) -> Path:
        """Fit a classifier for each strength."""
        return logistic_path(train.features / scale, train.label, classes, self.config.strengths)

    def cross_validate(self, train: Labelled, data: Evaluation) -> Tensor:
        """Compute the mean cross-entropy of the examples when their group is left out: [P]."""
        folds = min(self.config.folds, len(set(train.groups)))
        if folds < 2:
            raise BenchError(
                f"dataset '{data.card.name}': val has no labels and train has only one group, '{train.groups[0]}', so "
                "that there is nothing to choose the regularisation on; label some images of val"
            )
        scores, labels = [], []
        for rows, held_out in GroupKFold(folds).split(train.ids, groups=train.groups):
            part, rest = train.take(rows), train.take(held_out)
            scale = deviation(part.features)
            scores.append(self.fit(part, scale, len(data.classes))(rest.features / scale))
            labels.append(rest.label)
        return cross_entropy(torch.cat(scores, 1), torch.cat(labels))


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Compute the cross-entropy [P] of logits [P, n, K].

    The mean over the examples (over examples and findings, when label is [n, K]) whose label is known and possible (its
    logit is not minus infinity).
    """
    if label.ndim == 2:
        losses = -torch.nn.functional.logsigmoid(-logits) - logits * label
        return losses[:, label >= 0].mean(1)
    usable = label >= 0
    losses = -logits[:, usable].log_softmax(2).gather(2, label[usable].expand(len(logits), -1)[..., None])[..., 0]
    return losses[:, losses[0].isfinite()].mean(1)
