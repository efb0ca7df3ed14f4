"""What the cells of tables mean, whichever file they are in: numbers, missing values, lists, several names, paths."""

import json
import unicodedata
from datetime import date, datetime
from decimal import Decimal, InvalidOperation

import datasets
import h5py
import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmark.common.errors import BenchError
from benchmark.data.canonical import canonical, identifier
from benchmark.data.check import check
from benchmark.data.problems import BadRow
from benchmark.data.sources.values import conditions, names_in, texts
from benchmark.data.streamed import Stream
from benchmark.data.tools.infer_card import infer_card
from tests.data.make import SHARDS, images, jpeg, opened, pixels, shard, write_csv

BIRADS = ["1", "2", "3", "4", "5"]


def column(found, split, name):
    return found.records(split).select_columns([name])[:][name]


ONE = [1, 1.0, "1", " 1\t", "1.0", "1.00", "+1", "1.", "1.0e+00", Decimal("1.000"), np.int64(1), np.float32(1)]
SAME = [
    (ONE, "1"),
    ([1.5, "1.5", "1.50", Decimal("1.500"), np.float32(1.5)], "1.5"),
    ([0.1, "0.1", ".10", np.float32(0.1), np.float64(0.1)], "0.1"),
    (["0", 0.0, "-0.0", "0.00", -0.0], "0"),
    ([100000, "1e+05", 1e5], "100000"),
    ([1234567890123456789, "1234567890123456789", "1234567890123456789.0"], "1234567890123456789"),
    ([True, "True", "TRUE", np.True_], "true"),
    ([date(2024, 1, 31), datetime(2024, 1, 31), "2024-01-31", "2024-01-31T00:00:00.000"], "2024-01-31"),
    ([datetime(2024, 1, 31, 9, 5), "2024-01-31 09:05", pd.Timestamp(2024, 1, 31, 9, 5)], "2024-01-31 09:05:00"),
    (["2024-01-31 09:00:00+02:00", "2024-01-31T09:00:00.0+0200"], "2024-01-31 09:00:00+0200"),
    ([pd.Timestamp(2024, 1, 31, tz="UTC"), "2024-01-31T00:00:00Z"], "2024-01-31"),
    ([None, float("nan"), "", "  ", np.float32("nan"), pd.NaT], ""),
    (["12", "\u200b12", "12\ufeff", "\u200b \ufeff12\u00a0"], "12"),
    (["caf\u00e9", "cafe\u0301 ", b"caf\xc3\xa9"], "caf\u00e9"),
    # Names, though they have digits.
    *(([text], text) for text in ("007", "1e3", "1.2.3", "1_000", "12-3", "-", ".", "nan", "inf", "None", "9" * 5000)),
]


@pytest.mark.parametrize(("values", "form"), SAME)
def test_values_that_are_one(values, form):
    assert {canonical(value) for value in values} == {form}


@settings(max_examples=40, deadline=None)
@given(st.from_regex(r"[+-]?(0|[1-9][0-9]{0,24})(\.[0-9]{1,6})?", fullmatch=True), st.integers(0, 4))
def test_numbers_are_equal_if_their_values_are(text, zeros):
    form = canonical(text)
    assert Decimal(form) == Decimal(text)
    assert form == canonical(Decimal(text)) == canonical(form + ("" if "." in form else ".") + "0" * zeros)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=12))
def test_a_canonical_form_is_that_of_itself(text):
    form = canonical(text)
    assert canonical(form) == form
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return
    if text.strip().isascii() and number.is_finite() and form != text.strip():
        assert Decimal(form) == number


@pytest.mark.parametrize("value", [1e20, float(1 << 53), "1.23457E+11", "1e+16", [1], {"a": b"x"}, b"\xff"])
def test_what_has_no_canonical_form(value):
    with pytest.raises(BadRow, match=r"has lost digits|expected a text, found"):
        canonical(value)


@pytest.mark.parametrize(
    "word", ["nan", "NaN", "None", "NULL", "null", "N/A", "n/a", "NA", "<NA>", "NaT", "", "\\N", "#NAME?", "#REF!"]
)
def test_words_that_say_nothing(word):
    assert identifier(word) == ""
    assert texts(word) in ([], [""])


def excel(path, rows):
    book = openpyxl.Workbook()
    book.active.append(list(rows[0]))
    for row in rows:
        book.active.append(list(row.values()))
    book.save(path)


def parquet(path, rows, numbers):
    table = pa.Table.from_pylist(rows)
    for name in ("birads", "patient", "keep"):
        cast = table[name].cast(pa.string()).dictionary_encode() if numbers is None else table[name].cast(numbers)
        table = table.set_column(table.column_names.index(name), name, cast)
    pq.write_table(table, path)


def as_text(rows):
    return [{name: str(value) for name, value in row.items()} for row in rows]


WRITERS = {
    "csv": lambda path, rows: write_csv(path, rows),
    "json": lambda path, rows: path.write_text(json.dumps(as_text(rows))),
    "jsonl": lambda path, rows: path.write_text("".join(json.dumps(row) + "\n" for row in rows)),
    "xlsx": excel,
    "parquet": lambda path, rows: parquet(path, rows, pa.int8()),
    "float.parquet": lambda path, rows: parquet(path, rows, pa.float64()),
    "decimal.parquet": lambda path, rows: parquet(path, rows, pa.decimal128(25, 2)),
    "texts.parquet": lambda path, rows: parquet(path, rows, None),
}


def numbered(folder, train, test, **change):
    """Two rows of BI-RADS 1 and 2 in train as whole numbers, and the next two in test as pandas makes them floats."""
    images(folder / "images", 4)
    for name, kind, numbers in (("train", train, [1, 2]), ("test", test, [3.0, 4.0])):
        rows = [
            {"image": f"images/{int(n) - 1}.png", "birads": n, "patient": n + 10, "keep": n, "text": f"t{int(n)}"}
            for n in numbers
        ]
        WRITERS[kind](folder / f"{name}.{kind}", rows)
    source = {
        "kind": "manifest",
        "files": {"train": f"train.{train}", "test": f"test.{test}"},
        "columns": {"image": "image", "label": "birads", "group": "patient", "text": "text"},
    }
    return opened(folder, source | change, classes=BIRADS)


@pytest.mark.parametrize(("train", "test"), [("csv", "csv"), ("jsonl", "json"), *((kind, "csv") for kind in WRITERS)])
def test_numbers_are_names_where_classes_are_numbers(tmp_path, train, test):
    found = numbered(tmp_path, train, test, where={"keep": [1, 2, "3.00", 4]}, where_not={"patient": 14})
    assert column(found, "train", "label") == [0, 1]
    assert column(found, "test", "label") == [2]
    assert column(found, "train", "group") + column(found, "test", "group") == ["11", "12", "13"]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_number_is_never_a_place_among_numbers(tmp_path, kind):
    images(tmp_path / "images", 2)
    rows = [{"image": f"images/{n}.png", "birads": n, "patient": n, "keep": n} for n in (0, 1)]
    WRITERS[kind](tmp_path / f"rows.{kind}", rows)
    source = {"kind": "manifest", "file": f"rows.{kind}", "columns": {"image": "image", "label": "birads"}}
    with pytest.raises(BenchError, match=r"row \d: unknown class '0(\.00)?'.* is a name and not a place in 'classes'$"):
        check(opened(tmp_path, source | {"split": {"train": 1}}, classes=BIRADS))
    found = opened(tmp_path, source | {"split": {"train": 1}}, classes=["benign", "malignant"])
    assert column(found, "train", "label") == [0, 1]


def samples(folder, numbers, **json_values):
    for split, number in numbers.items():
        values = {"patient": number, "birads": number} | json_values
        members = [(f"{split}.jpg", jpeg(len(split))), (f"{split}.txt", b"a text"), (f"{split}.cls", b" 2.0\n")]
        shard(folder / f"{split}.tar", [*members, (f"{split}.json", json.dumps(values).encode())])
    columns = SHARDS["columns"] | {"group": "patient", "label": "birads"}
    return SHARDS | {"shards": {split: [f"{split}.tar"] for split in numbers}, "columns": columns}


def test_numbers_in_shards(tmp_path):
    source = samples(tmp_path, {"train": 1, "test": 2.0})
    found = opened(tmp_path, source, classes=BIRADS)
    assert column(found, "train", "label") + column(found, "test", "label") == [0, 1]
    for by, expected in (("birads", 1), ("cls", 1)):
        streamed = source | {"stream": True, "columns": source["columns"] | {"label": by}}
        stream = Stream(opened(tmp_path, streamed, classes=BIRADS).card, "test", tmp_path / "cache")
        assert (stream.row(0).label, stream.row(0).group) == (expected, "2")
    with pytest.raises(BenchError, match=r"group '1' is in split 'train' here, but in 'test' in test.tar"):
        check(opened(tmp_path, samples(tmp_path, {"train": "1", "test": 1.0}), classes=BIRADS))


def saved(folder, **columns):
    pictures = [{"bytes": jpeg(i), "path": None} for i in range(len(next(iter(columns.values()))))]
    data = datasets.Dataset.from_dict({"image": pictures, **columns})
    data = data.cast_column("image", datasets.Image())
    datasets.DatasetDict({"train": data.select([0]), "test": data.select([1])}).save_to_disk(str(folder / "saved"))
    return {"kind": "hub", "path": "saved", "splits_of": {"train": "train", "test": "test"}}


def test_numbers_in_a_saved_dataset(tmp_path):
    source = saved(tmp_path, birads=[1.0, 4.0], patient=["7", "7.0"], keep=[True, True])
    source |= {"columns": {"image": "image", "label": "birads"}, "where": {"keep": 1}}
    found = opened(tmp_path, source, classes=BIRADS)
    assert column(found, "train", "label") + column(found, "test", "label") == [0, 3]
    with pytest.raises(BenchError, match="group '7' is in split 'train' here, but in 'test' in saved, test"):
        check(opened(tmp_path, source | {"columns": source["columns"] | {"group": "patient"}}, classes=BIRADS))


def test_groups_and_class_numbers_beside_arrays(tmp_path):
    files = {}
    for split, groups in (("train", "wsi\n12\nnan\n"), ("test", "wsi\n12.0\n13\n")):
        for name, array in (("x", np.stack([pixels(i, 8, 8) for i in range(2)])), ("y", np.array([0, 1]))):
            with h5py.File(tmp_path / f"{split}_{name}.h5", "w") as file:
                file[name] = array
        (tmp_path / f"{split}.csv").write_text(groups)
        files[split] = {"images": f"{split}_x.h5", "labels": f"{split}_y.h5", "groups": f"{split}.csv"}
    source = {"kind": "h5", "files": files, "group_column": "wsi"}
    left = opened(tmp_path, source, "skip", classes=["a", "b"])
    assert left.left_out == {"group in two splits": 1}
    assert column(left, "train", "group") == ["12", "train/1"]
    pictures = np.stack([pixels(i, 8, 8) for i in range(3)])
    np.savez(tmp_path / "a.npz", train_images=pictures, train_labels=np.array([1.0, 0.0, np.nan]))
    assert column(opened(tmp_path, {"kind": "npz", "file": "a.npz"}, classes=BIRADS), "train", "label") == [1, 0, -1]
    np.savez(tmp_path / "a.npz", train_images=pictures, train_labels=np.array([1.0, 0.5, 0.0]))
    with pytest.raises(BenchError, match=r"train_images\[1\]: class number 0.5; expected 0 to 4"):
        check(opened(tmp_path, {"kind": "npz", "file": "a.npz"}, classes=BIRADS))


@pytest.mark.parametrize("kind", ["npz", "h5"])
@pytest.mark.parametrize(
    ("classes", "train", "test", "refused"),
    [
        (["1", "2", "3", "4", "5"], [1, 2, 4], [2], "1, 2, 4 are names"),
        (["3.0", "2.0", "1.0"], [1, 1], [2], "1, 2 are names"),
        (["1", "2", "3", "4", "5"], [1, 2, 4], [0], None),
        (["0", "1", "2"], [1, 2, 1], [2], None),
        (["a", "b", "c", "d", "e"], [1, 2, -1], [2], None),
    ],
)
def test_class_numbers_that_may_be_names(tmp_path, kind, classes, train, test, refused):
    pictures = np.stack([pixels(i, 8, 8) for i in range(4)])
    arrays = {"train": train, "test": test}
    if kind == "npz":
        labels = {f"{split}_labels": np.array(numbers) for split, numbers in arrays.items()}
        shown = {"train_images": pictures[: len(train)], "test_images": pictures[3:]}
        np.savez(tmp_path / "a.npz", **labels, **shown)
        source = {"kind": "npz", "file": "a.npz"}
    else:
        for split, numbers in arrays.items():
            with h5py.File(tmp_path / f"{split}.h5", "w") as file:
                file["x"], file["y"] = pictures[-len(numbers) :] if split == "test" else pictures[: len(train)], numbers
        source = {
            "kind": "h5",
            "files": {split: {"images": f"{split}.h5", "labels": f"{split}.h5"} for split in arrays},
        }
    found = opened(tmp_path, source, classes=classes)
    if refused is None:
        assert column(found, "train", "label") == train
    else:
        with pytest.raises(BenchError, match=f"counted from 0, but none here is 0, and {refused}"):
            check(found)


def manifest(folder, *rows, suffix="csv", **source):
    """A table with these rows, each with an image of its own unless it names one."""
    images(folder / "images", len(rows))
    rows = [{"image": f"images/{i}.png", "split": "train"} | row for i, row in enumerate(rows)]
    WRITERS[suffix](folder / f"rows.{suffix}", rows)
    columns = {"image": "image", "split": "split"} | source.pop("columns", {})
    return {"kind": "manifest", "file": f"rows.{suffix}", "columns": columns} | source


def test_flags_have_either_form(tmp_path):
    assert conditions({"a": 1, "b": False}) == {"a": {"1", "true"}, "b": {"false", "0"}}
    rows = [{"id": i, "out": out} for i, out in enumerate(["True", "1.0", "FALSE", "0", "", "nan"])]
    found = opened(tmp_path, manifest(tmp_path, *rows, columns={"id": "id"}, where_not={"out": 1}))
    assert column(found, "train", "id") == ["2", "3", "4", "5"]
    found = opened(tmp_path, manifest(tmp_path, *rows, columns={"id": "id"}, where_not={"out": [True, ""]}))
    assert column(found, "train", "id") == ["2", "3"]


def test_rows_of_a_day_and_one_of_each_patient(tmp_path):
    rows = [{"day": f"2024-01-3{i // 5} 00:00:00", "p": p} for i, p in enumerate([1, "1.0", "2", "nan", "", 1])]
    source = manifest(tmp_path, *rows, where={"day": date(2024, 1, 30)}, one_per="p")
    assert column(opened(tmp_path, source), "train", "id") == [f"images/{i}.png" for i in (0, 2, 3, 4)]


def test_values_are_replaced_whatever_their_form(tmp_path):
    rows = [{"g": g} for g in ("1.0", " 2", "nan", "7", "")]
    values = {"g": {1: "benign", "2.0": "malignant", "*": "benign"}}
    source = manifest(tmp_path, *rows, columns={"label": "g"}, values=values)
    assert column(opened(tmp_path, source, classes=["benign", "malignant"]), "train", "label") == [0, 1, -1, 0, -1]
    with pytest.raises(BenchError, match=r"values.g: '1' and '1.0' are one value, but have two replacements"):
        opened(tmp_path, source | {"values": {"g": {"1": "a", "1.0": "b"}}}, classes=["a", "b"])


def test_classes_that_are_one(tmp_path):
    source = manifest(tmp_path, {"y": 2.0}, columns={"label": "y"})
    assert column(opened(tmp_path, source, classes=[1, 2], class_texts={1: "one"}), "train", "label") == [1]
    with pytest.raises(BenchError, match=r"classes '1' and '1.0' are one$"):
        opened(tmp_path, source, classes=["1", "1.0"])


def joined(folder, left, right, **join):
    """Rows with the keys ``left``, and a table that gives those in ``right`` a diagnosis."""
    write_csv(folder / "labels.csv", [{"pid": pid, "dx": dx} for pid, dx in right])
    join = {"file": "labels.csv", "by": ["pid"], "columns": ["dx"]} | join
    source = manifest(folder, *({"pid": pid} for pid in left), columns={"label": "dx"}, join=[join])
    return opened(folder, source, classes=["benign", "malignant"])


def test_a_join_by_numbers(tmp_path):
    found = joined(tmp_path, [1, "2", "", "x"], [("1.0", "benign"), (" 2.00", "malignant"), ("", "benign"), ("x", "")])
    assert column(found, "train", "label") == [0, 1, -1, -1]


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        (
            [1, 2],
            ["001", "002"],
            "0 of 2 rows have a partner in labels.csv: a row has pid '1', and labels.csv has pid '001'",
        ),
        (
            [1, 2, 3],
            ["3"],
            "1 of 3 rows have .*: a row has pid '1', and all rows of labels.csv are used; .*'partial: true'",
        ),
        (
            [1.5, 2, 3],
            ["2", "4"],
            "1 of 3 rows have .* a row has pid '1.5', and labels.csv has pid '4', which no row has",
        ),
        (["p1"], ["P1"], "0 of 1 rows have .*'p1', and labels.csv has pid 'P1'"),
        (["1.2E+11"], ["120000000000"], "rows.csv, row 2: the number 1.2E.11 has lost digits"),
    ],
)
def test_a_join_that_finds_too_few(tmp_path, left, right, message):
    with pytest.raises(BenchError, match=message) as error:
        check(joined(tmp_path, left, [(pid, "benign") for pid in right]))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("own", "joined", "message"),
    [("b", "a", "is 'b' here, and 'a'"), ("", "a", "is '' here, and 'a'"), (0, "b", "is '0' here, and 'b'")],
)
def test_a_column_of_both_tables(tmp_path, own, joined, message):
    """The value in the rows went before that of the joined table, without a word."""
    join = [{"file": "labels.csv", "by": ["key"], "columns": ["y"]}]
    source = manifest(tmp_path, {"key": 1, "y": own}, columns={"label": "y"}, join=join)
    write_csv(tmp_path / "labels.csv", [{"key": "1.0", "y": joined}])
    with pytest.raises(BenchError, match=f"rows.csv, row 2: join: column 'y' {message} in labels.csv; rename"):
        check(opened(tmp_path, source, classes=["a", "b"]))
    write_csv(tmp_path / "labels.csv", [{"key": "1.0", "y": f"{own} "}])
    expected = {"b": 1, "": -1, 0: 0}[own]
    assert column(opened(tmp_path, source, classes=["a", "b"]), "train", "label") == [expected]


def test_a_join_that_is_meant_to_find_few(tmp_path):
    assert column(joined(tmp_path, [1, 2, 3], [("3.0", "benign")], partial=True), "train", "label") == [-1, -1, 0]
    with pytest.raises(BenchError, match="0 of 3 rows"):
        check(joined(tmp_path, [1, 2, 3], [("4", "benign")], partial=True))
    with pytest.raises(BenchError, match=r"rows.csv: join: unknown column 'dx'"):
        check(joined(tmp_path, [1], [("1", "benign")], by=["dx"]))


def test_a_joined_table_that_contradicts_itself(tmp_path):
    twice = [("1", "benign"), ("2", "benign"), ("1.0", "malignant")]
    message = "labels.csv, row 4: join: pid '1' has dx 'malignant' here, and 'benign' in row 2; .* 'several: first'$"
    with pytest.raises(BenchError, match=message):
        check(joined(tmp_path, [1, 2], twice))
    assert column(joined(tmp_path, [1, 2], twice, several="first"), "train", "label") == [0, 0]
    assert column(joined(tmp_path, [1], [("1", "benign"), ("1.0", " benign")]), "train", "label") == [0]


LISTS = [
    ('["a", "b"]', ["a", "b"]),
    ("['a', \"b's\"]", ["a", "b's"]),
    ('[ "a\\u00e9" ]', ["a\u00e9"]),
    ("['a',\n 'b']", ["a", "b"]),
    ("[Image] shows a mass [arrow]", ["[Image] shows a mass [arrow]"]),
    ("[1, 2]", ["[1, 2]"]),
    ("None of the lobes is enlarged", ["None of the lobes is enlarged"]),
    (["a", "['b']"], ["a", "['b']"]),
    ("[None]", [""]),
    ("[None of these]", ["[None of these]"]),
    ("('a', 'b')", ["a", "b"]),
    ('("ground glass") opacities', ['("ground glass") opacities']),
]


@pytest.mark.parametrize(("cell", "expected"), LISTS)
def test_captions_that_are_a_list_in_a_text(cell, expected):
    assert texts(cell) == expected


NO_LIST = ["['a' 'b']", "['a'\n 'b' \"c\"]", "array(['a', 'b'], dtype=object)", "['a', nan]", '["a", ', "['a' ... 'z']"]


@pytest.mark.parametrize("cell", ['{"caption": "a"}', "{'a', 'b'}", [["a"]], '[{"caption": "a"}]'])
def test_captions_that_are_objects(cell):
    with pytest.raises(BadRow, match="expected a text, found"):
        texts(cell)


@pytest.mark.parametrize("cell", NO_LIST)
def test_captions_that_are_no_list(cell):
    with pytest.raises(BadRow, match=r'is no list of texts; expected \["a", "b"\], with commas$'):
        texts(cell)


@pytest.mark.parametrize("kind", ["csv", "texts", "saved", "prepared", "streamed"])
def test_captions_from_every_reader(tmp_path, kind):
    cells = ['["first", "second"]', "nan"]
    if kind in ("prepared", "streamed"):
        for i, cell in enumerate(cells):
            shard(tmp_path / f"{i}.tar", [(f"{i}.jpg", jpeg(i)), (f"{i}.txt", cell.encode())])
        source = SHARDS | {"shards": {"train": ["?.tar"]}, "stream": kind == "streamed"}
        if kind == "streamed":
            stream = Stream(opened(tmp_path, source).card, "train", tmp_path / "cache")
            assert stream.row(0).text == ["first", "second"]
            with pytest.raises(BadRow, match="empty text"):
                stream.row(1)
            return
    elif kind == "saved":
        source = saved(tmp_path, caption=cells) | {"columns": {"image": "image", "text": "caption"}}
    else:
        rows = [{"caption": cell, "birads": 1, "patient": 1, "keep": 1} for cell in cells]
        suffix = "csv" if kind == "csv" else "texts.parquet"
        source = manifest(tmp_path, *rows, columns={"text": "caption"}, suffix=suffix)
    left = opened(tmp_path, source, "skip")
    assert column(left, "train", "text") == [["first", "second"]]
    assert left.left_out == {"empty text": 1}
    with pytest.raises(BenchError, match=r"empty text \(column '(caption|txt)': 'nan'\)"):
        check(opened(tmp_path, source))


def test_missing_parts_of_a_template_are_not_said(tmp_path):
    rows = [{"age": "40", "finding": "mass"}, {"age": "nan", "finding": "cyst"}, {"age": "NULL", "finding": "None"}]
    source = manifest(tmp_path, *rows, columns={"text": "{finding} {age}"})
    left = opened(tmp_path, source, "skip")
    assert column(left, "train", "text") == [["mass 40"], ["cyst"]]
    assert left.left_out == {"empty text": 1}


def test_none_is_an_answer_and_a_class_but_no_patient(tmp_path):
    rows = [{"q": "Which lobe?", "a": a, "y": y, "p": "None"} for a, y in (("None", "None"), ("NA", "mass"))]
    columns = {"question": "q", "answer": "a", "label": "y", "group": "p"}
    found = opened(tmp_path, manifest(tmp_path, *rows, columns=columns), classes=["None", "mass"])
    assert column(found, "train", "answer") == [["None"], ["NA"]]
    assert column(found, "train", "label") == [0, 1]
    assert column(found, "train", "group") == ["images/0.png", "images/1.png"]
    with pytest.raises(BenchError, match="unknown class 'None'"):
        check(opened(tmp_path, manifest(tmp_path, *rows, columns={"label": "y"}), classes=["normal", "mass"]))
    rows = [{"q": "How many?", "a": "nan"}]
    with pytest.raises(BenchError, match=r"empty answer \(column 'a': 'nan'\)"):
        check(opened(tmp_path, manifest(tmp_path, *rows, columns={"question": "q", "answer": "a"})))


FINDINGS = ["Atelectasis", "Effusion", "Nodule, solid", "Mass"]
SEVERAL = [
    ("Atelectasis|Effusion", [1, 1, 0, 0]),
    ("Effusion; Atelectasis", [1, 1, 0, 0]),
    ("Atelectasis, Mass,", [1, 0, 0, 1]),
    ("Nodule, solid", [0, 0, 1, 0]),
    ("Nodule, solid|Mass", [0, 0, 1, 1]),
    ("['Mass', 'Effusion']", [0, 1, 0, 1]),
    ("[Mass, Effusion]", [0, 1, 0, 1]),
    ("[]", [0, 0, 0, 0]),
    ("No Finding", [0, 0, 0, 0]),
    ("", [-1, -1, -1, -1]),
    ("nan", [-1, -1, -1, -1]),
]


def test_several_codes_in_a_text(tmp_path):
    rows = [{"y": "N|D"}, {"y": "D; N"}, {"y": "D"}, {"y": "[]"}]
    source = manifest(tmp_path, *rows, columns={"label": "y"}, values={"y": {"N": "normal", "D": "diabetic"}})
    found = opened(tmp_path, source, classes=["normal", "diabetic"], multi_label=True)
    assert column(found, "train", "label") == [[1, 1], [1, 1], [0, 1], [0, 0]]


def test_several_names_in_a_text(tmp_path):
    source = manifest(tmp_path, *({"y": text} for text, _ in SEVERAL), columns={"label": "y"})
    found = opened(tmp_path, source, classes=FINDINGS, multi_label=True)
    assert column(found, "train", "label") == [label for _, label in SEVERAL]
    saved_source = saved(tmp_path, y=["Mass|Effusion", "Mass"]) | {"columns": {"image": "image", "label": "y"}}
    found = opened(tmp_path, saved_source, classes=FINDINGS, multi_label=True)
    assert column(found, "train", "label") + column(found, "test", "label") == [[0, 1, 0, 1], [0, 0, 0, 1]]
    source = samples(tmp_path, {"train": "Mass, Effusion"}) | {"stream": True}
    stream = Stream(opened(tmp_path, source, classes=FINDINGS, multi_label=True).card, "train", tmp_path / "cache")
    assert stream.row(0).label == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("y", "multi_label", "message"),
    [
        (
            "Mass|Hernia",
            True,
            r'unknown class .Mass\|Hernia.; did .*several names are a list \(\["A", "B"\]\) or have one',
        ),
        ("Mass|Effusion", False, r"2 classes \(Mass, Effusion\) where one is expected; .* 'multi_label: true'"),
        ("[0, 1]", True, r"unknown class '0'.* in a list, classes have names and not numbers"),
        ("['Mass' 'Effusion']", True, r"with commas$"),
        (",".join(map(str, range(5000))), True, r"unknown class '0,1"),
    ],
)
def test_several_names_that_cannot_be_read(tmp_path, y, multi_label, message):
    source = manifest(tmp_path, {"y": y}, columns={"label": "y"})
    with pytest.raises(BenchError, match=message) as error:
        check(opened(tmp_path, source, classes=FINDINGS, multi_label=multi_label))
    assert len(str(error.value)) < 500


NAME = {form: unicodedata.normalize(form, "L\u00e9sion \u00e0 gauche") for form in ("NFC", "NFD")}
FORMS = [("NFC", "NFD"), ("NFD", "NFC")]


@pytest.mark.parametrize(("disk", "table"), FORMS)
@pytest.mark.parametrize("find", [False, True])
def test_files_named_in_another_normal_form(tmp_path, disk, table, find):
    folder = tmp_path / "data" / NAME[disk]
    folder.mkdir(parents=True)
    Image.fromarray(pixels(1)).save(folder / f"{NAME[disk]}.png")
    (folder / "report.txt").write_text("a report")
    rows = [{"name": NAME[table], NAME[table]: "1", "dx": NAME[disk]}]
    write_csv(tmp_path / "rows.csv", rows)
    source = {
        "kind": "manifest",
        "file": "rows.csv",
        "image_root": "data",
        "find": find,
        "columns": {"image": "{name}.png" if find else "{name}/{name}.png", "label": "dx"},
        "text_file": "{name}/report.txt",
        "where": {NAME[disk]: 1},
        "split": {"train": 1},
    }
    found = opened(tmp_path, source, classes=[NAME[table], "normal"])
    assert column(found, "train", "label") == [0]
    assert column(found, "train", "text") == [["a report"]]
    assert np.asarray(found.records("train")["image"][0]).shape == (10, 12, 3)
    assert unicodedata.is_normalized("NFC", column(found, "train", "id")[0])


def test_images_of_one_content_in_another_normal_form(tmp_path):
    for i in (1, 2):
        Image.fromarray(pixels(1)).save(tmp_path / f"{NAME['NFD']}{i}.png")
    rows = [{"image": f"{NAME['NFC']}{i}.png", "text": f"text {i}", "split": "train"} for i in (1, 2)]
    source = manifest(tmp_path, *rows, columns={"text": "text"})
    assert column(opened(tmp_path, source), "train", "text") == [["text 1", "text 2"]]


@pytest.mark.parametrize(("disk", "card"), FORMS)
def test_folders_named_in_another_normal_form(tmp_path, disk, card):
    for name in (NAME[disk], "normal"):
        images(tmp_path / NAME[disk] / "train" / name, 1)
    source = {"kind": "image_folder", "root": NAME[card]}
    found = opened(tmp_path, source, classes=[NAME[card], "normal"])
    assert sorted(column(found, "train", "label")) == [0, 1]
    assert sorted(column(found, "train", "id")) == [f"train/{NAME['NFC']}/0.png", "train/normal/0.png"]
    assert len(found.records("train")["image"]) == 2
    described = json.dumps({"y": NAME[disk]}).encode()
    shard(tmp_path / "a.tar", [("a.jpg", jpeg(0)), ("a.txt", b"text"), ("a.json", described)])
    shards = SHARDS | {"shards": {"train": ["a.tar"]}, "stream": True, "columns": SHARDS["columns"] | {"label": "y"}}
    stream = Stream(opened(tmp_path, shards, classes=[NAME[card], "normal"]).card, "train", tmp_path / "cache")
    assert stream.row(0).label == 0
    hub = saved(tmp_path, y=[NAME[disk], "normal"]) | {"columns": {"image": "image", "label": "y"}}
    assert column(opened(tmp_path, hub, classes=["normal", NAME[card]]), "train", "label") == [1]


def test_backslashes_are_separators(tmp_path):
    rows = [{"image": "images\\0.png"}, {"image": ".\\images\\1.png"}, {"image": "D:\\x\\images\\2.png"}]
    source = manifest(tmp_path, *rows, strip_prefix="D:/x/")
    found = opened(tmp_path, source)
    assert column(found, "train", "id") == ["images/0.png", "images/1.png", "images/2.png"]
    check(found)
    # As archives from Windows unpack elsewhere.
    (tmp_path / "images" / "2.png").rename(tmp_path / "images\\2.png")
    found = opened(tmp_path, source)
    check(found)
    assert len(found.records("train")["image"]) == 3


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("https://host/a.png", r"image 'https://host/a.png' is a URL; download the images first, and name their files"),
        ("s3://bucket/" + "a" * 5000, r"image 's3://bucket/a+\.\.\.a+' is a URL"),
        ("data:image/png;base64,AAAA", "is a URL"),
        ("C:\\images\\0.png", r"image 'C:\\images\\0.png' is absolute; .*below image_root \('strip_prefix' removes"),
        ("\\\\server\\share\\0.png", "is absolute"),
        ("..\\0.png", "leads out of image_root"),
        ("a\\..\\..\\0.png", "leads out of image_root"),
    ],
)
def test_paths_that_cannot_be_read(tmp_path, path, message):
    with pytest.raises(BenchError, match=message) as error:
        check(opened(tmp_path, manifest(tmp_path, {"image": path})))
    assert len(str(error.value)) < 300


def test_a_message_does_not_grow_with_a_cell(tmp_path):
    rows = [{"id": "x" * 100_000}] * 2
    with pytest.raises(BenchError, match=r"row 3: id 'x+\.\.\.x+' is already used in rows.csv, row 2$") as error:
        check(opened(tmp_path, manifest(tmp_path, *rows, columns={"id": "id"})))
    assert len(str(error.value)) < 700


def test_a_url_in_the_place_of_a_file(tmp_path):
    source = {"kind": "manifest", "file": "https://host/rows.csv", "columns": {"image": "image"}, "split": {"train": 1}}
    with pytest.raises(BenchError, match=r"'https:/host/rows.csv' is a URL; download it first"):
        check(opened(tmp_path, source))


def test_numbers_in_the_names_of_files(tmp_path):
    images(tmp_path / "images", 2)
    (tmp_path / "images" / "1.png").rename(tmp_path / "images" / "1.0.png")
    rows = [{"n": "0.0"}, {"n": "1.0"}]
    source = manifest(tmp_path / "other", *rows, columns={"image": "images/{n}.png", "id": "n"})
    (tmp_path / "other" / "rows.csv").rename(tmp_path / "rows.csv")
    found = opened(tmp_path, source)
    check(found)
    assert column(found, "train", "id") == ["0", "1"]


def test_names_as_they_are_written():
    assert names_in(" a ") == ["a"]
    assert names_in('["a", null]') == ["a", ""]
    assert names_in("[not a list]") == ["[not a list]"]
    assert names_in(2.0) == ["2"]


@pytest.mark.parametrize(
    ("cells", "classes", "multi_label"),
    [
        (["1", "2.0", " 1.0", "nan"], ["1", "2"], False),
        (["Mass|Effusion", "Mass", "No Finding"], ["Effusion", "Mass", "No Finding"], True),
        (["Mass, Effusion", "Mass", "Effusion", "Nodule, solid"], ["Effusion", "Mass", "Nodule, solid"], True),
        (["None", "caf\u00e9", "cafe\u0301"], ["None", "caf\u00e9"], False),
    ],
)
def test_a_card_that_is_inferred_reads_its_data(tmp_path, cells, classes, multi_label):
    manifest(tmp_path, *({"label": cell} for cell in cells))
    card, _ = infer_card(tmp_path / "rows.csv")
    assert (card["classes"], card.get("multi_label", False)) == (classes, multi_label)
    check(opened(tmp_path, card.pop("source"), **card))
