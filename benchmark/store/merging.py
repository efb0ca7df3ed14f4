"""Join results folders: `bench merge`. What the report says of the joined folder is what it says of the parts."""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from uuid import uuid4

from benchmark.common.errors import BenchError, cut, plural
from benchmark.store.claim import Owner, claim
from benchmark.store.files import DamagedError, check_file, commit
from benchmark.store.hashing import digest
from benchmark.store.live import RunRecord
from benchmark.store.merged import MergedStore
from benchmark.store.store import Finished, Store


@dataclass
class Merged:
    """What merge() did. cells, evaluations: how many were added; there: cells that both had. clashes: a line each."""

    cells: int = 0
    evaluations: int = 0
    there: int = 0
    clashes: list[str] = field(default_factory=list)


def merge(folders: Sequence[Path], into: Path) -> Merged:
    """Add the cells, evaluations, claims, datasets and runs of results folders to one, which need not exist yet.

    Files are linked where the disk allows it, and copied elsewhere. A cell or an evaluation is added whole or not at
    all, so that the same command goes on after it was stopped. What clashes is not added: the first folder counts, as
    in a report over them. Raises ``BenchError`` if a folder holds no results, and for folders that a report cannot
    compare.
    """
    there = [into] if next((into / "cells").glob("[!.]*/cost.json"), None) else []
    sources = [*{each.resolve(): each for each in reversed([*there, *folders])}.values()][::-1]
    if len(sources) < 2:
        raise BenchError("bench merge takes at least two results folders, such as: bench merge A B --into C")
    every, target, merged = MergedStore(sources), Store(into), Merged()
    target.create()
    known = target.sources()
    for store in every.stores:
        for cell in store.finished_cells():
            copies = every.copies().get(cell.key, [])
            first = next((copy for copy in copies if copy.cell.folder == cell.folder), None)
            if first is None:
                merged.clashes.append(
                    f"{cell.folder}: has other weights than the same cell in {copies[0].store.folder}, which counts"
                )
            elif cell.folder.parent != target.cells:
                _add(target, cell, merged)
            known.setdefault(cell.key, copies[0].source)
    merged.clashes += _of_one_label(every)
    merged.clashes += [f"left out: {line}" for line in every.damage.values()]
    target.keep_sources({key: source for key, source in known.items() if target.finished(key)})
    for suite, claims in every.claims().items():
        target.keep_claims(suite, claims)
    target.keep_datasets(every.datasets())
    _add_runs(target, every.stores)
    return merged


def _add(target: Store, cell: Finished, merged: Merged) -> None:
    """Add a cell of another folder, or those of its evaluations that the target lacks."""
    claimed = claim(target.cell(cell.key))
    if isinstance(claimed, Owner):
        merged.clashes.append(f"{cell.folder}: left out, as {claimed} is training it in {target.folder}; merge again")
        return
    with claimed:
        if not target.finished(cell.key):
            try:
                _check(cell)
                _copy(cell.folder, target.cell(cell.key))
            except DamagedError as error:
                merged.clashes.append(f"left out: {error}")
                return
            merged.cells += 1
            merged.evaluations += len(list(cell.folder.glob("evaluations/[!.]*/rows.json")))
            return
        merged.there += 1
        other = Store(cell.folder.parents[1])
        for key in other._evaluations(cell.key):
            try:
                rows = other.evaluated(cell.key, key)
                if not target.is_evaluated(cell.key, key):
                    (target.cell(cell.key) / "evaluations").mkdir(exist_ok=True)
                    _copy(other.evaluation_folder(cell.key, key), target.evaluation_folder(cell.key, key))
                    merged.evaluations += 1
                elif digest(rows) != digest(target.evaluated(cell.key, key)):
                    merged.clashes.append(
                        f"{other.evaluation_folder(cell.key, key)}: has other scores than {target.folder}, which counts"
                    )
            except DamagedError as error:
                merged.clashes.append(f"left out: {error}")
        for folder in cell.folder.glob("embeddings/[!.]*"):
            if not (to := target.cell(cell.key) / "embeddings" / folder.name).exists():
                to.parent.mkdir(exist_ok=True)
                _copy(folder, to)


def _check(cell: Finished) -> None:
    """Raise ``DamagedError`` if a file of a cell is not what was written."""
    for name in cell.cost.files:
        # Weights may have been removed on purpose to save their space.
        if (cell.folder / name).exists():
            check_file(cell.folder / name, cell.cost.files, "it stays where it is")


def _copy(folder: Path, to: Path) -> None:
    """Link or copy a folder whole: under another name, and renamed. The cell that it is or belongs to is claimed."""
    for left in to.parent.glob(f".{escape(to.name)}-merged-*.partial"):
        # A merge was killed.
        shutil.rmtree(left, ignore_errors=True)
    partial = to.parent / f".{to.name}-merged-{uuid4().hex[:8]}.partial"
    try:
        shutil.copytree(folder, partial, copy_function=_link, ignore=shutil.ignore_patterns(".*"))
        commit(partial, to)
    except (OSError, shutil.Error) as error:
        # shutil collects the errors of a folder's files in a list.
        reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror
        text = str(reason).partition("] ")[2] or str(reason)
        raise BenchError(f"{to}: cannot be written: {text}; the same command goes on where it stopped") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _link(source: str, to: str) -> None:
    try:
        os.link(source, to)
    except OSError:
        shutil.copy2(source, to)


def _of_one_label(every: MergedStore) -> list[str]:
    """Say which cells of several folders have one label and differ."""
    by_label: dict[tuple[object, ...], list[Finished]] = {}
    for cell in every.finished_cells():
        by_label.setdefault(cell.place[:-1], []).append(cell)
    lines = []
    for cells in by_label.values():
        folders = dict.fromkeys(every.source(cell.key) for cell in cells)
        if len(folders) > 1:
            label = cells[0].cell["label"]
            name = ", ".join(str(label[column]) for column in ("suite", "arm", "variant", "model") if label.get(column))
            keys = ", ".join(cell.key for cell in cells)
            lines.append(
                f"{cut(name)}, seed {label['seed']}: different cells in {', '.join(folders)} ({keys}); all were kept, "
                "and the report tells them apart"
            )
    return lines


def _add_runs(target: Store, stores: Sequence[Store]) -> None:
    """Add the records of runs."""
    folder = target.folder / "runs"
    for store in stores:
        for path in sorted((store.folder / "runs").glob("*.json")):
            with suppress(OSError, ValueError):
                RunRecord.model_validate_json(path.read_bytes())
                folder.mkdir(exist_ok=True)
                if not (folder / path.name).exists():
                    _link(str(path), str(folder / path.name))


def said(merged: Merged) -> str:
    """Describe in a line what was added."""
    return (
        f"added {plural(merged.cells, 'cell')} and {plural(merged.evaluations, 'evaluation')}; "
        f"{plural(merged.there, 'cell')} {'was' if merged.there == 1 else 'were'} there already"
    )
