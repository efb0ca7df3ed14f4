"""What a user sees of a run that is piped, and how the program ends."""

import os
import re
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from benchmark.cli.options import RunOptions, takes_options
from benchmark.common.errors import BenchError
from tests.squares import Bench

BENCH = "import benchmark.cli.main as cli; cli.main()"


def test_a_piped_run_says_what_it_does_when_it_does_it(squares: Path, tmp_path: Path) -> None:
    quick = [
        "--suite",
        str(squares / "suite.yaml"),
        "--methods",
        "clip",
        "--tasks",
        "zero_shot",
        "--budget",
        "steps=20",
    ]
    environment = os.environ | {"BENCH_CACHE": str(tmp_path / "cache"), "BENCH_RESULTS": str(tmp_path / "results")}
    run = subprocess.Popen(
        [sys.executable, "-c", BENCH, "run", *quick], env=environment, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert run.stdout
    lines = [(time.time(), line.rstrip("\n")) for line in run.stdout]
    assert run.wait(timeout=60) == 0
    texts = [text for _, text in lines]
    assert all(text.strip() for text in texts), texts
    stages = ["checking squares", "[1/1] clip, seed 0: training", "[1/1] clip, seed 0: evaluating"]
    assert [text for text in texts if text in stages] == stages
    assert [text.partition(": done in")[0] for text in texts if ": done in" in text] == stages
    assert texts[-2].startswith("trained 1, evaluated 1, done before 0, failed 0; results in ")

    logged = [line.split(" ", 2) for line in (tmp_path / "results" / "run.log").read_text().splitlines()]
    assert [text for _, _, text in logged] == texts[:-1]
    assert texts[-1] == "next: bench report"
    for (arrived, _), (day, clock, _) in zip(lines, logged):
        assert arrived - datetime.fromisoformat(f"{day} {clock}").timestamp() < 2  # to the second: at once


def test_progress_can_be_turned_off(bench: Bench) -> None:
    quick = ["--suite", "suite.yaml", "--methods", "clip", "--tasks", "zero_shot", "--budget", "steps=20"]
    assert bench("run", *quick, "--progress", "none") == 0
    assert not re.search("checking|: training|evaluating", bench.out)
    assert "trained 1, evaluated 1" in bench.out
    assert "clip, seed 0: training: done in" in (bench.folder / "results" / "run.log").read_text()
    assert bench("run", *quick, "--progress", "line") == 2
    assert "unknown value of --progress 'line'; did you mean 'lines'?" in bench.err
    assert bench("data", "check", "squares.yaml") == 0
    assert bench.out.splitlines()[0] == "checking squares.yaml"
    assert bench("data", "check", "squares.yaml", "--progress", "none") == 0
    assert len(bench.out.splitlines()) == 1


def test_a_reader_that_goes_is_no_error(tmp_path: Path) -> None:
    printing = "import benchmark.cli.main as cli; cli.app = lambda **_: [print(i) for i in range(10**6)]; cli.main()"
    for code, command in ((BENCH, "list datasets"), (BENCH, "list models"), (printing, "")):
        pipe = f"{sys.executable} -c '{code}' {command} | head -c 1"
        done = subprocess.run(["bash", "-c", pipe], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.stderr == ""


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [(BenchError("row 3: no image"), 2, "error: row 3: no image\n"), (KeyboardInterrupt(), 130, "")],
)
def test_how_the_program_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, message: str
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr("benchmark.cli.main.app", fail)
    assert bench("list", "methods") == status
    assert bench.err == message


def test_usage_errors_show_themselves(bench: Bench) -> None:
    assert bench("run", "--metods", "clip") == 2
    assert "No such option" in bench.err
    assert "--methods" in bench.err


def test_options_are_collected_and_keep_their_defaults() -> None:
    calls = []

    @takes_options("suite", "seeds")
    def command(options: RunOptions, own: int = 3) -> None:
        calls.append((options, own))

    command(suite="mine", seeds=2, own=4)
    assert calls == [(RunOptions(suite="mine", seeds=2), 4)]
    with pytest.raises(KeyError):
        command(suite="mine")
