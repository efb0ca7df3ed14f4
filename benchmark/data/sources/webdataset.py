"""Records from tar shards in which the files of one sample have one name and different suffixes (webdataset)."""

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import model_validator

from benchmark.data.problems import BadRow, Problems
from benchmark.data.sources.base import SPLITS, Split, place
from benchmark.data.sources.formats import Rows, Values
from benchmark.data.sources.image_folder import SUFFIXES
from benchmark.data.sources.table import TableSource, inside
from benchmark.errors import BenchError

MAX_MEMBER = 1 << 28
"""Bytes of one file in a shard."""


class WebDatasetSource(TableSource):
    """shards: of each split, patterns of the tar files (``train-*.tar``), also .tar.gz.

    Columns are ``image``, the other suffixes (``txt``, ``cls``), the keys of a .json, and ``key``, the sample's name.
    Nothing is ever unpacked: what a member is called does not matter to the disk.
    """

    kind: Literal["webdataset"] = "webdataset"
    shards: dict[Split, list[Path]]

    @model_validator(mode="after")
    def _one_way(self) -> "WebDatasetSource":
        if len(self.shards) > 1 and self.split:
            raise ValueError("expected the split in one place: several 'shards', or 'split' with the shares")
        return self

    def needs(self) -> list[Path]:
        return [path for paths in self.shards.values() for path in paths]

    def splits(self) -> list[str]:
        return self.split.splits() if self.split else [split for split in SPLITS if split in self.shards]

    def fingerprint(self) -> Any:
        files = [path for pattern in self.needs() for path in self.matching(pattern)]
        states = [(path.name, (stat := path.stat()).st_size, stat.st_mtime_ns) for path in files]
        return {"parameters": self.model_dump(mode="json", exclude_defaults=True), "states": states}

    def image_folder(self) -> Path:
        return self.matching(self.needs()[0])[0].parent

    def tables(self, problems: Problems) -> Iterator[tuple[str, str, Rows, set[str]]]:
        for split, patterns in self.shards.items():
            for path in (path for pattern in patterns for path in self.matching(pattern)):
                seen = {"image", "key"}
                yield ("" if self.split else split), path.name, read_shard(path, problems, seen), seen


def read_shard(path: Path, problems: Problems, seen: set[str]) -> Rows:
    """The samples of a tar file, read from its beginning to its end. Members that are not plain files (links, devices)
    or whose name leads out of the archive are bad rows."""
    number = 0
    sample: Values = {}
    try:
        _check_end(path)
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                if member.isdir():
                    continue
                try:
                    key, suffix, content = _member(tar, member)
                except BadRow as bad:
                    problems.add(place(path.name, number + 1), bad)
                    continue
                if sample and sample["key"] != key:
                    number += 1
                    yield number, sample
                    sample = {}
                sample["key"] = key
                try:
                    sample.update(_value(suffix, content))
                except BadRow as bad:
                    problems.add(place(path.name, number + 1), bad)
                seen.update(sample)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise BenchError(f"{path.name}: cannot be read as a tar file: {error} ({path})") from error
    if sample:
        yield number + 1, sample


def _check_end(path: Path) -> None:
    """tarfile takes an archive that breaks off between two members for a whole one; a whole one ends in zeros."""
    with path.open("rb") as file:
        packed = file.read(512)[257:262] != b"ustar"
        file.seek(-min(512, path.stat().st_size), os.SEEK_END)
        if not packed and any(file.read()):
            raise tarfile.ReadError("it breaks off before its end")


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[str, str, bytes]:
    name = inside(member.name, "key")
    if not member.isfile():
        raise BadRow("not a file", f"member '{member.name}' is not a plain file")
    if member.size > MAX_MEMBER:
        # Not a bad row: even to skip it may take for ever.
        raise tarfile.ReadError(f"member '{member.name}' has {member.size:,} bytes, more than {MAX_MEMBER:,}")
    opened = tar.extractfile(member)
    assert opened is not None
    stem, dot, suffix = PurePosixPath(name).name.partition(".")
    return str(PurePosixPath(name).parent / stem), dot + suffix.lower(), opened.read()


def _value(suffix: str, content: bytes) -> Values:
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
