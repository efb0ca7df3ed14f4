"""Metrics of classification, each computed for many weightings of the examples at once.

A weighting is what a bootstrap resample is: how often each example was drawn. One pass over the sorted scores serves
all resamples, where calling a library's function on each would take seconds.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import digamma, expit, softmax

from benchmark.common.errors import BenchError
from benchmark.evaluation.measurement import Examples, Mean, Measurement, Metric


class Weighted(ABC):
    """A metric over examples of which each counts as often as its weight says."""

    def __call__(self, examples: Examples) -> float:
        return float(self.weighted(examples, np.ones((1, len(examples["id"]))))[0])

    @abstractmethod
    def weighted(self, examples: Examples, weights: np.ndarray) -> np.ndarray:
        """weights: float64 [R, n] -> float64 [R], NaN where the metric is undefined."""


def numbers(examples: Examples, column: str) -> np.ndarray:
    """The column in float64. Raises ``BenchError`` naming the first example that has NaN there; infinity is in order
    (the logit of a class that was never trained).
    """
    values = np.asarray(examples[column], dtype=np.float64)
    bad = np.flatnonzero(np.isnan(values))
    if len(bad):
        raise BenchError(f"example '{examples['id'][bad[0]]}': {column} is not a number (NaN)")
    return values


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A / b, NaN where b is 0."""
    return np.divide(a, b, out=np.full(np.broadcast_shapes(a.shape, b.shape), np.nan), where=b != 0)


def _levels(
    score: np.ndarray, positive: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """At each distinct score that a positive has, L from the highest: the weight of positives, of the negatives that
    score above it, and of those that tie with it, each [L, R]; and the weight of all negatives, [R].

    One product with a sparse matrix of ones gives the sums between levels, which are few where positives are, for all
    resamples at once.
    """
    count = len(score)
    order = np.argsort(-score, kind="stable")
    ordered, found = score[order], positive[order]
    tie = np.cumsum(np.append(True, ordered[1:] != ordered[:-1])[:count]) - 1
    is_level = np.zeros(count, dtype=bool)
    is_level[tie[found]] = True
    levels = int(is_level.sum())
    # Of a negative that ties with no positive: the level that it comes before; L after the last.
    level = (np.cumsum(is_level) - is_level)[tie]
    row = level + np.where(found, 0, np.where(is_level[tie], levels, 2 * levels))
    sums = csr_array((np.ones(count), (row, order)), shape=(3 * levels + 1, count)) @ np.ascontiguousarray(weights.T)
    positives, equal, between = sums[:levels], sums[levels : 2 * levels], sums[2 * levels :]
    above = np.cumsum(between[:-1] + equal, axis=0) - equal
    return positives, above, equal, between.sum(axis=0) + equal.sum(axis=0)


def auroc(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Probability that a positive scores above a negative, ties counting one half. score [n], positive bool [n],
    weights [R, n] -> [R], NaN without positives or without negatives.
    """
    positives, above, equal, negatives = _levels(score, positive, weights)
    beaten = negatives - above - equal / 2
    return _divide((positives * beaten).sum(axis=0), positives.sum(axis=0) * negatives)


def average_precision(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over the positives of the precision among all that score at least as high (scikit-learn's definition, no
    interpolation). Shapes as in auroc(); NaN without positives.
    """
    positives, above, equal, _ = _levels(score, positive, weights)
    found = np.cumsum(positives, axis=0)
    count = found + above + equal
    precision = np.divide(found, count, out=np.zeros_like(found), where=count > 0)
    return _divide((positives * precision).sum(axis=0), positives.sum(axis=0))


def chance_average_precision(positives: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Expected average precision of ``positives`` among ``count`` in random order (Bestgen 2015, Exact Expected Average
    Precision of the Random Baseline for System Evaluation).
    """
    harmonic = digamma(count + 1) + np.euler_gamma
    return np.asarray(((positives - 1) / np.maximum(count - 1, 1) * (count - harmonic) + harmonic) / count)


def calibration_error(confidence: np.ndarray, correct: np.ndarray, weights: np.ndarray, bins: int = 15) -> np.ndarray:
    """Expected calibration error over equal-width bins of confidence (Guo et al. 2017, 15 bins). confidence [n] in
    0..1, correct [n] in 0..1, weights [R, n] -> [R].
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
        return calibration_error(numbers(examples, "confidence"), numbers(examples, "correct"), weights)


@dataclass(frozen=True)
class PerClass(Weighted):
    """A mean over classes (or over findings, when multi-label) of a value that each has; classes for which it is
    undefined (no positives, for AUROC no negatives either) are left out of the mean.

    Reads the columns ``score/CLASS``, and ``label`` (or ``label/FINDING``: 1 present, 0 absent, -1 unknown).
    over: the classes to take the mean over, default all.
    scale: score x scale = logit.
    """

    classes: tuple[str, ...]
    multi_label: bool = False
    over: tuple[str, ...] | None = None
    scale: float = 1.0

    def weighted(self, examples: Examples, weights: np.ndarray) -> np.ndarray:
        columns = [self.classes.index(name) for name in self.over or self.classes]
        values = self.per_class(examples, weights)[:, columns]
        defined = ~np.isnan(values)
        return _divide(np.where(defined, values, 0).sum(axis=1), defined.sum(axis=1).astype(float))

    def per_class(self, examples: Examples, weights: np.ndarray) -> np.ndarray:
        """[R, C], NaN where undefined."""
        scores = np.stack([numbers(examples, f"score/{name}") for name in self.classes], axis=1)
        if self.multi_label:
            truth = np.stack([np.asarray(examples[f"label/{name}"]) for name in self.classes], axis=1)
        else:
            truth = np.asarray(examples["label"])[:, None] == np.arange(len(self.classes))
        predicted = self._predicted(scores)
        columns = []
        for c in range(len(self.classes)):
            known = truth[:, c] >= 0
            positive = truth[known, c] == 1
            # By rows of the transpose, which are in one piece in a bootstrap's weights.
            of_known = weights if known.all() else weights.T[known].T
            columns.append(self.value(scores[known, c], predicted[known, c], positive, of_known))
        return np.stack(columns, axis=1)

    def _predicted(self, scores: np.ndarray) -> np.ndarray:
        """How much each class is predicted, 0..1: classes that tie for the highest score share the prediction, a
        finding that scores neither for nor against is half predicted; so a constant score is right as often as
        chance is.
        """
        if self.multi_label:
            return np.heaviside(scores, 0.5)
        return _share_of_highest(scores)

    def value(self, score: np.ndarray, predicted: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """One class against the rest: each [n], weights [R, n] -> [R]."""
        raise NotImplementedError


class MacroAUROC(PerClass):
    """One-vs-rest, in float64, over all raw scores at once."""

    def value(self, score: np.ndarray, predicted: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return auroc(score, positive, weights)


class MacroAveragePrecision(PerClass):
    """One-vs-rest."""

    def value(self, score: np.ndarray, predicted: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return average_precision(score, positive, weights)


class MacroRecall(PerClass):
    """Balanced accuracy of several classes: the mean recall."""

    def value(self, score: np.ndarray, predicted: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return _divide(weights @ (predicted * positive), weights @ positive.astype(float))


class MacroF1(PerClass):
    """F1 = 2 TP / (predicted + true)."""

    def value(self, score: np.ndarray, predicted: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
        true = weights @ positive.astype(float)
        f1 = _divide(2 * (weights @ (predicted * positive)), weights @ predicted + true)
        return np.where(true > 0, f1, np.nan)


class MacroBalancedAccuracy(PerClass):
    """Balanced accuracy of each finding: the mean of its sensitivity and specificity."""

    def value(self, score: np.ndarray, predicted: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
        sensitivity = _divide(weights @ (predicted * positive), weights @ positive.astype(float))
        specificity = _divide(weights @ ((1 - predicted) * ~positive), weights @ (~positive).astype(float))
        return (sensitivity + specificity) / 2


class MacroAccuracy(PerClass):
    """Accuracy of each finding."""

    def value(self, score: np.ndarray, predicted: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return _divide(weights @ np.where(positive, predicted, 1 - predicted), weights.sum(axis=1))


class MacroBrier(PerClass):
    """Brier score of each finding: the mean of (probability - truth)^2, 0..1."""

    def value(self, score: np.ndarray, predicted: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return _divide(weights @ (expit(score * self.scale) - positive) ** 2, weights.sum(axis=1))


class MacroCalibrationError(PerClass):
    """Expected calibration error of each finding, the confidence being that of the more probable answer."""

    def value(self, score: np.ndarray, predicted: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
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
    """All metrics of n classified examples. Examples whose label is unknown are left out.

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
    names, over = tuple(classes), tuple(name for name in classes if name in rare)
    metrics: dict[str, Metric]
    if multi_label:
        examples |= {f"label/{name}": label[:, c] for c, name in enumerate(classes)}
        truth = label
        metrics = {
            "accuracy": MacroAccuracy(names, True),
            "balanced_accuracy": MacroBalancedAccuracy(names, True),
            "ece": MacroCalibrationError(names, True, scale=scale),
            "brier": MacroBrier(names, True, scale=scale),
        }
    else:
        truth = (label[:, None] == np.arange(len(classes))).astype(int)
        probability = softmax(scores * scale, axis=1)
        examples |= {
            "label": label,
            "predicted": scores.argmax(axis=1),
            "correct": _share_of_highest(scores)[np.arange(len(label)), label],
            "confidence": probability.max(axis=1),
            "brier": ((probability - truth) ** 2).sum(axis=1),
        }
        metrics = {
            "accuracy": Mean("correct"),
            "balanced_accuracy": MacroRecall(names),
            "ece": CalibrationError(),
            "brier": Mean("brier", highest=2.0),
        }
    metrics |= {
        "macro_f1": MacroF1(names, multi_label),
        "macro_auroc": MacroAUROC(names, multi_label),
        "average_precision": MacroAveragePrecision(names, multi_label),
    }
    others = tuple(name for name in classes if name not in rare)
    if over and others:
        for metric, of in (("recall", MacroRecall), ("auroc", MacroAUROC)):
            metrics[f"rare_{metric}"] = of(names, multi_label, over)
            metrics[f"common_{metric}"] = of(names, multi_label, others)
    undefined = [name for name, metric in metrics.items() if np.isnan(metric(examples))]
    support, counted = (truth == 1).sum(axis=0), (truth >= 0).sum(axis=0)
    one = np.ones((1, len(label)))
    notes = {
        "support": dict(zip(classes, support.tolist())),
        "recall": _by_class(classes, MacroRecall(names, multi_label).per_class(examples, one)),
        "auroc": _by_class(classes, MacroAUROC(names, multi_label).per_class(examples, one)),
        "absent": [name for name, count in zip(classes, support) if not count],
        "undefined": undefined,
        "unknown_label": int((~known).sum()),
    }
    if over:
        notes["rare"] = list(over)
    guess = 0.5 if multi_label else 1 / len(classes)
    chance = dict.fromkeys(("accuracy", "balanced_accuracy", "rare_recall", "common_recall"), guess)
    chance |= dict.fromkeys(("macro_auroc", "rare_auroc", "common_auroc"), 0.5)
    if (support > 0).any():
        positives, count = support[support > 0], counted[support > 0]
        prevalence = positives / count
        chance["macro_f1"] = float(np.mean(2 * guess * prevalence / (guess + prevalence)))
        chance["average_precision"] = float(np.mean(chance_average_precision(positives, count)))
    metrics = {name: metric for name, metric in metrics.items() if name not in undefined}
    return Measurement(examples, metrics, {name: chance[name] for name in metrics if name in chance}, notes=notes)


def _by_class(classes: list[str], values: np.ndarray) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else float(value) for name, value in zip(classes, values[0])}


def _share_of_highest(scores: np.ndarray) -> np.ndarray:
    highest = scores == scores.max(axis=1, keepdims=True)
    return np.asarray(highest / highest.sum(axis=1, keepdims=True))
