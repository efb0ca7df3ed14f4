"""Send what trainings log to experiment trackers: TensorBoard, Weights & Biases, MLflow, Trackio, or the caller's."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from benchmark.common.errors import BenchError, shortened, unknown

PROJECT = "contrastive-benchmark"
"""The name under which trackers file the runs."""
POINTS = 1000
"""The most steps of a training that are sent, evenly spaced; log.jsonl has every step."""


class Tracker:
    """Receives what a cell logs while it is trained and evaluated. Any object with these methods can be one.

    An exception in any of them ends the tracking by this tracker, and not the training.
    """

    def start(self, label: str, settings: Mapping[str, Any]) -> None:
        """Begin a cell, or go on with one that was interrupted.

        label: names the cell in letters, digits, ``.``, ``_`` and ``-``, and is the same when it goes on. settings:
        its labels, options and training settings, as JSON types.
        """

    def step(self, values: Mapping[str, float], samples: int) -> None:
        """Take the values of a step, named as in log.jsonl, and ``samples_per_second``. samples: pairs trained on."""

    def scores(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take the rows of an evaluation, as ``Results.rows()`` has them, each with ``samples``: pairs trained on."""

    def end(self, state: str) -> None:
        """End the cell. state: done, failed or interrupted."""


class Library(Tracker):
    """A tracker that a library provides. package: its name; hint: how to look at what it keeps under ``folder``."""

    package: ClassVar[str]
    hint: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder


class TensorBoard(Library):
    """Event files under FOLDER/tensorboard/LABEL, by torch.utils.tensorboard."""

    package = "tensorboard"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "tensorboard")
        self.hint = f"tensorboard --logdir {self.folder}"

    @override
    def start(self, label: str, settings: Mapping[str, Any]) -> None:
        self.label, self.settings = label, settings
        self.writer: Any = None

    @override
    def step(self, values: Mapping[str, float], samples: int) -> None:
        for name, value in values.items():
            self._open(samples).add_scalar(name, value, samples)

    @override
    def scores(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for name, row in named(rows).items():
            self._open(row["samples"] + 1).add_scalar(name, row["value"], row["samples"])

    @override
    def end(self, state: str) -> None:
        if self.writer is not None:
            self.writer.close()

    def _open(self, samples: int) -> Any:
        """Return the writer. What an interrupted training has sent of ``samples`` and after is discarded."""
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder / self.label), purge_step=samples)
            # Indented by four: Markdown shows it as it is.
            lines = json.dumps(self.settings, indent=1).splitlines()
            self.writer.add_text("settings", "\n".join(f"    {line}" for line in lines))
        return self.writer


class WeightsAndBiases(Library):
    """Runs of Weights & Biases. WANDB_MODE=offline keeps them in FOLDER/wandb; WANDB_PROJECT names another project."""

    package = "wandb"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.hint = f"wandb, files in {folder / 'wandb'}"

    @override
    def start(self, label: str, settings: Mapping[str, Any]) -> None:
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        self.run = wandb.init(
            project=project, name=label, id=label, resume="allow", config={**settings}, dir=str(self.folder)
        )

    @override
    def step(self, values: Mapping[str, float], samples: int) -> None:
        self.run.log({**values}, step=samples)

    @override
    def scores(self, rows: Sequence[Mapping[str, Any]]) -> None:
        # Not log(): evaluations may come in any order, and a step must not be below the one before.
        self.run.summary.update({at(name, row): row["value"] for name, row in named(rows).items()})

    @override
    def end(self, state: str) -> None:
        self.run.finish(exit_code=0 if state == "done" else 1)


class MLflow(Library):
    """Runs of MLflow, in FOLDER/mlflow.db unless MLFLOW_TRACKING_URI names a place."""

    package = "mlflow"
    STATES = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.absolute() / 'mlflow.db'}"
        self.hint = f"mlflow ui --backend-store-uri {self.place}"

    @override
    def start(self, label: str, settings: Mapping[str, Any]) -> None:
        import mlflow

        self.folder.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(self.place)
        experiment = mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        earlier = mlflow.search_runs(
            experiment_ids=[experiment.experiment_id],
            filter_string=f"attributes.run_name = '{label}'",
            max_results=1,
            output_format="list",
        )
        if earlier:
            mlflow.start_run(run_id=earlier[0].info.run_id)
        else:
            mlflow.start_run(run_name=label)
            # MLflow takes at most 100 settings at once, and texts of at most 500 characters in older versions.
            settings_of_run = [(key, str(value)[:500]) for key, value in flat(settings)]
            for first in range(0, len(settings_of_run), 100):
                mlflow.log_params(dict(settings_of_run[first : first + 100]))

    @override
    def step(self, values: Mapping[str, float], samples: int) -> None:
        import mlflow

        mlflow.log_metrics({allowed(name): value for name, value in values.items()}, step=samples)

    @override
    def scores(self, rows: Sequence[Mapping[str, Any]]) -> None:
        import mlflow

        for name, row in named(rows).items():
            mlflow.log_metrics({allowed(name): row["value"]}, step=row["samples"])

    @override
    def end(self, state: str) -> None:
        import mlflow

        mlflow.end_run(self.STATES[state])


class Trackio(Library):
    """Runs of Trackio, in FOLDER/trackio unless TRACKIO_DIR names a place."""

    package = "trackio"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # Trackio reads it when it is imported.
        place = os.environ.setdefault("TRACKIO_DIR", str(folder.absolute() / "trackio"))
        self.hint = f"TRACKIO_DIR={place} trackio show --project {PROJECT}"

    @override
    def start(self, label: str, settings: Mapping[str, Any]) -> None:
        import trackio

        self.run = trackio.init(project=PROJECT, name=label, config={**settings}, resume="allow", embed=False)

    @override
    def step(self, values: Mapping[str, float], samples: int) -> None:
        self.run.log({**values}, step=samples)

    @override
    def scores(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for name, row in named(rows).items():
            self.run.log({name: row["value"]}, step=row["samples"])

    @override
    def end(self, state: str) -> None:
        self.run.finish()


class Steps(Tracker):
    """Calls a function with the values of each step, and the pairs trained on."""

    def __init__(self, function: Callable[[Mapping[str, float], int], object]) -> None:
        self.function = function

    @override
    def step(self, values: Mapping[str, float], samples: int) -> None:
        self.function(values, samples)


TRACKERS: dict[str, type[Library]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
    "trackio": Trackio,
}
"""Trackers by name. A new one is a class with the methods of ``Tracker``, ``package`` and ``hint``, and an entry."""

Tracked = str | Tracker | Callable[[Mapping[str, float], int], object]
"""What a user names a tracker by: its name, an object, or a function of the values of a step and the pairs so far."""


class Tracking:
    """Sends what cells log to several trackers.

    A tracker that fails is dropped: ``say`` gets a line, and the training goes on without it.
    """

    def __init__(
        self, trackers: Iterable[tuple[str, Tracker]] = (), say: Callable[[str], None] = lambda _: None
    ) -> None:
        """trackers: each with the name that messages give it."""
        self.trackers, self.say = list(trackers), say

    @classmethod
    def of(cls, tracked: str | Sequence[Tracked], folder: Path, say: Callable[[str], None]) -> "Tracking":
        """Make trackers by name, which write under ``folder``, and take the caller's own.

        tracked: a list, or a text with names separated by commas.

        Raises ``BenchError`` for an unknown name, and for one whose library is not installed.
        """
        names = [name.strip() for name in tracked.split(",")] if isinstance(tracked, str) else tracked
        trackers: list[tuple[str, Tracker]] = []
        for each in names:
            name = getattr(each, "__name__", type(each).__name__)
            if isinstance(each, str):
                if each not in TRACKERS:
                    raise unknown("tracker", each, TRACKERS)
                kind = TRACKERS[each]
                if find_spec(kind.package) is None:
                    raise BenchError(f"--track {each}: {kind.package} is not installed; pip install {kind.package}")
                made = kind(folder)
                trackers.append((each, made))
                say(f"tracking: {made.hint}")
            elif isinstance(each, Tracker) or _has_methods(each):
                trackers.append((name, each))  # type: ignore[arg-type]
            elif callable(each) and not isinstance(each, type):
                trackers.append((name, Steps(each)))
            else:
                raise BenchError(
                    f"track: expected a name ({', '.join(TRACKERS)}), a function or an object with the methods start, "
                    f"step, scores and end; found {shortened(each)}"
                )
        return cls(trackers, say)

    @contextmanager
    def cell(self, label: str, settings: Mapping[str, Any]) -> Iterator[None]:
        """Track a cell while the block runs."""
        self._each(lambda tracker: tracker.start(re.sub(r"[^\w.-]+", "-", label, flags=re.ASCII), settings))
        state = "failed"
        try:
            yield
            state = "done"
        except KeyboardInterrupt:
            state = "interrupted"
            raise
        finally:
            self._each(lambda tracker: tracker.end(state))

    def step(self, line: Mapping[str, Any], samples_per_second: float, steps: int) -> None:
        """Send a line of log.jsonl. steps: of the whole training; of more than ``POINTS``, only some are sent."""
        step = line["step"]
        if self.trackers and (step % -(-steps // POINTS) == 0 or step in (1, steps) or "validation_loss" in line):
            values = {
                name: value
                for name, value in line.items()
                if isinstance(value, int | float) and name not in ("step", "samples", "seconds")
            }
            values["samples_per_second"] = samples_per_second
            self._each(lambda tracker: tracker.step(values, line["samples"]))

    def scores(self, rows: Sequence[Mapping[str, Any]], samples: int) -> None:
        """Send the rows of an evaluation. samples: pairs trained on, for rows of weights at the end of a training."""
        if self.trackers:
            sent = [{"samples": samples, **row} for row in rows]
            self._each(lambda tracker: tracker.scores(sent))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in [*self.trackers]:
            try:
                call(tracker)
            except Exception as error:
                self.trackers.remove((name, tracker))
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                self.say(f"tracking by {name} stopped, and the run goes on without it: {reason}")


def _has_methods(tracker: object) -> bool:
    return not isinstance(tracker, type) and all(
        callable(getattr(tracker, name, None)) for name in ("start", "step", "scores", "end")
    )


def named(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Name rows of an evaluation that have a value: task/dataset/part/metric, without the part where it has no name."""
    return {
        "/".join(filter(None, (row["task"], row["dataset"], row["part"], row["metric"]))): row
        for row in rows
        if row["value"] is not None and row["value"] == row["value"]
    }


def at(name: str, row: Mapping[str, Any]) -> str:
    """Add to the name of a score the share of the training after which it was measured, if that is not its end."""
    return f"{name} at {row['at']:g}" if "at" in row else name


def allowed(name: str) -> str:
    """Replace what MLflow does not accept in a name, such as the @ of recall@10."""
    return re.sub(r"[^\w\-. :/]", "_", name)


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Iterate over nested settings as ``section.key`` and value."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield allowed(f"{prefix}{key}"), value
