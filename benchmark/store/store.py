"""The result store: a folder a cell, whole or not there at all.

cells/HASH/cell.json                what was trained: everything the result depends on, and its label
cells/HASH/cost.json                what it took
cells/HASH/*.safetensors, log.jsonl
cells/HASH/embeddings/              encoded datasets
cells/HASH/evaluations/KEY/         evaluation.json (all that it depends on beside the encoder), rows.json, notes.json,
                                    and as Parquet the per-example scores and the metrics of each resample
cells/.HASH.partial/                a training under way, or interrupted
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
LABEL = ("suite", "model", "method", "variant", "pretraining", "seed")


class Store:
    """Cells and rows under ``folder``, which need not exist yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cells = folder / "cells"

    def cell(self, key: str) -> Path:
        """The folder of a finished cell."""
        return self.cells / key

    def partial(self, key: str) -> Path:
        """The folder that a cell is trained in; finish() makes it the cell's."""
        return self.cells / f".{key}.partial"

    def finished(self, key: str) -> bool:
        return (self.cell(key) / "cost.json").is_file()

    def finish(self, key: str, cell: Mapping[str, Any], cost: Mapping[str, Any]) -> None:
        """Write what was trained and what it took beside the weights, and rename the folder: now the cell exists."""
        partial = self.partial(key)
        _write_json(partial / "cell.json", cell)
        _write_json(partial / "cost.json", cost)
        os.replace(partial, self.cell(key))

    def evaluated(self, cell: str, key: str) -> list[Row] | None:
        """The rows of a finished evaluation, or None."""
        path = self.cell(cell) / "evaluations" / key / "rows.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def add_evaluation(
        self,
        cell: str,
        key: str,
        content: Mapping[str, Any],
        rows: list[Row],
        examples: Mapping[str, Mapping[str, np.ndarray]],
        resampled: Mapping[str, Mapping[str, np.ndarray]],
        notes: Any,
    ) -> None:
        """Keep one evaluation: what it depends on beside the encoder, its rows, by part its per-example columns and
        resampled metrics, and its notes.
        """
        import pandas as pd

        parent = self.cell(cell) / "evaluations"
        parent.mkdir(exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=parent))
        try:
            for part, columns in examples.items():
                frame = pd.DataFrame({name: list(v) if v.ndim > 1 else v for name, v in columns.items()})
                frame.to_parquet(partial / _name("examples", part))
            for part, columns in resampled.items():
                pd.DataFrame(columns).to_parquet(partial / _name("resamples", part))
            _write_json(partial / "evaluation.json", content)
            _write_json(partial / "notes.json", notes)
            _write_json(partial / "rows.json", rows)
            if (parent / key).exists():
                shutil.rmtree(parent / key)
            partial.rename(parent / key)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def checkpoint(self, cell: str) -> Literal["last", "best"]:
        """Return the checkpoint that the newest evaluation of a cell is of: what the tables show. A cell that was never
        evaluated shows its last.
        """
        paths = self.cell(cell).glob("evaluations/*/evaluation.json")
        newest = max(paths, key=lambda path: path.stat().st_mtime, default=None)
        if newest is None:
            return "last"
        best = json.loads(newest.read_text(encoding="utf-8"))["evaluation"]["checkpoint"] == "best"
        return "best" if best else "last"

    def examples(self, cell: str, key: str, part: str) -> "pd.DataFrame":
        """Return the per-example columns of a part of an evaluation: one row a test example."""
        import pandas as pd

        return pd.read_parquet(self.cell(cell) / "evaluations" / key / _name("examples", part))

    def resamples(self, cell: str, key: str, part: str, metric: str) -> np.ndarray | None:
        """A metric in each resample of the test set, [R]; None where it was not kept."""
        import pandas as pd

        path = self.cell(cell) / "evaluations" / key / _name("resamples", part)
        return pd.read_parquet(path, columns=[metric])[metric].to_numpy() if path.is_file() else None

    def notes(self, cell: str, key: str) -> dict[str, Any]:
        """The notes of an evaluation by part; empty where there are none."""
        path = self.cell(cell) / "evaluations" / key / "notes.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    def rows(self) -> "pd.DataFrame":
        """One row per method x seed x dataset x task x part x metric. Where two cells have the same label (a method's
        code was changed in between, say), the newer one's.
        """
        import pandas as pd

        rows: list[Row] = []
        for folder in self._finished():
            for path in sorted(folder.glob("evaluations/*/rows.json"), key=lambda p: p.stat().st_mtime):
                rows += json.loads(path.read_text(encoding="utf-8"))
        frame = pd.DataFrame(rows)
        if frame.empty:
            return frame
        return _newest(frame, [*LABEL, "dataset", "task", "part", "metric"])

    def costs(self) -> "pd.DataFrame":
        """One row a cell that was trained."""
        import pandas as pd

        costs = []
        for folder in self._finished():
            cell = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
            cost = json.loads((folder / "cost.json").read_text(encoding="utf-8"))
            if not cost:
                continue
            costs.append(cell["label"] | {"cell": folder.name} | cost)
        frame = pd.DataFrame(costs)
        return frame if frame.empty else _newest(frame, [*LABEL])

    def _finished(self) -> Iterator[Path]:
        """The folders of finished cells, oldest first."""
        yield from sorted(
            (path.parent for path in self.cells.glob("[!.]*/cost.json")),
            key=lambda folder: (folder / "cost.json").stat().st_mtime,
        )


def _newest(frame: "pd.DataFrame", keys: list[str]) -> "pd.DataFrame":
    """The last of the rows that share the keys; one that no row has tells nothing apart."""
    return frame.drop_duplicates([key for key in keys if key in frame], keep="last", ignore_index=True)


def _name(kind: str, part: str) -> str:
    return f"{kind}{'-' if part else ''}{part}.parquet"


def _write_json(path: Path, content: Any) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1, default=_plain) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value)
