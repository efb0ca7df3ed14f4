"""Evaluate an encoder on a task: compute the rows, per-example scores, resamples and notes for the store."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np

from benchmark.common.seeding import generator
from benchmark.evaluation.checks import checked
from benchmark.evaluation.evaluation import Evaluation
from benchmark.evaluation.fixed import FixedEncoder
from benchmark.evaluation.measurement import Gallery, Mean, MeanOverDraws, Measurement, draws_of
from benchmark.evaluation.metrics import uneven
from benchmark.evaluation.statistics import bounds, effective_groups, resample_all, scarcest
from benchmark.plan.plan import Cell, Pair, Plan
from benchmark.store.hashing import digest
from benchmark.store.rows import CourseColumns, GalleryNote, LoadingColumns, Row, Scores
from benchmark.task import TASKS, Task

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Measured:
    """The outcome of an evaluation.

    rows: one per part and metric. By part: examples, the per-example columns, each [n, ...]; resamples, each metric in
    each draw of what is learned from and each resample, [D, R], D = 1 without draws; notes, as ``Notes``.
    primary: the metric that the tables show; they leave out a dataset without a row for it.
    """

    rows: list[Row]
    examples: dict[str, Columns]
    resamples: dict[str, Columns]
    notes: dict[str, Any]
    primary: str


def measure(
    plan: Plan, cell: Cell | FixedEncoder, pair: Pair, data: Evaluation, course: CourseColumns | None = None
) -> Measured:
    """Evaluate an encoder on a pair: every metric of every part, with its bootstrap interval over groups.

    course: where in the cell's training its weights are from, if before its end.
    """
    task_class = TASKS[pair.task]
    task = task_class(task_class.Config(**pair.options))
    title = f"{TASKS.title(task_class)}, dataset '{data.card.name}'"
    measurements = checked(task.evaluate(data, cell.seed), title)
    primary = headline(task_class, data, {name for each in measurements for name in each.metrics})
    # All cells and parts use the same resamples of the same groups, so that differences are paired.
    population = np.unique(np.concatenate([each.examples["group"] for each in measurements]))
    total = sum(len(draws_of(metric)) for each in measurements for metric in each.metrics.values())
    resamples: dict[str, Columns] = {}
    for each in measurements:
        before = sum(len(drawn) for of_part in resamples.values() for drawn in of_part.values())

        def resampling(done: int, before: int = before) -> None:
            data.progress("resampling metrics", before + done, total)

        resamples[each.part] = resamples_of(each, population, plan.config.evaluation.resamples, resampling)
    left_random = getattr(data.encoder, "left_random", "")
    loading = LoadingColumns(left_random=left_random) if left_random else LoadingColumns()
    rows = [
        _row(plan, cell, pair, course or {}, loading, each.part, scores, scores["metric"] == primary, sample)
        for each in measurements
        for sample in [_sample(each, population)]
        for scores in scores_of(each, resamples[each.part])
    ]
    examples = {each.part: each.examples for each in measurements}
    spread = data.embedding_spread("test")
    notes = {
        each.part: each.notes
        | {"gallery": _gallery_note(each.gallery)}
        | ({"embeddings": spread} if spread else {})
        | ({"only_answer": answer} if (answer := only_answer(each)) else {})
        for each in measurements
    }
    return Measured(rows, examples, resamples, notes, primary)


def headline(task: type[Task], data: Evaluation, measured: AbstractSet[str]) -> str:
    """Choose the metric that the tables show: the card's headline, or that for uneven classes, or the task's own.

    measured: the metrics that there are; a headline that is not among them does not count.
    """
    card, name = data.card, data.card.headline
    if name is None and task.uneven and not card.multi_label and "label" in card.provides:
        name = task.uneven if uneven(data.labels("test")) else None
    metric = task.headlines.get(name or "", "")
    return metric if metric in measured else task.primary_for(card)


def only_answer(measurement: Measurement) -> str:
    """Return the answer that all examples got; "" if they got several, or if one is right for all."""
    gallery, examples = measurement.gallery, measurement.examples
    if not isinstance(gallery, Gallery):
        return ""
    given, true = ("predicted", "label") if gallery.classes else (gallery.answer, gallery.truth)
    if given not in examples or len(examples[given]) < 2 or len(np.unique(examples.get(true, [0, 1]))) == 1:
        return ""
    answers = np.unique(examples[given])
    if len(answers) > 1:
        return ""
    return gallery.classes[answers[0]] if gallery.classes else str(answers[0])


def _gallery_note(gallery: Gallery | str) -> GalleryNote:
    """Note what can be looked at, or why nothing can."""
    if isinstance(gallery, Gallery):
        return {"shows": asdict(gallery)}
    return {"none": gallery or "it does not say what can be looked at"}


def _row(
    plan: Plan,
    cell: Cell | FixedEncoder,
    pair: Pair,
    course: CourseColumns,
    loading: LoadingColumns,
    part: str,
    scores: Scores,
    primary: bool,
    sample: str,
) -> Row:
    """Join the columns that identify an evaluation with the scores of one metric."""
    return {
        **cell.label,
        **plan.scenario_of(cell, pair),
        **course,
        **loading,
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
        "raw_pixels": plan.raw_pixels.get(cell.seed),
    }


def relabelled(plan: Plan, cell: FixedEncoder, pair: Pair, rows: list[Row]) -> list[Row]:
    """Give rows of the same evaluation in another run the columns that identify it in this one."""

    def of_type(row: Row, columns: type) -> dict[str, Any]:
        return {name: value for name, value in row.items() if name in columns.__annotations__}

    return [
        _row(
            plan,
            cell,
            pair,
            CourseColumns(),
            cast(LoadingColumns, of_type(row, LoadingColumns)),
            row["part"],
            cast(Scores, of_type(row, Scores)),
            row["primary"],
            row["examples"],
        )
        for row in rows
    ]


def resamples_of(
    measurement: Measurement, population: np.ndarray, count: int, progress: Callable[[int], object] = lambda done: None
) -> Columns:
    """Return each metric in each of its draws and of ``count`` resamples of the groups, [D, count].

    progress: as of resample_all(); each draw is a metric.
    """
    examples, rng = measurement.examples, generator(0, "bootstrap", digest(population.tolist()))
    draws = {name: draws_of(metric) for name, metric in measurement.metrics.items()}
    metrics = [metric for of_metric in draws.values() for metric in of_metric]
    values = iter(resample_all(metrics, examples, examples["group"], population, count, rng, progress))
    return {name: np.stack([next(values) for _ in of_metric]) for name, of_metric in draws.items()}


def scores_of(measurement: Measurement, resamples: Columns) -> list[Scores]:
    """Return each metric with its interval and the numbers of examples and groups that it is computed on."""
    from benchmark.evaluation.replicates import pooled, score_of_draws

    examples = measurement.examples
    # Numbers are told apart faster than names, by each metric anew.
    names, groups = np.unique(examples["group"], return_inverse=True)
    scores: list[Scores] = []
    for metric, function in measurement.metrics.items():
        of_draws = [of_draw(examples) for of_draw in draws_of(function)]
        # The draws have the same examples, so that what bounds() asks of the metric is the same for each of them.
        one = draws_of(function)[0]
        value = float(np.mean(of_draws))
        low, high = bounds(one, examples, groups, value, resamples[metric].mean(axis=0))
        counted = int(one.counted(examples).sum()) if isinstance(one, Mean) else len(groups)
        row: Scores = {
            "metric": metric,
            "value": value,
            "low": low,
            "high": high,
            "n": counted,
            "groups": len(names),
            "effective_groups": effective_groups(one, examples, groups),
            "scarcest": scarcest(one, examples, groups),
            "chance": measurement.chance.get(metric),
            "majority": measurement.majority.get(metric),
            "blind": {name: values[metric] for name, values in measurement.blind.items() if metric in values},
            "ceiling": measurement.ceiling.get(metric),
        }
        if isinstance(function, MeanOverDraws):
            score = score_of_draws(of_draws, low, high, resamples[metric], row["effective_groups"])
            row |= {"of_draws": of_draws, "over_groups": [float(score.lows[0]), float(score.highs[0])]}
            if len(of_draws) > 1:
                [(_, row["low"], row["high"])] = pooled([score])
        scores.append(row)
    return scores


def _sample(measurement: Measurement, population: np.ndarray) -> str:
    """Hash the examples of a part: two results are comparable if their hashes are equal."""
    ids, groups = (map(str, measurement.examples[column]) for column in ("id", "group"))
    return digest([sorted(zip(ids, groups)), population.tolist()])
