"""A registry of classes by name, used for methods and for tasks, and the loading of plug-ins."""

import ast
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import ClassVar, Generic, TypeVar
from zlib import crc32

from benchmark.common.errors import BenchError, said, unknown

ENTRY_POINT_GROUP = "benchmark.plugins"
T = TypeVar("T")


class Registry(Generic[T]):
    """Classes by name. A decorator registers a class; the first lookup loads the installed plug-ins."""

    registrations: ClassVar[int] = 0
    """How many classes have been registered in this process, in all registries."""

    def __init__(self, kind: str, base: type[T], required: tuple[str, ...] = ()) -> None:
        """required: the methods that each class must define itself."""
        self.kind = kind
        self.base = base
        self.required = required
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Register the decorated class under a name.

        Raises ``BenchError`` for a class that is not a subclass of ``base``, that lacks what ``base`` leaves to its
        subclasses or whose Config is not a dataclass, and for a name that is taken.
        """

        def decorate(cls: type[T]) -> type[T]:
            where = f"{self.kind} '{name}' ({_file_of(cls)})"
            if not (isinstance(cls, type) and issubclass(cls, self.base)):
                raise BenchError(f"{where}: {_name_of(cls)} is not a subclass of {self.base.__name__}")
            for method in self.required:
                if getattr(cls, method) is getattr(self.base, method):
                    raise BenchError(f"{where}: {cls.__name__} does not define {method}()")
            # A subclass of a dataclass is a dataclass only in name: its own options are fields once it is decorated.
            config = getattr(cls, "Config", None)
            if config and "__dataclass_fields__" not in vars(config):
                raise BenchError(f"{where}: {cls.__name__}.Config is not a dataclass; write @dataclass above it")
            taken = self._classes.get(name)
            if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
                raise BenchError(f"{where}: the name is taken by a class in {_file_of(taken)}; choose another name")
            cls.name = name  # type: ignore[attr-defined]
            self._classes[name] = cls
            Registry.registrations += 1
            return cls

        return decorate

    def __getitem__(self, name: str) -> type[T]:
        """Return the class of a name. Raises ``BenchError`` with the nearest name for an unknown one."""
        if name not in self._classes:
            # They take seconds to import, and one that is registered may be all that is needed.
            load_plugins()
        if name not in self._classes:
            raise unknown(self.kind, name, self._classes, f"bench list {self.kind}s")
        return self._classes[name]

    def title(self, cls: type[T]) -> str:
        """Name a class in a message: what it is, its name, and the class itself."""
        return f"{self.kind} '{getattr(cls, 'name', '')}' ({cls.__name__})"

    def names(self) -> list[str]:
        """List all names in alphabetical order."""
        load_plugins()
        return sorted(self._classes)


def _file_of(registered: object) -> str:
    """Return the file that defines a class or function, or its module if that has no file."""
    module = getattr(registered, "__module__", "?")
    return str(getattr(sys.modules.get(module), "__file__", None) or module)


def _name_of(registered: object) -> str:
    return getattr(registered, "__name__", repr(registered))


def installed_plugins() -> list[tuple[str, str]]:
    """Return name and module of each installed plug-in; if that is a package, the plug-in has all its modules."""
    return sorted({(point.name, point.value) for point in entry_points(group=ENTRY_POINT_GROUP)})


@cache
def load_plugins() -> None:
    """Import the plug-ins installed under the entry point group, each a module or a package with all its modules.

    Raises ``BenchError`` for a plug-in that cannot be imported.
    """
    for name, package in installed_plugins():
        try:
            module = importlib.import_module(package)
            for info in pkgutil.iter_modules(getattr(module, "__path__", [])):
                importlib.import_module(f"{package}.{info.name}")
        except (BenchError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise BenchError(f"plug-in '{name}' ({package}) cannot be imported: {said(error)}") from error


def load_files(paths: Iterable[str | Path]) -> None:
    """Import the user's files (``--plugin my_method.py``), which register methods or tasks.

    A file can import the modules in its folder by name, as a script can. Raises ``BenchError`` for a file that cannot
    be loaded, and if Python resolves such an import to a module outside the folder.
    """
    for path in map(Path, paths):
        if not path.is_file():
            raise BenchError(f"--plugin {path}: no such file")
        # The name includes the path: two files called method.py in different folders are two modules.
        name = f"benchmark_plugin_{path.stem}_{crc32(os.fsencode(path.resolve())):08x}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise BenchError(f"--plugin {path}: not a Python file (expected a name ending in .py)")
        folder = path.resolve().parent
        if str(folder) not in sys.path:
            # Appended, so that a file yaml.py beside the plug-in does not shadow what the harness imports.
            sys.path.append(str(folder))
            importlib.invalidate_caches()
        before = Registry.registrations
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BenchError:
            _check_beside(path, folder)
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            _check_beside(path, folder)
            raise BenchError(f"--plugin {path}: {said(error)}") from error
        _check_beside(path, folder)
        if Registry.registrations == before:
            raise BenchError(f'--plugin {path}: registers nothing; put @register_method("name") above a class')


def _check_beside(path: Path, folder: Path) -> None:
    """Raise ``BenchError`` if an import of a plug-in resolved to a module other than the one in its folder.

    That other module is an installed package, or lies beside another plug-in.
    """
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in {name.partition(".")[0] for name in names}:
            loaded = getattr(sys.modules.get(name), "__file__", None)
            beside = next(
                (file for file in (folder / f"{name}.py", folder / name / "__init__.py") if file.is_file()), None
            )
            if beside and loaded and Path(loaded).resolve() != beside:
                raise BenchError(f"--plugin {path}: import {name} finds {loaded}, not {beside}; rename the latter")
