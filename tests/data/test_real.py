"""The pack of real data, through cards and nothing else: the counts are those of its own description."""

import json
from collections import Counter

import pytest

from benchmark.config.yaml_files import configs_folder
from benchmark.data.card import load_card
from benchmark.data.check import check
from benchmark.data.dataset import open_dataset
from benchmark.data.prepared import prepare

CARDS = configs_folder() / "datasets" / "pack"

# images and questions a split: train, val, test
COUNTS = {
    "slake_captions": ((450, 96, 96), (0, 0, 0)),
    "hannover": ((172, 22, 49), (0, 0, 0)),
    "pocus": ((14, 9, 8), (0, 0, 0)),
    "busi": ((464, 157, 153), (0, 0, 0)),
    "cxr_pneumonia": ((288, 96, 96), (0, 0, 0)),
    "slake_modality_body": ((440, 95, 94), (0, 0, 0)),
    "slake_retrieval": ((0, 0, 96), (0, 0, 0)),
    "vqa_rad": ((220, 31, 63), (1549, 222, 473)),
    "slake_en": ((450, 96, 96), (4911, 1053, 1061)),
}
CLASSES = {
    "busi": {"benign": 435, "malignant": 207, "normal": 132},
    "cxr_pneumonia": {"bacterial pneumonia": 160, "normal": 160, "viral pneumonia": 160},
    "slake_modality_body": {
        "X-Ray chest": 179,
        "MRI brain": 140,
        "CT abdomen": 133,
        "CT chest": 67,
        "CT pelvis": 41,
        "MRI abdomen": 37,
        "CT head and neck": 32,
    },
}
GROUPS = {"slake_captions": 642, "hannover": 71, "pocus": 15, "busi": 599, "cxr_pneumonia": 463, "vqa_rad": 314}


@pytest.fixture(params=COUNTS)
def real(request, pack, tmp_path_factory):
    cache = tmp_path_factory.getbasetemp() / "real"
    return open_dataset(load_card(CARDS / f"{request.param}.yaml"), cache=cache)


def test_counts(real):
    check(real, 64)
    assert real.left_out == {}
    name, splits = real.card.name, [split for split, n in zip(("train", "val", "test"), COUNTS[real.card.name][0]) if n]
    assert real.splits() == splits
    ready = {split: prepare(real, split, 64, real.cache) for split in splits}
    images = tuple(len(ready[split]) if split in ready else 0 for split in ("train", "val", "test"))
    questions = tuple(sum(map(len, ready[s].question)) if s in ready else 0 for s in ("train", "val", "test"))
    assert (images, questions) == COUNTS[name]
    if name in CLASSES:
        classes = Counter(real.card.classes[label] for part in ready.values() for label in part.label)
        assert classes == CLASSES[name]
    if name in GROUPS:
        assert len({group for part in ready.values() for group in part.groups}) == GROUPS[name]


def test_prompts_are_the_packs(pack):
    for name in CLASSES:
        card = load_card(CARDS / f"{name}.yaml")
        given = json.loads((pack / "classification" / f"{name}.classes.json").read_text())
        assert card.classes == given["classes"]
        for label in card.classes:
            text = given.get("text", {}).get(label, label)
            assert card.positive_prompts(label) == [prompt.format(text) for prompt in given["prompts"]]


def test_shared_captions_have_one_id(pack, tmp_path):
    found = open_dataset(load_card(CARDS / "slake_retrieval.yaml"), cache=tmp_path)
    ready = prepare(found, "test", 32, tmp_path)
    pairs = {(text, id) for texts, ids in zip(ready.text, ready.text_id) for text, id in zip(texts, ids)}
    assert len(pairs) == len({text for text, _ in pairs}) == len({id for _, id in pairs}) == 56


def test_answers(pack, tmp_path):
    found = open_dataset(load_card(CARDS / "vqa_rad.yaml"), cache=tmp_path)
    table = [found.table(split).select(["answer", "answer_type"]).to_pydict() for split in found.splits()]
    kinds = Counter(kind for part in table for kinds in part["answer_type"] for kind in kinds)
    assert kinds == {"closed": 1297, "open": 947}
    assert len({answer.lower() for part in table for answers in part["answer"] for answer in answers}) == 517
