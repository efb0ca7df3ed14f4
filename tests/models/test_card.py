from pathlib import Path

import pytest

from benchmark.common.errors import BenchError
from benchmark.models import load_model_card, model_names

GOOD = """\
embed_dim: 8
image: {kind: tiny}
text: {kind: tiny}
tokenizer: {kind: corpus}
"""


def test_the_shipped_cards() -> None:
    assert model_names() == [
        "cleft-biomedlm",
        "convnext-t-clinicalbert",
        "deit-b-clinicalbert",
        "deit-s-clinicalbert",
        "real-general",
        "real-scratch",
        "resnet50",
        "swin-t-clinicalbert",
        "tiny",
        "tiny-general",
        "vit-b-16",
        "vit-b-32",
    ]
    assert all(load_model_card(name).name == name for name in model_names())


def test_tiny_general_is_tiny_with_an_origin() -> None:
    tiny, general = load_model_card("tiny"), load_model_card("tiny-general")
    assert tiny.init is not None
    assert tiny.init.method is None
    assert general.init is not None
    assert general.init.method == "clip"
    assert tiny.init.language_model == general.init.language_model
    for part in ("image", "text", "embed_dim", "image_size"):
        assert getattr(tiny, part) == getattr(general, part)
    assert tiny.tokenizer.vocab_size == general.tokenizer.vocab_size
    assert tiny.tokenizer.context_length == general.tokenizer.context_length


def test_a_card_of_the_users(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    card = load_model_card(path)
    assert card.name == "mine"
    assert card == load_model_card(str(path))
    path.write_text("name: other\n" + GOOD)
    assert load_model_card(path).name == "other"


def test_what_a_card_names_is_found_beside_it(tmp_path: Path) -> None:
    for name in ("weights.pt", "bert/config.json", "clip/open_clip_config.json", "ViT-B-16/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    path = tmp_path / "mine.yaml"
    path.write_text(
        "embed_dim: 8\nimage: {kind: open_clip, name: ViT-B-16, pretrained: weights.pt}\n"
        "text: {kind: transformers, name: bert}\ntokenizer: {kind: huggingface, name: org/elsewhere}\n"
    )
    card = load_model_card(path)
    assert (card.image.name, card.image.pretrained) == ("ViT-B-16", str(tmp_path / "weights.pt"))
    assert (card.text.name, card.tokenizer.name) == (str(tmp_path / "bert"), "org/elsewhere")
    path.write_text(GOOD.replace("image: {kind: tiny}", "image: {kind: open_clip, name: 'local-dir:clip'}"))
    assert load_model_card(path).image.name == f"local-dir:{tmp_path / 'clip'}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("embed_dim: 8", "embed_dim: -1", "embed_dim: .*greater than 0"),
        ("embed_dim: 8", "", "embed_dim is missing"),
        ("{kind: tiny}", "{kind: tyni}", "unknown kind of image 'tyni'; did you mean 'tiny'"),
        ("{kind: tiny}", "{kind: tiny, patch_dropout: 1.0}", "image.tiny.patch_dropout: .*less than 1"),
        ("{kind: tiny}", "{kind: tiny, widht: 3}", "unknown key of image 'widht'; did you mean 'width'"),
        ("embed_dim: 8", "embed_dim: [", "not valid YAML"),
        (GOOD, "- 1", "expected a mapping of keys to values, found a list"),
    ],
)
def test_what_is_wrong_with_a_card_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(BenchError, match=message) as error:
        load_model_card(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_names_that_are_not_there() -> None:
    with pytest.raises(BenchError, match="unknown model 'vit-b16'; did you mean 'vit-b-16'"):
        load_model_card("vit-b16")
    with pytest.raises(BenchError, match=r"'nowhere/a.yaml': no such file"):
        load_model_card("nowhere/a.yaml")
