"""`bench run`, `eval`, `report` and `claims`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.cli.options import (
    ResultFolders,
    RunOptions,
    console,
    names_of,
    results_option,
    say,
    store_of,
    takes_options,
)
from benchmark.common.collection import no_collection
from benchmark.common.errors import BenchError, cut, plural
from benchmark.common.hub import one_line
from benchmark.common.interrupts import STOPPED, StoppedError, stoppable
from benchmark.common.torchrun import torchrun

if TYPE_CHECKING:
    from benchmark.api import Launching
    from benchmark.execution.runner import Outcome
    from benchmark.plan.plan import Plan


@takes_options()
def run(
    options: RunOptions,
    track: Annotated[
        str | None,
        typer.Option(
            help="Send log and scores to tensorboard, wandb, mlflow or trackio (several: comma-separated); their files "
            "go to tracking/ in the results folder."
        ),
    ] = None,
    again: Annotated[
        list[str] | None,
        typer.Option(help="Set a cell aside and train it anew: its key, or the start of it; repeatable."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes of this machine that share the cells, over all of its GPUs.")
    ] = None,
    devices: Annotated[
        str | None, typer.Option(help="Devices of the workers, one each unless --workers says more: cuda:0,cuda:1.")
    ] = None,
    launcher: Annotated[
        str | None, typer.Option("--launch", help="Have the cells carried out by a launcher: local, slurm, ray.")
    ] = None,
    launch_option: Annotated[
        list[str] | None, typer.Option(help="Options of the launcher: partition=gpu,time=12h,gpus=1; repeatable.")
    ] = None,
) -> None:
    """Pretrain each method, evaluate it on each task, store the rows.

    Skips what the results folder already holds; the same command resumes an interrupted run.
    """
    from benchmark.api import Launching

    named = names_of(devices) or []
    launching = Launching.of(workers, named, launcher, _launch_options(launch_option or []))
    if named and options.device is None:
        options = replace(options, device=named[0].partition(":")[0])
    # Importing makes objects that stay: the collector would search them again and again for half a second.
    with no_collection(stays=True):
        from benchmark.plan.make import make_plan

        plan = make_plan(options.config())
    _execute(plan, options, names_of(track) or [], launching, again or [])


def _launch_options(texts: Sequence[str]) -> dict[str, Any]:
    """Parse name=value, several separated by commas, into values of YAML."""
    from benchmark.config.yaml_files import parse_yaml

    options: dict[str, Any] = {}
    for text in (part for each in texts for part in names_of(each) or []):
        name, equals, value = text.partition("=")
        if not equals:
            raise BenchError(f"--launch-option {cut(text)}: expected name=value, as in partition=gpu")
        options[name.strip()] = parse_yaml(value, f"--launch-option {cut(text)}")
    return options


@takes_options(
    "tasks", "suite", "datasets", "seeds", "device", "settings", "plugin", "on_bad_data", "results", "progress"
)
def eval_(
    options: RunOptions,
    model: Annotated[
        str,
        typer.Option(
            help="A published model (biomedclip; see bench list models), open_clip:NAME/TAG (or /FILE), "
            "open_clip:local-dir:FOLDER, hf:FOLDER (or hf:ORG/NAME), timm:NAME (or timm:FOLDER; images only), or a "
            "model card. Several: comma-separated."
        ),
    ],
    own_prompts: Annotated[
        bool,
        typer.Option(
            "--own-prompts", help="Classify with the templates of a published model's authors, not the datasets'."
        ),
    ] = False,
) -> None:
    """Evaluate models that were trained elsewhere, one after another; their rows join the same report.

    One that fails does not stop the others; it is named at the end, and the exit status is 1.
    """
    with no_collection(stays=True):
        from benchmark.plan.make import evaluation_plan

        config = options.config()
    specs = [model] if Path(model).exists() else names_of(model) or []
    failed: dict[str, Exception] = {}
    for spec in dict.fromkeys(specs):
        try:
            # It imports the library of the model, which takes longer than torch.
            with no_collection():
                plan = evaluation_plan(config, spec, own_prompts=own_prompts)
            if failures := _carried_out(plan, options).failures:
                failed[spec] = BenchError(f"{plural(len(failures), 'part')}, see above")
        except typer.Exit:
            raise
        except Exception as error:
            if len(specs) == 1:
                raise
            failed[spec] = error
    for spec, cause in failed.items() if len(specs) > 1 else ():
        say(f"{spec} failed: {cause if isinstance(cause, BenchError) else one_line(cause)}", "red")
    unforeseen = [cause for cause in failed.values() if not isinstance(cause, BenchError)]
    if unforeseen:
        raise unforeseen[0]
    if failed:
        raise typer.Exit(1)
    say(f"next: bench report{results_option(options.results)}")


def _execute(
    plan: "Plan",
    options: RunOptions,
    track: Sequence[str] = (),
    launching: "Launching | None" = None,
    again: Sequence[str] = (),
) -> None:
    """Carry out a plan. Exits with status 1 if something failed, else as _carried_out() does."""
    outcome = _carried_out(plan, options, track, launching, again)
    if outcome.failures:
        raise typer.Exit(1)
    if (started := torchrun()) and started.rank:
        return
    say("next: " + ("bench status" if outcome.submitted else "bench report") + results_option(options.results))


def _carried_out(
    plan: "Plan",
    options: RunOptions,
    track: Sequence[str] = (),
    launching: "Launching | None" = None,
    again: Sequence[str] = (),
) -> "Outcome":
    """Carry out a plan; return what was done.

    Exits with status 130 after Ctrl-C, and 75 after a signal by which a scheduler asks to stop.
    """
    from benchmark.api import execute

    try:
        with stoppable():
            outcome = execute(plan, options.folder, console, options.progress, track, launching, again).outcome
    except StoppedError as stopped:
        say(f"stopped by {stopped}; the same command goes on from the last checkpoint", "yellow")
        raise typer.Exit(STOPPED) from None
    except KeyboardInterrupt:
        say("interrupted; the same command resumes from the last checkpoint", "yellow")
        raise typer.Exit(130) from None
    assert outcome is not None
    return outcome


def report(
    results: ResultFolders = None,
    reference: Annotated[
        str | None,
        typer.Option(help="The method (or line of the tables) that the others are compared with. Default: the best."),
    ] = None,
    latex: Annotated[
        bool, typer.Option("--latex", help="Write LaTeX tables and references.bib too, and the plots as PDF.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="The folder to write. Default: report in the (first) folder of the results.")
    ] = None,
    details: Annotated[bool, typer.Option("--details", help="Print all tables, and every file's path.")] = False,
    no_images: Annotated[
        bool, typer.Option("--no-images", help="Leave images and texts of the datasets out of index.html.")
    ] = False,
) -> None:
    """Print the answer and the overview of the results, and write index.html, report.md, CSV files and plots.

    The answer says which lines the tests tell apart. index.html has everything and needs no network. All tables are in
    report.md; --details prints them too. Results of several folders are compared where they were measured on the same
    examples.
    """
    from benchmark.api import write_report

    files = write_report(store_of(results), output, reference, console, latex, details, not no_images)
    for path in files if details else [path for path in files if path.name in ("report.md", "index.html")]:
        say(str(path))


def claims(
    suite: Annotated[
        str | None, typer.Option(help="A suite's name, or the path of its YAML. Default: the suites of the results.")
    ] = None,
    results: ResultFolders = None,
) -> None:
    """Say of each claim that a suite makes whether the results support or contradict it, or what is missing.

    The claims are those of the papers that a suite reproduces. The report shows the same.
    """
    from benchmark.api import judge_claims
    from benchmark.report.claims import claim_parts
    from benchmark.report.page import print_part

    store = store_of(results)
    verdicts = judge_claims(store, suite)
    if not verdicts:
        where = f"suite {suite}" if suite else f"the suites that were run in {store.folder}"
        next_step = "" if suite else ", and bench claims --suite cxr shows what it takes to test them"
        say(f"no claims of {where}; a suite states them under claims:, as cxr does{next_step}")
    for part in claim_parts(verdicts):
        print_part(part, console)
