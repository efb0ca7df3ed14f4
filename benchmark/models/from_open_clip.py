"""Towers from open_clip, with their projections split off."""

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.modified_resnet import ModifiedResNet
from open_clip.pretrained import download_pretrained_from_hf
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from benchmark.common.errors import BenchError, unknown
from benchmark.data.resizing import Resizing
from benchmark.models.card import OpenClipImage, OpenClipText
from benchmark.models.folders import OPEN_CLIP, check_open_clip_folder
from benchmark.models.from_timm import TimmImageTower, timm_groups
from benchmark.models.from_transformers import TransformersTextTower
from benchmark.models.loading import LENIENT, recorded, require_whole
from benchmark.models.tower import (
    Group,
    ImageTower,
    PatchDropout,
    TextTower,
    TowerOutput,
    groups_by,
    last_token,
    square_side,
)
from benchmark.models.weights import hub, reading, require_file
from benchmark.store.hashing import file_digest

Projection = tuple[nn.Module, int]
"""A tower's own projection, and the number of its outputs."""

FOLDER, HUB = "local-dir:", "hf-hub:"


def open_clip_model(
    name: str,
    pretrained: str | None,
    quick_gelu: bool | None,
    image_size: int | None,
    weights: bool,
    strict: bool = True,
    part: str = "",
) -> Any:
    """Build an open_clip model with its weights, or with random ones if ``weights`` is false.

    quick_gelu: None takes the activation of the pretrained tag, else that of the architecture.
    strict: refuse weights that are not whole; else the model's ``left_random`` says what is. part: the prefix of the
    tensors that are used, ``visual.`` or ``text.``.
    Raises ``BenchError`` for an unknown architecture or tag, and for weights that do not exist or do not fit.
    """
    with recorded() as loading:
        model = _open_clip_model(name, pretrained, quick_gelu, image_size, weights)
    what = f"weights {pretrained or name} (expected a checkpoint of open_clip's '{name}')"
    model.left_random = require_whole(loading, what, "dual encoder", strict, part, LENIENT)
    return model


def _open_clip_model(
    name: str, pretrained: str | None, quick_gelu: bool | None, image_size: int | None, weights: bool
) -> Any:
    options: dict[str, Any] = {"force_custom_text": True, "pretrained_text": False, "weights_only": True}
    options["device"] = torch.get_default_device()
    if image_size is not None:
        options["force_image_size"] = image_size
    if name.startswith((FOLDER, HUB)):
        if pretrained is not None:
            raise BenchError(f"open_clip model '{name}' includes its weights: remove 'pretrained: {pretrained}'")
        if quick_gelu is not None:
            options["quick_gelu"] = quick_gelu
        if name.startswith(FOLDER):
            check_open_clip_folder(Path(name.removeprefix(FOLDER)), weights)
        instead = "download it where there is a network, or name a folder: local-dir:FOLDER"
        with hub(f"open_clip model '{name}'", instead, local=name.startswith(FOLDER)):
            return open_clip.create_model(name, load_weights=weights, require_pretrained=weights, **options)

    tag = check_open_clip(name, pretrained)
    path = pretrained if weights else None
    if tag and weights:
        instead = "download it where there is a network, or name a local checkpoint: pretrained: PATH"
        with hub(f"open_clip weights '{pretrained}' of '{name}'", instead):
            path = open_clip.download_pretrained(tag)
    expected = f"a checkpoint of open_clip's '{name}'"
    if path:
        require_file(path, expected)
    config = open_clip.get_model_config(name)
    if quick_gelu is None:
        quick_gelu = bool((tag or config).get("quick_gelu", False))
    text_model = config["text_cfg"].get("hf_model_name")
    download = hub(f"text model '{text_model}' of open_clip's '{name}'", "download it where there is a network")
    with download if text_model else nullcontext():
        model = open_clip.create_model(name, quick_gelu=quick_gelu, **options)
    if tag:
        keys = ("mean", "std", "interpolation", "resize_mode")
        model.visual.preprocess_cfg.update({key: tag[key] for key in keys if tag.get(key)})
    if path:
        with reading(path, expected):
            open_clip.load_checkpoint(model, path)
    return model


def hub_hashes(name: str) -> dict[str, str]:
    """Hash the configuration and the weights of ``hf-hub:ORG/NAME``, which are downloaded, by their names."""
    from huggingface_hub import hf_hub_download

    repository = name.removeprefix(HUB)
    with hub(f"open_clip model '{name}'", "download it where there is a network, or name a folder: local-dir:FOLDER"):
        files = hf_hub_download(repository, OPEN_CLIP), download_pretrained_from_hf(repository)
    return {Path(file).name: file_digest(Path(file)) for file in files}


def check_open_clip(name: str, pretrained: str | None) -> dict[str, Any]:
    """The configuration that open_clip has for a tag; empty without a tag, and for a file.

    Raises ``BenchError`` for an unknown architecture or tag.
    """
    if name not in open_clip.list_models():
        raise unknown("open_clip architecture", name, open_clip.list_models())
    tag: dict[str, Any] = open_clip.get_pretrained_cfg(name, pretrained) if pretrained else {}
    if pretrained and Path(pretrained).is_dir():
        require_file(pretrained, f"a checkpoint of open_clip's '{name}'")
    if pretrained and not tag and not Path(pretrained).suffix:
        raise unknown(f"pretrained tag of {name}", pretrained, open_clip.list_pretrained_tags_by_model(name))
    return tag


class OpenClipImageTower(ImageTower):
    """The vision transformer of open_clip without its projection. Tokens are the patches after the last norm."""

    def __init__(self, visual: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__(mean, std)
        visual.proj = None
        visual.output_tokens = True
        visual.patch_dropout = PatchDropout(prefix=1)
        self.model = visual
        self.image_size = visual.image_size[0]
        self.width = visual.ln_post.normalized_shape[0]

    @override
    def forward(self, x: Tensor) -> TowerOutput:
        return TowerOutput(*self.model(self.normalise(x)))

    def layer_groups(self) -> list[Group]:
        """Stem and positions; each block; the last block with the norm (as in Roy 2024 and open_clip's lock())."""
        last = len(self.model.transformer.resblocks)

        def group(name: str) -> int:
            block = re.match(r"transformer\.resblocks\.(\d+)\.", name)
            if block:
                return int(block[1]) + 1
            return last if name.startswith(("ln_post", "attn_pool")) else 0

        return groups_by(self.model, group)

    @override
    def set_gradient_checkpointing(self, enabled: bool) -> None:
        self.model.set_grad_checkpointing(enabled)


class OpenClipResNetTower(ImageTower):
    """CLIP's ResNet without the projection at the end of its attention pooling.

    Features are the pooled values, [b, W]. Tokens are the values at each place, as in MaskCLIP (arXiv 2112.01071), so
    the projection has the same meaning for both.
    """

    def __init__(self, visual: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__(mean, std)
        visual.attnpool.c_proj = None
        self.model = visual
        size = visual.image_size
        self.image_size = size if isinstance(size, int) else size[0]
        self.width = visual.attnpool.v_proj.out_features

    @override
    def forward(self, x: Tensor) -> TowerOutput:
        model, pool = self.model, self.model.attnpool
        x = model.layer4(model.layer3(model.layer2(model.layer1(model.stem(self.normalise(x))))))
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + pool.positional_embedding
        values = pool.v_proj(x)

        def heads(y: Tensor) -> Tensor:
            return y.view(*y.shape[:2], pool.num_heads, -1).transpose(1, 2)

        pooled = F.scaled_dot_product_attention(heads(pool.q_proj(x[:, :1])), heads(pool.k_proj(x)), heads(values))
        return TowerOutput(pooled.flatten(1), values[:, 1:])

    def layer_groups(self) -> list[Group]:
        """The stem; each residual block; the attention pooling."""

        def group(name: str) -> tuple[int, int]:
            block = re.match(r"layer(\d)\.(\d+)\.", name)
            if block:
                return int(block[1]), int(block[2])
            return (5, 0) if name.startswith("attnpool") else (0, 0)

        return groups_by(self.model, group)

    @override
    def set_gradient_checkpointing(self, enabled: bool) -> None:
        if enabled:
            raise BenchError(
                "gradient checkpointing: open_clip's ResNet does not support it; turn it off or use timm's ResNet"
            )


class OpenClipTimmTower(TimmImageTower):
    """The timm model inside some open_clip architectures.

    pool: the pooling of open_clip, if that of timm is off.
    """

    def __init__(self, visual: Any, image_size: int | None, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__(visual.trunk, image_size or visual.image_size[0], type(visual.trunk).__name__)
        self.mean.copy_(torch.tensor(mean).view(3, 1, 1))
        self.std.copy_(torch.tensor(std).view(3, 1, 1))
        self.pool: nn.Module | None = None

    @override
    def forward(self, x: Tensor) -> TowerOutput:
        if self.pool is None:
            return super().forward(x)
        return TowerOutput(self.pool(self.model(self.normalise(x))), None)

    @override
    def layer_groups(self) -> list[Group]:
        return timm_groups(self.model) + ([] if self.pool is None else [[self.pool]])


def open_clip_image(
    spec: OpenClipImage, image_size: int | None, weights: bool, strict: bool = True
) -> tuple[ImageTower, Projection]:
    """Build the image tower of an open_clip model; returns it and its own projection."""
    whole = open_clip_model(spec.name, spec.pretrained, spec.quick_gelu, image_size, weights, strict, "visual.")
    tower, projection = image_tower(whole.visual, spec.name, image_size)
    tower.patch_dropout = spec.patch_dropout
    tower.left_random = whole.left_random
    return tower, projection


def image_tower(visual: Any, name: str, image_size: int | None = None) -> tuple[ImageTower, Projection]:
    """Split the image side of an open_clip model into tower and projection; ``visual`` is changed."""
    square_side(visual.image_size, name)
    mean, std = visual.preprocess_cfg["mean"], visual.preprocess_cfg["std"]
    if isinstance(visual, VisionTransformer):
        projection: nn.Module = linear(visual.proj)
        tower: ImageTower = OpenClipImageTower(visual, mean, std)
    elif isinstance(visual, ModifiedResNet):
        projection = visual.attnpool.c_proj
        tower = OpenClipResNetTower(visual, mean, std)
    elif isinstance(visual, TimmModel):
        tower, projection = _open_clip_timm(visual, image_size, mean, std)
    else:
        raise BenchError(f"image.name: the {type(visual).__name__} of open_clip's '{name}' is not supported")
    tower.resizing = resizing(visual.preprocess_cfg)
    return tower, (projection, _last_width(projection, tower.width))


def resizing(config: dict[str, Any]) -> Resizing:
    """The resizing of open_clip's image_transform() for evaluation. config: a preprocess_cfg."""
    bilinear = config.get("interpolation") == "bilinear"
    fill = int(config.get("fill_color", 0))
    return Resizing(
        config.get("resize_mode") or "shortest", "bilinear" if bilinear else "bicubic", fill=(fill, fill, fill)
    )


def _open_clip_timm(visual: Any, image_size: int | None, mean: Any, std: Any) -> tuple[ImageTower, nn.Module]:
    classifier = visual.trunk.get_classifier()
    if isinstance(classifier, nn.Linear):
        visual.trunk.reset_classifier(0)
        return OpenClipTimmTower(visual, image_size, mean, std), classifier
    tower = OpenClipTimmTower(visual, image_size, mean, std)
    if "pool" not in visual.head._modules:
        return tower, visual.head if len(visual.head) else nn.Identity()
    pool = visual.head.pool
    tower.pool, tower.has_tokens = pool, False
    tower.width = _last_width(pool, tower.width)
    return tower, nn.Identity()


def _last_width(module: nn.Module, default: int) -> int:
    linears = [m for m in module.modules() if isinstance(m, nn.Linear)]
    return linears[-1].out_features if linears else default


def linear(matrix: nn.Parameter) -> nn.Linear:
    """The linear layer that computes ``x @ matrix``; matrix: [in, out]."""
    layer = nn.Linear(matrix.shape[0], matrix.shape[1], bias=False, device=matrix.device)
    if not matrix.is_meta:
        with torch.no_grad():
            layer.weight.copy_(matrix.T)
    return layer


class OpenClipTextTower(TextTower):
    """CLIP's causal text transformer without its projection. Features are those of the last token, the end.

    open_clip runs it on all ``context_length`` positions. A causal transformer gives the same result on the tokens
    alone.
    """

    causal = True

    def __init__(self, text: Any) -> None:
        super().__init__()
        text.text_projection = None
        self.model = text
        self.width = text.ln_final.normalized_shape[0]
        self.context_length = text.context_length
        self.vocab_size = text.vocab_size

    @override
    def forward(self, tokens: Tensor, mask: Tensor) -> TowerOutput:
        length = tokens.shape[1]
        x = self.model.token_embedding(tokens) + self.model.positional_embedding[:length]
        x = self.model.ln_final(self.model.transformer(x, attn_mask=self.model.attn_mask[:length, :length]))
        return TowerOutput(last_token(x, mask), x)

    def layer_groups(self) -> list[Group]:
        """Embeddings; each block; the last block with the norm."""
        last = len(self.model.transformer.resblocks)

        def group(name: str) -> int:
            block = re.match(r"transformer\.resblocks\.(\d+)\.", name)
            if block:
                return int(block[1]) + 1
            return last if name.startswith("ln_final") else 0

        return groups_by(self.model, group)

    @override
    def set_gradient_checkpointing(self, enabled: bool) -> None:
        self.model.set_grad_checkpointing(enabled)


class OpenClipPaddedTextTower(OpenClipTextTower):
    """A text transformer of open_clip that attends to padding, or pools beyond it (SigLIP, CLIPA, CoCa).

    Every text is padded to ``context_length`` with ``pad_id``, as in its training.
    """

    pad_id: int

    def __init__(self, text: Any, pad_id: int) -> None:
        super().__init__(text)
        text.output_tokens = True
        text.pad_id = pad_id
        self.pad_id = pad_id
        self.causal = text.attn_mask is not None

    @override
    def forward(self, tokens: Tensor, mask: Tensor) -> TowerOutput:
        length = tokens.shape[1]
        filled = F.pad(tokens.masked_fill(~mask, self.pad_id), (0, self.context_length - length), value=self.pad_id)
        features, out = self.model(filled)
        return TowerOutput(features, out[:, :length])


class OpenClipHFTextTower(TransformersTextTower):
    """The transformers model inside some open_clip architectures (BiomedCLIP), with the pooling of open_clip."""

    def __init__(self, text: Any) -> None:
        pooler = text.transformer.pooler if hasattr(text.transformer, "pooler") else None
        super().__init__(text.transformer, type(text.pooler).__name__)
        if pooler is not None:
            self.model.pooler = pooler
        self.pooler = text.pooler

    @override
    def forward(self, tokens: Tensor, mask: Tensor) -> TowerOutput:
        out = self.model(input_ids=tokens, attention_mask=mask.long())
        return TowerOutput(self.pooler(out, mask.long()), out.last_hidden_state)


def open_clip_text(spec: OpenClipText, weights: bool, strict: bool = True) -> tuple[TextTower, Projection]:
    """Build the text tower of an open_clip model; returns it and its own projection."""
    whole = open_clip_model(spec.name, spec.pretrained, spec.quick_gelu, None, weights, strict, "text.")
    tower, projection = text_tower(whole.text, spec.pad_id)
    tower.left_random = whole.left_random
    return tower, projection


def text_tower(text: Any, pad_id: int) -> tuple[TextTower, Projection]:
    """Split the text side of an open_clip model into tower and projection; ``text`` is changed."""
    if isinstance(text, HFTextEncoder):
        tower: TextTower = OpenClipHFTextTower(text)
        return tower, (text.proj, text.output_dim)
    own = text.text_projection
    width = text.output_dim
    projection = own if isinstance(own, nn.Module) else nn.Identity() if own is None else linear(own)
    plain = text.attn_mask is not None and text.cls_emb is None and text.pool_type in {"argmax", "eos"}
    tower = OpenClipTextTower(text) if plain else OpenClipPaddedTextTower(text, pad_id)
    return tower, (projection, tower.width if own is None else width)
