import numpy as np
import pytest
from PIL import Image

from benchmark.common.errors import BenchError
from benchmark.data.tools.contact_sheet import contact_sheet, describe
from tests.data.make import PAIRS, QUESTIONS, dataset, pairs, questions


def test_describe(tmp_path):
    rows = [row | {"y": ["a", "b", ""][i % 3]} for i, row in enumerate(pairs(tmp_path, 7, ["train"]))]
    rows[0]["text"], rows[1]["text"], rows[2]["text"] = "one", "one", "one two three four five"
    rows[6]["text"] = ""
    found = dataset(tmp_path, rows, {**PAIRS, "label": "y"}, "skip", card={"classes": ["b", "a"], "title": "A set"})
    assert describe(found) == {
        "name": "set",
        "title": "A set",
        "modality": "",
        "provides": "label, text",
        "splits": {
            "train": {
                "images": 6,
                "groups": 6,
                "texts": {"all": 6, "different": 5},
                "words a text": {"shortest": 1, "median": 3, "longest": 5},
                "classes": {"b": 2, "a": 2, "unknown": 2},
            }
        },
        "left out": {"empty text": 1},
    }


def test_describe_many_labels(tmp_path):
    values = [["a", "b"], ["a"], [], None]
    rows = [row | {"y": y} for row, y in zip(pairs(tmp_path, 4, ["test"]), values)]
    found = dataset(tmp_path, rows, {**PAIRS, "label": "y"}, card={"classes": ["b", "a"], "multi_label": True})
    assert describe(found)["splits"]["test"]["classes"] == {"b": 1, "a": 2, "unknown": 1}


def test_describe_questions(tmp_path):
    found = dataset(tmp_path, questions(tmp_path), QUESTIONS)
    assert "left out" not in describe(found)
    assert describe(found)["splits"]["train"]["questions"] == {"all": 2, "closed": 1, "open": 1}


@pytest.mark.parametrize(("count", "n"), [(1, 24), (9, 7)])
def test_contact_sheet(tmp_path, count, n):
    rows = pairs(tmp_path, count, ["train"])
    rows[0]["text"] = r"<b>$\undefined{$ 10^5 " + "word " * 1000
    found = dataset(tmp_path, rows)
    one = np.asarray(Image.open(contact_sheet(found, "train", tmp_path / "one.png", n)))
    two = np.asarray(Image.open(contact_sheet(found, "train", tmp_path / "two.png", n)))
    np.testing.assert_array_equal(one, two)
    assert one.std() > 10
    assert one.shape[0] < 2000


def test_a_sheet_that_cannot_be_written(tmp_path):
    with pytest.raises(BenchError, match="cannot be written: No such file"):
        contact_sheet(dataset(tmp_path, pairs(tmp_path)), "train", tmp_path / "gone" / "x.png")
