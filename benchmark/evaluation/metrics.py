"""Metrics of classification, each computed for many weightings of the examples at once.

A bootstrap resample is a weighting: how often each example was drawn. One pass over the sorted scores serves all
resamples, where calling a library's function on each would take seconds.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csr_array
from scipy.special import digamma, expit, softmax

from benchmark.common.errors import BenchError
from benchmark.evaluation.measurement import Examples, Mean, Measurement, Metric


class Weighted(ABC):
    """A metric over weighted examples."""

    def __call__(self, examples: Examples) -> float:
        """Compute the metric with a weight of 1 for each example."""
        return float(self.weighted(examples, np.ones((1, len(examples["id"]))))[0])

    @abstractmethod
    def weighted(self, examples: Examples, weights: np.ndarray) -> np.ndarray:
        """Compute the metric for each weighting, float64 [R, n]: float64 [R], NaN where it is undefined."""


def numbers(examples: Examples, column: str) -> np.ndarray:
    """Return a column in float64.

    Raises ``BenchError`` naming the first example that has NaN there. Infinity is allowed: it is the logit of a class
    that was never trained.
    """
    values = np.asarray(examples[column], dtype=np.float64)
    bad = np.flatnonzero(np.isnan(values))
    if len(bad):
        raise BenchError(f"example '{examples['id'][bad[0]]}': {column} is not a number (NaN)")
    return values


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Divide a by b; NaN where b is 0."""
    return np.asarray(np.divide(a, b, out=np.full(np.broadcast_shapes(a.shape, b.shape), np.nan), where=b != 0))


def _levels(
    score: np.ndarray, positive: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sum the weights at each level, which is a distinct score of a positive: L levels, the highest first.

    Returns the weight of the positives there, of the negatives that score above it, and of those that tie with it, each
    [L, R]; and the weight of all negatives, [R].

    One product with a sparse matrix of ones gives the sums between levels for all resamples at once; levels are few
    where positives are.
    """
    count = len(score)
    order = np.argsort(-score, kind="stable")
    ordered, is_positive = score[order], positive[order]
    tie = np.cumsum(np.append(True, ordered[1:] != ordered[:-1])[:count]) - 1
    is_level = np.zeros(count, dtype=bool)
    is_level[tie[is_positive]] = True
    levels = int(is_level.sum())
    # A negative that ties with no positive gets the level that it comes before; L after the last.
    level = (np.cumsum(is_level) - is_level)[tie]
    row = level + np.where(is_positive, 0, np.where(is_level[tie], levels, 2 * levels))
    sums = csr_array((np.ones(count), (row, order)), shape=(3 * levels + 1, count)) @ np.ascontiguousarray(weights.T)
    positives, equal, between = sums[:levels], sums[levels : 2 * levels], sums[2 * levels :]
    above = np.cumsum(between[:-1] + equal, axis=0) - equal
    return positives, above, equal, between.sum(axis=0) + equal.sum(axis=0)


def auroc(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute the probability that a positive scores above a negative; ties count one half.

    score [n], positive bool [n], weights [R, n] -> [R], NaN without positives or without negatives.
    """
    positives, above, equal, negatives = _levels(score, positive, weights)
    beaten = negatives - above - equal / 2
    return _divide((positives * beaten).sum(axis=0), positives.sum(axis=0) * negatives)


def average_precision(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average, over the positives, the precision among all that score at least as high.

    scikit-learn's definition, without interpolation. Shapes as in auroc(); NaN without positives.
    """
    positives, above, equal, _ = _levels(score, positive, weights)
    retrieved = np.cumsum(positives, axis=0)
    count = retrieved + above + equal
    precision = np.divide(retrieved, count, out=np.zeros_like(retrieved), where=count > 0)
    return _divide((positives * precision).sum(axis=0), positives.sum(axis=0))


def chance_average_precision(positives: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Compute the expected average precision of ``positives`` among ``count`` in random order.

    Bestgen 2015, "Exact Expected Average Precision of the Random Baseline for System Evaluation".
    """
    harmonic = digamma(count + 1) + np.euler_gamma
    return np.asarray(((positives - 1) / np.maximum(count - 1, 1) * (count - harmonic) + harmonic) / count)


def calibration_error(confidence: np.ndarray, correct: np.ndarray, weights: np.ndarray, bins: int = 15) -> np.ndarray:
    """Compute the expected calibration error over equal-width bins of confidence (Guo et al. 2017, 15 bins).

    confidence [n] in 0..1, correct [n] in 0..1, weights [R, n] -> [R].
    """
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.zeros((len(confidence), bins))
    gap[np.arange(len(confidence)), bin_of] = confidence - correct
    return _divide(np.abs(weights @ gap).sum(axis=1), weights.sum(axis=1))


@dataclass(frozen=True)
class Median(Weighted):
    """The median of a per-example column; of an even number, the mean of the two in the middle."""

    column: str

    def weighted(self, examples: Examples, weights: np.ndarray) -> np.ndarray:
        """Compute the median for each weighting."""
        values = numbers(examples, self.column)
        order = np.argsort(values, kind="stable")
        upto = np.cumsum(weights[:, order], axis=1)
        half = upto[:, -1:] / 2
        lower, upper = (upto >= half).argmax(axis=1), (upto > half).argmax(axis=1)
        return np.asarray((values[order][lower] + values[order][upper]) / 2)


@dataclass(frozen=True)
class CalibrationError(Weighted):
    """Expected calibration error of the columns ``confidence`` and ``correct``."""

    def weighted(self, examples: Examples, weights: np.ndarray) -> np.ndarray:
        """Compute the error for each weighting."""
        return calibration_error(numbers(examples, "confidence"), numbers(examples, "correct"), weights)


@dataclass(frozen=True)
class PerClass(Weighted):
    """The mean of a value over classes (over findings, when multi-label).

    Classes for which the value is undefined (no positives; for AUROC no negatives either) are left out of the mean.

    Reads the columns ``score/CLASS``, and ``label`` (or ``label/FINDING``: 1 present, 0 absent, -1 unknown).
    over: the classes to take the mean over; default: all.
    scale: score x scale = logit.
    suffix: of the columns ``score/CLASS``, where examples have several scores.
    """

    classes: tuple[str, ...]
    multi_label: bool = False
    over: tuple[str, ...] | None = None
    scale: float = 1.0
    suffix: str = ""
    truths: ClassVar[tuple[tuple[int, ...], ...]] = ((1,),)
    """The truths of the examples on each side that a class's value averages over; Sided says more."""

    def weighted(self, examples: Examples, weights: np.ndarray) -> np.ndarray:
        """Compute the mean for each weighting."""
        columns = [self.classes.index(name) for name in self.over or self.classes]
        values = self.per_class(examples, weights)[:, columns]
        defined = ~np.isnan(values)
        return _divide(np.where(defined, values, 0).sum(axis=1), defined.sum(axis=1).astype(float))

    def sides(self, examples: Examples) -> Iterator[tuple[np.ndarray, bool]]:
        """Yield the examples on each side of each class that the mean is over."""
        for name in self.over or self.classes:
            if self.multi_label:
                truth = np.asarray(examples[f"label/{name}"])
            else:
                truth = (np.asarray(examples["label"]) == self.classes.index(name)).astype(int)
            sides = [np.isin(truth, of_side) for of_side in self.truths]
            if all(side.any() for side in sides):
                yield from ((side, len(of_side) == 1) for side, of_side in zip(sides, self.truths))

    def per_class(self, examples: Examples, weights: np.ndarray) -> np.ndarray:
        """Compute the value of each class for each weighting: [R, C], NaN where undefined."""
        scores = np.stack([numbers(examples, f"score/{name}{self.suffix}") for name in self.classes], axis=1)
        if self.multi_label:
            truth = np.stack([np.asarray(examples[f"label/{name}"]) for name in self.classes], axis=1)
        else:
            truth = np.asarray(examples["label"])[:, None] == np.arange(len(self.classes))
        predicted = self._predicted(scores)
        columns = []
        for c in range(len(self.classes)):
            known = truth[:, c] >= 0
            positive = truth[known, c] == 1
            # Select rows of the transpose: they are contiguous in a bootstrap's weights.
            of_known = weights if known.all() else weights.T[known].T
            columns.append(self.value(scores[known, c], predicted[known, c], positive, of_known))
        return np.stack(columns, axis=1)

    def _predicted(self, scores: np.ndarray) -> np.ndarray:
        """Return how much each class is predicted, 0..1.

        Classes that tie for the highest score share the prediction, and a finding with a score of 0 is half predicted:
        so a constant score is right as often as chance.
        """
        if self.multi_label:
            return np.asarray(np.heaviside(scores, 0.5))
        return _share_of_highest(scores)

    def value(self, score: np.ndarray, predicted: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Compute the value of one class against the rest: each [n], weights [R, n] -> [R]."""
        raise NotImplementedError


class MacroAUROC(PerClass):
    """AUROC of each class against the rest, in float64, over all raw scores at once."""

    truths = ((1,), (0,))

    def value(self, score: np.ndarray, predicted: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Compute the AUROC of a class."""
        return auroc(score, positive, weights)


class MacroAveragePrecision(PerClass):
    """Average precision of each class against the rest."""

    truths = ((1,), (0,))

    def value(self, score: np.ndarray, predicted: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Compute the average precision of a class."""
        return average_precision(score, positive, weights)


class MacroRecall(PerClass):
    """Balanced accuracy of several classes: the mean recall."""

    def value(self, score: np.ndarray, predicted: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Compute the recall of a class."""
        return _divide(weights @ (predicted * positive), weights @ positive.astype(float))


class MacroF1(PerClass):
    """F1 of each class: 2 TP / (predicted + true)."""

    def value(self, score: np.ndarray, predicted: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Compute the F1 of a class; undefined without positives."""
        true = weights @ positive.astype(float)
        f1 = _divide(2 * (weights @ (predicted * positive)), weights @ predicted + true)
        return np.where(true > 0, f1, np.nan)


class MacroBalancedAccuracy(PerClass):
    """Balanced accuracy of each finding: the mean of its sensitivity and specificity."""

    truths = ((1,), (0,))

    def value(self, score: np.ndarray, predicted: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Compute the balanced accuracy of a finding."""
        sensitivity = _divide(weights @ (predicted * positive), weights @ positive.astype(float))
        specificity = _divide(weights @ ((1 - predicted) * ~positive), weights @ (~positive).astype(float))
        return np.asarray((sensitivity + specificity) / 2)


class MacroAccuracy(PerClass):
    """Accuracy of each finding."""

    truths = ((0, 1),)

    def value(self, score: np.ndarray, predicted: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Compute the accuracy of a finding."""
        return _divide(weights @ np.where(positive, predicted, 1 - predicted), weights.sum(axis=1))


class MacroBrier(PerClass):
    """Brier score of each finding: the mean of (probability - truth)^2, 0..1."""

    truths = ((0, 1),)

    def value(self, score: np.ndarray, predicted: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Compute the Brier score of a finding."""
        return _divide(weights @ (expit(score * self.scale) - positive) ** 2, weights.sum(axis=1))


class MacroCalibrationError(PerClass):
    """Expected calibration error of each finding; the confidence is that of the more probable answer."""

    truths = ((0, 1),)

    def value(self, score: np.ndarray, predicted: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Compute the calibration error of a finding."""
        confidence = expit(np.abs(score) * self.scale)
        return calibration_error(confidence, np.where(positive, predicted, 1 - predicted), weights)


def classification(
    *,
    ids: list[str],
    groups: list[str],
    scores: np.ndarray,
    label: np.ndarray,
    classes: list[str],
    scale: float,
    multi_label: bool,
    rare: frozenset[str] = frozenset(),
) -> Measurement:
    """Measure n classified examples by all metrics. Examples whose label is unknown are left out.

    scores: [n, C]; single-label, the highest is predicted and softmax(scale x scores) are the probabilities;
    multi-label, those above 0 are predicted and sigmoid(scale x scores) are the probabilities.
    label: int [n], or 0/1/-1 [n, C] when multi-label; -1 unknown.
    rare: the classes of which ``rare_recall`` and ``rare_auroc`` are the means; ``common_*`` are those of the others.
    Metrics that are undefined on these examples (AUROC of a single class, say) are left out and named in the notes.
    """
    label = np.asarray(label)
    known = (label >= 0).any(axis=1) if multi_label else label >= 0
    if not known.any():
        raise BenchError(f"none of {len(label)} examples has a known label")
    scores, label = np.asarray(scores, dtype=np.float64)[known], label[known]
    examples: dict[str, np.ndarray] = {"id": np.array(ids)[known], "group": np.array(groups)[known]}
    examples |= {f"score/{name}": scores[:, c] for c, name in enumerate(classes)}
    for name in classes:
        numbers(examples, f"score/{name}")
    names = tuple(classes)
    truth = label if multi_label else (label[:, None] == np.arange(len(classes))).astype(int)
    columns, metrics = (_findings if multi_label else _exclusive)(scores, label, truth, names, scale)
    examples |= columns
    metrics |= _ranking_metrics(names, multi_label) | _rare_and_common(names, multi_label, rare)
    undefined = [name for name, metric in metrics.items() if np.isnan(metric(examples))]
    notes = _class_notes(examples, truth, names, multi_label) | {
        "undefined": undefined,
        "unknown_label": int((~known).sum()),
    }
    if any(name in rare for name in classes):
        notes["rare"] = [name for name in classes if name in rare]
    metrics = {name: metric for name, metric in metrics.items() if name not in undefined}
    chance = _chance(truth, 0.5 if multi_label else 1 / len(classes))
    return Measurement(examples, metrics, {name: chance[name] for name in metrics if name in chance}, notes=notes)


_Columns = tuple[dict[str, np.ndarray], dict[str, Metric]]


def _findings(
    scores: np.ndarray, label: np.ndarray, truth: np.ndarray, names: tuple[str, ...], scale: float
) -> _Columns:
    """Make the columns and the metrics that only multi-label examples have."""
    metrics: dict[str, Metric] = {
        "accuracy": MacroAccuracy(names, True),
        "balanced_accuracy": MacroBalancedAccuracy(names, True),
        "ece": MacroCalibrationError(names, True, scale=scale),
        "brier": MacroBrier(names, True, scale=scale),
    }
    return {f"label/{name}": label[:, c] for c, name in enumerate(names)}, metrics


def _exclusive(
    scores: np.ndarray, label: np.ndarray, truth: np.ndarray, names: tuple[str, ...], scale: float
) -> _Columns:
    """Make the columns and the metrics that only single-label examples have."""
    probability = softmax(scores * scale, axis=1)
    columns = {
        "label": label,
        "predicted": scores.argmax(axis=1),
        "correct": _share_of_highest(scores)[np.arange(len(label)), label],
        "confidence": probability.max(axis=1),
        "brier": ((probability - truth) ** 2).sum(axis=1),
    }
    metrics: dict[str, Metric] = {
        "accuracy": Mean("correct"),
        "balanced_accuracy": MacroRecall(names),
        "ece": CalibrationError(),
        "brier": Mean("brier", highest=2.0),
    }
    return columns, metrics


def _ranking_metrics(names: tuple[str, ...], multi_label: bool) -> dict[str, Metric]:
    """Make the metrics that both kinds of labels have."""
    return {
        "macro_f1": MacroF1(names, multi_label),
        "macro_auroc": MacroAUROC(names, multi_label),
        "average_precision": MacroAveragePrecision(names, multi_label),
    }


def _rare_and_common(names: tuple[str, ...], multi_label: bool, rare: frozenset[str]) -> dict[str, Metric]:
    """Make the means over the rare classes and over the others; none where either are missing."""
    metrics: dict[str, Metric] = {}
    over, others = tuple(name for name in names if name in rare), tuple(name for name in names if name not in rare)
    if over and others:
        for metric, of_classes in (("recall", MacroRecall), ("auroc", MacroAUROC)):
            metrics[f"rare_{metric}"] = of_classes(names, multi_label, over)
            metrics[f"common_{metric}"] = of_classes(names, multi_label, others)
    return metrics


def _class_notes(examples: Examples, truth: np.ndarray, names: tuple[str, ...], multi_label: bool) -> dict[str, Any]:
    """Note the number of examples, recall and AUROC of each class, and the classes without examples."""
    support, one = (truth == 1).sum(axis=0), np.ones((1, len(truth)))
    return {
        "support": dict(zip(names, support.tolist())),
        "recall": _by_class(names, MacroRecall(names, multi_label).per_class(examples, one)),
        "auroc": _by_class(names, MacroAUROC(names, multi_label).per_class(examples, one)),
        "absent": [name for name, count in zip(names, support) if not count],
    }


def _chance(truth: np.ndarray, guess: float) -> dict[str, float]:
    """Compute the metrics of uninformative scores. guess: the probability that it predicts a class."""
    chance = dict.fromkeys(("accuracy", "balanced_accuracy", "rare_recall", "common_recall"), guess)
    chance |= dict.fromkeys(("macro_auroc", "rare_auroc", "common_auroc"), 0.5)
    support, counted = (truth == 1).sum(axis=0), (truth >= 0).sum(axis=0)
    if (support > 0).any():
        positives, count = support[support > 0], counted[support > 0]
        prevalence = positives / count
        chance["macro_f1"] = float(np.mean(2 * guess * prevalence / (guess + prevalence)))
        chance["average_precision"] = float(np.mean(chance_average_precision(positives, count)))
    return chance


def _by_class(names: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    """Name the values [1, C] of the classes; None where undefined."""
    return {name: None if np.isnan(value) else float(value) for name, value in zip(names, values[0])}


def _share_of_highest(scores: np.ndarray) -> np.ndarray:
    """Share the prediction [n, C] among the classes that have the highest score."""
    highest = scores == scores.max(axis=1, keepdims=True)
    return np.asarray(highest / highest.sum(axis=1, keepdims=True))
