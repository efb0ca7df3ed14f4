"""Carry out a plan: train its cells, evaluate its pairs. Finished work is skipped; a failure does not stop the rest."""

import re
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmark.common.errors import BenchError, MachineError, PlugInError, cut, explained, plural, said
from benchmark.common.hub import hub_answers
from benchmark.common.interrupts import deferred_interrupt
from benchmark.common.progress import Progress, Stage
from benchmark.common.text import shorten, visible
from benchmark.common.tracking import Tracking
from benchmark.config.training import checkpoint_at
from benchmark.data.card import load_card
from benchmark.data.check import check
from benchmark.evaluation.encoder import Encoder
from benchmark.evaluation.evaluation import Evaluation
from benchmark.evaluation.fixed import FixedEncoder
from benchmark.execution.materials import Materials, load_trained
from benchmark.execution.measure import measure, relabelled
from benchmark.execution.team import Team
from benchmark.models import DualEncoder
from benchmark.models.download import to_download
from benchmark.plan.cautions import cautions_of
from benchmark.plan.estimate import Estimator
from benchmark.plan.plan import Cell, Pair, Plan
from benchmark.store import claim as claims
from benchmark.store.cache import cache_root
from benchmark.store.claim import Claim, ClaimLostError, Owner, claim, owner_of
from benchmark.store.files import write_whole
from benchmark.store.kept import adopt_evaluation, forget_evaluation, keep_evaluation
from benchmark.store.live import Recorder, Work
from benchmark.store.rows import CourseColumns, Row
from benchmark.store.store import Store
from benchmark.task import TASKS
from benchmark.training.accumulation import OUT_OF_MEMORY
from benchmark.training.checkpoint import TEMPORARY
from benchmark.training.loop import StepProgress
from benchmark.training.schedule import check_batch

TWINS_OF = 10_000
"""The pairs among which identical texts are counted, in whole batches, at least one."""
DEATHS = 3
"""After how many processes that died while they worked on a cell, and kept nothing of it, a launch gives it up."""
C = TypeVar("C", Cell, FixedEncoder)


@dataclass
class Outcome:
    """What a run did: counts of cells and evaluations, and a line for each failure.

    elsewhere: what other processes did meanwhile. submitted: jobs that go on when this process ends.
    """

    trained: int = 0
    evaluated: int = 0
    skipped: int = 0
    elsewhere: int = 0
    submitted: int = 0
    failures: list[str] = field(default_factory=list)


def run(
    plan: Plan,
    store: Store,
    progress: Progress,
    cache: Path | None = None,
    tracking: Tracking | None = None,
    wait: bool = True,
    share: "Share | None" = None,
) -> Outcome:
    """Train the plan's cells and evaluate its pairs on them, skipping what the store holds.

    A record of the run in the store says what is done and left. tracking: gets what is logged. wait: whether to wait
    for what other processes are working on, and to go on with it if they die; otherwise it is left to them. share: of
    a worker in a launch.

    Raises ``BenchError`` before any training for a plan with problems, bad data, or a batch larger than the data. A
    cell or an evaluation that fails is recorded in the outcome and does not stop the others.
    """
    if plan.problems:
        raise BenchError("\n".join(plan.problems))
    runner = Runner(plan, store, progress, cache or cache_root(), tracking or Tracking(), share)
    with runner.recorder:
        return runner.run(wait)


def start_again(plan: Plan, store: Store, names: Sequence[str]) -> None:
    """Set aside the cells of a plan with these keys, or beginnings of them, so that they are trained anew.

    Raises ``BenchError`` for a name that is not of one cell, and for a cell that a process works on.
    """
    cells: list[Cell | FixedEncoder] = [*plan.cells, *plan.fixed]
    for name in names:
        keys = [cell.key for cell in cells if cell.key.startswith(name)]
        if len(keys) != 1:
            what = "no cell of this run" if not keys else f"{len(keys)} cells of this run, such as {keys[0]},"
            raise BenchError(f"--again {cut(name)}: {what} has a key that starts so; bench plan lists them")
        claimed = claim(store.cell(keys[0]))
        if isinstance(claimed, Owner):
            raise BenchError(f"--again {cut(name)}: {claimed} is working on it")
        with claimed:
            store.start_again(keys[0])
            for fixed in (each for each in plan.fixed if each.key == keys[0]):
                for pair in plan.pairs_of(fixed):
                    forget_evaluation(cache_root(), fixed.key, pair.key)


@dataclass(frozen=True)
class Share:
    """What a worker is told of the launch that it is part of.

    launch: its id. worker: the worker's name. work: what is left to do; the data were checked when it was listed.
    failed: the folder in which the workers mark what failed, so that no other tries it again.
    """

    launch: str
    worker: str
    work: list[Work]
    failed: Path


class Runner:
    """The state of a run: its plan, its materials, its record and its outcome so far."""

    def __init__(
        self, plan: Plan, store: Store, progress: Progress, cache: Path, tracking: Tracking, share: Share | None = None
    ) -> None:
        self.plan, self.store, self.progress, self.cache, self.tracking = plan, store, progress, cache, tracking
        self.share = share
        self.team = Team(plan, progress, cache)
        self.materials = Materials(plan, progress, cache, self.team.training)
        self.outcome = Outcome()
        named = (plan.config.suite, plan.model.name, str(plan.device))
        self.recorder = Recorder(store.folder, *named, progress.doing, lambda text: progress.print(text, "yellow"))
        # The same list: the record has those to come too.
        self.recorder.record.warnings = progress.warnings
        if share:
            self.recorder.record.launch, self.recorder.record.worker = share.launch, share.worker
        self._fixed: dict[str, Encoder] = {}
        self._failed: set[str] = set()
        self._told: set[str] = set()

    def set_aside_damaged(self) -> None:
        """Set aside the evaluations that are not what was written, so that they are made again."""
        cells: list[Cell | FixedEncoder] = [*self.plan.cells, *self.plan.fixed]
        for cell in cells:
            if self.store.finished(cell.key):
                self.store.tidy(cell.key, TEMPORARY)
                self.store.set_aside_damaged(cell.key, (pair.key for pair in self.plan.pairs_of(cell)))

    def run(self, wait: bool) -> Outcome:
        """Check everything, train and evaluate the cells in turn, then evaluate the encoders without training.

        What other processes are working on is passed over, and looked at again at the end.
        """
        if not self.share:
            self.set_aside_damaged()
        for name in self.plan.absent:
            self.recorder.leave_out(name)
        if self.share:
            self.recorder.set_work(self.share.work)
        else:
            self.recorder.set_work(self.work())
            if work := self.prepare():
                self.recorder.set_work(work)
        self.outcome.skipped = self.done_before()
        self.team.check()
        with self.team:
            left = [each for each in self.cells() if not self.carry_out(*each)]
            if left and wait:
                with self.progress.stage("waiting for other processes", len(left)) as stage:
                    total = len(left)
                    while left:
                        stage.update(total - len(left), note=self.waits_for(left[0][0]))
                        time.sleep(claims.POLL)
                        left = [each for each in left if not self.carry_out(*each)]
        return self.outcome

    def done_before(self) -> int:
        """Count the trainings and the evaluations of the plan that are in the store."""
        done = len(self.plan.cells) - len(self.untrained())
        return done + sum(
            len(self.plan.pairs_of(each)) - len(self.plan.missing(self.store, each)) for each, _ in self.cells()
        )

    def untrained(self) -> list[Cell]:
        """List the cells that are not trained."""
        return [cell for cell in self.plan.cells if not self.store.finished(cell.key)]

    def cells(self) -> list[tuple[Cell | FixedEncoder, str]]:
        """List the cells and the encoders without training, in the order of the work, with their names in messages."""
        plan = self.plan
        several = len({cell.pretraining for cell in plan.cells}) > 1
        named: list[tuple[Cell | FixedEncoder, str]] = []
        for number, cell in enumerate(plan.cells, 1):
            where = f" on {', '.join(cell.pretraining)}" if several else ""
            named.append((cell, f"[{number}/{len(plan.cells)}] {cell.arm}{where}, seed {cell.seed}"))
        for number, fixed in enumerate(plan.fixed, 1):
            named.append((fixed, f"[{number}/{len(plan.fixed)}] {fixed.name}, seed {fixed.seed}"))
        return named

    def prepare(self) -> list[Work]:
        """Check and prepare the data if anything is left to do; return what is, with seconds."""
        untrained = self.untrained()
        if not untrained and not any(self.plan.missing(self.store, cell) for cell, _ in self.cells()):
            return []
        self.check(untrained)
        return self.work(Estimator(self.plan, self.store.costs()))

    def carry_out(self, cell: Cell | FixedEncoder, name: str) -> bool:
        """Train and evaluate a cell; return False if another process works on it."""
        if self.has_failed(cell.key):
            return True
        with self.recording_failures(name, cell.key), ExitStack() as tracked:
            # Only what this process does is tracked, not what it finds claimed.
            begin = cache(partial(tracked.enter_context, self.tracked(cell)))
            if self.store.finished(cell.key):
                # What is damaged is not counted as done.
                self.store.description(cell.key)
            try:
                if isinstance(cell, Cell):
                    return self.train(cell, name, begin) and self.evaluate(cell, name, self.trained_encoder, begin)
                return self.add(cell, name) and self.evaluate(cell, name, self.fixed_encoder, begin)
            except ClaimLostError as lost:
                self.progress.print(f"{name}: {lost}", "yellow")
                return False
        return True

    def claimed(self, path: Path, done: Callable[[], bool], name: str, doing: str) -> Claim | None:
        """Claim what lies at ``path``; None if it is done, or if another process works on it, which is said once.

        doing: what it is claimed for, in words.
        """
        claimed = claim(path)
        if isinstance(claimed, Owner):
            # Workers of a launch meet all the time.
            if claimed.token not in self._told and not self.share:
                self._told.add(claimed.token)
                self.progress.print(f"{name}: being {doing} by {claimed}")
            return None
        if done():
            claimed.release()
            return None
        return claimed

    def waits_for(self, cell: Cell | FixedEncoder) -> str:
        """Say which process works on a cell; empty if none does."""
        paths = [self.store.cell(cell.key)]
        paths += [self.store.evaluation_folder(cell.key, pair.key) for pair in self.plan.missing(self.store, cell)]
        return next((str(owner) for path in paths if (owner := owner_of(path))), "")

    def has_failed(self, what: str) -> bool:
        """Return whether a cell or an evaluation failed, here or in another worker of the launch."""
        return what in self._failed or bool(self.share and (self.share.failed / what).exists())

    @contextmanager
    def trying(self, what: str) -> Iterator[Callable[[], object]]:
        """Work on a cell or an evaluation in a launch: what fails is marked, so that no other worker tries it again.

        So is what ``DEATHS`` processes died of. Yields a function to call when a part of the work is kept.
        """
        if not self.share:
            yield lambda: None
            return
        tries = self.share.failed / f".{what}"
        if tries.exists() and tries.stat().st_size >= DEATHS:
            raise BenchError(f"{DEATHS} processes that worked on it died one after another (killed, or out of memory)")
        with tries.open("ab") as file:
            file.write(b".")
        try:
            yield lambda: tries.write_bytes(b".")
        except ClaimLostError:
            raise
        except Exception:
            # While it is claimed: the message comes a little later.
            (self.share.failed / what).touch()
            raise
        finally:
            tries.unlink(missing_ok=True)

    def add(self, fixed: FixedEncoder, name: str) -> bool:
        """Add an encoder that is not trained to the store; return whether it is there."""
        path = self.store.cell(fixed.key)
        done = partial(self.store.finished, fixed.key)
        if not done() and (claimed := self.claimed(path, done, name, "added")):
            with claimed:
                folder = claimed.partial()
                folder.mkdir(parents=True, exist_ok=True)
                self.store.finish(fixed.key, {"label": fixed.label, "content": fixed.content}, {}, folder)
        return done()

    def train(self, cell: Cell, name: str, begin: Callable[[], object]) -> bool:
        """Train a cell into the store, unless it is there or another process trains it; return whether it is there.

        begin: called once the cell is this process's.
        """
        done = partial(self.store.finished, cell.key)
        claimed = None if done() else self.claimed(self.store.cell(cell.key), done, name, "trained")
        if claimed is None:
            self.outcome.elsewhere += done() and self.recorder.elsewhere(cell.key, "training")
            return done()
        with claimed, self.trying(cell.key) as kept, self.recorder.running(cell.key, "training") as work:

            def before_writing() -> None:
                claimed.check()
                kept()

            def watch(reached: StepProgress) -> None:
                self.recorder.step(work, reached.step, reached.steps)
                self.tracking.step(reached.line, reached.samples_per_second, reached.steps)

            begin()
            method, folder = self.materials.method(cell), claimed.partial()
            with claimed.guarding():
                cost = self.materials.pretrain(cell, method, name, folder, watch, before_writing)
                claimed.check()
                self.materials.finish(self.store, cell, cost, method.model.left_random, folder)
        self.outcome.trained += 1
        return True

    def evaluate(
        self, cell: C, name: str, encoder_of: Callable[[C, float], Encoder], begin: Callable[[], object]
    ) -> bool:
        """Evaluate a cell on the pairs that the store lacks; each dataset is encoded once by each checkpoint.

        encoder_of: returns the encoder of a cell after a share of its training. begin: called once a pair is this
        process's. Returns False if other processes work on some of the pairs.
        """
        missing = [p for p in self.plan.missing(self.store, cell) if not self.has_failed(_evaluation(cell, p))]
        folder, batch_size = self.store.cell(cell.key) / "embeddings", self.plan.config.evaluation.batch_size
        encoders: dict[float, Encoder] = {}
        by_dataset: dict[str, Evaluation] = {}
        stage, everything, adopted = None, True, 0
        with ExitStack() as while_evaluating:
            for number, pair in enumerate(missing):
                title, what, failures = f"{name}, {pair.title}", _evaluation(cell, pair), len(self.outcome.failures)
                done = partial(self.store.is_evaluated, cell.key, pair.key)
                claimed = self.claimed(self.store.evaluation_folder(cell.key, pair.key), done, title, "evaluated")
                if claimed is None:
                    everything = everything and (done() or self.has_failed(what))
                    continue
                if stage is None:
                    work = while_evaluating.enter_context(self.recorder.running(cell.key, "evaluation"))
                    stage = while_evaluating.enter_context(self.progress.stage(f"{name}: evaluating", len(missing)))
                stage.update(number, note=pair.title)
                with claimed, deferred_interrupt(ctrl_c=False) as interrupted:
                    with self.trying(cell.key):
                        begin()
                        kept = self.adopt(cell, pair, claimed)
                        if not kept and pair.at not in encoders:
                            encoders, by_dataset = {pair.at: encoder_of(cell, pair.at)}, {}
                    adopted += kept
                    with self.recording_failures(title, what), self.trying(what), claimed.guarding():
                        if not kept:
                            if pair.dataset not in by_dataset:
                                dataset = self.plan.datasets[pair.dataset]
                                by_dataset[pair.dataset] = Evaluation(
                                    encoders[pair.at], dataset, folder, self.cache, batch_size
                                )
                            data = by_dataset[pair.dataset]
                            data.progress = partial(self.show, stage, number, pair.title)
                            self.measure(cell, pair, data, claimed)
                        self.outcome.evaluated += 1
                self.recorder.evaluated(work, failed=len(self.outcome.failures) > failures)
                if stop := interrupted():
                    raise stop
            if stage is not None:
                stage.update(len(missing))
        if adopted:
            taken = plural(adopted, "evaluation")
            self.progress.print(f"{name}: {taken} from the cache, made by a run with the same data and settings")
        if everything:
            self.outcome.elsewhere += self.recorder.elsewhere(cell.key, "evaluation")
        return everything

    def show(self, stage: Stage, number: int, title: str, doing: str, done: int, total: int) -> None:
        """Show how far an evaluation is, within the stage of its cell."""
        stage.update(number, note=f"{title}, {doing}: {done:,} of {total:,}")

    def adopt(self, cell: Cell | FixedEncoder, pair: Pair, claimed: Claim) -> bool:
        """Write an evaluation into the store that a run kept in the cache; return whether there is one."""
        if isinstance(cell, Cell):
            return False
        rows = adopt_evaluation(
            self.cache, self.store, cell.key, pair.key, partial(relabelled, self.plan, cell, pair), claimed.partial()
        )
        if rows is None:
            return False
        self.warn_of_missing(pair, rows, TASKS[pair.task].primary_for(self.plan.datasets[pair.dataset].card))
        self.tracking.scores(rows, 0)
        return True

    def warn_of_missing(self, pair: Pair, rows: list[Row], primary: str) -> None:
        """Warn where no row has the metric that the tables show."""
        if not any(row["primary"] for row in rows):
            self.progress.warn(
                f"{pair.title}: too few examples or candidates to compute {primary}; the tables leave this dataset out"
            )

    def measure(self, cell: Cell | FixedEncoder, pair: Pair, data: Evaluation, claimed: Claim) -> None:
        """Evaluate one pair into the store."""
        course = CourseColumns()
        if pair.at < 1:
            reached = self.store.cost(cell.key)["kept"][checkpoint_at(pair.at)]
            course = CourseColumns(at=pair.at, samples=reached["samples"], seconds=reached["seconds"])
        measured = measure(self.plan, cell, pair, data, course)
        self.warn_of_missing(pair, measured.rows, measured.primary)
        self.store.add_evaluation(
            cell.key,
            pair.key,
            pair.content,
            measured.rows,
            measured.examples,
            measured.resamples,
            measured.notes,
            data.embedded("test"),
            claimed.partial(),
        )
        self.tracking.scores(measured.rows, self.store.cost(cell.key).get("samples", 0))
        if isinstance(cell, FixedEncoder):
            # The evaluation itself is there, whatever becomes of the copy.
            try:
                keep_evaluation(self.cache, self.store, cell.key, pair.key)
            except MachineError as error:
                self.progress.warn(str(error))

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
        """Track a cell while it is trained and evaluated."""
        if not self.tracking.trackers:
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
    def recording_failures(self, name: str, what: str) -> Iterator[None]:
        """Record an exception as a failure and continue; all but user's mistakes leave a traceback under errors/.

        what: the cell or the evaluation that fails, as of has_failed().
        """
        try:
            yield
        except torch.cuda.OutOfMemoryError:
            self.fail(f"{name}: {OUT_OF_MEMORY}", what)
        except ClaimLostError:
            raise
        except PlugInError as error:
            self.fail(f"{name}: {error}{self.kept_traceback(name)}", what)
        except BenchError as error:
            self.fail(f"{name}: {error}", what)
        except (OSError, MemoryError) as error:
            self.fail(f"{name}: {explained(error)}{self.kept_traceback(name)}", what)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self.fail(f"{name}: {said(error)}{self.kept_traceback(name)}", what)

    def kept_traceback(self, name: str) -> str:
        """Write the traceback of the current exception under ``errors``; return where it is, in brackets."""
        title = re.sub(r"[^\w.=+-]+", "-", name.rpartition("] ")[2])
        path = self.store.folder / "errors" / f"{shorten(title)}.txt"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(visible(traceback.format_exc()), encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            return f" (no traceback: {explained(error)})"
        return f" (traceback in {path})"

    def fail(self, message: str, what: str) -> None:
        """Add a failure to the outcome and the record, print it, and mark it for the other workers of the launch."""
        self._failed.add(what)
        if self.share:
            write_whole(self.share.failed / what, message.encode(errors="backslashreplace"))
        self.recorder.fail(message)
        self.outcome.failures.append(message)
        self.progress.print(message, style="red")


def _evaluation(cell: Cell | FixedEncoder, pair: Pair) -> str:
    """Return the name of an evaluation among what failed."""
    return f"{cell.key}-{pair.key}"
