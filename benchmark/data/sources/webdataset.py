"""Records from tar shards in which the files of a sample share a name and differ in their suffix (webdataset)."""

import json
import lzma
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from pydantic import PositiveInt, model_validator
from typing_extensions import override

from benchmark.common.errors import BenchError, cut, reading_failed
from benchmark.data.images import SUFFIXES
from benchmark.data.problems import BadRow, Problems
from benchmark.data.records import SPLITS, Split, place
from benchmark.data.sources.chunks import Rows, Values
from benchmark.data.sources.folders import is_of_macos
from benchmark.data.sources.json_document import with_inner
from benchmark.data.sources.table import Table, TableSource
from benchmark.data.sources.values import check_unicode, relative_path

MAX_MEMBER = 1 << 28
"""The most bytes of one file in a shard."""


class WebDatasetSource(TableSource):
    """Tar shards, read one after the other and never unpacked to disk.

    shards: patterns of the tar files of each split (``train-*.tar``), also .tar.gz.
    stream: for sets too large to prepare: images are decoded from the shards during training and nothing is copied.
    The order shuffles shards, and moves samples within ``shuffle_buffer`` places. Only for pretraining, and only from
    shards that are not compressed.

    Columns are ``key``, the sample's name; ``image``, its picture; every suffix (``txt``, ``jpg``, ``seg.png``); and
    the other keys of a .json. A sample's files may lie anywhere in a shard, unless it is compressed. Hidden files, such
    as ``._a.jpg`` of macOS, are no samples.
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
                rows = read_shard(path, self.used_columns(), problems, columns)
                yield Table("" if self.split else split, path.name, rows, columns)


@dataclass(frozen=True)
class Member:
    """A file in a shard: its suffix in lower case, and the offset and size of its content in bytes."""

    suffix: str
    offset: int
    size: int


@dataclass
class Sample:
    """The files of a sample, by its name in the shard.

    reason, message: why it cannot be used, as a ``BadRow`` has them; "" otherwise.
    """

    key: str
    members: list[Member] = field(default_factory=list)
    reason: str = ""
    message: str = ""


def read_shard(path: Path, used: Set[str], problems: Problems, columns: set[str]) -> Rows:
    """Read the samples of a tar file in order. The columns that occur are added to ``columns``.

    used: the columns that are needed, see sample_values(). Members that are not plain files (links, devices), and names
    that lead out of the archive, make their sample a bad row.
    """
    with _opened(path) as tar:
        samples = _samples(tar)
        _check_order(path, tar, samples)

        def read(member: Member) -> bytes:
            assert tar.fileobj is not None
            tar.fileobj.seek(member.offset)
            return tar.fileobj.read(member.size)

        for number, sample in enumerate(samples, 1):
            columns.update(member.suffix.removeprefix(".") for member in sample.members)
            try:
                values = sample_values(sample, read, used)
            except BadRow as bad:
                problems.add(place(path.name, number), bad)
                continue
            columns.update(values)
            yield number, values


def scan_shard(path: Path) -> list[Sample]:
    """The samples of a tar file, in the order of their first files. Only headers are read.

    Raises ``BenchError`` for a compressed file.
    """
    with _opened(path) as tar:
        if _mode(path) != "r:":
            raise BenchError(f"{path}: is compressed, and 'stream' reads samples at any place of a shard: unpack it")
        return _samples(tar)


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, _mode(path)) as tar:
            yield tar
    except (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError) as error:
        raise reading_failed(f"{path.name}: cannot be read as a tar file: {error} ({path})", error) from error


def _mode(path: Path) -> Literal["r:gz", "r:bz2", "r:xz", "r:"]:
    """How to open a tar file, by its first bytes: compressed in one of three ways or not at all."""
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"\x1f\x8b"):
        return "r:gz"
    if start.startswith(b"BZh"):
        return "r:bz2"
    return "r:xz" if start.startswith(b"\xfd7zXZ\0") else "r:"


def _headers(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The headers of all files.

    tarfile stops at a damaged header, and where a file is cut between two members, as if this were the end. Raises
    ``tarfile.ReadError`` there.
    """
    end = -1
    while (info := tar.next()) is not None:
        # tarfile keeps all headers, a gigabyte for a million files.
        tar.members.clear()  # type: ignore[attr-defined]
        if info.size < 0 or tar.offset <= end:
            raise tarfile.ReadError(f"member '{cut(info.name)}' has a negative size")
        end = tar.offset
        if info.size > MAX_MEMBER:
            # Not a bad row: even skipping it could take hours.
            raise tarfile.ReadError(f"member '{cut(info.name)}' has {info.size:,} bytes, more than {MAX_MEMBER:,}")
        if not info.isdir():
            yield info
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if len(block := tar.fileobj.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it is truncated")
    while block:
        if any(block):
            raise tarfile.ReadError(f"a damaged header at byte {tar.offset:,}, or another tar file behind its end")
        block = tar.fileobj.read(1 << 20)


def _samples(tar: tarfile.TarFile) -> list[Sample]:
    """The samples of a shard, in the order of their first files, wherever their other files stand.

    A sample's name ends at the first dot of its files' names, so ``a.seg.png`` belongs to ``a.jpg``. Where that would
    put several pictures with their texts together (``1.2.840.png``, ``1.2.841.png``), it ends at the last dot.
    """
    runs: dict[str, list[list[_File]]] = {}
    last = None
    for number, info in enumerate(_headers(tar)):
        parts = PurePosixPath(info.name).parts or ("",)
        # webdataset, too, leaves out hidden files.
        if parts[-1].startswith(".") or any(map(is_of_macos, parts)):
            continue
        file = _file(info, number)
        of_key = runs.setdefault(file.key, [])
        if last != file.key:
            of_key.append([])
        of_key[-1].append(file)
        last = file.key
    grouped = [group for of_key in runs.values() for group in _by_sample(of_key)]
    return [_sample(group) for group in sorted(grouped, key=lambda files: files[0].number)]


class _File(NamedTuple):
    """A member of a shard: its place among all, its name up to the first dot and behind it, and what is wrong."""

    number: int
    key: str
    suffix: str
    offset: int
    size: int
    bad: BadRow | None

    @property
    def stem(self) -> str:
        """The name without the part behind the last dot."""
        return self.key + self.suffix.rpartition(".")[0]

    @property
    def last(self) -> str:
        """The part behind the last dot, with the dot, in lower case."""
        return "".join(self.suffix.rpartition(".")[1:]).lower()


def _file(info: tarfile.TarInfo, number: int) -> _File:
    bad = None
    try:
        check_unicode(info.name)
        name = relative_path(info.name, "key")
        if not info.isreg() or info.issparse():
            raise BadRow("not a file", f"member '{cut(info.name)}' is not a plain file")
        if "." not in PurePosixPath(name).name:
            raise BadRow("no suffix", f"member '{cut(name)}' has no suffix, which says what it holds")
    except BadRow as error:
        name, bad = ascii(info.name)[1:-1], error
    stem, dot, suffix = PurePosixPath(name).name.partition(".")
    return _File(number, str(PurePosixPath(name).parent / stem), dot + suffix, info.offset_data, info.size, bad)


def _by_sample(runs: list[list[_File]]) -> list[list[_File]]:
    """The files of each sample, from the runs of files whose names are the same up to the first dot."""
    files = [file for run in runs for file in run]
    stems: dict[str, list[_File]] = {}
    for file in files:
        stems.setdefault(file.stem, []).append(file)
    if len(stems) > 1 or files[0].key not in stems:
        kinds = {stem: {file.last for file in of_stem} for stem, of_stem in stems.items()}
        plain = kinds.get(files[0].key)
        if any(len(of) > 1 and of & SUFFIXES and plain in (None, of) for stem, of in kinds.items() if of is not plain):
            return [_named(of_stem) for of_stem in stems.values()]
    if len(runs) > 1 and all(_suffixes(run) == _suffixes(runs[0]) for run in runs):
        return runs  # several samples of one name
    return [files]


def _named(files: list[_File]) -> list[_File]:
    return [file._replace(key=file.stem, suffix=file.last) for file in files]


def _suffixes(files: list[_File]) -> list[str]:
    return sorted(file.suffix.lower() for file in files)


def _sample(files: list[_File]) -> Sample:
    sample = Sample(files[0].key, [Member(file.suffix.lower(), file.offset, file.size) for file in files])
    bad = next((file.bad for file in files if file.bad), None)
    twice = next((suffix for suffix, count in Counter(_suffixes(files)).items() if count > 1), None)
    if twice and not bad:
        bad = BadRow("a file twice", f"the shard has '{cut(sample.key + twice)}' twice")
    if bad:
        sample.reason, sample.message = bad.reason, bad.message
    return sample


def _check_order(path: Path, tar: tarfile.TarFile, samples: list[Sample]) -> None:
    """Raise ``BenchError`` for a compressed shard whose samples would be read back and forth, which takes ages."""
    end = -1
    for sample in samples if _mode(path) != "r:" else []:
        for member in sample.members:
            if member.offset < end:
                raise BenchError(
                    f"{path.name}: the files of sample '{cut(sample.key)}' lie apart, and the shard is compressed: "
                    "unpack it, or make it with tar --sort=name"
                )
            end = member.offset


def sample_values(sample: Sample, read: Callable[[Member], bytes], used: Set[str], images: bool = True) -> Values:
    """The columns of a sample. Raises ``BadRow`` for one that cannot be used.

    The sample's name and its files go before what its JSON says. Files that are neither pictures nor JSON are decoded
    if they are in ``used``, else their columns are None. images: read the pictures; else they are b"".
    """
    if sample.reason:
        raise BadRow(sample.reason, sample.message)
    values: Values = {}
    files: Values = {}
    pictures = []
    for member in sample.members:
        name = member.suffix.removeprefix(".")
        kind = "." + name.rpartition(".")[2]
        if kind in SUFFIXES:
            pictures.append(name)
            files[name] = read(member) if images else b""
        elif member.suffix == ".json":
            values = _json_values(read(member))
        else:
            files[name] = _text(name, read(member)) if name in used else None
    values |= files | {"key": sample.key}
    values.pop("image", None)
    plain = [name for name in pictures if "." not in name]
    if len(plain) == 1:
        values["image"] = files[plain[0]]
    elif "image" in used and pictures:
        listed = ", ".join(map(cut, pictures[:3]))
        reason = "several images" if plain else "no image"
        raise BadRow(
            reason,
            f"sample '{cut(sample.key)}' has {listed}: write one of these in columns.image"
            + ("" if plain else ", or take the dots out of the samples' names"),
        )
    return values


def picture(members: list[Member], image: str) -> Member | None:
    """The file of a sample that is its image, by the column that the card names; None if there is not just one."""
    suffixes = SUFFIXES if image == "image" else (f".{image}",)
    pictures = [member for member in members if member.suffix in suffixes]
    return pictures[0] if len(pictures) == 1 else None


def _json_values(data: bytes) -> Values:
    try:
        values = json.loads(_text("json", data))
    except (ValueError, RecursionError) as error:
        raise BadRow("malformed JSON", f"malformed JSON: {error}") from error
    return with_inner(values) if isinstance(values, dict) else {"json": values}


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRow("not UTF-8", f"{cut(name)} is not UTF-8 (byte 0x{data[error.start]:02x})") from error
