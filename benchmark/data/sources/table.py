"""What sources that hold a table have in common: from a row's values to a record."""

import ast
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from string import Formatter
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from benchmark.common.errors import BenchError, unknown
from benchmark.data.problems import BadRow, Problems
from benchmark.data.sources.base import (
    Fractions,
    Row,
    Source,
    check_unicode,
    label_of_flags,
    label_of_index,
    label_of_names,
    place,
    split_name,
    unknown_label,
)
from benchmark.data.sources.folders import files_below
from benchmark.data.sources.formats import Rows, Values

if TYPE_CHECKING:
    from benchmark.data.card import Card

Value = str | int | float | bool
MAX_REPORT = 1 << 24
"""Bytes of a text file."""
MAX_TEXT = 1 << 20
"""Characters of a text, a question or an answer."""


class Columns(BaseModel):
    """The table's own name of each column, or a template over several: ``files/{patient:.2}/{image}.jpg``, where
    ``:.2`` takes the first two characters.

    label: a column of names (one, or a list of them) or of class numbers; or columns of 0, 1 and -1 or nothing
    (unknown), as a list where they are named like the classes, else as a mapping from class to column.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: str
    id: str | None = None
    text: str | None = None
    text_id: str | None = None
    label: str | list[str] | dict[str, str] | None = None
    group: str | None = None
    split: str | None = None
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
        for name in self.model_dump(exclude={"label"}, exclude_none=True).values():
            template_columns(name)
        return self

    @property
    def label_columns(self) -> dict[str, str]:
        """Class -> column, where each class has its own."""
        if isinstance(self.label, list):
            return {name: name for name in self.label}
        return self.label if isinstance(self.label, dict) else {}


class Extract(BaseModel):
    """A column made of another: the first group of a regular expression, searched for in its text ("" if not found)."""

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


class TableSource(Source):
    """A row an image, or a row a question or a caption (gathered by image, unless captions come with an ``id``).

    split: shares of the rows, where nothing else says the split.
    extract: new columns from parts of others; before everything else.
    values: column -> value -> what is to stand there instead ("*": for any value not listed); before ``where``.
    where, where_not: only the rows that have, or do not have, this value (or one of these) in this column.
    text_file: a template of the path of a text file that holds the text, from where the images' paths start.
    sections: of that file, only the sections whose headings (``FINDINGS:``) contain these words, in this order; rows
    without any of them are left out.
    several: what becomes of an image with several classes where the card wants one, or of rows of one image that do not
    agree: ``error``, ``leave_out``; ``any`` and ``majority`` (of the rows, more than half) are for multi-label sets.
    find: the image's path may lack folders: the file of that name is searched below the image folder.
    strip_prefix: taken off the image's path.
    shared_images: the published split has one image in several splits, as question answering sets do. Nothing is said
    about it then, so say it in the card's notes.
    """

    columns: Columns
    split: Fractions | None = None
    extract: dict[str, Extract] = {}
    values: dict[str, dict[str, str]] = {}
    where: dict[str, Value | list[Value]] = {}
    where_not: dict[str, Value | list[Value]] = {}
    text_file: str | None = None
    sections: list[str] = []
    several: Literal["error", "leave_out", "any", "majority"] = "error"
    find: bool = False
    strip_prefix: str = ""
    shared_images: bool = False

    @model_validator(mode="after")
    def _agrees(self) -> "TableSource":
        if self.text_file and self.columns.text:
            raise ValueError("expected the text in one place: 'columns.text' or 'text_file'")
        if self.sections and not self.text_file:
            raise ValueError("'sections' needs 'text_file'")
        if self.text_file:
            template_columns(self.text_file)
        return self

    def tables(self, problems: Problems) -> Iterator[tuple[str, str, Rows, set[str]]]:
        """For each table its split ("": unknown yet), its name, its rows, and the columns seen so far."""
        raise NotImplementedError

    def text_folder(self) -> Path:
        """What ``text_file`` is relative to."""
        return self.image_folder()

    def beside(self) -> dict[str, str]:
        """The state of the files that rows are made of beside the tables, a part of the fingerprint: where images that
        are searched for lie, and the sizes and times of text files. Only names that the card's templates can make
        count, so that other files may come and go.
        """
        found = {}
        if self.find:
            places = "\n".join(files_below(self.image_folder(), _ending(self.columns.image)))
            found["places"] = hashlib.sha256(os.fsencode(places)).hexdigest()
        if self.text_file:
            head = self.text_file.partition("{")[0].rpartition("/")[0] if "{" in self.text_file else ""
            folder, states = self.text_folder() / head, hashlib.sha256()
            for path in files_below(folder, _ending(self.text_file)):
                with suppress(OSError):  # a link that leads nowhere
                    state = os.stat(folder / path)
                    states.update(os.fsencode(f"{path}\n{state.st_size} {state.st_mtime_ns}\n"))
            found["texts"] = states.hexdigest()
        return found

    def shares_images(self) -> bool:
        return self.shared_images

    def provides(self) -> frozenset[str]:
        found = {name for name in ("text", "label", "question") if getattr(self.columns, name) is not None}
        return frozenset(found | ({"text"} if self.text_file else set()))

    def rows(self, card: "Card", problems: Problems) -> Iterator[Row]:
        rows = self._read(card, problems)
        with TemporaryFile() as file:
            spool = _Spool(file)
            if self.columns.question or not self.columns.id:
                rows = iter(self._gather(spool.put(rows), problems))
            if self.split:
                rows = iter(self.split.assign(list(spool.put(rows))))
            yield from spool.take(rows)

    def _read(self, card: "Card", problems: Problems) -> Iterator[Row]:
        read = self.reader(card)
        for split, name, rows, seen in self.tables(problems):
            for line, values in rows:
                try:
                    row = read(name, line, values, split)
                except BadRow as bad:
                    problems.add(place(name, line), bad)
                    continue
                if row is not None:
                    yield row
            self.check_columns(name, seen)

    def reader(self, card: "Card") -> Callable[[str, int, Values, str], Row | None]:
        """What makes a row of a table's name, the row's number there, its values by column, and its split ("" where
        that is unknown yet): None for one that is to be left out, ``BadRow`` for one that cannot be used.
        """
        find = self._finder() if self.find else None
        read_text = lru_cache(maxsize=64)(_read_text)
        wanted, unwanted = _conditions(self.where), _conditions(self.where_not)

        def read(name: str, line: int, values: Values, split: str) -> Row | None:
            self._derive(values, split)
            # Not a list: all() and any() stop at the first that decides.
            if not all(_plain(values.get(column)) in allowed for column, allowed in wanted.items()):
                return None
            if any(_plain(values.get(column)) in refused for column, refused in unwanted.items()):
                return None
            row = self._row(name, line, values, split, card, find)
            if row is not None and self.text_file:
                path = inside(fill(self.text_file, values), "text_file")
                row.text = [read_text(self.text_folder(), path, tuple(self.sections))]
                row.text = [text for text in row.text if text]
            return row if row is not None and (row.text or not self.text_file) else None

        return read

    def _derive(self, values: Values, split: str) -> None:
        values.setdefault("split", split)
        for name, extract in self.extract.items():
            found = re.search(extract.pattern, string(values.get(extract.column)))
            values[name] = (found[1] or "") if found else ""
        for name, mapping in self.values.items():
            if name not in values:
                continue
            names = names_in(values[name])
            changed = [mapping.get(value, mapping.get("*", value)) for value in names]
            values[name] = changed[0] if len(changed) == 1 else changed

    def _finder(self) -> Callable[[str], str]:
        root = self.image_folder()
        places: dict[str, str] = {}
        twice: set[str] = set()
        for path in files_below(root, _ending(self.columns.image)):
            name = os.path.basename(path)
            # A folder may be there and be linked to.
            if (first := places.setdefault(name, path)) != path and not os.path.samefile(root / first, root / path):
                twice.add(name)

        def find(path: str) -> str:
            name = os.path.basename(path)
            # Only where the path itself leads nowhere can two files of one name be confused.
            if name in twice and not (root / path).is_file():
                raise BadRow("ambiguous image", f"image '{name}' lies in several folders below {root}")
            return path if name in twice else places.get(name, path)

        return find

    def check_columns(self, table: str, seen: set[str]) -> None:
        """Raise ``BenchError`` for a column that is named and is not among those ``seen`` in a table, and for a
        table without any.
        """
        if not seen:
            raise BenchError(f"{table}: the file is empty, or no row of it can be read")
        seen = seen | {"split"} | set(self.extract)
        mapped = self.columns.model_dump(exclude={"label"}, exclude_none=True)
        names = [("columns." + key, column) for key, name in mapped.items() for column in template_columns(name)]
        names += [("text_file", column) for column in template_columns(self.text_file or "")]
        names += [("extract", each.column) for each in self.extract.values()]
        for key in ("where", "where_not", "values"):
            names += [(key, name) for name in getattr(self, key)]
        label = self.columns.label
        names += [("columns.label", name) for name in ([label] if isinstance(label, str) else label or [])]
        names = [(key, self.columns.label_columns.get(name, name)) for key, name in names]
        for key, name in names:
            if name and name not in seen:
                raise BenchError(f"{table}: {key}: {unknown('column', name, seen)}")

    def _row(
        self, file: str, line: int, values: Values, split: str, card: "Card", find: Callable[[str], str] | None
    ) -> Row | None:
        columns = self.columns

        def get(name: str | None) -> str:
            return fill(name, values) if name else ""

        def many(name: str | None) -> list[str]:
            if name and "{" in name:
                return [text] if (text := fill(name, values)) else []
            return strings(values.get(name)) if name else []

        def texts(name: str | None, what: str) -> list[str]:
            found = many(name)
            if name and (not found or "" in found):
                raise BadRow(f"empty {what}", f"empty {what} (column '{name}')")
            return found

        content = _content(values.get(columns.image))
        if content is None:
            path = inside(get(columns.image).removeprefix(self.strip_prefix), columns.image)
            image: str | bytes = find(path) if find else path
        else:
            image = content
        name = image if isinstance(image, str) else hashlib.sha256(image).hexdigest()[:20]
        text, text_id = texts(columns.text, "text"), texts(columns.text_id, "text_id")
        if text_id and len(text_id) != len(text):
            raise BadRow("texts and text_ids differ", f"{len(text)} texts but {len(text_id)} text_ids")
        question, answer = texts(columns.question, "question"), texts(columns.answer, "answer")
        answer_type = [_answer_type(value) for value in many(columns.answer_type)]
        answer_type = answer_type or ["closed" if value.lower() in ("yes", "no") else "open" for value in answer]
        question_type = many(columns.question_type) or [""] * len(question)
        if not len(question) == len(answer) == len(answer_type) == len(question_type):
            raise BadRow("questions and answers differ", f"{len(question)} questions but {len(answer)} answers")
        label = self._label(values, card)
        if label is None:
            return None
        row = Row(
            file=file,
            row=line,
            id=get(columns.id) or name,
            group=get(columns.group) or name,
            split=split,
            image=image,
            text=text,
            text_id=text_id,
            label=label,
            question=question,
            answer=answer,
            answer_type=answer_type,
            question_type=question_type,
        )
        if columns.split:
            row.split = split_name(get(columns.split))
        for value in (row.id, row.group, *row.text, *row.question, *row.answer):
            if "\0" in value:
                raise BadRow("NUL byte", f"a NUL byte in {value[:40]!r}")
            _check_length(value)
        for value in (row.id, row.group, name, *row.text, *row.text_id, *row.question, *row.answer, *row.question_type):
            check_unicode(value)
        return row

    def _label(self, values: Values, card: "Card") -> int | list[int] | None:
        """None: an image with several classes is to be left out."""
        label = self.columns.label
        if label is None:
            return unknown_label(card)
        try:
            if isinstance(label, str):
                value = values.get(label)
                if value is None or value == "":
                    return unknown_label(card)
                number = _integer(value)
                if number is not None and str(value) not in card.class_index:
                    return label_of_index(card, number)
                return label_of_names(card, [name for name in names_in(value) if name])
            flags = []
            for name, column in self.columns.label_columns.items():
                if name not in card.class_index:
                    raise BenchError(
                        f"dataset '{card.name}': columns.label: {unknown('class', name, card.class_index)}"
                    )
                flags.append((card.class_index[name], _flag(values.get(column), column)))
            if len(flags) != len(card.class_index):
                missing = next(name for name in card.class_index if name not in self.columns.label_columns)
                raise BenchError(f"dataset '{card.name}': columns.label has no column for class '{missing}'")
            return label_of_flags(card, [flag for _, flag in sorted(flags)])
        except BadRow as bad:
            if bad.reason == "several classes" and self.several == "leave_out":
                return None
            raise

    def _gather(self, rows: Iterable[Row], problems: Problems) -> list[Row]:
        """One row an image, of rows that each have a question or a caption, or one reader's labels."""
        images: dict[tuple[str, str], Row] = {}
        places: dict[str, str] = {}
        labels: dict[tuple[str, str], list[list[int]]] = {}
        dropped: set[tuple[str, str]] = set()
        for row in rows:
            name = row.image if isinstance(row.image, str) and row.stored is None else row.digest
            if row.id != name:
                if row.id in places:
                    bad = BadRow("duplicate id", f"id '{row.id}' is already that of {places[row.id]}")
                    problems.add(row.place, bad)
                    continue
                places[row.id] = row.place
            row.id = f"{row.split}/{name}" if self.shared_images else name
            key = (row.split if self.shared_images else "", name)
            first = images.setdefault(key, row)
            if self.several in ("any", "majority"):
                labels.setdefault(key, []).append(cast(list[int], row.label))
            if first is row:
                continue
            for attribute in ("split", "group", "label"):
                one, other = getattr(first, attribute), getattr(row, attribute)
                if one == other or (attribute == "label" and key in labels):
                    continue
                if attribute == "label" and self.several == "leave_out":
                    dropped.add(key)
                    break
                message = f"image '{name}' has {attribute} {other!r} here, but {one!r} in {first.place}"
                problems.add(row.place, BadRow(f"an image with two {attribute}s", message))
                break
            else:
                for i, text in enumerate(row.text):
                    if text not in first.text:
                        first.text.append(text)
                        first.text_id.extend(row.text_id[i : i + 1])
                for attribute in ("question", "answer", "answer_type", "question_type"):
                    getattr(first, attribute).extend(getattr(row, attribute))
        for key, votes in labels.items():
            images[key].label = [_vote(flags, self.several) for flags in zip(*votes)]
        return [row for key, row in images.items() if key not in dropped]


class _Spool:
    """Rows on their way through a step that must see all of them: their images wait on the disk."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def put(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            if isinstance(row.image, bytes) and row.stored is None:
                row.digest = hashlib.sha256(row.image).hexdigest()[:20]
                row.stored = (self._file.seek(0, os.SEEK_END), len(row.image))
                self._file.write(row.image)
                row.image = b""
            yield row

    def take(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            if row.stored is not None:
                self._file.seek(row.stored[0])
                row.image, row.stored = self._file.read(row.stored[1]), None
            yield row


def template_columns(template: str) -> list[str]:
    """The columns that a template names; a text without brackets is a column itself.

    Raises ``ValueError`` for a malformed one.
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


def fill(template: str, values: Values) -> str:
    """The value of a column, or of a template over columns; "" where a column of a path is empty."""
    if "{" not in template:
        return string(values.get(template))
    parts = []
    for literal, name, spec, _ in Formatter().parse(template):
        parts.append(literal)
        if name is not None:
            # Not str.format(): that would reach attributes of the values.
            parts.append(format(string(values.get(name)), spec or ""))
    return "".join(parts).strip()


def _ending(template: str) -> str:
    """What the names of the files end in that a template leads to; "" where it does not say."""
    return template.rpartition("}")[2].strip().rpartition("/")[2] if "{" in template else ""


HEADING = re.compile(r"^[ \t]*([A-Z][A-Z \t/&,()'-]*?)[ \t]*:", re.MULTILINE)


def report_sections(report: str, wanted: Iterable[str]) -> str:
    """The sections of a report under headings (capitals before a colon) that contain a wanted word, in the order of
    ``wanted``, spaces made single. A heading that contains several of them counts once.
    """
    headings = list(HEADING.finditer(report))
    ends = [heading.start() for heading in headings[1:]] + [len(report)]
    found: dict[int, str] = {}
    for word in wanted:
        for i, (heading, end) in enumerate(zip(headings, ends)):
            text = " ".join(report[heading.end() : end].split())
            if word.upper() in heading[1].split() and text:
                found.setdefault(i, text)
    return " ".join(found.values())


def _read_text(folder: Path, path: str, sections: tuple[str, ...]) -> str:
    file = folder / path
    try:
        # Whoever opens a pipe waits for its other end.
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise BadRow("missing text", f"text '{path}' is not a file")
        with file.open("rb") as opened:
            content = opened.read(MAX_REPORT + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadRow("missing text", f"text '{path}' does not exist (looked in {folder})") from error
    except OSError as error:
        # Not a bad row: those are remembered for as long as the file is the same, and this may end before.
        raise BenchError(f"text '{path}' cannot be read: {error.strerror} ({file})") from error
    if len(content) > MAX_REPORT:
        raise BadRow("text is too large", f"text '{path}' has more than {MAX_REPORT:,} bytes")
    if b"\0" in content:
        raise BadRow("NUL byte", f"a NUL byte in text '{path}'")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRow("not UTF-8", f"text '{path}' is not UTF-8 (byte 0x{content[error.start]:02x})") from error
    text = report_sections(text, sections) if sections else " ".join(text.split())
    _check_length(text)
    return text


def _check_length(text: str) -> None:
    if len(text) > MAX_TEXT:
        raise BadRow("text is too long", f"a text of {len(text):,} characters; expected at most {MAX_TEXT:,}")


def _conditions(conditions: dict[str, Value | list[Value]]) -> dict[str, set[str]]:
    return {
        name: {string(value).casefold() for value in (values if isinstance(values, list) else [values])}
        for name, values in conditions.items()
    }


def _plain(value: Any) -> str:
    """What conditions compare: one name in a list is that name."""
    names = names_in(value) if isinstance(value, (list, str)) else [string(value)]
    return names[0].casefold() if len(names) == 1 else "" if not names else json.dumps(names).casefold()


def _vote(flags: tuple[int, ...], several: str) -> int:
    known = [flag for flag in flags if flag >= 0]
    if not known:
        return -1
    return int(any(known) if several == "any" else 2 * sum(known) > len(known))


def _content(value: Any) -> bytes | None:
    """The encoded image that a table itself holds, as Parquet files of ``datasets`` do."""
    if isinstance(value, dict):
        value = value.get("bytes")
        if value is None:
            raise BadRow("no image", "no image in the table: its bytes are empty")
    return value if isinstance(value, bytes) else None


def names_in(value: Any) -> list[str]:
    """Names in a cell: one, a list, or a list as Python writes it ("['Mass', 'Asymmetry']")."""
    if isinstance(value, str) and value.strip().startswith("[") and value.strip().endswith("]"):
        try:
            value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return [value.strip()]
        return [string(item) for item in value] if isinstance(value, list) else [string(value)]
    return strings(value)


def string(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, (dict, list)):
        raise BadRow("wrong type", f"expected a text, found {json.dumps(value)[:40]}")
    return str(value).strip()


def strings(value: Any) -> list[str]:
    if isinstance(value, list):
        return [string(item) for item in value]
    text = string(value)
    return [text] if text else []


def _integer(value: Any) -> int | None:
    """The class number that a value is: 3, "3" or 3.0."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def _flag(value: Any, column: str) -> int:
    text = string(value).lower()
    if text in ("", "nan"):
        return -1
    flag = {"true": 1, "false": 0}.get(text, _integer(text))
    if flag not in (-1, 0, 1):
        raise BadRow("bad label", f"column '{column}' is '{text}'; expected 0, 1, or -1 or nothing (unknown)")
    return flag


def _answer_type(value: str) -> str:
    name = value.lower()
    if name not in ("open", "closed"):
        raise BadRow("unknown answer_type", str(unknown("answer_type", value, ["open", "closed"])))
    return name


def inside(path: str, column: str) -> str:
    """The path, normalised, or ``BadRow`` when it is empty or leads out of the image folder."""
    if not path:
        raise BadRow("no image", f"no image (column '{column}')")
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).anchor:
        raise BadRow("image outside the folder", f"image '{path}' is absolute; expected a path below image_root")
    normal = os.path.normpath(path)
    if normal.split(os.sep)[0] == "..":
        raise BadRow("image outside the folder", f"image '{path}' leads out of image_root")
    if "\0" in path:
        raise BadRow("NUL byte", f"a NUL byte in image {path!r}")
    return normal
