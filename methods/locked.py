"""LiT: CLIP with one tower frozen completely."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from benchmark import DualEncoder, register_method

from .clip import Clip


class Locked(Clip):
    """Minimise CLIP's loss with one tower frozen (no gradient, eval mode), so that the other learns to match it.

    Source: Zhai et al. 2022, arXiv 2111.07991, who start from pretrained weights. From random weights it is a baseline.
    """

    side: ClassVar[Literal["image", "text"]]
    source = "Zhai et al. 2022, arXiv 2111.07991; Roy et al. 2024, arXiv 2406.07450"

    @dataclass
    class Config(Clip.Config):
        """Hyperparameters.

        projection: whether to train the locked tower's projection. open_clip's --lock-image and --lock-text do not; but
        a tower without a pretrained projection gets a random one.
        """

        projection: bool = False

    def __init__(self, model: DualEncoder, config: Config) -> None:
        super().__init__(model, config)
        tower = model.image if self.side == "image" else model.text
        self.freeze(tower.layer_groups() if config.projection else model.layer_groups(self.side))


@register_method("locked_image")
class LockedImage(Locked):
    """Lock the image tower (LiT)."""

    side = "image"
    summary = "CLIP with the image tower locked (LiT)"
    trains = "the text tower and the temperature"
    extra = "nothing; saves the backward pass through the image tower"


@register_method("locked_text")
class LockedText(Locked):
    """Lock the text tower, the reverse of LiT."""

    side = "text"
    summary = "CLIP with the text tower locked (LiT reversed)"
    trains = "the image tower and the temperature"
    extra = "nothing; saves the backward pass through the text tower"
