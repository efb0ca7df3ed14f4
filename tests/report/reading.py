"""Reads what a report shows: the texts of a figure, and the cells of a table in the terminal and in Markdown."""

import io
import itertools
from itertools import pairwise
from typing import Any

from markdown_it import MarkdownIt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console

from benchmark.report.render import Table, to_terminal


def texts(figure: Figure) -> list[tuple[str, Any]]:
    """List the texts that are drawn, and their boxes in pixels."""
    FigureCanvasAgg(figure).draw()
    drawn = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for ax in (ax for ax in figure.axes if ax.axison):
        drawn += [*ax.texts, ax.xaxis.label, ax.yaxis.label, ax._left_title]
        for axis, (low, high) in ((ax.xaxis, sorted(ax.get_xlim())), (ax.yaxis, sorted(ax.get_ylim()))):
            labels = zip(axis.get_majorticklocs(), axis.get_majorticklabels())
            drawn += [label for place, label in labels if low <= place <= high and label.get_visible()]
    return [(text.get_text(), text.get_window_extent()) for text in drawn if text.get_text()]


def assert_legible(figure: Figure) -> None:
    """Assert that no text leaves the page or covers another."""
    drawn = texts(figure)
    page = figure.bbox
    for text, box in drawn:
        assert page.x0 - 1 <= box.x0 <= box.x1 <= page.x1 + 1, text
        assert page.y0 - 1 <= box.y0 <= box.y1 <= page.y1 + 1, text
    for (one, a), (other, b) in itertools.combinations(drawn, 2):
        width = min(a.x1, b.x1) - max(a.x0, b.x0)
        height = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert width <= 1 or height <= 1, f"'{one}' covers '{other}'"


def printed(table: Table, width: int = 80) -> str:
    """Print a table in a terminal of ``width`` columns."""
    file = io.StringIO()
    console = Console(width=width, file=file)
    for part in to_terminal(table, width):
        console.print(part)
    return file.getvalue()


def parsed(markdown: str) -> list[tuple[str, bool]]:
    """List the cells of the tables in Markdown as a reader sees them: text, and whether it is bold."""
    cells = []
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    for opening, inline in pairwise(tokens):
        children = inline.children or []
        if opening.type in ("th_open", "td_open"):
            text = "".join(child.content for child in children if child.type in ("text", "text_special"))
            assert all(c.content in ("<br>", "<sub>", "</sub>") for c in children if c.type == "html_inline")
            cells.append((text, any(child.type == "strong_open" for child in children)))
    return cells
