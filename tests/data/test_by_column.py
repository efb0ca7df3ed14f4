"""Records that are made by column are those that are made row by row, and so is what is said of bad rows."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmark.common.errors import BenchError
from benchmark.data import writing
from benchmark.data.record_tables import encoded, read_stream
from benchmark.data.records import Row
from benchmark.data.sources import by_column, formats
from tests.data.make import write_card
from tests.data.mutated import CELLS, OBJECTS

COUNT, TRIALS = 30, 6
NAMES = ("image", "id", "text", "text_id", "label", "patient", "split", "a")
ODD = [
    *(*CELLS, "a photo of a chest", "array(['a', 'b'])", "arthritis of the left knee", "(A) a long text in brackets"),
    *("über dem rechten Lungenflügel", 'a "quoted" word in a text', "back\\slash in a text", "two\nlines in a text"),
    *(" spaces around the text ", "007", "1e+05", "1.50", "2024-01-31", "3f2a9c", "1.23457E+11", "TRUE", "normal|odd"),
    *("e\u0301tude of a decomposed letter", "\u200bzero width", "folder/../b.png", "folder\\c.png", "x" * 70_000, "12"),
]
"""Cells that are not what they seem."""
CARDS: list[dict[str, Any]] = [
    {"columns": {"image": "image", "text": "text", "label": "label", "split": "split", "group": "patient"}},
    {"columns": {"image": "image", "id": "id", "text": "text", "text_id": "text_id"}, "drawn": True},
    {"columns": {"image": "image", "label": "label", "split": "split"}, "values": {"label": {"1": "odd", "12": "odd"}}},
    {"columns": {"image": "image", "id": "id", "group": "patient", "split": "split"}, "where": {"a": ["0", "007"]}},
    {"columns": {"image": "image", "label": {"normal": "a", "odd": "id"}, "split": "split"}, "multi_label": True},
    {
        "columns": {"image": "image", "id": "id", "group": "patient"},
        "where_not": {"split": "test"},
        "strip_prefix": "images/",
        "drawn": True,
    },
]


def rows(rng: random.Random, odd: list[Any], often: float) -> list[dict[str, Any]]:
    made = []
    for i in range(COUNT):
        row: dict[str, Any] = {
            "image": f"images/{i}.png",
            "id": f"id-{i}",
            "text": f"a text of picture {i}",
            "text_id": f"t{i}",
            "label": rng.choice(["normal", "odd"]),
            "patient": f"p{i // 2}",
            "split": ("train", "val", "test")[i // 2 % 3],
            "a": str(rng.randrange(2)),
        }
        while rng.random() < often:
            row[rng.choice(NAMES)] = rng.choice(odd)
        made.append(row)
    return made


def write_table(path: Path, made: list[dict[str, Any]], rng: random.Random) -> None:
    if path.suffix == ".jsonl":
        lines = [json.dumps(row) for row in made]
        path.write_text("\n".join(rng.choice(["{", "[]", "", line]) if rng.random() < 0.02 else line for line in lines))
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", errors="surrogatepass", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(NAMES)
            for row in made:
                cells = ["" if row[name] is None else str(row[name]) for name in NAMES]
                writer.writerow(cells[:-1] if rng.random() < 0.02 else cells)
                if rng.random() < 0.05:
                    file.write("\r\n")
    else:
        kinds = {"label": pa.dictionary(pa.int32(), pa.string()), "id": rng.choice([pa.string(), pa.large_string()])}
        cells = {name: [row[name] for row in made] for name in NAMES}
        cells = {name: [None if cell == "\ud800" else cell for cell in column] for name, column in cells.items()}
        if rng.random() < 0.5:
            cells["id"], kinds["id"] = [*range(-3, COUNT - 3)], rng.choice([pa.int64(), pa.float32()])
        arrays = {name: pa.array(column, kinds.get(name, pa.string())) for name, column in cells.items()}
        pq.write_table(pa.table(arrays), path)


def written(folder: Path, card: Any, on_bad_data: Any) -> Any:
    folder.mkdir()
    captions = "text" in card.provides
    try:
        summary = writing.write_records(folder, card.source, card.labels, on_bad_data, captions)
    except BenchError as error:
        return str(error)
    assert {path.stem for path in folder.iterdir()} == set(summary["splits"])
    return summary, {split: read_stream(folder / f"{split}.arrow").to_pylist() for split in summary["splits"]}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("number", range(len(CARDS)))
def test_records_made_by_column_are_those_made_row_by_row(number, suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "ROWS", 7)
    source = {**CARDS[number]}
    source = {"kind": "manifest", "file": f"rows{suffix}", **source}
    if source.pop("drawn", False):
        source["split"] = {"train": 0.6, "val": 0.2, "test": 0.2}
    card = {"classes": ["normal", "odd"], "multi_label": source.pop("multi_label", False)}
    made: list[Any] = []
    write = writing._write_by_column
    for trial in range(TRIALS):
        rng = random.Random(1000 * number + trial)
        folder = tmp_path / str(trial)
        folder.mkdir()
        odd = [*ODD, *OBJECTS] if suffix == ".jsonl" else ODD
        write_table(folder / f"rows{suffix}", rows(rng, odd, (0, 0.02, 0.4)[trial % 3]), rng)
        opened = write_card(folder, source, **card)
        assert by_column.suits(opened.source)
        for mode in ("skip", "error"):
            monkeypatch.setattr(writing, "_write_by_column", lambda *each: made.append(write(*each)) or made[-1])
            by_its_columns = written(folder / f"{mode}-columns", opened, mode)
            monkeypatch.setattr(writing, "_write_by_column", lambda *each: None)
            assert by_its_columns == written(folder / f"{mode}-rows", opened, mode)
    assert any(made)


def test_records_are_encoded_as_rows_are():
    each = [
        Row("f.csv", 3, "a", "g", "train", "a/1.png", ["two", 'wörds "in" it'], ["1", "2"], 1),
        Row("f.csv", 4, "b\\c", "\x7f", "test", "ü.png", [], [], -1),
    ]
    columns = by_column.schema(False).append(pa.field("split", pa.string()))
    table = by_column.as_table(each, columns)
    assert encoded(table, table["split"]) == b"".join(row.encoded() for row in each)
    assert encoded(table.slice(1), table["split"].slice(1)) == each[1].encoded()


@pytest.mark.parametrize("drawn", [True, False])
def test_images_in_the_table_are_read_row_by_row(drawn, tmp_path, monkeypatch):
    images = [{"bytes": None, "path": None}, *({"bytes": bytes([i]), "path": f"{i}.png"} for i in range(3))]
    splits = [["train", "val", "test"][i % 3] for i in range(len(images))]
    pq.write_table(pa.table({"image": images, "split": splits}), tmp_path / "rows.parquet")
    source: dict[str, Any] = {"kind": "manifest", "file": "rows.parquet", "columns": {"image": "image"}}
    if drawn:
        source["split"] = {"train": 0.6, "test": 0.4}
    else:
        source["columns"]["split"] = "split"
    opened = write_card(tmp_path, source)
    assert by_column.suits(opened.source)
    summary, tables = written(tmp_path / "columns", opened, "skip")
    monkeypatch.setattr(by_column, "suits", lambda source: False)
    assert (summary, tables) == written(tmp_path / "rows", opened, "skip")
    assert sum(summary["splits"].values()) == 3
