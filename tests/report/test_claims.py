"""Verdicts on claims against results whose truth is known."""

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console
from scipy import stats

from benchmark import Results
from benchmark.common.errors import BenchError
from benchmark.config.claims import Claim, Claims
from benchmark.config.load import read_suite
from benchmark.config.yaml_files import config_names, find_config
from benchmark.evaluation.replicates import conclude, estimate
from benchmark.report.claims import COLUMNS, claim_parts, claims_frame
from benchmark.report.page import print_part
from benchmark.report.render import Sentence, Table
from benchmark.report.sections import verdicts_of, write_report
from benchmark.report.verdicts import Measured, Verdict, judged
from benchmark.store.store import Store
from tests.report.trials import Drawn, trials
from tests.squares import Bench, edit

COMMON = {"text": "as the paper says", "source": "Somebody 2020"}
GAIN = COMMON | {"kind": "gain", "a": "a", "b": "b", "tasks": "retrieval"}
NO_GAIN = GAIN | {"kind": "no_gain", "margin": 1}
LEVEL = COMMON | {"kind": "level", "a": "a", "tasks": "retrieval", "above": 90}
COST = COMMON | {"kind": "cost", "a": "a", "b": "b", "column": "parameters_trainable", "at_most": 61}


def claim(**fields: Any) -> Claim:
    return Claims.model_validate({"claims": {"c": fields}}).claims["c"]


def judge(
    fields: dict[str, Any], rows: pd.DataFrame, drawn: Drawn | None = None, costs: pd.DataFrame | None = None
) -> list[Verdict]:
    stated = {"s": {"c": claim(**fields)}}
    costs = pd.DataFrame() if costs is None else costs
    return verdicts_of(rows, costs, lambda *key: (drawn or {}).get(key), stated)


def one(*arguments: Any, **named: Any) -> Verdict:
    (verdict,) = judge(*arguments, **named)
    return verdict


def ran(values: dict[str, float], **columns: Any) -> pd.DataFrame:
    """Costs of three seeds of each arm; a list is a value for each seed."""
    return pd.DataFrame(
        [
            {
                "suite": "s",
                "model": "tiny",
                "arm": arm,
                "method": "clip",
                "variant": "",
                "pretraining": "p",
                "seed": seed,
            }
            | {"cell": f"{arm}-{seed}", "device": "cpu"}
            | {name: np.broadcast_to(of_arms[arm], 3)[seed] for name, of_arms in columns.items()}
            for arm in values
            for seed in range(3)
        ]
    )


INTERVALS = [
    # A gain at all.
    (GAIN, 0.1, 4, "supported"),
    (GAIN, -1, 4, "not shown"),
    (GAIN, 0, 4, "not shown"),
    (GAIN, -4, -0.1, "contradicted"),
    # A gain of two points or more.
    (GAIN | {"at_least": 2}, 0.5, 2.5, "supported"),
    (GAIN | {"at_least": 2}, 3, 5, "supported"),
    (GAIN | {"at_least": 2, "at_most": 3}, 4, 5, "supported"),
    (GAIN | {"at_least": 2}, 0.5, 1.9, "contradicted"),
    (GAIN | {"at_least": 2}, -1, 1.9, "contradicted"),
    (GAIN | {"at_least": 2}, -5, -1, "contradicted"),
    (GAIN | {"at_least": 2}, -0.1, 2.5, "not shown"),
    # No gain that counts, from one point on.
    (NO_GAIN, -1, 0.9, "supported"),
    (NO_GAIN, 0.1, 0.9, "supported"),
    (NO_GAIN, 1.1, 2, "contradicted"),
    (NO_GAIN, 0.1, 2, "not shown"),
    (NO_GAIN, -1, 2, "not shown"),
    (NO_GAIN | {"margin": 0}, -1, -0.1, "supported"),
    (NO_GAIN | {"margin": 0}, 0, 0, "supported"),
    (NO_GAIN | {"margin": 0}, 0.1, 1, "contradicted"),
    (NO_GAIN | {"margin": 0}, -0.1, 1, "not shown"),
    # A level.
    (LEVEL, 90.1, 95, "supported"),
    (LEVEL, 80, 89.9, "contradicted"),
    (LEVEL, 89, 91, "not shown"),
]


@pytest.mark.parametrize(("fields", "low", "high", "expected"), INTERVALS)
def test_an_interval_decides(fields: dict[str, Any], low: float, high: float, expected: str) -> None:
    measured = Measured("b", (low + high) / 200, low / 100, high / 100, seeds=3)
    assert judged(claim(**fields), measured)[0] == expected
    alone = Measured("b", (low + high) / 200, low / 100, high / 100, seeds=1)
    assert judged(claim(**fields), alone) == ("not shown", "One seed says nothing about other seeds.")
    two = Measured("b", (low + high) / 200, low / 100, high / 100, seeds=2)
    assert judged(claim(**fields), two) == ("not shown", "A verdict on a method needs 3 seeds.")
    few = Measured("b", (low + high) / 200, low / 100, high / 100, seeds=3, too_few="too few positive patients (4)")
    assert judged(claim(**fields), few) == ("not shown", "Too few positive patients (4).")
    unknown = Measured("b", (low + high) / 200, float("nan"), float("nan"), seeds=3)
    assert judged(claim(**fields), unknown)[0] == "not shown"


def test_known_truths_come_out() -> None:
    rows, drawn = trials({"a": 0.6, "b": 0.5, "same": 0.6}, datasets=("d", "e"), spread=0.005)
    assert one(GAIN, rows, drawn).verdict == "supported"
    assert one(GAIN | {"at_least": 8}, rows, drawn).verdict == "supported"
    assert one(GAIN | {"at_least": 30}, rows, drawn).verdict == "contradicted"
    assert one(GAIN | {"a": "b", "b": "a"}, rows, drawn).verdict == "contradicted"
    assert one(GAIN | {"b": "same"}, rows, drawn).verdict == "not shown"
    assert one(NO_GAIN | {"a": "b", "b": "a"}, rows, drawn).verdict == "supported"
    assert one(NO_GAIN, rows, drawn).verdict == "contradicted"
    assert one(NO_GAIN | {"b": "same", "margin": 8}, rows, drawn).verdict == "supported"
    assert one(LEVEL, rows, drawn).verdict == "contradicted"
    assert one(LEVEL | {"above": 30}, rows, drawn).verdict == "supported"
    wide, drawn = trials({"a": 0.6, "b": 0.5}, spread=0.1)
    assert one(GAIN, wide, drawn).verdict == "not shown"


def test_a_mean_over_datasets_and_tasks_is_that_of_each_seed_and_resample() -> None:
    """The value by hand; the interval is that of conclude() on the means that are made by hand."""
    retrieval, drawn = trials({"a": 0.6, "b": 0.57}, datasets=("d", "e", "f"))
    probe, more = trials({"a": 0.8, "b": 0.78}, datasets=("d",), task="linear_probe")
    rows, drawn = pd.concat([retrieval, probe]), drawn | more
    verdict = one(GAIN | {"tasks": ["retrieval", "linear_probe"]}, rows, drawn)
    assert verdict.measured is not None
    value = rows.groupby(["task", "dataset", "arm", "seed"])["value"].first()
    task_means = value.groupby(["task", "arm", "seed"]).mean()
    means = task_means.groupby(["arm", "seed"]).mean()
    assert verdict.measured.value == pytest.approx((means["a"] - means["b"]).mean())
    of = {
        (arm, seed): np.mean([drawn[f"{arm}-{seed}", f"retrieval-{name}", "", "recall@10"] for name in "def"], axis=0)
        / 2
        + drawn[f"{arm}-{seed}", "linear_probe-d", "", "recall@10"] / 2
        for arm in "ab"
        for seed in range(3)
    }
    a, b = (np.array([of[arm, seed][0] for seed in range(3)]) for arm in "ab")
    difference = (means["a"] - means["b"]).to_numpy()
    (expected,) = conclude([estimate(difference[:, None], (a - b)[:, None], 60)])
    assert (verdict.measured.low, verdict.measured.high) == pytest.approx((expected.low, expected.high))
    assert verdict.measured.examples == 3 * 60
    assert len(verdict.measured.columns) == 4
    single = one(GAIN | {"datasets": ["e"]}, rows, drawn).measured
    of_column = verdict.measured.columns["retrieval", "e", "recall@10"]
    assert single is not None
    assert (single.value, single.low) == (of_column.value, of_column.low)


def test_many_datasets_narrow_the_interval_as_independent_patients_do() -> None:
    """The variance of the mean over D datasets is that of one, over D."""
    rows, drawn = trials({"a": 0.6, "b": 0.58}, datasets=tuple("abcdefghi"), patients=200, spread=0, taste=0.1, noise=0)
    measured = one(GAIN, rows, drawn).measured
    assert measured is not None
    error = np.sqrt(2 * 0.1**2 / 200 / 9)
    assert (measured.high - measured.low) / 2 == pytest.approx(stats.t.ppf(0.975, 199) * error, rel=0.1)


def test_only_seeds_that_both_have_on_all_datasets_count() -> None:
    rows, drawn = trials({"a": 0.7, "b": 0.5}, datasets=("d", "e"))
    part = rows[(rows["dataset"] == "d") | (rows["seed"] == 0)]
    verdict = one(GAIN, part, drawn)
    assert verdict.verdict == "not shown"
    assert verdict.measured is not None
    assert verdict.measured.seeds == 1
    assert verdict.command == "bench run --suite s.yaml --methods a,b --tasks retrieval --seeds 3"
    other = rows[(rows["arm"] == "a") == (rows["seed"] == 0)]
    verdict = one(GAIN, other, drawn)
    assert (verdict.verdict, verdict.why[:12]) == ("not run", "No seed has ")
    assert verdict.command == "bench run --suite s.yaml --methods a,b --tasks retrieval --seeds 3"


def test_one_seed_never_decides() -> None:
    rows, drawn = trials({"a": 0.9, "b": 0.1}, seeds=1)
    for fields in (GAIN, GAIN | {"a": "b", "b": "a"}, NO_GAIN, LEVEL, GAIN | {"b": ["b", "b"]}):
        verdict = one(fields, rows, drawn)
        assert verdict.verdict == "not shown"
        assert "One seed says nothing" in verdict.why
        assert verdict.command.endswith("--tasks retrieval --seeds 3")


@pytest.mark.parametrize(
    ("fields", "why", "command"),
    [
        (GAIN | {"a": "c"}, "No results of c in retrieval.", "--methods c --tasks retrieval --seeds 4"),
        (GAIN | {"tasks": ["retrieval", "vqa"]}, "No results of a, b in vqa.", "--methods a,b --tasks vqa --seeds 4"),
        (
            GAIN | {"datasets": ["d", "g"]},
            "No results of a, b in retrieval:g.",
            "--methods a,b --tasks retrieval:g --seeds 4",
        ),
        (LEVEL | {"a": "c"}, "No results of c in retrieval.", "--methods c --tasks retrieval --seeds 4"),
        (GAIN | {"b": ["b", "c"]}, "No results of c in retrieval.", "--methods c --tasks retrieval --seeds 4"),
        (GAIN | {"part": "image_to_text"}, "No results of a, b in retrieval.", "--methods a,b --tasks retrieval"),
    ],
)
def test_what_is_missing_is_named_with_its_command(fields: dict[str, Any], why: str, command: str) -> None:
    rows, drawn = trials({"a": 0.6, "b": 0.5}, datasets=("d", "e"), seeds=4)
    verdict = one(fields, rows, drawn)
    assert (verdict.verdict, verdict.why) == ("not run", why)
    assert verdict.command.startswith(f"bench run --suite s.yaml {command}")


def test_an_arm_that_lacks_a_dataset_is_run_there_alone() -> None:
    rows, drawn = trials({"a": 0.6, "b": 0.5}, datasets=("d", "e", "f"))
    rows = rows[(rows["arm"] == "a") | (rows["dataset"] == "d")]
    verdict = one(GAIN, rows, drawn)
    assert verdict.verdict == "not run"
    assert verdict.command == "bench run --suite s.yaml --methods b --tasks retrieval:e,retrieval:f --seeds 3"


def test_a_command_names_the_data_where_they_are_not_the_suites() -> None:
    stated = {"demo": {"c": claim(**GAIN | {"a": "msd", "b": "clip"})}}
    phantoms = tuple(f"phantom-{name}" for name in ("cxr", "mammo", "histo", "derm", "fundus"))

    def command(datasets: tuple[str, ...], **labels: str) -> str:
        rows, drawn = trials({"msd": 0.6}, datasets=datasets, suite="demo", **labels)
        (verdict,) = verdicts_of(rows, pd.DataFrame(), lambda *key: drawn.get(key), stated)
        return verdict.command.removeprefix("bench run --suite demo --methods clip --tasks retrieval --seeds 3")

    everything = ", ".join(phantoms)
    assert command(phantoms, pretraining=everything) == ""
    assert command(phantoms, pretraining="phantom-cxr") == " --pretraining phantom-cxr"
    assert command(phantoms[:1], pretraining=everything) == " --datasets phantom-cxr"
    both = command(phantoms, pretraining="phantom-cxr, phantom-derm", variant="pretraining=phantom-cxr+phantom-derm")
    assert both == " --pretraining phantom-cxr,phantom-derm"


def test_a_command_knows_the_datasets_that_a_shipped_suite_names_by_their_cards() -> None:
    stated = {"transfer": {"c": claim(**GAIN | {"a": "msd", "b": "clip"})}}
    sets = ("busi", "cxr_pneumonia", "slake_modality_body", "slake_retrieval", "vqa_rad")

    def command(datasets: tuple[str, ...], pretraining: str) -> str:
        rows, drawn = trials(
            {"msd": 0.6}, datasets=datasets, suite="transfer", pretraining=pretraining, model="real-general"
        )
        (verdict,) = verdicts_of(rows, pd.DataFrame(), lambda *key: drawn.get(key), stated)
        return verdict.command.removeprefix("bench run --suite transfer --methods clip --tasks retrieval --seeds 3")

    everything = "slake_captions, hannover, pocus"
    assert command(sets, everything) == ""
    assert re.fullmatch(r" --datasets \S+/busi.yaml", command(sets[:1], everything))
    assert re.fullmatch(r" --pretraining \S+/hannover.yaml", command(sets, "hannover"))


def test_a_claim_about_another_task_is_missing_at_the_settings_that_were_run() -> None:
    rows, drawn = trials({"a": 0.6, "b": 0.5}, variant="training.steps=9")
    verdict = one(GAIN | {"tasks": "vqa"}, rows, drawn)
    assert (verdict.verdict, verdict.setting) == ("not run", "training.steps=9")
    assert verdict.command.endswith("--methods a,b --tasks vqa --seeds 3 --set training.steps=9")


def test_settings_are_in_order_and_shared_ones_stand_once() -> None:
    variants = [f"training.samples={samples}, evaluation.resamples=50" for samples in (1024, 256, 512)]
    every = [trials({"a": 0.6, "b": 0.5}, variant=variant) for variant in variants]
    rows, drawn = pd.concat([rows for rows, _ in every]), {key: x for _, drawn in every for key, x in drawn.items()}
    verdicts = judge(GAIN, rows, drawn)
    assert [each.setting for each in verdicts] == [variants[1], variants[2], variants[0]]
    head, table, *sentences = claim_parts(verdicts)
    assert isinstance(head, Sentence)
    assert head.text == "Claims of suite s, judged at evaluation.resamples=50."
    assert isinstance(table, Table)
    labels = [f"c · training.samples={samples}" for samples in (256, 512, 1024)]
    assert [label for label, _ in table.rows] == labels
    assert all(f"{label}, supported: " in each.text for label, each in zip(labels, sentences))  # type: ignore[union-attr]


def test_nothing_was_run() -> None:
    for fields in (GAIN, NO_GAIN, LEVEL, COST):
        assert one(fields, pd.DataFrame()).verdict == "not run"
    assert one(GAIN, pd.DataFrame()).command == "bench run --suite s.yaml --methods a,b --tasks retrieval --seeds 3"
    rows, drawn = trials({"a": 0.6, "b": 0.5}, suite="another")
    assert one(GAIN, rows, drawn).verdict == "not run"


def test_the_best_must_beat_each_of_the_others() -> None:
    rows, drawn = trials({"a": 0.7, "b": 0.5, "c": 0.6, "near": 0.69, "top": 0.9})
    assert one(GAIN | {"b": ["b", "c"]}, rows, drawn).verdict == "supported"
    near = one(GAIN | {"b": ["b", "c", "near"]}, rows, drawn)
    assert near.verdict == "not shown"
    assert near.measured is not None
    assert near.measured.other == "near"
    # One that is better contradicts, whatever is missing.
    worse = one(GAIN | {"b": ["b", "top", "missing"]}, rows, drawn)
    assert worse.verdict == "contradicted"
    assert worse.why.startswith("a scores ")
    assert " less than top (" in worse.why


@pytest.mark.parametrize("runs", [25, pytest.param(200, marks=pytest.mark.slow)])
def test_a_best_among_equals_is_seldom_contradicted(runs: int) -> None:
    others = [f"o{i}" for i in range(6)]
    found = []
    for random in range(runs):
        rows, drawn = trials(dict.fromkeys(["a", *others], 0.6), random=random, resamples=100, patients=40, spread=0.02)
        found.append(one(GAIN | {"b": others}, rows, drawn).verdict)
    assert found.count("contradicted") <= 0.05 * runs
    assert found.count("supported") <= 0.01 * runs


@pytest.mark.parametrize("runs", [40, pytest.param(600, marks=pytest.mark.slow)])
def test_equal_arms_seldom_support_or_contradict(runs: int) -> None:
    """With three seeds that differ about as much as samples of patients do."""
    found = []
    for random in range(runs):
        arms = {"a": 0.6, "b": 0.6}
        rows, drawn = trials(arms, datasets=("d", "e"), random=random, resamples=100, spread=0.02, taste=0.1)
        found.append(one(GAIN, rows, drawn).verdict)
    assert found.count("supported") <= 0.05 * runs
    assert found.count("contradicted") <= 0.05 * runs


def test_other_test_examples_are_not_compared() -> None:
    rows, drawn = trials({"a": 0.9, "b": 0.1})
    verdict = one(GAIN, rows.assign(examples=rows["arm"]), drawn)
    assert verdict.verdict == "not shown"
    assert "There is no interval: other test examples" in verdict.why
    few, drawn = trials({"a": 0.9, "b": 0.1}, patients=5)
    assert one(GAIN, few, drawn).verdict == "not shown"


def test_lines_with_the_same_overrides_are_compared() -> None:
    """Each setting has a verdict of its own; an override of one arm alone is compared with the other as it is."""
    plain, drawn = trials({"a": 0.6, "b": 0.5})
    steps, more = trials({"a": 0.5, "b": 0.6}, variant="training.steps=9")
    own, most = trials({"a": 0.8}, variant="training.steps=9, momentum=0.5")
    rows, drawn = pd.concat([plain, steps, own]), drawn | more | most
    found = {each.setting: each for each in judge(GAIN, rows, drawn)}
    assert {name: each.verdict for name, each in found.items()} == {
        "": "supported",
        "training.steps=9": "contradicted",
        "training.steps=9, momentum=0.5": "supported",
    }
    gone = rows[(rows["arm"] != "b") | (rows["variant"] == "")]
    commands = {each.setting: each.command for each in judge(GAIN | {"tasks": "vqa"}, gone.assign(task="vqa"), drawn)}
    assert set(commands) == set(found)
    missing = rows[rows["arm"] == "a"]
    commands = {each.setting: each.command for each in judge(GAIN, missing, drawn)}
    assert commands["training.steps=9, momentum=0.5"].endswith(
        "--methods b --tasks retrieval --seeds 3 --set training.steps=9"
    )
    one_seed = own[own["seed"] == 0]
    (alone,) = judge(LEVEL, one_seed, drawn)
    assert alone.command.endswith("--set training.steps=9 --set a.momentum=0.5")


def test_another_model_or_other_pairs_are_not_compared() -> None:
    rows, drawn = trials({"a": 0.6, "b": 0.5})
    for column in ("model", "pretraining"):
        other = rows.assign(**{column: rows[column].where(rows["arm"] == "a", "other")})
        assert one(GAIN, other, drawn).verdict == "not run"


def test_counts_need_no_seeds_and_are_judged_to_the_stated_decimal() -> None:
    for trainable, at_most, expected in ((608, 61, "supported"), (614, 61, "supported"), (616, 61, "contradicted")):
        costs = ran({"a": 1, "b": 1}, parameters_trainable={"a": trainable, "b": 1000})
        assert one(COST | {"at_most": at_most}, pd.DataFrame(), costs=costs[costs["seed"] == 0]).verdict == "not run"
        rows, _ = trials({"a": 0.6, "b": 0.5})
        verdict = one(COST | {"at_most": at_most}, rows, costs=costs[costs["seed"] == 0])
        assert verdict.verdict == expected
        assert f"a has {trainable / 10:.1f} % of the parameters_trainable of b." in verdict.why
    costs = ran({"a": 1}, parameters_trainable={"a": 3})
    assert one(COST, rows, costs=costs).command == "bench run --suite s.yaml --methods b"


def test_a_cost_may_be_compared_with_that_of_another_model() -> None:
    rows, _ = trials({"a": 0.6, "b": 0.5})
    costs = ran({"a": 1, "b": 1}, parameters_trainable={"a": 600, "b": 1000})
    other = costs[costs["arm"] == "b"].assign(model="large", cell="large", parameters_trainable=2000)
    fields = COST | {"b_model": "large"}
    verdict = one(fields, rows, costs=pd.concat([costs, other]))
    assert verdict.verdict == "supported"
    assert verdict.why.startswith("a has 30.0 % of the parameters_trainable of b on large.")
    elsewhere = pd.concat([costs, other.assign(suite="t")])
    assert one(fields, rows, costs=elsewhere).verdict == "supported"
    assert one(fields | {"column": "seconds"}, rows, costs=elsewhere.assign(seconds=1.0)).verdict == "not run"
    assert one(fields, rows, costs=costs).command == "bench run --suite s.yaml --methods b --model large"
    assert one(fields, rows, costs=other).command == "bench run --suite s.yaml --methods a"
    neither = one(fields, pd.DataFrame()).command
    assert neither == "bench run --suite s.yaml --methods a && bench run --suite s.yaml --methods b --model large"


def test_an_arm_may_be_compared_with_itself_on_another_model() -> None:
    rows, drawn = trials({"a": 0.9, "b": 0.4, "c": 0.4})
    # What the drawing calls b is a on another model.
    large = (rows["arm"] == "b", rows["arm"] == "c")
    rows = rows.assign(model=np.where(large[0] | large[1], "large", rows["model"]))
    rows.loc[large[0], ["arm", "method"]] = "a"
    fields = GAIN | {"b": "a", "b_model": "large"}
    verdict = one(fields, rows, drawn)
    assert verdict.verdict == "supported"
    assert "than a on large (" in verdict.why
    assert claims_frame([verdict]).b.item() == "a on large"
    assert one(fields | {"kind": "no_gain", "margin": 1}, rows, drawn).verdict == "contradicted"
    several = one(fields | {"b": ["a", "c"]}, rows, drawn)
    assert [each.other for each in several.all_measured] == ["a on large", "c on large"]
    ours = rows[rows["model"] != "large"]
    assert one(fields, ours, drawn).command == (
        "bench run --suite s.yaml --methods a --tasks retrieval --seeds 3 --model large"
    )
    theirs = one(fields, rows[rows["model"] == "large"], drawn)
    assert theirs.verdict == "not run"
    assert theirs.command == "bench run --suite s.yaml --methods a --tasks retrieval --seeds 3"
    for same in (GAIN | {"b": ["c", "a"]}, NO_GAIN | {"b": "a"}, COST | {"b": "a"}):
        with pytest.raises(ValueError, match="a and b are the same arm"):
            claim(**same)


def test_times_need_seeds_on_one_device() -> None:
    rows, _ = trials({"a": 0.6, "b": 0.5})
    fields = COST | {"column": "seconds", "at_most": 90}
    seconds = {"a": [8.0, 8.1, 8.2], "b": [10.0, 10.0, 10.0]}
    costs = ran(seconds, seconds=seconds)
    verdict = one(fields, rows, costs=costs)
    logs = np.log(np.array(seconds["a"]) / 10)
    half = stats.t.ppf(0.975, 2) * logs.std(ddof=1) / 3**0.5
    assert verdict.verdict == "supported"
    assert verdict.measured is not None
    assert verdict.measured.low == pytest.approx(np.exp(logs.mean() - half))
    assert one(fields | {"at_most": 70}, rows, costs=costs).verdict == "contradicted"
    assert one(fields | {"at_most": 81}, rows, costs=costs).verdict == "not shown"
    assert one(fields, rows, costs=costs[costs["seed"] == 0]).verdict == "not shown"
    elsewhere = costs.assign(device=costs["arm"])
    assert one(fields, rows, costs=elsewhere).why.endswith("The devices differ.")


def test_a_mistaken_metric_is_named() -> None:
    rows, drawn = trials({"a": 0.6, "b": 0.5})
    verdict = one(GAIN | {"metric": "recal@10"}, rows, drawn)
    assert verdict.verdict == "not run"
    assert "unknown metric of retrieval 'recal@10'; did you mean 'recall@10'?" in verdict.why
    secondary = rows.assign(metric="mrr", primary=False)
    assert one(GAIN | {"metric": "mrr"}, pd.concat([rows, secondary]), {}).verdict == "not shown"


def test_the_report_begins_with_the_verdicts(tmp_path: Path) -> None:
    rows, drawn = trials({"a": 0.6, "b": 0.5}, datasets=("d", "e"))
    stated = {"s": {"first": claim(**GAIN), "second": claim(**GAIN | {"a": "c"}), "size": claim(**COST)}}
    console = Console(width=80, file=io.StringIO())
    files = write_report(rows, pd.DataFrame(), tmp_path, console, lambda *key: drawn.get(key), stated=stated)
    page = files[0].read_text(encoding="utf-8")
    assert page.index("## claims of suite s\n") < page.index("## retrieval: recall@10, in percent")
    assert "| first | **supported** | above 0 |" in page
    assert "“as the paper says” (Somebody 2020). a scores " in page
    assert "\n    bench run --suite s.yaml --methods c --tasks retrieval --seeds 3\n" in page
    assert "## claims of suite s on each dataset: retrieval" in page
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "claims of suite s\n" in text
    assert "of suite s on each dataset" not in text
    assert all(len(line) <= 80 for line in text.splitlines() if "bench " not in line)
    table = pd.read_csv(tmp_path / "claims.csv")
    assert list(table.columns) == COLUMNS
    assert table["verdict"].tolist() == ["supported", "not run", "not run"]
    assert tmp_path / "claims.csv" in files
    without = write_report(rows, pd.DataFrame(), tmp_path / "none", console, lambda *key: drawn.get(key))
    assert "claims of" not in without[0].read_text(encoding="utf-8")
    assert not (tmp_path / "none" / "claims.csv").exists()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_terminal_shows_all_of_it(width: int) -> None:
    rows, drawn = trials({"a": 0.6, "b": 0.5}, datasets=tuple("defghijk"))
    console = Console(width=width, file=io.StringIO())
    for part in claim_parts(judge(GAIN, rows, drawn)):
        print_part(part, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    for name in "defghijk":
        assert f" {name}" in text


def test_a_frame_holds_fractions() -> None:
    rows, drawn = trials({"a": 0.6, "b": 0.5})
    row = claims_frame(judge(GAIN | {"at_least": 2, "at_most": 3}, rows, drawn)).iloc[0]
    assert (row["stated"], row["measure"], row["datasets"], row["seeds"]) == ("+2 to +3", "retrieval recall@10", "d", 3)
    assert 0.05 < row["value"] < 0.15
    assert row["low"] < row["value"] < row["high"]


# Through the command line


STATED = {
    "same": GAIN | {"a": "clip", "b": "msd"},
    "smaller": COST | {"a": "clip", "b": "msd", "at_most": 100},
    "absent": GAIN | {"a": "siglip", "b": "clip"},
}


def test_claims_go_with_the_results(bench: Bench, tmp_path: Path) -> None:
    """A run keeps its suite's claims, so that a folder that was moved still answers."""
    edit(bench.folder / "suite.yaml", claims=STATED)
    quick = ["--suite", "suite.yaml", "--tasks", "retrieval", "--budget", "samples=64"]
    assert bench("claims", "--suite", "suite.yaml") == 0
    assert bench.out.count("not run") == 2 + 2
    counted = Results(Store(bench.folder / "results")).claims("suite.yaml").set_index("claim").loc["smaller"]
    assert "Counted without training: clip, msd." in counted["explanation"]
    assert bench("run", *quick, "--seeds", "2") == 0, bench.out + bench.err
    results = bench.folder / "results"
    (bench.folder / "suite.yaml").unlink()
    moved = results.rename(tmp_path / "moved")
    assert bench("claims", "--results", str(moved)) == 0
    assert "smaller" in bench.out
    assert "    bench run --suite suite.yaml --methods siglip --tasks retrieval --seeds 3" in bench.out
    table = Results.open(moved).claims()
    table = table.set_index("claim")
    assert table["verdict"][["smaller", "absent"]].tolist() == ["supported", "not run"]
    assert table["verdict"]["same"] in ("supported", "not shown", "contradicted")
    assert table["seeds"]["same"] == 2
    assert (table["value"]["smaller"], counted["verdict"]) == (counted["value"], "supported")
    assert bench("report", "--details", "--results", str(moved)) == 0
    assert bench.out.index("claims of suite suite") < bench.out.index("retrieval: recall@10")
    written = json.loads((moved / "claims.json").read_text())["content"]
    assert list(written) == ["suite"]


def test_a_suite_that_states_nothing_any_more_has_no_claims(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.keep_claims("s", {})
    assert not list(tmp_path.iterdir())
    store.keep_claims("s", {"c": claim(**GAIN)})
    store.keep_claims("t", {"c": claim(**LEVEL)})
    assert store.claims() == {"s": {"c": claim(**GAIN)}, "t": {"c": claim(**LEVEL)}}
    store.keep_claims("s", {})
    assert store.claims() == {"t": {"c": claim(**LEVEL)}}
    (tmp_path / "claims.json").write_text('{"t": {"c": {"kind": "gain"}}}')
    with pytest.raises(BenchError, match=r"claims\.json, suite t: claims\.c\.gain\.\w+ is missing"):
        store.claims()


def test_no_claims_says_where_they_are_stated(bench: Bench) -> None:
    assert bench("claims", "--suite", "suite.yaml") == 0
    assert "no claims of suite suite.yaml; a suite states them under claims:" in bench.out
    assert bench("claims") == 0
    assert "no claims of the suites that were run in results" in bench.out
    assert "bench claims --suite cxr shows what it takes to test them" in " ".join(bench.out.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": "clp"}, "unknown arm of claim 'c' 'clp'; did you mean 'clip'"),
        ({"b": ["clip", "msdd"]}, "unknown arm of claim 'c' 'msdd'; did you mean 'msd'"),
        ({"tasks": "retreival"}, "unknown task of claim 'c' 'retreival'; did you mean 'retrieval'"),
        ({"datasets": ["square"]}, "unknown dataset of claim 'c' 'square'; did you mean 'squares'"),
        ({"kind": "gian"}, "suite.yaml: unknown kind of claims.c 'gian'; did you mean 'gain'"),
        ({"att_least": 3}, "suite.yaml: unknown key of claims.c 'att_least'; did you mean 'at_least'"),
        ({"at_least": 3, "at_most": 2}, "at_most: expected at_least (3) or more, found 2"),
        ({"at_least": 3, "b": ["clip", "msd"]}, "at_least needs a single b"),
        ({"kind": "cost", "column": "second"}, "did you mean 'seconds'"),
    ],
)
def test_mistakes_are_found_by_the_plan(bench: Bench, changes: dict[str, Any], message: str) -> None:
    edit(bench.folder / "suite.yaml", claims={"c": GAIN | {"a": "msd", "b": "clip"} | changes})
    assert bench("plan", "--suite", "suite.yaml") == 2
    assert message in " ".join(bench.err.split())


def test_claims_are_part_of_no_key(bench: Bench) -> None:
    quick = ["--suite", "suite.yaml", "--methods", "clip", "--tasks", "zero_shot", "--budget", "samples=64"]
    assert bench("run", *quick) == 0
    edit(bench.folder / "suite.yaml", claims={"c": LEVEL | {"a": "clip", "tasks": "zero_shot"}})
    assert bench("run", *quick) == 0
    assert "trained 0, evaluated 0" in bench.out
    assert bench("claims") == 0
    assert "not shown" in bench.out


@pytest.mark.parametrize("name", config_names("suite"))
def test_claims_of_shipped_suites_say_where_they_are_stated(name: str) -> None:
    suite, _ = read_suite(find_config("suite", name))
    for stated in Claims(claims=suite.get("claims", {})).claims.values():
        assert any(tag in stated.source for tag in ("[V]", "[S]", "[C]", "[R]", "[I]", "ours"))


def test_the_page_shows_each_kind_and_names_each_key() -> None:
    page = (Path(__file__).parents[2] / "docs" / "claims.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^    claims:\n(?:     .*\n)+", page, re.MULTILINE)
    stated = Claims.model_validate(yaml.safe_load(example)).claims
    assert {each.kind for each in stated.values()} == {"gain", "no_gain", "level", "cost"}
    keys = {key for each in stated.values() for key in type(each).model_fields} - {"kind"}
    table = page.partition("| key | of |")[2].partition("\n\n")[0]
    assert {
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")
    } == keys
