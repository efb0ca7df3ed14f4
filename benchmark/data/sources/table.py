"""The base class of sources that hold a table: turns the values of a row into a record."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any

from pydantic import BeforeValidator, model_validator
from typing_extensions import override

from benchmark.common.errors import BenchError, cut, unknown
from benchmark.data.canonical import UNKNOWN, canonical, composed, identifier, written
from benchmark.data.problems import BadRow, Problems
from benchmark.data.records import (
    Classes,
    Label,
    Row,
    label_of_flags,
    label_of_index,
    label_of_names,
    place,
    separated,
    split_name,
    unknown_label,
)
from benchmark.data.sources.base import Fractions, SharedGroups, Source
from benchmark.data.sources.chunks import Chunk, Rows, Values
from benchmark.data.sources.columns import Columns, Extract, fill, template_columns, template_ending
from benchmark.data.sources.folders import files_below, image_finder, located
from benchmark.data.sources.gather import Several, Spool, gather
from benchmark.data.sources.reports import read_report
from benchmark.data.sources.values import (
    Value,
    answer_type,
    answers,
    check_length,
    check_no_nul,
    check_unicode,
    comparable,
    compose_names,
    conditions,
    flag,
    image_bytes,
    integer,
    keys_in,
    names_in,
    relative_path,
    text,
    texts,
)

BY_SPLIT = ("files", "splits_of", "shards")
"""The keys of sources that name a table, or several, for each split."""


def _in_texts(mapping: Any) -> Any:
    """A mapping of a card whose keys may be numbers, with keys that are texts."""
    if not isinstance(mapping, dict):
        return mapping
    return {str(name) if type(name) in (int, float) else name: value for name, value in mapping.items()}


@dataclass(frozen=True)
class Table:
    """One table of a source.

    split: "" if the table does not say. name: for messages. columns: the columns met so far, complete after ``rows``
    is used up. chunks: the same rows as ``rows``, many at once, to be read instead; None where that cannot be.
    """

    split: str
    name: str
    rows: Rows
    columns: set[str]
    chunks: Iterator[Chunk] | None = None


class TableSource(Source):
    """A row for each image, or for each question or caption: these are gathered by image, see also Dataset.

    split: shares of the rows, if nothing else gives the split; or ``official``, the published one, see Columns.
    extract: new columns from parts of others; applied before everything else.
    values: column -> value -> its replacement ("*": for any value not listed); applied before ``where``.
    where, where_not: keep only the rows that have, or do not have, this value (or one of these) in this column.
    Values are compared in their canonical form, as are groups, ids, classes and the rest: 1 and ``1.0`` are one value.
    one_per: keep only the first row, of those that can be used, of each value of this column, and all without a value.
    text_file: a template of the path of a text file that holds the text, relative to the image folder.
    sections: of that file, only the sections whose headings (``FINDINGS:``) contain these words, in this order; rows
    without any of them are left out.
    several: what to do with an image of several classes if the card expects one, or with rows of one image that
    disagree: ``error``, ``leave_out``; ``any`` and ``majority`` (more than half of the rows) are for multi-label sets.
    find: the image's path may lack folders: search for the file of that name below the image folder.
    strip_prefix: removed from the start of the image's path.
    shared_images: the published split has one image in several splits, as question answering sets do. This turns off
    the warning, so mention it in the card's notes. ``official``: only with ``split: official``.
    shared_groups: the published split has groups (patients, articles) in several splits. ``error`` makes the later rows
    bad; ``keep`` keeps them all, as published; ``drop`` keeps a group in the last of its splits alone, of train, val,
    test. Without ``group``, an image is its own group.
    """

    columns: Columns
    split: Fractions | None = None
    extract: dict[str, Extract] = {}
    values: dict[str, Annotated[dict[str, str], BeforeValidator(_in_texts)]] = {}
    where: dict[str, Value | list[Value]] = {}
    where_not: dict[str, Value | list[Value]] = {}
    one_per: str | None = None
    text_file: str | None = None
    sections: list[str] = []
    several: Several = "error"
    find: bool = False
    strip_prefix: str = ""
    shared_images: bool = False
    shared_groups: SharedGroups = "error"

    @model_validator(mode="before")
    @classmethod
    def _official(cls, source: Any) -> Any:
        """Read the official split as any other: from ``columns.split``, or from the source's files."""
        if not isinstance(source, dict) or not isinstance(source.get("columns"), dict):
            return source
        wanted, columns = source.get("split"), source["columns"]
        official = columns.get("official_split")
        files: dict[str, Any] = next((source[key] for key in BY_SPLIT if isinstance(source.get(key), dict)), {})
        if isinstance(wanted, str) and wanted != "official":
            raise ValueError(f"split: '{wanted}': expected official, or the shares of train, val and test to draw")
        if wanted == "official" and not official:
            others = f"that of column '{columns['split']}'" if columns.get("split") else ", ".join(files) or "none"
            raise ValueError(f"split: official: 'columns.official_split' names none; the split of the card is {others}")
        read = {**source, "shared_images": source.get("shared_images", False)}
        if wanted == "official":
            read["split"] = None
            read["columns"] = columns if files and official == "split" else columns | {"split": official}
        if read["shared_images"] == "official":
            read["shared_images"] = wanted == "official"
        return read

    @model_validator(mode="after")
    def _agrees(self) -> "TableSource":
        if self.text_file and self.columns.text:
            raise ValueError("expected the text in one place: 'columns.text' or 'text_file'")
        if self.shared_groups != "error" and self.split:
            raise ValueError("'shared_groups' is for a published split; a drawn one never shares groups")
        if self.sections and not self.text_file:
            raise ValueError("'sections' needs 'text_file'")
        if self.text_file:
            template_columns(self.text_file)
        for column, mapping in self.values.items():
            if error := _contradiction(mapping):
                raise ValueError(f"values.{column}: {error}")
        return self

    def tables(self, problems: Problems) -> Iterator[Table]:
        """Open the tables one after the other. Bad rows are added to ``problems``."""
        raise NotImplementedError

    def in_chunks(self) -> bool:
        """Whether each table has chunks."""
        return False

    def text_folder(self) -> Path:
        """The folder that ``text_file`` is relative to."""
        return self.image_folder()

    def file_states(self) -> dict[str, str]:
        """Hashes of the state of the files beside the tables that rows are made of, as a part of the fingerprint.

        These are the places of images that are searched for, and the sizes and times of text files. Only names that
        the card's templates can make count, so other files may come and go.
        """
        states = {}
        if self.find:
            places = "\n".join(files_below(self.image_folder(), template_ending(self.columns.image)))
            states["places"] = hashlib.sha256(os.fsencode(places)).hexdigest()
        if self.text_file:
            head = self.text_file.partition("{")[0].rpartition("/")[0] if "{" in self.text_file else ""
            folder, texts = self.text_folder() / head, hashlib.sha256()
            for path in files_below(folder, template_ending(self.text_file)):
                with suppress(OSError):  # a broken link
                    state = (folder / path).stat()
                    texts.update(os.fsencode(f"{path}\n{state.st_size} {state.st_mtime_ns}\n"))
            states["texts"] = texts.hexdigest()
        return states

    @override
    def shares_images(self) -> bool:
        return self.shared_images

    @override
    def shared_group_rule(self) -> SharedGroups:
        return super().shared_group_rule() if self.shared_groups == "error" else self.shared_groups

    @override
    def provides(self) -> frozenset[str]:
        named = {name for name in ("text", "label", "question") if getattr(self.columns, name) is not None}
        return frozenset(named | ({"text"} if self.text_file else set()))

    @override
    def check_classes(self, classes: Classes) -> None:
        if self.columns.label is None or isinstance(self.columns.label, str):
            return
        columns = self.columns.label_columns
        for name in columns:
            if classes.number(name) is None:
                raise ValueError(f"columns.label: {unknown('class', name, classes.index)}")
        numbers = [classes.number(name) for name in columns]
        for number, name in enumerate(classes.names):
            if numbers.count(number) > 1:
                raise ValueError(f"columns.label has several columns for class '{name}'")
            if number not in numbers:
                raise ValueError(f"columns.label has no column for class '{name}'")

    @override
    def rows(self, classes: Classes, problems: Problems) -> Iterator[Row]:
        rows = self._read(classes, problems)
        with TemporaryFile() as file:
            spool = Spool(file)
            if self.columns.question or not self.columns.id:
                by_split = self.shared_images or self.shared_groups == "drop"
                rows = iter(gather(spool.put(rows), problems, self.several, by_split, self.shared_images))
            if self.split:
                rows = iter(self.split.assign(list(spool.put(rows))))
            yield from spool.take(rows)

    def _read(self, classes: Classes, problems: Problems) -> Iterator[Row]:
        read = RowReader(self, classes)
        kept: set[str] = set()
        for table in self.tables(problems):
            for number, values in table.rows:
                try:
                    row = read(table.name, number, values, table.split)
                except BadRow as bad:
                    problems.add(place(table.name, number), bad)
                    continue
                if row is None:
                    continue
                if self.one_per:
                    of = identifier(values.get(self.one_per))
                    if of and of in kept:
                        continue
                    kept.add(of)
                yield row
            self.check_read(table, problems)

    def check_read(self, table: Table, problems: Problems) -> None:
        """Raise ``BenchError`` if no row of a table can be read, or if it lacks a column that the card names."""
        if not table.columns:
            problems.stop("error")
        self.check_columns(table.name, table.columns)

    def check_columns(self, table: str, columns: set[str]) -> None:
        """Raise ``BenchError`` if the card names a column that is not in ``columns``, or if a table has no column."""
        if not columns:
            raise BenchError(f"{table}: the file is empty, or no row of it can be read")
        known = {composed(name) for name in columns} | {"split"} | set(self.extract)
        for key, name in self._named_columns():
            if name and name not in known:
                raise BenchError(f"{table}: {key}: {unknown('column', name, known)}")

    def used_columns(self) -> frozenset[str]:
        """The columns that the card names."""
        return frozenset(name for _, name in self._named_columns())

    def _named_columns(self) -> Iterator[tuple[str, str]]:
        """Pairs of a key of the card and a column that it names."""
        for key, template in self.columns.templates.items():
            yield from ((f"columns.{key}", name) for name in template_columns(template))
        yield from (("text_file", name) for name in template_columns(self.text_file or ""))
        yield from (("extract", extract.column) for extract in self.extract.values())
        yield "one_per", self.one_per or ""
        for key in ("where", "where_not", "values"):
            yield from ((key, name) for name in getattr(self, key))
        label = self.columns.label
        label_columns = [label] if isinstance(label, str) else self.columns.label_columns.values()
        yield from (("columns.label", name) for name in label_columns)


def _contradiction(mapping: dict[str, str]) -> str:
    """What is wrong with a mapping that replaces one value in two ways; "" if nothing is."""
    first: dict[str, str] = {}
    for name, replacement in mapping.items():
        try:
            other = first.setdefault(canonical(name), name)
        except BadRow as bad:
            return bad.message
        if mapping[other] != replacement:
            return f"'{other}' and '{name}' are one value, but have two replacements"
    return ""


def _replaced(mapping: dict[str, str], names: list[str]) -> list[str]:
    """What a mapping of canonical forms makes of the names in a cell, or of ``A|B`` where both are in the mapping.

    "*" stands for any value, not for the lack of one.
    """
    if len(names) == 1 and canonical(names[0]) not in mapping:
        names = separated(names[0], lambda part: canonical(part) in mapping) or names
    others = {name: name if name.lower() in UNKNOWN else mapping.get("*", name) for name in names}
    return [mapping.get(canonical(name), others[name]) for name in names]


class RowReader:
    """Makes rows from the values of a table, as the parameters of a source say."""

    def __init__(self, source: TableSource, classes: Classes) -> None:
        self._source = source
        self._columns = source.columns
        self._classes = classes
        columns = source.columns.label_columns
        self._label_columns = [columns[name] for name in sorted(columns, key=lambda name: classes.number(name) or 0)]
        self._replacements = {
            column: {canonical(name): replacement for name, replacement in mapping.items()}
            for column, mapping in source.values.items()
        }
        ending = template_ending(source.columns.image)
        self._find = image_finder(source.image_folder(), ending) if source.find else None
        self._read_report = lru_cache(maxsize=64)(read_report)
        self._where, self._where_not = conditions(source.where), conditions(source.where_not)

    def __call__(self, table: str, number: int, values: Values, split: str) -> Row | None:
        """Make the row with this number in a table of this name, from its values by column.

        split: "" if it is not known yet. Returns None for a row that the card leaves out. Raises ``BadRow`` for a row
        that cannot be used.
        """
        self._derive(values, split)
        if not self.wants(values):
            return None
        row = self._row(table, number, values, split)
        if row is None or self._source.text_file is None:
            return row
        path = relative_path(self._path(self._source.text_file, values, self._source.text_folder), "text_file", "text")
        report = text(self._read_report(self._source.text_folder(), path, tuple(self._source.sections)))
        if not report and not self._source.sections:
            raise BadRow("empty text", f"text '{cut(path)}' is empty")
        row.text = [report]
        return row if report else None

    def _derive(self, values: Values, split: str) -> None:
        compose_names(values)
        values.setdefault("split", split)
        for name, extract in self._source.extract.items():
            match = re.search(extract.pattern, composed(written(values.get(extract.column))))
            values[name] = (match[1] or "") if match else ""
        for name in self._replacements:
            values[name] = self.replaced(name, values.get(name))

    def replaced(self, column: str, value: Any) -> Any:
        """The value that a cell has after the card's replacements. Raises ``BadRow``."""
        names = names_in(value) if column in self._replacements else []
        replaced = _replaced(self._replacements[column], names) if names else []
        return (replaced[0] if len(replaced) == 1 else replaced) if names else value

    def wants(self, values: Values) -> bool:
        """Whether a row is one that the card asks for, by those columns that its conditions name. Raises ``BadRow``."""
        # Generators: comparable() may raise for a value that an earlier condition makes irrelevant.
        return all(comparable(values.get(column)) in allowed for column, allowed in self._where.items()) and not any(
            comparable(values.get(column)) in refused for column, refused in self._where_not.items()
        )

    def _row(self, table: str, number: int, values: Values, split: str) -> Row | None:
        image = self.image(values)
        name = image if isinstance(image, str) else hashlib.sha256(image).hexdigest()[:20]
        captions, text_id = self.texts(values)
        question, answer, answer_types, question_types = self._questions(values)
        label = self.label(values)
        if label is None:
            return None
        row = Row(
            file=table,
            row=number,
            id=self._key(self._columns.id, values) or name,
            group=self._key(self._columns.group, values) or name,
            split=split,
            image=image,
            text=captions,
            text_id=text_id,
            label=label,
            question=question,
            answer=answer,
            answer_type=answer_types,
            question_type=question_types,
        )
        row.split = self.split(values, split)
        for value in (row.id, row.group, *captions, *question, *answer):
            check_no_nul(value)
            check_length(value)
        for value in (row.id, row.group, name, *captions, *text_id, *question, *answer, *question_types):
            check_unicode(value)
        return row

    def split(self, values: Values, of_table: str) -> str:
        """The split of a row, or that of its table where no column gives it. Raises ``BadRow``."""
        if not self._columns.split:
            return of_table
        name = self._key(self._columns.split, values)
        if not name:
            raise BadRow("no split", f"no split (column '{self._columns.split}')")
        return split_name(name)

    def _key(self, template: str | None, values: Values) -> str:
        return fill(template, values, identifier) if template else ""

    def _every(self, template: str | None, values: Values, cell: Callable[[Any], list[str]]) -> list[str]:
        """What ``cell`` makes of a column, or of each part of a template, of which the whole is one."""
        if not template or "{" not in template:
            return cell(values.get(template)) if template else []
        whole = fill(template, values, lambda value: _only(cell(value)))
        return [whole] if whole else []

    def _required(self, template: str | None, kind: str, values: Values, cell: Callable[[Any], list[str]]) -> list[str]:
        every = self._every(template, values, cell)
        if template and (not every or "" in every):
            word = values.get(template)
            word = f": '{cut(word.strip())}'" if isinstance(word, str) and word.strip() else ""
            raise BadRow(f"empty {kind}", f"empty {kind} (column '{template}'{word})")
        return every

    @cached_property
    def _image_folder(self) -> Path:
        return self._source.image_folder()

    def _path(self, template: str, values: Values, folder: Callable[[], Path]) -> str:
        """A path below ``folder``. A number in it that is written 12.0 is 12, unless a file has the other name."""
        path = fill(template, values)
        if "{" not in template or path == (other := fill(template, values, canonical)):
            return path
        return path if located(folder(), path).is_file() else other

    def image(self, values: Values) -> str | bytes:
        """The path of the image of a row, or its content. Raises ``BadRow``."""
        value = values.get(self._columns.image)
        if isinstance(value, list) and value:
            if len(value) > 1:
                raise BadRow("several images", f"{len(value)} images (column '{self._columns.image}'); expected one")
            values[self._columns.image] = value = value[0]
        encoded = image_bytes(value)
        if encoded is not None:
            return encoded
        path = composed(self._path(self._columns.image, values, lambda: self._image_folder))
        for prefix in (self._source.strip_prefix, self._source.strip_prefix.replace("/", "\\")):
            path = path.removeprefix(prefix)
        path = relative_path(path, self._columns.image)
        # Also where the file's own name is decomposed, so that an image has one name on all machines.
        return composed(self._find(path)) if self._find else path

    def texts(self, values: Values) -> tuple[list[str], list[str]]:
        """The texts of a row and their ids. Raises ``BadRow``."""
        captions = self._required(self._columns.text, "text", values, texts)
        text_id = self._required(self._columns.text_id, "text_id", values, keys_in)
        if text_id and len(text_id) != len(captions):
            raise BadRow("texts and text_ids differ", f"{len(captions)} texts but {len(text_id)} text_ids")
        return captions, text_id

    def _questions(self, values: Values) -> tuple[list[str], list[str], list[str], list[str]]:
        """The questions of a row, their answers, the types of the answers, and the types of the questions."""
        columns = self._columns
        if not (columns.question or columns.answer or columns.answer_type or columns.question_type):
            return [], [], [], []
        question = self._required(self._columns.question, "question", values, texts)
        answer = self._required(self._columns.answer, "answer", values, answers)
        answer_types = [answer_type(value) for value in self._every(self._columns.answer_type, values, keys_in)]
        answer_types = answer_types or ["closed" if value.lower() in ("yes", "no") else "open" for value in answer]
        question_types = self._every(self._columns.question_type, values, keys_in) or [""] * len(question)
        if not len(question) == len(answer) == len(answer_types) == len(question_types):
            raise BadRow("questions and answers differ", f"{len(question)} questions but {len(answer)} answers")
        return question, answer, answer_types, question_types

    def label(self, values: Values) -> Label | None:
        """The label of a row, or None if its image has several classes and is left out for that. Raises ``BadRow``."""
        try:
            if isinstance(self._columns.label, str):
                return self._label_in(values.get(self._columns.label))
            if self._columns.label is None:
                return unknown_label(self._classes)
            flags = [flag(values.get(column), column) for column in self._label_columns]
            return label_of_flags(self._classes, flags)
        except BadRow as bad:
            if bad.reason == "several classes" and self._source.several == "leave_out":
                return None
            raise

    def _label_in(self, value: object) -> Label:
        names = [name for name in names_in(value) if name]
        if isinstance(value, (list, tuple)) or (names or [""]) != [written(value)]:
            # Of numbers in a list, nothing says whether they are places or flags of the classes.
            place = integer(names[0]) if len(names) == 1 and not self._classes.multi_label else None
        elif not names or (names[0].lower() in UNKNOWN and self._classes.number(names[0]) is None):
            return unknown_label(self._classes)
        else:
            place = integer(names[0])
        # Whether numbers are names or places is a matter of the card: a row alone could be either.
        if place is not None and (
            not self._classes.are_numbers or (place == -1 and self._classes.number("-1") is None)
        ):
            return label_of_index(self._classes, place)
        return label_of_names(self._classes, names)


def _only(parts: list[str]) -> str:
    """The one text of a part of a template, "" for none. Raises ``BadRow`` for several."""
    if len(parts) > 1:
        raise BadRow("wrong type", f"{len(parts)} texts in a column of a template, which takes one")
    return parts[0] if parts else ""
