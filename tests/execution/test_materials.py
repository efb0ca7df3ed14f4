"""A trained cell comes back in one way: the checkpoint that is asked for, for every command."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmark import BenchError, Results
from benchmark.data.card import load_card
from benchmark.data.dataset import open_dataset
from benchmark.execution.materials import load_trained
from tests.squares import Bench

QUICK = ["--suite", "suite.yaml", "--methods", "clip", "--tasks", "retrieval"]
QUICK += ["--set", "training.samples=320", "--set", "training.validations=5"]
BEST = ["--set", "evaluation.checkpoint=best"]


def spoil_last(folder: Path) -> None:
    """Make the last checkpoint differ from the best one by far."""
    best = load_file(folder / "best.safetensors")
    save_file(
        {name: torch.randn_like(x) if x.is_floating_point() else x for name, x in best.items()},
        folder / "last.safetensors",
    )


def cell_of(bench: Bench) -> str:
    (cost,) = Results.open(bench.folder / "results").costs().itertuples()
    return str(cost.cell)


def test_every_command_takes_the_checkpoint_that_the_tables_show(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    from benchmark.execution import materials

    real = materials.load_weights
    monkeypatch.setattr(materials, "load_weights", lambda method, path: loaded.append(path.stem) or real(method, path))
    assert bench("run", *QUICK) == 0
    assert loaded == ["last"]
    assert bench("run", *QUICK, *BEST) == 0
    assert loaded == ["last", "best"]
    results = Results.open(bench.folder / "results")
    assert results.store.checkpoint(cell_of(bench)) == "best"
    data = {"squares": open_dataset(load_card("squares.yaml"))}
    for checkpoint in ("last", "best"):
        trained = load_trained(results.store, cell_of(bench), checkpoint, data)  # type: ignore[arg-type]
        assert trained.checkpoint == checkpoint
        stored = load_file(results.store.cell(cell_of(bench)) / f"{checkpoint}.safetensors")
        for name, tensor in trained.method.state_dict().items():
            torch.testing.assert_close(tensor, stored[name], rtol=0, atol=0)


def test_captions_are_of_the_checkpoint_that_was_evaluated(bench: Bench) -> None:
    captioning = ["--suite", "suite.yaml", "--methods", "captioning", "--tasks", "captioning"]
    captioning += ["--set", "captioning.queries=4", "--set", "training.samples=640"]
    assert bench("run", *captioning, *BEST) == 0, bench.out
    results = Results.open(bench.folder / "results")
    spoil_last(results.store.cell(cell_of(bench)))
    assert bench("caption", "--dataset", "squares.yaml", "--count", "30", "--beams", "2") == 0, bench.err
    assert "best checkpoint" in bench.out
    shown = "".join(bench.out.split())
    for text in results.examples(task="captioning").caption:
        assert "".join(text.split()[:3]) in shown


def test_tuning_judges_the_checkpoint_that_would_be_evaluated(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmark.execution import materials

    loaded: list[str] = []
    real = materials.load_weights
    monkeypatch.setattr(materials, "load_weights", lambda method, path: loaded.append(path.stem) or real(method, path))
    tune = ["tune", "--suite", "suite.yaml", "--methods", "clip", "--trials", "1", "--set", "training.samples=96"]
    assert bench(*tune) == 0, bench.err
    assert bench(*tune, *BEST) == 0, bench.err
    assert loaded == ["last", "best"]


def test_a_training_without_validation_has_its_last_checkpoint_alone(bench: Bench) -> None:
    assert bench("run", *QUICK[:-2], "--set", "training.validations=0", *BEST) == 0, bench.out
    store = Results.open(bench.folder / "results").store
    data = {"squares": open_dataset(load_card("squares.yaml"))}
    assert load_trained(store, cell_of(bench), "best", data).checkpoint == "last"


def test_a_best_checkpoint_that_is_gone_is_an_error(bench: Bench) -> None:
    assert bench("run", *QUICK, *BEST) == 0
    store = Results.open(bench.folder / "results").store
    (store.cell(cell_of(bench)) / "best.safetensors").unlink()
    data = {"squares": open_dataset(load_card("squares.yaml"))}
    with pytest.raises(BenchError, match=r"best\.safetensors: is missing; .* --again"):
        load_trained(store, cell_of(bench), "best", data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cell: cell.pop("classes"), "trained by an older version"),
        (lambda cell: cell["content"].update(method="msd", options={}), "do not fit the current code of method 'msd'"),
        (lambda cell: cell["content"].update(tokenizer_data=[["squares", "another"]]), "'squares' has changed since"),
    ],
)
def test_a_cell_that_cannot_be_rebuilt_says_why(change: Any, message: str, bench: Bench) -> None:
    assert bench("run", *QUICK) == 0
    store = Results.open(bench.folder / "results").store
    path, costs = (store.cell(cell_of(bench)) / name for name in ("cell.json", "cost.json"))
    # As an earlier version wrote it: without digests, so that the file can be changed.
    costs.write_text(json.dumps(json.loads(costs.read_text())["content"]))
    cell = json.loads(path.read_text())
    change(cell)
    path.write_text(json.dumps(cell))
    with pytest.raises(BenchError, match=message):
        load_trained(store, cell_of(bench), "last", {"squares": open_dataset(load_card("squares.yaml"))})
