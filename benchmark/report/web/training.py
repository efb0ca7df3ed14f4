"""Learning curves: what trainings logged, over the pairs they were trained on."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from benchmark.common.text import display_name
from benchmark.report.render import Chart
from benchmark.report.results import Results
from benchmark.report.web.charts import CHOICE, Lines, choice, end_labels, names, right_of_labels, specification, table

if TYPE_CHECKING:
    import pandas as pd

POINTS, FEWEST, IN_ALL = 200, 40, 12_000
"""The points of a training: this many, or fewer down to ``FEWEST`` where those of all trainings were too many."""
PLACES = ("step", "samples", "seconds")
"""The columns of a log that say where in the training a step was."""
SPEED = "pairs/s"


def learning_curves(results: Results) -> Iterator[Chart]:
    """Draw the quantities that trainings logged, one at a time, for all lines."""
    import altair as alt

    logs = list(logs_of(results))
    if not logs:
        return
    last = max(float(log["samples"].max()) for _, _, log in logs)
    points = int(np.clip(IN_ALL // len(logs), FEWEST, POINTS))
    curves = [(line, seed, thinned(log, last, points)) for line, seed, log in logs]
    quantities = list(dict.fromkeys(name for _, _, curve in curves for name in curve if name not in ("samples", "bin")))
    shown = [line for line in results.lines if line in {line for line, _, _ in curves}]
    lines = Lines(results.lines, shown)
    runs = [(shown.index(line), seed) for line, seed, _ in curves]
    columns = {
        "run": np.repeat(np.arange(len(curves)), [len(curve) for _, _, curve in curves]),
        **{name: np.concatenate([curve[name].to_numpy() for _, _, curve in curves]) for name in ("bin", "samples")},
    }
    for number, name in enumerate(quantities):
        missing = [curve.get(name, np.full(len(curve), np.nan)) for _, _, curve in curves]
        columns[f"q{number}"] = np.concatenate([np.asarray(values, dtype=float) for values in missing])
    quantity = choice("quantity", "quantity", [display_name(name) for name in quantities])
    seeds = [str(seed) for _, seed in runs]
    chosen = lines.chosen(
        alt.Chart(table(columns, 4)).transform_lookup(
            "run", from_=names("run", "seed", seeds, line=[n for n, _ in runs])
        )
    )
    chosen = chosen.transform_calculate(y="datum['q' + quantity]", x="datum.samples").transform_filter(
        "isValid(datum.y)"
    )
    mean = chosen.transform_aggregate(x="mean(x)", y="mean(y)", groupby=["name", "bin"])
    x = alt.X(
        "x:Q",
        title="pairs trained on",
        scale=right_of_labels(nice=False),
        axis=alt.Axis(format="~s", tickCount=6, labelOverlap=True),
    )
    y = alt.Y("y:Q", title=None, scale=alt.Scale(zero=False, nice=False), axis=alt.Axis(format="~g"))
    thick = mean.mark_line(strokeWidth=2).encode(
        x=x, y=y, color=lines.colour, strokeDash=lines.dash, order=alt.Order("x:Q")
    )
    layers = [thick.add_params(lines.clicked), *end_labels(mean, lines, x, y)]
    several = len(curves) > len(shown)
    if several:
        thin = chosen.mark_line(strokeWidth=0.7, opacity=0.45)
        layers.insert(0, thin.encode(x=x, y=y, color=lines.colour, detail=alt.Detail("seed:N"), order=alt.Order("x:Q")))
    spec = specification(layers, [quantity, lines.typed])
    yield Chart("learning-curves", "Learning curves", spec, _caption(points, last, several))


def _caption(points: int, last: float, several: bool) -> str:
    drawn = "Thick: the mean over seeds; thin: each seed. " if several else ""
    return (
        f"What each training logged. {drawn}A point is the mean over the steps within 1/{points} of the longest "
        f"training ({last:,.0f} pairs), at the last of them; {SPEED}: pairs over seconds between two points, with "
        f"validation. Lines that did not log a quantity have no curve. {CHOICE}"
    )


def logs_of(results: Results) -> "Iterator[tuple[str, int, pd.DataFrame]]":
    """Iterate over the logs of the lines, in their order: line, seed and log; those without samples are left out."""
    import pandas as pd

    frames = [frame for frame in (results.rows, results.costs) if {"line", "seed", "cell"} <= set(frame)]
    runs = pd.concat([frame[["line", "seed", "cell"]] for frame in frames]).drop_duplicates()
    for line in results.lines:
        for seed, cell in sorted(runs.loc[runs["line"] == line, ["seed", "cell"]].itertuples(index=False)):
            log = results.log(str(cell))
            if log is not None and "samples" in log and log["samples"].max() > 0:
                yield line, int(seed), log


def thinned(log: "pd.DataFrame", last: float, points: int) -> "pd.DataFrame":
    """Reduce a log to at most ``points`` rows: the means over the steps of each of so many equal spans of pairs.

    last: the pairs of all spans together. Returns bin (the span's number), samples (at its last step), the mean of each
    quantity over the steps that have it, and the pairs per second since the span before.
    """
    import pandas as pd

    spans = np.ceil(log["samples"].to_numpy() * points / last).clip(1, points).astype(int)
    order = np.argsort(spans, kind="stable")
    bins, starts = np.unique(spans[order], return_index=True)
    curve = {"bin": bins, "samples": np.maximum.reduceat(log["samples"].to_numpy()[order], starts)}
    for name in log.select_dtypes("number"):
        values = log[name].to_numpy(dtype=float)[order]
        known = np.add.reduceat(~np.isnan(values), starts, dtype=int)
        if name not in PLACES and known.any():
            total = np.add.reduceat(np.where(np.isnan(values), 0, values), starts)
            curve[name] = np.divide(total, known, out=np.full(len(bins), np.nan), where=known > 0)
    if "seconds" in log:
        seconds = np.fmax.reduceat(log["seconds"].to_numpy(dtype=float)[order], starts)
        passed, pairs = (np.diff(of_span, prepend=0) for of_span in (seconds, curve["samples"]))
        curve[SPEED] = np.divide(pairs, passed, out=np.full(len(bins), np.nan), where=passed > 0)
    return pd.DataFrame(curve)
