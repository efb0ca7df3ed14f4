"""Tables for papers: what is bold and underlined, the numbers, and texts that LaTeX would interpret."""

import io
import itertools
import re
import shutil
import subprocess
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmark.common.text import display_name
from benchmark.evaluation.replicates import conclude, estimate
from benchmark.evaluation.statistics import holm
from benchmark.report.comparison import differences, differences_to_best
from benchmark.report.latex import escape_latex, highest, latex_table, second_highest, shown_best, slug, write_latex
from benchmark.report.results import Results, label_lines
from benchmark.report.scores import summarise
from benchmark.report.sections import read_results, write_report
from tests.report.fakes import synthetic
from tests.report.latex_reading import assert_balanced, printed, tabulars
from tests.report.trials import Drawn, trials

HOSTILE = (
    r"a & b % c $x$ #1 _ {x} } ~ ^ \input{/etc/passwd} < > | ` [y] *z − ± † \end{document} \\"
    "\x1b[31m <script>alert(1)</script> \u202e\u6f22 \\"
)


def results_of(rows: pd.DataFrame, drawn: Drawn, costs: pd.DataFrame | None = None) -> Results:
    read = read_results(
        rows, pd.DataFrame() if costs is None else costs, lambda *_: {}, lambda *key: drawn.get(key), None
    )
    assert read is not None
    return read


def caption_of(text: str) -> str:
    caption = re.search(r"^\\caption\[.*?[^{]\]\{(.*)\}$", text, re.MULTILINE)
    assert caption
    return printed(caption[1])


def bold(text: str) -> list[tuple[str, int]]:
    """The name of the line and the number of the column of each bold cell."""
    return [
        (printed(row[0]), number)
        for row in itertools.chain(*tabulars(text))
        for number, cell in enumerate(row)
        if "\\textbf" in cell
    ]


def test_only_what_is_shown_to_be_the_best_is_bold() -> None:
    clear, drawn = trials({"a": 0.7, "b": 0.5, "c": 0.4}, spread=0.005, noise=0.02, datasets=("d", "e"))
    text = latex_table(results_of(clear, drawn).of_task("retrieval"))
    assert bold(text) == [("a", 1), ("a", 2)]
    assert "Bold: the highest of the methods" in caption_of(text)
    assert "Holm's correction for 6 comparisons of two methods on a dataset" in caption_of(text)
    # The third is far below, and the second is not told apart from the first.
    close, drawn = trials({"a": 0.7, "b": 0.699, "c": 0.4}, spread=0.02, datasets=("d", "e"))
    text = latex_table(results_of(close, drawn).of_task("retrieval"))
    assert bold(text) == []
    assert "No bold: no method is shown to be higher than each of the others" in caption_of(text)


def test_differences_to_the_best_of_each_column_are_those_of_single_tests() -> None:
    rows, drawn = trials({"a": 0.6, "b": 0.55, "c": 0.5, "d": 0.5}, datasets=("x", "y", "z"), spread=0.03, seeds=3)
    labelled, _, lines = label_lines(rows, pd.DataFrame())
    best = highest(summarise(labelled))
    mean = rows.groupby(["dataset", "arm"])["value"].mean()
    assert best == {("retrieval", d, "recall@10"): mean[d].idxmax() for d in "xyz"}
    compared = differences_to_best(labelled, best, lines, lambda *key: drawn.get(key))
    assert len(compared) == 9
    assert (compared["tests"] == 3 * comb(4, 2)).all()

    def values(arm: str, dataset: str) -> tuple[np.ndarray, np.ndarray]:
        own = rows[(rows["arm"] == arm) & (rows["dataset"] == dataset)].sort_values("seed")
        resampled = [drawn[cell, f"retrieval-{dataset}", "", "recall@10"] for cell in own["cell"]]
        return own["value"].to_numpy()[:, None], np.array(resampled)

    pairs = list(compared[["line", "other", "dataset"]].itertuples(index=False))
    estimates = []
    for line, other, dataset in pairs:
        (one, of_one), (two, of_two) = values(line, dataset), values(other, dataset)
        estimates.append(estimate(one - two, of_one - of_two, 60, 1.0))
    p = np.array([each.p for each in conclude(estimates)])
    np.testing.assert_allclose(compared["p"].to_numpy(dtype=float), p)
    # Holm by hand: the smallest times all tests, the next times one fewer, and never below an earlier one.
    order = np.argsort(p)
    by_hand = np.empty(9)
    by_hand[order] = np.minimum(1, np.maximum.accumulate(p[order] * (18 - np.arange(9))))
    np.testing.assert_allclose(compared["adjusted"].to_numpy(dtype=float), by_hand)
    np.testing.assert_allclose(by_hand, holm(p, 18))


def test_the_correction_is_that_of_the_report_where_one_line_is_the_best_everywhere() -> None:
    rows, drawn = trials({"a": 0.8, "b": 0.55, "c": 0.5}, datasets=("x", "y"))
    labelled, _, lines = label_lines(rows, pd.DataFrame())
    resamples = lambda *key: drawn.get(key)  # noqa: E731
    compared = differences_to_best(labelled, highest(summarise(labelled)), lines, resamples)
    pd.testing.assert_frame_equal(compared, differences(labelled, {"b": "a", "c": "a"}, resamples, picked=True))


def scores(**values: float) -> pd.DataFrame:
    frame = pd.DataFrame({"line": list(values), "value": list(values.values()), "task": "t", "dataset": "d"})
    top = max(value for name, value in values.items() if name != "base")
    return frame.assign(metric="m", baseline=frame["line"] == "base", best=frame["value"] == top)


def compared(best: str, **verdicts: str) -> pd.DataFrame:
    frame = pd.DataFrame({"line": list(verdicts), "verdict": list(verdicts.values()), "value": -0.1, "other": best})
    return frame.assign(task="t", dataset="d", metric="m")


@pytest.mark.parametrize(
    ("verdicts", "is_bold"),
    [
        ({"b": "worse", "c": "worse"}, True),
        ({"b": "lower for these weights", "c": "lower (2 seeds)"}, True),
        ({"b": "no difference shown", "c": "worse"}, False),
        ({"b": "worse", "c": "no difference shown"}, False),
        ({"b": "not tested", "c": "worse"}, False),
        ({"b": "too few patients (6)", "c": "worse"}, False),
        ({"b": "worse"}, False),
    ],
)
def test_bold_needs_a_verdict_against_each_other_method(verdicts: dict[str, str], is_bold: bool) -> None:
    shown = shown_best(scores(a=0.7, b=0.6, c=0.5, base=0.9), compared("a", **verdicts))
    assert shown == ({("t", "d", "m", "a")} if is_bold else set())


def test_what_is_not_above_guessing_is_not_bold() -> None:
    guessed = scores(a=0.7, b=0.6).assign(best=False)
    assert shown_best(guessed, compared("a", b="worse")) == set()
    assert shown_best(scores(a=0.7, b=0.6), compared("a", b="worse")) == {("t", "d", "m", "a")}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"a": 0.7, "b": 0.6, "c": 0.5}, {"b"}),
        ({"a": 0.7, "b": 0.6, "c": 0.5, "base": 0.65}, {"b"}),
        ({"a": 0.7, "b": 0.6001, "c": 0.5999, "d": 0.1}, {"b", "c"}),
        ({"a": 0.7001, "b": 0.6999, "c": 0.5}, set()),
        ({"a": 0.7, "b": 0.6}, set()),
        ({"a": 0.7, "b": 0.7, "c": 0.7}, set()),
    ],
)
def test_the_second_is_underlined(values: dict[str, float], expected: set[str]) -> None:
    assert {line for *_, line in second_highest(scores(**values))} == expected


def test_the_numbers_are_means_and_deviations_or_intervals() -> None:
    rows, _ = trials({"a": 0.5, "b": 0.4, "c": 0.3}, seeds=3, datasets=("d", "e"))
    rows["value"] = rows["arm"].map({"a": 0.5, "b": 0.4, "c": 0.3}) + rows["seed"] * 0.1 - 0.1
    rows.loc[rows["dataset"] == "e", "value"] += 0.2
    rows["low"], rows["high"] = rows["value"] - 0.01, rows["value"] + 0.01
    rows = rows[(rows["arm"] != "c") | (rows["seed"] == 1)]
    rows.loc[rows["arm"] == "c", ["low", "high"]] = [-0.012, 0.556]
    text = latex_table(results_of(rows, {}).of_task("retrieval"))
    (table,) = tabulars(text)
    cells = [[printed(cell) for cell in row] for row in table]
    assert cells[0] == ["", "d", "e", "mean"]
    assert cells[1] == ["a", "50.0 ± 10.0", "70.0 ± 10.0", "60.0"]
    assert cells[2] == ["b", "40.0 ± 10.0", "60.0 ± 10.0", "50.0"]
    assert cells[3] == ["c", "30.0§ (−1.2 to 55.6)", "50.0§ (−1.2 to 55.6)", "40.0"]
    assert cells[4:] == [["chance", "10.0", "10.0", "10.0"], ["examples", "60", "60", ""]]
    assert "\\underline{40.0} {\\scriptsize" in text
    caption = caption_of(text)
    assert "Mean over 1–3 seeds (one seed, for these weights alone: c) ± standard deviation over seeds" in caption
    assert "in parentheses: of one seed, 95 % interval over test examples, for these weights." in caption
    one, _ = trials({"a": 0.5, "b": 0.4}, seeds=1)
    caption = caption_of(latex_table(results_of(one, {}).of_task("retrieval")))
    assert caption.startswith(
        "retrieval: recall@10, in percent, for these weights. One seed, for these weights; in parentheses: 95 %"
    )
    assert "±" not in caption


def test_marks_baselines_and_missing_results_are_written() -> None:
    rows, drawn = trials({"a": 0.6, "b": 0.3}, datasets=("d", "e"), spread=0.005, noise=0.02)
    start, of_start = trials({"start": 0.3}, datasets=("d", "e"), spread=0.005, noise=0.02)
    rows = rows.assign(start="start-" + rows["seed"].astype(str))
    rows = rows[(rows["arm"] != "b") | (rows["dataset"] != "e")]
    both = pd.concat([rows, start.assign(role="baseline")], ignore_index=True)
    text = latex_table(results_of(both, drawn | of_start).of_task("retrieval"))
    (table,) = tabulars(text)
    cells = {printed(row[0]): [printed(cell) for cell in row[1:]] for row in table}
    assert cells["b"][0].split(" ")[0].endswith("†§")
    assert "†" not in "".join(cells["a"] + cells["start"])
    assert cells["b"][1:] == ["—", "—"]
    assert [printed(row[0]) for row in table] == ["", "a", "b", "start", "chance", "examples"]
    caption = caption_of(text)
    assert "†: not shown to beat the model before training (paired, 5 % with Holm's correction)." in caption
    assert "—: no result." in caption


@given(st.text())
def test_any_text_is_printed_as_it_is(text: str) -> None:
    escaped = escape_latex(text)
    assert_balanced(escaped)
    assert "\n" not in escaped
    # Signs that pdfLaTeX cannot set are written as their code points.
    ours = " ".join(text.split())
    if all(" " <= sign <= "~" and sign not in "\"'`" for sign in ours):
        assert printed(escaped) == ours
    assert "\\texttt" in escaped or not any(ord(sign) > 0x3000 for sign in ours)


def test_signs_that_latex_joins_are_kept_apart() -> None:
    assert escape_latex("--lock a---b '' ,, 1–2 –-") == "-{}-lock a-{}-{}-b '{}' ,{}, 1--2 --{}-"
    assert escape_latex("e\u0301 β ≥ 漢\x1b") == r"é $\beta$ $\geq$ \texttt{U+6F22}\texttt{U+001B}"
    assert slug("zero_shot: 5 % of \\train{}") == "zero_shot-5-of-train"
    assert slug("漢") == "task"


def hostile() -> tuple[pd.DataFrame, pd.DataFrame]:
    rows, costs = synthetic(4, 3, seeds=2)
    for frame in (rows, costs):
        frame["method"] = frame["method"].replace({"clip": HOSTILE, "msd": "[msd]", "siglip": "*siglip"})
    rows["dataset"] = rows["dataset"].replace({"phantom_chest": HOSTILE, "phantom_mammo": f"[d] {HOSTILE}"})
    rows["task"] = rows["task"].replace({"vqa": HOSTILE})
    rows["metric"] = rows["metric"].replace({"accuracy": "acc_{%}\\@10%"})
    return rows, costs


def test_hostile_names_are_printed(tmp_path: Path) -> None:
    rows, costs = hostile()
    files = write_latex(results_of(rows, {}, costs), tmp_path)
    assert len(files) == 6
    for file in files[:-1]:
        (rows_of_table, *_) = tabulars(file.read_text(encoding="utf-8"))
        names = {printed(row[0]) for row in rows_of_table}
        shown = display_name(HOSTILE).replace("漢", "U+6F22")
        assert {"[msd]", "*siglip", shown} <= names
        assert re.sub(r"\s", "", shown) in {re.sub(r"\s", "", printed(cell)) for row in rows_of_table for cell in row}


def test_wide_tables_are_divided_into_floats_of_one_page() -> None:
    rows, costs = synthetic(9, 12, seeds=1)
    rows = rows[rows["task"] == "few_shot"]
    text = latex_table(results_of(rows, {}, costs).of_task("few_shot"))
    tables = tabulars(text)
    assert len(tables) > 1
    datasets = [printed(cell) for rows_of_table in tables for cell in rows_of_table[0][1:]]
    assert sorted(datasets) == sorted([*rows["dataset"].unique(), "mean"])
    for table in tables:
        assert [row[0] for row in table if row[0]] == [row[0] for row in tables[0] if row[0]]
    floats = re.findall(r"\\begin\{table\}.*?\\end\{table\}", text, re.DOTALL)
    assert len(floats) > 1
    assert all(each.count("\n") < 70 for each in floats)
    assert text.count("\\caption") == text.count("\\label") == 1
    assert text.count(", continued.") == len(floats) - 1


def test_the_report_writes_them_on_demand_and_always_the_same(tmp_path: Path) -> None:
    rows, costs = synthetic(3, 2, seeds=2)
    rows = rows[rows["task"] == "vqa"]
    written = []
    for folder in ("a", "b"):
        console = Console(file=io.StringIO())
        files = write_report(
            rows.sample(frac=1, random_state=len(written)), costs, tmp_path / folder, console, latex=True
        )
        kept = [file for file in files if file.suffix in (".tex", ".bib", ".pdf")]
        written.append({str(file.relative_to(tmp_path / folder)): file.read_bytes() for file in kept})
    assert written[0] == written[1]
    names = ["latex/references.bib", "latex/vqa.tex", "plots/quality-against-cost.pdf", "plots/vqa.pdf"]
    assert sorted(written[0]) == names
    pdf = written[0]["plots/vqa.pdf"]
    assert pdf.startswith(b"%PDF")
    assert b"/Type3" not in pdf
    plain = write_report(rows, costs, tmp_path / "plain", Console(file=io.StringIO()))
    assert {file.suffix for file in plain} == {".md", ".csv", ".png", ".svg", ".html"}
    assert not (tmp_path / "plain" / "latex").exists()


@pytest.mark.skipif(not (shutil.which("pdflatex") and shutil.which("bibtex")), reason="needs pdflatex and bibtex")
def test_latex_takes_them(tmp_path: Path) -> None:
    rows, costs = hostile()
    *tables, _ = write_latex(results_of(rows, {}, costs), tmp_path)
    inputs = "\\clearpage\n".join(f"\\input{{{table.name}}}" for table in tables)
    main = (
        "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{booktabs,url}\\begin{document}\\listoftables\n"
        f"{inputs}\\nocite{{*}}\\bibliographystyle{{plain}}\\bibliography{{references}}\\end{{document}}\n"
    )
    (tmp_path / "main.tex").write_text(main, encoding="utf-8")
    latex = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "main"]
    for command in (latex, ["bibtex", "main"], latex, latex):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, done.stdout[-3000:]
    assert "undefined" not in done.stdout
