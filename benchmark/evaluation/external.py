"""External models, which this harness did not train: from open_clip, transformers and timm, by name."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.common.errors import BenchError, unknown
from benchmark.common.seeding import torch_seed
from benchmark.data.resizing import DEFAULT, Resizing
from benchmark.evaluation.encoder import Encoded, Encoder, ModelEncoder
from benchmark.evaluation.fixed import TEMPERATURE_SCALE, FixedEncoder, Materials, RawPixels
from benchmark.models.saved import CONFIG, TOKENIZER, WEIGHTS, is_saved, load_model
from benchmark.models.weights import hub, require_file
from benchmark.store import formats
from benchmark.store.hashing import digest
from benchmark.store.rows import Label

if TYPE_CHECKING:
    from benchmark.models import ModelCard
    from benchmark.models.tower import ImageTower

KINDS = ("open_clip", "hf", "timm")
WHOLE = ("local-dir:", "hf-hub:")
"""Prefixes of open_clip names that stand for both architecture and weights."""


@dataclass(frozen=True)
class ExternalModel:
    """A model given by its name on the command line.

    content: everything that the outputs depend on. images_only: whether it has no text side. pretrained: whether it has
    weights. build: makes the encoder from a device, a fingerprint, and the seed of random weights (None: its own).
    """

    name: str
    content: dict[str, Any]
    images_only: bool
    build: Callable[[torch.device, str, int | None], Encoder]
    pretrained: bool = True

    def fixed(self, seed: int, suite: str) -> FixedEncoder:
        """Make the encoder to evaluate. seed: of the tasks' own draws."""
        content = {"format": [formats.TRAINING, formats.EVALUATION], **self.content, "seed": seed}
        label: Label = {"suite": suite, "model": "", "method": self.name, "variant": "", "seed": seed, "role": "model"}
        fingerprint = digest({"format": [formats.TRAINING, formats.EVALUATION], **self.content})

        def build(materials: Materials) -> Encoder:
            return self.build(materials.device, fingerprint, None)

        return FixedEncoder(content, label, self.images_only, build)

    def baselines(self, seed: int, suite: str) -> list[FixedEncoder]:
        """Make the model's baselines: raw pixels, and random weights unless the model itself has these."""
        content = {"format": [formats.TRAINING, formats.EVALUATION], "of": self.content, "seed": seed}

        def labelled(name: str) -> Label:
            role: Literal["baseline"] = "baseline"
            return {"suite": suite, "model": self.name, "variant": "", "seed": seed, "role": role, "method": name}

        def untrained(materials: Materials) -> Encoder:
            return self.build(materials.device, digest(content | {"baseline": "untrained"}), seed)

        def raw_pixels(materials: Materials) -> Encoder:
            meta = torch.device("meta")
            with meta:
                return RawPixels(self.build(meta, "", seed))

        raw = FixedEncoder(content | {"baseline": "raw pixels"}, labelled("raw pixels"), True, raw_pixels)
        if not self.pretrained:
            return [raw]
        random = content | {"baseline": "untrained"}
        return [FixedEncoder(random, labelled("untrained"), self.images_only, untrained), raw]


def is_external(spec: str) -> bool:
    """Return whether a name is of the form KIND:..., not that of a model card.

    Raises ``BenchError`` for an unknown kind.
    """
    kind, colon, _ = spec.partition(":")
    if not colon or Path(spec).exists():
        return False
    if kind not in KINDS:
        raise unknown("kind of model (before the colon of --model)", kind, KINDS)
    return True


def external_model(spec: str) -> ExternalModel:
    """Resolve the name of an external model. No weights are read yet.

    spec: ``open_clip:ARCHITECTURE``, followed by ``/TAG`` or ``/FILE`` (without: random weights);
    ``open_clip:local-dir:FOLDER`` or ``open_clip:hf-hub:NAME``; ``hf:FOLDER`` (a CLIP or SigLIP of transformers, or
    what ``bench export`` wrote);
    ``timm:NAME``, with timm's weights or those of ``/FILE``: images only.

    Raises ``BenchError`` for a name, tag, file or folder that does not exist, as far as that is known offline.
    """
    kind, _, rest = spec.partition(":")
    if not rest:
        raise BenchError(f"--model {spec}: expected a name after the colon, as in open_clip:ViT-B-32/openai")
    return {"open_clip": _open_clip, "hf": _hugging_face, "timm": _timm}[kind](rest)


def _open_clip(rest: str) -> ExternalModel:
    from benchmark.models.from_open_clip import check_open_clip

    whole = rest.startswith(WHOLE)
    name, _, pretrained = (rest, "", "") if whole else rest.partition("/")
    content: dict[str, Any] = {"open_clip": name, "pretrained": pretrained}
    title = f"open_clip:{name}"
    if rest.startswith("local-dir:"):
        folder = Path(rest.removeprefix("local-dir:"))
        content = {"open_clip": _files(folder)}
        title = f"open_clip:{_shown(folder)}"
    elif not whole:
        check_open_clip(name, pretrained or None)
        tag = pretrained
        if Path(pretrained).suffix:
            require_file(pretrained, f"a checkpoint of open_clip's '{name}'")
            content["pretrained"], tag = _sha256(Path(pretrained)), _shown(Path(pretrained))
        title += f"/{tag}" if tag else ""

    def build(device: torch.device, fingerprint: str, seed: int | None) -> Encoder:
        return _open_clip_encoder(name, pretrained or None, device, fingerprint, seed)

    return ExternalModel(title, content, False, build, pretrained=whole or bool(pretrained))


def _open_clip_encoder(
    name: str, pretrained: str | None, device: torch.device, fingerprint: str, seed: int | None
) -> ModelEncoder:
    from benchmark.models.card import OpenClipTokenizer
    from benchmark.models.dual_encoder import DualEncoder
    from benchmark.models.from_open_clip import image_tower, open_clip_model, text_tower
    from benchmark.models.tokenizer import open_clip_tokenizer

    tokenizer = open_clip_tokenizer(OpenClipTokenizer(kind="open_clip", name=name))
    with torch_seed(seed or 0):
        whole = open_clip_model(name, pretrained, None, None, weights=seed is None)
    scale = float(whole.logit_scale.detach().exp()) if seed is None else TEMPERATURE_SCALE
    image, (image_projection, width) = image_tower(whole.visual, name)
    text, (text_projection, _) = text_tower(whole.text, tokenizer.pad_id)
    model = DualEncoder(image, text, image_projection, text_projection, width).float()
    model.check(tokenizer)
    return ModelEncoder(model, tokenizer, device, fingerprint, scale)


def _hugging_face(rest: str) -> ExternalModel:
    folder = Path(rest)
    if not folder.is_dir():
        raise BenchError(
            f"--model hf:{rest}: no such folder; expected one with a saved CLIP or SigLIP of transformers, or of bench "
            "export"
        )
    if is_saved(folder):
        return _exported(folder)

    def build(device: torch.device, fingerprint: str, seed: int | None) -> Encoder:
        return HuggingFaceEncoder(folder, device, fingerprint, seed)

    return ExternalModel(f"hf:{_shown(folder)}", {"hf": _files(folder)}, False, build)


def _exported(folder: Path) -> ExternalModel:
    """Make the model of a folder that ``bench export`` wrote."""
    files = [folder / CONFIG, folder / WEIGHTS, *sorted((folder / TOKENIZER).glob("*"))]

    def build(device: torch.device, fingerprint: str, seed: int | None) -> Encoder:
        saved = load_model(folder, weights=seed is None, seed=seed or 0)
        scale = saved.temperature_scale if seed is None else TEMPERATURE_SCALE
        return ModelEncoder(saved.model, saved.tokenizer, device, fingerprint, scale, by_tokens=saved.by_tokens)

    for file in files:
        require_file(file, "a file of bench export")
    content = {"exported": {str(file.relative_to(folder)): _sha256(file) for file in files}}
    return ExternalModel(f"hf:{_shown(folder)}", content, False, build)


class HuggingFaceEncoder:
    """A CLIP or SigLIP of transformers, saved to a folder with its tokenizer and image processor.

    Features are the inputs of its projections (SigLIP: the embeddings before they are made unit length).

    seed: of random weights in place of the folder's.
    notes: how the images that it is given differ from those that its image processor would make.
    """

    def __init__(self, folder: Path, device: torch.device, fingerprint: str, seed: int | None = None) -> None:
        from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer, CLIPModel, SiglipModel

        with hub(f"model '{folder}'", "save model, tokenizer and image processor to the folder", local=True):
            if seed is None:
                model = AutoModel.from_pretrained(folder, trust_remote_code=False)
            else:
                config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
                with torch_seed(seed):
                    model = AutoModel.from_config(config, trust_remote_code=False)
            self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
        if not isinstance(model, CLIPModel | SiglipModel):
            raise BenchError(f"model '{folder}': a {type(model).__name__}; expected a CLIPModel or a SiglipModel")
        self.model: Any = model.float().to(device).eval()
        self.device = device
        self.image_size = int(model.config.vision_config.image_size)
        settings = processor.to_dict()
        self.resizing, self.notes = processor_resizing(settings, self.image_size)
        self.fingerprint = digest(["hf", fingerprint, asdict(self.resizing)])
        self.context_length = int(model.config.text_config.max_position_embeddings)
        self.temperature_scale = float(model.logit_scale.detach().exp()) if seed is None else TEMPERATURE_SCALE
        # SigLIP attends to padding, and was trained on texts of full length.
        self.padded = isinstance(model, SiglipModel)
        self.factor = float(settings["rescale_factor"]) if settings.get("do_rescale", True) else 1.0
        normal = ([0.0], [1.0])
        if settings.get("do_normalize", True):
            normal = (settings["image_mean"], settings["image_std"])
        self.mean, self.std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in normal)

    @torch.inference_mode()
    def encode_images(self, images: Tensor) -> Encoded:
        """Encode images uint8 [b, 3, H, W]."""
        return Encoded(*(x.cpu().numpy() for x in self.image_outputs(images)))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Encoded:
        """Encode texts, truncated to the model's context."""
        return Encoded(*(x.cpu().numpy() for x in self.text_outputs(texts)))

    def copy(self) -> Self:
        """Copy the encoder with its own weights."""
        other = copy(self)
        other.model = deepcopy(self.model)
        return other

    def parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over all weights."""
        return iter(self.model.parameters())

    def image_outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features [b, W] and embeddings [b, D], with a graph."""
        features = self._image_features(images)
        return features, F.normalize(self._project(features, "visual_projection"), dim=-1)

    def text_outputs(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Compute features [b, W] and embeddings [b, D], with a graph."""
        features = self._text_states(texts)[0].pooler_output
        return features, F.normalize(self._project(features, "text_projection"), dim=-1)

    def projected_images(self, images: Tensor) -> Tensor:
        """Compute embeddings of images before they are scaled to unit length, [b, D], with a graph."""
        return self._project(self._image_features(images), "visual_projection")

    def projected_words(self, texts: Sequence[str], length: int) -> Tensor:
        """Compute the projections of the first ``length`` tokens of texts, [b, length, D], with a graph.

        Padding is 0. SigLIP's projection is the head of its text tower, which it applies to the last token.
        """
        states, mask = self._text_states(texts)
        head = getattr(self.model.text_model, "head", None)
        words = self._project(
            states.last_hidden_state if head is None else head(states.last_hidden_state), "text_projection"
        )
        words = (words * mask[:, :, None])[:, :length]
        return F.pad(words, (0, 0, 0, length - words.shape[1]))

    def image_tokens(self, images: Tensor) -> Tensor:
        """Compute the patches of images after the last norm, [b, T, Wi], with a graph."""
        states: Tensor = self._image_states(images).last_hidden_state
        # SigLIP norms them itself, and has no class token.
        return states if self.padded else self.model.vision_model.post_layernorm(states[:, 1:])

    def text_tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Compute the tokens of texts after the last norm, [b, L, Wt], with a graph, and the mask bool [b, L]."""
        states, mask = self._text_states(texts)
        return states.last_hidden_state, mask.bool()

    def _image_features(self, images: Tensor) -> Tensor:
        features: Tensor = self._image_states(images).pooler_output
        return features

    def _image_states(self, images: Tensor) -> Any:
        """Return the outputs of the image tower."""
        pixels = (images.to(self.device).float() * self.factor - self.mean) / self.std
        return self.model.vision_model(pixel_values=pixels)

    def _text_states(self, texts: Sequence[str]) -> tuple[Any, Tensor]:
        """Return the outputs of the text tower, and a mask [b, L] that is 0 on padding."""
        padding = "max_length" if self.padded else "longest"
        tokens = self.tokenizer(
            list(texts),
            return_tensors="pt",
            return_attention_mask=True,
            padding=padding,
            truncation=True,
            max_length=self.context_length,
        ).to(self.device)
        mask = tokens.attention_mask
        return self.model.text_model(input_ids=tokens.input_ids, attention_mask=None if self.padded else mask), mask

    def _project(self, features: Tensor, projection: str) -> Tensor:
        project = getattr(self.model, projection, None)
        return features if project is None else project(features)


def processor_resizing(settings: Mapping[str, Any], image_size: int) -> tuple[Resizing, list[str]]:
    """Translate how an image processor of transformers resizes, for a model of ``image_size`` pixels a side.

    settings: its to_dict(). Returns the resizing, and a line for each setting that it cannot reproduce.
    """
    size = {name: pixels for name, pixels in (settings.get("size") or {}).items() if pixels}
    crop = {name: pixels for name, pixels in (settings.get("crop_size") or {}).items() if pixels}
    crop = crop if settings.get("do_center_crop") else {}
    edges, crops = set(size.values()), set(crop.values())
    known = size.keys() in ({"shortest_edge"}, {"height", "width"})
    resizes = settings.get("do_resize", True) and not settings.get("do_pad")
    if not known or len(edges) > 1 or len(crops) > 1 or not resizes:
        used = {"size": size, "crop_size": crop} | {name: settings.get(name) for name in ("do_resize", "do_pad")}
        text = ", ".join(f"{name} {value}" for name, value in used.items())
        return DEFAULT, [f"the image processor's {text} cannot be followed; images are resized and cropped as for CLIP"]
    (edge,), (output,) = edges, crops or edges
    notes = []
    if "shortest_edge" in size and not crop:
        notes.append("the image processor keeps the whole long side; here its middle is cropped out")
    if output != image_size:
        notes.append(f"the image processor makes {output} pixels a side; the model expects {image_size} and gets these")
    resample = settings.get("resample")
    interpolation = "bilinear" if resample is None else Image.Resampling(resample).name.lower()
    mode: Literal["shortest", "squash"] = "shortest" if "shortest_edge" in size else "squash"
    return Resizing(mode, interpolation, output / edge, odd="down"), notes


def _timm(rest: str) -> ExternalModel:
    import timm

    from benchmark.models.card import TimmImage

    name, _, file = rest.partition("/")
    if not timm.is_model(name):
        raise unknown("timm image model", name, timm.list_models())
    content: dict[str, Any] = {"timm": name, "pretrained": True}
    if file:
        require_file(file, f"a checkpoint of timm's '{name}'")
        content["pretrained"] = _sha256(Path(file))

    def build(device: torch.device, fingerprint: str, seed: int | None) -> Encoder:
        from benchmark.models.from_timm import timm_image, timm_resizing

        spec = TimmImage(kind="timm", name=name, pretrained=file or True)
        with torch_seed(seed or 0):
            tower = timm_image(spec, None, weights=seed is None)
        return ImageEncoder(tower, timm_resizing(tower.model), device, fingerprint)

    return ExternalModel(f"timm:{name}" + (f"/{_shown(Path(file))}" if file else ""), content, True, build)


class ImageEncoder:
    """An image tower alone; embeddings are its features at unit length."""

    temperature_scale = TEMPERATURE_SCALE

    def __init__(self, tower: "ImageTower", resizing: Resizing, device: torch.device, fingerprint: str) -> None:
        self.tower = tower.float().to(device).eval()
        self.device = device
        self.image_size = tower.image_size
        self.resizing = resizing
        self.fingerprint = digest(["image tower", fingerprint, asdict(resizing)])

    @torch.inference_mode()
    def encode_images(self, images: Tensor) -> Encoded:
        """Encode images uint8 [b, 3, H, W]."""
        features = self.tower(images.to(self.device).float() / 255).features
        return Encoded(features.cpu().numpy(), F.normalize(features, dim=-1).cpu().numpy())

    def encode_texts(self, texts: Sequence[str]) -> Encoded:
        """Raise: there is no text side."""
        raise NotImplementedError("an image tower has no texts")


def from_card(card: "ModelCard", initial: FixedEncoder, suite: str) -> FixedEncoder:
    """Make the weights that a model card names an encoder to evaluate. initial: the card's baseline with them."""
    label: Label = {
        "suite": suite,
        "model": "",
        "method": card.name,
        "variant": initial.label["variant"],
        "seed": initial.seed,
        "role": "model",
    }
    return FixedEncoder(initial.content | {"evaluated": card.name}, label, False, initial.build)


def _files(folder: Path) -> dict[str, str]:
    """Hash each file of a folder, by name. Raises ``BenchError`` where there is no folder."""
    if not folder.is_dir():
        raise BenchError(f"model folder {folder}: no such folder")
    return {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}


def _shown(path: Path) -> str:
    """Write a path in the name of a model: whole, since models of one name would replace each other in the tables.

    Relative to the current folder where it lies inside.
    """
    # A file is not followed: in a cache of the Hugging Face Hub it is a link to one that is named by its hash.
    full, here = path.parent.resolve() / path.name if path.is_file() else path.resolve(), Path.cwd()
    return str(full.relative_to(here)) if here in full.parents else str(full)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
