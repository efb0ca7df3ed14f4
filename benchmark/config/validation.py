"""Validate parts of the configuration, and explain what is wrong with one in a line."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from benchmark.common.errors import BenchError, cut, shortened, unknown

M = TypeVar("M", bound=BaseModel)


LONGEST_NAME = 100
"""The most bytes of a name: results have files with a few of them in their names, of at most 255 bytes."""


def _is_name(text: str) -> str:
    if not re.fullmatch(r"\w(?:[\w .+-]*[\w+-])?", text) or len(text.encode()) > LONGEST_NAME:
        raise ValueError(f"expected letters and digits, with . _ - + within, at most {LONGEST_NAME} bytes, as in set-2")
    return text


Name = Annotated[str, AfterValidator(_is_name)]
"""The name of a dataset, a model, a suite or an arm: it is a part of the names of files, and of what reports show."""


class Strict(BaseModel):
    """A part of the configuration: unknown keys are errors, values are frozen.

    hints: what a message says of keys that users try and that do not exist.
    """

    hints: ClassVar[dict[str, str]] = {}

    model_config = ConfigDict(extra="forbid", frozen=True)


EXPECTED = {
    "int_type": "expected an integer",
    "int_parsing": "expected an integer",
    "int_from_float": "expected an integer",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "string_type": "expected a text",
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "dict_type": "expected a mapping of keys to values",
    "model_type": "expected a mapping of keys to values",
    "model_attributes_type": "expected a mapping of keys to values",
    "path_type": "expected a path",
}
"""What was expected, by pydantic's type of error."""


def validated(model: type[M], fields: Mapping[str, Any], where: str, options: Mapping[str, str] | None = None) -> M:
    """Validate ``fields`` as a ``model``.

    where: the file, for messages. options: the keys that the command line sets, each with the option that sets it,
    which a message then names in place of ``where``. Raises ``BenchError`` naming the first wrong key, what was found
    and what was expected.
    """
    try:
        return model.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors()[0]
        key = key_of(first)
        if first["type"] == "extra_forbidden":
            raise BenchError(f"{where}: {unknown_in(model, first)}") from error
        option = next((option for name, option in (options or {}).items() if f"{key}.".startswith(f"{name}.")), "")
        if first["type"] == "literal_error" and option == f"--{key.replace('_', '-')}":
            raise BenchError(reason(first, f"value of {option}")) from error
        problem = reason(first, key or model.__name__)
        # The reason of a check of the whole block names the key itself.
        raise BenchError(
            f"{option or where}: {problem if key else problem.removeprefix(f'{model.__name__}: ')}"
        ) from error


LONGEST_REASON = 600


def reason(error: ErrorDetails, key: str) -> str:
    """Explain why pydantic rejects the value of a key: what was found, what was expected, and the nearest choice."""
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        return str(unknown(key, error["input"], re.findall(r"'(.*?)'", error["ctx"]["expected"])))
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "union_tag_invalid":
        return str(
            unknown(f"kind of {key}", error["ctx"]["tag"], re.findall(r"'(.*?)'", error["ctx"]["expected_tags"]))
        )
    if error["type"] == "union_tag_not_found" and isinstance(error["input"], Mapping):
        return f"{key}.kind is missing"
    # The check of a block may quote any value.
    message = EXPECTED.get(error["type"]) or cut(error["msg"].removeprefix("Value error, "), LONGEST_REASON)
    message = re.sub("^Input should be (?=greater|less)", "expected a number ", message)
    message = re.sub("^Input should be ", "expected ", message)
    # A message about a whole block names the value that is wrong.
    block = error["type"] == "value_error" and isinstance(error["input"], Mapping | list)
    return f"{key}: {message}" + ("" if block else f", found {shortened(error['input'])}")


def key_of(error: ErrorDetails) -> str:
    """Return the key that an error of pydantic is about, with those that lead to it."""
    return cut(".".join(str(part) for part in error["loc"]))


def unknown_in(model: type[BaseModel], error: ErrorDetails, outer: str = "") -> BenchError:
    """Make the error for an unknown key in a model. outer: where the model itself is; "" for a whole file."""
    block, section = _block_at(model, error["loc"][:-1])
    return unknown_key(block, ".".join(filter(None, (outer, section))), str(error["loc"][-1]))


def unknown_key(block: type[BaseModel], section: str, key: str) -> BenchError:
    """Make the error for a key that a block does not have. section: where the block is; "" for a whole file."""
    of = f"key of {section}" if section else "key"
    if issubclass(block, Strict) and key in block.hints:
        return BenchError(f"unknown {of} '{key}'; {block.hints[key]}")
    return unknown(of, key, block.model_fields)


def _block_at(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[type[BaseModel], str]:
    """Return the block at a location, and its section: the names of the keys that lead to it.

    In a union of blocks, the location names the ``kind`` of one of them.
    """
    blocks, section = [model], []
    for part in location:
        if len(blocks) > 1:
            of_kind = [block for block in blocks if part in get_args(block.model_fields["kind"].annotation)]
            section += [] if of_kind else [str(part)]
            blocks = of_kind or blocks
        elif part in blocks[0].model_fields:
            section.append(str(part))
            blocks = _blocks_in(blocks[0].model_fields[str(part)].annotation) or blocks
        elif isinstance(part, str):
            # The key of a mapping of blocks, such as an arm's name.
            section.append(part)
    return blocks[0], ".".join(section)


def _blocks_in(annotation: Any) -> list[type[BaseModel]]:
    """List the blocks in a type: itself, or those in its union, its mapping or its list."""
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [block for part in get_args(annotation) for block in _blocks_in(part)]
