"""A small grammar of reports and questions, the same for every modality."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.data.phantom.canvas import Random

IMAGES = ("chest x-ray", "mammogram", "histology image", "dermoscopy image", "fundus photograph")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")


@dataclass(frozen=True)
class Question:
    """A question about an image and its answer.

    answer_type: "closed" (yes or no) or "open". question_type: presence, side, location, count, severity, ...
    """

    question: str
    answer: str
    answer_type: str
    question_type: str


@dataclass(frozen=True, eq=False)
class Picture:
    """One image of a patient, before it has an id.

    image: uint8 [size, size, 3]. label: the number of the class, or 0 or 1 for each class when multi-label.
    """

    image: np.ndarray
    report: str
    label: int | list[int]
    questions: list[Question]


def sentence(text: str) -> str:
    """``text`` with a capital letter and a full stop."""
    return text[:1].upper() + text[1:] + "."


UNCOUNTED = (
    "cardiomegaly",
    "consolidation",
    "adenocarcinoma",
    "necrosis",
    "mucin",
    "diabetic retinopathy",
    "glaucoma",
    "macular degeneration",
)


def article(noun: str) -> str:
    """``noun`` with its indefinite article; none for plurals and uncountable nouns."""
    if noun in UNCOUNTED:
        return noun
    if noun.endswith("s") and not noun.endswith(("ss", "us", "is", "sis")):
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def listing(items: Sequence[str], word: str = "and") -> str:
    """The items as ``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {word} {items[-1]}"


def name(rng: Random, finding: str, terms: Mapping[str, Sequence[str]]) -> str:
    """A word for a finding: usually the name of the class, else one of its synonyms."""
    return finding if rng.chance(0.65) else rng.pick((finding, *terms[finding]))


def negation(rng: Random, absent: Sequence[str], terms: Mapping[str, Sequence[str]]) -> str:
    """A sentence that says that one or two findings are absent."""
    words = [name(rng, finding, terms) for finding in rng.some(absent, rng.pick((1, 2)))]
    return sentence(f"{rng.pick(('no', 'no', 'no evidence of'))} {listing(words, 'or')}")


def closed(question: str, answer: bool, question_type: str) -> Question:
    """A question to be answered by yes or no."""
    return Question(question, "yes" if answer else "no", "closed", question_type)


def opened(question: str, answer: str, question_type: str) -> Question:
    """A question to be answered by any text."""
    return Question(question, answer, "open", question_type)


def presence(rng: Random, present: Sequence[str], absent: Sequence[str]) -> Question:
    """Ask whether a finding is present; "yes" for six of ten images that have any."""
    wanted = bool(present) and (not absent or rng.chance(0.6))
    noun = article(finding := rng.pick(present if wanted else absent))
    verb = "are" if noun == finding and finding not in UNCOUNTED else "is"
    return closed(rng.pick((f"{verb} there {noun}?", f"does this image show {noun}?")).capitalize(), wanted, "presence")


def modality(rng: Random, own: str) -> Question:
    """Ask for the kind of image, as an open question or as yes or no."""
    if rng.chance(0.4):
        return opened(rng.pick(("What kind of image is this?", "Which imaging modality is shown?")), own, "modality")
    asked = own if rng.chance(0.5) else rng.pick([other for other in IMAGES if other != own])
    return closed(f"Is this {article(asked)}?", asked == own, "modality")


def choose(rng: Random, always: Sequence[Question], pool: Sequence[Question]) -> list[Question]:
    """Choose four to six different questions: all of ``always`` and some of ``pool``.

    A question that is listed twice in ``pool`` is chosen more often.
    """
    asked = {question.question: question for question in (*always, *rng.some(pool, len(pool)))}
    return list(asked.values())[: rng.pick((4, 5, 6))]
