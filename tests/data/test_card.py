import pytest

from benchmark.common.errors import BenchError
from benchmark.data.card import load_card
from tests.data.make import PAIRS, write_card

SOURCE = {"kind": "manifest", "file": "rows.csv", "columns": {**PAIRS, "label": "y"}}
CLASSES = ["normal", "benign", "malignant"]


def card(folder, **content):
    return write_card(folder, SOURCE, **({"classes": CLASSES} | content))


def test_prompts_from_templates(tmp_path):
    found = card(tmp_path, prompts=["an image of {}", "{}, here"], class_texts={"benign": "a benign mass"})
    assert found.name == "set"
    assert found.provides == {"text", "label", "prompts"}
    assert found.positive_prompts("normal") == ["an image of normal", "normal, here"]
    assert found.positive_prompts("benign") == ["an image of a benign mass", "a benign mass, here"]
    with pytest.raises(BenchError, match="unknown class of dataset 'set' 'norml'; did you mean 'normal'"):
        found.positive_prompts("norml")


def test_prompts_of_each_class(tmp_path):
    prompts = {"normal": ["a", "{b}"], "malignant": ["c"], "benign": ["d"]}
    negative = {"normal": ["x"], "malignant": ["y"], "benign": ["z"]}
    found = card(tmp_path, prompts=prompts, negative_prompts=negative, multi_label=True)
    assert {name: found.positive_prompts(name) for name in CLASSES} == prompts
    assert {name: found.negative(name) for name in CLASSES} == negative


def test_prompts_are_never_taken_from_elsewhere(tmp_path):
    found = card(tmp_path)
    assert found.provides == {"text", "label"}
    with pytest.raises(BenchError, match="dataset 'set' has no prompts: add 'prompts' to its card"):
        found.positive_prompts("normal")
    with pytest.raises(BenchError, match="dataset 'set' has no negative_prompts"):
        card(tmp_path, prompts=["{}"]).negative("normal")


def test_the_name_is_the_files_unless_it_says(tmp_path):
    assert write_card(tmp_path, SOURCE, "busi", classes=CLASSES).name == "busi"
    assert write_card(tmp_path, SOURCE, "file", classes=CLASSES, title="A title").title == "A title"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"classes": None}, "the source has labels, so 'classes' must list their names"),
        ({"classes": ["a"]}, "classes: List should have at least 2 items"),
        ({"classes": ["a", "b", "a"]}, "a class is listed twice"),
        ({"prompts": ["a picture"]}, "prompts: 'a picture' has no {} for the class"),
        ({"prompts": []}, "prompts: the list is empty"),
        ({"prompts": {"normal": ["a"], "benign": ["b"]}}, "prompts: none for class 'malignant'"),
        ({"prompts": {"normal": ["a"], "benign": ["b"], "malignant": []}}, "prompts: none for class 'malignant'"),
        ({"negative_prompts": {"norml": ["a"]}}, "negative_prompts: unknown class 'norml'; did you mean 'normal'?"),
        ({"class_texts": {"bening": "a"}}, "class_texts: unknown class 'bening'; did you mean 'benign'?"),
        ({"promts": []}, "unknown key 'promts'; did you mean 'prompts'?"),
        ({"multi_label": "maybe"}, "multi_label: "),
    ],
)
def test_bad_cards(tmp_path, content, message):
    with pytest.raises(BenchError) as caught:
        card(tmp_path, **content)
    assert message in str(caught.value)
    assert str(tmp_path / "set.yaml") in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("rows.csv", "source: expected a mapping with a 'kind' (one of phantom, manifest, image_folder, npz, h5, hub"),
        ({"file": "rows.csv"}, "source: expected a mapping with a 'kind'"),
        ({"kind": "manifets"}, "unknown kind of source 'manifets'; did you mean 'manifest'?"),
        ({"kind": "npz", "flie": "x"}, "set.yaml: source: file is missing"),
        ({"kind": "npz", "file": "x", "fiel": "x"}, "unknown key 'fiel'; did you mean 'file'? Known: file, keep, kind"),
    ],
)
def test_bad_sources(tmp_path, source, message):
    with pytest.raises(BenchError) as caught:
        write_card(tmp_path, source, classes=CLASSES)
    assert message in str(caught.value)


def test_bad_files(tmp_path):
    with pytest.raises(BenchError, match="no such file"):
        load_card(tmp_path / "gone.yaml")
    with pytest.raises(BenchError, match="unknown dataset 'nothing-like-it'"):
        load_card("nothing-like-it")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(BenchError, match="not valid YAML"):
        load_card(tmp_path / "bad.yaml")
