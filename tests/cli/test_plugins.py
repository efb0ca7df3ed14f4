"""Plug-ins from the command line: a result is done again when the code that it came from has changed."""

import sys
from pathlib import Path

import pytest

from benchmark.method import METHODS
from tests.squares import Bench

METHOD = """
from benchmark import Method, register_method
from helper_of_plugin import SCALE


@register_method("plugged")
class Plugged(Method):
    def contrast(self, embeddings, keys):
        logits = SCALE * embeddings["image"] @ embeddings["text"].T
        return {"loss": -logits.log_softmax(dim=1).diagonal().mean()}
"""
QUICK = ["--suite", "suite.yaml", "--methods", "plugged", "--tasks", "zero_shot", "--set", "training.samples=96"]


def run(bench: Bench) -> str:
    """Run the plug-in as a process of its own would: nothing of it is imported yet."""
    sys.modules.pop("helper_of_plugin", None)
    METHODS._classes.pop("plugged", None)
    assert bench("run", *QUICK, "--plugin", "plugins/method.py") == 0, bench.out + bench.err
    return bench.out


def test_a_changed_helper_trains_again_and_a_comment_does_not(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    folder = Path(bench.folder / "plugins")
    folder.mkdir()
    (folder / "method.py").write_text(METHOD)
    (folder / "helper_of_plugin.py").write_text("SCALE = 10.0\n")
    try:
        assert "trained 1, evaluated 1, done before 0" in run(bench)
        first = bench.rows()
        (folder / "helper_of_plugin.py").write_text("SCALE = 0.5\n")
        assert "trained 1, evaluated 1, done before 0" in run(bench)
        assert set(bench.rows().cell).isdisjoint(first.cell)
        (folder / "helper_of_plugin.py").write_text('"""A constant."""\n\nSCALE = 0.5  # a comment\n')
        (folder / "method.py").write_text(
            METHOD.replace("    def", '    """A method."""\n\n    # It contrasts.\n    def')
        )
        assert "trained 0, evaluated 0, done before 2" in run(bench)
        (folder / "helper_of_plugin.py").write_text("SCALE = 10.0\n")
        assert "trained 0, evaluated 0, done before 2" in run(bench)
    finally:
        sys.modules.pop("helper_of_plugin", None)
        METHODS._classes.pop("plugged", None)
