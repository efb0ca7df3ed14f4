"""The published suites: what they name is there, and they run with what is found."""

import re
import shutil
from io import StringIO

import pytest
import yaml
from rich.console import Console

from benchmark.common.errors import BenchError
from benchmark.common.progress import Progress
from benchmark.common.tracking import Tracking
from benchmark.config.load import load_run_config
from benchmark.config.yaml_files import config_names, find_config
from benchmark.data.card import load_card
from benchmark.execution.runner import Runner, run
from benchmark.method import METHODS
from benchmark.models import load_model_card
from benchmark.plan.make import evaluation_plan, make_plan
from benchmark.plan.resolve import arm_names, arm_options
from benchmark.store.store import Store
from benchmark.task import TASKS
from tests.data.published.layouts import WRITERS
from tests.extra import needs_weights

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
    for name in arm_names(config):
        arm_options(config, name)
    for name in config.tasks:
        assert name == "all" or TASKS[name]
    for name in config.pretraining:
        assert "text" in load_card(name).provides


def test_the_published_25_tasks_and_more():
    """Roy 2024: 21 sets to classify, 4 to retrieve from, VQA-RAD and PathVQA; NCT-CRC-HE and MedMNIST+ among the 21."""
    cards = [load_card(name) for name in configured("roy2024").datasets]
    assert sum("prompts" in card.provides for card in cards) == 21
    assert {card.name for card in cards if "text" in card.provides} == {
        "roco",
        "quilt-1m-retrieval",
        "mimic-cxr-single",
        "deepeyenet",
    }
    assert {card.name for card in cards if "question" in card.provides} == {"vqa-rad", "path-vqa"}


def test_open_data_only():
    config = configured("medmnist")
    assert {load_card(name).access for name in [*config.pretraining, *config.datasets]} == {"open"}


def test_a_suite_runs_with_what_is_found(data, tmp_path):
    config = configured("medmnist", model="tiny", methods=["clip"])
    with pytest.raises(
        BenchError, match=r"^suite medmnist: no dataset to pretrain on is usable here; missing: rocov2$"
    ):
        make_plan(config, tmp_path / "cache")
    for name in ("rocov2", "breastmnist"):
        WRITERS[name](data)
    plan = make_plan(config, tmp_path / "cache")
    assert {pair.dataset for pair in plan.pairs} == {"rocov2", "breastmnist"}
    assert len(plan.absent) == 11
    assert plan.absent[0] == "pathmnist: not found on this machine; bench data how pathmnist"
    with pytest.raises(BenchError, match=r"^suite medmnist, --strict: not found: pathmnist, chestmnist, .*$"):
        make_plan(configured("medmnist", model="tiny", methods=["clip"], strict=True), tmp_path / "cache")


@needs_weights
def test_what_is_found_of_the_open_sets_is_trained_on_and_evaluated(data, tmp_path):
    for name in ("ham10000-text", "breastmnist-28"):
        WRITERS[name](data)
    settings = ["training.steps=1", "training.batch_size=4", "training.micro_batch=4"]
    flags = {"methods": ["locked_text"], "tasks": ["zero_shot", "retrieval"], "seeds": [0], "baselines": False}
    plan = make_plan(load_run_config("transfer-open", flags, settings, KNOWN), tmp_path / "cache")
    assert {(pair.task, pair.dataset) for pair in plan.pairs} == {
        ("zero_shot", "ham10000"),
        ("zero_shot", "breastmnist-28"),
        ("retrieval", "ham10000-text"),
    }
    assert [line.partition(":")[0] for line in plan.absent] == ["bloodmnist-28", "pneumoniamnist-28", "retinamnist-28"]
    store = Store(tmp_path / "results")
    run(plan, store, Progress(Console(quiet=True), "none"))
    rows = store.rows()
    assert set(rows.dataset) == {"ham10000", "ham10000-text", "breastmnist-28"}
    assert rows.value.notna().all()


@needs_weights
def test_without_texts_to_train_on_the_towers_are_evaluated_as_they_come(data, tmp_path):
    for name in ("breastmnist-28", "breastmnist"):
        WRITERS[name](data)
    config = configured("transfer-open", tasks=["zero_shot"], seeds=[0])
    with pytest.raises(BenchError, match=r"^suite transfer-open: no dataset to pretrain on is usable here; missing: h"):
        make_plan(config, tmp_path / "cache")
    plan = evaluation_plan(config, "real-general", tmp_path / "cache")
    assert {pair.dataset for pair in plan.pairs} == {"breastmnist-28"}
    assert [fixed.label["method"] for fixed in plan.fixed][:1] == ["real-general"]
    # A tokenizer that is trained on the sets to pretrain on cannot do without them.
    with pytest.raises(BenchError, match="no dataset to pretrain on is usable here"):
        evaluation_plan(configured("medmnist"), "tiny", tmp_path / "cache")


@pytest.fixture
def half(data, tmp_path):
    """A suite on sets of which some were downloaded in part, with settings by flag."""
    for name in ("rocov2", "pad-ufes-20", "ham10000", "siim-pneumothorax", "breastmnist", "bloodmnist"):
        WRITERS[name](data)
    for path in [*(data / "pad-ufes-20").rglob("*.png"), next((data / "ham10000").rglob("*.jpg"))]:
        path.unlink()
    shutil.rmtree(data / "siim-pneumothorax" / "dicom-images-train")
    (next(data.rglob("bloodmnist*.npz"))).write_bytes(b"half of it")
    suite = yaml.safe_load(find_config("suite", "medmnist").read_text())
    suite |= {
        "pretraining": ["rocov2"],
        "on_bad_data": "skip",
        "tasks": ["zero_shot"],
        "datasets": ["breastmnist", "bloodmnist", "pad-ufes-20", "ham10000", "siim-pneumothorax"],
    }
    (tmp_path / "half.yaml").write_text(yaml.safe_dump(suite))

    def planned(**flags):
        config = configured(str(tmp_path / "half.yaml"), model="tiny", methods=["clip"], **flags)
        return make_plan(config, tmp_path / "cache")

    return planned


def test_sets_that_are_there_in_part_are_left_out(half, tmp_path):
    plan = half()
    assert {pair.dataset for pair in plan.pairs} == {"breastmnist", "ham10000"}
    assert plan.absent[1:] == [
        "pad-ufes-20: has no rows; left out: missing image: 6; bench data how pad-ufes-20",
        "siim-pneumothorax: not found on this machine; bench data how siim-pneumothorax",
    ]
    assert re.match(r"bloodmnist: \S+.npz: cannot be read as .npz: .*; bench data how bloodmnist$", plan.absent[0])
    assert not plan.datasets.keys() & {"bloodmnist", "pad-ufes-20", "siim-pneumothorax"}
    strict = r"--strict: not found: bloodmnist \(.*\), pad-ufes-20 \(has no rows; .*\), siim-pneumothorax; see"
    with pytest.raises(BenchError, match=strict):
        half(strict=True)
    with pytest.raises(BenchError, match=r"^dataset 'pad-ufes-20' has no rows; left out: missing image: 6$"):
        run(
            half(datasets=["breastmnist", "pad-ufes-20"]),
            Store(tmp_path / "results"),
            Progress(Console(quiet=True), "none"),
        )


def test_a_bad_row_among_others_is_no_reason_to_leave_out_a_set(half):
    with pytest.raises(BenchError, match=r"^HAM10000_metadata.csv, row 2: image '.*' does not exist"):
        half(on_bad_data="error")


def test_a_set_without_an_image_that_decodes_is_left_out(half, data, tmp_path):
    for path in (data / "ham10000").rglob("*.jpg"):
        path.write_bytes(b"half of it")
    said = StringIO()
    plan, progress = half(), Progress(Console(file=said, width=400), "none")
    check = Runner(plan, Store(tmp_path / "results"), progress, tmp_path / "cache", Tracking()).check
    check([])
    assert {pair.dataset for pair in plan.pairs} == {"breastmnist"}
    assert "left out: dataset 'ham10000', train: none of its images can be decoded" in said.getvalue()
    plan = half(datasets=["breastmnist", "ham10000"])
    with pytest.raises(BenchError, match=r"dataset 'ham10000', train: none of its images can be decoded"):
        Runner(plan, Store(tmp_path / "results"), progress, tmp_path / "cache", Tracking()).check([])


def test_what_the_command_line_names_must_be_there(data, tmp_path):
    for name in ("rocov2", "breastmnist"):
        WRITERS[name](data)
    config = configured("medmnist", model="tiny", methods=["clip"], datasets=["breastmnist", "octmnist"])
    with pytest.raises(BenchError, match=r"octmnist_224.npz' does not exist"):
        make_plan(config, tmp_path / "cache")
