"""The scores of a kind of task as a chart of the page: the reader chooses the dataset."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmark.report.plots import colours
from benchmark.report.render import Chart, of_level
from benchmark.report.results import Results, columns_of, each_row
from benchmark.report.scores import guesses_of
from benchmark.report.web.charts import constant, specification


def scores_by_dataset(results: Results) -> Iterator[Chart]:
    """Plot the score of each line on a dataset with its interval, and the best guess without the images."""
    scores, lines = results.scores, results.lines
    if not len(scores):
        return
    columns = columns_of(scores)
    several = len({metric for _, metric in columns}) > 1
    values, guesses = [], []
    for dataset, metric in columns:
        name = f"{dataset}, {metric}" if several else dataset
        of_column = scores[(scores["dataset"] == dataset) & (scores["metric"] == metric)]
        for row in each_row(of_column):
            value, low, high = (round(100 * float(each), 2) for each in (row.value, row.low, row.high))
            values.append({"on": name, "line": str(row.line), "score": value, "low": low, "high": high})
        known = [float(each) for _, of_guess in guesses_of([*each_row(of_column[:1])]) for each in of_guess]
        if any(not np.isnan(each) for each in known):
            guesses.append({"on": name, "guess": round(100 * float(np.nanmax(known)), 2)})
    names = list(dict.fromkeys(str(each["on"]) for each in values))
    measure = columns[0][1] if not several else "score"
    spec = chart(values, guesses, names, lines, measure, colours(lines))
    caption = f"With 95 % intervals{of_level(scores['seeds'].max())}. Dashed: the best guess without the images."
    yield Chart(f"scores-{results.task}", f"{results.task}: scores on a dataset", spec, caption)


def chart(
    values: list[dict[str, Any]],
    guesses: list[dict[str, Any]],
    names: list[str],
    lines: list[str],
    measure: str,
    colour: dict[str, str],
) -> dict[str, Any]:
    """Write the chart. values: a row for each line and dataset (``on``); guesses: one for each dataset, percent."""
    import altair as alt

    select = alt.param(name="dataset", value=names[0], bind=alt.binding_select(options=names, name="Dataset "))
    shown = [line for line in lines if any(each["line"] == line for each in values)]
    base = (
        alt.Chart(alt.NamedData("scores"))
        .transform_filter("datum.on == dataset")
        .encode(
            y=alt.Y("line:N", sort=shown, title=None, axis=alt.Axis(labelLimit=240)),
            color=alt.Color(
                "line:N", legend=None, scale=alt.Scale(domain=shown, range=[colour[line] for line in shown])
            ),
            tooltip=[alt.Tooltip(f"{name}:N") for name in ("line", "score", "low", "high")],
        )
    )
    intervals = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title=f"{measure}, %", scale=alt.Scale(zero=False, padding=8)), x2=alt.X2("high:Q")
    )
    points = base.mark_circle(size=80, opacity=1).encode(x=alt.X("score:Q"))
    numbers = base.mark_text(align="right", dx=-4, fontSize=11).encode(
        x=constant(alt.XValue, "width"),
        text=alt.Text("score:Q", format=".1f"),
        color=constant(alt.ColorValue, "#1c1c1c"),
    )
    guess = (
        alt.Chart(alt.NamedData("guesses"))
        .transform_filter("datum.on == dataset")
        .mark_rule(strokeDash=[4, 3], color="#555555")
        .encode(x=alt.X("guess:Q"))
    )
    layers = [*([guess] if guesses else []), intervals, points, numbers]
    # The axis and its title below the lines take 40 pixels.
    return specification(layers, [select], 22 * len(shown) + 40, scores=values, guesses=guesses)
