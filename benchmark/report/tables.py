"""From the store's rows to scores, and from scores to tables: in the terminal, and in Markdown."""

import html
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType
    from rich.table import Table as Grid

IDENTITY = ["method", "variant", "model", "suite"]
"""What makes a line of the tables; the runs of a line differ in their seed alone."""
SCORES = [
    "task",
    "dataset",
    "metric",
    "line",
    "value",
    "low",
    "high",
    "chance",
    "majority",
    "parts",
    "n",
    "seeds",
    "baseline",
    "best",
]
"""Columns of summarise()."""
MISSING = "—"


@dataclass(frozen=True)
class Cell:
    """under: what stands beneath the text, in lines."""

    text: str = MISSING
    under: str = ""
    best: bool = False


@dataclass
class Table:
    """columns: name and unit. rows: label and one cell a column. footer: likewise, what the rows are held against."""

    title: str
    columns: list[tuple[str, str]]
    rows: list[tuple[str, list[Cell]]]
    footer: list[tuple[str, list[Cell]]]
    caption: str


def label_lines(rows: "pd.DataFrame", costs: "pd.DataFrame") -> tuple["pd.DataFrame", "pd.DataFrame", list[str]]:
    """Both frames with a column ``line``, and all lines in the order in which every table and plot shows them:
    baselines (column ``baseline``) last.

    A line is named by its method, and by variant, model and suite where there are several. Runs that share all of that
    and the seed, but not the configuration (``cell``), are lines of their own, told apart by the cell.
    """
    import pandas as pd

    keys = [*IDENTITY, "cell"]
    rows, costs = rows.copy(), costs.reindex(columns=costs.columns.union([*keys, "seed"], sort=False))
    for frame in (rows, costs):
        frame[keys] = frame[keys].astype(object).fillna("").astype(str)
    runs = pd.concat([frame[[*keys, "seed"]] for frame in (rows, costs)])
    several = {column: column == "method" or runs[column].nunique() > 1 for column in IDENTITY}
    cells = runs.groupby([*IDENTITY, "seed"])["cell"].nunique()
    ambiguous = {tuple(run) for run in cells[cells > 1].reset_index()[IDENTITY].to_numpy()}
    labels = runs[keys].drop_duplicates()
    names = []
    for *identity, cell in labels.itertuples(index=False):
        parts = [part for column, part in zip(IDENTITY, identity) if several[column] and part]
        parts += [f"cell {cell[:8]}"] if tuple(identity) in ambiguous else []
        names.append(" · ".join(" ".join(part.split()) for part in parts))
    labels["line"] = names
    rows = rows.merge(labels, on=keys)
    rows["baseline"] = rows["role"] == "baseline" if "role" in rows else False
    baselines = set(rows.loc[rows["baseline"], "line"])
    return rows, costs.merge(labels, on=keys), [*natural({*names} - baselines), *natural(baselines)]


def natural(names: Iterable[str]) -> list[str]:
    """Sorted with numbers as numbers: ``2_shot`` before ``16_shot``, 0.85 before 0.9."""
    return sorted(names, key=lambda name: (re.sub(r"\d+(\.\d+)?", lambda x: f"{float(x[0]):030.10f}", name), name))


def pooled(values: np.ndarray, lows: np.ndarray, highs: np.ndarray) -> tuple[float, float, float]:
    """Mean over seeds and its 95 % interval, from the value and the interval of each seed: three arrays [S].

    The seeds share the test examples, so the error of sampling those stays whatever S, and the error of drawing S seeds
    comes on top: sd / sqrt(S). The interval is that of statistics.two_sources(), each side for itself: the former is
    the mean distance from a seed's value to the end of its interval over the normal quantile. The standard deviation
    over seeds has some of the sampling in it as well, so that the interval is rather too wide.
    With one seed the interval is that seed's. An end is NaN where a seed has none.
    """
    mean = float(np.mean(values))
    below, above = float(np.mean(values - lows)), float(np.mean(highs - values))
    if len(values) > 1:
        below, above = _with_seeds(below, values), _with_seeds(above, values)
    # A fraction stays one; a metric that goes below 0 keeps its range.
    low, high = np.clip([mean - below, mean + above], min(0.0, float(np.min(lows))), max(1.0, float(np.max(highs))))
    return mean, float(low), float(high)


def _with_seeds(distance: float, values: np.ndarray) -> float:
    """The distance to an end of the interval of one seed, made that of the mean over seeds."""
    from scipy.special import ndtri

    from benchmark.evaluation.statistics import critical

    of_examples, of_seeds = (distance / float(ndtri(0.975))) ** 2, float(np.var(values, ddof=1)) / len(values)
    variance = of_examples + of_seeds
    if not variance > 0:
        return distance
    return critical(of_seeds / variance, np.inf, len(values) - 1) * float(np.sqrt(variance))


def summarise(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Scores: one row a task, dataset, metric and line, from the primary rows that have a value.

    rows: labelled. The parts of a measurement (the two directions of retrieval) are averaged within a seed, and so are
    their intervals, which is right or too wide, whatever the correlation of the parts; a seed that lacks a part does
    not count. Then the seeds are pooled.

    Columns besides the keys: value, low, high, chance, majority (fractions), baseline (bool), parts (names), n (as
    shown: a count, or one a part), seeds (count), best (of several lines that are no baselines, to the decimal that is
    shown, and above chance and majority).
    """
    import pandas as pd

    column, numbers = ["task", "dataset", "metric"], ["value", "low", "high"]
    rows = rows[rows["primary"].astype(bool) & rows["value"].notna()].copy()
    rows["majority"] = rows.get("majority", np.nan)
    rows[[*numbers, "chance", "majority"]] = rows[[*numbers, "chance", "majority"]].astype(float)
    baselines = set(rows.loc[rows["baseline"].astype(bool), "line"]) if "baseline" in rows else set()
    rows["part"] = rows["part"].astype(object).fillna("")
    rows = rows.drop_duplicates([*column, "line", "seed", "part"], keep="last")
    rows["parts"] = rows.groupby(column)["part"].transform("nunique")
    runs = rows.groupby([*column, "line", "seed"])
    # A mean over some of the parts is none.
    seeds: Any = runs[numbers].mean().where(runs[numbers].count().eq(runs.size(), axis="index"))
    seeds = seeds[runs.size() == runs["parts"].first()]
    scores = []
    for key, found in rows.groupby(column):
        if key not in seeds.index:
            continue
        parts, chance = natural(found["part"].unique()), float(found["chance"].mean())
        majority = float(found["majority"].mean())
        common = {**dict(zip(column, key)), "chance": chance, "majority": majority, "parts": tuple(parts)}
        common["n"] = examples(found, parts)
        lines: list[dict[str, Any]] = []
        for line, values in seeds.loc[key].groupby("line"):
            value, low, high = pooled(*values.to_numpy().T)
            score = {**common, "line": line, "value": value, "low": low, "high": high, "seeds": len(values)}
            lines.append({**score, "baseline": line in baselines})
        ours = [np.nan if score["baseline"] else score["value"] for score in lines]
        for score, best in zip(lines, best_of(ours, np.fmax(chance, majority))):
            scores.append({**score, "best": best})
    return pd.DataFrame(scores, columns=SCORES).astype({"baseline": bool, "best": bool})


def examples(column: "pd.DataFrame", parts: Sequence[str]) -> str:
    """The number of test examples: once, or one a part, or a range where runs were measured on different ones."""
    return "/".join(dict.fromkeys(span(column.loc[column["part"] == part, "n"].astype(int)) for part in parts))


def best_of(values: Sequence[float], chance: float) -> list[bool]:
    """Which of several values are the highest, to the decimal that is shown, and above chance where that is known."""
    shown = np.round(100 * np.asarray(values, dtype=float), 1)
    if np.isfinite(shown).sum() < 2:
        return [False] * len(shown)
    return [bool(x == np.nanmax(shown) and not x <= round(100 * chance, 1)) for x in shown]


def score_table(
    scores: "pd.DataFrame",
    task: str,
    order: Sequence[str],
    unbeaten: Container[tuple[str, str, str, str]] = (),
    meaning: Mapping[str, str] = MappingProxyType({}),
) -> Table:
    """Lines by datasets for one kind of task, then baselines, majority, chance and the number of test examples.

    unbeaten: task, dataset, metric and line of the scores that are not shown to beat the line's own initial weights.
    meaning: of metrics, as defined() gives it.
    """
    scores = scores[scores["task"] == task]
    columns = columns_of(scores)
    found: dict[Any, Any] = dict(zip(zip(scores["line"], scores["dataset"], scores["metric"]), scores.itertuples()))
    lines = [line for line in order if line in set(scores["line"])]
    baselines = set(scores.loc[scores["baseline"], "line"])
    metrics = natural(scores["metric"].unique())

    scored = [[found.get((line, *key)) for key in columns] for line in lines]
    marks = [["†" if (task, *key, line) in unbeaten else "" for key in columns] for line in lines]
    cells = [
        [Cell(percent(x.value) + mark, interval(x.low, x.high), x.best) if x else Cell() for x, mark in zip(*row)]
        for row in zip(scored, marks)
    ]
    anyone = [next(filter(None, column)) for column in zip(*scored)]
    constant = [("majority", [x.majority for x in anyone]), ("chance", [x.chance for x in anyone])]
    if np.array_equal(constant[0][1], constant[1][1]):
        constant = [("chance, majority", constant[1][1])]
    constant = [(name, values) for name, values in constant if not np.isnan(values).all() or name == "chance"]
    header = [(dataset, metric if len(metrics) > 1 else "") for dataset, metric in columns]
    if len(columns) > 1:
        # A mean over fewer datasets does not compare with the others': none is shown.
        means = [mean_of(np.nan if x is None else x.value for x in row) for row in scored]
        baseline = [line in baselines for line in lines]
        ours = [np.nan if known else mean for mean, known in zip(means, baseline)]
        for row, value, best in zip(cells, means, best_of(ours, np.fmax.reduce([mean_of(v) for _, v in constant]))):
            row.append(Cell(percent(value), best=best))
        header.append(("mean", ""))
    below = [
        (name, [Cell(percent(value)) for value in [*values, *([mean_of(values)] if len(columns) > 1 else [])]])
        for name, values in constant
    ]
    counts = [Cell(x.n) for x in anyone] + [Cell("")] * (len(header) - len(columns))
    title = f"{task}: {metrics[0]}, in percent" if len(metrics) == 1 else f"{task}, in percent"
    caption = score_caption(scores, complete=len(scores) == len(lines) * len(columns), meaning=meaning)
    if any("†" in mark for row in marks for mark in row):
        caption += " †: not shown to beat the initial weights of the same model (paired, 95 %)."
    rows = [row for row in zip(lines, cells) if row[0] not in baselines]
    below = [*(row for row in zip(lines, cells) if row[0] in baselines), *below, ("examples", counts)]
    return Table(title, header, rows, below, caption)


def ceilings(rows: "pd.DataFrame", task: str, notes: Callable[[str, str], dict[str, Any]]) -> str:
    """A sentence on the most that a task's scores can reach, where its notes name a ``ceiling``, of a ``vocabulary`` of
    answers; else empty. rows: labelled. notes: of a cell's evaluation, by part.
    """
    if "evaluation" not in rows:
        return ""
    found = []
    for row in rows[(rows["task"] == task) & rows["primary"].astype(bool)].drop_duplicates("dataset").itertuples():
        of_part = notes(str(row.cell), str(row.evaluation)).get(str(row.part), {})
        if "ceiling" in of_part:
            found.append(f"{row.dataset} {percent(of_part['ceiling'])} ({of_part['vocabulary']:,} answers)")
    return f" Only answers that train has are given; the most that can be reached: {', '.join(found)}." if found else ""


def defined(rows: "pd.DataFrame", task: str, notes: Callable[[str, str], dict[str, Any]]) -> dict[str, str]:
    """What the notes of a task say that its metrics are, in their order. rows: labelled. notes: of a cell's evaluation,
    by part.
    """
    said: dict[str, str] = {}
    if "evaluation" in rows:
        for row in rows[rows["task"] == task].drop_duplicates(["cell", "evaluation", "part"]).itertuples():
            said |= notes(str(row.cell), str(row.evaluation)).get(str(row.part), {}).get("definitions", {})
    return said


def secondary(rows: "pd.DataFrame", task: str, metrics: Iterable[str]) -> "Iterator[pd.DataFrame]":
    """The rows of each of the metrics where it is not the primary one, as primary ones. rows: labelled."""
    rows = rows[(rows["task"] == task) & ~rows["primary"].astype(bool) & rows["value"].notna()]
    for metric in metrics:
        if (rows["metric"] == metric).any():
            yield rows[rows["metric"] == metric].assign(primary=True)


def columns_of(scores: "pd.DataFrame") -> list[tuple[str, str]]:
    """Dataset and metric of each column: one a dataset, or several where runs disagree in its primary metric."""
    keys = set(zip(scores["dataset"], scores["metric"]))
    datasets, metrics = natural({dataset for dataset, _ in keys}), natural({metric for _, metric in keys})
    return [(dataset, metric) for dataset in datasets for metric in metrics if (dataset, metric) in keys]


def mean_of(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def score_caption(scores: "pd.DataFrame", complete: bool, meaning: Mapping[str, str] = MappingProxyType({})) -> str:
    """What a reader must know to quote a number of the table. meaning: of metrics, as defined() gives it."""
    several = scores["seeds"].max() > 1
    said = [f"Mean over {span(scores['seeds'])} seeds" if several else "One seed"]
    parts = {parts for parts in scores["parts"] if len(parts) > 1}
    for names in sorted(parts):
        said.append(f"mean of {' and '.join(names) if len(names) == 2 else ', '.join(names)}")
    said.append(f"beneath: 95 % interval over test examples{' and seeds' if several else ''}")
    if scores["best"].any():
        said.append("bold: highest of the methods in its column")
    if not complete:
        said.append(f"{MISSING}: no result")
    return " ".join(["; ".join(said) + ".", *definitions(scores["metric"].unique(), meaning)])


def span(counts: "pd.Series[int]") -> str:
    """``3``, or ``1–3`` where counts differ."""
    return "–".join(f"{count:,}" for count in sorted({counts.min(), counts.max()}))


def definitions(metrics: Iterable[str], meaning: Mapping[str, str]) -> list[str]:
    """What the metrics are, as ``meaning`` has it, or where the name alone leaves a choice."""
    said = {}
    for metric in natural(metrics):
        if metric in meaning:
            said[metric] = meaning[metric]
        if at := re.fullmatch(r"recall@(\d+)", metric):
            said[metric] = f"is a hit rate: the share of queries with a match among the first {at[1]}"
        if metric.startswith("macro_auroc"):
            said["macro_auroc"] = "is the mean over classes or findings of the area under the ROC curve"
        if share := re.search(r"@[\d.]+%$", metric):
            said[share[0]] = f"is trained on {share[0][1:-1]} % of the train images"
    return [f"{name} {definition}." for name, definition in said.items()]


def percent(fraction: float) -> str:
    return MISSING if np.isnan(fraction) else f"{100 * fraction:.1f}"


def interval(low: float, high: float) -> str:
    return "" if np.isnan(low) or np.isnan(high) else f"{100 * low:.1f}–{100 * high:.1f}"


QUANTITIES = {
    "seconds": "mean",
    "peak_memory": "max",
    "samples": "mean",
    "samples_per_second": "mean",
    "parameters": "max",
    "parameters_trainable": "max",
    "flops_per_sample": "mean",
    "validation_loss": "mean",
}
"""Columns of the costs that the cost table shows, and what becomes of several seeds."""
SETTINGS = [
    "suite",
    "model",
    "variant",
    "budget",
    "batch_size",
    "micro_batch",
    "accumulation",
    "precision",
    "device",
    "initial_weights",
]
"""Columns of the costs that its caption states: costs compare only under the same ones."""


def pool_costs(costs: "pd.DataFrame") -> "pd.DataFrame":
    """One row a line: ``seeds`` (count) and the quantities over the seeds, NaN where they were not recorded."""
    import pandas as pd

    pooled = {"seeds": costs.groupby("line")["seed"].nunique()}
    for column, how in QUANTITIES.items():
        recorded = costs[column] if column in costs else pd.Series(np.nan, index=costs.index)
        pooled[column] = pd.to_numeric(recorded, errors="coerce").astype(float).groupby(costs["line"]).agg(how)
    return pd.DataFrame(pooled)


def cost_table(costs: "pd.DataFrame", order: Sequence[str]) -> Table:
    """Lines by what their pretraining cost."""
    pooled = pool_costs(costs)
    pooled = pooled.loc[[line for line in order if line in pooled.index]]
    prefix, total, trainable = scaled(pooled["parameters"], pooled["parameters_trainable"])
    both = [f"{part}/{whole}" for part, whole in zip(trainable, total)]
    columns: list[tuple[str, str, list[str]]] = [
        ("time", "h:mm:ss", [MISSING if np.isnan(x) else clock(x) for x in pooled["seconds"]]),
        ("peak memory", *unit(pooled["peak_memory"], "B")),
        ("samples", *unit(pooled["samples"])),
        ("samples/s", *unit(pooled["samples_per_second"])),
        ("trainable/parameters", prefix, both),
        ("FLOPs/sample", *unit(pooled["flops_per_sample"])),
        ("val. loss", "", [MISSING if np.isnan(x) else f"{x:.3f}" for x in pooled["validation_loss"]]),
    ]
    rows = [(line, [Cell(texts[index]) for *_, texts in columns]) for index, line in enumerate(pooled.index)]
    said = f"Mean over {span(pooled['seeds'])} seeds, highest memory. " if pooled["seeds"].max() > 1 else ""
    said += "The validation loss is the method's own: it compares seeds and variants, not methods."
    if settings := [text for name in SETTINGS if name in costs and (text := setting(costs, name))]:
        said += f" Settings: {', '.join(settings)}."
    return Table("cost of pretraining", [(name, of) for name, of, _ in columns], rows, [], said)


def source_table(costs: "pd.DataFrame", order: Sequence[str]) -> Table | None:
    """Lines by the sets that they were pretrained on: the validation loss on each at the end, and what share of the
    pairs was of it. None where every line had a single set.
    """
    if "validation_losses" not in costs:
        return None
    several = costs[costs["validation_losses"].map(lambda value: isinstance(value, dict))]
    if several.empty:
        return None
    names = list(dict.fromkeys(name for mixture in several["mixture"] for name in mixture))
    lines = {str(line): seeds for line, seeds in several.groupby("line")}

    def row(line: str) -> list[Cell]:
        losses = [[seed[name] for seed in lines[line]["validation_losses"] if name in seed] for name in names]
        return [Cell(f"{np.mean(of_seeds):.3f}" if of_seeds else MISSING) for of_seeds in losses]

    shares = [
        sorted({f"{100 * mixture.get(name, 0):.1f}" for mixture in several["mixture"]}, key=float) for name in names
    ]
    footer = [("share of pairs, %", [Cell("–".join(of_name[:: max(1, len(of_name) - 1)])) for of_name in shares])]
    seeds = several.groupby("line")["seed"].nunique()
    said = f"Mean over {span(seeds)} seeds. " if seeds.max() > 1 else ""
    said += "Over batches of one set each, where in training a batch has pairs of all; no comparison of methods."
    rows = [(line, row(line)) for line in order if line in lines]
    return Table("validation loss by source", [(name, "") for name in names], rows, footer, said)


def setting(costs: "pd.DataFrame", name: str) -> str:
    """A setting as most lines have it, and the lines that differ: ``accumulation cached (msd: keyed)``. Empty for one
    that was not recorded, or that tells the lines apart by name.
    """
    values = costs[name].dropna().map(lambda x: f"{x:g}" if isinstance(x, float) else str(x))
    values = values[values != ""]
    if values.empty or (name in IDENTITY and costs[name].nunique() > 1):
        return ""
    usual = values.value_counts().index[0]
    lines = values.groupby(costs["line"]).agg(lambda seeds: "/".join(natural(seeds.unique())))
    others = [f"{', '.join(group.index)}: {value}" for value, group in lines.groupby(lines) if value != usual]
    return f"{name} {usual}" + (f" ({'; '.join(others)})" if others else "")


def unit(column: "pd.Series[float]", base: str = "") -> tuple[str, list[str]]:
    prefix, texts = scaled(column)
    return prefix + base, texts


def scaled(*columns: Any) -> Any:
    """The prefix (k, M, G, T: powers of 1000) that suits the smallest number, and each column's numbers [n] in it,
    with the decimals that give the smallest three digits.
    """
    numbers = np.concatenate(columns)
    smallest = np.log10(min(numbers[numbers > 0], default=1.0))
    power = int(np.clip(smallest // 3, 0, 4))
    decimals = int(np.clip(np.ceil(3 * power + 2 - smallest), 0, 2))
    texts = [[MISSING if np.isnan(x) else f"{x / 1000**power:,.{decimals}f}" for x in column] for column in columns]
    return ["", "k", "M", "G", "T"][power], *texts


def clock(seconds: float) -> str:
    """>>> clock(42.3), clock(3661)
    ('0:00:42', '1:01:01')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def to_terminal(table: Table, width: int) -> "Iterator[RenderableType]":
    """The table as rich renders it in ``width`` columns: in blocks of datasets where they do not fit side by side;
    names are broken at their separators, nothing is cut.
    """
    from rich.text import Text

    yield Text(table.title, style="bold")
    labels = [label for label, _ in [*table.rows, *table.footer]]
    first = min(max(map(len, labels)), max(14, width // 4))
    widths = []
    for index, (name, unit) in enumerate(table.columns):
        cells = [cells[index] for _, cells in [*table.rows, *table.footer]]
        pieces = [piece.strip() for text in (name, unit) for piece in (break_points(text) if len(text) > 9 else [text])]
        contents = [text for cell in cells for text in (cell.text, *cell.under.splitlines())]
        widths.append(min(18, max(map(len, pieces + contents))))
    for number in range(1, len(widths) + 1):
        blocks = np.array_split(np.arange(len(widths)), number)
        if all(first + sum(widths[index] + 2 for index in block) <= width for block in blocks):
            break
    for block in blocks:
        yield grid(table, block, first, widths)
        yield Text("")
    yield Text(table.caption + "\n", style="dim")


def grid(table: Table, block: Iterable[int], first: int, widths: Sequence[int]) -> "Grid":
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    block = list(block)
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
    """The pieces that a name may be broken into: after spaces and separators."""
    return re.split(r"(?<=[\s_/=,-])", text)


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most ``width``: broken at spaces; at separators where a word is longer; anywhere where a piece is."""
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
    header = ["", *(escape(name) + (f"<br>*{escape(unit)}*" if unit else "") for name, unit in table.columns)]
    lines = [header, ["---", *["---:"] * len(table.columns)]]
    for label, cells in [*table.rows, *table.footer]:
        texts = [f"**{escape(cell.text)}**" if cell.best else escape(cell.text) for cell in cells]
        unders = ["".join(f"<br><sub>{escape(line)}</sub>" for line in cell.under.splitlines()) for cell in cells]
        lines.append([escape(label), *(text + under for text, under in zip(texts, unders))])
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"## {escape(table.title)}\n\n{rows}\n\n{escape(table.caption)}\n"


def escape(text: str) -> str:
    """Text that neither Markdown nor the HTML within it reads as its own."""
    return re.sub(r"([\\`*_{}\[\]|~#$])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
