"""Several result folders read as one: the same numbers as of one folder, and no comparison of what is not alike."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

from benchmark.api import Results
from benchmark.cli.options import store_of
from benchmark.common.errors import BenchError
from benchmark.config.claims import Claims
from benchmark.report.results import label_lines
from benchmark.store.merged import MergedStore, open_store
from benchmark.store.store import Store

CONTENT = {"format": 6, "source": "code", "options": {"k": 1}, "card": {"prompts": ["a {}"]}, "evaluation": {}}


def add_cell(
    folder: Path,
    key: str,
    *,
    method: str = "clip",
    seed: int = 0,
    rate: float = 0.1,
    seconds: float = 1.0,
    datasets: tuple[str, ...] = ("d",),
    examples: str = "same",
    time: int = 0,
    **changes: Any,
) -> None:
    """A finished cell with an evaluation of retrieval on each dataset. time: of its files. changes: of ``CONTENT``."""
    store = Store(folder)
    store.partial(key).mkdir(parents=True)
    label = {"suite": "s", "model": "tiny", "arm": method, "method": method, "variant": "", "seed": seed}
    store.finish(key, {"label": label, "content": {"rate": rate, "seed": seed}}, {"seconds": seconds, "device": "cpu"})
    for dataset in datasets:
        value = 0.5 + 0.01 * seed + rate
        row: Any = label | {"dataset": dataset, "task": "retrieval", "part": "", "metric": "recall@1", "value": value}
        row |= {"low": 0.1, "high": 0.9, "n": 30, "groups": 30, "chance": 0.1, "primary": True, "examples": examples}
        row |= {"cell": key, "evaluation": f"r-{dataset}"}
        resamples = np.random.default_rng(seed).normal(value, 0.01, (1, 50))
        scores = {"": {"recall@1": resamples}}
        store.add_evaluation(key, f"r-{dataset}", CONTENT | changes, [row], {"": {"id": np.array(["1"])}}, scores, {})
    for path in store.cell(key).rglob("*"):
        os.utime(path, (1e9 + time, 1e9 + time))


def test_parts_give_what_the_whole_gives(tmp_path: Path) -> None:
    whole, a, b = (tmp_path / name for name in ("whole", "a", "b"))
    for number, (method, seed) in enumerate((m, s) for m in ("clip", "msd") for s in range(3)):
        key = f"{method}{seed}"
        add_cell(whole, key, method=method, seed=seed, rate=0.1 + (method == "msd"), time=number)
        (a / "cells").mkdir(parents=True, exist_ok=True)
        (b / "cells").mkdir(parents=True, exist_ok=True)
        for part in (a, b) if key == "msd1" else (a,) if number % 2 else (b,):
            shutil.copytree(whole / "cells" / key, part / "cells" / key)
    one, several = Store(whole), MergedStore([a, b])
    assert_frame_equal(several.rows(), one.rows())
    assert_frame_equal(several.costs(), one.costs())
    assert several.folder == a
    for key in ("clip0", "msd1", "msd2"):
        found = several.resamples(key, "r-d", "", "recall@1")
        assert found is not None
        np.testing.assert_array_equal(found, one.resamples(key, "r-d", "", "recall@1"))
    assert_frame_equal(Results.open([a, b]).compare("msd", "clip"), Results.open(whole).compare("msd", "clip"))


def test_evaluations_of_both_copies_of_a_cell_count(tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in "abc")
    add_cell(a, "k", datasets=("d",))
    add_cell(b, "k", datasets=("d", "e"))
    assert sorted(MergedStore([a, b]).rows()["dataset"]) == ["d", "e"]
    assert MergedStore([a, b]).resamples("k", "r-e", "", "recall@1") is not None
    # Another training may have given other weights: these must not be mixed.
    add_cell(c, "k", datasets=("d", "e"), seconds=2.0)
    assert list(MergedStore([a, c]).rows()["dataset"]) == ["d"]
    assert list(MergedStore([a, c]).costs()["seconds"]) == [1.0]
    assert list(MergedStore([c, a]).costs()["seconds"]) == [2.0]


def test_different_cells_of_one_name_are_lines_told_apart_by_folder(tmp_path: Path) -> None:
    a, b = tmp_path / "here", tmp_path / "there"
    for seed in range(2):
        add_cell(a, f"a{seed}", seed=seed, rate=0.1)
        add_cell(b, f"b{seed}", seed=seed, rate=0.2)
        add_cell(a, f"m{seed}", method="msd", seed=seed)
    add_cell(b, "m2", method="msd", seed=2)
    merged = MergedStore([a, b])
    rows, costs, lines = label_lines(merged.rows(), merged.costs())
    assert lines == ["clip · here", "clip · there", "msd"]
    assert rows.groupby("line")["seed"].nunique().to_dict() == {"clip · here": 2, "clip · there": 2, "msd": 3}
    assert rows.groupby("line")["value"].mean()["clip · there"] == pytest.approx(0.705)
    assert set(costs["line"]) == set(lines)


def test_folders_of_one_name_are_told_apart_by_path(tmp_path: Path) -> None:
    a, b = tmp_path / "x" / "results", tmp_path / "y" / "results"
    add_cell(a, "a", rate=0.1)
    add_cell(b, "b", rate=0.2)
    assert set(MergedStore([a, b]).rows()["folder"]) == {str(a), str(b)}


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({"examples": "other"}, "on different test examples"),
        ({"format": 7}, "by other versions of this program"),
        ({"source": "other"}, "by other code of the task"),
        ({"options": {"k": 2}}, "with other options of the task"),
        ({"card": {"prompts": ["b {}"]}}, "with other classes or prompts"),
    ],
)
def test_what_was_measured_otherwise_is_refused(changes: dict[str, Any], how: str, tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in "abc")
    add_cell(a, "k", datasets=("d", "e"))
    add_cell(b, "m", method="msd", datasets=("d", "f"), **changes)
    with pytest.raises(BenchError, match=f"^{a} and {b} cannot be compared: retrieval on d was measured {how}"):
        open_store([a, b])
    # Other datasets may differ, and a folder may have further ways.
    add_cell(c, "m", method="msd", datasets=("f",), **changes)
    open_store([a, c])
    add_cell(b, "n", method="siglip", datasets=("d",))
    open_store([a, b])


def test_claims_and_datasets_of_all_folders_are_known(tmp_path: Path) -> None:
    def claims(points: float) -> Any:
        stated = {"kind": "gain", "a": "msd", "b": "clip", "tasks": "retrieval", "text": "t", "source": "x"}
        stated |= {"at_least": points}
        return Claims.model_validate({"claims": {"c": stated}}).claims

    a, b = (tmp_path / name for name in "ab")
    add_cell(a, "a", method="clip")
    add_cell(b, "b", method="msd")
    Store(a).keep_claims("s", claims(0.1))
    Store(b).keep_claims("s", claims(0.2))
    Store(b).keep_claims("t", claims(0.3))
    for number, store in enumerate((Store(a), Store(b))):
        store.keep_datasets({"d": {"card": f"d{number}", "on_bad_data": "skip"}})
    assert MergedStore([a, b]).datasets()["d"]["card"] == "d0"
    merged = MergedStore([a, b]).claims()
    assert {suite: of_suite["c"].model_dump() for suite, of_suite in merged.items()} == {
        "s": claims(0.1)["c"].model_dump(),
        "t": claims(0.3)["c"].model_dump(),
    }


def test_folders_without_results_are_named(tmp_path: Path) -> None:
    add_cell(tmp_path / "a", "a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchError, match=r"the results folder .*none does not exist"):
        store_of(f"{tmp_path / 'a'},{tmp_path / 'none'}")
    with pytest.raises(BenchError, match=r"the results folder .*empty has no finished cells"):
        Results.open([tmp_path / "empty", tmp_path / "a"])


def test_folders_are_separated_by_commas(tmp_path: Path) -> None:
    add_cell(tmp_path / "a,b", "a")
    add_cell(tmp_path / "c", "c", method="msd")
    assert store_of(str(tmp_path / "a,b")).folder == tmp_path / "a,b"
    assert type(store_of(str(tmp_path / "c"))) is Store
    assert set(Results.open([tmp_path / "a,b", tmp_path / "c"]).rows()["arm"]) == {"clip", "msd"}
