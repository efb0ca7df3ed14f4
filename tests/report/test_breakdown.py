"""Scores by kind of example, as the notes of the evaluations break them down."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection
from rich.console import Console

from benchmark.report.breakdown import breakdowns, chart, tables_of
from benchmark.report.render import Table, escape, to_markdown
from benchmark.report.results import label_lines, natural
from benchmark.report.sections import write_report
from tests.report.fakes import synthetic
from tests.report.reading import assert_legible, parsed, printed, texts

KINDS = {"phantom_chest": {"side": 40, "count": 100, "size": 40}, "phantom_mammo": {"shape": 70, "organ": 9}}


def results(kinds: dict[str, dict[str, int]] = KINDS, methods: int = 2, seeds: int = 2) -> tuple[pd.DataFrame, Any]:
    """Rows of a task, the last of several methods a baseline; and notes in which the accuracy of method m, seed s
    and kind k is (10 m + 2 s + k) percent, and the majority's (50 + k) percent.
    """
    rows, _ = synthetic(methods, len(kinds), seeds)
    rows = rows[rows["task"] == "vqa"]
    last = list(rows["method"])[-1] if methods > 1 else None
    rows = rows.assign(evaluation=rows["dataset"], role=rows["method"].map({last: "baseline"}))

    def notes(cell: str, evaluation: str) -> dict[str, Any]:
        m, s = int(cell[:4], 16), int(cell[4:], 16)
        of_dataset = {
            kind: {"n": n, "accuracy": (10 * m + 2 * s + k) / 100, "majority": (50 + k) / 100}
            for k, (kind, n) in enumerate(kinds[evaluation].items())
        }
        return {"": {"ceiling": 1.0, "vocabulary": 5, "breakdown": {"question_type": of_dataset}}}

    return rows, notes


def found(rows: pd.DataFrame, notes: Any) -> tuple[pd.DataFrame, list[str]]:
    labelled, _, lines = label_lines(rows, pd.DataFrame())
    return breakdowns(labelled, notes)["question_type"], lines


def tables(rows: pd.DataFrame, notes: Any) -> list[Table]:
    of_column, lines = found(rows, notes)
    return list(tables_of(of_column, "vqa", "question_type", lines))


def cells(row: tuple[str, list[Any]]) -> list[str]:
    return [cell.text for cell in row[1]]


def test_a_table_a_dataset_with_the_mean_over_seeds() -> None:
    chest, mammo = tables(*results())
    assert chest.title == "vqa on phantom_chest: accuracy by question_type, in percent"
    assert chest.columns == [("count", ""), ("side", ""), ("size", "")]
    assert [(row[0], cells(row)) for row in chest.rows] == [("clip", ["2.0", "1.0", "3.0"])]
    assert [(row[0], cells(row)) for row in chest.footer] == [
        ("msd", ["12.0", "11.0", "13.0"]),
        ("majority", ["51.0", "50.0", "52.0"]),
        ("examples", ["100", "40", "40"]),
    ]
    assert chest.caption.startswith("Mean over 2 seeds. Without intervals")
    assert mammo.columns == [("shape", ""), ("organ", "")]
    assert cells(mammo.rows[0]) == ["1.0", "2.0"]
    assert tables(*results(seeds=1))[0].caption.startswith("One seed, for these weights. ")


def test_a_line_without_notes_has_no_result() -> None:
    rows, notes = results(methods=3, seeds=1)
    chest, _ = tables(rows, lambda cell, evaluation: {} if cell.startswith("0001") else notes(cell, evaluation))
    assert [row[0] for row in chest.rows] == ["clip"]
    partial = {"": {"breakdown": {"question_type": {"side": {"n": 40, "accuracy": 0.25}}}}}
    chest, _ = tables(rows, lambda cell, evaluation: partial if cell.startswith("0001") else notes(cell, evaluation))
    assert cells(chest.rows[1]) == ["—", "25.0", "—"]
    assert "; —: no result." in chest.caption
    assert cells(chest.footer[1]) == ["51.0", "50.0", "52.0"]


def test_of_a_guess_that_lines_make_differently_the_highest_is_shown() -> None:
    rows, notes = results(methods=3)

    def guessed(cell: str, evaluation: str) -> dict[str, Any]:
        of_part = notes(cell, evaluation)
        for numbers in of_part[""]["breakdown"]["question_type"].values():
            numbers["own guess"] = 0.4 + int(cell[:4], 16) / 10 + int(cell[4:], 16) / 50
        return of_part

    chest, _ = tables(rows, guessed)
    # The third of the lines guesses 60 and 62 % with two seeds.
    assert [(row[0], cells(row)) for row in chest.footer[1:3]] == [
        ("majority", ["51.0", "50.0", "52.0"]),
        ("own guess", ["61.0"] * 3),
    ]
    labelled, _, lines = label_lines(rows, pd.DataFrame())
    figure = chart(breakdowns(labelled, guessed)["question_type"], "vqa", "question_type", lines)
    assert any("stroke: the best guess without the images" in text for text, _ in texts(figure))
    strokes = figure.axes[0].collections[1].get_segments()
    assert [float(segment[0, 0]) for segment in strokes] == pytest.approx([61.0] * 3)


def test_notes_without_a_majority_and_with_other_counts() -> None:
    rows, _ = results(seeds=1)

    def notes(cell: str, _: str) -> dict[str, Any]:
        n = 1000 + int(cell[:4], 16)
        return {"": {"breakdown": {"size": {kind: {"n": n, "accuracy": 0.5} for kind in "ab"}}}}

    labelled, _, lines = label_lines(rows, pd.DataFrame())
    (column,) = breakdowns(labelled, notes).values()
    table, _ = tables_of(column, "vqa", "size", lines)
    assert [row[0] for row in table.footer] == ["msd", "examples"]
    assert cells(table.footer[-1]) == ["1,000–1,001"] * 2
    assert_legible(chart(column, "vqa", "size", lines))


def test_one_kind_is_no_breakdown() -> None:
    rows, notes = results({"phantom_chest": {"": 300}, "phantom_mammo": {"shape": 70, "": 9}})
    (mammo,) = tables(rows, notes)
    assert mammo.title.startswith("vqa on phantom_mammo")
    assert mammo.columns == [("shape", ""), ("no question_type", "")]
    labelled, _, _ = label_lines(rows, pd.DataFrame())
    assert breakdowns(labelled, lambda *_: {}) == {}
    assert breakdowns(labelled.drop(columns="evaluation"), notes) == {}


def test_parts_have_tables_of_their_own() -> None:
    rows, notes = results(seeds=1)
    parts = pd.concat([rows.assign(part=part) for part in ("b", "a")])
    titles = [table.title.split(":")[0] for table in tables(parts, lambda *key: dict.fromkeys("ab", notes(*key)[""]))]
    assert titles == [f"vqa on {name}, {part}" for name in KINDS for part in "ab"]


def test_a_kind_is_shown_as_it_is_written() -> None:
    kinds = ["<b>left</b> | right", "**x** _y_ $z$", "[bold]q[/bold]\nr", "attribute/other, presence_of_abnormality"]
    rows, notes = results({"phantom_chest": dict.fromkeys(kinds, 40), "phantom_mammo": KINDS["phantom_mammo"]})
    chest, _ = tables(rows, notes)
    shown = [" ".join(kind.split()) for kind in natural(kinds)]
    assert [text for text, _ in parsed(to_markdown(chest))][1 : 1 + len(kinds)] == shown
    text = printed(chest)
    assert max(map(len, text.splitlines())) <= 80
    assert "<b>left</" in text
    assert "[bold]q[/" in text
    column, lines = found(rows, notes)
    figure = chart(column, "vqa", "question_type", lines)
    assert_legible(figure)
    assert {f"{kind}(40)".replace(" ", "") for kind in shown} <= {"".join(text.split()) for text, _ in texts(figure)}


@pytest.mark.parametrize(("methods", "kinds"), [(1, 2), (4, 12), (12, 40)])
def test_the_plot_is_legible_and_shows_the_numbers(methods: int, kinds: int) -> None:
    many = {f"kind {k}, and more": 400 - k for k in range(kinds)}
    rows, notes = results({"phantom_chest": many, "phantom_mammo": KINDS["phantom_mammo"]}, methods)
    column, lines = found(rows, notes)
    figure = chart(column, "vqa", "question_type", lines)
    assert_legible(figure)
    chest = figure.axes[0]
    assert [label.get_text().split()[-1] for label in chest.get_yticklabels()] == [f"({n})" for n in many.values()]
    markers = [c for c in chest.collections if isinstance(c, PathCollection)]
    assert len(markers) == methods
    for line, marker in zip(lines, markers):
        own = column[(column["dataset"] == "phantom_chest") & (column["line"] == line)]
        expected = 100 * own.groupby("kind")["value"].mean()[list(many)]
        np.testing.assert_allclose(marker.get_offsets()[:, 0], expected)
    strokes = [c for c in chest.collections if isinstance(c, LineCollection)][-1]
    np.testing.assert_allclose([path.vertices[0, 0] for path in strokes.get_paths()], 50 + np.arange(kinds))


def test_the_whole_report(tmp_path: Path) -> None:
    rows, notes = results()
    terminal = Console(width=80, file=io.StringIO())
    page, *files, _ = write_report(rows, pd.DataFrame(), tmp_path, terminal, notes=notes)
    assert [file.name for file in files[-2:]] == ["vqa-by-question_type.png", "vqa-by-question_type.svg"]
    assert all(file.stat().st_size for file in files[-2:])
    text = page.read_text(encoding="utf-8")
    assert "](plots/vqa-by-question_type.png)" in text
    for dataset in KINDS:
        title = f"vqa on {dataset}: accuracy by question_type, in percent"
        assert f"\n{title}\n" in terminal.file.getvalue()  # type: ignore[attr-defined]
        assert f"## {escape(title)}\n" in text
    assert max(map(len, terminal.file.getvalue().splitlines())) <= 80  # type: ignore[attr-defined]
