"""What a scenario costs: each line at the scenario's conditions, held against itself where the difficulty is not."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.report.comparison import Resamples, difference_table, differences
from benchmark.report.plots import GREY, INK, STYLE, WIDTH, colours
from benchmark.report.tables import (
    Table,
    columns_of,
    label_lines,
    natural,
    score_caption,
    score_table,
    span,
    summarise,
    wrap,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ["scenario", "question", "varies", "condition", "plain_condition", "plain", "plain_dataset", "role", "start"]
"""Of the rows, as Plan.scenario_of() gives them; older rows have none."""
OF_CLASSES = ("rare_auroc", "common_auroc", "rare_recall", "common_recall")
"""Metrics of a rare class and of the others, that benchmark.evaluation.metrics gives where some classes are rare."""
Notes = Callable[[str, str], dict[str, Any]]


@dataclass(frozen=True)
class Look:
    """One look at a scenario: the scores, the differences where there are any, and a chart where there are several
    conditions. title: what is looked at.
    """

    title: str
    tables: list[Table]
    figure: "Figure | None"


def apart(rows: "pd.DataFrame") -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """The rows of the main tables, and those of scenarios.

    A baseline is evaluated once, for whichever suite came first: one that the main tables' lines need stands there.
    """
    import pandas as pd

    rows = rows.reindex(columns=rows.columns.union(COLUMNS, sort=False))
    of_scenario = rows["scenario"].notna()
    main, others = rows[~of_scenario], rows[of_scenario]
    if main.empty or others.empty:
        return main, others
    needed = others["cell"].isin({*main["cell"], *main["start"]}) & (others["role"] == "baseline")
    lent = others[needed & _among(others, main, "task", "dataset")]
    return pd.concat([main, lent.assign(suite=main["suite"].iloc[0])]), others


def looks(rows: "pd.DataFrame", costs: "pd.DataFrame", resamples: Resamples, notes: Notes) -> Iterator[Look]:
    """Of each scenario that the rows have: the main number of each task, then, where there are rare classes, these
    beside the others. rows: all, not labelled yet. costs: one a cell; may be empty. notes: of a cell's evaluation.
    """
    rows = rows.reindex(columns=rows.columns.union(COLUMNS, sort=False))
    for name in natural(rows["scenario"].dropna().unique()):
        found = _at_conditions(rows, name)
        if found.empty:
            continue
        title = f"scenario {name}"
        main, of_classes = found[found["primary"].astype(bool)], found[found["metric"].isin(OF_CLASSES)]
        if _any_line(main):
            yield _look(title, main, costs, resamples, "")
        if _any_line(of_classes):
            yield _look(f"{title}, rare classes", of_classes, costs, resamples, rare_classes(of_classes, notes))


def shown(condition: float | str) -> str:
    """>>> shown(0.25), shown(0), shown(4096.0), shown("own scanner")
    ('25 %', '0 %', '4,096', 'own scanner')
    """
    if isinstance(condition, str):
        return condition
    return f"{100 * condition:g} %" if condition <= 1 else f"{condition:,.10g}"


def rare_classes(rows: "pd.DataFrame", notes: Notes) -> str:
    """Which they are, with their images in test, since these are few."""
    first: Any = next(rows.itertuples())
    of_part = notes(first.cell, first.evaluation).get(first.part, {})
    support = of_part.get("support", {})
    named = [f"{name} ({support[name]} of {first.n} test images)" for name in of_part.get("rare", ())]
    said = f": {', '.join(named)}" if named else ""
    return f" rare_: the mean over the rare classes{said}; common_: over the others; auroc: each against the rest."


def _at_conditions(rows: "pd.DataFrame", name: str) -> "pd.DataFrame":
    """The scenario's rows, baselines among them. What is at the plain condition is found by its cell and dataset, as it
    may have been run for another suite. ``tested`` keeps the dataset; ``dataset`` is the plain one's for all that is
    compared with it.
    """
    import pandas as pd

    baseline = rows["role"] == "baseline"
    own = rows[(rows["scenario"] == name) & rows["condition"].notna() & ~baseline]
    if own.empty:
        return own
    common = own.iloc[0]
    at_plain = own[["plain", "plain_dataset"]].set_axis(["cell", "dataset"], axis=1)
    plain = rows[_among(rows, at_plain, "cell", "dataset") & ~baseline]
    plain = plain.assign(
        condition=common["plain_condition"],
        plain=plain["cell"],
        plain_dataset=plain["dataset"],
        plain_condition=common["plain_condition"],
        question=common["question"],
        varies=common["varies"],
    )
    lines = pd.concat([own[~_among(own, at_plain, "cell", "dataset")], plain])
    # Initial weights that no line here started from are those of other runs.
    foreign = set(rows["start"].dropna()) - set(lines["start"])
    below = rows[baseline & rows["dataset"].isin(lines["dataset"]) & rows["model"].isin(lines["model"])]
    below = below[~below["cell"].isin(foreign)].assign(condition=None)
    if (lines["dataset"] != lines["plain_dataset"]).any():
        below["condition"] = below["dataset"].map(dict(zip(lines["dataset"], lines["condition"])))
    plain_of = dict(zip(lines["dataset"], lines["plain_dataset"]))
    found = pd.concat([lines, below])
    return found.assign(tested=found["dataset"], dataset=found["dataset"].map(plain_of))


def _any_line(rows: "pd.DataFrame") -> bool:
    return bool(rows.loc[rows["role"] != "baseline", "value"].notna().any())


def _among(rows: "pd.DataFrame", others: "pd.DataFrame", *columns: str) -> np.ndarray:
    """Which rows have the same in these columns as one of the others: bool [n]."""
    there = set(zip(*(others[column] for column in columns)))
    return np.array([row in there for row in zip(*(rows[column] for column in columns))], dtype=bool)


def _look(title: str, rows: "pd.DataFrame", costs: "pd.DataFrame", resamples: Resamples, said: str) -> Look:
    """rows: of _at_conditions(), those to look at. said: what the caption says beyond the usual."""
    import pandas as pd

    several = rows["dataset"].nunique() > 1
    column = rows["task"] + (" · " + rows["dataset"] if several else "")
    rows = rows.assign(
        task=title, dataset=column, primary=True, suite=[shown(x) if pd.notna(x) else "" for x in rows["condition"]]
    )
    baseline = rows["role"] == "baseline"
    lines, _, _ = label_lines(rows[~baseline], pd.DataFrame())
    below, _, _ = label_lines(rows[baseline], pd.DataFrame())
    # The best of a condition is marked, not that of all, which is hardly ever at the difficult one.
    scores = pd.concat([summarise(part) for _, part in lines.groupby("condition", sort=False)] + [summarise(below)])
    plain = lines["plain_condition"].iloc[0]
    condition = dict(zip(lines["line"], lines["condition"])) | dict(
        zip(below["line"], below["condition"].fillna(plain))
    )
    base = {line: line.removesuffix(f" · {shown(at)}") for line, at in condition.items()}
    place = {name: number for number, name in enumerate(natural(set(base.values())))}
    order = sorted(condition, key=lambda line: (place[base[line]], _hard(condition[line], plain)))
    table = _without_mean(score_table(scores, title, order), len(columns_of(scores)))
    table.caption = _caption(lines, plain, scores, costs, len(table.rows)) + said
    pages = [table]
    line_at = dict(zip(zip(lines["cell"], lines["tested"]), lines["line"]))
    against = {
        row.line: line_at[row.plain, row.plain_dataset]
        for row in lines.drop_duplicates("line").itertuples()
        if line_at.get((row.plain, row.plain_dataset), row.line) != row.line
    }
    if against:
        found = differences(lines, against, resamples)
        pages.append(difference_table(found, title, f"the same method at {shown(plain)}", order))
    figure = None
    if lines["condition"].nunique() > 1:
        curves = [line for line in order if line in set(lines["line"])]
        figure = chart(scores, curves, base, condition, plain, str(lines["varies"].iloc[0]))
    return Look(title, pages, figure)


def _hard(condition: float | str, plain: float | str) -> tuple[float, str]:
    """To order conditions by: the plain one, then further and further from it."""
    if isinstance(condition, str) or isinstance(plain, str):
        return float(condition != plain), str(condition)
    return abs(condition - plain), ""


def _without_mean(table: Table, columns: int) -> Table:
    """Of kinds of task, whose metrics differ, a mean says little."""
    rows, footer = ([(name, cells[:columns]) for name, cells in part] for part in (table.rows, table.footer))
    return Table(table.title, table.columns[:columns], rows, footer, table.caption)


def _caption(
    lines: "pd.DataFrame", plain: float | str, scores: "pd.DataFrame", costs: "pd.DataFrame", count: int
) -> str:
    """The question, what differs between the conditions, and what does not. count: lines of the table."""
    on_tests = bool((lines["tested"] != lines["plain_dataset"]).any())
    varied = lines["tested"] if on_tests else lines["pretraining"].fillna("")
    sets = sorted(set(zip(lines["condition"], varied)), key=lambda at: (_hard(at[0], plain), at[1]))
    named = ", ".join(f"{name} ({shown(at)})" for at, name in sets)
    said = f"{lines['question'].iloc[0]} Conditions: {lines['varies'].iloc[0]}. "
    if on_tests:
        same = lines.groupby(["task", "dataset", "part"])["examples"].nunique().max() == 1
        said += f"The same trained weights are tested on {named}{': images of the same patients' if same else ''}."
    else:
        said += (
            f"Trained on {named}{_pairs(lines, costs)}; seeds, settings, tokenizer and budget do not differ, nor does "
        )
        said += f"what is evaluated on: {', '.join(natural(lines['tested'].unique()))}."
    methods = scores[~scores["baseline"]]
    usual = score_caption(methods.assign(best=False), complete=len(methods) == count * len(columns_of(scores)))
    best = " Bold: highest of the methods at its condition." if methods["best"].any() else ""
    return f"{said} {usual}{best}"


def _pairs(lines: "pd.DataFrame", costs: "pd.DataFrame") -> str:
    if "samples" not in costs:
        return ""
    seen = costs.loc[costs["cell"].isin(lines["cell"]), "samples"].dropna()
    return f", {span(seen.astype(int))} pairs seen" if len(seen) else ""


def chart(
    scores: "pd.DataFrame",
    order: Sequence[str],
    base: Mapping[str, str],
    condition: Mapping[str, Any],
    plain: float | str,
    varies: str,
) -> "Figure":
    """A panel a column of the table: scores with their intervals against the condition, a curve for all lines of
    ``order`` that share a ``base``, which is their name without the condition.
    """
    import matplotlib
    from matplotlib.figure import Figure

    curves = list(dict.fromkeys(base[line] for line in order))
    at = sorted(dict.fromkeys(condition[line] for line in order), key=lambda x: _hard(x, plain))
    numbers = [x for x in at if not isinstance(x, str)]
    place = {x: float(x) for x in numbers} if len(numbers) == len(at) else {x: float(i) for i, x in enumerate(at)}
    panels = columns_of(scores)
    across = 4 if len(panels) % 4 == 0 else min(3, len(panels))
    down = -(-len(panels) // across)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.75 * down + 0.25 + 0.14 * -(-len(curves) // 4)), layout="constrained")
        axes = figure.subplots(down, across, sharex=True, squeeze=False)
        for ax, (column, metric) in zip(axes.flat, panels):
            panel = scores[(scores["dataset"] == column) & (scores["metric"] == metric)].set_index("line")
            panel = panel.reindex([line for line in order if line in panel.index])
            _curves(ax, panel, curves, base, [place[condition[line]] for line in panel.index])
            ax.set_title("\n".join([column, metric]), loc="left", pad=3)
        for ax in axes.flat[len(panels) :]:
            ax.set_axis_off()
        for ax in axes.flat[max(0, len(panels) - across) : len(panels)]:
            ax.xaxis.set_tick_params(labelbottom=True)
        _conditions(axes[0, 0], place, across)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=4, frameon=False)
        what = f"{varies} (without the difficulty: {shown(plain)})"
        figure.supxlabel(f"{what}; scores in percent, with 95 % interval; dashed: chance", fontsize=7)
    return figure


def _curves(
    ax: "Axes", panel: "pd.DataFrame", curves: Sequence[str], base: Mapping[str, str], places: list[float]
) -> None:
    """panel: a row a line. places: theirs along the horizontal axis. Curves stand side by side by a few points, so that
    their intervals can be told apart.
    """
    from matplotlib.transforms import ScaledTranslation

    of_curve = np.array([base[line] for line in panel.index])
    value, low, high = (100 * panel[column].to_numpy(dtype=float) for column in ("value", "low", "high"))
    for i, (curve, colour) in enumerate(colours(curves).items()):
        rows = np.flatnonzero(of_curve == curve)
        rows = rows[np.argsort(np.array(places)[rows])]
        aside = ScaledTranslation((i - (len(curves) - 1) / 2) * 2.5 / 72, 0, ax.figure.dpi_scale_trans)
        ax.errorbar(
            np.array(places)[rows],
            value[rows],
            [value[rows] - low[rows], high[rows] - value[rows]],
            label=curve,
            color=colour,
            marker="o",
            markersize=3,
            linewidth=1,
            elinewidth=0.6,
            transform=ax.transData + aside,
        )
    chance = panel["chance"].mean()
    if np.isfinite(chance):
        ax.axhline(100 * chance, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
    ax.grid(axis="y", color=GREY, alpha=0.3, linewidth=0.4)
    # What is drawn aside does not count for the limits. Ten points at least: less would make much of little.
    all_ends = np.concatenate([value, low, high, [100 * chance]])
    lowest, highest = float(np.nanmin(all_ends)), float(np.nanmax(all_ends))
    middle, half = (lowest + highest) / 2, max(highest - lowest, 10.0) * 0.55
    ax.set_ylim(middle - half, middle + half)


def _conditions(ax: "Axes", place: Mapping[float | str, float], across: int) -> None:
    """The horizontal axis, which all panels share: logarithmic where the conditions span a factor of eight; a label
    that would cover another is left out.
    """
    from matplotlib.ticker import FixedLocator, NullLocator

    where = np.array(sorted(place.values()))
    if where[0] > 0 and where[-1] >= 8 * where[0]:
        ax.set_xscale("log")
        ax.set_xlim(where[0] / (where[-1] / where[0]) ** 0.15, where[-1] * (where[-1] / where[0]) ** 0.15)
    else:
        margin = 0.15 * (where[-1] - where[0])
        ax.set_xlim(where[0] - margin, where[-1] + margin)
    points = np.column_stack([where, np.full(len(where), ax.get_ylim()[0])])
    shares = ax.transAxes.inverted().transform(ax.transData.transform(points))[:, 0]
    name_of = {x: wrap(shown(name), 10) for name, x in place.items()}
    labels, free = [], -1.0
    for x, share in zip(where, shares):
        half = 0.006 * across * max(map(len, name_of[x]))
        labels.append("\n".join(name_of[x]) if share - half > free else "")
        free = share + half + 0.006 * across if labels[-1] else free
    ax.xaxis.set_major_locator(FixedLocator(list(where)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(list(where), labels)
