"""Results of made-up arms whose true scores are known: patients that are hard for all, seeds that differ, and noise."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

Drawn = dict[tuple[str, str, str, str], np.ndarray]


def trials(
    arms: Mapping[str, float],
    *,
    seeds: int = 3,
    datasets: tuple[str, ...] = ("d",),
    task: str = "retrieval",
    patients: int = 60,
    spread: float = 0.01,
    taste: float = 0.0,
    noise: float = 0.1,
    random: int = 0,
    resamples: int = 400,
    **labels: Any,
) -> tuple[pd.DataFrame, Drawn]:
    """Rows, and the metric in resamples of the patients, [1, R], of arms with these true scores.

    Standard deviations: spread, between seeds; taste, of an arm between patients, the same for all of its seeds; noise,
    between patients for one seed.
    """
    rng = np.random.default_rng([random, len(task)])
    rows, drawn = [], {}
    of_seed = {(arm, seed): rng.normal(0, spread) for arm in arms for seed in range(seeds)}
    for dataset in datasets:
        hard = rng.normal(0, 0.2, patients)
        weights = rng.multinomial(patients, np.full(patients, 1 / patients), resamples).T / patients
        for arm, score in arms.items():
            own = hard + rng.normal(0, taste, patients)
            for seed in range(seeds):
                quality = score + of_seed[arm, seed] + own + rng.normal(0, noise, patients)
                cell = f"{arm}-{seed}{labels.get('variant', '')}"
                drawn[cell, f"{task}-{dataset}", "", "recall@10"] = (quality @ weights)[None]
                row = {
                    "suite": "s",
                    "model": "tiny",
                    "arm": arm,
                    "method": "clip",
                    "variant": "",
                    "seed": seed,
                    "dataset": dataset,
                }
                row |= {"task": task, "part": "", "metric": "recall@10", "primary": True, "value": quality.mean()}
                row |= {"low": 0.0, "high": 1.0, "chance": 0.1, "n": patients, "groups": patients, "cell": cell}
                row |= {"evaluation": f"{task}-{dataset}", "examples": dataset, "pretraining": "p"}
                rows.append(row | labels)
    return pd.DataFrame(rows), drawn
