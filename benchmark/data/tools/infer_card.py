"""Write a card for data without one, inferred from the files."""

import os
import re
from collections import Counter
from hashlib import sha256
from itertools import islice
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from benchmark.common.errors import BenchError
from benchmark.data.canonical import UNKNOWN, canonical
from benchmark.data.images import SUFFIXES as IMAGES
from benchmark.data.images import is_image_file
from benchmark.data.problems import BadRow, Problems
from benchmark.data.records import SPLITS, SYNONYMS, separated
from benchmark.data.sources.columns import fill, template_columns
from benchmark.data.sources.folders import files_below, located
from benchmark.data.sources.formats import SUFFIXES, Values, read_table
from benchmark.data.sources.text_files import suffix_of
from benchmark.data.sources.values import names_in, relative_path

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2, "seed": 0}
SAMPLED = 5000
"""Rows from which the columns are inferred. The classes are inferred from all rows."""
MOST_CLASSES = 200
TO_DO = "to do:"
PROMPTS_TO_DO = (
    f'{TO_DO} modality, and prompts such as "a chest X-ray showing {{}}", without which zero_shot cannot run'
)

SAVED = ("dataset_dict.json", "state.json")
"""What a folder of save_to_disk() has, of several splits or of one."""
BY_HAND = {
    "|".join(map(re.escape, SAVED)): "hub",
    r"\.tar(\.(gz|bz2|xz))?$|\.tgz$": "webdataset",
    r"\.npz$": "npz",
    r"\.(h5|hdf5)$": "h5",
}
"""The kinds of source that are not inferred, by the names of their files."""
MOST_FILES = 1000

NAMES = {
    "id": ("id", "uid", "sample_id", "image_id"),
    "text": (
        *("text", "caption", "report", "description", "impression", "findings", "sentence"),
        *("texts", "captions", "reports", "descriptions", "sentences"),
    ),
    "label": ("label", "labels", "class", "classes", "diagnosis", "dx", "category", "finding", "target"),
    "group": ("group", "patient", "patient_id", "patientid", "subject", "subject_id", "study", "study_id", "case_id"),
    "split": ("split", "set", "subset", "partition", "fold"),
    "question": ("question", "questions"),
    "answer": ("answer", "answers"),
    "answer_type": ("answer_type",),
    "question_type": ("question_type",),
}
"""The usual names of each column, most likely first."""
NO_FINDING = {
    *("sex", "gender", "male", "female", "man", "woman", "age", "pregnant"),
    *("smoke", "smoker", "smoking", "smoked", "drink", "alcohol"),
    *("dead", "death", "deceased", "died", "survived", "biopsied", "biopsed", "reviewed", "excluded"),
    *("id", "index", "fold", "split", "train", "val", "valid", "test"),
}
"""Words in the names of columns of 0 and 1 that describe the patient, the visit or the file, and not a finding."""


def infer_card(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Infer a card for a table, a folder with a table, or a folder of images in one folder for each class.

    Returns the content of the card, with paths relative to ``path``'s folder (or to ``path``), and lines that say what
    was inferred and what is left to do. Raises ``BenchError`` if no images can be found.
    """
    if path.is_dir():
        if any((path / name).is_file() for name in SAVED):
            raise BenchError(f"{path}: a folder of save_to_disk{_by_hand(path)}")
        tables = sorted(file for file in path.iterdir() if file.is_file() and suffix_of(file) in SUFFIXES)
        tables = [file for file in tables if suffix_of(file) != ".txt"]
        if len(tables) > 1:
            names = ", ".join(file.name for file in tables[:5])
            raise BenchError(f"{path}: contains several tables ({names}); name one of them")
        return _from_table(tables[0]) if tables else _from_folder(path)
    if not path.is_file():
        raise BenchError(f"'{path}' does not exist")
    if suffix_of(path) not in SUFFIXES:
        raise BenchError(f"'{path}': expected a folder, or a file in {', '.join(SUFFIXES)}{_by_hand(path)}")
    return _from_table(path)


def _by_hand(path: Path) -> str:
    """Say of which kind the files in a folder are, or a file is, if a card is to be written for them by hand."""
    names = sorted(file.name for file in islice(path.iterdir(), MOST_FILES)) if path.is_dir() else [path.name]
    for pattern, kind in BY_HAND.items():
        if name := next((name for name in names if re.search(pattern, name.lower())), None):
            return f"; '{name}' is of kind {kind}: write its card by hand, see \"Kinds of source\" in docs/data.md"
    return ""


def write_card(path: Path, output: Path) -> list[str]:
    """Infer a card and write it, with paths relative to the card's own folder.

    Returns lines that say what was inferred and what is left to do; the card has them as comments.
    """
    card, notes = infer_card(path)
    if output.exists():
        raise BenchError(f"'{output}' already exists; choose another file with --output")
    folder = path if path.is_dir() else path.parent
    base = os.path.relpath(folder.absolute(), output.absolute().parent)
    source = card["source"]
    for key in ("file", "root", "image_root"):
        if key in source:
            source[key] = os.path.normpath(PurePath(base, source[key]))
    comments = "".join(f"# {''.join(c for c in line if c.isprintable())}\n" for line in notes)
    text = yaml.dump(card, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    try:
        output.write_text(comments + text, encoding="utf-8")
    except OSError as error:
        raise BenchError(f"{output}: cannot be written: {error.strerror}") from error
    return notes


class _Dumper(yaml.SafeDumper):
    """Writes a list that occurs twice in full each time, so that cards do not contain ``&`` and ``*``."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _card(name: str, source: dict[str, Any], classes: list[str] | None, multi_label: bool) -> dict[str, Any]:
    card: dict[str, Any] = {"title": name.replace("_", " ").replace("-", " "), "modality": "", "source": source}
    if classes:
        card["classes"] = classes
        if multi_label:
            card["multi_label"] = True
    return card


def _split_of(name: object) -> str:
    """The split that a name may stand for, in lower case; any other name is returned too."""
    lowered = str(name).strip().lower()
    return SYNONYMS.get(lowered, lowered)


def _from_folder(root: Path) -> tuple[dict[str, Any], list[str]]:
    folders = {child.name: child for child in sorted(root.iterdir()) if child.is_dir()}
    # A link may lead back to a folder that contains it.
    folders = {name: child for name, child in folders.items() if not root.resolve().is_relative_to(child.resolve())}
    splits = {_split_of(name): name for name in folders if _split_of(name) in SPLITS}
    source: dict[str, Any] = {"kind": "image_folder", "root": "."}
    if splits:
        if any(split != name for split, name in splits.items()):
            source["split_folders"] = splits
        children = [child for name in splits.values() for child in folders[name].iterdir()]
    else:
        source["split"] = SHARES
        children = list(folders.values())
    classes = {child.name for child in children if _has_images(child)}
    if len(classes) < 2:
        message = f"{root}: found no table and {len(classes)} folders with images; expected one for each class"
        raise BenchError(f"{message}{_by_hand(root)}")
    notes = [f"inferred: {len(classes)} classes, from the names of folders"]
    if not splits:
        notes.append(f"{TO_DO} split: drawn by image; if a patient has several images, name the patients in a table")
    return _card(root.absolute().name, source, sorted(classes), False), [*notes, PROMPTS_TO_DO]


def _has_images(folder: Path) -> bool:
    return any(is_image_file(folder / path) for path in files_below(folder))


def _from_table(path: Path) -> tuple[dict[str, Any], list[str]]:
    problems = Problems()
    rows = [_unwrapped(values) for _, values in islice(read_table(path, problems, set()), SAMPLED)]
    names = list(dict.fromkeys(name for values in rows for name in values if name))
    if not rows:
        raise BenchError(f"{path}: no rows" + (f"; {problems.first}" if problems.first else ""))
    image, root = _image_column(path, names, rows)
    columns = {"image": image} | _named_columns(names, rows, set(template_columns(image)))
    shared = _shared_images(image, rows) if "id" in columns and "text" in columns else ""
    of_captions = columns.pop("id") if shared else ""
    classes, multi_label = _infer_labels(path, columns, names, rows)
    source: dict[str, Any] = {"kind": "manifest", "file": path.name, "columns": columns}
    if root != ".":
        source["image_root"] = root
    if "split" not in columns:
        source["split"] = SHARES
    notes = _table_notes(columns, names, classes)
    if shared:
        notes.append(f"inferred: {of_captions} names captions, not images ({shared}); they are gathered by image")
    return _card(path.absolute().stem, source, classes, multi_label), notes


def _unwrapped(values: Values) -> Values:
    """The values of a row, with a list of one text as that text."""
    return {name: value[0] if _is_wrapped(value) else value for name, value in values.items()}


def _is_wrapped(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 1 and isinstance(value[0], str)


def _shared_images(image: str, rows: list[Values]) -> str:
    """Which image several rows have, in words for a note; "" if none does."""
    for value, count in Counter(_image_key(image, values) for values in rows).most_common(1):
        if count > 1:
            named = f"'{value}'" if isinstance(value, str) else "one image"
            return f"{count} rows have {named}"
    return ""


def _image_key(image: str, values: Values) -> str | bytes:
    encoded = values.get(image)
    if isinstance(encoded, dict):
        encoded = encoded.get("bytes")
    return sha256(encoded).digest() if isinstance(encoded, bytes) else fill(image, values)


def _named_columns(names: list[str], rows: list[Values], taken: set[str]) -> dict[str, Any]:
    """The columns that are recognised by their names and values, without those ``taken``."""
    columns: dict[str, Any] = {}
    lowered = {name.lower().replace(" ", "_").replace("-", "_"): name for name in reversed(names)}
    for key, candidates in NAMES.items():
        name = next((lowered[c] for c in candidates if c in lowered and lowered[c] not in taken), None)
        if name is not None and _fits(key, name, rows):
            columns[key] = name
            taken = taken | {name}
    if ("question" in columns) != ("answer" in columns):
        columns.pop("question", None)
        columns.pop("answer", None)
    if "question" in columns:
        columns.pop("id", None)
    return columns


def _infer_labels(
    path: Path, columns: dict[str, Any], names: list[str], rows: list[Values]
) -> tuple[list[str] | None, bool]:
    """The classes, if there are any, and whether a row may have several; sets or removes ``columns["label"]``."""
    if "label" in columns:
        classes, multi_label = _classes(path, columns["label"])
        if 2 <= len(classes) <= MOST_CLASSES:
            return classes, multi_label
        del columns["label"]
    taken = _used(columns)
    flags = [name for name in names if name not in taken and _is_flag(name, rows) and _is_finding(name)]
    if len(flags) < 2:
        return None, False
    columns["label"] = flags
    return flags, True


def _used(columns: dict[str, Any]) -> set[str]:
    """The names of the columns that a card uses."""
    names = {name for key, name in columns.items() if key not in ("image", "label")}
    label = columns.get("label", [])
    return names | set(template_columns(columns["image"])) | set([label] if isinstance(label, str) else label)


def _table_notes(columns: dict[str, Any], names: list[str], classes: list[str] | None) -> list[str]:
    """Lines that say what was inferred from a table, and what is left to do."""
    shown = {key: ", ".join(value) if isinstance(value, list) else value for key, value in columns.items()}
    notes = [f"inferred: {key} is {value}" for key, value in shown.items()]
    if "split" not in columns:
        by = f"by {columns['group']}" if "group" in columns else "by image; name the column of patients, if any"
        notes.append(f"{TO_DO} split: drawn {by}")
    if classes and all(name.lstrip("-").isdigit() for name in classes):
        notes.append(f"{TO_DO} classes: they are numbers; write their names, in order")
    if unused := [name for name in names if name not in _used(columns)]:
        notes.append(f"{TO_DO} columns, if any of these matter: {', '.join(unused)} (not used)")
    return [*notes, *([PROMPTS_TO_DO] if classes else [])]


def _image_column(path: Path, names: list[str], rows: list[Values]) -> tuple[str, str]:
    """The column with the paths of images, and the folder that they are relative to.

    It may be a template that adds a suffix. The column whose values name the most existing images is chosen, of two the
    first. Raises ``BenchError`` if there is none.
    """
    for name in names:
        if isinstance(rows[0].get(name), (bytes, dict)):
            return name, "."
    roots = [".", *sorted(child.name for child in path.parent.iterdir() if child.is_dir())]
    sample = rows[:50]
    suffixes = [each for suffix in sorted(IMAGES) for each in (suffix, suffix.upper())]
    plain = [name for name in names if re.fullmatch(r"[^{}:!]+", name)]
    with_suffix = [f"{{{name}}}{suffix}" for name in plain for suffix in suffixes]
    for templates in (plain, with_suffix):
        count, template, root = _most_images(path.parent, templates, roots, sample)
        if count:
            return template, root
    _check_no_absolute_path(path, names, sample)
    first = ", ".join(f"{name} '{str(rows[0].get(name))[:40]}'" for name in names[:6])
    message = f"no column contains paths of existing images (looked in {', '.join(roots[:6])})"
    raise BenchError(f"{path}: {message}, with suffix or without; the first row has {first}")


def _most_images(folder: Path, templates: list[str], roots: list[str], rows: list[Values]) -> tuple[int, str, str]:
    """The number of images that exist, for the template and root with the most, and these two."""
    best = (0, "", "")
    for template in templates:
        column = template_columns(template)[0]
        paths = [fill(template, values) for values in rows if isinstance(values.get(column), (str, int))]
        for root in roots:
            count = sum(_is_image(folder / root, path) for path in paths)
            if count > best[0]:
                best = (count, template, root)
    return best


def _check_no_absolute_path(path: Path, names: list[str], rows: list[Values]) -> None:
    for name in names:
        for value in (str(values.get(name)) for values in rows):
            if PurePath(value).suffix.lower() in IMAGES and _is_absolute(value):
                message = f"column '{name}' has absolute paths, such as '{value}'"
                raise BenchError(f"{path}: {message}; expected paths relative to {path.parent.absolute()}")


def _is_absolute(value: str) -> bool:
    return PurePosixPath(value).is_absolute() or bool(PureWindowsPath(value).anchor)


def _is_image(folder: Path, value: str) -> bool:
    if len(value) > 1000:
        return False
    try:
        path = located(folder, relative_path(value.strip(), "image"))
        return path.is_file() and is_image_file(path)
    except (BadRow, OSError, ValueError):
        return False


def _fits(key: str, name: str, rows: list[Values]) -> bool:
    """Whether the values of a column can be what its name says."""
    values = [values.get(name) for values in rows]
    if key == "split":
        return all(_split_of(value) in SPLITS for value in values)
    if key == "id":
        return len({str(value) for value in values}) == len(values)
    if key == "answer_type":
        return all(str(value).strip().lower() in ("open", "closed") for value in values)
    return any(value not in (None, "") for value in values)


def _is_flag(name: str, rows: list[Values]) -> bool:
    values = {str(values.get(name, "")).strip().lower() for values in rows} - {"", "none", "nan"}
    return bool(values & {"1", "1.0", "true"}) and values <= {"0", "0.0", "1", "1.0", "-1", "-1.0", "true", "false"}


def _is_finding(name: str) -> bool:
    """Whether the words in the name of a column can describe a finding."""
    words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
    return bool(words) and NO_FINDING.isdisjoint(words)


def _classes(path: Path, column: str) -> tuple[list[str], bool]:
    """The distinct names in a column, in their canonical form, and whether a row may have several.

    A text such as ``A|B`` or ``A, B`` is several names if each also stands alone; of ``A|B`` that is not asked.
    """
    counts: Counter[str] = Counter()
    several = False
    for _, values in read_table(path, Problems(), set()):
        try:
            forms = list(map(canonical, names_in(values.get(column))))
        except BadRow:
            continue
        names = [form for form in forms if form.lower() not in UNKNOWN]
        counts.update(names)
        several |= len(names) > 1
        if len(counts) > SAMPLED:
            break
    classes: set[str] = set()
    for text in counts:
        parts = separated(text, counts.__contains__) or [part for each in text.split("|") if (part := each.strip())]
        classes.update(map(canonical, parts))
        several |= len(parts) > 1
    return sorted(classes), several
