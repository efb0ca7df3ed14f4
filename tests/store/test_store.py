"""The store: cells whole or not at all, the newest of one label."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark.store.hashing import digest
from benchmark.store.rows import EmbeddedNotes
from benchmark.store.store import Store

LABEL = {"suite": "s", "model": "m", "method": "clip", "variant": "", "seed": 0}


def finish(store: Store, key: str, seconds: float, value: float) -> None:
    store.partial(key).mkdir(parents=True)
    store.finish(key, {"label": LABEL, "content": {}}, {"seconds": seconds})
    row = LABEL | {"dataset": "d", "task": "t", "part": "", "metric": "accuracy", "value": value, "cell": key}
    examples = {"": {"id": np.array(["a", "b"]), "scores": np.eye(2), "correct": np.array([True, False])}}
    resampled = {"": {"accuracy": np.array([[value, np.nan]]), "of_draws": np.array([[value, 0.1], [0.2, np.nan]])}}
    store.add_evaluation(key, "t-d", {"task": "t"}, [row], examples, resampled, {"": {"absent": ["x"]}})


def test_a_cell_exists_when_it_is_finished(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    assert store.rows().empty
    assert store.costs().empty
    store.partial("abc").mkdir(parents=True)
    (store.partial("abc") / "cost.json").write_text("{}")
    assert not store.finished("abc")
    assert store.costs().empty
    store.finish("abc", {"label": LABEL}, {"seconds": 2.0})
    assert store.finished("abc")
    assert not store.partial("abc").exists()
    assert store.costs().to_dict("records") == [LABEL | {"cell": "abc", "seconds": 2.0}]


def test_rows_and_examples_come_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    finish(store, "abc", 1.0, 0.5)
    assert store.evaluated("abc", "t-d") == store.rows().to_dict("records")
    assert store.evaluated("abc", "other") is None
    frame = pd.read_parquet(store.cell("abc") / "evaluations" / "t-d" / "examples.parquet")
    assert frame.id.tolist() == ["a", "b"]
    np.testing.assert_array_equal(np.stack(frame.scores), np.eye(2))
    np.testing.assert_array_equal(store.resamples("abc", "t-d", "", "accuracy"), [[0.5, np.nan]])
    np.testing.assert_array_equal(store.resamples("abc", "t-d", "", "of_draws"), [[0.5, 0.1], [0.2, np.nan]])
    assert store.resamples("abc", "t-d", "image_to_text", "accuracy") is None


def test_what_a_report_reads_of_single_cells_comes_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    finish(store, "abc", 1.0, 0.5)
    examples = store.examples("abc", "t-d", "")
    assert examples is not None
    assert examples.id.tolist() == ["a", "b"]
    assert store.examples("abc", "t-d", "other") is None
    assert store.log("abc") is None
    (store.cell("abc") / "log.jsonl").write_text(
        '{"step": 1, "loss": 2.5}\n{"step": 2, "loss": 2, "validation_loss": 3}\n'
    )
    log = store.log("abc")
    assert log is not None
    assert log.loss.tolist() == [2.5, 2.0]
    np.testing.assert_array_equal(log.validation_loss, [np.nan, 3])


def test_some_embeddings_of_an_evaluation_come_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    finish(store, "abc", 1.0, 0.5)
    assert store.embedded("abc", "t-d") is None
    arrays = {"images-test-1": np.eye(4, dtype=np.float32), "texts-2": -np.eye(4, dtype=np.float32)}
    for name, array in arrays.items():
        (store.cell("abc") / "embeddings" / name).mkdir(parents=True)
        np.save(store.cell("abc") / "embeddings" / name / "embeddings.npy", array)
    embedded = EmbeddedNotes(
        images={"folder": "images-test-1", "rows": [3, 1], "classes": [["x"], []]},
        texts={"folder": "texts-2", "rows": [0, 0], "classes": [["x"], []]},
        texts_are="captions",
    )
    store.add_evaluation("abc", "t-e", {}, [], {}, {}, {}, embedded)
    read = store.embedded("abc", "t-e")
    assert read is not None
    np.testing.assert_array_equal(read.images, np.eye(4)[[3, 1]])
    np.testing.assert_array_equal(read.texts, -np.eye(4)[[0, 0]])
    assert (read.image_classes, read.text_classes, read.texts_are) == ([["x"], []], [["x"], []], "captions")
    (store.cell("abc") / "embeddings" / "texts-2" / "embeddings.npy").unlink()
    assert store.embedded("abc", "t-e") is None


def test_of_two_cells_with_one_label_the_newer_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for age, (key, value) in enumerate((("b", 0.1), ("a", 0.9))):
        finish(store, key, float(age), value)
        for path in (store.cell(key) / "cost.json", store.cell(key) / "evaluations" / "t-d" / "rows.json"):
            os.utime(path, (1000 + age, 1000 + age))
    assert store.rows().value.tolist() == [0.9]
    assert store.costs().cell.tolist() == ["a"]


def test_what_was_trained_on_tells_cells_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    for key, sets in (("a", "one"), ("b", "other")):
        monkeypatch.setitem(LABEL, "pretraining", sets)
        finish(store, key, 1.0, 0.5)
    assert sorted(store.rows().cell) == sorted(store.costs().cell) == ["a", "b"]


def test_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
