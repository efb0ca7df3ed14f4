"""The plots of a report, as PNG and SVG."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.report.tables import columns_of, natural, percent, pool_costs, scaled, wrap

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from benchmark.evaluation.statistics import Ranks
    from benchmark.report.comparison import Ranking

WIDTH = 7.2
"""Inches: the text width of a two-column paper."""
PALETTE = [
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#332288",
    "#DDCC77",
    "#882255",
    "#BBBBBB",
    "#5D3A1A",
    "#AA7744",
]
"""Okabe and Ito's colours for the colour-blind without black and yellow, and six more that stay apart from them."""
INK, GREY = "#222222", "#8C8C8C"
STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 7,
    "text.color": INK,
    "text.parse_math": False,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
}


def colours(order: Sequence[str]) -> dict[str, str]:
    """A colour for each line, the same in all plots. They repeat after twelve, as lines are always labelled too."""
    return dict(zip(order, cycle(PALETTE)))


def score_chart(scores: "pd.DataFrame", task: str, order: Sequence[str]) -> "Figure":
    """A panel a dataset, a bar a line, with its interval and value; chance as a dashed line."""
    import matplotlib
    from matplotlib.figure import Figure

    scores = scores[scores["task"] == task]
    lines = [line for line in order if line in set(scores["line"])]
    panels = columns_of(scores)
    metrics = natural(scores["metric"].unique())
    across = len(panels) if len(panels) <= 4 else 3 if len(panels) <= 6 or len(panels) == 9 else 4
    down = -(-len(panels) // across)
    labels = [wrap(line, 24) for line in lines]
    slots = np.array([len(label) + 0.4 for label in labels])
    places = list(np.cumsum(slots) - slots / 2)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, down * (0.13 * slots.sum() + 0.42) + 0.25), layout="constrained")
        axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for ax, (dataset, metric) in zip(axes.flat, panels):
            panel = scores[(scores["dataset"] == dataset) & (scores["metric"] == metric)].set_index("line")
            bars(ax, panel.reindex(lines), places, colours(order))
            ax.set_ylim(slots.sum(), 0)
            title = "\n".join(wrap(dataset, 80 // across)) + (f"\n{metric}" if len(metrics) > 1 else "")
            ax.set_title(title, loc="left", pad=3)
        axes[0, 0].set_yticks(places, ["\n".join(label) for label in labels])
        for ax in axes.flat[len(panels) :]:
            ax.set_axis_off()
        for ax in axes.flat[max(0, len(panels) - across) : len(panels)]:
            ax.xaxis.set_tick_params(labelbottom=True)
        what = metrics[0] if len(metrics) == 1 else "score"
        figure.supxlabel(f"{task}: {what} in percent, with 95 % interval; dashed: chance", fontsize=7)
    return figure


def bars(ax: "Axes", panel: "pd.DataFrame", places: list[float], colour: dict[str, str]) -> None:
    """panel: a row a line, NaN where a line has no result. places: where along the vertical axis."""
    values, lows, highs = (100 * panel[column].to_numpy(dtype=float) for column in ("value", "low", "high"))
    ax.barh(places, values, height=1, color=[colour[line] for line in panel.index])
    for width, ink in ((2.2, "white"), (0.8, INK)):
        ax.hlines(places, lows, highs, color=ink, linewidth=width, zorder=3)
    for place, value, best in zip(places, values, panel["best"]):
        ax.text(
            1.03,
            place,
            percent(value / 100),
            transform=ax.get_yaxis_transform(),
            va="center_baseline",
            weight="bold" if best is True else "normal",
        )
    chance = panel["chance"].mean()
    if np.isfinite(chance):
        ax.axvline(100 * chance, color="white", linewidth=1.6)
        ax.axvline(100 * chance, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
    ax.set_xlim(min(0.0, float(np.nanmin([*values, *lows]))), 100)
    ax.set_xticks([0, 25, 50, 75, 100])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def quality_and_cost(
    scores: "pd.DataFrame", rows: "pd.DataFrame", costs: "pd.DataFrame"
) -> tuple["pd.DataFrame", list[tuple[str, str]], list[str]]:
    """What the quality-against-cost chart shows.

    rows, costs: labelled. Returns one row a line with ``score`` (the mean over kinds of task of the mean over datasets)
    and the pooled costs of the line's cells; the pairs of task and dataset that the mean is over, which are those of
    the line that has the most, kinds of task that half of the lines have nothing of left out; and the lines left out
    because they lack some, as a mean over fewer does not compare.
    """
    runs = rows.loc[rows["line"].isin(scores["line"]), ["line", "cell"]].drop_duplicates()
    points = pool_costs(runs.merge(costs.drop(columns="line"), on="cell"))
    points = points[points["seconds"] > 0]
    table = scores[scores["line"].isin(points.index)].pivot_table("value", "line", ["task", "dataset"])
    if len(table):
        # A kind of task that half of the lines have nothing of (only some can caption) is none to compare all by.
        there = table.notna().T.groupby("task").any().T
        usual = there.columns[2 * there.sum() > len(there)]
        table = table[[pair for pair in table.columns if pair[0] in usual]]
    if len(table.columns):
        fullest = table.iloc[int(table.notna().sum(axis=1).argmax())]
        table = table.loc[:, fullest.notna()]
    whole = table.dropna()
    points = points.loc[whole.index].assign(score=whole.T.groupby("task").mean().mean())
    pairs: list[Any] = list(table.columns)
    return points, pairs, natural(set(table.index) - set(whole.index))


def cost_chart(points: "pd.DataFrame", pairs: Sequence[tuple[str, str]], order: Sequence[str]) -> "Figure":
    """Score against training time, a marker a line, its area the peak memory, with the Pareto frontier."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import NullLocator

    points = points.sort_values(["seconds", "score"], ascending=[True, False])
    seconds, scores, memory = (points[name].to_numpy() for name in ("seconds", "score", "peak_memory"))
    known = memory[~np.isnan(memory)]
    areas = np.maximum(6.0, np.nan_to_num(160.0 * memory / np.max(known, initial=1.0), nan=25.0))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH * 0.75, WIDTH * 0.45), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        ax = figure.subplots()
        colour = colours(order)
        for line, x, y, area, unknown in zip(points.index, seconds, 100 * scores, areas, np.isnan(memory)):
            ax.scatter(x, y, s=area, color="none" if unknown else colour[line], edgecolor=colour[line], linewidth=0.8)
        ax.margins(0.12)
        if seconds.max() > 5 * seconds.min():
            ax.set_xscale("log")
        front = pareto(seconds, scores)
        frontier = staircase(seconds[front], 100 * scores[front], ax.get_xlim()[1], ax.get_ylim()[0])
        ax.set(xlim=ax.get_xlim(), ylim=ax.get_ylim())
        ax.plot(*frontier.T, color=GREY, linewidth=0.8, zorder=0.5)
        ticks = duration_ticks(*ax.get_xlim(), log=ax.get_xscale() == "log")
        ax.set_xticks(list(ticks), list(ticks.values()))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("training time")
        datasets = {dataset for _, dataset in pairs}
        ax.set_ylabel(
            f"mean score of {plural(len({task for task, _ in pairs}), 'task')} "
            f"on {plural(len(datasets), 'dataset')} (%)"
        )
        handles: list[Any] = [Line2D([], [], color=GREY, linewidth=0.8, label="Pareto frontier")]
        sizes = np.unique(known)
        for size in dict.fromkeys([*sizes[:1], *sizes[-1:]]):
            prefix, (text,) = scaled(np.array([size]))
            ring: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "markeredgewidth": 0.8}
            ring["markersize"] = areas[memory == size][0] ** 0.5
            handles.append(Line2D([], [], color=GREY, linestyle="", label=f"{text} {prefix}B peak memory", **ring))
        figure.legend(handles=handles, loc="outside right upper", frameon=False, labelspacing=1.2)
        canvas.draw()
        figure.set_layout_engine("none")
        place_labels(ax, list(points.index), np.column_stack([seconds, 100 * scores]), areas, frontier)
    return figure


def pareto(seconds: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Which points no other one beats in time and score; the points in order of time, and by score within a time."""
    before = np.maximum.accumulate(np.concatenate([[-np.inf], scores[:-1]]))
    return scores > before


def staircase(xs: np.ndarray, ys: np.ndarray, right: float, bottom: float) -> np.ndarray:
    """Corners [v, 2] of the edge of what the points of a frontier beat, as far as the plot reaches."""
    across = np.column_stack([xs, [bottom, *ys[:-1]], xs, ys]).reshape(-1, 2)
    return np.concatenate([across, [[right, ys[-1]]]])


def duration_ticks(low: float, high: float, log: bool) -> dict[float, str]:
    """At most six round durations between two, in seconds, and how they are written."""
    units = {"s": 1, "min": 60, "h": 3600, "d": 86400}
    if log:
        round_ones = {"s": (1, 3, 10, 30), "min": (1, 3, 10, 30), "h": (1, 3, 10), "d": (1, 3, 10, 30, 100, 300)}
        inside = {n * units[unit]: f"{n} {unit}" for unit, ns in round_ones.items() for n in ns}
        inside = {x: text for x, text in inside.items() if low <= x <= high}
        return dict(list(inside.items())[:: 1 + len(inside) // 7])
    steps = {
        "s": (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 20, 30),
        "min": (1, 2, 5, 10, 15, 20, 30),
        "h": (1, 2, 3, 6, 12),
        "d": (1, 2, 5, 10, 20, 50),
    }
    sizes = [(n * units[unit], units[unit], unit) for unit, ns in steps.items() for n in ns]
    step, size, unit = next((found for found in sizes if high - low <= 5 * found[0]), sizes[-1])
    return {k * step: f"{k * step / size:g} {unit}" for k in range(int(np.ceil(low / step)), int(high / step) + 1)}


def place_labels(ax: "Axes", labels: Sequence[str], points: np.ndarray, areas: np.ndarray, path: np.ndarray) -> None:
    """Write each label beside its point, at the nearest place where it covers no marker, no label and not the path
    [v, 2] of upright and level lines; with a line to the point where that is not next to it. The layout must be
    final.
    """
    pixels = ax.transData.transform(points)
    scale = ax.figure.dpi / 72
    radii = np.sqrt(areas / np.pi) * scale
    corners = ax.transData.transform(path)
    taken = np.concatenate(
        [
            np.column_stack([pixels - radii[:, None], pixels + radii[:, None]]),
            np.column_stack([np.minimum(corners[:-1], corners[1:]), np.maximum(corners[:-1], corners[1:]) + scale]),
        ]
    )
    frame = ax.get_window_extent()
    around = np.array([(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)])
    gaps = np.array([2, 8, 16, 26, 40, 60]) * scale
    for label, point, centre, radius in zip(labels, points, pixels, radii):
        text = "\n".join(wrap(label, 24))
        measured = ax.text(point[0], point[1], text)
        half = np.array(measured.get_window_extent().size) / 2
        measured.remove()
        offsets = np.concatenate([around * (radius + gap + half) for gap in gaps])
        boxes = np.column_stack([centre + offsets - half, centre + offsets + half])
        covered = overlap(boxes, taken).sum(axis=1)
        inside = overlap(boxes, np.array([frame.extents]))[:, 0]
        best = int(np.argmin(np.round(covered + 4 * half.prod() - inside)))
        line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": radius / scale}
        ax.annotate(
            text,
            point,
            offsets[best] / scale,
            textcoords="offset points",
            ha="center",
            va="center",
            in_layout=False,
            arrowprops=line if best >= len(around) else None,
        )
        taken = np.concatenate([taken, boxes[[best]]])


def overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Areas [b, o] that boxes (x0, y0, x1, y1) share."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.clip(high - low, 0, None).prod(axis=2)


def rank_chart(rankings: Sequence["Ranking"], order: Sequence[str]) -> "Figure":
    """Critical-difference diagrams (Demsar 2006), one a ranking that has ranks: mean ranks on an axis with the best to
    the right, a bar through those that are not told apart.
    """
    import matplotlib
    from matplotlib.figure import Figure

    shown = [ranking for ranking in rankings if ranking.ranks]
    heights = [-(-len(ranking.lines) // 2) * 0.16 + 0.55 + 0.09 * _bars(ranking) for ranking in shown]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.1), layout="constrained")
        axes = figure.subplots(len(shown), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        for ax, ranking, height in zip(axes, shown, heights):
            _rank_panel(ax, ranking, colours(order), height)
    return figure


def _bars(ranking: "Ranking") -> int:
    assert ranking.ranks
    return len(cliques(ranking.ranks)) + 1


def _rank_panel(ax: "Axes", ranking: "Ranking", colour: dict[str, str], height: float) -> None:
    """The vertical axis is in inches downwards from the axis of ranks; a third of the width on each side is for
    names.
    """
    assert ranking.ranks
    mean, count = ranking.ranks.mean, len(ranking.lines)
    span = count - 1
    ax.set_xlim(count + 0.6 * span, 1 - 0.6 * span)
    ax.set_ylim(height - 0.3, -0.3)
    ax.set_title(f"{ranking.task}: mean rank over {plural(ranking.datasets, 'dataset')}", loc="left", pad=2)
    ax.set_axis_off()
    ax.hlines(0, 1, count, color=INK, linewidth=0.6)
    for rank in range(1, count + 1):
        ax.vlines(rank, -0.03, 0, color=INK, linewidth=0.6)
        ax.text(rank, -0.05, str(rank), ha="center", va="bottom")
    found = cliques(ranking.ranks)
    ax.hlines(-0.24, 1, 1 + min(ranking.ranks.critical_difference, span), color=INK, linewidth=1.2)
    ax.text(1 - 0.03 * span, -0.24, f"CD {ranking.ranks.critical_difference:.2f}", va="center_baseline")
    for i, (low, high) in enumerate(found):
        ax.hlines(0.06 + 0.09 * i, low - 0.015 * span, high + 0.015 * span, color=INK, linewidth=2.2)
    below = 0.06 + 0.09 * len(found) + 0.08
    places = np.argsort(mean, kind="stable")
    half = -(-count // 2)
    for i, at in enumerate(places):
        right = i < half
        y = below + 0.16 * (i if right else count - 1 - i)
        edge = 1 - 0.05 * span if right else count + 0.05 * span
        line = ranking.lines[at]
        ax.plot([mean[at], mean[at], edge], [0, y, y], color=colour[line], linewidth=0.8, solid_joinstyle="miter")
        text = f"{mean[at]:.2f}  {_shortened(line)}" if right else f"{_shortened(line)}  {mean[at]:.2f}"
        ax.text(
            edge + (-0.02 if right else 0.02) * span, y, text, ha="left" if right else "right", va="center_baseline"
        )


def _shortened(line: str, width: int = 34) -> str:
    return line if len(line) <= width else f"{line[: width - 1]}…"


def cliques(ranks: "Ranks") -> list[tuple[float, float]]:
    """The largest runs of mean ranks that are not told apart: (lowest, highest) of each, of two ranks or more. All are
    one run where Friedman's test does not reject.
    """
    ordered = np.sort(ranks.mean)
    reach = np.inf if ranks.p >= 0.05 else ranks.critical_difference
    runs = [(float(low), float(ordered[ordered - low <= reach][-1])) for low in ordered]
    return [
        (low, high)
        for i, (low, high) in enumerate(runs)
        if high > low and not any(other >= high for _, other in runs[:i])
    ]


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def save(figure: "Figure", path: Path) -> list[Path]:
    """``path`` with the endings .png and .svg, the latter with text as text."""
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    paths = [path.with_name(f"{path.name}.png"), path.with_name(f"{path.name}.svg")]
    with matplotlib.rc_context(STYLE):
        figure.savefig(paths[0], dpi=200)
        figure.set_layout_engine("none")
        figure.savefig(paths[1], metadata={"Date": None})
    return paths
