"""Steps of a training whose loss is suddenly far above that of the steps before."""

import json
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import TypedDict

from benchmark.common.errors import plural

WINDOW = 50
"""The steps before a step that its loss is compared with; those of its stage."""
FEWEST = 20
"""The fewest steps to compare with."""
DEVIATIONS = 15
"""How many median absolute deviations above the median a spike is: about ten standard deviations of normal noise."""
SHARE = 0.5
"""How far above the median a spike is at least, as a share of it: where the loss hardly varies, little stands out."""


class Spikes(TypedDict):
    """The spikes of a training. steps: how many. first: the number of the first, its loss, and the median before it."""

    steps: int
    first: int
    loss: float
    median: float


def spiked(spikes: Spikes) -> str:
    """Say what spikes there were."""
    return (
        f"the loss rose suddenly at {plural(spikes['steps'], 'step')}, first at step {spikes['first']:,}, to "
        f"{spikes['loss']:.3g} from a median of {spikes['median']:.3g}"
    )


def spikes_of(log: Path) -> Spikes | None:
    """Find the spikes in the log of a training; None if it has none.

    A step is one if its loss exceeds the median of the ``WINDOW`` steps before it, of the same stage, by more than
    ``DEVIATIONS`` times their median absolute deviation from it, and by more than ``SHARE`` of the median.
    """
    with log.open(encoding="utf-8") as lines:
        return find_spikes((line["stage"], line["step"], line["loss"]) for line in map(json.loads, lines))


def find_spikes(losses: Iterable[tuple[str, int, float]]) -> Spikes | None:
    """Find spikes as spikes_of() does. losses: the stage, number and loss of each step, in order."""
    spikes: Spikes | None = None
    before: deque[float] = deque(maxlen=WINDOW)
    current = ""
    for stage, step, loss in losses:
        if stage != current:
            before.clear()
            current = stage
        if len(before) >= FEWEST:
            middle = median(before)
            deviation = median(abs(each - middle) for each in before)
            if loss - middle > max(DEVIATIONS * deviation, SHARE * abs(middle)):
                spikes = spikes or {"steps": 0, "first": step, "loss": loss, "median": middle}
                spikes["steps"] += 1
        before.append(loss)
    return spikes
