"""Processes that are killed at random moments lose nothing, and do nothing twice."""

import shutil
import time
from pathlib import Path
from random import Random

import pytest

from tests.execution import kills


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "number"), [(1, 67), (2, 67), (4, 66)])
def test_kills_at_random_moments(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, number: int
) -> None:
    """Prints how many were killed in which phase, and what became of it. Each killed process is replaced."""
    suite, expected = Path(shutil.copytree(squares, tmp_path / "squares")), tmp_path / "undisturbed"
    kills.write_general(suite)
    expected.mkdir()
    monkeypatch.setenv("BENCH_CACHE", str(expected / "cache"))
    assert kills.everything(suite, expected) == []
    monkeypatch.setattr("benchmark.store.claim.DEAD", kills.DEAD)
    count, random, began = kills.Count(), Random(workers), time.monotonic()
    share = -(-number // len(kills.PHASES))
    while (left := number - count.kills.total()) > 0:
        folder = tmp_path / f"folder-{count.folders}"
        folder.mkdir()
        kills.kill_in(folder, suite, workers, left, share, random, count)
        kills.check(folder, expected, count)
        print(f"\n{kills.report(count, workers)}\n  {time.monotonic() - began:.0f} s", flush=True)
        if not any(count.faults.values()):
            shutil.rmtree(folder)
    assert not any(count.faults.values())
