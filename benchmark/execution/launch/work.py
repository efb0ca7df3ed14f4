"""What a worker does: make the plan of a launch anew, and carry out the cells of it that nobody else works on.

``python -m benchmark.execution.launch.work LAUNCH.json NUMBER MODE`` is a worker process of the local launcher. It
stops at a checkpoint when its standard input ends, as that says that the process that started it is gone.
"""

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from benchmark.common.errors import BenchError, kept_alive, raised_in, said
from benchmark.common.interrupts import INTERRUPTED, STOPPED, StoppedError, stoppable
from benchmark.common.progress import Progress
from benchmark.common.text import Terminal
from benchmark.common.tracking import Tracking
from benchmark.config.schema import RunConfig
from benchmark.config.validation import validated
from benchmark.execution.launch.launcher import Ended, Job, LaunchRecord, Unit
from benchmark.execution.runner import Outcome, Share, run
from benchmark.plan.make import make_plan
from benchmark.registry import load_files
from benchmark.store.store import Store


def carry_out(job: Job, units: Sequence[Unit], worker: str, mode: str = "lines", wait: bool = False) -> Ended:
    """Carry out the cells of some units, as far as no other process works on them; return how it ended.

    Sets environment variables and the working directory of this process. worker: its name, for messages. mode: of
    ``Progress``. wait: whether to wait for what other processes are working on, and to go on with it if they die.
    """
    os.environ.update(job.environment)
    if job.folder.is_dir():
        os.chdir(job.folder)
    try:
        with kept_alive(), stoppable(), Progress(Terminal(), mode, job.results / "run.log", name=worker) as progress:
            outcome = _carry_out(job, units, worker, progress, wait)
    except StoppedError as stopped:
        return Ended(STOPPED, reason=f"stopped by {stopped} at a checkpoint", signal=str(stopped))
    except KeyboardInterrupt:
        return Ended(INTERRUPTED, reason="interrupted")
    except BenchError as error:
        return Ended(2, reason=str(error))
    except BaseException as error:
        return Ended(2, reason=f"{said(error)} ({raised_in(error)})")
    status = 1 if outcome.failures else 0
    return Ended(status, outcome.trained, outcome.evaluated, outcome.elsewhere, outcome.failures)


def _carry_out(job: Job, units: Sequence[Unit], worker: str, progress: Progress, wait: bool) -> Outcome:
    load_files(job.plugins)
    plan = make_plan(validated(RunConfig, job.config, "the configuration of the launch"))
    chosen = {unit.cell for unit in units}
    plan.cells = [cell for cell in plan.cells if cell.key in chosen]
    plan.fixed = [fixed for fixed in plan.fixed if fixed.key in chosen]
    plan.pairs = [pair for pair in plan.pairs if pair.dataset not in job.left_out]
    if unknown := chosen - {cell.key for cell in plan.cells} - {fixed.key for fixed in plan.fixed}:
        raise BenchError(
            f"{len(unknown)} of {len(chosen)} cells are not those of the launch: the code, the data or the machine "
            "differ from where it was started; run bench run again"
        )
    store = Store(job.results)
    work = [work for unit in units for work in unit.work]
    share = Share(job.id, worker, work, job.launch_folder / "failed")
    tracking = Tracking.of(job.track, store.folder / "tracking", lambda text: progress.print(text, "yellow"))
    return run(plan, store, progress, tracking=tracking, wait=wait, share=share)


def main(path: str, number: str, mode: str) -> int:
    """Be the worker process with a number; return its exit status."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="the process that started this", daemon=True).start()
    launch = LaunchRecord.model_validate_json(Path(path).read_bytes())
    ended = carry_out(launch.job, launch.units, f"worker {number}", mode, wait=True)
    if ended.reason:
        Terminal().print(f"worker {number}: {ended.reason}", highlight=False, markup=False, soft_wrap=True)
    return ended.status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
