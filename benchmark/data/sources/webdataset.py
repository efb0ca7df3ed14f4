"""Records from tar shards in which the files of a sample share a name and differ in their suffix (webdataset)."""

import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import PositiveInt, model_validator
from typing_extensions import override

from benchmark.common.errors import BenchError
from benchmark.data.images import SUFFIXES
from benchmark.data.problems import BadRow, Problems
from benchmark.data.records import SPLITS, Split, place
from benchmark.data.sources.formats import Rows, Values
from benchmark.data.sources.table import Table, TableSource
from benchmark.data.sources.values import relative_path

MAX_MEMBER = 1 << 28
"""The most bytes of one file in a shard."""


class WebDatasetSource(TableSource):
    """Tar shards, read one after the other and never unpacked to disk.

    shards: patterns of the tar files of each split (``train-*.tar``), also .tar.gz.
    stream: for sets too large to prepare: images are decoded from the shards during training and nothing is copied.
    The order shuffles shards, and moves samples within ``shuffle_buffer`` places. Only for pretraining, and only from
    shards that are not compressed.

    Columns are ``image``, the other suffixes (``txt``, ``cls``), the keys of a .json, and ``key``, the sample's name.
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
            self._check_stream()
        return self

    def _check_stream(self) -> None:
        need_all_rows = {
            "split": self.split,
            "columns.split": self.columns.split,
            "columns.question": self.columns.question,
            "where": self.where,
            "where_not": self.where_not,
            "one_per": self.one_per,
            "text_file": self.text_file,
            "find": self.find,
            "keep": self.keep,
            "n": self.n,
            "per_class": self.per_class,
        }
        for key, value in need_all_rows.items():
            if value:
                raise ValueError(f"'{key}' needs all samples before training starts, but 'stream' reads them during it")
        if not self.columns.text:
            raise ValueError("'stream' is for pretraining, which needs 'columns.text'")

    @property
    @override
    def streams(self) -> bool:
        return self.stream

    @override
    def needs(self) -> list[Path]:
        return [path for paths in self.shards.values() for path in paths]

    @override
    def splits(self) -> list[str]:
        return self.split.splits() if self.split else [split for split in SPLITS if split in self.shards]

    @override
    def fingerprint(self) -> Any:
        files = [path for pattern in self.needs() for path in self.matching(pattern)]
        states = [(path.name, (stat := path.stat()).st_size, stat.st_mtime_ns) for path in files]
        parameters = self.model_dump(mode="json", exclude_defaults=True)
        return {"parameters": parameters, "states": states, **self.file_states()}

    @override
    def image_folder(self) -> Path:
        return self.matching(self.needs()[0])[0].parent

    def files(self, split: str) -> list[Path]:
        """The shards of a split."""
        patterns = {str(name): of_split for name, of_split in self.shards.items()}[split]
        return [path for pattern in patterns for path in self.matching(pattern)]

    @override
    def tables(self, problems: Problems) -> Iterator[Table]:
        for split in self.shards:
            for path in self.files(split):
                columns = {"image", "key"}
                rows = read_shard(path, problems, columns)
                yield Table("" if self.split else split, path.name, rows, columns)


@dataclass(frozen=True)
class Member:
    """A file in a shard: the name of its sample, its suffix, and the offset and size of its content in bytes."""

    key: str
    suffix: str
    offset: int
    size: int


def read_shard(path: Path, problems: Problems, columns: set[str]) -> Rows:
    """Read the samples of a tar file in order. The columns that occur are added to ``columns``.

    Members that are not plain files (links, devices), and names that lead out of the archive, are bad rows.
    """
    number = 0
    sample: Values = {}
    with _opened(path, "r|*") as tar:
        for info, member in _members(tar):
            if isinstance(member, BadRow):
                problems.add(place(path.name, number + 1), member)
                continue
            file = tar.extractfile(info)
            assert file is not None
            if sample and sample["key"] != member.key:
                number += 1
                yield number, sample
                sample = {}
            sample["key"] = member.key
            try:
                sample.update(member_values(member.suffix, file.read()))
            except BadRow as bad:
                problems.add(place(path.name, number + 1), bad)
            columns.update(sample)
    if sample:
        yield number + 1, sample


def scan_shard(path: Path) -> Iterator[list[Member]]:
    """The files of each sample of a tar file, in order. Only headers are read.

    Raises ``BenchError`` for a compressed file, and for members that read_shard() treats as bad rows.
    """
    members: list[Member] = []
    with _opened(path, "r:") as tar:
        for _, member in _members(tar):
            if isinstance(member, BadRow):
                raise BenchError(f"{path}: {member.message}") from member
            if members and members[0].key != member.key:
                yield members
                members = []
            members.append(member)
    if members:
        yield members


@contextmanager
def _opened(path: Path, mode: Literal["r|*", "r:"]) -> Iterator[tarfile.TarFile]:
    try:
        compressed = _check_end(path)
        if compressed and mode == "r:":
            raise BenchError(f"{path}: is compressed, and 'stream' reads samples at any place of a shard: unpack it")
        with tarfile.open(path, mode) as tar:
            yield tar
    except (OSError, EOFError, tarfile.TarError) as error:
        raise BenchError(f"{path.name}: cannot be read as a tar file: {error} ({path})") from error


def _members(tar: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, Member | BadRow]]:
    """The files of a shard: for each its header, and its description or the reason that it cannot be used."""
    while (info := tar.next()) is not None:
        # tarfile keeps all headers, a gigabyte for a million files.
        tar.members.clear()  # type: ignore[attr-defined]
        if info.isdir():
            continue
        try:
            yield info, _member(info)
        except BadRow as bad:
            yield info, bad


def _member(info: tarfile.TarInfo) -> Member:
    name = relative_path(info.name, "key")
    if not info.isfile():
        raise BadRow("not a file", f"member '{info.name}' is not a plain file")
    if info.size > MAX_MEMBER:
        # Not a bad row: even skipping it could take hours.
        raise tarfile.ReadError(f"member '{info.name}' has {info.size:,} bytes, more than {MAX_MEMBER:,}")
    stem, dot, suffix = PurePosixPath(name).name.partition(".")
    key = str(PurePosixPath(name).parent / stem)
    return Member(key, dot + suffix.lower(), info.offset_data, info.size)


def _check_end(path: Path) -> bool:
    """Whether a tar file is compressed. Raises ``tarfile.ReadError`` for a truncated file that is not compressed.

    tarfile does not notice if a file ends between two members. A complete tar file ends in zeros.
    """
    with path.open("rb") as file:
        compressed = file.read(512)[257:262] != b"ustar"
        file.seek(-min(512, path.stat().st_size), os.SEEK_END)
        if not compressed and any(file.read()):
            raise tarfile.ReadError("it is truncated")
    return compressed


def member_values(suffix: str, data: bytes) -> Values:
    """The columns that one file of a sample gives. Raises ``BadRow`` for a malformed file."""
    if suffix in SUFFIXES:
        return {"image": data}
    name = suffix.removeprefix(".")
    try:
        text = data.decode("utf-8-sig")
        if suffix != ".json":
            return {name: text}
        values = json.loads(text)
    except UnicodeDecodeError as error:
        raise BadRow("not UTF-8", f"{name} is not UTF-8 (byte 0x{data[error.start]:02x})") from error
    except (ValueError, RecursionError) as error:
        raise BadRow("malformed JSON", f"malformed JSON: {error}") from error
    return values if isinstance(values, dict) else {name: values}
