"""Measure the CPU seconds of claiming, of `bench status` and of the check at the start of a run for 1,000 cells."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.cli.status import status
from benchmark.execution.launch.launcher import Job, LaunchRecord, Unit
from benchmark.store.claim import Claim, claim
from benchmark.store.files import digests, write_json, write_record
from benchmark.store.live import Recorder, Work
from benchmark.store.store import Store
from benchmark.training.checkpoint import TEMPORARY

CELLS, EVALUATIONS, WORKERS = 1000, 10, 4
CHECKED = 3
"""Evaluations of each finished cell that the start of a run checks: four metrics, 500 examples, 1,000 resamples."""


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print the CPU seconds of this process while the block runs."""
    began = time.process_time()
    yield
    print(f"{what}: {time.process_time() - began:.2f} s of CPU")


def finish_cells(store: Store, keys: list[str], evaluations: list[str]) -> None:
    """Write finished cells with their evaluations, all copies of one."""
    first, rng = keys[0], np.random.default_rng(0)
    metrics = [f"metric{number}" for number in range(4)]
    store.cell(first).mkdir(parents=True)
    for each in evaluations:
        rows: list[Any] = [
            {"suite": "suite", "arm": "arm", "seed": 0, "metric": metric, "value": 0.5, "low": 0.4, "high": 0.6}
            for metric in metrics
        ]
        examples = {"": {"id": np.arange(500), "score": rng.random((500, 3))}}
        resamples = {"": {metric: rng.random((1, 1000)) for metric in metrics}}
        store.add_evaluation(first, each, {"task": each}, rows, examples, resamples, {"": {"definitions": {}}})
    write_json(store.cell(first) / "cell.json", {"label": {"suite": "suite", "arm": "arm", "seed": 0}})
    write_record(store.cell(first) / "cost.json", {"seconds": 1.0}, files=digests(store.cell(first)))
    for key in keys[1:]:
        shutil.copytree(store.cell(first), store.cell(key))


with tempfile.TemporaryDirectory() as name:
    store, keys = Store(Path(name)), [f"{number:016x}" for number in range(CELLS)]
    units = []
    for number, key in enumerate(keys):
        work = [
            Work(cell=key, name=f"arm seed {number}", arm="arm", kind="training", estimated=60.0),
            Work(cell=key, name=f"arm seed {number}", arm="arm", kind="evaluation", total=EVALUATIONS, estimated=9.0),
        ]
        evaluations = [f"task-{each}-0123456789abcdef" for each in range(EVALUATIONS)]
        units.append(Unit(cell=key, name=f"arm seed {number}", device="cpu", work=work, evaluations=evaluations))
        if number < CELLS // 2:
            for each in evaluations:
                folder = store.evaluation_folder(key, each)
                folder.mkdir(parents=True)
                (folder / "rows.json").write_text("[]")
            (store.cell(key) / "cost.json").write_text("{}")
    with timed(f"claiming {CELLS} cells, checking each claim twice, giving it up"):
        for key in keys:
            claimed = claim(store.cell(key))
            assert isinstance(claimed, Claim)
            claimed.check()
            claimed.check()
            claimed.release()
    with timed(f"a claim on each of {EVALUATIONS} evaluations of {CELLS // 2} cells"):
        for key in keys[: CELLS // 2]:
            for each in units[0].evaluations:
                claimed = claim(store.evaluation_folder(key, each))
                assert isinstance(claimed, Claim)
                claimed.check()
                claimed.release()
    job = Job(id="launch", config={}, device="cpu", results=store.folder, folder=store.folder)
    record = LaunchRecord(
        launcher="local", options={}, job=job, units=units, host="", process=os.getpid(), started=time.time()
    )
    (job.launch_folder / "failed").mkdir(parents=True)
    (job.launch_folder / "launch.json").write_text(record.model_dump_json())
    recorders = [Recorder(store.folder, "suite", "model", "cpu") for _ in range(WORKERS)]
    for recorder in recorders:
        recorder.record.launch = "launch"
        recorder.set_work([work.model_copy() for unit in units for work in unit.work])
    held = [claim(store.cell(key)) for key in keys[-WORKERS:]]
    with timed("bench status"):
        status(store.folder)
    with timed(f"the records of {WORKERS} workers, over all cells"):
        for number, key in enumerate(keys):
            recorder = recorders[number % WORKERS]
            with recorder.running(key, "training"):
                pass
            with recorder.running(key, "evaluation") as work:
                for _ in range(EVALUATIONS):
                    recorder.evaluated(work, failed=False)
    finished, evaluations = Store(Path(name) / "finished"), units[0].evaluations[:CHECKED]
    finish_cells(finished, keys, evaluations)
    with timed(f"the check of {CHECKED} evaluations of {CELLS} finished cells at the start of a run"):
        for key in keys:
            assert finished.finished(key)
            finished.tidy(key, TEMPORARY)
            finished.set_aside_damaged(key, evaluations)
