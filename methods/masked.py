"""Masked contrastive learning: an image against its text, and against a view of itself with patches left out."""

from dataclasses import dataclass

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


@register_method("masked")
class Masked(Clip):
    """With an image I, its text T and another crop B of the image of which a share of the patches is left out:

        loss = (nce(I, T) + nce(I, B)) / 2,  nce: InfoNCE both ways, projection and temperature shared

    Roy et al. 2024, arXiv 2406.07450. Their committed script passes no ratio and so masks nothing.
    """

    summary = "CLIP, and images against a masked view of themselves"
    source = "Roy et al. 2024, arXiv 2406.07450"
    trains = "as clip"
    extra = "one more image pass, over a share of the patches"
    inferred = "the ratio, which the public script leaves at 0"
    needs = frozenset({"patch_dropout"})

    @dataclass
    class Config(Clip.Config):
        """mask_ratio: share of the patches left out of the second view while training, in [0, 1) [I].
        view_scale: the second view is a crop of a share of the picture's area in this range; null: cropped as
        training.augmentation says, which the paper does with both views.
        """

        mask_ratio: ShareBelowOne = 0.5
        view_scale: CropScale | None = None

    def __init__(self, model: DualEncoder, config: Config) -> None:
        super().__init__(model, config)
        self.another = Augmentation(crop_scale=config.view_scale) if config.view_scale else None

    def forward(self, batch: Batch, *, embeddings_only: bool = False) -> Output:
        embeddings = super().forward(batch).embeddings
        with self.model.image.dropping(self.config.mask_ratio):
            view = self.model.encode_image(batch.view(1, self.another))
        return Output(embeddings | {"view": view})

    def contrast(self, embeddings: Embeddings, keys: Keys) -> dict[str, Tensor]:
        terms = super().contrast(embeddings, keys)
        views = info_nce(embeddings["image"], embeddings["view"], self.logit_scale.exp())
        return {"contrastive": terms["contrastive"] / 2, "views": views / 2}
