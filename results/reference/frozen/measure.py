"""Measure what kept outputs of frozen layers save in a training step, in seconds of CPU time on one thread.

    OMP_NUM_THREADS=1 python results/reference/frozen/measure.py > results/reference/frozen/steps.json

Images and texts are noise, and steps with and without kept outputs alternate. Needs the extra ``weights``.
"""

import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmark.common.machine import machine
from benchmark.config.augmentation import Augmentation
from benchmark.data.batch import Batch
from benchmark.method import METHODS, Method
from benchmark.models import ModelCard, build_model, load_model_card
from benchmark.training.accumulation import accumulate, micro_batches
from benchmark.training.frozen import FrozenFeatures

PAIRS, BATCH, LENGTH, RUNS = 128, 32, 32, 5
CLASSES = ["benign", "malignant"]
ARMS: list[tuple[str, dict[str, object], str]] = [
    ("clip", {}, ""),
    ("partial_freeze", {"fraction": 0.25}, ""),
    ("partial_freeze", {"fraction": 0.5}, ""),
    ("partial_freeze", {"fraction": 0.75}, ""),
    ("locked_image", {"projection": True}, ""),
    ("locked_text", {"projection": True}, ""),
    ("cleft", {"stage2": "class"}, "pretrain"),
    ("cleft", {"stage2": "class"}, "class"),
]


class Noise:
    """Pairs of noise at a size of images, in the order of their rows."""

    longest = LENGTH

    def __init__(self, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.size = size
        self.image = torch.randint(0, 256, (PAIRS, 3, size, size), dtype=torch.uint8, generator=generator)
        self.tokens = torch.randint(3, 1000, (PAIRS, LENGTH), generator=generator)

    def __len__(self) -> int:
        return PAIRS

    def sequential(self, start: int, count: int) -> Batch:
        """Return pairs in order, fewer at the end."""
        return self.rows(torch.arange(start, min(start + count, PAIRS)))

    def batch(self, start: int, count: int) -> Batch:
        """Return pairs in order, from the first again after the last."""
        return self.rows(torch.arange(start, start + count) % PAIRS)

    def rows(self, rows: torch.Tensor) -> Batch:
        """Return these pairs."""
        mask = torch.ones(len(rows), LENGTH, dtype=torch.bool)
        ids = [str(row) for row in rows.tolist()]
        return Batch(
            image=self.image[rows],
            tokens=self.tokens[rows],
            mask=mask,
            row=rows,
            text_hash=rows,
            seed=rows,
            ids=ids,
            image_size=self.size,
            augmentation=Augmentation.none(),
            label=rows % len(CLASSES),
        )


class Words:
    """A tokenizer of a token a letter, for the names of the classes."""

    pad_id, start_id, end_id = 0, 1, 2
    context_length, vocab_size, fingerprint = 64, 1000, "letters"

    def __call__(self, texts: list[str]) -> list[list[int]]:
        """Return the tokens of each text."""
        return [[1, *(3 + ord(letter) % 290 for letter in text), 2] for text in texts]


def card_of(method: str) -> ModelCard:
    """real-general; for cleft a causal language model of MiniLM's size, as MiniLM reads in both directions."""
    card = load_model_card("real-general").model_copy(update={"image_size": 64})
    if method != "cleft":
        return card
    config = {"model_type": "gpt2", "vocab_size": 1000, "n_embd": 384, "n_layer": 6, "n_head": 12, "n_positions": 128}
    text = {"kind": "transformers", "config": config, "pooling": "eos"}
    return ModelCard.model_validate(card.model_dump() | {"text": text, "sha256": {}})


def step(method: Method, pairs: Noise, kept: FrozenFeatures | None) -> float:
    """Return the CPU seconds of forward and backward passes of a batch."""
    began = time.process_time()
    with kept.used() if kept else nullcontext():
        accumulate(method, micro_batches(pairs.batch, 0, BATCH, BATCH), "plain", 0)
    method.zero_grad()
    return time.process_time() - began


def measured(name: str, options: dict[str, object], stage: str, note: Callable[[str], None]) -> dict[str, object]:
    """Measure an arm at a stage of its method; ``note`` gets the row as a line."""
    method = METHODS[name](build_model(card_of(name), 0), METHODS[name].Config(**options))
    method.setup(Words(), CLASSES)
    method.train()
    method.enter(stage or next(iter(method.stages())))
    pairs = Noise(64)
    began = time.process_time()
    with TemporaryDirectory() as folder:
        kept = FrozenFeatures(method, pairs, BATCH, nullcontext, Path(folder))
    filled = time.process_time() - began
    times: dict[bool, list[float]] = {False: [], True: []}
    for run in range(RUNS + 1):
        for use in times:
            seconds = step(method, pairs, kept if use and kept.towers else None)
            if run:  # the first initialises libraries
                times[use].append(seconds)
    computed, read = (statistics.median(each) for each in times.values())
    row = {
        "method": name,
        "options": options,
        "stage": stage,
        "kept": [tower.side for tower in kept.towers],
        "bytes_per_pair": sum(tower.kept.nbytes for tower in kept.towers) // PAIRS,
        "fill_seconds_per_pair": round(filled / PAIRS, 5) if kept.towers else 0.0,
        "step_seconds": round(computed, 3),
        "step_seconds_kept": round(read, 3),
        "saved": round(1 - read / computed, 3) if kept.towers else 0.0,
    }
    note(json.dumps(row))
    return row


if __name__ == "__main__":
    import sys

    torch.set_num_threads(1)
    rows = [measured(*arm, lambda line: print(line, file=sys.stderr, flush=True)) for arm in ARMS]
    print(
        json.dumps({"machine": machine(), "batch": BATCH, "image_size": 64, "tokens": LENGTH, "steps": rows}, indent=1)
    )
