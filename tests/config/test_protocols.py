"""The published protocols: every value that docs/protocols.md states is what its suite configures.

The page is the one list of items: each row of its tables names a setting and the value that it has in the suite.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from benchmark.config.load import load_run_config, read_suite
from benchmark.config.schema import RunConfig
from benchmark.config.yaml_files import find_config
from benchmark.data.card import load_card
from benchmark.method import METHODS
from benchmark.models import load_model_card
from benchmark.models.dual_encoder import build_model
from benchmark.plan.resolve import Datasets, arm_options, build_method, task_options
from benchmark.task import TASKS

PAGE = Path(__file__).parents[2] / "docs" / "protocols.md"
DASH = "–"
SUITES = ("roy2024", "cxr", "cleft", "cleft-clip")


@dataclass(frozen=True)
class Item:
    """A row of a table. setting, ours: without their backticks."""

    suite: str
    item: str
    published: str
    source: str
    setting: str
    ours: str
    difference: str

    def __str__(self) -> str:
        return f"{self.suite} {self.setting}"


def items() -> Iterator[Item]:
    suite = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"## `(.+)`", line):
            suite = heading[1]
        if suite and line.startswith("| ") and not line.startswith("| item |"):
            cells = [cell.strip() for cell in re.split(r" \|(?: |$)", line[2:])][:6]
            item, published, source, setting, ours, difference = cells
            yield Item(suite, item, published, source, setting.strip("`"), ours.strip("`"), difference)


ITEMS = list(items())
STATED = [item for item in ITEMS if item.setting != DASH]


@cache
def configured(suite: str) -> RunConfig:
    return load_run_config(suite, {}, [], [*METHODS.names(), *TASKS.names()])


def found(config: RunConfig, setting: str) -> Any:
    """Look up a setting as the page names it."""
    owner, colon, key = setting.partition(": ")
    if not colon:
        return at(config, setting)
    if owner == "model":
        return at(load_model_card(config.model), key)
    if owner.startswith("data "):
        name = owner.removeprefix("data ")
        assert name in [*config.pretraining, *config.datasets]
        return at(load_card(name, Datasets(config, Path()).texts(name)), key)
    if owner in TASKS.names() and owner in config.tasks:
        return at(task_options(owner, config), key)
    assert owner in config.methods
    arm = config.arm(owner)
    if key == "method" or key.startswith("training."):
        return at(arm, key)
    return at(arm_options(config, owner), key)


def at(value: Any, key: str) -> Any:
    """Follow a key through models, mappings and lists; a key of a mapping may have spaces."""
    for part in key.split("."):
        if isinstance(value, dict):
            value = value[part]
        elif isinstance(value, list):
            value = value[int(part)]
        else:
            value = getattr(value, part)
    return value


def plain(value: Any) -> Any:
    """A value as YAML holds it."""
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def without_data_folder(value: Any) -> Any:
    """Paths of a card are below $BENCH_DATA, wherever that is."""
    return "/".join(Path(value).parts[-2:]) if isinstance(value, Path) else value


@pytest.mark.parametrize("item", STATED, ids=str)
def test_the_suite_is_as_the_page_says(item: Item) -> None:
    assert plain(without_data_folder(found(configured(item.suite), item.setting))) == yaml.safe_load(item.ours)


@pytest.mark.parametrize("item", ITEMS, ids=str)
def test_an_item_has_a_source_and_a_reason(item: Item) -> None:
    assert re.fullmatch(r"\[[PCRI]\]", item.source)
    if item.setting == DASH:
        assert item.ours
    if item.published == DASH:
        assert item.source == "[I]"


@pytest.mark.parametrize("suite", SUITES)
def test_the_page_has_all_that_a_suite_sets(suite: str) -> None:
    """Nothing that a suite sets is missing on the page: its training, its arms, and its options."""
    fields, _ = read_suite(find_config("suite", suite))
    stated = {item.setting for item in ITEMS if item.suite == suite}
    if suite == "cleft-clip":  # the rest is that of cleft, which it extends
        fields = {"model": fields["model"], "methods": fields["methods"]}
    covered = " ".join(stated)
    training = dict(fields.get("training", {}))
    augmentation = training.pop("augmentation", {})
    missing = [key for key in training if f"training.{key}" not in covered]
    missing += [key for key in augmentation if f"training.augmentation.{key}" not in stated]
    for name, arm in (fields.get("arms") or {}).items():
        missing += [f"{name}: {key}" for key in arm.get("options", {}) if f"{name}: {key}" not in stated]
        missing += [f"{name}: {key}" for key in arm.get("training", {}) if f"{name}: training.{key}" not in stated]
        for stage, settings in arm.get("stages", {}).items():
            missing += [key for key in settings if f"{name}: training.stages.{stage}.{key}" not in covered]
    for name, options in fields.get("options", {}).items():
        if name in TASKS.names() and name not in METHODS.names():
            missing += [f"{name}: {key}" for key in options if f"{name}: {key}" not in stated and options[key]]
    assert missing == []
    assert {"methods"} <= stated


@pytest.mark.parametrize("name", ["text-last-2", "text-last-6", "partial_freeze"])
def test_frozen_groups_are_those_of_open_clip(name: str) -> None:
    """`lock_text_tower(n)` trains the last n layers and the norm, `lock(7)` the last 7 groups of the image tower."""
    config, whole = configured("roy2024"), build_model(load_model_card("vit-b-16"), 0, "meta")
    method = build_method("partial_freeze", whole, arm_options(config, name))
    model = method.model
    tower, last = {"text-last-2": (model.text, 2), "text-last-6": (model.text, 6)}.get(name, (model.image, 6))
    blocks = tower.model.transformer.resblocks
    trained = [all(p.requires_grad for p in block.parameters()) for block in blocks]
    assert trained == [False] * (12 - last) + [True] * last
    projection = model.image_projection if tower is model.image else model.text_projection
    norm = tower.model.ln_post if tower is model.image else tower.model.ln_final
    assert all(p.requires_grad for part in (projection, norm) for p in part.parameters())
    assert not tower.model.positional_embedding.requires_grad


def test_prompts_of_imagenet_are_all_there() -> None:
    import open_clip

    config = configured("roy2024")
    templates = [template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    medmnist = [name for name in config.datasets if name.endswith("mnist")]
    assert len(medmnist) == 12
    for name in medmnist:
        assert load_card(name, Datasets(config, Path()).texts(name)).prompts == templates
