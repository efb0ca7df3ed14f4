"""The embedded data: drawn by benchmark.data.phantom."""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import PositiveInt, field_validator

from benchmark.data import phantom
from benchmark.data.images import encode_png
from benchmark.data.problems import Problems
from benchmark.data.sources.base import SPLITS, Row, Source, Split
from benchmark.errors import BenchError, unknown

if TYPE_CHECKING:
    from benchmark.data.card import Card

ALL = "all"
CHUNK = 100
"""Patients drawn at once."""
MANY = 600
"""Patients from which on a second process pays: it takes a second to start."""


class PhantomSource(Source):
    """Drawn patients: so many a split, of one modality or of each medical one ("all", without labels).

    size: pixels a side.
    """

    kind: Literal["phantom"] = "phantom"
    modality: str
    patients: dict[Split, PositiveInt]
    seed: int = 0
    size: PositiveInt = 64

    has_files: ClassVar[bool] = False

    @field_validator("modality")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in (ALL, *phantom.DOMAINS):
            raise ValueError(str(unknown("modality", value, (ALL, *phantom.DOMAINS))))
        return value

    def provides(self) -> frozenset[str]:
        return frozenset({"text", "question"} if self.modality == ALL else {"text", "label", "question"})

    def splits(self) -> list[str]:
        return [split for split in SPLITS if split in self.patients]

    def fingerprint(self) -> Any:
        return {"parameters": self.model_dump(mode="json"), "version": getattr(phantom, "VERSION", 1)}

    def rows(self, card: "Card", problems: Problems) -> Iterator[Row]:
        labelled = self.modality != ALL
        if labelled:
            classes, multi_label = list(phantom.FINDINGS[self.modality]), phantom.MULTI_LABEL[self.modality]
            if card.classes != classes or card.multi_label != multi_label:
                expected = f"{classes} and multi_label: {str(multi_label).lower()}"
                raise BenchError(f"dataset '{card.name}': the classes of phantom {self.modality} are {expected}")
        for split, samples in self._draw():
            for sample in samples:
                yield Row(
                    file=f"phantom {sample.id}",
                    row=0,
                    id=sample.id,
                    group=sample.group,
                    split=split,
                    image=encode_png(sample.image),
                    text=sample.text,
                    label=sample.label if labelled else -1,
                    question=[question.question for question in sample.questions],
                    answer=[question.answer for question in sample.questions],
                    answer_type=[question.answer_type for question in sample.questions],
                    question_type=[question.question_type for question in sample.questions],
                )

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
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            drawn = deque((job, pool.submit(phantom.generate, *job)) for job in jobs)
            while drawn:
                job, future = drawn.popleft()
                try:
                    yield job[1], future.result()
                except BrokenProcessPool:  # a script without the usual guard cannot be started again
                    yield job[1], phantom.generate(*job)
