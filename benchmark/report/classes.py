"""What the notes of classifications say of single classes: how many examples each has, and how it was recognised."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.report.tables import MISSING, Cell, Table, natural, percent, span

if TYPE_CHECKING:
    import pandas as pd

Notes = Callable[[str, str], dict[str, Any]]
KEYS = ["suite", "model", "method", "variant", "pretraining", "seed", "dataset", "task", "part", "cell"]
VALUES = ["support", "recall", "auroc"]
MOST_CLASSES = 20
"""That a table is made of; a wider one is not read."""
MOST_NAMES = 5
"""That a sentence names."""


def by_class(rows: "pd.DataFrame", notes: Notes) -> "pd.DataFrame":
    """One row an evaluation, part and class: its columns of KEYS (and ``line`` and ``baseline``, where rows are
    labelled), class, support (test examples), recall and auroc (fractions, NaN where undefined); empty where no notes
    have a ``recall``. notes: of a cell's evaluation, by part.
    """
    import pandas as pd

    keys = [key for key in [*KEYS, "line", "baseline"] if key in rows]
    found: list[dict[str, Any]] = []
    for row, of_part in evaluations(rows, notes):
        for name in of_part.get("recall", {}):
            values = {value: of_part.get(value, {}).get(name) for value in VALUES}
            found.append({key: getattr(row, key) for key in keys} | {"class": name} | values)
    return pd.DataFrame(found, columns=[*keys, "class", *VALUES]).astype({"recall": float, "auroc": float})


def evaluations(rows: "pd.DataFrame", notes: Notes) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A row of each evaluation's part, and the notes of that."""
    if "evaluation" in rows:
        for row in rows.drop_duplicates(["cell", "evaluation", "part"]).itertuples():
            yield row, notes(str(row.cell), str(row.evaluation)).get(str(row.part), {})


def tables_of(found: "pd.DataFrame", order: Sequence[str]) -> Iterator[Table]:
    """Lines by classes, one table a dataset and part; then baselines and support. found: by_class() of labelled rows of
    one task.
    """
    for dataset in natural(found["dataset"].unique()):
        for (task, part), rows in found[found["dataset"] == dataset].groupby(["task", "part"]):
            names = list(dict.fromkeys(rows["class"]))
            if len(names) > MOST_CLASSES:
                continue
            mean = rows.groupby(["line", "class"])[["recall", "auroc"]].mean()
            cells = {
                line: [_cell(*mean.loc[(line, name)]) if (line, name) in mean.index else Cell() for name in names]
                for line in order
                if line in set(rows["line"])
            }
            baselines = set(rows.loc[rows["baseline"], "line"])
            support = [Cell(span(rows.loc[rows["class"] == name, "support"])) for name in names]
            seeds = rows.groupby("line")["seed"].nunique()
            said = f"Mean over {span(seeds)} seeds" if seeds.max() > 1 else "One seed"
            if any(cell.text == MISSING for of_line in cells.values() for cell in of_line):
                said += f"; {MISSING}: no test example of that class, or no result"
            yield Table(
                f"{task} on {dataset}{f', {part}' if part else ''}: recall by class, in percent",
                [(name, "") for name in names],
                [(line, of_line) for line, of_line in cells.items() if line not in baselines],
                [*((line, of_line) for line, of_line in cells.items() if line in baselines), ("support", support)],
                f"{said}; beneath: AUROC of the class against the rest. Recall is the share of a class's test examples "
                "that are given to it, support their number. No intervals here: a share of n examples is known to "
                "about ± 100 / √n points (95 %).",
            )


def _cell(recall: float, auroc: float) -> Cell:
    return Cell(percent(recall), "" if np.isnan(auroc) else percent(auroc))


def left_out(rows: "pd.DataFrame", task: str, notes: Notes) -> str:
    """Sentences on the classes, examples and datasets that a task's scores leave out, by dataset; else empty. rows:
    labelled.
    """
    rows = rows[rows["task"] == task]
    scored = set(rows.loc[rows["primary"].astype(bool) & rows["value"].notna(), "dataset"])
    of_dataset = {(row.dataset, row.part): of_part for row, of_part in evaluations(rows, notes)}
    said = []
    for dataset, part in sorted(of_dataset):
        of_part = of_dataset[dataset, part]
        name, support = f"{dataset}, {part}" if part else dataset, of_part.get("support", {})
        if absent := of_part.get("absent"):
            said.append(f"{name}: {_share(absent, support)} absent in test and left out of means over classes.")
        auroc = of_part.get("auroc", {})
        if everywhere := [name for name, value in auroc.items() if value is None and support[name]]:
            said.append(f"{name}: {_share(everywhere, support)} without negatives in test and left out of mean AUROC.")
        if unknown := of_part.get("unknown_label"):
            said.append(f"{name}: test examples without a known label are left out ({unknown:,}).")
        if dataset not in scored and of_part.get("undefined"):
            said.append(f"{name} is not in the table: undefined there are {', '.join(of_part['undefined'])}.")
    return "".join(f" {sentence}" for sentence in said)


def _share(names: Sequence[str], support: dict[str, int]) -> str:
    """``2 of 5 classes (a, b) are``."""
    listed = ", ".join(names[:MOST_NAMES])
    if len(names) > MOST_NAMES:
        listed += f" and {len(names) - MOST_NAMES} more"
    return f"{len(names)} of {len(support)} classes ({listed}) {'is' if len(names) == 1 else 'are'}"
