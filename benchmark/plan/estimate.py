"""What a cell will cost, before it runs: counted on the meta device, timed against what this machine does."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmark.config.augmentation import Augmentation
from benchmark.config.schema import Training
from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.models import build_model
from benchmark.plan.plan import Cell, Plan
from benchmark.plan.resolve import build_method
from benchmark.training.accumulation import accumulation_mode
from benchmark.training.cost import parameter_columns
from benchmark.training.schedule import precision_of

if TYPE_CHECKING:
    import pandas as pd

EFFICIENCY = 0.35
"""Share of a large matrix product's speed that training reaches; used only until a cell of the model was measured."""


@dataclass(frozen=True)
class Estimate:
    """samples: of the training. flops_per_sample: of a step. memory: bytes of weights, gradients, optimiser state and
    the activations of a micro-batch with texts of full length. seconds: of the training. measured: whether the time
    comes from a cell of the same method and model in the store. parameters: as in the cost table.
    """

    samples: int
    flops_per_sample: float
    memory: int
    seconds: float
    measured: bool
    parameters: dict[str, int]


class Estimator:
    """Estimates for the cells of a plan. costs: the store's, to take measured speeds from."""

    def __init__(self, plan: Plan, costs: "pd.DataFrame") -> None:
        self.plan = plan
        self.costs = costs
        self._flops_per_second: float | None = None

    def cell(self, cell: Cell, pairs: int | None = None) -> Estimate:
        """The estimate for one cell; ``pairs``, the number of training pairs, is needed for a budget in epochs."""
        model = build_model(self.plan.model, 0, "meta")
        with torch.device("meta"):
            method = build_method(cell.method, model, cell.options).to("meta").train()
        method.enter(next(iter(method.stages())))
        training = cell.training
        room = method.model.text.context_length
        length = min(room, self.plan.model.tokenizer.context_length or room)
        flops = step_flops(method, training, length)
        trained = sum(p.numel() * p.element_size() for p in method.parameters() if p.requires_grad)
        state = sum(t.numel() * t.element_size() for t in method.state_dict().values())
        halved = 2 if precision_of(training, self.plan.device) == "bf16" else 1
        memory = state + 3 * trained + saved_bytes(method, training, length) // halved
        per_sample, measured = self.seconds(cell, flops)
        kind, amount = training.budget
        samples = round(
            {
                "samples": lambda: amount,
                "epochs": lambda: amount * (pairs or 0),
                "steps": lambda: amount * training.batch_size,
                "time": lambda: amount / per_sample,
                "flops": lambda: amount / flops,
            }[kind]()
        )
        seconds = samples * per_sample
        return Estimate(samples, flops, memory, seconds, measured, parameter_columns(method))

    def seconds(self, cell: Cell, flops: float) -> tuple[float, bool]:
        """Of a sample, and whether it was measured. flops: of a sample."""
        if len(self.costs):
            same = self.costs[(self.costs.method == cell.method) & (self.costs.model == cell.label["model"])]
            same = same[same.accumulation == cell.content["training"]["accumulation"]]
            if len(same):
                return 1 / float(same.samples_per_second.iloc[-1]), True
        if self._flops_per_second is None:
            precision = precision_of(cell.training, self.plan.device)
            self._flops_per_second = EFFICIENCY * matrix_speed(self.plan.device, precision)
        return flops / self._flops_per_second, False


def meta_batch(method: Method, count: int, length: int | None = None) -> Batch:
    """``count`` pairs of the model's full size, with texts of ``length`` tokens (default: all that it reads), without
    contents.
    """
    size, length = method.model.image_size, length or method.model.text.context_length
    device = torch.device("meta")
    return Batch(
        image=torch.empty(count, 3, size, size, dtype=torch.uint8, device=device),
        tokens=torch.zeros(count, length, dtype=torch.long, device=device),
        mask=torch.ones(count, length, dtype=torch.bool, device=device),
        row=torch.zeros(count, dtype=torch.long, device=device),
        seed=torch.zeros(count, dtype=torch.long, device=device),
        ids=[],
        image_size=size,
        augmentation=Augmentation.none(),
        label=torch.zeros(count, dtype=torch.long, device=device),
    )


def step_flops(method: Method, training: Training, length: int) -> float:
    """Floating-point operations of a training step a sample of ``length`` tokens, what is frozen left out of the
    backward pass.
    """
    batch = meta_batch(method, 2, length)
    with FlopCounterMode(display=False) as forward:
        output = method(batch)
    with FlopCounterMode(display=False) as backward:
        terms = [value for part in (output.embeddings, output.losses) for value in part.values() if value.requires_grad]
        if terms:
            torch.autograd.backward(terms, [torch.ones_like(term) for term in terms])
    with FlopCounterMode(display=False) as keys:
        method.keys(batch)
    again = accumulation_mode(method, training) == "cached" and training.batch_size > training.micro_batch
    flops = forward.get_total_flops() * (2 if again else 1) + backward.get_total_flops() + keys.get_total_flops()
    return flops / len(batch.image)


def saved_bytes(method: Method, training: Training, length: int) -> int:
    """Bytes that the forward pass of one micro-batch keeps for the backward pass."""
    seen: dict[int, Tensor] = {}
    # A product saves a view of its weights, which are there anyway.
    weights = {parameter.untyped_storage()._cdata for parameter in method.parameters()}

    def save(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in weights:
            seen[tensor.untyped_storage()._cdata] = tensor
        return tensor

    count = min(training.micro_batch, training.batch_size)
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        output = method(meta_batch(method, count, length))
    del output
    return sum(tensor.numel() * tensor.element_size() for tensor in seen.values())


def matrix_speed(device: torch.device, precision: str) -> float:
    """Floating-point operations a second of a product of two large matrices, measured for a moment."""
    size = 4096 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    best = float("inf")
    for _ in range(4):
        began = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best
