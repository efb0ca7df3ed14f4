"""Whatever happened to a file: its rows are right, or skipped and counted, or there is one clear line."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.data.mutated import CELLS, COUNT, EDITS, KINDS, OBJECTS, edited, made

QUICK = 72
MANY = 5000
EDIT = st.tuples(st.sampled_from(EDITS), st.integers(0, 1 << 32), st.integers(0, 1 << 32))
OF_OBJECTS = ("jsonl", "json", "splits", "coco")
"""Kinds whose cells may be lists and objects."""
ON_BAD_DATA = st.sampled_from(["skip", "skip", "skip", "error"])


def mutate(name: str, examples: int, reached: Counter[str]) -> None:
    kind = made(name)
    case = kind.case
    values = st.sampled_from([*CELLS, *(OBJECTS if name in OF_OBJECTS else [])])
    ways = ["bytes", *(["cells"] if case.cells else []), *(["inside"] if case.inside else [])]
    cell = st.tuples(st.integers(0, COUNT - 1), st.integers(0, 4), values)

    @seed(15)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(ways), st.lists(EDIT, min_size=1, max_size=3), cell, st.integers(0, 99), ON_BAD_DATA)
    def once(way, edits, changed, part, on_bad_data):
        if way == "cells":
            content = case.cells(*changed)
        elif way == "inside":
            content = case.inside(lambda whole: edited(whole, edits), part)
        else:
            content = edited(case.content, edits)
        reached[kind.try_out(content, on_bad_data)] += 1

    once()


@pytest.mark.parametrize("name", KINDS)
def test_a_few_mutations(name: str) -> None:
    mutate(name, QUICK // len(KINDS), Counter())


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_many_mutations(name: str) -> None:
    reached: Counter[str] = Counter()
    mutate(name, 1 + MANY // len(KINDS), reached)
    print(name, dict(reached))
    assert reached["error"]
    assert reached["rows"] + reached["skipped"]
