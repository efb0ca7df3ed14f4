"""Methods whose seeds differ, on several datasets of a kind of task."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from benchmark.evaluation.replicates import Difference, Estimate, conclude, estimate

IMAGES = 4
RESAMPLES = 300
RIGHT = 0.7
"""The share that every method gets right."""
OF_PATIENT, OF_IMAGE, OF_METHOD, OF_SEED = 0.4, 0.2, 0.15, 0.25
"""The parts of the variance of what decides whether an image is right: what its patient, the image, the image under a
method and the image under a seed of a method have of their own."""
SLOPE = float(stats.norm.pdf(stats.norm.ppf(RIGHT)))
"""How much the share that is right rises with the quality of a method."""


@dataclass(frozen=True)
class Arms:
    """Arms that are compared with a reference.

    points: the standard deviation of seeds, of each arm, in points; the reference has that of the first. shared:
    whether a seed is as good or bad on all datasets instead of on each by itself. gain: how many points the arms are
    better than the reference.
    """

    points: tuple[float, ...]
    seeds: int
    patients: int
    datasets: int = 3
    shared: bool = False
    gain: float = 0.0

    def compare(self, random: np.random.Generator) -> tuple[list[Difference], np.ndarray, np.ndarray]:
        """Draw test sets and seeds, and compare each arm with the reference on each dataset.

        Returns the differences, their truths (of these weights with one seed, else of the methods), and p of a
        sign-flip test over patients, [datasets x arms] each.
        """
        estimates: list[Estimate] = []
        truths, flips = [], []
        deviation = np.array((self.points[0], *self.points)) / 100 / SLOPE
        everywhere = random.normal(size=(len(deviation), self.seeds))
        for _ in range(self.datasets):
            effect = everywhere if self.shared else random.normal(size=(len(deviation), self.seeds))
            effect = effect * deviation[:, None] + self._better()[:, None]
            share = self._of_patients(random, effect)
            difference = share[1:] - share[:1]
            counts = random.multinomial(self.patients, np.full(self.patients, 1 / self.patients), RESAMPLES)
            resampled = difference @ counts.T / self.patients
            for arm in range(len(self.points)):
                values = difference[arm].mean(axis=1)[:, None]
                estimates.append(estimate(values, resampled[arm][:, None], self.patients, highest=1.0))
                flips.append(sign_flip(difference[arm].mean(axis=0), random))
            right = stats.norm.cdf(stats.norm.ppf(RIGHT) + (effect if self.seeds == 1 else self._expected(deviation)))
            right = right.mean(axis=1)
            truths.append(right[1:] - right[0])
        return conclude(estimates), np.concatenate(truths), np.array(flips)

    def _better(self) -> np.ndarray:
        return np.array([0.0, *[self.gain / 100 / SLOPE] * len(self.points)])

    def _expected(self, deviation: np.ndarray) -> np.ndarray:
        """Return the quality that is as often right as a method is over all its seeds: [arms, 1]."""
        right = stats.norm.ppf(RIGHT)
        return ((right + self._better()) / np.sqrt(1 + deviation**2) - right)[:, None]

    def _of_patients(self, random: np.random.Generator, effect: np.ndarray) -> np.ndarray:
        """Draw the share of each patient's images that is right: [arms, seeds, patients]."""
        arms, seeds = effect.shape
        latent = OF_PATIENT**0.5 * random.normal(size=(1, 1, self.patients, 1))
        for part, shape in ((OF_IMAGE, (1, 1)), (OF_METHOD, (arms, 1)), (OF_SEED, (arms, seeds))):
            latent = latent + part**0.5 * random.normal(size=(*shape, self.patients, IMAGES))
        return np.asarray((latent < stats.norm.ppf(RIGHT) + effect[:, :, None, None]).mean(axis=3))

    def covers(self, random: np.random.Generator) -> dict[str, list[bool]]:
        """Answer whether the intervals cover, and, without a gain, whether a test is wrong."""
        found, truths, _ = self.compare(random)
        return {
            "covers": [bool(each.low <= truth <= each.high) for each, truth in zip(found, truths)],
            "rejects": [each.p < 0.05 for each in found],
        }

    def finds(self, random: np.random.Generator) -> dict[str, list[bool]]:
        """Answer whether the tests find the gain, and whether a sign-flip test over patients does."""
        found, _, flips = self.compare(random)
        return {"finds": [each.p < 0.05 for each in found], "sign-flip": [bool(p < 0.05) for p in flips]}


def sign_flip(difference: np.ndarray, random: np.random.Generator, flips: int = 500) -> float:
    """Compute the two-sided p-value of the mean over patients [G] by flipping signs."""
    signs = random.integers(0, 2, (flips, len(difference))) * 2 - 1
    at_least = np.abs(signs @ difference) >= abs(difference.sum()) - 1e-12
    return float((1 + at_least.sum()) / (1 + flips))
