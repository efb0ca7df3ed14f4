"""`bench merge`: the joined folder says what its parts say; what clashes is named; a cell is joined whole or not."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

from benchmark.cli.tools import merge as command
from benchmark.common.errors import BenchError
from benchmark.store import merging
from benchmark.store.claim import Claim, claim
from benchmark.store.merged import MergedStore, open_store
from benchmark.store.merging import merge, said
from benchmark.store.store import Store

CONTENT = {"format": 6, "source": "code", "options": {}, "card": {}, "evaluation": {}}


def add(folder: Path, key: str, arm: str = "clip", seed: int = 0, weights: bytes = b"w", **more: Any) -> None:
    """A finished cell with one evaluation a dataset. more: datasets, rate (of the configuration), value."""
    store = Store(folder)
    partial = store.partial(key)
    partial.mkdir(parents=True)
    (partial / "last.safetensors").write_bytes(weights)
    label = {"suite": "s", "model": "tiny", "arm": arm, "method": arm, "variant": "", "seed": seed}
    content = {"rate": more.get("rate", 1), "seed": seed}
    store.finish(key, {"label": label, "content": content}, {"seconds": 1.0, "steps": float("nan")})
    for dataset in more.get("datasets", ("d",)):
        evaluate(store, key, label, dataset, more.get("value", 0.5))


def evaluate(store: Store, key: str, label: dict[str, Any], dataset: str, value: float) -> None:
    row: Any = label | {"dataset": dataset, "task": "retrieval", "part": "", "metric": "r", "value": value}
    row |= {"n": 3, "examples": "same", "cell": key, "evaluation": f"r-{dataset}"}
    scores = {"": {"r": np.array([[value, 0.5]])}}
    store.add_evaluation(key, f"r-{dataset}", CONTENT, [row], {"": {"id": np.array(["1"])}}, scores, {})
    (store.cell(key) / "embeddings" / f"images-{dataset}").mkdir(parents=True, exist_ok=True)
    (store.cell(key) / "embeddings" / f"images-{dataset}" / "embeddings.npy").write_bytes(b"e")


def same(a: Store, b: Store) -> None:
    assert_frame_equal(a.rows(), b.rows())
    assert_frame_equal(a.costs(), b.costs())
    assert a.datasets() == b.datasets()
    assert [record.id for record in a.runs()] == [record.id for record in b.runs()]


def test_the_joined_folder_says_what_its_parts_say(tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in "abc")
    add(a, "k1", datasets=("d", "e"))
    add(a, "k2", "msd")
    shutil.copytree(a / "cells" / "k1", b / "cells" / "k1")
    shutil.rmtree(b / "cells" / "k1" / "evaluations" / "r-d")
    label = json.loads((b / "cells" / "k1" / "cell.json").read_text())["label"]
    evaluate(Store(b), "k1", label, "f", 0.7)
    add(b, "k3", "msd", rate=2)
    add(b, "k4", "siglip", seed=1)
    Store(a).keep_datasets({"d": {"card": "here", "on_bad_data": "skip"}})
    Store(b).keep_datasets({"d": {"card": "there", "on_bad_data": "skip"}})
    over_both = MergedStore([a, b])
    merged = merge([a, b], c)
    same(over_both, open_store([c]))
    assert set(Store(c).rows().query("arm == 'msd'")["folder"]) == {"a", "b"}
    assert said(merged) == "added 4 cells and 6 evaluations; 1 cell was there already"
    assert merged.clashes == [
        "s, msd, tiny, seed 0: different cells in a, b (k2, k3); all were kept, and the report tells them apart"
    ]
    assert {path.name for path in (c / "cells" / "k1" / "embeddings").iterdir()} == {"images-d", "images-e", "images-f"}
    assert (c / "cells" / "k1" / "last.safetensors").samefile(a / "cells" / "k1" / "last.safetensors")
    # Again, and into the first of them: nothing is added twice, and the parts do not change.
    assert (merge([a, b], c).cells, merge([a, b], c).evaluations) == (0, 0)
    assert not Store(b).is_evaluated("k1", "r-d")
    merge([a, b], a)
    same(open_store([a]), open_store([c]))


def test_what_clashes_is_named_and_the_first_counts(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    add(a, "k")
    add(b, "k", weights=b"other", datasets=("d", "e"))
    (b / "cells" / "k" / "cost.json").write_text((b / "cells" / "k" / "cost.json").read_text())
    add(a, "m", "msd")
    add(b, "m", "msd", value=0.9)
    before = Store(a).rows()
    cost = Store(b)
    record = json.loads((cost.cell("k") / "cost.json").read_text())["content"]
    (cost.cell("k") / "cost.json").write_text(json.dumps(record | {"seconds": 2.0}))
    merged = merge([a, b], a)
    assert merged.clashes == [
        f"{b / 'cells' / 'k'}: has other weights than the same cell in {a}, which counts",
        f"{b / 'cells' / 'm' / 'evaluations' / 'r-d'}: has other scores than {a}, which counts",
    ]
    assert_frame_equal(Store(a).rows(), before)


def test_a_cell_is_joined_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = (tmp_path / name for name in "abc")
    add(a, "k1")
    add(b, "k2", "msd")
    add(b, "k3", "siglip")

    def full(source: str, to: str) -> None:
        if "k2" in source and source.endswith("parquet"):
            raise OSError(28, "No space left on device")
        shutil.copy2(source, to)

    with monkeypatch.context() as patch:
        patch.setattr(merging, "_link", full)
        with pytest.raises(BenchError, match=r"k2: cannot be written: No space left on device; the same command goes"):
            merge([a, b], c)
    assert [path.name for path in (c / "cells").iterdir()] == ["k1"]
    # One that another process trains is left out, and so is one that is damaged.
    (b / "cells" / "k3" / "last.safetensors").write_bytes(b"x")
    claimed = claim(c / "cells" / "k2")
    assert isinstance(claimed, Claim)
    with claimed:
        merged = merge([a, b], c)
    assert len(merged.clashes) == 2
    assert "k2: left out, as " in merged.clashes[0]
    assert merged.clashes[1].endswith("last.safetensors: is damaged: it is not what was written; it stays where it is")
    (b / "cells" / "k3" / "last.safetensors").write_bytes(b"w")
    assert merge([a, b], c).clashes == []
    same(open_store([a, b]), open_store([c]))


def test_what_cannot_be_joined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    add(a, "k1")
    with pytest.raises(BenchError, match="b does not exist; run bench run there"):
        merge([a, b], a)
    with pytest.raises(BenchError, match="takes at least two results folders, such as: bench merge A B --into C"):
        merge([a, a / ".." / "a"], a)
    monkeypatch.setattr("benchmark.cli.tools.SHOWN", 2)
    for number in range(4):
        add(a, f"a{number}", seed=number + 1, rate=1)
        add(b, f"b{number}", seed=number + 1, rate=2)
    command([a, b])
    out = capsys.readouterr().out
    assert out.count("the report tells them apart") == 2
    assert "and 2 more lines like these" in out
    assert f"next: bench report --results {a}" in " ".join(out.split())


def test_a_copy_in_another_order_says_the_same(tmp_path: Path) -> None:
    """Two generations of each evaluation and of a cell: their own time says which is newer, not that of the files."""
    store = Store(tmp_path / "a")
    for key, rate in (("z", 1), ("b", 2), ("m", 3)):
        add(tmp_path / "a", key, rate=rate, value=rate / 10, datasets=("d", "e"))
    add(tmp_path / "a", "c", "msd")
    assert set(store.rows().query("arm == 'clip'")["cell"]) == {"m"}
    (tmp_path / "b" / "cells").mkdir(parents=True)
    for number, key in enumerate(("m", "c", "b", "z")):
        shutil.copytree(tmp_path / "a" / "cells" / key, tmp_path / "b" / "cells" / key)
        for path in (tmp_path / "b" / "cells" / key).rglob("*"):
            os.utime(path, (1e9 + number, 1e9 + number))
    same(store, Store(tmp_path / "b"))


def test_records_are_in_order_whatever_the_clock_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([5e9, 1e9, 1e9, 6e9])
    monkeypatch.setattr("benchmark.store.store.time.time", lambda: next(clock))
    store = Store(tmp_path)
    stamps = [store._stamp() for _ in range(4)]
    assert stamps == [(5e9, 0), (5e9, 1), (5e9, 2), (6e9, 0)]
    (tmp_path / "clock.json").write_text("{")
    monkeypatch.setattr("benchmark.store.store.time.time", lambda: 7e9)
    assert store._stamp() == (7e9, 0)
