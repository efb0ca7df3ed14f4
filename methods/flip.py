"""FLIP: CLIP with most image patches dropped, which makes a step cheaper."""

from dataclasses import dataclass

from benchmark import DualEncoder, ShareBelowOne, register_method

from .clip import Clip


@register_method("flip")
class Flip(Clip):
    """Minimise CLIP's loss on a random share 1 - patch_dropout of each training image's patches.

    Source: Li et al. 2023, arXiv 2212.00794; facebookresearch/flip. Roy et al. 2024 try 0.25, 0.5, 0.75 and 0.85.
    """

    summary = "CLIP with image patches dropped during training"
    source = "Li et al. 2023, arXiv 2212.00794"
    trains = "as clip"
    extra = "nothing; image passes cover only a share of the patches"
    needs = frozenset({"patch_dropout"})

    @dataclass
    class Config(Clip.Config):
        """Hyperparameters.

        patch_dropout: share of the patches that are dropped, in [0, 1) (0.5: the paper's default, Roy 2024's best).
        """

        patch_dropout: ShareBelowOne = 0.5

    def __init__(self, model: DualEncoder, config: Config) -> None:
        super().__init__(model, config)
        model.image.patch_dropout = config.patch_dropout
