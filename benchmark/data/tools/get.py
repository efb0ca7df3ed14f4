"""Download an open dataset to where its card expects it."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock, Timeout

from benchmark.common.errors import BenchError
from benchmark.common.hub import hub_answers, one_line
from benchmark.common.progress import Progress, Stage
from benchmark.data.card import Card, Get, GetFile, load_card
from benchmark.data.tools.download import Expected, Patience, Update, download, megabytes, read, size_at, size_of, wrong
from benchmark.data.tools.unpack import free_bytes, unpack
from benchmark.store.cache import cache_root

MEGABYTE = 1_000_000
SECONDS_BETWEEN_UPDATES = 0.2


@dataclass(frozen=True)
class Wanted:
    """A file that is not here yet.

    url: of the file. to: the file, or the folder with the content of the archive. archive: where the download goes:
    ``to`` unless it is unpacked. expected: size and checksum, as far as they are known.
    """

    file: GetFile
    url: str
    to: Path
    archive: Path
    expected: Expected

    @property
    def room(self) -> int:
        """The bytes that it takes on disk in the end, as far as they are known."""
        return self.file.unpacked or self.expected.size or 0

    @property
    def left(self) -> int:
        """The bytes still to be downloaded, as far as they are known."""
        here = size_of(self.archive) or size_of(self.archive.with_name(f"{self.archive.name}.part"))
        return max(0, (self.expected.size or 0) - here)


def block_of(card: Card) -> Get | None:
    """Return what a card downloads, also where another card lists it; None where nothing can be."""
    if isinstance(card.get, str):
        other = load_card(card.get).get
        if not isinstance(other, Get):
            raise BenchError(f"dataset '{card.name}': get: the card '{card.get}' lists no files")
        return other
    return card.get


def missing_files(card: Card, folder: Path) -> list[GetFile]:
    """List the files of a card that are not below ``folder`` yet.

    Raises ``BenchError`` where something else is in a file's place: what a user has there is never overwritten.
    """
    block = block_of(card)
    return [each for each in block.files if not _is_here(each, folder / each.to)] if block else []


def ask(card: Card, folder: Path, patience: Patience) -> list[Wanted]:
    """List the missing files; ask the hosts for the sizes, and the hub for the checksums, that the card does not have.

    Raises ``BenchError`` when the hub cannot be reached or does not have a file.
    """
    missing = missing_files(card, folder)
    block = block_of(card)
    if not missing or not block:
        return []
    published = _on_zenodo(block.at, patience) if any(not each.md5 and not each.sha256 for each in missing) else {}
    return [_wanted(block, each, folder, published, patience) for each in missing]


def check_room(wanted: list[Wanted], folder: Path) -> None:
    """Raise ``BenchError`` if the disk has no room for the files, and for the largest archive while it is unpacked."""
    here = sum((each.expected.size or 0) - each.left for each in wanted)
    archives = [each.expected.size or 0 for each in wanted if each.file.unpack]
    needed = sum(each.room for each in wanted) + max(archives, default=0) - here
    free = free_bytes(folder)
    if needed > free:
        raise BenchError(
            f"{folder}: {megabytes(needed)} are needed to download and unpack, {megabytes(free)} are free: make room, "
            "or pass --to FOLDER"
        )


def fetch(card: Card, wanted: list[Wanted], folder: Path, progress: Progress, patience: Patience) -> None:
    """Download and unpack the files of a card, one after the other. What is finished stays, whatever happens next.

    Raises ``BenchError`` for what stops it, and if the source does not find its files afterwards.
    """
    with _alone(card, folder):
        for each in wanted:
            if not each.to.exists():  # Another card may have brought it.
                _fetch(each, progress, patience)
    sources = (card.source, card.source.located_in(folder))
    absent = [path for path in card.source.needs() if not any(each.matching(path, required=False) for each in sources)]
    if absent:
        raise BenchError(
            f"dataset '{card.name}': all files were downloaded, but {folder / absent[0]} is not among them"
        )


def _is_here(file: GetFile, path: Path) -> bool:
    if not path.exists():
        return False
    if file.unpack in ("zip", "tar"):
        if not any(path.glob(file.holds or "*")):
            lacks = f"without '{file.holds}'" if file.holds else "empty"
            raise BenchError(f"{path}: is there, but {lacks}: move it away to get it")
        return True
    if not file.unpack and file.bytes not in (None, size_of(path)):
        raise BenchError(f"{path}: has {size_of(path):,} bytes, expected {file.bytes:,}: move it away to get it")
    return True


def _wanted(block: Get, file: GetFile, folder: Path, published: Mapping[str, Expected], patience: Patience) -> Wanted:
    checksum = ("sha256", file.sha256) if file.sha256 else ("md5", file.md5) if file.md5 else None
    if block.hub:
        url, said = _on_hub(*block.hub, file.file)
    else:
        url = f"{block.at.rstrip('/')}/{file.file}" if block.at else file.file
        said = published.get(file.file.partition("?")[0], Expected())
    size = file.bytes or said.size
    if size is None:
        size = size_at(url, patience)
    to = folder / file.to
    archive = to.with_name(f"{to.name}.{file.unpack}") if file.unpack else to
    return Wanted(file, url, to, archive, Expected(size, checksum or said.checksum))


def _on_zenodo(at: str, patience: Patience) -> dict[str, Expected]:
    """Ask Zenodo for the sizes and checksums of a record's files, by name; {} of another host, or without an answer.

    Source: the REST API of Zenodo, https://developers.zenodo.org/#records.
    """
    match = re.fullmatch(r"(https?://[^/]+)/records/(\d+)/files/?", at)
    if not match:
        return {}
    try:
        files = json.loads(read(f"{match[1]}/api/records/{match[2]}", patience))["files"]
        return {each["key"]: Expected(each["size"], tuple(each["checksum"].split(":", 1))) for each in files}
    except (OSError, HTTPException, ValueError, LookupError, TypeError):
        return {}


def _on_hub(name: str, commit: str, path: str) -> tuple[str, Expected]:
    """Ask the hub for the URL of a file of a dataset, its size, and its SHA-256, which only large files have."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    if not hub_answers():
        raise BenchError(f"dataset '{name}': {constants.ENDPOINT} cannot be reached; is this machine online?")
    url = hf_hub_url(name, path, repo_type="dataset", revision=commit)
    try:
        # Without a token: it would go to the hosts that the hub redirects to, and these sets need none.
        found = get_hf_file_metadata(url, token=False)
    except Exception as error:  # clients of the hub raise more than OSError
        raise BenchError(f"{url}: {one_line(error)}") from error
    etag = found.etag or ""
    return url, Expected(found.size, ("sha256", etag) if len(etag) == 64 else None)


def _fetch(wanted: Wanted, progress: Progress, patience: Patience) -> None:
    if not wanted.archive.exists():
        with _counted(progress, f"downloading {wanted.archive.name}") as update:
            download(wanted.url, wanted.archive, wanted.expected, update, patience)
    elif wanted.file.unpack:
        with progress.stage(f"checking {wanted.archive.name}"):
            problem = wrong(wanted.archive, wanted.expected)
        if problem:
            raise BenchError(f"{wanted.archive}: {problem}: move it away to get it")
    if wanted.file.unpack:
        with _counted(progress, f"unpacking {wanted.archive.name}") as update:
            unpack(wanted.archive, wanted.file.unpack, wanted.to, wanted.file.holds, update)
        wanted.archive.unlink()


@contextmanager
def _counted(progress: Progress, title: str) -> Iterator[Update]:
    """Show a stage in megabytes with its rate; yields a function to call with the bytes done and all bytes."""
    with progress.stage(f"{title} (MB)") as stage:
        yield _Meter(stage)


class _Meter:
    """Turns bytes into the steps of a stage, a few times a second."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._began = self._shown = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if self._first is None or done < self._first:
            # A resumed download begins late, and one that starts again begins at 0.
            self._first, self._began = done, now
        if now - self._shown < SECONDS_BETWEEN_UPDATES and done != total:
            return
        self._shown = now
        rate = (done - self._first) / max(now - self._began, SECONDS_BETWEEN_UPDATES) / MEGABYTE
        whole = max(1, round(total / MEGABYTE)) if total else None
        self._stage.update(min(done // MEGABYTE, whole) if whole else done // MEGABYTE, whole, f"{rate:.1f} MB/s")


@contextmanager
def _alone(card: Card, folder: Path) -> Iterator[None]:
    """Keep a second process from downloading the same files at once."""
    block = block_of(card)
    assert block
    name = sha256(str((folder.absolute(), [str(each.to) for each in block.files])).encode()).hexdigest()[:16]
    lock = cache_root() / "locks" / f"get-{name}.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):
            yield
    except Timeout as error:
        raise BenchError(f"dataset '{card.name}': another process downloads it to {folder} now") from error
