"""Evaluations of encoders that no run trains, kept in the cache for the runs of all results folders.

evaluations/HASH/ has the files of an evaluation as a results folder has them, and rows.json without a record. In the
place of embedded.json, which names embeddings of the results folder, shown.json has classes and shown-images.npy and
shown-texts.npy the embeddings themselves.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmark.store import formats
from benchmark.store.cache import build_folder
from benchmark.store.cleaning import remove
from benchmark.store.files import intact, read_json, read_object, write_json
from benchmark.store.hashing import digest
from benchmark.store.rows import EmbeddedNotes, Row, Stored
from benchmark.store.store import Store, row_digest

ROWS, EMBEDDED, SHOWN = "rows.json", "embedded.json", "shown.json"
SIDES = ("images", "texts")
REMEDY = "it is made again when it is next used"


def keep_evaluation(cache: Path, store: Store, cell: str, key: str) -> None:
    """Keep a finished evaluation of a results folder. Raises ``MachineError`` if it cannot be written."""
    source = store.evaluation_folder(cell, key)

    def write(folder: Path) -> None:
        for path in source.iterdir():
            if path.name not in (ROWS, EMBEDDED):
                shutil.copyfile(path, folder / path.name)
        write_json(folder / ROWS, store.evaluated(cell, key))
        if embedded := store.embedded(cell, key):
            classes = [embedded.image_classes, embedded.text_classes]
            write_json(folder / SHOWN, {"classes": classes, "texts_are": embedded.texts_are})
            for side, vectors in zip(SIDES, (embedded.images, embedded.texts)):
                np.save(_vectors(folder, side), vectors)

    build_folder(_folder(cache, cell, key), write)


def adopt_evaluation(
    cache: Path,
    store: Store,
    cell: str,
    key: str,
    relabelled: Callable[[list[Row]], list[Row]],
    partial: Path | None = None,
) -> list[Row] | None:
    """Write an evaluation that was kept into a results folder; return its rows, or None if there is none.

    One that is damaged is set aside. relabelled: gives rows the labels of this run. partial: as of
    ``Store.add_evaluation``.
    """
    folder = _folder(cache, cell, key)
    if not intact(folder):
        return None
    rows = relabelled(read_json(folder / ROWS, REMEDY))

    def write(into: Path) -> None:
        for path in folder.glob("*.parquet"):
            shutil.copyfile(path, into / path.name)
        for name in ("evaluation.json", "notes.json"):
            shutil.copyfile(folder / name, into / name)
        if (folder / SHOWN).is_file():
            write_json(into / EMBEDDED, _embedded(folder, store.cell(cell) / "embeddings"))

    store.write_evaluation(cell, key, rows, write, partial)
    return rows


def forget_evaluation(cache: Path, cell: str, key: str) -> None:
    """Remove an evaluation that was kept, if there is one."""
    folder = _folder(cache, cell, key)
    if folder.is_dir():
        remove(folder)


def _embedded(folder: Path, embeddings: Path) -> EmbeddedNotes:
    """Write the embeddings that were kept among those of a cell; return where they are."""
    shown = read_object(folder / SHOWN, REMEDY)
    stored = []
    for side, classes in zip(SIDES, shown["classes"]):
        vectors = np.load(_vectors(folder, side))
        hashed = row_digest(vectors)

        def write(into: Path, vectors: np.ndarray = vectors) -> None:
            np.save(into / "embeddings.npy", vectors)

        # Not all that was encoded: no task finds them under this name.
        into = build_folder(embeddings / f"shown-{side}-{hashed}", write)
        stored.append(Stored(folder=into.name, rows=[*range(len(vectors))], classes=classes, digest=hashed))
    return {"images": stored[0], "texts": stored[1], "texts_are": shown["texts_are"]}


def _vectors(folder: Path, side: str) -> Path:
    return folder / f"shown-{side}.npy"


def _folder(cache: Path, cell: str, key: str) -> Path:
    return cache / "evaluations" / digest([formats.CACHE, cell, key])
