"""Heads that compute once what questions share, against a loop over plain layers."""

from typing import Any

import numpy as np
import pytest
import torch
from benchmark.tasks.vqa import VQA, questions
from torch import Tensor, nn

from benchmark.common.seeding import stream, torch_seed
from tests.tasks.fakes import FakeDataset, RandomEncoder, evaluation, fake_dataset

WIDTH, SEED = 8, 3


class Plain(nn.Module):
    """The head on a row for each question; the layers are made in the order of its arguments."""

    def __init__(self, kind: str, inputs: int, answers: int) -> None:
        super().__init__()
        self.kind, w = kind, WIDTH
        if kind == "product":
            self.image = nn.Linear(inputs, w)
        self.question = nn.Linear(inputs, w)
        if kind == "bilinear":
            self.image_1, self.image_2, self.question_1, self.question_2, self.join_1, self.join_2 = (
                nn.Linear(*shape) for shape in (*[(inputs, w)] * 2, *[(w, w)] * 4)
            )
        joined = 3 * w if kind == "product" else w
        self.classify = nn.Sequential(nn.Linear(joined, 2 * w), nn.GELU(), nn.Dropout(0.4), nn.Linear(2 * w, answers))

    def forward(self, image: Tensor, question: Tensor) -> Tensor:
        if self.kind == "product":
            i, q = self.image(image), self.question(question)
            return self.classify(torch.cat([i, q, i * q], 1))
        q = self.question(question)
        q = q + self.join_1(torch.tanh(self.image_1(image)) * torch.tanh(self.question_1(q)))
        q = q + self.join_2(torch.tanh(self.image_2(image)) * torch.tanh(self.question_2(q)))
        return self.classify(q)


def standardised(train: np.ndarray, x: np.ndarray) -> Tensor:
    train = train.astype(np.float64)
    return torch.from_numpy((x - train.mean(0)) / train.std(0)).float()


def answered_by_a_loop(dataset: FakeDataset, kind: str, batch_size: int, blind: bool) -> tuple[np.ndarray, int]:
    """Train one head, a row of features for each question; return as VQA.answers() does for one."""
    encoder, data = RandomEncoder(), evaluation(RandomEncoder(), dataset)
    inputs: dict[str, Any] = {}
    asked = {split: questions(data, split) for split in ("train", "val", "test")}
    known = np.unique(asked["train"].question)
    for split, each in asked.items():
        images, texts = {}, {}
        for name in ("train", split):
            order = np.argsort(dataset.prepared[name].ids)
            images[name] = encoder.encode_images(torch.from_numpy(dataset.prepared[name].images[order])).features
        texts = encoder.encode_texts([str(q) for q in each.question]).features
        image = standardised(images["train"], images[split][each.image])
        text = standardised(encoder.encode_texts([str(q) for q in known]).features, texts)
        inputs[split] = (torch.zeros_like(image) if blind else image, text)
    vocabulary, target = np.unique(asked["train"].answer, return_inverse=True)
    targets = torch.from_numpy(target)
    with torch_seed(stream(SEED, "vqa", dataset.card.name)):
        head = Plain(kind, encoder.width, len(vocabulary))
        optimizer = torch.optim.AdamW(head.parameters(), 4e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4 * -(-len(targets) // batch_size))
        best, answers, kept = -1.0, np.array([]), 0
        for epoch in range(1, 5):
            head.train()
            for batch in torch.split(torch.randperm(len(targets)), batch_size):
                optimizer.zero_grad()
                nn.functional.cross_entropy(head(*(x[batch] for x in inputs["train"])), targets[batch]).backward()
                optimizer.step()
                schedule.step()
            head.eval()
            of_val = vocabulary[head(*inputs["val"]).argmax(1).numpy()]
            if (accuracy := float(np.mean(of_val == asked["val"].answer))) > best:
                best, kept, answers = accuracy, epoch, vocabulary[head(*inputs["test"]).argmax(1).numpy()]
    return answers, kept


@pytest.mark.parametrize("kind", ["product", "bilinear"])
@pytest.mark.parametrize("batch_size", [50, 200])
def test_heads_trained_together_answer_as_a_loop_over_plain_layers(kind: str, batch_size: int) -> None:
    """In large batches all images and words are read at once, in small ones a row for each question.

    Labels that no feature tells: a wrong draw of a unit or a batch changes some of the answers.
    """
    dataset = fake_dataset()
    for records in dataset.prepared.values():
        for i, asked in enumerate(records.question):
            asked[:] = [f"{question} {i % 60}" for question in asked]
    data = evaluation(RandomEncoder(), dataset)
    splits = {split: questions(data, split) for split in ("train", "val", "test")}
    config = VQA.Config(head=kind, batch_size=batch_size, width=WIDTH, epochs=4)
    seen, blind = VQA(config).answers(data, splits, SEED, (False, True))
    for (answers, epoch), without in ((seen, False), (blind, True)):
        expected, kept = answered_by_a_loop(dataset, kind, batch_size, without)
        np.testing.assert_array_equal(answers, expected)
        assert epoch == kept
    assert (seen[0] != blind[0]).any()
