"""Metrics of classification, each computed for many weightings of the examples at once.

A bootstrap resample is a weighting: how often each example was drawn. One pass over the sorted scores serves all
resamples, where calling a library's function on each would take seconds.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from benchmark.common.errors import BenchError
from benchmark.evaluation.measurement import Examples, Gallery, Mean, Measurement, Metric

ELEMENTS = 2**18
"""The most scores in memory at a time."""
FEW = 16
"""The most positives of a class for which comparing all scores with theirs is faster than sorting."""
SPARSE = 16
"""A product with a sparse matrix is faster than a dense one where fewer than 1 in so many values are not zero."""


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


@dataclass(frozen=True)
class _Levels:
    """The levels of C classes: the distinct scores of a class's positives, the highest first; L in all.

    start: [C], the first level of each class. shared: bool [L], whether several examples have that score.
    positives, above, equal: float64 [L, R], the weight of the class's positives at the level, of its negatives that
    score higher, and of those that score the same. negatives: [C, R], of all its negatives.
    """

    start: np.ndarray
    shared: np.ndarray
    positives: np.ndarray
    above: np.ndarray
    equal: np.ndarray
    negatives: np.ndarray

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum values [L, R] over the levels of each class: [C, R]."""
        return np.add.reduceat(values, self.start, axis=0)

    def auroc(self) -> np.ndarray:
        """Compute the AUROC of each class: [C, R]."""
        lost = self.sums(self.positives * (self.above + self.equal / 2))
        pairs = self.sums(self.positives) * self.negatives
        return 1 - _divide(lost, pairs)

    def average_precision(self) -> np.ndarray:
        """Compute the average precision of each class: [C, R]."""
        before = np.cumsum(self.positives, axis=0) - self.positives
        before -= np.repeat(before[self.start], np.diff(self.start, append=len(before)), axis=0)
        retrieved = before + self.positives
        precision = np.divide(retrieved, retrieved + self.above, out=np.zeros_like(retrieved), where=retrieved > 0)
        at = self.shared
        if at.any():
            positives, above = self.positives[at], self.above[at] + before[at]
            precision[at] = expected_precision(above, positives + self.equal[at], before[at], positives)
        return _divide(self.sums(self.positives * precision), self.sums(self.positives))


def _sorted(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> _Levels:
    """Find the levels of one class with positives by sorting. score, positive: [n]; weights: [n, R].

    One product with a sparse matrix of ones gives the sums between levels for all resamples at once; levels are few
    where positives are.
    """
    from scipy.sparse import csr_array

    count = len(score)
    order = np.argsort(-score, kind="stable")
    ordered, is_positive = score[order], positive[order]
    tie = np.cumsum(np.append(True, ordered[1:] != ordered[:-1])) - 1
    is_level = np.zeros(count, dtype=bool)
    is_level[tie[is_positive]] = True
    levels = int(is_level.sum())
    # A negative that ties with no positive gets the level that it comes before; L after the last.
    level = (np.cumsum(is_level) - is_level)[tie]
    row = level + np.where(is_positive, 0, np.where(is_level[tie], levels, 2 * levels))
    sums = csr_array((np.ones(count), (row, order)), shape=(3 * levels + 1, count)) @ weights
    positives, equal, between = sums[:levels], sums[levels : 2 * levels], sums[2 * levels :]
    above = np.cumsum(between[:-1] + equal, axis=0) - equal
    negatives = between.sum(axis=0, keepdims=True) + equal.sum(axis=0)
    shared = np.bincount(level[is_level[tie]], minlength=levels) > 1
    return _Levels(np.zeros(1, dtype=int), shared, positives, above, equal, negatives)


def _compared(score: np.ndarray, positive: np.ndarray, known: np.ndarray, weights: np.ndarray) -> _Levels:
    """Find the levels of C classes, each with positives, by comparing all scores with theirs.

    score, positive, known: [C, n]; weights: [n, R]. A dense product serves all classes at once: much faster than
    _sorted() for few positives.
    """
    of_class, example = np.nonzero(positive)
    level = score[of_class, example]
    order = np.lexsort((-level, of_class))
    of_class, level = of_class[order], level[order]
    new = np.append(True, (of_class[1:] != of_class[:-1]) | (level[1:] != level[:-1]))
    of_class, level = of_class[new], level[new, None]
    scores, positives, negatives = score[of_class], positive[of_class], (known & ~positive)[of_class]
    same = scores == level
    return _Levels(
        np.searchsorted(of_class, np.arange(len(score))),
        (same & (positives | negatives)).sum(axis=1) > 1,
        _weigh(same & positives, weights),
        _weigh((scores > level) & negatives, weights),
        _weigh(same & negatives, weights),
        _weigh(known, weights) - _weigh(positive, weights),
    )


def _weigh(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum values [C, n] with the weights [n, R] of the examples: float64 [C, R]."""
    from scipy.sparse import csr_array

    if np.count_nonzero(values) < values.size / SPARSE:
        return np.asarray(csr_array(values, dtype=np.float64) @ weights)
    return np.asarray(values.astype(np.float64, copy=False) @ weights)


def auroc(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute the probability that a positive scores above a negative; ties count one half.

    score [n], positive bool [n], weights [R, n] -> [R], NaN without positives or without negatives.
    """
    if not positive.any():
        return np.full(len(weights), np.nan)
    return np.asarray(_sorted(score, positive, np.ascontiguousarray(weights.T)).auroc()[0])


def average_precision(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average, over the positives, the precision among all that score at least as high, without interpolation.

    Without ties it is scikit-learn's; an example of weight w counts w times, at one place. Examples that tie are in
    random order, and the value is the expected one over all orders (McSherry and Najork 2008,
    doi:10.1007/978-3-540-78646-7_38), as for random scores: there, each repetition has a place of its own, so that the
    weights must be counts. Shapes as in auroc(); NaN without positives.
    """
    if not positive.any():
        return np.full(len(weights), np.nan)
    return np.asarray(_sorted(score, positive, np.ascontiguousarray(weights.T)).average_precision()[0])


def expected_precision(above: np.ndarray, tied: np.ndarray, right_above: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Compute the expected precision at the place of a right one of ``tied`` that are in random order.

    above: how many come before them; right, right_above: how many of each are right. Counts, of one shape.

    It is the mean over places x = 1 .. tied of (right_above + 1 + (x - 1) others) / (above + x), where ``others`` is
    the share of right ones among the rest (McSherry and Najork 2008, doi:10.1007/978-3-540-78646-7_38).
    """
    from scipy.special import digamma

    others = (right - 1) / np.maximum(tied - 1, 1)
    harmonic = digamma(above + tied + 1.0) - digamma(above + 1.0)
    return np.asarray(others + (right_above + 1 - others - above * others) * harmonic / np.maximum(tied, 1))


def chance_average_precision(positives: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Compute the expected average precision of ``positives`` among ``count`` in random order.

    Bestgen 2015, "Exact Expected Average Precision of the Random Baseline for System Evaluation".
    """
    nothing = np.zeros_like(count)
    return expected_precision(nothing, count, nothing, positives)


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
class Classes:
    """Some classes of n examples, each against the rest: all [C, n].

    score: float64. positive, known: bool; a positive is known. predicted: 0..1, how much the class is predicted.
    """

    score: np.ndarray
    positive: np.ndarray
    known: np.ndarray
    predicted: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """How right the prediction is, 0..1; 0 where the label is unknown."""
        return np.asarray(np.where(self.positive, self.predicted, 1 - self.predicted) * self.known)


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
        total, count = np.zeros((2, len(weights)))
        for _, values in self._parts(examples, weights, self.over or self.classes):
            defined = ~np.isnan(values)
            total += np.where(defined, values, 0).sum(axis=0)
            count += defined.sum(axis=0)
        return _divide(total, count)

    def sides(self, examples: Examples) -> Iterator[tuple[np.ndarray, bool]]:
        """Yield the examples on each side of each class that the mean is over."""
        for c in self._columns(examples, self.over or self.classes):
            if self.multi_label:
                truth = np.asarray(examples[f"label/{self.classes[c]}"])
            else:
                truth = (np.asarray(examples["label"]) == c).astype(int)
            sides = [np.logical_or.reduce([truth == value for value in of_side]) for of_side in self.truths]
            if all(side.any() for side in sides):
                yield from ((side, len(of_side) == 1) for side, of_side in zip(sides, self.truths))

    def _columns(self, examples: Examples, over: Sequence[str]) -> np.ndarray:
        """Return the indices of classes; of exclusive ones, of those that have examples: else nothing is defined."""
        number = {name: c for c, name in enumerate(self.classes)}
        columns = np.array([number[name] for name in over], dtype=int)
        return columns if self.multi_label else columns[np.isin(columns, examples["label"])]

    def per_class(self, examples: Examples, weights: np.ndarray) -> np.ndarray:
        """Compute the value of each class for each weighting: [R, C], NaN where undefined."""
        values = np.full((len(weights), len(self.classes)), np.nan)
        for columns, of_part in self._parts(examples, weights, self.classes):
            values[:, columns] = of_part.T
        return values

    def _parts(
        self, examples: Examples, weights: np.ndarray, over: Sequence[str]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Compute the values of some classes at a time: their indices, and their values [C, R].

        With 10,000 classes, to leave out those without examples and not to hold the scores of all at once bounds time
        and memory.
        """
        columns = self._columns(examples, over)
        count, of_example = len(examples["id"]), np.ascontiguousarray(weights.T, dtype=np.float64)
        step = max(1, ELEMENTS // max(1, count))
        highest = self._highest(examples) if self.predicts and not self.multi_label else None
        for part in (columns[i : i + step] for i in range(0, len(columns), step)):
            yield part, self.values(self._select(examples, part, highest), of_example)

    def _select(
        self, examples: Examples, columns: np.ndarray, highest: tuple[np.ndarray, np.ndarray] | None
    ) -> Classes:
        """Select the classes of some indices. highest: as _highest() returns it."""
        names = [self.classes[c] for c in columns]
        score = np.stack([numbers(examples, f"score/{name}{self.suffix}") for name in names])
        if self.multi_label:
            label = np.stack([np.asarray(examples[f"label/{name}"]) for name in names])
            positive, known = label == 1, label >= 0
        else:
            positive = np.asarray(examples["label"]) == columns[:, None]
            known = np.broadcast_to(True, score.shape)
        # Classes that tie for the highest score share the prediction, and a finding with a score of 0 is half
        # predicted: so a constant score is right as often as chance.
        predicted = np.heaviside(score, 0.5) if highest is None else (score == highest[0]) / highest[1]
        return Classes(score, positive, known, predicted)

    def _highest(self, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
        """Compute each example's highest score, and how many classes have it: [n] each."""
        highest, classes = np.full(len(examples["id"]), -np.inf), np.zeros(len(examples["id"]))
        for name in self.classes:
            np.maximum(highest, numbers(examples, f"score/{name}{self.suffix}"), out=highest)
        for name in self.classes:
            classes += np.asarray(examples[f"score/{name}{self.suffix}"]) == highest
        return highest, classes

    @property
    def predicts(self) -> bool:
        """Whether the value depends on what is predicted, and not on scores alone."""
        return True

    def values(self, classes: Classes, weights: np.ndarray) -> np.ndarray:
        """Compute the values of C classes for each weighting, [n, R]: [C, R], NaN where undefined."""
        raise NotImplementedError


def _ranked(classes: Classes, weights: np.ndarray, value: Callable[[_Levels], np.ndarray]) -> np.ndarray:
    """Compute a value of the ranking of each class: [C, R]; NaN without positives. weights: [n, R]."""
    values = np.full((len(classes.score), weights.shape[1]), np.nan)
    support = classes.positive.sum(axis=1)
    few = (support > 0) & (support <= FEW)
    if few.any():
        values[few] = value(_compared(classes.score[few], classes.positive[few], classes.known[few], weights))
    for c in np.flatnonzero(support > FEW):
        known = classes.known[c]
        of_known = weights if known.all() else weights[known]
        values[c] = value(_sorted(classes.score[c, known], classes.positive[c, known], of_known))[0]
    return values


class _Ranking(PerClass):
    """A value of scores alone."""

    @property
    def predicts(self) -> bool:
        """Whether the value depends on what is predicted, and not on scores alone."""
        return False


class MacroAUROC(_Ranking):
    """AUROC of each class against the rest, in float64, over all raw scores at once."""

    truths = ((1,), (0,))

    def values(self, classes: Classes, weights: np.ndarray) -> np.ndarray:
        """Compute the AUROC of each class."""
        return _ranked(classes, weights, _Levels.auroc)


class MacroAveragePrecision(_Ranking):
    """Average precision of each class against the rest; of what ties, its expected value in random order."""

    truths = ((1,), (0,))

    def values(self, classes: Classes, weights: np.ndarray) -> np.ndarray:
        """Compute the average precision of each class."""
        return _ranked(classes, weights, _Levels.average_precision)


class MacroRecall(PerClass):
    """Balanced accuracy of several classes: the mean recall."""

    def values(self, classes: Classes, weights: np.ndarray) -> np.ndarray:
        """Compute the recall of each class."""
        positive = classes.positive
        return _divide(_weigh(classes.predicted * positive, weights), _weigh(positive, weights))


class MacroF1(PerClass):
    """F1 of each class: 2 TP / (predicted + true)."""

    def values(self, classes: Classes, weights: np.ndarray) -> np.ndarray:
        """Compute the F1 of each class; undefined without positives."""
        true = _weigh(classes.positive, weights)
        hits = _weigh(classes.predicted * classes.positive, weights)
        f1 = _divide(2 * hits, _weigh(classes.predicted * classes.known, weights) + true)
        return np.where(true > 0, f1, np.nan)


class MacroBalancedAccuracy(PerClass):
    """Balanced accuracy of each finding: the mean of its sensitivity and specificity."""

    truths = ((1,), (0,))

    def values(self, classes: Classes, weights: np.ndarray) -> np.ndarray:
        """Compute the balanced accuracy of each finding."""
        positive, negative = classes.positive, classes.known & ~classes.positive
        sensitivity = _divide(_weigh(classes.right * positive, weights), _weigh(positive, weights))
        specificity = _divide(_weigh(classes.right * negative, weights), _weigh(negative, weights))
        return np.asarray((sensitivity + specificity) / 2)


class MacroAccuracy(PerClass):
    """Accuracy of each finding."""

    truths = ((0, 1),)

    def values(self, classes: Classes, weights: np.ndarray) -> np.ndarray:
        """Compute the accuracy of each finding."""
        return _divide(_weigh(classes.right, weights), _weigh(classes.known, weights))


class MacroBrier(_Ranking):
    """Brier score of each finding: the mean of (probability - truth)^2, 0..1."""

    truths = ((0, 1),)

    def values(self, classes: Classes, weights: np.ndarray) -> np.ndarray:
        """Compute the Brier score of each finding."""
        from scipy.special import expit

        distance = (expit(classes.score * self.scale) - classes.positive) ** 2
        return _divide(_weigh(distance * classes.known, weights), _weigh(classes.known, weights))


class MacroCalibrationError(PerClass):
    """Expected calibration error of each finding; the confidence is that of the more probable answer."""

    truths = ((0, 1),)

    def values(self, classes: Classes, weights: np.ndarray) -> np.ndarray:
        """Compute the calibration error of each finding."""
        from scipy.special import expit

        confidence = expit(np.abs(classes.score) * self.scale)
        return np.stack(
            [
                calibration_error(confidence[c, known], classes.right[c, known], weights[known].T)
                for c, known in enumerate(classes.known)
            ]
        )


HEADLINES = {name: name for name in ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "average_precision")}
"""The metrics of classification() that a card may have in the tables, as of Task.headlines."""


def uneven(label: np.ndarray) -> bool:
    """Return whether one class has more than half of the examples whose class is known. label: int [n], -1 unknown."""
    known = np.asarray(label)[np.asarray(label) >= 0]
    return len(known) > 0 and bool(2 * np.bincount(known).max() > len(known))


@dataclass(frozen=True)
class MeanOverClasses(Weighted):
    """The mean over classes of the mean of a per-example column; of whether the answer is right, balanced accuracy.

    Classes without examples are left out. classes: how many. The column ``label`` has the number of the class.
    """

    column: str
    classes: int

    def weighted(self, examples: Examples, weights: np.ndarray) -> np.ndarray:
        """Compute the mean for each weighting."""
        from scipy.sparse import csr_array

        values, label = numbers(examples, self.column), np.asarray(examples["label"])
        at, shape = (label, np.arange(len(label))), (self.classes, len(label))
        of_examples = np.ascontiguousarray(weights.T, dtype=np.float64)
        right, count = (csr_array((each, at), shape=shape) @ of_examples for each in (values, np.ones(len(label))))
        means = _divide(right, count)
        return _divide(np.nansum(means, axis=0), (~np.isnan(means)).sum(axis=0))

    def sides(self, examples: Examples) -> Iterator[tuple[np.ndarray, bool]]:
        """Yield the examples of each class that has some."""
        label = np.asarray(examples["label"])
        yield from ((label == c, True) for c in np.unique(label))


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
    scores = np.asarray(scores, dtype=np.float64)
    if not known.all():
        scores, label = scores[known], label[known]
    examples: dict[str, np.ndarray] = {"id": np.array(ids)[known], "group": np.array(groups)[known]}
    # Metrics read whole classes.
    by_class = np.asfortranarray(scores)
    examples |= {f"score/{name}": by_class[:, c] for c, name in enumerate(classes)}
    for name in classes:
        numbers(examples, f"score/{name}")
    names = tuple(classes)
    columns, metrics = (_findings if multi_label else _exclusive)(scores, label, names, scale)
    examples |= columns
    metrics |= _ranking_metrics(names, multi_label) | _rare_and_common(names, multi_label, rare)
    undefined = [name for name, metric in metrics.items() if np.isnan(metric(examples))]
    if multi_label:
        support, counted = (label == 1).sum(axis=0), (label >= 0).sum(axis=0)
    else:
        support = np.bincount(label, minlength=len(names))
        counted = np.full(len(names), len(label))
    notes = _class_notes(examples, support, names, multi_label) | {
        "undefined": undefined,
        "unknown_label": int((~known).sum()),
    }
    if any(name in rare for name in classes):
        notes["rare"] = [name for name in classes if name in rare]
    metrics = {name: metric for name, metric in metrics.items() if name not in undefined}
    chance = _chance(support, counted, 0.5 if multi_label else 1 / len(classes))
    return Measurement(examples, metrics, {name: chance[name] for name in metrics if name in chance}, notes=notes)


def gallery_of_classes(classes: Sequence[str], multi_label: bool) -> Gallery:
    """Show the scores of the classes in the columns of classification(); most wrong is the highest Brier score."""
    return Gallery("brier", classes=tuple(classes), right="" if multi_label else "correct")


_Columns = tuple[dict[str, np.ndarray], dict[str, Metric]]


def _findings(scores: np.ndarray, label: np.ndarray, names: tuple[str, ...], scale: float) -> _Columns:
    """Make the columns and the metrics that only multi-label examples have."""
    metrics: dict[str, Metric] = {
        "accuracy": MacroAccuracy(names, True),
        "balanced_accuracy": MacroBalancedAccuracy(names, True),
        "ece": MacroCalibrationError(names, True, scale=scale),
        "brier": MacroBrier(names, True, scale=scale),
    }
    columns = {f"label/{name}": label[:, c] for c, name in enumerate(names)}
    return columns | {"brier": _brier_of_findings(scores, label, scale)}, metrics


def _brier_of_findings(scores: np.ndarray, label: np.ndarray, scale: float) -> np.ndarray:
    """Compute the mean of (probability - truth)^2 over the known findings of each example: [n]."""
    from scipy.special import expit

    step = max(1, ELEMENTS // scores.shape[1])
    blocks = [slice(i, i + step) for i in range(0, len(scores), step)]
    return np.concatenate(
        [np.mean((expit(scores[i] * scale) - label[i]) ** 2, axis=1, where=label[i] >= 0) for i in blocks]
    )


def _exclusive(scores: np.ndarray, label: np.ndarray, names: tuple[str, ...], scale: float) -> _Columns:
    """Make the columns and the metrics that only single-label examples have."""
    step = max(1, ELEMENTS // len(names))
    parts = [_of_examples(scores[i : i + step], label[i : i + step], scale) for i in range(0, len(label), step)]
    columns = {"label": label} | {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    metrics: dict[str, Metric] = {
        "accuracy": Mean("correct"),
        "balanced_accuracy": MacroRecall(names),
        "ece": CalibrationError(),
        "brier": Mean("brier", highest=2.0),
    }
    return columns, metrics


def _of_examples(scores: np.ndarray, label: np.ndarray, scale: float) -> dict[str, np.ndarray]:
    """Make the columns of single-label examples: [n] each. Classes that tie for the highest score share it."""
    from scipy.special import softmax

    at = np.arange(len(label)), label
    highest = scores == scores.max(axis=1, keepdims=True)
    probability = softmax(scores * scale, axis=1)
    truth = np.zeros_like(probability)
    truth[at] = 1
    return {
        "predicted": scores.argmax(axis=1),
        "correct": highest[at] / highest.sum(axis=1),
        "confidence": probability.max(axis=1),
        "brier": ((probability - truth) ** 2).sum(axis=1),
    }


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


def _class_notes(examples: Examples, support: np.ndarray, names: tuple[str, ...], multi_label: bool) -> dict[str, Any]:
    """Note the number of examples, recall and AUROC of each class, and the classes without examples."""
    one = np.ones((1, len(examples["id"])))
    return {
        "support": dict(zip(names, support.tolist())),
        "recall": _by_class(names, MacroRecall(names, multi_label).per_class(examples, one)),
        "auroc": _by_class(names, MacroAUROC(names, multi_label).per_class(examples, one)),
        "absent": [name for name, count in zip(names, support) if not count],
    }


def _chance(support: np.ndarray, counted: np.ndarray, guess: float) -> dict[str, float]:
    """Compute the metrics of uninformative scores.

    support, counted: of each class, the positives and the known examples. guess: the probability to predict a class.
    """
    chance = dict.fromkeys(("accuracy", "balanced_accuracy", "rare_recall", "common_recall"), guess)
    chance |= dict.fromkeys(("macro_auroc", "rare_auroc", "common_auroc"), 0.5)
    if (support > 0).any():
        positives, count = support[support > 0], counted[support > 0]
        prevalence = positives / count
        chance["macro_f1"] = float(np.mean(2 * guess * prevalence / (guess + prevalence)))
        chance["average_precision"] = float(np.mean(chance_average_precision(positives, count)))
    return chance


def _by_class(names: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    """Name the values [1, C] of the classes; None where undefined."""
    return {name: None if np.isnan(value) else float(value) for name, value in zip(names, values[0])}
