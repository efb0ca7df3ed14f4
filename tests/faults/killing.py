"""Commands of `bench` in processes that are killed, forked from one that has imported everything."""

import os
import sys
import time
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random

import optuna  # noqa: F401  imported once, for all that are forked
import torch
import transformers.models.clip.modeling_clip  # noqa: F401

import benchmark.api
import benchmark.execution.tuning
import benchmark.report.render  # noqa: F401
from benchmark.cli.main import main
from tests.execution.fleet import shorten_lives

CONTEXT = get_context("forkserver")


def _command(folder: Path, arguments: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    os.chdir(folder)
    os.environ["BENCH_CACHE"] = str(folder / "cache")
    shorten_lives()
    with (folder / "printed.txt").open("a") as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
    sys.argv = ["bench", *arguments]
    main()


def start(folder: Path, *arguments: str) -> BaseProcess:
    # Not when this is imported: the processes of other tests, of the same server, must not have the hub's clients.
    CONTEXT.set_forkserver_preload([__name__])
    process: BaseProcess = CONTEXT.Process(target=_command, args=(folder, arguments))
    process.start()
    return process


def complete(folder: Path, *arguments: str) -> float:
    """Carry a command out to its end in a folder; return the seconds that it took."""
    began = time.monotonic()
    process = start(folder, *arguments)
    process.join()
    assert process.exitcode == 0, (arguments, (folder / "printed.txt").read_text()[-3000:])
    return time.monotonic() - began


def kill_once(folder: Path, random: Random, seconds: float, *arguments: str) -> bool:
    """Kill a command at a random moment of its time; return whether it was still going on."""
    process = start(folder, *arguments)
    time.sleep(random.uniform(0, seconds))
    going = process.is_alive()
    process.kill()
    process.join()
    return going
