"""A small dataset of coloured squares, a model and a suite for it, and `bench` in a folder that holds them."""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from benchmark.cli.main import main
from benchmark.config.load import load_run_config
from benchmark.method import METHODS
from benchmark.plan.make import make_plan
from benchmark.plan.plan import Plan
from benchmark.store.store import Store
from benchmark.task import TASKS

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
MODEL = {
    "embed_dim": 16,
    "image_size": 32,
    "image": {"kind": "tiny", "width": 32, "layers": 1, "heads": 2},
    "text": {"kind": "tiny", "width": 32, "layers": 1, "heads": 2},
    "tokenizer": {"kind": "corpus", "vocab_size": 300, "context_length": 32},
}
CARD = {
    "title": "Coloured squares",
    "modality": "squares",
    "classes": list(COLOURS),
    "prompts": ["a {} square"],
    "source": {
        "kind": "manifest",
        "file": "squares.jsonl",
        "columns": {
            "id": "id",
            "image": "image",
            "text": "text",
            "label": "colour",
            "group": "patient",
            "split": "split",
            "question": "question",
            "answer": "answer",
            "answer_type": "kind",
        },
    },
}
SUITE = {
    "description": "squares",
    "model": "small.yaml",
    "pretraining": ["squares.yaml"],
    "datasets": ["squares.yaml"],
    "methods": ["msd", "clip"],
    "evaluation": {"resamples": 50},
    "baselines": False,
    "training": {"samples": 640, "batch_size": 32, "micro_batch": 16, "learning_rate": 3e-3, "validations": 2},
}
README = (Path(__file__).parents[1] / "README.md").read_text()
PLUGIN = re.search(r"```python\n(.*?register_method.*?)```", README, re.DOTALL)[1]  # type: ignore[index]
"""The README's method: what it shows must work."""


def write_squares(folder: Path) -> None:
    """Write 120 squares, the cards of their dataset and model, the suite, and the README's plug-in."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(120):
        colour = list(COLOURS)[i % 3]
        pixels = np.array(COLOURS[colour]) + rng.normal(0, 20, (32, 32, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
        rows.append(
            {
                "id": f"s{i}",
                "image": f"{i}.png",
                "text": f"a {colour} square, number {i}",
                "colour": colour,
                "patient": f"p{i // 2}",
                "split": "train" if i < 72 else "val" if i < 90 else "test",
                "question": "is it red?",
                "answer": "yes" if colour == "red" else "no",
                "kind": "closed" if i % 6 else "open",
            }
        )
    (folder / "squares.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, content in (("squares", CARD), ("small", MODEL), ("suite", SUITE)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    (folder / "hinge.py").write_text(PLUGIN)


class Bench:
    """`bench` in a folder: returns the exit status; ``out`` and ``err`` hold what it printed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        self.monkeypatch.setattr(sys, "argv", ["bench", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        self.out, self.err = self.capsys.readouterr()
        return int(stopped.value.code or 0)

    def rows(self) -> pd.DataFrame:
        return Store(self.folder / "results").rows()


def write_scenario(folder: Path, **changes: Any) -> None:
    """Write scenario.yaml with two more cards: ``few``, fewer squares, and ``copy``, all under another name."""
    lines = (folder / "squares.jsonl").read_text().splitlines()
    few = [line for i, line in enumerate(lines) if i >= 36]
    for name, kept in (("few", few), ("copy", lines)):
        (folder / f"{name}.jsonl").write_text("\n".join(kept))
        card = CARD | {"source": CARD["source"] | {"file": f"{name}.jsonl"}}  # type: ignore[operator]
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(card))
    posed = {"name": "small", "question": "What do few squares cost?", "varies": "squares"}
    posed |= {"condition": 36, "plain": {"condition": 72, "pretraining": ["squares.yaml"]}}
    suite = SUITE | {"pretraining": ["few.yaml"], "scenario": posed} | changes
    (folder / "scenario.yaml").write_text(yaml.safe_dump(suite))


def scenario(bench: Bench, **changes: Any) -> list[str]:
    """Write a suite with a scenario and return the options of a quick run of it."""
    write_scenario(bench.folder, **changes)
    return ["--suite", "scenario.yaml", "--methods", "clip", "--tasks", "linear_probe", "--budget", "samples=96"]


def planned(
    folder: Path,
    *settings: str,
    grid: Sequence[str] = (),
    conditions: Sequence[float] = (),
    from_cards: bool = False,
    **flags: Any,
) -> Plan:
    """Plan a run of the suite in a folder that write_squares() filled. settings: of ``--set``; flags: of the suite.

    from_cards: also where data are not here, as ``bench plan`` does.
    """
    suite = str(folder / f"{flags.pop('suite', 'suite')}.yaml")
    known = [*METHODS.names(), *TASKS.names()]
    config = load_run_config(suite, flags, settings, known, grid=grid, conditions=conditions)
    return make_plan(config, from_cards=from_cards)


def edit(path: Path, **changes: Any) -> None:
    """Change top-level keys of a YAML file; None removes one."""
    content = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
