"""The works of `bench perf` at a hundredth of their size: that their sides run; figures are measured elsewhere."""

import json
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from benchmark.cli.main import main
from benchmark.models import build_model, load_model_card
from benchmark.perf import jobs, measure, peers, training
from benchmark.perf.measure import Row, Taken, Work, row_of
from benchmark.perf.peers import WORKS

COMMANDS = ("job", "evaluation", "start_up")
"""Works whose sides are processes of seconds."""
ELSEWHERE = ("report", "step", "step_4", "step_16", "probe", "folds")
"""Works whose sides other tests run."""


@pytest.mark.parametrize("name", [name for name in WORKS if name not in (*COMMANDS, *ELSEWHERE)])
def test_the_sides_run(name: str) -> None:
    work = WORKS[name]
    sides = work.build(0.01)
    assert len(sides) == len(work.sides)
    for side in sides:
        side()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_commands_begin_anew_or_do_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[tuple[tuple[str, ...], object]] = []

    def run(command: tuple[str, ...], folder: Path, environment: dict[str, str] | None = None) -> Taken:
        began.append((tuple(command), (environment or {}).get("BENCH_CACHE")))
        return {"cpu": 1.0, "wall": 1.0, "memory": 1}

    monkeypatch.setattr(jobs, "run", run)
    work = WORKS[name]
    for side, do in zip(work.sides, work.build(0.01)):
        began.clear()
        assert do()["cpu"] >= 1
        do()
        assert len(began) == 2, side
        fresh = side in ("cold", "peer") and name != "start_up"
        assert (began[0] != began[1]) == (fresh or (name, side) in (("job", "warm"), ("evaluation", "warm"))), side
        if side == "warm":
            assert began[0][1] == began[1][1] is not None


def test_open_clips_model_like_tiny_is_of_its_size(tmp_path: Path) -> None:
    import open_clip

    jobs._open_clip_config(tmp_path)
    config = json.loads((tmp_path / "like-tiny.json").read_text())["text_cfg"]
    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=32, **config["tokenizer_kwargs"])
    assert tokenizer.vocab_size == config["vocab_size"] == 1024
    assert tokenizer(jobs.sentence(3)).max() < 1024


def test_the_loops_of_a_step_take_the_same_step() -> None:
    model = build_model(load_model_card("tiny"), 0, weights=False)
    loader = training.noise(8, model.image_size)
    batches = training._batches(loader, 4, 2)
    assert 0 < training._ours(deepcopy(model), loader, 4, 2, 1)()["cpu"] < 60
    towers = [training.Towers(deepcopy(model)) for _ in range(3)]
    training._peer(towers[1], batches, 1)()
    training._limit(towers[2], batches, 1)()
    before, *after = [torch.cat([p.detach().flatten() for p in each.parameters()]) for each in towers]
    assert (after[0] - before).abs().max() > training.RATE / 2
    # A step of AdamW is the sign of the gradient, so that rounding decides where there is next to none.
    assert ((after[0] - after[1]).abs() > 1e-6).float().mean() < 1e-3


def fake(name: str, scale: float) -> Row:
    work = Work("nothing", {"ours": "a", "peer": "b"}, lambda _: [])
    runs = [{"side": side, "cpu": cpu, "wall": cpu, "memory": 1} for side, cpu in (("ours", scale), ("peer", 2.0))]
    return row_of(name, work, runs, (0.5, 1.5))


def perf(monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bench", "perf", *options])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_the_command_writes_figures_and_their_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def compared(name: str, work: Work, command: list[str]) -> Row:
        asked.append(name)
        if name == "probe":
            raise measure.BenchError("it fell over")
        return fake(name, 0.5)

    monkeypatch.setattr(peers, "compared", compared)
    path = tmp_path / "perf.json"
    assert perf(monkeypatch, "--works", "bootstrap,probe", "--scale", "0.5", "--output", str(path)) == 1
    content = json.loads(path.read_text())
    good, bad = content["works"]
    assert good["ratios"]["ours"]["peer"]["cpu"] == 4
    assert bad == {"work": "probe", "failed": "it fell over"}
    assert content["machine"]["torch"]
    assert content["date"]
    assert content["commit"]
    page = path.with_suffix(".md").read_text()
    assert "4.00 / 4.00" in page
    assert "it fell over" in page
    asked.clear()
    perf(monkeypatch)
    assert "step" in asked
    assert "report" not in asked


def test_an_unknown_work(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert perf(monkeypatch, "--works", "prob") == 2
    assert "did you mean 'probe'" in capsys.readouterr().err
