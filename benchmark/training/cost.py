"""What a training costs: parameters, floating-point operations, memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmark.method import Method
from benchmark.training.memory import PeakMemory, TensorPeak

if TYPE_CHECKING:
    from benchmark.training.loop import _Loop


def parameter_columns(method: Method) -> dict[str, int]:
    """The parameters of the encoder that is evaluated, whole and by tower, and how many of the method's are trained in
    any stage (heads and temperatures included, teachers not). Leaves the method in its last stage.
    """
    trained: dict[int, int] = {}
    sides: dict[str, int] = {}
    for stage in method.stages():
        method.enter(stage)
        trained |= {id(p): p.numel() for p in method.parameters() if p.requires_grad}
        counts = method.model.parameter_counts()
        sides |= {name: max(count, sides.get(name, 0)) for name, count in counts.items()}
    return {
        "parameters": sides.pop("total"),
        "parameters_trainable": sum(trained.values()),
        **{f"parameters_{name}": count for name, count in sides.items() if name != "total_trainable"},
    }


class _Memory:
    """The peak memory of a training's steps, in bytes: weights, teacher, queues and the optimiser's state, and what a
    step's gradients and activations add. The first step, in which libraries set themselves up, counts only where it is
    the only one; on the CPU the second counts alone.
    """

    def __init__(self, loop: "_Loop") -> None:
        self.loop, self.grown = loop, PeakMemory(loop.device)
        self.seen, self.held, self.highest = 0, 0, 0

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Around each step."""
        begins = self.seen == 1 or (self.seen == 0 and self.loop.step == self.loop.steps - 1)
        if begins:
            self.held = self.loop.held()
            self.grown.start()
        if begins and self.loop.device.type == "cpu":
            with TensorPeak() as tensors:
                yield
            self.highest = self.held + tensors.bytes
        else:
            yield
        if self.held and self.loop.device.type != "cpu":
            self.highest = self.held + self.grown.peak()
        self.seen += 1
