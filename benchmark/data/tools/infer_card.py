"""Write a card for data that has none, from what can be seen of it."""

import gzip
import os
import re
from collections import Counter
from itertools import islice
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from benchmark.common.errors import BenchError
from benchmark.data.problems import BadRow, Problems
from benchmark.data.sources.base import SPLITS, SYNONYMS
from benchmark.data.sources.folders import files_below
from benchmark.data.sources.formats import DELIMITERS, SUFFIXES, read_table, suffix_of
from benchmark.data.sources.image_folder import SUFFIXES as IMAGES
from benchmark.data.sources.table import fill, inside, names_in, template_columns

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2, "seed": 0}
LOOKED_AT = 5000
"""Rows from which the columns are inferred; the classes are from all rows."""
MOST_CLASSES = 200
ALL_SUFFIXES = sorted({*IMAGES, ".dcm", ".dicom"})
YOURS = "yours to add:"
FOR_CLASSES = (
    f'{YOURS} modality, and prompts such as "a chest X-ray showing {{}}", without which zero_shot does not run'
)

NAMES = {
    "id": ("id", "uid", "sample_id", "image_id"),
    "text": ("text", "caption", "report", "description", "impression", "findings", "sentence"),
    "label": ("label", "labels", "class", "classes", "diagnosis", "dx", "category", "finding", "target"),
    "group": ("group", "patient", "patient_id", "patientid", "subject", "subject_id", "study", "study_id", "case_id"),
    "split": ("split", "set", "subset", "partition", "fold"),
    "question": ("question", "questions"),
    "answer": ("answer", "answers"),
    "answer_type": ("answer_type",),
    "question_type": ("question_type",),
}
NO_FINDING = {
    "sex",
    "gender",
    "male",
    "female",
    "man",
    "woman",
    "age",
    "pregnant",
    "smoke",
    "smoker",
    "smoking",
    "smoked",
    "drink",
    "alcohol",
    "dead",
    "death",
    "deceased",
    "died",
    "survived",
    "id",
    "index",
    "fold",
    "split",
    "train",
    "val",
    "valid",
    "test",
    "biopsied",
    "biopsed",
    "reviewed",
    "excluded",
}
"""Words in the names of columns of 0 and 1 that are about the patient, the visit or the file, not about a finding."""
MARKS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def infer_card(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The content of a card for a table, a folder with a table, or a folder of images in folders of classes, its paths
    relative to ``path``'s folder (or to ``path``); and what was inferred, and what is left to the user.

    Raises ``BenchError`` where no images can be found.
    """
    if path.is_dir():
        tables = sorted(file for file in path.iterdir() if file.is_file() and suffix_of(file) in SUFFIXES)
        tables = [file for file in tables if suffix_of(file) != ".txt"]
        if len(tables) == 1:
            return _from_table(tables[0])
        if len(tables) > 1:
            names = ", ".join(file.name for file in tables[:5])
            raise BenchError(f"{path}: several tables ({names}); point at the one to be read")
        return _from_folder(path)
    if not path.is_file():
        raise BenchError(f"'{path}' does not exist")
    if suffix_of(path) not in SUFFIXES:
        raise BenchError(f"'{path}': expected a folder, or a file in {', '.join(SUFFIXES)}")
    return _from_table(path)


def _from_folder(root: Path) -> tuple[dict[str, Any], list[str]]:
    folders = {child.name: child for child in sorted(root.iterdir()) if child.is_dir()}
    # A link may lead back to where it lies.
    folders = {name: child for name, child in folders.items() if not root.resolve().is_relative_to(child.resolve())}
    splits = {name: folder for name, folder in folders.items() if SYNONYMS.get(name.lower(), name.lower()) in SPLITS}
    source: dict[str, Any] = {"kind": "image_folder", "root": "."}
    if splits:
        names = {SYNONYMS.get(name.lower(), name.lower()): name for name in splits}
        if any(split != name for split, name in names.items()):
            source["split_folders"] = names
        classes = {child.name for folder in splits.values() for child in folder.iterdir() if _has_images(child)}
    else:
        source["split"] = SHARES
        classes = {name for name, folder in folders.items() if _has_images(folder)}
    if len(classes) < 2:
        raise BenchError(f"{root}: found no table and {len(classes)} folders with images; expected one of each class")
    told = [f"inferred: {len(classes)} classes, from the names of folders"]
    if not splits:
        told.append(f"{YOURS} split: drawn by image; say which images belong to one patient, in a table, if any do")
    return _card(root.absolute().name, source, sorted(classes), False), [*told, FOR_CLASSES]


def _has_images(folder: Path) -> bool:
    return any(Path(path).suffix.lower() in IMAGES for path in files_below(folder))


def _from_table(path: Path) -> tuple[dict[str, Any], list[str]]:
    problems = Problems()
    _check_delimiter(path)
    rows = [values for _, values in islice(read_table(path, problems, set()), LOOKED_AT)]
    seen = {name: None for values in rows for name in values if name}
    if not rows:
        raise BenchError(f"{path}: no rows" + (f"; {problems.first}" if problems.first else ""))
    image, root = _image_column(path, list(seen), rows)
    columns: dict[str, Any] = {"image": image}
    taken = set(template_columns(image))
    lowered = {name.lower().replace(" ", "_").replace("-", "_"): name for name in reversed(seen)}
    for key, candidates in NAMES.items():
        found = next((lowered[c] for c in candidates if c in lowered and lowered[c] not in taken), None)
        if found is not None and _fits(key, found, rows):
            columns[key] = found
            taken.add(found)
    if ("question" in columns) != ("answer" in columns):
        columns.pop("question", None)
        columns.pop("answer", None)
    if "question" in columns:
        columns.pop("id", None)
    flags = [name for name in seen if name not in taken and _is_flag(name, rows) and _is_finding(name)]
    classes: list[str] | None = None
    multi_label = False
    if "label" in columns:
        classes, multi_label = _classes(path, columns["label"])
        if len(classes) < 2 or len(classes) > MOST_CLASSES:
            del columns["label"]
            classes = None
    if classes is None and len(flags) >= 2:
        columns["label"], classes, multi_label = flags, flags, True
        taken.update(flags)
    source: dict[str, Any] = {"kind": "manifest", "file": path.name, "columns": columns}
    if root != ".":
        source["image_root"] = root
    used = {key: ", ".join(value) if isinstance(value, list) else value for key, value in columns.items()}
    told = [f"inferred: {key} is {value}" for key, value in used.items()]
    if "split" not in columns:
        source["split"] = SHARES
        by = f"by {columns['group']}" if "group" in columns else "by image; name the column of patients, if any"
        told.append(f"{YOURS} split: drawn {by}")
    if classes and all(name.lstrip("-").isdigit() for name in classes):
        told.append(f"{YOURS} classes: they are numbers; write their names, in order")
    if unused := [name for name in seen if name not in taken]:
        told.append(f"{YOURS} columns, if any of these matter: {', '.join(unused)} (not used)")
    return _card(path.absolute().stem, source, classes, multi_label), [*told, *([FOR_CLASSES] if classes else [])]


def _card(name: str, source: dict[str, Any], classes: list[str] | None, multi_label: bool) -> dict[str, Any]:
    card: dict[str, Any] = {"title": name.replace("_", " ").replace("-", " "), "modality": "", "source": source}
    if classes:
        card["classes"] = classes
        if multi_label:
            card["multi_label"] = True
    return card


def _check_delimiter(path: Path) -> None:
    """Raise ``BenchError`` where the first line has another mark between the columns than a file of this name has."""
    expected = DELIMITERS.get(suffix_of(path))
    if expected is None:
        return
    try:
        options: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "replace"}
        with gzip.open(path, "rt", **options) if path.suffix.lower() == ".gz" else path.open(**options) as file:
            first = file.readline(1 << 16)
    except (OSError, EOFError):
        return  # for the reader to say
    mark = max(MARKS, key=first.count)
    if mark in first and expected not in first:
        known = ", ".join(f"{MARKS[own]} in {suffix}" for suffix, own in DELIMITERS.items())
        raise BenchError(f"{path}: its columns are apart by {MARKS[mark]}; expected {known}: write or name it so")


def _image_column(path: Path, names: list[str], rows: list[dict[str, Any]]) -> tuple[str, str]:
    """The column that names images which are there, or a template that adds the suffix that its names lack, and the
    folder that they are relative to; the one with most of them, of two the first.
    """
    if any(isinstance(rows[0].get(name), (bytes, dict)) for name in names):
        return next(name for name in names if isinstance(rows[0].get(name), (bytes, dict))), "."
    roots = [".", *sorted(child.name for child in path.parent.iterdir() if child.is_dir())]
    looked_at = rows[:50]
    suffixes = [*ALL_SUFFIXES, *(suffix.upper() for suffix in ALL_SUFFIXES)]
    plain = [name for name in names if re.fullmatch(r"[^{}:!]+", name)]
    with_suffix = [f"{{{name}}}{suffix}" for name in plain for suffix in suffixes]
    for templates in (plain, with_suffix):
        best: tuple[int, str, str] = (0, "", "")
        for template in templates:
            column = template_columns(template)[0]
            values = [fill(template, each) for each in looked_at if isinstance(each.get(column), (str, int))]
            for root in roots:
                found = sum(_is_image(path.parent / root, value) for value in values)
                if found > best[0]:
                    best = (found, template, root)
        if best[0]:
            return best[1], best[2]
    for name in names:
        for value in (str(each.get(name)) for each in looked_at):
            if PurePath(value).suffix.lower() in ALL_SUFFIXES and _is_absolute(value):
                message = f"column '{name}' has absolute paths, such as '{value}'"
                raise BenchError(f"{path}: {message}; expected paths relative to {path.parent.absolute()}")
    first = ", ".join(f"{name} '{str(rows[0].get(name))[:40]}'" for name in names[:6])
    message = f"no column names images that are there (looked in {', '.join(roots[:6])})"
    raise BenchError(f"{path}: {message}, with suffix or without; the first row has {first}")


def _is_absolute(value: str) -> bool:
    return PurePosixPath(value).is_absolute() or bool(PureWindowsPath(value).anchor)


def _is_image(folder: Path, value: str) -> bool:
    if len(value) > 1000 or Path(value).suffix.lower() not in ALL_SUFFIXES:
        return False
    try:
        return (folder / inside(value.strip(), "image")).is_file()
    except (BadRow, OSError, ValueError):
        return False


def _fits(key: str, name: str, rows: list[dict[str, Any]]) -> bool:
    values = [values.get(name) for values in rows]
    if key == "split":
        return all(SYNONYMS.get(str(v).strip().lower(), str(v).strip().lower()) in SPLITS for v in values)
    if key == "id":
        return len({str(value) for value in values}) == len(values)
    if key == "answer_type":
        return all(str(value).strip().lower() in ("open", "closed") for value in values)
    return any(value not in (None, "") for value in values)


def _is_flag(name: str, rows: list[dict[str, Any]]) -> bool:
    values = {str(values.get(name, "")).strip().lower() for values in rows} - {"", "none", "nan"}
    return bool(values & {"1", "1.0", "true"}) and values <= {"0", "0.0", "1", "1.0", "-1", "-1.0", "true", "false"}


def _is_finding(name: str) -> bool:
    """Whether a column may be about a finding, by the words of its name."""
    words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
    return bool(words) and not NO_FINDING & set(words)


def _classes(path: Path, column: str) -> tuple[list[str], bool]:
    """The distinct names of a column, and whether a row may have several."""
    counts: Counter[str] = Counter()
    several = False
    for _, values in read_table(path, Problems(), set()):
        try:
            names = [name for name in names_in(values.get(column)) if name]
        except BadRow:
            continue
        counts.update(names)
        several |= len(names) > 1
        if len(counts) > MOST_CLASSES:
            break
    return sorted(counts), several


class _Dumper(yaml.SafeDumper):
    """Writes a list that occurs twice twice: a reader of a card need not know ``&`` and ``*``."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_card(path: Path, output: Path) -> list[str]:
    """Infer a card and write it, with its paths relative to its own folder. Returns what was inferred and what is left
    to the user, which the card has as comments.
    """
    content, told = infer_card(path)
    if output.exists():
        raise BenchError(f"'{output}' is already there; give another with --output")
    folder = path if path.is_dir() else path.parent
    base = os.path.relpath(folder.absolute(), output.absolute().parent)
    source = content["source"]
    for key in ("file", "root", "image_root"):
        if key in source:
            source[key] = os.path.normpath(os.path.join(base, source[key]))
    comments = "".join(f"# {''.join(c for c in line if c.isprintable())}\n" for line in told)
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    try:
        output.write_text(comments + text, encoding="utf-8")
    except OSError as error:
        raise BenchError(f"{output}: cannot be written: {error.strerror}") from error
    return told
