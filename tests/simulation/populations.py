"""Populations of patients with known truths, from which test sets are drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from benchmark.evaluation.measurement import Examples, Mean, Metric
from benchmark.evaluation.metrics import MacroAUROC, MacroAveragePrecision, MacroRecall

IMAGES = 4
"""Images a patient."""
SHARED = 0.5
"""The part of the variance of a score that the images of a patient have in common."""
METHODS_SHARE = 0.7
"""The part of the variance of a score that two methods have in common."""

Draw = Callable[[np.random.Generator, int], Examples]
"""Draws a test set of a number of patients."""


@dataclass(frozen=True)
class Population:
    """What is measured, and how test sets are drawn.

    pair: draws the scores of two methods that are equally good on the same test set. known: the metric over everyone,
    where a formula tells it.
    """

    metric: Metric
    pair: Callable[[np.random.Generator, int], tuple[Examples, Examples]]
    known: float | None = None

    @cached_property
    def truth(self) -> float:
        """The metric over everyone, or a population so large that its error is below a tenth of a point."""
        if self.known is not None:
            return self.known
        return float(self.metric(self.pair(np.random.default_rng(0), 60_000)[0]))

    def draw(self, random: np.random.Generator, patients: int) -> Examples:
        return self.pair(random, patients)[0]


def columns(group: np.ndarray, **values: np.ndarray) -> dict[str, np.ndarray]:
    return {"id": np.arange(len(group)), "group": group, **values}


def noise(random: np.random.Generator, group: np.ndarray, count: int = 1) -> np.ndarray:
    """Normal noise of variance 1 of which images of a patient share a part: [n, count]."""
    common = random.normal(size=(int(group.max()) + 1, count))[group]
    return SHARED**0.5 * common + (1 - SHARED) ** 0.5 * random.normal(size=(len(group), count))


def two_noises(random: np.random.Generator, group: np.ndarray, count: int = 1) -> list[np.ndarray]:
    """The noise of two methods: an image that is hard for one is often hard for the other. [n, count] each."""
    both = noise(random, group, count)
    share = METHODS_SHARE
    return [share**0.5 * both + (1 - share) ** 0.5 * noise(random, group, count) for _ in range(2)]


def accuracy(right: float, most_images: int = 0) -> Population:
    """0/1 scores. most_images: the images of a patient are geometric up to this number instead of four each."""

    def pair(random: np.random.Generator, patients: int) -> tuple[Examples, Examples]:
        sizes = np.minimum(random.geometric(0.3, patients), most_images) if most_images else IMAGES
        group = np.repeat(np.arange(patients), sizes)
        first, second = (
            columns(group, x=(each[:, 0] < stats.norm.ppf(right)).astype(float)) for each in two_noises(random, group)
        )
        return first, second

    return Population(Mean("x"), pair, right)


def reciprocal_rank() -> Population:
    """Scores of which most are near 0 and few are 1."""

    def pair(random: np.random.Generator, patients: int) -> tuple[Examples, Examples]:
        group = np.repeat(np.arange(patients), IMAGES)
        first, second = (columns(group, x=1 / np.ceil(np.exp(2 + each[:, 0]))) for each in two_noises(random, group))
        return first, second

    return Population(Mean("x"), pair)


def findings(
    kind: type[MacroAUROC] | type[MacroAveragePrecision], shares: tuple[float, ...], gain: float
) -> Population:
    """Findings, each with its share of the patients, who have it in all their images.

    gain: how much higher the score of an image with a finding is, in standard deviations.
    """
    names = tuple(f"finding {i}" for i in range(len(shares)))
    metric = kind(names, multi_label=True)

    def pair(random: np.random.Generator, patients: int) -> tuple[Examples, Examples]:
        group = np.repeat(np.arange(patients), IMAGES)
        truth = (random.random((patients, len(shares))) < shares)[group].astype(int)
        labels = {f"label/{name}": truth[:, i] for i, name in enumerate(names)}
        first, second = (
            columns(group, **labels, **{f"score/{name}": (each + gain * truth)[:, i] for i, name in enumerate(names)})
            for each in two_noises(random, group, len(shares))
        )
        return first, second

    return Population(metric, pair, float(stats.norm.cdf(gain / 2**0.5)) if kind is MacroAUROC else None)


def classes(shares: tuple[float, ...], over: tuple[int, ...], gain: float) -> Population:
    """Classes, one a patient, and the mean recall over some of them."""
    names = tuple(f"class {i}" for i in range(len(shares)))
    metric = MacroRecall(names, over=tuple(names[i] for i in over))

    def pair(random: np.random.Generator, patients: int) -> tuple[Examples, Examples]:
        group = np.repeat(np.arange(patients), IMAGES)
        label = random.choice(len(shares), patients, p=shares)[group]
        first, second = (
            columns(
                group,
                label=label,
                **{f"score/{name}": (each + gain * np.eye(len(shares))[label])[:, i] for i, name in enumerate(names)},
            )
            for each in two_noises(random, group, len(shares))
        )
        return first, second

    return Population(metric, pair)
