"""The files in examples/ run together, as their README says; so do the notebook and the page on the Python API."""

import ast
import json
import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from benchmark.method import METHODS
from benchmark.store.store import Store
from benchmark.task import TASKS
from tests.docs.pages import ROOT, fenced


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of examples/ in the working folder, with its data; what the examples register goes afterwards."""
    ignored = shutil.ignore_patterns("images", "squares.csv", "results", "report", "__pycache__")
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=ignored)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_RESULTS", raising=False)
    runpy.run_path("examples/make_data.py", run_name="__main__")
    yield tmp_path / "examples"
    for registry, name in ((METHODS, "decoupled"), (TASKS, "centroid")):
        registry._classes.pop(name, None)  # type: ignore[attr-defined]


def test_examples_run(bench: Callable[..., int], examples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("data", "check", "examples/squares.yaml") == 0
    plugins = ["--plugin", "examples/decoupled.py", "--plugin", "examples/centroid.py"]
    status = bench("run", "--suite", "examples/suite.yaml", *plugins, "--set", "training.samples=800")
    assert status == 0, capsys.readouterr()
    rows = Store(examples.parent / "results").rows()
    assert {"decoupled", "clip"} < set(rows.method)
    accuracy = rows[(rows.task == "centroid") & rows.method.isin(["decoupled", "clip"])]
    assert (accuracy.value > 0.9).all()
    assert set(accuracy.n) == {40}
    retrieval = rows[rows.metric == "recall@10"].groupby("method").value.mean()
    assert retrieval["decoupled"] > retrieval["initial weights (random)"]
    assert bench("report") == 0


def test_the_page_on_the_python_api_runs(examples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for code in fenced(ROOT / "docs" / "python-api.md", "python"):
        exec(compile(code, "python-api.md", "exec"), names)
    assert "unknown key of training 'batch_sice'; did you mean 'batch_size'?" in capsys.readouterr().out
    assert set(names["main"].method) >= {"decoupled", "clip"}
    assert set(names["examples"].seed) == {0}
    assert names["logs"].step.max() == 10
    assert names["files"][0].is_file()


def test_the_notebook_runs(examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(examples)
    matplotlib.use("agg")
    notebook = json.loads((examples / "compare.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    shown = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "a stored output goes stale"
            shown.append(execute("".join(cell["source"]), names))
    assert list(shown[3].verdict.unique()) != []
    assert set(shown[2].columns) >= {"decoupled", "clip"}
    assert shown[-1].name == "report.md"


def execute(code: str, names: dict[str, Any]) -> Any:
    """Run a cell and return the value of its last expression, as Jupyter does."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "compare.ipynb", "exec"), names)
    return eval(compile(ast.Expression(last.value), "compare.ipynb", "eval"), names) if last else None  # type: ignore[attr-defined]
