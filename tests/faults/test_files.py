"""Damaged checkpoints and tables: one line each, and no code of theirs runs."""

import io
import pickle
import random
from pathlib import Path
from zipfile import ZipFile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from benchmark.common.errors import BenchError
from benchmark.data.check import check
from benchmark.data.dataset import open_dataset
from benchmark.models.weights import read_tensors
from tests.data.make import PAIRS, pairs, write_card

TENSORS = {"a": torch.zeros(3, 4), "b": torch.ones(2)}
KINDS = ("zip", "pickle within zip", "pickle", "safetensors")


class Touch:
    """Creates a file when a checkpoint is read by pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def checkpoint(folder: Path, kind: str) -> Path:
    path = folder / ("x.safetensors" if kind == "safetensors" else "x.pt")
    if kind == "safetensors":
        save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=kind != "pickle")
    return path


def damaged(data: bytes, rng: random.Random, within: str = "") -> bytes:
    """Cut, change or replace a few bytes; within: in the file of a zip whose name ends so."""
    if within:
        out = io.BytesIO()
        with ZipFile(io.BytesIO(data)) as old, ZipFile(out, "w") as new:
            for name in old.namelist():
                new.writestr(name, damaged(old.read(name), rng) if name.endswith(within) else old.read(name))
        return out.getvalue()
    changed = bytearray(data)
    at = rng.randrange(len(changed))
    if rng.random() < 0.2:
        return bytes(changed[:at])
    if rng.random() < 0.2:
        changed[at : at + rng.randint(1, 50)] = rng.randbytes(rng.randint(0, 60))
        return bytes(changed)
    for _ in range(rng.randint(1, 12)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def try_checkpoints(folder: Path, kind: str, count: int) -> int:
    """Read so many damaged checkpoints; return how many were refused. Anything but ``BenchError`` is raised."""
    path, messages = checkpoint(folder, kind), []
    intact, rng = path.read_bytes(), random.Random(kind)
    for _ in range(count):
        path.write_bytes(damaged(intact, rng, "data.pkl" if "within" in kind else ""))
        try:
            read_tensors(path)
        except BenchError as error:
            messages.append(str(error).removeprefix(f"weights {path}"))
    assert max(map(len, messages)) < 400
    assert not any("\n" in message for message in messages)
    return len(messages)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_checkpoints(kind: str, tmp_path: Path) -> None:
    assert try_checkpoints(tmp_path, kind, 60) > 30


def test_no_code_of_a_checkpoint_runs(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2), "b": Touch(tmp_path / "ran")}, tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Touch(tmp_path / "ran")))
    for name in ("zip.pt", "plain.pt"):
        with pytest.raises(BenchError, match="contains more than tensors, or is damaged, and is not read"):
            read_tensors(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("column", ["id", "image", "text", "split"])
def test_parquet_that_is_not_utf8(column: str, tmp_path: Path) -> None:
    rows = pairs(tmp_path, 4)
    columns = {name: pa.array([row[name] for row in rows]) for name in rows[0]}
    raw = [str(row[column]).encode() for row in rows]
    raw[1] = b"caf\xe9"
    binary = pa.array(raw, pa.binary())
    columns[column] = pa.Array.from_buffers(pa.string(), len(rows), binary.buffers())
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    card = write_card(tmp_path, {"kind": "manifest", "file": "rows.parquet", "columns": PAIRS})
    with pytest.raises(BenchError, match=r"^rows\.parquet, row 2: not UTF-8 \(byte 0xe9\); expected UTF-8$"):
        check(open_dataset(card, cache=tmp_path / "cache"))
    left = open_dataset(card, "skip", tmp_path / "cache")
    check(left)
    assert left.left_out == {"not UTF-8": 1}
