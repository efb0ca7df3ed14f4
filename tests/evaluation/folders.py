"""Folders of small random models of transformers."""

from pathlib import Path
from typing import Any

import torch
from tokenizers.processors import TemplateProcessing
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast, SiglipConfig, SiglipModel

from benchmark.models.tokenizer import train

TEXTS = ["a red square", "no finding", "a green square, number seven of those that were seen in the afternoon"]


def clip_folder(folder: Path, kind: str) -> Any:
    """A random CLIP or SigLIP of transformers with a tokenizer and an image processor."""
    torch.manual_seed(7)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = shape | {"vocab_size": 300, "max_position_embeddings": 12, "projection_size": 16}
    vision = shape | {"image_size": 32, "patch_size": 8}
    model: Any
    if kind == "clip":
        text |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=10)
        model = CLIPModel(config)
    else:
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    model.eval().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    CLIPImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7]).save_pretrained(folder)
    return model


def tokenizer() -> Any:
    backend = train(TEXTS, 300)
    backend.post_processor = TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<start>", eos_token="<end>", pad_token="<pad>")
