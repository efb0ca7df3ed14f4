"""`bench plan`: what a run would do and cost."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from benchmark.cli.options import RunOptions, console, results_option, say, takes_options
from benchmark.common.collection import no_collection
from benchmark.common.errors import BenchError, cut, plural
from benchmark.common.text import readable_size

if TYPE_CHECKING:
    from benchmark.plan.estimate import Estimate, Estimator, Evaluation, Preparing
    from benchmark.plan.plan import Cell, Plan
    from benchmark.store.store import Store

NAME = 14
"""Columns for a name at least."""
WIDE = 100
"""Columns of a terminal that has room for the trained parameters of each tower."""


@takes_options(*(name for name in RunOptions.__dataclass_fields__ if name != "progress"))
def plan(
    options: RunOptions,
    speed: Annotated[
        str | None,
        typer.Option(
            help="The speed of a device that is not here, as on its data sheet (dense, at the training's precision): "
            "400TFLOPS. Times assume that training reaches 35 % of it. Prices a GPU unless --device says otherwise."
        ),
    ] = None,
) -> None:
    """Show what a run would do and cost, without running anything.

    Works without the data: where a run would be refused, numbers of images are those of the datasets' cards.
    So they are with --strict where a run would leave out the datasets that are missing.
    """
    flops = parse_speed(speed) if speed else None
    # Importing makes objects that stay: the collector would search them again and again for half a second.
    with no_collection(stays=True):
        config = options.config()
        from benchmark.plan.estimate import Estimator
        from benchmark.plan.make import make_plan
        from benchmark.store.store import Store

        if flops and config.device == "auto":
            config = config.model_copy(update={"device": "cuda"})
        plan, store = make_plan(config, from_cards=True), Store(options.folder)
    for problem in plan.problems:
        say(f"cannot run: {problem}", "red")
    if plan.problems:
        raise typer.Exit(1)
    estimator = Estimator(plan, store.costs(), flops)
    lines = _lines(plan, store, estimator)
    datasets = _datasets(plan, store, estimator)
    title = f"suite {plan.config.suite}, model {plan.model.name}, device {plan.device}"
    say(title if _is_here(plan) else f"{title} (not on this machine)", "bold")
    console.print(_dataset_table(plan, datasets))
    console.print(_line_table(lines))
    _print_notes(plan, lines, datasets, estimator)
    _print_next(plan, lines, results_option(options.results))


SPEEDS = {"GFLOPS": 1e9, "TFLOPS": 1e12, "PFLOPS": 1e15}


def parse_speed(text: str) -> float:
    """Parse ``--speed`` into floating-point operations per second: 400TFLOPS -> 4e14."""
    number = re.fullmatch(r"(\d+\.?\d*(?:e[+-]?\d+)?)\s*([A-Za-z]+)", text.strip())
    if not (number and number[2] in SPEEDS and float(number[1]) > 0):
        raise BenchError(f"--speed {cut(text)}: expected a number and {', '.join(SPEEDS)}, as in 400TFLOPS")
    return float(number[1]) * SPEEDS[number[2]]


@dataclass
class _Line:
    """A line of the table: an encoder over its seeds. estimates: of the trainings, none for what is not trained.

    training, evaluation: seconds of what is left to do; None if unknown. stored: bytes that its results will take.
    """

    name: str
    states: list[str] = field(default_factory=list)
    estimates: list["Estimate"] = field(default_factory=list)
    training: float | None = 0.0
    evaluation: float | None = 0.0
    weights: int = 0
    embeddings: int = 0

    def add(self, state: str, estimate: "Estimate | None", evaluation: "Evaluation", checkpoints: int) -> None:
        """Add one seed. checkpoints: the number of them that its training writes."""
        self.states.append(state)
        if estimate:
            self.estimates.append(estimate)
        if estimate and state in ("train", "resume"):
            self.training = _sum([self.training, estimate.seconds])
            self.weights += checkpoints * estimate.weights
        self.evaluation = _sum([self.evaluation, evaluation.seconds])
        self.embeddings += evaluation.stored

    @property
    def trains(self) -> bool:
        """Whether there is training left to do."""
        return any(state in ("train", "resume") for state in self.states)

    @property
    def state(self) -> str:
        """What is left to do, over the seeds."""
        evaluations = sum(int(state.split()[1]) for state in self.states if state.startswith("evaluate"))
        counts = Counter(state.split()[0] for state in self.states)
        if evaluations:
            counts["evaluate"] = evaluations
        whole = len(counts) == 1 and not evaluations
        return ", ".join(state if whole else f"{state} {count}" for state, count in counts.items())


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


def _lines(plan: "Plan", store: "Store", estimator: "Estimator") -> list[_Line]:
    from benchmark.report.results import common_settings, own_settings

    varied = several_variants((cell.arm, cell.label["variant"]) for cell in plan.cells)
    shared = common_settings(cell.label["variant"] for cell in plan.cells)
    lines: dict[str, _Line] = {}
    for cell in [*([plan.initial] if plan.initial else []), *plan.cells]:
        variant = ", ".join(own_settings(cell.label["variant"], shared)) if cell.arm in varied else ""
        condition = "" if cell.condition is None else f"on {', '.join(cell.pretraining)}"
        name = " ".join(filter(None, (cell.arm, variant, condition)))
        if cell is plan.initial:
            name = f"{cell.method} (initial weights)"
        missing = [] if cell is plan.initial else plan.missing(store, cell)
        validated = cell.training.validations > 0 and any("val" in plan.datasets[n].splits() for n in cell.validation)
        lines.setdefault(name, _Line(name)).add(
            _state(plan, store, cell), estimator.cell(cell), estimator.evaluation(missing, cell), 1 + validated
        )
    for fixed in filter(plan.pairs_of, plan.fixed):
        missing = plan.missing(store, fixed)
        state = f"evaluate {len(missing)}" if missing else "done"
        lines.setdefault(fixed.name, _Line(fixed.name)).add(
            state, None, estimator.evaluation([] if fixed.images_only else missing), 0
        )
    return list(lines.values())


def _state(plan: "Plan", store: "Store", cell: "Cell") -> str:
    """Return what a run would do with a cell: train, resume, evaluate N, or done."""
    from benchmark.store.cache import cache_root

    if cell is plan.initial:
        trained, missing = (cache_root() / "initial" / cell.key).is_dir(), 0
    else:
        trained, missing = store.finished(cell.key), len(plan.missing(store, cell))
    if trained:
        return f"evaluate {missing}" if missing else "done"
    return "resume" if store.interrupted(cell.key) else "train"


def _datasets(plan: "Plan", store: "Store", estimator: "Estimator") -> "dict[str, Preparing]":
    model = plan.blank_model
    untrained = [cell for cell in plan.cells if not store.finished(cell.key)]
    return {name: estimator.prepared(name, untrained, model.image_size, model.resizing) for name in plan.datasets}


def _is_here(plan: "Plan") -> bool:
    from benchmark.training.cost import simulating

    return simulating(plan.device) == plan.device


# Tables


def _table(columns: dict[str, bool]) -> Table:
    """Make a table. columns: by name, whether numbers stand in it."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for number, (column, numbers) in enumerate(columns.items()):
        width = None if number else NAME
        table.add_column(
            column, justify="right" if numbers else "left", overflow="fold", no_wrap=numbers, min_width=width
        )
    return table


def _dataset_table(plan: "Plan", datasets: "dict[str, Preparing]") -> Table:
    table = _table({"dataset": False, "used for": False, "images": True, "disk": True, "state": False})
    pretraining = {name for cell in [*plan.cells, *filter(None, [plan.initial])] for name in cell.pretraining}
    for name, needs in datasets.items():
        dataset = plan.datasets[name]
        uses = [*(["pretraining"] if name in pretraining else []), *(p.task for p in plan.pairs if p.dataset == name)]
        images = "?" if needs.images is None else f"{'~' if needs.about else ''}{_count(needs.images)}"
        access = dataset.card.access
        state = "here" if dataset.is_here else f"not here{f' ({access})' if access else ''}"
        disk = "streams" if dataset.streams else readable_size(needs.disk)
        if uses:
            table.add_row(escape(name), ", ".join(uses), images, disk, state)
        else:
            table.add_row(escape(name), "texts", "", "", state)
    return table


def _line_table(lines: list[_Line]) -> Table:
    towers = ("image", "text") if console.width >= WIDE else ()
    columns = {"arm": False, "seeds": True, "state": False, "pairs": True, "training": True, "encoding": True}
    columns |= {"memory": True, **dict.fromkeys(towers, True), "trained": True, "of": True}
    table = _table(columns)
    for line in lines:
        samples = [each.samples for each in line.estimates[:1]]
        row = [escape(line.name), str(len(line.states)), line.state]
        row.append("".join("?" if count is None else _count(count) for count in samples))
        row.append(_duration(line.training) if line.trains else "")
        row.append("" if line.evaluation == 0 else _duration(line.evaluation))
        if line.estimates:
            row.append(readable_size(max(each.memory for each in line.estimates)))
            counts: dict[str, int] = {**line.estimates[0].parameters}  # type: ignore[dict-item]
            names = [*(f"parameters_{tower}_trainable" for tower in towers), "parameters_trainable", "parameters"]
            row += [_count(counts[name]) for name in names]
        table.add_row(*row)
    if len(lines) > 1:
        training, evaluation = (_sum(getattr(line, name) for line in lines) for name in ("training", "evaluation"))
        table.add_section()
        table.add_row("all", "", "", "", _duration(training), _duration(evaluation), style="bold")
    return table


# Notes below the tables


def _print_notes(plan: "Plan", lines: list[_Line], datasets: "dict[str, Preparing]", estimator: "Estimator") -> None:
    """Print what the tables assume, what it takes in all, and what is missing."""
    from benchmark.models.download import to_download
    from benchmark.plan.cautions import cautions_of

    if any(line.state != "done" for line in lines):
        training, evaluation = (_sum(getattr(line, name) for line in lines) for name in ("training", "evaluation"))
        times = f"{_duration(training)} of training, {_duration(evaluation)} of encoding for evaluations"
        say(f"time: about {times}; {_basis(plan, lines, estimator)}")
        say("not counted: reading and preparing images, training of probes and VQA heads, writing of captions")
    for line in lines:
        for division in dict.fromkeys(each.division for each in line.estimates if each.division):
            say(f"{line.name}: micro_batch auto is {division}")
    disk, here = (sum(getattr(each, name) for each in datasets.values()) for name in ("disk", "here"))
    already = f", {readable_size(here)} of them there already" if here else ""
    say(f"disk: {readable_size(disk)} of prepared images in the cache{already}; {_results(lines)}")
    if any(each.about for each in datasets.values()):
        say("~: the number of images is the card's, as the data have not been read")
    if unknown := [f"{name} ({', '.join(each.unknown)})" for name, each in datasets.items() if each.unknown]:
        say(f"not counted, as the cards name no number of images: {', '.join(unknown)}", "yellow")
    if assumed := [each.assumed_length for line in lines for each in line.estimates if each.assumed_length]:
        say(f"cost of texts of {max(assumed)} tokens, the model's maximum, as the data are not in the cache yet")
    if plan.language and any("language_model" in cell.content for cell in plan.cells):
        say(f"language model: from {', '.join(plan.language.datasets)}; its training is not counted")
    if any(line.state != "done" for line in lines):
        for weights in to_download(plan.model):
            say(f"{weights}: not on this machine; will be downloaded", "yellow")
    pairs = {cell.key: estimator.pairs(cell, about=True) for cell in plan.cells}
    for caution in cautions_of(plan.cells, lambda cell: count.images if (count := pairs[cell.key]) else None):
        say(caution, "yellow")
    for reason in [*plan.absent, *_grouped(plan.left_out)]:
        say(f"left out: {reason}", "yellow")


def _print_next(plan: "Plan", lines: list[_Line], results_option: str) -> None:
    """Print what keeps a run from starting here, and the next command. results_option: of ``results_option()``."""
    if missing := [name for name, dataset in plan.datasets.items() if not dataset.is_here]:
        say(f"bench run refuses this here: {plural(len(missing), 'dataset')} not on this machine", "yellow")
        say(f"next: bench data how {missing[0]}")
    elif not _is_here(plan):
        say(f"bench run refuses this here: no device {plan.device}", "yellow")
    elif any(line.state != "done" for line in lines):
        say("next: bench run with the same options")
    else:
        say(f"next: bench report{results_option}")


def _basis(plan: "Plan", lines: list[_Line], estimator: "Estimator") -> str:
    """Say what the times of the trainings are derived from."""
    from benchmark.plan.estimate import EFFICIENCY

    reached = f"operations at {EFFICIENCY:.0%} of".replace("%", " %")
    speed = f"{estimator.speed / 1e12:g} TFLOPS (--speed)" if estimator.speed else "the speed of a matrix product here"
    texts = {
        "the cell": "the trainings' own times",
        "the method": "trainings of the same method and model in the results",
        "the model": "operations at the speed of other trainings of the model in the results",
        "--speed": f"{reached} {speed}",
        "a matrix product": f"{reached} {speed}, a rough estimate until a cell has been trained",
    }
    due = [each for line in lines if line.trains for each in line.estimates]
    sources = dict.fromkeys(each.source for each in due)
    if None in sources:
        return f"unknown, as {plan.device} is not on this machine: give its speed, as in --speed 400TFLOPS"
    return "from " + ", ".join(texts[source] for source in sources if source) if sources else "nothing is left to train"


MANY = 6
"""The most datasets that are named where a task does not fit them."""


def _grouped(left_out: list[str]) -> list[str]:
    """Join the reasons that differ only in the dataset: vqa on a, b: the dataset has no question."""
    datasets: dict[tuple[str, str], list[str]] = {}
    for each in left_out:
        task, on, rest = each.partition(" on ")
        name, _, reason = rest.partition(": ")
        datasets.setdefault((task, reason) if on and " by " not in task else (each, ""), []).append(name)
    return [
        f"{task} on {', '.join(names) if len(names) <= MANY else plural(len(names), 'dataset')}: {reason}"
        if reason
        else task
        for (task, reason), names in datasets.items()
    ]


def _results(lines: list[_Line]) -> str:
    """Say how many bytes checkpoints and embeddings will take, and whose they are if one arm's are most of them."""
    sizes = {line.name: line.weights + line.embeddings for line in lines}
    largest = max(sizes, key=lambda name: sizes[name])
    most = f", most of it {largest}'s" if len(lines) > 1 and sizes[largest] > sum(sizes.values()) / 2 else ""
    return f"{readable_size(sum(sizes.values()))} of checkpoints and embeddings in the results{most}"


def several_variants(variants: Iterable[tuple[str, str]]) -> set[str]:
    """Return the arms with several variants, for which a table must name the variant."""
    return {arm for arm, count in Counter(arm for arm, _ in set(variants)).items() if count > 1}


def _duration(seconds: float | None) -> str:
    from benchmark.common.progress import duration

    return "?" if seconds is None else duration(seconds)


def _count(number: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"
