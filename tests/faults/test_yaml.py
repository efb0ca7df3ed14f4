"""YAML from anywhere: cards, suites and values of the command line run no code, end soon and fail in one line."""

import string
import time
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from benchmark.common.errors import BenchError
from benchmark.config.load import load_run_config
from benchmark.config.yaml_files import MOST_DEEP, configs_folder, parse_yaml, read_yaml
from benchmark.data.card import load_card
from benchmark.execution.tuning import _axis
from tests.squares import CARD, MODEL, SUITE

LETTERS = string.ascii_lowercase


def bomb(item: str) -> str:
    """Ten lines, each of nine aliases of the one before: 9^9 values."""
    lines = [f"a: &a {item}"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in pairwise(LETTERS[:10])]
    return "\n".join(lines)


def merges() -> str:
    lines = ["a: &a {x: 1}"]
    lines += [f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}" for a, b in pairwise(LETTERS[:10])]
    return "\n".join(lines)


HOSTILE = {
    "code": ("name: !!python/object/apply:os.system [touch pwned]", "could not determine a constructor"),
    "tag": ("name: !mine x", "could not determine a constructor"),
    "lists": ("[" * 5000 + "]" * 5000, f"more than {MOST_DEEP} levels"),
    "mappings": ("{a: " * 3000 + "1" + "}" * 3000, f"more than {MOST_DEEP} levels"),
    "bomb": (bomb("[x, x, x]"), "more than 200,000 values"),
    "merges": (merges(), "more than 200,000 values"),
    "itself": ("a: &a [*a]", r"\*a is within itself"),
    "digits": ("n: " + "9" * 5000, "an integer of more than 64 bits"),
    "hexadecimal": ("n: 0x" + "f" * 9999, "an integer of more than 64 bits"),
    "sexagesimal": ("n: " + ":".join(["59"] * 3000), "an integer of more than 64 bits"),
    "date": ("n: 2020-99-99", "month must be in"),
    "no integer": ("n: !!int x", "not valid YAML"),
    "no truth": ("n: !!bool x", "not valid YAML"),
    "no time": ("n: !!timestamp x", "not valid YAML"),
    "list as key": ("? [1]\n: 2", "unhashable key"),
    "NUL": ("n: \0", "not valid YAML"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_document(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text, expected = HOSTILE[kind]
    path = tmp_path / "x.yaml"
    path.write_text(text)
    for read in (read_yaml, load_card, lambda path: load_run_config(str(path), {}, (), ())):
        began = time.process_time()
        with pytest.raises(BenchError, match=expected) as raised:
            read(path)
        assert time.process_time() - began < 2
        assert len(str(raised.value).removeprefix(str(path))) < 200
        assert "\n" not in str(raised.value)
    assert [each.name for each in tmp_path.iterdir()] == ["x.yaml"]


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 5000, "2020-99-99", "!!int x", "!x y", "&a [*a]", "\0", "]", "',"])
def test_hostile_values_of_options(value: str) -> None:
    for parse in (
        lambda: load_run_config("demo", {}, [f"clip.x={value}"], ["clip"]),
        lambda: load_run_config("demo", {}, (), ["clip"], grid=[f"clip.x={value}"]),
        lambda: _axis(f"training.learning_rate={value},{value}"),
        lambda: load_card(f"phantom-cxr@n={value}"),
    ):
        with pytest.raises(BenchError) as raised:
            parse()
        assert len(str(raised.value)) < 400


@pytest.mark.parametrize("text", ["samples=1e999", "samples=" + "9" * 5000, "flops=9e400", "time=1e308d"])
def test_a_budget_without_end(text: str) -> None:
    for budget, grid in ((text, ()), (None, [f"budget={text}"])):
        with pytest.raises(BenchError, match="expected a positive number"):
            load_run_config("demo", {}, (), (), budget, grid)


def test_harmless_documents_are_what_pyyaml_makes_of_them() -> None:
    shared = "a: &a {x: 1, y: [1, 2]}\nb: *a\nc: {<<: *a, x: 2}\nd: 2020-01-31\ne: 0x1f\nf: 1:30\ng: 1_000\nh: -5\n"
    texts = [shared, *(path.read_text() for path in sorted((configs_folder() / "suites").glob("*.yaml"))[:4])]
    for text in texts:
        assert parse_yaml(text, "x") == yaml.safe_load(text)


NAMES = ["../../x", "a/b", "x" * 300, "a\0b", "a\nb", "..", "", " x", "-x", "\x1b[31m", "a\\b", "=1+1", "a,b", "a@b", 5]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_that_is_no_name(name: object, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(CARD | {"name": name}))
    with pytest.raises(BenchError, match=r"x\.yaml: name: expected ") as raised:
        load_card(tmp_path / "x.yaml")
    assert str(raised.value).isprintable()
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(MODEL | {"name": name}))
    from benchmark.models.card import load_model_card

    with pytest.raises(BenchError, match=r"x\.yaml: name: expected "):
        load_model_card(tmp_path / "x.yaml")
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(SUITE | {"suite": name}))
    with pytest.raises(BenchError, match=r"x\.yaml.*: suite: expected "):
        load_run_config(str(tmp_path / "x.yaml"), {}, (), ())


@pytest.mark.parametrize("name", ["a", "my-set_2.1", "größe", "名前", "a+b", "my set"])
def test_a_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(CARD | {"name": name}, allow_unicode=True))
    assert load_card(tmp_path / "x.yaml").name == name


def test_names_too_long_for_a_file() -> None:
    for name in ("a" * 300, "a" * 300 + ".yaml"):
        with pytest.raises(BenchError, match=r"unknown dataset|no such file"):
            load_card(name)
    with pytest.raises(BenchError, match="more than 160 bytes with its settings"):
        load_card("phantom-cxr@" + "@".join(f"keep.{letter * 40}=0.1" for letter in "abcde"))
