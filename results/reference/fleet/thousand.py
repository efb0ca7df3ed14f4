"""Measure the CPU seconds of claiming and of `bench status` for 1,000 cells."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmark.cli.status import status
from benchmark.execution.launch.launcher import Job, LaunchRecord, Unit
from benchmark.store.claim import Claim, claim
from benchmark.store.live import Recorder, Work
from benchmark.store.store import Store

CELLS, EVALUATIONS, WORKERS = 1000, 10, 4


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print the CPU seconds of this process while the block runs."""
    began = time.process_time()
    yield
    print(f"{what}: {time.process_time() - began:.2f} s of CPU")


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
