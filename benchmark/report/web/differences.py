"""Differences between lines as a panel of the page: the reader chooses the line that the others are compared with."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from benchmark.report.comparison import REFERENCE, difference_caption, difference_table, pairwise_differences
from benchmark.report.render import Panel, of_level
from benchmark.report.results import Results, columns_of, each_row

if TYPE_CHECKING:
    import pandas as pd


def differences_to_chosen(results: Results) -> Iterator[Panel]:
    """Show the differences of a kind of task to the report's reference, and to any other line when it is chosen."""
    reference, task = results.reference, results.task
    compared = results.compared[REFERENCE]
    compared = compared[compared["task"] == task]
    if reference is None or compared["line"].nunique() < 2:
        return
    against = pairwise_differences(results.rows, results.methods, results.resamples)
    # The numbers of the other tables and files, whose correction may be for fewer tests.
    against[reference] = compared
    columns = columns_of(compared)
    metrics = compared["metric"].nunique()
    names = [f"{dataset}, {metric}" if metrics > 1 else dataset for dataset, metric in columns]
    verdicts = list(dict.fromkeys(verdict for frame in against.values() for verdict in frame["verdict"]))
    data = {
        "reference": reference,
        "columns": names,
        "verdicts": verdicts,
        "order": [line for line in results.methods if line in against],
        "against": {line: _numbers(frame, columns, verdicts) for line, frame in against.items()},
        "captions": {
            line: difference_caption(frame, picked=line != reference or not results.chosen)
            for line, frame in against.items()
        },
    }
    values = {
        "table": difference_table(compared, task, reference, results.methods, picked=not results.chosen),
        "reference": reference,
        "lines": data["order"],
    }
    title = f"{task}: differences, in points{of_level(compared['seeds'].max())}"
    yield Panel(f"differences-{task}", title, "differences", values, data)


def _numbers(frame: "pd.DataFrame", columns: list[tuple[str, str]], verdicts: list[str]) -> dict[str, Any]:
    """Lay out differences for the script: by line, for each column value, low and high in points, and the verdict."""
    place = {column: number for number, column in enumerate(columns)}
    lines: dict[str, list[Any]] = {}
    for row in each_row(frame):
        key = (row.dataset, row.metric)
        if key in place:
            numbers = [round(100 * number, 2) for number in (row.value, row.low, row.high)]
            lines.setdefault(str(row.line), [None] * len(columns))[place[key]] = [*numbers, verdicts.index(row.verdict)]
    return lines
