"""LiT: CLIP with one tower locked whole."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from benchmark import DualEncoder, register_method

from .clip import Clip


class Locked(Clip):
    """CLIP's loss; one tower stays as it is, without gradient and in eval mode: the other learns to match it.

    Zhai et al. 2022, arXiv 2111.07991. Starts from pretrained weights there; from random ones it is a baseline.
    """

    side: ClassVar[Literal["image", "text"]]
    source = "Zhai et al. 2022, arXiv 2111.07991; Roy et al. 2024, arXiv 2406.07450"

    @dataclass
    class Config(Clip.Config):
        """projection: train the locked tower's projection (open_clip's --lock-image and --lock-text do not; a tower
        that comes without a projection of its own has a random one).
        """

        projection: bool = False

    def __init__(self, model: DualEncoder, config: Config) -> None:
        super().__init__(model, config)
        tower = model.image if self.side == "image" else model.text
        self.freeze(tower.layer_groups() if config.projection else model.layer_groups(self.side))


@register_method("locked_image")
class LockedImage(Locked):
    """LiT: the image tower is locked."""

    side = "image"
    summary = "CLIP with the image tower locked (LiT)"
    trains = "the text tower and the temperature"
    extra = "less than nothing: no backward pass through the image tower"


@register_method("locked_text")
class LockedText(Locked):
    """LiT turned round: the text tower is locked."""

    side = "text"
    summary = "CLIP with the text tower locked (LiT)"
    trains = "the image tower and the temperature"
    extra = "less than nothing: no backward pass through the text tower"
