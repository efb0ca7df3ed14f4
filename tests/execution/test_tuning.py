"""`bench tune`: as many trials for each method, on the validation split alone, resumable, and used by a run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmark.methods.filip import late

from benchmark.common.errors import BenchError
from benchmark.data.dataset import Dataset
from benchmark.execution.materials import Materials
from benchmark.execution.tuning import RECALL_AT, _axis, recall
from tests.methods.fakes import Pairs, small_method
from tests.squares import Bench, scenario

QUICK = ["--suite", "suite.yaml", "--set", "training.samples=96"]


def found(folder: Path, method: str) -> dict[str, Any]:
    (path,) = folder.glob(f"results/tuning/{method}-*.json")
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def test_each_method_gets_its_trials_and_a_run_uses_the_best(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Dataset.records
    monkeypatch.setattr(
        Dataset,
        "records",
        lambda self, split: pytest.fail("test split read") if split == "test" else records(self, split),
    )
    search = ["--search", "msd.momentum=0.5..0.9", "--search", "training.weight_decay=0.0,0.1"]
    tune = ["tune", *QUICK, "--methods", "msd,clip", *search]
    assert bench(*tune, "--trials", "2") == 0
    assert bench.out.count("[2/2]") == 2
    assert not (bench.folder / "results" / "cells").exists()
    assert bench(*tune, "--trials", "3") == 0  # goes on where it was
    assert "[2/3]" not in bench.out
    assert bench.out.count("[3/3]") == 2
    assert bench(*tune, "--trials", "3") == 0
    assert "[3/3]" not in bench.out
    clip, msd = found(bench.folder, "clip"), found(bench.folder, "msd")
    assert set(clip["settings"]) == {"training.learning_rate", "training.weight_decay"}
    assert set(msd["settings"]) == {*clip["settings"], "msd.momentum"}
    assert clip["split"] == "val"
    assert 0 <= clip["value"] <= 1
    monkeypatch.setattr(Dataset, "records", records)

    run = ["run", *QUICK, "--methods", "msd,clip", "--tasks", "zero_shot", "--tuned"]
    assert bench(*run) == 0
    cells = [json.loads(path.read_text()) for path in bench.folder.glob("results/cells/*/cell.json")]
    contents = {cell["content"]["method"]: cell["content"] for cell in cells if "method" in cell["content"]}
    assert contents["msd"]["training"]["learning_rate"] == msd["settings"]["training.learning_rate"]
    assert contents["msd"]["options"]["momentum"] == msd["settings"]["msd.momentum"]
    assert contents["clip"]["training"]["learning_rate"] == clip["settings"]["training.learning_rate"]
    for other in (["--budget", "samples=128"], ["--set", "msd.targets=hard"]):
        assert bench(*run, *other) == 2
        assert "no settings yet for arm" in bench.err
    assert bench(*run, "--set", "training.learning_rate=1e-5") == 2
    assert "bench tune found training.learning_rate=" in bench.err
    assert "but --set gives 1e-05; drop either --tuned or that --set" in bench.err


def test_other_options_are_another_search(bench: Bench) -> None:
    tune = ["tune", *QUICK, "--methods", "msd", "--trials", "1", "--objective", "loss"]
    assert bench(*tune, "--set", "msd.targets=cross") == 0
    assert bench(*tune, "--set", "msd.targets=hard") == 0
    assert "[1/1]" in bench.out
    assert len(list(bench.folder.glob("results/tuning/msd-*.json"))) == 2


def test_the_first_trial_is_the_suites_own_setting(bench: Bench) -> None:
    assert bench("tune", *QUICK, "--methods", "clip", "--trials", "1", "--objective", "loss") == 0
    best = found(bench.folder, "clip")
    assert best["settings"] == {"training.learning_rate": 3e-3}
    assert best["objective"] == "loss"


def test_a_scenario_is_tuned_on_its_own_data_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:

    arguments = [*scenario(bench)[:4], "--set", "training.samples=96"]
    seen, real = [], Materials.pretrain
    monkeypatch.setattr(
        Materials, "pretrain", lambda self, cell, *args: seen.append(cell.pretraining) or real(self, cell, *args)
    )
    assert bench("tune", *arguments, "--trials", "1", "--objective", "loss") == 0, bench.out + bench.err
    assert seen == [("few",)]


def test_recall_agrees_with_a_loop() -> None:
    method, pairs = small_method("clip"), Pairs(40)
    pairs.tokens[7] = pairs.tokens[3]
    batch = pairs.sequential(0, 40)
    with torch.no_grad():
        encoder = method.eval().encoder()
        images, texts = encoder.encode_image(batch.view()), encoder.encode_text(batch.tokens, batch.mask)
    scores = (images @ texts.T).numpy()
    words = [tuple(tokens.tolist()) for tokens in pairs.tokens]
    hits = []
    for side in (scores, scores.T):
        for i in range(40):
            order = np.argsort(-side[i], kind="stable")[:RECALL_AT]
            hits.append(any(words[j] == words[i] for j in order))
    assert recall(method, pairs, batch=16) == pytest.approx(np.mean(hits))  # type: ignore[arg-type]


def test_recall_compares_tokens_where_the_method_does() -> None:
    method, pairs = small_method("filip"), Pairs(30)
    batch = pairs.sequential(0, 30)
    with torch.no_grad():
        parts = method.eval()(batch).embeddings
    similarity = late(parts["image"], parts["text"], parts["mask"])
    hits = [
        int((row > row[i]).sum() < RECALL_AT) for side in (similarity[0], similarity[1].T) for i, row in enumerate(side)
    ]
    assert recall(method, pairs, batch=8) == pytest.approx(np.mean(hits))  # type: ignore[arg-type]


def test_a_collapsed_encoder_finds_nothing() -> None:
    method, pairs = small_method("clip"), Pairs(40)
    method.model.image_projection.weight.data.zero_()
    assert recall(method, pairs) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training.learning_rate=1e-4..1e-2:log", ("training.learning_rate", 1e-4, 1e-2, True, False, ())),
        ("msd.momentum=0.9..0.999", ("msd.momentum", 0.9, 0.999, False, False, ())),
        ("msd.queue_size=64..1024:log", ("msd.queue_size", 64, 1024, True, True, ())),
        ("msd.targets=cross,hard", ("msd.targets", 0, 0, False, False, ("cross", "hard"))),
    ],
)
def test_axes(text: str, expected: tuple[Any, ...]) -> None:
    axis = _axis(text)
    assert (axis.name, axis.low, axis.high, axis.log, axis.whole, axis.choices) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("momentum=1..2", "expected section.key=values, for example"),
        ("msdd.momentum=1..2", "unknown section of --search 'msdd'; did you mean 'msd'"),
        ("training.learningrate=1..2", "unknown key of training"),
        ("msd.momentum=2..1", "expected low..high with low < high"),
        ("msd.momentum=0..1:log", "low > 0 on a log scale"),
        ("msd.momentum=0.9", "a range or several values"),
        ("msd.momentum=a..b", "expected two numbers"),
    ],
)
def test_wrong_axes(text: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        _axis(text)
