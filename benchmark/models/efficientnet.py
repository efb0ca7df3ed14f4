"""Checkpoints of EfficientNets that the library efficientnet_pytorch saved, under the names of timm.

Both build the same networks from the same published weights. The tensors of a block are mapped by ``EXPANDED``, in the
first stage, whose blocks do not expand their channels, by ``NOT_EXPANDED``; all others by ``OUTSIDE``. There the blocks
are numbered through, here by stage.
"""

import re

import torch
from torch import Tensor

OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
} | SQUEEZE
NOT_EXPANDED = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"} | SQUEEZE
MARK = "_conv_stem.weight"
"""A tensor that each of these checkpoints has, and none of timm."""


def timm_names(state: dict[str, Tensor], architecture: str) -> dict[str, Tensor]:
    """Rename the tensors of a checkpoint of efficientnet_pytorch; any other is returned as it is.

    architecture: timm's name. Names that it has no place for are kept, so that loading reports them.
    """
    import timm
    from timm.models.efficientnet import EfficientNet

    if MARK not in state:
        return state
    with torch.device("meta"):
        model = timm.create_model(architecture)
    if not isinstance(model, EfficientNet):
        return state
    places = [f"blocks.{stage}.{block}" for stage, blocks in enumerate(model.blocks) for block in range(len(blocks))]

    def renamed(name: str) -> str:
        block = re.fullmatch(r"(_blocks\.(\d+))\.(\w+)\.(.+)", name)
        if block is None:
            module, _, rest = name.partition(".")
            return f"{OUTSIDE.get(module, module)}.{rest}"
        prefix, number, module, rest = block.groups()
        names = EXPANDED if f"{prefix}._expand_conv.weight" in state else NOT_EXPANDED
        if int(number) >= len(places) or module not in names:
            return name
        return f"{places[int(number)]}.{names[module]}.{rest}"

    return {renamed(name): tensor for name, tensor in state.items()}
