"""Synthetic results: what the store would hand over, with numbers that can be computed by hand."""

import numpy as np
import pandas as pd

KINDS = {
    "few_shot": [("accuracy", "")],
    "linear_probe": [("accuracy", "")],
    "retrieval": [("recall@10", "image_to_text"), ("recall@10", "text_to_image")],
    "vqa": [("accuracy", "")],
    "zero_shot_classification": [("accuracy", "")],
}
NAMES = ["clip", "msd", "siglip", "slip", "declip", "convirt", "gloria", "medclip", "biovil", "coca", "mgca", "cleft"]
DATASETS = [
    "phantom_chest",
    "phantom_mammo",
    "phantom_histology",
    "phantom_dermoscopy",
    "phantom_fundus",
    "pathmnist",
    "busi",
    "cxr_pneumonia",
    "slake_modality_body",
    "vqa_rad",
    "quilt_1m_subset",
    "isic_2019",
]


def synthetic(methods: int, datasets: int, seeds: int = 3) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows and costs of ``methods`` methods on five kinds of task with ``datasets`` datasets each."""
    rng = np.random.default_rng(0)
    rows, costs = [], []
    for m, method in enumerate(NAMES[:methods]):
        skill = rng.uniform(0.3, 0.9)
        for seed in range(seeds):
            run = {
                "suite": "medical",
                "model": "tiny",
                "method": method,
                "variant": "",
                "seed": seed,
                "cell": f"{m:04x}{seed:04x}",
            }
            for kind, parts in KINDS.items():
                for d, dataset in enumerate(DATASETS[:datasets]):
                    base = np.random.default_rng([1, d, len(kind)]).uniform(0.1, 0.35)
                    for metric, part in parts:
                        multi_label = dataset == "phantom_chest" and metric == "accuracy" and kind != "vqa"
                        n = 300 + 10 * d if part != "text_to_image" else 1500
                        value = float(np.clip(base + skill * (1 - base) * rng.uniform(0.7, 1.05), 0, 1))
                        half = 1.96 * (value * (1 - value) / n) ** 0.5
                        common = {
                            **run,
                            "dataset": dataset,
                            "task": kind,
                            "part": part,
                            "n": n,
                            "value": value,
                            "low": max(0.0, value - half),
                            "high": min(1.0, value + half),
                            "chance": base,
                        }
                        rows.append({**common, "metric": "macro_auroc" if multi_label else metric, "primary": True})
                        rows.append({**common, "metric": "another", "primary": False, "value": 0.999})
            seconds = 40.0 * 1.5**m * rng.uniform(0.95, 1.05)
            costs.append(
                {
                    **run,
                    "samples": 65536,
                    "steps": 512,
                    "seconds": seconds,
                    "samples_per_second": 65536 / seconds,
                    "peak_memory": 6e8 * (1 + m % 4) + seed,
                    "parameters": 1_260_000,
                    "parameters_trainable": 630_000 + 1000 * m,
                    "flops_per_sample": 2.1e8 * (1 + m % 3),
                    "batch_size": 128,
                    "micro_batch": 32,
                    "precision": "float32",
                    "accumulation": "keyed" if method == "msd" else "cached",
                    "device": "cpu",
                    "validation_loss": 2.0 - skill,
                    "initial_weights": "general",
                }
            )
    return pd.DataFrame(rows), pd.DataFrame(costs)
