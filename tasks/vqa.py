"""Visual question answering: a small head on image and question features, frozen or trained, chooses an answer."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from benchmark import (
    BenchError,
    Encoded,
    Evaluation,
    Mean,
    Measurement,
    Metric,
    ShareBelowOne,
    Task,
    Trainable,
    register_task,
    stream,
    torch_seed,
)
from benchmark.probe import Stage

from . import mevf_ban
from .attention import Ban, Tokens
from .scale import Scale

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {word: str(number) for number, word in enumerate(DIGITS)}
ARTICLES = {"a", "an", "the"}
ROWS = 16_384
"""The most questions answered at a time."""
DEFINITIONS = {
    "accuracy": "is the share of all questions whose predicted answer is the data's",
    "accuracy_open": "is the accuracy over the questions that the data call open (any answer in words)",
    "accuracy_closed": "is the accuracy over the questions that the data call closed (mostly yes or no)",
    "zero_shot_accuracy": "is, without training, the share of questions for which the statement of the right answer is "
    "nearest to the image, among the answers that train gives to questions of the same types",
}


@register_task("vqa")
class VQA(Task):
    """Classify the answer to each question. The classes are the distinct answers of train, after normalise().

    A head on the standardised features of image and question learns the answers from train by AdamW; the epoch with the
    highest accuracy on val is kept (the last epoch where val has no questions).

    With ``towers: trained``, both towers of a copy of the model are trained along with the head (like the fine-tuned
    towers of Roy et al. 2024, arXiv:2406.07450), starting from the frozen ones; other tasks still see the original.
    They are trained whole, whatever the pretraining froze (partial_freeze, locked_image, locked_text): the task
    compares the weights that methods end with, and all get the same opportunity. Only a language model that adapters or
    virtual tokens tune from outside (cleft) stays frozen; the parts of it that its last stage trained are trained
    further. The features are the pooled ones, also for a method that compares tokens; the head ban reads tokens, also
    of a method that compares pooled ones. The towers stay in eval mode,
    without dropout or patch dropout and with the running statistics of batch normalisation, so that no answer depends
    on the other questions of its micro-batch, and micro-batches add up to the gradient of the batch. An encoder that is
    not made of a model has no towers to train, which raises ``BenchError``; among the baselines that is raw pixels,
    which are not evaluated on questions.

    With ``protocol: roy2024`` head and training are those of Roy et al. 2024, see mevf_ban: both towers are always
    trained, for 20 epochs, after which the last weights answer; val is not used. Questions are tokens of the model's
    own tokenizer, and images are normalised as in pretraining. (The code of Roy et al. numbers the words of a question
    by MEVF's dictionary, looks these numbers up among CLIP's tokens, and does not normalise images.) The auto-encoder
    starts from random weights, because those of MEVF, which Roy et al. start from, do not come with the harness [I].

    accuracy: the share of test questions with the right answer. An answer that train lacks is never given, so the share
    of test answers that train has (``ceiling`` in the notes) is the highest accuracy possible.
    accuracy_open, accuracy_closed: over the questions of that answer_type; the dataset defines what is closed, most
    often yes or no.
    zero_shot_accuracy: without any training. The candidates are the answers of train to questions of the same
    answer_type and question_type; the one whose statement is nearest to the image is chosen.
    Chance is the accuracy of train's most common answer to questions of the same question_type; in zero-shot, that of
    a random candidate.
    """

    summary = "A head on image and question features, frozen or trained along, chooses among the answers of train."
    source = (
        "answers as classes: VQA (Antol et al. 2015, arXiv:1505.00468); open and closed: VQA-RAD (Lau et al. 2018, "
        "doi:10.1038/sdata.2018.251); trained towers: Roy et al. 2024, arXiv:2406.07450"
    )
    primary = "accuracy"
    needs = frozenset({"question"})
    splits = ("train", "test")

    @dataclass
    class Config:
        """The options.

        protocol: pooled, the head and its training as the other options say; or roy2024, for which only micro_batch and
        those about statements matter.
        features: before or after the projection into the shared space.
        towers: "frozen", or "trained" along with the head.
        head: Product or Bilinear, of the pooled features; or Ban, whose attention reads the tokens of both, before the
        projection, from encoders that give them. width: the dimension that image and question are projected to.
        learning_rate: of the head; tower_learning_rate: of trained towers. Both fall to 0 along a cosine over the
        epochs.
        batch_size: questions a step. micro_batch: how many of these pass through trained towers, or through the head
        ban, at a time; it changes memory and time (and the units that the head's dropout draws), not the gradient.
        statement: made of a question and an answer, and compared with the image in zero-shot, which is left out where
        there are more than max_statements.
        """

        protocol: Literal["pooled", "roy2024"] = "pooled"
        features: Stage = "before"
        towers: Literal["frozen", "trained"] = "frozen"
        head: Literal["product", "bilinear", "ban"] = "product"
        width: PositiveInt = 128
        dropout: ShareBelowOne = 0.4
        epochs: PositiveInt = 12
        batch_size: PositiveInt = 256
        micro_batch: PositiveInt = 32
        learning_rate: PositiveFloat = 4e-3
        tower_learning_rate: PositiveFloat = 1e-4
        weight_decay: NonNegativeFloat = 0.05
        statement: str = "{question} {answer}"
        max_statements: NonNegativeInt = 10_000

    @classmethod
    def model_needs(cls, config: Config) -> frozenset[str]:
        """Return what the heads with attention read."""
        if config.protocol == "roy2024":
            return frozenset({"text_tokens"})
        return frozenset({"image_tokens", "text_tokens"} if config.head == "ban" else ())

    def evaluate(self, data: Evaluation, seed: int) -> Iterator[Measurement]:
        """Train the head on train, and answer the questions of test, with and without training."""
        of_splits = {split: questions(data, split) for split in data.splits() if split in ("train", "val", "test")}
        splits = {split: of_split for split, of_split in of_splits.items() if len(of_split)}
        for split in self.splits:
            if split not in splits:
                raise BenchError(f"dataset '{data.card.name}', {split}: no image has a question")
        train, test = splits["train"], splits["test"]
        try:
            with torch_seed(stream(seed, "vqa", data.card.name)):
                if self.config.protocol == "roy2024":
                    predicted, epoch = self.learn_mevf_ban(data, splits)
                else:
                    predicted, epoch = self.learn(data, splits)
        except torch.cuda.OutOfMemoryError as error:
            config = self.config
            if config.protocol == "pooled" and config.towers == "frozen" and config.head != "ban":
                raise
            raise BenchError("out of GPU memory; lower vqa.micro_batch") from error
        common = most_common_answers(train, test)
        examples: dict[str, np.ndarray] = {
            "id": test.ids,
            "group": test.groups,
            "question_type": test.question_type,
            "answer": test.answer,
            "predicted": predicted,
            "correct": predicted == test.answer,
            "correct_by_most_common": common == test.answer,
            "open": test.answer_type == "open",
            "closed": test.answer_type == "closed",
        }
        vocabulary = np.unique(train.answer)
        notes = {
            "ceiling": float(np.isin(test.answer, vocabulary).mean()),
            "vocabulary": len(vocabulary),
            "train_questions": len(train),
            "epoch": epoch,
            "definitions": DEFINITIONS,
            "breakdown": {"question_type": by_question_type(examples)},
        }
        trained = {"accuracy": Mean("correct")}
        trained |= {f"accuracy_{kind}": Mean("correct", kind) for kind in ("open", "closed") if examples[kind].any()}
        metrics: dict[str, Metric] = {**trained}
        majority = {name: Mean("correct_by_most_common", metric.where)(examples) for name, metric in trained.items()}
        chance = dict(majority)
        candidates = candidate_answers(train, test)
        statements = {
            (question, answer): self.config.statement.replace("{question}", question).replace("{answer}", answer)
            for question, answers in zip(test.question, candidates)
            for answer in answers
        }
        notes["statements"] = len(statements)
        if len(statements) <= self.config.max_statements:
            examples["correct_zero_shot"] = zero_shot(data, test, candidates, statements)
            metrics["zero_shot_accuracy"] = Mean("correct_zero_shot")
            chance["zero_shot_accuracy"] = float(
                np.mean([(answer in answers) / len(answers) for answer, answers in zip(test.answer, candidates)])
            )
        yield Measurement(examples, metrics, chance, notes=notes, majority=majority)

    def learn(self, data: Evaluation, splits: dict[str, "Questions"]) -> tuple[np.ndarray, int]:
        """Train the head. Returns the answer to each question of test, and the epoch whose weights were kept."""
        config = self.config
        frozen = config.towers == "frozen"
        features: Features | Tokens
        if config.head == "ban":
            features = tokens(data, splits, config)
        else:
            features = (Features if frozen else TrainedFeatures)(data, splits, config.features)
        whole = frozen and config.head != "ban"
        micro_batch, rows = (config.batch_size, ROWS) if whole else (config.micro_batch, data.batch_size)
        device = features.device
        vocabulary, target = np.unique(splits["train"].answer, return_inverse=True)
        targets = torch.from_numpy(target).to(device)
        build = {"product": Product, "bilinear": Bilinear, "ban": Ban}[config.head]
        head = build(*features.widths, config.width, len(vocabulary), config.dropout).to(device)

        @torch.no_grad()
        def answers(split: str) -> np.ndarray:
            head.eval()
            every = torch.arange(len(splits[split]), device=device)
            chosen = [head(*features(split, at)).argmax(1).cpu() for at in torch.split(every, rows)]
            return np.asarray(vocabulary[torch.cat(chosen).numpy()])

        of_head, of_towers = list(head.parameters()), features.parameters()
        trained = [*of_head, *of_towers]
        optimizer = torch.optim.AdamW(
            [{"params": of_head}, *([{"params": of_towers, "lr": config.tower_learning_rate}] if of_towers else [])],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        steps = config.epochs * -(-len(targets) // config.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        best, kept_epoch, kept = -1.0, config.epochs, trained
        for epoch in range(1, config.epochs + 1):
            head.train()
            for batch in torch.split(torch.randperm(len(targets)).to(device), config.batch_size):
                optimizer.zero_grad()
                for part in torch.split(batch, micro_batch):
                    loss = nn.functional.cross_entropy(head(*features("train", part)), targets[part])
                    torch.autograd.backward(loss * (len(part) / len(batch)))
                optimizer.step()
                schedule.step()
            if not loss.isfinite():
                raise BenchError(
                    f"dataset '{data.card.name}': the loss is {loss:g} after epoch {epoch}, expected a finite number; "
                    "lower vqa.learning_rate or vqa.tower_learning_rate"
                )
            if "val" in splits:
                accuracy = float(np.mean(answers("val") == splits["val"].answer))
                if accuracy > best:
                    best, kept_epoch, kept = accuracy, epoch, [weight.detach().clone() for weight in trained]
        with torch.no_grad():
            for weight, value in zip(trained, kept):
                weight.copy_(value)
        return answers("test"), kept_epoch

    def learn_mevf_ban(self, data: Evaluation, splits: dict[str, "Questions"]) -> tuple[np.ndarray, int]:
        """Train the head of Roy et al. 2024 and both towers. Returns as learn() does."""
        encoder = trainable_copy(data, "vqa.protocol=roy2024")
        device = torch.device(getattr(encoder, "device", "cpu"))
        images = {split: (data.records(split).images, by_id(data, split)) for split in ("train", "test")}

        def inputs(split: str, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            rows, (pixels, order) = at.cpu().numpy(), images[split]
            shown = torch.from_numpy(np.array(pixels[order[splits[split].image[rows]]]))
            words = encoder.projected_words(splits[split].question[rows].tolist(), mevf_ban.TOKENS)
            return encoder.projected_images(shown).float(), words.float(), mevf_ban.grey(shown.to(device))

        vocabulary, target = np.unique(splits["train"].answer, return_inverse=True)
        width = data.images("test").embeddings.shape[1]
        head = mevf_ban.MevfBan(width, len(vocabulary)).to(device)
        weights = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
        loss = mevf_ban.train(
            head, weights, partial(inputs, "train"), torch.from_numpy(target).to(device), self.config.micro_batch
        )
        if not math.isfinite(loss):
            raise BenchError(
                f"dataset '{data.card.name}': the loss is {loss:g} at the end of vqa.protocol=roy2024, whose rate is "
                "fixed; expected a finite number. vqa.protocol=pooled has rates that can be set."
            )
        head.eval()
        every = torch.arange(len(splits["test"]))
        with torch.no_grad():
            chosen = [head(*inputs("test", at))[0].argmax(1).cpu() for at in torch.split(every, data.batch_size)]
        return np.asarray(vocabulary[torch.cat(chosen).numpy()]), mevf_ban.EPOCHS


def trainable_copy(data: Evaluation, option: str) -> Trainable:
    """Copy the encoder to train it. Raises ``BenchError`` if it has no towers. option: the one that asks for it."""
    if not isinstance(data.encoder, Trainable):
        raise BenchError(
            f"{option}: a {type(data.encoder).__name__} has no towers that can be trained; expected an encoder that is "
            "made of a model. vqa.protocol=pooled with vqa.towers=frozen works with any encoder."
        )
    return data.encoder.copy()


class Features:
    """The encoder's features of questions and their images, standardised over train.

    widths: of the features of images and of questions. stage: before or after the projection.
    """

    def __init__(self, data: Evaluation, splits: dict[str, "Questions"], stage: Stage) -> None:
        self.device = torch.device(getattr(data.encoder, "device", "cpu"))
        asked = np.unique(np.concatenate([of_split.question for of_split in splits.values()]))
        images = {split: at_stage(data.images(split), stage)[by_id(data, split)] for split in splits}
        texts = at_stage(data.texts(asked.tolist()), stage)
        text_of = {split: np.searchsorted(asked, of_split.question) for split, of_split in splits.items()}
        self.image_scale, self.text_scale = Scale(images["train"]), Scale(texts[np.unique(text_of["train"])])
        self.widths = (images["train"].shape[1], texts.shape[1])
        self.image = {split: self.image_scale(x).to(self.device) for split, x in images.items()}
        self.text = self.text_scale(texts).to(self.device)
        self.rows = {
            split: (torch.from_numpy(of_split.image).to(self.device), torch.from_numpy(text_of[split]).to(self.device))
            for split, of_split in splits.items()
        }

    def __call__(self, split: str, at: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of the images, [b, Wi], and of the words, [b, Wt], of the questions ``at`` int64 [b]."""
        images_at, texts_at = (x[at] for x in self.rows[split])
        return self.image[split][images_at], self.text[texts_at]

    def parameters(self) -> list[nn.Parameter]:
        """List the weights that are trained along with the head."""
        return []


class TrainedFeatures(Features):
    """Features of a copy of the encoder that is trained along with the head, with a graph, in eval mode.

    They are standardised like the untrained features, which training starts from.
    """

    def __init__(self, data: Evaluation, splits: dict[str, "Questions"], stage: Stage) -> None:
        self.encoder = trainable_copy(data, "vqa.towers=trained")
        super().__init__(data, splits, stage)
        self.splits = splits
        self.of_stage = ("before", "after").index(stage)
        self.images = {split: (data.records(split).images, by_id(data, split)) for split in splits}

    def __call__(self, split: str, at: Tensor) -> tuple[Tensor, Tensor]:
        """Encode the images and the words of the questions ``at`` int64 [b] of a split."""
        asked = self.splits[split]
        rows = at.cpu().numpy()
        # An image and a text that several of the questions share pass through the towers once.
        images, image_of = np.unique(asked.image[rows], return_inverse=True)
        texts, text_of = np.unique(asked.question[rows], return_inverse=True)
        pixels, order = self.images[split]
        image = self.encoder.image_outputs(torch.from_numpy(np.array(pixels[order[images]])))[self.of_stage]
        text = self.encoder.text_outputs(texts.tolist())[self.of_stage]
        return self.image_scale.of(image)[image_of], self.text_scale.of(text)[text_of]

    def parameters(self) -> list[nn.Parameter]:
        """List the trainable weights of the copy."""
        return [parameter for parameter in self.encoder.parameters() if parameter.requires_grad]


def tokens(data: Evaluation, splits: dict[str, "Questions"], config: VQA.Config) -> Tokens:
    """Prepare the tokens that BAN reads. Raises ``BenchError`` for an encoder that has none."""
    if config.features != "before":
        raise BenchError(
            f"vqa.features={config.features}: vqa.head=ban reads tokens before the projection; expected before"
        )
    encoder: object = data.encoder
    weights: list[nn.Parameter] = []
    if config.towers == "trained":
        encoder = copy = trainable_copy(data, "vqa.towers=trained")
        weights = [parameter for parameter in copy.parameters() if parameter.requires_grad]

    def pixels(split: str, rows: list[int]) -> Tensor:
        return torch.from_numpy(np.array(data.records(split).images[order[split][rows]]))

    order = {split: by_id(data, split) for split in splits}
    return Tokens(encoder, pixels, splits, weights, data.batch_size)


def at_stage(encoded: Encoded, stage: Stage) -> np.ndarray:
    """Return features or embeddings."""
    return encoded.features if stage == "before" else encoded.embeddings


class Product(nn.Module):
    """Two layers on the projections of image and question and on their product.

    Antol et al. 2015 use the product alone.
    """

    def __init__(self, image: int, question: int, width: int, answers: int, dropout: float) -> None:
        super().__init__()
        self.image, self.question = nn.Linear(image, width), nn.Linear(question, width)
        self.classify = nn.Sequential(
            nn.Linear(3 * width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, answers)
        )

    def forward(self, image: Tensor, question: Tensor) -> Tensor:
        """Map features [b, Wi] and [b, Wt] to logits [b, answers]."""
        image, question = self.image(image), self.question(question)
        logits: Tensor = self.classify(torch.cat([image, question, image * question], 1))
        return logits


class Bilinear(nn.Module):
    """Low-rank bilinear pooling of one image vector and one question vector, without attention.

    MLB (Kim et al. 2017, arXiv:1610.04325): the product of both projections after tanh. Twice, each time added to the
    question that the next one reads, as the glimpses of BAN are: BAN, where image and question have a single token, has
    nothing to attend to. See attention.Ban for the attention.
    """

    def __init__(self, image: int, question: int, width: int, answers: int, dropout: float, glimpses: int = 2) -> None:
        super().__init__()
        self.question = nn.Linear(question, width)
        self.of_image = nn.ModuleList(nn.Linear(image, width) for _ in range(glimpses))
        self.of_question = nn.ModuleList(nn.Linear(width, width) for _ in range(glimpses))
        self.join = nn.ModuleList(nn.Linear(width, width) for _ in range(glimpses))
        self.classify = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, answers)
        )

    def forward(self, image: Tensor, question: Tensor) -> Tensor:
        """Map features [b, Wi] and [b, Wt] to logits [b, answers]."""
        state = self.question(question)
        for of_image, of_question, join in zip(self.of_image, self.of_question, self.join):
            pooled = torch.tanh(of_image(image)) * torch.tanh(of_question(state))
            state = state + join(pooled)
        logits: Tensor = self.classify(state)
        return logits


@dataclass(frozen=True)
class Questions:
    """The questions of a split, sorted by the id of their image and their number; each column is [n].

    image: the index of the image in the order of by_id(). ids: the image's id and the question's number ("scan-17/0").
    """

    ids: np.ndarray
    groups: np.ndarray
    image: np.ndarray
    question: np.ndarray
    answer: np.ndarray
    answer_type: np.ndarray
    question_type: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def questions(data: Evaluation, split: str) -> Questions:
    """Load all questions of a split, with normalised answers."""
    records = data.records(split)
    rows = [
        (f"{records.ids[i]}/{number}", records.groups[i], row, question, normalise(answer), answer_type, question_type)
        for row, i in enumerate(by_id(data, split))
        for number, (question, answer, answer_type, question_type) in enumerate(
            zip(records.question[i], records.answer[i], records.answer_type[i], records.question_type[i], strict=True)
        )
    ]
    return Questions(*(np.array(column) for column in zip(*rows))) if rows else Questions(*[np.array([])] * 7)


def by_id(data: Evaluation, split: str) -> np.ndarray:
    """Sort the images of a split by their ids, int [n], so that no result depends on the order of the files."""
    return np.argsort(np.array(data.records(split).ids))


def normalise(answer: str) -> str:
    """Normalise an answer, so that answers with the same meaning compare as equal.

    Lower case, without punctuation (except points and slashes inside numbers) or articles, and zero to ten as digits.
    After the evaluation code of VQA (Antol et al. 2015, arXiv:1505.00468).

    >>> normalise("The X-ray."), normalise("two"), normalise("1.5 cm")
    ('x ray', '2', '1.5 cm')
    """
    words = re.findall(r"\d+(?:[./]\d+)*|[^\W_]+", answer.lower())
    return " ".join(NUMBERS.get(word, word) for word in words if word not in ARTICLES) or answer.strip().lower()


def most_common_answers(train: Questions, test: Questions) -> np.ndarray:
    """Find, for each question of test, the most common answer of train to questions of its question_type.

    Of all answers, where train has no question of that type. Of several, the first in alphabetical order.
    """
    counts: defaultdict[str | None, Counter[str]] = defaultdict(Counter)
    for question_type, answer in zip(train.question_type, train.answer):
        counts[question_type][answer] += 1
        counts[None][answer] += 1
    common = {key: min(count, key=lambda answer: (-count[answer], answer)) for key, count in counts.items()}
    return np.array([common.get(question_type, common[None]) for question_type in test.question_type])


def candidate_answers(train: Questions, test: Questions) -> list[list[str]]:
    """List, for each question of test, the answers of train to questions of its answer_type and question_type.

    All answers, where train has no question of these types.
    """
    answers: defaultdict[tuple[str, str] | None, set[str]] = defaultdict(set)
    for answer_type, question_type, answer in zip(train.answer_type, train.question_type, train.answer):
        answers[answer_type, question_type].add(str(answer))
        answers[None].add(str(answer))
    ordered = {key: sorted(of_key) for key, of_key in answers.items()}
    return [ordered.get(key, ordered[None]) for key in zip(test.answer_type, test.question_type)]


def zero_shot(
    data: Evaluation, test: Questions, candidates: list[list[str]], statements: dict[tuple[str, str], str]
) -> np.ndarray:
    """Score each question, float64 [n]: 1 where the right answer's statement has the highest cosine with the image.

    Statements that tie share the 1.
    """
    texts = sorted(set(statements.values()))
    row = {text: i for i, text in enumerate(texts)}
    embeddings = data.texts(texts).embeddings
    images = data.images("test").embeddings[by_id(data, "test")]
    correct = np.zeros(len(test))
    for i, answers in enumerate(candidates):
        cosines = embeddings[[row[statements[test.question[i], answer]] for answer in answers]] @ images[test.image[i]]
        best = cosines == cosines.max()
        correct[i] = best[answers.index(test.answer[i])] / best.sum() if test.answer[i] in answers else 0.0
    return correct


def by_question_type(examples: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Compute, for each question_type, the number of questions, their accuracy, and that of the most common answer."""
    scores = {}
    for name in np.unique(examples["question_type"]):
        rows = examples["question_type"] == name
        scores[str(name)] = {
            "n": int(rows.sum()),
            "accuracy": float(examples["correct"][rows].mean()),
            "majority": float(examples["correct_by_most_common"][rows].mean()),
        }
    return scores
