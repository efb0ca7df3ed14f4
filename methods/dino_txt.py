"""dino.txt: CLIP with a frozen image tower, and transformer blocks on top of it that are trained."""

from dataclasses import dataclass
from functools import partial

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from typing_extensions import override

from benchmark import BenchError, DualEncoder, Group, ImageTower, ShareBelowOne, TowerOutput, register_method

from .clip import Clip


class HeadedTower(ImageTower):
    """An image tower with transformer blocks on top; only these are meant to be trained.

    [c; f_1 .. f_A] = norm(blocks([features; tokens of the tower])),   features of this tower = [c; mean_a f_a]
    """

    has_tokens = False

    def __init__(self, tower: ImageTower, blocks: int, heads: int, drop_path: float) -> None:
        # Importing timm takes a second, which listing the methods should not.
        from timm.layers import SwiGLU
        from timm.models.vision_transformer import Block

        # The tower below normalises the pixels.
        super().__init__(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        self.tower = tower
        self.width = 2 * tower.width
        self.image_size, self.resizing = tower.image_size, tower.resizing
        block = partial(Block, tower.width, heads, qkv_bias=True, init_values=1e-5, drop_path=drop_path)
        feedforward = partial(SwiGLU, align_to=64)
        self.blocks = nn.Sequential(
            *(block(mlp_ratio=8 / 3, mlp_layer=feedforward, act_layer=nn.SiLU) for _ in range(blocks))
        )
        self.norm = nn.LayerNorm(tower.width) if blocks else nn.Identity()

    @override
    def forward(self, x: Tensor) -> TowerOutput:
        out = self.tower(x)
        tokens = self.norm(self.blocks(torch.cat([out.features[:, None], out.tokens], dim=1)))
        return TowerOutput(torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1), None)

    def layer_groups(self) -> list[Group]:
        """The groups of the tower; each block; the norm goes with the last."""
        blocks: list[list[nn.Module]] = [[block] for block in self.blocks]
        if blocks:
            blocks[-1].append(self.norm)
        return [*self.tower.layer_groups(), *blocks]

    @override
    def set_gradient_checkpointing(self, enabled: bool) -> None:
        self.tower.set_gradient_checkpointing(enabled)


@register_method("dino_txt")
class DinoTxt(Clip):
    """Minimise CLIP's loss with the image tower frozen and a head of transformer blocks on top of it trained.

        [c; f] = norm(blocks([CLS; patches])),   I = W [c; mean f],   loss = clip's

    The text tower is trained from whatever weights the model has; the paper trains it from scratch.

    Source: Jose et al. 2024, arXiv 2412.16334, section 3; facebookresearch/dinov2 (``dinotxt``).
    """

    summary = "CLIP with the image tower frozen and trained transformer blocks on top of it (dino.txt)"
    source = "Jose et al. 2024, arXiv 2412.16334; facebookresearch/dinov2"
    trains = "the head on the image tower, the text tower, projections and the temperature"
    extra = "the head; saves the backward pass through the image tower"
    inferred = (
        "a linear projection to the joint space (its code: an option); a tower without a class token gives its pooled "
        "features in its place"
    )
    needs = frozenset({"image_tokens"})

    @dataclass
    class Config(Clip.Config):
        """Hyperparameters.

        blocks: of the head, >= 0 (the paper: 2); 0 for LiT on [CLS; mean patch].
        heads: attention heads of a block; null: one per 64 dimensions, as in DINOv2.
        drop_path: rate of stochastic depth in the head, 0 <= rate < 1 (its code: 0.3).
        """

        blocks: NonNegativeInt = 2
        heads: PositiveInt | None = None
        drop_path: ShareBelowOne = 0.3

    def __init__(self, model: DualEncoder, config: Config) -> None:
        width = model.image.width
        heads = config.heads or max(1, width // 64)
        if width % heads:
            raise BenchError(f"dino_txt.heads is {heads}, which does not divide the image tower's width {width}")
        tower = HeadedTower(model.image, config.blocks, heads, config.drop_path)
        projection = nn.Linear(tower.width, model.embed_dim, bias=False)
        super().__init__(DualEncoder(tower, model.text, projection, model.text_projection, model.embed_dim), config)
        self.freeze(tower.tower.layer_groups())
