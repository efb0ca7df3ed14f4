"""What a suite's claims come to: measured from the results, judged, and shown as a section of the report."""

import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.common.errors import unknown
from benchmark.config.claims import Claim, Cost, Level, Scored
from benchmark.config.load import read_suite
from benchmark.config.yaml_files import config_names, find_config
from benchmark.report.comparison import FEWEST_SEEDS, SIGNIFICANT, few_groups, highest_of
from benchmark.report.render import ALL_TASKS, MISSING, Cell, Sentence, Table, task_anchor
from benchmark.report.results import Resamples, common_settings, natural, own_settings, set_options, settings_of
from benchmark.report.runs import Runs, complete_runs, measured_runs
from benchmark.report.verdicts import (
    CONTRADICTED,
    NOT_RUN,
    NOT_SHOWN,
    ONE_SEED,
    SUPPORTED,
    Measured,
    Verdict,
    interval_of,
    judged,
    measure_of,
    measured_sentence,
    stated_by,
    value_text,
    verdict_on,
)

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = [
    "suite",
    "claim",
    "kind",
    "verdict",
    "setting",
    "a",
    "b",
    "measure",
    "stated",
    "value",
    "low",
    "high",
    "seeds",
    "datasets",
    "examples",
    "text",
    "source",
    "explanation",
    "command",
]
"""Columns of claims_frame()."""

Count = Callable[[str, str], "Mapping[str, Any] | None"]
"""Arm, model ("": the suite's) -> the parameter columns of its costs, counted without training; None where they cannot
be."""


def claim_parts(verdicts: Sequence[Verdict]) -> Iterator[Table | Sentence]:
    """Show verdicts: a table of those of each suite, a sentence each, and tables of what is a mean over datasets."""
    for suite in dict.fromkeys(each.suite for each in verdicts):
        shared, of_suite = _without_shared([each for each in verdicts if each.suite == suite])
        if shared:
            yield Sentence(f"Claims of suite {suite}, judged at {', '.join(shared)}.")
        yield verdict_table(suite, of_suite)
        yield from (Sentence(each.sentence, command=each.command) for each in of_suite)
        yield from column_tables(suite, of_suite)


def summary(verdicts: Sequence[Verdict]) -> Sentence:
    """Count verdicts by their word."""
    counts = Counter(each.verdict for each in verdicts)
    words = ", ".join(
        f"{counts[word]} {word}" for word in (SUPPORTED, CONTRADICTED, NOT_SHOWN, NOT_RUN) if counts[word]
    )
    return Sentence(f"Claims: {words}; `bench claims` says why.", main=True)


def _without_shared(verdicts: Sequence[Verdict]) -> tuple[list[str], list[Verdict]]:
    """Take the overrides that all verdicts from results share out of their settings; return them and the verdicts."""
    heads, overrides = zip(*(_parts(each.setting) for each in verdicts))
    shared = common_settings(filter(None, overrides))
    kept = [", ".join(own_settings(each, shared)) for each in overrides]
    settings = [" · ".join(filter(None, (head, own))) for head, own in zip(heads, kept)]
    return shared, [replace(each, setting=setting) for each, setting in zip(verdicts, settings)]


def _parts(setting: str) -> tuple[str, str]:
    """Split a verdict's setting into model and pretraining sets, and the overrides."""
    head, _, last = setting.rpartition(" · ")
    return (head, last) if "=" in last else (setting, "")


def judge(
    suite: str,
    stated: Mapping[str, Claim],
    rows: "pd.DataFrame",
    costs: "pd.DataFrame",
    resamples: Resamples,
    reference: str = "",
    count: Count = lambda *_: None,
) -> list[Verdict]:
    """Judge the claims of a suite, each at every setting that it was run at.

    rows, costs: labelled, of all suites. reference: what ``--suite`` takes; default: the suite's name, or a file of
    that name. count: of arms that were not trained.
    """
    rows = rows[rows["suite"] == suite] if "line" in rows else rows.iloc[:0]
    reference = reference or (suite if suite in config_names("suite") else f"{suite}.yaml")
    datasets = natural(rows["dataset"].unique()) if len(rows) else []
    verdicts = []
    for name, claim in stated.items():
        relevant = _of_claim(claim, rows) if isinstance(claim, Scored) else _trained(claim, costs, suite)
        # Without results of its tasks, a claim is judged at the settings at which its arms have any.
        for setting in _settings(relevant if len(relevant) or isinstance(claim, Cost) else rows, claim):
            case = _Case(suite, name, claim, reference, setting, datasets)
            verdicts.append(
                _of_scores(case, relevant, rows, resamples)
                if isinstance(claim, Scored)
                else _of_costs(case, relevant, count)
            )
    return verdicts


def claims_frame(verdicts: Sequence[Verdict]) -> "pd.DataFrame":
    """Lay out verdicts, one row each; value, low and high are fractions."""
    import pandas as pd

    return pd.DataFrame([_as_row(each) for each in verdicts], columns=COLUMNS)


def _as_row(verdict: Verdict) -> dict[str, Any]:
    claim, measured = verdict.claim, verdict.measured
    row: dict[str, Any] = {
        "suite": verdict.suite,
        "claim": verdict.name,
        "kind": claim.kind,
        "verdict": verdict.verdict,
        "setting": verdict.setting,
        "a": claim.a,
        "b": ", ".join([*claim.sides][1:]),
        "measure": measure_of(claim, measured),
        "stated": stated_by(claim),
        "text": claim.text,
        "source": claim.source,
        "explanation": verdict.why,
        "command": verdict.command,
    }
    if measured is None:
        return row
    row |= {"value": measured.value, "low": measured.low, "high": measured.high, "seeds": measured.seeds}
    datasets = natural({dataset for _, dataset, _ in measured.columns})
    return row | {"datasets": ", ".join(datasets), "examples": measured.examples}


# What is compared


@dataclass(frozen=True)
class _Setting:
    """The lines of a claim's sides that differ in nothing else. name: what tells it from the suite's own settings.

    base: the columns of the first side's line; empty where nothing was run.
    """

    lines: Mapping[str, str]
    base: Mapping[str, str] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class _Case:
    """A claim at a setting. reference: of the suite, for commands. datasets: those of which it has results."""

    suite: str
    name: str
    claim: Claim
    reference: str
    setting: _Setting
    datasets: Sequence[str] = ()

    def verdict(
        self, verdict: str, measured: Measured | None, why: str, command: str = "", others: Sequence[Measured] = ()
    ) -> Verdict:
        return Verdict(self.suite, self.name, self.claim, self.setting.name, verdict, measured, why, command, others)

    def command(self, sides: Iterable[str], tasks: Sequence[str], seeds: int) -> str:
        """Write the command that runs these sides on these tasks at the setting; two, where their models differ."""
        named = [self.claim.sides[side] for side in sides]
        runs = [(arm, model or self._other_model()) for arm, model in named]
        return " && ".join(
            self._command([arm for arm, at in runs if at == model], tasks, seeds, model)
            for model in dict.fromkeys(model for _, model in runs)
        )

    def _command(self, arms: Sequence[str], tasks: Sequence[str], seeds: int, model: str) -> str:
        words = ["bench", "run", "--suite", self.reference, "--methods", ",".join(arms)]
        words += ["--tasks", ",".join(tasks)] if tasks else []
        words += ["--seeds", str(max(seeds, FEWEST_SEEDS))] if seeds else []
        words += ["--model", model] if model else []
        pretraining, datasets = (_by_name(self._shipped.get(key, ())) for key in ("pretraining", "datasets"))
        trained_on = self.setting.base.get("pretraining", "").split(", ")
        varied = any(
            setting.startswith("pretraining=") for setting in settings_of(self.setting.base.get("variant", ""))
        )
        if trained_on != [""] and (varied or trained_on != [*(pretraining or trained_on)]):
            words += ["--pretraining", ",".join(pretraining.get(name, name) for name in trained_on)]
        if any(":" not in task for task in tasks) and self.datasets and {*datasets} - {*self.datasets}:
            words += ["--datasets", ",".join(datasets.get(name, name) for name in self.datasets)]
        own = self.setting.base.get("arm", "")
        words += set_options(self.setting.base.get("variant", ""), own if own in arms else "")
        return shlex.join(words)

    def _other_model(self) -> str:
        """Return the model, if it is not the one that the shipped suite names."""
        model = self.setting.base.get("model", "")
        if model not in config_names("model"):
            return ""
        return "" if model in (self._shipped.get("model", model), *self.claim.models) else model

    @property
    def _shipped(self) -> Mapping[str, Any]:
        """The keys of the suite, if it is a shipped one."""
        return read_suite(find_config("suite", self.reference))[0] if self.reference in config_names("suite") else {}


def _by_name(references: Sequence[str]) -> dict[str, str]:
    """Map the names of datasets, as results have them, to what a suite names them by: names too, or paths of cards."""
    from benchmark.data.card import load_card

    return {load_card(each).name if each.endswith(".yaml") else each: each for each in references}


def _settings(frame: "pd.DataFrame", claim: Claim) -> list[_Setting]:
    """Find what a claim is judged at: each line of its first arm that has any, with the nearest lines of the others.

    Lines belong together if model (but for a stated one) and pretraining sets are the same and one's overrides contain
    the other's; of several, those that share the most.
    """
    keys, sides = ["arm", "model", "pretraining", "variant", "line"], claim.sides
    stated = {side for side in sides.values() if side[1]}
    if not len(frame):
        return [_Setting({})]
    lines = frame.reindex(columns=keys).fillna("").astype(str).drop_duplicates("line")
    of_side: dict[str, list[dict[Any, Any]]] = {side: [] for side in sides}
    for line in lines.to_dict("records"):
        key = line["arm"], line["model"]
        for side, (arm, model) in sides.items():
            if key == (arm, model) or (arm == line["arm"] and not model and key not in stated):
                of_side[side].append(line)
    first = next((side for side in sides if of_side[side]), None)
    if first is None:
        return [_Setting({})]
    named = [key for key in ("model", "pretraining") if len({line[key] for line in of_side[first]}) > 1] + ["variant"]
    settings = []
    for line in of_side[first]:
        same = ["pretraining"] if claim.models else ["model", "pretraining"]
        near = {side: _nearest(line, of_side[side], same) for side in sides if side != first}
        lines_of_sides = {first: line["line"]} | {side: name for side, name in near.items() if name}
        settings.append(_Setting(lines_of_sides, line, " · ".join(filter(None, (line[key] for key in named)))))
    order = natural(setting.name for setting in settings)
    return sorted(settings, key=lambda setting: order.index(setting.name))


def _nearest(line: Mapping[str, Any], others: Sequence[Mapping[str, Any]], same: Sequence[str]) -> str:
    """Return the name of the line that differs from ``line`` least in its overrides; "" if none is comparable.

    same: the columns in which it may not differ.
    """

    def overrides(one: Mapping[str, Any]) -> set[str]:
        return set(settings_of(one["variant"]))

    own = overrides(line)
    comparable = [
        other
        for other in others
        if all(other[key] == line[key] for key in same) and (overrides(other) <= own or overrides(other) >= own)
    ]
    nearest = min(comparable, key=lambda other: len(overrides(other) ^ own), default=None)
    return str(nearest["line"]) if nearest else ""


# Scores


def _of_claim(claim: Scored, rows: "pd.DataFrame") -> "pd.DataFrame":
    """Select the rows with a value that a claim is about, of all arms: one per column, line, seed and part."""
    if not len(rows):
        return rows
    wanted = rows["task"].isin(claim.tasks) & rows["value"].notna()
    wanted &= rows["metric"] == claim.metric if claim.metric else rows["primary"].astype(bool)
    if claim.part:
        wanted &= rows["part"] == claim.part
    if claim.datasets:
        wanted &= rows["dataset"].isin(claim.datasets)
    return rows[wanted].drop_duplicates(["task", "dataset", "metric", "line", "seed", "part"], keep="last")


def _of_scores(case: _Case, rows: "pd.DataFrame", of_suite: "pd.DataFrame", resamples: Resamples) -> Verdict:
    """Judge a claim about scores at a setting. rows: of _of_claim(). of_suite: all of the suite's."""
    claim, lines = case.claim, case.setting.lines
    assert isinstance(claim, Scored)
    if claim.metric and not len(rows) and len(of_suite):
        metrics = of_suite.loc[of_suite["task"].isin(claim.tasks), "metric"].unique()
        if len(metrics):
            mistake = unknown(f"metric of {', '.join(claim.tasks)}", claim.metric, metrics)
            return case.verdict(NOT_RUN, None, f"A mistake in the claim: {mistake}.")
    runs = complete_runs(rows) if len(rows) else {}
    lacking = _lacking(claim, runs, lines)
    others: Sequence[str] = [*claim.sides][1:] or [""]
    able = [other for other in others if not {claim.a, other} & set(lacking)]
    measured = [each for other in able if (each := _measure(claim, other, runs, lines, resamples))]
    verdict, decisive, why = verdict_on(claim, measured)
    seeds = 1 + max((seed for column in runs.values() for of_line in column.values() for seed in of_line), default=0)
    if verdict != CONTRADICTED and len(measured) < len(others):
        absent = list(lacking or claim.sides)
        selectors = list(dict.fromkeys(task for side in absent for task in lacking.get(side, claim.tasks)))
        command = case.command(absent, selectors, seeds)
        return case.verdict(NOT_RUN, None, _missing(lacking), command, measured)
    command = (
        case.command(claim.sides, _selectors(claim), seeds)
        if verdict == NOT_SHOWN and decisive.seeds < FEWEST_SEEDS
        else ""
    )
    return case.verdict(verdict, decisive, f"{measured_sentence(claim, decisive)} {why}", command, measured)


def _lacking(claim: Scored, runs: Runs, lines: Mapping[str, str]) -> dict[str, list[str]]:
    """List the tasks, as ``--tasks`` takes them, that sides have no complete run of, by the sides that lack any.

    Expected are the stated datasets, or else those on which any line has results.
    """
    lacking: dict[str, list[str]] = {}
    for side in claim.sides:
        selectors = []
        for task in claim.tasks:
            have: dict[str, set[str]] = {}
            for (of, dataset, _), column in runs.items():
                have.setdefault(dataset, set()).update(column if of == task else ())
            expected = claim.datasets or natural(dataset for dataset, of_task in have.items() if of_task)
            absent = [name for name in expected if lines.get(side) not in have.get(name, ())]
            whole = not claim.datasets and len(absent) == len(expected)
            selectors += [task] if whole else [f"{task}:{name}" for name in absent]
        if selectors:
            lacking[side] = selectors
    return lacking


def _selectors(claim: Scored) -> list[str]:
    """Name the tasks of a claim as ``--tasks`` takes them."""
    return [f"{task}:{name}" if name else task for task in claim.tasks for name in claim.datasets or [""]]


def _measure(claim: Scored, other: str, runs: Runs, lines: Mapping[str, str], resamples: Resamples) -> Measured | None:
    """Measure an arm against another, or against the stated level, over the seeds that both have on every dataset.

    The mean over tasks of the mean over datasets is taken within each seed, and within each resample of the patients:
    so a single metric is compared. None without such a seed.
    """
    a, b = lines[next(iter(claim.sides))], lines.get(other, "")
    names = [a, b] if other else [a]
    # Of a column that these arms lack, other lines have another main metric.
    columns = {key: column for key, column in runs.items() if all(name in column for name in names)}
    common = sorted(set.intersection(*(set(column[name]) for column in columns.values() for name in names)))
    if not common:
        return None
    per_task = {task: sum(of == task for of, _, _ in columns) for task, _, _ in columns}
    weights = np.array([1 / len(per_task) / per_task[task] for task, _, _ in columns])
    examples: dict[str, int] = {}
    measured = []
    for key, column in columns.items():
        of_arms = [[column[name][seed] for seed in common] for name in names]
        values, drawn = measured_runs([run for of_arm in of_arms for run in of_arm], resamples)
        # Draws are nested in seeds, of which a verdict needs several.
        values, drawn = values.mean(axis=1), None if drawn is None else drawn.mean(axis=1)
        measured.append((values, drawn, of_arms[0][0].effective_groups, of_arms[0][0].scarcest))
        examples[key[1]] = max(examples.get(key[1], 0), max(run.n for run in of_arms[0]))
    level = claim.above / 100 if isinstance(claim, Level) else None
    alone = {key: _paired(other, *each, level, examples[key[1]]) for key, each in zip(columns, measured)}
    mean = np.einsum("k,kn->n", weights, np.array([values for values, *_ in measured]))
    kept = [drawn for _, drawn, *_ in measured if drawn is not None]
    shortest = min((each.shape[1] for each in kept), default=0)
    resampled = None
    if len(kept) == len(measured):
        resampled = np.einsum("k,knr->nr", weights, np.array([each[:, :shortest] for each in kept]))
    scarcest = min(measured, key=lambda each: each[2])[3]
    groups = min(each[2] for each in measured)
    pooled = _paired(other, mean, resampled, groups, scarcest, level, sum(examples.values()))
    return Measured(**{**vars(pooled), "columns": alone})


def _paired(
    other: str,
    values: np.ndarray,
    resampled: np.ndarray | None,
    groups: float,
    scarcest: float,
    level: float | None,
    examples: int,
) -> Measured:
    """Compare two arms, or one with a level. values: [arms x S]. resampled: [arms x S, R], None where there are none.

    groups, scarcest: as a run has them. Of a level, value and interval are those of the arm itself.
    """
    from benchmark.evaluation.replicates import conclude, estimate

    seeds = len(values) if level is not None else len(values) // 2
    against = values[seeds:] if level is None else level
    difference = values[:seeds] - against
    value = float(difference.mean())
    if resampled is None:
        low = high = p = math.nan
    else:
        drawn = resampled[:seeds] - (resampled[seeds:] if level is None else level)
        tested = conclude([estimate(difference[:, None], drawn[:, None], groups, highest_of(values))])[0]
        low, high, p = tested.low, tested.high, tested.p
        if math.isnan(low) and p < SIGNIFICANT:
            # All groups and seeds agree.
            low = high = value
    shift = level or 0.0
    few = few_groups(groups, scarcest)
    return Measured(other, value + shift, low + shift, high + shift, p, seeds, examples, few)


def _missing(lacking: Mapping[str, Sequence[str]]) -> str:
    """Say which results are missing."""
    if not lacking:
        return "No seed has results of all these arms on all these datasets."
    tasks: dict[str, list[str]] = {}
    for arm, selectors in lacking.items():
        tasks.setdefault(", ".join(selectors), []).append(arm)
    return " ".join(f"No results of {', '.join(arms)} in {of}." for of, arms in tasks.items())


# Costs


def _trained(claim: Cost, costs: "pd.DataFrame", suite: str) -> "pd.DataFrame":
    """Select the costs of a suite; counts of a stated model are the same in any other."""
    if "line" not in costs:
        return costs.iloc[:0]
    counted = (costs["arm"] == claim.b) & (costs["model"] == claim.b_model) & claim.is_count
    return costs[(costs["suite"] == suite) | counted]


def _of_costs(case: _Case, costs: "pd.DataFrame", count: Count) -> Verdict:
    """Judge a claim about costs at a setting. costs: labelled, of the suite. count: as of judge()."""
    import pandas as pd

    claim, lines = case.claim, case.setting.lines
    assert isinstance(claim, Cost)
    recorded = claim.column in costs
    absent = [side for side in claim.sides if side not in lines or not recorded]
    if absent:
        model = case.setting.base.get("model", "")
        sides = {side: claim.sides[side] for side in absent if claim.is_count}
        counted = {side: count(arm, stated or model) or {} for side, (arm, stated) in sides.items()}
        if not all(claim.column in counted.get(side, {}) for side in absent):
            why = f"Not trained: {', '.join(absent)}."
            return case.verdict(NOT_RUN, None, why, case.command(absent, [], 0 if claim.is_count else FEWEST_SEEDS))
        untrained = {side: pd.Series([float(columns[claim.column])]) for side, columns in counted.items()}
        trained = {side: costs.loc[costs["line"] == line, claim.column] for side, line in lines.items()}
        first, second = ((trained | untrained)[side] for side in claim.sides)
        ratio = replace(_ratio(first, second, claim), seeds=0)
        verdict, why = judged(claim, ratio)
        return case.verdict(
            verdict, ratio, f"{measured_sentence(claim, ratio)} Counted without training: {', '.join(absent)}. {why}"
        )
    a, b = (costs[costs["line"] == lines[side]].drop_duplicates("seed").set_index("seed") for side in claim.sides)
    ratio = _ratio(a[claim.column].astype(float), b[claim.column].astype(float), claim)
    words = measured_sentence(claim, ratio)
    if not claim.is_count and set(a["device"]) | set(b["device"]) != set(a["device"]) & set(b["device"]):
        return case.verdict(NOT_SHOWN, ratio, f"{words} The devices differ.")
    if not claim.is_count and ratio.seeds < 2:
        return case.verdict(NOT_SHOWN, ratio, f"{words} {ONE_SEED}", case.command(claim.sides, [], FEWEST_SEEDS))
    verdict, why = judged(claim, ratio)
    return case.verdict(verdict, ratio, f"{words} {why}", others=[ratio])


def _ratio(a: "pd.Series[float]", b: "pd.Series[float]", claim: Cost) -> Measured:
    """Divide the costs of a by those of b: counts as they are, others by the mean log ratio over the common seeds."""
    from scipy import special

    if claim.is_count:
        value = float(a.mean() / b.mean()) if b.mean() else math.nan
        return Measured([*claim.sides][1], value, value, value, seeds=min(len(a), len(b)))
    logs = np.log(a / b).dropna().to_numpy()
    if len(logs) < 2:
        value = float(np.exp(logs.mean())) if len(logs) else math.nan
        return Measured([*claim.sides][1], value, math.nan, math.nan, seeds=len(logs))
    half = float(special.stdtrit(len(logs) - 1, 0.975) * logs.std(ddof=1) / np.sqrt(len(logs)))
    mean = float(logs.mean())
    return Measured([*claim.sides][1], math.exp(mean), math.exp(mean - half), math.exp(mean + half), seeds=len(logs))


# Tables


def verdict_table(suite: str, verdicts: Sequence[Verdict]) -> Table:
    """Tabulate claims by what they state, what was measured, and the verdict."""
    rows = []
    for each in verdicts:
        cells = [Cell(each.verdict, best=each.verdict in (SUPPORTED, CONTRADICTED)), Cell(stated_by(each.claim))]
        if measured := each.measured:
            rests_on = task_anchor(each.claim.tasks[0]) if isinstance(each.claim, Scored) else ALL_TASKS
            value = value_text(each.claim, measured.value)
            cells.append(Cell(value, interval_of(each.claim, measured), link=rests_on))
            datasets = len({dataset for _, dataset, _ in measured.columns})
            cells += [Cell(str(measured.seeds or MISSING)), Cell(str(datasets) if datasets else MISSING)]
        else:
            cells += [Cell()] * 3
        rows.append((each.label, cells))
    caption = (
        "Differences in points, levels in percent, costs in percent of the other arm's; below: the 95 % interval over "
        "test patients and seeds. Each claim is judged alone, at 5 %. Supported: the whole interval is in favour, and "
        "reaches a stated size. Contradicted: the whole interval lies outside what is stated. Not shown: neither, or "
        f"fewer than {FEWEST_SEEDS} seeds."
    )
    columns = [("verdict", ""), ("stated", ""), ("measured", ""), ("seeds", ""), ("datasets", "")]
    return Table(f"claims of suite {suite}", columns, rows, [], caption)


def column_tables(suite: str, verdicts: Sequence[Verdict]) -> Iterator[Table]:
    """Tabulate the claims about scores by dataset, for each kind of task: what was measured there."""
    compared = [(each, one) for each in verdicts for one in each.all_measured if len(one.columns) > 1]
    for task in natural({task for _, one in compared for task, _, _ in one.columns}):
        of_task = [(each, one) for each, one in compared if any(key[0] == task for key in one.columns)]
        keys = {key[1:] for _, one in of_task for key in one.columns if key[0] == task}
        columns = [
            (name, metric)
            for name in natural({name for name, _ in keys})
            for metric in natural({of for dataset, of in keys if dataset == name})
        ]
        rows = []
        for each, one in of_task:
            measurements = [one.columns.get((task, *column)) for column in columns]
            cells = [
                Cell(value_text(each.claim, x.value), interval_of(each.claim, x)) if x else Cell() for x in measurements
            ]
            several = len(each.claim.arms) > 2
            rows.append((f"{each.label} · {one.other}" if several else each.label, cells))
        caption = (
            "What the verdicts are means over: differences in points, levels in percent; below: the 95 % interval."
        )
        yield Table(f"claims of suite {suite} on each dataset: {task}", columns, rows, [], caption, page_only=True)
