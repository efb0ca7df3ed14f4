"""Render tables for the terminal and for Markdown, and format their numbers."""

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.common.text import LONGEST_NAME, shorten, visible

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType
    from rich.table import Table as Grid

MISSING = "—"
ALL_TASKS = "all-tasks"
"""The anchor of ranks, costs and scenarios on the page."""
LONGEST_LABEL = 4 * LONGEST_NAME
"""The most characters of the label of a row: a line is named by its arm, variant, model and suite."""
PLOTS = "plots"
"""The folder of the plots, beside the page."""
LONGEST_FILE_NAME = 60
"""The most characters of a plot's name: a file name has at most 255 bytes."""
THESE_WEIGHTS, THIS_METHOD = "these weights", "this method"
"""The levels of a comparison. With one seed: would these weights do so on other patients? With several: would this
method, trained from other seeds too?"""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    under: small text below it, of any number of lines. best: whether the text is bold. link: the anchor on the page of
    what it rests on.
    """

    text: str = MISSING
    under: str = ""
    best: bool = False
    link: str = ""


@dataclass
class Table:
    """A table of the report.

    columns: name and unit. rows: a label, and one cell per column. footer: likewise, what the rows are compared with.
    page_only: whether the terminal leaves it out. main: whether it is shown there without --details too. shaded:
    whether index.html shades the rows by their numbers. on_page: whether it shows the table at all; it does not where
    a panel shows the same.
    """

    title: str
    columns: list[tuple[str, str]]
    rows: list[tuple[str, list[Cell]]]
    footer: list[tuple[str, list[Cell]]]
    caption: str
    page_only: bool = False
    main: bool = False
    shaded: bool = False
    on_page: bool = True


@dataclass(frozen=True)
class Plot:
    """A figure of the report.

    name: what its files are called after. title: the text that replaces the image. on_page: whether index.html shows
    it; it does not where an interactive chart shows the same.
    """

    figure: "Figure"
    name: str
    title: str
    on_page: bool = True

    @property
    def file(self) -> str:
        """The name of its files, without an ending."""
        return shorten(re.sub(r"[^\w-]+", "-", self.name), LONGEST_FILE_NAME)


@dataclass(frozen=True)
class Chart:
    """An interactive chart of the page. name: unique on it. spec: in Vega-Lite, with its data. caption: below it."""

    name: str
    title: str
    spec: dict[str, Any]
    caption: str = ""


@dataclass(frozen=True)
class Panel:
    """A piece of the page with a template of its own, ``web/templates/TEMPLATE.html.j2``.

    values: the template's variables, escaped by it. data: read by the page's script, as JSON.
    """

    name: str
    title: str
    template: str
    values: dict[str, Any]
    data: Any = None


@dataclass(frozen=True)
class Sentence:
    """A remark next to the tables. page_only, main: as of a table. command: one to copy, below it."""

    text: str
    page_only: bool = False
    command: str = ""
    main: bool = False


@dataclass(frozen=True)
class Answer:
    """What the tests say, at the top of the report: what is compared with what, and the findings, a sentence each."""

    text: str
    findings: list[str]


Part = Table | Plot | Chart | Panel | Sentence | Answer


def readable(table: Table) -> Table:
    """Copy a table with control characters of its texts as escapes, and without the middle of names that are long."""

    def name(text: str) -> str:
        return shorten(visible(text), LONGEST_LABEL)

    def rows(of_part: list[tuple[str, list[Cell]]]) -> list[tuple[str, list[Cell]]]:
        return [
            (name(label), [replace(cell, text=name(cell.text), under=visible(cell.under)) for cell in cells])
            for label, cells in of_part
        ]

    return replace(
        table,
        title=name(table.title),
        columns=[(name(column), name(unit)) for column, unit in table.columns],
        rows=rows(table.rows),
        footer=rows(table.footer),
        caption=visible(table.caption),
    )


def to_terminal(table: Table, width: int) -> "Iterator[RenderableType]":
    """Render the table for a terminal of ``width`` columns, in blocks of columns where they do not fit side by side.

    Names are broken at their separators; nothing is cut.
    """
    from rich.text import Text

    table = readable(table)
    yield Text(table.title, style="bold")
    labels = [label for label, _ in [*table.rows, *table.footer]]
    first = min(max(map(len, labels)), max(14, width // 4))
    widths = [column_width(table, index) for index in range(len(table.columns))]
    for number in range(1, len(widths) + 1):
        blocks = np.array_split(np.arange(len(widths)), number)
        if all(first + sum(widths[index] + 2 for index in block) <= width for block in blocks):
            break
    for block in blocks:
        yield grid(table, block.tolist(), first, widths)
        yield Text("")
    yield Text(table.caption + "\n", style="dim")


def column_width(table: Table, index: int) -> int:
    """Return the width in characters that a column needs, at most 18: longer names are wrapped."""
    cells = [cells[index] for _, cells in [*table.rows, *table.footer]]
    header = [piece for text in table.columns[index] for piece in (break_points(text) if len(text) > 9 else [text])]
    texts = [text for cell in cells for text in (cell.text, *cell.under.splitlines())]
    return min(18, max(map(len, [piece.strip() for piece in header] + texts)))


def grid(table: Table, block: Sequence[int], first: int, widths: Sequence[int]) -> "Grid":
    """Render some of the columns. block: their indices. first: the width of the labels. widths: of all columns."""
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    result = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="")
    result.add_column("", width=first, overflow="fold")
    headers = [[wrap(text, widths[index]) if text else [] for text in table.columns[index]] for index in block]
    tallest = max(len(name) + len(unit) for name, unit in headers)
    for index, (name, unit) in zip(block, headers):
        header = Text("\n" * (tallest - len(name) - len(unit)) + "\n".join(name))
        header.append("".join(f"\n{line}" for line in unit), style="dim")
        result.add_column(header, width=widths[index], overflow="fold", justify="right")
    for rows, style in ((table.rows, ""), (table.footer, "dim")):
        for label, cells in rows:
            if rows is table.footer and not any(cells[index].text for index in block):
                continue
            line = [Text("\n".join(wrap(label, first)), style=style)]
            for index in block:
                cell = cells[index]
                text = Text("\n".join(wrap(cell.text, widths[index])), style="bold" if cell.best else style)
                line.append(text.append(f"\n{cell.under}" if cell.under else "", style="not bold dim"))
            result.add_row(*line)
        if table.footer:
            result.add_section()
    return result


def break_points(text: str) -> list[str]:
    """Split a name into the pieces that it may be broken into: after spaces and separators."""
    return re.split(r"(?<=[\s_/=,-])", text)


def wrap(text: str, width: int) -> list[str]:
    """Break a text into lines of at most ``width`` characters.

    It is broken at spaces; at separators where a word is longer than a line; anywhere where a piece is.
    """
    lines = [""]
    for word in re.split(r"(?<=\s)", text):
        for piece in [word] if len(word.rstrip()) <= width else break_points(word):
            if lines[-1] and len((lines[-1] + piece).rstrip()) > width:
                lines.append("")
            lines[-1] += piece
            while len(lines[-1].rstrip()) > width:
                lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return [line.rstrip() for line in lines]


def to_markdown(table: Table) -> str:
    """Render the table as Markdown, with its title as a heading and its caption below."""
    table = readable(table)
    header = ["", *(escape(name) + (f"<br>*{escape(unit)}*" if unit else "") for name, unit in table.columns)]
    lines = [header, ["---", *["---:"] * len(table.columns)]]
    for label, cells in [*table.rows, *table.footer]:
        texts = [f"**{escape(cell.text)}**" if cell.best else escape(cell.text) for cell in cells]
        unders = ["".join(f"<br><sub>{escape(line)}</sub>" for line in cell.under.splitlines()) for cell in cells]
        lines.append([escape(label), *(text + under for text, under in zip(texts, unders))])
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"## {escape(table.title)}\n\n{rows}\n\n{escape(table.caption)}\n"


def escape(text: str) -> str:
    """Write a text so that neither Markdown nor the HTML within it interprets any of it; control characters show."""
    text = re.sub(r"([\\`*_{}\[\]|~#$])", r"\\\1", html.escape(" ".join(visible(text).split()), quote=False))
    # Addresses become links by themselves, and what stands first may begin a list or underline a heading.
    text = re.sub(r"(?i)\b(https?|ftp|mailto|xmpp):|\b(www)\.", lambda x: x[0][:-1] + "\\" + x[0][-1], text)
    return re.sub(
        r"^(?:([-+=])(?=[-=\s]|$)|(\d+)(?=[.)](?:\s|$)))", lambda x: f"\\{x[1]}" if x[1] else f"{x[2]}\\", text
    )


def anchor(text: str) -> str:
    """Write a text as an anchor: letters, digits and dashes.

    >>> anchor("few_shot: accuracy, in percent")
    'few-shot-accuracy-in-percent'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"


def task_anchor(task: str) -> str:
    """Return the anchor of a kind of task on the page."""
    return f"task-{anchor(task)}"


def percent(fraction: float) -> str:
    """Write a fraction in percent with one decimal, and NaN as a dash.

    >>> percent(0.5), percent(-0.025), percent(-0.0001)
    ('50.0', '−2.5', '0.0')
    """
    return MISSING if np.isnan(fraction) else f"{100 * fraction:z.1f}".replace("-", "−")


def interval(low: float, high: float) -> str:
    """Write an interval of fractions in percent; nothing where an end is NaN."""
    if np.isnan(low) or np.isnan(high):
        return ""
    # A dash beside a minus would be read as one.
    between = "–" if low >= 0 else " to "
    return f"{percent(low)}{between}{percent(high)}"


def span(counts: Iterable[int]) -> str:
    """Write counts as ``3``, or as ``1–3`` where they differ."""
    ordered = sorted(counts)
    return "–".join(f"{count:,}" for count in sorted({ordered[0], ordered[-1]}))


def over_seeds(seeds: "pd.Series[int]") -> str:
    """Begin a caption with the numbers of seeds, whose index is the line of each."""
    if seeds.max() == 1:
        return f"One seed, for {THESE_WEIGHTS}"
    alone = list(dict.fromkeys(seeds.index[seeds == 1]))
    lines = f" (one seed, for {THESE_WEIGHTS} alone: {', '.join(alone)})" if alone else ""
    return f"Mean over {span(seeds)} seeds{lines}"


def of_level(seeds: int) -> str:
    """End a title with what its numbers hold for; empty where they count several seeds."""
    return "" if seeds > 1 else f", for {THESE_WEIGHTS}"


def clock(seconds: float) -> str:
    """Write a duration as h:mm:ss.

    >>> clock(42.3), clock(3661)
    ('0:00:42', '1:01:01')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def scaled(*columns: Any) -> tuple[str, list[list[str]]]:
    """Write columns of numbers [n] with one prefix (k, M, G, T: powers of 1000) that suits the smallest of them.

    Returns the prefix and the texts of each column, with the decimals that give the smallest number three digits.
    """
    numbers = np.concatenate(columns)
    smallest = np.log10(min(numbers[numbers > 0], default=1.0))
    power = int(np.clip(smallest // 3, 0, 4))
    decimals = int(np.clip(np.ceil(3 * power + 2 - smallest), 0, 2))
    texts = [[MISSING if np.isnan(x) else f"{x / 1000**power:,.{decimals}f}" for x in column] for column in columns]
    return ["", "k", "M", "G", "T"][power], texts
