"""The answer and the overview: sentences against hand-made verdicts, means and marks against loops."""

import io
import math

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from benchmark.report import page as page_module
from benchmark.report.comparison import DIFFERENCES, NEITHER, UNTESTED
from benchmark.report.overview import mean_differences, of_verdicts, overview
from benchmark.report.results import label_lines
from benchmark.report.scores import mean_scores, summarise
from benchmark.report.sections import read_results, write_report
from tests.report.fakes import KINDS, synthetic
from tests.report.reading import printed
from tests.report.trials import trials


def results(rows, costs=None, drawn=None, reference=None):
    costs = pd.DataFrame() if costs is None else costs
    kept = (lambda *key: drawn[key]) if drawn else (lambda *_: None)
    return read_results(rows, costs, lambda *_: {}, kept, reference)


def shown(rows, costs=None, drawn=None, reference=None):
    """The answer and the table."""
    return list(overview(results(rows, costs, drawn, reference)))


# The answer


def differences(verdicts, seeds=1):
    """verdicts: by line, the sign of the difference and the verdict on each dataset."""
    rows = [
        {"task": "zero_shot", "dataset": f"d{number}", "metric": "accuracy", "line": line, "other": "clip"}
        | {"value": sign / 100, "verdict": verdict, "seeds": seeds}
        for line, of_line in verdicts.items()
        for number, (sign, verdict) in enumerate(of_line)
    ]
    return pd.DataFrame(rows).reindex(columns=DIFFERENCES)


WORSE, BETTER = (-1, "lower for these weights"), (1, "higher for these weights")
SAME, FEW, NONE = (1, NEITHER), (-1, "too few patients (7)"), (-1, UNTESTED)


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        ({"msd": [WORSE]}, "clip beats msd on d0."),
        ({"msd": [SAME]}, "clip is not told apart from msd."),
        ({"msd": [BETTER, BETTER]}, "msd beats clip on all 2 datasets."),
        ({"msd": [FEW, FEW]}, "no verdict (too few patients)."),
        ({"msd": [NONE, FEW]}, "no verdict (not tested, too few patients)."),
        ({"msd": [WORSE, SAME, FEW]}, "clip beats msd on 1 of 2 datasets. No verdict on d2 (too few patients)."),
        (
            {"a": [SAME, SAME], "b": [SAME, SAME], "c": [SAME] * 2},
            "clip is not told apart from any of the 3 other lines.",
        ),
        (
            {"a": [WORSE, SAME], "b": [WORSE, WORSE], "c": [SAME, WORSE], "d": [SAME, SAME]},
            "clip beats b on all 2 datasets and a and c on 1 of 2 datasets; it is not told apart from d.",
        ),
        (
            {"a": [WORSE, BETTER, SAME], "b": [SAME, SAME, NONE]},
            "clip is not told apart from b; a beats clip on 1 of 3 datasets, and is beaten on 1. "
            "No verdict on d2 about b (not tested).",
        ),
    ],
)
def test_the_answer_counts_the_datasets_where_a_difference_is_shown(verdicts, said):
    assert of_verdicts(differences(verdicts), "clip") == said


def test_parts_that_hold_for_different_things_say_so():
    compared = pd.concat([differences({"a": [WORSE]}, 1), differences({"b": [(-1, "worse")]}, 3)])
    assert of_verdicts(compared, "clip", True) == "clip beats a on d0 for these weights and b on d0."


@pytest.mark.parametrize(
    ("seeds", "held"), [(1, "score), for these weights, by"), (2, "score), with 2 seeds, by"), (3, "score), by")]
)
def test_the_answer_says_what_it_holds_for_and_names_the_reference(seeds, held):
    rows, drawn = trials({"clip": 0.6, "msd": 0.3}, seeds=seeds, datasets=("x", "y"), spread=0.001, noise=0.02)
    said, table = shown(rows, None, drawn)
    assert said.text.startswith("Compared with clip (highest mean score)")
    assert held in said.text
    assert said.findings == ["retrieval: clip beats msd on all 2 datasets."]
    assert table.title.endswith(", for these weights") == (seeds == 1)
    asked, _ = shown(rows, None, drawn, "msd")
    assert asked.text.startswith("Compared with msd")
    assert "highest" not in asked.text
    assert asked.findings == ["retrieval: clip beats msd on all 2 datasets."]


def test_kinds_of_task_with_the_same_answer_share_a_line():
    one, of_one = trials({"a": 0.5, "b": 0.5, "c": 0.2}, seeds=3, spread=0.0)
    two, of_two = trials({"a": 0.5, "b": 0.5, "c": 0.2}, seeds=3, spread=0.0, task="search")
    alone = one[one["arm"] == "a"].assign(task="writing", evaluation="retrieval-d")
    said, _ = shown(pd.concat([one, two, alone]), None, of_one | of_two)
    assert len(said.findings) == 2
    assert said.findings[0].startswith("retrieval, search: ")
    assert said.findings[1] in ("writing: a alone has results here.", "writing: b has no results here.")


def test_a_single_line_is_compared_with_its_model_before_training():
    rows, drawn = trials({"clip": 0.6, "initial": 0.3}, seeds=1)
    start = rows.loc[rows["arm"] == "initial", "cell"].item()
    rows = rows.assign(role=np.where(rows["arm"] == "initial", "baseline", "method"), start=start)
    said, _ = shown(rows, None, drawn)
    assert said.text.startswith("Compared with the model before training, for these weights, by paired tests")
    assert said.findings == ["retrieval: clip beats the model before training on d."]
    (table,) = shown(rows[rows["arm"] == "clip"], None, drawn)
    assert table.main


# The means


def many(lines, datasets, seeds, rng, spread, noise=0.02, truth=0.5):
    """Rows of lines whose seeds are the same on all datasets: ``spread`` is between seeds, ``noise`` of a dataset."""
    rows = []
    for line in range(lines):
        of_seed = rng.normal(0, spread, seeds)
        for dataset in range(datasets):
            of_dataset = rng.normal(0, noise)
            for seed in range(seeds):
                value = truth + of_seed[seed] + of_dataset
                row = {
                    "task": "t",
                    "dataset": f"d{dataset}",
                    "metric": "m",
                    "line": f"l{line}",
                    "seed": seed,
                    "part": "",
                }
                row |= {"value": value, "low": value - 1.959964 * noise, "high": value + 1.959964 * noise}
                rows.append(
                    row | {"primary": True, "chance": 0.1, "n": 50, "examples": f"d{dataset}", "baseline": False}
                )
    return pd.DataFrame(rows)


def test_a_mean_of_one_seed_is_what_a_loop_gives():
    rng = np.random.default_rng(0)
    rows = many(3, 4, 1, rng, 0.1)
    rows["low"] -= rng.uniform(0, 0.1, len(rows))
    means = mean_scores(rows).set_index("line")
    for line in ("l0", "l1", "l2"):
        value = below = above = 0.0
        for row in rows[rows["line"] == line].itertuples():
            value += row.value / 4
            below += (row.value - row.low) ** 2
            above += (row.high - row.value) ** 2
        found = tuple(means.loc[line, ["value", "low", "high"]])
        assert found == pytest.approx((value, value - math.sqrt(below) / 4, value + math.sqrt(above) / 4))


def test_the_mean_over_one_dataset_is_its_score():
    rows = many(5, 1, 3, np.random.default_rng(1), 0.03)
    columns = ["line", "value", "low", "high", "seeds"]
    pd.testing.assert_frame_equal(mean_scores(rows)[columns], summarise(rows)[columns])


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 0.0), (3, 0.05)])
def test_the_interval_of_a_mean_covers_the_truth(seeds, spread):
    """Many lines. The truth of one seed is that of its weights; of several, that of the method."""
    rng = np.random.default_rng(seeds)
    rows = many(300, 4, seeds, rng, spread)
    means = mean_scores(rows)
    covered = ((means["low"] <= 0.5) & (means["high"] >= 0.5)).mean()
    assert 0.925 <= covered <= 0.98
    if spread == 0.0:
        # Averages of the ends would be twice as wide.
        assert (means["high"] - means["low"]).mean() < 1.3 * 2 * 1.96 * 0.02 / 2


def test_a_mean_lacks_its_interval_where_none_is_honest():
    rows = many(2, 3, 2, np.random.default_rng(2), 0.03)
    whole = mean_scores(rows)
    assert whole["low"].notna().all()
    same_patients = mean_scores(rows.assign(examples="e"))
    assert same_patients["low"].isna().all()
    assert same_patients["value"].tolist() == pytest.approx(whole["value"].tolist())
    lacks_a_seed = (rows["line"] == "l0") & (rows["dataset"] == "d1") & (rows["seed"] == 1)
    l0, l1 = mean_scores(rows[~lacks_a_seed]).itertuples()
    table = summarise(rows[~lacks_a_seed])
    assert l0.value == pytest.approx(table[table["line"] == "l0"]["value"].mean())
    assert math.isnan(l0.low)
    assert not math.isnan(l1.low)
    lacks_a_dataset = (rows["line"] == "l0") & (rows["dataset"] == "d1")
    assert mean_scores(rows[~lacks_a_dataset])["line"].tolist() == ["l1"]


def test_draws_of_one_seed_add_their_error():
    rows = many(1, 2, 1, np.random.default_rng(3), 0.0)
    rows["over_groups"] = [[row.low, row.high] for row in rows.itertuples()]
    rows["of_draws"] = [[0.4, 0.5, 0.6], [0.45, 0.5, 0.55]]
    rows["value"] = 0.5
    rows["over_groups"] = [[0.46, 0.54]] * 2
    (mean,) = mean_scores(rows).itertuples()
    variance = np.var([(0.4 + 0.45) / 2, 0.5, (0.6 + 0.55) / 2], ddof=1)
    error = math.sqrt((0.04 * math.sqrt(2) / 2 / 1.959964) ** 2 + variance / 3)
    assert mean.value == pytest.approx(0.5)
    assert mean.high - 0.5 > 1.96 * error
    rows["of_draws"] = [[0.4, 0.6], [0.45, 0.5, 0.55]]
    assert mean_scores(rows)["low"].isna().all()


# The marks


@pytest.mark.parametrize("gain", [0.0, 0.02, 0.1])
def test_a_mean_is_marked_unless_it_is_shown_to_beat_the_initial_weights(gain):
    rows, drawn = trials({"clip": 0.3 + gain, "initial": 0.3}, seeds=1, datasets=("x", "y", "z"), noise=0.2, spread=0.0)
    start = rows.loc[rows["arm"] == "initial", "cell"].iloc[0]
    rows = rows.assign(role=np.where(rows["arm"] == "initial", "baseline", "method"), start=start)
    labelled = label_lines(rows, pd.DataFrame())[0].assign(start=start)
    (found,) = mean_differences(labelled, "start", lambda *key: drawn[key]).itertuples()
    value, resampled = 0.0, np.zeros(400)
    for dataset in ("x", "y", "z"):
        of_dataset = rows[rows["dataset"] == dataset].set_index("arm")
        value += (of_dataset.loc["clip", "value"] - of_dataset.loc["initial", "value"]) / 3
        for r in range(400):
            first, second = (
                drawn[f"{arm}-0", f"retrieval-{dataset}", "", "recall@10"][0, r] for arm in ("clip", "initial")
            )
            resampled[r] += (first - second) / 3
    error = resampled.std(ddof=1) * math.sqrt(60 / 59)
    assert (found.task, found.line) == ("retrieval", "clip")
    assert found.value == pytest.approx(value)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(value) / error, 59), rel=1e-6)
    _, table = shown(rows, None, drawn)
    marked = "†" in dict(table.rows)["clip"][0].text
    assert marked == (value <= 0 or 2 * stats.t.sf(value / error, 59) >= 0.05)
    assert marked == (gain < 0.1)
    assert ("†: this mean is not shown to beat the model before training" in table.caption) == marked
    assert "†" not in dict(table.footer)["initial"][0].text


def test_a_mean_is_marked_unless_its_interval_lies_above_all_guesses():
    rows, _ = synthetic(2, 3, seeds=1)
    rows = rows.assign(majority=np.where(rows["task"] == "vqa", 0.99, rows["chance"]), role="method")
    of_clip = (rows["method"] == "clip") & (rows["task"] == "few_shot")
    rows.loc[of_clip, ["value", "low", "high"]] = rows.loc[of_clip, "chance"].to_numpy()[:, None] + [0.1, -0.3, 0.4]
    (_, table) = shown(rows)
    cells = {line: [cell.text[-1] == "§" for cell in of_line] for line, of_line in table.rows}
    tasks = [name for name, _ in table.columns]
    assert cells == {"clip": [task in ("few_shot", "vqa") for task in tasks], "msd": [task == "vqa" for task in tasks]}
    assert "§: its interval does not lie above the highest guess." in table.caption


# The table


def test_the_table_has_means_costs_and_guesses():
    rows, costs = synthetic(3, 4, seeds=1)
    (_, table) = shown(rows, costs)
    assert [name for name, _ in table.columns] == [*KINDS, "time", "peak memory", "FLOPs/sample", "trained parameters"]
    primary = rows[rows["primary"]]
    for column, task in enumerate(KINDS):
        of_task = primary[primary["task"] == task]
        by_hand = {}
        for method in ("clip", "msd", "siglip"):
            of_line = of_task[of_task["method"] == method]
            by_hand[method] = (
                sum(of_line.loc[of_line["dataset"] == d, "value"].mean() for d in set(of_line["dataset"])) / 4
            )
            cell = dict(table.rows)[method][column]
            assert cell.text == f"{100 * by_hand[method]:.1f}"
            assert "–" in cell.under
        bold = [method for method in by_hand if dict(table.rows)[method][column].best]
        assert bold == [max(by_hand, key=by_hand.get)]
        assert dict(table.footer)["highest guess"][column].text == f"{100 * of_task['chance'].mean():.1f}"
        assert dict(table.footer)["datasets"][column].text == "4"
    memory = {line: cells[len(KINDS) + 1].text for line, cells in table.rows}
    assert memory == {"clip": "600", "msd": "1,200", "siglip": "1,800"}


def test_results_without_costs_have_no_columns_of_them():
    rows, _ = synthetic(2, 2, seeds=1)
    assert [name for name, _ in shown(rows)[1].columns] == list(KINDS)


@pytest.mark.parametrize("methods", [3, 12])
def test_the_terminal_has_the_answer_and_the_overview_and_the_page_all(methods, tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "save", lambda _, path, pdf=False: (path, path))
    rows, costs = synthetic(methods, 3, seeds=1)
    console = Console(width=80, file=io.StringIO())
    page, *_ = write_report(rows, costs, tmp_path, console, details=False)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("Compared with ")
    assert "overview: mean over datasets" in text
    assert "cost of pretraining" not in text
    assert "difference to" not in text
    assert len(text.splitlines()) < 40 + 4 * methods
    markdown = page.read_text(encoding="utf-8")
    places = [
        markdown.index(part) for part in ("Compared with ", "## overview", "in percent\n", "## cost of pretraining")
    ]
    assert places == sorted(places)


def test_what_a_block_of_columns_says_nothing_about_is_left_out():
    rows, costs = synthetic(2, 2, seeds=1)
    _, table = shown(rows, costs)
    assert printed(table).count("highest guess") == 1
    assert printed(table, 200).count("highest guess") == 1
    assert printed(table).count("siglip") == 0
    assert printed(table).count("msd") == 2


def test_lines_that_share_a_cell_share_its_costs_and_lines_without_scores_are_left_out():
    rows, costs = synthetic(2, 2, seeds=1)
    rows = rows.assign(evaluation=rows["task"])
    other = rows[(rows["task"] == "vqa") & (rows["method"] == "clip")].assign(
        variant="vqa.head=ban", evaluation="other"
    )
    unscored = other.assign(variant="vqa.head=none", value=math.nan)
    untested = costs[costs["method"] == "msd"].assign(method="siglip", cell="ffff", seconds=7.0)
    (_, table) = shown(pd.concat([rows, other, unscored]), pd.concat([costs, untested]))
    lines = dict(table.rows)
    assert list(lines) == ["clip", "clip · vqa.head=ban", "msd", "siglip"]
    time = [name for name, _ in table.columns].index("time")
    assert lines["clip"][time].text == lines["clip · vqa.head=ban"][time].text != "—"
    assert lines["siglip"][time].text == "0:00:07"
    assert lines["siglip"][0].text == lines["clip · vqa.head=ban"][0].text == "—"
