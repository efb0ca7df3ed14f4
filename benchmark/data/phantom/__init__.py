"""Phantoms: drawn images of five medical modalities and of a general domain, with reports, classes and questions.

Everything is drawn from random streams named by (seed, modality, split, patient, image). So a patient's images are the
same however many patients are drawn, and splits share nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from zlib import crc32

import numpy as np

from benchmark.common.errors import BenchError, unknown
from benchmark.data.phantom import cxr, derm, fundus, histo, mammo, shapes
from benchmark.data.phantom.canvas import Random
from benchmark.data.phantom.language import Picture, Question

__all__ = ["DOMAINS", "FINDINGS", "MODALITIES", "MULTI_LABEL", "Question", "Sample", "generate"]


class Domain(Protocol):
    """What a module of a domain defines: its findings, and how to draw a patient and an image of the patient."""

    @property
    def NAME(self) -> str:
        """What the images are called."""

    @property
    def FINDINGS(self) -> tuple[str, ...]:
        """The names of the classes."""

    @property
    def MULTI_LABEL(self) -> bool:
        """Whether an image can have several findings."""

    @property
    def TERMS(self) -> Mapping[str, tuple[str, ...]]:
        """For each finding the synonyms that reports use."""

    def patient(self, rng: Random) -> Any:
        """Draw a patient."""

    def picture(self, rng: Random, patient: Any, size: int) -> Picture:
        """Draw an image of a patient, ``size`` pixels a side, with its report and questions."""


_MEDICAL: dict[str, Domain] = {"cxr": cxr, "mammo": mammo, "histo": histo, "derm": derm, "fundus": fundus}
DOMAINS: dict[str, Domain] = {**_MEDICAL, "shapes": shapes}
MODALITIES = tuple(_MEDICAL)
FINDINGS = {key: domain.FINDINGS for key, domain in DOMAINS.items()}
MULTI_LABEL = {key: domain.MULTI_LABEL for key, domain in DOMAINS.items()}
SIZES = range(32, 513)
IMAGES = (1, 2, 3)
"""The numbers of images that a patient may have, equally likely."""
Job = tuple[str, str, range, int, int]
"""The arguments of generate(): modality, split, patients, seed, size."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One image.

    id: unique. group: the patient. image: uint8 [size, size, 3]. text: one report.
    label: a number in FINDINGS[modality], or 0 or 1 for each of them if MULTI_LABEL[modality].
    """

    id: str
    group: str
    image: np.ndarray
    text: list[str]
    label: int | list[int]
    questions: list[Question]


def mean_images(modality: str) -> float:
    """Return the expected number of images of a patient."""
    return 1 if modality == "shapes" else sum(IMAGES) / len(IMAGES)


def generate(modality: str, split: str, patients: int | range, seed: int, size: int = 64) -> list[Sample]:
    """Draw the images of patients 0..patients-1, or of the patients in a range: one to three each (shapes: one).

    modality: one of DOMAINS. split: any name. seed: 0 or more. size: pixels a side, 32..512.
    Raises ``BenchError`` for any other value.
    """
    if modality not in DOMAINS:
        raise unknown("phantom modality", modality, DOMAINS)
    if size not in SIZES or seed < 0:
        raise BenchError(f"phantom: size {size} (expected 32..512), seed {seed} (expected 0 or more)")
    domain, samples = DOMAINS[modality], []
    stream = (seed, crc32(modality.encode()), crc32(split.encode()))
    for number in range(patients) if isinstance(patients, int) else patients:
        rng = Random(*stream, number)
        patient = domain.patient(rng)
        images = 1 if modality == "shapes" else rng.pick(IMAGES)
        group = f"{modality}-{split}-{number:05d}"
        for image in range(images):
            drawn = domain.picture(Random(*stream, number, image + 1), patient, size)
            samples.append(Sample(f"{group}-{image}", group, drawn.image, [drawn.report], drawn.label, drawn.questions))
    return samples
