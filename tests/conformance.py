"""Conformance suites applied to what a file of the user's registers, in this process and only for a test."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmark.registry import Registry, load_files


@contextmanager
def registered(registry: Registry, path: Path, source: str) -> Iterator[None]:
    """While it lasts, the registry has what the source registers."""
    names = registry.names()
    path.write_text(source)
    load_files([path])
    try:
        yield
    finally:
        for name in set(registry.names()) - set(names):
            del registry._classes[name]


def checks_of(suite: ModuleType) -> dict[str, Callable[..., None]]:
    return {name: test for name, test in vars(suite).items() if name.startswith("test_")}


def judge(test: Callable[..., None], **values: Any) -> None:
    """Call a test with those of the values that it takes."""
    test(**{name: values[name] for name in inspect.signature(test).parameters})
