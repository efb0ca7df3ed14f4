"""index.html: what is in it, and what it does in a real browser."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.api import Results
from benchmark.perf.made_results import BASELINES, Kind, make_results
from benchmark.report.comparison import DIFFERENCES, differences, pairwise_differences
from benchmark.report.render import Cell, Table, anchor
from benchmark.report.results import label_lines
from benchmark.report.web.page import SHADES, embedded, heat, number_of, sort_key
from benchmark.report.web.quality import HEIGHT, LABEL_HEIGHT, label_places, on_frontier

from .browsing import Opened, needs_chromium

HOSTILE = "<script>document.title='owned'</script> & \"x\" {{ 7 * 7 }} $a_b$"
ARMS = ["clip", "msd", HOSTILE, "simclr"]
DATASETS = ["chest", "<b>derm</b>", "slake"]
KINDS = {
    "zero_shot": Kind(("accuracy",)),
    "few_shot": Kind(("accuracy@10%",), draws=3),
    "retrieval": Kind(("recall@10",), ("image_to_text", "text_to_image")),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("page")
    return Results(make_results(folder, ARMS, DATASETS, KINDS, seeds=3, groups=40, resamples=200))


@pytest.fixture(scope="module")
def page(results: Results) -> Path:
    written = {path.name: path for path in results.report(reference="clip")}
    return written["index.html"]


@pytest.fixture(scope="module")
def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_the_page_needs_no_other_file(text: str) -> None:
    outside = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert not re.findall(r"<(?:link|script|img|iframe)[^>]+(?:src|href)=\"(?!data:)", outside)
    assert "@import" not in outside
    assert not re.findall(r"url\((?!#)", outside)


def test_texts_of_the_results_are_escaped(text: str) -> None:
    assert HOSTILE not in text
    assert "<b>derm</b>" not in text
    assert "&lt;b&gt;derm&lt;/b&gt;" in text
    assert "{{ 7 * 7 }}" in text
    assert text.count("</script>") == text.count("<script")


def test_the_data_of_the_page_are_json(text: str) -> None:
    data = json.loads(re.search(r'<script type="application/json" id="report-data">(.*?)</script>', text, re.S)[1])
    assert "quality-against-cost" in data["charts"]
    assert "differences-zero_shot" in data["panels"]


def test_anchors_on_the_page_exist_once(text: str) -> None:
    outside = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    names = re.findall(r'\bid="([^"]+)"', outside)
    assert len(names) == len(set(names))
    assert set(re.findall(r'href="#([^"]+)"', outside)) <= set(names)


def test_data_cannot_end_their_element() -> None:
    values = {"a": "</script><!-- \u2028 &", "b": [math.nan, math.inf, 1.5], "c": None}
    written = str(embedded(values))
    assert not set("<>&\u2028") & set(written)
    assert json.loads(written) == {"a": "</script><!-- \u2028 &", "b": [None, None, 1.5], "c": None}


def test_cells_sort_by_their_numbers() -> None:
    texts = ["77.3†", "−2.5", "1:01:01", "1,234", "—", "+3.1", "5 %"]
    expected = [77.3, -2.5, 3661.0, 1234.0, math.nan, 3.1, 5.0]
    np.testing.assert_array_equal([number_of(text) for text in texts], expected)
    assert [sort_key(Cell(text)) for text in ("−2.5", "—", "clip")] == ["-2.5", "—", "clip"]


def test_heat_goes_from_the_lowest_to_the_highest() -> None:
    rows = [(name, [Cell(text), Cell("7")]) for name, text in (("a", "10.0"), ("b", "20.0"), ("c", "16.0"), ("d", "—"))]
    table = Table("t", [("x", ""), ("y", "")], rows, [], "", shaded=True)
    assert heat(table) == [[1, 0], [SHADES, 0], [4, 0], [0, 0]]
    table.shaded = False
    assert heat(table) == [[0, 0]] * 4


def test_the_frontier_has_what_nothing_beats() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        costs, scores = rng.integers(1, 6, size=(2, 12)).astype(float)
        beaten = [
            any(c <= cost and s >= score and (c < cost or s > score) for c, s in zip(costs, scores))
            for cost, score in zip(costs, scores)
        ]
        assert on_frontier(costs, scores) == [not each for each in beaten]


@pytest.mark.parametrize("count", [1, 2, 14])
@pytest.mark.parametrize("spread", [0.0, 0.5, 30.0])
def test_labels_do_not_cover_each_other(count: int, spread: float) -> None:
    values = 50 + spread * np.random.default_rng(count).random(count)
    bottom, top = values.min() - 3.0, values.max() + 3.0
    places = np.sort(label_places(values, bottom, top))
    step = LABEL_HEIGHT * (top - bottom) / HEIGHT
    assert (np.diff(places) >= step - 1e-9).all()
    assert places[0] >= bottom
    assert places[-1] <= top
    assert np.array_equal(
        np.argsort(label_places(values, bottom, top), kind="stable"), np.argsort(values, kind="stable")
    )


def test_labels_with_room_stand_at_their_values() -> None:
    np.testing.assert_allclose(label_places(np.array([50.0, 60.0, 70.0]), 40.0, 80.0), [50.0, 60.0, 70.0])


def test_anchors_are_plain() -> None:
    assert anchor("few_shot: accuracy, in %") == "few-shot-accuracy-in"
    assert anchor("中文") == "part"


def test_pairwise_differences_are_those_to_each_reference(results: Results) -> None:
    rows, _, lines = label_lines(results.rows(), results.costs())
    methods = [line for line in lines if line not in BASELINES]
    together = pairwise_differences(rows, methods, results.store.resamples)
    assert set(together) == set(methods)
    for reference, frame in together.items():
        against = {line: reference for line in methods if line != reference}
        alone = differences(rows, against, results.store.resamples, picked=True)
        keys = ["task", "dataset", "metric", "line"]
        left, right = (each.set_index(keys).sort_index().reset_index() for each in (frame, alone))
        numbers = ["value", "low", "high", "p", "adjusted"]
        np.testing.assert_allclose(left[numbers].astype(float), right[numbers].astype(float), rtol=1e-7, atol=1e-9)
        others = [name for name in DIFFERENCES if name not in numbers]
        assert left[others].equals(right[others])


@needs_chromium
def test_everything_is_drawn_without_network_and_errors(browser: Any, page: Path) -> None:
    opened = Opened(browser, page)
    opened.open_all()
    assert opened.said == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert opened.window.title().startswith("Report")


@needs_chromium
def test_charts_of_closed_chapters_are_not_drawn(browser: Any, page: Path) -> None:
    opened = Opened(browser, page)
    opened.window.wait_for_selector("html[data-ready=yes]")
    opened.window.wait_for_selector("[data-chart='quality-against-cost'] svg")
    closed = "[...document.querySelectorAll('#task-zero-shot [data-chart]')]"
    assert opened.window.evaluate(f"{closed}.length") > 0
    assert opened.window.evaluate(f"{closed}.every((each) => !each.querySelector('svg'))")
    opened.window.click("nav a[href='#task-zero-shot']")
    opened.window.wait_for_selector("#task-zero-shot [data-chart] svg")


@needs_chromium
def test_a_column_sorts_both_ways_and_back(browser: Any, page: Path) -> None:
    opened = Opened(browser, page)
    opened.window.wait_for_selector("html[data-ready=yes]")
    column = (
        "[...document.querySelectorAll('#answer table')[0].tBodies[0].rows].map((row) => row.cells[1].dataset.sort)"
    )
    original = opened.window.evaluate(column)
    header = opened.window.locator("#answer table").first.locator("thead th").nth(1)
    button = header.locator("button")
    button.focus()
    opened.window.keyboard.press("Enter")
    assert opened.window.evaluate(column) == sorted(original, key=float, reverse=True)
    assert header.get_attribute("aria-sort") == "descending"
    opened.window.keyboard.press("Enter")
    assert opened.window.evaluate(column) == sorted(original, key=float)
    opened.window.keyboard.press("Enter")
    assert opened.window.evaluate(column) == original


@needs_chromium
def test_the_reader_chooses_the_reference(browser: Any, page: Path, results: Results) -> None:
    opened = Opened(browser, page)
    opened.window.wait_for_selector("html[data-ready=yes]")
    opened.window.click("nav a[href='#task-zero-shot']")
    panel = opened.window.locator("[data-panel='differences-zero_shot']")
    panel.locator("select.reference").wait_for()
    panel.locator("select.reference").select_option("msd")
    table = panel.locator("table tbody").first
    shown = {row.split("\n")[0].split("\t")[0]: row for row in table.inner_text().split("\n") if row.strip()}
    compared = results.compare("simclr", "msd")
    expected = compared[(compared["task"] == "zero_shot") & (compared["dataset"] == "chest")]["value"].item()
    assert "msd" not in shown
    cell = table.locator("tr", has=opened.window.locator("th", has_text="simclr")).locator("td").first
    # Columns are in the order of the names: <b>derm</b> comes first.
    cells = table.locator("tr", has=opened.window.locator("th", has_text="simclr")).locator("td")
    assert cell.count() == 1
    assert f"{100 * expected:+.1f}".replace("-", "−") in [each.split("\n")[0] for each in cells.all_inner_texts()]
    panel.locator(".forest svg").wait_for()
    assert opened.said == []


@needs_chromium
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_accessible_and_fits(browser: Any, page: Path, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    opened = Opened(browser, page, width)
    opened.open_all()
    assert opened.window.evaluate("document.documentElement.scrollWidth") <= width
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
    violations = Axe().run(opened.window, options=rules).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in violations] == []


@needs_chromium
def test_tables_need_no_script(browser: Any, page: Path) -> None:
    opened = Opened(browser, page, java_script_enabled=False)
    assert opened.window.locator("#answer table").first.is_visible()
    opened.window.locator("#task-zero-shot > summary").click()
    assert opened.window.locator("#task-zero-shot table").first.is_visible()


@needs_chromium
def test_all_chapters_are_printed(browser: Any, page: Path, tmp_path: Path) -> None:
    opened = Opened(browser, page)
    opened.window.wait_for_selector("html[data-ready=yes]")
    opened.window.emulate_media(media="print")
    opened.window.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.window.locator("details:not([open])").count() == 0
    opened.window.pdf(path=tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_the_page_says_what_the_runs_warned_of(tmp_path: Path) -> None:
    from benchmark.report.live import MOST_WARNINGS, remarks
    from benchmark.store.live import RunRecord

    def record(**what: Any) -> RunRecord:
        named = {"id": "1", "suite": "demo", "model": "tiny", "device": "cpu", "host": "x", "process": 1}
        return RunRecord(**named, started=0.0, updated=1.0, **what)

    many = [f"caution {number}" for number in range(MOST_WARNINGS)]
    records = [record(warnings=["few steps"], left_out=["secret text"]), record(warnings=["few steps", *many])]
    texts = [sentence.text for sentence in remarks(records)]
    assert texts[0] == "Warning: few steps"
    assert len(texts) == MOST_WARNINGS + 2
    assert texts[-2].startswith("1 more warning")
    assert texts[-1].startswith("Left out: 1 dataset")
    assert "secret" not in " ".join(texts)
