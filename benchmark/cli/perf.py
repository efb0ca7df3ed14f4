"""`bench perf`: speed and memory, beside peer libraries and limits."""

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from benchmark.cli.options import RunOptions, console, names_of, say, takes_options
from benchmark.cli.plan import several_variants
from benchmark.common.errors import BenchError

if TYPE_CHECKING:
    from benchmark.perf.measure import Row


@takes_options("suite", "model", "device", "settings", "grid", "plugin")
def perf(
    options: RunOptions,
    works: Annotated[
        str | None, typer.Option(help="Names, comma-separated, or all. Default: all but those of minutes each.")
    ] = None,
    scale: Annotated[float, typer.Option(min=0.001, max=1.0, help="1 is full size: 15 minutes on two cores.")] = 1.0,
    methods: Annotated[
        str | None, typer.Option(help="Measure a training step of these methods (or all) instead of the works.")
    ] = None,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Measure a GPU against its limits instead: eight minutes.")
    ] = False,
    reference: Annotated[str, typer.Option(help="The method that the others' steps are compared with.")] = "clip",
    output: Annotated[
        Path | None, typer.Option(help="A JSON file for the figures; a Markdown page of the works goes beside it.")
    ] = None,
) -> None:
    """Compare speed and memory with peer libraries on the same work, and with the least that it takes.

    A ratio to the peer above 1: ours is faster. A ratio to the limit of 1: no less is possible. With --methods: a step
    of each method on noise with random weights. Ratios above 1: it takes more than clip.
    """
    if gpu:
        _gpu(output)
        return
    if methods:
        _written(output, _method_steps(replace(options, methods=methods), reference))
        return
    _works(names_of(works), scale, output)


def _gpu(output: Path | None) -> None:
    from benchmark.perf.gpu import measured, page, require_gpu

    require_gpu()

    def save(pieces: dict[str, Any]) -> dict[str, Any]:
        figures = _written(output, {"pieces": pieces}, quiet=True)
        if output:
            output.with_suffix(".md").write_text(page(figures), encoding="utf-8")
        return figures

    say(page(save(measured("full", save))))


def _written(output: Path | None, figures: dict[str, Any], quiet: bool = False) -> dict[str, Any]:
    """Add where and when figures were measured, and write them as JSON; return them."""
    from benchmark.common.machine import machine
    from benchmark.perf.measure import commit

    command = " ".join(["bench", *sys.argv[1:]])
    dated = {"machine": machine(), "date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit(), "command": command}
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(dated | figures, indent=1) + "\n", encoding="utf-8")
        if not quiet:
            say(str(output))
    return dated | figures


def _works(names: list[str] | None, scale: float, output: Path | None) -> None:
    """Measure works; what is measured is written after each. Exits with status 1 if one failed."""
    from benchmark.perf.measure import markdown
    from benchmark.perf.peers import WORKS, chosen, perf

    rows: list[Any] = []
    for name in chosen(names):
        if not console.is_terminal:
            say(f"{name}: {WORKS[name].title}")
        with console.status(f"{name}: {WORKS[name].title}"):
            try:
                rows.append(perf(name, scale))
            except BenchError as error:
                rows.append({"work": name, "failed": str(error)})
                say(f"{name} failed: {error}", "red")
        figures = _written(output, {"scale": scale, "works": rows}, quiet=True)
        if output:
            output.with_suffix(".md").write_text(markdown(figures), encoding="utf-8")
    _show_works([row for row in rows if "failed" not in row])
    if output:
        say(f"{output}\n{output.with_suffix('.md')}")
    if any("failed" in row for row in rows):
        raise typer.Exit(1)


def _show_works(rows: "list[Row]") -> None:
    from benchmark.perf.measure import ratio, seconds

    table = Table(title_justify="left")
    for column in ("work", "side", "CPU s", "wall s", "memory", "x peer, CPU / wall", "x limit, CPU / wall"):
        table.add_column(column, justify="left" if column in ("work", "side") else "right", overflow="fold")
    for row in rows:
        for number, (side, description) in enumerate(row["descriptions"].items()):
            named = f"{row['work']}: {row['title']}" if not number else ""
            taken, ratios = row["sides"].get(side), row["ratios"].get(side, {})
            if taken is None:
                table.add_row(named, f"{side}: {description}: {row['absent'].get(side, '')}")
                continue
            table.add_row(
                named,
                f"{side}: {description}",
                seconds(taken["cpu"]),
                seconds(taken["wall"]),
                f"{taken['memory'] / 1e6:,.0f} MB",
                ratio(ratios.get("peer")),
                ratio(ratios.get("limit")),
            )
        table.add_section()
    console.print(table)


def _method_steps(options: RunOptions, reference: str) -> dict[str, Any]:
    config = options.config()
    from benchmark.perf.steps import method_steps
    from benchmark.plan.make import make_plan

    plan = make_plan(config)
    if plan.problems:
        raise BenchError(plan.problems[0])
    rows = method_steps(plan, reference, console)
    table = Table(title=f"a training step, model {plan.model.name}, device {plan.device}", title_justify="left")
    for column in ("arm", "batch", "pairs/s", "memory", "time", "memory "):
        table.add_column(column, justify="left" if column == "arm" else "right", overflow="fold")
    varied = several_variants((row["arm"], row["variant"]) for row in rows)
    for row in rows:
        table.add_row(
            escape(f"{row['arm']} {row['variant']}" if row["arm"] in varied else row["arm"]),
            f"{row['batch_size']}/{row['micro_batch']}",
            f"{row['pairs_per_second']:,.0f}",
            f"{row['memory'] / 1e6:,.0f} MB",
            f"{row['time_ratio']:.2f} x",
            f"{row['memory_ratio']:.2f} x",
        )
    console.print(table)
    return {"model": plan.model.name, "reference": reference, "methods": rows}
