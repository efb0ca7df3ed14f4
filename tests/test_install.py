"""The built wheel, from another folder; plug-ins that are installed; files of the user's that have unlucky names."""

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn
from zipfile import ZipFile

import pytest

from benchmark.method import METHODS
from benchmark.task import TASKS

ROOT = Path(__file__).parents[1]
HOSTILE = ("tasks", "methods", "config", "configs", "registry", "store", "data", "models", "plan", "report", "cli")
"""Names that the harness uses inside its package: a file of the user's may have them."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*command, str(folder), str(ROOT)], check=True, timeout=300)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel is installed."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*command, str(folder), str(wheel)], check=True, timeout=300)
    return folder


def python(code: str, folder: Path, *arguments: str, path: Path = ROOT) -> str:
    """What Python prints in a folder, which is the first to be searched for modules."""
    environment = os.environ | {"PYTHONPATH": str(path), "COLUMNS": "80"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def forked(code: str, folder: Path, *arguments: str, path: Path = ROOT) -> str:
    """What ``python`` gives, in a copy of this process: torch is imported already, nothing of the harness is."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _become_python(code, folder, arguments, path, writing)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        out = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, out
    return out


def _become_python(code: str, folder: Path, arguments: Sequence[str], path: Path, output: int) -> NoReturn:
    status = 1
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = sys.stderr = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        own = {"benchmark", "tests", *HOSTILE}
        for name in [name for name in sys.modules if name.split(".")[0] in own]:
            del sys.modules[name]
        os.chdir(folder)
        os.environ |= {"PYTHONPATH": str(path), "COLUMNS": "80"}
        sys.path[:] = ["", str(path), *(each for each in sys.path if each not in ("", str(ROOT), str(path)))]
        sys.argv = ["-c", *arguments]
        exec(code, {"__name__": "__main__"})
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0) if isinstance(stop.code, int | None) else 1
        print("" if isinstance(stop.code, int | None) else stop.code)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def bench(site: Path, folder: Path, *arguments: str, run: Callable[..., str] = python) -> str:
    code = "import sys, benchmark.cli.main as cli; assert cli.__file__.startswith(sys.argv.pop(1)); cli.main()"
    return run(code, folder, str(site), *arguments, path=site)


@cache
def in_an_empty_folder(*arguments: str) -> str:
    """What the checkout's `bench` prints where there is nothing that could mislead it."""
    with TemporaryDirectory() as folder:
        return bench(ROOT, Path(folder), *arguments)


def test_the_wheel_has_one_package_with_everything(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    info = next(name.split("/")[0] for name in names if ".dist-info/" in name)
    assert {name.split("/")[0] for name in names} == {"benchmark", info}
    in_checkout = set()
    for folder, inside in (("benchmark", ""), ("methods", "methods/"), ("tasks", "tasks/"), ("configs", "configs/")):
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"]
        in_checkout |= {f"benchmark/{inside}{path.relative_to(ROOT / folder)}" for path in files}
    assert {name for name in names if name.startswith("benchmark/")} == in_checkout
    assert {"benchmark/py.typed", "benchmark/methods/clip.py", "benchmark/configs/suites/demo.yaml"} <= in_checkout


def test_the_wheel_works_in_another_folder(site: Path, tmp_path: Path) -> None:
    assert "demo" in bench(site, tmp_path, "list", "suites")
    assert "vit-b-16" in bench(site, tmp_path, "list", "models")
    assert bench(site, tmp_path, "list", "methods") == in_an_empty_folder("list", "methods")
    assert bench(site, tmp_path, "list", "tasks") == in_an_empty_folder("list", "tasks")
    out = bench(site, tmp_path, "plan", "--methods", "msd", "--tasks", "zero_shot", run=forked)
    assert "phantom-cxr" in out
    assert "msd" in out


def test_an_installed_package_registers_by_an_entry_point(site: Path, tmp_path: Path) -> None:
    (site / "their_method.py").write_text(
        "from benchmark import Method, register_method\n\n"
        "@register_method('theirs')\nclass Theirs(Method):\n    summary = 'an installed one'\n"
    )
    info = site / "their_method-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-method\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[benchmark.plugins]\ntheirs = their_method\n")
    out = bench(site, tmp_path, "list", "methods")
    assert "theirs" in out
    assert "an installed one" in out


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A working folder with files and packages that must never be imported."""
    for name in HOSTILE:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the working folder has its own {name}.py')\n")
    for name in ("evaluation", "training", "common"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('the working folder has its own {name}')\n")
    return tmp_path


NAMES = (
    "from benchmark.method import METHODS; from benchmark.task import TASKS; print(*METHODS.names(), *TASKS.names())"
)


def test_files_of_the_working_folder_change_nothing_for_bench(hostile: Path) -> None:
    for arguments in (["list", "methods"], ["list", "tasks"], ["list", "suites"], ["data", "list"]):
        assert bench(ROOT, hostile, *arguments) == in_an_empty_folder(*arguments)


def test_nor_for_a_notebook(hostile: Path) -> None:
    """A notebook's kernel searches its own folder first, as python -c does."""
    names = forked("import sys; assert sys.path[0] == ''; " + NAMES, hostile).split()
    assert names == [*METHODS.names(), *TASKS.names()]
    assert {"clip", "msd", "zero_shot"} <= set(names)


def test_nor_for_pytest(hostile: Path) -> None:
    (hostile / "test_theirs.py").write_text(
        "from benchmark.method import METHODS\nfrom benchmark.task import TASKS\n\n\n"
        "def test_registered():\n    assert 'clip' in METHODS.names() and 'zero_shot' in TASKS.names()\n"
    )
    code = "import sys, pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', 'test_theirs.py']))"
    assert "1 passed" in forked(code, hostile)
