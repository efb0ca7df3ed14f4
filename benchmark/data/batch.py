"""The input of a method: one micro-batch of pairs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.config.augmentation import Augmentation
from benchmark.data.transforms import augment


@dataclass
class Batch:
    """b pairs, on the training device.

    image: uint8 [b, 3, S, S] as prepared (before augmentation), or where pictures keep their ratio [b, 3, H, W], with
    zeros at the right of and below those that are smaller.
    size: int64 [b, 2], height and width of each picture where they keep their ratio; None for squares.
    tokens: int64 [b, L], padded to the longest text of the batch; mask: bool [b, L], True on tokens.
    label: int64 [b], or float [b, K] when multi-label, -1 is unknown; None when the data have none.
    row: int64 [b], the number of the pair among the training pairs: the same pair has the same row in every epoch.
    text_hash: int64 [b], equal for identical texts, see text_hash(); of a pair with several texts, that of the drawn
    one.
    seed: int64 [b], one for each sample. Everything random about a sample depends on its seed alone, and not on the
    micro-batch that it is in.
    ids: the ids of the records, for messages.
    image_size: pixels a side of the images that view() returns.
    """

    image: Tensor
    tokens: Tensor
    mask: Tensor
    row: Tensor
    text_hash: Tensor
    seed: Tensor
    ids: list[str]
    image_size: int
    augmentation: Augmentation
    label: Tensor | None = None
    size: Tensor | None = None

    def __len__(self) -> int:
        return len(self.image)

    def view(self, k: int = 0, augmentation: Augmentation | None = None) -> Tensor:
        """Augmented view number ``k``: float [b, 3, image_size, image_size] in 0..1.

        Different ``k`` give different views; the same ``k`` always gives the same view.
        augmentation: replaces that of the run, for example by a stronger one that a method needs.
        """
        return augment(self.image, self.image_size, self.seed, k, augmentation or self.augmentation, self.size)

    def rows(self, numbers: list[int]) -> Self:
        """The pairs with these numbers, which may repeat. The padding does not change."""
        index = torch.tensor(numbers, device=self.row.device)
        return replace(self._each(lambda x: x[index]), ids=[self.ids[number] for number in numbers])

    @classmethod
    def joined(cls, parts: "Sequence[Self]") -> Self:
        """One batch of several of one training, texts and pictures padded as far as the longest and the largest."""
        if len(parts) == 1:
            return parts[0]
        first, edges = parts[0], [max(part.image.shape[i] for part in parts) for i in (2, 3)]
        longest = max(part.tokens.shape[1] for part in parts)

        def grown(x: Tensor, *sizes: int) -> Tensor:
            missing = [size - x.shape[i - len(sizes)] for i, size in enumerate(sizes)]
            return F.pad(x, [side for size in reversed(missing) for side in (0, size)]) if any(missing) else x

        return replace(
            first,
            image=torch.cat([grown(part.image, *edges) for part in parts]),
            tokens=torch.cat([grown(part.tokens, longest) for part in parts]),
            mask=torch.cat([grown(part.mask, longest) for part in parts]),
            row=torch.cat([part.row for part in parts]),
            text_hash=torch.cat([part.text_hash for part in parts]),
            seed=torch.cat([part.seed for part in parts]),
            ids=[id_ for part in parts for id_ in part.ids],
            label=None if first.label is None else torch.cat([part.label for part in parts if part.label is not None]),
            size=None if first.size is None else torch.cat([part.size for part in parts if part.size is not None]),
        )

    def padded(self, length: int) -> Self:
        """The batch with texts padded to ``length`` tokens, at least those that it has."""
        missing = (0, length - self.tokens.shape[1])
        return replace(self, tokens=F.pad(self.tokens, missing), mask=F.pad(self.mask, missing))

    def to(self, device: torch.device | str) -> Self:
        """The batch on another device, copied without waiting."""
        return self._each(lambda x: x.to(device, non_blocking=True))

    def pinned(self) -> Self:
        """The batch in page-locked memory, from which to() copies without waiting."""
        return self._each(Tensor.pin_memory)

    def _each(self, do: Callable[[Tensor], Tensor]) -> Self:
        return replace(
            self,
            image=do(self.image),
            tokens=do(self.tokens),
            mask=do(self.mask),
            row=do(self.row),
            text_hash=do(self.text_hash),
            seed=do(self.seed),
            label=None if self.label is None else do(self.label),
            size=None if self.size is None else do(self.size),
        )
