"""Partial freeze: CLIP with the first layers of a tower left as they are."""

from dataclasses import dataclass
from typing import Literal

from benchmark import DualEncoder, Share, register_method

from .clip import Clip


@register_method("partial_freeze")
class PartialFreeze(Clip):
    """CLIP's loss; of a tower's n layer groups, from input to output, the first round(fraction n) stay as they are:
    without gradient and in eval mode (running statistics and dropout included).

    Roy et al. 2024, arXiv 2406.07450: 14 groups of a ViT-B/16 (stem with position, 11 blocks, last block with norm,
    projection), 7 of them trained. The groups of other towers are timm's own. Starts from pretrained weights there.
    """

    summary = "CLIP with the first layer groups of a tower frozen"
    source = "Roy et al. 2024, arXiv 2406.07450; open_clip --lock-image-unlocked-groups"
    trains = "as clip, without the first layer groups of a tower"
    extra = "less than nothing: no backward pass through what is frozen"

    @dataclass
    class Config(Clip.Config):
        """tower: whose groups (Roy 2024: the image tower, or the last 2 or 6 of the text tower's trained).
        fraction: share of the groups that is frozen, 0..1 (Roy 2024: 7 of 14).
        """

        tower: Literal["image", "text"] = "image"
        fraction: Share = 0.5

    def __init__(self, model: DualEncoder, config: Config) -> None:
        super().__init__(model, config)
        groups = model.layer_groups(config.tower)
        self.freeze(groups[: round(config.fraction * len(groups))])
