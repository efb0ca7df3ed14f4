"""CLEFT: a frozen causal language model with adapters as the text tower, then learned prompts."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from benchmark import (
    Batch,
    BenchError,
    DualEncoder,
    Embeddings,
    Keys,
    LanguageModelTower,
    Output,
    ShareBelowOne,
    Tokenizer,
    last_token,
    register_method,
)

from .clip import Clip


class Encoder(DualEncoder):
    """Dual encoder that averages image tokens and reads texts at the end-of-text token."""

    text: LanguageModelTower

    def image_features(self, x: Tensor) -> Tensor:
        """Average the image tokens: [b, W]."""
        return self.image_tokens(x).mean(dim=1)

    def text_features(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Take the hidden state at the end-of-text token: [b, Wt]."""
        return last_token(self.text_tokens(tokens, mask), mask)


@register_method("cleft")
class Cleft(Clip):
    """Tune a frozen language model as the text tower, in one or two stages.

    Stage ``pretrain``, on n pairs with unit embeddings I = W_i mean(image tokens) and T = W_t (last hidden state):

        loss = CE(s I T', i) + CE(s T I', i),  s = exp(logit_scale), learned

    The language model stays frozen; its adapter, both projections and the image tower are trained. An optional second
    stage puts virtual tokens p before every text and freezes the adapter and W_t as well. ``stage2`` selects it:

        ``caption``: the same loss; p, the image tower, W_i and s are trained
        ``class``:   CE(s I C', label), C = the embeddings of the class names; p and s are trained
                     (multi-label: binary cross-entropy of each finding; unknown labels are left out)

    Evaluation encodes texts with the adapter and, after a second stage, with the virtual tokens.

    Source: Du et al. 2024, arXiv 2407.21011 (P); its code, XYPB/CLEFT (C).
    """

    summary = "a frozen language model with LoRA, IA3 or a prefix as text tower; optionally, learned prompts"
    source = "CLEFT, arXiv 2407.21011; XYPB/CLEFT"
    trains = "the image tower, the language model's adapters, projections and the temperature; stage 2: prompts"
    extra = "nothing; the language model's own weights get no gradient"
    inferred = (
        "stage 2 is off by default and uses the run's optimiser; its class loss is taken from descriptions of the "
        "paper; image tokens are averaged after the tower's last norm"
    )
    needs = frozenset({"image_tokens", "text_tokens", "language_model"})

    @dataclass
    class Config(Clip.Config):
        """Hyperparameters.

        adapter: ``lora`` (C: the default), ``ia3`` or ``prefix`` (C: both available).
        lora_rank, lora_alpha, lora_dropout: 8, 32 and 0.1 (C).
        prefix_tokens: 20 (C).
        target_modules: names of the layers that get LoRA or IA3. Empty: queries, keys and values (``c_attn`` in GPT-2,
            C) and, with IA3, the last feed-forward layer (C), where the tower or peft knows their names.
        stage2: ``none`` (the more stable, per the authors' README), ``caption`` (C) or ``class`` (P; needs labels).
        stage2_share: share of the budget for stage 2, 0..1 (C: 8,000 steps after 40,000).
        prompt_tokens: number of virtual tokens (C: 30).
        sentence: its words, repeated as needed, initialise the virtual tokens. C uses "this is a chest x ray of a
            patient with", which fits chest X-rays only; the default here names no modality [I].
        temperature: initial value, > 0 (C: 0.07). max_scale: bound of 1 / temperature (open_clip: 100; C has none).
        """

        adapter: Literal["lora", "ia3", "prefix"] = "lora"
        lora_rank: PositiveInt = 8
        lora_alpha: PositiveFloat = 32
        lora_dropout: ShareBelowOne = 0.1
        prefix_tokens: PositiveInt = 20
        target_modules: tuple[str, ...] = ()
        stage2: Literal["none", "caption", "class"] = "none"
        stage2_share: Annotated[float, Field(gt=0, lt=1)] = 1 / 6
        prompt_tokens: PositiveInt = 30
        sentence: str = "this is a medical image of a patient with"

    model: Encoder
    class_tokens: Tensor
    class_mask: Tensor

    @classmethod
    def needs_of(cls, config: Config) -> frozenset[str]:
        """Add "label" for stage 2 with the class loss."""
        return cls.needs | {"label"} if config.stage2 == "class" else cls.needs

    def __init__(self, model: DualEncoder, config: Config) -> None:
        text = model.text
        if not (isinstance(text, LanguageModelTower) and text.causal):
            raise BenchError(
                f"method 'cleft': the text tower, a {type(text).__name__}, is not a causal language model that takes "
                f"adapters (expected text kind transformers or tiny)"
            )
        image_projection = nn.Linear(model.image.width, model.embed_dim)
        text_projection = nn.Linear(text.width, model.embed_dim)
        encoder = Encoder(model.image, text, image_projection, text_projection, model.embed_dim)
        super().__init__(encoder, config)
        self.adapters = _adapt(text, config)
        if config.stage2 != "none":
            text.add_prompt(config.prompt_tokens)
        self.enter("pretrain")

    def setup(self, tokenizer: Tokenizer, classes: Sequence[str]) -> None:
        """Initialise the virtual tokens from ``sentence`` and tokenise the class names."""
        self.model.check(tokenizer)
        text, config = self.model.text, self.config
        if text.prompt is None:
            return
        special = set(tokenizer([""])[0])
        words = [token for token in tokenizer([config.sentence])[0] if token not in special]
        if not words:
            raise BenchError(f"cleft.sentence is {config.sentence!r}: expected at least one word")
        device = text.prompt.device
        with torch.no_grad():
            tokens = torch.tensor(words, device=device)[torch.arange(config.prompt_tokens, device=device) % len(words)]
            text.prompt.copy_(text.word_embedding(tokens))
        if config.stage2 == "class":
            if not classes:
                raise BenchError(
                    "cleft.stage2=class needs labels, but the card of the pretraining data has no 'classes'"
                )
            rows = [torch.tensor(row, device=device) for row in tokenizer(list(classes))]
            padded = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_id)
            lengths = torch.tensor([len(row) for row in rows], device=device)
            self.register_buffer("class_tokens", padded, persistent=False)
            self.register_buffer(
                "class_mask", torch.arange(padded.shape[1], device=device) < lengths[:, None], persistent=False
            )

    def stages(self) -> dict[str, float]:
        """Return ``pretrain`` and, if chosen, the second stage with its share of the budget."""
        stage2, share = self.config.stage2, self.config.stage2_share
        return {"pretrain": 1.0} if stage2 == "none" else {"pretrain": 1 - share, stage2: share}

    def enter(self, stage: str) -> None:
        """Set what the stage trains."""
        self.stage = stage
        model, text = self.model, self.model.text
        text.prompted = stage != "pretrain"
        self.requires_grad_(False)
        self.logit_scale.requires_grad_(True)
        if stage != "class":
            model.image.requires_grad_(True)
            model.image_projection.requires_grad_(True)
        if stage == "pretrain":
            model.text_projection.requires_grad_(True)
            for name in self.adapters:
                text.get_parameter(name).requires_grad_(True)
        elif text.prompt is not None:
            text.prompt.requires_grad_(True)
        self.frozen = [[model]] if stage == "class" else []
        self.train(self.training)

    def forward(self, batch: Batch, *, embeddings_only: bool = False) -> Output:
        """Encode pairs; in stage ``class``, score images against the class names instead."""
        if self.stage != "class":
            return super().forward(batch)
        if embeddings_only:
            return Output({})
        assert batch.label is not None
        image = self.model.encode_image(batch.view())
        text = self.model.encode_text(self.class_tokens, self.class_mask)
        # Under autocast a matrix product would round to half precision.
        cosines = (image[:, None] * text).sum(dim=-1)
        return Output({}, {"class": class_loss(self.logit_scale.exp() * cosines, batch.label, self.smoothing)})

    def contrast(self, embeddings: Embeddings, keys: Keys) -> dict[str, Tensor]:
        """Return CE + CE (clip's loss is half of that), or nothing in stage ``class``."""
        if not embeddings:
            return {}
        return {name: 2 * term for name, term in super().contrast(embeddings, keys).items()}


def class_loss(logits: Tensor, label: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy over b images, or the mean binary cross-entropy over b x K findings.

    logits: [b, K]. label: int64 [b], or [b, K] of 0 and 1 when multi-label; an unknown label (-1) contributes 0.
    smoothing: label smoothing of the cross-entropy, 0..1.
    """
    if label.ndim == 1:
        return F.cross_entropy(logits, label, ignore_index=-1, reduction="sum", label_smoothing=smoothing) / len(label)
    known = label >= 0
    return F.binary_cross_entropy_with_logits(logits, label.clamp(min=0).to(logits), known.to(logits))


def _adapt(text: LanguageModelTower, config: Cleft.Config) -> list[str]:
    """Put the adapter into the tower and return the names of its parameters."""
    if config.adapter == "prefix":
        text.add_prefix(config.prefix_tokens)
        return ["prefix"]
    from peft import IA3Config, LoraConfig, inject_adapter_in_model

    chosen = list(config.target_modules)
    settings: Any
    if config.adapter == "lora":
        settings = LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules=chosen or list(text.attention_modules) or None,
        )
    else:
        feedforward = list(text.feedforward_modules)
        named = chosen or [*text.attention_modules, *feedforward]
        settings = IA3Config(
            target_modules=named or None,
            feedforward_modules=[name for name in named if name in feedforward] if named else None,
        )
    before = {name for name, _ in text.named_parameters()}
    try:
        with warnings.catch_warnings():
            # GPT-2 stores its weights transposed; peft handles that and warns.
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
            inject_adapter_in_model(settings, text.language_model)
    except ValueError as error:
        raise BenchError(
            f"method 'cleft': peft cannot add {config.adapter} to this text tower: {' '.join(str(error).split())}; "
            f"name its layers with cleft.target_modules"
        ) from error
    return [name for name, _ in text.named_parameters() if name not in before and ".base_layer." not in name]
