import json
import os
import shutil
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torchvision.transforms.functional as tv
from PIL import Image

from benchmark.common.errors import BenchError
from benchmark.data import dataset as module
from benchmark.data.check import check
from benchmark.data.dataset import open_dataset
from benchmark.data.prepared import prepare
from benchmark.data.records import COLUMNS
from benchmark.store.cache import build_folder, remember
from tests.data.make import PAIRS, dataset, pairs, pixels


@pytest.fixture
def decoded(monkeypatch):
    """The images that are decoded, in order."""
    found = []

    def counted(image, folder):
        found.append(Path(image["path"]).name)
        return source(image, folder)

    source = module._image_source
    monkeypatch.setattr(module, "_image_source", counted)
    return found


def reopened(found, on_bad_data=None):
    return open_dataset(found.card, on_bad_data or found.on_bad_data, found.cache)


def damage(folder, name):
    path = folder / "images" / name
    path.write_bytes(path.read_bytes()[:80])


def test_records_have_the_columns_of_the_contract(tmp_path):
    found = dataset(tmp_path, pairs(tmp_path))
    records = found.records("train")
    assert records.column_names == list(COLUMNS)
    assert records[:]["id"] == ["r0", "r3"]
    record = records[1]
    np.testing.assert_array_equal(np.asarray(record["image"]), pixels(3))
    assert record["label"] == -1
    assert record["text_id"] == record["question"] == record["answer_type"] == []
    assert [image.mode for image in records["image"]] == ["RGB", "RGB"]
    assert [r["id"] for r in records.select([1, 0])] == ["r3", "r0"]


def test_a_split_that_is_not_there(tmp_path):
    found = dataset(tmp_path, pairs(tmp_path, splits=["train", "test"]))
    for use in (found.records, found.rows, lambda split: prepare(found, split, 8, found.cache)):
        with pytest.raises(BenchError, match="dataset 'set' has no split 'val'; it has: train, test"):
            use("val")


def test_images_are_decoded_once(tmp_path, decoded):
    found = dataset(tmp_path, pairs(tmp_path))
    check(found)
    assert sorted(decoded) == [f"{i}.png" for i in range(6)]
    check(found)
    check(reopened(found))
    assert len(decoded) == 6
    prepare(found, "train", 8, found.cache)
    prepare(reopened(found), "train", 8, found.cache)
    assert decoded[6:] == ["0.png", "3.png"]


def test_checking_at_a_size_prepares(tmp_path, decoded):
    found = dataset(tmp_path, pairs(tmp_path))
    calls = []
    check(found, 8, progress=lambda done, of: calls.append((done, of)))
    assert calls == [(1, 2), (2, 2)] * 3
    for split in found.splits():
        prepare(found, split, 8, found.cache)
    check(found)
    assert len(decoded) == 6


@pytest.mark.parametrize("size", [None, 8])
def test_images_that_cannot_be_decoded(tmp_path, size, decoded):
    rows = pairs(tmp_path, 9)
    found = dataset(tmp_path, rows)
    damage(tmp_path, "3.png")
    damage(tmp_path, "6.png")
    message = (
        r"^rows.jsonl, row 4: image 'images/3.png' cannot be decoded: .*\n"
        r"2 rows are bad \(image cannot be decoded: 2\); pass --on-bad-data skip to leave them out$"
    )
    for again in (found, found, reopened(found)):
        with pytest.raises(BenchError, match=message):
            check(again, size)
    assert len(decoded) == 3, "known to be bad, yet decoded again"
    with pytest.raises(BenchError, match="row 4"):
        prepare(found, "train", 8, found.cache)

    left = reopened(found, "skip")
    check(left, size)
    assert left.left_out == {"image cannot be decoded": 2}
    assert left.records("train")[:]["id"] == ["r0"]
    ready = prepare(left, "train", 8, left.cache)
    assert ready.ids == ["r0"]
    assert ready.images.shape == (1, 3, 8, 8)
    assert ready.text == [["finding number 0"]]
    with pytest.raises(BenchError, match="row 4"):
        prepare(reopened(found), "train", 8, found.cache)


def test_skipping_does_not_depend_on_what_was_called_before(tmp_path):
    found = dataset(tmp_path, pairs(tmp_path), on_bad_data="skip")
    damage(tmp_path, "3.png")
    assert found.records("train")[:]["id"] == ["r0"]
    shutil.rmtree(found.cache)
    other = reopened(found)
    ready = prepare(other, "train", 8, other.cache)
    assert ready.ids == ["r0"]
    assert len(ready.images) == 1
    assert ready.images[0].any()
    assert other.records("train")[:]["id"] == ["r0"]
    assert other.left_out == {"image cannot be decoded": 1}


def test_all_images_of_a_split_are_bad(tmp_path):
    found = dataset(tmp_path, pairs(tmp_path), on_bad_data="skip")
    for name in ("0.png", "3.png"):
        damage(tmp_path, name)
    with pytest.raises(BenchError, match="'set', train: none of its images can be decoded"):
        prepare(found, "train", 8, found.cache)
    assert list((found.cache / "prepared").iterdir()) == []


def test_a_repaired_image_is_seen(tmp_path):
    found = dataset(tmp_path, pairs(tmp_path))
    damage(tmp_path, "3.png")
    with pytest.raises(BenchError, match="row 4"):
        check(found)
    Image.fromarray(pixels(3)).save(tmp_path / "images" / "3.png")
    check(reopened(found))


def touch(folder):
    os.utime(folder / "images" / "0.png", ns=(1, 1))


def recolour(folder):
    Image.fromarray(pixels(99)).save(folder / "images" / "0.png")


def retext(folder):
    path = folder / "rows.jsonl"
    path.write_text(path.read_text().replace("finding number 0", "finding number X"))


def reorder(folder):
    path = folder / "rows.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))


@pytest.mark.parametrize(
    ("change", "content"), [(touch, False), (recolour, True), (retext, True), (reorder, True), (None, False)]
)
def test_fingerprints_follow_the_data(tmp_path, change, content):
    """The dataset's sees every touch; that of what is prepared the content alone."""
    found = dataset(tmp_path, pairs(tmp_path))
    before, ready = found.fingerprint, prepare(found, "train", 8, found.cache).fingerprint
    if change:
        change(tmp_path)
    after = reopened(found)
    assert (after.fingerprint != before) == (change is not None)
    assert (prepare(after, "train", 8, found.cache).fingerprint != ready) == content


def test_fingerprints_do_not_depend_on_the_place(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    found = dataset(one, pairs(one))
    shutil.copytree(one, two, ignore=shutil.ignore_patterns("cache"))
    moved = dataset(two, [json.loads(line) for line in (one / "rows.jsonl").read_text().splitlines()])
    assert moved.fingerprint == found.fingerprint
    assert moved.records("train")[0]["image"].size == (12, 10)


def test_fingerprints_follow_the_classes_and_not_the_prompts(tmp_path):
    rows = [row | {"y": "a"} for row in pairs(tmp_path)]
    columns = {**PAIRS, "label": "y"}

    def fingerprint(**card):
        return dataset(tmp_path, rows, columns, card=card).fingerprint

    assert fingerprint(classes=["a", "b"]) == fingerprint(classes=["a", "b"], prompts=["{}"])
    assert fingerprint(classes=["a", "b"]) != fingerprint(classes=["b", "a"])
    assert fingerprint(classes=["a", "b"]) != fingerprint(classes=["a", "b"], multi_label=True)


def test_skipping_nothing_changes_nothing(tmp_path):
    found = dataset(tmp_path, pairs(tmp_path))
    assert reopened(found, "skip").fingerprint == found.fingerprint
    (tmp_path / "images" / "5.png").unlink()
    assert reopened(found, "skip").fingerprint != found.fingerprint


@pytest.mark.parametrize(("width", "height"), [(40, 32), (32, 48), (16, 16), (320, 16), (12, 8)])
@pytest.mark.parametrize("channels", [0, 3])
def test_prepared_images_agree_with_torchvision(tmp_path, width, height, channels):
    """For sizes at which torchvision need not round the long side or the crop's place to whole pixels."""
    row = pairs(tmp_path, 1, ["test"])
    picture = Image.fromarray(pixels(5, width, height, channels))
    picture.save(tmp_path / "images" / "0.png")
    ready = prepare(found := dataset(tmp_path, row), "test", 16, found.cache)
    assert ready.images.dtype == np.uint8
    assert ready.images.shape == (1, 3, 16, 16)
    expected = tv.center_crop(tv.resize(picture.convert("RGB"), 16, tv.InterpolationMode.BICUBIC), 16)
    difference = np.abs(ready.images[0].transpose(1, 2, 0).astype(int) - np.asarray(expected))
    assert difference.max() <= 1


def test_prepared_columns(tmp_path):
    rows = [row | {"y": ["a", "b"], "tid": 1} for row in pairs(tmp_path)]
    card = {"classes": ["b", "c", "a"], "multi_label": True}
    found = dataset(tmp_path, rows, {**PAIRS, "label": "y", "text_id": "tid"}, card=card)
    ready = prepare(found, "val", 8, found.cache)
    assert len(ready) == 2
    assert ready.ids == ["r1", "r4"]
    assert ready.groups == ["p1", "p4"]
    assert ready.label.dtype == np.int64
    assert ready.label.tolist() == [[1, 0, 1], [1, 0, 1]]
    assert ready.text == [["finding number 1"], ["finding number 4"]]
    assert ready.text_id == [["1"], ["1"]]
    assert ready.question == ready.answer == ready.answer_type == ready.question_type == [[], []]


def test_a_killed_preparation_leaves_nothing_valid(tmp_path, monkeypatch):
    found = dataset(tmp_path, pairs(tmp_path))

    def die(done, of):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(found, "train", 8, found.cache, die)
    assert [path.name[0] for path in (found.cache / "prepared").iterdir()] == ["."]
    assert len(prepare(found, "train", 8, found.cache)) == 2
    assert [path.name[0] != "." for path in (found.cache / "prepared").iterdir()] == [True]


def together(folder, start, queue):
    from benchmark.data.card import load_card

    found = open_dataset(load_card(folder / "set.yaml"), cache=folder / "cache")
    start.wait()
    ready = prepare(found, "train", 8, found.cache)
    queue.put((ready.fingerprint, int(ready.images[:].sum())))


def test_two_processes_at_once(tmp_path):
    dataset(tmp_path, pairs(tmp_path, 60))
    context = get_context("fork")
    start, queue = context.Barrier(2), context.Queue()
    processes = [context.Process(target=together, args=(tmp_path, start, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    results = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert results[0] == results[1]
    assert [path.name[0] != "." for path in (tmp_path / "cache" / "prepared").iterdir()] == [True]


def test_the_first_of_two_folders_stays(tmp_path):
    def write(folder):
        (folder / "x").write_text("second")
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "x").write_text("first")

    assert (build_folder(tmp_path / "made", write) / "x").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="cannot be written: Not a directory; set BENCH_CACHE"):
        build_folder(tmp_path / "file" / "cache", lambda folder: None)
    with pytest.raises(BenchError, match="cannot be written: Not a directory"):
        remember(tmp_path / "file" / "folder" / "x", 1)

    def full(folder):
        (folder / "half").write_bytes(b"x")
        raise OSError(28, "No space left on device")

    with pytest.raises(BenchError, match="No space left on device"):
        build_folder(tmp_path / "cache" / "x", full)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_thousand_and_some_rows(tmp_path):
    """More than are written at once."""
    rows = pairs(tmp_path, 3)
    many = [rows[i % 3] | {"id": f"r{i}"} for i in range(2500)]
    # Without texts: rows with an image and an id of their own then stay as they are.
    found = dataset(tmp_path, many, columns={key: name for key, name in PAIRS.items() if key != "text"})
    assert found.records("val").select_columns(["id"])[:]["id"] == [f"r{i}" for i in range(1, 2500, 3)]


def test_unreadable_images(tmp_path):
    rows = pairs(tmp_path)
    (tmp_path / "images" / "loop.png").symlink_to("loop.png")
    rows[0]["image"] = "images/loop.png"
    rows[3]["image"] = "images"
    with pytest.raises(BenchError, match=r"row 1: image 'images/loop.png' cannot be read: Too many levels"):
        check(dataset(tmp_path, rows))
    left = dataset(tmp_path, rows, on_bad_data="skip")
    check(left)
    assert left.left_out == {"missing image": 1, "image cannot be decoded": 1}
