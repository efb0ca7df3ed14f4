"""Small datasets on disk, good ones and bad ones."""

import csv
import io
import json
import tarfile

import numpy as np
import yaml
from PIL import Image

from benchmark.data.card import load_card
from benchmark.data.dataset import open_dataset


def pixels(seed, width=12, height=10, channels=3):
    """A smooth picture (so that JPEG keeps it), uint8 [height, width, channels] (or without channels: 0)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return picture if channels else picture[..., 0]


def images(folder, count, **size):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(pixels(i, **size)).save(folder / f"{i}.png")


def pairs(folder, count=6, splits=("train", "val", "test")):
    """Rows of a manifest of pairs, and their images under ``folder``/images."""
    images(folder / "images", count)
    return [
        {
            "id": f"r{i}",
            "image": f"images/{i}.png",
            "text": f"finding number {i}",
            "patient": f"p{i}",
            "split": splits[i % len(splits)],
        }
        for i in range(count)
    ]


PAIRS = {"id": "id", "image": "image", "text": "text", "group": "patient", "split": "split"}


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_csv(path, rows, encoding="utf-8"):
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_card(folder, source, name="set", **card):
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"source": source, **card}), encoding="utf-8")
    return load_card(path)


def dataset(folder, rows, columns=PAIRS, on_bad_data="error", suffix=".jsonl", card=None, **source):
    """Write the rows and a card for them, and open it."""
    path = folder / f"rows{suffix}"
    write_jsonl(path, rows) if suffix == ".jsonl" else write_csv(path, rows)
    made = write_card(folder, {"kind": "manifest", "file": path.name, "columns": columns, **source}, **(card or {}))
    return open_dataset(made, on_bad_data, folder / "cache")


class Words:
    """A tokenizer whose tokens are the lengths of words, between 1 and 2."""

    pad_id = 0
    fingerprint = "words"
    calls = 0

    def __call__(self, texts):
        self.calls += 1
        return [[1, *(len(word) + 2 for word in text.split()), 2] for text in texts]


def opened(folder, source, on_bad_data="error", **card):
    return open_dataset(write_card(folder, source, **card), on_bad_data, folder / "cache")


def jpeg(seed):
    file = io.BytesIO()
    Image.fromarray(pixels(seed)).save(file, "JPEG")
    return file.getvalue()


def shard(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                info.type, info.linkname = content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


SHARDS = {"kind": "webdataset", "columns": {"image": "image", "text": "txt", "id": "key"}}


QUESTIONS = {
    "id": "qid",
    "image": "image",
    "split": "split",
    "question": "q",
    "answer": "a",
    "answer_type": "t",
    "question_type": "k",
}


def questions(folder):
    images(folder / "images", 2)
    return [
        {"qid": 1, "image": "images/0.png", "split": "train", "q": "Is it?", "a": "yes", "t": "CLOSED ", "k": "what"},
        {"qid": 2, "image": "images/1.png", "split": "test", "q": "What is it?", "a": "a cat", "t": "OPEN", "k": ""},
        {"qid": 3, "image": "images/0.png", "split": "train", "q": "How many?", "a": 2, "t": "open", "k": "count"},
    ]


def picture(width: int, height: int) -> Image.Image:
    """Coarse and fine structure."""
    rng = np.random.default_rng(width)
    coarse = rng.integers(0, 256, (height // 7 + 2, width // 7 + 2, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height))).astype(int)
    return Image.fromarray((smooth + rng.integers(-40, 41, smooth.shape)).clip(0, 255).astype(np.uint8))
