"""Matrices of a grid: which cells they have, and what the numbers in them are means of."""

import io
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from rich.console import Console

from benchmark.report.sections import write_report
from tests.report.fakes import DATASETS, synthetic

SETS = DATASETS[:2]


def report(values: Mapping[str, Mapping[str, float]], folder: Path) -> str:
    """Write a report of simclr's zero-shot scores: by variant, the value on each of two datasets."""
    rows, _ = synthetic(1, 2, 1)
    rows = rows[(rows["task"] == "zero_shot_classification") & rows["primary"]]
    rows = pd.concat(
        [
            rows.assign(
                method="simclr", variant=variant, cell=variant, value=rows["dataset"].map(dict(of_set)), chance=0.0
            )
            for variant, of_set in values.items()
        ]
    )
    files = write_report(rows, pd.DataFrame(), folder, Console(file=io.StringIO(), width=120))
    return files[0].read_text()


def matrix(text: str) -> list[list[str]]:
    """The lines of the grid's table, without its header."""
    part = text.split("## zero\\_shot\\_classification: simclr by ")[1]
    rows = [line for line in part.splitlines() if line.startswith("|")]
    end = next(number for number, line in enumerate(part.splitlines()) if number > 3 and not line.startswith("|"))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in rows[: end - 2]]
    return [[cell.partition("<br>")[0] for cell in line] for line in cells[2:]]


def test_on_pretraining_sets_a_column_shows_its_own_set(tmp_path: Path) -> None:
    values = {
        f"weight={weight}, pretraining={name}": {SETS[0]: score / 100, SETS[1]: (score + 50) / 100}
        for score, (weight, name) in enumerate([(w, s) for w in ("0", "0.5", "10") for s in SETS], 10)
    }
    text = report(values, tmp_path)
    assert "simclr by weight and pretraining" in text
    assert matrix(text) == [
        ["weight=0", "10.0", "61.0"],
        ["weight=0.5", "12.0", "63.0"],
        ["weight=10", "**14.0**", "**65.0**"],
    ]
    assert "on the set that the column names" in text


def test_other_settings_show_the_mean_over_datasets(tmp_path: Path) -> None:
    values = {
        f"weight={weight}, training.warmup={warmup}": {SETS[0]: weight / 10, SETS[1]: warmup}
        for weight in (1, 2)
        for warmup in (0.1, 0.3)
    }
    text = report(values, tmp_path)
    assert matrix(text) == [["weight=1", "10.0", "20.0"], ["weight=2", "**15.0**", "**25.0**"]]
    assert "on the mean over the datasets" in text


def test_a_grid_of_one_setting_has_no_matrix(tmp_path: Path) -> None:
    values = {f"weight={weight}": dict.fromkeys(SETS, weight / 10) for weight in (1, 2, 3, 4)}
    assert "simclr by " not in report(values, tmp_path)
