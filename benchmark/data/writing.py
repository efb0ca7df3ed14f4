"""Write the rows of a source as tables of records: by column where that can be, else row by row."""

import hashlib
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from itertools import combinations, islice
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmark.common.collection import no_collection
from benchmark.data.problems import BadRow, OnBadData, Problems
from benchmark.data.record_tables import as_table, encoded, read_stream, schema
from benchmark.data.records import SPLITS, Classes, Row, place
from benchmark.data.sources import by_column
from benchmark.data.sources.base import SharedGroups, Source
from benchmark.data.sources.table import TableSource

CHUNK = 1000
"""Rows written at once."""


class Summary(TypedDict):
    """What meta.json says about a folder of records.

    splits: the number of rows of each. gathered: by split the number of rows of the source that were gathered with
    others, and of the rows they became. left_out: the number of bad rows by reason. content: a hash of all rows.
    remarks: what is worth knowing about rows that are used, with their number.
    """

    splits: dict[str, int]
    gathered: dict[str, tuple[int, int]]
    left_out: dict[str, int]
    content: str
    remarks: NotRequired[dict[str, int]]


def write_records(folder: Path, source: Source, classes: Classes, on_bad_data: OnBadData, captions: bool) -> Summary:
    """Write a file of records of each split, SPLIT.arrow, and return what they are.

    captions: an id may name an image, and occur in each row of a caption of it.
    Raises ``BenchError`` where nothing can be read, and for bad rows unless they are to be skipped.
    """
    summary = None
    if isinstance(source, TableSource) and by_column.suits(source):
        summary = _write_by_column(folder, source, classes, on_bad_data)
    return summary or _write_by_row(folder, source, classes, on_bad_data, captions)


class _Writers:
    """Writes tables of records into the file of their split."""

    def __init__(self, folder: Path, columns: pa.Schema, stack: ExitStack) -> None:
        self.counts: Counter[str] = Counter()
        self.content = hashlib.sha256()
        self._folder, self._columns, self._stack = folder, columns, stack
        self._writers: dict[str, pa.RecordBatchStreamWriter] = {}

    def write(self, split: str, records: pa.Table) -> None:
        if split not in self._writers:
            path = str(self._folder / f"{split}.arrow")
            self._writers[split] = self._stack.enter_context(pa.ipc.new_stream(path, self._columns))
        self._writers[split].write_table(records)
        self.counts[split] += len(records)

    def summary(self, problems: Problems, gathered: dict[str, tuple[int, int]]) -> Summary:
        summary: Summary = {
            "splits": self.counts,
            "gathered": gathered,
            "left_out": problems.counts,
            "content": self.content.hexdigest(),
        }
        if problems.remarks:
            summary["remarks"] = problems.remarks
        return summary


def _write_by_column(folder: Path, source: TableSource, classes: Classes, on_bad_data: OnBadData) -> Summary | None:
    """Write the rows of a source that suits; None if rows need what only _write_by_row() does."""
    columns, problems = schema(classes.multi_label), Problems()
    spooled = folder / "spooled.arrow"
    # Collecting garbage takes two thirds of the time of reading CSV, and finds nothing.
    with no_collection(), ExitStack() as stack:
        writers = _Writers(folder, columns, stack)
        tables = by_column.read(source, classes, problems)
        # Closed here even when the disk is full, see _write_by_row().
        stack.enter_context(closing(tables))
        drawn = source.split is not None
        try:
            for table in _with_drawn_splits(spooled, tables, source) if drawn else tables:
                writers.content.update(encoded(table, table["split"]))
                splits = table["split"].unique().to_pylist()
                for split in splits:
                    of_split = table if len(splits) == 1 else table.filter(pc.equal(table["split"], split))
                    writers.write(split, of_split.select(columns.names))
            suits = True
        except by_column.EncodedImageError:
            suits = False
    spooled.unlink(missing_ok=True)
    files = {split: folder / f"{split}.arrow" for split in writers.counts}
    if not suits or _share(files, source):
        for file in files.values():
            file.unlink()
        return None
    problems.stop(on_bad_data)
    return writers.summary(problems, {})


def _with_drawn_splits(
    spooled: Path, tables: Iterator[pa.Table], source: TableSource
) -> Generator[pa.Table, None, None]:
    """The tables with the split of each row drawn, which takes all groups. spooled: where they are kept meanwhile."""
    assert source.split is not None
    writer = None
    for table in tables:
        writer = writer or pa.ipc.new_stream(str(spooled), table.schema)
        writer.write_table(table)
    if writer is None:
        return
    writer.close()
    whole = read_stream(spooled)
    groups = whole["group"].dictionary_encode().combine_chunks()
    counts = np.bincount(groups.indices.to_numpy(), minlength=len(groups.dictionary))
    # The order of texts is that of their bytes in UTF-8.
    order = pc.array_sort_indices(groups.dictionary.cast(pa.binary())).to_numpy()
    drawn = np.empty(len(order), dtype=np.int64)
    drawn[order] = source.split.draw(counts[order])
    of_row = pa.array(drawn[groups.indices.to_numpy()])
    splits = pa.array(SPLITS).take(of_row)
    at = 0
    for batch in whole.to_batches():
        table = pa.Table.from_batches([batch])
        column = table.column_names.index("split")
        yield table.set_column(column, "split", splits.slice(at, len(batch)))
        at += len(batch)


def _share(files: dict[str, Path], source: TableSource) -> bool:
    """Whether two rows have one id, or rows of two splits a group or an image that is to be in one of them."""
    tables = {split: read_stream(file) for split, file in files.items()}
    ids = pa.chunked_array([chunk for table in tables.values() for chunk in table["id"].chunks], pa.string())
    if pc.count_distinct(ids).as_py() < len(ids):
        return True
    rule = source.shared_group_rule()
    compared = [[table["group"].unique() for table in tables.values()]] if rule == "error" else []
    if source.columns.id and rule != "drop":
        compared.append([pc.struct_field(table["image"], "path").unique() for table in tables.values()])
    return any(
        pc.any(pc.is_in(one, other)).as_py() for of_splits in compared for one, other in combinations(of_splits, 2)
    )


def _write_by_row(folder: Path, source: Source, classes: Classes, on_bad_data: OnBadData, captions: bool) -> Summary:
    columns = schema(classes.multi_label)
    problems = Problems()
    gathered: dict[str, tuple[int, int]] = {}
    with ExitStack() as stack:
        writers = _Writers(folder, columns, stack)
        rows = source.rows(classes, problems)
        rows = _unique(rows, problems, source.shared_group_rule(), source.shares_images(), captions)
        # Closed here even when the disk is full. Left to the garbage collector, the source's processes and files
        # would be closed by an arbitrary thread, perhaps by one that waits for them.
        stack.enter_context(closing(rows))
        while chunk := list(islice(rows, CHUNK)):
            for split in {row.split: None for row in chunk}:
                of_split = [row for row in chunk if row.split == split]
                writers.write(split, as_table(of_split, columns))
                several = [row.read for row in of_split if row.read > 1]
                if several:
                    before = gathered.get(split, (0, 0))
                    gathered[split] = (before[0] + sum(several), before[1] + len(several))
            for row in chunk:
                writers.content.update(row.encoded())
    problems.stop(on_bad_data)
    return writers.summary(problems, gathered)


def _unique(
    rows: Iterator[Row], problems: Problems, shared_groups: SharedGroups, shared_images: bool, captions: bool
) -> Generator[Row, None, None]:
    """The rows without those whose id occurred before, or whose group or image occurred in another split.

    shared_groups, shared_images: what the published splits share; groups and images of which this is not a mistake are
    not compared. captions: an id may name an image, and occur in each row of a caption of it.
    """
    # With millions of rows these are gigabytes: one tuple for each row.
    ids: dict[str, _Seen] = {}
    groups: dict[str, _Seen] = {}
    images: dict[str, _Seen] = {}
    for row in rows:
        here = (row.split, row.file, row.row, _image_name(row) if captions else "")
        id_ = f"{row.split}/{row.id}" if shared_groups == "drop" else row.id
        first = ids.get(id_)
        if first and not (captions and (first[0], first[3]) == (here[0], here[3])):
            message = f"id '{row.id}' is already used in {place(first[1], first[2])}"
            problems.add(row.place, BadRow("duplicate id", message))
            continue
        names = [("group", row.group, groups)] if shared_groups == "error" else []
        if isinstance(row.image, str) and not shared_images and shared_groups != "drop":
            names.append(("image", row.image, images))
        for kind, name, seen in names:
            split, file, line, _ = seen.get(name, here)
            if split != row.split:
                message = f"{kind} '{name}' is in split '{row.split}' here, but in '{split}' in {place(file, line)}"
                problems.add(row.place, BadRow(f"{kind} in two splits", message))
                break
        else:
            ids.setdefault(id_, here)
            for _, name, seen in names:
                seen.setdefault(name, here)
            yield row


_Seen = tuple[str, str, int, str]
"""Of the first row with an id, a group or an image: split, file, row, and the name of its image."""


def _image_name(row: Row) -> str:
    return row.image if isinstance(row.image, str) else row.digest or hashlib.sha256(row.image).hexdigest()
