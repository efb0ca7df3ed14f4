"""Claims: one owner at a time, dead ones taken over once, and an owner who comes back knows."""

import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import pytest

from benchmark.store import claim as module
from benchmark.store.claim import Claim, ClaimLostError, Owner, claim, owner_of


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT", 0.05)
    monkeypatch.setattr(module, "DEAD", 0.5)


def held(path: Path) -> Claim:
    claimed = claim(path)
    assert isinstance(claimed, Claim)
    return claimed


def write(path: Path, generation: int, **changes: object) -> Path:
    """The file of a claim of another process, which has just given a sign of life."""
    owner = {"host": "elsewhere", "space": "", "process": 7, "began": "", "since": time.time(), "token": "t"} | changes
    file = path.with_name(f".{path.name}.claim-{generation}")
    file.write_text(json.dumps(owner))
    return file


def test_one_owner_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "cells" / "a"
    with held(path) as first:
        first.check()
        other = claim(path)
        assert isinstance(other, Owner)
        assert (other.process, str(other).split(":")[0]) == (os.getpid(), other.host)
        assert owner_of(path) == other
        assert isinstance(claim(path.with_name("b")), Claim)
    assert owner_of(path) is None
    held(path).release()
    assert not list(path.parent.glob(".a.*"))


def test_names_that_continue_another(tmp_path: Path) -> None:
    with held(tmp_path / "a.claim-1"), held(tmp_path / "a") as claimed, held(tmp_path / "a[1]*"):
        claimed.check()


def test_a_silent_claim_is_taken_over_and_its_owner_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    suspended = held(path)
    suspended._ended.set()  # gives no sign of life, like a process that is stopped
    suspended._beating.join()
    assert isinstance(claim(path), Owner)
    os.utime(suspended.path, (time.time() - 1,) * 2)
    new = held(path)
    new.check()
    with pytest.raises(ClaimLostError, match=f"was taken over by .*:{os.getpid()} since"):
        suspended.check()
    suspended.release()
    new.check()  # what another has is not released
    new.release()
    with pytest.raises(ClaimLostError, match="and is done"):
        suspended.check()


def test_a_new_claim_of_the_same_generation_is_not_the_old_one(tmp_path: Path) -> None:
    old = held(tmp_path / "a")
    old.path.unlink()
    held(tmp_path / "a")
    with pytest.raises(ClaimLostError):
        old.check()


def test_signs_of_life_keep_a_claim(tmp_path: Path) -> None:
    with held(tmp_path / "a") as claimed:
        time.sleep(1)
        assert isinstance(claim(tmp_path / "a"), Owner)
        claimed.check()


def test_a_process_that_ended_is_dead_at_once_and_one_elsewhere_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    began = module._began(ended.pid)
    ended.wait()
    write(path, 3, process=ended.pid, space=module._space(), began=began)
    new = held(path)
    assert new.path.name == ".a.claim-4"
    assert [file.name for file in tmp_path.iterdir()] == [".a.claim-4"]
    new.release()
    write(path, 1, process=os.getpid(), space=module._space(), began="1")  # its number is used again
    held(path).release()
    write(path, 1, process=ended.pid, space="another boot")
    assert isinstance(claim(path), Owner)
    write(path, 1, process=ended.pid, space="")
    assert isinstance(claim(path), Owner)


def test_a_claim_that_was_cut_off_while_it_was_written_is_dead_when_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ".a.claim-1"
    file.write_text("{")
    monkeypatch.setattr(module, "TRIES", 3)
    assert str(claim(tmp_path / "a")).startswith("unknown:")
    os.utime(file, (time.time() - 9,) * 2)
    held(tmp_path / "a")


def test_the_disks_clock_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose clock is an hour ahead takes nothing over."""
    write(tmp_path / "a", 1)
    now = time.time
    monkeypatch.setattr(module.time, "time", lambda: now() + 3600)
    assert isinstance(claim(tmp_path / "a"), Owner)


def take(path: Path, start: float, rounds: int) -> list[tuple[int, float, float]]:
    """Claim again and again; when each claim was held."""
    times = []
    for number in range(rounds):
        time.sleep(max(0.0, start + 0.02 * number - time.time()))
        claimed = claim(path)
        if isinstance(claimed, Claim):
            began = time.monotonic()
            time.sleep(0.001)
            if claimed.holds():
                times.append((number, began, time.monotonic()))
            claimed.release()
    return times


def test_of_many_takers_one_wins(tmp_path: Path) -> None:
    """Four processes, a hundred rounds at the same moment, with a dead claim left in the way before."""
    write(tmp_path / "a", 1, process=2**22 + 1, space=module._space(), began="1")
    start = time.time() + 1
    with get_context("fork").Pool(4) as pool:
        taken = pool.starmap(take, [(tmp_path / "a", start, 100)] * 4)
    intervals = sorted((began, ended) for times in taken for _, began, ended in times)
    assert len(intervals) >= 50
    assert all(first[1] <= second[0] for first, second in pairwise(intervals))
