"""The exponential moving average of a method's weights in the course of a training."""

import torch
from torch import Tensor

from benchmark.method import Method


class WeightAverage:
    """A moving average of what a method trains: average <- decay average + (1 - decay) weights, after each step.

    It covers the parameters that are trained now or were in an earlier stage, and the running statistics of
    normalisation layers in training mode. Each begins with its value when follow() first sees it. Everything else
    (frozen parts, momentum teachers, queues) is not averaged. The decay is constant: the average reaches back about
    1 / (1 - decay) steps, and in a training that is not much longer it still holds some of the initial weights.

    Source: Polyak and Juditsky 1992; the update is that of timm's ModelEmaV3 without its warm-up.
    """

    def __init__(self, method: Method, decay: float) -> None:
        self.method = method
        self.decay = decay
        self.tensors: dict[str, Tensor] = {}

    def follow(self) -> None:
        """Begin to average what the method trains now; call when a stage begins."""
        for name, tensor in _trained(self.method).items():
            if name not in self.tensors:
                self.tensors[name] = tensor.detach().clone()

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights; call after each optimiser step."""
        current = _floating(self.method)
        torch._foreach_lerp_([*self.tensors.values()], [current[name] for name in self.tensors], 1 - self.decay)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the method's state dict with the averages in place of the weights."""
        averages = {id(tensor): self.tensors.get(name) for name, tensor in _floating(self.method).items()}
        state = {}
        for name, tensor in self.method.state_dict(keep_vars=True).items():
            average = averages.get(id(tensor))
            state[name] = tensor.detach() if average is None else average
        return state


def _floating(method: Method) -> dict[str, Tensor]:
    tensors = {**dict(method.named_parameters()), **dict(method.named_buffers())}
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}


def _trained(method: Method) -> dict[str, Tensor]:
    """Return the parameters that are trained and the running statistics that a forward pass changes, by name."""
    layers = [module for module in method.modules() if hasattr(module, "running_mean") and module.training]
    running = {id(buffer) for layer in layers for buffer in layer.buffers(recurse=False)}
    return {n: t for n, t in _floating(method).items() if t.requires_grad or id(t) in running}
