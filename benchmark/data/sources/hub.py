"""Records from a dataset on the Hugging Face hub, or from a folder that ``datasets`` saved."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PrivateAttr, model_validator
from typing_extensions import override

from benchmark.common.errors import BenchError, unknown
from benchmark.common.hub import client_failed, one_line
from benchmark.data.problems import BadRow, Problems
from benchmark.data.records import SPLITS, Split, place
from benchmark.data.sources.chunks import Rows
from benchmark.data.sources.class_names import class_names, inner_columns, value_at
from benchmark.data.sources.hub_dataset import HubDataset
from benchmark.data.sources.table import Table, TableSource

if TYPE_CHECKING:
    import datasets


class HubSource(TableSource):
    """A dataset by its name on the hub, or by the path of a folder that ``save_to_disk`` wrote.

    name: on the hub. Images must be in the set's tables, as in Parquet. Code in a dataset is never run.
    config: one of the dataset's configurations; its default if null.
    revision: a commit, or a branch or tag ("main" by default). A branch or tag stands for its commit when the data are
    opened, or without network for the commit when the hub was last asked.
    path: the folder, which needs no network. Folders of Parquet files are for kind ``manifest``.
    splits_of: split -> the name of the split in the dataset, for those to be used.
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

    @override
    def needs(self) -> list[Path]:
        return [self.path] if self.path else []

    @override
    def is_present(self) -> bool:
        """Whether the rows can be read without the hub, or for a stream whether it was opened before."""
        return self._hub.is_cached() if self._hub else super().is_present()

    @override
    def splits(self) -> list[str]:
        return self.split.splits() if self.split else [split for split in SPLITS if split in self.splits_of]

    @override
    def fingerprint(self) -> Any:
        # Without the revision: whichever name a commit has, its rows are the same.
        parameters = self.model_dump(mode="json", exclude={"path", "revision"}, exclude_defaults=True)
        if self._hub:
            return {"parameters": parameters, "commit": self._hub.commit, **self.file_states()}
        return {
            "parameters": parameters,
            "content": {split: self._saved(name)._fingerprint for split, name in self.splits_of.items()},
            **self.file_states(),
        }

    @override
    def image_folder(self) -> Path:
        return self.existing(self.path) if self.path else Path()

    @override
    def tables(self, problems: Problems) -> Iterator[Table]:
        for split, name in self.splits_of.items():
            data = self._hub.load(name) if self._hub else self._saved(name)
            table = f"{self.name or self.path}, {name}"
            columns = set(data.column_names or ())
            yield Table("" if self.split else split, table, _rows(data, table, problems, columns), columns)

    def _saved(self, split: str) -> "datasets.Dataset":
        import datasets

        assert self.path
        folder = self.existing(self.path)
        try:
            saved = datasets.load_from_disk(str(folder))
        except Exception as error:  # pyarrow, json and datasets each raise their own
            reason = " ".join(str(error).split())
            raise client_failed(f"{folder}: cannot be read as a saved dataset: {reason}", error) from error
        if isinstance(saved, datasets.DatasetDict):
            if split not in saved:
                raise BenchError(f"{folder}: {unknown('split', split, saved)}")
            return saved[split]
        if len(self.splits_of) > 1:
            raise BenchError(f"{folder}: holds one table; expected one of 'splits_of', and 'split' with the shares")
        return saved


def _rows(data: "datasets.Dataset", table: str, problems: Problems, columns: set[str]) -> Rows:
    """The rows of a dataset, with images left encoded and class numbers replaced by names.

    Columns inside of others are added to ``columns``.
    """
    import datasets

    features = data.features or datasets.Features()
    named, inner = class_names(features.to_dict()), inner_columns(features.arrow_schema)
    columns.update(inner)
    for name, feature in features.items():
        if isinstance(feature, datasets.Image):
            data = data.cast_column(name, datasets.Image(decode=False))
    rows = iter(data)
    for number in count(1):
        try:
            values = dict(next(rows))
        except StopIteration:
            return
        except Exception as error:  # a network fails in many ways
            raise client_failed(f"{table}, row {number}: cannot be read: {one_line(error)}", error) from error
        try:
            values.update({name: function(values[name]) for name, function in named.items() if name in values})
        except BadRow as bad:
            problems.add(place(table, number), bad)
            continue
        yield number, {name: value_at(values, path) for name, path in inner.items()} | values
