"""A results folder as runs leave it, with made-up scores: written through the store."""

import json
from pathlib import Path

import numpy as np

from benchmark.store.store import Store

GROUPS, RESAMPLES = 40, 200
KINDS = {
    "zero_shot": [("accuracy", "")],
    "few_shot": [("accuracy@10%", "")],
    "retrieval": [("recall@10", "image_to_text"), ("recall@10", "text_to_image")],
}
DRAWS = {"few_shot": 3}


def stored(folder: Path, arms: list[str], datasets: list[str], seeds: int) -> Store:
    """Write trainings of ``arms``, their initial weights, and evaluations on ``datasets``: arms get better in order."""
    store = Store(folder)
    store.create()
    for number, arm in enumerate([*arms, "initial weights"]):
        for seed in range(seeds):
            key = f"{number:08x}{seed:08x}"
            label = {"suite": "demo", "model": "tiny", "arm": arm, "method": arm, "variant": "", "seed": seed}
            baseline = number == len(arms)
            store.partial(key).mkdir(parents=True)
            if baseline:
                label["role"] = "baseline"
                store.finish(key, {"label": label, "content": {}}, {})
            else:
                _train(store, key, label, number)
            skill = 0.3 if baseline else 0.4 + 0.3 * number / len(arms)
            for place, dataset in enumerate(datasets):
                for task in KINDS:
                    _evaluate(
                        store, key, label, dataset, task, skill, [number, seed, place], f"{len(arms):08x}{seed:08x}"
                    )
    return store


def _train(store: Store, key: str, label: dict, number: int) -> None:
    seconds = 40.0 * 1.5**number
    cost = {
        "samples": 1280,
        "steps": 10,
        "seconds": seconds,
        "samples_per_second": 1280 / seconds,
        "peak_memory": 6e8 + 1e8 * number,
        "parameters": 1_260_000,
        "parameters_trainable": 630_000 + 1000 * number,
        "flops_per_sample": 2.1e8 * (1 + number % 3),
        "batch_size": 128,
        "micro_batch": 32,
        "precision": "float32",
        "accumulation": "cached",
        "device": "cpu",
        "validation_loss": 2.0,
        "initial_weights": "random",
        "machine": {"processor": "made up", "cores": 2},
        "version": "0",
    }
    log = [
        {
            "step": step,
            "samples": 128 * step,
            "loss": 3 / step,
            "learning_rate": 1e-3,
            "gradient_norm": 1.0,
            "seconds": step,
        }
        for step in range(1, 11)
    ]
    (store.partial(key) / "log.jsonl").write_text("\n".join(map(json.dumps, log)), encoding="utf-8")
    content = {
        "method": label["method"],
        "options": {"temperature": 0.07},
        "training": {"learning_rate": 1e-3 + number},
    }
    store.finish(key, {"label": label, "content": content}, cost)


def _evaluate(
    store: Store, key: str, label: dict, dataset: str, task: str, skill: float, seeds: list[int], start: str
) -> None:
    rng = np.random.default_rng([*seeds, len(task)])
    drawn = np.random.default_rng(seeds[2]).multinomial(GROUPS, np.full(GROUPS, 1 / GROUPS), size=RESAMPLES) / GROUPS
    rows, examples, resampled = [], {}, {}
    for metric, part in KINDS[task]:
        correct = (rng.random((DRAWS.get(task, 1), GROUPS)) < skill).astype(float)
        value = float(correct.mean())
        ids = np.array([str(number) for number in range(GROUPS)])
        examples[part] = {"id": ids, "group": ids, "correct": correct[0]}
        resampled[part] = {metric: correct @ drawn.T}
        row = label | {
            "dataset": dataset,
            "task": task,
            "part": part,
            "metric": metric,
            "primary": True,
            "value": value,
            "low": max(0.0, value - 0.15),
            "high": min(1.0, value + 0.15),
            "n": GROUPS,
            "groups": GROUPS,
            "effective_groups": float(GROUPS),
            "scarcest": None,
            "chance": 0.2,
            "majority": 0.25,
            "examples": f"{dataset} {task}",
            "cell": key,
            "evaluation": f"{task}-{seeds[2]}",
            "start": start,
        }
        if len(correct) > 1:
            row |= {"of_draws": correct.mean(axis=1).tolist(), "over_groups": [row["low"], row["high"]]}
        rows.append(row)
    store.add_evaluation(key, f"{task}-{seeds[2]}", {"evaluation": {}}, rows, examples, resampled, {})
