"""Find and read the YAML files of suites, models and datasets."""

from pathlib import Path
from typing import Any

import yaml

from benchmark.common.errors import BenchError, cut, reading_failed, unknown

MOST_BYTES = 1 << 22
MOST_VALUES = 200_000
"""The most values in a document, each counted as often as aliases repeat it."""
MOST_DEEP = 50
"""The most mappings and lists within one another."""
# libyaml, if PyYAML was built with it, is eight times as fast.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):  # type: ignore[misc]
    """PyYAML's loader of plain values."""


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
        if not (is_there(path) and path.is_file()):
            raise BenchError(f"{kind} '{cut(name)}': no such file (in {Path.cwd()})")
        return path
    folder = configs_folder() / f"{kind}s"
    path = folder / f"{name}.yaml"
    if not (is_there(path) and path.is_file()):
        raise unknown(kind, name, config_names(kind), f"bench list {kind}s")
    return path


def is_there(path: Path) -> bool:
    """Return whether there is a file or folder; not where no file can have such a name, as one that is too long."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def config_names(kind: str) -> list[str]:
    """Return the names of the shipped YAML files of a kind ("suite", "model", "dataset")."""
    return sorted(path.stem for path in (configs_folder() / f"{kind}s").glob("*.yaml"))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping; raises ``BenchError`` with file and line where it does not."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BenchError(f"{path}: more than {MOST_BYTES:,} bytes are no configuration")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BenchError(f"{path}: not UTF-8: {error.reason} at byte {error.start:,}") from error
    except OSError as error:
        raise reading_failed(f"{path}: cannot be read: {error.strerror or error}", error) from error
    document = parse_yaml(text, str(path))
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


def parse_yaml(text: str, where: str) -> Any:
    """Parse a YAML document of plain values: it runs no code, ends soon and makes nothing large.

    where: the file or the option, for messages. Raises ``BenchError`` for what is no YAML, for tags, for integers that
    no setting can have, and for a document that is too deep or, with its aliases, too large.
    """
    try:
        _check_size(text)
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f"line {mark.line + 1}, column {mark.column + 1}: " if mark and "\n" in text.strip() else ""
        problem = (error.problem or "").replace("did not find expected", "expected")
        raise BenchError(f"{where}: {at}not valid YAML: {cut(problem)}") from error
    except yaml.YAMLError as error:
        raise BenchError(f"{where}: not valid YAML: {cut(str(error))}") from error
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
        # PyYAML's constructors of dates, binary data and tagged scalars raise what their parsers do.
        raise BenchError(f"{where}: not valid YAML: {cut(str(error))}") from error


def _check_size(text: str) -> None:
    """Raise ``yaml.YAMLError`` for a document that nests too deep or has too many values, counting those of aliases."""
    # A stack of the containers that are open: their anchors, and the values so far in them.
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = [(None, 0)]
    events: Any = yaml.parse(text, _Loader)
    for event in events:
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = opened.pop()
            size += 1
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, 0))
            if len(opened) > MOST_DEEP:
                raise _refusal(f"more than {MOST_DEEP} levels", event)
            continue
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in (anchor for anchor, _ in opened):
                raise _refusal(f"*{event.anchor} is within itself", event)
            anchor, size = None, sizes.get(str(event.anchor), 1)
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1
        else:
            continue
        if anchor is not None:
            sizes[anchor] = size
        outer, before = opened[-1]
        opened[-1] = outer, before + size
        if before + size > MOST_VALUES:
            raise _refusal(f"more than {MOST_VALUES:,} values", event)


def _refusal(problem: str, event: Any) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def _integer(loader: Any, node: yaml.ScalarNode) -> int:
    value: int = loader.construct_yaml_int(node) if len(node.value) < 100 else 1 << 64
    if abs(value) >= 1 << 64:
        raise yaml.MarkedYAMLError(problem="an integer of more than 64 bits", problem_mark=node.start_mark)
    return value


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
