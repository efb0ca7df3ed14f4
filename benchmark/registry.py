"""One generic registry, for methods and for tasks."""

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Generic, TypeVar

from benchmark.common.errors import BenchError, unknown

ENTRY_POINT_GROUP = "benchmark.plugins"


T = TypeVar("T")


class Registry(Generic[T]):
    """Classes by name. Registering is a decorator; looking up loads the installed plug-ins first.

    Raises ``BenchError`` for a class that is not a subclass of ``base``, for a name taken by another class, and for
    an unknown name (with the nearest one).
    """

    def __init__(self, kind: str, base: type[T]) -> None:
        self.kind = kind
        self.base = base
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        def decorate(cls: type[T]) -> type[T]:
            if not (isinstance(cls, type) and issubclass(cls, self.base)):
                raise BenchError(f"{self.kind} '{name}': {cls!r} is not a subclass of {self.base.__name__}")
            taken = self._classes.get(name)
            if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
                both = f"{taken.__module__} and {cls.__module__}"
                raise BenchError(f"{self.kind} '{name}' is registered twice: by {both}")
            cls.name = name  # type: ignore[attr-defined]
            self._classes[name] = cls
            return cls

        return decorate

    def __getitem__(self, name: str) -> type[T]:
        load_plugins()
        if name not in self._classes:
            raise unknown(self.kind, name, self._classes, f"bench list {self.kind}s")
        return self._classes[name]

    def names(self) -> list[str]:
        load_plugins()
        return sorted(self._classes)


def installed_plugins() -> list[tuple[str, str]]:
    """Return the name and the module of each installed plug-in; of a package, all modules belong to the plug-in."""
    return sorted({(point.name, point.value) for point in entry_points(group=ENTRY_POINT_GROUP)})


@cache
def load_plugins() -> None:
    """Import what is installed under the entry point group: a module, or a package with all its modules."""
    for name, package in installed_plugins():
        try:
            module = importlib.import_module(package)
            for info in pkgutil.iter_modules(getattr(module, "__path__", [])):
                importlib.import_module(f"{package}.{info.name}")
        except ImportError as error:
            raise BenchError(f"plug-in '{name}' ({package}) cannot be imported: {error}") from error


def load_files(paths: Iterable[str | Path]) -> None:
    """Import files of the user's (``--plugin my_method.py``), so that what they register is known."""
    for path in map(Path, paths):
        if not path.is_file():
            raise BenchError(f"--plugin {path}: no such file")
        name = f"benchmark_plugin_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise BenchError(f"--plugin {path}: not a Python file (expected a name ending in .py)")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BenchError:
            raise
        except Exception as error:
            raise BenchError(f"--plugin {path}: {type(error).__name__}: {error}") from error
