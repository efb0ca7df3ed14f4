"""The conformance suite judges a task that a file of the user's registers, and finds what is wrong with it."""

from pathlib import Path

import pytest

from benchmark.task import TASKS
from tests.conformance import checks_of, judge, registered
from tests.tasks import test_conformance as suite

CENTROID = '''
import numpy as np
from benchmark import Measurement, Task, register_task
from benchmark.evaluation.measurement import Mean


@register_task("centroid")
class Centroid(Task):
    """The class whose mean train feature is nearest."""

    summary, source, primary = "Nearest centroid.", "a test", "accuracy"
    needs, splits = frozenset({"label"}), ("train", "test")

    def evaluate(self, data, seed):
        train, test = data.records("train"), data.records("test")
        label, truth = train.label, test.label
        if data.card.multi_label:
            label, truth = label[:, 0], truth[:, 0]
        seen, features = data.images("train").features, data.images("test").features
        centroids = np.stack([seen[label == c].mean(0) for c in np.unique(label)])
        distance = np.linalg.norm(features[:, None] - centroids, axis=2)
        correct = (distance.argmin(1) == truth).astype(float)
        examples = {"id": np.array(test.ids), "group": np.array(test.groups), "correct": correct}
        chance = {"accuracy": 1 / len(centroids)}
        yield Measurement(examples, {"accuracy": Mean("correct")}, chance, gallery="a test")
'''

BROKEN = {
    "test_says_what_it_is": ('"Nearest centroid."', '""'),
    "test_examples_are_columns": ('"correct": correct}', '"correct": correct[:, None]}'),
    "test_random_encoder_is_at_chance": ("1 / len(centroids)", "0.9"),
    "test_oracle_is_perfect": ("distance.argmin", "distance.argmax"),
    "test_order_of_the_examples_changes_nothing": ("seen[label == c].mean(0)", "seen[label == c][0]"),
    "test_same_seed_same_measurements": ("correct = (", "correct = np.random.random(len(truth)).round() * ("),
    "test_metrics_are_made_of_the_stored_columns": ('Mean("correct")}', "lambda e: float(e is examples)}"),
}


SOUND = [name for name in checks_of(suite) if name != "test_is_tested_here"]


@pytest.mark.parametrize("test", SOUND)
def test_a_sound_task_passes(test: str, tmp_path: Path) -> None:
    with registered(TASKS, tmp_path / "centroid.py", CENTROID):
        for kind in suite.DATASETS:
            judge(checks_of(suite)[test], name="centroid", pair=("centroid", kind), tmp_path=tmp_path)


@pytest.mark.parametrize("test", BROKEN)
def test_a_broken_task_fails(test: str, tmp_path: Path) -> None:
    # By a name of its own: what the suite has measured is kept by the name.
    name = f"centroid_{test}"
    broken = CENTROID.replace(*BROKEN[test]).replace('"centroid"', f'"{name}"')
    with registered(TASKS, tmp_path / f"{name}.py", broken), pytest.raises(AssertionError):
        judge(checks_of(suite)[test], name=name, pair=(name, "classes"), tmp_path=tmp_path)
