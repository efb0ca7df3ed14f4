"""Fixtures and hooks of all tests, for the processes that run them."""

import gc
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from benchmark.config.training import BUDGETS, Recipe, Training
from benchmark.data.batch import Batch
from benchmark.method import METHODS, Method
from benchmark.task import TASKS
from benchmark.training import cost, loop
from tests.squares import Bench, write_squares

# A busy machine is no fault of the code.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")

PACK = Path(os.environ.get("BENCH_DATA") or Path(__file__).parents[2] / "shared" / "data").absolute()

OF_NO_STEP = {*Recipe.model_fields, *BUDGETS, "validations", "checkpoint_every", "average", "mixture"}
"""Settings of a training on which the operations of a step do not depend."""

frozen = 0
"""Modules that were imported when the collector last froze its objects."""


def freeze_libraries():
    """A full collection need not search the libraries each time."""
    global frozen
    gc.freeze()
    frozen = len(sys.modules)


# Importing makes objects that stay: searching them for garbage again and again takes a tenth of that time.
gc.disable()


def pytest_collection_finish():
    METHODS.names()
    freeze_libraries()
    # A search after every 700 objects finds next to nothing.
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown():
    """Torch and others import parts of themselves, thousands of modules, when they are first needed."""
    if len(sys.modules) > frozen + 20:
        gc.collect()
        freeze_libraries()


def pytest_unconfigure():
    gc.unfreeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Nothing of a test ends up in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("BENCH_DATA", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _operations_counted_once():
    """Of trainings alike, the first counts its operations; tests of the count itself call ``counted_each_time``."""
    counts: dict[tuple[object, ...], dict[str, float]] = {}

    def flops_by_stage(method: Method, sample: Batch, training: Training, kept: float = 0.0) -> dict[str, float]:
        parts = [(name, type(part)) for name, part in method.named_modules()]
        shapes = [(name, each.shape, each.requires_grad) for name, each in method.named_parameters()]
        buffers = [(name, each.shape, each.item() if each.ndim == 0 else None) for name, each in method.named_buffers()]
        pair = (sample.image.shape, sample.tokens.shape, sample.image_size, sample.augmentation)
        of_a_step = training.model_dump(exclude=OF_NO_STEP)
        key = (type(method), str((method.config, parts, shapes, buffers, pair, of_a_step, kept)))
        if key not in counts:
            counts[key] = cost.flops_by_stage(method, sample, training, kept)
        method.enter(list(method.stages())[-1])
        return counts[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "flops_by_stage", flops_by_stage)
        yield


@pytest.fixture(scope="session", autouse=True)
def _files_of_tests_outlive_no_power_failure():
    """Waiting for the disk takes a tenth of the time of all tests; what is synced, and when, is a test of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def counted_each_time(monkeypatch):
    monkeypatch.setattr(loop, "flops_by_stage", cost.flops_by_stage)


@pytest.fixture
def not_counted(monkeypatch):
    """For tests that do not look at what a training cost: counting takes longer than a few steps."""
    monkeypatch.setattr(loop, "flops_by_stage", lambda method, *_: dict.fromkeys(method.stages(), 1.0))


@pytest.fixture(autouse=True)
def _own_registrations():
    """What a test's plug-ins register does not outlive it: another test may load a file of the same name."""
    before = {registry: dict(registry._classes) for registry in (METHODS, TASKS)}
    yield
    for registry, classes in before.items():
        # Registering what is installed is remembered and stays.
        kept = {name: cls for name, cls in registry._classes.items() if cls.__module__.startswith("benchmark.")}
        registry._classes.clear()
        registry._classes.update(classes | kept)


@pytest.fixture
def pack(monkeypatch):
    """The folder of the real data that the cards in configs/datasets/pack describe."""
    if not (PACK / "pretrain" / "slake_captions.jsonl").is_file():
        pytest.skip("the real data are not there: set BENCH_DATA to their folder")
    monkeypatch.setenv("BENCH_DATA", str(PACK))
    return PACK


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the squares, their cards, a suite and a plug-in. Read only: ``bench`` works in a copy."""
    folder = tmp_path_factory.mktemp("squares")
    write_squares(folder)
    return folder


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that all processes of a test run share, as a user's do: what plans counted is not counted in each."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache-of-squares"


@pytest.fixture
def bench(
    squares: Path,
    shared_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Bench:
    work = tmp_path / "work"
    shutil.copytree(squares, work)
    monkeypatch.chdir(work)
    monkeypatch.setenv("BENCH_CACHE", str(shared_cache))
    monkeypatch.delenv("BENCH_RESULTS", raising=False)
    monkeypatch.setattr("benchmark.cli.options.console._width", 80)
    return Bench(work, monkeypatch, capsys)


@pytest.fixture
def suite(squares: Path, shared_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the squares to plan runs of: see tests.squares.planned."""
    monkeypatch.setenv("BENCH_CACHE", str(shared_cache))
    return Path(shutil.copytree(squares, tmp_path / "squares"))


@pytest.fixture
def sigint() -> Iterator[None]:
    """Python's own handler, which a test run started in the background does not have."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, old)
