"""The whole program over the real medical images that the cards in configs/datasets/pack describe."""

import json
import sys
from pathlib import Path

import pytest

from benchmark.cli.main import main
from benchmark.store.store import Store

CARDS = Path(__file__).parent / "cards"


@pytest.mark.slow
def test_msd_and_clip_over_the_real_pack(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (["run", "--suite", str(CARDS / "suite.yaml")], ["report"]):
        monkeypatch.setattr(sys, "argv", ["bench", *command])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code, capsys.readouterr()
    rows = Store(tmp_path / "results").rows()
    pairs = set(zip(rows.method, rows.task, rows.dataset))
    for method in ("msd", "clip"):
        expected = {(method, "retrieval", "slake_retrieval"), (method, "vqa", "vqa_rad"), (method, "vqa", "slake_en")}
        for dataset in ("busi", "cxr_pneumonia", "slake_modality_body"):
            expected |= {(method, task, dataset) for task in ("zero_shot", "linear_probe", "few_shot")}
        assert {pair for pair in pairs if pair[0] == method} == expected
    assert rows.value.notna().all()
    probe = rows[(rows.task == "linear_probe") & (rows.dataset == "slake_modality_body") & (rows.metric == "accuracy")]
    assert (probe.low > probe.chance).all()
    report = (tmp_path / "results" / "report" / "report.md").read_text()
    assert r"slake\_retrieval" in report
    logs = list(tmp_path.glob("results/cells/*/log.jsonl"))
    assert len(logs) == 2
    assert all(json.loads(line)["loss"] > 0 for log in logs for line in log.read_text().splitlines())
