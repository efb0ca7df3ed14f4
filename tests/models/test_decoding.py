"""Beam search against all texts of a tiny vocabulary, and against loops."""

import itertools

import pytest
import torch
from torch import Tensor

from benchmark.models.decoding import beam_search

START, END, WORDS, LENGTH, IMAGES = 0, 1, 4, 6, 5
CPU = torch.device("cpu")


def probabilities(text: tuple[int, ...], image: int, seed: int = 0) -> Tensor:
    """A language model whose every prefix has numbers of its own."""
    generator = torch.Generator().manual_seed(hash((seed, image, text)) % 2**63)
    return (3 * torch.randn(WORDS, generator=generator)).log_softmax(dim=0)


def step_of(seed: int):
    def step(tokens: Tensor, image: Tensor) -> Tensor:
        assert (tokens[:, 1:] != END).all(), "what has ended is not asked about again"
        return torch.stack([probabilities(tuple(row), i, seed) for row, i in zip(tokens.tolist(), image.tolist())])

    return step


def search(beams: int, seed: int, length: int = LENGTH) -> list[tuple[int, ...]]:
    written = beam_search(step_of(seed), IMAGES, beams, START, END, length, CPU)
    rows = [tuple(row) for row in written.tolist()]
    for row in rows:
        assert row[0] == START
        assert END in row
        assert len(row) <= length
        assert set(row[row.index(END) :]) == {END}
    return [row[: row.index(END) + 1] for row in rows]


def score(text: tuple[int, ...], image: int, seed: int) -> float:
    terms = [probabilities(text[:i], image, seed)[text[i]].item() for i in range(1, len(text))]
    return sum(terms) / len(terms)


def all_texts() -> list[tuple[int, ...]]:
    words = [w for w in range(WORDS) if w != END]
    return [(START, *middle, END) for count in range(LENGTH - 1) for middle in itertools.product(words, repeat=count)]


@pytest.mark.parametrize("seed", range(3))
def test_with_a_place_for_every_text_finds_the_best(seed: int) -> None:
    texts = all_texts()
    assert len(texts) == 1 + 3 + 9 + 27 + 81
    best = [max(texts, key=lambda text: score(text, image, seed)) for image in range(IMAGES)]
    assert search(len(texts), seed) == best


@pytest.mark.parametrize("seed", range(3))
def test_one_beam_is_greedy(seed: int) -> None:
    expected = []
    for image in range(IMAGES):
        text: tuple[int, ...] = (START,)
        while text[-1] != END or len(text) == 1:
            word = END if len(text) == LENGTH - 1 else int(probabilities(text, image, seed).argmax())
            text += (word,)
        expected.append(text)
    assert search(1, seed) == expected


@pytest.mark.parametrize("beams", [2, 3, 7])
def test_a_few_beams_are_a_loop_over_lists(beams: int) -> None:
    for seed, image in itertools.product(range(3), range(IMAGES)):
        kept: list[tuple[float, tuple[int, ...]]] = [(0.0, (START,))]
        for position in range(1, LENGTH):
            grown = []
            for total, text in kept:
                if text[-1] == END and len(text) > 1:
                    grown.append((total, text))
                    continue
                terms = probabilities(text, image, seed).tolist()
                words = [END] if position == LENGTH - 1 else range(WORDS)
                grown += [(total + terms[word], (*text, word)) for word in words]
            kept = sorted(grown, key=lambda found: found[0] / (len(found[1]) - 1), reverse=True)[:beams]
        assert search(beams, seed)[image] == kept[0][1]


def test_more_beams_find_better_texts() -> None:
    greedy, wide = (sum(score(text, i, 1) for i, text in enumerate(search(beams, 1))) for beams in (1, 20))
    assert wide > greedy


def test_the_start_may_be_the_end() -> None:
    def step(tokens: Tensor, image: Tensor) -> Tensor:
        wanted = torch.tensor([[-9.0, -9.0, 0.0, -9.0], [-9.0, 0.0, -9.0, -9.0]])
        return wanted[tokens.shape[1] - 1].expand(len(tokens), -1)

    assert beam_search(step, 2, 1, END, END, 4, CPU).tolist() == [[END, 2, END], [END, 2, END]]
