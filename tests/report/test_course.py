"""Scores in the course of trainings and by budget: what crosses, what still changes, and what the pictures show."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from benchmark.report.course import Course, compare, crossings, draw, gain_differences, pool
from benchmark.report.plots import STYLE
from benchmark.report.sections import write_report

GROUPS, RESAMPLES, SEEDS = 200, 300, 3
Curves = Mapping[str, Mapping[float, float]]


class Drawn:
    """Rows of curves with right and wrong answers per example, and their resamples of the same groups."""

    def __init__(self, curves: Curves, noise: float = 0.01) -> None:
        self.rows: list[dict[str, Any]] = []
        self.kept: dict[tuple[str, str], np.ndarray] = {}
        rng = np.random.default_rng(0)
        hard = rng.random(GROUPS)
        draws = np.random.default_rng(1).integers(GROUPS, size=(RESAMPLES, GROUPS))
        for line, values in curves.items():
            for point, value in values.items():
                for seed in range(SEEDS):
                    right = (hard + rng.normal(0, noise, GROUPS) < value).astype(float)
                    cell, evaluation = f"{line}-{seed}", f"e-{point}"
                    self.kept[cell, evaluation] = right[draws].mean(axis=1)[None]
                    self.rows.append(
                        {
                            "suite": "s",
                            "model": "m",
                            "arm": line,
                            "method": line,
                            "variant": "",
                            "line": line,
                            "baseline": False,
                            "seed": seed,
                            "cell": cell,
                            "evaluation": evaluation,
                            "dataset": "data",
                            "task": "retrieval",
                            "part": "",
                            "metric": "recall",
                            "primary": True,
                            "value": right.mean(),
                            "low": right.mean() - 0.05,
                            "high": right.mean() + 0.05,
                            "chance": 0.1,
                            "n": GROUPS,
                            "groups": GROUPS,
                            "examples": "same",
                            "point": point,
                            "samples": 1000 * point,
                            "seconds": (10 + seed) * point,
                        }
                    )

    def course(self, kind: str = "share") -> Course:
        rows = pd.DataFrame(self.rows)
        return Course(kind, rows, sorted(rows["point"].unique()))

    def resamples(self, cell: str, evaluation: str, part: str, metric: str) -> np.ndarray | None:
        return self.kept.get((cell, evaluation))


def test_a_crossing_is_shown_where_both_sides_are_significant() -> None:
    drawn = Drawn(
        {"a": {0.25: 0.3, 0.5: 0.5, 1.0: 0.5}, "b": {0.25: 0.6, 0.5: 0.3, 1.0: 0.7}, "c": {0.25: 0.1, 1.0: 0.2}}
    )
    course = drawn.course()
    compared = compare(course, drawn.resamples)
    # a, b, c at 0.25 and 1; a and b at 0.5.
    assert len(compared) == 7
    assert set(compared["verdict"]) == {"better", "worse"}
    (found,) = crossings(course, compared)
    assert (found.line, found.other, found.shown) == ("a", "b", True)
    assert (found.before[0], found.after[0]) == (0.5, 1.0)
    values = course.rows.groupby(["line", "point"])["value"].mean()
    assert found.after[1] == pytest.approx(values["a", 1.0] - values["b", 1.0])
    assert found.before[1] == pytest.approx(values["a", 0.5] - values["b", 0.5])


def test_a_crossing_is_not_shown_where_one_side_is_noise() -> None:
    drawn = Drawn({"a": {0.5: 0.505, 1.0: 0.5}, "b": {0.5: 0.49, 1.0: 0.8}}, noise=0.3)
    course = drawn.course()
    compared = compare(course, drawn.resamples)
    assert compared.sort_values("point")["verdict"].tolist() == ["no difference shown", "worse"]
    values = course.rows.groupby(["line", "point"])["value"].mean()
    assert values["a", 0.5] > values["b", 0.5]
    (found,) = crossings(course, compared)
    assert not found.shown
    # Without resamples nothing is tested, and nothing is shown.
    untested = compare(Drawn({"a": {0.5: 0.6, 1.0: 0.5}, "b": {0.5: 0.4, 1.0: 0.8}}).course(), lambda *_: None)
    (found,) = crossings(course, untested)
    assert not found.shown


def test_gains_are_compared_by_hand() -> None:
    drawn = Drawn({"a": {0.5: 0.4, 1.0: 0.6}, "b": {0.5: 0.5, 1.0: 0.52}})
    rows = drawn.course().rows
    before, after = (rows[rows["point"] == point] for point in (0.5, 1.0))
    gains = gain_differences(before, after, [("a", "b")], drawn.resamples)
    mean = rows.groupby(["line", "point"])["value"].mean()
    (row,) = gains.itertuples()
    assert row.value == pytest.approx(mean["a", 1.0] - mean["a", 0.5] - mean["b", 1.0] + mean["b", 0.5])
    assert row.low < row.value < row.high
    assert row.p < 0.001
    same = Drawn({"a": {0.5: 0.4, 1.0: 0.5}, "b": {0.5: 0.5, 1.0: 0.6}}, noise=0.3)
    rows = same.course().rows
    before, after = (rows[rows["point"] == point] for point in (0.5, 1.0))
    assert gain_differences(before, after, [("a", "b")], same.resamples)["p"].iloc[0] > 0.05


def test_points_are_pooled_with_what_they_cost() -> None:
    drawn = Drawn({"a": {0.5: 0.4, 1.0: 0.6}})
    pooled = pool(drawn.course())
    assert pooled["samples"].tolist() == [500, 1000]
    assert pooled["seconds"].tolist() == [5.5, 11]
    assert pooled["value"].tolist() == pytest.approx(drawn.course().rows.groupby("point")["value"].mean().tolist())


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ((10_000, 160_000), ["10,000", "20,000", "50,000", "100,000"]),
        ((64, 1024), ["100", "200", "500", "1,000"]),
        ((200, 40_000), ["300", "1,000", "3,000", "10,000", "30,000"]),
        ((20, 500_000), ["100", "1,000", "10,000", "100,000"]),
    ],
)
def test_a_wide_axis_has_round_numbers(samples: tuple[float, float], expected: list[str]) -> None:
    rows = Drawn({"a": {0.5: 0.4, 1.0: 0.6}}).course().rows
    pooled = pool(Course("share", rows, [0.5, 1.0]))
    pooled = pooled.assign(samples=samples)
    with matplotlib.rc_context(STYLE):
        ax = Figure().subplots()
        draw(ax, pooled, "samples", {"a": "a"}, {"a": "black"})
    assert [tick.get_text() for tick in ax.get_xticklabels()] == expected
    assert not ax.get_xticklabels(minor=True)


def report(rows: pd.DataFrame, costs: pd.DataFrame, drawn: Drawn, folder: Path, **rest: Any) -> str:
    files = write_report(rows, costs, folder, Console(file=io.StringIO(), width=120), drawn.resamples, **rest)
    assert {"retrieval-share.png", "retrieval-samples.png"} & {file.name for file in files}
    return files[0].read_text()


def costs_of(rows: pd.DataFrame) -> pd.DataFrame:
    columns = ["suite", "model", "arm", "method", "variant", "seed", "cell", "samples", "seconds"]
    return (
        rows[columns]
        .drop_duplicates("cell")
        .assign(samples_per_second=100.0, peak_memory=1e6, parameters=10, parameters_trainable=10, flops_per_sample=1.0)
    )


def test_the_report_shows_the_course_and_keeps_it_out_of_the_tables(tmp_path: Path) -> None:
    drawn = Drawn({"a": {0.5: 0.7, 1.0: 0.5}, "b": {0.5: 0.3, 1.0: 0.8}})
    rows = pd.DataFrame(drawn.rows).drop(columns=["line", "baseline"])
    ends = rows[rows["point"] == 1.0].drop(columns=["point", "samples", "seconds"])
    during = rows[rows["point"] < 1].rename(columns={"point": "at"})
    # Of an earlier training of the same label, which the tables do not show.
    stale = during[during["arm"] == "a"].assign(cell="old", value=0.01)
    text = report(
        ends,
        costs_of(rows[rows["point"] == 1.0]),
        drawn,
        tmp_path,
        during=pd.concat([during, stale], ignore_index=True),
    )
    assert "where the order of two lines changes" in text
    assert "| a − b | crosses<br>" in text
    assert "at 50 %" in text
    assert "The order may still change: between 50 % and 100 %, a gains −" in text
    values = ends.groupby("arm")["value"].mean()
    assert f"{100 * values['a']:.1f}" in text
    early = rows[(rows["point"] == 0.5) & (rows["arm"] == "a")]["value"].mean()
    assert f"{100 * early:.1f}" not in text


def test_trainings_of_several_budgets_make_curves(tmp_path: Path) -> None:
    drawn = Drawn({"a": {10_000.0: 0.3, 40_000.0: 0.7}, "b": {10_000.0: 0.5, 40_000.0: 0.51}})
    rows = pd.DataFrame(drawn.rows).drop(columns=["line", "baseline"])
    budget = rows["point"].astype(int).astype(str)
    rows = rows.assign(variant="training.samples=" + budget, samples=rows["point"])
    kept = {(f"{cell}-{e[2:]}", e): value for (cell, e), value in drawn.kept.items()}
    drawn.kept = {(cell.removesuffix(".0"), e): value for (cell, e), value in kept.items()}
    rows["cell"] = rows["cell"] + "-" + budget
    text = report(rows.drop(columns=["point", "samples", "seconds"]), costs_of(rows), drawn, tmp_path)
    assert "by budget in samples: where the order of two lines changes" in text
    assert "| a − b | crosses<br>" in text
    assert "at samples=10,000" in text
    assert "between samples=10,000 and samples=40,000, a gains +" in text
