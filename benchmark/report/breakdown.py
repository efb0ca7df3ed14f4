"""The scores of a task by kind of example (type of question, say), where its notes break them down."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmark.report.plots import GREY, INK, STYLE, WIDTH, colours
from benchmark.report.render import MISSING, Cell, Plot, Table, of_level, over_seeds, percent, span, wrap
from benchmark.report.results import NotesOf, Results, natural, present, with_notes
from benchmark.report.scores import highest_guesses

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def scores_by_kind(results: Results) -> Iterator[Table | Plot]:
    """Show the scores of a kind of task by kind of example: a table per dataset, and a chart, for each breakdown."""
    task = results.task
    for column, scores in breakdowns(results.rows, results.notes).items():
        yield from tables_of(scores, task, column, results.lines)
        figure = chart(scores, task, column, results.drawn)
        yield Plot(figure, f"{task}-by-{column}", f"{task} by {column}")


def breakdowns(rows: "pd.DataFrame", notes: NotesOf) -> dict[str, "pd.DataFrame"]:
    """Collect the scores by kind of example, for each column that tells the kinds apart (``question_type``).

    rows: labelled, of one kind of task; the primary ones count. Returns one row per dataset, part, metric, kind, line
    and seed: value, guesses (what guesses get, by name; fractions), n and baseline.
    Datasets with a single kind are left out.
    """
    import pandas as pd

    scores = [
        {
            "column": column,
            "dataset": row.dataset,
            "part": row.part,
            "metric": row.metric,
            "kind": " ".join(kind.split()) or f"no {column}",
            "line": row.line,
            "seed": row.seed,
            "value": numbers.get(row.metric, np.nan),
            "guesses": {name: guess for name, guess in numbers.items() if name not in ("n", row.metric)},
            "n": numbers["n"],
            "baseline": bool(row.baseline),
        }
        for row, of_part in with_notes(rows[rows["primary"].astype(bool)], notes)
        for column, kinds in of_part.get("breakdown", {}).items()
        for kind, numbers in kinds.items()
    ]
    if not scores:
        return {}
    frame = pd.DataFrame(scores)
    frame = frame[frame.groupby(["column", "dataset", "part", "metric"])["kind"].transform("nunique") > 1]
    return {str(column): of_column for column, of_column in frame.groupby("column")}


def panels(scores: "pd.DataFrame") -> "Iterator[tuple[str, str, pd.DataFrame, list[str]]]":
    """Split by dataset, part and metric: name, metric, rows, and the kinds, the one with the most examples first."""
    for dataset in natural(scores["dataset"].unique()):
        for (part, metric), rows in scores[scores["dataset"] == dataset].groupby(["part", "metric"]):
            count = rows.groupby("kind")["n"].max()
            yield (
                f"{dataset}, {part}" if part else dataset,
                metric,
                rows,
                sorted(natural(count.index), key=lambda kind: -count[kind]),
            )


def guesses_of_kinds(rows: "pd.DataFrame") -> dict[str, dict[str, float]]:
    """Find, for each kind of example, what guesses get, by name."""
    return {
        str(kind): highest_guesses(zip(of_kind["guesses"], of_kind["line"])) for kind, of_kind in rows.groupby("kind")
    }


def tables_of(scores: "pd.DataFrame", task: str, column: str, order: Sequence[str]) -> Iterator[Table]:
    """Tabulate lines by kinds of example, for each dataset; then baselines, guesses and number of test examples."""
    for panel, metric, rows, kinds in panels(scores):
        value = rows.groupby(["line", "kind"])["value"].mean().to_dict()
        guesses = guesses_of_kinds(rows)
        cells = {
            line: [Cell(percent(float(value.get((line, kind), np.nan)))) for kind in kinds]
            for line in present(rows, order)
        }
        baselines = set(rows.loc[rows["baseline"], "line"])
        footer = [(line, of_line) for line, of_line in cells.items() if line in baselines]
        names = dict.fromkeys(name for of_row in rows["guesses"] for name in of_row)
        footer += [(name, [Cell(percent(guesses[kind].get(name, np.nan))) for kind in kinds]) for name in names]
        footer.append(("examples", [Cell(span(rows.loc[rows["kind"] == kind, "n"])) for kind in kinds]))
        caption = over_seeds(rows.groupby("line")["seed"].nunique())
        if any(cell.text == MISSING for of_line in cells.values() for cell in of_line):
            caption += f"; {MISSING}: no result"
        yield Table(
            f"{task} on {panel}: {metric} by {column}, in percent",
            [(kind, "") for kind in kinds],
            [(line, of_line) for line, of_line in cells.items() if line not in baselines],
            footer,
            f"{caption}. Without intervals: a share of n examples is accurate to about ± 100 / √n points (95 %), and "
            "to less where patients have several.",
        )


def chart(scores: "pd.DataFrame", task: str, column: str, order: Sequence[str]) -> "Figure":
    """Draw a panel for each dataset, a row for each kind of example, a marker for each line.

    A stroke marks the majority; where other guesses do without the images, the highest of all.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    lines = present(scores, order)
    shown = list(panels(scores))
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
        for ax, of_panel, panel in zip(axes, labels, shown):
            _draw_panel(ax, panel, of_panel, {line: colour[line] for line in lines})
        blind = any(set(guesses) - {"majority"} for guesses in scores["guesses"])
        stroke = "the best guess without the images" if blind else "majority"
        level = of_level(scores["seed"].nunique())
        figure.supxlabel(f"{task} by {column}, in percent{level}; stroke: {stroke}; in brackets: examples", fontsize=7)
        handles = [
            Line2D(
                [], [], color=colour[line], linestyle="", marker="o", markersize=3.5, label="\n".join(wrap(line, 24))
            )
            for line in lines
        ]
        figure.legend(handles=handles, loc="outside right upper", frameon=False)
    return figure


def _draw_panel(
    ax: "Axes",
    panel: "tuple[str, str, pd.DataFrame, list[str]]",
    labels: Sequence[Sequence[str]],
    colour: Mapping[str, str],
) -> None:
    """Draw a dataset. panel: as panels() gives it. labels: the lines of each kind's label. colour: of each line."""
    name, metric, rows, kinds = panel
    value = rows.groupby(["line", "kind"])["value"].mean().to_dict()
    guessed = {
        kind: float(np.fmax.reduce([np.nan, *of_kind.values()])) for kind, of_kind in guesses_of_kinds(rows).items()
    }
    places = np.arange(len(kinds), dtype=float)
    ax.hlines(places[1:] - 0.5, 0, 100, color=GREY, linewidth=0.3)
    ax.vlines([100 * guessed[kind] for kind in kinds], places - 0.45, places + 0.45, color=INK, linewidth=0.8)
    for line, below in zip(colour, np.linspace(-0.5, 0.5, len(colour) + 2)[1:]):
        values = [100 * float(value.get((line, kind), np.nan)) for kind in kinds]
        ax.scatter(values, places + below, s=12, color=colour[line], zorder=3, clip_on=False)
    ax.set(xlim=(0, 100), ylim=(len(kinds) - 0.5, -0.5))
    ax.set_yticks(places, ["\n".join(label) for label in labels])
    ax.tick_params(axis="y", length=0)
    ax.set_title("\n".join(wrap(f"{name}: {metric}", 80)), loc="left", pad=3)
