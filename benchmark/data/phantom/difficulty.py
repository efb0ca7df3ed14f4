"""How hard the phantoms are: the score of a linear probe on raw pixels averaged down to 16 x 16.

``python -m benchmark.data.phantom.difficulty`` prints the probe's score and chance for every modality. The difference
is what mean colour and brightness of a place reveal. Anything that a trained model adds must come from shape and
texture, which is what the benchmark measures.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from benchmark.data.phantom import DOMAINS, FINDINGS, MULTI_LABEL, Sample, generate

SIDE = 16
PATIENTS = {"train": 600, "val": 100, "test": 200}
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Difficulty:
    """The result of the probe for one modality.

    score: on the test split, balanced accuracy, or the mean AUROC of the findings when multi-label; 0..1.
    of_classes: the recall of each class, or the AUROC of each finding, in the order of FINDINGS.
    """

    metric: str
    score: float
    of_classes: tuple[float, ...]
    chance: float


def difficulty(modality: str, seed: int = 0) -> Difficulty:
    """Fit the probe on the training split, with the regularisation that is best on the validation split."""
    splits = [generate(modality, split, patients, seed) for split, patients in PATIENTS.items()]
    scaler = StandardScaler().fit(_pixels(splits[0]))
    train, val, test = (scaler.transform(_pixels(split)) for split in splits)
    y, y_val, y_test = (np.array([sample.label for sample in split]) for split in splits)
    if not MULTI_LABEL[modality]:
        fits = [LogisticRegression(C=c, max_iter=300).fit(train, y) for c in STRENGTHS]
        best = max(fits, key=lambda fit: balanced_accuracy_score(y_val, fit.predict(val)))
        predicted = best.predict(test)
        recalls = tuple(float((predicted[y_test == k] == k).mean()) for k in range(len(FINDINGS[modality])))
        return Difficulty("balanced accuracy", float(np.mean(recalls)), recalls, 1 / len(recalls))
    areas = []
    for k in range(y.shape[1]):
        fits = [LogisticRegression(C=c, max_iter=300).fit(train, y[:, k]) for c in STRENGTHS]
        best = max(fits, key=lambda fit: roc_auc_score(y_val[:, k], fit.decision_function(val)))
        areas.append(float(roc_auc_score(y_test[:, k], best.decision_function(test))))
    return Difficulty("mean AUROC", float(np.mean(areas)), tuple(areas), 0.5)


def _pixels(samples: list[Sample]) -> np.ndarray:
    """The mean of every cell, [n, 16 * 16 * 3]."""
    images = np.stack([sample.image for sample in samples]).astype(np.float64)
    cell = images.shape[1] // SIDE
    means: np.ndarray = images.reshape(len(images), SIDE, cell, SIDE, cell, 3).mean((2, 4))
    return means.reshape(len(images), -1)


def main() -> None:
    """Print the difficulty of every modality."""
    for modality in DOMAINS:
        result = difficulty(modality)
        classes = ", ".join(f"{name} {score:.2f}" for name, score in zip(FINDINGS[modality], result.of_classes))
        print(f"{modality:8} {result.metric:18} {result.score:.3f} (chance {result.chance:.3f}): {classes}", flush=True)


if __name__ == "__main__":
    main()
