"""Class numbers in tables that ``datasets`` wrote, which carry the classes' names, and columns inside of others."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from benchmark.data.problems import BadRow

if TYPE_CHECKING:
    import pyarrow as pa

Named = Callable[[Any], Any]
"""Returns a value with class numbers replaced by names. Raises ``BadRow`` for a number without a name."""


def class_names(features: Any) -> dict[str, Named]:
    """For each column with class numbers, alone, in lists or in objects, the function that names them.

    features: the description of the columns that ``datasets`` stores with a table, in any of its versions.
    """
    if not isinstance(features, Mapping):
        return {}
    named = {str(name): _named(feature) for name, feature in features.items()}
    return {name: function for name, function in named.items() if function}


def _named(feature: Any) -> Named | None:
    """The function for a feature, or None where it has no class numbers."""
    if isinstance(feature, list):
        return _each(_named(feature[0])) if len(feature) == 1 else None
    if not isinstance(feature, Mapping):
        return None
    kind = feature.get("_type")
    if kind == "ClassLabel":
        names = feature.get("names")
        return _one(list(map(str, names))) if isinstance(names, list) else None
    if not isinstance(kind, str):
        return _fields(class_names(feature))
    # List and LargeList, and Sequence before them, which turned a list of objects into an object of lists.
    inner = feature.get("feature")
    if isinstance(inner, Mapping) and not isinstance(inner.get("_type"), str):
        fields = class_names(inner)
        return _either(_each(_fields(fields)), _fields({name: _maybe_each(named) for name, named in fields.items()}))
    return _each(_named(inner))


def _one(names: list[str]) -> Named:
    def named(value: Any) -> Any:
        # A column may have been changed without its description: then it may no longer hold numbers.
        if not isinstance(value, int):
            return value
        if value >= len(names):
            raise BadRow("unknown class", f"class number {value}; the file has names for 0 to {len(names) - 1}")
        return names[value] if value >= 0 else None

    return named


def _each(named: Named | None) -> Named | None:
    if named is None:
        return None
    return lambda value: [named(item) for item in value] if isinstance(value, list) else value


def _maybe_each(named: Named) -> Named:
    return lambda value: [named(item) for item in value] if isinstance(value, list) else named(value)


def _fields(fields: dict[str, Named]) -> Named | None:
    def named(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return value | {name: function(value[name]) for name, function in fields.items() if name in value}

    return named if fields else None


def _either(of_list: Named | None, of_object: Named | None) -> Named | None:
    if of_list is None or of_object is None:
        return None
    return lambda value: of_list(value) if isinstance(value, list) else of_object(value)


def inner_columns(schema: "pa.Schema") -> dict[str, tuple[str, ...]]:
    """The columns inside of others, in objects or in lists of objects: ``column.name``, and the names on the way."""
    return {".".join(path): path for field in schema for path in _paths((field.name,), field.type)}


def _paths(path: tuple[str, ...], kind: "pa.DataType") -> Iterator[tuple[str, ...]]:
    import pyarrow as pa

    if len(path) > 1:
        yield path
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    if pa.types.is_struct(kind) and "bytes" not in (names := [field.name for field in kind]):
        for name, field in zip(names, kind):
            yield from _paths((*path, name), field.type)


def value_at(value: Any, path: tuple[str, ...]) -> Any:
    """The value at the end of these names inside of a value; of a list the value of each item."""
    if isinstance(value, list):
        return [value_at(item, path) for item in value]
    return (value_at(value.get(path[0]), path[1:]) if isinstance(value, dict) else None) if path else value
