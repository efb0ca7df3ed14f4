"""Each image and each text is encoded once, whole or not at all, and what cannot be used is named."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.common.errors import BenchError
from benchmark.evaluation.encoder import Encoded, ModelEncoder, TokenEncoder, cosines
from benchmark.models import build_model
from tests.evaluation.fakes import Letters
from tests.methods.fakes import CONTEXT, SIZE, small_card
from tests.tasks.fakes import FakeDataset, RandomEncoder, evaluation, fake_dataset, take

SIZES = {"train": 20, "test": 30}


class Counting(RandomEncoder):
    """Remembers what it was asked for; fails at an image after ``fail_after`` images."""

    def __init__(self, seed: int = 0, fail_after: int = 10**9) -> None:
        super().__init__(seed)
        self.images = 0
        self.texts: list[str] = []
        self.fail_after = fail_after

    def encode_images(self, images: torch.Tensor) -> Encoded:
        self.images += len(images)
        if self.images > self.fail_after:
            raise KeyboardInterrupt
        return super().encode_images(images)

    def encode_texts(self, texts: Sequence[str]) -> Encoded:
        self.texts += texts
        return super().encode_texts(texts)


@pytest.fixture
def dataset() -> FakeDataset:
    return fake_dataset(sizes=SIZES)


@pytest.mark.parametrize("in_folder", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_rows_are_those_of_the_records(dataset: FakeDataset, tmp_path: Path, in_folder: bool, batch_size: int) -> None:
    encoder = RandomEncoder()
    data = evaluation(encoder, dataset, tmp_path / "a" if in_folder else None, batch_size)
    expected = encoder.encode_images(torch.tensor(data.records("test").images))
    np.testing.assert_array_equal(data.images("test").embeddings, expected.embeddings)
    np.testing.assert_array_equal(data.images("test").features, expected.features)
    texts = ["b", "a longer one", "", "b", "a"]
    np.testing.assert_array_equal(data.texts(texts).embeddings, encoder.encode_texts(texts).embeddings)
    np.testing.assert_array_equal(data.texts(texts).features, encoder.encode_texts(texts).features)


@pytest.mark.parametrize("in_folder", [False, True])
def test_encodes_once(dataset: FakeDataset, tmp_path: Path, in_folder: bool) -> None:
    encoder = Counting()
    data = evaluation(encoder, dataset, tmp_path if in_folder else None)
    for _ in range(3):
        data.images("test")
        data.texts(["x", "yy", "x"])
    assert encoder.images == 30
    assert encoder.texts == ["x", "yy"]


def test_another_process_reads_what_is_there(dataset: FakeDataset, tmp_path: Path) -> None:
    written = evaluation(RandomEncoder(), dataset, tmp_path)
    first = written.images("test"), written.texts(["x", "y"])
    again = Counting()
    data = evaluation(again, dataset, tmp_path)
    second = data.images("test"), data.texts(["x", "y"])
    assert again.images == 0
    assert not again.texts
    for a, b in zip(first, second):
        assert isinstance(b.embeddings, np.memmap)
        assert not b.embeddings.flags.writeable
        np.testing.assert_array_equal(a.embeddings, b.embeddings)
        np.testing.assert_array_equal(a.features, b.features)


def test_other_weights_or_other_data_are_encoded_anew(dataset: FakeDataset, tmp_path: Path) -> None:
    evaluation(Counting(), dataset, tmp_path).images("test")
    for encoder, data in ((Counting(seed=1), dataset), (Counting(), dataset.shuffled(0))):
        found = evaluation(encoder, data, tmp_path).images("test")
        assert encoder.images == 30
        expected = RandomEncoder(encoder.seed).encode_images(torch.tensor(data.prepared["test"].images))
        np.testing.assert_array_equal(found.embeddings, expected.embeddings)


def test_a_killed_run_leaves_nothing_to_be_read(dataset: FakeDataset, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluation(Counting(fail_after=20), dataset, tmp_path, batch_size=10).images("test")
    encoder = Counting()
    evaluation(encoder, dataset, tmp_path, batch_size=10).images("test")
    assert encoder.images == 30
    assert not list(tmp_path.glob(".*"))


def test_nan_is_an_error_that_names_the_example(dataset: FakeDataset, tmp_path: Path) -> None:
    class Broken(RandomEncoder):
        def encode_images(self, images: torch.Tensor) -> Encoded:
            encoded = super().encode_images(images)
            encoded.embeddings[images.numpy()[:, 0, 0, 0] == 33] = np.nan
            return encoded

        def encode_texts(self, texts: Sequence[str]) -> Encoded:
            encoded = super().encode_texts(texts)
            encoded.features[[text == "bad" for text in texts]] = np.inf
            return encoded

    data = evaluation(Broken(), dataset, tmp_path, batch_size=4)
    name = data.records("test").ids[33 - SIZES["train"]]
    with pytest.raises(BenchError, match=rf"dataset 'fake', test, image '{name}': .* embeddings that are not finite"):
        data.images("test")
    with pytest.raises(BenchError, match=r"text 'bad': .* features that are not finite"):
        data.texts(["good enough", "bad"])
    assert not list(tmp_path.iterdir())


def test_tokens_that_are_not_finite_are_an_error_too(dataset: FakeDataset, tmp_path: Path) -> None:
    """Compared by tokens, an image with one of them would find its text first, whatever it shows."""

    class Broken(RandomEncoder):
        def encode_images(self, images: torch.Tensor) -> Encoded:
            encoded = super().encode_images(images)
            tokens = np.repeat(encoded.embeddings[:, None], 3, axis=1)
            tokens[images.numpy()[:, 0, 0, 0] == 33, 1, 5] = np.nan
            return replace(encoded, tokens=tokens)

    data = evaluation(Broken(), dataset, tmp_path, batch_size=4)
    name = data.records("test").ids[33 - SIZES["train"]]
    with pytest.raises(BenchError, match=rf"dataset 'fake', test, image '{name}': .* tokens that are not finite"):
        data.images("test")


def test_what_has_no_token_but_zeros_is_like_nothing() -> None:
    some, none = np.eye(4, dtype=np.float32)[None, :2], np.zeros((1, 2, 4), np.float32)
    both = np.concatenate([some, none])
    np.testing.assert_array_equal(cosines(both, both), [[1, 0], [0, 0]])


def test_nothing_to_encode_is_an_error(dataset: FakeDataset) -> None:
    with pytest.raises(BenchError, match="no texts"):
        evaluation(RandomEncoder(), dataset).texts([])
    nothing = take(dataset.prepared["test"], np.array([], int), "nothing")
    empty = evaluation(RandomEncoder(), replace(dataset, prepared={"test": nothing}))
    with pytest.raises(BenchError, match="no images"):
        empty.images("test")


def model_encoder(**options: str) -> ModelEncoder:
    return ModelEncoder(build_model(small_card(dropout=0.5), 0), Letters(), "cpu", "weights", 20.0, **options)


def test_model_encoder_gives_what_the_model_does() -> None:
    encoder = model_encoder()
    model = encoder.model
    images = torch.randint(0, 256, (5, 3, SIZE, SIZE), dtype=torch.uint8)
    found = encoder.encode_images(images)
    with torch.no_grad():
        np.testing.assert_allclose(found.embeddings, model.encode_image(images.float() / 255), atol=1e-6)
        np.testing.assert_allclose(found.features, model.image_features(images.float() / 255), atol=1e-6)
        for text in ("a", "several words"):
            tokens = torch.tensor(Letters()([text]))
            alone = model.encode_text(tokens, torch.ones_like(tokens, dtype=torch.bool))
            # Beside a longer text it is padded.
            np.testing.assert_allclose(
                encoder.encode_texts([text, "longer than either"]).embeddings[:1], alone, atol=1e-5
            )
    np.testing.assert_allclose(np.linalg.norm(found.embeddings, axis=1), 1, atol=1e-5)
    assert found.features.dtype == found.embeddings.dtype == np.float32


def test_projections_are_those_before_the_unit_length() -> None:
    encoder, texts = model_encoder(), ["abc", "a longer one", ""]
    images = torch.randint(0, 256, (4, 3, SIZE, SIZE), dtype=torch.uint8)
    projected = encoder.projected_images(images)
    expected = torch.from_numpy(encoder.encode_images(images).embeddings)
    torch.testing.assert_close(torch.nn.functional.normalize(projected, dim=1), expected)
    assert not torch.allclose(projected.norm(dim=1), torch.ones(4))
    words = encoder.projected_words(texts, 6)
    assert words.shape == (3, 6, encoder.model.embed_dim)
    for text, found in zip(texts, words):
        tokens = torch.tensor([Letters()([text])[0][:6]])
        hidden = encoder.model.text_tokens(tokens, torch.ones_like(tokens, dtype=torch.bool))
        wanted = encoder.model.text_projection(hidden)[0]
        torch.testing.assert_close(found[: len(wanted)], wanted)
        assert not found[len(wanted) :].any()


def test_tokens_before_the_projection_are_those_that_are_pooled() -> None:
    """The tiny towers pool by the mean."""
    encoder, texts = model_encoder(), ["abc", "a longer one", ""]
    assert isinstance(encoder, TokenEncoder)
    images = torch.randint(0, 256, (4, 3, SIZE, SIZE), dtype=torch.uint8)
    tokens = encoder.image_tokens(images)
    assert tokens.shape == (4, 4, 32)
    assert tokens.requires_grad
    torch.testing.assert_close(tokens.mean(1), encoder.image_outputs(images)[0])
    words, mask = encoder.text_tokens(texts)
    assert mask.sum(1).tolist() == [len(row) for row in Letters()(texts)]
    means = torch.stack([row[own].mean(0) for row, own in zip(words, mask)])
    torch.testing.assert_close(means, encoder.text_outputs(texts)[0])


def test_model_encoder_repeats_itself() -> None:
    """No dropout, whatever mode the model came in."""
    encoder = model_encoder()
    images = torch.randint(0, 256, (5, 3, SIZE, SIZE), dtype=torch.uint8)
    np.testing.assert_array_equal(encoder.encode_images(images).embeddings, encoder.encode_images(images).embeddings)


def test_model_encoder_in_bf16() -> None:
    images = torch.randint(0, 256, (5, 3, SIZE, SIZE), dtype=torch.uint8)
    exact, rounded = model_encoder(), model_encoder(precision="bf16")
    assert exact.fingerprint != rounded.fingerprint
    one, other = exact.encode_images(images).embeddings, rounded.encode_images(images).embeddings
    assert other.dtype == np.float32
    assert 0 < np.abs(one - other).max() < 0.1


def test_cosines_by_tokens_agree_with_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    queries, candidates = rng.normal(size=(5, 4, 6)), rng.normal(size=(7, 3, 6))
    for tokens, lengths in ((queries, [4, 1, 2, 4, 3]), (candidates, [3, 2, 1, 3, 3, 1, 2])):
        tokens /= np.linalg.norm(tokens, axis=2, keepdims=True)
        for row, length in zip(tokens, lengths):
            row[length:] = 0
    expected = np.empty((5, 7))
    for i, query in enumerate(queries):
        for j, candidate in enumerate(candidates):
            there = [token for token in candidate if token.any()]
            own = [max(float(token @ other) for other in there) for token in query if token.any()]
            expected[i, j] = sum(own) / len(own)
    for size in (2**24, 1):
        monkeypatch.setattr("benchmark.evaluation.encoder.TOKEN_SCORES", size)
        np.testing.assert_allclose(cosines(queries, candidates).numpy(), expected, atol=1e-12)
    flat = rng.normal(size=(3, 6)), rng.normal(size=(2, 6))
    np.testing.assert_allclose(cosines(*flat).numpy(), flat[0] @ flat[1].T)


def test_a_model_compared_by_tokens_gives_them_padded_alike(dataset: FakeDataset, tmp_path: Path) -> None:
    model = build_model(small_card(), 0)

    class Words:
        pad_id, context_length, vocab_size, fingerprint = 0, CONTEXT, 300, "words"

        def __call__(self, texts: list[str]) -> list[list[int]]:
            return [[1, *(3 + len(word) for word in text.split()), 2] for text in texts]

    encoder = ModelEncoder(model, Words(), "cpu", "x", 1.0, by_tokens=True)  # type: ignore[arg-type]
    texts = encoder.encode_texts(["one two three", "four"])
    assert texts.tokens is not None
    assert texts.tokens.shape == (2, CONTEXT, model.embed_dim)
    assert texts.tokens.any(axis=2).sum(axis=1).tolist() == [5, 3]
    np.testing.assert_allclose(np.linalg.norm(texts.tokens[0, :5], axis=1), 1, atol=1e-6)
    alone = encoder.encode_texts(["four"]).tokens
    np.testing.assert_allclose(texts.tokens[1:], alone, atol=1e-6)
    images = encoder.encode_images(torch.randint(0, 256, (3, 3, SIZE, SIZE), dtype=torch.uint8))
    assert images.tokens is not None
    assert images.tokens.shape == (3, 4, model.embed_dim)
    data = evaluation(encoder, dataset, tmp_path)
    kept = data.texts(["one two three", "four", "four"])
    assert kept.comparable.shape == (3, CONTEXT, model.embed_dim)
    np.testing.assert_allclose(kept.comparable[:2], texts.tokens, atol=1e-6)
