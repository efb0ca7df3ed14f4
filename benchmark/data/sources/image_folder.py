"""Records from a folder with a sub-folder a class."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from benchmark.common.errors import BenchError
from benchmark.data.problems import BadRow, Problems
from benchmark.data.sources.base import SPLITS, Fractions, Row, Source, Split, check_unicode, label_of_names
from benchmark.data.sources.folders import files_below

if TYPE_CHECKING:
    from benchmark.data.card import Card

SUFFIXES = {".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}


class ImageFolderSource(Source):
    """root/train/CLASS/**, root/val/CLASS/**, root/test/CLASS/**; or root/CLASS/** with ``split``, the shares.

    split_folders: split -> folder below root, where it is not named like the split; others are not looked at.
    folders: class -> sub-folder, where the sub-folder is not named like the class.
    ignore: sub-folders that belong to no class.
    Each image is its own group, since nothing says which belong to one patient.
    """

    kind: Literal["image_folder"] = "image_folder"
    root: Path
    split: Fractions | None = None
    folders: dict[str, str] = {}
    split_folders: dict[Split, str] = {}
    ignore: list[str] = []

    @model_validator(mode="after")
    def _one_way(self) -> "ImageFolderSource":
        if self.split and self.split_folders:
            raise ValueError("expected the split in one place: 'split_folders' or 'split' with the shares")
        return self

    def provides(self) -> frozenset[str]:
        return frozenset({"label"})

    def splits(self) -> list[str]:
        if self.split:
            return self.split.splits()
        folders = self.split_folders or {split: str(split) for split in SPLITS}
        root = self.existing(self.root)
        return [split for split in SPLITS if split in folders and (root / folders[split]).is_dir()]

    def needs(self) -> list[Path]:
        return [self.root, *(self.root / folder for folder in self.split_folders.values())]

    def fingerprint(self) -> Any:
        parameters = self.model_dump(mode="json", exclude={"root"}, exclude_defaults=True)
        return {"parameters": parameters, "images": self._images()}

    def image_folder(self) -> Path:
        return self.existing(self.root)

    def _images(self) -> list[str]:
        root = self.image_folder()
        return sorted(path for path in files_below(root) if Path(path).suffix.lower() in SUFFIXES)

    def rows(self, card: "Card", problems: Problems) -> Iterator[Row]:
        classes = {folder: name for name, folder in self.folders.items()}
        splits = {folder: str(split) for split, folder in self.split_folders.items()} or {
            split: split for split in SPLITS
        }
        rows = []
        for image in self._images():
            parts = Path(image).parts
            split = "" if self.split else splits.get(parts[0], "")
            above = parts[:-1] if self.split else parts[1:-1]
            if (not self.split and not split) or (above and above[0] in self.ignore):
                continue
            try:
                check_unicode(image)
                if not above:
                    raise BadRow("no class", "lies in no class's folder")
                label = label_of_names(card, [classes.get(above[0], above[0])])
                rows.append(Row(image, 0, id=image, group=image, split=split, image=image, label=label))
            except BadRow as bad:
                problems.add(image, bad)
        if not rows and not problems.counts:
            folder = next(iter(self.split_folders.values()), "train")
            layout = "CLASS/IMAGE" if self.split else f"{folder}/CLASS/IMAGE (or give 'split', the shares)"
            raise BenchError(f"{self.image_folder()}: no image found; expected {layout}")
        yield from self.split.assign(rows) if self.split else rows
