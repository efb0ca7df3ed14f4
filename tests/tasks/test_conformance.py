"""What every registered task must hold; a newly registered one is tested without an edit here."""

from collections.abc import Iterator
from dataclasses import is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.evaluation.checks import checked
from benchmark.evaluation.measurement import Measurement
from benchmark.evaluation.statistics import interval
from benchmark.report.web.gallery import image_of
from benchmark.task import TASKS, Task
from tests.tasks.fakes import FakeDataset, OracleEncoder, RandomWriter, evaluation, fake_dataset, with_columns

DATASETS = {"classes": fake_dataset(), "findings": fake_dataset(multi_label=True)}
PAIRS = [
    (name, kind) for name in TASKS.names() for kind, data in DATASETS.items() if TASKS[name].needs <= data.provides
]
ENCODERS = range(8)
"""Random encoders that chance is judged by."""


@pytest.fixture(params=PAIRS, ids=lambda pair: "-".join(pair))
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


def task(name: str) -> Task:
    return TASKS[name](TASKS[name].Config())


def measured(name: str, dataset: FakeDataset, encoder: Any, seed: int = 0, **options: Any) -> dict[str, Measurement]:
    returned = task(name).evaluate(evaluation(encoder, dataset, **options), seed)
    return {measurement.part: measurement for measurement in checked(returned, name)}


@cache
def of_random_encoder(name: str, kind: str, encoder: int = 0) -> dict[str, Measurement]:
    return measured(name, DATASETS[kind], RandomWriter(DATASETS[kind], encoder))


def primary(name: str, kind: str) -> str:
    return task(name).primary_for(DATASETS[kind].card)


def values(measurements: dict[str, Measurement]) -> dict[tuple[str, str], float]:
    return {(part, k): metric(m.examples) for part, m in measurements.items() for k, metric in m.metrics.items()}


def columns(measurements: dict[str, Measurement]) -> Iterator[tuple[str, Measurement, np.ndarray]]:
    for measurement in measurements.values():
        for column, data in measurement.examples.items():
            yield column, measurement, data


@pytest.mark.parametrize("name", TASKS.names())
def test_says_what_it_is(name: str) -> None:
    registered = TASKS[name]
    assert registered.summary
    assert registered.source
    assert registered.needs <= {"text", "label", "prompts", "question"}
    assert registered.abilities <= {"caption"}
    assert is_dataclass(registered.Config)
    assert "test" in registered.splits


@pytest.mark.parametrize("name", TASKS.names())
def test_is_tested_here(name: str) -> None:
    assert any(name == tested for tested, _ in PAIRS)


def test_examples_are_columns(pair: tuple[str, str]) -> None:
    measurements = of_random_encoder(*pair)
    assert measurements
    for measurement in measurements.values():
        assert {"id", "group"} <= set(measurement.examples)
        assert set(measurement.chance) <= set(measurement.metrics)
        assert primary(*pair) in measurement.metrics
        assert primary(*pair) in measurement.chance
    for column, measurement, data in columns(measurements):
        assert data.shape == (len(measurement.examples["id"]),), column


def test_says_what_can_be_looked_at_or_why_nothing_can(pair: tuple[str, str]) -> None:
    measurements = of_random_encoder(*pair)
    images = set(DATASETS[pair[1]].prepared["test"].ids)
    for measurement in measurements.values():
        shows = measurement.gallery
        assert shows, "neither a gallery nor a reason"
        if isinstance(shows, str):
            continue
        truths = {"label"} if "label" in measurement.examples else {f"label/{name}" for name in shows.classes}
        named = {shows.wrong, shows.answer, shows.truth, shows.right, *shows.numbers.values()} - {""}
        named |= {f"score/{name}" for name in shows.classes} | (truths if shows.classes else set())
        assert named <= set(measurement.examples)
        assert {image_of(shows, name) for name in measurement.examples["id"]} <= images
        if shows.ranked is not None:
            count = len(measurements[shows.ranked].examples["id"])
            firsts = [data for column, data in measurement.examples.items() if column.startswith("first/")]
            assert firsts
            assert all(((data >= 0) & (data < count)).all() for data in firsts)


def test_metrics_are_made_of_the_stored_columns(pair: tuple[str, str], tmp_path: Path) -> None:
    for measurement in of_random_encoder(*pair).values():
        pd.DataFrame(measurement.examples).to_parquet(tmp_path / "examples.parquet")
        stored = pd.read_parquet(tmp_path / "examples.parquet")
        read = {name: stored[name].to_numpy() for name in stored}
        for name, metric in measurement.metrics.items():
            assert metric(read) == metric(measurement.examples), name


def test_random_encoder_is_at_chance(pair: tuple[str, str]) -> None:
    """The mean over encoders is as near to chance as its standard error says, for each metric that names its chance;
    and the primary's 95 % interval holds chance for most encoders.
    """
    runs = [of_random_encoder(*pair, encoder) for encoder in ENCODERS]
    for part, measurement in runs[0].items():
        for name, chance in measurement.chance.items():
            found = np.array([run[part].metrics[name](run[part].examples) for run in runs])
            error = found.std(ddof=1) / np.sqrt(len(found))
            assert abs(found.mean() - chance) <= 4.5 * error + 0.005 * max(chance, 1), f"{part} {name}: {found}"
        name = primary(*pair)
        held = 0
        for run in runs:
            examples = run[part].examples
            low, high = interval(run[part].metrics[name], examples, examples["group"], 500, np.random.default_rng(0))
            assert low <= run[part].metrics[name](examples) <= high
            held += low <= run[part].chance[name] <= high
        assert held >= len(runs) - 2, f"{part} {name}: chance in {held} of {len(runs)} intervals"


def test_oracle_is_perfect(pair: tuple[str, str]) -> None:
    name, kind = pair
    for measurement in measured(name, DATASETS[kind], OracleEncoder(DATASETS[kind])).values():
        value = measurement.metrics[primary(name, kind)](measurement.examples)
        assert value == pytest.approx(measurement.ceiling.get(primary(name, kind), 1.0), abs=1e-9)


def test_order_of_the_examples_changes_nothing(pair: tuple[str, str]) -> None:
    name, kind = pair
    shuffled = measured(name, DATASETS[kind].shuffled(1), RandomWriter(DATASETS[kind]))
    assert values(shuffled) == pytest.approx(values(of_random_encoder(name, kind)), abs=1e-6, nan_ok=True)


def test_batch_size_of_the_encoding_changes_nothing(pair: tuple[str, str]) -> None:
    name, kind = pair
    in_batches = measured(name, DATASETS[kind], RandomWriter(DATASETS[kind]), batch_size=7)
    assert values(in_batches) == pytest.approx(values(of_random_encoder(name, kind)), abs=1e-6, nan_ok=True)


def test_same_seed_same_measurements(pair: tuple[str, str]) -> None:
    name, kind = pair
    first, second = of_random_encoder(name, kind), measured(name, DATASETS[kind], RandomWriter(DATASETS[kind]))
    assert first.keys() == second.keys()
    for part, measurement in first.items():
        assert measurement.examples.keys() == second[part].examples.keys()
        assert measurement.chance == second[part].chance
        for column, data in measurement.examples.items():
            np.testing.assert_array_equal(data, second[part].examples[column], column)


def test_answers_of_test_are_for_scoring_only(pair: tuple[str, str]) -> None:
    """Scores do not change when the labels and answers of the test split do."""
    name, kind = pair
    dataset = DATASETS[kind]
    test = dataset.prepared["test"]
    other = np.random.default_rng(0).permutation(len(test))
    changed = with_columns(test, label=test.label[other].tolist(), answer=[test.answer[i] for i in other])
    swapped = replace(dataset, prepared=dataset.prepared | {"test": changed})
    with_others = measured(name, swapped, RandomWriter(DATASETS[kind]))
    for part, measurement in of_random_encoder(name, kind).items():
        for column, data in measurement.examples.items():
            if column.startswith("score"):
                np.testing.assert_array_equal(data, with_others[part].examples[column], column)
