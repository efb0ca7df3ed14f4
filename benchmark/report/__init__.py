"""Rows in, a report out: tables in the terminal and in Markdown, plots, and the numbers as CSV."""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.common.errors import BenchError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import Console

    from benchmark.report.comparison import Resamples
    from benchmark.report.tables import Table

HOW_TO_READ = """\
## How to read this

- **Scores** are the primary metric of each kind of task in percent, the mean over seeds. `results.csv` has every metric
  of every seed as a fraction, with the method, its variant, the model, the suite, and the cell that it came from;
  `classes.csv` has likewise the recall and AUROC of each class, and its number of test examples (support).
- **Interval**: 95 %. For one seed, the bootstrap interval over the groups (patients) of the test set. For S seeds, two
  errors are added in quadrature on each side, that of a seed's interval and standard deviation over seeds / sqrt(S),
  with a quantile between the normal one and that of t with S - 1 degrees of freedom: two or three seeds say little
  about other seeds, and the interval shows it. Where a score is a mean of parts, so are the ends of its interval,
  which is cautious.
- **Bold** is the highest of the methods in its column, to the decimal shown, if it is above chance; a baseline below
  may be higher. It is no verdict: where intervals overlap widely, the table does not show that one line is better than
  another.
- **Differences** are of the same test examples under two lines: both are computed on the same bootstrap resamples of
  the test patients, so that what makes an image hard for both cancels; over S seeds, the variance between the
  differences of the seeds is added, and interval and p-value are between Student's t of the patients and that of the
  seeds; with two seeds they are cautious. No p is below 2^(1 - patients). The verdict corrects p for the number of
  tests in its table (Holm 1979): with `--reference`, one a line and dataset; without, all pairs of lines on each
  dataset, since the line that scored best is the reference, and any might have been. "No difference shown" is no proof
  that there is none.
- **Mean ranks** count datasets, each once, whatever the size of a difference (Friedman and Nemenyi; Demsar 2006).
- **Baselines** are evaluated like a method and stand below them: the **initial weights** that every method starts
  from; **untrained**, the same architecture with random weights, where the initial ones are not random; **raw pixels**,
  images averaged down to 16 x 16. **Majority** is the most common answer of the training set (VQA: of each type of
  question), **chance** what a scorer gets that knows nothing of the images. A score with † is not shown to beat the
  initial weights. **Examples** are those of the test set.
- **Mean** is over all datasets of the table; a line that lacks one has none.
- **Scenarios** make one thing difficult and hold each line against itself without that: the same seeds, settings,
  number of pairs and test images. Their lines stand in tables of their own, below the others.
- **± over draws** is how much a score depends on which training images were drawn: the standard deviation over draws.
  It is no interval of their mean. `results.csv` has it as `spread`, with the number of `draws`.
- **recall@K** is the hit rate: the share of queries with at least one correct item among the first K. All items with
  the same text are correct. The share of all correct items that are found is another definition, and not this one.
- **Quality against cost**: the mean over kinds of task of the mean over datasets, against the training time of a seed.
  No line has both a higher score and a shorter time than one on the **Pareto frontier**. Times compare only
  on the same device.
"""


def write_report(
    rows: "pd.DataFrame",
    costs: "pd.DataFrame",
    folder: Path,
    console: "Console",
    resamples: "Resamples" = lambda *_: None,
    reference: str | None = None,
    notes: Callable[[str, str], dict[str, Any]] = lambda *_: {},
) -> list[Path]:
    """Print the tables; write report.md, results.csv, costs.csv, classes.csv and plots/*.png, *.svg into ``folder``,
    which lies in that of the results.

    rows: one a method, variant, model, suite, seed, dataset, task, part and metric, as the store gives them; the tables
    and plots show the ``primary`` ones. costs: one a cell; may be empty. resamples: of the rows' evaluations, for the
    tests of differences. reference: the line that the others are compared with (a method's name where it has one
    line); default: that with the highest mean score. notes: of a cell's evaluation. Returns the files, report.md first.
    Raises ``BenchError`` when there is no primary row with a value, or no such reference.
    """
    from benchmark.report import breakdown, classes, comparison, curve, plots, scenarios, tables

    notes = cache(notes)
    nothing = BenchError(f"no results in {folder.parent}: first run `bench run --methods all --tasks all`")
    if rows.empty:
        raise nothing
    rows = curve.with_spread(rows, notes)
    main, others = scenarios.apart(rows)
    looks = list(scenarios.looks(rows, costs, resamples, notes))
    own_costs = costs[~costs["cell"].isin(set(others["cell"]) - set(main["cell"]))] if len(costs) else costs
    labelled, priced, lines = tables.label_lines(main, own_costs)
    scores = tables.summarise(labelled)
    if scores.empty and not looks:
        raise nothing
    if scores.empty and reference:
        raise BenchError(f"--reference {reference}: in scenarios, the only results here, a line is held against itself")
    chosen = comparison.find_reference(reference, labelled) if reference else comparison.default_reference(scores)
    methods = [line for line in lines if line not in set(labelled.loc[labelled["baseline"], "line"])]
    others = {line: chosen for line in methods if chosen and line != chosen}
    found = comparison.differences(labelled, others, resamples, picked=reference is None)
    unbeaten = comparison.unbeaten(labelled, resamples)
    images = folder / "plots"
    images.mkdir(parents=True, exist_ok=True)
    page, results, spent = folder / "report.md", folder / "results.csv", folder / "costs.csv"
    rows.to_csv(results, index=False)
    costs.map(lambda value: json.dumps(value) if isinstance(value, dict) else value).to_csv(spent, index=False)
    files = [page, results, spent]
    if len(of_class := classes.by_class(rows, notes)):
        files.append(folder / "classes.csv")
        of_class.to_csv(files[-1], index=False)
    text = ["# Report\n"]

    def show(table: "Table") -> None:
        for part in tables.to_terminal(table, console.width):
            console.print(part)
        text.append(tables.to_markdown(table))

    def draw(figure: "Figure", name: str, title: str) -> None:
        png, svg = plots.save(figure, images / re.sub(r"[^\w-]+", "-", name))
        files.extend([png, svg])
        text.append(f"![{tables.escape(title)}](plots/{png.name})\n\n[SVG](plots/{svg.name})\n")

    for task in tables.natural(scores["task"].unique()):
        # Where a task has been measured on baselines alone, these are drawn.
        drawn = [line for line in methods if line in set(scores.loc[scores["task"] == task, "line"])] or lines
        meaning = tables.defined(labelled, task, notes)
        table = tables.score_table(scores, task, lines, unbeaten, meaning)
        table.caption += tables.ceilings(labelled, task, notes) + classes.left_out(labelled, task, notes)
        show(table)
        draw(plots.score_chart(scores, task, drawn), task, f"{task}: scores and intervals")
        if chosen and (found["task"] == task).any():
            show(comparison.difference_table(found, task, chosen, methods, picked=reference is None))
        for more in tables.secondary(labelled, task, meaning):
            also = comparison.unbeaten(more, resamples)
            show(tables.score_table(tables.summarise(more), task, lines, also, meaning))
        for column, kinds in breakdown.breakdowns(labelled, task, notes).items():
            for table in breakdown.tables_of(kinds, task, column, lines):
                show(table)
            draw(breakdown.chart(kinds, task, column, drawn), f"{task}-by-{column}", f"{task} by {column}")
        # In the terminal, a table a dataset more would hide the others.
        of_class = classes.by_class(labelled[labelled["task"] == task], notes)
        text.extend(tables.to_markdown(table) for table in classes.tables_of(of_class, lines))
        along = curve.points(labelled, task, notes)
        if len(along):
            text.extend(tables.to_markdown(table) for table in curve.tables_of(along, task, lines))
            draw(curve.chart(along, task, lines), f"{task}-curve", f"{task}: scores over what is learned from")
    rankings = comparison.rankings(scores, methods)
    if any(ranking.ranks for ranking in rankings):
        show(comparison.rank_table(rankings, methods))
        draw(plots.rank_chart(rankings, methods), "ranks", "mean ranks and critical difference")
    if missing := comparison.missing_ranks(rankings):
        console.print(missing + "\n", style="dim", highlight=False, markup=False)
        text.append(tables.escape(missing) + "\n")
    if len(priced):
        show(tables.cost_table(priced, lines))
        if by_source := tables.source_table(priced, lines):
            text.append(tables.to_markdown(by_source))
        points, pairs, left_out = plots.quality_and_cost(scores, labelled, priced)
        if len(points):
            draw(plots.cost_chart(points, pairs, lines), "quality-against-cost", "mean score against training time")
        if left_out:
            text.append(f"Not in the plot, as results are missing: {tables.escape(', '.join(left_out))}.\n")
    for look in looks:
        for table in look.tables:
            show(table)
        if look.figure:
            draw(look.figure, look.title, f"{look.title}: scores by condition")
    page.write_text("\n".join([*text, HOW_TO_READ]), encoding="utf-8")
    return files
