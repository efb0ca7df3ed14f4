"""The worked example of docs/adding_a_method.md passes the conformance suite as it stands there."""

import re
from pathlib import Path

import pytest

from benchmark.method import METHODS
from tests.conformance import checks_of, judge, registered
from tests.methods import test_conformance as suite

DOCS = (Path(__file__).parents[2] / "docs" / "adding_a_method.md").read_text()
EXAMPLE = re.search(r"```python\n(.*?register_method.*?)```", DOCS, re.DOTALL)[1]  # type: ignore[index]


@pytest.mark.parametrize("test", checks_of(suite))
def test_the_example_conforms(test: str, tmp_path: Path) -> None:
    values = {
        "name": "neighbours",
        "mode": "cached",
        "options": {},
        "sizes": [4, 4, 4, 4, 4, 4, 1],
        "tmp_path": tmp_path,
    }
    with registered(METHODS, tmp_path / "neighbours.py", EXAMPLE):
        judge(checks_of(suite)[test], **values)
