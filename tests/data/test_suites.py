"""The published suites: what they name is there, and they run with what is found."""

import pytest

from benchmark.config import config_names, load_run_config
from benchmark.data.card import load_card
from benchmark.errors import BenchError
from benchmark.method import METHODS
from benchmark.models import load_model_card
from benchmark.plan import make_plan, method_options
from benchmark.task import TASKS
from tests.data.published.layouts import WRITERS

KNOWN = [*METHODS.names(), *TASKS.names()]


def configured(suite, **flags):
    return load_run_config(suite, flags, [], KNOWN)


@pytest.fixture
def data(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("BENCH_DATA", str(folder))
    return folder


@pytest.mark.parametrize("suite", config_names("suite"))
def test_all_that_a_suite_names_is_there(suite):
    config = configured(suite)
    assert config.description
    load_model_card(config.model)
    for name in [*config.pretraining, *config.datasets]:
        load_card(name)
    for name in config.methods:
        method_options(name, config.options.get(name, {}))
    for name in config.tasks:
        assert name == "all" or TASKS[name]
    for name in config.pretraining:
        assert "text" in load_card(name).provides


def test_the_published_25_tasks_and_more():
    """Roy 2024: 21 sets to classify, 4 to retrieve from, VQA-RAD and PathVQA; NCT-CRC-HE and MedMNIST+ among the 21."""
    cards = [load_card(name) for name in configured("roy2024").datasets]
    assert sum("prompts" in card.provides for card in cards) == 21
    assert {card.name for card in cards if "text" in card.provides} == {
        "roco", "quilt-1m-retrieval", "mimic-cxr", "deepeyenet",
    }  # fmt: skip
    assert {card.name for card in cards if "question" in card.provides} == {"vqa-rad", "path-vqa"}


def test_open_data_only():
    config = configured("medmnist")
    assert {load_card(name).access for name in [*config.pretraining, *config.datasets]} == {"open"}


def test_a_suite_runs_with_what_is_found(data, tmp_path):
    config = configured("medmnist", model="tiny", methods=["clip"])
    with pytest.raises(BenchError, match=r"^suite medmnist: nothing to pretrain on is found here; missing: rocov2$"):
        make_plan(config, tmp_path / "cache")
    for name in ("rocov2", "breastmnist"):
        WRITERS[name](data)
    plan = make_plan(config, tmp_path / "cache")
    assert {pair.dataset for pair in plan.pairs} == {"rocov2", "breastmnist"}
    assert len(plan.absent) == 11
    assert plan.absent[0] == "pathmnist: not found on this machine; bench data how pathmnist"
    with pytest.raises(BenchError, match=r"^suite medmnist, --strict: not found here: pathmnist, chestmnist, .*$"):
        make_plan(configured("medmnist", model="tiny", methods=["clip"], strict=True), tmp_path / "cache")


def test_what_the_command_line_names_must_be_there(data, tmp_path):
    for name in ("rocov2", "breastmnist"):
        WRITERS[name](data)
    config = configured("medmnist", model="tiny", methods=["clip"], datasets=["breastmnist", "octmnist"])
    with pytest.raises(BenchError, match=r"octmnist_224.npz' does not exist"):
        make_plan(config, tmp_path / "cache")
