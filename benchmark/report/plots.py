"""The charts of scores, costs and ranks, and how a figure is saved."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.common.errors import plural
from benchmark.report.render import of_level, percent, scaled, wrap
from benchmark.report.results import columns_of, natural, present

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from benchmark.evaluation.statistics import Ranks

DPI = 200
"""Of PNG files."""
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
    # Matplotlib would look for a place above the ticks, of which there are none at the top.
    "axes.titley": 1.0,
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
    # Text stays text: many journals refuse Type 3 fonts.
    "pdf.fonttype": 42,
}


def colours(order: Sequence[str]) -> dict[str, str]:
    """Give each line a colour, the same in all plots. They repeat after twelve: lines are always labelled too."""
    return dict(zip(order, cycle(PALETTE)))


def score_chart(scores: "pd.DataFrame", task: str, order: Sequence[str]) -> "Figure":
    """Draw a panel for each dataset and a bar for each line, with interval and value; chance is dashed.

    Where other guesses do without the images, it is the highest of all.
    """
    import matplotlib
    from matplotlib.figure import Figure

    scores = scores[scores["task"] == task]
    lines = present(scores, order)
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
        for ax in axes[:, 1:].flat:
            # It has no labels, and its ticks no length: drawing it takes as long as the rest.
            ax.yaxis.set_visible(False)
        for ax in axes.flat[len(panels) :]:
            ax.set_axis_off()
        for ax in axes.flat[max(0, len(panels) - across) : len(panels)]:
            ax.xaxis.set_tick_params(labelbottom=True)
        measure = metrics[0] if len(metrics) == 1 else "score"
        level = of_level(scores["seeds"].max())
        blind = any(guesses for guesses in scores["blind"])
        dashed = "the best guess without the images" if blind else "chance"
        figure.supxlabel(f"{task}: {measure} in percent, with 95 % interval{level}; dashed: {dashed}", fontsize=7)
    return figure


def bars(ax: "Axes", panel: "pd.DataFrame", places: list[float], colour: dict[str, str]) -> None:
    """Draw the bars of a panel: a row for each line, NaN where it has no result. places: along the vertical axis."""
    from matplotlib.collections import PolyCollection

    values, lows, highs = (100 * panel[column].to_numpy(dtype=float) for column in ("value", "low", "high"))
    # barh() makes an artist of each bar, which takes as long as the rest of the panel.
    corners = [
        [(0, at - 0.5), (value, at - 0.5), (value, at + 0.5), (0, at + 0.5)] for at, value in zip(places, values)
    ]
    ax.add_collection(PolyCollection(corners, facecolors=[colour[line] for line in panel.index]), autolim=False)
    for width, ink in ((2.2, "white"), (0.8, INK)):
        ax.hlines(places, lows, highs, color=ink, linewidth=width, zorder=3)
    measured = set[tuple[int, bool, bool]]()
    for place, value, best in zip(places, values, panel["best"]):
        text = percent(value / 100)
        # Digits have one width, so that of many texts as wide the layout need measure only one.
        like = len(text), bool(value < 0), best is True
        ax.text(
            1.03,
            place,
            text,
            transform=ax.get_yaxis_transform(),
            va="center_baseline",
            weight="bold" if best is True else "normal",
            in_layout=like not in measured,
        )
        measured.add(like)
    blind = [guess for guesses in panel["blind"].dropna() for guess in guesses.values()]
    chance = float(np.fmax.reduce([panel["chance"].mean(), *blind]))
    if np.isfinite(chance):
        ax.axvline(100 * chance, color="white", linewidth=1.6)
        ax.axvline(100 * chance, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
    ax.set_xlim(min(0.0, float(np.nanmin([*values, *lows]))), 100)
    ax.set_xticks([0, 25, 50, 75, 100])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def cost_chart(points: "pd.DataFrame", pairs: Sequence[tuple[str, str]], order: Sequence[str]) -> "Figure":
    """Draw score against training time, one marker per line, its area the peak memory, with the Pareto frontier."""
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
        FigureCanvasAgg(figure)
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
            f"on {plural(len(datasets), 'dataset')} (%){of_level(points['seeds'].max())}"
        )
        handles: list[Any] = [Line2D([], [], color=GREY, linewidth=0.8, label="Pareto frontier")]
        sizes = np.unique(known)
        for size in dict.fromkeys([*sizes[:1], *sizes[-1:]]):
            prefix, ((text,),) = scaled(np.array([size]))
            ring: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "markeredgewidth": 0.8}
            ring["markersize"] = areas[memory == size][0] ** 0.5
            handles.append(Line2D([], [], color=GREY, linestyle="", label=f"{text} {prefix}B peak memory", **ring))
        figure.legend(handles=handles, loc="outside right upper", frameon=False, labelspacing=1.2)
        # Places and sizes are final after it; drawing the figure, too, would take twice as long.
        if engine := figure.get_layout_engine():
            engine.execute(figure)
        figure.set_layout_engine("none")
        place_labels(ax, list(points.index), np.column_stack([seconds, 100 * scores]), areas, frontier)
    return figure


def pareto(seconds: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Mark the points that no other one beats in time and score. The points are sorted by time, then falling score."""
    before = np.maximum.accumulate(np.concatenate([[-np.inf], scores[:-1]]))
    return scores > before


def staircase(xs: np.ndarray, ys: np.ndarray, right: float, bottom: float) -> np.ndarray:
    """List the corners [v, 2] of the edge of what the points of a frontier beat, as far as the plot reaches."""
    across = np.column_stack([xs, [bottom, *ys[:-1]], xs, ys]).reshape(-1, 2)
    return np.concatenate([across, [[right, ys[-1]]]])


def duration_ticks(low: float, high: float, log: bool) -> dict[float, str]:
    """Choose at most six round durations between two, in seconds, and write them."""
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
    step, size, unit = next((choice for choice in sizes if high - low <= 5 * choice[0]), sizes[-1])
    return {k * step: f"{k * step / size:g} {unit}" for k in range(int(np.ceil(low / step)), int(high / step) + 1)}


def place_labels(ax: "Axes", labels: Sequence[str], points: np.ndarray, areas: np.ndarray, path: np.ndarray) -> None:
    """Write each label next to its point, at the nearest place where it covers no marker, no label and not the path.

    path: corners [v, 2] of upright and level lines. A label that is not next to its point gets a line to it. The layout
    must be final.
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
    """Compute the areas [b, o] that boxes (x0, y0, x1, y1) share."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.asarray(np.clip(high - low, 0, None).prod(axis=2))


@dataclass(frozen=True)
class Ranking:
    """Mean ranks of lines over the datasets of a kind of task, or, in ``missing``, why there are none.

    seeds: the most that a line has.
    """

    task: str
    lines: list[str]
    datasets: int
    ranks: "Ranks | None"
    missing: str = ""
    seeds: int = 1


def rank_chart(rankings: Sequence[Ranking], order: Sequence[str]) -> "Figure":
    """Draw a critical-difference diagram (Demsar 2006) for each ranking that has ranks.

    Mean ranks lie on an axis with the best to the right; a bar joins those that are not told apart.
    """
    import matplotlib
    from matplotlib.figure import Figure

    shown = [(ranking, ranking.ranks, cliques(ranking.ranks)) for ranking in rankings if ranking.ranks]
    heights = [-(-len(ranking.lines) // 2) * 0.16 + 0.55 + 0.09 * (len(bars) + 1) for ranking, _, bars in shown]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.1), layout="constrained")
        axes = figure.subplots(len(shown), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        for ax, (ranking, ranks, bars), height in zip(axes, shown, heights):
            _rank_axis(ax, ranking, ranks, height)
            _clique_bars(ax, bars, len(ranking.lines))
            _rank_names(ax, ranking, ranks, colours(order), 0.06 + 0.09 * len(bars) + 0.08)
    return figure


def _rank_axis(ax: "Axes", ranking: Ranking, ranks: "Ranks", height: float) -> None:
    """Draw the axis of ranks and the critical difference.

    The vertical axis is in inches downwards from the axis of ranks; a third of the width on each side is for names.
    """
    count = len(ranking.lines)
    reach = count - 1
    ax.set_xlim(count + 0.6 * reach, 1 - 0.6 * reach)
    ax.set_ylim(height - 0.3, -0.3)
    title = f"{ranking.task}: mean rank over {plural(ranking.datasets, 'dataset')}{of_level(ranking.seeds)}"
    ax.set_title(title, loc="left", pad=2)
    ax.set_axis_off()
    ax.hlines(0, 1, count, color=INK, linewidth=0.6)
    for rank in range(1, count + 1):
        ax.vlines(rank, -0.03, 0, color=INK, linewidth=0.6)
        ax.text(rank, -0.05, str(rank), ha="center", va="bottom")
    ax.hlines(-0.24, 1, 1 + min(ranks.critical_difference, reach), color=INK, linewidth=1.2)
    ax.text(1 - 0.03 * reach, -0.24, f"CD {ranks.critical_difference:.2f}", va="center_baseline")


def _clique_bars(ax: "Axes", bars: Sequence[tuple[float, float]], count: int) -> None:
    """Draw a bar through the mean ranks of each clique. count: of lines."""
    for i, (low, high) in enumerate(bars):
        ax.hlines(0.06 + 0.09 * i, low - 0.015 * (count - 1), high + 0.015 * (count - 1), color=INK, linewidth=2.2)


def _rank_names(ax: "Axes", ranking: Ranking, ranks: "Ranks", colour: dict[str, str], top: float) -> None:
    """Write each line's name and mean rank at the side, the better half to the right. top: where the first name is."""
    mean, count = ranks.mean, len(ranking.lines)
    reach, half = count - 1, -(-count // 2)
    for i, at in enumerate(np.argsort(mean, kind="stable")):
        right = i < half
        y = top + 0.16 * (i if right else count - 1 - i)
        edge = 1 - 0.05 * reach if right else count + 0.05 * reach
        line = ranking.lines[at]
        ax.plot([mean[at], mean[at], edge], [0, y, y], color=colour[line], linewidth=0.8, solid_joinstyle="miter")
        text = f"{mean[at]:.2f}  {_shortened(line)}" if right else f"{_shortened(line)}  {mean[at]:.2f}"
        ax.text(
            edge + (-0.02 if right else 0.02) * reach, y, text, ha="left" if right else "right", va="center_baseline"
        )


def _shortened(line: str, width: int = 34) -> str:
    return line if len(line) <= width else f"{line[: width - 1]}…"


def cliques(ranks: "Ranks") -> list[tuple[float, float]]:
    """Find the largest runs of two or more mean ranks that are not told apart: (lowest, highest) of each.

    All ranks are one run where Friedman's test does not reject.
    """
    ordered = np.sort(ranks.mean)
    reach = np.inf if ranks.p >= 0.05 else ranks.critical_difference
    runs = [(float(low), float(ordered[ordered - low <= reach][-1])) for low in ordered]
    return [
        (low, high)
        for i, (low, high) in enumerate(runs)
        if high > low and not any(other >= high for _, other in runs[:i])
    ]


def _lay_out(figure: "Figure") -> None:
    """Lay a figure out, once for all files: savefig() would draw it another time first."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        if not axis.get_label_text():
            # Each time that it is drawn or measured, a place would be sought for the label that it does not have.
            axis.set_label_coords(0, 0)
    if engine := figure.get_layout_engine():
        usual, figure.dpi = figure.dpi, DPI
        engine.execute(figure)
        figure.dpi = usual
        figure.set_layout_engine(None)


def save(figure: "Figure", path: Path, pdf: bool = False) -> list[Path]:
    """Save a figure under ``path`` with the endings .png, .svg, with text as text, and, if asked, .pdf."""
    import matplotlib
    from matplotlib.backend_bases import FigureCanvasBase

    path.parent.mkdir(parents=True, exist_ok=True)
    paths = [path.with_name(f"{path.name}.{ending}") for ending in ("png", "svg", "pdf")[: 3 if pdf else 2]]
    with matplotlib.rc_context(STYLE):
        _lay_out(figure)
        # A higher level takes twice as long for files that are a tenth smaller.
        figure.savefig(paths[0], dpi=DPI, pil_kwargs={"compress_level": 3})
        figure.savefig(paths[1], metadata={"Date": None})
        if pdf:
            figure.savefig(paths[2], metadata={"CreationDate": None})
    # The canvas keeps all pixels of the picture.
    FigureCanvasBase(figure)
    return paths
