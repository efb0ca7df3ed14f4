"""The conformance suite finds what is wrong with a method that a file of the user's registers. That it lets a sound one
pass, tests/docs/test_contributing.py shows with the example that is broken here.
"""

from pathlib import Path

import pytest

from benchmark.method import METHODS
from tests.conformance import checks_of, judge, registered
from tests.docs.pages import block
from tests.methods import test_conformance as suite

EXAMPLE = block("contributing.md", "python", "class Neighbours")
ENCODED = '        output = Output({"image": image, "text": text})\n'
BROKEN = {
    # State that changes in forward(), which runs twice.
    "test_accumulated_gradient_is_the_full_batchs": (
        ENCODED,
        f'{ENCODED}        self.runs = getattr(self, "runs", 0) + 1\n        image = image * self.runs\n',
    ),
    # Graphs that outlive their micro-batch.
    "test_activation_memory_does_not_grow_with_the_effective_batch": (
        ENCODED,
        f"{ENCODED}        with torch.enable_grad():\n"
        '            self.seen = [*getattr(self, "seen", []), self.model.encode_image(batch.view(1))]\n',
    ),
    # Each image is pulled to another's text.
    "test_overfits_sixteen_pairs": ('embeddings["text"], scale', 'embeddings["text"].roll(1, 0), scale'),
    # What the encoder's use depends on is not part of the checkpoint.
    "test_loaded_again_gives_identical_embeddings": (
        "return 1 / self.config.temperature",
        "return 1 / self.config.temperature + id(self)",
    ),
    # A memory that a training that goes on has lost.
    "test_resumes_bit_for_bit_and_same_seed_gives_same_weights": (
        "torch.zeros(config.memory, model.embed_dim)",
        "torch.zeros(config.memory, model.embed_dim), persistent=False",
    ),
    # A parameter that no loss reaches.
    "test_trains_what_it_declares": (
        "        # Buffers are",
        "        self.unused = torch.nn.Parameter(torch.zeros(1))\n        # Buffers are",
    ),
    # A setting that no loss follows.
    "test_follows_the_settings_that_it_declares": (
        'source = "an example"',
        'source = "an example"\n    follows = frozenset({"same_text"})',
    ),
    "test_names_its_modes_and_what_it_is": ('source = "an example"', 'source = ""'),
}


def test_every_test_has_something_that_it_finds() -> None:
    assert set(BROKEN) == set(checks_of(suite))
    assert all(old in EXAMPLE for old, _ in BROKEN.values())


@pytest.mark.parametrize("test", BROKEN)
def test_a_broken_method_fails(test: str, tmp_path: Path) -> None:
    values = {
        "name": "neighbours",
        "mode": "cached",
        "options": {},
        "same_text": "negative",
        "sizes": [6, 6, 4],
        "tmp_path": tmp_path,
    }
    broken = registered(METHODS, tmp_path / "neighbours.py", EXAMPLE.replace(*BROKEN[test]))
    with broken, pytest.raises(AssertionError):
        judge(checks_of(suite)[test], **values)
