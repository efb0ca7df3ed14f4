"""The input of a report's sections: the rows and costs of all runs, by the line of the tables they belong to."""

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from benchmark.common.text import LONGEST_SENTENCE, display_name, shorten, visible

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.store.rows import Embedded, Notes

NotesOf = Callable[[str, str], "Mapping[str, Notes]"]
"""Cell, evaluation -> the notes of its parts by name, as Store.notes() gives them."""
Resamples = Callable[[str, str, str, str], "np.ndarray | None"]
"""Cell, evaluation, part, metric -> the metric in each draw and resample, [D, R], as Store.resamples() gives it."""
ExamplesOf = Callable[[str, str, str], "pd.DataFrame | None"]
"""Cell, evaluation, part -> the per-example columns, as Store.examples() gives them; None if they are not there."""
LogOf = Callable[[str], "pd.DataFrame | None"]
"""Cell -> the log of its training, as Store.log() gives it; None if it has none."""
EmbeddedOf = Callable[[str, str], "Embedded | None"]
"""Cell, evaluation -> some embeddings of its test images and their texts, as Store.embedded() gives them."""
ConfigurationOf = Callable[[str], "Mapping[str, Any] | None"]
"""Cell -> what its weights depend on, as Store.configuration() gives it; None if it is not there."""


def nothing(*_: str) -> None:
    """Read nothing: stands in for a reader that the report was not given."""


KEYS = {"cell", "evaluation", "examples", "start", "raw_pixels", "plain", "task", "part", "metric"}
"""The columns by which rows and files are looked up; their texts are not data's."""
LISTS = {"variant", "recipe", "pretraining"}
"""The columns that hold several names, with commas between."""
IDENTITY = ["arm", "variant", "model", "suite", "folder"]
"""The columns that tell the lines of the tables apart; the runs of a line differ in their seed alone."""


@dataclass(frozen=True)
class Results:
    """The results that a report shows, of all kinds of task or, as of_task() gives them, of one.

    rows, costs: labelled, without those of scenarios. scores: their summary, one row per line and column of the tables.
    lines: in the order in which all tables and plots show them. methods: the lines that are no baselines.
    reference: the line that the others are compared with, if any; chosen: whether the user named it.
    shared: the settings that the command line gives to all lines.
    compared: the differences to the reference and to baselines, as comparison.comparisons() gives them.
    marks: of the scores that are not shown to beat a baseline, by task, dataset, metric and line.
    all_rows, all_costs: with those of scenarios, not labelled. course: the rows of weights in the course of trainings,
    not labelled. whole: of each name that is not shown as it is, the whole name. examples, log, embedded,
    configuration: read what a section shows of single cells.
    """

    rows: "pd.DataFrame"
    costs: "pd.DataFrame"
    scores: "pd.DataFrame"
    lines: list[str]
    methods: list[str]
    reference: str | None
    chosen: bool
    shared: str
    compared: "Mapping[str, pd.DataFrame]"
    marks: dict[tuple[str, str, str, str], str]
    notes: NotesOf
    resamples: Resamples
    all_rows: "pd.DataFrame"
    all_costs: "pd.DataFrame"
    course: "pd.DataFrame"
    whole: Mapping[str, str]
    task: str = ""
    examples: ExamplesOf = nothing
    log: LogOf = nothing
    embedded: EmbeddedOf = nothing
    configuration: ConfigurationOf = nothing

    def of_task(self, task: str) -> Self:
        """Select the rows and scores of one kind of task."""
        rows, scores = (frame[frame["task"] == task] for frame in (self.rows, self.scores))
        return replace(self, rows=rows, scores=scores, task=task)

    @property
    def drawn(self) -> list[str]:
        """The lines that the plots of a task show: methods, or baselines where these alone were measured."""
        return present(self.scores, self.methods) or self.lines


class DisplayNames:
    """Makes the texts of rows, costs and notes such that every writer can show them; keeps the ``whole`` names."""

    def __init__(self) -> None:
        self.whole: dict[str, str] = {}

    def frame(self, frame: "pd.DataFrame") -> "pd.DataFrame":
        """Copy rows or costs with names as display_name() writes them; numbers and ``KEYS`` stay.

        Texts become columns of objects: pandas would make a new text each time that one is read.
        """

        def write(column: str) -> Callable[[Any], Any]:
            if column in KEYS:
                return _same
            return self._list if column in LISTS else _sentence if column == "question" else self._name

        # The copy has one block of memory for all texts: selecting rows takes as long for each block.
        return _changed(frame, write).copy()

    def notes(self, notes: NotesOf) -> NotesOf:
        """Wrap the reader of notes: names are written as in frames, and no sentence is longer than the longest."""
        return lambda cell, evaluation: {part: self._name(of_part) for part, of_part in notes(cell, evaluation).items()}

    def _list(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return shorten(", ".join(map(self._name, value.split(", "))), LONGEST_SENTENCE)

    def _name(self, value: Any) -> Any:
        """Write a name, or the names in a list or mapping; the values of a mapping may be sentences."""
        if isinstance(value, str):
            name = display_name(value)
            if name != value:
                self.whole[name] = visible(value)
            return name
        if isinstance(value, dict):
            return {
                self._name(key): shorten(visible(text), LONGEST_SENTENCE) if isinstance(text, str) else self._name(text)
                for key, text in value.items()
            }
        if isinstance(value, list) and any(isinstance(each, str | list | dict) for each in value):
            return [self._name(each) for each in value]
        return value


def each_record(frame: "pd.DataFrame") -> Iterator[dict[str, Any]]:
    """Iterate over the rows as mappings: to_dict() and itertuples() take ten times as long for a wide table."""
    names = [str(name) for name in frame]
    for values in frame.to_numpy(dtype=object).tolist():
        yield dict(zip(names, values))


def each_row(frame: "pd.DataFrame") -> "Iterator[Any]":
    """Iterate over the rows as each_record() does; their fields are the columns."""
    for record in each_record(frame):
        yield SimpleNamespace(**record)


def present(frame: "pd.DataFrame", order: Iterable[str]) -> list[str]:
    """List the lines that have a row, in an order."""
    lines = set(frame["line"].to_numpy(dtype=object))
    return [line for line in order if line in lines]


def with_texts(frame: "pd.DataFrame", change: Callable[[Any], Any]) -> "pd.DataFrame":
    """Copy a table with each value of the columns that are not of numbers changed."""
    return _changed(frame, lambda _: change)


def _changed(frame: "pd.DataFrame", change: Callable[[str], Callable[[Any], Any]]) -> "pd.DataFrame":
    """Copy a table with each value of the columns that are not of numbers changed. change: how, by column."""
    import pandas as pd

    names = [str(name) for name, dtype in zip(frame, frame.dtypes) if dtype.kind not in "biufc"]
    # Iterating over a column itself takes ten times as long where pandas keeps texts in a type of its own.
    columns = zip(names, frame[names].to_numpy(dtype=object).T)
    texts = {name: of_each(values.tolist(), change(name)) for name, values in columns}
    return frame.assign(**pd.DataFrame(texts, frame.index, dtype=object))


def of_each(values: Sequence[Any], change: Callable[[Any], Any]) -> np.ndarray:
    """Change each of some values, object [n]: equal texts once, which then are one text."""
    known: dict[str, Any] = {}
    changed = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        if not isinstance(value, str):
            changed[place] = change(value)
            continue
        if value not in known:
            known[value] = change(value)
        changed[place] = known[value]
    return changed


def _same(value: Any) -> Any:
    return value


def _sentence(value: Any) -> Any:
    return shorten(visible(value), LONGEST_SENTENCE) if isinstance(value, str) else value


def label_lines(rows: "pd.DataFrame", costs: "pd.DataFrame") -> tuple["pd.DataFrame", "pd.DataFrame", list[str]]:
    """Add the column ``line`` to rows and costs, and list all lines in the order of tables and plots, baselines last.

    A line is named by its arm, and by variant, model and suite where there are several; settings of the variant that
    all arms share are left out. Runs that share all of that and the seed, but not the configuration (``cell``), are
    lines of their own, told apart by the cell. The rows get a column ``baseline`` too.
    """
    import pandas as pd

    rows, costs = with_arms(rows), with_arms(costs)
    shared = shared_settings(rows)

    keys = [*IDENTITY, "cell"]
    rows, costs = (f.reindex(columns=f.columns.union([*keys, "seed"], sort=False)) for f in (rows, costs))
    for frame in (rows, costs):
        frame[keys] = filled(frame[keys])
    labels = [[*map(tuple, frame[keys].to_numpy(dtype=object))] for frame in (rows, costs)]
    distinct = dict.fromkeys(label for of_frame in labels for label in of_frame)
    several = [column == "arm" or len({*values}) > 1 for column, values in zip(IDENTITY, zip(*distinct))]
    cells: dict[Any, set[str]] = {}
    for (*identity, cell), seed in zip(chain(*labels), chain(rows["seed"], costs["seed"])):
        cells.setdefault((*identity, seed), set()).add(cell)
    ambiguous = {run[:-1] for run, of_run in cells.items() if len(of_run) > 1}
    lines = {}
    for arm, variant, *others, cell in distinct:
        own = ", ".join(own_settings(variant, shared))
        parts = [part for part, shown in zip([arm, own, *others], several) if shown and part]
        parts += [f"cell {cell[:8]}"] if (arm, variant, *others) in ambiguous else []
        lines[arm, variant, *others, cell] = " · ".join(" ".join(part.split()) for part in parts)
    rows, costs = (
        frame.reset_index(drop=True).assign(line=pd.Series([lines[label] for label in of_frame], dtype=object))
        for frame, of_frame in zip((rows, costs), labels)
    )
    rows["baseline"] = rows["role"] == "baseline" if "role" in rows else False
    baselines = set(rows.loc[rows["baseline"], "line"])
    return rows, costs, [*natural({*lines.values()} - baselines), *natural(baselines)]


def filled(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Write the values of some columns as texts, empty where there is none.

    They stay objects: pandas would make a new text each time that one of its own kind is read.
    """
    return frame.astype(object).fillna("").map(str).astype(object)


def with_arms(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Name the arm of rows that have none, encoders without training among them, by their method."""
    if "method" not in frame:
        return frame
    return frame.assign(arm=frame["arm"].fillna(frame["method"]) if "arm" in frame else frame["method"])


def shared_settings(rows: "pd.DataFrame") -> list[str]:
    """List the settings that the command line gave to every arm, as ``name=value``; none where an arm has none."""
    arms = rows[rows["role"] != "baseline"] if "role" in rows else rows
    return common_settings(arms["variant"].fillna("").unique())


def common_settings(variants: Iterable[str]) -> list[str]:
    """List the settings that all variants have."""
    settings = [settings_of(str(variant)) for variant in variants]
    return [setting for setting in settings[0] if all(setting in each for each in settings)] if settings else []


def own_settings(variant: str, shared: Container[str]) -> list[str]:
    """List the settings of a variant that are not ``shared``."""
    return [setting for setting in settings_of(variant) if setting not in shared]


def set_options(variant: str, arm: str) -> list[str]:
    """Write a variant as options of the command line, without its pretraining sets, which have an option of their own.

    arm: the one whose options stand in its variant without its name; empty: these are left out.
    """
    words = []
    for setting in settings_of(variant):
        name = setting.partition("=")[0]
        if "." in name and not name.startswith("stages."):
            words += ["--set", setting]
        elif arm and name != "pretraining":
            words += ["--set", f"{arm}.{setting}"]
    return words


def settings_of(variant: str) -> list[str]:
    """Split a variant into its settings, ``name=value`` each. A value may hold commas, as a list does."""
    return [setting for setting in re.split(r", (?=[\w.-]+=)", variant) if setting]


def natural(names: Iterable[str]) -> list[str]:
    """Sort names with numbers as numbers: ``2_shot`` before ``16_shot``, 0.85 before 0.9."""
    return sorted(names, key=lambda name: (re.sub(r"\d+(\.\d+)?", lambda x: f"{float(x[0]):030.10f}", name), name))


def columns_of(scores: "pd.DataFrame") -> list[tuple[str, str]]:
    """List dataset and metric of each column: one per dataset, or several where runs disagree in its primary metric."""
    keys = set(zip(scores["dataset"], scores["metric"]))
    datasets, metrics = natural({dataset for dataset, _ in keys}), natural({metric for _, metric in keys})
    return [(dataset, metric) for dataset in datasets for metric in metrics if (dataset, metric) in keys]


def notes_of(rows: "pd.DataFrame", notes: NotesOf) -> "list[Notes]":
    """List the notes of each row's part of the evaluation; empty ones where no evaluation is named."""
    if "evaluation" not in rows:
        return [{}] * len(rows)
    parts = zip(*(map(str, rows[name].to_numpy(dtype=object)) for name in ("cell", "evaluation", "part")))
    return [notes(cell, evaluation).get(part, {}) for cell, evaluation, part in parts]


def with_notes(rows: "pd.DataFrame", notes: NotesOf) -> "Iterator[tuple[Any, Notes]]":
    """Iterate over the rows, each with the notes of its part of the evaluation; none where no evaluation is named."""
    for row in each_row(rows) if "evaluation" in rows else ():
        yield row, notes(str(row.cell), str(row.evaluation)).get(str(row.part), {})


def measurements(rows: "pd.DataFrame", notes: NotesOf) -> "Iterator[tuple[Any, Notes]]":
    """Iterate as with_notes() does, over one row of each evaluation and part."""
    if "evaluation" in rows:
        parts = zip(rows["cell"], rows["evaluation"], rows["part"])
        first = {part: place for place, part in reversed([*enumerate(parts)])}
        yield from with_notes(rows.iloc[sorted(first.values())], notes)
