"""Weights in the course of a training: kept, evaluated, and apart from the scores of its end."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmark import Results
from benchmark.execution import materials
from benchmark.store.store import Store
from tests.squares import Bench, planned

QUICK = ["--suite", "suite.yaml", "--methods", "clip", "--tasks", "retrieval", "--set", "training.samples=320"]
AT = ["--set", "evaluation.at=[1, 0.5, 0.25]"]


def test_weights_in_the_course_are_evaluated_apart(bench: Bench) -> None:
    assert bench("run", *QUICK, *AT) == 0, bench.out
    store = Store(bench.folder / "results")
    ends, during = store.rows(), store.course()
    assert set(during["at"]) == {0.25, 0.5}
    assert "at" not in ends
    assert len(during) == 2 * len(ends) > 0
    assert during.groupby("at")[["samples"]].first()["samples"].to_dict() == {0.25: 64, 0.5: 160}
    (cell,) = set(ends["cell"])
    assert {*during["cell"]} == {cell}
    assert set(ends["variant"]) == {"training.samples=320"}
    seconds = during.groupby("at")["seconds"].first()
    assert 0 < seconds[0.25] < seconds[0.5] < store.cost(cell)["seconds"]
    assert store.checkpoint(cell) == "last"
    assert bench("run", *QUICK, *AT) == 0
    assert "trained 0, evaluated 0, done before 4" in bench.out
    assert bench("report") == 0
    assert (bench.folder / "results/report/plots/retrieval-share.png").is_file()
    assert len(Results.open(bench.folder / "results").rows()) == len(ends)


def test_each_row_is_of_its_own_weights(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    real = materials.load_weights
    monkeypatch.setattr(materials, "load_weights", lambda method, path: loaded.append(path.stem) or real(method, path))
    average = ["--set", "training.average=0.5", "--set", "evaluation.weights=average"]
    assert bench("run", *QUICK, *AT, *average) == 0, bench.out
    assert loaded == ["at-0.25-average", "at-0.5-average", "last-average"]
    store = Store(bench.folder / "results")
    (cell,) = set(store.rows()["cell"])
    assert store.checkpoint(cell) == "last-average"
    weights, averaged = (load_file(store.cell(cell) / f"last{end}.safetensors") for end in ("", "-average"))
    assert not torch.equal(weights["logit_scale"], averaged["logit_scale"])
    (store.cell(cell) / "last-average.safetensors").unlink()
    assert bench("run", *QUICK, *AT, *average, "--set", "evaluation.resamples=60") == 1
    said = " ".join(bench.out.split())
    assert "last-average.safetensors: is missing; to train it again: the command that trained it, with --again" in said


def test_a_training_without_an_average_is_evaluated_as_it_is(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    real = materials.load_weights
    monkeypatch.setattr(materials, "load_weights", lambda method, path: loaded.append(path.stem) or real(method, path))
    assert bench("run", *QUICK, "--set", "evaluation.weights=average") == 0, bench.out
    assert loaded == ["last"]


def test_shares_are_part_of_what_is_trained(suite: Path) -> None:
    def keys(*settings: str) -> tuple[str, list[str]]:
        plan = planned(suite, *settings, methods=["clip"], tasks=["zero_shot"])
        return plan.cells[0].key, [pair.key for pair in plan.pairs_of(plan.cells[0])]

    plain, (end,) = keys()
    with_end, pairs = keys("evaluation.at=[1]")
    assert (with_end, pairs) == (plain, [end])
    half, pairs = keys("evaluation.at=[0.5]")
    assert half != plain
    assert pairs[1:] == [end]
    assert len({*pairs}) == 2
    assert keys("evaluation.at=[0.25]")[0] not in (plain, half)
    assert keys("training.average=0.9")[0] != plain
