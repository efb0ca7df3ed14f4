"""Phantoms: drawn images of five medical modalities and of a general domain, with reports, classes and questions.

Everything is drawn from random streams named by (seed, modality, split, patient, image), so that a patient's images are
the same however many patients are asked for, and splits share nothing.
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
    """What a module of this package offers: its findings and how a patient and an image of theirs are drawn.

    TERMS: for every finding the other words that reports use for it, beside its name.
    """

    @property
    def NAME(self) -> str: ...

    @property
    def FINDINGS(self) -> tuple[str, ...]: ...

    @property
    def MULTI_LABEL(self) -> bool: ...

    @property
    def TERMS(self) -> Mapping[str, tuple[str, ...]]: ...

    def patient(self, rng: Random) -> Any: ...

    def picture(self, rng: Random, patient: Any, size: int) -> Picture: ...


_MEDICAL: dict[str, Domain] = {"cxr": cxr, "mammo": mammo, "histo": histo, "derm": derm, "fundus": fundus}
DOMAINS: dict[str, Domain] = {**_MEDICAL, "shapes": shapes}
MODALITIES = tuple(_MEDICAL)
FINDINGS = {key: domain.FINDINGS for key, domain in DOMAINS.items()}
MULTI_LABEL = {key: domain.MULTI_LABEL for key, domain in DOMAINS.items()}
SIZES = range(32, 513)


@dataclass(frozen=True, eq=False)
class Sample:
    """One image.

    id: unique; group: the patient; image: uint8 [size, size, 3]; text: one report;
    label: a number in FINDINGS[modality], or a 0/1 for each of them when MULTI_LABEL[modality].
    """

    id: str
    group: str
    image: np.ndarray
    text: list[str]
    label: int | list[int]
    questions: list[Question]


def generate(modality: str, split: str, patients: int | range, seed: int, size: int = 64) -> list[Sample]:
    """The images of patients 0..patients-1, or of those in a range: one to three each (shapes: one).

    modality: one of MODALITIES, or "shapes"; split: any name; seed: not negative; size: pixels a side, 32..512.
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
        images = 1 if modality == "shapes" else rng.pick((1, 2, 3))
        group = f"{modality}-{split}-{number:05d}"
        for image in range(images):
            drawn = domain.picture(Random(*stream, number, image + 1), patient, size)
            samples.append(Sample(f"{group}-{image}", group, drawn.image, [drawn.report], drawn.label, drawn.questions))
    return samples
