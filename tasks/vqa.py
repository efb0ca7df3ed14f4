"""Visual question answering: a small head on image and question features, frozen or trained, chooses an answer."""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

import numpy as np
import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark import (
    BenchError,
    Encoded,
    Evaluation,
    Gallery,
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
from .pooled import ALL, At, Bilinear, Inputs, Pooled, Product
from .scale import Scale

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {word: str(number) for number, word in enumerate(DIGITS)}
ARTICLES = {"a", "an", "the"}
SPELLINGS = str.maketrans({**dict.fromkeys("‐‑‒–—−", "-"), **dict.fromkeys("≈∼∽", "~"), "⁄": "/", "×": "x"})
"""Characters that are written in several ways."""
DECIMAL = r"(?:\d+(?:\.\d+)*|(?<!\w)\.\d+)"
TOKEN = re.compile(
    rf"(?:(?<![\w%)-])-)?{DECIMAL}(?:[-/:]{DECIMAL})*(?:\++(?!\w))?"  # a number, with its sign
    r"|[<>≤≥~±%]"
    r"|[^\W_]+(?:\++(?!\w)|-(?=$|[,;/)]))?"  # a word; with its sign in "HER2+" and "HER2-"
)
"""What normalise() keeps of an answer."""
ROWS = 16_384
"""The most questions answered at a time."""
STATEMENTS = 4096
"""The most statements that are in memory at a time, unless one question has more."""
TRAINING = ("training, epochs", "training on questions alone, epochs")
"""What is said to be done, with the images and without."""
DEFINITIONS = {
    "accuracy": "is the share of all questions whose predicted answer is the data's, word for word after normalisation",
    "accuracy_open": "is the accuracy over the questions that the data call open (any answer in words)",
    "accuracy_closed": "is the accuracy over the questions that the data call closed (mostly yes or no)",
    "accuracy_gain": "is the accuracy minus that of the same head trained and tested on the questions alone, paired by "
    "question: not above 0, the image adds nothing",
    "token_f1_open": "is, over open questions, the mean F1 of the words of the predicted answer and of the data's",
    "token_recall_open": "is, over open questions, the mean share of the words of the data's answer that are predicted",
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
    of test answers that train has is the highest accuracy possible, the ceiling.
    accuracy_open, accuracy_closed: over the questions of that answer_type; the dataset defines what is closed, most
    often yes or no.
    token_f1_open, token_recall_open: the words that the predicted answer shares with the data's, see overlap(). Their
    ceiling is the mean over questions of the best that an answer of train gets.
    zero_shot_accuracy: without any training. The candidates are the answers of train to questions of the same
    answer_type and question_type; the one whose statement is nearest to the image is chosen.
    Majority is the score of train's most common answer to questions of the same question_type, and so is chance but
    in zero-shot, where it is that of a random candidate.

    Two guesses look at no image (blind baselines as in Goyal et al. 2017, arXiv:1612.00837). Question only: the same
    head, trained as the other is (weights at the start, batches, schedule, choice of the epoch), but with the image
    features 0 in all splits. Same question: train's most common answer to the same words; the majority where train
    lacks them. accuracy_gain: accuracy minus that of question only.
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
        there are more than max_statements. Each passes through the text tower once; they take little memory.
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
        max_statements: NonNegativeInt = 100_000

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
        (predicted, epoch), (question_only, _) = self.answers(data, splits, seed, (False, True))
        common = most_common_answers(train, test)
        guesses = {"question only": question_only, "same question": same_question_answers(train, test, common)}
        vocabulary = np.unique(train.answer)
        examples: dict[str, np.ndarray] = {
            "id": test.ids,
            "group": test.groups,
            "question_type": test.question_type,
            "answer": test.answer,
            "predicted": predicted,
            **marks(predicted, test.answer),
            "correct_by_most_common": common == test.answer,
            **{f"correct_by_{name.replace(' ', '_')}": answers == test.answer for name, answers in guesses.items()},
            "open": test.answer_type == "open",
            "closed": test.answer_type == "closed",
        }
        examples["gain"] = examples["correct"].astype(float) - examples["correct_by_question_only"]
        learned: dict[str, Metric] = {"accuracy": Mean("correct")}
        learned |= {f"accuracy_{kind}": Mean("correct", kind) for kind in ("open", "closed") if examples[kind].any()}
        if examples["open"].any():
            learned |= {f"{score}_open": Mean(score, "open") for score in ("token_f1", "token_recall")}

        def scores(of_answers: dict[str, np.ndarray]) -> dict[str, float]:
            return {name: metric(examples | of_answers) for name, metric in learned.items()}

        majority = scores(marks(common, test.answer))
        measurement = Measurement(
            examples,
            learned | {"accuracy_gain": Mean("gain", lowest=-1.0)},
            majority | {"accuracy_gain": 0.0},
            majority=majority,
            blind={name: scores(marks(answers, test.answer)) for name, answers in guesses.items()},
            ceiling=scores(highest_marks(vocabulary, test.answer)),
            notes={
                "vocabulary": len(vocabulary),
                "train_questions": len(train),
                "epoch": epoch,
                "definitions": DEFINITIONS,
                "breakdown": {"question_type": by_question_type(examples)},
            },
            gallery=Gallery("token_f1", "low", "question", answer="predicted", truth="answer", right="correct"),
        )
        self.add_zero_shot(measurement, data, train, test)
        yield measurement

    def answers(
        self, data: Evaluation, splits: dict[str, "Questions"], seed: int, blind: Sequence[bool]
    ) -> list[tuple[np.ndarray, int]]:
        """Train a head, or that of the protocol, for each of ``blind``: whether it gets no image, in all splits.

        Returns as learn() does. Heads on frozen pooled features are trained together.
        """
        config = self.config
        learn = self.learn_mevf_ban if config.protocol == "roy2024" else self.learn
        together = config.protocol == "pooled" and config.towers == "frozen" and config.head != "ban"
        answered: list[tuple[np.ndarray, int]] = []
        try:
            for heads in [tuple(blind)] if together else [(each,) for each in blind]:
                # The seeds are the same with and without images, and so are initial weights, batches and dropout.
                with torch_seed(stream(seed, "vqa", data.card.name)):
                    answered += learn(data, splits, heads)
        except torch.cuda.OutOfMemoryError as error:
            if together:
                raise
            raise BenchError("out of GPU memory; lower vqa.micro_batch") from error
        return answered

    def add_zero_shot(self, measurement: Measurement, data: Evaluation, train: "Questions", test: "Questions") -> None:
        """Add zero_shot_accuracy, or say in the notes why it is missing."""
        candidates, limit = candidate_answers(train, test), self.config.max_statements
        count = count_statements(test, candidates, self.config.statement)
        measurement.notes["statements"] = count
        if count > limit:
            measurement.notes["missing"] = {
                "zero_shot_accuracy": f"it compares {count:,} statements, more than vqa.max_statements ({limit:,})"
            }
            return
        possible = [answer in answers for answer, answers in zip(test.answer, candidates)]
        measurement.examples["correct_zero_shot"] = zero_shot(data, test, candidates, self.config.statement)
        measurement.metrics["zero_shot_accuracy"] = Mean("correct_zero_shot")
        measurement.ceiling["zero_shot_accuracy"] = float(np.mean(possible))
        # A candidate like the others, and one that needs no image.
        measurement.majority["zero_shot_accuracy"] = measurement.majority["accuracy"]
        measurement.chance["zero_shot_accuracy"] = float(
            np.mean([right / len(answers) for right, answers in zip(possible, candidates)])
        )

    def learn(
        self, data: Evaluation, splits: dict[str, "Questions"], blind: Sequence[bool]
    ) -> list[tuple[np.ndarray, int]]:
        """Train a head for each of ``blind``, all with the same initial weights, batches and dropout.

        Returns, for each, the answer to each question of test, and the epoch whose weights were kept. blind: whether
        all image features are 0, the mean over train. A single one where towers are trained or the head reads tokens.
        """
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
        heads = [head, *(deepcopy(head) for _ in blind[1:])]

        def logits(number: int, split: str, at: Tensor, kept: Tensor | None = None) -> Tensor:
            read = features(split, at, blind[number])
            of_answers: Tensor = heads[number](read, kept) if isinstance(read, Inputs) else heads[number](*read)
            return of_answers

        @torch.no_grad()
        def answers(number: int, split: str) -> np.ndarray:
            heads[number].eval()
            every = torch.arange(len(splits[split]), device=device)
            chosen = [logits(number, split, at).argmax(1).cpu() for at in torch.split(every, rows)]
            return np.asarray(vocabulary[torch.cat(chosen).numpy()])

        of_towers = features.parameters()
        trained = [[*each.parameters(), *of_towers] for each in heads]
        optimizer = torch.optim.AdamW(
            [
                {"params": [weight for each in heads for weight in each.parameters()]},
                *([{"params": of_towers, "lr": config.tower_learning_rate}] if of_towers else []),
            ],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        steps = config.epochs * -(-len(targets) // config.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        best, epochs, of_best = [-1.0] * len(heads), [config.epochs] * len(heads), trained.copy()
        for epoch in range(1, config.epochs + 1):
            data.progress(TRAINING[all(blind)], epoch - 1, config.epochs)
            for each in heads:
                each.train()
            for batch in torch.split(torch.randperm(len(targets)).to(device), config.batch_size):
                optimizer.zero_grad()
                for part in torch.split(batch, micro_batch):
                    kept = head.draw(len(part)) if isinstance(head, Pooled) else None
                    losses = [
                        F.cross_entropy(logits(number, "train", part, kept), targets[part])
                        for number in range(len(heads))
                    ]
                    torch.autograd.backward(torch.stack(losses).sum() * (len(part) / len(batch)))
                optimizer.step()
                schedule.step()
            for loss in losses:
                if not loss.isfinite():
                    raise BenchError(
                        f"dataset '{data.card.name}': the loss is {loss:g} after epoch {epoch}, expected a finite "
                        "number; lower vqa.learning_rate or vqa.tower_learning_rate"
                    )
            for number, weights in enumerate(trained) if "val" in splits else ():
                accuracy = float(np.mean(answers(number, "val") == splits["val"].answer))
                if accuracy > best[number]:
                    best[number], epochs[number] = accuracy, epoch
                    of_best[number] = [weight.detach().clone() for weight in weights]
        with torch.no_grad():
            for weights, values in zip(trained, of_best):
                for weight, value in zip(weights, values):
                    weight.copy_(value)
        return [(answers(number, "test"), epoch) for number, epoch in enumerate(epochs)]

    def learn_mevf_ban(
        self, data: Evaluation, splits: dict[str, "Questions"], heads: Sequence[bool]
    ) -> list[tuple[np.ndarray, int]]:
        """Train the head of Roy et al. 2024 and both towers. Returns as learn() does.

        heads: a single one; whether all image features and grey images are 0.
        """
        (blind,) = heads
        encoder = trainable_copy(data, "vqa.protocol=roy2024")
        device = torch.device(getattr(encoder, "device", "cpu"))
        images = {split: (data.records(split).images, by_id(data, split)) for split in ("train", "test")}

        def inputs(split: str, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            rows, (pixels, order) = at.cpu().numpy(), images[split]
            shown = torch.from_numpy(np.array(pixels[order[splits[split].image[rows]]]))
            words = encoder.projected_words(splits[split].question[rows].tolist(), mevf_ban.TOKENS).float()
            if blind:
                side = mevf_ban.SIDE
                return words.new_zeros(len(rows), width), words, words.new_zeros(len(rows), 1, side, side)
            return encoder.projected_images(shown).float(), words, mevf_ban.grey(shown.to(device))

        vocabulary, target = np.unique(splits["train"].answer, return_inverse=True)
        width = data.images("test").embeddings.shape[1]
        head = mevf_ban.MevfBan(width, len(vocabulary)).to(device)
        weights = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
        loss = mevf_ban.train(
            head,
            weights,
            partial(inputs, "train"),
            torch.from_numpy(target).to(device),
            self.config.micro_batch,
            partial(data.progress, TRAINING[blind]),
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
        return [(np.asarray(vocabulary[torch.cat(chosen).numpy()]), mevf_ban.EPOCHS)]


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

    def __call__(self, split: str, at: Tensor, blind: bool) -> Inputs:
        """Return what a head reads of the questions ``at`` int64 [b] of a split. blind: all image features are 0."""
        image, text = self.image[split], self.text
        image_at: At
        text_at: At
        image_at, text_at = (x[at] for x in self.rows[split])
        # A head that reads all there are reads no more than those of the questions.
        if len(text) > len(at):
            text, text_at = text[text_at], ALL
        if blind:
            return Inputs(torch.zeros_like(image[:1]), ALL, text, ALL, text_at)
        if len(image) > len(at):
            image, image_at = image[image_at], ALL
        return Inputs(image, image_at, text, text_at, ALL)

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

    def __call__(self, split: str, at: Tensor, blind: bool) -> Inputs:
        """Encode the images and the words of the questions ``at`` int64 [b] of a split."""
        asked = self.splits[split]
        rows = at.cpu().numpy()
        # An image and a text that several of the questions share pass through the towers once.
        images, image_at = np.unique(asked.image[rows], return_inverse=True)
        texts, text_at = np.unique(asked.question[rows], return_inverse=True)
        text = self.text_scale.of(self.encoder.text_outputs(texts.tolist())[self.of_stage])
        text_of = torch.from_numpy(text_at).to(self.device)
        if blind:
            return Inputs(text.new_zeros(1, self.widths[0]), ALL, text, ALL, text_of)
        pixels, order = self.images[split]
        outputs = self.encoder.image_outputs(torch.from_numpy(np.array(pixels[order[images]])))
        image = self.image_scale.of(outputs[self.of_stage])
        return Inputs(image, torch.from_numpy(image_at).to(self.device), text, text_of, ALL)

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


@lru_cache(2**16)
def normalise(answer: str) -> str:
    """Normalise an answer, so that answers with the same meaning compare as equal, and only those.

    Lower case, without articles and punctuation, zero to ten as digits, after the evaluation code of VQA (Antol et al.
    2015, arXiv:1505.00468; GT-Vision-Lab/VQA, vqaEval.py). That code drops the signs of numbers, which change what an
    answer says; here ``<``, ``>``, ``≤``, ``≥``, ``±``, ``~``, minus and ``%`` stay, as do ratios, ranges and the signs
    of "HER2+" and "HER2-". Numbers are written the shortest way: 5 for 5.0, 0.5 for .5, 1000 for 1,000; units are not
    converted. "None" is "no", which it is in answer to what is present; VQA makes it 0, which counts say as "0" here.

    >>> normalise("The X-ray."), normalise("two"), normalise("1.50 cm"), normalise("< 5 %"), normalise("5 to 10 mm")
    ('x ray', '2', '1.5 cm', '<5 %', '5-10 mm')
    """
    text = unicodedata.normalize("NFKC", answer).translate(SPELLINGS).lower()
    for pattern, written in (
        (r">\s*=", "≥"),
        (r"<\s*=", "≤"),
        (r"\+(?:\s*/\s*)?-", "±"),
        (r"\bper\s*cent\b", "%"),
        (r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])", lambda number: number[0].replace(",", "")),
        (r"(?<=\d)(?:-|\s+-\s+)(?=\.?\d)|(?<=\d)\s+to\s+(?=\.?\d)", "-"),
        (r"(?<=\d)(?:x|\s+x\s+)(?=\.?\d)", " x "),
    ):
        text = re.sub(pattern, written, text)
    words = (re.sub(rf"(?<![\w.]){DECIMAL}(?![\w.])", shortest, token) for token in TOKEN.findall(text))
    kept = " ".join(NUMBERS.get(word, word) for word in words if word not in ARTICLES)
    kept = re.sub(r"(?<=[<>≤≥~±]) (?=[<>≤≥~±]|-?\d)", "", kept)
    return {"none": "no"}.get(kept, kept) or answer.strip().lower()


def shortest(number: "re.Match[str]") -> str:
    """Write a number without zeros at its ends: 5 for 05.0. A number with several points (1.2.3) stays."""
    whole, *parts = number[0].split(".")
    if len(parts) > 1:
        return number[0]
    return f"{whole.lstrip('0') or '0'}.{''.join(parts).rstrip('0')}".rstrip(".")


def marks(predicted: np.ndarray, answer: np.ndarray) -> dict[str, np.ndarray]:
    """Score predicted answers: the columns correct, bool [n], and token_f1 and token_recall, float64 [n]."""
    overlaps = np.array([overlap(*pair) for pair in zip(predicted, answer)])
    return {"correct": predicted == answer, "token_f1": overlaps[:, 0], "token_recall": overlaps[:, 1]}


@lru_cache(2**16)
def overlap(predicted: str, answer: str) -> tuple[float, float]:
    """Return F1 and recall of the words of a predicted answer, each counted as often as both answers have it.

    F1: as for SQuAD (Rajpurkar et al. 2016, arXiv:1606.05250). Recall: the score of LLaVA-Med for open questions (Li et
    al. 2023, arXiv:2306.00890).
    """
    words, right = Counter(predicted.split()), Counter(answer.split())
    if not words or not right:
        return float(words == right), float(words == right)
    shared = (words & right).total()
    return 2 * shared / (words.total() + right.total()), shared / right.total()


def highest_marks(vocabulary: np.ndarray, answer: np.ndarray) -> dict[str, np.ndarray]:
    """Return the highest score that an answer of the vocabulary can get in each column of marks(), for each answer."""
    answers_with: defaultdict[str, set[str]] = defaultdict(set)
    for known in vocabulary.tolist():
        for word in known.split():
            answers_with[word].add(known)
    correct = np.isin(answer, vocabulary)
    highest = dict.fromkeys(answer[correct].tolist(), (1.0, 1.0))
    for right in np.unique(answer[~correct]).tolist():
        near = {known for word in right.split() for known in answers_with.get(word, ())}
        f1, recall = zip((0.0, 0.0), *(overlap(known, right) for known in near))
        highest[right] = (max(f1), max(recall))
    f1, recall = np.array([highest[right] for right in answer.tolist()]).T
    return {"correct": correct, "token_f1": f1, "token_recall": recall}


def most_common_answers(train: Questions, test: Questions) -> np.ndarray:
    """Find, for each question of test, the most common answer of train to questions of its question_type.

    Of all answers, where train has no question of that type. Of several, the first in alphabetical order.
    """
    common = most_common([*zip(train.question_type, train.answer), *((None, answer) for answer in train.answer)])
    return np.array([common.get(question_type, common[None]) for question_type in test.question_type])


def same_question_answers(train: Questions, test: Questions, otherwise: np.ndarray) -> np.ndarray:
    """Find, for each question of test, the most common answer of train to the same words, after normalise().

    Where train does not ask that: the one of ``otherwise``, [n].
    """
    common = most_common(zip(map(normalise, train.question), train.answer))
    return np.array([common.get(normalise(asked), guess) for asked, guess in zip(test.question, otherwise)])


def most_common(answers: Iterable[tuple[str | None, str]]) -> dict[str | None, str]:
    """Find the most common answer of each key, from pairs of both; of several, the first in alphabetical order."""
    counts: defaultdict[str | None, Counter[str]] = defaultdict(Counter)
    for key, answer in answers:
        counts[key][answer] += 1
    return {key: min(count, key=lambda answer: (-count[answer], answer)) for key, count in counts.items()}


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


def count_statements(test: Questions, candidates: list[list[str]], statement: str) -> int:
    """Count the distinct statements that zero_shot() encodes."""
    lists: defaultdict[str, dict[int, list[str]]] = defaultdict(dict)
    for question, answers in zip(test.question, candidates):
        # candidate_answers() gives questions of the same types the same list.
        lists[question if "{question}" in statement else ""][id(answers)] = answers
    return sum(len(set().union(*of_question.values())) for of_question in lists.values())


def statement_chunks(
    test: Questions, candidates: list[list[str]], statement: str
) -> Iterator[tuple[list[int], dict[str, int]]]:
    """Share the questions out so that memory is bounded: rows of test, and the number of each statement they need.

    A chunk has at most STATEMENTS statements or, if these are more, those of one question.
    """
    rows: list[int] = []
    number: dict[str, int] = {}
    for row in np.argsort(test.question, kind="stable").tolist():
        new = [text for text in statements(statement, test.question[row], candidates[row]) if text not in number]
        if rows and new and len(number) + len(new) > STATEMENTS:
            yield rows, number
            rows, number = [], {}
            new = statements(statement, test.question[row], candidates[row])
        rows.append(row)
        for text in new:
            number.setdefault(text, len(number))
    yield rows, number


def statements(statement: str, question: str, answers: list[str]) -> list[str]:
    """Join a question with each answer."""
    asked = statement.replace("{question}", question)
    return [asked.replace("{answer}", answer) for answer in answers]


def zero_shot(data: Evaluation, test: Questions, candidates: list[list[str]], statement: str) -> np.ndarray:
    """Score each question, float64 [n]: 1 where the right answer's statement has the highest cosine with the image.

    Statements that tie share the 1.
    """
    images = data.images("test").embeddings[by_id(data, "test")]
    correct = np.zeros(len(test))
    for rows, number in statement_chunks(test, candidates, statement):
        embeddings = data.texts(list(number), keep=False).embeddings
        for row in rows:
            answers = candidates[row]
            at = [number[text] for text in statements(statement, test.question[row], answers)]
            cosines = embeddings[at] @ images[test.image[row]]
            best = cosines == cosines.max()
            if test.answer[row] in answers:
                correct[row] = best[answers.index(test.answer[row])] / best.sum()
    return correct


def by_question_type(examples: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Compute, for each question_type, the number of questions, their accuracy, and that of the guesses."""
    scores = {}
    for name in np.unique(examples["question_type"]):
        rows = examples["question_type"] == name
        scores[str(name)] = {
            "n": int(rows.sum()),
            "accuracy": float(examples["correct"][rows].mean()),
            "question only": float(examples["correct_by_question_only"][rows].mean()),
            "same question": float(examples["correct_by_same_question"][rows].mean()),
            "majority": float(examples["correct_by_most_common"][rows].mean()),
        }
    return scores
