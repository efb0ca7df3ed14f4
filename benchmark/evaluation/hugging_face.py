"""The encoder of a CLIP or SigLIP of transformers."""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.common.errors import BenchError
from benchmark.common.seeding import torch_seed
from benchmark.data.resizing import Resizing
from benchmark.evaluation.encoder import Encoded
from benchmark.evaluation.fixed import TEMPERATURE_SCALE
from benchmark.models.folders import CONFIG, base_of
from benchmark.models.from_transformers import load_transformers
from benchmark.models.tokenizer import highest_token, load_tokenizer
from benchmark.models.weights import hub
from benchmark.store.hashing import digest

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt")
PROCESSOR = ("preprocessor_config.json", "processor_config.json")


class HuggingFaceEncoder:
    """A CLIP or SigLIP of transformers, saved to a folder with its tokenizer and image processor.

    Features are the inputs of its projections (SigLIP: the embeddings before they are made unit length).

    seed: of random weights in place of the folder's. lowercase: whether texts are lower-cased first.
    notes: how the images that it is given differ from those that its image processor would make.

    Raises ``BenchError`` for a folder that is not of this kind, and for images that a run cannot prepare as its image
    processor would.
    """

    def __init__(
        self, folder: Path, device: torch.device, fingerprint: str, seed: int | None = None, lowercase: bool = False
    ) -> None:
        from transformers import MODEL_MAPPING, AutoConfig, AutoImageProcessor, AutoModel, CLIPModel, SiglipModel

        base = base_of(folder) or folder
        with hub(f"model '{folder}'", "save model, tokenizer and image processor to the folder", local=True):
            config = AutoConfig.from_pretrained(base, trust_remote_code=False)
            if config.model_type == "siglip2":
                raise BenchError(
                    f"model '{folder}': a Siglip2Model takes images of any shape (NaFlex), and a run prepares squares "
                    "of one size; use a variant of one size, as google/siglip2-base-patch16-224"
                )
            kind = MODEL_MAPPING.get(type(config), None)
            if kind not in (CLIPModel, SiglipModel):
                raise BenchError(
                    f"model '{folder}': {CONFIG} is that of a {getattr(kind, '__name__', config.model_type)}; expected "
                    "a CLIPModel or a SiglipModel, with both towers"
                )
            self.tokenizer = load_tokenizer(_with(TOKENIZER, folder, base))
            self._check_tokens(config.text_config, folder)
            with torch_seed(seed or 0):
                if seed is None:
                    model, _ = load_transformers(folder, "dual encoder", config)
                else:
                    model = AutoModel.from_config(config, trust_remote_code=False)
            place = _with(PROCESSOR, folder, base)
            if not any((place / name).is_file() for name in PROCESSOR):
                raise BenchError(
                    f"model '{folder}': no image processor ({PROCESSOR[0]}) in {place}; save it there: "
                    "processor.save_pretrained(FOLDER)"
                )
            processor = AutoImageProcessor.from_pretrained(place, trust_remote_code=False)
        self.model: Any = model.float().to(device).eval()
        self.device = device
        self.lowercase = lowercase
        self.image_size = int(model.config.vision_config.image_size)
        settings = processor.to_dict()
        self.resizing, self.notes = processor_resizing(settings, self.image_size, f"model '{folder}'")
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

    def _check_tokens(self, config: Any, folder: Path) -> None:
        """Raise ``BenchError`` if the text tower cannot read the tokens, by its configuration."""
        tokenizer, rows = self.tokenizer, config.vocab_size
        instead = "the tokenizer is of another model; save the model's own to the folder"
        highest = highest_token(tokenizer)
        if highest >= rows:
            raise BenchError(
                f"model '{folder}': its tokenizer has tokens up to {highest}, but its text embedding has {rows} rows "
                f"(vocab_size in {CONFIG}): {instead}"
            )
        if tokenizer.pad_token_id is None:
            raise BenchError(f"model '{folder}': its tokenizer has no token to pad with (pad_token): {instead}")
        # CLIP pools the first end token; 2 stands for configurations that were saved with a wrong one.
        end = config.eos_token_id
        if config.model_type == "clip_text_model" and end != 2 and end not in tokenizer("").input_ids:
            raise BenchError(
                f"model '{folder}': the text tower takes its feature at token {end} (eos_token_id), but its tokenizer "
                f"ends texts with {tokenizer('').input_ids[-1:]}: {instead}"
            )

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
            [text.lower() for text in texts] if self.lowercase else list(texts),
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


def _with(names: Sequence[str], folder: Path, base: Path) -> Path:
    """Return the folder of an adapter if it has one of these files, else that of its base."""
    return folder if any((folder / name).is_file() for name in names) else base


def processor_resizing(settings: Mapping[str, Any], image_size: int, what: str) -> tuple[Resizing, list[str]]:
    """Translate how an image processor of transformers resizes, for a model of ``image_size`` pixels a side.

    settings: its to_dict(). what: the model, for messages. Returns the resizing, and a line where the processor makes
    squares of another size than the model takes. Raises ``BenchError`` for a processor that makes anything but squares
    by resizing and cropping, since every image of a run is prepared so.
    """
    size = {name: pixels for name, pixels in (settings.get("size") or {}).items() if pixels}
    crop = {name: pixels for name, pixels in (settings.get("crop_size") or {}).items() if pixels}
    crop = crop if settings.get("do_center_crop") else {}
    edges, crops = set(size.values()), set(crop.values())
    squares = size.keys() == {"height", "width"} or (size.keys() == {"shortest_edge"} and bool(crop))
    resizes = settings.get("do_resize", True) and not settings.get("do_pad")
    if not squares or len(edges) > 1 or len(crops) > 1 or not resizes:
        used = {"size": size, "crop_size": crop, "do_pad": settings.get("do_pad")}
        text = ", ".join(f"{name} {value}" for name, value in used.items() if value)
        text += "" if settings.get("do_resize", True) else ", do_resize False"
        raise BenchError(
            f"{what}: its image processor has {text}, and a run prepares squares; expected one that resizes both sides "
            "to one size, or the short side and crops to a square"
        )
    (edge,), (output,) = edges, crops or edges
    notes = []
    if output != image_size:
        notes.append(f"the image processor makes {output} pixels a side; the model expects {image_size} and gets these")
    resample = settings.get("resample")
    interpolation = "bilinear" if resample is None else Image.Resampling(resample).name.lower()
    mode: Literal["shortest", "squash"] = "shortest" if "shortest_edge" in size else "squash"
    return Resizing(mode, interpolation, output / edge, odd="down"), notes
