"""Image and text towers from open_clip, timm and transformers, and the dual encoder that joins them."""

from benchmark.models.card import ModelCard, load_model_card, model_names
from benchmark.models.dual_encoder import DualEncoder, build_model
from benchmark.models.tokenizer import Tokenizer, build_tokenizer
from benchmark.models.weights import load_weights, save_weights

__all__ = [
    "DualEncoder",
    "ModelCard",
    "Tokenizer",
    "build_model",
    "build_tokenizer",
    "load_model_card",
    "load_weights",
    "model_names",
    "save_weights",
]
