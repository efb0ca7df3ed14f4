"""A search that is killed at any moment finds what an undisturbed one finds, and two at once are one search."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from benchmark.execution import tuning
from benchmark.execution.tuning import Axis, Best, _Search
from benchmark.plan.tuned import settings_of
from benchmark.store.claim import Claim, claim
from benchmark.store.files import DamagedError
from tests.squares import Bench

TRIALS = 7


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the search handles it."""


class Search(_Search):
    """A search in which a trial takes no time: its value is a formula of its settings."""

    def __init__(self, folder: Path, at: Callable[[str], None] = lambda _: None) -> None:
        self.axes = [Axis("training.learning_rate", 1e-4, 1e-2, log=True), Axis("training.weight_decay", 0.0, 0.2)]
        self.arm, self.rate, self.objective, self.folder, self.name = "clip", 1e-3, "loss", folder, "clip-study"
        self.at, self.progress = at, Quiet()  # type: ignore[assignment]

    def trial(self, trial: optuna.Trial, stage: Any, claimed: Claim) -> float:
        self.at("asked")
        settings = []
        for axis in self.axes:
            settings.append(axis.suggest(trial))
            self.at("suggested")
        self.at("trained")
        return abs(settings[0] - 3e-3) + abs(settings[1] - 0.1)


class Quiet:
    def __enter__(self) -> "Quiet":
        return self

    def __exit__(self, *_: object) -> None:
        return

    def stage(self, *_: object) -> "Quiet":
        return self

    def update(self, *_: object, **__: object) -> None:
        return

    def print(self, *_: object) -> None:
        return


def outcome(folder: Path) -> list[Any]:
    study = optuna.load_study(study_name="clip-study", storage=f"sqlite:///{folder / 'studies.db'}")
    return [(trial.params, trial.value) for trial in study.get_trials() if tuning.LOST not in trial.user_attrs]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], Best]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return outcome_of(folder, Search(folder).run(TRIALS))


def outcome_of(folder: Path, best: Best) -> tuple[list[Any], Best]:
    return outcome(folder), best


@pytest.mark.parametrize("moment", ["asked", "suggested", "trained"])
def test_a_killed_search_finds_the_same(
    moment: str, tmp_path: Path, undisturbed: tuple[list[Any], Best], monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = 0

    def kill(at: str) -> None:
        nonlocal passed
        passed += at == moment
        if at == moment and passed % 3 == 1:
            raise Killed

    # A process that is killed says nothing: its claim is found dead, here because it is given up.
    for _ in range(4 * TRIALS):
        try:
            best = Search(tmp_path, kill).run(TRIALS)
            break
        except Killed:
            continue
    assert passed > TRIALS
    assert outcome_of(tmp_path, best) == undisturbed
    assert undisturbed[0][0][0]["training.learning_rate"] == 1e-3


def test_two_searches_at_once_are_one(
    tmp_path: Path, undisturbed: tuple[list[Any], Best], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmark.store.claim.POLL", 0.01)
    found: list[Best] = []
    searches = [threading.Thread(target=lambda: found.append(Search(tmp_path).run(TRIALS))) for _ in range(2)]
    for search in searches:
        search.start()
    for search in searches:
        search.join()
    assert found == [undisturbed[1]] * 2
    assert outcome(tmp_path) == undisturbed[0]
    claimed = claim(tmp_path / "clip-study")
    assert isinstance(claimed, Claim), "both gave the study up"
    claimed.release()


def test_who_lost_the_study_writes_nothing_and_waits(
    tmp_path: Path, undisturbed: tuple[list[Any], Best], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmark.store.claim.POLL", 0.01)
    lost: list[Path] = []

    def lose(at: str) -> None:
        if at == "trained" and not lost:
            lost.extend(tmp_path.glob(".clip-study.claim-*"))
            lost[0].unlink()

    best = Search(tmp_path, lose).run(TRIALS)
    assert len(lost) == 1
    assert outcome_of(tmp_path, best) == undisturbed
    assert not [*tmp_path.glob(".*claim*")]


def test_damaged_files_of_a_search_are_named(tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "studies.db").write_bytes(b"x" * 5000)
    with pytest.raises(DamagedError, match=r"studies.db: is damaged, or no database of trials .* move it away"):
        Search(tmp_path).run(1)
    (tmp_path / "studies.db").unlink()
    config = bench_config(bench)
    path = tuning.settings_file(config, tmp_path, "clip")
    for text in ("", '{"settings"', "[]", "{}", '{"settings": {"a": 1}, "sha256": "0"}'):
        path.write_text(text)
        with pytest.raises(DamagedError, match=r"clip-.*json: is damaged.* run the same bench tune again"):
            settings_of(config.model_copy(update={"tuned": str(tmp_path)}), "clip")


def bench_config(bench: Bench) -> Any:
    from tests.squares import planned

    return planned(bench.folder, methods=["clip"]).config


QUICK = ["--suite", "suite.yaml", "--methods", "clip", "--budget", "steps=2", "--trials", "1", "--progress", "none"]


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ("training.learning_rate=a,b", "training.learning_rate: expected a number, found 'a'"),
        ("training.learning_rate={a: b},[1]", "--search training.learning_rate="),
        (
            "training.batch_size=0..4",
            "--search training.batch_size=0: training.batch_size: expected a number greater than 0",
        ),
        ("training.betas=[1,2],[3,4]", "arm 'clip': none of its 1 trials completed"),
    ],
)
def test_settings_that_no_training_can_have(search: str, said: str, bench: Bench) -> None:
    assert bench("tune", *QUICK, "--search", search) == 2
    assert said in bench.err
    assert bench.err.count("\n") == 1
    assert "Traceback" not in bench.out


def test_rates_may_be_listed(bench: Bench) -> None:
    """Also without the arm's own."""
    assert bench("tune", *QUICK, "--search", "training.learning_rate=0.01,0.02") == 0, bench.err
    assert "training.learning_rate=0.0" in bench.out


@pytest.mark.parametrize("fault", ["sys.exit(0)", "import os; os._exit(0)", "raise ValueError('odd')"])
def test_a_trial_that_a_plug_in_ends(fault: str, bench: Bench) -> None:
    """It counts as failed, and the next one goes on."""
    (bench.folder / "odd.py").write_text(
        "import sys\nfrom benchmark import Method, register_method\nclass State: runs = 0\n"
        "@register_method('odd')\nclass Odd(Method):\n"
        "    def contrast(self, embeddings, keys):\n"
        f"        if State.runs < 2:\n            State.runs += 2\n            {fault}\n"
        "        return {'loss': -(embeddings['image'] * embeddings['text']).sum(1).mean()}\n"
    )
    options = ["--methods", "odd", "--plugin", "odd.py", "--trials", "2"]
    assert bench("tune", *QUICK, *options) == 0, bench.err
    first, second = [line for line in bench.out.splitlines() if "/2] odd" in line]
    assert fault.partition("; ")[2].partition("(")[0] in first
    assert "retrieval" in second
