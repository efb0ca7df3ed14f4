"""The worked example of docs/adding_a_method.md passes the conformance suite as it stands there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark.method import METHODS
from benchmark.registry import load_files
from tests.methods import test_conformance as suite

DOCS = (Path(__file__).parents[2] / "docs" / "adding_a_method.md").read_text()
EXAMPLE = re.search(r"```python\n(.*?register_method.*?)```", DOCS, re.DOTALL)[1]  # type: ignore[index]


@pytest.fixture
def example(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "neighbours.py"
    path.write_text(EXAMPLE)
    METHODS.names()
    load_files([path])
    yield "neighbours"
    del METHODS._classes["neighbours"]


def test_the_example_conforms(example: str, tmp_path: Path) -> None:
    for sizes in ([6, 6, 6, 4], [4, 4, 4, 4, 4, 4, 1]):
        suite.test_accumulated_gradient_is_the_full_batchs(example, "cached", {}, sizes)
    suite.test_activation_memory_does_not_grow_with_the_effective_batch(example, "cached")
    suite.test_loaded_again_gives_identical_embeddings(example, tmp_path)
    suite.test_resumes_bit_for_bit_and_same_seed_gives_same_weights(example, tmp_path)
    suite.test_trains_what_it_declares(example)
    suite.test_names_its_modes_and_what_it_is(example)


def test_the_example_overfits(example: str, tmp_path: Path) -> None:
    suite.test_overfits_sixteen_pairs(example, tmp_path)
