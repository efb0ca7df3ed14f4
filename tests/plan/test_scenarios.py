"""Scenarios of any dataset: what is trained on and tested on at each condition."""

from pathlib import Path

import pytest
import yaml

from benchmark.api import configure
from benchmark.common.errors import BenchError
from benchmark.plan.make import make_plan
from benchmark.plan.plan import Plan
from tests.squares import CARD, Bench, planned


def posed(folder: Path, scenario: str, **options: object) -> Plan:
    options = {"methods": ["clip"], "tasks": ["linear_probe"]} | options
    return make_plan(configure(folder / "suite.yaml", scenario=scenario, **options))


def labelled(folder: Path) -> str:
    """Write a card of the squares without texts, and return its path."""
    source = CARD["source"] | {"columns": {"image": "image", "label": "colour", "group": "patient", "split": "split"}}  # type: ignore[operator]
    path = folder / "labelled.yaml"
    path.write_text(yaml.safe_dump(CARD | {"source": source}))
    return str(path)


def test_a_set_with_texts_is_trained_on(suite: Path) -> None:
    card = suite / "squares.yaml"
    plan = posed(suite, f"small:{card}=12,24")
    sets = [(cell.condition, cell.pretraining) for cell in plan.cells]
    assert sets == [("all", ("squares",)), (12, ("squares@n=12",)), (24, ("squares@n=24",))]
    assert [pair.dataset for pair in plan.pairs] == ["squares"]
    assert plan.scenario_of(plan.cells[1], plan.pairs[0])["scenario"] == "small:squares"
    # All of it is what a suite without a scenario trains on.
    assert plan.cells[0].key == planned(suite, methods=["clip"], tasks=["linear_probe"]).cells[0].key
    plan = posed(suite, f"rare:{card}.red=0.5,0.2", seeds=[0, 1])
    shares = [(1, "squares"), (0.5, "squares@keep.red=0.5"), (0.2, "squares@keep.red=0.2")]
    assert [(cell.condition, *cell.pretraining) for cell in plan.cells] == shares * 2
    # Probes learn from the labels of the hardest condition.
    assert [pair.dataset for pair in plan.pairs] == ["squares@keep.red=0.2"]
    plan = posed(suite, f"small:{card}=12", datasets=[labelled(suite)])
    assert [pair.dataset for pair in plan.pairs] == ["labelled"]


def test_a_set_of_labels_is_tested_on(suite: Path) -> None:
    card = labelled(suite)
    plan = posed(suite, f"rare:{card}.red=0.5,0.2")
    assert [cell.pretraining for cell in plan.cells] == [("squares",)]
    assert plan.tested_at == {f"labelled@keep.red={share}": share for share in (1, 0.5, 0.2)}
    (cell,) = plan.cells
    assert [plan.scenario_of(cell, pair)["condition"] for pair in plan.pairs] == [1, 0.5, 0.2]
    assert {plan.scenario_of(cell, pair)["plain_dataset"] for pair in plan.pairs} == {"labelled@keep.red=1"}
    plan = posed(suite, f"small:{card}=12,24", tasks=["linear_probe", f"retrieval:{suite / 'squares.yaml'}"])
    assert plan.tested_at == {"labelled": "all", "labelled@n=12": 12, "labelled@n=24": 24}
    assert plan.scenario_of(plan.cells[0], plan.pairs[-1]) == {}


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ("rare:squares.yaml.rd=0.1", "unknown class of squares 'rd'; did you mean 'red'?"),
        (
            "rare:squares.yaml=0.1",
            "expected a dataset, one of its classes and shares, as in rare:ham10000.melanoma=0.01",
        ),
        ("rare:squares.yaml.red=few", "expected shares after the =, as in rare:ham10000.melanoma=0.01"),
        (
            "rare:squares.yaml.red=5",
            "squares.yaml: source: keep.red: expected a number less than or equal to 1, found 5",
        ),
        ("small:squares.yaml", "expected numbers of images after the =, as in small:ham10000=256,1024"),
        ("small:squares.yaml=0.5", "expected numbers of images after the ="),
        ("small:squares.yaml=99", "dataset 'squares@n=99': n: expected at most the 72 images of train, found 99"),
        ("smal:squares.yaml=9", "unknown scenario of a dataset 'smal'; did you mean 'small'?"),
        ("small:sqares=9", "unknown dataset 'sqares'"),
    ],
)
def test_scenarios_that_cannot_be_posed(
    scenario: str, message: str, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(suite)
    with pytest.raises(BenchError) as error:
        posed(suite, scenario)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_a_scenario_varies_cannot_be_set(suite: Path) -> None:
    with pytest.raises(BenchError, match="--pretraining: scenario 'small:squares' varies it, so it cannot be set"):
        posed(suite, f"small:{suite / 'squares.yaml'}=12", pretraining=["squares"])


def test_a_rare_class_is_reported_apart_from_the_others(bench: Bench) -> None:
    quick = ["--suite", "suite.yaml", "--methods", "clip", "--tasks", "linear_probe", "--budget", "samples=96"]
    assert bench("run", *quick, "--scenario", f"rare:{labelled(bench.folder)}.red=0.1,0.5") == 0, bench.out + bench.err
    assert "trained 1, evaluated 3, done before 0, failed 0" in bench.out
    rows = bench.rows()
    tested = rows[rows.metric == "rare_recall"].set_index("condition")
    assert sorted(tested.index) == [0.1, 0.5, 1]
    assert tested.n.nunique() == tested.examples.nunique() == 1
    assert bench("report", "--details") == 0
    said = " ".join(bench.out.split())
    assert "scenario rare:labelled.red, rare classes: difference to the same method at 100 %" in said
    assert "How well is red recognised where few images to learn from show it, and what happens to the other" in said
