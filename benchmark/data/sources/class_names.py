"""Class numbers in tables that ``datasets`` wrote, which carry the classes' names."""

from collections.abc import Callable, Mapping
from typing import Any

from benchmark.data.problems import BadRow

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


def with_fields(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a row, and those inside its objects, or inside the objects of its lists, as ``column.name``."""
    inner: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and not isinstance(value.get("bytes"), bytes):
            inner |= {f"{name}.{key}": item for key, item in value.items()}
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            inner |= {f"{name}.{key}": [item.get(key) for item in value] for key in value[0]}
    return {**with_fields(inner), **values} if inner else values
