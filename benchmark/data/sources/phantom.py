"""The embedded data: drawn by benchmark.data.phantom."""

import os
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import groupby
from multiprocessing import get_context
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from PIL import Image, ImageFilter
from pydantic import Field, PositiveInt, field_validator, model_validator

from benchmark.common.errors import BenchError, unknown
from benchmark.common.seeding import generator
from benchmark.data import phantom
from benchmark.data.images import encode_png
from benchmark.data.problems import Problems
from benchmark.data.sources.base import SPLITS, Row, Source, Split
from benchmark.store import formats

if TYPE_CHECKING:
    from benchmark.data.card import Card

ALL = "all"
Share = Annotated[float, Field(ge=0, le=1)]
CHUNK = 100
"""Patients drawn at once."""
MANY = 600
"""Patients from which on a second process pays: it takes a second to start."""


class PhantomSource(Source):
    """Drawn patients: so many a split, of one modality or of each medical one ("all", without labels).

    size: pixels a side.
    The rest makes data less kind, to ask what a method is worth then:
    rare: finding -> largest share of the images of train and val that have it, by leaving out patients; test stays as
    it is. images: at most so many images of a split. shifted: splits that another scanner took. noisy_texts: the share
    of train's images whose texts are those of other images.
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

    def provides(self) -> frozenset[str]:
        return frozenset({"text", "question"} if self.modality == ALL else {"text", "label", "question"})

    def splits(self) -> list[str]:
        return [split for split in SPLITS if split in self.patients]

    def fingerprint(self) -> Any:
        changes = {"rare", "images", "shifted", "noisy_texts"}
        parameters = self.model_dump(mode="json", exclude=changes)
        parameters |= self.model_dump(mode="json", include=changes, exclude_defaults=True)
        scanner = {"scanner": SCANNER} if self.shifted else {}
        return {"parameters": parameters, "version": formats.PHANTOM} | scanner

    def rows(self, card: "Card", problems: Problems) -> Iterator[Row]:
        labelled = self.modality != ALL
        if labelled:
            classes, multi_label = list(phantom.FINDINGS[self.modality]), phantom.MULTI_LABEL[self.modality]
            if card.classes != classes or card.multi_label != multi_label:
                expected = f"{classes} and multi_label: {str(multi_label).lower()}"
                raise BenchError(f"dataset '{card.name}': the classes of phantom {self.modality} are {expected}")
        yield from self._with_noise(self._rows(labelled))

    def _rows(self, labelled: bool) -> Iterator[Row]:
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
                    label=sample.label if labelled else -1,
                    question=[question.question for question in sample.questions],
                    answer=[question.answer for question in sample.questions],
                    answer_type=[question.answer_type for question in sample.questions],
                    question_type=[question.question_type for question in sample.questions],
                )

    def _chosen(self) -> Iterator[tuple[str, list[phantom.Sample]]]:
        """What is drawn, without the patients and images that are too many."""
        taken: Counter[str] = Counter()
        having: Counter[tuple[str, str]] = Counter()
        for split, samples in self._draw():
            for _, patient in groupby(samples, key=lambda sample: sample.group):
                of_patient = list(patient)
                counts = Counter(
                    {
                        name: sum(_has(sample, phantom.FINDINGS[self.modality].index(name)) for sample in of_patient)
                        for name in self.rare
                    }
                )
                total = taken[split] + len(of_patient)
                if split != "test" and any(
                    count and having[split, name] + count > self.rare[name] * total for name, count in counts.items()
                ):
                    continue
                kept = of_patient[: self.images.get(split, total) - taken[split]]  # type: ignore[call-overload]
                taken[split] += len(kept)
                for name, count in counts.items():
                    having[split, name] += count
                if kept:
                    yield split, kept

    def _with_noise(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows, with the texts of so many of train's handed on among these."""
        if not self.noisy_texts:
            yield from rows
            return
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

    def _draw(self) -> Iterator[tuple[str, list[phantom.Sample]]]:
        modalities = phantom.MODALITIES if self.modality == ALL else (self.modality,)
        jobs = [
            (modality, split, range(start, min(start + CHUNK, self.patients[split])), self.seed, self.size)
            for split in self.patients
            for modality in modalities
            for start in range(0, self.patients[split], CHUNK)
        ]
        if len(modalities) * sum(self.patients.values()) < MANY or os.cpu_count() == 1:
            yield from ((job[1], phantom.generate(*job)) for job in jobs)
            return
        # Fresh interpreters: forking one that runs torch's threads can hang.
        workers = min(os.cpu_count() or 1, len(jobs), 8)
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            drawn = deque((job, pool.submit(phantom.generate, *job)) for job in jobs)
            try:
                while drawn:
                    job, future = drawn.popleft()
                    try:
                        yield job[1], future.result()
                    except BrokenProcessPool:  # a script without the usual guard cannot be started again
                        yield job[1], phantom.generate(*job)
            finally:
                # Nobody may want the rest.
                pool.shutdown(cancel_futures=True)


SCANNER = 2
"""Raised when other_scanner() takes pictures otherwise."""


def other_scanner(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] as another machine would have taken it: softer, of another contrast, darker, most so towards its
    corners, noisier. The noise is a function of the picture.
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
