"""The suite that asks whether partial freezing helps on other towers: what it trains on each, and that it runs."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.config.load import load_run_config
from benchmark.config.yaml_files import find_config
from benchmark.method import METHODS
from benchmark.models import build_model, load_model_card
from benchmark.plan.resolve import build_method
from benchmark.store.store import Store
from benchmark.task import TASKS
from tests.squares import MODEL, Bench

pytestmark = pytest.mark.usefixtures("not_counted")

FREEZING = ["freeze-25", "freeze-50", "freeze-75", "freeze-85", "locked_image"]
TABLE = re.findall(r"^# +([\w-]+)((?: +\d+\.\d){5})$", find_config("suite", "freezing").read_text(), re.MULTILINE)
TOWERS: dict[str, dict[str, Any]] = {
    "vit": {"name": "vit_tiny_patch16_224", "config": {"depth": 4, "embed_dim": 24, "num_heads": 2}},
    "convnext": {"name": "convnext_atto", "config": {"depths": [1, 1, 2, 1], "dims": [8, 8, 16, 16]}},
    "swin": {
        "name": "swin_tiny_patch4_window7_224",
        "config": {"embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 1, 2, 2], "window_size": 2},
    },
}

WIDTHS = {"vit": 24, "convnext": 16, "swin": 64}


def test_there_is_a_row_for_each_tower() -> None:
    assert [name for name, _ in TABLE] == ["deit-s-clinicalbert", "swin-t-clinicalbert", "convnext-t-clinicalbert"]


def test_the_arms_differ_in_what_is_frozen_alone() -> None:
    config = load_run_config("freezing", {}, [], [*METHODS.names(), *TASKS.names()])
    arms = [config.arm(name) for name in config.methods]
    assert {arm.training.budget for arm in arms} == {("epochs", 20.0)}
    assert len({arm.training.model_dump_json() for arm in arms}) == 1
    methods = [METHODS[arm.method].Config(**arm.options) for arm in arms]
    assert {method.temperature for method in methods} == {0.07}


@pytest.mark.parametrize(("name", "shares"), TABLE, ids=[name for name, _ in TABLE])
def test_the_suite_states_what_is_trained_of_each_tower(name: str, shares: str) -> None:
    config = load_run_config("freezing", {}, [], [*METHODS.names(), *TASKS.names()])
    for arm, share in zip(FREEZING, shares.split(), strict=True):
        resolved = config.arm(arm)
        model = build_model(load_model_card(name), 0, "meta")
        counts = build_method(resolved.method, model, resolved.options).model.parameter_counts()
        assert f"{100 * counts['image_trainable'] / counts['image']:.1f}" == share, arm
        assert counts["text_trainable"] == counts["text"]


@pytest.mark.parametrize(
    ("tower", "arms"),
    [
        ("swin", ["clip", *FREEZING, "dino_txt"]),
        ("convnext", ["clip", "freeze-75", "locked_image"]),
        ("vit", ["clip", "freeze-75", "locked_image"]),
    ],
)
def test_it_runs_on_every_kind_of_tower(tower: str, arms: list[str], bench: Bench) -> None:
    Path(f"{tower}.yaml").write_text(yaml.safe_dump(MODEL | {"image": {"kind": "timm", **TOWERS[tower]}}))
    arguments = ["--suite", "freezing", "--model", f"{tower}.yaml", "--methods", ",".join(arms)]
    arguments += ["--pretraining", "squares.yaml", "--datasets", "squares.yaml", "--tasks", "zero_shot", "--seeds", "1"]
    training = [
        "steps=2",
        "resolution=32",
        "augmentation={crop_scale: [1, 1], crop_ratio: [1, 1]}",
        "batch_size=16",
        "micro_batch=8",
        "validations=1",
        "learning_rate=0.01",
    ]
    settings = [*(f"training.{setting}" for setting in training), "evaluation.resamples=10"]
    assert bench("run", *arguments, *[a for setting in settings for a in ("--set", setting)]) == 0, bench.err
    costs = Store(Path("results")).costs().set_index("arm")
    assert list(costs["model"].unique()) == [tower]
    trained = costs["parameters_image_trainable"]
    assert trained["clip"] == costs["parameters_image"]["clip"]
    assert trained[[arm for arm in arms if arm != "dino_txt"]].is_monotonic_decreasing
    assert trained["locked_image"] == WIDTHS[tower] * 16  # the projection alone
    assert set(bench.rows().query("role != 'baseline'")["arm"]) == set(arms)
