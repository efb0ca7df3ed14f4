"""External models, which this harness did not train: published ones by their card, others by their library's name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import torch

from benchmark.common.collection import no_collection
from benchmark.common.errors import BenchError, listed, unknown
from benchmark.common.seeding import torch_seed
from benchmark.evaluation.encoder import Encoder, ModelEncoder
from benchmark.evaluation.fixed import TEMPERATURE_SCALE, FixedEncoder, Materials, RawPixels, random_towers
from benchmark.evaluation.hugging_face import HuggingFaceEncoder
from benchmark.evaluation.images_only import ImageEncoder
from benchmark.models.card import LOCAL
from benchmark.models.folders import HUB_NAME, check_open_clip_folder, file_hashes, hub_folder, layouts, written_as
from benchmark.models.folders import WEIGHTS as SUFFIXES
from benchmark.models.published import PublishedModel, is_published, load_published
from benchmark.models.saved import CONFIG, TOKENIZER, WEIGHTS, is_saved, load_model
from benchmark.models.weights import require_file
from benchmark.store import formats
from benchmark.store.hashing import digest, file_digest
from benchmark.store.rows import Label

if TYPE_CHECKING:
    from benchmark.models import ModelCard

KINDS = ("open_clip", "hf", "timm")
WHOLE = ("local-dir:", "hf-hub:")
"""Prefixes of open_clip names that stand for both architecture and weights."""
RANDOM = "random"
"""What stands in place of weights for an architecture of random ones: the tables then say so by the model's name."""


@dataclass(frozen=True)
class ExternalModel:
    """A model given by its name on the command line.

    content: everything that the outputs depend on. images_only: whether it has no text side. pretrained: whether it has
    weights. build: makes the encoder from a device, a fingerprint, and the seed of random weights (None: its own).
    prompts: the templates of its authors for the names of classes, if it has a card.
    """

    name: str
    content: dict[str, Any]
    images_only: bool
    build: Callable[[torch.device, str, int | None], Encoder]
    pretrained: bool = True
    prompts: Sequence[str] = ()

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
    """Return whether a name is of the form KIND:... or that of a published model's card, not that of a model card.

    Raises ``BenchError`` for an unknown kind, and for the path of a model without its kind.
    """
    kind, colon, _ = spec.partition(":")
    path = Path(spec)
    if path.is_dir():
        raise BenchError(f"--model {spec}: a folder; {written_as(path)}")
    if path.suffix in SUFFIXES and path.is_file():
        raise BenchError(
            f"--model {spec}: a checkpoint; write its architecture too: open_clip:NAME/{spec} or timm:NAME/{spec}"
        )
    if not colon or path.exists():
        return is_published(spec)
    if kind not in KINDS:
        raise unknown("kind of model (before the colon of --model)", kind, KINDS)
    return True


def external_model(spec: str) -> ExternalModel:
    """Resolve the name of an external model. No weights are read yet.

    spec: the name of a published model's card, or the path of one; ``open_clip:ARCHITECTURE``, followed by ``/TAG``,
    ``/FILE`` or ``/random``; ``open_clip:local-dir:FOLDER`` or ``open_clip:hf-hub:NAME``; ``hf:FOLDER`` or
    ``hf:ORG/NAME`` (a CLIP or SigLIP of transformers, an adapter of peft for one, or what ``bench export`` wrote);
    ``timm:NAME``, with timm's weights, those of ``/FILE`` or ``/random``, or ``timm:FOLDER`` that timm saved: images
    only.

    Models that are named by ``hf:ORG/NAME``, and bases of adapters, are downloaded, as their files are part of the key.
    Raises ``BenchError`` for a name, tag, file or folder that does not exist, as far as that is known offline, and for
    an architecture without weights: random ones must be asked for.
    """
    if is_published(spec):
        return published_model(load_published(spec))
    kind, _, rest = spec.partition(":")
    if not rest:
        raise BenchError(f"--model {spec}: expected a name after the colon, as in open_clip:ViT-B-32/openai")
    return {"open_clip": _open_clip, "hf": _hugging_face, "timm": _timm}[kind](rest)


def published_model(card: PublishedModel) -> ExternalModel:
    """Make the model of a card, whose files must be here or be downloaded now."""
    folders = card.find()
    content = {"published": card.load.model_dump(mode="json"), "files": card.hashes(folders)}

    def build(device: torch.device, fingerprint: str, seed: int | None) -> Encoder:
        if card.load.kind == "transformers":
            return HuggingFaceEncoder(folders[0], device, fingerprint, seed, lowercase=card.load.lowercase)
        from benchmark.models.from_published import load_published_model

        loaded = load_published_model(card, folders, weights=seed is None, seed=seed or 0)
        return ModelEncoder(
            loaded.model, loaded.tokenizer, device, fingerprint, loaded.temperature_scale or TEMPERATURE_SCALE
        )

    return ExternalModel(card.name, content, False, build, prompts=card.prompts)


def with_own_prompts(model: ExternalModel) -> ExternalModel:
    """Name a model whose authors' prompts stand in place of those of the datasets, beside itself in the tables.

    Raises ``BenchError`` for a model without any.
    """
    if not model.prompts:
        raise BenchError(f"--own-prompts: no prompts of {model.name} are known; those of the datasets' cards are used")
    return replace(model, name=f"{model.name} (own prompts)")


def _open_clip(rest: str) -> ExternalModel:
    path = Path(rest)
    if path.is_dir():
        raise BenchError(f"--model open_clip:{rest}: a folder; {written_as(path)}")
    if path.suffix in SUFFIXES and path.is_file():
        raise BenchError(f"--model open_clip:{rest}: a checkpoint; write its architecture too: open_clip:NAME/{rest}")
    whole = rest.startswith(WHOLE)
    name, _, tag = (rest, "", "") if whole else rest.partition("/")
    pretrained = "" if tag == RANDOM else tag
    content: dict[str, Any] = {"open_clip": name, "pretrained": pretrained}
    title = f"open_clip:{name}"
    if rest.startswith("local-dir:"):
        folder = Path(rest.removeprefix("local-dir:"))
        check_open_clip_folder(folder)
        content = {"open_clip": file_hashes(folder)}
        title = f"open_clip:{_shown(folder)}"
    elif whole:
        from benchmark.models.from_open_clip import hub_hashes

        content["files"] = hub_hashes(name)
    else:
        from benchmark.models.from_open_clip import check_open_clip

        check_open_clip(name, pretrained or None)
        if not tag:
            from open_clip import list_pretrained_tags_by_model

            tags = list_pretrained_tags_by_model(name)
            raise BenchError(
                f"--model open_clip:{rest}: no weights named; expected open_clip:{name}/TAG or /FILE, or "
                f"open_clip:{name}/{RANDOM} for random ones; tags: {listed(tags)}"
            )
        if Path(pretrained).suffix:
            require_file(pretrained, f"a checkpoint of open_clip's '{name}'")
            content["pretrained"], tag = file_digest(Path(pretrained)), _shown(Path(pretrained))
        title += f"/{tag}"

    def build(device: torch.device, fingerprint: str, seed: int | None) -> Encoder:
        return _open_clip_encoder(name, pretrained or None, device, fingerprint, seed)

    return ExternalModel(title, content, False, build, pretrained=whole or bool(pretrained))


def _open_clip_encoder(
    name: str, pretrained: str | None, device: torch.device, fingerprint: str, seed: int | None
) -> ModelEncoder:
    from benchmark.models.card import OpenClipTokenizer
    from benchmark.models.dual_encoder import DualEncoder
    from benchmark.models.tokenizer import open_clip_tokenizer

    # The library imports more than torch does, all of which stays.
    with no_collection():
        from benchmark.models.from_open_clip import image_tower, open_clip_model, text_tower

    tokenizer = open_clip_tokenizer(OpenClipTokenizer(kind="open_clip", name=name))
    with torch_seed(seed or 0):
        whole = open_clip_model(name, pretrained, None, None, weights=seed is None)
    scale = float(whole.logit_scale.detach().exp()) if seed is None else TEMPERATURE_SCALE
    image, (image_projection, width) = image_tower(whole.visual, name)
    text, (text_projection, _) = text_tower(whole.text, tokenizer.pad_id)
    model = DualEncoder(image, text, image_projection, text_projection, width).float()
    model.check(tokenizer, f"open_clip:{name}")
    return ModelEncoder(model, tokenizer, device, fingerprint, scale)


def _hugging_face(rest: str) -> ExternalModel:
    folder = Path(rest)
    title = f"hf:{_shown(folder)}"
    of_hub = not folder.is_dir()
    if of_hub:
        expected = "a folder with a saved CLIP or SigLIP of transformers, or of bench export"
        if not HUB_NAME.fullmatch(rest) or folder.exists():
            raise BenchError(f"--model hf:{rest}: no such folder; expected {expected}, or ORG/NAME of the hub")
        folder = hub_folder(rest, f"download it where there is a network, or name {expected} (no such folder here)")
        title = f"hf:{rest}"
    if is_saved(folder):
        return _exported(folder, title)
    if not {"transformers", "adapter"} & {*layouts(folder)}:
        raise BenchError(f"--model hf:{rest}: no {CONFIG} with a model_type of transformers; {written_as(folder)}")

    def build(device: torch.device, fingerprint: str, seed: int | None) -> Encoder:
        return HuggingFaceEncoder(folder, device, fingerprint, seed)

    return ExternalModel(title, {"hf": file_hashes(folder, of_hub)}, False, build)


def _exported(folder: Path, title: str) -> ExternalModel:
    """Make the model of a folder that ``bench export`` wrote."""
    tokenizer = sorted(path for path in (folder / TOKENIZER).rglob("*") if path.is_file())
    files = [folder / CONFIG, folder / WEIGHTS, *tokenizer]

    def build(device: torch.device, fingerprint: str, seed: int | None) -> Encoder:
        saved = load_model(folder, weights=seed is None, seed=seed or 0)
        scale = saved.temperature_scale if seed is None else TEMPERATURE_SCALE
        return ModelEncoder(saved.model, saved.tokenizer, device, fingerprint, scale, by_tokens=saved.by_tokens)

    for file in files:
        require_file(file, "a file of bench export")
    content = {"exported": {str(PurePosixPath(file.relative_to(folder))): file_digest(file) for file in files}}
    return ExternalModel(title, content, False, build)


def _timm(rest: str) -> ExternalModel:
    from benchmark.models.card import TimmImage
    from benchmark.models.from_timm import architecture_of, check_weights

    path = Path(rest.removeprefix(LOCAL))
    if path.suffix in SUFFIXES and path.is_file():
        raise BenchError(f"--model timm:{rest}: a checkpoint; write its architecture too: timm:NAME/{rest}")
    name, _, file = rest.partition("/")
    content: dict[str, Any] = {"timm": name, "pretrained": True}
    title = f"timm:{name}" + (f"/{_shown(Path(file))}" if file else "")
    if path.is_dir() or rest.startswith(LOCAL):
        if path.is_dir() and "timm" not in layouts(path):
            raise BenchError(f"--model timm:{rest}: timm did not write it; {written_as(path)}")
        name, file, title = f"{LOCAL}{path}", "", f"timm:{_shown(path)}"
        content = {"timm": architecture_of(name), "pretrained": file_hashes(path)}
    architecture_of(name)
    random = file == RANDOM
    if random:
        content["pretrained"], title = False, f"timm:{name}/{RANDOM}"
    elif not file and not name.startswith(LOCAL):
        check_weights(name)
    elif file:
        require_file(file, f"a checkpoint of timm's '{name}'")
        content["pretrained"] = file_digest(Path(file))

    def build(device: torch.device, fingerprint: str, seed: int | None) -> Encoder:
        from benchmark.models.from_timm import timm_image, timm_resizing

        spec = TimmImage(kind="timm", name=name, pretrained=not random and (file or True))
        with torch_seed(seed or 0):
            tower = timm_image(spec, None, weights=seed is None)
        return ImageEncoder(tower, timm_resizing(tower.model), device, fingerprint)

    return ExternalModel(title, content, True, build, pretrained=not random)


def from_card(card: "ModelCard", initial: FixedEncoder, suite: str) -> FixedEncoder:
    """Make the weights that a model card names an encoder to evaluate. initial: the card's baseline with them.

    Its name says which towers are random.
    """
    random = random_towers(card) if card.init is None or card.init.method is None else []
    towers = {0: "", 1: f" (random {random[0]} tower)" if random else "", 2: f" ({RANDOM})"}[len(random)]
    label: Label = {
        "suite": suite,
        "model": "",
        "method": card.name + towers,
        "variant": initial.label["variant"],
        "seed": initial.seed,
        "role": "model",
    }
    return FixedEncoder(initial.content | {"evaluated": card.name}, label, False, initial.build)


def _shown(path: Path) -> str:
    """Write a path in the name of a model: whole, since models of one name would replace each other in the tables.

    Relative to the current folder where it lies inside.
    """
    # A file is not followed: in a cache of the Hugging Face Hub it is a link to one that is named by its hash.
    full, here = path.parent.resolve() / path.name if path.is_file() else path.resolve(), Path.cwd()
    return str(full.relative_to(here)) if here in full.parents else str(full)
