"""Files that rows need beside their table: images that are searched for, texts, folders behind links."""

import os
import threading

import pytest
from PIL import Image

from benchmark.common.errors import BenchError
from benchmark.data.check import check
from benchmark.data.dataset import open_dataset
from benchmark.data.sources.folders import files_below
from benchmark.data.tools.infer_card import infer_card
from benchmark.data.tools.verify import verify
from tests.data.make import images, pixels, write_card, write_csv

SEARCHED = {
    "kind": "manifest",
    "file": "rows.csv",
    "image_root": "data",
    "find": True,
    "columns": {"id": "id", "image": "{id}.png"},
    "split": {"train": 1},
}
REPORTS = {
    "kind": "manifest",
    "file": "rows.csv",
    "columns": {"image": "image"},
    "split": {"train": 1},
    "text_file": "reports/{id}.txt",
}


@pytest.fixture
def opened(tmp_path):
    """The set anew, each time with the cache of the time before."""
    write_csv(tmp_path / "rows.csv", [{"id": str(i), "image": f"images/{i}.png"} for i in range(4)])
    (tmp_path / "data").mkdir()

    def open_it(source, on_bad_data="skip"):
        return open_dataset(write_card(tmp_path, source), on_bad_data, tmp_path / "cache")

    return open_it


def test_images_that_come_later_are_found(opened, tmp_path):
    with pytest.raises(BenchError, match="has no rows; left out: missing image: 4"):
        verify(opened(SEARCHED), 77, None)
    images(tmp_path / "data" / "part_1", 2)
    assert len(opened(SEARCHED).rows("train")) == 2
    assert opened(SEARCHED).left_out == {"missing image": 2}
    images(tmp_path / "data" / "part_2", 4)
    assert opened(SEARCHED).left_out == {"ambiguous image": 2}
    for name in ("0.png", "1.png"):
        (tmp_path / "data" / "part_2" / name).unlink()
    assert len(opened(SEARCHED, "error").rows("train")) == 4


def test_images_that_move_are_found(opened, tmp_path):
    images(tmp_path / "data" / "one", 4)
    check(opened(SEARCHED, "error"))
    (tmp_path / "data" / "one").rename(tmp_path / "data" / "other")
    assert len(opened(SEARCHED, "error").rows("train")) == 4


def test_what_no_row_needs_changes_nothing(opened, tmp_path):
    images(tmp_path / "data", 5)
    before = opened(SEARCHED).fingerprint
    (tmp_path / "data" / "notes.txt").write_text("mine")
    Image.fromarray(pixels(9)).save(tmp_path / "data" / "another.png")
    assert opened(SEARCHED).fingerprint == before


def test_texts_follow_their_files(opened, tmp_path):
    images(tmp_path / "images", 4)
    folder = tmp_path / "reports"
    assert opened(REPORTS).left_out == {"missing text": 4}
    folder.mkdir()
    for i in range(4):
        (folder / f"{i}.txt").write_text(f"report {i}")
    texts = opened(REPORTS).records("train").select_columns(["text"])[:]["text"]
    assert texts == [[f"report {i}"] for i in range(4)]
    before = opened(REPORTS).fingerprint
    (folder / "4.txt").write_text("nobody's")
    assert opened(REPORTS).fingerprint == before
    (folder / "2.txt").write_text("another report")
    found = opened(REPORTS)
    assert found.records("train").select_columns(["text"])[2]["text"] == ["another report"]
    assert found.fingerprint != before
    (folder / "3.txt").unlink()
    assert opened(REPORTS).left_out == {"missing text": 1}


def in_time(work):
    """What ``work`` raises; it must end."""
    raised = []

    def run():
        with pytest.raises(BenchError) as error:
            work()
        raised.append(str(error.value))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert raised, "it waits"
    return raised[0]


def test_a_pipe_is_not_waited_for(opened, tmp_path):
    images(tmp_path / "images", 4)
    (tmp_path / "reports").mkdir()
    os.mkfifo(tmp_path / "reports" / "0.txt")
    assert "rows.csv, row 2: text 'reports/0.txt' is not a file" in in_time(lambda: check(opened(REPORTS, "error")))


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "manifest", "file": "pipe.csv", "columns": {"image": "image"}, "split": {"train": 1}},
        {"kind": "manifest", "file": "pipe.parquet", "columns": {"image": "image"}, "split": {"train": 1}},
        {"kind": "npz", "file": "pipe.npz"},
        {"kind": "h5", "files": {"train": {"images": "pipe.h5", "labels": "pipe.h5"}}},
        {"kind": "webdataset", "shards": {"train": ["pipe.tar"]}, "columns": {"image": "image"}},
    ],
)
def test_a_pipe_in_the_place_of_a_file(opened, tmp_path, source):
    name = next(name for name in ("pipe.csv", "pipe.parquet", "pipe.npz", "pipe.h5", "pipe.tar") if name in str(source))
    os.mkfifo(tmp_path / name)
    card = write_card(tmp_path, source, classes=["a", "b"])
    message = in_time(lambda: check(open_dataset(card, cache=tmp_path / "cache")))
    assert message == f"dataset 'set': '{name}' is neither a file nor a folder ({tmp_path / name})"


def test_a_text_that_may_not_be_read_is_not_remembered_as_bad(opened, tmp_path, monkeypatch):
    images(tmp_path / "images", 4)
    (tmp_path / "reports").mkdir()
    for i in range(4):
        (tmp_path / "reports" / f"{i}.txt").write_text("report")
    plain = type(tmp_path).open

    def refusing(path, *arguments, **options):
        if path.name in ("1.txt", "1.png"):
            raise PermissionError(13, "Permission denied")
        return plain(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "open", refusing)
        with pytest.raises(BenchError, match=r"text 'reports/1.txt' cannot be read: Permission denied"):
            check(opened(REPORTS))
    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "open", refusing)
        with pytest.raises(BenchError, match=r"image .*1.png cannot be read: Permission denied"):
            check(opened({key: value for key, value in REPORTS.items() if key != "text_file"}))
    found = opened(REPORTS)
    check(found)
    assert found.left_out == {}
    assert len(found.rows("train")) == 4


def linked(tmp_path):
    """Two classes, of which one is a link to a folder elsewhere."""
    images(tmp_path / "elsewhere", 3)
    images(tmp_path / "root" / "cat", 2)
    (tmp_path / "root" / "dog").symlink_to(tmp_path / "elsewhere")
    return tmp_path / "root"


def test_classes_behind_links(tmp_path):
    linked(tmp_path)
    source = {"kind": "image_folder", "root": "root", "split": {"train": 1}}
    card = write_card(tmp_path, source, classes=["cat", "dog"])
    found = open_dataset(card, "error", tmp_path / "cache")
    assert sorted(found.records("train").select_columns(["label"])[:]["label"]) == [0, 0, 1, 1, 1]


def test_a_card_for_classes_behind_links(tmp_path):
    root = linked(tmp_path)
    (root / "loop").symlink_to(root)
    assert infer_card(root)[0]["classes"] == ["cat", "dog"]


def test_images_behind_a_link_are_searched(opened, tmp_path):
    images(tmp_path / "elsewhere", 4)
    (tmp_path / "data" / "part_1").symlink_to(tmp_path / "elsewhere")
    assert len(opened(SEARCHED, "error").rows("train")) == 4
    # The same folder by another way is no second image of each name.
    (tmp_path / "data" / "part_2").symlink_to(tmp_path / "data")
    (tmp_path / "elsewhere").rename(tmp_path / "data" / "elsewhere")
    (tmp_path / "data" / "part_1").unlink()
    (tmp_path / "data" / "part_1").symlink_to("elsewhere")
    assert len(opened(SEARCHED, "error").rows("train")) == 4


def test_links_in_a_circle(tmp_path):
    for name in "abcdefgh":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
        for other in "abcdefgh":
            (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
    (tmp_path / "self").symlink_to("self")
    found = list(files_below(tmp_path))
    assert {f"{name}/file" for name in "abcdefgh"} < set(found)
    assert len(found) <= 2 * 8 + 1
    assert found == list(files_below(tmp_path))
