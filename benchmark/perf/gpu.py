"""`bench perf --gpu`: what a GPU reaches of its limits, in pieces that each have a process and a budget of seconds.

``python -m benchmark.perf.gpu PIECE SIZE`` measures one piece and prints a line of JSON for each result at once, so
that a piece that is stopped keeps what it has measured.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import IO, Any

import numpy as np
import torch

import benchmark
from benchmark.common.errors import BenchError
from benchmark.method import METHODS, Method
from benchmark.models import build_model, load_model_card
from benchmark.perf.measure import Stopwatch, seconds
from benchmark.perf.peers import WORKS
from benchmark.perf.training import Words, noise, recipe, timed_training
from benchmark.task import TASKS

Result = dict[str, Any]
STOPPED = "stopped with the script"
METHOD_NAMES = ("clip", "msd", "captioning", "filip")


@dataclass(frozen=True)
class Size:
    """How large the pieces are. batches: of the memory by batch; shape: of the matrices whose product is timed."""

    device: str
    model: str
    precision: str
    batch: int
    batches: tuple[int, ...]
    steps: int
    shape: int
    queries: int
    candidates: int
    scale: float


SIZES = {
    "full": Size("cuda", "vit-b-16", "bf16", 512, (128, 256, 512, 1024), 5, 8192, 2_000, 1_000_000, 1.0),
    "tiny": Size("cpu", "tiny", "fp32", 4, (2, 4), 1, 64, 4, 50, 0.01),
}
"""``tiny`` shows on a CPU that the pieces run."""


@dataclass(frozen=True)
class Piece:
    """A part of the script. budget: seconds after which its process is stopped."""

    budget: float
    measure: Callable[[Size], Iterator[Result]]


def steps(size: Size, **settings: Any) -> Iterator[Result]:
    """Yield a training step of each method, beside the time that its operations take at the rate of a large product."""
    rate = matmul_rate(size)
    for name in METHOD_NAMES:
        yield {"method": name, **settings, **_step(name, size, rate, size.batch, size.batch, settings)}


def compiled(size: Size) -> Iterator[Result]:
    """Yield the steps with compiled towers."""
    yield from steps(size, compile=True)


def graphs(size: Size) -> Iterator[Result]:
    """Yield the steps with compiled towers that replay CUDA graphs."""
    import torch._inductor.config as inductor

    with inductor.patch({"triton.cudagraphs": True}):
        for result in steps(size, compile=True):
            yield {**result, "graphs": True}


def memory(size: Size) -> Iterator[Result]:
    """Yield memory and time of clip by micro-batch at one effective batch, and by effective batch."""
    rate, smallest = matmul_rate(size), size.batches[0]
    pairs = [(size.batch, micro) for micro in size.batches if micro <= size.batch]
    pairs += [(batch, smallest) for batch in (2 * size.batch, 4 * size.batch)]
    for batch, micro in pairs:
        yield {"method": METHOD_NAMES[0], **_step(METHOD_NAMES[0], size, rate, batch, micro, {}, 2)}


def matmul_rate(size: Size) -> float:
    """Measure the operations a second of a large matrix product in the precision of the steps."""
    dtype = torch.bfloat16 if size.precision == "bf16" else torch.float32
    left, right = torch.randn(2, size.shape, size.shape, device=size.device, dtype=dtype)
    best = 0.0
    for _ in range(3):
        watch = Stopwatch(torch.device(size.device)).start()
        for _ in range(10):
            left @ right
        best = max(best, 10 * 2 * size.shape**3 / watch.stop()["wall"])
    return best


def _step(
    name: str, size: Size, rate: float, batch: int, micro_batch: int, settings: Mapping[str, Any], count: int = 0
) -> Result:
    """Measure a step; with less memory than it takes, in smaller micro-batches."""
    device = torch.device(size.device)
    try:
        method: Method = METHODS[name](
            build_model(load_model_card(size.model), 0, weights=False), METHODS[name].Config()
        )
        text, image_size = method.model.text, method.model.image_size
        # Two batches, so that the next is read while one is trained on.
        loader = noise(2 * batch, image_size, Words(text.context_length - 1, min(1000, text.vocab_size)))
        training = recipe(count or size.steps, batch, micro_batch, precision=size.precision, **settings)
        taken, cost = timed_training(method, loader, training, device)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        if micro_batch == 1:
            return {"batch_size": batch, "micro_batch": 1, "failed": "out of memory"}
    except Exception as error:
        # A compiler that cannot do one method must not keep the others from being measured.
        return {"batch_size": batch, "micro_batch": micro_batch, "failed": f"{type(error).__name__}: {error}"[:300]}
    else:
        least = cost["flops_per_sample"] * batch / rate
        return {
            "batch_size": batch,
            "micro_batch": micro_batch,
            "accumulation": cost["accumulation"],
            "precision": cost["precision"],
            "seconds": taken["wall"],
            "pairs_per_second": batch / taken["wall"],
            "teraflops": cost["flops_per_sample"] * batch / 1e12,
            "rate_of_a_product": rate / 1e12,
            "limit": least,
            "x_limit": taken["wall"] / least,
            "memory": cost["peak_memory"],
        }
    return _step(name, size, rate, batch, micro_batch // 2, settings, count)


def retrieval(size: Size) -> Iterator[Result]:
    """Yield retrieval of all metrics among many candidates, for few and for ten times as many queries."""
    from scipy.sparse import csr_array

    measure = import_module(TASKS["retrieval"].__module__).measure
    device, torch_seeded = torch.device(size.device), torch.Generator().manual_seed(0)
    candidates = torch.nn.functional.normalize(torch.randn(size.candidates, 512, generator=torch_seeded)).numpy()
    for queries in (size.queries, 10 * size.queries):
        count = min(queries, size.candidates)
        right = csr_array((np.ones(count), (np.arange(count), np.arange(count))), (count, size.candidates))
        watch = Stopwatch(device).start()
        measured = measure(candidates[:count], candidates, right, [1, 5, 10], device)
        taken = watch.stop()
        yield {
            "queries": count,
            "candidates": size.candidates,
            "seconds": taken["wall"],
            "memory": taken["memory"],
            "recall@1": float(np.mean(measured.examples["recall@1"])),
        }


def probe(size: Size) -> Iterator[Result]:
    """Yield the fits of linear probes beside the matrix products that they consist of."""
    for name in ("probe", "folds"):
        work = WORKS[name]
        for side, do in zip(work.sides, work.build(size.scale)):
            if side != "peer":
                do()
                watch = Stopwatch(torch.device(size.device)).start()
                do()
                taken = watch.stop()
                yield {
                    "work": work.title,
                    "side": work.sides[side],
                    "seconds": taken["wall"],
                    "memory": taken.get("memory"),
                }


def gpu_tests(size: Size) -> Iterator[Result]:
    """Yield what the tests marked gpu say, one after the other."""
    root = Path(benchmark.__file__).parents[1]
    files = [path for path in sorted((root / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]
    if not files:
        yield {"skipped": "the tests are in a checkout"}
        return
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "-rfE", *map(str, files)]
    child = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert child.stdout
    for line in map(str.strip, child.stdout):
        if line.startswith(("FAILED", "ERROR")) or " passed" in line or " failed" in line or " skipped" in line:
            yield {"pytest": line}


PIECES = {
    "steps": Piece(75, steps),
    "memory": Piece(65, memory),
    "retrieval": Piece(40, retrieval),
    "probe": Piece(30, probe),
    "gpu_tests": Piece(60, gpu_tests),
    "compiled": Piece(100, compiled),
    "graphs": Piece(90, graphs),
}
"""In the order in which they are measured; together under eight minutes."""


def require_gpu() -> None:
    """Raise ``BenchError`` if there is no CUDA device."""
    if not torch.cuda.is_available():
        raise BenchError("bench perf --gpu: there is no CUDA device here (torch.cuda.is_available() is false)")


def measured(
    size: str,
    save: Callable[[dict[str, Any]], object],
    pieces: Mapping[str, Piece] = PIECES,
    command: Sequence[str] = (sys.executable, "-m", "benchmark.perf.gpu"),
) -> dict[str, Any]:
    """Measure the pieces; return their results by name.

    save: gets all that is measured so far, each time that there is more. command: what the names of a piece and of a
    size are added to.
    """
    done: dict[str, Any] = {}
    for name, piece in pieces.items():
        done[name] = {"results": [], "seconds": 0.0, "ended": STOPPED}
        began = time.monotonic()
        for result in _lines([*command, name, size], piece.budget, done[name]):
            done[name]["results"].append(result)
            done[name]["seconds"] = time.monotonic() - began
            save(done)
        done[name]["seconds"] = time.monotonic() - began
        save(done)
    return done


def _lines(command: Sequence[str], budget: float, state: dict[str, Any]) -> Iterator[Result]:
    """Yield what a process prints until it ends or its budget does, and say which in ``state["ended"]``."""
    queue: Queue[str | None] = Queue()
    errors: list[str] = []
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def read(stream: IO[str], keep: Callable[[str], object]) -> None:
        for line in stream:
            keep(line)

    def read_results(stream: IO[str]) -> None:
        read(stream, queue.put)
        queue.put(None)

    assert child.stdout
    assert child.stderr
    threads = [
        Thread(target=read_results, args=(child.stdout,), daemon=True),
        Thread(target=read, args=(child.stderr, lambda line: errors.append(line)), daemon=True),
    ]
    for thread in threads:
        thread.start()
    ends = time.monotonic() + budget
    try:
        while (line := queue.get(timeout=max(0.0, ends - time.monotonic()))) is not None:
            if line.startswith("{"):
                yield json.loads(line)
        status = child.wait()
        threads[1].join(1)
        last = next((line.strip() for line in reversed(errors) if line.strip()), "no output")
        state["ended"] = f"failed: {last}" if status else "whole"
    except Empty:
        state["ended"] = f"stopped after its {budget:g} seconds"
    finally:
        _stop(child)


def _stop(child: "subprocess.Popen[str]") -> None:
    """Stop a process, and the processes that it began."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def page(content: Mapping[str, Any]) -> str:
    """Write what ``bench perf --gpu`` found as Markdown."""
    machine = content["machine"]
    lines = [
        f"Made by `{content['command']}` on {content['date']} at commit {content['commit']}: {machine['gpu']}, "
        f"{machine['cores']} cores, torch {machine['torch']}. Inputs are noise and weights are random. The limit of a "
        "step is its floating-point operations divided by the rate of a large matrix product."
    ]
    for name, piece in content["pieces"].items():
        lines += ["", f"## {name}: {piece['ended']}, {piece['seconds']:.0f} s", ""]
        columns = list(dict.fromkeys(column for result in piece["results"] for column in result))
        if columns:
            lines += [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        lines += [f"| {' | '.join(_cell(c, result.get(c)) for c in columns)} |" for result in piece["results"]]
    return "\n".join(lines) + "\n"


def _cell(column: str, value: object) -> str:
    if column == "memory" and isinstance(value, int):
        return f"{value / 1e9:.2f} GB"
    if isinstance(value, float):
        return seconds(value)
    return "" if value is None else str(value).replace("|", "/")


if __name__ == "__main__":
    for result in PIECES[sys.argv[1]].measure(SIZES[sys.argv[2]]):
        print(json.dumps(result), flush=True)
