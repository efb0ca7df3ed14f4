"""Look at the installation, results folders and the cache, and say what is wrong. Nothing is changed or repaired."""

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from benchmark.common.errors import BenchError, listed, plural
from benchmark.common.text import readable_size
from benchmark.data.prepared import check_prepared
from benchmark.store.cleaning import CACHED
from benchmark.store.health import Health, cache_health, results_health
from benchmark.store.store import Store, why_unwritable

DISTRIBUTION = "contrastive-benchmark"
DEVELOPMENT = "dev"
"""The extra that only those need who change the harness."""
LITTLE = 1 << 30
"""Free bytes of a disk below which it is mentioned."""
SHOWN = 10
"""The most damaged parts that are listed one by one."""
FOLDERS = {"BENCH_DATA": "data", "BENCH_RESULTS": "results", "BENCH_CACHE": "the cache"}
"""Environment variables that name folders, and of what."""

State = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, in words. state: note: costs space or time, not results."""

    state: State
    text: str


def look_at_installation() -> Iterator[Finding]:
    """Look at Python, the libraries, plug-ins, the accelerator and the environment variables."""
    import torch

    from benchmark.plan.resolve import resolve_device
    from benchmark.registry import installed_plugins, load_plugins

    yield Finding("ok", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    yield from _libraries()
    try:
        load_plugins()
        yield Finding("ok", f"plug-ins: {listed(f'{name} ({module})' for name, module in installed_plugins())}")
    except BenchError as error:
        yield Finding("wrong", str(error))
    device = resolve_device("auto")
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        count = torch.cuda.device_count()
        yield Finding("ok", f"{plural(count, 'GPU')}: {name}, {readable_size(free)} of {readable_size(total)} free")
    elif Path("/proc/driver/nvidia").exists():
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
        yield Finding("wrong", f"there is an NVIDIA driver, but PyTorch sees no GPU: torch {torch.__version__} {built}")
    else:
        kind = "no GPU" if device.type == "cpu" else f"device {device.type}"
        threads = plural(torch.get_num_threads(), "thread")
        yield Finding("ok" if device.type == "mps" else "note", f"{kind}: PyTorch uses {device} with {threads}")
    for variable, what in FOLDERS.items():
        if value := os.environ.get(variable):
            missing = not Path(value).expanduser().is_dir() and variable == "BENCH_DATA"
            state: State = "wrong" if missing else "ok"
            yield Finding(state, f"{variable}: {what} in {value}" + (", which is not a folder" if missing else ""))


def _libraries() -> Iterator[Finding]:
    try:
        stated = [Requirement(each) for each in requires(DISTRIBUTION) or []]
    except PackageNotFoundError:
        yield Finding("note", f"{DISTRIBUTION} is not installed, only imported: versions of libraries are not compared")
        return
    needed = [each for each in stated if each.marker is None or each.marker.evaluate({"extra": ""})]
    wrong = {each: problem for each in needed if (problem := _problem(each))}
    yield from (Finding("wrong", f"{problem}; pip install '{each}'") for each, problem in wrong.items())
    if not wrong:
        yield Finding("ok", f"{plural(len(needed), 'package')} as required, torch {version('torch')} among them")
    for extra in metadata(DISTRIBUTION).get_all("Provides-Extra") or []:
        if extra == DEVELOPMENT:
            continue
        parts = [
            each for each in stated if each.marker and each not in needed and each.marker.evaluate({"extra": extra})
        ]
        lacking = [each.name for each in parts if _problem(each)]
        text = f"extra {extra}: " + (f"without {listed(lacking)}" if lacking else "installed")
        yield Finding("note" if lacking else "ok", text)


def _problem(needed: Requirement) -> str:
    """Say what is wrong with the installed version of a library; empty if it is as required."""
    try:
        installed = version(needed.name)
    except PackageNotFoundError:
        return f"library {needed.name} is not installed"
    if not needed.specifier.contains(installed, prereleases=True):
        return f"library {needed.name} has version {installed}, expected {needed.specifier}"
    return ""


def look_at_results(folder: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> Iterator[Finding]:
    """Look at a results folder: whether it can be written to, and whether its files are what was written."""
    if not os.path.lexists(folder):
        yield Finding("note", f"{folder} is not there yet: bench run makes it")
        return
    if not folder.is_dir():
        yield Finding("wrong", f"{folder} is a file, not a folder; choose another with --results")
        return
    yield from _disk(folder, "choose another folder with --results")
    health = results_health(Store(folder), progress)
    cells, evaluations = plural(health.cells, "cell"), plural(health.evaluations, "evaluation")
    yield from _state(
        health, f"{cells} and {evaluations}", "bench run goes on with it, bench clean --partial removes it"
    )


def look_at_cache(cache: Path, every_image: bool = False) -> Iterator[Finding]:
    """Look at the cache. every_image: read each prepared image too, and not only the lists of them."""
    if not cache.is_dir():
        yield Finding("note", f"{cache} is not there yet: the first run makes it")
        return
    yield from _disk(cache, "set BENCH_CACHE to another folder")
    health = cache_health(cache, CACHED, {"prepared": partial(check_prepared, images=every_image)})
    yield from _state(health, "", "the next run that needs it goes on with it, bench clean --cache removes it")


def _disk(folder: Path, instead: str) -> Iterator[Finding]:
    if reason := why_unwritable(folder):
        yield Finding("wrong", f"{folder} {reason}; {instead}")
    free = shutil.disk_usage(folder).free
    yield Finding("note" if free < LITTLE else "ok", f"{folder}: {readable_size(free)} free on its disk")


def _state(health: Health, of: str, begun: str) -> Iterator[Finding]:
    for error in health.damaged[:SHOWN]:
        yield Finding("wrong", str(error))
    if (more := len(health.damaged) - SHOWN) > 0:
        yield Finding("wrong", f"{plural(more, 'more part')} damaged")
    yield Finding("ok", f"{of}{': ' if of else ''}{plural(health.files, 'file')} with the content that was written")
    if health.unchecked:
        yield Finding("note", f"{plural(health.unchecked, 'part')} of an earlier version, which wrote no digests")
    for name, owner in sorted(health.worked_on.items())[:SHOWN]:
        yield Finding("ok", f"{name}: worked on by {owner}")
    if health.begun:
        size = readable_size(sum(health.begun.values()))
        yield Finding("note", f"{plural(len(health.begun), 'unfinished folder')}, {size}: {begun}")
    if health.aside:
        size = readable_size(sum(health.aside.values()))
        what = plural(len(health.aside), "damaged part")
        yield Finding("note", f"{what} set aside, {size}: made again since; bench clean --partial removes them")
