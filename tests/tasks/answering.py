"""Questions of which neither the image nor the words alone tell the answer, and what VQA measures of them."""

from typing import Any

from benchmark.tasks.vqa import VQA

from benchmark.evaluation.measurement import Measurement
from tests.tasks.fakes import SPLITS, FakeDataset, evaluation, fake_dataset


def measured(dataset: FakeDataset, encoder: Any, seed: int = 0, **options: Any) -> Measurement:
    """Measure VQA with these options on a dataset."""
    (measurement,) = VQA(VQA.Config(**options)).evaluate(evaluation(encoder, dataset), seed)
    return measurement


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
