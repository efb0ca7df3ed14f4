"""Several result folders, of several machines or groups, read as one store."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

from typing_extensions import override

from benchmark.common.errors import BenchError, listed
from benchmark.config.claims import Claim
from benchmark.store.files import DamagedError
from benchmark.store.hashing import digest
from benchmark.store.live import RunRecord
from benchmark.store.rows import OpenedDataset
from benchmark.store.store import Finished, Store, same_training

MEASURED = {
    "format": "by other versions of this program",
    "source": "by other code of the task",
    "options": "with other options of the task",
    "card": "with other classes or prompts",
}
"""What an evaluation depends on besides encoder and examples, by its key in evaluation.json, as an error says it."""


def open_store(folders: Sequence[Path]) -> Store:
    """Open a results folder, or several as one. Raises ``BenchError`` as MergedStore() does."""
    folders = list(dict.fromkeys(folders))
    return Store(folders[0]) if len(folders) == 1 else MergedStore(folders)


@dataclass(frozen=True)
class Copy:
    """A finished cell in one of several stores. source: the name of the folder that it is from."""

    store: Store
    cell: Finished
    source: str


class MergedStore(Store):
    """The results of several folders; only for reading. ``folder`` is the first, where the report is written.

    A cell that two folders have (an equal key) counts once; if trainings of it gave other weights, only the first one
    does, and otherwise the evaluations of both count. Cells that have a name in common and differ in more than the seed
    are told apart by a column ``folder`` of rows and costs.

    Raises ``BenchError`` if a folder holds no results, and if two measured a dataset in different ways.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        super().__init__(folders[0])
        for folder in folders:
            if not next((folder / "cells").glob("[!.]*/cost.json"), None):
                missing = "has no finished cells" if folder.is_dir() else "does not exist"
                raise BenchError(f"the results folder {folder} {missing}; run bench run there, or leave it out")
        self.stores = [Store(folder) for folder in folders]
        for store in self.stores:
            store.damage = self.damage
        self._names = names_of(folders)
        self._known: dict[str, list[Copy]] | None = None
        self._check_measured()

    @override
    def claims(self) -> dict[str, dict[str, Claim]]:
        merged: dict[str, dict[str, Claim]] = {}
        for store in reversed(self.stores):
            for suite, of_suite in store.claims().items():
                merged[suite] = merged.get(suite, {}) | of_suite
        return merged

    @override
    def datasets(self) -> dict[str, OpenedDataset]:
        merged: dict[str, OpenedDataset] = {}
        for store in reversed(self.stores):
            merged |= store.datasets()
        return merged

    @override
    def runs(self) -> list[RunRecord]:
        every = [record for store in self.stores for record in store.runs()]
        return sorted(every, key=lambda record: record.started)

    @override
    def cell(self, key: str) -> Path:
        copies = self.copies().get(key)
        return copies[0].cell.folder if copies else super().cell(key)

    @override
    def evaluation_folder(self, cell: str, key: str) -> Path:
        folders = [copy.store.evaluation_folder(cell, key) for copy in self.copies().get(cell, [])]
        there = (folder for folder in folders if folder.is_dir() and folder not in self.damage)
        return next(there, super().evaluation_folder(cell, key))

    @override
    def source(self, cell: str) -> str:
        copies = self.copies().get(cell)
        return copies[0].source if copies else ""

    @override
    def leave_out(self, error: DamagedError) -> bool:
        self._known = None
        return super().leave_out(error)

    @override
    def finished_cells(self) -> list[Finished]:
        return sorted((copies[0].cell for copies in self.copies().values()), key=lambda cell: cell.place)

    @override
    def _evaluations(self, cell: str) -> list[str]:
        return sorted({key for copy in self.copies().get(cell, []) for key in copy.store._evaluations(cell)})

    def copies(self) -> dict[str, list[Copy]]:
        """The copies of each cell, that of the first store first; none of a training that gave other weights."""
        if self._known is None:
            self._known = {}
            for store, name in zip(self.stores, self._names):
                for cell in store.finished_cells():
                    of_cell = self._known.setdefault(cell.key, [])
                    if not of_cell or same_training(of_cell[0].cell, cell):
                        of_cell.append(Copy(store, cell, store.source(cell.key) or name))
        return self._known

    def _check_measured(self) -> None:
        """Raise ``BenchError`` if two folders measured the same task and dataset in ways of which none is the same."""
        ways = [store.without_damage(partial(_ways_of, store)) for store in self.stores]
        for (one, first), (other, second) in combinations(zip(self.stores, ways), 2):
            for aspect, how in {"examples": "on different test examples", **MEASURED}.items():
                keys = [key for key in first.keys() & second.keys() if key[2] == aspect]
                apart = [key for key in keys if not (first[key] <= second[key] or second[key] <= first[key])]
                if apart:
                    measured = listed(sorted(f"{task} on {dataset}" for task, dataset, _ in apart))
                    raise BenchError(
                        f"{one.folder} and {other.folder} cannot be compared: {measured} "
                        f"{'was' if len(apart) == 1 else 'were'} measured {how}.\nReport them apart, or evaluate both "
                        "with the same data and version of this program (bench run evaluates what is trained again)."
                    )


def _ways_of(store: Store) -> dict[tuple[str, str, str], set[str]]:
    """Collect how a store measured each task and dataset, by what an evaluation depends on: hashes.

    Several are of several options, parts or versions.
    """
    ways: dict[tuple[str, str, str], set[str]] = {}
    rows = store.rows()
    if not {"examples", "evaluation"} <= set(rows):
        return ways
    measured = rows.drop_duplicates(["cell", "evaluation", "part"])
    for row in measured.itertuples():
        ways.setdefault((row.task, row.dataset, "examples"), set()).add(f"{row.part}: {row.examples}")
    for row in measured.drop_duplicates(["cell", "evaluation"]).itertuples():
        content = store.evaluation(row.cell, row.evaluation)
        for aspect in MEASURED:
            ways.setdefault((row.task, row.dataset, aspect), set()).add(digest(content.get(aspect)))
    return ways


def names_of(folders: Sequence[Path]) -> list[str]:
    """Return what folders are called where they are told apart: by their names, or by their paths."""
    names = [folder.name for folder in folders]
    return names if len(set(names)) == len(names) and all(names) else list(map(str, folders))
