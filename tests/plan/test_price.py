"""What a plan says before the data are here, against arithmetic by hand and against what a run then takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from benchmark.cli.plan import parse_speed
from benchmark.common.errors import BenchError
from benchmark.config.load import load_run_config
from benchmark.data.card import Card, load_card
from benchmark.data.dataset import open_dataset
from benchmark.models import build_model
from benchmark.plan import estimate
from benchmark.plan.estimate import EFFICIENCY, Estimate, Estimator
from benchmark.plan.make import make_plan
from benchmark.plan.plan import Plan
from benchmark.store.store import Store
from tests.squares import Bench, edit, planned

pytestmark = pytest.mark.usefixtures("counted_each_time")

ROWS = {"train": 72, "val": 18, "test": 30}
"""The images of the squares."""
QUICK: dict[str, Any] = {"methods": ["clip"], "tasks": ["zero_shot", "linear_probe"], "device": "cpu"}
NONE = pd.DataFrame()


@pytest.fixture
def away(suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The squares without their data and with the numbers of their images in the card."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    (suite / "squares.jsonl").rename(suite / "squares.away")
    edit(suite / "squares.yaml", rows=ROWS)
    return suite


def epochs(folder: Path, count: float, **flags: Any) -> Plan:
    known = load_run_config(str(folder / "suite.yaml"), QUICK | flags, [], [], f"epochs={count}")
    return make_plan(known, from_cards=True)


def test_pairs_of_an_epoch_are_the_cards(away: Path) -> None:
    plan = epochs(away, 3)
    cost = Estimator(plan, NONE).cell(plan.cells[0])
    assert cost.samples == 3 * (72 // 32) * 32
    assert cost.assumed_length == 32
    edit(away / "squares.yaml", rows=None, about_rows={"train": 1000, "val": 18, "test": 30})
    plan = epochs(away, 3)
    assert Estimator(plan, NONE).cell(plan.cells[0]).samples == 3 * 31 * 32
    edit(away / "squares.yaml", about_rows=None)
    plan = epochs(away, 3)
    cost = Estimator(plan, NONE).cell(plan.cells[0])
    assert (cost.samples, cost.seconds) == (None, None)
    assert cost.flops_per_sample > 0
    assert cost.memory > 0


def test_a_run_without_data_is_refused_as_before(away: Path) -> None:
    with pytest.raises(BenchError, match="no dataset to pretrain on is usable here; missing: squares"):
        planned(away, **QUICK)


def test_only_what_would_be_refused_is_planned_from_cards(away: Path) -> None:
    """Where a run leaves a dataset out, so does its plan; unless --strict asks for all of them."""
    (away / "squares.away").rename(away / "squares.jsonl")
    card = yaml.safe_load((away / "squares.yaml").read_text())
    (away / "gone.yaml").write_text(yaml.safe_dump(card | {"source": card["source"] | {"file": "gone.jsonl"}}))
    edit(away / "suite.yaml", datasets=["squares.yaml", "gone.yaml"], pretraining=["gone.yaml", "squares.yaml"])
    plan = planned(away, **QUICK, from_cards=True)
    assert plan.cells[0].pretraining == ("squares",)
    assert plan.absent == ["gone: not found on this machine; bench data how gone"]
    assert planned(away, **QUICK).cells[0].key == plan.cells[0].key
    plan = planned(away, **QUICK, from_cards=True, strict=True)
    assert plan.cells[0].pretraining == ("gone", "squares")
    assert plan.absent == []
    assert [name for name, dataset in plan.datasets.items() if not dataset.is_here] == ["gone"]


def test_time_is_operations_over_the_speed(away: Path) -> None:
    plan = epochs(away, 3)
    cost = Estimator(plan, NONE, 1e12).cell(plan.cells[0])
    model = build_model(plan.model, 0).eval()
    passes: tuple[Callable[[], object], Callable[[], object]] = (
        lambda: model.encode_image(torch.zeros(1, 3, 32, 32)),
        lambda: model.encode_text(torch.ones(1, 32, dtype=torch.long), torch.ones(1, 32, dtype=torch.bool)),
    )
    forward = []
    for encode in passes:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            encode()
        forward.append(counter.get_total_flops())
    # Two validations on 18 pairs each; every split is encoded once for both tasks.
    operations = 3 * 64 * cost.flops_per_sample + 2 * 18 * sum(forward)
    assert cost.seconds == pytest.approx(operations / (EFFICIENCY * 1e12))
    evaluation = Estimator(plan, NONE, 1e12).evaluation(plan.pairs)
    assert evaluation.images == 72 + 18 + 30
    assert evaluation.seconds == pytest.approx(120 * forward[0] / (EFFICIENCY * 1e12))
    assert evaluation.stored == 120 * 4 * (32 + 16)


def test_the_price_is_what_the_run_takes(bench: Bench) -> None:
    """Pairs, and the bytes of the prepared images, checkpoints and embeddings on the disk."""
    bench.monkeypatch.setenv("BENCH_CACHE", str(bench.folder / "cache"))
    edit(bench.folder / "squares.yaml", rows=ROWS)
    edit(bench.folder / "suite.yaml", on_bad_data="skip")
    table = bench.folder / "squares.jsonl"
    table.rename(bench.folder / "away")
    plan = epochs(bench.folder, 2)
    (cell,) = plan.cells
    estimator = Estimator(plan, NONE)
    cost, kept = estimator.cell(cell), estimator.evaluation(plan.pairs, cell).stored
    model = build_model(plan.model, 0, "meta")
    prepared = estimator.prepared("squares", plan.cells, model.image_size, model.resizing)
    assert (prepared.images, prepared.about, prepared.here) == (120, True, 0)
    (bench.folder / "away").rename(table)
    arguments = ["--suite", "suite.yaml", "--methods", "clip", "--tasks", "zero_shot,linear_probe", "--device", "cpu"]
    assert bench("run", *arguments, "--budget", "epochs=2") == 0, bench.out + bench.err
    store = Store(bench.folder / "results")
    assert store.costs().samples.tolist() == [cost.samples]

    def size(pattern: str, folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.glob(pattern))

    stored = size("prepared/*/images.bin", bench.folder / "cache") + size(
        "prepared/*/journal.bin", bench.folder / "cache"
    )
    assert prepared.disk == stored
    assert 2 * cost.weights == pytest.approx(size("cells/*/*.safetensors", store.folder), rel=0.05)
    embeddings = size("cells/*/embeddings/images-*/*.npy", store.folder)
    assert kept == pytest.approx(embeddings, abs=128 * 6)  # a header of 128 bytes in each file
    again = epochs(bench.folder, 2)
    assert Estimator(again, NONE).prepared("squares", [], 32, model.resizing).here == stored


def test_another_device_is_priced_without_having_it(suite: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("the GPU is here")
    with pytest.raises(BenchError, match="--device cuda: not available here"):
        planned(suite, **QUICK | {"device": "cuda"})
    plan = planned(suite, **QUICK | {"device": "cuda"}, from_cards=True)
    on_gpu = Estimator(plan, NONE).cell(plan.cells[0])
    assert plan.cells[0].content["training"]["precision"] == "bf16"
    assert (on_gpu.seconds, on_gpu.source) == (None, None)
    here = planned(suite, **QUICK)
    on_cpu = Estimator(here, NONE).cell(here.cells[0])
    assert on_gpu.flops_per_sample == on_cpu.flops_per_sample
    assert on_gpu.memory < on_cpu.memory


def test_a_measured_speed_is_that_of_the_nearest_training(suite: Path) -> None:
    plan = planned(suite, **QUICK)

    def row(method: str, flops: float, device: str = "cpu", model: str = "small") -> dict[str, Any]:
        cost = {"cell": method, "method": method, "model": model, "accumulation": "cached", "device": device}
        return cost | {"flops_per_sample": flops, "samples_per_second": 10.0}

    def estimated(*rows: dict[str, Any]) -> Estimate:
        return Estimator(plan, pd.DataFrame(rows)).cell(plan.cells[0])

    own, others = row("clip", 1e6), [row("msd", 2e6), row("flip", 3e6), row("siglip", 7e6)]
    cost = estimated(*others, own)
    assert cost.source == "the method"
    assert cost.seconds == pytest.approx(640 * cost.flops_per_sample / 1e7)
    cost = estimated(*others)
    validations = 2 * 18 * Estimator(plan, NONE).encoding.flops
    assert cost.source == "the model"
    assert cost.seconds == pytest.approx((640 * cost.flops_per_sample + validations) / 3e7)
    assert estimated(row("clip", 1e6, "NVIDIA H200"), row("clip", 1e6, model="tiny")).source == "a matrix product"


def test_a_step_is_counted_once(away: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = epochs(away, 3)
    first = Estimator(plan, NONE, 1e12).cell(plan.cells[0])

    def fail(*_: object) -> None:
        raise AssertionError("counted again")

    monkeypatch.setattr(estimate, "simulated_cost", fail)
    assert Estimator(epochs(away, 3), NONE, 1e12).cell(plan.cells[0]) == first
    for changed in (epochs(away, 4), epochs(away, 3, methods=["siglip"]), epochs(away, 3, device="cuda")):
        with pytest.raises(BenchError, match="counted again"):
            Estimator(changed, NONE, 1e12).cell(changed.cells[0])


# Cards


def test_drawn_splits_share_the_images_of_a_card() -> None:
    assert load_card("bach").expected_rows == {"train": 300, "test": 100}
    assert load_card("rsna-pneumonia").expected_rows == {"train": 18679, "val": 4003, "test": 4003}
    assert load_card("embed-birads").expected_rows == {}


def test_phantoms_have_about_the_images_that_are_expected(tmp_path: Path) -> None:
    source = {"kind": "phantom", "modality": "derm", "size": 32, "patients": {"train": 300, "test": 40}}
    card = load_card("phantom-derm").model_dump() | {"source": source, "name": "few"}
    few = Card.model_validate(card)
    drawn = open_dataset(few, cache=tmp_path)
    assert few.expected_rows == {"train": 600, "test": 80}
    assert len(drawn.rows("train")) == pytest.approx(600, rel=0.1)


def test_an_epoch_of_the_published_suites() -> None:
    """Roy et al. 2024 count 2,769,337 pairs. ROCO has ten rows more than they found images of, and 13,555 rows that
    Quilt-1M's table has in val are not trained on.
    """
    for suite, pairs in (("roy2024", 2_769_347 - 13_555), ("cxr", 238_000), ("cleft", 238_000)):
        plan = make_plan(load_run_config(suite, {"methods": ["clip"]}, [], []), from_cards=True)
        counted = Estimator(plan, NONE).pairs(plan.cells[0])
        assert counted is not None
        assert (counted.images, counted.about) == (pairs, True)


@pytest.mark.parametrize(("text", "speed"), [("400TFLOPS", 4e14), ("1.5 PFLOPS", 1.5e15), ("80GFLOPS", 8e10)])
def test_speeds(text: str, speed: float) -> None:
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["400", "TFLOPS", "400 TFLOP", "0TFLOPS", "-1TFLOPS", "400tflops"])
def test_speeds_that_are_none(text: str) -> None:
    with pytest.raises(BenchError, match=f"--speed {text}: expected a number and GFLOPS, TFLOPS, PFLOPS"):
        parse_speed(text)
