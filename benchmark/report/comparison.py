"""What the rows say about which line is better: paired differences on a dataset, mean ranks over datasets."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.common.errors import unknown
from benchmark.report.tables import MISSING, Cell, Table, columns_of, natural

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.evaluation.statistics import Ranks

Resamples = Callable[[str, str, str, str], np.ndarray | None]
"""Cell, evaluation, part, metric -> the metric in each resample of the test set, as Store.resamples() gives it."""

SIGNIFICANT = 0.05
BETTER, WORSE, NEITHER, UNTESTED = "better", "worse", "no difference shown", "not tested"
FEWEST_DATASETS, FEWEST_LINES = 5, 3
"""That mean ranks are tested for: Friedman's test can hardly reject with fewer datasets, and two lines are what the
paired differences compare (Demsar 2006, section 3)."""


def default_reference(scores: "pd.DataFrame") -> str | None:
    """The line with the highest mean score over the columns that more than half of the lines have, of the lines that
    have as many of these as any; None where there are no two lines.
    """
    table = scores[~scores["baseline"]].pivot_table("value", "line", ["task", "dataset", "metric"])
    if len(table) < 2:
        return None
    usual = 2 * table.notna().sum() > len(table)
    table = table.loc[:, usual] if usual.any() else table
    count = table.notna().sum(axis=1)
    return str(table[count == count.max()].mean(axis=1).idxmax())


def unbeaten(rows: "pd.DataFrame", resamples: Resamples) -> set[tuple[str, str, str, str]]:
    """Task, dataset, metric and line of the scores that are not shown to be better than those of the weights that the
    line started from, where these were evaluated: the paired difference is not positive, or its p-value alone, without
    correction, is 5 % or more. Where it could not be tested, the sign decides.

    rows: labelled; ``start`` names the cell of those weights.
    """
    if not {"start", "evaluation"} <= set(rows.columns):
        return set()
    # By evaluation too: a cell has several lines where a task was run with several options.
    line_of = dict(zip(zip(rows["cell"], rows["evaluation"]), rows["line"]))
    started = rows[~rows["baseline"].astype(bool)]
    starts = zip(started["line"], zip(started["start"], started["evaluation"]))
    against = {line: line_of[start] for line, start in starts if start in line_of}
    found = differences(rows, against, resamples)
    beaten = (found["value"] > 0) & ~(found["p"] >= SIGNIFICANT)
    return set(found.loc[~beaten, ["task", "dataset", "metric", "line"]].itertuples(index=False, name=None))


def find_reference(name: str, rows: "pd.DataFrame") -> str:
    """The line that ``name`` names: a line as the tables write it, or a method that has one line only.

    rows: labelled. Raises ``BenchError`` when there is none, or several.
    """
    lines = set(rows["line"])
    of_method = set(rows.loc[rows["method"] == name, "line"])
    if name in lines:
        return name
    if len(of_method) == 1:
        return of_method.pop()
    raise unknown("line of the report (--reference)", name, of_method or {*lines, *rows["method"]})


def differences(
    rows: "pd.DataFrame", against: Mapping[str, str], resamples: Resamples, picked: bool = False
) -> "pd.DataFrame":
    """The difference of each line to the one that ``against`` names, in each column of the tables: one row a task,
    dataset, metric and line where both have results.

    rows: labelled; the primary ones with a value count. Paired by test example, through the resamples of groups, which
    are the same for all lines, and by seed: those that both lines have. The parts of a measurement are averaged within
    a seed, and so are their resamples, which are of the same groups.
    picked: ``against`` names a line that these very results made the reference. Any pair of lines might have come to be
    compared then, and the correction is for all pairs.

    Columns besides the keys: value, low, high (fractions; the 95 % interval of this difference alone), p, tests (how
    many the correction counts in the kind of task), adjusted (by Holm, for these) and verdict.
    """
    import pandas as pd

    from benchmark.evaluation.statistics import holm

    keys = ["task", "dataset", "metric"]
    rows = rows[rows["primary"].astype(bool) & rows["value"].notna()]
    rows = rows.drop_duplicates([*keys, "line", "seed", "part"], keep="last")
    found: list[dict[str, Any]] = []
    pairs: Counter[str] = Counter()
    compared = {*against, *against.values()}
    for key, column in rows.groupby(keys):
        parts = set(column["part"])
        runs: dict[str, dict[int, pd.DataFrame]] = {}
        for (line, seed), run in column.groupby(["line", "seed"]):
            if set(run["part"]) == parts:
                runs.setdefault(line, {})[seed] = run.sort_values("part")
        pairs[key[0]] += math.comb(len(compared & set(runs)), 2)
        for line, other in against.items():
            seeds = _common(runs.get(line, {}), runs.get(other, {}))
            if seeds:
                first, second = ([runs[name][seed] for seed in seeds] for name in (line, other))
                found.append(dict(zip(keys, key)) | {"line": line} | _difference(first, second, resamples))
    frame = pd.DataFrame(found, columns=[*keys, "line", "value", "low", "high", "p"])
    frame["adjusted"], frame["tests"] = np.nan, 0
    for task, rows_of_task in frame.groupby("task").groups.items():
        p = frame.loc[rows_of_task, "p"].to_numpy()
        tests = pairs[task] if picked else int(np.isfinite(p).sum())
        frame.loc[rows_of_task, "tests"] = tests
        frame.loc[rows_of_task, "adjusted"] = holm(p, tests)
    frame["verdict"] = [verdict(value, p) for value, p in zip(frame["value"], frame["adjusted"])]
    return frame


def _common(first: Iterable[int], second: Iterable[int]) -> list[int]:
    return sorted(set(first) & set(second))


def _difference(
    first: "Sequence[pd.DataFrame]", second: "Sequence[pd.DataFrame]", resamples: Resamples
) -> dict[str, float]:
    """first, second: the rows of each seed's parts, in the same order."""
    from benchmark.evaluation.statistics import paired

    ours, theirs = (np.array([float(run["value"].astype(float).mean()) for run in runs]) for runs in (first, second))
    value = float((ours - theirs).mean())
    untested = {"value": value, "low": np.nan, "high": np.nan, "p": np.nan}
    runs = [*first, *second]
    if any("examples" not in run or list(run["examples"]) != list(runs[0]["examples"]) for run in runs):
        return untested
    drawn: list[list[np.ndarray]] = []
    for run in runs:
        kept = [resamples(row.cell, row.evaluation, row.part, row.metric) for row in run.itertuples()]
        if any(parts is None for parts in kept):
            return untested
        drawn.append([parts for parts in kept if parts is not None])
    # A run with more resamples has those of one with fewer as its first.
    shortest = min(len(parts) for of_run in drawn for parts in of_run)
    means = np.array([np.mean([parts[:shortest] for parts in of_run], axis=0) for of_run in drawn])
    tested = paired(ours, theirs, means[: len(first)], means[len(first) :], int(runs[0]["groups"].min()))
    return {"value": value, "low": tested.low, "high": tested.high, "p": tested.p}


def verdict(value: float, p: float) -> str:
    """What a difference and its corrected p-value say."""
    if np.isnan(p):
        return UNTESTED
    if p >= SIGNIFICANT:
        return NEITHER
    return BETTER if value > 0 else WORSE


def difference_table(
    found: "pd.DataFrame", task: str, reference: str, order: Sequence[str], picked: bool = False
) -> Table:
    """Lines by datasets: differences to the reference in points of a percent, with interval and verdict. picked: as for
    differences().
    """
    found = found[found["task"] == task]
    columns = columns_of(found)
    metrics = natural(found["metric"].unique())
    by_key: dict[Any, Any] = dict(zip(zip(found["line"], found["dataset"], found["metric"]), found.itertuples()))
    rows = []
    for line in order:
        if line in set(found["line"]):
            cells = [by_key.get((line, *key)) for key in columns]
            rows.append((line, [_cell(x) if x else Cell() for x in cells]))
    header = [(dataset, metric if len(metrics) > 1 else "") for dataset, metric in columns]
    return Table(f"{task}: difference to {reference}, in points", header, rows, [], _caption(found, picked))


def _cell(x: Any) -> Cell:
    interval = "" if np.isnan(x.low) else f"{points(x.low)} to {points(x.high)}\n"
    return Cell(points(x.value), interval + x.verdict.replace("no difference shown", "no difference\nshown"))


def points(fraction: float) -> str:
    """>>> points(0.0312), points(-0.02)
    ('+3.1', '−2.0')
    """
    return f"{100 * fraction:+.1f}".replace("-", "−")


def _caption(found: "pd.DataFrame", picked: bool) -> str:
    tests = int(found["tests"].max())
    several = "s" if tests > 1 else ""
    counted = f"{tests} test{several} of the table"
    if picked:
        counted = f"{tests} pair{several} of lines, as the reference is the best of them"
    said = (
        "Paired by test example and seed; beneath: the 95 % interval of this difference alone, and the verdict at 5 % "
        f"with Holm's correction for the {counted}."
    )
    if (found["verdict"] == UNTESTED).any():
        said += f" {UNTESTED}: measured on other test examples, or on a single group."
    return said


@dataclass(frozen=True)
class Ranking:
    """Mean ranks of lines over the datasets of a kind of task, or, in ``missing``, why there are none."""

    task: str
    lines: list[str]
    datasets: int
    ranks: "Ranks | None"
    missing: str = ""


def rankings(scores: "pd.DataFrame", order: Sequence[str]) -> list[Ranking]:
    """A ranking of each kind of task, over the columns where all of its lines have results."""
    from benchmark.evaluation.statistics import ranks

    found = []
    for task in natural(scores["task"].unique()):
        table = scores[scores["task"] == task].pivot_table("value", ["dataset", "metric"], "line")
        lines = [line for line in order if line in table.columns]
        table = table[lines].dropna()
        datasets = len(table)
        if datasets < FEWEST_DATASETS or len(lines) < FEWEST_LINES:
            there = f"{_count(datasets, 'dataset')} with results of all lines, {_count(len(lines), 'line')}"
            missing = f"needs {FEWEST_DATASETS} datasets and {FEWEST_LINES} lines, found {there}"
            found.append(Ranking(task, lines, datasets, None, missing))
        else:
            found.append(Ranking(task, lines, datasets, ranks(table[lines].to_numpy())))
    return found


def missing_ranks(found: Sequence[Ranking]) -> str:
    """Why there is no mean rank of some kinds of task, in a sentence; empty where all have one."""
    reasons: dict[str, list[str]] = {}
    for ranking in found:
        if not ranking.ranks:
            reasons.setdefault(ranking.missing, []).append(ranking.task)
    return " ".join(f"No mean ranks of {', '.join(tasks)}: a test {reason}." for reason, tasks in reasons.items())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def rank_table(found: Sequence[Ranking], order: Sequence[str]) -> Table:
    """Lines by kinds of task: mean rank over datasets, with the critical difference beneath the table."""
    shown = [ranking for ranking in found if ranking.ranks]
    rank_of = {
        (ranking.task, line): float(rank)
        for ranking in shown
        if ranking.ranks
        for line, rank in zip(ranking.lines, ranking.ranks.mean)
    }
    best = {ranking.task: min(rank_of[ranking.task, line] for line in ranking.lines) for ranking in shown}
    rows = []
    for line in order:
        if any((ranking.task, line) in rank_of for ranking in shown):
            values = [(rank_of.get((ranking.task, line)), best[ranking.task]) for ranking in shown]
            rows.append((line, [Cell(MISSING if v is None else f"{v:.2f}", best=v == b) for v, b in values]))
    tested = [ranking.ranks for ranking in shown if ranking.ranks]
    footer = [
        ("critical difference", [Cell(f"{ranks.critical_difference:.2f}") for ranks in tested]),
        ("p (Friedman)", [Cell(f"{ranks.p:.3f}" if ranks.p >= 0.001 else "<0.001") for ranks in tested]),
        ("datasets", [Cell(str(ranking.datasets)) for ranking in shown]),
    ]
    caption = (
        "1 is best. Lines whose mean ranks are nearer than the critical difference (Nemenyi, 5 %; Demsar 2006) are not "
        "told apart over these datasets; where p is 0.05 or more, none are."
    )
    return Table("mean rank over datasets", [(ranking.task, "") for ranking in shown], rows, footer, caption)
