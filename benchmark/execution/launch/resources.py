"""What a process that carries out a cell needs, from the plan's estimate: for launchers that ask for it."""

from collections.abc import Sequence

from benchmark.execution.launch.launcher import Unit

MARGIN = 1.5
"""Time and memory to ask for, as a multiple of what is estimated."""
SPARE_SECONDS = 900
"""Added to that: to start Python, load models and open the data."""
SPARE_BYTES = 4e9
"""Added to the memory: what Python, its libraries and the examples of the next batches take."""


def memory_of(units: Sequence[Unit]) -> float:
    """Return the bytes of memory that the largest of some cells needs on the CPU."""
    return MARGIN * max(unit.memory or 0 for unit in units) + SPARE_BYTES


def seconds_of(units: Sequence[Unit]) -> float | None:
    """Return the seconds that the longest of some cells needs; None if one of them is unknown."""
    seconds = [unit.seconds for unit in units]
    known = [each for each in seconds if each is not None]
    return MARGIN * max(known) + SPARE_SECONDS if known and len(known) == len(seconds) else None
