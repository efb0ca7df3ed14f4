"""Write a card for data without one, inferred from the files."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice, product
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from benchmark.common.errors import BenchError, cut, listed
from benchmark.config.yaml_files import config_names, is_there
from benchmark.data.canonical import UNKNOWN, canonical, composed
from benchmark.data.card import load_card
from benchmark.data.images import SUFFIXES as IMAGES
from benchmark.data.images import is_image_file
from benchmark.data.problems import BadRow, Problems
from benchmark.data.records import SPLITS, SYNONYMS, separated
from benchmark.data.sources.chunks import Values
from benchmark.data.sources.columns import fill, template_columns
from benchmark.data.sources.folders import files_below, located
from benchmark.data.sources.formats import SUFFIXES, read_table
from benchmark.data.sources.npz import NpzSource
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
PATHS = ("file", "root", "image_root")
"""The keys of a source that are paths."""
BY_HAND = {
    "|".join(map(re.escape, SAVED)): "hub",
    r"\.tar(\.(gz|bz2|xz))?$|\.tgz$": "webdataset",
    r"\.(h5|hdf5)$": "h5",
}
"""The kinds of source that are not inferred, by the names of their files."""
MOST_FILES = 1000
MOST_FOLDERS = 50
"""Folders in which images are looked for by their paths."""
MOST_SEARCHED = 200_000
"""Files among which images and tables are looked for by their names."""
DEEP = 3
"""How many folders down a table is looked for."""

NAMES = {
    "id": ("id", "uid", "sample_id", "image_id"),
    "text": (
        *("text", "caption", "report", "description", "impression", "findings", "sentence"),
        *("texts", "captions", "reports", "descriptions", "sentences"),
        *("befundtext", "bericht", "beschreibung", "beurteilung", "befund"),
    ),
    "label": (
        *("label", "labels", "class", "classes", "diagnosis", "dx", "category", "finding", "target"),
        *("diagnose", "klasse", "kategorie", "befund"),
    ),
    "group": ("group", "patient", "patient_id", "study"),
    "split": ("split", "set", "subset", "partition", "fold", "aufteilung"),
    "question": ("question", "questions", "frage"),
    "answer": ("answer", "answers", "antwort"),
    "answer_type": ("answer_type",),
    "question_type": ("question_type",),
}
"""The usual names of each column, most likely first."""
GROUPS = (
    "patient(en|in|innen)?(id)?",
    "(proband(en|in)?|subject|participant|person|mrn)(id)?",
    "(case|fall|lesion|accession|exam(ination)?|study|untersuchungs?)(id|nr|no|num|key)",
)
"""Whom or what images belong to, in the names of columns that identify it; the widest first."""
BOTH = "befund"
"""The name of a column that may hold reports or classes; reports are rarely the same."""
IDENTIFIER = "(id|ids|nr|no|num|number|nummer|key|code|hash|uid|pseudonym|index)*"
NO_FINDING = {
    *("sex", "gender", "male", "female", "man", "woman", "age", "pregnant"),
    *("smoke", "smoker", "smoking", "smoked", "drink", "alcohol"),
    *("dead", "death", "deceased", "died", "survived", "biopsied", "biopsed", "reviewed", "excluded"),
    *("id", "index", "fold", "split", "train", "val", "valid", "test"),
}
"""Words in the names of columns of 0 and 1 that describe the patient, the visit or the file, and not a finding."""


def infer_card(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Infer a card for a table, an .npz file, a folder with a table, or a folder of images in folders of classes.

    Returns the content of the card, with paths relative to ``path``'s folder (or to ``path``), and lines that say what
    was inferred and what is left to do. Raises ``BenchError`` if no images can be found.
    """
    folder, card, notes = _infer(path)
    return _moved(card, folder, path if path.is_dir() else path.parent), notes


def _infer(path: Path) -> tuple[Path, dict[str, Any], list[str]]:
    """Infer a card, with paths relative to the folder that is returned first."""
    if not is_there(path):
        raise BenchError(f"'{cut(str(path))}' does not exist")
    if path.is_dir():
        if any((path / name).is_file() for name in SAVED):
            raise BenchError(f"{path}: a folder of save_to_disk{_by_hand(path)}")
        if table := _only_table(path):
            return _infer(table)
        return path, *_from_folder(path)
    if not path.is_file():
        raise BenchError(f"'{path}' is neither a file nor a folder")
    if suffix_of(path) == ".npz":
        return path.parent, *_from_npz(path)
    if suffix_of(path) not in SUFFIXES:
        raise BenchError(f"'{path}': expected a folder, or a file in {', '.join(SUFFIXES)} or .npz{_by_hand(path)}")
    return path.parent, *_from_table(path)


def _only_table(folder: Path) -> Path | None:
    """Return the table in a folder, or else in its folders; None if there is none. Raises ``BenchError`` for several.

    An .npz file counts as one; texts do not, as there may be one for each image.
    """
    suffixes = {*SUFFIXES, ".npz"} - {".txt"}
    below = [PurePosixPath(name) for name in islice(files_below(folder), MOST_SEARCHED)]
    for depth in range(1, DEEP + 2):
        at_depth = [Path(folder, each) for each in below if len(each.parts) == depth and each.name[0] != "."]
        tables = sorted(file for file in at_depth if suffix_of(file) in suffixes)
        if len(tables) > 1:
            names = listed(str(table.relative_to(folder)) for table in tables)
            raise BenchError(f"{folder}: contains several tables ({names}); name one of them")
        if tables:
            return tables[0]
    return None


def _moved(card: dict[str, Any], folder: Path, to: Path) -> dict[str, Any]:
    """Return the card with paths, which are relative to a folder, relative to another."""
    base = os.path.relpath(folder.absolute(), to.absolute())
    paths = {key: os.path.normpath(PurePath(base, card["source"][key])) for key in PATHS if key in card["source"]}
    return card | {"source": card["source"] | paths}


def _by_hand(path: Path) -> str:
    """Say of which kind the files in a folder are, or a file is, if a card is to be written for them by hand."""
    names = sorted(file.name for file in islice(path.iterdir(), MOST_FILES)) if path.is_dir() else [path.name]
    for pattern, kind in BY_HAND.items():
        if name := next((name for name in names if re.search(pattern, name.lower())), None):
            shipped = _shipped(name)
            use = f"; the shipped card '{shipped}' is of a file of this name" if shipped else ""
            return f"; '{name}' is of kind {kind}: write its card by hand, see \"Kinds of source\" in docs/data.md{use}"
    return ""


def write_card(path: Path, output: Path) -> list[str]:
    """Infer a card and write it, with paths relative to the card's own folder.

    Returns lines that say what was inferred and what is left to do; the card has them as comments.
    """
    folder, card, notes = _infer(path)
    if output.exists():
        raise BenchError(f"'{output}' already exists; choose another file with --output")
    comments = "".join(f"# {''.join(c for c in line if c.isprintable())}\n" for line in notes)
    moved = _moved(card, folder, output.absolute().parent)
    text = yaml.dump(moved, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    try:
        output.write_text(comments + text, encoding="utf-8")
    except OSError as error:
        raise BenchError(f"{output}: cannot be written: {error.strerror}") from error
    return notes


def _shipped(name: str, columns: Iterable[str] | None = None) -> str:
    """Return the shipped cards, joined by "or", of a file of this name that have only these columns; "" if none.

    Sets in several sizes have files of one name and a number.
    """
    known, cards, of_size = set(columns or ()), [], re.sub(r"(_\d+)?\.npz$", "", name)
    for each in config_names("dataset"):
        card = load_card(each)
        files = {need.name.lower() for need in card.source.needs()}
        used = getattr(card.source, "columns", None)
        needed = set() if used is None else {column for column in (used.label, used.group) if isinstance(column, str)}
        if each == of_size or (name.lower() in files and (columns is None or needed <= known)):
            cards.append(each)
    return "' or '".join(cards)


def _say_shipped(name: str, columns: Iterable[str] | None = None) -> list[str]:
    """Return a line that points to the shipped card of a file, if there is one."""
    if not (shipped := _shipped(name, columns)):
        return []
    first = shipped.partition("'")[0]
    return [f"{TO_DO} if this is the published set of card '{shipped}', use that card: bench data how {first}"]


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


def _from_npz(path: Path) -> tuple[dict[str, Any], list[str]]:
    source = NpzSource(file=Path(path.name)).located_in(path.parent)
    splits = source.splits()
    if not splits:
        raise BenchError(f"{path}: no images; expected arrays train_images, train_labels, test_images and so on")
    labels = {split: source.labels(split) for split in splits}
    multi_label = any(each.ndim == 2 and each.shape[1] > 1 for each in labels.values())
    highest = (
        each.shape[1] - 1 if multi_label and each.ndim == 2 else each.max(initial=-1) for each in labels.values()
    )
    count = int(max(highest)) + 1
    if not 2 <= count <= MOST_CLASSES:
        raise BenchError(f"{path}: the labels are of {count:,} classes; expected 2 to {MOST_CLASSES}")
    names = [str(number) for number in range(count)]
    notes = [*_say_shipped(path.name), f"inferred: splits {', '.join(splits)} and {len(names)} classes"]
    notes += [f"{TO_DO} classes: they are numbers; write their names, in order", PROMPTS_TO_DO]
    return _card(path.absolute().stem, {"kind": "npz", "file": path.name}, names, multi_label), notes


def _from_table(path: Path) -> tuple[dict[str, Any], list[str]]:
    problems = Problems()
    rows = [_unwrapped(values) for _, values in islice(read_table(path, problems, set()), SAMPLED)]
    names = list(dict.fromkeys(name for values in rows for name in values if name))
    if problems.counts["not UTF-8"]:
        raise BenchError(f"{problems.first}; save it so, for example: iconv -f CP1252 -t UTF-8 {path.name} > utf8.csv")
    if not rows:
        raise BenchError(f"{path}: no rows" + (f"; {problems.first}" if problems.first else ""))
    images = _images_of(path, names, rows)
    columns = {"image": images.column} | _named_columns(names, rows, set(template_columns(images.column)))
    shared = _shared_images(images.column, rows) if "id" in columns and "text" in columns else ""
    of_captions = columns.pop("id") if shared else ""
    classes, multi_label = _infer_labels(path, columns, names, rows)
    source: dict[str, Any] = {"kind": "manifest", "file": path.name, "columns": columns}
    if images.root != ".":
        source["image_root"] = images.root
    if images.find:
        source["find"] = True
    if images.strip_prefix:
        source["strip_prefix"] = images.strip_prefix
    if "split" not in columns:
        source["split"] = SHARES
    notes = [*_say_shipped(path.name, names), *images.notes(), *_table_notes(columns, names, classes)]
    if shared:
        notes.append(f"inferred: {of_captions} names captions, not images ({shared}); they are gathered by image")
    if problems.counts:
        notes.append(f"{TO_DO} rows that cannot be read: {problems.counts.total():,}; the first: {problems.first}")
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
    lowered = {"_".join(_words(name)): name for name in reversed(names)}
    for key, candidates in NAMES.items():
        possible = [lowered[c] for c in candidates if c in lowered]
        if key == "group":
            possible += _groups(names)
        name = next((name for name in possible if name not in taken and _fits(key, name, rows)), None)
        if name is not None:
            columns[key] = name
            taken = taken | {name}
    if ("question" in columns) != ("answer" in columns):
        columns.pop("question", None)
        columns.pop("answer", None)
    if "question" in columns:
        columns.pop("id", None)
    return columns


def _words(name: str) -> list[str]:
    """The words of a column's name, in lower case: of PatientID, patient and id."""
    return re.findall(r"[^\W\d_]+|\d+", re.sub(r"([^\W\d_A-Z])([A-Z])", r"\1 \2", name).lower())


def _groups(names: list[str]) -> list[str]:
    """The columns whose names say that they identify a patient, or else a lesion or an examination."""
    joined = {name: "".join(_words(name)) for name in names}
    return [name for group in GROUPS for name, text in joined.items() if re.fullmatch(group + IDENTIFIER, text)]


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


@dataclass(frozen=True)
class Images:
    """Where the images of a table are. column: with their paths, or a template; the others are keys of the source."""

    column: str
    root: str = "."
    find: bool = False
    strip_prefix: str = ""

    def notes(self) -> list[str]:
        """Lines that say what was inferred about where images are."""
        found = f", found by their names below {self.root}" if self.find else ""
        stripped = f", their paths without '{cut(self.strip_prefix)}'" if self.strip_prefix else ""
        return [f"inferred: images are in {self.root}{found}{stripped}"] if found or stripped else []


def _images_of(path: Path, names: list[str], rows: list[Values]) -> Images:
    """The column with the paths of images, and where they are.

    It may be a template that adds a suffix. The column whose values name the most existing images is chosen, of two the
    first: in the table's folder, the folders in it and beside it, or, where some are missing there, by their names in
    any folder below. Absolute paths may begin with folders of another machine. Raises ``BenchError`` if there is none.
    """
    for name in names:
        if isinstance(rows[0].get(name), (bytes, dict)):
            return Images(name)
    folder, sample = path.parent, rows[:50]
    above = folder.absolute().parent
    beside = [f"../{name}" for name in _folders(above) if name != folder.absolute().name]
    roots = [".", *_folders(folder), "..", *beside]
    suffixes = [each for suffix in sorted(IMAGES) for each in (suffix, suffix.upper())]
    plain = [name for name in names if re.fullmatch(r"[^{}:!]+", name)]
    with_suffix = [f"{{{name}}}{suffix}" for name in plain for suffix in suffixes]
    best, chosen = 0, Images("")
    for templates in (plain, with_suffix):
        paths = {template: _paths(template, sample) for template in templates}
        count, template, root = _most_images(folder, paths, roots)
        if count > best:
            best, chosen = count, Images(template, root)
        if best == len(sample):
            return chosen
        for searched in (".", ".."):
            count, template = _most_names(folder / searched, paths)
            if count > best:
                best, chosen = count, Images(template, searched, find=True)
    return chosen if best else _absolute_images(path, plain, sample, roots)


def _folders(folder: Path) -> list[str]:
    try:
        return sorted(islice((each.name for each in folder.iterdir() if each.is_dir()), MOST_FOLDERS))
    except OSError:
        return []


def _paths(template: str, rows: list[Values]) -> list[str]:
    column = template_columns(template)[0]
    paths = [fill(template, values) for values in rows if isinstance(values.get(column), (str, int))]
    return [path for path in paths if not _is_absolute(path)]


def _most_images(folder: Path, paths: dict[str, list[str]], roots: list[str]) -> tuple[int, str, str]:
    """The number of images that exist, for the template and root with the most, and these two."""
    best = (0, "", "")
    for template, of_template in paths.items():
        for root in roots:
            count = sum(_is_image(folder / root, path) for path in of_template)
            if count > best[0]:
                best = (count, template, root)
    return best


def _most_names(folder: Path, paths: dict[str, list[str]]) -> tuple[int, str]:
    """The number of images that have a name of a file below a folder, for the template with the most, and it."""
    below = {composed(PurePosixPath(name).name) for name in islice(files_below(folder), MOST_SEARCHED)}
    names = {template: [composed(PurePosixPath(path).name) for path in each] for template, each in paths.items()}
    images = {t: sum(name in below and is_image_file(Path(name)) for name in each) for t, each in names.items()}
    template = max(images, key=lambda each: images[each], default="")
    return images.get(template, 0), template


def _absolute_images(path: Path, names: list[str], rows: list[Values], roots: list[str]) -> Images:
    """Find the images that a column names with the folders of another machine before them. Raises ``BenchError``."""
    for name in names:
        values = [str(values.get(name)).strip().replace("\\", "/") for values in rows]
        if not all(_is_absolute(value) and PurePosixPath(value).suffix.lower() in IMAGES for value in values):
            continue
        common = os.path.commonpath([PurePosixPath(value).parent for value in values]).split("/")
        below, others = [root for root in roots if root[:2] != ".."], [root for root in roots if root[:2] == ".."]
        for where, depth in product((below, others), range(1, len(common) + 1)):
            prefix = "/".join(common[:depth]).rstrip("/") + "/"
            paths = {name: [value.removeprefix(prefix) for value in values]}
            count, _, root = _most_images(path.parent, paths, where)
            if count == len(values):
                return Images(name, root, strip_prefix=prefix)
        if _most_names(path.parent, {name: values})[0] == len(values):
            return Images(name, find=True, strip_prefix=f"{common[0]}/")
        raise BenchError(
            f"{path}: column '{name}' has absolute paths, such as '{cut(values[0])}', and no such images are below "
            f"{path.parent.absolute()}; move the images there, or write paths that are relative to it"
        )
    first = ", ".join(f"{name} '{str(rows[0].get(name))[:40]}'" for name in names[:6])
    message = f"no column contains paths of existing images (looked in {listed(roots)})"
    raise BenchError(f"{path}: {message}, with suffix or without; the first row has {first}")


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
    if name.lower() == BOTH:
        distinct = len({str(value) for value in values})
        return distinct > len(values) / 2 if key == "text" else distinct <= MOST_CLASSES
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
