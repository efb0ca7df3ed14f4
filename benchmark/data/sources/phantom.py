"""The embedded data: drawn by benchmark.data.phantom."""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import PositiveInt

from benchmark.data import phantom
from benchmark.data.images import encode_png
from benchmark.data.problems import Problems
from benchmark.data.sources.base import Row, Source, Split, unknown_label

if TYPE_CHECKING:
    from benchmark.data.card import Card

Modality = Literal["cxr", "mammo", "histo", "derm", "fundus", "general", "all"]
MEDICAL = ("cxr", "mammo", "histo", "derm", "fundus")
MANY = 400
"""Patients from which on starting a second process pays."""


class PhantomSource(Source):
    """Drawn patients: so many a split, of one modality or of ``all`` five medical ones, ``size`` pixels a side."""

    kind: Literal["phantom"] = "phantom"
    modality: Modality
    patients: dict[Split, PositiveInt]
    seed: int = 0
    size: PositiveInt = 64

    has_files: ClassVar[bool] = False

    def provides(self) -> frozenset[str]:
        return frozenset({"text", "question"} if self.modality in ("all", "general") else {"text", "label", "question"})

    def splits(self) -> list[str]:
        return list(self.patients)

    def fingerprint(self) -> Any:
        return {"parameters": self.model_dump(mode="json"), "version": getattr(phantom, "VERSION", 1)}

    def rows(self, card: "Card", problems: Problems) -> Iterator[Row]:
        modalities = MEDICAL if self.modality == "all" else (self.modality,)
        jobs = [(modality, split, count) for split, count in self.patients.items() for modality in modalities]
        arguments = [*zip(*jobs), repeat(self.seed), repeat(self.size)]
        if len(jobs) > 1 and sum(count for _, _, count in jobs) >= MANY and (os.cpu_count() or 1) > 1:
            # A fresh interpreter: forking one that has torch's threads in it can hang.
            with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
                yield from self._rows(card, jobs, pool.map(_draw, *arguments))
        else:
            yield from self._rows(card, jobs, map(_draw, *arguments))

    def _rows(self, card: "Card", jobs: list[Any], drawn: Iterator[list[dict[str, Any]]]) -> Iterator[Row]:
        labelled = "label" in self.provides()
        for (modality, split, _), samples in zip(jobs, drawn):
            for sample in samples:
                label = sample.pop("label")
                row = Row(f"phantom {modality} {split}", 0, split=split, **sample)
                row.label = label if labelled else unknown_label(card)
                yield row


def _draw(modality: str, split: str, patients: int, seed: int, size: int) -> list[dict[str, Any]]:
    return [
        {
            "id": sample.id,
            "group": sample.group,
            "image": encode_png(sample.image),
            "text": sample.text,
            "label": sample.label,
            "question": [question.question for question in sample.questions],
            "answer": [question.answer for question in sample.questions],
            "answer_type": [question.answer_type for question in sample.questions],
            "question_type": [question.question_type for question in sample.questions],
        }
        for sample in phantom.generate(modality, split, patients, seed, size)
    ]
