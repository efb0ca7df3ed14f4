"""The Python API: run a study, evaluate a model, read results. The command line calls it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import PositiveInt
from rich.console import Console

from benchmark.common.collection import no_collection
from benchmark.common.errors import BenchError, unknown
from benchmark.common.progress import Progress
from benchmark.common.text import Terminal
from benchmark.common.torchrun import torchrun
from benchmark.config.claims import Claim
from benchmark.config.load import load_run_config, results_folder
from benchmark.config.overrides import parse_scenario
from benchmark.config.schema import RunConfig
from benchmark.config.validation import Strict, validated
from benchmark.store.merged import open_store
from benchmark.store.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.common.tracking import Tracked
    from benchmark.execution.export import Exported
    from benchmark.execution.runner import Outcome
    from benchmark.plan.plan import Plan
    from benchmark.report.sections import StatedClaims
    from benchmark.report.verdicts import Verdict
    from benchmark.training.cost import Parameters

LABELS = ["suite", "model", "arm", "method", "variant", "pretraining", "seed", "folder", "dataset", "task", "part"]
"""The columns of rows() and examples() that identify an evaluation."""


class Results:
    """The results in a folder: rows, costs, training logs and per-example scores as data frames.

    outcome: what the run did that returned these results; None for an opened folder.
    """

    def __init__(self, store: Store, outcome: "Outcome | None" = None) -> None:
        self.store = store
        self.outcome = outcome

    @classmethod
    def open(cls, folder: str | Path | Sequence[str | Path]) -> Self:
        """Open a results folder, or several of several machines or groups as one.

        Raises ``BenchError`` if one holds no results, and if two measured a dataset on different examples.
        """
        folders = [folder] if isinstance(folder, str | Path) else folder
        store = open_store([Path(each) for each in folders])
        if not store.cells.is_dir():
            raise BenchError(f"{store.folder}: no results (expected a folder 'cells' in it); run bench run first")
        return cls(store)

    def __repr__(self) -> str:
        return f"Results('{self.store.folder}')"

    def rows(self) -> "pd.DataFrame":
        """Return the scores, one row per arm, seed, dataset, task, part and metric, with value, low and high (0..1).

        ``low`` and ``high`` bound the 95 % interval; ``primary`` marks the metric that the tables show.
        """
        return self.store.rows()

    def costs(self) -> "pd.DataFrame":
        """Return the cost of each training, one row per cell: seconds, bytes of peak memory, FLOPs, parameters."""
        return self.store.costs()

    def logs(self) -> "pd.DataFrame":
        """Return the training logs, one row per step: losses, learning rate, gradient norm, seconds."""
        import pandas as pd

        costs = self.costs()
        logs = []
        for cost in costs.itertuples() if len(costs) else ():
            log = self.store.log(str(cost.cell))
            labels = {name: getattr(cost, name) for name in LABELS if hasattr(cost, name)}
            logs += [] if log is None else [log.assign(**labels, cell=cost.cell)]
        return pd.concat(logs, ignore_index=True) if logs else pd.DataFrame()

    def examples(self, **where: Any) -> "pd.DataFrame":
        """Return the per-example scores of all evaluations with the given labels, one row per test example.

        where: values of ``LABELS``, such as task="zero_shot", dataset="phantom-cxr", method="clip". The columns are the
        labels, ``id``, ``group`` and the task's own. Raises ``BenchError`` for an unknown label or value, and if no
        evaluation matches.
        """
        import pandas as pd

        rows = self.rows()
        chosen = rows
        for label, value in where.items():
            if label not in LABELS:
                raise unknown("label", label, LABELS)
            if label not in rows or value not in set(rows[label]):
                raise unknown(label, str(value), map(str, rows[label].unique()) if label in rows else [])
            chosen = chosen[chosen[label] == value]
        labels = [label for label in LABELS if label in rows]
        frames = []
        for row in chosen.drop_duplicates(["cell", "evaluation", "part"]).itertuples():
            scores = self.store.examples(row.cell, row.evaluation, row.part)
            if scores is not None:
                frames.append(scores.assign(**{label: getattr(row, label) for label in labels}))
        if not frames:
            raise BenchError(f"{self.store.folder}: no evaluation matches all of {where}")
        return pd.concat(frames, ignore_index=True)

    def compare(self, a: str, b: str) -> "pd.DataFrame":
        """Return the paired differences a - b, one row per task, dataset and metric that both have.

        a, b: lines of the report's tables; the name of an arm or a method is enough if it has one line. Columns: value,
        low, high (the difference and its 95 % interval, as fractions), p, adjusted (Holm, over the datasets of a kind
        of task) and verdict. Raises ``BenchError`` for an unknown line.
        """
        from benchmark.report import comparison
        from benchmark.report.results import label_lines

        rows = self.rows()
        if rows.empty:
            raise BenchError(f"{self.store.folder}: no results; run bench run first")
        labelled, _, _ = label_lines(rows, self.costs())
        first, second = (comparison.find_reference(name, labelled) for name in (a, b))
        return comparison.differences(labelled, {first: second}, self.store.resamples)

    def claims(self, suite: str | None = None) -> "pd.DataFrame":
        """Return the verdicts on the claims of the suites that were run, one row per claim, as ``bench claims`` does.

        suite: a suite's name or file, whose claims are judged in place of those. Columns: suite, claim, verdict
        (supported, contradicted, not shown, not run), value, low, high (the measured difference, level or ratio and its
        95 % interval, as fractions), seeds, explanation, command (what would run the missing part), and others.
        """
        from benchmark.report.claims import claims_frame

        return claims_frame(judge_claims(self.store, suite))

    def report(
        self, folder: str | Path | None = None, reference: str | None = None, latex: bool = False, images: bool = True
    ) -> list[Path]:
        """Write the report into ``folder`` (default: ``report`` in the results folder); return its files.

        reference: the line that the others are compared with. latex: whether to write LaTeX tables, references.bib and
        plots as PDF too. images: whether index.html may show images and texts of the datasets; those of restricted
        access stay out of it in any case. Raises ``BenchError`` if there is nothing to report.
        """
        return write_report(self.store, folder, reference, Console(quiet=True), latex, images=images)


def export_cell(
    store: Store, name: str, output: Path, wanted: str = "open_clip", licence: str = "other"
) -> "tuple[Exported, list[str]]":
    """Write a trained cell and its model card into a folder, as ``bench export`` does.

    name: as find_cell() takes it. Returns what was written, the model card first, and the pretraining datasets that not
    everyone may use.
    """
    from benchmark.execution.export import export, find_cell
    from benchmark.execution.publish import CARD
    from benchmark.report.model_card import model_card, restricted

    exported = export(store, find_cell(store, name), output, wanted)
    text = model_card(store, exported.key, exported.checkpoint, exported.format, licence)
    (output / CARD).write_text(text, encoding="utf-8")
    return replace(exported, files=[output / CARD, *exported.files]), restricted(store, exported.key)


def write_report(
    store: Store,
    folder: str | Path | None,
    reference: str | None,
    console: Console,
    latex: bool = False,
    details: bool = True,
    images: bool = True,
) -> list[Path]:
    """Print the report's tables on ``console`` and write it into ``folder``; return its files.

    latex: whether to write LaTeX tables too. details: whether all tables are printed, or only the answer and the
    overview. images: whether index.html may show images and texts of the datasets.
    """
    from benchmark.report import sections
    from benchmark.report.web.gallery import gallery

    target = Path(folder) if folder else store.folder / "report"

    # What is read stays until the end; to look through it for garbage would take a tenth of the time.
    @no_collection()
    def write() -> list[Path]:
        (rows, during), costs = store.rows_and_course(), store.costs()
        return sections.write_report(
            rows,
            costs,
            target,
            console,
            store.resamples,
            reference,
            store.notes,
            store.claims(),
            during,
            latex,
            details,
            store.examples,
            store.log,
            store.embedded,
            store.configuration,
            store.runs(),
            partial(gallery, store=store, images=images),
            [*store.damage.values()],
        )

    return store.without_damage(write)


def judge_claims(store: Store, suite: str | None = None) -> "list[Verdict]":
    """Judge the claims of the suites that were run in a store, or those of a suite's name or file.

    With the suite at hand, the parameters of arms that were not trained are counted.
    """
    from benchmark.report.sections import verdicts_of

    def judged(stated: "StatedClaims", **how: Any) -> "list[Verdict]":
        return store.without_damage(lambda: verdicts_of(store.rows(), store.costs(), store.resamples, stated, **how))

    if suite is None:
        return judged(store.claims())
    config = load_run_config(suite, {}, (), ())

    @cache
    def count(arm: str, model: str) -> "Parameters | None":
        from benchmark.models import build_model
        from benchmark.plan.resolve import arm_options, build_method, resolve_model
        from benchmark.training.cost import parameter_columns

        try:
            card = resolve_model(config.model_copy(update={"model": model} if model else {}))
            options = arm_options(config, arm)
            return parameter_columns(build_method(config.arm(arm).method, build_model(card, 0, "meta"), options))
        except BenchError:
            # A method that a plug-in registers, or a model that is not here.
            return None

    stated = {config.suite: _claims(config)} if _claims(config) else {}
    return judged(stated, reference=suite, count=count)


def run(
    config: RunConfig | Mapping[str, Any] | str | Path = "demo",
    *,
    results: str | Path | None = None,
    progress: str = "auto",
    track: "str | Sequence[Tracked]" = (),
    workers: int | None = None,
    devices: Sequence[str] = (),
    launch: str | None = None,
    launch_options: Mapping[str, Any] | None = None,
    again: Sequence[str] = (),
    **options: Any,
) -> Results:
    """Pretrain each method, evaluate it on each task, and return the results, as ``bench run`` does.

    Skips what the results folder already holds; calling it again resumes an interrupted run. A failing cell does not
    stop the others: see ``outcome.failures`` of the returned results.

    config: a suite's name or file, its settings as a mapping, or a configuration. options: those of configure().
    results: the folder; default $BENCH_RESULTS or ./results. progress: auto, bars, lines or none. track: what gets the
    log and the scores: names (tensorboard, wandb, mlflow, trackio), functions of a step's values and the pairs trained
    on, or objects with the methods of ``benchmark.common.tracking.Tracker``.
    workers: processes of this machine that share the cells; devices: cuda:0 and so on, which they take in turn. launch:
    the name of a launcher, with its options. again: keys of cells, or their beginnings, to train anew.
    Raises ``BenchError`` for a mistake in the configuration or the data, before any training.
    """
    from benchmark.plan.make import make_plan

    launching = Launching.of(workers, devices, launch, launch_options or {})
    if devices:
        options = {"device": devices[0].partition(":")[0], **options}
    plan = make_plan(configure(config, **options))
    return execute(plan, _folder(results), Terminal(), progress, track, launching, again)


def evaluate(
    model: str,
    config: RunConfig | Mapping[str, Any] | str | Path = "demo",
    *,
    results: str | Path | None = None,
    progress: str = "auto",
    own_prompts: bool = False,
    **options: Any,
) -> Results:
    """Evaluate a model that was trained elsewhere, as ``bench eval`` does.

    model: the name of a published model, open_clip:NAME/TAG, hf:FOLDER or hf:ORG/NAME, timm:NAME, or a model card.
    own_prompts: whether the templates of a published model's authors stand in place of the datasets'. The other
    arguments: as in run().
    """
    from benchmark.plan.make import evaluation_plan

    plan = evaluation_plan(configure(config, **options), model, own_prompts=own_prompts)
    return execute(plan, _folder(results), Terminal(), progress)


@dataclass(frozen=True)
class Launching:
    """By which launcher a plan is carried out, with the launcher's options."""

    launcher: str
    options: Mapping[str, Any]

    @classmethod
    def of(
        cls, workers: int | None, devices: Sequence[str], launcher: str | None, options: Mapping[str, Any]
    ) -> "Launching | None":
        """Choose the launcher: that of the name, or the local one for workers or devices; None: this process alone.

        Raises ``BenchError`` for options that do not go together.
        """
        local: dict[str, Any] = {"workers": workers} if workers is not None else {}
        local |= {"devices": [*devices]} if devices else {}
        if launcher in (None, "local"):
            if options and launcher is None:
                raise BenchError("--launch-option sets options of a launcher; name it with --launch")
            return cls("local", local | dict(options)) if local or launcher else None
        if local:
            raise BenchError(f"--workers and --devices are of this machine; give {launcher} its --launch-option")
        assert launcher is not None
        return cls(launcher, options)


def execute(
    plan: "Plan",
    folder: Path,
    console: Console,
    progress: str,
    track: "str | Sequence[Tracked]" = (),
    launching: Launching | None = None,
    again: Sequence[str] = (),
) -> Results:
    """Carry out a plan and print its outcome; everything printed also goes to ``run.log`` in the results folder.

    track: as in run(); trackers write under ``tracking`` in the results folder. launching: None: in this process.
    again: keys of cells of the plan, or their beginnings, that are set aside and trained anew.

    Of several processes that torchrun started, the first does that, and the others train with it and print nothing.
    """
    from benchmark.common.tracking import Tracking
    from benchmark.execution import runner

    store = Store(folder)
    started = torchrun()
    if started and launching:
        raise BenchError("torchrun starts processes that train a cell together; leave out --workers and --launch")
    if started and started.rank:
        from benchmark.execution.team import follow

        follow(plan)
        return Results(store, runner.Outcome())
    store.create()
    opened = ((name, plan.datasets[name]) for name in {pair.dataset: None for pair in plan.pairs})
    with Progress(console, progress, folder / "run.log") as reporter:
        store.keep_claims(plan.config.suite, _claims(plan.config))
        store.keep_datasets(
            {name: {"card": each.card.reference, "on_bad_data": each.on_bad_data} for name, each in opened}
        )
        for name in plan.absent:
            reporter.print(f"left out: {name}", "yellow")
        runner.start_again(plan, store, again)
        if launching:
            from benchmark.execution.launch.fleet import launch

            names = track.split(",") if isinstance(track, str) else [*track]
            if any(not isinstance(each, str) for each in names):
                raise BenchError("track: workers are processes of their own; name trackers, in place of objects")
            outcome = launch(plan, store, reporter, launching.launcher, launching.options, [str(n) for n in names])
        else:
            tracking = Tracking.of(track, folder / "tracking", lambda text: reporter.print(text, "yellow"))
            outcome = runner.run(plan, store, reporter, tracking=tracking)
        if outcome.submitted:
            return Results(store, outcome)
        reporter.print(
            f"trained {outcome.trained}, evaluated {outcome.evaluated}, done before {outcome.skipped}, "
            + (f"done by other processes {outcome.elsewhere}, " if outcome.elsewhere else "")
            + f"failed {len(outcome.failures)}; results in {folder}"
        )
        for failure in outcome.failures:
            reporter.print(failure, "red")
        return Results(store, outcome)


class _Options(Strict):
    """The options of configure(), with their types."""

    methods: list[str] | None = None
    tasks: list[str] | None = None
    model: str | None = None
    pretraining: list[str] | None = None
    datasets: list[str] | None = None
    seeds: PositiveInt | list[int] | None = None
    device: str | None = None
    gpus_per_cell: PositiveInt | None = None
    on_bad_data: str | None = None
    strict: Literal[True] | None = None
    tuned: str | None = None
    settings: dict[str, Any] | list[str] = {}
    budget: str | None = None
    grid: dict[str, list[Any]] | list[str] = {}
    scenario: str | None = None
    plugins: list[str | Path] = []

    def flags(self) -> dict[str, Any]:
        """Return the fields of the configuration that the options set."""
        flags = self.model_dump(exclude={"settings", "budget", "grid", "scenario", "plugins"}, exclude_none=True)
        if started := torchrun():
            if self.gpus_per_cell not in (None, started.count):
                raise BenchError(
                    f"torchrun started {started.count} processes, but --gpus-per-cell is {self.gpus_per_cell}"
                )
            flags["gpus_per_cell"] = started.count
        if isinstance(self.seeds, int):
            flags["seeds"] = list(range(self.seeds))
        return flags

    def texts(self) -> tuple[list[str], list[str]]:
        """Return settings and grid as the command line writes them."""
        settings, grid = self.settings, self.grid
        if isinstance(settings, dict):
            settings = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
        if isinstance(grid, dict):
            grid = [f"{name}={json.dumps(values)[1:-1]}" for name, values in grid.items()]
        return settings, grid


def configure(config: RunConfig | Mapping[str, Any] | str | Path = "demo", **options: Any) -> RunConfig:
    """Return the configuration of a run: a suite, overridden by options, as the command line does.

    Options: methods, tasks, pretraining, datasets, lists of names or paths. model, device. seeds: their values, or how
    many. gpus_per_cell: GPUs that train a cell together; those that torchrun started, if it did. settings: values by
    ``section.key``, such as {"training.batch_size": 512, "msd.momentum": 0.99}. budget: the training budget of every
    arm, such as "samples=200k". grid: lists of values by ``section.key``; their product is
    run. scenario: as --scenario, "noisy=0.1,0.5" in place of a suite, or "rare:ham10000.melanoma=0.01" over one. tuned:
    the folder of the settings that `bench tune` found. strict, on_bad_data: as on the command line. plugins: files that
    register methods or tasks; not needed for classes that the caller has registered. Settings and grid may also be
    texts as on the command line.
    Raises ``BenchError`` for an unknown name and for a value of the wrong type or out of range.
    """
    from benchmark.method import METHODS
    from benchmark.plan.resolve import check_settings
    from benchmark.plan.scenarios import of_dataset
    from benchmark.registry import load_files
    from benchmark.task import TASKS

    overrides = validated(_Options, options, "options of the run")
    load_files(overrides.plugins)
    if isinstance(config, str | Path):
        suite, replaced = str(config), None
        conditions: list[float] = []
        if overrides.scenario and ":" in overrides.scenario:
            replaced = of_dataset(overrides.scenario)
        elif overrides.scenario:
            suite, conditions = parse_scenario(overrides.scenario)
        settings, grid = overrides.texts()
        known = [*METHODS.names(), *TASKS.names()]
        loaded = load_run_config(
            suite, overrides.flags(), settings, known, overrides.budget, grid, conditions, replaced
        )
    else:
        if overrides.settings or overrides.budget or overrides.grid or overrides.scenario:
            raise BenchError(
                "settings, budget, grid and scenario apply to a suite's name or file; in a mapping, set them directly"
            )
        fields = config.model_dump() if isinstance(config, RunConfig) else dict(config)
        loaded = validated(RunConfig, fields | overrides.flags(), "the configuration")
    check_settings(loaded)
    return loaded


def _claims(config: RunConfig) -> dict[str, Claim]:
    """Return a suite's claims; none of a scenario, which compares each arm with itself."""
    return {} if config.scenario else config.claims


def _folder(results: str | Path | None) -> Path:
    return Path(results) if results else results_folder()
