"""`bench doctor`: what is wrong with the installation, the results and the cache."""

from typing import TYPE_CHECKING, Annotated

import typer

from benchmark.cli.options import Plugins, ProgressMode, ResultFolders, console, folders_of, say

if TYPE_CHECKING:
    from benchmark.execution.doctor import Finding

COLOURS = {"ok": "green", "note": "yellow", "wrong": "red"}


def doctor(
    results: ResultFolders = None,
    images: Annotated[bool, typer.Option("--images", help="Read each prepared image too; takes as long as a copy.")] = (
        False
    ),
    plugin: Plugins = None,
    progress: ProgressMode = "auto",
) -> None:
    """Look for what is wrong with the installation, the results and the cache. Changes nothing.

    Reads all results and compares them with the digests that were written with them. Ends with status 1 if something is
    wrong.
    """
    from benchmark.common.progress import Progress
    from benchmark.execution.doctor import look_at_cache, look_at_installation, look_at_results
    from benchmark.registry import load_files
    from benchmark.store.cache import cache_root

    load_files(plugin or [])
    wrong = _show("installation", list(look_at_installation()))
    for folder in folders_of(results):
        with Progress(console, progress) as shown, shown.stage(f"reading {folder}") as stage:
            looked = list(look_at_results(folder, lambda done, total: stage.update(done, total)))
        wrong += _show(f"results {folder}", looked)
    wrong += _show(f"cache {cache_root()}", list(look_at_cache(cache_root(), images)))
    if wrong:
        say(f"{wrong} wrong", "red")
        raise typer.Exit(1)
    say("nothing wrong")


def _show(title: str, looked: "list[Finding]") -> int:
    """Print what was looked at; return how much of it is wrong."""
    say(title)
    for each in looked:
        say(f"  {each.state:5} {each.text}", COLOURS[each.state])
    return sum(each.state == "wrong" for each in looked)
