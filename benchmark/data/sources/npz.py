"""Records from the arrays of an .npz file, as MedMNIST has them (Yang et al., Scientific Data 2023)."""

import math
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic

from benchmark.common.errors import BenchError, unknown
from benchmark.data.images import MAX_LABELS, check_size, encode_png
from benchmark.data.problems import BadRow, Problems
from benchmark.data.sources.base import SPLITS, Row, Source, label_of_flags, label_of_index

if TYPE_CHECKING:
    from benchmark.data.card import Card


class NpzSource(Source):
    """For each split, SPLIT_images: uint8 [N, H, W] or [N, H, W, 3], and SPLIT_labels: integers [N] or [N, 1] (class
    numbers), or [N, K] of 0 and 1 for a multi-label card.
    """

    kind: Literal["npz"] = "npz"
    file: Path

    def provides(self) -> frozenset[str]:
        return frozenset({"label"})

    def splits(self) -> list[str]:
        with self._open() as arrays:
            return [split for split in SPLITS if f"{split}_images" in arrays]

    def needs(self) -> list[Path]:
        return [self.file]

    def fingerprint(self) -> Any:
        state = self.existing(self.file).stat()
        return {"kind": self.kind, "size": state.st_size, "time": state.st_mtime_ns}

    def _open(self) -> Any:
        path = self.existing(self.file)
        try:
            arrays = np.load(path, allow_pickle=False)
            assert isinstance(arrays, np.lib.npyio.NpzFile)
            return arrays
        except Exception as error:  # zipfile, numpy and the assertion each have their own
            raise BenchError(f"{path.name}: cannot be read as .npz: {error}") from error

    def rows(self, card: "Card", problems: Problems) -> Iterator[Row]:
        name = self.file.name
        with self._open() as arrays:
            for split in self.splits():
                key = f"{split}_labels"
                if key not in arrays:
                    raise BenchError(f"{name}: {unknown('array', key, arrays)}")
                try:
                    count, images = self._images(split)
                    shape = self._labels_shape(key)
                    expected = (count, len(card.class_index)) if card.multi_label else (count,)
                    if shape != expected and (card.multi_label or shape != (count, 1)):
                        raise BenchError(f"{name}: {key}: expected shape {list(expected)}, found {list(shape)}")
                    labels = arrays[key].reshape(expected)
                except BadRow as bad:
                    raise BenchError(f"{name}: {split}_images: an image {bad.message}") from bad
                except (ValueError, EOFError, BadZipFile, zlib.error) as error:
                    raise BenchError(f"{name}: {split}: {error}") from error
                encode = label_of_flags if card.multi_label else label_of_index
                for i, (image, label) in enumerate(zip(images, labels.tolist())):
                    file, id = f"{name}, {split}_images[{i}]", f"{split}/{i}"
                    try:
                        yield Row(file, 0, id, id, split, encode_png(image), label=encode(card, label))
                    except BadRow as bad:
                        problems.add(file, bad)

    def _images(self, split: str) -> tuple[int, Iterator[np.ndarray]]:
        """Their number, and the images one by one: at 224 pixels all of them at once would fill the memory."""
        opened = ExitStack()
        file, (shape, columns_first, dtype) = self._array(f"{split}_images", opened)
        if dtype.hasobject:
            raise ValueError("Object arrays cannot be loaded")
        if dtype != np.uint8 or len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] != 3) or columns_first:
            message = f"expected uint8 [N, H, W] or [N, H, W, 3], found {dtype} {list(shape)}"
            raise BenchError(f"{self.file.name}: {split}_images: {message}")
        check_size(shape[2], shape[1])

        def images() -> Iterator[np.ndarray]:
            with opened:
                for _ in range(shape[0]):
                    try:
                        content = file.read(math.prod(shape[1:]))
                    except (OSError, EOFError, BadZipFile, zlib.error) as error:
                        raise BenchError(f"{self.file.name}: {split}_images: cannot be read: {error}") from error
                    if len(content) < math.prod(shape[1:]):
                        raise BenchError(f"{self.file.name}: {split}_images: ends before its {shape[0]:,} images")
                    yield np.frombuffer(content, np.uint8).reshape(shape[1:])

        return shape[0], images()

    def _labels_shape(self, key: str) -> tuple[int, ...]:
        with ExitStack() as opened:
            _, (shape, _, dtype) = self._array(key, opened)
        if math.prod(shape) * dtype.itemsize > MAX_LABELS:
            raise BenchError(f"{self.file.name}: {key}: {list(shape)} of {dtype} are more than {MAX_LABELS:,} bytes")
        return shape

    def _array(self, key: str, opened: ExitStack) -> tuple[IO[bytes], tuple[tuple[int, ...], bool, np.dtype]]:
        """An array's file, behind its header, and what that says: shape, whether columns come first, type. A few bytes
        may unfold to any number: the header is looked at before the rest is read.
        """
        archive = opened.enter_context(ZipFile(self.existing(self.file)))
        file = opened.enter_context(archive.open(f"{key}.npy"))
        version = read_magic(file)[0]
        if version not in (1, 2):
            raise ValueError(f"expected version 1 or 2 of the format, found {version}")
        return file, read_array_header_1_0(file) if version == 1 else read_array_header_2_0(file)
