"""Preparations that are killed, fill the disk, are damaged, or are too large for plain pixels."""

import os
from pathlib import Path

import numpy as np
import pytest

from benchmark.common.errors import BenchError
from benchmark.config.augmentation import Augmentation
from benchmark.data import prepared
from benchmark.data.dataset import Dataset
from benchmark.data.loader import PairLoader, PreparedPairs
from benchmark.data.prepared import damaged, prepare
from tests.data.make import PAIRS, dataset, pairs


class Words:
    pad_id, fingerprint = 0, "words"

    def __call__(self, texts):
        return [[len(word) for word in text.split()] for text in texts]


def killed_after(count):
    def progress(done, total):
        if done == count:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("torn", [0, 7, 192, 200])
def test_a_killed_preparation_goes_on_where_it_was(tmp_path, monkeypatch, torn):
    """torn: bytes that are lost from the end of what was written."""
    monkeypatch.setattr(prepared, "FLUSH", 3)
    found = dataset(tmp_path, pairs(tmp_path, 20, ["train"]))
    whole = prepare(found, "train", 8, tmp_path / "other")
    with pytest.raises(KeyboardInterrupt):
        prepare(found, "train", 8, found.cache, killed_after(14))
    (partial,) = (found.cache / "prepared").iterdir()
    assert partial.name.startswith(".")
    os.truncate(partial / "images.bin", (partial / "images.bin").stat().st_size - torn)
    looked_at = []
    decode = Dataset.decode

    def counting(self, split, work, progress=None, done=()):
        return decode(self, split, lambda picture: looked_at.append(1) or work(picture), progress, done)

    monkeypatch.setattr(Dataset, "decode", counting)
    again = prepare(found, "train", 8, found.cache)
    assert len(looked_at) < 12
    np.testing.assert_array_equal(again.images, whole.images)
    assert (again.ids, again.fingerprint) == (whole.ids, whole.fingerprint)


def test_bad_images_before_the_kill_are_still_known(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "FLUSH", 2)
    rows = pairs(tmp_path, 10, ["train"])
    (tmp_path / "images" / "1.png").write_bytes(b"broken")
    found = dataset(tmp_path, rows, on_bad_data="skip")
    with pytest.raises(KeyboardInterrupt):
        prepare(found, "train", 8, found.cache, killed_after(7))
    assert len(prepare(found, "train", 8, found.cache)) == 9
    assert found.left_out == {"image cannot be decoded": 1}


def test_a_full_disk(tmp_path, monkeypatch):
    found = dataset(tmp_path, pairs(tmp_path, 10, ["train"]))

    class Full:
        def __init__(self, file):
            self.file, self.left = file, 5 * 192

        def write(self, content):
            self.left -= len(content)
            if self.left < 0:
                raise OSError(28, "No space left on device")
            return self.file.write(content)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

    plain = Path.open

    def opened(path, *arguments, **options):
        file = plain(path, *arguments, **options)
        return Full(file) if path.name == "images.bin" else file

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(BenchError, match="No space left on device"):
        prepare(found, "train", 8, found.cache)
    assert all(path.name.startswith(".") for path in (found.cache / "prepared").iterdir())
    monkeypatch.undo()
    assert len(prepare(found, "train", 8, found.cache)) == 10


def test_damage_is_found(tmp_path):
    found = dataset(tmp_path, pairs(tmp_path, 6, ["train"]))
    assert damaged(found, "train", 8, found.cache) == 0
    prepare(found, "train", 8, found.cache)
    assert damaged(found, "train", 8, found.cache) == 0
    (folder,) = (found.cache / "prepared").iterdir()
    content = bytearray((folder / "images.bin").read_bytes())
    content[200] ^= 1
    (folder / "images.bin").write_bytes(content)
    assert damaged(found, "train", 8, found.cache) == 1


def prepared_set(folder, count=80):
    """A set of ``count`` images and the folder that it is prepared in; without texts, since four files are enough."""
    rows = pairs(folder, 4, ["train"])
    columns = {key: name for key, name in PAIRS.items() if key != "text"}
    found = dataset(folder, [rows[i % 4] | {"id": f"r{i}"} for i in range(count)], columns)
    prepare(found, "train", 8, found.cache)
    (prepared_in,) = (found.cache / "prepared").iterdir()
    return found, prepared_in


def change(path, place=None):
    """One bit, or all bytes."""
    content = bytearray(path.read_bytes())
    if place is None:
        content = bytes(len(content))
    else:
        content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["images.bin", "columns.arrow", "journal.bin", "meta.json"])
@pytest.mark.parametrize("place", [None, 0])
def test_what_is_damaged_is_prepared_again(tmp_path, name, place, capsys):
    found, folder = prepared_set(tmp_path)
    whole = prepare(found, "train", 8, found.cache).images[:]
    change(folder / name, place)
    np.testing.assert_array_equal(prepare(found, "train", 8, found.cache).images[:], whole)
    assert f"{folder}: " in capsys.readouterr().err
    assert len(list(folder.parent.glob(f".{folder.name}.damaged-*"))) == 1


def test_what_is_cut_off_or_gone_is_prepared_again(tmp_path, capsys):
    found, folder = prepared_set(tmp_path)
    for harm, said in (
        (lambda: os.truncate(folder / "images.bin", 192 * 79), "images.bin has 15,168 bytes, expected 15,360"),
        ((folder / "images.bin").unlink, "images.bin cannot be read: No such file or directory"),
        ((folder / "columns.arrow").unlink, "is incomplete: columns.arrow: cannot be read: No such file or"),
    ):
        harm()
        assert len(prepare(found, "train", 8, found.cache)) == 80
        err = capsys.readouterr().err
        assert said in err
        assert "it is prepared again" in err


@pytest.mark.parametrize("jpeg", [False, True])
def test_each_image_is_checked_when_it_is_first_read(tmp_path, monkeypatch, jpeg):
    monkeypatch.setattr(prepared, "LARGE", 0 if jpeg else 1 << 35)
    found, folder = prepared_set(tmp_path)
    checked = []
    checksum = prepared._checksum
    monkeypatch.setattr(prepared, "_checksum", lambda content: checked.append(1) or checksum(content))
    whole = prepare(found, "train", 8, found.cache).images
    for _ in range(3):
        whole[:]
    assert len(checked) == 80
    ends = np.fromfile(folder / "journal.bin", prepared.JOURNAL)["end"]
    # Between two of those that opening looks at.
    change(folder / "images.bin", int(ends[0]) + 5)
    images = prepare(found, "train", 8, found.cache).images
    images[2:]
    with pytest.raises(BenchError, match="image 2 of 80 is not what was written"):
        images[:]


def test_large_sets_are_kept_as_jpeg(tmp_path, monkeypatch):
    rows = pairs(tmp_path, 8, ["train"])
    small = dataset(tmp_path, rows)
    plain = prepare(small, "train", 32, tmp_path / "plain")
    monkeypatch.setattr(prepared, "LARGE", 0)
    found = prepare(small, "train", 32, tmp_path / "jpeg")
    assert found.images.jpeg
    assert not plain.images.jpeg
    assert found.images.shape == (8, 3, 32, 32)
    assert found.fingerprint != plain.fingerprint
    assert found.ids == plain.ids
    for chosen in (3, -1, [5, 0], slice(2, 6), np.arange(8) % 2 == 0):
        one, other = found.images[chosen].astype(int), np.asarray(plain.images[chosen]).astype(int)
        assert one.shape == other.shape
        assert np.abs(one - other).mean() < 4
    sets = [PreparedPairs(each, Words(), tmp_path / "c") for each in (plain, found)]
    loaders = [PairLoader([each], Words.pad_id, 32, Augmentation.none(), 0) for each in sets]
    one, other = (loader.batch(0, 5) for loader in loaders)
    assert one.ids == other.ids
    assert (one.image.int() - other.image.int()).abs().float().mean() < 4
    assert damaged(small, "train", 32, tmp_path / "jpeg") == 0
