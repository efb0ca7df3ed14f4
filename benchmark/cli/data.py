"""`bench data`: look at datasets, get them, check them, prepare them. Thin, like cli.py."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmark.common.errors import BenchError, unknown

data_app = typer.Typer(no_args_is_help=True, help="Look at datasets, get them, check them, prepare them.")
console = Console()

Name = Annotated[str, typer.Argument(help="A dataset's name, or the path of its card.")]
OnBadData = Annotated[str, typer.Option(help="error stops at a bad row; skip leaves it out.")]


@data_app.command("list", epilog="Example: BENCH_DATA=/data bench data list --missing")
def data_list(
    found: Annotated[bool, typer.Option("--found", help="Only those that are there.")] = False,
    missing: Annotated[bool, typer.Option("--missing", help="Only those that are not.")] = False,
) -> None:
    """List the datasets that have a card: which are found under $BENCH_DATA, which are missing."""
    from benchmark.data.card import card_names, load_card

    table = Table(box=None, pad_edge=False)
    for column in ("dataset", "state", "modality", "carries", "access"):
        table.add_column(column, no_wrap=column in ("dataset", "state"))
    there = 0
    names = card_names()
    for name in names:
        card = load_card(name)
        is_there = card.source.found()
        there += is_there
        if (found and not is_there) or (missing and is_there):
            continue
        state = "embedded" if card.access == "embedded" else "found" if is_there else "missing"
        colour = "yellow" if state == "missing" else "green"
        carries = ", ".join(sorted(card.provides))
        table.add_row(name, f"[{colour}]{state}[/]", escape(card.modality), carries, card.access or "")
    console.print(table)
    console.print(f"{there} of {len(names)} are there; bench data how NAME tells how to get one", highlight=False)


@data_app.command("how", epilog="Example: bench data how ham10000")
def data_how(name: Name) -> None:
    """Tell how to get a dataset, where to put it, and what it may be used for."""
    from benchmark.data.card import load_card

    card = load_card(name)
    rows = " ".join(f"{split} {count:,}" for split, count in card.rows.items())
    for key, value in (
        ("", f"{card.title} ({card.name})"),
        ("access", card.access or "not said"),
        ("licence", card.licence),
        ("size", card.size),
        ("images", rows),
        ("home page", card.home_page),
        ("citation", card.citation),
    ):
        if value:
            _print(f"{key}: {value}" if key else value)
    for number, step in enumerate(card.how, 1):
        _print(f"{number}. {step}")
    if card.layout:
        _print(f"expected on disk:\n{card.layout.rstrip()}")
    for note in card.notes:
        _print(f"note: {note}")
    absent = "missing" if card.source.needs() else f"not in the cache; bench data check {name} loads it"
    _print("state: found" if card.source.found() else f"state: {absent}")


@data_app.command("show", epilog="Example: bench data show phantom-cxr --split test")
def data_show(
    name: Name,
    split: Annotated[str, typer.Option(help="The split of the contact sheet.")] = "train",
    output: Annotated[Path | None, typer.Option(help="Where the PNG goes. Default: ./NAME-SPLIT.png.")] = None,
    on_bad_data: OnBadData = "error",
) -> None:
    """Print a dataset's counts and draw a contact sheet of samples with their texts."""
    from benchmark.data.tools.contact_sheet import contact_sheet, describe

    dataset = _open(name, on_bad_data)
    path = output or Path(f"{dataset.card.name}-{split}.png")
    contact_sheet(dataset, split, path)
    _print_nested(describe(dataset))
    _print(str(path))


@data_app.command("check", epilog="Example: bench data check my-card.yaml")
def data_check(name: Name) -> None:
    """Read every row and decode every image; report the first thing that is wrong, with file and row."""
    dataset = _open(name, "error")
    with _progress(f"checking {name}") as progress:
        dataset.check(progress=progress)
    if dataset.streams:
        _print(f"{dataset.card.name}: nothing wrong in the first sample of each shard; training looks at the others")
        return
    counts = ", ".join(f"{split} {len(dataset.records(split)):,}" for split in dataset.splits())
    _print(f"{dataset.card.name}: nothing wrong; images: {counts}")


@data_app.command("verify", epilog="Example: bench data verify ham10000 --output ham10000.json")
def data_verify(
    name: Name,
    context_length: Annotated[int, typer.Option(help="Tokens that a text may have; 0 does not look.")] = 77,
    output: Annotated[Path | None, typer.Option(help="A JSON file for the report.")] = None,
) -> None:
    """Compare a dataset with its card: counts, images that do not decode, groups and near-duplicates across splits,
    texts that are empty or too long. Exit status 1 when something is wrong, 0 when there are only warnings.
    """
    from benchmark.data.tools.verify import verify

    dataset = _open(name, "skip")
    with _progress(f"verifying {name}") as progress:
        findings = verify(dataset, context_length, _clip_tokens() if context_length else None, progress)
    for finding in findings:
        colour = "red" if finding.severity == "error" else "yellow"
        console.print(
            f"[{colour}]{finding.severity}[/] {escape(f'{finding.check}: {finding.message}')}",
            highlight=False,
            soft_wrap=True,
        )
    counts = ", ".join(f"{split} {len(dataset.rows(split)):,}" for split in dataset.splits())
    errors = sum(finding.severity == "error" for finding in findings)
    _print(f"{dataset.card.name}: {errors} errors, {len(findings) - errors} warnings; images: {counts}")
    if output:
        report = {"dataset": dataset.card.name, "findings": [asdict(finding) for finding in findings]}
        try:
            output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise BenchError(f"{output}: cannot be written: {error.strerror}") from error
    if errors:
        raise typer.Exit(1)


@data_app.command("prepare", epilog="Example: bench data prepare pmc-oa --size 224 --on-bad-data skip")
def data_prepare(
    name: Name,
    size: Annotated[int, typer.Option(min=8, help="Pixels a side: the model's, or training.resolution.")] = 64,
    on_bad_data: OnBadData = "error",
) -> None:
    """Decode and resize a dataset's images ahead of a run. An interrupted preparation goes on where it was."""
    from benchmark.data.prepared import damaged

    dataset = _open(name, on_bad_data)
    with _progress(f"preparing {name}") as progress:
        dataset.check(size, progress)
    if dataset.streams:
        _print(f"{dataset.card.name}: streams, so nothing is prepared; its samples are listed in {dataset.cache}")
        return
    for split in dataset.splits():
        if count := damaged(dataset, split, size, dataset.cache):
            message = f"{count:,} images of {name}, {split}, are damaged; delete its folder 'prepared'"
            raise BenchError(f"cache {dataset.cache}: {message}")
    for reason, count in dataset.left_out.items():
        console.print(f"left out: {count:,} {escape(reason)}", style="yellow", highlight=False)
    _print(f"{dataset.card.name}: prepared at {size} pixels in {dataset.cache}")


@data_app.command("new", epilog="Example: bench data new ~/data/busi --output busi.yaml")
def data_new(
    path: Annotated[Path, typer.Argument(help="A table (CSV, JSON Lines, ...), or a folder with one or of classes.")],
    output: Annotated[Path | None, typer.Option(help="The card. Default: ./NAME.yaml.")] = None,
) -> None:
    """Write a card for data of your own, as far as it can be seen from them, and say what was inferred and what is
    left to you.
    """
    from benchmark.data.tools.infer_card import write_card

    card = output or Path(f"{path.absolute().stem}.yaml")
    told = write_card(path, card)
    _print(f"{card} is written; next: bench data verify {card}")
    for line in told:
        _print(line)


def _open(name: str, on_bad_data: str) -> Any:
    from benchmark.data.card import load_card
    from benchmark.data.dataset import open_dataset

    if on_bad_data not in ("error", "skip"):
        raise unknown("value of --on-bad-data", on_bad_data, ["error", "skip"])
    return open_dataset(load_card(name), on_bad_data)  # type: ignore[arg-type]


def _clip_tokens() -> Any:
    """Counts a text's tokens as CLIP's tokenizer makes them."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    return lambda text: len(tokenizer.encode(text)) + 2


@contextmanager
def _progress(description: str) -> Iterator[Any]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task(description, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


def _print(text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _print_nested(content: Any, indent: int = 0) -> None:
    for key, value in content.items():
        if isinstance(value, dict):
            _print(f"{' ' * indent}{key}:")
            _print_nested(value, indent + 2)
        else:
            _print(f"{' ' * indent}{key}: {value}")
