"""Hostile input: a clear error or a skipped row, nothing outside the cache touched."""

import gzip
import io
import os
import struct
import tarfile
import tracemalloc
import zlib
from zipfile import ZIP_DEFLATED, ZipFile

import h5py
import numpy as np
import openpyxl
import pytest
from PIL import Image

from benchmark.common.errors import BenchError
from benchmark.data.card import load_card
from benchmark.data.check import check
from benchmark.data.dataset import open_dataset
from benchmark.data.prepared import prepare
from benchmark.data.sources import formats
from benchmark.data.tools.contact_sheet import contact_sheet
from tests.data.make import PAIRS, dataset, images, pairs, pixels, write_card, write_csv, write_jsonl


def tree(folder):
    return {str(path): path.lstat().st_size for path in folder.rglob("*") if "cache" not in path.parts}


def bomb(width, height):
    """A PNG of a few kilobytes that claims to be ``width`` x ``height`` pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


def test_decompression_bombs(tmp_path):
    rows = pairs(tmp_path, 6)
    (tmp_path / "images" / "0.png").write_bytes(bomb(60000, 60000))
    left = dataset(tmp_path, rows, on_bad_data="skip")
    check(left)
    assert left.left_out == {"image is too large": 1}
    with pytest.raises(BenchError, match=r"row 1: image 'images/0.png' is refused: .* bomb"):
        check(dataset(tmp_path, rows))


@pytest.fixture
def peak():
    """The most memory that Python held since the test began, in bytes."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize(("suffix", "newlines"), [(".jsonl", False), (".csv", False), (".csv", True)])
def test_a_caption_that_unfolds_to_any_length(tmp_path, monkeypatch, peak, suffix, newlines):
    monkeypatch.setattr(formats, "MAX_ROW", 1 << 18)
    rows = pairs(tmp_path, 3, ["train"])
    write_jsonl(tmp_path / "rows", rows) if suffix == ".jsonl" else write_csv(tmp_path / "rows", rows)
    lines = (tmp_path / "rows").read_bytes().splitlines(keepends=True)
    long = (b"x\n" if newlines else b"xx") * 15_000_000
    lines[-1:-1] = [b'{"id": "' + long + b'"}\n' if suffix == ".jsonl" else b'"' + long + b'",a,b,c,train\n']
    with gzip.open(tmp_path / f"rows{suffix}.gz", "wb", 1) as file:
        file.writelines(lines)
    source = {"kind": "manifest", "file": f"rows{suffix}.gz", "columns": PAIRS}
    del long, lines
    tracemalloc.reset_peak()
    with pytest.raises(BenchError, match=rf"^rows{suffix}.gz, row [34]: .*a row of more than 262,144 "):
        check(open_dataset(write_card(tmp_path, source), cache=tmp_path / "cache"))
    assert peak() < 1 << 23
    if suffix == ".jsonl":
        left = open_dataset(write_card(tmp_path, source), "skip", tmp_path / "cache")
        assert left.left_out == {"row is too long": 1}
        assert len(left.rows("train")) == 3
        assert peak() < 1 << 23


def test_captions_have_a_length(tmp_path):
    rows = pairs(tmp_path, 3, ["train"])
    rows[1]["text"] = "x" * (1 << 20)
    check(dataset(tmp_path, rows))
    rows[1]["text"] += "x"
    with pytest.raises(BenchError, match=r"rows.jsonl, row 2: a text of 1,048,577 characters; expected at most 1,048"):
        check(dataset(tmp_path, rows))
    (tmp_path / "train.txt").write_text(rows[1]["text"])
    columns = {name: column for name, column in PAIRS.items() if name != "text"}
    with pytest.raises(BenchError, match=r"row 1: a text of 1,048,577 characters"):
        check(dataset(tmp_path, rows, columns, text_file="{split}.txt"))


@pytest.mark.parametrize("damage", ["cut", "flip"])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_damaged_packed_table(tmp_path, suffix, damage):
    rows = [row | {"text": str(np.random.default_rng(i).bytes(2000))} for i, row in enumerate(pairs(tmp_path, 9))]
    write_jsonl(tmp_path / "rows", rows) if suffix == ".jsonl" else write_csv(tmp_path / "rows", rows)
    content = bytearray(gzip.compress((tmp_path / "rows").read_bytes()))
    content[len(content) // 2] ^= 255
    (tmp_path / f"rows{suffix}.gz").write_bytes(content[:-2000] if damage == "cut" else content)
    card = write_card(tmp_path, {"kind": "manifest", "file": f"rows{suffix}.gz", "columns": PAIRS})
    with pytest.raises(BenchError, match=rf"^rows{suffix}.gz(: cannot be read|, row \d+: )"):
        check(open_dataset(card, cache=tmp_path / "cache"))


def test_an_excel_file_that_unfolds(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MAX_DOCUMENT", 1000)
    book = openpyxl.Workbook()
    book.active.append(["image"])
    book.save(tmp_path / "rows.xlsx")
    source = {"kind": "manifest", "file": "rows.xlsx", "columns": {"image": "image"}, "split": {"train": 1}}
    with pytest.raises(BenchError, match=r"^rows.xlsx: unpacks to [\d,]+ bytes, more than 1,000; expected CSV$"):
        check(open_dataset(write_card(tmp_path, source), cache=tmp_path / "cache"))


def npy(shape, dtype="|u1"):
    """The header of an array, and a megabyte of it."""
    file = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + bytes(1 << 20)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ((1, 60000, 60000), (1,), "a.npz: train_images: an image has 60000 x 60000 pixels, more than .* bomb"),
        ((2, 8, 8), (1 << 33,), r"a.npz: train_labels: \[8589934592\] of uint8 are more than 268,435,456 bytes"),
        ((2, 8, 8), (1 << 27,), r"a.npz: train_labels: expected shape \[2\], found \[134217728\]"),
    ],
)
def test_arrays_that_unfold(tmp_path, peak, images, labels, message):
    with ZipFile(tmp_path / "a.npz", "w", ZIP_DEFLATED) as archive:
        for name, shape in (("train_images", images), ("train_labels", labels)):
            archive.writestr(f"{name}.npy", npy(shape))
    card = write_card(tmp_path, {"kind": "npz", "file": "a.npz"}, classes=["a", "b"])
    with pytest.raises(BenchError, match=message):
        check(open_dataset(card, cache=tmp_path / "cache"))
    assert peak() < 1 << 24


@pytest.mark.parametrize(
    ("images", "packed", "labels", "message"),
    [
        ((1, 60000, 60000), (1, 1000, 1000), (1,), "x.h5: x: an image has 60000 x 60000 pixels, more than .* bomb"),
        (
            (300000, 64, 64),
            (300000, 64, 64),
            (300000,),
            "x.h5: x: chunks of 1,228,800,000 bytes; expected at most 1,073",
        ),
        ((2, 8, 8), (1, 8, 8), (1 << 33,), "y.h5: y: 8,589,934,592 bytes, more than 268,435,456"),
    ],
)
def test_arrays_of_hdf5_that_unfold(tmp_path, peak, images, packed, labels, message):
    for name, shape, chunks in (("x", images, packed), ("y", labels, True)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset(name, shape, np.uint8, chunks=chunks, compression="gzip")
    source = {"kind": "h5", "files": {"train": {"images": "x.h5", "labels": "y.h5"}}}
    with pytest.raises(BenchError, match=message):
        check(open_dataset(write_card(tmp_path, source, classes=["a", "b"]), cache=tmp_path / "cache"))
    assert peak() < 1 << 24


def test_nothing_outside_is_read_or_written(tmp_path):
    folder = tmp_path / "set"
    rows = pairs(folder, 6)
    secret = tmp_path / "secret.png"
    Image.fromarray(pixels(9)).save(secret)
    for i, path in enumerate(("../secret.png", str(secret), "images/../../secret.png", "C:\\secret.png")):
        rows[i]["image"] = path
    before = tree(tmp_path)
    left = dataset(folder, rows, on_bad_data="skip")
    check(left, 8)
    assert left.left_out == {"image outside the folder": 4}
    after = tree(tmp_path)
    assert set(after) - set(before) == {str(folder / "rows.jsonl"), str(folder / "set.yaml")}
    assert all(after[path] == before[path] for path in before)


def test_loops_of_links(tmp_path):
    for name in ("cat", "dog"):
        images(tmp_path / "root" / "train" / name, 2)
    (tmp_path / "root" / "train" / "cat" / "loop").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "train" / "cat" / "self.png").symlink_to("self.png")
    card = write_card(tmp_path, {"kind": "image_folder", "root": "root"}, classes=["cat", "dog"])
    left = open_dataset(card, "skip", tmp_path / "cache")
    check(left)
    assert left.left_out == {"missing image": 1}
    assert len(left.records("train")) == 4


def test_texts_that_mean_something_elsewhere(tmp_path):
    """Formulae, markup, control characters of a terminal and texts of any length are texts."""
    texts = [
        '=HYPERLINK("http://evil")',
        "<script>alert(1)</script>",
        "[red]bold[/red] \x1b[31m",
        "a" * 100_000,
        "$\\frac{1}{0}$ {} %s",
        "\u202eright to left",
    ]
    rows = [row | {"text": text} for row, text in zip(pairs(tmp_path, 6, ["train"]), texts)]
    write_csv(tmp_path / "rows.csv", rows)
    card = write_card(tmp_path, {"kind": "manifest", "file": "rows.csv", "columns": PAIRS})
    found = open_dataset(card, cache=tmp_path / "cache")
    assert [text for (text,) in found.table("train")["text"].to_pylist()] == texts
    assert prepare(found, "train", 8, found.cache).text == [[text] for text in texts]
    contact_sheet(found, "train", tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size[0] > 100


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"id": "x", "image": "images/0.png", "text": "a\\u0000b", "patient": "p", "split": "train"}', "NUL byte"),
        (b'{"id": "x", "image": "images/0.png", "text": "\xe9", "patient": "p", "split": "train"}', "not UTF-8"),
        (b'{"id": "x", "image": "images\\u0000/0.png", "text": "a", "patient": "p", "split": "train"}', "NUL byte"),
        (b"[" * 100_000, "malformed JSON"),
    ],
)
def test_bad_bytes_in_a_manifest(tmp_path, content, reason):
    made = dataset(tmp_path, pairs(tmp_path, 3, ["train"]))
    path = tmp_path / "rows.jsonl"
    path.write_bytes(path.read_bytes() + content + b"\n")
    left = open_dataset(made.card, "skip", tmp_path / "cache")
    check(left)
    assert left.left_out == {reason: 1}
    assert len(left.records("train")) == 3
    with pytest.raises(BenchError, match=r"rows.jsonl, row 4"):
        check(open_dataset(made.card, "error", tmp_path / "cache"))


@pytest.mark.parametrize(
    ("key", "value"), [("text", "\ud800"), ("id", "a\udfff"), ("patient", "\ud800"), ("image", "images/\ud800.png")]
)
def test_half_of_a_surrogate_pair(tmp_path, key, value):
    rows = pairs(tmp_path, 3, ["train"])
    rows[1][key] = value
    left = dataset(tmp_path, rows, on_bad_data="skip")
    check(left)
    assert left.left_out == {"not UTF-8": 1}
    assert len(left.rows("train")) == 2
    with pytest.raises(BenchError, match=r"^rows.jsonl, row 2: not UTF-8: '.*\\ud"):
        check(dataset(tmp_path, rows))


def test_a_file_whose_name_is_not_utf8(tmp_path):
    for name in ("cat", "dog"):
        images(tmp_path / "root" / name, 2)
    (tmp_path / "root" / "cat" / "0.png").rename(tmp_path / "root" / "cat" / os.fsdecode(b"caf\xe9.png"))
    source = {"kind": "image_folder", "root": "root", "split": {"train": 1}}
    left = open_dataset(write_card(tmp_path, source, classes=["cat", "dog"]), "skip", tmp_path / "cache")
    check(left)
    assert left.left_out == {"not UTF-8": 1}
    assert len(left.rows("train")) == 3


def test_a_folder_in_the_place_of_a_manifest(tmp_path):
    (tmp_path / "rows.jsonl").mkdir()
    card = write_card(tmp_path, {"kind": "manifest", "file": "rows.jsonl", "columns": PAIRS})
    with pytest.raises(BenchError, match=r"rows.jsonl: cannot be read: Is a directory"):
        check(open_dataset(card, cache=tmp_path / "cache"))


def test_a_pickle_in_an_npz_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "run"),))

    np.savez(tmp_path / "a.npz", train_images=np.array([Evil()], dtype=object), train_labels=np.array([[0]]))
    card = write_card(tmp_path, {"kind": "npz", "file": "a.npz"}, classes=["a", "b"])
    with pytest.raises(BenchError, match=r"Object arrays cannot be loaded"):
        check(open_dataset(card, cache=tmp_path / "cache"))
    assert not (tmp_path / "run").exists()


def test_a_card_runs_nothing(tmp_path):
    (tmp_path / "evil.yaml").write_text(f"source: !!python/object/apply:os.mkdir ['{tmp_path / 'run'}']\n")
    with pytest.raises(BenchError, match="not valid YAML"):
        load_card(tmp_path / "evil.yaml")
    assert not (tmp_path / "run").exists()


def test_a_huge_member_of_a_shard_is_not_read(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in (("a.jpg", b"x"), ("a.txt", b"good")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        info = tarfile.TarInfo("b.jpg")
        info.size = 1 << 40
        tar.addfile(info)
    source = {"kind": "webdataset", "shards": {"train": ["a.tar"]}, "columns": {"image": "image", "text": "txt"}}
    with pytest.raises(BenchError, match=r"a.tar: cannot be read as a tar file: member 'b.jpg' has 1,099,511,627,776"):
        check(open_dataset(write_card(tmp_path, source), cache=tmp_path / "cache"))
