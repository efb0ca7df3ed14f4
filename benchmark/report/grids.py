"""Grids over two settings or more as a matrix, such as the score by weight and pretraining set."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from benchmark.report.render import MISSING, Cell, Table, interval, percent
from benchmark.report.results import Results, each_row, natural, own_settings, settings_of
from benchmark.report.scores import best_of

if TYPE_CHECKING:
    import pandas as pd

SETS = "pretraining"


def grids(results: Results) -> Iterator[Table]:
    """Lay out the scores of each arm that was run on a grid of two settings or more, of one kind of task.

    The columns are the pretraining sets where these vary, else the last setting. A score is the mean over the datasets,
    or over those that the line was trained on where all of these are evaluated.
    """
    for arm, points in _points(results).items():
        varied = {
            name: natural({point[name] for point in points.values()})
            for name in next(iter(points.values()))
            if len({point[name] for point in points.values()}) > 1
        }
        if len(varied) > 1:
            yield _matrix(results, arm, points, varied)


def _points(results: Results) -> dict[str, dict[str, dict[str, str]]]:
    """Return the settings of each line by arm, where all lines of the arm name the same settings."""
    shared = settings_of(results.shared)
    rows = results.rows[~results.rows["baseline"]].drop_duplicates("line")
    by_arm: dict[str, dict[str, dict[str, str]]] = {}
    for row in each_row(rows):
        own = own_settings(str(row.variant), shared)
        by_arm.setdefault(str(row.arm), {})[str(row.line)] = dict(setting.split("=", 1) for setting in own)
    return {
        arm: points
        for arm, points in by_arm.items()
        if len(points) > 3 and len({frozenset(point) for point in points.values()}) == 1
    }


def _matrix(
    results: Results, arm: str, points: Mapping[str, Mapping[str, str]], varied: Mapping[str, list[str]]
) -> Table:
    across = SETS if SETS in varied else list(varied)[-1]
    down = [name for name in varied if name != across]
    datasets = {*results.scores["dataset"]}
    own_sets = across == SETS and all(name in datasets for sets in varied[SETS] for name in _sets(sets))
    cells: dict[tuple[str, str], tuple[float, str]] = {}
    for line, point in points.items():
        scores = results.scores[results.scores["line"] == line]
        wanted = {*_sets(point[SETS])} if own_sets else datasets
        scores = scores[scores["dataset"].isin(wanted)]
        row = ", ".join(f"{name}={point[name]}" for name in down)
        cells[row, point[across]] = _mean(scores, len(wanted))
    rows = natural({row for row, _ in cells})
    columns = varied[across]
    best = {column: best_of([cells.get((row, column), (np.nan, ""))[0] for row in rows], np.nan) for column in columns}
    body = [
        (
            row,
            [
                Cell(percent(cells[row, column][0]), cells[row, column][1], best[column][number])
                if (row, column) in cells
                else Cell(MISSING)
                for column in columns
            ],
        )
        for number, row in enumerate(rows)
    ]
    what = "the set that the column names" if own_sets else "the mean over the datasets"
    return Table(
        f"{results.task}: {arm} by {', '.join(down)} and {across}",
        [(column, across) for column in columns],
        body,
        [],
        f"The primary metric in percent, on {what}. Bold marks the highest value of a column, which is no verdict: see "
        "the differences.",
    )


def _sets(text: str) -> list[str]:
    """Return the names of the sets in a value of --grid pretraining: names or paths of cards, joined by +."""
    return [name.rsplit("/", 1)[-1].removesuffix(".yaml").removesuffix(".yml") for name in text.split("+")]


def _mean(scores: "pd.DataFrame", datasets: int) -> tuple[float, str]:
    """Average a line's scores over the datasets; NaN where one is missing. A single dataset has an interval."""
    if len(scores) < datasets or not len(scores):
        return np.nan, ""
    under = interval(scores["low"].iloc[0], scores["high"].iloc[0]) if len(scores) == 1 else ""
    return float(scores["value"].mean()), under
