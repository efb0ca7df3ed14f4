"""Plug-ins from the command line: a result is done again when the code that it came from has changed."""

import re
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


FAULTS = {
    "no contrast": (
        "class X(Method):\n    pass\n",
        r"method 'faulty' \(.*broken\.py\): X does not define contrast\(\)",
    ),
    "config": (
        "class X(Method):\n    class Config:\n        margin = 1.0\n    def contrast(self, embeddings, keys): ...\n",
        r"X\.Config is not a dataclass; write @dataclass above it",
    ),
    "no subclass": ("class X:\n    pass\n", r"broken\.py\): X is not a subclass of Method"),
    "no dictionary": (
        "class X(Method):\n    def contrast(self, embeddings, keys):\n        return embeddings['image'].sum()\n",
        r"method 'faulty' \(X\): contrast\(\) must return a dict of losses, found tensor\(",
    ),
    "no scalar": (
        "class X(Method):\n    def contrast(self, embeddings, keys):\n        return {'loss': embeddings['image']}\n",
        r"loss 'loss' must be a scalar tensor of floating-point numbers, found a tensor of shape \[\d+, 16\]",
    ),
    "wrong key": (
        "class X(Method):\n    def contrast(self, embeddings, keys):\n        return {'loss': embeddings['im']}\n",
        r"method 'faulty': a step fails, KeyError: 'im' \(.*broken\.py, line 5\)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_method_is_refused_in_a_line(fault: str, bench: Bench) -> None:
    code, message = FAULTS[fault]
    code = f'from benchmark import Method, register_method\n@register_method("faulty")\n{code}'
    (bench.folder / "broken.py").write_text(code)
    flags = ["--suite", "suite.yaml", "--methods", "faulty", "--tasks", "zero_shot", "--plugin", "broken.py"]
    assert bench("plan", *flags) == 2, bench.out
    assert re.search(message, bench.err), bench.err
    assert len(bench.err.splitlines()) == 1


def test_a_plug_in_that_registers_nothing_is_refused(bench: Bench) -> None:
    (bench.folder / "nothing.py").write_text("x = 1\n")
    assert bench("list", "methods", "--plugin", "nothing.py") == 2
    assert "--plugin nothing.py: registers nothing" in bench.err


def test_a_search_over_an_unknown_option_is_refused_before_any_trial(bench: Bench) -> None:
    tune = ["tune", "--suite", "suite.yaml", "--methods", "clip", "--search", "clip.temprature=0.1..1"]
    assert bench(*tune) == 2
    assert "method 'clip': unknown option 'temprature'; did you mean 'temperature'" in bench.err
