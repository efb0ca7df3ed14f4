"""Which columns of a table hold what: names, templates over several columns, and columns made from parts of others."""

import re
from collections.abc import Callable
from string import Formatter
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from benchmark.data.canonical import written
from benchmark.data.sources.chunks import Values


class Columns(BaseModel):
    """The table's own name of each column, or a template over several columns.

    ``files/{patient:.2}/{image}.jpg`` is a template; ``:.2`` takes the first two characters.

    official_split: the published split, where ``split`` is another; used instead of it with ``split: official`` in the
    source. ``split`` here stands for that of the source's files, where these are the published ones.
    label: a column of class names (one, or a list of them) or of class numbers; or one column of 0, 1 and -1 or empty
    (unknown) for each class: as a list if the columns are named like the classes, else as a mapping from class to
    column.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: str
    id: str | None = None
    text: str | None = None
    text_id: str | None = None
    label: str | list[str] | dict[str, str] | None = None
    group: str | None = None
    split: str | None = None
    official_split: Annotated[str | None, Field(exclude=True)] = None
    question: str | None = None
    answer: str | None = None
    answer_type: str | None = None
    question_type: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Columns":
        if (self.question is None) != (self.answer is None):
            raise ValueError("'question' and 'answer' go together")
        if self.text_id and not self.text:
            raise ValueError("'text_id' needs 'text'")
        for template in self.templates.values():
            template_columns(template)
        return self

    @property
    def templates(self) -> dict[str, str]:
        """The column or template of each key that is set, without ``label``."""
        templates: dict[str, str] = self.model_dump(exclude={"label"}, exclude_none=True)
        return templates

    @property
    def label_columns(self) -> dict[str, str]:
        """The column of each class, if every class has its own."""
        if isinstance(self.label, list):
            return {name: name for name in self.label}
        return self.label if isinstance(self.label, dict) else {}


class Extract(BaseModel):
    """A column made from another: the first group of a regular expression, or "" if the expression does not match."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    column: str = Field(alias="from")
    pattern: str

    @model_validator(mode="after")
    def _compiles(self) -> "Extract":
        try:
            groups = re.compile(self.pattern).groups
        except re.error as error:
            raise ValueError(f"pattern '{self.pattern}': {error}") from error
        if groups != 1:
            raise ValueError(f"pattern '{self.pattern}': expected one group in brackets, found {groups}")
        return self


def template_columns(template: str) -> list[str]:
    """The columns that a template names; a text without brackets is itself the name of a column.

    Raises ``ValueError`` for a malformed template.
    """
    if "{" not in template:
        return [template]
    names = []
    for _, name, spec, conversion in Formatter().parse(template):
        if name is None:
            continue
        if not name or conversion or not re.fullmatch(r"(\.\d+)?", spec or ""):
            raise ValueError(f"'{template}': expected {{column}} or {{column:.N}}, the first N characters")
        names.append(name)
    return names


def fill(template: str, values: Values, form: Callable[[Any], str] = written) -> str:
    """The value of a column, or of a template over columns; "" if all these columns are empty.

    form: makes the text of each value.
    """
    if "{" not in template:
        return form(values.get(template))
    parts, filled = [], []
    for literal, name, spec, _ in Formatter().parse(template):
        parts.append(literal)
        if name is not None:
            filled.append(form(values.get(name)))
            # Not str.format(), which would give access to attributes of the values.
            parts.append(format(filled[-1], spec or ""))
    return "".join(parts).strip() if any(filled) or not filled else ""


def template_ending(template: str) -> str:
    """The end of every file name that a template can make, or "" if the template does not fix it."""
    return template.rpartition("}")[2].strip().rpartition("/")[2] if "{" in template else ""
