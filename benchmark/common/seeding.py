"""Streams of randomness: each purpose its own, all from the run's seed."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


def stream(seed: int, *names: object) -> int:
    """Derive a 63-bit seed for one purpose: ``stream(seed, "order", epoch)``.

    Streams do not depend on one another: adding a method, a task or a dataset leaves the numbers of the others alone.
    """
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *names: object) -> np.random.Generator:
    """Make a numpy generator for one purpose."""
    return np.random.default_rng(stream(seed, *names))


@contextmanager
def torch_seed(seed: int) -> Iterator[None]:
    """Run the block with torch's global generators seeded with ``seed``; restore their states afterwards."""
    import torch

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        # Without an accelerator torch would remember each seed for one, with the stack that set it.
        generators = torch if torch.accelerator.is_available() else torch.default_generator
        generators.manual_seed(seed)
        yield
