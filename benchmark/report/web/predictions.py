"""What a model predicts: confusion matrices, ROC curves and reliability, from the stored scores of examples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmark.common.text import display_name
from benchmark.report.plots import GREY, INK
from benchmark.report.render import Chart
from benchmark.report.results import Results, each_row, natural
from benchmark.report.web.charts import (
    CHOICE,
    Lines,
    choice,
    names,
    ranked_labels,
    right_of_labels,
    specification,
    table,
    unless,
)

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

MOST_CLASSES = 20
"""The classes of a dataset that a confusion matrix and ROC curves show: the most frequent ones."""
GRID, SHORTEST_GRID, GRID_IN_ALL = 101, 21, 150_000
"""False-positive rates at which ROC curves are drawn: so many, or fewer where those of all curves were too many."""
BINS = 15
"""Of confidence, as in the metric ece."""
MACRO = "mean over classes"


@dataclass(frozen=True)
class Predicted:
    """The predictions of a line for n examples.

    classes: those shown. score, positive, known: [n, C], of each class. label, predicted: int [n], among ``classes``
    and -1 for others; None for examples with several classes. confidence, correct: [n], or None where not stored.
    left_out: the number of classes that are not shown.
    """

    classes: list[str]
    score: np.ndarray
    positive: np.ndarray
    known: np.ndarray
    label: np.ndarray | None
    predicted: np.ndarray | None
    confidence: np.ndarray | None
    correct: np.ndarray | None
    left_out: int


def predictions(results: Results) -> Iterator[Chart]:
    """Draw confusion matrices, ROC curves and reliability of a kind of task, wherever examples have what they need."""
    of_lines = predictions_of(results)
    if of_lines:
        left_out = {name: each.left_out for (name, _), each in of_lines.items() if each.left_out}
        note = "".join(f" {name}: the {count} rarest classes left out." for name, count in left_out.items())
        yield from _confusion(results, of_lines, note)
        yield from _roc(results, of_lines, note)
        yield from _reliability(results, of_lines)


def predictions_of(results: Results) -> dict[tuple[str, str], Predicted]:
    """Read the predictions of the first seed of each line, by dataset (with the part, where it has a name) and line."""
    read: dict[tuple[str, str], Predicted] = {}
    if "evaluation" not in results.rows:
        return read
    columns = ["dataset", "part", "line", "seed", "cell", "evaluation"]
    runs = results.rows[columns].drop_duplicates().sort_values("seed").drop_duplicates(["dataset", "part", "line"])
    runs = runs[runs["line"].isin(results.lines)]
    for (dataset, part), rows in runs.groupby(["dataset", "part"]):
        classes: list[str] | None = None
        for row in each_row(rows):
            examples = results.examples(str(row.cell), str(row.evaluation), str(part))
            each = None if examples is None else predicted(examples, classes)
            # The parts of a dataset have the same columns for all lines.
            if each is None:
                break
            classes = each.classes
            read[f"{dataset}, {part}" if part else str(dataset), str(row.line)] = each
    return read


def predicted(examples: "pd.DataFrame", classes: Sequence[str] | None = None) -> Predicted | None:
    """Take the predictions from the columns ``score/CLASS``, and ``label`` or ``label/CLASS``; None without them.

    classes: those to show; default: all, or the ``MOST_CLASSES`` with the most examples.
    """
    every = [name.removeprefix("score/") for name in examples if name.startswith("score/")]
    several = [name for name in every if f"label/{name}" in examples]
    if several:
        every = several
        truth = examples[[f"label/{name}" for name in every]].to_numpy()
        positive, known = truth == 1, truth >= 0
    elif every and "label" in examples and examples["label"].dtype.kind in "iu":
        label = examples["label"].to_numpy()
        positive = label[:, None] == np.arange(len(every))
        known = np.repeat(label[:, None] >= 0, len(every), axis=1)
    else:
        return None
    if classes is None:
        frequent = np.sort(np.argsort(-positive.sum(axis=0), kind="stable")[:MOST_CLASSES])
        shown = [every[number] for number in frequent]
    else:
        shown = [name for name in classes if name in every]
    columns = [every.index(name) for name in shown]
    place = np.full(len(every) + 1, -1)
    place[columns] = np.arange(len(columns))
    one = not several and "predicted" in examples and examples["predicted"].dtype.kind in "iu"
    rated = {"confidence", "correct"} <= set(examples)
    return Predicted(
        shown,
        examples[[f"score/{name}" for name in shown]].to_numpy(dtype=float),
        positive[:, columns],
        known[:, columns],
        place[label] if one else None,
        place[examples["predicted"].to_numpy()] if one else None,
        examples["confidence"].to_numpy(dtype=float) if rated else None,
        examples["correct"].to_numpy(dtype=float) if rated else None,
        len(every) - len(shown),
    )


# Confusion matrices


def confusion(label: np.ndarray, predicted: np.ndarray, count: int) -> np.ndarray:
    """Count the examples by class (rows) and predicted class: int [count, count]. -1 belongs to none."""
    known = (label >= 0) & (predicted >= 0)
    return np.bincount(label[known] * count + predicted[known], minlength=count * count).reshape(count, count)


def _confusion(results: Results, of_lines: Mapping[tuple[str, str], Predicted], note: str) -> Iterator[Chart]:
    import altair as alt

    single = {at: each for at, each in of_lines.items() if each.label is not None and each.predicted is not None}
    if not single:
        return
    datasets, shown = natural({name for name, _ in single}), _shown(results, single)
    columns: dict[str, list[float]] = {name: [] for name in ("dataset", "line", "true", "predicted", "count", "share")}
    classes: list[str] = []
    for name in datasets:
        first = len(classes)
        of_name = {line: each for (n, line), each in single.items() if n == name}
        classes += map(display_name, next(iter(of_name.values())).classes)
        for line, each in of_name.items():
            if each.label is None or each.predicted is None:
                continue
            counts = confusion(each.label, each.predicted, len(each.classes))
            # Shares are of all examples of a class, also of those predicted to be of a class that is not shown.
            totals = np.bincount(each.label[each.label >= 0], minlength=len(each.classes))
            for true, predicted_class in np.argwhere(counts):
                count = int(counts[true, predicted_class])
                values = (datasets.index(name), shown.index(line), first + true, first + predicted_class, count)
                for column, value in zip(columns, (*values, count / totals[true])):
                    columns[column].append(value)
    of_dataset, of_line = choice("dataset", "dataset", datasets), choice("line", "arm", shown)
    cells = (
        alt.Chart(table(columns, 3))
        .transform_filter("datum.dataset === dataset && datum.line === line")
        .transform_lookup("true", from_=names("true", "class", classes))
        .transform_lookup("predicted", from_=names("predicted", "as", classes))
        .transform_joinaggregate(classes="distinct(true)")
    )
    axis = alt.Axis(labelLimit=alt.ExprRef("max(60, min(150, width / 4))"), domain=False, ticks=False)
    tilted = alt.Axis(labelLimit=110, labelAngle=-40, domain=False, ticks=False)
    x = alt.X("as:N", title="predicted", sort=alt.EncodingSortField("predicted", op="min"), axis=tilted)
    y = alt.Y("class:N", title="class", sort=alt.EncodingSortField("true", op="min"), axis=axis)
    grid = cells.mark_rect().encode(
        x=x,
        y=y,
        color=alt.Color(
            "share:Q", scale=alt.Scale(domain=[0, 1], range=["#FFFFFF", "#08519C"], interpolate="rgb"), legend=None
        ),
        tooltip=[
            alt.Tooltip("class:N", title="class"),
            alt.Tooltip("as:N", title="predicted"),
            alt.Tooltip("share:Q", format=".1%", title="of the class"),
            alt.Tooltip("count:Q", title="examples"),
        ],
    )
    numbers = cells.mark_text(fontSize=11).encode(
        x=x,
        y=y,
        text=alt.Text("share:Q", format=".0%"),
        color=unless(alt.ColorValue, INK, "datum.share > 0.72", "#FFFFFF"),
        opacity=unless(alt.OpacityValue, 0, "width / datum.classes > 32", 1),
    )
    yield Chart(
        f"{results.task}-confusion",
        f"{results.task}: confusion matrix",
        specification([grid, numbers], [of_dataset, of_line], 380),
        "The share of the test examples of each class (row) that were predicted to be of each class (column), of the "
        f"first seed of each arm. An empty cell is 0.{note}",
    )


# ROC curves


def roc(score: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return false- and true-positive rates at all thresholds, from (0, 0) to (1, 1).

    score: float [n]; positive: bool [n], of both kinds.
    """
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits = np.cumsum(positive[order])[last]
    misses = last + 1 - hits
    return np.append(0, misses / misses[-1]), np.append(0, hits / hits[-1])


def at_rates(false: np.ndarray, true: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Read a ROC curve at some false-positive rates; where it is upright, its upper end."""
    left = np.searchsorted(false, rates, side="right") - 1
    right = np.minimum(left + 1, len(false) - 1)
    width = false[right] - false[left]
    share = np.divide(rates - false[left], width, out=np.zeros(len(rates)), where=width > 0)
    return np.asarray(true[left] + share * (true[right] - true[left]))


def area(false: np.ndarray, true: np.ndarray) -> float:
    """Return the area under a curve."""
    return float(np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2))


def _roc(results: Results, of_lines: Mapping[tuple[str, str], Predicted], note: str) -> Iterator[Chart]:
    import altair as alt

    curves: dict[tuple[str, str, str], tuple[np.ndarray, np.ndarray]] = {}
    for (name, line), each in of_lines.items():
        for number, class_name in enumerate(each.classes):
            known = each.known[:, number]
            positive = each.positive[known, number]
            if positive.any() and not positive.all():
                curves[name, class_name, line] = roc(each.score[known, number], positive)
    if not curves:
        return
    means = dict.fromkeys((name, line) for name, _, line in curves)
    points = int(np.clip(GRID_IN_ALL // (len(curves) + len(means)), SHORTEST_GRID, GRID))
    rates = np.linspace(0, 1, points)
    drawn = {at: (area(*curve), at_rates(*curve, rates)) for at, curve in curves.items()}
    for name, line in means:
        of_classes = [drawn[at] for at in drawn if at[0] == name and at[2] == line]
        drawn[name, "", line] = (
            float(np.mean([auc for auc, _ in of_classes])),
            np.mean([true for _, true in of_classes], axis=0),
        )
    shown = _shown(results, of_lines)
    options = [
        (name, class_name)
        for name in natural({name for name, _ in means})
        for class_name in ["", *dict.fromkeys(of for n, of, _ in curves if n == name)]
    ]
    # A curve is one record: numbers alone, for a page of thousands of curves.
    records = [
        {
            "of": options.index((name, class_name)),
            "line": shown.index(line),
            "area": round(auc, 4),
            "true": np.round(1000 * true).astype(int).tolist(),
        }
        for (name, class_name, line), (auc, true) in drawn.items()
    ]
    lines = Lines(results.lines, shown)
    labels = [f"{name}: {display_name(class_name) or MACRO}" for name, class_name in options]
    of = choice("of", "ROC curve of", labels)
    chosen = lines.chosen(alt.Chart(alt.NamedData("curves")).transform_filter("datum.of === of"))
    flat = chosen.transform_flatten(["true"]).transform_window(point="row_number()", groupby=["name"])
    flat = flat.transform_calculate(x=f"(datum.point - 1) / {points - 1}", y="datum.true / 1000")
    percent = alt.Axis(format=".0%", tickCount=5, labelOverlap=True)
    x = alt.X("x:Q", title="false positives", axis=percent, scale=right_of_labels(domain=[0, 1]))
    y = alt.Y("y:Q", title="true positives", axis=percent, scale=alt.Scale(domain=[0, 1]))
    curve = flat.mark_line(strokeWidth=1.7).encode(
        x=x, y=y, color=lines.colour, strokeDash=lines.dash, order=alt.Order("x:Q")
    )
    layers = [_diagonal(x, y), curve.add_params(lines.clicked)]
    beside = [layers, ranked_labels(chosen, lines, "area")]
    yield Chart(
        f"{results.task}-roc",
        f"{results.task}: ROC curves",
        specification(beside, [of, lines.typed], apart=True, curves=records),
        f"Each class against the others, of the first seed of each arm, at {points} false-positive rates; {MACRO}: of "
        "true-positive rates, over classes with positives and negatives. Numbers: the area under the whole curve "
        f"(AUROC). {CHOICE}{note}",
    )


def _diagonal(x: "alt.X", y: "alt.Y") -> "alt.Chart":
    import altair as alt

    ends = alt.Chart(alt.InlineData(values=[{"x": 0, "y": 0}, {"x": 1, "y": 1}]))
    line: alt.Chart = ends.mark_line(strokeDash=[4, 3], strokeWidth=1, color=GREY).encode(x=x, y=y)
    return line


# Reliability


def reliability(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean confidence, mean correctness and number of examples in each bin of confidence that has some.

    ``BINS`` bins of equal width from 0 to 1; a confidence on an edge belongs to the bin above it.
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    count, sums = np.bincount(bins, minlength=BINS), [np.bincount(bins, each, BINS) for each in (confidence, correct)]
    some = count > 0
    return sums[0][some] / count[some], sums[1][some] / count[some], count[some]


def _reliability(results: Results, of_lines: Mapping[tuple[str, str], Predicted]) -> Iterator[Chart]:
    import altair as alt

    rated = {
        at: reliability(each.confidence, each.correct)
        for at, each in of_lines.items()
        if each.confidence is not None and each.correct is not None and each.label is not None
    }
    if not rated:
        return
    datasets, shown = natural({name for name, _ in rated}), _shown(results, rated)
    columns: dict[str, list[float]] = {name: [] for name in ("dataset", "line", "x", "y", "share", "error")}
    for (name, line), (confidence, correct, count) in rated.items():
        share = count / count.sum()
        error = float(share @ np.abs(confidence - correct))
        columns["dataset"] += [datasets.index(name)] * len(count)
        columns["line"] += [shown.index(line)] * len(count)
        for column, values in (("x", confidence), ("y", correct), ("share", share)):
            columns[column] += values.tolist()
        columns["error"] += [error] * len(count)
    lines = Lines(results.lines, shown)
    dataset = choice("dataset", "dataset", datasets)
    chosen = lines.chosen(alt.Chart(table(columns, 4)).transform_filter("datum.dataset === dataset"))
    percent = alt.Axis(format=".0%", tickCount=5, labelOverlap=True)
    x = alt.X("x:Q", title="confidence", axis=percent, scale=right_of_labels(domain=[0, 1]))
    y = alt.Y("y:Q", title="correct", axis=percent, scale=alt.Scale(domain=[0, 1]))
    curve = chosen.mark_line(strokeWidth=1.2).encode(
        x=x, y=y, color=lines.colour, strokeDash=lines.dash, order=alt.Order("x:Q")
    )
    dots = chosen.mark_circle(opacity=0.8).encode(
        x=x,
        y=y,
        color=lines.colour,
        size=alt.Size("share:Q", scale=alt.Scale(domain=[0, 1], range=[8, 500]), legend=None),
        tooltip=[
            alt.Tooltip("name:N", title="arm"),
            alt.Tooltip("x:Q", format=".1%", title="confidence"),
            alt.Tooltip("y:Q", format=".1%", title="correct"),
            alt.Tooltip("share:Q", format=".1%", title="of the examples"),
        ],
    )
    errors = chosen.transform_aggregate(error="mean(error)", groupby=["name"])
    layers = [_diagonal(x, y), curve.add_params(lines.clicked), dots]
    beside = [layers, ranked_labels(errors, lines, "error", rising=True)]
    yield Chart(
        f"{results.task}-reliability",
        f"{results.task}: reliability",
        specification(beside, [dataset, lines.typed], apart=True),
        f"How often predictions of each confidence are correct, in {BINS} bins of confidence, of the first seed of "
        "each arm; a dot's area is its share of the examples; on the dashed line confidence is right. Numbers: the "
        f"expected calibration error (ece), lowest first. Only of examples with one class. {CHOICE}",
    )


def _shown(results: Results, of_lines: Mapping[tuple[str, str], object]) -> list[str]:
    there = {line for _, line in of_lines}
    return [line for line in results.lines if line in there]
