"""`bench tune`, `caption`, `export`, `push` and `clean`: tools for before and after runs."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from benchmark.cli.options import (
    Plugins,
    ProgressMode,
    Results,
    RunOptions,
    console,
    folder_of,
    names_of,
    results_option,
    say,
    takes_options,
)
from benchmark.common.errors import BenchError, unknown

if TYPE_CHECKING:
    from benchmark.execution.caption import Captioned
    from benchmark.execution.tuning import Best

SHOWN = 20
"""The most clashes that bench merge prints."""


@takes_options(
    "methods",
    "suite",
    "model",
    "pretraining",
    "device",
    "settings",
    "budget",
    "plugin",
    "on_bad_data",
    "results",
    "progress",
)
def tune(
    options: RunOptions,
    trials: Annotated[int, typer.Option(min=1, help="Trials of each arm, including those of earlier calls.")] = 10,
    search: Annotated[
        list[str] | None,
        typer.Option(
            help="section.key=low..high (append :log for a log scale), or section.key=a,b,c; repeatable. "
            "Default: training.learning_rate within a factor of 10."
        ),
    ] = None,
    objective: Annotated[
        str, typer.Option(help="What to optimise on the validation split: retrieval (recall@10) or loss.")
    ] = "retrieval",
) -> None:
    """Search for each arm's best settings with the same number of trials; `bench run --tuned` then uses them.

    Never uses a test split. The same command resumes an interrupted search.
    """
    config = options.config()
    from benchmark.common.progress import Progress
    from benchmark.execution.tuning import tune_arms
    from benchmark.store.store import Store

    Store(options.folder).create()
    try:
        with Progress(console, options.progress, options.folder / "run.log") as progress:
            best = tune_arms(config, options.folder, trials, search or [], objective, progress)
            progress.print(_best_table(best, f"best of {trials} trials by {objective} on the validation split"))
    except KeyboardInterrupt:
        say("interrupted; the same command resumes", "yellow")
        raise typer.Exit(130) from None
    say(
        f"next: `bench run --tuned{results_option(options.results)}` with the same suite, model, pretraining data, "
        "budget, training settings and method options"
    )


def _best_table(best: dict[str, "Best"], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("arm", "value", "settings"):
        table.add_column(column, overflow="fold")
    for arm, result in best.items():
        settings = ", ".join(
            f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in result.settings.items()
        )
        table.add_row(arm, f"{result.value:.3f}", escape(settings))
    return table


def caption(
    dataset: Annotated[str, typer.Option(help="A dataset's name, or the path of its card.")],
    method: Annotated[str | None, typer.Option(help="A method that can caption. Default: the last trained.")] = None,
    beams: Annotated[int, typer.Option(min=2, help="Width of the beam search, shown next to greedy search.")] = 3,
    count: Annotated[int, typer.Option(min=1, help="Number of images.")] = 8,
    split: Annotated[str, typer.Option(help="The split of the images.")] = "test",
    pretraining: Annotated[
        str | None, typer.Option(help="Cards of the method's pretraining datasets, if they are not shipped.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    output: Annotated[Path | None, typer.Option(help="The PNG to write. Default: ./DATASET-captions.png.")] = None,
    plugin: Plugins = None,
    results: Results = None,
    progress: ProgressMode = "auto",
) -> None:
    """Show a trained method's captions of images, by greedy and beam search, next to the true texts.

    Uses the newest cell whose method can caption; prints the texts and draws them with the images.
    """
    from benchmark.common.progress import Progress
    from benchmark.data.card import load_card
    from benchmark.data.dataset import open_dataset
    from benchmark.execution.caption import caption_sheet, captions, load_writer, newest_writer
    from benchmark.plan.resolve import resolve_device
    from benchmark.registry import load_files
    from benchmark.store.store import Store

    load_files(plugin or [])
    store = Store(folder_of(results))
    opened = open_dataset(load_card(dataset))
    name = opened.card.name
    if split not in opened.splits():
        raise unknown(f"split of {name}", split, opened.splits())
    key = newest_writer(store, method)
    with Progress(console, progress) as shown, shown.stage(f"writing captions for {count} images"):
        trained = load_writer(store, key, [dataset, *(names_of(pretraining) or [])])
        captioned = captions(trained.writer(resolve_device(device)), opened, split, count, (1, beams))
    console.print(_caption_table(captioned, (1, beams)))
    title = f"{trained.method.name} (cell {key}, {trained.checkpoint} checkpoint) on {name}, {split}"
    say(title)
    say(str(caption_sheet(captioned, title, output or Path(f"{name}-captions.png"))))


def _caption_table(captioned: "list[Captioned]", beams: tuple[int, ...]) -> Table:
    from benchmark.execution.caption import name_of

    table = Table(show_lines=True)
    for column in ("image", "true", *map(name_of, beams)):
        table.add_column(column, overflow="fold")
    for row in captioned:
        table.add_row(*map(escape, (row.id, " / ".join(row.true), *row.written.values())))
    return table


def export(
    name: Annotated[str, typer.Argument(help="A trained cell's key (or its beginning), or a method's name.")],
    output: Annotated[Path, typer.Option(help="The folder to write.")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="open_clip, or huggingface for any model: open_clip's layout where that can load it, else one that "
            "bench eval loads.",
        ),
    ] = "open_clip",
    licence: Annotated[
        str, typer.Option("--license", help="The licence of the weights, as the hub names it (apache-2.0).")
    ] = "other",
    results: Results = None,
) -> None:
    """Write a trained model as a folder with weights, configuration and a model card.

    `bench eval` loads it again, and open_clip in its format. That needs towers of open_clip, as those of vit-b-16 are;
    those of the default model, tiny, are not.
    """
    from benchmark.api import export_cell
    from benchmark.store.store import Store

    exported, restricted = export_cell(Store(folder_of(results)), name, output, format_, licence)
    for path in exported.files:
        say(str(path))
    say(f"cell {exported.key}, {exported.checkpoint} checkpoint")
    if restricted:
        say(f"trained on data whose terms may hold for the weights: {', '.join(restricted)}; see README.md", "yellow")
    loaded = "open_clip:local-dir" if exported.format == "open_clip" else "hf"
    model, folder = shlex.quote(f"{loaded}:{output}"), shlex.quote(str(output))
    say(f"next: bench eval --model {model}, or bench push {folder} --repo USER/NAME")


def push(
    folder: Annotated[Path, typer.Argument(help="A folder that bench export wrote.")],
    repo: Annotated[str, typer.Option(help="The repository on the Hugging Face hub: USER/NAME.")],
    private: Annotated[bool, typer.Option("--private", help="Create the repository as a private one.")] = False,
) -> None:
    """Upload an exported model to the Hugging Face hub. Nothing else uploads anything.

    It takes a token (`hf auth login`, or HF_TOKEN). A repository that exists keeps its visibility.
    """
    from benchmark.execution.publish import push

    say(push(folder, repo, private))


def merge(
    folders: Annotated[list[Path], typer.Argument(help="Results folders, of several machines or groups.")],
    into: Annotated[Path | None, typer.Option(help="The folder to add them to. Default: the first of them.")] = None,
) -> None:
    """Join results folders: cells, evaluations, claims, datasets and runs.

    Files are linked where the disk allows it. What clashes stays out, a line each; the report of the joined folder is
    the report over all of them.
    """
    from benchmark.store.merging import merge, said

    into = into or folders[0]
    merged = merge(folders, into)
    for line in merged.clashes[:SHOWN]:
        say(line, "yellow")
    if len(merged.clashes) > SHOWN:
        say(f"and {len(merged.clashes) - SHOWN:,} more lines like these", "yellow")
    say(f"{into}: {said(merged)}")
    say(f"next: bench report{results_option(into)}")


def clean(
    embeddings: Annotated[bool, typer.Option("--embeddings", help="Remove encoded datasets.")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="Remove the remains of interrupted runs.")] = False,
    cache: Annotated[bool, typer.Option("--cache", help="Remove prepared data, tokenizers, general weights.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    results: Results = None,
) -> None:
    """List what can be recomputed, with its size; remove what the options name. Results stay."""
    from benchmark.store.cache import cache_root
    from benchmark.store.cleaning import KINDS, linked, removable, remove, size
    from benchmark.store.store import Store

    folders = removable(Store(folder_of(results)), cache_root())
    sizes = {kind: sum(map(size, folders[kind])) for kind in folders}
    for kind, description in KINDS.items():
        say(f"{kind:10} {sizes[kind] / 1e6:10,.1f} MB  {description}")
    for folder in linked(cache_root()):
        say(f"{folder} is a link to {folder.readlink()}: its content stays; remove it there", "yellow")
    named = {"embeddings": embeddings, "partial": partial, "cache": cache}
    if not any(named.values()):
        say("Nothing removed. Choose what to remove: --embeddings, --partial, --cache.")
    chosen = [kind for kind in KINDS if named[kind] and folders[kind]]
    if not chosen or not (yes or _confirmed(f"remove {', '.join(chosen)}?")):
        return
    for kind in chosen:
        for folder in folders[kind]:
            remove(folder)
    say(f"removed {sum(sizes[kind] for kind in chosen) / 1e6:,.1f} MB")


def _confirmed(question: str) -> bool:
    try:
        return typer.confirm(question)
    except typer.Abort:
        typer.echo()
        raise BenchError("Nothing removed: no answer. Pass --yes to skip the prompt.") from None
