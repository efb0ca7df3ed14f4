"""The settings of the study, and what is counted in each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from benchmark.evaluation.metrics import MacroAUROC, MacroAveragePrecision
from benchmark.evaluation.replicates import difference
from benchmark.evaluation.statistics import effective_groups, interval
from tests.simulation import populations
from tests.simulation.draws import FewShot
from tests.simulation.populations import Population
from tests.simulation.seeds import Arms

RESAMPLES = 300
FEWEST_GROUPS = 10
"""Test sets whose metric rests on fewer groups get no verdict."""
PROMISED = (0.93, 0.97)
CAUTIOUS = (0.93, 1.0)
"""An interval that is too wide claims too little."""

Trial = Callable[[np.random.Generator], dict[str, list[bool]] | None]
"""Draws a test set and answers, for each interval or test on it, by the name of what is counted; None: no verdict."""


@dataclass(frozen=True)
class Setting:
    """A row of the table.

    promised: the range of the share that is counted first; None where nothing is promised.
    """

    section: str
    name: str
    trial: Trial
    promised: tuple[float, float] | None = PROMISED
    repetitions: int = 500


@dataclass(frozen=True)
class Outcome:
    """The shares of what is counted, by name, and the standard error of the first over repetitions."""

    shares: dict[str, float]
    error: float


def outcome(setting: Setting) -> Outcome:
    """Repeat a setting. The answers within a repetition are not independent; those of different ones are."""
    random = np.random.default_rng(int.from_bytes(f"{setting.section}, {setting.name}".encode(), "little"))
    of_trials: dict[str, list[float]] = {}
    counted = 0
    while counted < setting.repetitions:
        answers = setting.trial(random)
        if answers is None:
            continue
        counted += 1
        for name, of_name in answers.items():
            of_trials.setdefault(name, []).append(float(np.mean(of_name)))
    first = next(iter(of_trials.values()))
    shares = {name: float(np.mean(of_name)) for name, of_name in of_trials.items()}
    return Outcome(shares, float(np.std(first) / len(first) ** 0.5))


def score(population: Population, patients: int, few: bool = False) -> Trial:
    """Count intervals of a score that cover the truth. few: whether test sets that get no verdict count too."""

    def trial(random: np.random.Generator) -> dict[str, list[bool]] | None:
        examples = population.draw(random, patients)
        count = effective_groups(population.metric, examples, examples["group"])
        if count < (2 if few else FEWEST_GROUPS):
            return None
        low, high = interval(population.metric, examples, examples["group"], RESAMPLES, random)
        return {"covers": [bool(low <= population.truth <= high)]}

    return trial


def pair(population: Population, patients: int, few: bool = False) -> Trial:
    """Count intervals of the difference of two equally good methods that cover 0, and tests that are wrong."""

    def trial(random: np.random.Generator) -> dict[str, list[bool]] | None:
        first, second = population.pair(random, patients)
        count = effective_groups(population.metric, first, first["group"])
        if count < (2 if few else FEWEST_GROUPS):
            return None
        found = difference(population.metric, [first], [second], RESAMPLES, random)
        # Where there is no interval, nothing is claimed.
        return {"covers": [not (found.low > 0 or found.high < 0)], "rejects": [found.p < 0.05]}

    return trial


def means() -> list[Setting]:
    """Scores and differences of means, clustered."""
    settings = []
    for patients in (20, 50, 100, 400):
        for right in (0.7, 0.95):
            name = f"accuracy {100 * right:.0f} %, {patients} patients"
            # Half of the test sets of 20 patients have no more than one error.
            promised = CAUTIOUS if patients * (1 - right) < 3 else PROMISED
            settings.append(Setting("Scores", name, score(populations.accuracy(right), patients), promised))
            settings.append(Setting("Differences", name, pair(populations.accuracy(right), patients), promised))
    ranks, uneven = populations.reciprocal_rank(), populations.accuracy(0.7, most_images=20)
    for patients in (20, 100):
        settings += [
            Setting(
                "Scores", f"reciprocal rank {100 * ranks.truth:.0f} %, {patients} patients", score(ranks, patients)
            ),
            Setting("Scores", f"accuracy 70 %, {patients} patients of 1-20 images", score(uneven, patients)),
            Setting("Differences", f"accuracy 70 %, {patients} patients of 1-20 images", pair(uneven, patients)),
        ]
    return settings


def rare() -> list[Setting]:
    """Metrics that rest on few patients who have a finding or class."""
    settings = []
    for title, kind, gain in (
        ("AUROC 75 %", MacroAUROC, 0.954),
        ("AUROC 90 %", MacroAUROC, 1.812),
        ("AUROC 97 %", MacroAUROC, 2.66),
        ("average precision", MacroAveragePrecision, 1.812),
    ):
        for positive, patients in ((3, 100), (5, 100), (12, 100), (12, 300), (20, 100), (50, 100)):
            population = populations.findings(kind, (positive / patients,), gain)
            few = positive < FEWEST_GROUPS
            # Where nearly all is ranked right, few pairs say how much two methods differ.
            of_pair = CAUTIOUS if title == "AUROC 97 %" else PROMISED
            settings += _both(f"{title}, about {positive} of {patients} positive", population, patients, few, of_pair)
    mean = populations.findings(MacroAUROC, (0.5, 0.4, 0.3, 0.3, 0.12), 1.812)
    settings += _both("mean AUROC of 5 findings, one in about 12 of 100", mean, 100)
    mean = populations.findings(MacroAUROC, (0.5, 0.4, 0.3, 0.3, 0.04), 1.812)
    settings += _both("mean AUROC of 5 findings, one in about 4 of 100", mean, 100, few=True)
    recall = populations.classes((0.4, 0.35, 0.13, 0.12), (2, 3), 1.2)
    settings += _both("mean recall of two rare classes, about 12 of 100 each", recall, 100)
    every = populations.classes((0.4, 0.35, 0.13, 0.12), (0, 1, 2, 3), 1.2)
    settings += _both("mean recall of 4 classes, the rarest about 12 of 100", every, 100)
    return settings


def _both(
    name: str, population: Population, patients: int, few: bool = False, of_pair: tuple[float, float] = PROMISED
) -> list[Setting]:
    trials = score(population, patients, few), pair(population, patients, few)
    return [
        Setting("Rare positives: scores", name, trials[0], None if few else PROMISED, 400),
        Setting("Rare positives: differences", name, trials[1], None if few else of_pair, 400),
    ]


def seeds() -> list[Setting]:
    """Methods whose seeds differ."""
    settings = []
    for count in (1, 2, 3, 5):
        for points in (0, 1, 2, 4):
            name = f"{count} seed{'s' * (count > 1)}, deviation {points}"
            together, alone = Arms((points,) * 4, count, 100), Arms((points,), count, 100, datasets=1)
            settings.append(Setting("Seeds: 4 arms on 3 datasets", name, together.covers, repetitions=150))
            # Two seeds of one pair say little about how much seeds differ.
            promised = CAUTIOUS if count == 2 else PROMISED
            settings.append(Setting("Seeds: a single pair", name, alone.covers, promised))
    settings += [
        Setting(
            "Seeds: 4 arms on 3 datasets", f"3 seeds, deviation 1, {patients} patients", arms.covers, repetitions=150
        )
        for patients in (20, 400)
        for arms in [Arms((1.0,) * 4, 3, patients)]
    ]
    shared = Arms((2.0,) * 4, 3, 100, shared=True)
    settings.append(
        Setting(
            "Seeds: unfavourable", "3 seeds, as good or bad on all 3 datasets, deviation 2", shared.covers, None, 150
        )
    )
    for which, title in (
        ((3,), "the one arm of 4 with deviation 4, others 1, 3 seeds"),
        ((0, 1, 2), "the arms with deviation 1, 3 seeds"),
    ):
        settings.append(
            Setting("Seeds: unfavourable", title, _of_arms(Arms((1.0, 1.0, 1.0, 4.0), 3, 100), which), None, 150)
        )
    settings += [
        Setting("Seeds: power", f"{kind}{count} seed{'s' * (count > 1)}, deviation {points}", arms.finds, None, n)
        for count in (1, 3, 5)
        for points in (0, 1, 2)
        for kind, n, arms in (
            ("4 arms on 3 datasets, ", 60, Arms((points,) * 4, count, 60, gain=6.0)),
            ("a single pair, ", 300, Arms((points,), count, 60, datasets=1, gain=6.0)),
        )
    ]
    return settings


def _of_arms(arms: Arms, which: tuple[int, ...]) -> Trial:
    def trial(random: np.random.Generator) -> dict[str, list[bool]]:
        answers = arms.covers(random)
        return {
            name: [each for i, each in enumerate(of_name) if i % len(arms.points) in which]
            for name, of_name in answers.items()
        }

    return trial


def few_shot() -> list[Setting]:
    """Differences of means over five draws of what a classifier is learned from."""
    named = {f"{shots} image{'s' * (shots > 1)} a class": FewShot(shots) for shots in (1, 2, 4, 8, 16)}
    named |= {f"{100 * share:.0f} % of 110 patients": FewShot(share=share) for share in (0.01, 0.1)}
    return [Setting("Draws", name, each.covers) for name, each in named.items()]


@cache
def settings() -> list[Setting]:
    """List all settings, by section."""
    every = [*means(), *rare(), *seeds(), *few_shot()]
    sections = list(dict.fromkeys(each.section for each in every))
    return sorted(every, key=lambda each: sections.index(each.section))
