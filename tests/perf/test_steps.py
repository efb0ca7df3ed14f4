"""`bench perf --methods` at a small size: what a row holds; figures are measured elsewhere."""

import json
import sys
from pathlib import Path

import pytest

from benchmark.cli.main import main
from benchmark.training.frozen import FrozenFeatures


def test_steps_of_methods_beside_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "steps.json"
    small = ["--set", "training.batch_size=8", "--set", "training.micro_batch=4", "--output", str(path)]
    monkeypatch.setattr(sys, "argv", ["bench", "perf", "--methods", "clip,msd", "--device", "cpu", *small])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code, capsys.readouterr().err
    rows = {row["method"]: row for row in json.loads(path.read_text())["methods"]}
    assert rows["clip"]["time_ratio"] == rows["clip"]["memory_ratio"] == 1
    assert rows["msd"]["time_ratio"] == pytest.approx(rows["msd"]["seconds"] / rows["clip"]["seconds"])
    assert rows["msd"]["accumulation"] == "keyed"
    weights = 4 * rows["clip"]["parameters_trainable"]
    # Weights, gradients, two moments of AdamW; msd has a teacher of the same size too.
    assert rows["clip"]["memory"] > 3 * weights
    monkeypatch.setattr(sys, "argv", ["bench", "perf", "--methods", "msd", "--device", "cpu", *small])
    with pytest.raises(SystemExit):
        main()
    assert "unknown method of --reference" in capsys.readouterr().err


def test_kept_outputs_of_frozen_layers_are_read_in_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[list[str]] = []

    class Used(FrozenFeatures):
        def used(self):  # type: ignore[no-untyped-def]
            used.append([tower.side for tower in self.towers])
            return super().used()

    monkeypatch.setattr("benchmark.perf.steps.FrozenFeatures", Used)
    settings = [
        "--set",
        "training.batch_size=6",
        "--set",
        "training.micro_batch=4",
        "--set",
        "locked_image.projection=true",
    ]
    command = ["bench", "perf", "--methods", "clip,locked_image", "--device", "cpu", *settings]
    monkeypatch.setattr(sys, "argv", [*command, "--grid", "training.cache_frozen=false,true"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    assert used
    assert sorted({str(each) for each in used}) == ["['image']", "[]"]
