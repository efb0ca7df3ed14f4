"""Scores in the course of trainings and by budget: curves, where lines cross, whether the order still changes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.common.errors import plural
from benchmark.config.training import BUDGETS
from benchmark.report.comparison import UNTESTED, differences, fill_intervals, highest_of, is_shown, points, verdicts_of
from benchmark.report.plots import GREY, INK, STYLE, WIDTH, colours
from benchmark.report.render import Cell, Plot, Sentence, Table, of_level, wrap
from benchmark.report.results import IDENTITY, Resamples, Results, each_row, filled, natural, settings_of, with_arms
from benchmark.report.runs import COLUMN, Run, complete_runs, measured_runs, primary_rows
from benchmark.report.scores import summarise

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SECONDS, SAMPLES = "seconds", "samples"


@dataclass(frozen=True)
class Course:
    """The scores of lines at points that all can have in common.

    rows: labelled by ``line``, with the columns point, samples and seconds (of the run up to there). points: in order.
    kind: what a point is, ``share`` of one training or the kind of the budget of several.
    """

    kind: str
    rows: "pd.DataFrame"
    points: list[float]

    def at(self, point: float) -> str:
        """Name a point: ``25 %`` of a training, or ``samples=10,000``."""
        return f"{100 * point:g} %" if self.kind == "share" else f"{self.kind}={point:,.10g}"


def courses(results: Results) -> Iterator[Table | Plot | Sentence]:
    """Show how the scores of a kind of task develop in the course of trainings, and over budgets that were varied."""
    for course in [*_shares(results), *_budgets(results)]:
        order = natural(course.rows["line"].unique())
        what = "in the course of training" if course.kind == "share" else f"by budget in {course.kind}"
        yield Plot(
            chart(course, results.task, order), f"{results.task}-{course.kind}", f"{results.task}: scores {what}"
        )
        if len(order) > 1:
            compared = compare(course, cache(results.resamples))
            crossing = crossings(course, compared)
            if crossing:
                yield crossing_table(course, crossing, results.task, what, compared)
            yield Sentence(ends(course, compared, cache(results.resamples), results.task, what, bool(crossing)))


def _shares(results: Results) -> Iterator[Course]:
    """Collect the weights that were kept in the course of trainings, with the ends of these."""
    import pandas as pd

    during, costs = results.course, results.costs
    if not len(during) or not len(costs):
        return
    keys = [*IDENTITY, "cell"]
    during = with_arms(during[during["task"] == results.task])
    during = during.reindex(columns=during.columns.union(keys, sort=False))
    during[keys] = filled(during[keys])
    named = results.rows[[*keys, "line"]].drop_duplicates()
    during = during.merge(named, on=keys).assign(baseline=False)
    ends = results.rows[results.rows["cell"].isin(set(during["cell"])) & results.rows["line"].isin(set(during["line"]))]
    ends = ends.drop(columns=[SAMPLES, SECONDS], errors="ignore").merge(_of_cells(costs), on="cell")
    rows = pd.concat([during.assign(point=during["at"].astype(float)), ends.assign(point=1.0)], ignore_index=True)
    if len(during):
        yield Course("share", rows, sorted(rows["point"].unique()))


def _budgets(results: Results) -> Iterator[Course]:
    """Collect lines that differ in their budget alone, by the kind of the budget."""
    import pandas as pd

    if not len(results.costs) or not any(f"training.{kind}=" in line for line in results.lines for kind in BUDGETS):
        return
    rows = results.rows[~results.rows["baseline"].astype(bool)]
    rows = rows.drop(columns=[SAMPLES, SECONDS], errors="ignore").merge(_of_cells(results.costs), on="cell")
    for kind in BUDGETS:
        name = f"training.{kind}="
        of_line = {line: _value(line, name) for line in rows["line"].unique()}
        chosen = rows[rows["line"].map(of_line).notna()]
        chosen = chosen.assign(
            point=chosen["line"].map(of_line), line=[_without(line, name) for line in chosen["line"]]
        )
        several = chosen.groupby("line")["point"].nunique() if len(chosen) else pd.Series(dtype=int)
        chosen = chosen[chosen["line"].isin(set(several.index[several > 1]))]
        if len(chosen):
            yield Course(kind, chosen, sorted(chosen["point"].unique()))


def _of_cells(costs: "pd.DataFrame") -> "pd.DataFrame":
    # Not every store has recorded both.
    return costs.drop_duplicates("cell", keep="last").reindex(columns=["cell", SAMPLES, SECONDS])


def _value(line: str, name: str) -> float:
    """Return the value of a setting in the name of a line; NaN if the line does not name it."""
    for setting in (setting for part in line.split(" · ") for setting in settings_of(part)):
        if setting.startswith(name):
            return float(setting.removeprefix(name))
    return float("nan")


def _without(line: str, name: str) -> str:
    parts = [", ".join(s for s in settings_of(part) if not s.startswith(name)) for part in line.split(" · ")]
    return " · ".join(filter(None, parts))


# Statistics


def compare(course: Course, resamples: Resamples) -> "pd.DataFrame":
    """Compute the paired difference of every two lines at every point, in every column of the tables.

    Returns task, dataset, metric, point, line, other, value (line - other, a fraction), p, and verdict with Holm's
    correction for all of them.
    """
    import pandas as pd

    from benchmark.evaluation.statistics import holm

    frames = []
    for point in course.points:
        rows = course.rows[course.rows["point"] == point]
        lines = natural(rows["line"].unique())
        for number, other in enumerate(lines[1:], 1):
            of_point = differences(rows, dict.fromkeys(lines[:number], other), resamples)
            frames.append(of_point.assign(point=point, other=other))
    compared = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=[*COLUMN, "p", "value"])
    compared["adjusted"] = holm(compared["p"].to_numpy(dtype=float))
    compared["verdict"] = verdicts_of(compared)
    return compared


def gain_differences(
    before: "pd.DataFrame", after: "pd.DataFrame", pairs: Sequence[tuple[str, str]], resamples: Resamples
) -> "pd.DataFrame":
    """Compute by how much more the one line of each pair gains from an earlier point to a later one than the other.

    before, after: the rows of either point, as differences() takes them; seeds that all four runs have count. Returns
    task, dataset, metric, line, other, value (fraction, the line's gain minus the other's), low, high and p.
    """
    import pandas as pd

    compared: list[dict[str, Any]] = []
    columns = [complete_runs(primary_rows(rows)) for rows in (before, after)]
    for key in columns[0].keys() & columns[1].keys():
        early, late = (of_point[key] for of_point in columns)
        for line, other in pairs:
            runs = [of_point.get(name, {}) for name in (line, other) for of_point in (late, early)]
            if seeds := sorted(set.intersection(*(set(each) for each in runs))):
                gained = _gain_difference([[each[seed] for seed in seeds] for each in runs], resamples)
                compared.append(dict(zip(COLUMN, key)) | {"line": line, "other": other} | gained)
    shown = [*COLUMN, "line", "other", "value", "low", "high", "p", "seeds", "effective_groups", "scarcest"]
    fill_intervals(compared)
    frame = pd.DataFrame(compared, columns=shown)
    return frame.sort_values([*COLUMN, "line", "other"], ignore_index=True)


def _gain_difference(runs: Sequence[Sequence[Run]], resamples: Resamples) -> dict[str, Any]:
    """Compare two gains. runs: of each seed, the later and the earlier of the one line, then those of the other."""
    values, resampled = measured_runs([run for each in runs for run in each], resamples)
    gains = values.reshape(4, len(runs[0]), -1)
    gain = gains[0] - gains[1] - gains[2] + gains[3]
    groups, scarcest = runs[0][0].effective_groups, runs[0][0].scarcest
    result: dict[str, Any] = {"value": float(gain.mean()), "low": np.nan, "high": np.nan, "p": np.nan, "estimate": None}
    result |= {"seeds": len(runs[0]), "effective_groups": groups, "scarcest": scarcest}
    if resampled is not None:
        from benchmark.evaluation.replicates import estimate

        drawn = resampled.reshape(*gains.shape, -1)
        drawn = drawn[0] - drawn[1] - drawn[2] + drawn[3]
        result["estimate"] = estimate(gain, drawn, groups, 2 * highest_of(values))
    return result


@dataclass(frozen=True)
class Crossing:
    """Two lines whose order by value differs between points of a column.

    shown: whether each is significantly ahead somewhere. before, after: point and difference (line - other, a fraction)
    where first one and then the other is ahead, significantly if shown.
    """

    column: tuple[str, str, str]
    line: str
    other: str
    shown: bool
    before: tuple[float, float]
    after: tuple[float, float]


def crossings(course: Course, compared: "pd.DataFrame") -> list[Crossing]:
    """Find the pairs of lines that change their order between points."""
    crossed = []
    for (*column, line, other), rows in compared.groupby([*COLUMN, "line", "other"]):
        rows = rows.sort_values("point")
        for shown, kept in ((True, rows[rows["verdict"].map(is_shown).astype(bool)]), (False, rows)):
            ahead = kept[kept["value"] != 0]
            after = ahead.iloc[-1:]
            before = ahead[np.sign(ahead["value"]) == -np.sign(after["value"].sum())].iloc[-1:]
            if len(before):
                ends = [(float(each["point"].iloc[0]), float(each["value"].iloc[0])) for each in (before, after)]
                crossed.append(Crossing((column[0], column[1], column[2]), line, other, shown, ends[0], ends[1]))
                break
    return crossed


def crossing_table(course: Course, crossed: list[Crossing], task: str, what: str, compared: "pd.DataFrame") -> Table:
    """Tabulate the pairs of lines that change their order: in which columns, and whether that is significant."""
    tests, seeds = len(compared), int(compared["seeds"].max())
    columns = natural({f"{each.column[1]}\n{each.column[2]}" for each in crossed})
    pairs = dict.fromkeys((each.line, each.other) for each in crossed)
    cells: dict[tuple[str, str], dict[str, Cell]] = {pair: {} for pair in pairs}
    for each in crossed:
        text = "crosses" if each.shown else "not shown"
        under = "\n".join(f"{points(value)} at {course.at(point)}" for point, value in (each.before, each.after))
        cells[each.line, each.other][f"{each.column[1]}\n{each.column[2]}"] = Cell(text, under)
    return Table(
        f"{task}, {what}: where the order of two lines changes{of_level(seeds)}",
        [tuple(column.split("\n")) for column in columns],  # type: ignore[misc]
        [(f"{line} − {other}", [of_pair.get(c, Cell()) for c in columns]) for (line, other), of_pair in cells.items()],
        [],
        "crosses: each of the two is significantly ahead at some point (paired by test example and seed, 5 % with "
        f"Holm's correction for {plural(tests, 'test')}); not shown: their scores change order, but not both sides are "
        "significant. Below: differences in points where the order last changes.",
        page_only=True,
    )


def ends(course: Course, compared: "pd.DataFrame", resamples: Resamples, task: str, what: str, changes: bool) -> str:
    """Say whether lines cross, and whether the order at the last point is still changing.

    The latter by the gains from the last point but one to the last: whether those of two lines differ.
    """
    from benchmark.evaluation.statistics import holm

    before, after = (course.rows[course.rows["point"] == point] for point in course.points[-2:])
    gains = gain_differences(before, after, list(combinations(natural(after["line"].unique()), 2)), resamples)
    verdicts = verdicts_of(gains.assign(adjusted=holm(gains["p"].to_numpy(dtype=float))))
    moving = [row for row, judged in zip(each_row(gains), verdicts) if is_shown(judged)]
    last = compared[compared["point"] == course.points[-1]]
    settled = int(last["verdict"].map(is_shown).sum())
    stage = f"between {course.at(course.points[-2])} and {course.at(course.points[-1])}"
    text = f"{task}, {what}{of_level(last['seeds'].max())}: " + ("" if changes else "no two lines change their order. ")
    text += f"Significant differences at {course.at(course.points[-1])}: {settled} of {len(last)}. "
    if not len(gains) or all(judged == UNTESTED for judged in verdicts):
        return f"{text}Whether the order still changes could not be tested: no two lines have both of the last points."
    if not moving:
        return f"{text}That the order still changes is not shown: no two lines differ in their gain {stage}."
    shown = "; ".join(
        f"{row.line} gains {points(row.value)} points on {row.other} on {row.dataset}, {row.metric}"
        for row in moving[:4]
    )
    more = f"; and {len(moving) - 4} more" if len(moving) > 4 else ""
    return f"{text}The order may still change: {stage}, {shown}{more}."


# Figure


def chart(course: Course, task: str, order: list[str]) -> "Figure":
    """Draw the scores of each column against samples and against seconds, one curve per line with 95 % intervals."""
    import matplotlib
    from matplotlib.figure import Figure

    pooled = pool(course)
    panels = list(dict.fromkeys(zip(pooled["dataset"], pooled["metric"])))
    panels = [panel for name in natural({n for n, _ in panels}) for panel in panels if panel[0] == name]
    labels = {line: "\n".join(wrap(line, 24)) for line in order}
    legend = 0.14 * sum(
        max(label.count("\n") + 1 for label in [*labels.values()][i : i + 4]) for i in range(0, len(order), 4)
    )
    colour = colours(order)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.9 * len(panels) + 0.4 + legend), layout="constrained")
        axes = figure.subplots(len(panels), 2, sharey="row", sharex="col", squeeze=False)
        for row, (dataset, metric) in zip(axes, panels):
            of_panel = pooled[(pooled["dataset"] == dataset) & (pooled["metric"] == metric)]
            for ax, quantity in zip(row, (SAMPLES, SECONDS)):
                draw(ax, of_panel, quantity, labels, colour)
            row[0].set_title("\n".join(wrap(f"{dataset}: {metric}", 60)), loc="left", pad=3)
        for ax, unit in zip(axes[-1], ("pairs trained on", "seconds of training")):
            ax.set_xlabel(unit)
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=4, frameon=False)
        each = "a line is one training" if course.kind == "share" else "a point is a training of its own"
        level = of_level(course.rows["seed"].nunique())
        figure.supxlabel(f"{task}: scores in percent with 95 % intervals{level}; {each}; dashed: chance", fontsize=7)
    return figure


def pool(course: Course) -> "pd.DataFrame":
    """Summarise the scores at each point over parts and seeds, with the mean samples and seconds of the runs."""
    import pandas as pd

    frames = []
    for point in course.points:
        rows = course.rows[course.rows["point"] == point]
        spent = rows.groupby("line")[[SAMPLES, SECONDS]].mean().astype(float)
        frames.append(summarise(rows).assign(point=point).merge(spent, left_on="line", right_index=True))
    return pd.concat(frames, ignore_index=True)


def draw(ax: "Axes", rows: "pd.DataFrame", quantity: str, labels: Mapping[str, str], colour: Mapping[str, str]) -> None:
    """Draw the curves of a panel over samples or seconds; the axis is logarithmic where they span a factor of 8."""
    spread: dict[str, Any] = {"elinewidth": 0.6, "capsize": 1.5, "capthick": 0.6}
    wide = len(rows) > 0 and rows[quantity].max() > 8 * rows[quantity].min()
    # Beside each other by up to 1 % of the axis, so that intervals at the same point can be told apart.
    aside = dict(zip(labels, np.linspace(-0.01, 0.01, len(labels)) if len(labels) > 1 else [0.0]))
    for line, label in labels.items():
        of_line = rows[rows["line"] == line].sort_values("point")
        value, low, high = (100 * of_line[name].to_numpy(dtype=float) for name in ("value", "low", "high"))
        x = of_line[quantity].to_numpy(dtype=float)
        x = (
            x * (rows[quantity].max() / rows[quantity].min()) ** aside[line]
            if wide
            else x + aside[line] * rows[quantity].max()
        )
        bars = np.nan_to_num([value - low, high - value]).clip(min=0)
        ax.errorbar(
            x, value, bars, color=colour[line], marker="o", markersize=2.8, linewidth=0.9, label=label, **spread
        )
    chance = rows["chance"].mean()
    if np.isfinite(chance):
        ax.axhline(100 * chance, color=INK, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
    if wide:
        ax.set_xscale("log")
        ticks = round_ticks(*ax.get_xlim())
        ax.set_xticks(ticks, [f"{tick:,.12g}" for tick in ticks])
        ax.minorticks_off()
    else:
        ax.set_xlim(left=0)
    ax.grid(axis="y", color=GREY, alpha=0.3, linewidth=0.4)


def round_ticks(low: float, high: float) -> list[float]:
    """Choose round numbers between two, at most seven, for a logarithmic axis of up to seven decades."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    ticks: list[float] = []
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [n * 10.0**decade for decade in decades for n in digits if low <= n * 10.0**decade <= high]
        if len(ticks) <= 7:
            break
    return ticks
