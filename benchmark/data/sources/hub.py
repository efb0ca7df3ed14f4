"""Records from a hub's dataset by name, or from a folder in which one was saved."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PrivateAttr, model_validator

from benchmark.common.errors import BenchError, unknown
from benchmark.common.hub import one_line
from benchmark.data.problems import Problems
from benchmark.data.sources.base import SPLITS, Split
from benchmark.data.sources.formats import Rows
from benchmark.data.sources.hub_dataset import HubDataset
from benchmark.data.sources.table import TableSource

if TYPE_CHECKING:
    import datasets


class HubSource(TableSource):
    """name: of the dataset on the hub, with config, and revision: a commit, or a branch or tag ("main" by default) that
    stands for the commit that it is when the data are opened, or where the hub cannot be reached was when last asked.
    Images lie in the set's tables, as in Parquet; code in a set is never run.
    Or path: a folder that ``save_to_disk`` wrote, which needs no network. Parquet folders are for kind ``manifest``.

    splits_of: split -> its name there, for those to be used.
    streaming: read rows from the hub without downloading its files first.
    """

    kind: Literal["hub"] = "hub"
    name: str | None = None
    path: Path | None = None
    config: str | None = None
    revision: str | None = None
    splits_of: dict[Split, str]
    streaming: bool = False
    _hub: HubDataset | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _one_place(self) -> "HubSource":
        if bool(self.name) == bool(self.path):
            raise ValueError("expected either 'name' or 'path'")
        if self.path and (self.config or self.revision or self.streaming):
            raise ValueError("'config', 'revision' and 'streaming' go with 'name'")
        if len(self.splits_of) > 1 and self.split:
            raise ValueError("expected the split in one place: several 'splits_of', or 'split' with the shares")
        if self.name:
            self._hub = HubDataset(self.name, self.config, self.revision, self.streaming, list(self.splits_of.values()))
        return self

    def needs(self) -> list[Path]:
        return [self.path] if self.path else []

    def found(self) -> bool:
        """A name counts as found where its rows can be had without the hub, or, streamed, it was opened before."""
        return self._hub.found() if self._hub else super().found()

    def splits(self) -> list[str]:
        return self.split.splits() if self.split else [split for split in SPLITS if split in self.splits_of]

    def fingerprint(self) -> Any:
        # Whatever a commit is called, it has the same rows.
        parameters = self.model_dump(mode="json", exclude={"path", "revision"}, exclude_defaults=True)
        if self._hub:
            return {"parameters": parameters, "commit": self._hub.commit, **self.beside()}
        return {
            "parameters": parameters,
            "content": {split: self._saved(there)._fingerprint for split, there in self.splits_of.items()},
            **self.beside(),
        }

    def image_folder(self) -> Path:
        return self.existing(self.path) if self.path else Path()

    def tables(self, problems: Problems) -> Iterator[tuple[str, str, Rows, set[str]]]:
        for split, there in self.splits_of.items():
            data = self._hub.load(there) if self._hub else self._saved(there)
            table, seen = f"{self.name or self.path}, {there}", set(data.column_names or ())
            yield ("" if self.split else split), table, _rows(data, table), seen

    def _saved(self, there: str) -> "datasets.Dataset":
        import datasets

        assert self.path
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
        if len(self.splits_of) > 1:
            raise BenchError(f"{folder}: one table was saved; expected one of 'splits_of', and 'split' with the shares")
        return saved


def _rows(data: "datasets.Dataset", table: str) -> Rows:
    """Images stay encoded; classes are told by name, whatever number a set gives them."""
    import datasets

    features = data.features or {}
    for name, feature in features.items():
        if isinstance(feature, datasets.Image):
            data = data.cast_column(name, datasets.Image(decode=False))
    classes = {name: feature for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)}
    number = 0
    try:
        for number, values in enumerate(data, 1):
            values = dict(values)
            for name, feature in classes.items():
                value = values[name]
                values[name] = None if value is None or value < 0 else feature.int2str(value)
            yield number, values
    except Exception as error:  # a stream breaks off in as many ways as a network
        raise BenchError(f"{table}, row {number + 1}: cannot be read: {one_line(error)}") from error
