"""A part of a dataset: a class made rare, few images, as many of each class; by group and from every kind of source."""

from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from benchmark.common.errors import BenchError
from benchmark.data.card import load_card
from benchmark.data.dataset import Dataset, open_dataset
from benchmark.data.records import Classes
from benchmark.data.sources.subsample import Candidate, Subsample
from benchmark.data.tools.verify import verify
from tests.data.make import SHARDS, dataset, jpeg, opened, pairs, shard, write_card

CLASSES = Classes(("nevus", "melanoma", "other"))
FINDINGS = Classes(("effusion", "edema", "mass"), multi_label=True)


def rows(sizes: list[int], multi_label: bool = False) -> list[Candidate]:
    """Groups of these sizes. Every third group has a melanoma among its images."""
    made = []
    for group, size in enumerate(sizes):
        for image in range(size):
            number = 1 if group % 3 == 0 and image == 0 else 2 * (group % 2)
            label = [int(group % 5 == 0), int(group % 2), int(image % 2)] if multi_label else number
            made.append(Candidate(f"g{group}", f"g{group}-{image}", label))
    return made


def ids(drawn: list[Candidate]) -> set[str]:
    return {row.id for row in drawn}


def drawn_of(every: list[Candidate], classes: Classes, split: str, **settings: Any) -> list[Candidate]:
    return [every[i] for i in Subsample(**settings).draw(every, split, classes)]


def shares(drawn: list[Candidate], classes: Classes) -> np.ndarray:
    flags = [row.label if isinstance(row.label, list) else np.eye(len(classes.names))[row.label] for row in drawn]
    return np.mean(flags, axis=0)


SIZES = [1 + group % 4 for group in range(400)]


@pytest.mark.parametrize("classes", [CLASSES, FINDINGS, Classes()], ids=["classes", "findings", "none"])
@pytest.mark.parametrize("seed", [0, 1])
def test_n_is_a_stratified_part_of_whole_groups_whatever_the_order(classes: Classes, seed: int) -> None:
    every = rows(SIZES, classes.multi_label)
    if not classes.names:
        every = [row._replace(label=-1) for row in every]
    shuffled = [every[i] for i in np.random.default_rng(0).permutation(len(every))]
    of_group = Counter(row.group for row in every)
    before: set[str] = set()
    for n in (1, 10, 37, 256, 512, len(every)):
        drawn = drawn_of(every, classes, "train", n=n, sample_seed=seed)
        assert abs(len(drawn) - n) <= 2  # half of the largest group
        assert Counter(row.group for row in drawn).items() <= of_group.items()
        assert before <= ids(drawn) == ids(drawn_of(shuffled, classes, "train", n=n, sample_seed=seed))
        if n >= 256 and classes.names:
            assert np.abs(shares(drawn, classes) - shares(every, classes)).max() < 0.03
        before = ids(drawn)
    other = drawn_of(every, classes, "train", n=256, sample_seed=seed + 1)
    assert ids(other) != ids(drawn_of(every, classes, "train", n=256, sample_seed=seed))


def test_groups_have_the_same_chance_over_seeds() -> None:
    every = rows([1] * 60)
    drawn = Counter(
        row.group for seed in range(200) for row in drawn_of(every, CLASSES, "train", n=15, sample_seed=seed)
    )
    # A quarter of 200; 6 standard deviations of a binomial number.
    assert all(14 < drawn[row.group] < 86 for row in every)


@pytest.mark.parametrize(("sizes", "n", "drawn"), [([60] + [1] * 40, 20, 20), ([60, 50, 40], 45, 40), ([7], 3, 7)])
def test_a_large_group_does_not_spoil_the_number(sizes: list[int], n: int, drawn: int) -> None:
    assert len(drawn_of(rows(sizes), Classes(), "train", n=n)) == drawn


def test_keep_makes_a_class_rare_in_train_alone() -> None:
    every = rows(SIZES)
    positives = sum(row.label == 1 for row in every)
    without = ids([row for row in every if not any(other.group == row.group and other.label == 1 for other in every)])
    before: set[str] = set()
    for share, count in ((0.0, 0), (0.001, 1), (0.1, round(positives / 10)), (0.5, positives // 2), (1.0, positives)):
        drawn = drawn_of(every, CLASSES, "train", keep={"melanoma": share})
        assert abs(sum(row.label == 1 for row in drawn) - count) <= 1
        assert without | before <= ids(drawn)
        assert ids(drawn) == ids(drawn_of(every[::-1], CLASSES, "train", keep={"melanoma": share}))
        before = ids(drawn)
    assert drawn_of(every, CLASSES, "test", keep={"melanoma": 0.1}) == every


def test_keep_of_several_findings() -> None:
    every = rows(SIZES, multi_label=True)
    total = shares(every, FINDINGS) * len(every)
    drawn = drawn_of(every, FINDINGS, "train", keep={"effusion": 0.2, "edema": 0.2})
    np.testing.assert_allclose((shares(drawn, FINDINGS) * len(drawn))[:2] / total[:2], 0.2, atol=0.02)


def test_as_many_of_each_class() -> None:
    every = rows(SIZES)
    few, more = (drawn_of(every, CLASSES, "test", per_class={"test": each}) for each in (20, 50))
    assert Counter(row.label for row in more) == dict.fromkeys(range(3), 50)
    assert ids(few) < ids(more)
    assert ids(more) == ids(drawn_of(every[::-1], CLASSES, "test", per_class={"test": 50}))
    with pytest.raises(BenchError, match="at least 500 images of each class; test has 333 of 'nevus'"):
        drawn_of(every, CLASSES, "test", per_class={"test": 500})


def labelled(folder: Path, on_bad_data: str = "error", **source: Any) -> Dataset:
    found = [
        row | {"label": "cat" if i % 4 else "dog"}
        for i, row in enumerate(pairs(folder, 24, ("train", "train", "test")))
    ]
    columns = {"id": "id", "image": "image", "label": "label", "group": "patient", "split": "split"}
    return dataset(
        folder, found, columns, on_bad_data, card={"classes": ["cat", "dog"], "rows": {"train": 16}}, **source
    )


def from_shards(folder: Path, **source: Any) -> Dataset:
    members = [(f"s{i}.{suffix}", data) for i in range(12) for suffix, data in (("jpg", jpeg(i)), ("txt", b"a text"))]
    shard(folder / "train-0.tar", members)
    return opened(folder, SHARDS | {"shards": {"train": ["train-*.tar"]}} | source)


def from_hub(folder: Path, **source: Any) -> Dataset:
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    table = {"image": [{"bytes": jpeg(i), "path": None} for i in range(12)], "text": [f"text {i}" for i in range(12)]}
    datasets.Dataset.from_dict(table, features).save_to_disk(str(folder / "saved"))
    columns = {"image": "image", "text": "text"}
    return opened(folder, {"kind": "hub", "path": "saved", "splits_of": {"train": "-"}, "columns": columns} | source)


def from_npz(folder: Path, **source: Any) -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    np.savez(folder / "set.npz", train_images=images, train_labels=np.arange(12) % 2)
    return opened(folder, {"kind": "npz", "file": "set.npz"} | source, classes=["cat", "dog"])


def drawn_shapes(folder: Path, **source: Any) -> Dataset:
    patients = {"train": 12, "test": 4}
    names = ["nevus", "melanoma", "basal cell carcinoma", "seborrheic keratosis", "haemangioma"]
    return opened(
        folder, {"kind": "phantom", "modality": "derm", "patients": patients, "size": 32} | source, classes=names
    )


@pytest.mark.parametrize("make", [labelled, from_shards, from_hub, from_npz, drawn_shapes])
def test_a_part_of_any_source(make: Any, tmp_path: Path) -> None:
    whole = make(tmp_path)
    part = make(tmp_path, n=4)
    every, drawn = (set(each.records("train")["id"]) for each in (whole, part))
    assert len(drawn) == 4
    assert drawn < every
    assert part.not_drawn == {"train": len(every) - 4}
    assert whole.not_drawn == {}
    assert part.fingerprint != whole.fingerprint
    assert part.fingerprint != make(tmp_path, n=6).fingerprint
    assert len(part.records("train")) == 4
    assert np.asarray(part.records("train")[0]["image"]).shape[-1] == 3
    if "test" in whole.splits():
        assert list(part.records("test")["id"]) == list(whole.records("test")["id"])


def test_a_part_is_named_behind_a_card(tmp_path: Path) -> None:
    labelled(tmp_path)
    card = load_card(f"{tmp_path / 'set.yaml'}@keep.dog=0.5@n=8")
    assert card.name == "set@keep.dog=0.5@n=8"
    assert card.expected_rows == {"train": 8}
    found = open_dataset(card, "skip", tmp_path / "cache")
    assert Counter(found.records("train")["label"]) == {0: 6, 1: 2}
    # The card's numbers are those of the whole set.
    assert not [finding for finding in verify(found, 77, None) if finding.check == "counts"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"n": 99}, "dataset 'set': n: expected at most the 16 images of train, found 99"),
        ({"n": 0}, "n.train: expected a number greater than 0, found 0"),
        ({"n": {"val": 3}}, "a subsample of val, which has no rows"),
        ({"keep": {"dgo": 0.1}}, "source.keep: unknown class 'dgo'; did you mean 'dog'?"),
        ({"keep": {"dog": 1.5}}, "keep.dog: expected a number less than or equal to 1, found 1.5"),
        ({"keep": {"dog": 0.5}, "where": {"label": "cat"}}, "keep: train has no image of class 'dog'"),
        ({"n": 3, "per_class": 2}, "expected 'n' or 'per_class' for split 'train', found both"),
        ({"per_class": 9}, "at least 9 images of each class; train has 4 of 'dog'"),
    ],
)
def test_a_part_that_cannot_be_drawn(source: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError) as error:
        labelled(tmp_path, **source).splits()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_bad_row_is_told_before_the_draw(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="unknown class 'dgo'"):
        labelled(tmp_path, values={"label": {"cat": "cat", "*": "dgo"}}, n=99).splits()


@pytest.mark.parametrize("setting", [{"keep": {"cat": 0.1}}, {"n": 4}, {"per_class": 2}])
def test_a_stream_is_used_whole(setting: dict[str, Any], tmp_path: Path) -> None:
    columns = {"image": "image", "text": "txt", "label": "cls"}
    source = {"kind": "webdataset", "shards": {"train": ["a.tar"]}, "columns": columns, "stream": True} | setting
    with pytest.raises(BenchError, match=f"'{next(iter(setting))}' needs all samples before training starts"):
        write_card(tmp_path, source, classes=["cat", "dog"])
