"""Weights and tokenizers in installed packages: names ``package:NAME/PATH``, with NAME as in an import."""

from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pydantic import BaseModel

from benchmark.common.errors import BenchError

PACKAGE = "package:"
EXTRA = "pip install 'contrastive-benchmark[weights]'"
"""What installs the packages that the shipped cards name."""
Block = TypeVar("Block", bound=BaseModel)


def located(block: Block) -> Block:
    """Replace the names of packages' files in a block of a model card by their paths.

    No code of a package is run. Raises ``BenchError`` for a package that is not installed, and for a file that it has
    not.
    """
    names = {key: getattr(block, key, None) for key in ("name", "pretrained")}
    paths = {key: str(_path(n)) for key, n in names.items() if isinstance(n, str) and n.startswith(PACKAGE)}
    return block.model_copy(update=paths) if paths else block


def _path(name: str) -> Path:
    package, _, file = name.removeprefix(PACKAGE).partition("/")
    if not package.isidentifier() or not file or ".." in PurePosixPath(file).parts:
        raise BenchError(f"{name}: expected {PACKAGE}NAME/PATH, with the name as in an import and a path below it")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        instead = f"{EXTRA} has those of the shipped model cards"
        raise BenchError(f"{name}: the package '{package}' is not installed; {instead}")
    folder = Path(spec.submodule_search_locations[0])
    if not (folder / file).exists():
        raise BenchError(f"{name}: the package in {folder} has no '{file}'; install the version that {EXTRA} does")
    return folder / file
