"""`bench data`: list, get, inspect, check and prepare datasets."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from benchmark.cli.options import ProgressMode, console, say
from benchmark.common.errors import BenchError, plural, unknown

if TYPE_CHECKING:
    from benchmark.common.progress import Progress
    from benchmark.data.card import Card
    from benchmark.data.dataset import Dataset

data_app = typer.Typer(
    no_args_is_help=True,
    help="List, get, inspect, check and prepare datasets.",
    epilog="Example: bench data get pathmnist && bench data verify pathmnist",
)

Name = Annotated[str, typer.Argument(help="A dataset's name, or the path of its card.")]
OnBadData = Annotated[str, typer.Option(help="error stops at a bad row; skip leaves it out.")]


@data_app.command("list", epilog="Example: BENCH_DATA=/data bench data list --missing")
def data_list(
    only_found: Annotated[bool, typer.Option("--found", help="Show only datasets that are found.")] = False,
    only_missing: Annotated[bool, typer.Option("--missing", help="Show only datasets that are missing.")] = False,
) -> None:
    """List the datasets that have a card, and whether they are found under $BENCH_DATA."""
    from benchmark.data.card import card_names, load_card

    table = Table(box=None, pad_edge=False)
    for column in ("dataset", "state", "modality", "provides", "access"):
        table.add_column(column, no_wrap=column in ("dataset", "state"))
    count = 0
    names = card_names()
    for name in names:
        card = load_card(name)
        present = card.source.is_present()
        count += present
        if (only_found and not present) or (only_missing and present):
            continue
        state = "embedded" if card.access == "embedded" else "found" if present else "missing"
        colour = "yellow" if state == "missing" else "green"
        provides = ", ".join(sorted(card.provides))
        table.add_row(name, f"[{colour}]{state}[/]", escape(card.modality), provides, card.access or "")
    console.print(table)
    say(f"{count} of {len(names)} found; bench data how NAME explains how to get one, bench data get NAME downloads it")


@data_app.command("how", epilog="Example: bench data how ham10000")
def data_how(name: Name) -> None:
    """Explain how to get a dataset, where to put it, and its licence."""
    from benchmark.data.card import load_card

    card = load_card(name)
    rows = " ".join(f"{split} {count:,}" for split, count in (card.rows or card.about_rows).items())
    rows = f"about {rows}" if card.about_rows and not card.rows else rows
    for key, value in (
        ("", f"{card.title} ({card.name})"),
        ("access", card.access or "unknown"),
        ("licence", card.licence),
        ("size", card.size),
        ("images", rows),
        ("home page", card.home_page),
        ("citation", card.citation),
    ):
        if value:
            say(f"{key}: {value}" if key else value)
    if card.get:
        say(f"bench data get {name} does these steps:")
    _say_steps(card)
    for note in card.notes:
        say(f"note: {note}")
    absent = "missing" if card.source.needs() else f"not in the cache; bench data check {name} loads it"
    say("state: found" if card.source.is_present() else f"state: {absent}")


@data_app.command("get", epilog="Example: bench data get ham10000 pathmnist --to /data")
def data_get(
    names: Annotated[
        list[str] | None, typer.Argument(help="Datasets' names, or the paths of their cards.", show_default=False)
    ] = None,
    suite: Annotated[str | None, typer.Option(help="A suite's name or path: get all its datasets.")] = None,
    to: Annotated[Path | None, typer.Option(help="The folder of your data. Default: $BENCH_DATA.")] = None,
    accept_licence: Annotated[bool, typer.Option("--accept-licence", help="Accept the licences without a prompt.")] = (
        False
    ),
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds without a byte before a host is asked again.")] = 60,
    progress: ProgressMode = "auto",
) -> None:
    """Download open datasets to where their cards expect them. An interrupted call resumes.

    Sizes and checksums are checked where the host publishes them. Of a dataset that needs registration or a certificate
    the steps are printed, and the exit status is 1.
    """
    from benchmark.data.card import load_card
    from benchmark.data.tools.download import Patience
    from benchmark.data.tools.get import ask, block_of, check_room, fetch, missing_files

    cards = {card.name: card for card in map(load_card, [*(names or []), *_datasets_of(suite)])}
    if not cards:
        raise BenchError("nothing to get: name a dataset, or a suite with --suite; see bench data list --missing")
    for name in [name for name, card in cards.items() if card.access == "embedded"]:
        say(f"{name}: is drawn in code, so there is nothing to get")
        del cards[name]
    by_hand = [card for card in cards.values() if not block_of(card)]
    folder = _data_folder(to) if len(by_hand) < len(cards) else Path()
    missing = {name: files for name, card in cards.items() if (files := missing_files(card, folder))}
    for name, card in cards.items():
        if name in missing:
            _say_offer(card, folder, sum(each.bytes or 0 for each in missing[name]))
        elif card not in by_hand:
            say(f"{name}: already in {folder}")
    _accept([cards[name] for name in missing], accept_licence)
    patience = Patience(timeout)
    wanted = {name: ask(cards[name], folder, patience) for name in missing}
    check_room(list({each.to: each for files in wanted.values() for each in files}.values()), folder)
    for name in missing:
        try:
            with _progress(progress) as shown:
                fetch(cards[name], wanted[name], folder, shown, patience)
        except KeyboardInterrupt:
            say("interrupted; the same command goes on from here", "yellow")
            raise
        say(f"{name}: is in {folder}; next: bench data verify {shlex.quote(cards[name].reference)}")
    if missing and Path(os.environ.get("BENCH_DATA", "")).expanduser().absolute() != folder:
        say(f"for the other commands, set BENCH_DATA={folder}", "yellow")
    for card in by_hand:
        say(f"{card.title or card.name} ({card.name})")
        _say_steps(card)
    if by_hand:
        for card in by_hand:
            say(f"{card.name}: {_why_by_hand(card)}", "yellow")
        raise typer.Exit(1)


@data_app.command("show", epilog="Example: bench data show phantom-cxr --split test")
def data_show(
    name: Name,
    split: Annotated[str, typer.Option(help="The split to show.")] = "train",
    output: Annotated[Path | None, typer.Option(help="The PNG to write. Default: ./NAME-SPLIT.png.")] = None,
    on_bad_data: OnBadData = "error",
) -> None:
    """Print a dataset's counts and draw a contact sheet of sample images with their texts."""
    from benchmark.data.tools.contact_sheet import contact_sheet, describe

    dataset = _open(name, on_bad_data)
    path = output or Path(f"{dataset.card.name}-{split}.png")
    contact_sheet(dataset, split, path)
    _print_nested(describe(dataset))
    say(str(path))


@data_app.command("check", epilog="Example: bench data check my-card.yaml")
def data_check(
    name: Name,
    on_bad_data: OnBadData = "error",
    prepare: Annotated[
        int | None,
        typer.Option(min=8, help="Keep the images, resized to this side in pixels, as bench data prepare does."),
    ] = None,
    progress: ProgressMode = "auto",
) -> None:
    """Read every row and decode every image; report the first error with file and row."""
    from benchmark.data.check import check, groups_in_two_splits, sharing

    dataset = _open(name, on_bad_data)
    dataset.look_closely()
    with _stage(f"checking {name}", progress) as update:
        check(dataset, prepare, update)
    if dataset.streams:
        for line in sharing(dataset):
            say(line)
        say(f"{dataset.card.name}: no errors in the first sample of each shard; training checks the rest")
        return
    counts = ", ".join(f"{split} {len(dataset.records(split)):,}" for split in dataset.splits())
    _say_left_out(dataset)
    for remark, count in dataset.remarks.items():
        say(f"{remark}: {count:,}", "yellow")
    groups = {split: set(dataset.column(split, "group")) for split in dataset.splits()}
    for line in (*sharing(dataset), *groups_in_two_splits(dataset, groups)):
        say(line)
    kept = f"prepared at {prepare} pixels in {dataset.cache}" if prepare else "decoded, not kept (--prepare SIZE does)"
    say(
        f"{dataset.card.name}: no {'other ' if dataset.left_out else ''}errors; images: {counts}; {kept}; "
        f"to look for copies across splits and at texts and labels: bench data verify {shlex.quote(name)}"
    )


@data_app.command("verify", epilog="Example: bench data verify ham10000 --output ham10000.json")
def data_verify(
    name: Name,
    context_length: Annotated[int, typer.Option(help="The most tokens that a text may have; 0 skips this check.")] = 77,
    output: Annotated[Path | None, typer.Option(help="A JSON file for the report.")] = None,
    progress: ProgressMode = "auto",
) -> None:
    """Compare a dataset with its card, and look for what invalidates an evaluation.

    Checks counts, undecodable images, groups and near-duplicates across splits, images of one colour, texts that are
    empty, overlong, very short or all the same, and labels and answers that never vary. Notes say how many rows were
    gathered by image. The exit status is 1 for errors and 0 for warnings only.
    """
    from benchmark.data.tools.verify import verify

    dataset = _open(name, "skip")
    with _stage(f"verifying {name}", progress) as update:
        findings = verify(dataset, context_length, _clip_tokens() if context_length else None, update)
    for finding in findings:
        colour = {"error": "red", "warning": "yellow", "note": "cyan"}[finding.severity]
        text = f"[{colour}]{finding.severity}[/] {escape(f'{finding.check}: {finding.message}')}"
        console.print(text, highlight=False, soft_wrap=True)
    severities = [finding.severity for finding in findings]
    errors, warnings = severities.count("error"), severities.count("warning")
    message = f"{dataset.card.name}: {plural(errors, 'error')}, {plural(warnings, 'warning')}"
    if not dataset.streams:
        counts = ", ".join(f"{split} {len(dataset.rows(split)):,}" for split in dataset.splits())
        message += f"; images: {counts}"
    say(message)
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
    size: Annotated[int, typer.Option(min=8, help="Image side in pixels: the model's, or training.resolution.")] = 64,
    on_bad_data: OnBadData = "error",
    progress: ProgressMode = "auto",
) -> None:
    """Decode and resize a dataset's images ahead of a run. An interrupted call resumes."""
    from benchmark.data.check import check
    from benchmark.data.prepared import damaged

    dataset = _open(name, on_bad_data)
    with _stage(f"preparing {name}", progress) as update:
        check(dataset, size, update)
    if dataset.streams:
        say(f"{dataset.card.name}: streams, so there is nothing to prepare; its list of samples is in {dataset.cache}")
        return
    for split in dataset.splits():
        if count := damaged(dataset, split, size, dataset.cache):
            raise BenchError(
                f"cache {dataset.cache}: {count:,} prepared images of {name}, {split}, are damaged; "
                "delete the folder 'prepared' and prepare again"
            )
    _say_left_out(dataset)
    say(f"{dataset.card.name}: prepared at {size} pixels in {dataset.cache}")


@data_app.command("new", epilog="Example: bench data new ~/data/busi --output busi.yaml")
def data_new(
    path: Annotated[
        Path,
        typer.Argument(help="A table (CSV, JSON Lines, ...) or .npz file, a folder with one, or a folder of classes."),
    ],
    output: Annotated[Path | None, typer.Option(help="The card. Default: ./NAME.yaml.")] = None,
) -> None:
    """Write a card for your own data by inference; list what was inferred and what you must fill in."""
    from benchmark.data.tools.infer_card import write_card

    card = output or Path(f"{path.absolute().stem}.yaml")
    notes = write_card(path, card)
    say(f"wrote {card}; next: bench data verify {shlex.quote(str(card))}")
    for note in notes:
        say(note)


def _say_steps(card: "Card") -> None:
    """Print how a user gets a dataset, and the files that are expected."""
    for number, step in enumerate(card.how, 1):
        say(f"{number}. {step}")
    if card.layout:
        say(f"expected on disk:\n{card.layout.rstrip()}")


def _why_by_hand(card: "Card") -> str:
    """Explain why no command downloads a dataset."""
    if not card.source.needs():
        return f"is loaded from the hub: bench data check {card.reference}"
    reasons = {"registration": "needs registration", "credentialed": "needs credentials"}
    reason = reasons.get(card.access or "", "no command downloads it")
    return f"{reason}; follow its steps, then bench data check {card.reference}"


def _say_offer(card: "Card", folder: Path, size: int) -> None:
    """Print what a user should know before a download."""
    from benchmark.data.tools.download import megabytes
    from benchmark.data.tools.get import block_of

    block = block_of(card)
    places = sorted({str(folder / each.to.parts[0]) for each in block.files}) if block else []
    say(f"{card.title or card.name} ({card.name})")
    for key, value in (
        ("download", megabytes(size) if size else card.size),
        ("licence", card.licence),
        ("home page", card.home_page),
        ("to", ", ".join(places)),
    ):
        if value:
            say(f"  {key}: {value}")


def _accept(cards: list["Card"], accepted: bool) -> None:
    """Ask once for the licences that were not accepted before, and remember the answer.

    Raises ``BenchError`` where nobody can be asked.
    """
    path = Path(typer.get_app_dir("contrastive-benchmark")) / "licences.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    asked = {card.name: card.licence for card in cards if known.get(card.name) != card.licence}
    if not asked:
        return
    names = ", ".join(asked)
    if not accepted:
        if not (sys.stdin.isatty() and console.is_terminal):
            raise BenchError(f"the licences of {names} are not accepted yet: read them, then pass --accept-licence")
        if not typer.confirm(f"Do you accept the licences of {names}?"):
            say("not accepted, so nothing was downloaded", "yellow")
            raise typer.Exit(1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known | asked, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        say(f"{path}: cannot be written ({error.strerror}), so the next call asks again", "yellow")


def _data_folder(to: Path | None) -> Path:
    folder = to or (Path(data) if (data := os.environ.get("BENCH_DATA")) else None)
    if folder is None:
        raise BenchError("no folder for the data: set BENCH_DATA, or pass --to FOLDER")
    return folder.expanduser().absolute()


def _datasets_of(suite: str | None) -> list[str]:
    if suite is None:
        return []
    from benchmark.api import configure

    config = configure(suite)
    return [*config.pretraining, *config.datasets]


def _open(name: str, on_bad_data: str) -> "Dataset":
    from benchmark.data.card import load_card
    from benchmark.data.dataset import open_dataset

    if on_bad_data not in ("error", "skip"):
        raise unknown("value of --on-bad-data", on_bad_data, ["error", "skip"])
    return open_dataset(load_card(name), on_bad_data)  # type: ignore[arg-type]


def _say_left_out(dataset: "Dataset") -> None:
    """Print how many rows were left out, a line for each reason."""
    for reason, count in dataset.left_out.items():
        say(f"left out: {plural(count, 'row')} ({reason})", "yellow")


def _clip_tokens() -> Callable[[str], int]:
    """Return a function that counts the tokens of a text with CLIP's tokenizer."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    return lambda text: len(tokenizer.encode(text)) + 2


@contextmanager
def _stage(title: str, mode: str) -> Iterator[Callable[[int, int], None]]:
    """Show the progress of the block; yields a function to call with the number done and the total."""
    with _progress(mode) as progress, progress.stage(title) as stage:
        yield stage.update


def _progress(mode: str) -> "Progress":
    from benchmark.common.progress import Progress

    return Progress(console, mode)


def _print_nested(counts: Any, indent: int = 0) -> None:
    for key, value in counts.items():
        if isinstance(value, dict):
            say(f"{' ' * indent}{key}:")
            _print_nested(value, indent + 2)
        else:
            say(f"{' ' * indent}{key}: {value}")
