"""The scores of a task by kind of example, where its notes break them down."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.report.plots import GREY, INK, STYLE, WIDTH, colours
from benchmark.report.tables import MISSING, Cell, Table, natural, percent, span, wrap

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def breakdowns(
    rows: "pd.DataFrame", task: str, notes: Callable[[str, str], dict[str, Any]]
) -> dict[str, "pd.DataFrame"]:
    """By what tells the kinds apart (``question_type``), one row a dataset, part, metric, kind, line and seed: value,
    majority (fractions, NaN where there is none), n and baseline. Datasets with a single kind are left out.

    rows: labelled; the primary ones count. notes: of a cell's evaluation, by part; see ``Measurement.notes``.
    """
    import pandas as pd

    found: list[dict[str, Any]] = []
    primary = rows[(rows["task"] == task) & rows["primary"].astype(bool)]
    for row in primary.itertuples() if "evaluation" in rows else ():
        of_part = notes(str(row.cell), str(row.evaluation)).get(str(row.part), {})
        for column, kinds in of_part.get("breakdown", {}).items():
            for kind, numbers in kinds.items():
                found.append(
                    {
                        "column": column,
                        "dataset": row.dataset,
                        "part": row.part,
                        "metric": row.metric,
                        "kind": " ".join(kind.split()) or f"no {column}",
                        "line": row.line,
                        "seed": row.seed,
                        "value": numbers.get(row.metric, np.nan),
                        "majority": numbers.get("majority", np.nan),
                        "n": numbers["n"],
                        "baseline": bool(row.baseline),
                    }
                )
    if not found:
        return {}
    frame = pd.DataFrame(found)
    frame = frame[frame.groupby(["column", "dataset", "part", "metric"])["kind"].transform("nunique") > 1]
    return {str(column): of_column for column, of_column in frame.groupby("column")}


def panels(found: "pd.DataFrame") -> "Iterator[tuple[str, str, pd.DataFrame, list[str]]]":
    """Of each dataset, part and metric: name, metric, rows, and the kinds, that with the most examples first."""
    for dataset in natural(found["dataset"].unique()):
        for (part, metric), rows in found[found["dataset"] == dataset].groupby(["part", "metric"]):
            count = rows.groupby("kind")["n"].max()
            yield (
                f"{dataset}, {part}" if part else dataset,
                metric,
                rows,
                sorted(natural(count.index), key=lambda kind: -count[kind]),
            )


def tables_of(found: "pd.DataFrame", task: str, column: str, order: Sequence[str]) -> Iterator[Table]:
    """Lines by kinds of example, one table a dataset; then baselines, majority and the number of test examples."""
    for name, metric, rows, kinds in panels(found):
        value, majority = rows.groupby(["line", "kind"])["value"].mean(), rows.groupby("kind")["majority"].mean()
        cells = {
            line: [Cell(percent(float(value.get((line, kind), np.nan)))) for kind in kinds]
            for line in order
            if line in set(rows["line"])
        }
        baselines = set(rows.loc[rows["baseline"], "line"])
        footer = [(line, of_line) for line, of_line in cells.items() if line in baselines]
        if majority.notna().any():
            footer.append(("majority", [Cell(percent(majority[kind])) for kind in kinds]))
        footer.append(("examples", [Cell(span(rows.loc[rows["kind"] == kind, "n"])) for kind in kinds]))
        seeds = rows.groupby("line")["seed"].nunique()
        said = f"Mean over {span(seeds)} seeds" if seeds.max() > 1 else "One seed"
        if any(cell.text == MISSING for of_line in cells.values() for cell in of_line):
            said += f"; {MISSING}: no result"
        yield Table(
            f"{task} on {name}: {metric} by {column}, in percent",
            [(kind, "") for kind in kinds],
            [(line, of_line) for line, of_line in cells.items() if line not in baselines],
            footer,
            f"{said}. No intervals here: a share of n examples is known to about ± 100 / √n points (95 %).",
        )


def chart(found: "pd.DataFrame", task: str, column: str, order: Sequence[str]) -> "Figure":
    """A panel a dataset, a row a kind of example, a marker a line; the majority as an upright stroke."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    lines = [line for line in order if line in set(found["line"])]
    shown = list(panels(found))
    colour = colours(order)
    labels = [
        [wrap(f"{kind} ({span(rows.loc[rows['kind'] == kind, 'n'])})", 30) for kind in kinds]
        for _, _, rows, kinds in shown
    ]
    row = max(
        min(0.1 + 0.06 * len(lines), 0.34), 0.04 + 0.12 * max(len(label) for of_panel in labels for label in of_panel)
    )
    heights = [0.35 + row * len(of_panel) for of_panel in labels]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.3), layout="constrained")
        axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        for ax, of_panel, (name, metric, rows, kinds) in zip(axes, labels, shown):
            value, majority = rows.groupby(["line", "kind"])["value"].mean(), rows.groupby("kind")["majority"].mean()
            places = np.arange(len(kinds), dtype=float)
            ax.hlines(places[1:] - 0.5, 0, 100, color=GREY, linewidth=0.3)
            ax.vlines(100 * majority[kinds], places - 0.45, places + 0.45, color=INK, linewidth=0.8)
            for line, below in zip(lines, np.linspace(-0.5, 0.5, len(lines) + 2)[1:]):
                values = [100 * float(value.get((line, kind), np.nan)) for kind in kinds]
                ax.scatter(values, places + below, s=12, color=colour[line], zorder=3, clip_on=False)
            ax.set(xlim=(0, 100), ylim=(len(kinds) - 0.5, -0.5))
            ax.set_yticks(places, ["\n".join(label) for label in of_panel])
            ax.tick_params(axis="y", length=0)
            ax.set_title("\n".join(wrap(f"{name}: {metric}", 80)), loc="left", pad=3)
        figure.supxlabel(f"{task} by {column}, in percent; stroke: majority; in brackets: examples", fontsize=7)
        handles = [
            Line2D(
                [], [], color=colour[line], linestyle="", marker="o", markersize=3.5, label="\n".join(wrap(line, 24))
            )
            for line in lines
        ]
        figure.legend(handles=handles, loc="outside right upper", frameon=False)
    return figure
