import io
import re
import subprocess
import sys

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from rich.console import Console

from benchmark.common.errors import BenchError
from benchmark.report.sections import write_report
from tests.report.fakes import KINDS, synthetic


def console():
    return Console(width=80, file=io.StringIO())


def test_the_whole_report(tmp_path):
    rows, costs = synthetic(2, 2, seeds=2)
    terminal = console()
    files = write_report(rows, costs, tmp_path / "out", terminal)

    names = [f"{name}.{ending}" for name in [*KINDS, "quality-against-cost"] for ending in ("png", "svg")]
    data = ["report.md", "results.csv", "costs.csv", "scores.csv", "differences.csv"]
    assert files == [tmp_path / "out" / name for name in [*data, *(f"plots/{name}" for name in names), "index.html"]]
    assert all(file.stat().st_size > 0 for file in files)
    assert_frame_equal(pd.read_csv(files[1], keep_default_na=False, dtype={"cell": str}), rows, check_dtype=False)
    assert_frame_equal(pd.read_csv(files[2], keep_default_na=False, dtype={"cell": str}), costs, check_dtype=False)

    text = terminal.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    page = files[0].read_text(encoding="utf-8")
    for kind in KINDS:
        assert re.search(rf"^{kind}(: \S+)?, in percent$", text, re.MULTILINE)
        assert f"](plots/{kind}.png)" in page
    assert "cost of pretraining" in text
    assert "## cost of pretraining" in page
    assert "## How to read this" in page
    assert "for 2 tests, one for each pair of lines and dataset, because the reference is the best line" in page


def test_a_report_on_results_alone(tmp_path):
    rows, _ = synthetic(1, 1, seeds=1)
    files = write_report(rows[rows["task"] == "vqa"], pd.DataFrame(), tmp_path, console())
    assert [file.name for file in files] == [
        "report.md",
        "results.csv",
        "costs.csv",
        "scores.csv",
        "vqa.png",
        "vqa.svg",
        "index.html",
    ]


def test_tables_say_where_patients_are_too_few(tmp_path):
    rows, _ = synthetic(1, 1, seeds=1)
    rows = rows[rows["task"] == "vqa"].assign(groups=8, effective_groups=8.0)
    page, *_ = write_report(rows, pd.DataFrame(), tmp_path, console())
    said = "Intervals do not keep what they promise: phantom\\_chest, too few patients (8)."
    assert page.read_text(encoding="utf-8").count(said) == 1


def test_metrics_that_the_notes_define_have_tables_of_their_own(tmp_path):
    rows, costs = synthetic(3, 5, seeds=1)
    rows = rows[rows["task"] == "vqa"].assign(evaluation=rows["dataset"])
    open_ones = rows[~rows["primary"]].assign(metric="accuracy_open", low=0.1, high=0.9, chance=0.25)
    open_ones["value"] = open_ones["method"].map({"clip": 0.5, "msd": 0.75, "siglip": 0.25})
    rows = pd.concat([rows, open_ones])
    said = {"accuracy": "is of all questions", "accuracy_open": "is of the open ones", "accuracy_closed": "is not here"}
    terminal = console()
    page, *_ = write_report(rows, costs, tmp_path, terminal, notes=lambda *_: {"": {"definitions": said}})
    text = terminal.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    main, other = text[text.index("vqa: accuracy, in") :].split("\nvqa: accuracy_open, in percent\n")
    assert "accuracy is of all questions." in " ".join(main.split())
    caption = " ".join(other.split("cost of pretraining")[0].split())
    assert "accuracy_open is of the open ones." in caption
    assert caption.count("10.0–90.0") == 15
    for value in ("50.0", "75.0", "25.0"):
        # Intervals from 10 to 90 lie around chance; the mean has no such mark.
        assert caption.split().count(f"{value}§") == 5
        assert caption.split().count(value) >= 1
    assert "accuracy_closed" not in text
    assert "another, in" not in text
    markdown = page.read_text(encoding="utf-8")
    assert "## vqa: accuracy\\_open, in percent\n" in markdown
    assert markdown.count("**75.0§**") == 5
    assert markdown.count("**75.0**") == 1


def test_lines_left_out_of_the_plot_are_named(tmp_path):
    rows, costs = synthetic(2, 2, seeds=1)
    rows = rows[(rows["task"] == "vqa") & ((rows["method"] == "clip") | (rows["dataset"] == "phantom_chest"))]
    page, *_ = write_report(rows, costs, tmp_path, console())
    assert "Not in the plot because results are missing: msd." in page.read_text(encoding="utf-8")


def test_nothing_to_report_says_what_to_run(tmp_path):
    rows, costs = synthetic(1, 1, seeds=1)
    for nothing in (pd.DataFrame(), rows[~rows["primary"]], rows.assign(value=None)):
        with pytest.raises(BenchError, match="run `bench run"):
            write_report(nothing, costs, tmp_path / "out", console())
    assert not (tmp_path / "out").exists()


def test_importing_the_report_imports_nothing_slow():
    code = "import sys, benchmark.report.sections; print({'pandas', 'matplotlib', 'scipy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
