"""The scores of a task over how much it learned from, where its notes name such a curve."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.report.plots import GREY, INK, STYLE, WIDTH, colours
from benchmark.report.tables import MISSING, Cell, Table, best_of, natural, percent, span, wrap

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Notes = Callable[[str, str], dict[str, Any]]


def with_spread(rows: "pd.DataFrame", notes: Notes) -> "pd.DataFrame":
    """The rows; where their notes have ``draws``, with ``draws`` (how many) and ``spread``: the standard deviation of
    the metric over them (fraction, NaN of a single one). notes: of a cell's evaluation, by part.
    """
    if "evaluation" not in rows:
        return rows
    found = [
        notes(str(row.cell), str(row.evaluation)).get(str(row.part), {}).get("draws", {}).get(row.metric, [])
        for row in rows.itertuples()
    ]
    if not any(found):
        return rows
    return rows.assign(
        draws=[len(values) or np.nan for values in found],
        spread=[np.std(values, ddof=1) if len(values) > 1 else np.nan for values in found],
    )


def points(rows: "pd.DataFrame", task: str, notes: Notes) -> "pd.DataFrame":
    """One row a dataset, part, axis, point, line and seed: metric, value, spread, chance (fractions), draws (count),
    baseline; the axes in the order of the notes, empty where these name no ``curve``.

    rows: labelled, of with_spread(). notes: of a cell's evaluation, by part; see ``Measurement.notes``.
    """
    import pandas as pd

    found: list[dict[str, Any]] = []
    for row in rows[rows["task"] == task].itertuples() if "evaluation" in rows else ():
        of_part = notes(str(row.cell), str(row.evaluation)).get(str(row.part), {})
        for axis, points in of_part.get("curve", {}).items():
            found += [
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
                }
                for point, metric in points.items()
                if metric == row.metric
            ]
    numbers = ["value", "spread", "chance", "draws"]
    frame = pd.DataFrame(found)
    return frame.astype(dict.fromkeys(numbers, float)) if len(frame) else frame


def columns_of(found: "pd.DataFrame") -> list[tuple[str, str]]:
    """Axis and point of each column, from few to many."""
    return [
        (axis, point)
        for axis in dict.fromkeys(found["axis"])
        for point in natural(found.loc[found["axis"] == axis, "point"].unique())
    ]


def panels(found: "pd.DataFrame") -> Iterator[tuple[str, str, "pd.DataFrame"]]:
    """Of each dataset and part: its name, what is measured (the metric's name up to the point), and its rows."""
    for dataset in natural(found["dataset"].unique()):
        for part, rows in found[found["dataset"] == dataset].groupby("part"):
            metrics = natural({metric.split("@")[0] for metric in rows["metric"]})
            yield f"{dataset}, {part}" if part else dataset, ", ".join(metrics), rows


def over_seeds(rows: "pd.DataFrame") -> "pd.DataFrame":
    """By line, axis and point: value, the mean over seeds, and spread, the root of the mean square over seeds."""
    squared = rows.assign(square=rows["spread"] ** 2).groupby(["line", "axis", "point"])
    return squared[["value", "square"]].mean().assign(spread=lambda mean: np.sqrt(mean["square"]))


def tables_of(found: "pd.DataFrame", task: str, order: Sequence[str]) -> Iterator[Table]:
    """Lines by points, one table a dataset; then baselines and chance."""
    for name, metric, rows in panels(found):
        pooled, chance = over_seeds(rows), rows.groupby(["axis", "point"])["chance"].mean()
        lines = [line for line in order if line in set(rows["line"])]
        baselines = set(rows.loc[rows["baseline"], "line"])
        ours = [line for line in lines if line not in baselines]
        cells: dict[str, list[Cell]] = {line: [] for line in lines}
        points = columns_of(rows)
        for at in points:
            value, spread = (
                {line: float(pooled[column].get((line, *at), np.nan)) for line in lines}
                for column in ("value", "spread")
            )
            best = dict(zip(ours, best_of([value[line] for line in ours], float(chance[at]))))
            for line in lines:
                under = "" if np.isnan(spread[line]) else f"± {percent(spread[line])}"
                cells[line].append(Cell(percent(value[line]), under, best.get(line, False)))
        shown = [cell for of_line in cells.values() for cell in of_line]
        yield Table(
            f"{task} on {name}: {metric} by {' and '.join(dict.fromkeys(rows['axis']))}, in percent",
            [(point, axis) for axis, point in points],
            [(line, cells[line]) for line in ours],
            [
                *((line, cells[line]) for line in lines if line in baselines),
                ("chance", [Cell(percent(float(chance[at]))) for at in points]),
            ],
            caption(rows, any(cell.text == MISSING for cell in shown), any(cell.best for cell in shown)),
        )


def caption(rows: "pd.DataFrame", incomplete: bool, marked: bool) -> str:
    """rows: of a table. incomplete: a line lacks a point. marked: something is bold."""
    seeds = rows.groupby("line")["seed"].nunique()
    said = [f"Mean over {span(seeds)} seeds" if seeds.max() > 1 else "One seed"]
    drawn = rows.loc[rows["draws"] > 1, "draws"].astype(int)
    if len(drawn):
        spread = "the standard deviation over draws"
        spread += ", the root of its mean square over seeds" if seeds.max() > 1 else ""
        spread += ", none of a single draw" if (rows["draws"] == 1).any() else ""
        said.append(f"mean over {span(drawn)} draws of what is learned from; beneath: ± {spread}")
    if marked:
        said.append("bold: highest of the methods in its column")
    if incomplete:
        said.append(f"{MISSING}: no result")
    return "; ".join(said) + "."


def chart(found: "pd.DataFrame", task: str, order: Sequence[str]) -> "Figure":
    """A panel a dataset: scores over the points, a curve a line with its spread over draws, broken between axes.
    Baselines are dotted, with hollow markers; chance is dashed.
    """
    import matplotlib
    from matplotlib.figure import Figure

    shown, points = list(panels(found)), columns_of(found)
    lines = [line for line in order if line in set(found["line"])]
    axis_of = [axis for axis, _ in points]
    # Points stand at equal distances, as shots double and percentages grow tenfold; one place is left between axes.
    place = {at: float(i + list(dict.fromkeys(axis_of)).index(at[0])) for i, at in enumerate(points)}
    across = min(2, len(shown))
    down = -(-len(shown) // across)
    labels = ["\n".join(wrap(line, 24)) for line in lines]
    legend = 0.14 * sum(max(label.count("\n") + 1 for label in labels[i : i + 4]) for i in range(0, len(labels), 4))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.2 * down + 0.4 + legend), layout="constrained")
        axes = figure.subplots(down, across, sharex=True, squeeze=False)
        looks = styles(lines, set(found.loc[found["baseline"], "line"]))
        for ax, (name, metric, rows) in zip(axes.flat, shown):
            draw(ax, rows, dict(zip(lines, labels)), looks, place)
            ax.set_title("\n".join(wrap(f"{name}: {metric}", 80 // across)), loc="left", pad=3)
        for ax in axes.flat[len(shown) :]:
            ax.set_axis_off()
        for ax in axes.flat[max(0, len(shown) - across) : len(shown)]:
            ax.xaxis.set_tick_params(labelbottom=True)
            for axis in dict.fromkeys(axis_of):
                middle = np.mean([x for at, x in place.items() if at[0] == axis])
                under = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
                ax.annotate(axis, (float(middle), 0), (0, -13), ha="center", va="top", **under)
        axes[0, 0].set_xticks(list(place.values()), [point for _, point in points])
        axes[0, 0].set_xlim(min(place.values()) - 0.6, max(place.values()) + 0.6)
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=4, frameon=False)
        bars = "; bars: ± the standard deviation over draws" if found["spread"].notna().any() else ""
        figure.supxlabel(f"{task}: scores in percent{bars}; dashed: chance", fontsize=7)
    return figure


def styles(lines: Sequence[str], baselines: set[str]) -> dict[str, dict[str, Any]]:
    """How each line is drawn: methods in the colours that they have in all plots."""
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
    """rows: of a panel. Lines stand side by side within half a place, so that their bars can be told apart."""
    pooled = over_seeds(rows)
    chance = rows.groupby(["axis", "point"])["chance"].mean()
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
