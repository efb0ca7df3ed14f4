"""`bench perf` at a hundredth of its size: that the sides run; figures are measured elsewhere."""

import json
import sys
from pathlib import Path

import pytest

from benchmark.cli.main import main
from benchmark.perf.peers import WORKS


@pytest.mark.parametrize("name", WORKS)
def test_both_sides_run(name: str) -> None:
    for side in WORKS[name].build(0.01):
        side()


def test_the_command_writes_ratios(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "perf.json"
    monkeypatch.setattr(sys, "argv", ["bench", "perf", "--works", "probe", "--scale", "0.02", "--output", str(path)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    content = json.loads(path.read_text())
    (row,) = content["works"]
    assert row["speed_ratio"] == pytest.approx(row["peer_seconds"] / row["seconds"])
    assert content["machine"]["torch"]


def test_an_unknown_work(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "perf", "--works", "prob"])
    with pytest.raises(SystemExit):
        main()
    assert "did you mean 'probe'" in capsys.readouterr().err
