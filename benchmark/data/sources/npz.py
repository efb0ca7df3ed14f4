"""Records from the arrays of an .npz file, the layout of MedMNIST (Yang et al., Scientific Data 2023)."""

import math
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic
from typing_extensions import override

from benchmark.common.errors import BenchError, reading_failed, unknown
from benchmark.common.hub import one_line
from benchmark.data.images import MAX_LABELS, check_size, encode_png
from benchmark.data.problems import BadRow, Problems
from benchmark.data.records import SPLITS, Classes, Row, check_places, label_of_flags, label_of_index
from benchmark.data.sources.base import Source


class Header(NamedTuple):
    """What the header of an array says. columns_first: the array is in Fortran's order."""

    shape: tuple[int, ...]
    columns_first: bool
    dtype: np.dtype[Any]


class NpzSource(Source):
    """For each split, SPLIT_images: uint8 [N, H, W] or [N, H, W, 3], and SPLIT_labels.

    Labels are integers [N] or [N, 1] (class numbers), or [N, K] of 0 and 1 for a multi-label card.
    """

    kind: Literal["npz"] = "npz"
    file: Path

    @override
    def provides(self) -> frozenset[str]:
        return frozenset({"label"})

    @override
    def splits(self) -> list[str]:
        with self._open() as arrays:
            return [split for split in SPLITS if f"{split}_images" in arrays]

    @override
    def needs(self) -> list[Path]:
        return [self.file]

    @override
    def fingerprint(self) -> Any:
        state = self.existing(self.file).stat()
        return {"kind": self.kind, "size": state.st_size, "time": state.st_mtime_ns}

    @contextmanager
    def _open(self) -> Iterator[Any]:
        path = self.existing(self.file)
        with path.open("rb") as file:
            try:
                arrays = np.load(file, allow_pickle=False)
                assert isinstance(arrays, np.lib.npyio.NpzFile)
            except Exception as error:  # zipfile, numpy and the assertion each raise their own
                raise reading_failed(f"{path.name}: cannot be read as .npz: {one_line(error)}", error) from error
            with arrays:
                yield arrays

    @override
    def rows(self, classes: Classes, problems: Problems) -> Iterator[Row]:
        make_label = label_of_flags if classes.multi_label else label_of_index
        with self._open() as arrays:
            every = {split: self._arrays(arrays, split, classes) for split in self.splits()}
            if not classes.multi_label:
                check_places(classes, {label for _, labels in every.values() for label in labels}, self.file.name)
            for split, (images, labels) in every.items():
                for i, (image, label) in enumerate(zip(images, labels)):
                    file, id = f"{self.file.name}, {split}_images[{i}]", f"{split}/{i}"
                    try:
                        yield Row(file, 0, id, id, split, encode_png(image), label=make_label(classes, label))
                    except BadRow as bad:
                        problems.add(file, bad)

    def labels(self, split: str) -> np.ndarray:
        """Read the labels of a split as the file has them: [N], [N, 1] or [N, K]. Raises ``BenchError``."""
        name, key = self.file.name, f"{split}_labels"
        with self._open() as arrays:
            if key not in arrays:
                raise BenchError(f"{name}: {unknown('array', key, arrays)}")
            try:
                self._labels_shape(key)
                labels: np.ndarray = arrays[key]
            except BenchError:
                raise
            except Exception as error:  # as in _arrays()
                raise reading_failed(f"{name}: {key}: {' '.join(str(error).split())[:300]}", error) from error
        if labels.dtype.kind not in "iub" or labels.ndim not in (1, 2):
            raise BenchError(f"{name}: {key}: expected integers, found {labels.dtype} {list(labels.shape)}")
        return labels

    def _arrays(self, arrays: Any, split: str, classes: Classes) -> tuple[Iterator[np.ndarray], list[Any]]:
        """The images and the labels of a split: class numbers, or lists of flags."""
        name = self.file.name
        key = f"{split}_labels"
        if key not in arrays:
            raise BenchError(f"{name}: {unknown('array', key, arrays)}")
        try:
            count, images = self._images(split)
            shape = self._labels_shape(key)
            expected = (count, len(classes.names)) if classes.multi_label else (count,)
            if shape != expected and (classes.multi_label or shape != (count, 1)):
                raise BenchError(f"{name}: {key}: expected shape {list(expected)}, found {list(shape)}")
            return images, arrays[key].reshape(expected).tolist()
        except BadRow as bad:
            raise BenchError(f"{name}: {split}_images: an image {bad.message}") from bad
        except BenchError:
            raise
        except Exception as error:  # zipfile, zlib, numpy and the parser of its headers each raise their own
            raise reading_failed(f"{name}: {split}: {' '.join(str(error).split())[:300]}", error) from error

    def _images(self, split: str) -> tuple[int, Iterator[np.ndarray]]:
        """The number of images, and the images one by one: at 224 pixels they do not fit into memory together."""
        opened = ExitStack()
        where = f"{self.file.name}: {split}_images"
        file, (shape, columns_first, dtype) = self._array(f"{split}_images", opened)
        if dtype.hasobject:
            raise ValueError("Object arrays cannot be loaded")
        if dtype != np.uint8 or len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] != 3) or columns_first:
            raise BenchError(f"{where}: expected uint8 [N, H, W] or [N, H, W, 3], found {dtype} {list(shape)}")
        check_size(shape[2], shape[1])
        size = math.prod(shape[1:])

        def images() -> Iterator[np.ndarray]:
            with opened:
                for _ in range(shape[0]):
                    try:
                        pixels = file.read(size)
                    except (OSError, EOFError, BadZipFile, zlib.error) as error:
                        raise reading_failed(f"{where}: cannot be read: {one_line(error)}", error) from error
                    if len(pixels) < size:
                        raise BenchError(f"{where}: the file ends before the last of {shape[0]:,} images")
                    yield np.frombuffer(pixels, np.uint8).reshape(shape[1:])

        return shape[0], images()

    def _labels_shape(self, key: str) -> tuple[int, ...]:
        with ExitStack() as opened:
            _, (shape, _, dtype) = self._array(key, opened)
        if math.prod(shape) * dtype.itemsize > MAX_LABELS:
            raise BenchError(f"{self.file.name}: {key}: {list(shape)} of {dtype} are more than {MAX_LABELS:,} bytes")
        return shape

    def _array(self, key: str, opened: ExitStack) -> tuple[IO[bytes], Header]:
        """The file of an array, positioned behind its header, and the header.

        A few compressed bytes can unpack to any number, so the header is checked before the rest is read.
        """
        archive = opened.enter_context(ZipFile(self.existing(self.file)))
        file = opened.enter_context(archive.open(f"{key}.npy"))
        version = read_magic(file)[0]
        if version not in (1, 2):
            raise ValueError(f"expected version 1 or 2 of the format, found {version}")
        return file, Header(*(read_array_header_1_0(file) if version == 1 else read_array_header_2_0(file)))
