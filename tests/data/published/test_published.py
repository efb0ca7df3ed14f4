"""Every card of a published set reads a miniature of its published layout, through the real reader."""

import pytest

from benchmark.data.card import card_names, load_card
from benchmark.data.dataset import open_dataset
from tests.data.published.layouts import WRITERS

EMBEDDED = {name for name in card_names() if load_card(name).access == "embedded"}
PUBLISHED = sorted(set(card_names()) - EMBEDDED)


def test_no_card_lacks_a_reader_test():
    assert set(PUBLISHED) == set(WRITERS)


@pytest.fixture
def data(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("BENCH_DATA", str(folder))
    return folder


def read(name, cache):
    """split -> id -> the row."""
    found = open_dataset(load_card(name), cache=cache)
    found.check()
    columns = ["id", "group", "label", "text", "question", "answer", "answer_type", "question_type"]
    return {
        split: {row["id"]: row for row in found.table(split).select(columns).to_pylist()} for split in found.splits()
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_layout(name, data, tmp_path):
    card = load_card(name)
    assert not card.source.found()
    expected = WRITERS[name](data)
    assert card.source.found()
    rows = read(name, tmp_path / "cache")
    if "all" in expected:
        assert "all" in card.rows or not card.rows
        rows = {"all": {id: row for part in rows.values() for id, row in part.items()}}
    assert {split: set(part) for split, part in rows.items()} == {split: set(part) for split, part in expected.items()}
    for split, part in expected.items():
        for id, wanted in part.items():
            row = rows[split][id]
            if "label" in wanted:
                wanted = dict(wanted) | {"number": card.class_index[wanted["label"]]}
                del wanted["label"]
            row["number"] = row["label"]
            assert {key: row[key] for key in wanted} == wanted, (split, id)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_card_says_all_that_a_user_needs(name):
    card = load_card(name)
    assert card.title and card.modality and card.layout.startswith("$BENCH_DATA/") and card.how
    assert card.access in ("open", "registration", "credentialed")
    assert card.licence and card.citation and card.home_page.startswith("https://")
    for path in card.source.needs():
        assert path.parts[0] in card.layout
    if card.classes:
        assert card.prompts and len(card.prompts) >= 4
        if card.multi_label:
            assert card.negative_prompts and len(card.negative_prompts) >= 4


ORGANS = ("bladder|femur-left|femur-right|heart|kidney-left|kidney-right|liver|lung-left|lung-right|pancreas|"
          "spleen")  # fmt: skip
OFFICIAL = {  # medmnist/info.py of MedMNIST 3.0.2
    "pathmnist": "adipose|background|debris|lymphocytes|mucus|smooth muscle|normal colon mucosa|"
    "cancer-associated stroma|colorectal adenocarcinoma epithelium",
    "chestmnist": "atelectasis|cardiomegaly|effusion|infiltration|mass|nodule|pneumonia|pneumothorax|consolidation|"
    "edema|emphysema|fibrosis|pleural|hernia",
    "dermamnist": "actinic keratoses and intraepithelial carcinoma|basal cell carcinoma|benign keratosis-like lesions|"
    "dermatofibroma|melanoma|melanocytic nevi|vascular lesions",
    "octmnist": "choroidal neovascularization|diabetic macular edema|drusen|normal",
    "pneumoniamnist": "normal|pneumonia",
    "retinamnist": "0|1|2|3|4",
    "breastmnist": "malignant|normal, benign",
    "bloodmnist": "basophil|eosinophil|erythroblast|"
    "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)|lymphocyte|monocyte|neutrophil|platelet",
    "tissuemnist": "Collecting Duct, Connecting Tubule|Distal Convoluted Tubule|Glomerular endothelial cells|"
    "Interstitial endothelial cells|Leukocytes|Podocytes|Proximal Tubule Segments|Thick Ascending Limb",
    "organamnist": ORGANS,
    "organcmnist": ORGANS,
    "organsmnist": ORGANS,
    "vindr-mammo": "Mass|Suspicious Calcification|Asymmetry|Focal Asymmetry|Global Asymmetry|Architectural Distortion|"
    "Skin Thickening|Skin Retraction|Nipple Retraction|Suspicious Lymph Node",
    "chexpert-5x200": "Atelectasis|Cardiomegaly|Consolidation|Edema|Pleural Effusion",
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_classes_are_the_official_ones_in_their_order(name):
    assert load_card(name).classes == OFFICIAL[name].split("|")


def test_no_prompt_set_is_shared_across_modalities():
    modalities: dict[tuple, set[str]] = {}
    for name in card_names():
        card = load_card(name)
        for prompts in (card.prompts, card.negative_prompts):
            if prompts:
                modalities.setdefault(tuple(prompts), set()).add(card.modality)
    assert modalities
    assert {prompts: found for prompts, found in modalities.items() if len(found) > 1} == {}
