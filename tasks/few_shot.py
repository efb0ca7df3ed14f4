"""Few-shot classification: how well a linear classifier on frozen features does with few labelled images."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import one_hot

from benchmark import (
    BenchError,
    Card,
    Evaluation,
    Mean,
    MeanOverDraws,
    Measurement,
    Metric,
    Task,
    generator,
    register_task,
)
from benchmark.metrics import MacroAUROC, MeanOverClasses, uneven
from benchmark.probe import Labelled, Stage, deviation, known, majority_scores, ridge


@register_task("few_shot")
class FewShot(Task):
    """Fit ridge regression to the standardised features of a few train images; the mean over draws of them.

    ``@4``: four images of each class; multi-label, four with and four without each finding, in one set.
    ``@10%``: whole groups (patients) in random order up to 10 % of the images, then the next group with each class
    (with and without each finding) that is still missing: so that it may be more than 10 %, and the notes have the
    numbers that were drawn. The draws depend on seed and dataset alone, so they are the
    same for all methods. Only the drawn images are used: features are divided by their standard deviation over these
    images, and the regularisation has the smallest leave-one-out error on them.

    accuracy@: of the class with the highest score; classes that tie share the prediction. The mean over draws. Chance
    is one over the number of classes; for a percentage, which keeps the frequencies of the classes, it is the frequency
    of train's most common class.
    balanced_accuracy@: the mean over classes of that accuracy, where one class has more than half of the test images or
    the card names it as its headline. Chance is one over the number of classes.
    macro_auroc@ (multi-label): the mean over findings and draws.
    Numbers of shots that some class of train lacks are left out, and named in the notes. A class without train images
    is never predicted.
    """

    summary = "A linear classifier on frozen image features from few labelled images, over several draws of them."
    source = (
        "shots: CLIP (Radford et al. 2021, arXiv:2103.00020); percentages: ConVIRT (Zhang et al. 2020, "
        "arXiv:2010.00747); least squares: google-research/big_vision, evaluators/fewshot_lsr.py"
    )
    primary = "accuracy@10%"
    headlines = {name: f"{name}@10%" for name in ("accuracy", "balanced_accuracy", "macro_auroc")}
    uneven = "balanced_accuracy"
    needs = frozenset({"label"})
    splits = ("train", "test")

    @dataclass
    class Config:
        """The options.

        features: before or after the projection into the shared space.
        shots: images a class. percentages: of the train images. draws: of each.
        strengths: of regularisation, as benchmark.probe.ridge defines them.
        """

        features: Stage = "before"
        shots: tuple[PositiveInt, ...] = (1, 2, 4, 8, 16)
        percentages: tuple[Annotated[float, Field(gt=0, le=100)], ...] = (1, 10, 100)
        draws: PositiveInt = 5
        strengths: tuple[PositiveFloat, ...] = tuple(float(f"{10 ** (k / 2):.4g}") for k in range(-8, 7))

    @classmethod
    def primary_for(cls, card: Card) -> str:
        """Return the metric of the dataset's kind of labels, at 10 % of the train images."""
        return "macro_auroc@10%" if card.multi_label else "accuracy@10%"

    def evaluate(self, data: Evaluation, seed: int) -> Iterator[Measurement]:
        """Fit a classifier to each draw of train images, and score the test images."""
        train, test = (known(data, split, self.config.features) for split in ("train", "test"))
        kinds = kinds_of(train.label.cpu().numpy())
        if not kinds.shape[1]:
            raise BenchError(f"dataset '{data.card.name}', train: no finding is known present and known absent")
        scarcest = int(kinds.sum(0).min())
        drawn: dict[str, list[np.ndarray]] = {}
        names, group = np.unique(train.groups, return_inverse=True)
        for draw in range(self.config.draws):
            rng = generator(seed, "few_shot", data.card.name, draw)
            order = rng.permutation(len(train))
            for shots in self.config.shots:
                if shots <= scarcest:
                    drawn.setdefault(f"{shots}", []).append(draw_shots(kinds, shots, order))
            order = rng.permutation(len(names))
            for percentage in self.config.percentages:
                if percentage < 100 or draw == 0:
                    rows = draw_groups(kinds, group, round(len(train) * percentage / 100), order)
                    drawn.setdefault(f"{percentage:g}%", []).append(rows)
        scores: dict[str, list[np.ndarray]] = {}
        total = sum(map(len, drawn.values()))
        for point, of_point in drawn.items():
            scores[point] = []
            for rows in of_point:
                data.progress("fitting draws", sum(map(len, scores.values())), total)
                of_draw = self.scores(train.take(rows), test.features, len(data.classes))
                scores[point].append(of_draw.cpu().numpy())
        measure = findings if data.card.multi_label else classes
        label = test.label.cpu().numpy()
        measurement = measure(label, scores, data.classes)
        measurement.examples |= {"id": test.ids, "group": test.groups}
        truth = label if data.card.multi_label else label[:, None] == np.arange(len(data.classes))
        support = dict(zip(data.classes, (truth == 1).sum(0).tolist()))
        by_point = {name.split("@")[1]: name for name in measurement.metrics}
        balanced = not data.card.multi_label and (uneven(label) or data.card.headline == "balanced_accuracy")
        if balanced:
            measurement.metrics |= {
                f"balanced_accuracy@{point}": balanced_accuracy(measurement.metrics[name], len(data.classes))
                for point, name in by_point.items()
            }
        measurement.notes |= {
            "curve": {
                "images a class": {point: by_point[point] for point in by_point if not point.endswith("%")},
                "share of train": {point: by_point[point] for point in by_point if point.endswith("%")},
            },
            "drawn": {
                name: {
                    "images": [len(rows) for rows in drawn[point]],
                    "groups": [len(np.unique(group[rows])) for rows in drawn[point]],
                }
                for name in measurement.metrics
                for point in [name.split("@")[1]]
            },
            "left_out": [shots for shots in self.config.shots if shots > scarcest],
            "scarcest_class": scarcest,
            "support": support,
            "absent": [name for name, count in support.items() if not count],
        }
        measurement.majority = dict(measurement.chance)
        if not data.card.multi_label:
            of_majority = majority_scores(train.label, test.label)
            measurement.majority = {name: of_majority[name.split("@")[0]] for name in measurement.metrics}
            measurement.chance = dict.fromkeys(measurement.metrics, 1 / len(data.classes)) | {
                name: of_majority["accuracy"] for name in by_point.values() if name.endswith("%")
            }
        measurement.gallery = "each score is a mean over draws of train images, so that no image has one answer"
        yield measurement

    def scores(self, shots: Labelled, features: Tensor, classes: int) -> Tensor:
        """Fit the classifier to the shots, and score the test features [n, d]: [n, classes]."""
        scale = deviation(shots.features)
        learned, features = shots.features / scale, features / scale
        if shots.label.ndim == 1:
            scores = features.new_full((len(features), classes), -torch.inf)
            present, target = torch.unique(shots.label, return_inverse=True)
            weight, intercept = ridge(learned, one_hot(target), self.config.strengths)
            scores[:, present] = features @ weight.T + intercept
            return scores
        scores = features.new_zeros(len(features), classes)
        # Findings that are known for the same images share one regression.
        patterns, pattern_of = torch.unique(shots.label >= 0, dim=1, return_inverse=True)
        for number, rows in enumerate(patterns.T):
            if rows.any():
                columns = pattern_of == number
                target = shots.label[rows][:, columns]
                weight, intercept = ridge(learned[rows], target, self.config.strengths, together=False)
                scores[:, columns] = features @ weight.T + intercept
        return scores


def classes(label: np.ndarray, scores: dict[str, list[np.ndarray]], names: list[str]) -> Measurement:
    """Measure single-label examples. label: [n]; scores: by point, one [n, C] a draw."""
    examples, metrics = {"label": label}, dict[str, Metric]()
    for point, of_point in scores.items():
        columns = [f"correct@{point}/{draw}" for draw in range(len(of_point))]
        for column, of_draw in zip(columns, of_point):
            highest = of_draw == of_draw.max(1, keepdims=True)
            examples[column] = highest[np.arange(len(label)), label] / highest.sum(1)
        metrics[f"accuracy@{point}"] = MeanOverDraws(tuple(Mean(column) for column in columns))
    return Measurement(examples, metrics, dict.fromkeys(metrics, 1 / len(names)))


def balanced_accuracy(accuracy: Metric, classes: int) -> MeanOverDraws:
    """Make the mean over classes of an accuracy. accuracy: of the metrics of classes()."""
    assert isinstance(accuracy, MeanOverDraws)
    columns = [of_draw.column for of_draw in accuracy.draws if isinstance(of_draw, Mean)]
    return MeanOverDraws(tuple(MeanOverClasses(column, classes) for column in columns))


def findings(label: np.ndarray, scores: dict[str, list[np.ndarray]], names: list[str]) -> Measurement:
    """Measure multi-label examples. label: [n, C]; scores: by point, one [n, C] a draw."""
    examples = {f"label/{name}": label[:, c] for c, name in enumerate(names)}
    examples["id"] = np.arange(len(label))
    metrics, undefined = dict[str, Metric](), list[str]()
    for point, of_point in scores.items():
        suffixes = [f"@{point}/{draw}" for draw in range(len(of_point))]
        for suffix, of_draw in zip(suffixes, of_point):
            examples |= {f"score/{name}{suffix}": of_draw[:, c] for c, name in enumerate(names)}
        metric = MeanOverDraws(tuple(MacroAUROC(tuple(names), True, suffix=suffix) for suffix in suffixes))
        if np.isnan(metric(examples)):
            undefined.append(f"macro_auroc@{point}")
        else:
            metrics[f"macro_auroc@{point}"] = metric
    return Measurement(examples, metrics, dict.fromkeys(metrics, 0.5), notes={"undefined": undefined})


def kinds_of(label: np.ndarray) -> np.ndarray:
    """Mark the kinds of examples that each draw must contain: bool [n, kinds].

    Each class of label [n]; or each finding of label [n, K], present and absent, where both are known of some example.
    """
    if label.ndim == 1:
        return np.asarray(label[:, None] == np.unique(label))
    both = (label == 1).any(0) & (label == 0).any(0)
    return np.concatenate([label[:, both] == 1, label[:, both] == 0], axis=1)


def draw_shots(kinds: np.ndarray, shots: int, order: np.ndarray) -> np.ndarray:
    """Draw the first ``shots`` examples of each kind in ``order``. Returns rows, ascending."""
    return np.unique([order[of_kind[order]][:shots] for of_kind in kinds.T])


def draw_groups(kinds: np.ndarray, group: np.ndarray, count: int, order: np.ndarray) -> np.ndarray:
    """Draw the first groups in ``order`` of at most ``count`` rows together, and the first with each kind they lack.

    group: [n], the number of each row's group. Returns rows, ascending.
    """
    position = np.argsort(order)[group]
    taken = order[np.cumsum(np.bincount(group)[order]) <= count]
    rows = np.isin(group, taken)
    for of_kind in kinds.T:
        if not (rows & of_kind).any():
            rows |= position == position[of_kind].min()
    return np.flatnonzero(rows)
