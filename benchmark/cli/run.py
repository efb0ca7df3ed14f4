"""`bench run`, `eval`, `plan`, `report` and `claims`."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from benchmark.cli.options import Results, RunOptions, console, folder_of, say, takes_options

if TYPE_CHECKING:
    from benchmark.plan.estimate import Estimate, Estimator
    from benchmark.plan.plan import Cell, Plan
    from benchmark.store.store import Store


@takes_options()
def run(options: RunOptions) -> None:
    """Pretrain each method, evaluate it on each task, store the rows.

    Skips what the results folder already holds; the same command resumes an interrupted run.
    """
    from benchmark.plan.make import make_plan

    _execute(make_plan(options.config()), options)


@takes_options(
    "tasks", "suite", "datasets", "seeds", "device", "settings", "plugin", "on_bad_data", "results", "progress"
)
def eval_(
    options: RunOptions,
    model: Annotated[
        str,
        typer.Option(
            help="open_clip:NAME/TAG (or /FILE), open_clip:local-dir:FOLDER, hf:FOLDER, timm:NAME (images only), or a "
            "model card."
        ),
    ],
) -> None:
    """Evaluate a model that was trained elsewhere; its rows join the same report."""
    from benchmark.plan.make import evaluation_plan

    _execute(evaluation_plan(options.config(), model), options)


def _execute(plan: "Plan", options: RunOptions) -> None:
    """Carry out a plan. Exits with status 1 if something failed and 130 after Ctrl-C."""
    from benchmark.api import execute

    try:
        outcome = execute(plan, options.folder, console, options.progress).outcome
    except KeyboardInterrupt:
        say("interrupted; the same command resumes from the last checkpoint", "yellow")
        raise typer.Exit(130) from None
    if outcome and outcome.failures:
        raise typer.Exit(1)
    say("next: bench report")


@takes_options(*(name for name in RunOptions.__dataclass_fields__ if name != "progress"))
def plan(options: RunOptions) -> None:
    """Show what a run would do and cost, without running anything."""
    config = options.config()
    from benchmark.plan.estimate import Estimator
    from benchmark.plan.make import make_plan
    from benchmark.store.store import Store

    plan, store = make_plan(config), Store(options.folder)
    for problem in plan.problems:
        say(f"cannot run: {problem}", "red")
    if plan.problems:
        raise typer.Exit(1)
    forecasts = _forecasts(plan, store, Estimator(plan, store.costs()))
    console.print(_plan_table(plan, forecasts))
    _print_notes(plan, forecasts)


@dataclass(frozen=True)
class _Forecast:
    """What a run would do with one encoder. estimate: of its training; None for an encoder that is not trained."""

    name: str
    seed: int
    state: str
    estimate: "Estimate | None" = None

    @property
    def trains(self) -> bool:
        """Whether there is training left to do."""
        return self.state in ("train", "resume")


def _forecasts(plan: "Plan", store: "Store", estimator: "Estimator") -> list[_Forecast]:
    varied = several_variants((cell.arm, cell.label["variant"]) for cell in plan.cells)

    def forecast(cell: "Cell") -> _Forecast:
        variant = cell.label["variant"] if cell.arm in varied else ""
        condition = "" if cell.condition is None else f"on {', '.join(cell.pretraining)}"
        name = " ".join(filter(None, (cell.arm, variant, condition)))
        if cell is plan.initial:
            name = f"{cell.method} (initial weights)"
        return _Forecast(name, cell.seed, _state(plan, store, cell), estimator.cell(cell, _training_pairs(plan, cell)))

    cells = [forecast(cell) for cell in [*([plan.initial] if plan.initial else []), *plan.cells]]
    encoders = []
    for fixed in filter(plan.pairs_of, plan.fixed):
        missing = len(plan.missing(store, fixed))
        encoders.append(_Forecast(fixed.name, fixed.seed, f"evaluate {missing}" if missing else "done"))
    return cells + encoders


def _state(plan: "Plan", store: "Store", cell: "Cell") -> str:
    """Return what a run would do with a cell: train, resume, evaluate N, or done."""
    from benchmark.store.cache import cache_root

    if cell is plan.initial:
        trained, missing = (cache_root() / "initial" / cell.key).is_dir(), 0
    else:
        trained, missing = store.finished(cell.key), len(plan.missing(store, cell))
    if trained:
        return f"evaluate {missing}" if missing else "done"
    return "resume" if store.partial(cell.key).is_dir() else "train"


def _training_pairs(plan: "Plan", cell: "Cell") -> int | None:
    """Count the pairs of an epoch; None unless the budget is in epochs, as counting reads the data."""
    if cell.training.epochs is None:
        return None
    return sum(len(plan.datasets[name].records("train")) for name in cell.pretraining)


def _plan_table(plan: "Plan", forecasts: list[_Forecast]) -> Table:
    title = f"suite {plan.config.suite}, model {plan.model.name}, device {plan.device}; trained parameters in millions"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("arm", "seed", "state", "pairs", "time", "memory", "image", "text", "all", "of"):
        table.add_column(column, justify="left" if column in ("arm", "state") else "right", overflow="fold")
    for forecast in forecasts:
        row = [escape(forecast.name), str(forecast.seed), forecast.state]
        if estimate := forecast.estimate:
            row += [
                _count(estimate.samples),
                _duration(estimate.seconds) if forecast.trains else "",
                f"{estimate.memory / 1e6:,.0f} MB",
            ]
            parameters = estimate.parameters
            for count in (
                parameters["parameters_image_trainable"],
                parameters["parameters_text_trainable"],
                parameters["parameters_trainable"],
                parameters["parameters"],
            ):
                row.append(f"{count / 1e6:.2f}")
        table.add_row(*row)
    return table


def _print_notes(plan: "Plan", forecasts: list[_Forecast]) -> None:
    """Print the notes below the table: the time, and what is evaluated, downloaded and left out."""
    from benchmark.models.download import to_download

    estimates = [each.estimate for each in forecasts if each.estimate]
    due = [each.estimate for each in forecasts if each.estimate and each.trains]
    rough = "" if all(each.measured for each in due) else " (a rough estimate until a cell has been trained)"
    say(f"training: about {_duration(sum(each.seconds for each in due))}{rough}")
    if assumed := [each.assumed_length for each in estimates if each.assumed_length]:
        say(f"cost of texts of {max(assumed)} tokens, the model's maximum, as the data are not in the cache yet")
    if plan.language and any("language_model" in cell.content for cell in plan.cells):
        say(f"language model: from {', '.join(plan.language.datasets)}")
    if any(each.state != "done" for each in forecasts):
        for weights in to_download(plan.model):
            say(f"{weights}: not on this machine; will be downloaded", "yellow")
    datasets: dict[str, list[str]] = {}
    for pair in plan.pairs:
        datasets.setdefault(pair.task, []).append(pair.dataset)
    for task, names in datasets.items():
        say(f"{task}: {', '.join(names)}")
    for reason in [*plan.absent, *plan.left_out]:
        say(f"left out: {reason}", "yellow")


def report(
    results: Results = None,
    reference: Annotated[
        str | None,
        typer.Option(help="The method (or line of the tables) that the others are compared with. Default: the best."),
    ] = None,
) -> None:
    """Print the tables of the results, and write report.md, results.csv and plots."""
    from benchmark.api import write_report
    from benchmark.store.store import Store

    for path in write_report(Store(folder_of(results)), None, reference, console):
        say(str(path))


def claims(
    suite: Annotated[
        str | None, typer.Option(help="A suite's name, or the path of its YAML. Default: the suites of the results.")
    ] = None,
    results: Results = None,
) -> None:
    """Say of each claim that a suite makes whether the results support or contradict it, or what is missing.

    The claims are those of the papers that a suite reproduces. The report shows the same.
    """
    from benchmark.api import judge_claims
    from benchmark.report.claims import shown
    from benchmark.report.page import print_part
    from benchmark.store.store import Store

    store = Store(folder_of(results))
    verdicts = judge_claims(store, suite)
    if not verdicts:
        where = f"suite {suite}" if suite else f"the suites that were run in {store.folder}"
        say(f"no claims of {where}; a suite states them under claims:, as cxr does")
    for part in shown(verdicts):
        print_part(part, console)


def several_variants(variants: Iterable[tuple[str, str]]) -> set[str]:
    """Return the arms with several variants, for which a table must name the variant."""
    return {arm for arm, count in Counter(arm for arm, _ in set(variants)).items() if count > 1}


def _duration(seconds: float) -> str:
    from benchmark.common.progress import duration

    return duration(seconds)


def _count(number: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"
