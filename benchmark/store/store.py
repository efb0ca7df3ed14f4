"""The result store: a folder for each cell, complete or absent.

cells/HASH/cell.json                what was trained: its label and everything that the result depends on
cells/HASH/cost.json                what the training cost
cells/HASH/*.safetensors, log.jsonl
cells/HASH/embeddings/              encoded datasets
cells/HASH/evaluations/KEY/         evaluation.json (everything it depends on besides the encoder), rows.json,
                                    notes.json, embedded.json (where some test images and their texts are in
                                    embeddings/), and in Parquet the per-example scores and the metrics of each resample
cells/.HASH.partial-TOKEN/          a training in progress or interrupted
cells/.HASH.claim-G                 which process works on it, see claim.py; the same in evaluations/
claims.json                         the claims of the suites that were run
runs/ID.json                        what a run is doing and has to do, see live.py
launches/ID/                        what a launch started and what of it failed, see execution/launch/launcher.py
datasets.json                       where the cards of the datasets lie that were evaluated on
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.common.errors import MachineError, explained
from benchmark.config.claims import Claim, Claims
from benchmark.config.training import Evaluating
from benchmark.config.validation import validated
from benchmark.store.claim import unfinished
from benchmark.store.live import RunRecord, read_runs
from benchmark.store.rows import Embedded, EmbeddedNotes, Notes, OpenedDataset, Row

if TYPE_CHECKING:
    import pandas as pd

LABEL = ("suite", "model", "arm", "method", "variant", "pretraining", "seed", "folder")
"""The columns that name a cell. Of several cells with the same name, the newest counts.

folder: of several results folders, the one that the cell is in, where another has a different cell of the same name."""


TRIED = 1 << 16
"""Bytes that are written to see whether a folder can be written to."""


class Store:
    """The cells and rows under ``folder``, which need not exist yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cells = folder / "cells"

    def create(self) -> None:
        """Create the folder and try to write to it. Raises ``MachineError`` if files cannot be written there."""
        reason = ""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            reason = "is or lies below a file, not a folder"
        except OSError as error:
            reason = f"cannot be created: {error.strerror}"
        if not reason:
            folders = [self.folder, *([self.cells] if os.path.lexists(self.cells) else [])]
            reason = next(filter(None, map(_why_unwritable, folders)), "")
        if reason:
            raise MachineError(f"the results folder {self.folder} {reason}; choose another with --results")

    def keep_claims(self, suite: str, claims: Mapping[str, Claim]) -> None:
        """Write the claims of a suite, replacing those that it had: a report made elsewhere has no other source."""
        kept = {name: Claims(claims=of_suite) for name, of_suite in self.claims().items()} | {
            suite: Claims(claims=dict(claims))
        }
        stated = {name: of_suite.model_dump()["claims"] for name, of_suite in kept.items() if of_suite.claims}
        if stated or self._claims.is_file():
            _write_json(self._claims, stated)

    def claims(self) -> dict[str, dict[str, Claim]]:
        """Read the claims by suite and name. Raises ``BenchError`` if another version has written them differently."""
        stated = json.loads(self._claims.read_text(encoding="utf-8")) if self._claims.is_file() else {}
        return {
            suite: validated(Claims, {"claims": of_suite}, f"{self._claims}, suite {suite}").claims
            for suite, of_suite in stated.items()
        }

    @property
    def _claims(self) -> Path:
        return self.folder / "claims.json"

    def keep_datasets(self, opened: Mapping[str, OpenedDataset]) -> None:
        """Write how datasets were opened, by name, beside those of earlier runs, so that the report can open them."""
        if opened:
            _write_json(self._datasets, self.datasets() | dict(opened))

    def datasets(self) -> dict[str, OpenedDataset]:
        """Read how the datasets were opened, by name; those of results of an earlier version are missing."""
        path = self._datasets
        kept: dict[str, OpenedDataset] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return kept

    @property
    def _datasets(self) -> Path:
        return self.folder / "datasets.json"

    def runs(self) -> list[RunRecord]:
        """Read the records of the runs that wrote here, oldest first."""
        return read_runs(self.folder)

    def cell(self, key: str) -> Path:
        """Return the folder of a finished cell."""
        return self.cells / key

    def partial(self, key: str) -> Path:
        """Return the folder in which a cell is made that nobody else makes; see ``Claim.partial`` for the others."""
        return self.cells / f".{key}.partial"

    def interrupted(self, key: str) -> bool:
        """Return whether the training of a cell was begun, and not finished."""
        return unfinished(self.cell(key)) is not None

    def finished(self, key: str) -> bool:
        """Return whether a cell is finished."""
        return (self.cell(key) / "cost.json").is_file()

    def finish(self, key: str, cell: Mapping[str, Any], cost: Mapping[str, Any], partial: Path | None = None) -> None:
        """Write cell.json and cost.json beside the weights and rename the folder, which completes the cell.

        partial: the folder that the cell was made in; default: that of partial().
        """
        partial = partial or self.partial(key)
        _write_json(partial / "cell.json", cell)
        _write_json(partial / "cost.json", cost)
        partial.replace(self.cell(key))

    def cost(self, key: str) -> dict[str, Any]:
        """Read what a finished cell cost, as the training returned it."""
        cost: dict[str, Any] = json.loads((self.cell(key) / "cost.json").read_text(encoding="utf-8"))
        return cost

    def configuration(self, cell: str) -> dict[str, Any] | None:
        """Read what the weights of a cell depend on: method, options, training, model and data; None if it is gone."""
        path = self.cell(cell) / "cell.json"
        if not path.is_file():
            return None
        configuration: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["content"]
        return configuration

    def evaluation_folder(self, cell: str, key: str) -> Path:
        """Return the folder of an evaluation."""
        return self.cell(cell) / "evaluations" / key

    def is_evaluated(self, cell: str, key: str) -> bool:
        """Return whether an evaluation exists."""
        return (self.evaluation_folder(cell, key) / "rows.json").is_file()

    def evaluated(self, cell: str, key: str) -> list[Row] | None:
        """Read the rows of an evaluation; None if it does not exist."""
        path = self.evaluation_folder(cell, key) / "rows.json"
        if not path.is_file():
            return None
        rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))
        return rows

    def add_evaluation(
        self,
        cell: str,
        key: str,
        content: Mapping[str, Any],
        rows: Sequence[Row],
        examples: Mapping[str, Mapping[str, np.ndarray]],
        resampled: Mapping[str, Mapping[str, np.ndarray]],
        notes: Mapping[str, Mapping[str, Any]],
        embedded: EmbeddedNotes | None = None,
        partial: Path | None = None,
    ) -> None:
        """Write an evaluation, replacing an earlier one with the same key.

        content: everything that it depends on besides the encoder. By part: examples, the per-example columns, each
        [n, ...]; resampled, each metric in each draw of what is learned from and each resample, [D, R]; notes, as
        ``Notes``. embedded: where some embeddings are that it used. partial: the folder to write it in, which another
        process renames that takes over; default: one of its own.
        """
        import pandas as pd

        parent = self.cell(cell) / "evaluations"
        parent.mkdir(exist_ok=True)
        taken_over = partial is not None
        partial = partial or Path(tempfile.mkdtemp(prefix=".partial-", dir=parent))
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            for part, columns in examples.items():
                frame = pd.DataFrame({name: list(v) if v.ndim > 1 else v for name, v in columns.items()})
                frame.to_parquet(partial / _name("examples", part))
            for part, columns in resampled.items():
                frame = pd.DataFrame({name: list(v.T) if len(v) > 1 else v[0] for name, v in columns.items()})
                frame.to_parquet(partial / _name("resamples", part))
            _write_json(partial / "evaluation.json", content)
            _write_json(partial / "notes.json", notes)
            if embedded:
                _write_json(partial / "embedded.json", embedded)
            _write_json(partial / "rows.json", rows)
            if (parent / key).exists():
                if taken_over and self.is_evaluated(cell, key):
                    return
                shutil.rmtree(parent / key)
            partial.rename(parent / key)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def checkpoint(self, cell: str) -> str:
        """Return the name of the checkpoint that the newest evaluation of a cell used, which the tables show.

        "last" for a cell that was never evaluated.
        """
        paths = self.cell(cell).glob("evaluations/[!.]*/evaluation.json")
        for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
            content = json.loads(path.read_text(encoding="utf-8"))
            if "at" not in content:
                return Evaluating.model_validate(content["evaluation"]).source()
        return "last"

    def examples(self, cell: str, key: str, part: str, columns: Sequence[str] | None = None) -> "pd.DataFrame | None":
        """Read the per-example columns of a part of an evaluation, one row per test example; None if there are none.

        columns: those that are read; default: all.
        """
        import pandas as pd

        path = self.evaluation_folder(cell, key) / _name("examples", part)
        if not path.is_file():
            return None
        return pd.read_parquet(path, columns=None if columns is None else list(columns))

    def log(self, cell: str) -> "pd.DataFrame | None":
        """Read the log of a cell's training, one row per step; None if it has none."""
        import pandas as pd

        path = self.cell(cell) / "log.jsonl"
        return pd.read_json(path, lines=True) if path.is_file() and path.stat().st_size else None

    def embedded(self, cell: str, key: str) -> Embedded | None:
        """Read the embeddings of some test images of an evaluation and of their texts.

        None if the evaluation does not say where they are, or if they were removed.
        """
        path = self.evaluation_folder(cell, key) / "embedded.json"
        if not path.is_file():
            return None
        notes: EmbeddedNotes = json.loads(path.read_text(encoding="utf-8"))
        images, texts = notes["images"], notes["texts"]
        paths = [path.parents[2] / "embeddings" / each["folder"] / "embeddings.npy" for each in (images, texts)]
        if not all(path.is_file() for path in paths):
            return None
        vectors = [np.array(np.load(p, mmap_mode="r")[each["rows"]]) for p, each in zip(paths, (images, texts))]
        return Embedded(vectors[0], vectors[1], images["classes"], texts["classes"], notes["texts_are"])

    def evaluation(self, cell: str, key: str) -> dict[str, Any]:
        """Read what an evaluation depends on besides the encoder."""
        path = self.evaluation_folder(cell, key) / "evaluation.json"
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content

    def resamples(self, cell: str, key: str, part: str, metric: str) -> np.ndarray | None:
        """Read a metric in each draw of what is learned from and each resample of the test set: [D, R].

        D = 1 for a metric without draws. None if there are no resamples.
        """
        import pyarrow as pa
        from pyarrow import parquet

        path = self.evaluation_folder(cell, key) / _name("resamples", part)
        if not path.is_file():
            return None
        # A report reads thousands of these: through pandas each would take ten times as long.
        with parquet.ParquetFile(path) as file:
            column = file.read(columns=[metric], use_threads=False).column(0).combine_chunks()
        numbers = column.flatten() if pa.types.is_list(column.type) else column
        values = np.asarray(numbers.to_numpy(zero_copy_only=False), dtype=np.float64)
        return values.reshape(len(column), -1).T

    def notes(self, cell: str, key: str) -> dict[str, Notes]:
        """Read the notes of an evaluation by part; empty if there are none."""
        path = self.evaluation_folder(cell, key) / "notes.json"
        notes: dict[str, Notes] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return notes

    def rows(self) -> "pd.DataFrame":
        """Read the rows of finished trainings, one per arm, seed, dataset, task, part and metric.

        If two cells have the same label (a method's code has changed, say), the newer one counts.
        """
        return self._rows(at_end=True)

    def course(self) -> "pd.DataFrame":
        """Read the rows of weights in the course of trainings: as rows(), with the columns of ``CourseColumns``."""
        return self._rows(at_end=False)

    def _rows(self, at_end: bool) -> "pd.DataFrame":
        import pandas as pd

        rows: list[Mapping[str, Any]] = []
        for folder in self._finished():
            origin = self._origin(folder)
            for path in sorted(folder.glob("evaluations/[!.]*/rows.json"), key=lambda p: p.stat().st_mtime):
                found: list[Row] = json.loads(path.read_text(encoding="utf-8"))
                rows += [{**row, **origin} for row in found if ("at" not in row) == at_end]
        frame = pd.DataFrame(rows)
        if frame.empty:
            return frame
        if "groups" in frame:
            # Rows of earlier versions say no more than the number of groups.
            effective = frame["effective_groups"] if "effective_groups" in frame else frame["groups"]
            frame["effective_groups"] = effective.fillna(frame["groups"])
        return _newest(frame, [*LABEL, "dataset", "task", "part", "metric", "at"])

    def costs(self) -> "pd.DataFrame":
        """Read the costs of the trained cells, one row per cell; of two with the same label the newer one."""
        import pandas as pd

        costs: list[dict[str, Any]] = []
        for folder in self._finished():
            cell = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
            cost = json.loads((folder / "cost.json").read_text(encoding="utf-8"))
            if not cost:
                continue
            costs.append(cell["label"] | {"cell": folder.name} | self._origin(folder) | cost)
        frame = pd.DataFrame(costs)
        return frame if frame.empty else _newest(frame, [*LABEL])

    def _finished(self) -> Iterator[Path]:
        """Iterate over the folders of finished cells, oldest first."""
        yield from sorted(
            (path.parent for path in self.cells.glob("[!.]*/cost.json")),
            key=lambda folder: (folder / "cost.json").stat().st_mtime,
        )

    def _origin(self, folder: Path) -> dict[str, str]:
        """Return the columns that say where a cell is from; none in a single store."""
        return {}


def _why_unwritable(folder: Path) -> str:
    """Say why no file can be written into a folder; empty if one can."""
    try:
        with tempfile.NamedTemporaryFile(prefix=".writable-", dir=folder) as file:
            file.write(bytes(TRIED))
            file.flush()
    except OSError as error:
        return f"cannot be written to: {explained(error)}"
    return ""


def _newest(frame: "pd.DataFrame", keys: list[str]) -> "pd.DataFrame":
    """Keep the last of the rows that share the keys; ignore keys that the frame lacks."""
    return frame.drop_duplicates([key for key in keys if key in frame], keep="last", ignore_index=True)


def _name(kind: str, part: str) -> str:
    return f"{kind}{'-' if part else ''}{part}.parquet"


def _write_json(path: Path, value: Any) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=1, default=_plain) + "\n", encoding="utf-8")
    partial.replace(path)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value)
