"""`bench perf --gpu` on the CPU at a tiny size: that the pieces run, and that what is stopped keeps its results."""

import json
import sys
import time
from typing import Any

import pytest

from benchmark.cli.main import main
from benchmark.perf import gpu
from benchmark.perf.gpu import PIECES, SIZES, Piece, measured, page

TINY = SIZES["tiny"]


def test_steps_stand_beside_their_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "METHOD_NAMES", ("msd",))
    (msd,) = gpu.steps(TINY)
    assert msd["accumulation"] == "keyed"
    assert msd["limit"] == pytest.approx(msd["teraflops"] / msd["rate_of_a_product"])
    assert msd["x_limit"] == pytest.approx(msd["seconds"] / msd["limit"])
    assert msd["pairs_per_second"] == pytest.approx(TINY.batch / msd["seconds"])
    json.dumps(msd)


def test_a_step_that_does_not_fit_is_taken_in_smaller_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def timed(method: object, pairs: object, training: Any, device: object) -> tuple[Any, Any]:
        tried.append(training.micro_batch)
        if training.micro_batch > 1:
            raise gpu.torch.OutOfMemoryError
        cost = {"flops_per_sample": 1e9, "accumulation": "cached", "precision": "fp32", "peak_memory": 5}
        return {"wall": 2.0, "cpu": 1.0}, cost

    monkeypatch.setattr(gpu, "timed_training", timed)
    assert gpu._step("clip", TINY, 1e9, 4, 4, {})["micro_batch"] == 1
    assert tried == [4, 2, 1]
    monkeypatch.setattr(gpu, "timed_training", lambda *_: 1 / 0)
    assert gpu._step("clip", TINY, 1e9, 4, 4, {})["failed"] == "ZeroDivisionError: division by zero"


def test_memory_is_measured_by_micro_batch_and_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(name: str, size: object, rate: float, batch: int, micro_batch: int, *rest: object) -> dict[str, int]:
        return {"batch": batch, "micro": micro_batch}

    monkeypatch.setattr(gpu, "_step", step)
    results = [(result["batch"], result["micro"]) for result in gpu.memory(TINY)]
    assert results == [(4, 2), (4, 4), (8, 2), (16, 2)]


@pytest.mark.parametrize(("piece", "count"), [("retrieval", 2), ("probe", 3)])
def test_the_pieces_run(piece: str, count: int) -> None:
    results = list(PIECES[piece].measure(TINY))
    assert len(results) == count
    assert all(result["seconds"] > 0 for result in results), results
    json.dumps(results)


def test_the_script_takes_less_than_eight_minutes() -> None:
    assert sum(piece.budget for piece in PIECES.values()) < 8 * 60


SCRIPT = """
import sys, time
print('{"first": 1.5}', flush=True)
if sys.argv[1] == "slow": time.sleep(60)
print("no result", flush=True)
print('{"second": 2, "memory": 3000000000}', flush=True)
if sys.argv[1] == "broken": sys.exit("it broke")
"""


def test_what_is_stopped_keeps_its_results() -> None:
    saved: list[Any] = []
    pieces = {name: Piece(budget, iter) for name, budget in (("slow", 0.5), ("broken", 20), ("good", 20))}  # type: ignore[arg-type]
    began = time.monotonic()
    done = measured(
        "tiny", lambda now: saved.append(json.loads(json.dumps(now))), pieces, [sys.executable, "-c", SCRIPT]
    )
    assert time.monotonic() - began < 20
    first, second = {"first": 1.5}, {"second": 2, "memory": 3_000_000_000}
    assert {name: each["results"] for name, each in done.items()} == {
        "slow": [first],
        "broken": [first, second],
        "good": [first, second],
    }
    assert [each["ended"] for each in done.values()] == ["stopped after its 0.5 seconds", "failed: it broke", "whole"]
    # What is there is saved at once, and says that the script itself was stopped if nothing is saved after it.
    assert saved[0]["slow"] == {"results": [first], "seconds": saved[0]["slow"]["seconds"], "ended": gpu.STOPPED}
    machine = {"gpu": "G", "cores": 1, "torch": "2"}
    text = page({"machine": machine, "date": "d", "commit": "c", "command": "bench perf --gpu", "pieces": done})
    assert (
        "## slow: stopped after its 0.5 seconds, 0 s" in text or "## slow: stopped after its 0.5 seconds, 1 s" in text
    )
    assert "| first | second | memory |\n|---|---|---|\n| 1.50 |  |  |\n|  | 2 | 3.00 GB |" in text


def test_without_a_gpu_there_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["bench", "perf", "--gpu"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "error: bench perf --gpu: there is no CUDA device here (torch.cuda.is_available() is false)\n"
    )
