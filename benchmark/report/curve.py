"""Learning curves: the scores of a task over the amount of data it learned from, where its notes name such a curve."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.report.plots import GREY, INK, STYLE, WIDTH, colours
from benchmark.report.render import MISSING, Cell, Plot, Table, of_level, over_seeds, percent, span, wrap
from benchmark.report.results import NotesOf, Results, natural, notes_of, present, with_notes
from benchmark.report.scores import best_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def learning_curves(results: Results) -> Iterator[Table | Plot]:
    """Show the scores of a kind of task over what it learned from: a table per dataset, and a chart."""
    task, scores = results.task, points(results.rows, results.notes)
    if len(scores):
        yield from tables_of(scores, task, results.lines)
        figure = chart(scores, task, results.lines)
        yield Plot(figure, f"{task}-curve", f"{task}: scores over the amount of train images", on_page=False)


DRAWN = {"images": "train images", "groups": "train groups"}
"""By what notes count in each draw: what tables call it."""


def with_draws(rows: "pd.DataFrame", notes: NotesOf) -> "pd.DataFrame":
    """Add the columns ``draws`` and ``spread``, where rows have the metric in each of several draws of train images.

    draws: how many. spread: the standard deviation of the metric over them (fraction, NaN of a single one). Where notes
    have the numbers drawn, ``train_images`` and ``train_groups``: of each draw, a list; None where they have not.
    """
    if "of_draws" not in rows:
        return rows
    values = [of_row if isinstance(of_row, list) else [] for of_row in rows["of_draws"]]
    rows = rows.assign(
        draws=[len(of_row) or np.nan for of_row in values],
        spread=[np.std(of_row, ddof=1) if len(of_row) > 1 else np.nan for of_row in values],
    )
    drawn = [of_part.get("drawn", {}).get(metric, {}) for metric, of_part in zip(rows["metric"], notes_of(rows, notes))]
    if not any(drawn):
        return rows
    return rows.assign(**{f"train_{counted}": [of_row.get(counted) for of_row in drawn] for counted in DRAWN})


def points(rows: "pd.DataFrame", notes: NotesOf) -> "pd.DataFrame":
    """Collect the points of the curves: one row per dataset, part, axis, point, line and seed.

    rows: labelled, of with_draws(), of one kind of task. Returns metric, value, spread, chance (fractions), draws
    (count), baseline, and train_images and train_groups (lists or None); the axes in the order of the notes. Empty
    where these name no ``curve``.
    """
    import pandas as pd

    rows = rows[np.array(["curve" in of_part for of_part in notes_of(rows, notes)], dtype=bool)]
    scores = [
        {
            "dataset": row.dataset,
            "part": row.part,
            "axis": axis,
            "point": point,
            "line": row.line,
            "seed": row.seed,
            "metric": row.metric,
            "value": row.value,
            "chance": row.chance,
            "spread": getattr(row, "spread", np.nan),
            "draws": getattr(row, "draws", np.nan),
            "baseline": bool(row.baseline),
            **{f"train_{counted}": getattr(row, f"train_{counted}", None) for counted in DRAWN},
        }
        for row, of_part in with_notes(rows, notes)
        for axis, metric_at in of_part.get("curve", {}).items()
        for point, metric in metric_at.items()
        if metric == row.metric
    ]
    numbers = ["value", "spread", "chance", "draws"]
    frame = pd.DataFrame(scores)
    return frame.astype(dict.fromkeys(numbers, float)) if len(frame) else frame


def columns_of(scores: "pd.DataFrame") -> list[tuple[str, str]]:
    """List axis and point of each column, from few to many."""
    return [
        (axis, point)
        for axis in dict.fromkeys(scores["axis"])
        for point in natural(scores.loc[scores["axis"] == axis, "point"].unique())
    ]


def panels(scores: "pd.DataFrame") -> Iterator[tuple[str, str, "pd.DataFrame"]]:
    """Split by dataset and part: name, what is measured (the metric's name up to the point), and rows."""
    for dataset in natural(scores["dataset"].unique()):
        for part, rows in scores[scores["dataset"] == dataset].groupby("part"):
            metrics = natural({metric.split("@")[0] for metric in rows["metric"]})
            yield f"{dataset}, {part}" if part else dataset, ", ".join(metrics), rows


def pool_points(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Pool the seeds by line, axis and point: the mean of value, and the root of the mean square of spread."""
    squared = rows.assign(square=rows["spread"] ** 2).groupby(["line", "axis", "point"])
    return squared[["value", "square"]].mean().assign(spread=lambda mean: np.sqrt(mean["square"]))


def tables_of(scores: "pd.DataFrame", task: str, order: Sequence[str]) -> Iterator[Table]:
    """Tabulate lines by points, for each dataset; then baselines, chance and the numbers drawn.

    In the terminal these tables would hide the others, so they are on the page only.
    """
    for name, metric, rows in panels(scores):
        lines = present(rows, order)
        baselines = set(rows.loc[rows["baseline"], "line"])
        points, chance = columns_of(rows), rows.groupby(["axis", "point"])["chance"].mean()
        cells = _cells(rows, lines, baselines, points)
        shown, counted = [cell for of_line in cells.values() for cell in of_line], list(_drawn(rows, points))
        yield Table(
            f"{task} on {name}: {metric} by {' and '.join(dict.fromkeys(rows['axis']))}, in percent",
            [(point, axis) for axis, point in points],
            [(line, cells[line]) for line in lines if line not in baselines],
            [
                *((line, cells[line]) for line in lines if line in baselines),
                ("chance", [Cell(percent(float(chance[at]))) for at in points]),
                *counted,
            ],
            caption(rows, any(cell.text == MISSING for cell in shown), any(cell.best for cell in shown), counted),
            page_only=True,
        )


def _cells(
    rows: "pd.DataFrame", lines: Sequence[str], baselines: set[str], points: Sequence[tuple[str, str]]
) -> dict[str, list[Cell]]:
    """Write the score of each line at each point, with its spread over draws; the best method is bold."""
    pooled, chance = pool_points(rows).to_dict(), rows.groupby(["axis", "point"])["chance"].mean()
    ours = [line for line in lines if line not in baselines]
    cells: dict[str, list[Cell]] = {line: [] for line in lines}
    for at in points:
        value, spread = (
            {line: float(pooled[column].get((line, *at), np.nan)) for line in lines} for column in ("value", "spread")
        )
        best = dict(zip(ours, best_of([value[line] for line in ours], float(chance[at]))))
        for line in lines:
            under = "" if np.isnan(spread[line]) else f"± {percent(spread[line])}"
            cells[line].append(Cell(percent(value[line]), under, best.get(line, False)))
    return cells


def _drawn(rows: "pd.DataFrame", points: Sequence[tuple[str, str]]) -> Iterator[tuple[str, list[Cell]]]:
    """Write how many images and groups each point was learned from, as ``44–47`` where draws or seeds differ.

    Groups are left out where each image is one.
    """
    import pandas as pd

    at = {point: rows[(rows["axis"] == point[0]) & (rows["point"] == point[1])] for point in points}
    counts = {
        counted: [
            [number for of_row in at[point][f"train_{counted}"] if isinstance(of_row, list) for number in of_row]
            for point in points
        ]
        for counted in DRAWN
    }
    for counted, of_points in counts.items():
        if any(of_points) and (counted == "images" or of_points != counts["images"]):
            yield DRAWN[counted], [Cell(span(pd.Series(drawn)) if drawn else MISSING) for drawn in of_points]


def caption(
    rows: "pd.DataFrame", incomplete: bool, marked: bool, counted: Sequence[tuple[str, Sequence[Cell]]] = ()
) -> str:
    """Write the caption of a table. rows: its own. incomplete: a line lacks a point. marked: something is bold.

    counted: the table's rows of numbers drawn.
    """
    seeds = rows.groupby("line")["seed"].nunique()
    clauses = [over_seeds(seeds)]
    drawn = rows.loc[rows["draws"] > 1, "draws"].astype(int)
    if len(drawn):
        spread = "the standard deviation over draws"
        spread += ", the root of its mean square over seeds" if seeds.max() > 1 else ""
        spread += ", none of a single draw" if (rows["draws"] == 1).any() else ""
        clauses.append(f"mean over {span(drawn)} draws of train images; below: ± {spread}")
    if counted:
        several = any("–" in cell.text for _, cells in counted for cell in cells)
        name = ", ".join(name for name, _ in counted)
        clauses.append(f"{name}: as many as were drawn{', from the smallest draw to the largest' if several else ''}")
    if marked:
        clauses.append("bold: highest of the methods in its column")
    if incomplete:
        clauses.append(f"{MISSING}: no result")
    return "; ".join(clauses) + "."


def chart(scores: "pd.DataFrame", task: str, order: Sequence[str]) -> "Figure":
    """Draw a panel for each dataset: scores over the points, one curve per line with its spread, broken between axes.

    Baselines are dotted, with hollow markers; chance is dashed.
    """
    import matplotlib
    from matplotlib.figure import Figure

    shown, place = list(panels(scores)), places(columns_of(scores))
    lines = present(scores, order)
    across = min(2, len(shown))
    down = -(-len(shown) // across)
    labels = ["\n".join(wrap(line, 24)) for line in lines]
    legend = 0.14 * sum(max(label.count("\n") + 1 for label in labels[i : i + 4]) for i in range(0, len(labels), 4))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.2 * down + 0.4 + legend), layout="constrained")
        axes = figure.subplots(down, across, sharex=True, squeeze=False)
        looks = styles(lines, set(scores.loc[scores["baseline"], "line"]))
        for ax, (name, metric, rows) in zip(axes.flat, shown):
            draw(ax, rows, dict(zip(lines, labels)), looks, place)
            ax.set_title("\n".join(wrap(f"{name}: {metric}", 80 // across)), loc="left", pad=3)
        for ax in axes.flat[len(shown) :]:
            ax.set_axis_off()
        for ax in axes.flat[max(0, len(shown) - across) : len(shown)]:
            ax.xaxis.set_tick_params(labelbottom=True)
            _name_axes(ax, place)
        axes[0, 0].set_xticks(list(place.values()), [point for _, point in place])
        axes[0, 0].set_xlim(min(place.values()) - 0.6, max(place.values()) + 0.6)
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=4, frameon=False)
        bars = "; bars: ± the standard deviation over draws" if scores["spread"].notna().any() else ""
        level = of_level(scores["seed"].nunique())
        figure.supxlabel(f"{task}: scores in percent{level}{bars}; dashed: chance", fontsize=7)
    return figure


def places(points: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Place the points along the horizontal axis, with a gap between axes.

    They are equally spaced: shots double and percentages grow tenfold.
    """
    axes = list(dict.fromkeys(axis for axis, _ in points))
    return {at: float(i + axes.index(at[0])) for i, at in enumerate(points)}


def _name_axes(ax: "Axes", place: Mapping[tuple[str, str], float]) -> None:
    """Write the name of each axis under the middle of its points."""
    for axis in dict.fromkeys(axis for axis, _ in place):
        middle = np.mean([x for at, x in place.items() if at[0] == axis])
        under: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        ax.annotate(axis, (float(middle), 0), (0, -13), ha="center", va="top", **under)


def styles(lines: Sequence[str], baselines: set[str]) -> dict[str, dict[str, Any]]:
    """Choose how each line is drawn: methods in the colours that they have in all plots."""
    colour = colours([line for line in lines if line not in baselines])
    looks: dict[str, dict[str, Any]] = {
        line: {"color": colour[line], "marker": "o"} for line in lines if line not in baselines
    }
    shades = zip((line for line in lines if line in baselines), cycle((INK, GREY)), cycle("sD^v"))
    for line, shade, marker in shades:
        looks[line] = {"color": shade, "marker": marker, "linestyle": ":", "markerfacecolor": "white"}
    return looks


def draw(
    ax: "Axes",
    rows: "pd.DataFrame",
    labels: Mapping[str, str],
    looks: Mapping[str, dict[str, Any]],
    place: Mapping[tuple[str, str], float],
) -> None:
    """Draw the curves of a panel, side by side within half a place so that their bars do not overlap."""
    pooled, chance = pool_points(rows).to_dict(), rows.groupby(["axis", "point"])["chance"].mean().to_dict()
    aside = dict(zip(labels, np.linspace(-0.25, 0.25, len(labels)) if len(labels) > 1 else [0.0]))
    for axis in dict.fromkeys(axis for axis, _ in place):
        points = [at for at in place if at[0] == axis]
        where = np.array([place[at] for at in points])
        for line, label in labels.items():
            value, spread = (
                100 * np.array([float(pooled[column].get((line, *at), np.nan)) for at in points])
                for column in ("value", "spread")
            )
            ax.errorbar(
                where + aside[line],
                value,
                spread,
                markersize=2.8,
                markeredgewidth=0.7,
                linewidth=0.8,
                elinewidth=0.6,
                label=label if points[0] == next(iter(place)) else None,
                **looks[line],
            )
        level = np.array([100 * float(chance.get(at, np.nan)) for at in points])
        ends = [[where[0] - 0.4, *where, where[-1] + 0.4], [level[0], *level, level[-1]]]
        ax.plot(*ends, color=INK, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
    ax.grid(axis="y", color=GREY, alpha=0.3, linewidth=0.4)
