"""Image files are looked at in threads; of a large set, not in folders that have not changed."""

import hashlib
import json
import os
from pathlib import Path

import pyarrow as pa
import pytest

from benchmark.common.errors import BenchError
from benchmark.data import image_files
from benchmark.data.image_files import known_files

COUNT, FOLDERS = 40, 3


def rows_of(split: str) -> list[dict]:
    paths = [f"f{number % FOLDERS}/{split}{number}.png" for number in range(COUNT)]
    return [{"image": {"bytes": None, "path": path}, "file": "t.csv", "row": row} for row, path in enumerate(paths, 1)]


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, pa.Table]:
    monkeypatch.setattr(image_files, "MANY", 2 * COUNT)
    monkeypatch.setattr(image_files, "CHUNK", 7)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    for split in ("train", "test"):
        for number, row in enumerate(rows_of(split)):
            path = tmp_path / "images" / row["image"]["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * (number + 1))
    for folder in (tmp_path / "images").iterdir():
        os.utime(folder, ns=(10**18, 10**18))
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("file", pa.string()), ("row", pa.int64())])
    return {split: pa.Table.from_pylist(rows_of(split), schema) for split in ("train", "test")}


def look(tables: dict[str, pa.Table], tmp_path: Path, mode: str = "error") -> image_files.ImageFiles:
    return image_files.image_files(tables, tmp_path / "images", mode, tmp_path / "memory.json")  # type: ignore[arg-type]


def known(tables: dict[str, pa.Table], tmp_path: Path) -> image_files.ImageFiles | None:
    return known_files(tables, tmp_path / "images", tmp_path / "memory.json")


def test_the_hash_is_of_path_size_and_time_of_each_file_in_order(tables, tmp_path):
    expected = hashlib.sha256()
    for split in tables:
        for row in rows_of(split):
            path = row["image"]["path"]
            state = (tmp_path / "images" / path).stat()
            expected.update(repr((split, path, state.st_size, state.st_mtime_ns)).encode())
    seen = look(tables, tmp_path)
    assert seen.states == expected.hexdigest()
    assert seen.sizes["test"].tolist() == list(range(1, COUNT + 1))


def test_folders_that_have_not_changed_are_not_looked_into(tables, tmp_path):
    seen = look(tables, tmp_path)
    remembered = known(tables, tmp_path)
    assert remembered is not None
    assert remembered.states == seen.states
    assert {split: rows.tolist() for split, rows in remembered.rows.items()} == {
        split: rows.tolist() for split, rows in seen.rows.items()
    }


@pytest.mark.parametrize("change", ["removed", "added", "renamed folder", "other rows", "small", "just changed"])
def test_what_changed_is_looked_at_again(change, tables, tmp_path, monkeypatch):
    if change == "small":
        monkeypatch.setattr(image_files, "MANY", 2 * COUNT + 1)
    folder = tmp_path / "images" / "f1"
    if change == "just changed":
        os.utime(folder)
    look(tables, tmp_path)
    if change == "removed":
        (folder / "train1.png").unlink()
    if change == "added":
        (folder / "new.png").touch()
    if change == "renamed folder":
        folder.rename(tmp_path / "images" / "other")
    if change == "other rows":
        tables["train"] = tables["train"].slice(1)
    assert known(tables, tmp_path) is None


def test_a_set_with_a_missing_image_is_looked_at_each_time(tables, tmp_path):
    (tmp_path / "images" / "f2" / "test5.png").unlink()
    with pytest.raises(BenchError, match=r"t.csv, row 6: image 'f2/test5.png' does not exist"):
        look(tables, tmp_path)
    seen = look(tables, tmp_path, "skip")
    assert seen.missing == {"missing image": 1}
    assert seen.rows["test"].tolist() == [row for row in range(COUNT) if row != 5]
    assert known(tables, tmp_path) is None


def test_a_damaged_memory_is_none(tables, tmp_path):
    look(tables, tmp_path)
    memory = tmp_path / "memory.json"
    memory.write_text(json.dumps({**json.loads(memory.read_text()), "value": {"rows": {}}}))
    assert known(tables, tmp_path) is None
