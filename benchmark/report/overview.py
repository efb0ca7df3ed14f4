"""The answer and the overview: what the tests say in a few sentences, and a table of every line's means and costs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.common.errors import plural
from benchmark.report.comparison import (
    BASELINES,
    NEITHER,
    REFERENCE,
    UNTESTED,
    fill_intervals,
    highest_of,
    is_shown,
    marks,
    own_baselines,
    scope,
)
from benchmark.report.costs import pool_costs, setting, with_unit
from benchmark.report.render import MISSING, Answer, Cell, Table, clock, interval, of_level, over_seeds, percent
from benchmark.report.results import Resamples, Results, columns_of, each_row, natural
from benchmark.report.runs import COLUMN, Run, complete_runs, measured_runs, primary_rows
from benchmark.report.scores import NOT_ABOVE_GUESSES, best_of, guesses_of, is_above, mean_of, mean_scores

if TYPE_CHECKING:
    import pandas as pd

Outcome = tuple[int, int, int, str, str]
"""Of a line against another: on how many datasets it is worse, and better; of how many; the first one; the scope."""
EQUAL: Outcome = (0, 0, 0, "", "")


def overview(results: Results) -> Iterator[Answer | Table]:
    """Show what the tests say, then each line's mean over the datasets of each kind of task beside its costs."""
    if results.scores.empty:
        return
    if said := answer(results):
        yield said
    yield overview_table(results)


# The answer


def answer(results: Results) -> Answer | None:
    """Say which lines are told apart, by the verdicts on the differences to the reference, for each kind of task.

    A single line is compared with its model before training, or else with raw pixels. None if there is nothing to
    compare.
    """
    against, name = REFERENCE, results.reference
    if name is None:
        against, name = next(
            ((each, said) for each, (_, said) in BASELINES.items() if len(results.compared[each])), ("", None)
        )
    if name is None:
        return None
    compared = results.compared[against]
    compared = compared[compared["line"] != compared["other"]]
    scopes = {scope(seeds) for seeds in compared["seeds"]}
    common = scopes.pop() if len(scopes) == 1 else None
    tasks_of: dict[str, list[str]] = {}
    for task in natural(results.scores["task"].unique()):
        of_task = compared[compared["task"] == task]
        said = of_verdicts(of_task, name, common is None) if len(of_task) else _not_compared(results, task, name)
        tasks_of.setdefault(said, []).append(task)
    chosen = "" if results.chosen or against != REFERENCE else " (highest mean score)"
    held = "" if not common else f", {common}" if common == scope(1) else f", with {common.strip('()')}"
    text = f"Compared with {name}{chosen}{held}, by paired tests on each dataset at 5 %:"
    return Answer(text, [f"{', '.join(tasks)}: {said}" for said, tasks in tasks_of.items()])


def of_verdicts(compared: "pd.DataFrame", name: str, with_scope: bool = False) -> str:
    """Say how lines compare with ``name`` in a kind of task, and no more than the verdicts do.

    compared: as differences() gives it, of one kind of task. with_scope: whether each part says what it holds for.
    """
    judged = compared[[is_shown(verdict) or verdict == NEITHER for verdict in compared["verdict"]]]
    groups: dict[Outcome, list[str]] = {}
    for line, of_line in judged.groupby("line", sort=False):
        shown = of_line[[is_shown(verdict) for verdict in of_line["verdict"]]]
        worse, better = int((shown["value"] < 0).sum()), int((shown["value"] > 0).sum())
        if not worse and not better:
            key = EQUAL
        else:
            held = scope(int(of_line["seeds"].min())) if with_scope else ""
            key = (worse, better, len(of_line), of_line["dataset"].iloc[0], held)
        groups.setdefault(key, []).append(str(line))
    clauses = []
    beaten = [
        f"{listed(lines)} {_on(worse, count, dataset)}{_held(held)}"
        for (worse, better, count, dataset, held), lines in sorted(groups.items(), key=_share)
        if worse and not better
    ]
    if beaten:
        clauses.append(f"{name} beats {listed(beaten)}")
    if equal := groups.get(EQUAL):
        every = len(equal) == compared["line"].nunique() > 2
        others = f"any of the {len(equal)} other lines" if every else listed(equal)
        clauses.append(f"{'it' if beaten else name} is not told apart from {others}")
    for (worse, better, count, dataset, held), lines in sorted(groups.items(), key=_share):
        if better:
            beats = f"{listed(lines)} beat{'s' if len(lines) == 1 else ''} {name}"
            lost = f", and {'is' if len(lines) == 1 else 'are'} beaten on {worse}" if worse else ""
            clauses.append(f"{beats} {_on(better, count, dataset)}{lost}{_held(held)}")
    return " ".join(filter(None, ["; ".join(clauses) + "." if clauses else "", _no_verdict(compared)]))


def _share(item: tuple[Outcome, Any]) -> float:
    """Order groups of lines by the share of the datasets on which a difference is shown, largest first."""
    worse, better, count, *_ = item[0]
    return -(worse + better) / max(count, 1)


def _on(count: int, of: int, dataset: str) -> str:
    """Say on how many of the datasets with a verdict; a single one is named."""
    if of == 1:
        return f"on {dataset}"
    return f"on all {of} datasets" if count == of else f"on {count} of {of} datasets"


def _held(scope_of: str) -> str:
    return f" {scope_of}" if scope_of else ""


def _no_verdict(compared: "pd.DataFrame") -> str:
    """Say on which datasets there is no verdict, and why; empty where there is one on all."""
    if not any(is_shown(verdict) or verdict == NEITHER for verdict in compared["verdict"]):
        return f"no verdict ({', '.join(dict.fromkeys(compared['verdict'].str.partition(' (')[0]))})."
    reasons: dict[str, dict[str, None]] = {}
    for dataset, of_dataset in compared.groupby("dataset", sort=False):
        lines_of: dict[str, list[str]] = {}
        for line, verdict in zip(of_dataset["line"], of_dataset["verdict"]):
            if verdict == UNTESTED or verdict.startswith("too few"):
                # Without the number of patients, so that datasets with the same reason stand together.
                lines_of.setdefault(verdict.partition(" (")[0], []).append(line)
        for reason, lines in lines_of.items():
            every = len(lines) == len(of_dataset)
            reasons.setdefault(reason, {})[f"{dataset}" if every else f"{dataset} about {listed(lines)}"] = None
    if not reasons:
        return ""
    return f"No verdict on {'; '.join(f'{listed(list(where))} ({reason})' for reason, where in reasons.items())}."


def _not_compared(results: Results, task: str, name: str) -> str:
    """Say why nothing is compared in a kind of task."""
    lines = set(results.scores.loc[results.scores["task"] == task, "line"]) & set(results.methods)
    if results.reference is None:
        return f"{name}: no results here."
    if name not in lines:
        return f"{name} has no results here."
    return f"{name} alone has results here." if lines == {name} else f"{name} shares no dataset and seed with others."


def listed(names: Sequence[str]) -> str:
    """Join names as English does.

    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


# The table


def overview_table(results: Results) -> Table:
    """Tabulate lines by kinds of task, the mean over datasets in percent, and by what they cost; baselines below."""
    scores, tasks = results.scores, natural(results.scores["task"].unique())
    means = mean_scores(results.rows)
    at: dict[Any, Any] = dict(zip(zip(means["task"], means["line"]), each_row(means)))
    marked = marks({baseline: mean_differences(results.rows, baseline, results.resamples) for baseline in BASELINES})
    pooled = line_costs(results)
    costs = _cost_columns(pooled)
    shown = {*scores["line"], *pooled.index}
    methods = [line for line in results.methods if line in shown]
    baselines = [line for line in results.lines if line not in results.methods]
    ours: dict[str, list[Cell]] = {line: [] for line in methods}
    below: dict[str, list[Cell]] = {line: [] for line in [*baselines, "highest guess", "datasets"]}
    columns, used = [], set[str]()
    for task in tasks:
        of_task = scores[scores["task"] == task]
        keys = columns_of(of_task)
        any_score = {(score.dataset, score.metric): score for score in each_row(of_task)}
        guess = float(np.fmax.reduce([mean_of(values) for _, values in guesses_of([any_score[at] for at in keys])]))
        values = [at[task, line].value if (task, line) in at else np.nan for line in methods]
        for line, best in zip(methods, best_of(values, guess)):
            mean = at.get((task, line))
            own_marks = marked.get((task, "", "", line), "")
            if mean and not is_above(mean, guess):
                own_marks += NOT_ABOVE_GUESSES
            used |= {*own_marks}
            ours[line].append(_mean_cell(mean, own_marks, best))
        for line in baselines:
            below[line].append(_mean_cell(at.get((task, line))))
        below["highest guess"].append(Cell(percent(guess)))
        below["datasets"].append(Cell(str(of_task["dataset"].nunique())))
        metrics = natural(of_task["metric"].unique())
        columns.append((task, metrics[0] if len(metrics) == 1 else plural(len(metrics), "metric")))
    for name, unit, texts in costs:
        columns.append((name, unit))
        for line, cells in ours.items():
            cells.append(Cell(texts.get(line, MISSING)))
        for cells in below.values():
            cells.append(Cell(""))
    caption = _caption(results, means, used, bool(costs))
    title = f"overview: mean over datasets, in percent{of_level(scores['seeds'].max())}"
    return Table(title, columns, list(ours.items()), list(below.items()), caption, main=True, shaded=True)


def _mean_cell(mean: Any, own_marks: str = "", best: bool = False) -> Cell:
    """Write a mean with its marks and interval. mean: a row of mean_scores(), or None."""
    return Cell(percent(mean.value) + own_marks, interval(mean.low, mean.high), best) if mean else Cell()


def line_costs(results: Results) -> "pd.DataFrame":
    """Pool the costs of the lines that the table shows: those with a score, by their cells, and those not evaluated.

    A line may have the cells of another, where a task was run with several options.
    """
    import pandas as pd

    if not len(results.costs):
        return pd.DataFrame()
    runs = results.rows.loc[results.rows["line"].isin(results.scores["line"]), ["line", "cell"]].drop_duplicates()
    evaluated = runs.merge(results.costs.drop(columns="line"), on="cell")
    alone = results.costs[~results.costs["cell"].isin(results.rows["cell"])]
    return pool_costs(pd.concat([evaluated, alone], ignore_index=True))


def _cost_columns(pooled: "pd.DataFrame") -> list[tuple[str, str, Mapping[str, str]]]:
    """Write costs of line_costs(): name and unit of each column that was recorded, and the texts by line."""
    if not len(pooled):
        return []
    written = [
        ("time", "h:mm:ss", [MISSING if np.isnan(x) else clock(x) for x in pooled["seconds"]], "seconds"),
        ("peak memory", *with_unit(pooled["peak_memory"], "B"), "peak_memory"),
        ("FLOPs/sample", *with_unit(pooled["flops_per_sample"]), "flops_per_sample"),
        ("trained parameters", *with_unit(pooled["parameters_trainable"]), "parameters_trainable"),
    ]
    return [
        (name, unit, dict(zip(pooled.index, texts)))
        for name, unit, texts, column in written
        if pooled[column].notna().any()
    ]


def _caption(results: Results, means: "pd.DataFrame", marked: set[str], costs: bool) -> str:
    """Write what a reader must know to quote a number of the table."""
    caption = f"{over_seeds(results.scores.set_index('line')['seeds'])}."
    if means["low"].notna().any():
        seeds = " and seeds" if means["seeds"].max() > 1 else ""
        caption += f" Below: the 95 % interval of the mean, for other patients{seeds} of these datasets."
    caption += " Bold: the highest, which is no verdict. Highest guess: without the images."
    if (several := int(results.scores.groupby("task")["metric"].nunique().max())) > 1:
        caption += f" {'2' if several == 2 else 'Several'} metrics: datasets differ in theirs."
    for mark, name in BASELINES.values():
        if mark in marked:
            caption += f" {mark}: this mean is not shown to beat {name}."
    if NOT_ABOVE_GUESSES in marked:
        caption += f" {NOT_ABOVE_GUESSES}: its interval does not lie above the highest guess."
    if costs and "device" in results.costs and results.costs["device"].nunique() > 1:
        caption += f" Times compare only on the same device: {setting(results.costs, 'device')}."
    return caption


def mean_differences(rows: "pd.DataFrame", baseline: str, resamples: Resamples) -> "pd.DataFrame":
    """Compare each line's mean over the datasets of a kind of task with that of its own baseline.

    The mean is taken within each seed, draw and resample, so that a single number is compared. rows: labelled.
    baseline: of ``BASELINES``. One row per kind of task and line where both have all datasets and a common seed: task,
    line, value, low, high, p, adjusted (by Holm, for the lines), effective_groups (the fewest of a dataset), with empty
    dataset and metric.
    """
    import pandas as pd

    from benchmark.evaluation.statistics import holm

    rows = primary_rows(rows)
    own = own_baselines(rows, baseline)
    compared = []
    of_tasks: dict[str, list[Mapping[str, Mapping[int, Run]]]] = {}
    for (task, *_), runs in complete_runs(rows).items():
        of_tasks.setdefault(task, []).append(runs)
    for task, columns in of_tasks.items():
        for line, other in own.items():
            seeds = [set(column.get(line, {})) & set(column.get(other, {})) for column in columns]
            if line != other and (common := sorted(set.intersection(*seeds))):
                pairs = [[column[name][seed] for name in (line, other) for seed in common] for column in columns]
                compared.append({"task": task, "line": line} | _mean_difference(pairs, resamples))
    fill_intervals(compared)
    frame = pd.DataFrame(compared, columns=[*COLUMN, "line", "value", "low", "high", "p", "effective_groups"])
    frame[["dataset", "metric"]] = ""
    return frame.assign(adjusted=frame.groupby("task")["p"].transform(lambda p: holm(p.to_numpy(dtype=float))))


def _mean_difference(columns: Sequence[Sequence[Run]], resamples: Resamples) -> dict[str, Any]:
    """Compare two lines. columns: of each, the runs of the first line's seeds and then of the second's."""
    from benchmark.evaluation.replicates import estimate

    measured = [measured_runs(runs, resamples) for runs in columns]
    if len({values.shape[1] for values, _ in measured}) > 1:
        measured = [
            (v.mean(axis=1, keepdims=True), None if d is None else d.mean(axis=1, keepdims=True)) for v, d in measured
        ]
    values = np.mean([each for each, _ in measured], axis=0)
    seeds = len(values) // 2
    difference = values[:seeds] - values[seeds:]
    groups = min(runs[0].effective_groups for runs in columns)
    result: dict[str, Any] = {"value": float(difference.mean()), "effective_groups": groups, "estimate": None}
    kept = [drawn for _, drawn in measured if drawn is not None]
    if len(kept) == len(measured):
        shortest = min(drawn.shape[2] for drawn in kept)
        mean = np.mean([drawn[:, :, :shortest] for drawn in kept], axis=0)
        result["estimate"] = estimate(difference, mean[:seeds] - mean[seeds:], groups, highest_of(values))
    return result
