"""What a scenario costs: each line at the scenario's conditions, compared with itself without the difficulty."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.report.comparison import difference_table, differences
from benchmark.report.plots import GREY, INK, STYLE, WIDTH, colours
from benchmark.report.render import Plot, Table, of_level, span, wrap
from benchmark.report.results import NotesOf, Resamples, Results, columns_of, each_row, label_lines, natural, present
from benchmark.report.scores import score_caption, score_table, summarise

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = [
    "scenario",
    "question",
    "varies",
    "condition",
    "plain_condition",
    "plain",
    "plain_dataset",
    "role",
    "start",
    "raw_pixels",
]
"""Columns of the rows that Plan.scenario_of() makes; older rows lack them."""
LONGEST_AXIS = 75
"""The characters of an axis that share a line with the legend."""
OF_CLASSES = ("rare_auroc", "common_auroc", "rare_recall", "common_recall")
"""Means over the rare classes and over the others, which benchmark.evaluation.metrics makes where some are rare."""


@dataclass(frozen=True)
class View:
    """One view of a scenario: the scores, the differences where there are any, and a chart of several conditions.

    title: what is shown.
    """

    title: str
    tables: list[Table]
    figure: "Figure | None"


def scenarios(results: Results) -> Iterator[Table | Plot]:
    """Show each scenario: the scores at its conditions, the differences to the plain one, and a chart."""
    for view in views(results.all_rows, results.all_costs, results.resamples, results.notes):
        yield from view.tables
        if view.figure:
            yield Plot(view.figure, view.title, f"{view.title}: scores by condition")


def split_scenarios(rows: "pd.DataFrame") -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """Split the rows into those of the main tables and those of scenarios.

    A baseline is evaluated once, for whichever suite came first: one that the lines of the main tables need is among
    both.
    """
    import pandas as pd

    rows = rows.reindex(columns=rows.columns.union(COLUMNS, sort=False))
    of_scenario = rows["scenario"].notna()
    main, others = rows[~of_scenario], rows[of_scenario]
    if main.empty or others.empty:
        return main, others
    cells = {*main["cell"], *main["start"], *main["raw_pixels"]}
    needed = others["cell"].isin(cells) & (others["role"] == "baseline")
    shared = others[needed & _among(others, main, "task", "dataset")]
    return pd.concat([main, shared.assign(suite=main["suite"].iloc[0])]), others


def views(rows: "pd.DataFrame", costs: "pd.DataFrame", resamples: Resamples, notes: NotesOf) -> Iterator[View]:
    """View each scenario of the rows: the primary metric of each task; then rare classes beside the others, if any.

    rows: all, not labelled yet. costs: one per cell; may be empty.
    """
    rows = rows.reindex(columns=rows.columns.union(COLUMNS, sort=False))
    for name in natural(rows["scenario"].dropna().unique()):
        own = _at_conditions(rows, name)
        if own.empty:
            continue
        title = f"scenario {name}"
        main, of_classes = own[own["primary"].astype(bool)], own[own["metric"].isin(OF_CLASSES)]
        if _any_line(main):
            yield _view(title, main, costs, resamples, "")
        if _any_line(of_classes):
            yield _view(f"{title}, rare classes", of_classes, costs, resamples, rare_classes(of_classes, notes))


def shown(condition: float | str) -> str:
    """Write a condition: a share in percent, a count or a name.

    >>> shown(0.25), shown(0), shown(4096.0), shown("own scanner")
    ('25 %', '0 %', '4,096', 'own scanner')
    """
    if isinstance(condition, str):
        return condition
    return f"{100 * condition:g} %" if condition <= 1 else f"{condition:,.10g}"


def rare_classes(rows: "pd.DataFrame", notes: NotesOf) -> str:
    """Explain the metrics of rare classes, and name these with their number of test images, which is small."""
    first: Any = next(each_row(rows[:1]))
    of_part: Mapping[str, Any] = notes(first.cell, first.evaluation).get(first.part, {})
    support = of_part.get("support", {})
    named = [f"{name} ({support[name]} of {first.n} test images)" for name in of_part.get("rare", ())]
    listed = f": {', '.join(named)}" if named else ""
    return f" rare_: the mean over the rare classes{listed}; common_: over the others; auroc: each against the rest."


def _at_conditions(rows: "pd.DataFrame", name: str) -> "pd.DataFrame":
    """Select the scenario's rows, baselines among them.

    Those at the plain condition are selected by their cell and dataset: they may have been run for another suite. The
    column ``tested`` keeps the dataset; ``dataset`` is the plain one's for all that is compared with it.
    """
    import pandas as pd

    baseline = rows["role"] == "baseline"
    own = rows[(rows["scenario"] == name) & rows["condition"].notna() & ~baseline]
    if own.empty:
        return own
    common = own.iloc[0]
    plain_pairs = own[["plain", "plain_dataset"]].set_axis(["cell", "dataset"], axis=1)
    plain = rows[_among(rows, plain_pairs, "cell", "dataset") & ~baseline]
    plain = plain.assign(
        condition=common["plain_condition"],
        plain=plain["cell"],
        plain_dataset=plain["dataset"],
        plain_condition=common["plain_condition"],
        question=common["question"],
        varies=common["varies"],
    )
    lines = pd.concat([own[~_among(own, plain_pairs, "cell", "dataset")], plain])
    plain_of = dict(zip(lines["dataset"], lines["plain_dataset"]))
    both = pd.concat([lines, _baselines(rows[baseline], rows, lines)])
    return both.assign(tested=both["dataset"], dataset=both["dataset"].map(plain_of))


def _baselines(baselines: "pd.DataFrame", rows: "pd.DataFrame", lines: "pd.DataFrame") -> "pd.DataFrame":
    """Select the baselines of a scenario's lines, at the condition of their dataset where that is what varies."""
    # Initial weights that none of these lines started from are those of other trainings.
    foreign = set(rows.loc[rows["role"].isna(), "start"].dropna()) - set(lines["start"])
    own = baselines[baselines["dataset"].isin(lines["dataset"]) & baselines["model"].isin(lines["model"])]
    own = own[~own["cell"].isin(foreign)].assign(condition=None)
    if (lines["dataset"] != lines["plain_dataset"]).any():
        own["condition"] = own["dataset"].map(dict(zip(lines["dataset"], lines["condition"])))
    return own


def _any_line(rows: "pd.DataFrame") -> bool:
    """Return whether a line that is not a baseline has a value."""
    return bool(rows.loc[rows["role"] != "baseline", "value"].notna().any())


def _among(rows: "pd.DataFrame", others: "pd.DataFrame", *columns: str) -> np.ndarray:
    """Mark the rows that agree in these columns with one of the others: bool [n]."""
    keys = set(zip(*(others[column] for column in columns)))
    return np.array([key in keys for key in zip(*(rows[column] for column in columns))], dtype=bool)


@dataclass(frozen=True)
class _Lines:
    """The lines of a view. conditions: of each line. base: each line's name without its condition.

    plain: the condition without the difficulty. order: of the lines, by base and by distance from the plain condition.
    """

    conditions: dict[str, Any]
    base: dict[str, str]
    plain: float | str
    order: list[str]


def _view(title: str, rows: "pd.DataFrame", costs: "pd.DataFrame", resamples: Resamples, remark: str) -> View:
    """Make a view of rows of _at_conditions(). remark: what the caption says beyond the usual."""
    import pandas as pd

    several = rows["dataset"].nunique() > 1
    column = rows["task"] + (" · " + rows["dataset"] if several else "")
    rows = rows.assign(
        task=title, dataset=column, primary=True, suite=[shown(x) if pd.notna(x) else "" for x in rows["condition"]]
    )
    baseline = rows["role"] == "baseline"
    methods, _, _ = label_lines(rows[~baseline], pd.DataFrame())
    baselines, _, _ = label_lines(rows[baseline], pd.DataFrame())
    # The best of a condition is marked, not that of all, which is hardly ever at the difficult one.
    by_condition = [summarise(part) for _, part in methods.groupby("condition", sort=False)]
    scores = pd.concat([*by_condition, summarise(baselines)])
    lines = _ordered(methods, baselines)
    table = _without_mean(score_table(scores, title, lines.order), len(columns_of(scores)))
    table.caption = _caption(methods, lines.plain, scores, costs, len(table.rows)) + remark
    tables = [table]
    if against := _against_plain(methods):
        compared = differences(methods, against, resamples)
        tables.append(difference_table(compared, title, f"the same method at {shown(lines.plain)}", lines.order))
    figure = None
    if methods["condition"].nunique() > 1:
        curves = present(methods, lines.order)
        figure = chart(scores, curves, lines.base, lines.conditions, lines.plain, str(methods["varies"].iloc[0]))
    return View(title, tables, figure)


def _ordered(methods: "pd.DataFrame", baselines: "pd.DataFrame") -> _Lines:
    """Order the lines. methods, baselines: labelled rows."""
    plain = methods["plain_condition"].iloc[0]
    conditions = dict(zip(methods["line"], methods["condition"]))
    conditions |= dict(zip(baselines["line"], baselines["condition"].fillna(plain)))
    base = {line: line.removesuffix(f" · {shown(at)}") for line, at in conditions.items()}
    place = {name: number for number, name in enumerate(natural(set(base.values())))}
    order = sorted(conditions, key=lambda line: (place[base[line]], _hard(conditions[line], plain)))
    return _Lines(conditions, base, plain, order)


def _against_plain(methods: "pd.DataFrame") -> dict[str, str]:
    """Name for each line the same method's line at the plain condition, where that is another one."""
    line_at = dict(zip(zip(methods["cell"], methods["tested"]), methods["line"]))
    return {
        row.line: line_at[row.plain, row.plain_dataset]
        for row in each_row(methods.drop_duplicates("line"))
        if line_at.get((row.plain, row.plain_dataset), row.line) != row.line
    }


def _hard(condition: float | str, plain: float | str) -> tuple[float, float, str]:
    """Sort key of conditions: the plain one first, then further and further from it; less and less of all."""
    if isinstance(condition, str):
        return float(condition != plain), 0.0, condition
    if isinstance(plain, str):
        return 1.0, -condition, ""
    return abs(condition - plain), 0.0, ""


def _without_mean(table: Table, columns: int) -> Table:
    """Drop the mean over kinds of task: their metrics differ, so it says little."""
    rows, footer = ([(name, cells[:columns]) for name, cells in part] for part in (table.rows, table.footer))
    return Table(table.title, table.columns[:columns], rows, footer, table.caption)


def _caption(
    lines: "pd.DataFrame", plain: float | str, scores: "pd.DataFrame", costs: "pd.DataFrame", count: int
) -> str:
    """Write the question, what differs between the conditions, and what does not. count: lines of the table."""
    on_tests = bool((lines["tested"] != lines["plain_dataset"]).any())
    varied = lines["tested"] if on_tests else lines["pretraining"].fillna("")
    sets = sorted(set(zip(lines["condition"], varied)), key=lambda at: (_hard(at[0], plain), at[1]))
    named = ", ".join(f"{name} ({shown(at)})" for at, name in sets)
    if on_tests:
        same = lines.groupby(["task", "dataset", "part"])["examples"].nunique().max() == 1
        design = f"The same trained weights are tested on {named}{': images of the same patients' if same else ''}."
    else:
        design = (
            f"Trained on {named}{_pairs(lines, costs)}; seeds, settings, tokenizer and budget are the same, and so are "
            f"the test sets: {', '.join(natural(lines['tested'].unique()))}."
        )
    methods = scores[~scores["baseline"]]
    usual = score_caption(methods.assign(best=False), complete=len(methods) == count * len(columns_of(scores)))
    best = " Bold: highest of the methods at its condition." if methods["best"].any() else ""
    return f"{lines['question'].iloc[0]} Conditions: {lines['varies'].iloc[0]}. {design} {usual}{best}"


def _pairs(lines: "pd.DataFrame", costs: "pd.DataFrame") -> str:
    if "samples" not in costs:
        return ""
    samples = costs.loc[costs["cell"].isin(lines["cell"]), "samples"].dropna()
    return f", {span(samples.astype(int))} pairs seen" if len(samples) else ""


def chart(
    scores: "pd.DataFrame",
    order: Sequence[str],
    base: Mapping[str, str],
    condition: Mapping[str, Any],
    plain: float | str,
    varies: str,
) -> "Figure":
    """Draw a panel for each column of the table: scores with their intervals against the condition.

    Lines of ``order`` that share a ``base``, which is their name without the condition, are one curve.
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
        condition_axis = f"{varies} (without the difficulty: {shown(plain)})"
        level = of_level(scores["seeds"].max())
        legend = f"scores in percent, with 95 % interval{level}; dashed: chance"
        separator = "\n" if len(condition_axis) > LONGEST_AXIS else "; "
        figure.supxlabel(f"{condition_axis}{separator}{legend}", fontsize=7)
    return figure


def _curves(
    ax: "Axes", panel: "pd.DataFrame", curves: Sequence[str], base: Mapping[str, str], places: list[float]
) -> None:
    """Draw the curves of a panel, a few points apart so that their intervals do not overlap.

    panel: a row for each line. places: theirs along the horizontal axis.
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
    # Matplotlib ignores what is drawn aside. At least ten points: a narrower range would exaggerate small differences.
    all_ends = np.concatenate([value, low, high, [100 * chance]])
    lowest, highest = float(np.nanmin(all_ends)), float(np.nanmax(all_ends))
    middle, half = (lowest + highest) / 2, max(highest - lowest, 10.0) * 0.55
    ax.set_ylim(middle - half, middle + half)


def _conditions(ax: "Axes", place: Mapping[float | str, float], across: int) -> None:
    """Set the horizontal axis, which all panels share: logarithmic where the conditions span a factor of eight.

    A label that would cover another is left out.
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
