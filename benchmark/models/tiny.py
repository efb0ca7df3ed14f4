"""The towers of kind ``tiny``, small enough to be trained in a minute on two CPU cores."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from typing_extensions import override

from benchmark.models.card import TinyImage, TinyText
from benchmark.models.tower import Group, ImageTower, LanguageModelTower, PatchDropout, TowerOutput, mean_token

STRIDE = 16


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Transform tokens [b, n, width]; prefix: [2, heads, P, width / heads], keys and values before their own."""
        b, n, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if prefix is None:
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:
            k, v = (torch.cat([before.to(own).expand(b, -1, -1, -1), own], 2) for before, own in zip(prefix, (k, v)))
            count = prefix.shape[2]
            visible = torch.ones(n, count + n, dtype=torch.bool, device=x.device)
            attended = F.scaled_dot_product_attention(q, k, v, visible.tril(count) if self.causal else visible)
        x = x + self.dropout(self.out(attended.transpose(1, 2).reshape(b, n, width)))
        changed: Tensor = self.dropout(self.mlp(self.norm2(x)))
        return x + changed


class Blocks(nn.ModuleList):
    """A sequence of transformer blocks, recomputed in the backward pass if ``checkpointing``."""

    checkpointing = False

    def forward(self, x: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Apply the blocks to tokens [b, n, width]; prefix: [blocks, 2, heads, P, width / heads]."""
        recomputed = self.checkpointing and self.training
        for number, block in enumerate(self):
            # A view of a parameter requires a gradient even under no_grad, which torch's FLOP counter cannot handle.
            own = None if prefix is None else prefix[number].clone()
            x = checkpoint(block, x, own, use_reentrant=False) if recomputed else block(x, own)
        return x


class Residual(nn.Module):
    """A residual block: norm, convolution, GELU, convolution, added to its input."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(before, after, stride, stride=stride) if stride > 1 else nn.Identity()
        self.norm = nn.GroupNorm(8, after)
        self.conv1 = nn.Conv2d(after, after, 3, padding=1)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)

    @override
    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        changed: Tensor = self.conv2(F.gelu(self.conv1(self.norm(x))))
        return x + changed


class TinyImageTower(ImageTower):
    """A convolution with stride 4, three residual stages, and a vision transformer with mean pooling.

    A token stands for 16 x 16 pixels.
    """

    def __init__(self, spec: TinyImage, image_size: int | None) -> None:
        super().__init__((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        self.image_size = image_size or 64
        self.width = width = spec.width
        self.stem = nn.Conv2d(3, width // 4, 7, stride=4, padding=3)
        self.stages = nn.Sequential(
            Residual(width // 4, width // 4, 1), Residual(width // 4, width // 2, 2), Residual(width // 2, width, 2)
        )
        self.position = nn.Parameter(torch.randn((self.image_size // STRIDE) ** 2, width) * 0.02)
        self.drop = PatchDropout(spec.patch_dropout)
        self.blocks = Blocks(Block(width, spec.heads, spec.dropout, causal=False) for _ in range(spec.layers))
        self.norm = nn.LayerNorm(width)

    @override
    def forward(self, x: Tensor) -> TowerOutput:
        x = self.normalise(x).contiguous(memory_format=torch.channels_last)
        x = self.stages(self.stem(x)).flatten(2).transpose(1, 2) + self.position
        tokens = self.norm(self.blocks(self.drop(x)))
        return TowerOutput(tokens.mean(dim=1), tokens)

    @override
    def layer_groups(self) -> list[Group]:
        *stages, last_stage = self.stages
        *blocks, last_block = self.blocks
        convolutions: list[Group] = [[self.stem], *([stage] for stage in stages), [last_stage, self.position]]
        return [*convolutions, *([block] for block in blocks), [last_block, self.norm]]

    @override
    def set_gradient_checkpointing(self, enabled: bool) -> None:
        self.blocks.checkpointing = enabled


class TinyTextTower(LanguageModelTower):
    """A causal transformer with mean pooling over the tokens that are not padding. Virtual tokens have no positions."""

    causal = True
    attention_modules = ("qkv",)
    feedforward_modules = ("mlp.2",)
    counts_virtual_tokens = False

    def __init__(self, spec: TinyText, vocab_size: int, context_length: int) -> None:
        super().__init__()
        self.width = width = spec.width
        self.heads = spec.heads
        self.vocab_size = vocab_size
        self.context_length = context_length
        self.embedding = nn.Embedding(vocab_size, width)
        # As large as the output of the blocks. With CLIP's 0.02 the first epochs are needed to distinguish words.
        nn.init.normal_(self.embedding.weight, std=0.5)
        self.position = nn.Parameter(torch.randn(context_length, width) * 0.01)
        self.blocks = Blocks(Block(width, spec.heads, spec.dropout, causal=True) for _ in range(spec.layers))
        self.norm = nn.LayerNorm(width)

    @override
    def forward(self, tokens: Tensor, mask: Tensor) -> TowerOutput:
        length = tokens.shape[1]
        x = self._prompted(self.embedding(tokens) + self.position[:length])
        x = self.norm(self.blocks(x, self.prefix))[:, -length:]
        return TowerOutput(mean_token(x, mask), x)

    @property
    @override
    def language_model(self) -> nn.Module:
        return self

    @property
    @override
    def word_embedding(self) -> nn.Embedding:
        return self.embedding

    @property
    @override
    def prefix_shape(self) -> tuple[int, int, int]:
        return len(self.blocks), self.heads, self.width // self.heads

    @override
    def layer_groups(self) -> list[Group]:
        *blocks, last = self.blocks
        groups: list[Group] = [[self.embedding, self.position, *self._virtual()], *([block] for block in blocks)]
        return [*groups, [last, self.norm]]

    @override
    def set_gradient_checkpointing(self, enabled: bool) -> None:
        self.blocks.checkpointing = enabled
