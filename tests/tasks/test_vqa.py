import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from benchmark.tasks import vqa
from benchmark.tasks.vqa import (
    Questions,
    candidate_answers,
    highest_marks,
    marks,
    most_common_answers,
    normalise,
    questions,
    same_question_answers,
)
from hypothesis import assume, given
from hypothesis import strategies as st
from torchmetrics.functional.text import squad

from benchmark.common.errors import BenchError
from benchmark.evaluation.encoder import Encoded
from tests.tasks.answering import bits, measured, sighted, values
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
        ("None.", "no"),
        ("none of these", "none of these"),
        ("zero", "0"),
        ("", ""),
        ("?", "?"),
        ("< 5", "<5"),
        ("more than -1", "more than -1"),
        ("<=5", "≤5"),
        ("5.0 cm", "5 cm"),
        ("5cm", "5 cm"),
        ("05", "5"),
        (".5", "0.5"),
        ("fig.5", "fig 5"),
        ("1.2.0", "1.2.0"),
        ("1,200.50 mL", "1200.5 ml"),
        ("2, 3 and 4", "2 3 and 4"),
        ("50 percent", "50 %"),
        ("50%", "50 %"),
        ("5 +/- 0.50", "5 ±0.5"),
        ("\u22125", "-5"),
        ("10-20 minutes", "10-20 minutes"),
        ("10 \u2013 20", "10-20"),
        ("L2-3", "l2 3"),
        ("~15 minutes", "~15 minutes"),
        ("5 -5", "5 -5"),
        ("about - five", "about 5"),
        ("> five", ">5"),
        ("1:2", "1:2"),
        ("1.5 x 1.80 cm", "1.5 x 1.8 cm"),
        ("1.5×1.8cm", "1.5 x 1.8 cm"),
        ("HER2+, ER-", "her2+ er-"),
        ("grade 3+", "grade 3+"),
        ("right > left", "right > left"),
        ("yes - small", "yes small"),
    ],
)
def test_normalise(answer: str, expected: str) -> None:
    assert normalise(answer) == expected


NUMBERS = st.decimals(min_value=0, max_value=10**6, places=3)
SIGNS = ["", "<", ">", "≤", "≥", "±", "~", "-"]


@given(st.text(alphabet="abthe0159<>=≤≥±~-+/.,:%()? x", max_size=14) | st.text(max_size=8))
def test_a_normalised_answer_stays(answer: str) -> None:
    assume(not re.search(r"\w-\W", answer))  # The comma that tells the sign of "ER-, PR+" from a hyphen is dropped.
    assert normalise(normalise(answer)) == normalise(answer)


@given(NUMBERS, NUMBERS, st.sampled_from(SIGNS), st.sampled_from(SIGNS))
def test_numbers_are_the_same_where_value_and_sign_are(one: Any, other: Any, sign: str, other_sign: str) -> None:
    same = (one, sign) == (other, other_sign)
    assert (normalise(f"{sign}{one} mm") == normalise(f"{other_sign}{other} mm")) == same
    assert (normalise(f"{one}-{other}") == normalise(f"{other}-{one}")) == (one == other)


@given(NUMBERS, st.sampled_from(SIGNS), st.integers(0, 4))
def test_one_number_in_several_spellings(number: Any, sign: str, zeros: int) -> None:
    spellings = {
        f"{sign}{number}",
        f"{sign}{number}{'0' * zeros}",
        f"{sign}{'0' * zeros}{number}",
        f"{sign}{number:,}",
        f"The {sign}{number:f}!",
        f"({sign}{number.normalize():f})",
        f"{sign}{' ' * (sign not in ('', '-'))}{number}",
    }
    assert len(set(map(normalise, spellings))) == 1, spellings


@given(NUMBERS, NUMBERS)
def test_one_range_in_several_spellings(low: Any, high: Any) -> None:
    ranges = {f"{low}-{high}", f"{low} - {high}", f"{low}\u2013{high}", f"{low} to {high}"}
    assert len(set(map(normalise, ranges))) == 1
    assert normalise(f"{low}-{high}") not in {normalise(f"{low} {high}"), normalise(f"{low}, {high}")}


@pytest.mark.parametrize(
    ("predicted", "answer", "f1", "recall"),
    [
        ("left lung", "left lung", 1.0, 1.0),
        ("left lung", "left upper lung", 4 / 5, 2 / 3),
        ("left upper lung", "left lung", 4 / 5, 1.0),
        ("left left lung", "left lung lung", 2 / 3, 2 / 3),
        ("lung left", "left lung", 1.0, 1.0),
        ("yes", "no", 0.0, 0.0),
        ("<5 mm", ">5 mm", 1 / 2, 1 / 2),
        ("", "", 1.0, 1.0),
        ("", "no", 0.0, 0.0),
        ("no", "", 0.0, 0.0),
    ],
)
def test_words_shared_by_two_answers(predicted: str, answer: str, f1: float, recall: float) -> None:
    found = marks(np.array([predicted]), np.array([answer]))
    assert found["correct"].tolist() == [predicted == answer]
    assert found["token_f1"][0] == pytest.approx(f1)
    assert found["token_recall"][0] == pytest.approx(recall)


WORDS = st.lists(st.sampled_from(["left", "right", "lung", "upper", "mass"]), min_size=1, max_size=5).map(" ".join)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5))
def test_f1_is_that_of_squad(pairs: list[tuple[str, str]]) -> None:
    predicted, answer = map(np.array, zip(*pairs))
    reference = squad(
        [{"prediction_text": one, "id": str(i)} for i, (one, _) in enumerate(pairs)],
        [{"answers": {"answer_start": [0], "text": [one]}, "id": str(i)} for i, (_, one) in enumerate(pairs)],
    )
    found = marks(predicted, answer)
    assert 100 * found["token_f1"].mean() == pytest.approx(float(reference["f1"]), abs=1e-4)
    assert 100 * found["correct"].mean() == pytest.approx(float(reference["exact_match"]), abs=1e-4)


@given(st.lists(WORDS, min_size=1, max_size=6), st.lists(WORDS | st.just("spleen"), min_size=1, max_size=6))
def test_the_ceiling_is_what_the_best_answers_of_train_get(known: list[str], answers: list[str]) -> None:
    found = highest_marks(np.unique(known), np.array(answers))
    for column in ("correct", "token_f1", "token_recall"):
        each = [marks(np.array([one] * len(answers)), np.array(answers))[column] for one in known]
        np.testing.assert_allclose(found[column], np.max(each, axis=0))


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


def test_same_question_answers() -> None:
    train = table(*[("open", "side", answer) for answer in ("left", "right", "right", "both", "left")])
    train = replace(train, question=np.array(["Which side?", "which side", "Which side?", "Where?", "Where is it?"]))
    test = table(*[("open", "side", "?")] * 3)
    test = replace(test, question=np.array(["Which side", "WHERE?", "Whose?"]))
    assert same_question_answers(train, test, np.array(["a", "b", "c"])).tolist() == ["right", "both", "c"]


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
    found = sighted(dataset, Bits(dataset), head=head, epochs=30)
    assert values(found)["accuracy"] > 0.97
    assert found.chance["accuracy"] == 0.5


@pytest.mark.parametrize("head", ["product", "bilinear"])
def test_the_question_alone_is_answered_as_if_all_images_were_the_same(head: str) -> None:
    """Where the question tells the answer, the head on the question alone finds it, and the image adds nothing."""
    dataset = bits()

    class Blank(RandomEncoder):
        def encode_images(self, images: Any) -> Encoded:
            encoded = super().encode_images(images)
            return Encoded(np.full_like(encoded.features, 3), encoded.embeddings)

    seen = measured(dataset, Bits(dataset), head=head)
    other = measured(dataset, RandomEncoder(width=6), head=head)
    blank = measured(dataset, Blank(width=6), head=head)
    for found in (seen, other):
        np.testing.assert_array_equal(found.examples["correct_by_question_only"], blank.examples["correct"])
        gain = found.examples["correct"].astype(int) - blank.examples["correct"]
        np.testing.assert_array_equal(found.examples["gain"], gain)
        assert values(found)["accuracy_gain"] == pytest.approx(gain.mean())
        assert found.blind["question only"]["accuracy"] == blank.examples["correct"].mean()
        assert found.blind["question only"]["accuracy_closed"] == blank.examples["correct"].mean()
    assert values(blank)["accuracy_gain"] == 0
    assert values(seen)["accuracy_gain"] > 0.3
    for records in dataset.prepared.values():
        for answers in records.answer:
            answers[:] = ["yes", "no"]
    told = measured(dataset, Bits(dataset), head=head)
    assert told.blind["question only"]["accuracy"] == told.blind["same question"]["accuracy"] == 1
    assert told.majority["accuracy"] == 0.5
    assert values(told)["accuracy_gain"] <= 0


def test_guesses_and_ceilings_of_every_column() -> None:
    dataset = fake_dataset()
    train = dataset.prepared["train"]
    dataset.prepared["train"] = take(train, np.flatnonzero(train.label != 3), "no fig")
    for records in dataset.prepared.values():
        for answers in records.answer:
            answers[1] = f"ripe {answers[1]}"
    found = measured(dataset, RandomEncoder(), epochs=1)
    columns = {"accuracy", "accuracy_open", "accuracy_closed", "token_f1_open", "token_recall_open"}
    assert set(found.metrics) == columns | {"accuracy_gain", "zero_shot_accuracy"}
    assert set(found.majority) == columns | {"zero_shot_accuracy"}
    for guess in found.blind.values():
        assert set(guess) == columns
    assert list(found.blind) == ["question only", "same question"]
    # An apple, or another fruit, shares one word of two with the fig.
    assert found.ceiling == pytest.approx(
        {
            "accuracy": (1 + 0.75) / 2,
            "accuracy_open": 0.75,
            "accuracy_closed": 1,
            "token_f1_open": 0.75 + 0.25 / 2,
            "token_recall_open": 0.75 + 0.25 / 2,
            "zero_shot_accuracy": (1 + 0.75) / 2,
        }
    )
    pairs = zip(found.examples["predicted"], found.examples["answer"])
    open_ones = [(predicted, answer) for predicted, answer in pairs if "ripe" in answer]
    assert values(found)["token_f1_open"] == pytest.approx(
        np.mean([(one == other) + (one != other) * ("ripe" in one) / 2 for one, other in open_ones])
    )
    # Each type of question is one question here.
    zero_shot = {"zero_shot_accuracy": found.majority["accuracy"]}
    assert found.blind["same question"] | zero_shot == found.majority


def test_features_after_the_projection() -> None:
    dataset = bits()

    class Swapped(Bits):
        def encode_images(self, images: Any) -> Encoded:
            encoded = super().encode_images(images)
            return Encoded(encoded.embeddings, encoded.features)

    assert values(sighted(dataset, Swapped(dataset), features="after", epochs=30))["accuracy"] > 0.97


def test_scale_and_offset_of_the_features_change_nothing() -> None:
    dataset = bits()

    class Rescaled(Bits):
        def encode_images(self, images: Any) -> Encoded:
            encoded = super().encode_images(images)
            features = encoded.features * 1000 + 300
            return Encoded(np.concatenate([features, np.ones((len(features), 1), np.float32)], 1), encoded.embeddings)

    assert values(sighted(dataset, Rescaled(dataset), epochs=30))["accuracy"] > 0.97


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
    assert found.ceiling["accuracy"] == pytest.approx((1 + 0.75) / 2)
    assert found.notes["vocabulary"] == 5
    assert not found.examples["correct"][found.examples["answer"] == "fig"].any()
    assert values(found)["accuracy"] <= found.ceiling["accuracy"]


def test_answers_are_compared_normalised() -> None:
    dataset = bits()
    encoder = Bits(dataset)
    plain = sighted(dataset, encoder, epochs=4)
    for records in dataset.prepared.values():
        for i, answers in enumerate(records.answer):
            answers[:] = [("{}", "The {}.", " {}")[i % 3].format(answer.upper()) for answer in answers]
    written = sighted(dataset, encoder, epochs=4)
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


def test_zero_shot_is_left_out_where_it_costs_too_much_and_the_notes_say_so() -> None:
    found = measured(fake_dataset(), RandomEncoder(), epochs=1, max_statements=5)
    assert "zero_shot_accuracy" not in found.metrics | found.chance | found.ceiling
    assert found.notes["statements"] == 6
    reason = "it compares 6 statements, more than vqa.max_statements (5)"
    assert found.notes["missing"] == {"zero_shot_accuracy": reason}
    assert "missing" not in measured(fake_dataset(), RandomEncoder(), epochs=1, max_statements=6).notes


@pytest.mark.parametrize("statement", ["{question} {answer}", "{answer}"])
def test_zero_shot_takes_bounded_memory(statement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the two questions, one has four candidates and one two."""
    passed: list[int] = []

    class Counting(RandomEncoder):
        def encode_texts(self, texts: Any) -> Encoded:
            passed.append(len(texts))
            return super().encode_texts(texts)

    whole = measured(fake_dataset(), RandomEncoder(), epochs=1, statement=statement)
    monkeypatch.setattr(vqa, "STATEMENTS", 4)
    data = evaluation(Counting(), fake_dataset())
    (found,) = vqa.VQA(vqa.VQA.Config(epochs=1, statement=statement)).evaluate(data, 0)
    np.testing.assert_array_equal(found.examples["correct_zero_shot"], whole.examples["correct_zero_shot"])
    questions, *statements = passed
    assert questions == 2
    assert sorted(statements) == [2, 4]
    assert found.notes["statements"] == 6
    assert len([name for name in data._encoded if name.startswith("texts")]) == 1  # the questions, not the statements


def test_statements_of_answers_alone_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vqa, "STATEMENTS", 2)
    test = table(*[("open", "side", "?")] * 5)
    test = replace(test, question=np.array(["a", "b", "c", "d", "e"]))
    candidates = [["left", "right", "both"]] * 5
    ((rows, number),) = vqa.statement_chunks(test, candidates, "{answer}")
    assert rows == [0, 1, 2, 3, 4]
    assert list(number) == ["left", "right", "both"]
    assert vqa.count_statements(test, candidates, "{answer}") == 3
    chunks = vqa.statement_chunks(test, candidates, "{question} {answer}")
    assert [rows for rows, _ in chunks] == [[0], [1], [2], [3], [4]]
    assert vqa.count_statements(test, candidates, "{question} {answer}") == 15


def test_the_best_epoch_on_val_is_kept() -> None:
    """With val answers that are all the same, the epoch is kept that gives this answer most often."""
    dataset = bits()
    encoder = Bits(dataset)
    for answers in dataset.prepared["val"].answer:
        answers[:] = ["yes", "yes"]
    found = sighted(dataset, encoder, epochs=12)
    assert found.notes["epoch"] < 12
    without = replace(dataset, prepared={k: v for k, v in dataset.prepared.items() if k != "val"})
    assert sighted(without, encoder, epochs=12).notes["epoch"] == 12
    for column in (
        dataset.prepared["val"].question,
        dataset.prepared["val"].answer,
        dataset.prepared["val"].answer_type,
        dataset.prepared["val"].question_type,
    ):
        column[:] = [[] for _ in column]
    assert sighted(dataset, encoder, epochs=12).notes["epoch"] == 12


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
    perfect = dict.fromkeys(["accuracy", "accuracy_closed", "zero_shot_accuracy"], 1.0)
    assert values(found) == perfect | {"accuracy_gain": 0.0} == found.chance
