"""Rows that share an image, or a group with another split."""

import io
import random

import datasets
import numpy as np
import pytest
from PIL import Image

from benchmark.common.errors import BenchError
from benchmark.data import shared
from benchmark.data.check import check, groups_in_two_splits, sharing
from benchmark.data.dataset import open_dataset
from benchmark.data.prepared import prepare
from benchmark.data.shared import PIECE, same_content
from benchmark.data.streamed import Stream, StreamedPairs
from benchmark.data.tools.infer_card import infer_card
from tests.data.make import (
    PAIRS,
    SHARDS,
    Words,
    dataset,
    opened,
    pairs,
    pixels,
    shard,
    write_card,
    write_csv,
    write_jsonl,
)

PICTURES, CAPTIONS = 6, 3
ORDER = [(i, j) for i in range(PICTURES) for j in range(CAPTIONS)]
random.Random(0).shuffle(ORDER)


def png(seed):
    file = io.BytesIO()
    Image.fromarray(pixels(seed)).save(file, "PNG")
    return file.getvalue()


def caption(i, j):
    return f"picture {i} told {j}"


def one_file(folder):
    """Captions of one file, each with an id."""
    for i in range(PICTURES):
        (folder / f"{i}.png").write_bytes(png(i))
    write_csv(
        folder / "rows.csv",
        [{"id": f"c{n}", "file": f"{i}.png", "caption": caption(i, j)} for n, (i, j) in enumerate(ORDER)],
    )
    return {
        "kind": "manifest",
        "files": {"test": "rows.csv"},
        "columns": {"id": "id", "image": "file", "text": "caption"},
    }


def id_of_the_image(folder):
    """As in COCO: each caption's row has the id of its image."""
    source = one_file(folder)
    rows = [{"image_id": i, "file": f"{i}.png", "caption": caption(i, j)} for i, j in ORDER]
    write_jsonl(folder / "rows.jsonl", rows)
    columns = {"id": "image_id", "image": "file", "text": "caption"}
    return source | {"files": {"test": "rows.jsonl"}, "columns": columns}


def equal_files(folder):
    """Files of other names and the same bytes, without ids."""
    rows = []
    for i, j in ORDER:
        (folder / f"{i}_{j}.png").write_bytes(png(i))
        rows.append({"file": f"{i}_{j}.png", "caption": caption(i, j)})
    write_csv(folder / "rows.csv", rows)
    return {"kind": "manifest", "files": {"test": "rows.csv"}, "columns": {"image": "file", "text": "caption"}}


def in_shards(folder):
    members = [
        (f"s{n:02}{suffix}", content)
        for n, (i, j) in enumerate(ORDER)
        for suffix, content in ((".png", png(i)), (".txt", caption(i, j).encode()))
    ]
    half = len(members) // 4 * 2
    shard(folder / "0.tar", members[:half])
    shard(folder / "1.tar", members[half:])
    return SHARDS | {"shards": {"test": ["*.tar"]}}


def embedded():
    rows = [{"cap": f"{i}-{j}", "image": {"bytes": png(i), "path": None}, "caption": caption(i, j)} for i, j in ORDER]
    features = {"cap": datasets.Value("string"), "image": datasets.Image(), "caption": datasets.Value("string")}
    return datasets.Dataset.from_list(rows, features=datasets.Features(features))


def of_the_hub(folder):
    datasets.DatasetDict({"test": embedded()}).save_to_disk(str(folder / "saved"))
    columns = {"id": "cap", "image": "image", "text": "caption"}
    return {"kind": "hub", "path": "saved", "splits_of": {"test": "test"}, "columns": columns}


def in_parquet(folder):
    embedded().to_parquet(str(folder / "rows.parquet"))
    columns = {"id": "cap", "image": "image", "text": "caption"}
    return {"kind": "manifest", "files": {"test": "rows.parquet"}, "columns": columns}


@pytest.mark.parametrize("write", [one_file, id_of_the_image, equal_files, in_shards, of_the_hub, in_parquet])
def test_captions_of_an_image_are_gathered(tmp_path, write):
    found = opened(tmp_path, write(tmp_path))
    check(found)
    expected = {frozenset(caption(i, j) for j in range(CAPTIONS)): i for i in range(PICTURES)}
    prepared = prepare(found, "test", 16, found.cache)
    assert {frozenset(texts) for texts in prepared.text} == set(expected)
    assert [len(texts) for texts in prepared.text] == [CAPTIONS] * PICTURES
    records = found.records("test")
    assert records["text"] == prepared.text == found.column("test", "text")
    for row in records:
        np.testing.assert_array_equal(np.asarray(row["image"]), pixels(expected[frozenset(row["text"])]))
    assert len(set(prepared.ids)) == PICTURES
    if write is one_file:
        assert set(prepared.ids) == {f"{i}.png" for i in range(PICTURES)}
    if write is id_of_the_image:
        assert set(prepared.ids) == {f"{i}" for i in range(PICTURES)}
    assert found.gathered == {"test": (PICTURES * CAPTIONS, PICTURES)}
    assert sharing(found) == ["test: 18 rows that share their image with others were gathered into 6 images"]


def test_captions_of_an_image_are_gathered_within_a_shard_that_is_streamed(tmp_path):
    source = in_shards(tmp_path) | {"stream": True}
    source["shards"] = {"train": source["shards"]["test"]}
    found = opened(tmp_path, source)
    check(found)
    stream = Stream(found.card, "train", found.cache)
    by_shard = {half: [ij for n, ij in enumerate(ORDER) if (n < len(ORDER) // 2) == half] for half in (True, False)}
    expected = [
        {caption(i, j) for i, j in captions if i == picture}
        for captions in by_shard.values()
        for picture in dict.fromkeys(i for i, _ in captions)
    ]
    assert [set(stream.row(number).text) for number in range(len(stream))] == expected
    assert sorted(stream.texts()) == sorted(text for texts in expected for text in texts)
    samples = StreamedPairs(stream, 8, Words(), "error").take(
        np.arange(len(stream)), np.ones(len(stream), dtype=np.uint64)
    )
    assert len(samples.images) == len(expected) < len(ORDER)
    several = [texts for texts in expected if len(texts) > 1]
    rows, images = sum(map(len, several)), len(several)
    assert sharing(found) == [
        f"train: {rows} rows that share their image with others were gathered into {images} images"
    ]


def test_what_is_not_gathered(tmp_path):
    """Rows of other labels, of other splits, and rows without texts."""
    rows = [
        {"id": f"r{n}", "image": "a.png", "text": f"text {n}", "label": label, "split": split}
        for n, (label, split) in enumerate([("x", "train"), ("y", "train"), ("x", "train"), ("x", "test")])
    ]
    (tmp_path / "a.png").write_bytes(png(0))
    (tmp_path / "b.png").write_bytes(png(0))
    rows[3]["image"] = "b.png"
    columns = {"id": "id", "image": "image", "text": "text", "label": "label", "split": "split"}
    found = dataset(tmp_path, rows, columns, card={"classes": ["x", "y"]})
    train = found.records("train")
    assert (train["text"], train["label"]) == ([["text 0", "text 2"], ["text 1"]], [0, 1])
    assert found.records("test")["id"] == ["r3"]
    del columns["text"]
    found = dataset(tmp_path, rows, columns, card={"classes": ["x", "y"]})
    assert found.records("train")["id"] == ["r0", "r1", "r2"]
    assert not any(found.shared.values())


def test_a_drawn_split_keeps_equal_files_together(tmp_path):
    rows = [{"image": f"{i}_{j}.png", "text": caption(i, j)} for i, j in ORDER]
    equal_files(tmp_path)
    found = dataset(tmp_path, rows, {"image": "image", "text": "text"}, split={"train": 0.5, "test": 0.5})
    texts = {split: [set(texts) for texts in found.records(split)["text"]] for split in ("train", "test")}
    assert all(len(each) == CAPTIONS for of_split in texts.values() for each in of_split)
    assert sum(map(len, texts.values())) == PICTURES


def test_a_file_that_changes_is_no_longer_the_same(tmp_path):
    source = equal_files(tmp_path)
    before = opened(tmp_path, source)
    assert len(before.rows("test")) == PICTURES
    (tmp_path / "0_1.png").write_bytes(png(77))
    after = opened(tmp_path, source)
    assert len(after.rows("test")) == PICTURES + 1
    assert after.fingerprint != before.fingerprint


@pytest.mark.parametrize(("write", "same"), [(one_file, False), (equal_files, False), (None, True)])
def test_the_fingerprint_changes_only_where_something_is_shared(tmp_path, write, same):
    found = opened(tmp_path, write(tmp_path)) if write else dataset(tmp_path, pairs(tmp_path))
    not_gathered = open_dataset(found.card, cache=found.cache)
    not_gathered.shared = {"merged": {}, "dropped": {}}
    assert (found.fingerprint == not_gathered.fingerprint) == same


def test_more_rows_than_are_written_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(shared, "CHUNK", 4)
    found = opened(tmp_path, one_file(tmp_path))
    assert {frozenset(texts) for texts in found.column("test", "text")} == {
        frozenset(caption(i, j) for j in range(CAPTIONS)) for i in range(PICTURES)
    }


def test_equal_content_is_found_as_by_comparing_all():
    rng = np.random.default_rng(0)
    middle = bytes(2 * PIECE)
    items = [middle + bytes(rng.integers(0, 2, 3).tolist()) + middle for _ in range(60)]  # differ in the middle
    items += [bytes(rng.integers(0, 2, 2).tolist()) + middle * 2 for _ in range(40)]  # differ beyond the piece
    items += [b"", b"x", b"x"]
    whole = []

    def read(number, start, size):
        if len(items[number]) == size > PIECE:
            whole.append(number)
        return items[number][start : start + size]

    found = same_content(np.array([len(item) for item in items]), read)
    numbers = {item: [number for number, other in enumerate(items) if other == item] for item in items}
    assert sorted(same.tolist() for same in found) == sorted(same for same in numbers.values() if len(same) > 1)
    assert 0 < len(set(whole)) < len(items)


def articles(folder, rule):
    """Six sub-figures of each article, in all splits, and one of an article of its own in train."""
    rows = []
    for n in range(31):
        (folder / f"{n}.png").write_bytes(png(n))
        split = ("train", "train", "train", "train", "val", "test")[n % 6]
        rows.append({"image": f"{n}.png", "text": f"figure {n}", "patient": f"PMC{n // 6}", "split": split})
    return dataset(
        folder, rows, {key: PAIRS[key] for key in ("image", "text", "group", "split")}, "skip", shared_groups=rule
    )


@pytest.mark.parametrize(
    ("rule", "images", "left_out"),
    [
        ("error", {"train": 21}, {"group in two splits": 10}),
        ("keep", {"train": 21, "val": 5, "test": 5}, {}),
        ("drop", {"train": 1, "test": 5}, {}),
    ],
)
def test_groups_in_several_published_splits(tmp_path, rule, images, left_out):
    found = articles(tmp_path, rule)
    assert {split: len(found.rows(split)) for split in found.splits()} == images
    assert found.left_out == left_out
    groups = {split: set(found.column(split, "group")) for split in found.splits()}
    kept = [f"groups in both {a} and {b}: 5" for a, b in (("train", "val"), ("train", "test"), ("val", "test"))]
    lines = groups_in_two_splits(found, groups)
    assert [line.partition(",")[0] for line in lines] == (kept if rule == "keep" else [])
    assert all("as published" in line for line in lines)
    assert sharing(found) == (
        [
            "val: 5 rows were dropped, since their 5 groups are in a later split too (shared_groups: drop)",
            "train: 20 rows were dropped, since their 5 groups are in a later split too (shared_groups: drop)",
        ]
        if rule == "drop"
        else []
    )


def test_an_image_of_two_splits_leaves_the_earlier(tmp_path):
    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    rows = [
        {"image": f"{i}.png", "text": f"told {n}", "split": split}
        for n, (i, split) in enumerate([(0, "train"), (0, "val"), (1, "train"), (0, "val")])
    ]
    columns = {key: key for key in ("image", "text", "split")}
    found = dataset(tmp_path, rows, columns, shared_groups="drop")
    check(found)
    assert {split: found.records(split)["text"] for split in found.splits()} == {
        "train": [["told 2"]],
        "val": [["told 1", "told 3"]],
    }
    with pytest.raises(BenchError, match="'shared_groups' is for a published split"):
        write_card(
            tmp_path,
            {"kind": "manifest", "file": "rows.jsonl", "columns": columns, "shared_groups": "keep"}
            | {"columns": {"image": "image"}, "split": {"train": 1}},
        )


@pytest.mark.parametrize("write", [one_file, in_parquet])
def test_an_id_of_captions_is_not_inferred(tmp_path, write):
    (table,) = write(tmp_path)["files"].values()
    card, notes = infer_card(tmp_path / table)
    assert "id" not in card["source"]["columns"]
    assert card["source"]["columns"]["text"] == "caption"
    if write is one_file:
        assert any(note.startswith("inferred: id names captions, not images (3 rows have '") for note in notes)


def test_a_column_of_lists_of_captions_is_inferred(tmp_path):
    (tmp_path / "0.png").write_bytes(png(0))
    (tmp_path / "1.png").write_bytes(png(1))
    write_jsonl(
        tmp_path / "rows.jsonl",
        [{"id": f"i{i}", "image": f"{i}.png", "captions": ["one", "two"], "split": "test"} for i in range(2)],
    )
    card, _ = infer_card(tmp_path / "rows.jsonl")
    assert card["source"]["columns"] == {"image": "image", "id": "id", "text": "captions", "split": "split"}
