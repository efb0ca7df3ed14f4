"""Estimate the cost of a cell before it runs: operations counted in one step, time from this machine's speed."""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import astuple, dataclass
from functools import cache, cached_property
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch

import benchmark
from benchmark.common.errors import BenchError
from benchmark.common.hub import one_line
from benchmark.data.dataset import Dataset
from benchmark.data.prepared import is_prepared, stored_bytes
from benchmark.data.resizing import USUAL, Resizing
from benchmark.data.streamed import Stream, corpus_fingerprints, corpus_texts
from benchmark.method import METHODS, Method
from benchmark.models import Tokenizer, build_model, build_tokenizer
from benchmark.models.card import CorpusTokenizer
from benchmark.models.download import tokenizer_to_download
from benchmark.plan.plan import Cell, Pair, Plan
from benchmark.plan.resolve import build_method
from benchmark.store.cache import cache_root, remember, remembered
from benchmark.store.hashing import digest
from benchmark.task import TASKS
from benchmark.training.cost import (
    ASSUMED_STEPS,
    Parameters,
    Shape,
    counting,
    fitting_division,
    flops_budget_steps,
    is_small,
    on_meta,
    parameter_columns,
    simulated_cost,
    simulated_flops,
    simulated_or_real,
    simulating,
    total_flops,
)
from benchmark.training.memory import available_memory
from benchmark.training.ranks import speedup
from benchmark.training.schedule import precision_of, stage_starts, training_steps

if TYPE_CHECKING:
    import pandas as pd

EFFICIENCY = 0.35
"""Training speed as a fraction of that of a large matrix product; used until a cell of the model is measured."""

MAX_PARAMETERS = 300_000_000
"""The most parameters that a model may have to be built for counting, if counting fails without weights."""

T = TypeVar("T", bound=tuple[Any, ...])
Counted = tuple[int | None, float, int, str]
"""Steps (None if unknown), floating-point operations per pair, bytes of peak memory, and as ``Estimate.division``."""

Source = Literal["the cell", "the method", "the model", "--speed", "a matrix product"]
"""What a speed was measured on, from the nearest to the farthest; --speed is as the user gave it."""


@dataclass(frozen=True)
class Count:
    """A number of images. about: it is the card's, not counted in the data."""

    images: int
    about: bool


@dataclass(frozen=True)
class Speed:
    """Floating-point operations per second of one GPU or CPU, and what they were measured on."""

    flops: float
    source: Source


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a training.

    samples: pairs trained on, with repetitions; None if the budget is in epochs and no number of rows is known.
    flops_per_sample: of a step, the mean over the stages. memory: peak in bytes. seconds: of the training with its
    validations; None if samples or the device's speed are unknown. source: of the speed. parameters: as in the cost
    table. weights: bytes of a checkpoint; 0 for one that exists. assumed_length: the tokens of a text that were assumed
    where texts could not be read from the data, the model's maximum; None: texts are as long as the data's.
    division: in words, how a batch is divided where ``training.micro_batch`` is ``auto``, by the memory that is free
    now; "" for a number.
    """

    samples: int | None
    flops_per_sample: float
    memory: int
    seconds: float | None
    source: Source | None
    parameters: Parameters
    weights: int
    assumed_length: int | None
    division: str = ""


class Estimator:
    """Estimates the cells of a plan.

    costs: the store's cost table, the source of measured speeds. speed: of the device, for large matrix products, in
    floating-point operations per second; None: measured, on this machine.
    """

    def __init__(self, plan: Plan, costs: "pd.DataFrame", speed: float | None = None) -> None:
        self.plan = plan
        self.costs = costs
        self.speed = speed
        self._estimates: dict[str, Estimate] = {}

    def cell(self, cell: Cell) -> Estimate:
        """Estimate one cell; a finished one has the cost that was measured."""
        if len(self.costs) and len(measured := self.costs[self.costs["cell"] == cell.key]):
            return _measured(measured.iloc[-1])
        # Cells that differ only in the seed cost the same.
        key = json.dumps([cell.method, cell.options, cell.training.model_dump(), cell.pretraining])
        if key not in self._estimates:
            self._estimates[key] = self._estimate(cell)
        return self._estimates[key]

    def _estimate(self, cell: Cell) -> Estimate:
        training, device = cell.training, self.plan.device
        method = self._method(cell, meta=True)
        limit = method.model.text.context_length
        longest = min(limit, self.plan.model.tokenizer.context_length or limit)
        known = self._text_length(cell)
        size = method.model.image_size
        stored = training.resolution or size
        # A micro-batch has upright pictures as well as wide ones.
        padded = (round(USUAL * stored), round(USUAL * stored)) if training.keep_ratio else None
        shape = Shape(stored, size, known or longest, training.augmentation, padded)
        pairs = self.pairs(cell) if training.epochs is not None else None

        gpus = self.plan.config.gpus_per_cell
        available = available_memory(device) if cell.training.micro_batch == "auto" else None

        def count(real: bool) -> Counted:
            copied = self._method(cell, meta=False) if real else method
            training, division = cell.training, None
            if training.micro_batch == "auto":
                division = fitting_division(copied, shape, training, device, available, gpus)
                training = training.model_copy(update={"micro_batch": division.micro_batch})
            steps: int | None
            if training.flops is not None:
                steps = flops_budget_steps(copied, shape, training, device, real)
            elif training.time is not None:
                first = simulated_flops(copied, shape, training, device, 1, real)
                per_step = max(first.values()) * training.batch_size / (speed.flops * faster) if speed else math.nan
                steps = training_steps(training, 0, lambda: per_step) if speed else None
            elif training.epochs is not None:
                steps = max(1, round(training.epochs * (pairs.images // training.batch_size))) if pairs else None
            else:
                steps = training_steps(training, 0, lambda: math.nan)
            taken = steps or ASSUMED_STEPS
            step = simulated_cost(copied, shape, training, device, taken, real)
            by_stage, memory = step.flops, step.memory
            if division is not None and available is not None and division.graphs:
                by_stage = simulated_flops(copied, shape, training, device, taken, real, division.kept)
                memory = available
            flops = total_flops(by_stage, stage_starts(copied, taken), taken, training.batch_size)
            return steps, flops / (taken * training.batch_size), memory, str(division or "")

        speed, faster = self._speed(cell), speedup(training, gpus)
        depends_on = [training.model_dump(mode="json"), shape.stored, shape.image_size, shape.length, str(device)]
        depends_on += [pairs and pairs.images]
        depends_on += [self._tokenizer and self._tokenizer.fingerprint, self.plan.classes_of(cell)]
        depends_on += [speed and speed.flops * faster] if training.time is not None else []
        # Free memory is never the same; within 7 % the counts serve.
        depends_on += [available and round(10 * math.log2(max(1, available))), gpus] if available is not None else []
        try:
            steps, flops, memory, division = _remembered(
                [*_identity(method, cell), *depends_on],
                lambda: simulated_or_real(count, is_small(method, training, device)),
            )
        except BenchError:
            raise
        except Exception as error:
            failed = extract_tb(error.__traceback__)[-1]
            raise BenchError(
                f"method '{cell.method}': a step fails, {one_line(error)} ({failed.filename}, line {failed.lineno})"
            ) from error
        samples = None if steps is None else steps * training.batch_size
        seconds = None
        if speed and samples is not None:
            seconds = samples * flops / speed.flops
            # A measured speed includes the validations, and a budget in time leaves room for them.
            if speed.source != "the method" and training.time is None:
                seconds += training.validations * self._validated(cell) * self.encoding.flops / speed.flops
            seconds /= faster
        return Estimate(
            samples,
            flops,
            memory,
            seconds,
            speed.source if speed else None,
            parameter_columns(method),
            _weights(method),
            longest if known is None else None,
            division,
        )

    def roughly(self, cell: Cell, pairs: int) -> float | None:
        """Estimate the seconds of a training in no time: no step is counted, unlike by cell().

        At the speed at which the method was trained before; else a step takes three times as long as encoding its
        pairs, since a backward pass takes about two forward passes. pairs: of an epoch. None if the device's speed is
        unknown.
        """
        kind, amount = cell.training.budget
        speed = self._speed(cell)
        if kind == "time" or speed is None:
            return float(amount) if kind == "time" else None
        faster = speedup(cell.training, self.plan.config.gpus_per_cell)
        if kind == "flops":
            return amount / (speed.flops * faster)
        samples = training_steps(cell.training, pairs, lambda: math.nan) * cell.training.batch_size
        if speed.source == "the method":
            measured = self.costs[(self.costs.model == self.plan.model.name) & (self.costs.method == cell.method)]
            return samples / (float(_of_one(measured).iloc[-1]) * faster)
        return samples * 3 * self.encoding.flops / (speed.flops * faster)

    # Numbers of images

    def pairs(self, cell: Cell, about: bool = False) -> Count | None:
        """Count the pairs of an epoch of a cell; None if no number is known.

        Reads the data that are here, where no run has; with ``about`` only those whose card names no number, as reading
        can take long. Sets of which no number is known are left out.
        """
        named = [self.plan.datasets[name].card.expected_rows if about else {} for name in cell.pretraining]
        counts = [self.images(name, "train", "train" not in rows) for name, rows in zip(cell.pretraining, named)]
        known = [count for count in counts if count]
        return Count(sum(each.images for each in known), any(each.about for each in known)) if known else None

    def images(self, name: str, split: str, read: bool = False) -> Count | None:
        """Count the images of a split of a dataset; None if no number is known, 0 if there is no such split.

        read: count in the data if they are here, even if that reads them for the first time.
        """
        dataset = self.plan.datasets[name]
        if split not in dataset.splits():
            return Count(0, False)
        if dataset.is_listed(split) or (read and dataset.is_here and not dataset.streams):
            return Count(len(dataset.rows(split)), False)
        if read and dataset.is_here:
            return Count(len(Stream(dataset.card, split, dataset.cache)), False)
        expected = dataset.card.expected_rows.get(split)
        return None if expected is None else Count(expected, True)

    def prepared(self, name: str, untrained: list[Cell], image_size: int, resizing: Resizing) -> "Preparing":
        """Estimate the images of a dataset that a run prepares, as far as their numbers are known."""
        dataset, cache = self.plan.datasets[name], cache_root()
        preparations = self.plan.to_prepare(name, untrained, image_size)
        made = [(each, split) for each in preparations for split in each.of(dataset.splits())]
        counts = {split: self.images(name, split) for _, split in made}
        disk = here = 0
        for each, split in made if not dataset.streams else []:
            count = counts[split]
            taken = stored_bytes(count.images, each.size, each.keep_ratio) if count else 0
            disk += taken
            if dataset.is_here and is_prepared(dataset, split, each.size, cache, each.resizing(resizing)):
                here += taken
        known = [count for count in counts.values() if count]
        return Preparing(
            sum(count.images for count in known) if known or not counts else None,
            any(count.about for count in known),
            [split for split, count in counts.items() if count is None],
            disk,
            here,
        )

    def _validated(self, cell: Cell) -> int:
        """Count the pairs of a validation, as far as their number is known."""
        counts = [self.images(name, "val") for name in cell.validation]
        pairs = sum(count.images for count in counts if count)
        return pairs - pairs % cell.training.batch_size if pairs > cell.training.batch_size else pairs

    # Evaluation

    @cached_property
    def encoding(self) -> "Encoding":
        """What it takes to encode an image, and a text of the model's maximum length."""
        depends_on = ["encoding", *_code(), self.plan.model.model_dump(mode="json")]
        return Encoding(*_remembered(depends_on, lambda: astuple(self._encoding())))

    def _encoding(self) -> "Encoding":
        model = self.plan.blank_model.eval()
        length = min(model.text.context_length, self.plan.model.tokenizer.context_length or model.text.context_length)
        image = torch.zeros(1, 3, model.image_size, model.image_size, device="meta")
        text = torch.zeros(1, length, dtype=torch.long, device="meta"), torch.ones(1, length, device="meta").bool()
        with torch.no_grad():
            with counting() as of_image:
                seen = model.image(image)
                model.project_image(seen.features)
            with counting() as of_text:
                read = model.text(*text)
                model.project_text(read.features)
        return Encoding(
            of_image.total,
            of_text.total,
            FLOAT * (seen.features.shape[-1] + model.embed_dim),
            0 if seen.tokens is None else FLOAT * seen.tokens.shape[1] * model.embed_dim,
        )

    def evaluation(self, pairs: list[Pair], cell: Cell | None = None) -> "Evaluation":
        """Estimate the encoding of the images and texts of evaluations; each split is encoded once.

        cell: the one evaluated, for a measured speed and to know what it keeps; None for a baseline.
        """
        images: dict[tuple[str, str], int] = {}
        texts: dict[tuple[str, str], int] = {}
        for pair in pairs:
            task = TASKS[pair.task]
            for split in self.evaluated_splits(pair):
                count = self.images(pair.dataset, split)
                images[pair.dataset, split] = count.images if count else 0
                if task.needs & {"text", "question"}:
                    texts[pair.dataset, split] = images[pair.dataset, split]
        encoded, one = sum(images.values()), self.encoding
        flops = encoded * one.image_flops + sum(texts.values()) * one.text_flops
        speed = self._speed(cell)
        by_tokens = cell is not None and "late_interaction" in METHODS[cell.method].abilities
        kept = one.image_bytes + (one.token_bytes if by_tokens else 0)
        return Evaluation(encoded, flops / speed.flops if speed else None, encoded * kept)

    def evaluated_splits(self, pair: Pair) -> list[str]:
        """List the splits that a task encodes: those that it needs, and val where there is one to choose on."""
        splits = list(TASKS[pair.task].splits)
        return [*splits, "val"] if "train" in splits else splits

    def _method(self, cell: Cell, meta: bool) -> Method:
        """Build the cell's method as it is before training, on the meta device or with random weights on the CPU."""
        plan = self.plan
        if not meta:
            size = sum(parameter.numel() for parameter in plan.blank_model.parameters())
            if size > MAX_PARAMETERS:
                raise BenchError(
                    f"method '{cell.method}': its cost cannot be counted without weights, and model "
                    f"'{plan.model.name}' has {size / 1e6:,.0f} million parameters (expected at most "
                    f"{MAX_PARAMETERS / 1e6:,.0f} million)"
                )
        model = build_model(plan.model, 0, "meta" if meta else "cpu", weights=False)
        with on_meta() if meta else nullcontext():
            method = build_method(cell.method, model, cell.options)
            tokenizer = self._tokenizer or _LongTexts(method)
            method.setup(tokenizer, plan.classes_of(cell))
        method.model.set_gradient_checkpointing(cell.training.gradient_checkpointing)
        return method.train()

    def _text_length(self, cell: Cell) -> int | None:
        """Return the tokens of a micro-batch's longest text; None if data or tokenizer are not in the cache."""
        datasets = [self.plan.datasets[name] for name in cell.pretraining]
        datasets = [dataset for dataset in datasets if "train" in dataset.splits()]
        if not self._tokenizer or not datasets or not all(dataset.is_read("train") for dataset in datasets):
            return None
        count = cell.training.micro_batch_size
        of_each = math.ceil(count / len(datasets))
        texts = [text for dataset in datasets for text in islice(_first_texts(dataset), of_each)]
        return max(map(len, self._tokenizer(texts)), default=None)

    @cached_property
    def _tokenizer(self) -> Tokenizer | None:
        """The tokenizer; None if it needs a download or data that are not in the cache."""
        card = self.plan.model
        corpus = [self.plan.datasets[name] for name in self.plan.corpus]
        if isinstance(card.tokenizer, CorpusTokenizer):
            if not all(dataset.is_read("train") for dataset in corpus):
                return None
        elif tokenizer_to_download(card.tokenizer):
            return None
        return build_tokenizer(card, lambda: corpus_texts(corpus), cache_root(), corpus_fingerprints(corpus))

    def _speed(self, cell: Cell | None) -> Speed | None:
        """Return the speed of a cell's training on the plan's device; None if the device is not here and not measured.

        That of the nearest measured training: of the method, else of the model with any method. cell: None for what is
        no training.
        """
        if self.speed:
            return Speed(EFFICIENCY * self.speed, "--speed")
        if len(self.costs):
            of_model = self.costs[self.costs.model == self.plan.model.name]
            of_model = of_model[_same_kind(of_model.device, self.plan.device)]
            achieved = of_model.flops_per_sample * _of_one(of_model)
            if cell:
                accumulation = cell.content["training"]["accumulation"]
                same = achieved[(of_model.method == cell.method) & (of_model.accumulation == accumulation)]
                if len(same):
                    return Speed(float(same.iloc[-1]), "the method")
            if len(achieved):
                return Speed(float(achieved.median()), "the model")
        if simulating(self.plan.device) != self.plan.device:
            return None
        return Speed(EFFICIENCY * self._matrix_speed, "a matrix product")

    @cached_property
    def _matrix_speed(self) -> float:
        return matrix_speed(self.plan.device, precision_of(self.plan.config.training, self.plan.device))


@dataclass(frozen=True)
class Preparing:
    """What preparing a dataset takes.

    images: None if no number is known; about: whether any is the card's. unknown: splits whose numbers are not known
    and not counted. disk: bytes of prepared images, of which ``here`` are in the cache already.
    """

    images: int | None
    about: bool
    unknown: list[str]
    disk: int
    here: int


FLOAT = 4
"""Bytes of a number of kept embeddings."""


@dataclass(frozen=True)
class Encoding:
    """What encoding takes: floating-point operations of an image and of a text of the model's maximum length.

    image_bytes: of an image's features and embedding in the store. token_bytes: of its tokens, which only methods that
    compare token by token keep.
    """

    image_flops: float
    text_flops: float
    image_bytes: int
    token_bytes: int

    @property
    def flops(self) -> float:
        """Floating-point operations of a pair."""
        return self.image_flops + self.text_flops


@dataclass(frozen=True)
class Evaluation:
    """The estimated cost of encoding for the evaluations of an encoder.

    seconds: None if the device's speed is unknown. stored: bytes of the images' embeddings in the store.
    """

    images: int
    seconds: float | None
    stored: int


@cache
def _code() -> list[Any]:
    """List the code that counting depends on."""
    files = sorted(Path(benchmark.__file__).parent.rglob("*.py"))
    code = digest([file.read_text(encoding="utf-8") for file in files])
    return [code, [version(name) for name in ("torch", "open_clip_torch", "timm", "transformers")]]


def _identity(method: Method, cell: Cell) -> list[Any]:
    """List everything that counting a step of a method depends on, apart from the training and its data."""
    tensors = [[n, list(t.shape), str(t.dtype), t.requires_grad] for n, t in method.state_dict(keep_vars=True).items()]
    content = [cell.method, cell.content["source"], cell.content["options"], cell.content["model"]]
    return [*_code(), *content, tensors, simulating(torch.device("cuda")).type]


def _remembered(depends_on: list[Any], count: Callable[[], T]) -> T | list[Any]:
    """Return ``count()``, or what it returned before for the same values: counting takes seconds for a large model."""
    file = cache_root() / "estimates" / f"{digest(depends_on)}.json"
    if known := remembered(file):
        return [*known]
    counted = count()
    with suppress(BenchError):  # A plan may be made where nothing can be written.
        remember(file, counted)
    return counted


def _same_kind(devices: "pd.Series[Any]", device: torch.device) -> "pd.Series[Any]":
    """Tell which devices of the cost table, where a GPU has its name, are of the kind of ``device``."""
    others = devices.isin(["cpu", "mps"])
    return ~others if device.type == "cuda" else devices == device.type


def _of_one(costs: "pd.DataFrame") -> "pd.Series[float]":
    """Return the pairs per second that each of some trainings would have reached on one GPU."""
    speeds = costs["samples_per_second"].astype(float)
    if "gpus_per_cell" not in costs:
        return speeds
    micro_batches = np.ceil(costs["batch_size"] / costs["micro_batch"])
    return speeds / (micro_batches / np.ceil(micro_batches / costs["gpus_per_cell"].fillna(1)))


def _weights(method: Method) -> int:
    """Return the bytes of a method's checkpoint: all weights and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in method.state_dict().values())


class _LongTexts:
    """Replaces a tokenizer that is not on this machine: every text has the model's maximum length."""

    start_id, end_id = 1, 2
    fingerprint = ""

    def __init__(self, method: Method) -> None:
        text = method.model.text
        self.pad_id = text.pad_id or 0
        self.context_length, self.vocab_size = text.context_length, text.vocab_size

    def __call__(self, texts: list[str]) -> list[list[int]]:
        words = [3] * (self.context_length - 2)
        return [[self.start_id, *(words if text else []), self.end_id] for text in texts]

    def decode(self, tokens: Iterable[int]) -> str:
        return ""


def _first_texts(dataset: Dataset) -> Iterator[str]:
    """Yield the first text of each training record that has one."""
    texts = dataset.table("train")["text"]
    for row in dataset.rows("train").tolist():
        if text := texts[row].as_py():
            yield text[0]


@cache
def matrix_speed(device: torch.device, precision: str) -> float:
    """Measure briefly how many floating-point operations per second a product of two large matrices reaches."""
    size = 4096 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    best = float("inf")
    for _ in range(4):
        began = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def _measured(cost: "pd.Series[Any]") -> Estimate:
    """Return what a finished cell took, as an estimate."""
    return Estimate(
        samples=int(cost["samples"]),
        flops_per_sample=float(cost["flops_per_sample"]),
        memory=int(cost["peak_memory"]),
        seconds=float(cost["seconds"]),
        source="the cell",
        parameters=Parameters(**{name: int(cost[name]) for name in Parameters.__annotations__}),  # type: ignore[typeddict-item]
        weights=0,
        assumed_length=None,
    )
