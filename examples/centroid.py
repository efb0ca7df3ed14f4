"""A task of one's own: classification by the nearest class mean of the frozen image features."""

from collections.abc import Iterator

import numpy as np

from benchmark import Evaluation, Gallery, Mean, Measurement, Task, register_task


@register_task("centroid")
class Centroid(Task):
    """Classify a test image as the class whose mean training feature is nearest. For data with one class per image."""

    summary = "Classification by the nearest class mean, without any fitting."
    source = "an example"
    primary = "accuracy"
    needs = frozenset({"label"})
    splits = ("train", "test")

    def evaluate(self, data: Evaluation, seed: int) -> Iterator[Measurement]:
        """Yield the accuracy; examples with an unknown label (-1) do not count."""
        train, test = data.records("train"), data.records("test")
        features, label = data.images("train").features, np.asarray(train.label)
        known = np.asarray(test.label) >= 0
        present = np.unique(label[label >= 0])
        centroids = np.stack([features[label == number].mean(axis=0) for number in present])
        distance = np.linalg.norm(data.images("test").features[known][:, None] - centroids, axis=2)
        correct = present[distance.argmin(axis=1)] == np.asarray(test.label)[known]
        examples = {
            "id": np.array(test.ids)[known],
            "group": np.array(test.groups)[known],
            "correct": correct.astype(float),
        }
        shows = Gallery(wrong="correct", wrong_if="low", right="correct")
        chance = {"accuracy": 1 / len(data.classes)}
        yield Measurement(examples, {"accuracy": Mean("correct")}, chance=chance, gallery=shows)
