"""SimCLR added to CLIP: images are also contrasted with other views of themselves (variants ``slip``, ``roy``)."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from benchmark import Augmentation, Batch, CropScale, DualEncoder, Embeddings, Keys, Output, Share, register_method
from benchmark.losses import info_nce, nt_xent

from .clip import Clip


@register_method("simclr")
class SimClr(Clip):
    """Add to CLIP's loss a contrast between views of the same image.

    With an image I, a text T, two more views A and B of the image, and nce the symmetric InfoNCE:

        slip:  loss = nce(I, T) + weight NT-Xent(head(A), head(B)),   A and B strongly augmented
        roy:   loss = (nce(I, T) + weight nce(I, B)) / (1 + weight),  B a second crop, projection and temperature shared

    With weight 0 both are clip. A view of an image is its own whatever its text: training.same_text concerns nce(I, T).

    Source of slip: Mu et al. 2021, arXiv 2112.12750, and facebookresearch/SLIP; NT-Xent: Chen et al. 2020, arXiv
    2002.05709. Source of roy: Roy et al. 2024, arXiv 2406.07450, and afkanpour/benchmarking-contrastive.
    """

    summary = "CLIP plus a contrast of each image with augmented views of itself (variants slip, roy)"
    source = "SLIP, arXiv 2112.12750; Roy et al. 2024, arXiv 2406.07450"
    trains = "as clip; slip: plus the head"
    extra = "slip: two more image passes and the head; roy: one more image pass"
    inferred = "LayerNorm in slip's head (SLIP uses batch normalisation); hue rotation in YIQ"

    @dataclass
    class Config(Clip.Config):
        """Hyperparameters.

        variant: slip or roy.
        weight: of the term between the views, >= 0 (SLIP: 1; Roy 2024: the mean of both terms, 1).
        view_scale: for roy, range of the share of the image area that the second view covers; null: crop both views by
            training.augmentation, as the paper does.

        The others belong to slip; their defaults are those of its code.
        ssl_temperature: of NT-Xent.
        hidden, width: of the head, an MLP of three layers with LayerNorm, so that nothing depends on the micro-batch
            [I]. hidden null: 4096, as in SLIP for towers of width 384 to 1024, or eight times the tower's width if that
            is less [I].
        crop_scale, flip, jitter, hue, grey, blur: the strong augmentation; jitter applies to brightness, contrast and
            saturation. jittered: probability of applying jitter and hue.
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
        """Add "augmentation" where nothing else makes the two views differ."""
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
        """Encode the pair and its additional view (roy) or views (slip)."""
        embeddings = super().forward(batch).embeddings
        if self.config.variant == "roy":
            return Output(embeddings | {"view": self.model.encode_image(batch.view(1, self.another))})
        views = torch.cat([batch.view(1, self.strong), batch.view(2, self.strong)])
        a, b = F.normalize(self.head(self.model.image_features(views)), dim=-1).chunk(2)
        return Output(embeddings | {"view_a": a, "view_b": b})

    def contrast(self, embeddings: Embeddings, keys: Keys) -> dict[str, Tensor]:
        """Return clip's term and the term between the views, weighted by the variant."""
        terms = super().contrast(embeddings, keys)
        if self.config.variant == "roy":
            pairs = self.targets(keys).by_pair()
            views = info_nce(embeddings["image"], embeddings["view"], self.logit_scale.exp(), pairs)
            return weighted_mean(terms["contrastive"], views, self.config.weight)
        views = nt_xent(embeddings["view_a"], embeddings["view_b"], self.config.ssl_temperature, self.smoothing)
        return terms | {"views": self.config.weight * views}


def weighted_mean(contrastive: Tensor, views: Tensor, weight: float) -> dict[str, Tensor]:
    """Return the two terms of (contrastive + weight views) / (1 + weight)."""
    return {"contrastive": contrastive / (1 + weight), "views": weight * views / (1 + weight)}


def _layer(before: int, after: int) -> list[nn.Module]:
    return [nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU()]
