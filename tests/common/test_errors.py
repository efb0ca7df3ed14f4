"""Messages stay short whatever a user's data hold."""

import time

import pytest

from benchmark.common.errors import cut, listed, shortened, unknown

NAMES = [f"name-{i:05}" for i in range(20_000)]
MEGABYTE = "x" * 1_000_000


def test_a_few_names_are_all_listed() -> None:
    assert str(unknown("thing", "b", ["c", "a", "a"])) == "unknown thing 'b'. Known: a, c"
    assert str(unknown("thing", "b", [])) == "unknown thing 'b'. Known: none"


def test_of_many_names_the_nearest_and_a_dozen_are_shown() -> None:
    message = str(unknown("column", "nam-19999", NAMES, "bench list columns"))
    assert message.startswith("unknown column 'nam-19999'; did you mean 'name-19999'? Known: name-00000, ")
    assert message.endswith(", name-00011 and 19,988 more: bench list columns")
    assert len(message) < 300


def test_long_names_are_cut() -> None:
    began = time.process_time()
    message = str(unknown("column", MEGABYTE, [*NAMES, MEGABYTE + "y", "a\nb"]))
    assert time.process_time() - began < 10
    assert len(message) < 500
    assert "\n" not in message


@pytest.mark.parametrize(
    "value", [MEGABYTE, [MEGABYTE] * 1000, {"a": {MEGABYTE: [MEGABYTE]}}, list(range(10**6)), MEGABYTE.encode()]
)
def test_values_are_shortened(value: object) -> None:
    assert len(shortened(value)) < 1000
    # Of a value of many megabytes, the text of its first part.
    first = value[:1] if isinstance(value, list) else value
    assert shortened(value)[:2] == repr(first)[:2]


def test_short_values_are_as_they_are() -> None:
    for value in ("it's", 3, [1, "a"], {"a": None}, 0.5, True):
        assert shortened(value) == repr(value)
    assert cut("a text") == "a text"
    assert listed(["a", "b"]) == "a, b"
