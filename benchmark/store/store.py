"""The result store: a folder for each cell, complete or absent.

cells/HASH/cell.json                what was trained: its label and everything that the result depends on
cells/HASH/cost.json                a record, see files.py: what the training cost, and a digest of each file
cells/HASH/*.safetensors, log.jsonl
cells/HASH/embeddings/              encoded datasets, each a folder with digests
cells/HASH/evaluations/KEY/         evaluation.json (everything it depends on besides the encoder), rows.json (a record
                                    with the rows and a digest of each file), notes.json, embedded.json (where some test
                                    images and their texts are in embeddings/), and in Parquet the per-example scores
                                    and the metrics of each resample
cells/.HASH.partial-TOKEN/          a training in progress or interrupted
cells/.HASH.claim-G                 which process works on it, see claim.py; the same in evaluations/
cells/.NAME.damaged-TOKEN           what was not as it was written, and was made again; the same in evaluations/
claims.json                         the claims of the suites that were run
runs/ID.json                        what a run is doing and has to do, see live.py
launches/ID/                        what a launch started and what of it failed, see execution/launch/launcher.py
datasets.json                       where the cards of the datasets lie that were evaluated on
merged.json                         which results folders the cells came from, of a folder that was merged
clock.json                          the time and count of the newest record
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import numpy as np

from benchmark.common.errors import MachineError, cut, explained
from benchmark.config.claims import Claim, Claims
from benchmark.config.training import Evaluating
from benchmark.config.validation import validated
from benchmark.store.claim import unfinished
from benchmark.store.files import (
    DamagedError,
    Record,
    check_file,
    commit,
    digests,
    read_object,
    read_record,
    set_aside,
    write_json,
    write_record,
    write_sealed,
)
from benchmark.store.hashing import digest
from benchmark.store.live import RunRecord, read_runs
from benchmark.store.rows import Embedded, EmbeddedNotes, Notes, OpenedDataset, Row

if TYPE_CHECKING:
    import pandas as pd

LABEL = ("suite", "model", "arm", "method", "variant", "pretraining", "seed", "folder")
"""The columns that name a cell. Of several cells with the same name, the newest counts: the time and the count in its
record say which that is, or the time of the file for results of versions before 0.2; of equal ones, the higher key.

folder: of several results folders, the one that the cell is in, where another has a different cell of the same name."""

WEIGHTS = "*.safetensors"
T = TypeVar("T")


@dataclass(frozen=True)
class Finished:
    """A finished cell. cell: of cell.json; cost: of cost.json."""

    folder: Path
    cell: Mapping[str, Any]
    cost: Record

    @property
    def key(self) -> str:
        """The key of the cell."""
        return self.folder.name

    @property
    def age(self) -> tuple[float, int, str]:
        """What newer cells have more of."""
        return self.cost.time, self.cost.count, self.key

    @property
    def place(self) -> tuple[Any, ...]:
        """The place among other cells: by label, then by key."""
        label = self.cell["label"]
        return (*(str(label.get(column, "")) for column in LABEL if column != "seed"), label.get("seed", 0), self.key)


TRIED = 1 << 16
"""Bytes that are written to see whether a folder can be written to."""


class Store:
    """The cells and rows under ``folder``, which need not exist yet.

    damage: what rows() and costs() left out because it is damaged, a line for each folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cells = folder / "cells"
        self.damage: dict[Path, str] = {}
        self._files: dict[Path, tuple[tuple[int, int], Mapping[str, str]]] = {}

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
            reason = next(filter(None, map(why_unwritable, folders)), "")
        if reason:
            raise MachineError(f"the results folder {self.folder} {reason}; choose another with --results")

    def keep_claims(self, suite: str, claims: Mapping[str, Claim]) -> None:
        """Write the claims of a suite, replacing those that it had: a report made elsewhere has no other source."""
        try:
            before = self.claims()
        except DamagedError as error:
            set_aside(self._claims, error)
            before = {}
        kept = {name: Claims(claims=of_suite) for name, of_suite in before.items()} | {
            suite: Claims(claims=dict(claims))
        }
        stated = {name: of_suite.model_dump()["claims"] for name, of_suite in kept.items() if of_suite.claims}
        if stated or self._claims.is_file():
            write_record(self._claims, stated, self._stamp())

    def claims(self) -> dict[str, dict[str, Claim]]:
        """Read the claims by suite and name. Raises ``BenchError`` if another version has written them differently."""
        if not self._claims.is_file():
            return {}
        stated = read_record(self._claims, dict, "bench run writes it again, for the suite that it runs").content
        return {
            suite: validated(Claims, {"claims": of_suite}, f"{self._claims}, suite {suite}").claims
            for suite, of_suite in stated.items()
        }

    @property
    def _claims(self) -> Path:
        return self.folder / "claims.json"

    def keep_datasets(self, opened: Mapping[str, OpenedDataset]) -> None:
        """Write how datasets were opened, by name, beside those of earlier runs, so that the report can open them."""
        if not opened:
            return
        try:
            before = self.datasets()
        except DamagedError as error:
            set_aside(self._datasets, error)
            before = {}
        write_record(self._datasets, before | dict(opened), self._stamp())

    def datasets(self) -> dict[str, OpenedDataset]:
        """Read how the datasets were opened, by name; those of results of an earlier version are missing."""
        if not self._datasets.is_file():
            return {}
        return dict(read_record(self._datasets, dict, "bench run writes it again").content)

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

    def finish(
        self,
        key: str,
        cell: Mapping[str, Any],
        cost: Mapping[str, Any],
        partial: Path | None = None,
        temporary: Iterable[str] = (),
    ) -> None:
        """Write cell.json and cost.json beside the weights and rename the folder, which completes the cell.

        partial: the folder that the cell was made in; default: that of partial(). temporary: the names of its files
        that only the training needs, which are removed once the cell is complete.
        """
        partial, temporary = partial or self.partial(key), tuple(temporary)
        write_json(partial / "cell.json", cell)
        # It may hold the cost.json of its training.
        written = digests(partial, (*temporary, "cost.json"))
        write_record(partial / "cost.json", cost, self._stamp(), written)
        commit(partial, self.cell(key))
        self.tidy(key, temporary)

    def tidy(self, key: str, temporary: Iterable[str]) -> None:
        """Remove the files of a finished cell that only its training needed."""
        for name in temporary:
            (self.cell(key) / name).unlink(missing_ok=True)

    def cost(self, key: str) -> dict[str, Any]:
        """Read what a finished cell cost, as the training returned it."""
        return dict(self.cost_record(key).content)

    def cost_record(self, key: str) -> Record:
        """Read the record of a finished cell. Raises ``DamagedError`` if it is damaged."""
        return read_record(self.cell(key) / "cost.json", dict, self.again(key))

    def description(self, key: str) -> dict[str, Any]:
        """Read the cell.json of a finished cell. Raises ``DamagedError`` if it is damaged."""
        path = self.cell(key) / "cell.json"
        check_file(path, self.cost_record(key).files, self.again(key))
        return read_object(path, self.again(key))

    def check(self, key: str, name: str) -> Path:
        """Return the path of a file of a finished cell. Raises ``DamagedError`` if it is not what was written."""
        path = self.cell(key) / name
        check_file(path, self.cost_record(key).files, self.again(key))
        return path

    def again(self, key: str) -> str:
        """Return what to do about a damaged cell."""
        return f"to train it again: the command that trained it, with --again {key}"

    def start_again(self, key: str) -> None:
        """Set a cell aside, finished or interrupted, so that it is trained and evaluated anew."""
        for folder in (self.cell(key), unfinished(self.cell(key))):
            if folder is not None and folder.is_dir():
                set_aside(folder, f"cell {key}: is trained again")

    def set_aside_damaged(self, key: str, evaluations: Iterable[str]) -> None:
        """Set aside those evaluations of a cell that are not what was written: they are made again."""
        for name in evaluations:
            folder = self.evaluation_folder(key, name)
            try:
                if folder.is_dir():
                    files = self._evaluation_record(key, name).files
                    for file in files:
                        check_file(folder / file, files, EVALUATE_AGAIN)
            except DamagedError as error:
                set_aside(folder, error)

    def configuration(self, cell: str) -> dict[str, Any] | None:
        """Read what the weights of a cell depend on: method, options, training, model and data; None if it is gone."""
        if not (self.cell(cell) / "cell.json").is_file():
            return None
        return dict(self.description(cell)["content"])

    def evaluation_folder(self, cell: str, key: str) -> Path:
        """Return the folder of an evaluation."""
        return self.cell(cell) / "evaluations" / key

    def is_evaluated(self, cell: str, key: str) -> bool:
        """Return whether an evaluation exists."""
        return (self.evaluation_folder(cell, key) / "rows.json").is_file()

    def evaluated(self, cell: str, key: str) -> list[Row] | None:
        """Read the rows of an evaluation; None if it does not exist."""
        if not self.is_evaluated(cell, key):
            return None
        rows: list[Row] = self._evaluation_record(cell, key).content
        return rows

    def _evaluation_record(self, cell: str, key: str) -> Record:
        path = self.evaluation_folder(cell, key) / "rows.json"
        state = path.stat() if path.is_file() else None
        record = read_record(path, list, EVALUATE_AGAIN)
        if state is not None:
            self._files[path] = (state.st_size, state.st_mtime_ns), record.files
        return record

    def _files_of(self, cell: str, key: str) -> Mapping[str, str]:
        """Read the digests of the files of an evaluation; a record that has not changed is not read again.

        A report asks for each file and each metric.
        """
        path = self.evaluation_folder(cell, key) / "rows.json"
        state = path.stat()
        known, files = self._files.get(path, (None, {}))
        return files if known == (state.st_size, state.st_mtime_ns) else self._evaluation_record(cell, key).files

    def _checked(self, cell: str, key: str, name: str) -> Path | None:
        """Return the path of a file of an evaluation; None if it has none of that name.

        Raises ``DamagedError`` if it is not what was written.
        """
        path = self.evaluation_folder(cell, key) / name
        try:
            files = self._files_of(cell, key)
        except FileNotFoundError:
            return None
        if name not in files and not path.is_file():
            return None
        check_file(path, files, EVALUATE_AGAIN)
        return path

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

        def write(folder: Path) -> None:
            for part, columns in examples.items():
                frame = pd.DataFrame({name: list(v) if v.ndim > 1 else v for name, v in columns.items()})
                frame.to_parquet(folder / _name("examples", part))
            for part, columns in resampled.items():
                frame = pd.DataFrame({name: list(v.T) if len(v) > 1 else v[0] for name, v in columns.items()})
                frame.to_parquet(folder / _name("resamples", part))
            write_json(folder / "evaluation.json", content)
            write_json(folder / "notes.json", notes)
            if embedded:
                write_json(folder / "embedded.json", embedded)

        self.write_evaluation(cell, key, rows, write, partial)

    def write_evaluation(
        self, cell: str, key: str, rows: Sequence[Row], write: Callable[[Path], None], partial: Path | None = None
    ) -> None:
        """Write an evaluation, whose files but rows.json ``write`` puts into a folder. Else as add_evaluation()."""
        parent = self.cell(cell) / "evaluations"
        parent.mkdir(exist_ok=True)
        taken_over = partial is not None
        partial = partial or parent / f".partial-{uuid4().hex[:8]}"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            write(partial)
            write_record(partial / "rows.json", rows, self._stamp(), digests(partial))
            if (parent / key).exists():
                if taken_over and self.is_evaluated(cell, key):
                    return
                shutil.rmtree(parent / key)
            commit(partial, parent / key)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def checkpoint(self, cell: str) -> str:
        """Return the name of the checkpoint that the newest evaluation of a cell used, which the tables show.

        "last" for a cell that was never evaluated.
        """
        records = ((key, self._evaluation_record(cell, key)) for key in self._evaluations(cell))
        for key, _ in sorted(records, key=lambda each: (each[1].time, each[1].count, each[0]), reverse=True):
            content = self.evaluation(cell, key)
            if "at" not in content:
                return Evaluating.model_validate(content["evaluation"]).source()
        return "last"

    def examples(self, cell: str, key: str, part: str, columns: Sequence[str] | None = None) -> "pd.DataFrame | None":
        """Read the per-example columns of a part of an evaluation, one row per test example; None if there are none.

        columns: those that are read; default: all.
        """
        from pyarrow import parquet

        path = self._checked(cell, key, _name("examples", part))
        if path is None:
            return None
        # pandas would open it as a data set of many files, which takes as long as reading it.
        with _damage_of(path), parquet.ParquetFile(path) as file:
            wanted = columns and list(columns)
            frame: pd.DataFrame = file.read(wanted, use_threads=False).to_pandas()
            return frame[wanted] if wanted else frame

    def log(self, cell: str) -> "pd.DataFrame | None":
        """Read the log of a cell's training, one row per step; None if it has none."""
        import pandas as pd

        path = self.check(cell, "log.jsonl")
        if not path.is_file() or not path.stat().st_size:
            return None
        with _damage_of(path, self.again(cell)):
            return pd.read_json(path, lines=True)

    def embedded(self, cell: str, key: str) -> Embedded | None:
        """Read the embeddings of some test images of an evaluation and of their texts.

        None if the evaluation does not say where they are, or if they were removed.
        """
        path = self._checked(cell, key, "embedded.json")
        if path is None:
            return None
        notes: EmbeddedNotes = read_object(path, EVALUATE_AGAIN)  # type: ignore[assignment]
        images, texts = notes["images"], notes["texts"]
        paths = [path.parents[2] / "embeddings" / each["folder"] / "embeddings.npy" for each in (images, texts)]
        if not all(path.is_file() for path in paths):
            return None
        vectors = []
        for stored, each in zip(paths, (images, texts)):
            with _damage_of(path):
                chosen = np.array(np.load(stored, mmap_mode="r")[each["rows"]])
            if each.get("digest", row_digest(chosen)) != row_digest(chosen):
                # bench run encodes them again; only a picture rests on them.
                return None
            vectors.append(chosen)
        return Embedded(vectors[0], vectors[1], images["classes"], texts["classes"], notes["texts_are"])

    def evaluation(self, cell: str, key: str) -> dict[str, Any]:
        """Read what an evaluation depends on besides the encoder."""
        path = self._checked(cell, key, "evaluation.json") or self.evaluation_folder(cell, key) / "evaluation.json"
        return read_object(path, EVALUATE_AGAIN)

    def resamples(self, cell: str, key: str, part: str, metric: str) -> np.ndarray | None:
        """Read a metric in each draw of what is learned from and each resample of the test set: [D, R].

        D = 1 for a metric without draws. None if there are no resamples.
        """
        import pyarrow as pa
        from pyarrow import parquet

        path = self._checked(cell, key, _name("resamples", part))
        if path is None:
            return None
        # A report reads thousands of these: as a table each would take twice as long, through pandas twenty times.
        with _damage_of(path), parquet.ParquetFile(path) as file:
            column = file.reader.read_column(file.schema_arrow.names.index(metric)).combine_chunks()
            numbers = column.flatten() if pa.types.is_list(column.type) else column
            values = np.asarray(numbers.to_numpy(zero_copy_only=False), dtype=np.float64)
            return values.reshape(len(column), -1).T

    def notes(self, cell: str, key: str) -> dict[str, Notes]:
        """Read the notes of an evaluation by part; empty if there are none."""
        path = self._checked(cell, key, "notes.json")
        return read_object(path, EVALUATE_AGAIN) if path else {}

    def rows(self) -> "pd.DataFrame":
        """Read the rows of finished trainings, one per arm, seed, dataset, task, part and metric.

        If two cells have the same label (a method's code has changed, say), the newer one counts. The order is that of
        the labels and keys.
        """
        return self.rows_and_course()[0]

    def course(self) -> "pd.DataFrame":
        """Read the rows of weights in the course of trainings: as rows(), with the columns of ``CourseColumns``."""
        return self.rows_and_course()[1]

    def rows_and_course(self) -> "tuple[pd.DataFrame, pd.DataFrame]":
        """Read what rows() and course() return, each file once."""
        read = self._rows()
        newest_last = sorted(range(len(read)), key=lambda i: read[i][0])
        of_kinds = [
            [(i, row) for i in newest_last for row in read[i][1] if ("at" not in row) == at_end]
            for at_end in (True, False)
        ]
        return _frame(of_kinds[0]), _frame(of_kinds[1])

    def _rows(self) -> list[tuple[tuple[Any, ...], list[dict[str, Any]]]]:
        """Read the rows of each evaluation, with what newer evaluations have more of."""
        evaluations: list[tuple[tuple[Any, ...], list[dict[str, Any]]]] = []
        cells = self.finished_cells()
        apart = self._told_apart(cells)
        for cell in cells:
            origin = self._origin(cell, apart)
            for key in self._evaluations(cell.key):
                try:
                    record = self._evaluation_record(cell.key, key)
                except DamagedError as error:
                    self.leave_out(error)
                    continue
                rows = [{**row, **origin} for row in record.content] if origin else record.content
                evaluations.append(((cell.age, record.time, record.count, key), rows))
        return evaluations

    def costs(self) -> "pd.DataFrame":
        """Read the costs of the trained cells, one row per cell; of two with the same label the newer one."""
        import pandas as pd

        cells = self.finished_cells()
        apart = self._told_apart(cells)
        costs = [
            (cell.age, {**cell.cell["label"], "cell": cell.key} | self._origin(cell, apart) | cell.cost.content)
            for cell in cells
            if cell.cost.content
        ]
        newest_last = sorted(range(len(costs)), key=lambda i: costs[i][0])
        frame = pd.DataFrame([costs[i][1] for i in newest_last])
        if frame.empty:
            return frame
        kept = _newest(frame, [*LABEL])
        return kept.iloc[np.argsort(np.array(newest_last)[kept.index], kind="stable")].reset_index(drop=True)

    def without_damage(self, read: Callable[[], T]) -> T:
        """Return what ``read`` makes of the results, without the cells and evaluations that it finds damaged.

        ``damage`` says which these are.
        """
        while True:
            try:
                return read()
            except DamagedError as error:
                if not self.leave_out(error):
                    raise

    def leave_out(self, error: DamagedError) -> bool:
        """Leave out the evaluation or the cell that a damaged file is part of; return whether there is one."""
        for folder in error.path.parents:
            in_cell = folder.parent.name == "evaluations" and folder.parents[2].name == "cells"
            if in_cell or folder.parent.name == "cells":
                known = folder in self.damage
                self.damage[folder] = str(error)
                return not known
        return False

    def finished_cells(self) -> list[Finished]:
        """Read the finished cells, by label and key; those that are damaged are left out, and ``damage`` says so."""
        cells = []
        for path in self.cells.glob("[!.]*/cost.json"):
            if path.parent in self.damage:
                continue
            key, again = path.parent.name, self.again(path.parent.name)
            try:
                cost = read_record(path, dict, again)
                check_file(path.with_name("cell.json"), cost.files, again)
                cell = read_object(path.with_name("cell.json"), again)
                if not isinstance(cell.get("label"), dict):
                    raise DamagedError(path.with_name("cell.json"), "is damaged: it has no label", self.again(key))
                cells.append(Finished(path.parent, cell, cost))
            except DamagedError as error:
                self.leave_out(error)
        return sorted(cells, key=lambda cell: cell.place)

    def _evaluations(self, cell: str) -> list[str]:
        """List the keys of the evaluations of a cell, without those left out."""
        paths = self.cell(cell).glob("evaluations/[!.]*/rows.json")
        return sorted(path.parent.name for path in paths if path.parent not in self.damage)

    def source(self, cell: str) -> str:
        """Return the name of the results folder that a cell came from; empty in a folder that was not merged."""
        sources = self.sources()
        return sources.get(cell, self.folder.name) if sources else ""

    def sources(self) -> dict[str, str]:
        """Return the names of the results folders that the cells of a merged folder came from, by key."""
        path = self.folder / "merged.json"
        return dict(read_record(path, dict, MERGE_AGAIN).content) if path.is_file() else {}

    def keep_sources(self, sources: Mapping[str, str]) -> None:
        """Write what sources() returns."""
        write_record(self.folder / "merged.json", dict(sources), self._stamp())

    def _origin(self, cell: Finished, apart: set[str]) -> dict[str, str]:
        """Return the columns that say where a cell is from, if its label is one of those that are told apart."""
        return {"folder": self.source(cell.key)} if label_digest(cell) in apart else {}

    def _told_apart(self, cells: Sequence[Finished]) -> set[str]:
        """Return the labels without seed of cells from several folders that differ in more than the seed."""
        sources = {cell.key: self.source(cell.key) for cell in cells}
        if len(set(sources.values())) < 2:
            return set()
        newest: dict[tuple[str, str, int], str] = {}
        for cell in sorted(cells, key=lambda cell: cell.age):
            content = {name: value for name, value in cell.cell["content"].items() if name != "seed"}
            newest[label_digest(cell), sources[cell.key], cell.cell["label"]["seed"]] = digest(content)
        configurations: dict[str, dict[str, set[str]]] = {}
        for (label, source, _), configuration in newest.items():
            configurations.setdefault(label, {}).setdefault(source, set()).add(configuration)
        return {
            label
            for label, of_sources in configurations.items()
            if any(each != next(iter(of_sources.values())) for each in of_sources.values())
        }

    def _stamp(self) -> tuple[float, int]:
        """Return the time and the count of a new record: later than those before, whatever the clock says."""
        path, now = self.folder / "clock.json", (time.time(), 0)
        try:
            last = read_object(path, "") if path.is_file() else {}
            now = max(now, (float(last.get("time", 0)), int(last.get("count", 0)) + 1))
        except (DamagedError, ValueError, TypeError):
            pass
        write_sealed(path, {"time": now[0], "count": now[1]})
        return now


EVALUATE_AGAIN, MERGE_AGAIN = "bench run makes it again", "remove it, or merge the folders again"
"""What to do about a damaged evaluation, and about merged.json."""


def label_digest(cell: Finished) -> str:
    """Hash the label of a cell without the seed."""
    return digest({name: value for name, value in cell.cell["label"].items() if name not in ("seed", "recipe")})


def same_training(one: Finished, other: Finished) -> bool:
    """Return whether two copies of a cell are of one training, or of two that gave the same weights."""
    if digest(one.cost.content) == digest(other.cost.content):
        return True
    weights = [
        {name: value for name, value in files.items() if Path(name).match(WEIGHTS)}
        for files in (each.cost.files or digests(each.folder) for each in (one, other))
    ]
    return weights[0] == weights[1] != {}


def row_digest(rows: np.ndarray) -> str:
    """Hash some rows of an array."""
    return digest([list(rows.shape), rows.tobytes().hex()])


@contextmanager
def _damage_of(path: Path, remedy: str = EVALUATE_AGAIN) -> Iterator[None]:
    """Raise what a library says about a file that it cannot read as ``DamagedError``."""
    try:
        yield
    except DamagedError:
        raise
    # The libraries raise errors of many kinds.
    except Exception as error:
        raise DamagedError(path, f"is damaged ({cut(str(error))})", remedy) from error


def why_unwritable(folder: Path) -> str:
    """Say why no file can be written into a folder; empty if one can."""
    try:
        with tempfile.NamedTemporaryFile(prefix=".writable-", dir=folder) as file:
            file.write(bytes(TRIED))
            file.flush()
    except OSError as error:
        return f"cannot be written to: {explained(error)}"
    return ""


def _frame(rows: Sequence[tuple[int, Mapping[str, Any]]]) -> "pd.DataFrame":
    """Tabulate rows, the newest last, without those that newer ones replace. rows: each with its place in the table."""
    import pandas as pd

    frame = pd.DataFrame([row for _, row in rows])
    if frame.empty:
        return frame
    if "groups" in frame:
        # Rows of earlier versions say no more than the number of groups.
        effective = frame["effective_groups"] if "effective_groups" in frame else frame["groups"]
        frame["effective_groups"] = effective.fillna(frame["groups"])
    place = pd.Series([place for place, _ in rows])
    kept = _newest(frame, [*LABEL, "dataset", "task", "part", "metric", "at"])
    return kept.iloc[np.argsort(place[kept.index], kind="stable")].reset_index(drop=True)


def _newest(frame: "pd.DataFrame", keys: list[str]) -> "pd.DataFrame":
    """Keep the last of the rows that share the keys; ignore keys that the frame lacks."""
    return frame.drop_duplicates([key for key in keys if key in frame], keep="last")


def _name(kind: str, part: str) -> str:
    return f"{kind}{'-' if part else ''}{part}.parquet"
