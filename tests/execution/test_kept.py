"""Evaluations of encoders that are not trained: made once for all results folders."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.common.errors import MachineError
from benchmark.evaluation.evaluation import Evaluation
from benchmark.execution import runner
from benchmark.store.store import Store
from tests.squares import Bench, edit

RUN = ["--suite", "suite.yaml", "--methods", "clip", "--budget", "steps=2"]
TASKS = ["--tasks", "retrieval,linear_probe"]


@pytest.fixture
def encoded(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is encoded in runs with baselines, in a cache of their own."""
    edit(bench.folder / "suite.yaml", baselines=True)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    made: list[str] = []
    images, texts = Evaluation.images, Evaluation.texts

    def note(kind: str, inner: Any) -> Any:
        def noted(self: Evaluation, *arguments: Any, **options: Any) -> Any:
            made.append(f"{kind} by {type(self.encoder).__name__}")
            return inner(self, *arguments, **options)

        return noted

    monkeypatch.setattr(Evaluation, "images", note("images", images))
    monkeypatch.setattr(Evaluation, "texts", note("texts", texts))
    return made


def tables(folder: Path) -> pd.DataFrame:
    """The rows of the baselines, without what names the run."""
    rows = Store(folder).rows()
    rows = rows[rows["role"] == "baseline"].drop(columns=["suite"])
    return rows.sort_values(["method", "dataset", "task", "part", "metric"]).reset_index(drop=True)


def test_baselines_are_evaluated_once_for_all_results_folders(bench: Bench, encoded: list[str], tmp_path: Path) -> None:
    first, second, third = (bench.folder / name for name in ("first", "second", "third"))
    assert bench("run", *RUN, *TASKS, "--results", str(first)) == 0, bench.err
    assert "images by RawPixels" in encoded
    initial = sum("images" in each for each in encoded)
    (bench.folder / "other.yaml").write_text((bench.folder / "suite.yaml").read_text())
    encoded.clear()
    other = [str(bench.folder / "other.yaml") if each == "suite.yaml" else each for each in RUN]
    assert bench("run", *other, *TASKS, "--results", str(second)) == 0, bench.err
    assert "raw pixels, seed 0: 1 evaluation from the cache" in " ".join(bench.out.split()), bench.out
    # The trained cell alone.
    assert "images by RawPixels" not in encoded
    assert 0 < sum("images" in each for each in encoded) < initial
    expected, actual = tables(first), tables(second)
    assert set(expected["method"]) == {"initial weights (random)", "raw pixels"}
    pd.testing.assert_frame_equal(actual, expected)
    assert set(Store(first).rows()["suite"]) == {"suite"}
    assert set(Store(second).rows()["suite"]) == {"other"}
    stores = Store(first), Store(second)
    for row in expected.drop_duplicates(["cell", "evaluation", "part"]).itertuples():
        one, another = (store.examples(row.cell, row.evaluation, row.part) for store in stores)
        pd.testing.assert_frame_equal(another, one)
        one, another = (store.resamples(row.cell, row.evaluation, row.part, row.metric) for store in stores)
        np.testing.assert_array_equal(another, one)
        one, another = (store.notes(row.cell, row.evaluation) for store in stores)
        assert another == one
        one, another = (store.embedded(row.cell, row.evaluation) for store in stores)
        assert (one is None) == (another is None)
        if one is not None and another is not None:
            np.testing.assert_array_equal(another.images, one.images)
            np.testing.assert_array_equal(another.texts, one.texts)
            assert another.image_classes == one.image_classes
    assert any(store.embedded(*row) for store in stores[1:] for row in expected[["cell", "evaluation"]].to_numpy())

    # One that is damaged is made again, and so is the copy in the cache.
    kept = sorted((tmp_path / "cache" / "evaluations").iterdir())
    assert len(kept) == 3
    for folder in kept:
        with (folder / "notes.json").open("a") as file:
            file.write(" ")
    encoded.clear()
    assert bench("run", *RUN, *TASKS, "--results", str(third)) == 0, bench.err
    assert "images by RawPixels" in encoded
    assert "set aside" in bench.err + bench.out
    pd.testing.assert_frame_equal(tables(third), expected)
    assert all((folder / "notes.json").read_text()[-1] == "\n" for folder in kept)


def test_other_settings_are_evaluated_anew_and_a_full_cache_costs_the_copy_alone(
    bench: Bench, encoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["run", *RUN, "--tasks", "linear_probe"]
    assert bench(*arguments, "--results", "one") == 0, bench.err
    encoded.clear()

    def full(*_: Any) -> None:
        raise MachineError("cache: cannot be written: no space left")

    monkeypatch.setattr(runner, "keep_evaluation", full)
    assert bench(*arguments, "--set", "evaluation.resamples=60") == 0, bench.err
    assert "images by RawPixels" in encoded
    assert "no space left" in bench.out + bench.err
    assert "raw pixels" in set(bench.rows()["method"])
