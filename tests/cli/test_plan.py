"""What `bench plan` prints: before the data are here, with a part of them, for another device, and when all is done."""

import re

import pytest
import yaml

from tests.squares import CARD, Bench, edit

PLAN = ["plan", "--suite", "suite.yaml", "--methods", "clip,msd", "--tasks", "zero_shot,retrieval", "--device", "cpu"]


def flat(bench: Bench) -> str:
    return " ".join(bench.out.split())


def without_data(bench: Bench) -> None:
    (bench.folder / "squares.jsonl").rename(bench.folder / "away")
    edit(bench.folder / "squares.yaml", rows={"train": 12000, "val": 300, "test": 45}, access="registration")


@pytest.mark.parametrize("width", [80, 120])
def test_a_plan_without_data_says_what_it_would_take(bench: Bench, width: int) -> None:
    without_data(bench)
    bench.monkeypatch.setattr("benchmark.cli.options.console._width", width)
    options = ["--budget", "epochs=10", "--seeds", "3", "--speed", "2TFLOPS"]
    assert bench(*PLAN, *options) == 0, bench.err
    lines = bench.out.splitlines()
    assert (
        max(len(line) for line in lines[: lines.index(next(line for line in lines if "time: about" in line))]) <= width
    )
    # 12,345 images of 32 x 32 pixels, with 32 bytes each in the journal.
    assert re.search(r"squares pretraining, zero_shot,.* ~12.3k 38.3 MB not here \(registration\)", flat(bench))
    for arm in ("clip", "msd"):
        assert re.search(rf"{arm} +3 train +120k ", bench.out)
    assert "from operations at 35 % of 2 TFLOPS (--speed)" in bench.out
    assert "~: the number of images is the card's" in bench.out
    assert "cost of texts of 32 tokens, the model's maximum" in bench.out
    assert lines[-2:] == ["bench run refuses this here: 1 dataset not on this machine", "next: bench data how squares"]
    times = [line.split() for line in lines if line.startswith(("clip ", "msd ", "all "))]
    assert len(times) == 3
    assert not (bench.folder / "results").exists()
    assert bench("run", *PLAN[1:]) == 2
    assert "no dataset to pretrain on is usable here; missing: squares" in bench.err


def test_numbers_that_nobody_knows_are_not_made_up(bench: Bench) -> None:
    without_data(bench)
    edit(bench.folder / "squares.yaml", rows=None)
    assert bench(*PLAN, "--budget", "epochs=10") == 0, bench.err
    assert re.search(r"squares +pretraining, zero_shot, +\? +0 kB not here", bench.out)
    assert re.search(r"clip +1 train +\? +\? ", bench.out)
    assert re.search(r"all +\? ", bench.out)
    assert "not counted, as the cards name no number of images: squares (train, val, test)" in bench.out


def test_what_a_run_leaves_out_is_priced_with_strict(bench: Bench) -> None:
    gone = CARD | {"source": CARD["source"] | {"file": "gone.jsonl"}, "about_rows": {"train": 100, "test": 20}}  # type: ignore[operator]
    (bench.folder / "gone.yaml").write_text(yaml.safe_dump(gone))
    edit(bench.folder / "suite.yaml", datasets=["squares.yaml", "gone.yaml"])
    assert bench(*PLAN) == 0
    assert "left out: gone: not found on this machine; bench data how gone" in bench.out
    assert "squares pretraining, zero_shot, retrieval 120 " in flat(bench)
    assert bench.out.splitlines()[-1] == "next: bench run with the same options"
    assert bench(*PLAN, "--strict") == 0
    assert "gone zero_shot, retrieval ~120 372 kB not here" in flat(bench)
    assert bench.out.splitlines()[-1] == "next: bench data how gone"
    assert bench("run", *PLAN[1:], "--strict") == 2
    assert "--strict: not found: gone" in bench.err


def test_a_device_that_is_not_here_needs_a_speed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert bench(*PLAN[:-2], "--device", "cuda") == 0
    assert bench.out.splitlines()[0] == "suite suite, model small, device cuda (not on this machine)"
    assert "time: about ? of training" in bench.out
    assert "give its speed, as in --speed 400TFLOPS" in bench.out
    assert "bench run refuses this here: no device cuda" in bench.out
    assert bench(*PLAN[:-2], "--speed", "400TFLOPS") == 0
    assert bench.out.splitlines()[0] == "suite suite, model small, device cuda (not on this machine)"
    assert "?" not in bench.out
    assert bench(*PLAN, "--speed", "400") == 2
    assert bench.err == "error: --speed 400: expected a number and GFLOPS, TFLOPS, PFLOPS, as in 400TFLOPS\n"


def test_tasks_that_fit_no_dataset_are_one_line(bench: Bench) -> None:
    names = [f"copy{number}" for number in range(7)]
    for name in names:
        source = {key: value for key, value in CARD["source"]["columns"].items() if key != "text"}  # type: ignore[index]
        card = CARD | {"source": CARD["source"] | {"columns": source}}  # type: ignore[operator]
        (bench.folder / f"{name}.yaml").write_text(yaml.safe_dump(card))
    for number, named in ((7, "7 datasets"), (2, "copy0, copy1")):
        edit(bench.folder / "suite.yaml", datasets=["squares.yaml", *(f"{name}.yaml" for name in names[:number])])
        assert bench(*PLAN) == 0
        assert [line for line in bench.out.splitlines() if "left out" in line] == [
            f"left out: retrieval on {named}: the dataset has no text"
        ]


def test_a_line_names_what_varies_and_not_what_all_share(bench: Bench) -> None:
    options = ["--budget", "samples=96", "--grid", "training.batch_size=16,32"]
    assert bench(*PLAN, *options) == 0, bench.err
    for arm in ("clip", "msd"):
        for size in (16, 32):
            assert re.search(
                rf"^{arm} +1 train.*\n.*batch_size={size}|^{arm} .*batch_size={size} +1 train", bench.out, re.M
            )
    assert "training.samples=96" not in bench.out


@pytest.mark.parametrize(
    ("available", "said"),
    [(10**12, ", the whole batch in one graph"), (None, ", as it is not known how much memory there is")],
)
def test_how_auto_divides_a_batch(bench: Bench, available: int | None, said: str) -> None:
    bench.monkeypatch.setattr("benchmark.plan.estimate.available_memory", lambda _: available)
    assert bench(*PLAN, "--speed", "2TFLOPS", "--set", "training.micro_batch=auto") == 0, bench.err
    for arm in ("clip", "msd"):
        assert re.search(rf"^{arm}: micro_batch auto is \d+{said}$", bench.out, re.MULTILINE)
