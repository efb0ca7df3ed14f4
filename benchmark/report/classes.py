"""The scores of single classes: how many examples each has, and how well it was recognised."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmark.report.render import MISSING, Cell, Table, over_seeds, percent, span
from benchmark.report.results import NotesOf, Results, measurements, natural, present

if TYPE_CHECKING:
    import pandas as pd

KEYS = ["suite", "model", "arm", "method", "variant", "pretraining", "seed", "dataset", "task", "part", "cell"]
VALUES = ["support", "recall", "auroc"]
MOST_CLASSES = 20
"""The most classes in a table: wider ones are unreadable."""
MOST_NAMES = 5
"""The most that a sentence names."""


def scores_by_class(results: Results) -> Iterator[Table]:
    """Show recall and AUROC of each class in a kind of task: a table per dataset."""
    yield from tables_of(by_class(results.rows, results.notes), results.lines)


def by_class(rows: "pd.DataFrame", notes: NotesOf) -> "pd.DataFrame":
    """Collect the scores of single classes: one row per evaluation, part and class.

    Returns the columns KEYS of the rows (with ``line`` and ``baseline``, where rows are labelled), class, support (test
    examples), recall and auroc (fractions, NaN where undefined). Empty where no notes have a ``recall``.
    """
    import pandas as pd

    keys = [key for key in [*KEYS, "line", "baseline"] if key in rows]
    scores = [
        {key: getattr(row, key) for key in keys}
        | {
            "class": name,
            "support": of_part.get("support", {}).get(name),
            "recall": recall,
            "auroc": of_part.get("auroc", {}).get(name),
        }
        for row, of_part in measurements(rows, notes)
        for name, recall in of_part.get("recall", {}).items()
    ]
    return pd.DataFrame(scores, columns=[*keys, "class", *VALUES]).astype({"recall": float, "auroc": float})


def tables_of(scores: "pd.DataFrame", order: Sequence[str]) -> Iterator[Table]:
    """Tabulate lines by classes, for each dataset and part; then baselines and support.

    scores: by_class() of labelled rows. In the terminal these tables would hide the others, so they are on the page
    only.
    """
    for dataset in natural(scores["dataset"].unique()):
        for (task, part), rows in scores[scores["dataset"] == dataset].groupby(["task", "part"]):
            names = list(dict.fromkeys(rows["class"]))
            if len(names) > MOST_CLASSES:
                continue
            mean = rows.groupby(["line", "class"])[["recall", "auroc"]].mean()
            cell_at = {at: _cell(*numbers) for at, numbers in zip(mean.index, mean.to_numpy().tolist())}
            cells = {line: [cell_at.get((line, name), Cell()) for name in names] for line in present(rows, order)}
            baselines = set(rows.loc[rows["baseline"], "line"])
            support = [Cell(span(rows.loc[rows["class"] == name, "support"])) for name in names]
            caption = over_seeds(rows.groupby("line")["seed"].nunique())
            if any(cell.text == MISSING for of_line in cells.values() for cell in of_line):
                caption += f"; {MISSING}: no test example of that class, or no result"
            yield Table(
                f"{task} on {dataset}{f', {part}' if part else ''}: recall by class, in percent",
                [(name, "") for name in names],
                [(line, of_line) for line, of_line in cells.items() if line not in baselines],
                [*((line, of_line) for line, of_line in cells.items() if line in baselines), ("support", support)],
                f"{caption}; below: AUROC of the class against the rest. Recall is the share of a class's test "
                "examples that are classified as such; support is their number. Without intervals: a share of n "
                "examples is accurate to about ± 100 / √n points (95 %), and to less where patients have several.",
                page_only=True,
            )


def _cell(recall: float, auroc: float) -> Cell:
    return Cell(percent(recall), "" if np.isnan(auroc) else percent(auroc))


def left_out(rows: "pd.DataFrame", notes: NotesOf) -> str:
    """Write sentences on the classes, examples and datasets that the scores leave out; empty where none are.

    rows: labelled, of one kind of task.
    """
    scored = set(rows.loc[rows["primary"].astype(bool) & rows["value"].notna(), "dataset"])
    of_dataset = {(row.dataset, row.part): of_part for row, of_part in measurements(rows, notes)}
    sentences = []
    for dataset, part in sorted(of_dataset):
        of_part = of_dataset[dataset, part]
        name, support = f"{dataset}, {part}" if part else dataset, of_part.get("support", {})
        if absent := of_part.get("absent"):
            sentences.append(f"{name}: {_share(absent, support)} absent in test and left out of means over classes.")
        auroc = of_part.get("auroc", {})
        if everywhere := [of_class for of_class, value in auroc.items() if value is None and support[of_class]]:
            share = _share(everywhere, support)
            sentences.append(f"{name}: {share} without negatives in test and left out of mean AUROC.")
        if unknown := of_part.get("unknown_label"):
            sentences.append(f"{name}: test examples without a known label are left out ({unknown:,}).")
        if dataset not in scored and (undefined := of_part.get("undefined")):
            sentences.append(
                f"{name} is not in the table because these metrics are undefined there: {', '.join(undefined)}."
            )
    return "".join(f" {sentence}" for sentence in sentences)


def _share(names: Sequence[str], support: Mapping[str, int]) -> str:
    """Name some classes as a share of all: ``2 of 5 classes (a, b) are``."""
    listed = ", ".join(names[:MOST_NAMES])
    if len(names) > MOST_NAMES:
        listed += f" and {len(names) - MOST_NAMES} more"
    return f"{len(names)} of {len(support)} classes ({listed}) {'is' if len(names) == 1 else 'are'}"
