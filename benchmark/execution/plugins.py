"""What other processes must import to know the methods and tasks of a plan."""

import sys
from pathlib import Path

from benchmark.common.errors import BenchError
from benchmark.method import METHODS
from benchmark.plan.plan import Plan
from benchmark.registry import installed_plugins
from benchmark.task import TASKS


def plugin_files(plan: Plan) -> list[str]:
    """List the files that define the plan's methods and tasks, apart from those that are installed.

    Raises ``BenchError`` for a class that another process cannot import.
    """
    installed = tuple(f"{package}." for _, package in installed_plugins())
    files: dict[str, None] = {}
    classes = [METHODS[cell.method] for cell in plan.cells] + [TASKS[pair.task] for pair in plan.pairs]
    for cls in dict.fromkeys(classes):
        if f"{cls.__module__}.".startswith(installed):
            continue
        file = getattr(sys.modules.get(cls.__module__), "__file__", None)
        if file is None or cls.__module__ == "__main__":
            raise BenchError(
                f"'{cls.name}' is defined in the script or notebook that runs, which workers cannot import; "
                "put it in a file of its own, and name that with plugins=[...] (or --plugin)"
            )
        files[str(Path(file).resolve())] = None
    return [*files]
