"""Masked contrastive learning: each image against its text and against a masked view of itself."""

from dataclasses import dataclass

from pydantic import NonNegativeFloat
from torch import Tensor

from benchmark import (
    Augmentation,
    Batch,
    CropScale,
    DualEncoder,
    Embeddings,
    Keys,
    Output,
    ShareBelowOne,
    register_method,
)
from benchmark.losses import info_nce

from .clip import Clip
from .simclr import weighted_mean


@register_method("masked")
class Masked(Clip):
    """Add to CLIP's loss a contrast between each image and a masked view of it.

    With an image I, its text T, and a second crop B of the image with a share of its patches dropped:

        loss = (nce(I, T) + weight nce(I, B)) / (1 + weight),  nce: symmetric InfoNCE, same projection and temperature

    With weight 0 it is clip. A view of an image is its own whatever its text: training.same_text concerns nce(I, T).

    Source: Roy et al. 2024, arXiv 2406.07450. Their published script passes no ratio and therefore masks nothing.
    """

    summary = "CLIP plus a contrast of each image with a masked view of itself"
    source = "Roy et al. 2024, arXiv 2406.07450"
    trains = "as clip"
    extra = "one more image pass, over a share of the patches"
    inferred = "the mask ratio, which the public script leaves at 0"
    needs = frozenset({"patch_dropout"})

    @dataclass
    class Config(Clip.Config):
        """Hyperparameters.

        weight: of the term between the views, >= 0 (Roy 2024: the mean of both terms, 1).
        mask_ratio: share of the patches dropped from the second view during training, in [0, 1) [I].
        view_scale: range of the share of the image area that the second view covers; null: crop both views by
            training.augmentation, as the paper does.
        """

        weight: NonNegativeFloat = 1.0
        mask_ratio: ShareBelowOne = 0.5
        view_scale: CropScale | None = None

    def __init__(self, model: DualEncoder, config: Config) -> None:
        super().__init__(model, config)
        self.another = Augmentation(crop_scale=config.view_scale) if config.view_scale else None

    def forward(self, batch: Batch, *, embeddings_only: bool = False) -> Output:
        """Encode the pair and the masked second view."""
        embeddings = super().forward(batch).embeddings
        with self.model.image.dropping(self.config.mask_ratio):
            view = self.model.encode_image(batch.view(1, self.another))
        return Output(embeddings | {"view": view})

    def contrast(self, embeddings: Embeddings, keys: Keys) -> dict[str, Tensor]:
        """Return clip's loss and that between the views, their weighted mean."""
        terms = super().contrast(embeddings, keys)
        pairs = self.targets(keys).by_pair()
        views = info_nce(embeddings["image"], embeddings["view"], self.logit_scale.exp(), pairs)
        return weighted_mean(terms["contrastive"], views, self.config.weight)
