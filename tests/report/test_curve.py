"""Scores over how much was learned from, as the notes of the evaluations name such a curve."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from benchmark.evaluation.replicates import Score, pooled
from benchmark.report.curve import chart, points, tables_of, with_draws
from benchmark.report.plots import PALETTE
from benchmark.report.render import Table, escape
from benchmark.report.results import label_lines
from benchmark.report.scores import summarise
from benchmark.report.sections import write_report
from tests.report.fakes import NAMES, synthetic
from tests.report.reading import assert_legible, texts

CURVE = {
    "images a class": {"1": "accuracy@1", "2": "accuracy@2", "16": "accuracy@16"},
    "share of train": {"10%": "accuracy", "100%": "accuracy@100%"},
}
DRAWS = {"accuracy@1": [-0.02, 0.02], "accuracy@2": [-0.01, 0.01], "accuracy@16": [0.0, 0.0], "accuracy": [-0.03, 0.03]}
"""By metric, how far from its value each draw is; what is not here has a single draw."""
COUNTS = {
    "accuracy@1": {"images": [4, 4], "groups": [4, 3]},
    "accuracy": {"images": [44, 1047], "groups": [20, 20]},
    "accuracy@100%": {"images": [9000], "groups": [300]},
}
"""By metric, how many images and groups each draw has; what is not here is not counted."""


def results(methods: int = 2, datasets: int = 1, seeds: int = 1) -> tuple[pd.DataFrame, Any]:
    """Rows of few_shot, the last of several methods a baseline, where method m has (10 m + p + s) percent at point p
    of the curve and seed s, and the draws of seed s are (s + 1) times as far apart as DRAWS says; and their notes.
    """
    rows, _ = synthetic(methods, datasets, seeds)
    rows = rows[(rows["task"] == "few_shot") & rows["primary"]].assign(metric="accuracy")
    last = list(rows["method"])[-1] if methods > 1 else None
    rows = rows.assign(evaluation=rows["dataset"], role=rows["method"].map({last: "baseline"}), chance=0.0625)
    metrics = [metric for of_axis in CURVE.values() for metric in of_axis.values()]
    rows = pd.concat(
        [
            rows.assign(
                metric=metric,
                primary=metric == "accuracy",
                value=[
                    (10 * NAMES.index(method) + p + seed) / 100 for method, seed in zip(rows["method"], rows["seed"])
                ],
            )
            for p, metric in enumerate(metrics)
        ]
    )
    rows["of_draws"] = [
        [value + (1 + seed) * off for off in DRAWS.get(metric, [0.0])]
        for value, seed, metric in zip(rows["value"], rows["seed"], rows["metric"])
    ]
    return rows, lambda *_: {"": {"curve": CURVE, "drawn": COUNTS}}


def found(rows: pd.DataFrame, notes: Any) -> tuple[pd.DataFrame, list[str]]:
    labelled, _, lines = label_lines(with_draws(rows, notes), pd.DataFrame())
    return points(labelled, notes), lines


def tables(rows: pd.DataFrame, notes: Any) -> list[Table]:
    along, lines = found(rows, notes)
    return list(tables_of(along, "few_shot", lines))


def cells(row: tuple[str, list[Any]]) -> list[tuple[str, str]]:
    return [(cell.text, cell.under) for cell in row[1]]


def test_a_table_a_dataset_with_the_spread_over_draws() -> None:
    table, other = tables(*results(methods=3, datasets=2))
    assert table.title == "few_shot on phantom_chest: accuracy by images a class and share of train, in percent"
    assert other.title.startswith("few_shot on phantom_mammo: ")
    axes = ["images a class"] * 3 + ["share of train"] * 2
    assert table.columns == list(zip(["1", "2", "16", "10%", "100%"], axes))
    # Two draws d apart have a standard deviation of d / sqrt(2).
    unders = ["± 2.8", "± 1.4", "± 0.0", "± 4.2", ""]
    assert [row[0] for row in table.rows] == ["clip", "msd"]
    assert cells(table.rows[0]) == list(zip(["0.0", "1.0", "2.0", "3.0", "4.0"], unders))
    assert cells(table.rows[1]) == list(zip(["10.0", "11.0", "12.0", "13.0", "14.0"], unders))
    assert [cell.best for cell in table.rows[1][1]] == [True] * 5
    assert [row[0] for row in table.footer] == ["siglip", "chance", "train images", "train groups"]
    assert cells(table.footer[0]) == list(zip(["20.0", "21.0", "22.0", "23.0", "24.0"], unders))
    assert cells(table.footer[1]) == [("6.2", "")] * 5
    assert [text for text, _ in cells(table.footer[2])] == ["4", "—", "—", "44–1,047", "9,000"]
    assert [text for text, _ in cells(table.footer[3])] == ["3–4", "—", "—", "20", "300"]
    assert table.caption == (
        "One seed, for these weights; mean over 2 draws of train images; below: ± the standard deviation over draws, "
        "none of a single draw; train images, train groups: as many as were drawn, from the smallest draw to the "
        "largest; bold: highest of the methods in its column."
    )


def test_seeds_are_averaged_and_their_spreads_in_the_square() -> None:
    (table,) = tables(*results(seeds=2))
    # Spreads of 2.83 and 5.66 points: the root of the mean of their squares is 4.47.
    assert cells(table.rows[0])[0] == ("0.5", "± 4.5")
    assert table.caption.startswith("Mean over 2 seeds; mean over 2 draws")
    assert "the root of its mean square over seeds" in table.caption


def test_what_a_line_lacks_is_a_dash() -> None:
    rows, notes = results(methods=3)
    (table,) = tables(rows[(rows["metric"] != "accuracy@16") | (rows["method"] == "clip")], notes)
    assert [text for text, _ in cells(table.rows[1])] == ["10.0", "11.0", "—", "13.0", "14.0"]
    assert "; —: no result." in table.caption


def test_without_a_curve_there_is_none() -> None:
    rows, notes = results()
    for found_rows, found_notes in [(rows, lambda *_: {}), (rows.drop(columns="evaluation"), notes)]:
        labelled, _, _ = label_lines(found_rows, pd.DataFrame())
        assert points(labelled, found_notes).empty


def test_a_curve_needs_no_draws() -> None:
    rows, notes = results()
    rows = rows.drop(columns="of_draws")
    notes = lambda *_: {"": {"curve": CURVE}}  # noqa: E731
    assert with_draws(rows, notes) is rows
    (table,) = tables(rows, notes)
    assert {under for row in table.rows for _, under in cells(row)} == {""}
    assert table.caption == "One seed, for these weights."
    along, lines = found(rows, notes)
    assert not any("deviation" in text for text, _ in texts(chart(along, "few_shot", lines)))


@pytest.mark.parametrize(("methods", "datasets"), [(1, 1), (3, 2), (12, 5), (12, 12)])
def test_the_plot_is_legible_and_shows_the_numbers(methods: int, datasets: int) -> None:
    rows, notes = results(methods, datasets)
    along, lines = found(rows, notes)
    figure = chart(along, "few_shot", lines)
    assert_legible(figure)
    panels = [ax for ax in figure.axes if ax.axison]
    assert len(panels) == datasets
    bars = panels[0].containers
    assert len(bars) == 2 * methods  # a part of each curve on each axis
    places = [0.0, 1.0, 2.0, 4.0, 5.0]
    for part, at in ((0, slice(0, 3)), (1, slice(3, 5))):
        for line, bar in zip(lines, bars[part * methods : (part + 1) * methods]):
            x, y = bar.lines[0].get_data()
            np.testing.assert_allclose(y, (10 * NAMES.index(line) + np.arange(5))[at], atol=1e-9)
            assert np.abs(np.array(x) - places[at]).max() <= 0.25
            ends = np.array([segment[:, 1] for segment in bar.lines[2][0].get_segments() if len(segment)])
            half = 100 * np.sqrt(2) * np.array([0.02, 0.01, 0.0, 0.03, np.nan])[at]
            np.testing.assert_allclose(np.ptp(ends, axis=1) / 2, half[~np.isnan(half)], atol=1e-9)
    dashed = [line for line in panels[0].lines if line.get_linestyle() == "--"]
    assert [set(line.get_ydata()) for line in dashed] == [{6.25}] * 2


def test_baselines_look_unlike_methods() -> None:
    rows, notes = results(4)
    along, lines = found(rows.assign(role=rows["method"].map({"siglip": "baseline", "slip": "baseline"})), notes)
    curves = [bar.lines[0] for bar in chart(along, "few_shot", lines).axes[0].containers[:4]]
    assert [curve.get_color() for curve in curves[:2]] == PALETTE[:2]
    assert [curve.get_markerfacecolor() == "white" for curve in curves] == [False, False, True, True]
    assert len({(curve.get_color(), curve.get_marker()) for curve in curves}) == 4


def test_long_names_do_not_overlap() -> None:
    rows, notes = results(12, 3)
    rows["variant"] = "momentum=0.9, queue_size=16384, alpha=0.4, training.batch_size=512"
    rows["dataset"] = rows["dataset"].replace("phantom_mammo", "name_" * 12)
    along, lines = found(rows, notes)
    assert_legible(chart(along, "few_shot", [*lines]))


def test_groups_that_are_single_images_are_not_counted_twice() -> None:
    rows, _ = results()
    alike = {"accuracy@1": {"images": [4, 5], "groups": [4, 5]}}
    (table,) = tables(rows, lambda *_: {"": {"curve": CURVE, "drawn": alike}})
    assert [row[0] for row in table.footer] == ["msd", "chance", "train images"]
    assert "; train images: as many as were drawn, from" in table.caption


def test_what_draws_add_to_the_intervals_of_scores_is_counted_once() -> None:
    """The report estimates the draws' error from all lines: the rows' own intervals have it from five draws alone."""
    rows, notes = results(methods=1)
    rows = rows[rows["primary"]].assign(low=0.0, high=0.2, over_groups=[[0.01, 0.05]])
    labelled, _, _ = label_lines(with_draws(rows, notes), pd.DataFrame())
    (score,) = summarise(labelled).to_dict("records")
    (draws,) = rows["of_draws"]
    ((_, *expected),) = pooled([Score(np.array([0.03]), np.array([0.01]), np.array([0.05]), draws)])
    assert (score["low"], score["high"]) == pytest.approx(expected)
    parts = pd.concat([labelled.assign(part=part) for part in ("x", "y")])
    (score,) = summarise(parts).to_dict("records")
    assert (score["low"], score["high"]) == (0.0, 0.2)


def test_the_whole_report(tmp_path: Path) -> None:
    rows, notes = results(methods=3, datasets=2)
    terminal = Console(width=80, file=io.StringIO())
    page, results_file, *files = write_report(rows, pd.DataFrame(), tmp_path, terminal, notes=notes)
    assert {"few_shot-curve.png", "few_shot-curve.svg"} <= {file.name for file in files if file.stat().st_size}
    text = page.read_text(encoding="utf-8")
    assert "](plots/few_shot-curve.png)" in text
    for dataset in ("phantom_chest", "phantom_mammo"):
        title = f"few_shot on {dataset}: accuracy by images a class and share of train, in percent"
        assert f"## {escape(title)}\n" in text
    written = pd.read_csv(results_file)
    assert set(written["draws"]) == {1, 2}
    expected = written["metric"].map({name: np.sqrt(2) * max(offsets) for name, offsets in DRAWS.items()})
    np.testing.assert_allclose(written["spread"], expected, atol=1e-9)
    counts = written.loc[written["metric"] == "accuracy", ["train_images", "train_groups"]].drop_duplicates()
    assert counts.to_numpy().tolist() == [["[44, 1047]", "[20, 20]"]]
    assert written.loc[written["metric"] == "accuracy@2", "train_images"].isna().all()
