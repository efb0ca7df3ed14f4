"""The interfaces of image towers and text towers, whichever library they come from."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmark.common.errors import BenchError
from benchmark.data.resizing import DEFAULT, Resizing

Group = Sequence[nn.Module | nn.Parameter]


def square_side(size: int | Sequence[int], name: str) -> int:
    """Return the side of a model's images, in pixels. name: of the model, for messages.

    Raises ``BenchError`` if they are not square, since a run prepares squares.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise BenchError(f"model '{name}': takes images of {height} x {width} pixels, and a run prepares squares")
    return height


class TowerOutput(NamedTuple):
    """The output of a tower.

    features: [b, W]. tokens: [b, T, W], or None for a tower that has none.
    """

    features: Tensor
    tokens: Tensor | None


class PatchDropout(nn.Module):
    """Drops a random share of the patch tokens of each image during training (FLIP, arXiv 2212.00794).

    The first ``prefix`` tokens are always kept. Of n patches max(1, int(n (1 - rate))) are kept, in their order.
    """

    def __init__(self, rate: float = 0.0, prefix: int = 0) -> None:
        super().__init__()
        self.rate = rate
        self.prefix = prefix

    def forward(self, x: Tensor) -> Tensor:
        """Drop patches of x: [b, prefix + n, width]."""
        if not self.training or self.rate == 0:
            return x
        patches = x[:, self.prefix :]
        b, n, width = patches.shape
        count = max(1, int(n * (1 - self.rate)))
        keep = torch.rand(b, n, device=x.device).argsort(dim=1)[:, :count].sort(dim=1).values
        kept = patches.gather(1, keep[..., None].expand(-1, -1, width))
        return torch.cat([x[:, : self.prefix], kept], dim=1)


class ImageTower(nn.Module):
    """Encodes images: forward(x) -> TowerOutput, with x: float [b, 3, image_size, image_size] in 0..1.

    Pixels are normalised inside.
    """

    width: int
    """Dimensions of the features and of the tokens."""
    image_size: int
    resizing: Resizing = DEFAULT
    """How images were made square when its weights were trained."""
    has_tokens: bool = True
    left_random: str = ""
    """What its weights left random, in a line."""
    channels_last: bool = False
    """Whether the channels of a pixel lie side by side, which convolutions on a GPU are faster with."""
    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def normalise(self, x: Tensor) -> Tensor:
        """Subtract the mean and divide by the standard deviation of each channel."""
        x = (x - self.mean).div_(self.std)
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last else x

    @property
    def is_convolutional(self) -> bool:
        """Whether it has convolutions besides those that cut an image into patches."""
        layers = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
        return any(max(layer.kernel_size) > max(layer.stride) for layer in layers)

    def layer_groups(self) -> list[Group]:
        """The parts of the tower from input to output. Each parameter is in exactly one group."""
        raise NotImplementedError

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute the activations of the blocks in the backward pass, or not. ``BenchError`` if not supported."""
        raise NotImplementedError

    def _patch_dropout(self) -> PatchDropout | None:
        return next((m for m in self.modules() if isinstance(m, PatchDropout)), None)

    @property
    def has_patch_dropout(self) -> bool:
        """Whether the tower can drop image tokens."""
        return self._patch_dropout() is not None

    @property
    def patch_dropout(self) -> float:
        """Share of image tokens dropped in training mode, 0 <= share < 1. It can be set at any time."""
        module = self._patch_dropout()
        return 0.0 if module is None else module.rate

    @patch_dropout.setter
    def patch_dropout(self, rate: float) -> None:
        module = self._patch_dropout()
        if not 0 <= rate < 1:
            raise BenchError(f"patch_dropout: expected a number in [0, 1), found {rate}")
        if module is not None:
            module.rate = rate
        elif rate:
            raise BenchError(f"patch_dropout: a {type(self).__name__} has no patch tokens to drop")

    @contextmanager
    def dropping(self, rate: float) -> Iterator[None]:
        """Change ``patch_dropout`` within a block."""
        usual, self.patch_dropout = self.patch_dropout, rate
        try:
            yield
        finally:
            self.patch_dropout = usual


class TextTower(nn.Module):
    """Encodes texts: forward(tokens, mask) -> TowerOutput, with tokens: int64 [b, L] and mask: bool [b, L].

    The output does not depend on the amount of padding on the right.
    """

    width: int
    context_length: int
    vocab_size: int
    has_tokens: bool = True
    left_random: str = ""
    """What its weights left random, in a line."""
    causal: bool
    """Whether a token only attends to the tokens before it, as a captioning decoder needs it."""
    pad_id: int | None = None
    """The token that texts are padded with, for a tower that attends to padding."""

    def layer_groups(self) -> list[Group]:
        """The parts of the tower from input to output. Each parameter is in exactly one group."""
        raise NotImplementedError

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute the activations of the blocks in the backward pass, or not. ``BenchError`` if not supported."""
        raise NotImplementedError


class LanguageModelTower(TextTower):
    """A text tower around a language model (if ``causal``) that can stay frozen and be tuned from outside.

    It is tuned by adapters in its layers, or by virtual tokens, which are not among the tokens that forward() returns.

    prompt: [P, E], embeddings before every text while ``prompted``, or None (Lester et al. 2021, arXiv 2104.08691).
    prefix: [layers, 2, heads, P, width of a head], keys and values before those of the text in every layer, or None
        (Li and Liang 2021, arXiv 2101.00190).
    """

    prompt: nn.Parameter | None
    prefix: nn.Parameter | None
    attention_modules: tuple[str, ...] = ()
    """The layers that compute queries, keys and values; empty if peft knows them from the type of the model."""
    feedforward_modules: tuple[str, ...] = ()
    """The last layers of the feed-forward parts; empty if peft knows them."""
    counts_virtual_tokens: bool = True
    """Whether virtual tokens count towards ``context_length``."""

    def __init__(self) -> None:
        super().__init__()
        self.prompted = True
        self.register_parameter("prompt", None)
        self.register_parameter("prefix", None)

    @property
    def language_model(self) -> nn.Module:
        """The module whose layers take adapters."""
        raise NotImplementedError

    @property
    def word_embedding(self) -> nn.Embedding:
        """The embedding of the tokens."""
        raise NotImplementedError

    @property
    def prefix_shape(self) -> tuple[int, int, int]:
        """The numbers of layers and of heads of keys and values, and the width of a head."""
        raise NotImplementedError

    @property
    def adapted(self) -> bool:
        """Whether the tower has adapters of peft or virtual tokens."""
        return bool(self._virtual()) or any(".base_layer." in name for name, _ in self.named_parameters())

    def add_prompt(self, count: int) -> None:
        """Add ``count`` virtual tokens before every text, all zero."""
        weight = self.word_embedding.weight
        self.prompt = nn.Parameter(weight.new_zeros(count, weight.shape[1]))
        self._take(count)

    def add_prefix(self, count: int) -> None:
        """Add ``count`` virtual keys and values in every layer, from a standard normal distribution as in peft."""
        layers, heads, width = self.prefix_shape
        self.prefix = nn.Parameter(torch.randn(layers, 2, heads, count, width))
        self._take(count)

    def _take(self, count: int) -> None:
        if self.counts_virtual_tokens:
            self.context_length -= count
        if self.context_length < 1:
            raise BenchError(f"{count} virtual tokens leave no room for a text in the context of this text tower")

    def _prompted(self, embeddings: Tensor) -> Tensor:
        """Put the prompt before the embeddings of texts: [b, L, E] -> [b, P + L, E]."""
        if self.prompt is None or not self.prompted:
            return embeddings
        return torch.cat([self.prompt.expand(len(embeddings), -1, -1), embeddings], dim=1)

    def _virtual(self) -> list[nn.Parameter]:
        return [parameter for parameter in (self.prompt, self.prefix) if parameter is not None]


def last_token(tokens: Tensor, mask: Tensor) -> Tensor:
    """Take the last token that is not padding: [b, L, W], bool [b, L] -> [b, W]."""
    last = mask.sum(dim=1) - 1
    return tokens[torch.arange(len(tokens), device=tokens.device), last]


def mean_token(tokens: Tensor, mask: Tensor) -> Tensor:
    """Average the tokens that are not padding: [b, L, W], bool [b, L] -> [b, W]."""
    weight = mask.to(tokens.dtype)
    return torch.einsum("blw,bl->bw", tokens, weight) / weight.sum(dim=1, keepdim=True)


def groups_by(model: nn.Module, key: Callable[[str], Any]) -> list[Group]:
    """Group the parts of a model by a key of the names of their parameters, in the order of the keys.

    A part is a module as large as possible with all its parameters in one group (so its dropout and buffers go with
    it), or a single parameter of a module whose parameters are in several groups.
    """
    keys = {id(parameter): key(name) for name, parameter in model.named_parameters()}
    groups: dict[Any, list[nn.Module | nn.Parameter]] = defaultdict(list)

    def visit(part: nn.Module | nn.Parameter) -> None:
        parameters = [part] if isinstance(part, nn.Parameter) else list(part.parameters())
        part_keys = {keys[id(p)] for p in parameters}
        if len(part_keys) == 1:
            groups[part_keys.pop()].append(part)
        elif isinstance(part, nn.Module):
            for child in (*part._parameters.values(), *part.children()):
                if child is not None:
                    visit(child)

    visit(model)
    return [groups[k] for k in sorted(groups)]
