"""Every card of a published set reads a miniature of its published layout, through the real reader."""

import re
from itertools import chain

import pytest

from benchmark.data.card import card_names, load_card
from benchmark.data.check import check
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
    """Split -> id -> the row."""
    found = open_dataset(load_card(name), cache=cache)
    check(found)
    columns = ["id", "group", "label", "text", "question", "answer", "answer_type", "question_type"]
    return {
        split: {row["id"]: row for row in found.table(split).select(columns).to_pylist()} for split in found.splits()
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_layout(name, data, tmp_path):
    card = load_card(name)
    assert not card.source.is_present()
    expected = WRITERS[name](data)
    assert card.source.is_present()
    rows = read(name, tmp_path / "cache")
    if "all" in expected:
        assert "all" in card.rows or not card.rows
        rows = {"all": {id: row for part in rows.values() for id, row in part.items()}}
    elif card.rows:
        assert set(card.rows) == set(expected)
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
    assert card.title
    assert card.modality
    assert card.layout.startswith("$BENCH_DATA/")
    assert card.how
    assert card.access in ("open", "registration", "credentialed")
    assert card.licence
    assert card.citation
    assert card.home_page.startswith("https://")
    if card.licence.startswith("PhysioNet"):
        assert ("Credentialed" in card.licence) == (card.access == "credentialed")
    for path in card.source.needs():
        assert path.parts[0] in card.layout
    notes = " ".join(card.notes)
    none_expected = "no number of rows is expected" in notes
    assert card.rows or card.about_rows or none_expected
    assert not (card.rows and none_expected)
    assert bool(card.size) != ("size could not be confirmed" in notes)
    assert not re.match(r"(about )?0(\.0+)? ", card.size)
    if card.classes:
        assert card.prompts
        assert len(card.prompts) >= 4
        if card.multi_label:
            assert card.negative_prompts
            assert len(card.negative_prompts) >= 4


ORGANS = "bladder|femur-left|femur-right|heart|kidney-left|kidney-right|liver|lung-left|lung-right|pancreas|spleen"
TISSUES = (
    "debris|lymphocytes|mucus|smooth muscle|normal colon mucosa|cancer-associated stroma|"
    "colorectal adenocarcinoma epithelium"
)
OFFICIAL = {
    # medmnist/info.py of MedMNIST 3.0.2
    "pathmnist": f"adipose|background|{TISSUES}",
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
    # the diagnoses of the data paper, in the order of VectorInstitute/mmlearn, med_benchmarking/datasets/pad_ufes_20.py
    "pad-ufes-20": "basal cell carcinoma|melanoma|squamous cell carcinoma|actinic keratosis|nevus|seborrheic keratosis",
    # dx of the data paper (doi 10.1038/sdata.2018.161), in the singular, in the order of the codes
    "ham10000": "actinic keratosis or intraepithelial carcinoma|basal cell carcinoma|benign keratosis-like lesion|"
    "dermatofibroma|melanoma|melanocytic nevus|vascular lesion",
    # README of basveeling/pcam: 1 where the middle has tumour tissue
    "pcam": "no metastasis|metastasis",
    # zenodo 1214456, in the order of the folders; without BACK as in med_benchmarking/datasets/nck.py
    "nct-crc-he": f"adipose|background|{TISSUES}",
    "nct-crc-he-8": f"adipose|{TISSUES}",
    # arXiv 1912.12142, in the order of med_benchmarking/datasets/lc25000.py
    "lc25000-lung": "benign lung tissue|lung adenocarcinoma|lung squamous cell carcinoma",
    "lc25000-colon": "benign colonic tissue|colon adenocarcinoma",
    # the challenge's classes, in the order of its folders and of med_benchmarking/datasets/bach.py
    "bach": "benign breast lesion|in situ breast carcinoma|invasive breast carcinoma|normal breast tissue",
    # the columns of partition/Test/*.xlsx, in the order of med_benchmarking/datasets/sicap.py
    "sicapv2": "non-cancerous glands|Gleason grade 3|Gleason grade 4|Gleason grade 5",
    # finding_categories of the data paper (doi 10.1038/s41597-023-02100-7)
    "vindr-mammo": "Mass|Suspicious Calcification|Asymmetry|Focal Asymmetry|Global Asymmetry|Architectural Distortion|"
    "Skin Thickening|Skin Retraction|Nipple Retraction|Suspicious Lymph Node",
    # CHEXPERT_COMPETITION_TASKS in gloria/constants.py of marshuang80/gloria
    "chexpert-5x200": "Atelectasis|Cardiomegaly|Consolidation|Edema|Pleural Effusion",
    # the columns of train.csv (arXiv 1901.07031)
    "chexpert": "No Finding|Enlarged Cardiomediastinum|Cardiomegaly|Lung Opacity|Lung Lesion|Edema|Consolidation|"
    "Pneumonia|Atelectasis|Pneumothorax|Pleural Effusion|Pleural Other|Fracture|Support Devices",
    # Target and EncodedPixels, as gloria/datasets/preprocess_datasets.py reads them
    "rsna-pneumonia": "no pneumonia|pneumonia",
    "rsna-pneumonia-gloria": "no pneumonia|pneumonia",
    "siim-pneumothorax": "no pneumothorax|pneumothorax",
    "siim-pneumothorax-gloria": "no pneumothorax|pneumothorax",
    # the columns of image_labels_train.csv but "Other diseases", which the two tables spell differently
    "vindr-cxr": "Aortic enlargement|Atelectasis|Calcification|Cardiomegaly|Clavicle fracture|Consolidation|Edema|"
    "Emphysema|Enlarged PA|ILD|Infiltration|Lung Opacity|Lung cavity|Lung cyst|Mediastinal shift|Nodule/Mass|"
    "Pleural effusion|Pleural thickening|Pneumothorax|Pulmonary fibrosis|Rib fracture|Other lesion|COPD|Lung tumor|"
    "Pneumonia|Tuberculosis|No finding",
    # odir2019.grand-challenge.org, in the order of the columns N to O
    "odir": "normal|diabetic retinopathy|glaucoma|cataract|age-related macular degeneration|hypertensive retinopathy|"
    "pathological myopia|other abnormality",
    # asses and tissueden in the README of Emory-HITI/EMBED_Open_Data
    "embed-birads": "BI-RADS 0|BI-RADS 1|BI-RADS 2|BI-RADS 3|BI-RADS 4|BI-RADS 5|BI-RADS 6",
    "embed-density": "density A|density B|density C|density D",
}
CODES = {
    # The set's own names of folders, columns or values, in the order of the classes, where the card renames them.
    "pad-ufes-20": "BCC MEL SCC ACK NEV SEK",
    "ham10000": "akiec bcc bkl df mel nv vasc",
    "nct-crc-he": "ADI BACK DEB LYM MUC MUS NORM STR TUM",
    "nct-crc-he-8": "ADI DEB LYM MUC MUS NORM STR TUM",
    "lc25000-lung": "lung_n lung_aca lung_scc",
    "lc25000-colon": "colon_n colon_aca",
    "bach": "Benign InSitu Invasive Normal",
    "sicapv2": "NC G3 G4 G5",
    "siim-pneumothorax": "-1 *",
    # GLoRIA's CSVs write the label as a float.
    "siim-pneumothorax-gloria": "0.0 1.0",
    "odir": "N D G C A H M O",
    "embed-birads": "A N B P S M K",
    "embed-density": "1 2 3 4",
}


def codes(card):
    """What the set itself calls each class, where the card says so."""
    source = card.source
    columns = getattr(source, "columns", None)
    if columns is None:
        found = getattr(source, "folders", {})
    elif isinstance(columns.label, str):
        found = {}
        for code, name in source.values.get(columns.label, {}).items():
            found.setdefault(name, code)
    else:
        found = columns.label if isinstance(columns.label, dict) else {}
    return [found[name] for name in card.classes] if found else None


OFFICIAL |= {f"{name}-28": OFFICIAL[name] for name in ("bloodmnist", "breastmnist", "pneumoniamnist", "retinamnist")}


def test_every_set_with_classes_has_its_official_list():
    assert set(OFFICIAL) == {name for name in PUBLISHED if load_card(name).classes}
    assert set(CODES) == {name for name in OFFICIAL if codes(load_card(name))}


@pytest.mark.parametrize("name", OFFICIAL)
def test_classes_are_the_official_ones_in_their_order(name):
    card = load_card(name)
    assert card.classes == OFFICIAL[name].split("|")
    if name in CODES:
        assert codes(card) == CODES[name].split()


def test_no_prompt_is_shared_across_modalities():
    modalities: dict[str, set[str]] = {}
    for name in card_names():
        card = load_card(name)
        for prompts in (card.prompts or [], card.negative_prompts or []):
            for prompt in chain(*prompts.values()) if isinstance(prompts, dict) else prompts:
                modalities.setdefault(" ".join(prompt.lower().split()).rstrip("."), set()).add(card.modality)
    assert modalities
    assert {prompt: found for prompt, found in modalities.items() if len(found) > 1} == {}
