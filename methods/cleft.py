"""CLEFT: a frozen causal language model under adapters as the text tower, then prompts that are learned."""

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
    """Image features: the mean of the tokens. Text features: the hidden state at the end-of-text token."""

    text: LanguageModelTower

    def image_features(self, x: Tensor) -> Tensor:
        return self.image_tokens(x).mean(dim=1)

    def text_features(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return last_token(self.text_tokens(tokens, mask), mask)


@register_method("cleft")
class Cleft(Clip):
    """Stage ``pretrain``, of n pairs with unit embeddings I = W_i mean(image tokens), T = W_t (last hidden state):

        loss = CE(s I T', i) + CE(s T I', i),  s = exp(logit_scale), learned

    The language model stays frozen under an adapter; the adapter, both projections and the image tower are trained.
    Then, if ``stage2`` says so, virtual tokens p stand before every text, and with the adapter and W_t frozen too:

        ``caption``: the same loss; p, the image tower, W_i and s are trained
        ``class``:   CE(s I C', label), C = the embeddings of the classes' names; p and s are trained
                     (several findings an image: binary cross-entropy of each; unknown labels are left out)

    Evaluation reads texts with adapter and virtual tokens.

    Du et al. 2024, arXiv 2407.21011 (P); its code, XYPB/CLEFT (C).
    """

    summary = "a frozen language model under LoRA, IA3 or a prefix as text tower; then, if wanted, learned prompts"
    source = "CLEFT, arXiv 2407.21011; XYPB/CLEFT"
    trains = "the image tower, adapters in the language model, projections and the temperature; stage 2: prompts"
    extra = "less than nothing: the language model's own weights take no gradient"
    inferred = (
        "stage 2 is off by default and under the run's optimiser; its class loss is read at second hand; image tokens "
        "are averaged after the tower's last norm"
    )

    @dataclass
    class Config(Clip.Config):
        """adapter: ``lora`` (C: the default), ``ia3`` or ``prefix`` (C: offered).
        lora_rank, lora_alpha, lora_dropout: 8, 32 and 0.1 (C).
        prefix_tokens: 20 (C).
        target_modules: names of the layers that get LoRA or IA3; none: queries, keys and values (``c_attn`` in GPT-2,
            C), with IA3 also the end of the feed-forward part (C), where the tower or peft knows their names.
        stage2: ``none`` (the authors' README: the steadier), ``caption`` (C) or ``class`` (P), which needs labels.
        stage2_share: of the budget, 0..1 (C: 8,000 steps after 40,000).
        prompt_tokens: 30 (C).
        sentence: whose words the virtual tokens start from, repeated to fill them. C has "this is a chest x ray of a
            patient with", for chest X-rays alone; this one is of no modality [I].
        temperature: at the start, > 0 (C: 0.07). max_scale: bound of 1 / temperature (open_clip: 100; C has none).
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
        needs = frozenset({"image_tokens", "text_tokens", "language_model"})
        return needs | {"label"} if config.stage2 == "class" else needs

    def __init__(self, model: DualEncoder, config: Config) -> None:
        text = model.text
        if not (isinstance(text, LanguageModelTower) and text.causal):
            raise BenchError(
                f"method 'cleft': the text tower, a {type(text).__name__}, is no causal language model that takes "
                f"adapters (expected kind transformers or tiny)"
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
        self.model.check(tokenizer)
        text, config = self.model.text, self.config
        if text.prompt is None:
            return
        special = set(tokenizer([""])[0])
        words = [token for token in tokenizer([config.sentence])[0] if token not in special]
        if not words:
            raise BenchError(f"cleft.sentence: expected words, found {config.sentence!r}")
        device = text.prompt.device
        with torch.no_grad():
            tokens = torch.tensor(words, device=device)[torch.arange(config.prompt_tokens, device=device) % len(words)]
            text.prompt.copy_(text.word_embedding(tokens))
        if config.stage2 == "class":
            if not classes:
                raise BenchError("cleft.stage2=class: the pretraining data name no classes")
            rows = [torch.tensor(row, device=device) for row in tokenizer(list(classes))]
            padded = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_id)
            lengths = torch.tensor([len(row) for row in rows], device=device)
            self.register_buffer("class_tokens", padded, persistent=False)
            self.register_buffer(
                "class_mask", torch.arange(padded.shape[1], device=device) < lengths[:, None], persistent=False
            )

    def stages(self) -> dict[str, float]:
        stage2, share = self.config.stage2, self.config.stage2_share
        return {"pretrain": 1.0} if stage2 == "none" else {"pretrain": 1 - share, stage2: share}

    def enter(self, stage: str) -> None:
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
        if self.stage != "class":
            return super().forward(batch)
        if embeddings_only:
            return Output({})
        assert batch.label is not None
        image = self.model.encode_image(batch.view())
        text = self.model.encode_text(self.class_tokens, self.class_mask)
        # a matrix product would round to half precision under autocast
        cosines = (image[:, None] * text).sum(dim=-1)
        return Output({}, {"class": class_loss(self.logit_scale.exp() * cosines, batch.label)})

    def contrast(self, embeddings: Embeddings, keys: Keys) -> dict[str, Tensor]:
        if not embeddings:
            return {}
        return {name: 2 * term for name, term in super().contrast(embeddings, keys).items()}


def class_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Mean over b images of the cross-entropy of their class, or over b K of the binary one of each finding; 0 where
    the label is unknown. logits: [b, K]; label: int64 [b], or [b, K] of 0, 1; -1 unknown.
    """
    if label.ndim == 1:
        return F.cross_entropy(logits, label, ignore_index=-1, reduction="sum") / len(label)
    known = label >= 0
    return F.binary_cross_entropy_with_logits(logits, label.clamp(min=0).to(logits), known.to(logits))


def _adapt(text: LanguageModelTower, config: Cleft.Config) -> list[str]:
    """Put the adapter into the tower; returns the names of its parameters."""
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
            # GPT-2's layers are transposed: peft sees it and says so
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
            inject_adapter_in_model(settings, text.language_model)
    except ValueError as error:
        raise BenchError(
            f"method 'cleft': peft cannot put {config.adapter} into this text tower: {' '.join(str(error).split())} "
            f"(cleft.target_modules names the layers)"
        ) from error
    return [name for name, _ in text.named_parameters() if name not in before and ".base_layer." not in name]
