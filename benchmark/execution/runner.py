"""Plan -> cells -> pretrain -> evaluate. What is done already is skipped; what fails does not stop the rest."""

import os
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from safetensors.torch import load_file

from benchmark import __version__
from benchmark.common.errors import BenchError
from benchmark.common.hub import hub_answers
from benchmark.common.machine import machine
from benchmark.common.seeding import generator, stream, torch_seed
from benchmark.config.augmentation import Augmentation
from benchmark.data.card import load_card
from benchmark.data.dataset import Dataset
from benchmark.data.loader import PairLoader, PairSet, PreparedPairs
from benchmark.data.prepared import prepare
from benchmark.data.streamed import Stream, StreamedPairs
from benchmark.evaluation.encoder import Encoder, ModelEncoder, ModelWriter
from benchmark.evaluation.evaluation import Evaluation
from benchmark.evaluation.fixed import Given
from benchmark.evaluation.measurement import Mean
from benchmark.evaluation.statistics import bounds, resample
from benchmark.method import Method
from benchmark.models import DualEncoder, Tokenizer, build_model, build_tokenizer, save_weights
from benchmark.models import load_weights as read_weights
from benchmark.models.download import to_download
from benchmark.models.language import train_language_model
from benchmark.models.tower import LanguageModelTower
from benchmark.plan.plan import Cell, Pair, Plan
from benchmark.plan.resolve import build_method
from benchmark.store.cache import build_folder, cache_root
from benchmark.store.hashing import digest
from benchmark.store.store import Row, Store
from benchmark.task import TASKS
from benchmark.training.checkpoint import BEST, LAST, load_weights
from benchmark.training.loop import Progress as Position
from benchmark.training.loop import pretrain, validation_loss
from benchmark.training.schedule import check_batch, precision_of


@dataclass
class Outcome:
    """What a run did: counts, and a line for each failure."""

    trained: int = 0
    evaluated: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)


def run(plan: Plan, store: Store, console: Console, cache: Path | None = None) -> Outcome:
    """Train the plan's cells and evaluate its pairs on them, whatever of it is not in the store yet.

    Raises ``BenchError`` before anything starts for a plan with problems, bad data, or a batch larger than the data.
    A cell or an evaluation that fails is reported in the outcome, and the others go on.
    """
    if plan.problems:
        raise BenchError("\n".join(plan.problems))
    return _Run(plan, store, console, cache or cache_root()).run()


def pretrained(
    plan: Plan, cell: Cell, folder: Path, watch: Callable[[Position], None], cache: Path | None = None
) -> tuple[Method, PairLoader, dict[str, Any]]:
    """Train one cell in a folder of its own, without the store. Returns the method, its validation pairs and what it
    took; ``watch`` sees each step and may raise.
    """
    run = _Run(plan, Store(folder), Console(quiet=True), cache or cache_root())
    method = run.method(cell)
    cost = run.pretrain(cell, method, cell.method, folder, watch)
    return method, run.pairs(cell, "val"), cost


def corpus_texts(datasets: Iterable[Dataset]) -> Iterator[str]:
    """The training texts, questions and answers that a tokenizer of kind ``corpus`` is trained on."""
    for dataset in datasets:
        if dataset.streams:
            yield from Stream(dataset.card, "train", dataset.cache).texts()
            continue
        for row in dataset.records("train").select_columns(["text", "question", "answer"]):
            yield from (*row["text"], *row["question"], *row["answer"])


class _Run:
    def __init__(self, plan: Plan, store: Store, console: Console, cache: Path) -> None:
        self.plan, self.store, self.console, self.cache = plan, store, console, cache
        self.outcome = Outcome()
        self.device = plan.device
        self._tokenizer: Tokenizer | None = None
        self._seen: DualEncoder | None = None
        self._given: dict[str, Encoder] = {}

    def run(self) -> Outcome:
        plan, store = self.plan, self.store
        untrained = [cell for cell in plan.cells if not store.finished(cell.key)]
        cells: list[Cell | Given] = [*plan.cells, *plan.given]
        if untrained or any(plan.missing(store, cell) for cell in cells):
            self.check(untrained)
        several = len({cell.pretraining for cell in plan.cells}) > 1
        for number, cell in enumerate(plan.cells, 1):
            where = f" on {', '.join(cell.pretraining)}" if several else ""
            name = f"[{number}/{len(plan.cells)}] {cell.method}{where}, seed {cell.seed}"
            with self.guarded(name):
                if store.finished(cell.key):
                    self.outcome.skipped += 1
                else:
                    self.train(cell, name)
                self.evaluate(cell, name, self.encoder)
        for number, given in enumerate(plan.given, 1):
            name = f"[{number}/{len(plan.given)}] {given.name}, seed {given.seed}"
            with self.guarded(name):
                if not store.finished(given.key):
                    store.partial(given.key).mkdir(parents=True, exist_ok=True)
                    store.finish(given.key, {"label": given.label, "content": given.content}, {})
                self.evaluate(given, name, self.given_encoder)
        return self.outcome

    def check(self, untrained: list[Cell]) -> None:
        """Everything that can be wrong with weights and data, before any training."""
        absent = to_download(self.plan.model) if self.plan.cells else []
        if absent and not hub_answers():
            raise BenchError(
                f"{', '.join(absent)}: not on this machine, and the hub cannot be reached; download where there is a "
                "network, or name local files in the model's card"
            )
        # Without cells it is a model from elsewhere that is evaluated: it is read first, and says how it sees.
        seen: DualEncoder | Encoder = self.seen() if self.plan.cells else self.given_encoder(self.plan.given[0])
        size = seen.image_size
        for note in getattr(seen, "notes", ()):
            self.console.print(f"{self.plan.given[0].name}: {note}", style="yellow", highlight=False, markup=False)
        evaluated = {pair.dataset for pair in self.plan.pairs}
        for name, dataset in self.plan.datasets.items():
            if self.plan.language and name in self.plan.language.texts_only:
                continue
            sizes = {cell.training.resolution or size for cell in untrained if name in cell.pretraining}
            # What is only pretrained on is not prepared for an evaluation, at another size perhaps.
            splits = ("train", "val") if sizes and name not in evaluated else None
            with self.sparing(name), self.progress() as bars:
                bar = bars.add_task(f"checking {name}", total=None, speed="")

                def show(done: int, total: int, bars: Progress = bars, bar: TaskID = bar) -> None:
                    bars.update(bar, completed=done, total=total)

                for each in sorted(sizes if splits else sizes | {size}):
                    dataset.check(each, show, splits, seen.resizing)
            if dataset.left_out:
                reasons = ", ".join(f"{count} {reason}" for reason, count in dataset.left_out.items())
                self.console.print(f"{name}: left out {reasons}", style="yellow")
        for cell in untrained:
            check_batch(cell.training, len(self.pairs(cell, "train")))

    @contextmanager
    def sparing(self, name: str) -> Iterator[None]:
        """Leave out a dataset of the suite that nothing is left of, where bad data are to be left out and it need not
        be there.
        """
        plan, config = self.plan, self.plan.config
        optional = {load_card(each).name for each in config.datasets if each not in config.required}
        optional -= {each for cell in plan.cells for each in cell.pretraining}
        optional -= {*plan.corpus, *(plan.initial.pretraining if plan.initial else ())}
        optional -= {*(plan.language.datasets if plan.language else ()), plan.plain_dataset}
        others = [pair for pair in plan.pairs if pair.dataset != name]
        try:
            yield
        except BenchError as error:
            if config.strict or config.on_bad_data == "error" or name not in optional or not others:
                raise
            plan.pairs = others
            self.console.print(f"left out: {error}", style="yellow", highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        try:
            yield
        except torch.cuda.OutOfMemoryError:
            self.fail(f"{name}: out of GPU memory; a smaller training.micro_batch needs less and gives the same result")
        except BenchError as error:
            self.fail(f"{name}: {error}")
        except Exception as error:
            path = self.store.folder / "errors" / f"{name.split('] ')[-1].replace(', ', '-').replace(' ', '-')}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(traceback.format_exc(), encoding="utf-8")
            self.fail(f"{name}: {type(error).__name__}: {error} (traceback in {path})")

    def fail(self, message: str) -> None:
        self.outcome.failures.append(message)
        self.console.print(message, style="red", highlight=False, markup=False)

    # Training

    def train(self, cell: Cell, name: str) -> None:
        folder = self.store.partial(cell.key)
        cost = self.pretrain(cell, self.method(cell), name, folder)
        self.store.finish(cell.key, {"label": cell.label, "content": cell.content}, cost)
        self.outcome.trained += 1

    def pretrain(
        self, cell: Cell, method: Method, name: str, folder: Path, watch: Callable[[Position], None] = lambda _: None
    ) -> dict[str, Any]:
        train = self.pairs(cell, "train")
        has_validation = cell.training.validations > 0 and self.sets(cell, "val")
        validation = self.pairs(cell, "val") if has_validation else None
        with self.progress() as bars:
            bar = bars.add_task(f"{name}: training", total=None, speed="")

            def show(position: Position) -> None:
                bars.update(
                    bar,
                    completed=position.step,
                    total=position.steps,
                    speed=f"{position.samples_per_second:,.0f} pairs/s  loss {position.loss:.3f}",
                )
                watch(position)

            cost = pretrain(
                method,
                train,
                validation,
                cell.training,
                seed=cell.seed,
                device=self.plan.device,
                folder=folder,
                progress=show,
            )
        self.console.print(
            f"{name}: trained on {cost['samples']:,} pairs in {cost['seconds']:.0f} s, "
            f"{cost['samples_per_second']:,.0f} pairs/s, validation loss {cost['validation_loss']:.3f}",
            highlight=False,
            markup=False,
        )
        for pair_set in train.sets:
            if isinstance(pair_set, StreamedPairs) and pair_set.left_out:
                reasons = Counter(pair_set.left_out.values()).most_common()
                said = ", ".join(f"{count} {reason}" for reason, count in reasons)
                self.console.print(f"{pair_set.stream.card.name}: left out {said}", style="yellow", markup=False)
        return cost | self.by_source(cell, method, train) | {"version": __version__, "machine": machine()}

    def by_source(self, cell: Cell, method: Method, train: PairLoader) -> dict[str, Any]:
        """Of a training on several sets, the share of each and the validation loss on each at the end."""
        if len(cell.pretraining) == 1:
            return {}
        names = [name for name in cell.pretraining if "train" in self.plan.datasets[name].splits()]
        validated = [name for name in cell.pretraining if "val" in self.plan.datasets[name].splits()]
        losses = {}
        if cell.training.validations:
            for name, pair_set in zip(validated, self.sets(cell, "val")):
                if len(pair_set.rows):
                    pairs = self.loader(cell, [pair_set], Augmentation.none())
                    precision = precision_of(cell.training, self.device)
                    losses[name] = validation_loss(method, pairs, cell.training, cell.seed, self.device, precision)
        return {"mixture": dict(zip(names, train.shares)), "validation_losses": losses}

    def method(self, cell: Cell) -> Method:
        """The cell's method as it is before training."""
        # The cell that trains the initial weights does not start from them.
        first = cell is self.plan.initial
        model = build_model(self.plan.model, stream(cell.seed, "model")) if first else self.model(cell.seed)
        if "language_model" in cell.content:
            read_weights(model.text, self.language_model())
        labelled = [self.plan.datasets[name].card for name in cell.pretraining] if len(cell.pretraining) == 1 else []
        with torch_seed(stream(cell.seed, "method", cell.method)):
            method = build_method(cell.method, model, cell.options)
            method.setup(self.tokenizer(), [name for card in labelled for name in card.classes or ()])
        return method

    def model(self, seed: int, weights: bool = True) -> DualEncoder:
        """The model before training; without ``weights``, a random one."""
        model = build_model(self.plan.model, stream(seed, "model"), weights=weights)
        if weights and self.plan.initial:
            model.load_state_dict(load_file(self.initial_weights()))
        return model

    def initial_weights(self) -> Path:
        """The weights that the cells start from, trained once for all runs and kept in the cache."""
        cell = self.plan.initial
        assert cell is not None
        folder = self.cache / "initial" / cell.key
        weights = folder / "model.safetensors"
        if not weights.is_file():
            partial = folder.with_name(f".{cell.key}.partial")
            self.pretrain(cell, self.method(cell), f"initial weights from {', '.join(cell.pretraining)}", partial)
            trained = load_file(partial / LAST)
            from safetensors.torch import save_file

            save_file(
                {n.removeprefix("model."): t for n, t in trained.items() if n.startswith("model.")},
                partial / "model.safetensors",
            )
            (partial / LAST).unlink()
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(partial, folder)
        return weights

    def language_model(self) -> Path:
        """The text tower of methods that keep it as a frozen language model, trained once for all runs and kept in the
        cache.
        """
        language = self.plan.language
        assert language is not None
        names = ", ".join(language.datasets)

        def write(folder: Path) -> None:
            began = time.monotonic()
            columns = (self.plan.datasets[name].records("train").select_columns(["text"]) for name in language.datasets)
            texts = sorted({text for records in columns for row in records for text in row["text"]})
            seed = stream(0, "language model")
            tower = build_model(self.plan.model, seed).text.to(self.device)
            assert isinstance(tower, LanguageModelTower)
            with self.progress() as bars, torch_seed(seed):
                bar = bars.add_task(f"language model from {names}", total=language.spec.steps, speed="")
                loss = train_language_model(
                    tower,
                    self.tokenizer()(texts),
                    language.spec,
                    generator(0, "language model"),
                    lambda step, loss: bars.update(bar, completed=step, speed=f"loss {loss:.3f}"),
                )
            save_weights(tower, folder / "model.safetensors")
            self.console.print(
                f"language model from {names}: trained on {len(texts):,} texts in {time.monotonic() - began:.0f} s, "
                f"{loss:.2f} nats a token",
                highlight=False,
                markup=False,
            )

        return build_folder(self.cache / "language_models" / language.key, write) / "model.safetensors"

    def tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            corpus = [self.plan.datasets[name] for name in self.plan.corpus]
            self._tokenizer = build_tokenizer(self.plan.model, lambda: corpus_texts(corpus), self.cache)
            self.seen().check(self._tokenizer)
        return self._tokenizer

    def sets(self, cell: Cell, split: str) -> list[PairSet]:
        """The pretraining sets of a cell that have the split."""
        size = cell.training.resolution or self.seen().image_size
        datasets = [self.plan.datasets[name] for name in cell.pretraining]
        return [self.pair_set(dataset, split, size) for dataset in datasets if split in dataset.splits()]

    def pair_set(self, dataset: Dataset, split: str, size: int) -> PairSet:
        if dataset.streams:
            stream = Stream(dataset.card, split, self.cache)
            return StreamedPairs(stream, size, self.tokenizer(), dataset.on_bad_data, self.seen().resizing)
        images = prepare(dataset, split, size, self.cache, resizing=self.seen().resizing)
        return PreparedPairs(images, self.tokenizer(), self.cache)

    def pairs(self, cell: Cell, split: str) -> PairLoader:
        augmentation = cell.training.augmentation if split == "train" else Augmentation.none()
        return self.loader(cell, self.sets(cell, split), augmentation)

    def loader(self, cell: Cell, sets: list[PairSet], augmentation: Augmentation) -> PairLoader:
        return PairLoader(
            sets,
            self.tokenizer().pad_id,
            self.seen().image_size,
            augmentation,
            stream(cell.seed, "data"),
            cell.training.mixture,
        )

    def seen(self) -> DualEncoder:
        """The model without weights: it says what images are to be like."""
        if self._seen is None:
            self._seen = build_model(self.plan.model, 0, "meta")
        return self._seen

    # Evaluation

    def evaluate(self, cell: Any, name: str, encoder_of: Callable[[Any], Encoder]) -> None:
        missing = self.plan.missing(self.store, cell)
        self.outcome.skipped += len(self.plan.pairs_of(cell)) - len(missing)
        if not missing:
            return
        encoder = encoder_of(cell)
        seen: dict[str, Evaluation] = {}
        with self.progress() as bars:
            bar = bars.add_task(f"{name}: evaluating", total=len(missing), speed="")
            for pair in missing:
                bars.update(bar, speed=f"{pair.task} on {pair.dataset}")
                with self.guarded(f"{name}, {pair.task} on {pair.dataset}"):
                    if pair.dataset not in seen:
                        folder = self.store.cell(cell.key) / "embeddings"
                        dataset = self.plan.datasets[pair.dataset]
                        size = self.plan.config.evaluation.batch_size
                        seen[pair.dataset] = Evaluation(encoder, dataset, folder, self.cache, size)
                    self.measure(cell, pair, seen[pair.dataset])
                    self.outcome.evaluated += 1
                bars.advance(bar)

    def encoder(self, cell: Cell) -> ModelEncoder:
        folder = self.store.cell(cell.key)
        best = self.plan.config.evaluation.checkpoint == "best" and (folder / BEST).is_file()
        method = self.method(cell)
        load_weights(method, folder / (BEST if best else LAST))
        name = f"{cell.key}-{BEST if best else LAST}"
        if "caption" in method.abilities:
            return ModelWriter(method, self.tokenizer(), self.plan.device, name)
        return ModelEncoder(
            method.encoder(),
            self.tokenizer(),
            self.plan.device,
            name,
            method.temperature_scale,
            by_tokens="late_interaction" in method.abilities,
        )

    def given_encoder(self, given: Given) -> Encoder:
        if given.key not in self._given:
            self._given = {given.key: given.build(self)}
        return self._given[given.key]

    def measure(self, cell: Cell | Given, pair: Pair, data: Evaluation) -> None:
        task_class = TASKS[pair.task]
        task = task_class(task_class.Config(**pair.options))
        primary = task.primary_for(data.card)
        measurements = list(task.evaluate(data, cell.seed))
        # The same draws of the same patients for every cell, part and dataset: what differs is then paired.
        population = np.unique(np.concatenate([found.examples["group"] for found in measurements]))
        of_patients = digest(population.tolist())
        scenario = self.plan.scenario_of(cell, pair)
        rows: list[Row] = []
        resampled: dict[str, dict[str, np.ndarray]] = {}
        for found in measurements:
            groups, part = found.examples["group"], found.part
            drawn = digest([sorted(zip(map(str, found.examples["id"]), map(str, groups))), population.tolist()])
            for metric, function in found.metrics.items():
                rng = generator(0, "bootstrap", of_patients)
                resamples = self.plan.config.evaluation.resamples
                values = resample(function, found.examples, groups, population, resamples, rng)
                resampled.setdefault(part, {})[metric] = values
                own = len(np.unique(groups))
                low, high = bounds(function, found.examples, groups, values)
                counted = int(function.counted(found.examples).sum()) if isinstance(function, Mean) else len(groups)
                rows.append(
                    cell.label
                    | scenario
                    | {
                        "variant": ", ".join(filter(None, (cell.label["variant"], pair.variant))),
                        "dataset": pair.dataset,
                        "task": pair.task,
                        "part": part,
                        "metric": metric,
                        "value": function(found.examples),
                        "low": low,
                        "high": high,
                        "n": counted,
                        "groups": own,
                        "chance": found.chance.get(metric),
                        "majority": found.majority.get(metric),
                        "primary": metric == primary,
                        "examples": drawn,
                        "cell": cell.key,
                        "evaluation": pair.key,
                        "start": self.plan.starts.get(cell.seed),
                    }
                )
        if not any(row["primary"] for row in rows):
            self.console.print(
                f"{pair.task} on {pair.dataset}: no {primary}, there are too few examples or candidates for it; the "
                "tables leave this dataset out",
                style="yellow",
                highlight=False,
                markup=False,
            )
        examples = {found.part: found.examples for found in measurements}
        notes = {found.part: found.notes for found in measurements}
        self.store.add_evaluation(cell.key, pair.key, rows, examples, resampled, notes)

    def progress(self) -> Progress:
        return Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}", markup=False),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
