"""`bench status` and `bench cancel`: the cells of a results folder by state, and how to stop what works on them."""

from typing import TYPE_CHECKING, Annotated

import typer

from benchmark.cli.options import Results, folder_of, say
from benchmark.common.errors import BenchError, cut, listed, plural

if TYPE_CHECKING:
    from benchmark.execution.launch.status import CellState

MOST = 20
"""The most cells of a state that are shown one by one without --all."""


def status(
    results: Results = None,
    every: Annotated[bool, typer.Option("--all", help="Show each cell, whatever its state.")] = False,
) -> None:
    """Show the cells that were to be carried out by state: waiting, running, stopped, done, failed.

    Of a running one, which process of which machine works on it, how far it is and how long it takes; of a failed one,
    the last error. bench watch follows the processes.
    """
    from benchmark.execution.launch.status import cell_states, summary
    from benchmark.store.store import Store

    folder = folder_of(results)
    store = Store(folder)
    states = cell_states(store)
    if not states:
        raise BenchError(f"no run here: {folder} has no record of one; start bench run first")
    say(summary(states, sum(run.is_going for run in store.runs())))
    for name in ("running", "failed", "stopped", "waiting", "done"):
        of_state = [state for state in states if state.state == name]
        shown = of_state if every else of_state[:MOST] if name in ("running", "failed", "stopped") else []
        for state in shown:
            say(_line(state), "red" if name == "failed" else None)
        if rest := of_state[len(shown) :]:
            more = "more " if shown else ""
            say(f"{name}: {plural(len(rest), f'{more}cell')} ({listed((s.name for s in rest), 'bench status --all')})")


def cancel(results: Results = None) -> None:
    """Ask all that works on the results, here and through launchers, to stop at a checkpoint.

    The command that started it goes on from there.
    """
    from benchmark.execution.launch.fleet import cancel as stop
    from benchmark.store.store import Store

    folder = folder_of(results)
    if not stop(Store(folder), say):
        say(f"nothing works on {folder}")


def _line(state: "CellState") -> str:
    from benchmark.common.progress import duration

    parts = [f"{state.state}: {state.name}"]
    if state.owner:
        parts += [f"{state.doing} by {state.owner}", f"{state.share:.0%}"]
    if state.state == "running" and state.left is not None:
        parts.append(f"{duration(state.left)} left")
    return ", ".join(parts) + (f"; last error: {cut(state.error)}" if state.error else "")
