"""JSON documents in the forms in which tables are published."""

import json

import pytest

from benchmark.common.errors import BenchError
from benchmark.data.check import check
from tests.data.make import images, opened

REPORTS = {"image": "image", "text": "report", "split": "split"}


def document(folder, content, columns, on_bad_data="error", **card):
    """Open a set whose manifest is this document; without a column for the split, all rows are train."""
    if not (folder / "0.png").exists():
        images(folder, 6)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "rows.json").write_text(text)
    source = {"kind": "manifest", "file": "rows.json", "columns": columns}
    return opened(folder, source | ({} if "split" in columns else {"split": {"train": 1}}), on_bad_data, **card)


def rows(found, *names):
    """The place of each row by split, and its values."""
    check(found)
    tables = {split: found.table(split).select(["row", *names]).to_pylist() for split in found.splits()}
    return {split: [tuple(row.values()) for row in of_split] for split, of_split in tables.items()}


def report(i, **more):
    return {"image": f"{i}.png", "report": f"report {i}"} | more


SPLITS = {"train": [(1, ["report 0"]), (2, ["report 1"])], "val": [(3, ["report 2"])], "test": [(4, ["report 3"])]}


@pytest.mark.parametrize(
    "content",
    [
        {"train": [report(0), report(1)], "val": [report(2)], "test": [report(3)]},
        {"info": {"year": 2019}, "Train": [report(0), report(1)], "validation": [report(2)], "Testing": [report(3)]},
        {"train": {"a": report(0), "b": report(1)}, "dev": {"c": report(2)}, "test": {"d": report(3)}},
        # R2Gen's annotation.json: the split is in the rows as well, and the image is a list of one.
        {
            "train": [report(0, split="train"), report(1, split="train", image=["1.png"])],
            "val": [report(2, split="validation")],
            "test": [report(3, split="test")],
        },
    ],
)
def test_a_list_for_each_split(tmp_path, content):
    assert rows(document(tmp_path, content, REPORTS), "text") == SPLITS


def test_what_is_wrong_in_a_list_for_each_split(tmp_path):
    content = {"train": [report(0), report(1, split="test"), 7], "test": [report(2)], "extra": [report(3)]}
    with pytest.raises(
        BenchError, match=r"^rows.json, row 2: split is 'test', but the row stands under 'train'\n4 rows|3"
    ):
        check(document(tmp_path, content, REPORTS))
    left = document(tmp_path, content, REPORTS, "skip")
    assert rows(left, "text") == {"train": [(1, ["report 0"])], "test": [(4, ["report 2"])]}
    assert left.left_out == {"two splits": 1, "malformed JSON": 1, "unknown split": 1}
    # Texts beside names are values.
    for captions in (["a", "b"], ["a"], "a"):
        named = {"train": {"0.png": captions, "1.png": "b"}, "Validation": {"2.png": ["c"]}}
        found = document(tmp_path, named, {"image": "key", "text": "value", "split": "split"})
        expected = captions if isinstance(captions, list) else [captions]
        assert rows(found, "id", "text") == {
            "train": [(1, "0.png", expected), (2, "1.png", ["b"])],
            "val": [(3, "2.png", ["c"])],
        }
    # Names alone are keys.
    names = {"train": ["0.png", "1.png"], "test": ["2.png"]}
    found = document(tmp_path, names, {"image": "key", "split": "split"})
    assert rows(found, "id") == {"train": [(1, "0.png"), (2, "1.png")], "test": [(3, "2.png")]}


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ([report(0), report(1)], {"image": "image", "text": "report"}),
        ({"0.png": {"report": "report 0"}, "1.png": {"report": "report 1"}}, {"image": "key", "text": "report"}),
        (
            [{"0.png": {"report": "report 0", "key": "x"}}, {"1.png": {"report": "report 1"}}],
            {"image": "key", "text": "report"},
        ),
        ({"0.png": "report 0", "1.png": "report 1"}, {"image": "key", "text": "value"}),
        ({"0.png": ["report 0"], "1.png": ["report 1"]}, {"image": "key", "text": "value"}),
        ({"0.png": [{"report": "report 0"}], "1.png": [{"report": "report 1"}]}, {"image": "key", "text": "report"}),
        ({"version": 1, "license": {}, "data": [report(0), report(1)]}, {"image": "image", "text": "report"}),
        (
            {"image": {"0": "0.png", "1": "1.png"}, "report": {"0": "report 0", "1": "report 1"}},
            {"image": "image", "text": "report"},
        ),
        # The split of COCO's captions by Karpathy.
        (
            {
                "dataset": "coco",
                "images": [{"filename": f"{i}.png", "sentences": [{"raw": f"report {i}"}]} for i in (0, 1)],
            },
            {"image": "filename", "text": "sentences.raw"},
        ),
        ([{"of": {"in": report(i)}} for i in (0, 1)], {"image": "in.image", "text": "in.report"}),
        ([{"id": i, "of": {"in": report(i)}} for i in (0, 1)], {"image": "of.in.image", "text": "of.in.report"}),
        (json.dumps(report(0)) + "\n" + json.dumps(report(1)), {"image": "image", "text": "report"}),
    ],
)
def test_rows(tmp_path, content, columns):
    expected = [(1, "0.png", ["report 0"]), (2, "1.png", ["report 1"])]
    assert rows(document(tmp_path, content, columns), "id", "text") == {"train": expected}


def coco(**more):
    names = [{"id": i, "file_name": f"{i}.png", "height": 8} for i in range(4)]
    return {"info": {"year": 2017}, "licenses": [{"id": 1, "name": "x"}], "images": names} | more


def test_captions_of_coco(tmp_path):
    captions = [{"id": 9 - i, "image_id": i % 3, "caption": f"c {i}"} for i in range(5)]
    found = document(tmp_path, coco(annotations=captions), {"image": "file_name", "text": "caption"}, "skip")
    expected = [(1, "0.png", ["c 0", "c 3"]), (2, "1.png", ["c 1", "c 4"]), (3, "2.png", ["c 2"])]
    assert rows(found, "id", "text") == {"train": expected}
    assert found.left_out == {"empty text": 1}
    found = document(
        tmp_path, coco(annotations=captions), {"image": "file_name", "label": "category"}, classes=["a", "b"]
    )
    with pytest.raises(
        BenchError, match=r"columns.label: unknown column 'category'.*Known: caption, file_name, height"
    ):
        check(found)


CATEGORIES = [
    {"id": 1, "name": "nodule", "supercategory": "lung"},
    {"id": "7", "name": "mass"},
    {"id": 3, "name": "rib"},
]


def boxes(*pairs):
    return [
        {"id": i, "image_id": image, "category_id": of, "bbox": [0, 0, 1, 1]} for i, (image, of) in enumerate(pairs)
    ]


def test_categories_of_coco(tmp_path):
    labels = {"image": "file_name", "label": "category"}
    content = coco(annotations=boxes((0, 7), (0, 1), (0, 7), ("2", 3), (1, 1)), categories=CATEGORIES)
    found = document(tmp_path, content, labels, classes=["mass", "nodule", "rib"], multi_label=True)
    expected = [(1, [1, 1, 0]), (2, [0, 1, 0]), (3, [0, 0, 1]), (4, [0, 0, 0])]
    assert rows(found, "label") == {"train": expected}
    # One class an image: an image with several is bad, and nothing is known of one without.
    one = document(tmp_path, content, labels, "skip", classes=["rib", "nodule", "mass"])
    assert rows(one, "label") == {"train": [(2, 1), (3, 0), (4, -1)]}
    assert one.left_out == {"several classes": 1}
    # Captions of another file, by the name of the image.
    captions = coco(annotations=[{"image_id": i, "caption": f"c {i}"} for i in range(4)])
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    found = document(tmp_path, content, labels, classes=["mass", "nodule", "rib"], multi_label=True)
    source = found.card.source.model_dump(exclude_defaults=True) | {
        "kind": "manifest",
        "columns": labels | {"text": "caption"},
        "join": [{"file": "captions.json", "by": ["file_name"], "columns": ["caption"]}],
    }
    joined = opened(
        tmp_path, json.loads(json.dumps(source, default=str)), classes=["mass", "nodule", "rib"], multi_label=True
    )
    assert rows(joined, "text", "label")["train"][1] == (2, ["c 1"], [0, 1, 0])


def test_what_is_wrong_in_coco(tmp_path):
    labels = {"image": "file_name", "label": "category"}
    content = coco(annotations=[*boxes((0, 1), (1, 8), (99, 1)), None], categories=CATEGORIES)
    content["images"] += [{"id": 0, "file_name": "4.png"}, {"file_name": "5.png"}]
    classes = {"classes": ["mass", "nodule", "rib"], "multi_label": True}
    with pytest.raises(
        BenchError, match=r"^rows.json, annotations\[2\]: image_id 99 is the 'id' of no image\n5 rows are"
    ):
        check(document(tmp_path, content, labels, **classes))
    left = document(tmp_path, content, labels, "skip", **classes)
    assert [row[0] for row in rows(left)["train"]] == [1, 3, 4]
    assert left.left_out == {"annotation of no image": 2, "unknown category": 1, "bad image id": 2}
    with pytest.raises(
        BenchError, match=r"^rows.json: categories: expected objects with 'id' and 'name', found {'id': 1}$"
    ):
        check(document(tmp_path, content | {"categories": [{"id": 1}]}, labels, **classes))
    # Without annotations nothing is known: no image counts as one without any class.
    with pytest.raises(BenchError, match=r"unknown column 'category'"):
        check(document(tmp_path, coco(annotations=[], categories=CATEGORIES), labels, **classes))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('"text"', "rows.json: expected a JSON list of objects, found 'text'"),
        ("[[1, 2]]", "rows.json, row 1: expected an object, found [1, 2]"),
        ({"images": [{"id": 1}], "labels": [{"image": 1}]}, "rows.json: expected a JSON list of objects, objects by"),
        (
            {f"image_{i:05}.png": f"caption {i}" for i in range(20000)},
            "rows.json: columns.image: unknown column 'image'",
        ),
        ('[{"image": "0.png", "image": "1.png"}]', "rows.json: key 'image' occurs twice in one object"),
        ('{"a": {}} {"b": {}', "rows.json, row 1: malformed JSON: "),
        ("{}", "rows.json: expected a JSON list of objects, "),
    ],
)
def test_other_documents(tmp_path, content, message):
    with pytest.raises(BenchError) as caught:
        check(document(tmp_path, content, {"image": "image"}))
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 400
