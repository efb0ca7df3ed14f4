"""A scenario's tables against numbers computed from the examples themselves."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from rich.console import Console

from benchmark.common.errors import BenchError
from benchmark.common.seeding import generator
from benchmark.evaluation.measurement import Mean
from benchmark.evaluation.replicates import difference
from benchmark.evaluation.statistics import holm, resample
from benchmark.report.render import Table, to_markdown
from benchmark.report.scenarios import View, split_scenarios, views
from benchmark.report.sections import write_report
from tests.report.reading import assert_legible

METRIC = Mean("correct")
GROUPS = np.repeat(np.arange(60), 3)
SCENARIO = {"scenario": "noisy", "question": "What does noise cost?", "varies": "share of noise", "plain_condition": 0}
Key = tuple[str, str, str, str]


class Results:
    """Rows as the store gives them, with the examples and the resampled metrics behind them."""

    def __init__(self) -> None:
        self.rows: list[dict] = []
        self.drawn: dict[Key, np.ndarray] = {}
        self.examples: dict[tuple[str, str, str], dict[str, np.ndarray]] = {}

    def add(self, cell: str, chance: float, *, dataset: str = "d", task: str = "probe", **changes: object) -> None:
        """A measurement of something that is right as often as said."""
        random = np.random.default_rng(len(self.rows))
        hardness = np.random.default_rng(0).uniform(size=len(GROUPS))
        correct = (hardness + random.normal(0, 0.1, len(GROUPS)) < chance).astype(float)
        examples = {"id": np.arange(len(GROUPS)), "group": GROUPS, "correct": correct}
        metric = str(changes.get("metric", "accuracy"))
        values = resample(METRIC, examples, GROUPS, np.unique(GROUPS), 300, generator(0, "draws"))
        self.drawn[cell, f"{task}-{dataset}", "", metric] = values[None]
        self.examples[cell, dataset, task] = examples
        self.rows.append(
            {
                "suite": "scenario-noisy",
                "model": "m",
                "method": cell.split("-")[0],
                "variant": "",
                "seed": 0,
                "pretraining": "",
                "dataset": dataset,
                "task": task,
                "part": "",
                "metric": metric,
                "value": correct.mean(),
                "low": correct.mean() - 0.05,
                "high": correct.mean() + 0.05,
                "n": len(GROUPS),
                "groups": 60,
                "chance": 0.2,
                "primary": True,
                "cell": cell,
                "examples": "same",
                "evaluation": f"{task}-{dataset}",
                "start": "initial",
            }
            | changes
        )

    @property
    def frame(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows)

    def views(self, costs: pd.DataFrame | None = None, notes: dict | None = None) -> list[View]:
        costs = pd.DataFrame() if costs is None else costs
        return list(views(self.frame, costs, lambda *key: self.drawn.get(key), lambda *_: notes or {}))

    def difference(self, first: tuple[str, str, str], second: tuple[str, str, str]) -> float:
        return METRIC(self.examples[first]) - METRIC(self.examples[second])


def noisy(methods: dict[str, list[float]], tasks: tuple[str, ...] = ("probe",), **changes: object) -> Results:
    """Methods and how often they are right at 0, 25 and 50 % of noise; the plain cell was run by another suite."""
    results = Results()
    for task in tasks:
        for method, chances in methods.items():
            for condition, chance in zip((0, 0.25, 0.5), chances):
                tags = SCENARIO | {"condition": condition, "plain": f"{method}-0", "plain_dataset": "d"}
                tags |= {"pretraining": f"set{condition}"}
                if condition == 0:
                    tags |= {"suite": "scenario-other", "scenario": "other", "condition": "own", "plain_dataset": "e"}
                results.add(f"{method}-{condition}", chance, task=task, **(tags | changes))
        results.add("initial", 0.3, task=task, method="initial weights", role="baseline", scenario="noisy")
    return results


def shown(table: Table) -> dict[str, list[str]]:
    return {line: [cell.text for cell in cells] for line, cells in [*table.rows, *table.footer]}


def test_each_line_is_held_against_itself_at_the_plain_condition() -> None:
    results = noisy({"b": [0.8, 0.7, 0.4], "a": [0.6, 0.6, 0.5]})
    (view,) = [view for view in results.views() if view.title == "scenario noisy"]
    scores, differences = view.tables
    value = {(row["cell"]): f"{100 * row['value']:.1f}" for row in results.rows}
    assert shown(scores) == {
        "a · 0 %": [value["a-0"]],
        "a · 25 %": [value["a-0.25"]],
        "a · 50 %": [value["a-0.5"]],
        "b · 0 %": [value["b-0"]],
        "b · 25 %": [value["b-0.25"]],
        "b · 50 %": [value["b-0.5"]],
        "initial weights": [value["initial"]],
        "chance": ["20.0"],
        "examples": ["180"],
    }
    assert list(shown(scores))[:6] == [f"{method} · {noise} %" for method in "ab" for noise in (0, 25, 50)]
    # The best of each condition, not of all.
    assert [line for line, cells in scores.rows if cells[0].best] == ["a · 50 %", "b · 0 %", "b · 25 %"]
    assert differences.title == "scenario noisy: difference to the same method at 0 %, in points, for these weights"
    expected, p = {}, {}
    for method in "ab":
        for noise in (0.25, 0.5):
            runs = [[results.examples[f"{method}-{x}", "d", "probe"]] for x in (noise, 0)]
            found = difference(METRIC, *runs, 300, generator(0, "draws"))
            expected[f"{method} · {100 * noise:g} %"] = f"{100 * found.value:+.1f}".replace("-", "−")
            p[f"{method} · {100 * noise:g} %"] = found.p
    assert {line: cells[0].text for line, cells in differences.rows} == expected
    corrected = dict(zip(p, holm(list(p.values()))))
    for line, cells in differences.rows:
        assert ("lower" in cells[0].under) == (corrected[line] < 0.05)
    assert "lower" in dict(differences.rows)["b · 50 %"][0].under
    assert "Holm's correction for the 4 tests" in differences.caption


def test_the_caption_says_what_differs_and_what_does_not() -> None:
    results = noisy({"a": [0.6, 0.6, 0.5]})
    costs = pd.DataFrame({"cell": ["a-0", "a-0.25", "a-0.5", "x"], "samples": [4000, 4000, 4000, 9000]})
    caption = next(view for view in results.views(costs) if view.title == "scenario noisy").tables[0].caption
    assert caption.startswith(
        "What does noise cost? Conditions: share of noise. Trained on set0 (0 %), set0.25 (25 %), "
    )
    assert "set0.5 (50 %), 4,000 pairs seen; seeds, settings, tokenizer and budget are the same" in caption
    assert "and so are the test sets: d." in caption


def test_several_tasks_are_columns_and_have_no_mean() -> None:
    results = noisy({"a": [0.6, 0.6, 0.5]}, tasks=("probe", "vqa"))
    (view,) = [view for view in results.views() if view.title == "scenario noisy"]
    assert [name for name, _ in view.tables[0].columns] == ["probe", "vqa"]
    assert all(len(cells) == 2 for _, cells in [*view.tables[0].rows, *view.tables[0].footer])
    assert "Holm's correction for the 4 tests" in view.tables[1].caption


def test_a_scenario_that_is_in_the_test_images() -> None:
    """The same cells on two datasets with the same patients; counts and words as conditions."""
    results = Results()
    for method, chances in {"a": (0.8, 0.3), "b": (0.5, 0.5)}.items():
        for dataset, condition, chance in zip(("d", "far"), ("own", "another"), chances):
            tags = SCENARIO | {"scenario": "shift", "plain_condition": "own", "condition": condition}
            results.add(f"{method}-0", chance, dataset=dataset, plain=f"{method}-0", plain_dataset="d", **tags)
    for dataset in ("d", "far"):
        results.add("pixels", 0.4, dataset=dataset, method="raw pixels", role="baseline", scenario="shift")
    (view,) = results.views()
    scores, differences = view.tables
    assert list(shown(scores))[:6] == [
        "a · own",
        "a · another",
        "b · own",
        "b · another",
        "raw pixels · own",
        "raw pixels · another",
    ]
    lost = results.difference(("a-0", "far", "probe"), ("a-0", "d", "probe"))
    assert shown(differences)["a · another"] == [f"{100 * lost:+.1f}".replace("-", "−")]
    assert "lower for\nthese weights" in differences.rows[0][1][0].under
    assert "tested on d (own), far (another): images of the same patients." in scores.caption
    others = pd.DataFrame([row | {"examples": row["dataset"]} for row in results.rows])
    (view,) = views(others, pd.DataFrame(), lambda *key: results.drawn.get(key), lambda *_: {})
    assert "same patients" not in view.tables[0].caption
    assert "not tested" in view.tables[1].rows[0][1][0].under


def test_rare_classes_stand_beside_the_others() -> None:
    results = Results()
    for metric, chances in {"accuracy": (0.7, 0.7), "rare_auroc": (0.8, 0.2), "common_auroc": (0.7, 0.7)}.items():
        for condition, chance in zip((0, 0.25), chances):
            tags = SCENARIO | {"condition": condition, "plain": "a-0", "plain_dataset": "d", "metric": metric}
            results.add(f"a-{condition}", chance, primary=metric == "accuracy", **tags)
    main, rare = results.views(notes={"": {"rare": ["melanoma"], "support": {"melanoma": 11, "nevus": 169}}})
    assert rare.title == "scenario noisy, rare classes"
    assert rare.tables[0].columns == [("probe", "common_auroc"), ("probe", "rare_auroc")]
    assert main.tables[0].columns == [("probe", "")]
    common, of_rare = rare.tables[1].rows[0][1]
    assert "lower for\nthese weights" in of_rare.under
    assert "worse" not in common.under
    assert "the rare classes: melanoma (11 of 180 test images)" in rare.tables[0].caption


def test_the_plain_condition_alone_has_scores_and_nothing_to_compare() -> None:
    results = Results()
    results.add("a-0", 0.6, **SCENARIO, condition=0, plain="a-0", plain_dataset="d")
    (view,) = results.views()
    assert len(view.tables) == 1
    assert view.figure is None
    assert list(shown(view.tables[0])) == ["a", "chance", "examples"]


def test_the_chart_shows_the_scores_at_their_conditions() -> None:
    results = noisy({"a": [0.6, 0.6, 0.5], "b": [0.8, 0.7, 0.4]}, tasks=("probe", "retrieval", "vqa", "zero_shot"))
    (view,) = [view for view in results.views() if view.title == "scenario noisy"]
    assert view.figure is not None
    assert_legible(view.figure)
    frame = results.frame.set_index(["task", "cell"])["value"]
    for ax in view.figure.axes:
        task = ax.get_title("left").split("\n")[0]
        curves = [line for line in ax.lines if len(line.get_xdata()) == 3]
        for method, curve in zip("ab", curves):
            np.testing.assert_allclose(curve.get_xdata(), [0, 0.25, 0.5])
            values = [100 * frame[task, f"{method}-{condition}"] for condition in (0, 0.25, 0.5)]
            np.testing.assert_allclose(curve.get_ydata(), values)
            low, high = ax.get_ylim()
            assert low < min(values)
            assert max(values) < high
            assert low < 20
        assert len({to_hex(curve.get_color()) for curve in curves}) == 2
    assert [label.get_text() for label in view.figure.axes[0].get_xticklabels()] == ["0 %", "25 %", "50 %"]
    assert "share of noise" in view.figure.get_supxlabel()


@pytest.mark.parametrize("conditions", [(4096, 1024, 256), (0, 0.01, 0.02, 0.5), ("own scanner", "other")])
def test_charts_are_legible(conditions: tuple[float | str, ...]) -> None:
    results = Results()
    for method in (f"a method of some length, {i}" for i in range(9)):
        for condition in conditions:
            tags = SCENARIO | {"condition": condition, "plain": f"{method}-{conditions[0]}", "plain_dataset": "d"}
            tags |= {"plain_condition": conditions[0]}
            for task in ("probe", "retrieval", "vqa", "zero_shot", "captioning"):
                results.add(f"{method}-{condition}", 0.5, task=task, **tags)
    (view,) = results.views()
    assert view.figure is not None
    assert_legible(view.figure)
    ratio = 8 * min(conditions) <= max(conditions) if not isinstance(conditions[0], str) else False
    assert (view.figure.axes[0].get_xscale() == "log") == (ratio and min(conditions) > 0)


def test_the_main_tables_have_no_lines_of_scenarios(tmp_path: Path) -> None:
    results = noisy({"a": [0.6, 0.6, 0.5]})
    only = tmp_path / "scenario"
    console = Console(width=80, file=io.StringIO())
    resamples = lambda *key: results.drawn.get(key)  # noqa: E731
    page, *files = write_report(results.frame, pd.DataFrame(), only, console, resamples)
    assert "## scenario noisy: accuracy, in percent" in page.read_text()
    assert "## probe" not in page.read_text()
    assert only / "plots" / "scenario-noisy.png" in files
    assert (only / "plots" / "scenario-noisy.svg").is_file()
    assert max(map(len, console.file.getvalue().splitlines())) <= 80  # type: ignore[attr-defined]
    with pytest.raises(BenchError, match="--reference a: the only results here are those of scenarios"):
        write_report(results.frame, pd.DataFrame(), only, console, resamples, "a")

    results.add("c-main", 0.9, suite="demo", scenario=None, start="initial")
    run = {"variant": "", "model": "m", "seed": 0}
    costs = pd.DataFrame(
        [
            {"cell": "c-main", "method": "c", "suite": "demo", **run},
            {"cell": "a-0.25", "method": "a", "suite": "scenario-noisy", **run},
        ]
    )
    page, *_ = write_report(results.frame, costs, tmp_path / "both", console, resamples)
    text = page.read_text()
    main, rest = text.split("## scenario noisy: accuracy, in percent")
    # The baseline was evaluated for the scenario, and is the main lines' as well.
    assert "| c |" in main
    assert "| initial weights |" in main
    assert "a ·" not in main
    assert "| a · 25 % |" in rest
    assert "| initial weights |" in rest
    assert "| c |" in main.split("## cost of pretraining")[1]
    assert "| a" not in main


def test_baselines_of_other_runs_stay_away() -> None:
    results = noisy({"a": [0.6, 0.6, 0.5]})
    results.add("c-main", 0.9, suite="demo", scenario=None, start="theirs")
    demo = {"role": "baseline", "suite": "demo", "scenario": None, "start": "theirs"}
    results.add("theirs", 0.1, method="initial weights", **demo)
    results.add("pixels", 0.4, method="raw pixels", **demo)
    results.add("ours", 0.4, method="untrained", role="baseline", dataset="another", scenario="noisy")
    (view,) = [view for view in results.views() if view.title == "scenario noisy"]
    assert list(shown(view.tables[0]))[3:] == ["initial weights", "raw pixels", "chance", "examples"]
    main, _ = split_scenarios(results.frame)
    assert set(main["cell"]) == {"c-main", "theirs", "pixels"}


def test_rows_from_before_there_were_scenarios() -> None:
    results = Results()
    results.add("a-0", 0.6)
    main, others = split_scenarios(results.frame)
    assert len(main) == 1
    assert others.empty
    assert results.views() == []


def test_markdown_of_the_tables_is_whole() -> None:
    (view,) = [view for view in noisy({"a": [0.6, 0.6, 0.5]}).views() if view.title == "scenario noisy"]
    page = "".join(map(to_markdown, view.tables))
    assert page.count("| a · 25 % |") == 2
