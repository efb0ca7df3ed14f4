"""The embedded data: images that benchmark.data.phantom draws."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from PIL import Image, ImageFilter
from pydantic import Field, PositiveInt, field_validator, model_validator
from typing_extensions import override

from benchmark.common.errors import unknown
from benchmark.common.seeding import generator
from benchmark.data import phantom
from benchmark.data.images import encode_png
from benchmark.data.problems import Problems
from benchmark.data.records import SPLITS, Classes, Row, Split
from benchmark.data.sources.base import Source
from benchmark.store import formats

ALL = "all"
Share = Annotated[float, Field(ge=0, le=1)]
CHUNK = 100
"""Patients drawn in one job."""
MANY = 600
"""Patients from which on a second process pays off: starting one takes a second."""


class PhantomSource(Source):
    """Drawn patients: a number of them for each split, of one modality or of all medical ones ("all", without labels).

    size: pixels a side.
    The other parameters make the data harder, to test what a method does then:
    rare: finding -> the largest share of the images of train and val that may have it; patients are left out to get
    there, and test does not change. images: the most images of a split. shifted: splits taken with another scanner.
    noisy_texts: the share of train's images whose texts are those of other images.
    """

    kind: Literal["phantom"] = "phantom"
    modality: str
    patients: dict[Split, PositiveInt]
    seed: int = 0
    size: PositiveInt = 64
    rare: dict[str, Share] = {}
    images: dict[Split, PositiveInt] = {}
    shifted: list[Split] = []
    noisy_texts: Share = 0.0

    has_files: ClassVar[bool] = False

    @field_validator("modality")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in (ALL, *phantom.DOMAINS):
            raise ValueError(str(unknown("modality", value, (ALL, *phantom.DOMAINS))))
        return value

    @model_validator(mode="after")
    def _findings(self) -> "PhantomSource":
        if self.rare and self.modality == ALL:
            raise ValueError("'rare' needs one modality, since 'all' has no labels")
        for name in self.rare:
            if name not in phantom.FINDINGS[self.modality]:
                raise ValueError(str(unknown("finding", name, phantom.FINDINGS[self.modality])))
        return self

    @override
    def provides(self) -> frozenset[str]:
        return frozenset({"text", "question"} if self.modality == ALL else {"text", "label", "question"})

    @override
    def splits(self) -> list[str]:
        return [split for split in SPLITS if split in self.patients]

    @override
    def expected_rows(self) -> dict[str, int]:
        modalities = phantom.MODALITIES if self.modality == ALL else (self.modality,)
        of_a_patient = sum(phantom.mean_images(modality) for modality in modalities)
        drawn = {split: round(patients * of_a_patient) for split, patients in self.patients.items()}
        return {split: min(count, self.images.get(split, count)) for split, count in drawn.items()}

    @override
    def fingerprint(self) -> Any:
        changes = {"rare", "images", "shifted", "noisy_texts"}
        parameters = self.model_dump(mode="json", exclude=changes)
        parameters |= self.model_dump(mode="json", include=changes, exclude_defaults=True)
        scanner = {"scanner": SCANNER} if self.shifted else {}
        return {"parameters": parameters, "version": formats.PHANTOM} | scanner

    @override
    def check_classes(self, classes: Classes) -> None:
        if self.modality == ALL:
            return
        expected = Classes(phantom.FINDINGS[self.modality], phantom.MULTI_LABEL[self.modality])
        if classes != expected:
            flag = str(expected.multi_label).lower()
            names = list(expected.names)
            raise ValueError(f"the classes of phantom {self.modality} are {names} and multi_label: {flag}")

    @override
    def rows(self, classes: Classes, problems: Problems) -> Iterator[Row]:
        rows = self._rows()
        yield from self._with_noisy_texts(rows) if self.noisy_texts else rows

    def _rows(self) -> Iterator[Row]:
        for split, samples in self._chosen():
            for sample in samples:
                yield Row(
                    file=f"phantom {sample.id}",
                    row=0,
                    id=sample.id,
                    group=sample.group,
                    split=split,
                    image=encode_png(other_scanner(sample.image) if split in self.shifted else sample.image),
                    text=sample.text,
                    label=-1 if self.modality == ALL else sample.label,
                    question=[question.question for question in sample.questions],
                    answer=[question.answer for question in sample.questions],
                    answer_type=[question.answer_type for question in sample.questions],
                    question_type=[question.question_type for question in sample.questions],
                )

    def _chosen(self) -> Iterator[tuple[Split, list[phantom.Sample]]]:
        """The drawn patients, without those whose findings would be too common and without surplus images."""
        taken: Counter[Split] = Counter()
        with_finding: Counter[tuple[Split, str]] = Counter()
        for split, samples in self._draw():
            for _, group in groupby(samples, key=lambda sample: sample.group):
                patient = list(group)
                counts = self._count_rare(patient)
                total = taken[split] + len(patient)
                if split != "test" and any(
                    count and with_finding[split, name] + count > self.rare[name] * total
                    for name, count in counts.items()
                ):
                    continue
                kept = patient[: self.images.get(split, total) - taken[split]]
                taken[split] += len(kept)
                for name, count in counts.items():
                    with_finding[split, name] += count
                if kept:
                    yield split, kept

    def _count_rare(self, patient: list[phantom.Sample]) -> dict[str, int]:
        """The number of a patient's images with each finding of ``rare``."""
        numbers = {name: phantom.FINDINGS[self.modality].index(name) for name in self.rare}
        return {name: sum(_has(sample, number) for sample in patient) for name, number in numbers.items()}

    def _with_noisy_texts(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows, with the texts of a share of train's rows exchanged among these."""
        train = []
        for row in rows:
            if row.split == "train":
                train.append(row)
            else:
                yield row
        rng = generator(self.seed, "noisy texts")
        chosen = rng.permutation(len(train))[: round(self.noisy_texts * len(train))]
        texts = [train[i].text for i in chosen]
        for i, text in zip(np.roll(chosen, 1), texts):
            train[i].text = text
        yield from train

    def _draw(self) -> Iterator[tuple[Split, list[phantom.Sample]]]:
        modalities = phantom.MODALITIES if self.modality == ALL else (self.modality,)
        jobs: list[tuple[Split, phantom.Job]] = [
            (split, (modality, split, range(start, min(start + CHUNK, self.patients[split])), self.seed, self.size))
            for split in self.patients
            for modality in modalities
            for start in range(0, self.patients[split], CHUNK)
        ]
        if len(modalities) * sum(self.patients.values()) < MANY or os.cpu_count() == 1:
            yield from ((split, phantom.generate(*job)) for split, job in jobs)
            return
        from joblib import Parallel, delayed

        # joblib's workers are new interpreters, as a fork of a process that runs torch's threads can hang; unlike
        # multiprocessing's they do not run the user's script again, which would wait for the lock that this one holds.
        workers = min(os.cpu_count() or 1, len(jobs), 8)
        drawn = Parallel(workers, return_as="generator")(delayed(phantom.generate)(*job) for _, job in jobs)
        try:
            yield from ((split, samples) for (split, _), samples in zip(jobs, drawn))
        finally:
            with warnings.catch_warnings():
                # joblib warns where the consumer stops early, on a full disk for one.
                warnings.simplefilter("ignore")
                drawn.close()


SCANNER = 2
"""Raised when other_scanner() changes images differently."""


def other_scanner(image: np.ndarray) -> np.ndarray:
    """An image as another scanner would have taken it, uint8 [H, W, 3] -> uint8 [H, W, 3].

    It is softer, has other contrast, is darker, most of all in its corners, and noisier. The noise depends on nothing
    but the image.
    """
    height, width = image.shape[:2]
    soft = Image.fromarray(image).filter(ImageFilter.GaussianBlur(0.02 * height))
    values = (np.asarray(soft, dtype=np.float64) / 255) ** 1.6
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    values *= (1 - 0.1 * (x**2 + y**2))[..., None]
    noise = generator(int(image.sum()), "scanner").normal(0, 0.03, (height, width, 1))
    return np.round((values + noise).clip(0, 1) * 255).astype(np.uint8)


def _has(sample: phantom.Sample, finding: int) -> bool:
    return sample.label[finding] == 1 if isinstance(sample.label, list) else sample.label == finding
