"""Small data that the works of `bench perf` write for themselves."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

    from benchmark.models.tokenizer import Tokenizer

FINDINGS = ("a mass", "an effusion", "a nodule", "no finding", "a fracture")
SIDES = ("left", "right")
PLACES = ("upper", "middle", "lower")


def temporary_folder() -> Path:
    """Make a folder that is removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="bench-perf-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


SHARED = "BENCH_PERF_SHARED"
"""The environment variable with the folder that the sides of a work share."""


def made_once(write: Callable[[Path], object]) -> Path:
    """Return a folder with what ``write`` writes into it; only the first side of a work writes."""
    shared = os.environ.get(SHARED)
    folder = Path(shared) / "data" if shared else temporary_folder() / "data"
    if not folder.exists():
        folder.mkdir()
        write(folder)
    return folder


def picture(number: int, height: int, width: int | None = None) -> "Image":
    """Make a smooth picture of noise; as a JPEG it takes about as much work as a photograph."""
    from PIL import Image

    coarse = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width or height, height), Image.Resampling.BICUBIC)


def sentence(number: int) -> str:
    """Make a caption."""
    finding = FINDINGS[number % len(FINDINGS)]
    return f"picture {number} shows {finding} on the {SIDES[number % 2]} side, in the {PLACES[number % 3]} part"


def tokenizer() -> "Tokenizer":
    """Train a tokenizer on such captions."""
    from benchmark.models.tokenizer import CorpusBPE, train

    return CorpusBPE(train([sentence(number) for number in range(30)], 1024), 32)
