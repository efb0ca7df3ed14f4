"""How hard the phantoms are: a linear probe on raw pixels, averaged down to 16 x 16, must leave most of the work undone.

``python -m benchmark.data.phantom.difficulty`` prints, for every modality, the probe's score on the test split beside
chance; what a trained model adds to it is what the benchmark can measure.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.preprocessing import StandardScaler

from benchmark.data.phantom import FINDINGS, MULTI_LABEL, Sample, generate

SIDE = 16


@dataclass(frozen=True)
class Difficulty:
    """score: balanced accuracy, or the mean of the findings' AUROC when multi-label, on the test split; in 0..1."""

    modality: str
    metric: str
    score: float
    chance: float
    train: int
    test: int


def difficulty(modality: str, seed: int = 0, patients: tuple[int, int, int] = (600, 100, 200)) -> Difficulty:
    """Fit the probe on ``patients`` (train, val, test) of one modality; its regularisation is chosen on val."""
    train, val, test = (generate(modality, split, n, seed) for split, n in zip(("train", "val", "test"), patients))
    scaler = StandardScaler().fit(_pixels(train))
    x, x_val, x_test = (scaler.transform(_pixels(split)) for split in (train, val, test))
    y, y_val, y_test = (np.array([sample.label for sample in split]) for split in (train, val, test))
    columns = range(y.shape[1]) if MULTI_LABEL[modality] else [...]
    scores = [_probe(x, y[:, k] if y.ndim == 2 else y, x_val, y_val[:, k] if y.ndim == 2 else y_val, x_test, y_test[:, k] if y.ndim == 2 else y_test) for k in columns]
    multi = MULTI_LABEL[modality]
    chance = 0.5 if multi else 1 / len(FINDINGS[modality])
    return Difficulty(modality, "AUROC" if multi else "balanced accuracy", float(np.mean(scores)), chance, len(x), len(x_test))


def _pixels(samples: list[Sample]) -> np.ndarray:
    """[n, 16 * 16 * 3], averaged over square cells."""
    images = np.stack([sample.image for sample in samples]).astype(np.float64)
    cell = images.shape[1] // SIDE
    return images.reshape(len(images), SIDE, cell, SIDE, cell, 3).mean((2, 4)).reshape(len(images), -1)
