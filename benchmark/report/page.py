"""The page that a report is written to: report.md with its plots, and the tables in the terminal."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.common.text import to_csv, visible
from benchmark.report.plots import save
from benchmark.report.render import (
    PLOTS,
    Answer,
    Chart,
    Panel,
    Part,
    Plot,
    Sentence,
    Table,
    escape,
    to_markdown,
    to_terminal,
    wrap,
)
from benchmark.report.results import with_texts

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

HOW_TO_READ = """\
## How to read this

- **Two questions.** *These weights*: would the weights that were trained do so on other patients? One seed answers this
  and nothing else: another seed of the same method may do better or worse. *This method*: would it do so from other
  seeds too? Two seeds answer it roughly. Only with three or more does a verdict say *better* or *worse*; with fewer it
  says *higher* or *lower*, for these weights or with the number of seeds. Titles and captions say *for these weights*
  where they answer the first question; the others answer the second.
- **Claims** are what the suite says that papers found. A claim about scores is judged by the mean over its tasks and
  datasets, paired by test patient and seed as differences are. *Supported*: the whole interval lies in favour and
  reaches the stated size. *Contradicted*: the whole interval lies outside what is stated. *Not shown*: neither, or
  fewer than three seeds, or too few patients. *Not run*: results are missing. `claims.csv` has the same.
- **Scores** are the primary metric of each kind of task, in percent, averaged over seeds. `scores.csv` has every metric
  as a fraction, with the deviation over seeds; `results.csv` has each seed, with method, variant, model, suite and
  cell. `classes.csv` has the recall and AUROC of each class, with its number of test examples (support).
- **Intervals** are at 95 %: a score's over the groups (patients) of the test set, and over seeds if there are several.
  How much seeds differ is estimated from all lines and datasets of a kind of task together (Smyth 2004), where these
  are more than three, because two or three seeds of one line say little. Where a score is a mean of parts, the ends of
  its interval are the means of theirs, which makes it too wide rather than too narrow.
- **Bold** marks the highest score of the methods in its column, to the decimal shown, if it is above chance and above
  every guess that does not look at the images; a baseline below may be higher. It is no verdict: where intervals
  overlap widely, the table does not show that one line is better than another.
- **Differences** compare two lines on the same test examples: both are computed on the same bootstrap resamples of the
  test patients, so that whatever makes an image hard for both cancels. Several seeds, or several draws of the images
  that a task learns from, add their own error. No p is below 2^(1 - patients). The verdict corrects p for the number of
  tests in its table (Holm 1979): with `--reference`, one for each line and dataset; without it, one for each pair of
  lines on each dataset, because the reference is then the line that scored best, and could have been any of them. "No
  difference shown" does not prove that there is none. *Too few patients*, *too few positive patients*: with fewer than
  ten on the scarcer side, neither interval nor test keeps what it promises, and there is no verdict.
  `differences.csv` has all of them, with p before and after correction.
- **Mean ranks** count each dataset once, however large a difference is (Friedman and Nemenyi; Demsar 2006).
- **Baselines** are evaluated like methods and listed below them. **Initial weights** are those that every method
  starts from. **Untrained** is the same architecture with random weights, where the initial ones are not random.
  **Raw pixels** are the images, averaged down to 16 x 16. **Majority** always predicts the most common answer of the
  training set, or of the test set where train has no labels (VQA: of each type of question). **Question only** is the
  same head trained without the image, and **same question** gives the answer that train most often has to the
  question: what a score is above them comes from the image. **Chance** is the score of a method that knows nothing
  about the images. **Ceiling** is the highest score that is possible. **Examples** are the number of test examples.
- **†** A score is not shown to beat the model before training: the initial weights or, for a model that was trained
  elsewhere, its own untrained architecture. **‡** It is not shown to beat raw pixels. Where that baseline was not
  evaluated, there is no mark. The tables of differences to these baselines have the tests, corrected for their number.
  **§** The interval of the score does not lie above what guesses get (chance, majority, and those of VQA): the model
  may have learned nothing, or give one answer to everything.
- **Mean** is over all datasets of the table; a line that lacks a dataset has no mean.
- **Scenarios** make one thing difficult and compare each line with itself without that difficulty: same seeds,
  settings, number of pairs and test images. Their lines are in tables of their own, below the others.
- **± over draws** is how much a score depends on which training images were drawn: the standard deviation over draws.
  It is not an interval of their mean; the intervals and tests of a mean over draws count it. A share of train is drawn
  in whole groups, and may be more than its name says where a class was missing: see the rows *train images*.
  `results.csv` has the spread, the number of draws and what was drawn.
- **recall@K** is the hit rate: the share of queries with at least one correct item among the first K. All items with
  the same text are correct. It is not the share of all correct items that are retrieved.
- **Quality against cost** plots the mean over kinds of task of the mean over datasets, against the training time of a
  seed. No line has both a higher score and a shorter time than a line on the **Pareto frontier**. It has no intervals,
  so that a place on the frontier is no verdict. Times are comparable only on the same device.
"""


class Page:
    """Collects the parts of a report; creates the folder, and writes data and plots into it as they are added.

    details: whether the terminal shows every table, or only the main parts. pdf: whether plots are saved as PDF too.
    files: those written, report.md first. held_back: whether the terminal lacks a detail.
    """

    def __init__(self, folder: Path, console: "Console", pdf: bool = False, details: bool = True) -> None:
        self.folder, self.console, self.pdf, self.details = folder, console, pdf, details
        self.held_back = False
        self.files = [folder / "report.md"]
        self.text = ["# Report\n"]
        (folder / PLOTS).mkdir(parents=True, exist_ok=True)

    def add_data(self, name: str, frame: "pd.DataFrame") -> None:
        """Write a CSV file next to the page."""
        self.files.append(self.folder / name)
        csv_frame(frame).to_csv(self.files[-1], index=False)

    def add(self, parts: Iterable[Part]) -> None:
        """Add what a section shows, on the page and, unless it is for the page only or a detail, in the terminal."""
        for part in parts:
            if isinstance(part, Chart | Panel):
                # index.html alone can show them.
                continue
            if isinstance(part, Plot):
                self._draw(part)
                continue
            if isinstance(part, Answer):
                self.text.append(
                    "\n".join([escape(part.text) + "\n", *(f"- {escape(each)}" for each in part.findings), ""])
                )
                print_answer(part, self.console)
                continue
            if isinstance(part, Table):
                self.text.append(to_markdown(part))
            else:
                self.text.append(escape(part.text) + "\n" + (f"\n    {_command(part)}\n" if part.command else ""))
            if not self.console.quiet and (part.main or (self.details and not part.page_only)):
                print_part(part, self.console)
            self.held_back |= not (part.main or self.details)

    def write(self) -> list[Path]:
        """Write report.md, and say where the tables are that were not printed. Returns all files."""
        if self.held_back:
            self.console.print("--details prints all tables; report.md has them", highlight=False, markup=False)
        self.files[0].write_text("\n".join([*self.text, HOW_TO_READ]), encoding="utf-8")
        return self.files

    def _draw(self, plot: Plot) -> None:
        png, svg, *pdf = save(plot.figure, self.folder / PLOTS / plot.file, self.pdf)
        self.files += [png, svg, *pdf]
        self.text.append(f"![{escape(plot.title)}]({PLOTS}/{png.name})\n\n[SVG]({PLOTS}/{svg.name})\n")


def csv_frame(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Copy a table of data with its texts as a CSV file may hold them; numbers stay."""
    return with_texts(frame, _csv_cell)


def _csv_cell(value: object) -> object:
    return to_csv(value) if isinstance(value, str) else value


def _command(part: Sentence) -> str:
    """Write the command of a sentence on one line."""
    return " ".join(visible(part.command).splitlines())


def print_answer(answer: Answer, console: "Console") -> None:
    """Print the answer as a list."""
    console.print(f"{answer_text(answer, console.width)}\n", highlight=False, markup=False)


def answer_text(answer: Answer, width: int) -> str:
    """Write an answer as a list of findings, each on lines of its own."""
    lines = wrap(visible(answer.text), width)
    for finding in answer.findings:
        first, *others = wrap(visible(finding), width - 2)
        lines += [f"- {first}", *(f"  {line}" for line in others)]
    return "\n".join(lines)


def print_part(part: Table | Sentence, console: "Console") -> None:
    """Print a table or a sentence."""
    if isinstance(part, Sentence):
        console.print(visible(part.text), style="dim", highlight=False, markup=False)
        # Not wrapped, so that it can be copied.
        console.print(f"    {_command(part)}\n" if part.command else "", highlight=False, markup=False, soft_wrap=True)
        return
    for renderable in to_terminal(part, console.width):
        console.print(renderable)
