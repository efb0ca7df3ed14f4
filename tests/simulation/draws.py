"""Few-shot classification: two encoders that are equally good, and a classifier learned from draws of train images."""

from dataclasses import dataclass

import numpy as np

from benchmark.evaluation.replicates import conclude, estimate

TRAIN_PATIENTS, TEST_PATIENTS, IMAGES = 110, 100, 4
DRAWS = 5
RESAMPLES = 300
CLASSES, FEATURES = 3, 24
GAIN = 0.6
"""How far apart the classes are, in standard deviations of each of the first features."""


@dataclass(frozen=True)
class FewShot:
    """shots: images a class; or share: of the patients."""

    shots: int = 0
    share: float = 0.0

    def covers(self, random: np.random.Generator) -> dict[str, list[bool]]:
        """Draw train and test patients, and images to learn from; the encoders differ in their noise alone."""
        label, features = patients(random, TRAIN_PATIENTS)
        truth, test = patients(random, TEST_PATIENTS)
        right = np.empty((2, DRAWS, TEST_PATIENTS))
        for draw in range(DRAWS):
            rows = self.draw(random, label)
            for encoder in range(2):
                predicted = nearest(features[encoder][rows], label[rows], test[encoder])
                right[encoder, draw] = (predicted == truth).reshape(TEST_PATIENTS, IMAGES).mean(axis=1)
        difference = (right[0] - right[1])[None]
        counts = random.multinomial(TEST_PATIENTS, np.full(TEST_PATIENTS, 1 / TEST_PATIENTS), RESAMPLES)
        resampled = difference @ counts.T / TEST_PATIENTS
        both = estimate(difference.mean(axis=2), resampled, TEST_PATIENTS, highest=1.0)
        alone = estimate(
            difference.mean(axis=(1, 2))[:, None], resampled.mean(axis=1)[:, None], TEST_PATIENTS, highest=1.0
        )
        # By symmetry the encoders are equally good.
        return {
            name: [bool(each.low <= 0 <= each.high)]
            for name, each in zip(("covers", "without draws"), conclude([both]) + conclude([alone]))
        }

    def draw(self, random: np.random.Generator, label: np.ndarray) -> np.ndarray:
        """Draw images of each class, or whole patients, with each class among them."""
        order = random.permutation(len(label))
        if self.shots:
            return np.concatenate([order[label[order] == c][: self.shots] for c in range(CLASSES)])
        of_patient = label[::IMAGES]
        order = random.permutation(TRAIN_PATIENTS)
        chosen = order[: max(1, round(self.share * TRAIN_PATIENTS))]
        missing = [order[of_patient[order] == c][0] for c in range(CLASSES) if c not in of_patient[chosen]]
        return (np.concatenate([chosen, np.array(missing, dtype=int)])[:, None] * IMAGES + np.arange(IMAGES)).ravel()


def patients(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the class of each image, [n], and its features under each of two encoders, [2, n, d]."""
    label = np.repeat(random.integers(0, CLASSES, count), IMAGES)
    image = (
        random.normal(size=(count, FEATURES)).repeat(IMAGES, axis=0) * 0.6
        + random.normal(size=(len(label), FEATURES)) * 0.5
    )
    image[:, : 4 * CLASSES] += GAIN * np.eye(CLASSES)[label].repeat(4, axis=1)
    return label, image + 0.6 * random.normal(size=(2, *image.shape))


def nearest(learned: np.ndarray, label: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Predict the class whose mean is nearest."""
    means = np.stack([learned[label == c].mean(axis=0) for c in range(CLASSES)])
    return np.asarray(((test[:, None] - means) ** 2).sum(axis=2).argmin(axis=1))
