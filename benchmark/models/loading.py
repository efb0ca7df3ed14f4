"""Whether weights are loaded whole: what a library reports of a loading, and which of it does not matter."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from benchmark.common.errors import BenchError, cut, plural

Kind = Literal["dual encoder", "image tower", "text tower", "encoder of a text tower", "adapter"]
Shape = list[int]

LENIENT = "save the whole model again; or write 'strict: false' in a model card, and what is missing is left random"
"""What a message says where a model card can name the weights."""
WHOLE_TOWERS = {
    "text": "text_model.embeddings.token_embedding.weight",
    "image": "vision_model.embeddings.patch_embedding.weight",
}
"""A tensor that no file with a tower of CLIP or SigLIP in transformers lacks."""
MOST_NAMES = 3
"""The most tensors that a message names of each sort."""


class Harmless(NamedTuple):
    """Tensors whose absence, or whose presence in the file, changes no output. kinds: of models; empty for all."""

    kinds: tuple[Kind, ...]
    sort: Literal["missing", "unexpected", "both"]
    pattern: str
    reason: str


HARMLESS = (
    Harmless((), "both", r"(^|\.)position_ids$", "a buffer that counts 0, 1, 2 ...: the architecture makes it"),
    Harmless((), "unexpected", r"rotary_emb\.inv_freq$", "a buffer that the architecture computes"),
    Harmless(
        ("text tower",),
        "unexpected",
        r"\.(attn|attention)\.(bias|masked_bias)$",
        "causal masks that older versions of transformers saved (GPT-2)",
    ),
    Harmless(
        ("text tower", "encoder of a text tower"),
        "both",
        r"(^|\.)pooler\.",
        "a card's pooling takes the first, the last or the mean hidden state",
    ),
    Harmless(
        ("text tower", "encoder of a text tower"),
        "unexpected",
        r"^(cls|lm_head|embed_out|classifier|score|qa_outputs|pred_layer|lm_predictions|mask_predictions|predictions|"
        r"head|generator_predictions|generator_lm_head|discriminator_predictions|vocab_transform|vocab_layer_norm|"
        r"vocab_projector|sop_classifier|cls_projection_head)\.|^decoder\.(weight|bias)$",
        "heads of pretraining or of a task, which read the hidden states that the tower ends with",
    ),
    Harmless(("encoder of a text tower",), "both", r"^decoder\.", "an encoder-decoder reads texts with its encoder"),
)
"""What never matters. An architecture or a card tells the rest: the classifier, which a tower of timm has not; the
other tower of an open_clip model of which a card takes one; layers after the last that text.config asks for."""

Loader = Callable[..., Any]


@dataclass
class Loading:
    """What a library reports of loading weights into a model, by the names of tensors.

    missing: of the model, and not in the file. unexpected: in the file, and not of the model. mismatched: in both, of
    different shapes: that in the file and that in the model.
    """

    missing: set[str] = field(default_factory=set)
    unexpected: set[str] = field(default_factory=set)
    mismatched: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)

    def add(self, other: "Loading") -> None:
        """Add the report of another part of the model."""
        self.missing |= other.missing
        self.unexpected |= other.unexpected
        self.mismatched |= other.mismatched

    def mattering(self, kind: Kind, part: str = "") -> "Loading":
        """Leave out what does not matter. part: the prefix of the names that are used, where others are not."""

        def matters(name: str, sort: str) -> bool:
            return name.startswith(part) and not any(
                (not each.kinds or kind in each.kinds) and each.sort in (sort, "both") and re.search(each.pattern, name)
                for each in HARMLESS
            )

        return Loading(
            {name for name in self.missing if matters(name, "missing")},
            {name for name in self.unexpected if matters(name, "unexpected")},
            {name: shapes for name, shapes in self.mismatched.items() if matters(name, "missing")},
        )

    def __str__(self) -> str:
        """Count each sort, and name the first tensors."""
        shapes = [f"{cut(n)}: {theirs} in the file, {own} in the model" for n, (theirs, own) in self.mismatched.items()]
        sorts = (
            ("missing", sorted(map(cut, self.missing))),
            ("not part of the model", sorted(map(cut, self.unexpected))),
            ("of another shape", sorted(shapes)),
        )
        return ", ".join(
            f"{plural(len(names), 'tensor')} {'is' if len(names) == 1 else 'are'} {sort} ({_some(names)})"
            for sort, names in sorts
            if names
        )


def compared(model: nn.Module, state: Mapping[str, Any]) -> Loading:
    """Compare the tensors of a file with those of a model of the same names."""
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    return Loading(
        shapes.keys() - state.keys(),
        state.keys() - shapes.keys(),
        {
            name: (list(tensor.shape), list(shapes[name]))
            for name, tensor in state.items()
            if isinstance(tensor, Tensor) and name in shapes and tensor.shape != shapes[name]
            # torch reads a single value as a scalar.
            if not (tensor.shape == (1,) and not shapes[name])
        },
    )


def of_transformers(info: Mapping[str, Any]) -> Loading:
    """Take over the report of transformers. info: what ``output_loading_info=True`` returns."""
    mismatched = {name: (list(theirs), list(own)) for name, theirs, own in info["mismatched_keys"]}
    return Loading(set(info["missing_keys"]) - {*mismatched}, set(info["unexpected_keys"]), mismatched)


def require_whole(loading: Loading, what: str, kind: Kind, strict: bool, part: str = "", instead: str = "") -> str:
    """Check that weights were loaded whole. Returns what was left random, in a line, and "" if nothing was.

    what: the model and where it is from. part: as of Loading.mattering(). instead: what to do, where the report does
    not tell.

    Raises ``BenchError`` if ``strict`` and any tensor that matters is missing, unexpected or of another shape.
    """
    wrong = loading.mattering(kind, part)
    random = sorted(map(cut, {*wrong.missing, *wrong.mismatched}))
    if not (random or wrong.unexpected):
        return ""
    if strict:
        if kind != "adapter":
            instead = _advice(loading) or instead or "save the whole model again with its own configuration"
        raise BenchError(f"{what}: weights and architecture do not match: {wrong}; {instead}")
    said = [f"{plural(len(random), 'tensor')} left random ({_some(random)})"] if random else []
    if wrong.unexpected:
        unread = sorted(map(cut, wrong.unexpected))
        said.append(f"{plural(len(unread), 'tensor')} of the file not read ({_some(unread)})")
    return f"{what}: {', '.join(said)}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _advice(loading: Loading) -> str:
    """Say what to do where the names tell what happened, else ""."""
    if any(re.search(r"\.(base_layer|lora_[ABE]\w*)\.", f"{name}.") for name in loading.unexpected):
        return "adapters were not merged: call merge_and_unload() of peft, and save the model again"
    for first, second, fault in (
        (loading.unexpected, loading.missing, "begin"),
        (loading.missing, loading.unexpected, "do not begin"),
    ):
        prefix = _prefix(first, second)
        if prefix:
            return f"the names in the file {fault} with '{prefix}': rename them, and save the weights again"
    for tower, name in WHOLE_TOWERS.items():
        if name in loading.missing:
            return f"the weights have no {tower} tower: save the whole model, with both"
    numbered = [all(re.search(r"\.\d+\.", name) for name in names) for names in (loading.missing, loading.unexpected)]
    if all(numbered) and bool(loading.missing) != bool(loading.unexpected) and not loading.mismatched:
        return "configuration and weights differ in the number of layers: correct the configuration"
    return ""


def _prefix(longer: set[str], shorter: set[str]) -> str:
    """Return the prefix that the first names have before the second ones, if most have the same; else ""."""
    for name in sorted(shorter)[:1]:
        for other in longer:
            prefix = other.removesuffix(name)
            if prefix != other and sum(f"{prefix}{each}" in longer for each in shorter) > len(shorter) / 2:
                return prefix
    return ""


@contextmanager
def recorded() -> Iterator[Loading]:
    """Record what torch reports of every ``load_state_dict`` in the block, which then loads all that fits.

    timm and open_clip load inside of functions that make the model, and some keep the report to themselves. Their
    warnings are not printed: they list every tensor, or say that a model is random before its weights are loaded.
    """
    loading = Loading()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    own: Loader = nn.Module.load_state_dict

    def load_state_dict(module: nn.Module, state: Mapping[str, Any], strict: bool = True, **options: Any) -> Any:
        mismatched = compared(module, state).mismatched
        fitting = {name: tensor for name, tensor in state.items() if name not in mismatched} if mismatched else state
        result = own(module, fitting, strict=False, **options)
        loading.add(Loading(set(result.missing_keys) - {*mismatched}, set(result.unexpected_keys), mismatched))
        return result

    nn.Module.load_state_dict = load_state_dict  # type: ignore[method-assign,assignment]
    try:
        yield loading
    finally:
        logging.disable(before)
        nn.Module.load_state_dict = own  # type: ignore[method-assign]
