import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.common.errors import BenchError
from benchmark.data.check import check
from benchmark.data.dataset import open_dataset
from benchmark.data.problems import BadRow
from benchmark.data.records import Row
from benchmark.data.sources.base import Fractions
from benchmark.data.sources.values import relative_path
from tests.data.make import PAIRS, QUESTIONS, dataset, images, pairs, questions, write_card, write_csv, write_jsonl

CLASSES = ["normal", "benign", "malignant"]


def column(found, name, split="train"):
    return found.records(split).select_columns([name])[:][name]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_pairs(tmp_path, suffix):
    rows = pairs(tmp_path)
    if suffix == ".tsv":
        text = "\n".join("\t".join(row.values()) for row in [dict(zip(rows[0], rows[0])), *rows])
        (tmp_path / "rows.tsv").write_text(text)
        found = dataset_of(tmp_path, "rows.tsv")
    else:
        found = dataset(tmp_path, rows, suffix=suffix)
    assert found.splits() == ["train", "val", "test"]
    assert found.provides == {"text"}
    assert column(found, "id") == ["r0", "r3"]
    assert column(found, "group", "val") == ["p1", "p4"]
    assert column(found, "text", "test") == [["finding number 2"], ["finding number 5"]]
    assert column(found, "label") == [-1, -1]
    assert found.records("train")[0]["image"].size == (12, 10)
    assert found.records("train")["image"][1].mode == "RGB"


def dataset_of(folder, file, columns=PAIRS, on_bad_data="error", **source):
    card = write_card(folder, {"kind": "manifest", "file": file, "columns": columns, **source})
    return open_dataset(card, on_bad_data, folder / "cache")


def test_csv_with_mark_and_quoted_newlines(tmp_path):
    rows = pairs(tmp_path)
    rows[0]["text"] = 'first line\nsecond, "quoted" line'
    rows[3]["text"] = "=SUM(A1:A9)"
    write_csv(tmp_path / "rows.csv", rows, encoding="utf-8-sig")
    found = dataset_of(tmp_path, "rows.csv")
    assert column(found, "text") == [['first line\nsecond, "quoted" line'], ["=SUM(A1:A9)"]]


def test_rows_are_counted_in_lines_of_the_file(tmp_path):
    rows = pairs(tmp_path)
    rows[0]["text"] = "one\ntwo\nthree"
    rows[1]["text"] = "four\nfive"
    rows[1]["image"] = "images/gone.png"
    with pytest.raises(
        BenchError, match=r"^rows.csv, row 5: image 'images/gone.png' does not exist \(looked in /.*\)$"
    ):
        check(dataset(tmp_path, rows, suffix=".csv"))
    write_jsonl(tmp_path / "rows.jsonl", rows)
    path = tmp_path / "rows.jsonl"
    path.write_text("\n\n" + path.read_text())
    with pytest.raises(BenchError, match=r"^rows.jsonl, row 4: image"):
        check(dataset_of(tmp_path, "rows.jsonl"))


def test_json_lines_with_mark_and_any_newlines(tmp_path):
    rows = pairs(tmp_path)
    rows[0]["text"] = "a \u2028 b"
    content = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert column(dataset_of(tmp_path, "rows.jsonl"), "text")[0] == ["a \u2028 b"]


def test_a_file_a_split(tmp_path):
    rows = pairs(tmp_path)
    write_jsonl(tmp_path / "a.jsonl", rows[:4])
    write_csv(tmp_path / "b.csv", rows[4:])
    columns = {name: value for name, value in PAIRS.items() if name != "split"}
    files = {"train": "a.jsonl", "test": "b.csv"}
    card = write_card(tmp_path, {"kind": "manifest", "files": files, "columns": columns})
    found = open_dataset(card, cache=tmp_path / "cache")
    assert found.splits() == ["train", "test"]
    assert [len(found.records(split)) for split in found.splits()] == [4, 2]


def test_names_of_splits(tmp_path):
    rows = pairs(tmp_path)
    for row, name in zip(rows, ["Training", "valid", " test ", "validation", "dev", "testing"]):
        row["split"] = name
    found = dataset(tmp_path, rows)
    assert [len(found.records(split)) for split in ("train", "val", "test")] == [1, 3, 2]


def test_where(tmp_path):
    rows = pairs(tmp_path, 6, ["train"])
    for i, row in enumerate(rows):
        row |= {"language": ["en", "zh", "de"][i % 3], "twin": i < 3}
    assert column(dataset(tmp_path, rows, where={"language": "en"}), "id") == ["r0", "r3"]
    assert column(dataset(tmp_path, rows, where={"language": ["en", "de"], "twin": False}), "id") == ["r3", "r5"]


def test_texts_with_ids(tmp_path):
    rows = pairs(tmp_path, 2, ["test"])
    rows[0] |= {"text": ["one", "two"], "text_id": [7, 8]}
    rows[1] |= {"text": "one", "text_id": 7}
    found = dataset(tmp_path, rows, {**PAIRS, "text_id": "text_id"})
    assert found.splits() == ["test"]
    assert column(found, "text_id", "test") == [["7", "8"], ["7"]]


def test_captions_of_an_image_are_gathered_where_rows_have_no_id(tmp_path):
    rows = pairs(tmp_path, 2, ["train"])
    rows.insert(1, rows[0] | {"text": "another caption"})
    rows.append(dict(rows[2]))
    found = dataset(tmp_path, rows, {name: value for name, value in PAIRS.items() if name != "id"})
    assert column(found, "id") == ["images/0.png", "images/1.png"]
    assert column(found, "text") == [["finding number 0", "another caption"], ["finding number 1"]]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_questions_are_gathered_by_image(tmp_path, suffix):
    found = dataset(tmp_path, questions(tmp_path), QUESTIONS, suffix=suffix)
    record = found.records("train")[0]
    assert len(found.records("train")) == 1
    assert found.provides == {"question"}
    assert record["question"] == ["Is it?", "How many?"]
    assert record["answer"] == ["yes", "2"]
    assert record["answer_type"] == ["closed", "open"]
    assert record["question_type"] == ["what", "count"]
    assert record["id"] == record["group"] == "images/0.png"


def test_answer_types_are_inferred_where_there_is_no_column(tmp_path):
    columns = {name: QUESTIONS[name] for name in ("id", "image", "split", "question", "answer")}
    record = dataset(tmp_path, questions(tmp_path), columns).records("train")[0]
    assert record["answer_type"] == ["closed", "open"]
    assert record["question_type"] == ["", ""]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qid": 1}, "rows.jsonl, row 3: id '1' is already used in rows.jsonl, row 1"),
        ({"split": "test"}, "row 3: image 'images/0.png' has split 'test' here, but 'train' in rows.jsonl, row 1"),
        ({"a": ""}, "row 3: empty answer (column 'a')"),
        ({"t": "opn"}, "row 3: unknown answer_type 'opn'; did you mean 'open'?"),
        ({"q": ["a", "b"]}, "row 3: 2 questions but 1 answers"),
    ],
)
def test_bad_questions(tmp_path, change, message):
    rows = questions(tmp_path)
    rows[2] |= change
    with pytest.raises(BenchError) as caught:
        check(dataset(tmp_path, rows, QUESTIONS))
    assert message in str(caught.value)
    left = dataset(tmp_path, rows, QUESTIONS, on_bad_data="skip")
    assert column(left, "question") == [["Is it?"]]
    assert sum(left.left_out.values()) == 1


def labels(folder, values, columns, on_bad_data="error", suffix=".jsonl", **card):
    images(folder / "images", len(values))
    rows = [{"image": f"images/{i}.png", "split": "train", **value} for i, value in enumerate(values)]
    mapping = {"image": "image", "split": "split", "label": columns}
    return dataset(folder, rows, mapping, on_bad_data, suffix, {"classes": CLASSES, **card})


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize("values", [["malignant", "normal", ""], [2, 0, -1], ["2", "0", "-1"], [2.0, 0.0, ""]])
def test_labels_by_name_and_by_number(tmp_path, values, suffix):
    found = labels(tmp_path, [{"y": value} for value in values], "y", suffix=suffix)
    assert column(found, "label") == [2, 0, -1]


def test_labels_as_lists(tmp_path):
    found = labels(tmp_path, [{"y": ["benign"]}, {"y": []}, {}, {"y": "normal"}], "y")
    assert column(found, "label") == [1, -1, -1, 0]
    several = labels(tmp_path, [{"y": ["malignant", "normal"]}, {"y": []}, {}, {"y": "benign"}], "y", multi_label=True)
    assert column(several, "label") == [[1, 0, 1], [0, 0, 0], [-1, -1, -1], [0, 1, 0]]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_labels_as_columns(tmp_path, suffix):
    values = [
        {"malignant": 1, "normal": 0, "benign": 0},
        {"malignant": "0.0", "normal": "", "benign": "1.0"},
        {"malignant": "false", "normal": -1, "benign": "-1.0"},
    ]
    several = labels(tmp_path, values, ["benign", "normal", "malignant"], suffix=suffix, multi_label=True)
    assert column(several, "label") == [[0, 0, 1], [-1, 1, 0], [-1, -1, 0]]
    assert column(labels(tmp_path, values, CLASSES, suffix=suffix), "label") == [2, 1, -1]


def test_labels_as_columns_of_other_names(tmp_path):
    values = [{"N": 0, "B": 1, "M": 1}]
    mapping = {"malignant": "M", "normal": "N", "benign": "B"}
    assert column(labels(tmp_path, values, mapping, multi_label=True), "label") == [[0, 1, 1]]


@pytest.mark.parametrize(
    ("columns", "value", "message"),
    [
        ("y", {"y": "benin"}, "rows.jsonl, row 2: unknown class 'benin'; did you mean 'benign'? Known: benign, mal"),
        ("y", {"y": 3}, "row 2: class number 3; expected 0 to 2"),
        ("y", {"y": -2}, "row 2: class number -2; expected 0 to 2"),
        ("y", {"y": 0.5}, "row 2: unknown class '0.5'"),
        ("y", {"y": ["normal", "benign"]}, "row 2: 2 classes (normal, benign) where one is expected"),
        ("y", {"y": {"a": 1}}, "row 2: expected a text, found {"),
        (CLASSES, {"normal": 1, "benign": 1, "malignant": 0}, "row 2: 2 classes are 1 where one is expected"),
        (CLASSES, {"normal": 2}, "row 2: column 'normal' is '2'; expected 0, 1, or -1 or nothing (unknown)"),
        (CLASSES, {"normal": "x"}, "row 2: column 'normal' is 'x'"),
    ],
)
def test_bad_labels(tmp_path, columns, value, message):
    good = {"y": "normal", "normal": 1, "benign": 0, "malignant": 0}
    with pytest.raises(BenchError) as caught:
        check(labels(tmp_path, [good, value], columns))
    assert message in str(caught.value)
    found = labels(tmp_path, [good, value], columns, on_bad_data="skip")
    assert column(found, "label") == [0]
    assert sum(found.left_out.values()) == 1


def test_label_columns_must_be_the_classes(tmp_path):
    with pytest.raises(BenchError, match="unknown class 'norml'; did you mean 'normal'"):
        check(labels(tmp_path, [{"norml": 1}], ["norml", "benign", "malignant"]))
    with pytest.raises(BenchError, match="no column for class 'malignant'"):
        check(labels(tmp_path, [{"normal": 1, "benign": 0}], ["normal", "benign"]))


BAD_PAIRS = [
    ({"image": "images/gone.png"}, "missing image", "image 'images/gone.png' does not exist (looked in /"),
    ({"image": ""}, "no image", "no image (column 'image')"),
    ({"image": "/etc/passwd"}, "image outside the folder", "image '/etc/passwd' is absolute"),
    ({"image": "C:\\x.png"}, "image outside the folder", "image 'C:\\x.png' is absolute"),
    ({"image": "images/../../x.png"}, "image outside the folder", "leads out of image_root"),
    ({"image": "images/\0.png"}, "NUL byte", "a NUL byte in image"),
    ({"image": "x" * 5000}, "missing image", "cannot be read: File name too long"),
    ({"text": " \n"}, "empty text", "empty text (column 'text')"),
    ({"text": None}, "empty text", "empty text (column 'text')"),
    ({"text": ["fine", ""]}, "empty text", "empty text (column 'text')"),
    ({"text": "a\0b"}, "NUL byte", "a NUL byte in 'a\\x00b'"),
    ({"text": {"a": 1}}, "wrong type", "expected a text, found {"),
    ({"split": "tets"}, "unknown split", "unknown split 'tets'; did you mean 'test'? Known: test, train, val"),
    ({"split": ""}, "no split", "no split (column 'split')"),
    ({"id": "r0"}, "duplicate id", "id 'r0' is already used in rows.jsonl, row 1"),
    ({"patient": "p0"}, "group in two splits", "group 'p0' is in split 'val' here, but in 'train' in rows.jsonl, row"),
    ({"image": "images/0.png"}, "image in two splits", "image 'images/0.png' is in split 'val' here, but in 'train'"),
]


@pytest.mark.parametrize(("change", "reason", "message"), BAD_PAIRS)
def test_bad_rows(tmp_path, change, reason, message):
    rows = pairs(tmp_path)
    rows[1] |= change
    with pytest.raises(BenchError) as caught:
        check(dataset(tmp_path, rows))
    assert str(caught.value).startswith("rows.jsonl, row 2: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    left = dataset(tmp_path, rows, on_bad_data="skip")
    check(left)
    assert left.left_out == {reason: 1}
    assert column(left, "id", "val") == ["r4"]
    assert column(left, "id") == ["r0", "r3"]


def test_all_bad_rows_are_counted(tmp_path):
    rows = pairs(tmp_path)
    rows[1]["text"] = rows[2]["text"] = ""
    rows[4]["id"] = "r0"
    with pytest.raises(BenchError) as caught:
        check(dataset(tmp_path, rows))
    assert str(caught.value) == (
        "rows.jsonl, row 2: empty text (column 'text')\n"
        "3 rows are bad (empty text: 2, duplicate id: 1); pass --on-bad-data skip to leave them out"
    )


def test_no_row_left(tmp_path):
    rows = pairs(tmp_path)
    for row in rows:
        row["text"] = ""
    with pytest.raises(BenchError, match=r"dataset 'set' has no rows; left out: empty text: 6"):
        check(dataset(tmp_path, rows, on_bad_data="skip"))


@pytest.mark.parametrize(
    ("line", "reason", "message"),
    [
        (b'{"id": "x", ', "malformed JSON", "malformed JSON: Expecting property name"),
        (b"[" * 100_000, "malformed JSON", "malformed JSON: "),
        (b'["a"]', "malformed JSON", "expected a JSON object, found '[\"a\"]'"),
        (b'{"text": "caf\xe9"}', "not UTF-8", "not UTF-8 (byte 0xe9 at column 14); expected UTF-8"),
        (b'{"text": ' + b"9" * 5000 + b"}", "malformed JSON", "malformed JSON: Exceeds the limit"),
    ],
)
def test_bad_lines(tmp_path, line, reason, message):
    write_jsonl(tmp_path / "rows.jsonl", pairs(tmp_path))
    lines = (tmp_path / "rows.jsonl").read_bytes().splitlines()
    lines[3:3] = [line]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(BenchError) as caught:
        check(dataset_of(tmp_path, "rows.jsonl"))
    assert str(caught.value).startswith(f"rows.jsonl, row 4: {message}")
    left = dataset_of(tmp_path, "rows.jsonl", on_bad_data="skip")
    check(left)
    assert left.left_out == {reason: 1}


@pytest.mark.parametrize(
    ("line", "reason", "message"),
    [
        (b"x,images/0.png,caf\xe9,p,train", "not UTF-8", "not UTF-8 (byte 0xe9); expected UTF-8"),
        (b"x,images/0.png,a,p", "wrong number of fields", "4 fields where the header has 5"),
        (b"x,images/0.png,a,b,p,train", "wrong number of fields", "6 fields where the header has 5"),
    ],
)
def test_bad_csv_lines(tmp_path, line, reason, message):
    write_csv(tmp_path / "rows.csv", pairs(tmp_path))
    lines = (tmp_path / "rows.csv").read_bytes().splitlines()
    lines[3:3] = [line]
    (tmp_path / "rows.csv").write_bytes(b"\n".join(lines))
    with pytest.raises(BenchError) as caught:
        check(dataset_of(tmp_path, "rows.csv"))
    assert str(caught.value) == f"rows.csv, row 4: {message}"
    left = dataset_of(tmp_path, "rows.csv", on_bad_data="skip")
    check(left)
    assert left.left_out == {reason: 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,image,text,patient,split\n".encode("utf-16-le"), "rows.csv: is not a text in UTF-8 (NUL bytes); UTF-16 "),
        ("id,image,text,patient,split\n".encode("utf-16")[:-1], "rows.csv: is not UTF-16 as its mark says: truncated"),
        (b'id,image,text,patient,split\nx,i.png,"a"b,p,train\n', "rows.csv, row 2: malformed CSV: "),
        (b'id,image,text,patient,split\nx,i.png,"a,p,train\n', "rows.csv, row 2: malformed CSV: unexpected end"),
        (b"id,image,text,patient,id,split\n", "rows.csv, row 1: column 'id' occurs twice"),
        (b"id,image,txt,patient,split\n", "rows.csv: columns.text: unknown column 'text'; did you mean 'txt'?"),
        (b"", "rows.csv: the file is empty"),
    ],
)
@pytest.mark.parametrize("on_bad_data", ["error", "skip"])
def test_unreadable_csv(tmp_path, content, message, on_bad_data):
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(BenchError) as caught:
        check(dataset_of(tmp_path, "rows.csv", on_bad_data=on_bad_data))
    assert str(caught.value).startswith(message)


def test_long_fields(tmp_path):
    rows = pairs(tmp_path)
    rows[0]["text"] = "word " * 100_000
    assert len(column(dataset(tmp_path, rows, suffix=".csv"), "text")[0][0]) == 499_999


@pytest.mark.parametrize(("name", "value"), [("text", "txt"), ("group", "patien"), ("label", "y"), ("split", "splt")])
def test_a_column_that_is_not_there(tmp_path, name, value):
    columns, card = {**PAIRS, name: value}, {"classes": CLASSES} if name == "label" else {}
    for suffix in (".jsonl", ".csv"):
        with pytest.raises(BenchError, match=f"columns.{name}: unknown column '{value}'") as caught:
            check(dataset(tmp_path, pairs(tmp_path), columns, "skip", suffix, card))
        assert "Known: id, image, patient, split, text" in str(caught.value)
    with pytest.raises(BenchError, match="where: unknown column 'lang'"):
        check(dataset(tmp_path, pairs(tmp_path), where={"lang": "en"}))


def test_a_column_may_be_absent_from_some_lines(tmp_path):
    rows = pairs(tmp_path)
    del rows[3]["patient"]
    assert column(dataset(tmp_path, rows), "group") == ["p0", "images/3.png"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": "gone.jsonl"}, "dataset 'set': 'gone.jsonl' does not exist (looked in /"),
        ({"file": "row.jsonl"}, "; did you mean 'rows.jsonl'?"),
        ({"image_root": "gone"}, "dataset 'set': image_root 'gone' is not a folder (looked in /"),
        ({"file": "rows.doc"}, "'rows.doc': expected a name in .csv, .tsv, .txt, .jsonl"),
        ({"files": {"train": "a.csv"}}, "expected either 'file' or 'files'"),
        ({"split": {"train": 1.0}}, "expected the split in one place"),
        ({"split": "official"}, "'columns.official_split' names none; the split of the card is that of column 'split'"),
        ({"split": "offical"}, "split: 'offical': expected official, or the shares of train, val and test to draw"),
        ({"split": "official", "columns": {**PAIRS, "official_split": "fold"}}, "columns.split: unknown column 'fold'"),
        ({"columns": {**PAIRS, "question": "q"}}, "'question' and 'answer' go together"),
        ({"columns": {**PAIRS, "txt": "q"}}, "unknown key of columns 'txt'; did you mean 'text'?"),
        ({"columns": {"image": "image", "split": "split", "text_id": "t"}}, "'text_id' needs 'text'"),
        ({"fill": 1}, "unknown key 'fill'; did you mean 'file'?"),
    ],
)
def test_bad_sources(tmp_path, change, message):
    write_jsonl(tmp_path / "rows.jsonl", pairs(tmp_path))
    with pytest.raises(BenchError) as caught:
        check(dataset_of(tmp_path, **({"file": "rows.jsonl", "columns": PAIRS} | change)))
    assert message in str(caught.value)


def test_the_official_split_is_used_where_the_card_asks_for_it(tmp_path):
    rows = [row | {"published": ("test", "train")[i % 2]} for i, row in enumerate(pairs(tmp_path))]
    columns = {**PAIRS, "official_split": "published"}
    own, official = (dataset(tmp_path, rows, columns=columns, **split) for split in ({}, {"split": "official"}))
    assert {split: len(own.rows(split)) for split in own.splits()} == {"train": 2, "val": 2, "test": 2}
    assert {split: len(official.rows(split)) for split in official.splits()} == {"train": 3, "test": 3}
    assert official.table("train").column("id").to_pylist() == ["r1", "r3", "r5"]
    named = dataset(tmp_path, rows, columns={**PAIRS, "split": "published"})
    assert official.fingerprint == named.fingerprint != own.fingerprint == dataset(tmp_path, rows).fingerprint


def test_the_official_split_can_be_that_of_the_files(tmp_path):
    rows = pairs(tmp_path)
    for split, of_split in {"train": rows[:4], "test": rows[4:]}.items():
        write_jsonl(tmp_path / f"{split}.jsonl", of_split)
    columns = {key: name for key, name in PAIRS.items() if key != "split"}
    source = {"files": {split: f"{split}.jsonl" for split in ("train", "test")}}
    published = {"columns": {**columns, "official_split": "split"}, "split": "official"}
    data = dataset_of(tmp_path, None, **source, **published)
    assert {split: len(data.rows(split)) for split in data.splits()} == {"train": 4, "test": 2}
    with pytest.raises(BenchError, match=r"'columns\.official_split' names none; the split of the card is test, train"):
        dataset_of(tmp_path, None, **source, columns=columns, split="official")


def test_images_may_be_shared_in_the_official_split_alone(tmp_path):
    rows = [
        row | {"published": split, "id": f"{row['id']}{split}"}
        for row in pairs(tmp_path)
        for split in ("train", "test")
    ]
    asked = {**PAIRS, "official_split": "published", "question": "text", "answer": "patient", "group": "image"}
    columns = {key: name for key, name in asked.items() if key not in ("text", "group")}
    official = dataset(tmp_path, rows, columns=columns, split="official", shared_images="official")
    assert {split: len(official.rows(split)) for split in official.splits()} == {"train": 6, "test": 6}
    assert official.card.source.shares_images()
    own = dataset(tmp_path, rows, columns=columns, shared_images="official")
    assert not own.card.source.shares_images()
    with pytest.raises(BenchError, match="has split 'test' here, but 'train'"):
        check(dataset(tmp_path, rows, columns=columns | {"split": "published"}, shared_images="official"))


def test_paths_are_below_bench_data_or_the_card(tmp_path, monkeypatch):
    data, cards = tmp_path / "data", tmp_path / "cards"
    cards.mkdir()
    rows = pairs(data)
    (data / "tables").mkdir()
    write_jsonl(data / "tables" / "rows.jsonl", rows)
    source = {"kind": "manifest", "file": "tables/rows.jsonl", "image_root": ".", "columns": PAIRS}
    card = write_card(cards, source)
    with pytest.raises(BenchError, match="BENCH_DATA, the folder of your data, is not set"):
        check(open_dataset(card, cache=tmp_path / "cache"))
    monkeypatch.setenv("BENCH_DATA", str(data))
    check(open_dataset(card, cache=tmp_path / "cache"))
    monkeypatch.setenv("BENCH_DATA", str(cards))
    check(open_dataset(write_card(data, source), cache=tmp_path / "cache"))


ABSOLUTE_OR_NOT = st.text(st.sampled_from("ab./\\:C"), min_size=1, max_size=12)


@settings(max_examples=300, deadline=None)
@given(ABSOLUTE_OR_NOT)
def test_no_path_leads_out(path):
    try:
        found = relative_path(path, "image")
    except BadRow:
        return
    root = Path("/root/of/images")
    assert root in (root / found).parents or found == "."
    assert ".." not in Path(found).parts


def rows_of(groups):
    return [Row("f", i, str(i), group, "", "x") for i, group in enumerate(groups)]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([f"g{i}" for i in range(40)]), min_size=1, max_size=200),
    st.sampled_from([(0.7, 0.1, 0.2), (0.5, 0.0, 0.5), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)]),
    st.integers(0, 5),
)
def test_drawn_splits(groups, shares, seed):
    fractions = Fractions(train=shares[0], val=shares[1], test=shares[2], seed=seed)
    rows = rows_of(groups)
    fractions.assign(rows)
    by_group = {}
    for row in rows:
        assert by_group.setdefault(row.group, row.split) == row.split
        assert row.split in fractions.splits()
    # Off by no more than one group at each end.
    largest = max(groups.count(group) for group in groups)
    for split, share in zip(("train", "val", "test"), shares):
        assert abs(sum(row.split == split for row in rows) - share * len(rows)) <= largest
    again = rows_of(groups)[::-1]
    fractions.assign(again)
    assert {row.id: row.split for row in again} == {row.id: row.split for row in rows}


def test_drawn_splits_change_with_the_seed():
    splits = []
    for seed in (0, 0, 1):
        rows = rows_of(f"g{i}" for i in range(50))
        Fractions(train=0.6, test=0.4, seed=seed).assign(rows)
        splits.append([row.split for row in rows])
        assert splits[-1].count("train") == 30
    assert splits[0] == splits[1] != splits[2]


def test_split_by_shares(tmp_path):
    rows = pairs(tmp_path, 10)
    columns = {name: value for name, value in PAIRS.items() if name != "split"}
    found = dataset(tmp_path, rows, columns, split={"train": 0.7, "val": 0.1, "test": 0.2, "seed": 3})
    assert [len(found.records(split)) for split in ("train", "val", "test")] == [7, 1, 2]
    with pytest.raises(BenchError, match=r"must sum to 1; they sum to 0.9"):
        dataset(tmp_path, rows, columns, split={"train": 0.7, "test": 0.2})
