"""Retrieval: rank all texts of the test split by similarity to an image, and all images by similarity to a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import PositiveInt

from benchmark import (
    BenchError,
    Evaluation,
    Gallery,
    Mean,
    Measurement,
    Metric,
    Task,
    cosines,
    exact,
    not_finite,
    register_task,
)
from benchmark.metrics import expected_precision

from .ties import ExpectedMedian, expected_rank, expected_reciprocal_rank, hit_probability

if TYPE_CHECKING:
    from scipy.sparse import csr_array

SCORES, QUERIES = 2**22, 32
"""The most scores in memory at a time, and the fewest queries: with fewer, memory would be the bottleneck."""
SCORES_CUDA = 2**28
"""The most scores in memory at a time on a GPU."""
CPU = torch.device("cpu")
FEW = 16
"""The most right candidates of a query for which comparing all scores with theirs is faster than sorting."""
FIRST = 5
"""The first answers of each query that are stored, to be looked at."""


@register_task("retrieval")
class Retrieval(Task):
    """Rank the distinct texts of the test split for each image, and its images for each distinct text.

    A text is right for an image when the image has a text with the same words or with the same ``text_id``.
    Candidates that tie are in random order, each query's in its own: a metric is its expected value over all orders
    (McSherry and Najork 2008, doi:10.1007/978-3-540-78646-7_38), so that an encoder that tells nothing apart scores at
    chance.

    recall@K: share of queries with at least one right candidate among the first K (hit rate).
    true_recall@K: share of a query's right candidates that are among the first K.
    rank: of the first right candidate, from 1; mrr: mean of 1 / rank; map: mean average precision.
    Stored of each query: how many candidates score higher than the best right ones (above), how many score the same
    (tied), how many of these are right (right), and the first five candidates by falling score, as rows of the other
    direction's examples (first/1 .. first/5; those that tie in the order of their rows) and whether each is right
    (first_right/1 ..). No metric reads the first five.
    """

    summary = "Images find their texts, and texts their images, among all of the test split."
    source = "recall@K as in CLIP (Radford et al. 2021, arXiv:2103.00020)"
    primary = "recall@10"
    needs = frozenset({"text"})

    @dataclass
    class Config:
        """k: the K of recall@K; those beyond the number of candidates are left out."""

        k: tuple[PositiveInt, ...] = (1, 5, 10, 50, 200)

    def evaluate(self, data: Evaluation, seed: int) -> Iterator[Measurement]:
        """Rank texts for images, then images for texts."""
        from scipy.sparse import csr_array

        records = data.records("test")
        rows = np.array(sorted((i for i, of_image in enumerate(records.text) if of_image), key=records.ids.__getitem__))
        if not len(rows):
            raise BenchError(f"dataset '{data.card.name}', test: no image has a text")
        ids, groups = np.array(records.ids)[rows], np.array(records.groups)[rows]
        texts = [records.text[i] for i in rows]
        right = relevant(texts, [records.text_id[i] for i in rows])
        # A text takes its id and its group from the first image that has it.
        first = {text: (i, j) for i in reversed(range(len(texts))) for j, text in enumerate(texts[i])}
        distinct = list(dict.fromkeys(text for of_image in texts for text in of_image))
        text_ids = np.array([f"{ids[i]}#{j}" for i, j in (first[text] for text in distinct)])
        text_groups = groups[[first[text][0] for text in distinct]]
        images, captions = data.images("test").comparable[rows], data.texts(distinct).comparable
        for part, other, queries, candidates, pairs, names, of_group in (
            ("image_to_text", "text_to_image", images, captions, right, ids, groups),
            ("text_to_image", "image_to_text", captions, images, csr_array(right.T), text_ids, text_groups),
        ):
            at = [k for k in self.config.k if k <= len(candidates)]
            measurement = measure(queries, candidates, pairs, at, data.device)
            measurement.part = part
            example: Literal["image", "text"] = "image" if queries is images else "text"
            measurement.gallery = Gallery("rank", example=example, ranked=other, numbers={"rank": "rank"})
            measurement.examples |= {"id": names, "group": of_group}
            measurement.notes = {
                "queries": len(queries),
                "candidates": len(candidates),
                "right_per_query": pairs.nnz / len(queries),
                "images_without_text": len(records) - len(rows),
            }
            yield measurement


def relevant(texts: list[list[str]], text_ids: list[list[str]]) -> csr_array:
    """Mark the right texts of each image: [images, distinct texts in their order]. texts, text_ids: of each image."""
    from scipy.sparse import csr_array

    image_of, text_of = _incidence(texts)
    right = csr_array((np.ones(len(image_of)), (image_of, text_of)))
    if any(text_ids):
        named = [ids or [""] * len(of_image) for ids, of_image in zip(text_ids, texts)]
        has_id = np.array([bool(i) for of_image in named for i in of_image])
        id_of = _incidence(named)[1]
        of_image = csr_array((has_id.astype(float), (image_of, id_of)))
        right = right + of_image @ csr_array((has_id.astype(float), (id_of, text_of)))
        right.eliminate_zeros()
    return csr_array(right)


def _incidence(names: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Number the names: the image and the number of each entry. names: of each image."""
    number: dict[str, int] = {}
    numbers = [number.setdefault(name, len(number)) for of_image in names for name in of_image]
    return np.repeat(np.arange(len(names)), [len(of_image) for of_image in names]), np.array(numbers)


def measure(
    queries: np.ndarray, candidates: np.ndarray, right: csr_array, at: Sequence[int], device: torch.device = CPU
) -> Measurement:
    """Measure retrieval in one direction.

    queries, candidates: float32 [q, D] and [c, D], or [., T, D] by tokens; right: [q, c], at least one a query; at: the
    K, none above c. Raises ``BenchError`` for a query or a candidate that is not finite: no score would be higher than
    its own, so that it would rank first.
    """
    for name, values in (("query", queries), ("candidate", candidates)):
        if len(bad := not_finite(values)):
            raise BenchError(f"retrieval: {name} {bad[0]} of {len(values)} is not finite")
    query, above, tied, firsts = positions(queries, candidates, right, device)
    right_count = np.bincount(query, minlength=len(queries))
    count = len(candidates)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, count + 1))])
    # Right candidates by falling score; those of one query with equally many candidates above them tie.
    order = np.lexsort((above, query))
    above, tied, start = above[order], tied[order], np.concatenate([[0], np.cumsum(right_count)[:-1]])
    new = np.diff(above, prepend=-1) != 0
    new[start] = True
    first = np.flatnonzero(new)
    run = np.cumsum(new) - 1
    right_tied = np.diff(np.append(first, len(above)))[run]
    right_above = first[run] - np.repeat(start, right_count)
    precision = expected_precision(above, tied, right_above, right_tied)
    best = (above[start], tied[start], right_tied[start])
    examples = {
        **dict(zip(("above", "tied", "right"), best)),
        "rank": expected_rank(*best),
        "reciprocal_rank": expected_reciprocal_rank(*best, harmonic),
        "average_precision": np.add.reduceat(precision, start) / right_count,
    }
    for place, candidate in enumerate(firsts.T, 1):
        examples[f"first/{place}"] = candidate
        examples[f"first_right/{place}"] = np.asarray(right[np.arange(len(queries)), candidate]) > 0
    metrics: dict[str, Metric] = {
        "median_rank": ExpectedMedian(),
        "mrr": Mean("reciprocal_rank"),
        "map": Mean("average_precision"),
    }
    # A scorer that knows nothing ties all candidates.
    numbers, times = np.unique(right_count, return_counts=True)
    blank, all_tied = np.zeros_like(numbers), np.full_like(numbers, count)

    def mean(values: np.ndarray) -> float:
        return float(values @ times / times.sum())

    chance = {
        "median_rank": float(ExpectedMedian().of_groups(blank, all_tied, numbers, times[None])[0]),
        "mrr": mean(expected_reciprocal_rank(blank, all_tied, numbers, harmonic)),
        "map": mean(expected_precision(blank, all_tied, blank, numbers)),
    }
    for k in at:
        examples[f"recall@{k}"] = hit_probability(*best, k)
        examples[f"true_recall@{k}"] = np.add.reduceat(np.clip((k - above) / tied, 0, 1), start) / right_count
        metrics |= {name: Mean(name) for name in (f"recall@{k}", f"true_recall@{k}")}
        chance[f"recall@{k}"] = mean(hit_probability(blank, all_tied, numbers, k))
        chance[f"true_recall@{k}"] = k / count
    return Measurement(examples, metrics, chance)


def positions(
    queries: np.ndarray, candidates: np.ndarray, right: csr_array, device: torch.device = CPU
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Locate each right pair: its query, how many candidates score higher, and how many the same (itself included).

    The fourth array is the first candidates of each query, [q, FIRST], or all where there are fewer.

    The result is exact: all scores of a query are compared with those of its right candidates, or sorted where these
    are many. Scores are summed in float64 and rounded to float32, so that equal scores tie, whatever the order of
    summation. Memory: ``SCORES`` scores or ``QUERIES`` queries at a time, and the candidates in float64.
    """
    above = np.empty(right.nnz, dtype=np.int64)
    tied = np.empty(right.nnz, dtype=np.int64)
    firsts = np.empty((len(queries), min(FIRST, len(candidates))), dtype=np.int64)
    step = max(QUERIES, (SCORES if device == CPU else SCORES_CUDA) // len(candidates))
    product, place = _Product(exact(candidates, device), step), _places if device == CPU else _places_at_once
    for begin in range(0, len(queries), step):
        block = queries[begin : begin + step]
        bounds = right.indptr[begin : begin + len(block) + 1]
        pairs = slice(bounds[0], bounds[-1])
        scores = product(block)
        firsts[begin : begin + len(block)] = first_candidates(scores, firsts.shape[1])
        above[pairs], tied[pairs] = place(scores, right.indices[pairs], bounds - bounds[0])
    return np.repeat(np.arange(len(queries)), np.diff(right.indptr)), above, tied, firsts


def first_candidates(scores: torch.Tensor, count: int) -> np.ndarray:
    """List the candidates of each query with the highest scores, int64 [q, count], those that tie by their number.

    scores: float32 [q, c], c >= count.
    """
    values, chosen = scores.topk(count, dim=1)
    last = values[:, -1:]
    # Of candidates that tie with the last one, topk chooses any.
    for query in ((scores >= last).sum(1) > count).nonzero()[:, 0].tolist():
        above, tied = (
            torch.nonzero(where)[:, 0] for where in (scores[query] > last[query], scores[query] == last[query])
        )
        chosen[query] = torch.cat([above, tied])[:count]
    chosen = chosen.sort(dim=1).values
    order = scores.gather(1, chosen).argsort(dim=1, descending=True, stable=True)
    return chosen.gather(1, order).cpu().numpy()


def _places(scores: torch.Tensor, right: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count, for each right candidate, how many candidates score higher, and how many the same.

    scores: float32 [q, c], sorted in place where that is faster. right: int [p]; those from bounds[i] to bounds[i + 1]
    are of query i.
    """
    above, tied = np.empty((2, len(right)), dtype=np.int64)
    for row, score in enumerate(scores.numpy()):
        pairs = slice(bounds[row], bounds[row + 1])
        own = score[right[pairs]]
        if len(own) <= FEW:
            above[pairs] = [np.count_nonzero(score > x) for x in own]
            tied[pairs] = [np.count_nonzero(score == x) for x in own]
            continue
        score.sort()
        not_above = score.searchsorted(own, "right")
        above[pairs] = len(score) - not_above
        tied[pairs] = not_above - score.searchsorted(own, "left")
    return above, tied


def _places_at_once(scores: torch.Tensor, right: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count as _places() does, for all queries at once: much faster on a GPU, ten times slower on a CPU."""
    count = np.diff(bounds)
    query, number = np.repeat(np.arange(len(count)), count), np.arange(len(right)) - np.repeat(bounds[:-1], count)
    at = torch.from_numpy(query).to(scores.device), torch.from_numpy(number).to(scores.device)
    own = scores.new_full((len(count), int(count.max())), torch.nan)
    own[at] = scores[at[0], torch.from_numpy(right).long().to(scores.device)]
    if own.shape[1] <= FEW:
        above = torch.stack([(scores > x[:, None]).sum(1) for x in own.T], 1)
        tied = torch.stack([(scores == x[:, None]).sum(1) for x in own.T], 1)
    else:
        ascending = scores.sort(dim=1).values
        not_above = torch.searchsorted(ascending, own, right=True)
        above, tied = scores.shape[1] - not_above, not_above - torch.searchsorted(ascending, own)
    return above[at].cpu().numpy(), tied[at].cpu().numpy()


class _Product:
    """cosines() with the same candidates for each block of queries, rounded to float32.

    Those of embeddings are written into memory that is reused, which takes half the time of fresh memory.
    """

    def __init__(self, candidates: torch.Tensor, step: int) -> None:
        self.candidates = candidates
        if candidates.ndim == 2:
            self.summed = candidates.new_empty(step, len(candidates))
            self.rounded = self.summed.float()

    def __call__(self, block: np.ndarray) -> torch.Tensor:
        if self.candidates.ndim > 2:
            return cosines(block, self.candidates).float()
        queries = exact(block, self.candidates.device)
        summed = torch.mm(queries, self.candidates.T, out=self.summed[: len(block)])
        return self.rounded[: len(block)].copy_(summed)
