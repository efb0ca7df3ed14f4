"""Estimate the cost of a cell before it runs: operations counted without weights, time from this machine's speed."""

import json
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from traceback import extract_tb
from typing import TYPE_CHECKING, Any

import torch

from benchmark.common.errors import BenchError
from benchmark.common.hub import one_line
from benchmark.data.dataset import Dataset
from benchmark.data.streamed import corpus_texts
from benchmark.method import Method
from benchmark.models import Tokenizer, build_model, build_tokenizer
from benchmark.models.card import CorpusTokenizer
from benchmark.models.download import tokenizer_to_download
from benchmark.plan.plan import Cell, Plan
from benchmark.plan.resolve import build_method
from benchmark.store.cache import cache_root
from benchmark.training.cost import (
    Parameters,
    Shape,
    flops_budget_steps,
    on_meta,
    parameter_columns,
    simulated_cost,
    simulated_flops,
    simulated_or_real,
    total_flops,
)
from benchmark.training.schedule import precision_of, stage_starts, training_steps

if TYPE_CHECKING:
    import pandas as pd

EFFICIENCY = 0.35
"""Training speed as a fraction of that of a large matrix product; used until a cell of the model is measured."""

MAX_PARAMETERS = 300_000_000
"""The most parameters that a model may have to be built for counting, if counting fails without weights."""


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a training.

    samples: pairs trained on, with repetitions. flops_per_sample: of a step, the mean over the stages. memory: peak in
    bytes. seconds: of the training. measured: whether the time is derived from a cell of the same method and model in
    the store. parameters: as in the cost table. assumed_length: the tokens of a text that were assumed where texts
    could not be read from the data, the model's maximum; None: texts are as long as the data's.
    """

    samples: int
    flops_per_sample: float
    memory: int
    seconds: float
    measured: bool
    parameters: Parameters
    assumed_length: int | None


class Estimator:
    """Estimates the cells of a plan. costs: the store's cost table, the source of measured speeds."""

    def __init__(self, plan: Plan, costs: "pd.DataFrame") -> None:
        self.plan = plan
        self.costs = costs
        self._flops_per_second: float | None = None
        self._estimates: dict[str, Estimate] = {}

    def cell(self, cell: Cell, pairs: int | None = None) -> Estimate:
        """Estimate one cell; a finished one has the cost that was measured.

        pairs: the number of training pairs, needed for a budget in epochs.
        """
        if len(self.costs) and len(measured := self.costs[self.costs["cell"] == cell.key]):
            return _measured(measured.iloc[-1])
        # Cells that differ only in the seed cost the same.
        key = json.dumps([cell.method, cell.options, cell.training.model_dump(), cell.pretraining, pairs])
        if key not in self._estimates:
            self._estimates[key] = self._estimate(cell, pairs)
        return self._estimates[key]

    def _estimate(self, cell: Cell, pairs: int | None) -> Estimate:
        training, device = cell.training, self.plan.device
        method = self._method(cell, meta=True)
        limit = method.model.text.context_length
        longest = min(limit, self.plan.model.tokenizer.context_length or limit)
        known = self._text_length(cell)
        size = method.model.image_size
        shape = Shape(training.resolution or size, size, known or longest, training.augmentation)

        def count(real: bool) -> tuple[int, float, int]:
            copied = self._method(cell, meta=False) if real else method
            if training.flops is not None:
                steps = flops_budget_steps(copied, shape, training, device, real)
            elif training.time is not None:
                first = simulated_flops(copied, shape, training, device, 1, real)
                per_step = self._seconds(cell, max(first.values()))[0] * training.batch_size
                steps = training_steps(training, 0, lambda: per_step)
            elif training.epochs is not None:
                steps = max(1, round(training.epochs * ((pairs or 0) // training.batch_size)))
            else:
                steps = training_steps(training, 0, lambda: math.nan)
            step = simulated_cost(copied, shape, training, device, steps, real)
            flops = total_flops(step.flops, stage_starts(copied, steps), steps, training.batch_size)
            return steps, flops / (steps * training.batch_size), step.memory

        try:
            steps, flops, memory = simulated_or_real(count)
        except BenchError:
            raise
        except Exception as error:
            frame = extract_tb(error.__traceback__)[-1]
            raise BenchError(
                f"method '{cell.method}': a step fails, {one_line(error)} ({frame.filename}, line {frame.lineno})"
            ) from error
        per_sample, measured = self._seconds(cell, flops)
        samples = steps * training.batch_size
        return Estimate(
            samples,
            flops,
            memory,
            samples * per_sample,
            measured,
            parameter_columns(method),
            longest if known is None else None,
        )

    def _method(self, cell: Cell, meta: bool) -> Method:
        """Build the cell's method as it is before training, on the meta device or with random weights on the CPU."""
        plan = self.plan
        if not meta:
            size = sum(parameter.numel() for parameter in build_model(plan.model, 0, "meta").parameters())
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
        count = min(cell.training.micro_batch, cell.training.batch_size)
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
        return build_tokenizer(card, lambda: corpus_texts(corpus), cache_root())

    def _seconds(self, cell: Cell, flops: float) -> tuple[float, bool]:
        """Return the seconds per sample, and whether they were measured. flops: per sample."""
        if len(self.costs):
            same = self.costs[(self.costs.method == cell.method) & (self.costs.model == cell.label["model"])]
            same = same[same.accumulation == cell.content["training"]["accumulation"]]
            if len(same):
                return 1 / float(same.samples_per_second.iloc[-1]), True
        if self._flops_per_second is None:
            precision = precision_of(cell.training, self.plan.device)
            self._flops_per_second = EFFICIENCY * matrix_speed(self.plan.device, precision)
        return flops / self._flops_per_second, False


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
        measured=True,
        parameters=Parameters(**{name: int(cost[name]) for name in Parameters.__annotations__}),  # type: ignore[typeddict-item]
        assumed_length=None,
    )
