"""Class numbers in lists and objects: a table of ``datasets`` has the names, in Parquet and from the hub."""

import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmark.common.errors import BenchError
from benchmark.data.check import check
from benchmark.data.sources.class_names import class_names
from tests.data.make import jpeg, opened

NAMES = ["No Finding", "Atelectasis", "Effusion"]
CARD = {"classes": ["Effusion", "No Finding", "Atelectasis"], "multi_label": True}
ROWS = [[1], [0], [1, 2], []]
EXPECTED = [[0, 0, 1], [0, 1, 0], [1, 0, 1], [0, 0, 0]]
NUMBER = datasets.ClassLabel(names=NAMES)


def table(feature, values):
    pictures = [{"bytes": jpeg(i), "path": None} for i in range(len(values))]
    features = datasets.Features({"image": datasets.Image(), "labels": feature})
    return datasets.Dataset.from_dict({"image": pictures, "labels": values}, features)


def in_parquet(folder, data, column="labels", on_bad_data="error"):
    if isinstance(data, pa.Table):
        pq.write_table(data, folder / "a.parquet")
    else:
        data.to_parquet(str(folder / "a.parquet"))
    columns = {"image": "image", "label": column}
    return opened(
        folder, {"kind": "manifest", "files": {"train": "a.parquet"}, "columns": columns}, on_bad_data, **CARD
    )


def from_hub(folder, data, column="labels", on_bad_data="error"):
    data.save_to_disk(str(folder / "saved"))
    columns = {"image": "image", "label": column}
    source = {"kind": "hub", "path": "saved", "splits_of": {"train": "train"}, "columns": columns}
    return opened(folder, source, on_bad_data, **CARD)


def labels(found):
    check(found)
    return found.table("train")["label"].to_pylist()


@pytest.mark.parametrize("way", [in_parquet, from_hub])
@pytest.mark.parametrize(
    ("feature", "value", "column"),
    [
        (datasets.List(NUMBER), lambda row: row, "labels"),
        (datasets.LargeList(NUMBER), lambda row: row, "labels"),
        ([NUMBER], lambda row: row, "labels"),
        (
            datasets.List({"of": NUMBER, "box": datasets.Value("int8")}),
            lambda row: [{"of": i, "box": 0} for i in row],
            "labels.of",
        ),
        ({"all": datasets.List(NUMBER)}, lambda row: {"all": row}, "labels.all"),
        ({"in": {"deep": [NUMBER]}}, lambda row: {"in": {"deep": row}}, "labels.in.deep"),
        (datasets.Sequence({"of": NUMBER}), lambda row: {"of": row}, "labels.of"),
    ],
)
def test_names_of_numbers(tmp_path, way, feature, value, column):
    assert labels(way(tmp_path, table(feature, [value(row) for row in ROWS]), column)) == EXPECTED


@pytest.mark.parametrize(
    "described",
    [
        {"feature": {"names": NAMES, "_type": "ClassLabel"}, "_type": "Sequence"},
        {"feature": {"names": NAMES, "num_classes": 3, "_type": "ClassLabel"}, "length": -1, "_type": "Sequence"},
        [{"names": NAMES, "_type": "ClassLabel"}],
        {"feature": {"names": NAMES, "_type": "ClassLabel"}, "length": -1, "_type": "List"},
    ],
)
def test_descriptions_of_older_versions(tmp_path, described):
    data = table(datasets.List(datasets.Value("int64")), ROWS).data.table
    metadata = {"info": {"features": {"image": {"_type": "Image"}, "labels": described, "gone": described}}}
    data = data.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    assert labels(in_parquet(tmp_path, data)) == EXPECTED


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"info": null}', b'{"info": {"features": [1]}}', b"\xff"])
def test_a_description_that_says_nothing(tmp_path, metadata):
    named = table(datasets.List(datasets.Value("string")), [[NAMES[i] for i in row] for row in ROWS]).data.table
    assert labels(in_parquet(tmp_path, named.replace_schema_metadata({b"huggingface": metadata}))) == EXPECTED


def test_an_old_sequence_of_objects():
    described = {"objects": {"feature": {"of": {"names": NAMES, "_type": "ClassLabel"}}, "_type": "Sequence"}}
    named = class_names(described)["objects"]
    assert named({"of": [1, 0], "x": [1, 1]}) == {"of": ["Atelectasis", "No Finding"], "x": [1, 1]}
    assert named([{"of": 2}, {"of": None}]) == [{"of": "Effusion"}, {"of": None}]
    assert named(None) is None


@pytest.mark.parametrize("way", [in_parquet, from_hub])
def test_numbers_without_a_name(tmp_path, way):
    wrong = table(datasets.List(datasets.Value("int64")), [[1], [0, 3], [2]])
    features = datasets.Features({"image": datasets.Image(), "labels": datasets.List(NUMBER)})
    if way is in_parquet:
        written = table(datasets.List(NUMBER), [[]])
        wrong = wrong.data.table.replace_schema_metadata(written.data.table.schema.metadata)
    else:
        wrong._info.features = features
    with pytest.raises(BenchError, match=r"row 2: class number 3; the file has names for 0 to 2$"):
        check(way(tmp_path, wrong))
    left = way(tmp_path, wrong, on_bad_data="skip")
    assert labels(left) == [EXPECTED[0], [1, 0, 0]]
    assert left.left_out == {"unknown class": 1}
