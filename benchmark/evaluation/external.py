"""Models that this harness did not train: from open_clip, transformers and timm, by a name on the command line."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from copy import copy, deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.common.errors import BenchError, unknown
from benchmark.common.seeding import torch_seed
from benchmark.data.resizing import DEFAULT, Resizing
from benchmark.evaluation.encoder import Encoded, Encoder, ModelEncoder
from benchmark.evaluation.fixed import TEMPERATURE_SCALE, Given, Materials, RawPixels
from benchmark.models.weights import hub, require_file
from benchmark.store import formats
from benchmark.store.hashing import digest

if TYPE_CHECKING:
    from benchmark.models import ModelCard
    from benchmark.models.tower import ImageTower

KINDS = ("open_clip", "hf", "timm")
LOCAL = ("local-dir:", "hf-hub:")


@dataclass(frozen=True)
class Elsewhere:
    """What a name stands for. content: everything that the outputs depend on; pretrained: whether it has weights.

    build: from a device, a fingerprint, and the seed of random weights; without a seed it reads its own.
    """

    name: str
    content: dict[str, Any]
    images_only: bool
    build: Callable[[torch.device, str, int | None], Encoder]
    pretrained: bool = True

    def given(self, seed: int, suite: str) -> Given:
        """It as something to evaluate; the seed is that of the tasks' own draws."""
        content = {"format": [formats.TRAINING, formats.EVALUATION], **self.content, "seed": seed}
        label = {"suite": suite, "model": "", "method": self.name, "variant": "", "seed": seed, "role": "model"}
        fingerprint = digest({"format": [formats.TRAINING, formats.EVALUATION], **self.content})

        def build(materials: Materials) -> Encoder:
            return self.build(materials.device, fingerprint, None)

        return Given(content, label, self.images_only, build)

    def baselines(self, seed: int, suite: str) -> list[Given]:
        """Its architecture with random weights, unless it has no others, and the raw pixels of what it sees."""
        content = {"format": [formats.TRAINING, formats.EVALUATION], "of": self.content, "seed": seed}
        label = {"suite": suite, "model": self.name, "variant": "", "seed": seed, "role": "baseline"}

        def untrained(materials: Materials) -> Encoder:
            return self.build(materials.device, digest(content | {"baseline": "untrained"}), seed)

        def raw_pixels(materials: Materials) -> Encoder:
            meta = torch.device("meta")
            with meta:
                return RawPixels(self.build(meta, "", seed))

        found = [Given(content | {"baseline": "raw pixels"}, label | {"method": "raw pixels"}, True, raw_pixels)]
        if self.pretrained:
            label = label | {"method": "untrained"}
            found.insert(0, Given(content | {"baseline": "untrained"}, label, self.images_only, untrained))
        return found


def is_elsewhere(spec: str) -> bool:
    """Whether a name is of the form KIND:..., rather than that of a model card. Raises ``BenchError`` for an unknown
    kind.
    """
    kind, colon, _ = spec.partition(":")
    if not colon or Path(spec).exists():
        return False
    if kind not in KINDS:
        raise unknown("kind of model (before the colon of --model)", kind, KINDS)
    return True


def elsewhere(spec: str) -> Elsewhere:
    """``open_clip:ARCHITECTURE``, followed by ``/TAG`` or ``/FILE`` (without: random weights);
    ``open_clip:local-dir:FOLDER`` or ``open_clip:hf-hub:NAME``; ``hf:FOLDER`` (a CLIP or SigLIP of transformers);
    ``timm:NAME``, with timm's weights or those of ``/FILE``: images only.

    No weights are read yet. Raises ``BenchError`` for what is not there, as far as that is known without a network.
    """
    kind, _, rest = spec.partition(":")
    if not rest:
        raise BenchError(f"--model {spec}: expected a name after the colon, as in open_clip:ViT-B-32/openai")
    return {"open_clip": _open_clip, "hf": _hugging_face, "timm": _timm}[kind](rest)


def _open_clip(rest: str) -> Elsewhere:
    from benchmark.models.from_open_clip import check_open_clip

    whole = rest.startswith(LOCAL)
    name, _, pretrained = (rest, "", "") if whole else rest.partition("/")
    content: dict[str, Any] = {"open_clip": name, "pretrained": pretrained}
    shown = f"open_clip:{name}"
    if rest.startswith("local-dir:"):
        folder = Path(rest.removeprefix("local-dir:"))
        content = {"open_clip": _files(folder)}
        shown = f"open_clip:{folder.name}"
    elif not whole:
        check_open_clip(name, pretrained or None)
        if Path(pretrained).suffix:
            require_file(pretrained, f"a checkpoint of open_clip's '{name}'")
            content["pretrained"] = _sha256(Path(pretrained))
        shown += f"/{Path(pretrained).name}" if pretrained else ""

    def build(device: torch.device, fingerprint: str, seed: int | None) -> Encoder:
        return _open_clip_encoder(name, pretrained or None, device, fingerprint, seed)

    return Elsewhere(shown, content, False, build, pretrained=whole or bool(pretrained))


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


def _hugging_face(rest: str) -> Elsewhere:
    folder = Path(rest)
    if not folder.is_dir():
        raise BenchError(f"--model hf:{rest}: no such folder; expected one that a CLIP of transformers was saved to")

    def build(device: torch.device, fingerprint: str, seed: int | None) -> Encoder:
        return HuggingFaceEncoder(folder, device, fingerprint, seed)

    return Elsewhere(f"hf:{folder.resolve().name}", {"hf": _files(folder)}, False, build)


class HuggingFaceEncoder:
    """A CLIP or SigLIP of transformers, saved to a folder with its tokenizer and image processor. Features: what its
    projections read (SigLIP: the embeddings before they are made unit length).

    seed: of random weights in place of the folder's.
    notes: in what the images that it is given differ from those that its image processor would make.
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
        said = processor.to_dict()
        self.resizing, self.notes = processor_resizing(said, self.image_size)
        self.fingerprint = digest(["hf", fingerprint, asdict(self.resizing)])
        self.context_length = int(model.config.text_config.max_position_embeddings)
        self.temperature_scale = float(model.logit_scale.detach().exp()) if seed is None else TEMPERATURE_SCALE
        # SigLIP attends to padding, and was trained on texts of full length.
        self.padded = isinstance(model, SiglipModel)
        self.factor = float(said["rescale_factor"]) if said.get("do_rescale", True) else 1.0
        normal = (said["image_mean"], said["image_std"]) if said.get("do_normalize", True) else ([0.0], [1.0])
        self.mean, self.std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in normal)

    @torch.inference_mode()
    def encode_images(self, images: Tensor) -> Encoded:
        return Encoded(*(x.cpu().numpy() for x in self.image_outputs(images)))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Encoded:
        return Encoded(*(x.cpu().numpy() for x in self.text_outputs(texts)))

    def copy(self) -> Self:
        other = copy(self)
        other.model = deepcopy(self.model)
        return other

    def parameters(self) -> Iterator[nn.Parameter]:
        return iter(self.model.parameters())

    def image_outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = (images.to(self.device).float() * self.factor - self.mean) / self.std
        return self._outputs(self.model.vision_model(pixel_values=pixels).pooler_output, "visual_projection")

    def text_outputs(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        padding = "max_length" if self.padded else "longest"
        tokens = self.tokenizer(
            list(texts), return_tensors="pt", padding=padding, truncation=True, max_length=self.context_length
        ).to(self.device)
        mask = None if self.padded else tokens.attention_mask
        out = self.model.text_model(input_ids=tokens.input_ids, attention_mask=mask)
        return self._outputs(out.pooler_output, "text_projection")

    def _outputs(self, features: Tensor, projection: str) -> tuple[Tensor, Tensor]:
        project = getattr(self.model, projection, None)
        return features, F.normalize(features if project is None else project(features), dim=-1)


def processor_resizing(said: dict[str, Any], image_size: int) -> tuple[Resizing, list[str]]:
    """What an image processor of transformers does to a picture, for a model that sees ``image_size`` pixels a side;
    and a line for each thing that it does and a ``Resizing`` cannot. said: its to_dict().
    """
    size = {name: pixels for name, pixels in (said.get("size") or {}).items() if pixels}
    cut = {name: pixels for name, pixels in (said.get("crop_size") or {}).items() if pixels}
    cut = cut if said.get("do_center_crop") else {}
    edges, known = set(size.values()), size.keys() in ({"shortest_edge"}, {"height", "width"})
    if not known or len(edges) > 1 or len({*cut.values()}) > 1 or not said.get("do_resize", True) or said.get("do_pad"):
        asked = {"size": size, "crop_size": cut} | {name: said.get(name) for name in ("do_resize", "do_pad")}
        text = ", ".join(f"{name} {value}" for name, value in asked.items())
        return DEFAULT, [f"the image processor's {text} cannot be followed; resized and cut as CLIP does"]
    (edge,), (made,) = edges, {*cut.values()} or edges
    notes = []
    if "shortest_edge" in size and not cut:
        notes.append("the image processor cuts nothing off the long side; here its middle is kept")
    if made != image_size:
        notes.append(f"the image processor makes {made} pixels a side; the model sees {image_size}, and is given these")
    resample = said.get("resample")
    interpolation = "bilinear" if resample is None else Image.Resampling(resample).name.lower()
    mode: Any = "shortest" if "shortest_edge" in size else "squash"
    return Resizing(mode, interpolation, made / edge, odd="down"), notes


def _timm(rest: str) -> Elsewhere:
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

    return Elsewhere(f"timm:{name}" + (f"/{Path(file).name}" if file else ""), content, True, build)


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
        features = self.tower(images.to(self.device).float() / 255).features
        return Encoded(features.cpu().numpy(), F.normalize(features, dim=-1).cpu().numpy())

    def encode_texts(self, texts: Sequence[str]) -> Encoded:
        raise NotImplementedError("an image tower has no texts")


def from_card(card: "ModelCard", initial: Given, suite: str) -> Given:
    """The weights that a model card names, as something to evaluate. initial: the card's baseline of that name."""
    label = {"suite": suite, "model": "", "method": card.name, "variant": initial.label["variant"]}
    return Given(
        initial.content | {"evaluated": card.name},
        label | {"seed": initial.seed, "role": "model"},
        False,
        initial.build,
    )


def _files(folder: Path) -> dict[str, str]:
    """The hash of each file of a folder by its name; raises ``BenchError`` where there is no folder."""
    if not folder.is_dir():
        raise BenchError(f"model folder {folder}: no such folder")
    return {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
