"""Records from arrays in HDF5 files, as PatchCamelyon has them (Veeling et al., MICCAI 2018)."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from benchmark.common.errors import BenchError, unknown
from benchmark.data.images import MAX_LABELS, check_size, encode_png
from benchmark.data.problems import BadRow, Problems
from benchmark.data.sources.base import SPLITS, Row, Source, Split, label_of_index
from benchmark.data.sources.formats import read_table

if TYPE_CHECKING:
    from benchmark.data.card import Card

CHUNK = 256
"""Images read at once."""
READ = 1 << 26
"""Bytes of these at most, unless one has more."""
MAX_PACKED = 1 << 30
"""Bytes of images in one of the chunks that HDF5 packs."""


class H5Files(BaseModel):
    """images, labels: files of a split. groups: a table with a row an image."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: Path
    labels: Path
    groups: Path | None = None


class H5Source(Source):
    """For each split an array of images, uint8 [N, H, W, 3] or [N, H, W], and one of class numbers, N of them in any
    shape. image_key, label_key: their names in the files. group_column: of the table of groups.
    """

    kind: Literal["h5"] = "h5"
    files: dict[Split, H5Files]
    image_key: str = "x"
    label_key: str = "y"
    group_column: str = "group"

    def provides(self) -> frozenset[str]:
        return frozenset({"label"})

    def splits(self) -> list[str]:
        return [split for split in SPLITS if split in self.files]

    def needs(self) -> list[Path]:
        return [path for files in self.files.values() for path in (files.images, files.labels, files.groups) if path]

    def fingerprint(self) -> Any:
        states = [(str(path), (stat := self.existing(path).stat()).st_size, stat.st_mtime_ns) for path in self.needs()]
        return {"parameters": self.model_dump(mode="json"), "states": states}

    def rows(self, card: "Card", problems: Problems) -> Iterator[Row]:
        for split in self.splits():
            files = self.files[split]  # type: ignore[index]
            labels = self._labels(files.labels)
            groups = self._groups(files.groups) if files.groups else None
            if groups is not None and len(groups) != len(labels):
                raise BenchError(
                    f"{files.groups}: {len(groups):,} rows where {files.labels} has {len(labels):,} labels"
                )
            for i, image in enumerate(self._images(files.images, len(labels))):
                file, id = f"{files.images.name}, {self.image_key}[{i}]", f"{split}/{i}"
                try:
                    group = groups[i] if groups else id
                    yield Row(file, 0, id, group, split, encode_png(image), label=label_of_index(card, labels[i]))
                except BadRow as bad:
                    problems.add(file, bad)

    def _images(self, path: Path, count: int) -> Iterator[np.ndarray]:
        with self._open(path) as file:
            array = self._array(file, path, self.image_key)
            shape = array.shape
            if array.dtype != np.uint8 or len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] != 3):
                raise BenchError(
                    f"{path.name}: {self.image_key}: expected uint8 [N, H, W] or [N, H, W, 3], "
                    f"found {array.dtype} {list(shape)}"
                )
            if shape[0] != count:
                raise BenchError(f"{path.name}: {shape[0]:,} images where there are {count:,} labels")
            try:
                check_size(shape[2], shape[1])
            except BadRow as bad:
                raise BenchError(f"{path.name}: {self.image_key}: an image {bad.message}") from bad
            # What is packed together is unpacked together.
            packed = math.prod(array.chunks or ())
            if packed > MAX_PACKED:
                raise BenchError(
                    f"{path.name}: {self.image_key}: chunks of {packed:,} bytes; expected at most {MAX_PACKED:,}"
                )
            step = max(1, min(CHUNK, READ // max(1, math.prod(shape[1:]))))
            for start in range(0, count, step):
                yield from array[start : start + step]

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
        found = self.existing(path)
        problems, seen = Problems(), set[str]()
        groups = [str(values.get(self.group_column, "")) for _, values in read_table(found, problems, seen)]
        problems.stop("error")
        if self.group_column not in seen:
            raise BenchError(f"{path.name}: group_column: {unknown('column', self.group_column, seen)}")
        return groups

    def _open(self, path: Path) -> Any:
        import h5py

        found = self.existing(path)
        try:
            return h5py.File(found)
        except OSError as error:
            hint = "; unpack it first" if path.suffix == ".gz" else ""
            raise BenchError(f"{path.name}: cannot be read as HDF5: {error}{hint}") from error

    def _array(self, file: Any, path: Path, name: str) -> Any:
        if name not in file:
            raise BenchError(f"{path.name}: {unknown('array', name, file)}")
        array = file[name]
        if not hasattr(array, "shape"):
            raise BenchError(f"{path.name}: {name}: expected an array, found a group")
        return array
