"""What torchrun tells the processes that it starts."""

import os
from dataclasses import dataclass

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Started:
    """A process that torchrun started. rank: its number of ``count``; local: its number on this machine."""

    rank: int
    count: int
    local: int


def torchrun() -> Started | None:
    """Return which of several processes of torchrun this is; None if it is no such process."""
    if not all(os.environ.get(name) for name in VARIABLES) or os.environ["WORLD_SIZE"] == "1":
        return None
    return Started(*(int(os.environ[name]) for name in VARIABLES[:3]))
