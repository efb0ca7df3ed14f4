"""Carry out a plan: train its cells, evaluate its pairs. Finished work is skipped; a failure does not stop the rest."""

import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmark.common.errors import BenchError, MachineError, explained, plural, said
from benchmark.common.hub import hub_answers
from benchmark.common.progress import Progress
from benchmark.common.text import shorten
from benchmark.common.tracking import Tracking
from benchmark.config.training import checkpoint_at
from benchmark.data.card import load_card
from benchmark.data.check import check
from benchmark.evaluation.encoder import Encoder
from benchmark.evaluation.evaluation import Evaluation
from benchmark.evaluation.fixed import FixedEncoder
from benchmark.execution.materials import Materials, load_trained
from benchmark.execution.measure import measure
from benchmark.models import DualEncoder
from benchmark.models.download import to_download
from benchmark.plan.cautions import cautions_of
from benchmark.plan.estimate import Estimator
from benchmark.plan.plan import Cell, Pair, Plan
from benchmark.store.cache import cache_root
from benchmark.store.claim import Claim, ClaimLostError, Owner, claim, wait_for
from benchmark.store.live import Recorder, Work
from benchmark.store.rows import CourseColumns
from benchmark.store.store import Store
from benchmark.training.loop import StepProgress
from benchmark.training.schedule import check_batch

TWINS_OF = 10_000
"""The pairs among which identical texts are counted, in whole batches, at least one."""
C = TypeVar("C", Cell, FixedEncoder)


@dataclass
class Outcome:
    """What a run did: counts of cells and evaluations, and a line for each failure.

    elsewhere: what other processes did meanwhile, or are doing.
    """

    trained: int = 0
    evaluated: int = 0
    skipped: int = 0
    elsewhere: int = 0
    failures: list[str] = field(default_factory=list)


def run(
    plan: Plan,
    store: Store,
    progress: Progress,
    cache: Path | None = None,
    tracking: Tracking | None = None,
    wait: bool = True,
) -> Outcome:
    """Train the plan's cells and evaluate its pairs on them, skipping what the store holds.

    A record of the run in the store says what is done and left. tracking: gets what is logged. wait: whether to wait
    for what other processes are working on, and to go on with it if they die; otherwise it is left to them.

    Raises ``BenchError`` before any training for a plan with problems, bad data, or a batch larger than the data. A
    cell or an evaluation that fails is recorded in the outcome and does not stop the others.
    """
    if plan.problems:
        raise BenchError("\n".join(plan.problems))
    runner = Runner(plan, store, progress, cache or cache_root(), tracking or Tracking())
    with runner.recorder:
        return runner.run(wait)


class Runner:
    """The state of a run: its plan, its materials, its record and its outcome so far."""

    def __init__(self, plan: Plan, store: Store, progress: Progress, cache: Path, tracking: Tracking) -> None:
        self.plan, self.store, self.progress, self.cache, self.tracking = plan, store, progress, cache, tracking
        self.materials = Materials(plan, progress, cache)
        self.outcome = Outcome()
        named = (plan.config.suite, plan.model.name, str(plan.device))
        self.recorder = Recorder(store.folder, *named, progress.doing, lambda text: progress.print(text, "yellow"))
        # The same list: the record has those to come too.
        self.recorder.record.warnings = progress.warnings
        self._fixed: dict[str, Encoder] = {}

    def run(self, wait: bool) -> Outcome:
        """Check everything, train and evaluate the cells in turn, then evaluate the encoders without training.

        What other processes are working on comes last.
        """
        plan, store = self.plan, self.store
        untrained = [cell for cell in plan.cells if not store.finished(cell.key)]
        cells: list[Cell | FixedEncoder] = [*plan.cells, *plan.fixed]
        for name in plan.absent:
            self.recorder.leave_out(name)
        self.recorder.set_work(self.work())
        if untrained or any(plan.missing(store, cell) for cell in cells):
            self.check(untrained)
            self.recorder.set_work(self.work(Estimator(plan, store.costs())))
        several = len({cell.pretraining for cell in plan.cells}) > 1
        names = []
        for number, cell in enumerate(plan.cells, 1):
            where = f" on {', '.join(cell.pretraining)}" if several else ""
            names.append(f"[{number}/{len(plan.cells)}] {cell.arm}{where}, seed {cell.seed}")
        for number, fixed in enumerate(plan.fixed, 1):
            names.append(f"[{number}/{len(plan.fixed)}] {fixed.name}, seed {fixed.seed}")
        self.outcome.skipped = len(plan.cells) - len(untrained)
        self.outcome.skipped += sum(len(plan.pairs_of(each)) - len(plan.missing(store, each)) for each in cells)
        left = [each for each in zip(cells, names) if not self.carry_out(*each, wait=False)]
        while left and wait:
            left = [each for each in left if not self.carry_out(*each, wait=True)]
        return self.outcome

    def carry_out(self, cell: Cell | FixedEncoder, name: str, wait: bool) -> bool:
        """Train and evaluate a cell; return False if another process works on it.

        wait: whether to wait for that, and to go on with what it leaves.
        """
        done = True
        with self.recording_failures(name), self.tracked(cell):
            try:
                if isinstance(cell, Cell):
                    done = self.train(cell, name, wait) and self.evaluate(cell, name, self.trained_encoder, wait)
                else:
                    done = self.add(cell, name, wait) and self.evaluate(cell, name, self.fixed_encoder, wait)
            except ClaimLostError as lost:
                self.progress.print(f"{name}: {lost}", "yellow")
                done = False
        return done

    def claimed(self, path: Path, done: Callable[[], bool], name: str, wait: bool) -> Claim | None:
        """Claim what lies at ``path``; None if it is done or, without ``wait``, if another process works on it."""
        if wait:
            with self.progress.stage(name) as stage:
                return wait_for(path, done, lambda owner: stage.update(0, note=f"waiting for {owner}"))
        claimed = claim(path)
        if isinstance(claimed, Owner):
            self.progress.print(f"{name}: {claimed} is working on it")
            return None
        if done():
            claimed.release()
            return None
        return claimed

    def add(self, fixed: FixedEncoder, name: str, wait: bool) -> bool:
        """Add an encoder that is not trained to the store; return whether it is there."""
        path = self.store.cell(fixed.key)
        done = partial(self.store.finished, fixed.key)
        if not done() and (claimed := self.claimed(path, done, name, wait)):
            with claimed:
                folder = claimed.partial()
                folder.mkdir(parents=True, exist_ok=True)
                self.store.finish(fixed.key, {"label": fixed.label, "content": fixed.content}, {}, folder)
        return done()

    def train(self, cell: Cell, name: str, wait: bool) -> bool:
        """Train a cell into the store, unless it is there or another process trains it; return whether it is there."""
        done = partial(self.store.finished, cell.key)
        if done():
            return True
        claimed = self.claimed(self.store.cell(cell.key), done, f"{name}: training", wait)
        if claimed is None:
            if done():
                self.outcome.elsewhere += 1
            return done()
        with claimed, self.recorder.running(cell.key, "training") as work:

            def watch(reached: StepProgress) -> None:
                self.recorder.step(work, reached.step, reached.steps)
                self.tracking.step(reached.line, reached.samples_per_second, reached.steps)

            method, folder = self.materials.method(cell), claimed.partial()
            try:
                cost = self.materials.pretrain(cell, method, name, folder, watch, claimed.check)
                claimed.check()
                self.materials.finish(self.store, cell, cost, method.model.left_random, folder)
            except OSError:
                # The folder has another name if the training was taken over.
                claimed.check()
                raise
        self.outcome.trained += 1
        return True

    def evaluate(self, cell: C, name: str, encoder_of: Callable[[C, float], Encoder], wait: bool) -> bool:
        """Evaluate a cell on the pairs that the store lacks; each dataset is encoded once by each checkpoint.

        encoder_of: returns the encoder of a cell after a share of its training. Returns False if other processes work
        on some of the pairs.
        """
        missing = self.plan.missing(self.store, cell)
        if not missing:
            return True
        folder, batch_size = self.store.cell(cell.key) / "embeddings", self.plan.config.evaluation.batch_size
        encoders: dict[float, Encoder] = {}
        by_dataset: dict[str, Evaluation] = {}
        everything = True
        with (
            self.recorder.running(cell.key, "evaluation") as work,
            self.progress.stage(f"{name}: evaluating", len(missing)) as stage,
        ):
            for number, pair in enumerate(missing):
                stage.update(number, note=pair.title)
                title, failures = f"{name}, {pair.title}", len(self.outcome.failures)
                path = self.store.evaluation_folder(cell.key, pair.key)
                done = partial(self.store.is_evaluated, cell.key, pair.key)
                claimed = self.claimed(path, done, title, wait)
                if claimed is None:
                    if done():
                        self.outcome.elsewhere += 1
                        self.recorder.evaluated(work, failed=False)
                    everything = everything and done()
                    continue
                with claimed:
                    if pair.at not in encoders:
                        encoders, by_dataset = {pair.at: encoder_of(cell, pair.at)}, {}
                    with self.recording_failures(title):
                        if pair.dataset not in by_dataset:
                            dataset = self.plan.datasets[pair.dataset]
                            by_dataset[pair.dataset] = Evaluation(
                                encoders[pair.at], dataset, folder, self.cache, batch_size
                            )
                        self.measure(cell, pair, by_dataset[pair.dataset], claimed)
                        self.outcome.evaluated += 1
                self.recorder.evaluated(work, failed=len(self.outcome.failures) > failures)
            stage.update(len(missing))
        return everything

    def measure(self, cell: Cell | FixedEncoder, pair: Pair, data: Evaluation, claimed: Claim) -> None:
        """Evaluate one pair into the store."""
        course = CourseColumns()
        if pair.at < 1:
            reached = self.store.cost(cell.key)["kept"][checkpoint_at(pair.at)]
            course = CourseColumns(at=pair.at, samples=reached["samples"], seconds=reached["seconds"])
        measured = measure(self.plan, cell, pair, data, course)
        if not measured.has_primary:
            self.progress.warn(
                f"{pair.title}: too few examples or candidates to compute {measured.primary}; "
                "the tables leave this dataset out"
            )
        claimed.check()
        self.store.add_evaluation(
            cell.key,
            pair.key,
            pair.content,
            measured.rows,
            measured.examples,
            measured.resamples,
            measured.notes,
            data.embedded("test"),
        )
        self.tracking.scores(measured.rows, self.store.cost(cell.key).get("samples", 0))

    def work(self, estimator: Estimator | None = None) -> list[Work]:
        """List what is left to train and to evaluate, with seconds where there is an estimator."""
        work: list[Work] = []
        several = len({cell.pretraining for cell in self.plan.cells}) > 1
        cells: list[Cell | FixedEncoder] = [*self.plan.cells, *self.plan.fixed]
        for cell in cells:
            trained = cell if isinstance(cell, Cell) else None
            arm = cell.arm if isinstance(cell, Cell) else cell.name
            sets = f" on {', '.join(cell.pretraining)}" if several and isinstance(cell, Cell) else ""
            name, seconds = f"{arm}{sets} seed {cell.seed}", None
            if trained and not self.store.finished(cell.key):
                if estimator:
                    seconds = estimator.roughly(trained, len(self.materials.pairs(trained, "train")))
                work.append(Work(cell=cell.key, name=name, arm=arm, kind="training", estimated=seconds))
            if missing := self.plan.missing(self.store, cell):
                # A model from elsewhere is not the plan's, by which encoding is estimated.
                seconds = estimator.evaluation(missing, trained).seconds if estimator and self.plan.cells else None
                work.append(
                    Work(cell=cell.key, name=name, arm=arm, kind="evaluation", total=len(missing), estimated=seconds)
                )
        return work

    @contextmanager
    def tracked(self, cell: Cell | FixedEncoder) -> Iterator[None]:
        """Track a cell that has something to train or to evaluate."""
        if not self.tracking.trackers or (self.store.finished(cell.key) and not self.plan.missing(self.store, cell)):
            yield
            return
        name = cell.arm if isinstance(cell, Cell) else cell.name
        settings = {**cell.label, "cell": cell.key}
        if isinstance(cell, Cell):
            settings |= {"options": cell.content["options"], "training": cell.content["training"]}
        with self.tracking.cell(f"{name}-seed-{cell.seed}-{cell.key[:8]}", settings):
            yield

    def trained_encoder(self, cell: Cell, at: float) -> Encoder:
        """Return the encoder of a trained cell after a share of its training; at its end, from the run's checkpoint."""
        checkpoint = self.plan.config.evaluation.source(at)
        datasets, tokenizer = self.plan.datasets, self.materials.tokenizer()
        trained = load_trained(self.store, cell.key, checkpoint, datasets, tokenizer, self.cache)
        return trained.encoder(self.plan.device)

    def fixed_encoder(self, fixed: FixedEncoder, at: float = 1.0) -> Encoder:
        """Return an encoder that is evaluated without training; the latest one stays in memory."""
        if fixed.key not in self._fixed:
            self._fixed = {fixed.key: fixed.build(self.materials)}
        return self._fixed[fixed.key]

    def check(self, untrained: list[Cell]) -> None:
        """Check weights and data before any training; raises ``BenchError`` for the first problem."""
        to_fetch = to_download(self.plan.model) if self.plan.cells else []
        if to_fetch and not hub_answers():
            raise BenchError(
                f"{', '.join(to_fetch)}: not on this machine, and the Hugging Face Hub cannot be reached. "
                "Download on a machine with network access, or name local files in the model's card."
            )
        # A plan without cells evaluates an external model, which must be loaded to know how images are resized.
        model: DualEncoder | Encoder
        model = self.materials.blank_model() if self.plan.cells else self.fixed_encoder(self.plan.fixed[0])
        for note in getattr(model, "notes", ()):
            self.progress.warn(f"{self.plan.fixed[0].name}: {note}")
        for name, dataset in self.plan.datasets.items():
            preparations = self.plan.to_prepare(name, untrained, model.image_size)
            if not preparations:
                continue
            with self.or_leave_out(name), self.progress.stage(f"checking {name}") as stage:
                for each in preparations:
                    check(dataset, each.size, stage.update, each.splits, each.resizing(model.resizing))
            if dataset.left_out:
                reasons = ", ".join(f"{plural(count, 'row')} ({reason})" for reason, count in dataset.left_out.items())
                self.progress.warn(f"{name}: left out {reasons}")
        counts = {cell.key: len(self.materials.pairs(cell, "train")) for cell in untrained}
        for cell in untrained:
            check_batch(cell.training, counts[cell.key])
        self.print_twins(untrained)
        for caution in cautions_of(untrained, lambda cell: counts[cell.key]):
            self.progress.warn(caution)

    def print_twins(self, cells: list[Cell]) -> None:
        """Print how many pairs have a pair of identical text in their effective batch, a line for each such set-up."""
        first: dict[tuple[Any, ...], Cell] = {}
        settings: dict[tuple[Any, ...], dict[str, None]] = {}
        for cell in cells:
            batch = (cell.pretraining, cell.training.batch_size, cell.training.mixture)
            first.setdefault(batch, cell)
            settings.setdefault(batch, {})[cell.training.same_text] = None
        for batch, cell in first.items():
            size = cell.training.batch_size
            batches = max(1, TWINS_OF // size)
            share = self.materials.pairs(cell, "train").twins(size, batches)
            self.progress.print(
                f"{', '.join(cell.pretraining)}: in a batch of {size}, {share:.1%} of the pairs have another pair with "
                f"their text (counted over {size * batches:,} pairs); training.same_text: {', '.join(settings[batch])}"
            )

    @contextmanager
    def or_leave_out(self, name: str) -> Iterator[None]:
        """Leave out a dataset that fails its check, if the configuration skips bad data and nothing needs it."""
        plan, config = self.plan, self.plan.config
        optional = {load_card(each).name for each in config.datasets if each not in config.required}
        optional -= {each for cell in plan.cells for each in cell.pretraining}
        optional -= {*plan.corpus, *(plan.initial.pretraining if plan.initial else ())}
        optional -= {*(plan.language.datasets if plan.language else ()), plan.plain_dataset}
        others = [pair for pair in plan.pairs if pair.dataset != name]
        try:
            yield
        except BenchError as error:
            bad_data = not isinstance(error, MachineError)
            if not bad_data or config.strict or config.on_bad_data == "error" or name not in optional or not others:
                raise
            plan.pairs = others
            self.recorder.leave_out(str(error))
            self.progress.print(f"left out: {error}", style="yellow")

    @contextmanager
    def recording_failures(self, name: str) -> Iterator[None]:
        """Record an exception as a failure and continue; all but user's mistakes leave a traceback under errors/."""
        try:
            yield
        except torch.cuda.OutOfMemoryError:
            self.fail(f"{name}: out of GPU memory. Set a smaller training.micro_batch; the result stays the same.")
        except ClaimLostError:
            raise
        except BenchError as error:
            self.fail(f"{name}: {error}")
        except (OSError, MemoryError) as error:
            self.fail(f"{name}: {explained(error)}{self.kept_traceback(name)}")
        except (Exception, SystemExit) as error:
            self.fail(f"{name}: {said(error)}{self.kept_traceback(name)}")

    def kept_traceback(self, name: str) -> str:
        """Write the traceback of the current exception under ``errors``; return where it is, in brackets."""
        title = re.sub(r"[^\w.=+-]+", "-", name.rpartition("] ")[2])
        path = self.store.folder / "errors" / f"{shorten(title)}.txt"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            return f" (no traceback: {explained(error)})"
        return f" (traceback in {path})"

    def fail(self, message: str) -> None:
        """Add a failure to the outcome and the record, and print it."""
        self.recorder.fail(message)
        self.outcome.failures.append(message)
        self.progress.print(message, style="red")
