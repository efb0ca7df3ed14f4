"""Cases of the conformance suite: every registered method and mode, its variants, and a method in its training."""

from collections.abc import Iterator
from copy import deepcopy
from functools import lru_cache
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import Tensor

from benchmark.common.ranges import SameText
from benchmark.common.seeding import stream, torch_seed
from benchmark.config.augmentation import Augmentation
from benchmark.data.batch import Batch
from benchmark.method import METHODS, Method
from benchmark.training.accumulation import accumulate
from tests.methods.fakes import Pairs, double, small_method

METHOD_MODES = [(name, mode) for name in METHODS.names() for mode in METHODS[name].accumulation]
AUGMENTATION = Augmentation(crop_scale=(0.5, 1.0), flip=0.5, brightness=0.2, contrast=0.2)


def variants(name: str) -> Iterator[dict[str, object]]:
    """The defaults, and each other choice of each option that is one of several."""
    yield {}
    config = METHODS[name].Config
    for option, hint in get_type_hints(config).items():
        choices = (False, True) if hint is bool else get_args(hint) if get_origin(hint) is Literal else ()
        yield from ({option: choice} for choice in choices if choice != getattr(config, option))


CASES = [
    pytest.param(name, mode, options, same_text, id="-".join([name, mode, *map(str, options.values()), same_text]))
    for name, mode in METHOD_MODES
    for options in variants(name)
    for same_text in (get_args(SameText) if not options and "same_text" in METHODS[name].follows else ["negative"])
]


def split(pairs: Pairs, sizes: list[int]) -> list[Batch]:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [pairs.batch(start, size) for start, size in zip(starts, sizes)]


def warmed(name: str, same_text: SameText = "negative", **options: object) -> Method:
    """A method in the middle of its training: past its warm-up, with whatever state a few steps leave."""
    return deepcopy(_warmed(METHODS[name], name, same_text, tuple(options.items())))


@lru_cache(maxsize=32)
def _warmed(cls: type[Method], name: str, same_text: SameText, options: tuple[tuple[str, object], ...]) -> Method:
    """cls: the one of this name now, as another may be registered under it later."""
    method = double(small_method(name, dropout=0.1, patch_dropout=0.25, **dict(options))).train()
    method.same_text = same_text
    method.epoch = 2.0
    pairs = Pairs(16, seed=5, augmentation=AUGMENTATION, texts=5)
    for step in range(2):
        _, keys = accumulate(method, [pairs.batch(8 * step, 8)], method.accumulation[0], step)
        method.after_step(keys)
        method.zero_grad(set_to_none=True)
    return method


def full_batch_gradient(method: Method, batches: list[Batch], seed: int, apart: bool = False) -> dict[str, Tensor]:
    """The gradient of the effective batch in one graph, the micro-batches in the same random states. apart: each
    micro-batch is contrasted alone.
    """
    outputs, keys = [], []
    for i, batch in enumerate(batches):
        with torch_seed(stream(seed, "forward", i)):
            outputs.append(method(batch))
        with torch_seed(stream(seed, "keys", i)):
            keys.append(method.keys(batch) | {"text_hash": batch.text_hash})

    def gather(parts: list[dict[str, Tensor]], name: str) -> Tensor:
        values = [part[name] for part in parts]
        if values[0].ndim > 1:
            wide = max(v.shape[1] for v in values)
            values = [torch.cat([v, v.new_zeros(len(v), wide - v.shape[1], *v.shape[2:])], 1) for v in values]
        return torch.cat(values)

    total = sum(map(len, batches))
    loss = sum(sum(output.losses.values()) * len(batch) / total for batch, output in zip(batches, outputs))
    for part in [slice(i, i + 1) for i in range(len(batches))] if apart else [slice(None)]:
        count = sum(map(len, batches[part]))
        part_keys = {n: gather(keys[part], n) for n in keys[0]} | {"index": torch.arange(count)}
        embeddings = {n: gather([o.embeddings for o in outputs[part]], n) for n in outputs[0].embeddings}
        loss = loss + sum(method.contrast(embeddings, part_keys).values()) * count / total
    loss.backward()
    gradient = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
    method.zero_grad(set_to_none=True)
    return gradient
