"""Records from a folder with a sub-folder a class."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmark.data.problems import BadRow, Problems
from benchmark.data.sources.base import SPLITS, Fractions, Row, Source, label_of_names
from benchmark.errors import BenchError

if TYPE_CHECKING:
    from benchmark.data.card import Card

SUFFIXES = {".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}


class ImageFolderSource(Source):
    """root/train/CLASS/**, root/val/CLASS/**, root/test/CLASS/**; or root/CLASS/** with ``split``, the shares.

    folders: class -> sub-folder, where the sub-folder is not named like the class.
    Each image is its own group, since nothing says which belong to one patient.
    """

    kind: Literal["image_folder"] = "image_folder"
    root: Path
    split: Fractions | None = None
    folders: dict[str, str] = {}

    def provides(self) -> frozenset[str]:
        return frozenset({"label"})

    def splits(self) -> list[str]:
        if self.split:
            return self.split.splits()
        return [split for split in SPLITS if (self.existing(self.root) / split).is_dir()]

    def fingerprint(self) -> Any:
        return {"parameters": self.model_dump(mode="json", exclude={"root"}), "images": self._images()}

    def image_folder(self) -> Path:
        return self.existing(self.root)

    def _images(self) -> list[str]:
        root = self.image_folder()
        found = [
            os.path.relpath(os.path.join(folder, name), root)
            for folder, _, names in os.walk(root)
            for name in names
            if Path(name).suffix.lower() in SUFFIXES
        ]
        return sorted(found)

    def rows(self, card: "Card", problems: Problems) -> Iterator[Row]:
        classes = {folder: name for name, folder in self.folders.items()}
        rows = []
        for image in self._images():
            parts = Path(image).parts
            split = "" if self.split else parts[0]
            above = parts[:-1] if self.split else parts[1:-1]
            if not self.split and split not in SPLITS:
                continue
            try:
                if not above:
                    raise BadRow("no class", "lies in no class's folder")
                label = label_of_names(card, [classes.get(above[0], above[0])])
                rows.append(Row(image, 0, id=image, group=image, split=split, image=image, label=label))
            except BadRow as bad:
                problems.add(image, bad)
        if not rows and not problems.counts:
            layout = "CLASS/IMAGE" if self.split else "train/CLASS/IMAGE (or give 'split', the shares)"
            raise BenchError(f"{self.image_folder()}: no image found; expected {layout}")
        yield from self.split.assign(rows) if self.split else rows
