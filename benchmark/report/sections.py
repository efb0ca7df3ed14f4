"""The report as a list of sections: each turns results into tables, figures and sentences, in the order of the page.

A new section is a function of ``Results`` and an entry in one of the lists below.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from benchmark.common.errors import BenchError
from benchmark.config.claims import Claim
from benchmark.report import (
    arms,
    breakdown,
    claims,
    classes,
    comparison,
    costs,
    course,
    curve,
    grids,
    live,
    made,
    overview,
    scenarios,
    scores,
)
from benchmark.report.latex import write_latex
from benchmark.report.page import HOW_TO_READ, Page
from benchmark.report.render import ALL_TASKS, Part, Sentence, task_anchor
from benchmark.report.results import (
    ConfigurationOf,
    DisplayNames,
    EmbeddedOf,
    ExamplesOf,
    LogOf,
    NotesOf,
    Resamples,
    Results,
    label_lines,
    natural,
    nothing,
    shared_settings,
    with_texts,
)
from benchmark.report.verdicts import Verdict
from benchmark.report.web import curves, differences, embedding_map, predictions, quality, score_charts, training
from benchmark.report.web.page import Chapter, WebPage
from benchmark.store.live import RunRecord

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

Section = Callable[[Results], Iterator[Part]]
StatedClaims = Mapping[str, Mapping[str, Claim]]
"""The claims by suite and name, as Store.claims() gives them."""
HEAD: list[Section] = [overview.overview, quality.quality_against_cost, arms.arms]
"""Sections that come first: the answer, and what is compared."""
OF_EACH_TASK: list[Section] = [
    scores.primary_scores,
    score_charts.scores_by_dataset,
    comparison.against_reference,
    differences.differences_to_chosen,
    comparison.against_baselines,
    scores.secondary_scores,
    breakdown.scores_by_kind,
    classes.scores_by_class,
    predictions.predictions,
    curve.learning_curves,
    curves.score_curves,
    course.courses,
    grids.grids,
]
"""Sections of one kind of task; they are given its results alone, as Results.of_task() selects them."""
OF_ALL_TASKS: list[Section] = [comparison.mean_ranks, costs.pretraining_costs, scenarios.scenarios]
"""Sections that follow, of all results."""
TRAINING: list[Section] = [training.learning_curves, embedding_map.embedding_maps]
"""Sections on the trainings and what they learned."""
MADE: list[Section] = [made.how_it_was_made]
"""Sections on how the results came about."""


def write_report(
    rows: "pd.DataFrame",
    costs: "pd.DataFrame",
    folder: Path,
    console: "Console",
    resamples: Resamples = lambda *_: None,
    reference: str | None = None,
    notes: NotesOf = lambda *_: {},
    stated: StatedClaims = MappingProxyType({}),
    during: "pd.DataFrame | None" = None,
    latex: bool = False,
    details: bool = True,
    examples: ExamplesOf = nothing,
    log: LogOf = nothing,
    embedded: EmbeddedOf = nothing,
    configuration: ConfigurationOf = nothing,
    runs: Sequence[RunRecord] = (),
    look: Section | None = None,
    damage: Sequence[str] = (),
) -> list[Path]:
    """Print the tables; write report.md, index.html, the CSV files of data_files() and plots/*.png, *.svg.

    With claims, claims.csv too, and their verdicts below the arms.

    rows: one per arm, variant, model, suite, seed, dataset, task, part and metric, as Store.rows() returns them; the
    tables and plots show the ``primary`` ones. costs: one per cell; may be empty. folder: inside the results folder.
    resamples: of the rows' evaluations, for the tests of differences. reference: the line that the others are compared
    with (a method's name is enough if it has one line); default: that with the highest mean score. notes: of a cell's
    evaluation. stated: the claims of each suite. during: the rows of weights in the course of trainings, as
    Store.course() returns them. latex: whether to write tables and references for a paper into ``folder``/latex, and
    plots as PDF too. details: whether all tables are printed, or only the answer and the overview. examples, log,
    embedded, configuration: of a cell, for the page. runs: their records; one that goes on or did not end properly
    comes first. look: shows single examples on the page. damage: what of the results is left out because it is damaged,
    a line each. Returns the files, report.md first.
    Raises ``BenchError`` if there is no primary row with a value, or no such reference.
    """
    resamples = cache(resamples)
    readers = {"examples": examples, "log": log, "embedded": embedded, "configuration": configuration}
    results = read_results(rows, costs, cache(notes), resamples, reference, during, **readers)
    if results is None:
        raise BenchError(f"no results in {folder.parent}; run `bench run --methods all --tasks all` first")
    # Scenarios have no overview: without their tables nothing would be printed.
    page = Page(folder, console, latex, details or results.scores.empty)
    for name, frame in data_files(results).items():
        page.add_data(name, frame)
    web = WebPage(f"Report: {', '.join(natural(results.all_rows['suite'].unique()))}")
    verdicts = verdicts_of(rows, costs, resamples, stated)
    if verdicts:
        page.add_data("claims.csv", claims.claims_frame(verdicts))
    damaged = [Sentence(f"Left out: {line}.", main=True) for line in damage]
    unfinished = Chapter("run", "Run", [*damaged, *live.unfinished(runs)], opened=True)
    # All of it before anything is printed: it may find further damage.
    for chapter in [unfinished, *chapters(results, verdicts, look, runs)]:
        if not chapter.only_here:
            page.add(chapter.parts)
        web.add(chapter)
    files = [*page.write(), web.write(folder / "index.html", HOW_TO_READ.partition("\n")[2])]
    return [*files, *(write_latex(results, folder / "latex") if latex else [])]


def chapters(
    results: Results, verdicts: Sequence[Verdict], look: Section | None, runs: Sequence[RunRecord]
) -> Iterator[Chapter]:
    """Lay out the report chapter by chapter, in the order of the page. look, runs: as of write_report()."""
    from altair.utils.schemapi import debug_mode

    def parts(sections: Sequence[Section], of: Results) -> list[Part]:
        # Altair otherwise checks each piece of a chart as it is made: a quarter of the time of a report.
        with debug_mode(False):
            return [part for section in sections for part in section(of)]

    yield Chapter("answer", "Answer", parts(HEAD, results), opened=True)
    if verdicts:
        of_claims = [claims.summary(verdicts), *claims.claim_parts(verdicts)]
        yield Chapter("claims", "Claims", of_claims, opened=True)
    for task in natural(results.scores["task"].unique()):
        yield Chapter(task_anchor(task), task, parts(OF_EACH_TASK, results.of_task(task)))
    if look is not None:
        yield Chapter("look", "Look", parts([look], results), only_here=True)
    yield Chapter("training", "Training and embeddings", parts(TRAINING, results))
    yield Chapter(ALL_TASKS, "Ranks, costs and scenarios", parts(OF_ALL_TASKS, results))
    yield Chapter("how-it-was-made", "How it was made", [*parts(MADE, results), *live.remarks(runs)])


def read_results(
    rows: "pd.DataFrame",
    costs: "pd.DataFrame",
    notes: NotesOf,
    resamples: Resamples,
    reference: str | None,
    during: "pd.DataFrame | None" = None,
    **readers: Any,
) -> Results | None:
    """Label and summarise the results for the sections; None if there are none. Arguments as of write_report().

    readers: of examples, logs, embeddings and configurations, as fields of ``Results``.
    """
    if rows.empty:
        return None
    names = DisplayNames()
    rows, costs, notes = names.frame(rows), names.frame(costs), cache(names.notes(notes))
    during = rows.iloc[:0] if during is None else names.frame(during)
    rows = curve.with_draws(rows, notes)
    main, own_costs = _without_scenarios(rows, costs)
    labelled, labelled_costs, lines = label_lines(main, own_costs)
    summary = scores.summarise(labelled)
    if summary.empty and not any(scenarios.views(rows, costs, resamples, notes)):
        return None
    if summary.empty and reference:
        raise BenchError(
            f"--reference {reference}: the only results here are those of scenarios, where a line is compared with "
            "itself; leave the option out"
        )
    baselines = set(labelled.loc[labelled["baseline"], "line"])
    methods = [line for line in lines if line not in baselines]
    named = comparison.find_reference(reference, labelled) if reference else comparison.default_reference(summary)
    compared = comparison.comparisons(labelled, resamples, methods, named, reference is not None)
    return Results(
        rows=labelled,
        costs=labelled_costs,
        scores=summary,
        lines=lines,
        methods=methods,
        reference=named,
        chosen=reference is not None,
        shared=", ".join(shared_settings(main)),
        compared=compared,
        marks=scores.with_guesses(comparison.marks(compared), summary),
        notes=notes,
        resamples=resamples,
        all_rows=rows,
        all_costs=costs,
        course=during,
        whole=names.whole,
        **readers,
    )


def verdicts_of(
    rows: "pd.DataFrame", costs: "pd.DataFrame", resamples: Resamples, stated: StatedClaims, **how: Any
) -> list[Verdict]:
    """Judge the claims of each suite by the results, without those of scenarios. how: as claims.judge() takes it."""
    if not stated:
        return []
    if len(rows):
        rows, costs, _ = label_lines(*_without_scenarios(rows, costs))
    return [
        verdict
        for suite, of_suite in stated.items()
        for verdict in claims.judge(suite, of_suite, rows, costs, resamples, **how)
    ]


def _without_scenarios(rows: "pd.DataFrame", costs: "pd.DataFrame") -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """Leave out rows that belong to a scenario alone, and the costs of their cells."""
    main, others = scenarios.split_scenarios(rows)
    own_costs = costs[~costs["cell"].isin(set(others["cell"]) - set(main["cell"]))] if len(costs) else costs
    return main, own_costs


def data_files(results: Results) -> "Mapping[str, pd.DataFrame]":
    """Lay out the numbers behind the report, by file name; names are whole."""
    files = {
        "results.csv": results.all_rows,
        "costs.csv": results.all_costs,
        "scores.csv": scores.scores_frame(results),
    }
    if len(of_pairs := comparison.differences_frame(results.compared)):
        files["differences.csv"] = of_pairs
    of_classes = classes.by_class(results.all_rows, results.notes)
    if len(of_classes):
        files["classes.csv"] = of_classes

    def written(value: Any) -> Any:
        if isinstance(value, str):
            return results.whole.get(value, value)
        return json.dumps(value) if isinstance(value, dict) else value

    return {name: with_texts(frame, written) for name, frame in files.items()}
