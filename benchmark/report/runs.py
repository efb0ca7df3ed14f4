"""The runs of lines on a dataset: what a comparison needs of the rows, read once for all comparisons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.report.results import Resamples, each_record

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Run:
    """A metric of one line and seed on one dataset, in all P parts of the measurement.

    examples: what each part was measured on; None where that was not recorded. resampled: cell, evaluation, part and
    metric of each part, which name its resamples. of_draws: the metric of each part in each draw of what is learned
    from; one number where there are none. n: the most examples of a part; groups: the fewest groups. effective_groups,
    scarcest: as smallest_sample() gives them. elsewhere: whether the weights were trained elsewhere.
    """

    examples: list[str] | None
    resampled: list[tuple[str, str, str, str]]
    of_draws: list[list[float]]
    n: int
    groups: int
    effective_groups: float
    scarcest: float
    elsewhere: bool


READ = [
    "line",
    "seed",
    "part",
    "cell",
    "evaluation",
    "examples",
    "value",
    "of_draws",
    "n",
    "groups",
    "effective_groups",
    "scarcest",
    "role",
]
"""The columns of the rows that a run is built from."""


COLUMN = ["task", "dataset", "metric"]
"""What tells the columns of the tables apart."""
Column = tuple[str, str, str]
"""Task, dataset and metric."""
Runs = Mapping[Column, Mapping[str, Mapping[int, Run]]]
"""Column -> line -> seed -> its run."""


def primary_rows(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Select the primary rows with a value."""
    return rows[rows["primary"].astype(bool) & rows["value"].notna()]


def complete_runs(rows: "pd.DataFrame") -> Runs:
    """Collect the runs of each column of the tables, in their order, without those that lack a part.

    Of several rows for a line, seed and part of a column, the last counts.
    """
    # By column, then by line and seed, then by part.
    columns: dict[Column, dict[tuple[str, int], dict[str, Any]]] = {}
    for row in each_record(rows[[name for name in (*COLUMN, *READ) if name in rows]]):
        of_column = columns.setdefault((row["task"], row["dataset"], row["metric"]), {})
        of_column.setdefault((str(row["line"]), int(row["seed"])), {})[row["part"]] = row
    return {column: _of_column(columns[column]) for column in sorted(columns)}


def _of_column(of_runs: Mapping[tuple[str, int], Mapping[str, dict[str, Any]]]) -> dict[str, dict[int, Run]]:
    count = len({part for of_parts in of_runs.values() for part in of_parts})
    runs: dict[str, dict[int, Run]] = {}
    for line, seed in sorted(of_runs):
        of_parts = of_runs[line, seed]
        if len(of_parts) == count:
            runs.setdefault(line, {})[seed] = _run([of_parts[part] for part in sorted(of_parts)])
    return runs


def _run(rows: "Sequence[dict[str, Any]]") -> Run:
    """Build a run of the rows of its parts, in their order."""
    values = [row["of_draws"] if isinstance(row.get("of_draws"), list) else [float(row["value"])] for row in rows]
    effective, scarcest = zip(*(_sample(row) for row in rows))
    return Run(
        examples=[row["examples"] for row in rows] if "examples" in rows[0] else None,
        resampled=[(row["cell"], row["evaluation"], row["part"], row["metric"]) for row in rows if "evaluation" in row],
        of_draws=values,
        n=int(max(row.get("n", 0) for row in rows)),
        groups=int(min(row.get("groups", 0) for row in rows)),
        effective_groups=float(np.fmin.reduce(effective)),
        scarcest=float(np.fmin.reduce(scarcest)),
        elsewhere=any(row.get("role") == "model" for row in rows),
    )


def _sample(row: "dict[str, Any]") -> tuple[float, float]:
    groups, effective, scarcest = (row.get(name) for name in ("groups", "effective_groups", "scarcest"))
    known = [each for each in (effective, groups) if each is not None and not np.isnan(each)]
    return float(known[0] if known else 0.0), float(np.nan if scarcest is None else scarcest)


def smallest_sample(rows: "pd.DataFrame") -> tuple[float, float]:
    """Return the fewest effective groups of some rows, and their scarcest class; NaN for the latter where none is.

    Rows without these columns, as of results that were made by hand, count their groups.
    """
    groups = rows["groups"] if "groups" in rows else rows["value"] * 0
    effective = rows["effective_groups"].fillna(groups) if "effective_groups" in rows else groups
    scarcest = rows["scarcest"].astype(float).min() if "scarcest" in rows else np.nan
    return float(effective.min()), float(scarcest)


def measured_runs(runs: "Sequence[Run]", resamples: Resamples) -> tuple[np.ndarray, np.ndarray | None]:
    """Average a metric over the parts of each run: in each of D draws, [runs, D], and in each resample, [runs, D, R].

    D is 1 where the metric has no draws, or the runs differ in their number. The latter is None where the runs were not
    measured on the same examples, or where the resamples of one were not kept.
    """
    of_draws = [run.of_draws for run in runs]
    drawn = _drawn(runs, resamples)
    counts = {len(each) for of_run in (of_draws if drawn is None else drawn) for each in of_run}
    if len(counts) > 1 or counts != {len(draws) for of_run in of_draws for draws in of_run}:
        of_draws = [[[float(np.mean(draws))] for draws in of_run] for of_run in of_draws]
        drawn = drawn and [[each.mean(axis=0, keepdims=True) for each in of_run] for of_run in drawn]
    values = np.array([_mean(of_run) for of_run in of_draws])
    if drawn is None:
        return values, None
    # The resamples of a run with fewer are the first ones of a run with more.
    shortest = min(each.shape[1] for of_run in drawn for each in of_run)
    return values, np.array([_mean([each[:, :shortest] for each in of_run]) for of_run in drawn])


def _mean(parts: Sequence[Any]) -> Any:
    """Average the parts of a run; most have one."""
    return parts[0] if len(parts) == 1 else np.mean(parts, axis=0)


def _drawn(runs: "Sequence[Run]", resamples: Resamples) -> list[list[np.ndarray]] | None:
    """Read the resamples of each part of each run; None where they are not of the same examples, or were not kept."""
    if any(run.examples is None or run.examples != runs[0].examples for run in runs):
        return None
    drawn: list[list[np.ndarray]] = []
    for run in runs:
        kept = [resamples(*key) for key in run.resampled]
        if any(each is None for each in kept):
            return None
        drawn.append([each for each in kept if each is not None])
    return drawn
