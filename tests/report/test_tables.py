import math
from functools import cache
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from scipy import special

from benchmark.evaluation.replicates import Score, pooled
from benchmark.report.costs import cost_table, pool_costs, source_table
from benchmark.report.render import Cell, Table, clock, interval, percent, scaled, to_markdown, wrap
from benchmark.report.results import label_lines, natural
from benchmark.report.scores import score_table, summarise, too_few, with_guesses
from tests.moderated import hypotheses
from tests.report.fakes import DATASETS, KINDS, synthetic
from tests.report.reading import parsed, printed


def tables(rows, costs):
    rows, costs, lines = label_lines(rows, costs)
    scores = summarise(rows)
    return [score_table(scores, task, lines) for task in natural(scores["task"].unique())] + [cost_table(costs, lines)]


@cache
def synthetic_tables(methods, datasets):
    return tables(*synthetic(methods, datasets, seeds=2))


def one(methods, **changes):
    """Rows of one task on one dataset: {method: value}, or {method: [value of seed 0, of seed 1, ...]}."""
    rows = [
        {
            "suite": "s",
            "model": "m",
            "method": method,
            "variant": "",
            "seed": seed,
            "dataset": "d",
            "task": "t",
            "part": "",
            "metric": "accuracy",
            "value": value,
            "low": value - 0.1,
            "high": value + 0.1,
            "n": 50,
            "chance": 0.2,
            "primary": True,
            "cell": f"{method}-{seed}",
        }
        | changes
        for method, values in methods.items()
        for seed, value in enumerate(np.atleast_1d(values))
    ]
    return pd.DataFrame(rows)


def lines_of(rows, costs=None):
    return label_lines(rows, pd.DataFrame() if costs is None else costs)[2]


# Scores


def widened(distance, of_seeds):
    """Half of an interval from half of that over examples and what the variance of three seeds may be, by bisection."""
    within, narrow, wide = (distance / 1.959964) ** 2, 0.0, 10.0
    weight, variance, degrees = np.array(of_seeds).T
    total = within + variance / 3
    of_t = (variance / 3 / total) ** (degrees / 2)
    while wide - narrow > 1e-8:
        middle = (narrow + wide) / 2
        normal, t = (
            2 * p for p in (special.ndtr(-middle / np.sqrt(total)), special.stdtr(degrees, -middle / np.sqrt(total)))
        )
        narrow, wide = (middle, wide) if weight @ ((1 - of_t) * normal + of_t * t) > 0.05 else (narrow, middle)
    return middle


@pytest.mark.parametrize(("methods", "datasets"), [(2, 5), (12, 12)])
def test_every_score_is_what_loops_give(methods, datasets):
    """Of one kind of task each interval is compared, of the others the values."""
    rows, costs = synthetic(methods, datasets)
    rows, costs, lines = label_lines(rows.sample(frac=1, random_state=0), costs)
    scores = summarise(rows)
    assert len(scores) == methods * datasets * len(KINDS)
    table = {task: score_table(scores, task, lines) for task in KINDS}
    by_hand = dict(list(rows[rows["primary"]].groupby(["task", "dataset", "method", "seed"])))
    found = {(score.task, score.dataset, score.line): score for score in scores.itertuples()}
    for task in KINDS:
        units, known = list(product(DATASETS[:datasets], lines)), {}
        for dataset, method in units:
            seeds = [by_hand[task, dataset, method, seed] for seed in range(3)]
            means = [sum(seed["value"]) / len(seed) for seed in seeds]
            below = sum((seed["value"] - seed["low"]).mean() for seed in seeds) / 3
            above = sum((seed["high"] - seed["value"]).mean() for seed in seeds) / 3
            known[dataset, method] = (means, below, above)
        of_seeds = [(np.var(m, ddof=1), 3, 0.0, (below + above) / 2 / 1.959964) for m, below, above in known.values()]
        moderated = dict(zip(known, hypotheses(of_seeds))) if task == next(iter(KINDS)) else {}
        for dataset, method in units:
            (means, below, above), score = known[dataset, method], found[task, dataset, method]
            assert score.value == pytest.approx(sum(means) / 3)
            assert score.deviation == pytest.approx(np.std(means, ddof=1))
            if moderated:
                reach = [widened(distance, moderated[dataset, method]) for distance in (below, above)]
                ends = max(0, score.value - reach[0]), min(1, score.value + reach[1])
                assert (score.low, score.high) == pytest.approx(ends, abs=1e-6)
            shown = dict(table[task].rows)[method][natural(DATASETS[:datasets]).index(dataset)]
            assert shown.text == f"{100 * score.value:.1f}"
            assert shown.under == f"{100 * score.low:.1f}–{100 * score.high:.1f}"


def test_the_mean_is_over_all_datasets_and_there_is_none_without_them():
    rows = pd.concat([one({"a": 0.5, "b": 0.6}, dataset="d1"), one({"a": 0.8}, dataset="d2")])
    (table, _) = tables(rows, pd.DataFrame())
    assert table.columns[-1] == ("mean", "")
    a, b = (cells for _, cells in table.rows)
    assert [cell.text for cell in a] == ["50.0", "80.0", "65.0"]
    assert [cell.text for cell in b] == ["60.0", "—", "—"]
    assert "—: no result" in table.caption
    assert not a[-1].best  # of one there is no best


def test_one_seed_keeps_its_own_interval():
    assert pooled([Score(*np.array([[0.5], [0.41], [0.62]]))])[0] == pytest.approx((0.5, 0.41, 0.62))


def test_an_interval_stays_within_what_the_metric_can_be():
    ((_, low, high),) = pooled([Score(np.array([0.0, 1.0]), np.array([0.0, 0.9]), np.array([0.1, 1.0]))])
    assert (low, high) == (0.0, 1.0)
    ((_, low, _),) = pooled([Score(np.array([-0.2]), np.array([-0.4]), np.array([0.1]))])
    assert low == pytest.approx(-0.4)
    # The interval of a metric that can be negative is not cut off at the end of a seed's.
    values = np.array([0.01, 0.20])
    ((_, low, high),) = pooled([Score(values, values - 0.02, values + 0.02)])
    assert low == pytest.approx(0.105 - (high - 0.105))
    assert low < -0.3


def test_a_seed_without_interval_leaves_the_score_without():
    scores = summarise(label_lines(one({"a": [0.5, 0.6]}, low=None, high=None), pd.DataFrame())[0])
    assert scores["value"].item() == pytest.approx(0.55)
    assert scores["low"].isna().all()
    assert scores["high"].isna().all()
    assert interval(float("nan"), 0.5) == ""


@pytest.mark.parametrize(
    ("seeds", "between"),
    [(2, 0.02), (3, 0.0), (3, 0.1), (5, 0.02)]
    + [
        pytest.param(seeds, between, marks=pytest.mark.slow)
        for seeds, between in [(2, 0.0), (2, 0.005), (2, 0.1), (3, 0.005), (3, 0.02), (5, 0.0), (5, 0.005), (5, 0.1)]
    ],
)
def test_the_pooled_interval_covers_the_truth(seeds, between):
    """Truth 0.5; an error of the test set that the seeds share (sd 0.02), and one of each seed's own. Two seeds
    cover more: alone they say little about other seeds, which may differ much more.
    """
    rng = np.random.default_rng(seeds)
    covered = 0
    for _ in range(2000):
        values = 0.5 + rng.normal(0, 0.02) + rng.normal(0, between, seeds)
        ((_, low, high),) = pooled([Score(values, values - 1.96 * 0.02, values + 1.96 * 0.02)])
        covered += low <= 0.5 <= high
    assert 0.935 <= covered / 2000 <= (0.995 if seeds == 2 else 0.97)


def test_both_directions_of_retrieval_are_averaged_and_both_counts_shown():
    parts = [("image_to_text", 0.3, 400), ("text_to_image", 0.5, 2000)]
    rows = pd.concat([one({"a": v, "b": 0.1}, part=p, n=n, metric="recall@10", task="retrieval") for p, v, n in parts])
    (table, _) = tables(rows, pd.DataFrame())
    assert table.rows[0][1] == [Cell("40.0", "30.0–50.0", True)]
    assert dict(table.footer)["examples"] == [Cell("400/2,000")]
    assert "mean of image_to_text and text_to_image" in table.caption
    assert "recall@10 is a hit rate" in table.caption
    assert table.title == "retrieval: recall@10, in percent"


def test_a_mean_of_some_of_the_parts_is_no_result():
    rows = pd.concat([one({"a": 0.9, "b": 0.5}, part="p"), one({"b": 0.7}, part="q"), one({"a": math.nan}, part="q")])
    (table, _) = tables(rows, pd.DataFrame())
    assert [line for line, _ in table.rows] == ["b"]


def test_best_is_bold_and_ties_are_all_bold():
    def bold(methods, **changes):
        (table, _) = tables(one(methods, **changes), pd.DataFrame())
        return [line for line, cells in table.rows if cells[0].best]

    assert bold({"a": 0.5, "b": 0.6, "c": 0.4}) == ["b"]
    assert bold({"a": 0.60012, "b": 0.6, "c": 0.4}) == ["a", "b"]  # as shown: 60.0 and 60.0
    assert bold({"a": 0.6006, "b": 0.6}) == ["a"]
    assert bold({"a": 0.5}) == []  # nothing to be better than
    assert bold({"a": 0.2, "b": 0.1}) == []  # not above chance
    assert bold({"a": 0.2, "b": 0.1}, chance=None) == ["a"]


def test_a_higher_baseline_takes_no_bold_away_and_the_caption_says_so():
    rows = one({"a": 0.5, "b": 0.6, "initial": 0.9})
    table = tables(rows.assign(role=np.where(rows["method"] == "initial", "baseline", None)), pd.DataFrame())[0]
    assert [line for line, cells in table.rows if cells[0].best] == ["b"]
    assert "initial" in dict(table.footer)
    assert "bold: highest of the methods in its column." in table.caption


def test_only_primary_rows_count_and_the_last_of_two_equal_ones():
    rows = pd.concat([one({"a": 0.1}), one({"a": 0.5}), one({"a": 0.9}, metric="f1", primary=False)])
    assert summarise(label_lines(rows, pd.DataFrame())[0])["value"].tolist() == [0.5]


def test_the_metric_stands_in_the_column_where_metrics_differ():
    rows = pd.concat([one({"a": 0.5}, dataset="d1"), one({"a": 0.8}, dataset="d2", metric="macro_auroc")])
    (table, _) = tables(rows, pd.DataFrame())
    assert table.columns[:2] == [("d1", "accuracy"), ("d2", "macro_auroc")]
    assert table.title == "t, in percent"
    (table, _) = tables(one({"a": 0.5}), pd.DataFrame())
    assert table.columns == [("d", "")]
    assert table.title == "t: accuracy, in percent"


def test_the_caption_says_what_the_name_of_a_metric_leaves_open():
    (table, _) = tables(one({"a": 0.5}, metric="macro_auroc@10%"), pd.DataFrame())
    assert "macro_auroc is the mean over classes or findings" in table.caption
    assert "@10% is trained on 10 % of the train images." in table.caption
    (table, _) = tables(one({"a": 0.5}), pd.DataFrame())
    assert table.caption == "One seed, for these weights; below: 95 % interval over test examples."


def test_the_caption_names_the_lines_of_one_seed_and_says_what_the_interval_counts():
    rows = one({"a": [0.5, 0.6], "b": 0.7})
    (table, _) = tables(rows, pd.DataFrame())
    assert table.caption.startswith("Mean over 1–2 seeds (one seed, for these weights alone: b); ")
    assert "95 % interval over test examples and seeds" in table.caption
    (table, _) = tables(rows.assign(of_draws=[[0.4, 0.6]] * 3, over_groups=[[0.4, 0.7]] * 3), pd.DataFrame())
    assert "95 % interval over test examples, draws of train images and seeds" in table.caption
    (table, _) = tables(one({"a": 0.5}).assign(of_draws=[[0.4, 0.6]], over_groups=[[0.4, 0.7]]), pd.DataFrame())
    assert "95 % interval over test examples and draws of train images." in table.caption


def test_datasets_with_too_few_patients_are_named():
    rows = pd.concat([one({"a": 0.5}, groups=20), one({"a": 0.5}, dataset="e", groups=8)])
    found = too_few(rows.assign(effective_groups=rows["groups"].astype(float)))
    assert found == " Intervals do not keep what they promise: e, too few patients (8)."
    found = too_few(one({"a": [0.5, 0.6]}, groups=100, effective_groups=9.5, scarcest=3))
    assert found == " Intervals do not keep what they promise: d, too few positive patients (3)."
    assert too_few(one({"a": 0.5}, groups=20, effective_groups=20.0)) == ""


def test_a_negative_score_has_a_minus_sign():
    (table, _) = tables(one({"a": -0.025}, low=-0.06, high=0.01), pd.DataFrame())
    ((_, (cell,)),) = table.rows
    assert (cell.text, cell.under) == ("−2.5", "−6.0 to 1.0")


def test_chance_and_examples_are_below_the_lines():
    (table, _) = tables(one({"a": [0.5, 0.6]}), pd.DataFrame())
    assert table.footer == [("chance", [Cell("20.0")]), ("examples", [Cell("50")])]
    (table, _) = tables(one({"a": 0.5}, chance=None), pd.DataFrame())
    assert dict(table.footer)["chance"] == [Cell("—")]


# Lines


def test_a_line_is_named_by_what_tells_it_apart():
    assert lines_of(one({"b": 0.5, "a": 0.5})) == ["a", "b"]
    grid = pd.concat([one({"a": 0.5}), one({"a": 0.5}, variant="x=0.9"), one({"a": 0.5}, variant="x=0.85")])
    assert lines_of(grid) == ["a", "a · x=0.85", "a · x=0.9"]
    assert lines_of(pd.concat([one({"a": 0.5}), one({"a": 0.5}, model="big")])) == ["a · big", "a · m"]
    assert lines_of(pd.concat([one({"a": 0.5}), one({"a": 0.5}, suite="z")])) == ["a · s", "a · z"]
    assert lines_of(one({"a": 0.5}, variant=None)) == lines_of(one({"a": 0.5}, variant="x=0.9")) == ["a"]


def test_runs_that_only_the_cell_tells_apart_are_not_averaged():
    rows = pd.concat([one({"a": 0.5, "b": 0.1}, cell="0123456789"), one({"a": 0.9}, cell="abcdefghij", dataset="e")])
    assert lines_of(rows) == ["a · cell 01234567", "a · cell abcdefgh", "b"]


def test_a_method_with_a_cost_and_no_result_is_in_the_cost_table_only():
    rows, costs = synthetic(2, 1)
    score, *_, cost = tables(rows[rows["method"] == "msd"], costs)
    assert [line for line, _ in score.rows] == ["msd"]
    assert [line for line, _ in cost.rows] == ["clip", "msd"]


# Costs


def test_costs_are_pooled_over_seeds():
    rows, costs = synthetic(2, 1)
    _, costs, _ = label_lines(rows, costs)
    for line, pool in pool_costs(costs).iterrows():
        own = costs[costs["method"] == line]
        assert pool["seeds"] == 3
        assert pool["seconds"] == pytest.approx(sum(own["seconds"]) / 3)
        assert pool["peak_memory"] == max(own["peak_memory"])
        assert pool["validation_loss"] == pytest.approx(sum(own["validation_loss"]) / 3)


def test_the_cost_table_reads_as_the_numbers_do():
    rows, costs = synthetic(2, 1, seeds=1)
    costs = costs.assign(seconds=[59.6, 3725.0], peak_memory=[6.4e8, 1.25e9], validation_loss=[1.5, None])
    table = tables(rows, costs)[-1]
    units = dict(table.columns)
    assert (units["time"], units["peak memory"], units["samples"]) == ("h:mm:ss", "MB", "k")
    names = [name for name, _ in table.columns]
    clip, msd = ({name: cell.text for name, cell in zip(names, cells)} for _, cells in table.rows)
    assert (clip["time"], msd["time"]) == ("0:01:00", "1:02:05")
    assert (clip["peak memory"], msd["peak memory"]) == ("640", "1,250")
    assert clip["samples"] == "65.5"
    assert clip["trainable/parameters"] == "630/1,260"
    assert msd["FLOPs/sample"] == "420"
    assert (clip["val. loss"], msd["val. loss"]) == ("1.500", "—")
    assert "accumulation cached (msd: keyed)" in table.caption
    assert "suite medical, model tiny, batch_size 128" in table.caption
    assert "variant" not in table.caption.split("Settings")[1]
    assert "model tiny, variant x=1, batch_size" in tables(rows, costs.assign(variant="x=1"))[-1].caption
    assert "variant" not in tables(rows, costs.assign(variant=["x=1", ""]))[-1].caption.split("Settings")[1]


def test_losses_by_source_stand_with_the_mixture():
    _, costs = synthetic(2, 1, seeds=2)
    assert source_table(costs.assign(line=costs["method"]), ["clip", "msd"]) is None
    mixture = [{"a": 0.25, "b": 0.75}, {"a": 0.25, "b": 0.75}, {"a": 0.5, "b": 0.5}, None]
    losses = [{"a": 1.0, "b": 2.0}, {"a": 2.0}, {"a": 3.0, "b": 4.0}, None]
    costs = costs.sort_values(["method", "seed"]).assign(
        line=lambda x: x["method"], mixture=mixture, validation_losses=losses
    )
    table = source_table(costs, ["msd", "clip"])
    assert [name for name, _ in table.columns] == ["a", "b"]
    rows = {line: [cell.text for cell in cells] for line, cells in [*table.rows, *table.footer]}
    assert rows == {
        "msd": ["3.000", "4.000"],
        "clip": ["1.500", "2.000"],
        "share of pairs, %": ["25.0–50.0", "50.0–75.0"],
    }


def test_a_cost_that_was_never_recorded_is_a_dash():
    rows, costs = synthetic(2, 1)
    table = tables(rows, costs[["method", "seed", "cell", "seconds"]].assign(seconds=None))[-1]
    assert {cell.text for _, cells in table.rows for cell in cells} == {"—", "—/—"}


@pytest.mark.parametrize(
    ("numbers", "prefix", "texts"),
    [
        ([63_400_000, 1_234_000_000], "M", ["63.4", "1,234.0"]),
        ([128, 5], "", ["128.00", "5.00"]),
        ([999, math.nan], "", ["999", "—"]),
        ([0.0], "", ["0.00"]),
        ([2.1e16], "T", ["21,000"]),
    ],
)
def test_numbers_share_the_prefix_of_the_smallest(numbers, prefix, texts):
    assert scaled(np.array(numbers)) == (prefix, [texts])


def test_durations_are_rounded_before_they_are_split():
    assert [clock(x) for x in (0.4, 59.7, 3599.6, 360_000)] == ["0:00:00", "0:01:00", "1:00:00", "100:00:00"]


def test_percent():
    assert [percent(x) for x in (0.5, 1.0, 0.12345, math.nan)] == ["50.0", "100.0", "12.3", "—"]


# The terminal


@pytest.mark.parametrize(("methods", "datasets"), [(1, 1), (2, 5), (12, 12)])
@pytest.mark.parametrize("width", [60, 80, 200])
def test_tables_fit_the_terminal_and_nothing_is_cut(methods, datasets, width):
    for table in synthetic_tables(methods, datasets):
        text = printed(table, width)
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
        words = text.split()
        for label, cells in [*table.rows, *table.footer]:
            assert label in words
            for cell in cells:
                assert {*cell.text.split(), *cell.under.split()} <= set(words)


def test_long_names_are_broken_not_cut():
    rows, costs = synthetic(3, 3)
    names = {"clip": "漢" * 30, "msd": "b" * 60, "siglip": "[bold]c[/bold] \n d"}
    for frame in (rows, costs):
        frame["method"] = frame["method"].replace(names)
    rows["dataset"] = rows["dataset"].replace(DATASETS[0], "x" * 50)
    for table in tables(rows, costs):
        text = printed(table)
        assert max(map(cell_len, text.splitlines())) <= 80
        assert text.count("b") >= 60
        assert text.count("漢") % 30 == 0
        assert "[bold]c[/bold] d" in text
        assert "…" not in text


def test_columns_that_do_not_fit_go_into_blocks_of_like_size():
    cells = [Cell(f"{i}", "12.3–45.6") for i in range(10)]
    table = Table("t", [(f"name{i}", "") for i in range(10)], [("line", cells)], [], "")
    headers = [line.split() for line in printed(table, 50).splitlines() if "name" in line]
    assert [len(names) for names in headers] == [4, 3, 3]
    assert [name for names in headers for name in names] == [f"name{i}" for i in range(10)]
    assert len([line for line in printed(table, 200).splitlines() if "name" in line]) == 1


@given(st.text(st.sampled_from("ab_ -=/,"), max_size=60), st.integers(3, 20))
def test_wrapping_loses_nothing_and_fits(text, width):
    lines = wrap(text, width)
    assert all(len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_numbers_sort_as_numbers():
    assert natural(["16_shot", "2_shot", "1_shot"]) == ["1_shot", "2_shot", "16_shot"]
    assert natural(["m=0.9", "m=0.85", "m=0.995"]) == ["m=0.85", "m=0.9", "m=0.995"]


# Markdown


def test_markdown_has_the_same_numbers():
    for table in tables(*synthetic(3, 4)):
        cells = parsed(to_markdown(table))
        expected = [("", False), *((name + unit, False) for name, unit in table.columns)]
        for label, row in [*table.rows, *table.footer]:
            expected += [(label, False), *((cell.text + cell.under, cell.best) for cell in row)]
        assert cells == expected


@pytest.mark.parametrize(
    "name", ["a|b", "<script>alert(1)</script>", "**x** _y_ `z`", "[a](b) ![c](d)", "a\\b", "&lt;", "~~x~~", "#1 {$x$}"]
)
def test_markdown_shows_a_name_as_it_is(name):
    table = Table(name, [(name, name)], [(name, [Cell(name, best=True)])], [], name)
    assert parsed(to_markdown(table)) == [("", False), (name + name, False), (name, False), (name, True)]


def test_scores_that_do_not_lie_above_the_guesses_are_marked():
    """A model that gives one answer has the majority's accuracy; one without an interval is compared itself."""
    rows = pd.concat(
        [
            one({"collapsed": 0.625, "unsure": 0.7}, majority=0.625, chance=0.5),
            one({"clear": 0.8}, low=0.75, high=0.85, majority=0.625, chance=0.5),
            one({"sure": 0.63, "none": 0.62}, low=None, high=None, majority=0.625, chance=0.5),
            one({"initial": 0.5}, majority=0.625, chance=0.5, role="baseline"),
        ]
    )
    rows, _, lines = label_lines(rows, pd.DataFrame())
    scores = summarise(rows)
    table = score_table(scores, "t", lines, with_guesses({("t", "d", "accuracy", "collapsed"): "†"}, scores))
    texts = {line: cells[0].text for line, cells in [*table.rows, *table.footer] if line in lines}
    marked = {"collapsed": "62.5†§", "none": "62.0§", "unsure": "70.0§"}
    assert texts == marked | {"clear": "80.0", "sure": "63.0", "initial": "50.0"}
    assert "§: its interval does not lie above what guesses get" in table.caption
