"""Evaluations of encoders that are not trained: made once for all results folders."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.common.errors import MachineError
from benchmark.evaluation.evaluation import Evaluation
from benchmark.execution import runner
from benchmark.models import DualEncoder
from benchmark.store.store import Store
from tests.squares import Bench, edit

EVAL = ["eval", "--model", "small.yaml", "--tasks", "retrieval,linear_probe"]


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


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """On which devices models are built, and how often."""
    count: Counter[str] = Counter()
    init = DualEncoder.__init__

    def counted(self: DualEncoder, *arguments: Any) -> None:
        init(self, *arguments)
        count[next(self.parameters()).device.type] += 1

    monkeypatch.setattr(DualEncoder, "__init__", counted)
    return count


def tables(folder: Path) -> pd.DataFrame:
    """The rows without what names the run."""
    rows = Store(folder).rows().drop(columns=["suite"])
    return rows.sort_values(["method", "dataset", "task", "part", "metric"]).reset_index(drop=True)


def test_baselines_are_evaluated_once_for_all_results_folders(bench: Bench, encoded: list[str], tmp_path: Path) -> None:
    first, second, third = (bench.folder / name for name in ("first", "second", "third"))
    assert bench(*EVAL, "--suite", "suite.yaml", "--results", str(first)) == 0, bench.err
    assert {*encoded} == {"images by ModelEncoder", "texts by ModelEncoder", "images by RawPixels"}
    (bench.folder / "other.yaml").write_text((bench.folder / "suite.yaml").read_text())
    encoded.clear()
    assert bench(*EVAL, "--suite", "other.yaml", "--results", str(second)) == 0, bench.err
    assert encoded == []
    assert "raw pixels, seed 0: 1 evaluation from the cache" in " ".join(bench.out.split()), bench.out
    expected, actual = tables(first), tables(second)
    assert set(expected["method"]) == {"small (random)", "raw pixels"}
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
    assert bench(*EVAL, "--suite", "suite.yaml", "--results", str(third)) == 0, bench.err
    assert "images by RawPixels" in encoded
    assert "set aside" in bench.err + bench.out
    pd.testing.assert_frame_equal(tables(third), expected)
    assert all((folder / "notes.json").read_text()[-1] == "\n" for folder in kept)


def test_what_is_asked_for_again_or_otherwise_is_evaluated_anew(
    bench: Bench, encoded: list[str], built: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ["run", "--suite", "suite.yaml", "--methods", "clip", "--budget", "steps=2", "--tasks", "linear_probe"]
    assert bench(*run) == 0, bench.err
    # To train it, with the trained weights, and as the baseline; all else reads one without weights.
    assert built == {"meta": 1, "cpu": 3}
    rows = bench.rows()
    encoded.clear()
    assert bench(*run, "--again", rows.loc[rows["method"] == "raw pixels", "cell"].iloc[0]) == 0, bench.err
    assert encoded == ["images by RawPixels"] * len(encoded) != []
    pd.testing.assert_frame_equal(bench.rows(), rows)

    # Where the cache is full, only the copy is missing.
    def full(*_: Any) -> None:
        raise MachineError("cache: cannot be written: no space left")

    monkeypatch.setattr(runner, "keep_evaluation", full)
    encoded.clear()
    assert bench(*EVAL[:3], *run[1:3], *run[-2:], "--set", "evaluation.resamples=60", "--results", "two") == 0, (
        bench.err
    )
    assert "images by RawPixels" in encoded
    assert "no space left" in bench.out + bench.err
    assert "raw pixels" in set(tables(Path("two"))["method"])
