"""What verify finds in data that say nothing: one colour, one text, one label, one answer."""

import io
import json

import datasets
import numpy as np
import pytest
from PIL import Image

from benchmark.data.tools.verify import verify
from tests.data.make import opened, pixels, shard, write_jsonl

CLASSES = ["a", "b", "c"]


def png(seed):
    """A picture, or for a negative seed one of a single grey."""
    values = pixels(seed) if seed >= 0 else np.full((10, 12), -seed, np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def manifest(folder, rows):
    (folder / "images").mkdir()
    for n, row in enumerate(rows):
        (folder / "images" / f"{n}.png").write_bytes(png(row["image"]))
    write_jsonl(
        folder / "rows.jsonl", [row | {"image": f"images/{n}.png", "id": f"r{n}"} for n, row in enumerate(rows)]
    )
    return {"kind": "manifest", "files": {"train": "rows.jsonl"}}


def shards(folder, rows, **source):
    members = []
    for n, row in enumerate(rows):
        values = {name: value for name, value in row.items() if name != "image"} | {"id": f"r{n}"}
        members += [(f"s{n:03}.png", png(row["image"])), (f"s{n:03}.json", json.dumps(values).encode())]
    shard(folder / "0.tar", members)
    return {"kind": "webdataset", "shards": {"train": ["0.tar"]}, **source}


def stream(folder, rows):
    return shards(folder, rows, stream=True)


def saved(folder, rows):
    encoded = [row | {"image": {"bytes": png(row["image"]), "path": None}, "id": f"r{n}"} for n, row in enumerate(rows)]
    data = datasets.Dataset.from_list(encoded).cast_column("image", datasets.Image())
    datasets.DatasetDict({"train": data}).save_to_disk(str(folder / "saved"))
    return {"kind": "hub", "path": "saved", "splits_of": {"train": "train"}}


def findings(folder, write, rows, **card):
    """The warnings of a set of these rows, which have the same keys."""
    columns = {name: name for name in ("id", *rows[0])}
    source = write(folder, rows) | {"columns": columns}
    found = verify(
        opened(folder, source, "skip", **({"classes": CLASSES} if "label" in columns else {}), **card), 77, None
    )
    assert {each.severity for each in found} <= {"warning"}
    return [f"{each.check}: {each.message}" for each in found]


WRITERS = [manifest, shards, stream, saved]


@pytest.mark.parametrize("write", WRITERS)
def test_nothing_is_found_in_sound_data(tmp_path, write):
    rows = [{"image": n, "text": f"a picture of number {n}", "label": CLASSES[n % 3]} for n in range(12)]
    assert findings(tmp_path, write, rows) == []


@pytest.mark.parametrize("write", WRITERS)
def test_one_text_one_label_and_one_colour(tmp_path, write):
    rows = [{"image": n if n < 8 else -n, "text": "no finding", "label": "b"} for n in range(12)]
    first = "'r8' in " + {manifest: "rows.jsonl, row 9", saved: "saved, train, row 9"}.get(write, "0.tar, row 9")
    assert findings(tmp_path, write, rows) == [
        f"images: train: images of one colour: 4 of 12, first {first}",
        "texts: train: all 12 texts are the same: 'no finding'",
        "classes: train: every label is 'b' (12 images); no image of a, c",
    ]


@pytest.mark.parametrize("write", [manifest, stream])
def test_texts_and_pictures_that_repeat_in_part(tmp_path, write):
    rows = [{"image": n, "text": f"a picture of number {n}"} for n in range(20)]
    for n in range(5):
        rows[n]["text"] = "Normal."
    rows[7]["text"] = "x"
    place = "rows.jsonl" if write is manifest else "0.tar"
    assert findings(tmp_path, write, rows) == [
        "texts: train: texts that are 'Normal.': 5 of 20",
        f"texts: train: images with a very short text: 1, first 'r7' in {place}, row 8: 'x'",
    ]


@pytest.mark.parametrize("write", [shards, saved])
def test_few_different_texts(tmp_path, write):
    rows = [{"image": n, "text": f"kind {n % 6}"} for n in range(66)]
    assert findings(tmp_path, write, rows) == ["texts: train: only 6 of 66 texts are different"]


def test_the_same_picture_under_other_labels_and_in_other_containers(tmp_path):
    rows = [{"image": n, "text": f"a picture of number {n}", "label": CLASSES[n % 3]} for n in range(12)]
    source = manifest(tmp_path, rows) | {"columns": {name: name for name in ("id", "image", "text", "label")}}
    Image.fromarray(pixels(0)).save(tmp_path / "images" / "1.png", compress_level=0)
    (found,) = verify(opened(tmp_path, source, "skip", classes=CLASSES), 77, None)
    assert found.message == (
        "train: images that are the same picture as another: 2 of 12, first 'r0' in rows.jsonl, row 1 and 'r1' in "
        "rows.jsonl, row 2; the texts of one count as wrong for the other; pictures with several labels: 1"
    )


@pytest.mark.parametrize("write", [manifest, stream])
def test_all_images_are_the_same(tmp_path, write):
    # Of other labels, since rows of one image and one label are gathered where that is possible.
    rows = [{"image": 5, "text": f"a picture of number {n}", "label": CLASSES[n % 3]} for n in range(3)]
    assert findings(tmp_path, write, rows) == ["images: train: all 3 images are the same picture"]


@pytest.mark.parametrize("write", [manifest, shards, saved])
def test_answers_that_never_vary(tmp_path, write):
    def rows(answers):
        return [{"image": n, "question": f"is there a {n}?", "answer": answer} for n, answer in enumerate(answers)]

    (tmp_path / "one").mkdir()
    (tmp_path / "closed").mkdir()
    assert findings(tmp_path / "one", write, rows(["yes"] * 9 + ["no"])) == [
        "questions: train: answers that are 'yes': 9 of 10"
    ]
    assert findings(tmp_path / "closed", write, rows(["yes"] * 6 + [f"a {n}" for n in range(6)])) == [
        "questions: train: closed answers that are 'yes': 6 of 6"
    ]


def test_labels_of_several_findings(tmp_path):
    rows = [{"image": n, "label": ["a", "b"] if n % 2 else ["a"]} for n in range(6)]
    assert findings(tmp_path, manifest, rows, multi_label=True) == [
        "classes: train: every image has a",
        "classes: train: no image of c",
    ]


def test_images_without_a_label_and_a_single_group(tmp_path):
    rows = [{"image": n, "label": "" if n < 2 else CLASSES[n % 3], "group": "p1"} for n in range(8)]
    assert findings(tmp_path, manifest, rows) == [
        "groups: train: every image is of group 'p1'",
        "classes: train: images without a label: 2 of 8",
    ]
