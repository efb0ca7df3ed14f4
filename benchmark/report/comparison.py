"""Which line is better: paired differences on a dataset, and mean ranks over datasets."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.common.errors import plural, unknown
from benchmark.report.plots import Ranking, rank_chart
from benchmark.report.render import MISSING, Cell, Plot, Sentence, Table
from benchmark.report.results import Resamples, Results, columns_of, natural

if TYPE_CHECKING:
    import pandas as pd

SIGNIFICANT = 0.05
BASELINES = {"start": ("†", "the model before training"), "raw_pixels": ("‡", "raw pixels")}
"""By the column of the rows that names its cell, each baseline that every line must beat: its mark, and its name."""
BETTER, WORSE, NEITHER, UNTESTED = "better", "worse", "no difference shown", "not tested"
FEWEST_DATASETS, FEWEST_LINES = 5, 3
"""The fewest that mean ranks are tested for: with fewer datasets Friedman's test can hardly reject, and two lines are
compared by their paired differences (Demsar 2006, section 3)."""


def against_reference(results: Results) -> Iterator[Table]:
    """Show the differences of all methods to the reference in a kind of task."""
    reference, methods = results.reference, results.methods
    if reference is None:
        return
    against = {line: reference for line in methods if line != reference}
    compared = differences(results.rows, against, results.resamples, picked=not results.chosen)
    if len(compared):
        yield difference_table(compared, results.task, reference, methods, picked=not results.chosen)


def against_baselines(results: Results) -> Iterator[Table]:
    """Show the differences of all methods to their own baselines; in the terminal where there is no other reference."""
    for column, (_, name) in BASELINES.items():
        own = own_baselines(results.rows, column)
        against = {line: own[line] for line in results.methods if own.get(line, line) != line}
        compared = differences(results.rows, against, results.resamples)
        if len(compared):
            table = difference_table(compared, results.task, name, results.methods)
            table.page_only = results.reference is not None
            yield table


def mean_ranks(results: Results) -> Iterator[Table | Plot | Sentence]:
    """Show the mean ranks of the methods over datasets, or why there are none."""
    of_tasks = rankings(results.scores, results.methods)
    if any(ranking.ranks for ranking in of_tasks):
        yield rank_table(of_tasks, results.methods)
        yield Plot(rank_chart(of_tasks, results.methods), "ranks", "mean ranks and critical difference")
    if missing := missing_ranks(of_tasks):
        yield Sentence(missing)


def default_reference(scores: "pd.DataFrame") -> str | None:
    """Find the line with the highest mean score, which the others are compared with; None where there are no two lines.

    The mean is over the columns that more than half of the lines have; lines that lack some of these do not count,
    unless all do.
    """
    table = scores[~scores["baseline"]].pivot_table("value", "line", ["task", "dataset", "metric"])
    if len(table) < 2:
        return None
    usual = 2 * table.notna().sum() > len(table)
    table = table.loc[:, usual] if usual.any() else table
    count = table.notna().sum(axis=1)
    return str(table[count == count.max()].mean(axis=1).idxmax())


def unbeaten(rows: "pd.DataFrame", resamples: Resamples, baseline: str = "start") -> set[tuple[str, str, str, str]]:
    """Find the scores that are not shown to be better than those of the line's own baseline.

    Their paired difference is not positive, or its p-value alone, without correction, is 5 % or more; where it could
    not be tested, the sign decides. rows: labelled. baseline: one of ``BASELINES``, whose scores count where they were
    evaluated. Returns task, dataset, metric and line of each.
    """
    compared = differences(rows, own_baselines(rows, baseline), resamples)
    better = (compared["value"] > 0) & ~(compared["p"] >= SIGNIFICANT)
    return set(compared.loc[~better, ["task", "dataset", "metric", "line"]].itertuples(index=False, name=None))


def marks(rows: "pd.DataFrame", resamples: Resamples) -> dict[tuple[str, str, str, str], str]:
    """Find the scores that are not shown to beat a baseline: the marks of each, by task, dataset, metric and line."""
    marks_of: dict[tuple[str, str, str, str], str] = {}
    for baseline, (mark, _) in BASELINES.items():
        for key in unbeaten(rows, resamples, baseline):
            marks_of[key] = marks_of.get(key, "") + mark
    return marks_of


def own_baselines(rows: "pd.DataFrame", baseline: str) -> dict[str, str]:
    """Find the line of each line's own baseline, where it was evaluated. rows: labelled. baseline: of ``BASELINES``.

    A model with random weights is its own model before training.
    """
    if not {baseline, "evaluation"} <= set(rows.columns):
        return {}
    # By evaluation too: a cell has several lines where a task was run with several options.
    line_of = dict(zip(zip(rows["cell"], rows["evaluation"]), rows["line"]))
    own = rows[~rows["baseline"].astype(bool)]
    cells = zip(own["line"], zip(own[baseline], own["evaluation"]))
    return {line: line_of[cell] for line, cell in cells if cell in line_of}


def find_reference(name: str, rows: "pd.DataFrame") -> str:
    """Find the line that ``name`` names: a line as the tables write it, or an arm or method that has one line only.

    rows: labelled. Raises ``BenchError`` when there is none, or several.
    """
    lines: set[str] = set(rows["line"])
    if name in lines:
        return name
    matches: set[str] = set()
    for column in ("arm", "method"):
        matches = matches or set(rows.loc[rows[column] == name, "line"])
    if len(matches) == 1:
        return matches.pop()
    raise unknown("line of the report (--reference)", name, matches or {*lines, *rows["arm"], *rows["method"]})


def differences(
    rows: "pd.DataFrame", against: Mapping[str, str], resamples: Resamples, picked: bool = False
) -> "pd.DataFrame":
    """Compute the difference of each line to the one that ``against`` names, in each column of the tables.

    rows: labelled; the primary ones with a value count. The differences are paired by test example, through the
    resamples of groups, which are the same for all lines, and by seed: those that both lines have. The parts of a
    measurement are averaged within a seed, and so are their resamples, which are of the same groups.
    picked: whether these very results made a line the reference. Then any pair of lines might have come to be compared,
    and the correction is for all pairs.

    Returns one row per task, dataset, metric and line where both have results: value, low, high (fractions; the 95 %
    interval of this difference alone), p, tests (how many the correction counts in the kind of task), adjusted (p by
    Holm, for these) and verdict.
    """
    import pandas as pd

    keys = ["task", "dataset", "metric"]
    rows = rows[rows["primary"].astype(bool) & rows["value"].notna()]
    rows = rows.drop_duplicates([*keys, "line", "seed", "part"], keep="last")
    compared: list[dict[str, Any]] = []
    pairs: Counter[str] = Counter()
    lines = {*against, *against.values()}
    for key, column in rows.groupby(keys):
        runs = complete_runs(column)
        pairs[key[0]] += math.comb(len(lines & set(runs)), 2)
        for line, other in against.items():
            seeds = sorted(set(runs.get(line, {})) & set(runs.get(other, {})))
            if seeds:
                first, second = ([runs[name][seed] for seed in seeds] for name in (line, other))
                compared.append(dict(zip(keys, key)) | {"line": line} | _difference(first, second, resamples))
    frame = pd.DataFrame(compared, columns=[*keys, "line", "value", "low", "high", "p"])
    return _with_verdicts(frame, pairs if picked else None)


def complete_runs(column: "pd.DataFrame") -> "dict[str, dict[int, pd.DataFrame]]":
    """Group the rows of a column by line and seed, without the runs that lack a part."""
    parts = set(column["part"])
    runs: dict[str, dict[int, pd.DataFrame]] = {}
    for (line, seed), run in column.groupby(["line", "seed"]):
        if set(run["part"]) == parts:
            runs.setdefault(line, {})[seed] = run.sort_values("part")
    return runs


def _with_verdicts(compared: "pd.DataFrame", pairs: Mapping[str, int] | None) -> "pd.DataFrame":
    """Add tests, adjusted and verdict. pairs: how many tests count in each kind of task; default: those made."""
    from benchmark.evaluation.statistics import holm

    compared["adjusted"], compared["tests"] = np.nan, 0
    for task, rows_of_task in compared.groupby("task").groups.items():
        p = compared.loc[rows_of_task, "p"].to_numpy()
        tests = int(np.isfinite(p).sum()) if pairs is None else pairs[task]
        compared.loc[rows_of_task, "tests"] = tests
        compared.loc[rows_of_task, "adjusted"] = holm(p, tests)
    compared["verdict"] = [verdict(value, p) for value, p in zip(compared["value"], compared["adjusted"])]
    return compared


def _difference(
    first: "Sequence[pd.DataFrame]", second: "Sequence[pd.DataFrame]", resamples: Resamples
) -> dict[str, float]:
    """Compute the difference of two lines. first, second: the rows of each seed's parts, in the same order."""
    from benchmark.evaluation.statistics import paired

    ours, theirs = (np.array([float(run["value"].astype(float).mean()) for run in runs]) for runs in (first, second))
    value = float((ours - theirs).mean())
    runs = [*first, *second]
    resampled = resampled_means(runs, resamples)
    if resampled is None:
        return {"value": value, "low": np.nan, "high": np.nan, "p": np.nan}
    groups = int(runs[0]["groups"].min())
    tested = paired(ours, theirs, resampled[: len(first)], resampled[len(first) :], groups)
    return {"value": value, "low": tested.low, "high": tested.high, "p": tested.p}


def resampled_means(runs: "Sequence[pd.DataFrame]", resamples: Resamples) -> np.ndarray | None:
    """Average the resampled metric over the parts of each run: [runs, R].

    None where the runs were not measured on the same examples, or where the resamples of one were not kept.
    """
    if any("examples" not in run or list(run["examples"]) != list(runs[0]["examples"]) for run in runs):
        return None
    drawn: list[list[np.ndarray]] = []
    for run in runs:
        kept = [resamples(row.cell, row.evaluation, row.part, row.metric) for row in run.itertuples()]
        if any(values is None for values in kept):
            return None
        drawn.append([values for values in kept if values is not None])
    # The resamples of a run with fewer are the first ones of a run with more.
    shortest = min(len(values) for of_run in drawn for values in of_run)
    return np.array([np.mean([values[:shortest] for values in of_run], axis=0) for of_run in drawn])


def verdict(value: float, p: float) -> str:
    """Judge a difference by its sign and its corrected p-value; NaN: it was not tested."""
    if np.isnan(p):
        return UNTESTED
    if p >= SIGNIFICANT:
        return NEITHER
    return BETTER if value > 0 else WORSE


def difference_table(
    compared: "pd.DataFrame", task: str, reference: str, order: Sequence[str], picked: bool = False
) -> Table:
    """Tabulate lines by datasets: differences to the reference in points of a percent, with interval and verdict.

    compared, picked: as differences() gives and takes them.
    """
    compared = compared[compared["task"] == task]
    columns = columns_of(compared)
    metrics = natural(compared["metric"].unique())
    keys = zip(compared["line"], compared["dataset"], compared["metric"])
    by_key: dict[Any, Any] = dict(zip(keys, compared.itertuples()))
    rows = []
    for line in order:
        if line in set(compared["line"]):
            of_line = [by_key.get((line, *key)) for key in columns]
            rows.append((line, [_cell(difference) if difference else Cell() for difference in of_line]))
    header = [(dataset, metric if len(metrics) > 1 else "") for dataset, metric in columns]
    return Table(f"{task}: difference to {reference}, in points", header, rows, [], _caption(compared, picked))


def _cell(difference: Any) -> Cell:
    """Write a row of differences()."""
    interval = "" if np.isnan(difference.low) else f"{points(difference.low)} to {points(difference.high)}\n"
    judged = difference.verdict.replace("no difference shown", "no difference\nshown")
    return Cell(points(difference.value), interval + judged)


def points(fraction: float) -> str:
    """Write a difference of fractions in points of a percent, with its sign.

    >>> points(0.0312), points(-0.02)
    ('+3.1', '−2.0')
    """
    return f"{100 * fraction:+.1f}".replace("-", "−")


def _caption(compared: "pd.DataFrame", picked: bool) -> str:
    tests = int(compared["tests"].max())
    several = "s" if tests > 1 else ""
    counted = f"{tests} test{several} of this table"
    if picked:
        counted = f"{tests} pair{several} of lines, because the reference is the best of them"
    caption = (
        "Paired by test example and seed; below: the 95 % interval of this difference alone, and the verdict at 5 % "
        f"with Holm's correction for the {counted}."
    )
    if (compared["verdict"] == UNTESTED).any():
        caption += f" {UNTESTED}: measured on other test examples, or on a single group."
    return caption


def rankings(scores: "pd.DataFrame", order: Sequence[str]) -> list[Ranking]:
    """Rank the lines in each kind of task, over the columns where all of its lines have results."""
    from benchmark.evaluation.statistics import ranks

    of_tasks = []
    for task in natural(scores["task"].unique()):
        table = scores[scores["task"] == task].pivot_table("value", ["dataset", "metric"], "line")
        lines = [line for line in order if line in table.columns]
        table = table[lines].dropna()
        datasets = len(table)
        if datasets < FEWEST_DATASETS or len(lines) < FEWEST_LINES:
            have = f"{plural(datasets, 'dataset')} with results of all lines, {plural(len(lines), 'line')}"
            missing = f"needs {FEWEST_DATASETS} datasets and {FEWEST_LINES} lines, found {have}"
            of_tasks.append(Ranking(task, lines, datasets, None, missing))
        else:
            of_tasks.append(Ranking(task, lines, datasets, ranks(table[lines].to_numpy())))
    return of_tasks


def missing_ranks(of_tasks: Sequence[Ranking]) -> str:
    """Explain why some kinds of task have no mean ranks; empty if all have."""
    reasons: dict[str, list[str]] = {}
    for ranking in of_tasks:
        if not ranking.ranks:
            reasons.setdefault(ranking.missing, []).append(ranking.task)
    return " ".join(f"No mean ranks of {', '.join(tasks)}: the test {reason}." for reason, tasks in reasons.items())


def rank_table(of_tasks: Sequence[Ranking], order: Sequence[str]) -> Table:
    """Tabulate lines by kinds of task: mean rank over datasets, with the critical difference in the footer."""
    shown = [(ranking, ranking.ranks) for ranking in of_tasks if ranking.ranks]
    rank_of = {
        (ranking.task, line): float(rank) for ranking, ranks in shown for line, rank in zip(ranking.lines, ranks.mean)
    }
    best = {ranking.task: min(ranks.mean) for ranking, ranks in shown}
    rows = []
    for line in order:
        if any((task, line) in rank_of for task in best):
            values = [(rank_of.get((task, line)), lowest) for task, lowest in best.items()]
            rows.append((line, [Cell(MISSING if v is None else f"{v:.2f}", best=v == low) for v, low in values]))
    tested = [ranks for _, ranks in shown]
    footer = [
        ("critical difference", [Cell(f"{ranks.critical_difference:.2f}") for ranks in tested]),
        ("p (Friedman)", [Cell(f"{ranks.p:.3f}" if ranks.p >= 0.001 else "<0.001") for ranks in tested]),
        ("datasets", [Cell(str(ranking.datasets)) for ranking, _ in shown]),
    ]
    caption = (
        "1 is best. Lines whose mean ranks are closer than the critical difference (Nemenyi, 5 %; Demsar 2006) are not "
        "told apart over these datasets; where p is 0.05 or more, no lines are."
    )
    return Table("mean rank over datasets", [(task, "") for task in best], rows, footer, caption)
