"""Damage to every kind of file of results and cache: noticed, named with its remedy, and never a traceback."""

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmark.api import Results, write_report
from benchmark.cli.main import main
from benchmark.common.errors import BenchError
from benchmark.data.prepared import check_prepared
from benchmark.store import cache
from benchmark.store.cleaning import CACHED
from benchmark.store.files import FILES, DamagedError
from benchmark.store.health import cache_health, results_health
from benchmark.store.store import Store
from tests.squares import Bench

RUN = ["run", "--suite", "suite.yaml", "--methods", "clip,siglip", "--tasks", "zero_shot,retrieval"]
RUN += ["--set", "training.samples=96", "--set", "evaluation.resamples=20", "--set", "evaluation.checkpoint=best"]
HARMS: dict[str, Callable[[bytes], bytes | None]] = {
    "emptied": lambda data: b"",
    "halved": lambda data: data[: len(data) // 2],
    "flipped": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
    "deleted": lambda data: None,
}


def harm(path: Path, how: str) -> None:
    data = HARMS[how](path.read_bytes())
    path.unlink()
    if data is not None:
        path.write_bytes(data)


@pytest.fixture(scope="module")
def trained(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two arms and the cache that they were made with, in a folder to copy."""
    folder = tmp_path_factory.mktemp("trained") / "work"
    shutil.copytree(squares, folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("BENCH_CACHE", str(folder / "cache"))
        monkeypatch.setattr("sys.argv", ["bench", *RUN])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code
    return folder


@pytest.fixture
def broken(trained: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the results and the cache, in the folder of ``bench``."""
    shutil.copytree(trained / "results", bench.folder / "results")
    shutil.copytree(trained / "cache", bench.folder / "cache")
    monkeypatch.setenv("BENCH_CACHE", str(bench.folder / "cache"))
    return bench.folder / "results"


def cell_of(results: Path, arm: str = "clip") -> Path:
    (cell,) = (each for each in Store(results).finished_cells() if each.cell["label"]["arm"] == arm)
    return cell.folder


def values(store: Store) -> dict[tuple[str, ...], float]:
    return {(row.arm, row.task, row.part, row.metric): row.value for row in store.rows().itertuples()}


@pytest.mark.parametrize("how", HARMS)
@pytest.mark.parametrize("name", ["rows.json", "notes.json", "evaluation.json", "resamples.parquet"])
def test_a_damaged_evaluation_is_left_out(name: str, how: str, broken: Path) -> None:
    folder = next(cell_of(broken).glob("evaluations/zero_shot*"))
    harm(folder / name, how)
    store = Store(broken)
    store.without_damage(lambda: report(store))
    assert not any(row.startswith("zero_shot") for arm, row, *_ in values(store) if arm == "clip")
    assert any(row.startswith("zero_shot") for arm, row, *_ in values(store) if arm == "siglip")
    if (name, how) != ("rows.json", "deleted"):
        (line,) = store.damage.values()
        assert str(folder / name) in line
        assert "bench run makes it again" in line


def test_what_can_be_made_again_is_made_again(broken: Path, bench: Bench) -> None:
    """Evaluations and embeddings, each damaged in another way."""
    before, hows = values(Store(broken)), iter(HARMS)
    for arm in ("clip", "siglip"):
        cell = cell_of(broken, arm)
        harm(next(cell.glob("evaluations/zero_shot*")) / "rows.json", how := next(hows))
        harm(next(cell.glob("embeddings/images-*/embeddings.npy")), how)
        harm(next(cell.glob("evaluations/retrieval*")) / "resamples-image_to_text.parquet", how := next(hows))
        harm(next(cell.glob("embeddings/texts-*/features.npy")), how)
    assert bench(*RUN) == 0, bench.out
    assert "trained 0, evaluated 4" in bench.out
    assert bench.out.count("; set aside as") >= 6
    assert values(Store(broken)) == before
    assert bench(*RUN) == 0
    assert "set aside" not in bench.out


def report(store: Store) -> None:
    """Read what a report reads."""
    for row in store.rows().drop_duplicates(["cell", "evaluation", "part"]).itertuples():
        store.notes(row.cell, row.evaluation)
        store.evaluation(row.cell, row.evaluation)
        store.examples(row.cell, row.evaluation, row.part)
        store.resamples(row.cell, row.evaluation, row.part, row.metric)
        store.embedded(row.cell, row.evaluation)
    for cost in store.costs().itertuples():
        store.log(str(cost.cell))
        store.configuration(str(cost.cell))


@pytest.mark.parametrize("how", HARMS)
@pytest.mark.parametrize("name", ["cell.json", "cost.json", "log.jsonl"])
def test_a_damaged_cell_is_left_out_of_the_report(name: str, how: str, broken: Path) -> None:
    cell = cell_of(broken)
    harm(cell / name, how)
    store = Store(broken)
    store.without_damage(lambda: report(store))
    assert set(store.rows()["arm"]) == {"siglip"}
    if (name, how) != ("cost.json", "deleted"):
        (line,) = store.damage.values()
        assert str(cell / name) in line
        assert f"--again {cell.name}" in line


def test_the_whole_report_is_written_without_what_is_damaged(broken: Path, bench: Bench) -> None:
    harm(next(cell_of(broken).glob("evaluations/zero_shot*")) / "resamples.parquet", "flipped")
    harm(cell_of(broken, "siglip") / "log.jsonl", "flipped")
    assert bench("report") == 0, bench.err
    assert bench.out.count("Left out: ") == 2
    assert "Left out: " in (broken / "report" / "report.md").read_text()


@pytest.mark.parametrize("how", ["flipped", *(pytest.param(how, marks=pytest.mark.slow) for how in list(HARMS)[:2])])
def test_damaged_weights_are_an_error_that_names_the_remedy(how: str, broken: Path, bench: Bench) -> None:
    before, cell = values(Store(broken)), cell_of(broken)
    harm(cell / "best.safetensors", how)
    shutil.rmtree(next(cell.glob("evaluations/retrieval*")))
    assert bench(*RUN) == 1
    assert f"{cell.name}/best.safetensors: is" in bench.out
    assert f"--again {cell.name}" in bench.out
    assert bench(*RUN, "--again", cell.name[:6]) == 0, bench.out
    assert "trained 1, evaluated 2" in bench.out
    assert values(Store(broken)) == before
    assert bench(*RUN, "--again", "zz") == 2
    assert "--again zz: no cell of this run has a key that starts so" in bench.err


def test_damaged_folders_of_the_cache_are_made_again(broken: Path, bench: Bench) -> None:
    """A file of each kind in turn, in all ways: the same weights come out."""
    before = {arm: (cell_of(broken, arm) / "last.safetensors").read_bytes() for arm in ("clip", "siglip")}
    kept = [path for path in (bench.folder / "cache").rglob("*") if path.is_file() and path.name[0] != "."]
    kinds = {(path.relative_to(bench.folder / "cache").parts[0], path.suffix): path for path in kept}
    assert {kind for kind, _ in kinds} >= {"records", "prepared", "tokenizers", "decoded"}
    for number, path in enumerate(kinds.values()):
        harm(path, list(HARMS)[number % 4])
    shutil.rmtree(broken / "cells")
    assert bench(*RUN) == 0, bench.out
    for arm, weights in before.items():
        assert (cell_of(broken, arm) / "last.safetensors").read_bytes() == weights


def test_the_doctor_sees_each_damage_and_changes_nothing(
    broken: Path, bench: Bench, record_property: Callable[[str, object], None]
) -> None:
    """Every file of results and cache, one at a time, in every way."""
    folder = bench.folder / "cache"
    checks = {"prepared": check_prepared}

    def damaged() -> list[str]:
        of_results, of_cache = results_health(Store(broken)), cache_health(folder, CACHED, checks)
        return [str(error) for error in (*of_results.damaged, *of_cache.damaged)]

    assert damaged() == []
    assert {path.name for path in folder.iterdir() if path.name[0] != "."} <= {*CACHED}
    # Those that are made anew without a loss when they are gone, and those that nothing is read from.
    dispensable, unread = ("claims.json", "datasets.json", "clock.json", FILES), ("run.log", "runs")
    files = [path for path in (*broken.rglob("*"), *folder.rglob("*")) if path.is_file() and path.name[0] != "."]
    tried = 0
    for path in files:
        if path.is_relative_to(broken) and path.relative_to(broken).parts[0] in unread:
            continue
        whole, left = path.read_bytes(), sorted(broken.rglob("*"))
        for how in HARMS:
            if how == "deleted" and (
                path.name in dispensable or (path.suffix == ".json" and path.parent.parent == folder)
            ):
                continue
            if path.name == "images.bin" and how == "flipped":
                continue
            harm(path, how)
            lines = damaged()
            assert len(lines) == 1, (path, how, lines)
            name = path.parent.name if path.parent.parent.name == "prepared" else path.name
            assert name in lines[0] or path.parent.name in lines[0], (path, how, lines)
            path.write_bytes(whole)
            tried += 1
        assert sorted(broken.rglob("*")) == left
    record_property("damages", tried)
    assert tried > 150
    harm(next(folder.rglob("images.bin")), "flipped")
    assert damaged() == []
    assert bench("doctor") == 0, bench.out
    assert bench("doctor", "--images") == 1
    assert "image of images.bin is not what was written; it is prepared again" in bench.out
    assert "1 wrong" in bench.out


def test_claims_and_datasets_that_are_damaged_are_written_again(broken: Path, bench: Bench) -> None:
    before = Store(broken).datasets().keys()
    for how in ("halved", "flipped"):
        harm(broken / "datasets.json", how)
        (broken / "claims.json").write_text("{")
        assert bench("report") == 2
        assert "claims.json: is damaged" in bench.err
        assert bench(*RUN) == 0, bench.out
        assert Store(broken).datasets().keys() == before


def test_results_of_earlier_versions_are_read_without_a_check(tmp_path: Path) -> None:
    store, label = Store(tmp_path), {"suite": "s", "model": "m", "method": "clip", "variant": "", "seed": 0}
    for name, value in (("b", 1.0), ("a", 2.0)):
        folder = store.cell(name) / "evaluations" / "k"
        folder.mkdir(parents=True)
        row = label | {"dataset": "d", "task": "t", "part": "", "metric": "x", "value": value, "cell": name}
        contents: dict[Path, Any] = {folder / "rows.json": [row], store.cell(name) / "cost.json": {"seconds": value}}
        contents[store.cell(name) / "cell.json"] = {"label": label, "content": {}}
        for path, content in contents.items():
            path.write_text(json.dumps(content))
            os.utime(path, (1e9, 1e9))
    # Of equal times the higher key counts.
    assert store.rows()["value"].tolist() == [1.0]
    for path in store.cell("a").rglob("*.json"):
        os.utime(path, (1e9 + 1, 1e9 + 1))
    assert store.rows()["value"].tolist() == [2.0]
    (store.cell("a") / "cost.json").write_text('{"format": 2, "content": {}}')
    store.rows()
    assert "has format 2, this version reads up to 1" in next(iter(store.damage.values()))


def test_values_of_the_cache_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    cache.remember(path, [1, 2.5])
    assert cache.remembered(path) == [1, 2.5]
    for how in ("emptied", "halved", "flipped"):
        cache.remember(path, [1, 2.5])
        harm(path, how)
        assert cache.remembered(path) is None
        assert not path.exists()
    path.write_text("[1, 2.5]")
    assert cache.remembered(path) is None


def test_files_and_folders_follow_the_umask(trained: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    for path in [*(trained / "results").rglob("*"), *(trained / "cache").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o777 if path.is_dir() else 0o666) & ~mask, path


def test_what_is_complete_was_on_the_disk_before_it_had_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file of a finished cell and of an evaluation is synced before the rename that makes it count."""
    synced: set[tuple[str, int]] = set()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        state = os.fstat(descriptor)
        synced.add((f"{state.st_dev} {state.st_ino}", state.st_size))
        real(descriptor)

    renamed: list[Path] = []
    replace = Path.replace

    def check(self: Path, to: Path) -> Path:
        for path in [self, *(self.rglob("*") if self.is_dir() else ())]:
            state = path.stat()
            assert (f"{state.st_dev} {state.st_ino}", state.st_size) in synced, path
        renamed.append(Path(to))
        return replace(self, to)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", check)
    store = Store(tmp_path)
    store.partial("a").mkdir(parents=True)
    (store.partial("a") / "last.safetensors").write_bytes(b"x")
    store.finish("a", {"label": {}, "content": {}}, {})
    store.add_evaluation("a", "k", {}, [], {"": {"id": np.array(["1"])}}, {}, {})
    cache.build_folder(tmp_path / "cache" / "x", lambda folder: (folder / "y").write_text("z") and None)
    assert {"a", "k", "x", "cell.json", "cost.json", "rows.json", "clock.json"} <= {path.name for path in renamed}


def test_api_reads_what_is_intact(broken: Path, tmp_path: Path) -> None:
    harm(cell_of(broken) / "cost.json", "halved")
    results = Results.open(broken)
    assert set(results.rows()["arm"]) == {"siglip"}
    assert write_report(results.store, tmp_path / "r", None, Console(quiet=True))
    with pytest.raises(DamagedError, match="--again"):
        results.store.cost(next(iter(results.store.damage)).name)
    assert issubclass(DamagedError, BenchError)
