"""Verdicts and ranks of a report against the statistics of the examples themselves."""

import io
from dataclasses import replace
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from benchmark.common.errors import BenchError
from benchmark.common.seeding import generator
from benchmark.evaluation.measurement import Mean
from benchmark.evaluation.replicates import conclude, difference, estimate
from benchmark.evaluation.statistics import Ranks, holm, resample
from benchmark.report.comparison import (
    against_baselines,
    comparisons,
    default_reference,
    difference_table,
    differences,
    find_reference,
    marks,
    missing_ranks,
    own_baselines,
    points,
    rank_table,
    rankings,
    verdict,
)
from benchmark.report.plots import Ranking, cliques, rank_chart
from benchmark.report.render import to_markdown, to_terminal
from benchmark.report.results import Resamples, label_lines, natural
from benchmark.report.scores import missing, score_table, summarise, vocabularies
from benchmark.report.sections import read_results, write_report
from tests.report.fakes import synthetic
from tests.report.reading import assert_legible

METRIC = Mean("correct")
GROUPS = np.repeat(np.arange(60), 3)


def measured(
    chances: dict[str, float],
    *,
    seeds: int = 1,
    datasets: tuple[str, ...] = ("d",),
    parts: tuple[str, ...] = ("",),
    resamples: int = 500,
) -> tuple[
    pd.DataFrame, dict[tuple[str, str, str, str], np.ndarray], dict[tuple[str, int, str], dict[str, np.ndarray]]
]:
    """Rows and resampled values of methods that are right as often as said, and the examples behind them."""
    rows, drawn, behind = [], {}, {}
    for dataset in datasets:
        random = np.random.default_rng(len(dataset))
        hardness = random.uniform(size=len(GROUPS))
        for method, chance in chances.items():
            for seed in range(seeds):
                for part in parts:
                    correct = (hardness + random.normal(0, 0.1, len(GROUPS)) < chance).astype(float)
                    examples = {"id": np.arange(len(GROUPS)), "group": GROUPS, "correct": correct}
                    behind[method, seed, part] = examples
                    cell = f"{method}-{seed}"
                    rng = generator(0, dataset)
                    values = resample(METRIC, examples, GROUPS, np.unique(GROUPS), resamples, rng)
                    drawn[cell, dataset, part, "accuracy"] = values[None]
                    rows.append(
                        {
                            "suite": "s",
                            "model": "m",
                            "method": method,
                            "variant": "",
                            "seed": seed,
                            "dataset": dataset,
                            "task": "probe",
                            "part": part,
                            "metric": "accuracy",
                            "value": correct.mean(),
                            "low": 0.0,
                            "high": 1.0,
                            "n": len(GROUPS),
                            "groups": 60,
                            "chance": 0.2,
                            "primary": True,
                            "cell": cell,
                            "examples": f"{dataset}{part}",
                            "evaluation": dataset,
                        }
                    )
    return pd.DataFrame(rows), drawn, behind


def not_shown(labelled: pd.DataFrame, resamples: Resamples) -> dict[tuple[str, str, str, str], str]:
    methods = natural(set(labelled.loc[~labelled["baseline"].astype(bool), "line"]))
    return marks(comparisons(labelled, resamples, methods, None, False))


def compared(rows: pd.DataFrame, drawn: dict, reference: str = "a") -> pd.DataFrame:
    labelled, _, lines = label_lines(rows, pd.DataFrame())
    against = {line: reference for line in lines if line != reference}
    return differences(labelled, against, lambda *key: drawn.get(key)).set_index("line")


@pytest.mark.parametrize("seeds", [1, 3])
def test_stored_resamples_give_the_difference_of_the_examples(seeds: int) -> None:
    rows, drawn, examples = measured({"a": 0.5, "b": 0.6}, seeds=seeds)
    found = compared(rows, drawn).loc["b"]
    runs = [[examples[method, seed, ""] for seed in range(seeds)] for method in ("b", "a")]
    expected = difference(METRIC, *runs, 500, np.random.default_rng(1))
    assert found["value"] == pytest.approx(expected.value)
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high), abs=0.01)
    assert found["p"] == pytest.approx(expected.p, abs=0.02)


def test_pairing_makes_small_differences_visible() -> None:
    rows, drawn, _ = measured({"a": 0.5, "b": 0.6})
    found = compared(rows, drawn).loc["b"]
    alone = np.std(drawn["a-0", "d", "", "accuracy"]) * 1.96 * 2**0.5
    assert found["high"] - found["value"] < 0.8 * alone


WORDS = {1: ("higher for these weights", "lower for these weights"), 3: ("better", "worse")}
WORDS[2] = "higher (2 seeds)", "lower (2 seeds)"


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_verdicts_say_what_they_hold_for(seeds: int) -> None:
    """One seed says something of its weights alone; a method is better only with three."""
    rows, drawn, _ = measured({"a": 0.5, "b": 0.8, "c": 0.2, "e": 0.5, "f": 0.8, "g": 0.2}, seeds=seeds)
    found = compared(rows, drawn)
    better, worse = WORDS[seeds]
    expected = dict.fromkeys("bf", better) | dict.fromkeys("cg", worse) | {"e": "no difference shown"}
    assert found["verdict"].to_dict() == expected
    assert set(found["level"]) == {"these weights" if seeds == 1 else "this method"}
    assert set(found["seeds"]) == {seeds}
    table = difference_table(found.reset_index(), "probe", "a", list("bcefg"))
    assert table.title.endswith(", for these weights") == (seeds == 1)
    assert ("--seeds 3" in table.caption) == (seeds < 3)


def test_too_few_patients_have_no_verdict() -> None:
    rows, drawn, _ = measured({"a": 0.2, "b": 0.8}, seeds=3)
    few = compared(rows.assign(effective_groups=9.4, scarcest=4), drawn).loc["b"]
    assert (few["verdict"], few["scarcest"]) == ("too few positive patients (4)", 4)
    assert few["p"] < 0.05
    assert compared(rows.assign(effective_groups=9.4, scarcest=None), drawn).loc["b", "verdict"] == (
        "too few patients (9)"
    )
    assert compared(rows.assign(effective_groups=10.0, scarcest=4), drawn).loc["b", "verdict"] == "better"
    rows = rows.assign(effective_groups=8.0, start="a-0", role=np.where(rows["method"] == "a", "baseline", None))
    labelled, _, _ = label_lines(rows, pd.DataFrame())
    assert not_shown(labelled, lambda *key: drawn.get(key)) == {("probe", "d", "accuracy", "b"): "†"}


def test_verdicts() -> None:
    assert verdict(0.1, 0.05) == "no difference shown"
    assert verdict(-0.1, 0.049) == "worse"
    assert verdict(0.1, np.nan) == "not tested"


def test_holm_counts_the_tests_of_a_table() -> None:
    rows, drawn, _ = measured({"a": 0.5, "b": 0.55, "c": 0.55}, datasets=("d", "dd"))
    found = compared(rows, drawn).sort_values("p")
    assert found["adjusted"].iloc[0] == pytest.approx(min(1.0, 4 * found["p"].iloc[0]))
    other = rows.assign(task="another")
    both = compared(pd.concat([rows, other]), drawn)
    assert both[both["task"] == "probe"].sort_values("p")["adjusted"].tolist() == found["adjusted"].tolist()


def test_seeds_are_paired_and_parts_averaged() -> None:
    rows, drawn, examples = measured({"a": 0.5, "b": 0.6}, seeds=3, parts=("x", "y"))
    rows = rows[~((rows["method"] == "a") & (rows["seed"] == 0))]
    rows = rows[~((rows["method"] == "b") & (rows["seed"] == 2) & (rows["part"] == "y"))]
    found = compared(rows, drawn).loc["b"]
    means = {m: np.mean([examples[m, 1, p]["correct"].mean() for p in ("x", "y")]) for m in ("a", "b")}
    assert found["value"] == pytest.approx(means["b"] - means["a"])
    values = {m: np.mean([drawn[f"{m}-1", "d", p, "accuracy"][0] for p in ("x", "y")], axis=0) for m in ("a", "b")}
    error = np.std(values["b"] - values["a"], ddof=1) * (60 / 59) ** 0.5
    assert found["high"] - found["value"] == pytest.approx(2.001 * error, rel=1e-3)


def test_other_examples_are_not_tested() -> None:
    rows, drawn, _ = measured({"a": 0.5, "b": 0.8})
    found = compared(rows.assign(examples=rows["method"]), drawn).loc["b"]
    assert found["verdict"] == "not tested"
    assert found["value"] > 0
    assert compared(rows, {}).loc["b", "verdict"] == "not tested"
    assert compared(rows.drop(columns=["examples"]), drawn).loc["b", "verdict"] == "not tested"


def test_runs_with_fewer_resamples_are_compared_on_those() -> None:
    rows, drawn, _ = measured({"a": 0.5, "b": 0.8})
    few = measured({"a": 0.5, "b": 0.8}, resamples=100)[1]
    mixed = {key: few[key] if key[0] == "b-0" else values for key, values in drawn.items()}
    assert compared(rows, mixed).loc["b", "low"] == pytest.approx(compared(rows, few).loc["b", "low"])


def test_reference() -> None:
    rows, _, _ = measured({"a": 0.5, "b": 0.8, "c": 0.9}, datasets=("d", "dd"))
    rows = rows[~((rows["method"] == "c") & (rows["dataset"] == "dd"))]
    labelled, _, _ = label_lines(rows, pd.DataFrame())
    assert default_reference(summarise(labelled)) == "b"
    assert default_reference(summarise(labelled[labelled["method"] == "a"])) is None
    assert find_reference("a", labelled) == "a"
    with pytest.raises(BenchError, match="Known: a, b, c"):
        find_reference("x", labelled)
    variants = pd.concat([rows, rows[rows["method"] == "a"].assign(variant="v", cell="v")])
    labelled, _, _ = label_lines(variants, pd.DataFrame())
    assert find_reference("a · v", labelled) == "a · v"
    assert find_reference("a", labelled) == "a"
    assert find_reference("b", labelled) == "b"
    named = variants[variants["method"] == "a"].assign(method="siglip")
    named["variant"] = "training." + named["variant"].where(named["variant"] == "v", "w")
    labelled, _, _ = label_lines(named, pd.DataFrame())
    with pytest.raises(BenchError, match="did you mean 'siglip'"):
        find_reference("siglipp", labelled)
    with pytest.raises(BenchError, match=r"Known: siglip · training\.v, siglip · training\.w"):
        find_reference("siglip", labelled)


def test_what_does_not_beat_its_initial_weights_is_marked() -> None:
    rows, drawn, _ = measured({"a": 0.5, "b": 0.9, "initial": 0.5})
    rows = rows.assign(role=np.where(rows["method"] == "initial", "baseline", None), start="initial-0", majority=0.3)
    labelled, _, lines = label_lines(rows, pd.DataFrame())
    assert lines == ["a", "b", "initial"]
    marked = not_shown(labelled, lambda *key: drawn.get(key))
    assert marked == {("probe", "d", "accuracy", "a"): "†"}
    assert not_shown(labelled, lambda *_: None) == {("probe", "d", "accuracy", "a"): "†"}
    assert not_shown(labelled.drop(columns="start"), lambda *_: None) == {}
    scores = summarise(labelled)
    table = score_table(scores, "probe", lines, marked)
    assert [(line, "†" in cells[0].text, cells[0].best) for line, cells in table.rows] == [
        ("a", True, False),
        ("b", False, True),
    ]
    assert [line for line, _ in table.footer] == ["initial", "majority", "chance", "examples"]
    assert table.footer[1][1][0].text == "30.0"
    assert "†: not shown to beat" in table.caption
    assert "‡" not in table.caption
    assert default_reference(scores) == "b"
    same = score_table(summarise(labelled.assign(majority=0.2)), "probe", lines)
    assert [line for line, _ in same.footer] == ["initial", "chance, majority", "examples"]
    assert "†" not in same.caption


def test_each_evaluated_model_is_held_against_its_own_baselines() -> None:
    """Three models from elsewhere, whose baselines differ more than the models do."""
    chances = {"a": 0.6, "b": 0.6, "c": 0.6, "a-random": 0.6, "b-random": 0.3, "c-random": 0.6}
    chances |= {"a-pixels": 0.3, "b-pixels": 0.7, "c-pixels": 0.7}
    rows, drawn, _ = measured(chances)
    kind = rows["method"].str.split("-").str[-1].map({"random": "untrained", "pixels": "raw pixels"})
    of = rows["method"].str[0]
    rows = rows.assign(
        role=np.where(kind.isna(), "model", "baseline"),
        model=np.where(kind.isna(), "", of),
        method=kind.fillna(rows["method"]),
        start=of + "-random-0",
        raw_pixels=of + "-pixels-0",
    )
    labelled, _, lines = label_lines(rows, pd.DataFrame())
    assert lines == ["a", "b", "c", *(f"{name} · {model}" for name in ("raw pixels", "untrained") for model in "abc")]

    def resamples(*key: str) -> np.ndarray | None:
        return drawn.get(key)  # type: ignore[arg-type]

    assert own_baselines(labelled, "start") == {model: f"untrained · {model}" for model in "abc"}
    marked = not_shown(labelled, resamples)
    assert marked == {("probe", "d", "accuracy", model): mark for model, mark in (("a", "†"), ("b", "‡"), ("c", "†‡"))}
    table = score_table(summarise(labelled), "probe", lines, marked)
    assert [cells[0].text[4:] for _, cells in table.rows] == ["†", "‡", "†‡"]
    assert "†: not shown to beat the model before training" in table.caption
    assert "‡: not shown to beat raw pixels" in table.caption

    value = dict(zip(labelled["line"], labelled["value"]))
    results = read_results(rows, pd.DataFrame(), lambda *_: {}, resamples, None)
    assert results is not None
    before, pixels = against_baselines(results.of_task("probe"))
    assert before.page_only
    for table, name in ((before, "untrained"), (pixels, "raw pixels")):
        assert [(line, cells[0].text) for line, cells in table.rows] == [
            (line, points(value[line] - value[f"{name} · {line}"])) for line in "abc"
        ]
    (alone,) = {table.page_only for table in against_baselines(replace(results, reference=None).of_task("probe"))}
    assert not alone


def test_a_model_of_random_weights_is_marked_and_not_compared_with_itself() -> None:
    rows, drawn, _ = measured({"a": 0.6})
    rows = rows.assign(role="model", start="a-0", raw_pixels="elsewhere")

    def resamples(*key: str) -> np.ndarray | None:
        return drawn.get(key)  # type: ignore[arg-type]

    labelled, _, _ = label_lines(rows, pd.DataFrame())
    assert not_shown(labelled, resamples) == {("probe", "d", "accuracy", "a"): "†"}
    results = read_results(rows, pd.DataFrame(), lambda *_: {}, resamples, None)
    assert results is not None
    assert list(against_baselines(results.of_task("probe"))) == []


def test_weights_from_elsewhere_make_no_verdict_on_a_method_whatever_the_seeds() -> None:
    rows, drawn, _ = measured({"a": 0.3, "b": 0.8, "c": 0.8}, seeds=3)
    found = compared(rows.assign(role=np.where(rows["method"] == "c", "model", None)), drawn)
    assert found["verdict"].to_dict() == {"b": "better", "c": "higher for these weights"}
    assert found["level"].to_dict() == {"b": "this method", "c": "these weights"}
    # So does a method that is compared with them.
    found = compared(rows.assign(role=np.where(rows["method"] == "a", "model", None)), drawn)
    assert set(found["verdict"]) == {"higher for these weights"}


def test_a_line_is_held_against_its_initial_weights_under_the_same_options() -> None:
    plain, drawn, _ = measured({"a": 0.6, "initial": 0.3})
    option, drawn_too, _ = measured({"a": 0.6, "initial": 0.9})
    drawn |= {(cell, "other", *rest): values for (cell, _, *rest), values in drawn_too.items()}
    rows = pd.concat([plain, option.assign(variant="option", evaluation="other")])
    rows = rows.assign(role=np.where(rows["method"] == "initial", "baseline", None), start="initial-0")
    labelled, _, _ = label_lines(rows, pd.DataFrame())
    assert not_shown(labelled, lambda *key: drawn.get(key)) == {("probe", "d", "accuracy", "a · option"): "†"}


def test_a_baseline_is_never_bold() -> None:
    rows, _, _ = measured({"a": 0.5, "b": 0.6, "initial": 0.9})
    rows = rows.assign(role=np.where(rows["method"] == "initial", "baseline", None))
    labelled, _, lines = label_lines(rows, pd.DataFrame())
    table = score_table(summarise(labelled), "probe", lines)
    assert [(line, cells[0].best) for line, cells in [*table.rows, table.footer[0]]] == [
        ("a", False),
        ("b", True),
        ("initial", False),
    ]
    below = score_table(summarise(labelled.assign(majority=0.95)), "probe", lines)
    assert not any(cells[0].best for _, cells in below.rows)


def test_the_table_says_so() -> None:
    rows, drawn, _ = measured({"a": 0.5, "b": 0.8, "e": 0.5}, datasets=("d", "dd"))
    found = compared(rows, drawn).reset_index()
    table = difference_table(found, "probe", "a", ["a", "b", "e"])
    assert [line for line, _ in table.rows] == ["b", "e"]
    page = to_markdown(table)
    assert "difference to a, in points" in page
    assert "better" in page
    assert "no difference<br>" not in page
    assert "<sub>no difference</sub><br><sub>shown</sub>" in page
    assert "4 tests" in page
    console = Console(width=80, file=io.StringIO())
    for part in to_terminal(table, 80):
        console.print(part)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 80
    assert "better" in text
    assert "difference" in text
    assert points(0.0312) == "+3.1"
    assert points(-0.5) == "−50.0"


def scored(values: dict[str, list[float]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"task": "t", "dataset": f"d{i}", "metric": "accuracy", "line": line, "value": value, "seeds": 3}
            for line, of_line in values.items()
            for i, value in enumerate(of_line)
        ]
    )


def test_mean_ranks_by_hand() -> None:
    scores = scored({"a": [9, 9, 9, 9, 1], "b": [5, 5, 5, 5, 5], "c": [1, 1, 1, 1, 9]})
    ranking = rankings(scores, ["a", "b", "c"])[0]
    assert ranking.ranks is not None
    assert ranking.ranks.mean.tolist() == [1.4, 2.0, 2.6]
    assert ranking.ranks.critical_difference == pytest.approx(2.343 * (3 * 4 / (6 * 5)) ** 0.5, abs=1e-3)
    table = rank_table([ranking], ["a", "b", "c"])
    assert [(line, cells[0].text, cells[0].best) for line, cells in table.rows] == [
        ("a", "1.40", True),
        ("b", "2.00", False),
        ("c", "2.60", False),
    ]
    assert table.footer[2][1][0].text == "5"


def test_too_few_to_rank_says_why() -> None:
    few = rankings(scored({"a": [1] * 4, "b": [2] * 4, "c": [3] * 4}), ["a", "b", "c"])
    assert few[0].ranks is None
    assert missing_ranks(few) == (
        "No mean ranks of t: the test needs 5 datasets and 3 lines, "
        "found 4 datasets with results of all lines, 3 lines."
    )
    assert rankings(scored({"a": [1] * 9, "b": [2] * 9}), ["a", "b"])[0].ranks is None
    assert missing_ranks(rankings(scored({x: [i] * 5 for i, x in enumerate("abc")}), list("abc"))) == ""


def test_cliques() -> None:
    ranks = Ranks(np.array([3.4, 1.0, 2.6, 1.6]), 0.01, 1.0)
    assert cliques(ranks) == [(1.0, 1.6), (1.6, 2.6), (2.6, 3.4)]
    assert cliques(Ranks(ranks.mean, 0.01, 0.5)) == []
    assert cliques(Ranks(ranks.mean, 0.01, 9.0)) == [(1.0, 3.4)]
    assert cliques(Ranks(ranks.mean, 0.06, 0.5)) == [(1.0, 3.4)]


@pytest.mark.parametrize("count", [3, 4, 12])
def test_the_diagram_is_legible(count: int) -> None:
    lines = [f"a method of some name, number {i}, with options" for i in range(count)]
    mean = np.linspace(1, count, count)
    found = [Ranking("task", lines, 12, Ranks(mean, 0.01, 1.2)), Ranking("none", [], 0, None, "why")]
    assert_legible(rank_chart(found, lines))


def test_the_whole_report(tmp_path: Path) -> None:
    rows, costs = synthetic(3, 5, seeds=2)
    rows = rows[rows["task"].isin(["retrieval", "vqa"])]
    rows = rows.assign(examples=rows["dataset"] + rows["part"], evaluation=rows["task"] + rows["dataset"], groups=90)
    random = np.random.default_rng(0)
    console = Console(width=80, file=io.StringIO())
    files = write_report(rows, costs, tmp_path, console, lambda *_: random.normal(size=(1, 50)), "msd")
    assert tmp_path / "plots" / "ranks.png" in files
    page = files[0].read_text(encoding="utf-8")
    assert "difference to msd, in points" in page
    assert "## mean rank over datasets" in page
    assert max(map(len, console.file.getvalue().splitlines())) <= 80  # type: ignore[attr-defined]
    assert "because the reference is the best of them" not in page
    with pytest.raises(BenchError, match="did you mean 'siglip'"):
        write_report(rows, costs, tmp_path, console, reference="sigclip")


def test_the_caption_says_how_many_answers_there_are_and_which_metrics_are_missing() -> None:
    rows, _, _ = measured({"a": 0.5, "b": 0.6}, datasets=("d", "dd"))
    labelled, _, _ = label_lines(rows, pd.DataFrame())
    notes = {"d": {"": {"vocabulary": 1458}}, "dd": {"": {"vocabulary": 7, "missing": {"zero": "it takes years"}}}}
    assert vocabularies(labelled, lambda cell, key: notes[key]) == (
        " Only answers of train are given: d 1,458, dd 7 different ones."
    )
    assert missing(labelled, lambda cell, key: notes[key]) == " No zero of dd: it takes years."
    assert vocabularies(labelled, lambda *_: {}) == missing(labelled, lambda *_: {}) == ""


def test_guesses_without_the_images_and_ceilings_stand_below_the_scores_and_must_be_beaten() -> None:
    """a's own guess is 0.25 and 0.35 in two seeds, b's 0.4 and 0.5: the higher mean, 45.0, is the one to beat."""
    rows, _, _ = measured({"a": 0.5, "b": 0.6}, seeds=2)
    by_line = {("a", 0): 0.25, ("a", 1): 0.35, ("b", 0): 0.4, ("b", 1): 0.5}
    guesses = [{"text alone": by_line[key], "lookup": 0.3} for key in zip(rows["method"], rows["seed"])]
    labelled, _, lines = label_lines(rows.assign(blind=guesses, majority=0.2, ceiling=0.95), pd.DataFrame())
    table = score_table(summarise(labelled), "probe", lines)
    footer = {name: cells[0].text for name, cells in table.footer}
    assert list(footer) == ["text alone", "lookup", "chance, majority", "ceiling", "examples"]
    assert (footer["text alone"], footer["lookup"], footer["ceiling"]) == ("45.0", "30.0", "95.0")
    assert "text alone, lookup: without the images, the highest of all lines. ceiling: the hig" in table.caption
    assert [cells[0].best for _, cells in table.rows] == [False, True]
    strong = [guess | {"lookup": 0.7} for guess in guesses]
    beaten = score_table(summarise(labelled.assign(blind=strong)), "probe", lines)
    assert not any(cells[0].best for _, cells in beaten.rows)


def test_the_highest_mean_guess_is_the_one_the_best_mean_must_beat() -> None:
    rows, _, _ = measured({"a": 0.5, "b": 0.6}, datasets=("d", "dd"))
    guesses = [{"lookup": 0.7 if dataset == "d" else 0.66} for dataset in rows["dataset"]]
    labelled, _, lines = label_lines(rows.assign(blind=guesses), pd.DataFrame())
    table = score_table(summarise(labelled), "probe", lines)
    assert dict(table.footer)["lookup"][-1].text == "68.0"
    assert not any(cell.best for _, cells in table.rows for cell in cells)
    only_d = [guess if dataset == "d" else {} for guess, dataset in zip(guesses, rows["dataset"])]
    of_one = score_table(summarise(labelled.assign(blind=only_d)), "probe", lines)
    assert [cell.text for cell in dict(of_one.footer)["lookup"]] == ["70.0", "—", "—"]
    assert [cells[1].best for _, cells in of_one.rows] == [False, True]


def any_verdict(methods: int, seeds: int, reference: int | None) -> float:
    """How often there is one among methods that are equally good, measured on the same test set of 60 patients; the
    best one is the reference where none is given.
    """
    random = np.random.default_rng(methods)
    drawn = random.multinomial(60, np.full(60, 1 / 60), 1000).T / 60
    # A test of single seeds is of these weights, which are not equally good where seeds differ.
    seed_sd = 0.02 if seeds > 1 else 0.0
    found = []
    for _ in range(1000):
        # What is hard is so for all methods, or for all seeds of one, or at random.
        hard = random.normal(0.5, 0.2, 60) + random.normal(0, 0.1, (methods, 1, 60))
        quality = hard + random.normal(0, seed_sd, (methods, seeds, 1)) + random.normal(0, 0.1, (methods, seeds, 60))
        values, resampled = quality.mean(axis=2), quality @ drawn
        best = int(values.mean(axis=1).argmax()) if reference is None else reference
        others = [i for i in range(methods) if i != best]
        differences = [(values[i] - values[best], resampled[i] - resampled[best]) for i in others]
        p = [each.p for each in conclude([estimate(v[:, None], r[:, None], 60) for v, r in differences])]
        found.append((holm(p, comb(methods, 2) if reference is None else 0) < 0.05).any())
    return float(np.mean(found))


@pytest.mark.parametrize("methods", [3, pytest.param(6, marks=pytest.mark.slow), 12])
@pytest.mark.parametrize("seeds", [1, *(pytest.param(x, marks=pytest.mark.slow) for x in (2, 3, 5))])
def test_a_verdict_among_equals_is_rare_though_the_best_is_the_reference(methods: int, seeds: int) -> None:
    assert any_verdict(methods, seeds, None) <= 0.06


@pytest.mark.slow
def test_a_verdict_among_equals_is_as_rare_as_promised_with_a_reference_that_was_given() -> None:
    assert 0.025 <= any_verdict(6, 1, 0) <= 0.06


def test_a_reference_that_the_scores_made_is_corrected_for_all_pairs() -> None:
    rows, drawn, _ = measured({"a": 0.5, "b": 0.55, "c": 0.55, "e": 0.6}, datasets=("d", "dd"))
    rows = rows[(rows["method"] != "c") | (rows["dataset"] != "dd")]
    labelled, _, lines = label_lines(rows, pd.DataFrame())
    against = {line: "e" for line in lines if line != "e"}
    given, picked = (differences(labelled, against, lambda *key: drawn.get(key), picked=x) for x in (False, True))
    # Two datasets with the pairs of four lines and of three.
    assert given["tests"].unique().tolist() == [5]
    assert picked["tests"].unique().tolist() == [6 + 3]
    np.testing.assert_allclose(picked["adjusted"], holm(picked["p"].tolist(), 9))
    said = [
        difference_table(given, "probe", "e", lines).caption,
        difference_table(picked, "probe", "e", lines, True).caption,
    ]
    assert "for the 5 tests of this table" in said[0]
    assert "for 9 tests, one for each pair of lines and dataset, because the reference is the best line" in said[1]


def test_the_files_have_the_numbers_of_the_tables_and_more(tmp_path: Path) -> None:
    """differences.csv against the examples themselves; scores.csv against pandas."""
    rows, drawn, examples = measured({"a": 0.5, "b": 0.7, "initial": 0.4}, seeds=3, datasets=("d", "dd"))
    rows = rows.assign(
        role=np.where(rows["method"] == "initial", "baseline", None), start=[f"initial-{seed}" for seed in rows["seed"]]
    )
    other = rows.assign(metric="ece", primary=False, value=rows["value"] / 2)
    both = pd.concat([rows, other], ignore_index=True)
    write_report(both, pd.DataFrame(), tmp_path, Console(file=io.StringIO()), lambda *key: drawn.get(key), "a")
    differences_csv = pd.read_csv(tmp_path / "differences.csv")
    assert list(differences_csv.columns) == [
        *["kind", "dataset", "metric", "line", "other", "against", "n", "groups", "effective_groups", "scarcest"],
        *["seeds", "level", "difference", "low", "high", "p", "tests", "p_holm", "verdict"],
    ]
    keys = zip(differences_csv["against"], differences_csv["line"], differences_csv["other"])
    assert set(keys) == {("reference", "b", "a"), ("start", "a", "initial"), ("start", "b", "initial")}
    row = differences_csv[(differences_csv["against"] == "reference") & (differences_csv["dataset"] == "dd")].iloc[0]
    runs = [[examples[method, seed, ""] for seed in range(3)] for method in ("b", "a")]
    assert row["difference"] == pytest.approx(difference(METRIC, *runs, 10, np.random.default_rng(0)).value)
    assert (row["n"], row["groups"], row["seeds"], row["level"]) == (180, 60, 3, "this method")
    assert row["verdict"] == "better"
    of_pair = differences_csv[differences_csv["against"] == "reference"]
    np.testing.assert_allclose(of_pair["p_holm"], holm(of_pair["p"].to_numpy()))
    scores_csv = pd.read_csv(tmp_path / "scores.csv").set_index(["metric", "dataset", "line"])
    assert len(scores_csv) == 2 * 2 * 3
    for (metric, dataset, method), of_line in both.groupby(["metric", "dataset", "method"]):
        score = scores_csv.loc[(metric, dataset, method)]
        assert (score["mean"], score["deviation"]) == pytest.approx((of_line["value"].mean(), of_line["value"].std()))
        assert (score["seeds"], score["level"], score["primary"]) == (3, "this method", metric == "accuracy")
        assert score["low"] <= score["mean"] <= score["high"]
