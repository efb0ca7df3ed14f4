"""Read everything in a results folder and compare it with the digests in its records. Nothing is changed."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.store.claim import PARTIAL, owners
from benchmark.store.files import (
    ASIDE,
    FILES,
    DamagedError,
    check_file,
    check_folder,
    read_json,
    read_object,
    read_record,
)
from benchmark.store.store import EVALUATE_AGAIN, Store


@dataclass
class Health:
    """What was read and how it is.

    files: those that are what was written. unchecked: parts of versions that wrote no digests. damaged: the first error
    of each cell, evaluation and other part. begun: what a process that is gone left unfinished; aside: what was set
    aside; both with their sizes in bytes. worked_on: names with the process that works on them.
    """

    cells: int = 0
    evaluations: int = 0
    files: int = 0
    unchecked: int = 0
    damaged: list[DamagedError] = field(default_factory=list)
    begun: dict[Path, int] = field(default_factory=dict)
    aside: dict[Path, int] = field(default_factory=dict)
    worked_on: dict[str, str] = field(default_factory=dict)

    def reading(self, read: Callable[..., object], *arguments: Any) -> bool:
        """Count the files that ``read`` finds good: the number it returns, or one. Return whether none is damaged."""
        try:
            good = read(*arguments)
        except DamagedError as error:
            self.damaged.append(error)
            return False
        self.files += good if isinstance(good, int) else 1
        return True

    def look_for_leftovers(self, folder: Path) -> None:
        """Note what was begun or set aside in a folder, and who works on what in it."""
        at_work = owners(folder)
        self.worked_on |= {name: str(owner) for name, owner in at_work.items()}
        for path in _entries(folder):
            if path.name.startswith(".") and ASIDE in path.name:
                self.aside[path] = _size(path)
            elif path.name.startswith(".") and PARTIAL in path.name and path.is_dir():
                name = path.name[1:].partition(PARTIAL)[0]
                self.begun |= {} if name in at_work else {path: _size(path)}


def results_health(store: Store, progress: Callable[[int, int], None] = lambda done, total: None) -> Health:
    """Read the cells and evaluations of a results folder and its other records.

    progress: called with the number of cells done and of all.
    """
    health = Health()
    for name in ("claims.json", "datasets.json", "merged.json"):
        path = store.folder / name
        if path.is_file():
            health.reading(read_record, path, dict, "bench run writes it again")
    if (path := store.folder / "clock.json").is_file():
        health.reading(read_object, path, "the next run writes it again")
    folders = [folder for folder in _entries(store.cells) if not folder.name.startswith(".") and folder.is_dir()]
    health.look_for_leftovers(store.cells)
    for number, folder in enumerate(folders):
        progress(number, len(folders))
        _read_cell(store, folder.name, health)
    progress(len(folders), len(folders))
    return health


def cache_health(cache: Path, kinds: tuple[str, ...], checks: dict[str, Callable[[Path], None]]) -> Health:
    """Read what the cache holds: folders by the digests in their records, and files by the hash in them.

    kinds: its folders. checks: by kind, how the folders of a kind are checked that has records of its own.
    """
    health = Health()
    for kind in kinds:
        for path in _entries(cache / kind):
            if path.name.startswith("."):
                continue
            if path.is_file() and path.suffix == ".json":
                health.reading(read_json, path, "it is made again when it is next used")
            elif path.is_dir() and kind in checks:
                health.reading(checks[kind], path)
            elif path.is_dir():
                health.reading(check_folder, path)
                health.unchecked += not (path / FILES).exists()
        health.look_for_leftovers(cache / kind)
    return health


def _read_cell(store: Store, key: str, health: Health) -> None:
    again = store.again(key)

    def files() -> int:
        record = store.cost_record(key)
        health.unchecked += not record.files
        for name in record.files:
            check_file(store.cell(key) / name, record.files, again)
        store.description(key)
        return len(record.files)

    def evaluation(name: str) -> int:
        folder = store.evaluation_folder(key, name)
        record = read_record(folder / "rows.json", list, EVALUATE_AGAIN)
        health.unchecked += not record.files
        for file in record.files:
            check_file(folder / file, record.files, EVALUATE_AGAIN)
        return len(record.files)

    if not (store.cell(key) / "cost.json").is_file():
        health.damaged.append(DamagedError(store.cell(key) / "cost.json", "is missing", again))
        return
    health.cells += health.reading(files)
    evaluations = store.cell(key) / "evaluations"
    for folder in _entries(evaluations):
        if not folder.name.startswith("."):
            health.evaluations += health.reading(evaluation, folder.name)
    health.look_for_leftovers(evaluations)
    for folder in _entries(store.cell(key) / "embeddings"):
        if folder.is_dir() and not folder.name.startswith("."):
            health.reading(check_folder, folder)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    return sum(file.lstat().st_size for file in ([path] if path.is_file() else _walk(path)))


def _walk(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent) / name for name in names)
