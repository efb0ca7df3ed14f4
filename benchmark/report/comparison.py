"""Which line is better: paired differences on a dataset, and mean ranks over datasets."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.common.errors import plural, unknown
from benchmark.report.plots import Ranking, rank_chart
from benchmark.report.render import MISSING, THESE_WEIGHTS, THIS_METHOD, Cell, Plot, Sentence, Table, of_level, wrap
from benchmark.report.results import Resamples, Results, columns_of, each_row, natural, present
from benchmark.report.runs import COLUMN, Run, Runs, complete_runs, measured_runs, primary_rows

if TYPE_CHECKING:
    import pandas as pd

SIGNIFICANT = 0.05
FEWEST_SEEDS = 3
"""The fewest that a verdict on a method needs; with fewer it is one on the weights that were trained."""
FEWEST_GROUPS = 10
"""The fewest effective groups that a verdict needs: with fewer, intervals cover the truth less often than they say."""
BETTER, WORSE, NEITHER, UNTESTED = "better", "worse", "no difference shown", "not tested"
HIGHER, LOWER = "higher", "lower"
BASELINES = {"start": ("†", "the model before training"), "raw_pixels": ("‡", "raw pixels")}
"""By the column of the rows that names its cell, each baseline that every line must beat: its mark, and its name."""
FEWEST_DATASETS, FEWEST_LINES = 5, 3
"""The fewest that mean ranks are tested for: with fewer datasets Friedman's test can hardly reject, and two lines are
compared by their paired differences (Demsar 2006, section 3)."""


DIFFERENCES = [
    "task",
    "dataset",
    "metric",
    "line",
    "other",
    "n",
    "groups",
    "effective_groups",
    "scarcest",
    "seeds",
    "level",
    "value",
    "low",
    "high",
    "p",
    "tests",
    "adjusted",
    "verdict",
]
"""Columns of differences(): two lines on a dataset; the numbers of test examples, of their groups, of groups that the
metric's error rests on and of those with the scarcest class, and of seeds (1 where a line is of weights from elsewhere,
which are the same in each); the level; first minus second, with the 95 % interval of this difference alone (fractions);
p; how many tests the correction counts in the kind of task; p after Holm's correction for these; and the verdict."""


REFERENCE = "reference"
"""The comparison with the reference, beside those with ``BASELINES``."""


def comparisons(
    rows: "pd.DataFrame", resamples: Resamples, methods: Sequence[str], reference: str | None, chosen: bool
) -> "dict[str, pd.DataFrame]":
    """Compute all differences that a report shows, by what lines are compared with: the reference, their baselines.

    rows: labelled. methods: the lines that are compared. chosen: whether the user named the reference.
    """
    against = {REFERENCE: {line: reference for line in methods if line != reference} if reference else {}}
    for baseline in BASELINES:
        own = own_baselines(rows, baseline)
        against[baseline] = {line: own[line] for line in methods if line in own}
    runs = complete_runs(primary_rows(rows))
    return {
        name: _against(runs, pairs, resamples, picked=name == REFERENCE and not chosen)
        for name, pairs in against.items()
    }


def against_reference(results: Results) -> Iterator[Table]:
    """Show the differences of all methods to the reference in a kind of task."""
    compared = results.compared[REFERENCE]
    if results.reference is not None and (compared["task"] == results.task).any():
        table = difference_table(compared, results.task, results.reference, results.methods, picked=not results.chosen)
        # The page lets its reader choose among several.
        table.on_page = len(table.rows) == 1
        yield table


def against_baselines(results: Results) -> Iterator[Table]:
    """Show the differences of all methods to their own baselines; in the terminal where there is no other reference."""
    for baseline, (_, name) in BASELINES.items():
        compared = results.compared[baseline]
        compared = compared[compared["line"] != compared["other"]]
        if (compared["task"] == results.task).any():
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
    lines: dict[str, dict[tuple[str, str, str], float]] = {}
    for score in each_row(scores[~scores["baseline"]]):
        lines.setdefault(score.line, {})[score.task, score.dataset, score.metric] = score.value
    if len(lines) < 2:
        return None
    counts = Counter(column for of_line in lines.values() for column in of_line)
    usual = sorted({column for column, count in counts.items() if 2 * count > len(lines)} or set(counts))
    values = {line: [lines[line][column] for column in usual if column in lines[line]] for line in sorted(lines)}
    most = max(map(len, values.values()))
    return max((line for line in values if len(values[line]) == most), key=lambda line: float(np.mean(values[line])))


def _not_better(compared: "pd.DataFrame") -> set[tuple[str, str, str, str]]:
    """Select the scores that are not shown to be better than the other line's: task, dataset, metric and line of each.

    Their paired difference is not positive, or its corrected p-value is 5 % or more, or there are too few groups: the
    table of these differences says the same. Where it could not be tested, the sign decides. compared: as differences()
    gives it.
    """
    enough = compared["effective_groups"] >= FEWEST_GROUPS
    better = (compared["value"] > 0) & ~(compared["adjusted"] >= SIGNIFICANT) & enough
    return set(compared.loc[~better, ["task", "dataset", "metric", "line"]].itertuples(index=False, name=None))


def marks(compared: "Mapping[str, pd.DataFrame]") -> dict[tuple[str, str, str, str], str]:
    """Find the scores that are not shown to beat a baseline: the marks of each, by task, dataset, metric and line.

    compared: as comparisons() gives it.
    """
    marks_of: dict[tuple[str, str, str, str], str] = {}
    for baseline, (mark, _) in BASELINES.items():
        for key in _not_better(compared[baseline]):
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

    Returns one row per task, dataset, metric and line where both have results, with the columns of ``DIFFERENCES``.
    """
    return _against(complete_runs(primary_rows(rows)), against, resamples, picked)


def _against(runs: Runs, against: Mapping[str, str], resamples: Resamples, picked: bool) -> "pd.DataFrame":
    """Compute differences as differences() does."""
    return _differences(runs, lambda _: against, {*against, *against.values()}, resamples, picked)


def differences_to_best(
    rows: "pd.DataFrame", best: Mapping[tuple[str, str, str], str], lines: Sequence[str], resamples: Resamples
) -> "pd.DataFrame":
    """Compute the difference of each of the lines to the best of them in each column of the tables.

    best: by task, dataset and metric. The other arguments, and what is returned, as in differences(). The results have
    chosen what is best, so the correction is for all pairs of the lines.
    """
    of_columns = {column: {line: first for line in lines if line != first} for column, first in best.items()}
    runs = complete_runs(primary_rows(rows))
    return _differences(runs, lambda column: of_columns.get(column, {}), {*lines}, resamples, picked=True)


def pairwise_differences(rows: "pd.DataFrame", lines: Sequence[str], resamples: Resamples) -> "dict[str, pd.DataFrame]":
    """Compute the differences of all lines to each of them, by the line that the others are compared with.

    Each is as differences() gives it where the results made that line the reference: the correction is for all pairs.
    """
    compared: dict[str, list[dict[str, Any]]] = {line: [] for line in lines}
    pairs: Counter[str] = Counter()
    for key, runs in complete_runs(primary_rows(rows)).items():
        measured = [line for line in lines if line in runs]
        pairs[key[0]] += math.comb(len(measured), 2)
        for line, other in combinations(measured, 2):
            if seeds := sorted(set(runs[line]) & set(runs[other])):
                first, second = ([runs[name][seed] for seed in seeds] for name in (line, other))
                difference = dict(zip(COLUMN, key)) | _difference(first, second, resamples)
                compared[other].append(difference | {"line": line, "other": other})
                compared[line].append(_reversed(difference) | {"line": other, "other": line})
    return {line: _judged(of_line, pairs) for line, of_line in compared.items() if of_line}


def _reversed(difference: dict[str, Any]) -> dict[str, Any]:
    """Turn a difference of _difference() round: second minus first."""
    estimate = difference["estimate"]
    turned = estimate and replace(estimate, value=-estimate.value)
    return difference | {"value": -difference["value"], "estimate": turned}


def _differences(
    columns: Runs,
    against: Callable[[tuple[str, str, str]], Mapping[str, str]],
    lines: AbstractSet[str],
    resamples: Resamples,
    picked: bool,
) -> "pd.DataFrame":
    """Compute differences as differences() does. against: given task, dataset and metric. lines: all that may be."""
    compared: list[dict[str, Any]] = []
    pairs: Counter[str] = Counter()
    for key, runs in columns.items():
        pairs[key[0]] += math.comb(len(lines & set(runs)), 2)
        for line, other in against(key).items():
            seeds = sorted(set(runs.get(line, {})) & set(runs.get(other, {})))
            if seeds:
                first, second = ([runs[name][seed] for seed in seeds] for name in (line, other))
                compared.append(
                    dict(zip(COLUMN, key)) | {"line": line, "other": other} | _difference(first, second, resamples)
                )
    return _judged(compared, pairs if picked else None)


def fill_intervals(compared: Sequence[dict[str, Any]]) -> None:
    """Fill low, high and p of the differences that have an estimate.

    The seeds of all comparisons of a kind of task say together how much seeds differ.
    """
    from benchmark.evaluation.replicates import conclude

    for of_task in _by_task([each for each in compared if each["estimate"] is not None]):
        for each, concluded in zip(of_task, conclude([each["estimate"] for each in of_task])):
            each |= {"low": concluded.low, "high": concluded.high, "p": concluded.p}


def _judged(compared: Sequence[dict[str, Any]], pairs: Mapping[str, int] | None) -> "pd.DataFrame":
    """Tabulate differences with intervals, p after correction and verdicts.

    pairs: how many tests count in each kind of task; default: those made.
    """
    import pandas as pd

    from benchmark.evaluation.statistics import holm

    fill_intervals(compared)
    for of_task in _by_task(compared):
        p = [each["p"] for each in of_task]
        tests = sum(map(math.isfinite, p)) if pairs is None else pairs[of_task[0]["task"]]
        for each, adjusted in zip(of_task, holm(p, tests).tolist()):
            each |= {"tests": tests, "adjusted": adjusted}
            each["verdict"] = verdict(*(each[name] for name in JUDGED))
    return pd.DataFrame(compared, columns=DIFFERENCES)


def _by_task(compared: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Group differences by their kind of task."""
    of_tasks: dict[str, list[dict[str, Any]]] = {}
    for each in compared:
        of_tasks.setdefault(each["task"], []).append(each)
    return [*of_tasks.values()]


JUDGED = ["value", "adjusted", "seeds", "effective_groups", "scarcest"]
"""What verdict() is given of a difference."""


def verdicts_of(compared: "pd.DataFrame") -> list[str]:
    """Judge differences that have the columns ``JUDGED``."""
    return [verdict(*row) for row in compared[JUDGED].itertuples(index=False)]


def _difference(first: Sequence[Run], second: Sequence[Run], resamples: Resamples) -> dict[str, Any]:
    """Compare two lines. first, second: the runs of each seed.

    Returns columns of ``DIFFERENCES``, and the estimate, None where the runs cannot be compared by example.
    """
    values, resampled = measured_runs([*first, *second], resamples)
    difference = values[: len(first)] - values[len(first) :]
    run = first[0]
    # Weights from elsewhere are the same in each seed of the run: more seeds do not make a verdict one on a method.
    seeds = 1 if run.elsewhere or second[0].elsewhere else len(first)
    result: dict[str, Any] = {
        "n": run.n,
        "groups": run.groups,
        "effective_groups": run.effective_groups,
        "scarcest": run.scarcest,
        "seeds": seeds,
        "level": THESE_WEIGHTS if seeds == 1 else THIS_METHOD,
        "value": float(difference.mean()),
        "low": np.nan,
        "high": np.nan,
        "p": np.nan,
        "estimate": None,
    }
    if resampled is not None:
        from benchmark.evaluation.replicates import estimate

        drawn = resampled[: len(first)] - resampled[len(first) :]
        result["estimate"] = estimate(difference, drawn, run.effective_groups, highest_of(values))
    return result


def highest_of(values: np.ndarray) -> float:
    """Return the most that a difference of such values can be: 1 between fractions, else unlimited."""
    return 1.0 if (values >= 0).all() and (values <= 1).all() else np.inf


def verdict(
    value: float, p: float, seeds: int = FEWEST_SEEDS, effective_groups: float = np.inf, scarcest: float = np.nan
) -> str:
    """Judge a difference by its sign and its corrected p-value; NaN: it was not tested.

    effective_groups: of the test set; with too few, p does not hold what it promises. scarcest: the number of groups
    with the scarcest class; NaN if the metric is no mean over classes.
    """
    if too_few := few_groups(effective_groups, scarcest):
        return too_few
    if np.isnan(p):
        return UNTESTED
    if p >= SIGNIFICANT:
        return NEITHER
    if seeds >= FEWEST_SEEDS:
        return BETTER if value > 0 else WORSE
    return f"{HIGHER if value > 0 else LOWER} {scope(seeds)}"


def few_groups(effective_groups: float, scarcest: float = np.nan) -> str:
    """Say that there are too few groups (patients) for a verdict; empty where there are enough."""
    if effective_groups >= FEWEST_GROUPS:
        return ""
    if scarcest < FEWEST_GROUPS:
        return f"too few positive patients ({scarcest:.0f})"
    return f"too few patients ({effective_groups:.0f})"


def scope(seeds: int) -> str:
    """Say what a comparison with so few seeds holds for; empty where it holds for the method.

    >>> scope(1), scope(2), scope(3)
    ('for these weights', '(2 seeds)', '')
    """
    if seeds >= FEWEST_SEEDS:
        return ""
    return "for these weights" if seeds == 1 else f"({seeds} seeds)"


def is_shown(verdict: str) -> bool:
    """Return whether a verdict says that there is a difference."""
    return verdict.split()[0] in (BETTER, WORSE, HIGHER, LOWER)


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
    by_key: dict[Any, Any] = dict(zip(keys, each_row(compared)))
    rows = []
    for line in present(compared, order):
        of_line = [by_key.get((line, *key)) for key in columns]
        rows.append((line, [_cell(difference) if difference else Cell() for difference in of_line]))
    header = [(dataset, metric if len(metrics) > 1 else "") for dataset, metric in columns]
    title = f"{task}: difference to {reference}, in points{of_level(compared['seeds'].max())}"
    return Table(title, header, rows, [], difference_caption(compared, picked))


def _cell(difference: Any) -> Cell:
    """Write a row of differences()."""
    interval = "" if np.isnan(difference.low) else f"{points(difference.low)} to {points(difference.high)}\n"
    return Cell(points(difference.value), interval + "\n".join(wrap(difference.verdict, 13)))


def points(fraction: float) -> str:
    """Write a difference of fractions in points of a percent, with its sign.

    >>> points(0.0312), points(-0.02)
    ('+3.1', '−2.0')
    """
    return f"{100 * fraction:+.1f}".replace("-", "−")


def difference_caption(compared: "pd.DataFrame", picked: bool) -> str:
    """Say how differences were computed, tested and corrected. compared, picked: as of difference_table()."""
    tests, seeds = int(compared["tests"].max()), compared["seeds"]
    counted = f"the {tests} tests of this table"
    if picked:
        counted = f"{tests} tests, one for each pair of lines and dataset, because the reference is the best line"
    corrected = f" with Holm's correction for {counted}" if tests > 1 else ""
    caption = (
        f"Paired by test example{' and seed' if seeds.max() > 1 else ''}; below: the 95 % interval of this difference "
        f"alone, and the verdict at 5 %{corrected}."
    )
    verdicts = set(compared["verdict"])
    if seeds.min() == 1:
        alone = f" ({', '.join(dict.fromkeys(compared.loc[seeds == 1, 'line']))})" if seeds.max() > 1 else ""
        caption += f" One seed{alone}: the interval says how these weights would do on other patients, not what "
        caption += "another seed would have given."
    if seeds.max() > 1:
        caption += " Several seeds: it covers other patients and other seeds."
    if seeds.max() < FEWEST_SEEDS:
        caption += f" A verdict on a method (better, worse) needs {FEWEST_SEEDS} trainings: --seeds {FEWEST_SEEDS}."
    if any(each.startswith("too few") for each in verdicts):
        caption += f" Too few: with fewer than {FEWEST_GROUPS} patients of the scarcer side, neither interval nor test "
        caption += "keeps what it promises."
    if UNTESTED in verdicts:
        caption += f" {UNTESTED.capitalize()}: measured on other test examples, or on a single group."
    return caption


def differences_frame(compared: "Mapping[str, pd.DataFrame]") -> "pd.DataFrame":
    """Lay out all differences of a report for differences.csv, one row each. compared: as comparisons() gives it."""
    import pandas as pd

    others = {name: frame[frame["line"] != frame["other"]] for name, frame in compared.items()}
    frames = [frame.assign(against=name) for name, frame in others.items() if len(frame)]
    names = {"task": "kind", "value": "difference", "adjusted": "p_holm"}
    columns = [*DIFFERENCES[:5], "against", *DIFFERENCES[5:]]
    if not frames:
        return pd.DataFrame(columns=columns).rename(columns=names)
    return pd.concat(frames, ignore_index=True)[columns].rename(columns=names)


def rankings(scores: "pd.DataFrame", order: Sequence[str]) -> list[Ranking]:
    """Rank the lines in each kind of task, over the columns where all of its lines have results."""
    from benchmark.evaluation.statistics import ranks

    of_tasks = []
    for task in natural(scores["task"].unique()):
        table = scores[scores["task"] == task].set_index(["dataset", "metric", "line"])["value"].unstack()
        lines = [line for line in order if line in table.columns]
        table = table[lines].dropna()
        datasets = len(table)
        if datasets < FEWEST_DATASETS or len(lines) < FEWEST_LINES:
            have = f"{plural(datasets, 'dataset')} with results of all lines, {plural(len(lines), 'line')}"
            missing = f"needs {FEWEST_DATASETS} datasets and {FEWEST_LINES} lines, found {have}"
            of_tasks.append(Ranking(task, lines, datasets, None, missing))
        else:
            seeds = int(scores.loc[scores["task"] == task, "seeds"].max())
            of_tasks.append(Ranking(task, lines, datasets, ranks(table[lines].to_numpy()), seeds=seeds))
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
    return Table(
        f"mean rank over datasets{of_level(max(ranking.seeds for ranking, _ in shown))}",
        [(task, "") for task in best],
        rows,
        footer,
        caption,
    )
