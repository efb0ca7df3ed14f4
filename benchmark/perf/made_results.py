"""A results folder of any size, for `bench perf --works report`: made-up scores, written through the store.

``python -m benchmark.perf.made_results FOLDER SCALE`` writes one.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.store.rows import EmbeddedNotes, Label, Row
from benchmark.store.store import Store

GROUPS, RESAMPLES, STEPS, DIMENSIONS, EMBEDDED = 400, 1000, 200, 64, 200
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


def make_results(folder: Path, arms: int = 16, datasets: int = 10, kinds: int = 6, seeds: int = 5) -> Store:
    """Write trainings of some arms, two baselines and their evaluations; later arms are better.

    kinds: of tasks, at most 6. There are (arms + 2) * datasets * kinds * seeds evaluations.
    """
    store = Store(folder)
    store.create()
    # The draws of groups are those of a test set: the same in all evaluations of it.
    drawn = [
        np.random.default_rng(dataset).multinomial(GROUPS, np.full(GROUPS, 1 / GROUPS), size=RESAMPLES) / GROUPS
        for dataset in range(datasets)
    ]
    for number, arm in enumerate([*(f"arm {number}" for number in range(arms)), *BASELINES]):
        for seed in range(seeds):
            cell = _Cell(store, _key(number, seed), _label(arm, seed), number, seed, min(EMBEDDED, 4 * arms * datasets))
            cell.train()
            for dataset in range(datasets):
                for kind in range(kinds):
                    starts = {"start": _key(arms, seed), "raw_pixels": _key(arms + 1, seed)}
                    cell.evaluate(dataset, kind, 0.35 + 0.3 * (number % arms) / arms, drawn[dataset], starts)
    return store


def of_scale(scale: float, folder: Path) -> Store:
    """Write 5,400 evaluations at scale 1, and at least 20."""
    most = {"arms": 16, "datasets": 10, "kinds": 6, "seeds": 5}
    least = {"arms": 3, "datasets": 2, "kinds": 2, "seeds": 1}
    return make_results(folder, **{name: max(least[name], round(n * scale ** (1 / 3))) for name, n in most.items()})


def _key(number: int, seed: int) -> str:
    return f"{number:08x}{seed:08x}"


def _label(arm: str, seed: int) -> Label:
    label: Label = {"suite": "made up", "model": "tiny", "method": arm, "variant": "", "seed": seed}
    if arm in BASELINES:
        return {**label, "role": "baseline"}
    return {**label, "arm": arm, "pretraining": "dataset 0", "recipe": f"training.learning_rate={len(arm)}e-4"}


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

    def evaluate(self, dataset: int, kind: int, skill: float, drawn: np.ndarray, starts: Mapping[str, str]) -> None:
        """Write an evaluation. drawn: the share of each group in each resample, [R, groups]; starts: its baselines."""
        of_kind, key = KINDS[kind], f"task-{kind}-dataset-{dataset}"
        rng = np.random.default_rng([self.number, self.seed, dataset, kind])
        hard = np.random.default_rng([dataset, kind]).normal(size=GROUPS)
        rows, examples, resampled = [], {}, {}
        for part in of_kind.parts:
            of_metrics = len(of_kind.metrics), of_kind.draws, GROUPS
            ability = skill + 0.1 * rng.normal(size=(len(of_kind.metrics), of_kind.draws, 1))
            scores = np.clip(ability + 0.1 * hard + 0.3 * rng.normal(size=of_metrics), 0, 1)
            resampled[part] = dict(zip(of_kind.metrics, scores @ drawn.T))
            examples[part] = _examples(rng, scores[0, 0], of_kind.classes)
            rows += [
                self._row(dataset, kind, part, metric, scores[place], resampled[part][metric], key, starts)
                for place, metric in enumerate(of_kind.metrics)
            ]
        notes = {part: {**of_kind.notes, "gallery": {"none": "it is made up"}} for part in of_kind.parts}
        embedded = self._embedded(rng, dataset) if of_kind.embedded else None
        content = {"format": 1, "dataset": f"dataset {dataset}", "evaluation": {}}
        self.store.add_evaluation(self.key, key, content, rows, examples, resampled, notes, embedded)

    def _row(
        self,
        dataset: int,
        kind: int,
        part: str,
        metric: str,
        scores: np.ndarray,
        resampled: np.ndarray,
        key: str,
        starts: Mapping[str, str],
    ) -> Row:
        low, high = np.quantile(resampled.mean(axis=0), [0.025, 0.975]).tolist()
        row: Row = {
            **self.label,  # type: ignore[typeddict-item]
            "dataset": f"dataset {dataset}",
            "task": f"task {kind}",
            "part": part,
            "metric": metric,
            "value": float(scores.mean()),
            "low": low,
            "high": high,
            "n": GROUPS,
            "groups": GROUPS,
            "effective_groups": float(GROUPS),
            "scarcest": None,
            "chance": 0.2,
            "majority": 0.25,
            "blind": {},
            "ceiling": None,
            "primary": metric == KINDS[kind].metrics[0],
            "examples": f"dataset {dataset}, task {kind}",
            "cell": self.key,
            "evaluation": key,
            "start": starts["start"],
            "raw_pixels": starts["raw_pixels"],
        }
        if len(scores) > 1:
            row |= {"of_draws": scores.mean(axis=1).tolist(), "over_groups": [low, high]}
        return row

    def _embedded(self, rng: np.random.Generator, dataset: int) -> EmbeddedNotes:
        """Write embeddings of images and texts, and return where they are."""
        names = {kind: f"{kind}-dataset-{dataset}" for kind in ("images", "texts")}
        for name in names.values():
            folder = self.store.cell(self.key) / "embeddings" / name
            folder.mkdir(parents=True)
            np.save(folder / "embeddings.npy", rng.normal(size=(GROUPS, DIMENSIONS)).astype(np.float32))
        rows = list(range(self.embedded))
        shown = [{"folder": name, "rows": rows, "classes": [["a"]] * len(rows)} for name in names.values()]
        return {"images": shown[0], "texts": shown[1], "texts_are": "captions"}  # type: ignore[typeddict-item]


def _examples(rng: np.random.Generator, score: np.ndarray, classes: bool) -> dict[str, np.ndarray]:
    names = np.array([str(number) for number in range(GROUPS)])
    columns = {"id": names, "group": names, "correct": score}
    if classes:
        scores = rng.dirichlet(np.ones(len(CLASSES)), size=GROUPS)
        columns |= {f"score/{name}": score for name, score in zip(CLASSES, scores.T)}
        columns |= {"label": np.arange(GROUPS) % len(CLASSES), "predicted": scores.argmax(axis=1)}
        columns["confidence"] = scores.max(axis=1)
    return columns


if __name__ == "__main__":
    print(of_scale(float(sys.argv[2]), Path(sys.argv[1])).folder)
