"""The built package, from another folder, and plug-ins that are installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the built package is installed, as `pip install .` would."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*command, str(folder), str(ROOT)], check=True, timeout=300)
    return folder


def bench(site: Path, folder: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(site), "COLUMNS": "80"}
    code = "import sys, benchmark.cli.main as cli; assert cli.__file__.startswith(sys.argv.pop(1)); cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, str(site), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_configs_travel_with_the_package(site: Path, tmp_path: Path) -> None:
    assert "demo" in bench(site, tmp_path, "list", "suites")
    assert "vit-b-16" in bench(site, tmp_path, "list", "models")
    out = bench(site, tmp_path, "plan", "--tasks", "zero_shot")
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
