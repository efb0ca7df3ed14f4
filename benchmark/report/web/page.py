"""The page index.html: every chapter's tables, charts and panels in one file that needs no network."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmark.common.errors import BenchError
from benchmark.report.render import PLOTS, Answer, Cell, Chart, Panel, Part, Plot, Sentence, Table, anchor, break_points
from benchmark.store.cache import cache_root, remember, remembered

SHADES = 6
"""The number of shades of a column's heat, from lightest to darkest."""


@dataclass(frozen=True)
class Chapter:
    """A chapter of the report.

    name: its anchor on the page. opened: whether the page shows it unfolded at first. only_here: whether report.md and
    the terminal lack it.
    """

    name: str
    title: str
    parts: Sequence[Part]
    opened: bool = False
    only_here: bool = False

    def folds(self, index: int) -> bool:
        """Return whether the page shows a part's title alone until it is opened: the second table, and later ones."""
        return not self.opened and any(isinstance(part, Table | Panel) for part in self.parts[:index])


class WebPage:
    """Collects chapters, and writes them into one HTML file.

    Charts and panels are drawn by a script when their chapter is opened; tables and texts need no script. Every text
    is escaped by the template engine, and data reaches the script as JSON that cannot end its element.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.chapters: list[Chapter] = []

    def add(self, chapter: Chapter) -> None:
        """Add a chapter; one without a part that the page shows is left out."""
        shown = [part for part in chapter.parts if not isinstance(part, Table | Plot) or part.on_page]
        if shown:
            self.chapters.append(replace(chapter, parts=shown))

    def write(self, path: Path, how_to_read: str) -> Path:
        """Write the page beside the plots, which are saved. how_to_read: the explanations at its end, in Markdown."""
        from markdown_it import MarkdownIt
        from markupsafe import Markup

        parts = [part for chapter in self.chapters for part in chapter.parts]
        charts = {part.name: part.spec for part in parts if isinstance(part, Chart)}
        panels = {part.name: part.data for part in parts if isinstance(part, Panel) and part.data is not None}
        scripts = {part.template for part in parts if isinstance(part, Panel)}
        template = environment().get_template("index.html.j2")
        text = template.render(
            title=self.title,
            chapters=self.chapters,
            plots=path.parent / PLOTS,
            data=embedded({"charts": charts, "panels": panels}),
            vega=_vega() if charts else "",
            script=_source("page.js"),
            panel_scripts=[_source(f"{name}.js") for name in sorted(scripts) if (TEMPLATES / f"{name}.js").is_file()],
            style=_source("page.css"),
            how_to_read=Markup(MarkdownIt().render(how_to_read)),
        )
        path.write_text(text, encoding="utf-8")
        return path


TEMPLATES = Path(__file__).parent / "templates"


@cache
def environment() -> Any:
    """Return the template engine: it escapes every value, and fails on an unknown one."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    engine = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters.update(anchor=anchor, breakable=breakable, heat=heat, sort_key=sort_key, svg=svg)
    engine.tests.update({kind.__name__.lower(): _is(kind) for kind in (Table, Plot, Chart, Panel, Sentence, Answer)})
    return engine


def _is(kind: type) -> Any:
    return lambda part: isinstance(part, kind)


def _source(name: str) -> Any:
    """Read a style sheet or a script of the page, which are written as they are."""
    from markupsafe import Markup

    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


@cache
def _vega() -> Any:
    """Return Vega, Vega-Lite and vega-embed as one script; the cache keeps it, as two seconds go into bundling it."""
    from importlib.metadata import version

    import vl_convert
    from markupsafe import Markup

    path = cache_root() / "scripts" / f"vega-{version('vl-convert-python')}.json"
    script = remembered(path)
    if script is None:
        script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
        with suppress(BenchError):
            remember(path, script)
    # A text within the script must not end its element.
    return Markup(script.replace("</script", r"<\/script"))


def embedded(data: Any) -> Any:
    """Write data as JSON for a script element: no text in it can end the element, and NaN is null."""
    from markupsafe import Markup

    write = partial(json.dumps, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        text = write(data)
    except ValueError:
        text = write(_finite(data))
    return Markup(re.sub("[<>&\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text))


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def breakable(text: str) -> Any:
    """Escape a name, and let its lines break after separators."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(piece) for piece in break_points(text))


def svg(plot: Plot, folder: Path) -> Any:
    """Read a plot that was saved for the page, where its identifiers must not meet those of other plots."""
    from markupsafe import Markup

    text = (folder / f"{plot.file}.svg").read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    names = dict.fromkeys(re.findall(r'\bid="([^"]+)"', text))
    prefix = anchor(plot.name)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'(href="#|url\(#)([^")]+)', lambda m: f"{m[1]}{prefix}-{m[2]}" if m[2] in names else m[0], text)
    return Markup(text)


_NUMBER = re.compile(r"[−+-]?\d[\d,]*(\.\d+)?")
_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d)")


def number_of(text: str) -> float:
    """Read the number that a cell begins with, with its sign; a duration h:mm:ss in seconds; NaN without one.

    >>> number_of("77.3†"), number_of("−2.5"), number_of("1:01:01"), number_of("—")
    (77.3, -2.5, 3661.0, nan)
    """
    if clock := _CLOCK.match(text):
        hours, minutes, seconds = map(int, clock.groups())
        return float(3600 * hours + 60 * minutes + seconds)
    match = _NUMBER.match(text)
    return float(match[0].replace(",", "").replace("−", "-")) if match else math.nan


def sort_key(cell: Cell) -> str:
    """Write what a column is sorted by: the cell's number, or its text."""
    number = number_of(cell.text)
    return cell.text if math.isnan(number) else f"{number:.6g}"


def heat(table: Table) -> list[list[int]]:
    """Shade the cells of the rows, column by column: 0 (none) to ``SHADES``, from the lowest number to the highest.

    Columns without two different numbers have no shades, nor has a table that is not ``shaded``.
    """
    if not table.shaded:
        return [[0] * len(table.columns) for _ in table.rows]
    columns = [[number_of(cells[index].text) for _, cells in table.rows] for index in range(len(table.columns))]
    shaded = [_shades(column) for column in columns]
    return [[column[row] for column in shaded] for row in range(len(table.rows))]


def _shades(column: Iterable[float]) -> list[int]:
    values = list(column)
    known = [value for value in values if not math.isnan(value)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    if low == high:
        return [0] * len(values)
    return [0 if math.isnan(each) else 1 + round((SHADES - 1) * (each - low) / (high - low)) for each in values]
