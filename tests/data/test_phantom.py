"""The embedded data: the same for everyone, patient by patient, and of one piece with its labels."""

import numpy as np
import pytest

from benchmark.data.phantom import DOMAINS, FINDINGS, MULTI_LABEL, Sample, generate


def same(a: Sample, b: Sample) -> bool:
    return (a.id, a.group, a.text, a.label) == (b.id, b.group, b.text, b.label) and np.array_equal(a.image, b.image)


@pytest.mark.parametrize("modality", DOMAINS)
def test_a_patient_does_not_depend_on_how_many_are_asked_for(modality: str) -> None:
    few, many = generate(modality, "train", 3, 0), generate(modality, "train", range(6), 0)
    assert len(many) > len(few)
    assert all(same(a, b) for a, b in zip(few, many))
    other = generate(modality, "train", 3, 1)
    assert not all(np.array_equal(a.image, b.image) for a, b in zip(few, other))


@pytest.mark.parametrize("modality", DOMAINS)
def test_splits_share_no_patient_and_no_picture(modality: str) -> None:
    splits = [generate(modality, split, 20, 0) for split in ("train", "val", "test")]
    groups = [{sample.group for sample in split} for split in splits]
    assert len(set.union(*groups)) == sum(map(len, groups)) == 60
    ids = [sample.id for split in splits for sample in split]
    assert len(set(ids)) == len(ids)
    assert len({sample.image.tobytes() for split in splits for sample in split}) == len(ids)


@pytest.mark.parametrize("modality", DOMAINS)
def test_every_finding_is_there_and_every_image_has_a_report_and_questions(modality: str) -> None:
    samples = generate(modality, "test", 100, 0)
    for sample in samples:
        assert sample.image.shape == (64, 64, 3)
        assert sample.image.dtype == np.uint8
        assert sample.image.std() > 5
        assert len(sample.text) == 1
        assert sample.text[0].strip()
        assert {question.answer_type for question in sample.questions} <= {"open", "closed"}
        assert sample.questions
    labels = np.array([sample.label for sample in samples])
    count = len(FINDINGS[modality])
    share = labels.mean(0) if MULTI_LABEL[modality] else np.bincount(labels, minlength=count) / len(labels)
    assert len(share) == count
    assert (share > 0.05).all()


@pytest.mark.parametrize("modality", DOMAINS)
def test_yes_means_that_the_finding_is_labelled(modality: str) -> None:
    """Where a closed question names a finding, its answer is the label's."""
    checked = 0
    for sample in generate(modality, "train", 40, 0):
        for question in sample.questions:
            named = [k for k, finding in enumerate(FINDINGS[modality]) if f" {finding}?" in question.question]
            if question.answer in ("yes", "no") and len(named) == 1 and "normal" not in question.question:
                there = sample.label[named[0]] == 1 if isinstance(sample.label, list) else sample.label == named[0]
                assert question.answer == ("yes" if there else "no"), (sample.id, question)
                checked += 1
    assert checked > 10 or modality == "shapes"
