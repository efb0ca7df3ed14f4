"""Records from tar shards in which the files of one sample have one name and different suffixes (webdataset)."""

import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import PositiveInt, model_validator

from benchmark.common.errors import BenchError
from benchmark.data.problems import BadRow, Problems
from benchmark.data.sources.base import SPLITS, Split, place
from benchmark.data.sources.formats import Rows, Values
from benchmark.data.sources.image_folder import SUFFIXES
from benchmark.data.sources.table import TableSource, inside

MAX_MEMBER = 1 << 28
"""Bytes of one file in a shard."""


class WebDatasetSource(TableSource):
    """shards: of each split, patterns of the tar files (``train-*.tar``), also .tar.gz.
    stream: for sets too large to be prepared: nothing is copied, images are decoded from the shards while a model is
    trained on them, in an order that shuffles shards, and samples within ``shuffle_buffer`` places. For pretraining
    alone, from shards that are not packed.

    Columns are ``image``, the other suffixes (``txt``, ``cls``), the keys of a .json, and ``key``, the sample's name.
    Nothing is ever unpacked: what a member is called does not matter to the disk.
    """

    kind: Literal["webdataset"] = "webdataset"
    shards: dict[Split, list[Path]]
    stream: bool = False
    shuffle_buffer: PositiveInt = 10_000

    @model_validator(mode="after")
    def _one_way(self) -> "WebDatasetSource":
        if len(self.shards) > 1 and self.split:
            raise ValueError("expected the split in one place: several 'shards', or 'split' with the shares")
        if self.stream:
            columns = self.columns
            whole = {
                "split": self.split,
                "columns.split": columns.split,
                "columns.question": columns.question,
                "where": self.where,
                "where_not": self.where_not,
                "text_file": self.text_file,
                "find": self.find,
            }
            for key, value in whole.items():
                if value:
                    raise ValueError(f"'stream' takes samples as they come, and '{key}' needs all to be read before")
            if not columns.text:
                raise ValueError("'stream' is for pretraining, which needs 'columns.text'")
        return self

    @property
    def streams(self) -> bool:
        return self.stream

    def needs(self) -> list[Path]:
        return [path for paths in self.shards.values() for path in paths]

    def splits(self) -> list[str]:
        return self.split.splits() if self.split else [split for split in SPLITS if split in self.shards]

    def fingerprint(self) -> Any:
        files = [path for pattern in self.needs() for path in self.matching(pattern)]
        states = [(path.name, (stat := path.stat()).st_size, stat.st_mtime_ns) for path in files]
        return {"parameters": self.model_dump(mode="json", exclude_defaults=True), "states": states, **self.beside()}

    def image_folder(self) -> Path:
        return self.matching(self.needs()[0])[0].parent

    def files(self, split: str) -> list[Path]:
        """The shards of a split."""
        patterns = {str(name): of_split for name, of_split in self.shards.items()}[split]
        return [path for pattern in patterns for path in self.matching(pattern)]

    def tables(self, problems: Problems) -> Iterator[tuple[str, str, Rows, set[str]]]:
        for split in self.shards:
            for path in self.files(split):
                seen = {"image", "key"}
                yield ("" if self.split else split), path.name, read_shard(path, problems, seen), seen


@dataclass(frozen=True)
class Member:
    """A file in a shard: its suffix, and where its content begins and how long it is, in bytes."""

    suffix: str
    offset: int
    size: int


def read_shard(path: Path, problems: Problems, seen: set[str]) -> Rows:
    """The samples of a tar file, read from its beginning to its end. Members that are not plain files (links, devices)
    or whose name leads out of the archive are bad rows.
    """
    number = 0
    sample: Values = {}
    with _opened(path, "r|*") as tar:
        for found in _members(tar):
            if isinstance(found, BadRow):
                problems.add(place(path.name, number + 1), found)
                continue
            key, member, info = found
            opened = tar.extractfile(info)
            assert opened is not None
            if sample and sample["key"] != key:
                number += 1
                yield number, sample
                sample = {}
            sample["key"] = key
            try:
                sample.update(value(member.suffix, opened.read()))
            except BadRow as bad:
                problems.add(place(path.name, number + 1), bad)
            seen.update(sample)
    if sample:
        yield number + 1, sample


def scan_shard(path: Path) -> Iterator[tuple[str, list[Member]]]:
    """The samples of a tar file by name, each with where its files stand: headers alone are read. Raises ``BenchError``
    for a packed one and for members that read_shard() takes for bad rows.
    """
    name, members = "", list[Member]()
    with _opened(path, "r:") as tar:
        for found in _members(tar):
            if isinstance(found, BadRow):
                raise BenchError(f"{path}: {found.message}") from found
            key, member, _ = found
            if members and name != key:
                yield name, members
                members = []
            name = key
            members.append(member)
    if members:
        yield name, members


@contextmanager
def _opened(path: Path, mode: Literal["r|*", "r:"]) -> Iterator[tarfile.TarFile]:
    try:
        packed = _check_end(path)
        if packed and mode == "r:":
            raise BenchError(f"{path}: is packed, so that 'stream' cannot enter it in its middle: unpack it")
        with tarfile.open(path, mode) as tar:
            yield tar
    except (OSError, EOFError, tarfile.TarError) as error:
        raise BenchError(f"{path.name}: cannot be read as a tar file: {error} ({path})") from error


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, Member, tarfile.TarInfo] | BadRow]:
    """The files of a shard, each with the name of its sample."""
    while (member := tar.next()) is not None:
        # It would keep a description of each, a gigabyte for a million.
        tar.members.clear()  # type: ignore[attr-defined]
        if member.isdir():
            continue
        try:
            name = inside(member.name, "key")
            if not member.isfile():
                raise BadRow("not a file", f"member '{member.name}' is not a plain file")
        except BadRow as bad:
            yield bad
            continue
        if member.size > MAX_MEMBER:
            # Not a bad row: even to skip it may take for ever.
            raise tarfile.ReadError(f"member '{member.name}' has {member.size:,} bytes, more than {MAX_MEMBER:,}")
        stem, dot, suffix = PurePosixPath(name).name.partition(".")
        key = str(PurePosixPath(name).parent / stem)
        yield key, Member(dot + suffix.lower(), member.offset_data, member.size), member


def _check_end(path: Path) -> bool:
    """Whether it is packed. tarfile takes an archive that breaks off between two members for a whole one; a whole one
    ends in zeros.
    """
    with path.open("rb") as file:
        packed = file.read(512)[257:262] != b"ustar"
        file.seek(-min(512, path.stat().st_size), os.SEEK_END)
        if not packed and any(file.read()):
            raise tarfile.ReadError("it breaks off before its end")
    return packed


def value(suffix: str, content: bytes) -> Values:
    """The columns that a file of a sample makes."""
    if suffix in SUFFIXES:
        return {"image": content}
    name = suffix.removeprefix(".")
    try:
        text = content.decode("utf-8-sig")
        if suffix != ".json":
            return {name: text}
        values = json.loads(text)
    except UnicodeDecodeError as error:
        raise BadRow("not UTF-8", f"{name} is not UTF-8 (byte 0x{content[error.start]:02x})") from error
    except (ValueError, RecursionError) as error:
        raise BadRow("malformed JSON", f"malformed JSON: {error}") from error
    return values if isinstance(values, dict) else {name: values}
