"""The contract of a pretraining method."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from benchmark.data.batch import Batch
from benchmark.models import DualEncoder, Tokenizer
from benchmark.models.tower import Group
from benchmark.registry import Registry

Accumulation = Literal["plain", "cached", "keyed"]
Embeddings = dict[str, Tensor]
Keys = dict[str, Tensor]


@dataclass
class Output:
    """What forward() gives for a micro-batch of b pairs.

    embeddings: compared across samples by contrast(): each [b, D], or [b, T, D] where tokens are compared; unit length;
        none where nothing is.
    losses: terms that decompose over samples (captioning, reconstruction): each a weighted mean over the micro-batch.
    """

    embeddings: Embeddings
    losses: dict[str, Tensor] = field(default_factory=dict)


class Method(nn.Module):
    """A way of pretraining: a dual encoder, whatever else it trains, and its loss.

    The least a method must define is contrast(). It never sees accumulation: the harness calls forward() on
    micro-batches and contrast() on the embeddings of the effective batch (``cached``), or of a micro-batch against the
    keys of the effective batch (``keyed``), or of a micro-batch alone (``plain``).
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    inferred: ClassVar[str] = ""
    """What of the method is inferred rather than read in a paper or in code; shown by ``bench list methods``."""
    trains: ClassVar[str] = "both towers and projections"
    """What is trained, for ``bench list methods``."""
    extra: ClassVar[str] = "nothing"
    """What a step takes beyond clip's one pass of each tower and back."""
    accumulation: ClassVar[tuple[Accumulation, ...]] = ("cached", "plain")
    """The modes the method can be trained in; the first is its default."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """What it needs beyond pairs, by default: "label", "image_tokens", "text_tokens", "causal_text" (a text
    tower whose tokens see only what is before them), "language_model" (a causal one that takes adapters and virtual
    tokens; where the card says how, it is pretrained on texts before), "patch_dropout", "start_token" (a tokenizer that
    begins every text with one), "augmentation" (a run's training.augmentation that changes pictures). A plan refuses
    what is not there."""
    abilities: ClassVar[frozenset[str]] = frozenset()
    """What it can do beyond encoding: "caption" (write(), for tasks that ask for it), "late_interaction" (its images
    and texts are compared token by token)."""

    @dataclass
    class Config:
        """The method's own hyperparameters, each with a default and a source."""

    def __init__(self, model: DualEncoder, config: Any) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.frozen: list[Group] = []
        self.epoch = 0.0
        """How many epochs the training has behind it, fractions included; set by the loop before each step."""

    @classmethod
    def needs_of(cls, config: Any) -> frozenset[str]:
        """Return what it needs with ``config``: ``needs`` by default, whatever the config."""
        return cls.needs

    def setup(self, tokenizer: Tokenizer, classes: Sequence[str]) -> None:
        """Called once after construction, before weights are loaded, with the run's tokenizer and the names of the
        classes that Batch.label counts (none where the pairs have no labels); default nothing.
        """

    def stages(self) -> dict[str, float]:
        """The stages of the training in their order, each with its share of the budget; the shares sum to 1."""
        return {"pretrain": 1.0}

    def enter(self, stage: str) -> None:
        """Called when a stage begins or goes on, and with the last before evaluation: sets what trains in it
        (``requires_grad``) and which loss is used, and changes no weight. Each stage has an optimiser and a learning
        rate schedule of its own.
        """

    def freeze(self, groups: Sequence[Group]) -> None:
        """Leave these parts as they are from now on: no gradient, and eval mode whatever train() is told, so that
        neither dropout acts in them nor running statistics move.
        """
        self.frozen = [*self.frozen, *groups]
        for group in groups:
            for part in group:
                part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for group in self.frozen:
            for part in group:
                if isinstance(part, nn.Module):
                    part.eval()
        return self

    def forward(self, batch: Batch, *, embeddings_only: bool = False) -> Output:
        """One micro-batch. With ``embeddings_only`` the losses are not wanted (first pass of ``cached``)."""
        return Output(
            {"image": self.model.encode_image(batch.view()), "text": self.model.encode_text(batch.tokens, batch.mask)}
        )

    def contrast(self, embeddings: Embeddings, keys: Keys) -> dict[str, Tensor]:
        """The loss terms over the embeddings of n samples, each a mean over those n; their sum is minimised.

        keys: what keys() gave for the m samples of the effective batch, concatenated, and ``index``, int64 [n]: the
        rows of the m that the n embeddings belong to.
        In eval mode: the loss by which checkpoints of this method are compared over the training.
        """
        raise NotImplementedError

    @torch.no_grad()
    def keys(self, batch: Batch) -> Keys:
        """Gradient-free keys of a micro-batch: each [b, ...]."""
        return {}

    @torch.no_grad()
    def after_step(self, keys: Keys) -> None:
        """Called once after each optimiser step with the keys of the effective batch: momentum, queue, clamps."""

    def encoder(self) -> DualEncoder:
        """The dual encoder that tasks evaluate."""
        return self.model

    def write(self, images: Tensor, tokenizer: Tokenizer, beams: int = 1) -> list[str]:
        """A text for each image, in eval mode: float [b, 3, image_size, image_size] in 0..1. beams: texts kept in the
        search at a time, 1 is greedy. Only of a method with the ability "caption".
        """
        raise NotImplementedError

    @property
    def temperature_scale(self) -> float:
        """What cosines are multiplied with to be logits (1 / temperature); for calibration and reports."""
        return 1.0


METHODS: Registry[Method] = Registry("method", Method)
register_method = METHODS.register
