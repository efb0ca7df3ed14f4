"""Records from a hub's dataset by name, or from a folder in which one was saved."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from benchmark.data.problems import Problems
from benchmark.data.sources.base import SPLITS, Split
from benchmark.data.sources.formats import Rows
from benchmark.data.sources.table import TableSource
from benchmark.errors import BenchError, unknown

if TYPE_CHECKING:
    import datasets


class HubSource(TableSource):
    """name: of the dataset on the hub, with revision (a commit keeps results repeatable) and config; or path: a folder
    that ``save_to_disk`` wrote, which needs no network. Parquet folders are read by kind ``manifest``.

    splits_of: split -> its name there, for those to be used.
    streaming: read rows from the hub without downloading it all first.
    """

    kind: Literal["hub"] = "hub"
    name: str | None = None
    path: Path | None = None
    config: str | None = None
    revision: str | None = None
    splits_of: dict[Split, str]
    streaming: bool = False

    @model_validator(mode="after")
    def _one_place(self) -> "HubSource":
        if bool(self.name) == bool(self.path):
            raise ValueError("expected either 'name' or 'path'")
        if self.path and (self.config or self.revision or self.streaming):
            raise ValueError("'config', 'revision' and 'streaming' go with 'name'")
        if len(self.splits_of) > 1 and self.split:
            raise ValueError("expected the split in one place: several 'splits_of', or 'split' with the shares")
        return self

    def needs(self) -> list[Path]:
        return [self.path] if self.path else []

    def found(self) -> bool:
        """A name counts as found where it is in the local cache."""
        if self.path:
            return super().found()
        from datasets import config

        return (config.HF_DATASETS_CACHE / self.name.replace("/", "___")).is_dir()  # type: ignore[union-attr]

    def splits(self) -> list[str]:
        return self.split.splits() if self.split else [split for split in SPLITS if split in self.splits_of]

    def fingerprint(self) -> Any:
        parameters = self.model_dump(mode="json", exclude={"path"}, exclude_defaults=True)
        if self.streaming:
            return {"parameters": parameters}
        return {
            "parameters": parameters,
            "content": {split: self._load(split)._fingerprint for split in self.splits_of},
        }

    def image_folder(self) -> Path:
        return self.existing(self.path) if self.path else Path()

    def tables(self, problems: Problems) -> Iterator[tuple[str, str, Rows, set[str]]]:
        for split in self.splits_of:
            data = self._load(split)
            seen = set(data.column_names or ())
            yield ("" if self.split else split), f"{self.name or self.path}, {self.splits_of[split]}", _rows(data), seen

    def _load(self, split: Split) -> "datasets.Dataset":
        import datasets

        there = self.splits_of[split]
        if self.path:
            folder = self.existing(self.path)
            try:
                saved = datasets.load_from_disk(str(folder))
            except Exception as error:  # pyarrow, json and datasets each have their own
                reason = " ".join(str(error).split())
                raise BenchError(f"{folder}: cannot be read as a saved dataset: {reason}") from error
            if isinstance(saved, datasets.DatasetDict):
                if there not in saved:
                    raise BenchError(f"{folder}: {unknown('split', there, saved)}")
                return saved[there]
            return saved
        try:
            return datasets.load_dataset(
                self.name, self.config, split=there, revision=self.revision, streaming=self.streaming
            )
        except Exception as error:  # what a client of a hub raises is not limited to OSError
            offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
            raise BenchError(
                f"dataset '{self.name}', split '{there}': neither in the local cache nor reachable{offline}: {reason}"
            ) from error


def _rows(data: "datasets.Dataset") -> Rows:
    """Images stay encoded; classes are told by name, whatever number a set gives them."""
    import datasets

    features = data.features or {}
    for name, feature in features.items():
        if isinstance(feature, datasets.Image):
            data = data.cast_column(name, datasets.Image(decode=False))
    classes = {name: feature for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)}
    for number, values in enumerate(data, 1):
        values = dict(values)
        for name, feature in classes.items():
            value = values[name]
            values[name] = None if value is None or value < 0 else feature.int2str(value)
        yield number, values
