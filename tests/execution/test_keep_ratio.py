"""A run whose training images keep their ratio: it trains, is priced, and does not depend on the micro-batch."""

import json
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image

from benchmark.execution.materials import Materials
from benchmark.plan.estimate import Estimator
from benchmark.store.store import Store
from tests.squares import SUITE, Bench, edit, planned

pytestmark = pytest.mark.usefixtures("counted_each_time")

TRAINING: dict[str, Any] = {"samples": 96, "resolution": 40, "keep_ratio": True, "augmentation": {"crop": 32}}
RUN = ["run", "--suite", "suite.yaml", "--methods", "clip", "--tasks", "zero_shot", "--device", "cpu"]


@pytest.fixture
def oblong(bench: Bench) -> Bench:
    """The squares as pictures of 4:3, upright and wide in turn, in a cache of their own."""
    for i in range(120):
        with Image.open(bench.folder / f"{i}.png") as picture:
            picture.resize((48, 36) if i % 2 else (36, 48)).save(bench.folder / f"{i}.png")
    edit(bench.folder / "suite.yaml", training={**SUITE["training"], **TRAINING})  # type: ignore[dict-item]
    bench.monkeypatch.setenv("BENCH_CACHE", str(bench.folder / "cache"))
    return bench


def test_a_run_takes_what_is_planned_and_validates_on_squares(oblong: Bench) -> None:
    plan = planned(oblong.folder, methods=["clip"], tasks=["zero_shot"], device="cpu")
    (cell,) = plan.cells
    estimate = Estimator(plan, pd.DataFrame()).cell(cell)
    assert oblong(*RUN) == 0, oblong.out + oblong.err
    (cost,) = Store(oblong.folder / "results").costs().to_dict("records")
    assert cost["samples"] == estimate.samples == 96
    assert estimate.flops_per_sample == pytest.approx(cost["flops_per_sample"], rel=0.03)
    assert estimate.memory == pytest.approx(cost["peak_memory"], rel=0.15)
    materials = Materials(plan, None, oblong.folder / "cache")  # type: ignore[arg-type]
    train, validation = (materials.pairs(cell, split).batch(0, 16) for split in ("train", "val"))
    assert train.image.shape == (16, 3, 53, 53)
    assert train.size is not None
    assert {tuple(size) for size in train.size.tolist()} == {(40, 53), (53, 40)}
    assert validation.image.shape == (16, 3, 40, 40)
    assert validation.size is None
    resizing = materials.blank_model().resizing
    disk = Estimator(plan, pd.DataFrame()).prepared("squares", [cell], 32, resizing).disk
    stored = sum(path.stat().st_size for path in oblong.folder.glob("cache/prepared/*/*.bin"))
    assert disk == pytest.approx(stored, rel=0.02)


def test_the_loss_does_not_depend_on_the_micro_batch(oblong: Bench) -> None:
    """Micro-batches are padded differently, and one of a single picture not at all."""
    for micro_batch in (32, 1):
        assert oblong(*RUN, "--set", f"training.micro_batch={micro_batch}") == 0, oblong.out + oblong.err
    logs = [log.read_text().splitlines() for log in oblong.folder.glob("results/cells/*/log.jsonl")]
    losses = [[json.loads(line)["loss"] for line in lines] for lines in logs]
    assert len(losses) == 2
    torch.testing.assert_close(*map(torch.tensor, losses), rtol=1e-4, atol=1e-5)
