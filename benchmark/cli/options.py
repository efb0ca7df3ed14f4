"""The options that commands share, and the console that they print to."""

import inspect
import shlex
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from benchmark.common.errors import BenchError
from benchmark.common.text import Terminal

if TYPE_CHECKING:
    from benchmark.config.schema import RunConfig
    from benchmark.store.store import Store

console = Terminal()

Plugins = Annotated[
    list[Path] | None, typer.Option("--plugin", help="A Python file that registers methods or tasks; repeatable.")
]
Results = Annotated[
    Path | None, typer.Option(help="The folder of the results. Default: $BENCH_RESULTS, else ./results.")
]
ResultFolders = Annotated[
    str | None,
    typer.Option(
        "--results",
        help="The folder of the results; or several, comma-separated, of several machines or groups, which are read as "
        "one. Default: $BENCH_RESULTS, else ./results.",
    ),
]
ProgressMode = Annotated[
    str, typer.Option("--progress", help="auto (bars on a terminal, lines elsewhere), bars, lines or none.")
]


@dataclass(frozen=True)
class RunOptions:
    """The options of a run: a suite, overrides of its settings, and the results folder."""

    methods: Annotated[
        str | None,
        typer.Option(help="Names of methods or of the suite's arms, comma-separated, or all. Default: the suite's."),
    ] = None
    tasks: Annotated[
        str | None, typer.Option(help="all, kinds (retrieval), or kind:dataset (linear_probe:busi), comma-separated.")
    ] = None
    suite: Annotated[str, typer.Option(help="A suite's name, or the path of its YAML.")] = "demo"
    model: Annotated[str | None, typer.Option(help="A model's name, or the path of its YAML.")] = None
    pretraining: Annotated[
        str | None, typer.Option(help="Datasets to pretrain on: names or paths of cards, comma-separated.")
    ] = None
    datasets: Annotated[
        str | None, typer.Option(help="Datasets to evaluate on: names or paths of cards, comma-separated.")
    ] = None
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds: 3 runs seeds 0, 1, 2.")] = None
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None
    gpus_per_cell: Annotated[
        int | None, typer.Option(min=1, help="GPUs (with --device cpu, processes) that train a cell together.")
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Set training.warmup=0, msd.momentum=0.99, or for one arm msd.training.epochs=3; repeatable."
        ),
    ] = None
    budget: Annotated[
        str | None,
        typer.Option(help="Training budget of every method: samples=200k, steps=5k, epochs=3, time=10m, flops=2P."),
    ] = None
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid", help="Run each value: msd.alpha=0,0.4, pretraining=SET,SET or budget=samples=10k,40k; repeatable."
        ),
    ] = None
    tuned: Annotated[bool, typer.Option("--tuned", help="Use the settings that `bench tune` found for each arm.")] = (
        False
    )
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Stop when a dataset of the suite is missing, instead of leaving it out; plan prices it."
        ),
    ] = False
    scenario: Annotated[
        str | None,
        typer.Option(
            help="rare, shift, noisy, 256, 1k or 4k; with a value: noisy=0.1,0.5. Of any dataset, in the suite: "
            "rare:SET.CLASS=0.01, small:SET=256,1024. See bench list suites."
        ),
    ] = None
    plugin: Plugins = None
    on_bad_data: Annotated[
        str | None, typer.Option(help="error stops at a bad row; skip leaves it out and reports how many.")
    ] = None
    results: Results = None
    progress: ProgressMode = "auto"

    @property
    def folder(self) -> Path:
        """The folder of the results."""
        return folder_of(self.results)

    def config(self) -> "RunConfig":
        """Import the plug-ins, and load the suite with these options applied."""
        from benchmark.api import configure

        return configure(
            self.suite,
            methods=names_of(self.methods),
            tasks=names_of(self.tasks),
            model=self.model,
            pretraining=names_of(self.pretraining),
            datasets=names_of(self.datasets),
            seeds=self.seeds,
            device=self.device,
            gpus_per_cell=self.gpus_per_cell,
            on_bad_data=self.on_bad_data,
            strict=self.strict or None,
            tuned=str(self.folder / "tuning") if self.tuned else None,
            settings=self.settings or [],
            budget=self.budget,
            grid=self.grid or [],
            scenario=self.scenario,
            plugins=self.plugin or [],
        )


def takes_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a decorator that adds options of ``RunOptions`` to a command and passes them as its first argument.

    names: the options to add; default all. The command's own parameters are kept.
    """
    shared = [field for field in fields(RunOptions) if not names or field.name in names]
    hints = get_type_hints(RunOptions, include_extras=True)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command).parameters.values())[1:]

        @wraps(command)
        def collect(**values: Any) -> None:
            chosen = {field.name: values.pop(field.name) for field in shared}
            command(RunOptions(**chosen), **values)

        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        for field in shared:
            assert field.default is not MISSING
            parameters.append(
                inspect.Parameter(
                    field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
                )
            )
        collect.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        collect.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return collect

    return decorate


def folder_of(results: Path | None) -> Path:
    """Return the folder of the results: ``--results``, else the default."""
    from benchmark.config.load import results_folder

    return results or results_folder()


def folders_of(results: str | None) -> list[Path]:
    """Return the folders of the results: one, or several with commas between. A folder's own name may have commas."""
    names = [results] if results and Path(results).is_dir() else names_of(results)
    return [Path(name) for name in names] if names else [folder_of(None)]


def results_option(results: Path | None) -> str:
    """Return the option that another command needs to find the results, after a blank; empty for the default."""
    return f" --results {shlex.quote(str(results))}" if results else ""


def store_of(results: str | None) -> "Store":
    """Open the results to read, in one folder or in several."""
    from benchmark.store.merged import open_store

    return open_store(folders_of(results))


def names_of(text: str | None) -> list[str] | None:
    """Split names at commas; None stays None. Raises ``BenchError`` for a text without names."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise BenchError("expected names separated by commas, found none")
    return names


def say(text: str, style: str | None = None) -> None:
    """Print a text verbatim: no markup, no highlighting, no added line breaks."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
