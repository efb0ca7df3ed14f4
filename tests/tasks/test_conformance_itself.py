"""The conformance suite judges a task that a file of the user's registers, and finds what is wrong with it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CENTROID = '''
import numpy as np
from benchmark import Measurement, Task, register_task
from benchmark.task import Mean


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
        yield Measurement(examples, {"accuracy": Mean("correct")}, {"accuracy": 1 / len(centroids)})
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


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """Pairs of a test that failed and the task it failed for."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "centroid.py").write_text(CENTROID)
    for name, change in BROKEN.items():
        broken = CENTROID.replace(*change).replace('"centroid"', f'"centroid_{name}"')
        (folder / f"centroid_{name}.py").write_text(broken)
    plugins = [word for path in folder.glob("*.py") for word in ("-p", path.stem)]
    suite = Path(__file__).with_name("test_conformance.py")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", str(suite), "-q", "-k", "centroid", *plugins],
        cwd=suite.parents[2], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    assert run.returncode == 1, run.stdout + run.stderr
    return set(re.findall(r"^FAILED .*::(\w+)\[(\w+)", run.stdout, re.MULTILINE))


@pytest.mark.slow
def test_a_sound_task_passes(failed: set[tuple[str, str]]) -> None:
    assert "centroid" not in {task for _, task in failed}


@pytest.mark.slow
@pytest.mark.parametrize("test", BROKEN)
def test_a_broken_task_fails(failed: set[tuple[str, str]], test: str) -> None:
    assert (test, f"centroid_{test}") in failed
