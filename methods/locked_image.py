"""LiT: CLIP with the image tower locked whole."""

from dataclasses import dataclass

from benchmark import register_method
from benchmark.models import DualEncoder
from methods.clip import Clip


@register_method("locked_image")
class LockedImage(Clip):
    """CLIP's loss; the image tower stays as it is, without gradient and in eval mode: the text tower learns to
    match it.

    Zhai et al. 2022, arXiv 2111.07991. Starts from pretrained weights there; from random ones it is a baseline.
    """

    summary = "CLIP with the image tower locked (LiT)"
    source = "Zhai et al. 2022, arXiv 2111.07991; Roy et al. 2024, arXiv 2406.07450"
    trains = "the text tower and the temperature"
    extra = "less than nothing: no backward pass through the image tower"

    @dataclass
    class Config(Clip.Config):
        """projection: train the image tower's projection (open_clip's --lock-image does not; a tower that comes without
        a projection of its own has a random one)."""

        projection: bool = False

    def __init__(self, model: DualEncoder, config: Config) -> None:
        super().__init__(model, config)
        self.freeze(model.image.layer_groups() if config.projection else model.layer_groups("image"))
