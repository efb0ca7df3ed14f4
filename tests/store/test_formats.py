"""Formats: a numerical module of the harness does not change unless somebody decides whether results do."""

import json
from pathlib import Path

import pytest

from benchmark.data.card import load_card
from benchmark.data.dataset import open_dataset
from benchmark.data.loader import PreparedPairs
from benchmark.data.prepared import prepare
from benchmark.evaluation.evaluation import Evaluation
from benchmark.evaluation.fixed import RawPixels
from benchmark.models import build_model, build_tokenizer, load_model_card
from benchmark.store import formats


def test_nothing_is_undecided() -> None:
    """Fails when a module changed that a format covers; the message says what to do."""
    lines = formats.undecided()
    assert not lines, "\n".join(["", *lines])


@pytest.mark.parametrize("name", formats.COVERS)
def test_every_pattern_names_modules(name: str) -> None:
    """A module that moved is not left without a format."""
    for pattern in formats.COVERS[name]:
        assert list(formats.ROOT.glob(pattern)), f"{name}: no benchmark/{pattern}; name where it lies now"


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A harness with one module, recorded."""
    (tmp_path / "losses.py").write_text("def loss(x):\n    return 2 * x\n")
    monkeypatch.setattr(formats, "ROOT", tmp_path)
    monkeypatch.setattr(formats, "RECORD", tmp_path / "formats.json")
    monkeypatch.setattr(formats, "COVERS", {"TRAINING": ("*.py",)})
    formats.main()
    return tmp_path


def test_a_changed_formula_is_undecided_until_it_is_recorded(recorded: Path) -> None:
    assert formats.undecided() == []
    (recorded / "losses.py").write_text("def loss(x):\n    return 3 * x\n")
    (line,) = formats.undecided()
    assert "losses.py" in line
    assert "raise TRAINING in benchmark/store/formats.py" in line
    assert line.endswith("python -m benchmark.store.formats")
    formats.main()
    assert formats.undecided() == []


def test_a_new_module_and_a_lost_one_are_undecided(recorded: Path) -> None:
    (recorded / "losses.py").rename(recorded / "loss.py")
    (line,) = formats.undecided()
    assert "loss.py, losses.py" in line


def test_comments_and_docstrings_are_free(recorded: Path) -> None:
    (recorded / "losses.py").write_text('def loss(x):\n    """The loss."""\n    return 2*x  # twice\n')
    assert formats.undecided() == []


def test_a_raised_format_is_recorded_too(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "TRAINING", formats.TRAINING + 1)
    (line,) = formats.undecided()
    assert line.startswith(f"TRAINING is {formats.TRAINING} and was recorded at {formats.TRAINING - 1}")
    formats.main()
    assert json.loads((recorded / "formats.json").read_text())["TRAINING"]["format"] == formats.TRAINING


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("EVALUATION", {"embeddings"}),
        ("DATA", {"records", "prepared"}),
        ("CACHE", {"records", "prepared", "tokens"}),
        ("TRAINING", {"tokenizers"}),
    ],
)
def test_a_raised_format_takes_nothing_from_the_cache(
    name: str, expected: set[str], suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was stored before a format was raised lies under other names."""

    def names() -> dict[str, set[str]]:
        cache = tmp_path / "cache"
        dataset = open_dataset(load_card(suite / "squares.yaml"), cache=cache)
        card = load_model_card(suite / "small.yaml")
        tokenizer = build_tokenizer(card, lambda: ["a red square"], cache)
        PreparedPairs(prepare(dataset, "train", 32, cache), tokenizer, cache)
        encoder = RawPixels(build_model(card, 0, "meta"))
        Evaluation(encoder, dataset, cache / "embeddings", cache).images("test")
        kinds = ("records", "prepared", "tokens", "tokenizers", "embeddings")
        return {kind: {path.name for path in (cache / kind).iterdir()} for kind in kinds}

    before = names()
    assert names() == before
    monkeypatch.setattr(formats, name, 1000)
    after = names()
    assert {kind for kind in before if after[kind] != before[kind]} == expected
