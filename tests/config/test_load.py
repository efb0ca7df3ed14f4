"""The run configuration: overrides and the errors that wrong ones end in."""

from pathlib import Path

import pytest
import yaml

from benchmark.common.errors import BenchError
from benchmark.config.load import load_run_config
from benchmark.config.schema import RunConfig
from benchmark.config.training import Training
from benchmark.config.yaml_files import config_names

SUITE = """
description: a test's
pretraining: [phantom]
datasets: [phantom-cxr]
methods: [clip]
training: {samples: 1000, batch_size: 64}
options: {msd: {alpha: 0.3}}
"""
KNOWN = ["clip", "msd", "linear_probe"]


@pytest.fixture
def suite(tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE)
    return str(path)


def load(
    suite: str, *settings: str, budget: str | None = None, grid: list[str] | None = None, **flags: object
) -> RunConfig:
    return load_run_config(suite, flags, settings, KNOWN, budget, grid or [])


def test_command_line_overrides_the_suite(suite: str) -> None:
    config = load(
        suite,
        "training.batch_size=512",
        "msd.momentum=0.99",
        "training.learning_rate=1e-3",
        "model.embed_dim=64",
        methods=["msd"],
        seeds=[0, 1],
        tasks=None,
    )
    assert config.suite == "mine"
    assert config.training.batch_size == 512
    assert config.training.samples == 1000
    assert config.training.learning_rate == 1e-3
    assert config.options == {"msd": {"alpha": 0.3, "momentum": 0.99}}
    assert config.model_options == {"embed_dim": 64}
    assert config.methods == ["msd"]
    assert config.tasks == ["all"]
    assert config.overrides["msd.momentum"] == 0.99


def test_a_budget_in_epochs_replaces_one_in_samples(suite: str) -> None:
    training = load(suite, "training.epochs=2").training
    assert (training.samples, training.epochs) == (None, 2)


@pytest.mark.parametrize(
    ("budget", "kind", "amount"),
    [
        ("samples=200k", "samples", 200_000),
        ("samples=1.5M", "samples", 1_500_000),
        ("steps=500", "steps", 500),
        ("epochs=2.5", "epochs", 2.5),
        ("time=10m", "time", 600),
        ("time=90", "time", 90),
        ("time=1.5h", "time", 5400),
        ("flops=2P", "flops", 2e15),
        ("flops=1e12", "flops", 1e12),
    ],
)
def test_a_budget_replaces_the_suites(suite: str, budget: str, kind: str, amount: float) -> None:
    config = load(suite, budget=budget)
    assert config.training.budget == (kind, amount)
    assert config.overrides == {f"training.{kind}": amount}


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("sample=3", "unknown kind of --budget 'sample'; did you mean 'samples'"),
        ("30", "--budget 30: expected one of samples, .* and an amount, as in samples=200k"),
        ("time=10k", r"expected a positive number, alone or with a unit \(s, m, h, d\), as in time=10m"),
        ("samples=10m", r"expected a positive number, alone or with a unit \(k, M, .*\), as in samples=200k"),
        ("samples=", "expected a positive number"),
        ("steps=-5", "expected a positive number"),
        ("samples=0", "training.samples: .*greater than 0"),
    ],
)
def test_wrong_budgets(suite: str, budget: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        load(suite, budget=budget)


def test_a_grid_is_a_product(suite: str) -> None:
    config = load(suite, "training.epochs=2", grid=["msd.targets=cross,hard", "training.samples=64,1e3"])
    assert config.grid == [
        {"msd.targets": targets, "training.samples": samples} for targets in ("cross", "hard") for samples in (64, 1e3)
    ]
    at = config.at(config.grid[1])
    assert at.training.budget == ("samples", 1000)
    assert at.options == {"msd": {"alpha": 0.3, "targets": "cross"}}
    assert at.overrides == {"training.epochs": 2, "msd.targets": "cross", "training.samples": 1e3}
    assert load(suite).grid == [{}]


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("training.batchsize=3", "unknown key of training 'batchsize'; did you mean 'batch_size'"),
        ("msdd.alpha=3", "unknown section of --grid 'msdd'; did you mean 'msd'"),
        ("training.batch_size=", "no values"),
        ("training.batch_size", "expected section.key=value"),
    ],
)
def test_wrong_grids(suite: str, axis: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        load(suite, grid=[axis])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.batchsize=3", "unknown key of training 'batchsize'; did you mean 'batch_size'"),
        ("msdd.momentum=3", "unknown section of --set 'msdd'; did you mean 'msd'"),
        ("training.batch_size", "expected section.key=value"),
        ("batch_size=3", "expected section.key=value"),
        ("training.batch_size=many", "training.batch_size: .*integer.*found 'many'"),
        ("training.batch_size=-1", "training.batch_size: .*greater than 0.*found -1"),
        ("training.samples=[", "not valid YAML: expected node content"),
    ],
)
def test_wrong_settings(suite: str, setting: str, message: str) -> None:
    with pytest.raises(BenchError, match=message) as caught:
        load(suite, setting)
    assert len(str(caught.value).splitlines()) <= 2


def test_a_method_and_a_task_of_one_name_are_listed_once(suite: str) -> None:
    with pytest.raises(BenchError, match=r"Known: captioning, evaluation, model, training$"):
        load_run_config(suite, {}, ["captionin.layers=1"], ["captioning", "captioning"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SUITE + "trainning: {}", r"mine.yaml: unknown key 'trainning'; did you mean 'training'"),
        (SUITE.replace("samples", "sample"), r"mine.yaml: unknown key of training 'sample'; did you mean 'samples'"),
        (
            SUITE.replace("samples: 1000, ", ""),
            r"training: set exactly one of samples, epochs, steps, time, flops; found none$",
        ),
        (SUITE.replace("methods: [clip]", ""), r"mine.yaml: methods is missing$"),
        (SUITE.replace("[clip]", "clip"), r"methods: expected a list, found 'clip'"),
        (
            SUITE.replace("samples: 1000", "budget: 1000"),
            r"unknown key of training 'budget'; expected one of samples, epochs, steps, time, flops",
        ),
        ("- a\n- b", r"mine.yaml: expected a mapping of keys to values, found a list"),
        ("3", r"mine.yaml: expected a mapping of keys to values, found a number"),
        ("# nothing", r"mine.yaml is empty; expected a mapping"),
        ("a: 1\nb: [1, 2\nc: 3\n", r"mine.yaml: line 3, column 2: not valid YAML: expected ',' or '\]'[^\n]*$"),
    ],
)
def test_wrong_suites(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(BenchError, match=message):
        load(str(path))


def test_unknown_suite_names_the_nearest() -> None:
    with pytest.raises(BenchError, match="unknown suite 'dmo'; did you mean 'demo'"):
        load("dmo")
    with pytest.raises(BenchError, match="no such file"):
        load("nowhere.yaml")


@pytest.mark.parametrize("name", config_names("suite"))
def test_shipped_suites_are_valid(name: str) -> None:
    assert load(name).description


def test_training_names_its_budget() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Training(samples=1, epochs=1)


def test_cards_of_a_scenario_lie_beside_its_suite(tmp_path: Path) -> None:
    scenario = {"name": "n", "question": "q?", "varies": "v", "condition": 0.5, "setting": "noisy_texts"}
    scenario["plain"] = {"condition": 0, "pretraining": ["pairs.yaml@noisy_texts=0"]}  # type: ignore[assignment]
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE.replace("[phantom]", "[pairs.yaml]") + yaml.safe_dump({"scenario": scenario}))
    pairs = tmp_path / "pairs.yaml"
    assert load(str(path)).trained_on() == {0: [f"{pairs}@noisy_texts=0"], 0.5: [str(pairs)]}


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({}, "scenario.plain: .*exactly one of pretraining and dataset, .*; found neither"),
        ({"pretraining": ["phantom"], "dataset": "phantom-cxr"}, "exactly one of .*; found both"),
        ({"dataset": "phantom-cxr"}, "scenario 'n' compares one dataset with another: found \\[\\]"),
    ],
)
def test_wrong_scenarios(tmp_path: Path, plain: dict[str, object], message: str) -> None:
    scenario = {"name": "n", "question": "q?", "varies": "v", "condition": 0.5, "plain": {"condition": 0} | plain}
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE + yaml.safe_dump({"scenario": scenario}))
    with pytest.raises(BenchError, match=message):
        load(str(path))


PARENT = """
description: the parent's
suite: parent
model: model.yaml
pretraining: [pairs.yaml]
datasets: [phantom-cxr, phantom-derm]
methods: [clip]
training: {samples: 1000, batch_size: 64, augmentation: {flip: 0.5, blur: 0.1}}
options: {msd: {alpha: 0.3, momentum: 0.9}, masked: {ratio: 0.5}, vqa: {epochs: 3}}
"""
CHILD = """
extends: {}
datasets: [phantom-cxr]
training: {{steps: 50, resolution: null, augmentation: {{flip: 0.25}}}}
options: {{msd: {{momentum: null, queue_size: 8}}, masked: null, vqa: {{steps: 5}}}}
"""


def write(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


def test_a_suite_extends_another(tmp_path: Path) -> None:
    """Mappings merge, all else replaces, null removes, a budget replaces another; the parent's paths are its own."""
    write(tmp_path / "parents" / "parent.yaml", PARENT)
    config = load(write(tmp_path / "child.yaml", CHILD.format("parents/parent.yaml")))
    assert config.suite == "child"
    assert config.description == "the parent's"
    assert config.model == str(tmp_path / "parents" / "model.yaml")
    assert config.pretraining == [str(tmp_path / "parents" / "pairs.yaml")]
    assert config.datasets == ["phantom-cxr"]
    assert config.training.budget == ("steps", 50)
    assert config.training.batch_size == 64
    augmentation = config.training.augmentation
    assert (augmentation.flip, augmentation.blur) == (0.25, 0.1)
    # A budget is one of the training alone: a method's or a task's own options merge whatever they are called.
    assert config.options == {"msd": {"alpha": 0.3, "queue_size": 8}, "vqa": {"epochs": 3, "steps": 5}}


def test_a_chain_of_suites_ends_in_a_shipped_one(tmp_path: Path) -> None:
    write(tmp_path / "middle.yaml", "extends: demo\nseeds: [0, 1]\ntraining: {batch_size: 32}\n")
    config = load(write(tmp_path / "mine.yaml", "extends: middle.yaml\nmethods: [siglip]\n"))
    demo = load("demo")
    assert config.methods == ["siglip"]
    assert config.seeds == [0, 1]
    assert config.training == demo.training.model_copy(update={"batch_size": 32})
    assert config.options == demo.options


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "extends: dmo"}, r"a\.yaml: extends: unknown suite 'dmo'; did you mean 'demo'"),
        ({"a": "extends: b.yaml"}, r"a\.yaml: extends: suite '.*b\.yaml': no such file"),
        ({"a": "extends: [demo]"}, r"a\.yaml: extends: expected the name of a suite .*, found \['demo'\]"),
        ({"a": "extends: a.yaml"}, r"a\.yaml: extends: a cycle: .*a\.yaml -> .*a\.yaml$"),
        ({"a": "extends: b.yaml", "b": "extends: c.yaml", "c": "extends: a.yaml"}, r"c\.yaml: extends: a cycle: "),
        ({"a": "extends: b.yaml", "b": "extends: demo\ntrainng: {}"}, r"a\.yaml extends .*b\.yaml .*key 'trainng'"),
        ({"a": "extends: demo\ntraining: 3"}, r"training: expected a mapping of keys to values, found 3"),
    ],
)
def test_wrong_parents(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        write(tmp_path / f"{name}.yaml", text)
    with pytest.raises(BenchError, match=message):
        load(str(tmp_path / "a.yaml"))


@pytest.mark.parametrize("name", [name for name in config_names("suite") if name.startswith("scenario-")])
def test_scenarios_are_the_demo_on_other_data(name: str) -> None:
    demo, scenario = load("demo"), load(name)
    assert (scenario.training, scenario.model, scenario.seeds) == (demo.training, demo.model, demo.seeds)
    assert scenario.options == {"msd": demo.options["msd"], "captioning": {"queries": 16}}


def test_messages_stay_short(suite: str, tmp_path: Path) -> None:
    for text in (f"training.batch_size={'9x' * 500_000}", f"training.{'x' * 1_000_000}=3", f"{'x' * 1_000_000}.a=3"):
        with pytest.raises(BenchError) as caught:
            load(suite, text)
        assert len(str(caught.value)) < 1000
    path = write(tmp_path / "long.yaml", SUITE + f"{'k' * 100_000}: 1\n")
    with pytest.raises(BenchError) as caught:
        load(path)
    assert len(str(caught.value)) < 1000
