"""Cards of published models: each loads files of exactly its layout, and gives what the model's own code gives."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image

from benchmark.common.errors import BenchError
from benchmark.config.yaml_files import published_models_folder
from benchmark.data.resizing import resized
from benchmark.evaluation.external import external_model, published_model
from benchmark.models import model_names
from benchmark.models.published import is_published, load_published, published_names
from tests.models.published import TEXTS, WRITERS, Place, write

SHAPES = [(90, 41), (41, 90), (160, 160), (223, 190), (30, 20)]
MIXED = [*TEXTS, "The LUNG shows A nodule"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


class Bare:
    """What a run hands to the encoder of an external model: its device alone."""

    device = torch.device("cpu")


def test_every_card_is_tested() -> None:
    assert published_names() == sorted(WRITERS)


@pytest.mark.parametrize("name", WRITERS)
@torch.no_grad()
def test_a_model_gives_what_its_own_code_gives(name: str, place: Place) -> None:
    card, images, texts = write(name, place)
    materials: Any = Bare()
    encoder: Any = published_model(card).fixed(0, "suite").build(materials)
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8)) for shape in SHAPES]
    pixels = np.stack([resized(each, encoder.image_size, encoder.resizing) for each in pictures])
    # The processors of transformers resize with torch, which rounds otherwise than Pillow does.
    tolerance = 2e-2 if card.load.kind == "transformers" else 6e-3
    seen = encoder.encode_images(torch.from_numpy(pixels)).embeddings
    np.testing.assert_allclose(seen, images(pictures), atol=tolerance)
    found = encoder.encode_texts(MIXED).embeddings
    np.testing.assert_allclose(found, texts(MIXED), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(MIXED[:1]).embeddings, found[:1], atol=1e-5)
    assert np.ptp(found, axis=0).max() > 0.01
    untrained, raw_pixels = (each.build(materials) for each in published_model(card).baselines(3, "suite"))
    assert np.abs(untrained.encode_texts(MIXED).embeddings - found).max() > 0.01
    assert (raw_pixels.image_size, raw_pixels.resizing) == (encoder.image_size, encoder.resizing)


def test_a_checkpoint_with_numbers_of_numpy_1_is_read(place: Place) -> None:
    card, _, _ = write("unimed-clip", place)
    path = place.of(card) / card.sources[0].files[0]
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert any(b"numpy._core.multiarray" in content for content in members.values())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    materials: Any = Bare()
    assert published_model(card).fixed(0, "suite").build(materials).temperature_scale > 0


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("quiltnet", lambda s: s.pop("visual.proj"), "1 tensor is missing (visual.proj)"),
        ("conch", lambda s: s.pop("text.cls_emb"), "1 tensor is missing (text.cls_emb)"),
        ("medclip", lambda s: s.update({"vision_model.x": torch.ones(1)}), "not part of the model (vision_model.x)"),
        (
            "medclip",
            lambda s: s.update({"text_model.projection_head.weight": torch.ones(512, 17)}),
            "text_model.projection_head.weight: [512, 17] in the file, [512, 16] in the model",
        ),
        ("biomedclip", lambda s: s.pop("logit_scale"), "tensor logit_scale is missing"),
    ],
)
def test_a_file_with_other_tensors_is_refused(name: str, change: Any, message: str, place: Place) -> None:
    card, _, _ = write(name, place)
    path = next(place.of(card).glob("*pytorch_model.bin"))
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    materials: Any = Bare()
    with pytest.raises(BenchError) as raised:
        published_model(card).fixed(0, "suite").build(materials)
    assert message in str(raised.value)
    assert f"model '{name}'" in str(raised.value)


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_missing_is_told_with_the_command_that_gets_it(name: str, place: Place) -> None:
    card = load_published(name)
    with pytest.raises(BenchError) as raised:
        external_model(name)
    message, source = str(raised.value), card.sources[0]
    assert message.startswith(f"model '{name}': no {source.files[0]}")
    assert "\n" not in message
    assert str(place.models / name) in message
    assert (str(place.cache) in message) == bool(source.repository)
    assert (f"hf download {source.repository}" if source.repository else source.page) in message
    assert (f"--revision {source.revision}" in message) == bool(source.revision)
    assert ("gated: accept the terms" in message) == (card.gated is True)


def test_what_is_missing_is_downloaded_where_the_hub_answers(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    card = load_published("medsiglip")
    asked: list[Any] = []

    def download(repo_id: str, local_files_only: bool = False, **options: Any) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("nothing here")
        asked.append((repo_id, options))
        if len(asked) == 1:
            raise PermissionError("401 Client Error")
        write("medsiglip", place)
        return str(place.of(card))

    monkeypatch.setattr("benchmark.models.published.hub_answers", lambda: True)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(BenchError) as raised:
        external_model("medsiglip")
    assert "401 Client Error; it is gated: accept the terms of google/medsiglip-448 on the hub" in str(raised.value)
    assert external_model("medsiglip").name == "medsiglip"
    repository, options = asked[1]
    assert repository == "google/medsiglip-448"
    assert {"config.json", "model.safetensors", "tokenizer.json", "spiece.model"} <= set(options["allow_patterns"])
    # A repository that has other files than the card says is told, and not left to the loader.
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(place.models))
    place.models.mkdir()
    with pytest.raises(BenchError, match=r"the hub's UzairK/unimed-clip-vit-b16 has no unimed_clip_vit_b16\.pt at"):
        external_model("unimed-clip")


def test_a_file_of_the_text_tower_alone_is_told_too(place: Place) -> None:
    write("biomedclip", place)
    (place.of(load_published("biomedclip"), 1) / "config.json").unlink()
    with pytest.raises(BenchError, match=r"no config\.json of microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract in"):
        external_model("biomedclip")


def test_files_may_lie_in_a_folder_instead_of_the_hubs_cache(place: Place) -> None:
    card, _, _ = write("open-pmc-18m", place)
    key = published_model(card).fixed(0, "suite").key
    place.models.mkdir()
    place.of(card).rename(place.models / "open-pmc-18m")
    place.of(card, 1).rename(place.models / card.sources[1].repository.split("/")[1])
    assert published_model(card).fixed(0, "suite").key == key
    weights = place.models / "open-pmc-18m" / "open_clip_pytorch_model.bin"
    state = torch.load(weights, weights_only=True)
    torch.save(state | {"logit_scale": torch.tensor(1.0)}, weights)
    assert published_model(card).fixed(0, "suite").key != key


def test_the_key_has_what_the_card_says_of_the_loading(place: Place) -> None:
    card, _, _ = write("siglip2", place)
    other = card.model_copy(update={"load": card.load.model_copy(update={"lowercase": False})})
    assert published_model(card).fixed(0, "suite").key != published_model(other).fixed(0, "suite").key


def test_a_card_of_ones_own(place: Place, tmp_path: Path) -> None:
    write("quiltnet", place)
    fields = yaml.safe_load((published_models_folder() / "quiltnet.yaml").read_text())
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(fields | {"title": "mine"}))
    assert is_published(str(path))
    assert external_model(str(path)).name == "mine"
    path.write_text(yaml.safe_dump(fields | {"load": {"kind": "open_clop"}}))
    with pytest.raises(BenchError, match="unknown kind of load 'open_clop'; did you mean 'open_clip'"):
        external_model(str(path))


def test_cards_say_their_terms_and_sources() -> None:
    for name in published_names():
        card = load_published(name)
        assert name not in model_names()
        assert all("{}" in prompt for prompt in card.prompts)
        said = " ".join(card.notes)
        for unknown in ("gated" if card.gated is None else "", "prompts" if not card.prompts else ""):
            assert unknown in said.lower()
