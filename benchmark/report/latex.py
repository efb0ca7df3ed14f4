"""Tables for a paper: a booktabs table of each kind of task, with what is shown to be best in bold."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.common.errors import plural
from benchmark.report.classes import left_out
from benchmark.report.comparison import FEWEST_SEEDS, differences_to_best, is_shown
from benchmark.report.references import references
from benchmark.report.render import MISSING, Cell, Table, break_points, interval, of_level, over_seeds, percent, wrap
from benchmark.report.results import Results, columns_of, each_row, natural
from benchmark.report.scores import defined, definitions, explained, means_of_parts, missing, score_table, vocabularies

if TYPE_CHECKING:
    import pandas as pd

WIDEST = 75
"""About the most characters of a row that fit into the text width of an article, in small type."""
BETWEEN = 2
"""About the characters between two columns."""
TALLEST = 50
"""About the most rows that fit on a page."""
WIDEST_NAME = 26
"""The most characters of a line's name that stand in one row."""
WIDEST_HEADER = 14
FEWEST_RANKED = 3
"""The fewest methods of which the second is underlined: of two it is the last."""
COMMANDS = {
    "\\": r"\textbackslash{}",
    "{": r"\textbraceleft{}",
    "}": r"\textbraceright{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': "''",
    **{each: rf"\{each}" for each in "&%$#_"},
    # In front of these two a line break would take what follows as its argument.
    "[": "{[}",
    "*": "{*}",
    "–": "--",
    "—": "---",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "§": r"\S{}",
    "•": r"\textbullet{}",
    "·": r"\textperiodcentered{}",
    "©": r"\copyright{}",
    **{
        sign: f"${command}$"
        for sign, command in {
            "−": "-",
            "±": r"\pm",
            "×": r"\times",
            "÷": r"\div",
            "°": r"^\circ",
            "²": "^2",
            "³": "^3",
            "µ": r"\mu",
            "≤": r"\leq",
            "≥": r"\geq",
            "≠": r"\neq",
            "≈": r"\approx",
            "→": r"\rightarrow",
            "←": r"\leftarrow",
            "∞": r"\infty",
            "α": r"\alpha",
            "β": r"\beta",
            "γ": r"\gamma",
            "δ": r"\delta",
            "ε": r"\varepsilon",
            "κ": r"\kappa",
            "λ": r"\lambda",
            "μ": r"\mu",
            "π": r"\pi",
            "ρ": r"\rho",
            "σ": r"\sigma",
            "τ": r"\tau",
            "φ": r"\varphi",
            "χ": r"\chi",
            "ω": r"\omega",
            "Δ": r"\Delta",
            "Σ": r"\Sigma",
            "Ω": r"\Omega",
        }.items()
    },
}
JOINED = ("-–—", "'’”\"", "‘“", ",")
"""Signs of which LaTeX makes others where they follow one another: they are kept apart."""
LETTERS = {chr(code) for code in range(0xC0, 0x180)} - set("×÷ĦħĸĿŀŉŦŧſ")
"""Those beyond ASCII that pdfLaTeX sets in T1."""


def write_latex(results: Results, folder: Path) -> list[Path]:
    """Write TASK.tex for each kind of task, and references.bib, into ``folder``; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        f"{slug(task)}.tex": latex_table(results.of_task(task)) for task in natural(results.scores["task"].unique())
    }
    files["references.bib"] = references(results.all_rows, results.all_costs, escape_latex)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in files]


def slug(name: str) -> str:
    """Write a name as part of a file name or label.

    >>> slug("zero_shot: 5 % of train")
    'zero_shot-5-of-train'
    """
    return re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-") or "task"


def escape_latex(text: str) -> str:
    """Write a text so that LaTeX sets it as it is, in one line, with no two signs joined to another.

    Braces are balanced, so that BibTeX reads it too. What pdfLaTeX cannot set in T1 is written as its code point.
    """
    signs = unicodedata.normalize("NFC", " ".join(text.split()))
    return "".join(_set(*each) for each in zip(signs, signs[1:] + " "))


def _set(sign: str, following: str) -> str:
    if sign in COMMANDS:
        text = COMMANDS[sign]
    elif sign in LETTERS or " " <= sign <= "~":
        text = sign
    else:
        text = rf"\texttt{{U+{ord(sign):04X}}}"
    return text + "{}" * any(sign in alike and following in alike for alike in JOINED)


def latex_table(results: Results) -> str:
    """Write the scores of a kind of task as a table of booktabs. results: as Results.of_task() gives them."""
    scores, task = results.scores, results.task
    table = score_table(scores, task, results.lines, results.marks)
    of_line: dict[Any, dict[Any, Any]] = {}
    for score in each_row(scores):
        of_line.setdefault(score.line, {})[score.dataset, score.metric] = score
    columns = columns_of(scores)
    compared = differences_to_best(results.rows, highest(scores), results.methods, results.resamples)
    bold = shown_best(scores, compared)
    second = second_highest(scores)

    def row(label: str, cells: Sequence[Cell]) -> list[str]:
        texts = []
        for number, cell in enumerate(cells):
            column = columns[number] if number < len(columns) else None
            score = of_line.get(label, {}).get(column)
            if score is None:
                texts.append(escape_latex(cell.text))
                continue
            own = (task, *(column or ("", "")), label)
            texts.append(_score(score, results.marks.get(own, ""), own in bold, own in second))
        return [_name(label), *texts]

    header = [_head(name) for name, _ in table.columns]
    units = [_head(unit) for _, unit in table.columns]
    above = [["", *header], *([["", *units]] if any(units) else [])]
    body = [[row(*each) for each in rows] for rows in (table.rows, table.footer)]
    widths = _widths(table, of_line, columns)
    first = max(len(label) for label, _ in [*table.rows, *table.footer])
    label_column = "l" if first <= WIDEST_NAME else f"p{{{WIDEST_NAME * 0.17:.1f}cm}}"
    tabulars = [
        _tabular(above, body, block, label_column) for block in _blocks(widths, min(first, WIDEST_NAME), WIDEST)
    ]
    caption = escape_latex(_caption(results, table, compared, bool(bold), bool(second)))
    label = f"tab:{slug(task)}"
    heads = [f"\\caption[{escape_latex(table.title)}]{{{caption}}}\n\\label{{{label}}}"]
    # A float cannot be broken. A long name takes two rows.
    at_once = max(1, TALLEST // (tabulars[0].count("\n") + tabulars[0].count("\\raggedright")))
    floats = [tabulars[at : at + at_once] for at in range(0, len(tabulars), at_once)]
    heads += [f"Table~\\ref{{{label}}}, continued."] * (len(floats) - 1)
    lines = ["% Written by bench report --latex. It needs \\usepackage{booktabs} and \\usepackage[T1]{fontenc}."]
    for head, of_float in zip(heads, floats):
        lines += ["\\begin{table}[tbp]", "\\centering\\small\\setlength{\\tabcolsep}{4pt}", head]
        lines += [f"\\par\\medskip\n{tabular}" for tabular in of_float]
        lines.append("\\end{table}")
    return "\n".join([*lines, ""])


def highest(scores: "pd.DataFrame") -> dict[tuple[str, str, str], str]:
    """Find the line with the highest score of each column, baselines aside: by task, dataset and metric."""
    ours = scores[~scores["baseline"].astype(bool)]
    best = ours.loc[ours.groupby(["task", "dataset", "metric"])["value"].idxmax()]
    return {(row.task, row.dataset, row.metric): row.line for row in each_row(best)}


def shown_best(scores: "pd.DataFrame", compared: "pd.DataFrame") -> set[tuple[str, str, str, str]]:
    """Select the scores that are shown to be the best of the methods: task, dataset, metric and line of each.

    A score is, if it is above chance and every guess without the images, if each of the other methods of its column was
    compared with it, and if each of these differences is shown (comparison.is_shown()).
    compared: as differences_to_best() gives it.
    """
    keys = ["task", "dataset", "metric"]
    ours = scores[~scores["baseline"].astype(bool)]
    methods = ours.groupby(keys)["line"].nunique()
    above_guesses = set(ours.loc[ours["best"], [*keys, "line"]].itertuples(index=False, name=None))
    shown = set()
    for key, others in compared.groupby([*keys, "other"]):
        everywhere = all(is_shown(verdict) for verdict in others["verdict"])
        if everywhere and (others["value"] < 0).all() and len(others) == methods[key[:3]] - 1 and key in above_guesses:
            shown.add(key)
    return shown


def second_highest(scores: "pd.DataFrame") -> set[tuple[str, str, str, str]]:
    """Select the second highest scores of the methods, to the decimal shown: task, dataset, metric and line of each.

    None where several share the highest, or of fewer than ``FEWEST_RANKED`` methods.
    """
    ours = scores[~scores["baseline"].astype(bool)]
    second = set()
    for key, column in ours.groupby(["task", "dataset", "metric"]):
        shown = np.round(100 * column["value"].to_numpy(dtype=float), 1)
        if len(shown) >= FEWEST_RANKED and (shown == shown.max()).sum() == 1:
            next_highest = shown == shown[shown < shown.max()].max()
            second |= {(*key, line) for line in column.loc[next_highest, "line"]}
    return second


def _score(score: Any, own_marks: str, bold: bool, underlined: bool) -> str:
    """Write a score with its marks, and its deviation over seeds or its interval."""
    text = percent(score.value)
    text = f"\\textbf{{{text}}}" if bold else f"\\underline{{{text}}}" if underlined else escape_latex(text)
    text += f"\\textsuperscript{{{escape_latex(own_marks)}}}" if own_marks else ""
    if score.seeds > 1:
        return f"{text} {{\\scriptsize $\\pm$ {percent(score.deviation)}}}"
    between = interval(score.low, score.high)
    return text + (f" {{\\scriptsize ({escape_latex(between)})}}" if between else "")


def _name(label: str) -> str:
    """Write a line's name; a long one may break after spaces and separators."""
    if len(label) <= WIDEST_NAME:
        return escape_latex(label)
    pieces = break_points(label)
    texts = [escape_latex(piece) + (" " if piece.endswith(" ") else "\\allowbreak ") for piece in pieces[:-1]]
    return "\\raggedright " + "".join([*texts, escape_latex(pieces[-1])])


def _head(name: str) -> str:
    """Write the head of a column, a long one in several lines."""
    lines = [escape_latex(line) for line in wrap(name, WIDEST_HEADER)]
    return lines[0] if len(lines) == 1 else "\\shortstack[r]{" + "\\\\".join(lines) + "}"


def _widths(table: Table, of_line: Mapping[Any, Mapping[Any, Any]], columns: Sequence[tuple[str, str]]) -> list[int]:
    """Estimate the width of each column, in characters."""
    widths = []
    for number, (name, unit) in enumerate(table.columns):
        column = columns[number] if number < len(columns) else None
        of_column = [of_score[column] for of_score in of_line.values() if column in of_score]
        scores = [10 if score.seeds > 1 else 13 for score in of_column]
        heads = [len(line) for text in (name, unit) for line in wrap(text, WIDEST_HEADER)]
        texts = [len(cells[number].text) for _, cells in [*table.rows, *table.footer]]
        widths.append(max([*scores, *heads, *texts]))
    return widths


def _blocks(widths: Sequence[int], first: int, widest: int) -> list[list[int]]:
    """Divide columns into blocks of like numbers that are at most so wide, with the names of the lines in each."""
    for number in range(1, len(widths) + 1):
        blocks = [block.tolist() for block in np.array_split(np.arange(len(widths)), number)]
        if all(first + sum(widths[index] + BETWEEN for index in block) <= widest for block in blocks):
            break
    return blocks


def _tabular(
    above: Sequence[Sequence[str]], body: Sequence[Sequence[Sequence[str]]], block: Sequence[int], label_column: str
) -> str:
    """Write some of the columns. above: rows of the head. body: parts with a rule between. block: indices."""

    def lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
        for row in rows:
            yield " & ".join([row[0], *(row[1 + index] for index in block)]).strip() + " \\\\"

    parts = [part for part in body if part]
    ruled = [line for part in parts for line in ("\\midrule", *lines(part))]
    begin = f"\\begin{{tabular}}{{@{{}}{label_column}{'r' * len(block)}@{{}}}}"
    return "\n".join([begin, "\\toprule", *lines(above), *ruled, "\\bottomrule", "\\end{tabular}"])


def _caption(results: Results, table: Table, compared: "pd.DataFrame", bold: bool, second: bool) -> str:
    """Write what the numbers are, what they hold for, and what bold and underlined say."""
    scores = results.scores
    seeds = scores.set_index("line")["seeds"]
    spread = [over_seeds(seeds) + (" ± standard deviation over seeds" if seeds.max() > 1 else "")]
    spread += means_of_parts(scores)
    if seeds.min() == 1:
        alone = "of one seed, " if seeds.max() > 1 else ""
        spread.append(f"in parentheses: {alone}95 % interval over test examples, for these weights")
    sentences = [f"{table.title}{of_level(seeds.max())}.", "; ".join(spread) + "."]
    if len(compared):
        tests = int(compared["tests"].max())
        how = (
            f"paired by test example{' and seed' if compared['seeds'].max() > 1 else ''}, 5 %, Holm's correction for "
            f"{plural(tests, 'comparison')} of two methods on a dataset"
        )
        if bold:
            sentences.append(
                "Bold: the highest of the methods, above every guess without the images, and shown to be higher than "
                f"each of the others ({how})."
            )
            if compared["seeds"].max() > 1 and compared["seeds"].min() < FEWEST_SEEDS:
                sentences.append(f"With fewer than {FEWEST_SEEDS} seeds in common, this holds for these weights.")
        else:
            sentences.append(f"No bold: no method is shown to be higher than each of the others ({how}).")
    if second:
        sentences.append("Underlined: the second highest of the methods.")
    if len(table.columns) > 1:
        sentences.append("mean: over the datasets; not tested.")
    if any(cell.text == MISSING for _, cells in table.rows for cell in cells):
        sentences.append(f"{MISSING}: no result.")
    in_table = set(scores["line"])
    own_marks = "".join(
        mark for (task, *_, line), mark in results.marks.items() if task == results.task and line in in_table
    )
    meaning = defined(results.rows, results.notes)
    sentences += definitions(scores["metric"].unique(), meaning)
    text = " ".join(sentences) + explained(scores, own_marks)
    for said in (vocabularies, left_out, missing):
        text += said(results.rows, results.notes)
    return text
