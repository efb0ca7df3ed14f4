"""What is drawn, said and asked: deterministic, independent of the size, and of one piece."""

import hashlib
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from benchmark.common.errors import BenchError
from benchmark.data.phantom import DOMAINS, FINDINGS, MULTI_LABEL, Sample, generate

# Of the reports, labels and questions of ten training patients; pixels may differ in the last bit between processors.
WORDS = {
    "cxr": "59e6f3599513",
    "mammo": "ef57f8617896",
    "histo": "a8721f2d5f5e",
    "derm": "b791b79e87e3",
    "fundus": "60f715e0ab15",
    "shapes": "3b763fa1874f",
}


def words(modality: str) -> str:
    content = [
        [sample.id, sample.group, sample.text, sample.label, [vars(question) for question in sample.questions]]
        for sample in generate(modality, "train", 10, 0, 32)
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def pixels(modality: str) -> str:
    images = [sample.image for sample in generate(modality, "test", 4, 5)]
    return hashlib.sha256(np.stack(images).tobytes()).hexdigest()


def positive(modality: str, sample: Sample) -> set[str]:
    label = sample.label
    numbers = [k for k, flag in enumerate(label) if flag] if isinstance(label, list) else [label]
    return {FINDINGS[modality][k] for k in numbers} - {"normal"}


@pytest.mark.parametrize("modality", DOMAINS)
def test_words_stay_the_same(modality: str) -> None:
    assert words(modality) == WORDS[modality], "if this is meant, raise PHANTOM in benchmark/store/formats.py too"


def test_another_process_draws_the_same() -> None:
    code = "from tests.data.phantom.test_content import DOMAINS, pixels; print([pixels(key) for key in DOMAINS])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == str([pixels(key) for key in DOMAINS])


@pytest.mark.parametrize("modality", DOMAINS)
def test_the_same_scene_at_every_size(modality: str) -> None:
    for small, large in zip(generate(modality, "val", 5, 0, 64), generate(modality, "val", 5, 0, 256)):
        assert large.image.shape == (256, 256, 3)
        assert (small.text, small.label, small.questions) == (large.text, large.label, large.questions)
        a, b = (
            np.asarray(Image.fromarray(sample.image).reduce(len(sample.image) // 16), float)
            for sample in (small, large)
        )
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("modality", DOMAINS)
def test_reports_name_what_is_there_and_deny_what_is_not(modality: str) -> None:
    """A finding that is there is named in a sentence that affirms; one that is not, only in sentences that deny."""
    denied = 0
    for sample in generate(modality, "train", 60, 3, 32):
        sentences = [part.strip().lower() for part in sample.text[0].split(". ")]
        assert len(sentences) <= 4
        affirmed = " ".join(part for part in sentences if not part.startswith("no "))
        for finding, synonyms in DOMAINS[modality].TERMS.items():
            if finding == "normal":
                continue
            said = any(term in affirmed for term in (finding, *synonyms))
            assert said == (finding in positive(modality, sample)), (sample.text, finding)
            denied += any(part.startswith("no ") and finding in part for part in sentences)
    assert denied > 10 or modality == "shapes"


@pytest.mark.parametrize("modality", DOMAINS)
def test_questions_differ_and_their_answers_are_the_samples(modality: str) -> None:
    for sample in generate(modality, "train", 60, 3, 32):
        there = positive(modality, sample)
        asked = [question.question for question in sample.questions]
        assert len(set(asked)) == len(asked)
        assert 4 <= len(asked) <= 6
        for question in sample.questions:
            assert (question.answer_type == "closed") == (question.answer in ("yes", "no"))
            if question.question_type in ("abnormality", "shape") and question.answer_type == "open":
                assert {question.answer} == (there or {"none"})
            if question.question_type == "modality" and question.answer_type == "open":
                assert question.answer == DOMAINS[modality].NAME


@pytest.mark.parametrize("modality", DOMAINS)
def test_no_answer_is_nearly_always_right(modality: str) -> None:
    """Answers vary within a kind of question, but for the modality, which varies between the sets."""
    answers: dict[tuple[str, str], Counter] = {}
    for sample in generate(modality, "train", 150, 0, 32):
        for question in sample.questions:
            answers.setdefault((question.answer_type, question.question_type), Counter())[question.answer] += 1
    for kind, counts in answers.items():
        if kind != ("open", "modality"):
            assert counts.most_common(1)[0][1] < 0.85 * counts.total(), (kind, counts)


def test_patients_have_up_to_three_images_and_chest_films_several_findings() -> None:
    samples = generate("cxr", "train", 100, 0, 32)
    assert set(Counter(sample.group for sample in samples).values()) == {1, 2, 3}
    assert {sum(sample.label) for sample in samples if isinstance(sample.label, list)} == {0, 1, 2, 3}
    assert MULTI_LABEL["cxr"]
    assert not any(MULTI_LABEL[key] for key in DOMAINS if key != "cxr")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modality": "xray"}, "unknown phantom modality 'xray'"),
        ({"size": 1024}, "size 1024"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_what_cannot_be_drawn(change: dict, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        generate(**({"modality": "cxr", "split": "train", "patients": 1, "seed": 0} | change))
