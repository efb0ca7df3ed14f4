"""`bench list`: the available methods, tasks, datasets, models and suites. Never imports torch."""

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from benchmark.cli.options import Plugins, console
from benchmark.common.errors import unknown

Lines = list[tuple[str, str]]
"""Pairs of a name and its description."""


def list_(
    what: Annotated[str, typer.Argument(help="methods, tasks, datasets, models or suites.")], plugin: Plugins = None
) -> None:
    """List the available names, each with a description."""
    if what not in LISTS:
        raise unknown("list", what, LISTS)
    if plugin:
        from benchmark.registry import load_files

        load_files(plugin)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for name, text in LISTS[what]():
        table.add_row(escape(name), escape(text))
    console.print(table)


def _methods() -> Lines:
    lines = []
    for name, method in _declared("method").items():
        parts = [
            f"{method.summary}.",
            f"{method.source}.",
            f"Trains {method.trains}.",
            f"On top of clip: {method.extra}.",
            f"Needs {', '.join(sorted(method.needs))}." if method.needs else "",
            f"Accumulation: {', '.join(method.accumulation)}.",
            f"Inferred: {method.inferred}." if method.inferred else "",
        ]
        lines.append((name, " ".join(filter(None, parts))))
    return lines


def _tasks() -> Lines:
    lines = []
    for name, task in _declared("task").items():
        able = f" For methods that can {', '.join(sorted(task.abilities))}." if task.abilities else ""
        lines.append((name, f"{task.summary} Needs {', '.join(sorted(task.needs))}.{able}"))
    return lines


def _declared(kind: str) -> dict[str, Any]:
    """Return all methods or tasks: declarations read from source, or classes if imported already or unreadable."""
    from benchmark.cli.declarations import Unreadable, declared

    if f"benchmark.{kind}" not in sys.modules:
        with suppress(Unreadable):
            return declared(kind)
    if kind == "method":
        from benchmark.method import METHODS

        return {name: METHODS[name] for name in METHODS.names()}
    from benchmark.task import TASKS

    return {name: TASKS[name] for name in TASKS.names()}


def _datasets() -> Lines:
    from benchmark.data.card import card_names, load_card

    cards = [load_card(name) for name in card_names()]
    return [(card.name, f"{card.title} ({', '.join(sorted(card.provides))})") for card in cards]


def _models() -> Lines:
    from benchmark.config.yaml_files import config_names, find_config, published_models_folder, read_yaml

    cards = {name: read_yaml(find_config("model", name)) for name in config_names("model")}
    lines = [(name, "; ".join(filter(None, map(card.get, ("title", "licence"))))) for name, card in cards.items()]
    for path in sorted(published_models_folder().glob("*.yaml")):
        published = read_yaml(path)
        terms = {True: "; gated", False: "", None: "; gated or not: unknown"}[published["gated"]]
        lines.append((path.stem, f"{published['title']}. Licence {published['licence']}{terms}. For bench eval."))
    return lines


def _suites() -> Lines:
    from benchmark.config.load import read_suite
    from benchmark.config.overrides import OF_ANY_DATASET
    from benchmark.config.yaml_files import config_names, find_config

    lines = [(f"--scenario {form}", f"scenario of {about}") for form, about in OF_ANY_DATASET.items()]
    for name in config_names("suite"):
        suite, _ = read_suite(find_config("suite", name))
        question = suite.get("scenario", {}).get("question", "")
        lines.append((name, suite.get("description", "") + (f"; it asks: {question}" if question else "")))
    return lines


LISTS: dict[str, Callable[[], Lines]] = {
    "methods": _methods,
    "tasks": _tasks,
    "datasets": _datasets,
    "models": _models,
    "suites": _suites,
}
