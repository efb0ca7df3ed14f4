"""The embedded data made less kind: long-tailed, shifted, small, noisy."""

import numpy as np
import pytest

from benchmark.common.errors import BenchError
from benchmark.config.load import load_run_config
from benchmark.config.overrides import parse_scenario
from benchmark.config.yaml_files import config_names
from benchmark.data.card import load_card
from benchmark.data.dataset import open_dataset
from benchmark.data.images import decode_image
from benchmark.data.sources.phantom import other_scanner
from benchmark.plan.make import make_plan
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
    assert (before == 1).mean() > 0.12
    assert 0 < (after == 1).mean() <= 0.05
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


def configured(text, **flags):
    suite, conditions = parse_scenario(text)
    return load_run_config(suite, flags, [], ["msd", "captioning"], conditions=conditions)


def test_the_shipped_scenarios():
    scenarios = [name for name in config_names("suite") if name.startswith("scenario-")]
    assert scenarios == [f"scenario-{name}" for name in ("1k", "256", "4k", "noisy", "rare", "shift")]
    for name in scenarios:
        config = load_run_config(name, {}, [], ["msd", "captioning"])
        assert all(load_card(dataset).access == "embedded" for dataset in [*config.pretraining, *config.datasets])
        assert config.scenario
        assert config.scenario.question
        assert config.scenario.varies
        for sets in config.trained_on().values():
            assert all(load_card(dataset).access == "embedded" for dataset in sets)


def test_conditions_from_the_command_line():
    assert configured("noisy").trained_on() == {0: ["phantom-cxr"], 0.25: ["phantom-noisy"]}
    assert configured("noisy=0,0.25,0.5").trained_on() == {
        0: ["phantom-cxr"],
        0.25: ["phantom-noisy"],
        0.5: ["phantom-noisy@noisy_texts=0.5"],
    }
    assert configured("4k").trained_on() == {4096: ["phantom-4k"]}
    assert list(configured("256").trained_on()) == [4096, 256]
    assert configured("shift").trained_on() == {None: ["phantom-cxr"]}
    card = load_card("phantom-noisy@noisy_texts=0.5")
    assert (card.name, card.source.noisy_texts) == ("phantom-noisy@noisy_texts=0.5", 0.5)
    assert load_card("phantom-noisy@noisy_texts=0.5@images.train=9").source.images == {"train": 9}
    assert load_card("phantom-rare@rare.melanoma=0.2").source.rare == {"melanoma": 0.2}


def test_only_the_share_differs_between_the_rare_conditions():
    plain, rare = (load_card(sets[0]).source for sets in configured("rare").trained_on().values())
    assert (plain.rare, rare.rare) == ({"melanoma": 0.2}, {"melanoma": 0.01})
    assert plain.model_copy(update={"rare": rare.rare}) == rare
    # There are enough other images for both to reach the number: two a patient, four in five without the finding.
    assert rare.images["train"] < 0.8 * 2 * rare.patients["train"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nosy", "^unknown scenario 'nosy'; did you mean 'noisy'[?] Known: 1k, 256, 4k, noisy, rare, rare:SET"),
        ("noisy=", "^--scenario noisy=: expected numbers after the ="),
        ("noisy=much", "^--scenario noisy=much: expected numbers after the =, as in noisy=0.1,0.5$"),
        ("shift=0.5", "scenario 'shift' is at 'another scanner' and takes no value"),
    ],
)
def test_wrong_conditions(text, message):
    with pytest.raises(BenchError, match=message):
        configured(text)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("phantom-noisy@noisy_texts=2", "noisy_texts: expected a number less than or equal to 1"),
        ("phantom-noisy@noisy_text=0.5", "unknown key 'noisy_text'; did you mean 'noisy_texts'"),
        ("phantom-noisy@seed.x=1", "seed: expected an integer"),
        ("phantom-noisy@seed=[", "not valid YAML: expected node content"),
        ("phantom-nosy@seed=1", "unknown dataset 'phantom-nosy'; did you mean 'phantom-noisy'"),
    ],
)
def test_wrong_settings_of_a_card(reference, message):
    with pytest.raises(BenchError, match=message):
        load_card(reference)


def test_an_at_sign_in_a_path_is_no_setting(tmp_path):
    folder = tmp_path / "me@home=here"
    folder.mkdir()
    opened(folder)
    assert load_card(folder / "set.yaml").name == "set"
    assert load_card(f"{folder / 'set.yaml'}@size=48").source.size == 48


def test_what_a_scenario_varies_is_not_overridden():
    with pytest.raises(BenchError, match=r"^--pretraining: scenario 'noisy' varies it"):
        configured("noisy", pretraining=["phantom"])
    with pytest.raises(BenchError, match=r"^--datasets: scenario 'shift' varies it"):
        configured("shift", datasets=["phantom-derm"])
    assert configured("noisy", datasets=["phantom-derm"]).datasets == ["phantom-derm"]


def test_a_plan_trains_every_method_at_the_plain_condition_too(tmp_path):
    methods = ["clip", "siglip"]
    noisy = make_plan(configured("noisy=0.25,0.5", methods=methods), tmp_path)
    assert [(cell.method, cell.condition) for cell in noisy.cells] == [
        (method, condition) for method in methods for condition in (0, 0.25, 0.5)
    ]
    for cell in noisy.cells:
        plain = next(other for other in noisy.cells if other.key == cell.plain)
        assert (plain.method, plain.condition) == (cell.method, 0)
        differing = {key for key in cell.content if cell.content[key] != plain.content[key]}
        assert differing == (set() if cell is plain else {"pretraining"})
        assert cell.label["pretraining"] == cell.pretraining[0]
    # A scenario in the test images alone trains nothing that the plain cells of others are not.
    shift = make_plan(configured("shift", methods=methods), tmp_path)
    assert {cell.key for cell in shift.cells} == {cell.plain for cell in noisy.cells}
    assert {pair.dataset for pair in shift.pairs} == {"phantom-cxr", "phantom-shift"}
    cell, pairs = shift.cells[0], {pair.dataset: pair for pair in shift.pairs}
    for dataset, condition in {"phantom-cxr": "own scanner", "phantom-shift": "another scanner"}.items():
        known = shift.scenario_of(cell, pairs[dataset])
        assert (known["condition"], known["plain"], known["plain_dataset"]) == (condition, cell.key, "phantom-cxr")
    known = noisy.scenario_of(noisy.cells[1], noisy.pairs[0])
    assert (known["condition"], known["plain"]) == (0.25, noisy.cells[0].key)
    assert "condition" not in noisy.scenario_of(noisy.fixed[0], noisy.pairs[0])


def test_bad_scenarios(tmp_path):
    with pytest.raises(BenchError, match="unknown finding 'melanom'; did you mean 'melanoma'"):
        opened(tmp_path, rare={"melanom": 0.1})
    with pytest.raises(BenchError, match="'rare' needs one modality"):
        opened(tmp_path, modality="all", rare={"melanoma": 0.1})
    with pytest.raises(BenchError, match=r"rare.melanoma: expected a number less than or equal to 1"):
        opened(tmp_path, rare={"melanoma": 10})
