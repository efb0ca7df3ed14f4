"""Captioning: the text that a method writes for an image, compared with the texts of that image."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import PositiveInt

from benchmark import (
    BenchError,
    Evaluation,
    Examples,
    Gallery,
    Mean,
    Measurement,
    Metric,
    Task,
    generator,
    register_task,
)
from benchmark.metrics import Weighted, numbers

ORDER = 4
"""The longest n-grams of BLEU and CIDEr-D, in words."""
BETA = 1.2
"""Weight of recall against precision in ROUGE-L (COCO's evaluation)."""
SIGMA = 6.0
"""Standard deviation of CIDEr-D's penalty on a difference in length, in words (Vedantam et al. 2015, section 4)."""
DRAWS = 10
"""Draws of other images' texts; chance is their mean."""

Words = tuple[str, ...]


@register_task("captioning")
class Captioning(Task):
    """Compare each caption with all texts of its image.

    Words are runs of letters and digits in lower case (``3.5`` and ``ill-defined`` are one word each). Punctuation is
    ignored, as in COCO's evaluation.

    rouge_l: ROUGE-L with beta 1.2; recall and precision are each the best over the texts. The mean over captions, 0..1.
    bleu_4: over all captions together, without smoothing; the text nearest in length counts for brevity. 0..1.
    cider_d: CIDEr-D, the mean over captions, 0..10; document frequencies are those of the test images' texts.
    chance: for each image a text of another test image, drawn at random, like a writer that knows the language but not
    the image. majority: for all images the most common text of train (of test where there is no train).
    """

    summary = "Captions that the method writes, compared with the texts of the test images."
    source = "BLEU (Papineni et al. 2002), ROUGE-L (Lin 2004), CIDEr-D (Vedantam et al. 2015), as in COCO's evaluation"
    primary = "rouge_l"
    needs = frozenset({"text"})
    abilities = frozenset({"caption"})

    @dataclass
    class Config:
        """beams: captions kept in the search at a time, > 0; 1 is greedy, and takes a third of the time of 3."""

        beams: PositiveInt = 1

    def evaluate(self, data: Evaluation, seed: int) -> Iterator[Measurement]:
        """Write a caption for each test image and compare it with the image's texts."""
        records = data.records("test")
        rows = np.array(sorted((i for i, of_image in enumerate(records.text) if of_image), key=records.ids.__getitem__))
        if not len(rows):
            raise BenchError(f"dataset '{data.card.name}', test: no image has a text")
        texts = [records.text[i] for i in rows]
        captions = data.captions("test", self.config.beams)
        written = [captions[i] for i in rows]
        references = References([[words(text) for text in of_image] for of_image in texts])
        examples = {
            "id": np.array(records.ids)[rows],
            "group": np.array(records.groups)[rows],
            "caption": np.array(written),
        }
        metrics: dict[str, Metric] = {
            "rouge_l": Mean("rouge_l"),
            "bleu_4": Bleu(),
            "cider_d": Mean("cider_d", highest=10.0),
        }

        def measured(columns: dict[str, np.ndarray]) -> np.ndarray:
            return np.array([metric({"id": examples["id"]} | columns) for metric in metrics.values()])

        drawn = [measured(references.compare(others)) for others in other_texts(references.texts)]
        common = most_common([text for of_image in data.text("train") or texts for text in of_image])
        constant = measured(references.compare([words(common)] * len(rows)))
        yield Measurement(
            examples=examples | references.compare([words(text) for text in written]),
            metrics=metrics,
            chance=dict(zip(metrics, np.mean(drawn, axis=0).tolist())) if drawn else {},
            majority=dict(zip(metrics, constant.tolist())),
            notes={
                "different_captions": len(set(written)),
                "most_common_text": common,
                "images_without_text": len(records) - len(rows),
            },
            gallery=Gallery("rouge_l", "low", answer="caption", numbers={"ROUGE-L": "rouge_l"}),
        )


def words(text: str) -> Words:
    """Split a text into words in lower case."""
    return tuple(re.findall(r"\w+(?:[-.'/]\w+)*", text.lower()))


def most_common(texts: Sequence[str]) -> str:
    """Find the most common text; of several, the first in alphabetical order."""
    return min(Counter(texts).items(), key=lambda item: (-item[1], item[0]))[0]


def other_texts(texts: Sequence[Sequence[Words]]) -> list[list[Words]]:
    """Draw, DRAWS times, a text of another image for each image; every image gives one and gets one.

    No draws where there is a single image. The draws are the same for every method and seed.
    """
    random = generator(0, "captioning", "chance")
    draws = []
    for _ in range(DRAWS if len(texts) > 1 else 0):
        order = random.permutation(len(texts))
        giver = dict(zip(order.tolist(), np.roll(order, 1).tolist()))
        draws.append([texts[giver[i]][int(random.integers(len(texts[giver[i]])))] for i in range(len(texts))])
    return draws


class References:
    """The texts of n images, one or more each, as the references that captions are scored against."""

    def __init__(self, texts: Sequence[Sequence[Words]]) -> None:
        self.texts = texts
        self.counts = [[ngrams(text) for text in of_image] for of_image in texts]
        having = Counter(gram for of_image in self.counts for gram in set().union(*of_image))
        self.weight = {gram: float(np.log(len(texts) / count)) for gram, count in having.items()}
        """Weight of an n-gram in CIDEr-D: log(images / images that have it in a text)."""
        self.unseen = float(np.log(len(texts)))
        self.vectors = [[self._vector(counts) for counts in of_image] for of_image in self.counts]

    def compare(self, captions: Sequence[Words]) -> dict[str, np.ndarray]:
        """Score one caption for each image.

        Returns the columns ``rouge_l``, ``cider_d``, and, for BLEU, ``length``, ``reference_length`` and ``matches_1``
        .. ``matches_4``: how many of a caption's n-grams occur in one of its texts as often.
        """
        counts = [ngrams(caption) for caption in captions]
        nearest = [
            min((len(text) for text in of_image), key=lambda length: (abs(length - len(caption)), length))
            for caption, of_image in zip(captions, self.texts)
        ]
        matches = np.zeros((len(captions), ORDER))
        for i, (own, of_image) in enumerate(zip(counts, self.counts)):
            for gram, count in own.items():
                matches[i, len(gram) - 1] += min(count, max(reference[gram] for reference in of_image))
        pairs = enumerate(zip(captions, counts))
        return {
            "rouge_l": np.array([rouge_l(caption, of_image) for caption, of_image in zip(captions, self.texts)]),
            "cider_d": np.array([self.cider_d(i, len(caption), own) for i, (caption, own) in pairs]),
            "length": np.array([len(caption) for caption in captions], dtype=np.float64),
            "reference_length": np.array(nearest, dtype=np.float64),
            **{f"matches_{n + 1}": matches[:, n] for n in range(ORDER)},
        }

    def cider_d(self, image: int, length: int, counts: "Counter[Words]") -> float:
        """Compute CIDEr-D of a caption of ``length`` words with these n-grams.

        Equation 8 of the paper, with counts in place of their shares, as in COCO's evaluation: 10 x the mean over texts
        and over n = 1..4 of the clipped cosine of the vectors of n-grams x exp(-(difference in length)^2 / (2
        sigma^2)).
        """
        own, norms = self._vector(counts)
        total = 0.0
        for text, (reference, reference_norms) in zip(self.texts[image], self.vectors[image]):
            products = np.zeros(ORDER)
            for gram, value in own.items():
                other = reference.get(gram, 0.0)
                products[len(gram) - 1] += min(value, other) * other
            scale = norms * reference_norms
            cosines = np.divide(products, scale, out=np.zeros(ORDER), where=scale > 0)
            total += cosines.mean() * np.exp(-((length - len(text)) ** 2) / (2 * SIGMA**2))
        return float(10 * total / len(self.texts[image]))

    def _vector(self, counts: "Counter[Words]") -> tuple[dict[Words, float], np.ndarray]:
        """Weight the count of each n-gram; also return the norm of the vector for each n, [4]."""
        vector = {gram: count * self.weight.get(gram, self.unseen) for gram, count in counts.items()}
        squares = np.zeros(ORDER)
        for gram, value in vector.items():
            squares[len(gram) - 1] += value**2
        return vector, np.sqrt(squares)


def ngrams(text: Words) -> "Counter[Words]":
    """Count each run of 1 to 4 words in a text."""
    return Counter(text[i : i + n] for n in range(1, ORDER + 1) for i in range(len(text) - n + 1))


def rouge_l(caption: Words, texts: Sequence[Words]) -> float:
    """Compute ROUGE-L, (1 + b^2) P R / (R + b^2 P); 0 where nothing is common.

    P and R are the length of the longest common subsequence as a share of the caption and of a text, each the largest
    over the texts.
    """
    common = [longest_common_subsequence(caption, text) for text in texts]
    if not any(common):
        return 0.0
    precision = max(common) / len(caption)
    recall = max(length / len(text) for length, text in zip(common, texts) if text)
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def longest_common_subsequence(a: Words, b: Words) -> int:
    """Compute the length of the longest common subsequence of words.

    Bit-parallel (Hyyro 2004, "Bit-parallel LCS-length computation revisited"): a 0 at place i of ``row`` means that
    word i of ``a`` lengthens the subsequence.
    """
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    every = (1 << len(a)) - 1
    row = every
    for word in b:
        matched = row & places.get(word, 0)
        row = ((row + matched) | (row - matched)) & every
    return len(a) - row.bit_count()


@dataclass(frozen=True)
class Bleu(Weighted):
    """BLEU-4 of all captions together, from the columns of References.compare().

    The brevity penalty x the geometric mean of the shares of n-grams that match; 0 where no n-gram of some n matches.
    """

    def weighted(self, examples: Examples, weights: np.ndarray) -> np.ndarray:
        """Compute BLEU-4 for each weighting of the captions."""
        length = numbers(examples, "length")
        brevity = np.minimum(0.0, 1 - _ratio(weights @ numbers(examples, "reference_length"), weights @ length))
        shares = [
            _ratio(weights @ numbers(examples, f"matches_{n}"), weights @ np.maximum(length - n + 1, 0), empty=0.0)
            for n in range(1, ORDER + 1)
        ]
        with np.errstate(divide="ignore"):
            return np.asarray(np.exp(brevity + np.log(shares).mean(axis=0)))


def _ratio(a: np.ndarray, b: np.ndarray, empty: float = np.inf) -> np.ndarray:
    return np.asarray(np.divide(a, b, out=np.full(len(a), empty), where=b > 0))
