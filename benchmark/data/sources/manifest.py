"""Records from a table in a file beside a folder of images: CSV, JSON, Parquet or Excel."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import override

from benchmark.common.errors import BenchError, cut, unknown
from benchmark.data.canonical import composed, identifier, written
from benchmark.data.problems import BadRow, Problems
from benchmark.data.records import SPLITS, Split, place
from benchmark.data.sources.chunks import Rows, Values
from benchmark.data.sources.folders import located
from benchmark.data.sources.formats import DOCUMENTS, SUFFIXES, digest, read_chunks, read_table
from benchmark.data.sources.table import Table, TableSource
from benchmark.data.sources.text_files import suffix_of
from benchmark.data.sources.values import compose_names


class Join(BaseModel):
    """Another table, whose columns are added to the rows that have the same values in the columns ``by``.

    Values are compared in their canonical form: 1 and ``1.0`` are one value, ``007`` and 7 are two. A column that the
    rows have too must have the same values.

    match: further columns that must agree: the rows' own column -> that of the table. matches_all: values of the
    latter that agree with every value, "" for none: a finding of side B belongs to the images of both breasts.
    columns: only these of its columns are added. Rows without a partner stay as they are.
    several: what to do with rows of the table that have the same key but not the same values: ``error``, take the
    ``first``, or take the one whose value in a column goes first in a list: ``{severity: [high, low]}``.
    ``bench data verify`` says how many rows had such partners.
    partial: fewer than half of the rows may have a partner, but not none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Path
    by: list[str]
    match: dict[str, str] = {}
    matches_all: list[str] = []
    columns: list[str]
    several: Literal["error", "first"] | Annotated[dict[str, list[str]], Field(min_length=1, max_length=1)] = "error"
    partial: bool = False

    @model_validator(mode="after")
    def _complete(self) -> "Join":
        if self.matches_all and not self.match:
            raise ValueError("'matches_all' needs 'match', the columns whose values match all")
        return self

    @property
    def own(self) -> list[str]:
        """The columns of the rows that make a key."""
        return [*self.by, *self.match]

    @property
    def others(self) -> list[str]:
        """The columns of the table that make a key."""
        return [*self.by, *self.match.values()]

    @property
    def order(self) -> tuple[str, dict[str, int]]:
        """The column that decides which of several rows is taken, and the place of each of its values."""
        if isinstance(self.several, str):
            return "", {}
        column, values = next(iter(self.several.items()))
        return column, {identifier(value): place for place, value in enumerate(values)}


Key = tuple[str | None, ...]
"""The values of the columns that rows of two tables share; None agrees with every value."""


@dataclass
class Partner:
    """The row of a joined table that is taken for a key. place: its place among several rows, the lowest is taken.

    columns: what it adds. differ: whether another row of the key adds something else.
    """

    place: tuple[int, int]
    columns: Values
    differ: bool = False


@dataclass
class Partners:
    """A joined table, and how the rows of a split find partners in it.

    by_key: the row of each key. rows, matched: the rows of the split so far, and those with a partner, whose keys are
    in ``used``. differ: of these, the rows with partners that add different values. unmatched: the key of the first row
    without a partner, as written.
    """

    join: Join
    by_key: dict[Key, Partner]
    rows: int = 0
    matched: int = 0
    differ: int = 0
    unmatched: str = ""
    used: set[Key] = field(default_factory=set)

    def of(self, values: Values) -> Values:
        """The columns that the table adds to a row; none where the row has no partner, or nothing in its key."""
        join = self.join
        by = _key(join.by, values)
        matched = [(identifier(values.get(name)), None) for name in join.match]
        self.rows += 1
        keys = [key for option in product(*matched) if (key := (*by, *option)) in self.by_key] if any(by) else []
        if not keys:
            self.unmatched = self.unmatched or _shown(join.own, [written(values.get(name)) for name in join.own])
            return {}
        self.matched += 1
        self.used.update(keys)
        partners = sorted((self.by_key[key] for key in keys), key=lambda partner: partner.place)
        first = partners[0].columns
        unlike = [name for each in partners for name in join.columns if not _alike(each.columns[name], first[name])]
        if unlike and join.several == "error":
            cells = " and ".join(f"'{cut(str(each.columns[unlike[0]]))}'" for each in partners)
            shown = _shown(join.own, [written(values.get(name)) for name in join.own])
            raise BadRow("several partners", f"join: {shown} has partners with {unlike[0]} {cells}; {_WHICH}")
        self.differ += bool(unlike) or any(partner.differ for partner in partners)
        return first

    def check(self, table: str) -> None:
        """Raise ``BenchError`` if too few of the rows so far have a partner. table: what the rows were read from."""
        if self.matched and (self.join.partial or 2 * self.matched >= self.rows):
            return
        name = self.join.file.name
        free = next((key for key in self.by_key if key not in self.used), None)
        other = (
            f"{name} has {_shown(self.join.others, free)}, which no row has" if free else f"all rows of {name} are used"
        )
        hint = "; if so few are meant, set 'partial: true' in the join" if self.matched else ""
        raise BenchError(
            f"{table}: join: {self.matched:,} of {self.rows:,} rows have a partner in {name}: a row has "
            f"{self.unmatched}, and {other}; write these columns alike in both files{hint}"
        )


_WHICH = (
    "add a column that tells these rows apart to 'by', or say which is taken with 'several', as in 'several: first'"
)


def _key(names: Sequence[str], values: Values) -> tuple[str, ...]:
    return tuple(identifier(values.get(name)) for name in names)


def _shown(names: Sequence[str], key: Sequence[str | None]) -> str:
    """A key for messages."""
    return ", ".join(
        f"{name} '{cut(value)}'" if value is not None else f"any {name}" for name, value in zip(names, key)
    )


def _alike(one: Any, other: Any) -> bool:
    """Whether two cells have the same value."""
    if one == other:
        return True
    return not isinstance(one, list) and not isinstance(other, list) and identifier(one) == identifier(other)


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
    def in_chunks(self) -> bool:
        return not self.join and all(suffix_of(path) not in DOCUMENTS for path in self._patterns().values())

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
        folder = located(self.base(pattern), str(self.image_root))
        if not folder.is_dir():
            raise BenchError(f"image_root '{self.image_root}' is not a folder (looked in {self.base(pattern)})")
        return folder

    @override
    def tables(self, problems: Problems) -> Iterator[Table]:
        joined = [(join, self._joined_rows(join)) for join in self.join]
        for split, paths in groupby(self._paths(), lambda pair: pair[0]):
            every = [Partners(join, by_key) for join, by_key in joined]
            names = []
            for _, path in paths:
                columns: set[str] = set()
                rows = read_table(path, problems, columns, self.header)
                names.append(path.name)
                chunks = None if every else read_chunks(path, columns, self.header)
                rows = _with_partners(rows, path.name, columns, every, problems)
                yield Table(split, path.name, rows, columns, chunks)
            for partners in every:
                if partners.rows:
                    read = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
                    partners.check(read)
                    if partners.differ:
                        problems.remark(
                            f"{read}: rows with several partners in {partners.join.file.name} that differ in "
                            f"{', '.join(partners.join.columns)}",
                            partners.differ,
                        )

    def _joined_rows(self, join: Join) -> dict[Key, Partner]:
        """The row of a joined table that is taken for each key."""
        path = self.existing(join.file)
        columns: set[str] = set()
        problems = Problems()
        every = {identifier(value) for value in join.matches_all}
        column, places = join.order
        table: dict[Key, Partner] = {}
        for number, values in read_table(path, problems, columns):
            compose_names(values)
            try:
                by = _key(join.by, values)
                if not any(by):
                    continue
                matched = _key([*join.match.values()], values)
                key = (*by, *(None if value in every else value for value in matched))
                rank = places.get(identifier(values.get(column)), len(places)) if column else 0
                added = Partner((rank, number), {name: values.get(name) for name in join.columns})
                one = table.setdefault(key, added)
                differ = [name for name in join.columns if not _alike(one.columns[name], added.columns[name])]
            except BadRow as bad:
                problems.add(place(path.name, number), bad)
                continue
            if differ and join.several == "error":
                here, there = (cut(str(each.columns[differ[0]])) for each in (added, one))
                cells = f"{differ[0]} '{here}' here, and '{there}' in row {one.place[1]}"
                raise BenchError(f"{place(path.name, number)}: join: {_shown(join.others, key)} has {cells}; {_WHICH}")
            if added.place < one.place:
                table[key] = added
            table[key].differ = one.differ or bool(differ)
        problems.stop("error")
        for name in (*join.others, *join.columns, *filter(None, [column])):
            if name not in {composed(column) for column in columns}:
                raise BenchError(f"{path.name}: join: {unknown('column', name, columns)}")
        return table


def _add(values: Values, partner: Values, table: str) -> None:
    """Add the columns of a partner to a row. Raises ``BadRow`` for a column of the row that has another value."""
    for name, value in partner.items():
        if name in values and not _alike(values[name], value):
            here, there = (cut(str(each)) for each in (values[name], value))
            message = f"join: column '{name}' is '{here}' here, and '{there}' in {table}"
            raise BadRow("two values", f"{message}; rename the column in one of the files, or leave it out of the join")
        values[name] = value


def _with_partners(rows: Rows, table: str, columns: set[str], every: list[Partners], problems: Problems) -> Rows:
    """The rows of a table with the columns of their partners, whose names are added to ``columns``."""
    for number, values in rows:
        compose_names(values)
        try:
            for partners in every:
                _add(values, partners.of(values), partners.join.file.name)
        except BadRow as bad:
            problems.add(place(table, number), bad)
        else:
            yield number, values
    for partners in every:
        for name in partners.join.own:
            if columns and name not in {composed(column) for column in columns}:
                raise BenchError(f"{table}: join: {unknown('column', name, columns)}")
        columns.update(partners.join.columns)
