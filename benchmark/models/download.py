"""What of a model card lies on the hub and not on this machine yet. No network is asked and no weights are read."""

import os
from pathlib import Path

from benchmark.models.card import (
    CorpusTokenizer,
    HuggingFaceTokenizer,
    ModelCard,
    OpenClipImage,
    OpenClipText,
    OpenClipTokenizer,
    TimmImage,
    TransformersText,
)

OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
TIMM = ("model.safetensors", "pytorch_model.bin")
TRANSFORMERS = (*TIMM, *(f"{name}.index.json" for name in TIMM))
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt")


def to_download(card: ModelCard) -> list[str]:
    """The weights and the tokenizer that building the model would download, each in words."""
    found = []
    for spec in (card.image, card.text):
        if isinstance(spec, OpenClipImage | OpenClipText):
            found.append(_open_clip(spec.name, spec.pretrained))
        elif isinstance(spec, TimmImage):
            found.append(_timm(spec))
        elif isinstance(spec, TransformersText):
            found.append(_transformers(spec))
    if not isinstance(card.tokenizer, CorpusTokenizer):
        found.append(tokenizer_to_download(card.tokenizer))
    return list(dict.fromkeys(filter(None, found)))


def in_cache(repository: str, names: tuple[str, ...]) -> bool:
    """Whether one of the files of a hub's repository (``ORG/NAME`` or ``ORG/NAME@REVISION``) is in the cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    name, _, revision = repository.partition("@")
    try:
        return any(isinstance(try_to_load_from_cache(name, file, revision=revision or None), str) for file in names)
    except HFValidationError:
        return False


def _or_safe(file: str) -> tuple[str, ...]:
    """A file of weights, or what the libraries take in its place where it is there."""
    return file, f"{os.path.splitext(file)[0]}.safetensors"


def _open_clip(name: str, pretrained: str | None) -> str:
    from benchmark.models.from_open_clip import FOLDER, HUB, check_open_clip

    if name.startswith(HUB):
        there = in_cache(name.removeprefix(HUB), OPEN_CLIP)
        return "" if there else f"weights of open_clip's '{name}'"
    tag = {} if name.startswith(FOLDER) else check_open_clip(name, pretrained)
    if not tag:
        return ""
    repository, file = os.path.split(tag.get("hf_hub", ""))
    if repository:
        there = in_cache(repository, _or_safe(file) if file else OPEN_CLIP)
    else:
        there = (Path("~/.cache/clip").expanduser() / os.path.basename(tag["url"])).is_file()
    return "" if there else f"weights '{pretrained}' of open_clip's '{name}'"


def _timm(spec: TimmImage) -> str:
    if spec.pretrained is not True:
        return ""
    import timm
    import torch

    config = timm.get_pretrained_cfg(spec.name)
    if config is None or not (config.hf_hub_id or config.url):
        return ""
    if config.hf_hub_id:
        there = in_cache(config.hf_hub_id, _or_safe(config.hf_hub_filename) if config.hf_hub_filename else TIMM)
    else:
        there = (Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(config.url)).is_file()
    return "" if there else f"weights of timm's '{spec.name}'"


def _transformers(spec: TransformersText) -> str:
    if spec.name is None or Path(spec.name).is_dir():
        return ""
    if spec.pretrained:
        return "" if in_cache(spec.name, TRANSFORMERS) else f"weights '{spec.name}'"
    return "" if in_cache(spec.name, ("config.json",)) else f"configuration '{spec.name}'"


def tokenizer_to_download(spec: OpenClipTokenizer | HuggingFaceTokenizer) -> str:
    """The tokenizer in words, where it would be downloaded; "" where it is on this machine."""
    if isinstance(spec, HuggingFaceTokenizer):
        there = Path(spec.name).is_dir() or in_cache(spec.name, TOKENIZER)
        return "" if there else f"tokenizer '{spec.name}'"
    import open_clip

    from benchmark.models.from_open_clip import FOLDER, HUB

    if spec.name.startswith(HUB):
        there = in_cache(spec.name.removeprefix(HUB), ("open_clip_config.json",))
    else:
        # CLIP's own vocabulary comes with open_clip.
        config = None if spec.name.startswith(FOLDER) else open_clip.get_model_config(spec.name)
        named = ((config or {}).get("text_cfg") or {}).get("hf_tokenizer_name")
        there = not named or in_cache(named, TOKENIZER)
    return "" if there else f"tokenizer of open_clip's '{spec.name}'"
