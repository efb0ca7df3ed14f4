"""From a task and an encoder to what the store keeps of an evaluation: rows, scores, resamples and notes."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.common.seeding import generator
from benchmark.evaluation.evaluation import Evaluation
from benchmark.evaluation.fixed import FixedEncoder
from benchmark.evaluation.measurement import Mean, Measurement
from benchmark.evaluation.statistics import bounds, resample
from benchmark.plan.plan import Cell, Pair, Plan
from benchmark.store.hashing import digest
from benchmark.store.rows import Row, Scores
from benchmark.task import TASKS

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Measured:
    """The outcome of an evaluation.

    rows: one a part and metric. By part: examples, the per-example columns, each [n, ...]; resamples, each metric in
    each resample, [R]; notes, what a reader must know.
    primary: the metric that the tables show; they leave the dataset out where no row has it.
    """

    rows: list[Row]
    examples: dict[str, Columns]
    resamples: dict[str, Columns]
    notes: dict[str, Any]
    primary: str

    @property
    def has_primary(self) -> bool:
        """Whether any row is of the metric that the tables show."""
        return any(row["primary"] for row in self.rows)


def measure(plan: Plan, cell: Cell | FixedEncoder, pair: Pair, data: Evaluation) -> Measured:
    """Evaluate one encoder on one pair: every metric of every part, with its interval by a bootstrap over groups."""
    task_class = TASKS[pair.task]
    task = task_class(task_class.Config(**pair.options))
    primary = task.primary_for(data.card)
    measurements = list(task.evaluate(data, cell.seed))
    # Every cell and part gets the same draws of the same groups, so that differences are paired.
    population = np.unique(np.concatenate([each.examples["group"] for each in measurements]))
    resamples = {each.part: _resamples(each, population, plan.config.evaluation.resamples) for each in measurements}
    rows = [
        _row(plan, cell, pair, each.part, scores, scores["metric"] == primary, sample)
        for each in measurements
        for sample in [_sample(each, population)]
        for scores in _scores(each, resamples[each.part])
    ]
    examples = {each.part: each.examples for each in measurements}
    return Measured(rows, examples, resamples, {each.part: each.notes for each in measurements}, primary)


def _row(
    plan: Plan, cell: Cell | FixedEncoder, pair: Pair, part: str, scores: Scores, primary: bool, sample: str
) -> Row:
    """Join what identifies an evaluation with the scores of one metric."""
    return {
        **cell.label,
        **plan.scenario_of(cell, pair),
        "variant": ", ".join(filter(None, (cell.label["variant"], pair.variant))),
        "dataset": pair.dataset,
        "task": pair.task,
        "part": part,
        **scores,
        "primary": primary,
        "examples": sample,
        "cell": cell.key,
        "evaluation": pair.key,
        "start": plan.starts.get(cell.seed),
    }


def _resamples(measurement: Measurement, population: np.ndarray, count: int) -> Columns:
    """Return each metric in each of ``count`` resamples of the groups, [count]."""
    groups, stream = measurement.examples["group"], digest(population.tolist())
    return {
        metric: resample(function, measurement.examples, groups, population, count, generator(0, "bootstrap", stream))
        for metric, function in measurement.metrics.items()
    }


def _scores(measurement: Measurement, resamples: Columns) -> list[Scores]:
    """Return the value of each metric, its interval, and how many examples and groups it is over."""
    examples, groups = measurement.examples, measurement.examples["group"]
    scores: list[Scores] = []
    for metric, function in measurement.metrics.items():
        low, high = bounds(function, examples, groups, resamples[metric])
        counted = int(function.counted(examples).sum()) if isinstance(function, Mean) else len(groups)
        scores.append(
            {
                "metric": metric,
                "value": function(examples),
                "low": low,
                "high": high,
                "n": counted,
                "groups": len(np.unique(groups)),
                "chance": measurement.chance.get(metric),
                "majority": measurement.majority.get(metric),
            }
        )
    return scores


def _sample(measurement: Measurement, population: np.ndarray) -> str:
    """Name the examples of a part: two results can be compared where these are the same."""
    ids, groups = (map(str, measurement.examples[column]) for column in ("id", "group"))
    return digest([sorted(zip(ids, groups)), population.tolist()])
