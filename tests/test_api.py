"""The Python API on the coloured squares: what `bench run` and `bench report` do, from Python."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import benchmark
from benchmark import BenchError, Results
from tests.squares import Bench

QUICK = {"tasks": ["zero_shot", "retrieval"], "settings": {"training.samples": 320}, "progress": "none"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, squares: Path) -> Results:
    """A run of clip and msd, two seeds each, by the API alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(squares)
        folder = tmp_path_factory.mktemp("api") / "results"
        return benchmark.run("suite.yaml", methods=["clip", "msd"], seeds=2, results=folder, **QUICK)


def test_a_run_returns_its_results(results: Results) -> None:
    assert results.outcome is not None
    assert results.outcome.trained == 4
    assert results.outcome.failures == []
    rows = results.rows()
    assert set(rows.method) == {"clip", "msd"}
    assert set(rows.task) == {"zero_shot", "retrieval"}
    assert set(rows.seed) == {0, 1}
    costs = results.costs()
    assert len(costs) == 4
    assert (costs.samples == 320).all()
    assert "[1/4] clip, seed 0: training" in (results.store.folder / "run.log").read_text()


def test_logs_have_a_row_a_step(results: Results) -> None:
    logs = results.logs()
    assert len(logs) == 4 * 10
    assert logs.groupby(["method", "seed"]).step.max().tolist() == [10] * 4
    assert np.isfinite(logs.loss).all()


def test_scores_of_examples_make_the_metric(results: Results) -> None:
    rows = results.rows()
    for method in ("clip", "msd"):
        examples = results.examples(task="zero_shot", method=method, seed=1)
        assert len(examples) == 30
        assert {"id", "group", "dataset", "method"} <= set(examples)
        row = rows[
            (rows.task == "zero_shot") & (rows.metric == "accuracy") & (rows.method == method) & (rows.seed == 1)
        ]
        assert examples.correct.mean() == pytest.approx(row.value.item())
    both = results.examples(task="retrieval", method="clip", seed=0)
    assert set(both.part) == {"image_to_text", "text_to_image"}


def test_unknown_labels_name_the_nearest(results: Results) -> None:
    with pytest.raises(BenchError, match="unknown label 'taks'; did you mean 'task'"):
        results.examples(taks="zero_shot")
    with pytest.raises(BenchError, match="unknown method 'clp'; did you mean 'clip'"):
        results.examples(method="clp")
    with pytest.raises(BenchError, match="no evaluation matches all of"):
        results.examples(task="zero_shot", part="image_to_text")


def test_a_comparison_is_the_difference_of_the_scores(results: Results) -> None:
    rows = results.rows()
    primary = rows[rows.primary.astype(bool)]
    means = primary.groupby(["task", "method"]).value.mean()
    compared = results.compare("clip", "msd").set_index("task")
    for task in ("zero_shot", "retrieval"):
        assert compared.value[task] == pytest.approx(means[task, "clip"] - means[task, "msd"])
        assert compared.low[task] <= compared.value[task] <= compared.high[task]
    backward = results.compare("msd", "clip").set_index("task")
    pd.testing.assert_series_equal(backward.value, -compared.value)
    with pytest.raises(BenchError, match="unknown line"):
        results.compare("clip", "clop")


def test_a_report_is_written_where_asked(results: Results, tmp_path: Path) -> None:
    files = results.report(tmp_path / "report", reference="clip")
    assert files[0] == tmp_path / "report" / "report.md"
    assert "zero_shot" in files[0].read_text()
    assert all(file.is_file() for file in files)


def test_the_command_line_and_python_share_their_results(
    results: Results, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = ["--suite", "suite.yaml", "--set", "training.samples=320", "--tasks", "zero_shot,retrieval"]
    assert bench("run", *shared, "--methods", "clip,msd", "--seeds", "2", "--results", str(results.store.folder)) == 0
    assert "trained 0, evaluated 0, done before 12" in bench.out
    opened = Results.open(results.store.folder)
    pd.testing.assert_frame_equal(opened.rows(), results.rows())
    assert opened.outcome is None


def test_a_suite_may_be_a_mapping(bench: Bench) -> None:
    from tests.squares import SUITE

    content = SUITE | {"tasks": ["zero_shot"], "methods": ["clip"]}
    ours = benchmark.configure(content)
    named = benchmark.configure("suite.yaml", tasks=["zero_shot"], methods=["clip"])
    assert ours.training == named.training
    grid = benchmark.configure(
        "suite.yaml", methods=["msd"], grid={"msd.targets": ["cross", "hard"], "msd.alpha": [0, 0.5]}
    )
    assert [*grid.grid[0].items()] == [("msd.targets", "cross"), ("msd.alpha", 0)]
    assert len(grid.grid) == 4
    with pytest.raises(BenchError, match="settings, budget, grid and scenario apply to a suite's name or file"):
        benchmark.configure(content, budget="samples=10")
    with pytest.raises(BenchError, match="unknown key 'trainin'; did you mean 'training'"):
        benchmark.configure({"trainin": {}} | content)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": 3}, "methods: .*found 3"),
        ({"methods": "clip"}, "methods: .*found 'clip'"),
        ({"method": ["clip"]}, "unknown key 'method'; did you mean 'methods'"),
        ({"budget": 30}, "budget: .*found 30"),
        ({"settings": ["a"]}, "--set a: expected section.key=value"),
        ({"settings": 3}, "settings.*found 3"),
        ({"scenario": "nosy"}, "unknown scenario 'nosy'; did you mean 'noisy'"),
        ({"seeds": 0}, "seeds.*found 0"),
        ({"seeds": []}, "seeds: "),
        ({"seeds": [1, 1]}, "has a seed twice"),
    ],
)
def test_wrong_options_are_a_mistake_of_the_users(options: dict[str, object], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        benchmark.configure("demo", **options)


def test_an_external_model_is_evaluated(bench: Bench) -> None:
    evaluated = benchmark.evaluate("small.yaml", "suite.yaml", tasks=["zero_shot"], progress="none")
    assert "small (random)" in set(evaluated.rows().method)
    assert evaluated.outcome is not None
    assert evaluated.outcome.trained == 0


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no results"):
        Results.open(tmp_path)


def test_importing_the_package_imports_no_torch() -> None:
    code = "import benchmark, sys; benchmark.Results; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
