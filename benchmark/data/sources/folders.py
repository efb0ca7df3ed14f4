"""The files below a folder of the user's."""

import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath

from benchmark.common.errors import MachineError, explained, is_of_the_machine
from benchmark.data.canonical import composed
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
        except OSError as error:
            if is_of_the_machine(error):
                raise MachineError(f"folder {root / folder} cannot be listed: {explained(error)}") from error
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


def located(root: Path, path: str) -> Path:
    """The file at root / path; if nothing is there, what differs from it in Unicode's normal form or in slashes.

    macOS stores names decomposed (NFD), and archives made on Windows may unpack to names with backslashes. Returns
    root / path if nothing at all is there.
    """
    if _is_there(root / path):
        return root / path
    for name in dict.fromkeys((path, path.replace("\\", "/"), path.replace("/", "\\"))):
        place, parts = root, PurePath(name).parts
        if name != path and ".." in parts:
            continue
        for part in parts:
            forms = dict.fromkeys((part, composed(part), unicodedata.normalize("NFD", part)))
            place = next((place / form for form in forms if _is_there(place / form)), place / part)
        if _is_there(place):
            return place
    return root / path


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (OSError, ValueError) as error:  # also a name that is too long, or has a NUL
        if is_of_the_machine(error):
            raise MachineError(f"{path} cannot be read: {explained(error)}") from error
        return False
    return True


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
        name = composed(PurePath(path).name)
        first = places.setdefault(name, path)
        # A folder can be reached twice: under its own path and by a link.
        if first != path and not (root / first).samefile(root / path):
            ambiguous.add(name)

    def find(path: str) -> str:
        name = composed(PurePath(path).name)
        if name not in ambiguous:
            return places.get(name, path)
        if not located(root, path).is_file():
            raise BadRow("ambiguous image", f"image '{name}' lies in several folders below {root}")
        return path

    return find
