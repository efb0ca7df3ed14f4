"""Small datasets on disk, good ones and bad ones."""

import csv
import json

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
