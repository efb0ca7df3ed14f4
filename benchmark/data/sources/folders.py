"""The files below a folder of the user's."""

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(root: Path, ending: str = "") -> Iterator[str]:
    """The paths, relative to ``root``, of the files whose names have this ending, in an order that the disk's does not
    change. Links to folders are followed: each folder is entered by one link at most, and never by one that lies in it,
    so that links in a circle end. What is not there or may not be listed has no files.
    """
    linked: set[tuple[int, int]] = set()
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while waiting:
        folder, above = waiting.pop()
        try:
            state = os.stat(root / folder)
            with os.scandir(root / folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            continue
        here = (*above, (state.st_dev, state.st_ino))
        for entry in entries:
            path = os.path.join(folder, entry.name)
            if not _is_folder(entry):
                if entry.name.endswith(ending):
                    yield path
                continue
            if entry.is_symlink():
                state = entry.stat()
                target = (state.st_dev, state.st_ino)
                if target in linked or target in here:
                    continue
                linked.add(target)
            waiting.append((path, here))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
