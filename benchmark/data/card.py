"""Dataset cards: YAML files that describe a dataset and its location."""

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, PrivateAttr, model_validator

from benchmark.common.errors import BenchError, cut, unknown
from benchmark.config.validation import Name, validated
from benchmark.config.yaml_files import config_names, find_config, parse_yaml, read_yaml
from benchmark.data.canonical import canonical
from benchmark.data.problems import BadRow
from benchmark.data.records import SPLITS, Classes, Split
from benchmark.data.sources import SOURCES, AnySource
from benchmark.data.sources.base import Fractions

Prompts = dict[str, list[str]] | list[str]
Access = Literal["embedded", "open", "registration", "credentialed"]
LONGEST_NAME = 160
"""The most bytes of a card's name with the settings behind it: files of results have it in their names."""
HUB = re.compile(r"hub:([\w.-]+/[\w.-]+)@([0-9a-f]{40})")
"""A dataset's repository on the Hugging Face hub at a commit: files under a branch's name may change."""


class GetFile(BaseModel):
    """A file that a host offers for download.

    file: its path below ``at`` of the block, or a whole URL. to: where it goes, below $BENCH_DATA: the file itself or,
    with ``unpack``, the folder (of gz: the file) with its content.
    bytes, md5, sha256: what the host publishes; the hub and Zenodo are asked for what is not given. unpacked: the bytes
    on disk after unpacking, where they are far more than those of the archive.
    unpack: zip, tar (compressed or not) or gz. holds: a file or folder that the archive has, or a pattern; what lies
    beside it, at whatever depth, goes to ``to``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    to: PurePosixPath
    bytes: PositiveInt | None = None
    md5: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    unpack: Literal["zip", "tar", "gz"] | None = None
    holds: str = ""
    unpacked: PositiveInt | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.to.is_absolute() or ".." in self.to.parts or not self.to.name:
            raise ValueError(f"to: expected a path below $BENCH_DATA, found '{self.to}'")
        if self.unpacked and not self.unpack:
            raise ValueError("'unpacked' needs 'unpack'")
        if self.holds and self.unpack not in ("zip", "tar"):
            raise ValueError("'holds' needs 'unpack: zip' or 'unpack: tar'")
        return self


class Get(BaseModel):
    """What `bench data get` downloads, so that the files lie as the source expects them.

    at: the folder of the files: a URL, or ``hub:OWNER/NAME@COMMIT`` for a dataset on the Hugging Face hub.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: str = ""
    files: Annotated[list[GetFile], Field(min_length=1)]

    @property
    def hub(self) -> tuple[str, str] | None:
        """The name of the repository on the hub, and the commit."""
        match = HUB.fullmatch(self.at)
        return (match[1], match[2]) if match else None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.at and not self.hub and not self.at.startswith(("https://", "http://")):
            raise ValueError(f"at: expected https://... or hub:OWNER/NAME@COMMIT (40 digits), found '{self.at}'")
        if not self.at and any(not each.file.startswith(("https://", "http://")) for each in self.files):
            raise ValueError("'at' is missing, so each 'file' must be a URL")
        for each in self.files:
            others = [other.to for other in self.files if other is not each]
            if each.to in others or (each.unpack and any(each.to in other.parents for other in others)):
                raise ValueError(f"to: another file goes to '{each.to}' too")
        return self


class Card(BaseModel):
    """A dataset: configs/datasets/NAME.yaml, or the user's own file.

    source: where the records come from; its ``kind`` decides which keys it has.
    classes: their names, in the order of the labels. multi_label: any number of classes can hold for one image.
    prompts: templates with ``{}`` for the class, used for every class, or full prompts for each class.
    negative_prompts: the same for the absence of the class; used as pairs with ``prompts`` in multi-label sets.
    class_texts: what replaces ``{}`` for classes whose name does not read well in a sentence.
    rows: the expected number of images in each split, or in ``all`` if the split is drawn; checked by
    ``bench data verify``.
    about_rows: the same where the numbers are only known roughly; ``bench plan`` uses them, nothing is checked against
    them.
    layout: a small tree of the files expected on disk, below $BENCH_DATA. how: the steps to get them. size: of them
    all.
    get: the files that `bench data get` downloads, or the name of the card that lists them.
    access: who can get it: anyone, those who register, or those with a certificate (``embedded``: drawn in code). The
    report shows no image and no text of the last two.
    headline: the metric that the tables show, where a task has it (``accuracy``, ``balanced_accuracy``, ...); default:
    that of the task, and balanced accuracy where one class has more than half of the test images.
    licence, citation, home_page: how it may be used. notes: what readers of its results must know, and what in this
    card could not be confirmed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))

    name: str
    title: str = ""
    modality: str = ""
    source: Annotated[AnySource, Field(discriminator="kind")]
    classes: Annotated[list[str], Field(min_length=2)] | None = None
    multi_label: bool = False
    prompts: Prompts | None = None
    negative_prompts: Prompts | None = None
    class_texts: dict[str, str] = {}
    rows: dict[Split | Literal["all"], PositiveInt] = {}
    about_rows: dict[Split | Literal["all"], PositiveInt] = {}
    layout: str = ""
    how: list[str] = []
    get: Get | str | None = None
    size: str = ""
    access: Access | None = None
    headline: str | None = None
    licence: str = ""
    citation: str = ""
    home_page: str = ""
    notes: list[str] = []
    _reference: str = PrivateAttr(default="")

    @property
    def reference(self) -> str:
        """What load_card() takes to load it again from any working folder: a shipped card's name, or a path."""
        return self._reference or self.name

    @property
    def restricted(self) -> bool:
        """Whether only those who registered or hold a certificate may have its images and texts."""
        return self.access in ("registration", "credentialed")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, card: Any) -> Any:
        """Read numbers as names of classes: BI-RADS 1 to 5 need no quotes."""
        if not isinstance(card, dict):
            return card
        keys = ("classes", "prompts", "negative_prompts", "class_texts")
        return card | {key: _numbers_as_names(card[key]) for key in keys if key in card}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_different(self.classes or [])
        if self.classes is None and "label" in self.source.provides():
            raise ValueError("the source has labels, so 'classes' must list their names")
        if self.source.per_class and (self.multi_label or self.classes is None):
            raise ValueError("source.per_class: expected a set with 'classes' that is not multi_label")
        for name in self.source.keep:
            if name not in (self.classes or []):
                raise ValueError(f"source.keep: {unknown('class', name, self.classes or [])}")
        for key in ("prompts", "negative_prompts", "class_texts"):
            value = getattr(self, key)
            if value is None or value == {}:
                continue
            if self.classes is None:
                raise ValueError(f"'{key}' needs 'classes'")
            if isinstance(value, dict):
                _check_class_names(key, value, self.classes)
            else:
                _check_templates(key, value)
        return self

    @cached_property
    def labels(self) -> Classes:
        """The classes, as sources need them to make labels."""
        return Classes(tuple(self.classes or ()), self.multi_label)

    @property
    def class_index(self) -> dict[str, int]:
        """The number of each class."""
        return self.labels.index

    @property
    def provides(self) -> frozenset[str]:
        """Which of "text", "label", "question" and "prompts" tasks can ask the dataset for."""
        return self.source.provides() | ({"prompts"} if self.prompts else set())

    @property
    def expected_rows(self) -> dict[str, int]:
        """The number of images of each split as far as it is known without the data, maybe only roughly."""
        known = {**self.source.expected_rows(), **{str(split): n for split, n in (self.about_rows | self.rows).items()}}
        everything = known.pop("all", 0)
        shares = getattr(self.source, "split", None)
        if everything and isinstance(shares, Fractions):
            known |= {split: round(everything * getattr(shares, split)) for split in shares.splits()}
        classes = len(self.classes or ())
        return {split: self.source.at_most(split, known[split], classes) for split in SPLITS if split in known}

    def content(self) -> dict[str, Any]:
        """The part of the card that results can depend on beyond the records, without descriptions and paths."""
        keys = {"name", "modality", "classes", "multi_label", "prompts", "negative_prompts", "class_texts"}
        content = self.model_dump(mode="json", include=keys)
        return content if self.headline is None else content | {"headline": self.headline}

    def positive_prompts(self, name: str) -> list[str]:
        """The prompts that say that class ``name`` is present.

        Raises ``BenchError`` if the card has none: prompts are never taken from elsewhere.
        """
        return self._prompts("prompts", name)

    def negative(self, name: str) -> list[str]:
        """The prompts that say that class ``name`` is absent. Raises ``BenchError`` if the card has none."""
        return self._prompts("negative_prompts", name)

    def _prompts(self, key: str, name: str) -> list[str]:
        prompts: Prompts | None = getattr(self, key)
        if prompts is None:
            raise BenchError(f"dataset '{self.name}' has no {key}: add '{key}' to its card")
        if name not in self.class_index:
            raise unknown(f"class of dataset '{self.name}'", name, self.class_index)
        if isinstance(prompts, dict):
            return prompts[name]
        return [template.replace("{}", self.class_texts.get(name, name)) for template in prompts]


def _numbers_as_names(value: Any) -> Any:
    def name(item: Any) -> Any:
        return canonical(item) if type(item) is int else item

    if isinstance(value, dict):
        return {name(item): prompts for item, prompts in value.items()}
    return [name(item) for item in value] if isinstance(value, list) else value


def _check_different(classes: list[str]) -> None:
    first: dict[str, str] = {}
    for name in classes:
        try:
            other = first.get(canonical(name))
        except BadRow as bad:
            raise ValueError(f"classes: {bad.message}") from bad
        if other is not None:
            raise ValueError("a class is listed twice" if other == name else f"classes '{other}' and '{name}' are one")
        first[canonical(name)] = name


def _check_class_names(key: str, by_class: dict[str, Any], classes: list[str]) -> None:
    for name in by_class:
        if name not in classes:
            raise ValueError(f"{key}: {unknown('class', name, classes)}")
    missing = [name for name in classes if not by_class.get(name)] if key != "class_texts" else []
    if missing:
        raise ValueError(f"{key}: none for class '{missing[0]}'")


def _check_templates(key: str, templates: list[str]) -> None:
    if not templates:
        raise ValueError(f"{key}: the list is empty")
    for template in templates:
        if "{}" not in template:
            raise ValueError(f"{key}: '{template}' has no {{}} for the class")


def load_card(name_or_path: str | Path, texts: Mapping[str, Any] | None = None) -> Card:
    """Load a shipped card by name, or any card by the path of its YAML file.

    texts: keys in place of the file's, as in the ``cards`` of a suite.

    Settings of the source may follow, as in ``phantom-noisy@noisy_texts=0.5``, ``ham10000@keep.melanoma=0.01`` or
    ``ham10000@n=1024``; they become part of the card's name.

    Raises ``BenchError`` for an unknown name or kind of source, a missing file, and an invalid card.
    """
    path, settings = card_file(str(name_or_path))
    fields = read_yaml(path)
    source = fields.get("source")
    if not isinstance(source, dict) or "kind" not in source:
        raise BenchError(f"{path}: source: expected a mapping with a 'kind' (one of {', '.join(SOURCES)})")
    if source["kind"] not in [*SOURCES]:
        raise BenchError(f"{path}: {unknown('kind of source', str(source['kind']), SOURCES)}")
    for key, text in settings.items():
        # A class may have a dot in its name.
        keys = key.split(".", 1) if key.startswith("keep.") else key.split(".")
        _set(source, keys, parse_yaml(text, f"dataset '{cut(str(name_or_path))}'"))
    located = validated(SOURCES[source["kind"]], source, f"{path}: source").located_in(path.absolute().parent)
    name = fields.get("name", path.stem)
    where = f"{path} with cards.{name} of the suite" if texts else str(path)
    plain = validated(_Named, {"name": name}, where).name
    name = "@".join([plain, *(f"{key}={text}" for key, text in settings.items())])
    if len(name.encode()) > LONGEST_NAME:
        raise BenchError(f"dataset '{cut(name)}': more than {LONGEST_NAME} bytes with its settings; write a card")
    card: Card = validated(Card, {**fields, "name": name, "source": located, **(texts or {})}, where)
    try:
        card.source.check_classes(card.labels)
    except ValueError as error:
        raise BenchError(f"{path}: {error}") from error
    if path.stem not in config_names("dataset") or path != find_config("dataset", path.stem):
        card._reference = "@".join([str(path.absolute()), *(f"{key}={text}" for key, text in settings.items())])
    return card


class _Named(BaseModel):
    name: Name


def card_file(reference: str) -> tuple[Path, dict[str, str]]:
    """Find the file of a card, and split off the settings that follow its name or path, as texts by key."""
    settings: dict[str, str] = {}
    while match := re.fullmatch(r"(.+)@([^@=/]+)=([^@/]+)", reference):
        reference, settings = match[1], {match[2]: match[3]} | settings
    return find_config("dataset", reference), settings


def _set(block: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        if not isinstance(block.get(key), dict):
            block[key] = {}
        block = block[key]
    block[keys[-1]] = value


def card_names() -> list[str]:
    """The names of the shipped cards."""
    return config_names("dataset")
