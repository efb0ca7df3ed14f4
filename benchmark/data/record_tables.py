"""Records as tables of Arrow, in memory and on the disk."""

import json
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmark.data.records import COLUMNS, LISTS, Row

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""An encoded image, or the path of a file below the folder of images."""
UNQUOTED = r"[^ !#-\[\]-~]"
"""A character that JSON escapes, as Python writes it."""


def schema(multi_label: bool) -> pa.Schema:
    """The columns of a table of records: COLUMNS, and ``file`` and ``row``, the place where each was read."""
    label = pa.list_(pa.int64()) if multi_label else pa.int64()
    types = {"image": IMAGE, "label": label, "row": pa.int64()} | {name: pa.list_(pa.string()) for name in LISTS}
    return pa.schema([(name, types.get(name, pa.string())) for name in (*COLUMNS, "file", "row")])


def as_table(rows: Sequence[Row], columns: pa.Schema) -> pa.Table:
    """Put rows into a table. columns: see schema(); more attributes of Row can be among them."""
    of_rows = {name: [getattr(row, name) for row in rows] for name in columns.names}
    of_rows["image"] = [{"path": row.image} if isinstance(row.image, str) else {"bytes": row.image} for row in rows]
    return pa.table(of_rows, columns)


def read_stream(path: Path) -> pa.Table:
    """Read a file of tables, memory-mapped."""
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_stream(file).read_all()


def encoded(records: pa.Table, split: "str | pa.ChunkedArray") -> bytes:
    """Encode records whose images are paths as Row.encoded() does each, one after the other. split: of them."""
    if not len(records):
        return b""
    lists = [_lists(_one(records[name])) for name in LISTS]
    path = pc.struct_field(_one(records["image"]), "path")
    size = pc.cast(pc.binary_length(path), pa.string())
    quoted = [_quoted(_one(records[name])) for name in ("id", "group")]
    of_split = pa.scalar(f'"{split}"') if isinstance(split, str) else _quoted(_one(split))
    parts = [*quoted, of_split, _labels(_one(records["label"])), *lists, size]
    lines = pc.binary_join_element_wise("[", pc.binary_join_element_wise(*parts, ", "), "]", path, "")
    return _bytes_of(lines)


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _bytes_of(texts: pa.StringArray) -> bytes:
    """The texts of an array, one after the other."""
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return b"" if data is None else memoryview(data)[ends[0] : ends[-1]].tobytes()


def _quoted(texts: pa.StringArray) -> pa.StringArray:
    if pc.any(pc.match_substring_regex(texts, UNQUOTED)).as_py():
        return pa.array(map(encode_basestring_ascii, texts.to_pylist()), pa.string())
    return pc.binary_join_element_wise('"', texts, '"', "")


def _lists(lists: pa.ListArray) -> "pa.StringArray | pa.StringScalar":
    """Each list of texts as JSON."""
    lengths = pc.list_value_length(lists)
    longest = pc.max(lengths).as_py()
    if longest == 0:
        return pa.scalar("[]")
    if longest == 1 and pc.min(lengths).as_py() == 1:
        return pc.binary_join_element_wise("[", _quoted(lists.flatten()), "]", "")
    return pa.array(map(json.dumps, lists.to_pylist()), pa.string())


def _labels(labels: pa.Array) -> pa.StringArray:
    if pa.types.is_integer(labels.type):
        return pc.cast(labels, pa.string())
    return pa.array(map(json.dumps, labels.to_pylist()), pa.string())
