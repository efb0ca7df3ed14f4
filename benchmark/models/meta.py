"""Building modules on the meta device, for their shapes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

DRAWN = (Tensor.normal_, nn.init.normal_)
"""The functions that fill a tensor with normal random numbers."""
PRODUCTS = (torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__)


class ShapesAlone(TorchFunctionMode):
    """Draws no normal random numbers on the meta device, and scales none: shapes are all that tensors have there.

    PyTorch's operators for it would import its compiler and sympy, which takes longer than the rest of a start.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        first = args[0] if args else kwargs.get("tensor")
        if func is torch.randn and "device" not in kwargs and "out" not in kwargs:
            return torch.empty(*args, **{name: value for name, value in kwargs.items() if name != "generator"})
        if isinstance(first, Tensor) and first.is_meta:
            if func in DRAWN:
                return first
            if func in PRODUCTS and first.is_floating_point() and len(args) == 2 and isinstance(args[1], int | float):
                return torch.empty(first.shape, dtype=first.dtype, device="meta")
        return func(*args, **kwargs)
