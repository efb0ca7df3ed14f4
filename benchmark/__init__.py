"""Compare ways of contrastive image-text pretraining on downstream tasks.

A plug-in needs no more than ``from benchmark import Method, Output, Task, register_method, register_task``.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Measurement", "Method", "Output", "Task", "register_method", "register_task"]

if TYPE_CHECKING:
    from benchmark.method import Method, Output, register_method
    from benchmark.task import Measurement, Task, register_task


def __getattr__(name: str) -> Any:
    """The contracts import torch, which takes seconds: `bench --help` should not wait for it."""
    from importlib import import_module

    if name in ("Method", "Output", "register_method"):
        return getattr(import_module("benchmark.method"), name)
    if name in ("Measurement", "Task", "register_task"):
        return getattr(import_module("benchmark.task"), name)
    raise AttributeError(f"module 'benchmark' has no attribute '{name}'")
