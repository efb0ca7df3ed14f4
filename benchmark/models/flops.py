"""What a pair costs to train on."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmark.models.dual_encoder import DualEncoder


def flops_per_pair(model: DualEncoder, text_length: int) -> float:
    """Floating-point operations of the forward and the backward pass of an image and a text of ``text_length`` tokens
    through the towers and projections; a multiplication and an addition are two.

    Counted by torch.utils.flop_counter, which sees matrix products, convolutions and attention, in the model's present
    mode: what is frozen has no backward pass, and patch dropout counts when training. On the meta device it is free.
    """
    # two pairs, since a BatchNorm in training mode refuses one
    device = next(model.parameters()).device
    x = torch.zeros(2, 3, model.image_size, model.image_size, device=device)
    tokens = torch.zeros(2, text_length, dtype=torch.long, device=device)
    mask = torch.ones(2, text_length, dtype=torch.bool, device=device)
    trained = [p for p in model.parameters() if p.requires_grad]
    with FlopCounterMode(display=False) as counter:
        similarity = (model.encode_image(x) * model.encode_text(tokens, mask)).sum()
        if trained:
            torch.autograd.grad(similarity, trained, allow_unused=True)
    return counter.get_total_flops() / 2
