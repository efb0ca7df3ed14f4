"""Making a plan: what a configuration becomes, what is left out of it, and what is refused."""

import enum
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from benchmark.common.errors import BenchError
from benchmark.common.progress import Progress
from benchmark.config.load import load_run_config
from benchmark.execution.materials import Materials
from benchmark.method import METHODS, Method, register_method
from benchmark.models import build_model, load_model_card
from benchmark.models.tiny import TinyImageTower
from benchmark.plan.cautions import cautions_of
from benchmark.plan.make import evaluation_plan, make_plan
from benchmark.plan.plan import Cell, Plan, plain_options
from benchmark.plan.resolve import build_method, method_options
from benchmark.plan.tuned import settings_file
from benchmark.task import TASKS
from tests.conformance import registered
from tests.squares import CARD, MODEL, edit, planned, write_scenario

QUICK = {"methods": ["clip"], "tasks": ["zero_shot"]}


def tasks_of(plan: Plan) -> list[tuple[str, str]]:
    return [(pair.task, pair.dataset) for pair in plan.pairs]


def write_card(folder: Path, name: str, **changes: Any) -> None:
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(CARD | changes))


def test_a_plan_is_methods_by_seeds_and_tasks_by_datasets(suite: Path) -> None:
    write_card(suite, "copy")
    datasets = [str(suite / "squares.yaml"), str(suite / "copy.yaml")]
    plan = planned(suite, methods=["msd", "clip"], seeds=[0, 3], tasks=["zero_shot", "retrieval"], datasets=datasets)
    assert [(cell.seed, cell.method) for cell in plan.cells] == [(0, "msd"), (0, "clip"), (3, "msd"), (3, "clip")]
    assert tasks_of(plan) == [(task, name) for task in ("zero_shot", "retrieval") for name in ("squares", "copy")]
    assert plan.corpus == ["squares"]
    assert (plan.problems, plan.left_out, plan.absent, plan.fixed) == ([], [], [], [])
    cell = plan.cells[1]
    assert cell.options == asdict(METHODS["clip"].Config())
    assert cell.label == {
        "suite": "suite",
        "model": "small",
        "arm": "clip",
        "method": "clip",
        "variant": "",
        "seed": 0,
        "pretraining": "squares",
    }


def test_settings_are_part_of_the_label_of_those_that_they_are_for(suite: Path) -> None:
    settings = ["training.samples=96", "msd.momentum=0.9", "zero_shot.rare_below=2", "evaluation.resamples=9"]
    plan = planned(suite, *settings, tasks=["zero_shot", "retrieval"], baselines=True)
    assert {cell.method: cell.label["variant"] for cell in plan.cells} == {
        "msd": "training.samples=96, momentum=0.9",
        "clip": "training.samples=96",
    }
    assert {pair.task: pair.variant for pair in plan.pairs} == {
        "zero_shot": "zero_shot.rare_below=2, evaluation.resamples=9",
        "retrieval": "evaluation.resamples=9",
    }
    assert {encoder.label["variant"] for encoder in plan.fixed} == {""}
    plan = planned(suite, "model.embed_dim=8", **QUICK, baselines=True)
    assert {encoder.label["variant"] for encoder in plan.fixed} == {"model.embed_dim=8"}


def test_stages_with_settings_are_stages_of_the_method(suite: Path) -> None:
    plan = planned(suite, "training.stages={pretrain: {optimizer: sgd}}", **QUICK)
    assert plan.problems == []
    assert plan.cells[0].key != planned(suite, **QUICK).cells[0].key
    assert plan.cells[0].training.at_stage("pretrain").optimizer == "sgd"
    plan = planned(suite, "training.stages={pretrian: {optimizer: sgd}}", **QUICK)
    (problem,) = plan.problems
    assert problem == (
        "method 'clip': unknown stage under training.stages 'pretrian'; did you mean 'pretrain'? Known: pretrain"
    )


# Tasks


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        (["zero_shot"], [("zero_shot", "squares"), ("zero_shot", "copy")]),
        (["zero_shot:copy"], [("zero_shot", "copy")]),
        (["zero_shot:copy", "zero_shot"], [("zero_shot", "copy"), ("zero_shot", "squares")]),
        (["zero_shot:{}/third.yaml"], [("zero_shot", "third")]),
        (["all:copy"], [(task, "copy") for task in ("few_shot", "linear_probe", "retrieval", "vqa", "zero_shot")]),
    ],
    ids=str,
)
def test_selectors_of_tasks(suite: Path, selectors: list[str], expected: list[tuple[str, str]]) -> None:
    for name in ("copy", "third"):
        write_card(suite, name)
    datasets = [str(suite / "squares.yaml"), str(suite / "copy.yaml")]
    tasks = [selector.format(suite) for selector in selectors]
    assert tasks_of(planned(suite, tasks=tasks, datasets=datasets, methods=["clip"])) == expected


@pytest.mark.parametrize(
    ("tasks", "methods", "message"),
    [
        (["zero_shot:"], ["clip"], "expected a dataset after the colon"),
        (["zero_shot:plain"], ["clip"], "task zero_shot:plain: dataset 'plain' has no prompts"),
        (["retrieval:squars"], ["clip"], "unknown dataset 'squars'"),
        (["zero_sho"], ["clip"], "unknown task 'zero_sho'; did you mean 'zero_shot'"),
        (
            ["captioning"],
            ["clip", "msd"],
            "task captioning: none of the methods clip, msd can caption; those that can: cap",
        ),
        (["zero_shot"], ["clipp"], "unknown method 'clipp'; did you mean 'clip'"),
    ],
)
def test_refused_selectors(suite: Path, tasks: list[str], methods: list[str], message: str) -> None:
    write_card(suite, "plain", prompts=None)
    edit(suite / "plain.yaml", prompts=None)
    datasets = [str(suite / "squares.yaml"), str(suite / "plain.yaml")]
    with pytest.raises(BenchError, match=message):
        planned(suite, tasks=tasks, methods=methods, datasets=datasets)


def test_a_task_that_no_dataset_fits_is_refused(suite: Path) -> None:
    edit(suite / "squares.yaml", prompts=None)
    with pytest.raises(BenchError, match=r"^task zero_shot: dataset 'squares' has no prompts$"):
        planned(suite, tasks=["zero_shot"])


def test_what_does_not_fit_is_left_out_and_said(suite: Path) -> None:
    edit(suite / "squares.yaml", prompts=None)
    plan = planned(suite, methods=["clip", "captioning"], tasks=["all"])
    assert ("zero_shot", "squares") not in tasks_of(plan)
    assert "zero_shot on squares: the dataset has no prompts" in plan.left_out
    assert "captioning by clip: cannot caption" in plan.left_out


def test_a_dataset_without_a_split_is_left_out(suite: Path) -> None:
    lines = [json.loads(line) for line in (suite / "squares.jsonl").read_text().splitlines()]
    (suite / "squares.jsonl").write_text("\n".join(json.dumps(line) for line in lines if line["split"] == "train"))
    with pytest.raises(BenchError, match="task zero_shot: dataset 'squares' has no"):
        planned(suite, **QUICK)


# Datasets that are not here


def absent(suite: Path) -> None:
    write_card(suite, "gone", source=CARD["source"] | {"file": "gone.jsonl"})  # type: ignore[operator]
    edit(suite / "suite.yaml", datasets=["squares.yaml", "gone.yaml"], pretraining=["gone.yaml", "squares.yaml"])


def test_what_is_not_here_is_left_out_of_a_suite(suite: Path) -> None:
    absent(suite)
    plan = planned(suite, **QUICK)
    assert tasks_of(plan) == [("zero_shot", "squares")]
    assert plan.cells[0].pretraining == ("squares",)
    assert plan.absent == ["gone: not found on this machine; bench data how gone"]


def test_what_must_be_here_and_is_not_is_refused(suite: Path) -> None:
    absent(suite)
    with pytest.raises(BenchError, match="suite suite, --strict: not found: gone; see bench data how NAME"):
        planned(suite, **QUICK, strict=True)
    with pytest.raises(BenchError):
        planned(suite, **QUICK, datasets=[str(suite / "gone.yaml")])
    edit(suite / "suite.yaml", datasets=["gone.yaml"], pretraining=["squares.yaml"])
    with pytest.raises(BenchError, match="suite suite: no dataset to evaluate on is usable here; missing: gone"):
        planned(suite, **QUICK)


def test_two_datasets_of_one_name_are_refused(suite: Path) -> None:
    (suite / "other").mkdir()
    write_card(suite / "other", "squares")
    with pytest.raises(BenchError, match="two datasets are named 'squares'"):
        planned(suite, **QUICK, datasets=[str(suite / "squares.yaml"), str(suite / "other" / "squares.yaml")])


# What the validation loss is computed on, and the texts of classes


def test_a_suite_names_the_sets_that_give_the_validation_loss(suite: Path) -> None:
    write_card(suite, "copy")
    both = ["squares.yaml", "copy.yaml"]
    edit(suite / "suite.yaml", pretraining=both)
    everywhere = planned(suite, **QUICK).cells[0]
    assert everywhere.validation == ("squares", "copy")
    edit(suite / "suite.yaml", validation=both)
    assert planned(suite, **QUICK).cells[0].key == everywhere.key
    edit(suite / "suite.yaml", validation=["copy.yaml"])
    plan = planned(suite, **QUICK)
    (cell,) = plan.cells
    assert cell.validation == ("copy",)
    assert cell.key != everywhere.key
    materials = Materials(plan, Progress(Console(), "none"), suite / "cache")
    assert len(materials.sets(cell, "train")) == 2
    assert [len(pairs.rows) for pairs in materials.sets(cell, "val")] == [len(plan.datasets["copy"].records("val"))]
    assert plan.left_out == []


def test_a_set_to_validate_on_that_is_not_trained_on_is_told(suite: Path) -> None:
    write_card(suite, "copy")
    edit(suite / "suite.yaml", validation=["copy.yaml"])
    plan = planned(suite, **QUICK)
    assert plan.cells[0].validation == ("squares",)
    assert plan.left_out == ["validation on copy: not among the sets to pretrain on here; the loss is that of squares"]
    edit(suite / "suite.yaml", validation=["copi"])
    with pytest.raises(BenchError, match="unknown dataset 'copi'"):
        planned(suite, **QUICK)


def test_a_suite_replaces_texts_of_a_card(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    texts = {"prompts": ["picture of {}"], "class_texts": {"nodule": "nothing"}}
    fields = {"extends": "demo", "datasets": ["phantom-cxr"], "methods": ["clip"], "tasks": ["zero_shot"]}
    pairs = []
    for cards in ({}, {"phantom-cxr": texts}):
        path.write_text(yaml.safe_dump(fields | {"cards": cards}))
        plan = make_plan(load_run_config(str(path), {"device": "cpu"}, [], METHODS.names()), tmp_path)
        pairs.append(plan.pairs[0])
    card = plan.datasets["phantom-cxr"].card
    assert card.positive_prompts("nodule") == ["picture of nothing"]
    assert pairs[0].key != pairs[1].key
    for cards, message in (
        ({"phantom-crx": texts}, "unknown dataset 'phantom-crx'; did you mean 'phantom-cxr'"),
        ({"phantom-cxr": {"prompts": ["picture"]}}, "prompts: 'picture' has no {} for the class"),
        ({"phantom-cxr": {"prompt": ["{}"]}}, "unknown key of cards.phantom-cxr 'prompt'; did you mean 'prompts'"),
    ):
        path.write_text(yaml.safe_dump(fields | {"cards": cards}))
        with pytest.raises(BenchError, match=message):
            make_plan(load_run_config(str(path), {"device": "cpu"}, [], METHODS.names()), tmp_path)


# What methods need


def test_a_method_that_does_not_get_what_it_needs(suite: Path) -> None:
    none = ["training.augmentation={crop_scale: [1.0, 1.0], crop_ratio: [1.0, 1.0]}", "simclr.variant=roy"]
    plan = planned(suite, *none, methods=["simclr", "clip"], tasks=["zero_shot"])
    (problem,) = plan.problems
    assert problem.startswith("method 'simclr' needs augmentation: training.augmentation does not change images")
    assert [cell.method for cell in plan.cells] == ["simclr", "clip"]
    everything = planned(suite, *none, methods=["all"], tasks=["zero_shot"])
    assert everything.problems == []
    assert "clip" in {cell.method for cell in everything.cells}
    assert "simclr" not in {cell.method for cell in everything.cells}
    assert problem in everything.left_out


READER = '''
from dataclasses import dataclass

from benchmark import Task, register_task


@register_task("reader")
class Reader(Task):
    """Reads tokens, if told to."""

    primary, needs = "accuracy", frozenset({"label"})

    @dataclass
    class Config:
        """by_tokens: whether to read tokens."""

        by_tokens: bool = False

    @classmethod
    def model_needs(cls, config):
        return frozenset({"image_tokens"} if config.by_tokens else ())

    def evaluate(self, data, seed):
        """Measure nothing."""
'''


def test_a_task_that_does_not_get_what_it_needs(suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {"methods": ["clip"], "tasks": ["reader"]}
    with registered(TASKS, tmp_path / "reader.py", READER):
        assert planned(suite, "reader.by_tokens=true", **quick).problems == []
        monkeypatch.setattr(TinyImageTower, "has_tokens", False)
        plan = planned(suite, "reader.by_tokens=true", **quick)
        model = plan.model.name
        assert plan.problems == [
            f"task 'reader' with these options needs image_tokens: model '{model}' does not provide it"
        ]
        assert planned(suite, **quick).problems == []


def test_a_method_whose_losses_do_not_follow_a_setting(suite: Path) -> None:
    plan = planned(suite, "training.label_smoothing=0.1", methods=["siglip", "clip"], tasks=["zero_shot"])
    expected = "method 'siglip' does not follow training.label_smoothing=0.1 in its losses; leave it out, or set 0.0"
    assert plan.problems == [expected]
    assert planned(suite, "training.same_text=ignore", methods=["siglip"], tasks=["zero_shot"]).problems == []


def test_cautions_of_a_method_are_of_its_arms(suite: Path) -> None:
    plan = planned(
        suite, "msd.momentum=0.5", "msd.queue_size=1024", methods=["msd", "clip"], tasks=["zero_shot"], seeds=[0, 1]
    )
    counted: list[str] = []

    def pairs(cell: Cell) -> int:
        counted.append(cell.arm)
        return 1000

    queue, longer = cautions_of(plan.cells, pairs)
    assert queue.startswith("msd: the keys of a queue of 1,024 are of ")
    assert longer == "msd: a queue of 1,024 keys is longer than the data, 1,000 pairs; lower queue_size"
    assert len(cautions_of(plan.cells, lambda _: None)) == 1
    assert set(counted) == {"msd", "clip"}


def test_classes_of_several_datasets_are_not_one_set(suite: Path) -> None:
    """A prompt for each class needs one set of classes."""
    write_card(suite, "copy")
    both = [str(suite / "squares.yaml"), str(suite / "copy.yaml")]
    plan = planned(suite, "cleft.stage2=class", methods=["cleft"], tasks=["zero_shot"], pretraining=both)
    assert any("needs label: squares, copy have different classes" in p for p in plan.problems)


def test_pairs_without_texts_or_a_train_split(suite: Path) -> None:
    source = dict(CARD["source"])  # type: ignore[call-overload]
    source["columns"] = {key: value for key, value in source["columns"].items() if key != "text"}
    write_card(suite, "mute", source=source)
    plan = planned(suite, **QUICK, pretraining=[str(suite / "mute.yaml")])
    assert plan.problems == ["dataset 'mute' has no text to pretrain on"]


# Grids, options, tuned settings


def test_a_point_of_the_grid_makes_cells_of_the_methods_that_it_changes(suite: Path) -> None:
    plan = planned(suite, methods=["msd", "clip"], tasks=["zero_shot"], grid=["msd.momentum=0.9,0.99"])
    assert [(cell.method, cell.label["variant"]) for cell in plan.cells] == [
        ("msd", "momentum=0.9"),
        ("clip", ""),
        ("msd", "momentum=0.99"),
    ]
    plan = planned(suite, **QUICK, grid=["training.batch_size=16,24", "training.warmup=0.1,0.2"])
    assert len({cell.key for cell in plan.cells}) == len(plan.cells) == 4
    assert [(cell.training.batch_size, cell.training.warmup) for cell in plan.cells] == [
        (16, 0.1),
        (16, 0.2),
        (24, 0.1),
        (24, 0.2),
    ]
    with pytest.raises(BenchError, match=r"--grid zero_shot\.rare_below: a grid can only vary training settings"):
        planned(suite, **QUICK, grid=["zero_shot.rare_below=1,2"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clipp": {}}, "unknown method or task under options 'clipp'; did you mean 'clip'"),
        ({"siglip": {"bia": 1}}, "method 'siglip': unknown option 'bia'; did you mean 'bias'"),
        ({"vqa": {"epochs": "many"}}, "task 'vqa'"),
    ],
    ids=str,
)
def test_a_slip_under_a_suites_options_is_found_by_any_run(suite: Path, options: dict[str, Any], message: str) -> None:
    edit(suite / "suite.yaml", options=options)
    with pytest.raises(BenchError, match=message):
        planned(suite, **QUICK)


def test_tuned_settings_are_laid_over_each_method(suite: Path) -> None:
    plain = planned(suite, methods=["clip", "msd"], tasks=["zero_shot"])
    folder = suite / "tuning"
    folder.mkdir()
    rates = {"clip": 0.001, "msd": 0.002}
    for method, rate in rates.items():
        content = {"settings": {"training.learning_rate": rate}}
        settings_file(plain.config, folder, method).write_text(json.dumps(content))
    plan = planned(suite, methods=["clip", "msd"], tasks=["zero_shot"], tuned=str(folder))
    assert {cell.method: cell.training.learning_rate for cell in plan.cells} == rates
    assert {cell.label["variant"] for cell in plan.cells} == {"training=tuned"}
    with pytest.raises(BenchError, match=r"found training.learning_rate=0.001 for arm 'clip', but --set gives 1"):
        planned(suite, "training.learning_rate=1", **QUICK, tuned=str(folder))
    with pytest.raises(BenchError, match="no settings yet for arm 'siglip'"):
        planned(suite, methods=["siglip"], tasks=["zero_shot"], tuned=str(folder))


class Side(enum.Enum):
    LEFT = "left"


@pytest.fixture
def typed() -> Iterator[str]:
    """A method whose options JSON does not hold as they are."""

    @register_method("typed_options")
    class Typed(Method):
        @dataclass
        class Config:
            side: Side = Side.LEFT
            place: Path = Path("a")
            span: tuple[int, int] = (1, 2)

        def contrast(self, embeddings, keys):
            return {}

    yield "typed_options"
    METHODS._classes.pop("typed_options")


def test_a_method_is_built_again_from_stored_options(typed: str, suite: Path) -> None:
    options = method_options(typed, {"place": "b", "span": [3, 4]})
    model = build_model(load_model_card(suite / "small.yaml"), 0, "meta")
    stored = json.loads(json.dumps(plain_options("it", options)))
    assert build_method(typed, model, stored).config == build_method(typed, model, options).config
    (cell,) = planned(suite, "typed_options.span=[3,4]", methods=[typed], tasks=["zero_shot"]).cells
    assert cell.content["options"] == {"side": "left", "place": "a", "span": [3, 4]}
    assert cell.options == {"side": Side.LEFT, "place": Path("a"), "span": (3, 4)}


# Initial weights, language model, tokenizer


def with_init(suite: Path, **init: Any) -> None:
    (suite / "general.yaml").write_text(yaml.safe_dump(MODEL | {"init": init}))


def test_initial_weights_are_the_cards_alone(suite: Path) -> None:
    training = {"samples": 64, "batch_size": 16, "micro_batch": 16}
    init = {"datasets": [str(suite / "squares.yaml")], "method": "clip", "training": training}
    with_init(suite, **init)
    flags = QUICK | {"model": str(suite / "general.yaml"), "seeds": [0, 1], "baselines": True}
    plan, other = (
        planned(suite, **flags),
        planned(suite, "training.learning_rate=1e-2", "clip.temperature=0.1", **flags),
    )
    assert plan.initial is not None
    assert other.initial is not None
    assert plan.initial.key == other.initial.key
    assert (plan.initial.training.batch_size, plan.initial.seed, plan.initial.label["variant"]) == (16, 0, "")
    assert plan.initial.content["initial"] is None
    assert {cell.content["initial"] for cell in plan.cells} == {plan.initial.key}
    assert {encoder.name for encoder in plan.fixed} == {"initial weights", "untrained", "raw pixels"}
    of_seed = {encoder.seed: encoder.key for encoder in plan.fixed if encoder.name == "initial weights"}
    assert plan.starts == of_seed
    with_init(suite, **init | {"training": training | {"samples": 80}})
    longer = planned(suite, **flags)
    assert {cell.key for cell in longer.cells}.isdisjoint({cell.key for cell in plan.cells})
    with_init(suite, **init | {"training": {"sample": 80}})
    with pytest.raises(BenchError, match=r"model 'general', init\.training: unknown key 'sample'; did you mean"):
        planned(suite, **flags)


def test_starts_are_known_where_no_baseline_is_evaluated(suite: Path) -> None:
    plan = planned(suite, **QUICK, seeds=[0, 1])
    assert plan.fixed == []
    assert list(plan.starts) == [0, 1]
    both = planned(suite, **QUICK, seeds=[0, 1], baselines=True)
    assert plan.starts == {encoder.seed: encoder.key for encoder in both.fixed if "initial" in encoder.name}
    assert plan.raw_pixels == {encoder.seed: encoder.key for encoder in both.fixed if encoder.name == "raw pixels"}


def test_a_language_model_is_of_the_texts_of_its_own_datasets(suite: Path) -> None:
    for name in ("texts", "copy"):
        write_card(suite, name)
    texts = [str(suite / "texts.yaml"), str(suite / "copy.yaml")]
    with_init(suite, language_model={"datasets": texts, "steps": 2})
    flags = {"model": str(suite / "general.yaml"), "methods": ["clip"]}
    plan = planned(suite, **flags, tasks=["zero_shot", f"zero_shot:{suite / 'copy.yaml'}"])
    assert plan.language is not None
    assert plan.language.datasets == ("texts", "copy")
    # copy is evaluated, too: its images must be there.
    assert plan.language.texts_only == {"texts"}
    with_init(suite, language_model={"datasets": texts, "steps": 3})
    longer = planned(suite, **flags, tasks=["zero_shot"])
    assert longer.language is not None
    assert longer.language.key != plan.language.key
    # clip's text tower is none: its cells do not depend on it.
    assert [cell.key for cell in longer.cells] == [cell.key for cell in plan.cells]


def test_a_tokenizer_is_trained_on_what_its_card_names(suite: Path) -> None:
    write_card(suite, "copy")
    tokenizer = MODEL["tokenizer"] | {"datasets": [str(suite / "copy.yaml")]}  # type: ignore[operator]
    edit(suite / "small.yaml", tokenizer=tokenizer)
    plan = planned(suite, **QUICK)
    assert plan.corpus == ["copy"]
    assert [name for name, _ in plan.cells[0].content["tokenizer_data"]] == ["copy"]


# Scenarios


def test_a_scenario_trains_at_the_plain_condition_too(suite: Path) -> None:
    write_scenario(suite)
    plan = planned(suite, **QUICK, suite="scenario", seeds=[0, 1])
    assert [(cell.seed, cell.condition, cell.pretraining) for cell in plan.cells] == [
        (seed, condition, (name,)) for seed in (0, 1) for condition, name in ((72, "squares"), (36, "few"))
    ]
    for plain, cell in zip(plan.cells[::2], plan.cells[1::2], strict=True):
        assert plain.plain == cell.plain == plain.key
        columns = plan.scenario_of(cell, plan.pairs[0])
        assert (columns["condition"], columns["plain"], columns["plain_dataset"]) == (36, plain.key, "squares")
    # The plain cell is the one of a suite without a scenario.
    assert plan.cells[0].key == planned(suite, **QUICK).cells[0].key


def test_a_scenario_in_what_is_tested_on_adds_the_plain_dataset(suite: Path) -> None:
    scenario = {"name": "shift", "question": "Does it?", "varies": "name", "condition": "other"}
    scenario |= {"plain": {"condition": "own", "dataset": str(suite / "squares.yaml")}}
    write_scenario(suite, pretraining=["squares.yaml"], datasets=["copy.yaml"], scenario=scenario)
    plan = planned(suite, **QUICK, suite="scenario")
    assert plan.plain_dataset == "squares"
    assert tasks_of(plan) == [("zero_shot", "squares"), ("zero_shot", "copy")]
    (cell,) = plan.cells
    assert [plan.scenario_of(cell, pair)["condition"] for pair in plan.pairs] == ["own", "other"]
    assert {plan.scenario_of(cell, pair)["plain_dataset"] for pair in plan.pairs} == {"squares"}
    assert planned(suite, **QUICK).scenario_of(cell, plan.pairs[0]) == {}


# Models from elsewhere


def evaluated(suite: Path, spec: str, **flags: Any) -> Plan:
    config = load_run_config(str(suite / "suite.yaml"), {"tasks": ["linear_probe"]} | flags, [], [])
    return evaluation_plan(config, spec)


def test_an_evaluation_trains_nothing(suite: Path) -> None:
    plan = evaluated(suite, "timm:resnet18", seeds=[0, 1], baselines=True)
    assert plan.cells == []
    assert [(encoder.name, encoder.seed, encoder.label["role"]) for encoder in plan.fixed] == [
        (name, seed, role)
        for seed in (0, 1)
        for name, role in (("timm:resnet18", "model"), ("untrained", "baseline"), ("raw pixels", "baseline"))
    ]
    assert len({encoder.key for encoder in plan.fixed}) == 6
    for name, keys in (("untrained", plan.starts), ("raw pixels", plan.raw_pixels)):
        assert keys == {encoder.seed: encoder.key for encoder in plan.fixed if encoder.name == name}
    alone = evaluated(suite, "timm:resnet18", seeds=[0, 1], baselines=False)
    assert [encoder.name for encoder in alone.fixed] == ["timm:resnet18"] * 2
    assert (alone.starts, alone.raw_pixels) == (plan.starts, plan.raw_pixels)


def test_an_evaluation_reads_what_it_tests_on(suite: Path) -> None:
    write_card(suite, "copy")
    pretraining = {"pretraining": [str(suite / "copy.yaml")], "datasets": [str(suite / "squares.yaml")]}
    assert set(evaluated(suite, "timm:resnet18", **pretraining).datasets) == {"squares"}
    # The tokenizer of this card is trained on what is pretrained on.
    assert set(evaluated(suite, str(suite / "small.yaml"), **pretraining).datasets) == {"squares", "copy"}


def test_the_weights_of_a_card_are_held_against_random_ones(suite: Path) -> None:
    training = {"samples": 64, "batch_size": 16, "micro_batch": 16}
    with_init(suite, datasets=[str(suite / "squares.yaml")], method="clip", training=training)
    card = str(suite / "general.yaml")
    plan = evaluated(suite, card, baselines=True)
    key = {encoder.name: encoder.key for encoder in plan.fixed}
    assert list(key) == ["general", "untrained", "raw pixels"]
    assert (plan.starts, plan.raw_pixels) == ({0: key["untrained"]}, {0: key["raw pixels"]})
    # The baselines of trainings of this card are the same ones.
    trained = planned(suite, **QUICK | {"model": card}, baselines=True)
    assert {key["untrained"], key["raw pixels"]} <= {encoder.key for encoder in trained.fixed}
    assert trained.starts != plan.starts
    assert trained.raw_pixels == plan.raw_pixels


@pytest.mark.parametrize("spec", ["small.yaml", "open_clip:RN50/random"])
def test_a_model_of_random_weights_is_held_against_itself(suite: Path, spec: str) -> None:
    plan = evaluated(suite, spec if spec.startswith("open_clip") else str(suite / spec), baselines=True)
    model, raw_pixels = plan.fixed
    assert model.label["role"] == "model"
    assert (plan.starts, plan.raw_pixels) == ({0: model.key}, {0: raw_pixels.key})


def test_an_evaluation_of_a_card_is_of_its_initial_weights(suite: Path) -> None:
    card = str(suite / "small.yaml")
    plan = evaluated(suite, card, baselines=True)
    assert {encoder.name: encoder.label["role"] for encoder in plan.fixed} == {
        "small (random)": "model",
        "raw pixels": "baseline",
    }
    assert [encoder.name for encoder in evaluated(suite, card).fixed] == ["small (random)"]


def test_settings_of_what_an_evaluation_does_not_run_are_refused(suite: Path) -> None:
    config = load_run_config(str(suite / "suite.yaml"), {}, ["msd.momentum=0.9"], ["msd"])
    with pytest.raises(BenchError, match=r"--set msd\.momentum: method 'msd' is not in this run; its methods: none"):
        evaluation_plan(config, str(suite / "small.yaml"))


def test_planning_imports_nothing_of_execution() -> None:
    folder = Path(sys.modules["benchmark.plan.make"].__file__ or "").parent
    assert not [path.name for path in folder.glob("*.py") if "benchmark.execution" in path.read_text()]
