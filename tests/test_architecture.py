"""The folders are the architecture: imports go down the floors, no files import one another in a circle, and plug-ins
use the public surface alone.

Every import counts: inside functions and for type checking too.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import benchmark

ROOT = Path(__file__).parents[1]
FLOORS = (
    ("common",),
    ("registry", "losses"),
    ("config",),
    ("store",),
    ("data",),
    ("models",),
    ("method",),
    ("training",),
    ("evaluation",),
    ("task",),
    ("plan",),
    ("execution",),
    ("report",),
    ("api",),
    ("perf",),
    ("cli",),
)
"""The folders and files of benchmark/, lowest first. An import goes to a lower floor or stays inside a folder."""
SURFACE = ("benchmark", "benchmark.losses", "benchmark.metrics", "benchmark.probe")
"""What a plug-in may import; these names re-export from wherever the floors have it."""
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, root: Path) -> Iterator[str]:
    """Yield the modules that a file imports: of ``from a import b`` a.b where that is a module, else a."""
    package = path.parent.relative_to(root).parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            for name in node.names:
                inside = root / module.replace(".", "/") / name.name
                yield f"{module}.{name.name}" if inside.is_dir() or inside.with_suffix(".py").is_file() else module


def graph(root: Path) -> dict[str, set[str]]:
    """Return the modules of root/benchmark, each with those of benchmark that it imports; the surface is left out."""
    files = {module_name(path, root): path for path in sorted((root / "benchmark").rglob("*.py"))}
    files = {name: path for name, path in files.items() if name not in SURFACE or name == "benchmark.losses"}
    return {name: {each for each in imports(path, root) if each in files} for name, path in files.items()}


def upward(modules: dict[str, set[str]]) -> list[str]:
    def room(module: str) -> str:
        return module.split(".")[1]

    return [
        f"{name} imports {other}"
        for name, others in modules.items()
        for other in sorted(others)
        if room(name) != room(other) and FLOOR_OF[room(name)] <= FLOOR_OF[room(other)]
    ]


def circle(modules: dict[str, set[str]]) -> list[str]:
    """Return modules that import one another in circles, if there are any: those that are left when modules that import
    no other, and modules that no other imports, are taken away again and again."""
    left = {name: others - {name} for name, others in modules.items()}
    while True:
        imported = set().union(*left.values())
        kept = {name for name, others in left.items() if others and name in imported}
        if len(kept) == len(left):
            return sorted(left)
        left = {name: left[name] & kept for name in kept}


def past_the_surface(folder: Path, root: Path) -> list[str]:
    """Return the imports of benchmark that are neither the surface nor siblings."""
    return [
        f"{path.name} imports {module}"
        for path in sorted(folder.glob("*.py"))
        for module in imports(path, root)
        if module.split(".")[0] == "benchmark" and module not in SURFACE
    ]


def test_every_file_has_a_floor() -> None:
    assert {name.split(".")[1] for name in graph(ROOT)} == set(FLOOR_OF)


def test_no_import_goes_up() -> None:
    assert upward(graph(ROOT)) == []


def test_no_files_import_one_another_in_a_circle() -> None:
    assert circle(graph(ROOT)) == []


@pytest.mark.parametrize("folder", ["methods", "tasks"])
def test_plug_ins_import_the_surface_alone(folder: str) -> None:
    assert past_the_surface(ROOT / folder, ROOT) == []


def test_the_harness_names_no_method_and_no_task() -> None:
    named = [f"{name} imports {m}" for name, path in named_files() for m in imports(path, ROOT) if is_plug_in(m)]
    assert named == []


def named_files() -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / "benchmark").rglob("*.py")):
        yield module_name(path, ROOT), path


def is_plug_in(module: str) -> bool:
    return module.removeprefix("benchmark.").split(".")[0] in ("methods", "tasks")


def test_the_configuration_imports_no_torch() -> None:
    heavy = {
        f"{path.name} imports {module}"
        for path in (ROOT / "benchmark" / "config").glob("*.py")
        for module in imports(path, ROOT)
        if module.split(".")[0] in ("torch", "transformers", "open_clip", "timm", "datasets", "pandas")
    }
    assert heavy == set()


def test_the_surface_is_what_it_says() -> None:
    for name in benchmark.__all__:
        assert getattr(benchmark, name) is not None
    typed = ast.parse((ROOT / "benchmark" / "__init__.py").read_text())
    (checking,) = (
        node for node in typed.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    )
    for_types = {
        alias.asname: node.module for node in checking.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert for_types == benchmark._MODULE_OF


def test_broken_layouts_are_noticed(tmp_path: Path) -> None:
    files = {
        "common/errors.py": "",
        "data/card.py": "def f():\n    from benchmark.plan import make\n",
        "plan/make.py": "from benchmark.common.errors import X\nfrom benchmark.plan.tuned import y\n",
        "plan/tuned.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from benchmark.plan.make import z\n",
    }
    for name, text in files.items():
        path = tmp_path / "benchmark" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    modules = graph(tmp_path)
    assert upward(modules) == ["benchmark.data.card imports benchmark.plan.make"]
    assert circle(modules) == ["benchmark.plan.make", "benchmark.plan.tuned"]
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "mine.py").write_text(
        "from benchmark import Method\nfrom benchmark.losses import info_nce\nfrom .other import x\n"
        "from benchmark.plan.make import make_plan\n"
    )
    (tmp_path / "methods" / "other.py").write_text("x = 1\n")
    assert past_the_surface(tmp_path / "methods", tmp_path) == ["mine.py imports benchmark.plan.make"]
