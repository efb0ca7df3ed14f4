"""Trackers: what TensorBoard keeps, what the other libraries are called with, and what failures do."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmark.common.errors import BenchError
from benchmark.common.tracking import POINTS, Tracking
from tests.common.tracker_fakes import MODULES

SETTINGS = {"suite": "demo", "options": {"alpha": 0.5}, "training": {"betas": [0.9, 0.98]}}
SCORES = [
    {"task": "retrieval", "dataset": "squares", "part": "image_to_text", "metric": "recall@10", "value": 0.25},
    {"task": "zero_shot", "dataset": "squares", "part": "", "metric": "auroc", "value": float("nan")},
]


def line(step: int, **more: float) -> dict[str, Any]:
    return {"stage": "pretrain", "step": step, "samples": 8 * step, "loss": 9.0 - step, "seconds": 1.0, **more}


def track(tracking: Tracking, steps: Sequence[int], of: int = 4, interrupt: bool = False) -> None:
    """Log these steps and, unless it is interrupted, scores of weights at the half and at the end."""
    with tracking.cell("clip é/1-seed-0", SETTINGS):
        for step in steps:
            tracking.step(line(step), 100.0 + step, of)
        if interrupt:
            raise KeyboardInterrupt
        tracking.scores([{**SCORES[0], "at": 0.5, "samples": 16, "value": 0.125}], 32)
        tracking.scores(SCORES, 32)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture(params=MODULES)
def library(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a library whose fake is installed, and which the environment says nothing about."""
    name: str = request.param
    for variable in ("WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "TRACKIO_DIR"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    (tmp_path / f"{name}.py").write_text(MODULES[name])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield name
    sys.modules.pop(name, None)


def test_tensorboard_keeps_every_value(tmp_path: Path) -> None:
    said: list[str] = []
    tracking = Tracking.of("tensorboard", tmp_path, said.append)
    assert said == [f"tracking: tensorboard --logdir {tmp_path / 'tensorboard'}"]
    track(tracking, [1, 2, 3, 4])
    found = scalars(tmp_path / "tensorboard" / "clip-1-seed-0")
    assert found == {
        "loss": [(8, 8.0), (16, 7.0), (24, 6.0), (32, 5.0)],
        "samples_per_second": [(8, 101.0), (16, 102.0), (24, 103.0), (32, 104.0)],
        "retrieval/squares/image_to_text/recall@10": [(16, 0.125), (32, 0.25)],
    }


def test_tensorboard_forgets_what_a_killed_training_repeats(tmp_path: Path) -> None:
    """Steps 3 and 4 were sent and are lost with the process: the training goes on after step 2."""
    with pytest.raises(KeyboardInterrupt):
        track(Tracking.of(["tensorboard"], tmp_path, print), [1, 2, 3, 4], of=6, interrupt=True)
    track(Tracking.of(["tensorboard"], tmp_path, print), [3, 4, 5, 6], of=6)
    losses = scalars(tmp_path / "tensorboard" / "clip-1-seed-0")["loss"]
    assert losses == [(8 * step, 9.0 - step) for step in (1, 2, 3, 4, 5, 6)]


def test_libraries_are_called_as_they_are_meant_to_be(library: str, tmp_path: Path) -> None:
    """A training that is interrupted after two of four steps goes on in the same run."""
    folder, said = tmp_path / "tracking", []
    with pytest.raises(KeyboardInterrupt):
        track(Tracking.of([library], folder, said.append), [1, 2], interrupt=True)
    track(Tracking.of([library], folder, said.append), [3, 4])
    assert len(said) == 2, said
    calls = sys.modules[library].calls
    steps = [({"loss": 9.0 - step, "samples_per_second": 100.0 + step}, 8 * step) for step in (1, 2, 3, 4)]
    score, label = "retrieval/squares/image_to_text/recall@10", "clip-1-seed-0"
    if library == "wandb":
        begun = ("init", "contrastive-benchmark", str(folder), label, label, SETTINGS, "allow")
        scores = [("summary", {f"{score} at 0.5": 0.125}), ("summary", {score: 0.25})]
        logs = [("log", *step) for step in steps]
        assert calls == [begun, *logs[:2], ("finish", 1), begun, *logs[2:], *scores, ("finish", 0)]
    elif library == "trackio":
        assert str(folder / "trackio") == sys.modules[library].TRACKIO_DIR
        begun = ("init", "contrastive-benchmark", label, SETTINGS, "allow", False)
        scores = [("log", {score: 0.125}, 16), ("log", {score: 0.25}, 32)]
        logs = [("log", *step) for step in steps]
        assert calls == [begun, *logs[:2], ("finish",), begun, *logs[2:], *scores, ("finish",)]
    else:
        place = ("uri", f"sqlite:///{folder / 'mlflow.db'}")
        params = {"suite": "demo", "options.alpha": "0.5", "training.betas": "[0.9, 0.98]"}
        score = score.replace("@", "_")
        scores = [("metrics", {score: 0.125}, 16), ("metrics", {score: 0.25}, 32)]
        logs = [("metrics", *step) for step in steps]
        first = [place, ("start", "id0"), ("params", params), *logs[:2], ("end", "KILLED")]
        assert calls == [*first, place, ("start", "id0"), *logs[2:], *scores, ("end", "FINISHED")]


class Mine:
    """Keeps what it gets; fails at a step."""

    def __init__(self, fails_at: int = 0) -> None:
        self.fails_at, self.calls = fails_at, []

    def start(self, label: str, settings: Mapping[str, Any]) -> None:
        self.calls.append(("start", label))

    def step(self, values: Mapping[str, float], samples: int) -> None:
        if samples == self.fails_at:
            raise OSError("no space left\non the device")
        self.calls.append(samples)

    def scores(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.calls.append([(row["metric"], row["samples"]) for row in rows])

    def end(self, state: str) -> None:
        self.calls.append(("end", state))


def test_a_tracker_that_fails_is_dropped_and_the_others_go_on(tmp_path: Path) -> None:
    said: list[str] = []
    failing, mine = Mine(fails_at=16), Mine()
    track(Tracking.of([failing, mine], tmp_path, said.append), [1, 2, 3])
    assert failing.calls == [("start", "clip-1-seed-0"), 8]
    assert said == ["tracking by Mine stopped, and the run goes on without it: OSError: no space left on the device"]
    scores = [[("recall@10", 16)], [("recall@10", 32), ("auroc", 32)]]
    assert mine.calls == [("start", "clip-1-seed-0"), 8, 16, 24, *scores, ("end", "done")]


def test_a_cell_that_fails_ends_as_failed(tmp_path: Path) -> None:
    mine = Mine()
    with pytest.raises(BenchError), Tracking.of([mine], tmp_path, print).cell("clip", {}):
        raise BenchError("the loss is nan")
    assert mine.calls == [("start", "clip"), ("end", "failed")]


def test_a_function_gets_steps_and_long_trainings_are_thinned_out(tmp_path: Path) -> None:
    got: list[int] = []
    tracking = Tracking.of([lambda values, samples: got.append(samples)], tmp_path, print)
    steps = 5 * POINTS // 2
    with tracking.cell("clip", {}):
        for step in range(1, steps + 1):
            tracking.step(line(step, **({"validation_loss": 2.0} if step == 100 else {})), 1.0, steps)
    assert [samples // 8 for samples in got] == sorted({1, 100, *range(3, steps, 3), steps})


def test_mistakes_are_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BenchError, match="unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        Tracking.of("tensorbord", tmp_path, print)
    monkeypatch.setattr("benchmark.common.tracking.find_spec", lambda _: None)
    with pytest.raises(BenchError, match=r"^--track wandb: wandb is not installed; pip install wandb$"):
        Tracking.of(["wandb"], tmp_path, print)
    for wrong in (3, Mine, object()):
        with pytest.raises(BenchError, match="track: expected a name"):
            Tracking.of([wrong], tmp_path, print)  # type: ignore[list-item]
