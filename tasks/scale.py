"""Features scaled to mean 0 and standard deviation 1 over those of train."""

from collections.abc import Iterable
from typing import Self

import numpy as np
import torch
from torch import Tensor

from benchmark.probe import deviation


class Scale:
    """Scales features to mean 0 and standard deviation 1 over ``features`` [n, d]."""

    def __init__(self, features: np.ndarray) -> None:
        known = torch.from_numpy(np.asarray(features, np.float64))
        self.mean, self.deviation = known.mean(0), deviation(known)

    @classmethod
    def over(cls, parts: Iterable[Tensor]) -> Self:
        """Make the scale over the features of all parts, each [n, d], with one part in memory at a time.

        Means and variances are merged in float64 (Chan et al. 1979, Updating formulae and a pairwise algorithm).
        """
        count, mean, squares, largest = 0, *torch.zeros(3, 1, dtype=torch.float64)
        for part in parts:
            x = part.detach().cpu().double()
            total = count + len(x)
            apart = x.mean(0) - mean
            mean = mean + apart * (len(x) / total)
            squares = squares + x.var(0, correction=0) * len(x) + apart.square() * (count * len(x) / total)
            largest = torch.maximum(largest, x.abs().amax(0))
            count = total
        scale = cls.__new__(cls)
        spread = (squares / count).sqrt()
        scale.mean, scale.deviation = mean, torch.where(spread > 1e-6 * largest, spread, 1.0)
        return scale

    def __call__(self, features: np.ndarray) -> Tensor:
        """Scale features: float32, of the same shape."""
        return ((torch.from_numpy(np.asarray(features, np.float64)) - self.mean) / self.deviation).float()

    def of(self, features: Tensor) -> Tensor:
        """Scale a tensor, with its graph, on its device and in its precision, at least float32."""
        features = features.float() if features.dtype in (torch.bfloat16, torch.float16) else features
        mean, deviation = (x.to(features.dtype).to(features.device) for x in (self.mean, self.deviation))
        return (features - mean) / deviation
