"""A full disk, an unwritable folder, a plug-in that ends the program: one line each, and nothing is left out for it."""

import errno
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.common.errors import MachineError
from benchmark.data.check import check
from benchmark.data.dataset import open_dataset
from benchmark.data.images import load_image
from benchmark.data.problems import BadRow
from benchmark.store.store import Store
from benchmark.task import TASKS
from tests.data.make import PAIRS, images, pairs, shard, write_card, write_jsonl
from tests.squares import Bench, edit

QUICK = ["--suite", "suite.yaml", "--methods", "clip", "--tasks", "zero_shot", "--budget", "steps=2"]
PLUGIN = """
import sys
from benchmark import Method, register_method

@register_method("faulty")
class Faulty(Method):
    steps = 0
    def contrast(self, embeddings, keys):
        Faulty.steps += 1
        if Faulty.steps > {steps}:
            {fault}
        logits = embeddings["image"] @ embeddings["text"].T
        return {{"loss": -logits.log_softmax(dim=1).diagonal().mean()}}
"""


def full(folder: Path, monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOSPC) -> None:
    """Let every write below a folder fail, as on a full disk."""
    opened, made = os.open, os.mkdir

    def failing(original, path, *arguments, **options):
        if folder in Path(os.fsdecode(path) if not isinstance(path, int) else "/").absolute().parents:
            raise OSError(number, os.strerror(number), str(path))
        return original(path, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", lambda *a, **k: failing(made, *a, **k))
    monkeypatch.setattr(os, "open", lambda *a, **k: failing(opened, *a, **k))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_an_unwritable_cache_leaves_nothing_out(number: int, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the same set: with bad data, one that is only tested on would be left out."""
    (bench.folder / "copy.yaml").write_text((bench.folder / "squares.yaml").read_text())
    edit(bench.folder / "suite.yaml", datasets=["squares.yaml", "copy.yaml"], on_bad_data="skip")
    cache = bench.folder / "cache"
    cache.mkdir()
    monkeypatch.setenv("BENCH_CACHE", str(cache))
    full(cache, monkeypatch, number)
    assert bench("run", *QUICK) == 2
    assert "left out" not in bench.out
    assert f"cannot be written: {os.strerror(number)}; set BENCH_CACHE" in bench.err
    assert len(bench.err.splitlines()) == 1


def test_a_cache_that_fills_up_while_a_set_is_checked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (bench.folder / "copy.yaml").write_text((bench.folder / "squares.yaml").read_text())
    edit(bench.folder / "suite.yaml", datasets=["squares.yaml", "copy.yaml"], on_bad_data="skip")
    from benchmark.execution import runner

    real = runner.check

    def check(dataset, *arguments):
        if dataset.card.name == "copy":
            raise MachineError("cache x: cannot be written: No space left on device")
        real(dataset, *arguments)

    monkeypatch.setattr(runner, "check", check)
    assert bench("run", *QUICK) == 2
    assert "No space left on device" in bench.err


@pytest.mark.parametrize(("number", "kind"), [(errno.EIO, MachineError), (errno.ESTALE, MachineError)])
def test_an_image_that_the_machine_cannot_read(
    number: int, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"no image")
    with pytest.raises(BadRow):
        load_image(path)

    def failing(self, *_, **__):
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(kind, match=r"a\.png cannot be read"):
        load_image(path)


def test_results_are_tested_for_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "cells").touch()
    for folder in ("file", "file/below", "odd"):
        with pytest.raises(MachineError, match=r"the results folder .*; choose another with --results$"):
            Store(tmp_path / folder).create()
    full(tmp_path / "results", monkeypatch)
    with pytest.raises(MachineError, match=r"cannot be written to: .*No space left on device"):
        Store(tmp_path / "results").create()
    monkeypatch.undo()
    Store(tmp_path / "results").create()
    assert list((tmp_path / "results").iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("sys.exit(0)", r"sys\.exit\(0\) was called in .*faulty\.py, line 11"),
        ("raise SystemExit('bye')", r"sys\.exit\('bye'\) was called in .*faulty\.py"),
        ("raise MemoryError", "out of memory"),
        ("raise OSError(28, 'No space left on device', 'x')", "x: No space left on device"),
        ("raise ValueError('odd\\x1b[31m')", r"ValueError: odd"),
        ("import os; os._exit(0)", r"os\._exit\(0\) was called in .*faulty\.py, line 11"),
        ("raise GeneratorExit", r"GeneratorExit"),
    ],
)
def test_a_plug_in_that_fails(fault: str, said: str, bench: Bench) -> None:
    steps = 3 if "exit" in fault else 0  # in the training, or before it
    (bench.folder / "faulty.py").write_text(PLUGIN.format(fault=fault, steps=steps))
    (bench.folder / "results").mkdir()
    (bench.folder / "results" / "errors").touch()  # the traceback cannot be kept
    status = bench("run", *QUICK, "--methods", "faulty", "--plugin", "faulty.py")
    assert status in (1, 2)
    printed = " ".join((bench.out + bench.err).split())
    assert "\x1b" not in printed
    assert "Traceback" not in printed
    assert re.search(said, printed), printed


@pytest.mark.parametrize(
    "text", ["import os; os._exit(0)", "raise SystemExit", "raise MemoryError", "1 / 0", "raise GeneratorExit"]
)
def test_a_plug_in_that_ends_the_program_when_imported(text: str, bench: Bench) -> None:
    (bench.folder / "ends.py").write_text(text)
    assert bench("run", *QUICK, "--plugin", "ends.py") == 2
    assert re_one_line(bench.err).startswith("error: --plugin ends.py: ")


def re_one_line(text: str) -> str:
    assert text.count("\n") == 1
    return text


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (SystemExit(0), 1, "sys.exit(0) was called"),
        (ZeroDivisionError("odd\nlines"), 1, "ZeroDivisionError: odd lines ("),
        (GeneratorExit(), 1, "GeneratorExit ("),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 2, "/x/y: No space left on device"),
        (MemoryError("Unable to allocate 9 GiB"), 2, "out of memory (Unable to allocate 9 GiB)"),
        (PermissionError(errno.EACCES, "Permission denied", "report"), 2, "report: Permission denied"),
    ],
)
def test_how_the_program_ends(
    error: BaseException, status: int, said: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr("benchmark.cli.main.app", fail)
    assert bench("list", "methods") == status
    assert said in re_one_line(bench.err)


TASK = """
import os, sys
from benchmark import Task, register_task

@register_task("ends")
class Ends(Task):
    primary, needs = "accuracy", frozenset({{"label"}})

    @classmethod
    def model_needs(cls, config):
        {model_needs}
        return frozenset()

    def evaluate(self, data, seed):
        {evaluate}
"""


def test_a_task_that_ends_the_program(bench: Bench) -> None:
    faults = {"model_needs": "sys.exit(0)", "evaluate": "os._exit(0)"}
    for where, fault in faults.items():
        (bench.folder / f"{where}.py").write_text(TASK.format(**dict.fromkeys(faults, "pass") | {where: fault}))
        TASKS._classes.pop("ends", None)
        assert bench("run", *QUICK, "--plugin", f"{where}.py", "--tasks", "ends") == 1
        said = bench.err or bench.out.splitlines()[-1]
        assert f"{fault} was called in " in said
        assert f"{where}.py, line " in said
        assert "Traceback" not in bench.err


def test_no_process_ends_by_a_call_of_os_exit() -> None:
    """Not with status 0: in a thread it ends the process, and in a child it is what it was."""
    program = "import os, sys, threading; from benchmark.common.errors import kept_alive\nwith kept_alive(): "
    for call, status in (
        ("threading.Thread(target=os._exit, args=(0,)).start()", 1),
        ("child = os.fork() or os._exit(7); os._exit(os.waitpid(child, 0)[1] >> 8)", 7),
    ):
        done = subprocess.run([sys.executable, "-c", program + call], capture_output=True, text=True)
        assert done.returncode == status, done.stderr


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("a=[[", "--launch-option a=[[: not valid YAML"),
        ("a=" + "[" * 3000, "more than 50 levels"),
        ("a=!!python/object/apply:os.system [id]", "could not determine a constructor"),
        ("workers=" + "9" * 5000, "an integer of more than 64 bits"),
        ("workers=\x1b[31m", "not valid YAML"),
        ("x" * 3000, "expected name=value"),
    ],
)
def test_options_of_launchers(option: str, said: str, bench: Bench) -> None:
    assert bench("run", *QUICK, "--launch", "local", "--launch-option", option) == 2
    assert said in re_one_line(bench.err)
    assert len(bench.err) < 400


def test_a_report_that_cannot_be_written(bench: Bench) -> None:
    assert bench("run", *QUICK, "--results", "my results") == 0
    assert bench.out.splitlines()[-1] == "next: bench report --results 'my results'"
    assert bench("plan", *QUICK, "--results", "my results") == 0
    assert bench.out.splitlines()[-1] == "next: bench report --results 'my results'"
    (bench.folder / "file").touch()
    assert bench("report", "--results", "my results", "--output", "file") == 2
    assert re_one_line(bench.err) == "error: file/plots: Not a directory\n"


def test_a_full_or_ascii_terminal(tmp_path: Path) -> None:
    program = "import benchmark.cli.main as cli; cli.app = lambda **_: print('1–2 ± 3 … \\N{SNOWMAN}'); cli.main()"
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", program], env=ascii_only, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1-2 +/- 3 ... \\u2603\n", "")
    with Path("/dev/full").open("w") as output:
        done = subprocess.run([sys.executable, "-c", program], stdout=output, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "error: No space left on device\n")


def test_a_linked_folder_of_the_cache_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, elsewhere = bench.folder / "cache", bench.folder / "elsewhere"
    for folder in (cache / "records", elsewhere):
        folder.mkdir(parents=True)
        (folder / "a").write_text("a")
    (cache / "prepared").symlink_to(elsewhere)
    monkeypatch.setenv("BENCH_CACHE", str(cache))
    assert bench("clean", "--cache", "--yes") == 0, bench.err
    assert f"prepared is a link to {elsewhere}: its content stays" in bench.out.replace("\n", "")
    assert [each.name for each in cache.iterdir()] == ["prepared"]
    assert (elsewhere / "a").read_text() == "a"


SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "table": ("rows.jsonl", {"kind": "manifest", "file": "rows.jsonl", "columns": PAIRS}),
    "images": ("images/1.png", {"kind": "manifest", "file": "rows.jsonl", "columns": PAIRS}),
    "state of images": ("images/1.png", {"kind": "manifest", "file": "rows.jsonl", "columns": PAIRS}),
    "folder": ("root/b", {"kind": "image_folder", "root": "root", "split": {"train": 1}}),
    "npz": ("a.npz", {"kind": "npz", "file": "a.npz"}),
    "shard": (
        "a.tar",
        {"kind": "webdataset", "shards": {"train": ["a.tar"]}, "columns": {"image": "png", "text": "txt"}},
    ),
    "h5": ("a.h5", {"kind": "h5", "files": {"train": {"images": "a.h5", "labels": "a.h5"}}}),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_no_reader_takes_an_error_of_the_machine_for_bad_data(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "rows.jsonl", pairs(tmp_path, 3))
    for name in "ab":
        images(tmp_path / "root" / name, 2)
    np.savez(tmp_path / "a.npz", train_images=np.zeros((2, 8, 8), np.uint8), train_labels=np.arange(2))
    shard(tmp_path / "a.tar", [("0.png", (tmp_path / "images" / "0.png").read_bytes()), ("0.txt", b"a")])
    (tmp_path / "a.h5").write_bytes(b"")
    name, source = SOURCES[kind]
    card = write_card(tmp_path, source, classes=["a", "b"])
    at = str(tmp_path / name)

    def failing(original: Any) -> Any:
        def call(path: Any = ".", *arguments: Any, **options: Any) -> Any:
            if str(path) == at:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
            return original(path, *arguments, **options)

        return call

    if kind == "state of images":
        monkeypatch.setattr(os, "stat", failing(os.stat))
    elif kind == "folder":
        monkeypatch.setattr(os, "scandir", failing(os.scandir))
    elif kind == "h5":
        monkeypatch.setattr("h5py.File", failing(None))
    else:
        monkeypatch.setattr(Path, "open", failing(Path.open))
        monkeypatch.setattr("tarfile.open", failing(tarfile.open))
    with pytest.raises(MachineError, match=r"Input/output error") as error:
        check(open_dataset(card, "skip", tmp_path / "cache"))
    assert "\n" not in str(error.value)
