"""Zero-shot classification against open_clip's classifier and by hand."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from benchmark.tasks.zero_shot import ZeroShot, class_embeddings, class_scores

from benchmark.common.errors import BenchError
from benchmark.evaluation.encoder import Encoded
from benchmark.evaluation.measurement import Measurement
from benchmark.evaluation.probe import rare_classes
from tests.tasks.fakes import CLASSES, FakeCard, FakeDataset, RandomEncoder, evaluation, fake_dataset, with_columns


def measured(dataset: FakeDataset, rare_below: int = 100) -> Measurement:
    (found,) = ZeroShot(ZeroShot.Config(rare_below)).evaluate(evaluation(RandomEncoder(), dataset), 0)
    return found


class Lengths(RandomEncoder):
    """Embeddings that are not of unit length: an average that does not normalise first gives them unequal weight."""

    def encode_texts(self, texts: Sequence[str]) -> Encoded:
        encoded = super().encode_texts(texts)
        return Encoded(
            encoded.features, encoded.embeddings * np.array([[1.0 + len(text)] for text in texts], np.float32)
        )


def test_class_embeddings_are_those_of_open_clip() -> None:
    encoder, dataset = Lengths(), fake_dataset()
    templates = ["a {}", "a picture of a {}", "{}"]
    texts = [template.format(name) for name in CLASSES for template in templates]

    class Model(torch.nn.Module):
        def encode_text(self, tokens: torch.Tensor, normalize: bool) -> torch.Tensor:
            embeddings = torch.tensor(encoder.encode_texts([texts[i] for i in tokens]).embeddings)
            return torch.nn.functional.normalize(embeddings, dim=-1) if normalize else embeddings

    expected = open_clip.build_zero_shot_classifier(
        Model(),
        lambda batch: torch.tensor([texts.index(text) for text in batch]),
        classnames=CLASSES,
        templates=[lambda name, t=t: t.format(name) for t in templates],
    )
    prompts = [[template.format(name) for template in templates] for name in CLASSES]
    found = class_embeddings(evaluation(encoder, dataset), prompts)
    np.testing.assert_allclose(found, expected.numpy().T, atol=1e-6)


def test_classes_may_have_different_numbers_of_prompts() -> None:
    data = evaluation(RandomEncoder(), fake_dataset())
    found = class_embeddings(data, [["x"], ["y", "z", "w"], ["x", "y"]])
    for row, prompts in zip(found, (["x"], ["y", "z", "w"], ["x", "y"])):
        mean = data.texts(prompts).embeddings.mean(axis=0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)


def test_the_nearest_class_is_predicted() -> None:
    dataset = fake_dataset()
    encoder, test = RandomEncoder(), dataset.prepared["test"]
    images = encoder.encode_images(torch.tensor(test.images)).embeddings
    classes = class_embeddings(evaluation(encoder, dataset), [[f"a {c}", f"a picture of a {c}"] for c in CLASSES])
    found = measured(dataset)
    assert found.examples["id"].tolist() == test.ids
    assert found.examples["group"].tolist() == test.groups
    nearest = (images @ classes.T).argmax(axis=1)
    np.testing.assert_array_equal(found.examples["predicted"], nearest)
    assert found.metrics["accuracy"](found.examples) == pytest.approx(np.mean(nearest == test.label))


def test_findings_are_scored_by_pairs_of_prompts() -> None:
    dataset = fake_dataset(multi_label=True)
    data, test = evaluation(RandomEncoder(), dataset), dataset.prepared["test"]
    present = class_embeddings(data, [[f"a {c}", f"a picture of a {c}"] for c in CLASSES])
    absent = class_embeddings(data, [[f"no {c}", f"a picture without {c}"] for c in CLASSES])
    images = data.images("test").embeddings
    found = measured(dataset)
    for c, name in enumerate(CLASSES):
        expected = [image @ present[c] - image @ absent[c] for image in images]
        np.testing.assert_allclose(found.examples[f"score/{name}"], expected, atol=1e-6)
        np.testing.assert_array_equal(found.examples[f"label/{name}"], test.label[:, c])


def test_confidence_has_the_learned_temperature() -> None:
    cold, hot = RandomEncoder(), RandomEncoder()
    cold.temperature_scale, hot.temperature_scale = 100.0, 0.001
    confidences = []
    for encoder in (cold, hot):
        (found,) = ZeroShot(ZeroShot.Config()).evaluate(evaluation(encoder, fake_dataset()), 0)
        confidences.append(found.examples["confidence"])
    assert confidences[0].mean() > 0.9
    np.testing.assert_allclose(confidences[1], 0.25, atol=1e-3)


def test_primary_is_accuracy_or_auroc() -> None:
    assert ZeroShot.primary_for(FakeCard()) == "accuracy"
    assert ZeroShot.primary_for(FakeCard(multi_label=True)) == "macro_auroc"


def test_no_prompts_is_an_error() -> None:
    dataset = fake_dataset()
    with pytest.raises(BenchError, match="no prompts"):
        measured(replace(dataset, card=FakeCard(prompts=None)))


def test_rare_classes_are_those_of_train() -> None:
    dataset = fake_dataset()
    data = evaluation(RandomEncoder(), dataset)
    assert rare_classes(data, 60) == frozenset() == rare_classes(data, 61)
    train = dataset.prepared["train"]
    label = train.label.copy()
    label[np.flatnonzero(label == 1)[:50]] = 0
    unbalanced = replace(dataset, prepared=dataset.prepared | {"train": with_columns(train, label=label.tolist())})
    assert rare_classes(evaluation(RandomEncoder(), unbalanced), 60) == {CLASSES[1]}
    found = measured(unbalanced, rare_below=60)
    assert found.notes["rare"] == [CLASSES[1]]
    assert found.metrics["rare_recall"](found.examples) == pytest.approx(found.notes["recall"][CLASSES[1]])
    only_test = fake_dataset(sizes={"test": 40})
    assert "rare_recall" not in measured(only_test).metrics


def test_compared_by_tokens_a_class_has_the_mean_of_its_prompts_scores() -> None:
    class Tokens(RandomEncoder):
        def encode_images(self, images: torch.Tensor) -> Encoded:
            encoded = super().encode_images(images)
            return Encoded(encoded.features, encoded.embeddings, np.stack([encoded.embeddings, -encoded.embeddings], 1))

        def encode_texts(self, texts: Sequence[str]) -> Encoded:
            encoded = super().encode_texts(texts)
            return Encoded(encoded.features, encoded.embeddings, encoded.embeddings[:, None])

    data = evaluation(Tokens(), fake_dataset())
    prompts = [["x", "y"], ["z"], ["x", "v", "w"]]
    images = data.images("test").tokens
    assert images is not None
    found = class_scores(data, prompts)
    for i in (0, 7):
        for c, of_class in enumerate(prompts):
            texts = data.texts(of_class).embeddings.astype(np.float64)
            scores = [np.mean([max(token @ text for text in [text]) for token in images[i]]) for text in texts]
            assert found[i, c] == pytest.approx(np.mean(scores), abs=1e-9)
