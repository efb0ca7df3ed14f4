"""Retrieval against enumeration of all orders of what ties, torchmetrics and a loop."""

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import permutations, product

import benchmark.tasks.retrieval as module
import numpy as np
import pytest
import torch
import torchmetrics.retrieval as tm
from benchmark.tasks import ties
from benchmark.tasks.retrieval import Retrieval, measure, relevant
from benchmark.tasks.ties import ExpectedMedian
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.sparse import csr_array

from benchmark.common.errors import BenchError
from benchmark.evaluation.measurement import Measurement
from tests.tasks.fakes import FakeDataset, RandomEncoder, evaluation, fake_dataset, with_columns

K = (1, 2, 5)


def of_scores(scores: np.ndarray, right: np.ndarray, at: tuple[int, ...] = K) -> Measurement:
    """Queries are axes, so that the scores are the candidates' coordinates."""
    queries, candidates = np.eye(len(scores), dtype=np.float32), np.asarray(scores.T, dtype=np.float32)
    measurement = measure(queries, candidates, csr_array(right.astype(float)), [k for k in at if k <= scores.shape[1]])
    measurement.examples["id"] = np.arange(len(scores)).astype(str)
    return measurement


def values(measurement: Measurement) -> dict[str, float]:
    return {name: metric(measurement.examples) for name, metric in measurement.metrics.items()}


def one_order(right: np.ndarray) -> dict[str, float]:
    """right: bool, of the candidates from the first."""
    places = np.flatnonzero(right) + 1
    return {
        "rank": places[0],
        "reciprocal_rank": 1 / places[0],
        "average_precision": np.mean(np.arange(1, len(places) + 1) / places),
        **{f"recall@{k}": float(right[:k].any()) for k in K if k <= len(right)},
        **{f"true_recall@{k}": right[:k].sum() / right.sum() for k in K if k <= len(right)},
    }


def over_orders(scores: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """One query: the mean over all orders of the candidates, sorted by score where that differs."""
    orders = permutations(range(len(scores)))
    of_orders = [one_order(right[sorted(order, key=lambda i: -scores[i])]) for order in orders]
    return {name: np.mean([x[name] for x in of_orders]) for name in of_orders[0]}


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    queries, candidates = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    scores = [draw(st.lists(st.integers(-2, 2), min_size=candidates, max_size=candidates)) for _ in range(queries)]
    right = np.array([draw(st.lists(st.booleans(), min_size=candidates, max_size=candidates)) for _ in range(queries)])
    for row in right:
        row[draw(st.integers(0, candidates - 1))] = True
    return np.array(scores, dtype=float), right


@given(problems())
@settings(max_examples=40, deadline=None)
def test_ties_are_in_random_order(problem: tuple[np.ndarray, np.ndarray]) -> None:
    scores, right = problem
    examples = of_scores(scores, right).examples
    for i in range(len(scores)):
        expected = over_orders(scores[i], right[i])
        assert {name: examples[name][i] for name in expected} == pytest.approx(expected)


def rank_in(order: tuple[int, ...], scores: np.ndarray, right: np.ndarray) -> int:
    return next(x for x, i in enumerate(sorted(order, key=lambda i: -scores[i]), 1) if right[i])


def median_over_orders(scores: np.ndarray, right: np.ndarray) -> float:
    """The mean, over all orders of each query's candidates, of the median rank."""
    orders = list(permutations(range(scores.shape[1])))
    share = [Counter(rank_in(order, s, r) for order in orders) for s, r in zip(scores, right)]
    total = 0.0
    for ranks in product(*share):
        total += np.median(ranks) * np.prod([of_query[rank] / len(orders) for of_query, rank in zip(share, ranks)])
    return total


@given(problems(), st.lists(st.integers(0, 2), min_size=3, max_size=3))
@settings(max_examples=60, deadline=None)
def test_median_rank_is_the_mean_of_the_medians_of_all_orders(
    problem: tuple[np.ndarray, np.ndarray], times: list[int]
) -> None:
    scores, right = problem
    measurement = of_scores(scores, right)
    found, metric = values(measurement)["median_rank"], measurement.metrics["median_rank"]
    assert found == pytest.approx(median_over_orders(scores, right), abs=1e-9)

    # A query that is drawn twice is two queries, and without a query there is no median.
    times = times[: len(scores)]
    weights = np.array([times, [1] * len(scores)], dtype=float)
    drawn, once = metric.weighted(measurement.examples, weights)  # type: ignore[attr-defined]
    assert once == pytest.approx(found)
    if any(times):
        repeated = median_over_orders(np.repeat(scores, times, axis=0), np.repeat(right, times, axis=0))
        assert drawn == pytest.approx(repeated, abs=1e-9)


def distribution(probability: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The probabilities of 0, 1, ... independent events, ``times`` of each."""
    count = np.ones(1)
    for p, n in zip(probability, times):
        count = np.convolve(count, stats.binom(n, p).pmf(np.arange(n + 1)))
    return count


def by_convolution(above: np.ndarray, tied: np.ndarray, right: np.ndarray, times: np.ndarray) -> float:
    """The expected median of G groups of queries: a sum over ranks of the probability that the median is higher."""
    q, total = times.sum(), 0.0
    for k in range((above + tied).max() + 1):
        hit = stats.hypergeom(tied, right, np.clip(k - above, 0, tied)).sf(0)
        count = distribution(hit, times)
        total += (count[: (q + 1) // 2].sum() + count[: q // 2 + 1].sum()) / 2
    return total


@pytest.mark.parametrize("groups", [1, 3, 12])
@pytest.mark.parametrize("queries", [9, 40, 400])
def test_median_rank_of_many_queries_that_tie(groups: int, queries: int) -> None:
    """Where the count of queries is known by its transform, all of it and a window, and where by the series."""
    random = np.random.default_rng(groups)
    above, tied = random.integers(0, 10, groups), random.integers(2, 30, groups)
    right = random.integers(1, 3, groups)
    times = random.multinomial(queries, np.full(groups, 1 / groups), 2)
    found = ExpectedMedian().of_groups(above, tied, right, times.astype(float))
    expected = [by_convolution(above, tied, right, row) for row in times]
    np.testing.assert_allclose(found, expected, atol=1e-9 if queries < 200 else 1e-5)


def test_few_that_vary_among_many_that_do_not() -> None:
    """Many queries, each with a small chance: their count is known in a window alone."""
    p, times = np.array([0.02, 0.9, 0.5]), np.array([[900, 300, 1], [800, 310, 0]])
    limits = np.array([[288, 289], [285, 290]])
    found = ties.fewer(p, times, limits)
    for row, limit, count in zip(found, limits, times):
        np.testing.assert_allclose(row, np.cumsum(distribution(p, count))[limit - 1], atol=1e-12)


@given(problems(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_properties(problem: tuple[np.ndarray, np.ndarray], random: object) -> None:
    scores, right = problem
    found = values(of_scores(scores, right))
    order = np.array(sorted(range(scores.shape[1]), key=lambda _: random.random()))  # type: ignore[attr-defined]
    assert values(of_scores(scores[:, order], right[:, order])) == pytest.approx(found)
    assert values(of_scores(scores[::-1], right[::-1])) == pytest.approx(found)
    assert values(of_scores(3 * scores + 1, right)) == pytest.approx(found)
    # Two copies of a query have two orders: the median of twice as many ranks is another.
    twice = values(of_scores(np.repeat(scores, 2, axis=0), np.repeat(right, 2, axis=0)))
    assert twice | {"median_rank": 0} == pytest.approx(found | {"median_rank": 0})


@given(problems())
@settings(max_examples=40, deadline=None)
def test_constant_scorer_gets_chance(problem: tuple[np.ndarray, np.ndarray]) -> None:
    scores, right = problem
    measurement = of_scores(np.full_like(scores, 0.3), right)
    found = values(measurement)
    for name in found:
        assert found[name] == pytest.approx(measurement.chance[name]), name


@pytest.mark.parametrize("multiple", [1, 3])
def test_chance_is_that_of_random_scores(multiple: int) -> None:
    random = np.random.default_rng(0)
    scores = random.normal(size=(2000, 40))
    right = np.arange(40) < random.integers(1, multiple + 1, (2000, 1))
    measurement = of_scores(scores, right)
    for name, value in values(measurement).items():
        spread = {"median_rank": 20, "mrr": 0.2, "map": 0.2}.get(name, 0.5)
        assert value == pytest.approx(measurement.chance[name], abs=4 * spread / 2000**0.5), name


def test_agrees_with_torchmetrics() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(size=(30, 50))
    right = random.random((30, 50)) < 0.1
    right[:, 0] = True
    found = values(of_scores(scores, right))
    query = torch.arange(30).repeat_interleave(50)
    # torchmetrics takes what scores 0 or less for not found.
    flat = torch.tensor(scores - scores.min() + 1).flatten(), torch.tensor(right).flatten()
    for k in K:
        assert found[f"recall@{k}"] == pytest.approx(float(tm.RetrievalHitRate(top_k=k)(*flat, indexes=query)))
        assert found[f"true_recall@{k}"] == pytest.approx(float(tm.RetrievalRecall(top_k=k)(*flat, indexes=query)))
    assert found["mrr"] == pytest.approx(float(tm.RetrievalMRR()(*flat, indexes=query)))
    assert found["map"] == pytest.approx(float(tm.RetrievalMAP()(*flat, indexes=query)))


@pytest.mark.parametrize("few", [0, 16])
@pytest.mark.parametrize("rows", [1, 3, 7, 1000])
def test_chunks_change_nothing(rows: int, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real embeddings, some of them equal, so that rounding could tell apart what ties."""
    random = np.random.default_rng(0)
    texts = random.normal(size=(53, 24)).astype(np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    texts = texts[random.integers(0, 53, 90)]
    queries = np.repeat(texts[:1], 31, axis=0)
    right = csr_array((random.random((31, 90)) < 0.1) | np.eye(31, 90, dtype=bool))
    monkeypatch.setattr(module, "SCORES", 90 * rows)
    monkeypatch.setattr(module, "QUERIES", 1)
    monkeypatch.setattr(module, "FEW", few)
    found = measure(queries, texts, right, K).examples
    equal = (texts[:, None] == texts).all(axis=2)
    scores = texts.astype(np.float64) @ texts[0].astype(np.float64)
    for i, row in enumerate(right.toarray() > 0):
        above = [(scores > scores[j] + 1e-6).sum() for j in np.flatnonzero(row)]
        best = np.flatnonzero(row)[np.argmin(above)]
        tied = equal[best].sum()
        assert found["rank"][i] == pytest.approx(min(above) + (tied + 1) / ((equal[best] & row).sum() + 1))


def test_right_are_own_texts_same_words_and_same_text_id() -> None:
    texts = [["a", "b"], ["b"], ["c"], ["d", "e"]]
    own = [[1, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 1]]
    assert (relevant(texts, [[], [], [], []]).toarray() > 0).tolist() == np.array(own, bool).tolist()
    # The image of "c" has an id in common with that of "a": each has the other's text, but not its other text.
    # No id is not an id, and an id that reads like a text is not that text.
    shared = np.array(own)
    shared[0, 2] = shared[2, 0] = 1
    found = relevant(texts, [["x", "y"], [""], ["x"], ["", "a"]])
    assert (found.toarray() > 0).tolist() == shared.astype(bool).tolist()
    assert found.nnz == shared.sum()


def test_queries_and_candidates_are_distinct_texts() -> None:
    dataset = fake_dataset()
    test = dataset.prepared["test"]
    texts = sorted({text for of_image in test.text for text in of_image})
    by_part = {m.part: m for m in Retrieval(Retrieval.Config()).evaluate(evaluation(RandomEncoder(), dataset), 0)}
    assert list(by_part) == ["image_to_text", "text_to_image"]
    to_text, to_image = by_part["image_to_text"], by_part["text_to_image"]
    assert to_text.notes["candidates"] == len(to_image.examples["id"]) == len(texts) < 320
    assert sorted(to_text.examples["id"]) == sorted(test.ids)
    group_of = dict(zip(test.ids, test.groups))
    assert [group_of[i.split("#")[0]] for i in to_image.examples["id"]] == to_image.examples["group"].tolist()

    # By a loop over the queries, as if all were written by hand.
    encoder = RandomEncoder()
    scores = encoder.encode_images(torch.tensor(test.images)).embeddings @ encoder.encode_texts(texts).embeddings.T
    reports = [set(text_ids) for text_ids in test.text_id]
    having = {text: [i for i, of_image in enumerate(test.text) if text in of_image] for text in texts}
    reports_of = {text: {test.text_id[i][test.text[i].index(text)] for i in images} for text, images in having.items()}
    right = np.array([[i in having[t] or bool(reports[i] & reports_of[t]) for t in texts] for i in range(len(test))])
    for measurement, s, r in ((to_text, scores, right), (to_image, scores.T, right.T)):
        hits = [row[np.argsort(-score)][:10].any() for score, row in zip(s, r)]
        assert measurement.metrics["recall@10"](measurement.examples) == pytest.approx(np.mean(hits))


def test_k_beyond_the_candidates_is_left_out() -> None:
    dataset = fake_dataset(sizes={"test": 30})
    for measurement in Retrieval(Retrieval.Config(k=(1, 30, 31, 500))).evaluate(
        evaluation(RandomEncoder(), dataset), 0
    ):
        candidates = measurement.notes["candidates"]
        recalls = {int(name.split("@")[1]) for name in measurement.metrics if name.startswith("recall@")}
        assert recalls == {k for k in (1, 30, 31, 500) if k <= candidates}
        assert values(measurement).get(f"recall@{candidates}", 1.0) == 1.0


def without_text(dataset: FakeDataset, rows: list[int]) -> FakeDataset:
    test = dataset.prepared["test"]
    text = [[] if i in rows else texts for i, texts in enumerate(test.text)]
    text_id = [[] if i in rows else ids for i, ids in enumerate(test.text_id)]
    return replace(dataset, prepared={"test": with_columns(test, text=text, text_id=text_id)})


def test_images_without_text_are_left_out() -> None:
    dataset = fake_dataset(sizes={"test": 30})
    found, *_ = Retrieval(Retrieval.Config()).evaluate(evaluation(RandomEncoder(), without_text(dataset, [4, 9])), 0)
    assert len(found.examples["id"]) == 28
    assert found.notes["images_without_text"] == 2
    assert not {dataset.prepared["test"].ids[i] for i in (4, 9)} & set(found.examples["id"])
    with pytest.raises(BenchError, match="no image has a text"):
        next(
            Retrieval(Retrieval.Config()).evaluate(evaluation(RandomEncoder(), without_text(dataset, [*range(30)])), 0)
        )


@pytest.mark.parametrize("most", [1, module.FEW, module.FEW + 20])
def test_all_queries_at_once_stand_where_each_alone_stands(most: int) -> None:
    random = np.random.default_rng(most)
    scores = torch.from_numpy(random.integers(0, 12, (30, 60)).astype(np.float32))
    found = random.integers(1, most + 1, 30)
    found[7] = most
    right = np.concatenate([random.choice(60, count, replace=False) for count in found])
    bounds = np.concatenate([[0], np.cumsum(found)])
    at_once = module._places_at_once(scores.clone(), right, bounds)
    for ours, alone in zip(at_once, module._places(scores.clone(), right, bounds)):
        np.testing.assert_array_equal(ours, alone)


LARGE = """
import resource
import numpy as np, torch
from scipy import stats
from scipy.sparse import csr_array
from benchmark.tasks.retrieval import measure, relevant
random = np.random.default_rng(0)
images, texts = (random.standard_normal((n, 512), dtype=np.float32) for n in (5_000, 25_000))
right = relevant([[f"{i} {j}" for j in range(5)] for i in range(5_000)], [[]] * 5_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
measure(images, texts, right, (1, 5, 10, 50, 200))
measure(texts, images, csr_array(right.T), (1, 5, 10, 50, 200))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)
"""


@pytest.mark.slow
def test_large_is_small() -> None:
    """5,000 images and 25,000 texts of 512 dimensions, both directions: less than half a gigabyte."""
    output = subprocess.run([sys.executable, "-c", LARGE], check=True, capture_output=True, text=True).stdout
    assert float(output) < 0.5


@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 4)])
def test_what_is_not_finite_does_not_rank(shape: tuple[int, ...]) -> None:
    for value in (np.nan, np.inf):
        vectors = np.ones(shape, np.float32)
        broken = vectors.copy()
        broken[(1,) * len(shape)] = value
        with pytest.raises(BenchError, match="query 1 of 3 is not finite"):
            measure(broken, vectors, csr_array(np.eye(3)), [1])
        with pytest.raises(BenchError, match="candidate 1 of 3 is not finite"):
            measure(vectors, broken, csr_array(np.eye(3)), [1])


def test_by_tokens_a_query_finds_what_its_own_tokens_match() -> None:
    """A text shares one token with its image; the means of the tokens are the same for all."""
    rng = np.random.default_rng(0)
    tokens = np.linalg.qr(rng.normal(size=(12, 12)))[0].astype(np.float32)
    images = np.stack([np.stack([tokens[i], -tokens[i]]) for i in range(12)])
    texts = np.zeros((12, 3, 12), np.float32)
    texts[:, 0] = tokens
    measurement = measure(images, texts, csr_array(np.eye(12)), [1])
    assert measurement.examples["recall@1"].mean() == pytest.approx(1 / 12)  # mean over own tokens: they cancel
    measurement = measure(texts, images, csr_array(np.eye(12)), [1])
    assert measurement.examples["recall@1"].mean() == 1.0


@given(problems())
@settings(max_examples=40, deadline=None)
def test_first_answers_are_those_of_a_sort(problem: tuple[np.ndarray, np.ndarray]) -> None:
    """By falling score; candidates that tie, in their order."""
    scores, right = problem
    examples = of_scores(scores, right).examples
    for i, (row, of_row) in enumerate(zip(scores, right)):
        expected = sorted(range(len(row)), key=lambda j: (-row[j], j))[:5]
        assert [examples[f"first/{k + 1}"][i] for k in range(len(expected))] == expected
        assert [examples[f"first_right/{k + 1}"][i] for k in range(len(expected))] == [of_row[j] for j in expected]
        assert f"first/{len(expected) + 1}" not in examples
