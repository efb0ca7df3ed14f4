"""What is said of single classes: those that scores leave out, and how each was recognised."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from benchmark.evaluation.metrics import classification
from benchmark.report.classes import MOST_CLASSES, by_class, left_out, tables_of
from benchmark.report.render import Table
from benchmark.report.results import label_lines
from benchmark.report.sections import write_report
from tests.report.fakes import synthetic

NAMES = ["ant", "bee", "cat", "dog", "elk"]


def probe(label: list[int], names: list[str] = NAMES, predicted: list[int] | None = None) -> dict[str, Any]:
    """The notes of a classification: by default, each example's class has the highest score."""
    scores = np.eye(len(names))[predicted or label]
    ids = [str(i) for i in range(len(label))]
    found = classification(
        ids=ids, groups=ids, scores=scores, label=np.array(label), classes=names, scale=1.0, multi_label=False
    )
    return {"": found.notes}


def results(methods: int = 2, datasets: int = 1, seeds: int = 1) -> pd.DataFrame:
    """Rows of linear_probe, the last of several methods a baseline."""
    rows, _ = synthetic(methods, datasets, seeds)
    rows = rows[(rows["task"] == "linear_probe") & rows["primary"]]
    last = list(rows["method"])[-1] if methods > 1 else None
    return rows.assign(evaluation=rows["dataset"], role=rows["method"].map({last: "baseline"}))


def labelled(rows: pd.DataFrame) -> pd.DataFrame:
    return label_lines(rows, pd.DataFrame())[0]


def tables(rows: pd.DataFrame, notes: Any) -> list[Table]:
    named, _, lines = label_lines(rows, pd.DataFrame())
    return list(tables_of(by_class(named, notes), lines))


def said(notes: dict[str, Any]) -> str:
    return left_out(labelled(results()), lambda *_: notes)


def test_absent_classes_are_named() -> None:
    assert said(probe([0, 1, 2, 3, 4])) == ""
    assert said(probe([0, 0, 2, 3, 3])) == (
        " phantom_chest: 2 of 5 classes (bee, elk) are absent in test and left out of means over classes."
    )
    assert "1 of 5 classes (elk) is absent in test" in said(probe([0, 1, 2, 3, 3]))
    many = [f"c{i}" for i in range(12)]
    assert "7 of 12 classes (c5, c6, c7, c8, c9 and 2 more) are absent" in said(probe([0, 1, 2, 3, 4], many))
    assert left_out(labelled(results()).drop(columns="evaluation"), lambda *_: probe([0, 1])) == ""


def test_unknown_labels_and_classes_without_negatives_are_named() -> None:
    assert said(probe([0, 1, 2, 3, 4, -1, -1])) == (
        " phantom_chest: test examples without a known label are left out (2)."
    )
    everywhere = said(probe([0, 0], ["ant", "bee"]))
    assert "1 of 2 classes (ant) is without negatives in test and left out of mean AUROC." in everywhere


def test_a_dataset_without_the_primary_metric_is_named() -> None:
    rows = results(datasets=2)
    rows = rows.assign(primary=rows["dataset"] != "phantom_mammo")
    text = left_out(labelled(rows), lambda *_: probe([0, 0], ["ant", "bee"]))
    assert "phantom_mammo is not in the table because these metrics are undefined there: macro_auroc." in text
    assert "phantom_chest is not" not in text


def test_a_row_a_class_with_support_recall_and_auroc() -> None:
    rows = results(methods=2, seeds=2)
    found = by_class(rows, lambda *_: probe([0, 0, 1, 2], NAMES[:4], predicted=[0, 1, 1, 1]))
    keys = ["method", "seed", "dataset", "task", "class", "support", "recall", "auroc"]
    assert set(keys) <= set(found.columns)
    assert len(found) == 2 * 2 * 4
    clip = found[(found["method"] == "clip") & (found["seed"] == 1)].set_index("class")
    assert clip["support"].to_dict() == {"ant": 2, "bee": 1, "cat": 1, "dog": 0}
    assert clip["recall"].to_dict() == {"ant": 0.5, "bee": 1.0, "cat": 0.0, "dog": pytest.approx(np.nan, nan_ok=True)}
    # ant: of 2 x 2 pairs, the one that is recognised beats both negatives, the other ties with them.
    assert clip["auroc"]["ant"] == 0.75
    assert by_class(rows, lambda *_: {"": {"support": {"ant": 3}, "absent": []}}).empty
    assert by_class(rows.drop(columns="evaluation"), lambda *_: probe([0])).empty


def test_a_table_a_dataset_with_the_mean_over_seeds() -> None:
    def notes(cell: str, _: str) -> dict[str, Any]:
        return probe([0, 0, 1, 2], NAMES[:4], predicted=[0, int(cell[4:], 16), 1, 1])

    (one, other) = tables(results(methods=2, datasets=2, seeds=2), notes)
    assert one.title == "linear_probe on phantom_chest: recall by class, in percent"
    assert other.title.startswith("linear_probe on phantom_mammo: ")
    assert [name for name, _ in one.columns] == NAMES[:4]
    assert [row[0] for row in one.rows] == ["clip"]
    assert [row[0] for row in one.footer] == ["msd", "support"]
    # Both of two ants in seed 0, one in seed 1; below, AUROCs of 1 and 0.75.
    assert [cell.text for cell in one.rows[0][1]] == ["75.0", "100.0", "0.0", "—"]
    assert one.rows[0][1][0].under == "87.5"
    assert [cell.text for cell in one.footer[1][1]] == ["2", "1", "1", "0"]
    assert one.caption.startswith("Mean over 2 seeds; —: no test example of that class, or no result; below: AUROC")


def test_no_table_of_too_many_classes() -> None:
    many = [f"c{i}" for i in range(MOST_CLASSES + 1)]
    assert len(tables(results(), lambda *_: probe([0, 1], many[:-1]))) == 1
    assert tables(results(), lambda *_: probe([0, 1], many)) == []


def test_the_whole_report(tmp_path: Path) -> None:
    terminal = Console(width=80, file=io.StringIO())
    notes = probe([0, 0, 2, 3, 3])
    page, *files = write_report(results(3, 2), pd.DataFrame(), tmp_path, terminal, notes=lambda *_: notes)
    assert tmp_path / "classes.csv" in files
    written = pd.read_csv(tmp_path / "classes.csv")
    assert len(written) == 3 * 2 * 5
    assert list(written["class"][:5]) == NAMES
    caption = "phantom_mammo: 2 of 5 classes (bee, elk) are absent in test and left out of means over classes."
    assert caption in " ".join(terminal.file.getvalue().split())  # type: ignore[attr-defined]
    text = page.read_text(encoding="utf-8")
    assert "## linear\\_probe on phantom\\_chest: recall by class, in percent\n" in text
