"""Questions answered on towers that are trained along with the head."""

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import pytest
import torch
from benchmark.tasks.vqa import VQA
from torch import Tensor, nn

from benchmark.common.errors import BenchError
from benchmark.evaluation.encoder import ModelEncoder
from benchmark.models import DualEncoder, build_model
from tests.evaluation.fakes import Letters
from tests.methods.fakes import small_card, small_method
from tests.tasks.answering import Sighted, measured, pictures, sighted, values
from tests.tasks.fakes import RandomEncoder, evaluation

QUICK: dict[str, Any] = {"towers": "trained", "epochs": 2, "batch_size": 20, "micro_batch": 8}


class Kept(ModelEncoder):
    """Keeps its copies, to look at what became of them."""

    copies: list[ModelEncoder]

    def copy(self) -> Self:
        other = super().copy()
        self.copies.append(other)
        return other


def encoder(model: DualEncoder | None = None, kind: type[Kept] = Kept, by_tokens: bool = False) -> Kept:
    made = kind(model or build_model(small_card(), 0), Letters(), "cpu", "weights", 10.0, by_tokens=by_tokens)
    made.copies = []
    return made


def changed(made: Kept) -> set[str]:
    """The names of the weights that differ between the copy and the model, buffers included."""
    weights = made.model.state_dict()
    return {
        name for name, weight in made.copies[0].model.state_dict().items() if not torch.equal(weight, weights[name])
    }


@pytest.mark.parametrize(
    ("side", "features", "head"),
    [
        ("image", "before", "product"),
        ("image", "after", "product"),
        ("text", "before", "product"),
        ("image", "before", "ban"),
        ("text", "before", "ban"),
    ],
)
def test_towers_learn_what_frozen_features_do_not_tell(side: str, features: str, head: str) -> None:
    """Before training, one side sees no difference between its inputs."""

    def blind() -> Kept:
        model = build_model(small_card(), 0)
        nn.init.zeros_(model.image.stem.weight if side == "image" else model.text.embedding.weight)
        return encoder(model)

    options = {"features": features, "head": head, "epochs": 12, "batch_size": 16, "dropout": 0.0}
    frozen = sighted(pictures(), blind(), **options)
    assert values(frozen)["accuracy"] <= 0.75
    trained = sighted(pictures(), blind(), towers="trained", tower_learning_rate=1e-3, **options)
    assert values(trained)["accuracy"] > 0.95
    assert values(trained)["zero_shot_accuracy"] == values(frozen)["zero_shot_accuracy"]


@pytest.mark.parametrize(("features", "head"), [("before", "product"), ("after", "product"), ("before", "ban")])
def test_towers_that_do_not_learn_answer_as_frozen_ones(features: str, head: str) -> None:
    options = QUICK | {"features": features, "head": head, "micro_batch": 20, "epochs": 4}
    frozen = measured(pictures(), encoder(), **options | {"towers": "frozen"})
    made = encoder()
    still = measured(pictures(), made, **options | {"tower_learning_rate": 0.0})
    assert not changed(made)
    for name, column in frozen.examples.items():
        np.testing.assert_array_equal(still.examples[name], column)


class Double(Kept):
    def image_outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model.image_features(images.double() / 255)
        return features, self.model.project_image(features)

    def image_tokens(self, images: Tensor) -> Tensor:
        return self.model.image_tokens(images.double() / 255)


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("head", ["product", "bilinear", "ban"])
def test_micro_batches_add_up_to_the_gradient_of_the_batch(head: str, double: None) -> None:
    start = build_model(small_card(), 0).double().state_dict()
    found = []
    for micro_batch in (20, 6):
        made = encoder(build_model(small_card(), 0).double(), Double)
        sighted(pictures(), made, **QUICK | {"head": head, "dropout": 0.0, "micro_batch": micro_batch})
        found.append(made.copies[0].model.state_dict())
    whole, added = found
    for tower in ("image.stem", "text.embedding"):
        assert not torch.equal(whole[f"{tower}.weight"], start[f"{tower}.weight"])
    for name, weight in whole.items():
        torch.testing.assert_close(added[name], weight, rtol=0, atol=1e-9)


@pytest.mark.parametrize("head", ["product", "ban"])
def test_no_more_than_a_micro_batch_passes_with_a_graph(head: str) -> None:
    passed = []

    class Counting(Kept):
        def image_outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
            passed.append((torch.is_grad_enabled(), len(images)))
            return super().image_outputs(images)

        def text_outputs(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
            passed.append((torch.is_grad_enabled(), len(texts)))
            return super().text_outputs(texts)

        def image_tokens(self, images: Tensor) -> Tensor:
            passed.append((torch.is_grad_enabled(), len(images)))
            return super().image_tokens(images)

    data = evaluation(encoder(kind=Counting), pictures(), batch_size=10)
    next(VQA(VQA.Config(**QUICK, head=head)).evaluate(data, 0))
    assert max(count for graph, count in passed if graph) == QUICK["micro_batch"]
    assert max(count for _, count in passed) == 10


@pytest.mark.parametrize("method", ["partial_freeze", "cleft"])
def test_the_evaluated_model_stays_as_it_is(method: str) -> None:
    def state(model: DualEncoder) -> list[Any]:
        parts = [(name, part.training) for name, part in model.named_modules()]
        return parts + [(name, weight.requires_grad, weight.grad is None) for name, weight in model.named_parameters()]

    made = encoder(small_method(method).encoder())
    weights = {name: weight.clone() for name, weight in made.model.state_dict().items()}
    before = state(made.model)
    images = torch.from_numpy(pictures().prepared["test"].images)
    seen = made.encode_images(images), made.encode_texts(["one?", "two?"])
    measured(pictures(), made, **QUICK)
    assert state(made.model) == before
    for name, weight in made.model.state_dict().items():
        assert torch.equal(weight, weights[name]), name
    for old, new in zip(seen, (made.encode_images(images), made.encode_texts(["one?", "two?"]))):
        np.testing.assert_array_equal(old.features, new.features)
        np.testing.assert_array_equal(old.embeddings, new.embeddings)


@pytest.mark.parametrize(
    ("method", "options"),
    [("partial_freeze", {}), ("partial_freeze", {"tower": "text"}), ("locked_image", {}), ("locked_text", {})],
)
def test_what_a_method_froze_is_trained(method: str, options: dict[str, Any]) -> None:
    made = encoder(small_method(method, **options).encoder())
    sighted(pictures(), made, **QUICK)
    assert {name for name, _ in made.model.named_parameters() if "projection" not in name} == changed(made)


@pytest.mark.parametrize(
    ("options", "stage", "trained"),
    [
        ({}, "pretrain", "lora_"),
        ({"adapter": "ia3"}, "pretrain", "ia3_"),
        ({"adapter": "prefix"}, "pretrain", "prefix"),
        ({"stage2": "caption"}, "caption", "prompt"),
    ],
)
def test_of_a_language_model_only_what_tunes_it_is_trained(options: dict[str, Any], stage: str, trained: str) -> None:
    method = small_method("cleft", **options)
    if stage != "pretrain":
        nn.init.normal_(method.model.text.prompt)
    method.enter(stage)
    made = encoder(method.encoder())
    sighted(pictures(), made, **QUICK)
    found = changed(made)
    assert {name for name, _ in made.model.image.named_parameters(prefix="image")} <= found
    text = {name for name in found if name.startswith("text.")}
    assert text
    assert all(trained in name for name in text)


def test_late_interaction_trains_the_pooled_features() -> None:
    made, pooled = encoder(by_tokens=True), encoder()
    found, expected = (sighted(pictures(), x, **QUICK) for x in (made, pooled))
    np.testing.assert_array_equal(found.examples["predicted"], expected.examples["predicted"])


def test_batch_normalisation_keeps_its_statistics() -> None:
    model = build_model(small_card(), 0)
    normalised = nn.BatchNorm2d(8)
    model.image.stem = nn.Sequential(model.image.stem, normalised)
    made = encoder(model)
    sighted(pictures(), made, **QUICK)
    found = changed(made)
    assert {"image.stem.1.weight", "image.stem.1.bias"} <= found
    assert not {name for name in found if "running" in name or "tracked" in name}


def test_neither_dropout_nor_patch_dropout_acts_in_the_towers() -> None:
    plain, dropping = (
        sighted(pictures(), encoder(build_model(small_card(dropout=x, patch_dropout=x), 0)), **QUICK)
        for x in (0.0, 0.5)
    )
    np.testing.assert_array_equal(plain.examples["predicted"], dropping.examples["predicted"])


def test_the_weights_of_the_best_epoch_on_val_answer_test() -> None:
    stems: list[Tensor] = []

    class Diary(Kept):
        def image_outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
            if not torch.is_grad_enabled():
                stems.append(self.model.image.stem.weight.detach().clone())
            return super().image_outputs(images)

    dataset = pictures()
    for answers in dataset.prepared["val"].answer:
        answers[:] = ["yes", "yes"]
    found = sighted(dataset, encoder(kind=Diary), **QUICK | {"epochs": 6})
    # All of a split is one batch of the encoding: first the frozen model's, then val after each epoch, then test.
    *of_epochs, of_test = stems[-7:]
    assert found.notes["epoch"] < 6
    assert torch.equal(of_test, of_epochs[found.notes["epoch"] - 1])
    assert not torch.equal(of_test, of_epochs[-1])


def test_the_question_alone_is_answered_whatever_the_images_show() -> None:
    dataset, other = pictures(), pictures()
    for records in other.prepared.values():
        records.images[:] = records.images[::-1].copy() // 2
    first, second = (measured(each, encoder(), **QUICK) for each in (dataset, other))
    np.testing.assert_array_equal(*(each.examples["correct_by_question_only"] for each in (first, second)))
    assert (first.examples["correct"] != second.examples["correct"]).any()


def test_the_seed_decides() -> None:
    made = encoder()
    for seed in (0, 0, 1):
        sighted(pictures(), made, seed=seed, **QUICK)
    first, again, other = (copy.model.state_dict() for copy in made.copies)
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())
    assert any(not torch.equal(weight, other[name]) for name, weight in first.items())


@pytest.mark.parametrize("change", ["order", "batch size of the encoding"])
def test_changes_nothing(change: str) -> None:
    first, second = encoder(), encoder()
    sighted(pictures(), first, **QUICK)
    if change == "order":
        sighted(pictures().shuffled(1), second, **QUICK)
    else:
        next(Sighted(VQA.Config(**QUICK)).evaluate(evaluation(second, pictures(), batch_size=7), 0))
    expected = first.copies[0].model.state_dict()
    for name, weight in second.copies[0].model.state_dict().items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-4)


def test_an_encoder_without_towers_is_told_apart_in_a_line() -> None:
    with pytest.raises(
        BenchError, match=r"^vqa\.towers=trained: a RandomEncoder has no towers that can be trained; expected .*$"
    ):
        measured(pictures(), RandomEncoder(), **QUICK)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(BenchError, match=r"dataset 'fake': the loss is nan after epoch 1, .* vqa\.tower_learning_rate"):
        sighted(pictures(), encoder(), **QUICK | {"tower_learning_rate": 1e30})


def test_too_little_memory_names_the_option_that_helps() -> None:
    class Full(Kept):
        def text_outputs(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
            if torch.is_grad_enabled():
                raise torch.cuda.OutOfMemoryError
            return super().text_outputs(texts)

    with pytest.raises(BenchError, match=r"^out of GPU memory; lower vqa\.micro_batch$"):
        measured(pictures(), encoder(kind=Full), **QUICK)
