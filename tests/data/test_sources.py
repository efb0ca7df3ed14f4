import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from benchmark.common.errors import BenchError
from benchmark.data import phantom
from benchmark.data.check import check
from benchmark.data.prepared import prepare
from benchmark.store import formats
from tests.data.make import images, opened, pixels

CLASSES = ["cat", "dog"]


def columns(found, split, *names):
    return [tuple(row.values()) for row in found.records(split).select_columns(list(names))]


def test_image_folder(tmp_path):
    for split, count in (("train", 3), ("test", 1)):
        images(tmp_path / "root" / split / "dog" / "deep", count)
        images(tmp_path / "root" / split / "cat", 1)
    (tmp_path / "root" / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "root" / "train" / "dog" / "loop").symlink_to(tmp_path / "root" / "train")
    found = opened(tmp_path, {"kind": "image_folder", "root": "root"}, classes=CLASSES)
    assert found.splits() == ["train", "test"]
    assert found.provides == {"label"}
    assert columns(found, "train", "id", "label") == [
        ("train/cat/0.png", 0),
        ("train/dog/deep/0.png", 1),
        ("train/dog/deep/1.png", 1),
        ("train/dog/deep/2.png", 1),
    ]
    before = found.fingerprint
    images(tmp_path / "root" / "test" / "cat", 2)
    again = opened(tmp_path, {"kind": "image_folder", "root": "root"}, classes=CLASSES)
    assert again.fingerprint != before
    assert len(again.records("test")) == 3


def test_image_folder_with_drawn_split(tmp_path):
    images(tmp_path / "root" / "Felis", 6)
    images(tmp_path / "root" / "dog", 4)
    source = {"kind": "image_folder", "root": "root", "folders": {"cat": "Felis"}, "split": {"train": 0.8, "val": 0.2}}
    found = opened(tmp_path, source, classes=CLASSES)
    assert [len(found.records(split)) for split in found.splits()] == [8, 2]
    labels = dict(columns(found, "train", "id", "label") + columns(found, "val", "id", "label"))
    assert labels == {f"Felis/{i}.png": 0 for i in range(6)} | {f"dog/{i}.png": 1 for i in range(4)}


def test_bad_image_folders(tmp_path):
    images(tmp_path / "root" / "train" / "dgo", 2)
    source = {"kind": "image_folder", "root": "root"}
    message = r"^train/dgo/0.png: unknown class 'dgo'; did you mean 'dog'\? Known: cat, dog\n2 rows are bad"
    with pytest.raises(BenchError, match=message):
        check(opened(tmp_path, source, classes=CLASSES))
    images(tmp_path / "root" / "train", 1)
    images(tmp_path / "root" / "train" / "dog", 1)
    left = opened(tmp_path, source, "skip", classes=CLASSES)
    check(left)
    assert left.left_out == {"unknown class": 2, "no class": 1}
    assert len(left.records("train")) == 1
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(BenchError, match="no image found; expected train/CLASS/IMAGE"):
        check(opened(tmp_path, {"kind": "image_folder", "root": "empty"}, classes=CLASSES))
    with pytest.raises(BenchError, match="'gone' does not exist"):
        check(opened(tmp_path, {"kind": "image_folder", "root": "gone"}, classes=CLASSES))


def arrays(channels=0, labels=((0,), (1,), (1,))):
    pictures = np.stack([pixels(i, 8, 8, channels) for i in range(3)])
    return {
        "train_images": pictures,
        "train_labels": np.array(labels),
        "test_images": pictures[:1],
        "test_labels": np.array(labels)[:1],
    }


@pytest.mark.parametrize("channels", [0, 3])
def test_npz(tmp_path, channels):
    np.savez(tmp_path / "a.npz", **arrays(channels))
    found = opened(tmp_path, {"kind": "npz", "file": "a.npz"}, classes=CLASSES)
    assert found.splits() == ["train", "test"]
    assert found.provides == {"label"}
    assert columns(found, "train", "id", "label") == [("train/0", 0), ("train/1", 1), ("train/2", 1)]
    ready = prepare(found, "train", 8, found.cache)
    expected = arrays(3 if channels else 0)["train_images"]
    expected = expected.transpose(0, 3, 1, 2) if channels else np.repeat(expected[:, None], 3, axis=1)
    np.testing.assert_array_equal(ready.images, expected)


def test_npz_with_many_labels(tmp_path):
    np.savez(tmp_path / "a.npz", **arrays(labels=((0, 1), (1, 1), (0, 0))))
    found = opened(tmp_path, {"kind": "npz", "file": "a.npz"}, classes=CLASSES, multi_label=True)
    assert columns(found, "train", "label") == [([0, 1],), ([1, 1],), ([0, 0],)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": np.zeros((3, 8, 8))}, r"a.npz: train_images: expected uint8 \[N, H, W\] or .* found float64"),
        ({"train_labels": np.zeros((2, 1), int)}, r"a.npz: train_labels: expected shape \[3\], found \[2, 1\]"),
        ({"train_labels": np.array([0, 1, 2])}, r"^a.npz, train_images\[2\]: class number 2; expected 0 to 1$"),
        ({"train_images": np.array([None] * 3)}, r"a.npz: train: Object arrays cannot be loaded"),
    ],
)
def test_bad_npz(tmp_path, change, message):
    np.savez(tmp_path / "a.npz", **(arrays() | change))
    with pytest.raises(BenchError, match=message):
        check(opened(tmp_path, {"kind": "npz", "file": "a.npz"}, classes=CLASSES))


def test_what_is_no_npz(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 not really")
    np.save(tmp_path / "b.npy", np.zeros(3))
    np.savez(tmp_path / "c.npz", train_images=pixels(0)[None], train_label=[0])
    for name, message in (
        ("a.npz", "cannot be read as .npz"),
        ("b.npy", "cannot be read as .npz"),
        ("c.npz", "unknown array 'train_labels'; did you mean 'train_label'"),
    ):
        with pytest.raises(BenchError, match=message):
            check(opened(tmp_path, {"kind": "npz", "file": name}, classes=CLASSES))


def drawn(folder, modality, patients, **card):
    source = {"kind": "phantom", "modality": modality, "patients": patients, "size": 32}
    return opened(folder, source, **card)


def card_of(modality):
    return {"classes": list(phantom.FINDINGS[modality]), "multi_label": phantom.MULTI_LABEL[modality]}


@pytest.mark.parametrize("modality", list(phantom.DOMAINS))
def test_phantom(tmp_path, modality):
    found = drawn(tmp_path, modality, {"test": 2, "train": 4}, **card_of(modality))
    assert found.splits() == ["train", "test"]
    assert found.provides == {"text", "label", "question"}
    expected = phantom.generate(modality, "train", 4, 0, 32)
    records = found.records("train")
    assert len(records) == len(expected)
    for record, sample in zip(records, expected):
        np.testing.assert_array_equal(np.asarray(record["image"]), sample.image)
        for name in ("id", "group", "text", "label"):
            assert record[name] == getattr(sample, name)
        assert record["question"] == [question.question for question in sample.questions]
        assert record["answer_type"] == [question.answer_type for question in sample.questions]


def test_phantoms_of_all_modalities(tmp_path):
    found = drawn(tmp_path, "all", {"train": 3})
    assert found.provides == {"text", "question"}
    groups = {group.split("-")[0] for (group,) in columns(found, "train", "group")}
    assert groups == set(phantom.MODALITIES)
    assert set(columns(found, "train", "label")) == {(-1,)}


def test_a_phantoms_fingerprint_is_known_before_it_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(phantom, "generate", None)
    found = drawn(tmp_path, "shapes", {"train": 3}, **card_of("shapes"))
    more = drawn(tmp_path, "shapes", {"train": 4}, **card_of("shapes"))
    assert found.splits() == ["train"]
    assert found.fingerprint != more.fingerprint
    monkeypatch.setattr(formats, "PHANTOM", 999)
    assert drawn(tmp_path, "shapes", {"train": 3}, **card_of("shapes")).fingerprint != found.fingerprint


def test_phantoms_are_drawn_once(tmp_path, monkeypatch):
    check(drawn(tmp_path, "shapes", {"train": 3}, **card_of("shapes")))
    monkeypatch.setattr(phantom, "generate", None)
    assert len(drawn(tmp_path, "shapes", {"train": 3}, **card_of("shapes")).records("train")) == 3


def test_bad_phantoms(tmp_path):
    with pytest.raises(BenchError, match="unknown modality 'cxrr'"):
        drawn(tmp_path, "cxrr", {"train": 3}, classes=CLASSES)
    with pytest.raises(BenchError, match=r"the classes of phantom shapes are .* and multi_label: false"):
        check(drawn(tmp_path, "shapes", {"train": 3}, classes=CLASSES))


SCRIPT = """
{guard}
    import sys
    from pathlib import Path
    from benchmark.data import phantom
    from benchmark.data.card import load_card
    from benchmark.data.dataset import open_dataset
    from benchmark.data.sources import phantom as source

    source.MANY, source.CHUNK = 1, 2
    table = open_dataset(load_card(sys.argv[1]), cache=Path(sys.argv[2])).table("train")
    drawn = [sample.id for sample in phantom.generate("shapes", "train", 9, 0, 32)]
    assert table.column("id").to_pylist() == drawn
    print("drawn", len(table))
"""


@pytest.mark.parametrize("guard", ['if __name__ == "__main__":', "if True:"])
def test_phantoms_are_drawn_in_two_processes(tmp_path, guard):
    """Also where the script that asks for them cannot be started a second time."""
    drawn(tmp_path, "shapes", {"train": 9}, **card_of("shapes"))
    (tmp_path / "script.py").write_text(SCRIPT.format(guard=guard))
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "set.yaml"), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "drawn 9" in done.stdout


FULL = """
if __name__ == "__main__":
    import multiprocessing, sys, threading, time
    from pathlib import Path
    import pyarrow
    from benchmark.data import dataset
    from benchmark.data.card import load_card
    from benchmark.data.sources import phantom as source
    from benchmark.common.errors import BenchError

    def full(*arguments):
        raise OSError(28, "No space left on device")

    source.MANY = 1
    pyarrow.table = full
    try:
        dataset.open_dataset(load_card(sys.argv[1]), cache=Path(sys.argv[2])).table("train")
    except BenchError as error:
        # While the error is at hand, and so all that it came from. A thread that was told to end takes a moment.
        for _ in range(50):
            if threading.active_count() > 1:
                time.sleep(0.1)
        print("left:", multiprocessing.active_children(), threading.active_count())
        print(error)
"""


def test_drawing_ends_when_the_disk_is_full(tmp_path):
    drawn(tmp_path, "shapes", {"train": 5000}, **card_of("shapes"))
    (tmp_path / "script.py").write_text(FULL)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "set.yaml"), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert "left: [] 1" in done.stdout
    assert "No space left on device" in done.stdout


def test_pictures_are_kept_without_loss(tmp_path):
    found = drawn(tmp_path, "shapes", {"train": 1}, **card_of("shapes"))
    assert isinstance(found.records("train")[0]["image"], Image.Image)


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_npz(tmp_path, damage):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (40, 32, 32), dtype=np.uint8)
    np.savez_compressed(tmp_path / "a.npz", train_images=noise, train_labels=np.zeros((40, 1), int))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "a.npz").write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    with pytest.raises(BenchError, match=r"^a.npz: "):
        check(opened(tmp_path, {"kind": "npz", "file": "a.npz"}, classes=CLASSES))
