"""The contract of a pretraining method."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from benchmark.common.errors import BenchError, described
from benchmark.common.ranges import SameText
from benchmark.config.training import Training
from benchmark.data.batch import Batch
from benchmark.losses import Targets
from benchmark.models import DualEncoder, Tokenizer
from benchmark.models.tower import Group
from benchmark.registry import Registry

LOSS_SETTINGS = frozenset({"same_text", "label_smoothing"})
"""The training settings that only change losses, those of the methods that follow them."""
Accumulation = Literal["plain", "cached", "keyed"]
Embeddings = dict[str, Tensor]
Keys = dict[str, Tensor]


@dataclass
class Output:
    """The result of forward() for a micro-batch of b pairs.

    embeddings: what contrast() compares across samples, each [b, D], or [b, T, D] to compare tokens; unit length. Empty
        for a method without a contrastive term.
    losses: terms that decompose over samples (captioning, reconstruction), each a weighted mean over the micro-batch.
    """

    embeddings: Embeddings
    losses: dict[str, Tensor] = field(default_factory=dict)


class Method(nn.Module):
    """A pretraining method: a dual encoder, any further modules that it trains, and a loss.

    A subclass must define contrast(); everything else has a default. Gradient accumulation is the harness's job: it
    calls forward() on micro-batches and contrast() on the embeddings of the effective batch (``cached``), of a
    micro-batch against the keys of the effective batch (``keyed``), or of a micro-batch alone (``plain``).
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    inferred: ClassVar[str] = ""
    """Details that are inferred, not taken from a paper or from code; shown by ``bench list methods``."""
    trains: ClassVar[str] = "both towers and projections"
    """What the method trains; shown by ``bench list methods``."""
    extra: ClassVar[str] = "nothing"
    """What a step computes beyond clip's one forward and backward pass of each tower."""
    accumulation: ClassVar[tuple[Accumulation, ...]] = ("cached", "plain")
    """The accumulation modes that the method supports; the first is its default."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """What the method needs besides pairs, with its default config: "label", "image_tokens", "text_tokens",
    "causal_text" (a text tower with causal attention), "language_model" (a causal text tower that accepts adapters and
    virtual tokens; pretrained on texts first if the model card says so), "patch_dropout", "start_token" (a tokenizer
    that begins every text with one), "augmentation" (a training.augmentation that changes images). A plan rejects a
    method whose needs are not met."""
    abilities: ClassVar[frozenset[str]] = frozenset()
    """What the method can do besides encoding: "caption" (it implements write()), "late_interaction" (images and texts
    are compared token by token)."""

    follows: ClassVar[frozenset[str]] = frozenset()
    """The training settings for losses that the method's losses follow: "same_text" (those between images and texts, by
    targets()) and "label_smoothing" (those that are softmaxes, by targets() or ``smoothing``). A plan rejects a method
    that does not follow a setting which is not at its default."""

    @dataclass
    class Config:
        """The method's own hyperparameters, each with a default and a source."""

    def __init__(self, model: DualEncoder, config: Any) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.frozen: list[Group] = []
        self.epoch = 0.0
        """Epochs trained so far, with fractions; set by the loop before each step."""
        self.same_text: SameText = "negative"
        self.label_smoothing = 0.0
        """Of the training, as same_text; set by the loop when a stage begins."""

    @classmethod
    def needs_of(cls, config: Any) -> frozenset[str]:
        """Return what the method needs with ``config``; by default ``needs``, whatever the config."""
        return cls.needs

    @classmethod
    def cautions(cls, config: Any, training: Training, pairs: int | None, steps: int | None) -> list[str]:
        """Return warnings about these settings, one line each; by default none.

        ``bench plan`` and ``bench run`` print them. pairs: of the training data; steps: of the training; None where
        they are not known yet.
        """
        return []

    def setup(self, tokenizer: Tokenizer, classes: Sequence[str]) -> None:
        """Complete the method with what the data determine; by default does nothing.

        Called once after construction, before weights are loaded. tokenizer: the run's. classes: the names of the
        classes that Batch.label indexes; empty if the pairs have no labels.
        """

    def stages(self) -> dict[str, float]:
        """Return the training stages in order, each with its share of the budget; the shares sum to 1."""
        return {"pretrain": 1.0}

    def enter(self, stage: str) -> None:
        """Enter a training stage: set what it trains (``requires_grad``) and which loss it uses; change no weight.

        Called when a stage begins or resumes, and with the last stage before evaluation. Each stage has its own
        optimiser and learning-rate schedule.
        """

    def freeze(self, groups: Sequence[Group]) -> None:
        """Freeze these parts permanently: no gradient, and eval mode even when train() is called.

        Dropout is then inactive in them and running statistics stay fixed.
        """
        self.frozen = [*self.frozen, *groups]
        for group in groups:
            for part in group:
                part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training or eval mode; frozen parts stay in eval mode."""
        super().train(mode)
        for group in self.frozen:
            for part in group:
                if isinstance(part, nn.Module):
                    part.eval()
        return self

    def forward(self, batch: Batch, *, embeddings_only: bool = False) -> Output:
        """Encode one micro-batch. embeddings_only: losses are not used, skip them (first pass of ``cached``)."""
        return Output(
            {"image": self.model.encode_image(batch.view()), "text": self.model.encode_text(batch.tokens, batch.mask)}
        )

    def contrast(self, embeddings: Embeddings, keys: Keys) -> dict[str, Tensor]:
        """Compute the loss terms over the embeddings of n samples, each a mean over those n; their sum is minimised.

        keys: the results of keys() for the m samples of the effective batch, concatenated; ``text_hash``, int64 [m],
        equal for identical texts; and ``index``, int64 [n]: which of the m rows the n embeddings belong to.
        In eval mode: the loss by which the checkpoints of a training are compared.
        """
        raise NotImplementedError

    def targets(self, keys: Keys, further: Tensor | None = None) -> Targets:
        """Return which candidates the n samples of contrast() should find, by the training's settings for losses.

        Candidates are the m samples of the effective batch, then those with the text hashes ``further``, int64 [q].
        """
        index, twins = keys["index"], None
        if self.same_text != "negative":
            texts = keys["text_hash"]
            candidates = texts if further is None else torch.cat([texts, further])
            twins = (texts[index][:, None] == candidates).scatter(1, index[:, None], False)
        return Targets(index, twins, self.same_text == "positive", self.smoothing)

    @property
    def smoothing(self) -> float:
        """The label smoothing of softmax losses now: that of the training, 0 in eval mode."""
        return self.label_smoothing if self.training else 0.0

    @torch.no_grad()
    def keys(self, batch: Batch) -> Keys:
        """Compute gradient-free keys of a micro-batch, each [b, ...]; by default none."""
        return {}

    @torch.no_grad()
    def after_step(self, keys: Keys) -> None:
        """Update momentum teachers, queues or clamps after an optimiser step.

        keys: those of the effective batch, as for contrast() but without ``index``.
        """

    def encoder(self) -> DualEncoder:
        """Return the dual encoder that tasks evaluate."""
        return self.model

    def write(self, images: Tensor, tokenizer: Tokenizer, beams: int = 1) -> list[str]:
        """Write a text for each image, in eval mode; only for methods with the ability "caption".

        images: float [b, 3, image_size, image_size] in 0..1. beams: width of the beam search; 1 is greedy.
        """
        raise NotImplementedError

    @property
    def temperature_scale(self) -> float | Tensor:
        """The factor that turns cosines into logits (1 / temperature), for calibration and reports.

        Where it lies on the device, a scalar tensor: a training reads it with its losses, and otherwise waits for the
        device after every step.
        """
        return 1.0


def encoder_of(method: Method) -> DualEncoder:
    """Return the dual encoder that tasks evaluate. Raises ``BenchError`` for a method that returns something else."""
    encoder: object = method.encoder()
    if not isinstance(encoder, DualEncoder):
        title = METHODS.title(type(method))
        raise BenchError(f"{title}: encoder() must return a DualEncoder, found {described(encoder)}")
    return encoder


METHODS: Registry[Method] = Registry("method", Method, required=("contrast",))
register_method = METHODS.register
