"""All tasks on a dataset share what is encoded: each image and each text passes through the towers once."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import Tensor

from benchmark.evaluation.encoder import Encoded
from benchmark.task import TASKS
from tests.tasks.fakes import FakeDataset, RandomEncoder, evaluation, fake_dataset


class Counting(RandomEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.passed: Counter[bytes | str] = Counter()

    def encode_images(self, images: Tensor) -> Encoded:
        self.passed.update(image.tobytes() for image in images.numpy())
        return super().encode_images(images)

    def encode_texts(self, texts: Sequence[str]) -> Encoded:
        self.passed.update(texts)
        return super().encode_texts(texts)


def overlapping() -> FakeDataset:
    """A dataset whose captions, prompts, questions and statements have texts in common."""
    dataset = fake_dataset(sizes={"train": 60, "val": 20, "test": 40})
    for records in dataset.prepared.values():
        records.text[0][0] = "a pear"
        records.text[1][0] = "which fruit is it?"
        records.text[2][0] = "is it tart? yes"
    return dataset


@pytest.mark.parametrize("stored", [True, False])
def test_every_image_and_every_text_passes_once(stored: bool, tmp_path: Path) -> None:
    dataset, encoder = overlapping(), Counting()
    names = [name for name in TASKS.names() if not TASKS[name].abilities]
    assert {"zero_shot", "retrieval", "linear_probe", "few_shot", "vqa"} <= {*names}
    data = evaluation(encoder, dataset, tmp_path if stored else None, batch_size=7)
    for name in names:
        list(TASKS[name](TASKS[name].Config()).evaluate(data, 0))
    assert set(encoder.passed.values()) == {1}, encoder.passed.most_common(3)
    images = {image.tobytes() for records in dataset.prepared.values() for image in records.images}
    assert images <= {*encoder.passed}
    assert {"a pear", "which fruit is it?", "is it tart? yes", "which fruit is it? pear"} <= {*encoder.passed}
