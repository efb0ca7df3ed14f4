"""Records from the arrays of an .npz file, as MedMNIST has them (Yang et al., Scientific Data 2023)."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from benchmark.data.images import encode_png
from benchmark.data.problems import BadRow, Problems
from benchmark.data.sources.base import SPLITS, Row, Source, label_of_flags, label_of_index
from benchmark.errors import BenchError, unknown

if TYPE_CHECKING:
    from benchmark.data.card import Card


class NpzSource(Source):
    """For each split, SPLIT_images: uint8 [N, H, W] or [N, H, W, 3], and SPLIT_labels: integers [N] or [N, 1] (class
    numbers), or [N, K] of 0 and 1 for a multi-label card."""

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
                    images, labels = arrays[f"{split}_images"], arrays[key]
                except ValueError as error:
                    raise BenchError(f"{name}: {split}: {error}") from error
                if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
                    raise BenchError(
                        f"{name}: {split}_images: expected uint8 [N, H, W] or [N, H, W, 3], "
                        f"found {images.dtype} {list(images.shape)}"
                    )
                expected = (len(images), len(card.class_index)) if card.multi_label else (len(images),)
                if not card.multi_label and labels.shape == (len(images), 1):
                    labels = labels[:, 0]
                if labels.shape != expected:
                    raise BenchError(f"{name}: {key}: expected shape {list(expected)}, found {list(labels.shape)}")
                encode = label_of_flags if card.multi_label else label_of_index
                for i, (image, label) in enumerate(zip(images, labels.tolist())):
                    file, id = f"{name}, {split}_images[{i}]", f"{split}/{i}"
                    try:
                        yield Row(file, 0, id, id, split, encode_png(image), label=encode(card, label))
                    except BadRow as bad:
                        problems.add(file, bad)
