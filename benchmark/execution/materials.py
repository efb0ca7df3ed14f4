"""Build what a run works with: tokenizer, models, training pairs, and methods before and after training."""

import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file

from benchmark import __version__
from benchmark.common.errors import BenchError
from benchmark.common.machine import machine
from benchmark.common.progress import Progress
from benchmark.common.seeding import generator, stream, torch_seed
from benchmark.config.augmentation import Augmentation
from benchmark.config.training import AVERAGE
from benchmark.data.card import load_card
from benchmark.data.dataset import Dataset, open_dataset
from benchmark.data.loader import PairLoader, PairSet, PreparedPairs
from benchmark.data.prepared import prepare
from benchmark.data.resizing import Resizing
from benchmark.data.streamed import Stream, StreamedPairs, corpus_fingerprints, corpus_texts
from benchmark.evaluation.encoder import ModelEncoder, ModelWriter
from benchmark.method import Method, encoder_of
from benchmark.models import DualEncoder, ModelCard, Tokenizer, build_model, build_tokenizer, save_weights
from benchmark.models import load_weights as load_tower
from benchmark.models.language import train_language_model
from benchmark.models.tower import LanguageModelTower
from benchmark.models.weights import write_tensors
from benchmark.plan.plan import Cell, Plan
from benchmark.plan.resolve import build_method
from benchmark.store.cache import build_folder, cache_root
from benchmark.store.claim import wait_for
from benchmark.store.files import DamagedError, commit, intact, seal_folder
from benchmark.store.store import Store
from benchmark.training.checkpoint import BEST, LAST, RESUME, TEMPORARY, load_weights
from benchmark.training.cost import CellCost, Cost, SourceCost
from benchmark.training.loop import StepProgress, pretrain, validation_loss
from benchmark.training.ranks import ALONE, Ranks
from benchmark.training.schedule import precision_of
from benchmark.training.spikes import spiked


@dataclass(frozen=True)
class Trained:
    """A rebuilt trained cell. key: of the cell; checkpoint: the name of the file of its weights."""

    key: str
    method: Method
    tokenizer: Tokenizer
    model: ModelCard
    checkpoint: str

    def encoder(self, device: torch.device) -> ModelEncoder:
        """Return the encoder that tasks evaluate; it can write texts if the method can."""
        if "caption" in self.method.abilities:
            return self.writer(device)
        return ModelEncoder(
            encoder_of(self.method),
            self.tokenizer,
            device,
            self._fingerprint,
            float(self.method.temperature_scale),
            by_tokens="late_interaction" in self.method.abilities,
        )

    def writer(self, device: torch.device) -> ModelWriter:
        """Return the encoder of a method that can write texts."""
        return ModelWriter(self.method, self.tokenizer, device, self._fingerprint)

    @property
    def _fingerprint(self) -> str:
        return f"{self.key}-{self.checkpoint}.safetensors"


def load_trained(
    store: Store,
    key: str,
    checkpoint: str,
    datasets: Mapping[str, Dataset] | None = None,
    tokenizer: Tokenizer | None = None,
    cache: Path | None = None,
) -> Trained:
    """Rebuild a trained method from a finished cell of the store; everything that needs one calls this.

    checkpoint: as ``Evaluating.source`` names it. "best" is the one of lowest validation loss; a training without
    validation only has the last one, and a training without an average of the weights only the weights themselves.
    datasets: by name, the cell's datasets whose cards are not shipped. tokenizer: the cell's, if the caller has it;
    otherwise it is rebuilt.

    Raises ``BenchError`` if the tokenizer's data are missing or have changed, if the checkpoint is missing, and if the
    weights do not fit the method's current code.
    """
    folder, cache, datasets = store.cell(key), cache or cache_root(), datasets or {}
    cell = store.description(key)
    if "classes" not in cell:
        raise BenchError(f"{folder}: trained by an older version of this program; remove the folder and train again")
    recipe = cell["content"]
    card = ModelCard.model_validate(recipe["model"])
    tokenizer = tokenizer or _tokenizer(folder, card, recipe["tokenizer_data"], datasets, cache)
    model = build_model(card, 0, weights=False)
    model.image.left_random = cell.get("left_random", "")
    method = build_method(recipe["method"], model, recipe["options"])
    method.setup(tokenizer, cell["classes"])
    available = _checkpoint(store, key, checkpoint, recipe["training"])
    load_weights(method, store.check(key, f"{available}.safetensors"))
    return Trained(key, method, tokenizer, card, available)


def _checkpoint(store: Store, key: str, wanted: str, training: Mapping[str, Any]) -> str:
    name, record = wanted.removesuffix(AVERAGE), store.cost_record(key)
    if name == "best" and BEST not in record.files and not (store.cell(key) / BEST).is_file():
        name = "best" if math.isfinite(record.content.get("best_validation_loss", math.inf)) else "last"
    if wanted.endswith(AVERAGE) and training.get("average") is not None:
        name += AVERAGE
    path = store.cell(key) / f"{name}.safetensors"
    if not path.is_file():
        raise DamagedError(path, "is missing", store.again(key))
    return name


def _tokenizer(
    folder: Path, card: ModelCard, trained_on: Iterable[tuple[str, str]], datasets: Mapping[str, Dataset], cache: Path
) -> Tokenizer:
    corpus = []
    for name, fingerprint in trained_on:
        dataset = datasets[name] if name in datasets else open_dataset(load_card(name), "skip", cache)
        if dataset.fingerprint != fingerprint:
            raise BenchError(f"dataset '{name}' has changed since {folder} was trained on it; train again")
        corpus.append(dataset)
    return build_tokenizer(card, lambda: corpus_texts(corpus), cache, corpus_fingerprints(corpus))


class Materials:
    """The tokenizer, models, pairs and methods of a plan, each built when first needed.

    What several trainings share (initial weights, language models) is trained once and kept in the cache. together:
    returns a context that gives the ranks which train a cell; by default this process alone.
    """

    def __init__(
        self,
        plan: Plan,
        progress: Progress,
        cache: Path,
        together: Callable[[Cell], AbstractContextManager[Ranks]] = lambda _: nullcontext(ALONE),
    ) -> None:
        self.plan, self.progress, self.cache, self.together = plan, progress, cache, together
        self.device = plan.device
        self._tokenizer: Tokenizer | None = None

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer of the plan's model, checked against its text tower."""
        if self._tokenizer is None:
            corpus = [self.plan.datasets[name] for name in self.plan.corpus]
            fingerprints = corpus_fingerprints(corpus)
            self._tokenizer = build_tokenizer(self.plan.model, lambda: corpus_texts(corpus), self.cache, fingerprints)
            self.blank_model().check(self._tokenizer, self.plan.model.name)
        return self._tokenizer

    # Models and methods before training

    def blank_model(self) -> DualEncoder:
        """Return the model without weights, on the meta device, to read its image size and resizing from."""
        return self.plan.blank_model

    def model(self, seed: int, weights: bool = True, initial: bool = True) -> DualEncoder:
        """Return the model as it is before training.

        weights: False leaves all of it random. initial: whether with the initial weights that a run trains, if any.
        """
        model = build_model(self.plan.model, stream(seed, "model"), weights=weights)
        if model.left_random and model.left_random not in self.progress.warnings:
            self.progress.warn(model.left_random)
        if weights and initial and self.plan.initial:
            load_tower(model, self.initial_weights())
        return model

    def method(self, cell: Cell) -> Method:
        """Return a cell's method as it is before training."""
        # The cell that trains the initial weights cannot start from them.
        first = self.plan.initial is not None and cell.key == self.plan.initial.key
        model = self.model(cell.seed, initial=not first)
        if "language_model" in cell.content:
            load_tower(model.text, self.language_model())
        with torch_seed(stream(cell.seed, "method", cell.method)):
            method = build_method(cell.method, model, cell.options)
            method.setup(self.tokenizer(), self.plan.classes_of(cell))
        return method

    def finish(
        self, store: Store, cell: Cell, cost: CellCost, left_random: str = "", partial: Path | None = None
    ) -> None:
        """Add a trained cell to the store, with everything that load_trained() needs.

        left_random: of the model before training. partial: as of Store.finish.
        """
        recorded: dict[str, Any] = {"label": cell.label, "content": cell.content, "classes": self.plan.classes_of(cell)}
        recorded |= {"left_random": left_random} if left_random else {}
        store.finish(cell.key, recorded, cost, partial, TEMPORARY)

    def initial_weights(self) -> Path:
        """Return the file of the initial weights of all cells; train them if no run has."""
        cell = self.plan.initial
        assert cell is not None
        folder = self.cache / "initial" / cell.key
        weights = folder / "model.safetensors"
        claimed = wait_for(folder, lambda: intact(folder) and weights.is_file())
        if claimed is None:
            return weights
        with claimed, claimed.guarding():
            partial, name = claimed.partial(), f"initial weights from {', '.join(cell.pretraining)}"
            self.pretrain(cell, self.method(cell), name, partial, before_writing=claimed.check)
            trained = load_file(partial / LAST)
            model = {n.removeprefix("model."): t for n, t in trained.items() if n.startswith("model.")}
            write_tensors(partial / "model.safetensors", model)
            seal_folder(partial, leave_out=(LAST, BEST, *TEMPORARY))
            shutil.rmtree(folder, ignore_errors=True)
            claimed.check()
            commit(partial, folder)
            for name in (LAST, *TEMPORARY):
                (folder / name).unlink(missing_ok=True)
        return weights

    def language_model(self) -> Path:
        """Return the file of the text tower that methods use as a language model; train it if no run has."""
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
            with self.progress.stage(f"language model from {names}", language.spec.steps) as stage, torch_seed(seed):
                loss = train_language_model(
                    tower,
                    self.tokenizer()(texts),
                    language.spec,
                    generator(0, "language model"),
                    lambda step, loss: stage.update(step, note=f"loss {loss:.3f}"),
                )
            save_weights(tower, folder / "model.safetensors")
            self.progress.print(
                f"language model from {names}: trained on {len(texts):,} texts in {time.monotonic() - began:.0f} s, "
                f"{loss:.2f} nats per token"
            )

        return build_folder(self.cache / "language_models" / language.key, write) / "model.safetensors"

    # Pairs

    def sets(self, cell: Cell, split: str) -> list[PairSet]:
        """Return those of a cell's pretraining sets that have the split; of val, those that it is validated on."""
        training, model = cell.training, self.blank_model()
        size = training.resolution or model.image_size
        resizing = model.resizing.keeping_ratio() if training.keep_ratio and split == "train" else model.resizing
        names = cell.validation if split == "val" else cell.pretraining
        datasets = [self.plan.datasets[name] for name in names]
        return [self._pair_set(dataset, split, size, resizing) for dataset in datasets if split in dataset.splits()]

    def pairs(self, cell: Cell, split: str) -> PairLoader:
        """Return the pairs of a split; only those of the train split are augmented."""
        augmentation = cell.training.augmentation if split == "train" else Augmentation.none()
        return self._loader(cell, self.sets(cell, split), augmentation)

    def _pair_set(self, dataset: Dataset, split: str, size: int, resizing: Resizing) -> PairSet:
        if dataset.streams:
            return StreamedPairs(
                Stream(dataset.card, split, self.cache), size, self.tokenizer(), dataset.on_bad_data, resizing
            )
        images = prepare(dataset, split, size, self.cache, resizing=resizing)
        return PreparedPairs(images, self.tokenizer(), self.cache)

    def _loader(self, cell: Cell, sets: list[PairSet], augmentation: Augmentation) -> PairLoader:
        return PairLoader(
            sets,
            self.tokenizer().pad_id,
            self.blank_model().image_size,
            augmentation,
            stream(cell.seed, "data"),
            cell.training.mixture,
        )

    # Training

    def pretrain(
        self,
        cell: Cell,
        method: Method,
        name: str,
        folder: Path,
        watch: Callable[[StepProgress], None] = lambda _: None,
        before_writing: Callable[[], None] = lambda: None,
    ) -> CellCost:
        """Train a cell's method in ``folder``; return its cost. watch: called after each step, may raise to stop.

        before_writing: as of ``benchmark.training.loop.pretrain``.
        """
        train = self.pairs(cell, "train")
        with self.progress.stage(f"{name}: training") as stage, self.together(cell) as ranks:

            def show(reached: StepProgress) -> None:
                if stage.done is None and reached.step > 1:
                    after = f"step {reached.step - 1:,} of {reached.steps:,}"
                    self.progress.print(f"{name}: resumed after {after}, from {folder / RESUME}")
                note = f"{reached.samples_per_second:,.0f} pairs/s, loss {reached.loss:.3f}"
                stage.update(reached.step, reached.steps, note)
                watch(reached)

            cost = self._pretrain(cell, method, train, folder, ranks, progress=show, before_writing=before_writing)
            assert cost is not None
        auto = cell.training.micro_batch == "auto"
        divided = f", micro_batch {cost['micro_batch']} of {cost['batch_size']}" if auto else ""
        self.progress.print(
            f"{name}: trained on {cost['samples']:,} pairs in {cost['seconds']:.0f} s, "
            f"{cost['samples_per_second']:,.0f} pairs/s, validation loss {cost['validation_loss']:.3f}{divided}"
        )
        if spikes := cost.get("spikes"):
            self.progress.warn(f"{name}: {spiked(spikes)}; the log has each step")
        for pair_set in train.sets:
            if isinstance(pair_set, StreamedPairs) and pair_set.left_out:
                reasons = Counter(pair_set.left_out.values()).most_common()
                counts = ", ".join(f"{count} {reason}" for reason, count in reasons)
                self.progress.warn(f"{pair_set.stream.card.name}: left out {counts}")
        return {**cost, **self._by_source(cell, method, train), "version": __version__, "machine": machine()}

    def train_along(self, cell: Cell, ranks: Ranks) -> None:
        """Train a cell as another rank than the first, which keeps nothing of it."""
        with TemporaryDirectory(prefix="bench-rank-") as folder:
            self._pretrain(cell, self.method(cell), self.pairs(cell, "train"), Path(folder), ranks)

    def _pretrain(
        self, cell: Cell, method: Method, train: PairLoader, folder: Path, ranks: Ranks, **hooks: Any
    ) -> Cost | None:
        has_validation = cell.training.validations > 0 and self.sets(cell, "val")
        return pretrain(
            method,
            train,
            self.pairs(cell, "val") if has_validation else None,
            cell.training,
            seed=cell.seed,
            device=self.device,
            folder=folder,
            keep=cell.content.get("keep", []),
            ranks=ranks,
            cache=self.cache,
            **hooks,
        )

    def _by_source(self, cell: Cell, method: Method, train: PairLoader) -> SourceCost:
        """Return the share and final validation loss of each set; empty for a training on a single set."""
        if len(cell.pretraining) == 1:
            return {}
        names = [name for name in cell.pretraining if "train" in self.plan.datasets[name].splits()]
        validated = [name for name in cell.validation if "val" in self.plan.datasets[name].splits()]
        losses = {}
        if cell.training.validations:
            for name, pair_set in zip(validated, self.sets(cell, "val")):
                if len(pair_set.rows):
                    pairs = self._loader(cell, [pair_set], Augmentation.none())
                    precision = precision_of(cell.training, self.device)
                    losses[name] = validation_loss(method, pairs, cell.training, cell.seed, self.device, precision)
        return {"mixture": dict(zip(names, train.shares)), "validation_losses": losses}
