"""Questions of which neither the image nor the words alone tell the answer, and what VQA measures of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from benchmark.tasks.vqa import VQA, Questions

from benchmark.evaluation.evaluation import Evaluation
from benchmark.evaluation.measurement import Measurement
from tests.methods.fakes import SIZE
from tests.tasks.fakes import SPLITS, FakeDataset, evaluation, fake_dataset, with_columns


class Sighted(VQA):
    """VQA without the second training, on the questions alone, which takes as long: no such answer is right."""

    def answers(
        self, data: Evaluation, splits: dict[str, Questions], seed: int, blind: Sequence[bool]
    ) -> list[tuple[np.ndarray, int]]:
        trained = [each for each in blind if not each]
        return [*super().answers(data, splits, seed, trained), (np.full(len(splits["test"]), ""), 0)]


def measured(dataset: FakeDataset, encoder: Any, seed: int = 0, task: type[VQA] = VQA, **options: Any) -> Measurement:
    """Measure VQA with these options on a dataset."""
    (measurement,) = task(VQA.Config(**options)).evaluate(evaluation(encoder, dataset), seed)
    return measurement


def sighted(dataset: FakeDataset, encoder: Any, seed: int = 0, **options: Any) -> Measurement:
    """Measure VQA where the training on the questions alone does not matter."""
    return measured(dataset, encoder, seed, Sighted, **options)


def values(measurement: Measurement) -> dict[str, float]:
    """Compute all metrics of a measurement."""
    return {name: metric(measurement.examples) for name, metric in measurement.metrics.items()}


def bits(answers: tuple[str, str] = ("yes", "no"), sizes: dict[str, int] = SPLITS) -> FakeDataset:
    """Which of an image's bits an answer tells, only the question says."""
    dataset = fake_dataset(sizes=sizes)
    for records in dataset.prepared.values():
        for i, label in enumerate(records.label):
            records.question[i][:] = ["first?", "second?"]
            records.answer[i][:] = [answers[label % 2], answers[label // 2]]
            records.answer_type[i][:] = ["closed", "closed"]
            records.question_type[i][:] = ["bit", "bit"]
    return dataset


def pictures(train: int = 48) -> FakeDataset:
    """bits() whose images show the first bit on the left and the second on the right, the questions equally long."""
    dataset = bits(sizes={"train": train, "val": 16, "test": 32})
    random = np.random.default_rng(0)
    for split, records in dataset.prepared.items():
        images = random.integers(0, 120, (len(records), 3, SIZE, SIZE), dtype=np.uint8)
        images[:, :, :, : SIZE // 2] += (100 * (records.label % 2)).astype(np.uint8)[:, None, None, None]
        images[:, :, :, SIZE // 2 :] += (100 * (records.label // 2)).astype(np.uint8)[:, None, None, None]
        questions = [["one?", "two?"] for _ in records.ids]
        dataset.prepared[split] = with_columns(records, images, question=questions)
    return dataset
