"""Arms: what a study compares, each a method with options and a recipe of its own."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmark.common.errors import BenchError
from benchmark.plan.plan import Cell, Plan
from benchmark.plan.tuned import settings_file
from tests.squares import Bench, edit, planned

ARMS: dict[str, Any] = {
    "clip-plain": {"method": "clip", "training": {"accumulation": "plain", "micro_batch": 8}},
    "msd": {"options": {"queue_size": 0}, "training": {"steps": 7}},
    "msd-queue": {"method": "msd", "options": {"queue_size": 32, "momentum": 0.5}},
}
NAMES = ["clip", *ARMS]


def arms_of(folder: Path, *settings: str, **changes: Any) -> dict[str, Cell]:
    return {cell.arm: cell for cell in plan_of(folder, *settings, **changes).cells}


def plan_of(folder: Path, *settings: str, **changes: Any) -> Plan:
    edit(folder / "suite.yaml", arms=ARMS | changes.pop("arms", {}), methods=NAMES, tasks=["zero_shot"])
    return planned(folder, *settings, **changes)


def test_an_arm_lays_its_settings_over_the_suites(suite: Path) -> None:
    arms = arms_of(suite)
    assert list(arms) == NAMES
    assert [cell.method for cell in arms.values()] == ["clip", "clip", "msd", "msd"]
    clip, plain, msd, queue = arms.values()
    assert (clip.training.micro_batch, clip.training.accumulation) == (16, "auto")
    assert plain.training == clip.training.model_copy(update={"micro_batch": 8, "accumulation": "plain"})
    assert (msd.training.budget, clip.training.budget) == (("steps", 7), ("samples", 640))
    assert (msd.options["queue_size"], queue.options["queue_size"], queue.options["momentum"]) == (0, 32, 0.5)
    assert clip.label.get("recipe") is None
    assert plain.label["recipe"] == "training.accumulation=plain, training.micro_batch=8"
    assert {cell.label["variant"] for cell in arms.values()} == {""}
    assert len({cell.key for cell in arms.values()}) == 4


def test_an_arm_is_the_training_of_its_settings_whatever_its_name(suite: Path) -> None:
    arm = arms_of(suite)["clip-plain"]
    settings = ["training.accumulation=plain", "training.micro_batch=8"]
    edit(suite / "suite.yaml", arms=None)
    (same,) = planned(suite, *settings, methods=["clip"], tasks=["zero_shot"]).cells
    assert same.key == arm.key


def test_a_setting_of_the_training_is_for_all_arms(suite: Path) -> None:
    arms = arms_of(suite, "training.micro_batch=4", "training.epochs=2")
    assert {cell.training.micro_batch for cell in arms.values()} == {4}
    assert {cell.training.budget for cell in arms.values()} == {("epochs", 2)}
    assert arms["clip-plain"].training.accumulation == "plain"
    assert {cell.label["variant"] for cell in arms.values()} == {"training.micro_batch=4, training.epochs=2"}


def test_a_setting_below_an_arms_name_is_for_that_arm(suite: Path) -> None:
    arms = arms_of(suite, "msd.momentum=0.7", "msd-queue.training.learning_rate=1e-5", "clip.training.warmup=0")
    assert (arms["msd"].options["momentum"], arms["msd-queue"].options["momentum"]) == (0.7, 0.5)
    assert arms["msd-queue"].training.learning_rate == 1e-5
    assert arms["msd"].training.learning_rate == arms["clip"].training.learning_rate == 3e-3
    assert (arms["clip"].training.warmup, arms["msd"].training.warmup) == (0, 0.1)
    variants = {name: cell.label["variant"] for name, cell in arms.items()}
    assert variants == {
        "clip": "training.warmup=0",
        "clip-plain": "",
        "msd": "momentum=0.7",
        "msd-queue": "training.learning_rate=1e-05",
    }


def test_an_option_of_a_method_is_for_all_its_arms_where_none_has_its_name(suite: Path) -> None:
    arms: dict[str, Any] = {"a": {"method": "msd", "options": {"momentum": 0.5}}, "b": {"method": "msd"}}
    edit(suite / "suite.yaml", arms=arms, methods=["a", "b"])
    (cell,) = planned(suite, "msd.momentum=0.9", methods=["a"], tasks=["zero_shot"]).cells
    assert (cell.options["momentum"], cell.label["variant"]) == (0.9, "momentum=0.9")
    with pytest.raises(BenchError, match="arms 'a' and 'b' are the same training"):
        planned(suite, "msd.momentum=0.9", tasks=["zero_shot"])


def test_all_is_every_arm_and_every_other_method(suite: Path) -> None:
    arms = arms_of(suite, methods=["all"])
    assert {*ARMS, "clip", "siglip"} <= {*arms}
    assert [cell.arm for cell in arms.values() if cell.method == "msd"] == ["msd", "msd-queue"]


def test_a_grid_varies_an_arm(suite: Path) -> None:
    cells = plan_of(suite, grid=["msd-queue.queue_size=16,32", "training.warmup=0,0.5"]).cells
    assert [(cell.arm, cell.label["variant"]) for cell in cells if cell.method == "msd"] == [
        ("msd", "training.warmup=0"),
        ("msd-queue", "queue_size=16, training.warmup=0"),
        ("msd", "training.warmup=0.5"),
        ("msd-queue", "queue_size=16, training.warmup=0.5"),
        ("msd-queue", "queue_size=32, training.warmup=0"),
        ("msd-queue", "queue_size=32, training.warmup=0.5"),
    ]


def test_a_grid_varies_the_pretraining_sets(suite: Path) -> None:
    text = (suite / "squares.yaml").read_text()
    for name in ("one", "two"):
        (suite / f"{name}.yaml").write_text(text)
    sets = [str(suite / f"{name}.yaml") for name in ("one", "two")]
    cells = plan_of(suite, methods=["clip"], grid=[f"pretraining={sets[0]},{sets[0]}+{sets[1]}"]).cells
    assert [cell.pretraining for cell in cells] == [("one",), ("one", "two")]
    assert len({cell.label["variant"] for cell in cells}) == 2
    assert {cell.content["tokenizer_data"][0][0] for cell in cells} == {"one"}
    with pytest.raises(BenchError, match="--pretraining and --grid pretraining: give one of them"):
        plan_of(suite, pretraining=[sets[0]], grid=[f"pretraining={sets[0]},{sets[1]}"])


def test_a_grid_varies_the_budget(suite: Path) -> None:
    cells = plan_of(suite, grid=["budget=samples=1k,2k"]).cells
    assert [(cell.arm, cell.training.budget[1]) for cell in cells] == [(arm, n) for n in (1000, 2000) for arm in NAMES]
    with pytest.raises(BenchError, match="unknown kind of --grid budget 'sample'"):
        plan_of(suite, grid=["budget=sample=1k"])


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"method": "clp"}, "unknown method of arm 'x' 'clp'; did you mean 'clip'"),
        ({"training": {"warmup": 0}}, "arm 'x' names no method, and no method is called 'x': add method: to the arm"),
        ({"method": "clip", "options": {"temprature": 1}}, "arm 'x', method 'clip': unknown option 'temprature'"),
        ({"method": "clip", "training": {"learning_rat": 1}}, "arm 'x', training: unknown key 'learning_rat'"),
        (
            {"method": "clip", "training": {"batch_size": -1}},
            "arm 'x', training: batch_size: expected a number greater",
        ),
        ({"method": "clip", "recipe": {}}, r"unknown key of arms\.x 'recipe'"),
    ],
)
def test_mistakes_of_an_arm_name_it(suite: Path, arm: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        plan_of(suite, arms={"x": arm})


def test_mistakes_of_the_command_line(suite: Path) -> None:
    with pytest.raises(BenchError, match="unknown arm or method 'clip-plan'; did you mean 'clip-plain'"):
        plan_of(suite, methods=["clip-plan"])
    with pytest.raises(BenchError, match=r"unknown key of msd\.training 'warm'; did you mean 'warmup'"):
        plan_of(suite, "msd.training.warm=1")
    with pytest.raises(BenchError, match=r"'a\.b' is no name for an arm"):
        plan_of(suite, arms={"a.b": {"method": "clip"}})


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (["clip"], r"suite.yaml: arms: expected a mapping of keys to values, found \['clip'\]"),
        ({"clip": 3}, r"suite.yaml: arms\.clip: expected a mapping"),
        ({"clip": {"training": [1]}}, r"suite.yaml: arms\.clip\.training: expected a mapping"),
        ({"clip": {"stages": {"one": 3}}}, r"suite.yaml: arms\.clip\.stages\.one: expected a mapping"),
    ],
)
@pytest.mark.parametrize(
    "setting", ["training.steps=2", "clip.training.steps=2", "clip.stages.one.momentum=0.5", "clip.temperature=1"]
)
def test_arms_that_are_no_mappings_are_named_whatever_the_command_line_sets(
    suite: Path, arms: Any, message: str, setting: str
) -> None:
    edit(suite / "suite.yaml", arms=arms)
    with pytest.raises(BenchError, match=message):
        planned(suite, setting, methods=["clip"])


@pytest.mark.parametrize(
    ("block", "setting"),
    [
        ({"training": 3}, "training.steps=2"),
        ({"evaluation": [1]}, "evaluation.resamples=2"),
        ({"options": "clip"}, "clip.temperature=1"),
        ({"options": {"clip": 3}}, "clip.temperature=1"),
        ({"model_options": 3}, "model.embed_dim=8"),
    ],
)
def test_so_are_other_blocks(suite: Path, block: dict[str, Any], setting: str) -> None:
    edit(suite / "suite.yaml", **block)
    with pytest.raises(BenchError, match=r"suite\.yaml: .*: expected a mapping of keys to values, found"):
        planned(suite, setting, methods=["clip"])


def test_tuned_settings_are_an_arms_own(suite: Path) -> None:
    config = plan_of(suite).config
    folder = suite / "tuning"
    folder.mkdir()
    for rate, arm in enumerate(NAMES, 1):
        settings = {"settings": {"training.learning_rate": rate / 1000}}
        settings_file(config, folder, arm).write_text(json.dumps(settings))
    arms = arms_of(suite, tuned=str(folder))
    assert [cell.training.learning_rate for cell in arms.values()] == [0.001, 0.002, 0.003, 0.004]
    assert arms["clip-plain"].training.micro_batch == 8


def test_lines_are_named_by_arm_and_shared_settings_stand_once(bench: Bench) -> None:
    edit(bench.folder / "suite.yaml", arms={"clip-plain": {"method": "clip", "training": {"accumulation": "plain"}}})
    run = [
        "--suite",
        "suite.yaml",
        "--tasks",
        "zero_shot",
        "--set",
        "training.steps=2",
        "--set",
        "clip.temperature=0.1",
    ]
    assert bench("run", "--methods", "clip,clip-plain", *run) == 0
    assert "clip-plain, seed 0" in bench.out
    rows = bench.rows()
    assert {*rows["arm"]} == {"clip", "clip-plain"}
    assert {*rows["method"]} == {"clip"}
    assert bench("report") == 0
    report = (bench.folder / "results" / "report" / "report.md").read_text()
    assert "All lines: training.steps=2, temperature=0.1." in report
    assert "\n| clip-plain | clip | plain |" in report
    assert "\n| clip | clip | — |" in report
    assert "clip · " not in report


@pytest.mark.parametrize(
    ("arm", "problem"),
    [
        (
            {"stages": {"prompt": {"learning_rate": 1e-4}}},
            "unknown stage under training.stages 'prompt'. Known: pretrain",
        ),
        (
            {"training": {"samples": 64, "batch_size": 16, "warmup": {"steps": 5}}},
            "training.warmup is 5 steps, but the training or its stage has 4",
        ),
        (
            {"training": {"samples": 64, "batch_size": 16}, "stages": {"pretrain": {"warmup": {"steps": 5}}}},
            "training.warmup is 5 steps, but the training or its stage has 4",
        ),
    ],
)
def test_a_plan_names_the_arm_whose_stages_do_not_fit(suite: Path, arm: dict[str, Any], problem: str) -> None:
    assert plan_of(suite, arms={"x": {"method": "clip"} | arm}, methods=["x"]).problems == [
        f"arm 'x', method 'clip': {problem}"
    ]
    fitting = {"method": "clip", "training": {"samples": 80, "batch_size": 16, "warmup": {"steps": 5}}}
    assert plan_of(suite, arms={"x": fitting}, methods=["x"]).problems == []


def test_a_mapping_in_a_label_reads_as_in_a_suite(suite: Path) -> None:
    arm = {"method": "clip", "training": {"warmup": {"steps": 2}, "rates": {"image": 0.1}}}
    (cell,) = plan_of(suite, arms={"x": arm}, methods=["x"]).cells
    assert cell.label["recipe"] == "training.rates={image: 0.1}, training.warmup={steps: 2}"


@pytest.mark.parametrize("section", ["training", "clip-plain.training"])
def test_a_part_of_a_setting_is_set_with_the_whole(suite: Path, section: str) -> None:
    with pytest.raises(BenchError, match=rf"{section}\.rates\.image: set rates as a whole, as in '{section}\.rates="):
        plan_of(suite, f"{section}.rates.image=0.1")
