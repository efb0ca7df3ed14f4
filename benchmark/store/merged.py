"""Several result folders, of several machines or groups, read as one store."""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

from typing_extensions import override

from benchmark.common.errors import BenchError, listed
from benchmark.config.claims import Claim
from benchmark.store.hashing import digest
from benchmark.store.live import RunRecord
from benchmark.store.rows import OpenedDataset
from benchmark.store.store import Store

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


class MergedStore(Store):
    """The results of several folders; only for reading. ``folder`` is the first, where the report is written.

    A cell that two folders have (an equal key) counts once; if it was trained in both, only the first one does, and
    otherwise the evaluations of both count. Cells that have a name in common and differ in more than the seed are told
    apart by a column ``folder`` of rows and costs.

    Raises ``BenchError`` if a folder holds no results, and if two measured a dataset in different ways.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        super().__init__(folders[0])
        for folder in folders:
            if not next((folder / "cells").glob("[!.]*/cost.json"), None):
                missing = "has no finished cells" if folder.is_dir() else "does not exist"
                raise BenchError(f"the results folder {folder} {missing}; run bench run there, or leave it out")
        self.stores = [Store(folder) for folder in folders]
        names = [folder.name for folder in folders]
        self._names = names if len(set(names)) == len(names) and all(names) else list(map(str, folders))
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
        return next((store.cell(key) for store in self.stores if store.finished(key)), super().cell(key))

    @override
    def evaluation_folder(self, cell: str, key: str) -> Path:
        folders = [folder / "evaluations" / key for folder in self._copies.get(cell, [])]
        return next((folder for folder in folders if folder.is_dir()), super().evaluation_folder(cell, key))

    @override
    def _finished(self) -> Iterator[Path]:
        # Of rows that two copies have, the last ones count: those of the first folder.
        copies = (folder for folders in self._copies.values() for folder in reversed(folders))
        yield from sorted(copies, key=lambda folder: (folder / "cost.json").stat().st_mtime)

    @override
    def _origin(self, folder: Path) -> dict[str, str]:
        store = next(number for number, store in enumerate(self.stores) if folder.parent == store.cells)
        return {"folder": self._names[store]} if self._label_of(folder) in self._told_apart else {}

    @cached_property
    def _copies(self) -> dict[str, list[Path]]:
        """The folders of each cell, that of the first store first; none of a second training."""
        copies: dict[str, list[Path]] = {}
        for store in self.stores:
            for folder in store._finished():
                of_cell = copies.setdefault(folder.name, [])
                if not of_cell or _same(of_cell[0] / "cost.json", folder / "cost.json"):
                    of_cell.append(folder)
        return copies

    @cached_property
    def _told_apart(self) -> set[str]:
        """The labels without seed of cells that differ between folders in more than the seed."""
        configurations: dict[str, dict[int, set[str]]] = {}
        for number, store in enumerate(self.stores):
            newest: dict[tuple[str, int], str] = {}
            for folder in store._finished():
                cell = _read(folder / "cell.json")
                content = {name: value for name, value in cell["content"].items() if name != "seed"}
                newest[self._label_of(folder), cell["label"]["seed"]] = digest(content)
            for (label, _), configuration in newest.items():
                configurations.setdefault(label, {}).setdefault(number, set()).add(configuration)
        return {
            label
            for label, of_stores in configurations.items()
            if any(each != next(iter(of_stores.values())) for each in of_stores.values())
        }

    def _label_of(self, folder: Path) -> str:
        label = _read(folder / "cell.json")["label"]
        return digest({name: value for name, value in label.items() if name not in ("seed", "recipe")})

    def _check_measured(self) -> None:
        """Raise ``BenchError`` if two folders measured the same task and dataset in ways of which none is the same."""
        ways = [_ways_of(store) for store in self.stores]
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


def _same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
