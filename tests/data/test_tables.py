"""Tables in other formats than plain CSV and JSON Lines, and what their sources make of them."""

import json
import tarfile

import datasets
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmark.common.errors import BenchError
from benchmark.data.check import check
from benchmark.data.sources.columns import fill, template_columns
from benchmark.data.sources.reports import report_sections
from tests.data.make import SHARDS, images, jpeg, opened, pixels, shard, write_csv

CLASSES = ["normal", "benign"]


def column(found, split, name):
    return found.records(split).select_columns([name])[:][name]


def test_webdataset(tmp_path):
    for part in range(2):
        sample = [
            (f"a/{part}.jpg", jpeg(part)),
            (f"a/{part}.txt", f"text {part}".encode()),
            (f"a/{part}.json", json.dumps({"patient": f"p{part}"}).encode()),
        ]
        shard(tmp_path / f"train-{part}.tar", sample)
    shard(tmp_path / "test.tar", [("b.PNG", b"broken"), ("b.txt", b"broken")])
    columns = SHARDS["columns"] | {"group": "patient"}
    found = opened(tmp_path, SHARDS | {"columns": columns, "shards": {"train": ["train-*.tar"]}})
    assert column(found, "train", "id") == ["a/0", "a/1"]
    assert column(found, "train", "group") == ["p0", "p1"]
    assert column(found, "train", "text") == [["text 0"], ["text 1"]]
    broken = opened(tmp_path, SHARDS | {"shards": {"train": ["train-*.tar"], "test": ["test.tar"]}})
    with pytest.raises(BenchError, match=r"^test.tar, row 1: the image cannot be decoded: no known image format"):
        check(broken)


@pytest.mark.parametrize("name", ["../../evil.jpg", "/etc/evil.jpg", "a/../../evil.jpg"])
def test_nothing_leaves_a_shard(tmp_path, name):
    folder = tmp_path / "data"
    folder.mkdir()
    shard(folder / "a.tar", [("a.jpg", jpeg(0)), ("a.txt", b"good"), (name, jpeg(1))])
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    source = SHARDS | {"shards": {"train": ["a.tar"]}}
    with pytest.raises(BenchError, match=r"absolute|leads out"):
        check(opened(folder, source))
    left = opened(folder, source, "skip")
    check(left)
    assert left.left_out == {"image outside the folder": 1}
    assert column(left, "train", "id") == ["a"]
    after = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    assert after - before == {folder / "set.yaml"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_shard(tmp_path, kind):
    shard(tmp_path / "a.tar", [("a.jpg", jpeg(0)), ("a.txt", b"good"), ("b.jpg", (kind, "/etc/passwd"))])
    left = opened(tmp_path, SHARDS | {"shards": {"train": ["a.tar"]}}, "skip")
    check(left)
    assert left.left_out == {"not a file": 1}
    assert len(left.records("train")) == 1


def test_a_shard_that_ends_too_early(tmp_path):
    shard(tmp_path / "a.tar", [("a.jpg", jpeg(0)), ("a.txt", b"x" * 5000)])
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:2000])
    with pytest.raises(BenchError, match=r"a.tar: cannot be read as a tar file"):
        check(opened(tmp_path, SHARDS | {"shards": {"train": ["a.tar"]}}))


def table(labels=(0, 1, 0)):
    label = datasets.ClassLabel(names=["benign", "normal"])
    features = datasets.Features({"image": datasets.Image(), "label": label, "text": datasets.Value("string")})
    images = [{"bytes": jpeg(i), "path": None} for i in range(3)]
    return datasets.Dataset.from_dict({"image": images, "label": labels, "text": ["a", "b", "c"]}, features)


def saved(folder):
    data = table()
    datasets.DatasetDict({"train": data, "validation": data.select([0])}).save_to_disk(str(folder / "saved"))


HUB = {
    "kind": "hub",
    "path": "saved",
    "splits_of": {"train": "train"},
    "columns": {"image": "image", "label": "label", "text": "text"},
}


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("asked the network")

    monkeypatch.setattr("socket.socket.connect", refuse)


def test_a_saved_dataset(tmp_path, no_network):
    saved(tmp_path)
    found = opened(tmp_path, HUB, classes=CLASSES)
    # By name: the numbers of the set are in another order than the card's.
    assert column(found, "train", "label") == [1, 0, 1]
    assert np.asarray(found.records("train")["image"][2]).shape == (10, 12, 3)
    with pytest.raises(BenchError, match=r"unknown split 'trian'; did you mean 'train'"):
        check(opened(tmp_path, HUB | {"splits_of": {"train": "trian"}}, classes=CLASSES))
    (tmp_path / "other").mkdir()
    with pytest.raises(BenchError, match=r"other: cannot be read as a saved dataset"):
        check(opened(tmp_path, HUB | {"path": "other"}, classes=CLASSES))


def test_a_saved_table(tmp_path, no_network):
    def save(*rows):
        table().select(rows).save_to_disk(str(tmp_path / "saved"))
        return opened(tmp_path, HUB, classes=CLASSES)

    found = save(0, 1)
    assert column(found, "train", "text") == [["a"], ["b"]]
    assert column(found, "train", "label") == [1, 0]
    again = save(0, 2)
    assert column(again, "train", "text") == [["a"], ["c"]]
    assert again.fingerprint != found.fingerprint
    drawn = opened(tmp_path, HUB | {"split": {"train": 0.5, "test": 0.5}}, classes=CLASSES)
    assert [len(drawn.records(split)) for split in drawn.splits()] == [1, 1]
    with pytest.raises(BenchError, match=r"saved: holds one table; expected one of 'splits_of', and 'split' with"):
        check(opened(tmp_path, HUB | {"splits_of": {"train": "train", "test": "test"}}, classes=CLASSES))


PARQUET = {
    "kind": "manifest",
    "files": {"train": "part-*.parquet"},
    "columns": {"image": "image", "label": "label", "text": "text"},
}


def test_a_parquet_folder(tmp_path, no_network):
    for part in range(2):
        table().select([part]).to_parquet(str(tmp_path / f"part-{part}.parquet"))
    found = opened(tmp_path, PARQUET, classes=CLASSES)
    # By name, as above.
    assert column(found, "train", "text") == [["a"], ["b"]]
    assert column(found, "train", "label") == [1, 0]
    assert np.asarray(found.records("train")["image"][1]).shape == (10, 12, 3)
    (tmp_path / "part-1.parquet").write_bytes(b"PAR1")
    with pytest.raises(BenchError, match=r"part-1.parquet: cannot be read as Parquet"):
        check(opened(tmp_path, PARQUET, classes=CLASSES))


def test_class_numbers_in_parquet(tmp_path):
    data = table([None, -1, 1]).data.table
    data = data.set_column(1, "label", pa.array([None, -1, 2]))
    pq.write_table(data, tmp_path / "part-0.parquet")
    message = r"^part-0.parquet, row 3: class number 2; the file has names for 0 to 1$"
    with pytest.raises(BenchError, match=message):
        check(opened(tmp_path, PARQUET, classes=CLASSES))
    assert column(opened(tmp_path, PARQUET, "skip", classes=CLASSES), "train", "label") == [-1, -1]
    # Where names are there already, and where nothing says the names, in which case numbers are the card's.
    named = data.set_column(1, "label", pa.array(["normal", "benign", None]))
    pq.write_table(named.select(["image", "text", "label"]), tmp_path / "part-0.parquet")
    assert column(opened(tmp_path, PARQUET, classes=CLASSES), "train", "label") == [0, 1, -1]
    pq.write_table(table().data.table.replace_schema_metadata(None), tmp_path / "part-0.parquet")
    assert column(opened(tmp_path, PARQUET, classes=CLASSES), "train", "label") == [0, 1, 0]


def test_a_hub_that_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    source = {key: value for key, value in HUB.items() if key != "path"} | {"name": "nobody/nothing", "revision": "abc"}
    found = opened(tmp_path, source, classes=CLASSES)
    assert not found.card.source.is_present()
    message = r"^dataset 'nobody/nothing', split 'train': neither in the local cache nor reachable \(HF_HUB_OFFLINE .*$"
    with pytest.raises(BenchError, match=message) as caught:
        check(found)
    assert "\n" not in str(caught.value)


def h5(folder, **change):
    arrays = {"x": np.stack([pixels(i, 8, 8) for i in range(3)]), "y": np.array([[0], [1], [1]])} | change
    for name, array in arrays.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file[name] = array
    return {"kind": "h5", "files": {"test": {"images": "x.h5", "labels": "y.h5"}}}


def test_h5(tmp_path):
    found = opened(tmp_path, h5(tmp_path), classes=CLASSES)
    assert column(found, "test", "label") == [0, 1, 1]
    assert found.splits() == ["test"]
    np.testing.assert_array_equal(np.asarray(found.records("test")["image"][1]), pixels(1, 8, 8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((3, 8, 8))}, r"x.h5: x: expected uint8 \[N, H, W\]"),
        ({"y": np.array([0, 1])}, "x.h5: 3 images where there are 2 labels"),
        ({"y": np.array([0, 1, 2])}, r"x.h5, x\[2\]: class number 2; expected 0 to 1"),
        ({"y": np.array([0.5, 1, 2])}, "y.h5: y: expected class numbers, found float64"),
    ],
)
def test_bad_h5(tmp_path, change, message):
    with pytest.raises(BenchError, match=message):
        check(opened(tmp_path, h5(tmp_path, **change), classes=CLASSES))


def test_h5_that_is_none(tmp_path):
    source = h5(tmp_path)
    (tmp_path / "y.h5").write_bytes(b"no")
    with pytest.raises(BenchError, match=r"y.h5: cannot be read as HDF5"):
        check(opened(tmp_path, source, classes=CLASSES))
    source = h5(tmp_path) | {"label_key": "z"}
    with pytest.raises(BenchError, match=r"y.h5: unknown array 'z'"):
        check(opened(tmp_path, source, classes=CLASSES))


def test_templates():
    values = {"a": "12345", "clinical-description": "x", "empty": None, "number": 7}
    assert fill("f/p{a:.2}/{a}/{number}.jpg", values) == "f/p12/12345/7.jpg"
    assert fill("{empty} {clinical-description}", values) == "x"
    assert fill("a", values) == "12345"
    assert template_columns("p{a:.2}/{b c}.jpg") == ["a", "b c"]
    # Not str.format(): attributes are out of reach.
    assert fill("{a.__class__}", values) == ""
    for wrong in ("{a!r}", "{a:>9999999}", "{}", "{a"):
        with pytest.raises(ValueError, match=r"expected \{column\} or|expected '\}' before end of string"):
            template_columns(wrong)


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("FINDINGS:\n a\n  b\n\nIMPRESSION: c", "a b c"),
        ("IMPRESSION: c\nFINDINGS: a", "a c"),
        ("FINDINGS AND IMPRESSION: both\nOTHER: x", "both"),
        ("FINDINGS: at 3:15, see: x\nNOTIFICATION: y", "at 3:15, see: x"),
        ("INDICATION: findings suspected\nnothing", ""),
        ("FINDINGS:\n\nIMPRESSION:\n", ""),
        ("", ""),
    ],
)
def test_sections_of_reports(report, expected):
    assert report_sections(report, ["findings", "impression"]) == expected


def labelled(folder, rows, **source):
    images(folder / "images", 3)
    write_csv(folder / "rows.csv", rows)
    return {
        "kind": "manifest",
        "file": "rows.csv",
        "columns": {"image": "image", "label": "y"},
        "split": {"test": 1.0},
    } | source


def test_one_row_per_value_is_the_first_that_can_be_used(tmp_path):
    images(tmp_path, 4)
    of = [("s1", "lateral"), ("s1", "frontal"), ("s1", "frontal"), ("s2", "frontal")]
    rows = [{"image": f"{i}.png", "study": study, "view": view} for i, (study, view) in enumerate(of)]
    write_csv(tmp_path / "rows.csv", rows)
    source = {"kind": "manifest", "file": "rows.csv", "columns": {"image": "image"}, "split": {"test": 1.0}}
    source |= {"where": {"view": "frontal"}, "one_per": "study"}
    assert column(opened(tmp_path, source), "test", "id") == ["1.png", "3.png"]
    with pytest.raises(BenchError, match="one_per: unknown column 'studies'; did you mean 'study'"):
        check(opened(tmp_path, source | {"one_per": "studies"}))


def test_images_with_several_classes(tmp_path):
    rows = [{"image": "images/0.png", "y": y} for y in ("normal", "benign")]
    rows += [{"image": "images/1.png", "y": "['benign']"}, {"image": "images/2.png", "y": "['normal', 'benign']"}]
    with pytest.raises(BenchError, match=r"\(an image with two labels: 1, several classes: 1\)"):
        check(opened(tmp_path, labelled(tmp_path, rows), classes=CLASSES))
    found = opened(tmp_path, labelled(tmp_path, rows, several="leave_out"), classes=CLASSES)
    assert column(found, "test", "id") == ["images/1.png"]
    assert column(found, "test", "label") == [1]
    for several, expected in (("any", [1, 1]), ("majority", [0, 0])):
        many = opened(tmp_path, labelled(tmp_path, rows, several=several), classes=CLASSES, multi_label=True)
        assert column(many, "test", "label")[0] == expected


def test_an_ambiguous_name(tmp_path):
    images(tmp_path / "other" / "a", 1)
    images(tmp_path / "other" / "b", 2)
    source = labelled(tmp_path, [{"image": "0.png", "y": "benign"}, {"image": "1.png", "y": "benign"}])
    source |= {"find": True, "image_root": "other"}
    left = opened(tmp_path, source, "skip", classes=CLASSES)
    check(left)
    assert left.left_out == {"ambiguous image": 1}
    source = labelled(tmp_path, [{"image": "gone.png", "y": "benign"}]) | {"find": True}
    with pytest.raises(BenchError, match=r"image 'gone.png' does not exist"):
        check(opened(tmp_path, source, classes=CLASSES))


def test_a_join_that_has_no_such_column(tmp_path):
    source = labelled(tmp_path, [{"image": "images/0.png", "y": "benign", "k": 1}])
    write_csv(tmp_path / "more.csv", [{"k": 1, "z": 2}])
    source["join"] = [{"file": "more.csv", "by": ["k"], "columns": ["zz"]}]
    with pytest.raises(BenchError, match=r"more.csv: join: unknown column 'zz'; did you mean 'z'"):
        check(opened(tmp_path, source, classes=CLASSES))
