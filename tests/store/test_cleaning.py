"""What is removed can be computed again, and nothing else goes."""

import io
import os
from pathlib import Path

import pytest

from benchmark.store.cleaning import removable, remove, size
from benchmark.store.store import Store
from tests.squares import Bench


def write(path: Path, count: int = 10, age: float = 1000.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * count)
    changed = path.stat().st_mtime - age
    os.utime(path, (changed, changed))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("last.safetensors", "evaluations/k/rows.json", "embeddings/i/e.npy", "evaluations/.partial-1/x"):
        write(tmp_path / "results" / "cells" / "abc" / name)
    write(tmp_path / "results" / "cells" / ".old.partial" / "log.jsonl")
    write(tmp_path / "results" / "cells" / ".new.partial" / "resume.safetensors")
    write(tmp_path / "results" / "cells" / ".new.partial" / "log.jsonl", age=5.0)
    write(tmp_path / "cache" / "prepared" / "k" / "images.npy", 30)
    write(tmp_path / "cache" / "the user's own")
    (tmp_path / "cache" / "tokens").mkdir()
    (tmp_path / "cache" / "tokens" / "link").symlink_to(tmp_path / "results")
    return tmp_path


def test_what_can_go(folder: Path) -> None:
    cells = folder / "results" / "cells"
    found = removable(Store(folder / "results"), folder / "cache")
    assert found == {
        "embeddings": [cells / "abc" / "embeddings"],
        "partial": [cells / ".old.partial", cells / "abc" / "evaluations" / ".partial-1"],
        "cache": [folder / "cache" / "prepared", folder / "cache" / "tokens"],
    }
    assert [size(path) for path in found["cache"]] == [30, 0]
    for paths in found.values():
        for path in paths:
            remove(path)
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left == {
        "results/cells/abc/last.safetensors",
        "results/cells/abc/evaluations/k/rows.json",
        "cache/the user's own",
        "results/cells/.new.partial/log.jsonl",
        "results/cells/.new.partial/resume.safetensors",
    }
    assert removable(Store(folder / "nothing"), folder / "nowhere") == {"embeddings": [], "partial": [], "cache": []}


def test_only_what_is_named_goes(bench: Bench, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(folder / "cache"))
    command = ["clean", "--results", str(folder / "results")]
    assert bench(*command) == 0
    assert "Nothing removed" in bench.out
    monkeypatch.setattr("typer.confirm", lambda _: False)
    assert bench(*command, "--embeddings") == 0
    assert (folder / "results/cells/abc/embeddings").is_dir()
    assert bench(*command, "--embeddings", "--yes") == 0
    assert "removed 0.0 MB" in bench.out
    assert not (folder / "results/cells/abc/embeddings").exists()
    assert (folder / "cache/prepared").is_dir()
    assert (folder / "results/cells/.old.partial").is_dir()


def test_no_answer_removes_nothing(bench: Bench, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(folder / "cache"))
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert bench("clean", "--results", str(folder / "results"), "--embeddings") == 2
    assert bench.err == "error: Nothing removed: no answer. Pass --yes to skip the prompt.\n"
    assert bench.out.endswith("remove embeddings? [y/N]: \n")
    assert (folder / "results/cells/abc/embeddings").is_dir()
