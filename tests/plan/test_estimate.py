"""What a plan says that a training will take, against formulas and the run."""

import json

import open_clip
import pandas as pd
import pytest

from benchmark.config.load import load_run_config
from benchmark.config.training import Training
from benchmark.method import METHODS
from benchmark.models import ModelCard, build_model, load_model_card
from benchmark.plan.estimate import Estimator
from benchmark.plan.make import make_plan
from benchmark.store.store import Store
from benchmark.training.cost import Shape, flops_per_sample, on_meta, trial_copy
from tests.squares import Bench
from tests.training.fakes import CPU

pytestmark = pytest.mark.usefixtures("counted_each_time")

ONE, TWO = Training(steps=1, batch_size=8, micro_batch=8), Training(steps=1, batch_size=8, micro_batch=4)


LAYERS = 2


@pytest.fixture(scope="module", autouse=True)
def short(tmp_path_factory: pytest.TempPathFactory) -> None:
    """ViT-B/16 and its text tower with two of their twelve layers, for time."""
    config = open_clip.get_model_config("ViT-B-16")
    for tower in ("vision_cfg", "text_cfg"):
        config[tower]["layers"] = LAYERS
    folder = tmp_path_factory.mktemp("architectures")
    (folder / "ViT-B-16-short.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


def of_vit(name: str, training: Training, length: int) -> float:
    card = load_model_card("vit-b-16").model_dump()
    for part in ("image", "text"):
        card[part] |= {"name": "ViT-B-16-short", "pretrained": ""}
    model = build_model(ModelCard.model_validate(card), 0, device="meta")
    with on_meta():
        method = METHODS[name](model, METHODS[name].Config())
    with trial_copy(method, CPU) as copy:
        return flops_per_sample(copy, Shape(224, 224, length, training.augmentation).batch(1), training)


def test_flops_are_those_of_the_formula() -> None:
    length, patches, width = 16, 196, 768

    def transformer(n: int, w: int) -> int:
        return 2 * LAYERS * (12 * w * w * n + 2 * n * n * w)

    image = 2 * patches * 3 * 16 * 16 * width + transformer(patches + 1, width) + 2 * width * 512
    text = transformer(length, 512) + 2 * 512 * 512
    # A backward pass is twice the forward one, but for the gradient of the pixels.
    assert of_vit("clip", ONE, length) == pytest.approx(3 * (image + text), rel=0.01)
    assert of_vit("clip", TWO, length) == pytest.approx(4 * (image + text), rel=0.01)
    assert of_vit("locked_image", ONE, length) == pytest.approx(image + 3 * text, rel=0.01)
    assert of_vit("msd", TWO, length) == pytest.approx(4 * (image + text), rel=0.01)


def test_an_estimate_is_what_the_run_takes(bench: Bench) -> None:
    """With texts of the length that the data have; here they are read while planning."""
    flags = {"methods": ["clip", "msd", "locked_image"], "device": "cpu"}
    plan = make_plan(load_run_config("suite.yaml", flags, [], []))
    estimator = Estimator(plan, pd.DataFrame())
    estimates = {cell.key: estimator.cell(cell) for cell in plan.cells}
    run = ["run", "--suite", "suite.yaml", "--methods", "clip,msd,locked_image", "--device", "cpu"]
    assert bench(*run, "--tasks", "zero_shot") == 0
    measured = Store(bench.folder / "results").costs()
    costs = measured.set_index("cell")
    assert len(costs) == 3
    for cell in plan.cells:
        finished = Estimator(plan, measured).cell(cell)
        assert finished.flops_per_sample == costs.flops_per_sample[cell.key]
        assert finished.memory == costs.peak_memory[cell.key]
        assert finished.parameters == estimates[cell.key].parameters
    for key, estimate in estimates.items():
        assert estimate.assumed_length is None
        assert estimate.samples == costs.samples[key]
        assert estimate.flops_per_sample == pytest.approx(costs.flops_per_sample[key], rel=0.03)
        assert estimate.memory == pytest.approx(costs.peak_memory[key], rel=0.15)
        assert estimate.parameters["parameters_trainable"] == costs.parameters_trainable[key]


def test_a_planned_budget_in_flops_is_the_run_s(bench: Bench) -> None:
    settings = ["msd.queue_size=64", "training.flops=4e9"]
    plan = make_plan(load_run_config("suite.yaml", {"methods": ["msd"], "device": "cpu"}, settings, ["msd"]))
    estimate = Estimator(plan, pd.DataFrame()).cell(plan.cells[0])
    run = ["run", "--suite", "suite.yaml", "--methods", "msd", "--device", "cpu", "--tasks", "zero_shot"]
    assert bench(*run, *(part for setting in settings for part in ("--set", setting))) == 0
    (cost,) = Store(bench.folder / "results").costs().to_dict("records")
    assert cost["samples"] == estimate.samples > 10 * 32
    assert cost["flops"] == pytest.approx(estimate.samples * estimate.flops_per_sample, rel=0.03)
    assert cost["flops"] == pytest.approx(4e9, rel=0.03)


def test_texts_are_as_long_as_the_model_reads_where_the_data_are_not_read_yet(bench: Bench) -> None:
    plan = make_plan(load_run_config("demo", {"methods": ["cleft"], "device": "cpu"}, [], []), bench.folder / "empty")
    estimate = Estimator(plan, pd.DataFrame()).cell(plan.cells[0])
    assert estimate.assumed_length == 64


def test_a_rough_estimate_is_its_formula(bench: Bench) -> None:
    """Of 72 pairs in batches of 32, an epoch is two steps; the speed is that of a data sheet, of which 35 % count."""

    def rough(*settings: str, costs: pd.DataFrame | None = None, speed: float | None = 1e12) -> float | None:
        flags = {"methods": ["clip"], "device": "cpu"}
        budget = settings[0].removeprefix("training.") if settings else None
        plan = make_plan(load_run_config("suite.yaml", flags, [], [], budget))
        return Estimator(plan, pd.DataFrame() if costs is None else costs, speed).roughly(plan.cells[0], 72)

    plan = make_plan(load_run_config("suite.yaml", {"methods": ["clip"], "device": "cpu"}, [], []))
    encoding = Estimator(plan, pd.DataFrame(), 1e12).encoding.flops
    assert rough("training.epochs=3") == pytest.approx(6 * 32 * 3 * encoding / 0.35e12)
    assert rough("training.samples=640") == pytest.approx(640 * 3 * encoding / 0.35e12)
    assert rough("training.flops=7e12") == pytest.approx(20.0)
    assert rough("training.time=90") == 90.0
    cost = {"model": "small", "device": "cpu", "flops_per_sample": 1e6, "accumulation": "cached"}
    costs = pd.DataFrame([cost | {"method": "clip", "cell": "x", "samples_per_second": 64.0}])
    assert rough("training.samples=640", costs=costs, speed=None) == pytest.approx(10.0)
