"""The rows of a JSON document, in each of the forms in which tables are published as one."""

from collections.abc import Iterator
from typing import Any

from benchmark.common.errors import BenchError, cut, listed, shortened
from benchmark.data.problems import BadRow, Problems
from benchmark.data.records import SPLITS, SYNONYMS, place

Values = dict[str, Any]


def with_inner(values: Values, depth: int = 4) -> Values:
    """The values of a row, and those inside its objects, and inside the objects of its lists, as ``column.name``.

    depth: objects inside of objects are looked into as often as this.
    """
    inner: Values = {}
    for name, value in values.items():
        if isinstance(value, dict):
            inner |= {f"{name}.{key}": item for key, item in value.items()}
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            inner |= {f"{name}.{key}": [item.get(key) for item in value] for key in value[0]}
    return with_inner(inner, depth - 1) | values if inner and depth else values


def rows_of(document: Any, file: str, problems: Problems) -> Iterator[tuple[int, Values]]:
    """The rows of a document, numbered from 1. Bad ones are added to ``problems``.

    A document is one of these:

    - a list of objects, or of objects with one name and an object each: ``[{"a": {...}}]``;
    - one object, with an object (or several alike) for each name, or a value or values: ``{"a.png": "caption"}``;
    - one object with a list (or objects, or values, by name) for each split: ``{"train": [...], "test": [...]}``;
    - one object with a single list of objects, and things that are not rows: ``{"info": {}, "data": [...]}``;
    - one object with columns by name, and values by number: ``{"image": {"0": "a.png"}}``, as pandas writes it;
    - COCO: ``images``, ``annotations`` and ``categories``, see coco_rows().

    A name goes into the column ``key``, a value beside a name into ``value``, and the name of a split into ``split``.
    Values inside of others are columns too, see with_inner().

    Raises ``BenchError`` for any other document.
    """
    for number, item in enumerate(_items(document, file, problems), 1):
        try:
            yield number, with_inner(_row(item))
        except BadRow as bad:
            problems.add(place(file, number), bad)


def _row(item: Any) -> Values:
    if isinstance(item, BadRow):
        raise item
    if not isinstance(item, dict):
        raise BadRow("malformed JSON", f"expected an object, found {shortened(item)}")
    if len(item) == 1 and isinstance(inner := next(iter(item.values())), dict):
        return {**inner, "key": next(iter(item))}
    return item


def _items(document: Any, file: str, problems: Problems) -> Iterator[Any]:
    if isinstance(document, list):
        return iter(document)
    if not isinstance(document, dict):
        raise BenchError(f"{file}: expected a JSON list of objects, found {shortened(document)}")
    lists = {name: value for name, value in document.items() if _are_objects(value)}
    if "images" in lists and isinstance(document.get("annotations"), list):
        return coco_rows(document, file, problems)
    splits = {name: value for name, value in document.items() if _split(name) and _is_table(value)}
    if splits:
        of_splits = {name: value for name, value in document.items() if name in splits or name in lists}
        return (item for name, value in of_splits.items() for item in _of_split(name, value))
    if len(lists) == 1:
        return iter(next(iter(lists.values())))
    if len(lists) == len(document) and len({_keys(value) for value in lists.values()}) == 1:
        return ({**item, "key": name} if isinstance(item, dict) else item for name in lists for item in lists[name])
    if _is_of_columns(document):
        return (dict(zip(document, row)) for row in zip(*(column.values() for column in document.values())))
    if lists or not document:
        names = listed(f"'{cut(name)}'" for name in document)
        raise BenchError(
            f"{file}: expected a JSON list of objects, objects by name, a list for each split, or COCO ('images' and "
            f"'annotations'); found an object of {names}"
        )
    if any(isinstance(value, dict) for value in document.values()):
        return ({name: value} if isinstance(value, dict) else value for name, value in document.items())
    return ({"key": name, "value": value} for name, value in document.items())


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def _keys(objects: list[Any]) -> frozenset[str]:
    return frozenset(next(item for item in objects if isinstance(item, dict)))


def _split(name: str) -> str:
    """The split that a name stands for, or ""."""
    lowered = name.strip().lower()
    split = SYNONYMS.get(lowered, lowered)
    return split if split in SPLITS else ""


def _is_table(value: Any) -> bool:
    """Whether a value can be the rows of a split: a list of objects or of names, or objects or texts by name."""
    if isinstance(value, dict):
        return bool(value) and all(_is_row(item) for item in value.values())
    return isinstance(value, list) and (not value or any(isinstance(item, (dict, str)) for item in value))


def _is_row(value: Any) -> bool:
    """Whether a value can stand beside a name: an object, a text or a list of texts."""
    texts = value if isinstance(value, list) and value else [value]
    return isinstance(value, dict) or all(isinstance(text, str) for text in texts)


def _of_split(name: str, rows: Any) -> Iterator[Any]:
    items = rows
    if isinstance(rows, dict):
        items = [{key: item} if isinstance(item, dict) else {"key": key, "value": item} for key, item in rows.items()]
    for item in items:
        try:
            row = {"key": item} if isinstance(item, str) else _row(item)
            own = row.get("split")
            if own is not None and own != name and (_split(str(own)) or own) != (_split(name) or name):
                raise BadRow("two splits", f"split is {shortened(own)}, but the row stands under '{cut(name)}'")
            yield {**row, "split": name}
        except BadRow as bad:
            yield bad


def _is_of_columns(document: Values) -> bool:
    columns = list(document.values())
    first = columns[0] if columns else None
    if not isinstance(first, dict) or not all(isinstance(column, dict) for column in columns):
        return False
    names = list(first)
    return names == [str(i) for i in range(len(names))] != [] and all(list(column) == names for column in columns)


def coco_rows(document: Values, file: str, problems: Problems) -> Iterator[Values | BadRow]:
    """A row for each image of a COCO document: the image's own keys, and lists of what its annotations say.

    ``category`` has the names of the annotations' categories, each once; other columns (``caption``) have a value for
    each annotation that has one. An image without annotations has empty lists. What an annotation says in objects or
    lists, such as boxes and masks, is left out.
    """
    names = {}
    for category in document.get("categories") or []:
        if not isinstance(category, dict) or "id" not in category or not category.get("name"):
            raise BenchError(f"{file}: categories: expected objects with 'id' and 'name', found {shortened(category)}")
        names[_text(category["id"])] = str(category["name"]).strip()
    rows: dict[str, Values | BadRow] = {}
    for number, image in enumerate(document["images"]):
        id = _id(image, "id")
        if id is None or id in rows:
            found = "has no 'id'" if id is None else f"id {shortened(id)} occurs twice"
            rows[f"images[{number}]"] = BadRow("bad image id", f"images[{number}]: {found}")
        else:
            rows[id] = dict(image)
    columns = _add_annotations(document["annotations"], rows, names, file, problems)
    for row in rows.values():
        if isinstance(row, dict):
            for name in columns:
                row.setdefault(name, [])
        yield row


def _add_annotations(
    annotations: list[Any], rows: dict[str, Values | BadRow], names: dict[str, str], file: str, problems: Problems
) -> set[str]:
    """Add the annotations to the rows of their images. Returns the columns that were added."""
    columns: set[str] = set()
    own = {id: set(row) for id, row in rows.items() if isinstance(row, dict)}
    for number, annotation in enumerate(annotations):
        id = _id(annotation, "image_id")
        row = rows.get(id or "")
        if id is None or row is None:
            found = annotation.get("image_id") if isinstance(annotation, dict) else annotation
            message = f"image_id {shortened(found)} is the 'id' of no image"
            problems.add(f"{file}, annotations[{number}]", BadRow("annotation of no image", message))
            continue
        if isinstance(row, BadRow):
            continue
        try:
            said = _said(annotation, names)
        except BadRow as bad:
            rows[id] = BadRow(bad.reason, f"annotations[{number}]: {bad.message}")
            continue
        for name, value in said.items():
            if name not in own[id]:
                columns.add(name)
                values = row.setdefault(name, [])
                if name != "category" or value not in values:
                    values.append(value)
    return columns


def _said(annotation: Values, names: dict[str, str]) -> Values:
    said = {
        name: value
        for name, value in annotation.items()
        if name not in ("id", "image_id") and isinstance(value, (str, int, float))
    }
    if names and annotation.get("category_id") is not None:
        said.pop("category_id", None)
        id = _id(annotation, "category_id")
        if id not in names:
            value = shortened(annotation["category_id"])
            raise BadRow("unknown category", f"category_id {value} is the 'id' of no category")
        said["category"] = names[id]
    return said


def _id(values: Any, name: str) -> str | None:
    """An id as text, so that 7 and "7" are the same, or None."""
    value = values.get(name) if isinstance(values, dict) else None
    return _text(value) or None if isinstance(value, (str, int, float)) else None


def _text(value: Any) -> str:
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
