"""The hashes that keys are made of: of values, and of the code that defines a method or a task."""

import ast
import hashlib
import importlib.util
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from benchmark.common.errors import BenchError

HARNESS = "benchmark"
PLUGINS = ("benchmark.methods", "benchmark.tasks")
"""The harness's own plug-ins, whose code is part of keys as that of any plug-in is."""


def digest(value: object) -> str:
    """Hash a value to 16 hexadecimal digits: SHA-256 of its canonical JSON.

    The order of a dict's keys does not matter; a tuple equals a list. Raises ``TypeError`` for a value that JSON cannot
    represent; the caller converts it, as its ``str`` may differ between runs.
    """
    _check_keys(value)
    # ensure_ascii also handles the lone surrogates in undecodable file names.
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_keys(value: object) -> None:
    """Raise ``TypeError`` for a dict with non-string keys, as JSON does not distinguish 1 from "1"."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a dict's key must be a string to be hashed, found {key!r}")
            _check_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            if not isinstance(item, str):
                _check_keys(item)


def file_digest(path: Path) -> str:
    """Hash a file with SHA-256; a file whose size and time have not changed is not read again."""
    state = path.stat()
    return _file_digest(path, state.st_size, state.st_mtime_ns)


# A report reads tens of thousands of files, some for every metric.
@lru_cache(maxsize=2**16)
def _file_digest(path: Path, size: int, time: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_of(cls: type) -> str:
    """Hash the code that defines a class, so that a changed formula gives a new key.

    Covers the syntax trees of its module, of its bases' modules and of every module that these import, directly or
    indirectly, if the code is the plug-in's own. The standard library, torch, the harness and installed distributions
    are not, except for the package that the class is installed in. Comments, docstrings, formatting, the order and
    spelling of imports, and the name of the class's module do not change the hash. Modules imported under a computed
    name and data files are not covered.

    Raises ``BenchError`` for a class without a source file (defined in a notebook, say) and for invalid Python.
    """
    code = _PluginCode(cls)
    own = code.file(cls.__module__)
    if own is None:
        raise BenchError(
            f"class {cls.__qualname__} (module {cls.__module__}) has no source file, so its code cannot be "
            "part of a key: move it into a file and load that as a plug-in"
        )
    hashes: dict[Path, str] = {}
    waiting = [base.__module__ for base in cls.__mro__]
    while waiting:
        name = waiting.pop()
        file = code.file(name)
        if file is None or file in hashes:
            continue
        module = _read(file, name, code)
        hashes[file] = module.hash
        waiting += module.imports
    return digest(sorted(("" if file == own else _label(file), value) for file, value in hashes.items()))


def syntax_hash(file: Path, module: str) -> str:
    """Hash the syntax tree of one module of the harness, without the modules that it imports."""
    return _read(file, module, None).hash


class _PluginCode:
    """Tells a plug-in's own modules from all others."""

    def __init__(self, cls: type) -> None:
        """cls: a class of the plug-in; the packages of its bases that build on the harness also count as its own."""
        built_on_harness = [base for base in cls.__mro__ if any(_top(b.__module__) == HARNESS for b in base.__mro__)]
        self._packages = {_top(base.__module__) for base in (cls, *built_on_harness)}

    def file(self, module: str) -> Path | None:
        """Return a module's file; None if the module is not the plug-in's own or has no file."""
        top = _top(module)
        if top == HARNESS:
            return _file(module) if module in PLUGINS or module.startswith(tuple(f"{p}." for p in PLUGINS)) else None
        if top in sys.stdlib_module_names or top == "torch":
            return None
        for name in dict.fromkeys((top, module)):
            file = _file(name)
            if file and top not in self._packages and {"site-packages", "dist-packages"} & {*file.parts}:
                return None
        return file


class _Imported(NamedTuple):
    """What one alias of an import statement binds.

    bound: the name in this module, "*" for all. module: absolute. attribute: the name after ``import`` in a ``from``
    import, else "". names: the modules that the statement may run.
    """

    bound: str
    module: str
    attribute: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class _Module:
    """A module as keys see it. imports: the names of the modules that it imports."""

    hash: str
    imports: list[str]


def _read(file: Path, name: str, code: _PluginCode | None) -> _Module:
    """Read a module. code: tells which imports are the plug-in's own; None if none are."""
    source = file.read_bytes()
    if file.suffix != ".py":
        return _Module(hashlib.sha256(source).hexdigest(), [])
    package = name if file.stem == "__init__" else name.rpartition(".")[0]
    targets: dict[str, set[str]] = defaultdict(set)
    imports: list[str] = []
    for imported in _imports_of(source, file, package):
        files = {module: code.file(module) for module in imported.names} if code else {}
        submodule = f"{imported.module}.{imported.attribute}"
        # Importing a submodule uses nothing that its package defines.
        needed = [submodule] if files.get(submodule) else list(imported.names)
        imports += needed
        targets[imported.bound].add(_target(imported, files))
    names = {bound: "|".join(sorted(target)) for bound, target in targets.items()}
    return _Module(_hash(source, tuple(sorted(names.items()))), imports)


# Every plan asks for the code of all methods and tasks; what was read before need not be parsed again.


@lru_cache(maxsize=512)
def _imports_of(source: bytes, file: Path, package: str) -> list[_Imported]:
    """List all imports of a module. Raises ``BenchError`` naming the file for invalid Python."""
    try:
        return list(_imports(ast.parse(source).body, package))
    except (SyntaxError, ValueError) as error:
        raise BenchError(f"{file}: not valid Python: {error}") from error


@lru_cache(maxsize=512)
def _hash(source: bytes, targets: tuple[tuple[str, str], ...]) -> str:
    """Hash the syntax tree of a module. targets: what its imports bind, and their origins."""
    names = dict(targets)
    return digest([_statements(ast.parse(source).body, names), names.get("*", "")])


def _imports(statements: Iterable[ast.AST], package: str) -> Iterator[_Imported]:
    """Yield all imports of a module, including those inside functions, except those for type checkers only."""
    for node in statements:
        if isinstance(node, ast.If) and _is_type_checking(node.test):
            yield from _imports(node.orelse, package)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    yield _Imported(alias.asname, alias.name, "", (alias.name,))
                else:
                    parts = alias.name.split(".")
                    names = tuple(".".join(parts[: i + 1]) for i in range(len(parts)))
                    yield _Imported(parts[0], parts[0], "", names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                module = ".".join([*above, module] if module else above)
            for alias in node.names:
                names = (module, f"{module}.{alias.name}")
                yield _Imported(alias.asname or alias.name, module, alias.name, names)
        else:
            yield from _imports(ast.iter_child_nodes(node), package)


def _target(imported: _Imported, files: dict[str, Path | None]) -> str:
    """Return the origin of an imported name, whatever its alias: ``numpy``, ``torch.nn.functional``.

    Names of the harness are given without their module, so that moving a module changes no key. A plug-in's module is
    named by its file.
    """
    module, attribute = imported.module, imported.attribute
    submodule = files.get(f"{module}.{attribute}") if attribute else None
    if submodule:
        return _label(submodule)
    own = files.get(module)
    if own:
        return ".".join(filter(None, (_label(own), attribute)))
    if _top(module) == HARNESS:
        return f"{HARNESS}.{attribute or module.rpartition('.')[2]}"
    return ".".join(filter(None, (module, attribute)))


def _file(module: str) -> Path | None:
    """Return the file of a module, imported or not; None if there is none."""
    if module in sys.modules:
        origin = getattr(sys.modules[module], "__file__", None)
    else:
        try:
            spec = importlib.util.find_spec(module)
        except Exception:  # find_spec imports the parent packages, which can fail in any way
            return None
        origin = spec.origin if spec and spec.has_location else None
    file = Path(origin).resolve() if origin else None
    return file if file and file.is_file() else None


def _label(file: Path) -> str:
    return file.parent.name if file.stem == "__init__" else file.stem


def _top(module: str) -> str:
    return module.partition(".")[0]


def _is_type_checking(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))


# The syntax tree as JSON, the same on all versions of Python. Empty fields are left out, as later versions add some,
# and so is everything that does not change what the code does.

_STATEMENT_LISTS = ("body", "orelse", "finalbody")
_NO_EFFECT = ("ctx", "kind", "type_comment", "type_ignores")


def _statements(statements: Iterable[ast.AST], names: dict[str, str]) -> list[Any]:
    kept = []
    for node in statements:
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Pass):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            continue
        if isinstance(node, ast.If) and _is_type_checking(node.test):
            kept += _statements(node.orelse, names)
        else:
            kept.append(_plain(node, names))
    return kept


def _plain(node: Any, names: dict[str, str]) -> Any:
    if isinstance(node, list):
        return [_plain(item, names) for item in node]
    if isinstance(node, ast.Constant):
        # ascii(), not repr(): which characters are printable depends on Python's version of Unicode.
        return ["Constant", type(node.value).__name__, ascii(node.value)]
    if isinstance(node, ast.Name):
        return ["Name", names.get(node.id, node.id)]
    if not isinstance(node, ast.AST):
        return ascii(node)
    fields = []
    for name in node._fields:
        value: Any = getattr(node, name, None)
        if isinstance(node, ast.JoinedStr) and name == "values":
            value = _joined(value)
        elif isinstance(node, ast.Delete) and name == "targets":
            value = [item for target in value for item in (target.elts if isinstance(target, ast.Tuple) else [target])]
        if value is None or value == [] or name in _NO_EFFECT:
            continue
        if name in _STATEMENT_LISTS and isinstance(value, list):
            fields.append([name, _statements(value, names)])
        elif not (isinstance(value, ast.JoinedStr) and not value.values):
            fields.append([name, _plain(value, names)])
    return [type(node).__name__, *fields]


def _joined(values: list[ast.expr]) -> list[ast.expr]:
    """Merge adjacent literal parts of an f-string: versions of Python split them differently."""
    joined: list[ast.expr] = []
    for value in values:
        if isinstance(value, ast.Constant) and joined and isinstance(joined[-1], ast.Constant):
            joined[-1] = ast.Constant(str(joined[-1].value) + str(value.value))
        elif not (isinstance(value, ast.Constant) and value.value == ""):
            joined.append(value)
    return joined
