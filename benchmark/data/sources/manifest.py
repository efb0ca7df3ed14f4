"""Records from a table in a file beside a folder of images: CSV, JSON, Parquet or Excel."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator
from typing_extensions import override

from benchmark.common.errors import BenchError, unknown
from benchmark.data.problems import Problems
from benchmark.data.records import SPLITS, Split
from benchmark.data.sources.formats import SUFFIXES, Rows, Values, digest, read_table
from benchmark.data.sources.table import Table, TableSource
from benchmark.data.sources.text_files import suffix_of
from benchmark.data.sources.values import string


class Join(BaseModel):
    """Another table, whose columns are added to the rows that have the same values in the columns ``by``.

    columns: only these of its columns are added. Rows without a partner stay as they are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Path
    by: list[str]
    columns: list[str]


class ManifestSource(TableSource):
    """One table with a row for each image, or one table for each split.

    file, or files by split: .csv, .tsv, .txt (no quotes where tabs separate its columns), .jsonl, .ndjson, .json,
    .parquet or .xlsx; all but the last two also as .gz. A name may be a pattern (``data/train-*.parquet``). Texts are
    in UTF-8, or in UTF-16 with its byte order mark; commas, semicolons, tabs or bars separate columns, whatever the
    suffix says. For the forms of a .json, COCO among them, see rows_of(). Images lie in a folder, or in the column
    itself as in Parquet files of ``datasets``, whose class numbers are read as the names that the file has for them.

    header: the names of the columns, if the first row of the file does not give them.
    join: tables that add columns.
    image_root: what the paths of images are relative to, from where ``file`` is; the manifest's own folder by default.
    """

    kind: Literal["manifest"] = "manifest"
    file: Path | None = None
    files: dict[Split, Path] = {}
    header: list[str] = []
    join: list[Join] = []
    image_root: Path | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "ManifestSource":
        if bool(self.file) == bool(self.files):
            raise ValueError("expected either 'file' or 'files' (one for each split)")
        if bool(self.files) + bool(self.columns.split) + bool(self.split) != 1:
            raise ValueError("expected the split in one place: 'files', 'columns.split' or 'split' with the shares")
        for path in (*self._patterns().values(), *(join.file for join in self.join)):
            if suffix_of(path) not in SUFFIXES:
                raise ValueError(f"'{path}': expected a name in {', '.join(SUFFIXES)}")
        return self

    def _patterns(self) -> dict[str, Path]:
        return {"": self.file} if self.file else {str(split): path for split, path in self.files.items()}

    def _paths(self) -> list[tuple[str, Path]]:
        """Pairs of split and file. Raises ``BenchError`` for a pattern that matches no file."""
        return [(split, path) for split, pattern in self._patterns().items() for path in self.matching(pattern)]

    @override
    def needs(self) -> list[Path]:
        # "." is the folder of the table.
        root = [self.image_root] if self.image_root and self.image_root.parts else []
        return [*self._patterns().values(), *(join.file for join in self.join), *root]

    @override
    def splits(self) -> list[str]:
        if self.files:
            return list(self.files)
        return self.split.splits() if self.split else list(SPLITS)

    @override
    def fingerprint(self) -> Any:
        contents: dict[str, list[str]] = {}
        for split, path in self._paths():
            contents.setdefault(split, []).append(digest(path))
        joined = [digest(self.existing(join.file)) for join in self.join]
        parameters = self.model_dump(mode="json", exclude={"file", "files", "image_root"}, exclude_defaults=True)
        return {"parameters": parameters, "files": contents, "joined": joined, **self.file_states()}

    @override
    def image_folder(self) -> Path:
        pattern = next(iter(self._patterns().values()))
        manifest = self.matching(pattern)[0]
        if self.image_root is None:
            return manifest.parent
        folder = self.base(pattern) / self.image_root
        if not folder.is_dir():
            raise BenchError(f"image_root '{self.image_root}' is not a folder (looked in {self.base(pattern)})")
        return folder

    @override
    def tables(self, problems: Problems) -> Iterator[Table]:
        for split, path in self._paths():
            columns: set[str] = set()
            rows = read_table(path, problems, columns, self.header)
            yield Table(split, path.name, self._joined(rows, columns), columns)

    def _joined(self, rows: Rows, columns: set[str]) -> Rows:
        partners = [(join, self._partners(join)) for join in self.join]
        for join, _ in partners:
            columns.update(join.columns)
        for number, values in rows:
            for join, table in partners:
                partner = table.get(tuple(string(values.get(name)) for name in join.by), {})
                values.update({name: value for name, value in partner.items() if name not in values})
            yield number, values

    def _partners(self, join: Join) -> dict[tuple[str, ...], Values]:
        """The columns that a joined table adds, by the values of its columns ``by``."""
        path = self.existing(join.file)
        columns: set[str] = set()
        problems = Problems()
        table: dict[tuple[str, ...], Values] = {}
        for _, values in read_table(path, problems, columns):
            by = tuple(string(values.get(name)) for name in join.by)
            table.setdefault(by, {name: values.get(name) for name in join.columns})
        problems.stop("error")
        for name in (*join.by, *join.columns):
            if name not in columns:
                raise BenchError(f"{path.name}: join: {unknown('column', name, columns)}")
        return table
