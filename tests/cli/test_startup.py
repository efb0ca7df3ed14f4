"""What starts quickly: help and lists import no torch, which takes seconds."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.cli.data import data_app
from benchmark.cli.declarations import Unreadable, declared
from benchmark.cli.main import app
from benchmark.method import METHODS
from benchmark.task import TASKS
from tests.squares import Bench

HEAVY = (
    "torch",
    "torch._dynamo",
    "triton",
    "pandas",
    "scipy.special",
    "scipy.sparse",
    "sklearn",
    "matplotlib",
    "transformers",
    "open_clip",
    "timm",
)
COMMANDS = [command.name for command in app.registered_commands]
DATA_COMMANDS = [command.name for command in data_app.registered_commands]


def started(folder: Path, *arguments: str, status: int = 0) -> tuple[str, float, set[str]]:
    """What `bench` prints in a process of its own, the CPU seconds it takes, and which heavy modules it imports."""
    code = f"""
import resource, sys
import benchmark.cli.main as cli
try:
    cli.main()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    loaded = [name for name in {HEAVY!r} if name in sys.modules]
    print(used.ru_utime + used.ru_stime, *loaded, file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=os.environ | {"COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    seconds, *loaded = done.stderr.splitlines()[-1].split()
    assert done.returncode == status, done.stderr
    return done.stdout, float(seconds), set(loaded)


HELPS = f"""
import contextlib, io, json, sys
import benchmark.cli.main as cli
for command in json.loads(sys.argv[1]):
    sys.argv = ["bench", *command, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        cli.main()
    print(json.dumps([command, printed.getvalue(), [name for name in {HEAVY!r} if name in sys.modules]]))
"""
"""Prints the help of each command, and what was imported by then: one process for all, as each takes half a second."""


def test_help_imports_nothing_heavy_and_has_an_example(tmp_path: Path) -> None:
    _, seconds, loaded = started(tmp_path, "--help")
    assert not loaded
    assert seconds < 0.5
    commands = [*([name] for name in COMMANDS), ["data"], *(["data", name] for name in DATA_COMMANDS)]
    run = [sys.executable, "-c", HELPS, json.dumps(commands)]
    done = subprocess.run(run, cwd=tmp_path, env=os.environ | {"COLUMNS": "120"}, capture_output=True, text=True)
    helps = [json.loads(line) for line in done.stdout.splitlines()]
    assert [command for command, _, _ in helps] == commands, done.stderr
    for command, printed, heavy in helps:
        assert heavy == [], command
        if command != ["data"]:
            assert f"bench {' '.join(command)}" in " ".join(printed.split()).partition("Example: ")[2]


@pytest.mark.parametrize("kind", ["methods", "tasks", "datasets", "models", "suites"])
def test_lists_import_nothing_heavy(tmp_path: Path, kind: str) -> None:
    _, seconds, loaded = started(tmp_path, "list", kind)
    assert not loaded
    assert seconds < 1


def test_the_list_of_data_imports_nothing_heavy(tmp_path: Path) -> None:
    out, seconds, loaded = started(tmp_path, "data", "list")
    assert "phantom-cxr" in out
    assert not loaded
    assert seconds < 1


def test_a_report_on_nothing_imports_no_torch(tmp_path: Path) -> None:
    _, seconds, loaded = started(tmp_path, "report", "--results", str(tmp_path), status=2)
    assert not loaded & {"torch", "transformers", "open_clip", "timm"}
    assert seconds < 2


def test_a_model_without_tensors_imports_no_compiler() -> None:
    code = """
import sys
from benchmark.models import build_model, load_model_card
shapes = [[*tensor.shape] for tensor in build_model(load_model_card("tiny"), 0, "meta").state_dict().values()]
heavy = [name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules]
real = [[*tensor.shape] for tensor in build_model(load_model_card("tiny"), 0).state_dict().values()]
print(heavy, shapes == real)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[] True\n", done.stderr


def test_runs_import_what_they_use(bench: Bench) -> None:
    """One that is finished computes nothing, and one that trains compiles nothing."""
    run = ("run", "--suite", "suite.yaml", "--methods", "clip", "--tasks", "retrieval", "--budget", "steps=1")
    assert bench(*run, "--device", "cpu") == 0
    _, _, finished = started(bench.folder, *run, "--device", "cpu")
    assert finished == {"torch"}
    out, _, training = started(bench.folder, *run, "--device", "cpu", "--seeds", "2")
    assert "trained 1, evaluated 1, done before 2" in out
    assert "torch._dynamo" not in training


def test_what_the_users_file_registers_is_listed(bench: Bench) -> None:
    assert bench("list", "methods", "--plugin", "hinge.py") == 0
    assert re.search(r"^hinge ", bench.out, re.MULTILINE)


@pytest.mark.parametrize("kind", ["method", "task"])
def test_declarations_are_those_of_the_classes(kind: str) -> None:
    registry = {"method": METHODS, "task": TASKS}[kind]
    shipped = {name: registry[name] for name in registry.names() if registry[name].__module__.startswith("benchmark.")}
    declarations = declared(kind)
    assert list(declarations) == list(shipped)
    names = ("summary", "source", "trains", "extra", "inferred", "accumulation", "abilities", "needs", "primary")
    for name, cls in shipped.items():
        for attribute in names:
            assert getattr(declarations[name], attribute, None) == getattr(cls, attribute, None), (name, attribute)
        if kind == "method":
            assert declarations[name].needs == cls.needs_of(cls.Config()), name


PLUGIN = """
from benchmark import Method, register_method
from benchmark.methods.clip import Clip as Base

class Common(Base):
    summary = "common"

@register_method("theirs")
class Theirs(Common):
    source = "a paper"
    needs = frozenset({"label"})
"""


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (folder / "a_plugin.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr("benchmark.cli.declarations.installed_plugins", lambda: [("theirs", "a_plugin")])
    monkeypatch.setattr("benchmark.cli.declarations._tree", _uncached("_tree"))
    monkeypatch.setattr("benchmark.cli.declarations._spec", _uncached("_spec"))


def _uncached(name: str) -> object:
    from benchmark.cli import declarations

    function = getattr(declarations, name)
    return getattr(function, "__wrapped__", function)


def test_an_installed_plugin_is_read_without_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, monkeypatch, PLUGIN)
    theirs = declared("method")["theirs"]
    assert (theirs.summary, theirs.source, theirs.needs) == ("common", "a paper", frozenset({"label"}))
    assert theirs.trains == METHODS["clip"].trains
    assert theirs.inferred == ""
    assert "a_plugin" not in sys.modules


@pytest.mark.parametrize(
    "text",
    [
        PLUGIN.replace('"a paper"', '"a paper".upper()'),
        PLUGIN.replace('@register_method("theirs")', "@register_method('the' + 'irs')"),
        PLUGIN.replace('@register_method("theirs")', "") + 'register_method("theirs")(Theirs)\n',
        PLUGIN.replace("register_method\n", "register_method as register\n").replace("@register_method", "@register"),
        PLUGIN.replace("(Common)", "(Common, Method)"),
        PLUGIN.replace("class Common(Base)", "class Common(make_base())"),
        PLUGIN.replace("    source =", "    if True:\n        source ="),
        PLUGIN + '@register_method("theirs")\nclass Again(Base):\n    pass\n',
        "def (",
    ],
)
def test_what_only_an_import_can_read_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    installed(tmp_path, monkeypatch, text)
    with pytest.raises(Unreadable):
        declared("method")
