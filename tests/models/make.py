"""Small architectures of every kind that a card can name, with random weights."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from benchmark.models import ModelCard

SENTENCE = "a chest radiograph shows no acute opacity in the left lower lobe of lung effusion is small or absent"
WORDS = SENTENCE.split()
CONTEXT = 12
TEXT = {"context_length": CONTEXT, "vocab_size": 64, "width": 16, "heads": 2, "layers": 3}
VIT = {"image_size": 32, "patch_size": 8, "width": 24, "layers": 3, "head_width": 8}
RESNET = {"image_size": 64, "width": 8, "layers": [1, 2, 1, 1], "head_width": 32}
COCA = {"attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 5, "output_tokens": True}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "small-vit": {"embed_dim": 20, "vision_cfg": VIT, "text_cfg": TEXT},
    "small-vit-quick": {"embed_dim": 20, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": TEXT},
    "small-rn": {"embed_dim": 20, "vision_cfg": RESNET, "text_cfg": TEXT},
    "small-siglip": {
        "embed_dim": 20,
        "custom_text": True,
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": "linear"},
        "text_cfg": {**TEXT, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
    },
    "small-coca": {
        "embed_dim": 20,
        "custom_text": True,
        "multimodal_cfg": {"context_length": CONTEXT, "width": 16, "heads": 2, "layers": 1},
        "vision_cfg": {**VIT, **COCA},
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
    },
    "small-convnext": {
        "embed_dim": 20,
        "custom_text": True,
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_convnext", "timm_pool": "avg", "timm_proj": "mlp"},
        "text_cfg": {**TEXT, "pool_type": "eos", "eos_id": 63},
    },
}

TIMM: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"embed_dim": 16, "depth": 3, "num_heads": 2},
    "resnet10t": {},
    "convnext_atto": {"depths": [1, 2, 1, 1], "dims": [8, 16, 24, 32]},
    "swin_tiny_patch4_window7_224": {
        "embed_dim": 8,
        "depths": [1, 2, 1, 1],
        "num_heads": [1, 2, 2, 4],
        "window_size": 2,
        "drop_path_rate": 0.0,
    },
}
SHAPE = {"vocab_size": 64, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 32}
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "bert": {**SHAPE, "max_position_embeddings": CONTEXT},
    "roberta": {**SHAPE, "max_position_embeddings": CONTEXT + 2, "pad_token_id": 1},
    "gpt2": {"vocab_size": 64, "n_embd": 16, "n_head": 2, "n_layer": 3, "n_positions": CONTEXT},
    "llama": {**SHAPE, "max_position_embeddings": CONTEXT, "num_key_value_heads": 2},
}
TOKENIZER = {"kind": "corpus", "vocab_size": 300, "context_length": CONTEXT}
TINY_IMAGE = {"kind": "tiny", "width": 32, "layers": 2, "heads": 2}
TINY_TEXT = {"kind": "tiny", "width": 32, "layers": 2, "heads": 2}


def make_card(image: dict[str, Any] | None = None, text: dict[str, Any] | None = None, **rest: Any) -> ModelCard:
    card: dict[str, Any] = {"name": "test", "embed_dim": 20, "tokenizer": TOKENIZER}
    card |= {"image": image} if image else {"image": TINY_IMAGE, "image_size": 32}
    return ModelCard.model_validate(card | {"text": text or TINY_TEXT} | rest)


def open_clip_card(name: str, **rest: Any) -> ModelCard:
    return make_card({"kind": "open_clip", "name": name}, {"kind": "open_clip", "name": name}, **rest)


def timm_card(name: str, **image: Any) -> ModelCard:
    return make_card({"kind": "timm", "name": name, "config": TIMM[name], **image}, image_size=64)


def transformers_card(kind: str, **text: Any) -> ModelCard:
    config = {"model_type": kind, **TRANSFORMERS[kind]}
    pooling = {"bert": "cls", "roberta": "mean"}.get(kind, "eos")
    return make_card(text={"kind": "transformers", "config": config, "pooling": pooling, **text})


CARDS: dict[str, Callable[[], ModelCard]] = {
    "tiny": make_card,
    **{name: partial(open_clip_card, name) for name in ARCHITECTURES},
    **{name: partial(timm_card, name) for name in TIMM},
    **{name: partial(transformers_card, name) for name in TRANSFORMERS},
}
"""A card of every kind of tower."""


def texts(lengths: list[int], total: int, vocab: int = 62) -> tuple[torch.Tensor, torch.Tensor]:
    """Random tokens with start 62 and end 63, padded with 0 on the right to ``total``; and the mask."""
    tokens = torch.zeros(len(lengths), total, dtype=torch.long)
    mask = torch.zeros(len(lengths), total, dtype=torch.bool)
    draw = torch.Generator().manual_seed(3)
    for row, length in enumerate(lengths):
        tokens[row, :length] = torch.randint(2, vocab, (length,), generator=draw)
        tokens[row, 0], tokens[row, length - 1] = 62, 63
        mask[row, :length] = True
    return tokens, mask


def save_hugging_face(folder: Path, ends: bool) -> PreTrainedTokenizerFast:
    """A word-level tokenizer: like BERT's with start and end, or like GPT's with neither, nor with padding."""
    vocab = {word: i for i, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *dict.fromkeys(WORDS)])}
    backend = Backend(models.WordLevel(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"unk_token": "[UNK]", "eos_token": "[SEP]"}
    if ends:
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
        special |= {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    tokenizer.save_pretrained(folder)
    return tokenizer
