"""The cost of pretraining: the cost tables, and quality against cost."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.report.plots import cost_chart
from benchmark.report.render import MISSING, Cell, Plot, Sentence, Table, clock, scaled, span
from benchmark.report.results import IDENTITY, Results, each_record, each_row, natural

if TYPE_CHECKING:
    import pandas as pd

QUANTITIES: dict[str, Callable[[Sequence[float]], float]] = {
    "seconds": fmean,
    "peak_memory": max,
    "samples": fmean,
    "samples_per_second": fmean,
    "parameters": max,
    "parameters_trainable": max,
    "flops_per_sample": fmean,
    "validation_loss": fmean,
}
"""Columns of the costs that the cost table shows, and how several seeds are summarised."""
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
    "gpus_per_cell",
    "initial_weights",
]
"""Columns of the costs that its caption states: costs are comparable only under the same settings."""
UNSAID = {"gpus_per_cell": "1"}
"""Settings that it leaves out where all lines have this value."""


def pretraining_costs(results: Results) -> Iterator[Table | Sentence | Plot]:
    """Show the cost table, the validation losses by source, and the mean score against the training time."""
    costs, lines = results.costs, results.lines
    if not len(costs):
        return
    yield cost_table(costs, lines)
    if by_source := source_table(costs, lines):
        yield by_source
    points, pairs, left_out = quality_and_cost(results.scores, results.rows, costs)
    if len(points):
        figure = cost_chart(points, pairs, lines)
        yield Plot(figure, "quality-against-cost", "mean score against training time", on_page=False)
    if left_out:
        yield Sentence(f"Not in the plot because results are missing: {', '.join(left_out)}.", page_only=True)


def pool_costs(costs: "pd.DataFrame") -> "pd.DataFrame":
    """Pool the costs of each line: ``seeds`` (count), and the quantities over the seeds, NaN where not recorded."""
    import pandas as pd

    of_lines: dict[str, list[dict[str, Any]]] = {}
    for cell in each_record(costs[[name for name in ("line", "seed", *QUANTITIES) if name in costs]]):
        of_lines.setdefault(cell["line"], []).append(cell)
    lines = sorted(of_lines)
    pooled: dict[str, list[float]] = {"seeds": [len({cell["seed"] for cell in of_lines[line]}) for line in lines]}
    for name, summary in QUANTITIES.items():
        recorded = ([_number(cell.get(name)) for cell in of_lines[line]] for line in lines)
        known = ([number for number in of_line if number == number] for of_line in recorded)
        pooled[name] = [float(summary(of_line)) if of_line else np.nan for of_line in known]
    return pd.DataFrame(pooled, pd.Index(lines, name="line", dtype=object))


def _number(value: Any) -> float:
    """Return what was recorded as a number; NaN where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return np.nan


def cost_table(costs: "pd.DataFrame", order: Sequence[str]) -> Table:
    """Tabulate lines by what their pretraining cost."""
    pooled = pool_costs(costs)
    pooled = pooled.loc[[line for line in order if line in pooled.index]]
    prefix, (total, trainable) = scaled(pooled["parameters"], pooled["parameters_trainable"])
    both = [f"{part}/{whole}" for part, whole in zip(trainable, total)]
    columns: list[tuple[str, str, list[str]]] = [
        ("time", "h:mm:ss", [MISSING if np.isnan(x) else clock(x) for x in pooled["seconds"]]),
        ("peak memory", *with_unit(pooled["peak_memory"], "B")),
        ("samples", *with_unit(pooled["samples"])),
        ("samples/s", *with_unit(pooled["samples_per_second"])),
        ("trainable/parameters", prefix, both),
        ("FLOPs/sample", *with_unit(pooled["flops_per_sample"])),
        ("val. loss", "", [MISSING if np.isnan(x) else f"{x:.3f}" for x in pooled["validation_loss"]]),
    ]
    rows = [(line, [Cell(texts[index]) for *_, texts in columns]) for index, line in enumerate(pooled.index)]
    caption = f"Mean over {span(pooled['seeds'])} seeds, highest memory. " if pooled["seeds"].max() > 1 else ""
    caption += (
        "The validation loss is the method's own: it is comparable between seeds and variants, but not between methods."
    )
    if settings := [text for name in SETTINGS if name in costs and (text := setting(costs, name))]:
        caption += f" Settings: {', '.join(settings)}."
    caption += spikes(costs)
    return Table("cost of pretraining", [(name, unit_of) for name, unit_of, _ in columns], rows, [], caption)


def spikes(costs: "pd.DataFrame") -> str:
    """Write a sentence on each training whose loss rose suddenly; empty where none did."""
    from benchmark.training.spikes import spiked

    if "spikes" not in costs:
        return ""
    some = costs[costs["spikes"].map(lambda value: isinstance(value, dict))]
    return "".join(f" {row.line}, seed {row.seed}: {spiked(row.spikes)}." for row in some.itertuples())


def source_table(costs: "pd.DataFrame", order: Sequence[str]) -> Table | None:
    """Tabulate lines by the sets that they were pretrained on, or return None where every line had a single set.

    The cells are the validation losses on each set at the end; the footer has each set's share of the pairs.
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
    caption = f"Mean over {span(seeds)} seeds. " if seeds.max() > 1 else ""
    caption += (
        "Each batch has pairs of one set, while training batches mix all sets. The losses do not compare methods."
    )
    rows = [(line, row(line)) for line in order if line in lines]
    return Table("validation loss by source", [(name, "") for name in names], rows, footer, caption, page_only=True)


def setting(costs: "pd.DataFrame", name: str) -> str:
    """Write a setting as most lines have it, with the lines that differ: ``accumulation cached (msd: keyed)``.

    Empty for a setting that was not recorded, that the names of the lines contain, or that goes without saying.
    """
    recorded = costs[["line", name]].dropna(subset=[name]).to_numpy(dtype=object).tolist()
    values = [(line, f"{x:g}" if isinstance(x, float) else str(x)) for line, x in recorded if x != ""]
    distinct = {value for _, value in values}
    if distinct <= {UNSAID.get(name)} or (name in IDENTITY and len({x for _, x in recorded}) > 1):
        return ""
    of_lines: dict[str, set[str]] = {}
    for line, value in sorted(values):
        of_lines.setdefault(line, set()).add(value)
    lines_with: dict[str, list[str]] = {}
    for line, of_line in of_lines.items():
        lines_with.setdefault("/".join(natural(of_line)), []).append(line)
    usual = Counter(value for _, value in values).most_common(1)[0][0]
    others = [f"{', '.join(lines)}: {value}" for value, lines in sorted(lines_with.items()) if value != usual]
    return f"{name} {usual}" + (f" ({'; '.join(others)})" if others else "")


def with_unit(column: "pd.Series[float]", base: str = "") -> tuple[str, list[str]]:
    """Write the numbers of a column with the unit that suits them: its name, and the texts."""
    prefix, (texts,) = scaled(column)
    return prefix + base, texts


def quality_and_cost(
    scores: "pd.DataFrame", rows: "pd.DataFrame", costs: "pd.DataFrame"
) -> tuple["pd.DataFrame", list[tuple[str, str]], list[str]]:
    """Compute what the chart of quality against cost shows.

    rows, costs: labelled. Returns three things. One row a line with ``score`` (the mean over kinds of task of the mean
    over datasets) and the pooled costs of the line's cells. The pairs of task and dataset that the mean is over: those
    of the line that has the most, without the kinds of task that half of the lines have no result of. The lines that
    are left out because they lack some of these pairs: a mean over fewer is not comparable.
    """
    runs = rows.loc[rows["line"].isin(scores["line"]), ["line", "cell"]].drop_duplicates()
    points = pool_costs(runs.merge(costs.drop(columns="line"), on="cell"))
    points = points[points["seconds"] > 0]
    # By line, then by pair: the scores of a dataset, one for each of its metrics.
    lines: dict[str, dict[tuple[str, str], list[float]]] = {}
    for score in each_row(scores[scores["line"].isin(points.index)].sort_values("line", kind="stable")):
        lines.setdefault(score.line, {}).setdefault((score.task, score.dataset), []).append(score.value)
    # A kind of task that half of the lines have no result of (only some can caption) cannot compare all of them.
    counts = Counter(task for of_line in lines.values() for task in {task for task, _ in of_line})
    usual = {task for task, count in counts.items() if 2 * count > len(lines)}
    own_pairs = {line: sorted(pair for pair in of_line if pair[0] in usual) for line, of_line in lines.items()}
    pairs = max(own_pairs.values(), key=len, default=[])
    complete = [line for line, own in own_pairs.items() if {*pairs} <= {*own}]
    mean = {line: _mean_over_tasks({pair: float(np.mean(lines[line][pair])) for pair in pairs}) for line in complete}
    points = points.loc[complete].assign(score=[mean[line] for line in complete])
    return points, pairs, natural({*lines} - {*complete})


def _mean_over_tasks(scores: Mapping[tuple[str, str], float]) -> float:
    """Average over kinds of task the mean over datasets. scores: by task and dataset."""
    tasks: dict[str, list[float]] = {}
    for (task, _), score in scores.items():
        tasks.setdefault(task, []).append(score)
    return float(np.mean([np.mean(of_task) for of_task in tasks.values()])) if tasks else np.nan
