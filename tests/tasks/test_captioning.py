"""The captioning metrics against COCO's evaluation, torchmetrics and loops; and the task on captions of known worth."""

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from benchmark.tasks.captioning import (
    Bleu,
    Captioning,
    References,
    longest_common_subsequence,
    most_common,
    ngrams,
    words,
)
from torchmetrics.text import BLEUScore

from benchmark.common.errors import BenchError
from benchmark.evaluation.measurement import Measurement
from tests.tasks.fakes import (
    FakeDataset,
    OracleEncoder,
    RandomEncoder,
    RandomWriter,
    evaluation,
    fake_dataset,
    with_columns,
)

TEXTS = [
    ["There is a large nodule in the left upper lung.", "Large nodule, left upper lobe."],
    ["No acute cardiopulmonary abnormality."],
    [
        "The heart is enlarged. Small right pleural effusion.",
        "Cardiomegaly with a small effusion on the right.",
        "Enlarged heart.",
    ],
    ["The lungs are clear."],
    ["A small nodule in the right lower lung and a small nodule in the left lung."],
    ["No acute cardiopulmonary abnormality.", "The lungs are clear. No effusion."],
]
CAPTIONS = [
    "There is a small nodule in the left lower lung.",
    "No acute abnormality.",
    "The heart is enlarged. Small left effusion.",
    "No acute cardiopulmonary abnormality.",
    "a small nodule a small nodule a small nodule",
    "The lungs are clear.",
]
COCO: dict[str, Any] = {
    "bleu_4": 0.33594231760351395,
    "cider_d": [1.9409110191301235, 2.8792662763576815, 2.5781036546835505, 0.0, 1.277151944428336, 2.716076061421367],
    "rouge_l": [0.8, 0.8356164383561644, 0.7904967602591793, 0.0, 0.45692883895131076, 0.7721518987341772],
}
"""What pycocoevalcap 1.2 gives for these captions, in lower case and without punctuation."""


def compared(texts: list[list[str]], captions: list[str]) -> dict[str, np.ndarray]:
    columns = References([[words(text) for text in of_image] for of_image in texts]).compare(list(map(words, captions)))
    return {"id": np.arange(len(captions))} | columns


def random_texts(seed: int, images: int = 40) -> tuple[list[list[str]], list[str]]:
    """Sentences of three words, so that n-grams repeat within and between them; no two texts of an image are as near in
    length to its caption.
    """
    random = np.random.default_rng(seed)

    def sentence(length: int) -> str:
        return " ".join(random.choice(list("abc"), length))

    lengths = [random.permutation([3, 6, 11, 12])[: random.integers(1, 4)] for _ in range(images)]
    return [[sentence(n) for n in of_image] for of_image in lengths], [
        sentence(random.choice([1, 2, 5, 8, 10, 13])) for _ in range(images)
    ]


def test_metrics_are_those_of_cocos_evaluation() -> None:
    columns = compared(TEXTS, CAPTIONS)
    assert Bleu()(columns) == pytest.approx(COCO["bleu_4"], rel=1e-9)
    np.testing.assert_allclose(columns["cider_d"], COCO["cider_d"], atol=1e-12)
    np.testing.assert_allclose(columns["rouge_l"], COCO["rouge_l"], atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_bleu_is_torchmetrics(seed: int) -> None:
    texts, captions = random_texts(seed)
    assert Bleu()(compared(texts, captions)) == pytest.approx(BLEUScore()(captions, texts).item(), abs=1e-6)
    assert Bleu()(compared(texts, captions)) > 0.01


def test_bleu_of_a_resample_is_that_of_the_drawn_examples() -> None:
    texts, captions = random_texts(7)
    weights = np.random.default_rng(0).integers(0, 3, (5, 40))
    found = Bleu().weighted(compared(texts, captions), weights.astype(float))
    for value, times in zip(found, weights):
        rows = np.repeat(np.arange(40), times)
        columns = compared([texts[i] for i in rows], [captions[i] for i in rows])
        assert value == pytest.approx(Bleu()(columns), abs=1e-12)


def test_cider_is_the_papers_formula() -> None:
    texts, captions = random_texts(3, images=12)

    def grams(text: str, n: int) -> list[str]:
        tokens = text.split()
        return [" ".join(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]

    def vector(text: str, n: int) -> dict[str, float]:
        found = {}
        for gram, count in Counter(grams(text, n)).items():
            having = sum(any(gram in grams(reference, n) for reference in of_image) for of_image in texts)
            found[gram] = count * math.log(12 / max(1, having))
        return found

    for caption, of_image, value in zip(captions, texts, compared(texts, captions)["cider_d"]):
        total = 0.0
        for n in range(1, 5):
            for reference in of_image:
                a, b = vector(caption, n), vector(reference, n)
                dot = sum(min(a[gram], b.get(gram, 0)) * b.get(gram, 0) for gram in a)
                length = math.prod(math.sqrt(sum(v**2 for v in x.values())) for x in (a, b))
                penalty = math.exp(-((len(caption.split()) - len(reference.split())) ** 2) / 72)
                total += 10 / 4 / len(of_image) * penalty * (dot / length if length else 0)
        assert value == pytest.approx(total, abs=1e-12)


def test_longest_common_subsequence_is_the_tables() -> None:
    random = np.random.default_rng(0)
    for _ in range(100):
        a, b = (tuple(random.choice(list("abcd"), random.integers(0, 80))) for _ in range(2))
        table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
        for i, x in enumerate(a, 1):
            for j, y in enumerate(b, 1):
                table[i, j] = table[i - 1, j - 1] + 1 if x == y else max(table[i - 1, j], table[i, j - 1])
        assert longest_common_subsequence(a, b) == table[-1, -1]


def test_words_and_their_runs() -> None:
    assert words("An ill-defined 3.5 cm mass (BI-RADS 4), left.") == (
        "an",
        "ill-defined",
        "3.5",
        "cm",
        "mass",
        "bi-rads",
        "4",
        "left",
    )
    assert words(" ... ") == ()
    assert ngrams(("a", "b", "a"))[("a",)] == 2
    assert len(ngrams(("a", "b", "a"))) == 5


def test_nothing_written_is_worth_nothing() -> None:
    for captions in ([""] * 6, ["xyz"] * 6, ["... !"] * 6):
        columns = compared(TEXTS, captions)
        assert Bleu()(columns) == 0
        assert not columns["cider_d"].any()
        assert not columns["rouge_l"].any()


def test_the_most_common_text() -> None:
    assert most_common(["b", "c", "b", "a", "c"]) == "b"


class Constant(RandomEncoder):
    """Writes one and the same text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.caption = text

    def write(self, images: Any, beams: int) -> list[str]:
        return [self.caption] * len(images)


def measured(dataset: FakeDataset, encoder: Any, beams: int = 3) -> Measurement:
    (found,) = Captioning(Captioning.Config(beams)).evaluate(evaluation(encoder, dataset), 0)
    return found


def values(found: Measurement) -> dict[str, float]:
    return {name: metric(found.examples) for name, metric in found.metrics.items()}


def test_a_constant_caption_gets_what_majority_says() -> None:
    dataset = fake_dataset()
    found = measured(dataset, Constant("nothing to see"))
    assert found.notes["most_common_text"] == "nothing to see"
    assert found.notes["different_captions"] == 1
    assert values(found) == found.majority
    assert 0 < found.majority["rouge_l"] < 1


def test_majority_is_of_test_where_there_is_no_train() -> None:
    dataset = fake_dataset()
    alone = replace(dataset, prepared={"test": dataset.prepared["test"]})
    assert measured(alone, Constant("")).notes["most_common_text"] == "nothing to see"


def test_chance_is_what_the_texts_of_other_images_get() -> None:
    """Against all pairs of images, of which the draws are a sample."""
    dataset = fake_dataset(sizes={"test": 40})
    texts = dataset.prepared["test"].text
    references = References([[words(text) for text in of_image] for of_image in texts])
    expected: dict[str, list[float]] = {"rouge_l": [], "cider_d": []}
    for shift in range(1, 40):
        for number in range(2):
            columns = references.compare([words(texts[(i + shift) % 40][number]) for i in range(40)])
            for name, of_all in expected.items():
                of_all += columns[name].tolist()
    chance = measured(dataset, Constant("")).chance
    assert chance == measured(dataset.shuffled(1), Constant("a")).chance
    for name, of_all in expected.items():
        assert abs(chance[name] - np.mean(of_all)) < 4 * np.std(of_all) / math.sqrt(400), name
    one = replace(dataset, prepared={"test": fake_dataset(sizes={"test": 1}).prepared["test"]})
    assert measured(one, Constant("a")).chance == {}


def test_captions_and_scores_are_kept_by_example() -> None:
    dataset = fake_dataset()
    test = dataset.prepared["test"]
    found = measured(dataset, OracleEncoder(dataset))
    by_id = dict(zip(test.ids, test.text))
    assert [by_id[i][0] for i in found.examples["id"]] == found.examples["caption"].tolist()
    assert (found.examples["rouge_l"] == 1).all()
    assert set(found.metrics) == set(found.chance) == set(found.majority) == {"rouge_l", "bleu_4", "cider_d"}


def test_images_without_a_text_are_left_out() -> None:
    dataset = fake_dataset()
    test = dataset.prepared["test"]
    text = [[] if i in (3, 5) else of_image for i, of_image in enumerate(test.text)]
    found = measured(replace(dataset, prepared={"test": with_columns(test, text=text)}), RandomWriter(dataset))
    assert len(found.examples["id"]) == 158
    assert found.notes["images_without_text"] == 2
    assert {test.ids[3], test.ids[5]}.isdisjoint(found.examples["id"])
    nothing = replace(dataset, prepared={"test": with_columns(test, text=[[]] * 160)})
    with pytest.raises(BenchError, match="test: no image has a text"):
        measured(nothing, RandomWriter(dataset))


def test_an_encoder_that_cannot_write_is_an_error() -> None:
    with pytest.raises(BenchError, match="captions need a method with the ability"):
        measured(fake_dataset(), RandomEncoder())


def test_the_number_of_beams_reaches_the_writer() -> None:
    class Beams(RandomEncoder):
        def write(self, images: Any, beams: int) -> list[str]:
            return [f"{beams} beams"] * len(images)

    assert set(measured(fake_dataset(), Beams(), beams=5).examples["caption"]) == {"5 beams"}
