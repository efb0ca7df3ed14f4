"""Text towers from transformers."""

import inspect
import re
import warnings
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from benchmark.common.errors import BenchError, unknown
from benchmark.models.card import TransformersText
from benchmark.models.folders import base_of, require_weights
from benchmark.models.loading import LENIENT, Kind, of_transformers, require_whole
from benchmark.models.tower import Group, LanguageModelTower, TowerOutput, groups_by, last_token, mean_token
from benchmark.models.weights import hub


class TransformersTextTower(LanguageModelTower):
    """A text model of transformers with pooling. Tokens are its last hidden state."""

    def __init__(self, model: Any, pooling: str) -> None:
        super().__init__()
        from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

        config = model.config
        if getattr(config, "is_encoder_decoder", False):
            model = model.get_encoder()
        elif "add_pooling_layer" in inspect.signature(type(model).__init__).parameters:
            model.pooler = None
        config.use_cache = False
        self.model = model
        self.pooling = pooling
        self.width = config.hidden_size
        self.vocab_size = config.vocab_size
        self.context_length = getattr(config, "max_position_embeddings", None) or 1_000_000
        if config.model_type in {"roberta", "xlm-roberta", "camembert", "mpnet", "longformer"}:
            # The positions of these models start after the index of the padding token.
            self.context_length -= config.pad_token_id + 1
        only_causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING
        self.causal = only_causal or bool(getattr(config, "is_decoder", False))

    @override
    def forward(self, tokens: Tensor, mask: Tensor) -> TowerOutput:
        length, before = tokens.shape[1], 0
        arguments: dict[str, Any] = {"input_ids": tokens}
        if self.prompt is not None and self.prompted:
            arguments = {"inputs_embeds": self._prompted(self.word_embedding(tokens))}
            before += len(self.prompt)
        if self.prefix is not None:
            arguments["past_key_values"] = _cache(self.prefix, len(tokens))
            before += self.prefix.shape[3]
        attended: Tensor | None = F.pad(mask.long(), (before, 0), value=1)
        if mask.is_meta and not self.causal:
            attended = None  # transformers reads the values of a mask; without one, the shapes are the same
        elif mask.is_meta:
            # unless it is already one of queries by keys.
            queries = before + length - (0 if self.prefix is None else self.prefix.shape[3])
            attended = mask.new_ones(len(mask), 1, queries, before + length)
        hidden = self.model(**arguments, attention_mask=attended).last_hidden_state[:, -length:]
        if self.pooling == "cls":
            return TowerOutput(hidden[:, 0], hidden)
        return TowerOutput((mean_token if self.pooling == "mean" else last_token)(hidden, mask), hidden)

    def layer_groups(self) -> list[Group]:
        """Everything before the layers; each layer; the last layer with everything after it."""
        first, *rest = transformers_groups(self.model)
        return [[*first, *self._virtual()], *rest]

    @property
    @override
    def language_model(self) -> nn.Module:
        model: nn.Module = self.model
        return model

    @property
    @override
    def word_embedding(self) -> nn.Embedding:
        embedding: nn.Embedding = self.model.get_input_embeddings()
        return embedding

    @property
    @override
    def prefix_shape(self) -> tuple[int, int, int]:
        config = self.model.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return config.num_hidden_layers, heads, width

    @override
    def set_gradient_checkpointing(self, enabled: bool) -> None:
        if enabled and self.prefix is not None:
            # transformers silently ignores past keys and values when it recomputes activations.
            raise BenchError("gradient checkpointing: a transformers text tower with a prefix does not support it")
        with warnings.catch_warnings():
            # Newer versions have these under other names, and warn.
            warnings.simplefilter("ignore", FutureWarning)
            if enabled:
                self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            elif self.model.is_gradient_checkpointing:
                self.model.gradient_checkpointing_disable()


def _cache(prefix: Tensor, count: int) -> Any:
    """The prefix as past keys and values of ``count`` texts, in the form of transformers."""
    from transformers import DynamicCache

    cache = DynamicCache()
    for layer, (keys, values) in enumerate(prefix):
        cache.update(keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1), layer)
    return cache


def _layers(model: nn.Module) -> tuple[str, int]:
    """The path and the number of a transformers model's layers, its longest ModuleList."""
    lists = {name: m for name, m in model.named_modules() if isinstance(m, nn.ModuleList)}
    path = max(lists, key=lambda name: len(lists[name]))
    return path, len(lists[path])


def _is_of_a_later_layer(name: str, model: nn.Module) -> bool:
    """Whether a tensor belongs to a layer after the model's last."""
    path, count = _layers(model)
    layer = re.search(rf"(^|\.){re.escape(path)}\.(\d+)\.", name)
    return layer is not None and int(layer[2]) >= count


def transformers_groups(model: nn.Module) -> list[Group]:
    """The layer groups of a transformers model, whose layers are its longest ModuleList."""
    path, count = _layers(model)
    names = [name for name, _ in model.named_parameters()]
    inside = [i for i, name in enumerate(names) if name.startswith(f"{path}.")]

    def group(name: str) -> int:
        layer = re.match(rf"{re.escape(path)}\.(\d+)\.", name)
        if layer:
            return int(layer[1]) + 1
        return 0 if names.index(name) < inside[0] else count

    return groups_by(model, group)


def load_transformers(
    name: str | Path, kind: Kind, config: Any = None, strict: bool = True, instead: str = "", shallow: bool = False
) -> tuple[Any, str]:
    """Load a base model of transformers with its weights; a folder with an adapter of peft, with the adapter merged.

    name: a folder, or a name on the hub. config: in place of the model's own. shallow: whether it is to have fewer
    layers than the weights. Returns the model, and what was left
    random, as require_whole() says. Raises ``BenchError`` for weights that are not whole, see there; and what
    transformers raises, for hub().
    """
    from transformers import AutoModel, logging

    # It would report tensors that are not needed (a language modelling head) like errors; require_whole() reports.
    logging.set_verbosity_error()
    base = base_of(Path(name)) if Path(name).is_dir() else None
    source = base or name
    if Path(source).is_dir():
        require_weights(Path(source), "model.safetensors or pytorch_model.bin")
    options = {} if config is None else {"config": config}
    model, info = AutoModel.from_pretrained(
        source, trust_remote_code=False, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    what = f"model '{source}'"
    loading = of_transformers(info)
    if shallow:
        loading.unexpected = {each for each in loading.unexpected if not _is_of_a_later_layer(each, model)}
    left_random = [require_whole(loading, what, kind, strict, instead=instead)]
    if base is not None:
        require_weights(Path(name), "adapter_model.safetensors")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of what peft asks transformers
            loading = of_transformers(model.load_adapter(str(name), ignore_mismatched_sizes=True).to_dict())
        advice = (
            "set base_model_name_or_path to the model that it was trained on, or merge it there with peft "
            "(merge_and_unload()) and save the model"
        )
        left_random.append(require_whole(loading, f"adapter '{name}'", "adapter", strict, instead=advice))
        _merge_adapter(model)
    return model, "; ".join(filter(None, left_random))


def _merge_adapter(model: Any) -> None:
    """Add the weights of an adapter to those of its model, which is then as any other: all of it can be trained.

    peft does so for models that it wraps itself, which those of transformers are not.
    """
    for name, module in list(model.named_modules()):
        if hasattr(module, "unload_and_optionally_merge_module"):
            merged = module.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
            model.set_submodule(name, merged)
        elif hasattr(module, "base_layer") and hasattr(module, "merge"):
            module.merge()
            model.set_submodule(name, module.get_base_layer())
    model._hf_peft_config_loaded = False
    model.requires_grad_(True)


def transformers_text(spec: TransformersText, weights: bool, strict: bool = True) -> TransformersTextTower:
    """Build a transformers tower, with random weights if ``weights`` is false (for the meta device).

    Then a config with its model_type is all that is needed. strict: refuse weights that are not whole.
    """
    from transformers import CONFIG_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, AutoConfig, AutoModel

    overrides = dict(spec.config)
    kind = overrides.pop("model_type", None)
    if spec.name is None or not (weights or kind is None):
        if kind is None:
            raise BenchError("model card: text: set a name, or a config with its model_type")
        if kind not in CONFIG_MAPPING:
            raise unknown("model_type of transformers", kind, CONFIG_MAPPING.keys())
        return TransformersTextTower(AutoModel.from_config(AutoConfig.for_model(kind, **overrides)), spec.pooling)
    instead = "download it where there is a network, or name a local folder: text.name: FOLDER"
    with hub(f"transformers model '{spec.name}'", instead, local=Path(spec.name).is_dir()):
        base = base_of(Path(spec.name)) if Path(spec.name).is_dir() else None
        config = AutoConfig.from_pretrained(base or spec.name, trust_remote_code=False, **overrides)
        if type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
            config.is_encoder_decoder = True  # not said where the encoder alone was saved
        if not hasattr(config, "hidden_size") or not hasattr(config, "vocab_size"):
            raise BenchError(
                f"transformers model '{spec.name}': a model of type {config.model_type} is no text model; name a "
                "folder or a model with the text tower alone"
            )
        left_random = ""
        if not (weights and spec.pretrained):
            model = AutoModel.from_config(config, trust_remote_code=False)
        else:
            tower_kind: Kind = "encoder of a text tower" if config.is_encoder_decoder else "text tower"
            shallow = any("layer" in key for key in spec.config)
            model, left_random = load_transformers(spec.name, tower_kind, config, strict, LENIENT, shallow)
    tower = TransformersTextTower(model, spec.pooling)
    tower.left_random = left_random
    return tower
