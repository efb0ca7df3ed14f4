"""Quality against cost as a chart of the page: the reader chooses the cost."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.report.costs import quality_and_cost
from benchmark.report.plots import colours
from benchmark.report.render import Chart, of_level, percent, scaled
from benchmark.report.results import Results
from benchmark.report.web.charts import constant, specification

if TYPE_CHECKING:
    import pandas as pd

COSTS = {
    "seconds": ("training time, s", "s"),
    "peak_memory": ("peak memory, B", "B"),
    "flops_per_sample": ("FLOPs per sample", ""),
    "parameters_trainable": ("trained parameters", ""),
}
"""Columns of the costs that the reader may choose: name and unit."""
HEIGHT, LABEL_HEIGHT = 340, 15
"""Pixels: of the chart, and of a line's label."""


def quality_against_cost(results: Results) -> Iterator[Chart]:
    """Plot the mean score of each line against a cost, with the Pareto frontier of each cost."""
    if results.scores.empty or not len(results.costs):
        return
    points, pairs, left_out = quality_and_cost(results.scores, results.rows, results.costs)
    if len(points) < 2:
        return
    known = [cost for cost in COSTS if (points[cost] > 0).all()]
    tasks = list(dict.fromkeys(task for task, _ in pairs))
    level = of_level(results.scores["seeds"].max())
    caption = (
        f"Score: the mean over {', '.join(tasks)} of the mean over datasets{level}. Line: the Pareto frontier; no arm "
        "there is beaten in both. It has no intervals, so a place on it is no verdict."
    )
    if left_out:
        caption += f" Not shown because results are missing: {', '.join(left_out)}."
    spec = chart(points, known, colours(results.lines))
    yield Chart("quality-against-cost", "Quality against cost", spec, caption)


def chart(points: "pd.DataFrame", costs: Sequence[str], colour: Mapping[str, str]) -> dict[str, Any]:
    """Write the chart. points: as quality_and_cost() gives them. colour: of each line."""
    import altair as alt

    lines = [str(line) for line in points.index]
    scores = 100 * points["score"].to_numpy(dtype=float)
    margin = 0.06 * max(np.ptp(scores), 1.0)
    bottom, top = float(scores.min() - margin), float(scores.max() + margin)
    at = label_places(scores, bottom, top)
    values = []
    for cost in costs:
        name, unit = COSTS[cost]
        numbers = points[cost].to_numpy(dtype=float)
        prefix, (texts,) = scaled(numbers)
        frontier = on_frontier(numbers, scores)
        values += [
            {
                "line": line,
                "score": score,
                "label": place,
                "cost": number,
                "shown": f"{text} {prefix}{unit}".strip(),
                "mean": f"{percent(score / 100)} %",
                "of": name,
                "frontier": best,
            }
            for line, score, place, number, text, best in zip(lines, scores, at, numbers, texts, frontier)
        ]
    select = alt.param(
        name="cost",
        value=COSTS[costs[0]][0],
        bind=alt.binding_select(options=[COSTS[cost][0] for cost in costs], name="Cost "),
    )
    base = (
        alt.Chart(alt.NamedData("costs"))
        .transform_filter("datum.of == cost")
        .encode(
            x=alt.X(
                "cost:Q", title=None, axis=alt.Axis(format="~s", grid=False), scale=alt.Scale(type="log", nice=True)
            ),
            y=alt.Y("score:Q", title="mean score, %", scale=alt.Scale(domain=[bottom, top])),
        )
    )
    colouring = alt.Color(
        "line:N", legend=None, scale=alt.Scale(domain=lines, range=[colour.get(line, "#555555") for line in lines])
    )
    frontier_line = (
        base.transform_filter("datum.frontier")
        .mark_line(color="#888888", strokeDash=[4, 3], interpolate="step-after")
        .encode(order=alt.Order("cost:Q"))
    )
    leader = base.mark_rule(opacity=0.35, strokeWidth=0.7).encode(
        x2=constant(alt.X2Value, "width"), y2=alt.Y2("label:Q"), color=colouring
    )
    marks = base.mark_circle(size=90, opacity=1, stroke="white", strokeWidth=1).encode(
        color=colouring,
        tooltip=[
            alt.Tooltip("line:N"),
            alt.Tooltip("mean:N", title="mean score"),
            alt.Tooltip("shown:N", title="cost"),
        ],
    )
    names = base.mark_text(align="left", dx=6, color="#1c1c1c", fontSize=11, limit=220).encode(
        x=constant(alt.XValue, "width"), y=alt.Y("label:Q"), text=alt.Text("line:N")
    )
    spec = specification([frontier_line, leader, marks, names], [select], HEIGHT, costs=values)
    return spec | {"padding": {"right": 10, "left": 5, "top": 10, "bottom": 5}}


def on_frontier(costs: np.ndarray, scores: np.ndarray) -> list[bool]:
    """Find the points that no other beats in one of cost and score without being beaten in the other.

    >>> on_frontier(np.array([1.0, 2.0, 3.0]), np.array([5.0, 4.0, 6.0]))
    [True, False, True]
    """
    at_most, at_least = costs[None] <= costs[:, None], scores[None] >= scores[:, None]
    beaten = at_most & at_least & ((costs[None] < costs[:, None]) | (scores[None] > scores[:, None]))
    return [not any(row) for row in beaten]


def label_places(values: np.ndarray, bottom: float, top: float) -> list[float]:
    """Place labels along an axis in the order of their values, so that none covers another: as near as there is room.

    bottom, top: of the axis, whose length is ``HEIGHT`` pixels.
    """
    order = np.argsort(values, kind="stable")
    step = min(LABEL_HEIGHT * (top - bottom) / HEIGHT, (top - bottom) / max(1, len(values)))
    # Moving each label to its rank's offset turns "at least a step apart" into "not decreasing", which isotonic
    # regression solves: the places nearest to the values.
    from scipy.optimize import isotonic_regression

    offsets = step * np.arange(len(values))
    lowest, highest = bottom + step / 2, top - step / 2 - (offsets[-1] if len(values) else 0)
    level = isotonic_regression(values[order] - offsets).x if len(values) else offsets
    nearest = np.clip(level, lowest, max(lowest, highest)) + offsets
    places = np.empty(len(values))
    places[order] = nearest
    return places.tolist()
