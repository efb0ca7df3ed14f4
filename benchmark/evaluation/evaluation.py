"""A dataset and an encoder, as a task sees them: each split and each text is encoded once."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmark.common.errors import BenchError
from benchmark.common.seeding import generator
from benchmark.evaluation.encoder import Encoded, Encoder, Writer, joined
from benchmark.store import formats
from benchmark.store.cache import build_folder
from benchmark.store.hashing import digest
from benchmark.store.rows import EmbeddedNotes, EmbeddingSpread, Stored
from benchmark.store.store import row_digest

if TYPE_CHECKING:
    from benchmark.data.card import Card
    from benchmark.data.dataset import Dataset
    from benchmark.data.prepared import Prepared


class Evaluation:
    """A dataset and an encoder: the argument of Task.evaluate().

    Each split and each list of texts is encoded once, however many tasks ask for it, and kept memory-mapped under
    ``folder`` by the fingerprints of everything that it depends on (without a folder, in memory). A folder is written
    under another name and renamed when complete, so that a killed run leaves nothing half-written.

    cache: the folder of prepared images, for all encoders.
    batch_size: images or texts encoded at a time; changes only speed and memory.
    progress: shows how far a task is, if something listens; call it with what is being done, the steps done and their
    total.
    """

    def __init__(
        self, encoder: Encoder, dataset: "Dataset", folder: Path | None, cache: Path, batch_size: int = 256
    ) -> None:
        self.encoder = encoder
        self.dataset = dataset
        self.folder = folder
        self.cache = cache
        self.batch_size = batch_size
        self.progress: Callable[[str, int, int], object] = lambda doing, done, total: None
        self._records: dict[str, Prepared] = {}
        self._encoded: dict[str, Encoded] = {}
        self._images: dict[str, str] = {}
        self._texts: dict[str, list[str]] = {}

    @property
    def card(self) -> "Card":
        """The dataset's card."""
        return self.dataset.card

    @property
    def classes(self) -> list[str]:
        """The names of the classes (findings when multi-label), in the order of the labels."""
        if not self.card.classes:
            raise BenchError(f"dataset '{self.card.name}': its card names no classes")
        return self.card.classes

    @property
    def temperature_scale(self) -> float:
        """The scale of the encoder: cosine x this = logit."""
        return self.encoder.temperature_scale

    @property
    def device(self) -> torch.device:
        """Where a task may compute: the encoder's device, or the CPU where it has none or one without float64."""
        device = torch.device(getattr(self.encoder, "device", "cpu"))
        return device if device.type != "mps" else torch.device("cpu")

    def splits(self) -> list[str]:
        """List the dataset's splits."""
        return self.dataset.splits()

    def records(self, split: str) -> "Prepared":
        """Load a split's columns (ids, groups, label, text, ...) and its images, in the order of images()."""
        if split not in self._records:
            from benchmark.data.prepared import prepare

            encoder = self.encoder
            self._records[split] = prepare(
                self.dataset, split, encoder.image_size, self.cache, resizing=encoder.resizing
            )
        return self._records[split]

    def labels(self, split: str) -> np.ndarray:
        """Load a split's labels without preparing its images, in the dataset's own order: int64 [N], or [N, K]."""
        return np.array(self.dataset.column(split, "label"))

    def text(self, split: str) -> list[list[str]]:
        """Load a split's texts without preparing its images, in the dataset's own order; none without that split."""
        if split not in self.splits():
            return []
        return self.dataset.column(split, "text")

    def captions(self, split: str, beams: int) -> list[str]:
        """Write a caption for each image of a split, row by row as in records().

        Raises ``BenchError`` for an encoder that cannot write.
        """
        if not isinstance(self.encoder, Writer):
            raise BenchError("captions need a method with the ability 'caption'")
        records = self.records(split)
        captions: list[str] = []
        for start in range(0, len(records), self.batch_size):
            self.progress("writing captions", start, len(records))
            images = torch.from_numpy(np.array(records.images[start : start + self.batch_size]))
            captions += self.encoder.write(images, beams)
        return captions

    def images(self, split: str) -> Encoded:
        """Encode a split's images, row by row as in records()."""
        records = self.records(split)
        where = f"dataset '{self.card.name}', {split}"
        if not len(records):
            raise BenchError(f"{where}: no images")

        def encode(rows: np.ndarray) -> Encoded:
            encoded = self.encoder.encode_images(torch.from_numpy(np.array(records.images[rows])))
            _check_encoded(encoded, len(rows), lambda i: f"{where}, image '{records.ids[rows[i]]}'")
            return encoded

        name = f"images-{split}-{digest([formats.EVALUATION, self.encoder.fingerprint, records.fingerprint])}"
        encoded = self._once(name, np.arange(len(records)), encode, f"encoding images of {split}")
        self._images[split] = name
        return encoded

    def texts(self, texts: Sequence[str], keep: bool = True) -> Encoded:
        """Encode texts: one row per text, repeated texts included; each distinct text is encoded once.

        keep: store the result; without, texts that no other call asks for take neither memory nor disk for long.
        """
        if not texts:
            raise BenchError(f"dataset '{self.card.name}': no texts to encode")
        number: dict[str, int] = {}
        rows = np.array([number.setdefault(text, len(number)) for text in texts])
        distinct, known = list(number), self._known(number)

        def encode(rows: np.ndarray) -> Encoded:
            new = [i for i in rows.tolist() if i not in known]
            if not new:
                return joined([known[i] for i in rows.tolist()])
            encoded = self.encoder.encode_texts([distinct[i] for i in new])
            _check_encoded(encoded, len(new), lambda i: f"dataset '{self.card.name}', text {distinct[new[i]]!r}")
            if len(new) == len(rows):
                return encoded
            row_of = {i: row for row, i in enumerate(new)}
            return joined([known[i] if i in known else _row(encoded, row_of[i]) for i in rows.tolist()])

        # Batches of texts of similar length need little padding.
        order = np.argsort([len(text) for text in distinct], kind="stable")
        name = f"texts-{digest([formats.EVALUATION, self.encoder.fingerprint, distinct])}"
        doing = "encoding texts"
        encoded = self._once(name, order, encode, doing) if keep else self._fill(None, order, encode, doing)
        if keep:
            self._texts[name] = distinct
        if len(distinct) == len(texts):
            return encoded
        tokens = None if encoded.tokens is None else encoded.tokens[rows]
        return Encoded(encoded.features[rows], encoded.embeddings[rows], tokens)

    def _known(self, number: dict[str, int]) -> dict[int, Encoded]:
        """Return those of some numbered texts that another list of kept ones has, by number: each encoded, [1, ...]."""
        return {
            number[text]: _row(self._encoded[name], row)
            for name, of_list in self._texts.items()
            if list(number) != of_list
            for row, text in enumerate(of_list)
            if text in number
        }

    def embedding_spread(self, split: str) -> EmbeddingSpread | None:
        """Say how different the embeddings of a split's images are; None if no task has encoded them, or of one."""
        if split not in self._images:
            return None
        return spread_of(self._encoded[self._images[split]].embeddings)

    def embedded(self, split: str, count: int = 200) -> EmbeddedNotes | None:
        """Say where ``count`` images of a split and their texts are stored, drawn alike for all encoders.

        Nothing is encoded for it. The texts are the images' own (of several, the first) if a task has encoded these as
        one list, else the prompts of the classes, ``count`` at most. None without a folder, and if no task has encoded
        the images and such texts.
        """
        if self.folder is None or split not in self._images:
            return None
        records, draw = self.records(split), generator(0, "embedded", split)
        captions = {row: of_image[0] for row, of_image in enumerate(records.text) if of_image}
        if stored := self._stored_with(captions.values()):
            rows = sorted(draw.permutation(list(captions))[:count].tolist())
            chosen = [captions[row] for row in rows]
            classes = of_texts = [self._classes_of(records.label[row]) for row in rows]
        elif stored := self._stored_with(prompts := self._prompts()):
            rows = sorted(draw.permutation(len(records))[:count].tolist())
            classes = [self._classes_of(records.label[row]) for row in rows]
            chosen = [list(prompts)[i] for i in sorted(draw.permutation(len(prompts))[:count].tolist())]
            of_texts = [prompts[prompt] for prompt in chosen]
        else:
            return None
        name, row_of = stored
        return {
            "images": self._note(self._images[split], rows, classes),
            "texts": self._note(name, [row_of[text] for text in chosen], of_texts),
            "texts_are": "captions" if of_texts is classes else "prompts",
        }

    def _note(self, name: str, rows: list[int], classes: list[list[str]]) -> Stored:
        """Say where some rows of what was encoded are stored."""
        chosen = np.array(self._encoded[name].embeddings[rows])
        return {"folder": name, "rows": rows, "classes": classes, "digest": row_digest(chosen)}

    def _stored_with(self, texts: Iterable[str]) -> tuple[str, dict[str, int]] | None:
        """Return the folder of a list with all of these texts, and the row of each; None if there is none."""
        wanted = set(texts)
        for name, distinct in self._texts.items() if wanted else ():
            if wanted <= set(distinct):
                return name, {text: row for row, text in enumerate(distinct)}
        return None

    def _prompts(self) -> dict[str, list[str]]:
        """List the prompts of the classes, if the card has them, each with the names of its classes."""
        classes_of: dict[str, list[str]] = {}
        for name in (self.card.classes or []) if self.card.prompts else []:
            for prompt in self.card.positive_prompts(name):
                classes_of.setdefault(prompt, []).append(name)
        return classes_of

    def _classes_of(self, label: np.ndarray) -> list[str]:
        """Name the class of a label, or the findings of one that is multi-label; none that are unknown."""
        names = self.card.classes or []
        if label.ndim:
            return [name for name, there in zip(names, label) if there == 1]
        return [names[label]] if 0 <= label < len(names) else []

    def _once(self, name: str, order: np.ndarray, encode: Callable[[np.ndarray], Encoded], doing: str) -> Encoded:
        """Encode all rows, in ``order``, unless they were encoded before under this name. doing: as of progress."""

        def write(folder: Path) -> None:
            self._fill(folder, order, encode, doing)

        if name not in self._encoded:
            if self.folder is None:
                self._encoded[name] = self._fill(None, order, encode, doing)
            else:
                folder = build_folder(self.folder / name, write)
                self._encoded[name] = Encoded(
                    *(np.load(path, mmap_mode="r") for kind in KINDS if (path := folder / f"{kind}.npy").exists())
                )
        return self._encoded[name]

    def _fill(
        self, folder: Path | None, order: np.ndarray, encode: Callable[[np.ndarray], Encoded], doing: str
    ) -> Encoded:
        outputs: list[np.ndarray] = []
        for start in range(0, len(order), self.batch_size):
            self.progress(doing, start, len(order))
            rows = order[start : start + self.batch_size]
            encoded = encode(rows)
            batches = {kind: batch for kind in KINDS if (batch := getattr(encoded, kind)) is not None}
            if not outputs:
                outputs = [_allocate(folder, kind, (len(order), *batch.shape[1:])) for kind, batch in batches.items()]
            for output, batch in zip(outputs, batches.values()):
                output[rows] = batch
        for output in outputs:
            if isinstance(output, np.memmap):
                output.flush()
        return Encoded(*outputs)


def spread_of(embeddings: np.ndarray) -> EmbeddingSpread | None:
    """Compute how different embeddings [n, D] of unit length are; None for fewer than two.

    The effective rank is (sum of s)^2 / sum of s^2 over the eigenvalues s of their covariance: 1 where they lie on a
    line, D where they vary alike in all directions (the participation ratio).
    """
    vectors = np.asarray(embeddings, dtype=np.float64)
    count = len(vectors)
    if count < 2:
        return None
    mean = vectors.mean(axis=0)
    # The mean over pairs of different ones, from the length of their sum.
    cosine = (count * float(mean @ mean) - float((vectors**2).sum()) / count) / (count - 1)
    centred = vectors - mean
    variances = np.linalg.eigvalsh(centred.T @ centred if count > len(mean) else centred @ centred.T).clip(0)
    rank = float(variances.sum() ** 2 / squares) if (squares := float((variances**2).sum())) else 0.0
    return {"mean_cosine": cosine, "effective_rank": rank}


KINDS = ("features", "embeddings", "tokens")


def _row(encoded: Encoded, row: int) -> Encoded:
    """Select a row, as [1, ...]."""
    at = slice(row, row + 1)
    tokens = None if encoded.tokens is None else encoded.tokens[at]
    return Encoded(encoded.features[at], encoded.embeddings[at], tokens)


def _allocate(folder: Path | None, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    if folder is None:
        return np.empty(shape, np.float32)
    allocated = np.lib.format.open_memmap(folder / f"{kind}.npy", "w+", np.float32, shape)
    if hasattr(os, "posix_fallocate"):
        # Raises OSError where the disk is full; writing to memory that has no place on it would end the process.
        with (folder / f"{kind}.npy").open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, allocated.offset + allocated.nbytes)
    return allocated


def _check_encoded(encoded: Encoded, count: int, name: Callable[[int], str]) -> None:
    """Raise ``BenchError`` for what is not a finite vector for each of ``count``; name: says which is wrong."""
    for kind in KINDS:
        values = getattr(encoded, kind)
        dimensions = 3 if kind == "tokens" else 2
        if values is not None and (values.ndim != dimensions or len(values) != count):
            raise BenchError(
                f"{name(0)} and {count - 1} others: the encoder gives {kind} of shape {list(values.shape)}, expected "
                f"{dimensions} dimensions, the first of {count}"
            )
        if values is not None and len(bad := not_finite(values)):
            raise BenchError(f"{name(int(bad[0]))}: the encoder gives {kind} that are not finite")


def not_finite(values: np.ndarray) -> np.ndarray:
    """List the rows of [n, ...] that contain a NaN or an infinity: their sums do too, and need no memory."""
    return np.flatnonzero(~np.isfinite(values.sum(axis=tuple(range(1, values.ndim)), dtype=np.float64)))
