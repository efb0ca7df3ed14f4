"""Commands that are killed at random moments and given again end as undisturbed ones. Kills of runs: test_fleet.py."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import optuna
import pytest

from benchmark.store.cleaning import removable
from benchmark.store.store import Store
from tests.evaluation.folders import clip_folder
from tests.execution.fleet import check_equal
from tests.faults.killing import complete, kill_once

KILLS = 20
"""Of each command."""
RUN = ["run", "--suite", "suite.yaml", "--methods", "clip", "--tasks", "zero_shot,retrieval"]
RUN += ["--set", "training.samples=96", "--set", "evaluation.resamples=20"]
TUNE = ["tune", "--suite", "suite.yaml", "--methods", "clip", "--trials", "3", "--set", "training.samples=64"]
EVAL = ["eval", "--suite", "suite.yaml", "--model", "hf:clip", "--tasks", "zero_shot,linear_probe"]


@pytest.fixture(scope="module")
def work(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two results folders and the cache that they were made with, in a folder to copy."""
    folder = tmp_path_factory.mktemp("kills") / "work"
    shutil.copytree(squares, folder)
    clip_folder(folder / "clip", "clip")
    complete(folder, *RUN)
    shutil.copytree(folder / "results", folder / "other")
    complete(folder, *RUN, "--set", "training.learning_rate=0.002", "--results", "other")
    return folder


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def same_rows(name: str) -> Callable[[Path, Path], None]:
    def check(folder: Path, expected: Path) -> None:
        check_equal(folder / name, expected / name)

    return check


def same_files(name: str) -> Callable[[Path, Path], None]:
    def check(folder: Path, expected: Path) -> None:
        assert contents(folder / name) == contents(expected / name)

    return check


def same_rows_of_all(folder: Path, expected: Path) -> None:
    keys = ["cell", "dataset", "task", "part", "metric", "value", "low", "high"]
    frames = [
        Store(each / "results").rows()[keys].sort_values(keys[:5], ignore_index=True) for each in (folder, expected)
    ]
    assert frames[0].equals(frames[1])


def same_trials(folder: Path, expected: Path) -> None:
    def trials(of: Path) -> list[Any]:
        (database,) = of.rglob("studies.db")
        storage = f"sqlite:///{database}"
        studies = optuna.get_all_study_names(storage)
        every = [
            (name, each) for name in studies for each in optuna.load_study(study_name=name, storage=storage).trials
        ]
        return [(name, each.params, each.value) for name, each in every if each.value is not None]

    assert trials(folder) == trials(expected)


def nothing_to_clean(folder: Path, _: Path) -> None:
    left = removable(Store(folder / "results"), folder / "cache")
    assert not any(left.values()), left
    assert not [path for path in folder.rglob(".*") if path.name.endswith(".removed")]
    complete(folder, *RUN)


COMMANDS: dict[str, tuple[list[str], Callable[[Path, Path], None]]] = {
    "tune": (TUNE, same_trials),
    "eval": (EVAL, same_rows_of_all),
    "report": (["report"], same_files("results/report")),
    "merge": (["merge", "results", "other", "--into", "joined"], same_rows("joined")),
    "clean": (["clean", "--embeddings", "--cache", "--partial", "--yes"], nothing_to_clean),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_that_is_given_again_ends_as_an_undisturbed_one(name: str, work: Path, tmp_path: Path) -> None:
    arguments, check = COMMANDS[name]
    expected = tmp_path / "undisturbed"
    shutil.copytree(work, expected)
    seconds = complete(expected, *arguments)
    random, going = Random(name), 0
    for number in range(KILLS):
        folder = tmp_path / str(number)
        shutil.copytree(work, folder)
        going += kill_once(folder, random, seconds, *arguments)
        complete(folder, *arguments)
        check(folder, expected)
        shutil.rmtree(folder)
    print(f"{name}: {KILLS} kills, {going} while it was going on; an undisturbed one takes {seconds:.1f} s")
