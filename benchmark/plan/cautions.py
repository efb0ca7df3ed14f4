"""What the methods of a plan say about their settings."""

from collections.abc import Callable, Iterable

from benchmark.method import METHODS
from benchmark.plan.plan import Cell
from benchmark.training.schedule import training_steps


def cautions_of(cells: Iterable[Cell], pairs: Callable[[Cell], int | None]) -> list[str]:
    """List the cautions of the cells' methods, each once for an arm.

    pairs: counts the training pairs of a cell; None if their number is not known.
    """
    lines: dict[str, None] = {}
    for cell in cells:
        method, count = METHODS[cell.method], pairs(cell)
        for caution in method.cautions(method.Config(**cell.options), cell.training, count, _steps(cell, count)):
            lines[f"{cell.arm}: {caution}"] = None
    return list(lines)


def _steps(cell: Cell, pairs: int | None) -> int | None:
    """Return the steps of a training; None if they depend on what is not known, such as the machine's speed."""
    kind, _ = cell.training.budget
    if kind in ("time", "flops") or (kind == "epochs" and (pairs or 0) < cell.training.batch_size):
        return None
    return training_steps(cell.training, pairs or 0, lambda: 1.0)
