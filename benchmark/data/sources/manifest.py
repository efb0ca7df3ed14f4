"""Records from a table in a file: JSONL or CSV beside a folder of images."""

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from benchmark.data.problems import BadRow, Problems
from benchmark.data.sources.base import (
    Fractions,
    Row,
    Source,
    Split,
    label_of_flags,
    label_of_index,
    label_of_names,
    place,
    split_name,
    unknown_label,
)
from benchmark.errors import BenchError, unknown

if TYPE_CHECKING:
    from benchmark.data.card import Card

Value = str | int | float | bool
DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")


class Columns(BaseModel):
    """The manifest's own name of each column.

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
        return self

    @property
    def label_columns(self) -> dict[str, str]:
        """Class -> column, where each class has its own."""
        if isinstance(self.label, list):
            return {name: name for name in self.label}
        return self.label if isinstance(self.label, dict) else {}


class ManifestSource(Source):
    """A row an image, or a row a question or a caption (gathered by image, unless captions come with an ``id``).

    file, or files for one a split: .jsonl, .ndjson, .csv or .tsv, in UTF-8; CSV files begin with the columns' names.
    image_root: what the paths of images are relative to, from where ``file`` is; the manifest's own folder by default.
    split: shares of the rows, where neither ``files`` nor a column says the split.
    where: only the rows that have this value (or one of these) in this column.
    """

    kind: Literal["manifest"] = "manifest"
    file: Path | None = None
    files: dict[Split, Path] = {}
    image_root: Path | None = None
    columns: Columns
    split: Fractions | None = None
    where: dict[str, Value | list[Value]] = {}

    @model_validator(mode="after")
    def _one_way(self) -> "ManifestSource":
        if bool(self.file) == bool(self.files):
            raise ValueError("expected either 'file' or 'files' (one a split)")
        if bool(self.files) + bool(self.columns.split) + bool(self.split) != 1:
            raise ValueError("expected the split in one place: 'files', 'columns.split' or 'split' with the shares")
        for path in self._paths().values():
            if path.suffix.lower() not in (*DELIMITERS, *JSON_LINES):
                raise ValueError(f"'{path}': expected a name in {', '.join([*DELIMITERS, *JSON_LINES])}")
        return self

    def _paths(self) -> dict[str, Path]:
        return {"": self.file} if self.file else {str(split): path for split, path in self.files.items()}

    def provides(self) -> frozenset[str]:
        return frozenset(name for name in ("text", "label", "question") if getattr(self.columns, name) is not None)

    def splits(self) -> list[str]:
        if self.files:
            return list(self.files)
        return self.split.splits() if self.split else ["train", "val", "test"]

    def fingerprint(self) -> Any:
        contents = {}
        for split, path in self._paths().items():
            with _open(self.existing(path)) as file:
                contents[split] = hashlib.file_digest(file, "sha256").hexdigest()
        return {"parameters": self.model_dump(mode="json", exclude={"file", "files", "image_root"}), "files": contents}

    def image_folder(self) -> Path:
        manifest = next(iter(self._paths().values()))
        if self.image_root is None:
            return self.existing(manifest).parent
        folder = self.base(manifest) / self.image_root
        if not folder.is_dir():
            raise BenchError(f"image_root '{self.image_root}' is not a folder (looked in {self.base(manifest)})")
        return folder

    def rows(self, card: "Card", problems: Problems) -> Iterator[Row]:
        files = ((self.existing(path), split) for split, path in self._paths().items())
        rows: Iterator[Row] = chain.from_iterable(self._read(path, split, card, problems) for path, split in files)
        if self.columns.question or not self.columns.id:
            rows = iter(self._gather(rows, problems))
        if self.split:
            rows = iter(self.split.assign(list(rows)))
        yield from rows

    def _read(self, path: Path, split: str, card: "Card", problems: Problems) -> Iterator[Row]:
        read = _csv if path.suffix.lower() in DELIMITERS else _json_lines
        seen: set[str] = set()
        wanted = {
            name: {_string(value).casefold() for value in (values if isinstance(values, list) else [values])}
            for name, values in self.where.items()
        }
        for line, values in read(path, problems, seen):
            try:
                if all(_string(values.get(name)).casefold() in allowed for name, allowed in wanted.items()):
                    yield self._row(path.name, line, values, split, card)
            except BadRow as bad:
                problems.add(place(path.name, line), bad)
        self._check_columns(path, seen)

    def _check_columns(self, path: Path, seen: set[str]) -> None:
        mapped = self.columns.model_dump(exclude={"label"}, exclude_none=True)
        names = [("columns." + key, name) for key, name in mapped.items()]
        names += [("where", name) for name in self.where]
        label = self.columns.label
        names += [("columns.label", name) for name in ([label] if isinstance(label, str) else label or [])]
        names = [(key, self.columns.label_columns.get(name, name)) for key, name in names]
        for key, name in names:
            if name not in seen:
                raise BenchError(f"{path.name}: {key}: {unknown('column', name, seen)}")

    def _row(self, file: str, line: int, values: dict[str, Any], split: str, card: "Card") -> Row:
        columns = self.columns

        def get(name: str | None) -> str:
            return _string(values.get(name)) if name else ""

        def many(name: str | None) -> list[str]:
            return _strings(values.get(name)) if name else []

        def texts(name: str | None, what: str) -> list[str]:
            found = many(name)
            if name and (not found or "" in found):
                raise BadRow(f"empty {what}", f"empty {what} (column '{name}')")
            return found

        image = _inside(get(columns.image), columns.image)
        text, text_id = texts(columns.text, "text"), texts(columns.text_id, "text_id")
        if text_id and len(text_id) != len(text):
            raise BadRow("texts and text_ids differ", f"{len(text)} texts but {len(text_id)} text_ids")
        question, answer = texts(columns.question, "question"), texts(columns.answer, "answer")
        answer_type = [_answer_type(value) for value in many(columns.answer_type)]
        answer_type = answer_type or ["closed" if value.lower() in ("yes", "no") else "open" for value in answer]
        question_type = many(columns.question_type) or [""] * len(question)
        if not len(question) == len(answer) == len(answer_type) == len(question_type):
            raise BadRow("questions and answers differ", f"{len(question)} questions but {len(answer)} answers")
        row = Row(
            file=file,
            row=line,
            id=get(columns.id) or image,
            group=get(columns.group) or image,
            split=split,
            image=image,
            text=text,
            text_id=text_id,
            label=self._label(values, card),
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
        return row

    def _label(self, values: dict[str, Any], card: "Card") -> int | list[int]:
        label = self.columns.label
        if label is None:
            return unknown_label(card)
        if isinstance(label, str):
            value = values.get(label)
            if value is None or value == "":
                return unknown_label(card)
            number = _integer(value)
            if number is not None and str(value) not in card.class_index:
                return label_of_index(card, number)
            return label_of_names(card, [name for name in _strings(value) if name])
        flags = []
        for name, column in self.columns.label_columns.items():
            if name not in card.class_index:
                raise BenchError(f"dataset '{card.name}': columns.label: {unknown('class', name, card.class_index)}")
            flags.append((card.class_index[name], _flag(values.get(column), column)))
        if len(flags) != len(card.class_index):
            missing = next(name for name in card.class_index if name not in self.columns.label_columns)
            raise BenchError(f"dataset '{card.name}': columns.label has no column for class '{missing}'")
        return label_of_flags(card, [flag for _, flag in sorted(flags)])

    def _gather(self, rows: Iterable[Row], problems: Problems) -> list[Row]:
        """One row an image, of rows that each have a question or a caption."""
        images: dict[str, Row] = {}
        places: dict[str, str] = {}
        for row in rows:
            assert isinstance(row.image, str)
            if row.id != row.image:
                if row.id in places:
                    bad = BadRow("duplicate id", f"id '{row.id}' is already that of {places[row.id]}")
                    problems.add(row.place, bad)
                    continue
                places[row.id] = row.place
            row.id = row.image
            first = images.setdefault(row.image, row)
            if first is row:
                continue
            for name in ("split", "group", "label"):
                one, other = getattr(first, name), getattr(row, name)
                if one != other:
                    message = f"image '{row.image}' has {name} {other!r} here, but {one!r} in {first.place}"
                    problems.add(row.place, BadRow(f"an image with two {name}s", message))
                    break
            else:
                for i, text in enumerate(row.text):
                    if text not in first.text:
                        first.text.append(text)
                        first.text_id.extend(row.text_id[i : i + 1])
                for name in ("question", "answer", "answer_type", "question_type"):
                    getattr(first, name).extend(getattr(row, name))
        return list(images.values())


def _open(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        raise BenchError(f"{path.name}: cannot be read: {error.strerror} ({path})") from error


def _json_lines(path: Path, problems: Problems, seen: set[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    with _open(path) as file:
        for line, content in enumerate(file, 1):
            if line == 1:
                content = _without_mark(path, content)
            if not content.strip():
                continue
            try:
                values = json.loads(content.decode())
                if not isinstance(values, dict):
                    raise BadRow("malformed JSON", f"expected a JSON object, found {content.strip()[:40]!r}")
            except UnicodeDecodeError as error:
                problems.add(place(path.name, line), _not_utf8(content[error.start], error.start))
            except (ValueError, RecursionError) as error:
                problems.add(place(path.name, line), BadRow("malformed JSON", f"malformed JSON: {error}"))
            except BadRow as bad:
                problems.add(place(path.name, line), bad)
            else:
                seen.update(values)
                yield line, values


def _csv(path: Path, problems: Problems, seen: set[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    limit = csv.field_size_limit(1 << 24)
    try:
        with _open(path) as file:
            _without_mark(path, file.read(2))
        # A byte that is not UTF-8 becomes a lone surrogate, so that one bad row does not hide the others.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            reader = csv.reader(text, delimiter=DELIMITERS[path.suffix.lower()], strict=True)
            header = next(reader, [])
            twice = [name for name in header if header.count(name) > 1]
            if twice:
                raise BenchError(f"{path.name}, row 1: column '{twice[0]}' is there twice")
            seen.update(header)
            line = reader.line_num + 1
            for fields in reader:
                start, line = line, reader.line_num + 1
                if not fields:
                    continue
                wrong = next((c for value in fields for c in value if "\udc80" <= c <= "\udcff"), None)
                if wrong:
                    problems.add(place(path.name, start), _not_utf8(ord(wrong) - 0xDC00))
                elif len(fields) != len(header):
                    message = f"{len(fields)} fields where the header has {len(header)}"
                    problems.add(place(path.name, start), BadRow("wrong number of fields", message))
                else:
                    yield start, dict(zip(header, fields))
    except csv.Error as error:
        raise BenchError(f"{path.name}, row {reader.line_num}: malformed CSV: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _without_mark(path: Path, start: bytes) -> bytes:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BenchError(f"{path.name}: is UTF-16; expected UTF-8")
    return start.removeprefix(b"\xef\xbb\xbf")


def _not_utf8(byte: int, column: int | None = None) -> BadRow:
    where = "" if column is None else f" at column {column + 1}"
    return BadRow("not UTF-8", f"not UTF-8 (byte 0x{byte:02x}{where}); expected UTF-8")


def _string(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, (dict, list)):
        raise BadRow("wrong type", f"expected a text, found {json.dumps(value)[:40]}")
    return str(value).strip()


def _strings(value: Any) -> list[str]:
    if isinstance(value, list):
        return [_string(item) for item in value]
    text = _string(value)
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
    text = _string(value).lower()
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


def _inside(path: str, column: str) -> str:
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
