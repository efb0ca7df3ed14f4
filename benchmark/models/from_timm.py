"""Image towers from timm."""

import math
from pathlib import Path
from typing import Any

from torch import Tensor
from typing_extensions import override

from benchmark.common.errors import BenchError, unknown
from benchmark.data.resizing import DEFAULT, Resizing
from benchmark.models.card import LOCAL, TimmImage
from benchmark.models.efficientnet import timm_names
from benchmark.models.folders import CONFIG, contents, layouts, read_config, require_weights
from benchmark.models.loading import LENIENT, recorded, require_whole
from benchmark.models.tower import Group, ImageTower, PatchDropout, TowerOutput, groups_by, square_side
from benchmark.models.weights import hub, read_tensors, reading


class TimmImageTower(ImageTower):
    """A timm model without its classifier. Features are the classifier's input; tokens are the last map or patches."""

    def __init__(self, model: Any, image_size: int | None, name: str) -> None:
        from timm.data import resolve_model_data_config
        from timm.models.vision_transformer import VisionTransformer

        config = resolve_model_data_config(model)
        super().__init__(config["mean"], config["std"])
        self.name = name
        self.image_size = image_size or square_side(config["input_size"][1:], name)
        fixed = hasattr(model, "set_input_size") and not getattr(model, "dynamic_img_size", False)
        if fixed and self.image_size != config["input_size"][-1]:
            model.set_input_size(img_size=self.image_size)
        if isinstance(model, VisionTransformer):
            model.patch_drop = PatchDropout(prefix=model.num_prefix_tokens)
        self.model = model
        self.width = model.head_hidden_size
        self.has_tokens = model.num_features == self.width

    @override
    def forward(self, x: Tensor) -> TowerOutput:
        features = self.model.forward_features(self.normalise(x))
        pooled = self.model.forward_head(features, pre_logits=True)
        return TowerOutput(pooled, self._tokens(features) if self.has_tokens else None)

    def _tokens(self, features: Tensor) -> Tensor:
        if features.ndim == 3:
            return features[:, getattr(self.model, "num_prefix_tokens", 0) :]
        if str(getattr(self.model, "output_fmt", "NCHW")) == "NHWC":
            return features.flatten(1, 2)
        return features.flatten(2).transpose(1, 2)

    def layer_groups(self) -> list[Group]:
        """The groups of timm's own group_matcher."""
        return timm_groups(self.model)

    @override
    def set_gradient_checkpointing(self, enabled: bool) -> None:
        try:
            self.model.set_grad_checkpointing(enabled)
        except (AssertionError, AttributeError) as error:
            if enabled:
                raise BenchError(f"gradient checkpointing: timm's '{self.name}' does not support it") from error


def timm_resizing(model: Any) -> Resizing:
    """The resizing of timm's create_transform() for evaluation, by the data configuration of a model."""
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(model)
    mode: Any = {"squash": "squash", "border": "longest"}.get(config["crop_mode"], "shortest")
    size = config["input_size"][-1]
    crop = size / math.floor(size / config["crop_pct"])
    red, green, blue = (round(255 * value) for value in config["mean"])
    fill = (red, green, blue) if mode == "longest" else DEFAULT.fill
    return Resizing(mode, config["interpolation"], crop, fill)


def timm_groups(model: Any) -> list[Group]:
    """The layer groups of a timm model, from input to output."""
    from timm.models import group_parameters

    if not hasattr(model, "group_matcher"):
        raise BenchError(f"layer groups: timm's {type(model).__name__} defines none")
    return groups_by(model, group_parameters(model, model.group_matcher(coarse=False), reverse=True).__getitem__)


def architecture_of(name: str) -> str:
    """Return timm's name of an architecture. name: it, or ``local-dir:FOLDER`` of one that timm saved.

    Raises ``BenchError`` for a name that timm does not know, and for a folder of another layout.
    """
    import timm

    where = ""
    if name.startswith(LOCAL):
        folder = Path(name.removeprefix(LOCAL))
        where = f" of {folder / CONFIG}"
        if not folder.is_dir():
            raise BenchError(f"model folder {folder}: no such folder")
        if "timm" not in layouts(folder):
            raise BenchError(
                f"model folder {folder}: no {CONFIG} with timm's 'architecture'; found {contents(folder)}; a "
                "checkpoint alone is given with its architecture: timm:NAME/FILE"
            )
        name = str(read_config(folder / CONFIG)["architecture"])
    if not timm.is_model(name):
        raise unknown(f"timm image model{where}", name, timm.list_models())
    return name


def check_weights(name: str) -> None:
    """Raise ``BenchError`` if timm has no weights of an architecture, or not those of the tag after its dot."""
    import timm

    architecture, _, tag = name.partition(".")
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{architecture}.*")]
    if not tags:
        raise BenchError(
            f"timm has no weights of '{architecture}'; name a checkpoint: timm:{architecture}/FILE, or "
            f"timm:{architecture}/random for random ones"
        )
    if tag and tag not in tags:
        raise unknown(f"pretrained tag of {architecture}", tag, tags)


def timm_image(spec: TimmImage, image_size: int | None, weights: bool, strict: bool = True) -> TimmImageTower:
    """Build a timm tower, with random weights if ``weights`` is false (for the meta device).

    strict: refuse weights that are not whole.
    """
    import timm

    architecture, local = architecture_of(spec.name), spec.name.startswith(LOCAL)
    if local and weights:
        require_weights(Path(spec.name.removeprefix(LOCAL)), "model.safetensors or pytorch_model.bin")
    source = spec.pretrained if isinstance(spec.pretrained, str) else spec.name.removeprefix(LOCAL)
    options: dict[str, Any] = {**spec.config, "num_classes": 0}
    if spec.drop_path:
        options["drop_path_rate"] = spec.drop_path
    instead = "download it where there is a network, or name a local checkpoint: image.pretrained: PATH"
    expected = f"a checkpoint of timm's '{architecture}'"
    try:
        with recorded() as loading:
            if not weights or not (spec.pretrained or local):
                model = timm.create_model(spec.name, **options)
            elif spec.pretrained is True or not spec.pretrained:
                with hub(f"timm weights of '{spec.name}'", instead, local=local):
                    model = timm.create_model(spec.name, pretrained=True, **options)
            else:
                tensors = timm_names(read_tensors(spec.pretrained, expected), architecture)
                state = _without_classifier(tensors, architecture)
                if not state:
                    raise BenchError(f"weights {source}: expected {expected}, found a classifier alone")
                # timm drops the classifier's tensors by their number of classes, so the checkpoint claims the same.
                overlay = {"state_dict": state, "num_classes": 0}
                with reading(spec.pretrained, expected):
                    model = timm.create_model(spec.name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    except TypeError as error:
        raise BenchError(f"timm image model '{spec.name}': {error}") from error
    if spec.pretrained is True and not local:
        loading.unexpected.clear()  # timm's own weights of the name: what its architecture has not was left out
    loading.unexpected = {name for name in loading.unexpected if not name.startswith(_heads(architecture))}
    tower = TimmImageTower(model, image_size, spec.name)
    tower.patch_dropout = spec.patch_dropout
    what = f"weights {source} (expected {expected})"
    tower.left_random = require_whole(loading, what, "image tower", strict, instead=LENIENT)
    return tower


def _classifiers(name: str) -> tuple[str, ...]:
    """The prefixes of the tensors of an architecture's classifier, which a tower has not."""
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    classifiers = getattr(config, "classifier", None) or ()
    return tuple(f"{c}." for c in ([classifiers] if isinstance(classifiers, str) else classifiers))


def _heads(name: str) -> tuple[str, ...]:
    """The prefixes of the tensors of the modules around a classifier: some architectures norm its input there."""
    return tuple(f"{c[:-1].rpartition('.')[0] or c[:-1]}." for c in _classifiers(name))


def _without_classifier(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if not key.startswith(_classifiers(name))}
