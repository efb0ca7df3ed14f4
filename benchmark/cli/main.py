"""`bench`: the commands and their exit status."""

import io
import os
import sys
from contextlib import suppress

import typer

from benchmark.cli.data import data_app
from benchmark.cli.doctor import doctor
from benchmark.cli.listing import list_
from benchmark.cli.options import say
from benchmark.cli.perf import perf
from benchmark.cli.plan import plan
from benchmark.cli.run import claims, eval_, report, run
from benchmark.cli.status import cancel, status
from benchmark.cli.tools import caption, clean, export, merge, push, tune
from benchmark.cli.watch import watch
from benchmark.common.errors import BenchError, explained, kept_alive, raised_in, said
from benchmark.common.interrupts import STOPPED, StoppedError
from benchmark.common.text import PLAIN, Terminal

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Compare contrastive image-text pretraining methods on downstream tasks.",
    epilog="Example: bench run --methods msd,clip --tasks all",
)
for command, name, example in (
    (run, "run", "--methods msd,clip --tasks retrieval --seeds 3 --budget samples=100k"),
    (eval_, "eval", "--model open_clip:ViT-B-32/openai --tasks all --datasets phantom-cxr"),
    (plan, "plan", "--methods all --model vit-b-16 --set training.batch_size=512"),
    (tune, "tune", "--methods clip,msd --trials 12 --search msd.momentum=0.9..0.999"),
    (report, "report", "--results ours,theirs --reference clip"),
    (watch, "watch", "--results results --every 60"),
    (status, "status", "--results results"),
    (cancel, "cancel", "--results results"),
    (claims, "claims", "--suite cxr --results results"),
    (caption, "caption", "--dataset phantom-cxr --beams 3 --count 8"),
    (perf, "perf", "--methods all --model vit-b-16 --output results/reference/steps.json"),
    (export, "export", "clip --output clip-squares --format huggingface"),
    (push, "push", "clip-squares --repo USER/clip-squares --private"),
    (merge, "merge", "results-a results-b --into results"),
    (doctor, "doctor", "--results results"),
    (clean, "clean", "--embeddings --partial"),
    (list_, "list", "methods"),
):
    app.command(name, epilog=f"Example: bench {name} {example}")(command)
app.add_typer(data_app, name="data")


TRACEBACK = "BENCH_TRACEBACK"
"""The environment variable that asks for tracebacks."""


def main() -> None:
    """Run the program. Errors that no one expected show their traceback if BENCH_TRACEBACK is set.

    Exit status: 2 after a user's mistake or an error of the machine, with a message; 1 after a failure; 130 after
    Ctrl-C; 75 when a scheduler asks to stop.
    """
    # Before torch is imported: its profiler warns of tensors that are older than itself.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN)
    try:
        with kept_alive():
            status = app(standalone_mode=False)
        sys.stdout.flush()
    except BenchError as error:
        _print_error(str(error))
        status = 2
    except StoppedError as stopped:
        say(f"stopped by {stopped}", "yellow")
        status = STOPPED
    except SystemExit as stopped:
        # From a plug-in or a library; the commands themselves return their status.
        _print_error(said(stopped))
        status = 1
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted", "yellow")
        status = 130
    except BrokenPipeError:
        # The reader is gone (bench list datasets | head).
        _discard_output()
        status = 1
    except (OSError, MemoryError) as error:
        try:
            sys.stdout.flush()
        except OSError:
            _discard_output()
        _print_error(explained(error))
        status = 2
    except BaseException as error:
        # Typer's usage errors (an unknown option) have a method that prints them.
        if show := getattr(error, "show", None):
            show()
            status = getattr(error, "exit_code", 2)
        elif os.environ.get(TRACEBACK):
            raise
        else:
            _print_error(f"{said(error)} ({raised_in(error)}); {TRACEBACK}=1 shows the traceback")
            status = 1
    sys.exit(status if isinstance(status, int) else 0)


def _print_error(message: str) -> None:
    # Standard error may be full too.
    with suppress(OSError):
        Terminal(stderr=True).print(f"error: {message}", style="red", highlight=False, markup=False, soft_wrap=True)


def _discard_output() -> None:
    """Discard what is still buffered: writing it at the end would fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
