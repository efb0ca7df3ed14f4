from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from benchmark.tasks.vqa import Questions, candidate_answers, most_common_answers, normalise, questions

from benchmark.common.errors import BenchError
from benchmark.evaluation.encoder import Encoded
from tests.tasks.answering import bits, measured, values
from tests.tasks.fakes import FakeDataset, OracleEncoder, RandomEncoder, evaluation, fake_dataset, read_row, take


def table(*rows: tuple[str, str, str]) -> Questions:
    """Rows of (answer_type, question_type, answer)."""
    answer_type, question_type, answer = np.array(rows).T
    blank = np.array([""] * len(rows))
    return Questions(blank, blank, np.arange(len(rows)), blank, answer, answer_type, question_type)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes", "yes"),
        (" Yes. ", "yes"),
        ("The left lung", "left lung"),
        ("an X-ray", "x ray"),
        ("X Ray", "x ray"),
        ("Two", "2"),
        ("2", "2"),
        ("ten", "10"),
        ("1.5 cm.", "1.5 cm"),
        ("1/2", "1/2"),
        ("T2-weighted", "t2 weighted"),
        ("heart, (left)  atrium", "heart left atrium"),
        ("Ödem", "ödem"),
        ("A", "a"),
        ("none", "none"),
        ("", ""),
        ("?", "?"),
    ],
)
def test_normalise(answer: str, expected: str) -> None:
    assert normalise(answer) == expected


def test_questions_are_rows_in_the_order_of_the_ids() -> None:
    dataset = fake_dataset()
    for data in (dataset, dataset.shuffled(1)):
        found = questions(evaluation(RandomEncoder(), data), "val")
        records = data.prepared["val"]
        assert len(found) == 160
        assert found.ids.tolist() == [f"{i}/{n}" for i in sorted(records.ids) for n in (0, 1)]
        for k in (0, 1, 77, 159):
            i = records.ids.index(found.ids[k].split("/")[0])
            assert found.groups[k] == records.groups[i]
            assert found.question[k] == records.question[i][k % 2]
            assert found.answer[k] == records.answer[i][k % 2]
            assert found.answer_type[k] == records.answer_type[i][k % 2]
            assert found.question_type[k] == records.question_type[i][k % 2]
            assert found.image[k] == k // 2


def test_most_common_answers() -> None:
    train = table(
        ("closed", "size", "yes"),
        ("closed", "size", "no"),
        ("closed", "side", "no"),
        ("open", "side", "left"),
        ("open", "side", "left"),
        ("open", "side", "right"),
        ("open", "organ", "no"),
    )
    test = table(("open", "side", "?"), ("closed", "size", "?"), ("open", "never seen", "?"))
    assert most_common_answers(train, test).tolist() == ["left", "no", "no"]


def test_candidate_answers() -> None:
    train = table(
        ("closed", "side", "no"),
        ("open", "side", "right"),
        ("open", "side", "left"),
        ("open", "side", "left"),
        ("open", "organ", "lung"),
    )
    test = table(("open", "side", "?"), ("closed", "side", "?"), ("closed", "organ", "?"))
    assert candidate_answers(train, test) == [["left", "right"], ["no"], ["left", "lung", "no", "right"]]


class Bits(RandomEncoder):
    """Images that show two bits (of the label's number) among noise, as features; a question is its own vector."""

    def __init__(self, dataset: FakeDataset) -> None:
        super().__init__(width=6)
        self.label = {
            read_row(image): label
            for records in dataset.prepared.values()
            for image, label in zip(records.images, records.label)
        }

    def encode_images(self, images: Any) -> Encoded:
        encoded = super().encode_images(images)
        label = np.array([self.label[read_row(image)] for image in images.numpy()])
        encoded.features[:, :2] = np.stack([label % 2, label // 2], 1) * 2 - 1
        return encoded


@pytest.mark.parametrize("head", ["product", "bilinear"])
def test_heads_learn_what_neither_image_nor_question_tells_alone(head: str) -> None:
    dataset = bits()
    found = measured(dataset, Bits(dataset), head=head, epochs=30)
    assert values(found)["accuracy"] > 0.97
    assert found.chance["accuracy"] == 0.5


def test_features_after_the_projection() -> None:
    dataset = bits()

    class Swapped(Bits):
        def encode_images(self, images: Any) -> Encoded:
            encoded = super().encode_images(images)
            return Encoded(encoded.embeddings, encoded.features)

    assert values(measured(dataset, Swapped(dataset), features="after", epochs=30))["accuracy"] > 0.97


def test_scale_and_offset_of_the_features_change_nothing() -> None:
    dataset = bits()

    class Rescaled(Bits):
        def encode_images(self, images: Any) -> Encoded:
            encoded = super().encode_images(images)
            features = encoded.features * 1000 + 300
            return Encoded(np.concatenate([features, np.ones((len(features), 1), np.float32)], 1), encoded.embeddings)

    assert values(measured(dataset, Rescaled(dataset), epochs=30))["accuracy"] > 0.97


def test_open_and_closed_are_the_answer_types_of_the_data() -> None:
    dataset = fake_dataset()
    found = measured(dataset, OracleEncoder(dataset))
    answer = found.examples["predicted"] == found.examples["answer"]
    closed = np.array([i.endswith("/0") for i in found.examples["id"]])
    result = values(found)
    assert result["accuracy"] == answer.mean()
    assert result["accuracy_closed"] == answer[closed].mean()
    assert result["accuracy_open"] == answer[~closed].mean()
    assert set(found.notes["definitions"]) == set(found.metrics)
    for records in dataset.prepared.values():
        for types in records.answer_type:
            types[:] = ["closed", ""]
    assert "accuracy_open" not in measured(dataset, RandomEncoder(), epochs=1).metrics


def test_answer_that_train_has_not_is_wrong() -> None:
    dataset = fake_dataset()
    records = dataset.prepared["train"]
    dataset.prepared["train"] = take(records, np.flatnonzero(records.label != 3), "no fig")
    found = measured(dataset, OracleEncoder(dataset))
    assert found.notes["ceiling"] == pytest.approx((1 + 0.75) / 2)
    assert found.notes["vocabulary"] == 5
    assert not found.examples["correct"][found.examples["answer"] == "fig"].any()
    assert values(found)["accuracy"] <= found.notes["ceiling"]


def test_answers_are_compared_normalised() -> None:
    dataset = bits()
    encoder = Bits(dataset)
    plain = measured(dataset, encoder, epochs=4)
    for records in dataset.prepared.values():
        for i, answers in enumerate(records.answer):
            answers[:] = [("{}", "The {}.", " {}")[i % 3].format(answer.upper()) for answer in answers]
    written = measured(dataset, encoder, epochs=4)
    for name, column in plain.examples.items():
        np.testing.assert_array_equal(column, written.examples[name])


def test_chance_is_the_most_common_answer_by_question_type() -> None:
    dataset = fake_dataset()
    for records in dataset.prepared.values():
        for answers in records.answer[::3]:
            answers[:] = ["yes", "plum"]
    found = measured(dataset, RandomEncoder(), epochs=1)
    answers = np.array(dataset.prepared["test"].answer)
    by_hand = {"closed": np.mean(answers[:, 0] == "yes"), "open": np.mean(answers[:, 1] == "plum")}
    assert found.chance["accuracy_closed"] == pytest.approx(by_hand["closed"])
    assert found.chance["accuracy_open"] == pytest.approx(by_hand["open"])
    assert found.chance["accuracy"] == pytest.approx(sum(by_hand.values()) / 2)
    breakdown = found.notes["breakdown"]["question_type"]
    assert breakdown["taste"]["majority"] == pytest.approx(by_hand["closed"])
    assert breakdown["kind"]["majority"] == pytest.approx(by_hand["open"])
    assert breakdown["kind"]["accuracy"] == values(found)["accuracy_open"]
    assert breakdown["kind"]["n"] == 160


def test_zero_shot_agrees_with_a_loop() -> None:
    dataset = fake_dataset()
    encoder = RandomEncoder()
    found = measured(dataset, encoder, epochs=1, statement="{question} It is {answer}.")
    candidates = {"is it tart?": ["no", "yes"], "which fruit is it?": ["apple", "fig", "pear", "plum"]}
    data = evaluation(encoder, dataset)
    images, records = data.images("test").embeddings, dataset.prepared["test"]
    right = {}
    for i, image in enumerate(images):
        for number, (question, answer) in enumerate(zip(records.question[i], records.answer[i])):
            statements = [f"{question} It is {candidate}." for candidate in candidates[question]]
            cosines = [float(text @ image) for text in data.texts(statements).embeddings]
            right[f"{records.ids[i]}/{number}"] = candidates[question][int(np.argmax(cosines))] == answer
    assert dict(zip(found.examples["id"], found.examples["correct_zero_shot"])) == right
    assert values(found)["zero_shot_accuracy"] == np.mean(list(right.values()))
    assert found.chance["zero_shot_accuracy"] == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert found.notes["statements"] == 6


def test_zero_shot_without_knowledge_gets_chance() -> None:
    class Constant(RandomEncoder):
        def _encode(self, items: Any) -> Encoded:
            encoded = super()._encode(items)
            return Encoded(encoded.features, np.full_like(encoded.embeddings, 0.25))

    found = measured(fake_dataset(), Constant(), epochs=1)
    assert values(found)["zero_shot_accuracy"] == pytest.approx(found.chance["zero_shot_accuracy"])


def test_zero_shot_is_left_out_where_it_costs_too_much() -> None:
    found = measured(fake_dataset(), RandomEncoder(), epochs=1, max_statements=5)
    assert "zero_shot_accuracy" not in found.metrics | found.chance
    assert found.notes["statements"] == 6


def test_the_best_epoch_on_val_is_kept() -> None:
    """With val answers that are all the same, the epoch is kept that gives this answer most often."""
    dataset = bits()
    encoder = Bits(dataset)
    for answers in dataset.prepared["val"].answer:
        answers[:] = ["yes", "yes"]
    found = measured(dataset, encoder, epochs=12)
    assert found.notes["epoch"] < 12
    without = replace(dataset, prepared={k: v for k, v in dataset.prepared.items() if k != "val"})
    assert measured(without, encoder, epochs=12).notes["epoch"] == 12
    for column in (
        dataset.prepared["val"].question,
        dataset.prepared["val"].answer,
        dataset.prepared["val"].answer_type,
        dataset.prepared["val"].question_type,
    ):
        column[:] = [[] for _ in column]
    assert measured(dataset, encoder, epochs=12).notes["epoch"] == 12


def test_the_seed_decides_and_global_generators_are_left_alone() -> None:
    dataset = fake_dataset()
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    first = measured(dataset, RandomEncoder(), seed=1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # type: ignore[index]
    torch.manual_seed(6)
    again, other = measured(dataset, RandomEncoder(), seed=1), measured(dataset, RandomEncoder(), seed=2)
    assert (first.examples["predicted"] == again.examples["predicted"]).all()
    assert (first.examples["predicted"] != other.examples["predicted"]).any()


@pytest.mark.parametrize("split", ["train", "test"])
def test_split_without_questions(split: str) -> None:
    dataset = fake_dataset()
    records = dataset.prepared[split]
    for column in (records.question, records.answer, records.answer_type, records.question_type):
        column[:] = [[] for _ in column]
    with pytest.raises(BenchError, match=f"dataset 'fake', {split}: no image has a question"):
        measured(dataset, RandomEncoder())


def test_images_without_questions_are_left_out() -> None:
    dataset = fake_dataset()
    records = dataset.prepared["test"]
    for column in (records.question, records.answer, records.answer_type, records.question_type):
        column[3] = []
    found = measured(dataset, OracleEncoder(dataset))
    assert len(found.examples["id"]) == 318
    assert values(found)["accuracy"] == 1.0


def test_a_single_answer() -> None:
    found = measured(bits(("yes", "yes")), RandomEncoder(), epochs=1)
    assert values(found) == dict.fromkeys(["accuracy", "accuracy_closed", "zero_shot_accuracy"], 1.0) == found.chance
