"""An evaluation says where some of what it encoded is stored."""

from pathlib import Path

import numpy as np
import pytest

from tests.tasks.fakes import CLASSES, FakeDataset, RandomEncoder, evaluation, fake_dataset, with_columns


def _read(folder: Path, name: str) -> np.ndarray:
    return np.asarray(np.load(folder / name / "embeddings.npy"))


def test_embedded_says_where_images_and_their_captions_are(tmp_path: Path) -> None:
    dataset, encoder = fake_dataset(), RandomEncoder()
    data = evaluation(encoder, dataset, tmp_path)
    records = dataset.prepared["test"]
    data.texts([f"a {name}" for name in CLASSES])
    assert data.embedded("test", 50) is None
    data.images("test")
    assert data.embedded("test", 50) is None
    # Texts of another split are no reason to name them.
    data.texts([text for of_image in dataset.prepared["train"].text for text in of_image])
    assert data.embedded("test", 50) is None
    data.texts([text for of_image in records.text for text in reversed(of_image)])
    embedded = data.embedded("test", 50)
    assert embedded is not None
    images, texts = embedded["images"], embedded["texts"]
    assert embedded["texts_are"] == "captions"
    assert len(set(images["rows"])) == len(texts["rows"]) == 50
    assert images["classes"] == texts["classes"] == [[CLASSES[records.label[row]]] for row in images["rows"]]
    of_images, of_texts = _read(tmp_path, images["folder"]), _read(tmp_path, texts["folder"])
    for row, text_row in zip(images["rows"], texts["rows"]):
        one = encoder.encode_texts([records.text[row][0]]).embeddings[0]
        np.testing.assert_array_equal(of_texts[text_row], one)
        np.testing.assert_array_equal(of_images[row], data.images("test").embeddings[row])
    # Another encoder is asked for the same images.
    other = evaluation(RandomEncoder(seed=1), dataset, tmp_path)
    other.images("test")
    other.texts([text for of_image in records.text for text in of_image])
    elsewhere = other.embedded("test", 50)
    assert elsewhere is not None
    assert elsewhere["images"]["rows"] == images["rows"]
    assert elsewhere["images"]["folder"] != images["folder"]


def test_embedded_says_where_prompts_are_if_no_caption_is_encoded(tmp_path: Path) -> None:
    dataset, encoder = fake_dataset(), RandomEncoder()
    data = evaluation(encoder, dataset, tmp_path)
    data.images("test")
    prompts = [prompt for name in CLASSES for prompt in dataset.card.positive_prompts(name)]
    data.texts(prompts)
    embedded = data.embedded("test", 200)
    assert embedded is not None
    assert embedded["texts_are"] == "prompts"
    assert embedded["images"]["rows"] == list(range(160))
    assert embedded["texts"]["classes"] == [[name] for name in CLASSES for _ in range(2)]
    stored = _read(tmp_path, embedded["texts"]["folder"])[embedded["texts"]["rows"]]
    np.testing.assert_array_equal(stored, encoder.encode_texts(prompts).embeddings)


@pytest.mark.parametrize("change", ["multi-label", "no classes", "unknown", "in memory"])
def test_embedded_names_the_classes_that_are_known(change: str, tmp_path: Path) -> None:
    dataset: FakeDataset = fake_dataset(multi_label=change == "multi-label")
    records = dataset.prepared["test"]
    if change == "no classes":
        dataset.card.classes = dataset.card.prompts = None
    if change == "unknown":
        dataset.prepared["test"] = records = with_columns(records, label=[-1] * len(records))
    data = evaluation(RandomEncoder(), dataset, None if change == "in memory" else tmp_path)
    data.images("test")
    data.texts([text for of_image in records.text for text in of_image])
    embedded = data.embedded("test")
    if change == "in memory":
        assert embedded is None
        return
    assert embedded is not None
    several = [[name for name, there in zip(CLASSES, label) if there] for label in records.label.reshape(160, -1)]
    assert embedded["images"]["classes"] == (several if change == "multi-label" else [[]] * 160)
