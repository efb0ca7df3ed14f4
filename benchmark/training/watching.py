"""The base of what watches each operator of a block: counters of operations, of memory and of random draws."""

from torch.utils._python_dispatch import TorchDispatchMode


class Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A dispatch mode that does not import torch's compiler.

    Torch does by default, to keep it away from ``__torch_dispatch__``; that takes as long as importing torch itself.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
