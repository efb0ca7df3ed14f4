"""MSD: momentum self-distillation with a queue of momentum keys per modality. A reconstruction: see ``Msd``."""

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor, nn

from benchmark import Batch, DualEncoder, Embeddings, Interval, Keys, Method, Share, Training, register_method
from benchmark.losses import smoothed, soft_cross_entropy


@register_method("msd")
class Msd(Method):
    """Distil a student from its own momentum teacher, against keys of the batch and of a queue.

    With teacher keys v_m, t_m of the effective batch, queues Q_v, Q_t, candidates T = [t_m; Q_t], V = [v_m; Q_v]:

        y_i   = (1 - alpha) onehot(i) + alpha softmax(s v_m,i . T)
        loss  = (CE(softmax(s v_i . T), y_i) + the same for t_i against V) / 2,  mean over i; s learned
        then one optimiser step; teacher <- momentum teacher + (1 - momentum) student; enqueue v_m and t_m.

    A queue that is long relative to the data also holds older keys of pair i; these are excluded from its candidates.
    training.same_text applies to the keys in the queues as to those of the batch: onehot(i) becomes a share for each
    key of the same text (``positive``), or the others of them are excluded (``ignore``).

    Source: the idea is that of MSD, arXiv 2512.02438, whose code is not public. Queue, momentum, alpha, sub-batches and
    temperature follow the authors' earlier code (phphuc612/ABC, SOCOLA), the ramp of alpha follows ALBEF (arXiv
    2107.07651). How they fit together is inferred.
    """

    summary = "momentum self-distillation: soft targets from a momentum teacher, a queue of keys per modality"
    source = "MSD, arXiv 2512.02438; ALBEF, arXiv 2107.07651"
    trains = "both towers, projections and the temperature"
    extra = "a forward pass of the teacher, a second set of weights, the queues"
    inferred = (
        "how teacher, queues and soft targets fit together (the paper's code is not public); the teacher is in eval "
        "mode; the queues start empty; the log of the temperature is learned"
    )
    follows = frozenset({"same_text", "label_smoothing"})
    accumulation = ("keyed", "cached", "plain")

    @dataclass
    class Config:
        """Hyperparameters.

        The defaults are those of the authors' earlier code for the medical data (phphuc612/ABC), for trainings of many
        epochs. momentum 0, queue_size 0, alpha 0 is the scheme of the code that they published later (SOCOLA): the
        keys are the student's own, without gradient and in eval mode, and the targets are one-hot.

        targets: ``cross`` softmax(s v_m,i . T), ``intra`` softmax(s (v_m,i . V + t_m,i . T) / 2) on both sides,
            ``hard`` one-hot (alpha 0) [I].
        alpha: weight of the soft targets, 0..1 (0.4: the authors' earlier code, ALBEF).
        alpha_warmup: epochs over which alpha rises from 0 (ALBEF: 1).
        momentum: of the teacher, 0..1 (0.999: the authors' earlier code; ALBEF 0.995). 0: the teacher is the student.
        momentum_warmup: whether the momentum at step t is at most (1 + t) / (10 + t), as in timm's ModelEmaV3. The
            teacher then also moves in a short training, but the keys of the first steps, which stay in the queues,
            are from a teacher that changes a lot [I].
        queue_size: keys per queue, >= 0 (65536: the authors' earlier code).
        temperature: initial 1 / s (ALBEF: 0.07), clamped to temperature_range (the authors' earlier code, which learns
            it itself; its log, as in clip, moves by the same share at every temperature [I]).
        evaluate: which of the two encoders is evaluated [I].
        """

        targets: Literal["cross", "intra", "hard"] = "cross"
        alpha: Share = 0.4
        alpha_warmup: NonNegativeFloat = 1.0
        momentum: Share = 0.999
        momentum_warmup: bool = False
        queue_size: NonNegativeInt = 65536
        temperature: PositiveFloat = 0.07
        temperature_range: Interval = (0.001, 1.0)
        evaluate: Literal["student", "teacher"] = "student"

    @classmethod
    def cautions(cls, config: Config, training: Training, pairs: int | None, steps: int | None) -> list[str]:
        """Warn of keys from different teachers, a queue longer than the data, and a teacher that stays behind.

        Keys of a queue compare while queue_size / batch_size, the steps that it spans, is well below
        1 / (1 - momentum), those in which the teacher changes: at most half [I]. MoCo has a quarter (256 and 1,000).
        """
        size, momentum = config.queue_size, config.momentum
        memory = 1 / (1 - momentum) if momentum < 1 else math.inf
        cautions = []
        if (span := size / training.batch_size) > memory / 2:
            fitting = int(memory / 4) * training.batch_size
            cautions.append(
                f"the keys of a queue of {size:,} are of {span:,.0f} steps, and a teacher of momentum {momentum:g} "
                f"changes within {memory:,.0f}, so that they do not compare; set queue_size to "
                f"{f'{fitting:,} or less' if fitting else 0}, or raise momentum"
            )
        if pairs is not None and size > pairs:
            cautions.append(f"a queue of {size:,} keys is longer than the data, {pairs:,} pairs; lower queue_size")
        if steps is not None and not config.momentum_warmup and memory > steps / 4:
            cautions.append(
                f"a teacher of momentum {momentum:g} changes within {memory:,.0f} steps, so that in {steps:,} it stays "
                "close to the initial weights; lower momentum, or set momentum_warmup"
            )
        return cautions

    queue_image: Tensor
    queue_text: Tensor
    queue_row: Tensor
    queue_text_hash: Tensor
    queued: Tensor
    step: Tensor

    def __init__(self, model: DualEncoder, config: Config) -> None:
        super().__init__(model, config)
        self.teacher = deepcopy(model).requires_grad_(False).eval()
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))
        for side in ("image", "text"):
            self.register_buffer(f"queue_{side}", torch.zeros(config.queue_size, model.embed_dim))
        for name in ("row", "text_hash"):
            self.register_buffer(f"queue_{name}", torch.full((config.queue_size,), -1))
        self.register_buffer("queued", torch.tensor(0))
        self.register_buffer("step", torch.tensor(0))
        self._counts: dict[str, tuple[Tensor, int, int]] = {}

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the student; the teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.no_grad()
    def keys(self, batch: Batch) -> Keys:
        """Encode the micro-batch with the teacher."""
        return {
            "image": self.teacher.encode_image(batch.view()),
            "text": self.teacher.encode_text(batch.tokens, batch.mask),
            "row": batch.row,
        }

    def contrast(self, embeddings: Embeddings, keys: Keys) -> dict[str, Tensor]:
        """Return the loss terms.

        In eval mode targets are hard and the queues are not used. Alpha and the queues change during training, so this
        is what makes validation losses comparable between steps and with other methods.
        """
        index, scale = keys["index"], self.logit_scale.exp()
        images, texts = keys["image"], keys["text"]
        length = min(self._count("queued"), self.config.queue_size) if self.training else 0
        to_texts = torch.cat([texts, self.queue_text[:length].to(texts)]).T
        to_images = torch.cat([images, self.queue_image[:length].to(images)]).T
        older = keys["row"][index][:, None] == self.queue_row[:length]
        excluded = F.pad(older, (len(images), 0))
        targets = self.targets(keys, self.queue_text_hash[:length])
        right = targets.right(excluded.shape[1]) & ~excluded
        if targets.excluded is not None:
            excluded = excluded | targets.excluded

        def logits(queries: Tensor, candidates: Tensor) -> Tensor:
            return (scale * queries @ candidates).masked_fill(excluded, -torch.inf)

        def loss(queries: Tensor, candidates: Tensor, target: Tensor) -> Tensor:
            scores = logits(queries, candidates)
            return soft_cross_entropy(scores, smoothed(target, scores, targets.smoothing))

        with torch.no_grad():
            hard = right.to(texts) / right.sum(dim=1, keepdim=True)
            soft_image, soft_text = hard, hard
            if self.config.targets == "cross":
                soft_image = logits(images[index], to_texts).softmax(dim=-1)
                soft_text = logits(texts[index], to_images).softmax(dim=-1)
            elif self.config.targets == "intra":
                both = logits(images[index], to_images) + logits(texts[index], to_texts)
                soft_image = soft_text = (both / 2).softmax(dim=-1)
            target_image = hard.lerp(soft_image, self.alpha)
            target_text = hard.lerp(soft_text, self.alpha)
        image_loss = loss(embeddings["image"], to_texts, target_image)
        text_loss = loss(embeddings["text"], to_images, target_text)
        return {"contrastive": (image_loss + text_loss) / 2}

    @property
    def alpha(self) -> float:
        """Weight of the soft targets now: ramps up over alpha_warmup epochs, 0 in eval mode."""
        if not self.training:
            return 0.0
        ramp = self.epoch / self.config.alpha_warmup if self.config.alpha_warmup > 0 else 1.0
        return float(self.config.alpha * min(1.0, ramp))

    @torch.no_grad()
    def after_step(self, keys: Keys) -> None:
        """Clamp the temperature, move the teacher, and enqueue the keys."""
        low, high = self.config.temperature_range
        self.logit_scale.clamp_(-math.log(high), -math.log(low))
        self._follow()
        self._enqueue(keys)
        self._advance("step", 1)

    def _count(self, name: str) -> int:
        """Return a counter. A copy is kept until others change it, as reading it from a GPU waits for the GPU."""
        counter = self.get_buffer(name)
        tensor, version, count = self._counts.get(name, (None, 0, 0))
        if counter is not tensor or counter._version != version:
            count = int(counter)
            self._counts[name] = counter, counter._version, count
        return count

    def _advance(self, name: str, by: int) -> None:
        """Add to a counter."""
        count, counter = self._count(name) + by, self.get_buffer(name)
        counter += by
        self._counts[name] = counter, counter._version, count

    def _follow(self) -> None:
        """Move the teacher towards the student: parameters and floating buffers by momentum, other buffers copied."""
        step, momentum = self._count("step"), self.config.momentum
        if self.config.momentum_warmup:
            momentum = min(momentum, (1 + step) / (10 + step))
        student = [*self.model.parameters(), *self.model.buffers()]
        teacher = [*self.teacher.parameters(), *self.teacher.buffers()]
        floating = [(t, s) for t, s in zip(teacher, student) if t.is_floating_point()]
        torch._foreach_lerp_([t for t, _ in floating], [s for _, s in floating], 1 - momentum)
        for t, s in zip(teacher, student):
            if not t.is_floating_point():
                t.copy_(s)

    def _enqueue(self, keys: Keys) -> None:
        size = self.config.queue_size
        count = min(len(keys["row"]), size)
        rows = (self.queued + torch.arange(count, device=self.queued.device)) % max(1, size)
        for name in ("image", "text", "row", "text_hash"):
            queue = self.get_buffer(f"queue_{name}")
            queue[rows] = keys[name][len(keys[name]) - count :].to(queue)
        self._advance("queued", count)

    def encoder(self) -> DualEncoder:
        """Return the encoder that ``evaluate`` selects."""
        return self.teacher if self.config.evaluate == "teacher" else self.model

    @property
    def temperature_scale(self) -> Tensor:
        """The learned factor s on cosines."""
        return self.logit_scale.detach().exp()
