"""Partial freeze: CLIP with the first layers of a tower frozen."""

from dataclasses import dataclass
from typing import Literal

from benchmark import DualEncoder, Share, register_method

from .clip import Clip


@register_method("partial_freeze")
class PartialFreeze(Clip):
    """Minimise CLIP's loss with the first round(fraction n) of a tower's n layer groups frozen.

    Groups are counted from input to output. Frozen ones get no gradient and stay in eval mode, so their dropout is off
    and their running statistics do not move.

    Source: Roy et al. 2024, arXiv 2406.07450, who train 7 of the 14 groups of a pretrained ViT-B/16 (stem with
    position, 11 blocks, last block with norm, projection). The groups of other towers are those of timm.
    """

    summary = "CLIP with the first layer groups of a tower frozen"
    source = "Roy et al. 2024, arXiv 2406.07450; open_clip --lock-image-unlocked-groups"
    trains = "as clip, except the first layer groups of a tower"
    extra = "nothing; saves the backward pass through the frozen layers"

    @dataclass
    class Config(Clip.Config):
        """Hyperparameters.

        tower: the tower to freeze (Roy 2024: image; they also train only the last 2 or 6 groups of the text tower).
        fraction: share of the groups that is frozen, 0..1 (Roy 2024: 7 of 14).
        """

        tower: Literal["image", "text"] = "image"
        fraction: Share = 0.5

    def __init__(self, model: DualEncoder, config: Config) -> None:
        super().__init__(model, config)
        groups = model.layer_groups(config.tower)
        self.freeze(groups[: round(config.fraction * len(groups))])
