"""Find and read the YAML files of suites, models and datasets."""

from pathlib import Path
from typing import Any

import yaml

from benchmark.common.errors import BenchError, unknown

# libyaml, if PyYAML was built with it, is eight times as fast.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def configs_folder() -> Path:
    """Return the folder of the shipped YAML: in the installed package, or at the top of a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def published_models_folder() -> Path:
    """Return the folder of the cards of published models, which differ from those of models to train."""
    return configs_folder() / "models" / "published"


def find_config(kind: str, name: str) -> Path:
    """Find the YAML file of ``name`` in configs/``kind``s; a path to a YAML file is used unchanged.

    Raises ``BenchError``, with the nearest name, when there is none.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise BenchError(f"{kind} '{name}': no such file (in {Path.cwd()})")
        return path
    folder = configs_folder() / f"{kind}s"
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise unknown(kind, name, config_names(kind), f"bench list {kind}s")
    return path


def config_names(kind: str) -> list[str]:
    """Return the names of the shipped YAML files of a kind ("suite", "model", "dataset")."""
    return sorted(path.stem for path in (configs_folder() / f"{kind}s").glob("*.yaml"))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping; raises ``BenchError`` with file and line where it does not."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = (error.problem or "").replace("did not find expected", "expected")
        raise BenchError(f"{path}: {at}not valid YAML: {problem}") from error
    except yaml.YAMLError as error:
        raise BenchError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path}: cannot be read: {error}") from error
    if not isinstance(document, dict):
        if document is None:
            raise BenchError(f"{path} is empty; expected a mapping of keys to values")
        kinds: dict[type, str] = {
            list: "a list",
            str: "a text",
            bool: "true or false",
            int: "a number",
            float: "a number",
        }
        kind = kinds.get(type(document), "a date")
        raise BenchError(f"{path}: expected a mapping of keys to values, found {kind}")
    return document
