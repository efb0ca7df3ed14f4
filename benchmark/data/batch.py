"""What a method is given: one micro-batch of pairs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from benchmark.config.augmentation import Augmentation
from benchmark.data.transforms import augment


@dataclass
class Batch:
    """b pairs, on the training device.

    image: uint8 [b, 3, S, S] as prepared (before augmentation).
    tokens: int64 [b, L], padded to the longest text of the batch; mask: bool [b, L], True on tokens.
    label: int64 [b], or float [b, K] when multi-label, -1 unknown; None when the data have none.
    row: int64 [b], the number of the pair among the training pairs: the same pair has the same row in every epoch.
    seed: int64 [b], one a sample: what is random about a sample depends on it alone, not on the micro-batch it is in.
    ids: the records' ids, for messages.
    image_size: pixels a side of what view() gives.
    """

    image: Tensor
    tokens: Tensor
    mask: Tensor
    row: Tensor
    seed: Tensor
    ids: list[str]
    image_size: int
    augmentation: Augmentation
    label: Tensor | None = None

    def __len__(self) -> int:
        return len(self.image)

    def view(self, k: int = 0, augmentation: Augmentation | None = None) -> Tensor:
        """Augmented view number ``k``: float [b, 3, image_size, image_size] in 0..1. Views differ by ``k``; the same
        ``k`` always gives the same picture. ``augmentation`` replaces the run's own (a method's strong one, say).
        """
        return augment(self.image, self.image_size, self.seed, k, augmentation or self.augmentation)

    def rows(self, numbers: list[int]) -> Self:
        """The pairs of these numbers, as often as they are named, texts padded as they are."""
        index = torch.tensor(numbers, device=self.row.device)
        return replace(self._each(lambda x: x[index]), ids=[self.ids[number] for number in numbers])

    def to(self, device: torch.device | str) -> Self:
        return self._each(lambda x: x.to(device, non_blocking=True))

    def pinned(self) -> Self:
        """In page-locked memory, from where to() does not wait for the copy."""
        return self._each(Tensor.pin_memory)

    def _each(self, do: Callable[[Tensor], Tensor]) -> Self:
        return replace(
            self,
            image=do(self.image),
            tokens=do(self.tokens),
            mask=do(self.mask),
            row=do(self.row),
            seed=do(self.seed),
            label=None if self.label is None else do(self.label),
        )
