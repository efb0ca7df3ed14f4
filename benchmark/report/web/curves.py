"""Scores over the amount of data that a task learned from, for the lines that the reader chooses."""

from collections.abc import Iterator

import numpy as np

from benchmark.report.curve import columns_of, panels, points, pool_points
from benchmark.report.render import Chart, of_level
from benchmark.report.results import Results, present
from benchmark.report.web.charts import CHOICE, Lines, choice, end_labels, names, right_of_labels, specification, table


def score_curves(results: Results) -> Iterator[Chart]:
    """Draw the scores of a kind of task over what it learned from, one dataset at a time, for all lines."""
    import altair as alt

    scores = points(results.rows, results.notes)
    if not len(scores):
        return
    columns: dict[str, list[float]] = {name: [] for name in ("of", "place", "line", "y", "spread", "chance")}
    shown = present(scores, results.lines)
    options: list[str] = []
    places: list[str] = []
    for name, metric, rows in panels(scores):
        pooled, chance = pool_points(rows), rows.groupby(["axis", "point"])["chance"].mean().to_dict()
        numbers_at = dict(zip(pooled.index, zip(pooled["value"], pooled["spread"])))
        for axis in dict.fromkeys(rows["axis"]):
            options.append(f"{name}: {metric} by {axis}")
            for place in (place for at, place in columns_of(rows) if at == axis):
                places.append(place)
                for line in shown:
                    if (line, axis, place) in numbers_at:
                        value, spread = numbers_at[line, axis, place]
                        numbers = (len(options) - 1, len(places) - 1, shown.index(line), value, spread)
                        for column, number in zip(columns, (*numbers, chance.get((axis, place), np.nan))):
                            columns[column].append(number)
    lines = Lines(results.lines, shown)
    of = choice("of", "score", options)
    here = (
        alt.Chart(table(columns))
        .transform_filter("datum.of === of")
        .transform_lookup("place", from_=names("place", "point", places))
        .transform_calculate(x="datum.place")
    )
    chosen = lines.chosen(here)
    x = alt.X(
        "point:O",
        title=None,
        sort=alt.EncodingSortField("place", op="min"),
        scale=right_of_labels(type="point", padding=0.2),
        axis=alt.Axis(labelAngle=0, labelOverlap=True, grid=True),
    )
    y = alt.Y("y:Q", title=None, scale=alt.Scale(zero=False, nice=False), axis=alt.Axis(format=".0%"))
    tooltip = [
        alt.Tooltip("name:N", title="arm"),
        alt.Tooltip("point:N", title="at"),
        alt.Tooltip("y:Q", format=".1%", title="score"),
        alt.Tooltip("spread:Q", format=".1%", title="± over draws"),
    ]
    curve = chosen.mark_line(strokeWidth=1.7).encode(
        x=x, y=y, color=lines.colour, strokeDash=lines.dash, order=alt.Order("x:Q")
    )
    dots = chosen.mark_circle(size=30, opacity=1).encode(x=x, y=y, color=lines.colour, tooltip=tooltip)
    chance_line = (
        here.transform_aggregate(y="mean(chance)", place="mean(place)", groupby=["point"])
        .transform_filter("isValid(datum.y)")
        .mark_line(strokeDash=[4, 3], strokeWidth=1, color="#8C8C8C")
        .encode(x=x, y=y, order=alt.Order("place:Q"))
    )
    layers = [chance_line, curve.add_params(lines.clicked), dots, *end_labels(chosen, lines, x, y, ["point"])]
    seeds = int(scores.groupby("line")["seed"].nunique().max())
    yield Chart(
        f"{results.task}-curves",
        f"{results.task}: scores over the amount of train images",
        specification(layers, [of, lines.typed]),
        f"Mean over seeds and draws of train images{of_level(seeds)}; dashed: chance. Point at a dot for the deviation "
        f"over draws. {CHOICE}",
    )
