"""SimCLR beside CLIP: images also against other views of themselves. Variants ``slip`` and ``roy``."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import nn

from benchmark import Augmentation, Batch, CropScale, DualEncoder, Embeddings, Keys, Output, Share, register_method
from benchmark.losses import info_nce, nt_xent

from .clip import Clip


@register_method("simclr")
class SimClr(Clip):
    """With an image I, a text T and two more views A and B of the image, InfoNCE both ways being nce:

        slip:  loss = nce(I, T) + weight NT-Xent(head(A), head(B)),  A and B strongly augmented
        roy:   loss = (nce(I, T) + nce(I, B)) / 2,                   B another crop, projection and temperature shared

    slip: Mu et al. 2021, arXiv 2112.12750, and facebookresearch/SLIP; NT-Xent: Chen et al. 2020, arXiv 2002.05709.
    roy: Roy et al. 2024, arXiv 2406.07450, and afkanpour/benchmarking-contrastive.
    """

    summary = "CLIP, and images against augmented views of themselves (variants slip, roy)"
    source = "SLIP, arXiv 2112.12750; Roy et al. 2024, arXiv 2406.07450"
    trains = "as clip; slip: the head too"
    extra = "slip: two more image passes and a head; roy: one more image pass"
    inferred = "LayerNorm in slip's head (batch normalisation in SLIP); hue turned in YIQ"

    @dataclass
    class Config(Clip.Config):
        """variant: slip or roy. view_scale: roy's second view is a crop of a share of the picture's area in this range;
        null: cropped as training.augmentation says, which the paper does with both views. What follows is slip's, with
        the values of its code:

        weight: of the image-image term. ssl_temperature: of NT-Xent. hidden, width: of the head, an MLP of three layers
        with LayerNorm, so that nothing depends on the micro-batch [I]. hidden: null is 4096, SLIP's for towers of 384
        to 1024, or eight times the tower's width where that is less [I].
        crop_scale, flip, jitter, hue, grey, blur: the strong augmentation; jitter is of brightness, contrast and
        saturation. jittered: probability of jitter and hue together.
        """

        variant: Literal["slip", "roy"] = "slip"
        view_scale: CropScale | None = None
        weight: NonNegativeFloat = 1.0
        ssl_temperature: PositiveFloat = 0.1
        hidden: PositiveInt | None = None
        width: PositiveInt = 256
        crop_scale: CropScale = (0.08, 1.0)
        flip: Share = 0.5
        jitter: Share = 0.4
        hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
        jittered: Share = 0.8
        grey: Share = 0.2
        blur: Share = 0.5

    @classmethod
    def needs_of(cls, config: Config) -> frozenset[str]:
        crops = config.variant == "slip" or config.view_scale is not None
        return cls.needs if crops else cls.needs | {"augmentation"}

    def __init__(self, model: DualEncoder, config: Config) -> None:
        super().__init__(model, config)
        self.another = Augmentation(crop_scale=config.view_scale) if config.view_scale else None
        self.strong = Augmentation(
            crop_scale=config.crop_scale,
            crop_ratio=(3 / 4, 4 / 3),
            flip=config.flip,
            brightness=config.jitter,
            contrast=config.jitter,
            saturation=config.jitter,
            hue=config.hue,
            jittered=config.jittered,
            grey=config.grey,
            blur=config.blur,
        )
        if config.variant == "slip":
            width = model.image.width
            hidden = config.hidden or min(4096, 8 * width)
            self.head = nn.Sequential(*_layer(width, hidden), *_layer(hidden, hidden), nn.Linear(hidden, config.width))

    def forward(self, batch: Batch, *, embeddings_only: bool = False) -> Output:
        embeddings = super().forward(batch).embeddings
        if self.config.variant == "roy":
            return Output(embeddings | {"view": self.model.encode_image(batch.view(1, self.another))})
        views = torch.cat([batch.view(1, self.strong), batch.view(2, self.strong)])
        a, b = F.normalize(self.head(self.model.image_features(views)), dim=-1).chunk(2)
        return Output(embeddings | {"view_a": a, "view_b": b})

    def contrast(self, embeddings: Embeddings, keys: Keys) -> dict[str, torch.Tensor]:
        terms = super().contrast(embeddings, keys)
        if self.config.variant == "roy":
            views = info_nce(embeddings["image"], embeddings["view"], self.logit_scale.exp())
            return {"contrastive": terms["contrastive"] / 2, "views": views / 2}
        views = nt_xent(embeddings["view_a"], embeddings["view_b"], self.config.ssl_temperature)
        return terms | {"views": self.config.weight * views}


def _layer(before: int, after: int) -> list[nn.Module]:
    return [nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU()]
