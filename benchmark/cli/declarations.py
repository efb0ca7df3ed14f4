"""Read the declarations of methods and tasks from their source, as importing them imports torch, which is slow."""

import ast
import importlib.util
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmark.registry import installed_plugins

ROOTS = {"method": ("benchmark.method", "Method"), "task": ("benchmark.task", "Task")}
"""The base class of each kind; its attributes are the defaults."""


class Unreadable(Exception):
    """Raised for a declaration that cannot be read from source and needs an import."""


NOT_LISTED = ("headlines",)
"""Attributes that no list shows, and that need not be literals."""


def declared(kind: str) -> dict[str, Any]:
    """Return every installed method or task by name, as an object with its class attributes, including inherited ones.

    kind: "method" or "task". Raises ``Unreadable`` unless every plug-in registers by a decorator
    ``@register_method("name")`` on a class whose attributes are literals.
    """
    declarations: dict[str, Any] = {}
    for name, module, cls in _registered(f"register_{kind}"):
        if name in declarations:
            raise Unreadable(f"{kind} '{name}' is registered twice")
        declarations[name] = SimpleNamespace(**_attributes(module, cls, ROOTS[kind]))
    return dict(sorted(declarations.items()))


def _registered(decorator: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, module and class of everything that the plug-ins register."""
    for module in _plugin_modules():
        unexplained = 0
        for node in ast.walk(_tree(module)):
            if isinstance(node, ast.alias):
                if node.name == decorator and node.asname:
                    raise Unreadable(f"{module}: {decorator} is imported under another name")
            elif decorator in (getattr(node, "id", ""), getattr(node, "attr", "")):
                unexplained += 1
        for cls in _classes(module).values():
            for call in cls.decorator_list:
                match call:
                    case ast.Call(func=ast.Name(id=called), args=[ast.Constant(value=str(name))]) if (
                        called == decorator
                    ):
                        unexplained -= 1
                        yield name, module, cls.name
        if unexplained:
            raise Unreadable(f"{module}: {decorator} is used other than as a decorator of a class")


def _plugin_modules() -> Iterator[str]:
    for _, name in installed_plugins():
        yield name
        for info in pkgutil.iter_modules(_spec(name).submodule_search_locations or []):
            yield f"{name}.{info.name}"


def _attributes(module: str, name: str, root: tuple[str, str]) -> dict[str, Any]:
    """Return the attributes of a class, including those of its base class."""
    cls = _classes(module).get(name)
    if cls is None:
        raise Unreadable(f"{module}: no class {name}")
    inherited: dict[str, Any] = {}
    if (module, name) != root:
        match cls.bases:
            case [ast.Name(id=base)]:
                inherited = _attributes(*_origin(module, base, root), root)
            case _:
                raise Unreadable(f"{module}: {name} does not have a single base class with a plain name")
    return inherited | dict(_own_attributes(cls))


def _origin(module: str, name: str, root: tuple[str, str]) -> tuple[str, str]:
    """Return the module that defines a name used in ``module``, and the name there."""
    if name in _classes(module):
        return module, name
    for node in _tree(module).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    package = _spec(module).parent or ""
                    source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                    return root if (source, alias.name) == ("benchmark", root[1]) else (source, alias.name)
    raise Unreadable(f"{module}: {name} is neither defined as a class nor imported by name")


def _own_attributes(cls: ast.ClassDef) -> Iterator[tuple[str, Any]]:
    for node in cls.body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=value)
            ):
                if value is not None and name not in NOT_LISTED:
                    yield name, _literal(value)
            case ast.Expr() | ast.FunctionDef() | ast.ClassDef() | ast.AnnAssign():
                pass
            case _:
                raise Unreadable(f"class {cls.name}: line {node.lineno} is not a plain declaration")


def _literal(node: ast.expr) -> Any:
    match node:
        case ast.Call(func=ast.Name(id="frozenset"), args=arguments, keywords=[]):
            return frozenset(*map(_literal, arguments))
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise Unreadable(f"line {node.lineno}: the value is not a literal") from error


def _classes(module: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in _tree(module).body if isinstance(node, ast.ClassDef)}


@cache
def _tree(module: str) -> ast.Module:
    origin = _spec(module).origin or ""
    if not origin.endswith(".py"):
        raise Unreadable(f"{module}: no Python source")
    try:
        return ast.parse(Path(origin).read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError) as error:
        raise Unreadable(f"{origin}: {error}") from error


@cache
def _spec(module: str) -> Any:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise Unreadable(f"{module}: not found")
    return spec
