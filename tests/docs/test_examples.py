"""The files in examples/ run together, as their README says."""

import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.method import METHODS
from benchmark.store.store import Store
from benchmark.task import TASKS
from tests.docs.pages import ROOT


def test_examples_run(
    bench: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ignored = shutil.ignore_patterns("images", "squares.csv", "__pycache__")
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=ignored)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_RESULTS", raising=False)
    runpy.run_path("examples/make_data.py", run_name="__main__")
    assert bench("data", "check", "examples/squares.yaml") == 0
    plugins = ["--plugin", "examples/decoupled.py", "--plugin", "examples/centroid.py"]
    try:
        status = bench("run", "--suite", "examples/suite.yaml", *plugins, "--set", "training.samples=800")
    finally:
        for registry, name in ((METHODS, "decoupled"), (TASKS, "centroid")):
            registry._classes.pop(name, None)  # type: ignore[attr-defined]
    assert status == 0, capsys.readouterr()
    rows = Store(tmp_path / "results").rows()
    assert {"decoupled", "clip"} < set(rows.method)
    accuracy = rows[(rows.task == "centroid") & rows.method.isin(["decoupled", "clip"])]
    assert (accuracy.value > 0.9).all()
    assert set(accuracy.n) == {40}
    retrieval = rows[rows.metric == "recall@10"].groupby("method").value.mean()
    assert retrieval["decoupled"] > retrieval["initial weights (random)"]
    assert bench("report") == 0
