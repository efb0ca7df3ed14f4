"""Keys: what a result depends on changes them, and nothing else does."""

import enum
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.common.errors import BenchError
from benchmark.config.training import Evaluating, Training
from benchmark.models import ModelCard
from benchmark.models.card import local_files
from benchmark.plan import plan as plan_module
from benchmark.plan.plan import Plan, plain_options
from benchmark.plan.tuned import settings_file
from benchmark.store import formats
from benchmark.store.hashing import digest
from benchmark.store.store import Store
from tests.squares import MODEL, edit, planned

CELLS = {"msd", "clip"}
PAIRS = {"zero_shot", "retrieval", "linear_probe", "few_shot", "vqa"}
MODELS = {"initial weights (random)"}
PIXELS = {"raw pixels"}
ALL = CELLS | PAIRS | MODELS | PIXELS


def named(value: Any) -> str:
    """Name a case; sets in one order, as pytest-xdist wants the same names in each process."""
    return ", ".join(sorted(value)) if isinstance(value, set) else str(value)


def keys(plan: Plan) -> dict[str, str]:
    """The key of each method's cell, of each task's evaluation and of each baseline, by name."""
    cells = {cell.method: cell.key for cell in plan.cells}
    pairs = {pair.task: pair.key for pair in plan.pairs}
    return cells | pairs | {encoder.name: encoder.key for encoder in plan.fixed}


@pytest.fixture
def changes(suite: Path) -> Callable[..., set[str]]:
    """Return the names whose keys settings change, after ``prepare`` has changed files of the suite."""
    before = keys(planned(suite, baselines=True))
    assert set(before) == ALL
    assert len(set(before.values())) == len(ALL)

    def changed(*settings: str, prepare: Callable[[Path], Any] = lambda folder: None, **flags: Any) -> set[str]:
        prepare(suite)
        after = keys(planned(suite, *settings, **{"baselines": True} | flags))
        return {name for name in before if before[name] != after[name]}

    return changed


TRAINING = {
    "samples": 96,
    "epochs": 2,
    "steps": 7,
    "time": 5,
    "flops": 1e9,
    "batch_size": 24,
    "micro_batch": 8,
    "accumulation": "plain",
    "mixture": 0.5,
    "resolution": 24,
    "keep_ratio": True,
    "learning_rate": 1e-3,
    "weight_decay": 0.2,
    "betas": [0.8, 0.9],
    "epsilon": 1e-5,
    "warmup": 0.2,
    "gradient_clip": 0.5,
    "optimizer": "lion",
    "minimum_rate": 1e-5,
    "rates": {"image": 0.1},
    "layer_decay": 0.8,
    "momentum": 0.8,
    "average": 0.9,
    "stages": {"pretrain": {"learning_rate": 1e-4}},
    "same_text": "ignore",
    "label_smoothing": 0.1,
    "precision": "bf16",
    "gradient_checkpointing": True,
    "compile": True,
    "cache_frozen": True,
    "augmentation": {"flip": 0.5},
    "validations": 3,
}


def test_every_setting_has_been_thought_of() -> None:
    assert set(Training.model_fields) == {*TRAINING, "checkpoint_every"}
    assert set(Evaluating.model_fields) == {"checkpoint", "weights", "at", "resamples", "batch_size"}


@pytest.mark.parametrize("name", TRAINING)
def test_training_settings_change_cells_alone(name: str, changes: Callable[..., set[str]]) -> None:
    assert changes(f"training.{name}={json.dumps(TRAINING[name])}") == CELLS


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("training.checkpoint_every=5", set()),
        ("training.precision=fp32", set()),  # what auto is on a CPU
        ("training.cache_frozen=false", set()),
        ("training.accumulation=cached", {"msd"}),  # what auto is for clip
        ("msd.momentum=0.9", {"msd"}),
        ("few_shot.draws=3", {"few_shot"}),
        ("evaluation.resamples=60", PAIRS),
        ("evaluation.checkpoint=best", PAIRS),
        ("evaluation.weights=average", PAIRS),
        ("evaluation.at=[0.5]", CELLS),
        ("evaluation.at=[1]", set()),
        ("evaluation.batch_size=7", set()),
        ("model.embed_dim=8", CELLS | MODELS),
    ],
)
def test_settings(setting: str, expected: set[str], changes: Callable[..., set[str]]) -> None:
    assert changes(setting) == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"seeds": [1]}, CELLS | MODELS | PIXELS),
        ({"methods": ["clip", "siglip", "msd"]}, set()),
        ({"tasks": [*sorted(PAIRS)]}, set()),
        ({"description": "another"}, set()),
        ({"on_bad_data": "skip"}, set()),
    ],
    ids=named,
)
def test_flags(flags: dict[str, Any], expected: set[str], changes: Callable[..., set[str]]) -> None:
    assert changes(**flags) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"embed_dim": 8}, CELLS | MODELS),
        ({"image_size": 48}, CELLS | MODELS | PIXELS),
        ({"image": {"kind": "tiny", "width": 64, "layers": 1, "heads": 2}}, CELLS | MODELS | PIXELS),
        ({"text": {"kind": "tiny", "width": 32, "layers": 2, "heads": 2}}, CELLS | MODELS),
        ({"tokenizer": {"kind": "corpus", "vocab_size": 301, "context_length": 32}}, CELLS | MODELS),
        ({"title": "A small model"}, set()),
    ],
    ids=named,
)
def test_model_cards(change: dict[str, Any], expected: set[str], changes: Callable[..., set[str]]) -> None:
    assert changes(prepare=lambda folder: edit(folder / "small.yaml", **change)) == expected


def test_a_setting_of_the_model_is_the_card_with_it(suite: Path) -> None:
    setting = keys(planned(suite, "model.embed_dim=8"))
    edit(suite / "small.yaml", embed_dim=8)
    assert keys(planned(suite)) == setting


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"prompts": ["this is a {} square"]}, PAIRS),
        ({"class_texts": {"red": "crimson"}}, PAIRS),
        ({"classes": ["blue", "green", "red"]}, CELLS | PAIRS | MODELS),
        ({"title": "Other squares"}, set()),
        ({"licence": "CC0"}, set()),
    ],
    ids=named,
)
def test_dataset_cards(change: dict[str, Any], expected: set[str], changes: Callable[..., set[str]]) -> None:
    assert changes(prepare=lambda folder: edit(folder / "squares.yaml", **change)) == expected


def test_the_records_of_a_dataset(changes: Callable[..., set[str]]) -> None:
    def reword(folder: Path) -> None:
        path = folder / "squares.jsonl"
        path.write_text(path.read_text().replace('number 3"', 'number three"'))

    assert changes(prepare=reword) == CELLS | PAIRS | MODELS


def test_an_image_that_was_written_again(changes: Callable[..., set[str]]) -> None:
    assert changes(prepare=lambda folder: os.utime(folder / "3.png", (1, 1))) == CELLS | PAIRS | MODELS


def test_the_place_of_data_and_suite_does_not_matter(suite: Path, tmp_path: Path) -> None:
    elsewhere = Path(shutil.copytree(suite, tmp_path / "elsewhere"))
    (elsewhere / "suite.yaml").rename(elsewhere / "renamed.yaml")
    assert keys(planned(elsewhere, suite="renamed")) == keys(planned(suite))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("TRAINING", CELLS | MODELS),
        ("EVALUATION", PAIRS | MODELS | PIXELS),
        ("DATA", CELLS | PAIRS | MODELS),
        ("PHANTOM", set()),
        ("CACHE", set()),
    ],
)
def test_formats(
    name: str, expected: set[str], changes: Callable[..., set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, name, 1000)
    assert changes() == expected


def test_code_of_methods_and_tasks(changes: Callable[..., set[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    real = plan_module.source_of
    changed = {"clip", "vqa"}
    monkeypatch.setattr(plan_module, "source_of", lambda cls: "new" if cls.name in changed else real(cls))
    assert changes() == changed


def test_local_weights(tmp_path: Path, changes: Callable[..., set[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights.pt").write_bytes(b"one")
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "tokenizer.json").write_text("{}")
    image = {"kind": "timm", "name": "resnet18", "pretrained": str(tmp_path / "weights.pt")}
    words = {"kind": "huggingface", "name": str(tmp_path / "words")}
    card = ModelCard.model_validate({"name": "a", **MODEL, "image": image, "tokenizer": words})
    before = local_files(card)
    assert set(before) == {"image.pretrained: weights.pt", "tokenizer.name: tokenizer.json"}
    (tmp_path / "weights.pt").write_bytes(b"two")
    assert {name for name, value in local_files(card).items() if value != before[name]} == {
        "image.pretrained: weights.pt"
    }
    from_hub = {"kind": "open_clip", "name": "ViT-B-32", "pretrained": "openai"}
    assert local_files(ModelCard.model_validate({"name": "a", **MODEL, "image": from_hub})) == {}

    monkeypatch.setattr("benchmark.plan.plan.local_files", lambda card: before)
    monkeypatch.setattr("benchmark.evaluation.fixed.local_files", lambda card: before)
    assert changes() == CELLS | MODELS


def test_what_is_stored_has_the_key_that_names_its_folder(suite: Path) -> None:
    plan = planned(suite)
    for cell in plan.cells:
        assert digest(json.loads(json.dumps(cell.content))) == cell.key
    for pair in plan.pairs:
        assert pair.key == f"{pair.task}-squares-{digest(json.loads(json.dumps(pair.content)))}"


# Options


class Side(enum.Enum):
    LEFT = "left"


def test_options_become_what_json_holds() -> None:
    options = {"a": Side.LEFT, "b": Path("x/y"), "c": (1, (2.5, None)), "d": {"z", "a"}, "e": {Side.LEFT: True}}
    plain = {"a": "left", "b": "x/y", "c": [1, [2.5, None]], "e": {"left": True}}
    given = plain_options("method 'm'", options)
    assert sorted(given.pop("d")) == ["a", "z"]
    assert given == plain
    one, other = ({"s": {str(i) for i in order}} for order in (range(50), reversed(range(50))))
    assert plain_options("", one) == plain_options("", other)


def test_an_option_that_no_key_can_be_made_of_is_named() -> None:
    with pytest.raises(BenchError, match="method 'm': option rate: a object cannot be part of a key"):
        plain_options("method 'm'", {"rate": [object()]})


# Tuned settings


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        (["training.learning_rate=1e-2"], True),
        (["training.validations=9"], True),
        (["training.checkpoint_every=1"], True),
        (["evaluation.resamples=60"], True),
        (["few_shot.draws=3"], True),
        (["msd.momentum=0.9"], True),
        (["clip.temperature=0.1"], False),
        (["training.weight_decay=0.3"], False),
        (["training.samples=96"], False),
        (["evaluation.checkpoint=best"], False),
        (["model.embed_dim=8"], False),
    ],
    ids=named,
)
def test_tuned_settings_are_for_a_method_a_model_and_a_budget(suite: Path, settings: list[str], same: bool) -> None:
    before, after = (settings_file(planned(suite, *each).config, suite, "clip") for each in ([], settings))
    assert (before == after) is same
    assert before.name.startswith("clip-")


def test_tuned_settings_of_another_card_of_that_name(suite: Path) -> None:
    config = planned(suite).config
    before = settings_file(config, suite, "clip")
    edit(suite / "small.yaml", embed_dim=8)
    assert settings_file(config, suite, "clip") != before


# What is evaluated on what


def test_a_baseline_without_texts_is_evaluated_by_labels_alone(suite: Path) -> None:
    plan = planned(suite, baselines=True)
    tasks = {encoder.name: {pair.task for pair in plan.pairs_of(encoder)} for encoder in plan.fixed}
    assert tasks == {"initial weights (random)": PAIRS, "raw pixels": {"linear_probe", "few_shot"}}


def test_a_task_that_asks_for_an_ability_is_for_cells_that_have_it(suite: Path) -> None:
    plan = planned(suite, methods=["clip", "captioning"], tasks=["captioning", "vqa"])
    assert {cell.method: [pair.task for pair in plan.pairs_of(cell)] for cell in plan.cells} == {
        "clip": ["vqa"],
        "captioning": ["captioning", "vqa"],
    }


def test_what_is_missing_is_what_the_store_does_not_have(suite: Path, tmp_path: Path) -> None:
    plan = planned(suite, methods=["clip"])
    store = Store(tmp_path / "results")
    (cell,) = plan.cells
    assert plan.missing(store, cell) == plan.pairs
    done = plan.pairs[1]
    folder = store.cell(cell.key) / "evaluations" / done.key
    folder.mkdir(parents=True)
    (folder / "rows.json").write_text("[]")
    assert plan.missing(store, cell) == [pair for pair in plan.pairs if pair is not done]
