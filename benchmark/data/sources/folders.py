"""The files below a folder of the user's."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath

from benchmark.data.problems import BadRow


def files_below(root: Path, ending: str = "") -> Iterator[str]:
    """The paths, relative to ``root``, of the files whose names end in ``ending``, in a fixed order.

    What macOS stores beside files (``._a.png``, ``__MACOSX``) is left out, see is_of_macos().
    Links to folders are followed, each folder by one link at most and never by a link that lies in it, so cycles of
    links end. A folder that does not exist or cannot be listed has no files.
    """
    linked: set[tuple[int, int]] = set()
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while waiting:
        folder, above = waiting.pop()
        try:
            state = (root / folder).stat()
            with os.scandir(root / folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            continue
        here = (*above, (state.st_dev, state.st_ino))
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if is_of_macos(entry.name):
                continue
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


def is_of_macos(name: str) -> bool:
    """Whether a file or folder of this name holds what macOS knows about another, under that one's own suffix."""
    return name.startswith("._") or name == "__MACOSX"


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def image_finder(root: Path, ending: str) -> Callable[[str], str]:
    """Make a function that completes the path of an image whose folders are missing, by its file name.

    The function returns the path of the file with that name below ``root``, or its argument if there is none, and
    raises ``BadRow`` if several files have the name.
    """
    places: dict[str, str] = {}
    ambiguous: set[str] = set()
    for path in files_below(root, ending):
        name = PurePath(path).name
        first = places.setdefault(name, path)
        # A folder can be reached twice: under its own path and by a link.
        if first != path and not (root / first).samefile(root / path):
            ambiguous.add(name)

    def find(path: str) -> str:
        name = PurePath(path).name
        if name not in ambiguous:
            return places.get(name, path)
        if not (root / path).is_file():
            raise BadRow("ambiguous image", f"image '{name}' lies in several folders below {root}")
        return path

    return find
