"""Inputs that mean harm: each is read or refused in a line, soon, and nothing outside results and cache changes."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.hostile import CANARY, KINDS, attempt, prepare, tree

MANY = {"strings": 7000, "commands": 1000, "documents": 5000, "manifests": 3000, "archives": 2000, "checkpoints": 2000}
FEW = {"strings": 150, "commands": 8, "documents": 80, "manifests": 10, "archives": 20, "checkpoints": 40}


def give(kind: str, numbers: range, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Give the inputs of these numbers; return how many were accepted and refused. Fails with those that broke."""
    work = folder / "above" / "work"
    work.mkdir(parents=True)
    prepare(work)
    monkeypatch.chdir(work)
    monkeypatch.setenv("BENCH_CACHE", str(work / "cache"))
    before, counts, broken = tree(work), Counter[str](), list[str]()
    for number in numbers:
        try:
            counts[attempt(kind, number, work)] += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            broken.append(f"{kind} {number}: {type(error).__name__}: {str(error)[:200]!r}")
        shutil.rmtree(work / "results" / "unpacked", ignore_errors=True)
        shutil.rmtree(work / "cache", ignore_errors=True)
    assert not broken, f"{len(broken)} of {len(numbers)}:\n" + "\n".join(broken[:30])
    assert tree(work) == before
    assert not [*folder.rglob(CANARY)]
    print(kind, len(numbers), dict(counts))
    return counts


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_hostile_inputs(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert give(kind, range(FEW[kind]), tmp_path, monkeypatch)["refused"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_hostile_inputs(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 in all."""
    assert sum(MANY.values()) == 20_000
    assert set(give(kind, range(MANY[kind]), tmp_path, monkeypatch)) == {"accepted", "refused"}


@pytest.mark.parametrize("kind", KINDS)
def test_an_attack_would_be_noticed(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks see a traceback, a file outside, and code that runs."""

    def fault(*_: object) -> None:
        Path(CANARY).touch()

    monkeypatch.setitem(KINDS, kind, fault)
    with pytest.raises(AssertionError):
        give(kind, range(2), tmp_path, monkeypatch)
