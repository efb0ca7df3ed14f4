"""The rows and resamples of a metric that is a mean over draws of what is learned from."""

import numpy as np
import pytest
from scipy import stats

from benchmark.common.progress import Stage
from benchmark.evaluation.measurement import Mean, MeanOverDraws, Measurement, draws_of
from benchmark.execution.measure import resamples_of, scores_of
from benchmark.store.store import Store
from tests.squares import Bench

SUITE = ["--suite", "suite.yaml", "--methods", "clip", "--tasks", "few_shot,linear_probe"]
QUICK = ["--set", "training.samples=32", "--set", "few_shot.shots=[1]", "--set", "few_shot.percentages=[20,100]"]


def test_draws_stand_in_rows_and_resamples(bench: Bench) -> None:
    assert bench("run", *SUITE, *QUICK) == 0, bench.out + bench.err
    rows = bench.rows()
    drawn = rows[rows["task"] == "few_shot"].set_index("metric")
    assert set(drawn.index) == {"accuracy@1", "accuracy@20%", "accuracy@100%"}
    store = Store(bench.folder / "results")
    for metric, row in drawn.iterrows():
        draws = 1 if metric == "accuracy@100%" else 5
        assert len(row["of_draws"]) == draws
        assert row["value"] == pytest.approx(np.mean(row["of_draws"]))
        resamples = store.resamples(row["cell"], row["evaluation"], "", str(metric))
        assert resamples is not None
        assert resamples.shape == (draws, 50)
        # Resamples of the 30 test images vary about the metric of their draw.
        np.testing.assert_allclose(resamples.mean(axis=1), row["of_draws"], atol=0.1)
        # The same patients in each draw: what the columns say, drawn again.
        examples = store.examples(row["cell"], row["evaluation"], "")
        assert examples is not None
        columns = examples[[f"correct@{str(metric).split('@')[1]}/{draw}" for draw in range(draws)]]
        assert row["of_draws"] == pytest.approx(columns.mean().tolist())
        low, high = row["over_groups"]
        if draws == 1:
            assert (row["low"], row["high"]) == (low, high)
        elif np.std(row["of_draws"]) > 0:
            assert row["low"] < low or row["low"] == 0
            assert row["high"] > high or row["high"] == 1
    probe = rows[rows["task"] == "linear_probe"]
    assert probe["of_draws"].isna().all()
    one = store.resamples(*probe.iloc[0][["cell", "evaluation", "part", "metric"]])
    assert one is not None
    assert one.shape == (1, 50)


def test_mean_over_draws() -> None:
    examples = {"id": np.arange(4), "a": np.array([0.0, 1, 1, 0]), "b": np.array([1.0, 1, 1, 0])}
    metric = MeanOverDraws((Mean("a"), Mean("b")))
    assert metric(examples) == 0.625
    assert draws_of(metric) == (Mean("a"), Mean("b"))
    assert draws_of(Mean("a")) == (Mean("a"),)


@pytest.mark.parametrize("spread", [0.0, 0.02, 0.06])
def test_the_interval_covers_the_mean_over_all_draws(spread: float) -> None:
    """100 patients with an image each, 5 draws that differ by ``spread``, and what no draw has in common."""
    random = np.random.default_rng(0)
    covered, given_draws = [], []
    for _ in range(300):
        hard = random.normal(0, 0.6, 100)
        chance = stats.norm.ppf(0.7 + random.normal(0, spread, (5, 1))) * 1.17
        correct = hard + random.normal(0, 1, (5, 100)) < chance
        examples = {"id": np.arange(100), "group": np.arange(100)}
        examples |= {f"correct/{draw}": of_draw for draw, of_draw in enumerate(correct.astype(float))}
        metric = MeanOverDraws(tuple(Mean(f"correct/{draw}") for draw in range(5)))
        measurement = Measurement(examples, {"accuracy": metric})
        [row] = scores_of(measurement, resamples_of(measurement, np.arange(100), 200))
        covered.append(row["low"] <= 0.7 <= row["high"])
        given_draws.append(row["over_groups"][0] <= 0.7 <= row["over_groups"][1])
    assert 0.93 <= np.mean(covered) <= 0.975
    assert spread < 0.05 or np.mean(given_draws) < 0.9


def test_a_row_says_what_guesses_get_and_what_is_possible() -> None:
    examples = {"id": np.arange(4), "group": np.arange(4), "right": np.array([0.0, 1, 1, 0])}
    metrics = {"accuracy": Mean("right"), "gain": Mean("right", lowest=-1.0)}
    blind = {"lookup": {"accuracy": 0.25}, "text": {"accuracy": 0.5, "gain": 0.0}}
    measurement = Measurement(examples, dict(metrics), {"accuracy": 0.1}, blind=blind, ceiling={"accuracy": 0.9})
    accuracy, gain = scores_of(measurement, resamples_of(measurement, np.arange(4), 20))
    assert (accuracy["blind"], accuracy["ceiling"]) == ({"lookup": 0.25, "text": 0.5}, 0.9)
    assert (gain["blind"], gain["ceiling"]) == ({"text": 0.0}, None)


def test_how_far_a_task_is(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long task does not stand at 0 of 3 until it is over."""
    notes: list[str] = []
    monkeypatch.setattr(Stage, "update", lambda self, done, total=None, note="": notes.append(f"{done}, {note}"))
    suite = ["--suite", "suite.yaml", "--methods", "clip", "--budget", "steps=2", "--set", "vqa.epochs=2"]
    assert bench("run", *suite, "--tasks", "linear_probe,few_shot,vqa") == 0, bench.err
    for number, task, doing in (
        (0, "linear_probe", "encoding images of train: 0 of 72"),
        (0, "linear_probe", "fitting strengths: 0 of 13"),
        (1, "few_shot", "fitting draws: 1 of 36"),
        (1, "few_shot", "resampling metrics: 0 of 36"),
        (2, "vqa", "training, epochs: 1 of 2"),
        (2, "vqa", "encoding texts: 0 of 1"),
    ):
        assert f"{number}, {task} on squares, {doing}" in notes, notes
