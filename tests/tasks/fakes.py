"""A dataset in memory and encoders that know all or nothing of it, to test tasks with."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from benchmark.common.errors import BenchError
from benchmark.data.prepared import Prepared
from benchmark.data.resizing import DEFAULT
from benchmark.evaluation.encoder import Encoded
from benchmark.evaluation.evaluation import Evaluation

SIZE = 8
SPLITS = {"train": 240, "val": 80, "test": 160}
CLASSES = ["apple", "pear", "plum", "fig"]
QUESTIONS = {"is it tart?": ("closed", "taste"), "which fruit is it?": ("open", "kind")}
"""Question: (answer_type, question_type). Answers follow from the class, so that an oracle's features need no more."""


@dataclass
class FakeCard:
    name: str = "fake"
    title: str = "Fake"
    modality: str = "fruit"
    classes: list[str] | None = field(default_factory=lambda: list(CLASSES))
    multi_label: bool = False
    headline: str | None = None
    prompts: list[str] | None = field(default_factory=lambda: ["a {}", "a picture of a {}"])
    source: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(keep={}))

    def positive_prompts(self, name: str) -> list[str]:
        if not self.prompts:
            raise BenchError(f"dataset '{self.name}': no prompts")
        return [template.format(name) for template in self.prompts]

    def negative(self, name: str) -> list[str]:
        return [f"no {name}", f"a picture without {name}"]


def take(records: Prepared, rows: np.ndarray, fingerprint: str) -> Prepared:
    """Some of the records, in the order of ``rows``."""
    return Prepared(records.images[rows], records.columns.take(rows), fingerprint)


def with_columns(records: Prepared, images: np.ndarray | None = None, **columns: list[Any]) -> Prepared:
    """The records with other values in some columns, or other images."""
    table = records.columns
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    return Prepared(records.images if images is None else images, table, records.fingerprint)


@dataclass
class FakeDataset:
    card: FakeCard
    prepared: dict[str, Prepared]
    fingerprint: str
    provides: frozenset[str] = frozenset({"text", "label", "question", "prompts"})

    def splits(self) -> list[str]:
        return list(self.prepared)

    def column(self, split: str, name: str, whole: bool = False) -> list[Any]:
        return list({"label": self.prepared[split].label.tolist(), "text": self.prepared[split].text}[name])

    def shuffled(self, seed: int) -> "FakeDataset":
        """The same dataset, the examples of every split in another order."""
        random = np.random.default_rng(seed)
        fingerprint = f"{self.fingerprint}-shuffled-{seed}"
        prepared = {
            split: take(records, random.permutation(len(records)), f"{fingerprint}-{split}")
            for split, records in self.prepared.items()
        }
        return replace(self, prepared=prepared, fingerprint=fingerprint)


def fake_dataset(*, multi_label: bool = False, seed: int = 0, sizes: dict[str, int] = SPLITS) -> FakeDataset:
    """Balanced classes (or findings, independent of one another), patients of 1-3 images that share no split, two
    captions an image: the first with the text_id of its patient's other images, the second in one of five with the
    words of other images, and two questions an image (only when single-label).
    """
    random = np.random.default_rng(seed)
    card = FakeCard(multi_label=multi_label)
    prepared = {}
    row = 0
    for split, count in sizes.items():
        rows = range(row, row + count)
        row += count
        patients = np.repeat(np.arange(count), random.integers(1, 4, count))[:count]
        if multi_label:
            label = np.stack([random.permutation(np.arange(count) % 2) for _ in CLASSES], axis=1)
        else:
            label = random.permutation(np.arange(count) % len(CLASSES))
        common = random.integers(0, 5, count) == 0
        ids = [f"image-{i:04d}" for i in random.permutation(rows)]
        asked = [] if multi_label else list(QUESTIONS)
        columns = {
            "id": ids,
            "group": [f"{split}-patient-{p}" for p in patients],
            "label": label.tolist(),
            "text": [
                [f"caption of {ids[i]}", "nothing to see" if common[i] else f"more of {ids[i]}"] for i in range(count)
            ],
            "text_id": [[f"{split}-report-{p}", f"own-{i}"] for i, p in zip(ids, patients)],
            "question": [list(asked) for _ in rows],
            "answer": [[] if multi_label else [("yes", "no")[c % 2], CLASSES[c]] for c in label],
            "answer_type": [[QUESTIONS[q][0] for q in asked] for _ in rows],
            "question_type": [[QUESTIONS[q][1] for q in asked] for _ in rows],
        }
        images = np.stack([write_row(i) for i in rows])
        prepared[split] = Prepared(images, pa.table(columns), f"fake-{multi_label}-{seed}-{split}")
    provides = {"text", "label", "prompts"} | (set() if multi_label else {"question"})
    return FakeDataset(card, prepared, f"fake-{multi_label}-{seed}", frozenset(provides))


def write_row(row: int) -> np.ndarray:
    """An image uint8 [3, SIZE, SIZE] whose first pixels are the row's number."""
    image = np.zeros((3, SIZE, SIZE), np.uint8)
    image[0, 0, :4] = np.frombuffer(np.uint32(row).tobytes(), np.uint8)
    return image


def read_row(image: np.ndarray) -> int:
    return int(np.frombuffer(np.ascontiguousarray(image[0, 0, :4]).tobytes(), np.uint32)[0])


class FakeEvaluation(Evaluation):
    """The Evaluation under test in all but the preparation, which a dataset in memory has behind it."""

    def records(self, split: str) -> Any:
        return self.dataset.prepared[split]


def evaluation(encoder: Any, dataset: FakeDataset, folder: Path | None = None, batch_size: int = 256) -> FakeEvaluation:
    return FakeEvaluation(encoder, dataset, folder, Path(), batch_size)


class RandomEncoder:
    """Knows nothing: each image and each text its own random vector, the same whatever the batch.

    Its tokens are two such vectors of an image, and one or two of a text.
    """

    image_size = SIZE
    resizing = DEFAULT
    temperature_scale = 10.0

    def __init__(self, seed: int = 0, width: int = 16) -> None:
        self.seed = seed
        self.width = width
        self.fingerprint = f"random-{seed}-{width}"

    def encode_images(self, images: Tensor) -> Encoded:
        return self._encode([image.tobytes() for image in images.numpy()])

    def encode_texts(self, texts: Sequence[str]) -> Encoded:
        return self._encode([text.encode() for text in texts])

    def image_tokens(self, images: Tensor) -> Tensor:
        items = [image.tobytes() for image in images.numpy()]
        return torch.stack([self._tokens(items), self._tokens(items, b"second")], 1)

    def text_tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        items = [text.encode() for text in texts]
        mask = torch.tensor([[True, len(text) % 2 == 0] for text in texts])
        return torch.stack([self._tokens(items), self._tokens(items, b"second")], 1), mask

    def _tokens(self, items: Sequence[bytes], which: bytes = b"") -> Tensor:
        return torch.from_numpy(self._encode([item + which for item in items]).features)

    def _encode(self, items: Sequence[bytes]) -> Encoded:
        def draw(item: bytes) -> np.ndarray:
            digest = hashlib.sha256(repr(self.seed).encode() + item).digest()
            return np.random.default_rng(int.from_bytes(digest[:8], "big")).standard_normal(self.width)

        features = np.stack([draw(item) for item in items]).astype(np.float32)
        return Encoded(features, _unit(features))


class RandomWriter(RandomEncoder):
    """Knows nothing of an image, and the language of ``dataset``: writes a text of another test image."""

    def __init__(self, dataset: FakeDataset, seed: int = 0) -> None:
        super().__init__(seed)
        test = dataset.prepared["test"]
        self.texts = sorted((read_row(image), text) for image, of in zip(test.images, test.text) for text in of)

    def write(self, images: Tensor, beams: int) -> list[str]:
        return [self._draw_text(image) for image in images.numpy()]

    def _draw_text(self, image: np.ndarray) -> str:
        others = [text for row, text in self.texts if row != read_row(image)]
        digest = hashlib.sha256(f"{self.seed} {read_row(image)}".encode()).digest()
        return others[int.from_bytes(digest[:8], "big") % len(others)]


class OracleEncoder:
    """Knows every example of ``dataset`` by the row number in its pixels.

    Embeddings: one axis a class (two a finding: present, absent), one a text. A prompt lies on its class's axis, a
    caption on its own (captions with the same words or text_id share one), and an image on the axes of its class and
    captions, so that all that is right scores high and all else 0.
    Features: of an image its class as one-hot (findings as -1 and 1), from which class and answers follow linearly; of
    a text one axis a question. Its tokens are these, and padding. Writes an image's first text.
    """

    image_size = SIZE
    resizing = DEFAULT
    temperature_scale = 100.0

    def __init__(self, dataset: FakeDataset) -> None:
        self.fingerprint = f"oracle-{dataset.fingerprint}"
        card = dataset.card
        self.axis: dict[str, int] = {}
        axes = 0
        for name in card.classes or []:
            for prompts in (card.positive_prompts(name), card.negative(name)):
                self.axis.update(dict.fromkeys(prompts, axes))
                axes += 1
        axis_of_id: dict[str, int] = {}
        for records in dataset.prepared.values():
            for texts, text_ids in zip(records.text, records.text_id):
                for text, text_id in zip(texts, text_ids or texts):
                    axis = self.axis.get(text, axis_of_id.get(text_id, axes))
                    axes += axis == axes
                    self.axis[text] = axis_of_id[text_id] = axis
        self.width = axes + 1
        self.question = {question: i for i, question in enumerate(QUESTIONS)}
        self.features: dict[int, np.ndarray] = {}
        self.embeddings: dict[int, np.ndarray] = {}
        self.text: dict[int, str] = {}
        for records in dataset.prepared.values():
            for i, image in enumerate(records.images):
                label = records.label[i]
                present = label == 1 if card.multi_label else np.arange(len(card.classes or [])) == label
                embedding = np.zeros(self.width, np.float32)
                embedding[2 * np.arange(len(present)) + ~present] = 1
                embedding[[self.axis[text] for text in records.text[i]]] = 1
                self.features[read_row(image)] = np.where(present, 1, -1 if card.multi_label else 0).astype(np.float32)
                self.embeddings[read_row(image)] = embedding
                self.text[read_row(image)] = records.text[i][0]

    def encode_images(self, images: Tensor) -> Encoded:
        rows = [read_row(image) for image in images.numpy()]
        return Encoded(np.stack([self.features[r] for r in rows]), _unit(np.stack([self.embeddings[r] for r in rows])))

    def write(self, images: Tensor, beams: int) -> list[str]:
        return [self.text[read_row(image)] for image in images.numpy()]

    def encode_texts(self, texts: Sequence[str]) -> Encoded:
        unknown = self.width - 1
        embeddings = np.eye(self.width, dtype=np.float32)[[self.axis.get(text, unknown) for text in texts]]
        features = np.eye(len(QUESTIONS) + 1, dtype=np.float32)[
            [self.question.get(text, len(QUESTIONS)) for text in texts]
        ]
        return Encoded(features, embeddings)

    def image_tokens(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self.encode_images(images).features)[:, None]

    def text_tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        features = torch.from_numpy(self.encode_texts(texts).features)
        mask = torch.tensor([True, False]).expand(len(texts), -1)
        return torch.stack([features, torch.full_like(features, 9.0)], 1), mask


def _unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=np.float32)
