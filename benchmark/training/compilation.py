"""Compile the towers of a method block by block (``training.compile``)."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.models.tower import ImageTower, TextTower

BACKEND = "inductor"
VARIANTS = 64
"""The most variants of a block that torch keeps: by tower, shape, mode, and with or without gradient."""
LENGTHS = 4
"""The number of lengths that texts are padded to: compiled code is of one shape."""


def compile_blocks(method: Method) -> None:
    """Compile each block of the towers by itself.

    Blocks of the same code, shapes and settings share what is compiled, so that it takes as long as one block, and not
    as long as the tower; what is between the blocks may be any Python. Teachers are compiled like the towers.
    """
    torch._dynamo.config.recompile_limit = max(VARIANTS, torch._dynamo.config.recompile_limit)
    for block in blocks(method):
        block.compile(backend=BACKEND, dynamic=False)


def blocks(method: nn.Module) -> Iterator[nn.Module]:
    """Yield the blocks of all towers of a method: the parts of their layer groups that are made of several layers.

    A tower without any is one block.
    """
    done: set[int] = set()
    for tower in method.modules():
        if isinstance(tower, ImageTower | TextTower):
            parts = (part for group in tower.layer_groups() for part in group if isinstance(part, nn.Module))
            for block in [part for part in parts if any(True for _ in part.children())] or [tower]:
                if id(block) not in done:
                    done.add(id(block))
                    yield block


def padded(batch: Batch, method: Method) -> Batch:
    """Return a batch whose texts are padded to one of ``LENGTHS`` lengths."""
    limit = method.model.text.context_length
    step = math.ceil(limit / LENGTHS)
    length = batch.tokens.shape[1]
    return batch.padded(max(length, min(limit, step * math.ceil(length / step))))


def uncompiled(compiled: bool) -> AbstractContextManager[object]:
    """Make the context in which operators are counted: compiled code has none."""
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
