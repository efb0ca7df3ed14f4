"""What of the results and of the cache can be computed again, how much room it takes, and how it goes."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from benchmark.store.store import Store

KINDS = {
    "embeddings": "encoded datasets of trained cells; encoded again when a task asks for them",
    "partial": "trainings that were interrupted, and evaluations that were killed; their next run starts from nothing",
    "cache": "records, prepared images, tokenizers and general weights; made again by the next run",
}
CACHED = ("records", "decoded", "prepared", "tokens", "tokenizers", "initial", "language_models")
"""The folders of the cache: nothing else is touched, whatever BENCH_CACHE points to."""
UNDER_WAY = 60.0
"""Seconds since the last write within which a training is taken for one that goes on."""


def removable(store: Store, cache: Path) -> dict[str, list[Path]]:
    """Folders by kind. Weights, rows and per-example scores of finished cells are never among them, nor is a training
    that goes on.
    """
    partial = [*store.cells.glob(".*.partial"), *store.cells.glob("[!.]*/evaluations/.partial-*")]
    return {
        "embeddings": sorted(store.cells.glob("[!.]*/embeddings")),
        "partial": sorted(folder for folder in partial if time.time() - _last_write(folder) > UNDER_WAY),
        "cache": [folder for name in CACHED if (folder := cache / name).is_dir()],
    }


def size(folder: Path) -> int:
    """Bytes of the files under a folder."""
    return sum(file.stat().st_size for file in _files(folder))


def remove(folder: Path) -> None:
    """Take the folder away under another name first, so that a run never finds half of it."""
    gone = folder.with_name(f".{folder.name.lstrip('.')}.removed")
    shutil.rmtree(gone, ignore_errors=True)
    os.replace(folder, gone)
    shutil.rmtree(gone)


def _last_write(folder: Path) -> float:
    return max((file.stat().st_mtime for file in _files(folder)), default=folder.stat().st_mtime)


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            file = Path(parent) / name
            if not file.is_symlink():
                yield file
