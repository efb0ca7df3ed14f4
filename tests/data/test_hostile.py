"""Hostile input: a clear error or a skipped row, nothing outside the cache touched."""

import io
import os
import struct
import tarfile
import zlib

import numpy as np
import pytest
from PIL import Image

from benchmark.data.card import load_card
from benchmark.data.dataset import open_dataset
from benchmark.data.prepared import prepare
from benchmark.data.show import contact_sheet
from benchmark.errors import BenchError
from tests.data.make import PAIRS, dataset, images, pairs, pixels, write_card, write_csv


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
    left.check()
    assert left.left_out == {"image is too large": 1}
    with pytest.raises(BenchError, match=r"row 1: image 'images/0.png' is refused: .* bomb"):
        dataset(tmp_path, rows).check()


def test_nothing_outside_is_read_or_written(tmp_path):
    folder = tmp_path / "set"
    rows = pairs(folder, 6)
    secret = tmp_path / "secret.png"
    Image.fromarray(pixels(9)).save(secret)
    for i, path in enumerate(("../secret.png", str(secret), "images/../../secret.png", "C:\\secret.png")):
        rows[i]["image"] = path
    before = tree(tmp_path)
    left = dataset(folder, rows, on_bad_data="skip")
    left.check(8)
    assert left.left_out == {"image outside the folder": 4}
    after = tree(tmp_path)
    assert set(after) - set(before) == {str(folder / "rows.jsonl"), str(folder / "set.yaml")}
    assert all(after[path] == before[path] for path in before)


def test_loops_of_links(tmp_path):
    for name in ("cat", "dog"):
        images(tmp_path / "root" / "train" / name, 2)
    os.symlink(tmp_path / "root", tmp_path / "root" / "train" / "cat" / "loop")
    os.symlink("self.png", tmp_path / "root" / "train" / "cat" / "self.png")
    card = write_card(tmp_path, {"kind": "image_folder", "root": "root"}, classes=["cat", "dog"])
    left = open_dataset(card, "skip", tmp_path / "cache")
    left.check()
    assert left.left_out == {"missing image": 1} and len(left.records("train")) == 4


def test_texts_that_mean_something_elsewhere(tmp_path):
    """Formulae, markup, control characters of a terminal and texts of any length are texts."""
    texts = ['=HYPERLINK("http://evil")', "<script>alert(1)</script>", "[red]bold[/red] \x1b[31m", "a" * 100_000,
             "$\\frac{1}{0}$ {} %s", "\u202eright to left"]  # fmt: skip
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
)  # fmt: skip
def test_bad_bytes_in_a_manifest(tmp_path, content, reason):
    made = dataset(tmp_path, pairs(tmp_path, 3, ["train"]))
    path = tmp_path / "rows.jsonl"
    path.write_bytes(path.read_bytes() + content + b"\n")
    left = open_dataset(made.card, "skip", tmp_path / "cache")
    left.check()
    assert left.left_out == {reason: 1} and len(left.records("train")) == 3
    with pytest.raises(BenchError, match=r"rows.jsonl, row 4"):
        open_dataset(made.card, "error", tmp_path / "cache").check()


def test_utf16(tmp_path):
    made = dataset(tmp_path, pairs(tmp_path, 3))
    path = tmp_path / "rows.jsonl"
    path.write_text(path.read_text(), encoding="utf-16")
    with pytest.raises(BenchError, match=r"rows.jsonl: is UTF-16; expected UTF-8"):
        open_dataset(made.card, "skip", tmp_path / "cache").check()


def test_a_folder_in_the_place_of_a_manifest(tmp_path):
    (tmp_path / "rows.jsonl").mkdir()
    card = write_card(tmp_path, {"kind": "manifest", "file": "rows.jsonl", "columns": PAIRS})
    with pytest.raises(BenchError, match=r"rows.jsonl: cannot be read: Is a directory"):
        open_dataset(card, cache=tmp_path / "cache").check()


def test_a_pickle_in_an_npz_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "run"),))

    np.savez(tmp_path / "a.npz", train_images=np.array([Evil()], dtype=object), train_labels=np.array([[0]]))
    card = write_card(tmp_path, {"kind": "npz", "file": "a.npz"}, classes=["a", "b"])
    with pytest.raises(BenchError, match=r"Object arrays cannot be loaded"):
        open_dataset(card, cache=tmp_path / "cache").check()
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
        open_dataset(write_card(tmp_path, source), cache=tmp_path / "cache").check()
