"""Find what can be recomputed in the results and the cache, measure its size, and remove it."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from benchmark.store.claim import PARTIAL
from benchmark.store.files import ASIDE
from benchmark.store.store import Store

KINDS = {
    "embeddings": "encoded datasets of trained cells; encoded again when a task needs them",
    "partial": "interrupted trainings, killed evaluations, damage set aside; the next run starts from scratch",
    "cache": "data, tokenizers, general weights, frozen outputs, evaluations of baselines; rebuilt by the next run",
}
CACHED = (
    "records",
    "shared",
    "shards",
    "drawn",
    "decoded",
    "prepared",
    "tokens",
    "tokenizers",
    "initial",
    "language_models",
    "evaluations",
    "frozen",
    "estimates",
    "maps",
    "scripts",
)
"""The folders of the cache. Nothing else is removed, whatever BENCH_CACHE points to."""
REMOVED = ".removed"
"""The end of the names of folders that are being removed."""
RUNNING_WITHIN = 60.0
"""A training that wrote within the last so many seconds counts as running."""


def removable(store: Store, cache: Path) -> dict[str, list[Path]]:
    """List the removable folders by kind, the keys of ``KINDS``.

    Never includes weights, rows or per-example scores of finished cells, nor a running training.
    """
    partial = [*store.cells.glob(f".*{PARTIAL}*"), *store.cells.glob("[!.]*/evaluations/.*partial-*")]
    partial += [*store.cells.glob(f".*{ASIDE}*"), *store.cells.glob(f"[!.]*/*/.*{ASIDE}*")]
    partial = [each for each in partial if not each.name.endswith(REMOVED)]
    # What an earlier call was killed while removing comes with its kind.
    embeddings = [*store.cells.glob("[!.]*/embeddings"), *store.cells.glob(f"[!.]*/.embeddings{REMOVED}")]
    begun = [*store.cells.glob(f".*{REMOVED}"), *store.cells.glob(f"[!.]*/evaluations/.*{REMOVED}")]
    of_cache = [folder for name in CACHED if (folder := cache / name).is_dir()]
    of_cache += [folder for name in CACHED for folder in cache.glob(f".{name}{REMOVED}")]
    return {
        "embeddings": sorted(f for f in embeddings if not f.is_symlink()),
        "partial": sorted([*begun, *(each for each in partial if time.time() - _last_write(each) > RUNNING_WITHIN)]),
        "cache": [folder for folder in of_cache if not folder.is_symlink()],
    }


def linked(cache: Path) -> list[Path]:
    """List the folders of the cache that are links: what they lead to may hold more than the cache, and stays."""
    return [folder for name in CACHED if (folder := cache / name).is_symlink()]


def size(folder: Path) -> int:
    """Return the total size of the files under a folder, in bytes."""
    return sum(file.stat().st_size for file in _files(folder))


def remove(folder: Path) -> None:
    """Remove a folder, renaming it first so that a run never sees it half removed."""
    if folder.name.endswith(REMOVED):
        shutil.rmtree(folder, ignore_errors=True)
        return
    renamed = folder.with_name(f".{folder.name.lstrip('.')}{REMOVED}")
    shutil.rmtree(renamed, ignore_errors=True)
    folder.replace(renamed)
    shutil.rmtree(renamed)


def _last_write(folder: Path) -> float:
    return max((file.stat().st_mtime for file in _files(folder)), default=folder.stat().st_mtime)


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            file = Path(parent) / name
            if not file.is_symlink():
                yield file
