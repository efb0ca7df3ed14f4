"""The page that a report is written to: report.md with its plots, and the tables in the terminal."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.report.plots import save
from benchmark.report.render import Plot, Sentence, Table, escape, to_markdown, to_terminal

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

HOW_TO_READ = """\
## How to read this

- **Scores** are the primary metric of each kind of task in percent, the mean over seeds. `results.csv` has every metric
  of every seed as a fraction, with the method, its variant, the model, the suite, and the cell that it came from;
  `classes.csv` has likewise the recall and AUROC of each class, and its number of test examples (support).
- **Interval**: 95 %. For one seed, the bootstrap interval over the groups (patients) of the test set. For S seeds, two
  errors are added in quadrature on each side, that of a seed's interval and standard deviation over seeds / sqrt(S),
  with a quantile between the normal one and that of t with S - 1 degrees of freedom: two or three seeds say little
  about other seeds, and the interval shows it. Where a score is a mean of parts, so are the ends of its interval,
  which is cautious.
- **Bold** is the highest of the methods in its column, to the decimal shown, if it is above chance; a baseline below
  may be higher. It is no verdict: where intervals overlap widely, the table does not show that one line is better than
  another.
- **Differences** are of the same test examples under two lines: both are computed on the same bootstrap resamples of
  the test patients, so that what makes an image hard for both cancels; over S seeds, the variance between the
  differences of the seeds is added, and interval and p-value are between Student's t of the patients and that of the
  seeds; with two seeds they are cautious. No p is below 2^(1 - patients). The verdict corrects p for the number of
  tests in its table (Holm 1979): with `--reference`, one a line and dataset; without, all pairs of lines on each
  dataset, since the line that scored best is the reference, and any might have been. "No difference shown" is no proof
  that there is none.
- **Mean ranks** count datasets, each once, whatever the size of a difference (Friedman and Nemenyi; Demsar 2006).
- **Baselines** are evaluated like a method and stand below them: the **initial weights** that every method starts
  from; **untrained**, the same architecture with random weights, where the initial ones are not random; **raw pixels**,
  images averaged down to 16 x 16. **Majority** is the most common answer of the training set (VQA: of each type of
  question), **chance** what a scorer gets that knows nothing of the images. A score with † is not shown to beat the
  initial weights. **Examples** are those of the test set.
- **Mean** is over all datasets of the table; a line that lacks one has none.
- **Scenarios** make one thing difficult and hold each line against itself without that: the same seeds, settings,
  number of pairs and test images. Their lines stand in tables of their own, below the others.
- **± over draws** is how much a score depends on which training images were drawn: the standard deviation over draws.
  It is no interval of their mean. `results.csv` has it as `spread`, with the number of `draws`.
- **recall@K** is the hit rate: the share of queries with at least one correct item among the first K. All items with
  the same text are correct. The share of all correct items that are found is another definition, and not this one.
- **Quality against cost**: the mean over kinds of task of the mean over datasets, against the training time of a seed.
  No line has both a higher score and a shorter time than one on the **Pareto frontier**. Times compare only
  on the same device.
"""


class Page:
    """Collects the parts of a report; the folder is made, and data and plots are written into it, as they are added.

    files: those written, report.md first.
    """

    def __init__(self, folder: Path, console: "Console") -> None:
        self.folder, self.console = folder, console
        self.files = [folder / "report.md"]
        self.text = ["# Report\n"]
        (folder / "plots").mkdir(parents=True, exist_ok=True)

    def add_data(self, name: str, frame: "pd.DataFrame") -> None:
        """Write a CSV file beside the page."""
        self.files.append(self.folder / name)
        frame.to_csv(self.files[-1], index=False)

    def add(self, parts: Iterable[Table | Plot | Sentence]) -> None:
        """Add what a section shows, on the page and, unless it is for the page only, in the terminal."""
        for part in parts:
            if isinstance(part, Plot):
                self._draw(part)
                continue
            if isinstance(part, Table):
                self.text.append(to_markdown(part))
            else:
                self.text.append(escape(part.text) + "\n")
            if not part.page_only:
                self._print(part)

    def write(self) -> list[Path]:
        """Write report.md. Returns all files."""
        self.files[0].write_text("\n".join([*self.text, HOW_TO_READ]), encoding="utf-8")
        return self.files

    def _draw(self, plot: Plot) -> None:
        png, svg = save(plot.figure, self.folder / "plots" / re.sub(r"[^\w-]+", "-", plot.name))
        self.files += [png, svg]
        self.text.append(f"![{escape(plot.title)}](plots/{png.name})\n\n[SVG](plots/{svg.name})\n")

    def _print(self, part: Table | Sentence) -> None:
        if isinstance(part, Sentence):
            self.console.print(part.text + "\n", style="dim", highlight=False, markup=False)
            return
        for renderable in to_terminal(part, self.console.width):
            self.console.print(renderable)
