"""The embedded data made less kind: long-tailed, shifted, small, noisy."""

import numpy as np
import pytest

from benchmark.config import config_names, load_run_config
from benchmark.data.card import load_card
from benchmark.data.dataset import open_dataset
from benchmark.data.images import decode_image
from benchmark.data.sources.phantom import other_scanner
from tests.data.make import write_card

DERM = ["nevus", "melanoma", "basal cell carcinoma", "seborrheic keratosis", "haemangioma"]
PATIENTS = {"train": 120, "val": 5, "test": 40}


def opened(folder, name="set", **source):
    source = {"kind": "phantom", "modality": "derm", "patients": PATIENTS, "size": 32} | source
    card = write_card(folder, source, name, classes=DERM)
    return open_dataset(card, cache=folder / "cache")


def rows(found, split, *columns):
    return [tuple(row.values()) for row in found.table(split).select(list(columns)).to_pylist()]


def test_a_rare_finding(tmp_path):
    plain, rare = opened(tmp_path), opened(tmp_path, "rare", rare={"melanoma": 0.05})
    before = np.array([label for (label,) in rows(plain, "train", "label")])
    after = np.array([label for (label,) in rows(rare, "train", "label")])
    assert (before == 1).mean() > 0.12 and 0 < (after == 1).mean() <= 0.05
    for other in (0, 2, 3, 4):
        assert (after == other).sum() == (before == other).sum()
    assert rows(rare, "test", "id", "label") == rows(plain, "test", "id", "label")
    assert set(rows(rare, "train", "id")) < set(rows(plain, "train", "id"))
    assert rare.fingerprint != plain.fingerprint


def test_few_images(tmp_path):
    plain, few = opened(tmp_path), opened(tmp_path, "few", images={"train": 17})
    assert rows(few, "train", "id") == rows(plain, "train", "id")[:17]
    assert rows(few, "test", "id") == rows(plain, "test", "id")


def test_another_scanner(tmp_path):
    plain, shifted = opened(tmp_path), opened(tmp_path, "shifted", shifted=["test"])
    columns = ("id", "label", "text")
    assert rows(plain, "test", *columns) == rows(shifted, "test", *columns)
    assert rows(plain, "train", "image") == rows(shifted, "train", "image")
    for (one,), (other,) in zip(rows(plain, "test", "image"), rows(shifted, "test", "image")):
        image = np.asarray(decode_image(one["bytes"]))
        np.testing.assert_array_equal(np.asarray(decode_image(other["bytes"])), other_scanner(image))
        assert np.abs(other_scanner(image).astype(int) - image).mean() > 5
        # Still the same scene.
        assert np.corrcoef(other_scanner(image).mean(2).ravel(), image.mean(2).ravel())[0, 1] > 0.5


@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_noisy_texts(tmp_path, rate):
    plain, noisy = opened(tmp_path), opened(tmp_path, "noisy", noisy_texts=rate)
    before, after = dict(rows(plain, "train", "id", "text")), dict(rows(noisy, "train", "id", "text"))
    assert list(before) == list(after)
    assert sorted(before.values()) == sorted(after.values())
    # Some reports are the same word for word.
    assert 0.7 * rate < np.mean([before[id] != after[id] for id in before]) <= rate + 1 / len(before)
    assert rows(plain, "train", "image", "label") == rows(noisy, "train", "image", "label")
    assert rows(plain, "test", "text") == rows(noisy, "test", "text")


def test_the_shipped_scenarios():
    scenarios = [name for name in config_names("suite") if name.startswith("scenario-")]
    assert scenarios == [f"scenario-{name}" for name in ("1k", "256", "4k", "noisy", "rare", "shift")]
    for name in scenarios:
        config = load_run_config(name, {}, [], ["msd", "captioning"])
        assert all(load_card(dataset).access == "embedded" for dataset in [*config.pretraining, *config.datasets])


def test_bad_scenarios(tmp_path):
    from benchmark.errors import BenchError

    with pytest.raises(BenchError, match="unknown finding 'melanom'; did you mean 'melanoma'"):
        opened(tmp_path, rare={"melanom": 0.1})
    with pytest.raises(BenchError, match="'rare' needs one modality"):
        opened(tmp_path, modality="all", rare={"melanoma": 0.1})
