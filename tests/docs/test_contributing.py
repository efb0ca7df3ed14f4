"""The worked examples of docs/contributing.md run as they stand there."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydantic import Field
from rich.console import Console

import benchmark.data.card
from benchmark.data.card import Card, load_card
from benchmark.data.dataset import open_dataset
from benchmark.data.sources import SOURCES, AnySource
from benchmark.method import METHODS
from benchmark.report import sections
from benchmark.task import TASKS
from tests.conformance import checks_of, judge, registered
from tests.docs.pages import block
from tests.methods import test_conformance as methods
from tests.tasks import test_conformance as tasks

PAGE = "contributing.md"
NEIGHBOURS = block(PAGE, "python", "class Neighbours")
NEAREST_MEAN = block(PAGE, "python", "class NearestMean")
SIDECAR = block(PAGE, "python", "class SidecarSource")
SECTION = block(PAGE, "python", "def seeds_per_line")


def module(code: str) -> Any:
    """Run a code block as a module."""
    made = ModuleType("worked_example")
    exec(compile(code, PAGE, "exec"), made.__dict__)
    return made


def draw(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name in names:
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / name)


@pytest.mark.parametrize("test", checks_of(methods))
def test_the_method_conforms(test: str, tmp_path: Path) -> None:
    values = {
        "name": "neighbours",
        "mode": "cached",
        "options": {},
        "same_text": "negative",
        "sizes": [4, 4, 4, 4, 4, 4, 1],
    }
    with registered(METHODS, tmp_path / "neighbours.py", NEIGHBOURS):
        judge(checks_of(methods)[test], **values, tmp_path=tmp_path)


@pytest.mark.parametrize("test", [name for name in checks_of(tasks) if name != "test_is_tested_here"])
def test_the_task_conforms(test: str, tmp_path: Path) -> None:
    with registered(TASKS, tmp_path / "nearest_mean.py", NEAREST_MEAN):
        for kind in tasks.DATASETS:
            judge(checks_of(tasks)[test], name="nearest_mean", pair=("nearest_mean", kind), tmp_path=tmp_path)


def rows_of(card: Path) -> list[dict[str, Any]]:
    dataset = open_dataset(load_card(card))
    return [{"split": split, **row} for split in dataset.splits() for row in dataset.records(split)]


def test_the_dataset_is_read(bench: Callable[..., int], tmp_path: Path) -> None:
    draw(tmp_path / "images", [f"{i}.png" for i in range(1, 5)])
    (tmp_path / "masses.csv").write_text(block(PAGE, "csv", "diagnosis"))
    (tmp_path / "masses.yaml").write_text(block(PAGE, "yaml", "masses.csv"))
    assert bench("data", "check", tmp_path / "masses.yaml") == 0
    rows = {row["group"]: row for row in rows_of(tmp_path / "masses.yaml")}
    assert sorted(rows) == ["a", "b", "c", "d"]
    assert rows["b"]["text"] == ["Irregular mass, spiculated margin."]
    assert [rows[group]["label"] for group in "abcd"] == [0, 1, 0, 1]
    assert load_card(tmp_path / "masses.yaml").provides == {"label", "text", "prompts"}


# `datasets` tries to hash the class that stands in for Card here.
@pytest.mark.filterwarnings("ignore::dill.PicklingWarning")
def test_the_source_is_read(
    bench: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sidecar = module(SIDECAR).SidecarSource

    class WithSidecar(Card):
        source: Annotated[AnySource | sidecar, Field(discriminator="kind")]  # type: ignore[valid-type]

    monkeypatch.setitem(SOURCES, "sidecar", sidecar)
    monkeypatch.setattr(benchmark.data.card, "Card", WithSidecar)
    card = tmp_path / "card.yaml"
    draw(tmp_path / "scans", ["a.png", "b.png", "c.png", "d.png"])
    for name in "abcd":
        (tmp_path / "scans" / f"{name}.txt").write_text(f"report {name}\n")
    card.write_text(block(PAGE, "yaml", "kind: sidecar"))
    assert bench("data", "check", card) == 0, capsys.readouterr()
    rows = rows_of(card)
    assert sorted(text for row in rows for text in row["text"]) == ["report a", "report b", "report c", "report d"]
    assert sorted(row["split"] for row in rows) == ["test", "test", "train", "train"]

    (tmp_path / "scans" / "c.txt").write_text("a changed report")
    assert "a changed report" in {text for row in rows_of(card) for text in row["text"]}
    (tmp_path / "scans" / "c.txt").unlink()
    assert bench("data", "check", card) == 2
    assert "c.png: no text; expected c.txt beside it" in " ".join(capsys.readouterr().err.split())


def test_the_section_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common = {"suite": "s", "model": "m", "variant": "", "dataset": "d", "task": "probe", "part": "", "n": 40}
    common |= {"metric": "accuracy", "primary": True, "low": 0.1, "high": 0.9, "chance": 0.5}
    seeds = [("clip", 0), ("clip", 1), ("msd", 0)]
    rows = pd.DataFrame(
        common | {"method": method, "seed": seed, "cell": f"{method}{seed}", "value": 0.6} for method, seed in seeds
    )
    monkeypatch.setattr(sections, "OF_ALL_TASKS", [module(SECTION).seeds_per_line])
    sections.write_report(rows, pd.DataFrame(), tmp_path, Console(file=StringIO()))
    shown = (tmp_path / "report.md").read_text().partition("## seeds of each line")[2]
    assert "| clip | 2 |" in shown
    assert "| msd | 1 |" in shown
