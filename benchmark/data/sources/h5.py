"""Records from arrays in HDF5 files, the layout of PatchCamelyon (Veeling et al., MICCAI 2018)."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from benchmark.common.errors import BenchError, reading_failed, unknown
from benchmark.common.hub import one_line
from benchmark.data.canonical import identifier
from benchmark.data.images import MAX_LABELS, check_size, encode_png
from benchmark.data.problems import BadRow, Problems
from benchmark.data.records import SPLITS, Classes, Row, Split, check_places, label_of_index
from benchmark.data.sources.base import Source
from benchmark.data.sources.formats import read_table

CHUNK = 256
"""The most images read at once."""
READ = 1 << 26
"""The most bytes of images read at once, if a single image has no more."""
MAX_PACKED = 1 << 30
"""The most bytes of images in one compressed chunk of a file."""


class H5Files(BaseModel):
    """The files of one split: images, labels, and optionally a table of groups with a row for each image."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: Path
    labels: Path
    groups: Path | None = None


class H5Source(Source):
    """For each split one array of images, uint8 [N, H, W, 3] or [N, H, W], and one of N class numbers, in any shape.

    image_key, label_key: the names of the arrays in the files. group_column: a column of the table of groups.
    """

    kind: Literal["h5"] = "h5"
    files: dict[Split, H5Files]
    image_key: str = "x"
    label_key: str = "y"
    group_column: str = "group"

    @override
    def provides(self) -> frozenset[str]:
        return frozenset({"label"})

    @override
    def splits(self) -> list[str]:
        return [split for split in SPLITS if split in self.files]

    @override
    def needs(self) -> list[Path]:
        return [path for files in self.files.values() for path in (files.images, files.labels, files.groups) if path]

    @override
    def fingerprint(self) -> Any:
        states = [(str(path), (stat := self.existing(path).stat()).st_size, stat.st_mtime_ns) for path in self.needs()]
        return {"parameters": self.model_dump(mode="json"), "states": states}

    @override
    def rows(self, classes: Classes, problems: Problems) -> Iterator[Row]:
        labels = {split: self._labels(files.labels) for split, files in self.files.items()}
        first = next(iter(self.files.values())).labels.name
        check_places(classes, set[int]().union(*labels.values()), first)
        for split in SPLITS:
            if split in self.files:
                yield from self._split_rows(split, labels[split], classes, problems)

    def _split_rows(self, split: Split, labels: list[int], classes: Classes, problems: Problems) -> Iterator[Row]:
        files = self.files[split]
        groups = self._groups(files.groups) if files.groups else None
        if groups is not None and len(groups) != len(labels):
            raise BenchError(f"{files.groups}: {len(groups):,} rows where {files.labels} has {len(labels):,} labels")
        for i, image in enumerate(self._images(files.images, len(labels))):
            file, id = f"{files.images.name}, {self.image_key}[{i}]", f"{split}/{i}"
            try:
                group = (groups[i] if groups else "") or id
                yield Row(file, 0, id, group, split, encode_png(image), label=label_of_index(classes, labels[i]))
            except BadRow as bad:
                problems.add(file, bad)

    def _images(self, path: Path, count: int) -> Iterator[np.ndarray]:
        with self._open(path) as file:
            array = self._array(file, path, self.image_key)
            self._check_images(array, path, count)
            step = max(1, min(CHUNK, READ // max(1, math.prod(array.shape[1:]))))
            for start in range(0, count, step):
                yield from array[start : start + step]

    def _check_images(self, array: Any, path: Path, count: int) -> None:
        shape = array.shape
        where = f"{path.name}: {self.image_key}"
        if array.dtype != np.uint8 or len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] != 3):
            raise BenchError(f"{where}: expected uint8 [N, H, W] or [N, H, W, 3], found {array.dtype} {list(shape)}")
        if shape[0] != count:
            raise BenchError(f"{path.name}: {shape[0]:,} images where there are {count:,} labels")
        try:
            check_size(shape[2], shape[1])
        except BadRow as bad:
            raise BenchError(f"{where}: an image {bad.message}") from bad
        # HDF5 decompresses a whole chunk even for one image.
        packed = math.prod(array.chunks or ())
        if packed > MAX_PACKED:
            raise BenchError(f"{where}: chunks of {packed:,} bytes; expected at most {MAX_PACKED:,}")

    def _labels(self, path: Path) -> list[int]:
        with self._open(path) as file:
            array = self._array(file, path, self.label_key)
            if array.dtype.kind not in "iub":
                raise BenchError(f"{path.name}: {self.label_key}: expected class numbers, found {array.dtype}")
            if array.nbytes > MAX_LABELS:
                raise BenchError(f"{path.name}: {self.label_key}: {array.nbytes:,} bytes, more than {MAX_LABELS:,}")
            labels: list[int] = np.asarray(array[()]).reshape(-1).astype(int).tolist()
        return labels

    def _groups(self, path: Path) -> list[str]:
        table = self.existing(path)
        problems, columns = Problems(), set[str]()
        groups = [identifier(values.get(self.group_column)) for _, values in read_table(table, problems, columns)]
        problems.stop("error")
        if self.group_column not in columns:
            raise BenchError(f"{path.name}: group_column: {unknown('column', self.group_column, columns)}")
        return groups

    @contextmanager
    def _open(self, path: Path) -> Iterator[Any]:
        """Open a file. Raises ``BenchError`` where it cannot be read, in the block too."""
        import h5py

        located = self.existing(path)
        try:
            with h5py.File(located) as file:
                yield file
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:  # h5py has no own error
            hint = "; unpack it first" if path.suffix == ".gz" else ""
            message = f"{path.name}: cannot be read as HDF5: {one_line(error)}{hint}"
            # A damaged header asks for any amount of memory: that is no error of the machine.
            raise (reading_failed(message, error) if isinstance(error, OSError) else BenchError(message)) from error

    def _array(self, file: Any, path: Path, name: str) -> Any:
        if name not in file:
            raise BenchError(f"{path.name}: {unknown('array', name, file)}")
        array = file[name]
        if not hasattr(array, "shape"):
            raise BenchError(f"{path.name}: {name}: expected an array, found a group")
        return array
