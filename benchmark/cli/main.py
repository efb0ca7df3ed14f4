"""`bench`: run, report, plan, list, data. Thin: what takes seconds to import is imported where it is used."""

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmark.cli.data import console, data_app
from benchmark.common.errors import BenchError, unknown

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Compare ways of contrastive image-text pretraining on downstream tasks.",
    epilog="Example: bench run --methods msd,clip --tasks all",
)
app.add_typer(data_app, name="data")

Methods = Annotated[
    str | None, typer.Option("--methods", help="Names of methods, comma-separated, or all. Default: the suite's.")
]
Tasks = Annotated[
    str | None,
    typer.Option("--tasks", help="all, kinds (retrieval), or kind:dataset (linear_probe:busi), comma-separated."),
]
Suite = Annotated[str, typer.Option(help="A suite's name, or the path of its YAML.")]
Model = Annotated[str | None, typer.Option(help="A model's name, or the path of its YAML.")]
Pretraining = Annotated[
    str | None, typer.Option(help="Datasets to pretrain on: names or paths of cards, comma-separated.")
]
Datasets = Annotated[
    str | None, typer.Option(help="Datasets to evaluate on: names or paths of cards, comma-separated.")
]
Seeds = Annotated[int | None, typer.Option(min=1, help="Number of seeds: 3 runs seeds 0, 1, 2.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="section.key=value over the suite; repeatable: msd.momentum=0.99")
]
Budget = Annotated[
    str | None, typer.Option(help="What every method gets: samples=200k, steps=5k, epochs=3, time=10m or flops=2P.")
]
Grid = Annotated[
    list[str] | None,
    typer.Option("--grid", help="section.key=value,value: run at each; repeatable, the product is run."),
]
Tuned = Annotated[bool, typer.Option("--tuned", help="Give each method what `bench tune` found for it.")]
Scenario = Annotated[
    str | None,
    typer.Option(help="rare, shift, noisy, 256, 1k or 4k; with a value: noisy=0.1,0.5. See bench list suites."),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse when a dataset of the suite is missing, instead of leaving it out.")
]
Plugins = Annotated[
    list[Path] | None, typer.Option("--plugin", help="A Python file that registers methods or tasks; repeatable.")
]
OnBadData = Annotated[str | None, typer.Option(help="error stops at a bad row; skip leaves it out and says how many.")]
Results = Annotated[Path | None, typer.Option(help="Where results go. Default: $BENCH_RESULTS, else ./results.")]


@app.command(epilog="Example: bench run --methods msd,clip --tasks retrieval --seeds 3 --budget samples=100k")
def run(
    methods: Methods = None,
    tasks: Tasks = None,
    suite: Suite = "demo",
    model: Model = None,
    pretraining: Pretraining = None,
    datasets: Datasets = None,
    seeds: Seeds = None,
    device: Device = None,
    settings: Settings = None,
    budget: Budget = None,
    grid: Grid = None,
    tuned: Tuned = False,
    strict: Strict = False,
    scenario: Scenario = None,
    plugin: Plugins = None,
    on_bad_data: OnBadData = None,
    results: Results = None,
) -> None:
    """Pretrain each method, evaluate it on each task, store the rows.

    What is in the results folder already is not done again; an interrupted run goes on with the same command.
    """
    config, folder = _config(**locals())
    from benchmark.plan.make import make_plan

    made = make_plan(config)
    for name in made.absent:
        console.print(f"left out: {name}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    _execute(made, folder)


@app.command("eval", epilog="Example: bench eval --model open_clip:ViT-B-32/openai --tasks all --datasets phantom-cxr")
def eval_(
    model: Annotated[
        str,
        typer.Option(
            help="open_clip:NAME/TAG (or /FILE), open_clip:local-dir:FOLDER, hf:FOLDER, timm:NAME (images only), or a "
            "model card."
        ),
    ],
    tasks: Tasks = None,
    suite: Suite = "demo",
    datasets: Datasets = None,
    seeds: Seeds = None,
    device: Device = None,
    settings: Settings = None,
    plugin: Plugins = None,
    on_bad_data: OnBadData = None,
    results: Results = None,
) -> None:
    """Evaluate a model that was trained elsewhere; its rows stand in the same report."""
    config, folder = _config(**(locals() | {"model": None}))
    from benchmark.plan.make import evaluation_plan

    _execute(evaluation_plan(config, model), folder)


@app.command(epilog="Example: bench plan --methods all --model vit-b-16 --set training.batch_size=512")
def plan(
    methods: Methods = None,
    tasks: Tasks = None,
    suite: Suite = "demo",
    model: Model = None,
    pretraining: Pretraining = None,
    datasets: Datasets = None,
    seeds: Seeds = None,
    device: Device = None,
    settings: Settings = None,
    budget: Budget = None,
    grid: Grid = None,
    tuned: Tuned = False,
    strict: Strict = False,
    scenario: Scenario = None,
    plugin: Plugins = None,
    on_bad_data: OnBadData = None,
    results: Results = None,
) -> None:
    """Show what a run would do and cost; execute nothing."""
    config, folder = _config(**locals())
    from benchmark.models.download import to_download
    from benchmark.plan.estimate import Estimator
    from benchmark.plan.make import make_plan
    from benchmark.store.store import Store

    made, store = make_plan(config), Store(folder)
    if made.problems:
        for problem in made.problems:
            console.print(escape(f"cannot run: {problem}"), style="red", highlight=False, soft_wrap=True)
        raise typer.Exit(1)
    estimator = Estimator(made, store.costs())
    title = f"suite {config.suite}, model {made.model.name}, device {made.device}; trained parameters in millions"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("method", "seed", "state", "pairs", "time", "memory", "image", "text", "all", "of"):
        table.add_column(column, justify="left" if column in ("method", "state") else "right", overflow="fold")
    seconds, rough, due, full_texts = 0.0, False, False, 0
    varied = _varied((cell.method, cell.label["variant"]) for cell in made.cells)
    cells = [*([made.initial] if made.initial else []), *made.cells]
    for cell in cells:
        missing = len(made.missing(store, cell))
        done = store.finished(cell.key)
        if cell is made.initial:
            from benchmark.store.cache import cache_root

            missing, done = 0, (cache_root() / "initial" / cell.key).is_dir()
        state = "done" if done and not missing else f"evaluate {missing}" if done else "train"
        if not done and store.partial(cell.key).is_dir():
            state = "resume"
        due |= state != "done"
        estimate = estimator.cell(cell, _training_pairs(made, cell))
        if not estimate.length_known:
            full_texts = estimate.text_length
        if not done:
            seconds += estimate.seconds
            rough |= not estimate.measured
        where = "" if cell.condition is None else f"on {', '.join(cell.pretraining)}"
        name = " ".join(filter(None, (cell.method, cell.label["variant"] if cell.method in varied else "", where)))
        parameters = estimate.parameters
        table.add_row(
            escape(name if cell is not made.initial else f"{cell.method} (initial weights)"),
            str(cell.seed),
            state,
            _count(estimate.samples),
            "" if done else _duration(estimate.seconds),
            f"{estimate.memory / 1e6:,.0f} MB",
            *(
                f"{count / 1e6:.2f}"
                for count in (
                    parameters["parameters_image_trainable"],
                    parameters["parameters_text_trainable"],
                    parameters["parameters_trainable"],
                    parameters["parameters"],
                )
            ),
        )
    for given in made.given:
        missing = len(made.missing(store, given))
        due |= missing > 0
        table.add_row(given.name, str(given.seed), f"evaluate {missing}" if missing else "done")
    console.print(table)
    text = f"training: about {_duration(seconds)}" + (" (a rough estimate until a cell was measured)" if rough else "")
    kinds: dict[str, list[str]] = {}
    for pair in made.pairs:
        kinds.setdefault(pair.task, []).append(pair.dataset)
    console.print(escape(text), highlight=False)
    if full_texts:
        text = f"counted for texts of {full_texts} tokens, the most that the model reads: the data are not in the cache"
        console.print(escape(text), highlight=False)
    if made.language and any("language_model" in cell.content for cell in made.cells):
        console.print(escape(f"language model: from {', '.join(made.language.datasets)}"), highlight=False)
    for what in to_download(made.model) if due else ():
        text = f"{what}: not on this machine, will be downloaded"
        console.print(escape(text), style="yellow", highlight=False, soft_wrap=True)
    for kind, names in kinds.items():
        console.print(escape(f"{kind}: {', '.join(names)}"), highlight=False)
    for reason in [*made.absent, *made.left_out]:
        console.print(escape(f"left out: {reason}"), style="yellow", highlight=False)


@app.command(epilog="Example: bench tune --methods clip,msd --trials 12 --search msd.momentum=0.9..0.999")
def tune(
    methods: Methods = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials of each method, those of earlier calls counted.")] = 10,
    search: Annotated[
        list[str] | None,
        typer.Option(
            help="section.key=low..high, on a log scale with :log, or section.key=a,b,c; repeatable. "
            "Default: training.learning_rate over a factor of 10 either way."
        ),
    ] = None,
    objective: Annotated[
        str, typer.Option(help="What is improved, on the validation split: retrieval (recall@10) or loss.")
    ] = "retrieval",
    suite: Suite = "demo",
    model: Model = None,
    pretraining: Pretraining = None,
    device: Device = None,
    settings: Settings = None,
    budget: Budget = None,
    plugin: Plugins = None,
    on_bad_data: OnBadData = None,
    results: Results = None,
) -> None:
    """Look for each method's best settings with the same number of trials; `bench run --tuned` then uses them.

    Never looks at a test split. An interrupted search goes on with the same command.
    """
    options = {k: v for k, v in locals().items() if k not in ("trials", "search", "objective")}
    config, folder = _config(**options)
    from benchmark.execution.tuning import tune_methods

    try:
        best = tune_methods(config, folder, trials, search or [], objective, console)
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on", style="yellow")
        raise typer.Exit(130) from None
    table = Table(title=f"best of {trials} trials by {objective} on the validation split", title_justify="left")
    for column in ("method", "value", "settings"):
        table.add_column(column, overflow="fold")
    for method, found in best.items():
        settings_found = ", ".join(
            f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in found.settings.items()
        )
        table.add_row(method, f"{found.value:.3f}", settings_found)
    console.print(table)
    console.print("next: the same options with `bench run --tuned`", highlight=False)


@app.command(epilog="Example: bench report --results results --reference clip")
def report(
    results: Results = None,
    reference: Annotated[
        str | None,
        typer.Option(help="The method (or line of the tables) that the others are compared with. Default: the best."),
    ] = None,
) -> None:
    """Print the tables of the results, and write report.md, results.csv and the plots beside them."""
    from benchmark.config.load import results_folder
    from benchmark.report.sections import write_report
    from benchmark.store.store import Store

    folder = results or results_folder()
    store = Store(folder)
    paths = write_report(
        store.rows(), store.costs(), folder / "report", console, store.resamples, reference, store.notes
    )
    for path in paths:
        console.print(str(path), highlight=False, markup=False, soft_wrap=True)


@app.command(epilog="Example: bench caption --dataset phantom-cxr --beams 3 --count 8")
def caption(
    dataset: Annotated[str, typer.Option(help="A dataset's name, or the path of its card.")],
    method: Annotated[str | None, typer.Option(help="A method that can caption. Default: the last trained.")] = None,
    beams: Annotated[int, typer.Option(min=2, help="Captions kept in the search at a time, beside greedy search.")] = 3,
    count: Annotated[int, typer.Option(min=1, help="Images.")] = 8,
    split: Annotated[str, typer.Option(help="The split of the images.")] = "test",
    pretraining: Annotated[
        str | None, typer.Option(help="Cards that the method was pretrained on and that are not shipped: their paths.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    output: Annotated[Path | None, typer.Option(help="Where the PNG goes. Default: ./DATASET-captions.png.")] = None,
    plugin: Plugins = None,
    results: Results = None,
) -> None:
    """Show what a trained method writes for images, greedy and by beam search, beside their true texts.

    Takes the newest cell of the results whose method can caption; prints the texts and draws them with the images.
    """
    from benchmark.config.load import results_folder
    from benchmark.data.card import load_card
    from benchmark.data.dataset import open_dataset
    from benchmark.execution.caption import caption_sheet, captions, load_writer, name_of, newest_writer
    from benchmark.plan.resolve import resolve_device
    from benchmark.store.store import Store

    _load(plugin)
    store = Store(results or results_folder())
    opened = open_dataset(load_card(dataset))
    if split not in opened.splits():
        raise unknown(f"split of {opened.card.name}", split, opened.splits())
    key = newest_writer(store, method)
    trained = load_writer(store, key, [dataset, *(_names(pretraining) or [])])
    writer = trained.writer(resolve_device(device))
    shown = captions(writer, opened, split, count, (1, beams))
    table = Table(show_lines=True)
    for column in ("image", "true", *(name_of(k) for k in (1, beams))):
        table.add_column(column, overflow="fold")
    for row in shown:
        table.add_row(*(escape(text) for text in (row.id, " / ".join(row.true), *row.written.values())))
    console.print(table)
    title = f"{trained.method.name} (cell {key}, {trained.checkpoint} checkpoint) on {opened.card.name}, {split}"
    path = caption_sheet(shown, title, output or Path(f"{opened.card.name}-captions.png"))
    console.print(title, highlight=False, markup=False, soft_wrap=True)
    console.print(str(path), highlight=False, markup=False, soft_wrap=True)


@app.command(epilog="Example: bench perf --methods all --model vit-b-16 --output results/reference/steps.json")
def perf(
    works: Annotated[str | None, typer.Option(help="Names, comma-separated. Default: all.")] = None,
    scale: Annotated[float, typer.Option(min=0.001, max=1.0, help="1 is full size: minutes on two cores.")] = 1.0,
    methods: Annotated[
        str | None,
        typer.Option(help="Instead of the works, a training step of these methods (or all) beside each other."),
    ] = None,
    reference: Annotated[str, typer.Option(help="The method that the others' steps are compared with.")] = "clip",
    suite: Suite = "demo",
    model: Model = None,
    device: Device = None,
    settings: Settings = None,
    grid: Grid = None,
    plugin: Plugins = None,
    output: Annotated[Path | None, typer.Option(help="A JSON file for the figures, with machine and versions.")] = None,
) -> None:
    """Measure speed and memory beside a peer that does the same work. Ratios above 1: ours is the better.

    With --methods: a step of each method on noise with random weights; ratios above 1: it takes more than clip.
    """
    import json

    from benchmark.common.machine import machine

    content: dict[str, Any]
    if methods:
        content = _method_steps(
            reference,
            methods=methods,
            suite=suite,
            model=model,
            device=device,
            settings=settings,
            grid=grid,
            plugin=plugin,
        )
    else:
        from benchmark.perf.peers import WORKS, perf

        rows = perf(_names(works) or list(WORKS), scale, console)
        content = {"scale": scale, "works": rows}
        table = Table(title_justify="left")
        for column in ("work", "ours", "peer", "faster", "less memory"):
            table.add_column(
                column, justify="right" if column in ("faster", "less memory") else "left", overflow="fold"
            )
        for row in rows:
            table.add_row(
                f"{row['work']}: {row['title']}",
                f"{row['ours']}: {row['seconds']:.2f} s, {row['memory'] / 1e6:,.0f} MB",
                f"{row['peer']}: {row['peer_seconds']:.2f} s, {row['peer_memory'] / 1e6:,.0f} MB",
                f"{row['speed_ratio']:.1f} x",
                f"{row['memory_ratio']:.1f} x",
            )
        console.print(table)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps({"machine": machine()} | content, indent=1) + "\n")
        console.print(str(output), highlight=False, markup=False, soft_wrap=True)


def _method_steps(reference: str, **options: Any) -> dict[str, Any]:
    config, _ = _config(**options, on_bad_data=None, results=None)
    from benchmark.perf.peers import method_steps
    from benchmark.plan.make import make_plan

    made = make_plan(config)
    if made.problems:
        raise BenchError(made.problems[0])
    rows = method_steps(made, reference, console)
    table = Table(title=f"a training step, model {made.model.name}, device {made.device}", title_justify="left")
    for column in ("method", "batch", "pairs/s", "memory", "time", "memory "):
        table.add_column(column, justify="left" if column == "method" else "right", overflow="fold")
    varied = _varied((row["method"], row["variant"]) for row in rows)
    for row in rows:
        table.add_row(
            f"{row['method']} {row['variant']}" if row["method"] in varied else row["method"],
            f"{row['batch_size']}/{row['micro_batch']}",
            f"{row['pairs_per_second']:,.0f}",
            f"{row['memory'] / 1e6:,.0f} MB",
            f"{row['time_ratio']:.2f} x",
            f"{row['memory_ratio']:.2f} x",
        )
    console.print(table)
    return {"model": made.model.name, "reference": reference, "methods": rows}


@app.command(epilog="Example: bench export clip --output clip-squares")
def export(
    name: Annotated[str, typer.Argument(help="A trained cell's key (or its beginning), or a method's name.")],
    output: Annotated[Path, typer.Option(help="The folder to write; open_clip loads it as local-dir:FOLDER.")],
    results: Results = None,
) -> None:
    """Write a trained model as a checkpoint for open_clip."""
    from benchmark.config.load import results_folder
    from benchmark.execution.export import export, find_cell
    from benchmark.store.store import Store

    store = Store(results or results_folder())
    key = find_cell(store, name)
    files, checkpoint = export(store, key, output)
    for path in files:
        console.print(str(path), highlight=False, markup=False, soft_wrap=True)
    console.print(f"cell {key}, {checkpoint} checkpoint", highlight=False, markup=False, soft_wrap=True)


@app.command(epilog="Example: bench clean --embeddings --partial")
def clean(
    embeddings: Annotated[bool, typer.Option("--embeddings", help="Remove encoded datasets.")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="Remove what interrupted runs left.")] = False,
    cache: Annotated[bool, typer.Option("--cache", help="Remove prepared data, tokenizers, general weights.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    results: Results = None,
) -> None:
    """List what can be computed again and how much room it takes; remove what is named. Results stay."""
    from benchmark.config.load import results_folder
    from benchmark.store.cache import cache_root
    from benchmark.store.cleaning import KINDS, removable, remove, size
    from benchmark.store.store import Store

    found = removable(Store(results or results_folder()), cache_root())
    sizes = {kind: sum(map(size, folders)) for kind, folders in found.items()}
    for kind, what in KINDS.items():
        text = f"{kind:10} {sizes[kind] / 1e6:10,.1f} MB  {what}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    named = {"embeddings": embeddings, "partial": partial, "cache": cache}
    chosen = [kind for kind in KINDS if named[kind] and found[kind]]
    if not any(named.values()):
        console.print("nothing removed; name what to remove: --embeddings, --partial, --cache", highlight=False)
    try:
        agreed = yes or (bool(chosen) and typer.confirm(f"remove {', '.join(chosen)}?"))
    except typer.Abort:
        typer.echo()
        raise BenchError("nothing removed, as nobody answered; with --yes there is no question") from None
    if chosen and agreed:
        for kind in chosen:
            for folder in found[kind]:
                remove(folder)
        console.print(f"removed {sum(sizes[kind] for kind in chosen) / 1e6:,.1f} MB", highlight=False)


@app.command("list", epilog="Example: bench list methods")
def list_(
    what: Annotated[str, typer.Argument(help="methods, tasks, datasets, models or suites.")], plugin: Plugins = None
) -> None:
    """List what is there, with what it is."""
    listing = {"methods": _methods, "tasks": _tasks, "datasets": _datasets, "models": _models, "suites": _suites}
    if what not in listing:
        raise unknown("list", what, listing)
    _load(plugin)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for name, text in listing[what]():
        table.add_row(escape(name), escape(text))
    console.print(table)


def main() -> None:
    """The entry point: a user's mistake ends in its message and exit status 2."""
    try:
        status = app(standalone_mode=False)
    except BenchError as error:
        Console(stderr=True).print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)
    except Exception as error:
        # Typer's own usage errors (an unknown option) know how to show themselves.
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        sys.exit(getattr(error, "exit_code", 2))
    sys.exit(status if isinstance(status, int) else 0)


def _execute(plan: Any, folder: Path) -> None:
    """Run a plan and say what came of it; exit status 1 where something failed, 130 after Ctrl-C."""
    from benchmark.common.progress import Progress
    from benchmark.execution import runner
    from benchmark.store.store import Store

    try:
        with Progress(console, "auto", folder / "run.log") as progress:
            outcome = runner.run(plan, Store(folder), progress)
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from the last checkpoint", style="yellow")
        raise typer.Exit(130) from None
    console.print(
        f"trained {outcome.trained}, evaluated {outcome.evaluated}, done before {outcome.skipped}, "
        f"failed {len(outcome.failures)}; results in {folder}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if outcome.failures:
        for failure in outcome.failures:
            console.print(failure, style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1)
    console.print("next: bench report", highlight=False)


def _config(
    *,
    suite: str,
    model: str | None,
    device: str | None,
    settings: list[str] | None,
    plugin: list[Path] | None,
    on_bad_data: str | None,
    results: Path | None,
    methods: str | None = None,
    pretraining: str | None = None,
    tasks: str | None = None,
    datasets: str | None = None,
    seeds: int | None = None,
    budget: str | None = None,
    grid: list[str] | None = None,
    tuned: bool = False,
    strict: bool = False,
    scenario: str | None = None,
) -> tuple[Any, Path]:
    """The configuration that a command's options make, and where results go."""
    from benchmark.config.load import load_run_config, results_folder
    from benchmark.config.overrides import parse_scenario

    known, folder = _load(plugin), results or results_folder()
    flags = {
        "methods": _names(methods),
        "tasks": _names(tasks),
        "model": model,
        "pretraining": _names(pretraining),
        "datasets": _names(datasets),
        "seeds": list(range(seeds)) if seeds else None,
        "device": device,
        "on_bad_data": on_bad_data,
        "tuned": str(folder / "tuning") if tuned else None,
        "strict": strict or None,
    }
    conditions: list[float] = []
    if scenario:
        suite, conditions = parse_scenario(scenario)
    config = load_run_config(suite, flags, settings or [], known, budget, grid or [], conditions)
    from benchmark.plan.resolve import check_settings

    check_settings(config)
    return config, folder


def _load(plugins: list[Path] | None) -> list[str]:
    """Import the user's files; returns the names of all methods and tasks."""
    from benchmark.method import METHODS
    from benchmark.registry import load_files
    from benchmark.task import TASKS

    load_files(plugins or [])
    return [*METHODS.names(), *TASKS.names()]


def _names(text: str | None) -> list[str] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise BenchError("expected names separated by commas, found nothing")
    return names


def _training_pairs(made: Any, cell: Any) -> int | None:
    """The pairs of an epoch, counted only where the budget is in epochs: counting reads the data."""
    if cell.training.epochs is None:
        return None
    return sum(len(made.datasets[name].records("train")) for name in cell.pretraining)


def _methods() -> list[tuple[str, str]]:
    from benchmark.method import METHODS

    lines = []
    for name in METHODS.names():
        cls = METHODS[name]
        inferred = f" Inferred: {cls.inferred}." if cls.inferred else ""
        needed = cls.needs_of(cls.Config())
        needs = f" Needs {', '.join(sorted(needed))}." if needed else ""
        modes = f" Accumulation: {', '.join(cls.accumulation)}."
        declared = f" Trains {cls.trains}. Takes beyond clip: {cls.extra}."
        lines.append((name, f"{cls.summary}. {cls.source}.{declared}{needs}{modes}{inferred}"))
    return lines


def _tasks() -> list[tuple[str, str]]:
    from benchmark.task import TASKS

    lines = []
    for name in TASKS.names():
        cls = TASKS[name]
        able = f" For methods that can {', '.join(sorted(cls.abilities))}." if cls.abilities else ""
        lines.append((name, f"{cls.summary} Needs {', '.join(sorted(cls.needs))}.{able}"))
    return lines


def _datasets() -> list[tuple[str, str]]:
    from benchmark.config.yaml_files import config_names
    from benchmark.data.card import load_card

    cards = [load_card(name) for name in config_names("dataset")]
    return [(card.name, f"{card.title} ({', '.join(sorted(card.provides))})") for card in cards]


def _models() -> list[tuple[str, str]]:
    from benchmark.models import load_model_card, model_names

    return [(name, load_model_card(name).title) for name in model_names()]


def _suites() -> list[tuple[str, str]]:
    from benchmark.config.yaml_files import config_names, find_config, read_yaml

    lines = []
    for name in config_names("suite"):
        content = read_yaml(find_config("suite", name))
        question = content.get("scenario", {}).get("question", "")
        asked = f"; it asks: {question}" if question else ""
        lines.append((name, content.get("description", "") + asked))
    return lines


def _varied(variants: Iterable[tuple[str, str]]) -> set[str]:
    """The methods that come in several variants: those of which a table must say which."""
    return {method for method, count in Counter(method for method, _ in set(variants)).items() if count > 1}


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _count(number: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"
