"""Names from data show as text in the terminal, Markdown, LaTeX, plots and CSV files, whatever they hold."""

import csv
import io
import re
import tempfile
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from benchmark.common.text import LONGEST_NAME, Terminal, display_name, shorten, to_csv, visible
from benchmark.report.latex import escape_latex
from benchmark.report.page import Page
from benchmark.report.render import Answer, Cell, Sentence, Table, escape
from benchmark.report.sections import write_report
from tests.report.fakes import synthetic

HOSTILE = [
    "<script>alert(1)</script>",
    "</text><image href='http://evil.example/x.png'/>",
    "\x1b]0;title\x07\x1b[31mred\x1b[0m\x9b2J",
    "![x](http://evil.example/x.png) [y](javascript:alert(1)) **bold** _em_ `code` | cell",
    "# heading",
    "- item",
    "1. item",
    "===",
    "---",
    "+",
    "https://evil.example www.evil.example",
    '=HYPERLINK("http://evil.example","x")',
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1+1",
    "\r=1+1",
    "'=1+1",
    "$\\frac{a$ \\input{/etc/passwd} %x ^^5c",
    "\u202eevil\u2066 \u200f\u2028\ufeff",
    "\ud800 \ufffe \x00",
    "مرحبا שלום 胸部 x\u0301\u0302",
    "long " * 20_000,
    "a" * 100_000,
    "&lt;b&gt; &#60;",
    "&amp;",
    "[red]markup[/red] :smile:",
]
TEXTS = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(max_size=40),
    st.text(
        st.sampled_from("\x00\x1b\x7f\x9b\t\n\r\u202e\u2066\u2028\ud800=+-@'\"<>&|*_`[]()#!\\$~1. ,;a"), max_size=40
    ),
)
HIDDEN = {"Cc", "Cs", "Zl", "Zp"}
DIRECTIONS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def assert_shows(text: str) -> None:
    """Assert that nothing in a text steers a terminal or the direction of writing; lines may end."""
    bad = {x for x in text if (unicodedata.category(x) in HIDDEN and x not in "\n\t") or x in DIRECTIONS}
    assert not bad, bad


def one_line(text: str) -> str:
    return " ".join(visible(text).split())


def html_of(markdown: str) -> set[str]:
    """The HTML in Markdown, outside code."""
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    inside = [child for token in tokens for child in token.children or []]
    return {token.content for token in [*tokens, *inside] if token.type.startswith("html")}


def page(folder: Path) -> Page:
    return Page(folder, Console(file=io.StringIO(), width=80, color_system=None), details=True)


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_markdown_shows_a_text_as_it_is(text: str) -> None:
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    (opening, inline, closing, *others) = parser.parse(f"{escape(text)}\n") or (None, None, None)
    if opening is None:
        assert not one_line(text)
        return
    assert not others
    assert (opening.type, closing.type) == ("paragraph_open", "paragraph_close")
    assert {child.type for child in inline.children} <= {"text", "text_special"}
    assert "".join(child.content for child in inline.children) == one_line(text)
    assert not re.search(r"https?://|www\.", escape(text))


@settings(max_examples=25, deadline=None)
@given(TEXTS, st.booleans())
def test_tables_show_names_in_the_terminal_and_in_markdown(text: str, best: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        written = page(Path(folder))
        cells = [Cell(text, under=text, best=best)]
        written.add(
            [
                Table(text, [(text, text)], [(text, cells)], [(text, cells)], text),
                Sentence(text, command=text),
                Answer(text, [text]),
            ]
        )
        markdown = written.write()[0].read_text(encoding="utf-8")
    assert_shows(markdown)
    assert_shows(written.console.file.getvalue())  # type: ignore[attr-defined]
    assert html_of(markdown) <= {"<br>", "<sub>", "</sub>"}


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_latex_has_no_command_of_the_text(text: str) -> None:
    set_ = escape_latex(text)
    assert_shows(set_)
    commands = re.findall(r"\\[a-zA-Z]+|\\.", set_)
    allowed = r"\\(text\w+|ldots|S|copyright|[&%$#_])|\\[a-zA-Z]+"
    assert all(re.fullmatch(allowed, command) for command in commands)
    assert not re.search(r"\\(input|frac|write|include|def|catcode)", set_)
    assert not re.search(r"(?<!\\)[%&#_]", set_)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(TEXTS, st.floats(allow_nan=False), st.none()), min_size=1, max_size=4))
def test_csv_files_hold_no_formulas(values: list[object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        written = page(Path(folder))
        written.add_data("x.csv", pd.DataFrame({"name": pd.Series(values, dtype=object), "value": -0.5}))
        raw = (Path(folder) / "x.csv").read_bytes().decode()
    rows = list(csv.DictReader(io.StringIO(raw, newline="")))
    assert [row["value"] for row in rows] == ["-0.5"] * len(values)
    for row, value in zip(rows, values, strict=True):
        name = row["name"]
        assert_shows(name)
        if not isinstance(value, str):
            assert name == ("" if value is None else repr(value))
            continue
        if not re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?%?", name, re.IGNORECASE):
            assert name[:1] not in list("=+-@\t\r＝＋－＠")
        assert name in (visible(value), "'" + visible(value))
        assert name == to_csv(value)


@given(TEXTS, TEXTS)
def test_apostrophes_can_be_taken_away(one: str, other: str) -> None:
    assert (to_csv(one) == to_csv(other)) == (visible(one) == visible(other)) or "\\" in one + other


@given(TEXTS, TEXTS, st.integers(min_value=12, max_value=200))
def test_long_names_keep_their_ends_and_stay_apart(one: str, other: str, width: int) -> None:
    assert len(shorten(one, width)) <= max(width, 12)
    if len(one) <= width:
        assert shorten(one, width) == one
    else:
        assert shorten(one, width)[:2] == one[:2]
        assert shorten(one, width)[-2:] == one[-2:]
    if one != other:
        assert shorten(one, width) != shorten(other, width)
    assert_shows(display_name(one))
    assert len(display_name(one)) <= LONGEST_NAME


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_consoles_show_what_they_are_given(text: str) -> None:
    file = io.StringIO()
    terminal = Terminal(file=file, width=60, force_terminal=True, color_system="truecolor")
    terminal.print(text, markup=False, highlight=False, style="red")
    assert_shows(re.sub(r"\x1b\[[\d;]*m", "", file.getvalue()).replace("\r\n", "\n"))
    assert not re.search(r"\x1b(?!\[(31|0)m)", file.getvalue())


@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_report_on_hostile_names(tmp_path: Path) -> None:
    rows, costs = synthetic(2, 3, seeds=1)
    rows = rows[rows["task"].isin(["vqa", "zero_shot_classification"])]
    names = {
        "phantom_chest": HOSTILE[0],
        "phantom_mammo": "=1+1\x1b[31m",
        "phantom_histology": "\u202e" + "x" * 100_000,
    }
    methods = {"clip": "$\\alpha$ <b>", "msd": "@msd\x1b[2J" + "y " * 50_000}
    rows = rows.assign(dataset=rows["dataset"].map(names), method=rows["method"].map(methods), evaluation="e")
    costs = costs.assign(method=costs["method"].map(methods))
    classes = {"<img src=x onerror=1>": 0.5, "z" * 100_000: 0.25, "=2": None}
    notes = {"": {"recall": classes, "support": dict.fromkeys(classes, 3), "absent": [HOSTILE[2]]}}
    terminal = Console(width=80, file=io.StringIO())
    files = write_report(rows, costs, tmp_path, terminal, notes=lambda *_: notes, latex=True)
    assert_shows(terminal.file.getvalue())
    assert len(terminal.file.getvalue()) < 100_000
    for file in files:
        if file.suffix in (".md", ".tex", ".bib", ".svg"):
            text = file.read_text(encoding="utf-8")
            assert_shows(text)
        if file.suffix == ".md":
            assert html_of(text) <= {"<br>", "<sub>", "</sub>"}
        if file.suffix == ".svg":
            assert not re.search(r"<(script|img|b)\b", text)
            assert "x" * 200 not in ElementTree.parse(file).getroot().itertext()
    results = pd.read_csv(tmp_path / "results.csv", keep_default_na=False)
    assert set(results["dataset"]) == {HOSTILE[0], "'=1+1\\x1b[31m", "\\u202e" + "x" * 100_000}
    classes_csv = pd.read_csv(tmp_path / "classes.csv", keep_default_na=False)
    assert set(classes_csv["class"]) == {"<img src=x onerror=1>", "z" * 100_000, "'=2"}
    assert "x" * 200 not in files[0].read_text(encoding="utf-8")
