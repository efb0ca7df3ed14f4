"""Linear probe: how well a linear classifier separates the classes in frozen image features."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark import BenchError, Card, Evaluation, Measurement, Task, register_task, stream, torch_seed
from benchmark.metrics import HEADLINES, classification, gallery_of_classes
from benchmark.probe import (
    Labelled,
    Stage,
    deviation,
    known,
    labelled,
    logistic_paths,
    majority_accuracy,
    majority_scores,
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

    With ``protocol: roy2024`` it is the probe of Roy et al. 2024 instead, see trained_by_adamw(); val is not used.
    """

    summary = "Logistic regression on frozen image features, its regularisation chosen on val."
    source = "Alain and Bengio 2016, https://arxiv.org/abs/1610.01644; Radford et al. 2021, section 3.2"
    primary = "accuracy"
    headlines = HEADLINES
    uneven = "balanced_accuracy"
    needs = frozenset({"label"})
    splits = ("train", "test")

    @dataclass
    class Config:
        """The options.

        protocol: logistic_regression, or roy2024, which has no further option but ``features``.
        features: before or after the projection into the shared space (Roy 2024: after [C]).
        strengths: of regularisation, C of scikit-learn's LogisticRegression.
        folds: of the cross-validation where val has no labels.
        rare_below: classes with fewer train images than this are rare; they get means of their own, unless all classes
        are rare.
        """

        protocol: Literal["logistic_regression", "roy2024"] = "logistic_regression"
        features: Stage = "before"
        strengths: tuple[PositiveFloat, ...] = tuple(float(f"{10 ** (k / 2):.4g}") for k in range(-10, 3))
        folds: Annotated[int, Field(ge=2)] = 5
        rare_below: NonNegativeInt = 100

    @classmethod
    def primary_for(cls, card: Card) -> str:
        """Return the metric of the dataset's kind of labels."""
        return "macro_auroc" if card.multi_label else "accuracy"

    def evaluate(self, data: Evaluation, seed: int) -> Iterator[Measurement]:
        """Fit the classifier, and score the test images."""
        train = known(data, "train", self.config.features)
        test = labelled(data, "test", self.config.features)
        if self.config.protocol == "roy2024":
            with torch_seed(stream(seed, "linear_probe", data.card.name)):
                scores = trained_by_adamw(train, test.features, len(data.classes), progress=data.progress)
            notes: dict[str, Any] = {"protocol": "roy2024"}
        else:
            scores, notes = self.chosen(data, train, test)
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
        measurement.notes |= {**notes, "train_images": len(train)}
        measurement.chance["accuracy"] = majority_accuracy(train.label, test.label)
        measurement.majority = measurement.chance
        if not data.card.multi_label:
            measurement.majority = measurement.chance | majority_scores(train.label, test.label)
        measurement.gallery = gallery_of_classes(data.classes, data.card.multi_label)
        yield measurement

    def chosen(self, data: Evaluation, train: Labelled, test: Labelled) -> tuple[Tensor, dict[str, Any]]:
        """Fit a classifier for each strength and choose one; return its logits of test [n, K] and how it was chosen."""
        val = labelled(data, "val", self.config.features) if "val" in data.splits() else train.take(np.array([], int))
        on_val = bool((val.label >= 0).any())
        folds = [] if on_val else self.folds(train, data)
        kept = np.ones((1 + len(folds), len(train)), dtype=bool)
        for part, held_out in zip(kept[1:], folds):
            part[held_out] = False
        parts = torch.from_numpy(kept).to(train.features.device)
        path, *of_folds = logistic_paths(
            train.features,
            train.label,
            len(data.classes),
            self.config.strengths,
            parts,
            torch.stack([deviation(train.features[part]) for part in parts]),
            progress=partial(data.progress, "fitting strengths"),
        )
        if on_val:
            losses, chosen_on = cross_entropy(path(val.features), val.label), "val"
        else:
            left_out = [train.take(rows) for rows in folds]
            logits = torch.cat([of_fold(rest.features) for of_fold, rest in zip(of_folds, left_out)], 1)
            losses = cross_entropy(logits, torch.cat([rest.label for rest in left_out]))
            chosen_on = f"{self.config.folds}-fold cross-validation in train"
        best = int(losses.argmin())
        strengths = self.config.strengths
        edges = {min(strengths), max(strengths)} if len(strengths) > 1 else set()
        return path(test.features)[best], {
            "strength": strengths[best],
            "at_edge": {"strength": strengths[best]} if strengths[best] in edges else {},
            "strength_chosen_on": chosen_on,
            "cross_entropy": dict(zip(map(str, strengths), losses.tolist())),
        }

    def folds(self, train: Labelled, data: Evaluation) -> list[np.ndarray]:
        """List the rows of train that each fold of the cross-validation leaves out; a group is in one fold."""
        # It takes more than a second to import.
        from sklearn.model_selection import GroupKFold

        folds = min(self.config.folds, len(set(train.groups)))
        if folds < 2:
            raise BenchError(
                f"dataset '{data.card.name}': val has no labels and train has only one group, '{train.groups[0]}', so "
                "that there is nothing to choose the regularisation on; label some images of val"
            )
        return [held_out for _, held_out in GroupKFold(folds).split(train.ids, groups=train.groups)]


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


def trained_by_adamw(
    train: Labelled,
    features: Tensor,
    classes: int,
    *,
    epochs: int = 40,
    batch_size: int = 64,
    learning_rate: float = 0.1,
    progress: Callable[[str, int, int], object] = lambda doing, done, total: None,
) -> Tensor:
    """Train one linear layer on unit-length features by AdamW, and compute its logits [n, K] of ``features`` [n, d].

    Cross-entropy; binary cross-entropy over the known labels when multi-label. No weight decay; the rate falls from
    the first step to 0 along a cosine. The layer starts, and the batches are drawn, from torch's global generator.
    progress: as of an ``Evaluation``.

    Source, also of the defaults: Roy et al. 2024, arXiv:2406.07450 [C]: afkanpour/benchmarking-contrastive,
    clip_benchmark/metrics/linear_probe.py and scripts/downstream_eval/linear_probe_1.slrm. There the layer runs in
    half precision, here in float32.
    """
    inputs, label = F.normalize(train.features, dim=1).float(), train.label
    layer = nn.Linear(inputs.shape[1], classes).to(inputs.device)
    optimizer = torch.optim.AdamW(layer.parameters(), learning_rate, weight_decay=0.0, fused=True)
    steps = epochs * -(-len(inputs) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(epochs):
        progress("training epochs", epoch, epochs)
        for batch in torch.split(torch.randperm(len(inputs)).to(inputs.device), batch_size):
            logits, target = layer(inputs[batch]), label[batch]
            if label.ndim == 2:
                answered = target >= 0
                loss = F.binary_cross_entropy_with_logits(logits[answered], target[answered].float())
            else:
                loss = F.cross_entropy(logits, target)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        scores: Tensor = layer(F.normalize(features, dim=1).float()).double()
    return scores
