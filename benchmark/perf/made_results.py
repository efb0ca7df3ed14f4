"""A results folder of any size, for `bench perf --works report` and tests: made-up scores, written by the store.

``python -m benchmark.perf.made_results FOLDER SCALE`` writes one.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.store.rows import EmbeddedNotes, Label, Row
from benchmark.store.store import Store

STEPS, DIMENSIONS, EMBEDDED = 200, 64, 200
CLASSES = ("a", "b", "c", "d", "e", "f")
BASELINES = ("initial weights", "raw pixels")


@dataclass(frozen=True)
class Kind:
    """What the evaluations of a kind of task have. metrics: the first is primary. draws: of what is learned from.

    notes: of each part. classes: whether examples have scores of classes. embedded: whether embeddings are kept.
    """

    metrics: tuple[str, ...]
    parts: tuple[str, ...] = ("",)
    draws: int = 1
    notes: Mapping[str, Any] = field(default_factory=dict)
    classes: bool = False
    embedded: bool = False


OF_CLASSES = Kind(
    ("auroc", "accuracy", "balanced_accuracy", "ece", "brier", "f1", "precision"),
    notes={
        "support": dict.fromkeys(CLASSES, 60),
        "recall": dict.fromkeys(CLASSES, 0.5),
        "auroc": dict.fromkeys(CLASSES, 0.7),
        "absent": [],
        "undefined": [],
        "unknown_label": 0,
    },
    classes=True,
)
SHOTS = {f"auroc@{count}": str(count) for count in (1, 2, 4, 8, 16)}
OF_SHOTS = Kind(
    ("auroc@16", "auroc@1", "auroc@2", "auroc@4", "auroc@8"),
    draws=5,
    notes={
        "curve": {"images a class": {count: metric for metric, count in SHOTS.items()}},
        "drawn": {metric: {"images": [int(count)] * 5, "groups": [int(count)] * 5} for metric, count in SHOTS.items()},
    },
)
OF_RANKS = Kind(
    ("recall@10", "median_rank", "mrr", "map", "recall@1", "recall@5", "recall@50", "recall@200"),
    ("image_to_text", "text_to_image"),
    embedded=True,
)
OF_ANSWERS = Kind(
    ("accuracy", "accuracy_open", "accuracy_closed", "gain", "f1_open"),
    notes={
        "definitions": dict.fromkeys(("accuracy", "accuracy_open", "accuracy_closed", "gain"), "is made up"),
        "breakdown": {"type": {name: {"n": 60, "accuracy": 0.5} for name in CLASSES}},
    },
)
KINDS = (OF_CLASSES, OF_SHOTS, OF_RANKS, OF_ANSWERS, OF_CLASSES, OF_CLASSES)


def make_results(
    folder: Path,
    arms: Sequence[str],
    datasets: Sequence[str],
    kinds: Mapping[str, Kind],
    seeds: int = 5,
    groups: int = 400,
    resamples: int = 1000,
) -> Store:
    """Write trainings of the arms, two baselines and their evaluations; later arms are better.

    kinds: of tasks, by their names. groups: of each test set. There are (arms + 2) * datasets * kinds * seeds
    evaluations.
    """
    store = Store(folder)
    store.create()
    # The draws of groups are those of a test set: the same in all evaluations of it.
    drawn = [
        np.random.default_rng(dataset).multinomial(groups, np.full(groups, 1 / groups), size=resamples) / groups
        for dataset in range(len(datasets))
    ]
    embedded, count = min(EMBEDDED, groups, 4 * len(arms) * len(datasets)), len(arms)
    for number, arm in enumerate([*arms, *BASELINES]):
        for seed in range(seeds):
            cell = _Cell(store, _key(number, seed), _label(arm, seed, datasets[0]), number, seed, embedded)
            cell.train()
            starts = {"start": _key(count, seed), "raw_pixels": _key(count + 1, seed)}
            for name, of_dataset in zip(datasets, drawn):
                for task, kind in kinds.items():
                    places = datasets.index(name), [*kinds].index(task)
                    skill = 0.35 + 0.3 * (number % count) / count
                    cell.evaluate(_Measured(name, task, kind, *places), skill, of_dataset, starts)
    return store


def of_scale(scale: float, folder: Path) -> Store:
    """Write 5,400 evaluations at scale 1, and at least 20."""
    most = {"arms": 16, "datasets": 10, "kinds": 6, "seeds": 5}
    least = {"arms": 3, "datasets": 2, "kinds": 2, "seeds": 1}
    count = {name: max(least[name], round(n * scale ** (1 / 3))) for name, n in most.items()}
    arms, datasets = ([f"{name} {number}" for number in range(count[f"{name}s"])] for name in ("arm", "dataset"))
    kinds = {f"task {number}": kind for number, kind in enumerate(KINDS[: count["kinds"]])}
    return make_results(folder, arms, datasets, kinds, count["seeds"])


def _key(number: int, seed: int) -> str:
    return f"{number:08x}{seed:08x}"


def _label(arm: str, seed: int, pretraining: str) -> Label:
    label: Label = {"suite": "made up", "model": "tiny", "method": arm, "variant": "", "seed": seed}
    if arm in BASELINES:
        return {**label, "role": "baseline"}
    return {**label, "arm": arm, "pretraining": pretraining, "recipe": f"training.learning_rate={len(arm)}e-4"}


@dataclass(frozen=True)
class _Measured:
    """What an evaluation is of: a dataset, a task and its kind; numbers: of the dataset and of the task."""

    dataset: str
    task: str
    kind: Kind
    dataset_number: int
    task_number: int

    @property
    def key(self) -> str:
        """The key of the evaluation."""
        return f"task-{self.task_number}-dataset-{self.dataset_number}"


@dataclass(frozen=True)
class _Cell:
    """A cell that is written; number: of its arm; embedded: images of which a dataset's embeddings are shown."""

    store: Store
    key: str
    label: Label
    number: int
    seed: int
    embedded: int

    def train(self) -> None:
        """Write the training, with a log where it is no baseline."""
        folder = self.store.partial(self.key)
        folder.mkdir(parents=True)
        if "arm" not in self.label:
            self.store.finish(self.key, {"label": self.label, "content": {}}, {})
            return
        seconds = 100.0 * 1.1**self.number
        steps = np.arange(1, STEPS + 1)
        noise = np.random.default_rng([self.number, self.seed]).random(STEPS)
        log = [
            {"step": step, "samples": 64 * step, "loss": loss, "learning_rate": 1e-3, "seconds": step * seconds / STEPS}
            for step, loss in zip(steps.tolist(), (3 / np.sqrt(steps) + noise).tolist())
        ]
        (folder / "log.jsonl").write_text("\n".join(map(json.dumps, log)), encoding="utf-8")
        cost = {
            "samples": 64 * STEPS,
            "steps": STEPS,
            "seconds": seconds,
            "samples_per_second": 64 * STEPS / seconds,
            "peak_memory": 6e8 + 1e7 * self.number,
            "parameters": 1_000_000,
            "parameters_trainable": 1_000_000,
            "flops_per_sample": 2e8,
            "batch_size": 64,
            "micro_batch": 16,
            "precision": "fp32",
            "accumulation": "cached",
            "device": "cpu",
            "validation_loss": 2.0,
            "machine": {"processor": "made up", "cores": 2},
            "version": "0",
        }
        content = {"method": self.label["method"], "options": {"width": self.number}, "training": {"batch_size": 64}}
        self.store.finish(self.key, {"label": self.label, "content": content}, cost)

    def evaluate(self, of: _Measured, skill: float, drawn: np.ndarray, starts: Mapping[str, str]) -> None:
        """Write an evaluation. drawn: the share of each group in each resample, [R, groups]; starts: its baselines."""
        kind, numbers = of.kind, [of.dataset_number, of.task_number]
        rng = np.random.default_rng([self.number, self.seed, *numbers])
        groups = drawn.shape[1]
        hard = np.random.default_rng(numbers).normal(size=groups)
        rows, examples, resampled = [], {}, {}
        for part in kind.parts:
            of_metrics = len(kind.metrics), kind.draws, groups
            ability = skill + 0.1 * rng.normal(size=(len(kind.metrics), kind.draws, 1))
            scores = np.clip(ability + 0.1 * hard + 0.3 * rng.normal(size=of_metrics), 0, 1)
            resampled[part] = dict(zip(kind.metrics, scores @ drawn.T))
            examples[part] = _examples(rng, scores[0, 0], kind.classes)
            rows += [
                self._row(of, part, metric, scores[place], resampled[part][metric], starts)
                for place, metric in enumerate(kind.metrics)
            ]
        notes = {part: {**kind.notes, "gallery": {"none": "it is made up"}} for part in kind.parts}
        embedded = self._embedded(rng, of.dataset_number, groups) if kind.embedded else None
        content = {"format": 1, "dataset": of.dataset, "evaluation": {}}
        self.store.add_evaluation(self.key, of.key, content, rows, examples, resampled, notes, embedded)

    def _row(
        self,
        of: _Measured,
        part: str,
        metric: str,
        scores: np.ndarray,
        resampled: np.ndarray,
        starts: Mapping[str, str],
    ) -> Row:
        low, high = np.quantile(resampled.mean(axis=0), [0.025, 0.975]).tolist()
        groups = scores.shape[1]
        row: Row = {
            **self.label,  # type: ignore[typeddict-item]
            "dataset": of.dataset,
            "task": of.task,
            "part": part,
            "metric": metric,
            "value": float(scores.mean()),
            "low": low,
            "high": high,
            "n": groups,
            "groups": groups,
            "effective_groups": float(groups),
            "scarcest": None,
            "chance": 0.2,
            "majority": 0.25,
            "blind": {},
            "ceiling": None,
            "primary": metric == of.kind.metrics[0],
            "examples": f"{of.dataset}, {of.task}",
            "cell": self.key,
            "evaluation": of.key,
            "start": starts["start"],
            "raw_pixels": starts["raw_pixels"],
        }
        if len(scores) > 1:
            row |= {"of_draws": scores.mean(axis=1).tolist(), "over_groups": [low, high]}
        return row

    def _embedded(self, rng: np.random.Generator, dataset: int, groups: int) -> EmbeddedNotes:
        """Write embeddings of images and texts, and return where they are."""
        names = {kind: f"{kind}-dataset-{dataset}" for kind in ("images", "texts")}
        for name in names.values():
            folder = self.store.cell(self.key) / "embeddings" / name
            folder.mkdir(parents=True)
            np.save(folder / "embeddings.npy", rng.normal(size=(groups, DIMENSIONS)).astype(np.float32))
        rows = list(range(self.embedded))
        shown = [{"folder": name, "rows": rows, "classes": [["a"]] * len(rows)} for name in names.values()]
        return {"images": shown[0], "texts": shown[1], "texts_are": "captions"}  # type: ignore[typeddict-item]


def _examples(rng: np.random.Generator, score: np.ndarray, classes: bool) -> dict[str, np.ndarray]:
    groups = len(score)
    names = np.array([str(number) for number in range(groups)])
    columns = {"id": names, "group": names, "correct": score}
    if classes:
        scores = rng.dirichlet(np.ones(len(CLASSES)), size=groups)
        columns |= {f"score/{name}": score for name, score in zip(CLASSES, scores.T)}
        columns |= {"label": np.arange(groups) % len(CLASSES), "predicted": scores.argmax(axis=1)}
        columns["confidence"] = scores.max(axis=1)
    return columns


if __name__ == "__main__":
    print(of_scale(float(sys.argv[2]), Path(sys.argv[1])).folder)
