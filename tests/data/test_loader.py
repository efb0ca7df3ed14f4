from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.common.errors import BenchError
from benchmark.config.augmentation import Augmentation
from benchmark.data.loader import PairLoader, PreparedPairs
from benchmark.data.prepared import Prepared
from tests.data.make import Words


def prepared(name, texts, size=4, label=None):
    n = len(texts)
    images = np.zeros((n, 3, size, size), dtype=np.uint8) + np.arange(n, dtype=np.uint8)[:, None, None, None]
    columns = {"id": [f"{name}{i}" for i in range(n)], "label": [-1] * n if label is None else label, "text": texts}
    return Prepared(images, pa.table(columns), name)


ONE = [["a bb"], [], ["ccc d", "ee ff gg", "h"], ["i"], [], ["jj kk"]]
TWO = [["lll"], ["m nnn oo p", "q"], []]


def loader(cache, *sets, seed=0, tokenizer=None, mixture=1.0):
    sets = sets or (prepared("one", ONE), prepared("two", TWO))
    pair_sets = [PreparedPairs(each, tokenizer or Words(), cache) for each in sets]
    return PairLoader(pair_sets, Words.pad_id, 4, Augmentation(), seed, mixture)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return loader(tmp_path_factory.mktemp("cache"))


def test_an_epoch_is_every_row_that_has_a_text_once(pairs):
    assert len(pairs) == 6
    orders = []
    for epoch in range(3):
        ids = pairs.batch(epoch * 6, 6).ids
        assert sorted(ids) == ["one0", "one2", "one3", "one5", "two0", "two1"]
        orders.append(ids)
    assert orders[0] != orders[1] != orders[2]


@settings(deadline=None)
@given(position=st.integers(0, 40), count=st.integers(1, 20))
def test_a_batch_is_its_samples_one_by_one(pairs, position, count):
    batch = pairs.batch(position, count)
    assert len(batch) == count
    for i in range(count):
        one = pairs.batch(position + i, 1)
        assert one.ids == batch.ids[i : i + 1]
        assert torch.equal(one.seed, batch.seed[i : i + 1])
        assert torch.equal(one.row, batch.row[i : i + 1])
        assert torch.equal(one.image[0], batch.image[i])
        assert torch.equal(one.tokens[0], batch.tokens[i][batch.mask[i]])
        assert (batch.tokens[i][~batch.mask[i]] == Words.pad_id).all()
    assert batch.mask.any(0).all(), "longer than the longest text"


def test_samples_are_what_they_should_be(pairs):
    texts = {f"one{i}": t for i, t in enumerate(ONE)} | {f"two{i}": t for i, t in enumerate(TWO)}
    batch = pairs.batch(0, 300)
    assert batch.image.dtype == torch.uint8
    assert batch.image.shape == (300, 3, 4, 4)
    for i, id in enumerate(batch.ids):
        assert (batch.image[i] == int(id[3:])).all()
        assert batch.tokens[i][batch.mask[i]].tolist() in Words()(texts[id])


def test_each_text_of_a_record_is_taken_equally_often(pairs):
    batch = pairs.batch(0, 6 * 600)
    taken = Counter(tuple(t[m].tolist()) for t, m, id in zip(batch.tokens, batch.mask, batch.ids) if id == "one2")
    assert set(taken) == {tuple(t) for t in Words()(ONE[2])}
    assert all(abs(count - 200) < 60 for count in taken.values())


def test_identical_texts_have_one_hash(tmp_path):
    """Across rows, sets, and the texts of a row, of which one is drawn."""
    first, second = [["a b"], ["c"], ["a b", "d"]], [["d"], ["C"], ["a  b"]]
    texts = {f"one{i}": t for i, t in enumerate(first)} | {f"two{i}": t for i, t in enumerate(second)}
    both = loader(tmp_path, prepared("one", first), prepared("two", second))
    batch = both.batch(0, 200)
    drawn = {}
    for number, id in enumerate(batch.ids):
        tokens = batch.tokens[number][batch.mask[number]].tolist()
        text = next(text for text in texts[id] if Words()([text])[0] == tokens)
        drawn.setdefault(text, set()).add(batch.text_hash[number].item())
    assert {"a b", "d", "c", "C"} <= set(drawn)
    assert all(len(hashes) == 1 for hashes in drawn.values())
    assert len(set().union(*drawn.values())) == len(drawn)
    assert all(0 <= value < 2**63 for value in batch.text_hash.tolist())
    assert torch.equal(batch.rows([3, 3]).text_hash, batch.text_hash[[3, 3]])


def test_share_of_pairs_with_a_twin_is_that_of_the_batches(tmp_path):
    texts = [[f"t {i % 9}", *(["u"] if i % 3 else [])] for i in range(40)]
    both = loader(tmp_path, prepared("one", texts), prepared("two", texts[:20]), mixture=0.5)
    for size, starts in ((6, [6 * step for step in range(10)] + [60, 66]), (50, [0, 60]), (7, [0])):
        hashes = [both.batch(start, size).text_hash for start in starts]
        with_twin = sum(int((h[:, None] == h).sum(1).gt(1).sum()) for h in hashes)
        assert both.twins(size, len(starts)) == pytest.approx(with_twin / (size * len(starts)))
        assert with_twin
    assert loader(tmp_path, many("many", 30)).twins(10, 7) == 0.0


def test_row_is_the_pair_and_seed_is_the_pair_in_an_epoch(pairs):
    batch = pairs.batch(0, 600)
    assert len({(id, row) for id, row in zip(batch.ids, batch.row.tolist())}) == 6
    assert len(set(batch.seed.tolist())) == 600
    assert (batch.seed >= 0).all()


def test_seeds_are_the_runs(tmp_path):
    one, same, other = (loader(tmp_path, seed=seed) for seed in (1, 1, 2))
    assert one.batch(3, 9).ids == same.batch(3, 9).ids
    assert one.batch(0, 60).ids != other.batch(0, 60).ids
    assert not torch.equal(one.batch(0, 6).seed, other.batch(0, 6).seed)


def test_sequential(pairs):
    batch = pairs.sequential(0, 100)
    assert batch.ids == ["one0", "one2", "one3", "one5", "two0", "two1"]
    firsts = [t[0] for t in (*ONE, *TWO) if t]
    assert [t[m].tolist() for t, m in zip(batch.tokens, batch.mask)] == Words()(firsts)
    middle = pairs.sequential(2, 3)
    assert middle.ids == batch.ids[2:5]
    assert torch.equal(middle.seed, batch.seed[2:5])
    with pytest.raises(BenchError, match="pair 6 asked for, but there are 6"):
        pairs.sequential(6, 1)


def test_texts_are_tokenised_once_for_a_tokenizer(tmp_path):
    first, second, other = Words(), Words(), Words()
    other.fingerprint = "other"
    for tokenizer in (first, second, other):
        loader(tmp_path, tokenizer=tokenizer)
    assert (first.calls, second.calls, other.calls) == (2, 0, 2)


def test_labels(tmp_path):
    texts = [["a"], [], ["b"], ["c"]]
    single = loader(tmp_path, prepared("s", texts, label=[0, 1, -1, 2])).sequential(0, 4)
    assert single.label.dtype == torch.int64
    assert single.label.tolist() == [0, -1, 2]
    several = prepared("m", texts, label=[[0, 1], [1, 1], [-1, -1], [1, 0]])
    multi = loader(tmp_path, several).sequential(0, 4)
    assert multi.label.is_floating_point()
    assert multi.label.tolist() == [[0, 1], [-1, -1], [1, 0]]
    assert loader(tmp_path, prepared("u", texts)).sequential(0, 4).label is None
    both = loader(tmp_path, prepared("s", texts, label=[0, 1, -1, 2]), prepared("m", texts, label=[0, 1, 2, 1]))
    assert both.sequential(0, 4).label is None, "class numbers of two sets mean different things"


def test_errors(tmp_path):
    with pytest.raises(BenchError, match="no row of the sets to train on has a text"):
        loader(tmp_path, prepared("e", [[], []]))
    with pytest.raises(BenchError, match=r"at one size; found \[4, 8\]"):
        loader(tmp_path, prepared("a", [["x"]]), prepared("b", [["x"]], size=8))


def many(name, count):
    return prepared(name, [[f"{name} {i}"] for i in range(count)])


@pytest.mark.parametrize(("mixture", "shares"), [(1.0, [0.8, 0.16, 0.04]), (0.0, [1 / 3] * 3), (0.5, None)])
def test_mixtures(tmp_path, mixture, shares):
    sizes = {"a": 200, "b": 40, "c": 10}
    sets = [many(name, size) for name, size in sizes.items()]
    pairs = loader(tmp_path, *sets, mixture=mixture)
    weights = np.array([size**mixture for size in sizes.values()])
    expected = shares or (weights / weights.sum()).tolist()
    assert len(pairs) == 250
    assert sum(pairs.shares) == 1
    np.testing.assert_allclose(pairs.shares, expected, atol=1 / 250)
    ids = pairs.batch(0, 250).ids
    assert Counter(id[0] for id in ids) == {name: round(share * 250) for name, share in zip(sizes, pairs.shares)}
    # Each set is gone through whole before a pair of it comes again, whatever the epochs of the mixture.
    small = [id for id in pairs.batch(0, 1000).ids if id[0] == "c"]
    counts = Counter(small)
    assert len(counts) == 10
    assert max(counts.values()) - min(counts.values()) <= 1
    assert pairs.batch(300, 7).ids == pairs.batch(0, 1000).ids[300:307]
    assert pairs.batch(250, 250).ids != ids


def test_a_pair_that_comes_twice_in_an_epoch_is_augmented_twice(tmp_path):
    pairs = loader(tmp_path, many("a", 90), many("b", 2), mixture=0.0)
    batch = pairs.batch(0, 92)
    assert len(set(batch.seed.tolist())) == 92
    assert Counter(batch.ids)["b0"] == 23
