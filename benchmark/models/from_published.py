"""Dual encoders from the files of published models: each layout is read into the towers of this package."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CustomTextCLIP, convert_to_custom_text_state_dict
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transform import PreprocessCfg
from open_clip.transformer import AttentionalPooler, TextTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from benchmark.common.errors import BenchError
from benchmark.common.seeding import torch_seed
from benchmark.data.resizing import Resizing
from benchmark.models.dual_encoder import DualEncoder
from benchmark.models.from_open_clip import Projection, image_tower, text_tower
from benchmark.models.from_transformers import TransformersTextTower
from benchmark.models.loading import Loading, require_whole
from benchmark.models.published import ConchLoading, MedClipLoading, OpenClipLoading, PmcClipLoading, PublishedModel
from benchmark.models.tokenizer import HuggingFace, Tokenizer, local_tokenizer, wrapped
from benchmark.models.tower import ImageTower, TextTower, TowerOutput, mean_token
from benchmark.models.weights import read_tensors

OLDER = {"proj": "hf_proj_type", "pooler_type": "hf_pooler_type"}
"""Keys of a text_cfg that open_clip renamed in 2.23."""
LUMA = (0.299, 0.587, 0.114)
"""What Pillow weighs red, green and blue with to make an image grey (ITU-R 601)."""


@dataclass(frozen=True)
class Published:
    """A published model. temperature_scale: of its loss; None for random weights."""

    model: DualEncoder
    tokenizer: Tokenizer
    temperature_scale: float | None


@dataclass(frozen=True)
class _Layout:
    """A model as its file of weights has it.

    parts: its modules, by how the names of their tensors begin in the file. towers: takes them apart, once filled.
    ignored: how the names of tensors begin that the encoders do not use. named: translates a module's name of a tensor
    into the file's. adapted: changes the tensors of the file first.
    """

    parts: dict[str, nn.Module]
    towers: Callable[[], tuple[tuple[ImageTower, Projection], tuple[TextTower, Projection]]]
    tokenizer: Tokenizer
    ignored: tuple[str, ...] = ()
    named: Callable[[str], str] = str
    adapted: Callable[[dict[str, Tensor]], dict[str, Tensor]] = field(default=dict)


def load_published_model(card: PublishedModel, folders: list[Path], weights: bool = True, seed: int = 0) -> Published:
    """Build a published model from the folders of its sources. weights: false for random ones of this seed.

    Raises ``BenchError`` if a file is damaged, lacks tensors, or has others than the layout: none is left random.
    """
    spec, scale = card.load, None
    with torch_seed(seed):
        if isinstance(spec, OpenClipLoading):
            layout = _open_clip(spec, folders)
        elif isinstance(spec, MedClipLoading):
            layout = _medclip(spec, folders)
        elif isinstance(spec, PmcClipLoading):
            layout = _pmc_clip(spec, folders)
        elif isinstance(spec, ConchLoading):
            layout = _conch(spec, folders)
        else:
            raise BenchError(f"model '{card.name}': load.kind {spec.kind} is read by transformers itself")
    if weights:
        path = _weights(card, spec.weights, folders[0])
        state = layout.adapted(read_tensors(path, f"the weights of {card.name}"))
        if "logit_scale" not in state:
            raise BenchError(f"model '{card.name}', {path}: tensor logit_scale is missing; download the file again")
        scale = float(state["logit_scale"].exp())
        _fill(layout, state, path, card.name)
    (image, (image_projection, width)), (text, (text_projection, _)) = layout.towers()
    model = DualEncoder(image, text, image_projection, text_projection, width).float()
    model.check(layout.tokenizer)
    return Published(model, layout.tokenizer, scale)


def _weights(card: PublishedModel, file: str, folder: Path) -> Path:
    path = card.sources[0].path_of(file, folder)
    if path is None:
        raise BenchError(f"model '{card.name}': load.weights: {file} is not in {folder}")
    return path


def _fill(layout: _Layout, state: Mapping[str, Tensor], path: Path, name: str) -> None:
    """Copy every tensor of a file to its module. Raises ``BenchError`` unless both have the same tensors."""
    wanted = {
        beginning + layout.named(own): tensor
        for beginning, part in layout.parts.items()
        for own, tensor in part.state_dict().items()
    }
    read = {key: tensor for key, tensor in state.items() if not key.startswith(layout.ignored)}
    others = read.keys() - wanted.keys() - {"logit_scale"}
    mismatched = {
        key: (list(read[key].shape), list(tensor.shape))
        for key, tensor in wanted.items()
        if key in read and read[key].squeeze().shape != tensor.squeeze().shape
    }
    loading = Loading(wanted.keys() - read.keys(), others, mismatched)
    require_whole(loading, f"model '{name}', {path}", "dual encoder", strict=True, instead="download the file again")
    with torch.no_grad():
        for key, tensor in wanted.items():
            if key in read:  # Others are counts that the architecture makes.
                tensor.copy_(read[key].reshape(tensor.shape))


def _renamed(rename: Mapping[str, str]) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """Make a function that replaces how names of tensors begin."""

    def adapted(state: dict[str, Tensor]) -> dict[str, Tensor]:
        names = {}
        for name in state:
            old = next((beginning for beginning in rename if name.startswith(beginning)), "")
            names[name] = rename.get(old, "") + name.removeprefix(old)
        return {names[name]: tensor for name, tensor in state.items()}

    return adapted


def _open_clip(spec: OpenClipLoading, folders: list[Path]) -> _Layout:
    """Lay out a model of open_clip's own classes."""
    config, preprocess = dict(spec.config or {}), {}
    if spec.architecture:
        config = open_clip.get_model_config(spec.architecture)
    elif not config:
        path = folders[0] / "open_clip_config.json"
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            config, preprocess = dict(document["model_cfg"]), document.get("preprocess_cfg", {})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchError(f"{path}: expected a model_cfg in JSON: {type(error).__name__}: {error}") from error
    config = {key: value for key, value in config.items() if key not in ("custom_text", "multimodal_cfg")}
    text_config = {OLDER.get(key, key): value for key, value in config["text_cfg"].items()}
    if spec.text is not None:
        text_config |= {"hf_model_name": str(folders[spec.text]), "hf_model_pretrained": False}
    whole: Any = CustomTextCLIP(**config | {"text_cfg": text_config})
    whole.visual.preprocess_cfg = asdict(PreprocessCfg()) | preprocess | spec.preprocess
    length = text_config.get("context_length", 77)
    if spec.tokenizer is None:
        tokenizer = wrapped(open_clip.SimpleTokenizer(context_length=length), spec.kind)
    else:
        tokenizer = local_tokenizer(folders[spec.tokenizer], length, as_open_clip=True)
    rename = _renamed(spec.rename)

    def towers() -> tuple[tuple[ImageTower, Projection], tuple[TextTower, Projection]]:
        return image_tower(whole.visual, spec.architecture or str(folders[0])), text_tower(whole.text, tokenizer.pad_id)

    def adapted(state: dict[str, Tensor]) -> dict[str, Tensor]:
        state = rename(state)
        if "positional_embedding" in state:  # the text tower's: a CLIP without a tower of its own for texts
            state = convert_to_custom_text_state_dict(state)
        return state

    return _Layout({"": whole}, towers, tokenizer, adapted=adapted)


class _SwinTower(ImageTower):
    """MedCLIP's Swin of transformers on grey images. Tokens are the last map, of which the features are the mean."""

    resizing = Resizing("square")

    def __init__(self, model: Any, mean: float, std: float) -> None:
        super().__init__((mean,) * 3, (std,) * 3)
        self.model = model
        self.image_size = model.config.image_size
        self.width = model.config.hidden_size

    @override
    def forward(self, x: Tensor) -> TowerOutput:
        grey = (x * x.new_tensor(LUMA).view(3, 1, 1)).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1)
        out = self.model(pixel_values=self.normalise(grey))
        return TowerOutput(out.pooler_output, out.last_hidden_state)


class _MedClipTextTower(TransformersTextTower):
    """MedCLIP's BERT. Tokens are the mean of the states after its first, second and last layer."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, "mean")

    @override
    def forward(self, tokens: Tensor, mask: Tensor) -> TowerOutput:
        states = self.model(input_ids=tokens, attention_mask=mask.long(), output_hidden_states=True).hidden_states
        words = torch.stack([states[1], states[2], states[-1]]).mean(dim=0)
        return TowerOutput(mean_token(words, mask), words)


def _medclip(spec: MedClipLoading, folders: list[Path]) -> _Layout:
    """Lay out MedCLIP with a Swin (medclip/modeling_medclip.py: MedCLIPVisionModelViT, MedCLIPTextModel)."""
    from transformers import SwinModel

    swin = SwinModel(_config(folders[2], "swin"))
    image = _SwinTower(swin, spec.mean, spec.std)
    text = _MedClipTextTower(_bert(folders[1]))
    projections = (nn.Linear(image.width, 512, bias=False), nn.Linear(text.width, 512, bias=False))
    parts = {
        "vision_model.model.": swin,
        "vision_model.projection_head.": projections[0],
        "text_model.model.": text.model,
        "text_model.projection_head.": projections[1],
    }

    def towers() -> tuple[tuple[ImageTower, Projection], tuple[TextTower, Projection]]:
        return (image, (projections[0], 512)), (text, (projections[1], 512))

    def adapted(state: dict[str, Tensor]) -> dict[str, Tensor]:
        # It is computed from the size of the windows.
        return {name: tensor for name, tensor in state.items() if not name.endswith("relative_position_index")}

    tokenizer = local_tokenizer(folders[1], spec.context_length)
    return _Layout(parts, towers, tokenizer, ("text_model.model.pooler.",), _older_swin, adapted)


def _older_swin(name: str) -> str:
    """Translate the name of a tensor of transformers' Swin into that of versions before 5."""
    for new, old in (
        ("attention.q_proj.", "attention.self.query."),
        ("attention.k_proj.", "attention.self.key."),
        ("attention.v_proj.", "attention.self.value."),
        ("attention.relative_position_bias.", "attention.self."),
        ("attention.o_proj.", "attention.output.dense."),
        ("mlp.fc1.", "intermediate.dense."),
        ("mlp.fc2.", "output.dense."),
    ):
        name = name.replace(new, old)
    return name


class _PaddedBert(TransformersTextTower):
    """PMC-CLIP's BERT: it attends to padding, and every text is padded to ``context_length``, as in its training."""

    pad_id: int

    def __init__(self, model: Any, context_length: int, pad_id: int) -> None:
        super().__init__(model, "cls")
        self.context_length = context_length
        self.pad_id = pad_id

    @override
    def forward(self, tokens: Tensor, mask: Tensor) -> TowerOutput:
        length = tokens.shape[1]
        filled = F.pad(tokens.masked_fill(~mask, self.pad_id), (0, self.context_length - length), value=self.pad_id)
        states = self.model(input_ids=filled).last_hidden_state
        return TowerOutput(states[:, 0], states[:, :length])


def _pmc_clip(spec: PmcClipLoading, folders: list[Path]) -> _Layout:
    """Lay out PMC-CLIP (src/pmc_clip/model/pmc_clip.py: PMC_CLIP), without its fusion module."""
    heads = spec.width * 32 // 64
    visual: Any = ModifiedResNet(tuple(spec.layers), spec.embed_dim, heads, spec.image_size, spec.width)
    visual.preprocess_cfg = asdict(PreprocessCfg())
    tokenizer = local_tokenizer(folders[1], spec.context_length)
    text = _PaddedBert(_bert(folders[1]), spec.context_length, tokenizer.pad_id)
    projection = nn.Linear(text.width, spec.embed_dim, bias=False)
    parts = {"visual.": visual, "text_encoder.": text.model, "text_projection.": projection}

    def towers() -> tuple[tuple[ImageTower, Projection], tuple[TextTower, Projection]]:
        return image_tower(visual, "PMC-CLIP"), (text, (projection, spec.embed_dim))

    fusion = ("positional_embedding", "ln_final.", "mlm_projection", "img_special_token", "fusion_module.")
    ignored = (*fusion, "text_encoder.pooler.")
    return _Layout(parts, towers, tokenizer, ignored, adapted=_as_linear("text_projection"))


class _ConchTower(ImageTower):
    """CONCH's vision transformer of timm. Features are those of one query's attention to all tokens."""

    has_tokens = False

    def __init__(self, trunk: Any, pool: nn.Module, norm: nn.Module, width: int) -> None:
        preprocess = PreprocessCfg()
        super().__init__(preprocess.mean, preprocess.std)
        self.model, self.pool, self.norm = trunk, pool, norm
        self.image_size = trunk.patch_embed.img_size[0]
        self.width = width

    @override
    def forward(self, x: Tensor) -> TowerOutput:
        return TowerOutput(self.norm(self.pool(self.model.forward_features(self.normalise(x)))[:, 0]), None)


def _conch(spec: ConchLoading, folders: list[Path]) -> _Layout:
    """Lay out CONCH (conch/open_clip_custom: coca_model.py, vision_tower.py, transformer.py), without captioning."""
    from timm.models.vision_transformer import VisionTransformer
    from transformers import PreTrainedTokenizerFast

    width = spec.config["embed_dim"]
    vision, words = ({**spec.config[key]} for key in ("vision_cfg", "text_cfg"))
    trunk = VisionTransformer(
        embed_dim=vision["width"],
        depth=vision["layers"],
        num_heads=vision["num_heads"],
        img_size=vision["image_size"],
        patch_size=vision["patch_size"],
        num_classes=0,
    )
    pool = AttentionalPooler(width, trunk.num_features, vision["attn_pooler_heads"], n_queries=1)
    norm, projection = nn.LayerNorm(width), nn.Linear(width, width, bias=False)
    image = _ConchTower(trunk, pool, norm, width)
    # The last of its positions is that of the class token.
    length = words["context_length"] - 1
    text: Any = TextTransformer(**words | {"context_length": length, "output_dim": width, "embed_cls": True})
    backend = PreTrainedTokenizerFast(
        tokenizer_file=str(folders[1] / spec.tokenizer),
        bos_token="<start_of_text>",
        eos_token="<end_of_text>",
        pad_token="<pad>",
    )
    tokenizer = HuggingFace(backend, length)
    parts = {
        "visual.trunk.": trunk,
        "visual.attn_pool_contrast.": pool,
        "visual.ln_contrast.": norm,
        "visual.proj_contrast.": projection,
        "text.": text,
    }

    def towers() -> tuple[tuple[ImageTower, Projection], tuple[TextTower, Projection]]:
        return (image, (projection, width)), text_tower(text, tokenizer.pad_id)

    ignored = ("visual.attn_pool_caption.", "visual.ln_caption.", "text_decoder.")
    return _Layout(parts, towers, tokenizer, ignored, adapted=_as_linear("visual.proj_contrast"))


def _as_linear(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """Make a function that turns a matrix of a file, [in, out], into the weight of a linear layer."""

    def adapted(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {f"{key}.weight" if key == name else key: x.T if key == name else x for key, x in state.items()}

    return adapted


def _bert(folder: Path) -> Any:
    from transformers import BertModel

    return BertModel(_config(folder, "bert"), add_pooling_layer=False)


def _config(folder: Path, kind: str) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if config.model_type != kind:
        raise BenchError(f"{folder / 'config.json'}: a model of type {config.model_type}, expected {kind}")
    return config
