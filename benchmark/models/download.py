"""List what a model card needs from the hub that is not on this machine yet, without network or reading weights."""

from pathlib import Path, PurePosixPath

from benchmark.models.card import (
    LOCAL,
    CorpusTokenizer,
    HuggingFaceTokenizer,
    ModelCard,
    OpenClipImage,
    OpenClipText,
    OpenClipTokenizer,
    TimmImage,
    TransformersText,
)
from benchmark.models.packages import located

OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
TIMM = ("model.safetensors", "pytorch_model.bin")
TRANSFORMERS = (*TIMM, *(f"{name}.index.json" for name in TIMM))
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt")


def to_download(card: ModelCard) -> list[str]:
    """The weights and the tokenizer that building the model would download, each as a short description."""
    missing = []
    for spec in (located(card.image), located(card.text)):
        if isinstance(spec, OpenClipImage | OpenClipText):
            missing.append(_open_clip(spec.name, spec.pretrained))
        elif isinstance(spec, TimmImage):
            missing.append(_timm(spec))
        elif isinstance(spec, TransformersText):
            missing.append(_transformers(spec))
    if not isinstance(card.tokenizer, CorpusTokenizer):
        missing.append(tokenizer_to_download(card.tokenizer))
    return list(dict.fromkeys(filter(None, missing)))


def in_cache(repository: str, names: tuple[str, ...]) -> bool:
    """Whether one of these files of a repository (``ORG/NAME`` or ``ORG/NAME@REVISION``) is in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    name, _, revision = repository.partition("@")
    try:
        return any(isinstance(try_to_load_from_cache(name, file, revision=revision or None), str) for file in names)
    except HFValidationError:
        return False


def _or_safe(file: str) -> tuple[str, ...]:
    """A file of weights, and the file that the libraries prefer if it exists."""
    return file, str(PurePosixPath(file).with_suffix(".safetensors"))


def _open_clip(name: str, pretrained: str | None) -> str:
    from benchmark.models.from_open_clip import FOLDER, HUB, check_open_clip

    if name.startswith(HUB):
        cached = in_cache(name.removeprefix(HUB), OPEN_CLIP)
        return "" if cached else f"weights of open_clip's '{name}'"
    tag = {} if name.startswith(FOLDER) else check_open_clip(name, pretrained)
    if not tag:
        return ""
    repository, _, file = tag.get("hf_hub", "").rpartition("/")
    if repository:
        cached = in_cache(repository, _or_safe(file) if file else OPEN_CLIP)
    else:
        cached = (Path("~/.cache/clip").expanduser() / PurePosixPath(tag["url"]).name).is_file()
    return "" if cached else f"weights '{pretrained}' of open_clip's '{name}'"


def _timm(spec: TimmImage) -> str:
    if spec.pretrained is not True or spec.name.startswith(LOCAL):
        return ""
    import timm
    import torch

    config = timm.get_pretrained_cfg(spec.name)
    if config is None or not (config.hf_hub_id or config.url):
        return ""
    if config.hf_hub_id:
        cached = in_cache(config.hf_hub_id, _or_safe(config.hf_hub_filename) if config.hf_hub_filename else TIMM)
    else:
        cached = (Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(config.url).name).is_file()
    return "" if cached else f"weights of timm's '{spec.name}'"


def _transformers(spec: TransformersText) -> str:
    if spec.name is None or Path(spec.name).is_dir():
        return ""
    if spec.pretrained:
        return "" if in_cache(spec.name, TRANSFORMERS) else f"weights '{spec.name}'"
    return "" if in_cache(spec.name, ("config.json",)) else f"configuration '{spec.name}'"


def tokenizer_to_download(spec: OpenClipTokenizer | HuggingFaceTokenizer) -> str:
    """A description of the tokenizer that would be downloaded, or "" if it is on this machine."""
    spec = located(spec)
    if isinstance(spec, HuggingFaceTokenizer):
        cached = Path(spec.name).is_dir() or in_cache(spec.name, TOKENIZER)
        return "" if cached else f"tokenizer '{spec.name}'"
    import open_clip

    from benchmark.models.from_open_clip import FOLDER, HUB

    if spec.name.startswith(HUB):
        cached = in_cache(spec.name.removeprefix(HUB), ("open_clip_config.json",))
    else:
        # CLIP's own vocabulary is part of open_clip.
        config = None if spec.name.startswith(FOLDER) else open_clip.get_model_config(spec.name)
        tokenizer = ((config or {}).get("text_cfg") or {}).get("hf_tokenizer_name")
        cached = not tokenizer or in_cache(tokenizer, TOKENIZER)
    return "" if cached else f"tokenizer of open_clip's '{spec.name}'"
