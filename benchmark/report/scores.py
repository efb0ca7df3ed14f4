"""The scores of each kind of task: their summary over parts and seeds, and the tables and charts of them."""

import math
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.report.classes import left_out
from benchmark.report.comparison import BASELINES, comparisons, few_groups, marks
from benchmark.report.plots import score_chart
from benchmark.report.render import (
    MISSING,
    THESE_WEIGHTS,
    THIS_METHOD,
    Cell,
    Plot,
    Table,
    interval,
    of_level,
    over_seeds,
    percent,
    span,
)
from benchmark.report.results import NotesOf, Results, columns_of, each_record, each_row, measurements, natural, present
from benchmark.report.runs import COLUMN, Column, smallest_sample

if TYPE_CHECKING:
    import pandas as pd

NOT_ABOVE_GUESSES = "§"
"""The mark of a score that may be one of a model which learned nothing, or gives one answer to everything."""
ALIKE = 0.999
"""The mean cosine of the embeddings of two test images from which on a model has collapsed."""
Key = tuple[str, str, str, str]
"""Task, dataset, metric and line."""
SCORES = [
    "task",
    "dataset",
    "metric",
    "line",
    "value",
    "low",
    "high",
    "chance",
    "majority",
    "blind",
    "ceiling",
    "parts",
    "n",
    "drawn",
    "seeds",
    "deviation",
    "baseline",
    "best",
]
"""Columns of summarise()."""
SCORE_COLUMNS = [
    "task",
    "dataset",
    "metric",
    "line",
    "baseline",
    "primary",
    "parts",
    "n",
    "seeds",
    "level",
    "value",
    "deviation",
    "low",
    "high",
    "chance",
    "majority",
    "ceiling",
]
"""Columns of scores_frame(), before ``task`` and ``value`` are called ``kind`` and ``mean``."""


SCORE = ("value", "low", "high")
"""The columns of a score and its interval."""
LIMITS = ("chance", "majority", "ceiling")
"""The columns of what a score is held against."""
NUMBERS = (*SCORE, *LIMITS)
USED = (*COLUMN, *NUMBERS, "line", "seed", "part", "n", "blind", "of_draws", "over_groups", "examples", "baseline")
"""The columns of the rows that a summary is made of."""
SeedKey = tuple[str, str, str, str, int]
"""Task, dataset, metric, line and seed."""


@dataclass(frozen=True)
class Seed:
    """A score of one seed: value, interval, and the value in each of several draws of what is learned from."""

    value: float
    low: float
    high: float
    of_draws: list[float]


def primary_scores(results: Results) -> Iterator[Table | Plot]:
    """Show the primary metric of a kind of task on all datasets: a table, and a chart."""
    task, notes = results.task, results.notes
    meaning = defined(results.rows, notes)
    table = score_table(results.scores, task, results.lines, results.marks, meaning)
    for said in (vocabularies, left_out, missing, at_edges, collapsed):
        table.caption += said(results.rows, notes)
    table.caption += too_few(results.rows[results.rows["primary"].astype(bool)])
    yield table
    yield Plot(score_chart(results.scores, task, results.drawn), task, f"{task}: scores and intervals", on_page=False)


def secondary_scores(results: Results) -> Iterator[Table]:
    """Show the other metrics that the notes of a kind of task define: a table each."""
    meaning = defined(results.rows, results.notes)
    rows = results.rows[~results.rows["primary"].astype(bool) & results.rows["value"].notna()]
    for metric in meaning:
        if (rows["metric"] == metric).any():
            of_metric = rows[rows["metric"] == metric].assign(primary=True)
            summary = summarise(of_metric)
            marked = marks(comparisons(of_metric, results.resamples, results.methods, None, False))
            table = score_table(summary, results.task, results.lines, with_guesses(marked, summary), meaning)
            table.caption += too_few(of_metric)
            yield table


def summarise(rows: "pd.DataFrame", each_metric: bool = False) -> "pd.DataFrame":
    """Summarise the primary rows that have a value: one row per task, dataset, metric and line.

    rows: labelled. each_metric: whether the seeds' variance is estimated for each metric, not for a kind of task.

    The parts of a measurement (the two directions of retrieval) are averaged within a seed, and so are the ends of
    their intervals, which gives an interval that is right or too wide, whatever the correlation of the parts; a seed
    that lacks a part does not count. Then the seeds are pooled.

    Columns besides the keys: value, low, high, chance, majority (fractions), blind (the fraction of each other guess
    without the images, by name: the mean over seeds of the line where it is highest), ceiling, baseline (bool), parts
    (names), n (as shown: a count, or one per part), drawn (bool: whether what is learned from was drawn several times,
    which the interval counts), seeds (count), deviation (standard deviation over seeds), best
    (bool: highest of several lines that are not baselines, to the decimal that is shown, and above all guesses).
    """
    import pandas as pd

    measured = _usable(rows)
    baselines = {row["line"] for row in measured if row.get("baseline")}
    of_lines = _pool_lines(_mean_over_parts(measured), baselines, each_metric)
    scores = []
    for key, of_column in sorted(_by_column(measured).items()):
        if key not in of_lines:
            continue
        chance, majority, ceiling = (_known_mean([row[name] for row in of_column]) for name in LIMITS)
        lines = of_lines[key]
        ours = [np.nan if score["line"] in baselines else score["value"] for score in lines]
        parts = natural({row["part"] for row in of_column})
        blind = highest_guesses((row["blind"], row["line"]) for row in of_column)
        common = {**dict(zip(COLUMN, key)), "chance": chance, "majority": majority, "blind": blind, "ceiling": ceiling}
        common |= {"parts": tuple(parts), "n": examples(of_column, parts)}
        common["drawn"] = any(len(_draws(row)) > 1 for row in of_column)
        for score, best in zip(lines, best_of(ours, np.fmax.reduce([chance, majority, *blind.values()]))):
            scores.append({**common, **score, "baseline": score["line"] in baselines, "best": best})
    return pd.DataFrame(scores, columns=SCORES).astype({"baseline": bool, "best": bool, "drawn": bool})


def mean_scores(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Average the scores of each kind of task over its datasets: one row per task and line that has all of them.

    rows: labelled. Columns: task, line, value, low, high, seeds. The mean is taken within each seed, because a seed's
    weights are the same on all datasets, and the seeds are pooled as summarise() pools them. The errors of a seed on
    the datasets' patients are independent: of their mean over K datasets, the end of the interval is as far away as the
    root of the sum of their squares, over K. No interval (NaN) where one is missing, where datasets have the same
    patients or not the same seeds, or where one seed has different numbers of draws.
    """
    import pandas as pd

    measured = _usable(rows)
    baselines = {row["line"] for row in measured if row.get("baseline")}
    samples: dict[str, list[frozenset[str]]] = {}
    for (task, *_), of_column in _by_column(measured).items():
        samples.setdefault(task, []).append(frozenset(row["examples"] for row in of_column))
    # By task and line: the seeds of each column.
    of_lines: dict[tuple[str, str], dict[Column, dict[int, Seed]]] = {}
    columns: dict[str, set[Column]] = {}
    for run, score in _mean_over_parts(measured).items():
        task, _, _, line, seed = run
        columns.setdefault(task, set()).add(run[:3])
        of_lines.setdefault((task, line), {}).setdefault(run[:3], {})[seed] = score
    means: dict[SeedKey, Seed] = {}
    for (task, line), of_columns in of_lines.items():
        count = len(columns[task])
        apart = len(set(samples[task])) == count or samples[task] == [frozenset({""})] * count
        if len(of_columns) == count:
            for seed, mean in _mean_over_columns([*of_columns.values()], apart):
                means[task, "", "", line, seed] = mean
    if not means:
        return pd.DataFrame(columns=["task", "line", "value", "low", "high", "seeds"])
    pooled = _pool_lines(means, baselines)
    return pd.DataFrame([{"task": task, **mean} for (task, *_), means in pooled.items() for mean in means])


def _mean_over_columns(columns: Sequence[Mapping[int, Seed]], apart: bool) -> Iterator[tuple[int, Seed]]:
    """Average a line's scores over the columns of a table, within each seed.

    columns: by seed, as _mean_over_parts() gives them. apart: whether their test examples differ.
    """
    if len({frozenset(column) for column in columns}) > 1:
        # No seed's mean; that of the means over seeds is the one that the table of scores has.
        value = float(np.mean([np.mean([run.value for run in column.values()]) for column in columns]))
        yield 0, Seed(value, np.nan, np.nan, [])
        return
    for seed in columns[0]:
        of_columns = [column[seed] for column in columns]
        values, lows, highs = (np.array([getattr(run, name) for run in of_columns]) for name in SCORE)
        value = float(values.mean())
        below, above = (float(np.sqrt((each**2).sum())) / len(columns) for each in (values - lows, highs - values))
        drawn = [run.of_draws for run in of_columns if run.of_draws]
        known = len(columns) == 1 or (apart and len({len(draws) for draws in drawn}) <= 1)
        low, high = (value - below, value + above) if known else (np.nan, np.nan)
        # Draws are of each dataset's own images: any of one may go with any of another.
        fixed = sum(run.value for run in of_columns if not run.of_draws)
        of_draws = ((np.sum(drawn, axis=0) + fixed) / len(columns)).tolist() if drawn and known else []
        yield seed, Seed(value, low, high, of_draws)


def scores_frame(results: Results) -> "pd.DataFrame":
    """Lay out every metric for scores.csv, one row per line, dataset and metric, over the seeds of the line.

    The numbers of the metrics that tables show are those of the tables. ``results``: of all kinds of task.
    """
    import pandas as pd

    rows = results.rows
    shown = set(zip(results.scores["task"], results.scores["metric"]))
    other = np.array([each not in shown for each in zip(rows["task"], rows["metric"])], dtype=bool)
    summary = summarise(rows[other].assign(primary=True), each_metric=True).assign(primary=False)
    summary = summary.sort_values(["task", "metric"], kind="stable")
    frame = pd.concat([results.scores.assign(primary=True), summary], ignore_index=True)
    levels = [THESE_WEIGHTS if seeds == 1 else THIS_METHOD for seeds in frame["seeds"]]
    frame = frame.assign(level=levels, parts=["; ".join(parts) for parts in frame["parts"]])
    return frame[SCORE_COLUMNS].rename(columns={"task": "kind", "value": "mean"})


def _usable(rows: "pd.DataFrame") -> list[dict[str, Any]]:
    """Select the primary rows with a value, one per line, seed and part, as mappings with the columns ``USED``."""
    rows = rows[rows["primary"].astype(bool) & rows["value"].notna()]
    measured: dict[Any, dict[str, Any]] = {}
    for row in each_record(rows[[name for name in USED if name in rows]]):
        row |= {name: np.nan if (number := row.get(name)) is None else float(number) for name in NUMBERS}
        row |= {name: text if isinstance(text := row.get(name), str) else "" for name in ("part", "examples")}
        row.setdefault("blind", None)
        measured[row["task"], row["dataset"], row["metric"], row["line"], row["seed"], row["part"]] = row
    return [*measured.values()]


def _by_column(measured: Iterable[dict[str, Any]]) -> dict[Column, list[dict[str, Any]]]:
    """Group rows by the columns of the tables."""
    columns: dict[Column, list[dict[str, Any]]] = {}
    for row in measured:
        columns.setdefault((row["task"], row["dataset"], row["metric"]), []).append(row)
    return columns


def _known_mean(values: Sequence[float]) -> float:
    """Average the values that are known; NaN where none is."""
    known = np.array(values)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else np.nan


def _mean_over_parts(measured: Iterable[dict[str, Any]]) -> dict[SeedKey, Seed]:
    """Average value, low and high over the parts of each seed that has all of them; several parts have no draws.

    low and high are without the error of draws, where that is pooled.
    """
    seeds: dict[SeedKey, Seed] = {}
    for column, of_column in _by_column(measured).items():
        parts = {row["part"] for row in of_column}
        of_runs: dict[SeedKey, list[dict[str, Any]]] = {}
        for row in of_column:
            of_runs.setdefault((*column, row["line"], row["seed"]), []).append(row)
        for run, of_parts in of_runs.items():
            if len(parts) == 1:
                (row,) = of_parts
                # What draws add to these intervals is estimated from all lines and datasets, not from each alone.
                over_groups = row.get("over_groups")
                low, high = over_groups if isinstance(over_groups, list) else (row["low"], row["high"])
                seeds[run] = Seed(row["value"], low, high, _draws(row))
            elif len(of_parts) == len(parts):
                value, low, high = (float(np.mean([row[name] for row in of_parts])) for name in SCORE)
                seeds[run] = Seed(value, low, high, [])
    return seeds


def _draws(row: Mapping[str, Any]) -> list[float]:
    """Return the score in each draw of what is learned from; none where a row has none."""
    return draws if isinstance(draws := row.get("of_draws"), list) else []


def _pool_lines(
    of_seeds: Mapping[SeedKey, Seed], baselines: Container[str], each_metric: bool = False
) -> dict[Column, list[dict[str, Any]]]:
    """Pool value, low and high over the seeds of each line: by task, dataset and metric, a mapping for each line.

    The seeds of all lines and datasets of a kind of task say together how much seeds differ; those of baselines, which
    were not trained, are taken apart.
    """
    from benchmark.evaluation.replicates import Score, pooled

    of_runs: dict[Key, list[Seed]] = {}
    for run in sorted(of_seeds):
        of_runs.setdefault(run[:4], []).append(of_seeds[run])
    scores = {key: _score(seeds) for key, seeds in of_runs.items()}
    of_kinds: dict[Any, list[Key]] = {}
    for key in scores:
        task, _, metric, line = key
        of_kinds.setdefault((task, metric if each_metric else "", line in baselines), []).append(key)
    means: dict[Key, tuple[float, float, float]] = {}
    for keys in of_kinds.values():
        means |= dict(zip(keys, pooled([Score(*scores[key]) for key in keys])))
    lines: dict[Column, list[dict[str, Any]]] = {}
    for key, (values, *_) in scores.items():
        value, low, high = means[key]
        deviation = float(values.std(ddof=1)) if len(values) > 1 else np.nan
        score = {"line": key[3], "value": value, "low": low, "high": high, "seeds": len(values), "deviation": deviation}
        lines.setdefault(key[:3], []).append(score)
    return lines


def _score(seeds: Sequence[Seed]) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[float]]:
    """Lay out the seeds of a line as ``Score`` takes them; several seeds have the draws' variance in theirs."""
    values, lows, highs = (np.array([getattr(seed, name) for seed in seeds]) for name in SCORE)
    return values, lows, highs, seeds[0].of_draws if len(seeds) == 1 else []


def highest_guesses(guesses: Iterable[tuple[Any, str]]) -> dict[str, float]:
    """Find, for each guess without the images, the highest of the lines' means over seeds and parts.

    A guess may be made with the line's own encoder of texts. With the best one it is the score to beat for all.
    guesses: of each row, a mapping from names to scores, or NaN, and the line.
    """
    of_names: dict[str, dict[str, list[float]]] = {}
    for of_row, line in guesses:
        for name, guess in of_row.items() if isinstance(of_row, dict) else ():
            of_lines = of_names.setdefault(str(name), {})
            if guess is not None and guess == guess:
                of_lines.setdefault(line, []).append(guess)
    return {
        name: max((math.fsum(of_line) / len(of_line) for of_line in of_lines.values()), default=np.nan)
        for name, of_lines in of_names.items()
    }


def examples(column: Sequence[Mapping[str, Any]], parts: Sequence[str]) -> str:
    """Write the number of test examples: one, one per part, or a range if runs were measured on different ones."""
    counts = ({int(row["n"]) for row in column if row["part"] == part} for part in parts)
    return "/".join(dict.fromkeys(span(of_part) for of_part in counts))


def best_of(values: Sequence[float], chance: float) -> list[bool]:
    """Mark the highest of several values, to the decimal that is shown, and above chance where that is known."""
    shown = np.round(100 * np.asarray(values, dtype=float), 1)
    if np.isfinite(shown).sum() < 2:
        return [False] * len(shown)
    return [bool(x == np.nanmax(shown) and not x <= round(100 * chance, 1)) for x in shown]


def score_table(
    scores: "pd.DataFrame",
    task: str,
    order: Sequence[str],
    marked: Mapping[tuple[str, str, str, str], str] = MappingProxyType({}),
    meaning: Mapping[str, str] = MappingProxyType({}),
) -> Table:
    """Tabulate lines by datasets for one kind of task, then baselines, guesses, ceiling and number of test examples.

    marked: the marks of the scores that are not shown to beat a baseline, as comparison.marks() gives them.
    meaning: of metrics, as defined() gives it.
    """
    scores = scores[scores["task"] == task]
    columns, metrics = columns_of(scores), natural(scores["metric"].unique())
    lines = present(scores, order)
    baselines = set(scores.loc[scores["baseline"], "line"])
    score_at: dict[Any, Any] = dict(zip(zip(scores["line"], scores["dataset"], scores["metric"]), each_row(scores)))
    grid = [[score_at.get((line, *key)) for key in columns] for line in lines]
    marks_at = [[marked.get((task, *key, line), "") for key in columns] for line in lines]
    cells = [[_score_cell(*each) for each in zip(*row)] for row in zip(grid, marks_at)]
    any_score = [next(filter(None, column)) for column in zip(*grid)]
    guesses = guesses_of(any_score)
    header = [(dataset, metric if len(metrics) > 1 else "") for dataset, metric in columns]
    if len(columns) > 1:
        header.append(("mean", ""))
        ours = [line not in baselines for line in lines]
        for row, mean in zip(cells, _mean_cells(grid, ours, np.fmax.reduce([mean_of(v) for _, v in guesses]))):
            row.append(mean)
        guesses = [(name, [*values, mean_of(values)]) for name, values in guesses]
    ceiling = [score.ceiling for score in any_score]
    limits = [] if np.isnan(ceiling).all() else [("ceiling", ceiling + [mean_of(ceiling)] * (len(columns) > 1))]
    footer = [(name, [Cell(percent(value)) for value in values]) for name, values in [*guesses, *limits]]
    counts = [Cell(score.n) for score in any_score] + [Cell("")] * (len(header) - len(columns))
    caption = score_caption(scores, complete=len(scores) == len(lines) * len(columns), meaning=meaning)
    caption += explained(scores, "".join(each for row in marks_at for each in row))
    rows = list(zip(lines, cells))
    return Table(
        f"{task}: {metrics[0]}, in percent" if len(metrics) == 1 else f"{task}, in percent",
        header,
        [row for row in rows if row[0] not in baselines],
        [*(row for row in rows if row[0] in baselines), *footer, ("examples", counts)],
        caption,
    )


def with_guesses(marks_of: Mapping[Key, str], scores: "pd.DataFrame") -> dict[Key, str]:
    """Add ``NOT_ABOVE_GUESSES`` to the marks of the methods' scores whose interval does not lie above all guesses.

    scores: as summarise() gives them. A score without an interval is compared itself.
    """
    marked = dict(marks_of)
    for score in each_row(scores[~scores["baseline"]]):
        guesses = [guess for guess in (score.chance, score.majority, *score.blind.values()) if guess == guess]
        if guesses and not is_above(score, max(guesses)):
            key = (score.task, score.dataset, score.metric, score.line)
            marked[key] = marked.get(key, "") + NOT_ABOVE_GUESSES
    return marked


def is_above(score: Any, guess: float) -> bool:
    """Return whether the interval of a score, or the score where it has none, lies above what a guess gets."""
    return not (score.low if score.low == score.low else score.value) <= guess


def explained(scores: "pd.DataFrame", own_marks: str) -> str:
    """Write a sentence on each mark and on each guess and limit of a table. own_marks: those that it has."""
    sentences = [
        f" {mark}: not shown to beat {name} (paired, 5 % with Holm's correction{of_level(scores['seeds'].max())})."
        for mark, name in BASELINES.values()
        if mark in own_marks
    ]
    if NOT_ABOVE_GUESSES in own_marks:
        sentences.append(f" {NOT_ABOVE_GUESSES}: its interval does not lie above what guesses get.")
    if blind := list(dict.fromkeys(name for guesses in scores["blind"] for name in guesses)):
        sentences.append(f" {', '.join(blind)}: without the images, the highest of all lines.")
    if scores["ceiling"].notna().any():
        sentences.append(" ceiling: the highest that is possible.")
    return "".join(sentences)


def _score_cell(score: Any, own_marks: str) -> Cell:
    """Write a score with its marks and its interval. score: a row of summarise(), or None."""
    if score is None:
        return Cell()
    return Cell(percent(score.value) + own_marks, interval(score.low, score.high), score.best)


def guesses_of(scores: Sequence[Any]) -> list[tuple[str, list[float]]]:
    """List what guesses get in each column: the blind ones, majority and chance, in one row where these are the same.

    scores: one of each column.
    """
    majority, chance = [score.majority for score in scores], [score.chance for score in scores]
    names = dict.fromkeys(name for score in scores for name in score.blind)
    guesses = [(name, [score.blind.get(name, np.nan) for score in scores]) for name in names]
    if np.array_equal(majority, chance):
        return [*guesses, ("chance, majority", chance)]
    return [*guesses, *([] if np.isnan(majority).all() else [("majority", majority)]), ("chance", chance)]


def _mean_cells(grid: Sequence[Sequence[Any]], ours: Sequence[bool], guess: float) -> list[Cell]:
    """Write the mean of each line over all columns: a mean over fewer is not comparable, and is not shown.

    ours: which lines are no baselines. guess: the highest mean of a guess, which the best must beat.
    """
    means = [mean_of(np.nan if score is None else score.value for score in row) for row in grid]
    best = best_of([mean if own else np.nan for mean, own in zip(means, ours)], guess)
    return [Cell(percent(mean), best=bold) for mean, bold in zip(means, best)]


def mean_of(values: Iterable[float]) -> float:
    """Average values; NaN where one of them is."""
    return float(np.mean(list(values)))


def vocabularies(rows: "pd.DataFrame", notes: NotesOf) -> str:
    """Write a sentence on how many answers there are to choose from; empty where a task's notes do not say.

    rows: labelled, of one kind of task.
    """
    sizes = {
        row.dataset: of_part["vocabulary"] for row, of_part in measurements(rows, notes) if "vocabulary" in of_part
    }
    listed = ", ".join(f"{dataset} {sizes[dataset]:,}" for dataset in natural(sizes))
    return f" Only answers of train are given: {listed} different ones." if sizes else ""


def missing(rows: "pd.DataFrame", notes: NotesOf) -> str:
    """Write a sentence on the metrics that a task's notes say were not computed, and why; empty if there are none.

    rows: labelled, of one kind of task.
    """
    reasons = dict.fromkeys(
        f" No {metric} of {row.dataset}: {reason}."
        for row, of_part in measurements(rows, notes)
        for metric, reason in of_part.get("missing", {}).items()
    )
    return "".join(reasons)


def too_few(rows: "pd.DataFrame") -> str:
    """Write a sentence on the datasets with too few patients for an interval; empty where all have enough.

    rows: labelled, of one metric.
    """
    rows = rows[rows["value"].notna()]
    if "groups" not in rows:
        return ""
    samples = {dataset: few_groups(*smallest_sample(of_dataset)) for dataset, of_dataset in rows.groupby("dataset")}
    listed = "; ".join(f"{dataset}, {samples[dataset]}" for dataset in natural(samples) if samples[dataset])
    return f" Intervals do not keep what they promise: {listed}." if listed else ""


def at_edges(rows: "pd.DataFrame", notes: NotesOf) -> str:
    """Write a sentence on options whose chosen value is the lowest or the highest of those tried; empty where none is.

    rows: labelled, of one kind of task.
    """
    lines: dict[str, dict[str, None]] = {}
    for row, of_part in measurements(rows, notes):
        for option, value in of_part.get("at_edge", {}).items():
            lines.setdefault(f"{row.dataset}, {option} {value:g}", {})[row.line] = None
    if not lines:
        return ""
    every = "; ".join(f"{chosen} ({', '.join(of_value)})" for chosen, of_value in sorted(lines.items()))
    return (
        f" The best of the values tried is the lowest or highest of them, so that one beyond might be better: {every}."
    )


def collapsed(rows: "pd.DataFrame", notes: NotesOf) -> str:
    """Write sentences on the methods that give one answer to everything, or nearly one embedding to all images.

    rows: labelled, of one kind of task.
    """
    answers: dict[str, dict[str, None]] = {}
    alike: dict[str, None] = {}
    for row, of_part in measurements(rows[~rows["baseline"].astype(bool)], notes):
        if answer := of_part.get("only_answer"):
            answers.setdefault(f"{row.dataset} '{answer}'", {})[row.line] = None
        spread = of_part.get("embeddings")
        if spread and spread["mean_cosine"] > ALIKE:
            alike[f"{row.line} on {row.dataset}"] = None
    sentences = []
    if answers:
        listed = "; ".join(f"{answer} ({', '.join(lines)})" for answer, lines in sorted(answers.items()))
        sentences.append(f" One answer to all test examples: {listed}.")
    if alike:
        sentences.append(f" Embeddings of all test images nearly the same (mean cosine above {ALIKE:g}): ")
        sentences[-1] += f"{', '.join(alike)}."
    return "".join(sentences)


def defined(rows: "pd.DataFrame", notes: NotesOf) -> dict[str, str]:
    """Collect what the notes say that the metrics are, in their order. rows: labelled, of one kind of task."""
    meaning: dict[str, str] = {}
    for _, of_part in measurements(rows, notes):
        meaning |= of_part.get("definitions", {})
    return meaning


def score_caption(scores: "pd.DataFrame", complete: bool, meaning: Mapping[str, str] = MappingProxyType({})) -> str:
    """Write what a reader must know to quote a number of the table.

    complete: whether every line has a score in every column. meaning: of metrics, as defined() gives it.
    """
    several = bool(scores["seeds"].max() > 1)
    clauses = [over_seeds(scores.set_index("line")["seeds"]), *means_of_parts(scores)]
    sources = ["test examples", *["draws of train images"] * bool(scores["drawn"].any()), *["seeds"] * several]
    clauses.append(f"below: 95 % interval over {', '.join([*sources[:-2], ' and '.join(sources[-2:])])}")
    if scores["best"].any():
        clauses.append("bold: highest of the methods in its column")
    if not complete:
        clauses.append(f"{MISSING}: no result")
    return " ".join(["; ".join(clauses) + ".", *definitions(scores["metric"].unique(), meaning)])


def means_of_parts(scores: "pd.DataFrame") -> list[str]:
    """Say which parts a score is the mean of, where it has several."""
    return [
        f"mean of {' and '.join(names) if len(names) == 2 else ', '.join(names)}"
        for names in sorted({parts for parts in scores["parts"] if len(parts) > 1})
    ]


def definitions(metrics: Iterable[str], meaning: Mapping[str, str]) -> list[str]:
    """Write a sentence on each metric that ``meaning`` has, or whose name alone is ambiguous."""
    definition_of = {}
    for metric in natural(metrics):
        if metric in meaning:
            definition_of[metric] = meaning[metric]
        if at := re.fullmatch(r"recall@(\d+)", metric):
            definition_of[metric] = f"is a hit rate: the share of queries with a match among the first {at[1]}"
        if metric.startswith("macro_auroc"):
            definition_of["macro_auroc"] = "is the mean over classes or findings of the area under the ROC curve"
        if share := re.search(r"@[\d.]+%$", metric):
            definition_of[share[0]] = f"is trained on {share[0][1:-1]} % of the train images"
    return [f"{name} {definition}." for name, definition in definition_of.items()]
