"""What an image tower and a text tower are, whatever library they come from."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmark.common.errors import BenchError
from benchmark.data.resizing import DEFAULT, Resizing

Group = Sequence[nn.Module | nn.Parameter]


class TowerOutput(NamedTuple):
    """features: [b, W]; tokens: [b, T, W], or None for a tower that gives none."""

    features: Tensor
    tokens: Tensor | None


class PatchDropout(nn.Module):
    """Leaves out a share of the patch tokens while training, others for each image (FLIP, arXiv 2212.00794).

    The first ``prefix`` tokens are always kept. Of n patches max(1, int(n (1 - rate))) stay, in their order.
    """

    def __init__(self, rate: float = 0.0, prefix: int = 0) -> None:
        super().__init__()
        self.rate = rate
        self.prefix = prefix

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        patches = x[:, self.prefix :]
        b, n, width = patches.shape
        count = max(1, int(n * (1 - self.rate)))
        keep = torch.rand(b, n, device=x.device).argsort(dim=1)[:, :count].sort(dim=1).values
        kept = patches.gather(1, keep[..., None].expand(-1, -1, width))
        return torch.cat([x[:, : self.prefix], kept], dim=1)


class ImageTower(nn.Module):
    """forward(x float [b, 3, image_size, image_size] in 0..1) -> TowerOutput. Pixels are normalised inside."""

    width: int
    """Of the features and of the tokens."""
    image_size: int
    resizing: Resizing = DEFAULT
    """How its images became squares when its weights were trained."""
    has_tokens: bool = True
    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def normalise(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def layer_groups(self) -> list[Group]:
        """The tower's parts from input to output, each parameter in exactly one."""
        raise NotImplementedError

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        raise NotImplementedError

    def _patch_dropout(self) -> PatchDropout | None:
        return next((m for m in self.modules() if isinstance(m, PatchDropout)), None)

    @property
    def has_patch_dropout(self) -> bool:
        return self._patch_dropout() is not None

    @property
    def patch_dropout(self) -> float:
        """Share of image tokens left out in training mode, 0 <= share < 1; may be set at any time."""
        module = self._patch_dropout()
        return 0.0 if module is None else module.rate

    @patch_dropout.setter
    def patch_dropout(self, rate: float) -> None:
        module = self._patch_dropout()
        if not 0 <= rate < 1:
            raise BenchError(f"patch_dropout must lie in [0, 1), found {rate}")
        if module is not None:
            module.rate = rate
        elif rate:
            raise BenchError(f"patch_dropout: a {type(self).__name__} has no patch tokens that could be left out")

    @contextmanager
    def dropping(self, rate: float) -> Iterator[None]:
        """With another ``patch_dropout`` for a while."""
        usual, self.patch_dropout = self.patch_dropout, rate
        try:
            yield
        finally:
            self.patch_dropout = usual


class TextTower(nn.Module):
    """forward(tokens int64 [b, L], mask bool [b, L]) -> TowerOutput, the same for any amount of right padding."""

    width: int
    context_length: int
    vocab_size: int
    has_tokens: bool = True
    causal: bool
    """Whether a token sees only the ones before it (what a captioning decoder on top needs)."""
    pad_id: int | None = None
    """The token it fills texts up with, for a tower that attends to padding."""

    def layer_groups(self) -> list[Group]:
        """The tower's parts from input to output, each parameter in exactly one."""
        raise NotImplementedError

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        raise NotImplementedError


class LanguageModelTower(TextTower):
    """A text tower around a language model (where ``causal``) that can stay frozen and be tuned from outside: by
    adapters in its layers, or by virtual tokens, which are not among the tokens that forward() gives.

    prompt: [P, E], embeddings read before every text while ``prompted``, or None (Lester et al. 2021, arXiv
        2104.08691).
    prefix: [layers, 2, heads, P, width of a head], keys and values before those of the text in every layer,
        or None (Li and Liang 2021, arXiv 2101.00190).
    """

    prompt: nn.Parameter | None
    prefix: nn.Parameter | None
    attention_modules: tuple[str, ...] = ()
    """The layers that make queries, keys and values; empty where peft knows them by the model's type."""
    feedforward_modules: tuple[str, ...] = ()
    """The last layers of the feed-forward parts; empty as above."""
    counts_virtual_tokens: bool = True
    """Whether virtual tokens take places of the context."""

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
        raise NotImplementedError

    @property
    def prefix_shape(self) -> tuple[int, int, int]:
        """Layers, heads of keys and values, and the width of a head."""
        raise NotImplementedError

    @property
    def adapted(self) -> bool:
        """Whether adapters of peft or virtual tokens tune it from outside."""
        return bool(self._virtual()) or any(".base_layer." in name for name, _ in self.named_parameters())

    def add_prompt(self, count: int) -> None:
        """Virtual tokens before every text, all zero."""
        weight = self.word_embedding.weight
        self.prompt = nn.Parameter(weight.new_zeros(count, weight.shape[1]))
        self._take(count)

    def add_prefix(self, count: int) -> None:
        """Virtual keys and values in every layer, drawn from a standard normal distribution as in peft."""
        layers, heads, width = self.prefix_shape
        self.prefix = nn.Parameter(torch.randn(layers, 2, heads, count, width))
        self._take(count)

    def _take(self, count: int) -> None:
        if self.counts_virtual_tokens:
            self.context_length -= count
        if self.context_length < 1:
            raise BenchError(f"{count} virtual tokens leave no room for a text in this text tower's context")

    def _prompted(self, embeddings: Tensor) -> Tensor:
        """[b, L, E] -> [b, P + L, E]."""
        if self.prompt is None or not self.prompted:
            return embeddings
        return torch.cat([self.prompt.expand(len(embeddings), -1, -1), embeddings], dim=1)

    def _virtual(self) -> list[nn.Parameter]:
        return [parameter for parameter in (self.prompt, self.prefix) if parameter is not None]


def last_token(tokens: Tensor, mask: Tensor) -> Tensor:
    """[b, L, W], bool [b, L] -> [b, W]: the last token that is not padding."""
    last = mask.sum(dim=1) - 1
    return tokens[torch.arange(len(tokens), device=tokens.device), last]


def mean_token(tokens: Tensor, mask: Tensor) -> Tensor:
    """[b, L, W], bool [b, L] -> [b, W]: the mean over the tokens that are not padding."""
    weight = mask.to(tokens.dtype)
    return torch.einsum("blw,bl->bw", tokens, weight) / weight.sum(dim=1, keepdim=True)


def groups_by(model: nn.Module, key: Callable[[str], Any]) -> list[Group]:
    """The parts of a model grouped by a key of its parameters' names, groups in the order of the keys.

    A part is the largest module whose parameters are all in one group (so that its dropout and its buffers go with
    it), or a parameter of a module whose other parameters are elsewhere.
    """
    keys = {id(parameter): key(name) for name, parameter in model.named_parameters()}
    groups: dict[Any, list[nn.Module | nn.Parameter]] = defaultdict(list)

    def visit(part: nn.Module | nn.Parameter) -> None:
        parameters = [part] if isinstance(part, nn.Parameter) else list(part.parameters())
        found = {keys[id(p)] for p in parameters}
        if len(found) == 1:
            groups[found.pop()].append(part)
        elif isinstance(part, nn.Module):
            for child in (*part._parameters.values(), *part.children()):
                if child is not None:
                    visit(child)

    visit(model)
    return [groups[k] for k in sorted(groups)]
