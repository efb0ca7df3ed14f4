"""Records from a folder with one sub-folder for each class."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator
from typing_extensions import override

from benchmark.common.errors import BenchError
from benchmark.data.canonical import composed
from benchmark.data.images import is_image_file
from benchmark.data.problems import BadRow, Problems
from benchmark.data.records import SPLITS, Classes, Row, Split, label_of_names
from benchmark.data.sources.base import Fractions, Source
from benchmark.data.sources.folders import files_below, located
from benchmark.data.sources.values import check_unicode


class ImageFolderSource(Source):
    """root/train/CLASS/**, root/val/CLASS/**, root/test/CLASS/**; or root/CLASS/** with ``split``, the shares.

    split_folders: split -> folder below root, if it is not named like the split; other folders are ignored.
    folders: class -> sub-folder, if the sub-folder is not named like the class.
    ignore: sub-folders that belong to no class.
    Each image is its own group, because nothing says which images belong to one patient.
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

    @override
    def provides(self) -> frozenset[str]:
        return frozenset({"label"})

    @override
    def splits(self) -> list[str]:
        if self.split:
            return self.split.splits()
        root = self.existing(self.root)
        return [split for folder, split in self._split_of_folder().items() if located(root, folder).is_dir()]

    def _split_of_folder(self) -> dict[str, str]:
        """The split of each folder below root, in the order of the splits."""
        folders = self.split_folders or {split: str(split) for split in SPLITS}
        return {folders[split]: split for split in SPLITS if split in folders}

    @override
    def needs(self) -> list[Path]:
        return [self.root, *(self.root / folder for folder in self.split_folders.values())]

    @override
    def fingerprint(self) -> Any:
        parameters = self.model_dump(mode="json", exclude={"root"}, exclude_defaults=True)
        return {"parameters": parameters, "images": self._images()}

    @override
    def image_folder(self) -> Path:
        return self.existing(self.root)

    def _images(self) -> list[str]:
        root = self.image_folder()
        # Composed, so that an image has one name on all machines; located() finds it under its own.
        return sorted(composed(path) for path in files_below(root) if is_image_file(root / path))

    @override
    def rows(self, classes: Classes, problems: Problems) -> Iterator[Row]:
        class_of_folder = {folder: name for name, folder in self.folders.items()}
        split_of_folder = self._split_of_folder()
        rows = []
        for image in self._images():
            top, *folders = Path(image).parts[:-1] or ("",)
            split = "" if self.split else split_of_folder.get(top, "")
            if self.split:
                folders = [top, *folders] if top else []
            elif not split:
                continue
            if folders and folders[0] in self.ignore:
                continue
            try:
                check_unicode(image)
                if not folders:
                    raise BadRow("no class", "is not in the folder of a class")
                label = label_of_names(classes, [class_of_folder.get(folders[0], folders[0])])
                rows.append(Row(image, 0, id=image, group=image, split=split, image=image, label=label))
            except BadRow as bad:
                problems.add(image, bad)
        if not rows and not problems.counts:
            folder = next(iter(self.split_folders.values()), "train")
            layout = "CLASS/IMAGE" if self.split else f"{folder}/CLASS/IMAGE (or set 'split', the shares)"
            raise BenchError(f"{self.image_folder()}: no image found; expected {layout}")
        yield from self.split.assign(rows) if self.split else rows
